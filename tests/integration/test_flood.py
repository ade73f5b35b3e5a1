"""
More messages than handlers keep up with: reading waits, the rest stays at the broker, and
nothing else suffers. When it must not wait any more: test_client_receive.py.
"""

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.secure import files

BOTH = pytest.mark.parametrize("protocol", [4, 5])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])
SMALL = {"max_packet": 500, "max_backlog": 1000}
WAITS = r"handlers are behind: \d+ bytes wait \(max_backlog\): reading waits"

SLOW = """
got = []

@client.on("t/#", qos=QOS)
async def handler(message):
    await asyncio.sleep_ms(PAUSE_MS)
    got.append(int(message.payload))

async with client:
    await until(lambda: len(got) == COUNT)
    stats = client.stats
    print("got", got)
    print("stats", stats.received, stats.dropped, stats.duplicates, stats.connects)
    await told("leave")
"""


def slow(to, count, *, qos=0, pause_ms=5, program=SLOW, **options):
    names = {"COUNT": count, "QOS": qos, "PAUSE_MS": pause_ms}
    return Device(to, program, names=names, **{**SMALL, **options})


def once(lines, text):
    return len([line for line in lines if text in line]) == 1


@BOTH
@QOS
def test_retained_messages_beyond_the_backlog_arrive_once_on_one_connection(
    proxy, broker, protocol, qos
):
    peer = broker.peer()
    for n in range(200):
        peer.publish(f"t/{n}", str(n).zfill(60), qos=1, retain=True)
    with slow(proxy, 200, qos=qos, protocol=protocol) as device:
        device.wait_for(WAITS)
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    assert sorted(got) == list(range(200))
    assert device.said("stats") == ["200 0 0 1"]
    assert once(device.lines, "handlers are behind")


def test_pings_go_on_and_the_silence_is_not_held_against_the_broker(proxy, broker):
    """Handlers take 10 s, the broker closes after 3 s without a packet."""
    with slow(proxy, 20, pause_ms=500, keepalive_s=2, max_packet=200, max_backlog=320) as device:
        device.subscribed()
        broker.publish("t/1", *range(20), qos=0)
        assert eval(device.wait_for("^got", 60)[4:]) == list(range(20))
        device.leave()
    assert device.said("stats") == ["20 0 0 1"]
    assert len(proxy.seen("PINGREQ", "up")) > 2


@BOTH
def test_a_publish_whose_answer_comes_behind_the_flood_is_not_overdue(proxy, broker, protocol):
    program = SLOW.replace(
        'print("got", got)', 'await own\n    print("published")\n    print("got", got)'
    ).replace(
        "async with client:",
        """async def publish():
    await until(lambda: got)
    await client.publish("own", "x", qos=2)

async with client:
    own = asyncio.create_task(publish())""",
    )
    peer = broker.peer()
    for n in range(40):
        peer.publish(f"t/{n}", str(n).zfill(60), retain=True)
    options = {"program": program, "protocol": protocol, "pause_ms": 100, "ack_timeout_s": 1}
    with slow(proxy, 40, **options) as device:
        device.wait_for("published")
        device.leave()
    assert device.said("stats") == ["40 0 0 1"]


ANSWERS = SLOW.replace(
    "await asyncio.sleep_ms(PAUSE_MS)",
    'await client.publish("back", message.payload, qos=BACK)',
).replace("len(got) == COUNT", "len(got) + client.stats.dropped == COUNT")
KEPT = r"handlers are behind: \d+ bytes wait \(max_backlog\): more is kept"


def answers(to, count, *, back=1, program=ANSWERS, **options):
    program = program.replace("BACK", str(back))
    return slow(to, count, program=program, keepalive_s=600, **options)


def retained(broker, count, size=60):
    peer = broker.peer()
    for n in range(count):
        peer.publish(f"t/{n}", str(n).zfill(size), qos=1, retain=True)


