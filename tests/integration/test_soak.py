"""
A minute of random outages with QoS 1 both ways: nothing is lost, nothing is left open, the heap
does not grow.

    SOAK_SEED   repeats a run (a failure names its seed)
    SOAK_S      seconds, 60 unless given
"""

import contextlib
import os
import random
import time

import pytest

from tests.support import apps
from tests.support.broker import Broker, Peer
from tests.support.proxy import Proxy

SECONDS = float(os.environ.get("SOAK_S", "60"))
BURST = 12  # messages to the device in every round
NAMES = ("a", "b", "c")  # publishers on the device

APP = """
import random

got = bytearray(8000)
order = [0]
stopping = False

async def publisher(client, name):
    n = 0
    while not stopping:
        await client.publish("up/" + name, str(n), qos=1)
        n += 1
        await asyncio.sleep_ms(random.randrange(40))
    print("published", name, n)

async def report():
    while True:
        await asyncio.sleep(1)
        gc.collect()
        print("heap", gc.mem_alloc())

async def main():
    global stopping
    soonest()
    client = make(keepalive_s=1, ack_timeout_s=2, connect_timeout_s=1, max_backlog=5000)

    @client.on("down", qos=1)
    async def handler(message):
        await asyncio.sleep_ms(random.randrange(4))
        n = int(message.payload)
        got[n] += 1
        if got[n] == 1:
            if n != order[0]:
                print("OUT OF ORDER", n, "instead of", order[0])
            order[0] += 1
            if order[0] % 12 == 0:
                print("handled", order[0])

    async with client, Ticker() as ticker:
        asyncio.create_task(report())
        tasks = [asyncio.create_task(publisher(client, name)) for name in "abc"]
        await told("stop")
        stopping = True
        await asyncio.gather(*tasks)
        stats = client.stats
        print("connects", stats.connects, "resent", stats.resent, "duplicates", stats.duplicates)
        print("ticks", ticker.ticks)
        await told("leave")
    print("left")
"""


class Storm:
    """Faults, one at a time, and the two real clients on the other side of the broker."""

    def __init__(self, chance, broker, proxy, app):
        self.chance = chance
        self.broker = broker
        self.proxy = proxy
        self.app = app
        self.sent = 0
        self.seen = {name: [] for name in NAMES}
        self.observer = None
        self.observe()

    def observe(self):
        self.marks = 0
        self.observer = self.broker.peer("up/#", client_id="observer", clean=False)

    def gather(self):
        """Return {name: numbers} of all that came from the device and is in the broker."""
        with Peer(self.broker.port) as peer:
            peer.publish("up/mark", str(self.sent))
        self.marks += 1
        self.observer.wait_for(self.marks, "up/mark")
        found = {name: list(numbers) for name, numbers in self.seen.items()}
        for topic, payload in self.observer.received:
            if topic != "up/mark":
                found[topic[-1]].append(int(payload))
        return found

    def send(self, count):
        """Send `count` messages to the device."""
        with Peer(self.broker.port) as peer:
            for _ in range(count):
                peer.publish("down", str(self.sent))
                self.sent += 1

    def hold(self, longest):
        time.sleep(self.chance.uniform(0.05, longest))

    def round(self, fault):
        """A burst to the device with a fault in its middle; return when it has come through."""
        self.send(BURST // 3)
        getattr(self, fault)()
        if self.broker.running:
            self.send(BURST - self.sent % BURST)
        self.proxy.heal()
        self.app.wait_for(f"^handled {self.sent}$", 40)

    # The faults

    def reset(self):
        self.proxy.rst()

    def finish(self):
        self.proxy.fin()

    def refuse(self):
        self.proxy.refuse()
        self.proxy.rst()
        self.hold(0.7)

    def stall(self):
        self.proxy.stall(*self.chance.choice((("up",), ("down",), ("up", "down"))))
        self.hold(2.5)

    def swallow(self):
        self.proxy.swallow("PUBACK", self.chance.choice(("up", "down")), times=2)
        self.hold(0.5)
        self.proxy.rst()

    def kill(self):
        name = self.chance.choice(("PUBLISH", "PUBACK", "CONNACK", "SUBSCRIBE"))
        how = self.chance.choice(("rst", "fin"))
        self.proxy.kill_on(name, after=self.chance.choice((False, True)), how=how)
        if name in ("CONNACK", "SUBSCRIBE"):
            self.proxy.rst()
        self.hold(0.5)

    def cut(self):
        way = self.chance.choice(("up", "down"))
        self.proxy.cut(self.chance.randrange(2, 400), way)
        self.proxy.rst()
        self.hold(0.5)

    def crawl(self):
        self.proxy.dribble(pause_ms=1)
        self.hold(1)
        self.proxy.rst()

    def pause(self):
        self.broker.pause()
        self.hold(2)
        self.broker.resume()

    def restart(self):
        self.broker.restart(down_s=self.chance.uniform(0, 0.5))

    def forget(self):
        """The broker comes back without its state, when it owes nothing to the other clients."""
        self.proxy.heal()
        self.send(BURST - self.sent % BURST)
        self.app.wait_for(f"^handled {self.sent}$", 40)
        self.proxy.refuse()  # the device publishes on, and some of it is in flight
        self.proxy.rst()
        self.seen = self.gather()
        self.observer.close()
        count = len(self.proxy.seen("SUBACK"))
        self.broker.restart(wipe=True)
        self.observe()
        self.proxy.heal()
        self.proxy.wait_for("SUBACK", count=count + 1)


FAULTS = (
    "reset",
    "finish",
    "refuse",
    "stall",
    "swallow",
    "kill",
    "cut",
    "crawl",
    "pause",
    "restart",
    "forget",
)


def open_files(app):
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir(f"/proc/{app.pid}/fd"))
    return 0


