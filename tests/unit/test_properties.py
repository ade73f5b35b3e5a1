"""The properties of MQTT 5.0: properties.py against the tables of the specification."""

from mqtt_as_tls import properties
from mqtt_as_tls.errors import ProtocolError
from tests.unit.checks import raises

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
ALIAS_INVALID = 0x94

WILL, CONNECT, CONNACK, PUBLISH = 0, 0x10, 0x20, 0x30
PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
DISCONNECT, AUTH = 0xE0, 0xF0

FROM_SERVER = (CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT)
FROM_SERVER += (AUTH,)
FROM_CLIENT = (WILL, CONNECT, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE)
FROM_CLIENT += (DISCONNECT, AUTH)
EVERY = FROM_SERVER + FROM_CLIENT
REASONED = (CONNACK, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, DISCONNECT, AUTH)

# Table 2-4 with what the sections of the packets add about who sends it: identifier, name, a value
# and its bytes, where a client may put it, where a server may
TABLE = (
    (1, "payload_format_indicator", 1, b"\x01", (WILL, PUBLISH), (PUBLISH,)),
    (2, "message_expiry_interval", 0x01020304, b"\x01\x02\x03\x04", (WILL, PUBLISH), (PUBLISH,)),
    (3, "content_type", "a/b", b"\x00\x03a/b", (WILL, PUBLISH), (PUBLISH,)),
    (8, "response_topic", "r", b"\x00\x01r", (WILL, PUBLISH), (PUBLISH,)),
    (9, "correlation_data", b"\x00\xff", b"\x00\x02\x00\xff", (WILL, PUBLISH), (PUBLISH,)),
    (11, "subscription_identifier", 300, b"\xac\x02", (SUBSCRIBE,), (PUBLISH,)),
    (17, "session_expiry_interval", 10, b"\x00\x00\x00\x0a", (CONNECT, DISCONNECT), (CONNACK,)),
    (18, "assigned_client_identifier", "me", b"\x00\x02me", (), (CONNACK,)),
    (19, "server_keep_alive", 258, b"\x01\x02", (), (CONNACK,)),
    (21, "authentication_method", "m", b"\x00\x01m", (CONNECT, AUTH), (CONNACK, AUTH)),
    (22, "authentication_data", b"d", b"\x00\x01d", (CONNECT, AUTH), (CONNACK, AUTH)),
    (23, "request_problem_information", 0, b"\x00", (CONNECT,), ()),
    (24, "will_delay_interval", 5, b"\x00\x00\x00\x05", (WILL,), ()),
    (25, "request_response_information", 1, b"\x01", (CONNECT,), ()),
    (26, "response_information", "i", b"\x00\x01i", (), (CONNACK,)),
    (28, "server_reference", "h:1", b"\x00\x03h:1", (), (CONNACK, DISCONNECT)),
    (31, "reason_string", "no", b"\x00\x02no", REASONED, REASONED),
    (33, "receive_maximum", 20, b"\x00\x14", (CONNECT,), (CONNACK,)),
    (34, "topic_alias_maximum", 0, b"\x00\x00", (CONNECT,), (CONNACK,)),
    (35, "topic_alias", 65535, b"\xff\xff", (PUBLISH,), (PUBLISH,)),
    (36, "maximum_qos", 1, b"\x01", (), (CONNACK,)),
    (37, "retain_available", 0, b"\x00", (), (CONNACK,)),
    (38, "user_property", ("k", ""), b"\x00\x01k\x00\x00", EVERY, EVERY),
    (39, "maximum_packet_size", 4294967295, b"\xff\xff\xff\xff", (CONNECT,), (CONNACK,)),
    (40, "wildcard_subscription_available", 1, b"\x01", (), (CONNACK,)),
    (41, "subscription_identifier_available", 0, b"\x00", (), (CONNACK,)),
    (42, "shared_subscription_available", 1, b"\x01", (), (CONNACK,)),
)

