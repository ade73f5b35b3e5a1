"""Payloads larger than the free heap: giant.main(size) sends one and receives one."""

import asyncio
import gc

import config
from large import Source, drink

from mqtt_as_tls import MQTTClient


async def _main(size):
    client = MQTTClient(config.host, config.port, link=config.link, tls=config.tls)
    received = asyncio.Event()

    @client.on("to/pico/giant", qos=1, stream=True)
    async def giant(message):
        print("received", message.length, *await drink(message.stream))
        received.set()

    async with client:
        await client.wait_connected(60)
        gc.collect()
        print("free", gc.mem_free())
        await client.publish("from/pico/giant", Source(size), length=size, qos=1)
        await received.wait()
    print("giant done")


def main(size):
    asyncio.run(_main(size))
