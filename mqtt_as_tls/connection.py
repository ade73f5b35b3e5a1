"""
One attempt to be connected, from the link to the end of the connection: what dies with the socket
dies with this object. The reader, the acknowledgements, and every deadline are here.

    LINK -> CLOCK -> RESOLVE -> TCP -> TLS -> CONNECT -> UP -> CLOSED

CLOCK and TLS are passed over where they are not needed. From each it goes forward or to CLOSED,
and from there nowhere. Where MQTT 3.1.1 needs a new session, it goes once from CONNECT to TCP.
"""

import asyncio
import gc
import time

from micropython import const

from . import load, packet, unload
from .dispatch import Message
from .errors import ConnectError, LinkError, ProtocolError, ResolveError
from .transport import STALL_MS, Transport, closed, within

_CONNACK = const(0x20)
_PUBLISH = const(0x30)
_PUBACK = const(0x40)
_PUBREC = const(0x50)
_PUBREL = const(0x62)
_PUBCOMP = const(0x70)
_SUBACK = const(0x90)
_UNSUBACK = const(0xB0)
_PINGRESP = const(0xD0)
_AUTH = const(0xF0)
_PINGREQ = const(b"\xc0\0")
_DISCONNECT = const(b"\xe0\0")

STATES = const(("LINK", "CLOCK", "RESOLVE", "TCP", "TLS", "CONNECT", "UP", "CLOSED"))
_LINK = const(0)
_CLOCK = const(1)
_RESOLVE = const(2)
_TCP = const(3)
_TLS = const(4)
_CONNECT = const(5)
_UP = const(6)
_CLOSED = const(7)

_LINK_MS = const(120_000)
_EARLY = const(1785542400)  # 2026-08-01: a clock before this may be unset (clock decides)
_ROOM = const(80_000)  # bytes of heap: in less there is no reserve
_REPLIES = const(16)  # that wait to be sent
_TURN_MS = const(20)  # between looks whether handlers have made room
_BUFFER = const(512)  # of the decoder: a packet that is larger needs a piece of memory of its own


