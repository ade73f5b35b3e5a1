"""What the network and the broker do to a connection, and what the client makes of it."""

import re
import socket
import threading
import time

import pytest

from tests.support import apps, mpy, patience
from tests.support.broker import HOST, Broker
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, FakeBroker
from tests.support.proxy import Proxy

BUSY = """
client.on("in", qos=1)(got)

async def events():
    async for event in client.events():
        print("event", type(event).__name__, getattr(event, "session_present", ""),
              type(getattr(event, "error", None)).__name__, ticker.ticks)
    print("no more events")

ticker = Ticker()

async with client, ticker:
    task = asyncio.create_task(events())
    await told("publish")
    await client.publish("out", "x", qos=1)
    print("published")
    await told("leave")
await task
"""


def ticks_went_on(device):
    """A task beside the client was not held up during the second or more of silence."""
    assert int(device.wait_for("event Disconnected").split()[-1]) > 50  # of 200


# Connections that are made


def test_a_connect_over_tcp_collects_garbage_once_after_what_it_has_loaded(broker):
    # each collection stops the app for as long as its heap is large
    out = mpy.check(
        """
        import sys
        import gc

        class Counting:
            count = 0
            mem_free = gc.mem_free
            isenabled = gc.isenabled
            enable = gc.enable
            disable = gc.disable

            def collect():
                Counting.count += 1
                gc.collect()

        sys.modules["gc"] = Counting
        import asyncio
        from mqtt_as_tls import MQTTClient

        async def main():
            client = MQTTClient("127.0.0.1", int(sys.argv[1]), client_id="a", log=None)
            async with client:
                started = Counting.count
                await client.wait_connected()
                print(Counting.count - started)

        asyncio.run(main())
        """,
        broker.port,
    )
    assert out.split() == ["1"]


# Connections that end


@pytest.mark.parametrize("how", ["fin", "rst", "restart", "kill"])
def test_a_connection_that_ends_is_noticed_at_once_and_made_again(proxy, broker, how):
    with Device(proxy, BUSY, keepalive_s=600) as device:
        device.wait_for("connected in .* session new")
        if how in ("fin", "rst"):
            proxy.wait_for("SUBACK")
            getattr(proxy, how)()
        else:
            broker.stop() if how == "restart" else broker.kill()
            broker.start()
        device.wait_for("connection lost: .*(closed|broke)")
        device.wait_for(f"connected in .* session {'new' if how == 'kill' else 'resumed'}")
        device.send("publish")
        device.wait_for("published")
        broker.publish("in", "1")
        device.wait_for("got 1 1")
        out = device.leave()
    events = [line.split()[1:-1] for line in out.splitlines() if line.startswith("event")]
    assert events[0] == ["Connected", "False", "NoneType"]
    assert events[1] == ["Disconnected", "ConnectError"]
    assert events[-1] == ["Connected", str(how != "kill"), "NoneType"]
    assert out.count("no more events") == 1


def test_a_broker_that_is_down_at_the_start_is_waited_for(proxy, broker):
    broker.stop()
    with Device(broker, BUSY, keepalive_s=60) as device:
        device.wait_for("not connected: .*nothing listens there")
        device.send("publish")
        broker.start()
        device.wait_for("published")
        device.leave()
    # the same failure again and again is told once
    assert len([line for line in device.lines if "not connected" in line]) == 1


# Silence


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_link_that_swallows_what_is_sent_one_way_is_noticed(proxy, way):
    with Device(proxy, BUSY, keepalive_s=1) as device:
        proxy.wait_for("SUBACK")
        proxy.stall(way)
        # the broker, which hears nothing when it is "up", may be the first to have had enough
        heard = "no answer to a ping for 1 s" + ("|the broker closed" if way == "up" else "")
        device.wait_for(f"connection lost: ({heard})")
        ticks_went_on(device)
        proxy.heal()
        device.wait_for("connected in")
        device.send("publish")
        device.wait_for("published")
        device.leave()


def pings(proxy):
    """
    Return the largest number of pings on one connection: on a busy computer an answer may be later
    than a keep alive of a second allows.
    """
    seen = [each.connection for each in proxy.seen("PINGREQ", "up")]
    return max(map(seen.count, seen), default=0)


def test_what_it_sends_does_not_count_as_life_of_the_broker(proxy):
    with Device(
        proxy,
        """
        async with client:
            while True:
                await client.publish("out", "x")
                await asyncio.sleep_ms(20)
        """,
        keepalive_s=1,
    ) as device:
        while pings(proxy) < 2:
            proxy.wait_for("PINGREQ", "up", len(proxy.seen("PINGREQ", "up")) + 1)
        proxy.stall_down()
        device.wait_for("connection lost: no answer to a ping")


def test_what_it_receives_does_not_keep_it_from_saying_something_itself(proxy, broker):
    """MQTT 3.1.1: [MQTT-3.1.2-23]"""
    with Device(proxy, 'client.on("in")(got)', keepalive_s=1) as device:
        device.subscribed()
        peer = broker.peer()
        while pings(proxy) < 3:  # the broker's limit is 1.5 s
            peer.publish("in", "x", qos=0)
        assert device.code is None


