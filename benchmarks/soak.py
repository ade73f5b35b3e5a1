"""
Have clients live through outages for minutes or hours, and count what arrives.

    python -m benchmarks.soak                  ten minutes
    python -m benchmarks.soak --minutes 600    a night
    python -m benchmarks.soak --seed 4711      the same outages in the same order
    python -m benchmarks.soak --hurry          one outage right after the other, without back-off
    python -m benchmarks.soak --json soak.json

A device under MicroPython has four clients: MQTT 3.1.1 and 5, each over TCP and over mutual TLS,
each behind a proxy that makes faults. Each publishes numbered messages at QoS 0, 1 and 2 all the
time; another client, beside the broker, sends numbered ones back and writes down what came.
Beside them the device does what apps do (tests/device/everyday.py): 30 subscriptions, a loop that
reads a sensor, interrupts that enqueue, a web server that is asked all the time, and 300 retained
messages that come anew at each connect. The exit status is 1 when anything was lost at
QoS 1 or 2, came twice at QoS 2, came out of order, was not served, or leaked.
"""

import argparse
import collections
import contextlib
import json
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from tests.support import secure
from tests.support.broker import Broker, Peer
from tests.support.pki import PKI
from tests.support.proxy import Proxy
from tools import ports

# name, protocol, listener of the broker
CLIENTS = (("4-tcp", 4, "tcp"), ("5-tcp", 5, "tcp"), ("4-tls", 4, "mtls"), ("5-tls", 5, "mtls"))
EVERYDAY = (("everyday", 4, "mtls"), ("flooded", 4, "tcp"))
FILTERS = 30  # of tests/device/everyday.py
RETAINED = 300
ANSWERS = [
    (packet, way) for packet in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP") for way in ("up", "down")
]
BURST = 5  # messages of each QoS to all clients, thrice in a round
STALL_MS = 1000  # the longest that another task may stand still
WAIT_S = 150  # for a round to come through: a message suspected of breaking things takes 60

APP = """
import json
import os
import random
from tests.device.everyday import Everyday
from tests.device.inside import left_over, load_everything
from tests.device.watch import slowest

given = json.loads(os.getenv("SOAK"))
period_ms = int(1000 / given["rate"])
clients = {}
counts = {}  # (client, QoS): number expected next, missed, twice
waiting = {}
stopping = False
paused = False  # what sends

def make(name, protocol, port, tls, clean_start=False):
    lost_ms = None

    def log(line):
        nonlocal lost_ms
        if "connected in" in line:
            if lost_ms is not None:
                print("offline", name, time.ticks_diff(time.ticks_ms(), lost_ms))
        elif "connection lost" in line:
            lost_ms = time.ticks_ms()
        if given["verbose"]:
            print("log", name, line)

    return MQTTClient(
        "127.0.0.1", port, tls=tls_given() if tls else None, protocol=protocol, client_id=name,
        log=log, keepalive_s=2, ack_timeout_s=2, connect_timeout_s=2, clean_start=clean_start,
    )

def prepare(name, protocol, port, tls):
    clients[name] = client = make(name, protocol, port, tls)
    for qos in (0, 1, 2):
        listen(client, name, qos)

    @client.on_connect  # it runs when the broker has the subscriptions
    async def ready():
        print("ready", name)

def listen(client, name, qos):
    count = counts[name, qos] = [0, 0, 0]

    @client.on("down/%d" % qos, qos=qos)
    async def handle(message):
        await asyncio.sleep_ms(random.randrange(4))
        n = int(message.payload)
        if n < count[0]:
            count[2] += 1
            return
        count[1] += n - count[0]
        count[0] = n + 1
        if qos and count[0] % given["burst"] == 0:
            print("through", min(counts[name, 1][0], counts[name, 2][0]), name)

async def publisher(name, qos):
    client = clients[name]
    topic = "up/%s/%d" % (name, qos)
    n = 0
    while not stopping:
        await until(lambda: not paused)
        try:
            await client.publish(topic, str(n), qos=qos)
        except DeliveryUnknown:
            print("unknown", name, n)
        n += 1
        await asyncio.sleep_ms(random.randrange(2 * period_ms))
    print("published", name, qos, n)

def weigh():
    gc.collect()
    print("heap", gc.mem_alloc(), "files", open_files())

async def weigher(everyday):
    # When nothing is under way: what is takes more at one time than at another
    global paused
    while not stopping:
        await told("weigh")
        paused = everyday.paused = True
        for client in clients.values():
            await until(lambda: client.connected and not left_over(client))
        weigh()
        paused = everyday.paused = False

async def main():
    global stopping
    load_everything()  # or the heap would grow by it later
    if given["hurry"]:
        soonest()
    for each in given["clients"]:
        prepare(*each)
    everyday = Everyday(
        lambda name, clean_start: make(name, *given["everyday"][name], clean_start), given["burst"]
    )
    clients["everyday"] = everyday.client
    clients["flooded"] = everyday.flooded
    for client in clients.values():
        await client.__aenter__()
    for client in clients.values():
        await client.wait_connected()
    asyncio.create_task(slowest())
    tasks = [
        asyncio.create_task(publisher(name, qos)) for name, *_ in given["clients"]
        for qos in (0, 1, 2)
    ]
    await everyday.start(given["web"])
    asyncio.create_task(weigher(everyday))
    weigh()
    await told("stop")
    stopping = True
    await asyncio.gather(*tasks)
    await everyday.stop()
    for name, client in clients.items():
        await client.wait_connected()
        stats = client.stats
        print("stats", name, json.dumps({
            "connects": stats.connects, "resent": stats.resent, "duplicates": stats.duplicates,
            "dropped": stats.dropped, "unclaimed": stats.unclaimed,
        }))
    weigh()
    for (name, qos), count in counts.items():
        print("got", name, qos, *count)
    for client in clients.values():
        await client.__aexit__(None, None, None)
    print("left")
"""


