"""
Messages out: what waits to be sent, and the pump that hands it to the connection as far as window
and socket allow. Nobody else touches the queue.
"""

import asyncio
import time

from micropython import const

from . import load, router
from .transport import Signal

# a publisher of QoS 0 in a loop gives the others a turn after so many messages, or so long
_ROW = const(16)
_TURN_MS = const(5)
# a publish() counts once for so many bytes of its packet; what did not begin in time never will
_SHARE = const(512)
_TICKS = const(0x3FFFFFFF)
_BEGIN_MS = const(1000)


class Delivery(Signal):
    """
    An outgoing message of the session, and the task that waits for its delivery.

    packet   bytearray, an encoded PUBLISH
    id       int, packet id or 0; qos  int
    share    int, what it counts against max_waiting while it waits
    turn     int, how many messages of enqueue() go first since the client was made; None: none
    since    ticks from which its message expiry counts (MQTT 5), or None
    length   int, bytes of the payload that follow the packet
    awaited  bool, a task waits for it
    code     int, reason code of its acknowledgement; error  exception, or None
    entry    what the store knows it by, or None
    """

    error = entry = turn = since = None
    id = code = length = share = 0
    qos = 1
    awaited = True

    def __init__(self, packet, qos, since=None):
        self.packet = packet
        if qos != 1:  # an attribute less
            self.qos = qos
        if since is not None:
            self.since = since

    def fill(self, packet, entry, since):
        """Make it a message of the store; the second time in the places that it has."""
        self.packet = packet
        self.qos = packet[0] >> 1 & 3
        self.entry = entry
        self.since = since
        self.awaited = False

    def aged(self, seconds):
        """So much of its message expiry is counted."""
        self.since = (self.since + seconds * 1000) & _TICKS


