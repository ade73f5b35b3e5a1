"""
An app in a small heap, for starvation.py: it publishes, obeys, and says how far it came.

    starving.py PORT PROTOCOL tcp|tls|mtls plain|store|streams ID

Its files lie in the working directory. What it imports costs memory, so that is little.
"""

import asyncio
import sys

from mqtt_as_tls import MQTTClient

port, protocol, security, extra, name = sys.argv[1:]
options = {}
if security != "tcp":
    from mqtt_as_tls import TLS

    pair = ("cert.der", "key.der") if security == "mtls" else (None, None)
    options["tls"] = TLS("ca.der", *pair, server_hostname="broker.lan", ntp=None)
if extra == "store":
    from mqtt_as_tls import FileStore

    options["store"] = FileStore("store")
print("imported")


class Source:
    """20 KB to be published in pieces."""

    def __init__(self):
        self.left = 20000

    def seek(self, at):
        self.left = 20000 - at

    def tell(self):
        return 20000 - self.left

    def readinto(self, buf):
        n = min(len(buf), self.left)
        self.left -= n
        return n


async def down(message):
    n = len(message.payload)
    if message.stream:
        buf = bytearray(256)
        while True:
            k = await message.stream.readinto(buf)
            if not k:
                break
            n += k
    print("got", n)


async def publish(client, n):
    if extra == "store":
        client.enqueue("up", str(n), qos=1)
    elif extra == "streams":
        await client.publish("up", Source(), length=20000, qos=1)
    else:
        await client.publish("up", str(n), qos=1)


async def alive():
    while True:
        print("alive")
        await asyncio.sleep_ms(300)


async def main():
    client = MQTTClient("127.0.0.1", int(port), protocol=int(protocol), client_id=name, **options)
    client.on("down", 1, **({"stream": True} if extra == "streams" else {}))(down)
    asyncio.create_task(alive())
    async with client:
        print("started")
        n = 0
        while True:
            await publish(client, n)
            n += 1
            await asyncio.sleep_ms(200)


asyncio.run(main())
