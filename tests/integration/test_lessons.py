"""
What happened to the users of other clients, and does not here: docs/testing.md has the lessons
and their numbers. Those about TLS, DNS and Wi-Fi are in test_lessons_tls.py.
"""

import time

from tests.support.device import Device
from tests.support.fake_broker import FakeBroker
from tests.support.proxy import Proxy
from tests.support.refusing import refusing_broker


def test_lesson_1_session_present_is_no_error_and_the_session_resumes(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.1.2-4]"""
    broker.peer("t", client_id="device", clean=False).close()
    broker.publish("t", "kept for the session")
    with Device(proxy, 'client.on("t", qos=1)(got)') as device:
        device.wait_for("session resumed")
        device.wait_for("got kept for the session 1")
        proxy.wait_for("PUBACK", "up")
        device.leave()
    assert proxy.connections == 1


def test_lesson_2_an_exception_that_is_no_oserror_does_not_end_the_reconnecting(broker):
    out = Device.check(
        broker,
        """
        from tests.device.links import Modem

        link = Modem(3 * [ValueError("not an OSError")])
        client = make(link=link)
        async with client:
            await client.publish("t", "x", qos=1)
            link.show()
        """,
    )
    assert "not connected: ValueError('not an OSError'" in out
    assert "link 1 0 0" in out


def test_lesson_4_the_brokers_fin_is_noticed_at_once(proxy):
    with Device(proxy, keepalive_s=65535) as device:
        device.wait_for("connected in")
        proxy.fin()
        device.wait_for("connection lost: the broker closed the connection")
        device.wait_for("connected in")
        device.leave()
    assert "AssertionError" not in device.report()


def test_lesson_5_a_refused_subscription_leaves_connection_and_wifi_alone(tmp_path):
    with refusing_broker(tmp_path, "secret") as broker:
        out = Device.check(
            broker,
            """
            from tests.device.links import Modem

            link = Modem()
            client = make(link=link)

            client.on("secret", qos=1)(got)

            async with client:
                with raises(RefusedError):
                    await client.subscribe("secret", 1)
                for i in range(20):
                    await client.publish("t", "x", qos=1)
                assert client.stats.connects == 1
                link.show()
            """,
        )
    assert "link 1 0 0" in out


def test_lesson_6_late_and_repeated_pubacks_leave_connection_and_wifi_alone():
    def script(connection):
        connection.accept()
        for _ in range(3):
            _, body = connection.packet()
            ack = b"\x40\x02" + body[3:5]
            connection.send(ack + ack + b"\x40\x02\x77\x77")
        connection.until_closed()

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            """
            from tests.device.links import Modem

            link = Modem()
            client = make(link=link)
            async with client:
                for i in range(3):
                    await client.publish("t", str(i), qos=1)
                await asyncio.sleep_ms(50)
                assert client.connected and client.stats.connects == 1
                link.show()
            """,
        )
        assert len(fake.connections) == 1
    assert "link 1 0 0" in out


def test_lesson_7_qos_1_goes_again_with_its_packet_id_and_dup(proxy):
    """MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-3.3.1-1], [MQTT-4.4.0-1]"""
    proxy.swallow("PUBACK", times=1)
    with Device(
        proxy,
        """
        async with client:
            await client.publish("t", "first", qos=1)
            await client.publish("t", "second", qos=1)
        """,
    ) as device:
        proxy.wait_for("PUBACK", "down")
        proxy.rst()
        device.finish()
    sent = [(each.packet_id, each.dup, each.payload) for each in proxy.seen("PUBLISH", "up")]
    assert sent == [(1, False, b"first"), (1, True, b"first"), (2, False, b"second")]


def attacked(packet, heap):
    """Run an app whose first connection gets `packet` after CONNACK; return what it printed."""

    def script(connection):
        connection.accept()
        if connection.number == 1:
            connection.send(packet)
        connection.until_closed()

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            """
            async with client:
                async with Ticker() as ticker:
                    await until(lambda: client.stats.connects == 2)
                    print("ticks", ticker.ticks)
            """,
            heap=heap,
        )
        assert len(fake.connections) == 2
    return out


def test_lesson_8_a_remaining_length_is_not_believed():
    """256 MB announced in five bytes; a length that never ends."""
    out = attacked(b"\x30\xff\xff\xff\x7f", heap="400K")
    assert "no progress of a stream for 10 s" in out and "MemoryError" not in out
    out = attacked(b"\x90\xff\xff\xff\x7f", heap="400K")
    assert "packet of 268435460 bytes, max_packet is 4096" in out
    out = attacked(b"\x30" + 2000 * b"\xff", heap="400K")
    assert "Remaining Length" in out
    assert "MemoryError" not in out and "RuntimeError" not in out


def test_lesson_9_a_topic_length_beyond_its_packet_does_not_hang_the_reader():
    out = attacked(b"\x30\x05\xff\xffabc", heap="400K")
    assert "PUBLISH" in out and "connection lost" in out


def test_lesson_10_an_exception_in_a_handler_does_not_kill_the_reader(proxy):
    out = Device.check(
        proxy,
        """
        got = []

        @client.on("t", qos=1)
        def handler(message):
            got.append(message.payload)
            raise ZeroDivisionError("in the handler")

        async with client:
            for payload in (b"1", b"2", b"3"):
                await client.publish("t", payload, qos=1)
            await until(lambda: len(got) == 3)
            assert client.stats.connects == 1
        """,
    )
    assert "handler of 't' failed: ZeroDivisionError('in the handler'" in out
    assert len(proxy.seen("PUBACK", "up")) == 3


def test_lesson_11_text_that_is_not_ascii_does_not_corrupt_the_stream(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.3.2-1]"""
    peer = broker.peer("日/#")
    Device.check(
        proxy,
        """
        got = []
        will = Will("日/ß", "grüß 🌱", birth="здравствуй")
        client = make(client_id="gerät", will=will)

        @client.on("日/ü/+", qos=1)
        def handler(message):
            got.append((message.topic, message.payload.decode()))

        async with client:
            await client.publish("日/ü/€", "21 °C 🌡", qos=1)
            await client.publish("日/ü/end", "", qos=1)
            await until(lambda: len(got) == 2)
            assert got[0] == ("日/ü/€", "21 °C 🌡"), got
        """,
    )
    peer.wait_for(4)
    assert [(topic, payload.decode()) for topic, payload in peer.received] == [
        ("日/ß", "здравствуй"),
        ("日/ü/€", "21 °C 🌡"),
        ("日/ü/end", ""),
        ("日/ß", "grüß 🌱"),
    ]
    assert proxy.connections == 1


