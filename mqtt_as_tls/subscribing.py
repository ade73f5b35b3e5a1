"""subscribe() and unsubscribe() for topics that an app learns while it runs."""

import asyncio

from micropython import const

from . import load
from .dispatch import Subscription
from .errors import RefusedError
from .router import filter

_STRIKES = const(3)  # connections that ended on an UNSUBSCRIBE
_GIVEN_UP = const(-1)  # of a Subscription that nobody waits for any more: its `granted`


def subscribe(client, filter, qos=0, *, timeout_s=None, **options):
    """
    `client.subscribe(...)`: subscribe now and after every connect; handlers and `messages()` get
    what matches.

    filter     str, topic filter (3.1.1 section 4.7)
    qos        int, 0 to 2
    timeout_s  seconds, or None. What is not granted by then, or when the call is cancelled, is not
               asked for any more, unless a handler wants it or it was subscribed to before

    MQTT 5: no_local, retain_as_published bool, retain_handling int, properties

    The awaited call returns the granted QoS (int).

    Raises ValueError, TypeError, RuntimeError (not running) at the call; RefusedError;
    asyncio.TimeoutError.
    """
    client.check_running(timeout_s)
    client.dispatcher.asks()
    new = not client.dispatcher.find(filter)
    sub = client.dispatcher.declare(filter, qos, options)
    wait = _subscribe(client, sub, new, qos, options)
    return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)


async def _subscribe(client, sub, new, qos, options):
    try:
        while sub.granted is None:
            await client.wait_connected()
            await asyncio.sleep_ms(10)
            if sub.granted == _GIVEN_UP:  # by the call that waited for it first
                new = True
                sub = client.dispatcher.declare(sub.filter, qos, options)
    except asyncio.CancelledError:
        if new and sub.granted is None and not sub.handler:
            _take_back(client, sub)
            if sub.asked and client.connected:  # the broker may have it
                gone = (Subscription(sub.filter, sub.data, 0),)
                client.dispatcher.request(client.wire.unsubscribe, gone, [sub.data], b"")
            sub.granted = sub.asked = _GIVEN_UP
        raise
    if sub.granted > 2:
        if not sub.handler:
            _take_back(client, sub)
        raise sub.reason
    return sub.granted


def unsubscribe(client, *filters, timeout_s=None, properties=None):
    """
    `client.unsubscribe(...)`: take back subscriptions and their handlers; the awaited call returns
    when the broker knows. What waits for a handler is acknowledged. A filter that this client does
    not know is taken back too: the session may have it from an earlier program.

    filters     str, one or more
    properties  dict or list of pairs (MQTT 5)

    Raises ValueError at the call for no topic filter, RuntimeError when the client is not running;
    RefusedError (MQTT 5; with either when three connections in a row ended on it, and it is not
    asked for any more); asyncio.TimeoutError.
    """
    client.check_running(timeout_s)
    client.dispatcher.asks()
    data = b""
    if properties:
        if not client.five:
            raise load("argument_errors").option("properties", properties)
        data = client.five.encode(properties, 0xA2)
    subs = []
    for name in filters:
        known = client.dispatcher.find(name)
        subs.append(known or Subscription(name, filter(name), 0))
    for sub in subs:
        _take_back(client, sub)
    wait = _unsubscribe(client, subs, data)
    return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)


async def _unsubscribe(client, subs, properties):
    for sub in subs:
        sub.granted = sub.reason = None
        sub.asked = False  # else its UNSUBACK would pass for a refusal
    answered = False
    strikes = 0
    while not answered:
        if strikes == _STRIKES:
            raise RefusedError("connections end on UNSUBSCRIBE %r" % subs[0].filter, 128)
        await client.wait_connected()
        if not client.connected:  # it was, for a moment
            continue
        # those that were declared again stay
        subs = tuple([sub for sub in subs if not client.dispatcher.find(sub.filter)])
        if not subs:
            return
        connects = client.stats.connects
        t = client.connection.transport
        filters = [sub.data for sub in subs]
        if client.five:
            client.five.fit(len(client.wire.unsubscribe(1, filters, properties)))
        client.dispatcher.request(client.wire.unsubscribe, subs, filters, properties)
        # a SUBACK that is still to come says nothing about it
        while not answered and client.connected and client.stats.connects == connects:
            await asyncio.sleep_ms(10)
            answered = not t.error and subs not in client.session.requests.values()
        strikes += 1
    for sub in subs:
        if sub.reason:
            raise sub.reason


def _take_back(client, sub):
    """Take back `sub`: its queue is acknowledged, a handler that runs finishes."""
    dispatcher = client.dispatcher
    dispatcher.index = None
    if sub in dispatcher.subscriptions:
        dispatcher.subscriptions.remove(sub)
    others = [
        lane for lane in dispatcher.others if lane.current or lane.task or lane is dispatcher.inbox
    ]
    if sub.current:
        others.append(sub)  # handler_timeout_s still counts
    elif sub.task:
        sub.task.cancel()
    sub.task = None
    dispatcher.others = others
    while sub.queue:
        dispatcher.release(sub.queue.pop(0))
