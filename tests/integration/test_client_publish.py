"""Publishing with QoS 0 and 1: what arrives, when it counts as delivered, what an outage does."""

import socket

import pytest

from tests.support.device import Device
from tests.support.fake_broker import RESUMED
from tests.support.proxy import Proxy

# options of a device that sends more than the buffers of sockets take
HUGE = {"max_packet": 9_000_000, "max_backlog": 9_000_000, "heap": "60M"}


@pytest.fixture
def pipe(broker):
    """A fault proxy that passes bytes: a stall leaves a packet half sent."""
    with Proxy(broker.port, takes_apart=False) as running:
        yield running


def wire(proxy, name, direction, connection=None):
    """What passed or tried to: [(packet id, dup, payload)] of PUBLISH, [packet id] of others."""
    packets = proxy.seen(name, direction, connection)
    if name == "PUBLISH":
        return [(each.packet_id, each.dup, each.payload.decode()) for each in packets]
    return [each.packet_id for each in packets]


# What arrives


def test_every_kind_of_payload_arrives_as_it_was_given(broker):
    """MQTT 3.1.1: [MQTT-3.3.2-1], [MQTT-4.3.1-1], [MQTT-7.0.0-2], [MQTT-7.1.2-1]"""
    peer = broker.peer("t/#", "grüße/温度")
    Device.check(
        broker,
        """
        async with client:
            for qos in (0, 1):
                await client.publish("t/str", "21.5 °C", qos=qos)
                await client.publish("t/bytes", b"\\x00\\xff", qos=qos)
                await client.publish("t/bytearray", bytearray(b"abc"), qos=qos)
                await client.publish("t/memoryview", memoryview(b"abcdef")[2:4], qos=qos)
                await client.publish("t/empty", qos=qos)
                await client.publish("grüße/温度", "ö", qos=qos)
            await client.publish("t/kept", "yes", retain=True)
        """,
    )
    once = [
        ("t/str", "21.5 °C".encode()),
        ("t/bytes", b"\x00\xff"),
        ("t/bytearray", b"abc"),
        ("t/memoryview", b"cd"),
        ("t/empty", b""),
        ("grüße/温度", "ö".encode()),
    ]
    peer.wait_for(13)
    assert peer.received == once + once + [("t/kept", b"yes")]
    assert [each.qos for each in peer.messages] == 6 * [0] + 6 * [1] + [0]
    late = broker.peer("t/#")
    late.wait_for(1)
    assert [(each.topic, each.retain) for each in late.messages] == [("t/kept", True)]


