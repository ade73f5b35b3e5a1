"""Payloads larger than memory, both ways: what arrives, and what happens when something breaks."""

import random
import re
import textwrap
import time

import pytest

from tests.device.large import content, digest
from tests.support import apps, secure
from tests.support.broker import Broker
from tests.support.proxy import Proxy
from tools import freeze

KB = 1024
MB = 1024 * KB
# Handlers and sources that the apps below share
TOOLS = "from tests.device.large import *\n"


def start(app, port, *args, names="", **options):
    """apps.start() with `names`, lines of Python, before the app."""
    app = TOOLS + names + "\n" + textwrap.dedent(app)
    return apps.start(app, port, *args, **options)


def check(app, port, *args, **options):
    return apps.check(TOOLS + textwrap.dedent(app), port, *args, **options)


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
async def main():
    soonest()
    client = make(**OPTIONS)

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

    async with client:
        await told("leave")
        print("biggest", gc.mem_alloc())
"""


def receiver(port, **options):
    options.setdefault("max_packet", 512)
    return start(RECEIVER, port, names=f"OPTIONS = {options!r}; CONFIRM = True")


SIZES = (0, 1, 300, 480, 500, 505, 513, 600, 1023, 1024, 5000, 70_000)


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_payloads_of_every_size_arrive_as_they_are(broker, protocol, qos):
    with receiver(broker.port, protocol=protocol) as app:
        peer = broker.peer("seen")
        app.wait_for("connected")
        broker.wait_for_log("large/#")
        for size in SIZES:
            peer.publish("large/x", content(size, size), qos=qos)
        for size in SIZES:
            app.wait_for(f"got {size} {size} {digest(content(size, size))}")
        peer.wait_for(len(SIZES))
        app.send("leave")
        app.wait()
    assert [int(payload) for _, payload in peer.received] == list(SIZES)
    assert app.lines.count("begin large/x b'' False") == len(SIZES)
    assert "failed" not in app.report()


def test_packets_that_lie_in_the_buffer_together_are_told_apart(broker):
    sizes = [*range(0, 160, 7)] * 3
    with receiver(broker.port, max_packet=64, max_inflight=64) as app:
        app.wait_for("connected")
        broker.wait_for_log("large/#")
        peer = broker.peer("seen")
        for number, size in enumerate(sizes):
            peer.publish("large/x", content(size, number), qos=0)
        for number, size in enumerate(sizes):
            app.wait_for(f"got {size} {size} {digest(content(size, number))}")
        peer.wait_for(len(sizes))
        assert "ProtocolError" not in app.report()


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_payload_that_comes_byte_by_byte_is_the_same(broker, proxy, protocol):
    proxy.dribble()
    with receiver(proxy.port, max_packet=128, protocol=protocol) as app:
        broker.wait_for_log("large/#")
        peer = broker.peer("seen")
        for size in (0, 100, 130, 300):
            peer.publish("large/x", content(size), qos=2)
            app.wait_for(f"got {size} {size} {digest(content(size))}")
        peer.wait_for(4)
    assert proxy.connections == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_properties_larger_than_the_buffer_come_with_a_large_payload(broker, qos):
    with start(
        """
        async def main():
            client = make(max_packet=2048, protocol=5)

            @client.on("large", qos=2, stream=True)
            async def large(message):
                print(message.properties["user_property"], message.properties["content_type"])
                print(*await drink(message.stream))

            async with client:
                await client.publish(
                    "large", Source(9000), length=9000, qos=QOS,
                    properties=[("user_property", ("a" * 700, "b" * 700)), ("content_type", "x")],
                )
                await told("leave")
        """,
        broker.port,
        names=f"QOS = {qos}",
    ) as app:
        app.wait_for(re.escape(f"[('{'a' * 700}', '{'b' * 700}')] x"))
        app.wait_for(f"{digest(content(9000))} 9000")


def test_a_header_over_max_packet_ends_the_connection(broker):
    with start(
        """
        async def main():
            client = make(max_packet=512, protocol=5)

            @client.on("large", stream=True)
            async def large(message):
                print("called")

            async with client:
                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("large (QoS 0)")
        broker.peer(protocol=5).publish(
            "large", b"x" * 1000, properties={"user_property": ("a", "b" * 600)}, qos=0
        )
        app.wait_for("topic and properties of 6.. bytes, max_packet is 512")
        app.wait_for("connected")
    assert "called" not in app.lines


