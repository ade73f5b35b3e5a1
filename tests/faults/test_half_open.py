"""
Connections that die without a word, in a real network: packets that vanish, links that go down,
addresses that change, a router that forgets.

Four clients share each fault: two over TCP and two over mutual TLS, of each pair one busy in both
directions and one that only listens. The busy ones send 1,000 bytes a message.
"""

import contextlib
import json
from types import SimpleNamespace

import pytest

from tests.support import netns, secure, udp
from tests.support.broker import Broker
from tests.support.secure import files

# name, listener
CLIENTS = (("tcp", "tcp"), ("tcp-idle", "tcp"), ("tls", "mtls"), ("tls-idle", "mtls"))
ALL = {"tcp", "tcp-idle", "tls", "tls-idle"}
BUSY = {"tcp", "tls"}
BURST = 5  # messages to each client of QoS 1, and of QoS 2, before, during and after the fault

APP = """
import json
import os
from tests.device.links import Cable
from tests.device.watch import slowest

given = json.loads(os.getenv("HALF_OPEN"))
run = given["run"]
clients = {}
got = {}
stopping = False

def prepare(name, protocol, port, tls):
    def log(line):
        print("log", name, line)

    clients[name] = client = MQTTClient(
        "broker.lan", port, link=Cable([given["dns"]]), tls=tls_given() if tls else None,
        log=log, protocol=protocol, client_id=run + name, keepalive_s=1, ack_timeout_s=1,
        connect_timeout_s=2,
    )
    for qos in (1, 2):
        listen(client, qos, got.setdefault((name, qos), []))

def listen(client, qos, numbers):
    @client.on("%s/down/%d" % (run, qos), qos=qos)
    def handle(message):
        numbers.append(int(message.payload))

async def publisher(name, qos):
    n = 0
    while not stopping:
        payload = "%d %1000s" % (n, "")
        await clients[name].publish("%s/up/%s/%d" % (run, name, qos), payload, qos=qos)
        n += 1
        await asyncio.sleep_ms(40)
    print("published", name, qos, n)

async def main():
    global stopping
    soonest()
    asyncio.create_task(slowest())
    for each in given["clients"]:
        prepare(*each)
    files = open_files()
    for client in clients.values():
        await client.__aenter__()
    tasks = [
        asyncio.create_task(publisher(name, qos)) for name in given["busy"] for qos in (1, 2)
    ]
    await told("stop")
    stopping = True
    await asyncio.gather(*tasks)
    for (name, qos), numbers in got.items():
        await until(lambda: len(set(numbers)) == given["total"])
        print("got", name, qos, json.dumps(numbers))
    print("sockets", open_files() - files)
    for client in clients.values():
        await client.__aexit__(None, None, None)
    print("left", open_files() - files)
"""


@pytest.fixture(scope="module")
def lab(pki, tmp_path_factory):
    """The network, a broker at one end, and a DNS server on the device itself."""
    try:
        network = netns.Network()
    except netns.Unavailable as reason:
        pytest.skip(str(reason))
    with contextlib.ExitStack() as stack:
        stack.enter_context(network)
        with network.device.inside():
            dns = stack.enter_context(udp.DNS({}))
        with network.broker.inside():
            folder = tmp_path_factory.mktemp("broker")
            broker = Broker(folder, "tcp", "mtls", pki=pki, persistence=True)
            stack.enter_context(broker)
            broker.stop()
            broker.host = "0.0.0.0"
            broker.start()
        yield SimpleNamespace(network=network, dns=dns, broker=broker, pki=pki)


class Run:
    """A device with its clients, and one beside the broker that talks with them."""

    def __init__(self, lab, name):
        self.app = self.peer = None
        self.network = lab.network
        self.dns = lab.dns
        self.broker = lab.broker
        self.name = name
        self.sent = 0
        lab.dns.table["broker.lan"] = netns.BROKER
        with self.network.broker.inside():
            self.peer = lab.broker.peer(f"{name}/up/#", qos=2)
        swap = len(name) % 2  # either protocol over either transport
        given = {
            "run": name,
            "dns": [lab.dns.host, lab.dns.port],
            "clients": [
                [each, 4 + ((kind == "tcp") ^ swap), lab.broker.ports[kind], kind == "mtls"]
                for each, kind in CLIENTS
            ],
            "busy": sorted(BUSY),
            "total": 3 * BURST,
        }
        with self.network.device.inside():
            self.app = secure.start(
                APP,
                lab.broker.port,
                files(lab.pki.ca, lab.pki.device),
                env={"HALF_OPEN": json.dumps(given)},
            )

    def close(self):
        self.app.kill()
        self.peer.close()
        self.network.repair()

    def told_by(self, names, text, times=1):
        """Return when each of the clients `names` has logged `times` lines with `text`."""
        for name in names:
            start = f"log {name} "
            while sum(each.startswith(start) and text in each for each in self.app.lines) < times:
                self.app.wait_for("")

    def burst(self):
        for _ in range(BURST):
            for qos in (1, 2):
                self.peer.publish(f"{self.name}/down/{qos}", str(self.sent), qos)
            self.sent += 1

    def comes_through(self, fault, *arguments, noticed_by=ALL, heal=True):
        """
        Have `fault` happen in the middle of everything, and demand what the app is promised.

        heal  the fault passes once it was noticed; else the clients have to live with it
        """
        self.told_by(ALL, "connected in")
        for name in ALL:  # and they have subscribed
            self.broker.wait_for_log(f"Sending SUBACK to {self.name}{name}")
        self.burst()
        fault(*arguments)
        self.burst()
        self.told_by(noticed_by, "connection lost")
        if heal:
            self.network.repair()
        self.told_by(noticed_by, "connected in", 2)
        self.burst()
        self.judge()

    def judge(self):
        self.app.send("stop")
        published = {}
        for _ in range(2 * len(BUSY)):
            _, name, qos, count = self.app.wait_for("^published").split()
            published[name, int(qos)] = list(range(int(count)))
        for _ in range(2 * len(ALL)):
            _, name, qos, numbers = self.app.wait_for("^got").split(maxsplit=3)
            again = self.broker.published_again(self.name + name)
            order = self.broker.publishes(self.name + name, int(qos))
            complete(int(qos), json.loads(numbers), list(range(self.sent)), again, order)
        assert self.app.wait_for("^sockets").split()[1] == str(len(ALL))
        assert self.app.wait_for("^left").split()[1] == "0"
        result = self.app.wait()
        assert "Traceback" not in result.out + result.err, result
        stall_ms = max(int(line.split()[1]) for line in self.app.lines if line.startswith("stall"))
        assert stall_ms < 1000, result.out  # nothing of the network is waited for
        for (name, qos), numbers in published.items():
            topic = f"{self.name}/up/{name}/{qos}"
            self.peer.wait_for(len(numbers), topic)
            seen = [int(payload.split()[0]) for t, payload in self.peer.received if t == topic]
            complete(qos, seen, numbers)