def test_a_peer_that_takes_nothing_is_noticed_by_the_progress_of_sending(broker):
    stop = threading.Event()

    def script(connection):
        connection.accept()
        if connection.number == 1:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            while not stop.wait(0.2):  # reads nothing, but says something
                connection.send(b"\x30\x03\x00\x01t")
            return
        connection.until_closed()

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
            async with client:
                async with Ticker() as ticker:
                    task = asyncio.create_task(client.publish("t", bytes(8_000_000)))
                    await until(lambda: client.stats.connects == 2)
                    print("ticks", ticker.ticks)
                    await task
                    print("sent")
            """,
            max_packet=9_000_000,
            max_backlog=9_000_000,
            heap="60M",
        ) as device,
    ):
        device.wait_for("connection lost: no progress in sending for 10 s", 30)
        stop.set()
        assert int(device.wait_for("ticks").split()[1]) > 20
        device.wait_for("sent")
        device.finish()


def test_silent_servers_delay_only_their_connection(tmp_path):
    """Black hole, silent server, paused broker, nobody: a client each, in one program."""
    with (
        Broker(tmp_path / "broker") as broker,
        Proxy(broker.port) as hole,
        FakeBroker(lambda connection: connection.until_closed()) as silent,
        Broker(tmp_path / "paused") as paused,
    ):
        hole.blackhole()
        paused.pause()
        ports = {"hole": hole.port, "silent": silent.port, "paused": paused.port}
        hole_text = r"not connected: .*no answer within 1 s \(TCP\)"
        mqtt_text = r"not connected: .*no answer within 1 s \(CONNECT\)"
        with apps.start(
            """
            async def main():
                soonest()
                clients = []
                for port in sys.argv[1:]:
                    client = MQTTClient(
                        "127.0.0.1", int(port), client_id="c" + port, connect_timeout_s=1
                    )
                    clients.append(await client.__aenter__())
                async with Ticker() as ticker:
                    for client in clients:
                        await until(lambda: client.error)
                    print("failed, ticks", ticker.ticks)
                    assert ticker.ticks > 10
                    await told("on")
                    for client in clients[:1] + clients[2:]:
                        await client.wait_connected()
                    print("connected", open_files())
                for client in clients:
                    await client.disconnect()
            """,
            *ports.values(),
        ) as app:
            app.wait_for("failed, ticks")
            hole.heal()
            paused.resume()
            app.send("on")
            app.wait_for("^connected")
            app.wait()
        for name, text in (("hole", hole_text), ("silent", mqtt_text), ("paused", mqtt_text)):
            assert re.search(f":{ports[name]}: {text}", "\n".join(app.lines)), app.report()


def test_a_broker_that_stops_answering_is_noticed_and_found_again(broker):
    with Device(broker, BUSY, keepalive_s=1) as device:
        device.wait_for("connected in")
        broker.pause()
        device.wait_for("connection lost: no answer to a ping for 1 s")
        ticks_went_on(device)
        broker.resume()
        device.wait_for("connected in")
        device.send("publish")
        device.wait_for("published")
        device.leave()


# Words that no broker says


MALFORMED = {
    "a reserved type": b"\x00\x00",
    "a packet for servers": b"\x82\x05\x00\x01\x00\x00\x00",
    "flags of PUBACK": b"\x41\x02\x00\x01",
    "QoS 3": b"\x36\x05\x00\x01t\x00\x01",
    "DUP with QoS 0": b"\x38\x03\x00\x01t",
    "packet id 0": b"\x32\x05\x00\x01t\x00\x00",
    "PUBACK with packet id 0": b"\x40\x02\x00\x00",
    "an empty topic": b"\x30\x02\x00\x00",
    "a topic with a wildcard": b"\x30\x05\x00\x03t/+",
    "a topic with NUL": b"\x30\x05\x00\x03t/\x00",
    "a topic that is not UTF-8": b"\x30\x04\x00\x02\xc3\x28",
    "a surrogate": b"\x30\x05\x00\x03\xed\xa0\x80",
    "a topic beyond its packet": b"\x30\x03\x00\x09t",
    "a packet id beyond its packet": b"\x32\x03\x00\x01t",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a length longer than needed": b"\x30\x83\x00\x00\x01t",
    "PINGRESP with a body": b"\xd0\x01\x00",
    "an empty SUBACK": b"\x90\x02\x00\x01",
    "a second CONNACK": CONNACK,
}
BAD_ANSWERS = {
    "no CONNACK": b"\x30\x03\x00\x01t",
    "CONNACK flags": b"\x20\x02\x02\x00",
    "CONNACK refused with a session": b"\x20\x02\x01\x05",
    "CONNACK too long": b"\x20\x03\x00\x00\x00",
}


def test_malformed_packets_end_in_a_protocol_error_and_a_reconnect():
    """
    MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-2.2.2-2], [MQTT-2.3.1-1], [MQTT-3.3.1-2],
    [MQTT-3.3.1-4], [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.8.0-1]
    """

    def play(connection, text):
        if connection.number == 1:
            connection.packet()
            connection.send(text)
            connection.until_closed()
        else:
            connection.accept()
            connection.until_closed()

    cases = {name: CONNACK + text for name, text in MALFORMED.items()}
    cases.update(BAD_ANSWERS)
    fakes = {
        name: FakeBroker(lambda connection, text=text: play(connection, text))
        for name, text in cases.items()
    }
    try:
        out = apps.check(
            """
            async def main():
                soonest()
                async def play(port):
                    client = MQTTClient("127.0.0.1", int(port), client_id="c")
                    async with client:
                        events = client.events()
                        await until(lambda: client.error)
                        await client.wait_connected()
                        print(port, type(client.error).__name__, client.error)
                await asyncio.gather(*[play(port) for port in sys.argv[1:]])
            """,
            *[fake.port for fake in fakes.values()],
        )
    finally:
        for fake in fakes.values():
            fake.close()
    for name, fake in fakes.items():
        assert re.search(f"^{fake.port} ProtocolError ", out, re.M), (name, out)
        lost = "not connected" if name in BAD_ANSWERS else "connection lost"
        assert f":{fake.port}: {lost}: " in out, name
        assert len(fake.connections) == 2, name


def test_answers_to_nothing_are_counted_and_otherwise_ignored():
    """MQTT 3.1.1: [MQTT-4.3.3-2]"""

    def script(connection):
        connection.accept()
        connection.send(b"\x40\x02\x00\x07")  # PUBACK
        connection.send(b"\x90\x03\x00\x07\x00")  # SUBACK
        connection.send(b"\xb0\x02\x00\x07")  # UNSUBACK
        connection.send(b"\xd0\x00")  # PINGRESP
        connection.send(b"\x70\x02\x00\x07")  # PUBCOMP
        connection.send(b"\x50\x02\x00\x07")  # PUBREC
        assert connection.packet() == (0x62, b"\x00\x07")  # PUBREL
        connection.send(b"\x62\x02\x00\x08")  # PUBREL
        assert connection.packet() == (0x70, b"\x00\x08")  # PUBCOMP
        first, body = connection.packet()
        assert (first, body[:3]) == (0x32, b"\x00\x01t")
        connection.send(b"\x40\x02" + body[3:5])
        connection.send(b"\x40\x02" + body[3:5])  # once more
        connection.until_closed()

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            """
            async with client:
                await client.wait_connected()
                await until(lambda: client.stats.bytes_out >= 8)
                await client.publish("t", "x", qos=1)
                print("published")
            """,
        )
        assert "published" in out
        assert len(fake.connections) == 1


def test_a_session_that_a_clean_start_cannot_have_is_not_believed():
    def script(connection):
        assert connection.accept(RESUMED if connection.number == 1 else CONNACK)[7] & 2
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
        """,
        clean_start=True,
    )
    assert "session present after a clean start [MQTT-3.2.2-1]" in out
    assert "session new" in out


