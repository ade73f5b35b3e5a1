"""MQTT 5: how long a session lasts, and the limits that client and broker set for each other."""

import time

import pytest

from tests.support import five
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker
from tests.support.five import field
from tests.support.proxy import Proxy

CONNECTS = """
async with client:
    await client.wait_connected()
"""


def clean_starts(proxy):
    return [each.body[7] >> 1 & 1 for each in proxy.seen("CONNECT")]


# Sessions


def test_the_first_connect_of_a_process_starts_clean_and_later_ones_resume(proxy, broker):
    """MQTT 5.0: [MQTT-3.1.2-4], [MQTT-4.1.0-1]"""
    peer = broker.peer(protocol=5)
    for _ in range(2):
        with Device(
            proxy,
            """
            client.on("t", 2)(got)

            async with client:
                events = client.events()
                while True:
                    event = await next_event(events, "Connected")
                    print("present", event.session_present)
                    await until(lambda: granted(client, "t") == 2)
                    print("ready")
            """,
            protocol=5,
            log=None,
        ) as device:
            device.wait_for("present False")
            device.wait_for("ready")
            proxy.refuse()
            proxy.rst()
            for qos in (1, 2):
                peer.publish("t", b"%d" % qos, qos)
            proxy.heal()
            device.wait_for("present True")
            for qos in (1, 2):
                device.wait_for(f"got {qos} {qos}")
            device.kill()
    assert clean_starts(proxy) == [1, 0, 1, 0]
    for connection in (1, 3):
        assert len(proxy.seen("SUBSCRIBE", "up", connection)) == 1
        assert proxy.seen("SUBSCRIBE", "up", connection + 1) == []


@pytest.mark.parametrize(("clean_start", "starts"), [(False, [1, 0]), (True, [1, 1])])
def test_a_store_lets_the_next_program_resume_unless_clean_start_is_wanted(
    clean_start, starts, proxy, broker, tmp_path
):
    for _ in starts:
        Device.check(
            proxy,
            """
            async with client:
                assert await client.publish("t", "x", qos=1) == 16
            """,
            store=tmp_path / "store",
            protocol=5,
            clean_start=clean_start,
        )
    assert clean_starts(proxy) == starts


def test_a_session_ends_when_it_expires(proxy, broker):
    """
    At the end of the connection with 0, after a second with 1; the client subscribes anew, and
    publishes again with QoS 1 what had no answer.

    MQTT 5.0: [MQTT-3.1.2-23]
    """
    proxy.swallow("PUBACK", "down", times=2)
    with Device(
        proxy,
        """
        clients = []
        for s in (0, 1, 100):
            client = make(
                protocol=5, session_expiry_s=s, client_id="c%d" % s, log=None, ack_timeout_s=60
            )
            clients.append(client)
            client.on("t/%d" % s, 1)(got)

        async with clients[0], clients[1], clients[2]:
            for client in clients:
                await client.wait_connected()
            await until(lambda: all(granted(client)[0] for client in clients))
            publishing = [
                asyncio.create_task(client.publish("t/%d" % s, "x", qos=1))
                for client, s in zip(clients, (0, 1))
            ]
            print("ready")
            await told("on")
            await until(lambda: all(client.stats.connects == 2 for client in clients))
            print(await asyncio.gather(*publishing))
            await until(lambda: all(granted(client)[0] for client in clients))
        """,
    ) as device:
        device.wait_for("ready")
        proxy.wait_for("PUBACK", "down", count=2)
        proxy.refuse()
        proxy.rst()
        broker.wait_for_log("Expiring client c1")
        proxy.heal()
        device.send("on")
        assert device.wait_for(r"\[") == "[0, 0]"
        device.finish()
    connacks = proxy.seen("CONNACK")
    assert sorted(each.body[0] for each in connacks) == [0, 0, 0, 0, 0, 1]
    again = {each.topic: each for each in proxy.seen("PUBLISH", "up")[2:]}
    assert set(again) == {"t/0", "t/1"} and not any(each.dup for each in again.values())
    assert len(proxy.seen("SUBSCRIBE")) == 5


