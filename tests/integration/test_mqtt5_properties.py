"""MQTT 5: the properties of every packet, the will, topic aliases."""

import pytest

from tests.support import five
from tests.support.broker import properties_of
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker, in_order
from tests.support.five import field, user, with_length
from tests.support.proxy import Proxy


def test_properties_go_out_on_every_packet_in_the_order_given(proxy):
    """MQTT 5.0: [MQTT-3.14.2-1]"""
    Device.check(
        proxy,
        """
        def ordered(name, *more):
            return [("user_property", (name, "1"))] + list(more) + [("user_property", (name, "0"))]

        client = make(
            protocol=5,
            properties=ordered("c", ("receive_maximum", 7), ("topic_alias_maximum", 3)),
            will=Will(
                "w", "gone", 1, goodbye=False, delay_s=9,
                properties=ordered("w", ("content_type", "text")),
            ),
        )

        @client.on("t/#", 2, properties=ordered("s", ("subscription_identifier", 200)))
        def handler(message):
            message.ack_properties = ordered("a", ("reason_string", "thanks"))

        async with client:
            await client.wait_connected()
            await until(lambda: granted(client, "t/#") == 2)
            for qos in (0, 1, 2):
                await client.publish(
                    "t/p", "x", qos=qos, properties=ordered("p", ("content_type", "y"))
                )
            await until(lambda: client.stats.received == 3)
            await client.publish(
                "t/d", "x",
                properties={"user_property": [("b", "1"), ("a", "2"), ("b", "1")]},
            )
            await until(lambda: client.stats.received == 4)
            await client.unsubscribe("t/#", "u", properties=ordered("u"))
            await client.disconnect(0, ordered("d", ("session_expiry_interval", 5)))
        """,
    )

    def ordered(name, *more):
        return with_length(user(name, "1"), *more, user(name, "0"))

    [connect] = proxy.seen("CONNECT")
    assert connect.body == (
        b"\0\4MQTT\5"
        + b"\x0e\0\x3c"  # will of QoS 1, clean start; 60 s
        + with_length(
            user("c", "1"),
            b"\x21\0\7",
            b"\x22\0\3",
            user("c", "0"),
            b"\x11\0\0\x0e\x10",  # what the client adds: session expiry, maximum packet size
            b"\x27\0\0\x10\0",
        )
        + field("device")
        + with_length(user("w", "1"), b"\3" + field("text"), user("w", "0"), b"\x18\0\0\0\x09")
        + field("w")
        + field("gone")
    )
    [subscribe] = proxy.seen("SUBSCRIBE")
    assert subscribe.body[2:] == ordered("s", b"\x0b\xc8\1") + field("t/#") + b"\2"
    published = proxy.seen("PUBLISH", "up")
    assert [each.qos for each in published] == [0, 1, 2, 0]
    for each in published[:3]:
        middle = each.packet_id.to_bytes(2, "big") if each.qos else b""
        assert each.body == field("t/p") + middle + ordered("p", b"\3" + field("y")) + b"x"
    several = with_length(user("b", "1"), user("a", "2"), user("b", "1"))
    assert published[3].body == field("t/d") + several + b"x"
    thanks = ordered("a", b"\x1f" + field("thanks"))
    for name in ("PUBACK", "PUBREC"):
        [ack] = proxy.seen(name, "up")
        assert ack.body[2:] == b"\0" + thanks
    assert [len(each.body) for each in proxy.seen("PUBREL", "up")] == [2]
    assert [len(each.body) for each in proxy.seen("PUBCOMP", "up")] == [2]
    [unsubscribe] = proxy.seen("UNSUBSCRIBE")
    assert unsubscribe.body[2:] == ordered("u") + field("t/#") + field("u")
    [disconnect] = proxy.seen("DISCONNECT")
    assert disconnect.body == b"\0" + ordered("d", b"\x11\0\0\0\5")


ALL = {
    "payload_format_indicator": 1,
    "message_expiry_interval": 100,
    "content_type": "text/plain",
    "response_topic": "answers",
    "correlation_data": b"\x00\xff",
    "user_property": [("zoe", "1"), ("adam", "2"), ("zoe", "ö")],
}


