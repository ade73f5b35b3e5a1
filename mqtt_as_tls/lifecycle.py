"""connect() of a script, disconnect(), and clients that an interrupted run left behind."""

import asyncio
import time
from asyncio import core

from micropython import const

from . import load
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
    client.check_wait("" if timeout_s is None else timeout_s)
    end = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
    if not client.running:
        await client.__aenter__()
    while not client.connected:
        over = client.retry.slow or time.ticks_diff(end, time.ticks_ms()) <= 0
        if over or not client.running:
            error = client.error
            await client.disconnect()
            raise error or ConnectError("not connected within %s s" % timeout_s)
        await asyncio.sleep_ms(20)


async def wait_connected(client, timeout_s=None):
    """
    `client.wait_connected(...)`: return when connected.

    Raises asyncio.TimeoutError after `timeout_s` seconds; RuntimeError when the client is not
    running, or is stopped meanwhile.
    """
    client.check_running(timeout_s)
    wait = client.up.wait()
    await (wait if timeout_s is None else asyncio.wait_for(wait, timeout_s))
    client.check_running(None)


async def disconnect(client, reason=0, properties=None):
    """
    `client.disconnect()`: say goodbye and stop. Publishes the will's payload, waits up to
    `drain_s` for what is in flight and for handlers with what came before, disconnects. Until then
    publish() and enqueue() work. What waits then raises MQTTError; a message whose handler has not
    returned is not acknowledged. The client can be started again.

    reason, properties  of DISCONNECT (MQTT 5): reason code int (4: the broker is to publish the
                        will), dict or list of pairs

    Raises ValueError and TypeError for a reason and properties that it cannot have.
    """
    if not client.running:
        # it may be leaving, and must not be cut short; a handler is what it waits for
        handlers = [lane.task for lane in client.dispatcher.lanes()]
        while client in client.clients and core.cur_task not in handlers:
            await asyncio.sleep_ms(10)
        return
    goodbye = _DISCONNECT
    if reason or properties:
        if not client.five:
            raise load("argument_errors").option("reason" if reason else "properties", None)
        goodbye = client.wire.disconnect(reason, properties)
    client.running = False
    outbox = client.outbox
    session = client.session
    try:
        held = list(client.dispatcher.held)
        will = client.will
        if will and will.goodbye and not reason and client.connected:
            said = client.five and client.five.goodbye_properties
            out = outbox.encode(will.topic, will.payload, will.qos, will.retain, said)
            outbox.add(out, False)
            outbox.pump()
        end = time.ticks_add(time.ticks_ms(), int(client.drain_s * 1000))
        while (
            client.connected
            and (
                outbox.queue
                or any(outbox.rings)
                or _unacknowledged(session)
                or client.connection.transport.blocked
                or _handling(client.dispatcher, held)
            )
            and time.ticks_diff(end, time.ticks_ms()) > 0
        ):
            await asyncio.sleep_ms(10)
    finally:
        said = client.connected
        if said:  # cancelled as well: else the broker would publish the will
            client.connection.transport.send(goodbye)
        stop(client)
    if said:  # now that a log that publishes can send nothing behind it [MQTT-3.14.4-2]
        client.say("disconnected")
    await asyncio.sleep_ms(0)  # handlers that were cancelled clean up, even if the app ends now


def _handling(dispatcher, held):
    """Return whether another task than this one handles one of the messages `held` (list)."""
    for lane in dispatcher.lanes():
        task = lane.task
        queue = lane.queue
        if lane is dispatcher.inbox:
            task = dispatcher.open  # it is not given what waits
            queue = ()
            if task is True or task and task.done():
                continue
        if task and task is not core.cur_task:
            for message in held:
                if message is lane.current or message in queue:
                    return True
    return False


def _unacknowledged(session):
    return session.inflight + session.awaiting_pubcomp + session.unknown


def stop(client):
    """
    Stop `client` at once, also while no event loop runs: close its connection, end its tasks, tell
    what waits.
    """
    if not _in_loop():
        core.cur_task = None  # the last that ran, maybe one of those to be cancelled
    alive = client.loop is core._task_queue  # else its tasks never run again: wake none
    task = client.end(alive)
    client.connection.close()
    if alive and task is not core.cur_task:
        task.cancel()
    tasks = []  # till here it takes no memory, which an app may lack that ends
    if client.callbacks:
        tasks += client.callbacks.stop()
    if client.repeats and client.repeats.task:
        tasks.append(client.repeats.task)
    if client.store and client.session.task:
        tasks.append(client.session.task)
    dispatcher = client.dispatcher
    for lane in dispatcher.lanes():
        if lane.task:
            tasks.append(lane.task)
        lane.task = lane.current = None
        lane.queue = []
        if alive:
            lane.signal.set()
        else:
            lane.signal = Signal()
    dispatcher.held = []
    dispatcher.size = 0
    dispatcher.others = [dispatcher.inbox]
    session = client.session
    if client.retry.aside:
        client.retry.aside.stop(alive)
    # no handler finishes the others: a redelivery is handled anew
    session.inbound = [message for message in session.inbound if message.done]
    waiting = client.outbox.clear() + _unacknowledged(session)
    session.unknown = []
    for out in list(session.inflight):
        if out.length:  # its stream is the app's again: it will not be sent once more
            session.drop(out)
            session.discard = "a stream was broken off"
    if client.requests:
        waiting += client.requests.stop(alive)
    if not alive:
        for out in waiting:
            out.remove(None)
        return
    for task in tasks:
        if task is not core.cur_task:
            task.cancel()
    for out in waiting:
        out.error = MQTTError("the client was stopped before the message was delivered")
        out.set()
    client.up.set()
    if client.event_log:
        client.event_log.wake()
    if client.repeats:
        client.repeats.flush(True)


def make_way(client, starting):
    """
    Stop what an earlier run left behind: clients of an event loop that is gone, and at the prompt
    (after Ctrl-C) one that has the broker and the id of `client`.

    starting  bool: `client` is about to start, else it was just made

    Raises RuntimeError when `client` itself runs, ValueError when another with the same broker and
    id does.
    """
    inside = _in_loop()
    for other in list(client.clients):
        # an empty id: the broker gives each one of its own
        same = client.client_id and _name(client) == _name(other)
        if other.loop is not core._task_queue or (same and not inside):
            stop(other)
        elif starting:
            argument_errors = load("argument_errors")
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
