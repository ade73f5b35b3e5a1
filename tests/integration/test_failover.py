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


def clean(fake):
    """Return whether each CONNECT to a FakeBroker asked for a clean session (list of bool)."""
    return [bool(each.hello[7] & 2) for each in fake.connections]


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
            assert len(delays) == 1 and delays[0] <= 5050, delays
            """,
            names={"PORT": second.port},
            back_off="latest",
            protocol=protocol,
            user="device",
            password="wrong",
        )
    assert "refused" in out


@BOTH
def test_the_wait_grows_once_a_round_and_is_spread_over_five_seconds_within_it(protocol):
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
            assert {each // 10 for each in within} == {504}, delays
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
            assert max(delays[0:8:2]) <= 5050, delays
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
            at_a.wait_for(2, "t/1")
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
        at_a.wait_for(4)
        at_b.wait_for(1)
    flags = [each.body[7] >> 1 & 1 for each in first.seen("CONNECT")]
    # with 3.1.1 a session that begins clean ends with its connection: another one follows at once
    lasting = [0] * (protocol == 4)
    assert flags == [int(protocol == 5), 0, 1, *lasting]
    assert [each.body[7] >> 1 & 1 for each in second.seen("CONNECT")] == [1, *lasting]
    assert [each.body[0] for each in first.seen("CONNACK")] == [0, 1, 0, *lasting]
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
def test_what_comes_while_it_is_offline_waits_at_the_broker_that_it_changed_to(tmp_path, protocol):
    with (
        Broker(tmp_path / "a") as a,
        Broker(tmp_path / "b") as b,
        Proxy(a.port) as first,
        Proxy(b.port) as second,
        Device([first, second], 'client.on("in", 1)(got)', protocol=protocol) as device,
    ):
        first.wait_for("SUBACK", "down")
        first.refuse()
        first.rst()
        second.wait_for("SUBACK", "down")
        second.refuse()
        second.rst()
        device.wait_for(f"cannot connect to .* port {second.port}")
        b.publish("in", "1")
        second.heal()
        device.wait_for("got 1")
        device.leave()


@BOTH
def test_a_client_that_was_stopped_meets_another_broker_without_its_old_session(protocol):
    """The session of the first run was at the first broker."""

    def first(connection):
        connection.accept(connack(protocol))
        connection.until_closed()
        home.close()

    def second(connection):
        connection.accept(connack(protocol))
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
    assert clean(home) == [protocol == 5]
    assert clean(away) == [True] + [False] * (protocol == 4)


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

    def script(connection):
        connection.accept(connack(protocol))
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
    # with 3.1.1 a session that begins clean ends with its connection: another one follows at once
    assert clean(fake)[0]


# A fleet spreads


def test_a_fleet_that_is_balanced_spreads_evenly_also_when_a_broker_is_gone():
    out = mpy.check(
        """
        from mqtt_as_tls import MQTTClient
        from tests.device.inside import hosts

        names = ["a.lan", "b.lan", ("b.lan", 1884), "c.lan"]
        for n in range(400):
            client = MQTTClient(names, client_id="device%d" % n, balance=True)
            again = MQTTClient(list(reversed(names)), client_id="device%d" % n, balance=True)
            assert hosts(client) == hosts(again)
            assert (client.host, client.port) == hosts(client)[0]
            print(hosts(client))
        assert hosts(MQTTClient(names, client_id="x", balance=False))[0] == ("a.lan", 1883)
        any_id = {"client_id": "", "clean_start": True}  # the broker gives one
        firsts = {hosts(MQTTClient(names, balance=True, **any_id))[0] for _ in range(50)}
        assert len(firsts) > 1, firsts
        """
    )
    orders = [eval(line) for line in out.splitlines()]
    all_of_them = sorted([("a.lan", 1883), ("b.lan", 1883), ("b.lan", 1884), ("c.lan", 1883)])
    assert len(orders) == 400
    assert all(sorted(order) == all_of_them for order in orders)
    for each in all_of_them:
        mine = [order for order in orders if order[0] == each]
        assert 70 < len(mine) < 130, each
        for other in all_of_them:
            if other != each:
                assert 15 < sum(order[1] == other for order in mine) < 55, (each, other)


def test_options_for_a_list_raise_at_the_call_where_they_cannot_be():
    mpy.check(
        """
        from mqtt_as_tls import MQTTClient
        from tests.unit.checks import raises

        for wrong in (0, -1, 86401, "5", 1.5):
            with raises(ValueError, "prefer_first_s"):
                MQTTClient(["a", "b"], client_id="x", prefer_first_s=wrong)
        for option in ("balance", "prefer_first_s"):
            with raises(ValueError, option + ": for a list of hosts"):
                MQTTClient("a", **{option: 5})
        """
    )


@BOTH
def test_a_broker_that_takes_it_and_hangs_up_each_time_does_not_keep_it_from_the_next(
    protocol,
):
    def script(connection):
        connection.accept(connack(protocol, present=connection.number > 1))

    def other(connection):
        connection.accept(connack(protocol))
        connection.until_closed()

    with FakeBroker(script) as moody, FakeBroker(other) as good:
        Device.check(
            [moody, good],
            """
            async with client:
                await until(lambda: client.connected and client.port == PORT)
            """,
            names={"PORT": good.port},
            protocol=protocol,
        )
        assert len(moody.connections) == 3


@BOTH
def test_what_it_had_no_room_for_comes_from_the_broker_that_has_it(tmp_path, protocol):
    """Behind with its handlers it connects anew: to the same broker, not to the first."""
    with Broker(tmp_path / "a") as a, Broker(tmp_path / "b") as b, Proxy(a.port) as first:
        first.refuse()
        with Device(
            [first, b],
            """
            waits = [1]

            @client.on("t", qos=1)
            async def handler(message):
                if waits:
                    await told("go on")
                    waits.clear()
                print("handled", len(message.payload))
            """,
            protocol=protocol,
            max_packet=1000,
            max_backlog=2000,
        ) as device:
            b.wait_for_log("Sending SUBACK to device")
            for n in range(800, 806):
                b.publish("t", n * b"x", qos=1)
            device.wait_for("handlers are behind")
            first.heal()
            device.send("go on")
            for n in range(800, 806):
                device.wait_for(f"handled {n}")
            device.leave()
    assert first.seen("CONNECT") == []


# Back to the first


RETURNS = """
async def publish():
    n = 0
    while not done:
        n += 1
        await client.publish("t", str(n), qos=2)
    print("published", n)

