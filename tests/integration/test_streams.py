"""Payloads larger than memory, both ways: what arrives, and what happens when something breaks."""

import contextlib
import random
import re
import time

import pytest

from tests.device.large import content, digest
from tests.support import secure
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.proxy import Proxy

KB = 1024
MB = 1024 * KB


def acks(proxy, name="PUBACK"):
    """The packet ids that the client acknowledged, in order."""
    return [each.packet_id for each in proxy.seen(name, "up")]


@pytest.fixture
def bytes_proxy(broker):
    """A proxy that passes bytes as they come, so that a packet can be broken off in its middle."""
    with Proxy(broker.port, takes_apart=False) as running:
        yield running


# A device that tells what it got: max_packet is small, so that most payloads are over it

RECEIVER = """
@client.on("large/#", qos=2, stream=True)
async def large(message):
    print("begin", message.topic, message.payload, message.dup)
    try:
        hash, length = await drink(message.stream)
    except ConnectError as error:
        print("broken", error)
        raise
    print("got", message.length, length, hash)
    if CONFIRM:
        await client.publish("seen", str(length), qos=1)

@client.on("small/#", qos=1)
def small(message):
    print("small", message.payload)
"""


def receiver(to, confirm=True, max_packet=512, **options):
    return Device(to, RECEIVER, names={"CONFIRM": confirm}, max_packet=max_packet, **options)


SIZES = (0, 1, 300, 480, 500, 505, 513, 600, 1023, 1024, 5000, 70_000)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_payloads_of_every_size_arrive_as_they_are(broker, protocol, qos):
    with receiver(broker, protocol=protocol) as device:
        peer = broker.peer("seen")
        device.wait_for("connected")
        device.subscribed()
        for size in SIZES:
            peer.publish("large/x", content(size, size), qos=qos)
        for size in SIZES:
            device.wait_for(f"got {size} {size} {digest(content(size, size))}")
        peer.wait_for(len(SIZES))
        device.leave()
    assert [int(payload) for _, payload in peer.received] == list(SIZES)
    assert device.lines.count("begin large/x b'' False") == len(SIZES)
    assert "failed" not in device.report()


def test_packets_that_lie_in_the_buffer_together_are_told_apart(broker):
    sizes = [*range(0, 160, 7)] * 3
    with receiver(broker, max_packet=64, max_inflight=64) as device:
        device.wait_for("connected")
        device.subscribed()
        peer = broker.peer("seen")
        for number, size in enumerate(sizes):
            peer.publish("large/x", content(size, number), qos=0)
        for number, size in enumerate(sizes):
            device.wait_for(f"got {size} {size} {digest(content(size, number))}")
        peer.wait_for(len(sizes))
        assert "ProtocolError" not in device.report()


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_payload_that_comes_byte_by_byte_is_the_same(broker, proxy, protocol):
    proxy.dribble()
    with receiver(proxy, max_packet=128, protocol=protocol) as device:
        device.subscribed()
        peer = broker.peer("seen")
        for size in (0, 100, 130, 300):
            peer.publish("large/x", content(size), qos=2)
            device.wait_for(f"got {size} {size} {digest(content(size))}")
        peer.wait_for(4)
    assert proxy.connections == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_properties_larger_than_the_buffer_come_with_a_large_payload(broker, qos):
    with Device(
        broker,
        """
        @client.on("large", qos=2, stream=True)
        async def large(message):
            print(message.properties["user_property"], message.properties["content_type"])
            await drinks(message)

        async with client:
            await client.publish(
                "large", Source(9000), length=9000, qos=QOS,
                properties=[("user_property", ("a" * 700, "b" * 700)), ("content_type", "x")],
            )
            await told("leave")
        """,
        names={"QOS": qos},
        max_packet=2048,
        protocol=5,
    ) as device:
        device.wait_for(re.escape(f"[('{'a' * 700}', '{'b' * 700}')] x"))
        device.wait_for(f"got {digest(content(9000))} 9000")


