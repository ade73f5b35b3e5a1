"""
Packets that no server may send, one a connection: the client says which rule was broken, closes,
and goes on with its session on the next connection.
"""

import functools
import re

import pytest

from tests.support import apps
from tests.support import bad_packets as bad
from tests.support.bad_packets import PROTOCOL_ERROR, TOO_LARGE, connack, message, packet
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker, in_order
from tests.support.five import field, suback

BOTH = pytest.mark.parametrize("protocol", [4, 5])
BYE = (0xE0, b"")
# bytes that a connection may take: its own, a packet as it came, and its topic or payload again
ROOM = 8192 + 2 * bad.MAX_PACKET

APP = """
from tests.device.inside import (
    collect_before_connect, doubt_nothing, explain_nothing, keep_loaded, no_reserve, watch_failures
)

class Watched:
    # every reconnect at once; what ended a connection, and the bytes taken meanwhile, in order

    def __init__(self):
        keep_loaded()
        no_reserve()
        doubt_nothing()  # it is to be subscribed in every case
        import mqtt_as_tls.oversized  # or what they take would seem to be lost
        import mqtt_as_tls.repeats

        self.failed = watch_failures(self)
        explain_nothing()
        collect_before_connect()
        self.base = None

    def __call__(self, client, error, old):
        took = 0 if self.base is None else gc.mem_alloc() - self.base
        self.failed(client, error, old)
        said = type(error).__name__, getattr(error, "code", None), took, repr(str(error))
        error = None
        gc.collect()
        self.base = gc.mem_alloc()
        print("end", self.base, *said)
        return 0


async def main():
    soonest()
    watched = Watched()
    protocol = int(sys.argv[2])
    client = make(protocol=protocol, log=None, **eval(sys.argv[3]))
    received = []

    @client.on("end", qos=1)
    def handler(message):
        received.append(message.payload)

    async with client:
        await until(lambda: received)
        await client.publish("out", "x", qos=1)
"""


class Server(FakeBroker):
    """
    Plays one case a connection, between a good connection and a last good exchange.

    cases  list of (before CONNACK: bool, (name, bytes, reason code))

    pieces  bool, send single bytes
    close   bool, close after the bytes of the case
    connack  function of session present (bool): what answers CONNECT

    ends     list: the packets that the client sent after its CONNECT, for each case
    hellos   list of the flags of every CONNECT
    """

    def __init__(self, protocol, cases, pieces=False, close=False, connack=None):
        self.protocol = protocol
        self.cases = cases
        self.ends = [None] * len(cases)
        self.hellos = []
        self._pieces = pieces
        self._close = close
        self._connack = connack or functools.partial(bad.connack, protocol)
        # after a CONNECT without an answer it subscribes once more, until there is a SUBACK
        self._renews = False
        super().__init__(self._play)

    def _play(self, connection):
        number = connection.number - 2
        first, body = connection.packet()
        assert first == 0x10
        self.hellos.append(body[7])
        present = self._connack(connection.number > 1 and not body[7] & 2)
        if number < 0:
            connection.send(present)
            self._subscribed(connection, *connection.packet())
        elif number < len(self.cases):
            early, (_, data, _) = self.cases[number]
            self.ends[number] = end = self._end(connection, data if early else present + data)
            if self._renews and end and end[0][0] == 0x82:
                end.pop(0)
            self._renews = self._renews or early
        else:
            connection.send(present)
            connection.send(message(self.protocol, b"end", b"bye", 1, 3))
            first, body = connection.packet()
            if first == 0x82:  # garbage may be a CONNACK: the session is a new one
                self._subscribed(connection, first, body)
                first, body = connection.packet()
            assert (first, body) == (0x40, b"\0\3"), (first, body)
            first, body = connection.packet()
            assert first == 0x32 and body[:5] == b"\0\3out", (first, body)
            connection.send(packet(0x40, body[5:7]))
            assert connection.until_closed() == [BYE]

    def _subscribed(self, connection, first, body):
        assert first == 0x82, first
        end = b"\0" if self.protocol == 5 else b""
        connection.send(packet(0x90, body[:2] + end + b"\1"))

    def _end(self, connection, data):
        packets = []
        connection.sock.settimeout(10)
        try:
            if self._pieces:
                for i in range(len(data)):
                    connection.send(data[i : i + 1])
            else:
                connection.send(data)
            if self._close:
                connection.sock.shutdown(1)
        except OSError:
            pass  # closed by the client, and what it said can be read
        try:
            while True:
                packets.append(connection.packet())
        except TimeoutError:
            packets.append("still open")
        except OSError:
            pass
        return packets

    def play(self, options="{}", timeout_s=60):
        """Run the client through all cases; return [(class, code, bytes, text)], one a case."""
        with self:
            args = self.port, self.protocol, options
            try:
                out = apps.check(APP, *args, timeout_s=timeout_s, heap="8M")
            except AssertionError as error:
                said = str(error)  # a line a case
                raise (self._errors or [AssertionError(said[:500] + said[-3000:])])[0] from None
        ends = re.findall(r"^end (\d+) (\w+) (\w+) (-?\d+) (.*)$", out, re.M)
        assert len(ends) == len(self.cases) + 1, out[-2000:]
        bases = [int(end[0]) for end in ends]
        grown = min(bases[-20:]) - min(bases[1:20])  # the first failure leaves some for good
        assert grown < 1024, f"{grown} bytes more than before"
        return [(name, code, int(took), text) for _, name, code, took, text in ends[1:]]


