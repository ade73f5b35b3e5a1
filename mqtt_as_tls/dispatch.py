"""
From a message that arrived to the handlers that want it: one queue and one task a handler, so
that the reader never waits for any, and a bound in bytes on all that is not handled yet.
"""

import asyncio
import time

from micropython import const

from . import router
from .transport import Signal

_OVERHEAD = const(100)  # bytes that a waiting message takes besides its topic and payload


class Message:
    """
    A message from the broker.

    topic       str
    payload     bytes
    qos         int, 0 to 2, as the broker sent it
    retain      bool, kept by the broker from earlier
    dup         bool, sent before
    properties  None (MQTT 5 only)
    """

    properties = None

    def __init__(self, topic, payload, qos, retain, dup, id):
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.id = id
        self.done = self.stale = False  # of session
        self._claims = 0  # handlers that have not returned

    def _size(self):
        return _OVERHEAD + len(self.topic) + len(self.payload)


class Subscription:
    """
    A topic filter, the handler that wants what it matches, and what waits for that handler.

    granted  int, the QoS granted in this session; 128 refused; None not asked or not answered
    asked    bool, SUBSCRIBE sent on this connection
    """

    def __init__(self, filter, data, qos, handler):
        self.filter = filter
        self.data = data
        self.qos = qos
        self.handler = handler
        self.granted = None
        self.asked = False
        self.answer = None  # asyncio.Event for subscribe()
        self.queue = []
        self.current = None  # the message that the handler has
        self.since_ms = 0
        self.task = None
        self.signal = Signal()


class Dispatcher:
    """
    The subscriptions of a client and the messages that they have not handled yet.

    client  has _handled(), _due(ms), _say(text, error=None), stats, max_backlog,
            handler_timeout_s
    """

    def __init__(self, client):
        self._client = client
        self.subscriptions = []
        self._inbox = Subscription("messages()", None, 0, None)  # what the iterator gets
        self._open = False  # an iterator is there
        self._held = []  # messages not handled, in order of arrival
        self.size = 0  # their bytes
        self._warned = False

    def find(self, filter):
        """Return the Subscription of `filter` (str), or None."""
        for sub in self.subscriptions:
            if sub.filter == filter:
                return sub
        return None

    def remove(self, sub):
        """Take back `sub`; what waits for its handler is acknowledged, the handler finishes."""
        self.subscriptions.remove(sub)
        task = sub.task
        sub.task = None
        if task is not None and sub.current is None:
            task.cancel()
        while sub.queue:
            self._release(sub.queue.pop(0))

    def room(self, message):
        """
        Make room for `message` in the backlog; a QoS 0 message that waits gives way, oldest first.

        Returns False when there is none: `message` must not be taken in.
        """
        limit = self._client.max_backlog - message._size()
        i = 0
        while self.size > limit and i < len(self._held):
            old = self._held[i]
            if old.qos:
                i += 1
                continue
            waits = False
            for sub in self._subs():
                if old in sub.queue:
                    sub.queue.remove(old)
                    old._claims -= 1
            if old._claims:  # a handler has it
                i += 1
                continue
            self._drop(old)
            self._client.stats.dropped += 1
        return self.size <= limit or not self._held

    def _subs(self):
        return self.subscriptions + [self._inbox]

    def deliver(self, message):
        """Queue `message` for every handler whose filter matches, else for the iterator."""
        for sub in self.subscriptions:
            if sub.handler and router.matches(sub.filter, message.topic):
                self._queue(sub, message)
                if sub.task is None:
                    sub.task = asyncio.create_task(self._serve(sub))
        if not message._claims:
            if self._open:
                self._queue(self._inbox, message)
            else:
                self._unclaimed(message)
                return
        self._held.append(message)
        self.size += message._size()

    def _queue(self, sub, message):
        message._claims += 1
        sub.queue.append(message)
        sub.signal.set()

    def _unclaimed(self, message):
        self._client.stats.unclaimed += 1
        message.done = True
        if not self._warned:
            self._warned = True
            self._client._say(
                "no handler and no messages() iterator for topic %r: counted in stats.unclaimed"
                % message.topic
            )

    def _drop(self, message):
        self._held.remove(message)
        self.size -= message._size()
        message.done = True

    async def _next(self, sub):
        while not sub.queue:
            sub.signal.is_set = False
            await sub.signal
        sub.current = message = sub.queue.pop(0)
        sub.since_ms = time.ticks_ms()
        self._client._due(self._client.handler_timeout_s * 1000)
        return message

    def _finish(self, sub):
        message = sub.current
        sub.current = None
        if message is not None:
            self._release(message)

    def _release(self, message):
        message._claims -= 1
        if not message._claims:
            self._drop(message)
            self._client._handled(message)

    async def _serve(self, sub):
        while True:
            message = await self._next(sub)
            try:
                result = sub.handler(message)
                if hasattr(result, "send"):
                    await result
            except (Exception, asyncio.CancelledError) as e:
                if sub.task is None:  # cancelled by stop(), not by the handler itself
                    raise
                self._client._say("handler of %r failed: %r" % (sub.filter, e), e)
            self._finish(sub)
            if sub.task is None:
                return

    def overdue(self, now):
        """
        Acknowledge what handlers have had for longer than handler_timeout_s.

        now  ticks

        Returns the ms until the next one is, or -1 when no handler is busy.
        """
        limit = self._client.handler_timeout_s * 1000
        next_ms = -1
        for sub in self._subs():
            if sub.current is None:
                continue
            left = limit - time.ticks_diff(now, sub.since_ms)
            if left > 0:
                next_ms = left if next_ms < 0 else min(left, next_ms)
                continue
            self._client._say(
                "handler of %r has run for over %d s: its message is acknowledged, it goes on"
                % (sub.filter, limit // 1000)
            )
            self._finish(sub)
            if sub is self._inbox:
                self.leave()
        return next_ms

    def leave(self):
        """The iterator is left: what waits for it is acknowledged as unclaimed."""
        self._open = False
        self._finish(self._inbox)
        queue = self._inbox.queue
        while queue:
            message = queue.pop(0)
            self._client.stats.unclaimed += 1
            self._release(message)

    def stop(self):
        """Cancel the handlers' tasks and forget what waits for them."""
        for sub in self._subs():
            if sub.task is not None and sub.task is not asyncio.current_task():
                sub.task.cancel()
            sub.task = sub.current = None
            sub.queue = []
            sub.signal = Signal()
        self._held = []
        self.size = 0


class Messages:
    """
    `async for message in client.messages()`: what no handler claims, in order of arrival.

    A message is acknowledged when the next one is asked for. One that is not followed by the next
    within handler_timeout_s ends the iteration's claim; so does `close()`, and leaving
    `async with client.messages() as messages`.
    """

    def __init__(self, dispatcher):
        self._dispatcher = dispatcher
        dispatcher._open = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        d = self._dispatcher
        d._open = True
        d._finish(d._inbox)
        return await d._next(d._inbox)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        self.close()

    def close(self):
        """Leave the iterator: its message is acknowledged, the rest counts as unclaimed."""
        self._dispatcher.leave()
