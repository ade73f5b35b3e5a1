"""What programs of tests know of a client's inside: the one place that has its private names."""

import asyncio
import gc
import os
import time

from mqtt_as_tls import client as client_module
from mqtt_as_tls import connection, dns, load, retry
from mqtt_as_tls.dispatch import Dispatcher, Message, Subscription
from mqtt_as_tls.router import matches

# What there may be no memory for: what is called there, a name that is imported and its attributes
_PLACES = {
    "to take note of the session": "mqtt_as_tls.session Session resume",
    "to look at the window": "mqtt_as_tls.session Session full",
    "to send what waits": "mqtt_as_tls.outbox Outbox pump",
    "to let a message wait": "mqtt_as_tls.outbox Outbox add",
    "to send": "mqtt_as_tls.transport Transport send",
    "to send the rest": "mqtt_as_tls.transport Transport drain",
    "to read": "mqtt_as_tls.transport Transport read",
    "for a task": "asyncio create_task",
    "for the queue of a handler": "mqtt_as_tls.dispatch Dispatcher _offer",
    "for the next message of a handler": "mqtt_as_tls.dispatch Dispatcher take",
    "for the books": "mqtt_as_tls.dispatch Dispatcher deliver",
    "for an acknowledgement": "mqtt_as_tls.packet ack",
    "for an index": "mqtt_as_tls.topic_index index",
    "for a topic alias": "mqtt_as_tls.packet5 aliased",
    "for a record": "mqtt_as_tls.store FileStore _write",
    "for words about a handler that raised": "mqtt_as_tls.texts failed",
    "for words about an undelivered message": "mqtt_as_tls.texts undelivered",
}


def owner_of(place):
    """Return what there may be no memory for in a place, as (owner, name of its attribute)."""
    module, *path, name = _PLACES[place].split(" ")
    owner = __import__(module, None, None, ["*"])
    for each in path:
        owner = getattr(owner, each)
    return owner, name


def no_memory(place):
    """Let there once be no memory in a place (str, one of those above)."""
    owner, name = owner_of(place)
    function = getattr(owner, name)
    keep_loaded()

    def fail(*args, **options):
        setattr(owner, name, function)  # it is real again
        raise MemoryError("no memory once")

    setattr(owner, name, fail)


def to_send(client):
    """Return how many messages wait to be sent, or are without the acknowledgement they need."""
    s = client.session
    waiting = len(client.outbox.queue) + sum([len(ring) for ring in client.outbox.rings])
    return waiting + len(s.aside) + len(s.inflight) + len(s.awaiting_pubcomp) + len(s.to_resend)


def waiting(client):
    """Return how many publish() calls wait, each as often as it counts against max_waiting."""
    box = client.outbox
    assert box._waiting == sum([out.share for out in box.queue])
    return box._waiting + box._called - box._begun_of


def left_over(client):
    """Return all (list) that is under way in either direction, or held."""
    s, d = client.session, client.dispatcher
    found = [
        s.aside,
        s.inflight,
        s.awaiting_pubcomp,
        s.to_resend,
        s.requests,
        s.inbound,
        s.unknown,
    ]
    return [
        each
        for each in found + [client.outbox.queue, any(client.outbox.rings), d.held, d.size]
        if each
    ]


def in_flight(client):
    """Return how many messages were sent and are without the acknowledgement they need."""
    return len(client.session.inflight)


def suspect_nothing():
    """Let no client think that a message is what breaks its connections."""
    retry._search = lambda client, now, error: None


def forget_refusals(client):
    """Let the next refusal be the first one, after which it tries again at once."""
    client.retry.refusals = 0


def refused_before(client, times):
    """Let it have been refused so often in a row."""
    client.retry.refusals = times
    client.retry.around = client.around(None)


def advance(seconds):
    """Set the clock that a client looks at `seconds` ahead."""

    class Time:
        pass

    for name in ("ticks_ms", "ticks_diff", "ticks_add", "localtime"):
        setattr(Time, name, getattr(time, name))
    Time.time = lambda: time.time() + seconds
    client_module.time = retry.time = Time


def stage(client):
    """Return how far the attempt to connect is that is under way (str), or None."""
    return connection.STATES[client.connection.state]