def test_a_payload_that_changes_after_the_call_is_sent_as_it_was(proxy, broker):
    peer = broker.peer("t")
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            data = bytearray(b"before")
            client.enqueue("t", data)
            data[:] = b"after!"
            print("queued")
            await client.wait_connected()
        """,
        drain_s=10,
    ) as device:
        device.wait_for("queued")
        proxy.heal()
        device.finish()
    assert peer.wait_for(1)[0].payload == b"before"


def test_each_message_goes_to_its_own_topic_however_often_one_is_given(broker):
    peer = broker.peer("t/#", "grüße")
    Device.check(
        broker,
        """
        first, second, umlaut = "t/a", "t/b", "grüße"
        async with client:
            for qos in (0, 1):
                for topic in (first, first, second, umlaut, umlaut, "t/" + "ab"[qos], first):
                    with raises(TypeError, "topic"):
                        client.publish(None, topic)
                    await client.publish(topic, topic, qos=qos)
                    with raises(ValueError, "topic"):
                        client.publish(topic + "/#", topic)
                    with raises(ValueError, "topic"):
                        client.publish("", topic)
        """,
    )
    topics = ["t/a", "t/a", "t/b", "grüße", "grüße", "t/a", "t/a"]
    later = [*topics[:5], "t/b", "t/a"]
    peer.wait_for(14)
    assert peer.received == [(topic, topic.encode()) for topic in topics + later]


def test_a_message_as_large_as_max_packet_goes_and_a_larger_one_raises(proxy, broker):
    peer = broker.peer("t")
    Device.check(
        proxy,
        """
        async with client:
            fits = 100_000 - 4 - 2 - 1 - 2  # header, topic, packet id
            await client.publish("t", bytes(fits), qos=1)
            with raises(ValueError, "100001 bytes, max_packet is 100000: raise max_packet"):
                client.publish("t", bytes(fits + 1), qos=1)
            with raises(ValueError, "max_queue is 50: raise max_queue"):
                client.enqueue("t", bytes(60))
            await client.publish("t", "end", qos=1)
        """,
        max_packet=100_000,
        max_backlog=100_000,
        max_queue=50,
    )
    peer.wait_for(2)
    assert [len(each.payload) for each in peer.messages] == [99_991, 3]
    assert proxy.connections == 1


def test_many_publishers_at_once_lose_and_repeat_nothing(proxy, broker):
    peer = broker.peer("t/+")
    Device.check(
        proxy,
        """
        async def publisher(client, name):
            for i in range(25):
                await client.publish("t/" + name, str(i), qos=i % 2)

        async with client:
            await asyncio.gather(*[publisher(client, name) for name in "abcdefgh"])
            assert client.stats.sent == 200 and client.stats.resent == 0
        """,
        max_inflight=3,
    )
    peer.wait_for(200)
    for name in "abcdefgh":
        for qos in (0, 1):  # the broker may send QoS 0 past what waits for its window
            numbers = [
                int(each.payload)
                for each in peer.messages
                if each.topic == "t/" + name and each.qos == qos
            ]
            assert numbers == list(range(qos, 25, 2))
    waiting = most = 0
    for each in proxy.seen():
        if each.name == "PUBLISH" and each.qos and each.direction == "up":
            waiting += 1
            most = max(most, waiting)
        elif each.name == "PUBACK" and each.direction == "down":
            waiting -= 1
    assert most == 3  # max_inflight


# When it is delivered


def test_a_publisher_of_qos_0_in_a_tight_loop_lets_other_tasks_run(broker):
    peer = broker.peer("t")
    said = Device.check(
        broker,
        """
        turns = 0

        async def ticker():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep_ms(0)

        async with client:
            await client.wait_connected()
            beside = asyncio.create_task(ticker())
            await asyncio.sleep_ms(0)
            before = turns
            for number in range(800):
                await client.publish("t", str(number))
            print("turns", turns - before)
            beside.cancel()
        """,
    )
    assert int(said.partition("turns ")[2].split()[0]) >= 800 // 16
    peer.wait_for(800)
    assert [payload for _, payload in peer.received] == [b"%d" % n for n in range(800)]


def test_qos_1_returns_when_the_broker_acknowledged_and_not_before(proxy):
    """MQTT 3.1.1: [MQTT-4.3.2-1]"""
    with Device(
        proxy,
        """
        async with client:
            await client.publish("t", "0")
            print("handed over")
            await told("go")
            task = asyncio.create_task(client.publish("t", "1", qos=1))
            await told("look")
            print("done" if task.done() else "waits")
            await task
            print("acknowledged")
        """,
    ) as device:
        device.wait_for("handed over")
        proxy.stall_down()
        device.send("go")
        proxy.wait_for("PUBLISH", "up", 2)
        proxy.wait_for("PUBACK", "down")
        device.send("look")
        device.wait_for("^waits$")
        proxy.heal()
        device.wait_for("acknowledged")
        device.finish()
    assert proxy.connections == 1


def test_offline_publish_waits_at_every_qos_and_everything_arrives_in_order(proxy, broker):
    peer = broker.peer("t")
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            tasks = []
            for i in range(6):
                tasks.append(asyncio.create_task(client.publish("t", str(i), qos=i % 2)))
                await asyncio.sleep_ms(0)
            await told("look")
            print([task.done() for task in tasks])
            await asyncio.gather(*tasks)
            print("all delivered")
        """,
    ) as device:
        device.wait_for("cannot connect")
        device.send("look")
        assert "True" not in device.wait_for(r"^\[")
        proxy.heal()
        device.wait_for("all delivered")
        device.finish()
    peer.wait_for(6)
    assert [payload for _, payload in peer.received] == [b"%d" % i for i in range(6)]


# Outages


SIX = """
async with client:
    tasks = []
    for i in range(6):
        tasks.append(asyncio.create_task(client.publish("t", str(i), qos=1)))
        await asyncio.sleep_ms(0)
    await asyncio.gather(*tasks)
    print("all delivered, resent", client.stats.resent)
"""


def test_after_a_reconnect_the_same_ids_go_again_in_order_with_dup(proxy):
    """
    MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-3.1.2-4], [MQTT-3.3.1-1], [MQTT-4.1.0-1], [MQTT-4.4.0-1],
    [MQTT-4.6.0-1]
    """
    proxy.swallow("PUBACK", "down")
    with Device(proxy, SIX, ack_timeout_s=60, max_inflight=4) as device:
        proxy.wait_for("PUBACK", "down", 4)
        proxy.heal()
        proxy.rst()
        device.wait_for("all delivered, resent 4")
        device.finish()
    first = wire(proxy, "PUBLISH", "up", 1)
    again = wire(proxy, "PUBLISH", "up", 2)
    assert first == [(i + 1, False, str(i)) for i in range(4)]
    assert again[:4] == [(i + 1, True, str(i)) for i in range(4)]
    assert [(dup, payload) for _, dup, payload in again[4:]] == [(False, "4"), (False, "5")]
    assert not proxy.seen("CONNECT")[1].body[7] & 2  # CleanSession