def test_the_properties_of_a_message_reach_another_client_and_come_from_it(broker):
    peer = broker.peer("up", qos=2, protocol=5)
    with Device(
        broker,
        """
        @client.on("down", 2)
        async def handler(message):
            said = message.properties
            if said is None:
                print("none")
                await client.publish("up", "end", qos=1)
                return
            assert said["user_property"] == [("zoe", "1"), ("adam", "2"), ("zoe", "ö")]
            assert 0 < said["message_expiry_interval"] <= 100
            assert said["correlation_data"] == b"\\x00\\xff"
            assert sorted(said) == sorted(ALL)
            await client.publish("up", message.payload, qos=message.qos, properties=said)

        async with client:
            await until(lambda: granted(client, "down") == 2)
            print("ready")
            await told("leave")
        """,
        names={"ALL": list(ALL)},
        protocol=5,
    ) as device:
        device.wait_for("ready")
        for qos in (0, 1, 2):
            peer.publish("down", b"%d" % qos, qos, properties=ALL)
        peer.publish("down", b"end", 1)
        device.wait_for("none")
        peer.wait_for(4)
        device.leave()
    messages = sorted(peer.messages, key=lambda each: each.payload)  # paho's QoS 2 comes late
    assert [each.qos for each in messages] == [0, 1, 2, 1]
    for message in messages[:3]:
        found = properties_of(message)
        assert 0 < found.pop("message_expiry_interval") <= 100
        assert found == {name: ALL[name] for name in ALL if name != "message_expiry_interval"}
    assert properties_of(messages[3]) == {}


# The will


def test_a_will_has_its_properties_and_comes_after_its_delay_unless_the_client_came_back(broker):
    peer = broker.peer("w/#", protocol=5)
    with (
        Proxy(broker.port) as lasting,
        Proxy(broker.port) as passing,
        Device(
            broker,
            """
            @client.on("w/lasting", 1)
            def will(message):
                assert message.properties["content_type"] == "text"
                assert message.properties["user_property"] == [("a", "1"), ("a", "0")]
                assert "will_delay_interval" not in message.properties
                print("will", message.payload)

            def dying(name, port):
                will = Will(
                    "w/" + name, "gone", 1, delay_s=1, goodbye=False,
                    properties=[("user_property", ("a", "1")), ("content_type", "text"),
                                ("user_property", ("a", "0"))],
                )
                hosts = [("127.0.0.1", port)]
                return make(hosts, protocol=5, client_id=name, log=None, will=will)

            lasting, passing = dying("lasting", LASTING), dying("passing", PASSING)
            async with client, lasting, passing:
                await lasting.wait_connected()
                await passing.wait_connected()
                await until(lambda: granted(client, "w/lasting") == 1)
                print("ready")
                await until(lambda: passing.stats.connects == 2)
                print("back")
                await told("leave")
                await passing.disconnect()
            """,
            names={"LASTING": lasting.port, "PASSING": passing.port},
            protocol=5,
            client_id="watcher",
            log=None,
        ) as device,
    ):
        device.wait_for("ready")
        lasting.refuse()
        passing.rst()
        device.wait_for("back")
        lasting.rst()
        device.wait_for("will b'gone'")
        peer.wait_for(1)
        peer.publish("w/end")
        device.leave()
        peer.wait_for(2)
    assert [each.topic for each in peer.messages] == ["w/lasting", "w/end"]
    assert properties_of(peer.messages[0]) == {
        "content_type": "text",
        "user_property": [("a", "1"), ("a", "0")],
    }


def test_a_disconnect_may_leave_the_will_to_the_broker(proxy, broker):
    """
    The broker publishes it with reason 4 only; else it is the client that does, with the
    properties of the will, or nobody.

    MQTT 5.0: [MQTT-3.14.4-1], [MQTT-3.14.4-2]
    """
    peer = broker.peer("w/#", protocol=5)
    Device.check(
        proxy,
        """
        for name, goodbye, reason in (
            ("broker", True, 4), ("client", True, 0), ("nobody", False, 0), ("too", False, 4)
        ):
            client = make(protocol=5, client_id=name, log=None, will=Will(
                "w/" + name, "gone", 1, goodbye=goodbye, delay_s=0,
                properties={"content_type": "text"},
            ))
            await client.connect()
            await client.disconnect(reason=reason)
        """,
    )
    peer.wait_for(3)
    assert [each.topic for each in peer.messages] == ["w/broker", "w/client", "w/too"]
    assert [properties_of(each) for each in peer.messages] == 3 * [{"content_type": "text"}]
    assert [each.topic for each in proxy.seen("PUBLISH", "up")] == ["w/client"]
    assert [each.raw for each in proxy.seen("DISCONNECT", "up")] == [
        b"\xe0\1\4",
        b"\xe0\0",
        b"\xe0\0",
        b"\xe0\1\4",
    ]


# Topic aliases


