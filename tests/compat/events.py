"""A program written for mqtt_as: the event interface, a session that is kept, TLS."""

import asyncio

from mqtt_as import MQTTClient
from mqtt_local import config

outages = 0


async def messages(client):
    async for topic, msg, retained in client.queue:
        await asyncio.sleep_ms(10)
        print("got", topic.decode(), msg.decode(), retained)


async def up(client):
    while True:
        await client.up.wait()
        client.up.clear()
        await client.subscribe("garden/valve", 1)
        print("up")


async def down(client):
    global outages
    while True:
        await client.down.wait()
        client.down.clear()
        outages += 1
        print("down", outages, client.isconnected())


async def main(client):
    for task in (up, down, messages):
        asyncio.create_task(task(client))
    await client.connect()
    n = 0
    while True:
        s = "{} repubs: {} outages: {} discards: {}"
        s = s.format(n, client.REPUB_COUNT, outages, client.queue.discards)
        await client.publish("garden/reading", s, qos=1)
        n += 1
        await asyncio.sleep_ms(100)


config["queue_len"] = 4
config["clean"] = False
config["keepalive"] = 120
config["will"] = ("garden/status", "gone", False, 1)

MQTTClient.DEBUG = True
client = MQTTClient(config)
try:
    asyncio.run(main(client))
finally:
    client.close()
