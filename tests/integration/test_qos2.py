"""QoS 2: every message exactly once, both ways, whatever breaks and when."""

import contextlib
import random
import socket
import struct
import time

import pytest

from tests.support import five
from tests.support.broker import HOST
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, Connection, FakeBroker
from tests.support.proxy import Proxy

BOTH = pytest.mark.parametrize("protocol", [4, 5])

# where a delivery can break off: the packet, and whether it arrives before the connection ends
OUT = [("PUBLISH", "up"), ("PUBREC", "down"), ("PUBREL", "up"), ("PUBCOMP", "down")]
IN = [("PUBLISH", "down"), ("PUBREC", "up"), ("PUBREL", "down"), ("PUBCOMP", "up")]


def steps(proxy, direction, connection=None):
    """The packets of deliveries that came by one way, in order: [(name, packet id)]."""
    return [
        (each.name, each.packet_id)
        for each in proxy.seen(direction=direction, connection=connection)
        if each.name.startswith("PUB")
    ]


def payloads(peer):
    return [payload.decode() for _, payload in peer.received]


def got(device):
    """The payloads of what its handler got with QoS 2, in order."""
    texts = [text.split() for text in device.said("got")]
    assert {qos for _, qos in texts} == {"2"}
    return [payload for payload, _ in texts]


PUBLISHER = """
async with client:
    tasks = [asyncio.create_task(client.publish("t", each, qos=2)) for each in "abc"]
    print("codes", await asyncio.gather(*tasks))
    print("left", to_send(client), "stray", strays(client))
    await client.publish("t", "d", qos=2)
    print("connects", client.stats.connects)
    await told("leave")
"""

UNTIL_NOTHING_IS_LEFT = """
async with client:
    await told("leave")
    await until(lambda: not to_receive(client))
"""

HANDLER = """
@client.on("t", qos=2)
async def handler(message):
    await asyncio.sleep_ms(1)
    got(message)
"""
HANDLER += UNTIL_NOTHING_IS_LEFT


# Every step, and what an outage there does


def test_a_message_goes_in_four_packets(proxy, broker):
    """MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-3.6.1-1], [MQTT-4.3.3-1], [MQTT-4.3.3-2]"""
    peer = broker.peer("t", qos=2)
    with Device(proxy, HANDLER) as device:
        device.subscribed()
        peer.publish("t", "x", qos=2)
        device.wait_for("got x 2")
        proxy.wait_for("PUBCOMP", "up")
        n = proxy.seen("PUBLISH", "down")[0].packet_id
        assert steps(proxy, "down") == [("PUBLISH", n), ("PUBREL", n)]
        assert steps(proxy, "up") == [("PUBREC", n), ("PUBCOMP", n)]
        device.leave()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "direction"), OUT)
def test_a_cut_while_publishing_costs_no_message_and_repeats_none(
    proxy, broker, name, direction, after
):
    """
    MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-3.3.1-1], [MQTT-3.6.1-1], [MQTT-4.3.3-1], [MQTT-4.4.0-1],
    [MQTT-4.6.0-1], [MQTT-4.6.0-4]
    """
    peer = broker.peer("t", qos=2)
    proxy.kill_on(name, direction, after=after)
    with Device(proxy, PUBLISHER, ack_timeout_s=20) as device:
        device.wait_for(r"codes \[0, 0, 0\]")
        device.wait_for("left 0 stray 0")
        device.wait_for("connects 2")
        peer.wait_for(4)
        device.leave()
    assert payloads(peer) == ["a", "b", "c", "d"]
    assert [each.qos for each in peer.messages] == [2] * 4
    first, second = (
        [each for each in proxy.seen(direction="up", connection=n) if each.name != "CONNECT"]
        for n in (1, 2)
    )
    released = [each.packet_id for each in first if each.name == "PUBREL"]
    again = [each for each in second if each.name == "PUBLISH" and each.dup]
    for each in again:  # the same id and content; never after its PUBREL
        assert (each.packet_id, each.payload) in [(1, b"a"), (2, b"b"), (3, b"c")]
        assert each.packet_id not in released
    assert [each.packet_id for each in again] == sorted(each.packet_id for each in again)
    names = [each.name for each in second]
    if again and "PUBREL" in names[: names.index("PUBLISH")]:
        assert names.index("PUBREL") < names.index("PUBLISH")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("name", "direction"), IN)
def test_a_cut_while_receiving_costs_no_message_and_repeats_none(
    proxy, broker, name, direction, after
):
    """MQTT 3.1.1: [MQTT-3.1.2-4], [MQTT-4.3.3-2], [MQTT-4.6.0-3]"""
    with Device(proxy, HANDLER) as device:
        device.subscribed()
        proxy.kill_on(name, direction, after=after)
        broker.publish("t", *"abcd", qos=2)
        device.wait_for("got d 2")
        proxy.wait_for("PUBCOMP", "up", 4)
        broker.publish("t", "e", qos=2)
        device.wait_for("got e 2")
        device.leave()
    assert got(device) == list("abcde")
    assert proxy.connections == 2


@pytest.mark.parametrize(("name", "direction"), OUT)
def test_a_step_that_is_swallowed_ends_the_connection_in_time_and_is_repeated(
    proxy, broker, name, direction
):
    peer = broker.peer("t", qos=2)
    proxy.swallow(name, direction, times=1)
    with Device(proxy, PUBLISHER, ack_timeout_s=1) as device:
        device.wait_for("connection lost: no PUBACK for 1 s")
        device.wait_for(r"codes \[0, 0, 0\]")
        device.wait_for("connects 2")
        device.leave()
    peer.wait_for(4)
    assert sorted(payloads(peer)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("name", "direction"), IN)