def test_topics_go_out_as_aliases_once_told_and_anew_on_each_connection(proxy, broker):
    """MQTT 5.0: [MQTT-3.3.2-8], [MQTT-3.3.2-9]"""
    peer = broker.peer("t/#", qos=1)
    with Device(
        proxy,
        """
        async with client:
            for i in range(2):
                for name in "abcabb":
                    await client.publish(
                        "t/" + name, name, properties={"user_property": ("n", name)}
                    )
                await client.publish("t/a", "a", qos=1)
                print("round", i)
                await told("on")
        """,
        protocol=5,
        topic_aliases=2,
        log=None,
    ) as device:
        for i in range(2):
            device.wait_for(f"round {i}")
            proxy.rst()
            device.send("on")
        device.finish()
    peer.wait_for(14)
    assert [topic for topic, _ in peer.received] == 2 * [f"t/{name}" for name in "abcabba"]
    for connection in (1, 2):
        sent = proxy.seen("PUBLISH", "up", connection)
        wanted = [("t/a", 1), ("t/b", 2), ("t/c", 0), ("", 1), ("", 2), ("", 2)]
        names = "abcabb"
        for each, (topic, alias), name in zip(sent[:6], wanted, names, strict=True):
            own = [b"\x23\0" + bytes([alias])] if alias else []
            assert each.body == field(topic) + with_length(*own, user("n", name)) + name.encode()
        assert sent[6].body == field("t/a") + sent[6].body[5:7] + b"\0a"


@pytest.mark.parametrize("allowed", [0, 1])
def test_no_more_aliases_than_the_broker_takes(allowed):
    """MQTT 5.0: [MQTT-3.2.2-17], [MQTT-3.2.2-18], [MQTT-3.3.2-9]"""
    sent = []

    def script(connection):
        connection.accept(five.connack(*([b"\x22\0\1"] if allowed else [])))
        sent.extend(body for _, body in connection.until_closed())

    Device.against(
        script,
        """
        async with client:
            for name in "aabb":
                await client.publish(name)
        """,
        protocol=5,
        topic_aliases=5,
        log=None,
    )
    if allowed:
        first = [field("a") + b"\3\x23\0\1", field("") + b"\3\x23\0\1"]
    else:
        first = 2 * [field("a") + b"\0"]
    assert sent == [*first, *2 * [field("b") + b"\0"], b""]


def test_aliases_of_the_broker_are_resolved_on_their_own_connection():
    """MQTT 5.0: [MQTT-3.3.2-7], [MQTT-3.3.2-10]"""
    ends = []

    def script(connection):
        body = connection.accept(five.connack())
        assert b"\x22\0\3" in body
        connection.send(
            five.publish("t/a", b"1", b"\x23\0\1")
            + five.publish("t/c", b"2", b"\x23\0\3")
            + five.publish("", b"3", b"\x23\0\1", qos=1, packet_id=1)
            + five.publish("t/b", b"4", b"\x23\0\1", user("a", "b"))  # means another one now
            + five.publish("", b"5", b"\x23\0\1")
            + five.publish("", b"6", b"\x23\0\3")
        )
        assert connection.packet()[0] == 0x40
        if connection.number == 1:
            return
        if connection.number > 3:  # it may be back before the test ends it
            connection.until_closed()
            return
        unknown = 2 if connection.number == 2 else 4
        connection.send(five.publish("", b"7", b"\x23\0" + bytes([unknown])))
        ends.append((connection.number, connection.until_closed()))

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
            print("made")
            async with client:
                async for message in client.messages():
                    print(message.topic, message.payload, message.properties)
            """,
            protocol=5,
            properties={"topic_alias_maximum": 3},
        ) as device,
    ):
        for _ in range(3):
            for topic, number in zip("acabbc", range(1, 7), strict=True):
                properties = r"{'user_property': \[\('a', 'b'\)\]}" if number == 4 else "None"
                device.wait_for(rf"t/{topic} b'{number}' {properties}")
        device.wait_for("topic alias 4")
    assert in_order(ends) == [[(0xE0, b"\x82")], [(0xE0, b"\x94")]]


def test_a_topic_alias_that_no_memory_was_left_to_tell_is_not_used():
    topics = []

    def script(connection):
        connection.accept(five.connack(b"\x22\0\5"))  # 5 aliases
        for _ in range(2):
            _, body = connection.packet()
            topics.append(body[: 2 + body[1]])
        connection.until_closed()

    Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
            no_memory("for a topic alias")
            with raises(MemoryError, "once"):
                await client.publish("topic", "1")
            await client.publish("topic", "2")
            await client.publish("topic", "3")
        """,
        protocol=5,
        topic_aliases=5,
    )
    assert topics == [field("topic"), b"\0\0"]