def test_when_the_session_is_lost_they_go_as_new_ones_in_order(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.3.1-3], [MQTT-4.6.0-1]"""
    proxy.swallow("PUBACK", "down")
    with Device(proxy, SIX, ack_timeout_s=60, max_inflight=4) as device:
        proxy.wait_for("PUBACK", "down", 4)
        proxy.heal()
        broker.restart(wipe=True)
        device.wait_for("connected in .* session new, 4 messages sent again")
        device.wait_for("all delivered, resent 4")
        device.finish()
    last = proxy.seen("CONNECT")[-1].connection
    again = wire(proxy, "PUBLISH", "up", last)
    assert [(dup, payload) for _, dup, payload in again] == [(False, str(i)) for i in range(6)]


def test_a_message_resent_twice_keeps_its_id_and_its_place(proxy):
    """MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-3.3.1-1], [MQTT-4.6.0-1]"""
    proxy.swallow("PUBACK", "down")
    with Device(proxy, SIX, ack_timeout_s=60, max_inflight=4) as device:
        for connection in (1, 2):
            proxy.wait_for("PUBACK", "down", 4 * connection)
            proxy.rst()
        proxy.heal()
        proxy.rst()
        device.wait_for("all delivered")
        device.finish()
    last = proxy.seen("CONNECT")[-1].connection
    for connection in range(2, last + 1):
        resent = wire(proxy, "PUBLISH", "up", connection)[:4]
        assert resent == [(i + 1, True, str(i)) for i in range(4)][: len(resent)]


def test_without_an_acknowledgement_in_time_the_connection_is_dropped_and_not_before(proxy):
    """MQTT 3.1.1: [MQTT-3.3.1-1], [MQTT-4.3.2-1], [MQTT-4.4.0-1]"""
    proxy.swallow("PUBACK", "down", times=1)
    with Device(
        proxy,
        """
        async with client:
            await client.publish("t", "1", qos=1)
            print("delivered")
        """,
        ack_timeout_s=1,
    ) as device:
        device.wait_for("connection lost: no PUBACK for 1 s")
        device.wait_for("delivered")
        device.finish()
    assert wire(proxy, "PUBLISH", "up") == [(1, False, "1"), (1, True, "1")]
    assert proxy.connections == 2


def test_a_packet_cut_in_the_middle_goes_again_whole(proxy, broker):
    peer = broker.peer("t")
    with Device(
        proxy,
        """
        async with client:
            await told("go")
            await client.publish("t", b"a" * 200_000, qos=1)
            await client.publish("t", "end", qos=1)
        """,
        max_packet=300_000,
        max_backlog=300_000,
    ) as device:
        device.wait_for("connected in")
        proxy.cut(after=100_000)
        device.send("go")
        device.finish()
    peer.wait_for(2)
    assert [len(each.payload) for each in peer.messages] == [200_000, 3]
    assert proxy.connections == 2


def test_a_qos_0_packet_that_was_half_sent_when_the_link_broke_goes_again_whole(pipe, broker):
    peer = broker.peer("t")
    with Device(
        pipe,
        """
        async with client:
            await told("go")
            task = asyncio.create_task(client.publish("t", bytes(8_000_000)))
            await until(lambda: client.stats.bytes_out > 8_000_000)
            await asyncio.sleep_ms(100)
            assert not task.done()
            print("begun")
            await task
            await client.publish("t", "end", qos=1)
        """,
        **HUGE,
    ) as device:
        device.wait_for("connected in")
        pipe.stall_up()
        device.send("go")
        device.wait_for("begun")
        pipe.rst()  # first: or the rest of it goes out
        pipe.heal()
        device.finish()
    peer.wait_for(2)
    assert [len(each.payload) for each in peer.messages] == [8_000_000, 3]


@pytest.mark.parametrize("session", ["resumed", "new"])
def test_a_log_that_publishes_does_not_get_before_what_is_sent_again(proxy, broker, session):
    proxy.swallow("PUBACK", "down")
    with Device(
        proxy,
        """
        def log(line):
            print(line)
            client.enqueue("log", line, qos=1)

        client = make(log=log, ack_timeout_s=60)
        async with client:
            await client.publish("t", "x", qos=1)
            await told("leave")
        """,
    ) as device:
        proxy.wait_for("PUBACK", "down", 2)
        proxy.heal()
        proxy.rst() if session == "resumed" else broker.restart(wipe=True)
        device.wait_for(f"connected in .* session {session}, 2 messages sent again")
        last = proxy.seen("CONNECT")[-1].connection
        device.leave()
    first = [(each.topic, each.payload) for each in proxy.seen("PUBLISH", "up", 1)]
    again = [(each.topic, each.payload) for each in proxy.seen("PUBLISH", "up", last)]
    assert again[:2] == first
    assert again[2][0] == "log" and b"connection lost" in again[2][1]
    assert b"connected in" in again[-1][1]


@pytest.mark.parametrize("place", ["first write", "later write", "task"])
def test_without_memory_to_send_the_connection_is_made_anew_and_the_message_goes(
    pipe, broker, place
):
    """MQTT 3.1.1: [MQTT-4.8.0-2]"""
    peer = broker.peer("t")
    with Device(
        pipe,
        """
        class Poor:
            "A socket; a write finds no memory."
            def __init__(self, sock):
                self._sock = sock
                self._fails = 1 if PLACE == "first write" else 2

            def write(self, data):
                self._fails -= 1
                if not self._fails:
                    raise MemoryError("no memory once")
                return self._sock.write(data)

            def __getattr__(self, name):
                return getattr(self._sock, name)

        async with client:
            await told("publish")
            if PLACE == "task":
                no_memory("for a task")
            else:
                wrap_socket(client, Poor)
            client.enqueue("t", bytes(8_000_000))
            print("not sent at once")
            await client.publish("t", "next")
            print("connects", client.stats.connects)
        """,
        names={"PLACE": place},
        max_queue=9_000_000,
        **HUGE,
    ) as device:
        device.wait_for("connected in")
        pipe.stall_up()  # the socket does not take it whole
        device.send("publish")
        device.wait_for("not sent at once")
        pipe.heal()
        device.wait_for("connection lost: MemoryError")
        device.wait_for("connects 2")
        device.finish()
    peer.wait_for(2)
    assert peer.received == [("t", bytes(8_000_000)), ("t", b"next")]


def test_what_is_sent_again_does_not_keep_it_from_reading():
    """A broker that reads nothing while it cannot write, and 10 MB that wait on both sides."""

    def script(connection):
        if connection.number == 1:
            connection.accept()
            for _ in range(50):
                connection.packet()
            return
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        connection.accept(RESUMED)
        for _ in range(60):
            connection.send(b"\x30\xc3\x9a\x0c\x00\x01t" + bytes(200_000))
        for _ in range(50):
            first, body = connection.packet()
            assert first == 0x3A
            connection.send(b"\x40\x02" + body[3:5])
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            data = bytes(200_000)
            await asyncio.gather(*[client.publish("t", data, qos=1) for _ in range(50)])
            print("received", client.stats.received, "connects", client.stats.connects)
        """,
        max_packet=250_000,
        max_backlog=250_000,
        max_inflight=50,
        max_waiting=50 * 400,  # each counts once for 512 bytes
        ack_timeout_s=60,
        heap=HUGE["heap"],
    )
    assert "received 60 connects 2" in out