def test_an_inbound_step_that_is_swallowed_is_made_up_for_on_the_next_connection(
    proxy, broker, name, direction
):
    with Device(proxy, HANDLER) as device:
        device.subscribed()
        proxy.swallow(name, direction, times=1)
        broker.publish("t", *"abc", qos=2)
        device.wait_for("got c 2")
        proxy.wait_for("PUBCOMP", "up", 2)
        proxy.rst()
        device.wait_for("session resumed")
        broker.publish("t", "d", qos=2)
        device.wait_for("got d 2")
        proxy.wait_for("PUBCOMP", "up", 4)
        device.leave()
    assert sorted(got(device)) == list("abcd")


# The broker goes


@pytest.mark.parametrize("stage", ["PUBREC", "PUBCOMP"])
def test_a_broker_that_restarts_with_its_state_gets_each_message_once(proxy, broker, stage):
    """MQTT 3.1.1: [MQTT-4.1.0-1], [MQTT-4.3.3-1], [MQTT-4.4.0-1]"""
    # a session of the peer's own, else it misses what comes before it is back
    peer = broker.peer("t", qos=2, client_id="peer", clean=False)
    peer.close()
    proxy.swallow(stage, "down")
    with Device(proxy, PUBLISHER, ack_timeout_s=60) as device:
        proxy.wait_for(stage, "down", 3)
        proxy.heal()  # before the next connection
        broker.restart()
        device.wait_for("session resumed")
        device.wait_for(r"codes \[0, 0, 0\]")
        device.leave()
    peer = broker.peer(client_id="peer", clean=False)
    peer.wait_for(4)
    broker.publish("t", "end", qos=2)
    peer.wait_for(5)
    assert payloads(peer) == ["a", "b", "c", "d", "end"]


UNKNOWN = """
from mqtt_as_tls import Undelivered

async def events():
    async for event in client.events():
        if isinstance(event, Undelivered):
            print("event", event.topic, type(event.error).__name__)

async def waits(topic):
    try:
        await client.publish(topic, topic, qos=2)
    except DeliveryUnknown as e:
        print("unknown", e.topic, e)

async with client:
    asyncio.create_task(events())
    await client.wait_connected()
    tasks = [asyncio.create_task(waits("t/awaited"))]
    tasks.append(asyncio.create_task(client.publish("t/qos1", "x", qos=1)))
    await asyncio.sleep_ms(20)
    client.enqueue("t/queued", "x", qos=2)
    timed = client.publish("t/timed-out", "x", qos=2, timeout_s=0.1)
    with raises(asyncio.TimeoutError):
        await timed
    print("sent")
    await asyncio.gather(*tasks)
    print("after", await client.publish("t/after", "x", qos=2))
    print("left", to_send(client))
    await told("leave")
"""


@pytest.mark.parametrize("stage", ["PUBREC", "PUBCOMP"])
def test_a_broker_that_lost_its_state_leaves_the_fate_of_a_message_unknown(proxy, broker, stage):
    proxy.swallow(stage, "down")
    proxy.swallow("PUBACK", "down", times=1)
    with Device(proxy, UNKNOWN, ack_timeout_s=60) as device:
        device.wait_for("sent")
        proxy.wait_for(stage, "down", 3)
        proxy.refuse()  # it comes back when the peer is there
        broker.restart(wipe=True)
        peer = broker.peer("t/#", qos=2)
        proxy.heal()
        device.wait_for("session new, 1 messages sent again")
        device.wait_for("after 0")
        device.wait_for("left 0")
        out = device.leave()
    assert "unknown t/awaited the broker lost the session: was 't/awaited' delivered?" in out
    assert "event t/queued DeliveryUnknown" in out
    assert "event t/timed-out DeliveryUnknown" in out  # nobody waits any more
    assert "event t/awaited" not in out
    assert "message to 't/queued': the broker lost the session" in out
    peer.wait_for(2)
    assert [topic for topic, _ in peer.received] == ["t/qos1", "t/after"]