# Refused


def test_connect_raises_why_it_cannot_and_works_once_that_is_put_right(tmp_path):
    with Broker(tmp_path, users={"ann": "secret"}) as broker:
        out = apps.check(
            """
            async def main():
                soonest()
                client = make(user="ann", password="wrong")
                for _ in range(2):  # the second time it asks the broker again
                    with raises(RefusedError, "5") as caught:
                        await client.connect(timeout_s=20)
                    assert caught.error.code == 5
                    assert not client.running
                right = make(user="ann", password="secret")
                await right.connect()
                assert right.connected
                await right.connect()  # once more does no harm
                await right.publish("t", "x", qos=1)
                await right.disconnect()
                assert not right.connected and not right.running
            """,
            broker.port,
        )
        assert out.count("connected in") == 1
        assert "wrong user or password" in out or "not authorised" in out
        assert broker.log().count("disconnected, not authorised") == 6


def test_connect_raises_the_last_error_when_nobody_answers():
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))
        apps.check(
            """
            async def main():
                client = make(log=None)
                with raises(ConnectError, "port") as caught:
                    await client.connect(timeout_s=0.3)
                assert caught.error.code == 111 or caught.error.code == 61
                assert not client.running
                # stopped by another task meanwhile
                task = asyncio.create_task(client.connect(timeout_s=20))
                await asyncio.sleep_ms(50)
                await client.disconnect()
                with raises(MQTTError):
                    await asyncio.wait_for(task, 5)
                assert not client.running
                async with client:
                    with raises(asyncio.TimeoutError):
                        await client.wait_connected(0.1)
            """,
            nobody.getsockname()[1],
        )


def test_what_does_not_heal_by_itself_is_tried_rarely(tmp_path):
    with (
        Broker(tmp_path, users={"ann": "secret"}) as broker,
        Device(broker, user="ann", password="wrong") as device,
    ):
        device.wait_for("code 5.*next try in 1.0 s")
        device.wait_for("code 5.*ever more rarely.*next try in 4.0 s")
        device.leave()
        assert broker.log().count("disconnected, not authorised") == 3


def test_the_pause_after_refusals_grows_to_ten_minutes_with_jitter_and_any_change_ends_that():
    out = apps.check(
        """
        from tests.device.inside import advance
        from tests.device.links import Cable

        def pauses(*errors):
            return [retry.failed(client, each, None) for each in errors]

        async def main():
            global client
            no = RefusedError("no", 5)
            link = Cable([("192.168.1.1", 53)])
            client = make(log=None, link=link)
            for retry.random, ahead in ((Latest, 4000), (Soonest, 8000)):
                async with client:
                    print(pauses(*10 * [no]))
                    print(pauses(OSError(104), no))  # another failure
                    pauses(no, no)
                    link.servers = [("10.0.0.1", ahead)]  # another network
                    print(pauses(no))
                    pauses(no, no)
                    advance(ahead)  # the clock was set
                    print(pauses(no))
                    pauses(*9 * [RefusedError("the server is busy", 3)])  # it passes
                    print(pauses(no))
        """,
        1883,
    )
    lines = [eval(line) for line in out.splitlines()]
    latest, soonest = lines[:5], lines[5:]
    grown = [3000, 6000, 12000, 24000, 48000, 96000, 192000, 384000, 600000, 600000]
    assert [round(each, -1) for each in latest[0]] == grown
    assert [3 * each for each in soonest[0]] == grown
    for found in latest[1:4]:
        # no less than after failures of another kind
        assert grown[0] <= found[-1] + 10 <= 60070, latest
    assert [found[-1] for found in soonest[1:]] == 4 * [1000]