def blocked_ms(client):
    """Return for how long the connection has taken nothing of what is to be sent."""
    out = client.connection.transport
    return time.ticks_diff(time.ticks_ms(), out.moved_ms) if out.blocked else 0


def strays(client):
    """Return how many acknowledgements came that nothing waited for."""
    return client.session.stray


def sent_long_ago(client):
    """Let what is in flight have been sent 10 s ago."""
    for out in client.session.inflight:
        out.sent_ms = time.ticks_add(out.sent_ms, -10000)


def to_receive(client):
    """Return how many deliveries of QoS 2 to this client are under way."""
    return len(client.session.inbound) + len(client.session.awaiting_pubrel)


def next_id(client, packet_id):
    """Have the next message take `packet_id`, or the first after it that is free."""
    client.session._id = packet_id - 1
    client.session._free = 0


def held(client):
    """Return (what is held for handlers and acknowledgements, its bytes)."""
    return client.dispatcher.held, client.dispatcher.size


def is_behind(client):
    """Tell whether the broker has to send again, as its handlers are behind."""
    return client.connection.behind


def granted(client, topic_filter=None):
    """Return the QoS granted for a filter (None: not yet), or the list of those of all."""
    if topic_filter is None:
        return [each.granted for each in client.dispatcher.subscriptions]
    return client.dispatcher.find(topic_filter).granted


async def subscribed(client):
    """Return when the broker has granted or refused whatever the client asks for."""
    await client.wait_connected()
    while None in granted(client):
        await asyncio.sleep_ms(5)


def filters(client):
    """Return the filters (list) that it is subscribed to, or wants to be."""
    return [each.filter for each in client.dispatcher.subscriptions]


def is_declared(client, topic_filter):
    """Tell whether there is a subscription for this filter."""
    return bool(client.dispatcher.find(topic_filter))


def waiting_requests(client):
    """Return how many requests wait for their responses."""
    return len(client.requests.waiting) if client.requests else 0


def lose(client, error):
    """Let the connection end with `error`."""
    client.connection.transport.lost(error)


def is_reauthenticating(client):
    """Tell whether an authentication is under way on the connection that there is."""
    return bool(client.five._reauth)


def place(client):
    """Return which of its hosts (index) it is at."""
    return client.failover.hosts.index((client.host, client.port))


def shorten_returns(waits):
    """
    Note in `waits` (list) the ms that clients mean to wait before they ask whether their first
    broker is back, without jitter, and let that be soon.
    """
    from mqtt_as_tls import failover

    class Random:
        random = staticmethod(lambda: 0.5)

    class Asyncio:
        core, create_task, wait_for = asyncio.core, asyncio.create_task, asyncio.wait_for

        @staticmethod
        def sleep_ms(ms):
            if ms < 1000:
                return asyncio.sleep_ms(ms)
            waits.append(ms)
            return asyncio.sleep_ms(20)

    failover.random = Random
    failover.asyncio = Asyncio


def lanes(client):
    """Return how many queues there are beside those of filters."""
    return len(client.dispatcher.others)


def wrap_socket(client, wrapper):
    """Have the connection use `wrapper(its socket)` instead of its socket; return that."""
    transport = client.connection.transport
    transport.sock = wrapper(transport.sock)
    return transport.sock


def identified(client):
    """Return the filters (list) that have a subscription identifier, or had one."""
    return sorted(client.five.ids)


def doubt_nothing():
    """Let no client think that a topic filter is what breaks its connections."""
    from mqtt_as_tls.doubts import Doubts

    Doubts.broke = lambda self, error: None


def set_doubts(again_s):
    """Have a filter that was left out be asked for again after so long."""
    from mqtt_as_tls.doubts import Doubts

    Doubts._again_s = again_s


def set_aside(again_s):
    """Have a message that is kept back be tried again after so long, the first time."""
    from mqtt_as_tls.aside import Aside

    keep_loaded()
    Aside._again_s = again_s


def kept_back(client):
    """Return how many messages are kept back."""
    return len(client.session.aside)


