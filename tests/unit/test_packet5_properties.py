"""packet5.py against a server's codec written here from the specification, by hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_as_tls import packet5, properties
from mqtt_as_tls.errors import ProtocolError
from tests.unit.test_packet5 import CODES, fields
from tests.unit.test_packet_properties import (
    Reader,
    binary,
    ids,
    payloads,
    pieces,
    remaining_length,
    string,
    topics,
    u16,
    whole,
    wills,
)
from tests.unit.test_properties_properties import (
    block,
    expected,
    from_client,
    from_server,
    read,
    read_length,
)

ALIASES = 8  # the topic alias maximum of the decoders here
REASON_CODES = {first: [int(code, 16) for code in codes.split()] for first, codes in CODES.items()}


def take_properties(r):
    return read(r, read_length(r))


# Client to server


@given(
    client_id=binary,
    keepalive_s=st.integers(0, 65535),
    clean=st.booleans(),
    user=st.one_of(st.none(), binary),
    password=st.one_of(st.none(), binary),
    will=st.one_of(st.none(), wills),
    pairs=from_client(0x10),
    will_pairs=from_client(0),
)
def test_a_server_reads_connect_as_it_was_meant(
    client_id, keepalive_s, clean, user, password, will, pairs, will_pairs
):
    buf = packet5.connect(
        client_id,
        keepalive_s,
        not clean,
        user,
        password,
        will,
        properties.encode(pairs, 0x10),
        properties.encode(will_pairs, 0),
    )
    packet5.set_clean(buf, clean)
    r = Reader(buf)
    assert (r.first, r.string(), r.u8()) == (0x10, b"MQTT", 5)
    flags = r.u8()
    assert not flags & 1
    assert bool(flags & 2) == clean
    assert r.u16() == keepalive_s
    assert take_properties(r) == pairs
    assert r.string() == client_id
    assert bool(flags & 4) == bool(will)
    if will:
        assert take_properties(r) == will_pairs
        assert (r.string(), r.string(), flags >> 3 & 3, bool(flags & 32)) == will
    else:
        assert not flags & 0x38
    assert (r.string() if flags & 128 else None) == user
    assert (r.string() if flags & 64 else None) == password
    r.end()


@given(topics, payloads, st.integers(0, 2), st.booleans(), st.booleans(), ids, from_client(0x30))
def test_a_server_reads_publish_as_it_was_meant(topic, payload, qos, retain, dup, n, pairs):
    data = properties.encode(pairs, 0x30)
    buf = packet5.publish(topic.encode(), payload, qos, retain, data)
    if qos:
        packet5.set_dup(buf, dup)
        packet5.set_id(buf, n)
    assert packet5.topic(buf) == topic
    r = Reader(buf)
    assert r.first == 0x30 | (dup and qos > 0) << 3 | qos << 1 | retain
    assert r.string() == topic.encode()
    if qos:
        assert r.u16() == n
    assert take_properties(r) == pairs
    assert r.rest == payload


@given(topics, payloads, st.booleans(), st.integers(1, 65535), st.booleans(), from_client(0x30))
def test_a_server_reads_an_alias_as_it_was_meant(topic, payload, retain, alias, first, pairs):
    pairs = [pair for pair in pairs if pair[0] != "topic_alias"]
    data = properties.encode(pairs, 0x30)
    buf = packet5.publish(topic.encode(), payload, 0, retain, data)
    r = Reader(packet5.aliased(buf, alias, first))
    assert r.first == 0x30 | retain
    assert r.string() == (topic.encode() if first else b"")
    assert take_properties(r) == [("topic_alias", alias)] + pairs
    assert r.rest == payload


@given(
    ids,
    st.lists(st.tuples(binary, st.integers(0, 0x2E)), min_size=1, max_size=9),
    from_client(0x82),
)
def test_a_server_reads_subscribe_as_it_was_meant(packet_id, filters, pairs):
    r = Reader(packet5.subscribe(packet_id, filters, properties.encode(pairs, 0x82)))
    assert (r.first, r.u16(), take_properties(r)) == (0x82, packet_id, pairs)
    for one in filters:
        assert (r.string(), r.u8()) == one
    r.end()


@given(ids, st.lists(binary, min_size=1, max_size=9), from_client(0xA2))
def test_a_server_reads_unsubscribe_as_it_was_meant(packet_id, filters, pairs):
    r = Reader(packet5.unsubscribe(packet_id, filters, properties.encode(pairs, 0xA2)))
    assert (r.first, r.u16(), take_properties(r)) == (0xA2, packet_id, pairs)
    for one in filters:
        assert r.string() == one
    r.end()


def read_coded(r):
    """Return the reason code and the properties at the end of a packet, as far as there."""
    code, pairs = 0, []
    if r.rest:
        code = r.u8()
        if r.rest:
            pairs = take_properties(r)
    r.end()
    return code, pairs


@given(st.sampled_from([0x40, 0x50, 0x62, 0x70]), ids, st.integers(0, 255), st.data())
def test_a_server_reads_an_acknowledgement_as_it_was_meant(first, packet_id, code, data):
    pairs = data.draw(from_client(first))
    buf = packet5.ack(first, packet_id, code, properties.encode(pairs, first))
    r = Reader(buf)
    assert (r.first, r.u16()) == (first, packet_id)
    assert read_coded(r) == (code, pairs)
    if not pairs:
        assert len(buf) == (5 if code else 4)


@given(st.sampled_from([0xE0, 0xF0]), st.integers(0, 255), st.data())
def test_a_server_reads_disconnect_and_auth_as_they_were_meant(first, code, data):
    pairs = data.draw(from_client(first))
    encoded = properties.encode(pairs, first)
    buf = packet5.disconnect(code, encoded) if first == 0xE0 else packet5.auth(code, encoded)
    r = Reader(buf)
    assert r.first == first
    if first == 0xF0:
        assert len(r.rest) != 1  # its Property Length is never left out alone
    assert read_coded(r) == (code, pairs)


# Server to client: (bytes, fields, code, properties)


def codes_of(first):
    return st.sampled_from(REASON_CODES[first])


@st.composite
def connacks(draw):
    code = draw(codes_of(0x20))
    present = draw(st.booleans()) and not code
    pairs = draw(from_server(0x20))
    data = whole(0x20, bytes([present, code]) + block(pairs))
    return data, (present, code), code, expected(pairs)


@st.composite
def publishes(draw):
    topic, payload, qos = draw(topics), draw(payloads), draw(st.integers(0, 2))
    first = 0x30 | (draw(st.booleans()) and qos > 0) << 3 | qos << 1 | draw(st.booleans())
    n = draw(ids) if qos else 0
    pairs = [pair for pair in draw(from_server(0x30)) if pair[0] != "topic_alias"]
    shown = expected(pairs)
    if draw(st.booleans()):
        pairs.append(("topic_alias", draw(st.integers(1, ALIASES))))
    data = string(topic.encode()) + (u16(n) if qos else b"") + block(pairs) + payload
    return whole(first, data), (topic, n, payload), 0, shown


@st.composite
def answers(draw):
    first, n = draw(st.sampled_from([0x40, 0x50, 0x62, 0x70])), draw(ids)
    code, pairs = draw(codes_of(first)), draw(from_server(first))
    body = u16(n) + bytes([code])
    if not pairs and draw(st.booleans()):
        if not code and draw(st.booleans()):
            body = u16(n)
    else:
        body += block(pairs)
    return whole(first, body), n, code, expected(pairs)


@st.composite
def lists_of_codes(draw):
    first, n = draw(st.sampled_from([0x90, 0xB0])), draw(ids)
    codes = bytes(draw(st.lists(codes_of(first), min_size=1, max_size=9)))
    pairs = draw(from_server(first))
    return whole(first, u16(n) + block(pairs) + codes), codes, max(codes), expected(pairs)


@st.composite
def reasons(draw):
    first = draw(st.sampled_from([0xE0, 0xF0]))
    code, pairs = draw(codes_of(first)), draw(from_server(first))
    body = bytes([code]) + block(pairs)
    if not pairs and draw(st.booleans()):
        if not code:
            body = b""
        elif first == 0xE0:
            body = body[:1]
    return whole(first, body), code, code, expected(pairs)


server_packets = st.one_of(
    connacks(),
    publishes(),
    answers(),
    lists_of_codes(),
    reasons(),
    st.just((b"\xd0\x00", None, 0, None)),
)


def drain(decoder, data, sizes):
    """
    Feed `data` in pieces of the given sizes (then whole); return [(first byte, fields, code,
    properties)].

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
            assert 0 <= decoder.at <= decoder.end <= len(decoder.buf)
            what = fields(decoder, first)
            if first == 0xD0:
                got.append((first, None, 0, None))
            else:
                got.append((first, what, decoder.code, decoder.properties))
    return got