@BOTH
@QOS
def test_handlers_that_answer_a_burst_lose_and_double_nothing_on_one_connection(
    proxy, broker, protocol, qos
):
    """The answers of the broker come behind the burst, which does not fit."""
    retained(broker, 100)
    with broker.peer("back", qos=2) as sees:
        with answers(proxy, 100, qos=qos, back=1 + qos % 2, protocol=protocol) as device:
            device.wait_for(KEPT)
            got = eval(device.wait_for("^got")[4:])
            device.leave()
        assert [int(message.payload) for message in sees.wait_for(100)] == got
    assert sorted(got) == list(range(100))
    assert device.said("stats") == ["100 0 0 1"]
    assert once(device.lines, "more is kept")


def test_the_same_over_tls(tls_proxy, tls_broker, pki):
    retained(tls_broker, 100)
    with answers(tls_proxy, 100, qos=1, tls=files(pki.ca)) as device:
        device.wait_for(KEPT)
        assert sorted(eval(device.wait_for("^got")[4:])) == list(range(100))
        device.leave()
    assert device.said("stats") == ["100 0 0 1"]


OPENS = """
opened = []

async def opens():
    await told("open")
    opened.append(1)

asyncio.create_task(opens())
async with client:"""


@BOTH
def test_messages_of_each_qos_that_were_put_aside_keep_their_order(broker, protocol):
    """Large and small ones, with properties and without, one that is passed over between them."""
    properties = {"user_property": ("a", "b"), "response_topic": "r"}
    program = ANSWERS.replace(
        "got.append(int(message.payload))",
        """await until(lambda: opened)
    n = int(message.payload)
    got.append(n)
    assert len(message.payload) == (9 if n % 3 else 600) and message.topic == "t/ü"
    if PROTOCOL == 5 and n % 5 == 0:
        assert message.properties == {"user_property": [("a", "b")], "response_topic": "r"}
    else:
        assert message.properties is None""",
    )
    program = program.replace("PROTOCOL", str(protocol)).replace("async with client:", OPENS)
    with answers(broker, 60, qos=2, program=program, protocol=protocol, max_packet=800) as device:
        device.subscribed()
        peer = broker.peer(protocol=protocol)
        for n in range(60):
            more = {"properties": properties} if protocol == 5 and n % 5 == 0 else {}
            peer.publish("t/ü", str(n).zfill(9 if n % 3 else 600), qos=n % 3, **more)
            if n == 30:
                peer.publish("t/ü", bytes(1000), qos=1)
        device.wait_for(KEPT)
        device.send("open")
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    for qos in range(3):  # the broker has a window for two of them
        assert [n for n in got if n % 3 == qos] == list(range(qos, 60, 3))
    assert once(device.lines, "more is kept")
    assert "failed" not in device.report()


@QOS
def test_a_task_of_its_own_that_a_handler_waits_for_gets_its_answer(proxy, broker, qos):
    program = ANSWERS.replace(
        'await client.publish("back", message.payload, qos=BACK)',
        "await asyncio.wait_for(answer(message), 60)",
    ).replace(
        "got = []",
        """got = []

async def answer(message):
    await client.publish("back", message.payload, qos=BACK)
""",
    )
    retained(broker, 40)
    with answers(proxy, 40, qos=qos, program=program) as device:
        device.wait_for(KEPT)
        assert sorted(eval(device.wait_for("^got")[4:])) == list(range(40))
        device.leave()
    assert device.said("stats") == ["40 0 0 1"]


def test_where_there_is_no_memory_for_it_qos_0_gives_way(proxy, broker):
    retained(broker, 60)
    program = f"set_surplus(1000)\n{ANSWERS}"
    with answers(proxy, 60, program=program) as device:
        device.wait_for("handlers are behind: .*: QoS 0 gives way")
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    received, dropped, _, connects = map(int, device.said("stats")[0].split())
    assert (received, connects) == (60, 1) and 0 < dropped < 50
    assert len(got) == 60 - dropped
    assert once(device.lines, "gives way")


