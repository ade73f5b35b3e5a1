"""
Memory that is short, in pieces or gone: the client says so, goes on by itself when there is some
again, and loses nothing meanwhile.

Where the memory of TLS counts, the interpreter is the 32-bit one that takes it from the heap, as a
Pico W does, with the package frozen in, as .mpy files or as .py files. The smallest heap for each
is found by `python -m benchmarks.starvation`.
"""

import random
import re
import threading
import time

import pytest

from benchmarks import starvation
from tests.support import apps, patience, secure
from tests.support.device import Device
from tests.support.secure import files
from tests.unit.test_imports_follow_the_table import loaded, modules
from tools.ports import free_port

# the first test may have to build the interpreter
pytestmark = pytest.mark.timeout(300)

LONGEST = 1000  # messages of each QoS that a storm counts
MEMORY_MS = 150  # that an app takes all memory, a time
BEHIND = "connections break right after"  # what the log says of a message that ends connections


# Heaps that are small from the start


@pytest.fixture(scope="module")
def bench(pico, tmp_path_factory):
    with starvation.Bench(tmp_path_factory.mktemp("bench")) as running:
        yield running


# case -> heaps in KB, from what cannot import the package to what is enough
HEAPS = {
    "3.1.1 mtls frozen plain": (14, 20, 34, 50, 60),
    "5.0 tcp .mpy plain": (30, 48, 60, 80),
    "3.1.1 tls .py plain": (60, 90, 130),
    "3.1.1 mtls frozen sensor": (40, 108),  # with 20 KB of tests/fakes/network.py
}


@pytest.mark.parametrize("case", HEAPS)
def test_in_any_heap_an_app_works_or_says_what_it_lacks(bench, pico, monkeypatch, case):
    """It ends with an error that names memory, or goes on trying and says so in its log."""
    monkeypatch.setenv("MICROPYTHON", pico)
    *small, enough = HEAPS[case]
    for heap_kb in small:
        verdict, how = bench.try_heap(tuple(case.split()), heap_kb)
        assert verdict not in starvation.FAULTS, f"{heap_kb} KB: {verdict}: {how}"
    verdict, how = bench.try_heap(tuple(case.split()), enough)
    assert verdict == starvation.WORKS, f"{enough} KB: {verdict}: {how}"


# Memory that an app takes and gives back

APP = """
from tests.device.hunger import Hunger
from tests.device.inside import left_over, to_send

counts = {}  # (QoS, number) -> how often it was handled
stopping = False

async def publisher(client, qos):
    n = 0
    while not stopping:
        try:
            await client.publish("up/%d" % qos, str(n), qos=qos)
            n += 1
        except MemoryError:
            pass  # it may have been sent all the same
        await asyncio.sleep_ms(20)
    print("published", qos, n)

def listen(client, qos):
    @client.on("down/%d" % qos, qos=qos)
    def handle(message):
        payload = message.payload
        n = payload[0] << 8 | payload[1]
        for i in range(2, len(payload)):
            if payload[i] != n & 255:
                print("DAMAGED", n, len(payload))
                break
        key = qos, n
        counts[key] = counts.get(key, 0) + 1

async def well(client, what):
    # it may have been in the middle of something
    await client.wait_connected(30)
    await client.publish("well", what, qos=1, timeout_s=30)

async def main():
    global stopping
    soonest()
    client = make(OPTIONS)
    listen(client, 1)
    listen(client, 2)
    for n in range(LONGEST):
        counts[1, n] = counts[2, n] = 0  # so that counting takes no memory
    async with client:
        await client.wait_connected()
        for qos in (1, 2):
            asyncio.create_task(publisher(client, qos))
        await told("go")
        hunger = Hunger(6000)
        await well(client, "first")
        files = open_files()
        for how, size in MEALS:
            connects = client.stats.connects
            if how == "nibble":
                while hunger.nibble(size):
                    await asyncio.sleep_ms(1)
            else:
                getattr(hunger, how)(size)
            await asyncio.sleep_ms(MEMORY_MS)
            hunger.end()
            await well(client, "%s %d" % (how, size))
            print("well after", how, size, client.stats.connects - connects, "connects")
        print("sockets", open_files() - files)
        await told("stop")
        stopping = True
        await until(lambda: not to_send(client))
        await asyncio.sleep_ms(100)
        print("left over", left_over(client))
        for qos in (1, 2):
            print("handled", qos, *[n for n in range(LONGEST) if counts[qos, n]])
        print("twice", *[n for n in range(LONGEST) if counts[2, n] > 1])
    print("left")
"""