class FaultProxy(Proxy):
    """A proxy for hours: it keeps no record, and has two faults more."""

    async def record(self, packet):
        pass

    def garbage(self, way):
        """Slip bytes that mean nothing in MQTT or TLS into the connections that are open."""

        async def work():
            for each in list(self._live):
                if way in each.writers:
                    each.writers[way].write(b"\xff" * 100)

        self._call(work)

    def vanish(self):
        """Nothing passes on the connections that are open, for good, and neither end is told."""

        async def work():
            for each in self._live:
                each.frozen = True

        self._call(work)

    def bury(self):
        """End what `vanish` left, when its two ends have gone."""

        async def work():
            for each in list(self._live):
                if each.frozen:
                    each.end("rst")
                    each.task.cancel()

        self._call(work)


class Numbers:
    """What arrived of a sequence of numbers that were sent in order."""

    def __init__(self):
        self.expected = self.count = self.twice = self.late = 0
        self.missing = set()

    def add(self, n):
        self.count += 1
        if n >= self.expected:
            self.missing.update(range(self.expected, n))
            self.expected = n + 1
        elif n in self.missing:
            self.missing.remove(n)
            self.late += 1
        else:
            self.twice += 1


class Observer(Peer):
    """
    Another client, with a session of its own. It writes down what comes from devices in `found`,
    {topic: Numbers}, and keeps nothing else; `marks` counts messages of other topics.
    """

    def __init__(self, port, found, *filters):
        self.found = found
        self.marks = 0
        super().__init__(port, client_id="observer", clean=False)
        for each in filters:
            self.subscribe(each, qos=2)

    def _on_message(self, client, data, message):
        with self._changed:
            if message.topic in self.found:
                self.found[message.topic].add(int(message.payload))
            else:
                self.marks += 1
            self._changed.notify_all()

    def wait_until(self, is_so, timeout_s=20):
        """Return whether `is_so()` became true."""
        return self._wait(is_so, timeout_s)


