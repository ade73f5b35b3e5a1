"""What MQTT 5 asks of a client, against a server that sets limits, refuses and misbehaves."""

import re
import time

import pytest

from tests.support import patience
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker, in_order

BYE = (0xE0, b"")


def connack(properties=b"", present=False, code=0):
    return packet(0x20, bytes((present, code, len(properties))) + properties)


def packet(first, body):
    assert len(body) < 128
    return bytes((first, len(body))) + body


def message(packet_id, payload, qos=1, properties=b"", topic=b"t"):
    """Return a PUBLISH."""
    body = field(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    return packet(0x30 | qos << 1, body + bytes((len(properties),)) + properties + payload)


def field(data):
    return len(data).to_bytes(2, "big") + data


def granted(connection, *codes):
    """Answer the SUBSCRIBE that comes next."""
    first, body = connection.packet()
    assert first == 0x82, first
    connection.send(packet(0x90, body[:2] + b"\0" + bytes(codes)))


def run(script, *program, **options):
    """Run a device of MQTT 5 against `script`; return what it printed."""
    if AUTH not in program:  # which makes its client itself
        options["protocol"] = 5
    return Device.against(script, *program, **options)


# Connecting


def test_a_server_keep_alive_takes_the_place_of_the_clients():
    """MQTT 5.0: [MQTT-3.1.2-20], [MQTT-3.1.2-21], [MQTT-3.2.2-21]"""

    def script(connection):
        hello = connection.accept(connack(b"\x13\0\1"))
        assert hello[8:10] == (600).to_bytes(2, "big")
        for _ in range(2):
            assert connection.packet() == (0xC0, b"")
            connection.send(b"\xd0\0")
        connection.send(message(1, b"end"))
        assert connection.packet()[0] == 0x40
        assert connection.until_closed() == [BYE]

    run(
        script,
        """
        async with client:
            await until(lambda: client.stats.received)
        """,
        keepalive_s=600,
    )


RUNS = """
client.on("t", qos=1)(lambda message: print("got", message.payload))
"""


def test_a_session_ends_with_the_process_and_not_with_a_connection(proxy, broker):
    """MQTT 5.0: [MQTT-3.1.2-4], [MQTT-3.1.2-23], [MQTT-3.1.3-2]"""
    with Device(proxy, RUNS, protocol=5) as device:
        device.subscribed()
        proxy.refuse()
        proxy.rst()
        device.wait_for("connection lost")
        broker.publish("t", "1")
        proxy.heal()
        device.wait_for("connected in .* session resumed")
        device.wait_for("got b'1'")
        device.kill()
    broker.wait_for_log("Client device closed", count=2)
    broker.publish("t", "2")
    with Device(proxy, RUNS, protocol=5) as device:
        device.wait_for("connected in .* session new")
        proxy.wait_for("SUBACK", "down", 2)
        broker.publish("t", "3")
        device.wait_for("got b'3'")
        device.leave()
    assert "got b'2'" not in device.lines
    hellos = [each.body for each in proxy.seen("CONNECT") if each.passed]
    assert [each[7] & 2 for each in hellos] == [2, 0, 2]  # Clean Start


def test_a_client_id_that_the_server_assigned_names_the_session_from_then_on():
    """MQTT 5.0: [MQTT-3.1.3-2], [MQTT-3.1.3-3]"""
    names = {}  # by the connection's number

    def script(connection):
        body = connection.accept(connack(b"\x12\0\4auto", connection.number > 1))
        names[connection.number] = (body[11 + body[10] :], body[7] & 2)
        if connection.number == 1:
            connection.packet()
            return
        connection.until_closed()

    run(
        script,
        """
        async with client:
            await client.wait_connected()
            client.enqueue("t", "x")
            await until(lambda: client.stats.connects == 2)
            assert client.client_id == "auto"
        """,
        client_id="",
    )
    assert names == {1: (b"\0\0", 2), 2: (b"\0\4auto", 0)}


def test_a_session_that_the_client_cannot_have_ends_the_connection():
    """MQTT 5.0: [MQTT-3.2.2-4], [MQTT-4.13.2-1]"""
    ends = []

    def script(connection):
        connection.accept(connack(present=connection.number == 1))
        ends.append((connection.number, connection.until_closed()))

    out = run(
        script,
        """
        async with client:
            await client.wait_connected()
            assert client.stats.connects == 1
        """,
    )
    assert in_order(ends)[0] == [(0xE0, b"\x82")]
    assert "session present after a clean start" in out


# What a server does not take


REFUSED = """
async def refused(code, wait):
    with raises(RefusedError) as caught:
        await wait
    assert caught.error.code == code, caught.error.code
"""


@pytest.mark.parametrize("highest", [0, 1])
def test_no_publish_above_the_maximum_qos(highest):
    """MQTT 5.0: [MQTT-3.2.2-11], [MQTT-3.3.1-4], [MQTT-4.3.1-1]"""
    sent = []

    def script(connection):
        connection.accept(connack(bytes((0x24, highest))))
        for qos in range(highest + 1):
            first, body = connection.packet()
            sent.append(first)
            if qos:
                connection.send(packet(0x40, body[3:5]))
        assert connection.until_closed() == [BYE]

    run(
        script,
        REFUSED,
        """
        async with client:
            await client.wait_connected()
            for qos in (2, 1, 0):
                if qos > HIGHEST:
                    await refused(0x9B, client.publish("t", "x", qos=qos))
            for qos in range(HIGHEST + 1):
                await client.publish("t", "x", qos=qos)
            with raises(ValueError):
                client.publish("t", "x", qos=3)
        """,
        names={"HIGHEST": highest},
    )
    assert sent == [0x30, 0x32][: highest + 1]


def test_what_was_queued_before_the_limits_were_known_keeps_to_them():
    """MQTT 5.0: [MQTT-3.2.2-11], [MQTT-3.2.2-14], [MQTT-3.2.2-15]"""

    def script(connection):
        if connection.number == 1:
            connection.packet()
            return  # no CONNACK: what was queued waits
        limits = b"\x24\0" + b"\x25\0" + b"\x27\0\0\0\x28"  # QoS 0, no retain, 40 bytes
        connection.accept(connack(limits))
        assert connection.packet() == (0x30, b"\0\1t\0" + 34 * b"x")
        assert connection.until_closed() == [BYE]

    out = run(
        script,
        """
        async with client:
            events = client.events()
            client.enqueue("t", "x", qos=1)
            client.enqueue("t", "x", retain=True)
            client.enqueue("t", 35 * "x")
            client.enqueue("t", 34 * "x")
            codes = []
            async for event in events:
                if type(event).__name__ == "Undelivered":
                    codes.append(event.error.code)
                if len(codes) == 3:
                    break
            print(codes)
        """,
    )
    assert "[155, 154, 149]" in out


def test_no_retain_where_there_is_none():
    """MQTT 5.0: [MQTT-3.2.2-14]"""

    def script(connection):
        connection.accept(connack(b"\x25\0"))
        assert connection.packet() == (0x30, b"\0\1t\0y")
        assert connection.until_closed() == [BYE]

    run(
        script,
        REFUSED,
        """
        async with client:
            await client.wait_connected()
            await refused(0x9A, client.publish("t", "x", retain=True))
            await client.publish("t", "y")
        """,
    )


def test_no_packet_of_any_kind_above_the_maximum_packet_size():
    """
    MQTT 5.0: [MQTT-3.2.2-15], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3],
    [MQTT-3.14.2-3], [MQTT-3.14.2-4]
    """
    limit = 40
    sent = []

    def script(connection):
        connection.accept(connack(b"\x27\0\0\0" + bytes((limit,))))
        granted(connection, 1)
        connection.send(message(1, b"reason") + message(2, b"user") + message(3, b"fits"))
        connection.send(message(4, b"reason", 2) + message(5, b"user", 2) + message(6, b"fits", 2))
        for _ in range(6):
            sent.append(connection.packet())
        sent.extend(connection.until_closed())

    run(
        script,
        REFUSED,
        """
        def answer(message):
            message.ack_code = 0x97
            message.ack_properties = {
                b"reason": {"reason_string": 40 * "x"},
                b"user": {"user_property": ("a", 40 * "x")},
                b"fits": {"reason_string": 31 * "x"},
            }[message.payload]

        async with client:
            await client.wait_connected()
            client.on("t", qos=1)(answer)
            await until(lambda: client.stats.received == 6)
            await refused(0x95, client.publish("t", 35 * "x"))
            await refused(0x95, client.publish("t", 33 * "x", qos=1))
            await refused(0x95, client.publish("t", properties={"content_type": 40 * "x"}))
            await refused(0x95, client.subscribe(40 * "f"))
            await refused(0x95, client.unsubscribe(40 * "f"))
            await refused(0x95, client.unsubscribe(18 * "f", 18 * "g"))
            await client.publish("t", 34 * "x")
            await client.disconnect(4, {"reason_string": 40 * "x"})
        """,
        max_backlog=40_000,
    )
    fits = b"\x97\x22\x1f\0\x1f" + 31 * b"x"
    assert sent == [
        (0x40, b"\0\1\x97"),
        (0x40, b"\0\2\x97"),
        (0x40, b"\0\3" + fits),
        (0x50, b"\0\4\x97"),
        (0x50, b"\0\5\x97"),
        (0x50, b"\0\6" + fits),
        (0x30, b"\0\1t\0" + 34 * b"x"),
        (0xE0, b"\4"),
    ]


def test_no_more_is_under_way_than_the_receive_maximum_and_nothing_else_waits_for_it():
    """
    MQTT 5.0: [MQTT-3.3.4-7], [MQTT-3.3.4-8], [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-4.9.0-3]
    """

    def publishes(connection, *payloads):
        """The next packets are PUBLISH with these payloads; nothing follows. Return their ids."""
        ids = []
        for payload in payloads:
            first, body = connection.packet()
            assert (first & 0xF9, body[6:]) == (0x30, payload), (first, body)
            ids.append(body[3:5])
        connection.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.packet()
        connection.sock.settimeout(patience.stretched(20))
        return ids

    def script(connection):
        connection.sock.settimeout(patience.stretched(20))
        connection.accept(connack(b"\x21\0\2" + b"\x13\0\1"))  # two at a time, pings each second
        a, b = publishes(connection, b"0", b"1")
        # with the quota used up
        connection.send(message(7, b"x") + message(8, b"y", 2) + packet(0x62, b"\0\x08"))
        assert [connection.packet() for _ in range(3)] == [
            (0x40, b"\0\7"),
            (0x50, b"\0\x08"),
            (0x70, b"\0\x08"),
        ]
        granted(connection, 0)
        assert connection.packet() == (0xC0, b"")
        connection.send(b"\xd0\0")
        connection.send(packet(0x40, a))  # QoS 1 is done
        (c,) = publishes(connection, b"2")
        connection.send(packet(0x50, b))  # QoS 2: only half
        assert connection.packet() == (0x62, b)
        assert publishes(connection) == []
        connection.send(packet(0x70, b))
        (d,) = publishes(connection, b"3")
        connection.send(packet(0x50, d + b"\x97"))  # refused: done
        (e,) = publishes(connection, b"4")
        connection.send(packet(0x40, c) + packet(0x40, e))
        assert connection.until_closed() == [BYE]

    out = run(
        script,
        """
        async def publish(client, i):
            try:
                await client.publish("t", str(i), qos=1 + i % 2)
            except RefusedError as e:
                print("refused", i, e.code)

        async with client:
            await client.wait_connected()
            tasks = [asyncio.create_task(publish(client, i)) for i in range(5)]
            await until(lambda: client.stats.received == 2)
            await client.subscribe("s")
            await asyncio.gather(*tasks)
        """,
        ack_timeout_s=60,
    )
    assert "refused 3 151" in out


# Topic aliases


def test_no_topic_alias_above_the_maximum_and_none_without_one():
    """MQTT 5.0: [MQTT-3.2.2-17], [MQTT-3.2.2-18], [MQTT-3.3.2-8], [MQTT-3.3.2-9]"""
    sent = []

    def script(connection):
        maximum = (b"\x22\0\2", b"", b"\x22\0\1")[connection.number - 1]
        connection.accept(connack(maximum, connection.number > 1))
        sent.append([connection.packet() for _ in range(6)])
        if connection.number == 3:
            assert connection.until_closed() == [BYE]

    run(
        script,
        """
        async with client:
            for n in range(1, 4):
                await until(lambda: client.connected and client.stats.connects == n)
                for topic in "abcabc":
                    await client.publish(topic, "x")
        """,
        topic_aliases=5,
    )

    def publish(topic, properties=b""):
        return 0x30, field(topic) + bytes((len(properties),)) + properties + b"x"

    a, b, c = (publish(name) for name in (b"a", b"b", b"c"))
    new_a, new_b = publish(b"a", b"\x23\0\1"), publish(b"b", b"\x23\0\2")
    again_1, again_2 = publish(b"", b"\x23\0\1"), publish(b"", b"\x23\0\2")
    assert sent == [
        [new_a, new_b, c, again_1, again_2, c],
        [a, b, c, a, b, c],
        [new_a, b, c, again_1, b, c],
    ]


def test_every_topic_alias_up_to_the_maximum_is_understood_on_its_connection_only():
    """MQTT 5.0: [MQTT-3.3.2-7], [MQTT-3.3.2-10], [MQTT-4.13.2-1]"""
    ends = {}

    def script(connection):
        number = connection.number
        connection.accept(connack(present=number > 1))
        if number == 1:
            granted(connection, 0)
            for alias in (1, 2, 65535):
                properties = b"\x23" + alias.to_bytes(2, "big")
                topic = b"t/%d" % alias
                connection.send(message(0, b"first", 0, properties, topic))
                connection.send(message(0, b"again", 0, properties, b""))
            connection.send(message(0, b"moved", 0, b"\x23\0\1", b"t/x"))
            connection.send(message(0, b"again", 0, b"\x23\0\1", b""))
        elif number == 2:
            connection.send(message(0, b"of an older connection", 0, b"\x23\0\2", b""))
            ends[number] = connection.until_closed()
            return
        elif number == 3:
            connection.send(message(0, b"none", 0, b"\x23\0\0", b"t/0"))
            ends[number] = connection.until_closed()
            return
        else:
            connection.send(message(0, b"end", 0, b"", b"t/end"))
            connection.until_closed()
            return
        connection.packet()

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
            client.on("t/+")(lambda message: print("got", message.topic, message.payload))
            async with client:
                await told("publish")
                await client.publish("t", "x")
                await told("leave")
            """,
            protocol=5,
            properties={"topic_alias_maximum": 65535},
        ) as device,
    ):
        device.wait_for("got t/x b'again'")
        device.send("publish")
        device.wait_for("got t/end")
        device.leave()
    assert device.said("got") == [
        "t/1 b'first'",
        "t/1 b'again'",
        "t/2 b'first'",
        "t/2 b'again'",
        "t/65535 b'first'",
        "t/65535 b'again'",
        "t/x b'moved'",
        "t/x b'again'",
        "t/end b'end'",
    ]
    assert ends == {2: [(0xE0, b"\x82")], 3: [(0xE0, b"\x94")]}  # unknown; not valid


# Acknowledgements


def test_acknowledgements_have_only_their_own_reason_codes():
    """
    MQTT 5.0: [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-4.3.3-9]
    """

    def script(connection):
        connection.accept(connack())
        granted(connection, 2)
        for qos, first in ((1, 0x40), (2, 0x50)):
            for code in (0x97, 0x10, 1, 0x92, 256):
                connection.send(message(5, str(code).encode(), qos))
                # what is no code of theirs becomes "implementation specific error"
                expected = code if code in (0x97, 0x10) else 0x83
                assert connection.packet() == (first, b"\0\5" + bytes((expected,))), code
                if qos == 2 and expected < 128:
                    connection.send(packet(0x62, b"\0\5"))
                    assert connection.packet() == (0x70, b"\0\5")
        # after a PUBREC that refuses there is nothing to release
        connection.send(packet(0x62, b"\0\5"))
        assert connection.packet() == (0x70, b"\0\5\x92")
        connection.send(packet(0x50, b"\0\7"))
        assert connection.packet() == (0x62, b"\0\7\x92")
        connection.send(message(0, b"0", 0))
        assert connection.until_closed() == [BYE]

    out = run(
        script,
        """
        count = 0

        @client.on("t", qos=2)
        def handler(message):
            nonlocal count
            count += 1
            message.ack_code = int(message.payload)

        async with client:
            await until(lambda: count == 11)  # each one is a new message
        """,
    )
    told = re.findall(r"ack_code failed: ValueError.*?(?: \((\d+) more\))?$", out, re.M)
    assert sum(int(more or 1) for more in told) == 6, out


def test_a_refused_delivery_is_over():
    """MQTT 5.0: [MQTT-4.3.3-4], [MQTT-4.4.0-2]"""

    def script(connection):
        connection.accept(connack(present=connection.number > 1))
        if connection.number == 1:
            ids = [connection.packet()[1][3:5] for _ in range(3)]
            connection.send(packet(0x40, ids[0] + b"\x87"))
            connection.send(packet(0x50, ids[1] + b"\x87\x07\x1f\0\4busy"))
            assert connection.packet() == (0xC0, b"")  # no PUBREL
            return
        first, body = connection.packet()
        assert (first, body[3:5]) == (0x3A, b"\0\3")  # the third one only
        connection.send(packet(0x40, b"\0\3"))
        assert connection.until_closed() == [BYE]

    out = run(
        script,
        """
        async def publish(client, qos):
            try:
                return await client.publish("t", "x", qos=qos)
            except RefusedError as e:
                return e.code, e.reason

        async with client:
            await client.wait_connected()
            tasks = [asyncio.create_task(publish(client, qos)) for qos in (1, 2, 1)]
            for task in tasks:
                print(await task)
        """,
        keepalive_s=1,
        log=None,
    ).splitlines()
    assert out[0].startswith("(135, ")
    assert out[1].startswith("(135, ") and "busy" in out[1]
    assert out[2] == "0"


def test_what_expired_is_still_brought_to_its_end():
    """MQTT 5.0: [MQTT-4.3.3-7], [MQTT-4.3.3-13]"""
    expiry = b"\x02\0\0\0\1"  # one second

    def script(connection):
        connection.accept(connack(present=connection.number > 1))
        if connection.number == 1:
            granted(connection, 2)
            connection.send(message(9, b"x", 2, expiry))
            first, body = connection.packet()
            if first == 0x50:
                first, body = connection.packet()
            assert (first, body[:11]) == (0x34, b"\0\1t\0\2\x05" + expiry)
            return
        first, body = connection.packet()
        assert (first, body[:11]) == (0x3C, b"\0\1t\0\2\x05" + expiry)
        time.sleep(1.2)
        connection.send(packet(0x50, b"\0\2") + packet(0x62, b"\0\x09"))
        assert connection.packet() == (0x62, b"\0\2")
        assert connection.packet() == (0x70, b"\0\x09")
        connection.send(packet(0x70, b"\0\2"))
        assert connection.until_closed() == [BYE]

    run(
        script,
        """
        client.on("t", qos=2)(lambda message: None)
        async with client:
            await until(lambda: client.stats.received)
            await client.publish("t", qos=2, properties={"message_expiry_interval": 1})
        """,
    )


# What raises at the call


def test_properties_that_may_not_be_sent_raise_at_the_call(broker):
    """
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1], [MQTT-3.1.2-12], [MQTT-3.3.2-8],
    [MQTT-3.3.2-13], [MQTT-3.3.2-14], [MQTT-3.3.2-19], [MQTT-3.3.4-6], [MQTT-3.8.3-4]
    """
    Device.check(
        broker,
        """
        bad = ("\\0", "a\\0", chr(0xD800))
        wrong = [("response_topic", name) for name in ("a/#", "+", "") + bad]
        wrong += [("content_type", text) for text in bad]
        wrong += [("user_property", (text, "x")) for text in bad]
        wrong += [("user_property", ("x", text)) for text in bad]
        wrong += [("subscription_identifier", 1), ("topic_alias", 0), ("topic_alias", 1)]
        with raises(ValueError):
            Will("t", "x", qos=3)
        async with client:
            await client.wait_connected()
            for pair in wrong:
                with raises(ValueError):
                    client.publish("t", "x", properties=[pair])
            with raises(ValueError, "MQTT-3.8.3-4"):
                client.subscribe("$share/g/t", no_local=True)
            with raises(ValueError, "MQTT-3.8.3-4"):
                client.on("$share/g/t", no_local=True)(print)
            await client.publish("t", "x", qos=1)
            assert client.stats.connects == 1
        """,
        protocol=5,
    )


def test_disconnect_takes_only_its_own_reason_codes():
    """MQTT 5.0: [MQTT-3.14.2-1]"""
    ends = []

    def script(connection):
        connection.accept(connack())
        ends.append((connection.number, connection.until_closed()))

    run(
        script,
        """
        for code in (0, 4, 0x80, 0x98):
            async with client:
                await client.wait_connected()
                for wrong in (1, 5, 0x87, 0x92, 256, "no"):
                    with raises(ValueError):
                        await client.disconnect(wrong)
                assert client.connected
                await client.disconnect(code)
        """,
        log=None,
    )
    assert in_order(ends) == [
        [BYE],
        [(0xE0, b"\4")],
        [(0xE0, b"\x80")],
        [(0xE0, b"\x98")],
    ]


# The server's end of it


@pytest.mark.parametrize(
    "answer, code",
    [
        (packet(0xE1, b""), 0x81),  # DISCONNECT, AUTH with flags
        (packet(0xF1, b"\0"), 0x81),
        (packet(0xE0, b"\1"), 0x82),  # codes that they do not have
        (packet(0xF0, b"\1\0"), 0x82),
        (packet(0xF0, b"\x18\6\x15\0\3abc"), 0x82),  # AUTH that nobody asked for
        (packet(0x36, b"\0\1t\0\1\0"), 0x81),  # QoS 3
        (packet(0x30, b"\0\2\xed\xa0\0"), 0x81),
        (packet(0x40, b"\0\1\1"), 0x82),
    ],
)
def test_malformed_packets_are_answered_with_a_reason_and_the_end(answer, code):
    """
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-2.1.3-1], [MQTT-3.14.1-1], [MQTT-3.14.4-1], [MQTT-3.14.4-2],
    [MQTT-3.15.1-1], [MQTT-4.12.0-7], [MQTT-4.13.2-1]
    """
    ends = []

    def script(connection):
        connection.accept(connack())
        if connection.number == 1:
            connection.send(answer)
        ends.append((connection.number, connection.until_closed()))

    run(
        script,
        """
        async with client:
            await until(lambda: client.stats.connects == 2)
            assert isinstance(client.error, ProtocolError)
        """,
    )
    assert in_order(ends) == [[(0xE0, bytes((code,)))], [BYE]]


def test_a_refusal_ends_the_connection_whatever_the_server_does():
    """MQTT 5.0: [MQTT-4.13.2-1]"""
    ends = []

    def script(connection):
        if connection.number == 1:
            connection.accept(connack(code=0x88))
        else:
            connection.accept(connack())
            if connection.number == 2:
                connection.send(packet(0xE0, b"\x8b"))
        ends.append((connection.number, connection.until_closed()))  # it does not close by itself

    run(
        script,
        """
        async with client:
            await until(lambda: client.error)
            assert client.error.code == 0x88
            await until(lambda: client.stats.connects == 2)
            assert client.error.code == 0x8B
        """,
    )
    assert in_order(ends) == [[], [], [BYE]]


# Enhanced authentication


AUTH = """
asked = []