# of each type, (name, packet from the server that has it)
BYTES = (
    ("payload_format_indicator", PUBLISH),
    ("maximum_qos", CONNACK),
    ("retain_available", CONNACK),
    ("wildcard_subscription_available", CONNACK),
    ("subscription_identifier_available", CONNACK),
    ("shared_subscription_available", CONNACK),
)
ILL_FORMED = (
    b"\xff",
    b"a\xc3",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"a\x00",
    b"\x00",
)


def identifier(name):
    """Return the identifier (bytes) of the property `name`."""
    return [bytes((row[0],)) for row in TABLE if row[1] == name][0]


def decode(data, packet=PUBLISH, before=b"", after=b""):
    """Return what decode gives for the properties `data`, whose length is put in front."""
    head = properties.varint(len(data))
    at = len(before)
    end = at + len(head) + len(data)
    values, stop = properties.decode(memoryview(before + head + data + after), at, end, packet)
    assert stop == end
    return values


def refused(code, data, packet=PUBLISH):
    """Check that `data` is refused with the reason `code`, by a message that names a section."""
    with raises(ProtocolError) as caught:
        decode(data, packet)
    assert caught.error.code == code, (data, caught.error.code)
    message = str(caught.error)
    assert "section" in message or "MQTT-" in message, message


def expected(name, value):
    """Return what decode gives for one property."""
    return {name: [value] if name in ("user_property", "subscription_identifier") else value}


# Both ways, every packet and every property


def test_each_property_is_decoded_where_a_server_may_send_it_and_nowhere_else():
    for packet in FROM_SERVER:
        for number, name, value, data, _, places in TABLE:
            data = bytes((number,)) + data
            if packet in places:
                assert decode(data, packet) == expected(name, value), (name, packet)
            else:
                refused(MALFORMED, data, packet)


def test_each_property_is_encoded_where_a_client_may_send_it_and_nowhere_else():
    """MQTT 5.0: [MQTT-3.3.4-6]"""
    for packet in FROM_CLIENT:
        for number, name, value, data, places, _ in TABLE:
            for given in ({name: value}, [(name, value)]):
                if packet in places:
                    assert properties.encode(given, packet) == bytes((number,)) + data, name
                else:
                    with raises(ValueError, name):
                        properties.encode(given, packet)


def test_an_unknown_identifier_is_malformed():
    known = [row[0] for row in TABLE]
    for packet in FROM_SERVER:
        for number in range(256):
            if number not in known:
                for more in (b"", b"\x00", b"\x00\x01\x00\x01\x00"):
                    refused(MALFORMED, bytes((number,)) + more, packet)


def test_a_refused_name_is_told_where_it_may_be():
    with raises(ValueError, "topic_alias: not in a will; only in PUBLISH"):
        properties.encode({"topic_alias": 1}, WILL)
    with raises(ValueError, "not in PUBLISH; only in SUBSCRIBE"):
        properties.encode({"subscription_identifier": 1}, PUBLISH)
    with raises(ValueError, "not in SUBSCRIBE; only in CONNECT, AUTH"):
        properties.encode({"authentication_method": ""}, SUBSCRIBE)
    with raises(ValueError, "not in DISCONNECT; only in packets of the broker"):
        properties.encode({"server_reference": "x"}, DISCONNECT)
    for name in ("content-type", "", "Content_type", None, 3):
        with raises(ValueError, "no property of MQTT 5"):
            properties.encode([(name, "x")], PUBLISH)


# Values in


def test_no_properties_are_none():
    """MQTT 5.0: [MQTT-2.2.2-1]"""
    for packet in FROM_SERVER:
        assert decode(b"", packet) is None
        assert decode(b"", packet, b"xyz", b"\x01\x01") is None


def test_properties_are_read_between_what_is_around_them():
    for size in (3, 126, 127, 128, 300):
        data = b"\x09" + bytes((size - 3 >> 8, size - 3 & 255)) + b"d" * (size - 3)
        assert decode(data, PUBLISH, b"\x01" * 7, b"\x01\x01payload") == {
            "correlation_data": data[3:]
        }


def test_several_properties_come_in_any_order():
    want = {"content_type": "t", "payload_format_indicator": 1, "correlation_data": b""}
    assert decode(b"\x01\x01\x03\x00\x01t\x09\x00\x00") == want
    assert decode(b"\x09\x00\x00\x03\x00\x01t\x01\x01") == want