def test_a_client_id_that_the_broker_assigned_is_kept(proxy):
    """MQTT 5.0: [MQTT-3.1.3-2], [MQTT-3.1.3-3]"""
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            print("id", client.client_id)
            await until(lambda: client.stats.connects == 2)
            print("id", client.client_id)
        """,
        protocol=5,
        client_id="",
        log=None,
    ) as device:
        own = device.wait_for("id ..")
        proxy.rst()
        assert device.wait_for("id ..") == own
        device.finish()
    first, second = proxy.seen("CONNECT")
    name = own.split()[1].encode()
    assert first.body.endswith(b"\0\0") and name not in first.body
    assert second.body.endswith(five.field(name))
    assert [each.body[0] for each in proxy.seen("CONNACK")] == [0, 1]


def test_a_password_needs_no_user_name_and_a_user_name_no_password():
    """MQTT 5.0: [MQTT-3.1.2-16], [MQTT-3.1.2-18]"""

    def script(connection):
        connection.accept(five.connack())
        connection.until_closed()

    with FakeBroker(script) as fake:
        for user, password in ((None, b"\xff"), ("u", None), ("u", "p"), (None, None)):
            Device.check(fake, CONNECTS, protocol=5, log=None, user=user, password=password)
    bodies = [each.hello for each in fake.connections]
    assert [(body[7], body[body.index(b"device") + 6 :]) for body in bodies] == [
        (0x42, field(b"\xff")),
        (0x82, field("u")),
        (0xC2, field("u") + field("p")),
        (0x02, b""),
    ]


def test_the_keepalive_is_the_one_that_the_broker_wants(tmp_path):
    """MQTT 5.0: [MQTT-3.1.2-20], [MQTT-3.1.2-21], [MQTT-3.2.2-21]"""

    def each_second(connection):
        connection.accept(five.connack(b"\x13\0\1"))
        for _ in range(2):
            assert connection.packet() == (0xC0, b"")
            connection.send(b"\xd0\0")
        connection.send(five.publish("end", b""))
        assert connection.packet() == (0xE0, b"")

    def never(connection):
        connection.accept(five.connack(b"\x13\0\0"))
        time.sleep(1.6)
        connection.send(five.publish("end", b""))
        assert connection.packet() == (0xE0, b"")

    with (
        Broker(tmp_path / "b", lines=["max_keepalive 10"]) as real,
        FakeBroker(each_second) as first,
        FakeBroker(never) as second,
    ):
        out = Device.check(
            real,
            """
            async with client:
                await client.wait_connected()
                print(client.properties["server_keep_alive"])
            """,
            protocol=5,
            log=None,
        )
        for fake, keepalive_s in ((first, 60), (second, 1)):
            Device.check(
                fake,
                """
                async with client:
                    await until(lambda: client.stats.received)
                """,
                protocol=5,
                keepalive_s=keepalive_s,
            )
    assert out.split() == ["10"]


# Receive Maximum


def most_at_once(packets, way, back):
    """Return the most QoS 1 and 2 messages that went `way` and had no last answer yet."""
    most = now = 0
    for each in packets:
        if each.name == "PUBLISH" and each.direction == way and each.qos:
            now += 1
        elif each.name in ("PUBACK", "PUBCOMP") and each.direction == back:
            now -= 1
        most = max(most, now)
    return most


def test_neither_side_has_more_in_flight_than_the_other_takes(tmp_path):
    """
    With 2 and more mosquitto 2.0.11 counts wrongly: it sends two messages for each answer.

    MQTT 5.0: [MQTT-3.3.4-7], [MQTT-4.9.0-1], [MQTT-4.9.0-2]
    """
    lines = ["max_inflight_messages 3", "max_queued_messages 0"]
    with Broker(tmp_path / "b", lines=lines) as broker, Proxy(broker.port) as proxy:
        proxy.delay(5)
        Device.check(
            proxy,
            """
            peer = make(protocol=5, client_id="peer", log=None)
            count = [0]

            @client.on("t", 2)
            async def handler(message):
                count[0] += 1
                await asyncio.sleep_ms(5)

            async with client, peer:
                await until(lambda: granted(client, "t") == 2)
                assert client.properties["receive_maximum"] == 3
                await asyncio.gather(
                    *[client.publish("u", "x", qos=1 + n % 2) for n in range(12)]
                )
                await asyncio.gather(*[peer.publish("t", "x", qos=1 + n % 2) for n in range(12)])
                await until(lambda: count[0] == 12)
            """,
            protocol=5,
            log=None,
            properties={"receive_maximum": 1},
            max_inflight=8,
        )
        ours, theirs = (
            [each for each in proxy.seen() if each.connection == number] for number in (1, 2)
        )
    if not any(each.topic == "u" for each in ours if each.name == "PUBLISH"):
        ours, theirs = theirs, ours
    assert most_at_once(ours, "up", "down") == 3
    assert most_at_once(ours, "down", "up") == 1


def test_more_than_the_receive_maximum_of_the_client_is_taken_as_mosquitto_2_0_11_sends_it(broker):
    """A connection that ended for it would end again and again: the broker sends all anew."""
    peer = broker.peer(protocol=5)
    with Device(
        broker,
        """
        @client.on("t", 2)
        async def handler(message):
            await asyncio.sleep_ms(2)

        async with client:
            await until(lambda: granted(client, "t") == 2)
            print("ready")
            await until(lambda: client.stats.received >= 60)
            assert client.stats.connects == 1
        """,
        protocol=5,
        log=None,
        properties={"receive_maximum": 2},
    ) as device:
        device.wait_for("ready")
        for n in range(60):
            peer._client.publish("t", b"%d" % n, 1 + n % 2)
        device.finish()


def test_a_receive_maximum_that_shrank_holds_for_what_is_sent_again():
    """MQTT 5.0: [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-4.4.0-1]"""
    seen = []

    def none_more(connection):
        connection.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.packet()
        connection.sock.settimeout(None)

    def script(connection):
        if connection.number == 1:
            connection.accept(five.connack(b"\x21\0\3"))
            seen.append([connection.packet() for _ in range(3)])
            none_more(connection)
            return
        connection.accept(five.connack(b"\x21\0\1", present=1))
        for i in range(5):
            first, body = connection.packet()
            seen.append((first, body[-1:]))
            none_more(connection)
            number = int.from_bytes(body[3:5], "big")
            if first & 6 == 2:
                connection.send(five.answer(0x40, number))
            elif i == 1:  # refused: no PUBREL then
                connection.send(five.answer(0x50, number, 0x97))
            else:
                connection.send(five.answer(0x50, number))
                assert connection.packet() == (0x62, body[3:5])
                none_more(connection)
                connection.send(five.answer(0x70, number))
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            async def publish(n):
                try:
                    return await client.publish("t", str(n), qos=1 + n % 2)
                except RefusedError as e:
                    return e.code
            print(await asyncio.gather(*[publish(n) for n in range(5)]))
        """,
        protocol=5,
        log=None,
    )
    assert out.strip() == "[0, 151, 0, 0, 0]"
    assert [first for first, _ in seen[0]] == [0x32, 0x34, 0x32]
    assert seen[1:] == [(0x3A, b"0"), (0x3C, b"1"), (0x3A, b"2"), (0x34, b"3"), (0x32, b"4")]


