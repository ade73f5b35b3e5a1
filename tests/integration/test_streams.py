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
