"""
MQTT 5 with brokers of two makes: mosquitto and ejabberd.

ejabberd keeps no session across its restart, has no shared subscriptions, sends a Server Keep
Alive in every CONNACK, and takes a user name NAME@localhost only. What else is not as with
mosquitto is noted at the tests.
"""

import pytest

from tests.support import ejabberd
from tests.support.broker import Broker, properties_of
from tests.support.device import Device
from tests.support.proxy import Proxy

if not ejabberd.installed():
    MISSING = "ejabberd is not installed: sudo apt-get install ejabberd"
else:
    MISSING = ""

AS = {"protocol": 5, "user": "device@localhost", "password": "any", "log": None}


@pytest.fixture(scope="module", params=["mosquitto", "ejabberd"])
def either(request, tmp_path_factory):
    """A broker of each make, for all tests of this file."""
    folder = tmp_path_factory.mktemp("broker")
    if request.param == "mosquitto":
        topics = "topic deny denied/#\ntopic readwrite #\n"
        broker = Broker(folder, acl=f"{topics}user device@localhost\n{topics}")
    elif MISSING:
        pytest.skip(MISSING)
    else:
        broker = ejabberd.Ejabberd(folder)
    with broker:
        broker.make = request.param
        yield broker


@pytest.fixture
def way(either):
    with Proxy(either.port) as proxy:
        yield proxy


def test_messages_of_every_qos_go_both_ways_with_their_properties(either):
    peer = either.peer("up/#", qos=2, protocol=5)
    said = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "answers",
        "correlation_data": b"\x00\xff",
        "user_property": [("zoe", "1"), ("adam", "2"), ("zoe", "ö")],
    }
    with Device(
        either,
        """
        @client.on("down/#", 2)
        async def handler(message):
            await client.publish("up/" + str(message.qos), message.payload, qos=message.qos,
                                 properties=message.properties)

        async with client:
            await subscribed(client)
            print("ready")
            await told("leave")
        """,
        **AS,
    ) as device:
        device.wait_for("ready")
        for qos in (0, 1, 2):
            peer.publish(f"down/{qos}", f"ö{qos}", qos, properties=said)
        peer.wait_for(3)
        device.leave()
    messages = sorted(peer.messages, key=lambda each: each.topic)
    assert [(each.topic, each.qos) for each in messages] == [(f"up/{n}", n) for n in range(3)]
    for each in messages:
        assert each.payload.decode() == f"ö{each.qos}"
        assert properties_of(each) == said


def test_the_session_goes_on_after_a_lost_connection(either, way):
    """QoS 1 and 2 both ways over it: what waited at either side arrives, QoS 2 once."""
    peer = either.peer("up/#", qos=2, protocol=5)
    way.swallow("PUBACK", "down")
    way.swallow("PUBREC", "down")
    with Device(
        way,
        """
        @client.on("back/#", 2)
        def handler(message):
            print("got", message.topic)

        async with client:
            await subscribed(client)
            tasks = [asyncio.create_task(client.publish("up/%d" % n, "x", qos=n)) for n in (1, 2)]
            print("ready")
            for task in tasks:
                assert await task == 0
            print("done")
            await told("leave")
        """,
        client_id="resumes",
        ack_timeout_s=60,
        **AS,
    ) as device:
        device.wait_for("ready")
        way.wait_for("PUBREC", "down")
        way.refuse()
        way.rst()
        for qos in (1, 2):
            peer.publish(f"back/{qos}", "x", qos)
        way.heal()
        lines = {device.wait_for("got|done") for _ in range(3)}
        assert lines == {"got back/1", "got back/2", "done"}
        out = device.leave()
        assert out.count("got") == 2
    assert [each.body[0] for each in way.seen("CONNACK")] == [0, 1]
    assert len(way.seen("SUBSCRIBE")) == 1
    topics = [topic for topic, _ in peer.wait_for(3) and peer.received]
    assert sorted(topics) == ["up/1", "up/1", "up/2"]


def test_kept_messages_come_at_subscribing_and_go_when_emptied(either):
    Device.check(
        either,
        """
        writer = make(client_id="writes", **AS)
        got = []

        @client.on("kept/#", 1)
        def handler(message):
            got.append((message.topic, message.payload, message.retain))

        async with writer:
            await writer.publish("kept/a", "1", qos=1, retain=True)
            await writer.publish("kept/b", "2", qos=1, retain=True)
            await writer.publish("kept/b", "", qos=1, retain=True)
            async with client:
                await subscribed(client)
                await until(lambda: got)
                await writer.publish("kept/c", "3", qos=1)
                await until(lambda: len(got) == 2)
                assert got == [("kept/a", b"1", True), ("kept/c", b"3", False)], got
        """,
        names={"AS": AS},
        client_id="keeps",
        **AS,
    )