# How many may wait


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_publish_beyond_those_that_may_wait_raises_at_the_call(proxy, broker, protocol):
    """The rest goes on; a place is free again with each that is sent or gives up."""
    peer = broker.peer("t", qos=1)
    proxy.refuse()
    with Device(
        proxy,
        """
        client = make(max_waiting=5, max_inflight=1, protocol=PROTOCOL)
        full = "5 publish() calls wait already (max_waiting): await each before the next, or use"
        async with client:
            publish = lambda n, **more: asyncio.create_task(
                client.publish("t", str(n), qos=1, **more))
            tasks = [publish(n) for n in range(5)]  # none of them has begun
            for _ in range(2):
                for call in (
                    lambda: client.publish("t", "x"),
                    lambda: client.publish("t", Source(9), length=9),
                ):
                    with raises(RuntimeError, full):
                        call()
                assert client.enqueue("t", "queued", qos=1)
                await asyncio.sleep_ms(0)  # they begin
                assert waiting(client) == 5
            tasks.pop(1).cancel()
            await asyncio.sleep_ms(0)
            tasks.append(publish(5, timeout_s=0.05))
            with raises(RuntimeError, full):
                client.publish("t", "x")
            with raises(asyncio.TimeoutError):
                await tasks.pop()
            tasks.append(publish(6))
            print("wait")
            await told("go")
            for task in tasks:
                await task
            assert waiting(client) == 0
            await asyncio.gather(*[client.publish("t", str(n), qos=1) for n in range(7, 12)])
        """,
        names={"PROTOCOL": protocol},
    ) as device:
        device.wait_for("wait")
        proxy.heal()
        device.send("go")
        device.finish()
    peer.wait_for(12)
    assert [payload.decode() for _, payload in peer.received] == [
        *("queued", "0", "2", "3", "4", "queued", "6"),
        *(str(n) for n in range(7, 12)),
    ]


