"""The deliveries of QoS 1 and 2 against a server that forgets, repeats and goes away."""

import pytest

from tests.support.device import Device
from tests.support.fake_broker import FakeBroker

BOTH = pytest.mark.parametrize("protocol", [4, 5])


def connack(protocol, present=False):
    return bytes((0x20, 2 + protocol - 4, present, 0)) + bytes(protocol - 4)


def message(protocol, packet_id, payload, qos, dup=False):
    """Return a PUBLISH to the topic "t"."""
    body = b"\0\1t" + packet_id.to_bytes(2, "big") + bytes(protocol - 4) + payload
    return bytes((0x30 | qos << 1 | dup << 3, len(body))) + body


def ack(first, packet_id):
    return bytes((first, 2)) + packet_id.to_bytes(2, "big")


def number(body):
    return int.from_bytes(body[:2], "big")


class Sent:
    """A PUBLISH to the topic "t" that the client sent."""

    def __init__(self, protocol, packet):
        first, body = packet
        assert first & 0xF0 == 0x30 and body[:3] == b"\0\1t", packet
        self.qos = first >> 1 & 3
        self.dup = bool(first & 8)
        self.id = number(body[3:])
        assert self.id
        self.payload = body[5 + protocol - 4 :]

    def __eq__(self, other):
        return (self.qos, self.dup, self.id, self.payload) == other

    def __repr__(self):
        return f"Sent{self.qos, self.dup, self.id, self.payload}"


TWO = """
async with client:
    await client.wait_connected()
    tasks = [asyncio.create_task(client.publish("t", each, qos=QOS)) for each in "ab"]
    await asyncio.gather(*tasks)
    print("delivered")
    await client.publish("t", "c", qos=QOS)
    print("connects", client.stats.connects)
"""


def two(script, protocol, qos):
    """Publish a and b, and then c; return what it printed."""
    return Device.against(script, TWO, names={"QOS": qos}, protocol=protocol, ack_timeout_s=60)


@BOTH
def test_qos_2_goes_on_where_it_was_on_every_connection(protocol):
    """
    MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-2.3.1-6], [MQTT-3.1.2-4], [MQTT-3.3.1-1], [MQTT-3.6.1-1],
    [MQTT-4.1.0-1], [MQTT-4.3.3-1], [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4]
    MQTT 5.0: [MQTT-2.2.1-5], [MQTT-3.1.2-23], [MQTT-3.3.1-1], [MQTT-3.6.1-1], [MQTT-4.1.0-1],
    [MQTT-4.3.3-1], [MQTT-4.3.3-2], [MQTT-4.3.3-3], [MQTT-4.3.3-4], [MQTT-4.3.3-5],
    [MQTT-4.3.3-6], [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4]
    """

    def script(connection):
        connection.accept(connack(protocol, connection.number > 1))

        def publish():
            return Sent(protocol, connection.packet())

        if connection.number == 1:
            assert [publish(), publish()] == [(2, False, 1, b"a"), (2, False, 2, b"b")]
        elif connection.number == 2:  # no PUBREC came: both again
            assert [publish(), publish()] == [(2, True, 1, b"a"), (2, True, 2, b"b")]
            connection.send(ack(0x50, 2) + ack(0x50, 1))
            # PUBREL in the order of PUBREC
            assert connection.packet() == (0x62, b"\0\2")
            assert connection.packet() == (0x62, b"\0\1")
        elif connection.number == 3:  # no PUBCOMP came: PUBREL again, PUBLISH never again
            assert connection.packet() == (0x62, b"\0\2")
            assert connection.packet() == (0x62, b"\0\1")
            connection.send(ack(0x70, 2))
        else:
            assert connection.packet() == (0x62, b"\0\1")
            connection.send(ack(0x70, 1))
            new = publish()
            assert (new.qos, new.dup, new.payload) == (2, False, b"c")
            connection.send(ack(0x50, new.id))
            assert connection.packet() == (0x62, new.id.to_bytes(2, "big"))
            connection.send(ack(0x70, new.id))
            assert connection.until_closed() == [(0xE0, b"")]

    assert "connects 4" in two(script, protocol, 2)


@BOTH
def test_qos_1_is_unacknowledged_until_its_puback_and_repeated_on_a_new_connection_only(protocol):
    """
    MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.3.2-1], [MQTT-4.4.0-1],
    [MQTT-4.6.0-1]
    MQTT 5.0: [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.2-3],
    [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    """

    def script(connection):
        connection.accept(connack(protocol, connection.number > 1))

        def publish():
            return Sent(protocol, connection.packet())

        if connection.number == 1:
            assert [publish(), publish()] == [(1, False, 1, b"a"), (1, False, 2, b"b")]
            connection.sock.settimeout(1)
            try:
                packet = connection.packet()
            except TimeoutError:
                return  # nothing is repeated while the connection lasts
            raise AssertionError(packet)
        if connection.number == 2:
            assert [publish(), publish()] == [(1, True, 1, b"a"), (1, True, 2, b"b")]
            connection.send(ack(0x40, 2))
        else:
            assert publish() == (1, True, 1, b"a")
            connection.send(ack(0x40, 1))
            new = publish()
            assert (new.qos, new.dup, new.payload) == (1, False, b"c")
            connection.send(ack(0x40, new.id))
            assert connection.until_closed() == [(0xE0, b"")]

    assert "connects 3" in two(script, protocol, 1)


