"""MQTT 5: reason codes and reason strings, from the broker to the caller and from a handler."""

import pytest

from tests.support import five
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker, in_order
from tests.support.five import field, user
from tests.support.proxy import Proxy

ACL = """\
topic readwrite ok/#
topic readwrite response/#
topic read hidden/#
"""
WHY = b"\x1f" + field("because")


def test_what_the_acl_denies_is_told_to_the_caller_and_nothing_else_suffers(tmp_path):
    """MQTT 5.0: [MQTT-4.3.3-4]"""
    with Broker(tmp_path / "b", acl=ACL) as broker, Proxy(broker.port) as proxy:
        Device.check(
            proxy,
            """
            async with client:
                events = client.events()
                for qos in (1, 2):
                    with raises(RefusedError, "not authorized") as caught:
                        await client.publish("no", "x", qos=qos)
                    assert caught.error.code == 0x87 and "(0x87)" in caught.error.reason
                    client.enqueue("no/%d" % qos, "x", qos=qos)
                    event = await next_event(events, "Undelivered")
                    assert event.topic == "no/%d" % qos
                    assert isinstance(event.error, RefusedError) and event.error.code == 0x87
                await client.publish("no", "x")  # QoS 0: nobody tells
                # nobody is there, then somebody
                for qos, code in ((0, 0), (1, 16), (2, 0)):  # mosquitto looks at PUBREL
                    assert await client.publish("ok/nobody", "x", qos=qos) == code
                assert await client.subscribe("ok/me", 2) == 2
                for qos in (0, 1, 2):
                    assert await client.publish("ok/me", "x", qos=qos) == 0
                await client.unsubscribe("ok/me", "ok/never")  # 0x11, none such: as wanted
                assert client.stats.connects == 1
            """,
            protocol=5,
            log=None,
        )
    assert len(proxy.seen("PUBREL", "up")) == 2  # none where PUBREC refused


def test_every_acknowledgement_brings_its_reason_code_reason_string_and_properties():
    """MQTT 5.0: [MQTT-4.3.3-4], [MQTT-3.6.2-1]"""
    said = []

    def script(connection):
        connection.accept(five.connack())
        with pytest.raises(OSError):
            while True:
                first, body = connection.packet()
                kind = first >> 4
                why = WHY + user("a", "1") + user("a", "2")
                if kind == 8:
                    connection.send(five.suback(body, 0x87, properties=why))
                elif kind == 10:
                    connection.send(five.suback(body, 0x83, properties=why, first=0xB0))
                elif kind == 3:
                    topic = body[2 : 2 + body[1]].decode()
                    number = int.from_bytes(body[2 + len(topic) :][:2], "big")
                    puback = 0x40 if first & 2 else 0x50
                    code = {"refused": 0x97, "nobody": 0x10}.get(topic, 0)
                    connection.send(five.answer(puback, number, code, why))
                elif kind == 6:
                    said.append(body)
                    code = 0 if len(said) == 1 else 0x92
                    connection.send(five.answer(0x70, int.from_bytes(body[:2], "big"), code, why))
            raise OSError

    Device.against(
        script,
        """
        async with client:
            async def refused(wait, code, *words):
                with raises(RefusedError, "because") as caught:
                    await wait
                e = caught.error
                assert e.code == code, e
                for word in words:
                    assert word in e.reason, e.reason
                assert e.properties["reason_string"] == "because"
                assert e.properties["user_property"] == [("a", "1"), ("a", "2")]

            await refused(client.publish("refused", qos=1), 0x97, "quota exceeded")
            await refused(client.publish("refused", qos=2), 0x97, "quota exceeded")
            assert await client.publish("taken", qos=1) == 0
            assert await client.publish("nobody", qos=1) == 16
            assert await client.publish("nobody", qos=2) == 16  # what PUBREC said
            # PUBCOMP, the broker forgot the packet id: it has the message
            assert await client.publish("taken", qos=2) == 0
            await refused(client.subscribe("s"), 0x87, "'s': not authorized")

            @client.on("declared")
            def handler(message):
                pass

            event = await next_event(client.events(), "SubscriptionRefused")
            assert event.filter == "declared"
            await refused(client.unsubscribe("s"), 0x83, "'s'")
            assert client.stats.connects == 1
        """,
        protocol=5,
        log=None,
    )
    assert [len(body) for body in said] == [2, 2]


CODES = [0x86, 0x9C, 0x87, 0x9D, 0x8A, 0x88]  # no three in a row that do not heal by themselves


def test_a_refused_connection_says_why_and_where_to_go():
    """MQTT 5.0: [MQTT-4.13.2-1]"""

    def script(connection):
        code = CODES[min(connection.number, len(CODES)) - 1]
        properties = [b"\x1c" + field("other.example:1883"), WHY, user("a", "b")]
        connection.accept(five.connack(*properties, code=code))

    out = Device.against(
        script,
        """
        async with client:
            events = client.events()
            for code in CODES:
                error = (await next_event(events, "Disconnected")).error
                assert isinstance(error, RefusedError), error
                assert error.code == code, (error, code)
                assert error.properties["server_reference"] == "other.example:1883"
                assert error.properties["user_property"] == [("a", "b")]
                assert "(0x%02x): because; go to other.example:1883" % code in error.reason
                assert client.error is error
        """,
        names={"CODES": CODES},
        protocol=5,
    )
    assert "bad user name or password (0x86): because; go to other.example:1883" in out


