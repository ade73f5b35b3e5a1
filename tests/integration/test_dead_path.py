"""
A path that dies without a word while the app goes on to publish: no more is written than
MicroPython's lwIP has room for, as it would wait for more within the write, and all tasks with it.
"""

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.fake_broker import CONNACK
from tests.support.five import field
from tests.support.secure import files

BOTH = pytest.mark.parametrize("protocol", [4, 5])
MOST = 22  # messages with two characters, as_on_lwip
MIXED = [0, 0, 1, 0, 0, 2]  # no more than 8 with QoS 1 and 2 before the bound

# publishes COUNT messages at once, with one QOS after the other, and tells how many were sent when
# no more are
PUBLISHES = """
from tests.device.watch import Ticker

as_on_lwip()
sent = []

async def publish(n):
    qos = QOS[n % len(QOS)]
    await client.publish("up/%d" % qos, str(n), qos=qos)
    sent.append(n)

async with client:
    await told("go")
    for n in range(COUNT):
        asyncio.create_task(publish(n))
    await until(lambda: waits_for_a_word(client))
    out = client.stats.bytes_out
    async with Ticker() as ticker:
        await until(lambda: ticker.ticks > 20)
    assert waits_for_a_word(client)
    print("held", len(sent))
    await until(lambda: len(sent) == COUNT)
    print("all sent", client.stats.connects)
    await told("leave")
"""


def publishes(to, qos, count=100, **options):
    names = {"QOS": qos, "COUNT": count}
    return Device(to, PUBLISHES, names=names, max_waiting=count, **options)


def arrived(peer, qos, count=100):
    """Demand that what `publishes` published arrived, each in the order of its QoS."""
    got = peer.wait_for(count)
    for each in set(qos):
        numbers = [int(message.payload) for message in got if message.topic == f"up/{each}"]
        assert numbers == [n for n in range(count) if qos[n % len(qos)] == each]


@BOTH
@pytest.mark.parametrize("qos", [[0], MIXED])
def test_writing_stops_at_the_bound_and_goes_on_when_the_path_lives_again(
    proxy, broker, protocol, qos
):
    peer = broker.peer("up/#", qos=2)
    with publishes(proxy, qos, protocol=protocol) as device:
        device.wait_for("connected in")
        proxy.stall()
        device.send("go")
        assert int(device.wait_for("^held").split()[1]) <= MOST
        proxy.heal()
        device.wait_for("^all sent 1")
        device.leave()
    arrived(peer, qos)
    assert proxy.seen("PINGREQ", "up")


def test_the_same_over_tls(tls_proxy, tls_broker, pki):
    peer = tls_broker.peer("up/#", qos=2)
    with publishes(tls_proxy, MIXED, tls=files(pki.ca)) as device:
        device.wait_for("connected in")
        tls_proxy.stall()
        device.send("go")
        assert int(device.wait_for("^held").split()[1]) <= MOST
        tls_proxy.heal()
        device.wait_for("^all sent 1")
        device.leave()
    arrived(peer, MIXED)


def test_a_path_that_stays_dead_ends_the_connection_and_nothing_is_lost(proxy, broker):
    peer = broker.peer("up/#", qos=2)
    with publishes(proxy, MIXED) as device:
        device.wait_for("connected in")
        proxy.stall()
        device.send("go")
        device.wait_for("^held")
        device.wait_for("connection lost: no progress in sending for 10 s")
        proxy.heal()
        device.wait_for("^all sent 2")
        device.leave()
    for qos, offset in ((1, 2), (2, 5)):
        numbers = list(range(offset, 100, 6))
        got = peer.wait_for(len(numbers), f"up/{qos}")
        assert sorted({int(message.payload) for message in got}) == numbers


@pytest.mark.parametrize("size", [1, 300, 3000, 20000])
def test_on_a_path_that_lives_all_goes_on(proxy, broker, size):
    peer = broker.peer("up")
    Device.check(
        proxy,
        """
        as_on_lwip()
        async with client:
            for n in range(100):
                await client.publish("up", "%0*d" % (SIZE, n))
            await client.publish("up", "%0*d" % (SIZE, 100), qos=1)
            assert client.stats.connects == 1
        """,
        names={"SIZE": size},
        max_packet=30000,
        max_backlog=30000,
    )
    assert [message.payload for message in peer.wait_for(101)] == [
        str(n).zfill(size).encode() for n in range(101)
    ]
    assert len(proxy.seen("PINGREQ", "up")) >= 5


@BOTH
def test_a_payload_that_is_a_stream_waits_behind_what_waits(proxy, broker, protocol):
    peer = broker.peer("up/#", qos=2)
    with Device(
        proxy,
        """
        as_on_lwip()
        async with client:
            await told("go")
            tasks = []
            for n in range(90):
                if n % 30 == 25:
                    length = 5000
                    payload = Source(length, n)
                    sent = client.publish("up/%d" % n, payload, length=length, qos=int(n > 30))
                else:
                    sent = client.publish("up/%d" % n, "x")
                tasks.append(asyncio.create_task(sent))
            await until(lambda: waits_for_a_word(client))
            print("held")
            await asyncio.gather(*tasks)
            print("all sent", client.stats.connects)
            await told("leave")
        """,
        protocol=protocol,
        max_waiting=100,
    ) as device:
        device.wait_for("connected in")
        proxy.stall()
        device.send("go")
        device.wait_for("^held")
        proxy.heal()
        device.wait_for("^all sent 1")
        device.leave()
    got = peer.wait_for(90)
    assert [message.topic for message in got] == [f"up/{n}" for n in range(90)]
    assert [len(message.payload) for message in got] == ([1] * 25 + [5000] + [1] * 4) * 3