def refused(protocol, cases, options="{}", **how):
    """Play `cases` and assert that each ends the connection as it has to."""
    cases = list(cases)
    server = Server(protocol, cases, **how)
    wrong = []
    told = server.play(options)
    # 3.1.1 asks for the session at every CONNECT, 5 at all but the first of a process
    assert server.hellos[0] & 2 == (2 if protocol == 5 else 0)
    assert not [flags for flags in server.hellos[1:] if flags & 2]
    for (_, (name, _, code)), end, (error, _, took, text) in zip(
        cases, server.ends, told, strict=True
    ):
        # 3.1.1 has no word for it, and DISCONNECT would discard the will
        expected = [(0xE0, bytes((code,)))] if protocol == 5 else []
        if (error, end) != ("ProtocolError", expected):
            wrong.append(f"{name}: {error} {text}, the server got {end}")
        elif code != TOO_LARGE and not re.search(r"section|MQTT-", text):
            wrong.append(f"{name}: {text} names no section")
        elif took > ROOM and not how.get("pieces"):  # in pieces it turns over more
            wrong.append(f"{name}: took {took} bytes")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)}", *wrong])


def late(cases):
    """Those after CONNACK."""
    return [(False, case) for case in cases]


@BOTH
def test_a_wrong_packet_ends_the_connection_and_nothing_else(protocol):
    """
    MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-2.2.2-2], [MQTT-2.3.1-1], [MQTT-3.3.1-2],
    [MQTT-3.3.1-4], [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.8.0-1]
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.5-1], [MQTT-2.1.3-1], [MQTT-3.3.1-2],
    [MQTT-3.3.1-4], [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-3.6.1-1], [MQTT-3.14.1-1],
    [MQTT-3.15.1-1], [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.13.2-1]
    """
    cases = late(bad.headers(protocol)) + late(bad.bodies(protocol))
    cases += [(True, case) for case in bad.connacks(protocol)]
    refused(protocol, cases)


@BOTH
def test_a_wrong_packet_is_wrong_in_single_bytes_too(protocol):
    cases = late(bad.headers(protocol))[::5] + late(bad.bodies(protocol))[::2]
    cases += [(True, case) for case in bad.connacks(protocol)][::2]
    refused(protocol, cases, pieces=True)


def test_a_reason_code_that_the_packet_cannot_have_ends_the_connection():
    """
    MQTT 5.0: [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.14.2-1],
    [MQTT-3.15.2-1]
    """
    refused(5, bad.reason_codes())


