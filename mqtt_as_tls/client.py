"""
The client: a supervisor that connects and never gives up, a reader, the deadlines of a
connection, and the methods that an app calls.

What a working connection does not need is elsewhere and loaded when it is: `retry`, `lifecycle`,
`subscribing`, `iterators`, `argument_errors`, `clock`.
"""

import asyncio
import gc
import time

from micropython import const

from . import errors, packet, router
from .dispatch import Delivery, Dispatcher, Message, Subscription
from .dns import resolve
from .router import wrong
from .session import Session
from .transport import Transport

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

_STALL_MS = const(10_000)  # a write without progress
_LINK_RESET_AFTER = const(5)  # attempts that nobody answered
_LINK_S = const(120)
_EARLY = const(1785542400)  # 2026-08-01: a clock before this may be unset (clock decides)
_FILTERS = const(8)  # in one SUBSCRIBE: AWS IoT takes no more
_REPLIES = const(16)  # that wait to be sent

# name, default, least, most
_OPTIONS = const(
    (
        ("keepalive_s", 60, 1, 65535),
        ("connect_timeout_s", 30, 1, 600),
        ("ack_timeout_s", 20, 1, 600),
        ("handler_timeout_s", 60, 1, 86400),
        ("drain_s", 5, 0, 600),
        ("max_packet", 4096, 64, 268435455),
        ("max_backlog", 16384, 64, 268435455),
        ("max_inflight", 8, 1, 65535),
        ("max_queue", 8192, 0, 268435455),
    )
)

# Methods of MQTTClient that are loaded when they are called
_LATER = const(
    (
        ("on_connect", "on_connect"),
        ("lifecycle", "connect disconnect wait_connected"),
        ("mqtt5", "reauthenticate"),
        ("queueing", "enqueue"),
        ("request_response", "request respond"),
        ("iterators", "events messages"),
        ("subscribing", "subscribe unsubscribe"),
    )
)

_clients = []  # between start and stop
_own_id = None


class Stats:
    """
    Counters since the client was made.

    connects, sent, received  int, PUBLISH packets for the latter two
    resent      messages sent again after a reconnect
    duplicates  redeliveries that were not handled twice
    dropped     QoS 0 messages that gave way because handlers were behind (max_backlog)
    unclaimed   messages that no handler and no iterator wanted
    bytes_in, bytes_out
    round_trip_ms  the last one measured, publish or ping to its answer; -1 before the first
    """

    def __init__(self):
        self.connects = self.sent = self.received = self.resent = self.duplicates = 0
        self.dropped = self.unclaimed = self.bytes_in = self.bytes_out = 0
        self.round_trip_ms = -1


def _later(module, name):
    return getattr(__import__(module, globals(), None, [name], 1), name)


def _text(value, name):
    data = router.encode(value)
    if data is None:
        wrong("text", name, value)
    return data