def test_a_session_counts_as_lost_until_the_client_has_taken_note(proxy, broker):
    # the broker has a new session after the first CONNACK that said so: the next would say present
    proxy.swallow("PUBREC", "down")
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            no_memory("to take note of the session")
            with raises(DeliveryUnknown):
                await client.publish("t", "x", qos=2)
            print("unknown")
        """,
        ack_timeout_s=60,
    ) as device:
        proxy.wait_for("PUBREC", "down")
        proxy.heal()  # before the next connection
        broker.restart(wipe=True)
        device.wait_for("MemoryError")
        device.wait_for("unknown")
        device.finish()
    cleans = [each.body[7] & 2 for each in proxy.seen("CONNECT") if each.passed]
    # the last begins a session that outlives its connection
    assert cleans == [0] * (len(cleans) - 2) + [2, 0]


def test_what_was_under_way_to_a_lost_session_is_forgotten(proxy, broker):
    with Device(proxy, HANDLER) as device:
        device.subscribed()
        proxy.swallow("PUBREL", "down")
        broker.publish("t", "old", qos=2)
        device.wait_for("got old 2")
        proxy.wait_for("PUBREL", "down")
        proxy.heal()  # before the next connection
        broker.restart(wipe=True)
        device.wait_for("session new")
        device.subscribed(2)
        broker.publish("t", "new", qos=2)  # with the same packet id
        device.wait_for("got new 2")
        proxy.wait_for("PUBCOMP", "up")
        device.leave()
    assert {each.packet_id for each in proxy.seen("PUBLISH", "down")} == {1}


# Order and window


@pytest.mark.parametrize("most", [1, 2])
def test_qos_0_1_and_2_keep_their_order_within_the_window(proxy, broker, most):
    """MQTT 3.1.1: [MQTT-4.6.0-1], [MQTT-4.6.0-4]"""
    peer = broker.peer("t/#", qos=2)
    Device.check(
        proxy,
        """
        async with client:
            await client.wait_connected()
            await asyncio.gather(*[
                client.publish("t/%d" % (i % 3), str(i), qos=i % 3) for i in range(30)
            ])
            for i in range(30, 60):
                assert client.enqueue("t/%d" % (i % 3), str(i), qos=i % 3)
        """,
        max_inflight=most,
        drain_s=20,
    )
    peer.wait_for(60)
    sent = [int(each.payload) for each in proxy.seen("PUBLISH", "up")]
    assert sent == list(range(60))
    for qos in range(3):
        assert [int(data) for topic, data in peer.received if topic == f"t/{qos}"] == list(
            range(qos, 60, 3)
        )
    open_ids, widest = set(), 0
    for each in proxy.packets:
        if each.name == "PUBLISH" and each.qos and each.direction == "up":
            assert each.packet_id not in open_ids
            open_ids.add(each.packet_id)
            widest = max(widest, len(open_ids))
        elif each.name in ("PUBACK", "PUBCOMP"):
            open_ids.discard(each.packet_id)
    assert widest == most
    assert proxy.connections == 1


def test_after_a_reconnect_pubrels_come_first_then_publishes_then_new_ones(proxy, broker):
    """MQTT 3.1.1: [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4]"""
    peer = broker.peer("t", qos=2)
    proxy.swallow("PUBCOMP", "down", times=2)
    with Device(
        proxy,
        """
        async with client:
            first = asyncio.gather(*[client.publish("t", each, qos=2) for each in "ab"])
            first = asyncio.create_task(first)
            await told("more")
            more = [client.publish("t", each, qos=n) for each, n in (("c", 1), ("d", 2))]
            more = asyncio.create_task(asyncio.gather(*more))
            await until(lambda: in_flight(client) == 2)
            print("flying")
            await told("new")
            new = asyncio.create_task(client.publish("t", "e", qos=2))
            await asyncio.sleep_ms(0)
            print("waiting")
            await first
            await more
            await new
            print("all", client.stats.connects)
        """,
        ack_timeout_s=60,
    ) as device:
        proxy.wait_for("PUBCOMP", "down", 2)
        proxy.stall_up()
        device.send("more")
        device.wait_for("flying")
        proxy.refuse()
        proxy.rst()
        device.wait_for("connection lost")
        device.send("new")
        device.wait_for("waiting")
        proxy.heal()
        device.wait_for("all 2")
        device.finish()
    again = [
        (each.name, each.packet_id, each.name == "PUBLISH" and each.dup)
        for each in proxy.seen(direction="up", connection=2)
        if each.name.startswith("PUB")
    ]
    assert again[:5] == [
        ("PUBREL", 1, False),
        ("PUBREL", 2, False),
        ("PUBLISH", 3, True),
        ("PUBLISH", 4, True),
        ("PUBLISH", 5, False),
    ]
    peer.wait_for(5)
    assert sorted(payloads(peer)) == list("abcde")


# Publishers that give up waiting


@pytest.mark.parametrize("how", ["time-out", "cancel"])
@pytest.mark.parametrize(("name", "direction"), OUT)
def test_giving_up_waiting_at_any_step_leaves_the_delivery_as_it_is(
    proxy, broker, name, direction, how
):
    """MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-4.3.3-1]"""
    peer = broker.peer("t", qos=2)
    with Device(
        proxy,
        """
        async with client:
            await client.wait_connected()
            await told("publish")
            if HOW == "cancel":
                task = asyncio.create_task(client.publish("t", "given up", qos=2))
                await told("cancel")
                task.cancel()
                with raises(asyncio.CancelledError):
                    await task
            else:
                with raises(asyncio.TimeoutError):
                    await client.publish("t", "given up", qos=2, timeout_s=0.1)
                await told("cancel")
            print("given up")
            next_id(client, 1)  # it is in use: the next one takes 2
            task = asyncio.create_task(client.publish("t", "next", qos=2))
            await told("go on")
            await task
            await until(lambda: not to_send(client))
            next_id(client, 1)
            await client.publish("t", "last", qos=2)
            print("connects", client.stats.connects)
        """,
        names={"HOW": how},
        ack_timeout_s=60,
    ) as device:
        device.wait_for("connected in")
        proxy.swallow(name, direction)
        device.send("publish")
        proxy.wait_for(name, direction)
        device.send("cancel")
        device.wait_for("given up")
        proxy.wait_for(name, direction, 2)
        proxy.heal()
        proxy.rst()
        device.send("go on")
        device.wait_for("connects 2")
        device.finish()
    peer.wait_for(3)
    assert payloads(peer) == ["given up", "next", "last"]
    ids = {each.payload: each.packet_id for each in proxy.seen("PUBLISH", "up")}
    assert ids == {b"given up": 1, b"next": 2, b"last": 1}


def test_a_publisher_that_gives_up_offline_takes_its_message_back(proxy, broker):
    peer = broker.peer("t", qos=2)
    proxy.refuse()
    with Device(
        proxy,
        """
        async with client:
            with raises(asyncio.TimeoutError):
                await client.publish("t", "never sent", qos=2, timeout_s=0.1)
            print("given up")
            await client.publish("t", "sent", qos=2)
        """,
    ) as device:
        device.wait_for("given up")
        proxy.heal()
        device.finish()
    peer.wait_for(1)
    assert payloads(peer) == ["sent"]


# Handlers


def test_a_handler_that_raises_has_had_its_message(proxy, broker):
    """MQTT 3.1.1: [MQTT-4.3.3-2]"""
    with Device(
        proxy,
        """
        @client.on("t", qos=2)
        def handler(message):
            got(message)
            raise ValueError("in the handler")
        """,
    ) as device:
        device.subscribed()
        proxy.kill_on("PUBREC", "up")  # it comes again, and is not handled again
        broker.publish("t", *"ab", qos=2)
        device.wait_for("got b 2")
        proxy.wait_for("PUBCOMP", "up", 2)
        device.leave()
    assert got(device) == ["a", "b"]


def test_a_message_that_comes_again_while_its_handler_runs_is_not_handled_again(proxy, broker):
    """MQTT 3.1.1: [MQTT-4.3.3-2]"""
    with Device(
        proxy,
        """
        client.on("t", qos=2)(hold)

        async with client:
            for n in (1, 2):
                await until(lambda: client.stats.duplicates == n)
                print("again", n)
            await told("leave")
        """,
    ) as device:
        device.subscribed()
        broker.publish("t", "x", qos=2)
        device.wait_for("got x 2")
        for n in (1, 2):
            proxy.rst()
            device.wait_for(f"again {n}")
        assert not proxy.seen("PUBREC")
        device.send("end")
        device.wait_for("ends")
        proxy.wait_for("PUBCOMP", "up")
        device.leave()
    assert got(device) == ["x"]


def test_a_handler_that_returns_while_offline_is_not_called_again(proxy, broker):
    with Device(proxy, 'client.on("t", qos=2)(hold)', UNTIL_NOTHING_IS_LEFT) as device:
        device.subscribed()
        broker.publish("t", "x", qos=2)
        device.wait_for("got x 2")
        proxy.refuse()
        proxy.rst()
        device.wait_for("connection lost")
        device.send("end")
        device.wait_for("ends")
        proxy.swallow("PUBLISH", "down")  # a connection too short for the redelivery
        proxy.heal()
        proxy.swallow("PUBLISH", "down")
        device.wait_for("session resumed")
        proxy.wait_for("PUBLISH", "down", 2)
        proxy.heal()
        proxy.rst()
        proxy.wait_for("PUBCOMP", "up")
        device.leave()
    assert got(device) == ["x"]


def test_a_handler_over_its_time_gets_its_message_acknowledged_once(proxy, broker):
    with Device(proxy, 'client.on("t", qos=2)(hold)', handler_timeout_s=1) as device:
        device.subscribed()
        broker.publish("t", "x", qos=2)
        device.wait_for("handler of 't' runs for over 1 s: message acknowledged, handler goes on")
        proxy.wait_for("PUBCOMP", "up")
        device.send("end")
        device.leave()
    assert got(device) == ["x"]
    assert [name for name, _ in steps(proxy, "up")] == ["PUBREC", "PUBCOMP"]


def test_qos_2_beyond_the_backlog_comes_again_until_all_is_handled_once(proxy, broker):
    with Device(
        proxy,
        """
        barrier = Barrier()
        client.on("t", qos=2)(barrier)

        async with client:
            await told("release")
            barrier.open()
            await told("leave")
            print("connects", client.stats.connects)
        """,
        max_packet=500,
        max_backlog=1000,
        keepalive_s=4,  # reading waits for 3 s
    ) as device:
        device.subscribed()
        broker.publish("t", *range(40), qos=2)
        device.wait_for(
            r"handlers are behind: \d+ bytes wait \(max_backlog\): the broker will send aga"
        )
        device.send("release")
        device.wait_for("got 39 2")
        device.leave()
    assert int(*device.said("connects")) > 1
    assert got(device) == [str(n) for n in range(40)]


@pytest.mark.parametrize(
    "place",
    [
        "for an acknowledgement",
        "for the queue of a handler",
        "for the books",
        pytest.param("to send", id="for sending it"),
    ],
)
def test_a_message_is_handled_once_where_there_was_once_no_memory(proxy, broker, place):
    with Device(
        proxy,
        """
        client.on("t", qos=2)(got)

        async with client:
            await told("fail")
            no_memory(PLACE)
            print("no memory")
            await told("leave")
            await until(lambda: not to_receive(client))
        """,
        names={"PLACE": place},
    ) as device:
        device.subscribed()
        broker.publish("t", "a", qos=2)
        proxy.wait_for("PUBCOMP", "up")
        device.send("fail")
        device.wait_for("no memory")
        broker.publish("t", *"bc", qos=2)
        device.wait_for("got c 2")
        proxy.wait_for("PUBCOMP", "up", 3)
        device.leave()
    assert got(device) == ["a", "b", "c"]
    assert proxy.connections == 2


def test_no_memory_for_the_second_handler_gives_neither_of_them_a_message_twice(proxy, broker):
    with Device(
        proxy,
        """
        from mqtt_as_tls.dispatch import Dispatcher

        @client.on("t", qos=2)
        def first(message):
            print("got", text(message), "first")

        @client.on("+", qos=2)
        def second(message):
            print("got", text(message), "second")

        queue = Dispatcher.queue

        def fails(self, sub, message):
            queue(self, sub, message)
            Dispatcher.queue = fails_now

        def fails_now(self, sub, message):
            Dispatcher.queue = queue
            raise MemoryError("no memory once")

        async with client:
            await told("fail")
            Dispatcher.queue = fails
            print("no memory")
            await told("leave")
            print("held", held(client))
        """,
    ) as device:
        device.subscribed()
        device.send("fail")
        device.wait_for("no memory")
        broker.publish("t", *"ab", qos=2)
        proxy.wait_for("PUBCOMP", "up", 2)
        assert "held ([], 0)" in device.leave()
    assert sorted(device.said("got")) == ["a first", "a second", "b first", "b second"]


# Will


def test_a_will_with_qos_2_is_published_and_so_are_birth_and_goodbye(broker):
    peer = broker.peer("t/#", qos=2)
    program = """
        client = make(will=Will("t/status", "offline", qos=2, birth="online"))
    """
    with Device(broker, program) as device:
        peer.wait_for(1)
        device.kill()
    peer.wait_for(2)
    with Device(broker, program) as device:
        peer.wait_for(3)
        device.leave()
    peer.wait_for(4)
    assert payloads(peer) == ["online", "offline"] * 2
    assert [each.qos for each in peer.messages] == [2] * 4


# Outages without end

STORM = """
stopping = asyncio.Event()