@BOTH
def test_a_session_that_the_server_lost_is_discarded(protocol):
    """
    MQTT 3.1.1: [MQTT-3.3.1-3]
    MQTT 5.0: [MQTT-3.2.2-5], [MQTT-3.3.1-3], [MQTT-4.3.2-2]
    """

    def script(connection):
        connection.accept(connack(protocol))
        sent = [Sent(protocol, connection.packet()) for _ in range(2)]
        assert [(each.dup, each.payload) for each in sent] == [(False, b"a"), (False, b"b")]
        if connection.number == 1:
            return
        for each in sent:
            connection.send(ack(0x40, each.id))
        new = Sent(protocol, connection.packet())
        connection.send(ack(0x40, new.id))
        connection.until_closed()

    assert "connects 2" in two(script, protocol, 1)


RECEIVES = """
slow = asyncio.Event()

@client.on("t", qos=2)
async def handler(message):
    got(message)
    if message.payload == b"slow":
        await slow.wait()

@client.on("+", qos=2)
def release(message):
    if message.payload == b"last":
        slow.set()
"""


def granted(connection, protocol):
    """Answer what is subscribed to: with MQTT 5 a packet for each, as the filters overlap."""
    for codes in [b"\2\2"] if protocol == 4 else [b"\2", b"\2"]:
        first, body = connection.packet()
        assert first == 0x82
        answer = body[:2] + bytes(protocol - 4) + codes
        connection.send(bytes((0x90, len(answer))) + answer)


@BOTH
def test_a_qos_2_message_is_one_message_until_its_pubrel(protocol):
    """
    MQTT 3.1.1: [MQTT-2.3.1-6], [MQTT-3.3.4-1], [MQTT-4.3.3-2]
    MQTT 5.0: [MQTT-2.2.1-5], [MQTT-3.3.4-1], [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-11],
    [MQTT-4.3.3-12]
    """

    def script(connection):
        connection.accept(connack(protocol, connection.number > 1))
        if connection.number == 1:
            granted(connection, protocol)
            for dup in (False, True, False):  # repeated, even without DUP
                connection.send(message(protocol, 7, b"once", 2, dup))
                assert connection.packet() == (0x50, b"\0\7")
        else:  # the PUBREC was lost
            connection.send(message(protocol, 7, b"once", 2, True))
            assert connection.packet() == (0x50, b"\0\7")
            connection.send(ack(0x62, 7))
            assert connection.packet() == (0x70, b"\0\7")
            connection.send(ack(0x62, 7))  # the PUBCOMP was lost, too: 5.0 says, not found
            assert connection.packet() == (0x70, b"\0\7" + b"\x92"[: protocol - 4])
            connection.send(message(protocol, 7, b"new", 2))
            assert connection.packet() == (0x50, b"\0\7")
            connection.send(ack(0x62, 7))
            assert connection.packet() == (0x70, b"\0\7")
            connection.until_closed()

    with FakeBroker(script) as fake, Device(fake, RECEIVES, protocol=protocol) as device:
        device.wait_for("got new")
        device.leave()
    assert device.said("got") == ["once 2", "new 2"]


@BOTH
def test_after_its_puback_an_id_is_that_of_a_new_message_whatever_dup_says(protocol):
    """
    MQTT 3.1.1: [MQTT-2.3.1-6], [MQTT-3.3.4-1], [MQTT-4.3.2-2]
    MQTT 5.0: [MQTT-2.2.1-5], [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.2-5]
    """

    def script(connection):
        connection.accept(connack(protocol))
        granted(connection, protocol)
        for dup in (False, True, False):
            connection.send(message(protocol, 0xABCD, b"same", 1, dup))
            assert connection.packet() == (0x40, b"\xab\xcd")
        connection.send(message(protocol, 0xABCD, b"end", 1))
        connection.until_closed()

    with FakeBroker(script) as fake, Device(fake, RECEIVES, protocol=protocol) as device:
        device.wait_for("got end")
        device.leave()
    assert device.said("got") == ["same 1"] * 3 + ["end 1"]


@BOTH
@pytest.mark.parametrize("qos", [1, 2])
def test_acknowledgements_have_the_order_of_the_messages(protocol, qos):
    """
    MQTT 3.1.1: [MQTT-4.5.0-2], [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    MQTT 5.0: [MQTT-4.5.0-2], [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    """
    answer = {1: 0x40, 2: 0x50}[qos]
    ids = [9, 3, 300, 1]

    def script(connection):
        connection.accept(connack(protocol))
        granted(connection, protocol)
        payloads = [b"slow", b"x", b"y", b"last"]
        for packet_id, payload in zip(ids, payloads, strict=True):
            connection.send(message(protocol, packet_id, payload, qos))
        for packet_id in ids:
            assert connection.packet() == (answer, packet_id.to_bytes(2, "big"))
        connection.until_closed()

    with FakeBroker(script) as fake, Device(fake, RECEIVES, protocol=protocol) as device:
        device.wait_for("got last")
        device.leave()