def test_a_large_message_takes_several_of_the_places(proxy):
    proxy.refuse()
    Device.check(
        proxy,
        """
        async with client:
            full = "32 publish() calls wait already"
            asyncio.create_task(client.publish("t", bytes(20_000), qos=1))  # alone it may wait
            await asyncio.sleep_ms(0)
            with raises(RuntimeError, full):
                client.publish("t", "x")
            await client.disconnect()
        for size in (0, 400, 600, 3000):
            tasks = []
            async with client:
                try:
                    while True:
                        tasks.append(asyncio.create_task(client.publish("t", bytes(size))))
                        await asyncio.sleep_ms(0)
                except RuntimeError:
                    pass
                assert len(tasks) == 32 // (1 + size // 512), (size, len(tasks))
            for task in tasks:
                with raises(MQTTError, "stopped"):
                    await task
            assert waiting(client) == 0
        """,
        max_packet=30_000,
        max_backlog=30_000,
    )


def test_what_never_begins_takes_no_place(broker):
    """Coroutines that are not awaited, tasks that are cancelled before their first turn."""
    peer = broker.peer("t", qos=1)
    Device.check(
        broker,
        """
        async with client:
            await client.wait_connected()
            for n in range(100):
                asyncio.create_task(client.publish("t", "never", qos=1)).cancel()
                await client.publish("t", str(n), qos=1)
            assert waiting(client) == 0
            forgotten = [client.publish("t", "never", qos=1) for _ in range(32)]
            with raises(RuntimeError, "32 publish() calls wait already"):
                client.publish("t", "never")

            def again():
                try:
                    return asyncio.create_task(client.publish("t", "end", qos=1))
                except RuntimeError:
                    return None

            tasks = []
            await until(lambda: tasks.append(again()) or tasks[-1])  # a second later
            await tasks[-1]
            assert waiting(client) == 0
        """,
    )
    peer.wait_for(101)
    expected = [b"%d" % n for n in range(100)] + [b"end"]
    assert [payload for _, payload in peer.received] == expected


def test_publishers_in_loops_are_never_too_many(broker):
    """As many tasks as may wait, each of which awaits its own, with a window of one."""
    peer = broker.peer("t", qos=1)
    Device.check(
        broker,
        """
        async def publisher(name):
            for n in range(20):
                await client.publish("t", "%d %d" % (name, n), qos=n % 3)
        async with client:
            await asyncio.gather(*[publisher(name) for name in range(8)])
            assert waiting(client) == 0
        """,
        max_inflight=1,
        max_waiting=8,
    )
    peer.wait_for(160)


# Giving up waiting


def test_a_cancelled_or_timed_out_publish_that_was_not_sent_is_taken_back(proxy, broker):
    peer = broker.peer("t")
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            for qos in (0, 1):
                with raises(asyncio.TimeoutError):
                    await client.publish("t", "timed out", qos=qos, timeout_s=0.05)
                task = asyncio.create_task(client.publish("t", "cancelled", qos=qos))
                await asyncio.sleep_ms(20)
                task.cancel()
                with raises(asyncio.CancelledError):
                    await task
            print("gave up")
            await client.publish("t", "end", qos=1)
        """,
    ) as device:
        device.wait_for("gave up")
        proxy.heal()
        device.finish()
    peer.wait_for(1)
    assert peer.received == [("t", b"end")]
    assert len(proxy.seen("PUBLISH", "up")) == 1


def test_a_cancelled_publish_that_was_sent_is_still_delivered_across_a_reconnect(proxy, broker):
    """MQTT 3.1.1: [MQTT-4.3.2-1], [MQTT-4.4.0-1]"""
    peer = broker.peer("t")
    proxy.swallow("PUBLISH", "up")
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            task = asyncio.create_task(client.publish("t", "cancelled", qos=1))
            await until(lambda: client.stats.sent)
            task.cancel()
            with raises(asyncio.CancelledError):
                await task
            with raises(asyncio.TimeoutError):
                await client.publish("t", "timed out", qos=1, timeout_s=0.05)
            print("gave up")
            await told("go")
            await client.publish("t", "end", qos=1)
        """,
        ack_timeout_s=60,
    ) as device:
        device.wait_for("gave up")
        proxy.heal()
        proxy.rst()
        device.wait_for("2 messages sent again")
        device.send("go")
        device.finish()
    peer.wait_for(3)
    assert peer.received == [("t", b"cancelled"), ("t", b"timed out"), ("t", b"end")]