async def publisher(qos):
    n = 0
    while not stopping.is_set():
        await client.publish("up/%d" % qos, str(n), qos=qos)
        n += 1
        await asyncio.sleep_ms(1)
    print("published", qos, n)

@client.on("down", qos=2)
async def handler(message):
    await asyncio.sleep_ms(int(message.payload) % 3)
    got(message)

async with client:
    tasks = [asyncio.create_task(publisher(qos)) for qos in (1, 2, 2)]
    await told("stop")
    stopping.set()
    await asyncio.gather(*tasks)
    print("connects", client.stats.connects, "resent", client.stats.resent)
    await told("leave")
"""


@pytest.mark.parametrize("protocol", [4, 5])
def test_random_outages_cost_and_repeat_nothing_either_way(proxy, broker, protocol):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    peer = broker.peer("up/#", qos=2)
    sender = broker.peer()
    places = [*OUT, *IN, ("PUBACK", "down")]
    impatient = {"ack_timeout_s": 2, "connect_timeout_s": 2, "max_inflight": 4}
    sent = 0

    def pause(until, most_s):
        """Go on sending to the device until `until()` is so, or `most_s` have passed."""
        nonlocal sent
        end = time.monotonic() + most_s
        while not until() and time.monotonic() < end:
            sender.publish("down", str(sent), qos=2)
            sent += 1
            time.sleep(chance.random() * 0.06)

    try:
        with Device(proxy, STORM, protocol=protocol, **impatient) as device:
            device.subscribed()
            end = time.monotonic() + 8
            while time.monotonic() < end or proxy.connections < 8:  # however slow they are
                name, direction = chance.choice(places)
                proxy.kill_on(name, direction, chance.random() < 0.5)
                pause(lambda n=proxy.connections: proxy.connections > n, 1)
                proxy.killers = []
                # some progress: else the client suspects a message of its own and waits a minute
                enough = len(proxy.packets) + 60
                pause(lambda n=enough: len(proxy.packets) > n, 1)
            proxy.heal()
            device.send("stop")
            published = [device.wait_for("published").split()[1:] for _ in range(3)]
            stats = device.wait_for("connects").split()
            while f"got {sent - 1} 2" not in device.lines:
                device.wait_for("got")
            device.leave()
        assert int(stats[1]) > 5, stats
        assert got(device) == [str(n) for n in range(sent)]
        expected = [str(n) for qos, count in published if qos == "2" for n in range(int(count))]
        peer.wait_for(len(expected), topic="up/2")  # the last may still be on its way to the peer
        twos = [payload.decode() for topic, payload in peer.received if topic == "up/2"]
        assert sorted(twos) == sorted(expected)
        ones = {payload.decode() for topic, payload in peer.received if topic == "up/1"}
        assert ones == {
            str(n) for qos, count in published if qos == "1" for n in range(int(count))
        }
    except AssertionError as e:
        raise AssertionError(f"seed {seed}") from e


def test_a_publisher_learns_of_the_lost_session_though_there_was_no_memory_to_tell():
    def script(connection):
        connection.accept()
        if connection.number == 1:
            connection.packet()  # PUBLISH
        else:
            connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.wait_connected()
            no_memory("for words about an undelivered message")
            with raises(DeliveryUnknown, "lost the session"):
                await client.publish("t", "x", qos=2, timeout_s=20)
        """,
    )
    assert "no memory" in out


