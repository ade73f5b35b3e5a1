"""MQTT 5: subscription options, identifiers, shared subscriptions, what a broker does not have."""

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.five import field, with_length
from tests.support.refusing import refusing_broker


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
            handler(message)

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


# Filters that overlap: a broker may send a copy for each (5.0 section 3.3.4)

COUNTING = """
counts = {}

def counting(filter):
    def handler(message):
        key = (filter, message.topic)
        counts[key] = counts.get(key, 0) + 1
        seen.append(message.properties)
    return handler

seen = []
"""


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_handler_gets_a_message_once_however_many_filters_match(proxy, qos, many):
    """`many`: with an index of the filters."""
    out = Device.check(
        proxy,
        COUNTING,
        """
        for filter in ("gate/#", "gate/+", "gate/open", "+/open", "$share/g/gate/#"):
            client.on(filter, qos=2)(counting(filter))
        for n in range(10 if MANY else 0):
            client.on("other/%d" % n)(counting("other"))
        async with client:
            await subscribed(client)
            for topic in ("gate/open", "gate/shut", "gate/open/wide", "house/open"):
                await client.publish(topic, "now", qos=QOS)
            await client.publish("other/1", "last", qos=QOS)
            for _ in range(0 if MANY else 1):
                client.on("other/1", qos=2)(counting("other"))
                await subscribed(client)
                await client.publish("other/1", "last", qos=QOS)
            await until(lambda: ("other", "other/1") in counts)
        assert counts == {
            ("gate/#", "gate/open"): 1,
            ("gate/+", "gate/open"): 1,
            ("gate/open", "gate/open"): 1,
            ("+/open", "gate/open"): 1,
            ("$share/g/gate/#", "gate/open"): 1,
            ("gate/#", "gate/shut"): 1,
            ("gate/+", "gate/shut"): 1,
            ("$share/g/gate/#", "gate/shut"): 1,
            ("gate/#", "gate/open/wide"): 1,
            ("$share/g/gate/#", "gate/open/wide"): 1,
            ("+/open", "house/open"): 1,
            ("other", "other/1"): 1,
        }, counts
        assert set(seen) == {None}  # the identifiers are not the app's
        """,
        names={"MANY": many, "QOS": qos},
        protocol=5,
        log=None,
    )
    assert out == ""


def test_filters_that_do_not_overlap_share_an_identifier_or_have_none(proxy):
    """A device with 30 filters and one over all of them asks in 5 packets, not in 31."""
    Device.check(
        proxy,
        """
        client.on("#", 1)(got)
        for n in range(30):
            client.on("home/%d/+" % n, 1)(lambda message: None)
        async with client:
            await subscribed(client)
        """,
        protocol=5,
        log=None,
    )
    bodies = [each.body[2:] for each in proxy.seen("SUBSCRIBE", "up")]
    assert len(bodies) == 5
    assert bodies[0][0] and bodies[0].endswith(field("#") + b"\1")
    ids = [body[1 : 1 + body[0]] for body in bodies]
    assert len(set(ids)) == 5


def test_filters_of_which_none_overlaps_are_asked_for_without_identifiers(proxy):
    Device.check(
        proxy,
        """
        for n in range(10):
            client.on("home/%d/+" % n, 1)(lambda message: None)
        client.on("$SYS/broker/#")(lambda message: None)
        client.on("other/#", qos=0)(lambda message: None)
        async with client:
            await subscribed(client)
        """,
        protocol=5,
        log=None,
    )
    bodies = [each.body[2:] for each in proxy.seen("SUBSCRIBE", "up")]
    assert [body[0] for body in bodies] == [0, 0]