def test_user_properties_keep_their_order_and_their_repeats():
    """MQTT 5.0: [MQTT-1.5.7-1]"""
    data = b"\x26\x00\x01b\x00\x011\x01\x00\x26\x00\x01a\x00\x012\x26\x00\x01b\x00\x011"
    assert decode(data) == {
        "user_property": [("b", "1"), ("a", "2"), ("b", "1")],
        "payload_format_indicator": 0,
    }
    assert decode(b"\x26\x00\x00\x00\x00") == {"user_property": [("", "")]}


def test_a_publish_may_have_several_subscription_identifiers():
    data = b"\x0b\x01\x0b\xff\xff\xff\x7f\x0b\x01"
    assert decode(data) == {"subscription_identifier": [1, 268435455, 1]}


def test_every_other_property_comes_once():
    for packet in FROM_SERVER:
        for number, name, _, data, _, places in TABLE:
            if packet in places and name not in ("user_property", "subscription_identifier"):
                data = bytes((number,)) + data
                refused(PROTOCOL_ERROR, data + data, packet)
                refused(PROTOCOL_ERROR, data + b"\x26\x00\x00\x00\x00" + data, packet)


def test_a_byte_is_0_or_1():
    for name, packet in BYTES:
        number = identifier(name)
        assert decode(number + b"\x00", packet) == {name: 0}
        assert decode(number + b"\x01", packet) == {name: 1}
        for value in (2, 3, 127, 128, 255):
            refused(PROTOCOL_ERROR, number + bytes((value,)), packet)


def test_numbers_that_must_not_be_0():
    """MQTT 5.0: [MQTT-3.3.2-8]"""
    refused(PROTOCOL_ERROR, b"\x21\x00\x00", CONNACK)  # receive_maximum
    refused(PROTOCOL_ERROR, b"\x27\x00\x00\x00\x00", CONNACK)  # maximum_packet_size
    refused(PROTOCOL_ERROR, b"\x0b\x00")  # subscription_identifier
    refused(PROTOCOL_ERROR, b"\x0b\x01\x0b\x00")
    refused(ALIAS_INVALID, b"\x23\x00\x00")  # topic_alias
    refused(PROTOCOL_ERROR, b"\x23\x00\x01\x23\x00\x01")
    for data, packet, value in (
        (b"\x02\x00\x00\x00\x00", PUBLISH, {"message_expiry_interval": 0}),
        (b"\x11\x00\x00\x00\x00", CONNACK, {"session_expiry_interval": 0}),
        (b"\x13\x00\x00", CONNACK, {"server_keep_alive": 0}),
        (b"\x22\x00\x00", CONNACK, {"topic_alias_maximum": 0}),
    ):
        assert decode(data, packet) == value


def test_numbers_have_their_full_range():
    for data, value in (
        (b"\x7f\xff\xff\xff", 0x7FFFFFFF),
        (b"\x80\x00\x00\x00", 0x80000000),
        (b"\x3f\xff\xff\xff", 0x3FFFFFFF),
        (b"\xff\xff\xff\xff", 0xFFFFFFFF),
        (b"\x00\x01\x00\x00", 0x10000),
    ):
        assert decode(b"\x02" + data) == {"message_expiry_interval": value}
        given = {"message_expiry_interval": value}
        assert properties.encode(given, PUBLISH) == b"\x02" + data


def test_each_property_takes_its_least_value():
    least = {
        "subscription_identifier": (1, b"\x01"),
        "receive_maximum": (1, b"\x00\x01"),
        "topic_alias": (1, b"\x00\x01"),
        "maximum_packet_size": (1, b"\x00\x00\x00\x01"),
        "user_property": (("", ""), b"\x00\x00\x00\x00"),
        "response_topic": ("r", b"\x00\x01r"),
    }
    for number, name, value, data, client, server in TABLE:
        if name in least:
            value, data = least[name]
        elif isinstance(value, (str, bytes)):
            value = value[:0]
            data = b"\x00\x00"
        else:
            value = 0
            data = bytes(len(data))
        data = bytes((number,)) + data
        for packet in client:
            assert properties.encode({name: value}, packet) == data
        for packet in server:
            assert decode(data, packet) == expected(name, value)


