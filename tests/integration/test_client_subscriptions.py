"""Subscriptions: declared, made, taken back, refused, and what becomes of them in an outage."""

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, FakeBroker
from tests.support.refusing import refusing_broker


def filters(packet):
    """[(filter, qos)] of a SUBSCRIBE, [filter] of an UNSUBSCRIBE."""
    data = packet.body[2:]
    found = []
    while data:
        end = 2 + int.from_bytes(data[:2], "big")
        name = data[2:end].decode()
        if packet.name == "SUBSCRIBE":
            found.append((name, data[end]))
            end += 1
        else:
            found.append(name)
        data = data[end:]
    return found


def asked(proxy, connection=None):
    """All filters that were asked for, sorted."""
    packets = proxy.seen("SUBSCRIBE", "up", connection)
    return sorted(each for packet in packets for each in filters(packet))


DECLARED = """
client.on("t/a", qos=1)(got)
client.on("t/b")(got)

@client.on_connect
async def connected():
    print("on_connect", client.stats.connects)

async def publish():
    await told("publish")
    await client.publish("t/x", "x", qos=1)
    print("published")

async with client:
    print("granted", await client.subscribe("t/c", 1), await client.subscribe("t/d"))
    publisher = asyncio.create_task(publish())
    await told("leave")
"""
FOUR = [("t/a", 1), ("t/b", 0), ("t/c", 1), ("t/d", 0)]


# Outages


def test_what_is_granted_is_not_asked_again_when_the_session_is_resumed(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.1.2-4]"""
    with Device(proxy, DECLARED) as device:
        device.wait_for("granted 1 0")
        proxy.rst()
        device.wait_for("connected in .* session resumed")
        device.wait_for("on_connect 2")
        broker.publish("t/a", "1")
        device.wait_for("got 1 1")
        device.leave()
    assert asked(proxy, 1) == FOUR
    assert asked(proxy, 2) == []


def test_subscriptions_are_renewed_when_the_session_was_lost(proxy, broker):
    with Device(proxy, DECLARED) as device:
        device.wait_for("granted 1 0")
        broker.restart(wipe=True)
        device.wait_for("connected in .* session new")
        device.wait_for("on_connect 2")
        broker.publish("t/a", "1")
        device.wait_for("got 1 1")
        device.leave()
    last = proxy.seen("CONNECT")[-1].connection
    assert asked(proxy, 1) == asked(proxy, last) == FOUR


@pytest.mark.parametrize("answer", [b"", b"\x20\x02\x00\x03"], ids=["none", "refused"])
def test_what_is_granted_is_asked_again_when_a_connect_was_not_answered(answer):
    """
    The broker may have lost its state and begun a session with it, which has no subscriptions: the
    next connection finds that one. A refusal begins none.
    """
    asked = []

    def script(connection):
        number = connection.number
        if number == 2:
            connection.packet()
            connection.send(answer)
            return
        connection.accept(CONNACK if number == 1 else RESUMED)
        first, body = connection.packet()
        while first == 0x82:
            asked.append((number, body[2:]))
            connection.send(b"\x90\x03" + body[:2] + b"\x01")
            first, body = connection.packet()
        assert first == 0x30  # PUBLISH: there is no more to ask for

    Device.against(
        script,
        """
        client.on("t", qos=1)(print)
        async with client:
            for count in range(1, 4):
                await until(lambda: client.stats.connects == count)
                await client.publish("next")
        """,
    )
    again = [3] if not answer else []
    assert asked == [(number, b"\0\x01t\x01") for number in [1, *again]]


def test_the_first_connection_subscribes_everything_even_with_an_old_session(proxy, broker):
    old = broker.peer("t/old", client_id="device", clean=False)
    old.close()
    with Device(proxy, DECLARED) as device:
        device.wait_for("connected in .* session resumed")
        device.wait_for("granted 1 0")
        device.leave()
    assert asked(proxy) == FOUR


def test_a_session_that_outlived_the_process_delivers_what_came_meanwhile(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.1.2-4], [MQTT-3.1.3-2]"""
    with Device(proxy, DECLARED) as device:
        device.wait_for("granted 1 0")
        device.kill()
    broker.wait_for_log("Client device")
    broker.publish("t/a", "meanwhile")
    with Device(proxy, DECLARED) as device:
        device.wait_for("session resumed")
        device.wait_for("got meanwhile 1")
        device.leave()
    assert asked(proxy, 2) == FOUR


