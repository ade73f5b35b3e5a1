"""MQTT 5: subscription options, identifiers, shared subscriptions, what a broker does not have."""

from tests.support import five
from tests.support.device import Device
from tests.support.five import field, with_length


def test_no_local_and_retain_as_published_are_honoured_and_on_the_wire(proxy, broker):
    """MQTT 5.0: [MQTT-3.8.3-5]"""
    peer = broker.peer(protocol=5)
    with Device(
        proxy,
        """
        @client.on("own/#", 1, no_local=True)
        @client.on("all/#", 1, retain_as_published=True)
        @client.on("plain/#", 1)
        def handler(message):
            print(message.topic, message.retain)

        async with client:
            for filter in ("own/#", "all/#", "plain/#"):
                await until(lambda: granted(client, filter) == 1)
            for topic in ("own/me", "plain/me"):
                await client.publish(topic, qos=1)
            print("ready")
            await until(lambda: client.stats.received == 5)
        """,
        protocol=5,
        log=None,
    ) as device:
        device.wait_for("ready")
        peer.publish("all/kept", "x", retain=True)
        peer.publish("all/now", "x")
        peer.publish("plain/kept", "x", retain=True)
        peer.publish("own/peer", "x")
        out = device.finish().splitlines()
    assert sorted(out) == [
        "all/kept True",
        "all/now False",
        "own/peer False",
        "plain/kept False",
        "plain/me False",
        "ready",
    ]
    sent = b"".join(each.body[3:] for each in proxy.seen("SUBSCRIBE"))
    assert sent == field("plain/#") + b"\1" + field("all/#") + b"\x09" + field("own/#") + b"\5"


def test_retain_handling_says_when_kept_messages_come(proxy, broker):
    """0: at each subscribe, 1: when the subscription is new, 2: never."""
    peer = broker.peer(protocol=5)
    for n in range(3):
        peer.publish(f"kept/{n}", "x", retain=True)
    Device.check(
        proxy,
        """
        got = []

        def handler(message):
            assert message.retain
            got.append(message.topic)

        for n in range(3):
            client.on("kept/%d" % n, 1, retain_handling=n)(handler)
        async with client:
            await subscribed(client)
            await client.publish("sync", qos=1)
            await until(lambda: len(got) == 2)
            assert sorted(got) == ["kept/0", "kept/1"], got
            for n in range(3):  # asked for again, with another option
                assert await client.subscribe("kept/%d" % n, retain_handling=n,
                                              retain_as_published=True) == 0
            await client.publish("sync", qos=1)
            await until(lambda: len(got) == 3)
            assert got[2] == "kept/0", got
        """,
        protocol=5,
        log=None,
    )
    options = [each.body[-1] >> 4 for each in proxy.seen("SUBSCRIBE")][-3:]
    assert options == [0, 1, 2]


def test_messages_carry_the_identifiers_of_all_the_subscriptions_that_they_match(proxy):
    Device.check(
        proxy,
        """
        got = []

        @client.on("a/#", 1, properties={"subscription_identifier": 268435455})
        def handler(message):
            got.append((message.properties or {}).get("subscription_identifier"))

        @client.on("a/b", 2, properties={"subscription_identifier": 1})
        def other(message):
            pass

        @client.on("c", 1)
        def none(message):
            got.append(message.properties)

        async with client:
            await subscribed(client)
            for topic in ("a/x", "a/b", "c"):
                await client.publish(topic, qos=1)
            await until(lambda: None in got)
            await client.publish("sync", qos=1)
        ids = sorted(n for each in got if each for n in each)
        # mosquitto sends a copy for each subscription
        assert set(ids) == {1, 268435455}, got
        assert got[0] == [268435455], got
        """,
        protocol=5,
        log=None,
    )
    bodies = [each.body[2:] for each in proxy.seen("SUBSCRIBE")]
    assert with_length(b"\x0b\xff\xff\xff\x7f") + field("a/#") + b"\1" in bodies
    assert with_length(b"\x0b\1") + field("a/b") + b"\2" in bodies
    assert b"\0" + field("c") + b"\1" in bodies