def test_a_wrong_property_ends_the_connection():
    """
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.5-1], [MQTT-1.5.7-1], [MQTT-2.2.2-1],
    [MQTT-3.3.2-8], [MQTT-3.3.2-13], [MQTT-3.3.2-14], [MQTT-3.3.2-19]
    """
    refused(5, bad.properties())


# Packets that come when they must not


def wrong_answers(protocol):
    """Return functions of a packet id: what does not answer a SUBSCRIBE of two filters."""
    end = b"\0" if protocol == 5 else b""

    def suback(codes):
        return lambda packet_id: packet(0x90, packet_id + end + codes)

    def unsuback(codes):
        return lambda packet_id: packet(0xB0, packet_id + end + codes)

    return [
        suback(b"\1"),
        suback(b"\1\1\1"),
        suback(b"\1\x80\1"),
        unsuback(b"" if protocol == 4 else b"\0\0"),
        suback(b"\1\3" if protocol == 4 else b"\1\x11"),
    ]


@BOTH
def test_an_answer_that_does_not_fit_what_was_asked_ends_the_connection(protocol):
    subscribed = wrong_answers(protocol)
    end = b"\0" if protocol == 5 else b""
    fits = packet(0x90, b"\0\7" + end + b"\1\1")[4:]
    unsubscribed = [lambda n: packet(0x90, n + fits)]  # SUBACK
    if protocol == 5:
        for codes in (b"\0", b"\0\0\0"):
            unsubscribed.append(lambda n, codes=codes: packet(0xB0, n + end + codes))
    ends = []

    def script(connection):
        connection.accept(connack(protocol))
        first, body = connection.packet()
        if subscribed:
            assert first == 0x82
            connection.send(subscribed.pop()(body[:2]))
            ends.append((connection.number, connection.until_closed()))
            return
        if first == 0x82:
            connection.send(packet(0x90, body[:2] + fits))
            first, body = connection.packet()
        assert first == 0xA2
        if unsubscribed:
            connection.send(unsubscribed.pop()(body[:2]))
            ends.append((connection.number, connection.until_closed()))
            return
        connection.send(packet(0xB0, body[:2] + (b"\0\0\x11" if protocol == 5 else b"")))
        ends.append((connection.number, connection.until_closed()))

    count = len(subscribed) + len(unsubscribed)
    out = Device.against(
        script,
        """
        for name in ("a", "b"):
            client.on(name, qos=1)(got)
        async with client:
            await until(lambda: granted(client) == [1, 1])
            client.on("c", qos=1)
            gone = False
            while not gone:
                try:
                    await client.unsubscribe("a", "b")
                    gone = True
                except RefusedError:
                    pass  # three connections ended on it
            assert client.stats.connects == CONNECTS
        """,
        names={"CONNECTS": count + 1},
        protocol=protocol,
    )
    bye = [(0xE0, b"\x82")] if protocol == 5 else []
    assert in_order(ends) == [bye] * count + [[BYE]]
    assert "SUBACK" in out