@pytest.mark.parametrize("stored", [False, True])
def test_a_program_that_is_started_again_takes_no_id_that_the_broker_may_still_have(
    tmp_path, stored
):
    """
    What the program before it had under way is unknown to this one (with a store: payloads larger
    than memory, and what did not fit), but not to the broker: some would drop a new message with
    the same id as one that they have.
    """
    ids = []
    released = []

    def script(connection):
        connection.accept(CONNACK if connection.number == 1 else RESUMED)
        first, body = connection.packet()
        while first == 0x62:  # what may be left is released
            released.append(body)
            connection.send(b"\x70\2" + body)
            first, body = connection.packet()
        ids.append(body[body.index(b"t") + 1 : body.index(b"t") + 3])
        if connection.number == 1:
            connection.until_closed()
        connection.send(b"\x50\2" + ids[-1])
        assert connection.packet() == (0x62, ids[-1])
        connection.send(b"\x70\2" + ids[-1])
        connection.until_closed()

    program = """
        from tests.device.large import Source

        async with client:
            await client.publish("t", Source(9), length=9, qos=2)
    """
    store = tmp_path / "store" if stored else None
    with FakeBroker(script) as fake:
        with Device(fake, program, store=store) as device:
            device.wait_for("connected")
            fake.wait_for_connections(1)
            while not ids:
                time.sleep(0.01)
            device.kill()
        Device.check(fake, program, store=store)
    assert ids == [b"\0\1"] * 2
    assert released == [bytes([0, n]) for n in range(1, 17)]