@BOTH
@pytest.mark.parametrize("pause_ms", [None, 0, 5])
def test_a_flood_is_acknowledged_to_its_end(protocol, pause_ms):
    """The broker reads nothing before it has sent all, and answers pings as any other."""
    total = 500

    def script(connection):
        connection.accept(five.connack() if protocol == 5 else CONNACK)
        _, body = connection.packet()
        connection.send(five.suback(body, 1) if protocol == 5 else b"\x90\x03" + body[:2] + b"\1")
        properties = b"\0" if protocol == 5 else b""
        for n in range(1, total + 1):
            packet = field("t") + n.to_bytes(2, "big") + properties
            connection.send(bytes((0x32, len(packet))) + packet)
        acknowledged = []
        while len(acknowledged) < total:
            first, body = connection.packet()
            if first == 0xC0:
                connection.send(b"\xd0\0")
            else:
                assert first == 0x40
                acknowledged.append(int.from_bytes(body[:2], "big"))
        assert acknowledged == list(range(1, total + 1))
        connection.send(bytes((0x30, 5 + len(properties))) + field("end") + properties)
        connection.until_closed()

    Device.against(
        script,
        """
        as_on_lwip()
        done = []

        @client.on("#", qos=1)
        async def handler(message):
            if PAUSE_MS is not None:
                await asyncio.sleep_ms(PAUSE_MS)
            if message.topic == "end":
                done.append(1)

        async with client:
            await until(lambda: done)
            assert client.stats.connects == 1
            assert client.stats.received == 501
        """,
        names={"PAUSE_MS": pause_ms},
        protocol=protocol,
    )


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_handlers_that_publish_much_while_nobody_reads_go_on(proxy, broker, protocol, qos):
    """The answer to a ping lies behind messages that wait for handlers, which wait to publish."""
    peer = broker.peer("up", client_id="peer")
    with Device(
        proxy,
        """
        as_on_lwip()
        waited = []

        @client.on("t", qos=QOS)
        async def handler(message):
            for n in range(60):
                await client.publish("up", message.payload)

        await client.connect()
        await told("leave")
        assert client.stats.connects == 1
        await client.disconnect()
        """,
        names={"QOS": qos},
        protocol=protocol,
        max_packet=500,
        max_backlog=1000,
    ) as device:
        device.subscribed()
        for n in range(40):
            peer.publish("t", str(n).zfill(60), qos=qos)
        got = peer.wait_for(2400)
        device.leave()
    assert [int(message.payload) for message in got] == [n for n in range(40) for _ in range(60)]


@BOTH
@pytest.mark.parametrize("qos", [0, 1])
def test_handlers_that_are_behind_write_no_more_either(proxy, broker, protocol, qos):
    """Reading waits for them till then, and goes on for the sake of the answer."""
    peer = broker.peer(client_id="peer")
    with Device(
        proxy,
        """
        as_on_lwip()
        sent = []

        @client.on("t", qos=QOS)
        async def handler(message):
            await until(lambda: opened)
            for n in range(30):
                await client.publish("up", message.payload)
                sent.append(n)

        opened = []
        async with client:
            await until(lambda: client.connection.waiting)
            print("behind")
            await told("go")
            opened.append(1)
            await until(lambda: waits_for_a_word(client))
            print("held", len(sent))
            await until(lambda: not client.connected)
            print("lost", len(sent))
            await told("leave")
        """,
        names={"QOS": qos},
        protocol=protocol,
        drain_s=0.1,
        max_packet=500,
        max_backlog=1000,
    ) as device:
        device.subscribed()
        for n in range(20):
            peer.publish("t", str(n).zfill(60), qos=qos)
        device.wait_for("^behind")
        proxy.stall()
        device.send("go")
        # what came before and was not read yet, 1 KB in two pieces, passes for a sign of life
        assert int(device.wait_for("^held").split()[1]) <= 3 * MOST
        device.wait_for("connection lost: no progress in sending for 10 s")
        assert int(device.wait_for("^lost").split()[1]) <= 3 * MOST
        proxy.heal()
        device.leave()


def test_no_ping_is_sent_before_the_broker_has_accepted():
    """What the client proves itself with may be large: only AUTH may come between."""

    def script(connection):
        connection.packet()
        connection.send(five.auth(0x18, b"\x15" + field("M"), b"\x16" + field("c")))
        first, body = connection.packet()
        assert first == 0xF0 and len(body) > 3000
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.packet()
        connection.sock.settimeout(None)
        connection.send(five.connack(b"\x15" + field("M")))
        connection.until_closed()

    Device.against(
        script,
        """
        as_on_lwip()
        client = make(protocol=5, auth=("M", lambda data: b"x" * 3000 if data else b"hello"))
        await client.connect()
        await client.publish("t")
        await client.disconnect()
        """,
    )


@BOTH
def test_a_goodbye_is_sent_whatever_was_sent_before(proxy, protocol):
    Device.check(
        proxy,
        """
        as_on_lwip()
        for count in range(4, 24):
            client = make(protocol=PROTOCOL, log=None)
            await client.connect()
            for _ in range(count):
                asyncio.create_task(client.publish("up", "x"))
            await asyncio.sleep_ms(0)
            await client.disconnect()
        """,
        names={"PROTOCOL": protocol},
    )
    proxy.wait_for("DISCONNECT", "up", 20)
