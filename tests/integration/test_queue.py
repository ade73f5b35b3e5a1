"""The queue of enqueue(): one piece of memory, and who may put messages into it."""

import collections
import itertools
import re

import pytest

from tests.support import apps
from tests.support.device import Device

# A Ring of a client that is a few lists, driven at random. What it gives out has to be, of each
# source, what it took, in order.
RING = """
import micropython
import random
from mqtt_as_tls import packet
from mqtt_as_tls.outbox import Delivery
from mqtt_as_tls.queueing import Ring

class Session:
    to_resend = ()
    window = True
    def full(self):
        return not self.window

class Client:
    store = None
    max_queue = 300
    def __init__(self):
        self.stats = self.outbox = self
        self.session = Session()
        self.queue = []
        self.gave_way = 0
        self.lines = []
        self.say = self.lines.append
    def add(self, out, first):
        self.queue.insert(0 if first else len(self.queue), out)

def message(n, source, qos, size):
    return packet.publish(b"t", b"%d %d " % (n, source) + bytes(size), qos)

def number(out):
    assert len(out.packet) == out.packet[1] + 2 if out.packet[1] < 128 else len(out.packet) > 130
    return [int(n) for n in bytes(out.packet[5 + 2 * (out.qos > 0) + (len(out.packet) > 129):])
            .split(b" ")[:2]]

async def main():
    random.seed(SEED)
    client = Client()
    ring = Ring(client)
    took = {0: [], 1: []}
    gave = {0: [], 1: []}
    counts = {0: 0, 1: 0}
    pending = spilled = 0

    def put(source):
        nonlocal spilled
        n = counts[source]
        counts[source] += 1
        m = message(n, source, random.randrange(3), random.choice((0, 3, 20, 90, 140)))
        before = len(ring._late)
        if ring.put(m, OLDEST):
            took[source].append(n)
        spilled += len(ring._late) > before

    def interrupt(jumps):
        # the scheduler runs one thing at each jump of the program that it interrupts
        nonlocal pending
        if jumps:
            micropython.schedule(interrupt, jumps - 1)
        else:
            put(1)
            pending -= 1

    def feed():
        client.session.window = random.random() < 0.9
        if not ring.feed() and client.queue:
            n, source = number(client.queue.pop(0))
            gave[source].append(n)

    for turn in range(20000):
        if INTERRUPTS and random.random() < 0.3 and not pending:
            pending += 1
            micropython.schedule(interrupt, random.randrange(120))
        put(0) if random.random() < 0.5 else feed()
        assert ring._used <= len(ring._buf)
        assert len(ring._late) < 3
    while pending or len(ring):
        client.session.window = True
        ring.feed()
        if client.queue:
            n, source = number(client.queue.pop(0))
            gave[source].append(n)
    assert ring._used == 0
    for i in took:
        assert gave[i] == sorted(set(gave[i])), "order"
        assert set(gave[i]) <= set(took[i])
    left = sum([len(took[i]) - len(gave[i]) for i in took])
    assert left == client.gave_way, (left, client.gave_way)
    if OLDEST:
        assert client.gave_way > 1000
        assert len(set(client.lines)) == 1 and "oldest" in client.lines[0], client.lines
        assert min([len(took[i]) for i in took if counts[i]]) > 500
    else:
        assert not client.gave_way and not client.lines
    print("took", len(took[0]), len(took[1]), "late", spilled)
"""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("oldest", [False, True])
def test_the_ring_gives_what_it_took_in_order(oldest, interrupts, seed):
    names = f"SEED = {seed}\nOLDEST = {oldest}\nINTERRUPTS = {interrupts}\n"
    took, late = re.search(r"took (\d+) .* late (\d+)", apps.check(names + RING, 0)).groups()
    assert int(took) > 3000
    assert (int(late) > 100) == interrupts


# In a client


