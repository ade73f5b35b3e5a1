"""connect() of a script, disconnect(), and clients that an interrupted run left behind."""

import asyncio
import time
from asyncio import core

from micropython import const

from .errors import ConnectError, MQTTError
from .transport import Signal

_DISCONNECT = const(b"\xe0\0")


async def connect(client, timeout_s=30):
    """
    `client.connect(...)`: start, and return when connected; for scripts. An app uses
    `async with client`.

    timeout_s  seconds until the last error is raised; one that will not heal is raised sooner

    Raises the MQTTError (or other exception) that keeps it from connecting; the client is stopped
    then.
    """
    end = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
    if not client.running:
        await client.__aenter__()
    while not client.connected:
        over = client._slow or time.ticks_diff(end, time.ticks_ms()) <= 0
        if over or not client.running:
            error = client.error
            await disconnect(client)
            raise error or ConnectError("not connected within %s s" % timeout_s)
        await asyncio.sleep_ms(20)


async def wait_connected(client, timeout_s=None):
    """
    `client.wait_connected(...)`: return when connected.

    Raises asyncio.TimeoutError after `timeout_s` seconds; RuntimeError when the client is not
    running, or is stopped meanwhile.
    """
    client._check()
    wait = client._up.wait()
    await (wait if timeout_s is None else asyncio.wait_for(wait, timeout_s))
    client._check()


async def disconnect(client, reason=0, properties=None):
    """
    `client.disconnect()`: say goodbye and stop. Publishes the will's payload, waits up to
    `drain_s` for what is in flight, disconnects. What waits then raises MQTTError. The client can
    be started again.

    reason, properties  of DISCONNECT (MQTT 5): reason code int (4: the broker is to publish the
                        will), dict or list of pairs

    Raises ValueError and TypeError for a reason and properties that it cannot have.
    """
    if not client.running:
        return
    goodbye = _DISCONNECT
    if reason or properties:
        if not client._five:
            from . import argument_errors

            raise argument_errors.option("reason", reason)
        goodbye = client._wire.disconnect(reason, properties)
    client.running = False
    try:
        will = client.will
        if will and will.goodbye and not reason and client.connected:
            said = client._five and client._five.goodbye_properties
            out = client._encode(will.topic, will.payload, will.qos, will.retain, said)
            out.awaited = False
            client._queue.append(out)
            client._pump()
        end = time.ticks_add(time.ticks_ms(), int(client.drain_s * 1000))
        while (
            client.connected
            and (client._queue or _unacknowledged(client) or client._transport.blocked)
            and time.ticks_diff(end, time.ticks_ms()) > 0
        ):
            await asyncio.sleep_ms(10)
        if client.connected:
            client._transport.write(goodbye)
            client._say("disconnected")
    finally:
        stop(client)
    await asyncio.sleep_ms(0)  # handlers that were cancelled clean up, even if the app ends now


def _unacknowledged(client):
    session = client._session
    return session.inflight + session.awaiting_pubcomp + session._unknown


def stop(client):
    """
    Stop `client` at once, also while no event loop runs: close its connection, end its tasks, tell
    what waits.
    """
    if not _in_loop():
        core.cur_task = None  # the last that ran, maybe one of those to be cancelled
    alive = client._loop is core._task_queue  # else its tasks never run again: wake none
    client.running = client._busy = False
    client._clients.remove(client)
    task = client._task
    client._task = None
    client._down()
    if alive and task is not core.cur_task:
        task.cancel()
    tasks = []  # till here it takes no memory, which an app may lack that ends
    if client._hooks:
        tasks += client._hooks.tasks
        client._hooks.tasks = []
    dispatcher = client._dispatcher
    for sub in dispatcher.lanes():
        if sub.task:
            tasks.append(sub.task)
        sub.task = sub.current = None
        sub.queue = []
        if alive:
            sub.signal.set()
        else:
            sub.signal = Signal()
    dispatcher.held = []
    dispatcher.size = 0
    dispatcher.others = [dispatcher.inbox]
    session = client._session
    # no handler finishes the others: a redelivery is handled anew
    session.inbound = [message for message in session.inbound if message.done]
    waiting = client._queue + _unacknowledged(client)
    session._unknown = []
    for out in list(session.inflight):
        if out.length:  # its stream is the app's again: it will not be sent once more
            session.drop(out)
            client._clean = True
    client._queue = [out for out in client._queue if out.entry]  # the store gave them out
    client._queued = 0
    requests = getattr(client, "_requests", None)
    if not alive:
        client._events = None
        for out in waiting:
            out.remove(None)
        if requests:
            requests.waiting = {}
        return
    for task in tasks:
        if task is not core.cur_task:
            task.cancel()
    for out in waiting:
        out.error = MQTTError("the client was stopped before the message was delivered")
        out.set()
    if requests:
        for request in requests.waiting.values():
            request.set()
    client._up.set()
    if client._events:
        client._events.wake()


def make_way(client, starting):
    """
    Stop what an earlier run left behind: clients of an event loop that is gone, and at the prompt
    (after Ctrl-C) one that has the broker and the id of `client`.

    starting  bool: `client` is about to start, else it was just made

    Raises RuntimeError when `client` itself runs, ValueError when another with the same broker and
    id does.
    """
    inside = _in_loop()
    for other in list(client._clients):
        # an empty id: the broker gives each one of its own
        same = client.client_id and _name(client) == _name(other)
        if other._loop is not core._task_queue or (same and not inside):
            stop(other)
        elif starting:
            from . import argument_errors

            if other is client:
                raise argument_errors.running()
            if same:
                raise argument_errors.same_id(client)


def _name(client):
    return client.host, client.port, client.client_id


def _in_loop():
    """Whether a task runs right now: not so at the prompt, also after Ctrl-C ended a run."""
    try:
        core.cur_task.coro.pend_throw(None)
    except ValueError:  # the task's generator is executing
        return True
    except AttributeError:
        pass
    return False
