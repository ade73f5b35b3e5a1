"""
Messages out and in. From one that arrived to the handlers that want it: one queue and one task a
handler, so that the reader never waits for any, and a bound in bytes on all that is not handled.
"""

import asyncio
import sys
import time

from micropython import const

from .router import matches
from .transport import Signal

_OVERHEAD = const(100)  # bytes that a waiting message takes besides its topic and payload
_FEW = const(4)  # filters that are matched sooner one by one than by an index
_RETRY_MS = const(100)  # where there is no memory to go on


class Message:
    """
    A message from the broker.

    topic       str
    payload     bytes
    qos         int, 0 to 2, as the broker sent it
    retain      bool, kept by the broker from earlier
    dup         bool, sent before
    stream      for handlers with stream=True: the payload, to be read in pieces; `payload` is b""
    length      int, its bytes; 0 where there is no stream
    properties  dict of what MQTT 5 carries with it (the first 64 user properties), or None

    With MQTT 5 a handler may set what its acknowledgement says:

    ack_code        int, reason code of PUBACK or PUBREC (5.0 section 3.4.2.1)
    ack_properties  dict or list of pairs, or None
    """

    properties = ack_properties = stream = None
    ack_code = length = 0
    done = stale = False  # of session
    _claims = _extra = 0  # handlers that have not returned; bytes that the properties take

    def __init__(self, topic, payload, qos, retain, dup, id):
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.id = id

    def _size(self):
        return _OVERHEAD + len(self.topic) + len(self.payload) + self._extra


class Delivery(Signal):
    """
    An outgoing message of the session, and the task that waits for its delivery.

    packet   bytearray, an encoded PUBLISH
    id       int, packet id or 0; qos  int
    queued   int, bytes that it counts in the queue of enqueue()
    length   int, bytes of the payload that follow the packet
    awaited  bool, a task waits for it
    code     int, reason code of its acknowledgement; error  exception, or None
    entry    what the store knows it by, or None
    """

    error = entry = None
    id = queued = code = length = 0
    awaited = True

    def __init__(self, packet, qos):
        self.packet = packet
        self.qos = qos


class Subscription:
    """
    A topic filter, the handler that wants what it matches, and what waits for that handler.

    data     bytes, the filter in UTF-8
    flags    int, subscription options but the QoS; properties  bytes, encoded (MQTT 5)
    stream   bool, its handler was declared with stream=True
    reason   RefusedError of the SUBACK, or None
    granted  int, the QoS granted in this session; 128 and over: refused; None not answered yet
    asked    bool, SUBSCRIBE sent on this connection
    current  the Message that the handler has, since `since_ms` (ticks)
    """

    granted = current = handler = task = reason = None
    asked = stream = False
    since_ms = flags = 0
    properties = b""

    def __init__(self, filter, data, qos):
        self.filter = filter
        self.data = data
        self.qos = qos
        self.queue = []
        self.signal = Signal()


