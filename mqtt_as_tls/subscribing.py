"""subscribe() and unsubscribe() for topics that an app learns while it runs."""

import asyncio

from . import packet
from .errors import RefusedError


async def subscribe(client, filter, qos):
    """Declare `filter` (str) and return the QoS that the broker grants, across reconnects."""
    sub = client._declare(filter, qos, None)
    while sub.granted is None:
        await client.wait_connected()
        await asyncio.sleep_ms(10)
    if sub.granted > 2:
        if not sub.handler:
            client._dispatcher.remove(sub)
        raise RefusedError("the broker refused the subscription to %r" % filter, sub.granted)
    return sub.granted


async def unsubscribe(client, sub):
    """Take back `sub` (Subscription) and return when the broker knows, across reconnects."""
    client._dispatcher.remove(sub)
    sub.granted = None
    while sub.granted is None:
        await client.wait_connected()
        connects = client.stats.connects
        client._request(packet.unsubscribe, [sub], sub.data)
        while sub.granted is None and client.connected and client.stats.connects == connects:
            await asyncio.sleep_ms(10)