@pytest.mark.parametrize("protocol", [4, 5])
def test_publish_and_enqueue_keep_the_order_of_the_calls(proxy, protocol):
    """Looked at where it passes: a broker's QoS 0 overtakes its QoS 1 on the way to others."""
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            tasks = []
            for n in range(60):
                if n % 3 == 0 or n % 7 == 0:
                    tasks.append(asyncio.create_task(client.publish("t", str(n), qos=n % 2)))
                    await asyncio.sleep_ms(0)  # it begins
                else:
                    assert client.enqueue("t", str(n), qos=n % 3 % 2)
            print("all wait")
            await asyncio.gather(*tasks)
            await until(lambda: not to_send(client))
        """,
        protocol=protocol,
        max_inflight=4,
    ) as device:
        device.wait_for("all wait")
        proxy.heal()
        device.finish()
    passed = [int(each.payload[protocol - 4 :]) for each in proxy.seen("PUBLISH", "up")]
    assert passed == list(range(60))


def test_what_waits_takes_the_memory_that_max_queue_says(proxy, broker):
    """Of 100,000 bytes that wait no more than 110,000 are taken, and in one piece."""
    peer = broker.peer("t/v", qos=1)
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            client.enqueue("t/v", "first", qos=1)
            gc.collect()
            before = gc.mem_alloc()
            n = 0
            while client.enqueue("t/v", "%07d" % n, qos=1):
                n += 1
            gc.collect()
            print("took", n, gc.mem_alloc() - before)
            await told("go")
            await client.wait_connected()
            most = 0
            while to_send(client):
                most = max(most, len(client.outbox.queue) + in_flight(client))
                await asyncio.sleep_ms(0)
            print("objects", most)
        """,
        max_queue=100_000,
    ) as device:
        count, taken = map(int, device.wait_for("took").split()[1:])
        packet = 2 + 2 + 3 + 2 + 7
        assert count == (100_000 - (packet - 2)) // packet
        assert taken < 2000
        proxy.heal()
        device.send("go")
        assert int(device.wait_for("objects", 60).split()[1]) <= 8
        device.finish()
    peer.wait_for(count + 1)
    assert peer.received[0] == ("t/v", b"first")
    assert [int(payload) for _, payload in peer.received[1:]] == list(range(count))


def test_without_a_piece_of_that_size_the_queue_is_smaller_and_says_so(proxy, broker):
    peer = broker.peer("t", qos=1)
    proxy.refuse()
    with Device(
        proxy,
        """
        lines = []
        client = make(max_queue=400_000, log=lines.append)
        pieces = []
        async with client:
            await until(lambda: client.error)
            import mqtt_as_tls.queueing
            gc.collect()
            try:
                while True:
                    pieces.append(bytearray(90_000))
            except MemoryError:
                pass
            for i in range(0, len(pieces), 2):
                pieces[i] = None
            gc.collect()
            n = 0
            while client.enqueue("t", bytes(990), qos=1):
                n += 1
            print("took", n)
            pieces = None
            await told("go")
            await until(lambda: not to_send(client))
            assert [line for line in lines if "has room for less" in line], lines
            # there is memory again
            assert client.enqueue("t", bytes(990), qos=1)
            client.enqueue("t", bytes(2000), qos=1)
            await until(lambda: not to_send(client))
            await client.disconnect()
        """,
        heap="3M",
    ) as device:
        count = int(device.wait_for("took").split()[1])
        assert 10 <= count <= 90
        proxy.heal()
        device.send("go")
        device.finish()
    peer.wait_for(count + 2)


def test_the_queue_takes_no_more_than_half_of_the_memory(proxy):
    """Whatever max_queue says: the next handshake needs some."""
    proxy.refuse()
    Device.check(
        proxy,
        """
        lines = []
        client = make(max_queue=100_000_000, max_packet=16_000, log=lines.append)
        async with client:
            await until(lambda: client.error)
            gc.collect()
            free = gc.mem_free()
            n = 0
            while client.enqueue("t", bytes(10_000), qos=1):
                n += 1
            gc.collect()
            assert free * 0.4 < n * 10_000 < free * 0.51, (free, n)
            assert gc.mem_free() > free * 0.45, (free, gc.mem_free())
            tasks = [asyncio.create_task(client.publish("t", str(n))) for n in range(9)]
            await asyncio.sleep_ms(0)  # they begin, behind those
        """,
        heap="3M",
    )