@pytest.mark.parametrize("qos", [1, 2])
def test_where_there_is_no_memory_for_it_the_broker_sends_again(proxy, broker, qos):
    retained(broker, 60)
    # what is acknowledged right before the end of a connection may come again, with QoS 1
    program = f"set_surplus(3000)\n{ANSWERS}".replace("len(got)", "len(set(got))")
    with answers(proxy, 60, qos=qos, program=program) as device:
        device.wait_for("handlers are behind: .*: the broker will send again")
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    assert sorted(set(got) if qos == 1 else got) == list(range(60))
    assert int(device.said("stats")[0].split()[3]) > 1


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"protocol": 4, "clean_start": True},
        {"protocol": 5, "session_expiry_s": 0},
        {"protocol": 5, "clean_start": True, "properties": {"session_expiry_interval": 0}},
    ],
)
def test_where_the_session_ends_with_the_connection_it_gives_way_and_all_goes_on(
    proxy, broker, qos, options
):
    """A new connection would begin anew with what is retained, and never get beyond it."""
    retained(broker, 60)
    program = f"set_surplus(1000)\n{ANSWERS}".replace(
        'await told("leave")',
        """await told("more")
    await until(lambda: got[-1] == 99)
    stats = client.stats
    print("more", stats.connects, len(got) == len(set(got)))
    await told("leave")""",
    )
    with answers(proxy, 60, qos=qos, program=program, **options) as device:
        device.wait_for("handlers are behind: .*: more is dropped")
        got = eval(device.wait_for("^got")[4:])
        broker.publish("t/99", "99", qos=2)  # what comes then is handled as ever
        device.send("more")
        assert device.wait_for("^more") == "more 1 True"
        device.leave()
    received, dropped, duplicates, connects = map(int, device.said("stats")[0].split())
    assert (received, duplicates, connects) == (60, 0, 1) and 0 < dropped < 50
    assert len(got) == len(set(got)) == 60 - dropped
    assert once(device.lines, "more is dropped")


@pytest.mark.parametrize(
    "options", [{"protocol": 5, "clean_start": True}, {"protocol": 5}, {"protocol": 4}]
)
def test_where_the_session_outlives_the_connection_nothing_is_dropped(proxy, broker, options):
    retained(broker, 60)
    program = f"set_surplus(1000)\n{ANSWERS}"
    # a broker that keeps no more than it was told would not show it
    with answers(proxy, 60, qos=1, program=program, **options) as device:
        assert sorted(set(eval(device.wait_for("^got")[4:]))) == list(range(60))
        device.leave()
    assert device.said("stats")[0].split()[1] == "0"


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_put_aside_when_the_connection_breaks_is_handled_once(proxy, broker, qos):
    program = ANSWERS.replace(
        "await client.publish", "await until(lambda: opened or not got)\n    await client.publish"
    ).replace("async with client:", OPENS)
    retained(broker, 60)
    proxy.swallow("PUBACK", "down", times=1)
    with answers(proxy, 60, qos=qos, program=program) as device:
        device.wait_for(KEPT)
        proxy.wait_for("PUBACK", "down")
        proxy.rst()
        device.wait_for("session resumed")
        device.send("open")
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    assert sorted(got) == list(range(60))


def test_the_client_can_leave_and_come_back_while_messages_are_put_aside(broker):
    Device.check(
        broker,
        """
        got = []

        @client.on("t/#")
        async def handler(message):
            got.append(int(message.payload))
            await client.publish("t/1", "1", qos=1)

        for n in range(3):
            async with client:
                await until(lambda: granted(client) == [0])
                del got[:]
                for _ in range(60):
                    await client.publish("t/1", "%060d" % 0)
                await until(lambda: len(client.dispatcher.others) > 1)
            assert len(client.dispatcher.others) == 1 and client.dispatcher.size == 0
        """,
        drain_s=0.1,
        **SMALL,
    )