def test_a_response_topic_has_no_wildcards():
    """MQTT 5.0: [MQTT-3.3.2-13], [MQTT-3.3.2-14]"""
    for name in ("#", "+", "a/#", "a/+/b", "a+b"):
        data = name.encode()
        refused(PROTOCOL_ERROR, b"\x08" + bytes((0, len(data))) + data)
        with raises(ValueError, "response_topic"):
            properties.encode({"response_topic": name}, PUBLISH)
    with raises(ValueError, "response_topic"):
        properties.encode({"response_topic": ""}, PUBLISH)
    assert decode(b"\x03\x00\x01#") == {"content_type": "#"}


def test_text_is_utf_8_without_nul():
    """MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.7-1], [MQTT-3.3.2-19]"""
    for data in ILL_FORMED:
        field = bytes((0, len(data))) + data
        for number, packet in (
            (3, PUBLISH),
            (8, PUBLISH),
            (18, CONNACK),
            (31, PUBACK),
            (21, AUTH),
        ):
            refused(MALFORMED, bytes((number,)) + field, packet)
        refused(MALFORMED, b"\x26" + field + b"\x00\x00")
        refused(MALFORMED, b"\x26\x00\x00" + field)
        assert decode(b"\x09" + field) == {"correlation_data": data}  # no text


def test_text_may_be_any_other_and_keeps_its_byte_order_mark():
    """MQTT 5.0: [MQTT-1.5.4-3]"""
    for value in ("", "\ufeffx", "k\xe4se \u20ac \U0001f600", "\x01\x7f\x80"):
        data = value.encode()
        field = b"\x03" + bytes((0, len(data))) + data
        assert decode(field) == {"content_type": value}
        assert properties.encode({"content_type": value}, PUBLISH) == field


def test_values_are_of_their_own():
    buf = bytearray(b"\x09\x09\x00\x01a\x03\x00\x02hi")
    values, _ = properties.decode(memoryview(buf), 0, len(buf), PUBLISH)
    for i in range(len(buf)):
        buf[i] = 63
    assert values == {"correlation_data": b"a", "content_type": "hi"}
    assert isinstance(values["correlation_data"], bytes)


# Lengths


def test_a_property_that_is_cut_short_is_malformed():
    for packet in FROM_SERVER:
        for number, _, _, data, _, places in TABLE:
            if packet not in places:
                continue
            data = bytes((number,)) + data
            for n in range(1, len(data)):
                refused(MALFORMED, data[:n], packet)
                refused(MALFORMED, b"\x26\x00\x00\x00\x00" + data[:n], packet)
                # what lies behind the packet must not serve as the rest
                buf = memoryview(bytes((n,)) + data + b"\x01" * 300)
                with raises(ProtocolError):
                    properties.decode(buf, 0, n + 1, packet)


def test_a_property_length_beyond_the_packet_is_malformed():
    buf = memoryview(b"\x02\x01\x01" + b"\x01" * 300)
    assert properties.decode(buf, 0, 3, PUBLISH) == ({"payload_format_indicator": 1}, 3)
    for end in (0, 1, 2):
        with raises(ProtocolError, "section") as caught:
            properties.decode(buf, 0, end, PUBLISH)
        assert caught.error.code == MALFORMED
    for head in (b"\x01", b"\x7f", b"\xff\xff\xff\x7f", b"\xff\x7f"):
        with raises(ProtocolError, "beyond"):
            properties.decode(memoryview(head + b"\x01" * 300), 0, len(head), PUBLISH)


def test_a_field_beyond_the_properties_is_malformed():
    for field in (b"\x00\x04abc", b"\xff\xffabc", b"\x00", b""):
        refused(MALFORMED, b"\x03" + field)
        refused(MALFORMED, b"\x09" + field)
        refused(MALFORMED, b"\x26" + field)
        refused(MALFORMED, b"\x26\x00\x01a" + field)