@pytest.mark.parametrize("protocol", [4, 5])
def test_the_oldest_give_way_where_the_newest_are_wanted(proxy, broker, protocol):
    peer = broker.peer("t", qos=1)
    proxy.refuse()
    with Device(
        proxy,
        """
        lines = []
        client = make(max_queue=100, protocol=PROTOCOL, log=lines.append)
        async with client:
            for n in range(100):
                assert client.enqueue("t", str(n), qos=1, full="oldest")
            assert not client.enqueue("t", "no room", qos=1)
            print("gave way", client.stats.gave_way)
            await told("go")
            await until(lambda: not to_send(client))
            assert len([line for line in lines if "give way" in line]) == 1, lines
            for wrong, shown in (("old", "a str of 3"), (None, "None")):
                with raises(ValueError, "full %s: newest or oldest" % shown):
                    client.enqueue("t", "x", full=wrong)
        """,
        names={"PROTOCOL": protocol},
    ) as device:
        gave_way = int(device.wait_for("gave way").split()[-1])
        proxy.heal()
        device.send("go")
        device.finish()
    assert 80 < gave_way < 95
    peer.wait_for(100 - gave_way)
    assert [int(payload) for _, payload in peer.received] == list(range(gave_way, 100))


def test_a_log_that_enqueues_comes_between_no_message(broker, tmp_path):
    """The flash fails while a message is sent, and the log puts that on the queue."""
    peer = broker.peer("t/#", qos=1)
    Device.check(
        broker,
        """
        from mqtt_as_tls import FileStore
        lines = []
        def log(line):
            lines.append(line)
            if "survive" in line:
                client.enqueue("t/log", line, qos=1)
        store = FileStore(FOLDER)
        client = make(store=store, client_id="device", log=log)
        async with client:
            await client.wait_connected()
            for n in range(50):
                if n % 5 == 0:
                    no_memory("for a record")
                await client.publish("t/n", str(n), qos=1)
            assert store.errors >= 10, store.errors
            await until(lambda: not to_send(client))
        """,
        names={"FOLDER": str(tmp_path / "store")},
    )
    numbers = [int(message.payload) for message in peer.wait_for(50, "t/n")]
    assert numbers == list(range(50))
    peer.wait_for(1, "t/log")


# Message expiry: MQTT 5.0 section 3.3.2.3.3


def expiry(packet):
    """Return the seconds of message expiry in a PUBLISH, which come first of its properties."""
    at = 2 + 2 + len(packet.topic) + (2 if packet.qos else 0) + 1
    assert packet.raw[at] == 2
    return int.from_bytes(packet.raw[at + 1 : at + 5], "big")


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("way", ["publish", "enqueue", "stream", "interrupt"])
def test_message_expiry_is_counted_down_while_a_message_waits(proxy, broker, way, qos):
    peer = broker.peer("up/#", qos=2)
    proxy.refuse()
    with Device(
        proxy,
        """
        import io
        import micropython

        def expires(seconds):
            return [("user_property", ("a", "b")), ("message_expiry_interval", seconds)]

        def one(topic, seconds):
            options = {"qos": QOS, "properties": expires(seconds)}
            if WAY == "publish":
                return asyncio.create_task(client.publish(topic, "x", **options))
            if WAY == "stream":
                return asyncio.create_task(
                    client.publish(topic, io.BytesIO(b"x"), length=1, **options)
                )
            if WAY == "enqueue":
                return client.enqueue(topic, "x", **options)
            micropython.schedule(lambda _: client.enqueue(topic, "x", **options), None)
            for _ in range(200):  # it interrupts this
                pass

        later(0)
        async with client:
            events = client.events()
            await until(lambda: client.error)
            old = one("up/old", 60), one("up/over", 20)
            later(25)
            new = one("up/new", 30)
            later(2)
            print("all wait")
            await told("go")
            if WAY in ("publish", "stream"):
                await old[0]
                with raises(MQTTError, "expired"):
                    await old[1]
                await new
            else:
                event = await next_event(events, "Undelivered")
                assert event.topic == "up/over" and "expired" in str(event.error)
            await until(lambda: not to_send(client) and client.stats.sent == 2)
            assert waiting(client) == 0
        """,
        protocol=5,
        names={"QOS": qos, "WAY": way},
    ) as device:
        device.wait_for("all wait")
        proxy.heal()
        device.send("go")
        device.finish()
    peer.wait_for(2)
    sent = {each.topic: expiry(each) for each in proxy.seen("PUBLISH", "up")}
    assert sent == {"up/old": 33, "up/new": 28}