class Storm:
    """
    The device, its proxies, the broker and the observer, and the faults.

    took_s  {fault: list of the seconds from its end until messages had come through}
    """

    def __init__(self, chance, broker, proxies, hurry):
        self.chance = chance
        self.broker = broker
        self.proxies = proxies  # {name: FaultProxy}
        self.waited_for = [name for name in proxies if name != "flooded"]
        self.plain = [proxies[name] for name, _, kind in (*CLIENTS, *EVERYDAY) if kind == "tcp"]
        self.app = None
        self.hurry = hurry
        self.sent = 0
        self.took_s = {}
        self.found = {f"up/{name}/{qos}": Numbers() for name in proxies for qos in (0, 1, 2)}
        self.keep()
        self.observe()

    def observe(self):
        self.observer = Observer(self.broker.port, self.found, "up/#")

    def keep(self):
        """Have the broker keep the retained messages."""
        with Peer(self.broker.port) as peer:
            for n in range(RETAINED):
                peer.publish(f"retained/{n}", "kept for whoever comes", retain=True)

    def send(self):
        """Send a burst to the device."""
        with Peer(self.broker.port) as peer:
            for n in range(FILTERS):
                peer.publish(f"home/{n}/room/lamp", str(self.sent), 1)
            peer.send_at_once()  # else each QoS 1 message waits 40 ms behind a QoS 0 one
            for _ in range(BURST):
                for qos in (0, 1, 2):
                    peer.publish(f"down/{qos}", str(self.sent), qos)
                self.sent += 1

    def arrived(self):
        """Return when every client has all that was sent at QoS 1 and 2."""
        waiting = set(self.waited_for)
        while waiting:
            line = self.app.wait_for(f"^through {self.sent} ", WAIT_S)
            waiting.discard(line.split()[2])

    def round(self, name):
        """Some messages, the fault `name`, some more; all come through. Then weigh the heap."""
        self.send()
        some = self.chance.sample(
            list(self.proxies.values()), self.chance.randint(1, len(self.proxies))
        )
        getattr(self, name)(some)
        self.send()
        self.heal()
        start = time.monotonic()
        self.send()
        self.arrived()
        self.took_s.setdefault(name, []).append(time.monotonic() - start)
        for each in self.proxies.values():
            each.bury()
        self.app.send("weigh")
        self.app.wait_for("^heap", WAIT_S)
        if not self.hurry:  # a connection that lasted more than 5 s was a good one
            time.sleep(self.chance.uniform(1, 12))

    def heal(self):
        for each in self.proxies.values():
            each.heal()

    def hold(self, longest_s):
        time.sleep(self.chance.uniform(0.05, longest_s))

    # The faults, each for some of the proxies

    def reset(self, some):
        for each in some:
            each.rst()

    def finish(self, some):
        for each in some:
            each.fin()

    def refuse(self, some):
        for each in some:
            each.refuse()
        self.reset(some)
        self.hold(1)

    def blackhole(self, some):
        for each in some:
            each.blackhole()
        self.reset(some)
        self.hold(3)

    def stall(self, some):
        for each in some:
            each.stall(*self.chance.choice((("up",), ("down",), ("up", "down"))))
        self.hold(5)

    def vanish(self, some):
        for each in some:
            each.vanish()

    def garbage(self, some):
        for each in some:
            each.garbage(self.chance.choice(("up", "down")))

    def swallow(self, some):
        for each in self.plain:
            for packet, way in self.chance.sample(ANSWERS, 4):
                each.swallow(packet, way, times=2)
        self.hold(1)
        self.reset(self.plain)

    def kill(self, some):
        for each in self.plain:
            packet, way = self.chance.choice((*ANSWERS, ("PUBLISH", "up"), ("PUBLISH", "down")))
            how = self.chance.choice(("rst", "fin"))
            each.kill_on(packet, way, after=self.chance.choice((False, True)), how=how)
        self.hold(1)

    def nip(self, some):
        """End the connections to come while they are being set up."""
        for each in self.plain:
            packet = self.chance.choice(("CONNECT", "CONNACK"))
            each.kill_on(packet, after=self.chance.choice((False, True)), times=2)
        self.reset(self.plain)
        self.hold(0.5)

    def cut(self, some):
        for each in some:
            each.cut(self.chance.randrange(2, 3000), self.chance.choice(("up", "down")))
        self.reset(some)
        self.hold(0.5)

    def crawl(self, some):
        for each in some:
            each.dribble(pause_ms=1)
        self.hold(1)
        self.reset(some)

    def pause(self, some):
        self.broker.pause()
        self.hold(4)
        self.broker.resume()

    def restart(self, some):
        self.broker.restart(down_s=self.chance.uniform(0, 0.5))

    def forget(self, some):
        """The broker comes back without its state, when it owes nothing to the other clients."""
        self.heal()
        self.arrived()
        for each in self.proxies.values():  # the device publishes on, and some of it is in flight
            each.refuse()
            each.rst()
        observer = self.observer
        with Peer(self.broker.port) as peer:
            peer.publish("up/mark", qos=2)
        assert observer.wait_until(lambda: observer.marks), "the observer is cut off"
        observer.close()
        self.broker.restart(wipe=True)
        self.observe()
        self.keep()
        before = self.ready()
        self.heal()
        self.all_ready(before)

    def ready(self):
        """Return how often each client had its subscriptions, {name: int}."""
        return collections.Counter(name for (name,) in self.told("ready"))

    def all_ready(self, before):
        """Return when each client had them once more than `before`."""
        while any(self.ready()[name] == before.get(name, 0) for name in self.waited_for):
            self.app.wait_for("^ready", WAIT_S)

    def rounds(self):
        return sum(map(len, self.took_s.values()))

    # What came of it

    def told(self, word):
        """Return what followed `word` in the lines of the device, each as a list of str."""
        return [line.split()[1:] for line in self.app.lines if line.startswith(word + " ")]

    def end(self):
        """Stop the device; return the figures (dict), with what went wrong as "failures"."""
        self.app.send("stop")
        self.app.wait_for("^left$", WAIT_S)
        result = self.app.wait()
        figures = {"rounds": self.rounds()}
        failures = figures["failures"] = []
        if "Traceback" in result.out + result.err:
            failures.append(result.out[-3000:] + result.err)
        figures["up"] = self.up(failures)
        figures["down"] = self.down(failures)
        self.everyday(failures)
        stats = [json.loads(" ".join(text)) for _, *text in self.told("stats")]
        figures["stats"] = {key: sum(each[key] for each in stats) for key in stats[0]}
        took = [each for every in self.took_s.values() for each in every]
        figures["through_again_s"] = spread(took)
        figures["through_again_s_by_fault"] = {
            name: spread(each) for name, each in sorted(self.took_s.items())
        }
        figures["offline_ms"] = spread([int(ms) for _, ms in self.told("offline")])
        figures["stall_ms"] = max(int(ms) for (ms,) in self.told("stall"))
        weighed = self.told("heap")
        figures["heap"] = heap([int(each[0]) for each in weighed], failures)
        files = [int(each[2]) for each in weighed]
        figures["files"] = {"start": files[0], "end": files[-1], "most": max(files)}
        if files[-1] > files[0]:
            failures.append(f"sockets left open: {files}")
        return figures

    def up(self, failures):
        """Return {QoS: {...}} of what the device published."""
        sent = {(name, int(qos)): int(count) for name, qos, count in self.told("published")}
        unknown = {(name, int(n)) for name, n in self.told("unknown")}
        self.observer.wait_until(
            lambda: all(
                self.found[f"up/{name}/{qos}"].expected == count
                for (name, qos), count in sent.items()
                if qos
            )
        )
        totals = {}
        for (name, qos), count in sent.items():
            seen = self.found[f"up/{name}/{qos}"]
            missing = seen.missing | set(range(seen.expected, count))
            if qos == 2:
                missing = {n for n in missing if (name, n) not in unknown}
            add(totals, qos, sent=count, received=seen.count, lost=len(missing), twice=seen.twice)
            if (qos and (missing or seen.late)) or (qos == 2 and seen.twice):
                failures.append(
                    f"published by {name} at QoS {qos}: lost {sorted(missing)}, "
                    f"{seen.twice} came twice, {seen.late} late"
                )
        totals[2]["unknown"] = len(unknown)
        return totals

    def down(self, failures):
        """Return {QoS: {...}} of what the device received."""
        totals = {}
        for name, qos, *counts in self.told("got"):
            qos = int(qos)
            expected, missing, twice = map(int, counts)
            lost = missing + self.sent - expected
            received = expected - missing + twice
            add(totals, qos, sent=self.sent, received=received, lost=lost, twice=twice)
            if (qos and lost) or (qos == 2 and twice):
                failures.append(f"to {name} at QoS {qos}: {lost} lost, {twice} came twice")
        return totals

    def everyday(self, failures):
        """See to it that what the device does beside went well, too."""
        for n, counts in enumerate(self.told("heard")):
            expected, missing, twice = map(int, counts)
            if missing or expected != self.sent:  # QoS 1 may come twice
                failures.append(f"home/{n}: {missing} missing, {expected} of {self.sent}, {twice}")
        ((came, dropped),) = self.told("retained")
        if int(came) != RETAINED or int(dropped):
            failures.append(f"{came} of {RETAINED} retained messages, {dropped} dropped")


