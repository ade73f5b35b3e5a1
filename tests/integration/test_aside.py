"""Messages at which a broker hangs up, or that it never acknowledges: others get through."""

import pytest

from tests.support import five
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, FakeBroker

BOTH = pytest.mark.parametrize("protocol", [4, 5])


class Picky:
    """
    A broker that ends the connection when a message to a topic of `bad` comes.

    bad        {topic str: number of the connection from which on it takes them}
    protocol   int
    silent     bool: it does not end the connection, but takes no notice of them
    forgets    int, number of the connection at which it has no session any more; 0: it keeps it
    says       int, reason code of the DISCONNECT that it sends before (MQTT 5)
    deaf       bool: it acknowledges nothing that came within 50 ms before the end
    takes_one  int, number of a connection on which it takes one message, and no notice of others

    came  list of (number of the connection, topic str, packet id int, dup bool, payload bytes)
    """

    def __init__(
        self, protocol=4, silent=False, forgets=0, deaf=False, says=0, takes_one=0, **bad
    ):
        self._bad = bad
        self._protocol = protocol
        self._silent = silent
        self._forgets = forgets
        self._deaf = deaf
        self._says = says
        self._takes_one = takes_one
        self.came = []

    def __call__(self, connection):
        n = connection.number
        present = n not in (1, self._forgets)
        old = RESUMED if present else CONNACK
        connection.accept(five.connack(present=present) if self._protocol == 5 else old)
        answers = b""
        while True:
            if answers and self._deaf:
                connection.sock.settimeout(0.05)
            try:
                first, body = connection.packet()
            except TimeoutError:
                connection.send(answers)
                answers = b""
                connection.sock.settimeout(None)
                continue
            if first >> 4 == 3:
                bad = self._publish(connection, first, body)
                if bad and self._says:
                    connection.send(five.disconnect(self._says))
                if bad and not self._silent:
                    return
                if first & 6 and not bad:
                    end = 2 + body[1]
                    answers += bytes([0x40 if first & 2 else 0x50, 2]) + body[end : end + 2]
            elif first == 0x62:
                answers += b"\x70\2" + body[:2]
            elif first >> 4 == 8:
                answers += b"\x90" + (b"\3" if self._protocol == 4 else b"\4") + body[:2]
                answers += (b"" if self._protocol == 4 else b"\0") + b"\1"
            if not self._deaf:
                connection.send(answers)
                answers = b""

    def _publish(self, connection, first, body):
        end = 2 + body[1]
        topic = body[2:end].decode()
        packet_id = int.from_bytes(body[end : end + 2], "big") if first & 6 else 0
        start = end + 2 * bool(first & 6) + (self._protocol == 5)
        self.came.append((connection.number, topic, packet_id, bool(first & 8), body[start:]))
        n = connection.number
        beyond = n == self._takes_one and [each[0] for each in self.came].count(n) > 1
        return beyond or n < self._bad.get(topic, 0)

    def to(self, topic):
        """Return what came to `topic` (str)."""
        return [each for each in self.came if each[1] == topic]


@BOTH
def test_others_get_through_past_a_message_at_which_the_broker_hangs_up(protocol):
    """Nothing is given up by default, and what waits behind it arrives in order."""
    picky = Picky(protocol, bad=6)
    out = Device.against(
        picky,
        """
        set_aside(0.4)
        async with client:
            bad = [asyncio.create_task(client.publish("bad", str(n), qos=1)) for n in range(3)]
            await asyncio.gather(*[client.publish("t/%d" % n, "x", qos=1) for n in range(9)])
            print("others")
            assert kept_back(client) + in_flight(client) == 3
            await asyncio.gather(*bad)
            await client.publish("last", "x", qos=1)
            await client.publish("bad", "y", qos=1)
            assert left_over(client) == []
        """,
        protocol=protocol,
    )
    assert "connections break right after a message to 'bad' was sent: others go first" in out
    assert out.index("others\n") < out.index("a message to 'bad' that was kept back is through")
    bad = picky.to("bad")
    assert [each[0] for each in bad] == [1, 2, 3, 4, 5, 6, 6, 6, 6]
    assert [each[-1] for each in bad if each[0] == 6] == [b"0", b"1", b"2", b"y"]
    again = [each for each in bad if each[-1] == b"0"][1:]
    assert {each[2] for each in again} == {bad[0][2]}, "with its packet id"
    assert all(each[3] for each in again), "and DUP"
    for n in (4, 5):
        assert [each[1] for each in picky.came if each[0] == n][-1] == "bad"


