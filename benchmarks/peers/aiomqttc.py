"""aiomqttc of PyPI. It logs to stdout, where run.py passes over what is no result."""

import asyncio

from aiomqttc import MQTTClient

from benchmarks.awaiting import contest
from benchmarks.common import CLIENT_ID, HOST, PORT, context

_context = context()


async def open(arrived=None, filter=None, qos=0):
    client = MQTTClient(CLIENT_ID, HOST, PORT, ssl=_context)

    async def on_message(client, topic, payload, retain):
        arrived()

    if arrived:
        client.on_message = on_message
    if not await client.connect():
        raise OSError("not connected")
    if filter:
        await client.subscribe(filter, qos)
        while not client.subscriptions[filter]["confirmed"]:
            await asyncio.sleep_ms(1)
    return client


async def close(client):
    await client.disconnect()


contest(open, close)