def test_message_expiry_counts_on_until_the_broker_has_the_message(proxy, broker):
    """What was sent before is sent again, though it has expired: the broker may have it."""
    proxy.swallow("PUBACK", "down")
    with Device(
        proxy,
        """
        later(0)
        async with client:
            tasks = [
                asyncio.create_task(
                    client.publish("up", "x", qos=1, properties={"message_expiry_interval": n}))
                for n in (100, 10)
            ]
            await until(lambda: in_flight(client) == 2)
            later(40)
            print("now")
            await asyncio.gather(*tasks)
        """,
        protocol=5,
    ) as device:
        proxy.wait_for("PUBACK", "down", 2)
        device.wait_for("now")
        proxy.heal()
        proxy.rst()
        device.finish()
    sent = [(each.dup, expiry(each)) for each in proxy.seen("PUBLISH", "up")]
    assert sent == [(False, 100), (False, 10), (True, 60), (True, 1)]


@pytest.mark.parametrize("way", ["queue", "flight"])
def test_message_expiry_is_counted_down_on_flash(broker, proxy, tmp_path, way):
    """By the clock, when it was right both times."""
    peer = broker.peer("up/#", qos=2)
    proxy.refuse()
    program = """
        from mqtt_as_tls import mqtt5
        clock = [CLOCK]

        class Clock:
            def time(self):
                return clock[0]
            def ticks_ms(self):
                return 0  # it stands still meanwhile
            def __getattr__(self, name):
                return getattr(time, name)

        mqtt5.time = Clock()
        client = make(store=store, protocol=5, session_expiry_s=9999)
        if CLOCK == AT:
            async with client:
                if WAY == "flight":
                    await told("go")
                    await client.wait_connected()
                for topic, seconds in (("up/old", 1000), ("up/over", 100)):
                    properties = {"message_expiry_interval": seconds}
                    client.enqueue(topic, "x", qos=1, properties=properties)
                clock[0] = 1_600_000_000  # not set
                properties = {"message_expiry_interval": 50}
                client.enqueue("up/then", "x", qos=1, properties=properties)
                await until(lambda: store.waiting + in_flight(client) == 3)
                print("waits")
                await told("end")
        async with client:
            await until(lambda: client.stats.connects and not to_send(client) and not len(store))
    """
    at = 1_900_000_000
    options = {"store": tmp_path / "store"}
    with Device(proxy, program, names={"CLOCK": at, "AT": at, "WAY": way}, **options) as device:
        if way == "flight":
            proxy.heal()
            proxy.swallow("PUBACK", "down")
            device.send("go")
        device.wait_for("waits")
        device.kill()
    proxy.packets.clear()
    proxy.heal()
    Device.check(proxy, program, names={"CLOCK": at + 300, "AT": at, "WAY": way}, **options)
    sent = {each.topic: expiry(each) for each in proxy.seen("PUBLISH", "up")}
    if way == "queue":
        assert sent == {"up/old": 700, "up/then": 50}
        peer.wait_for(2)
    else:  # the broker may have them
        assert sent == {"up/old": 700, "up/over": 1, "up/then": 50}


# Interrupts and threads

# a second thread does what a timer does: it hands a function to the scheduler
TIMER = """
import _thread
import micropython

class Timer:
    def __init__(self, function, pause_us=1500):
        self.runs = True
        self.function = function
        self.pause_us = pause_us
        self.dead = False
        _thread.start_new_thread(self.run, ())

    def run(self):
        while self.runs:
            try:
                micropython.schedule(self.function, None)
            except RuntimeError:
                pass
            time.sleep_us(self.pause_us)
        self.dead = True
"""


def counted(peer, topic):
    return collections.Counter(int(payload) for t, payload in peer.received if t == topic)


CASES = list(itertools.product((4, 5), (0, 1, 2)))