CHANGES = {
    "network": "link.servers = [('10.0.0.1', 53)]",
    "link": "link.is_up = lambda: False",
    "clock": "advance(4000)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_while_it_waits_after_refusals_ends_the_pause(change):
    def script(connection):
        connection.accept(CONNACK if connection.number > 1 else b"\x20\x02\x00\x05")
        connection.until_closed()

    with FakeBroker(script) as fake:
        Device.check(
            fake,
            f"""
            from tests.device.links import Cable

            link = client.link = Cable([("192.168.1.1", 53)])
            async with client:
                refused_before(client, 8)
                events = client.events()
                await next_event(events, "Disconnected")
                await asyncio.sleep_ms(0)
                {CHANGES[change]}
                await client.wait_connected()
            """,
            back_off="latest",
        )


def test_the_back_off_grows_to_a_minute_with_full_jitter():
    out = apps.check(
        """
        async def main():
            client = make(log=None)
            for retry.random in (Latest, Soonest):
                async with client:
                    print([retry.failed(client, ConnectError("x"), None) for _ in range(10)])
        """,
        1883,
    )
    latest, soonest = (eval(line) for line in out.splitlines())
    expected = [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000]
    assert [round(each - 50, -1) for each in latest] == expected
    assert soonest == 10 * [50]


def test_a_connection_that_lasted_for_a_week_was_a_good_one(on_pico):
    """There ticks go round in 12 days: after half of that they look like the future."""
    out = apps.check(
        """
        async def main():
            client = make(log=None)
            retry.random = Latest
            async with client:
                for seconds in (1, 6, 86400, 7 * 86400, 12 * 86400):
                    for _ in range(9):
                        retry.failed(client, ConnectError("x"), None)
                    client.stats.connects += 1
                    at = time.ticks_ms() - seconds * 1000 & 0x3FFFFFFF
                    client.connection.up_ms = at
                    print(retry.failed(client, ConnectError("broken off"), None))
                    client.connection.up_ms = None
        """,
        1883,
    )
    assert [round(int(each), -2) for each in out.split()] == [60000, 500, 500, 500, 500]


def test_whatever_an_attempt_raises_is_told_and_tried_again(broker):
    """Even where there is no memory for the words, or the words fail themselves."""
    out = Device.check(
        broker,
        """
        from tests.device.links import Modem

        errors = [ValueError("one"), MemoryError("two"), KeyError("three")]
        errors += [LinkError("four", 7), OSError(5)]
        errors += [ZeroDivisionError("five"), NameError("six")]
        def failed(retry, error, old):
            if isinstance(error, (ZeroDivisionError, NameError)):
                raise MemoryError
            return real(retry, error, old)

        real = watch_failures(failed)
        real_sleep = asyncio.sleep_ms
        asyncio.sleep_ms = lambda ms: real_sleep(min(ms, 100))
        client = make(link=Modem(errors))
        async with client:
            await client.wait_connected()
            await client.publish("t", "x", qos=1)
            print("published")
        """,
    )
    for text in ("one", "no memory", "three", "four", "5", "five", "six", "published"):
        assert text in out


def test_a_log_that_fails_ends_nothing(broker):
    Device.check(
        broker,
        """
        def log(line):
            raise OSError("the SD card is full")

        client = make(log=log)
        async with client:
            await client.publish("t", "x", qos=1)
        """,
    )


# A message that kills the connection


def test_a_message_that_breaks_connections_is_suspected_and_given_up(proxy, broker):
    peer = broker.peer("t/#")
    proxy.kill_on("PUBLISH", "up", times=3)
    with Device(
        proxy,
        """
        async def events():
            async for event in client.events():
                if type(event).__name__ == "Suspect":
                    print("Suspect", event.topic)

        async with client:
            task = asyncio.create_task(events())
            await client.subscribe("t/#", 1)
            try:
                await client.publish("t/poison", "x", qos=1)
            except MQTTError as e:
                print("given up:", e)
            await client.publish("t/good", "y", qos=1)
            print("the next one went")
        """,
        give_up_after=3,
    ) as device:
        device.wait_for("connections break right after a message to 't/poison' was sent")
        device.wait_for("given up: .*3 connections ended on it")
        device.wait_for("the next one went")
        out = device.finish()
    assert "Suspect t/poison" in out
    peer.wait_for(1)
    assert peer.received == [("t/good", b"y")]
    clean = [bool(each.body[7] & 2) for each in proxy.seen("CONNECT")]
    # the last begins a session that outlives its connection
    assert clean == [False, False, False, True, False]


def test_give_up_after_one(proxy):
    proxy.kill_on("PUBLISH", "up", times=1)
    out = Device.check(
        proxy,
        """
        async with client:
            with raises(MQTTError, "given up"):
                await client.publish("t/poison", "x", qos=1)
            await client.publish("t/good", "x", qos=1)
            print("went")
        """,
        give_up_after=1,
    )
    assert "went" in out
    assert [each.body[7] & 2 for each in proxy.seen("CONNECT")] == [0, 2, 0]


# Events


def test_an_iterator_of_events_that_is_slow_gets_the_last_ones(proxy):
    with Device(
        proxy,
        """
        async with client:
            events = client.events()
            await until(lambda: client.stats.connects == 12)
            got = []
            async for event in events:
                got.append(type(event).__name__)
                if len(got) == 16:
                    break
            print("got", got)
            with raises(asyncio.TimeoutError):
                await asyncio.wait_for(events.__anext__(), 0.02)
        """,
    ) as device:
        for _ in range(11):
            device.wait_for("connected in")
            proxy.rst()
        got = eval(device.wait_for("^got")[4:])
        device.finish()
    assert got == 8 * ["Disconnected", "Connected"]


# The link


def test_the_link_is_brought_up_first_and_reset_only_when_nobody_answers(proxy, broker):
    """After five failures of the broker, once, and not while another client is connected."""
    with Device(
        proxy,
        """
        from tests.device.links import Modem

        link = Modem()
        other = MQTTClient("127.0.0.1", PORT, client_id="other", link=link)
        client = make(link=link, connect_timeout_s=1)
        async with other:
            async with client:
                await client.wait_connected()
                assert link.ups == 1
                await told("broken")
                await until(lambda: unanswered(client) > 5)
                assert not link.resets
                print("other was connected")
                await other.disconnect()
                await until(lambda: link.resets == 1)
                await client.wait_connected()
                print("connected again", link.ups)
                assert unanswered(client) == 0
        """,
        names={"PORT": broker.port},
    ) as device:
        device.wait_for("connected in")
        device.wait_for("connected in")
        proxy.blackhole()
        proxy.rst()
        device.send("broken")
        device.wait_for("other was connected")
        device.wait_for("the link looks up but no broker answers: resetting it")
        device.wait_for("link reset")
        proxy.heal()
        device.wait_for("connected again 1")
        device.finish()


# Starting and stopping


def test_a_client_that_was_stopped_can_be_started_again(proxy, broker):
    with Device(
        proxy,
        """
        client.on("in", qos=1)(got)

        files = None
        for i in range(4):
            async with client:
                messages = client.messages()
                await client.subscribe("other")
                await client.publish("out", str(i), qos=1)
                await told("next")
                assert files in (None, open_files())
                files = open_files()
            print("stopped", client.connected, client.running)
        client.connect
        await client.connect()
        await client.disconnect()
        """,
        drain_s=0.2,
    ) as device:
        for i in range(4):
            proxy.wait_for("PUBACK", "down", i + 1)
            broker.publish("in", str(i))
            device.wait_for(f"got {i} 1")
            device.send("next")
            device.wait_for("stopped False False")
        device.finish()
    assert device.said("got") == [f"{i} 1" for i in range(4)]


@pytest.mark.parametrize("place", ["handler", "on_connect", "iterator", "log"])
def test_disconnect_may_be_called_from_anywhere(proxy, place):
    Device.check(
        proxy,
        """
        place = PLACE

        def log(line):
            print(line)
            if place == "log" and "connected in" in line:
                tasks.append(asyncio.create_task(client.disconnect()))

        tasks = []
        client = make(log=log)
        stopped = asyncio.Event()

        @client.on("t/handler", qos=1)
        async def handler(message):
            if place == "handler":
                await client.disconnect()
                await asyncio.sleep_ms(1)  # it is not cancelled by that
                stopped.set()

        @client.on_connect
        async def connected():
            if place == "on_connect":
                await client.disconnect()
                await asyncio.sleep_ms(1)
                stopped.set()

        async with client:
            if place == "handler":
                client.enqueue("t/handler", "x", qos=1)
            elif place == "iterator":
                messages = client.messages()
                await client.subscribe("t/other", 1)
                client.enqueue("t/other", "x", qos=1)
                async for message in messages:
                    await client.disconnect()
                stopped.set()
            elif place == "log":
                await until(lambda: tasks and tasks[0].done())
                stopped.set()
            await stopped.wait()
            assert not client.running and not client.connected
        place = ""
        await client.connect()
        await client.disconnect()
        """,
        names={"PLACE": place},
    )
    assert [each.name for each in proxy.seen(direction="up")].count("DISCONNECT") == 2


def test_an_exception_in_the_app_still_says_goodbye_and_comes_out(proxy, broker):
    peer = broker.peer("t")
    out = Device.check(
        proxy,
        """
        client = make(will=Will("t", "gone"))
        with raises(KeyError, "in the app"):
            async with client:
                await client.publish("t", "here", qos=1)
                raise KeyError("in the app")
        print("out")
        """,
    )
    assert out.endswith("out\n")
    peer.wait_for(2)
    assert peer.received == [("t", b"here"), ("t", b"gone")]
    assert proxy.seen("DISCONNECT", "up")


@pytest.mark.parametrize("how", ["cancel", "wait_for"])
def test_leaving_that_is_cancelled_still_says_goodbye_and_leaves_no_task(proxy, broker, how):
    peer = broker.peer("t")
    Device.check(
        proxy,
        """
        client = make(will=Will("t", "gone"), drain_s=60)
        began = []

        @client.on("hangs", qos=1)
        async def hangs(message):
            began.append(1)
            await asyncio.sleep(60)

        async def run():
            async with client:
                await client.publish("hangs", "x", qos=1)
                await until(lambda: began)

        if HOW == "cancel":
            task = asyncio.create_task(run())
            await until(lambda: began and not client.running)
            task.cancel()
            with raises(asyncio.CancelledError):
                await task
        else:
            await client.connect()
            await client.publish("hangs", "x", qos=1)
            await until(lambda: began)
            with raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.disconnect(), 0.1)
        assert not client.clients and not client.connected
        await asyncio.sleep_ms(0)
        assert not asyncio.core._task_queue.peek()
        """,
        names={"HOW": how},
    )
    proxy.wait_for("DISCONNECT", "up")
    peer.publish("t", "end")
    peer.wait_for(2)
    assert peer.received == [("t", b"gone"), ("t", b"end")]


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("how", ["publish", "publish with time-out", "enqueue", "task"])
def test_handlers_publish_while_the_client_leaves_and_their_messages_are_acknowledged(
    proxy, broker, how, protocol
):
    """MQTT 3.1.1: [MQTT-3.14.4-2]"""
    peer = broker.peer("lamp/state", protocol=protocol)
    with Device(
        proxy,
        """
        @client.on("lamp/set", qos=1)
        async def lamp(message):
            print("begins", message.payload)
            await until(lambda: not client.running)
            send = lambda **more: client.publish("lamp/state", message.payload, qos=1, **more)
            if HOW == "publish":
                assert await send() == 0
            elif HOW == "publish with time-out":
                assert await send(timeout_s=5) == 0
            elif HOW == "enqueue":
                assert client.enqueue("lamp/state", message.payload, qos=1)
            else:
                asyncio.create_task(send())

        async with client:
            await told("leave")
        with raises(RuntimeError, "not running"):
            client.publish("lamp/state", "late")
        """,
        names={"HOW": how},
        protocol=protocol,
    ) as device:
        device.subscribed()
        broker.publish("lamp/set", *"123")
        device.wait_for("begins b'1'")
        proxy.wait_for("PUBLISH", "down", 3)
        device.leave()
    assert "failed" not in device.report()
    peer.wait_for(3)
    assert [payload for _, payload in peer.received] == [b"1", b"2", b"3"]
    assert len(proxy.seen("PUBACK", "up")) == 3
    assert [each.name for each in proxy.seen(direction="up")][-1] == "DISCONNECT"


@pytest.mark.parametrize("qos", [1, 2])
def test_what_a_handler_cannot_finish_while_the_client_leaves_comes_again(proxy, broker, qos):
    program = """
        @client.on("t", qos=2)
        async def handler(message):
            got(message)
            if message.payload == b"slow" and not message.dup:
                await asyncio.sleep(60)

        async with client:
            await told("leave")
    """
    with Device(proxy, program, drain_s=0.2) as device:
        device.subscribed()
        broker.publish("t", "quick", "slow", "behind", qos=qos)
        device.wait_for(f"got slow {qos}")
        proxy.wait_for("PUBLISH", "down", 3)
        device.leave()
    assert device.said("got") == [f"quick {qos}", f"slow {qos}"]
    taken = "PUBACK" if qos == 1 else "PUBREC"
    assert len(proxy.seen(taken, "up")) == 1
    with Device(proxy, program) as device:
        device.wait_for(f"got behind {qos}")
        proxy.wait_for(taken, "up", 3)
        device.leave()
    assert device.said("got") == [f"slow {qos}", f"behind {qos}"]


def test_a_handler_that_never_returns_holds_up_leaving_for_drain_s_at_most(proxy, broker):
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handler(message):
            got(message)
            await asyncio.sleep(1000)

        async with client:
            await told("leave")
        print("left", client.connected)
        """,
        drain_s=0.1,
    ) as device:
        device.subscribed()
        broker.publish("t", "1")
        device.wait_for("got 1 1")
        device.leave()
    assert device.said("left") == ["False"]
    assert not proxy.seen("PUBACK", "up")


def test_what_comes_while_the_client_leaves_is_handled_or_stays_with_the_broker(proxy, broker):
    """Its own messages come back while it leaves: none of those acknowledged is lost."""
    peer = broker.peer("done")
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handler(message):
            await client.publish("done", message.payload, qos=1)

        async with client:
            await subscribed(client)
            for n in range(20):
                client.enqueue("t", str(n), qos=1)
        """,
    ) as device:
        device.finish()
    assert "failed" not in device.report()
    again = broker.peer(client_id="device", clean=False)  # the session of the device
    acknowledged = {
        each.payload
        for each in proxy.seen("PUBLISH", "down")
        if each.topic == "t" and each.qos
        if each.packet_id in [ack.packet_id for ack in proxy.seen("PUBACK", "up")]
    }
    again.wait_for(20 - len(acknowledged))
    assert {payload for _, payload in again.received} | acknowledged == {
        str(n).encode() for n in range(20)
    }
    peer.wait_for(len(acknowledged))
    assert acknowledged <= {payload for _, payload in peer.received}


