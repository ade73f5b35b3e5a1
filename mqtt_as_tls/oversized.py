"""
A message that does not fit, over max_packet or without memory for it: a handler with stream=True
reads it, else it is read past; what that takes is the first bytes of its topic. Imported when one
comes.
"""

import asyncio
import time

from micropython import const

from . import load
from .dispatch import Message
from .errors import ProtocolError
from .packet import text
from .transport import STALL_MS

_SHOWN = const(480)  # bytes of its topic, and of its properties: they fit into the buffer
_TOLD = const(16)  # topics that are not told again
_TRIES = const(5)  # connections on which there was no memory for a message


class _Rest:
    """
    What is left of the packet that is being received, among the streams of the transport: what is
    behind it has its time when it is through.

    left      int, bytes
    moved_ms  ticks of the last progress
    """

    def __init__(self, t):
        self._t = t
        self._decoder = decoder = t.decoder
        self.left = decoder.end - decoder.at
        self.moved_ms = time.ticks_ms()
        decoder.start = decoder.at
        decoder.need = 0

    async def take(self, count):
        """
        Return the next `count` bytes, at most `_SHOWN`.

        Raises ProtocolError where the packet has not as many; ConnectError.
        """
        if count > self.left:
            raise ProtocolError("PUBLISH shorter than its header (section 3.3.2)", 129)
        decoder = self._decoder
        while decoder.stop - decoder.start < count:
            await self._read()
        start = decoder.start
        data = bytes(decoder.buf[start : start + count])
        decoder.start = start + count
        self.left -= count
        return data

    async def number(self):
        """Return the number that the next two bytes are."""
        return int.from_bytes(await self.take(2), "big")

    async def skip(self, count):
        """Read past the next `count` bytes. Raises as `take` does."""
        if count > self.left:
            raise ProtocolError("PUBLISH shorter than its header (section 3.3.2)", 129)
        decoder = self._decoder
        self.left -= count
        while count:
            n = min(count, decoder.stop - decoder.start)
            if not n:
                await self._read()
            decoder.start += n
            count -= n

    async def _read(self):
        t = self._t
        await t.readable
        if t.read():
            await asyncio.sleep_ms(0)
        self.moved_ms = t.rx_ms


async def receive(client, connection, first):
    """
    The decoder of `connection` is at a PUBLISH that does not fit, of which `first` is the first
    byte: have a handler read its payload, or read past it.

    Returns the Message without its payload, `length` being the bytes of the packet: it has to be
    acknowledged, and told if it is new. None when it is through.

    Raises ProtocolError, ConnectError; MemoryError to have the broker send it again.
    """
    if client.stream_in and await load("stream_in").receive(client, connection, first):
        return None
    t = connection.transport
    decoder = t.decoder
    size = decoder.end - decoder.start
    qos = first >> 1 & 3
    if qos and size <= client.max_packet:
        short = connection.no_memory
        short[1] = short[1] + 1 if short[0] == size else 1
        short[0] = size
        if short[1] < _TRIES:
            raise MemoryError
        short[0] = 0
    packet_id = 0
    rest = _Rest(t)
    t.streams.append(rest)
    try:
        t.due(STALL_MS)
        length = await rest.number()
        shown = min(length, _SHOWN)
        data = await rest.take(shown)
        if shown < length:  # the last character may be there in part
            while data and 0x80 <= data[-1] < 0xC0:
                data = data[:-1]
            if data and data[-1] > 127:
                data = data[:-1]
        topic = text(data)
        await rest.skip(length - shown)
        if qos:
            packet_id = await rest.number()
        if qos and not packet_id or "+" in topic or "#" in topic or not (topic or client.five):
            raise ProtocolError(
                "PUBLISH to %r, packet id %d (section 3.3.2)" % (topic[:50], packet_id)
            )
        if client.five:
            topic = decoder.resolved(topic, await _properties(rest, shown < length))
        await rest.skip(rest.left)
    finally:
        t.streams.remove(rest)
    client.session.postpone(time.ticks_ms())
    t.due(int(client.ack_timeout_s * 1000))
    message = Message(first, (topic, packet_id, b""))
    message.length = size
    if qos:
        return message
    client.stats.received += 1
    tell(client, message)
    return None


async def _properties(rest, cut):
    # the topic alias, if it is among the properties and they are few
    decode = load("properties").decode
    data = await rest.take(1)
    while data[-1] > 127 and len(data) < 4:
        data += await rest.take(1)
    length = 0
    for byte in reversed(data):
        length = length << 7 | byte & 127
    if length > _SHOWN:
        return None
    data += await rest.take(length)
    said, _ = decode(memoryview(data), 0, len(data), 0x30)
    if cut and said:  # the alias stands for all of it
        said.pop("topic_alias", None)
    return said


def tell(client, message):
    """Tell of the `message` that was read past; its handlers are done with it."""
    topic = message.topic
    size = message.length
    message.done = True
    client.stats.oversized += 1
    if client.event_log:
        client.event_log.put("Oversized", (topic, size))
    told = client.dispatcher.warned
    number = hash(topic) & 0xFFFF | 0x10000
    if number in told:
        return
    if len(told) > _TOLD:
        told.pop(0)
    told.append(number)
    why = "there is no memory for it -> free some"
    if size > client.max_packet:
        why = "max_packet is %d -> raise max_packet=" % client.max_packet
    client.say(
        "message of %d bytes to %r was passed over: %s, or read it in pieces: stream=True"
        % (size, topic, why)
    )
