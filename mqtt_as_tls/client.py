"""
The client: a supervisor that connects and never gives up, a reader, keepalive, and the methods
that an app calls.
"""

import asyncio
import gc
import os
import random
import sys
import time
from asyncio import core

from micropython import const

from . import dns, packet, router
from .dispatch import Dispatcher, Message, Messages, Subscription
from .errors import (
    CertificateError,
    ConnectError,
    LinkError,
    MQTTError,
    ProtocolError,
    RefusedError,
    ResolveError,
)
from .session import Outgoing, Session
from .transport import Signal, Transport

_STALL_MS = const(10_000)  # a write without progress
_SLOW_MS = const(600_000)  # between tries when the error will not heal by itself
_SNTP_AGAIN_MS = const(60_000)
_LINK_RESET_AFTER = const(5)  # broker failures
_SUSPECT_MS = const(5_000)
_FILTERS = const(8)  # in one SUBSCRIBE: AWS IoT takes no more
_EVENTS = const(16)
_REPLIES = const(16)  # acknowledgements that wait to be sent
_LASTING_MS = const(10_000)  # a connection that lived longer was a good one
_LINK_S = const(120)

_CONNACK = (
    "",
    "protocol version not accepted",
    "client id not accepted",
    "server not available",
    "wrong user name or password",
    "not authorised",
)

_running = []  # clients between start and disconnect


class Connected:
    """Event: the broker accepted the connection. session_present  bool"""

    def __init__(self, session_present):
        self.session_present = session_present


class Disconnected:
    """Event: the connection was lost, or an attempt to connect failed. error  the exception"""

    def __init__(self, error):
        self.error = error


class Suspect:
    """Event: connections keep breaking right after this message was sent. topic  str"""

    def __init__(self, topic):
        self.topic = topic


class SubscriptionRefused:
    """Event: the broker refused a declared subscription. filter  str"""

    def __init__(self, filter):
        self.filter = filter


class Will:
    """
    What the broker publishes when this client is gone without a goodbye (3.1.1 section 3.1.2.5).

    topic    str
    payload  bytes-like or str (UTF-8)
    qos      int, 0 or 1
    retain   bool
    birth    bytes-like or str, published on the same topic after every connect; None: nothing

    Raises TypeError and ValueError as `MQTTClient.publish` does.
    """

    def __init__(self, topic, payload, qos=0, retain=False, birth=None):
        self.topic = router.topic(topic)
        self.payload = _payload(payload)
        if len(self.payload) > 65535:
            raise ValueError("will payload: %d bytes, at most 65535" % len(self.payload))
        self.qos = _qos(qos)
        self.retain = bool(retain)
        self.birth = None if birth is None else _payload(birth)


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


class _Delivery(Outgoing, Signal):
    """A PUBLISH and the task that waits for its delivery."""

    def __init__(self, packet, qos):
        Outgoing.__init__(self, packet, qos)
        Signal.__init__(self)
        self.error = None
        self.queued = 0  # bytes that it counts in the queue of enqueue()


def _payload(data):
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, memoryview):
        return bytes(data)
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(
            "payload: bytes-like or str, not %s: str(value) makes one" % type(data).__name__
        )
    return data


def _qos(qos):
    if qos == 2:
        raise ValueError("qos 2: not yet; 0 or 1")
    if qos not in (0, 1):
        raise ValueError("qos %r: 0 or 1" % (qos,))
    return qos


def _text(value, what):
    if not isinstance(value, str) or not value or "\0" in value or len(value.encode()) > 65535:
        raise ValueError("%s: a str of 1 to 65535 bytes without NUL, not %r" % (what, value))
    return value.encode()


def _number(value, low, high, what):
    if not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError("%s: a number from %s to %s, not %r" % (what, low, high, value))
    return value


def _default_id():
    global _own_id
    if _own_id is None:
        try:
            from machine import unique_id as unique

            data = unique()
        except (ImportError, AttributeError):
            data = os.urandom(8)
        _own_id = "mp" + "".join(["%02x" % b for b in data])
    return _own_id


_own_id = None


def _in_loop():
    """Whether a task runs right now: False at the prompt, also after Ctrl-C ended a run."""
    try:
        core.cur_task.coro.pend_throw(None)
    except ValueError:  # the task's generator is executing
        return True
    except AttributeError:
        pass
    return False