@pytest.mark.parametrize("dup", [False, True], ids=["new", "again"])
def test_an_id_of_a_session_that_the_broker_lost_unheard_hides_no_new_message(dup):
    """
    A CONNECT that is not answered may begin a session, which the next CONNACK calls present: what
    has the id of an old message is new, unless the broker says that it was sent before.
    """

    def script(connection):
        number = connection.number
        if number == 2:
            connection.packet()  # and no answer
            return
        connection.accept(CONNACK if number == 1 else RESUMED)
        first, body = connection.packet()
        assert first == 0x82  # SUBSCRIBE
        connection.send(b"\x90\x03" + body[:2] + b"\x02")
        flags = 0x3C if number == 3 and dup else 0x34
        connection.send(bytes([flags]) + b"\x06\0\x01t\0\x01" + b"-abcd"[number : number + 1])
        first, body = connection.packet()
        assert (first, body) == (0x50, b"\0\x01")  # PUBREC
        if number == 3:
            connection.send(b"\x62\x02\0\x01")
            assert connection.packet() == (0x70, b"\0\x01")  # PUBCOMP
            connection.until_closed()

    with FakeBroker(script) as fake, Device(fake, HANDLER) as device:
        fake.wait_for_connections(3)
        device.leave()
    assert got(device) == (["a"] if dup else ["a", "c"])


# What mosquitto sends twice: it forgets that it had sent PUBREL where a connection of the session
# ended between its CONNECT and the first PUBREL on it


def hello(client_id):
    """Return a CONNECT of MQTT 3.1.1 with CleanSession=0."""
    body = b"\0\x04MQTT\x04\0\0\x3c\0" + bytes([len(client_id)]) + client_id.encode()
    return bytes([0x10, len(body)]) + body


@contextlib.contextmanager
def dialled(broker):
    """Yield a Connection that the broker has accepted."""
    accepted = broker.log().count("New connection from") + 1
    with socket.create_connection((HOST, broker.port), 20) as sock:
        broker.wait_for_log("New connection from", count=accepted)
        yield Connection(accepted, sock)


def connect_and_reset(broker, client_id):
    """Send a CONNECT and then RST, both of which the broker finds at the same time."""
    with dialled(broker) as connection:
        broker.pause()
        connection.send(hello(client_id))
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    broker.resume()
    broker.wait_for_log(f"Sending CONNACK to {client_id} (1, 0)")


def test_a_broker_that_could_not_send_its_pubrel_may_publish_again(broker, record_property):
    peer = broker.peer()
    with dialled(broker) as connection:
        connection.send(hello("bare"))
        assert connection.packet() == (0x20, b"\0\0")
        connection.send(b"\x82\x06\0\x01\0\x01t\x02")  # SUBSCRIBE
        assert connection.packet() == (0x90, b"\0\x01\x02")
        peer.publish("t", "x", qos=2)
        first, body = connection.packet()
        assert (first, body) == (0x34, b"\0\x01t\0\x01x")
        connection.send(b"\x50\x02\0\x01")  # PUBREC
        assert connection.packet() == (0x62, b"\0\x01")  # PUBREL, and no PUBCOMP
    connect_and_reset(broker, "bare")
    with dialled(broker) as connection:
        connection.send(hello("bare"))
        assert connection.packet() == (0x20, b"\x01\0")
        again = connection.packet()
        is_repeated = again[0] >> 4 == 3
        record_property("after a lost PUBREL", "PUBLISH" if is_repeated else "PUBREL")
        assert again == ((0x3C, body) if is_repeated else (0x62, b"\0\x01"))
        if is_repeated:
            connection.send(b"\x50\x02\0\x01")
            assert connection.packet() == (0x62, b"\0\x01")
        connection.send(b"\x70\x02\0\x01")
        broker.wait_for_log("Received PUBCOMP from bare")
    assert broker.published_again("bare") == is_repeated


def test_what_a_broker_publishes_again_after_its_pubrel_is_handled_again(proxy, broker):
    peer = broker.peer()
    proxy.swallow("PUBCOMP", "up", times=1)
    with Device(proxy, HANDLER) as device:
        device.subscribed()
        peer.publish("t", "x", qos=2)
        proxy.wait_for("PUBCOMP", "up")
        connect_and_reset(broker, "device")
        proxy.wait_for_connections(2)
        proxy.wait_for("PUBCOMP", "up", count=2)
        device.leave()
    assert got(device) == ["x"] * (1 + broker.published_again("device"))