def test_a_message_that_a_connection_did_not_carry_is_not_suspected_when_it_breaks():
    """It waits for a PUBCOMP, as the broker takes one message at a time."""

    def script(connection):
        if connection.number == 1:
            connection.accept(five.connack(b"\x21\0\2"))
            packets = [connection.packet() for _ in range(2)]
            (two,) = [body for first, body in packets if first == 0x34]
            connection.send(five.answer(0x50, int.from_bytes(two[3:5], "big")))
            connection.packet()
            return
        connection.accept(five.connack(b"\x21\0\1", present=1))
        first, body = connection.packet()
        assert first == 0x62  # PUBREL
        if connection.number < 6:
            return
        connection.send(five.answer(0x70, int.from_bytes(body[:2], "big")))
        first, body = connection.packet()
        assert first == 0x3A  # PUBLISH, DUP
        connection.send(five.answer(0x40, int.from_bytes(body[3:5], "big")))
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            two = client.publish("t", "two", qos=2)
            one = client.publish("t", "one", qos=1)
            print("codes", await asyncio.gather(two, one))
        """,
        protocol=5,
        give_up_after=2,
    )
    assert "codes [0, 0]" in out
    assert "connections break right after" not in out


# Sizes, QoS, retained messages


REFUSED = """
async def refused(wait, code):
    with raises(RefusedError, "0x%02x" % code) as caught:
        await wait
    assert caught.error.code == code