def test_clean_start_forgets_the_session_at_every_connect(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.1.2-6]"""
    broker.peer("t/old", client_id="device", clean=False).close()
    with Device(proxy, DECLARED, clean_start=True) as device:
        device.wait_for("session new")
        device.wait_for("granted 1 0")
        proxy.rst()
        device.wait_for("session new")
        device.wait_for("on_connect 2")
        device.leave()
    assert [each.body[7] & 2 for each in proxy.seen("CONNECT")] == [2, 2]
    assert asked(proxy, 1) == asked(proxy, 2) == FOUR


def test_on_connect_runs_after_the_subscriptions_are_renewed(proxy, broker):
    with Device(proxy, DECLARED) as device:
        device.wait_for("granted")
        proxy.swallow("SUBACK", "down", times=1)
        broker.restart(wipe=True)
        device.wait_for("connected in .* session new")
        proxy.wait_for("SUBACK", "down", 3)
        device.send("publish")
        device.wait_for("published")
        assert "on_connect 2" not in device.lines
        proxy.rst()
        device.wait_for("on_connect 3")
        device.leave()
    assert "on_connect 2" not in device.lines


def test_an_on_connect_that_raises_is_reported_and_the_others_run(proxy):
    with Device(
        proxy,
        """
        @client.on_connect
        async def bad():
            raise ValueError("in on_connect")

        @client.on_connect
        async def good():
            print("good", client.stats.connects)
        """,
    ) as device:
        device.wait_for("good 1")
        proxy.rst()
        device.wait_for("good 2")
        out = device.leave()
    assert "on_connect failed: ValueError('in on_connect'" in out
    assert proxy.connections == 2


def test_an_on_connect_that_still_runs_gives_way_to_the_next(proxy):
    with Device(
        proxy,
        """
        @client.on_connect
        async def hangs():
            mine = client.stats.connects
            print("begins", mine)
            try:
                await asyncio.sleep(100)
            finally:
                print("ends", mine)

        async with client:
            await told("leave")
        print("left")
        """,
    ) as device:
        device.wait_for("begins 1")
        proxy.rst()
        device.wait_for("begins 2")
        assert "left" in device.leave()
    mine = [line for line in device.lines if line.startswith(("begins", "ends"))]
    assert sorted(mine) == ["begins 1", "begins 2", "ends 1", "ends 2"]
    assert mine.index("ends 1") < mine.index("ends 2")


def test_an_unsuback_that_does_not_come_drops_the_connection_and_it_is_asked_again(proxy):
    proxy.swallow("UNSUBACK", "down", times=1)
    with Device(
        proxy,
        """
        async with client:
            await client.subscribe("t", 1)
            await client.unsubscribe("t")
            print("unsubscribed")
        """,
        ack_timeout_s=1,
    ) as device:
        device.wait_for("connection lost: no ")
        device.wait_for("unsubscribed")
        device.finish()
    assert [filters(each) for each in proxy.seen("UNSUBSCRIBE", "up")] == [["t"], ["t"]]
    assert asked(proxy, 2) == []


def test_a_suback_that_does_not_come_drops_the_connection_and_it_is_asked_again(proxy):
    proxy.swallow("SUBACK", "down", times=1)
    with Device(
        proxy,
        """
        async with client:
            print("granted", await client.subscribe("t", 1))
        """,
        ack_timeout_s=1,
    ) as device:
        device.wait_for("connection lost: no SUBACK for 1 s")
        device.wait_for("granted 1")
        device.finish()
    assert asked(proxy, 1) == asked(proxy, 2) == [("t", 1)]


# While the app runs


def test_a_subscription_made_offline_is_granted_when_connected(proxy, broker):
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            messages = client.messages()
            with raises(asyncio.TimeoutError):
                await client.subscribe("t/timed-out", timeout_s=0.05)
            task = asyncio.create_task(client.subscribe("t/+", 1))
            await asyncio.sleep_ms(50)
            print("waits", not task.done())
            print("granted", await task)
            async for message in messages:
                print("got", message.payload)
                break
        """,
    ) as device:
        device.wait_for("waits True")
        proxy.heal()
        device.wait_for("granted 1")
        broker.publish("t/x", "1")
        device.wait_for("got b'1'")
        device.finish()
    assert asked(proxy) == [("t/+", 1)]


def test_unsubscribe_takes_back_the_subscription_and_its_handler(proxy, broker):
    with Device(
        proxy,
        """
        @client.on("t/a", qos=1)
        def a(message):
            print("a got", message.payload)

        @client.on("t/b", qos=1)
        def b(message):
            print("b got", message.payload)

        async with client:
            await client.publish("t/a", "1", qos=1)
            await told("unsubscribe")
            await client.unsubscribe("t/a")
            await client.publish("t/a", "2", qos=1)
            await client.publish("t/b", "3", qos=1)
            print("unsubscribed")
            await told("again")
            assert await client.subscribe("t/a") == 0

            @client.on("t/a")
            def a_again(message):
                print("a again got", message.payload)

            await client.publish("t/a", "4", qos=1)
            await told("leave")
        """,
    ) as device:
        device.wait_for("a got b'1'")
        device.send("unsubscribe")
        device.wait_for("b got b'3'")
        proxy.rst()
        device.wait_for("session resumed")
        device.send("again")
        device.wait_for("a again got b'4'")
        out = device.leave()
    assert "a got b'2'" not in out
    assert "refused" not in out  # as if the UNSUBACK were a SUBACK
    assert [filters(each) for each in proxy.seen("UNSUBSCRIBE", "up")] == [["t/a"]]


