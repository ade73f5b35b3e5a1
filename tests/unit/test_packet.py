"""MQTT 3.1.1 on the wire: packet.py against bytes written out by hand from the specification."""

from mqtt_as_tls import packet
from mqtt_as_tls.errors import ProtocolError
from tests.unit.checks import fields, raises

# What a server may send, one of each kind; QoS 1 and 2 have packet id 0x0A0B
FROM_SERVER = (
    b"\x20\x02\x00\x00",  # CONNACK
    b"\x20\x02\x01\x00",  # CONNACK, session present
    b"\x30\x05\x00\x03a/b",  # PUBLISH, no payload
    b"\x30\x07\x00\x03a/bhi",
    b"\x31\x07\x00\x03a/bhi",  # retained
    b"\x32\x09\x00\x03a/b\x0a\x0bhi",
    b"\x3a\x09\x00\x03a/b\x0a\x0bhi",  # DUP
    b"\x34\x09\x00\x03a/b\x0a\x0bhi",
    b"\x3d\x09\x00\x03a/b\x0a\x0bhi",
    b"\x40\x02\x0a\x0b",  # PUBACK
    b"\x50\x02\x0a\x0b",  # PUBREC
    b"\x62\x02\x0a\x0b",  # PUBREL
    b"\x70\x02\x0a\x0b",  # PUBCOMP
    b"\x90\x05\x0a\x0b\x00\x01\x80",  # SUBACK
    b"\xb0\x02\x0a\x0b",  # UNSUBACK
    b"\xd0\x00",  # PINGRESP
)

ILL_FORMED = (
    b"\x80",  # a continuation byte alone
    b"a\xbf",
    b"\xc3",  # cut short
    b"\xe2\x82",
    b"\xf0\x9f\x98",
    b"\xc3a",  # no continuation byte where one must be
    b"\xe2\x82a",
    b"\xc0\x80",  # over-long: NUL
    b"\xc1\xbf",  # over-long: DEL
    b"\xe0\x80\xaf",  # over-long: /
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xed\xa0\x80",  # U+D800
    b"\xed\xbf\xbf",  # U+DFFF
    b"\xed\xa0\xbd\xed\xb8\x80",  # a surrogate pair
    b"\xf4\x90\x80\x80",  # U+110000
    b"\xf7\xbf\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",  # five and six bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xfe",
    b"\xff",
    # wrong lengths that add up: an over-long form beside another fault
    b"\xc0\x80\xed\xa0\x80",
    b"\xe0\x80\x80\xf4\x90\x80\x80",
    b"\x00",
    b"a\x00b",
    b"\xc3\xa4\x00",
)