def _left(limit_ms, now, since, what):
    left = limit_ms - time.ticks_diff(now, since)
    if left <= 0:
        raise errors.ConnectError("no %s for %d s" % (what, limit_ms // 1000))
    return left


def _default_id(store):
    global _own_id
    if _own_id is None:
        try:
            from machine import unique_id

            data = unique_id()
        except (ImportError, AttributeError):
            from os import urandom

            if store is not None:
                wrong("store")
            data = urandom(8)
        _own_id = "mp" + data.hex()
    return _own_id


class MQTTClient:
    """
    An MQTT client that stays connected.

    host         str, name or IPv4 address of the broker; or a list of them, or of pairs (host,
                 port), to be tried in order
    port         int; default 8883 with `tls`, else 1883
    link         WiFi(...) or another link; None: something else keeps the network up
    tls          TLS(...); None: plain TCP
    client_id    str; default: from machine.unique_id(), else random for the process
    user         str; password  str or bytes
    will         Will(...)
    log          a function that takes a line (str), or None
    clean_start  bool: forget the session at every connect (MQTT 5: at the first)
    give_up_after  int: fail a message that broke so many connections in a row; None: never
    shared_session  bool: the brokers of the list are one cluster and share the session
    store        FileStore(...): the session and the queue of enqueue() survive a reset
    protocol     4 (MQTT 3.1.1) or 5 (MQTT 5.0)

    MQTT 5 only:

    session_expiry_s  seconds that the broker keeps the session without us; default 3600
    properties   dict or list of pairs, of CONNECT; a value of None leaves out what is there by
                 default
    auth         (method str, step function): enhanced authentication
    topic_aliases  int: the most topics of a connection that QoS 0 messages send as a number; 0

    Numbers, with their defaults:

    keepalive_s=60        1 to 65535, the longest silence before the broker is asked for a sign
    connect_timeout_s=30  for TCP, TLS and CONNACK together
    ack_timeout_s=20      an acknowledgement later than this drops the connection
    handler_timeout_s=60  a handler that takes longer gets its message acknowledged
    drain_s=5             how long disconnect() waits for what is in flight
    max_packet=4096       bytes, the largest packet sent or accepted
    max_backlog=16384     bytes received and not handled yet
    max_inflight=8        QoS 1 and 2 messages that wait for their acknowledgement at a time
    max_queue=8192        bytes that wait in the queue of enqueue()

    connected, running  bool
    error    the exception that ended the last connection or attempt, or None
    stats    Stats
    properties  dict of what the broker said in CONNACK (MQTT 5), or None

    Raises TypeError and ValueError for arguments out of their range.
    """

    _fresh = None  # the first Delivery of a publish() that is not awaited so far

    def __init__(
        self,
        host,
        port=None,
        *,
        link=None,
        tls=None,
        client_id=None,
        user=None,
        password=None,
        will=None,
        log=print,
        clean_start=False,
        give_up_after=None,
        protocol=4,
        store=None,
        **options,
    ):
        self.connected = self.running = self._busy = self._foreign = False
        self._behind = self._streams = self._unsure = False
        self.properties = self._five = self._hosts = self._birth = self._events = None
        self.error = self._address = self._partial = self._pinged_ms = self._reader = None
        self._since_ms = self._transport = self._wake_ms = self._said = None
        self._hooks = self._incoming = None
        self._queued = self._silent = self._failures = self._refusals = 0
        # of failing, which may have no memory to begin them
        self._suspect = self._why = None
        self._strikes = 0
        self._reset_at = _LINK_RESET_AFTER
        self._clients = _clients
        for name, value, low, high in _OPTIONS:
            value = options.pop(name, value)
            if not isinstance(value, (int, float)) or not low <= value <= high:
                wrong("number", name, value, low, high)
            setattr(self, name, value)
        if port is None:
            port = 8883 if tls else 1883
        if not isinstance(port, int) or not 0 < port < 65536:
            wrong("number", "port", port, 1, 65535)
        if self.max_backlog < self.max_packet:
            wrong("number", "max_backlog", self.max_backlog, self.max_packet, 268435455)
        if password is not None:
            password = router.payload(password)
        for name, value, good in (
            ("protocol", protocol or 0, protocol in (4, 5)),
            ("tls", tls, hasattr(tls, "wrap")),
            ("link", link, hasattr(link, "is_up")),
            ("will", will, hasattr(will, "birth")),
            ("store", store, hasattr(store, "put")),
            ("log", log, callable(log)),
            ("password", password, user is not None or protocol == 5),
            ("give_up_after", give_up_after, isinstance(give_up_after, int)),
        ):
            if not good and value is not None:
                wrong("option", name, value)
        if not isinstance(host, str):
            host, port = _later("failover", "first")(self, host, port, options)
        _text(host, "host")
        self.host = host
        self.port = port
        self.client_id = _default_id(store) if client_id is None else client_id
        self.tls = tls
        self.will = will
        self.clean_start = bool(clean_start)
        self._store = store
        self._wire = packet
        self._alive_s = self.keepalive_s
        if protocol == 5:
            self._wire = self._five = _later("mqtt5", "Wire")(self, options)
        elif will and (will.properties or will.delay_s):
            wrong("option", "properties", will.properties)
        for name in options:
            wrong("option", name, options[name])
        own = self.client_id != "" or not (protocol == 5 or clean_start)
        self._hello = self._wire.connect(
            _text(self.client_id, "client_id") if own else b"",
            int(self.keepalive_s),
            False,
            None if user is None else _text(user, "user"),
            password,
            will and (will.topic.encode(), will.payload, will.qos, will.retain),
        )
        self._link = link
        self._log = log
        self.give_up_after = give_up_after
        self._session = Session(self.max_inflight) if store is None else store.session(self)
        self._clean = self._five is not None and (
            self.clean_start or store is None or not store.restored
        )
        self._dispatcher = Dispatcher(self)
        self.stats = Stats()
        self._queue = []  # Delivery, not sent yet
        if will:
            for data in (will.payload, will.birth or b""):
                self._encode(will.topic, data, will.qos, will.retain)  # not too large?
        if _clients:
            _later("lifecycle", "make_way")(self, False)

    # What an app calls; the rest of it is in _LATER

    def on(self, filter, qos=0, *, stream=False, **options):
        """
        Decorator: declare a subscription and its handler, `def` or `async def`, which gets a
        Message. It is renewed after every connect.

        filter  str, topic filter (3.1.1 section 4.7)
        qos     int, 0 to 2
        stream  bool: the handler (async) reads `message.stream`, which may be larger than memory

        MQTT 5: no_local, retain_as_published bool, retain_handling int, properties

        Raises ValueError for a bad filter or QoS, and when the filter has a handler already.
        """
        sub = self._dispatcher.find(filter)
        if sub and sub.handler:
            wrong("handler", filter)
        router.filter(filter)
        router.qos(qos)

        def decorate(handler):
            if not callable(handler):
                wrong("option", "handler", handler)
            sub = self._declare(filter, qos, options, handler)
            if stream:
                _later("stream_in", "attach")(self, sub)
            return handler

        return decorate

    async def __aenter__(self):
        if _clients:
            _later("lifecycle", "make_way")(self, True)
        self._loop = asyncio.core._task_queue
        self._up = asyncio.Event()
        for sub in self._dispatcher.subscriptions:
            sub.granted = None
        self.running = True
        self.error = self._said = None
        self._failures = self._refusals = self._silent = 0
        self._slow = False
        _clients.append(self)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc):
        await self.disconnect()

    def publish(
        self,
        topic,
        payload=b"",
        *,
        qos=0,
        retain=False,
        timeout_s=None,
        properties=None,
        length=None,
    ):
        """
        Publish; the awaited call returns when the QoS is fulfilled: QoS 0 handed to the network,
        QoS 1 acknowledged by the broker, QoS 2 received by it exactly once, across reconnects.
        Offline it waits.

        topic       str without wildcards
        payload     bytes-like, or str sent as UTF-8; with `length` a stream
        qos         int, 0 to 2
        retain      bool, the broker keeps it for later subscribers
        timeout_s   seconds, or None
        properties  dict or list of pairs (MQTT 5)
        length      bytes to be read from the stream `payload` (readinto, and seek for QoS 1 and 2)

        Returns the reason code of the acknowledgement (int): 0, with MQTT 5 also 16: no
        subscriber.

        A time-out and a cancellation take back a message of which nothing was sent; else they end
        the waiting only.

        Raises TypeError, ValueError and RuntimeError (not running) at the call; RefusedError
        (MQTT 5); DeliveryUnknown (QoS 2, the broker lost the session); asyncio.TimeoutError;
        MQTTError when the client is stopped meanwhile.
        """
        self._check()
        if self._incoming and qos:
            self._incoming.forbid()
        if length is None:
            out = self._encode(topic, payload, qos, retain, properties)
        else:
            out = _later("stream_out", "Upload")(
                self, topic, payload, length, qos, retain, properties
            )
        if not self._fresh:
            self._fresh = out
        if timeout_s is None:
            return self._deliver(out)
        return asyncio.wait_for(self._deliver(out), timeout_s)

    def __getattr__(self, name):
        for module, names in _LATER:
            if name in names.split():
                function = _later(module, name)
                return lambda *args, **options: function(self, *args, **options)
        raise AttributeError(name)

    def _check(self):
        if not self.running:
            wrong("not_running")

    # Out: publishing and subscribing

    def _encode(self, topic, payload, qos, retain, properties=None):
        if properties and not self._five:
            wrong("option", "properties", properties)
        buf = self._wire.publish(
            router.topic(topic), router.payload(payload), router.qos(qos), retain, properties
        )
        if len(buf) > self.max_packet:
            wrong("size", len(buf), self.max_packet, "max_packet")
        return Delivery(buf, qos)

    async def _deliver(self, out):
        if self._fresh is out:
            self._fresh = None
        self._check()  # once more: a task may begin after the client was stopped
        self._queue.append(out)
        try:
            self._pump()
            if out.is_set:
                await asyncio.sleep_ms(0)  # a publisher in a loop lets the others run
            await out
        finally:
            if not out.is_set:  # cancelled, or no memory
                out.awaited = False
                if out in self._queue:
                    self._queue.remove(out)
        if out.error:
            raise out.error
        return out.code

    def _pump(self):
        """Send what waits, as far as the window and the socket allow."""
        session = self._session
        while self.connected and not self._transport.blocked:
            queue = session.to_resend or self._queue
            if not queue and not (self._store is not None and session.fetch(queue)):
                return
            out = queue[0]
            if out.qos and session.full():
                return
            buf = self._five.sending(out) if self._five else out.packet
            if buf is None:  # it failed
                continue
            if out.qos:
                session.publish(out, time.ticks_ms())
            if queue is self._queue:
                queue.pop(0)
                self.stats.sent += 1
            self._queued -= out.queued
            out.queued = 0
            sent = out.begin(self._transport, buf) if out.length else self._send(buf)
            if out.qos:
                self._due(self.ack_timeout_s * 1000)
            elif sent:
                out.set()
            else:
                self._partial = out

    def _send(self, buf):
        """Write `buf` in turn; return whether it is sent."""
        if self._transport.write(buf):
            return True
        self._due(_STALL_MS)
        return False

    def _drained(self):
        """The transport has sent all that waited."""
        out = self._partial
        if out:
            self._partial = None
            out.set()
        self._pump()

    def _declare(self, filter, qos, options, handler=None):
        data = router.filter(filter)
        router.qos(qos)
        old = self._dispatcher.find(filter)
        sub = old or Subscription(filter, data, qos)
        if options:
            if not self._five:
                wrong("option", *list(options.items())[0])
            self._five.subscription(sub, options)
        if not old:
            self._dispatcher.changed()
            self._dispatcher.subscriptions.append(sub)
        if qos != sub.qos or (sub.granted or 0) > 2:
            sub.qos = qos
            sub.granted = None
            sub.asked = False
        sub.handler = handler or sub.handler  # it is told when it is refused at once
        if self.connected:
            try:
                self._renew()
            except MemoryError as e:  # asked or not, the next connection asks for it
                self._lost(e)
                raise
        return sub

    def _renew(self):
        """Ask for every declared subscription that this session does not have."""
        five = self._five
        most = five.filters if five else _FILTERS
        while True:
            part = []
            filters = []
            for sub in self._dispatcher.subscriptions:
                if sub.granted is not None or sub.asked or len(part) == most:
                    continue
                if five and five.unavailable(sub):
                    continue
                if part and (sub.properties or part[0].properties):
                    continue  # properties are for all filters of a SUBSCRIBE
                sub.asked = True
                part.append(sub)
                filters.append((sub.data, sub.qos | sub.flags))
            if not part:
                return
            self._request(self._wire.subscribe, part, filters, part[0].properties)

    def _request(self, encode, record, what, properties):
        """Send a SUBSCRIBE or UNSUBSCRIBE; `record`: its Subscriptions, a list or a tuple."""
        self._asked_ms = time.ticks_ms()
        self._send(encode(self._session.request(record), what, properties))
        self._due(self.ack_timeout_s * 1000)

    # The connection

    async def _run(self, caught=(Exception, asyncio.CancelledError)):
        while True:
            try:
                await self._attempt()
            except caught as e:  # it is told and tried again; a tuple made here would take memory
                if self._task is not asyncio.core.cur_task:  # stopped
                    raise
                # what a MemoryError says may lie where MicroPython has written since
                error = MemoryError("no memory") if isinstance(e, MemoryError) else e
            try:
                delay = _later("retry", "failed")(self, error)
            except Exception:  # no memory for more words
                self.error = error
                self._say(error)
                delay = 5000
            error = None
            gc.collect()
            await asyncio.sleep_ms(delay)

    async def _attempt(self):
        t = None
        try:
            self._behind = False  # the broker sends again what did not fit
            servers = await self._linked()
            if self.tls and (time.time() < _EARLY or "validity" in str(self.error)):
                await _later("clock", "check")(self, servers)
            try:
                self._address = await resolve(self.host, servers)
            except errors.ResolveError:
                if not self._address:  # the last good one may still serve
                    raise
            if self._task is not asyncio.core.cur_task:
                raise asyncio.CancelledError  # stopped: a wait_for may have lost that
            self._error = None
            self._transport = t = Transport(self)
            start = time.ticks_ms()
            try:
                present = await asyncio.wait_for(self._open(t), self.connect_timeout_s)
            except asyncio.TimeoutError:
                raise errors.ConnectError(
                    "%s port %d: no answer within %d s (%s)"
                    % (self._address, self.port, self.connect_timeout_s, t.stage)
                )
            t.decoder.partial = self._streams
            self._reader = asyncio.create_task(self._read(t))
            self._begin(t, present, time.ticks_diff(time.ticks_ms(), start))
            await self._watch(t)
        except errors.ProtocolError as e:
            if self._five and self._transport is t:
                self._five.goodbye(t, e)
            raise
        finally:
            if self._transport is t:
                self._down()
            elif t:
                t.close()  # it was stopped meanwhile; the socket may be younger than that

    async def _linked(self):
        """Bring the link up, one client at a time; return its DNS servers."""
        link = self._link
        if link is None:
            return None
        busy = True
        while busy:
            busy = served = False
            for mate in _clients:
                if mate._link is link:
                    busy = busy or mate._busy
                    served = served or mate.connected
            if busy:
                await asyncio.sleep_ms(50)
        self._busy = True
        try:
            if self._silent >= self._reset_at and not served:
                _later("retry", "unanswered")(self)
                await asyncio.wait_for(link.reset(), _LINK_S)
            if not link.is_up():
                await asyncio.wait_for(link.up(), _LINK_S)
                self._say("link up")
        except asyncio.TimeoutError:
            raise errors.LinkError("the link did not come up within %d s" % _LINK_S)
        finally:
            self._busy = False
        return link.dns_servers()

    async def _open(self, t):
        """Connect; return session present. Raises MQTTError."""
        five = self._five
        clean = self._clean or self._foreign or (self.clean_start and not five)
        if five:
            self._hello = await five.hello()
        packet.set_clean(self._hello, clean)
        await t.open(self._address, self.port, self.host, self.tls, self._hello)
        # without an answer the broker may have begun a session that we know nothing of
        unsure = self._unsure
        self._unsure = True
        # TLS needed the memory till now
        t.decoder = decoder = self._wire.Decoder(self.max_packet)
        while True:
            first = decoder.next()
            if first is None:
                await t.readable
                t.read()
            elif first == _AUTH:  # MQTT 5
                await five.challenged(t, decoder)
            else:
                break
        if first != _CONNACK:
            raise errors.ProtocolError("packet 0x%02x before CONNACK [MQTT-3.2.0-1]" % first)
        present, code = decoder.connack()
        self._unsure = unsure
        if code:
            raise _later("retry", "refusal")(self, code)
        if present and clean:
            raise errors.ProtocolError("session present after a clean start [MQTT-3.2.2-1]")
        self._clean = not present  # until our side of the session is new too
        if five:
            await five.accepted(decoder)
        return present

    def _begin(self, t, present, took_ms):
        now = time.ticks_ms()
        self.connected = True
        self._since_ms = now
        self.stats.connects += 1
        self._refusals = 0
        self._slow = self._foreign = False
        self._reset_at = _LINK_RESET_AFTER
        session = self._session
        session.unsure = unsure = self._unsure
        unknown = session.resume(present, now)
        while unknown:
            _later("retry", "undelivered")(self, unknown[0])
            unknown.pop(0)
        self._clean = False
        for out in session.awaiting_pubcomp:
            self._send(packet.ack(_PUBREL, out.id))
        again = len(session.to_resend) + len(session.awaiting_pubcomp)
        self.stats.resent += again
        for sub in self._dispatcher.subscriptions:
            if not present or unsure or (sub.granted or 0) > 2:
                sub.granted = None
        self._unsure = False
        self._renew()
        will = self.will
        if will and will.birth is not None:
            out = self._birth
            if out not in self._queue + session.inflight + session.awaiting_pubcomp:
                self._birth = out = self._encode(will.topic, will.birth, will.qos, will.retain)
                out.awaited = False
                self._queue.insert(0, out)
        self._pump()
        if self._hooks:
            self._hooks.connected()
        self._up.set()
        tls = self.tls
        self._say(
            "connected in %d ms%s%s, session %s%s"
            % (
                took_ms,
                " (TLS %d)" % t.tls_ms if tls else "",
                ", NOT VERIFIED: anybody may listen" if tls and not tls.verified else "",
                "resumed" if present else "new",
                ", %d messages sent again" % again if again else "",
            )
        )
        if self._events:
            self._events.put("Connected", present)

    def _report(self, what, name, error):
        try:
            _later("retry", "report")(self, what % name, error)
        except MemoryError:
            pass

    async def _read(self, t):
        decoder = t.decoder
        session = self._session
        stats = self.stats
        more = False
        try:
            while True:
                first = decoder.next()
                if first is None:
                    if more:
                        await asyncio.sleep_ms(0)
                    else:
                        await t.readable
                    while len(t.out) > _REPLIES + self.max_inflight:  # the broker takes nothing
                        await asyncio.sleep_ms(20)
                    more = t.read()
                    continue
                kind = first & 0xF0
                if first > 255:  # larger than max_packet
                    more = await _later("stream_in", "receive")(self, t, first)
                elif kind == _PUBLISH:
                    self._arrived(first, decoder)
                elif kind == _PINGRESP:
                    if self._pinged_ms is not None:
                        stats.round_trip_ms = time.ticks_diff(time.ticks_ms(), self._pinged_ms)
                        self._pinged_ms = None
                elif kind == _CONNACK:
                    raise errors.ProtocolError("a second CONNACK (section 3.2)")
                elif kind in (_SUBACK, _UNSUBACK):
                    part = session.answered(decoder.packet_id())
                    codes = decoder.suback()
                    if part:
                        self._granted(part, kind, codes)
                        if self._hooks:
                            self._hooks.answered()
                elif kind > _PINGRESP:  # DISCONNECT, AUTH of MQTT 5
                    await self._five.disconnect_or_auth(t, decoder, kind)
                else:
                    n = decoder.answer()
                    code = decoder.code
                    if kind == _PUBREL & 0xF0:
                        code = 0 if session.released(n) else 146
                        self._send(self._wire.ack(_PUBCOMP, n, code))
                        continue
                    now = time.ticks_ms()
                    out = session.acknowledged(kind, n, now, code > 127)
                    if out and code and kind != _PUBCOMP:
                        out.code = code
                    if kind == _PUBREC and code < 128:
                        self._send(self._wire.ack(_PUBREL, n, 0 if out else 146))
                    elif out:
                        stats.round_trip_ms = time.ticks_diff(now, out.sent_ms)
                        if code > 127 and code != 146:
                            _later("retry", "undelivered")(self, out, code)
                        out.set()
                        self._pump()
        except Exception as e:
            if self._transport is t:  # else it comes too late
                self._lost(e)

    def _granted(self, part, kind, codes):
        """A SUBACK or UNSUBACK (`kind`) with `codes` came for `part`."""
        codes = codes or bytes(len(part))  # an UNSUBACK of MQTT 3.1.1 has none
        if len(codes) != len(part) or isinstance(part, list) != (kind == _SUBACK):
            raise errors.ProtocolError("SUBACK or UNSUBACK for another request [MQTT-3.8.4-5]")
        for i, sub in enumerate(part):
            sub.granted = codes[i]
            if codes[i] > 127:
                _later("retry", "refused")(self, sub)

    def _arrived(self, first, decoder):
        qos = first >> 1 & 3
        topic, n, payload = decoder.publish(qos)
        dup = first & 8 == 8
        message = Message(topic, payload, qos, first & 1 == 1, dup, n)
        if decoder.properties:
            message.properties = decoder.properties
            message._extra = decoder.extra
        self.stats.received += 1
        if qos and self._behind or not self._dispatcher.room(message):
            if not qos:
                self.stats.dropped += 1
            elif not self._behind:
                # This and what follows it is not taken, so that handlers can go on to publish
                self._behind = True
                self._say(
                    "handlers are behind by %d bytes (max_backlog): the broker will send again"
                    % self._dispatcher.size
                )
            return
        if not qos or self._session.received(message, dup):
            try:
                self._dispatcher.deliver(message)
            except MemoryError:
                if qos:  # the broker sends it again
                    self._session.inbound.remove(message)
                raise
        else:
            self.stats.duplicates += 1
        self._handled(message)

    def _handled(self, message):
        """Acknowledge what is handled, in order of arrival."""
        try:
            while message.qos and self.connected:
                ready = self._session.next_ack()
                if not ready:
                    break
                kind = _PUBACK if ready.qos == 1 else _PUBREC
                self._send(self._wire.ack(kind, ready.id, ready.ack_code, ready.ack_properties))
                self._session.inbound.remove(ready)
            if self._behind and not [m for m in self._dispatcher.held if m.qos]:
                self._lost(errors.ConnectError("handlers are done: now for what did not fit"))
        except MemoryError as e:  # it is sent on the next connection
            self._lost(e)

    async def _watch(self, t):
        """Keepalive and every deadline of a connection; raises what ended it."""
        interval = self._alive_s * 750 or 1 << 28  # 0: the server wants no pings
        ack_ms = self.ack_timeout_s * 1000
        grace = min(ack_ms, self._alive_s * 1000 or ack_ms)
        stats = self.stats
        asked = None  # bytes received when PINGREQ was sent
        pinged = 0
        late = None
        while not self._error:
            if late and late is self._fresh:
                self._fresh = None
                _later("retry", "unawaited")(self, late)
            late = self._fresh
            now = time.ticks_ms()
            silent = time.ticks_diff(now, t.tx_ms)
            if t.streams:
                asked = None  # the answer comes behind them
            else:
                silent = max(silent, time.ticks_diff(now, t.rx_ms))
            if asked != stats.bytes_in:  # any byte is a sign of life
                asked = None
                wait = interval - silent
                if wait <= 0:
                    if not t.streams:
                        asked = stats.bytes_in
                    self._pinged_ms = pinged = now
                    self._send(_PINGREQ)
                    wait = grace
            else:
                wait = _left(grace, now, pinged, "answer to a ping")
            if t.blocked:
                wait = min(wait, _left(_STALL_MS, now, t.moved_ms, "progress in sending"))
            for stream in t.streams:
                wait = min(wait, _left(_STALL_MS, now, stream.moved_ms, "progress of a stream"))
            if not t.streams:
                age = self._session.oldest_ms(now)
                if age >= 0:
                    wait = min(wait, _left(ack_ms, age, 0, "PUBACK"))
                if self._session.requests:
                    wait = min(wait, _left(ack_ms, now, self._asked_ms, "SUBACK"))
            left = self._dispatcher.overdue(now)
            if left >= 0:
                wait = min(wait, left)
            # nudged by a publish that may be acknowledged already; or one is not awaited so far
            if late or self._wake_ms is None:
                wait = min(wait, ack_ms)
            if not self._error:  # a ping may have found the connection dead
                wait = int(wait)
                self._wake_ms = time.ticks_add(now, wait)
                await asyncio.sleep_ms(wait)
        raise self._error

    def _due(self, ms):
        """Have the supervisor look at the deadlines within `ms`, if it sleeps until one."""
        task = self._task
        if (
            self._wake_ms is not None
            and time.ticks_diff(self._wake_ms, time.ticks_ms()) > ms
            and task is not asyncio.core.cur_task
            and task.data is None  # else it is cancelled, and would forget that
        ):
            self._wake_ms = None
            self._loop.remove(task)
            self._loop.push(task)

    def _lost(self, error):
        """The connection ended: let the supervisor know."""
        if isinstance(error, MemoryError):
            error = MemoryError  # the instance may be one that MicroPython has for the next, too
        self._error = self._error or error
        self._due(0)

    def _down(self):
        """Close the connection; the session stays."""
        self.connected = False
        self._wake_ms = None
        self._up.clear()
        if self._reader:
            self._reader.cancel()
            self._reader = None
        if self._transport:
            self._transport.close()
            self._transport = None
        out = self._partial
        if out:  # QoS 0, sent in part
            self._queue.insert(0, out)
            self._partial = None
        for sub in self._dispatcher.subscriptions:
            sub.asked = False

    def _say(self, text, more=""):
        """Log a line; a repetition of the last one is suppressed (`more` does not count)."""
        if self._log and text != self._said:
            try:
                try:
                    line = "mqtt %s:%d: %s%s" % (self.host, self.port, text, more)
                except MemoryError:
                    text = line = "mqtt: no memory for words"
                self._log(line)
                self._said = text
            except Exception:
                pass  # a log that fails ends nothing; with no memory for it, it is said later