class Browser:
    """Asks the device's web server for its page all the time, from `start` to `stop`."""

    def __init__(self, port):
        self.served = 0
        self.failures = []
        self._url = f"http://127.0.0.1:{port}/"
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self):
        while not self._stopped.wait(0.2):
            try:
                with urllib.request.urlopen(self._url, timeout=30) as answer:
                    int(answer.read())
                self.served += 1
            except (OSError, ValueError) as e:
                self.failures.append(f"the web server: {e!r}")

    def start(self):
        self._thread.start()

    def stop(self):
        if self._thread.is_alive():
            self._stopped.set()
            self._thread.join()


def add(totals, qos, **counts):
    total = totals.setdefault(qos, dict.fromkeys(counts, 0))
    for name, count in counts.items():
        total[name] += count


def spread(values):
    """Return the median, the 99th percentile and the maximum of `values`."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "p50": round(statistics.median(ordered), 2),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 2),
        "max": round(ordered[-1], 2),
    }


def heap(bytes_, failures):
    """Return what became of the heap; the trend is from the middle third to the last."""
    third = len(bytes_) // 3
    trend = statistics.median(bytes_[2 * third :]) - statistics.median(bytes_[third : 2 * third])
    if trend > 4000:
        failures.append(f"the heap grew: {bytes_}")
    return {"start": bytes_[0], "end": bytes_[-1], "most": max(bytes_), "trend": int(trend)}


FAULTS = (
    *("reset", "finish", "refuse", "blackhole", "stall", "vanish", "garbage", "swallow"),
    *("kill", "nip", "cut", "crawl", "pause", "restart", "forget"),
)


def run(directory, seconds, seed, rate=5, hurry=False, verbose=False, say=print):
    """
    Let it rain for `seconds`, every fault once and then by chance; return the figures (dict).

    directory  Path of an empty folder
    rate       messages a second that each client publishes at each QoS
    hurry      reconnect without back-off, no pause between outages
    verbose    keep the log of the clients, to be shown with a failure
    say        a function that takes a line of progress

    Raises AssertionError with all output when messages stop coming through.
    """
    chance = random.Random(seed)
    pki = PKI(directory)
    lines = ["log_type none", "set_tcp_nodelay true", "max_queued_messages 0"]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(
            Broker(directory / "broker", "tcp", "mtls", pki=pki, persistence=True, lines=lines)
        )
        proxies = {
            name: stack.enter_context(FaultProxy(broker.ports[kind], kind == "tcp"))
            for name, _, kind in (*CLIENTS, *EVERYDAY)
        }
        web = ports.free_port()
        given = {
            "clients": [
                [name, protocol, proxies[name].port, kind == "mtls"]
                for name, protocol, kind in CLIENTS
            ],
            "everyday": {
                name: [protocol, proxies[name].port, kind == "mtls"]
                for name, protocol, kind in EVERYDAY
            },
            "web": web,
            "rate": rate,
            "burst": BURST,
            "hurry": hurry,
            "verbose": verbose,
        }
        storm = Storm(chance, broker, proxies, hurry)
        stack.callback(lambda: storm.observer.close())
        tls = secure.files(pki.ca, pki.device)
        storm.app = stack.enter_context(
            secure.start(APP, broker.port, tls, env={"SOAK": json.dumps(given)})
        )
        storm.app.wait_for("^heap")
        storm.all_ready({})
        browser = Browser(web)
        # mosquitto saves no session whose last connect was a clean start, as with MQTT 5 the first
        before = storm.ready()
        storm.reset(proxies.values())
        storm.all_ready(before)
        browser.start()
        stack.callback(browser.stop)
        faults = chance.sample(FAULTS, len(FAULTS))
        start = reported = time.monotonic()
        while faults or time.monotonic() < start + seconds:
            storm.round(faults.pop() if faults else chance.choice(FAULTS))
            if time.monotonic() > reported + 60:
                reported = time.monotonic()
                minutes = (reported - start) / 60
                say(f"{minutes:.0f} min: {storm.rounds()} outages")
        browser.stop()
        figures = {"seed": seed, "seconds": round(time.monotonic() - start), **storm.end()}
        figures["pages"] = browser.served
        figures["failures"] += browser.failures
        if not browser.served:
            figures["failures"].append("the web server served nothing")
        return figures


def show(figures):
    """Print the figures (dict) for people."""
    print(f"{figures['rounds']} outages in {figures['seconds'] / 60:.0f} min", end=", ")
    print(f"{figures['offline_ms']['count']} reconnects, seed {figures['seed']}")
    print("             sent  received  lost  twice")
    for way, name in (("up", "from"), ("down", "to")):
        for qos, each in figures[way].items():
            print(f"{name:>4} QoS {qos} {each['sent']:8,} {each['received']:9,}", end=" ")
            print(f"{each['lost']:5,} {each['twice']:6,}", end="")
            print(f"  {each['unknown']} unknown" if each.get("unknown") else "")
    for name, what, unit in (
        ("through_again_s", "end of an outage to messages through, all clients", "s"),
        ("offline_ms", "loss noticed to connected again", "ms"),
    ):
        each = figures[name]
        print(f"{what}: p50 {each['p50']}, p99 {each['p99']}, max {each['max']} {unit}")
    for name, each in figures["through_again_s_by_fault"].items():
        print(f"    {name:10} {each['count']:5} p50 {each['p50']:6} max {each['max']:6} s")
    for name in ("stats", "heap", "files"):
        print(f"{name}:", ", ".join(f"{key} {value:,}" for key, value in figures[name].items()))
    print(f"pages served: {figures['pages']:,}")
    print(f"longest stall of another task: {figures['stall_ms']} ms")
    for each in figures["failures"]:
        print("FAILED:", each)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="./dev bench soak", description=__doc__.splitlines()[1])
    parser.add_argument("--minutes", type=float, default=10, help="(default: 10)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument(
        "--rate",
        type=float,
        default=5,
        metavar="N",
        help="messages a second that each client publishes at each QoS (default: 5)",
    )
    parser.add_argument("--hurry", action="store_true", help="no back-off, no pauses")
    parser.add_argument("--verbose", action="store_true", help="with a failure, show the log")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    print("seed", options.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix="mqtt-soak-") as folder:
        figures = run(
            Path(folder),
            options.minutes * 60,
            options.seed,
            rate=options.rate,
            hurry=options.hurry,
            verbose=options.verbose,
            say=lambda line: print(line, flush=True),
        )
    if figures["stall_ms"] > STALL_MS:
        figures["failures"].append(f"another task stood still for {figures['stall_ms']} ms")
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
