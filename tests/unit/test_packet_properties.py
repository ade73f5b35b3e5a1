"""packet.py against a server's codec written here from the specification, by hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_as_tls import packet
from mqtt_as_tls.errors import ProtocolError
from tests.unit.checks import fields

# The server's half, independent of the code under test


def remaining_length(n):
    out = bytearray()
    while True:
        n, byte = divmod(n, 128)
        out.append(byte | 128 if n else byte)
        if not n:
            return bytes(out)


def whole(first, body):
    return bytes([first]) + remaining_length(len(body)) + body


def u16(n):
    return n.to_bytes(2, "big")


def string(data):
    return u16(len(data)) + data


class Reader:
    """Take fields off the front of a packet of a client."""

    def __init__(self, data):
        self.first = data[0]
        shift = n = 0
        for at in range(1, 5):
            n |= (data[at] & 127) << shift
            shift += 7
            if data[at] < 128:
                break
        else:
            raise AssertionError("Remaining Length over 4 bytes")
        assert data[1 : at + 1] == remaining_length(n), "longer than needed"
        self.rest = bytes(data[at + 1 :])
        assert len(self.rest) == n, "Remaining Length is not what remains"

    def take(self, n):
        assert len(self.rest) >= n
        part, self.rest = self.rest[:n], self.rest[n:]
        return part

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return int.from_bytes(self.take(2), "big")

    def string(self):
        return self.take(self.u16())

    def end(self):
        assert not self.rest


def read_connect(data):
    r = Reader(data)
    assert (r.first, r.string(), r.u8()) == (0x10, b"MQTT", 4)
    flags, keepalive_s = r.u8(), r.u16()
    assert not flags & 1  # [MQTT-3.1.2-3]
    client_id = r.string()
    will = None
    if flags & 4:
        will = (r.string(), r.string(), flags >> 3 & 3, bool(flags & 32))
    else:
        assert not flags & 0x38  # [MQTT-3.1.2-11, -13, -15]
    user = r.string() if flags & 128 else None
    password = r.string() if flags & 64 else None
    assert password is None or user is not None  # [MQTT-3.1.2-22]
    r.end()
    return client_id, keepalive_s, bool(flags & 2), user, password, will


def read_publish(data):
    r = Reader(data)
    assert r.first & 0xF0 == 0x30
    qos = r.first >> 1 & 3
    topic = r.string()
    packet_id = r.u16() if qos else 0
    return topic, r.rest, qos, bool(r.first & 1), bool(r.first & 8), packet_id


def read_subscribe(data):
    r = Reader(data)
    assert r.first == 0x82
    packet_id, filters = r.u16(), []
    while r.rest:
        filters.append((r.string(), r.u8()))
    return packet_id, filters


def read_unsubscribe(data):
    r = Reader(data)
    assert r.first == 0xA2
    packet_id, name = r.u16(), r.string()
    r.end()
    return packet_id, name


# What goes in

binary = st.binary(max_size=300)
ids = st.integers(1, 65535)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, min_size=1, max_size=40)
topics = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=40
)
payloads = st.one_of(
    binary,
    st.integers(0, 3000).map(lambda n: bytes(i & 255 for i in range(n))),
    st.sampled_from([120, 121, 122, 123, 124, 125, 126, 127, 128, 505, 508, 512]).map(bytes),
)
wills = st.tuples(binary, binary, st.integers(0, 2), st.booleans())


def server_publish(topic, payload, qos, retain, dup, packet_id):
    first = 0x30 | (dup and qos > 0) << 3 | qos << 1 | retain
    body = string(topic.encode()) + (u16(packet_id) if qos else b"") + payload
    want = (topic, packet_id if qos else 0, payload)
    return whole(first, body), want


# (bytes, fields as fields() returns them)
server_packets = st.one_of(
    st.tuples(st.booleans(), st.integers(0, 255)).map(
        lambda x: (
            whole(0x20, bytes([x[0] and not x[1], x[1]])),
            (bool(x[0] and not x[1]), x[1]),
        )
    ),
    st.builds(
        server_publish, topics, payloads, st.integers(0, 2), st.booleans(), st.booleans(), ids
    ),
    st.tuples(st.sampled_from([0x40, 0x50, 0x62, 0x70, 0xB0]), ids).map(
        lambda x: (whole(x[0], u16(x[1])), x[1])
    ),
    st.tuples(ids, st.lists(st.sampled_from([0, 1, 2, 128]), min_size=1, max_size=9)).map(
        lambda x: (whole(0x90, u16(x[0]) + bytes(x[1])), (x[0], bytes(x[1])))
    ),
    st.just((b"\xd0\x00", None)),
)


def drain(decoder, data, sizes):
    """
    Feed `data` in pieces of the given sizes (then whole); return [(first byte, fields)].

    Checks what memory the decoder holds: its small buffer, or one for the packet that comes.
    """
    got = []
    sizes = iter(sizes)
    while data:
        space = decoder.space()
        assert 0 < len(space) <= len(decoder.buf) <= max(512, decoder.max_packet)
        n = min(len(space), len(data), next(sizes, len(data)))
        space[:n] = data[:n]
        data = data[n:]
        decoder.fed(n)
        while (first := decoder.next()) is not None:
            got.append((first, fields(decoder, first)))
    return got


pieces = st.one_of(
    st.just([1] * 20000),
    st.lists(st.integers(1, 700), max_size=60),
    st.lists(st.integers(1, 5), max_size=200),
)


# Client to server


@given(
    client_id=binary,
    keepalive_s=st.integers(0, 65535),
    clean=st.booleans(),
    credentials=st.one_of(st.just((None, None)), st.tuples(binary, st.one_of(st.none(), binary))),
    will=st.one_of(st.none(), wills),
)
def test_a_server_reads_connect_as_it_was_meant(client_id, keepalive_s, clean, credentials, will):
    fields = (client_id, keepalive_s, clean, *credentials, will)
    assert read_connect(packet.connect(*fields)) == fields


@given(topics, payloads, st.integers(0, 2), st.booleans(), st.booleans(), ids)
def test_a_server_reads_publish_as_it_was_meant(topic, payload, qos, retain, dup, packet_id):
    buf = packet.publish(topic.encode(), payload, qos, retain)
    if qos:
        assert read_publish(buf) == (topic.encode(), payload, qos, retain, False, 0)
        packet.set_dup(buf, dup)
        packet.set_id(buf, packet_id)
    else:
        dup = False
        packet_id = 0
    assert read_publish(buf) == (topic.encode(), payload, qos, retain, dup, packet_id)
    assert packet.topic(buf) == topic


@pytest.mark.parametrize("remaining", [127, 128, 16383, 16384, 2097151, 2097152])
def test_publish_at_the_steps_of_remaining_length(remaining):
    payload = bytes(remaining - 5)
    buf = packet.publish(b"t", payload, 1)
    packet.set_id(buf, 0xFEDC)
    packet.set_dup(buf, True)
    assert read_publish(buf) == (b"t", payload, 1, False, True, 0xFEDC)
    assert packet.topic(buf) == "t"
    decoder = packet.Decoder(len(buf))
    assert drain(decoder, bytes(buf), [100, 1, 70000]) == [(0x3A, ("t", 0xFEDC, payload))]


def test_publish_over_4_bytes_of_remaining_length_raises():
    class Huge(bytes):
        def __len__(self):
            return 268_435_456 - 3

    with pytest.raises(ValueError, match="268435455"):
        packet.publish(b"t", Huge())


@given(ids, st.lists(st.tuples(binary, st.integers(0, 2)), min_size=1, max_size=9))
def test_a_server_reads_subscribe_as_it_was_meant(packet_id, filters):
    assert read_subscribe(packet.subscribe(packet_id, filters)) == (packet_id, filters)


@given(ids, binary)
def test_a_server_reads_unsubscribe_as_it_was_meant(packet_id, name):
    assert read_unsubscribe(packet.unsubscribe(packet_id, [name])) == (packet_id, name)


@given(st.sampled_from([0x40, 0x50, 0x62, 0x70]), ids)
def test_acknowledgements_are_the_same_in_both_directions(kind, packet_id):
    buf = packet.ack(kind, packet_id)
    assert buf == whole(kind, u16(packet_id))
    assert drain(packet.Decoder(), buf, []) == [(kind, packet_id)]


# Server to client


@given(server_packets)
def test_what_a_server_sends_is_read_as_it_was_meant(sent):
    data, fields = sent
    assert drain(packet.Decoder(), data, []) == [(data[0], fields)]


@given(st.lists(server_packets, max_size=12), pieces)
def test_any_split_of_the_input_gives_the_same_packets(sent, sizes):
    decoder = packet.Decoder()
    got = drain(decoder, b"".join(data for data, _ in sent), sizes)
    assert got == [(data[0], fields) for data, fields in sent]
    assert len(decoder.space()) == len(decoder.buf) == 512  # a large buffer is not kept


@given(topics, payloads, st.integers(0, 2), st.booleans(), ids)
def test_publish_comes_back_through_the_decoder(topic, payload, qos, retain, packet_id):
    buf = packet.publish(topic.encode(), payload, qos, retain)
    if qos:
        packet.set_id(buf, packet_id)
    want = (topic, packet_id if qos else 0, payload)
    assert drain(packet.Decoder(), bytes(buf), []) == [(0x30 | qos << 1 | retain, want)]


@given(st.lists(server_packets, min_size=1, max_size=6), st.integers(0, 2000), pieces)
def test_a_stream_cut_short_gives_the_packets_before_the_cut(sent, cut, sizes):
    data = b"".join(data for data, _ in sent)[:cut]
    want, at = [], 0
    for one, what in sent:
        at += len(one)
        if at <= cut:
            want.append((one[0], what))
    assert drain(packet.Decoder(), data, sizes) == want


# Anything


def attempt(data, sizes, max_packet):
    """Return the packets and whether it ended in a ProtocolError; nothing else may escape."""
    decoder = packet.Decoder(max_packet)
    got = []
    try:
        sizes = iter(sizes)
        while data:
            space = decoder.space()
            assert 0 < len(space) <= len(decoder.buf) <= max(512, max_packet)
            n = min(len(space), len(data), next(sizes, len(data)))
            space[:n] = data[:n]
            data = data[n:]
            decoder.fed(n)
            while (first := decoder.next()) is not None:
                assert 0 <= decoder.at <= decoder.end <= len(decoder.buf)
                got.append((first, fields(decoder, first)))
    except ProtocolError as error:
        assert "section" in str(error) or "MQTT-" in str(error) or "max_packet" in str(error)
        return got, True
    return got, False


heads = st.sampled_from([0x20, 0x30, 0x32, 0x34, 0x3B, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0])
lookalikes = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.builds(lambda h, body: whole(h, body), heads, st.binary(max_size=40)),
        st.builds(lambda h, n: bytes([h]) + remaining_length(n), heads, st.integers(0, 2**28 - 1)),
        server_packets.map(lambda x: x[0]),
    ),
    max_size=6,
).map(b"".join)


@given(lookalikes, pieces, st.sampled_from([16, 64, 600, 4096]))
def test_only_protocol_error_escapes_whatever_comes_in(data, sizes, max_packet):
    assert attempt(data, sizes, max_packet) == attempt(data, [], max_packet)


@given(st.lists(server_packets, min_size=1, max_size=4), st.data(), pieces)
def test_only_protocol_error_escapes_from_damaged_packets(sent, data, sizes):
    stream = bytearray(b"".join(one for one, _ in sent))
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)):
        stream[at] = data.draw(st.integers(0, 255))
    assert attempt(bytes(stream), sizes, 4096) == attempt(bytes(stream), [], 4096)


@given(st.one_of(st.binary(max_size=20), st.text(max_size=20).map(lambda s: s.encode())))
def test_text_is_what_utf_8_allows_and_no_more(data):
    try:
        want = data.decode()
    except UnicodeDecodeError:
        want = None
    if want is None or "\0" in want:
        with pytest.raises(ProtocolError):
            packet.text(data)
    else:
        assert packet.text(data) == want