@BOTH
def test_a_session_after_a_clean_start_ends_the_connection(protocol):
    """MQTT 5.0: [MQTT-3.2.2-4]"""
    ends = []

    def script(connection):
        connection.accept(connack(protocol, connection.number == 1))
        ends.append((connection.number, connection.until_closed()))

    Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
            assert isinstance(client.error, ProtocolError)
        """,
        protocol=protocol,
        clean_start=True,
    )
    assert in_order(ends) == [[(0xE0, b"\x82")] if protocol == 5 else [], [BYE]]


def test_a_topic_alias_that_the_client_did_not_allow_or_does_not_know_ends_the_connection():
    """MQTT 5.0: [MQTT-3.3.2-7], [MQTT-3.3.2-8]"""

    def using(alias, topic=b""):
        return message(5, topic, properties=b"\x23" + alias.to_bytes(2, "big"))

    cases = [
        ("alias 0", using(0, b"t"), bad.ALIAS_INVALID),
        ("alias 0, no topic", using(0), bad.ALIAS_INVALID),
        ("alias 3 of 2", using(3, b"t"), bad.ALIAS_INVALID),
        ("alias 65535", using(65535), bad.ALIAS_INVALID),
        ("unknown", using(1), PROTOCOL_ERROR),
        ("known, then another", using(1, b"t") + using(1) + using(2), PROTOCOL_ERROR),
        ("of an earlier connection", using(1), PROTOCOL_ERROR),
        ("of a packet that was refused", using(2, b"+") + using(2), PROTOCOL_ERROR),
    ]
    refused(5, late(cases), "{'properties': {'topic_alias_maximum': 2}}")


@BOTH
@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
def test_messages_without_end_that_the_server_never_releases_end_nothing(
    tmp_path, protocol, stored
):
    """What it sends again of the last ones is not handled again; the rest may be."""
    several = range(1, 301)

    def script(connection):
        connection.accept(connack(protocol, connection.number > 1))
        if connection.number == 1:
            connection.send(b"".join(message(protocol, b"t", b"x", 2, n) for n in several))
            for n in several:
                assert connection.packet() == (0x50, n.to_bytes(2, "big"))
            return
        for n in (45, 300):
            connection.send(message(protocol, b"t", b"x", 2, n, flags=8))
            assert connection.packet() == (0x50, n.to_bytes(2, "big"))
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await until(lambda: client.stats.received == 302)
            assert client.stats.duplicates == 2
        """,
        protocol=protocol,
        store=tmp_path / "store" if stored else None,
        keepalive_s=100,
    )
    assert out.count("QoS 2 messages without PUBREL") == 1, out


def test_auth_that_does_not_go_on_with_what_began_ends_the_connection():
    """MQTT 5.0: [MQTT-4.12.0-5]"""
    own, other = b"\x15\0\1m", b"\x15\0\1o"

    def auth(code, properties):
        return bad.with_code("AUTH", code, properties)

    def accepting(properties, present=True):
        return packet(0x20, bytes((present, 0, len(properties))) + properties)

    early = [
        ("no method", auth(0x18, b"")),
        ("another method", auth(0x18, other)),
        ("success before CONNACK", auth(0, own)),
        ("no body", b"\xf0\0"),
        ("CONNACK without method", connack(5, True)),
        ("CONNACK with another method", accepting(other)),
        ("CONNACK with data and no method", accepting(b"\x16\0\1x")),
    ]
    here = [
        ("nobody asked", auth(0x18, own)),
        ("nobody asked, success", auth(0, own)),
        ("another method", auth(0x18, other)),
    ]
    cases = [(True, (name, data, PROTOCOL_ERROR)) for name, data in early]
    cases += [(False, (name, data, PROTOCOL_ERROR)) for name, data in here]
    options = "{'auth': ('m', lambda data: b'x')}"
    refused(5, cases, options, connack=functools.partial(accepting, own))


# What is no error


@BOTH
def test_answers_to_nothing_are_answered_or_counted(protocol):
    """
    MQTT 3.1.1: [MQTT-4.3.3-2]
    MQTT 5.0: [MQTT-4.3.3-11]
    """
    sent = []
    expected = []
    unknown = b"\x92" if protocol == 5 else b""
    for name in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK"):
        sent.append((name, bad.GOOD[protocol][name]))
        if protocol == 5:
            codes = sorted(bad.allowed(name))
            sent += [(name, bad.with_code(name, code)) for code in codes]
    if protocol == 5:
        sent += [each for each in bad.accepted() if each[0].startswith(("PUB", "SUB", "UNSUB"))]
    for name, data in sent:
        code = data[4] if protocol == 5 and data[1] > 2 else 0
        if name == "PUBREC" and code < 0x80:
            expected.append((0x62, b"\0\7" + unknown))
        elif name == "PUBREL":
            expected.append((0x70, b"\0\7" + unknown))
    got = []

    def script(connection):
        connection.accept(connack(protocol))
        connection.send(b"".join([data for _, data in sent]) + b"\xd0\0")
        connection.send(message(protocol, b"end", qos=1))
        while (0x40, b"\0\7") not in got:
            got.append(connection.packet())
        connection.send(message(protocol, b"end", b"last"))
        got.extend(connection.until_closed())

    out = Device.against(
        script,
        """
        async with client:
            async for message in client.messages():
                if message.payload == b"last":
                    break
            assert client.stats.connects == 1
            print("stray", strays(client))
        """,
        protocol=protocol,
    )
    assert got == [*expected, (0x40, b"\0\7"), BYE]
    strays = [name for name, _ in sent if name != "PUBLISH"]
    assert f"stray {len(strays)}\n" in out