class Feeder(threading.Thread):
    """Publishes to the device, in sizes from 2 bytes to what a packet may hold, until `stop`."""

    def __init__(self, broker, seed):
        super().__init__()
        self._peer = broker.peer()
        self._chance = random.Random(seed)
        self._over = threading.Event()
        self.sent = 0

    def run(self):
        while self.sent < LONGEST and not self._over.wait(0.03):
            n = self.sent
            for qos in (1, 2):
                size = self._chance.choice((0, 20, 200, 1000, 4000))
                payload = bytes((n >> 8, n & 255)) + bytes((n & 255,)) * size
                self._peer.publish(f"down/{qos}", payload, qos=qos)
            self.sent += 1

    def stop(self):
        self._over.set()
        self.join()


def storm(broker, start, meals, options=""):
    """
    Have an app that is busy in both directions with QoS 1 and 2 take memory away from the client;
    check that all that was published arrived whole, and that nothing is left over.

    start  function that starts the app's source text
    meals  list of (method of Hunger, bytes)
    """
    seed = random.randrange(1_000_000)
    print("seed", seed)
    peer = broker.peer("up/#", qos=2)
    feeder = Feeder(broker, seed)
    source = APP.replace("OPTIONS", options).replace("MEALS", repr(meals))
    with start(
        source.replace("MEMORY_MS", str(MEMORY_MS)).replace("LONGEST", str(LONGEST))
    ) as app:
        app.wait_for("connected in")
        broker.wait_for_log("down/2 (QoS 2)")
        feeder.start()
        try:
            app.send("go")
            sockets = app.wait_for("^sockets", 60 + 5 * len(meals))
        finally:
            feeder.stop()
        app.send("stop")
        published = {}
        for _ in (1, 2):
            _, qos, count = app.wait_for("^published").split()
            published[qos] = int(count)
        app.wait_for("^left$")
        result = app.wait()
    out = result.out
    assert result.code == 0, app.report()
    assert "left over []\n" in out, app.report()
    assert "DAMAGED" not in out, app.report()
    assert sockets == "sockets 0", app.report()
    assert BEHIND not in out, "it is not the message's fault that memory was short"
    everything = " ".join(map(str, range(feeder.sent)))
    for qos in (1, 2):
        assert f"handled {qos} {everything}\n" in out, app.report()
    assert "twice\n" in out, app.report()
    for qos, count in published.items():
        peer.wait_for(count, topic=f"up/{qos}")
        arrived = [int(text) for topic, text in peer.received if topic == f"up/{qos}"]
        assert list(dict.fromkeys(arrived)) == list(range(count)), app.report()
    return out


def over_tls(broker, pki):
    return lambda source: secure.start(source, broker.port, files(pki.ca), heap="420K")


# half the memory is free, in pieces; it goes slowly; one piece is free, at last none
PIECES = [("shatter", size) for size in (8000, 2000, 500, 100)]
LITTLE = [("nibble", 1000), *(("eat", size) for size in (20_000, 17_000, 8000, 2000, 1000))]
NOTHING = [("eat", size) for size in (500, 250, 128, 64, 32, 16, 0)]
CRUMBS = [("crumbs", count) for count in range(0, 60, 5)]


@pytest.mark.parametrize("protocol", [4, 5])
def test_nothing_is_lost_over_tls_while_the_heap_is_in_pieces_or_full(
    on_pico, tls_broker, pki, protocol
):
    out = storm(
        tls_broker,
        over_tls(tls_broker, pki),
        PIECES + LITTLE,
        f"tls=tls_given(), protocol={protocol}",
    )
    assert "memory ran out or is in pieces" in out, out


