"""CONNECT, DISCONNECT and what is between them, byte by byte, in both versions of the protocol."""

import threading

import pytest

from tests.support import apps, patience
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker

BOTH = pytest.mark.parametrize("protocol", [4, 5])
CONNACKS = {4: b"\x20\x02\x00\x00", 5: b"\x20\x03\x00\x00\x00"}


def field(data):
    return len(data).to_bytes(2, "big") + data


def hello(protocol, will=None, **options):
    """Return the body of the CONNECT of a client with `will` (str, Python) and `options`."""
    bodies = []

    def script(connection):
        bodies.append(connection.accept(CONNACKS[protocol]))
        connection.until_closed()

    Device.against(
        script,
        f"""
        client = make(will={will}, **OPTIONS)
        async with client:
            await client.wait_connected()
        """,
        names={"OPTIONS": {"protocol": protocol, "log": None, **options}},
    )
    assert len(bodies) == 1
    return bodies[0]


def parts(protocol, body):
    """Return (what is before the properties, the payload) of a CONNECT."""
    if protocol == 4:
        return body[:10], body[10:]
    assert body[10] < 128
    return body[:10], body[11 + body[10] :]


BUSY = """
@client.on("t/+", qos=1)
def handler(message):
    pass

async with client:
    for i in range(2):
        for qos in (0, 1):
            await client.publish("t/a", "x", qos=qos)
        await client.subscribe("u", 1)
        await client.unsubscribe("u")
        await until(lambda: client.stats.received % 2 == 0)
        print("round", i)
        await told("go on")
"""
FLAGS = {
    "CONNECT": [0],
    "PUBLISH": [0, 2],
    "PUBACK": [0],
    "SUBSCRIBE": [2],
    "UNSUBSCRIBE": [2],
    "PINGREQ": [0],
    "DISCONNECT": [0],
}


@BOTH
def test_connect_comes_first_and_once_and_reserved_flags_have_their_values(proxy, protocol):
    """
    MQTT 3.1.1: [MQTT-2.2.2-1], [MQTT-3.1.0-1], [MQTT-3.1.0-2], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
    MQTT 5.0: [MQTT-2.1.3-1], [MQTT-3.1.0-1], [MQTT-3.1.0-2], [MQTT-3.8.1-1], [MQTT-3.10.1-1]
    """
    with Device(proxy, BUSY, protocol=protocol, keepalive_s=1) as device:
        device.wait_for("round 0")
        proxy.wait_for("PINGREQ", "up")
        proxy.rst()
        device.send("go on")
        device.wait_for("round 1")
        device.send("go on")
        device.finish()
    proxy.wait_for("DISCONNECT", "up")
    assert proxy.connections >= 2  # on a busy computer a ping may be answered too late
    for connection in range(1, proxy.connections + 1):
        names = [each.name for each in proxy.seen(None, "up", connection)]
        assert names[0] == "CONNECT" and "CONNECT" not in names[1:]
    sent = proxy.seen(None, "up")
    assert {each.name for each in sent} == set(FLAGS)
    assert [each for each in sent if each.raw[0] & 15 not in FLAGS[each.name]] == []


@BOTH
def test_packet_ids_are_where_they_belong_and_never_in_use_twice(proxy, protocol):
    """
    MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-2.3.1-2], [MQTT-2.3.1-5], [MQTT-2.3.1-6], [MQTT-3.3.1-2],
    [MQTT-3.3.2-1], [MQTT-3.8.3-3], [MQTT-3.8.3-4], [MQTT-3.10.3-2], [MQTT-4.3.1-1]
    MQTT 5.0: [MQTT-2.2.1-2], [MQTT-2.2.1-3], [MQTT-2.2.1-5], [MQTT-2.2.2-1], [MQTT-3.3.1-2],
    [MQTT-3.3.2-1], [MQTT-3.8.3-2], [MQTT-3.8.3-5], [MQTT-3.10.3-2], [MQTT-4.2.0-1],
    [MQTT-4.3.1-1], [MQTT-4.3.2-1]
    """
    Device.check(
        proxy,
        """
        async with client:
            await client.subscribe("t", 1)
            for i in range(3):
                tasks = [client.publish("t", "x", qos=n % 2) for n in range(8)]
                tasks.append(client.subscribe("u", 1))
                await asyncio.gather(*tasks)
                await client.unsubscribe("u")
            await client.unsubscribe()  # nothing to ask for: no packet
            await until(lambda: client.stats.received == 24)
        """,
        protocol=protocol,
        log=None,
        max_inflight=5,
    )
    empty = b"" if protocol == 4 else b"\0"  # the length of the properties
    ends = {"PUBLISH": "PUBACK", "SUBSCRIBE": "SUBACK", "UNSUBSCRIBE": "UNSUBACK"}
    up, down = set(), set()  # ids in use, of either side
    for each in proxy.seen():
        if each.name == "PUBLISH" and not each.qos:
            # topic, properties, payload
            assert not each.dup and each.body == b"\0\1t" + empty + b"x"
        elif each.name in ends:
            used = up if each.direction == "up" else down
            assert each.packet_id > 0 and each.packet_id not in used
            used.add(each.packet_id)
        elif each.name in ends.values():
            (down if each.direction == "up" else up).remove(each.packet_id)
    assert not up
    asked = proxy.seen("SUBSCRIBE", "up")
    assert {each.body[2:] for each in asked} == {
        empty + b"\0\1t\1",  # a filter and its QoS, all other bits 0
        empty + b"\0\1u\1",
    }
    assert {each.body[2:] for each in proxy.seen("UNSUBSCRIBE", "up")} == {empty + b"\0\1u"}