def test_cancelling_in_the_middle_of_a_packet_does_not_corrupt_the_stream(pipe, broker):
    peer = broker.peer("t")
    with Device(
        pipe,
        """
        async with client:
            await client.wait_connected()
            for qos in (0, 1):
                await told("go")
                begin = client.stats.bytes_out
                task = asyncio.create_task(client.publish("t", bytes(8_000_000), qos=qos))
                await until(lambda: client.stats.bytes_out > begin)
                waiting = asyncio.create_task(client.publish("t", "never", qos=qos))
                with raises(asyncio.TimeoutError):
                    await client.publish("t", "never", timeout_s=0.05)
                for each in (task, waiting):
                    each.cancel()
                    with raises(asyncio.CancelledError):
                        await each
                print("cancelled")
                await client.publish("t", "end", qos=1)
                print("next")
        """,
        **HUGE,
    ) as device:
        device.wait_for("connected in")
        for _ in range(2):
            pipe.stall_up()
            device.send("go")
            device.wait_for("cancelled")
            pipe.heal()
            device.wait_for("next")
        device.finish()
    peer.wait_for(4)
    assert [len(each.payload) for each in peer.messages] == [8_000_000, 3, 8_000_000, 3]
    assert pipe.connections == 1


# The queue


def test_a_publish_that_nobody_awaits_is_told(broker):
    """MicroPython says nothing of a coroutine that never began."""
    peer = broker.peer("t/#")
    out = Device.check(
        broker,
        """
        lines = []

        def told(topic):
            return [line for line in lines if "publish to '%s'" % topic in line]

        client = make(keepalive_s=1, log=lines.append)
        async with client:
            await client.publish("t/first", "1", qos=1)
            client.publish("t/forgotten", "1", qos=1)
            await client.publish("t/last", "1", qos=1)
            await until(lambda: told("t/forgotten"))
            client.publish("t/forgotten too", "1", timeout_s=9)
            await until(lambda: told("t/forgotten too"))
            await client.publish("t/end", "1", qos=1)
            print(told("t/forgotten")[0])
        """,
    )
    assert out.endswith(
        ": publish to 't/forgotten' was not awaited: write await client.publish(...)\n"
    )
    peer.wait_for(topic="t/end")
    topics = [topic for topic, _ in peer.received]
    assert list(dict.fromkeys(topics)) == ["t/first", "t/last", "t/end"]


def test_a_publish_that_is_awaited_in_any_way_is_not_told(broker):
    Device.check(
        broker,
        """
        lines = []

        client = make(keepalive_s=1, log=lines.append)
        async with client:
            tasks = []
            for n in range(12):
                tasks.append(asyncio.create_task(client.publish("t/task", "1", qos=1)))
                both = [client.publish("t/all", "1", qos=qos) for qos in (0, 1)]
                await asyncio.gather(*both)
                await asyncio.wait_for(client.publish("t/wait", "1"), 60)
                await client.publish("t/time", "1", qos=1, timeout_s=60)
                client.enqueue("t/queue", "1", qos=1)
                await asyncio.sleep_ms(250)
            await asyncio.gather(*tasks)
            assert not [line for line in lines if "awaited" in line], lines
        """,
    )


def test_enqueue_says_when_the_queue_is_full_and_goes_on_when_it_is_not(proxy, broker):
    peer = broker.peer("t")
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            n = 0
            while client.enqueue("t", "message %02d" % n, qos=n % 2):
                n += 1
            print("full after", n)
            await told("go")
            await client.wait_connected()
            await until(lambda: client.enqueue("t", "more", qos=1))
            # room for as many as before, when the queue is empty
            await client.publish("t", "between", qos=1)
            size = 2 + 2 + 1 + 2 + 90
            assert client.enqueue("t", bytes(90), qos=1)
        """,
        max_queue=100,
    ) as device:
        count = int(device.wait_for("full after").split()[-1])
        assert 4 <= count <= 8
        proxy.heal()
        device.send("go")
        device.finish()
    peer.wait_for(count + 3)
    payloads = [payload for _, payload in peer.received]
    expected = [b"message %02d" % n for n in range(count)] + [b"more", b"between", bytes(90)]
    assert payloads == expected


# Will, birth, goodbye


WILL = """
will = Will("t/status", "offline", qos=1, retain=True, birth="online")
client = make(will=will, ack_timeout_s=60)

@client.on_connect
async def greet():
    await client.publish("t/hello", str(client.stats.connects), qos=1)
    print("greeted")