def test_a_large_payload_that_no_stream_handler_wants_ends_the_connection(broker, proxy):
    with receiver(proxy.port) as app:
        app.wait_for("connected")
        broker.wait_for_log("small/#")
        broker.peer().publish("small/x", b"x" * 1000, qos=0)
        app.wait_for("packet of 1012 bytes to 'small/x', max_packet is 512")
        app.wait_for("connected")
        broker.peer().publish("small/x", b"x" * 100)
        app.wait_for("small b'x")


def test_a_handler_may_read_as_it_likes(broker):
    with start(
        """
        async def main():
            client = make(max_packet=512)

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

            async with client:
                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("none (QoS 1)")
        peer = broker.peer()
        peer.publish("large", content(2000))
        app.wait_for(re.escape(f"[0, 10, 995, 3, 512, 480, 0, 0] {digest(content(2000))}"))
        peer.publish("large", content(500))  # the same code for one that fits
        app.wait_for(re.escape(f"[0, 10, 245, 3, 242, 0, 0] {digest(content(500))}"))
        peer.publish("none", content(100_000))
        app.wait_for("none 100000")
        peer.publish("large", content(2000))
        app.wait_for("480, 0, 0")


def test_small_messages_to_a_stream_handler_reach_other_handlers_too(broker):
    with start(
        """
        async def main():
            client = make(max_packet=512)

            @client.on("a/+", qos=1, stream=True)
            async def large(message):
                print("stream", message.payload, await message.stream.read())

            @client.on("a/#", qos=1)
            def other(message):
                print("other", message.payload)

            async with client:
                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("a/# (QoS 1)")
        broker.peer().publish("a/b", b"both")
        app.wait_for("^other b'both'|^stream b'' b'both'")
        app.wait_for("^other b'both'|^stream b'' b'both'")
        assert len(set(app.lines)) == len(app.lines)


# In: what breaks


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_cut_anywhere_comes_again_from_its_start(broker_of, kind, qos):
    size = 60_000
    last = "Received PUBACK from device" if qos == 1 else "Received PUBCOMP from device"
    with broker_of(kind) as (broker, proxy, launch):
        peer = broker.peer()
        cuts = [random.randrange(40 if kind == "tcp" else 4000, size) for _ in range(5)]
        print("cut after", cuts)
        with launch(RECEIVER, max_packet=512) as app:
            app.wait_for("connected")
            broker.wait_for_log("large/#")
            for number, cut in enumerate(cuts, 1):
                proxy.cut(cut, "down")
                proxy.rst()  # what passes is counted from the start of the next connection
                app.wait_for("connected")
                peer.publish("large/x", content(size, number), qos=qos)
                app.wait_for(f"got {size} {size} {digest(content(size, number))}", 30)
                broker.wait_for_log(last, count=number)
            app.send("leave")
            app.wait()
        got = [line for line in app.lines if line.startswith("got")]
        assert len(got) == len(cuts)  # nor twice with QoS 1: nothing was lost after the payload
        broken = [line for line in app.lines if line.startswith("broken")]
        assert broken, app.report()
        assert len(broken) <= len(cuts)
        assert "failed" not in app.report(), "the loss is no fault of the handler"


@pytest.fixture
def broker_of(tmp_path, pki):
    """broker_of(kind): a context of broker, proxy of bytes, and what starts an app through it."""
    import contextlib

    @contextlib.contextmanager
    def make(kind):
        listeners = ("tcp",) if kind == "tcp" else ("tls", "tcp")
        with (
            Broker(tmp_path / "streams", *listeners, pki=pki, persistence=True) as broker,
            Proxy(broker.port, takes_apart=False) as proxy,
        ):

            def launch(app, **options):
                head = f"{TOOLS}OPTIONS = {options!r}; CONFIRM = False\n"
                if kind == "tcp":
                    return apps.start(head + app, proxy.port)
                head += "OPTIONS['tls'] = tls_given()\n"
                return secure.start(head + app, proxy.port, secure.files(pki.ca))

            yield broker, proxy, launch

    return make


@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_that_was_read_is_not_handled_again(broker, proxy, qos):
    proxy.kill_on("PUBACK" if qos == 1 else "PUBREC", "up")
    with receiver(proxy.port) as app:
        app.wait_for("connected")
        broker.wait_for_log("large/#")
        broker.peer().publish("large/x", content(9000), qos=qos)
        app.wait_for("got 9000")
        again = [each for each in proxy.wait_for("PUBLISH", "down", 2) if "large" in each.topic]
        proxy.wait_for("PUBACK" if qos == 1 else "PUBREC", "up", 2)
        app.send("leave")
        app.wait()
    assert [each.dup for each in again] == [False, True][: len(again)]
    # with QoS 1 nobody can tell: it was acknowledged as far as the client knows
    assert app.report().count("got 9000") == (2 if qos == 1 else 1)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_loss_while_the_handler_works_after_reading_does_not_run_it_again(broker, proxy, qos):
    with start(
        """
        async def main():
            soonest()
            client = make(max_packet=512)

            @client.on("large", qos=2, stream=True)
            async def large(message):
                print("got", *await drink(message.stream))
                await told("on")
                print("returned")

            async with client:
                await told("leave")
        """,
        proxy.port,
    ) as app:
        app.wait_for("connected")
        broker.wait_for_log("large (QoS 2)")
        peer = broker.peer()
        peer.publish("large", content(9000), qos=qos)
        app.wait_for("got")
        for _ in range(2):
            proxy.rst()
            app.wait_for("connected")
            time.sleep(0.2)
        app.send("on")
        app.wait_for("returned")
        broker.wait_for_log("Received PUBACK from device" if qos == 1 else "Received PUBCOMP")
        app.send("leave")
        app.wait()
    assert len([line for line in app.lines if line.startswith("got")]) == 1
    assert len(acks(proxy, "PUBACK" if qos == 1 else "PUBREC")) == 1


@pytest.mark.parametrize("qos", [1, 2])
def test_a_handler_that_ignores_the_loss_is_not_acknowledged(broker, bytes_proxy, qos):
    with start(
        """
        async def main():
            soonest()
            client = make(max_packet=512)

            @client.on("large", qos=2, stream=True)
            async def large(message):
                try:
                    print("got", *await drink(message.stream))
                except ConnectError:
                    print("ignored")

            async with client:
                await told("leave")
        """,
        bytes_proxy.port,
    ) as app:
        app.wait_for("connected")
        broker.wait_for_log("large (QoS 2)")
        for number, how in enumerate(("rst", "fin"), 1):
            bytes_proxy.cut(4000, "down", how=how)
            bytes_proxy.rst()
            app.wait_for("connected")
            broker.peer().publish("large", content(9000), qos=qos)
            app.wait_for("ignored")
            app.wait_for(f"got {digest(content(9000))} 9000")
            last = "Received PUBACK from device" if qos == 1 else "Received PUBCOMP from device"
            broker.wait_for_log(last, count=number)
        app.send("leave")
        app.wait()
    assert app.report().count("got") == 2


def test_a_lost_payload_of_qos_0_is_told_to_its_handler(broker, bytes_proxy):
    with receiver(bytes_proxy.port) as app:
        app.wait_for("connected")
        broker.wait_for_log("large/#")
        bytes_proxy.cut(4000, "down")
        bytes_proxy.rst()
        app.wait_for("connected")
        broker.peer().publish("large/x", content(9000), qos=0)
        app.wait_for("broken")
        app.wait_for("connected")
        broker.peer().publish("large/x", content(8000), qos=0)
        app.wait_for("got 8000 8000")
    assert app.report().count("begin") == 2


def test_a_slow_reader_keeps_the_connection(broker, proxy):
    """Pings go on while nothing is read; an acknowledgement behind the payload is not missed."""
    with start(
        """
        async def main():
            client = make(max_packet=512, keepalive_s=1, ack_timeout_s=1, handler_timeout_s=1)

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
        proxy.port,
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        broker.peer().publish("large", content(50_000))
        app.wait_for("begin")
        app.send("publish")
        app.wait_for("got True|acknowledged")
        app.wait_for("got True|acknowledged")
        app.send("leave")
        app.wait()
    assert proxy.connections == 1
    assert len(proxy.seen("PINGREQ")) > 3
    assert "runs for over" not in app.report()


def test_a_reader_that_pauses_too_long_loses_the_connection(broker, proxy):
    with start(
        """
        async def main():
            soonest()
            client = make(max_packet=512)
            pause = 11

            @client.on("large", qos=1, stream=True)
            async def large(message):
                nonlocal pause
                print("begin")
                await message.stream.read(100)
                await asyncio.sleep(pause)
                pause = 0
                print("got", *await drink(message.stream))

            async with client:
                await told("leave")
        """,
        proxy.port,
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        broker.peer().publish("large", content(50_000))
        app.wait_for("connection lost: no progress of a stream for 10 s", 30)
        app.wait_for("connected")
        app.wait_for(f"got {digest(content(50_000)[100:])} 49900")
        proxy.wait_for("PUBACK", "up")
    assert app.lines.count("begin") == 2
    assert acks(proxy) == [1]


def test_a_broker_that_stalls_in_a_payload_loses_the_connection(broker, bytes_proxy):
    with receiver(bytes_proxy.port) as app:
        broker.wait_for_log("large/#")
        bytes_proxy.delay(100)
        broker.peer().publish("large/x", content(MB), qos=1)
        app.wait_for("begin")
        bytes_proxy.stall_down()
        app.wait_for("connection lost: no progress of a stream for 10 s", 30)
        bytes_proxy.heal()
        app.wait_for(f"got {MB} {MB} {digest(content(MB))}")


def test_what_a_handler_leaves_unread_is_skipped_and_acknowledged(broker, proxy):
    with start(
        """
        async def main():
            client = make(max_packet=512)

            @client.on("early/#", qos=1, stream=True)
            async def early(message):
                print("early", message.topic, await message.stream.read(3))
                if message.topic.endswith("raise"):
                    raise ValueError("mine")
                if message.topic.endswith("late"):
                    await asyncio.wait_for_ms(until(lambda: False), 20)

            async with client:
                await told("leave")
        """,
        proxy.port,
    ) as app:
        broker.wait_for_log("early/#")
        peer = broker.peer()
        for topic in ("early/return", "early/raise", "early/late", "early/return"):
            peer.publish(topic, content(90_000))
            app.wait_for(f"early {topic} b'")
        peer.publish("early/return", b"small")
        app.wait_for("early early/return b'sma'")
        app.send("leave")
        app.wait()
    assert acks(proxy) == [1, 2, 3, 4, 5]
    assert proxy.connections == 1
    assert "handler of 'early/#' failed: ValueError('mine',)" in app.report()
    assert "handler of 'early/#' failed: TimeoutError" in app.report()


def test_large_and_small_messages_are_handled_and_acknowledged_in_order(broker, proxy):
    with start(
        """
        async def main():
            client = make(max_packet=512)

            @client.on("a", qos=1, stream=True)
            async def a(message):
                hash, length = await drink(message.stream)
                await asyncio.sleep_ms(length % 7)
                print("a", length)

            @client.on("b", qos=1)
            async def b(message):
                print("b", len(message.payload))

            async with client:
                await told("leave")
        """,
        proxy.port,
    ) as app:
        broker.wait_for_log("b (QoS 1)")
        peer = broker.peer()
        sizes = [random.choice((10, 300, 600, 5000)) + number for number in range(30)]
        print(sizes)
        for size in sizes:
            peer.publish("a", content(size))
            peer.publish("b", content(size % 300))
        proxy.wait_for("PUBACK", "up", 2 * len(sizes))
        app.send("leave")
        app.wait()
    assert [line for line in app.lines if line[0] == "a"] == [f"a {size}" for size in sizes]
    assert [line for line in app.lines if line[0] == "b"] == [f"b {s % 300}" for s in sizes]
    sent = [each.packet_id for each in proxy.seen("PUBLISH", "down")]
    assert acks(proxy) == sent
    assert proxy.connections == 1


def test_handlers_that_confirm_do_not_block_each_other(broker, proxy):
    """The acknowledgement that one waits for is behind the next payload: it has to be read."""
    with receiver(proxy.port) as app:
        broker.wait_for_log("large/#")
        peer = broker.peer("seen")
        other = broker.peer()
        sizes = [5000, 6000, 100, 200, 7000, 300, 8000]
        proxy.stall_down()
        for size in sizes:
            other.publish("large/x", content(size), qos=1)
        proxy.heal()
        peer.wait_for(len(sizes))
        app.send("leave")
        app.wait()
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
    with start(
        f"""
        async def main():
            client = make(max_packet=512, protocol=5)

            @client.on("large", qos=1, stream=True)
            async def large(message):
                await drink(message.stream)
                await asyncio.sleep_ms(100)  # the reader has met the next one
                await {wait}
                print("done", message.length)

            @client.on("ask", qos=1)
            async def ask(message):
                await client.respond(message, "re")

            async with client:
                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("ask (QoS 1)")
        other = broker.peer()
        sizes = [5000, 300, 6000, 200, 7000]
        for size in sizes:
            other.publish("large", content(size), qos=1)
        for _ in sizes:
            app.wait_for("done", 8)
        app.send("leave")
        app.wait()
    done = [int(line.split()[1]) for line in app.lines if line.startswith("done")]
    assert sorted(done) == sorted(sizes)
    assert "lost" not in app.report()


def test_a_handler_may_not_wait_for_what_is_behind_its_payload(broker):
    with start(
        """
        async def main():
            client = make(max_packet=512, protocol=5)

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
                print("got", *await drink(message.stream))
                await client.publish("x/2", qos=1)
                await client.subscribe("y", timeout_s=5)
                print("told")

            @client.on("small", stream=True)
            async def small(message):
                await client.publish("x/3", qos=1)

            async with client:
                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("small (QoS 0)")
        peer = broker.peer("x/+")
        peer.publish("large", content(50_000))
        app.wait_for(f"got {digest(content(50_000))}")
        app.wait_for("told")
        peer.publish("small", b"1")
        peer.wait_for(4)
    assert sorted(topic for topic, _ in peer.received) == ["x/0", "x/1", "x/2", "x/3"]
    assert "failed" not in app.report()


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_disconnect_while_a_payload_is_read(broker, proxy, where):
    with start(
        """
        async def main():
            client = make(max_packet=512)

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
        proxy.port,
        names=f"WHERE = {where!r}",
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        broker.peer().publish("large", content(9000))
        app.wait_for("begin")
        if where == "outside":
            app.send("leave")
        app.wait_for("ended")
    assert acks(proxy) == []


def test_an_unsubscribed_handler_lets_the_payload_pass(broker, proxy):
    with start(
        """
        async def main():
            client = make(max_packet=512)

            @client.on("large", qos=1, stream=True)
            async def large(message):
                print("begin", message.length)
                await told("on")
                print("got", *await drink(message.stream))

            async with client:
                await told("unsubscribe")
                await until(lambda: client.stats.received == 2)
                asyncio.create_task(client.unsubscribe("large"))
                await asyncio.sleep_ms(100)
                print("unsubscribed")
                await told("leave")
        """,
        proxy.port,
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        peer = broker.peer()
        peer.publish("large", content(100))
        app.wait_for("begin 100")
        peer.publish("large", content(9000))
        proxy.wait_for("PUBLISH", "down", 2)
        app.send("unsubscribe")
        app.wait_for("unsubscribed")
        app.send("on")
        app.wait_for(f"got {digest(content(100))} 100")
        assert [each.packet_id for each in proxy.wait_for("PUBACK", "up", 2)] == [1, 2]
        proxy.wait_for("UNSUBACK")
    assert proxy.connections == 1


def test_a_slow_handler_is_acknowledged_after_reading_as_any_other(broker, proxy):
    with start(
        """
        async def main():
            client = make(max_packet=512, handler_timeout_s=1)

            @client.on("large", qos=1, stream=True)
            async def large(message):
                print("got", *await drink(message.stream, 9000, 100))
                await told("on")
                print("returned")

            async with client:
                await told("leave")
        """,
        proxy.port,
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        broker.peer().publish("large", content(50_000))
        app.wait_for("got")
        app.wait_for("handler of 'large' runs for over 1 s: message acknowledged, handler goes on")
        proxy.wait_for("PUBACK", "up")
        app.send("on")
        app.wait_for("returned")
        app.send("leave")
        app.wait()
    assert acks(proxy) == [1]


def test_a_handler_may_be_declared_while_connected(broker):
    with start(
        """
        async def main():
            client = make(max_packet=512)
            async with client:
                await client.wait_connected()

                @client.on("large", qos=1, stream=True)
                async def large(message):
                    print("got", *await drink(message.stream))

                await told("leave")
        """,
        broker.port,
    ) as app:
        broker.wait_for_log("large (QoS 1)")
        broker.peer().publish("large", content(9000))
        app.wait_for(f"got {digest(content(9000))} 9000")


@pytest.mark.parametrize("owner, name", [("asyncio", "create_task"), ("Transport", "read")])
def test_a_payload_for_which_memory_ran_out_comes_again(broker, proxy, owner, name):
    with start(
        """
        from mqtt_as_tls.transport import Transport

        async def main():
            soonest()
            client = make(max_packet=512)

            @client.on("large", qos=2, stream=True)
            async def large(message):
                if FAIL == "read" and message.length > 100_000 and not message.dup:
                    fail_once(Transport, "read")
                print("got", *await drink(message.stream))

            async with client:
                await told("fail")
                if FAIL == "create_task":
                    fail_once(asyncio, "create_task")
                print("will fail")
                await told("leave")
                print("lanes", len(client._dispatcher.others))
        """,
        proxy.port,
        names=f"FAIL = {name!r}",
    ) as app:
        broker.wait_for_log("large (QoS 2)")
        peer = broker.peer()
        peer.publish("large", content(9000))
        app.wait_for("got")
        app.send("fail")
        app.wait_for("will fail")
        peer.publish("large", content(200_000), qos=2)
        app.wait_for("connection lost: MemoryError|connection lost: no memory")
        app.wait_for(f"got {digest(content(200_000))} 200000")
        app.send("leave")
        app.wait_for("lanes 1")  # that of the iterator
        app.wait()
    assert proxy.connections == 2


# Out: what is published from a stream


UPLOADER = """
async def main():
    soonest()
    client = make(**OPTIONS)
    async with client:
        for size in SIZES:
            code = await client.publish("up", Source(size, size, MOST), length=size, qos=QOS)
            print("published", size, code)
    print("over")
"""


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_streams_of_every_size_are_published_as_they_are(broker, protocol, qos):
    names = f"OPTIONS = {{'protocol': {protocol}, 'max_packet': 512}}\n"
    names += f"SIZES = {SIZES}; QOS = {qos}; MOST = 700"
    peer = broker.peer("up", qos=2)
    with start(UPLOADER, broker.port, names=names) as app:
        app.wait_for("over")
        peer.wait_for(len(SIZES))
    assert [m.payload for m in peer.messages] == [content(size, size) for size in SIZES]
    assert {m.qos for m in peer.messages} == {qos}
    assert len([line for line in app.lines if line.startswith("published")]) == len(SIZES)


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("qos", [1, 2])
def test_an_upload_cut_anywhere_begins_again(broker_of, kind, qos):
    size = 60_000
    with broker_of(kind) as (broker, proxy, launch):
        peer = broker.peer("up", qos=2)
        cuts = [random.randrange(60 if kind == "tcp" else 2000, size) for _ in range(5)]
        print("cut after", cuts)
        app = """
async def main():
    soonest()
    client = make(**OPTIONS)
    async with client:
        for number in range(1, 6):
            await told("next")
            await client.publish("up", Source(SIZE, number), length=SIZE, qos=QOS)
            print("published", number)
        await told("leave")
"""
        app = app.replace("SIZE", str(size)).replace("QOS", str(qos))
        with launch(app, max_packet=512) as app:
            app.wait_for("connected")
            for number, cut in enumerate(cuts, 1):
                proxy.cut(cut, "up")
                proxy.rst()  # what passes is counted from the start of the next connection
                app.wait_for("connected")
                app.send("next")
                app.wait_for("connected")
                app.wait_for(f"published {number}")
            app.send("leave")
            app.wait()
        peer.wait_for(5)
    assert [m.payload for m in peer.messages] == [content(size, n) for n in range(1, 6)]


def test_an_upload_of_qos_0_that_was_cut_while_it_was_sent_begins_again(broker, bytes_proxy):
    peer = broker.peer("up")
    bytes_proxy.cut(random.randrange(60, MB))
    names = f"OPTIONS = {{}}; SIZES = [{12 * MB}]; QOS = 0; MOST = {MB}"
    with start(UPLOADER, bytes_proxy.port, names=names) as app:
        app.wait_for("over", 40)
    assert digest(peer.wait_for()[0].payload) == digest(content(12 * MB, 12 * MB))
    assert bytes_proxy.connections == 2


def test_an_upload_is_sent_again_with_dup_and_its_id(broker, proxy):
    proxy.swallow("PUBACK", "down", times=1)
    with start(
        UPLOADER,
        proxy.port,
        names="OPTIONS = {'ack_timeout_s': 1}; SIZES = [9000]; QOS = 1; MOST = 9000",
    ) as app:
        peer = broker.peer("up")
        app.wait_for("over")
        peer.wait_for(2)
    sent = proxy.seen("PUBLISH", "up")
    assert [(each.packet_id, each.dup) for each in sent] == [(1, False), (1, True)]
    assert [each.payload for each in sent] == [content(9000, 9000)] * 2


def test_a_stream_is_read_from_where_it_stood_at_the_call(broker, bytes_proxy):
    peer = broker.peer("up")
    bytes_proxy.cut(3000, "up")
    check(
        """
        import io

        async def main():
            soonest()
            client = make()
            stream = io.BytesIO(content(9000))
            stream.seek(100)
            async with client:
                await client.publish("up", stream, length=8000, qos=1)
            assert client.stats.connects == 2
        """,
        bytes_proxy.port,
    )
    assert peer.wait_for()[0].payload == content(9000)[100:8100]


def test_a_stream_that_cannot_seek_is_not_sent_again(broker, bytes_proxy):
    peer = broker.peer("up/#")
    bytes_proxy.cut(3000, "up")
    check(
        """
        async def main():
            soonest()
            client = make()
            async with client:
                with raises(ConnectError, "has no seek()"):
                    await client.publish("up", Slow(9000, 20, 300), length=9000)
                await client.publish("up/again", Slow(9000, 1, 700), length=9000)
        """,
        bytes_proxy.port,
    )
    assert [(m.topic, m.payload) for m in peer.wait_for()] == [("up/again", content(9000))]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("how", ["ends", "raises"])
def test_a_stream_that_fails_is_told_and_never_sent_again(broker, proxy, qos, how):
    peer = broker.peer("#", qos=2)
    check(
        """
        class Bad(Source):
            def readinto(self, buf):
                if self._at < 5000:
                    return super().readinto(buf)
                if HOW == "ends":
                    return 0
                raise OSError(5)

        async def main():
            soonest()
            client = make(max_packet=512)
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
        """.replace("QOS", str(qos)).replace("HOW", repr(how)),
        proxy.port,
    )
    for topic in ("after", "last"):  # QoS 2 may come to the peer behind QoS 1
        peer.wait_for(1, topic=topic)
    assert sorted(topic for topic, _ in peer.received) == ["after", "before", "behind", "last"]
    clean = [each.raw[9] >> 1 & 1 for each in proxy.seen("CONNECT")]
    assert clean == [0, 1 if qos else 0], "a session that had the message is not resumed"


def test_a_stream_that_stalls_is_told_and_never_sent_again(broker, proxy):
    peer = broker.peer("#", qos=2)
    check(
        """
        class Stuck(Source):
            async def readinto(self, buf):
                if self._at > 2000:
                    await asyncio.sleep(60)
                return super().readinto(buf)

        async def main():
            soonest()
            client = make(max_packet=512)
            async with client:
                with raises(ConnectError, "the stream gave nothing for 10 s"):
                    await client.publish("up", Stuck(9000), length=9000, qos=1)
                await client.publish("last", qos=1)
        """,
        proxy.port,
        timeout_s=40,
    )
    assert peer.wait_for()[0].topic == "last"


def test_an_upload_that_the_broker_does_not_take_begins_again(broker, bytes_proxy):
    peer = broker.peer("up")
    with start(
        UPLOADER,
        bytes_proxy.port,
        names=f"OPTIONS = {{}}; SIZES = [{20 * MB}]; QOS = 1; MOST = {MB}",
    ) as app:
        app.wait_for("connected")
        bytes_proxy.stall_up()
        app.wait_for("connection lost: no progress", 60)
        bytes_proxy.heal()
        app.wait_for("published", 60)
    assert len(peer.wait_for()[-1].payload) == 20 * MB


def test_an_upload_may_take_longer_than_the_deadlines_of_packets(broker, bytes_proxy):
    """Nor may what waits for an acknowledgement, or for its turn, suffer from it."""
    peer = broker.peer("#", qos=2)
    check(
        """
        async def main():
            client = make(max_packet=512, keepalive_s=2, ack_timeout_s=1)
            async with client:
                up = asyncio.create_task(client.publish("up", Slow(9000, 300, 700), length=9000))
                await asyncio.sleep_ms(500)
                await client.subscribe("x")
                await up
                await client.publish("last", qos=1)
            print(client.stats.connects)
        """,
        bytes_proxy.port,
    )
    assert peer.wait_for(2)[0].payload == content(9000)
    assert bytes_proxy.connections == 1


def test_several_uploads_and_messages_both_ways_at_once(broker, proxy):
    peer = broker.peer("up/#", qos=2)
    with start(
        """
        async def main():
            client = make(max_packet=512)

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
        proxy.port,
    ) as app:
        broker.wait_for_log("down (QoS 1)")
        other = broker.peer()
        app.send("go")
        for number in range(10):
            other.publish("down", content(50 if number % 3 else 30_000 + number))
        app.wait_for("all")
        peer.wait_for(10, topic="up/seen")
        app.send("leave")
        app.wait()
    for number in range(3):
        assert [m.payload for m in peer.messages if m.topic == f"up/{number}"] == [
            content(100_000 + number)
        ]
    assert len(peer.wait_for(40, topic="up/chat")) == 40
    for number in range(10):
        size = 50 if number % 3 else 30_000 + number
        assert f"down {size} {digest(content(size))}" in app.lines
    assert proxy.connections == 1


def test_a_time_out_takes_back_an_upload_of_which_nothing_was_sent(broker, proxy):
    peer = broker.peer("#")
    proxy.refuse()
    with start(
        """
        async def main():
            soonest()
            client = make(max_packet=512)
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
        proxy.port,
    ) as app:
        app.wait_for("back")
        proxy.heal()
        assert app.wait().code == 0, app.report()
    peer.wait_for(2)
    assert [topic for topic, _ in peer.received] == ["b", "c"]
    assert peer.messages[0].payload == content(9000)


def test_disconnect_waits_for_an_upload_as_long_as_drain_s(broker, proxy):
    peer = broker.peer("#")
    out = check(
        """
        async def main():
            client = make(max_packet=512, drain_s=5)
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
        proxy.port,
    )
    assert out.count("disconnected") == 3
    peer.wait_for(2)
    assert [topic for topic, _ in peer.received] == ["up", "last"]
    assert [each.raw[9] >> 1 & 1 for each in proxy.seen("CONNECT")] == [0, 0, 1]


def test_mistakes_with_streams_are_told_at_the_call(broker):
    out = check(
        """
        import io

        class Reader:
            def readinto(self, buf):
                return 0

        async def main():
            client = make(max_packet=512)
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
        broker.port,
    )
    assert "qos 3" in out


def test_a_lost_session_has_an_upload_sent_anew_or_told(tmp_path):
    with (
        Broker(tmp_path / "b", "tcp", persistence=True) as broker,
        Proxy(broker.port) as proxy,
    ):
        with start(
            """
            async def main():
                soonest()
                client = make(max_packet=512)
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
            proxy.port,
        ) as app:
            proxy.swallow("PUBACK")
            proxy.swallow("PUBREC")
            proxy.wait_for("PUBREC", "down")
            proxy.heal()  # before the next connection
            broker.restart(wipe=True)
            app.wait_for("done", 40)
        sent = proxy.seen("PUBLISH", "up")
        assert [each.payload for each in sent[-1:]] == [content(9000, 1)]
        assert not sent[-1].dup


def test_a_largest_packet_that_the_app_names_is_told_the_broker(proxy):
    """Else with a handler of large payloads there is no largest one."""
    check(
        """
        async def main():
            for size in (None, 70000):
                more = {"maximum_packet_size": size} if size else None
                client = make(protocol=5, properties=more, session_expiry_s=0)
                client.on("large", stream=True)(print)
                async with client:
                    await client.wait_connected()
        """,
        proxy.port,
    )
    sizes = [b"\x27\0\1\x11\x70" in each.body for each in proxy.seen("CONNECT")]
    assert sizes == [False, True]
    assert b"\x27" not in proxy.seen("CONNECT")[0].body


def test_a_broker_that_takes_no_such_packet_is_obeyed(tmp_path):
    with Broker(tmp_path / "b", "tcp", max_packet=5000) as broker:
        check(
            """
            async def main():
                client = make(max_packet=512, protocol=5)
                async with client:
                    with raises(RefusedError) as caught:
                        await client.publish("up", Source(9000), length=9000, qos=1)
                    assert caught.error.code == 149, caught.error.code
                    await client.publish("up", Source(4000), length=4000, qos=1)
            """,
            broker.port,
        )


def test_a_payload_passes_through_a_device(broker):
    """What comes in goes out again, without ever being in memory."""
    peer = broker.peer("out")
    with start(
        """
        async def main():
            client = make(max_packet=512)

            @client.on("in", qos=1, stream=True)
            async def pass_on(message):
                await client.publish("out", message.stream, length=message.length)
                print("passed")

            async with client:
                await told("leave")
        """,
        broker.port,
        heap="190K",
    ) as app:
        broker.wait_for_log("in (QoS 1)")
        broker.peer().publish("in", content(MB))
        app.wait_for("passed")
        assert peer.wait_for()[0].payload == content(MB)


# Memory


@pytest.fixture
def pico(monkeypatch):
    """The 32-bit interpreter with the package frozen in and TLS memory from the heap."""
    try:
        program = freeze.unix(32)
    except freeze.Unavailable as reason:
        pytest.skip(f"memory was not tested: {reason}")
    monkeypatch.setenv("MICROPYTHON", str(program))
    monkeypatch.setenv("MQTT_FROZEN", "1")


@pytest.mark.timeout(900)  # it may build the interpreter
def test_a_megabyte_passes_both_ways_through_64_kb(pico, tls_broker, pki):
    """TLS itself takes 38 KB while it connects; the heap has 64 KB more than that."""
    peer = tls_broker.peer("up")
    with secure.start(
        TOOLS + RECEIVER_AND_SENDER,
        tls_broker.port,
        secure.files(pki.ca),
        heap=HEAP,
    ) as app:
        app.wait_for("connected")
        tls_broker.wait_for_log("down (QoS 1)")
        tls_broker.peer().publish("down", content(MB, 1))
        app.wait_for(f"down {digest(content(MB, 1))} {MB}", 60)
        app.send("up")
        app.wait_for("up", 60)
        app.send("leave")
        assert app.wait().code == 0, app.report()
    assert digest(peer.wait_for()[0].payload) == digest(content(MB, 2))


HEAP = f"{38 + 64}K"
RECEIVER_AND_SENDER = f"""
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