@pytest.mark.parametrize("protocol", [4, 5])
def test_nothing_is_lost_where_there_is_no_memory_at_all(broker, protocol):
    """
    On 64 bits: in the 32-bit unix port asyncio itself takes memory for each event of a socket, as
    the addresses of objects are no small integers there (on an RP2040 they are).
    """
    out = storm(
        broker,
        lambda source: apps.start(source, broker.port, heap="1M"),
        NOTHING + CRUMBS,
        f"protocol={protocol}",
    )
    assert "MemoryError('no memory'" in out, out


# One thing at a time


def test_a_client_that_found_no_memory_to_start_starts_later(broker):
    out = apps.check(
        """
        from mqtt_as_tls import lifecycle
        from tests.device.hunger import Hunger
        from tests.device.inside import clients, keep_loaded

        MEALS = [("crumbs", n) for n in range(0, 40)]
        MEALS += [("eat", n) for n in range(0, 12000, 600)]
        MEALS = [(meal, made) for meal in MEALS for made in (False, True)]

        async def main():
            soonest()
            keep_loaded()  # what is loaded from source takes more than all the rest
            hunger = Hunger()
            seen = set()
            for (how, size), made in MEALS:
                client = make(protocol=5) if made else None  # before memory is short
                stage = "made"
                getattr(hunger, how)(size)
                try:
                    client = client or make(protocol=5)
                    stage = "started"
                    await client.__aenter__()
                    stage = "running"
                    await asyncio.sleep_ms(5)
                except MemoryError:
                    pass
                hunger.end()
                seen.add(stage)
                if client is None:
                    client = make(protocol=5)
                if stage != "running":
                    await client.__aenter__()
                await client.wait_connected(10)
                await client.publish("t", "x", qos=1, timeout_s=10)
                await client.disconnect()
                assert clients() == [], (how, size, stage)
            print("stages", sorted(seen))
        """,
        broker.port,
        heap="400K",
    )
    assert "['made', 'running', 'started']" in out, "no longer starved where it matters"


