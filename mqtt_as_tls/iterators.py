"""What is read with `async for`: messages that no handler claims, and events."""

import asyncio
import time
from asyncio import core

from micropython import const

_EVENTS = const(16)  # kept for an iterator that is slow
_TURNS = const(100)  # of the event loop, for tasks that are due


class Connected:
    """Event: the broker accepted the connection. session_present  bool"""

    def __init__(self, session_present):
        self.session_present = session_present


class Disconnected:
    """Event: the connection was lost, or an attempt to connect failed. error  the exception"""

    def __init__(self, error):
        self.error = error


class RadioDead:
    """Event: the radio did not start. failures  int, times in a row"""

    def __init__(self, failures):
        self.failures = failures


class Suspect:
    """Event: connections keep breaking right after this message was sent. topic  str"""

    def __init__(self, topic):
        self.topic = topic


class SubscriptionRefused:
    """Event: the broker refused a declared subscription, or hung up on it. filter  str"""

    def __init__(self, filter):
        self.filter = filter


class Undelivered:
    """
    Event: a message that no task waits for was refused, or nobody knows whether it was delivered.

    topic  str
    error  RefusedError, DeliveryUnknown or another MQTTError
    """

    def __init__(self, what):
        self.topic, self.error = what


class Oversized:
    """
    Event: a message did not fit, over max_packet or without memory for it. It was read past, and
    acknowledged.

    topic  str, its first 480 bytes; one with control characters is escaped
    size   int, bytes of its packet
    """

    def __init__(self, what):
        self.topic, self.size = what


class EventLog:
    """The last events of a client, for any number of iterators."""

    def __init__(self, _):
        self.events = []
        self.count = 0
        self.news = asyncio.Event()

    def put(self, kind, value):
        """Add an event: the name of its class and what that takes."""
        self.count += 1
        self.events.append(globals()[kind](value))
        if len(self.events) > _EVENTS:
            self.events.pop(0)
        self.wake()

    def wake(self):
        """Let every iterator look again."""
        self.news.set()
        self.news.clear()


def events(client):
    """`client.events()`: return an async iterator of events from now on."""
    return Events(client, client.lazily("event_log", EventLog))


def messages(client):
    """`client.messages()`: return an async iterator of the messages that no handler claims."""
    return Messages(client)


def leave(client):
    """The iterator is left: what waits for it is acknowledged as unclaimed."""
    dispatcher = client.dispatcher
    dispatcher.open = False
    inbox = dispatcher.inbox
    dispatcher.finish(inbox)
    client.stats.unclaimed += len(inbox.queue)
    while inbox.queue:
        dispatcher.release(inbox.queue.pop(0))


class _Iterator:
    """What is read with `async for`, or one by one with `next`."""

    def __init__(self, client):
        self._client = client

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.next()

    def next(self, timeout_s=None):
        """
        Return the next one. A time-out and a cancellation of the awaited call lose none.

        timeout_s  seconds, or None

        The awaited call raises asyncio.TimeoutError, and StopAsyncIteration when the client stops.
        """
        self._client.check_wait(timeout_s)
        self._call = call = self._next(timeout_s)
        return call

    async def _next(self, timeout_s):
        task = core.cur_task
        own = task.coro is self._call
        turns = own and _TURNS
        timer = None
        self._ask(task)
        try:
            while True:
                while not self._ready():
                    if timeout_s is not None:
                        if not timer:
                            timer = asyncio.create_task(_later(timeout_s, self._wake))
                        elif timer.done():
                            raise asyncio.TimeoutError
                    await self._wait()
                # In a task of its own, that of a wait_for(), this may be cancelled with whoever
                # waits for it: those who are due come first
                due = core._task_queue.peek()
                now = time.ticks_ms()
                if not turns or not due or time.ticks_diff(due.ph_key, now) > 0:
                    break
                turns -= 1
                await asyncio.sleep_ms(0)
        finally:
            if timer:
                timer.cancel()
        if own and hasattr(task.state, "peek"):
            # and he gets it before another is: wait_for drops what comes when its time is over
            while task.state.peek():
                core._task_queue.push(task.state.pop(), time.ticks_add(now, -100_000))
        return self._take()


async def _later(timeout_s, wake):
    await asyncio.sleep(timeout_s)
    wake()


class Events(_Iterator):
    """
    `async for event in client.events()`: events from when it was made, the last 16 of those not
    fetched yet. It ends when the client stops.
    """

    def __init__(self, client, log):
        super().__init__(client)
        self._log = log
        self._wake = log.wake
        self._wait = log.news.wait
        self._at = log.count

    def _ask(self, task):
        pass

    def _ready(self):
        there = self._log.count - self._at
        if not there and not self._client.running:
            raise StopAsyncIteration
        return there

    def _take(self):
        log = self._log
        self._at = max(self._at, log.count - len(log.events)) + 1
        return log.events[self._at - 1 - log.count]


class Messages(_Iterator):
    """
    `async for message in client.messages()`: what no handler claims, in order of arrival.

    A message is acknowledged when the next one is asked for. An iterator that does not ask within
    handler_timeout_s counts as left, until it asks again; so does one after `close()`, or after
    its `async with` block. It ends when the client stops, or is about to.
    """

    def __init__(self, client):
        super().__init__(client)
        self._dispatcher = client.dispatcher
        self._dispatcher.open = True

    def _ask(self, task):
        self._dispatcher.open = task
        self._dispatcher.finish(self._dispatcher.inbox)

    def _ready(self):
        if not self._client.running:
            raise StopAsyncIteration
        return self._dispatcher.inbox.queue

    def _wait(self):
        signal = self._dispatcher.inbox.signal
        signal.waiter = None
        return signal

    def _wake(self):
        self._dispatcher.inbox.signal.set()

    def _take(self):
        return self._dispatcher.take(self._dispatcher.inbox)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        self.close()

    def close(self):
        """Leave the iterator: its message is acknowledged, the rest counts as unclaimed."""
        leave(self._client)
