"""MQTT 5.0 on the wire: packet5.py against bytes written out by hand from the specification."""

from mqtt_as_tls import packet5, properties
from mqtt_as_tls.errors import ProtocolError
from tests.unit.checks import raises

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
ALIAS_INVALID = 0x94
TOO_LARGE = 0x95

REASON = b"\x1f\x00\x02no"  # reason_string
PAIR = b"\x26\x00\x01k\x00\x01v"  # user_property
TYPE = b"\x03\x00\x01t"  # content_type
ALIAS_3 = b"\x23\x00\x03"

# What a server may send: bytes, what the decoder makes of it, its code, its properties
NO = {"reason_string": "no"}
FROM_SERVER = (
    (b"\x20\x03\x00\x00\x00", (False, 0), 0, None),
    (b"\x20\x03\x01\x00\x00", (True, 0), 0, None),
    (b"\x20\x08\x00\x87\x05" + REASON, (False, 0x87), 0x87, NO),
    (b"\x20\x06\x01\x00\x03\x21\x00\x05", (True, 0), 0, {"receive_maximum": 5}),
    (b"\x20\x02\x00\x01", (False, 0x84), 0x84, None),  # a server of MQTT 3.1.1
    (b"\x30\x06\x00\x03a/b\x00", ("a/b", 0, b""), 0, None),
    (b"\x31\x08\x00\x03a/b\x00hi", ("a/b", 0, b"hi"), 0, None),
    (b"\x30\x0c\x00\x03a/b\x04" + TYPE + b"hi", ("a/b", 0, b"hi"), 0, {"content_type": "t"}),
    (b"\x32\x08\x00\x03a/b\x0a\x0b\x00", ("a/b", 0x0A0B, b""), 0, None),
    (
        b"\x3d\x0e\x00\x03a/b\x0a\x0b\x04" + TYPE + b"hi",
        ("a/b", 0x0A0B, b"hi"),
        0,
        {"content_type": "t"},
    ),
    (b"\x40\x02\x0a\x0b", 0x0A0B, 0, None),
    (b"\x40\x03\x0a\x0b\x10", 0x0A0B, 0x10, None),
    (b"\x40\x04\x0a\x0b\x87\x00", 0x0A0B, 0x87, None),
    (b"\x40\x09\x0a\x0b\x87\x05" + REASON, 0x0A0B, 0x87, NO),
    (b"\x50\x02\x0a\x0b", 0x0A0B, 0, None),
    (b"\x50\x09\x0a\x0b\x97\x05" + REASON, 0x0A0B, 0x97, NO),
    (b"\x62\x02\x0a\x0b", 0x0A0B, 0, None),
    (b"\x62\x09\x0a\x0b\x92\x05" + REASON, 0x0A0B, 0x92, NO),
    (b"\x70\x02\x0a\x0b", 0x0A0B, 0, None),
    (b"\x70\x0b\x0a\x0b\x92\x07" + PAIR, 0x0A0B, 0x92, {"user_property": [("k", "v")]}),
    (b"\x90\x06\x0a\x0b\x00\x00\x01\x02", b"\x00\x01\x02", 2, None),
    (b"\x90\x0a\x0a\x0b\x05" + REASON + b"\x01\x80", b"\x01\x80", 0x80, NO),
    (b"\xb0\x05\x0a\x0b\x00\x00\x11", b"\x00\x11", 0x11, None),
    (b"\xb0\x09\x0a\x0b\x05" + REASON + b"\x8f", b"\x8f", 0x8F, NO),
    (b"\xd0\x00", None, 0, None),
    (b"\xe0\x00", 0, 0, None),
    (b"\xe0\x01\x8b", 0x8B, 0x8B, None),
    (b"\xe0\x02\x8e\x00", 0x8E, 0x8E, None),
    (b"\xe0\x07\x8d\x05" + REASON, 0x8D, 0x8D, NO),
    (b"\xf0\x00", 0, 0, None),
    (b"\xf0\x02\x18\x00", 0x18, 0x18, None),
    (b"\xf0\x06\x18\x04\x15\x00\x01m", 0x18, 0x18, {"authentication_method": "m"}),
)