def test_lesson_12_a_burst_to_a_slow_handler_loses_no_qos_1(proxy, broker):
    """Nothing is acknowledged and then dropped, however small the backlog."""
    with Device(
        proxy,
        """
        got = []

        @client.on("t", qos=1)
        async def handler(message):
            await asyncio.sleep_ms(2)
            got.append(int(message.payload))

        async with client:
            await until(lambda: len(set(got)) == 30)
            print("got", got)
        """,
        max_packet=300,
        max_backlog=300,
    ) as device:
        proxy.wait_for("SUBACK")
        peer = broker.peer()
        for i in range(30):
            peer.publish("t", str(i))
        got = eval(device.wait_for("^got")[4:])
        device.finish()
    assert list(dict.fromkeys(got)) == list(range(30))


def test_lesson_14_retries_back_off_with_jitter_and_a_refusing_broker_keeps_wifi_up(broker):
    broker.stop()
    with Device(
        broker,
        """
        from tests.device.links import Modem

        link = Modem()
        client = make(link=link, log=None)

        async def events():
            async for event in client.events():
                pass

        class Counter:
            values = []

            @classmethod
            def random(cls):
                cls.values.append(1)
                return 0.02

        retry.random = Counter
        async with client:
            await until(lambda: len(Counter.values) == 4)
            link.show()
        retry.random = Latest
        delays = [retry.failed(client, ConnectError("x"), None) for _ in range(9)]
        retry.random = Soonest
        delays.append(retry.failed(client, ConnectError("x"), None))
        print(delays)
        """,
    ) as device:
        device.wait_for("link 1 0 0")
        delays = eval(device.wait_for(r"^\["))
        device.finish()
    assert delays[:-1] == sorted(delays[:-1]) and delays[0] < delays[1] < delays[-2] <= 60_050
    assert delays[-1] < 100  # full jitter: any time up to the longest


def test_lesson_15_a_reconnect_with_a_clean_start_leaves_no_second_socket_open(proxy):
    with Device(
        proxy,
        """
        async with client:
            first = 0
            while client.stats.connects < 8:
                await client.wait_connected()
                await client.publish("t", "x", qos=1)
                first = first or open_files()
                assert open_files() == first
                print("round", client.stats.connects)
                await until(lambda: not client.connected)
        """,
        clean_start=True,
    ) as device:
        for i in range(1, 8):
            device.wait_for(f"round {i}")
            proxy.rst() if i % 2 else proxy.fin()
        device.wait_for("connected in")
        proxy.wait_for_connections(8)
        assert proxy.open == 1