def test_a_broker_of_3_1_1_says_that_it_is_one():
    def script(connection):
        connection.accept(b"\x20\2\0\1")

    out = Device.against(
        script,
        """
        with raises(RefusedError, "use protocol=4") as caught:
            await client.connect(timeout_s=0.2)
        assert caught.error.code == 0x84
        """,
        protocol=5,
    )
    assert "protocol version not supported: use protocol=4 (0x84)" in out


# DISCONNECT


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x8B, "server shutting down (0x8b)"),
        (0x8E, "session taken over: another client has this client id (0x8e)"),
        (0x9D, "server moved (0x9d)"),
        (0x00, "normal (0x00)"),
    ],
)
def test_a_broker_that_goes_says_why_and_is_tried_again(code, words):
    """MQTT 5.0: [MQTT-4.13.2-1]"""
    ends = []

    def script(connection):
        connection.accept(five.connack())
        if connection.number == 1:
            connection.send(five.disconnect(code, WHY, b"\x1c" + field("there"), user("a", "b")))
            ends.append((connection.number, connection.until_closed()))
        elif connection.number == 2:
            connection.send(b"\xe0\0")
            ends.append((connection.number, connection.until_closed()))
        else:
            ends.append((connection.number, connection.until_closed()))

    out = Device.against(
        script,
        """
        async with client:
            events = client.events()
            error = (await next_event(events, "Disconnected")).error
            assert isinstance(error, RefusedError) and error.code == CODE, error
            assert error.reason.endswith(": because; go to there"), error.reason
            assert error.properties["user_property"] == [("a", "b")]
            error = (await next_event(events, "Disconnected")).error
            assert isinstance(error, RefusedError) and error.code == 0, error
            await next_event(events, "Connected")
        """,
        names={"CODE": code},
        protocol=5,
    )
    assert f"connection lost: the broker disconnected: {words}: because; go to there" in out
    assert in_order(ends) == [[], [], [(0xE0, b"")]]  # no answer to a DISCONNECT


# What a handler says


def test_a_handler_answers_with_a_reason_code_and_properties(proxy, broker):
    """MQTT 5.0: [MQTT-3.4.2-1], [MQTT-3.5.2-1]"""
    peer = broker.peer(protocol=5)
    with Device(
        proxy,
        """
        @client.on("t", 2)
        def handler(message):
            message.ack_code, message.ack_properties = eval(message.payload)

        async with client:
            await until(lambda: granted(client, "t") == 2)
            print("ready")
            await until(lambda: client.stats.received == 10)
            await until(lambda: not held(client)[0])
            await until(lambda: not to_receive(client))  # no PUBREL comes to a no
        """,
        protocol=5,
    ) as device:
        device.wait_for("ready")
        for code, properties in (
            (0, None),
            (0x99, [("reason_string", "no number"), ("user_property", ("a", "b"))]),
            (0x10, None),
            ("x", None),  # nonsense is reported, and answered with 0x83
            (0, {"content_type": "x"}),  # not of PUBACK: left out
        ):
            for qos in (1, 2):
                peer.publish("t", repr((code, properties)), qos)
        out = device.finish()
    assert out.count("ack_code a str of 1 is none of PUBACK") >= 1
    assert out.count("content_type: not in PUBACK") >= 1
    reason = b"\x1f" + field("no number") + user("a", "b")
    wanted = [b"", b"\x99" + five.with_length(reason), b"\x10", b"\x83", b""]
    for name in ("PUBACK", "PUBREC"):
        sent = proxy.seen(name, "up", 1)
        assert [each.body[2:] for each in sent] == wanted, name
    assert len(proxy.seen("PUBCOMP", "up")) == 3
    assert proxy.connections == 1


def test_a_birth_that_is_refused_is_told():
    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.answer(0x40, int.from_bytes(body[3:5], "big"), 0x87))
        connection.until_closed()

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
            will = Will("t", "offline", qos=1, birth="online", goodbye=False)
            client = make(protocol=5, will=will)
            async with client:
                event = await next_event(client.events(), "Undelivered")
                print("told of", event.topic)
            """,
        ) as device,
    ):
        device.wait_for("message to 't': the broker refused: not authorized")
        device.wait_for("told of t")
        device.finish()


WITHOUT_MQTT_5 = {
    "CONNACK 1": b"\x20\x02\x00\x01",
    "CONNACK 0x84": five.connack(code=0x84),
    "CONNACK of 3.1.1": b"\x20\x02\x00\x00",
    "no CONNACK": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "hangs up": b"",
    "silence": None,
}


@pytest.mark.parametrize("answer", WITHOUT_MQTT_5)
@pytest.mark.parametrize("protocol", [4, 5])
def test_whatever_way_a_broker_without_mqtt_5_refuses_it_the_log_says_use_protocol_4(
    answer, protocol
):
    text = WITHOUT_MQTT_5[answer]

    def script(connection):
        connection.packet()
        if text is not None:
            connection.send(text)
        else:
            connection.until_closed()

    with (
        FakeBroker(script) as fake,
        Device(fake, protocol=protocol, connect_timeout_s=1) as device,
    ):
        line = device.wait_for("not connected" if answer != "CONNACK of 3.1.1" else "onnect")
    assert ("use protocol=4" in line) == (protocol == 5), line


def test_a_broker_that_has_spoken_mqtt_5_is_not_told_to_have_none():
    def script(connection):
        connection.accept(five.connack() if connection.number == 1 else b"no MQTT")

    with FakeBroker(script) as fake, Device(fake, protocol=5) as device:
        device.wait_for("connection lost")
        line = device.wait_for("not connected")
    assert "protocol=4" not in line