def new(max_packet=8192):
    return packet5.Decoder(max_packet, ALIASES)


@given(server_packets)
def test_what_a_server_sends_is_read_as_it_was_meant(sent):
    data, *want = sent
    assert drain(new(), data, []) == [(data[0], *want)]


@given(st.lists(server_packets, max_size=8), pieces)
def test_any_split_of_the_input_gives_the_same_packets(sent, sizes):
    decoder = new()
    got = drain(decoder, b"".join(one[0] for one in sent), sizes)
    assert got == [(data[0], *want) for data, *want in sent]
    assert len(decoder.space()) == len(decoder.buf) == 512  # a large buffer is not kept


@given(topics, payloads, st.integers(0, 2), st.booleans(), ids, from_client(0x30))
def test_publish_comes_back_through_the_decoder(topic, payload, qos, retain, n, pairs):
    pairs = [pair for pair in pairs if pair[0] != "topic_alias"]
    buf = packet5.publish(topic.encode(), payload, qos, retain, properties.encode(pairs, 0x30))
    if qos:
        packet5.set_id(buf, n)
    want = (0x30 | qos << 1 | retain, (topic, n if qos else 0, payload), 0, expected(pairs))
    assert drain(new(), bytes(buf), []) == [want]


@given(st.lists(st.tuples(st.integers(1, ALIASES), st.one_of(st.just(""), topics)), max_size=30))
def test_aliases_stand_for_the_topic_that_they_were_last_sent_with(sent):
    decoder = new()
    known = {}
    for alias, topic in sent:
        data = whole(0x30, string(topic.encode()) + block([("topic_alias", alias)]))
        if topic:
            known[alias] = topic
        if alias in known:
            assert drain(decoder, data, []) == [(0x30, (known[alias], 0, b""), 0, None)]
        else:
            with pytest.raises(ProtocolError, match="alias") as caught:
                drain(decoder, data, [])
            assert caught.value.code == 0x82
            return