# The reason codes of the tables of section 3 that a server may send; 0x8C in DISCONNECT: table 2-6
CODES = {
    0x20: "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
    0x40: "00 10 80 83 87 90 91 97 99",
    0x50: "00 10 80 83 87 90 91 97 99",
    0x62: "00 92",
    0x70: "00 92",
    0x90: "00 01 02 80 83 87 8f 91 97 9e a1 a2",
    0xB0: "00 11 80 83 87 8f 91",
    0xE0: "00 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
    0xF0: "00 18",
}

WILL = (b"w/t", b"bye", 1, True)


def fields(decoder, first):
    """Return what `decoder` makes of the packet that it is at."""
    kind = first & 0xF0
    if kind == 0x30:
        return decoder.publish(first >> 1 & 3)
    if kind == 0x20:
        return decoder.connack()
    if kind == 0x90:
        return decoder.suback()
    if kind == 0xB0:
        return decoder.suback()
    if kind == 0xD0:
        return None
    if kind in (0xE0, 0xF0):
        return decoder.reason()
    return decoder.answer()


def feed(decoder, data, size=1 << 20):
    """Feed `data` in pieces of `size` bytes; return [(first byte, fields, code, properties)]."""
    got = []
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        while piece:
            space = decoder.space()
            n = min(len(space), len(piece))
            space[:n] = piece[:n]
            piece = piece[n:]
            decoder.fed(n)
            while True:
                first = decoder.next()
                if first is None:
                    break
                what = fields(decoder, first)
                if first == 0xD0:
                    got.append((first, None, 0, None))
                else:
                    got.append((first, what, decoder.code, decoder.properties))
    return got


def decode(data, alias_maximum=0):
    """Return (fields, code, properties) of one packet."""
    got = feed(packet5.Decoder(4096, alias_maximum), data)
    assert len(got) == 1
    return got[0][1:]


def refused(data, code=MALFORMED, text=""):
    """Check that the packet `data` is refused with the reason `code` (None: a list of them)."""
    with raises(ProtocolError, text) as caught:
        feed(packet5.Decoder(4096, 9), data)
    assert caught.error.code == code, (data, caught.error.code)
    message = str(caught.error)
    assert "section" in message or "MQTT-" in message, message


def whole(first, body):
    """Return a packet."""
    return bytes((first,)) + properties.varint(len(body)) + body


def publish(topic, props=b"", first=0x30, payload=b""):
    """Return the PUBLISH of a server."""
    head = bytes((len(topic) >> 8, len(topic) & 255)) + topic + (b"\0\7" if first & 6 else b"")
    return whole(first, head + properties.varint(len(props)) + props + payload)


# Encoding


def test_connect_has_its_properties_behind_the_keep_alive():
    """MQTT 5.0: [MQTT-2.2.2-1], [MQTT-3.1.2-1], [MQTT-3.1.2-2], [MQTT-3.1.3-3]"""
    assert (
        packet5.connect(b"me", 60, True) == b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02me"
    )
    assert packet5.connect(b"", 0, False) == b"\x10\x0d\x00\x04MQTT\x05\x00\x00\x00\x00\x00\x00"
    data = properties.encode([("receive_maximum", 20), ("session_expiry_interval", 60)], 0x10)
    assert packet5.connect(b"me", 258, False, properties=data) == (
        b"\x10\x17\x00\x04MQTT\x05\x00\x01\x02\x08\x21\x00\x14\x11\x00\x00\x00\x3c\x00\x02me"
    )


