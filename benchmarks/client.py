"""mqtt_as_tls under the workloads, used as an app uses it."""

import asyncio

from benchmarks.awaiting import contest
from benchmarks.common import CA, CLIENT_ID, HOST, IN_FLIGHT, PORT
from mqtt_as_tls import TLS, MQTTClient

_tls = TLS(ca=CA) if CA else None


async def open(arrived=None, filter=None, qos=0):
    client = MQTTClient(
        HOST,
        PORT,
        tls=_tls,
        client_id=CLIENT_ID,
        clean_start=True,
        max_inflight=IN_FLIGHT,
        log=None,
    )
    if filter:
        subscribed = asyncio.Event()
        client.on(filter, qos)(lambda message: arrived())

        @client.on_connect  # it runs when the broker has granted the subscription
        async def connected():
            subscribed.set()

    await client.__aenter__()
    await (subscribed.wait() if filter else client.wait_connected())
    return client


async def close(client):
    await client.disconnect()


contest(open, close)