def test_unsubscribe_takes_back_what_an_earlier_program_left_in_the_session(proxy, broker):
    old = broker.peer("old/#", client_id="device", clean=False)
    old.close()
    with Device(
        proxy,
        """
        async with client:
            await client.unsubscribe("old/#", "never")
            await client.publish("old/1", "x", qos=1)
            await client.publish("old/2", "x", qos=1)
            print("received", client.stats.received)
        """,
    ) as device:
        device.wait_for("session resumed")
        device.wait_for("received 0")
        device.finish()
    assert [filters(each) for each in proxy.seen("UNSUBSCRIBE", "up")] == [["old/#", "never"]]


def test_unsubscribe_takes_several_filters_in_one_packet(proxy, broker):
    """MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-3.10.1-1], [MQTT-3.10.3-1], [MQTT-3.10.3-2]"""
    with Device(
        proxy,
        """
        @client.on("t/handler", qos=2)
        def handler(message):
            print("handler got", message.payload)

        async with client:
            for filter in ("t/1", "t/2", "t/3"):
                await client.subscribe(filter, 2)
            await client.unsubscribe("t/1", "t/3", "t/handler")
            messages = client.messages()
            for topic in ("t/1", "t/3", "t/handler", "t/2"):
                await client.publish(topic, topic, qos=2)
            print("got", (await messages.__anext__()).topic)
            await client.unsubscribe()
            print("received", client.stats.received)
        """,
    ) as device:
        device.wait_for("got t/2")
        device.wait_for("received 1")
        device.finish()
    assert [filters(each) for each in proxy.seen("UNSUBSCRIBE", "up")] == [
        ["t/1", "t/3", "t/handler"]
    ]
    assert proxy.seen("UNSUBSCRIBE", "up")[0].raw[0] == 0xA2


def test_a_filter_that_is_subscribed_again_is_left_out_of_a_repeated_unsubscribe(proxy, broker):
    with Device(
        proxy,
        """
        async with client:
            await client.subscribe("t/1", 1)
            await client.subscribe("t/2", 1)
            print("subscribed")
            await told("unsubscribe")
            task = asyncio.create_task(client.unsubscribe("t/1", "t/2"))
            await told("subscribe")
            messages = client.messages()
            print("granted", await client.subscribe("t/1", 1))
            await task
            await client.publish("t/2", "2", qos=1)
            await client.publish("t/1", "1", qos=1)
            print("got", (await messages.__anext__()).payload)
        """,
    ) as device:
        device.wait_for("subscribed")
        proxy.swallow("UNSUBSCRIBE", "up", times=1)
        device.send("unsubscribe")
        proxy.wait_for("UNSUBSCRIBE", "up")
        device.send("subscribe")
        device.wait_for("granted 1")
        proxy.rst()
        device.wait_for("session resumed")
        device.wait_for("got b'1'")
        device.finish()
    assert [filters(each) for each in proxy.seen("UNSUBSCRIBE", "up")] == [
        ["t/1", "t/2"],
        ["t/2"],
    ]


def test_unsubscribe_offline_is_done_when_connected(proxy, broker):
    with Device(
        proxy,
        """
        async with client:
            await client.subscribe("t", 1)
            print("subscribed")
            await told("unsubscribe")
            await client.unsubscribe("t")
            await client.publish("t", "x", qos=1)
            await client.publish("t", "y", qos=1)
            print("received", client.stats.received)
        """,
    ) as device:
        device.wait_for("subscribed")
        proxy.refuse()
        proxy.rst()
        device.wait_for("connection lost")
        device.send("unsubscribe")
        device.wait_for("not connected")
        proxy.heal()
        device.wait_for("received 0")
        device.finish()