def test_a_second_disconnect_returns_when_the_client_left(proxy, broker):
    """So the end of its `async with` does not end the program before the goodbye."""
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handler(message):
            got(message)
            await told("end")
            await client.publish("done", qos=1)

        async with client:
            await told("leave")
            task = asyncio.create_task(client.disconnect())
            await until(lambda: not client.running)
        print("left")
        """,
    ) as device:
        device.subscribed()
        broker.publish("t", "1")
        device.wait_for("got 1 1")
        device.send("leave")
        device.send("end")
        device.finish()
    assert [each.topic for each in proxy.seen("PUBLISH", "up")] == ["done"]
    assert [each.name for each in proxy.seen(direction="up")][-1] == "DISCONNECT"
    assert proxy.seen("PUBACK", "up")


def test_a_task_with_a_message_of_the_iterator_finishes_it_while_the_client_leaves(proxy, broker):
    with Device(
        proxy,
        """
        async def consume():
            async for message in client.messages():
                got(message)
                await until(lambda: not client.running)
                await asyncio.sleep_ms(30)
                await client.publish("done", message.payload, qos=1)
            print("the iterator ended")

        async with client:
            await client.subscribe("t", 1)
            task = asyncio.create_task(consume())
            await told("leave")
        await task
        """,
    ) as device:
        device.subscribed()
        broker.publish("t", "1", "2")
        device.wait_for("got 1 1")
        proxy.wait_for("PUBLISH", "down", 2)
        device.send("leave")
        device.wait_for("the iterator ended")
        device.finish()
    assert device.said("got") == ["1 1"]
    assert [each.payload for each in proxy.seen("PUBLISH", "up")] == [b"1"]
    first = proxy.seen("PUBLISH", "down")[0]
    assert [each.packet_id for each in proxy.seen("PUBACK", "up")] == [first.packet_id]


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "cancelled"])
def test_handlers_finish_what_they_have_however_the_async_with_is_left(proxy, broker, how):
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handler(message):
            got(message)
            await until(lambda: not client.running)
            await client.publish("done", message.payload, qos=1)

        async def app():
            async with client:
                await told("leave")
                if HOW == "KeyboardInterrupt":
                    raise KeyboardInterrupt
                await asyncio.sleep(60)

        task = asyncio.create_task(app())
        if HOW == "cancelled":
            await until(lambda: client.stats.received)
            await asyncio.sleep_ms(50)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        """,
        names={"HOW": how},
    ) as device:
        device.subscribed()
        broker.publish("t", "1")
        device.wait_for("got 1 1")
        device.send("leave")
        device.wait(20)
    assert [each.payload for each in proxy.seen("PUBLISH", "up")] == [b"1"]
    assert [each.name for each in proxy.seen(direction="up")][-1] == "DISCONNECT"
    assert proxy.seen("PUBACK", "up")