def test_connect_fields_go_in_the_order_of_section_3_1_3():
    """MQTT 5.0: [MQTT-3.1.2-9], [MQTT-3.1.2-17], [MQTT-3.1.2-19], [MQTT-3.1.3-1]"""
    assert packet5.connect(b"me", 258, False, b"joe", b"pw", WILL) == (
        b"\x10\x23\x00\x04MQTT\x05\xec\x01\x02\x00\x00\x02me"
        b"\x00\x00\x03w/t\x00\x03bye\x00\x03joe\x00\x02pw"
    )
    assert packet5.connect(b"me", 258, False, None, None, WILL, PAIR, b"\x18\0\0\0\5") == (
        b"\x10\x26\x00\x04MQTT\x05\x2c\x01\x02\x07"
        + PAIR
        + b"\x00\x02me\x05\x18\x00\x00\x00\x05\x00\x03w/t\x00\x03bye"
    )


def test_connect_flags_say_what_is_there():
    """
    MQTT 5.0: [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-16], [MQTT-3.1.2-18]
    """

    def flags(*more):
        return packet5.connect(b"me", 60, False, *more)[9]

    assert flags() == 0
    assert flags(b"joe") == 0x80
    assert flags(b"joe", b"pw") == 0xC0
    assert flags(None, b"pw") == 0x40  # MQTT 5 allows a password alone (section 3.1.2.9)
    assert flags(None, None, (b"t", b"", 0, False)) == 0x04
    assert flags(None, None, (b"t", b"", 1, False)) == 0x0C
    assert flags(None, None, (b"t", b"", 2, True)) == 0x34
    assert packet5.connect(b"me", 60, False, None, b"pw")[-4:] == b"\x00\x02pw"
    assert packet5.connect(b"me", 60, False, b"joe")[-5:] == b"\x00\x03joe"


def test_clean_start_is_set_where_packet_sets_it():
    for more in ((), (b"joe", b"pw", WILL, PAIR * 30, PAIR)):
        for clean in (False, True):
            buf = packet5.connect(b"me", 60, clean, *more)
            packet5.set_clean(buf, not clean)
            assert buf == packet5.connect(b"me", 60, not clean, *more)


def test_a_field_over_65535_raises():
    long = b"x" * 65536
    for arguments in (
        (long, 60, True),
        (b"me", 60, True, long),
        (b"me", 60, True, b"joe", long),
        (b"me", 60, True, None, None, (long, b"", 0, False)),
        (b"me", 60, True, None, None, (b"t", long, 0, False)),
        (b"me", 65536, True),
    ):
        with raises(ValueError):
            packet5.connect(*arguments)
    for call in (
        lambda: packet5.publish(long, b""),
        lambda: packet5.subscribe(1, [(long, 0)]),
        lambda: packet5.unsubscribe(1, [b"a", long]),
    ):
        with raises(ValueError):
            call()


def test_publish_is_header_topic_id_properties_payload():
    """MQTT 5.0: [MQTT-2.2.1-2], [MQTT-2.2.2-1], [MQTT-3.3.2-1]"""
    assert packet5.publish(b"a/b", b"hi") == b"\x30\x08\x00\x03a/b\x00hi"
    assert packet5.publish(b"a/b", b"") == b"\x30\x06\x00\x03a/b\x00"
    assert packet5.publish(b"a/b", bytearray(b"hi"), 0, True) == b"\x31\x08\x00\x03a/b\x00hi"
    assert packet5.publish(b"a/b", b"hi", 1) == b"\x32\x0a\x00\x03a/b\x00\x00\x00hi"
    assert packet5.publish(b"a/b", b"hi", 2, True, TYPE) == (
        b"\x35\x0e\x00\x03a/b\x00\x00\x04" + TYPE + b"hi"
    )
    assert (
        packet5.publish(b"", b"hi", 0, False, ALIAS_3) == b"\x30\x08\x00\x00\x03" + ALIAS_3 + b"hi"
    )


def test_remaining_length_counts_the_payload_that_is_sent_after_the_packet():
    assert packet5.publish(b"t", b"", 1, more=300) == b"\x32\xb2\x02\x00\x01t\x00\x00\x00"
    assert packet5.publish(b"t", b"x", 0, False, TYPE, 2) == b"\x30\x0b\x00\x01t\x04" + TYPE + b"x"
    with raises(ValueError, "268435455"):
        packet5.publish(b"t", b"", 0, more=268435455)