@BOTH
def test_others_get_through_past_a_message_that_is_never_acknowledged(protocol):
    picky = Picky(protocol, silent=True, bad=5)
    out = Device.against(
        picky,
        """
        set_aside(0.4)
        async with client:
            bad = asyncio.create_task(client.publish("bad", "x", qos=2))
            await asyncio.gather(*[client.publish("t/%d" % n, "x", qos=1) for n in range(9)])
            print("others")
            await bad
            assert left_over(client) == []
        """,
        protocol=protocol,
        ack_timeout_s=1,
    )
    assert "the broker does not acknowledge a message to 'bad': others go first" in out
    assert [each[0] for each in picky.to("bad")] == [1, 2, 3, 4, 5]


def test_what_went_before_it_is_not_accused_though_its_acknowledgements_were_lost():
    """A broker that closes with something to read sends a reset, which overtakes what it sent."""
    picky = Picky(deaf=True, bad=10_000)
    out = Device.against(
        picky,
        """
        async def suspects():
            async for event in client.events():
                if type(event).__name__ == "Suspect":
                    print("suspect", event.topic)

        set_aside(30)
        async with client:
            task = asyncio.create_task(suspects())
            names = ["t/1", "t/2", "t/3", "bad", "t/5", "t/6"]
            tasks = [asyncio.create_task(client.publish(t, "x", qos=1)) for t in names]
            await asyncio.gather(*[task for t, task in zip(names, tasks) if t != "bad"])
            await client.publish("after", "x", qos=1)
            assert kept_back(client) == 1
        """,
        drain_s=0,
    )
    assert [line for line in out.splitlines() if line.startswith("suspect")] == ["suspect bad"]


def test_one_that_stays_bad_does_not_keep_back_another_that_can_go():
    Device.against(
        Picky(bad=10, worse=10_000),
        """
        set_aside(0.3)
        async with client:
            worse = asyncio.create_task(client.publish("worse", "x", qos=1))
            bad = asyncio.create_task(client.publish("bad", "x", qos=1))
            await asyncio.gather(*[client.publish("t/%d" % n, "x", qos=1) for n in range(9)])
            await bad
            assert kept_back(client) + in_flight(client) == 1
        with raises(MQTTError, "stopped before"):
            await worse
        """,
        drain_s=0,
    )


def test_a_new_session_gets_it_as_a_new_message():
    picky = Picky(bad=5, forgets=4)
    Device.against(
        picky,
        """
        set_aside(0.4)
        async with client:
            await client.publish("bad", "x", qos=1)
            await client.publish("t", "x", qos=1)
            assert left_over(client) == []
        """,
    )
    bad = picky.to("bad")
    assert [each[0] for each in bad] == [1, 2, 3, 4, 5]
    assert [each[3] for each in bad] == [False, True, True, False, True]


def test_with_qos_2_a_new_session_ends_it_as_nobody_knows_whether_it_arrived():
    Device.against(
        Picky(bad=10_000, forgets=4),
        """
        set_aside(30)
        async with client:
            with raises(DeliveryUnknown):
                await client.publish("bad", "x", qos=2)
            await client.publish("t", "x", qos=1)
            assert left_over(client) == []
        """,
    )