def test_what_was_not_handled_when_it_stopped_is_handled_after_the_next_start(proxy, broker):
    with Device(
        proxy,
        """
        client.on("in", qos=1)(hold)

        async with client:
            await until(lambda: client.stats.received == 2)
        print("stopped")
        async with client:
            await told("leave")
        """,
        drain_s=0.1,
    ) as device:
        proxy.wait_for("SUBACK")
        broker.publish("in", "1", "2")
        device.wait_for("stopped")
        for payload in "12":
            device.wait_for(f"got {payload} 1")
            device.send("end")
            device.wait_for(f"ends {payload}")
        proxy.wait_for("PUBACK", "up", 2)
        device.leave()


def test_what_was_in_flight_when_it_stopped_goes_again_after_the_next_start(proxy, broker):
    """MQTT 3.1.1: [MQTT-4.1.0-1], [MQTT-4.1.0-2], [MQTT-4.4.0-1]"""
    peer = broker.peer("t")
    proxy.swallow("PUBLISH", "up", times=1)
    Device.check(
        proxy,
        """
        async with client:
            client.enqueue("t", "x", qos=1)
            await client.wait_connected()
        async with client:
            await client.publish("t", "y", qos=1)
            assert client.stats.resent == 1
        """,
        drain_s=0.1,
    )
    peer.wait_for(2)
    assert peer.received == [("t", b"x"), ("t", b"y")]