@BOTH
def test_a_connect_has_no_more_than_it_was_given(protocol):
    """
    MQTT 3.1.1: [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-15], [MQTT-3.1.2-18],
    [MQTT-3.1.2-20], [MQTT-3.1.3-3]
    MQTT 5.0: [MQTT-3.1.2-1], [MQTT-3.1.2-2], [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-13],
    [MQTT-3.1.2-16], [MQTT-3.1.2-18], [MQTT-3.1.3-3]
    """
    head, payload = parts(protocol, hello(protocol, keepalive_s=258))
    clean = 0 if protocol == 4 else 2  # Clean Start at the first connect
    assert head == b"\0\4MQTT" + bytes((protocol, clean, 1, 2))
    assert payload == field(b"device")


@BOTH
def test_what_a_connect_was_given_is_there_in_order_as_utf_8(protocol):
    """
    MQTT 3.1.1: [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.3-1], [MQTT-3.1.3-3],
    [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11]
    MQTT 5.0: [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19], [MQTT-3.1.3-1], [MQTT-3.1.3-3],
    [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]
    """
    for qos in (0, 1, 2):
        will = f'Will("käse/€", b"\\x00\\xff", qos={qos}, retain=True)'
        body = hello(protocol, will, client_id="gerät", user="jörg", password="pä")
        head, payload = parts(protocol, body)
        assert head[7] & 0xFD == 0xC0 | 0x20 | qos << 3 | 4
        assert payload == (
            field("gerät".encode())
            + (b"" if protocol == 4 else b"\0")  # the length of the will's properties
            + field("käse/€".encode())
            + field(b"\x00\xff")
            + field("jörg".encode())
            + field("pä".encode())
        )


@BOTH
def test_a_user_without_a_password_and_an_empty_password_are_told_apart(protocol):
    """
    MQTT 3.1.1: [MQTT-3.1.2-19], [MQTT-3.1.2-20], [MQTT-3.1.2-21]
    MQTT 5.0: [MQTT-3.1.2-17], [MQTT-3.1.2-18], [MQTT-3.1.2-19]
    """
    head, payload = parts(protocol, hello(protocol, user="ann"))
    assert (head[7] & 0xFD, payload) == (0x80, field(b"device") + field(b"ann"))
    head, payload = parts(protocol, hello(protocol, user="ann", password=""))
    assert (head[7] & 0xFD, payload) == (0xC0, field(b"device") + field(b"ann") + field(b""))


@BOTH
def test_what_is_no_utf_8_raises_before_it_is_sent(protocol):
    """
    MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11]
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.1.3-4], [MQTT-3.1.3-11], [MQTT-3.1.3-12]
    """
    apps.check(
        f"""
        async def main():
            for bad in ("\\0", "a\\0b", chr(0xD800), "a" + chr(0xDFFF) + "b"):
                for call in (
                    lambda: make(protocol={protocol}, client_id=bad),
                    lambda: make(protocol={protocol}, user=bad),
                    lambda: Will(bad, "x"),
                ):
                    with raises(ValueError):
                        call()
        """,
        1883,
    )


def test_an_empty_client_id_comes_with_a_clean_session():
    """MQTT 3.1.1: [MQTT-3.1.3-7]"""
    body = hello(4, client_id="", clean_start=True)
    assert (body[7], body[10:]) == (2, b"\0\0")
    apps.check(
        """
        async def main():
            with raises(ValueError, "client_id"):
                make(client_id="")
        """,
        1883,
    )


@BOTH
def test_after_disconnect_the_client_sends_nothing_and_closes(protocol):
    """
    MQTT 3.1.1: [MQTT-3.14.4-1], [MQTT-3.14.4-2]
    MQTT 5.0: [MQTT-3.14.4-1], [MQTT-3.14.4-2]
    """
    sent = []
    closed = threading.Event()

    def script(connection):
        try:
            talk(connection)
        finally:
            closed.set()

    def talk(connection):
        connection.accept(CONNACKS[protocol])
        while not sent or sent[-1][0] != 0xE0:
            sent.append(connection.packet())
            if sent[-1][0] == 0x32:  # while it says goodbye, messages come that want an answer
                for n in range(1, 50):
                    properties = b"" if protocol == 4 else b"\0"
                    body = b"\0\1t" + n.to_bytes(2, "big") + properties
                    connection.send(bytes((0x32, len(body))) + body)
        sent.extend(connection.until_closed())

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
            async with client:
                await client.wait_connected()
                client.enqueue("t", "x", qos=1)  # not acknowledged
            print("left")
            await told("end")
            """,
            protocol=protocol,
            keepalive_s=1,
            drain_s=1,
        ) as device,
    ):
        device.wait_for("left")
        assert closed.wait(patience.stretched(20))
        assert device.code is None
        device.send("end")
        device.finish()
    assert sent[-1] == (0xE0, b"")
    assert [first for first, _ in sent].count(0xE0) == 1


@BOTH
def test_a_byte_order_mark_is_a_character_like_others(protocol, broker):
    """
    MQTT 3.1.1: [MQTT-1.5.3-3]
    MQTT 5.0: [MQTT-1.5.4-3]
    """
    peer = broker.peer("#")
    out = Device.check(
        broker,
        """
        got = []
        client.on("\\ufeff/+", qos=1)(lambda message: got.append(message.topic))
        client.on("/+")(lambda message: print("taken for another topic"))
        async with client:
            await client.publish("\\ufeff/\\ufeff", "x", qos=1)
            await until(lambda: got)
        print(got == ["\\ufeff/\\ufeff"])
        """,
        protocol=protocol,
        log=None,
    )
    assert out == "True\n"
    assert [each.topic for each in peer.wait_for(1)] == ["\ufeff/\ufeff"]