class Dispatcher:
    """
    The subscriptions of a client and the messages that they have not handled yet.

    client  has running, stats, max_backlog, handler_timeout_s, _session, _handled(message),
            _due(ms), _say(text)

    held    messages not handled yet, in order of arrival
    size    int, their bytes
    open    bool, an iterator takes what no handler claims, from `inbox`
    others  Subscriptions that the broker does not have: `inbox`, a lane for each stream that is
            read, and those taken back whose handler still runs
    """

    def __init__(self, client):
        self._client = client
        self.subscriptions = []
        self.inbox = Subscription("messages()", None, 0)
        self.others = [self.inbox]
        self.open = self._warned = False
        self._index = None  # topic_index.index of the subscriptions, made at the next message
        self.size = 0
        self.held = []

    def find(self, filter):
        """Return the Subscription of `filter` (str), or None."""
        for sub in self.subscriptions:
            if sub.filter == filter:
                return sub
        return None

    def changed(self):
        """To be called before `subscriptions` changes: what was noted of them is forgotten."""
        self._index = None

    def room(self, message):
        """
        Make room for `message` in the backlog: QoS 0 messages that wait give way, oldest first.

        Returns False when there is none: `message` must not be taken in.
        """
        limit = self._client.max_backlog - message._size()
        if message.qos:
            limit -= self._client._session.lingering()
        for old in list(self.held) if self.size > limit else ():
            if self.size <= limit:
                break
            if not old.qos:
                for sub in self.lanes():
                    if old in sub.queue:
                        sub.queue.remove(old)
                        self.release(old)
                if not old._claims:
                    self._client.stats.dropped += 1
        return self.size <= limit or not self.held

    def lanes(self):
        """Return every Subscription, that of the iterator too."""
        return self.subscriptions + self.others

    def _candidates(self, topic):
        """
        Return the Subscriptions (list) that may match `topic` (str), in order of declaration: with
        an index those that do, all where there is no memory for one.
        """
        try:
            if not self._index:
                from .topic_index import index

                self._index = index(self.subscriptions)
            return self._index(topic)
        except MemoryError:
            self._index = None
            # what MicroPython noted the name of, and no more, would crash the next import
            sys.modules.pop("mqtt_as_tls.topic_index", None)
            return self.subscriptions

    def deliver(self, message):
        """Queue `message` for every handler whose filter matches, else for the iterator."""
        self.held.append(message)  # first: with no memory for the rest the books stay right
        self.size += message._size()
        try:
            for sub in (
                self.subscriptions
                if len(self.subscriptions) <= _FEW
                else self._candidates(message.topic)
            ):
                if sub.handler and (self._index or matches(sub.filter, message.topic)):
                    if sub.task is None:
                        sub.task = asyncio.create_task(self._serve(sub))
                    self._queue(sub, message)
            if self.open and not message._claims:
                self._queue(self.inbox, message)
        except MemoryError:  # nobody gets it now: it comes again
            message._claims = 0
            for sub in self.subscriptions:
                if message in sub.queue:
                    sub.queue.remove(message)
            raise
        finally:
            if not message._claims:
                self.held.remove(message)
                self.size -= message._size()
        if message._claims:
            return
        message.done = True
        self._client.stats.unclaimed += 1
        if not self._warned:
            self._warned = True
            self._client._say(
                "no handler and no iterator for topic %r: see stats.unclaimed" % message.topic
            )

    def _queue(self, sub, message):
        message._claims += 1  # first: it may be what there is no memory for
        sub.queue.append(message)
        sub.signal.set()

    async def next(self, sub):
        """Return the next message of `sub`, as its current one; None when the client stopped."""
        while not sub.queue:
            if not self._client.running:
                return None
            sub.signal.is_set = False
            await sub.signal
        self._client._due(self._client.handler_timeout_s * 1000)
        sub.since_ms = time.ticks_ms()
        sub.current = sub.queue[0]  # till here there may be no memory
        return sub.queue.pop(0)

    def finish(self, sub):
        """The handler of `sub` is done with its current message."""
        message = sub.current
        sub.current = None
        if message:
            self.release(message)

    def release(self, message):
        """One of those that want `message` is done with it."""
        message._claims -= 1
        if not message._claims:
            self.held.remove(message)
            self.size -= message._size()
            message.done = True
            self._client._handled(message)

    async def _serve(self, sub):
        while True:
            try:
                message = await self.next(sub)
            except MemoryError:
                await asyncio.sleep_ms(_RETRY_MS)
                continue
            if message is None:
                return
            try:
                result = sub.handler(message)
                if hasattr(result, "send"):
                    await result
            except BaseException as e:  # a tuple of those that are meant would take memory
                if not isinstance(e, Exception) and not isinstance(e, asyncio.CancelledError):
                    raise
                if not sub.task and not sub.current:  # stopped
                    raise
                self._client._report("handler of %r", sub.filter, e)
            message = None
            self.finish(sub)
            if sub.task is None:  # removed
                return

    def overdue(self, now):
        """
        Acknowledge what handlers have had for longer than handler_timeout_s.

        now  ticks

        Returns the ms until the next one is; less than 0 when no handler is busy.
        """
        limit = self._client.handler_timeout_s * 1000
        next_ms = -1
        for sub in self.lanes():
            if sub.current:
                left = limit - time.ticks_diff(now, sub.since_ms)
                if left > 0:
                    next_ms = left if next_ms < 0 else min(left, next_ms)
                    continue
                from .retry import overdue

                overdue(self, sub)
        return next_ms