def test_one_that_waits_to_be_tried_is_not_sent_where_nobody_knows_whether_it_arrived():
    """What is under way goes first, and that is not acknowledged before the session is lost."""
    picky = Picky(silent=True, forgets=5, bad=10_000, slow=5)
    Device.against(
        picky,
        """
        set_aside(0.2)
        async with client:
            bad = asyncio.create_task(client.publish("bad", "x", qos=2))
            await until(lambda: kept_back(client))
            slow = asyncio.create_task(client.publish("slow", "x", qos=1))
            with raises(DeliveryUnknown):
                await bad
            await slow
            await client.publish("t", "x", qos=1)
            assert left_over(client) == []
        """,
        ack_timeout_s=1,
    )
    assert [each[0] for each in picky.to("slow")] == [4, 5]
    assert [each[0] for each in picky.to("bad")] == [1, 2, 3]


@pytest.mark.parametrize("qos", [1, 2])
def test_what_waited_behind_one_that_is_through_is_the_sessions_until_it_is_sent(qos):
    """It has its packet id, and the session is lost while there is no room to send it again."""
    picky = Picky(silent=True, forgets=5, takes_one=4, bad=4)
    Device.against(
        picky,
        f"""
        set_aside(0.2)
        async with client:
            bad = [asyncio.create_task(client.publish("bad", str(n), qos={qos})) for n in range(3)]
            await until(lambda: in_flight(client) == 3)
            client.max_inflight = 1
            await bad[0]
            for task in bad[1:]:
                if {qos} == 2:
                    with raises(DeliveryUnknown):
                        await task
                else:
                    await task
            await client.publish("t", "x", qos=1)
            assert left_over(client) == []
        """,
        ack_timeout_s=1,
    )
    last = [(each[0], each[3], each[-1]) for each in picky.to("bad") if each[0] >= 4]
    assert last[:2] == [(4, True, b"0"), (4, True, b"1")]
    assert last[2:] == ([(5, False, b"1"), (5, False, b"2")] if qos == 1 else [])


def test_what_was_sent_and_waits_behind_one_that_is_through_goes_though_nobody_waits(tmp_path):
    """Also as a message of a new session: it is in the store."""
    picky = Picky(silent=True, forgets=4, takes_one=4, bad=4)
    Device.against(
        picky,
        """
        set_aside(0.2)
        async with client:
            bad = [asyncio.create_task(client.publish("bad", str(n), qos=1)) for n in range(3)]
            await until(lambda: in_flight(client) == 3)
            client.max_inflight = 1
            await bad[0]
            await until(lambda: not kept_back(client))
            bad[2].cancel()
            await bad[1]
            await until(lambda: not (left_over(client) or len(store)))
        """,
        store=tmp_path / "store",
        ack_timeout_s=1,
    )
    last = [(each[0], each[3], each[-1]) for each in picky.to("bad") if each[0] >= 4]
    assert last == [(4, False, b"0"), (4, False, b"1"), (5, True, b"1"), (5, False, b"2")]


def test_what_is_kept_back_has_a_bound_and_the_oldest_is_told_to_be_undelivered():
    """It is max_waiting; others get through, so it is the doing of these."""
    out = Device.against(
        Picky(bad=10_000),
        """
        set_aside(30)
        events = client.events()
        async with client:
            client.enqueue("bad", "0", qos=1)
            await until(lambda: kept_back(client))
            for n in range(3):
                await client.publish("t", "x", qos=1)
            for n in range(1, 6):
                client.enqueue("bad", str(n), qos=1)
            for n in range(2):
                event = await next_event(events, "Undelivered")
                print("undelivered", event.topic, event.error)
            await client.publish("t", "x", qos=1)
            assert kept_back(client) == 4
        """,
        max_waiting=4,
        drain_s=0,
    )
    told = [line for line in out.splitlines() if line.startswith("undelivered")]
    assert told == 2 * ["undelivered bad given up: too many on which connections end"]


