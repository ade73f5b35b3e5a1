"""
Publishes at QoS 0, whatever became of the last messages, until the connection is lost; then it
says for how long at most another task had to wait for its turn.

    asyncio.run(chatter.run(tls, size))     size: bytes of a payload
"""

import asyncio
import time

import config

from mqtt_as_tls import MQTTClient


async def run(tls, size):
    client = MQTTClient(
        config.host,
        config.port if tls else config.tcp_port,
        link=config.link,
        tls=config.tls if tls else None,
        client_id="pico",
        keepalive_s=40,
    )
    longest = waiting = 0

    async def publish(payload):
        nonlocal waiting
        waiting += 1
        await client.publish("from/pico", payload)
        waiting -= 1

    async def tick():
        nonlocal longest
        while True:
            start = time.ticks_ms()
            await asyncio.sleep_ms(20)
            longest = max(longest, time.ticks_diff(time.ticks_ms(), start))

    async with client:
        await client.wait_connected(60)
        ticker = asyncio.create_task(tick())
        number = 0
        while client.connected:
            if waiting < 20:
                asyncio.create_task(publish(str(number) + " " * size))
            number += 1
            if number == 40:
                print("chattering")
            await asyncio.sleep_ms(50)
        ticker.cancel()
        print("longest", longest)