def test_several_identifiers_of_one_message_are_a_list():
    def script(connection):
        connection.accept(five.connack())
        connection.send(five.publish("t", b"", b"\x0b\2", b"\x0b\x80\1", b"\x0b\2"))
        connection.until_closed()

    out = Device.against(
        script,
        """
        messages = client.messages()
        async with client:
            print((await messages.__anext__()).properties)
        """,
        protocol=5,
        log=None,
    )
    assert out.strip() == "{'subscription_identifier': [2, 128, 2]}"


def test_two_clients_share_a_subscription(broker):
    Device.check(
        broker,
        """
        sharing = [make(protocol=5, client_id="c%d" % n, log=None) for n in range(2)]
        got = [[], []]
        for n in range(2):
            def handler(message, n=n):
                got[n].append(message.payload)
            sharing[n].on("$share/group/t/+", 2)(handler)
        async with client, sharing[0], sharing[1]:
            for each in sharing:
                await until(lambda: granted(each) == [2])
            for n in range(20):
                await client.publish("t/%d" % n, str(n), qos=n % 3)
            await until(lambda: len(got[0]) + len(got[1]) >= 20)
        assert got[0] and got[1], got
        assert sorted(got[0] + got[1]) == sorted(str(n).encode() for n in range(20)), got
        """,
        protocol=5,
        log=None,
    )


def test_what_the_broker_does_not_have_is_refused_without_asking():
    asked = []

    def script(connection):
        # no wildcards, no identifiers, no shared subscriptions
        connection.accept(five.connack(b"\x28\0", b"\x29\0", b"\x2a\0"))
        while True:
            first, body = connection.packet()
            if first == 0xE0:
                return
            asked.append((first, body[2:]))
            connection.send(five.suback(body, 1))

    out = Device.against(
        script,
        """
        client.on("declared/#")(got)

        async with client:
            events = client.events()
            await client.wait_connected()
            ids = {"subscription_identifier": 1}
            late = [("user_property", ("a", "b")), ("subscription_identifier", 1)]
            for filter, properties, code in (
                ("a/+", None, 0xA2),
                ("#", None, 0xA2),
                ("$share/g/t", None, 0x9E),
                ("t", ids, 0xA1),
                ("u", late, 0xA1),
            ):
                with raises(RefusedError, "not supported") as caught:
                    await client.subscribe(filter, properties=properties)
                assert caught.error.code == code, filter
            assert await client.subscribe("t", 1) == 1
            assert client.stats.connects == 1
        """,
        protocol=5,
    )
    assert asked == [(0x82, b"\0" + field("t") + b"\1")]
    assert "subscription to 'declared/#': wildcard subscriptions not supported (0xa2)" in out


def test_one_unsubscribe_asks_for_many_filters_known_or_not(proxy, broker):
    """MQTT 5.0: [MQTT-3.10.3-2]"""
    peer = broker.peer(protocol=5)
    with Device(
        proxy,
        """
        async with client:
            messages = client.messages()
            for name in ("a", "b", "c"):
                await client.subscribe(name, 1)
            await client.unsubscribe("a", "b", "of/an/earlier/program")
            print("ready")
            message = await messages.__anext__()
            assert message.topic == "c", message.topic
        """,
        protocol=5,
        log=None,
    ) as device:
        device.wait_for("ready")
        for name in "abc":
            peer.publish(name, "x")
        device.finish()
    [each] = proxy.seen("UNSUBSCRIBE")
    assert each.body[2:] == b"\0" + field("a") + field("b") + field("of/an/earlier/program")
    [answer] = proxy.seen("UNSUBACK")
    assert answer.body[-3:] == b"\0\0\x11"


def test_a_handler_declared_while_connected_learns_that_the_broker_has_no_such_subscription():
    def script(connection):
        connection.accept(five.connack(b"\x28\0"))  # no wildcards
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
            events = client.events()

            client.on("late/#")(got)
            event = await events.__anext__()
            print(type(event).__name__, event.filter)
        """,
        protocol=5,
    )
    assert "subscription to 'late/#': wildcard subscriptions not supported (0xa2)" in out
    assert "SubscriptionRefused late/#" in out
