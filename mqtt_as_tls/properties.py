"""
The properties of MQTT 5.0 (section 2.2.2): a dict or pairs to bytes, bytes to a dict. Imported
with protocol=5 only.
"""

from micropython import const

from .errors import ProtocolError
from .packet import text as _text
from .router import wrong

_MALFORMED = const(0x81)
_PROTOCOL_ERROR = const(0x82)
_ALIAS_INVALID = const(0x94)

_RESPONSE_TOPIC = const(8)
_SUBSCRIPTION_IDENTIFIER = const(11)
_TOPIC_ALIAS = const(35)
_USER_PROPERTY = const(38)

_MOST = const(64)  # values of one name

# What a value is: 1, 2 or 4, an int of so many bytes (1: only 0 and 1 are values), or
_VARIABLE = const(3)  # Variable Byte Integer
_TEXT = const(5)
_BINARY = const(6)
_PAIR = const(7)  # of texts
_NOT_0 = const(8)  # added: 0 is no value

# By the identifier (table 2-4); "" is none
_NAMES = (
    "",
    "payload_format_indicator",
    "message_expiry_interval",
    "content_type",
    "",
    "",
    "",
    "",
    "response_topic",
    "correlation_data",
    "",
    "subscription_identifier",
    "",
    "",
    "",
    "",
    "",
    "session_expiry_interval",
    "assigned_client_identifier",
    "server_keep_alive",
    "",
    "authentication_method",
    "authentication_data",
    "request_problem_information",
    "will_delay_interval",
    "request_response_information",
    "response_information",
    "",
    "server_reference",
    "",
    "",
    "reason_string",
    "",
    "receive_maximum",
    "topic_alias_maximum",
    "topic_alias",
    "maximum_qos",
    "retain_available",
    "user_property",
    "maximum_packet_size",
    "wildcard_subscription_available",
    "subscription_identifier_available",
    "shared_subscription_available",
)

# By the identifier, 3 bytes each: what the value is, then a bit for each packet that it may be in,
# 1 << (packet type & 7): will, CONNECT, CONNACK, PUBLISH from the server, PUBACK, PUBREC, PUBREL,
# PUBCOMP; then SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PUBLISH from a client, DISCONNECT from a
# client, DISCONNECT from the server, AUTH
_TABLE = const(
    b"\x00\x00\x00"
    b"\x01\x09\x10"  # payload_format_indicator
    b"\x04\x09\x10"  # message_expiry_interval
    b"\x05\x09\x10"  # content_type
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x05\x09\x10"  # response_topic
    b"\x06\x09\x10"  # correlation_data
    b"\x00\x00\x00"
    b"\x0b\x08\x01"  # subscription_identifier
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x04\x06\x20"  # session_expiry_interval
    b"\x05\x04\x00"  # assigned_client_identifier
    b"\x02\x04\x00"  # server_keep_alive
    b"\x00\x00\x00"
    b"\x05\x06\x80"  # authentication_method
    b"\x06\x06\x80"  # authentication_data
    b"\x01\x02\x00"  # request_problem_information
    b"\x04\x01\x00"  # will_delay_interval
    b"\x01\x02\x00"  # request_response_information
    b"\x05\x04\x00"  # response_information
    b"\x00\x00\x00"
    b"\x05\x04\x40"  # server_reference
    b"\x00\x00\x00\x00\x00\x00"
    b"\x05\xf4\xea"  # reason_string
    b"\x00\x00\x00"
    b"\x0a\x06\x00"  # receive_maximum
    b"\x02\x06\x00"  # topic_alias_maximum
    b"\x0a\x08\x10"  # topic_alias
    b"\x01\x04\x00"  # maximum_qos
    b"\x01\x04\x00"  # retain_available
    b"\x07\xff\xff"  # user_property
    b"\x0c\x06\x00"  # maximum_packet_size
    b"\x01\x04\x00"  # wildcard_subscription_available
    b"\x01\x04\x00"  # subscription_identifier_available
    b"\x01\x04\x00"  # shared_subscription_available
)


def varint(n):
    """Return `n` (int, 0 to 268,435,455) as a Variable Byte Integer (bytes; section 1.5.5)."""
    out = b""
    while n > 127:
        out += bytes((n & 127 | 128,))
        n >>= 7
    return out + bytes((n,))


