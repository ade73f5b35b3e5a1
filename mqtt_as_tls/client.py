"""
The client: what an app calls, start and stop, and the log. What it does has its owner in a module
of its own.
"""

import asyncio
import gc
import time

from micropython import const

from . import load, packet, router, unload
from .connection import Connection
from .dispatch import Dispatcher
from .errors import printable
from .outbox import Outbox
from .router import wrong
from .session import Session

# The other methods, by the module that has them and is loaded when one is called: in the class,
# each would be in everybody's memory. Their signatures are there, and in the stub (__init__.pyi)
_LATER = const(
    (
        ("on_connect", "on_connect"),
        ("report", "report"),
        ("lifecycle", "connect disconnect wait_connected"),
        ("properties packet5 reasons mqtt5", "reauthenticate"),
        ("queueing", "enqueue"),
        ("properties request_response", "request respond"),
        ("iterators", "events messages"),
        ("subscribing", "subscribe unsubscribe"),
    )
)

_LOOK_MS = const(5_000)  # between looks at what may have changed since a refusal

_own_id = None


class Stats:
    """
    Counters since the client was made.

    connects, sent, received  int, PUBLISH packets for the latter two
    resent      messages sent again after a reconnect
    duplicates  redeliveries that were not handled twice
    dropped     messages that gave way because handlers were behind (max_backlog): with QoS 0, or
                in a session that ends with its connection
    gave_way    messages of enqueue() that gave way to newer ones (full="oldest")
    unclaimed   messages that no handler and no iterator wanted
    oversized   messages that did not fit (max_packet, or no memory) and were read past
    bytes_in, bytes_out
    round_trip_ms  the last one measured, publish or ping to its answer; -1 before the first
    """

    gave_way = 0

    def __init__(self):
        self.connects = self.sent = self.received = self.resent = self.duplicates = 0
        self.dropped = self.unclaimed = self.oversized = self.bytes_in = self.bytes_out = 0
        self.round_trip_ms = -1


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
    give_up_after  int: fail a message that broke so many connections; None: keep it back
    shared_session  bool: the brokers of the list are one cluster and share the session
    balance      bool: each client has an order of the list of its own, by its id
    prefer_first_s  int: with another broker than the first, ask so often whether that is back, and
                 go back there; None: never
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
    drain_s=5             how long disconnect() waits for handlers and what is in flight
    max_packet=4096       bytes, the largest packet sent or accepted
    max_backlog=16384     bytes received and not handled yet
    max_inflight=8        QoS 1 and 2 messages that wait for their acknowledgement at a time
    max_queue=8192        bytes that wait in the queue of enqueue()
    max_waiting=32        publish() calls that wait for a connection, or for those before them, at
                          a time; one of n bytes counts 1 + n // 512 times

    connected, running  bool; a client that is leaving does not run, and sends until it left
    error    the exception that ended the last connection or attempt, or None
    stats    Stats
    properties  dict of what the broker said in CONNACK (MQTT 5), or None

    Raises TypeError and ValueError for arguments out of their range.
    """

    clients = []  # of all: those between start and stop
    properties = None  # set by mqtt5

    def __init__(self, host=None, port=None, *others, **options):
        global _own_id
        arguments = load("options")
        if others:
            arguments.refuse("positional", port)
        self.running = False
        self.connection = self.retry = self.five = self.error = self._said = None
        # made when an app first uses them
        self.callbacks = self.requests = self.event_log = self.stream_in = self.repeats = None
        protocol, client_id, user, password, found = arguments.taken(host, port, options)
        for name in found:
            setattr(self, name, found[name])
        store = self.store
        if client_id is None:
            client_id = _own_id = _own_id or arguments.default_id(store)
        self.client_id = client_id
        self.wire = packet
        if protocol == 5:
            mqtt5 = load("properties", "packet5", "reasons", "mqtt5")
            self.wire = self.five = mqtt5.Wire(self, options)
        if options:
            arguments.refuse("options", options)
        if self.clients:
            load("lifecycle").make_way(self, False)
        self.connect_packet = arguments.connect(self, user, password)
        if store is None:
            self.session = Session(self.max_inflight, self.five is not None)
        else:
            self.session = store.session(self)
        self.dispatcher = Dispatcher(self)
        self.outbox = Outbox(self)
        self.stats = Stats()
        unload("options")

    @property
    def connected(self):
        connection = self.connection
        return connection is not None and connection.is_up()

    # What an app calls

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
        sub = self.dispatcher.find(filter)
        if sub and sub.handler:
            wrong("handler", filter)
        router.filter(filter)
        router.qos(qos)

        def decorate(handler):
            if not callable(handler):
                wrong("option", "handler", handler)
            if stream:
                module = load("stream_in")
                self.stream_in = self.stream_in or module.Streams(self)
                module.StreamHandler(self, filter, qos, options, handler)
            else:
                self.dispatcher.declare(filter, qos, options, handler)
            return handler

        return decorate

    async def __aenter__(self):
        if self.clients:
            load("lifecycle").make_way(self, True)
        if self.store:
            self.store.check(self)
        self.loop = asyncio.core._task_queue
        self.outbox.start()
        self.up = asyncio.Event()
        for sub in self.dispatcher.subscriptions:
            sub.granted = None
        self.retry = load("retry").Retry()  # now: later it would lie where handshakes want to be
        unload("retry")
        self.error = self._said = self.repeats = None
        self.connection = Connection(self, self.connection)
        self.clients.append(self)
        reserve = self.connection.reserve
        try:
            runs = self._run()
            self._task = asyncio.create_task(reserve.guard(runs) if reserve else runs)
        except MemoryError:
            self.clients.remove(self)  # it does not run
            raise
        self.running = True
        if reserve:
            reserve.hold()
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

        Raises TypeError, ValueError and RuntimeError (not running; max_waiting calls wait already)
        at the call; RefusedError
        (MQTT 5); DeliveryUnknown (QoS 2, the broker lost the session); asyncio.TimeoutError;
        MQTTError when the client is stopped meanwhile, or the message expired (MQTT 5).
        """
        outbox = self.outbox
        if timeout_s is not None or outbox.transport is None:
            self.check_running(timeout_s)
        if qos and self.dispatcher.held:
            self.dispatcher.asks()
        if length is None:
            out = outbox.encode(topic, payload, qos, retain, properties)
        else:
            out = load("stream_out").Upload(self, topic, payload, length, qos, retain, properties)
        wait = outbox.begin(out)
        return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)

    def __getattr__(self, name):
        for module, names in _LATER:
            if name in names.split():
                function = getattr(load(*module.split()), name)
                return lambda *args, **options: function(self, *args, **options)
        raise AttributeError(name)

    # What the other modules need of it

    async def _run(self, caught=(Exception, asyncio.CancelledError)):
        connection = self.connection
        while True:
            try:
                if not connection:
                    self.connection = connection = Connection(self, self.connection)
                await connection.run()
            except caught as e:  # it is told and tried again; a tuple made here would take memory
                if self._task is not asyncio.core.cur_task:  # stopped
                    raise
                # what a MemoryError says may lie where MicroPython has written since
                error = MemoryError("no memory") if isinstance(e, MemoryError) else e
            old = self.error
            self.error = error
            try:
                delay = load("retry").failed(self, error, old)
            except Exception as e:  # most likely no memory for more words
                self.say(error if isinstance(e, MemoryError) else e)
                delay = 5000
            if not self.retry.why:  # memory is short
                self._said = None
            if self.failover:
                self.host, self.port = self.failover.go()
            connection = error = old = None
            gc.collect()
            await asyncio.sleep_ms(0)  # the tasks of the attempt are gone: what they had is held
            while self.retry.slow and delay > _LOOK_MS:
                await asyncio.sleep_ms(_LOOK_MS)
                delay -= _LOOK_MS
                try:
                    if self.around(self.retry.around) is not self.retry.around:
                        delay = 0
                except Exception:
                    pass  # no memory, or a link that fails: nothing is known to have changed
            await asyncio.sleep_ms(delay)

    def around(self, was):
        """
        Return what a refusal may depend on besides the broker: `was` (such a tuple, or None) if it
        is that still, else a new one.
        """
        link = self.link
        servers = link and link.is_up() and link.dns_servers()
        start_s = time.time() - time.ticks_ms() // 1000  # by the clock
        if was and was[0] == servers and abs(was[1] - start_s) < 60:
            return was
        return servers, start_s

    def lazily(self, name, make):
        """Return what the attribute `name` has: what `make(client)` returned the first time."""
        if getattr(self, name) is None:
            setattr(self, name, make(self))
        return getattr(self, name)

    def end(self, alive):
        """It is stopped, in an event loop that is `alive` (bool): return the task that it had."""
        self.running = False
        self.clients.remove(self)
        if not alive:
            self.event_log = None
        task = self._task
        self._task = None
        return task

    def check_running(self, timeout_s):
        self.check_wait(timeout_s)
        if self not in self.clients:  # leaving, it still sends
            wrong("not_running")

    def check_wait(self, timeout_s):
        if timeout_s is not None and not (
            isinstance(timeout_s, (int, float)) and abs(timeout_s) <= 500_000
        ):
            wrong("option", "timeout_s", timeout_s)

    def failed(self, what, name, error):
        """A function of the app raised `error`."""
        try:
            load("texts").failed(self, what % name, error)
        except MemoryError:
            pass

    def say(self, text, more="", again=False):
        """
        Log a line; unless `again` (bool), a repetition of the last one is suppressed (`more` does
        not count).
        """
        if self.log and (again or text != self._said):
            try:
                try:
                    line = printable("mqtt %s:%d: %s%s" % (self.host, self.port, text, more))
                except MemoryError:
                    text = line = "mqtt: no memory for words"
                self.log(line)
                self._said = text
            except Exception:
                pass  # a log that fails ends nothing; with no memory for it, it is said later