def set_surplus(most):
    """Let no more than so many bytes be put aside beyond max_backlog."""
    from mqtt_as_tls.surplus import Surplus

    keep_loaded()  # else the next connection has a new one
    Surplus._has_memory = lambda self, size: self.bytes + size <= most


def hand_over(client, topic, payload):
    """Let a message (str, bytes) come to its handlers or the iterator, as from the broker."""
    client.dispatcher.deliver(Message(0x30, (topic, 0, payload)))


def replace_arrived(function):
    """Have `function` called with each message that comes, of any client."""
    connection.Connection._arrived = function


def collect_before_connect():
    """Have garbage collected before each CONNECT: what is taken then is the connection's."""
    handshake = connection.Transport.handshake

    async def collected(self, *args):
        gc.collect()
        await handshake(self, *args)

    connection.Transport.handshake = collected


def as_on_lwip():
    """Write no more without a word of the broker than a board has room for."""
    connection.Transport.room = 2100


def waits_for_a_word(client):
    """Tell whether it writes nothing more until something comes."""
    t = client.connection.transport
    return bool(t and t.blocked and t.limit > t.room and t.unheard + len(t.out[0]) > t.limit)


def is_slow(client):
    """Tell whether it tries again rarely, as what fails does not heal by itself."""
    return client.retry.slow


def hosts(client):
    """Return the list of ("host", port) that it tries."""
    return client.failover.hosts


def forget_sntp(client):
    """Let it ask for the time again, though it has just done so."""
    asked = client.connection._asked_clock
    if asked:
        client.connection._asked_clock = (time.ticks_add(asked[0], -60_001),) + asked[1:]


def forget_said(client):
    """Let it tell of the next failure, though it is the same again."""
    client._said = None


def clients():
    """Return the list of clients that run."""
    return client_module.MQTTClient.clients


def explain_nothing():
    """Let failures be told without what explains them: a module is loaded for that, every time."""
    retry._explained = lambda error, state: ""


class _Steady:
    ms = 0

    def ticks_ms(self):
        return self.ms

    async def run(self):
        last = time.ticks_ms()
        while True:
            await asyncio.sleep_ms(1)
            now = time.ticks_ms()
            self.ms += min(time.ticks_diff(now, last), 5)
            last = now


def set_wifi(poll_ms, timeout_ms=None):
    """Have every WiFi look at its interface so often, and give up joining so soon."""
    from mqtt_as_tls import WiFi  # when the fake of a radio is there

    WiFi._poll_ms = poll_ms
    if timeout_ms:
        WiFi._timeout_ms = timeout_ms


def steady_wifi():
    """
    Let every WiFi and the fake of its radio have a clock in which the driver's calls block, and
    which stands still while this computer is busy with others. In the event loop.
    """
    from mqtt_as_tls import wifi, wifi_faults
    from tests.fakes import network

    network.time = clock = _Steady()
    wifi.ticks_ms = wifi_faults.ticks_ms = network.ticks_ms
    wifi.unload = wifi_faults.unload = lambda *names: None  # it would be as before then
    asyncio.create_task(clock.run())


def failures(client):
    """Return how many attempts to connect failed since the last that did not."""
    return client.retry.failures + client.retry.own


def say(client, line):
    """Log `line` as the client does."""
    client.say(line)


def watch_failures(note):
    """
    Have `note(client, error, old)` be called in the place of retry.failed; it returns the ms until
    the next try. Returns that function.
    """
    failed = retry.failed
    retry.failed = note
    return failed


def keep_loaded():
    """Let what is loaded for a while stay as the test has changed it."""
    client_module.unload = connection.unload = retry.unload = lambda *names: None


def load_everything():
    """Load all that a client may load, now, and keep it: the heap does not grow by it later."""
    import mqtt_as_tls

    __import__("asyncio.funcs")  # asyncio loads it at the first wait_for or gather
    try:
        names = os.listdir(mqtt_as_tls.__path__)
    except OSError:  # it is frozen in, and takes little; what is frozen cannot be listed
        names = ()
    for name in names:
        name, _, kind = name.partition(".")
        if kind in ("py", "mpy") and not name.startswith(("_", "wifi")):
            load(name)
    keep_loaded()


