"""Several brokers in order: which one is tried, what becomes of the session."""

import pytest

from tests.support import five, mpy, secure
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker
from tests.support.proxy import Proxy
from tools.ports import free_port

BOTH = pytest.mark.parametrize("protocol", [4, 5])

NOTED = """
delays = []

def note(client, error, old):
    delays.append(failed(client, error, old))
    return 1

failed = watch_failures(note)
"""


def connack(protocol, present=0, code=0):
    return (
        five.connack(present=present, code=code)
        if protocol == 5
        else bytes([0x20, 2, present, code])
    )


@BOTH
def test_the_list_is_tried_in_order_until_one_answers(broker, proxy, protocol):
    """One refuses, one is dead, one has no address, one refuses the client for good."""
    proxy.blackhole()

    def refuse(connection):
        connection.accept(connack(protocol, code=0x86 if protocol == 5 else 4))

    with FakeBroker(refuse) as strict:
        out = Device.check(
            [free_port(), proxy, ("nowhere.invalid", 1883), strict, broker],
            """
            async with client:
                await client.wait_connected()
                assert client.port == PORT
                assert client.host == "127.0.0.1"
                assert await client.subscribe("t", 1) == 1
            """,
            names={"PORT": broker.port},
            back_off="random",
            protocol=protocol,
            connect_timeout_s=1,
        )
    lines = [line for line in out.splitlines() if "onnect" in line]
    wanted = [
        "ECONNREFUSED|111",
        "no answer within 1 s",
        "nowhere.invalid",
        "refused",
        "connected",
    ]
    assert len(lines) >= 5, out
    for line, words in zip(lines, wanted, strict=False):
        assert any(word in line for word in words.split("|")), (line, words)


@BOTH
def test_a_refusal_for_good_moves_on_at_once(tmp_path, protocol):
    users = {"device": "right"}
    with (
        Broker(tmp_path / "a", users=users) as first,
        Broker(tmp_path / "b") as second,
    ):
        out = Device.check(
            [first, second],
            NOTED,
            """
            events = client.events()
            async with client:
                error = (await next_event(events, "Disconnected")).error
                assert isinstance(error, RefusedError), error
                await client.wait_connected()
                assert client.port == PORT
            assert len(delays) == 1 and delays[0] <= 500, delays
            """,
            names={"PORT": second.port},
            back_off="latest",
            protocol=protocol,
            user="device",
            password="wrong",
        )
    assert "refused" in out


@BOTH
def test_the_wait_grows_once_a_round_and_is_short_within_it(protocol):
    """Three rounds over two brokers that are down; then both refuse the client for good."""

    def refuse(connection):
        connection.accept(connack(protocol, code=0x87 if protocol == 5 else 5))

    with FakeBroker(refuse) as one, FakeBroker(refuse) as two:
        Device.check(
            [free_port(), free_port()],
            NOTED,
            """
            async with client:
                await until(lambda: len(delays) >= 8)
            within, between = delays[0:8:2], delays[1:8:2]
            assert max(within) <= 500, delays
            for n in range(4):
                assert 400 << n < between[n] <= 50 + (500 << n), delays
            """,
            back_off="latest",
            protocol=protocol,
            log=None,
        )
        Device.check(
            [one, two],
            NOTED,
            """
            async with client:
                await until(lambda: len(delays) >= 8)
            assert max(delays[0:8:2]) <= 500, delays
            for n in range(4):  # nothing of it heals by itself
                assert delays[2 * n + 1] // 10 == (3000 << n) // 10 - 1, delays
            """,
            back_off="latest",
            protocol=protocol,
            log=None,
        )


