"""
A message that does not fit, over max_packet or without memory for it: it is passed over,
acknowledged and told, and nothing else is touched.
"""

import ast
import time

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, FakeBroker
from tests.support.secure import files

BOTH = pytest.mark.parametrize("protocol", [4, 5])
QOS = pytest.mark.parametrize("qos", [0, 1, 2])
# a broker may ignore the Maximum Packet Size; mosquitto does not, unless it was given none
ANY_SIZE = {4: {}, 5: {"properties": {"maximum_packet_size": None}}}

HOUSE = """
events = client.events()

async def tell_events():
    async for event in events:
        if type(event).__name__ == "Oversized":
            print("event", repr(event.topic), event.size)

asyncio.create_task(tell_events())

@client.on("home/#", qos=2)
def handler(message):
    print("got", message.topic, len(message.payload))
"""
STAYS = """
async with client:
    await told("leave")
print("stats", client.stats.oversized, client.stats.received, client.stats.connects)
print("left", left_over(client))
"""


def house(to, *more, protocol=4, max_packet=512, max_backlog=4096, **options):
    options = {**ANY_SIZE[protocol], **options}
    return Device(
        to,
        HOUSE,
        *more,
        STAYS,
        protocol=protocol,
        max_packet=max_packet,
        max_backlog=max_backlog,
        **options,
    )


def names(proxy, way, *kinds):
    return [each.name for each in proxy.packets if each.direction == way and each.name in kinds]


@BOTH
@QOS
def test_a_retained_message_over_max_packet_is_passed_over_and_the_others_arrive(
    proxy, broker, protocol, qos
):
    peer = broker.peer()
    peer.publish("home/camera", bytes(6000), qos=qos, retain=True)
    peer.publish("home/lamp", b"on", qos=1, retain=True)
    with house(proxy, protocol=protocol) as device:
        device.wait_for("message of 60.. bytes to 'home/camera' was passed over")
        device.wait_for("got home/lamp 2")
        peer.publish("home/lamp", b"off", qos=qos)
        device.wait_for("got home/lamp 3")
        proxy.rst()  # had it not been acknowledged, it would come again
        device.wait_for("session resumed")
        peer.publish("home/lamp", b"again", qos=qos)
        device.wait_for("got home/lamp 5")
        device.leave()
    size = 3 + 2 + len("home/camera") + 2 * (qos > 0) + (protocol == 5) + 6000
    assert device.said("event") == [f"'home/camera' {size}"]
    assert device.said("stats")[0].split()[::2] == ["1", "2"]
    assert device.said("left") == ["[]"]
    assert len([line for line in device.lines if "passed over" in line]) == 1
    line = next(line for line in device.lines if "passed over" in line)
    assert line.endswith(
        f"message of {size} bytes to 'home/camera' was passed over: max_packet is 512"
        " -> raise max_packet=, or read it in pieces: stream=True"
    )


@BOTH
def test_one_with_qos_2_has_all_four_packets(proxy, broker, protocol):
    with house(proxy, protocol=protocol) as device:
        device.subscribed()
        broker.publish("home/camera", bytes(6000), qos=2)
        device.wait_for("event 'home/camera'")
        proxy.wait_for("PUBCOMP", "up")
        device.leave()
    assert names(proxy, "up", "PUBREC", "PUBCOMP") == ["PUBREC", "PUBCOMP"]
    assert names(proxy, "down", "PUBLISH", "PUBREL") == ["PUBLISH", "PUBREL"]
    [received] = proxy.seen("PUBREC", "up")
    assert received.body[2:] == b""  # success: a code over 127 ends it differently at each broker
    assert device.said("left") == ["[]"]


@BOTH
def test_many_in_a_row_are_told_once_a_topic_and_acknowledged_in_order(proxy, broker, protocol):
    with house(proxy, protocol=protocol) as device:
        device.subscribed()
        peer = broker.peer()
        for n in range(30):
            peer.publish(f"home/camera{n % 3}", bytes(1000 + n), qos=1 + n % 2)
            peer.publish("home/lamp", bytes(n), qos=1)
        device.wait_for("got home/lamp 29")
        device.leave()
    assert device.said("stats") == ["30 60 1"]
    assert len(device.said("event")) == 30
    assert len([line for line in device.lines if "passed over" in line]) == 3
    sent = [each.packet_id for each in proxy.seen("PUBLISH", "down")]
    answered = [
        each.packet_id
        for each in proxy.packets
        if each.direction == "up" and each.name in ("PUBACK", "PUBREC")
    ]
    assert answered == sent