WELL_FORMED = (
    (b"", ""),
    (b"plain ASCII\x7f\x01", "plain ASCII\x7f\x01"),
    (b"\xc2\x80\xdf\xbf", "\x80\u07ff"),
    (b"\xe0\xa0\x80\xef\xbf\xbf", "\u0800\uffff"),
    (b"\xed\x9f\xbf\xee\x80\x80", "\ud7ff\ue000"),
    (b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", "\U00010000\U0010ffff"),
    (b"\xef\xbb\xbfx", "\ufeffx"),  # U+FEFF is kept [MQTT-1.5.3-3]
    (b"k\xc3\xa4se \xf0\x9f\x98\x80", "k\xe4se \U0001f600"),
)


def well_formed(data):
    """Whether `data` is what table 3-7 of the Unicode standard allows, without U+0000."""
    i = 0
    while i < len(data):
        first = data[i]
        low, high, more = 0x80, 0xBF, 0
        if 0xC2 <= first <= 0xDF:
            more = 1
        elif 0xE0 <= first <= 0xEF:
            more = 2
            low = 0xA0 if first == 0xE0 else low
            high = 0x9F if first == 0xED else high
        elif 0xF0 <= first <= 0xF4:
            more = 3
            low = 0x90 if first == 0xF0 else low
            high = 0x8F if first == 0xF4 else high
        elif not 0 < first < 0x80:
            return False
        if i + more >= len(data):
            return False
        for byte in data[i + 1 : i + 1 + more]:
            if not low <= byte <= high:
                return False
            low, high = 0x80, 0xBF
        i += 1 + more
    return True


def numbers(seed):
    """Yield numbers below 65536 that are the same on every interpreter."""
    while True:
        seed = (seed * 75 + 74) % 65537
        yield seed & 0xFFFF


def feed(decoder, data):
    """Feed `data` as a socket does, as much as there is space; return a list of what came out."""
    got = []
    data = memoryview(data)
    while data:
        space = decoder.space()
        n = min(len(space), len(data))
        assert n, "no space"
        space[:n] = data[:n]
        data = data[n:]
        decoder.fed(n)
        while True:
            first = decoder.next()
            if first is None:
                break
            got.append((first, bytes(decoder.buf[decoder.at : decoder.end])))
    return got


def decode(data, max_packet=4096):
    """Feed one packet; return the decoder, which must be at it."""
    decoder = packet.Decoder(max_packet)
    assert len(feed(decoder, data)) == 1
    return decoder


def published(data):
    """Return what Decoder.publish gives for the PUBLISH packet `data`."""
    return decode(data).publish(data[0] >> 1 & 3)


def header(first, length):
    """Return a fixed header, by the algorithm of section 2.2.3."""
    out = [first]
    while True:
        byte = length % 128
        length //= 128
        out.append(byte | 128 if length else byte)
        if not length:
            return bytes(out)


# Encoding


def test_connect_has_protocol_name_level_flags_and_keep_alive():
    """
    MQTT 3.1.1: [MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-18], [MQTT-3.1.2-20], [MQTT-3.1.3-3]
    """
    assert packet.connect(b"me", 60, True) == b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me"
    assert packet.connect(b"me", 60, False) == b"\x10\x0e\x00\x04MQTT\x04\x00\x00\x3c\x00\x02me"
    assert packet.connect(b"", 0, True) == b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
    assert packet.connect(b"x", 65535, True)[10:12] == b"\xff\xff"


def test_connect_fields_go_in_the_order_of_section_3_1_3():
    """MQTT 3.1.1: [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.3-1]"""
    assert packet.connect(b"me", 258, False, b"joe", b"pw", (b"w/t", b"bye", 1, True)) == (
        b"\x10\x21\x00\x04MQTT\x04\xec\x01\x02\x00\x02me"
        b"\x00\x03w/t\x00\x03bye\x00\x03joe\x00\x02pw"
    )


def test_connect_flags_say_what_is_there():
    """MQTT 3.1.1: [MQTT-3.1.2-13], [MQTT-3.1.2-15]"""

    def flags(*more):
        return packet.connect(b"me", 60, False, *more)[9]

    assert flags() == 0
    assert flags(b"joe") == 0x80
    assert flags(b"joe", b"pw") == 0xC0
    assert flags(b"joe", b"") == 0xC0  # an empty password is one
    assert flags(b"") == 0x80
    assert flags(None, None, (b"t", b"", 0, False)) == 0x04
    assert flags(None, None, (b"t", b"", 1, False)) == 0x0C
    assert flags(None, None, (b"t", b"", 2, True)) == 0x34


def test_connect_never_has_a_password_without_a_user():
    """MQTT 3.1.1: [MQTT-3.1.2-22]"""
    assert packet.connect(b"me", 60, False, None, b"pw") == packet.connect(b"me", 60, False)


def test_a_field_or_a_keep_alive_over_65535_raises():
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
            packet.connect(*arguments)
    with raises(ValueError):
        packet.subscribe(1, [(long, 0)])
    with raises(ValueError):
        packet.unsubscribe(1, [long])
    assert packet.connect(b"me", 60, True, b"joe", long[1:])[-65537:-65535] == b"\xff\xff"


def test_publish_is_header_topic_id_payload():
    """MQTT 3.1.1: [MQTT-2.3.1-5], [MQTT-3.3.2-1], [MQTT-4.3.1-1]"""
    assert packet.publish(b"a/b", b"hi") == b"\x30\x07\x00\x03a/bhi"
    assert packet.publish(b"a/b", b"") == b"\x30\x05\x00\x03a/b"
    assert packet.publish(b"a/b", bytearray(b"hi"), 0, True) == b"\x31\x07\x00\x03a/bhi"
    assert packet.publish(b"a/b", b"hi", 1) == b"\x32\x09\x00\x03a/b\x00\x00hi"
    assert packet.publish(b"a/b", b"hi", 2, True) == b"\x35\x09\x00\x03a/b\x00\x00hi"


def test_remaining_length_takes_as_few_bytes_as_it_needs():
    for length in (3, 126, 127, 128, 129, 16382, 16383, 16384, 16385, 40000):
        buf = packet.publish(b"t", b"x" * (length - 3))
        head = header(0x30, length)
        assert bytes(buf[: len(head)]) == head, length
        assert len(buf) == len(head) + length
        assert buf[len(head) :] == b"\x00\x01t" + b"x" * (length - 3)


def test_a_topic_of_65535_bytes_fits():
    buf = packet.publish(b"t" * 65535, b"x")
    assert buf[:7] == header(0x30, 65538) + b"\xff\xfft"
    assert buf[-2:] == b"tx"


def test_packet_id_and_dup_are_written_behind_every_length_of_header():
    for head in (b"\x01", b"\x81\x01", b"\x81\x80\x01", b"\x81\x80\x80\x01"):
        buf = bytearray(b"\x33" + head + b"\x00\x03a/b\x00\x00payload")
        packet.set_id(buf, 0xFEDC)
        assert buf == b"\x33" + head + b"\x00\x03a/b\xfe\xdcpayload"
        assert packet.topic(buf) == "a/b"
        packet.set_dup(buf, True)
        packet.set_dup(buf, True)
        assert buf[0] == 0x3B
        packet.set_id(buf, 1)
        assert buf == b"\x3b" + head + b"\x00\x03a/b\x00\x01payload"
        packet.set_dup(buf, False)
        assert buf == b"\x33" + head + b"\x00\x03a/b\x00\x01payload"


def test_packet_id_goes_behind_a_long_topic():
    buf = packet.publish(b"t" * 300, b"", 1)
    packet.set_id(buf, 65535)
    assert buf[-2:] == b"\xff\xff"
    assert buf[-3:-2] == b"t"


def test_lesson_11_lengths_are_of_bytes_not_of_characters():
    topic = "k\xe4se/\u20ac/\U0001f600"
    data = topic.encode()
    buf = packet.publish(data, topic.encode(), 1)
    assert buf[1] == len(buf) - 2 == 4 + 2 * len(data)
    assert buf[2:4] == bytes((0, len(data)))
    assert packet.topic(buf) == topic
    packet.set_id(buf, 5)
    assert published(bytes(buf)) == (topic, 5, data)


def test_acknowledgements_have_their_flags():
    """MQTT 3.1.1: [MQTT-2.2.2-1], [MQTT-2.3.1-6], [MQTT-3.6.1-1]"""
    assert packet.ack(0x40, 0x0A0B) == b"\x40\x02\x0a\x0b"
    assert packet.ack(0x50, 1) == b"\x50\x02\x00\x01"
    assert packet.ack(0x62, 65535) == b"\x62\x02\xff\xff"
    assert packet.ack(0x70, 256) == b"\x70\x02\x01\x00"


def test_subscribe_and_unsubscribe():
    """
    MQTT 3.1.1: [MQTT-2.2.2-1], [MQTT-3.8.1-1], [MQTT-3.8.3-3], [MQTT-3.8.3-4], [MQTT-3.10.1-1],
    [MQTT-3.10.3-1], [MQTT-3.10.3-2]
    """
    assert packet.subscribe(10, [(b"a/b", 1)]) == b"\x82\x08\x00\x0a\x00\x03a/b\x01"
    assert packet.subscribe(0x0A0B, [(b"a/b", 1), (b"#", 0), (b"c/+", 2)]) == (
        b"\x82\x12\x0a\x0b\x00\x03a/b\x01\x00\x01#\x00\x00\x03c/+\x02"
    )
    assert packet.unsubscribe(0x0A0B, [b"a/b"]) == b"\xa2\x07\x0a\x0b\x00\x03a/b"


# Decoding


def test_every_packet_of_a_server_comes_out_whole():
    for data in FROM_SERVER:
        assert feed(packet.Decoder(), data) == [(data[0], data[2:])]


def test_every_packet_comes_out_of_single_bytes():
    decoder = packet.Decoder()
    for data in FROM_SERVER:
        for i in range(len(data) - 1):
            assert feed(decoder, data[i : i + 1]) == []
        assert feed(decoder, data[-1:]) == [(data[0], data[2:])]


def test_many_packets_come_out_of_one_read():
    got = feed(packet.Decoder(), b"".join(FROM_SERVER))
    assert got == [(data[0], data[2:]) for data in FROM_SERVER]


def test_packets_of_every_size_follow_each_other():
    decoder = packet.Decoder()
    sizes = (3, 600, 3, 3, 4093, 509, 510, 511, 512, 513, 5, 2000, 2000, 126, 127, 128, 3, 507)
    stream = b"".join([header(0x30, n) + b"\x00\x01" + b"t" * (n - 2) for n in sizes])
    assert [len(body) for _, body in feed(decoder, stream)] == list(sizes)
    for n in sizes:  # one by one: the buffer starts over each time
        data = header(0x30, n) + b"\x00\x01" + b"t" * (n - 2)
        assert feed(decoder, data) == [(0x30, data[-n:])]


def test_the_split_of_the_input_does_not_matter():
    stream = b"".join(FROM_SERVER)
    for n in (600, 5, 1500, 450, 700):
        stream += header(0x32, n) + b"\x00\x01t\x00\x07" + b"p" * (n - 5) + FROM_SERVER[9]
    whole = feed(packet.Decoder(), stream)
    for size in (1, 2, 3, 5, 7, 64, 509, 511, 512, 513, 1000):
        decoder = packet.Decoder()
        got = []
        for i in range(0, len(stream), size):
            got += feed(decoder, stream[i : i + size])
        assert got == whole, size


def test_space_is_never_empty_and_a_large_buffer_is_given_back():
    decoder = packet.Decoder()
    small = len(decoder.space())
    data = header(0x30, 3000) + b"\x00\x01t" + b"p" * 2997
    for i in range(len(data)):
        assert len(decoder.space()) > 0
        got = feed(decoder, data[i : i + 1])
        assert len(decoder.buf) <= 4096
    assert len(got) == 1
    assert len(decoder.space()) == small == len(decoder.buf)
    assert feed(decoder, data[:-1]) == []
    assert feed(decoder, data[-1:] + b"\x30") == [(0x30, data[3:])]
    decoder.space()
    assert len(decoder.buf) == small  # not as large as the packet before


def test_the_payload_is_bytes_of_its_own():
    decoder = decode(b"\x30\x07\x00\x03a/bhi")
    topic, _, payload = decoder.publish(0)
    decoder.space()[:9] = b"?????????"
    assert (topic, payload) == ("a/b", b"hi")
    assert isinstance(payload, bytes)
    assert isinstance(topic, str)


def test_publish_gives_topic_id_and_payload():
    assert published(b"\x30\x07\x00\x03a/bhi") == ("a/b", 0, b"hi")
    assert published(b"\x30\x03\x00\x01a") == ("a", 0, b"")
    assert published(b"\x32\x05\x00\x01a\x00\x01") == ("a", 1, b"")
    assert published(b"\x3d\x09\x00\x03a/b\x0a\x0b\x00\xff") == ("a/b", 0x0A0B, b"\x00\xff")
    for n in (124, 125, 600, 3000):
        payload = bytes(range(256)) * 12
        payload = payload[:n]
        assert published(header(0x34, n + 5) + b"\x00\x01a\xff\xff" + payload) == (
            "a",
            65535,
            payload,
        )


def test_a_packet_within_another_read_is_found_at_its_offset():
    decoder = packet.Decoder()
    stream = b"\xd0\x00\x32\x07\x00\x03a/b\x00\x09\x90\x03\x00\x08\x01"
    decoder.space()[: len(stream)] = stream
    decoder.fed(len(stream))
    assert decoder.next() == 0xD0
    assert decoder.next() == 0x32
    assert decoder.publish(1) == ("a/b", 9, b"")
    assert decoder.next() == 0x90
    assert (decoder.packet_id(), decoder.suback()) == (8, b"\x01")
    assert decoder.next() is None


def test_first_bytes_that_no_server_may_send():
    """MQTT 3.1.1: [MQTT-2.2.2-2], [MQTT-3.3.1-2], [MQTT-3.3.1-4], [MQTT-3.6.1-1]"""
    allowed = [0x20, 0x30, 0x31, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0]
    allowed += [0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D]  # QoS 1 and 2, DUP or not
    for first in range(256):
        for length in range(8):
            data = bytes((first, length)) + b"\x00\x01abcdef"[:length]
            if first & 0xF0 == 0x30 or first == 0x90:
                right = length > 2
            elif first == 0xD0:
                right = length == 0
            else:
                right = length == 2
            if right and first in allowed:
                assert feed(packet.Decoder(), data) == [(first, data[2:])]
            else:
                with raises(ProtocolError, "0x%02x" % first):
                    feed(packet.Decoder(), data)


def test_a_wrong_header_is_told_before_the_rest_comes():
    for data in (b"\x10\x7f", b"\x36\x7f", b"\x38\x7f", b"\x20\x03", b"\x91\x7f", b"\xd0\x01"):
        with raises(ProtocolError):
            feed(packet.Decoder(), data)


def test_lesson_8_a_remaining_length_is_not_believed():
    for head in (b"\x30\xff\xff\xff\x7f", b"\x32\xff\xff\x7f", b"\x90\xff\xff\xff\x7f"):
        decoder = packet.Decoder()
        with raises(ProtocolError, "max_packet is 4096"):
            feed(decoder, head)
        assert len(decoder.buf) <= 4096


def test_lesson_8_a_remaining_length_ends_after_four_bytes():
    for head in (b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x80", b"\xd0\x80\x80\x80\x80"):
        with raises(ProtocolError, "2.2.3"):
            feed(packet.Decoder(), head)
        decoder = packet.Decoder()
        assert feed(decoder, head[:4]) == []
        with raises(ProtocolError, "2.2.3"):
            feed(decoder, head[4:])


def test_a_remaining_length_longer_than_needed_is_refused():
    for head in (b"\xd0\x80\x00", b"\x40\x82\x00", b"\x30\x83\x80\x00", b"\x30\xff\x80\x80\x00"):
        with raises(ProtocolError, "2.2.3"):
            feed(packet.Decoder(), head + b"\x00\x01abc")


def test_max_packet_is_of_the_whole_packet():
    for n in (62, 127, 128, 508, 509, 510, 4093, 4094):
        data = header(0x30, n) + b"\x00\x01t" + b"p" * (n - 3)
        assert len(feed(packet.Decoder(len(data)), data)) == 1
        with raises(ProtocolError, "max_packet is %d" % (len(data) - 1)):
            feed(packet.Decoder(len(data) - 1), data)


def test_lesson_9_a_topic_beyond_its_packet_is_refused():
    for data in (
        b"\x30\x03\x00\x02a",
        b"\x30\x03\xff\xffa",
        b"\x30\x05\x00\x04a/b",
        b"\x32\x05\x00\x04a/b",
        b"\x32\x05\x00\x02a/b",  # a packet id cut short
        b"\x32\x05\x00\x03a/b",  # none
        b"\x34\x06\x00\x03a/b\x01",
        b"\x32\x03\x00\x00\x01",
    ):
        with raises(ProtocolError, "3.3.2"):
            published(data)
        decoder = packet.Decoder()  # what follows must not serve as its rest
        feed(decoder, data)
        decoder = packet.Decoder()
        decoder.space()[: len(data) + 4] = data + b"bbbb"
        decoder.fed(len(data) + 4)
        with raises(ProtocolError, "3.3.2"):
            decoder.publish(decoder.next() >> 1 & 3)


def test_topics_that_no_server_may_send():
    """MQTT 3.1.1: [MQTT-3.3.2-2], [MQTT-4.7.3-1]"""
    for topic in (b"+", b"#", b"a/+", b"a/#", b"a+b", b"a#"):
        with raises(ProtocolError, "3.3.2-2"):
            published(bytes((0x30, 2 + len(topic), 0, len(topic))) + topic)
    with raises(ProtocolError, "4.7.3-1"):  # empty
        published(b"\x30\x03\x00\x00x")


def test_packet_id_0_is_refused():
    """MQTT 3.1.1: [MQTT-2.3.1-1]"""
    for data in (
        b"\x40\x02\x00\x00",
        b"\x50\x02\x00\x00",
        b"\x62\x02\x00\x00",
        b"\x70\x02\x00\x00",
        b"\x90\x03\x00\x00\x00",
        b"\xb0\x02\x00\x00",
    ):
        with raises(ProtocolError, "packet id 0"):
            decode(data).packet_id()
    for first in (0x32, 0x3A, 0x34, 0x3C):
        with raises(ProtocolError, "packet id 0"):
            published(bytes((first,)) + b"\x07\x00\x03a/b\x00\x00")


def test_packet_ids_have_two_bytes():
    for kind in (0x40, 0x50, 0x62, 0x70, 0xB0):
        for n in (1, 255, 256, 65535):
            assert decode(bytes((kind, 2, n >> 8, n & 255))).packet_id() == n


def test_connack_gives_session_present_and_return_code():
    assert decode(b"\x20\x02\x00\x00").connack() == (False, 0)
    assert decode(b"\x20\x02\x01\x00").connack() == (True, 0)
    for code in range(1, 256):
        assert decode(bytes((0x20, 2, 0, code))).connack() == (False, code)


def test_connack_flags_are_strict():
    for flags in range(2, 256):
        with raises(ProtocolError, "3.2.2"):
            decode(bytes((0x20, 2, flags, 0))).connack()
    with raises(ProtocolError, "3.2.2"):  # refused, and yet a session [MQTT-3.2.2-4]
        decode(b"\x20\x02\x01\x05").connack()


def test_suback_gives_its_return_codes():
    decoder = decode(b"\x90\x06\x0a\x0b\x00\x01\x02\x80")
    assert decoder.suback() == b"\x00\x01\x02\x80"
    assert decoder.packet_id() == 0x0A0B
    for code in range(256):
        decoder = decode(bytes((0x90, 4, 0, 1, 0, code)))
        if code < 3 or code > 127:
            assert decoder.suback() == bytes((0, code))
        else:
            with raises(ProtocolError, "MQTT-3.9.3-2"):
                decoder.suback()


# Text


def test_well_formed_text_is_taken_as_it_is():
    """MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-3]"""
    for data, text in WELL_FORMED:
        assert packet.text(data) == text
        assert packet.text(bytearray(data)) == text
        assert packet.text(memoryview(data)) == text


def test_ill_formed_text_is_refused():
    """MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2]"""
    for data in ILL_FORMED:
        for more in (data, b"a" + data, data + b"a", b"\xc3\xa4" + data, data + b"\xe2\x82\xac"):
            with raises(ProtocolError, "MQTT-1.5.3"):
                packet.text(more)
            with raises(ProtocolError, "MQTT-1.5.3"):
                published(bytes((0x30, len(more) + 2, 0, len(more))) + more)


def test_text_of_every_pair_of_bytes_is_judged_as_unicode_does():
    edges = b"\x00\x01\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xdf\xe0\xed\xef\xf0\xf4\xf5\xff"
    for first in range(256):
        for second in edges:
            for rest in (b"", b"\x80", b"\x80\x80", b"\xbf\xbf", b"a\x80"):
                data = bytes((first, second)) + rest
                try:
                    assert packet.text(data).encode() == data
                    right = True
                except ProtocolError:
                    right = False
                assert right == well_formed(data), data


def test_text_of_random_bytes_is_judged_as_unicode_does():
    lead = b"a\xc2\xc3\xdf\xe0\xe2\xed\xef\xf0\xf1\xf4\x80\x9f\xa0\xbf\xc0\xf5\x00"
    random = numbers(1)
    good = 0
    for _ in range(4000):
        size = next(random) % 8
        data = bytes([lead[next(random) % (3 + next(random) % 16)] for _ in range(size)])
        try:
            assert packet.text(data).encode() == data
            right = True
            good += 1
        except ProtocolError:
            right = False
        assert right == well_formed(data), data
    assert 100 < good < 3900


def test_only_protocol_errors_come_out_of_damaged_input():
    stream = b"".join(FROM_SERVER)
    stream += header(0x32, 600) + b"\x00\x01t\x00\x07" + b"p" * 595 + stream
    random = numbers(2)
    refused = 0
    for _ in range(1000):
        data = bytearray(stream)
        for _ in range(1 + next(random) % 3):
            data[next(random) % len(data)] = next(random) & 255
        decoder = packet.Decoder(700)
        at = 0
        try:
            while at < len(data):
                space = decoder.space()
                n = min(len(space), len(data) - at, 1 + next(random) % 300)
                space[:n] = data[at : at + n]
                decoder.fed(n)
                at += n
                while True:
                    first = decoder.next()
                    if first is None:
                        break
                    fields(decoder, first)
        except ProtocolError:
            refused += 1
        assert len(decoder.buf) <= 700
    assert 100 < refused < 1000