def test_what_waits_for_a_handler_that_is_taken_back_is_acknowledged(proxy, broker):
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handler(message):
            await until(lambda: client.stats.received == 3)
            await client.unsubscribe("t")
            print("unsubscribed by its handler")
            await hold(message)
        """,
    ) as device:
        device.subscribed()
        broker.publish("t", *"123")
        device.wait_for("unsubscribed by its handler")
        device.send("end")
        device.wait_for("ends 1")
        proxy.wait_for("PUBACK", "up", 3)
        device.leave()
    assert device.said("got") == ["1 1"]


@pytest.mark.parametrize("who", ["itself", "another task"])
def test_a_handler_that_raises_after_it_was_taken_back_holds_up_no_acknowledgement(
    proxy, broker, who
):
    with Device(
        proxy,
        """
        @client.on("once", qos=1)
        async def once(message):
            if WHO == "itself":
                await client.unsubscribe("once")
            print("begins")
            await told("raise")
            raise ValueError("after all")

        client.on("other", qos=1)(got)

        async with client:
            await told("unsubscribe")
            if WHO != "itself":
                await client.unsubscribe("once")
            print("taken back")
            await told("leave")
        """,
        names={"WHO": who},
    ) as device:
        device.subscribed()
        broker.publish("once", "x")
        device.wait_for("begins")
        device.send("unsubscribe")
        device.wait_for("taken back")
        device.send("raise")
        device.wait_for("handler of 'once' failed: ValueError")
        broker.publish("other", *"123")
        proxy.wait_for("PUBACK", "up", 4)
        device.leave()
    assert device.said("got") == ["1 1", "2 1", "3 1"]
    assert proxy.connections == 1


def test_subscribing_wins_over_an_unsubscribe_that_has_not_begun(proxy, broker):
    with Device(
        proxy,
        """
        async with client:
            await client.subscribe("t", 1)
            task = asyncio.create_task(client.unsubscribe("t"))
            messages = client.messages()
            print("granted", await client.subscribe("t", 1))
            await task
            print("got", (await messages.__anext__()).payload)
        """,
    ) as device:
        device.wait_for("granted 1")
        broker.publish("t", "1")
        device.wait_for("got b'1'")
        device.finish()
    assert not proxy.seen("UNSUBSCRIBE", "up")


def test_subscribing_wins_over_an_unsubscribe_that_would_be_asked_again(proxy, broker):
    with Device(
        proxy,
        """
        async with client:
            await client.subscribe("t", 1)
            print("subscribed")
            await told("unsubscribe")
            task = asyncio.create_task(client.unsubscribe("t"))
            await told("subscribe")
            messages = client.messages()
            print("granted", await client.subscribe("t", 1))
            await task
            print("got", (await messages.__anext__()).payload)
        """,
    ) as device:
        device.wait_for("subscribed")
        proxy.swallow("UNSUBACK", "down")
        device.send("unsubscribe")
        proxy.wait_for("UNSUBACK", "down")
        device.send("subscribe")
        device.wait_for("granted 1")
        proxy.rst()
        device.wait_for("session resumed")
        broker.publish("t", "1")
        device.wait_for("got b'1'")
        device.finish()
    assert len(proxy.seen("UNSUBSCRIBE", "up")) == 1


def test_another_qos_for_a_filter_is_asked_for(proxy):
    out = Device.check(
        proxy,
        """
        async with client:
            print(await client.subscribe("t"), end=" ")
            print(await client.subscribe("t"), end=" ")
            print(await client.subscribe("t", 1))
        """,
        log=None,
    )
    assert out.split() == ["0", "0", "1"]
    assert asked(proxy) == [("t", 0), ("t", 1)]


@pytest.mark.parametrize("protocol", [4, 5])
def test_two_calls_for_one_filter_at_once_return_what_the_later_one_was_granted(proxy, protocol):
    out = Device.check(
        proxy,
        """
        async with client:
            await client.wait_connected()
            async def ask(qos):
                print(await client.subscribe("t", qos), granted(client, "t"))

            tasks = [asyncio.create_task(ask(qos)) for qos in (0, 2, 1)]
            for task in tasks:
                await task
            assert await client.publish("t", "x", qos=2) == 0
        """,
        log=None,
        protocol=protocol,
    )
    assert out.split() == ["1", "1"] * 3
    proxy.wait_for("PUBLISH", "down")
    assert proxy.seen("PUBLISH", "down")[0].qos == 1
    assert len(proxy.seen("SUBSCRIBE", "up")) == 3


def test_a_refusal_of_an_earlier_request_says_nothing_about_a_later_one():
    def script(connection):
        connection.accept()
        first = connection.packet()[1]
        second = connection.packet()[1]
        connection.send(b"\x90\x03" + first[:2] + b"\x80")
        connection.send(b"\x90\x03" + second[:2] + b"\x01")
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
            tasks = [asyncio.create_task(client.subscribe("t", qos)) for qos in (2, 1)]
            print(await tasks[0], await tasks[1])
        """,
    )
    assert "1 1" in out
    assert "refused" not in out