def test_every_reason_of_a_server_to_refuse_or_to_go_is_told():
    cases = []
    for name in ("CONNACK", "DISCONNECT"):
        codes = sorted(bad.allowed(name) - ({0} if name == "CONNACK" else set()))
        for code in codes:
            data = bad.with_code(name, code, b"\x1f\0\3why\x26\0\1a\0\1b")
            cases.append((name == "CONNACK", (f"{name} {code}", data, code)))
    cases.append((False, ("DISCONNECT, short", b"\xe0\0", 0)))
    cases.append((False, ("DISCONNECT, 1 byte", b"\xe0\1\x8b", 0x8B)))
    cases.append((False, ("DISCONNECT, all", dict(bad.accepted())["DISCONNECT"], 0)))
    server = Server(5, cases)
    for (_, (name, _, code)), told, end in zip(cases, server.play(), server.ends, strict=True):
        assert told[:2] == ("RefusedError", str(code)) and end == [], (name, told, end)


def test_a_connack_with_all_that_it_may_have_is_taken():
    said = dict(bad.accepted())["CONNACK"]
    Device.against(
        lambda c: (c.accept(said), c.until_closed()),
        """
        async with client:
            await client.wait_connected()
            assert len(client.properties) == 15, client.properties
        """,
        protocol=5,
        client_id="",
    )


# Properties, which take many times their bytes


PAIRS = b"".join([b"\x26" + field(b"%03d" % n) + field(b"v") for n in range(440)])


def test_of_too_many_user_properties_the_first_are_kept():
    def script(connection):
        connection.accept(connack(5))
        connection.send(message(5, b"t", properties=PAIRS))
        connection.until_closed()

    Device.against(
        script,
        """
        async with client:
            messages = client.messages()
            await client.wait_connected()
            gc.collect()
            before = gc.mem_alloc()
            async for message in messages:
                gc.collect()
                assert gc.mem_alloc() - before < 16000, gc.mem_alloc() - before
                pairs = message.properties["user_property"]
                assert pairs == [("%03d" % n, "v") for n in range(64)], pairs
                break
        """,
        protocol=5,
        heap="8M",
    )


def with_properties(connection, answered):
    """Send 100 messages with 60 properties each, and then one that their handler waits for."""
    connection.accept(connack(5))
    _, body = connection.packet()
    if answered:
        connection.send(suback(body, 0, 0))
    for _ in range(100):
        connection.send(message(5, b"t", properties=PAIRS[: 60 * 9]))
    connection.send(message(5, b"end"))
    connection.until_closed()


WAITS_FOR_END = """
ended = []
looked = []

@client.on("t")
async def handler(message):
    await until(lambda: ended and looked)

client.on("end")(ended.append)
async with client:
    await client.wait_connected()
    gc.collect()
    before = gc.mem_alloc()
    free = gc.mem_free()
    await until(lambda: client.stats.received == 101)
    gc.collect()
    took = gc.mem_alloc() - before
    left = gc.mem_free()
    looked.append(True)
    await until(lambda: ended)
"""


def test_what_properties_take_counts_in_the_backlog():
    Device.against(
        lambda connection: with_properties(connection, True),
        f"""{WAITS_FOR_END}
    assert took < 3 * client.max_backlog
    assert client.stats.dropped > 90
        """,
        protocol=5,
        keepalive_s=4,  # reading waits for 3 s
        heap="8M",
    )


