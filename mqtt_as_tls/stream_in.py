"""
Payloads larger than memory on their way in: a handler declared with stream=True reads them from
the connection, piece by piece, and the reader waits for it. Imported with the first such handler.
"""

import asyncio
import time
from asyncio import core

from micropython import const

from .dispatch import Message, Subscription
from .errors import ConnectError
from .router import matches
from .transport import STALL_MS, Signal, closed

_TURN_MS = const(20)


class Stream:
    """The payload of a message, to be read once, from its start to its end."""

    def __init__(self, data, most):
        self.left = len(data)
        self._data = memoryview(data)
        self._most = most  # bytes that read() takes at most

    async def readinto(self, buf):
        """
        Read into `buf` (a writable buffer) what is there, waiting for the first byte.

        Returns the number of bytes, 0 at the end. Raises ConnectError when the connection ended
        before the payload did.
        """
        n = min(len(buf), self.left)
        at = len(self._data) - self.left
        memoryview(buf)[:n] = self._data[at : at + n]
        self.left -= n
        return n

    async def read(self, n=-1):
        """
        Return the next `n` bytes, fewer only at the end; without `n` all, but no more than
        max_packet. Raises as `readinto` does; cancelled, it loses what it has read.
        """
        buf = bytearray(min(self._most if n < 0 else n, self.left))
        view = memoryview(buf)
        n = 0
        while n < len(buf):
            n += await self.readinto(view[n:])
        return bytes(buf)


class Streams:
    """
    What a client with such handlers knows of them.

    current  the Incoming that is received, or None
    """

    current = None

    def __init__(self, client):
        self._client = client

    def is_reading(self, message):
        """Return whether the payload of `message` is being received."""
        return self.current and self.current.message is message

    def forbid(self):
        """
        A task is about to wait for an answer. Raises RuntimeError in the handler, which must not
        wait for what comes after its payload.
        """
        current = self.current
        if current and current.left and core.cur_task is current.task:
            raise RuntimeError(
                "its answer comes after the payload that this handler reads: enqueue(), or read"
                " to the end first"
            )


class Incoming(Stream):
    """
    The payload of the packet that is being received. For a while it stands in for the decoder of
    the transport, which then reads straight into the buffer of the handler.

    left      int, bytes that neither the handler nor the reader has taken yet
    over      bool, the handler returned, or there is none: what is left is skipped
    error     what ended the connection in the middle, or None
    moved_ms  ticks of the last progress
    task      that of the handler, or None
    """

    def __init__(self, client, connection, message, length):
        # what is noted later has its place now, when there is memory
        self.error = self.task = None
        self.over = False
        self.left = length
        self.message = message
        self._most = client.max_packet
        self._client = client
        self._connection = connection
        self._t = connection.transport
        self._decoder = self._t.decoder
        self._wanted = Signal()  # the handler waits for input, or returned
        self.came = Signal()  # input came, or none will
        self.moved_ms = time.ticks_ms()

    async def readinto(self, buf):
        view = memoryview(buf)[: self.left]
        if not len(view):
            return 0
        t = self._t
        decoder = self._decoder
        start = decoder.start
        n = min(len(view), decoder.stop - start)
        if n and not self.error:
            view[:n] = decoder.buf[start : start + n]
            decoder.start += n
            self.fed(n)
            return n
        await asyncio.sleep_ms(0)
        self._view = view
        self._got = 0
        while True:
            if not self._connection.is_up():
                self.fail()
            if self.error:
                raise self.error
            t.decoder = self
            try:
                t.read()
            except Exception as e:
                self.fail(closed(e) if isinstance(e, OSError) else e)
                continue
            finally:
                t.decoder = decoder
            if self._got:
                return self._got
            if self.came.waiter is True:
                self.came.waiter = None
            self._wanted.set()
            await self.came

    def space(self):
        """As Decoder.space: the buffer of the handler."""
        return self._view

    def fed(self, n):
        """As Decoder.fed: note that `n` bytes of the payload are taken."""
        self._got = n
        self.left -= n
        self.moved_ms = time.ticks_ms()
        if not self.left:
            self.end()
            self._wanted.set()

    def fail(self, error=None):
        """The connection ended in the middle: what was not handled comes again from its start."""
        if not self.error:
            self.error = error or MemoryError  # if there is none for the words
            if not error:
                try:
                    self.error = ConnectError(
                        "the connection was lost with %d of %d bytes to come"
                        % (self.left, self.message.length)
                    )
                except MemoryError:
                    pass
            inbound = self._client.session.inbound
            if self.message in inbound and not self.over:
                inbound.remove(self.message)
        self.came.set()
        self._wanted.set()

    def end(self):
        """The reader goes on: every answer that was behind the payload has its time anew."""
        client = self._client
        if self in self._t.streams:
            self._t.streams.remove(self)
            client.stream_in.current = None
            now = time.ticks_ms()
            for lane in client.dispatcher.lanes():
                if lane.current is self.message:
                    lane.since_ms = now
            client.session.postpone(now)
            self._t.due(min(client.ack_timeout_s, client.handler_timeout_s) * 1000)

    def returned(self):
        """The handler returned: let the reader skip what is left."""
        if not self.error:
            self.over = True
        self._wanted.set()

    async def pass_on(self):
        """Let the handler read, as long as it does."""
        while not self.error and self.left and not self.over:
            await self._wanted
            if self.left and not (self.over or self.error):
                await self._t.readable
            if self._wanted.waiter is True:
                self._wanted.waiter = None
            self.came.set()
        if self.error:
            raise self.error

    async def skip(self):
        """Take what is left in small pieces."""
        decoder = self._decoder
        while self.left:
            n = min(self.left, decoder.stop - decoder.start)
            if n:
                decoder.start += n
                self.fed(n)
            elif self._t.read():
                await asyncio.sleep_ms(0)
            elif decoder.stop == decoder.start:
                await self._t.readable