@pytest.mark.timeout(SECONDS + 180)
def test_a_minute_of_outages_loses_nothing_and_leaks_nothing(tmp_path):
    seed = int(os.environ.get("SOAK_SEED", random.randrange(1_000_000)))
    print("SOAK_SEED", seed)
    chance = random.Random(seed)
    with Broker(tmp_path, persistence=True) as broker, Proxy(broker.port) as proxy:
        proxy.refuse()
        with apps.start(APP, proxy.port) as app:
            storm = Storm(chance, broker, proxy, app)
            proxy.heal()
            proxy.wait_for("SUBACK", "down")
            files = [open_files(app)]
            # every fault once, in any order, then by chance
            faults = chance.sample(FAULTS, len(FAULTS))
            end = time.monotonic() + SECONDS
            rounds = 0
            while time.monotonic() < end:
                storm.round(faults.pop() if faults else chance.choice(FAULTS))
                files.append(open_files(app))
                rounds += 1
            app.send("stop")
            published = {}
            for _ in NAMES:
                _, name, count = app.wait_for("^published", 40).split()
                published[name] = int(count)
            figures = app.wait_for("^connects")
            ticks = int(app.wait_for("^ticks").split()[1])
            app.send("leave")
            app.wait_for("^left$")
            result = app.wait()
        found = storm.gather()
    heap = [int(line.split()[1]) for line in result.out.splitlines() if line.startswith("heap")]
    print(rounds, "rounds,", storm.sent, "to the device,", published, "from it;", figures)
    print("heap", heap)
    print("open files", sorted(set(files)))
    for name in NAMES:  # in order, however often
        missing = sorted(set(range(published[name])) - set(found[name]))
        assert not missing, (seed, name, missing)
        assert list(dict.fromkeys(found[name])) == list(range(published[name])), (seed, name)
    assert "OUT OF ORDER" not in result.out, (seed, result.out)
    assert "Traceback" not in result.out + result.err, (seed, result.out, result.err)
    assert max(files) <= files[0], (seed, files)
    assert ticks > 20 * SECONDS, (seed, ticks)  # of 200 a second
    third = len(heap) // 3
    before, after = heap[third : 2 * third], heap[2 * third :]
    assert min(after) < min(before) + 1000, (seed, heap)
