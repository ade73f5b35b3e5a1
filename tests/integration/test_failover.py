"""Several brokers in order: which one is tried, what becomes of the session."""

import pytest

from tests.support import apps, five, mpy
from tests.support.broker import Broker
from tests.support.fake_broker import FakeBroker
from tests.support.proxy import Proxy
from tools.ports import free_port

BOTH = pytest.mark.parametrize("protocol", [4, 5])

LIST = """
def among(*hosts, **options):
    options.setdefault("client_id", "device")
    return MQTTClient(
        [each if isinstance(each, tuple) else ("127.0.0.1", int(each)) for each in hosts],
        protocol=int(sys.argv[1]), **options
    )
"""


def check(app, protocol, *args):
    return apps.check(LIST + "\n" + app, protocol, *args)


def start(app, protocol, *args):
    return apps.start(LIST + "\n" + app, protocol, *args)


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
        out = check(
            """
async def main():
    client = among(
        sys.argv[2], sys.argv[3], ("nowhere.invalid", 1883), sys.argv[4], sys.argv[5],
        connect_timeout_s=1
    )
    async with client:
        await client.wait_connected()
        assert client.port == int(sys.argv[5])
        assert client.host == "127.0.0.1"
        assert await client.subscribe("t", 1) == 1
            """,
            protocol,
            free_port(),
            proxy.port,
            strict.port,
            broker.port,
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
        out = check(
            """
async def main():
    retry.random = Latest
    delays = []
    failed = retry.failed

    def note(client, error):
        delays.append(failed(client, error))
        assert isinstance(error, RefusedError), error
        return delays[-1]

    retry.failed = note
    async with among(*sys.argv[2:], user="device", password="wrong") as client:
        await client.wait_connected()
        assert client.port == int(sys.argv[3])
    assert len(delays) == 1 and delays[0] <= 500, delays
            """,
            protocol,
            first.port,
            second.port,
        )
    assert "refused" in out


@BOTH
def test_the_wait_grows_once_a_round_and_is_short_within_it(protocol):
    """Three rounds over two brokers that are down; then both refuse the client for good."""

    def refuse(connection):
        connection.accept(connack(protocol, code=0x87 if protocol == 5 else 5))

    with FakeBroker(refuse) as one, FakeBroker(refuse) as two:
        check(
            """
async def main():
    retry.random = Latest
    delays = []
    failed = retry.failed

    def note(client, error):
        delays.append(failed(client, error))
        return 1

    retry.failed = note
    async with among(*sys.argv[2:4], log=None) as client:
        await until(lambda: len(delays) >= 8)
    within, between = delays[0:8:2], delays[1:8:2]
    assert max(within) <= 500, delays
    for n in range(4):
        assert 400 << n < between[n] <= 50 + (500 << n), delays
    delays.clear()
    async with among(*sys.argv[4:6], log=None, client_id="other") as client:
        await until(lambda: len(delays) >= 8)
    assert max(delays[0:8:2]) <= 500, delays
    assert delays[7] == 600_000, delays  # nothing of it heals by itself
            """,
            protocol,
            free_port(),
            free_port(),
            one.port,
            two.port,
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
        with start(
            """
async def main():
    soonest()
    retry._suspect = lambda client, now: None  # t/1 looks like the culprit
    client = among(*sys.argv[2:], ack_timeout_s=60, log=None)

    @client.on("d/#", 1)
    def handler(message):
        print("got", message.topic)

    async def publish(topic, qos):
        try:
            print(topic, await client.publish(topic, topic, qos=qos))
        except DeliveryUnknown as e:
            print("unknown", e.topic)

    async with client:
        await until(lambda: client._dispatcher.find("d/#").granted == 1)
        asyncio.create_task(publish("t/1", 1))
        asyncio.create_task(publish("t/2", 2))
        for n in range(2, 6):
            await until(lambda: client.stats.connects == n)
            await until(lambda: client._dispatcher.find("d/#").granted == 1)
            print("connected", client._hosts.index((client.host, client.port)))
    print("end")
            """,
            protocol,
            first.port,
            second.port,
        ) as app:
            # the second connection is to the first broker too: the session goes on
            first.wait_for("PUBCOMP")
            first.rst()
            app.wait_for("connected 0")
            first.wait_for("PUBREL", "up", count=2)
            # the third to the second broker
            first.refuse()
            first.rst()
            app.wait_for("unknown t/2")
            app.wait_for("connected 1")
            second.wait_for("PUBACK")
            at_b.publish("d/b", "x")
            app.wait_for("got d/b")
            # the fourth to the first one again, which is there
            first.heal()
            second.heal()
            second.rst()
            assert {app.wait_for("t/1 0|connected 0") for _ in range(2)} == {
                "t/1 0",
                "connected 0",
            }
            at_a.publish("d/a", "x")
            app.wait_for("got d/a")
            app.kill()
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
        with start(
            """
async def main():
    soonest()
    client = among(*sys.argv[2:], shared_session=True, ack_timeout_s=60, log=None)
    async with client:
        await client.wait_connected()
        got = await asyncio.gather(
            client.publish("t/1", "1", qos=1), client.publish("t/2", "2", qos=2)
        )
        assert client.port == int(sys.argv[3])
        print("done", got)
            """,
            protocol,
            first.port,
            second.port,
        ) as app:
            first.wait_for("PUBREC")
            first.refuse()
            first.rst()
            assert app.wait_for("done") == "done [0, 0]"
            app.wait()
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
        check(
            """
async def main():
    soonest()
    client = among(*sys.argv[2:], log=None)
    for i in range(2):
        async with client:
            await client.wait_connected()
        await asyncio.sleep_ms(100)
    assert client.port == int(sys.argv[3])
            """,
            protocol,
            home.port,
            away.port,
        )
    assert flags == [("a", 2 * (protocol == 5)), ("b", 2)]


def test_the_name_that_the_certificate_must_have_follows_the_host(tmp_path, pki):
    named = pki.issue("named", "server", issuer=pki.ca, names=("localhost",), addresses=())
    numbered = pki.issue("numbered", "server", issuer=pki.ca, addresses=("127.0.0.1",), names=())
    with (
        Broker(tmp_path / "a", "tls", pki=pki, identity=named) as a,
        Broker(tmp_path / "b", "tls", pki=pki, identity=numbered) as b,
        mpy.start(
            """
            import asyncio, sys
            from mqtt_as_tls import MQTTClient, TLS
            from tests.device.app import soonest, until

            async def main():
                soonest()
                a, b = int(sys.argv[1]), int(sys.argv[2])
                # the first is whom nobody asked for: the wrong name for that certificate
                client = MQTTClient(
                    [("127.0.0.1", a), ("localhost", a), ("127.0.0.1", b)],
                    tls=TLS(ca=sys.argv[3]),
                )
                async with client:
                    await client.wait_connected()
                    print("at", client.host, client.port == a)
                    await until(lambda: client.stats.connects == 2)
                    print("at", client.host, client.port == b)

            asyncio.run(main())
            """,
            a.port,
            b.port,
            pki.ca.cert_der,
        ) as app,
    ):
        app.wait_for("CN.*does not match|name")
        app.wait_for("at localhost True")
        a.stop()
        app.wait_for("at 127.0.0.1 True")
        app.wait()


def test_a_list_that_is_none_raises_at_the_call():
    mpy.check(
        """
        from mqtt_as_tls import MQTTClient
        from tests.unit.checks import raises

        client = MQTTClient(["a", ("b", 5), "c"], client_id="x", port=7)
        assert client._hosts == [("a", 7), ("b", 5), ("c", 7)]
        assert (client.host, client.port) == ("a", 7)
        assert MQTTClient(["a"], client_id="x").port == 1883
        for hosts in ([], [""], [("a", 0)], [("a", 65536)], [("a", "1883")], [("", 5)], [(5, 5)],
                      None, 5, [("a", 1, 2)], [5], [None], b"host"):
            with raises((ValueError, TypeError)):
                MQTTClient(hosts, client_id="x")
        with raises(ValueError, "for a list of hosts"):
            MQTTClient("a", shared_session=True)
        """
    )


def test_a_broker_that_is_listed_twice_does_not_hide_those_behind_it(broker):
    check(
        """
async def main():
    soonest()
    async with among(sys.argv[3], sys.argv[3], sys.argv[2]) as client:
        await client.wait_connected(20)
        """,
        4,
        broker.port,
        free_port(),
    )


@BOTH
def test_what_a_store_kept_meets_no_old_session_whichever_broker_answers_first(tmp_path, protocol):
    """Which of the brokers had the session is not known after a reset."""
    flags = []

    def script(connection):
        flags.append(connection.accept(connack(protocol))[7] & 2)
        connection.packet()  # PUBLISH, not acknowledged
        connection.until_closed()

    app = """
from mqtt_as_tls import FileStore

async def main():
    soonest()
    async with among(*sys.argv[3:], store=FileStore(sys.argv[2]), drain_s=0) as client:
        client.enqueue("t", "x", qos=1)
        await until(lambda: client._session.inflight and client.connected)
        """
    for hosts in ([None], [free_port(), None]):
        with FakeBroker(script) as fake:
            check(app, protocol, tmp_path / "store", *[host or fake.port for host in hosts])
    assert flags[1] == 2