class MQTTClient:
    """
    An MQTT 3.1.1 client that stays connected.

    host         str, name or IPv4 address of the broker
    port         int; default 8883 with `tls`, else 1883
    link         WiFi(...) or another link; None: something else keeps the network up
    tls          TLS(...); None: plain TCP
    protocol     4 (MQTT 3.1.1)
    client_id    str; default: from machine.unique_id(), else random for the process
    user         str; password  str or bytes
    keepalive_s  int, 1 to 65535: the longest silence before the broker is asked for a sign of life
    clean_start  bool: forget the session at every connect
    will         Will(...)
    log          a function that takes a line (str), or None
    connect_timeout_s   for TCP, TLS and CONNACK together
    ack_timeout_s       an acknowledgement later than this drops the connection
    handler_timeout_s   a handler that takes longer gets its message acknowledged
    drain_s             how long disconnect() waits for what is in flight
    max_packet    bytes, the largest packet sent or accepted
    max_backlog   bytes received and not handled yet
    max_inflight  QoS 1 messages that wait for their acknowledgement at a time
    max_queue     bytes that wait in the queue of enqueue()
    give_up_after int: fail a message that broke so many connections in a row; None: never

    Raises TypeError and ValueError for arguments out of their range.
    """

    def __init__(
        self,
        host,
        port=None,
        *,
        link=None,
        tls=None,
        protocol=4,
        client_id=None,
        user=None,
        password=None,
        keepalive_s=60,
        clean_start=False,
        session_expiry_s=None,
        will=None,
        store=None,
        log=print,
        connect_timeout_s=30,
        ack_timeout_s=20,
        handler_timeout_s=60,
        drain_s=5,
        max_packet=4096,
        max_backlog=16384,
        max_inflight=8,
        max_queue=8192,
        give_up_after=None
    ):
        if not isinstance(host, str) or not host:
            raise ValueError("host: a name or an IPv4 address as str, not %r" % (host,))
        if protocol == 5 or store is not None:
            raise ValueError("protocol=5 and store=: not yet")
        if protocol != 4:
            raise ValueError("protocol %r: 4 is MQTT 3.1.1" % (protocol,))
        if session_expiry_s is not None:
            raise ValueError("session_expiry_s: MQTT 5 only")
        if tls is not None and not hasattr(tls, "wrap"):
            raise TypeError("tls: TLS(ca=...), not %s" % type(tls).__name__)
        if link is not None and not hasattr(link, "is_up"):
            raise TypeError("link: WiFi(...) or None, not %s" % type(link).__name__)
        if will is not None and not isinstance(will, Will):
            raise TypeError("will: Will(...), not %s" % type(will).__name__)
        if password is not None and user is None:
            raise ValueError("password without user [MQTT-3.1.2-22]")
        if isinstance(password, str):
            password = password.encode()
        self.host = host
        self.port = _number(
            port if port is not None else 8883 if tls else 1883, 1, 65535, "port"
        )
        self._link = link
        self._tls = tls
        self._default = client_id is None
        self.client_id = client_id = client_id or _default_id()
        self._hello = (
            _text(client_id, "client_id"),
            _number(keepalive_s, 1, 65535, "keepalive_s"),
            None if user is None else _text(user, "user"),
            password,
        )
        self._will = will
        self._log = log
        self._clean_start = clean_start
        self._keepalive_ms = keepalive_s * 1000
        self._connect_ms = int(_number(connect_timeout_s, 1, 600, "connect_timeout_s") * 1000)
        self._ack_ms = int(_number(ack_timeout_s, 1, 600, "ack_timeout_s") * 1000)
        self.handler_timeout_s = _number(handler_timeout_s, 1, 86400, "handler_timeout_s")
        self._drain_ms = int(_number(drain_s, 0, 600, "drain_s") * 1000)
        self._max_packet = _number(max_packet, 64, 268435455, "max_packet")
        self.max_backlog = _number(max_backlog, max_packet, 268435455, "max_backlog")
        self._max_queue = _number(max_queue, 0, 268435455, "max_queue")
        self._give_up_after = give_up_after
        self._session = Session(_number(max_inflight, 1, 65535, "max_inflight"))
        self._dispatcher = Dispatcher(self)
        self.stats = Stats()
        self.connected = False
        self.error = None  # why the last connection or attempt ended
        self._on_connect = []
        self._tasks = []  # of on_connect
        self._queue = []  # _Delivery, not sent yet
        self._queued = 0  # bytes of them from enqueue()
        self._partial = None  # QoS 0 message of which a part is sent
        self._spare = []
        self._birth = None
        self._unsubscribed = {}  # filter -> Event, until the broker knows
        self._transport = self._wake_ms = self._task = self._suspect = self._sntp_ms = None
        self._reader = self._address = self._since_ms = self._ping_ms = self._error = None
        self._strikes = self._silent = 0
        self._closing = self._busy = self._slow = self._announce = False
        self._clean = self._behind = False
        self._said = None
        self._events = []
        self._event_count = 0
        if not _in_loop():  # Ctrl-C ended a run of the same app: the new one takes over
            for other in list(_running):
                if self._same(other):
                    other._abandon()

    # What an app calls

    def on(self, filter, qos=0):
        """
        Decorator: declare a subscription and its handler, `def` or `async def`, which gets a
        Message. It is renewed after every connect.

        filter  str, topic filter (3.1.1 section 4.7)
        qos     int, 0 or 1

        Raises ValueError for a bad filter or QoS, and when the filter has a handler already.
        """
        data = router.filter(filter)
        _qos(qos)

        def decorate(handler):
            if not callable(handler):
                raise TypeError("handler: a function, not %s" % type(handler).__name__)
            sub = self._dispatcher.find(filter)
            if sub is not None and sub.handler:
                raise ValueError(
                    "topic filter %r has a handler: call both functions from one" % filter
                )
            self._declare(filter, data, qos, handler)
            return handler

        return decorate

    def on_connect(self, handler):
        """Decorator: run `handler` (async, no arguments) after every connect, in its own task."""
        self._on_connect.append(handler)
        return handler

    async def __aenter__(self):
        self._start()
        return self

    async def __aexit__(self, *exc):
        await self.disconnect()

    async def connect(self, timeout_s=30):
        """
        Start, and return when connected: for scripts. An app uses `async with client`.

        timeout_s  seconds until the last error is raised; one that will not heal is raised sooner

        Raises the MQTTError (or other exception) that keeps it from connecting; the client is
        stopped then.
        """
        if self._task is None:
            self._start()
        end = time.ticks_add(time.ticks_ms(), int(timeout_s * 1000))
        while not self.connected:
            if self._slow or time.ticks_diff(end, time.ticks_ms()) <= 0:
                error = self.error
                await self.disconnect()
                raise error or ConnectError("not connected within %s s" % timeout_s)
            await asyncio.sleep_ms(20)

    async def wait_connected(self, timeout_s=None):
        """
        Return when connected; raise asyncio.TimeoutError after `timeout_s` seconds.

        Raises RuntimeError when the client is not running.
        """
        self._check_running()
        wait = self._up.wait()
        await (wait if timeout_s is None else asyncio.wait_for(wait, timeout_s))

    async def disconnect(self):
        """
        Say goodbye and stop: publish the will's payload, wait up to `drain_s` for what is in
        flight, disconnect. What waits then raises MQTTError. It can be started again.
        """
        if self._task is None or self._closing:
            return
        self._closing = True
        try:
            if self.connected:
                will = self._will
                if will:
                    self._queue.append(self._encode(will.topic, will.payload, will.qos, will.retain))
                    self._pump()
                end = time.ticks_add(time.ticks_ms(), self._drain_ms)
                while (
                    self.connected
                    and (self._queue or self._session.inflight or self._transport.blocked)
                    and time.ticks_diff(end, time.ticks_ms()) > 0
                ):
                    await asyncio.sleep_ms(10)
                if self.connected:
                    self._transport.write(packet.DISCONNECT)
        finally:
            self._stop()
        self._say("disconnected")

    def publish(self, topic, payload=b"", *, qos=0, retain=False, timeout_s=None):
        """
        Publish; the awaited call returns when the QoS is fulfilled: QoS 0 handed to the network,
        QoS 1 acknowledged by the broker, across reconnects. Offline it waits.

        topic      str without wildcards
        payload    bytes-like, or str sent as UTF-8
        qos        int, 0 or 1
        retain     bool, the broker keeps it for later subscribers
        timeout_s  seconds, or None

        A time-out and a cancellation take back a message of which nothing was sent; else they end
        the waiting only.

        Raises TypeError, ValueError and RuntimeError (not running) at the call;
        asyncio.TimeoutError; MQTTError when the client is stopped meanwhile.
        """
        out = self._outgoing(topic, payload, qos, retain)
        if timeout_s is None:
            return self._deliver(out)
        return asyncio.wait_for(self._deliver(out), timeout_s)

    def enqueue(self, topic, payload=b"", *, qos=0, retain=False):
        """
        Put a message on the outgoing queue, without waiting.

        Returns False when the queue (max_queue bytes) is full, else True.
        Raises as `publish` does at the call, and ValueError for one larger than the queue.
        """
        out = self._outgoing(topic, payload, qos, retain)
        size = len(out.packet)
        if size > self._max_queue:
            raise ValueError("message of %d bytes, max_queue is %d" % (size, self._max_queue))
        if self._queued + size > self._max_queue:
            return False
        self._queued += size
        out.queued = size
        self._queue.append(out)
        self._pump()
        return True

    async def subscribe(self, filter, qos=0, *, timeout_s=None):
        """
        Subscribe, now and after every connect; handlers and `messages()` get what matches.

        Returns the granted QoS (int). A time-out ends the waiting only: the subscription stays
        declared.

        Raises ValueError, TypeError, RuntimeError at the call; RefusedError;
        asyncio.TimeoutError; MQTTError when the client is stopped meanwhile.
        """
        data = router.filter(filter)
        _qos(qos)
        self._check_running()
        sub = self._declare(filter, data, qos, None)
        if sub.answer is None:
            sub.answer = asyncio.Event()
        if sub.granted is None:
            wait = sub.answer.wait()
            await (wait if timeout_s is None else asyncio.wait_for(wait, timeout_s))
        self._check_running()
        if sub.granted > 2:
            if not sub.handler:
                self._dispatcher.remove(sub)
            raise RefusedError("subscription to %r refused by the broker" % filter, sub.granted)
        return sub.granted

    async def unsubscribe(self, filter, *, timeout_s=None):
        """
        Take back a subscription and its handler; return when the broker knows.

        Raises ValueError for a filter that is not subscribed; asyncio.TimeoutError.
        """
        self._check_running()
        sub = self._dispatcher.find(filter)
        if sub is None:
            raise ValueError("topic filter %r is not subscribed" % filter)
        self._dispatcher.remove(sub)
        self._unsubscribed[filter] = answer = asyncio.Event()
        if self.connected:
            self._unsubscribe(filter)
        wait = answer.wait()
        await (wait if timeout_s is None else asyncio.wait_for(wait, timeout_s))
        self._check_running()

    def messages(self):
        """Return an async iterator of the Message objects that no handler claims."""
        return Messages(self._dispatcher)

    def events(self):
        """Return an async iterator of events from now on; of those not fetched the last 16 stay."""
        return _Events(self)

    # Starting and stopping

    def _same(self, other):
        return (
            self._default and other._default and (self.host, self.port) == (other.host, other.port)
        )

    def _start(self):
        loop = core._task_queue
        for other in list(_running):
            if other._loop is not loop:  # asyncio.new_event_loop() was called
                other._abandon()
            elif other is self:
                raise RuntimeError(
                    "the client is running: after Ctrl-C call asyncio.new_event_loop() first"
                )
            elif self._same(other):
                raise ValueError(
                    "two clients with the default id on %s: give one client_id=" % self.host
                )
        self._loop = loop
        self._closing = False
        self._up = asyncio.Event()
        self._nudge = asyncio.Event()
        self._news = asyncio.Event()
        self._failures = self._refusals = 0
        self._reset_at = _LINK_RESET_AFTER
        for sub in self._dispatcher.subscriptions:
            sub.granted = None
        _running.append(self)
        self._task = asyncio.create_task(self._supervise())

    def _abandon(self):
        """Stop without a word: the event loop that ran this client is gone or was interrupted."""
        self._stop()

    def _stop(self):
        _running.remove(self)
        task = self._task
        self._task = None
        task.cancel()
        self._down()
        self._dispatcher.stop()
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        waiting = self._queue + self._session.inflight
        self._queue = []
        self._queued = 0
        self._partial = None
        for out in waiting:
            out.error = MQTTError("the client was stopped before the message was delivered")
            out.set()
        for sub in self._dispatcher.subscriptions:
            if sub.answer:
                sub.answer.set()
        for answer in self._unsubscribed.values():
            answer.set()
        self._unsubscribed = {}
        self._up.set()

    def _check_running(self):
        if self._task is None or self._closing:
            raise RuntimeError("the client is not running: use `async with client`")

    # Out: publishing

    def _outgoing(self, topic, payload, qos, retain):
        self._check_running()
        return self._encode(router.topic(topic), _payload(payload), _qos(qos), retain)

    def _encode(self, topic, payload, qos, retain):
        buf = packet.publish(topic, payload, qos, retain)
        if len(buf) > self._max_packet:
            raise ValueError(
                "packet of %d bytes, max_packet is %d: raise it or send less"
                % (len(buf), self._max_packet)
            )
        if self._spare:
            out = self._spare.pop()
            out.packet = buf
            out.qos = qos
            return out
        return _Delivery(buf, qos)

    async def _deliver(self, out):
        self._queue.append(out)
        self._pump()
        if out.is_set:
            await asyncio.sleep_ms(0)  # a publisher in a loop lets the others run
        else:
            try:
                await out
            except asyncio.CancelledError:
                if out in self._queue:
                    self._queue.remove(out)
                raise
        if out.error:
            raise out.error
        self._release(out)

    def _release(self, out):
        if len(self._spare) < 8:
            out.packet = None
            out.is_set = False
            out.id = out.queued = 0
            self._spare.append(out)

    def _pump(self):
        """Send what waits, as far as the window and the socket allow."""
        queue = self._queue
        session = self._session
        while queue and self.connected and not self._transport.blocked:
            out = queue[0]
            if out.qos:
                if session.full():
                    return
                session.publish(out, time.ticks_ms())
            queue.pop(0)
            self._queued -= out.queued
            self.stats.sent += 1
            sent = self._send(out.packet)
            if out.qos:
                self._due(self._ack_ms)
            elif sent:
                self._delivered(out)
            else:
                self._partial = out

    def _delivered(self, out):
        out.set()
        if out.queued:
            self._release(out)

    def _send(self, buf):
        """Write `buf` in turn; return whether it is sent."""
        if self._transport.write(buf):
            return True
        self._due(_STALL_MS)
        return False

    def _drained(self):
        """The transport has sent all that waited."""
        out = self._partial
        if out is not None:
            self._partial = None
            self._delivered(out)
        self._pump()

    # Subscriptions

    def _declare(self, filter, data, qos, handler):
        sub = self._dispatcher.find(filter)
        if sub is None:
            sub = Subscription(filter, data, qos, handler)
            self._dispatcher.subscriptions.append(sub)
        else:
            sub.handler = handler or sub.handler
            if qos != sub.qos or sub.granted == 128:
                sub.qos = qos
                sub.granted = None
                sub.asked = False
        self._unsubscribed.pop(filter, None)
        self._renew()
        return sub

    def _renew(self):
        """Ask for every declared subscription that this session does not have."""
        if not self.connected:
            return
        wanted = [
            s for s in self._dispatcher.subscriptions if s.granted is None and not s.asked
        ]
        while wanted:
            part = wanted[:_FILTERS]
            wanted = wanted[_FILTERS:]
            for sub in part:
                sub.asked = True
            self._asked_ms = time.ticks_ms()
            n = self._session.request([(sub, sub.qos) for sub in part])
            self._send(packet.subscribe(n, [(sub.data, sub.qos) for sub in part]))
            self._due(self._ack_ms)

    def _unsubscribe(self, filter):
        self._asked_ms = time.ticks_ms()
        n = self._session.request(filter)
        self._send(packet.unsubscribe(n, filter.encode()))
        self._due(self._ack_ms)

    def _suback(self, part, codes):
        if not isinstance(part, list) or len(part) != len(codes):
            raise ProtocolError("SUBACK with %d return codes [MQTT-3.8.4-5]" % len(codes))
        for (sub, qos), code in zip(part, codes):
            if not sub.asked or qos != sub.qos:
                continue  # declared anew meanwhile
            sub.granted = code
            if sub.answer:
                sub.answer.set()
                sub.answer = None
            elif code == 128:
                self._say("subscription to %r refused: check the broker's ACL" % sub.filter)
                self._event(SubscriptionRefused(sub.filter))

    # The connection

    async def _supervise(self):
        while True:
            try:
                await self._attempt()
            except Exception as e:  # whatever it was, it is told and tried again
                delay = self._failed(e)
            gc.collect()
            await asyncio.sleep_ms(delay)

    async def _attempt(self):
        try:
            if self._behind:  # the broker sends again what did not fit
                end = time.ticks_add(time.ticks_ms(), self.handler_timeout_s * 1000)
                while self._dispatcher.size and time.ticks_diff(end, time.ticks_ms()) > 0:
                    await asyncio.sleep_ms(50)
                self._behind = False
            servers = await self._link_up()
            if self._tls and self._tls.ntp:
                await self._set_clock(servers)
            try:
                self._address = await dns.resolve(self.host, servers)
            except ResolveError:
                if self._address is None:
                    raise
                # the last good address may still serve
            self._error = None
            self._transport = t = Transport(self._lost, self._drained)
            decoder = packet.Decoder(self._max_packet)
            start = time.ticks_ms()
            try:
                present = await asyncio.wait_for_ms(self._open(t, decoder), self._connect_ms)
            except asyncio.TimeoutError:
                raise ConnectError(
                    "%s port %d: no answer within %d s (%s)"
                    % (self._address, self.port, self._connect_ms // 1000, t.stage)
                )
            self._connected(t, present, time.ticks_diff(time.ticks_ms(), start))
            self._reader = asyncio.create_task(self._read(t, decoder))
            await self._watch(t)
        finally:
            self._down()

    async def _link_up(self):
        """Bring the link up, one client at a time; return its DNS servers."""
        link = self._link
        if link is None:
            return None
        while [c for c in _running if c._link is link and c._busy]:
            await asyncio.sleep_ms(50)
        self._busy = True
        try:
            if self._silent >= self._reset_at and not [
                c for c in _running if c._link is link and c.connected
            ]:
                self._reset_at *= 2
                self._say("the link seems up but no broker answers: resetting it")
                await asyncio.wait_for(link.reset(), _LINK_S)
            if not link.is_up():
                await asyncio.wait_for(link.up(), _LINK_S)
                self._say("link up")
        except asyncio.TimeoutError:
            raise LinkError("the link did not come up within %d s" % _LINK_S)
        finally:
            self._busy = False
        return link.dns_servers()

    async def _set_clock(self, servers):
        """Certificates need a clock: ask SNTP when it cannot be right. No answer is not fatal."""
        from . import clock

        text = str(self.error) if isinstance(self.error, CertificateError) else ""
        if clock.plausible() and "future" not in text and "expired" not in text:
            return
        now = time.ticks_ms()
        if self._sntp_ms is not None and time.ticks_diff(now, self._sntp_ms) < _SNTP_AGAIN_MS:
            return
        self._sntp_ms = now
        try:
            await clock.sync(self._tls.ntp, servers)
            self._say("clock set from %s: %d-%02d-%02d %02d:%02d UTC" % ((self._tls.ntp,) + time.gmtime()[:5]))
        except MQTTError as e:
            self._say("clock not set: %s" % e)

    async def _open(self, t, decoder):
        """Connect; return session present. Raises MQTTError."""
        will = self._will
        client_id, keepalive_s, user, password = self._hello
        clean = self._clean_start or self._clean
        await t.open(
            self._address,
            self.port,
            self.host,
            self._tls,
            packet.connect(
                client_id,
                keepalive_s,
                clean,
                user,
                password,
                will and (will.topic, will.payload, will.qos, will.retain),
            ),
        )
        while True:
            first = decoder.next()
            if first is not None:
                break
            await t.readable
            t.read(decoder)
        if first != packet.CONNACK:
            raise ProtocolError("packet 0x%02x before CONNACK [MQTT-3.2.0-1]" % first)
        present, code = decoder.connack()
        if code:
            raise RefusedError(
                "the broker refused: "
                + (_CONNACK[code] if code < len(_CONNACK) else "code %d" % code),
                code,
            )
        if present and clean:
            raise ProtocolError("session present after a clean start [MQTT-3.2.2-1]")
        return present

    def _connected(self, t, present, took_ms):
        session = self._session
        now = time.ticks_ms()
        self.connected = True
        self._since_ms = now
        self.stats.connects += 1
        self._silent = self._refusals = 0
        self._slow = self._clean = False
        self._reset_at = _LINK_RESET_AFTER
        again = session.resume(present, now)
        self.stats.resent += len(again)
        self._say(
            "connected in %d ms%s, %s session%s"
            % (
                took_ms,
                " (TLS %d ms)" % t.tls_ms if self._tls else "",
                "resumed" if present else "new",
                ", %d messages sent again" % len(again) if again else "",
            )
        )
        if present:
            for out in again:
                self._send(out.packet)
            for filter in self._unsubscribed:
                self._unsubscribe(filter)
        else:
            self._queue = again + self._queue
            for sub in self._dispatcher.subscriptions:
                sub.granted = None
            for answer in self._unsubscribed.values():
                answer.set()
            self._unsubscribed = {}
        self._renew()
        will = self._will
        if will and will.birth is not None and not self._waits(self._birth):
            self._birth = self._encode(will.topic, will.birth, will.qos, will.retain)
            self._queue.insert(0, self._birth)
        self._pump()
        self._announce = True
        self._announced()
        self._up.set()
        self._event(Connected(present))

    def _waits(self, out):
        return out is not None and (out in self._queue or out in self._session.inflight)

    def _announced(self):
        """Run the on_connect functions once the subscriptions are renewed."""
        if self._announce and not self._session.requests:
            self._announce = False
            for task in self._tasks:
                task.cancel()
            self._tasks = [asyncio.create_task(self._guard(h)) for h in self._on_connect]

    async def _guard(self, handler):
        try:
            await handler()
        except Exception as e:
            self._say("on_connect failed: %r" % e, e)

    async def _read(self, t, decoder):
        session = self._session
        more = False
        try:
            while True:
                first = decoder.next()
                if first is None:
                    if more:
                        await asyncio.sleep_ms(0)
                    else:
                        await t.readable
                    while t.waiting() > _REPLIES:  # the broker takes no acknowledgements
                        await asyncio.sleep_ms(20)
                    more = t.read(decoder)
                elif first == packet.PUBACK:
                    out = session.acknowledged(decoder.packet_id())
                    if out:
                        self.stats.round_trip_ms = time.ticks_diff(time.ticks_ms(), out.sent_ms)
                        if out is self._suspect:
                            self._suspect = None
                        self._delivered(out)
                        self._pump()
                elif first & 0xF0 == packet.PUBLISH:
                    self._arrived(first, decoder)
                elif first == packet.PINGRESP:
                    if self._ping_ms is not None:
                        self.stats.round_trip_ms = time.ticks_diff(time.ticks_ms(), self._ping_ms)
                        self._ping_ms = None
                elif first == packet.SUBACK:
                    codes = decoder.suback()
                    part = session.answered(decoder.packet_id())
                    if part is not None:
                        self._suback(part, codes)
                        self._announced()
                elif first == packet.UNSUBACK:
                    answer = self._unsubscribed.pop(session.answered(decoder.packet_id()), None)
                    if answer:
                        answer.set()
                    self._announced()
                elif first == packet.PUBREL:
                    self._send(session.released(decoder.packet_id()))
                elif first == packet.PUBREC:  # of nothing that was sent
                    session.stray += 1
                    self._send(packet.ack(packet.PUBREL, decoder.packet_id()))
                elif first == packet.PUBCOMP:
                    session.stray += 1
                else:
                    raise ProtocolError("a second CONNACK (section 3.2)")
        except Exception as e:
            self._lost(e)

    def _arrived(self, first, decoder):
        qos = first >> 1 & 3
        topic, packet_id, payload = decoder.publish(qos)
        dup = first & 8 == 8
        message = Message(topic, payload, qos, first & 1 == 1, dup, packet_id)
        self.stats.received += 1
        if not self._dispatcher.room(message):
            if not qos:
                self.stats.dropped += 1
                return
            self._behind = True
            raise ConnectError(
                "the handlers are behind by %d bytes (max_backlog): reconnecting when they are done"
                % self._dispatcher.size
            )
        if qos and not self._session.received(message, dup):
            self.stats.duplicates += 1
            self._handled(message)
            return
        self._dispatcher.deliver(message)
        if message.done:
            self._handled(message)

    def _handled(self, message):
        """Acknowledge what is handled, in order of arrival."""
        if message.qos:
            while self.connected:
                ack = self._session.next_ack()
                if ack is None:
                    return
                self._send(ack)

    async def _watch(self, t):
        """Keepalive and every deadline of a connection; raises what ended it."""
        interval = self._keepalive_ms * 3 // 4
        grace = min(self._ack_ms, self._keepalive_ms)
        asked = None  # bytes received when PINGREQ was sent
        self._ping_ms = None
        while not self._error:
            now = time.ticks_ms()
            if asked != t.bytes_in:  # any byte is a sign of life
                asked = None
            if asked is not None:
                wait = grace - time.ticks_diff(now, pinged)
                if wait <= 0:
                    raise ConnectError("the broker did not answer a ping within %d ms" % grace)
            else:
                wait = interval - max(
                    time.ticks_diff(now, t.rx_ms), time.ticks_diff(now, t.tx_ms)
                )
                if wait <= 0:
                    asked = t.bytes_in
                    self._ping_ms = pinged = now
                    self._send(packet.PINGREQ)
                    wait = grace
            if t.blocked:
                wait = self._left(wait, _STALL_MS, time.ticks_diff(now, t.moved_ms), "write")
            age = self._session.oldest_ms(now)
            if age >= 0:
                wait = self._left(wait, self._ack_ms, age, "acknowledgement")
            if self._session.requests:
                age = time.ticks_diff(now, self._asked_ms)
                wait = self._left(wait, self._ack_ms, age, "answer to a subscription")
            left = self._dispatcher.overdue(now)
            if left >= 0:
                wait = min(wait, left)
            self._wake_ms = time.ticks_add(now, wait)
            self._nudge.clear()
            if not self._error:
                try:
                    await asyncio.wait_for_ms(self._nudge.wait(), wait)
                except asyncio.TimeoutError:
                    pass
        raise self._error

    def _left(self, wait, limit, age, what):
        if age >= limit:
            raise ConnectError("no %s for %d s" % (what, limit // 1000))
        return min(wait, limit - age)

    def _due(self, ms):
        """Have the deadlines looked at within `ms`."""
        if self._wake_ms is not None and time.ticks_diff(self._wake_ms, time.ticks_ms()) > ms:
            self._wake_ms = None
            self._nudge.set()

    def _lost(self, error):
        """The connection ended: let the supervisor know."""
        if self._error is None:
            self._error = error
        self._nudge.set()

    def _down(self):
        """Close the connection; the session stays."""
        self.connected = False
        self._wake_ms = None
        self._up.clear()
        if self._reader:
            self._reader.cancel()
            self._reader = None
        if self._partial:  # QoS 0, sent in part
            self._queue.insert(0, self._partial)
            self._queued += self._partial.queued
            self._partial = None
        t = self._transport
        if t:
            self._transport = None
            t.close()
            self.stats.bytes_in += t.bytes_in
            self.stats.bytes_out += t.bytes_out
        for sub in self._dispatcher.subscriptions:
            sub.asked = False

    def _failed(self, error):
        """Tell why, and return the ms until the next try."""
        now = time.ticks_ms()
        lost = self._since_ms is not None
        if lost:
            if time.ticks_diff(now, self._since_ms) > _LASTING_MS:
                self._failures = 0
            self._since_ms = None
            self._suspects(now)
        self.error = error
        slow = isinstance(error, RefusedError) and error.code != 3
        if isinstance(error, CertificateError) or getattr(error, "code", None) == -30592:
            from . import clock

            slow = clock.plausible()
        # low memory looks like a wrong CA, and a broker that starts refuses: two more tries
        self._refusals = self._refusals + 1 if slow else 0
        self._slow = slow = self._refusals > 2
        if not isinstance(error, (LinkError, RefusedError, ProtocolError, CertificateError)):
            self._silent += 1
        if slow:
            delay = _SLOW_MS
        else:
            delay = 50 + int(random.random() * min(60_000, 500 << min(self._failures, 7)))
        self._failures += 1
        if self._strikes >= 3:
            delay = max(delay, 60_000)
        self._event(Disconnected(error))
        text = "%s: %s" % ("connection lost" if lost else "cannot connect", str(error) or repr(error))
        if not isinstance(error, MQTTError):
            text = "%s (%r)" % (text, error)
        try:
            from .explain import explain

            cause, cure = explain(error, year=time.localtime()[0])
            if hasattr(error, "cure"):
                error.cure = cure
            if cause and cause not in text:
                text = "%s: %s" % (text, cause)
            if cure:
                text = "%s -> %s" % (text, cure)
        except (ImportError, MemoryError):
            pass  # the number is printed
        self._say(text, None, "; next try in %.1f s" % (delay / 1000))
        return delay

    def _suspects(self, now):
        """Count connections that ended right after the same oldest message was sent."""
        session = self._session
        age = session.oldest_ms(now)
        if age < 0 or age > _SUSPECT_MS:
            self._strikes = 0
            return
        out = session.inflight[0]
        self._strikes = self._strikes + 1 if out is self._suspect else 1
        self._suspect = out
        if self._strikes >= 3:
            topic = packet.topic(out.packet)
            self._say("connections break right after a message to %r was sent" % topic)
            self._event(Suspect(topic))
            if self._give_up_after and self._strikes >= self._give_up_after:
                session.inflight.remove(out)
                out.error = MQTTError("given up: %d connections broke on it" % self._strikes)
                out.set()
                self._suspect = None
                self._strikes = 0
                self._clean = True  # or the broker's session would still have it

    def _event(self, event):
        self._event_count += 1
        self._events.append(event)
        if len(self._events) > _EVENTS:
            self._events.pop(0)
        self._news.set()
        self._news.clear()

    def _say(self, text, error=None, more=""):
        """Log a line; a repetition of the last one is suppressed (`more` does not count)."""
        if self._log and text != self._said:
            self._said = text
            try:
                self._log("mqtt %s:%d: %s%s" % (self.host, self.port, text, more))
                if error and self._log is print:
                    sys.print_exception(error)
            except Exception:
                pass  # a log that fails ends nothing


class _Events:
    """Iterator over a client's events, from when it was made."""

    def __init__(self, client):
        self._client = client
        self._at = client._event_count

    def __aiter__(self):
        return self

    async def __anext__(self):
        c = self._client
        while self._at >= c._event_count:
            c._check_running()
            await c._news.wait()
        self._at = max(self._at, c._event_count - len(c._events))
        self._at += 1
        return c._events[self._at - 1 - c._event_count]