def test_lengths_take_as_few_bytes_as_they_need():
    """MQTT 5.0: [MQTT-1.5.5-1]"""
    for n in (0, 119, 120, 121, 122, 123, 124, 125, 127, 128, 16376, 16384, 17000):
        data = b"\x09" + bytes((n >> 8, n & 255)) + b"d" * n
        buf = packet5.publish(b"t", b"xyz", 1, False, data)
        body = b"\x00\x01t\x00\x00" + properties.varint(n + 3) + data + b"xyz"
        assert buf == whole(0x32, body), n
        packet5.set_id(buf, 0xFEDC)
        packet5.set_dup(buf, True)
        assert packet5.topic(buf) == "t"
        assert bytes(buf) == whole(0x3A, body.replace(b"t\x00\x00", b"t\xfe\xdc")), n
        decoder = packet5.Decoder(len(buf))
        assert feed(decoder, bytes(buf)) == [
            (0x3A, ("t", 0xFEDC, b"xyz"), 0, {"correlation_data": b"d" * n})
        ]


def test_an_alias_is_put_into_a_packet_that_has_none():
    buf = packet5.publish(b"a/b", b"hi", 0, True, TYPE)
    assert packet5.aliased(buf, 3, True) == b"\x31\x0f\x00\x03a/b\x07" + ALIAS_3 + TYPE + b"hi"
    assert packet5.aliased(buf, 3, False) == b"\x31\x0c\x00\x00\x07" + ALIAS_3 + TYPE + b"hi"
    assert buf == b"\x31\x0c\x00\x03a/b\x04" + TYPE + b"hi"
    buf = packet5.publish(b"a/b", b"")
    assert packet5.aliased(buf, 0xFEDC, False) == b"\x30\x06\x00\x00\x03\x23\xfe\xdc"
    decoder = packet5.Decoder(60000, 0xFFFF)
    for n in (0, 100, 120, 130, 20000):
        data = properties.encode({"correlation_data": b"d" * n}, 0x30)
        buf = packet5.publish(b"t" * 300, b"p" * n, 0, False, data)
        want = [(0x30, ("t" * 300, 0, b"p" * n), 0, {"correlation_data": b"d" * n})]
        assert feed(decoder, bytes(packet5.aliased(buf, 65535, True))) == want
        assert feed(decoder, bytes(packet5.aliased(buf, 65535, False))) == want


def test_an_alias_leaves_the_payload_that_follows_where_it_is():
    for more in (1, 121, 16384):
        buf = packet5.publish(b"a/b", b"", 0, False, TYPE, more)
        for first, topic in ((True, b"a/b"), (False, b"")):
            assert packet5.aliased(buf, 3, first) == packet5.publish(
                topic, b"", 0, False, ALIAS_3 + TYPE, more
            )


def test_acknowledgements_are_as_short_as_can_be():
    """MQTT 5.0: [MQTT-2.1.3-1], [MQTT-3.6.1-1]"""
    for first in (0x40, 0x50, 0x62, 0x70):
        head = bytes((first,))
        assert packet5.ack(first, 0x0A0B) == head + b"\x02\x0a\x0b"
        assert packet5.ack(first, 1, 0x92) == head + b"\x03\x00\x01\x92"
        assert packet5.ack(first, 65535, 0x92, REASON) == head + b"\x09\xff\xff\x92\x05" + REASON
        assert packet5.ack(first, 1, 0, PAIR) == head + b"\x0b\x00\x01\x00\x07" + PAIR
        assert packet5.ack(first, 1, 0, PAIR * 30)[:7] == head + b"\xd7\x01\x00\x01\x00\xd2"