def test_one_whose_header_is_over_max_packet_is_passed_over(broker):
    with Device(
        broker,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            print("called", message.length)
        """,
        max_packet=512,
        protocol=5,
    ) as device:
        device.subscribed()
        peer = broker.peer(protocol=5)
        for qos in (0, 1):
            peer.publish(
                "large", b"x" * 1000, properties={"user_property": ("a", "b" * 600)}, qos=qos
            )
        peer.publish("large", b"x" * 1000)
        device.wait_for("message of 1618 bytes to 'large' was passed over: max_packet is 512")
        device.wait_for("called 1000")
        device.leave()
    assert device.report().count("connected in") == 1


def test_a_large_payload_that_no_stream_handler_wants_is_passed_over(broker, proxy):
    with receiver(proxy) as device:
        device.wait_for("connected")
        device.subscribed()
        for qos in (0, 1, 2):
            broker.publish("small/x", b"x" * 1000, qos=qos)
        device.wait_for("message of 1012 bytes to 'small/x' was passed over: max_packet is 512")
        broker.publish("small/x", b"x" * 100)
        device.wait_for("small b'x")
        device.leave()
    assert proxy.connections == 1


def test_a_handler_may_read_as_it_likes(broker):
    with Device(
        broker,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            s = message.stream
            pieces = [await s.read(0), await s.read(10), await s.read(s.left // 2)]
            buf = bytearray(5)
            view = memoryview(buf)[1:4]
            while len(view):
                view = view[await s.readinto(view):]
            pieces.append(bytes(buf[1:4]))
            piece = b"?"
            while piece:
                pieces.append(await s.read())
                piece = pieces[-1]
            pieces.append(bytes(await s.readinto(buf)))
            print([len(piece) for piece in pieces], digest(b"".join(pieces)))

        @client.on("none", qos=1, stream=True)
        def none(message):
            print("none", message.length)
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("large", content(2000))
        device.wait_for(re.escape(f"[0, 10, 995, 3, 512, 480, 0, 0] {digest(content(2000))}"))
        peer.publish("large", content(500))  # the same code for one that fits
        device.wait_for(re.escape(f"[0, 10, 245, 3, 242, 0, 0] {digest(content(500))}"))
        peer.publish("none", content(100_000))
        device.wait_for("none 100000")
        peer.publish("large", content(2000))
        device.wait_for("480, 0, 0")


def test_small_messages_to_a_stream_handler_reach_other_handlers_too(broker):
    with Device(
        broker,
        """
        @client.on("a/+", qos=1, stream=True)
        async def large(message):
            print("stream", message.payload, await message.stream.read())

        @client.on("a/#", qos=1)
        def other(message):
            print("other", message.payload)
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        broker.publish("a/b", b"both")
        device.wait_for("^other b'both'|^stream b'' b'both'")
        device.wait_for("^other b'both'|^stream b'' b'both'")
        assert len(set(device.lines)) == len(device.lines)


# In: what breaks


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_cut_anywhere_comes_again_from_its_start(broker_of, kind, qos):
    size = 60_000
    last = "Received PUBACK from device" if qos == 1 else "Received PUBCOMP from device"
    with broker_of(kind) as (broker, proxy, tls):
        peer = broker.peer()
        cuts = [random.randrange(40 if kind == "tcp" else 4000, size) for _ in range(5)]
        print("cut after", cuts)
        with receiver(proxy, confirm=False, tls=tls) as device:
            device.wait_for("connected")
            broker.wait_for_log("large/#")
            for number, cut in enumerate(cuts, 1):
                proxy.cut(cut, "down")
                proxy.rst()  # what passes is counted from the start of the next connection
                device.wait_for("connected")
                peer.publish("large/x", content(size, number), qos=qos)
                device.wait_for(f"got {size} {size} {digest(content(size, number))}", 30)
                broker.wait_for_log(last, count=number)
            device.leave()
        # nor twice with QoS 1: nothing was lost after the payload
        assert len(device.said("got")) == len(cuts)
        broken = device.said("broken")
        assert broken, device.report()
        assert len(broken) <= len(cuts)
        assert "failed" not in device.report(), "the loss is no fault of the handler"


@pytest.fixture
def broker_of(tmp_path, pki):
    """broker_of(kind): a context of broker, proxy of bytes, and `tls` for a Device through it."""

    @contextlib.contextmanager
    def make(kind):
        listeners = ("tcp",) if kind == "tcp" else ("tls", "tcp")
        with (
            Broker(tmp_path / "streams", *listeners, pki=pki, persistence=True) as broker,
            Proxy(broker.port, takes_apart=False) as proxy,
        ):
            yield broker, proxy, None if kind == "tcp" else secure.files(pki.ca)

    return make


@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_that_was_read_is_not_handled_again(broker, proxy, qos):
    proxy.kill_on("PUBACK" if qos == 1 else "PUBREC", "up")
    with receiver(proxy) as device:
        device.wait_for("connected")
        device.subscribed()
        broker.publish("large/x", content(9000), qos=qos)
        device.wait_for("got 9000")
        again = [each for each in proxy.wait_for("PUBLISH", "down", 2) if "large" in each.topic]
        proxy.wait_for("PUBACK" if qos == 1 else "PUBREC", "up", 2)
        device.leave()
    assert [each.dup for each in again] == [False, True][: len(again)]
    # with QoS 1 nobody can tell: it was acknowledged as far as the client knows
    assert device.report().count("got 9000") == (2 if qos == 1 else 1)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_loss_while_the_handler_works_after_reading_does_not_run_it_again(broker, proxy, qos):
    with Device(
        proxy,
        """
        @client.on("large", qos=2, stream=True)
        async def large(message):
            await drinks(message)
            await told("on")
            print("returned")
        """,
        max_packet=512,
    ) as device:
        device.wait_for("connected")
        device.subscribed()
        peer = broker.peer()
        peer.publish("large", content(9000), qos=qos)
        device.wait_for("got")
        for _ in range(2):
            proxy.rst()
            device.wait_for("connected")
            time.sleep(0.2)
        device.send("on")
        device.wait_for("returned")
        broker.wait_for_log("Received PUBACK from device" if qos == 1 else "Received PUBCOMP")
        device.leave()
    assert len(device.said("got")) == 1
    assert len(acks(proxy, "PUBACK" if qos == 1 else "PUBREC")) == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_a_handler_that_ignores_the_loss_is_not_acknowledged(broker, bytes_proxy, qos):
    with Device(
        bytes_proxy,
        """
        @client.on("large", qos=2, stream=True)
        async def large(message):
            try:
                await drinks(message)
            except ConnectError:
                print("ignored")
        """,
        max_packet=512,
    ) as device:
        device.wait_for("connected")
        broker.wait_for_log("large (QoS 2)")
        for number, how in enumerate(("rst", "fin"), 1):
            bytes_proxy.cut(4000, "down", how=how)
            bytes_proxy.rst()
            device.wait_for("connected")
            broker.publish("large", content(9000), qos=qos)
            device.wait_for("ignored")
            device.wait_for(f"got {digest(content(9000))} 9000")
            last = "Received PUBACK from device" if qos == 1 else "Received PUBCOMP from device"
            broker.wait_for_log(last, count=number)
        device.leave()
    assert device.report().count("got") == 2


def test_a_lost_payload_of_qos_0_is_told_to_its_handler(broker, bytes_proxy):
    with receiver(bytes_proxy) as device:
        device.wait_for("connected")
        broker.wait_for_log("large/#")
        bytes_proxy.cut(4000, "down")
        bytes_proxy.rst()
        device.wait_for("connected")
        broker.publish("large/x", content(9000), qos=0)
        device.wait_for("broken")
        device.wait_for("connected")
        broker.publish("large/x", content(8000), qos=0)
        device.wait_for("got 8000 8000")
    assert device.report().count("begin") == 2


def test_a_slow_reader_keeps_the_connection(broker, proxy):
    """Pings go on while nothing is read; an acknowledgement behind the payload is not missed."""
    with Device(
        proxy,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            print("begin")
            buf = bytearray(2000)
            await message.stream.readinto(buf)
            await asyncio.sleep(4)
            print("got", (await drink(message.stream, 9000, 400))[1] > 30_000)

        async with client:
            await told("publish")
            await client.publish("other", qos=1)
            print("acknowledged")
            await told("leave")
        """,
        max_packet=512,
        keepalive_s=1,
        ack_timeout_s=1,
        handler_timeout_s=1,
    ) as device:
        device.subscribed()
        broker.publish("large", content(50_000))
        device.wait_for("begin")
        device.send("publish")
        device.wait_for("got True|acknowledged")
        device.wait_for("got True|acknowledged")
        device.leave()
    assert proxy.connections == 1
    assert len(proxy.seen("PINGREQ")) > 3
    assert "runs for over" not in device.report()


def test_a_reader_that_pauses_too_long_loses_the_connection(broker, proxy):
    with Device(
        proxy,
        """
        pause = 11

        @client.on("large", qos=1, stream=True)
        async def large(message):
            nonlocal pause
            print("begin")
            await message.stream.read(100)
            await asyncio.sleep(pause)
            pause = 0
            await drinks(message)
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        broker.publish("large", content(50_000))
        device.wait_for("connection lost: no progress of a stream for 10 s", 30)
        device.wait_for("connected")
        device.wait_for(f"got {digest(content(50_000)[100:])} 49900")
        proxy.wait_for("PUBACK", "up")
    assert device.lines.count("begin") == 2
    assert acks(proxy) == [1]


def test_a_broker_that_stalls_in_a_payload_loses_the_connection(broker, bytes_proxy):
    with receiver(bytes_proxy) as device:
        broker.wait_for_log("large/#")
        bytes_proxy.delay(100)
        broker.publish("large/x", content(MB), qos=1)
        device.wait_for("begin")
        bytes_proxy.stall_down()
        device.wait_for("connection lost: no progress of a stream for 10 s", 30)
        bytes_proxy.heal()
        device.wait_for(f"got {MB} {MB} {digest(content(MB))}")


def test_what_a_handler_leaves_unread_is_skipped_and_acknowledged(broker, proxy):
    with Device(
        proxy,
        """
        @client.on("early/#", qos=1, stream=True)
        async def early(message):
            print("early", message.topic, await message.stream.read(3))
            if message.topic.endswith("raise"):
                raise ValueError("mine")
            if message.topic.endswith("late"):
                await asyncio.wait_for_ms(until(lambda: False), 20)
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        for topic in ("early/return", "early/raise", "early/late", "early/return"):
            peer.publish(topic, content(90_000))
            device.wait_for(f"early {topic} b'")
        peer.publish("early/return", b"small")
        device.wait_for("early early/return b'sma'")
        device.leave()
    assert acks(proxy) == [1, 2, 3, 4, 5]
    assert proxy.connections == 1
    assert "handler of 'early/#' failed: ValueError('mine',)" in device.report()
    assert "handler of 'early/#' failed: TimeoutError" in device.report()


def test_large_and_small_messages_are_handled_and_acknowledged_in_order(broker, proxy):
    with Device(
        proxy,
        """
        @client.on("a", qos=1, stream=True)
        async def a(message):
            hash, length = await drink(message.stream)
            await asyncio.sleep_ms(length % 7)
            print("a", length)

        @client.on("b", qos=1)
        async def b(message):
            print("b", len(message.payload))
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        sizes = [random.choice((10, 300, 600, 5000)) + number for number in range(30)]
        print(sizes)
        for size in sizes:
            peer.publish("a", content(size))
            peer.publish("b", content(size % 300))
        proxy.wait_for("PUBACK", "up", 2 * len(sizes))
        device.leave()
    assert [int(length) for length in device.said("a")] == sizes
    assert [int(length) for length in device.said("b")] == [size % 300 for size in sizes]
    sent = [each.packet_id for each in proxy.seen("PUBLISH", "down")]
    assert acks(proxy) == sent
    assert proxy.connections == 1


def test_handlers_that_confirm_do_not_block_each_other(broker, proxy):
    """The acknowledgement that one waits for is behind the next payload: it has to be read."""
    with receiver(proxy) as device:
        device.subscribed()
        peer = broker.peer("seen")
        other = broker.peer()
        sizes = [5000, 6000, 100, 200, 7000, 300, 8000]
        proxy.stall_down()
        for size in sizes:
            other.publish("large/x", content(size), qos=1)
        proxy.heal()
        peer.wait_for(len(sizes))
        device.leave()
    assert [int(payload) for _, payload in peer.received] == sizes
    assert acks(proxy) == sorted(acks(proxy))
    assert len(acks(proxy)) == len(sizes)
    assert proxy.connections == 1


@pytest.mark.parametrize(
    "wait",
    [
        "client.publish('seen', 'x', qos=1)",
        "client.publish('seen', 'x', qos=2, timeout_s=20)",
        "client.subscribe('answer/%d' % message.length, timeout_s=20)",
        "client.unsubscribe('answer/%d' % message.length)",
        "client.request('ask', 'x', timeout_s=20)",
        "client.request('ask', 'x', qos=1, timeout_s=None)",
    ],
)
def test_an_answer_that_a_handler_waits_for_may_be_behind_the_next_payload(broker, wait):
    with Device(
        broker,
        f"""
        @client.on("large", qos=1, stream=True)
        async def large(message):
            await drink(message.stream)
            await asyncio.sleep_ms(100)  # the reader has met the next one
            await {wait}
            print("done", message.length)

        @client.on("ask", qos=1)
        async def ask(message):
            await client.respond(message, "re")
        """,
        max_packet=512,
        protocol=5,
    ) as device:
        device.subscribed()
        other = broker.peer()
        sizes = [5000, 300, 6000, 200, 7000]
        for size in sizes:
            other.publish("large", content(size), qos=1)
        for _ in sizes:
            device.wait_for("done", 8)
        device.leave()
    done = [int(length) for length in device.said("done")]
    assert sorted(done) == sorted(sizes)
    assert "lost" not in device.report()


def test_a_handler_may_not_wait_for_what_is_behind_its_payload(broker):
    with Device(
        broker,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            for wait in (
                lambda: client.publish("x", qos=1),
                lambda: client.publish("x", qos=2, timeout_s=1),
                lambda: client.publish("x", Source(9), length=9, qos=1),
                lambda: client.subscribe("x"),
                lambda: client.unsubscribe("x"),
                lambda: client.request("x"),
            ):
                with raises(RuntimeError, "enqueue(), or read to the end first"):
                    await wait()
            await client.publish("x/0")
            client.enqueue("x/1", qos=1)
            await drinks(message)
            await client.publish("x/2", qos=1)
            await client.subscribe("y", timeout_s=5)
            print("told")

        @client.on("small", stream=True)
        async def small(message):
            await client.publish("x/3", qos=1)
        """,
        max_packet=512,
        protocol=5,
    ) as device:
        device.subscribed()
        peer = broker.peer("x/+")
        peer.publish("large", content(50_000))
        device.wait_for(f"got {digest(content(50_000))}")
        device.wait_for("told")
        peer.publish("small", b"1")
        peer.wait_for(4)
    assert sorted(topic for topic, _ in peer.received) == ["x/0", "x/1", "x/2", "x/3"]
    assert "failed" not in device.report()


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_disconnect_while_a_payload_is_read(broker, proxy, where):
    with Device(
        proxy,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            await message.stream.read(1000)
            print("begin")
            if WHERE == "inside":
                await client.disconnect()
                with raises(ConnectError, "bytes to come"):
                    await message.stream.read(1000)
                print("ended")
            else:
                try:
                    await asyncio.sleep(9)
                except asyncio.CancelledError:
                    print("ended")
                    raise

        async with client:
            await told("leave")
            await client.disconnect()
            async with client:
                print("again")
                await until(lambda: not client.running)
                await client.__aenter__()
                await told("leave")
        """,
        names={"WHERE": where},
        max_packet=512,
    ) as device:
        device.subscribed()
        broker.publish("large", content(9000))
        device.wait_for("begin")
        if where == "outside":
            device.send("leave")
        device.wait_for("ended")
    assert acks(proxy) == []


def test_an_unsubscribed_handler_lets_the_payload_pass(broker, proxy):
    with Device(
        proxy,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            print("begin", message.length)
            await told("on")
            await drinks(message)

        async with client:
            await told("unsubscribe")
            await until(lambda: client.stats.received == 2)
            asyncio.create_task(client.unsubscribe("large"))
            await asyncio.sleep_ms(100)
            print("unsubscribed")
            await told("leave")
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("large", content(100))
        device.wait_for("begin 100")
        peer.publish("large", content(9000))
        proxy.wait_for("PUBLISH", "down", 2)
        device.send("unsubscribe")
        device.wait_for("unsubscribed")
        device.send("on")
        device.wait_for(f"got {digest(content(100))} 100")
        assert [each.packet_id for each in proxy.wait_for("PUBACK", "up", 2)] == [1, 2]
        proxy.wait_for("UNSUBACK")
    assert proxy.connections == 1


def test_a_slow_handler_is_acknowledged_after_reading_as_any_other(broker, proxy):
    with Device(
        proxy,
        """
        @client.on("large", qos=1, stream=True)
        async def large(message):
            print("got", *await drink(message.stream, 9000, 100))
            await told("on")
            print("returned")
        """,
        max_packet=512,
        handler_timeout_s=1,
    ) as device:
        device.subscribed()
        broker.publish("large", content(50_000))
        device.wait_for("got")
        device.wait_for(
            "handler of 'large' runs for over 1 s: message acknowledged, handler goes on"
        )
        proxy.wait_for("PUBACK", "up")
        device.send("on")
        device.wait_for("returned")
        device.leave()
    assert acks(proxy) == [1]


def test_a_handler_may_be_declared_while_connected(broker):
    with Device(
        broker,
        """
        async with client:
            await client.wait_connected()

            client.on("large", qos=1, stream=True)(drinks)
            await told("leave")
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        broker.publish("large", content(9000))
        device.wait_for(f"got {digest(content(9000))} 9000")


@pytest.mark.parametrize("owner, name", [("asyncio", "create_task"), ("Transport", "read")])
def test_a_payload_for_which_memory_ran_out_comes_again(broker, proxy, owner, name):
    with Device(
        proxy,
        """
        @client.on("large", qos=2, stream=True)
        async def large(message):
            if FAIL == "read" and message.length > 100_000 and not message.dup:
                no_memory("to read")
            await drinks(message)

        async with client:
            await told("fail")
            if FAIL == "create_task":
                no_memory("for a task")
            print("will fail")
            await told("leave")
            print("lanes", lanes(client))
        """,
        names={"FAIL": name},
        max_packet=512,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("large", content(9000))
        device.wait_for("got")
        device.send("fail")
        device.wait_for("will fail")
        peer.publish("large", content(200_000), qos=2)
        device.wait_for("connection lost: MemoryError|connection lost: no memory")
        device.wait_for(f"got {digest(content(200_000))} 200000")
        device.leave()
    assert device.said("lanes") == ["1"]  # that of the iterator
    assert proxy.connections == 2


# Out: what is published from a stream


UPLOADER = """
async with client:
    for size in SIZES:
        code = await client.publish("up", Source(size, size, MOST), length=size, qos=QOS)
        print("published", size, code)
print("over")
"""


def uploader(to, sizes, qos, most, **options):
    return Device(to, UPLOADER, names={"SIZES": sizes, "QOS": qos, "MOST": most}, **options)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_streams_of_every_size_are_published_as_they_are(broker, protocol, qos):
    peer = broker.peer("up", qos=2)
    with uploader(broker, SIZES, qos, 700, protocol=protocol, max_packet=512) as device:
        device.wait_for("over")
        peer.wait_for(len(SIZES))
    assert [m.payload for m in peer.messages] == [content(size, size) for size in SIZES]
    assert {m.qos for m in peer.messages} == {qos}
    assert len(device.said("published")) == len(SIZES)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("qos", [1, 2])
def test_an_upload_cut_anywhere_begins_again(broker_of, kind, qos):
    size = 60_000
    with broker_of(kind) as (broker, proxy, tls):
        peer = broker.peer("up", qos=2)
        cuts = [random.randrange(60 if kind == "tcp" else 2000, size) for _ in range(5)]
        print("cut after", cuts)
        with Device(
            proxy,
            """
            async with client:
                for number in range(1, 6):
                    await told("next")
                    await client.publish("up", Source(SIZE, number), length=SIZE, qos=QOS)
                    print("published", number)
                await told("leave")
            """,
            names={"SIZE": size, "QOS": qos},
            tls=tls,
            max_packet=512,
        ) as device:
            device.wait_for("connected")
            for number, cut in enumerate(cuts, 1):
                proxy.cut(cut, "up")
                proxy.rst()  # what passes is counted from the start of the next connection
                device.wait_for("connected")
                device.send("next")
                device.wait_for("connected")
                device.wait_for(f"published {number}")
            device.leave()
        peer.wait_for(5)
    assert [m.payload for m in peer.messages] == [content(size, n) for n in range(1, 6)]


def test_an_upload_of_qos_0_that_was_cut_while_it_was_sent_begins_again(broker, bytes_proxy):
    peer = broker.peer("up")
    bytes_proxy.cut(random.randrange(60, MB))
    with uploader(bytes_proxy, [12 * MB], 0, MB) as device:
        device.wait_for("over", 40)
    assert digest(peer.wait_for()[0].payload) == digest(content(12 * MB, 12 * MB))
    assert bytes_proxy.connections == 2


def test_an_upload_is_sent_again_with_dup_and_its_id(broker, proxy):
    proxy.swallow("PUBACK", "down", times=1)
    with uploader(proxy, [9000], 1, 9000, ack_timeout_s=1) as device:
        peer = broker.peer("up")
        device.wait_for("over")
        peer.wait_for(2)
    sent = proxy.seen("PUBLISH", "up")
    assert [(each.packet_id, each.dup) for each in sent] == [(1, False), (1, True)]
    assert [each.payload for each in sent] == [content(9000, 9000)] * 2


def test_a_stream_is_read_from_where_it_stood_at_the_call(broker, bytes_proxy):
    peer = broker.peer("up")
    bytes_proxy.cut(3000, "up")
    Device.check(
        bytes_proxy,
        """
        import io

        stream = io.BytesIO(content(9000))
        stream.seek(100)
        async with client:
            await client.publish("up", stream, length=8000, qos=1)
        assert client.stats.connects == 2
        """,
    )
    assert peer.wait_for()[0].payload == content(9000)[100:8100]


def test_a_stream_that_cannot_seek_is_not_sent_again(broker, bytes_proxy):
    peer = broker.peer("up/#")
    bytes_proxy.cut(3000, "up")
    Device.check(
        bytes_proxy,
        """
        async with client:
            with raises(ConnectError, "has no seek()"):
                await client.publish("up", Slow(9000, 20, 300), length=9000)
            await client.publish("up/again", Slow(9000, 1, 700), length=9000)
        """,
    )
    assert [(m.topic, m.payload) for m in peer.wait_for()] == [("up/again", content(9000))]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("how", ["ends", "raises"])
def test_a_stream_that_fails_is_told_and_never_sent_again(broker, proxy, qos, how):
    peer = broker.peer("#", qos=2)
    Device.check(
        proxy,
        """
        class Bad(Source):
            def readinto(self, buf):
                if self._at < 5000:
                    return super().readinto(buf)
                if HOW == "ends":
                    return 0
                raise OSError(5)

        async with client:
            await client.publish("before", qos=1)
            other = asyncio.create_task(client.publish("up", Bad(9000), length=9000, qos=QOS))
            await asyncio.sleep_ms(0)
            behind = asyncio.create_task(client.publish("behind", qos=1))
            if HOW == "ends":
                with raises(ValueError, "the stream ended"):
                    await other
            else:
                with raises(OSError, "5"):
                    await other
            await behind
            await client.publish("after", Source(3000), length=3000, qos=QOS)
            await client.publish("last", qos=1)
        """,
        names={"QOS": qos, "HOW": how},
        max_packet=512,
    )
    for topic in ("after", "last"):  # QoS 2 may come to the peer behind QoS 1
        peer.wait_for(1, topic=topic)
    assert sorted(topic for topic, _ in peer.received) == ["after", "before", "behind", "last"]
    clean = [each.raw[9] >> 1 & 1 for each in proxy.seen("CONNECT")]
    # a session that had the message is not resumed, and the new one outlives its connection
    assert clean == ([0, 1, 0] if qos else [0, 0])


def test_a_stream_that_stalls_is_told_and_never_sent_again(broker, proxy):
    peer = broker.peer("#", qos=2)
    Device.check(
        proxy,
        """
        class Stuck(Source):
            async def readinto(self, buf):
                if self._at > 2000:
                    await asyncio.sleep(60)
                return super().readinto(buf)

        async with client:
            with raises(ConnectError, "the stream gave nothing for 10 s"):
                await client.publish("up", Stuck(9000), length=9000, qos=1)
            await client.publish("last", qos=1)
        """,
        max_packet=512,
        timeout_s=40,
    )
    assert peer.wait_for()[0].topic == "last"


def test_an_upload_that_the_broker_does_not_take_begins_again(broker, bytes_proxy):
    peer = broker.peer("up")
    with uploader(bytes_proxy, [20 * MB], 1, MB) as device:
        device.wait_for("connected")
        bytes_proxy.stall_up()
        device.wait_for("connection lost: no progress", 60)
        bytes_proxy.heal()
        device.wait_for("published", 60)
    assert len(peer.wait_for()[-1].payload) == 20 * MB


def test_an_upload_may_take_longer_than_the_deadlines_of_packets(broker, bytes_proxy):
    """Nor may what waits for an acknowledgement, or for its turn, suffer from it."""
    peer = broker.peer("#", qos=2)
    Device.check(
        bytes_proxy,
        """
        async with client:
            up = asyncio.create_task(client.publish("up", Slow(9000, 300, 700), length=9000))
            await asyncio.sleep_ms(500)
            await client.subscribe("x")
            await up
            await client.publish("last", qos=1)
        print(client.stats.connects)
        """,
        max_packet=512,
        keepalive_s=2,
        ack_timeout_s=1,
    )
    assert peer.wait_for(2)[0].payload == content(9000)
    assert bytes_proxy.connections == 1


def test_several_uploads_and_messages_both_ways_at_once(broker, proxy):
    peer = broker.peer("up/#", qos=2)
    with Device(
        proxy,
        """
        @client.on("down", qos=1, stream=True)
        async def down(message):
            hash, length = await drink(message.stream)
            print("down", length, hash)
            client.enqueue("up/seen", str(length))

        async def upload(number):
            size = 100_000 + number
            await client.publish("up/%d" % number, Source(size), length=size, qos=number)

        async def chatter():
            for i in range(20):
                await client.publish("up/chat", str(i), qos=i % 3)

        async with client:
            await told("go")
            await asyncio.gather(chatter(), upload(0), upload(1), upload(2), chatter())
            print("all")
            await told("leave")
        """,
        max_packet=512,
    ) as device:
        device.subscribed()
        other = broker.peer()
        device.send("go")
        for number in range(10):
            other.publish("down", content(50 if number % 3 else 30_000 + number))
        device.wait_for("all")
        peer.wait_for(10, topic="up/seen")
        device.leave()
    for number in range(3):
        assert [m.payload for m in peer.messages if m.topic == f"up/{number}"] == [
            content(100_000 + number)
        ]
    assert len(peer.wait_for(40, topic="up/chat")) == 40
    for number in range(10):
        size = 50 if number % 3 else 30_000 + number
        assert f"down {size} {digest(content(size))}" in device.lines
    assert proxy.connections == 1


def test_a_time_out_takes_back_an_upload_of_which_nothing_was_sent(broker, proxy):
    peer = broker.peer("#")
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            with raises(asyncio.TimeoutError):
                await client.publish("a", Source(9000), length=9000, qos=1, timeout_s=0.1)
            print("back")
            await client.wait_connected()
            with raises(asyncio.TimeoutError):  # the second has begun: it goes on
                await client.publish(
                    "b", Slow(9000, 50, 700), length=9000, timeout_s=0.1
                )
            await client.publish("c", qos=1)
        """,
        max_packet=512,
    ) as device:
        device.wait_for("back")
        proxy.heal()
        device.finish()
    peer.wait_for(2)
    assert [topic for topic, _ in peer.received] == ["b", "c"]
    assert peer.messages[0].payload == content(9000)


def test_disconnect_waits_for_an_upload_as_long_as_drain_s(broker, proxy):
    peer = broker.peer("#")
    out = Device.check(
        proxy,
        """
        async with client:
            await client.wait_connected()
            up = asyncio.create_task(
                client.publish("up", Slow(9000, 50, 700), length=9000)
            )
            await asyncio.sleep_ms(100)
        await up
        client.drain_s = 0.1
        async with client:
            await client.wait_connected()
            up = asyncio.create_task(
                client.publish("cut", Source(900_000, most=50), length=900_000, qos=1)
            )
            await asyncio.sleep_ms(20)
        with raises(MQTTError, "stopped before"):
            await up
        async with client:
            await client.publish("last", qos=1)
        """,
        max_packet=512,
        drain_s=5,
    )
    assert out.count("disconnected") == 3
    peer.wait_for(2)
    assert [topic for topic, _ in peer.received] == ["up", "last"]
    assert [each.raw[9] >> 1 & 1 for each in proxy.seen("CONNECT")] == [0, 0, 1, 0]


def test_mistakes_with_streams_are_told_at_the_call(broker):
    out = Device.check(
        broker,
        """
        import io

        class Reader:
            def readinto(self, buf):
                return 0

        async with client:
            for error, text, payload, length, options in (
                (TypeError, "not bytes: leave length= out", b"abc", 3, {}),
                (TypeError, "not str", "abc", 3, {}),
                (TypeError, "an int, not 3.0", io.BytesIO(b"abc"), 3.0, {}),
                (TypeError, "an int, not True", io.BytesIO(b"abc"), True, {}),
                (ValueError, "length -1: 0 to 268435455", io.BytesIO(b"abc"), -1, {}),
                (ValueError, "over 268435455 bytes", io.BytesIO(b""), 268435455, {}),
                (ValueError, "length 268435456", io.BytesIO(b""), 268435456, {}),
                (TypeError, "Reader has no seek() and tell()", Reader(), 3, {"qos": 1}),
                (ValueError, "qos 3", io.BytesIO(b"abc"), 3, {"qos": 3}),
                (ValueError, "MQTT 5 only", Reader(), 3, {"properties": {"a": 1}}),
            ):
                with raises(error, text):
                    await client.publish("x", payload, length=length, **options)
                print(text)
            with raises(ValueError, "max_packet is 512"):
                await client.publish("x" * 600, Reader(), length=9)
            with raises(ValueError, "for subscribing only"):
                await client.publish("x/+", Reader(), length=9)
            with raises(TypeError):
                client.enqueue("x", Reader(), length=9)
        """,
        max_packet=512,
    )
    assert "qos 3" in out


def test_a_lost_session_has_an_upload_sent_anew_or_told(tmp_path):
    with (
        Broker(tmp_path / "b", "tcp", persistence=True) as broker,
        Proxy(broker.port) as proxy,
    ):
        proxy.swallow("PUBACK")
        proxy.swallow("PUBREC")
        with Device(
            proxy,
            """
            async with client:
                one = asyncio.create_task(
                    client.publish("up", Source(9000, 1), length=9000, qos=1)
                )
                two = asyncio.create_task(
                    client.publish("up", Source(9000, 2), length=9000, qos=2)
                )
                await one
                with raises(DeliveryUnknown):
                    await two
                print("done")
            """,
            max_packet=512,
        ) as device:
            proxy.wait_for("PUBREC", "down")
            proxy.heal()  # before the next connection
            broker.restart(wipe=True)
            device.wait_for("done", 40)
        sent = proxy.seen("PUBLISH", "up")
        assert [each.payload for each in sent[-1:]] == [content(9000, 1)]
        assert not sent[-1].dup


def test_a_largest_packet_that_the_app_names_is_told_the_broker(proxy):
    """Else with a handler of large payloads there is no largest one."""
    for properties in (None, {"maximum_packet_size": 70000}):
        Device.check(
            proxy,
            """
            client.on("large", stream=True)(drinks)
            async with client:
                await client.wait_connected()
            """,
            protocol=5,
            properties=properties,
            session_expiry_s=0,
        )
    sizes = [b"\x27\0\1\x11\x70" in each.body for each in proxy.seen("CONNECT")]
    assert sizes == [False, True]
    assert b"\x27" not in proxy.seen("CONNECT")[0].body


def test_a_broker_that_takes_no_such_packet_is_obeyed(tmp_path):
    with Broker(tmp_path / "b", "tcp", max_packet=5000) as broker:
        Device.check(
            broker,
            """
            async with client:
                with raises(RefusedError) as caught:
                    await client.publish("up", Source(9000), length=9000, qos=1)
                assert caught.error.code == 149, caught.error.code
                await client.publish("up", Source(4000), length=4000, qos=1)
            """,
            max_packet=512,
            protocol=5,
        )


def test_a_payload_passes_through_a_device(broker):
    """What comes in goes out again, without ever being in memory."""
    peer = broker.peer("out")
    with Device(
        broker,
        """
        @client.on("in", qos=1, stream=True)
        async def pass_on(message):
            await client.publish("out", message.stream, length=message.length)
            print("passed")
        """,
        max_packet=512,
        heap="190K",
    ) as device:
        device.subscribed()
        broker.publish("in", content(MB))
        device.wait_for("passed")
        assert peer.wait_for()[0].payload == content(MB)


# Memory


@pytest.mark.timeout(300)  # it may build the interpreter
def test_a_megabyte_passes_both_ways_through_64_kb(on_pico, tls_broker, pki):
    """TLS itself takes 38 KB while it connects; the heap has 64 KB more than that."""
    peer = tls_broker.peer("up")
    with secure.start(
        RECEIVER_AND_SENDER,
        tls_broker.port,
        secure.files(pki.ca),
        heap=HEAP,
    ) as app:
        app.wait_for("connected")
        tls_broker.wait_for_log("down (QoS 1)")
        tls_broker.publish("down", content(MB, 1))
        app.wait_for(f"down {digest(content(MB, 1))} {MB}", 60)
        app.send("up")
        app.wait_for("up", 60)
        app.send("leave")
        assert app.wait().code == 0, app.report()
    assert digest(peer.wait_for()[0].payload) == digest(content(MB, 2))


HEAP = f"{38 + 64}K"
RECEIVER_AND_SENDER = f"""
from tests.device.large import *

async def main():
    client = make(tls=tls_given())

    @client.on("down", qos=1, stream=True)
    async def down(message):
        print("down", *await drink(message.stream))

    async with client:
        await told("up")
        await client.publish("up", Source({MB}, 2), length={MB}, qos=1)
        print("up")
        await told("leave")
"""


def test_what_waits_behind_an_upload_goes_out_though_there_was_no_memory_to_send_it(proxy):
    """The connection stood still for 10 s."""
    out = Device.check(
        proxy,
        """
        async with client:
            await client.wait_connected()
            no_memory("to send the rest")
            await client.publish("t", Source(5000), length=5000, qos=1)
            await client.publish("t", "behind", qos=1)
            print("through, connects", client.stats.connects)
        """,
        max_packet=512,
    )
    assert "through, connects 2" in out
    assert "no progress" not in out