"""


def test_the_broker_publishes_the_will_after_a_crash(broker):
    """MQTT 3.1.1: [MQTT-3.1.2-9]"""
    peer = broker.peer("t/#")
    with Device(broker, WILL) as device:
        peer.wait_for(2)
        device.kill()
    peer.wait_for(3)
    assert peer.received == [("t/status", b"online"), ("t/hello", b"1"), ("t/status", b"offline")]
    last = peer.messages[-1]
    assert last.qos == 1
    late = broker.peer("t/#").wait_for(1)[0]
    assert (late.payload, late.retain) == (b"offline", True)


def test_leaving_publishes_the_wills_payload_and_says_goodbye(proxy, broker):
    peer = broker.peer("t/#")
    with Device(proxy, WILL) as device:
        peer.wait_for(2)
        device.leave()
    peer.wait_for(3)
    assert peer.received[2:] == [("t/status", b"offline")]
    assert [each.name for each in proxy.seen(direction="up")][-1] == "DISCONNECT"
    will = proxy.seen("PUBLISH", "up")[-1]
    assert (will.payload, will.qos, will.retain) == (b"offline", 1, True)
    broker.peer("x").wait_for(0)
    assert len(peer.received) == 3  # the broker discarded its copy


def test_the_birth_message_is_published_after_every_connect(proxy, broker):
    peer = broker.peer("t/#")
    with Device(proxy, WILL) as device:
        device.wait_for("greeted")
        proxy.rst()
        device.wait_for("greeted")
        device.leave()
    peer.wait_for(6)
    assert peer.received == [
        ("t/status", b"online"),
        ("t/hello", b"1"),
        ("t/status", b"offline"),  # the broker's, after the reset
        ("t/status", b"online"),
        ("t/hello", b"2"),
        ("t/status", b"offline"),
    ]


def test_a_birth_message_that_was_not_acknowledged_is_not_published_twice(proxy, broker):
    proxy.swallow("PUBACK", "down")
    with Device(proxy, WILL) as device:
        proxy.wait_for("PUBLISH", "up")
        proxy.rst()
        proxy.wait_for("PUBLISH", "up", 3)
        proxy.refuse()
        proxy.rst()
        proxy.heal()
        proxy.wait_for("PUBACK", "down", 2)
        device.leave()
    births = [each for each in proxy.seen("PUBLISH", "up") if each.payload == b"online"]
    assert {each.packet_id for each in births} == {1}
    assert [each.dup for each in births] == [False] + [True] * (len(births) - 1)


def test_two_clients_with_one_will_have_a_birth_each(proxy, broker):
    """One is without its acknowledgement while the other comes and goes."""
    peer = broker.peer("t/#")
    proxy.swallow("PUBACK", "down")
    with Device(
        proxy,
        """
        will = Will("t/status", "offline", qos=1, retain=True, birth="online", goodbye=False)
        client = make(will=will, client_id="one", ack_timeout_s=60, drain_s=0)
        two = MQTTClient("127.0.0.1", DIRECT, will=will, client_id="two")
        async with client:
            await client.wait_connected()
            await until(lambda: in_flight(client) == 1)
            for n in range(2):
                async with two:
                    await two.wait_connected()
                    await until(lambda: not to_send(two))
                assert in_flight(client) == 1
            print("two went")
            await told("healed")
            await until(lambda: client.stats.connects == 2 and not to_send(client))
        """,
        names={"DIRECT": broker.port},
    ) as device:
        device.wait_for("two went")
        proxy.heal()
        proxy.rst()
        device.send("healed")
        device.finish()
    births = [each for each in proxy.seen("PUBLISH", "up") if each.payload == b"online"]
    assert [each.dup for each in births] == [False, True]
    peer.wait_for(5)  # of one, twice of two, the broker's will for one, the repetition
    assert [text for _, text in peer.received].count(b"online") == 4


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_goodbye_that_was_not_acknowledged_the_next_start_ends_online(
    proxy, broker, clean
):
    with Device(
        proxy,
        """
        will = Will("t/status", "offline", qos=1, retain=True, birth="online")
        client = make(will=will, clean_start=CLEAN, drain_s=0.2)
        for _ in range(2):
            async with client:
                await client.wait_connected()
                await until(lambda: not to_send(client))
                print("ready")
                await told("leave")
            print("left")
        """,
        names={"CLEAN": clean},
    ) as device:
        device.wait_for("ready")
        proxy.swallow("PUBACK", "down", times=1)
        device.send("leave")
        device.wait_for("left")
        device.wait_for("ready")
        kept = broker.peer("t/status").wait_for(1)[0]
        device.leave()
    assert (kept.payload, kept.retain) == (b"online", True)
    states = [each.payload for each in proxy.seen("PUBLISH", "up", 2)]
    assert states == [b"offline", b"online", b"offline"]


def test_leaving_waits_for_what_is_in_flight(proxy, broker):
    peer = broker.peer("t")
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            for i in range(5):
                client.enqueue("t", str(i), qos=1)
            print("leaving")
        assert not client.connected and not client.running
        print("left")
        """,
        drain_s=20,
        max_inflight=2,
    ) as device:
        device.finish()
    peer.wait_for(5)
    assert [payload for _, payload in peer.received] == [b"0", b"1", b"2", b"3", b"4"]
    assert [each.name for each in proxy.seen(direction="up")][-1] == "DISCONNECT"