class Copies:
    """
    A broker that publishes what it is told, with the identifiers that the client gave.

    how   "copies": one for each filter; "one": one with all identifiers; "none": it has no
          identifiers, and sends a copy for each
    """

    def __init__(self, how, topic, matching):
        self.ids = {}
        self.how, self.topic, self.matching = how, topic, matching
        self.asked = []

    def __call__(self, connection):
        said = (b"\x29\0",) if self.how == "none" else ()
        connection.accept(five.connack(*said))
        while True:
            first, body = connection.packet()
            if first == 0x82:
                self.asked.append(body[2:])
                length, at = body[2], 3
                found = body[at : at + length]
                at += length
                count = 0
                while at < len(body):
                    n = int.from_bytes(body[at : at + 2], "big")
                    self.ids[body[at + 2 : at + 2 + n].decode()] = found
                    at += 3 + n
                    count += 1
                connection.send(five.suback(body, *[1] * count))
            elif first == 0x30:  # the device says that it is ready
                ids = [self.ids[each] for each in self.matching]
                copies = [ids] if self.how == "one" else [[each] for each in ids]
                for n, properties in enumerate(copies, 1):
                    connection.send(
                        five.publish(self.topic, b"x", *properties, qos=1, packet_id=n)
                    )
                for _ in copies:
                    first, body = connection.packet()
                    assert first == 0x40, first
                connection.send(five.publish("end", b""))
            elif first == 0xE0:
                return


@pytest.mark.parametrize(("how", "times"), [("copies", 1), ("one", 1), ("none", 3)])
def test_copies_are_told_apart_where_the_broker_lets_it(how, times):
    """Without identifiers nobody can tell a copy from a second message: nothing is lost then."""
    broker = Copies(how, "gate/open", ["gate/#", "gate/+", "gate/open"])
    Device.against(
        broker,
        COUNTING,
        """
        done = asyncio.Event()
        client.on("end")(lambda message: done.set())
        for filter in ("gate/#", "gate/+", "gate/open"):
            client.on(filter, 1)(counting(filter))
        async with client:
            await subscribed(client)
            await client.publish("go")
            await done.wait()
        assert list(counts.values()) == [TIMES] * 3, counts
        """,
        names={"TIMES": times},
        protocol=5,
        log=None,
    )
    if how == "none":
        assert [body[0] for body in broker.asked] == [0]


@pytest.mark.parametrize("how", ["copies", "one"])
def test_the_iterator_gets_a_message_once_however_many_filters_match(how):
    broker = Copies(how, "gate/open", ["gate/#", "gate/+", "gate/open"])
    Device.against(
        broker,
        """
        done = asyncio.Event()
        client.on("end")(lambda message: done.set())
        async with client:
            messages = client.messages()
            for filter in ("gate/#", "gate/+", "gate/open"):
                await client.subscribe(filter, 1)
            await client.publish("go")
            message = await messages.next()
            assert message.topic == "gate/open" and message.properties is None
            with raises(asyncio.TimeoutError):
                await messages.next(timeout_s=0.1)
            await done.wait()
        assert client.stats.unclaimed == 0
        """,
        protocol=5,
        log=None,
    )


@pytest.mark.parametrize("how", ["copies", "one"])
def test_a_handler_and_an_iterator_do_not_both_get_a_message(how):
    broker = Copies(how, "gate/open", ["gate/#", "gate/open"])
    Device.against(
        broker,
        COUNTING,
        """
        done = asyncio.Event()
        client.on("end")(lambda message: done.set())
        client.on("gate/open", 1)(counting("gate/open"))
        async with client:
            messages = client.messages()
            await client.subscribe("gate/#", 1)
            await client.publish("go")
            await done.wait()
            with raises(asyncio.TimeoutError):
                await messages.next(timeout_s=0)
        assert list(counts.values()) == [1], counts
        assert client.stats.unclaimed == 0
        """,
        protocol=5,
        log=None,
    )


def test_a_copy_with_an_identifier_of_an_earlier_program_reaches_every_handler():
    """That nothing is lost counts more than that nothing is double."""

    def script(connection):
        connection.accept(five.connack())
        for _ in range(2):
            _, body = connection.packet()
            connection.send(five.suback(body, 1))
        connection.send(five.publish("gate/open", b"x", b"\x0b\x63"))
        connection.until_closed()

    Device.against(
        script,
        COUNTING,
        """
        for filter in ("gate/+", "gate/open"):
            client.on(filter, 1)(counting(filter))
        async with client:
            await until(lambda: len(counts) == 2)
        assert list(counts.values()) == [1, 1], counts
        assert seen == [{"subscription_identifier": [99]}] * 2, seen
        """,
        protocol=5,
        log=None,
    )