def test_a_variable_byte_integer_is_as_short_as_can_be():
    """MQTT 5.0: [MQTT-1.5.5-1]"""
    for value, data in (
        (0, b"\x00"),
        (1, b"\x01"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16383, b"\xff\x7f"),
        (16384, b"\x80\x80\x01"),
        (2097151, b"\xff\xff\x7f"),
        (2097152, b"\x80\x80\x80\x01"),
        (268435455, b"\xff\xff\xff\x7f"),
    ):
        assert properties.varint(value) == data
        assert properties.size(value) == len(data)
        assert properties.length(memoryview(data + b"\x01"), 0, len(data)) == value
        for n in range(len(data)):
            with raises(ProtocolError, "1.5.5") as caught:
                properties.length(memoryview(data + b"\x01"), 0, n)
            assert caught.error.code == MALFORMED
    for data in (
        b"\x80\x00",
        b"\xff\x00",
        b"\x80\x80\x00",
        b"\xff\xff\xff\x00",
        b"\x80\x80\x80\x80\x01",
        b"\xff\xff\xff\xff\x7f",
        b"\xff\xff\xff\xff\xff\xff",
    ):
        with raises(ProtocolError, "1.5.5"):
            properties.length(memoryview(data), 0, len(data))
        with raises(ProtocolError, "1.5.5"):
            properties.decode(memoryview(data + b"\x01" * 200), 0, len(data) + 200, PUBLISH)
        refused(MALFORMED, b"\x0b" + data)


# Values out


def test_nothing_is_no_bytes():
    for nothing in (None, {}, [], ()):
        assert properties.encode(nothing, PUBLISH) == b""


def test_a_list_keeps_the_order():
    given = [
        ("receive_maximum", 20),
        ("user_property", ("b", "1")),
        ("session_expiry_interval", 1),
        ("user_property", ("a", "2")),
    ]
    assert properties.encode(given, CONNECT) == (
        b"\x21\x00\x14\x26\x00\x01b\x00\x011\x11\x00\x00\x00\x01\x26\x00\x01a\x00\x012"
    )


def test_user_properties_are_a_pair_or_a_list_of_pairs():
    data = b"\x26\x00\x01b\x00\x011"
    for value in (("b", "1"), ["b", "1"], [("b", "1")], (["b", "1"],)):
        assert properties.encode({"user_property": value}, PUBLISH) == data
        assert properties.encode([("user_property", value)], PUBLISH) == data
    assert properties.encode({"user_property": [("b", "1"), ("b", "1")]}, AUTH) == data + data
    assert properties.encode({"user_property": []}, AUTH) == b""
    for value in (
        "b1",
        3,
        {"b": "1"},
        [("b",)],
        [("b", "1", "2")],
        ["b"],
        ("b", 1),
        ["b1", "b2", "b3"],
    ):
        with raises(TypeError, "user_property"):
            properties.encode({"user_property": value}, PUBLISH)
    for value in (("a\x00", "1"), [("a", "1"), ("1", "\x00")]):
        with raises(ValueError, "user_property"):
            properties.encode({"user_property": value}, PUBLISH)


def test_none_leaves_a_property_out():
    given = [("receive_maximum", None), ("maximum_packet_size", 1), ("receive_maximum", 2)]
    assert properties.encode(given, CONNECT) == b"\x27\x00\x00\x00\x01\x21\x00\x02"
    assert properties.encode({"user_property": None, "content_type": None}, PUBLISH) == b""
    with raises(ValueError):
        properties.encode({"receive_maximum": None}, PUBLISH)


def test_a_property_given_twice_raises():
    for packet in FROM_CLIENT:
        for _, name, value, _, places, _ in TABLE:
            if packet in places and name != "user_property":
                with raises(ValueError, "twice"):
                    properties.encode([(name, value), (name, value)], packet)