def resolve_with(resolve):
    """Have `resolve(host, servers)` be what finds the address of a broker."""
    keep_loaded()
    dns.resolve = resolve


def set_router(port):
    """Have every WiFi ask 127.0.0.1 at this UDP port whether the link is alive, and wait 0.3 s."""
    from mqtt_as_tls import wifi, wifi_faults

    wifi.unload = wifi_faults.unload = lambda *names: None  # it would be as before then
    wifi_faults.PORT = port
    wifi_faults.ANSWER_MS = 300


def unanswered(client):
    """Return how many attempts to connect nobody has answered, since the last that was."""
    return client.retry.unanswered


def be_firmware(*version):
    """Have TLS take this board's MicroPython for one of `version` (int, int, ...)."""
    from mqtt_as_tls import tls_files

    class Sys:
        implementation = ("micropython", version)

    tls_files.sys = Sys  # until it is unloaded


def supervisor(client):
    """Return the task that keeps it connected."""
    return client._task


def is_bare(client):
    """Tell whether it has neither a connection nor an attempt to make one."""
    return not client.connected and client.connection.transport is None


async def next_deadline(client, alive_s):
    """Let a ping be due every `alive_s` seconds, and return when the next deadline is there."""
    client.keepalive_s = alive_s
    while not client.connected or client.connection.transport.wake_ms is None:
        await asyncio.sleep_ms(5)
    await asyncio.sleep_ms(time.ticks_diff(client.connection.transport.wake_ms, time.ticks_ms()))


def indexed(client):
    """Tell whether this client has an index of its topic filters."""
    return bool(client.dispatcher.index)


class Filters:
    """
    The part of a client that finds what a topic is for, alone.

    filters  list of str, in order of declaration
    """

    max_backlog = 0

    def __init__(self, filters):
        self.session = self.wire = self.five = None
        self._dispatcher = Dispatcher(self)
        for filter in filters:
            sub = Subscription(filter, b"", 0)
            sub.handler = sub.task = id  # never called
            self._dispatcher.subscriptions.append(sub)

    def candidates(self, topic):
        """Return the Subscriptions that are tried for `topic` (str), without memory of its own."""
        return self._dispatcher.candidates(topic)

    def indexed(self):
        """Tell whether these are found by an index."""
        return bool(self._dispatcher.index)

    def of(self, candidates, topic):
        """Return the filters (list) of those of `candidates` that `topic` (str) is for."""
        found = [sub.filter for sub in candidates]
        return found if self.indexed() else [each for each in found if matches(each, topic)]

    def find(self, topic):
        """Return the filters (list) that `topic` (str) is for."""
        return self.of(self.candidates(topic), topic)

    def forget(self):
        """Have the index made anew."""
        self._dispatcher.index = None

    def taken(self, topic):
        """Return the bytes that the delivery of a message to `topic` (str) takes."""
        message = Message(0x30, (topic, 0, b""))
        gc.collect()
        before = gc.mem_alloc()
        self._dispatcher.deliver(message)
        after = gc.mem_alloc()
        for sub in self._dispatcher.subscriptions:
            sub.queue.clear()
        return after - before


class _Later:
    def __init__(self):
        self.ms = time.ticks_ms()

    def ticks_ms(self):
        return self.ms

    def __getattr__(self, name):
        return getattr(time, name)


def later(seconds):
    """
    For messages with a message expiry it is so many seconds later from now on (MQTT 5), and stays
    that until the next call: first call it with 0, before there are such messages.
    """
    from mqtt_as_tls import mqtt5

    if mqtt5.time is time:
        mqtt5.time = _Later()
    mqtt5.time.ms = time.ticks_add(mqtt5.time.ms, seconds * 1000)


def no_reserve():
    """Let clients hold no memory for the next connection: what they take can be counted then."""
    from mqtt_as_tls import reserve

    reserve.Reserve = lambda tls: None


def hurry_reports(ms):
    """Have clients report every so many ms, whatever they were told."""
    from mqtt_as_tls import report

    class Asyncio:
        @staticmethod
        def sleep(seconds):
            return asyncio.sleep_ms(ms)

    report.asyncio = Asyncio