ODD = {  # QoS, the answers to PUBLISH and to PUBREL
    "QoS 2: PUBACK": (2, 0x40, None),
    "QoS 2: PUBACK to PUBREL": (2, 0x50, 0x40),
    "QoS 2: PUBREC to PUBREL": (2, 0x50, 0x50),
    "QoS 1: PUBREC": (1, 0x50, 0x70),
    "QoS 2: PUBCOMP": (2, 0x70, None),
    "QoS 1: PUBCOMP": (1, 0x70, None),
}


@BOTH
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
def test_what_a_broker_acknowledges_as_if_with_another_qos_is_delivered(
    tmp_path, case, stored, protocol
):
    """Brokers without QoS 2 answer it with PUBACK. Nothing of it may go on for ever."""
    qos, first, second = ODD[case]
    again = first == 0x70  # this says nothing before it was sent twice
    published = []

    def script(connection):
        present = connection.number > 1
        old = RESUMED if present else CONNACK
        connection.accept(five.connack(present=present) if protocol == 5 else old)
        while True:
            kind, body = connection.packet()
            if kind & 0xF0 == 0x30:
                published.append(bytes([kind & 8]) + body[-1:])
                connection.send(bytes([first, 2]) + body[3:5])
            elif kind == 0x62:
                connection.send(bytes([second, 2]) + body[:2])

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            f"""
            async with client:
                for payload in "123":
                    print("code", await client.publish("t", payload, qos={qos}))
                if not {again}:
                    client.enqueue("t", "4", qos={qos})
            assert to_send(client) == 0
            assert not client.store or len(store) == 0
            """,
            store=tmp_path / "store" if stored else None,
            protocol=protocol,
            ack_timeout_s=1 if again else 20,
        )
    assert out.count("code 0") == 3
    if again:
        assert published == [dup + each for each in b"1 2 3".split() for dup in (b"\0", b"\x08")]
        assert out.count("acknowledges what was not sent: PUBCOMP with packet id 1\n") == 1, out
    else:
        assert published == [b"\0" + each for each in b"1 2 3 4".split()]
        assert len(fake.connections) == 1
        wanted = f"answers QoS {qos} as if it were QoS {3 - qos}"
        if second == 0x50:
            wanted = "answers PUBREL with PUBREC without end"
        assert out.count(wanted) == 1, out
        assert ("publish with qos=1" in out) == (qos == 2 and second != 0x50)
    assert out.count("the broker a") == (2 if again and qos == 1 else 1), out


@BOTH
def test_a_broker_that_acknowledges_everything_twice_costs_no_message(protocol):
    """What comes a second time is not taken for the next message's, which may have its id."""
    got = []

    def script(connection):
        connection.accept(five.connack() if protocol == 5 else CONNACK)
        held = {}
        while True:
            kind, body = connection.packet()
            n = body[3:5] if kind & 0xF0 == 0x30 else body[:2]
            if kind == 0x32:
                got.append(body[-1:])
                connection.send((b"\x40\2" + n) * 2)
            elif kind == 0x34:
                assert n not in held
                held[n] = body[-1:]
                connection.send((b"\x50\2" + n) * 2)
            elif kind == 0x62:
                if n in held:
                    assert len(body) == 2
                    got.append(held.pop(n))
                connection.send((b"\x70\2" + n) * 2)
            elif kind == 0x82:
                assert protocol == 5 or body[2:] == b"\0\1f\0"
                code = b"\x90\4" + n + b"\0\0" if protocol == 5 else b"\x90\3" + n + b"\0"
                # as if it were a PUBLISH, then twice rightly
                connection.send(b"\x40\2" + n + b"\x50\2" + n + code * 2)

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            """
            async with client:
                await client.subscribe("f")
                for n in range(30):
                    for qos in (1, 2):
                        assert await client.publish("t", chr(65 + n), qos=qos) == 0
                for n in range(8):
                    client.enqueue("t", str(n), qos=1 + n % 2)
            assert to_send(client) == 0
            """,
            protocol=protocol,
        )
        assert len(fake.connections) == 1, out
    wanted = [bytes([65 + n]) for n in range(30) for _ in (1, 2)] + [b"%d" % n for n in range(8)]
    assert sorted(got) == sorted(wanted)
    assert out.count("the broker acknowledges what was not sent: PUBACK with packet id 1\n") == 1
    assert out.count("the broker a") == 1, out


def test_a_broker_that_answers_an_unknown_pubrel_with_pubrec_is_not_answered_for_ever():
    pubrels = []

    def script(connection):
        connection.accept()
        connection.send(b"\x50\2\0\x63")
        while True:
            kind, body = connection.packet()
            if kind == 0x62:
                pubrels.append(body)
                connection.send(b"\x50\2" + body)
            elif kind == 0x32:
                connection.send(b"\x40\2" + body[3:5])

    out = Device.against(
        script,
        """
        from tests.device.inside import strays

        async with client:
            await until(lambda: strays(client) == 33)
            await client.publish("t", "x", qos=1)
        """,
    )
    assert pubrels == [b"\0\x63"] * 32
    assert out.count("it is answered no more") == 1, out


