"""connect() of a script, disconnect(), and what is left behind when a run was interrupted."""

import asyncio
import time
from asyncio import core

from . import packet
from .errors import ConnectError, MQTTError


async def connect(client, timeout_s):
    """Return when `client` is connected, or stop it and raise what keeps it from connecting."""
    if not client.running:
        client._start()
    end = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
    while not client.connected:
        if client._slow or time.ticks_diff(end, time.ticks_ms()) <= 0:
            error = client.error
            await disconnect(client)
            raise error or ConnectError("not connected within %s s" % timeout_s)
        await asyncio.sleep_ms(20)


async def disconnect(client):
    """Say goodbye, wait for what is in flight, stop."""
    client.running = False
    try:
        will = client._will
        if will and client.connected:
            client._queue.append(client._encode(will.topic, will.payload, will.qos, will.retain))
            client._pump()
        end = time.ticks_add(time.ticks_ms(), int(client.drain_s * 1000))
        while (
            client.connected
            and (client._queue or client._session.inflight or client._transport.blocked)
            and time.ticks_diff(end, time.ticks_ms()) > 0
        ):
            await asyncio.sleep_ms(10)
        if client.connected:
            client._transport.write(packet.DISCONNECT)
            client._say("disconnected")
    finally:
        stop(client)


def stop(client):
    """Stop `client` at once: close its connection, end its tasks, tell what waits."""
    client.running = False
    client._running.remove(client)
    tasks = client._tasks + [client._task]
    client._task = None
    client._tasks = []
    client._down()
    tasks += client._dispatcher.stop()
    if client._loop is core._task_queue:  # tasks of an event loop that is gone never run again
        for task in tasks:
            if task is not core.cur_task:
                task.cancel()
    waiting = client._queue + client._session.inflight
    client._queue = []
    client._queued = 0
    client._partial = None
    for out in waiting:
        out.error = MQTTError("the client was stopped before the message was delivered")
        out.set()
    client._up.set()
    if client._events:
        client._events.wake()