@BOTH
def test_after_a_loss_it_is_the_firsts_turn_again_with_a_session_of_its_own(tmp_path, protocol):
    """
    What was in flight at one broker is published anew at the other (QoS 1), or nobody knows
    (QoS 2). Back at the same broker the session goes on.
    """
    with (
        Broker(tmp_path / "a") as a,
        Broker(tmp_path / "b") as b,
        Proxy(a.port) as first,
        Proxy(b.port) as second,
    ):
        at_a, at_b = a.peer("t/#"), b.peer("t/#")
        for each in (first, second):
            each.swallow("PUBACK", "down")
            each.swallow("PUBCOMP", "down")
        with Device(
            [first, second],
            """
            suspect_nothing()  # t/1 looks like the culprit

            @client.on("d/#", 1)
            def handler(message):
                print("got", message.topic)

            async def publish(topic, qos):
                try:
                    print(topic, await client.publish(topic, topic, qos=qos))
                except DeliveryUnknown as e:
                    print("unknown", e.topic)

            async with client:
                await until(lambda: granted(client, "d/#") == 1)
                asyncio.create_task(publish("t/1", 1))
                asyncio.create_task(publish("t/2", 2))
                for n in range(2, 6):
                    await until(lambda: client.stats.connects == n)
                    await until(lambda: granted(client, "d/#") == 1)
                    print("connected", place(client))
            print("end")
            """,
            protocol=protocol,
            ack_timeout_s=60,
            log=None,
        ) as device:
            # the second connection is to the first broker too: the session goes on
            first.wait_for("PUBCOMP")
            first.rst()
            device.wait_for("connected 0")
            first.wait_for("PUBREL", "up", count=2)
            # the third to the second broker
            first.refuse()
            first.rst()
            device.wait_for("unknown t/2")
            device.wait_for("connected 1")
            second.wait_for("PUBACK")
            at_b.publish("d/b", "x")
            device.wait_for("got d/b")
            # the fourth to the first one again, which is there
            first.heal()
            second.heal()
            second.rst()
            assert {device.wait_for("t/1 0|connected 0") for _ in range(2)} == {
                "t/1 0",
                "connected 0",
            }
            at_a.publish("d/a", "x")
            device.wait_for("got d/a")
            device.kill()
    flags = [each.body[7] >> 1 & 1 for each in first.seen("CONNECT")]
    assert flags == [int(protocol == 5), 0, 1]
    assert [each.body[7] >> 1 & 1 for each in second.seen("CONNECT")] == [1]
    assert [each.body[0] for each in first.seen("CONNACK")] == [0, 1, 0]
    sent = [(each.topic, each.dup) for each in first.seen("PUBLISH", "up")]
    assert sent == [("t/1", False), ("t/2", False), ("t/1", True), ("t/1", False)]
    assert [(each.topic, each.dup) for each in second.seen("PUBLISH", "up")] == [("t/1", False)]
    assert at_b.received == [("t/1", b"t/1")]
    assert sorted(at_a.received) == 3 * [("t/1", b"t/1")] + [("t/2", b"t/2")]


@BOTH
def test_brokers_that_share_the_session_go_on_with_it(tmp_path, protocol):
    """Two ways to one broker stand for a cluster: QoS 1 and 2 arrive, QoS 2 once."""
    with Broker(tmp_path / "a") as a, Proxy(a.port) as first, Proxy(a.port) as second:
        peer = a.peer("t/#", qos=2)
        first.swallow("PUBACK", "down")
        first.swallow("PUBREC", "down")
        with Device(
            [first, second],
            """
            async with client:
                await client.wait_connected()
                got = await asyncio.gather(
                    client.publish("t/1", "1", qos=1), client.publish("t/2", "2", qos=2)
                )
                assert client.port == PORT
                print("done", got)
            """,
            names={"PORT": second.port},
            protocol=protocol,
            shared_session=True,
            ack_timeout_s=60,
            log=None,
        ) as device:
            first.wait_for("PUBREC")
            first.refuse()
            first.rst()
            assert device.wait_for("done") == "done [0, 0]"
            device.finish()
        peer.wait_for(3)
    [connect] = second.seen("CONNECT")
    assert connect.body[7] & 2 == 0
    assert [each.body[0] for each in second.seen("CONNACK")] == [1]
    again = [(each.topic, each.dup) for each in second.seen("PUBLISH", "up")]
    assert again == [("t/1", True), ("t/2", True)]
    assert sorted(peer.received) == [("t/1", b"1"), ("t/1", b"1"), ("t/2", b"2")]