def test_numbers_out_of_range_raise():
    for name, packet, values in (
        ("payload_format_indicator", PUBLISH, (-1, 2, 256)),
        ("request_problem_information", CONNECT, (-1, 2)),
        ("request_response_information", CONNECT, (-1, 2)),
        ("message_expiry_interval", PUBLISH, (-1, 4294967296, 1 << 70)),
        ("session_expiry_interval", DISCONNECT, (-1, 4294967296)),
        ("will_delay_interval", WILL, (-1, 4294967296)),
        ("receive_maximum", CONNECT, (-1, 0, 65536)),
        ("topic_alias_maximum", CONNECT, (-1, 65536)),
        ("topic_alias", PUBLISH, (-1, 0, 65536)),
        ("maximum_packet_size", CONNECT, (-1, 0, 4294967296)),
        ("subscription_identifier", SUBSCRIBE, (-1, 0, 268435456)),
    ):
        for value in values:
            with raises(ValueError, name):
                properties.encode({name: value}, packet)
    for name, packet, low, high in (
        ("topic_alias", PUBLISH, b"\x23\x00\x01", b"\x23\xff\xff"),
        ("receive_maximum", CONNECT, b"\x21\x00\x01", b"\x21\xff\xff"),
    ):
        assert properties.encode({name: 1}, packet) == low
        assert properties.encode({name: 65535}, packet) == high
    high = {"subscription_identifier": 268435455}
    assert properties.encode(high, SUBSCRIBE) == b"\x0b\xff\xff\xff\x7f"


def test_a_bool_is_a_number():
    assert properties.encode({"payload_format_indicator": True}, PUBLISH) == b"\x01\x01"
    assert properties.encode({"request_problem_information": False}, CONNECT) == b"\x17\x00"


def test_values_of_another_type_raise():
    wrong = {1: ("1", b"1", 1.0, [1]), 5: (1, b"x", True, ["x"]), 6: (1, 1.5, ["x"], True)}
    for packet in FROM_CLIENT:
        for _, name, value, _, places, _ in TABLE:
            if packet in places and name != "user_property":
                kind = 5 if isinstance(value, str) else 6 if isinstance(value, bytes) else 1
                what = {1: "int", 5: "str", 6: "bytes"}[kind]
                for bad in wrong[kind]:
                    with raises(TypeError, "property %s: %s, not" % (name, what)):
                        properties.encode({name: bad}, packet)
    for given in (3, True):
        with raises(TypeError):
            properties.encode(given, PUBLISH)


def test_binary_data_is_bytes_like_or_text():
    for value in (b"k\xc3\xa4", bytearray(b"k\xc3\xa4"), memoryview(b"k\xc3\xa4"), "k\xe4"):
        data = properties.encode({"correlation_data": value}, PUBLISH)
        assert data == b"\x09\x00\x03k\xc3\xa4"
    assert properties.encode({"correlation_data": b"\x00"}, PUBLISH) == b"\x09\x00\x01\x00"


def test_text_that_mqtt_cannot_carry_raises():
    """MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2]"""
    for value in ("\x00", "a\x00b", "\ud800", "x\udfff"):
        for name in ("content_type", "response_topic"):
            with raises(ValueError, name):
                properties.encode({name: value}, PUBLISH)


def test_a_field_has_up_to_65535_bytes():
    for name, long in (
        ("content_type", "x"),
        ("correlation_data", b"x"),
        ("content_type", "\xe4"),
    ):
        n = 65535 // len(long if isinstance(long, bytes) else long.encode())
        data = properties.encode({name: long * n}, PUBLISH)
        assert len(data) - 3 == data[1] << 8 | data[2]
        with raises(ValueError, "over 65535"):
            properties.encode({name: long * (n + 1)}, PUBLISH)


# Anything


def test_only_protocol_errors_come_out_of_damaged_properties():
    seed = 3
    refusals = 0
    for packet in FROM_SERVER:
        whole = b""
        for number, _, _, data, _, places in TABLE:
            if packet in places:
                whole += bytes((number,)) + data
        for _ in range(100):
            damaged = bytearray(whole)
            for _ in range(2):
                seed = (seed * 75 + 74) % 65537
                damaged[seed % len(damaged)] = seed >> 4 & 255
            try:
                decode(bytes(damaged), packet, b"", b"\x01\x00" * 9)
            except ProtocolError as e:
                assert e.code in (MALFORMED, PROTOCOL_ERROR, ALIAS_INVALID)
                refusals += 1
    assert 300 < refusals < 1000