def test_a_handler_that_waits_for_a_subscription_gets_it(proxy, broker):
    program = SLOW.replace(
        "await asyncio.sleep_ms(PAUSE_MS)", 'await client.subscribe("more", qos=1)'
    ).replace("len(got) == COUNT", "len(got) + client.stats.dropped == COUNT")
    peer = broker.peer()
    for n in range(40):
        peer.publish(f"t/{n}", str(n).zfill(60), retain=True)
    with slow(proxy, 40, program=program, keepalive_s=600) as device:
        device.wait_for("^got")
        device.leave()
    assert proxy.connections == 1


def test_a_handler_that_waits_for_a_response_gets_it(proxy, broker):
    program = """
    @client.on("ask", qos=1)
    async def answer(message):
        await client.respond(message, "yes")
    """
    asks = SLOW.replace(
        "await asyncio.sleep_ms(PAUSE_MS)", 'await client.request("ask", "", timeout_s=60)'
    ).replace("len(got) == COUNT", "len(got) + client.stats.dropped == COUNT")
    peer = broker.peer()
    for n in range(40):
        peer.publish(f"t/{n}", str(n).zfill(60), retain=True)
    with Device(broker, program, protocol=5) as other:
        other.subscribed()
        with slow(
            proxy, 40, program=asks, protocol=5, client_id="asks", keepalive_s=600
        ) as device:
            device.wait_for("^got")
            device.leave()
    assert proxy.connections == 1


# with QoS 1 what is acknowledged when the broker has gone, unnoticed, comes again
@pytest.mark.parametrize(
    ("qos", "noticed", "again"),
    [(1, True, True), (1, True, False), (2, True, True), (2, True, False), (2, False, True)],
)
def test_what_waits_for_room_when_the_connection_breaks_is_handled_once(
    proxy, broker, qos, noticed, again
):
    """`again`: the connection between brings some of it once more, or ends before that."""
    program = SLOW.replace(
        "await asyncio.sleep_ms(PAUSE_MS)",
        'print("begins") if not got else None\n    await until(lambda: opened)',
    ).replace(
        "async with client:",
        """opened = []

async def opens():
    await told("open")
    opened.append(1)

asyncio.create_task(opens())
async with client:""",
    )
    with slow(proxy, 40, qos=qos, program=program, keepalive_s=4) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("t/1", "0", qos=qos)
        device.wait_for("begins")
        for n in range(1, 40):
            peer.publish("t/1", str(n).zfill(60), qos=qos)
        device.wait_for(WAITS)
        if not again:
            proxy.kill_on("CONNACK", "down", after=True, how="fin")
        proxy.rst()
        device.wait_for("session resumed")
        if again:
            proxy.fin()
        if noticed:
            device.wait_for("connection lost")
        device.send("open")
        device.wait_for("session resumed")
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    assert got == list(range(40))
    assert device.said("stats")[0].split()[1] == "0"