def test_identifiers_are_the_same_when_the_program_begins_anew(proxy):
    for _ in range(2):
        Device.check(
            proxy,
            """
            for filter in ("gate/#", "gate/+", "gate/open"):
                client.on(filter, 1)(got)
            async with client:
                await subscribed(client)
            """,
            protocol=5,
            log=None,
        )
    bodies = [each.body[2:] for each in proxy.seen("SUBSCRIBE", "up")]
    assert len(bodies) == 6
    assert bodies[:3] == bodies[3:]


def test_a_filter_that_overlaps_one_asked_for_before_has_that_asked_for_with_an_identifier(
    proxy, broker
):
    """It does not bring the retained messages of the first one again."""
    broker.peer(protocol=5).publish("gate/open", "kept", retain=True)
    Device.check(
        proxy,
        COUNTING,
        """
        client.on("gate/#", 1)(counting("gate/#"))
        async with client:
            await until(lambda: counts)
            assert await client.subscribe("gate/+", 1) == 1
            client.on("gate/open", 1)(counting("gate/open"))
            await until(lambda: len(counts) == 2)
            assert list(counts.values()) == [1, 1], counts
            await client.publish("gate/open", "now", qos=1)
            await until(lambda: sum(counts.values()) >= 4)
            await client.publish("sync", qos=1)
            assert list(counts.values()) == [2, 2], counts
        """,
        protocol=5,
        log=None,
    )
    asked = [each.body[2:] for each in proxy.seen("SUBSCRIBE", "up")]
    assert [body[0] > 0 for body in asked] == [False, True, True, True]
    assert [body[-1] for body in asked] == [1, 0x11, 1, 1]


def test_retained_messages_come_once_a_filter_at_the_start(broker):
    broker.peer(protocol=5).publish("gate/open", "kept", retain=True)
    Device.check(
        broker,
        COUNTING,
        """
        for filter in ("gate/#", "gate/+", "gate/open"):
            client.on(filter, 1)(counting(filter))
        async with client:
            await subscribed(client)
            await until(lambda: len(counts) == 3)
            await client.publish("sync", qos=1)
            assert list(counts.values()) == [1] * 3, counts
        """,
        protocol=5,
        log=None,
    )


def test_identifiers_of_the_app_are_used_and_stay_with_the_message(proxy):
    Device.check(
        proxy,
        COUNTING,
        """
        client.on("gate/#", 1, properties={"subscription_identifier": 7})(counting("gate/#"))
        client.on("gate/open", 1)(counting("gate/open"))
        async with client:
            await subscribed(client)
            await client.publish("gate/open", qos=1)
            await until(lambda: len(counts) == 2)
            await client.publish("sync", qos=1)
        assert list(counts.values()) == [1, 1], counts
        assert None in seen and {"subscription_identifier": [7]} in seen, seen
        """,
        protocol=5,
        log=None,
    )


def test_a_filter_that_the_broker_refused_gets_the_copies_of_another(tmp_path):
    with refusing_broker(tmp_path, "gate/open") as broker:
        Device.check(
            broker,
            COUNTING,
            """
            for filter in ("gate/#", "gate/+", "gate/open"):
                client.on(filter, 1)(counting(filter))
            async with client:
                await subscribed(client)
                assert granted(client, "gate/open") > 2
                await client.publish("gate/open", qos=1)
                await until(lambda: len(counts) == 3)
                await client.publish("sync", qos=1)
            assert list(counts.values()) == [1] * 3, counts
            """,
            protocol=5,
            log=None,
        )


def test_filters_that_come_and_go_leave_nothing_behind(proxy):
    Device.check(
        proxy,
        """
        client.on("room/#", 1)(got)
        client.on("room/+", 1, properties={"subscription_identifier": 5})(got)
        async with client:
            for n in range(20):
                await client.subscribe("room/%d" % n, 1)
                await client.unsubscribe("room/%d" % n)
        assert identified(client)[:2] == ["room/#", "room/+"], identified(client)
        assert len(identified(client)) <= 4, identified(client)
        """,
        protocol=5,
        log=None,
    )