def test_subscribe_and_unsubscribe():
    """
    MQTT 5.0: [MQTT-2.1.3-1], [MQTT-3.8.1-1], [MQTT-3.8.3-2], [MQTT-3.10.1-1], [MQTT-3.10.3-2]
    """
    assert packet5.subscribe(10, [(b"a/b", 1)]) == b"\x82\x09\x00\x0a\x00\x00\x03a/b\x01"
    assert packet5.subscribe(0x0A0B, [(b"a/b", 0x2D), (b"#", 0)], b"\x0b\x05") == (
        b"\x82\x0f\x0a\x0b\x02\x0b\x05\x00\x03a/b\x2d\x00\x01#\x00"
    )
    assert packet5.unsubscribe(10, [b"a/b"]) == b"\xa2\x08\x00\x0a\x00\x00\x03a/b"
    assert packet5.unsubscribe(0x0A0B, [b"a/b", b"#"], PAIR) == (
        b"\xa2\x12\x0a\x0b\x07" + PAIR + b"\x00\x03a/b\x00\x01#"
    )


def test_disconnect_and_auth():
    """MQTT 5.0: [MQTT-2.1.3-1], [MQTT-3.15.1-1]"""
    assert packet5.disconnect() == b"\xe0\x00"
    assert packet5.disconnect(4) == b"\xe0\x01\x04"
    assert packet5.disconnect(4, REASON) == b"\xe0\x07\x04\x05" + REASON
    assert packet5.disconnect(0, REASON) == b"\xe0\x07\x00\x05" + REASON
    assert packet5.auth(0x19) == b"\xf0\x02\x19\x00"
    assert packet5.auth(0x18, b"\x15\x00\x01m") == b"\xf0\x06\x18\x04\x15\x00\x01m"


# Decoding


def test_every_packet_of_a_server_is_read():
    for data, *want in FROM_SERVER:
        assert feed(packet5.Decoder(), data) == [(data[0],) + tuple(want)], data


def test_every_packet_comes_out_of_single_bytes():
    decoder = packet5.Decoder()
    for data, *want in FROM_SERVER:
        assert feed(decoder, data[:-1], 1) == []
        assert feed(decoder, data[-1:]) == [(data[0],) + tuple(want)]


def test_the_split_of_the_input_does_not_matter():
    stream = b"".join([row[0] for row in FROM_SERVER])
    stream += publish(b"t" * 500, TYPE + PAIR * 90, 0x32, b"p" * 900)
    stream += stream
    whole = feed(packet5.Decoder(), stream)
    assert len(whole) == 2 * len(FROM_SERVER) + 2
    for size in (1, 2, 3, 5, 7, 64, 509, 511, 512, 513, 1000):
        assert feed(packet5.Decoder(), stream, size) == whole


def test_what_lies_behind_a_packet_is_not_taken_for_its_rest():
    for data, *want in FROM_SERVER:
        for behind in (b"\x00" * 9, b"\x01" * 9, b"\xff" * 9):
            decoder = packet5.Decoder()
            decoder.space()[: len(data) + 9] = data + behind
            decoder.fed(len(data) + 9)
            first = decoder.next()
            assert fields(decoder, first) == want[0]


def test_a_packet_that_is_cut_short_is_malformed():
    """Each packet with a smaller Remaining Length is either a shorter form, or refused."""
    for data, what, code, props in FROM_SERVER:
        for n in range(data[1]):
            cut = bytes((data[0], n)) + data[2 : 2 + n]
            try:
                got = decode(cut)
            except ProtocolError as e:
                assert e.code == MALFORMED, cut
                continue
            first = data[0]
            if first & 0xF0 == 0x30:  # less payload
                assert got[0][:2] == what[:2]
                assert got[2] == props
            elif first in (0x90, 0xB0):  # fewer codes
                assert what.startswith(got[0])
                assert got[2] == props
            elif first == 0x20:
                raise AssertionError(cut)
            else:  # no reason code, or no properties
                assert got[1:] == (code if n in (1, 3) else 0, None)