@pytest.mark.parametrize("protocol, qos", CASES)
def test_what_a_timer_enqueues_arrives_once(proxy, protocol, qos):
    """Counted where it passes: mosquitto drops QoS 0 for who is slow."""
    out = Device.check(
        proxy,
        TIMER,
        f"""
        client = make(protocol={protocol})
        n = 0
        def tick(_):
            nonlocal n
            if n < 500 and client.enqueue("t/irq", str(n), qos={qos}):
                n += 1
        async with client:
            await client.wait_connected()
            timer = Timer(tick)
            k = 0
            while n < 500:
                await client.publish("t/main", str(k), qos=1)
                if client.enqueue("t/main", str(k + 1), qos={qos}):
                    k += 1
                k += 1
            timer.runs = False
            await until(lambda: timer.dead and not to_send(client))
            assert client.stats.connects == 1, client.error
            assert not client.session.stray
            print("main", k)
        """,
    )
    passed = collections.defaultdict(list)
    for packet in proxy.seen("PUBLISH", "up"):
        assert not packet.dup
        passed[packet.topic].append(int(packet.payload[protocol - 4 :]))  # without properties
    assert passed["t/irq"] == list(range(500))
    assert passed["t/main"] == list(range(int(re.search(r"main (\d+)", out)[1])))


def test_what_a_timer_enqueues_survives_outages_and_a_store(proxy, broker, tmp_path):
    peer = broker.peer("t/irq", qos=2)
    with Device(
        proxy,
        TIMER,
        """
        n = 0
        def tick(_):
            nonlocal n
            if n < 500 and client.enqueue("t/irq", str(n), qos=2):
                n += 1
        async with client:
            timer = Timer(tick, 3000)
            await until(lambda: n == 500 and not to_send(client) and not store.waiting)
            timer.runs = False
            await until(lambda: timer.dead)
        """,
        store=tmp_path / "store",
    ) as device:
        for connection in range(1, 5):
            proxy.wait_for_connections(connection)
            proxy.wait_for("PUBREC", "down", 20 * connection)
            proxy.rst()
        device.finish(60)
    peer.wait_for(500)
    assert counted(peer, "t/irq") == collections.Counter(range(500))


@pytest.mark.parametrize("stored", [False, True])
def test_an_interrupt_wakes_a_loop_that_waits(broker, proxy, stored, tmp_path):
    """Nothing else would, for 45 s. The other flag lets the unix port run the scheduler then."""
    peer = broker.peer("t/irq", qos=1)
    with Device(
        proxy,
        TIMER,
        """
        asyncio.create_task(asyncio.ThreadSafeFlag().wait())
        def tick(_):
            timer.runs = False
            assert client.enqueue("t/irq", "now", qos=1)
        async with client:
            await client.wait_connected()
            timer = Timer(tick, 300_000)
            await asyncio.Event().wait()
        """,
        keepalive_s=60,
        store=tmp_path / "store" if stored else None,
    ) as device:
        peer.wait_for(1, timeout_s=8)
        device.kill()
    assert peer.received == [("t/irq", b"now")]


def test_offline_what_an_interrupt_enqueues_is_on_flash_at_once(proxy, tmp_path):
    proxy.refuse()
    with Device(
        proxy,
        TIMER,
        """
        client.retry = None
        asyncio.create_task(asyncio.ThreadSafeFlag().wait())
        def tick(_):
            timer.runs = False
            assert client.enqueue("t/irq", "now", qos=1)
            print("waiting", store.waiting)
            asyncio.create_task(look())
        async def look():
            await until(lambda: store.waiting)
            print("on flash", store.waiting)
        async with client:
            await until(lambda: client.error)
            timer = Timer(tick, 300_000)
            await asyncio.Event().wait()
        """,
        store=tmp_path / "store",
        back_off="latest",
    ) as device:
        device.wait_for("waiting 0")
        device.wait_for("on flash 1")
        device.kill()


def test_a_second_thread_is_told_what_to_do(broker):
    """There is no lock of the interpreter in the unix port, nor in that of the Pico."""
    peer = broker.peer("t", qos=1)
    with Device(
        broker,
        """
        import _thread
        import micropython
        said = []

        def work():
            try:
                client.enqueue("t", "x", qos=1)
            except RuntimeError as e:
                said.append(str(e))
            micropython.schedule(handed, "from a thread")

        def handed(text):
            client.enqueue("t", text, qos=1)

        async with client:
            await client.publish("t", "first", qos=1)
            _thread.start_new_thread(work, ())
            await until(lambda: said)
            assert "micropython.schedule(function, argument)" in said[0]
            await told("end")
        """,
    ) as device:
        peer.wait_for(2)
        device.send("end")
        device.finish()
    assert [payload for _, payload in peer.received] == [b"first", b"from a thread"]