def test_what_is_put_aside_with_properties_leaves_half_of_the_memory_free():
    """A SUBSCRIBE is without its answer: one may wait for that."""
    Device.against(
        lambda connection: with_properties(connection, False),
        f"""{WAITS_FOR_END}
    assert left > free // 2 - client.max_backlog, (free, left)
    assert client.stats.dropped > 20
    assert client.stats.connects == 1
        """,
        protocol=5,
        keepalive_s=4,
        heap="400K",
    )


# Texts: MicroPython keeps what it takes for a name, and a single character is one


@BOTH
def test_characters_that_were_never_seen_before_leave_nothing_behind(protocol):
    topics = [
        "/".join([chr(n), chr(n) * 9, "".join(map(chr, range(n, n + 90)))]).encode()
        for n in range(0x4E00, 0x9E00, 90)
    ]

    def script(connection):
        connection.accept(connack(protocol))
        connection.packet()
        connection.send(message(protocol, topics[0]))
        connection.packet()
        for topic in topics:
            connection.send(message(protocol, topic))
        connection.send(message(protocol, b"end"))
        connection.until_closed()

    Device.against(
        script,
        """
        ended = []
        client.on("+/x")(print)
        client.on("end")(ended.append)
        async with client:
            await until(lambda: client.stats.received)
            gc.collect()
            before = gc.mem_alloc()
            await client.publish("out")
            await until(lambda: ended)
            assert client.stats.unclaimed > 200
            gc.collect()
            assert gc.mem_alloc() - before < 4000, gc.mem_alloc() - before
        """,
        protocol=protocol,
    )


# Packets that are not whole, and garbage


@BOTH
def test_a_packet_cut_anywhere_is_the_end_of_the_connection_only(protocol):
    goods = [(False, good) for good in bad.GOOD[protocol].values()]
    goods.append((True, connack(protocol)))
    goods.append((False, message(protocol, b"topic", b"payload", 2)))
    if protocol == 5:
        goods += [(name == "CONNACK", good) for name, good in bad.accepted()]
    cases = []
    for early, good in goods:
        for n in range(1, len(good), 1 if len(good) < 20 else 5):
            cases.append((early, (f"{good} cut at {n}", good[:n], None)))
    server = Server(protocol, cases, close=True)
    for case, told, end in zip(cases, server.play(), server.ends, strict=True):
        assert told[0] == "ConnectError" and end == [], (case, told, end)


def test_the_rest_of_a_packet_is_not_waited_for_for_ever():
    def script(connection):
        if connection.number == 1:
            connection.accept(b"\x20\x03\0")
        else:
            connection.accept(connack(5))
        if connection.number == 2:
            connection.send(message(5, b"t", b"payload")[:-1])
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await until(lambda: client.stats.connects == 2)
            assert not client.stats.received
        """,
        protocol=5,
        keepalive_s=1,
        connect_timeout_s=1,
    )
    assert re.search(r"no answer within 1 s \(CONNECT\)", out)
    assert "no answer to a ping for 1 s" in out


@BOTH
def test_garbage_ends_the_connection_and_nothing_else(protocol):
    cases = [(n % 4 == 0, case) for n, case in enumerate(bad.garbage(protocol, 5, 400))]
    server = Server(protocol, cases, close=True)
    codes = set()
    for (_, case), (error, _, took, text), end in zip(
        cases, server.play(), server.ends, strict=True
    ):
        about = case, error, text, end
        assert error in ("ProtocolError", "RefusedError", "ConnectError"), about
        assert took < 4 * ROOM, about
        last = end.pop() if end and end[-1][0] == 0xE0 else None
        assert {first for first, _ in end} <= {0x40, 0x50, 0x62, 0x70, 0x82}, about
        if error == "ProtocolError" and protocol == 5:
            codes.add(last[1][0])
        else:
            assert last is None, about
    assert {0x81, 0x82} <= codes <= {0x81, 0x82, 0x94, 0x95} if protocol == 5 else not codes