def test_first_bytes_that_no_server_may_send():
    """
    MQTT 5.0: [MQTT-2.1.3-1], [MQTT-3.3.1-2], [MQTT-3.3.1-4], [MQTT-3.6.1-1], [MQTT-3.14.1-1],
    [MQTT-3.15.1-1]
    """
    allowed = [0x20, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0xF0]
    allowed += [0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D]
    for first in range(256):
        decoder = packet5.Decoder()
        decoder.space()[:2] = bytes((first, 9))
        decoder.fed(2)
        if first in allowed and first != 0xD0:
            assert decoder.next() is None
        else:
            with raises(ProtocolError, "0x%02x" % first) as caught:
                decoder.next()
            client = first in (0x10, 0x82, 0xA2, 0xC0)  # what it sends, as it sends it
            assert caught.error.code == (PROTOCOL_ERROR if client else MALFORMED)


def test_remaining_lengths_that_a_packet_cannot_have():
    least = {0x20: 2, 0x30: 3, 0x32: 3, 0x90: 4, 0xB0: 4, 0xD0: 0, 0xE0: 0, 0xF0: 0}
    for first in (0x20, 0x30, 0x32, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0xF0):
        for n in range(9):
            bad = n < least.get(first, 2)
            bad = bad or first == 0xD0 and n > 0 or first == 0xF0 and n == 1
            decoder = packet5.Decoder()
            decoder.space()[:2] = bytes((first, n))
            decoder.fed(2)
            if bad:
                with raises(ProtocolError, "Remaining Length"):
                    decoder.next()
            else:
                assert decoder.next() == (None if n else first)


def test_a_length_is_not_believed():
    for head in (b"\x30\xff\xff\xff\x7f", b"\xe0\xff\xff\xff\x7f", b"\x20\xff\xff\x7f"):
        decoder = packet5.Decoder()
        with raises(ProtocolError, "max_packet is 4096") as caught:
            feed(decoder, head)
        assert caught.error.code == TOO_LARGE
        assert len(decoder.buf) <= 4096


def test_connack_flags_are_strict():
    for flags in range(2, 256):
        refused(bytes((0x20, 3, flags, 0, 0)), MALFORMED, "3.2.2-1")
    for code in bytes.fromhex("80 87 9f"):
        refused(bytes((0x20, 3, 1, code, 0)), PROTOCOL_ERROR, "3.2.2-6")


def test_connack_of_mqtt_3_1_1_says_that_the_version_is_not_supported():
    assert decode(b"\x20\x02\x00\x01") == ((False, 0x84), 0x84, None)
    for flags, code in ((0, 0), (0, 2), (0, 5), (1, 0), (1, 1), (0, 0x84)):
        refused(bytes((0x20, 2, flags, code)))


def test_reason_codes_are_those_of_the_packet():
    """
    MQTT 5.0: [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.14.2-1],
    [MQTT-3.15.2-1]
    """
    for first, codes in CODES.items():
        codes = [int(each, 16) for each in codes.split()]
        for code in range(256):
            last = bytes((code,))
            if first == 0x20:
                forms = (b"\x00" + last + b"\x00", b"\x00" + last + b"\x05" + REASON)
            elif first in (0x90, 0xB0):
                forms = (b"\0\1\0" + last, b"\0\1\0\0" + last, b"\0\1\x05" + REASON + last)
            elif first == 0xE0:
                forms = (last, last + b"\x00", last + b"\x05" + REASON)
            elif first == 0xF0:
                forms = (last + b"\x00", last + b"\x05" + REASON)
            else:
                forms = (
                    b"\0\1" + last,
                    b"\0\1" + last + b"\x00",
                    b"\0\1" + last + b"\x05" + REASON,
                )
            for body in forms:
                data = whole(first, body)
                if code in codes:
                    assert decode(data)[1] == code
                else:
                    refused(data, PROTOCOL_ERROR, "reason code 0x%02x" % code)


def test_a_suback_has_codes():
    for first in (0x90, 0xB0):
        refused(whole(first, b"\0\1\x05" + REASON), MALFORMED, "no reason code")
        decoder = packet5.Decoder()
        data = whole(first, b"\x0a\x0b\x07" + PAIR + b"\x00\x87\x00")
        decoder.space()[: len(data)] = data
        decoder.fed(len(data))
        assert decoder.next() == first
        assert fields(decoder, first) == b"\x00\x87\x00"
        assert decoder.packet_id() == 0x0A0B
        assert decoder.properties == {"user_property": [("k", "v")]}
        assert decoder.code == 0x87


