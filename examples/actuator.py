"""Switch a relay by messages, and let everybody see its state and whether it is there.

On the PC: .venv/bin/micropython -m examples.actuator (docs/tls.md, An app on the PC).
"""

import asyncio

import config
from machine import Pin

from mqtt_as_tls import MQTTClient, Will

relay = Pin(15, Pin.OUT, value=0)

client = MQTTClient(
    **config.mqtt,
    # The broker says "offline" when the device is gone; the client says "online" when it is back.
    will=Will(config.home + "status", "offline", qos=1, retain=True, birth="online"),
)


@client.on(config.home + "valve/set", qos=1)
async def switch(message):
    if message.payload in (b"on", b"off"):
        relay.value(message.payload == b"on")
        await client.publish(config.home + "valve", message.payload, qos=1, retain=True)
    else:
        print("neither on nor off:", message.payload)


async def main():
    async with client:
        while True:
            await asyncio.sleep(3600)  # everything happens in the handler


asyncio.run(main())