# Anything


def attempt(data, sizes, max_packet):
    """Return whether it ended in a ProtocolError; nothing else may escape."""
    try:
        drain(new(max_packet), data, sizes)
    except ProtocolError as error:
        assert "section" in str(error) or "MQTT-" in str(error) or "max_packet" in str(error)
        assert error.code in (None, 0x81, 0x82, 0x94, 0x95)
        return True
    return False


heads = st.sampled_from(
    [0x20, 0x30, 0x32, 0x34, 0x3B, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xD0, 0xE0, 0xF0]
)
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
    stream = bytearray(b"".join(one[0] for one in sent))
    for at in data.draw(st.lists(st.integers(0, len(stream) - 1), max_size=4)):
        stream[at] = data.draw(st.integers(0, 255))
    assert attempt(bytes(stream), sizes, 4096) == attempt(bytes(stream), [], 4096)


@given(server_packets, st.data())
def test_a_packet_with_a_smaller_remaining_length_is_refused_or_says_less(sent, data):
    wire, what, code, props = sent
    r = Reader(wire)
    cut = r.rest[: data.draw(st.integers(0, len(r.rest)))]
    try:
        ((_, got, got_code, got_props),) = drain(new(), whole(r.first, cut), [])
    except ProtocolError as error:
        assert error.code in (None, 0x81)
        return
    assert got_props in (None, props)
    assert got_code <= code
    if r.first & 0xF0 == 0x30:
        assert got[:2] == what[:2]
        assert what[2].startswith(got[2])