def test_stopping_while_it_connects_and_starting_at_once_works(proxy):
    with Device(
        proxy,
        """
        files = open_files()
        for _ in range(3):
            await client.__aenter__()
            await asyncio.sleep_ms(50)
            await client.disconnect()
        print("stopped", open_files() - files)
        await client.__aenter__()
        await asyncio.sleep_ms(50)
        await told("on")
        await client.disconnect()
        await client.connect(timeout_s=20)
        await client.publish("t", "x", qos=1)
        await client.disconnect()
        assert open_files() - files <= 1  # stdin's poll
        """,
    ) as device:
        proxy.stall()
        device.wait_for("stopped 0")
        proxy.heal()
        device.send("on")
        device.finish()


def test_stopping_is_not_lost_when_it_comes_together_with_a_deadline(broker):
    apps.check(
        """
        from tests.device.inside import next_deadline, supervisor

        async def main():
            failed = []
            loop = asyncio.get_event_loop()
            loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
            tasks = []
            for turns in range(40):
                client = make(drain_s=0)
                await client.__aenter__()
                tasks.append(supervisor(client))
                await next_deadline(client, 0.02)  # s: a ping is due soon
                for _ in range(turns % 8):
                    await asyncio.sleep_ms(0)
                await client.disconnect()
            await asyncio.sleep_ms(100)
            print(sum(not task.done() for task in tasks), "go on", failed)
            assert not failed and all([task.done() for task in tasks])
        """,
        broker.port,
    )


@pytest.mark.parametrize("protocol", [4, 5])
def test_it_can_be_stopped_in_any_turn_of_the_loop(broker, protocol):
    apps.check(
        """
        from tests.device.watch import Tasks

        async def main():
            soonest()
            failed = []
            loop = asyncio.get_event_loop()
            loop.set_exception_handler(lambda _, context: failed.append(context["exception"]))
            made = Tasks()
            files = open_files()
            seen = set()
            for turns in range(60):
                client = make(drain_s=0, protocol=int(sys.argv[2]), clean_start=True, log=None)

                @client.on("t", qos=2)
                async def handler(message):
                    seen.add("handler")
                    await asyncio.sleep(60)

                @client.on_connect
                async def connected():
                    seen.add("on_connect")
                    client.enqueue("t", "x", qos=2)
                    await asyncio.sleep(60)

                await client.__aenter__()
                for _ in range(turns):
                    await asyncio.sleep_ms(0 if turns < 40 else 1)
                if turns == 59:
                    await until(lambda: len(seen) == 2)
                await client.disconnect()
                await until(lambda: not made.running())
                assert not failed and open_files() == files, (turns, failed)
        """,
        broker.port,
        protocol,
    )


def test_stopping_is_not_lost_though_a_name_server_answers_at_that_moment(broker):
    """asyncio.wait_for loses a cancellation that comes when its time is just over."""
    Device.check(
        broker,
        """
        from tests.device.inside import resolve_with

        async def resolve(host, servers):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return host

        resolve_with(resolve)
        files = open_files()
        await client.__aenter__()
        await asyncio.sleep_ms(0)
        task = supervisor(client)
        await client.disconnect()
        await until(task.done)
        assert is_bare(client)
        assert open_files() == files
        """,
    )


def test_a_second_client_with_the_default_id_raises_and_other_ids_do_not(broker):
    apps.check(
        """
        async def main():
            port = int(sys.argv[1])
            first = MQTTClient("127.0.0.1", port)
            second = MQTTClient("127.0.0.1", port)
            third = MQTTClient("127.0.0.1", port, client_id="third")
            assert first.client_id == second.client_id and len(first.client_id) > 8
            async with first:
                await first.publish("t", "x", qos=1)
                with raises(ValueError, "port %d: give it another client_id=" % port):
                    await second.__aenter__()
                assert not second.running
                with raises(RuntimeError, "the client is running"):
                    await first.__aenter__()
                twin = MQTTClient("127.0.0.1", port, client_id="third")
                async with third:
                    with raises(ValueError, "a second client with the id 'third'"):
                        await twin.__aenter__()
                    await third.publish("t", "y", qos=1)
                key = "-----BEGIN PRIVATE KEY-----\\nMIGHAgEAMBMG\\n" * 3  # by mistake
                twins = [MQTTClient("127.0.0.1", port, client_id=key) for _ in "12"]
                async with twins[0]:
                    with raises(ValueError, "the id a str of 123 on"):
                        await twins[1].__aenter__()
                assert first.connected and first.stats.connects == 1
            async with second:
                await second.publish("t", "z", qos=1)
        """,
        broker.port,
    )


# Ctrl-C and run again