done = []
async with client:
    task = asyncio.create_task(publish())
    for line in ("there", "home"):
        await told(line)
        await until(lambda: client.connected and place(client) == (line == "there"))
        print("at", line)
    done.append(1)
    await task
"""


@BOTH
@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
def test_it_goes_back_to_its_first_broker_once_that_answers_and_loses_nothing(
    tmp_path, protocol, shared
):
    with (
        Broker(tmp_path / "a") as a,
        Broker(tmp_path / "b") as b,
        Proxy(a.port) as first,
        Proxy((a if shared else b).port) as second,
    ):
        at_a, at_b = a.peer("t", "end", qos=2), b.peer("t", "end", qos=2)
        first.refuse()
        with Device(
            [first, second],
            RETURNS,
            protocol=protocol,
            prefer_first_s=1,
            shared_session=shared,
        ) as device:
            device.send("there")
            device.wait_for("at there")
            second.wait_for("PUBCOMP", "down", count=3)
            first.heal()
            device.send("home")
            line = device.wait_for("going back to it")
            assert f"port {first.port} answers again" in line, line
            device.wait_for("at home")
            last = int(device.wait_for("published").split()[1])
            out = device.finish()
        for peer in (at_b, at_a):  # what the brokers have may still be on its way to them
            peer.publish("end", qos=2)
            peer.wait_for(1, topic="end")
        received = at_b.received + at_a.received
        got = [int(payload) for topic, payload in received if topic == "t"]
        assert got == list(range(1, last + 1))
    assert "sent again" not in out
    [goodbye] = second.seen("DISCONNECT")
    ends = b"\0\5\x11\0\0\0\0" if protocol == 5 and not shared else b""  # its session, too
    assert goodbye.body == ends
    connect = first.seen("CONNECT")[0]
    assert connect.body[7] & 2 == 2 * (not shared)


def test_the_will_is_published_at_the_broker_that_is_left(tmp_path):
    with (
        Broker(tmp_path / "a") as a,
        Broker(tmp_path / "b") as b,
        Proxy(a.port) as first,
    ):
        wills = {4: b.peer("status/4"), 5: b.peer("status/5")}
        first.refuse()
        for protocol, peer in wills.items():
            with Device(
                [first, b],
                f"""
                hosts = [("127.0.0.1", A), ("127.0.0.1", B)]
                will = Will("status/{protocol}", "off")
                client = make(hosts, will=will, protocol={protocol}, prefer_first_s=1)
                async with client:
                    await until(lambda: client.connected and place(client) == 1)
                    print("there")
                    await until(lambda: client.connected and place(client) == 0)
                """,
                names={"A": first.port, "B": b.port},
            ) as device:
                device.wait_for("there")
                first.heal()
                peer.wait_for(1)
                assert peer.received == [(f"status/{protocol}", b"off")]
                device.finish()
                first.refuse()


def test_a_first_broker_that_is_not_really_back_is_tried_ever_more_rarely(tmp_path):
    """It takes a connection and refuses the client, or hangs up, or loses it right away."""

    def refuses(connection):
        connection.accept(b"\x20\x02\x00\x05")

    def loses(connection):
        connection.accept()

    def hangs_up(connection):
        pass

    def good(connection):
        connection.accept()
        connection.until_closed()

    for script, visits in (refuses, True), (loses, True), (hangs_up, False):
        with FakeBroker(script) as home, FakeBroker(good) as away:
            out = Device.check(
                [home, away],
                """
                waits = []
                shorten_returns(waits)
                async with client:
                    await until(lambda: len(waits) >= 5)
                print("waits", waits[:5])
                """,
                prefer_first_s=40000,
                timeout_s=60,
            )
        waits = eval(out.partition("waits ")[2].splitlines()[0])
        expected = [40, 80, 86.4, 86.4, 86.4] if visits else 5 * [40]
        assert [each / 1e6 for each in waits] == expected, script
