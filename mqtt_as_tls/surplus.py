"""
A message for which there is no room in the backlog: reading waits, it is put aside, others give
way, or it is not taken. Imported when one comes.
"""

import asyncio
import gc
import time

from micropython import const

from . import load
from .dispatch import Message, Subscription
from .router import matches

_IDLE_MS = const(1000)  # no handler began with a message: it may be the broker that one waits for
_NAME = const("+#")  # of a lane: no topic filter
_PIECE = const(512)  # bytes: a smaller message with QoS 0 is put aside as a packet
_LOOK = const(1024)  # bytes until it is looked again how much memory is free
_FEED_MS = const(5)
_LOOK_MS = const(1000)  # between collections where it is short


def full(client, message, keepalive_s):
    """
    There is no room in the backlog for `message`, new or as before: return it if reading is to
    wait until handlers have made some. None if reading goes on, as it has room now that QoS 0
    messages gave way, was put aside, or was dropped; False if the broker has to send it again, and
    all with a QoS that follow. Each is told once.

    What reading holds back may be what a handler waits for. So it does not wait where one has
    asked the broker for something, nor when none has begun with its next message for long.

    keepalive_s  int, that of the connection
    """
    d = client.dispatcher
    connection = client.connection
    session = client.session
    if message.qos:
        session.inbound.remove(message)
        if connection.behind:
            return None
    surplus = None
    asked = False
    size = d.size
    for lane in d.lanes():
        asked = asked or lane.waits and lane.current
        if lane.filter == _NAME:
            surplus = lane
            size -= lane.mark.size
    limit_ms = min(keepalive_s * 750 or 1 << 28, client.handler_timeout_s * 1000)
    open = session.inflight or session.awaiting_pubcomp or session.requests
    open = open or client.requests and client.requests.waiting
    # what is to be sent may wait for a sign of the broker, a handler for a task of its own
    blocked = connection.transport.blocked
    aside = blocked or asked or open and _idle(d)
    waits = not (blocked or asked and open)
    waits = waits and time.ticks_diff(time.ticks_ms(), d.began_ms) < limit_ms
    waiting = kept = None
    try:
        kept = client.running and aside and (surplus or Surplus(client)).put(message)
    except MemoryError:
        pass
    what = "QoS 0 gives way"
    if kept:
        what = "more is kept, one may wait for it"
    elif client.running and waits:
        client.stats.received -= 1
        waiting = message
        what = "reading waits"
    elif _give_way(client, surplus, message):
        pass
    elif message.qos and getattr(client.five, "lasts", not client.clean_start):
        waiting = False
        what = "the broker will send again"
    else:
        client.stats.dropped += 1
        if message.qos:  # the session ends with the connection: nothing would come again
            what = "more is dropped"
            session.inbound.append(message)
            for each in session.inbound:
                each.done = True
            connection.handled()
    if what not in d.warned:
        d.warned.append(what)
        client.say("handlers are behind: %d bytes wait (max_backlog): %s" % (size, what))
    return waiting


def _idle(dispatcher):
    # whether handlers may wait for one another, or for the broker
    return time.ticks_diff(time.ticks_ms(), dispatcher.began_ms) > _IDLE_MS


def _give_way(client, surplus, message):
    """Drop QoS 0 messages until `message` has a place; return whether it has."""
    d = client.dispatcher
    old = [each for each in d.held if not each.qos]
    while True:
        if not surplus and d.room(message):
            deliver(client, message)
            return True
        if surplus and client.running and surplus.put(message):
            return True
        if not old or not client.running and surplus:
            return False
        first = old.pop(0)
        for lane in d.lanes():
            if first in lane.queue:
                lane.queue.remove(first)
                d.release(first)
        client.stats.dropped += not first.claims
        if surplus:
            surplus.feed()
            surplus = surplus.task and surplus  # it may have ended


def deliver(client, message):
    """Hand `message` over, of which the session does not know yet. Raises MemoryError."""
    session = client.session
    try:
        if message.qos:
            session.received(message, message.dup)
        _hand_over(client, message)
    except MemoryError:
        if message in session.inbound:  # the broker sends it again
            session.inbound.remove(message)
        raise


def _hand_over(client, message):
    if message.length:
        load("oversized").tell(client, message)
    else:
        client.dispatcher.deliver(message)
    if not message.claims:
        client.connection.handled()


