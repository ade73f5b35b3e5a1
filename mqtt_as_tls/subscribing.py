"""subscribe() and unsubscribe() for topics that an app learns while it runs."""

import asyncio

from . import packet
from .errors import RefusedError


def subscribe(client, filter, qos=0, *, timeout_s=None):
    """
    `client.subscribe(...)`: subscribe now and after every connect; handlers and `messages()` get
    what matches.

    filter     str, topic filter (3.1.1 section 4.7)
    qos        int, 0 or 1
    timeout_s  seconds, or None. A time-out ends the waiting only: the subscription stays declared

    The awaited call returns the granted QoS (int).

    Raises ValueError, TypeError, RuntimeError (not running) at the call; RefusedError;
    asyncio.TimeoutError.
    """
    client._check()
    wait = _subscribe(client, client._declare(filter, qos))
    return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)


async def _subscribe(client, sub):
    while sub.granted is None:
        await client.wait_connected()
        await asyncio.sleep_ms(10)
    if sub.granted > 2:
        if not sub.handler:
            _remove(client._dispatcher, sub)
        raise RefusedError("the broker refused the subscription to %r" % sub.filter, sub.granted)
    return sub.granted


def unsubscribe(client, filter, *, timeout_s=None):
    """
    `client.unsubscribe(...)`: take back a subscription and its handler; the awaited call returns
    when the broker knows. What waits for the handler is acknowledged.

    Raises ValueError at the call for a filter that is not subscribed, RuntimeError when the client
    is not running; asyncio.TimeoutError.
    """
    client._check()
    sub = client._dispatcher.find(filter)
    if not sub:
        from .mistakes import not_subscribed

        raise not_subscribed(filter)
    _remove(client._dispatcher, sub)
    wait = _unsubscribe(client, sub)
    return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)


async def _unsubscribe(client, sub):
    sub.granted = None
    sub.asked = False  # else its UNSUBACK would pass for a refusal
    while sub.granted is None and not client._dispatcher.find(sub.filter):
        await client.wait_connected()
        connects = client.stats.connects
        client._request(packet.unsubscribe, [sub], sub.data)
        while sub.granted is None and client.connected and client.stats.connects == connects:
            await asyncio.sleep_ms(10)


def _remove(dispatcher, sub):
    """Take back `sub`: its queue is acknowledged, a handler that runs finishes."""
    if sub in dispatcher.subscriptions:
        dispatcher.subscriptions.remove(sub)
    if sub.task and not sub.current:
        sub.task.cancel()
    sub.task = None
    while sub.queue:
        dispatcher.release(sub.queue.pop(0))