def test_many_filters_go_in_packets_of_eight(proxy):
    with Device(
        proxy,
        """
        for i in range(20):
            client.on("t/%02d" % i, qos=1)(lambda message: None)

        @client.on_connect
        async def ready():
            print("ready")
        """,
    ) as device:
        device.wait_for("ready")
        device.leave()
    assert [len(filters(each)) for each in proxy.seen("SUBSCRIBE", "up")] == [8, 8, 4]
    assert asked(proxy) == [(f"t/{i:02}", 1) for i in range(20)]


def test_a_shared_subscription_reaches_its_handler(broker):
    with Device(
        broker,
        """
        @client.on("$share/workers/job/+", qos=1)
        def job(message):
            print("job", message.topic, message.payload)
        """,
    ) as device:
        device.subscribed()
        broker.publish("job/1", "x")
        device.wait_for("job job/1 b'x'")


# Refused


def test_a_refused_subscription_raises_and_the_connection_stays(tmp_path):
    with refusing_broker(tmp_path, "secret/#") as broker:
        Device.check(
            broker,
            """
            async with client:
                for _ in range(2):
                    with raises(RefusedError, "refused 'secret/#': code 128") as caught:
                        await client.subscribe("secret/#", 1)
                    assert caught.error.code == 128
                assert await client.subscribe("open", 1) == 1
                assert client.stats.connects == 1
            """,
        )


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_broker_that_hangs_up_on_an_unsubscribe_is_not_asked_for_ever(protocol):
    """Each connection ended on it, as long as the program ran."""
    asked = []

    def script(connection):
        connection.accept(b"\x20\3\0\0\0" if protocol == 5 else b"\x20\2\0\0")
        first, _ = connection.packet()
        if first == 0xA2:
            asked.append(connection.number)
        else:
            connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            with raises(RefusedError, "connections end on UNSUBSCRIBE 'a'"):
                await client.unsubscribe("a", "b")
            await client.wait_connected()
            await client.publish("t")
        """,
        protocol=protocol,
    )
    assert asked == [1, 2, 3]
    assert out.count("connected in") == 4


@pytest.mark.parametrize("code", [0x8F, 0x9E])
def test_a_refusal_with_a_code_of_mqtt_5_is_one_over_3_1_1_too(code):
    """ejabberd answers so; it was taken for no MQTT, on every connection for ever."""

    def script(connection):
        connection.accept()
        for code_there in (code, 1):
            first, body = connection.packet()
            connection.send(b"\x90\x03" + body[:2] + bytes((code_there,)))
        connection.until_closed()

    Device.against(
        script,
        f"""
        async with client:
            with raises(RefusedError, "refused 'a/+/b': code {code}") as caught:
                await client.subscribe("a/+/b", 1)
            assert caught.error.code == {code}
            assert await client.subscribe("open", 1) == 1
            assert client.stats.connects == 1
        """,
    )


def test_a_refused_declared_subscription_is_told_and_the_others_work(tmp_path):
    with (
        refusing_broker(tmp_path, "secret/#") as broker,
        Device(
            broker,
            """
            @client.on("secret/#", qos=1)
            def secret(message):
                print("secret")

            @client.on("open", qos=1)
            def open(message):
                print("open got", message.payload)

            @client.on_connect
            async def connected():
                print("on_connect")

            async def events():
                async for event in client.events():
                    print(type(event).__name__, getattr(event, "filter", ""))

            asyncio.create_task(events())
            async with client:
                task = asyncio.create_task(events())
                await told("leave")
            """,
        ) as device,
    ):
        device.wait_for("the broker refused 'secret/#': code 128: see its ACL")
        device.wait_for("on_connect")
        broker.publish("open", "1")
        device.wait_for("open got b'1'")
        out = device.leave()
    assert "SubscriptionRefused secret/#" in out
    assert out.count("connected in") == 1


@pytest.mark.parametrize("codes", [b"\x01\x01", b"\x03"])
def test_a_suback_that_does_not_fit_ends_the_connection_and_is_not_believed(codes):
    def script(connection):
        connection.accept()
        first, body = connection.packet()
        assert (first, body[2:]) == (0x82, b"\x00\x01t\x01"), (first, body)
        answer = body[:2] + (codes if connection.number == 1 else b"\x01")
        connection.send(bytes((0x90, len(answer))) + answer)
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            print("granted", await client.subscribe("t", 1))
        """,
    )
    assert "granted 1" in out
    assert "connection lost: SUBACK" in out