def test_packet_id_0_is_refused():
    for first in (0x40, 0x50, 0x62, 0x70):
        for rest in (b"", b"\x00", b"\x00\x00"):
            with raises(ProtocolError, "packet id 0"):
                decode(whole(first, b"\x00\x00" + rest))
    for first in (0x32, 0x3A, 0x34, 0x3C):
        with raises(ProtocolError, "packet id 0"):
            decode(bytes((first,)) + b"\x08\x00\x03a/b\x00\x00\x00")


def test_nothing_follows_the_properties():
    for first, body in (
        (0x20, b"\x00\x00"),
        (0x40, b"\0\1\x00"),
        (0x50, b"\0\1\x00"),
        (0x62, b"\0\1\x00"),
        (0x70, b"\0\1\x00"),
        (0xE0, b"\x80"),
        (0xF0, b"\x18"),
    ):
        for props in (b"\x00", b"\x05" + REASON):
            decode(whole(first, body + props))
            for more in (b"\x00", b"\x1f", REASON):
                refused(whole(first, body + props + more), MALFORMED, "after the properties")


def test_properties_are_those_of_the_packet():
    for first, body, codes in (
        (0x20, b"\x00\x00", b""),
        (0x40, b"\0\1\x00", b""),
        (0x50, b"\0\1\x00", b""),
        (0x62, b"\0\1\x00", b""),
        (0x70, b"\0\1\x00", b""),
        (0x90, b"\0\1", b"\x00"),
        (0xB0, b"\0\1", b"\x00"),
        (0xE0, b"\x80", b""),
        (0xF0, b"\x18", b""),
        (0x30, b"\0\1t", b""),
    ):
        got = decode(whole(first, body + b"\x07" + PAIR + codes))
        assert got[2] == {"user_property": [("k", "v")]}
        for bad in (b"\x02\x01\x01", b"\x01\x09", b"\x04\x26\0\0\1"):
            if first != 0x30 or bad != b"\x02\x01\x01":
                refused(whole(first, body + bad + codes))
        for number in range(256):
            data = bytes((number,)) + b"\x00\x01\x01\x01"
            data = bytes((len(data),)) + data
            try:
                values = properties.decode(memoryview(data), 0, len(data), first)[0]
            except ProtocolError as e:
                refused(whole(first, body + data + codes), e.code)
            else:
                values.pop("topic_alias", None)
                assert decode(whole(first, body + data + codes), 257)[2] == (values or None)


def test_a_publish_beyond_its_packet_is_malformed():
    for data in (
        b"\x30\x03\x00\x01a",  # no Property Length
        b"\x30\x03\x00\x02a",
        b"\x30\x03\xff\xffa",
        b"\x30\x05\x00\x03a/b",
        b"\x32\x07\x00\x03a/b\x00\x01",
        b"\x32\x06\x00\x03a/b\x00",  # a packet id cut short
        b"\x32\x05\x00\x03a/b",
        b"\x30\x06\x00\x03a/b\x01",  # properties beyond the packet
        b"\x30\x08\x00\x03a/b\x04" + TYPE[:2],
    ):
        refused(data)
        decoder = packet5.Decoder()
        decoder.space()[: len(data) + 9] = data + b"\x00\x01" + TYPE + b"abc"
        decoder.fed(len(data) + 9)
        first = decoder.next()
        with raises(ProtocolError, "section"):
            decoder.publish(first >> 1 & 3)


def test_topics_that_no_server_may_send():
    """
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-4.7.0-1],
    [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    """
    for topic in (b"+", b"#", b"a/+", b"a/#", b"a+b", b"a#"):
        refused(publish(topic), PROTOCOL_ERROR, "3.3.2-2")
        refused(publish(topic, ALIAS_3), PROTOCOL_ERROR, "3.3.2-2")
    for topic in (b"\xff", b"a\x00", b"\xed\xa0\x80", b"\xc0\x80"):
        refused(publish(topic), MALFORMED, "1.5.4")
    refused(publish(b""), PROTOCOL_ERROR, "3.3.2.1")
    refused(publish(b"", TYPE, 0x32), PROTOCOL_ERROR, "3.3.2.1")