def test_its_acknowledgement_waits_for_those_before_it(proxy, broker):
    with house(proxy, 'client.on("slow", qos=1)(hold)') as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("slow", "first")
        device.wait_for("got first 1")
        peer.publish("home/camera", bytes(1000))
        device.wait_for("event 'home/camera'")
        assert proxy.seen("PUBACK", "up") == []
        device.send("end")
        device.wait_for("ends first")
        proxy.wait_for("PUBACK", "up", 2)
        device.leave()
    assert [each.packet_id for each in proxy.seen("PUBACK", "up")] == [1, 2]


def test_one_that_was_not_acknowledged_comes_again_and_is_told_once(proxy, broker):
    with house(proxy, 'client.on("slow", qos=1)(hold)') as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("slow", "first")
        device.wait_for("got first 1")
        peer.publish("home/camera", bytes(1000))
        device.wait_for("event 'home/camera'")
        proxy.rst()
        device.wait_for("session resumed")
        proxy.wait_for("PUBLISH", "down", 4)
        device.send("end")
        device.wait_for("ends first")
        proxy.wait_for("PUBACK", "up", 2)
        device.leave()
    assert device.said("stats") == ["1 4 2"]
    assert device.said("left") == ["[]"]


@BOTH
@pytest.mark.parametrize("topic", ["home/" + "ü" * 4000, "水" * 2000], ids=["mixed", "no ASCII"])
def test_topic_and_properties_may_be_larger_than_the_buffer(broker, protocol, topic):
    with house(broker, 'client.on("+", 2)(got)', protocol=protocol, max_packet=64) as device:
        device.subscribed()
        peer = broker.peer(protocol=protocol)
        more = {}
        if protocol == 5:
            more["properties"] = {"user_property": ("a", "b" * 3000)}
        for qos in (0, 1, 2):
            peer.publish(topic, "x" * qos, qos=qos, **more)
        peer.publish("home/lamp", "on")
        device.wait_for("got home/lamp 2")
        device.leave()
    told = device.said("event")
    assert len(told) == 3
    for each in told:
        name = ast.literal_eval(each.rsplit(" ", 1)[0])
        assert topic.startswith(name) and 470 < len(name.encode()) <= 480
    assert device.said("stats") == ["3 4 1"]
    assert device.said("left") == ["[]"]


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_its_topic_alias_holds_for_those_after_it_however_it_is_cut(piece):
    """MQTT 5.0: section 3.3.2.3.4"""

    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.suback(body, 2))
        data = five.publish(
            "home/camera", bytes(900), five.user("a", "b"), b"\x23\0\1", qos=1, packet_id=7
        )
        data += five.publish("", b"small", b"\x23\0\1", qos=1, packet_id=8)
        for at in range(0, len(data), piece):
            connection.send(data[at : at + piece])
        answers = [connection.packet() for _ in range(2)]
        assert answers == [(0x40, b"\0\7"), (0x40, b"\0\x08")]
        connection.until_closed()

    with FakeBroker(script) as fake:
        properties = {"topic_alias_maximum": 4}
        with house(fake, protocol=5, properties=properties) as device:
            device.wait_for("got home/camera 5")
            device.leave()
    assert len(device.said("event")) == 1 and "'home/camera' " in device.said("event")[0]


LONG = five.user("a", "b" * 700)  # more than is kept of the properties
ALIASED = {
    "known": [("home/camera", 1)],
    "without its topic": [("home/camera", 1), ("", 1)],
    "changed": [("home/camera", 1), ("home/other", 1), ("", 1)],
}