def complete(qos, seen, sent, again=0, order=None):
    """
    Nothing is lost, everything in order, and with QoS 2 nothing twice but what the broker
    published `again` (int, messages) though it must not.

    order  what was sent on each connection (list of lists), where that is not the order of `sent`:
           mosquitto may send 22 before 20 on a new connection
    """
    first = list(dict.fromkeys(seen))
    assert sorted(first) == sent
    assert first == arrived(first, order or [sent]), (seen, order)
    assert qos < 2 or len(seen) <= len(sent) + again, (seen, again)


def arrived(first, order):
    """
    Return the beginning of `first` (list without repetitions) that can have come so: a connection
    brings what is sent on it in that order, up to where it breaks.
    """
    n = 0
    for connection in order:
        for each in connection:
            if each not in first[:n]:
                if n == len(first) or each != first[n]:
                    break
                n += 1
    return first[:n]


def test_a_loss_another_order_and_a_repetition_are_seen():
    complete(1, [0, 1, 0, 2], [0, 1, 2])
    complete(2, [0, 1, 0, 2], [0, 1, 2], again=1)
    complete(1, [0, 2, 1, 2], [0, 1, 2], order=[[0, 1, 2], [2, 1]])
    complete(1, [0, 1, 2], [0, 1, 2], order=[[0], [0, 1, 2], [2, 1]])
    for qos, seen, again, order in (
        (1, [0, 2], 0, None),
        (1, [0, 2, 1], 0, None),
        (2, [0, 2], 1, None),
        (2, [0, 1, 0, 2], 0, None),
        (2, [0, 1, 0, 2, 0], 1, None),
        (1, [0, 2, 1], 0, [[0, 1, 2], [1, 2]]),
        (1, [0, 2, 1], 0, [[0, 1, 2]]),
        (1, [0, 1, 2], 0, [[0, 1], [0, 1]]),
        (1, [1, 0, 2], 0, [[0, 1, 2], [2, 1]]),
        (1, [0, 2], 0, [[0, 1, 2], [2, 1]]),
    ):
        with pytest.raises(AssertionError):
            complete(qos, seen, [0, 1, 2], again, order)


@pytest.fixture
def device(lab, request):
    run = Run(lab, request.node.name)
    yield run
    run.close()


@pytest.mark.parametrize("rule", ["drop", "iifname near drop", "iifname far drop"])
def test_a_wire_that_swallows_packets_is_noticed_from_what_does_not_come(device, rule):
    device.comes_through(device.network.filter, rule)


@pytest.mark.parametrize("with_", ["tcp reset", "icmp type host-unreachable"])
def test_a_firewall_that_comes_up_and_goes_away(device, with_):
    device.comes_through(device.network.filter, f"meta l4proto tcp reject with {with_}")


@pytest.mark.parametrize("end", ["device", "broker"])
def test_a_link_that_goes_down_at_an_end(device, end):
    device.comes_through(device.network.unplug, getattr(device.network, end))


@pytest.mark.parametrize("wire", ["near", "far"])
def test_a_link_that_goes_down_at_the_router(device, wire):
    device.comes_through(device.network.unplug_router, wire)


def test_a_broker_that_moves_to_another_address_is_found_there(device):
    def move():
        device.network.readdress(device.network.broker, netns.BROKER_LATER)
        device.dns.table["broker.lan"] = netns.BROKER_LATER

    device.comes_through(move, heal=False)


def test_a_device_that_gets_another_address_connects_from_it(device):
    network = device.network
    device.comes_through(network.readdress, network.device, netns.DEVICE_LATER, heal=False)


def test_a_router_that_forgets_its_connections_costs_a_reconnect(device):
    device.comes_through(device.network.forget, heal=False)


def test_a_path_that_drops_large_packets_stops_only_those_who_send_them(device):
    device.comes_through(device.network.filter, "meta length > 600 drop", noticed_by=BUSY)


def test_a_lossy_path_costs_no_message(device):
    def lose():
        device.network.filter("numgen random mod 100 < 5 drop")
        device.peer.wait_for(150)

    device.comes_through(lose, noticed_by=(), heal=False)