def test_a_refused_subscription_is_asked_for_on_the_next_connection():
    """Somebody may have mended the ACL meanwhile."""
    filters = []

    def script(connection):
        connection.accept(CONNACK if connection.number == 1 else RESUMED)
        first, body = connection.packet()
        assert first == 0x82, first
        filters.append(body[2:])
        connection.send(b"\x90\x03" + body[:2] + (b"\x80" if connection.number == 1 else b"\x01"))
        if connection.number > 1:
            connection.until_closed()

    out = Device.against(
        script,
        """
        client.on("t", qos=1)(got)

        async with client:
            await until(lambda: granted(client, "t") == 1)
        """,
    )
    assert filters == [b"\0\x01t\x01"] * 2
    assert "the broker refused 't'" in out


def test_unsubscribe_returns_when_the_broker_has_answered_it_and_not_an_earlier_subscribe():
    def script(connection):
        connection.accept()
        _, asked = connection.packet()
        _, taken_back = connection.packet()
        connection.send(b"\x90\x03" + asked[:2] + b"\0")
        first, body = connection.packet()  # sent when the SUBACK was there
        assert (first, body) == (0x30, b"\0\x07granted"), (first, body)
        connection.send(b"\xb0\x02" + taken_back[:2])
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.wait_connected()

            async def ask():
                await client.subscribe("t")
                await asyncio.sleep_ms(100)
                print("granted")
                await client.publish("granted")

            task = asyncio.create_task(ask())
            await asyncio.sleep_ms(0)
            await client.unsubscribe("t")
            print("taken back")
            await task
        """,
    )
    assert out.index("granted") < out.index("taken back")


def test_a_handler_that_was_taken_back_and_runs_for_ever_holds_up_no_acknowledgement(
    proxy, broker
):
    with Device(
        proxy,
        """
        @client.on("once", qos=1)
        async def once(message):
            await client.unsubscribe("once")
            print("begins")
            await asyncio.sleep(1000)

        client.on("other", qos=1)(got)
        """,
        handler_timeout_s=1,
    ) as device:
        device.subscribed()
        broker.publish("once", "x")
        device.wait_for("begins")
        broker.publish("other", *"123")
        device.wait_for("handler of 'once' runs for over 1 s: message acknowledged")
        proxy.wait_for("PUBACK", "up", 4)
        device.leave()
    assert proxy.connections == 1


def test_a_handler_that_was_taken_back_may_outlive_the_client(proxy, broker):
    with Device(
        proxy,
        """
        @client.on("once", qos=1)
        async def once(message):
            await client.unsubscribe("once")
            print("begins")
            await told("end")
            print("ends")

        async with client:
            await told("leave")
        print("left")
        for _ in range(2):
            await told("go on")
        """,
    ) as device:
        device.subscribed()
        broker.publish("once", "x")
        device.wait_for("begins")
        device.send("leave")
        device.wait_for("left")
        device.send("end")
        device.wait_for("ends")
        device.send("go on")
        device.send("go on")
        device.finish()
    assert "Traceback" not in device.report()


# A SUBSCRIBE that ends the connection


class HangsUp:
    """
    A broker that ends the connection when it is asked for a filter in `hated` (set of str), or
    with `silent` says nothing. Its session lasts where `keeps`.
    """

    def __init__(self, hated, protocol, keeps=False, silent=False):
        self.hated, self.five, self.keeps, self.silent = set(hated), protocol == 5, keeps, silent
        self.asked = []  # a list of lists of filters for each connection

    def __call__(self, connection):
        present = int(self.keeps and connection.number > 1)
        if self.five:
            connection.accept(five.connack(present=present))
        else:
            connection.accept(RESUMED if present else CONNACK)
        mine = []
        self.asked.append(mine)
        while True:
            first, body = connection.packet()
            if first == 0x82:
                found, at = [], 3 + body[2] if self.five else 2
                while at < len(body):
                    n = int.from_bytes(body[at : at + 2], "big")
                    found.append(body[at + 2 : at + 2 + n].decode())
                    at += 3 + n
                mine.append(found)
                if not self.hated.isdisjoint(found):
                    if self.silent:
                        continue
                    return
                codes = bytes(1 for _ in found)
                middle = b"\0" if self.five else b""
                answer = body[:2] + middle + codes
                connection.send(bytes((0x90, len(answer))) + answer)
            elif first == 0xA2:
                answer = body[:2] + (b"\0\0" if self.five else b"")
                connection.send(bytes((0xB0, len(answer))) + answer)
            elif first & 0xF0 == 0x30:
                if first & 6:
                    n = int.from_bytes(body[:2], "big")
                    connection.send(b"\x40\x02" + body[2 + n : 4 + n])
            elif first == 0xC0:
                connection.send(b"\xd0\0")
            elif first == 0xE0:
                return


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("keeps", [False, True])
def test_a_filter_on_which_connections_end_is_left_out_and_told_and_the_others_work(
    protocol, keeps
):
    broker = HangsUp({"$SYS/#"}, protocol, keeps)
    out = Device.against(
        broker,
        """
        set_doubts(again_s=1)
        for filter in ("a", "$SYS/#", "b/+"):
            client.on(filter, qos=1)(got)

        async def follow():
            async for event in client.events():
                if type(event).__name__ == "SubscriptionRefused":
                    print("event", event.filter)
                assert type(event).__name__ != "Suspect"

        async with client:
            task = asyncio.create_task(follow())
            await client.publish("t", "x", qos=1)  # no message is accused, and it arrives
            await until(lambda: client.stats.connects == 5 and granted(client) == [1, None, 1])
            await until(lambda: client.stats.connects == 6 and granted(client) == [1, 128, 1])
            await client.publish("t", "y", qos=1)
            assert client.stats.connects == 6, client.stats.connects
        """,
        protocol=protocol,
        clean_start=False,
        give_up_after=3,
    )
    assert out.count("event $SYS/#") == 1
    for pause_s in (1, 2):
        line = (
            "connections end when '$SYS/#' is asked for: left out for %d s -> see the broker's"
            " log: its ACL, or in a cluster what waits for this client is on a node that is down"
        )
        assert out.count(line % pause_s) == 1
    assert broker.asked[0] == [["a", "$SYS/#", "b/+"]]
    alone = [found for mine in broker.asked[1:] for found in mine]
    assert all(len(found) == 1 for found in alone)
    assert alone.count(["$SYS/#"]) == 4
    assert ["$SYS/#"] not in broker.asked[-1]


@pytest.mark.parametrize("protocol", [4, 5])
def test_subscribe_raises_for_a_filter_on_which_connections_end_and_may_ask_again(protocol):
    broker = HangsUp({"$share/g/t"}, protocol)
    Device.against(
        broker,
        """
        set_doubts(again_s=1)
        client.on("a", qos=1)(got)
        async with client:
            await subscribed(client)
            with raises(RefusedError, "connections end when '$share/g/t' is asked for"):
                await client.subscribe("$share/g/t", 1)
            assert filters(client) == ["a"]
            assert client.stats.connects == 4, client.stats.connects
            assert await client.subscribe("b", 1) == 1
            await subscribed(client)
            assert client.stats.connects == 5
            with raises(RefusedError, "connections end"):
                await client.subscribe("$share/g/t", 1)
            assert client.stats.connects == 8, client.stats.connects
            await subscribed(client)
            assert granted(client) == [1, 1]
        """,
        protocol=protocol,
        log=None,
    )


def test_a_filter_that_is_never_answered_is_left_out():
    broker = HangsUp({"silent"}, 4, silent=True)
    out = Device.against(
        broker,
        """
        set_doubts(again_s=1)
        client.on("a", qos=1)(got)
        client.on("silent", qos=1)(got)
        async with client:
            await until(lambda: granted(client) == [1, 128])
        """,
        ack_timeout_s=1,
    )
    assert out.count("no SUBACK for 1 s") == 5
    assert "connections end when 'silent' is asked for" in out


def test_a_filter_that_was_left_out_is_asked_for_again_later_and_then_ever_more_rarely():
    broker = HangsUp({"hated"}, 4)
    out = Device.against(
        broker,
        """
        set_doubts(again_s=1)
        client.on("hated", qos=1)(got)
        async with client:
            await until(lambda: client.stats.connects == 4)
            assert granted(client) == [None]
            await until(lambda: granted(client) == [128] and client.stats.connects == 5)
            await until(lambda: granted(client) == [128] and client.stats.connects == 6)
        """,
    )
    assert [out.count(f"left out for {pause_s} s") for pause_s in (1, 2, 4)] == [1, 1, 1]


@pytest.mark.parametrize("how", ["rst", "fin"])
def test_three_connections_that_a_bad_network_ended_there_cost_a_moment(proxy, how):
    proxy.kill_on("SUBSCRIBE", "up", times=3, how=how)
    out = Device.check(
        proxy,
        """
        set_doubts(again_s=1)
        async with client:
            assert await client.subscribe("t/#", 1) == 1
            assert client.stats.connects == 4
        """,
    )
    assert out.count("left out for 1 s") == 1


def test_silence_of_the_whole_path_speaks_against_no_filter():
    def script(connection):
        connection.accept()
        connection.until_closed()

    def restored(connection):
        (HangsUp(set(), 4) if connection.number > 5 else script)(connection)

    out = Device.against(
        restored,
        """
        client.on("a", qos=1)(got)
        async with client:
            await until(lambda: granted(client) == [1])
            assert client.stats.connects == 6
        """,
        ack_timeout_s=1,
    )
    assert "left out" not in out


def test_a_filter_that_the_broker_takes_after_all_works_again():
    broker = HangsUp({"hated"}, 4)

    def script(connection):
        if connection.number > 3:
            broker.hated.clear()
        broker(connection)

    out = Device.against(
        script,
        """
        set_doubts(again_s=1)
        client.on("hated", qos=1)(got)
        async with client:
            await until(lambda: granted(client) == [1])
            assert client.stats.connects == 4, client.stats.connects
        """,
    )
    assert out.count("left out for") == 1


def test_a_link_that_breaks_now_and_then_costs_no_subscription(proxy):
    """Only connections that end one after the other on the same filter count."""
    proxy.kill_on("SUBSCRIBE", "up", times=6)
    with Device(
        proxy,
        """
        for n in range(3):
            client.on("t/%d" % n, qos=1)(got)
        async with client:
            await told("leave")
        """,
        clean_start=True,
    ) as device:
        proxy.wait_for("SUBACK", "down", 3)
        device.send("leave")
        device.finish()
    assert "left out" not in device.report()


# subscribe() that is not waited for any more


def test_a_subscribe_that_timed_out_is_not_asked_for_again(proxy, broker):
    proxy.swallow("SUBSCRIBE", "up", times=1)
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            with raises(asyncio.TimeoutError):
                await client.subscribe("t", 1, timeout_s=0.2)
            assert filters(client) == []
            print("timed out")
            await told("on")
            await client.wait_connected()
            await client.publish("sync", qos=1)
            assert await client.subscribe("t", 1) == 1
        """,
    ) as device:
        device.wait_for("timed out")
        proxy.wait_for("UNSUBACK", "down")  # the broker might have had it
        proxy.rst()
        device.wait_for("connection lost")
        proxy.wait_for("CONNACK", "down", 2)
        device.send("on")
        device.finish()
    assert asked(proxy) == [("t", 1), ("t", 1)]
    assert asked(proxy, 2) == [("t", 1)]