def test_lesson_16_disconnect_reports_no_outage_and_a_later_publish_does_not_wait(broker):
    out = Device.check(
        broker,
        """
        kinds = []

        async def events():
            async for event in client.events():
                kinds.append(type(event).__name__)

        async with client:
            task = asyncio.create_task(events())
            await client.wait_connected()
            await client.publish("t", "x", qos=1)
        await task
        print("events", kinds, client.error)
        with raises(RuntimeError, "not running"):
            await client.publish("t", "later", qos=1)
        """,
    )
    assert "events ['Connected'] None" in out
    assert "lost" not in out


def test_lesson_18_cancelling_a_publish_in_the_middle_of_its_packet_corrupts_nothing(broker):
    peer = broker.peer("t")
    with (
        Proxy(broker.port, takes_apart=False) as pipe,
        Device(
            pipe,
            """
            async with client:
                await told("go")
                task = asyncio.create_task(client.publish("t", bytes(8_000_000), qos=1))
                await until(lambda: client.stats.sent)
                await asyncio.sleep_ms(50)
                task.cancel()
                print("cancelled")
                await client.publish("t", "end", qos=1)
                assert client.stats.connects == 1
            """,
            max_packet=9_000_000,
            max_backlog=9_000_000,
            heap="60M",
        ) as device,
    ):
        device.wait_for("connected in")
        pipe.stall_up()
        device.send("go")
        device.wait_for("cancelled")
        pipe.heal()
        device.finish()
    peer.wait_for(2)
    assert [len(payload) for _, payload in peer.received] == [8_000_000, 3]


def test_lesson_20_publishers_go_on_during_an_inbound_message_and_a_slow_handler(proxy, broker):
    with Device(
        proxy,
        """
        @client.on("slow", qos=1)
        async def slow(message):
            print("slow handler begins")
            await told("finish")

        @client.on("large")
        def large(message):
            print("large arrived", len(message.payload))

        async with client:
            await told("publish")
            # half of the large message is here, and the slow handler runs
            assert client.stats.received == 1
            for i in range(10):
                await client.publish("t", str(i))
            print("published")
            await told("leave")
        """,
        max_packet=100_000,
        max_backlog=100_000,
    ) as device:
        proxy.wait_for("SUBACK")
        peer = broker.peer("t", qos=0)
        peer.publish("slow", "x")
        device.wait_for("slow handler begins")
        while proxy.bytes["down"] < sum(len(each.raw) for each in proxy.seen(None, "down")):
            time.sleep(0.01)  # the proxy counts when it has passed a packet on
        before = proxy.bytes["down"]
        proxy.dribble(pause_ms=1)
        peer.publish("large", bytes(20_000), qos=0)
        proxy.wait_for("PUBLISH", "down", 2)
        device.send("publish")
        device.wait_for("published")
        peer.wait_for(3)
        assert proxy.bytes["down"] == before  # the large one is still on its way
        proxy.heal()
        device.wait_for("large arrived 20000")
        for line in ("finish", "leave"):
            device.send(line)
        device.finish()


def test_lesson_21_the_keepalive_runs_while_nothing_else_happens(proxy):
    """MQTT 3.1.1: [MQTT-3.1.2-23]"""
    with Device(proxy, keepalive_s=1) as device:
        proxy.wait_for("PINGRESP", "down", 2)
        assert proxy.connections == 1
        proxy.stall()
        device.wait_for("connection lost: no answer to a ping")
        proxy.heal()
        device.wait_for("connected in")
        device.leave()


def test_lesson_22_every_packet_is_one_write():
    """Out, and the acknowledgement of what came in: more writes are more TLS records."""
    rounds = 30

    def script(connection):
        connection.accept()
        for n in range(1, rounds + 1):
            _, body = connection.packet()
            connection.send(b"\x40\x02" + body[3:5])
            connection.send(b"\x32\x06\x00\x01t" + n.to_bytes(2, "big") + b"x")
            assert connection.packet()[0] == 0x40
        connection.until_closed()

    with FakeBroker(script) as fake:
        Device.check(
            fake,
            """
            class Counting:
                def __init__(self, sock):
                    self.sizes = []
                    self.readinto = sock.readinto
                    self.close = sock.close
                    self._write = sock.write

                def write(self, buf):
                    n = self._write(buf)
                    assert n == len(buf)
                    self.sizes.append(n)
                    return n

            async with client:
                await client.wait_connected()
                sock = wrap_socket(client, Counting)
                for i in range(30):
                    await client.publish("t", bytes(100), qos=1)
                    await until(lambda: client.stats.received == i + 1)
                await until(lambda: len(sock.sizes) == 60)
            assert sock.sizes == [107, 4] * 30 + [2], sock.sizes
            """,
        )
        hello = fake.connections[0].reads[0]
        assert hello[0] == 0x10 and len(hello) == 2 + hello[1]
