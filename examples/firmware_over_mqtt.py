"""Receive a file of any size in pieces, and put it in its place only when its SHA-256 is right.

On the PC: .venv/bin/micropython -m examples.firmware_over_mqtt (docs/tls.md, An app on the PC).
"""

import asyncio
import hashlib
import os
from binascii import hexlify

import config

from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)
piece = bytearray(1024)


# mosquitto_pub -q 1 -t devices/NAME/image/$(sha256sum app.bin | cut -c -64) -f app.bin
@client.on(config.home + "image/+", qos=1, stream=True)
async def image(message):
    wanted = message.topic.split("/")[-1]
    summed = hashlib.sha256()
    with open("app.new", "wb") as file:
        while True:
            n = await message.stream.readinto(piece)  # raises when the connection is lost:
            if not n:  # the broker sends it all again then
                break
            summed.update(memoryview(piece)[:n])
            file.write(memoryview(piece)[:n])
    right = hexlify(summed.digest()).decode() == wanted
    if right:
        os.rename("app.new", "app.bin")
    await client.publish(config.home + "app", ("installed " if right else "not ") + wanted, qos=1)


async def main():
    async with client:
        while True:
            await asyncio.sleep(3600)  # everything happens in the handler


asyncio.run(main())
