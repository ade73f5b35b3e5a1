"""properties.py against a codec written here from the specification, by hypothesis."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_as_tls import properties
from mqtt_as_tls.errors import ProtocolError
from tests.unit.test_packet_properties import Reader, remaining_length, string
from tests.unit.test_properties import FROM_CLIENT, FROM_SERVER, TABLE

CODES = (0x81, 0x82, 0x94)

# The other half, independent of the code under test

KINDS = {
    "payload_format_indicator": "flag",
    "message_expiry_interval": 4,
    "content_type": "text",
    "response_topic": "topic",
    "correlation_data": "binary",
    "subscription_identifier": "variable",
    "session_expiry_interval": 4,
    "assigned_client_identifier": "text",
    "server_keep_alive": 2,
    "authentication_method": "text",
    "authentication_data": "binary",
    "request_problem_information": "flag",
    "will_delay_interval": 4,
    "request_response_information": "flag",
    "response_information": "text",
    "server_reference": "text",
    "reason_string": "text",
    "receive_maximum": "2 not 0",
    "topic_alias_maximum": 2,
    "topic_alias": "2 not 0",
    "maximum_qos": "flag",
    "retain_available": "flag",
    "user_property": "pair",
    "maximum_packet_size": "4 not 0",
    "wildcard_subscription_available": "flag",
    "subscription_identifier_available": "flag",
    "shared_subscription_available": "flag",
}
NUMBERS = {name: number for number, name, *_ in TABLE}
NAMES = {number: name for number, name, *_ in TABLE}

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
topics = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=20
)
VALUES = {
    "flag": st.integers(0, 1),
    2: st.integers(0, 0xFFFF),
    4: st.integers(0, 0xFFFFFFFF),
    "2 not 0": st.integers(1, 0xFFFF),
    "4 not 0": st.integers(1, 0xFFFFFFFF),
    "variable": st.one_of(
        st.integers(1, 268435455), st.sampled_from([1, 127, 128, 16383, 16384, 2097151, 2097152])
    ),
    "text": texts,
    "topic": topics,
    "binary": st.binary(max_size=200),
    "pair": st.tuples(texts, texts),
}


def write(name, value):
    """Return the bytes of one property."""
    kind = KINDS[name]
    if kind == "flag":
        data = bytes([value])
    elif kind in (2, "2 not 0"):
        data = value.to_bytes(2, "big")
    elif kind in (4, "4 not 0"):
        data = value.to_bytes(4, "big")
    elif kind == "variable":
        data = remaining_length(value)
    elif kind == "binary":
        data = string(value)
    elif kind == "pair":
        data = string(value[0].encode()) + string(value[1].encode())
    else:
        data = string(value.encode())
    return bytes([NUMBERS[name]]) + data


def read_length(r):
    """Take a Variable Byte Integer off a Reader."""
    n = shift = 0
    taken = b""
    while True:
        byte = r.take(1)
        taken += byte
        n |= (byte[0] & 127) << shift
        shift += 7
        if byte[0] < 128:
            break
    assert taken == remaining_length(n), "longer than needed"
    return n


def read(r, n):
    """Take `n` bytes of properties off a Reader; return a list of (name, value)."""
    rest = r.rest[n:]
    r.rest = r.rest[:n]
    found = []
    while r.rest:
        name = NAMES[r.u8()]
        kind = KINDS[name]
        if kind == "flag":
            value = r.u8()
        elif kind in (2, "2 not 0"):
            value = r.u16()
        elif kind in (4, "4 not 0"):
            value = int.from_bytes(r.take(4), "big")
        elif kind == "variable":
            value = read_length(r)
        elif kind == "binary":
            value = r.string()
        elif kind == "pair":
            value = (r.string().decode(), r.string().decode())
        else:
            value = r.string().decode()
        found.append((name, value))
    r.rest = rest
    return found


def expected(pairs):
    """Return what decode gives for `pairs`."""
    out = {}
    for name, value in pairs:
        if name in ("user_property", "subscription_identifier"):
            out.setdefault(name, []).append(value)
        else:
            out[name] = value
    return out or None


@st.composite
def lists(draw, packet, side):
    """Pairs that may be in `packet`, from a client (side 4) or a server (side 5), in any order."""
    names = [row[1] for row in TABLE if packet in row[side]]
    chosen = draw(st.lists(st.sampled_from(names), unique=True))
    for name in ("user_property", "subscription_identifier"):
        if name in chosen and (name[0] == "u" or packet == 0x30):
            chosen += [name] * draw(st.integers(0, 4))
    chosen = draw(st.permutations(chosen))
    return [(name, draw(VALUES[KINDS[name]])) for name in chosen]


def from_server(packet):
    return lists(packet, 5)


def from_client(packet):
    return lists(packet, 4)


def block(pairs):
    """Return properties as a server sends them, with their length."""
    data = b"".join(write(*pair) for pair in pairs)
    return remaining_length(len(data)) + data


clients = st.sampled_from(FROM_CLIENT).flatmap(lambda p: st.tuples(st.just(p), from_client(p)))
servers = st.sampled_from(FROM_SERVER).flatmap(lambda p: st.tuples(st.just(p), from_server(p)))


def bare(data):
    """Return a Reader at bytes that are no packet."""
    r = Reader(b"\xd0\x00")
    r.rest = bytes(data)
    return r


@given(clients)
def test_a_server_reads_properties_as_they_were_meant_and_in_order(case):
    packet, pairs = case
    data = properties.encode(pairs, packet)
    assert read(bare(data), len(data)) == pairs


@given(clients)
def test_a_dict_says_the_same_as_pairs(case):
    packet, pairs = case
    data = properties.encode(expected(pairs), packet) if packet != 0x82 else b""
    if packet != 0x82:  # there an identifier is no list
        assert expected(read(bare(data), len(data))) == expected(pairs)


@given(servers, st.binary(max_size=9), st.binary(max_size=9))
def test_what_a_server_sends_is_read_as_it_was_meant(case, before, after):
    packet, pairs = case
    data = block(pairs)
    buf = memoryview(before + data + after)
    end = len(before) + len(data)
    assert properties.decode(buf, len(before), end, packet) == (expected(pairs), end)


@given(clients)
def test_what_a_client_sends_and_a_server_may_send_too_comes_back(case):
    packet, pairs = case
    if packet in FROM_SERVER and packet != 0xE0:
        data = properties.encode(pairs, packet)
        data = remaining_length(len(data)) + data
        got = properties.decode(memoryview(data), 0, len(data), packet)
        assert got == (expected(pairs), len(data))


@given(servers, st.data())
def test_one_property_more_that_was_there_is_refused(case, data):
    packet, pairs = case
    once = [p for p in pairs if p[0] not in ("user_property", "subscription_identifier")]
    if once:
        again = data.draw(st.sampled_from(once))
        at = data.draw(st.integers(0, len(pairs)))
        wire = block(pairs[:at] + [again] + pairs[at:])
        with pytest.raises(ProtocolError, match="twice") as caught:
            properties.decode(memoryview(wire), 0, len(wire), packet)
        assert caught.value.code == 0x82


@given(servers, st.data())
def test_properties_cut_short_are_malformed_or_fewer(case, data):
    packet, pairs = case
    body = b"".join(write(*pair) for pair in pairs)
    cut = data.draw(st.integers(0, len(body)))
    wire = remaining_length(cut) + body  # the rest lies behind the packet
    end = len(wire) - len(body) + cut
    edges, n = {}, 0
    for i, pair in enumerate(pairs):
        edges[n] = i
        n += len(write(*pair))
    edges[n] = len(pairs)
    if cut in edges:
        got = properties.decode(memoryview(wire), 0, end, packet)
        assert got == (expected(pairs[: edges[cut]]), end)
    else:
        with pytest.raises(ProtocolError) as caught:
            properties.decode(memoryview(wire), 0, end, packet)
        assert caught.value.code == 0x81


def attempt(wire, packet):
    """Decode anything; nothing but a ProtocolError with a code may escape."""
    try:
        values, at = properties.decode(memoryview(wire), 0, len(wire), packet)
    except ProtocolError as error:
        assert error.code in CODES
        assert "section" in str(error) or "MQTT-" in str(error)
        return None
    assert 0 < at <= len(wire)
    return values


lookalikes = st.lists(
    st.one_of(
        st.builds(
            lambda n, d: bytes([n]) + d, st.sampled_from(list(NAMES)), st.binary(max_size=9)
        ),
        st.binary(max_size=6),
        servers.map(lambda case: block(case[1])[1:]),
    ),
    max_size=5,
).map(b"".join)


@given(lookalikes, st.sampled_from(FROM_SERVER))
def test_only_protocol_error_escapes_whatever_comes_in(data, packet):
    attempt(data, packet)
    attempt(remaining_length(len(data)) + data, packet)


@given(servers, st.data())
def test_only_protocol_error_escapes_from_damaged_properties(case, data):
    packet, pairs = case
    wire = bytearray(block(pairs))
    for at in data.draw(st.lists(st.integers(0, len(wire) - 1), max_size=4)):
        wire[at] = data.draw(st.integers(0, 255))
    values = attempt(bytes(wire), packet)
    if values:  # what is taken can be said again, in as many bytes or fewer
        again = [
            (name, each)
            for name, value in values.items()
            for each in (value if isinstance(value, list) else [value])
        ]
        assert len(block(again)) <= len(wire)


@given(st.sampled_from(FROM_SERVER), st.sampled_from(sorted(NAMES)), st.integers(0, 2**28 - 1))
def test_no_memory_is_taken_for_a_length_that_lies(packet, number, n):
    huge = remaining_length(n) + bytes([number]) + b"\xff" * 9
    tracemalloc.start()
    try:
        attempt(huge, packet)
        attempt(bytes([10, number]) + b"\xff" * 9, packet)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


@given(st.integers(0, 268435455))
def test_a_variable_byte_integer_comes_back(n):
    data = properties.varint(n)
    assert data == remaining_length(n)
    assert properties.size(n) == len(data)
    assert properties.length(memoryview(data + b"\xff"), 0, len(data)) == n


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.lists(st.one_of(st.text(max_size=3), st.integers(), st.tuples(texts, texts)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


@given(
    st.lists(st.tuples(st.one_of(st.sampled_from(sorted(KINDS)), anything), anything), max_size=3),
    st.sampled_from(FROM_CLIENT),
)
def test_a_mistake_of_the_caller_is_a_value_error_or_a_type_error(pairs, packet):
    try:
        data = properties.encode(pairs, packet)
    except (ValueError, TypeError):
        return
    read(bare(data), len(data))