def size(n):
    """Return how many bytes the Variable Byte Integer of `n` has (section 1.5.5)."""
    return 1 + (n > 127) + (n > 16383) + (n > 2097151)


def length(buf, at, end):
    """
    Return the Variable Byte Integer at `at` (int, at most 4 bytes; `size` tells how many).

    Raises ProtocolError when it is not complete before `end`, has more than 4 bytes, or more than
    it needs ([MQTT-1.5.5-1]).
    """
    n = shift = 0
    byte = 128
    while byte > 127:
        byte = 0
        if at < end and shift < 28:
            byte = buf[at]
        else:
            shift = 7  # a last byte of 0 behind others: malformed as well
        at += 1
        n |= (byte & 127) << shift
        shift += 7
    if shift > 7 and not byte:
        _malformed("Variable Byte Integer malformed (5.0 section 1.5.5)")
    return n


def _malformed(what):
    raise ProtocolError(what, _MALFORMED)


def text(buf, at, end):
    """
    Return `buf[at:end]` as str; ProtocolError when it is not UTF-8, or has U+0000
    ([MQTT-1.5.4-1], [MQTT-1.5.4-2]).
    """
    try:
        return _text(buf[at:end])
    except ProtocolError:
        _malformed("text that is not UTF-8 [MQTT-1.5.4-1, -2]")


def _allowed(i, slot):
    return _TABLE[3 * i + 1 + (slot >> 3)] >> (slot & 7) & 1


def _after(buf, at, end, n):
    # offset after a value of `n` bytes, or with its length in front (sections 1.5.4, 1.5.6)
    if n > 4:
        n = 2
        if at + 2 <= end:
            n += buf[at] << 8 | buf[at + 1]
    at += n
    if at > end:
        _malformed("property longer than its packet (5.0 section 2.2.2)")
    return at


def form(i):
    """
    Return what the value of the property `i` (int, its identifier) of a PUBLISH is: 1, 2 or 4
    bytes; 3 a Variable Byte Integer; 5 text, 6 binary, 7 a pair of texts. Raises ProtocolError
    when there is none.
    """
    if i > 42 or not _allowed(i, 3):
        _malformed("property 0x%02x in PUBLISH (5.0 section 2.2.2.2)" % i)
    return _TABLE[3 * i] & 7


def decode(buf, at, end, packet):
    """
    Decode the Property Length at `at`, and the properties behind it (section 2.2.2).

    buf     memoryview
    end     int, offset after the last byte of the packet
    packet  int, the first byte of the packet, as a server sends it

    Returns (dict of names to values, or None without properties; offset after them). The value is
    int, str or bytes; of user_property a list of pairs, in order; of subscription_identifier a
    list of int. Of these two the first 64 are kept: a packet of them would take 20 times its size.

    Raises ProtocolError: a property that is unknown or not of this packet, twice, cut short, or
    with a value that it cannot have. Its `code` is the reason code to close with.
    """
    n = length(buf, at, end)
    at += size(n)
    stop = at + n
    if stop > end:
        _malformed("Property Length %d beyond the packet (5.0 section 2.2.2.1)" % n)
    values = {} if n else None
    while at < stop:
        i = buf[at]
        if i > 42 or not _allowed(i, packet >> 4):
            _malformed("property 0x%02x in packet 0x%02x (5.0 section 2.2.2.2)" % (i, packet))
        at += 1
        name = _NAMES[i]
        kind = _TABLE[3 * i]
        n = kind & 7
        if n == _VARIABLE:
            value = length(buf, at, stop)
            at += size(value)
        else:
            start = at
            at = _after(buf, at, stop, n)
            if n < 5:
                value = int.from_bytes(buf[start:at], "big")
            elif n == _BINARY:
                value = bytes(buf[start + 2 : at])
            else:
                value = text(buf, start + 2, at)
                if n == _PAIR:
                    start = at
                    at = _after(buf, at, stop, n)
                    value = value, text(buf, start + 2, at)
        if i == _RESPONSE_TOPIC:
            bad = not value or "+" in value or "#" in value
        else:
            bad = kind > _NOT_0 and not value or kind == 1 and value > 1
        if not bad and i in (_USER_PROPERTY, _SUBSCRIPTION_IDENTIFIER):
            if name in values:
                if len(values[name]) < _MOST:
                    values[name].append(value)
                continue
            value = [value]
        if bad or name in values:
            raise ProtocolError(
                "property %s: %s (5.0 section 3)" % (name, str(value)[:50] if bad else "twice"),
                _ALIAS_INVALID if bad and i == _TOPIC_ALIAS else _PROTOCOL_ERROR,
            )
        values[name] = value
    return values, stop