class Surplus(Subscription):
    """
    What is put aside beyond the backlog, in order of arrival, until there is room in that: a
    handler waits for what comes behind it. It takes half of the memory that is free, at most.
    Small messages with QoS 0 lie there as packets, one behind the other.

    It is a lane of the dispatcher, so that it ends with the others. While there is something in
    it, `mark` takes all room in the backlog, so that nothing overtakes it. It stays while handlers
    that may wait for one another have more than the backlog: the next one would take half anew.

    items  list of Messages, and of bytearrays with packets
    bytes  int, what they take
    mark   Message, with a QoS, so that it does not give way
    """

    def __init__(self, client):
        super().__init__(_NAME, None, 0)
        self._client = client
        self._decoder = client.wire.Decoder(_PIECE + 8)
        self.mark = message = Message(2, (_NAME, 1, b""))
        message.size += client.max_backlog
        self.items = []
        self.bytes = 0
        self._floor = None  # bytes of memory that stay free
        self._full = True  # till that was looked at
        self._unseen = 0
        self._look_ms = time.ticks_add(time.ticks_ms(), -1)  # when it may be looked next
        self._lanes = []  # those that something in it may be for
        self._at = 0  # how much of the first item the decoder has
        self._next = None  # the Message that was taken out
        self._size = 0  # what it took

    def put(self, message):
        """
        Put `message` aside; return whether there is memory for it. What is for handlers for which
        nothing waits is delivered at once: others may wait for that.
        """
        client = self._client
        d = client.dispatcher
        items = self.items
        size = message.size
        piece = None
        try:
            if not self._waits(message):
                deliver(client, message)
                return True
            if not message.qos and size < _PIECE:
                try:
                    topic = message.topic.encode()
                    piece = client.wire.publish(
                        topic, message.payload, 0, message.retain, message.properties
                    )
                    size = len(piece)
                except ValueError:  # a property that only a broker sends
                    pass
            if not self._has_memory(size):
                return False
            n = len(client.session.inbound) + 1
            if message.qos and not n & n - 1:  # the next one makes that list twice as long
                bytearray(16 * n)
            if not self.task:
                d.held.append(self.mark)
                d.size += self.mark.size
                d.others.append(self)
                self.task = asyncio.create_task(self._feeds())
            if piece and items and isinstance(items[-1], bytearray) and len(items[-1]) < _PIECE:
                items[-1].extend(piece)
            else:
                items.append(piece or message)
        except MemoryError:
            if not self.task:
                self._end()
            return False
        if message.qos:
            client.session.received(message, message.dup)  # it has its place
        self.bytes += size
        return True

    def _waits(self, message):
        # whether something that came before it is for the same handlers
        d = self._client.dispatcher
        topic = message.topic
        subs = d.subscriptions
        if len(subs) > 4:  # as in dispatch
            subs = d.candidates(topic)
        lanes = [sub for sub in subs if sub.handler and matches(sub.filter, topic)]
        lanes = lanes or [d.inbox]
        waits = [lane for lane in lanes if lane.queue or lane in self._lanes]
        if waits:
            self._lanes += [lane for lane in lanes if lane not in self._lanes]
        return waits

    def _has_memory(self, size):
        # whether half of what was free is left. Without garbage between them those put aside lie
        # together, and what is left in one piece
        self._unseen += size
        now = time.ticks_ms()
        if self._unseen > _LOOK or self._full and time.ticks_diff(now, self._look_ms) > 0:
            self._unseen = 0
            gc.collect()
            free = gc.mem_free()
            if self._floor is None:
                self._floor = free // 2
            self._full = free < self._floor
            self._look_ms = time.ticks_add(now, _LOOK_MS)
        return not self._full

    async def _feeds(self):
        while self.task:
            await asyncio.sleep_ms(_FEED_MS)
            self.feed()

    def feed(self):
        """Deliver what there is room for in the backlog."""
        client = self._client
        d = client.dispatcher
        d.size -= self.mark.size
        try:
            while self.items:
                item = self.items[0]
                if not self._next:
                    self._next = self._first(item)
                message = self._next
                room = d.room(message) or len(d.held) == 1
                if not (room or _idle(d) and self._has_memory(message.size)):
                    break
                _hand_over(client, message)
                self._next = None
                self.bytes -= self._size
                decoder = self._decoder
                if item is message or self._at == len(item) and decoder.start == decoder.stop:
                    self.items.pop(0)
                    self._at = 0
        except MemoryError:
            pass  # it is tried again
        size = d.size
        d.size += self.mark.size
        if not self.items:
            self._lanes = []
            if size <= client.max_backlog or len(d.held) == 1:
                self._end()
                client.connection.handled()

    def _first(self, item):
        if not isinstance(item, bytearray):
            self._size = item.size
            return item
        decoder = self._decoder
        while True:
            begin = decoder.start
            first = decoder.next()
            if first is not None:
                break
            space = decoder.space()
            n = min(len(space), len(item) - self._at)
            space[:n] = item[self._at : self._at + n]
            decoder.fed(n)
            self._at += n
        self._size = decoder.start - begin
        try:
            return Message(first, None, decoder)
        except MemoryError:
            decoder.start = begin
            raise

    def _end(self):
        d = self._client.dispatcher
        self.task = None
        if self.mark in d.held:
            d.held.remove(self.mark)
            d.size -= self.mark.size
        if self in d.others:
            d.others.remove(self)