class StreamHandler:
    """
    A handler of the app that was declared with stream=True. Takes the place of it in a
    Subscription, that of the arguments: as MQTTClient.on has them.

    lane  StreamLane of the message that it has, or None
    """

    lane = None

    def __init__(self, client, filter, qos, options, handler):
        self._client = client
        self._handler = handler
        self._sub = client.dispatcher.declare(filter, qos, options, self)

    def __call__(self, message):
        try:
            return self._handle(message)
        except MemoryError as e:
            if message.stream:
                message.stream.fail(e)  # the broker sends it again
            raise

    async def _handle(self, message):
        """
        Run the handler of the app in a task and a lane of its own; return when it returned, or
        when the next one has to begin before (see `_turn`).
        """
        client = self._client
        others = client.dispatcher.others
        lane = None
        try:
            lane = StreamLane(self._sub, message)
            others.append(lane)
            lane.task = asyncio.create_task(_run(client, lane, self._handler, message))
        except MemoryError as e:
            if lane in others:
                others.remove(lane)
            if message.stream:
                message.stream.fail(e)  # the broker sends it again
            raise
        self._sub.current = None
        self.lane = lane
        await lane.signal


class StreamLane(Subscription):
    """The one message that a StreamHandler has."""

    def __init__(self, sub, message):
        super().__init__(sub.filter, sub.data, sub.qos)
        self.task = None
        self.since_ms = sub.since_ms
        self.current = message


async def _run(client, lane, handler, message, caught=(Exception, asyncio.CancelledError)):
    own = message
    stream = message.stream
    error = None
    try:
        if stream:
            stream.task = lane.task
        else:  # a small one: it may have other handlers, which want its payload
            first = message.dup << 3 | message.qos << 1 | message.retain
            own = Message(first, (message.topic, message.id, b""))
            own.properties = message.properties
            own.length = len(message.payload)
            own.stream = Stream(message.payload, client.max_packet)
        if not stream or not stream.error:  # lost before its turn came
            result = handler(own)
            if hasattr(result, "send"):
                await result
    except caught as e:
        if not lane.task:  # stopped
            raise
        error = e
    try:
        if stream:
            stream.returned()
            while stream.left and not stream.error:
                if stream.came.waiter is True:
                    stream.came.waiter = None
                await stream.came
            if error is stream.error:
                error = None
        elif own is not message:
            message.ack_code = own.ack_code
            message.ack_properties = own.ack_properties
        if error:
            client.failed("handler of %r", lane.filter, error)
    finally:
        d = client.dispatcher
        if lane in d.others:
            d.others.remove(lane)
        d.finish(lane)
        lane.signal.set()


def wanting(client, message):
    """
    Return the subscriptions (list) whose handlers may read the payload of `message`, the first of
    them first: none when another copy of it comes for them; None when it is for others, which
    cannot have it.
    """
    subs = [sub for sub in client.dispatcher.subscriptions if matches(sub.filter, message.topic)]
    wants = client.five.wanting(subs, message.properties)[0] if client.five else subs
    message.properties = message.properties or None
    subs = [sub for sub in subs if isinstance(sub.handler, StreamHandler)]
    mine = [sub for sub in subs if sub in wants]
    return mine if subs and (mine or not [sub for sub in wants if sub.handler]) else None


async def receive(client, connection, message, mine, length):
    """
    The reader met a PUBLISH that does not fit, and has read its header: have a handler read its
    payload; return when it is through and the reader goes on.

    message  Message without its payload; length  int, the bytes of that
    mine     list, as of `wanting`

    Raises ProtocolError, ConnectError.
    """
    t = connection.transport
    message.length = length
    message.stream = stream = Incoming(client, connection, message, length)
    t.streams.append(stream)
    try:
        if message.qos and not client.session.received(message, message.dup):
            client.stats.duplicates += 1
            stream.over = True
        elif not mine:
            message.done = stream.over = True
        t.due(STALL_MS)
        if not stream.over:
            client.stream_in.current = stream
            await _turn(client, mine[0], stream)
            await stream.pass_on()
        await stream.skip()
    finally:
        if stream.left:
            stream.fail()
        stream.end()
        stream.came.set()
    connection.handled()


async def _turn(client, sub, stream):
    """Queue the message of `stream` for the handler of `sub`; return when it is its turn."""
    d = client.dispatcher
    message = stream.message
    d.held.append(message)
    d.size += message.size
    try:
        d.queue(sub, message)
    except MemoryError:
        d.held.remove(message)
        d.size -= message.size
        raise
    lane = None
    pause = 0
    while message in sub.queue:
        stream.moved_ms = now = time.ticks_ms()
        if lane is not sub.handler.lane:
            lane = sub.handler.lane
            start = now
        if lane and (lane.waits or time.ticks_diff(now, start) > client.handler_timeout_s * 1000):
            lane.signal.set()  # what it waits for comes after this payload: begin with the next
        await asyncio.sleep_ms(pause)
        pause = _TURN_MS
    if message.done:  # unsubscribed meanwhile
        stream.over = True