def _left(limit_ms, now, since, what):
    left = limit_ms - time.ticks_diff(now, since)
    if left <= 0:
        raise ConnectError("no %s for %d s" % (what, limit_ms // 1000))
    return left


class Connection:
    """
    One connection of a client.

    client  MQTTClient
    before  the Connection before it, or None

    address    str, IPv4 address of the broker, or None
    state      int, the number of one of STATES
    linking    bool, it brings the link up
    behind     bool, a message was not taken as handlers are behind (max_backlog)
    waiting    bool, the reader waits until handlers have made room
    clean_start  bool, the broker has no session now: the next CONNECT begins one that lasts
    up_ms      ticks when it was made, or None
    ended_in   str, the one of STATES in which it ended; None before
    transport  Transport; None before TCP, and when it is over
    reserve    Reserve, memory for the next one; None in a small heap
    """

    reserve = None

    def __init__(self, client, before):
        self._client = client
        self.state = _LINK
        # all that it ever has: at its end there may be no memory for another
        self.linking = self.behind = self.waiting = self.clean_start = False
        self.up_ms = self.transport = self._reader = self._pinged_ms = self._asked = None
        self.ended_in = self.address = self._asked_clock = None
        self._session = client.session
        self._host = client.host
        self._told = 0  # of what is odd about the broker's acknowledgements
        self._unsure = False  # an earlier CONNECT was not answered since the last connection
        if before:
            if before._host == self._host:
                self.address = before.address  # if nobody knows a newer one
            if before.reserve:
                self.reserve = before.reserve
            self._unsure = before._unsure
            self._told = before._told
            self._asked_clock = before._asked_clock
        # a smaller heap has no more than a handshake needs
        if not (self.reserve or client.running) and gc.mem_free() > _ROOM:
            self.reserve = load("reserve").Reserve(client)

    def is_up(self):
        """Return whether the client is connected."""
        return self.state == _UP

    def _enter(self, state):
        if self.state == _CLOSED:
            raise asyncio.CancelledError  # stopped, in the turn in which a deadline was over
        self.state = state

    async def run(self):
        """Connect, and return never: raises what ended it."""
        client = self._client
        t = None
        try:
            servers = await self._link()
            tls = client.tls
            if tls and (time.time() < _EARLY or "validity" in str(client.error)):
                self._enter(_CLOCK)
                self._asked_clock = await load("dns", "clock").check(
                    client, servers, self._asked_clock
                )
            self._enter(_RESOLVE)
            try:
                self.address = await load("dns").resolve(client.host, servers)
            except (ResolveError, ConnectError, MemoryError):
                if not self.address:  # the last good one may still serve
                    raise
            unload("clock", "dns")  # TLS needs the memory
            start = time.ticks_ms()
            while True:
                self._enter(_TCP)
                self.transport = t = Transport(asyncio.core.cur_task, client)
                try:
                    limit_ms = int(client.connect_timeout_s * 1000)
                    present = await within(limit_ms, self._open(t))
                except asyncio.TimeoutError:
                    raise load("texts").unanswered(client, STATES[self.state])
                if not self.clean_start:
                    break
                t.send(_DISCONNECT)
                t.close()
                self._unsure = True  # should it say that it has one
                if self.reserve:
                    self.reserve.back()
            t.decoder.partial = True
            self._enter(_UP)
            reads = self._read(t)
            if self.reserve:
                reads = self.reserve.guard(reads)
            self._reader = asyncio.create_task(reads)
            self._begin(t, present, time.ticks_diff(time.ticks_ms(), start))
            await asyncio.sleep_ms(0)  # what the attempt had is held, too, before others take it
            await self._watch(t)
        except ProtocolError as e:
            if client.five and self.transport:
                client.five.send_disconnect(t, e)
            raise
        finally:
            self.close()
            if t:
                t.close()  # its socket may be younger than the end

    async def _link(self):
        """Bring the link up, one client at a time; return its DNS servers."""
        client = self._client
        link = client.link
        if link is None:
            return None
        busy = True
        while busy:
            busy = served = False
            for mate in client.clients:
                if mate.link is link:
                    busy = busy or mate.connection.linking
                    served = served or mate.connected
            if busy:
                await asyncio.sleep_ms(50)
        self._enter(_LINK)
        self.linking = True
        try:
            retry = client.retry
            if not served and (
                retry.unanswered >= (1 if hasattr(link, "alive") else retry.reset_at)
            ):
                reset = await within(_LINK_MS, load("retry").resets_link(client))
                unload("retry")
                if reset:
                    await within(_LINK_MS, link.reset())
            if not link.is_up():
                remark = await within(_LINK_MS, link.up())
                client.say("link up" + (remark and ": " + remark or ""))
        except asyncio.TimeoutError:
            raise LinkError("the link did not come up within %d s" % (_LINK_MS // 1000))
        finally:
            self.linking = False
        return link.dns_servers()

    async def _open(self, t):
        """Connect; return session present. Raises MQTTError."""
        client = self._client
        session = self._session
        five = client.five
        why = session.discard  # why the session is to be a new one ("": no need to tell), or None
        if client.failover and client.failover.other_broker:
            why = "another broker"
        if client.clean_start and not five:
            why = ""
        first = not self.clean_start
        clean = first and why is not None
        if first:
            self._new = "new: " + why if why else "new"
        connect = await five.connect_packet() if five else client.connect_packet
        packet.set_clean(connect, clean)
        await t.dial(self.address, client.port)
        tls = client.tls
        self._enter(_TLS if tls else _CONNECT)
        await t.handshake(tls, client.host, connect, self.reserve)
        if tls:
            client.retry.unanswered = 0  # whatever comes now, the link works
            if tls.verified:  # what the clock says is confirmed
                tls.proved_s = time.time()
                self._asked_clock = None
        self._enter(_CONNECT)
        if self.reserve and tls:
            gc.collect()  # what stays of a connection is to lie low
        # without an answer the broker may have begun a session that we know nothing of
        unsure = self._unsure
        self._unsure = True
        # TLS needed the memory till now
        t.decoder = decoder = client.wire.Decoder(client.max_packet)
        while True:
            first = decoder.next()
            if first is None:
                await t.readable
                try:
                    t.read()
                except OSError as e:
                    if self.reserve:
                        self.reserve.regain()
                    raise closed(e)
            elif first == _AUTH:  # MQTT 5
                await five.challenged(t, decoder)
            else:
                break
        client.retry.unanswered = 0
        if first != _CONNACK:
            raise load("texts").out_of_place(first)
        present, code = decoder.connack()
        self._unsure = unsure
        if code:
            raise load("texts").refusal(client, code)
        if present and clean:
            raise load("texts").out_of_place(0)
        session.discard = None if present else ""  # until our side of it is new, too
        session.resume(present, time.ticks_ms(), unsure)
        self._unsure = False
        # one that begins clean ends with its connection (3.1.1 section 3.1.2.4)
        self.clean_start = clean and not (five or client.clean_start)
        self._keepalive_s = await five.accepted(decoder) if five else client.keepalive_s
        return present

    def _begin(self, t, present, took_ms):
        client = self._client
        session = self._session
        self.up_ms = time.ticks_ms()
        client.stats.connects += 1
        if client.failover:
            client.failover.connected(client, self)
        unknown = session.unknown
        while unknown:
            load("texts").undelivered(client, unknown[0])
            unknown.pop(0)
        for out in session.awaiting_pubcomp:
            t.send(packet.ack(_PUBREL, out.id))
        again = len(session.to_resend) + len(session.awaiting_pubcomp)
        client.stats.resent += again
        client.dispatcher.up(t, present and not session.unsure)
        client.outbox.up(t)
        if client.callbacks:
            client.callbacks.connected()
        client.up.set()
        tls = client.tls
        client.say(
            "connected in %d ms%s%s, session %s%s"
            % (
                took_ms,
                " (TLS %d)" % t.tls_ms if tls else "",
                ", NOT VERIFIED: anybody may listen" if tls and not tls.verified else "",
                "resumed" if present else self._new,
                ", %d messages sent again" % again if again else "",
            )
        )
        if client.event_log:
            client.event_log.put("Connected", present)

    def close(self):
        """End it; the session stays. Twice does no harm."""
        client = self._client
        reserve = self.reserve
        if self.state != _CLOSED:
            self.ended_in = STATES[self.state]
            self.state = _CLOSED
            if reserve:
                reserve.free()  # to cancel a task may take memory
            self.linking = False
            if self._reader:
                self._reader.cancel()
                self._reader = None
            if self.transport:
                self.transport.close()
                self.transport = None  # the next handshake needs its memory
                if reserve:
                    reserve.back()
            client.up.clear()
            if client.failover:
                client.failover.closed()
            client.dispatcher.down()
            client.outbox.down()
        if reserve and not client.running:
            reserve.hold()

    # In

    async def _read(self, t):
        client = self._client
        decoder = t.decoder
        session = self._session
        try:
            while True:
                begin = decoder.start
                first = decoder.next()
                if first is None:
                    # the broker takes nothing
                    while t.out and len(t.out) > _REPLIES + client.max_inflight:
                        await asyncio.sleep_ms(20)
                    if t.readable.ready:
                        await asyncio.sleep_ms(0)
                    else:
                        next(t.readable)
                        yield
                    try:
                        t.read()
                        continue
                    except MemoryError:
                        if decoder.need <= len(decoder.buf):
                            raise
                        first = decoder.buf[begin] | 256
                        if first & 0xF0 != _PUBLISH:
                            raise
                kind = first & 0xF0
                if kind == _PUBLISH:
                    message = None
                    if first < 256:
                        try:
                            message = self._arrived(Message(first, None, decoder))
                        except MemoryError:
                            if decoder.end - begin <= _BUFFER:
                                raise
                            decoder.start = begin
                            decoder.next()
                            decoder.start = begin
                            first |= 256
                    if first > 255:
                        message = await load("oversized").receive(client, self, first)
                        message = message and self._arrived(message)
                    while message:
                        self.waiting = True
                        await asyncio.sleep_ms(_TURN_MS)
                        message = self._arrived(message)
                        if not message:  # what comes behind it has its time from now on
                            self.waiting = False
                            self._asked = None
                            session.postpone(time.ticks_ms())
                            t.due(0)
                elif kind < _PUBLISH:
                    raise load("texts").out_of_place(first)
                elif kind < _SUBACK:
                    n = decoder.answer()
                    code = decoder.code
                    if kind == _PUBREL & 0xF0:
                        code = 0 if session.released(n) else 146
                        t.send(client.wire.ack(_PUBCOMP, n, code))
                        continue
                    now = time.ticks_ms()
                    out = session.acknowledged(kind, n, now, code > 127)
                    if code and out and kind != _PUBCOMP:
                        out.code = code
                    if kind == _PUBREC and code < 128 and out is not False:
                        t.send(client.wire.ack(_PUBREL, n, 0 if out else 146))
                    if out and out not in session.awaiting_pubcomp:
                        client.stats.round_trip_ms = time.ticks_diff(now, out.sent_ms)
                        if code > 127 and code != 146:
                            load("texts").undelivered(client, out, code)
                        out.set()
                    if len(session.odd) > self._told:
                        self._told = load("texts").odd(client, self._told)
                    client.outbox.pump()
                elif kind <= _UNSUBACK:
                    client.dispatcher.answered(decoder.packet_id(), kind, decoder.suback())
                    if client.callbacks:
                        client.callbacks.answered()
                elif kind > _PINGRESP:  # DISCONNECT, AUTH of MQTT 5
                    await client.five.disconnect_or_auth(t, decoder, kind)
                elif self._pinged_ms is not None:
                    client.stats.round_trip_ms = time.ticks_diff(time.ticks_ms(), self._pinged_ms)
                    self._pinged_ms = None
        except Exception as e:
            t.lost(e)

    def _arrived(self, message):
        # returns `message` if it has to wait for room
        client = self._client
        dispatcher = client.dispatcher
        qos = message.qos
        client.stats.received += 1
        if qos and not self._session.received(message, message.dup):
            client.stats.duplicates += 1  # it takes no room
        elif qos and self.behind or dispatcher.held and not dispatcher.room(message):
            message = load("surplus").full(client, message, self._keepalive_s)
            if message is False:
                self.behind = True  # what follows is not taken, so that handlers can go on
            return message
        elif message.length:
            load("oversized").tell(client, message)
        else:
            try:
                dispatcher.deliver(message)
            except MemoryError:
                if qos:  # the broker sends it again
                    self._session.inbound.remove(message)
                raise
        if qos and not message.claims:
            self.handled()
        return None

    def handled(self):
        """A message is handled: acknowledge what is, in order of arrival."""
        t = self.transport
        session = self._session
        try:
            while session.inbound and self.state == _UP:
                ready = session.next_ack()
                if ready is None:
                    break
                ack = self._client.wire.ack
                kind = _PUBACK if ready.qos == 1 else _PUBREC
                t.send(ack(kind, ready.id, ready.ack_code, ready.ack_properties))
                session.inbound.remove(ready)
                lack = self._client.retry.no_memory
                if lack and lack["packet_id"] == ready.id:
                    lack.clear()
            if len(session.odd) > self._told:
                self._told = load("texts").odd(self._client, self._told)
            if self.behind and t:
                for message in self._client.dispatcher.held:
                    if message.qos:
                        return
                t.lost(load("texts").behind())
        except MemoryError:  # it is sent on the next connection
            t.lost(MemoryError)

    # Deadlines

    async def _watch(self, t):
        """Keepalive and every deadline of a connection; raises what ended it."""
        client = self._client
        interval = self._keepalive_s * 750 or 1 << 28  # 0: the server wants no pings
        ack_ms = client.ack_timeout_s * 1000
        grace = min(ack_ms, self._keepalive_s * 1000 or ack_ms)
        stats = client.stats
        pinged = 0
        while not t.error:
            late = client.outbox.unawaited()
            now = time.ticks_ms()
            silent = time.ticks_diff(now, t.tx_ms)
            held = self.waiting or t.streams
            if held:
                self._asked = None  # the answer comes behind them
            else:
                silent = max(silent, time.ticks_diff(now, t.rx_ms))
            if self._asked != stats.bytes_in:  # any byte is a sign of life
                self._asked = None
                wait = interval - silent
                if wait <= 0:
                    if not held:
                        self._asked = stats.bytes_in  # when PINGREQ was sent
                    self._pinged_ms = pinged = now
                    t.send(_PINGREQ)
                    wait = grace
            else:
                wait = _left(grace, now, pinged, "answer to a ping")
            if t.blocked:
                wait = min(wait, _left(STALL_MS, now, t.moved_ms, "progress in sending"))
            for stream in t.streams:
                wait = min(wait, _left(STALL_MS, now, stream.moved_ms, "progress of a stream"))
            if not held:
                age = self._session.oldest_ms(now)
                if age >= 0:
                    wait = min(wait, _left(ack_ms, age, 0, "PUBACK"))
                if self._session.requests:
                    wait = min(wait, _left(ack_ms, now, self._session.asked_ms, "SUBACK"))
            # nudged by a publish that may be acknowledged already; or one is not awaited so far
            if late or t.wake_ms is None:
                wait = min(wait, ack_ms)
            if not t.error:  # a ping may have found the connection dead
                await t.sleep(min(wait, client.dispatcher.overdue(now)))
        error = t.error
        raise closed(error) if isinstance(error, OSError) else error