def interrupt(app, proxy=None):
    """
    Press Ctrl-C while the app waits, as it mostly does: the unix port raises KeyboardInterrupt
    right out of the signal handler, and in the middle of C code that breaks the interpreter, about
    once in a thousand times. Boards do not.
    """
    if proxy:
        proxy.wait_for("PUBACK", "down", len(proxy.seen("PUBACK", "down")) + 2)
    time.sleep(0.01)
    app.interrupt()
    app.wait_for("interrupted")


RUN_AGAIN = """
client = make(client_id=None, drain_s=0.2)
runs = 0

@client.on("in", qos=1)
async def handler(message):
    print("begins", message.payload)
    await asyncio.sleep_ms(30)
    print("ends", message.payload)

async def watch(mine):
    async for event in client.events():
        print("event", mine, type(event).__name__)

async def main():
    global runs
    runs += 1
    mine = runs
    async with client:
        task = asyncio.create_task(watch(mine))
        await client.publish("out", "ready", qos=1)
        print("run", mine, "files", open_files())
        while True:
            try:
                await client.publish("out", "of run %d" % mine, qos=1)
            except MQTTError as e:
                print("error in run", mine, e)
            await asyncio.sleep_ms(20)

for _ in range(3):
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    asyncio.new_event_loop()
"""


def test_ctrl_c_and_run_again_with_a_new_event_loop(proxy, broker):
    with apps.start(RUN_AGAIN, proxy.port) as app:
        files = app.wait_for("run 1 files").split()[-1]
        for run in (2, 3):
            # a publish of the old run waits; none of the new one may
            proxy.swallow("PUBACK", "down", times=1)
            while proxy.swallowed[-1].times:
                time.sleep(0.01)
            interrupt(app)
            assert app.wait_for(f"run {run} files").split()[-1] == files
            proxy.wait_for_connections(run)
            peer = broker.peer()
            for payload in "abc":
                peer.publish("in", payload)
            app.wait_for("ends b'c'")
        proxy.wait_for("PUBLISH", "up", len(proxy.seen("PUBLISH", "up")) + 5)
        interrupt(app, proxy)
        result = app.wait()
    assert result.code == 0, result
    one_by_one = [f"{what} b'{payload}'" for payload in "abc" for what in ("begins", "ends")]
    assert [line for line in app.lines if "b'" in line] == 2 * one_by_one
    # tasks of the old runs are gone
    assert "error in run" not in result.out
    runs = result.out.split("interrupted\n")
    for run, out in enumerate(runs[:3], 1):
        assert set(re.findall(r"^event (\d)", out, re.M)) == {str(run)}, out
    last = proxy.seen("CONNECT")[-1].connection
    assert {each.payload for each in proxy.seen("PUBLISH", "up", last) if not each.dup} == {
        b"ready",
        b"of run 3",
    }
    deadline = time.monotonic() + patience.stretched(10)
    while proxy.open and time.monotonic() < deadline:
        time.sleep(0.01)  # the proxy hears of it a moment later
    assert proxy.open == 0


AGAIN = """
client = make(client_id=identity, drain_s=0.2)

async def main():
    async with client:
        await client.publish("out", "ready", qos=1)
        print("run", run, "files", open_files())
        while True:
            await client.publish("out", "of run %d" % run, qos=1)
            await asyncio.sleep_ms(20)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("identity", [None, "sensor"])
def test_ctrl_c_and_run_the_program_again_in_the_same_interpreter(proxy, tmp_path, identity):
    """As Thonny does: the whole program once more, nobody calls new_event_loop()."""
    program = tmp_path / "program.py"
    program.write_text(AGAIN)
    with apps.start(
        """
        program = open(sys.argv[2]).read()  # it calls asyncio.run(main())
        for run in (1, 2, 3):
            exec(program, dict(globals(), run=run, identity=eval(sys.argv[3])))
        """,
        proxy.port,
        program,
        repr(identity),
    ) as app:
        files = app.wait_for("run 1 files").split()[-1]
        for run in (2, 3):
            interrupt(app, proxy)
            assert app.wait_for(f"run {run} files").split()[-1] == files
        count = len(proxy.seen("PUBLISH", "up"))
        proxy.wait_for("PUBLISH", "up", count + 5)
        interrupt(app, proxy)
        result = app.wait()
    assert result.code == 0, result
    assert proxy.connections == 3
    assert {each.payload for each in proxy.seen("PUBLISH", "up", 3) if not each.dup} == {
        b"ready",
        b"of run 3",
    }


def test_the_same_client_without_a_new_event_loop_is_told_what_to_do(broker):
    with apps.start(
        """
        client = make(drain_s=0.2)

        async def main():
            async with client:
                print("running")
                await client.wait_connected()
                while True:
                    await asyncio.sleep(1)

        for _ in range(2):
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            except RuntimeError as e:
                print(e)
        """,
        broker.port,
    ) as app:
        app.wait_for("connected in")
        interrupt(app)
        app.wait_for("the client is running; after Ctrl-C call asyncio.new_event_loop()")
        app.wait()


def test_a_client_made_in_main_without_a_new_event_loop_is_told_what_to_do(broker):
    with apps.start(
        """
        async def main():
            async with make(drain_s=0.2) as client:
                await client.wait_connected()
                print("connected")
                while True:
                    await asyncio.sleep(1)

        for _ in range(3):
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            except ValueError as e:
                print(e)
                asyncio.new_event_loop()
        """,
        broker.port,
    ) as app:
        app.wait_for("^connected")
        interrupt(app)
        app.wait_for("a second client with .*; after Ctrl-C call asyncio.new_event_loop()")
        app.wait_for("^connected")  # that helped
        interrupt(app)
        app.wait()


def test_a_link_whose_task_was_cancelled_does_not_end_the_supervisor(broker):
    out = Device.check(
        broker,
        """
        from tests.device.links import Modem

        client = make(link=Modem([asyncio.CancelledError()]))
        async with client:
            await client.wait_connected(20)
        """,
    )
    assert "not connected: CancelledError" in out
    assert "connected in" in out