class Outbox:
    """
    The messages of a client that wait to be sent, and those that the app publishes.

    client  MQTTClient; its session, wire and five are there

    queue      list of Delivery, only to be read: those of publish(), and the next to be sent
    rings      list of the Ring of enqueue(), empty before the first one
    thread     int, that of the event loop, or None
    transport  Transport while there is a connection, or None
    aside      Aside of messages on which connections ended, or None: as of the last connection
    """

    def __init__(self, client):
        self._client = client
        self._session = client.session
        # _partial: QoS 0, sent in part
        self.transport = self.thread = self.aside = self._partial = self._birth = None
        self._begun = self._late = None  # see `unawaited`
        self._row = self._turn_ms = 0  # since others had a turn: messages; when that was
        # of publish(): what waits in the queue, what was called and what of that began, in shares
        self._waiting = self._called = self._begun_of = self._called_ms = 0
        self._pumping = False
        # the last topic and its bytes, as most apps give the same object again; one object, as
        # threads may enqueue
        self._topic = (self,)
        self.queue = []
        self.rings = []

    def start(self):
        """The client starts, in this thread."""
        try:
            from _thread import get_ident

            self.thread = get_ident()
        except ImportError:
            pass

    def encode(self, topic, payload, qos, retain, properties):
        """Return a Delivery for the arguments of publish(). Raises as that does."""
        client = self._client
        if properties and not client.five:
            router.wrong("option", "properties", properties)
        known = self._topic
        if known[0] is not topic:
            self._topic = known = topic, router.topic(topic)
        if not isinstance(payload, bytes):  # most are
            payload = router.payload(payload)
        if not isinstance(qos, int) or not 0 <= qos <= 2:
            router.qos(qos)
        buf = client.wire.publish(known[1], payload, qos, retain, properties)
        if len(buf) > client.max_packet:
            router.wrong("size", len(buf), client.max_packet, "max_packet")
        return Delivery(buf, qos, client.five.expires(properties) if properties else None)

    def begin(self, out):
        """
        Return what the app awaits for `out`: from then on it is sent.

        Raises RuntimeError when max_waiting wait already.
        """
        now = time.ticks_ms()
        called = self._called
        if time.ticks_diff(now, self._called_ms) > _BEGIN_MS:
            self._called = self._begun_of = called = 0
        waiting = self._waiting + called - self._begun_of
        share = 1 + len(out.packet) // _SHARE
        if waiting and waiting + share > self._client.max_waiting:
            router.wrong("waiting", self._client.max_waiting)
        self._called_ms = now
        self._called = called = called + share
        if not self._begun:
            self._begun = out
        return self._deliver(out, called, share)

    def _deliver(self, out, called, share):
        # what is awaited; on the PC, where this module is read too, no `async def`
        if self._begun is out:
            self._begun = None
        # they begin in the order of the calls
        if called == self._called:
            self._called = self._begun_of = 0
        elif self._begun_of < called < self._called:
            self._begun_of = called
        t = self.transport
        if t is None:  # a task may begin after the client was stopped
            self._client.check_running(None)
        try:
            if (
                t is None
                or t.blocked
                or self.queue
                or self._session.to_resend
                or self.rings
                and self.rings[0]
                or out.qos
                and (out.qos == 2 or self._session.full())
                or self._pumping
                or self.aside
            ):
                self.queue.append(out)
                if self.rings and self.rings[0]:
                    out.turn = self.rings[0].end()
                self.pump()
                if self.queue and self.queue[-1] is out:
                    out.share = share
                    self._waiting += share
            else:
                self._send(t, out, None)  # nothing goes before it
            if out.waiter is True:  # at once: a publisher in a loop lets the others run
                self._row = share = self._row + 1
                now = self._called_ms
                if share >= _ROW or time.ticks_diff(now, self._turn_ms) >= _TURN_MS:
                    self._row = 0
                    self._turn_ms = now
                    yield from asyncio.sleep_ms(0)
            else:
                next(out)
                yield
        finally:
            if out.waiter is not True:  # cancelled, or no memory
                out.awaited = False
                if not hasattr(out, "sent_ms"):
                    self._session.drop(out)  # it may be kept back
                if out in self.queue:
                    self.queue.remove(out)
                    self._waiting -= out.share
        if out.error:
            raise out.error
        return out.code

    def add(self, out, first):
        """
        Let the Delivery `out` wait to be sent; `first` (bool): before all others.
        """
        out.awaited = out.waiter is not None
        self.queue.insert(0 if first else len(self.queue), out)

    def pump(self):
        """Send what waits."""
        if not self._pumping and (  # a log that enqueues may come from within
            self.queue or self.rings or self._session.to_resend or self._client.store
        ):
            self._pumping = True
            try:
                self._pump()
            finally:
                self._pumping = False

    def _pump(self):
        # 11 words of variables at most: MicroPython takes larger frames from the heap, and looks
        # for each from the first hole on
        client = self._client
        while True:
            t = self.transport
            if t is None or t.blocked:
                return
            queue = self._session.to_resend
            if not queue:
                queue = self.queue
                if self.rings and self.rings[0] and self.rings[0].feed():
                    return
                if not queue:
                    out = client.store and self._session.fetch()
                    if not out:
                        return
                    queue.append(out)
            out = queue[0]
            if out.qos:
                if self.aside and queue is self.queue and self.aside.keeps(out):
                    if queue and queue[0] is out:
                        return
                    continue
                if out.qos == 2 and self._session.leftover and not self._session.releasing:
                    buf = self._session.release(time.ticks_ms())
                    if buf:
                        t.send(buf)
                        t.due(client.ack_timeout_s * 1000)
                if self._session.full():
                    return
            self._send(t, out, queue)

    def _send(self, t, out, queue):
        # hand `out`, the first of `queue` (None: of none), to the Transport `t`, or have it fail
        client = self._client
        buf = client.five.sending(out) if client.five else out.packet
        if buf is None:  # it failed
            return
        if out.qos:
            self._session.publish(out, time.ticks_ms())
        if queue is self.queue:
            queue.pop(0)
            if out.share:
                self._waiting -= out.share
                out.share = 0
        if queue is not self._session.to_resend:
            client.stats.sent += 1
        buf = out.begin(t, buf) if out.length else t.send(buf)  # whether it is sent
        if out.qos:
            if out is self._session.inflight[0]:  # else one is due before it
                t.due(client.ack_timeout_s * 1000)
        elif buf:
            # also where nobody waits: what it takes fills the hole that the frame of publish() has
            # left, at which MicroPython would else begin each search for memory
            out.set()
        else:
            self._partial = out

    def up(self, t):
        """There is a connection, the Transport `t`: the will's birth goes first."""
        self.transport = t
        client = self._client
        self.aside = aside = client.retry.aside  # another, or none, only after a failure
        if aside:
            aside.up()
        if client.will:
            self._birth = client.will.up(client, self._birth)
        self.pump()

    def drained(self):
        """The transport has sent all that waited in it."""
        out = self._partial
        if out:
            self._partial = None
            out.set()
        self.pump()

    def down(self):
        """The connection ended."""
        self.transport = None
        out = self._partial
        if out:
            self.queue.insert(0, out)
            self._partial = None

    def drop(self, out):
        """`out` is not to be sent any more."""
        if self._partial is out:
            self._partial = None
        if out in self.queue:
            self.queue.remove(out)
            self._waiting -= out.share
            out.share = 0

    def clear(self):
        """The client stops: forget what waits, and return it (a list)."""
        waiting = self.queue
        self.queue = []
        for out in waiting:
            if out.entry:  # the store gave it out
                self.queue.append(out)
        self._waiting = 0
        for ring in self.rings:
            ring.clear()
        return waiting

    def unawaited(self):
        """
        Tell of a publish() that was not awaited since the last call, the mistake that MicroPython
        is silent about; return whether there may be one. Send what waits, if it was not asked for.
        """
        self.pump()
        late = self._begun
        if late and late is self._late:
            self._begun = late = None
            load("texts").unawaited(self._client, self._late)
        self._late = late
        return late is not None