def test_so_has_what_is_kept_back_for_ever_new_topics():
    out = Device.against(
        Picky(**{f"bad{n}": 10_000 for n in range(4)}),
        """
        set_aside(30)
        events = client.events()
        async with client:
            for n in range(4):
                client.enqueue("bad%d" % n, "x", qos=1)
                for _ in range(3):
                    await client.publish("t", "x", qos=1)
            for n in range(2):
                event = await next_event(events, "Undelivered")
                print("undelivered", event.topic)
            await until(lambda: kept_back(client) == 2)
        """,
        max_waiting=2,
        drain_s=0,
    )
    assert [line for line in out.splitlines() if line.startswith("undelivered")] == [
        "undelivered bad0",
        "undelivered bad1",
    ]


def test_others_get_through_where_a_broker_of_mqtt_5_says_why_it_goes():
    picky = Picky(5, bad=10_000, says=0x87)
    out = Device.against(
        picky,
        """
        set_aside(30)
        async with client:
            client.enqueue("bad", "x", qos=1)
            await asyncio.gather(*[client.publish("t/%d" % n, "x", qos=1) for n in range(9)])
            assert kept_back(client) == 1
        """,
        protocol=5,
        drain_s=0,
    )
    assert "the broker disconnected" in out and "a message to 'bad' was sent: others go" in out


def test_where_nothing_gets_through_nothing_is_given_up():
    """A broker that acknowledges nothing for a while: it is not the doing of the messages."""
    picky = Picky(silent=True, t=5)
    out = Device.against(
        picky,
        """
        set_aside(1)
        async with client:
            for n in range(12):
                assert client.enqueue("t", str(n), qos=1)
            await until(lambda: to_send(client) == 0)
        """,
        max_waiting=4,
        ack_timeout_s=1,
    )
    assert "given up" not in out
    last = [each[-1] for each in picky.came if each[0] >= 5]
    assert last == [b"%d" % n for n in range(12)]


def test_given_up_after_as_many_connections_as_the_app_wants():
    picky = Picky(bad=10_000, forgets=6)
    out = Device.against(
        picky,
        """
        set_aside(0.3)
        async with client:
            with raises(MQTTError, "given up: 5 connections ended on it"):
                await client.publish("bad", "x", qos=1)
            await client.publish("t", "x", qos=1)
            assert left_over(client) == []
        """,
        give_up_after=5,
    )
    assert len(picky.to("bad")) == 5
    assert "is through" not in out


def test_a_publish_that_is_kept_back_can_be_taken_back_or_waited_for_no_more():
    """Taken back where nothing of it was sent; else it goes when it can."""
    picky = Picky(bad=4)
    Device.against(
        picky,
        """
        set_aside(2)
        async with client:
            with raises(asyncio.TimeoutError):
                await client.publish("bad", "sent", qos=1, timeout_s=1)
            await until(lambda: kept_back(client) == 1)
            with raises(asyncio.TimeoutError):
                await client.publish("bad", "not sent", qos=1, timeout_s=0.2)
            assert kept_back(client) == 1
            assert await client.publish("bad", "next", qos=1) == 0
        """,
    )
    assert [each[-1] for each in picky.to("bad")][-2:] == [b"sent", b"next"]
    assert b"not sent" not in [each[-1] for each in picky.to("bad")]


def test_a_client_that_stops_takes_up_what_it_kept_back_when_it_starts_again():
    picky = Picky(bad=5)
    Device.against(
        picky,
        """
        set_aside(30)
        async with client:
            tasks = [asyncio.create_task(client.publish("bad", "sent", qos=1))]
            await until(lambda: kept_back(client) == 1)
            tasks.append(asyncio.create_task(client.publish("bad", "not sent", qos=1)))
            await until(lambda: kept_back(client) == 2)
            await client.publish("t", "x", qos=1)
        for task in tasks:
            with raises(MQTTError, "the client was stopped"):
                await task
        assert kept_back(client) == 0
        async with client:
            await client.publish("t", "x", qos=1)
            await until(lambda: not left_over(client))
        """,
    )
    assert [each[0] for each in picky.to("bad")] == [1, 2, 3, 5]