@pytest.mark.parametrize("what", ALIASED)
@pytest.mark.parametrize("where", ["before", "behind"])
@QOS
def test_a_topic_alias_among_long_properties_holds(what, where, qos):
    """MQTT 5.0: section 3.3.2.3.4"""
    given = ALIASED[what]

    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.suback(body, 2))
        for n, (topic, alias) in enumerate(given):
            number = b"\x23" + alias.to_bytes(2, "big")
            properties = [number, LONG] if where == "before" else [LONG, b"\2\0\0\0\1", number]
            connection.send(five.publish(topic, bytes(90), *properties, qos=qos, packet_id=n + 7))
            if qos:
                assert connection.packet()[1] == (n + 7).to_bytes(2, "big")
        connection.send(five.publish("", b"small", b"\x23\0\1", qos=1, packet_id=30))
        assert connection.packet() == (0x40, b"\0\x1e")
        connection.until_closed()

    with FakeBroker(script) as fake:
        with house(fake, protocol=5, properties={"topic_alias_maximum": 4}) as device:
            last = next(topic for topic, _ in reversed(given) if topic)
            device.wait_for(f"got {last} 5")
            device.leave()
        assert len(fake.connections) == 1
    names = [each.rsplit(" ", 1)[0] for each in device.said("event")]
    assert names[0] == "'home/camera'" and names[-1] == f"'{last}'"
    assert len(names) == len(given)


@pytest.mark.parametrize("alias", [3, 4, 5, 65535])
@pytest.mark.parametrize("properties", [[], [LONG]], ids=["short", "long"])
@pytest.mark.parametrize("topic", ["", "home/camera"])
def test_one_with_an_alias_that_it_must_not_have_is_passed_over(alias, properties, topic):
    """What is wrong with it would be on every connection."""

    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.suback(body, 2))
        number = b"\x23" + alias.to_bytes(2, "big")
        connection.send(five.publish(topic, bytes(900), *properties, number, qos=1, packet_id=7))
        assert connection.packet() == (0x40, b"\0\7")
        connection.until_closed()

    with FakeBroker(script) as fake:
        with house(fake, protocol=5, properties={"topic_alias_maximum": 4}) as device:
            told = device.wait_for("^event")
            device.leave()
        assert len(fake.connections) == 1
    assert told.startswith(f"event '{topic or f'(topic alias {alias})'}' ")


def test_a_long_topic_that_an_alias_stands_for_is_known_whole():
    topic = "home/" + "ü" * 300

    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.suback(body, 2))
        connection.send(five.publish(topic, bytes(900), b"\x23\0\1", qos=1, packet_id=7))
        connection.send(five.publish("", b"small", b"\x23\0\1", qos=1, packet_id=8))
        assert [connection.packet() for _ in range(2)] == [(0x40, b"\0\7"), (0x40, b"\0\x08")]
        connection.until_closed()

    with FakeBroker(script) as fake:
        properties = {"topic_alias_maximum": 4}
        with house(fake, protocol=5, max_packet=700, properties=properties) as device:
            device.wait_for(f"got {topic} 5")
            device.leave()
    name = ast.literal_eval(device.said("event")[0].rsplit(" ", 1)[0])
    assert topic.startswith(name) and 470 < len(name.encode()) <= 480


def test_an_alias_of_a_topic_that_is_too_long_itself_stands_for_no_other():
    """What comes with it ends the connection, and comes again with its topic."""
    topic = "home/" + "x" * 900

    def script(connection):
        connection.accept(five.connack(present=connection.number > 1))
        if connection.number == 1:
            _, body = connection.packet()
            connection.send(five.suback(body, 2))
            connection.send(five.publish("home/lamp", b"on", b"\x23\0\1"))
            connection.send(five.publish(topic, bytes(900), b"\x23\0\1", qos=1, packet_id=7))
            assert connection.packet() == (0x40, b"\0\7")
            connection.send(five.publish("", b"small", b"\x23\0\1", qos=1, packet_id=8))
            assert connection.packet()[0] == 0xE0
            return
        connection.send(five.publish(topic, b"small", b"\x23\0\1", qos=1, packet_id=8, flags=8))
        assert connection.packet() == (0x40, b"\0\x08")
        connection.send(five.publish("home/lamp", b"off", b"\x23\0\2"))
        connection.until_closed()

    with FakeBroker(script) as fake:
        properties = {"topic_alias_maximum": 4}
        with house(fake, protocol=5, properties=properties) as device:
            device.wait_for("got home/lamp 3")
            device.leave()
    assert device.said("got") == ["home/lamp 2", "home/lamp 3"]
    assert len(device.said("event")) == 2