@BOTH
@pytest.mark.parametrize("missing", ["PUBACK", "PUBREC", "PUBCOMP"])
def test_a_message_that_is_never_acknowledged_is_a_suspect_and_can_be_given_up(missing, protocol):
    qos = 1 if missing == "PUBACK" else 2

    def script(connection):
        first, connect = connection.packet()
        present = int(connection.number > 1 and not connect[7] & 2)
        connection.send(
            five.connack(present=present) if protocol == 5 else (CONNACK, RESUMED)[present]
        )
        while True:
            first, body = connection.packet()
            if first & 6 == 4 and missing == "PUBCOMP":
                connection.send(b"\x50\x02" + body[5:7])

    out = Device.against(
        script,
        f"""
        events = client.events()
        async with client:
            with raises(MQTTError, "given up: 3 connections"):
                await client.publish("bad", "x", qos={qos})
            assert to_send(client) == 0
            event = await next_event(events, "Suspect")
            assert event.topic == "bad"
        """,
        protocol=protocol,
        ack_timeout_s=1,
        give_up_after=3,
        drain_s=0,
    )
    assert "the broker does not acknowledge a message to 'bad'" in out, out


@pytest.mark.parametrize(("stored", "protocol"), [(False, 4), (True, 5)])
def test_a_pubrel_at_which_the_broker_hangs_up_does_not_go_on_for_ever(tmp_path, stored, protocol):
    """aedes ends the connection when it knows nothing of the message any more."""
    published = []
    pubrels = []

    def script(connection):
        present = connection.number > 1
        old = RESUMED if present else CONNACK
        connection.accept(five.connack(present=present) if protocol == 5 else old)
        while True:
            first, body = connection.packet()
            if first & 0xF0 == 0x30:
                published.append(body[-1:])
                connection.send(b"\x50\2" + body[3:5])
            elif first == 0x62:
                pubrels.append((connection.number, body[1]))
                if len(published) > 1:
                    connection.send(b"\x70\2" + body[:2])
                else:
                    return

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            """
            async with client:
                assert await client.publish("t", "1", qos=2) == 0
                print("delivered")
                for n in range(2, 22):
                    assert await client.publish("t", chr(65 + n), qos=2) == 0
            assert to_send(client) == 0
            assert not client.store or len(store) == 0
            """,
            store=tmp_path / "store" if stored else None,
            protocol=protocol,
        )
    assert published == [b"1"] + [bytes([65 + n]) for n in range(2, 22)]
    # once more before the next message, as the broker may have it; then that id is not used
    assert [n for n, packet_id in pubrels if packet_id == 1] == list(range(1, 10))
    assert out.count("does not answer PUBREL: a message to 't' counts as delivered") == 1, out


def test_what_resets_leave_between_pubrec_and_pubrel_is_delivered_and_takes_no_place(broker):
    """
    mosquitto counts each against its window of 20 and drops what is beyond that, with a PUBREC as
    if it had taken it.
    """
    peer = broker.peer("t", qos=2)
    program = """
        async with client:
            print(N, await client.publish("t", str(N), qos=2))
    """
    with Proxy(broker.port) as proxy:
        for n in range(24):
            proxy.swallow("PUBREC", "down")
            with Device(proxy, program, names={"N": n}, log=None) as device:
                proxy.wait_for("PUBREC", "down", count=n + 1)
                device.kill()
            proxy.heal()
        for n in (24, 25):
            assert f"{n} 0" in Device.check(proxy, program, names={"N": n})
    peer.wait_for(26)
    assert sorted(int(payload) for _, payload in peer.received) == list(range(26))


ANSWERS = {"silent": 0, "hangs up": 0, "a few, then hangs up": 5, "unknown": 16}


@BOTH
@pytest.mark.parametrize("answers", ANSWERS)
def test_a_broker_is_asked_for_what_was_left_until_it_answers_or_does_not(
    tmp_path, protocol, answers
):
    """A broker may know nothing of an id: it says so (5.0), or nothing, or ends the connection."""
    published = []
    asked = []

    def script(connection):
        _, connect = connection.packet()
        present = int(not connect[7] & 2)
        connection.send(five.connack(present=present) if protocol == 5 else RESUMED)
        left = ANSWERS[answers]
        while True:
            first, body = connection.packet()
            if first & 0xF0 == 0x30:
                published.append(connection.number)
                connection.send(b"\x50\2" + body[3:5])
            elif first == 0x62 and published:
                connection.send(b"\x70\2" + body[:2])
            elif first == 0x62:
                asked.append((connection.number, body[1]))
                if left:
                    left -= 1
                    code = b"\x70\3%s\x92" if protocol == 5 else b"\x70\2%s"
                    connection.send(code % body)
                elif answers != "silent":
                    connection.sock.shutdown(socket.SHUT_WR)  # close() would lose the answers
                    connection.until_closed()

    store = tmp_path / "store" if protocol == 5 else None  # else its session is a new one
    if store:
        with FakeBroker(lambda connection: connection.accept(five.connack())) as fake:
            Device.check(fake, "await client.connect()", store=store, protocol=5)
    with FakeBroker(script) as fake:
        Device.check(
            fake,
            """
            async with client:
                for n in range(3):
                    assert await client.publish("t", "x", qos=2) == 0
            """,
            store=store,
            protocol=protocol,
            ack_timeout_s=1,
        )
        connections = len(fake.connections)
    assert published == [connections] * 3
    if answers == "a few, then hangs up":
        assert sorted({n for _, n in asked}) == list(range(1, 17))
        assert connections == 4
    else:
        assert connections == (1 if answers == "unknown" else 2)
        assert {number for number, _ in asked} == {1}