WAIT = """
async def wait(awaitable, what):
    try:
        await asyncio.wait_for(awaitable, 10)
        print(what, "returned")
    except Exception as e:
        print(what, type(e).__name__, e)

async def say(waits):
    tasks = [asyncio.create_task(wait(*each)) for each in waits]
    await asyncio.sleep_ms(20)
    return tasks
"""
STOPPED = "MQTTError the client was stopped before the message was delivered"
NOT_RUNNING = "RuntimeError the client is not running: use it inside `async with client:`"


def test_disconnect_tells_those_who_wait(proxy):
    proxy.swallow("PUBACK", "down")
    out = Device.check(
        proxy,
        WAIT,
        """
        async with client:
            await client.wait_connected()
            tasks = await say((
                (client.publish("t", "sent", qos=1), "in flight"),
                (client.publish("t", "waits", qos=1), "queued 1"),
                (client.publish("t", "waits too"), "queued 0"),
            ))
        for task in tasks:
            await task
        """,
        drain_s=0.2,
        max_inflight=1,
        log=None,
    )
    assert sorted(out.splitlines()) == [
        f"{each} {STOPPED}" for each in ("in flight", "queued 0", "queued 1")
    ]


def test_disconnect_while_offline_tells_those_who_wait(proxy):
    proxy.refuse()
    out = Device.check(
        proxy,
        WAIT,
        """
        async with client:
            tasks = await say((
                (client.publish("t", "a"), "qos 0"),
                (client.publish("t", "b", qos=1), "qos 1"),
                (client.publish("t", "b", timeout_s=20), "time-out"),
                (client.wait_connected(), "wait_connected"),
                (client.wait_connected(20), "wait_connected with time-out"),
                (client.subscribe("t"), "subscribe"),
            ))
            late = wait(client.publish("t", "late"), "begun as the client stops")
            late = asyncio.create_task(late)
        for task in tasks:
            await task
        await late
        print("after:")
        for call in (
            lambda: client.publish("t", "x", qos=1),
            lambda: client.enqueue("t", "x"),
            lambda: client.subscribe("t"),
            lambda: client.unsubscribe("t"),
        ):
            with raises(RuntimeError, "not running: use it inside `async with client:`"):
                call()
        with raises(RuntimeError, "not running"):
            await client.wait_connected()
        await client.disconnect()  # once more does no harm
        """,
        log=None,
    )
    lines = out.splitlines()
    assert lines.pop() == "after:"
    assert sorted(lines) == [
        f"begun as the client stops {NOT_RUNNING}",
        f"qos 0 {STOPPED}",
        f"qos 1 {STOPPED}",
        f"subscribe {NOT_RUNNING}",
        f"time-out {STOPPED}",
        f"wait_connected {NOT_RUNNING}",
        f"wait_connected with time-out {NOT_RUNNING}",
    ]


def test_a_publisher_that_finds_no_memory_leaves_no_message_behind(broker):
    peer = broker.peer("t")
    Device.check(
        broker,
        """
        async with client:
            await client.wait_connected()
            no_memory("to look at the window")
            with raises(MemoryError, "once"):
                await client.publish("t", "1", qos=1)
            await client.publish("t", "2", qos=1)
        """,
    )
    peer.wait_for(1)
    assert peer.received == [("t", b"2")]


def test_no_memory_to_send_what_waited_behind_a_slow_write_drops_the_connection(broker):
    peer = broker.peer("t")
    out = Device.check(
        broker,
        """
        class Slow:
            "A socket that does not take the first write."
            def __init__(self, sock):
                self._sock = sock
                self._ready = False

            def write(self, data):
                if self._ready:
                    return self._sock.write(data)
                self._ready = True

            def __getattr__(self, name):
                return getattr(self._sock, name)

        async with client:
            await client.wait_connected()
            wrap_socket(client, Slow)
            tasks = [asyncio.create_task(client.publish("t", each)) for each in "12"]
            await asyncio.sleep_ms(0)
            no_memory("to send what waits")
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
        """,
    )
    peer.wait_for(2)
    assert peer.received == [("t", b"1"), ("t", b"2")]
    assert "connection lost: MemoryError" in out