def test_a_subscribe_that_timed_out_offline_is_not_asked_for_when_connected(proxy):
    proxy.refuse()
    with Device(
        proxy,
        """
        client.on("handled", qos=1)(got)
        async with client:
            for filter in ("t", "handled"):
                with raises(asyncio.TimeoutError):
                    await client.subscribe(filter, 1, timeout_s=0.05)
            task = asyncio.create_task(client.subscribe("cancelled", 1))
            await asyncio.sleep_ms(20)
            task.cancel()
            await asyncio.sleep_ms(20)
            print("timed out", filters(client))
            await subscribed(client)
        """,
    ) as device:
        device.wait_for("timed out .'handled'.")
        proxy.heal()
        device.finish()
    assert asked(proxy) == [("handled", 1)]


def test_a_subscribe_that_timed_out_takes_nothing_from_another_that_waits(proxy, broker):
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            print("connected")
            await told("go")
            first = asyncio.create_task(client.subscribe("t", 1, timeout_s=0.1))
            await asyncio.sleep_ms(0)
            second = asyncio.create_task(client.subscribe("t", 1))
            with raises(asyncio.TimeoutError):
                await first
            assert await second == 1
            await client.publish("t", "x", qos=1)
            async with client.messages() as messages:
                await client.publish("t", "y", qos=1)
                assert (await messages.next(5)).payload == b"y"
            with raises(asyncio.TimeoutError):  # of one that was granted before
                await client.subscribe("t", 2, timeout_s=0)
            assert filters(client) == ["t"]
        """,
        log=None,
    ) as device:
        device.wait_for("connected")
        proxy.swallow("SUBSCRIBE", "up", times=1)
        device.send("go")
        device.finish()


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("filters", [["b"], ["a", "b", "c"]])
def test_a_filter_that_was_granted_before_can_be_one_on_which_connections_end(
    protocol, keeps, filters
):
    """The ACL changed meanwhile."""
    broker = HangsUp(set(), protocol, keeps)
    with (
        FakeBroker(broker) as fake,
        Device(
            fake,
            """
            set_doubts(again_s=1)
            for filter in FILTERS:
                client.on(filter, qos=1)(got)

            async with client:
                await subscribed(client)
                print("granted")
                await told("again")
                again = asyncio.create_task(client.subscribe("b", 0 if KEEPS else 1))
                if not KEEPS:
                    lose(client, MQTTError("lost"))
                refused = [128 if filter == "b" else 1 for filter in FILTERS]
                await until(lambda: granted(client) == refused)
                await client.publish("t", "y", qos=1)
            """,
            protocol=protocol,
            names={"KEEPS": keeps, "FILTERS": filters},
        ) as device,
    ):
        device.wait_for("granted")
        broker.hated.add("b")
        device.send("again")
        out = device.finish()
    assert out.count("connections end when 'b' is asked for: left out") == 2