def test_the_payload_starts_where_the_decoder_says():
    for first in (0x30, 0x32):
        for props in (b"", TYPE, PAIR * 30):
            data = publish(b"a/b", props, first, b"payload")
            decoder = packet5.Decoder()
            decoder.space()[: len(data)] = data
            decoder.fed(len(data))
            assert decoder.next() == first
            topic, packet_id, payload = decoder.publish(first >> 1 & 3)
            assert bytes(decoder.buf[decoder.at : decoder.end]) == payload == b"payload"
            decoder.space()[: len(data)] = b"?" * len(data)
            assert (topic, packet_id, payload) == ("a/b", first & 2 and 7, b"payload")


def test_a_topic_alias_stands_for_its_topic():
    """MQTT 5.0: [MQTT-3.3.2-10]"""
    decoder = packet5.Decoder(4096, 3)
    for topic in (b"a/b", b"c"):  # a new topic takes the alias over
        assert feed(decoder, publish(topic, ALIAS_3)) == [
            (0x30, (topic.decode(), 0, b""), 0, None)
        ]
        for first in (0x30, 0x32):
            got = feed(decoder, publish(b"", TYPE + ALIAS_3, first, b"hi"))
            want = (topic.decode(), first & 2 and 7, b"hi")
            assert got == [(first, want, 0, {"content_type": "t"})]
    assert feed(decoder, publish(b"d", b"\x23\x00\x01"))[0][1][0] == "d"
    assert feed(decoder, publish(b"", ALIAS_3))[0][1][0] == "c"
    assert feed(decoder, publish(b"", b"\x23\x00\x01"))[0][1][0] == "d"


def test_topic_aliases_that_are_refused():
    """MQTT 5.0: [MQTT-3.3.2-8]"""
    for maximum, alias, topic in (
        (0, 1, b"a"),  # none is welcome
        (3, 4, b"a"),  # over the maximum
        (3, 65535, b"a"),
        (3, 0, b"a"),
        (3, 0, b""),
    ):
        with raises(ProtocolError, "alias") as caught:
            decode(publish(topic, b"\x23" + bytes((alias >> 8, alias & 255))), maximum)
        assert caught.error.code == ALIAS_INVALID
    with raises(ProtocolError, "alias") as caught:  # unknown (section 3.3.4)
        decode(publish(b"", b"\x23\0\2"), 3)
    assert caught.error.code == PROTOCOL_ERROR


def test_topic_aliases_end_with_the_connection():
    """MQTT 5.0: [MQTT-3.3.2-7]"""
    assert decode(publish(b"a", ALIAS_3), 3)[0][0] == "a"
    with raises(ProtocolError, "alias"):
        decode(publish(b"", ALIAS_3), 3)


def test_code_and_properties_are_of_the_last_packet():
    decoder = packet5.Decoder()
    assert (decoder.code, decoder.properties) == (0, None)
    for data, what, code, props in FROM_SERVER + tuple(reversed(FROM_SERVER)):
        if data[0] != 0xD0:
            assert feed(decoder, data) == [(data[0], what, code, props)]
            assert (decoder.code, decoder.properties) == (code, props)


def test_only_protocol_errors_come_out_of_damaged_input():
    stream = b"".join([row[0] for row in FROM_SERVER])
    stream += publish(b"t", PAIR * 90, 0x32, b"p" * 20) + stream
    seed = 5
    refusals = 0
    for _ in range(600):
        data = bytearray(stream)
        for _ in range(3):
            seed = (seed * 75 + 74) % 65537
            data[seed % len(data)] = seed >> 5 & 255
        decoder = packet5.Decoder(700, 3)
        try:
            feed(decoder, bytes(data), 1 + seed % 300)
        except ProtocolError:
            refusals += 1
        assert len(decoder.buf) <= 700
    assert 100 < refusals < 600
