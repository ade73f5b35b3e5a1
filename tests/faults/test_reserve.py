"""
An app that takes all the memory there is, in whatever way, is connected again once the broker is
back: the memory of the next handshake is held for it.

The interpreter is the 32-bit one, whose TLS takes its memory from the heap as on a Pico W.
"""

import random

import pytest

from tests.support import secure
from tests.support.broker import Broker
from tests.support.secure import files

# the first test may have to build the interpreter
pytestmark = pytest.mark.timeout(300)

# Chains, as holding things takes no list that grows. Some of the smallest holes are spared, for
# what an app does itself.
APP = """
import random

import tests.device.hunger

kept = {}

def crumbs():
    chain = None
    for _ in range(20):
        chain = (chain, bytearray(16))
    return chain

def fill(name, *sizes):
    "Take all memory there is in pieces of `sizes` bytes, one size after the other."
    spare = crumbs()
    for size in sizes:
        try:
            while True:
                kept[name] = kept[name], bytearray(size)
        except MemoryError:
            pass
    spare = None
    gc.collect()

def shatter(name, size):
    "Take all memory and give back every second piece."
    spare = crumbs()
    chain = None
    try:
        while True:
            chain = chain, bytearray(size), bytearray(size)
    except MemoryError:
        pass
    spare = None
    try:
        while chain:
            kept[name] = kept[name], chain[1]
            chain = chain[0]
    except MemoryError:
        pass
    gc.collect()

def grow(name):
    spare = crumbs()
    table = kept[name] = {}
    try:
        while True:
            table[len(table)] = bytes(random.randrange(60))
    except MemoryError:
        pass

async def hungry(name, ms):
    "Fill the memory again and again, and keep it."
    while True:
        fill(name, 4000, 500, 100, 16)
        await asyncio.sleep_ms(ms)

async def greedy(name):
    "Fill it, and give all back."
    while True:
        fill(name, 8000, 500, 16)
        await asyncio.sleep_ms(15)
        kept[name] = None

async def churn(name):
    slots = [None] * 400
    while True:
        for _ in range(20):
            try:
                i = random.randrange(400)
                slots[i] = None
                slots[i] = bytearray(random.choice((8, 40, 100, 400, 1000, 3000)))
            except MemoryError:
                pass
        await asyncio.sleep_ms(7)

def enqueue(client):
    try:
        while client.enqueue("t/v", "12.3", qos=1):
            pass
    except MemoryError:
        pass

async def publishes(client):
    while True:
        try:
            task = client.publish("t/v", "12.3", qos=1)
            asyncio.create_task(task)
        except Exception:  # no memory, or too many that wait
            pass
        await asyncio.sleep_ms(10)

async def swings(client):
    "Take all there is the moment it is connected, and give it back once it is not."
    while True:
        while not client.connected:
            await asyncio.sleep_ms(0)
        fill("swings", 8000, 500, 16)
        while client.connected:
            await asyncio.sleep_ms(1)
        kept["swings"] = None

async def wait(name, ms):
    await asyncio.sleep_ms(ms)

def prepared(client, what):
    "Return what is to be called: all that can is made before memory is short."
    name, *numbers = what.split()
    kept[what] = None
    function = globals()[name]
    arguments = [client] if name in ("enqueue", "publishes", "swings") else [what]
    arguments += [int(n) for n in numbers]
    made = None
    if name in ("hungry", "greedy", "churn", "publishes", "swings", "wait"):
        made = function(*arguments)

    def act():
        try:
            if name == "wait":
                return made
            if made:
                asyncio.create_task(made)
            else:
                function(*arguments)
        except MemoryError:
            pass

    return act

async def main():
    random.seed(SEED)
    asyncio.get_event_loop().set_exception_handler(lambda loop, context: None)
    client = make(tls=tls_given(), host="localhost", protocol=PROTOCOL, client_id="hungry")
    online, offline = [[prepared(client, what) for what in part] for part in (ONLINE, OFFLINE)]
    async with client:
        await client.wait_connected()
        for act in online:
            made = act()
            if made:
                await made
        print("ready")
        while client.connected:
            await asyncio.sleep_ms(50)
        for act in offline:
            made = act()
            if made:
                await made
        print("offline")
        last = client.error
        while not client.connected and client.error is last:
            await asyncio.sleep_ms(50)
        print("tried")
        since = 0  # connected for a moment is not back
        while since < 10:
            await asyncio.sleep_ms(50)
            since = client.connected and since + 1
        print("back")
        while True:
            await asyncio.sleep_ms(50)
"""


@pytest.fixture(scope="module")
def stopping(tmp_path_factory, pki):
    with Broker(tmp_path_factory.mktemp("broker"), "mtls", pki=pki) as running:
        yield running


def comes_back(broker, pki, online, offline, protocol=4, seed=0, device="device"):
    """Run the app; check that it is back within a minute after the broker."""
    app = APP
    for name, value in (
        ("SEED", seed),
        ("ONLINE", online),
        ("OFFLINE", offline),
        ("PROTOCOL", protocol),
    ):
        app = app.replace(name, repr(value))
    outlives(broker, pki, app, 190, device, "^tried")