def step(data):
    asked.append(data)
    if data == b"fail":
        raise ValueError("the server is not who it should be")
    return {None: b"hello", b"who?": b"me"}.get(data)

client = make(protocol=5, auth=("OURS", step), ack_timeout_s=20)

async def begin():
    client.enqueue("t", "queued", qos=1)
    await client.wait_connected()
"""
METHOD = b"\x15\0\4OURS"


def auth(code, data=None, method=METHOD):
    properties = method + (b"" if data is None else b"\x16" + field(data))
    return 0xF0, bytes((code, len(properties))) + properties


def authenticate(connection):
    """Ask once; return when CONNACK was sent."""
    first, body = connection.packet()
    assert first == 0x10 and METHOD in body and b"\x16\0\5hello" in body
    connection.send(packet(*auth(0x18, b"who?")))
    assert connection.packet() == auth(0x18, b"me")
    connection.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.packet()  # what is queued waits for CONNACK
    connection.sock.settimeout(patience.stretched(20))
    connection.send(connack(METHOD + b"\x16\0\3yes"))
    first, body = connection.packet()
    assert first == 0x32
    connection.send(packet(0x40, body[3:5]))


def test_only_auth_is_sent_until_the_server_has_agreed():
    """
    MQTT 5.0: [MQTT-3.1.2-30], [MQTT-3.15.1-1], [MQTT-3.15.2-1], [MQTT-4.12.0-3], [MQTT-4.12.0-5]
    """

    def script(connection):
        authenticate(connection)
        assert connection.until_closed() == [BYE]

    out = run(
        script,
        AUTH,
        """
        async with client:
            await begin()
            await until(lambda: not to_send(client))
        print(asked)
        """,
    )
    assert "[None, b'who?', b'yes']" in out


def test_authenticating_again_keeps_the_method():
    """MQTT 5.0: [MQTT-3.15.2-1], [MQTT-4.12.0-3], [MQTT-4.12.0-5], [MQTT-4.12.1-1]"""

    def script(connection):
        authenticate(connection)
        assert connection.packet() == auth(0x19, b"hello")
        connection.send(packet(*auth(0x18, b"who?")))
        assert connection.packet() == auth(0x18, b"me")
        connection.send(packet(*auth(0, b"yes")))
        assert connection.until_closed() == [BYE]

    run(
        script,
        AUTH,
        """
        async with client:
            await begin()
            await client.reauthenticate()
        """,
    )


@pytest.mark.parametrize("who", ["server", "client", "method"])
def test_authenticating_again_in_vain_ends_the_connection(who):
    """MQTT 5.0: [MQTT-4.12.0-5], [MQTT-4.12.1-2], [MQTT-4.13.2-1]"""
    ends = []

    def script(connection):
        authenticate(connection)
        if connection.number == 1:
            assert connection.packet() == auth(0x19, b"hello")
            if who == "server":
                connection.send(packet(0xE0, b"\x87"))
            elif who == "client":
                connection.send(packet(*auth(0x18, b"fail")))
            else:
                connection.send(packet(*auth(0x18, b"who?", b"\x15\0\5OTHER")))
        ends.append((connection.number, connection.until_closed()))

    run(
        script,
        AUTH,
        """
        async with client:
            await begin()
            task = asyncio.create_task(client.reauthenticate())
            await until(lambda: client.stats.connects == 2)
            task.cancel()
            client.enqueue("t", "x", qos=1)
            await until(lambda: not to_send(client))
        """,
    )
    if who == "server":
        assert in_order(ends)[0] == []
    else:
        ((first, body),) = in_order(ends)[0]
        assert first == 0xE0 and body[0] >= 0x80


def test_without_a_method_there_is_no_auth():
    """MQTT 5.0: [MQTT-4.12.0-7]"""
    ends = []

    def script(connection):
        connection.accept(connack())
        ends.append((connection.number, connection.until_closed()))

    run(
        script,
        """
        async with client:
            await client.wait_connected()
            with raises(ValueError, "auth=(method, step)"):
                client.reauthenticate()
        """,
    )
    assert in_order(ends) == [[BYE]]