@BOTH
@pytest.mark.parametrize("half_way", [False, True])
def test_with_qos_1_nothing_is_lost_in_a_connection_that_ended_unnoticed(
    proxy, broker, protocol, half_way
):
    """
    Nobody reads, as handlers are behind: both ways each message arrives at least once, in the
    order of the first time, and none counts as delivered that the broker does not have.
    """
    program = """
    got = []
    opened = []

    @client.on("t/#", qos=1)
    async def handler(message):
        if not got:
            print("begins")
        await until(lambda: opened)
        got.append(int(message.payload))

    async def publish(n):
        await client.publish("up", str(n), qos=1)
        print("delivered", n)

    async with client:
        await told("publish")
        tasks = [asyncio.create_task(publish(n)) for n in range(20)]
        await asyncio.sleep_ms(50)
        print("published")
        await told("open")
        opened.append(1)
        await asyncio.gather(*tasks)
        await client.publish("up", "end", qos=1)
        await until(lambda: len(set(got)) == COUNT)
        print("got", got)
        await told("leave")
    """
    up = broker.peer("up", qos=1)
    with slow(proxy, 40, qos=1, program=program, protocol=protocol, keepalive_s=60) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("t/1", "0", qos=1)
        device.wait_for("begins")
        for n in range(1, 40):
            peer.publish("t/1", str(n).zfill(60), qos=1)
        device.wait_for(WAITS)
        if half_way:  # what was sent is on its way, its acknowledgements are not read
            device.send("publish")
            device.wait_for("^published")
            up.wait_for(1)
        proxy.refuse()
        proxy.fin()
        if not half_way:
            device.send("publish")
            device.wait_for("^published")
        device.send("open")
        device.wait_for("not connected")
        delivered = [int(n) for n in device.said("delivered")]
        there = {message.payload for message in up.messages}
        assert {str(n).encode() for n in delivered} <= there
        proxy.heal()
        got = eval(device.wait_for("^got")[4:])
        delivered = [int(n) for n in device.said("delivered")]
        device.leave()
    assert list(dict.fromkeys(got)) == list(range(40))
    assert max(got.count(n) for n in range(40)) <= 2
    assert sorted(delivered) == list(range(20))
    up.wait_for(21)
    numbers = []
    while b"end" not in numbers:
        numbers = [message.payload for message in up.wait_for(len(numbers) + 1)]
    assert list(dict.fromkeys(numbers)) == [*(str(n).encode() for n in range(20)), b"end"]


def test_the_client_can_leave_while_reading_waits(broker):
    out = Device.check(
        broker,
        """
        got = []

        @client.on("t/#")
        async def handler(message):
            got.append(1)
            await asyncio.Event().wait()

        async with client:
            await client.wait_connected()
            for n in range(40):
                await client.publish("t/1", bytes(60))
            await until(lambda: client.connection.waiting)
            own = asyncio.create_task(client.publish("own", "x", qos=1))
            await asyncio.sleep_ms(0)
        await own
        print("left", len(got))
        """,
        keepalive_s=600,
        drain_s=3,
        **SMALL,
    )
    assert "left 1" in out


def test_an_iterator_is_waited_for_as_a_handler_is(proxy, broker):
    program = """
    async with client:
        await client.subscribe("t/#", qos=0)
        got = []
        async with client.messages() as messages:
            async for message in messages:
                await asyncio.sleep_ms(5)
                got.append(int(message.payload))
                if len(got) == 100:
                    break
        print("got", got)
        print("stats", client.stats.dropped, client.stats.connects)
        await told("leave")
    """
    peer = broker.peer()
    for n in range(100):
        peer.publish(f"t/{n}", str(n).zfill(60), retain=True)
    with Device(proxy, "messages = client.messages()", program, **SMALL) as device:
        got = eval(device.wait_for("^got")[4:])
        device.leave()
    assert sorted(got) == list(range(100))
    assert device.said("stats") == ["0 1"]


def test_a_broker_that_drops_what_exceeds_the_receive_maximum_drops_nothing():
    """MQTT 5.0: section 3.1.2.11.3. FlashMQ does so; no Receive Maximum is 65,535."""

    def script(connection):
        body = connection.accept(five.connack())
        assert b"\x21" not in body[11:16]
        _, body = connection.packet()
        connection.send(five.suback(body, 1))
        data = [five.publish(f"t/{n}", b"%d" % n, qos=1, packet_id=n + 1) for n in range(65)]
        connection.send(b"".join(data))
        answers = [connection.packet() for _ in range(65)]
        assert answers == [(0x40, (n + 1).to_bytes(2, "big")) for n in range(65)]

    Device.against(
        script,
        """
        got = []

        @client.on("t/#", qos=1)
        async def handler(message):
            await asyncio.sleep_ms(5)
            got.append(int(message.payload))

        async with client:
            await until(lambda: len(got) == 65)
            assert got == list(range(65))
        """,
        protocol=5,
        **SMALL,
    )