def _resets(picky, store, program):
    """Run it with RUN 1 until it prints "kept", cut its power, and run it with RUN 2."""
    with FakeBroker(picky) as fake:
        with Device(fake, program, names={"RUN": 1}, store=store) as device:
            device.wait_for("^kept")
            device.kill()
        Device.check(fake, program, names={"RUN": 2}, store=store)


def test_what_is_kept_back_is_in_the_store_after_a_reset(tmp_path):
    picky = Picky(bad=5)
    program = """
        set_aside(30)
        async with client:
            if RUN == 1:
                for n in range(3):
                    client.enqueue("bad", str(n), qos=1)
                client.enqueue("t", "x", qos=1)
                await until(lambda: kept_back(client) == 3 and len(store) == 3)
                print("kept")
                await told("leave")
            else:
                await until(lambda: not len(store))
    """
    _resets(picky, tmp_path / "store", program)
    assert [each[-1] for each in picky.to("bad") if each[0] >= 5] == [b"0", b"1", b"2"]
    assert len(picky.to("t")) == 1


def test_what_has_to_wait_behind_it_is_in_the_store_too(tmp_path):
    """Others go first; the message could be sent at once, were it for another topic."""
    picky = Picky(bad=5)
    program = """
        set_aside(30)
        async with client:
            if RUN == 1:
                client.enqueue("bad", "0", qos=1)
                await until(lambda: kept_back(client) == 1)
                await client.wait_connected()
                client.enqueue("bad", "1", qos=1)
                client.enqueue("t", "x", qos=1)
                await until(lambda: kept_back(client) == 2 and to_send(client) == 2)
                print("kept")
                await told("leave")
            else:
                await until(lambda: not len(store))
    """
    _resets(picky, tmp_path / "store", program)
    assert [each[-1] for each in picky.to("bad") if each[0] >= 5] == [b"0", b"1"]
    assert len(picky.to("t")) == 1


@pytest.mark.parametrize("place", ["to let a message wait", "to look at the window"])
def test_what_there_was_no_memory_to_try_is_tried_again(place):
    picky = Picky(bad=4)
    out = Device.against(
        picky,
        f"""
        set_aside(0.5)
        async with client:
            client.enqueue("bad", "0", qos=1)
            client.enqueue("bad", "1", qos=1)
            await until(lambda: kept_back(client) == 2)
            no_memory("{place}")
            while left_over(client):
                assert kept_back(client) <= 2
                await client.publish("t", "x")
                await asyncio.sleep_ms(50)
        """,
    )
    assert [each[-1] for each in picky.to("bad") if each[0] >= 4][-2:] == [b"0", b"1"]
    assert "Traceback" not in out


def test_a_birth_that_is_kept_back_is_not_made_anew_with_each_connection():
    picky = Picky(state=6)
    Device.against(
        picky,
        """
        set_aside(0.4)
        from mqtt_as_tls import Will
        client = make(will=Will("state", "off", birth="on", qos=1))
        async with client:
            await client.publish("t", "x", qos=1)
            await until(lambda: client.stats.connects >= 6)
            await until(lambda: not left_over(client))
        """,
    )
    assert {each[2] for each in picky.to("state") if each[-1] == b"on"} == {1}


def test_others_get_through_at_a_mosquitto_that_takes_no_packet_as_large(tmp_path):
    """With MQTT 3.1.1 it cannot tell, and hangs up."""
    with Broker(tmp_path / "b", max_packet=400) as broker:
        peer = broker.peer("#")
        out = Device.check(
            broker,
            """
            set_aside(30)
            async with client:
                client.enqueue("large", bytes(600), qos=1)
                for n in range(20):
                    client.enqueue("small", str(n), qos=1)
                await until(lambda: to_send(client) == 1)
            """,
            drain_s=0,
        )
        peer.wait_for(20)
        assert peer.received == [("small", b"%d" % n) for n in range(20)]
    assert "a message to 'large' was sent: others go first" in out