def outlives(broker, pki, app, heap_kb, device, *marks):
    """Run `app` through an outage, which lasts until its lines `marks`; it prints "back"."""
    given = files(pki.ca, getattr(pki, device))
    with secure.start(app, broker.ports["mtls"], given, heap=f"{heap_kb}K") as app:
        app.wait_for("^ready")
        broker.stop()
        try:
            for mark in ("^offline", *marks):
                app.wait_for(mark)
            broker.start()
            app.wait_for("^back", 60)
        finally:
            if not broker.running:
                broker.start()


ALL = "fill 30000 8000 2000 500 100 32 16"
PATTERNS = {
    "takes all at once": ([], [ALL]),
    "had taken all": ([ALL], []),
    "takes all a while later": ([], ["wait 1500", ALL]),
    "took the small pieces first": ([], ["fill 32", "fill 64", "fill 16"]),
    "leaves every second of 2000 bytes": ([], ["shatter 2000"]),
    "leaves every second of 300 bytes": ([], ["shatter 300"]),
    "left every second of 15000 bytes": (["shatter 15000", "fill 500"], []),
    "a dict that grows": ([], ["grow"]),
    "takes all that it can get, ever again": ([], ["hungry 20"]),
    "takes and gives back": ([], ["greedy"]),
    "churns": ([], ["churn"]),
    "enqueues till it is full": ([], ["enqueue", ALL]),
    "a task for each publish": ([], ["publishes", ALL]),
    "has a use for all while it is connected": ([], ["swings"]),
    # random ones that were offline for ever
    "what is freed goes to publishes": (["publishes", "grow"], ["shatter 4000"]),
    "what is freed goes to whatever waits": (
        [],
        ["hungry 300", "publishes", "enqueue", "publishes"],
    ),
    "a heap that was full when it was online": (["hungry 300", "publishes"], ["publishes"]),
    "full and hungry at that": (["churn", "hungry 20"], ["fill 5000", "fill 700", "churn"]),
    "gives back, others take": (["enqueue", "greedy"], ["publishes"]),
    "gives back and takes while others publish": (["publishes", "grow"], ["churn", "greedy"]),
    "ever less is left": (["publishes", "greedy"], ["shatter 4000", "hungry 20", "enqueue"]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_whatever_an_app_does_with_memory_it_is_back_with_the_broker(
    on_pico, stopping, pki, pattern
):
    online, offline = PATTERNS[pattern]
    comes_back(stopping, pki, online, offline, protocol=4 + (len(pattern) & 1))


def test_a_key_of_rsa_has_what_it_needs_more(on_pico, stopping, pki):
    comes_back(stopping, pki, [], [ALL], device="device_rsa")


TWO = """
def connected(clients):
    n = 0
    for client in clients:
        n += client.connected
    return n

async def main():
    asyncio.get_event_loop().set_exception_handler(lambda loop, context: None)
    clients = [
        make(tls=tls_given(), host="localhost", protocol=4 + n % 2, client_id="hungry%d" % n)
        for n in range(COUNT)
    ]
    kept["all"] = None
    for client in clients:
        await client.__aenter__()
    for client in clients:
        await client.wait_connected()
    if EARLY:
        fill("all", 30000, 8000, 2000, 500, 100, 32, 16)
    print("ready")
    while connected(clients):
        await asyncio.sleep_ms(50)
    if not EARLY:
        await asyncio.sleep_ms(300)
        fill("all", 30000, 8000, 2000, 500, 100, 32, 16)
    print("offline")
    while connected(clients) < COUNT:
        await asyncio.sleep_ms(50)
    print("back")
    while True:
        await asyncio.sleep_ms(50)
"""


@pytest.mark.parametrize(("count", "early"), [(2, False), (2, True), (3, False)])
@pytest.mark.parametrize("device", ["device", "device_rsa"])
def test_all_clients_of_a_full_heap_are_back_with_the_broker(
    on_pico, stopping, pki, count, early, device
):
    """What stays with the connection of one is no longer there for the handshake of the next."""
    app = APP[: APP.index("async def main")] + TWO
    app = app.replace("COUNT", str(count)).replace("EARLY", str(early))
    outlives(stopping, pki, app, 110 + 75 * count, device)


@pytest.mark.parametrize("turn", range(6))
def test_any_sequence_of_such_patterns_ends_connected(on_pico, stopping, pki, turn):
    seed = random.randrange(1_000_000)
    print("seed", seed)
    chance = random.Random(seed)
    kinds = (
        lambda: f"fill {chance.choice((16, 100, 700, 5000, 30000))}",
        lambda: f"shatter {chance.choice((100, 1000, 4000, 17000))}",
        lambda: "grow",
        lambda: f"hungry {chance.choice((20, 300))}",
        lambda: "greedy",
        lambda: "churn",
        lambda: "enqueue",
        lambda: "publishes",
        lambda: "swings",
        lambda: f"wait {chance.choice((5, 100, 700))}",
    )
    online = [chance.choice(kinds)() for _ in range(chance.randrange(3))]
    offline = [chance.choice(kinds)() for _ in range(chance.randrange(1, 5))]
    print(online, offline)
    comes_back(stopping, pki, online, offline, chance.choice((4, 5)), seed)