@BOTH
def test_a_client_that_was_stopped_meets_another_broker_without_its_old_session(protocol):
    """The session of the first run was at the first broker."""
    flags = []

    def first(connection):
        flags.append(("a", connection.accept(connack(protocol))[7] & 2))
        connection.until_closed()
        home.close()

    def second(connection):
        flags.append(("b", connection.accept(connack(protocol))[7] & 2))
        connection.until_closed()

    with FakeBroker(first) as home, FakeBroker(second) as away:
        Device.check(
            [home, away],
            """
            for i in range(2):
                async with client:
                    await client.wait_connected()
                await asyncio.sleep_ms(100)
            assert client.port == PORT
            """,
            names={"PORT": away.port},
            protocol=protocol,
            log=None,
        )
    assert flags == [("a", 2 * (protocol == 5)), ("b", 2)]


def test_the_name_that_the_certificate_must_have_follows_the_host(tmp_path, pki):
    named = pki.issue("named", "server", issuer=pki.ca, names=("localhost",), addresses=())
    numbered = pki.issue("numbered", "server", issuer=pki.ca, addresses=("127.0.0.1",), names=())
    with (
        Broker(tmp_path / "a", "tls", pki=pki, identity=named) as a,
        Broker(tmp_path / "b", "tls", pki=pki, identity=numbered) as b,
        # the first is whom nobody asked for: the wrong name for that certificate
        Device(
            [a, ("localhost", a.port), b],
            """
            async with client:
                await client.wait_connected()
                print("at", client.host, client.port == A)
                await until(lambda: client.stats.connects == 2)
                print("at", client.host, client.port == B)
            """,
            names={"A": a.port, "B": b.port},
            tls=secure.files(pki.ca),
        ) as device,
    ):
        device.wait_for("CN.*does not match|name")
        device.wait_for("at localhost True")
        a.stop()
        device.wait_for("at 127.0.0.1 True")
        device.finish()


def test_a_list_that_is_none_raises_at_the_call():
    mpy.check(
        """
        from mqtt_as_tls import MQTTClient
        from tests.device.inside import hosts
        from tests.unit.checks import raises

        client = MQTTClient(["a", ("b", 5), "c"], client_id="x", port=7)
        assert hosts(client) == [("a", 7), ("b", 5), ("c", 7)]
        assert (client.host, client.port) == ("a", 7)
        assert MQTTClient(["a"], client_id="x").port == 1883
        for wrong in ([], [""], [("a", 0)], [("a", 65536)], [("a", "1883")], [("", 5)], [(5, 5)],
                      None, 5, [("a", 1, 2)], [5], [None], b"host"):
            with raises((ValueError, TypeError)):
                MQTTClient(wrong, client_id="x")
        with raises(ValueError, "for a list of hosts"):
            MQTTClient("a", shared_session=True)
        """
    )


def test_a_broker_that_is_listed_twice_does_not_hide_those_behind_it(broker):
    nobody = free_port()
    Device.check(
        [nobody, nobody, broker],
        """
        async with client:
            await client.wait_connected(20)
        """,
    )


@BOTH
def test_what_a_store_kept_meets_no_old_session_whichever_broker_answers_first(tmp_path, protocol):
    """Which of the brokers had the session is not known after a reset."""
    flags = []

    def script(connection):
        flags.append(connection.accept(connack(protocol))[7] & 2)
        connection.packet()  # PUBLISH, not acknowledged
        connection.until_closed()

    program = """
        async with client:
            client.enqueue("t", "x", qos=1)
            await until(lambda: in_flight(client) and client.connected)
    """
    for hosts in ([None], [free_port(), None]):
        with FakeBroker(script) as fake:
            Device.check(
                [host or fake for host in hosts],
                program,
                store=tmp_path / "store",
                protocol=protocol,
                drain_s=0,
            )
    assert flags[1] == 2
