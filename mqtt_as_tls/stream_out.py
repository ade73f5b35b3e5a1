"""
Payloads larger than memory on their way out: publish(topic, stream, length=n). Imported when one
is published.
"""

import asyncio
import time

from micropython import const

from . import load, router
from .errors import ConnectError
from .outbox import Delivery
from .router import wrong
from .transport import STALL_MS, closed

_CHUNK = const(1024)  # bytes of memory that a transfer takes, and of a TLS record
_TURN_MS = const(10)  # between looks for an answer
_PINGREQ = const(b"\xc0\0")
_NO_LIMIT = const(1 << 20)


class Parts:
    """
    A list of bytes as a stream for `publish`: a payload that is nowhere in one piece.

    length  int, bytes of all parts
    """

    def __init__(self, parts):
        self._parts = list(parts)
        self.length = sum([len(part) for part in parts])

    def tell(self):
        return 0

    def seek(self, _):
        self._left = list(self._parts)

    def readinto(self, buf):
        part = self._left.pop(0)
        n = min(len(buf), len(part))
        buf[:n] = part[:n]
        if n < len(part):
            self._left.insert(0, part[n:])
        return n


class Upload(Delivery):
    """
    An outgoing message whose payload is read from a stream while it is sent. It has the transport
    for itself meanwhile: what else is written waits behind it.

    packet    bytearray, PUBLISH up to its payload
    length    int, bytes of the payload
    moved_ms  ticks of the last progress

    Raises TypeError and ValueError for what cannot be sent.
    """

    _read = False

    def __init__(self, client, topic, source, length, qos, retain, properties):
        if (
            type(length) is not int
            or not 0 <= length <= 268_435_455
            or not hasattr(source, "readinto")
            or (router.qos(qos) and not (hasattr(source, "seek") and hasattr(source, "tell")))
        ):
            wrong("stream", source, length)
        if properties and not client.five:
            wrong("option", "properties", properties)
        buf = client.wire.publish(router.topic(topic), b"", qos, retain, properties, more=length)
        if len(buf) > client.max_packet:
            wrong("size", len(buf), client.max_packet, "max_packet")
        since = client.five.expires(properties) if properties else None
        super().__init__(buf, qos, since)
        self.length = length
        self._client = client
        self._source = source
        # None: it cannot be read twice
        self._start = source.tell() if hasattr(source, "seek") else None

    def begin(self, t, header):
        """Send it through the Transport `t`, which is not blocked: `header` first."""
        t.blocked = True
        t.tx_ms = t.moved_ms = self.moved_ms = time.ticks_ms()
        t.streams.append(self)
        try:
            t.writer = asyncio.create_task(self._pour(t, header))
        except MemoryError as e:
            t.lost(e)
        t.due(STALL_MS)
        return False

    async def _pour(self, t, part):
        client = self._client
        source = self._source
        left = self.length
        reading = False  # what happens is the stream's doing, not the connection's
        try:
            chunk = memoryview(bytearray(min(_CHUNK, left)))
            if t.unheard:
                await self._alone(t)
            while True:
                await self._send(t, part)
                if not left:
                    break
                self._read = reading = True
                if left == self.length and self._start is not None:
                    source.seek(self._start)
                if left < len(chunk):
                    chunk = chunk[:left]
                n = source.readinto(chunk)
                if hasattr(n, "send"):
                    n = await n
                if n == 0:
                    raise ValueError("the stream ended %d bytes before length=" % left)
                if n is None:  # nothing yet
                    await asyncio.sleep_ms(20)
                    n = 0
                part = chunk[:n]
                left -= n
                reading = False
            await self._alone(t)
            # what waits for an answer was behind it
            client.session.postpone(time.ticks_ms())
            t.due(client.ack_timeout_s * 1000)
        except asyncio.CancelledError:  # the connection is closed
            stalled = time.ticks_diff(time.ticks_ms(), t.moved_ms) >= STALL_MS
            self._broken(reading and stalled and ConnectError("the stream gave nothing for 10 s"))
            return
        except Exception as e:
            self._broken(reading and not isinstance(e, MemoryError) and e)
            t.lost(closed(e))
            return
        finally:
            t.streams.remove(self)
        try:
            await t.drain(False)
        except MemoryError as e:  # for the coroutine: what waits would wait for ever
            t.lost(e)

    async def _alone(self, t):
        # no ping can ask within it whether the path lives, so nothing else is on the way with it
        if t.room > _NO_LIMIT:
            return
        stats = self._client.stats
        before = stats.bytes_in
        await self._send(t, _PINGREQ)
        while stats.bytes_in == before and t.readable.ready == 2:
            await asyncio.sleep_ms(_TURN_MS)

    async def _send(self, t, part):
        at = 0
        while at < len(part):
            n = t.sock.write(part[at:])
            if n:
                at += n
                self._client.stats.bytes_out += n
                t.tx_ms = t.moved_ms = self.moved_ms = time.ticks_ms()
                await asyncio.sleep_ms(0)
            else:
                await t.writable

    def _broken(self, error):
        """
        It was broken off. `error` is what the stream did, if it was the stream: then it cannot be
        sent again, and the next session has to be new, as this one had the message.
        """
        client = self._client
        session = client.session
        if not error:
            if self._start is not None or not self._read:
                return
            error = ConnectError("lost, and the stream has no seek(): publish it anew")
        elif self in session.inflight:
            session.drop(self)
            session.discard = "a stream was broken off"
        client.outbox.drop(self)
        if self.waiter is not True:
            load("texts").undelivered(client, self, error)