@pytest.mark.parametrize(
    "properties",
    [LONG[:-1], b"\x63" + LONG, LONG + b"\x23\0", LONG + b"\x0b\xff"],
    ids=["cut short", "unknown", "half an alias", "half a number"],
)
def test_malformed_long_properties_end_the_connection(properties):
    def script(connection):
        connection.accept(five.connack())
        _, body = connection.packet()
        connection.send(five.suback(body, 2))
        if connection.number == 1:
            connection.send(five.publish("home/camera", b"", properties))
        connection.until_closed()

    with FakeBroker(script) as fake, house(fake, protocol=5) as device:
        device.wait_for("connection lost: .*(section|MQTT-)")
        fake.wait_for_connections(2)
        device.leave()
    assert device.said("event") == []


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("at", [0, 3, 10, 15, 1900])
def test_one_that_is_cut_anywhere_comes_again_and_is_told_once(proxy, broker, protocol, qos, at):
    """In the header, in the topic, behind the packet id, in the payload."""
    with house(proxy, protocol=protocol) as device:
        device.subscribed()
        down = sum(len(each.raw) for each in proxy.packets if each.direction == "down")
        proxy.cut(down + at, "down")
        peer = broker.peer()
        peer.publish("home/camera", bytes(3000), qos=qos)
        peer.publish("home/lamp", b"on", qos=qos)
        device.wait_for("got home/lamp 2")
        device.leave()
    assert len(device.said("event")) == 1
    assert device.said("stats")[0].split()[::2] == ["1", "2"]
    assert device.said("left") == ["[]"]


@pytest.mark.parametrize(
    ("name", "direction"), [("PUBREC", "up"), ("PUBREL", "down"), ("PUBCOMP", "up")]
)
def test_with_qos_2_and_a_store_it_is_told_once_wherever_the_connection_ends(
    proxy, broker, tmp_path, name, direction
):
    proxy.kill_on(name, direction)
    with house(proxy, store=tmp_path / "store") as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("home/camera", bytes(3000), qos=2)
        device.wait_for("session resumed")
        peer.publish("home/lamp", b"on", qos=2)
        device.wait_for("got home/lamp 2")
        device.leave()
    assert len(device.said("event")) == 1


@BOTH
def test_over_tls_it_is_passed_over_as_well(tls_proxy, tls_broker, pki, protocol):
    with house(tls_proxy, protocol=protocol, tls=files(pki.ca)) as device:
        tls_broker.wait_for_log("Sending SUBACK to device")
        peer = tls_broker.peer()
        for qos in (0, 1, 2):
            peer.publish("home/camera", bytes(40_000), qos=qos)
        peer.publish("home/lamp", b"on")
        device.wait_for("got home/lamp 2")
        tls_broker.wait_for_log("Received PUBCOMP from device")  # else it sends it once more
        tls_proxy.rst()
        device.wait_for("session resumed")
        peer.publish("home/lamp", b"off", qos=2)
        device.wait_for("got home/lamp 3")
        device.leave()
    assert len(device.said("event")) == 3
    assert device.said("left") == ["[]"]