async def undelivered(*message, **options):
    events = client.events()
    client.enqueue(*message, **options)
    event = await next_event(events, "Undelivered")
    print("undelivered", event.topic, event.error.code)
    assert await client.publish("t", "good", qos=1) in (0, 16)
    assert client.connected and client.stats.connects == 1
"""


def test_no_packet_is_larger_than_the_other_side_takes(tmp_path):
    """
    MQTT 5.0: [MQTT-3.2.2-15], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3],
    [MQTT-3.14.2-3], [MQTT-3.14.2-4]
    """
    with Broker(tmp_path / "b", max_packet=200) as broker, Proxy(broker.port) as proxy:
        out = Device.check(
            proxy,
            REFUSED,
            """
            async with client:
                await client.wait_connected()
                assert client.properties["maximum_packet_size"] == 200
                await client.publish("t", bytes(193))
                await client.publish("t", bytes(191), qos=1)
                large = {"content_type": "c" * 200}
                for qos in (0, 1, 2):
                    await refused(client.publish("t", bytes(195), qos=qos), 0x95)
                    await refused(client.publish("t", properties=large, qos=qos), 0x95)
                await refused(client.subscribe("s" * 200), 0x95)
                await refused(client.unsubscribe("s" * 100, "u" * 100), 0x95)
                await undelivered("big", bytes(200))
            """,
            protocol=5,
        )
        assert "undelivered big 149" in out
        assert max(len(each.raw) for each in proxy.seen(None, "up")) == 200
        Device.check(
            proxy,
            """
            @client.on("t", 2)
            def handler(message):
                message.ack_properties = {"reason_string": "r" * 200}
                print(message.payload)

            async with client:
                await until(lambda: granted(client, "t") == 2)
                peer = make(protocol=5, client_id="peer", log=None)
                await peer.connect()
                for qos in (1, 2):
                    await peer.publish("t", bytes(100), qos=qos)  # mosquitto drops it
                    await peer.publish("t", bytes(80), qos=qos)
                await until(lambda: client.stats.received == 2)
                await peer.disconnect()
                await client.disconnect(0x98, {"reason_string": "r" * 200})
            """,
            protocol=5,
            max_packet=100,
            log=None,
        )
    sent = [each for each in proxy.seen("CONNECT") if b"\x27\0\0\0\x64" in each.body]
    assert len(sent) == 1
    number = sent[0].connection
    [puback], [pubrec] = (proxy.seen(name, "up", number) for name in ("PUBACK", "PUBREC"))
    assert len(puback.body) == len(pubrec.body) == 2
    assert [each.raw for each in proxy.seen("DISCONNECT", "up", number)] == [b"\xe0\1\x98"]


def test_what_the_broker_does_not_take_is_refused_without_asking(tmp_path):
    """MQTT 5.0: [MQTT-3.2.2-11], [MQTT-3.2.2-14]"""
    lines = ["max_qos 1", "retain_available false"]
    with Broker(tmp_path / "b", lines=lines) as broker, Proxy(broker.port) as proxy:
        out = Device.check(
            proxy,
            REFUSED,
            """
            async with client:
                await client.wait_connected()
                assert client.properties["maximum_qos"] == 1
                assert client.properties["retain_available"] == 0
                await refused(client.publish("t", "x", qos=2), 0x9B)
                await refused(client.publish("t", "x", retain=True), 0x9A)
                assert await client.subscribe("t", 2) in (1, 2)
                await client.publish("t", "x", qos=1)
                await until(lambda: client.stats.received == 1)
                await undelivered("kept", "x", qos=1, retain=True)
            """,
            protocol=5,
        )
        assert "undelivered kept 154" in out
        for each in proxy.seen("PUBLISH", "up"):
            assert each.qos < 2 and not each.retain


def test_two_clients_may_both_have_the_broker_choose_their_id(broker):
    out = Device.check(
        broker,
        """
        other = make(protocol=5, client_id="")
        async with client:
            async with other:
                await client.wait_connected()
                await other.wait_connected()
                assert "" != client.client_id != other.client_id != ""
                print("both")
        """,
        protocol=5,
        client_id="",
    )
    assert "both" in out