def test_a_call_that_found_no_memory_can_be_made_again(broker):
    peer = broker.peer("up/#")
    with apps.start(
        """
        from tests.device.hunger import Hunger

        got = []

        async def main():
            soonest()
            hunger = Hunger()
            # the answer to an UNSUBSCRIBE that was not sent is waited for
            client = make(protocol=5, ack_timeout_s=1)
            client.on("in/#", qos=1)(lambda message: got.append(str(message.payload, "utf-8")))
            calls = (
                lambda n, qos: client.publish("up/%d" % qos, str(n), qos=qos),
                lambda n, qos: client.subscribe("in/%d" % n, qos=qos),
                lambda n, qos: client.unsubscribe("in/%d" % n),
                lambda n, qos: client.enqueue("up/%d" % qos, str(n), qos=qos),
            )
            failed = bytearray(len(calls))
            await client.__aenter__()
            await client.wait_connected()
            for call in calls:  # what it imports is there
                await_ = call(9000, 1)
                if hasattr(await_, "send"):
                    await await_
            n = 0
            for left in list(range(0, 3000, 150)):
                for i, call in enumerate(calls):
                    hunger.eat(left)
                    try:
                        result = call(n, n % 3)
                        if hasattr(result, "send"):
                            await asyncio.wait_for(result, 1)
                    except MemoryError:
                        failed[i] += 1
                    except asyncio.TimeoutError:
                        pass  # the connection may have been what there was no memory for
                    except asyncio.CancelledError:
                        pass  # wait_for() had no memory to say that it is over
                    hunger.end()
                    await client.wait_connected(20)
                    result = call(n, n % 3)
                    if hasattr(result, "send"):
                        await asyncio.wait_for(result, 20)
                    n += 1
            await client.publish("in/last", "last", qos=1)
            await until(lambda: got == ["last"])
            print("calls", n, "failed", *failed)
            await client.disconnect()
        """,
        broker.port,
        heap="400K",
    ) as app:
        *_, n, _, a, b, c, d = app.wait_for("^calls", 60).split()
        app.wait()
    assert min(int(each) for each in (a, b, c, d)) > 0, "no longer starved where it matters"
    peer.wait_for(int(n) // 2)
    numbers = {int(payload) for _, payload in peer.received}
    assert {i for i in range(int(n)) if i % 4 in (0, 3)} <= numbers


def test_a_module_that_there_was_no_memory_to_load_is_loaded_later():
    """MicroPython has noted its name by then, and would crash at the next import."""
    calls = sorted({call for source in modules().values() for call in loaded(source) if call})
    assert ("texts",) in calls and ("dns", "clock") in calls
    with apps.start(
        """
        from mqtt_as_tls import load, unload
        from tests.device.hunger import Hunger

        hunger = Hunger()

        async def main():
            for names in CALLS:
                failures = 0
                for how, sizes in (("crumbs", range(24)), ("eat", range(0, 1200, 48))):
                    for size in sizes:
                        unload(*names)
                        getattr(hunger, how)(size)
                        try:
                            load(*names)
                        except MemoryError:
                            failures += 1
                        hunger.end()
                        assert load(*names).__name__.endswith(names[-1])
                print("loaded", names[-1], failures)
        """.replace("CALLS", repr(calls)),
        1,
        heap="500K",
    ) as app:
        for *_, name in calls:
            line = app.wait_for(f"^loaded {name} ")
            assert int(line.split()[-1]) > 10, line
        assert app.wait().code == 0


def test_a_handler_that_takes_all_memory_gets_the_next_message(broker):
    """Its own message is acknowledged, as that of any handler that fails."""
    with apps.start(
        """
        from tests.device.hunger import Hunger

        hunger = Hunger()

        async def main():
            soonest()
            client = make()

            @client.on("t", qos=1)
            async def handle(message):
                how, size = str(message.payload, "utf-8").split()
                await asyncio.sleep_ms(1)
                if how == "next":
                    print("handled", size)
                    return
                getattr(hunger, how)(int(size))
                bytearray(100_000)

            async def feed():
                while True:
                    while not hunger.taken():
                        await asyncio.sleep_ms(1)
                    await asyncio.sleep_ms(20)
                    hunger.end()
                    print("fed")

            async with client:
                task = asyncio.create_task(feed())
                await told("leave")
                task.cancel()
        """,
        broker.port,
        heap="400K",
    ) as app:
        broker.wait_for_log("t (QoS 1)")
        peer = broker.peer()
        meals = [
            *(("crumbs", n) for n in range(0, 30, 2)),
            *(("eat", n) for n in range(0, 400, 16)),
        ]
        for number, (how, size) in enumerate(meals):
            peer.publish("t", f"{how} {size}")
            app.wait_for("fed")
            peer.publish("t", f"next {number}")
            app.wait_for(f"handled {number}$")
        app.send("leave")
        assert app.wait().code == 0


def test_a_handler_waits_for_its_next_message_though_there_was_no_memory_to(broker):
    with Device(
        broker,
        """
        @client.on("t", qos=1)
        def handle(message):
            no_memory("for the next message of a handler")
            got(message)
        """,
    ) as device:
        device.subscribed()
        for n in range(3):
            broker.publish("t", n)
            device.wait_for(f"got {n} 1")
        device.leave()


def test_a_message_that_there_was_no_memory_to_queue_is_handled_once(broker):
    """With QoS 2: it stays in no queue, and comes again."""
    with Device(
        broker,
        """
        from mqtt_as_tls import connection as module

        class Poor(module.Message):
            fails = 1
            count = 0

            @property
            def claims(self):
                return self.count

            @claims.setter
            def claims(self, value):
                if Poor.fails:
                    Poor.fails -= 1
                    raise MemoryError
                self.count = value

        module.Message = Poor

        client.on("t", qos=2)(got)

        async with client:
            await told("leave")
        print("connects", client.stats.connects)
        """,
    ) as device:
        device.subscribed()
        for payload in ("one", "two"):
            broker.publish("t", payload, qos=2)
            device.wait_for(f"got {payload} 2")
        out = device.leave()
    assert device.said("got") == ["one 2", "two 2"], out
    assert "connects 2" in out, out


def test_no_memory_is_not_held_against_the_message_that_was_sent_before():
    def script(connection):
        connection.accept()
        _, body = connection.packet()  # PUBLISH
        if connection.number < 5:
            connection.send(b"\x30\x03\x00\x01t")
        else:
            connection.send(b"\x40\x02" + body[3:5])
        connection.until_closed()

    out = Device.against(
        script,
        """
        def arrived(*_):
            raise MemoryError

        replace_arrived(arrived)
        async with client:
            await client.publish("t", "x", qos=1, timeout_s=20)
            print("connects", client.stats.connects)
        """,
        give_up_after=2,
    )
    assert "connects 5" in out
    assert BEHIND not in out


def test_a_line_that_there_was_no_memory_to_log_is_logged_later():
    out = Device.check(
        free_port(),  # nobody listens
        """
        lines = []

        def log(line):
            lines.append(line)
            if len(lines) == 1:
                raise MemoryError

        client = make(log=log)
        async with client:
            await until(lambda: failures(client) == 4)
        print(*lines, sep="\\n")
        """,
    )
    said = re.findall("not connected: cannot connect to .*", out)
    assert len(said) == 2, out


def test_a_line_that_there_was_no_memory_to_put_together_is_said_in_fewer_words():
    out = apps.check(
        """
        from tests.device.inside import say

        class Host:
            fails = 2

            def __str__(self):
                if self.fails:
                    self.fails -= 1
                    raise MemoryError
                return "broker"

        async def main():
            client = make()
            client.host = Host()
            for _ in range(5):
                say(client, "link up")
        """,
        1883,
    )
    short = "mqtt: no memory for words\n"
    assert out == f"{short}{short}mqtt broker:1883: link up\n"


STREAMS = """
from tests.device.hunger import Hunger
import mqtt_as_tls.stream_out  # what a call imports is there

LENGTH = 20_000
done = {"up": 0, "down": 0}
stopping = False

class Source:
    at = 0

    def seek(self, at):
        self.at = at

    def tell(self):
        return self.at

    def readinto(self, buf):
        n = min(len(buf), LENGTH - self.at)
        for i in range(n):
            buf[i] = (self.at + i) * 7 & 255
        self.at += n
        return n

async def send(client):
    while not stopping:
        try:
            await client.publish("up", Source(), length=LENGTH, qos=1)
            done["up"] += 1
        except MemoryError:
            pass
        await asyncio.sleep_ms(10)

async def main():
    global stopping
    soonest()
    client = make(max_packet=1024, ack_timeout_s=5)
    buf = bytearray(200)

    @client.on("down", qos=1, stream=True)
    async def down(message):
        at = 0
        while True:
            n = await message.stream.readinto(buf)
            if not n:
                break
            for i in range(n):
                if buf[i] != (at + i) * 7 & 255:
                    print("DAMAGED at", at + i)
            at += n
        if at != LENGTH:
            print("DAMAGED end", at)
        done["down"] += 1

    hunger = Hunger()
    async with client:
        await client.wait_connected()
        files = open_files()
        task = asyncio.create_task(send(client))
        for number, (how, size) in enumerate(MEALS):
            await asyncio.sleep_ms(number * 7 % 50)
            getattr(hunger, how)(size)
            await asyncio.sleep_ms(60)
            hunger.end()
            before = dict(done)
            # one of each may have been under way
            await until(lambda: min(done[way] - before[way] for way in done) > 1)
        stopping = True
        await until(task.done)
        print("sockets", open_files() - files)
        print("over")
        await told("leave")
"""


def test_payloads_larger_than_memory_arrive_though_memory_is_short_meanwhile(broker):
    content = bytes(i * 7 & 255 for i in range(20_000))
    peer = broker.peer("up")
    sender = broker.peer()
    meals = [("eat", size) for size in (4000, 1000, 250, 0)] + CRUMBS[::3]
    with apps.start(STREAMS.replace("MEALS", repr(meals)), broker.port, heap="400K") as app:
        broker.wait_for_log("down (QoS 1)")
        deadline = time.monotonic() + patience.stretched(240)
        while "over" not in app.lines:
            assert app.code is None and time.monotonic() < deadline, app.report()
            sender.publish("down", content)
            time.sleep(0.05)
        app.send("leave")
        assert app.wait().code == 0, app.report()
    assert "sockets 0" in app.lines, app.report()
    assert not [line for line in app.lines if line.startswith("DAMAGED")], app.report()
    assert {message.payload for message in peer.messages} == {content}