@pytest.mark.parametrize("size", [100, 2000])
def test_a_payload_that_is_read_as_a_stream_comes_once_though_filters_overlap(proxy, broker, size):
    with Device(
        proxy,
        """
        taken = []

        async def drunk(message):
            n = 0
            while True:
                data = await message.stream.read(100)
                if not data:
                    return n
                n += len(data)

        @client.on("file/#", 1, stream=True)
        async def every(message):
            taken.append(("file/#", await drunk(message), message.properties))

        @client.on("file/+", 1, stream=True)
        async def one(message):
            taken.append(("file/+", await drunk(message), message.properties))

        client.on("end", 1)(got)

        async with client:
            await client.subscribe("file/a", 1)
            await subscribed(client)
            print("ready")
            await told("end")
            want = [(filter, SIZE, None) for filter in ("file/#", "file/+")]
            assert sorted(taken) == want, taken
        """,
        names={"SIZE": size},
        protocol=5,
        max_packet=500,
    ) as device:
        device.wait_for("ready")
        with broker.peer() as peer:
            peer.publish("file/a", bytes(size), qos=1)
            peer.publish("end", "1", qos=1)
        device.wait_for("got 1 1")
        device.send("end")
        device.finish()
    assert len(proxy.seen("PUBACK", "up")) == 4
    assert proxy.connections == 1
    assert "passed over" not in device.report()


def test_copies_of_a_filter_that_was_taken_back_reach_no_handler_of_another(proxy, broker):
    with Device(
        proxy,
        COUNTING,
        """
        for filter in ("gate/#", "gate/open"):
            client.on(filter, qos=2)(counting(filter))
        async with client:
            await subscribed(client)
            print("subscribed")
            await until(lambda: not client.connected)
            back = client.unsubscribe("gate/open")
            print("taken back")
            await back
            await client.publish("gate/last", "last", qos=2)
            await until(lambda: ("gate/#", "gate/last") in counts)
        print("counts", sorted(counts.items()))
        """,
        protocol=5,
    ) as device:
        device.wait_for("subscribed")
        proxy.refuse()
        proxy.rst()
        device.wait_for("taken back")
        broker.publish("gate/open", "1", qos=2)
        proxy.heal()
        device.finish()
    assert device.said("counts") == [
        "[(('gate/#', 'gate/last'), 1), (('gate/#', 'gate/open'), 1)]"
    ]


def test_filters_with_topics_in_common_cannot_have_the_same_identifier_of_the_app(proxy):
    """Each handler would get each copy: nobody can tell whose a copy is."""
    Device.check(
        proxy,
        """
        client = make(protocol=5)
        own = {"subscription_identifier": 7}
        client.on("a/#", properties=own)(got)
        client.on("b/#", properties=own)(got)  # it has none in common with that
        text = "subscription_identifier 7 of 'a/b': 'a/#' has it and has topics in common with it"
        with raises(ValueError, text):
            client.on("a/b", properties=own)(got)
        client.on("a/b", properties={"subscription_identifier": 8})(got)
        async with client:
            await subscribed(client)
            with raises(ValueError, text):
                await client.subscribe("a/b", properties=own)
            with raises(ValueError, "7 of '$share/g/a/+': 'a/#' has it"):
                await client.subscribe("$share/g/a/+", properties=own)
            await client.subscribe("a/#", 1, properties=own)
            await client.unsubscribe("a/#")
            await client.subscribe("a/+/c", properties=own)
        """,
    )


def test_an_identifier_of_the_app_is_forgotten_with_the_filter(proxy):
    out = Device.check(
        proxy,
        COUNTING,
        """
        own = {"subscription_identifier": 5}
        for filter in ("gate/#", "gate/open"):
            client.on(filter, qos=2, properties=own)(counting(filter))
            own = {"subscription_identifier": 6}
        async with client:
            await subscribed(client)
            await client.unsubscribe("gate/open")
            client.on("gate/open", qos=2)(counting("gate/open"))
            await subscribed(client)
            await client.publish("gate/open", "now", qos=2)
            await client.publish("gate/last", "last", qos=2)
            await until(lambda: ("gate/#", "gate/last") in counts)
        assert counts == {
            ("gate/#", "gate/open"): 1,
            ("gate/open", "gate/open"): 1,
            ("gate/#", "gate/last"): 1,
        }, counts
        """,
        protocol=5,
        log=None,
    )
    assert out == ""
