"""
A broker that floods its client with packets of one kind: the event loop goes on, the heap does not
grow, the log stays short, and the client works afterwards, on this connection or on the next.
"""

import contextlib
import threading

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker

COUNT = 3000


def packet_id(n):
    return (1 + n % 65535).to_bytes(2, "big")


def numbered(first):
    return lambda n, v5: bytes((first, 2)) + packet_id(n)


def publish(qos, topic=lambda n: b"t", payload=b"x" * 20, flags=0):
    def one(n, v5):
        name = topic(n)
        body = len(name).to_bytes(2, "big") + name
        body += packet_id(n) if qos else b""
        body += b"\0" * v5 + payload
        return five.packet(0x30 | qos << 1 | flags, body)

    return one


def suback(n, v5):
    return five.packet(0x90, packet_id(n) + b"\0" * v5 + b"\0")


def connack(n, v5):
    return five.connack() if v5 else b"\x20\2\0\0"


def properties(n, v5):
    said = [five.user("k" * 10, f"{n}") for _ in range(30)]
    return five.publish("t", b"x", *said) if v5 else publish(0, flags=1)(n, v5)


# name: function of the number of the packet and whether it is MQTT 5
FLOODS = {
    "QoS 0": publish(0),
    "QoS 1": publish(1),
    "QoS 2 without PUBREL": publish(2),
    "QoS 2 with one id": lambda n, v5: publish(2, flags=8)(7, v5),
    "topics that nobody wants": publish(0, lambda n: b"other/%d" % n, flags=1),
    "large ones": lambda n, v5: publish(0, lambda n: b"t/%d" % n, b"x" * 5000)(n, v5)
    if n < 300
    else b"",
    "properties": properties,
    "PUBREL": numbered(0x62),
    "PUBACK": numbered(0x40),
    "PUBREC": numbered(0x50),
    "PUBCOMP": numbered(0x70),
    "SUBACK": suback,
    "PINGRESP": lambda n, v5: b"\xd0\0",
    "CONNACK": connack,
}
PROGRAM = """
got = []

@client.on("t/#", 2)
def handler(message):
    got.append(1)
    if len(got) % 100 == 0:
        got.clear()

lines = []
async with Ticker() as ticker:
    async with client:
        await until(lambda: granted(client, "t/#") is not None)
        gc.collect()
        before = gc.mem_alloc()
        print("ready")
        await told("flooded")
        ticks = ticker.ticks
        # it works still
        await client.publish("alive", "x", qos=1)
        await asyncio.sleep_ms(50)
        gc.collect()
        print("grew", gc.mem_alloc() - before)
        print("ticked", ticker.ticks > ticks)
        await told("leave")
"""


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_stops_nothing_and_leaves_nothing_behind(name, protocol):
    flooded = threading.Event()
    begin = threading.Event()

    def script(connection):
        v5 = protocol == 5
        connection.accept(five.connack() if v5 else b"\x20\2\0\0")
        first = not flooded.is_set()

        def flood():
            begin.wait(30)
            with contextlib.suppress(OSError):
                for at in range(0, COUNT, 50):
                    connection.send(b"".join(FLOODS[name](n, v5) for n in range(at, at + 50)))
            flooded.set()

        while True:
            kind, body = connection.packet()
            if kind == 0x82:
                connection.send(five.packet(0x90, body[:2] + b"\0" * v5 + b"\2"))
                if first:
                    first = False
                    threading.Thread(target=flood, daemon=True).start()
            elif kind >> 4 == 3 and kind & 6:
                size = int.from_bytes(body[:2], "big")
                connection.send(b"\x40\2" + body[2 + size : 4 + size])
            elif kind == 0xC0:
                connection.send(b"\xd0\0")

    with (
        FakeBroker(script) as fake,
        Device(fake, PROGRAM, protocol=protocol, heap="600K", max_backlog=8192) as device,
    ):
        device.wait_for("ready")
        begin.set()
        assert flooded.wait(60)
        device.send("flooded")
        grew = int(device.wait_for("^grew", 60).split()[1])
        device.wait_for("ticked True")
        device.leave()
    log = [line for line in device.lines if line.startswith("mqtt ")]
    assert len(log) < 60, device.report()
    assert max(map(len, log)) <= 600
    # modules that were loaded on the way, and 256 ids of QoS 2 messages without PUBREL
    assert grew < 40_000, grew