MALFORMED = {
    "a topic over its end": b"\xff\xff" + bytes(1000),
    "packet id 0": b"\0\1t\0\0" + bytes(1000),
    "a wildcard": b"\0\1#\0\1" + bytes(1000),
    "no topic": b"\0\0\0\1" + bytes(1000),
    "no UTF-8": b"\0\1\xff\0\1" + bytes(1000),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_what_no_server_may_send_ends_the_connection_though_it_is_too_large(what):
    body = MALFORMED[what]

    def script(connection):
        connection.accept()
        if connection.number == 1:
            connection.packet()
            connection.send(b"\x32" + five.varint(len(body)) + body)
        connection.until_closed()

    with FakeBroker(script) as fake, house(fake) as device:
        device.wait_for("connection lost: .*(section|MQTT-)")
        fake.wait_for_connections(2)
        device.leave()
    assert device.said("event") == []


def test_packets_of_other_types_over_max_packet_end_the_connection():
    def script(connection):
        connection.accept(five.connack())
        if connection.number == 1:
            connection.send(five.disconnect(0x8B, b"\x1f" + five.field("x" * 1000)))
        connection.until_closed()

    with FakeBroker(script) as fake, house(fake, protocol=5) as device:
        device.wait_for("connection lost: packet of 10.. bytes, max_packet is 512")
        fake.wait_for_connections(2)
        device.leave()


def test_a_publish_whose_answer_comes_behind_it_is_not_overdue():
    def script(connection):
        connection.accept()
        connection.packet()
        connection.send(b"\x30" + five.varint(2 + 4 + 3000) + b"\0\4home")
        _, body = connection.packet()
        for _ in range(10):  # longer than ack_timeout_s
            connection.send(bytes(300))
            time.sleep(0.3)
        connection.send(b"\x40\2" + body[5:7])
        connection.until_closed()

    with FakeBroker(script) as fake:
        with house(
            fake,
            """
            async def publish():
                await client.wait_connected()
                await client.publish("own", "x", qos=1)
                print("published")

            asyncio.create_task(publish())
            """,
            ack_timeout_s=2,
        ) as device:
            device.wait_for("published")
            device.leave()
        assert len(fake.connections) == 1


def test_a_connection_that_dies_in_its_middle_is_noticed():
    def script(connection):
        connection.accept()
        if connection.number == 1:
            connection.packet()
            connection.send(b"\x32" + five.varint(268_435_455) + b"\0\4home\0\1" + bytes(5000))
        connection.until_closed()

    with FakeBroker(script) as fake, house(fake) as device:
        device.wait_for("connection lost: no progress of a stream for 10 s")
        fake.wait_for_connections(2)
        device.leave()
        assert device.said("event") == []


def test_what_was_received_makes_no_sent_message_a_suspect():
    def script(connection):
        connection.accept()
        _, body = connection.packet()  # PUBLISH
        if connection.number < 6:
            connection.send(b"\x3f\0")
        else:
            connection.send(b"\x40\2" + body[3:5])
        connection.until_closed()

    out = Device.against(
        script,
        """
        async with client:
            await client.publish("t", "x", qos=1, timeout_s=60)
            print("connects", client.stats.connects)
        """,
        give_up_after=2,
    )
    assert "connects 6" in out
    assert "connections break" not in out and "given up" not in out


# Without memory

HUNGRY = """
from mqtt_as_tls import packet
from mqtt_as_tls.dispatch import Dispatcher

hungry = True
tries = 0

def _fails(size):
    global tries
    if hungry and size > LARGE:
        tries += 1
        raise MemoryError

def hunger(place):
    if place == "buffer":
        space = packet.Decoder.space
        def hungry_space(self):
            _fails(self.need)
            return space(self)
        packet.Decoder.space = hungry_space
    else:
        deliver = Dispatcher.deliver
        def hungry_deliver(self, message):
            _fails(len(message.payload))
            return deliver(self, message)
        Dispatcher.deliver = hungry_deliver
"""
PLACES = pytest.mark.parametrize("place", ["buffer", "payload"])


def hungry(to, place, *more, large=1000, **options):
    text = HUNGRY.replace("LARGE", str(large))
    text = text.replace("global tries", "nonlocal tries") + f'hunger("{place}")\n'
    return house(to, text, *more, max_packet=4096, **options)


@BOTH
@QOS
@PLACES
def test_one_for_which_there_is_no_memory_is_passed_over_after_some_tries(
    proxy, broker, place, qos, protocol
):
    with hungry(proxy, place, protocol=protocol) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("home/camera", bytes(3000), qos=qos)
        peer.publish("home/lamp", "on", qos=1)
        device.wait_for("got home/lamp 2")
        proxy.wait_for("PUBCOMP", "up") if qos == 2 else None
        device.leave()
    assert len(device.said("event")) == 1
    told = [line for line in device.lines if "passed over" in line]
    assert len(told) == 1 and "no memory for it -> free some" in told[0]
    # with QoS 0 it would not come again
    assert device.said("stats")[0].split()[::2] == ["1", "5" if qos else "1"]
    assert device.said("left") == ["[]"]


@PLACES
def test_one_for_which_there_is_memory_again_is_handled(proxy, broker, place):
    with hungry(
        proxy,
        place,
        """
        async def feed():
            nonlocal hungry
            await until(lambda: tries == 4)
            hungry = False

        asyncio.create_task(feed())
        """,
    ) as device:
        device.subscribed()
        broker.publish("home/camera", bytes(3000))
        device.wait_for("got home/camera 3000")
        device.leave()
    assert device.said("event") == []
    assert device.said("left") == ["[]"]


class Numbers:
    """
    A broker that sends one message of 2,000 bytes on each connection.

    ids   packet ids (iterable of int), one for each connection; the last one is used on
    acks  [(number of the connection, packet id)] that it got
    """

    def __init__(self, ids):
        self.ids = list(ids)
        self.acks = []

    def __call__(self, connection):
        n = connection.number
        connection.accept(CONNACK if n == 1 else RESUMED)
        if n == 1:
            _, body = connection.packet()
            connection.send(b"\x90\3" + body[:2] + b"\2")
        number = self.ids[min(n, len(self.ids)) - 1].to_bytes(2, "big")
        connection.send(b"\x3a" + five.varint(2015) + b"\0\x0bhome/camera" + number + bytes(2000))
        while True:
            first, body = connection.packet()
            if first == 0x40:
                self.acks.append((n, int.from_bytes(body, "big")))


def test_each_message_without_memory_has_as_many_tries_though_others_are_as_large():
    broker = Numbers([1, 1, 1, 1, 2])
    with FakeBroker(broker) as fake, hungry(fake, "payload") as device:
        device.wait_for("^event 'home/camera'")
        device.leave()
    assert broker.acks == [(9, 2)]


def test_a_broker_that_numbers_them_anew_each_time_is_not_asked_for_ever():
    broker = Numbers(range(1, 40))
    with FakeBroker(broker) as fake, hungry(fake, "payload") as device:
        device.wait_for("^event 'home/camera'")
        device.leave()
    assert broker.acks == [(25, 25)]


def test_one_for_which_there_was_memory_at_last_is_not_counted_against_the_next():
    """The packet id is used again, and the size may be the same."""
    broker = Numbers([3])
    with (
        FakeBroker(broker) as fake,
        hungry(
            fake,
            "payload",
            """
            async def feed():
                nonlocal hungry
                await until(lambda: tries == 4)
                hungry = False
                await told("hungry")
                hungry = True
                lose(client, MQTTError("lost"))

            asyncio.create_task(feed())
            """,
        ) as device,
    ):
        device.wait_for("got home/camera 2000")
        device.send("hungry")
        device.wait_for("^event 'home/camera'")
        device.leave()
    # four times none, once some, then five times none
    assert broker.acks == [(5, 3), (10, 3)]


@PLACES
def test_a_small_one_comes_until_there_is_memory(proxy, broker, place):
    """It needs no more than the client itself does: that is not the message's fault."""
    with hungry(
        proxy,
        "payload",
        """
        async def feed():
            nonlocal hungry
            await until(lambda: tries == 8)
            hungry = False

        asyncio.create_task(feed())
        """,
        large=200,
    ) as device:
        device.subscribed()
        broker.publish("home/camera", bytes(300))
        device.wait_for("got home/camera 300")
        device.leave()
    assert device.said("event") == []
    assert proxy.connections == 9


def test_a_stream_handler_reads_what_there_is_no_memory_for(proxy, broker):
    with hungry(
        proxy,
        "buffer",
        """
        @client.on("file", qos=1, stream=True)
        async def file(message):
            print("read", message.length, len(await message.stream.read(100)))
        """,
    ) as device:
        device.subscribed()
        peer = broker.peer()
        peer.publish("file", bytes(3000))
        device.wait_for("read 3000 100")
        peer.publish("home/camera", bytes(5000))  # none of the stream handler's
        device.wait_for("event 'home/camera'")
        peer.publish("file", bytes(9000))
        device.wait_for("read 9000 100")
        device.leave()
    assert device.said("stats") == ["1 3 1"]