def test_a_will_comes_with_its_properties(either, way):
    peer = either.peer("w", protocol=5)
    with Device(
        way,
        """
        will = Will(
            "w", "gone", 1, properties=[("content_type", "text"), ("user_property", ("a", "b"))]
        )
        client = make(client_id="dies", session_expiry_s=0, will=will, **AS)
        async with client:
            await client.wait_connected()
            print("ready")
            await told("never")
        """,
        names={"AS": AS},
    ) as device:
        device.wait_for("ready")
        way.refuse()
        device.kill()
        way.rst()
        peer.wait_for(1)
    assert peer.received == [("w", b"gone")]
    assert properties_of(peer.messages[0]) == {
        "content_type": "text",
        "user_property": [("a", "b")],
    }


def test_topic_aliases_are_understood(either, way):
    """Neither uses any itself, with the client's Topic Alias Maximum 5."""
    Device.check(
        way,
        """
        got = []

        @client.on("a/#")
        def handler(message):
            assert message.topic == "a/" + message.payload.decode()
            got.append(message.topic)

        async with client:
            await subscribed(client)
            for name in "xyzxyzxx":
                await client.publish("a/" + name, name)
            await until(lambda: len(got) == 8)
            assert got == ["a/" + name for name in "xyzxyzxx"], got
        """,
        client_id="aliases",
        topic_aliases=2,
        properties={"topic_alias_maximum": 5},
        **AS,
    )
    up = [each.topic for each in way.seen("PUBLISH", "up")]
    assert up == ["a/x", "a/y", "a/z", "", "", "a/z", "", ""]
    assert "" not in [each.topic for each in way.seen("PUBLISH", "down")]


def test_a_request_gets_its_response(either):
    Device.check(
        either,
        """
        other = make(client_id="answers", **AS)

        @other.on("ask/#", 2)
        async def asked(message):
            await other.respond(message, b"re:" + message.payload)

        async with client, other:
            await subscribed(other)
            found = await asyncio.gather(*[
                client.request("ask/%d" % n, str(n), qos=n) for n in range(3)])
            assert [each.payload for each in found] == [b"re:0", b"re:1", b"re:2"]
        """,
        names={"AS": AS},
        client_id="asks",
        **AS,
    )


def test_what_is_denied_is_refused_and_the_connection_stays(either):
    """
    mosquitto 2.0 takes every subscription, and lets nothing pass. ejabberd refuses it, and calls
    what is denied a wrong topic (0x90, 0x8F).
    """
    Device.check(
        either,
        """
        async with client:
            for qos in (1, 2):
                with raises(RefusedError) as caught:
                    await client.publish("denied/a/b", "x", qos=qos)
                if MAKE == "mosquitto":
                    assert caught.error.code == 0x87, caught.error
                    continue
                assert caught.error.code == 0x90, caught.error
                assert "forbidden by service policy" in str(caught.error)
                with raises(RefusedError, "'denied/a/#': topic filter not valid") as caught:
                    await client.subscribe("denied/a/#")
                assert caught.error.code == 0x8F
            assert await client.publish("nobody", "x", qos=1) in (0, 16)
            assert client.stats.connects == 1
        """,
        names={"MAKE": either.make},
        client_id="denied",
        **AS,
    )


def test_a_session_that_is_taken_over_is_noticed(either):
    """ejabberd says so (0x8E), mosquitto 2.0.11 only closes."""
    with Device(
        either,
        """
        async with client:
            events = client.events()
            await client.wait_connected()
            print("ready")
            print("error", (await next_event(events, "Disconnected")).error)
            await told("leave")
        """,
        client_id="twice",
        **AS,
    ) as device:
        device.wait_for("ready")
        options = {"user": "device@localhost", "password": "any"}
        if either.make == "ejabberd":
            options = {}
        peer = either.peer(client_id="twice", protocol=5, **options)
        words = device.wait_for("error")
        peer.close()
        device.leave()
    if either.make == "ejabberd":
        assert "session taken over" in words
