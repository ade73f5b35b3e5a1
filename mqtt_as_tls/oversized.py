"""
A message that does not fit, over max_packet or without memory for it: a handler with stream=True
reads it, else it is read past; what that takes is its topic. Imported when one comes.
"""

import asyncio
import time

from micropython import const

from . import load
from .dispatch import Message
from .errors import ProtocolError, printable
from .packet import text
from .transport import STALL_MS

_SHOWN = const(480)  # bytes that are kept of its topic, and of its properties
_MALFORMED = const("PUBLISH malformed (section 3.3.2)")
_TOLD = const(16)  # topics that are not told again
_TOPIC_ALIAS = const(35)
_TRIES = const(5)  # connections on which there was no memory for a message
_IN_ALL = const(25)  # the same, for messages of one size with whatever ids


class _Rest:
    """
    What is left of the packet that is being received, among the streams of the transport: what is
    behind it has its time when it is through.

    most      int, bytes that are kept of topic and properties each
    left      int, bytes
    moved_ms  ticks of the last progress
    """

    def __init__(self, t, most):
        self._t = t
        self.most = most
        self._decoder = decoder = t.decoder
        self.left = decoder.end - decoder.at
        self.moved_ms = t.rx_ms
        decoder.start = decoder.at
        decoder.need = 0

    async def number(self, count):
        """Return the int in the next `count` bytes. Raises as `take` does."""
        return int.from_bytes(await self.take(count), "big")

    async def take(self, count, most=0):
        """
        Read past the next `count` bytes and return the first of them (bytearray), `most` if that
        is more than it keeps else.

        Raises ProtocolError where the packet has not as many; ConnectError.
        """
        self.left -= count
        if self.left < 0:
            raise ProtocolError(_MALFORMED, 129)
        most = max(most, self.most)
        decoder = self._decoder
        t = self._t
        data = bytearray()
        while count:
            start = decoder.start
            n = min(count, decoder.stop - start)
            if not n:
                await t.readable
                if t.read():
                    await asyncio.sleep_ms(0)
                self.moved_ms = t.rx_ms
                continue
            data.extend(decoder.buf[start : start + min(n, most - len(data))])
            decoder.start = start + n
            count -= n
        return data


def _whole(data):
    """Return `data` (bytes-like) without its last character, which may be there in part."""
    n = len(data) - 1
    while n > 0 and data[n] & 0xC0 == 0x80:
        n -= 1
    return data[:n]


async def _alias(rest, length):
    """Read past `length` bytes of properties; return their topic alias as decode() does."""
    form = load("properties").form
    end = rest.left - length
    said = None
    while rest.left > end:
        name = await rest.number(1)
        n = form(name)
        if n == 3:
            while await rest.number(1) > 127:
                pass
            continue
        if name == _TOPIC_ALIAS:
            said = {"topic_alias": await rest.number(2)}
            continue
        for _ in range(2 if n == 7 else 1):
            await rest.take(await rest.number(2) if n > 4 else n)
    if rest.left < end:
        raise ProtocolError(_MALFORMED, 129)
    return said


async def receive(client, connection, first):
    """
    The decoder of `connection` is at a PUBLISH that does not fit, of which `first` is the first
    byte: have a handler read its payload, or read past it.

    Returns the Message without its payload, `length` being the bytes of the packet: it has to be
    acknowledged, and told if it is new. None when it is through.

    Raises ProtocolError, ConnectError; MemoryError to have the broker send it again.
    """
    t = connection.transport
    decoder = t.decoder
    size = decoder.end - decoder.start
    qos = first >> 1 & 3
    packet_id = 0
    said = mine = None
    rest = _Rest(t, client.max_packet if client.stream_in else _SHOWN)
    t.streams.append(rest)
    try:
        t.due(STALL_MS)
        length = await rest.number(2)
        # one that has an alias is wanted whole
        topic = await rest.take(length, client.max_packet if client.five else 0)
        cut = part = length > len(topic)
        topic = text(_whole(topic) if cut else topic)
        if qos:
            packet_id = await rest.number(2)
        if qos and not packet_id or "+" in topic or "#" in topic or not (topic or client.five):
            raise ProtocolError(_MALFORMED, 129)
        if client.five:
            data = await rest.take(1)
            length = data[0]
            while data[-1] > 127 and len(data) < 4:
                data.extend(await rest.take(1))
                length += (data[-1] - 1) << 7 * len(data) - 7
            if length <= rest.most:
                data.extend(await rest.take(length))
                said, _ = load("properties").decode(memoryview(data), 0, len(data), 0x30)
            else:
                cut = True
                said = await _alias(rest, length)
            alias = said and said.get("topic_alias")
            try:
                topic = decoder.resolved(topic, said, not part)
            except ProtocolError:
                if not alias:
                    raise
                # wrong as it is, it would be that on the next connection, too
                topic = topic or "(topic alias %d)" % alias
                cut = True
        message = Message(first, (topic, packet_id, b""))
        if said:
            message.properties = said
        if client.stream_in and not cut:
            mine = load("stream_in").wanting(client, message)
        if mine is None:
            if qos and size <= client.max_packet:
                lack = client.retry.no_memory
                if lack.get("size") != size:
                    lack.update({"size": size, "packet_id": 0, "tries": 0, "in_all": 0})
                if lack["packet_id"] != packet_id:  # another message, or one numbered anew
                    lack["packet_id"] = packet_id
                    lack["tries"] = 0
                lack["tries"] += 1
                lack["in_all"] += 1
                if lack["tries"] < _TRIES and lack["in_all"] < _IN_ALL:
                    raise MemoryError
                lack.clear()
            await rest.take(rest.left)
    finally:
        t.streams.remove(rest)
    if mine is not None:
        client.stats.received += 1
        await load("stream_in").receive(client, connection, message, mine, rest.left)
        return None
    client.session.postpone(time.ticks_ms())
    t.due(0)
    topic = topic.encode()
    if len(topic) > _SHOWN:
        topic = str(_whole(topic[: _SHOWN + 1]), "utf-8")
        message = Message(first, (topic, packet_id, b""))
    message.length = size
    if qos:
        return message
    client.stats.received += 1
    tell(client, message)
    return None


def _harmless(topic):
    # Return `topic` (str), escaped where it has what may control a terminal.
    last = 0
    for c in topic.encode():  # bytes: a character that was taken out of a str stays in memory
        if c < 32 or c == 127 or (last == 0xC2 and c < 0xA0) or (last == 0xE2 and c < 0x82):
            return printable(topic)
        last = c
    return topic


def tell(client, message):
    """Tell of the `message` that was read past; its handlers are done with it."""
    topic = message.topic
    size = message.length
    message.done = True
    client.stats.oversized += 1
    if client.event_log:
        client.event_log.put("Oversized", (_harmless(topic), size))
    told = client.dispatcher.warned
    number = hash(topic)
    if number in told:
        return
    if len(told) > _TOLD:
        told.pop(0)
    told.append(number)
    why = "no memory for it -> free some"
    if size > client.max_packet:
        why = "max_packet is %d -> raise max_packet=" % client.max_packet
    load("repeats").tell(
        client,
        "message of %d bytes to %r was passed over: %s, or read it in pieces: stream=True"
        % (size, topic, why),
    )