def pairs(properties):
    """
    Return `properties` (dict, list of pairs, or None) as a new list of pairs; TypeError for what
    is none of these.
    """
    given = properties
    if isinstance(properties, dict):
        properties = properties.items()
    try:
        return [(name, value) for name, value in properties or ()]
    except (TypeError, ValueError):
        return wrong("properties", given)


def encode(properties, packet):
    """
    Encode `properties` as a client sends them (section 2.2.2), without their Property Length.

    properties  dict of names to values, a list of (name, value) pairs, or None. A value is int
                (or bool), str, or for correlation_data and authentication_data bytes-like or str;
                for user_property a pair of str, or a list of such pairs. None leaves it out.
    packet      int, the first byte of the packet without flags of PUBLISH; 0 is a will

    Returns bytes. Raises ValueError for a name that MQTT 5 does not have or not in such a packet,
    a value out of its range, or the same property twice; TypeError for a value of another type.
    """
    slot = packet >> 4
    if packet in (0x30, 0xE0):
        slot = 12 if slot == 3 else 13
    out = b""
    seen = set()
    for name, value in pairs(properties):
        if not name or name not in _NAMES:
            wrong("property", name)
        i = _NAMES.index(name)
        if not _allowed(i, slot):
            places = "a will,CONNECT,,,PUBACK,PUBREC,PUBREL,PUBCOMP,SUBSCRIBE,,UNSUBSCRIBE,,"
            places = (places + "PUBLISH,DISCONNECT,,AUTH").split(",")
            raise ValueError(
                "property %s: not in %s; only in %s"
                % (
                    name,
                    places[slot],
                    ", ".join([p for n, p in enumerate(places) if p and _allowed(i, n)])
                    or "packets of the broker",
                )
            )
        if value is None:
            continue
        values = (value,)
        if i != _USER_PROPERTY:
            if i in seen:
                raise ValueError("property %s: twice" % name)
            seen.add(i)
        elif isinstance(value, (list, tuple)) and not (value and isinstance(value[0], str)):
            values = value
        for value in values:
            out += bytes((i,)) + _value(name, _TABLE[3 * i], value)
    return out


def _value(name, kind, value):
    # the value of the property `name`, encoded
    n = kind & 7
    if n < 5:
        if not isinstance(value, (int, bool)):
            wrong("property_value", name, "int", value)
        value = int(value)
        low = kind >> 3
        high = 1 if n == 1 else 268_435_455 if n == _VARIABLE else (1 << 8 * n) - 1
        if not low <= value <= high:
            wrong("number", "property " + name, value, low, high)
        return varint(value) if n == _VARIABLE else value.to_bytes(n, "big")
    if n == _PAIR:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            wrong("property_value", name, "(name, value)", value)
        return _value(name, _TEXT, value[0]) + _value(name, _TEXT, value[1])
    data = value
    if isinstance(value, str):
        try:
            data = value.encode()
            if n == _TEXT:
                _text(data)
            if name == "response_topic" and (not data or b"+" in data or b"#" in data):
                raise ValueError
        except (ProtocolError, ValueError):
            raise ValueError("property %s: no such text [MQTT-1.5.4-1, -2, -3.3.2-14]" % name)
    elif n == _TEXT or not isinstance(value, (bytes, bytearray, memoryview)):
        wrong("property_value", name, "str" if n == _TEXT else "bytes", value)
    n = len(data)
    if n > 65535:
        raise ValueError("property %s: %d bytes, over 65535" % (name, n))
    return bytes((n >> 8, n & 255)) + data
