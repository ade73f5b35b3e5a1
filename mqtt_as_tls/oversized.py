"""
A message that does not fit. Over max_packet, or without memory for it: a handler with stream=True
reads it, else it is read past; what that takes is the first bytes of its topic. Without room in
the backlog: reading waits, others give way, or it is not taken. Imported when one comes.
"""

import asyncio
import time

from micropython import const

from . import load
from .dispatch import Message
from .errors import ProtocolError
from .packet import text
from .transport import STALL_MS

_SHOWN = const(480)  # bytes that are kept of its topic, and of its properties
_MALFORMED = const("PUBLISH malformed (section 3.3.2)")
_TOLD = const(16)  # topics that are not told again
_TRIES = const(5)  # connections on which there was no memory for a message


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
        self._most = most
        self._decoder = decoder = t.decoder
        self.left = decoder.end - decoder.at
        self.moved_ms = t.rx_ms
        decoder.start = decoder.at
        decoder.need = 0

    async def take(self, count):
        """
        Read past the next `count` bytes and return the first `most` of them (bytearray).

        Raises ProtocolError where the packet has not as many; ConnectError.
        """
        self.left -= count
        if self.left < 0:
            raise ProtocolError(_MALFORMED, 129)
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
            data.extend(decoder.buf[start : start + min(n, self._most - len(data))])
            decoder.start = start + n
            count -= n
        return data


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
        length = int.from_bytes(await rest.take(2), "big")
        topic = await rest.take(length)
        cut = length > len(topic)
        if cut:  # the last character may be there in part
            while len(topic) > 1 and topic[-1] & 0xC0 == 0x80:
                topic = topic[:-1]
            topic = topic[:-1]
        topic = text(topic)
        if qos:
            packet_id = int.from_bytes(await rest.take(2), "big")
        if qos and not packet_id or "+" in topic or "#" in topic or not (topic or client.five):
            raise ProtocolError(_MALFORMED, 129)
        if client.five:
            data = await rest.take(1)
            length = data[0]
            while data[-1] > 127 and len(data) < 4:
                data.extend(await rest.take(1))
                length += (data[-1] - 1) << 7 * len(data) - 7
            data.extend(await rest.take(length))
            cut = cut or length > len(data)
            if not cut:
                said, _ = load("properties").decode(memoryview(data), 0, len(data), 0x30)
            topic = decoder.resolved(topic, said)
        message = Message(first, (topic, packet_id, b""))
        if said:
            message.properties = said
        if client.stream_in and not cut:
            mine = load("stream_in").wanting(client, message)
        if mine is None:
            if qos and size <= client.max_packet:
                short = connection.no_memory
                short[1] = short[1] + 1 if short[0] == size else 1
                short[0] = size
                if short[1] < _TRIES:
                    raise MemoryError
                short[0] = 0
            await rest.take(rest.left)
    finally:
        t.streams.remove(rest)
    if mine is not None:
        client.stats.received += 1
        await load("stream_in").receive(client, connection, message, mine, rest.left)
        return None
    client.session.postpone(time.ticks_ms())
    t.due(0)
    message.length = size
    if qos:
        return message
    client.stats.received += 1
    tell(client, message)
    return None


def tell(client, message):
    """Tell of the `message` that was read past; its handlers are done with it."""
    topic = message.topic
    size = message.length
    message.done = True
    client.stats.oversized += 1
    if client.event_log:
        client.event_log.put("Oversized", (topic, size))
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
    client.say(
        "message of %d bytes to %r was passed over: %s, or read it in pieces: stream=True"
        % (size, topic, why)
    )


def full(client, message, keepalive_s):
    """
    There is no room in the backlog for the new `message`: return 1 if reading is to wait until
    handlers have made some, 0 if there is, as QoS 0 messages gave way, -1 if it is not taken. It
    is told once.

    What reading holds back may be what a handler waits for. So it does not wait where one has
    asked the broker for something, nor when none has begun with its next message for long.

    keepalive_s  int, that of the connection
    """
    d = client.dispatcher
    limit = min(keepalive_s * 750 or 1 << 28, client.handler_timeout_s * 1000)
    for lane in d.lanes():
        if lane.waits and lane.current:
            limit = 0
    if client.running and time.ticks_diff(time.ticks_ms(), d.began_ms) < limit:
        held = 1
        what = "reading waits"
    else:
        for old in list(d.held):
            if d.room(message):
                break
            if not old.qos:
                for lane in d.lanes():
                    if old in lane.queue:
                        lane.queue.remove(old)
                        d.release(old)
                client.stats.dropped += not old.claims
        held = 0 if d.room(message) else -1
        what = "QoS 0 gives way"
        if held and message.qos:
            what = "the broker will send again"
        client.stats.dropped += held and not message.qos
    if what not in d.warned:
        d.warned.append(what)
        client.say("handlers are behind: %d bytes wait (max_backlog): %s" % (d.size, what))
    return held
