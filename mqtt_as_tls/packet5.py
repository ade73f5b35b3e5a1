"""
MQTT 5.0 on the wire: what `packet` is for MQTT 3.1.1, under the same names. Sections and
statements are those of MQTT 5.0. Imported with protocol=5 only.

`properties` are bytes that properties.encode made.
"""

from micropython import const

from . import packet
from .errors import ProtocolError
from .packet import field, framed, set_clean, set_dup, set_id, u16  # noqa: F401
from .properties import decode, length, size, text, varint

_PUBLISH = const(0x30)
_PINGRESP = const(0xD0)
_DISCONNECT = const(0xE0)
_AUTH = const(0xF0)

_MALFORMED = const(0x81)
_PROTOCOL_ERROR = const(0x82)
_ALIAS_INVALID = const(0x94)

topic = packet.topic

# by packet type: its first byte (section 2.1.3; 255: no server sends it), least Remaining Length
_FIRST = const(b"\xff\xff\x20\x30\x40\x50\x62\x70\xff\x90\xff\xb0\xff\xd0\xe0\xf0")
_LEAST = const(b"\0\0\2\3\2\2\2\2\0\4\0\4\0\0\0\0")

_CLIENTS = const(b"\x10\x82\xa2\xc0")  # what only a client sends

# by packet type: the reason codes that a server may send (sections 3.x.2.1, 3.9.3, 3.11.3; 0x8C in
# DISCONNECT: table 2-6)
_CODES = (
    b"",
    b"",
    b"\x00\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8c\x90\x95\x97\x99\x9a\x9b\x9c\x9d\x9f",
    b"",
    b"\x00\x10\x80\x83\x87\x90\x91\x97\x99",
    b"\x00\x10\x80\x83\x87\x90\x91\x97\x99",
    b"\x00\x92",
    b"\x00\x92",
    b"",
    b"\x00\x01\x02\x80\x83\x87\x8f\x91\x97\x9e\xa1\xa2",
    b"",
    b"\x00\x11\x80\x83\x87\x8f\x91",
    b"",
    b"",
    b"\x00\x80\x81\x82\x83\x87\x89\x8b\x8c\x8d\x8e\x8f\x90\x93\x94\x95\x96\x97\x98\x99\x9a\x9b\x9c"
    b"\x9d\x9e\x9f\xa0\xa1\xa2",
    b"\x00\x18",
)


def with_length(properties):
    return varint(len(properties)) + properties


def connect(
    client_id,
    keepalive_s,
    clean,
    user=None,
    password=None,
    will=None,
    properties=b"",
    will_properties=b"",
):
    """
    Encode CONNECT (section 3.1).

    client_id        bytes, UTF-8; empty: the server assigns one
    keepalive_s      int, 0 to 65535 seconds
    clean            bool, Clean Start
    user             bytes, UTF-8, or None
    password         bytes or None; also without `user`
    will             (topic bytes, payload bytes, qos int, retain bool) or None
    properties       bytes
    will_properties  bytes

    Returns a bytearray. Raises ValueError when a field or the keep alive is over 65535.
    """
    flags = 2 if clean else 0
    body = u16(keepalive_s) + with_length(properties) + field(client_id)
    if will:
        flags |= 4 | will[2] << 3 | will[3] << 5
        body += with_length(will_properties) + field(will[0]) + field(will[1])
    if user is not None:
        flags |= 128
        body += field(user)
    if password is not None:
        flags |= 64
        body += field(password)
    return framed(0x10, b"\0\4MQTT\5" + bytes((flags,)) + body)


def publish(topic, payload, qos=0, retain=False, properties=b"", more=0):
    """
    Encode PUBLISH (section 3.3). The packet id is 0 until `set_id`, DUP is 0 until `set_dup`.

    topic       bytes, UTF-8; empty only with a topic alias among the properties
    payload     bytes or bytearray
    qos         int, 0 to 2
    retain      bool
    properties  bytes
    more        int, bytes of the payload that are sent after the packet

    Returns a bytearray. Raises ValueError over 268,435,455 bytes.
    """
    properties = with_length(properties) if properties else b"\0"
    return packet.publish(topic, payload, qos, retain, properties, more)


def first_property(buf, qos):
    """Return the offset of the first property of an encoded PUBLISH packet that has some."""
    at = 1 + size(length(buf, 1, 5))
    at += 2 + (buf[at] << 8 | buf[at + 1]) + (2 if qos else 0)
    return at + size(length(buf, at, len(buf)))


def aliased(buf, alias, first):
    """
    Return an encoded PUBLISH packet of QoS 0 (`buf`) as a new one with a topic alias (section
    3.3.2.3.4).

    alias  int, 1 to 65535
    first  bool, whether the topic stays in it, to tell what the alias means
    """
    n = length(buf, 1, 5)
    at = 1 + size(n)
    more = at + n - len(buf)
    name = at + 2
    at = name + (buf[at] << 8 | buf[name - 1])
    n = length(buf, at, len(buf))
    end = at + size(n)
    return publish(
        buf[name:at] if first else b"",
        buf[end + n :],
        0,
        buf[0] & 1,
        b"\x23" + u16(alias) + buf[end : end + n],
        more,
    )


def _coded(first, code, properties, head=b""):
    # a packet that ends with a reason code and properties
    return framed(first, head + bytes((code,)) + with_length(properties))


def ack(first, packet_id, code=0, properties=b""):
    """
    Encode PUBACK, PUBREC, PUBREL or PUBCOMP (`first`) for `packet_id` (sections 3.4-3.7), in the
    shortest form.

    code        int, reason code that this packet may have
    properties  bytes
    """
    if properties:
        return _coded(first, code, properties, u16(packet_id))
    if code:
        return bytes((first, 3, packet_id >> 8, packet_id & 255, code))
    return packet.ack(first, packet_id)


def subscribe(packet_id, filters, properties=b""):
    """
    Encode SUBSCRIBE (section 3.8).

    packet_id   int, 1 to 65535
    filters     list of (topic filter bytes, subscription options int (section 3.8.3.1)), not empty
    properties  bytes

    Returns a bytearray.
    """
    body = u16(packet_id) + with_length(properties)
    for name, options in filters:
        body += field(name) + bytes((options,))
    return framed(0x82, body)


def unsubscribe(packet_id, filters, properties=b""):
    """Encode UNSUBSCRIBE (section 3.10) of `filters` (list of bytes, not empty)."""
    body = u16(packet_id) + with_length(properties)
    for name in filters:
        body += field(name)
    return framed(0xA2, body)


def disconnect(code=0, properties=b""):
    """Encode DISCONNECT (section 3.14) with the reason `code`, in the shortest form."""
    if properties:
        return _coded(_DISCONNECT, code, properties)
    return bytes((_DISCONNECT, 1, code)) if code else b"\xe0\0"


def auth(code, properties=b""):
    """Encode AUTH (section 3.15): `code` is 0x18 to continue, 0x19 to authenticate again."""
    return _coded(_AUTH, code, properties)


class Decoder(packet.Decoder):
    """
    packet.Decoder for MQTT 5.0: what reads the fields of a packet sets `code` and `properties`.

    code        int, reason code; the highest of a SUBACK or UNSUBACK
    properties  dict as properties.decode returns it, or None
    extra       int, bytes of memory that the properties of the last PUBLISH that had any take

    Every ProtocolError has a `code`, to close the connection with; None stands for 0x82.
    """

    def __init__(self, max_packet=4096, alias_maximum=0):
        """
        max_packet     int, the largest whole packet that is accepted, in bytes
        alias_maximum  int, the highest topic alias that is accepted (section 3.1.2.11.5)
        """
        super().__init__(max_packet)
        self._alias_maximum = alias_maximum
        self._topics = {}
        self._first = 0

    def _bad(self, first, length):
        self._first = first
        kind = first >> 4
        if first in _CLIENTS:
            raise ProtocolError(
                "packet 0x%02x from a server (5.0 section 2.1.2)" % first, _PROTOCOL_ERROR
            )
        return (
            first != _FIRST[kind]
            or length < _LEAST[kind]
            or first == _PINGRESP
            and length != 0
            or first == _AUTH
            and length == 1
        )

    def _read(self, at):
        # reason code and properties, as far as they are there, to the end of the packet
        self.code = 0
        self.properties = None
        if at < self.end:
            self.code = self._check(self.buf[at])
            at += 1
            if at < self.end:
                self.properties, at = decode(self.buf, at, self.end, self._first)
                if at < self.end:
                    raise ProtocolError("bytes after the properties (5.0 section 3)", _MALFORMED)

    def _check(self, code):
        if code not in _CODES[self._first >> 4]:
            raise ProtocolError(
                "reason code 0x%02x in packet 0x%02x (5.0 section 2.4)" % (code, self._first),
                _PROTOCOL_ERROR,
            )
        return code

    def connack(self):
        """
        Return (session_present bool, reason code int) of a CONNACK (section 3.2). What a server of
        MQTT 3.1.1 answers, "unacceptable protocol version", is code 0x84.

        Raises ProtocolError, also for a session together with a refusal ([MQTT-3.2.2-6]).
        """
        buf = self.buf
        at = self.at
        flags = buf[at]
        code = buf[at + 1]
        if self.end - at == 2:
            if flags or code != 1:
                raise ProtocolError("CONNACK without properties (5.0 section 3.2.2)", _MALFORMED)
            self.code = 0x84
            self.properties = None
            return False, 0x84
        if flags > 1:
            raise ProtocolError("CONNACK flags 0x%02x [MQTT-3.2.2-1]" % flags, _MALFORMED)
        if flags and code:
            raise ProtocolError(
                "CONNACK code 0x%02x with a session [MQTT-3.2.2-6]" % code, _PROTOCOL_ERROR
            )
        self._read(at + 1)
        return flags == 1, code

    def answer(self):
        """Return the packet id of a PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4-3.7)."""
        self._read(self.at + 2)
        return self.packet_id()

    def reason(self):
        """Return the reason code of a DISCONNECT or AUTH (sections 3.14, 3.15)."""
        self._read(self.at)
        return self.code

    def suback(self):
        """
        Return the reason codes (bytes) of a SUBACK (section 3.9.3): under 0x80, the QoS; or of an
        UNSUBACK (section 3.11.3).
        """
        self.properties, at = decode(self.buf, self.at + 2, self.end, self._first)
        codes = bytes(self.buf[at : self.end])
        if not codes:
            raise ProtocolError("no reason code (5.0 sections 3.9.3, 3.11.3)", _MALFORMED)
        for code in codes:
            self._check(code)
        self.code = max(codes)
        return codes

    def resolved(self, name, properties, whole=True):
        """
        Return the topic (str) of a PUBLISH: `name`, or if that is "" what the topic alias among
        its `properties` (dict or None) stands for, which is taken out of them (section 3.3.2.3.4).
        With `whole` False that stands for a topic of which `name` is the beginning: for none.
        """
        if properties and "topic_alias" in properties:
            alias = properties.pop("topic_alias")
            if alias > self._alias_maximum:
                raise ProtocolError("topic alias %d (5.0 section 3.3.4)" % alias, _ALIAS_INVALID)
            if not whole:
                self._topics.pop(alias, None)
            elif name:
                self._topics[alias] = name
            else:
                name = self._topics.get(alias)
        if not name:
            raise ProtocolError(
                "PUBLISH without topic or known alias (5.0 section 3.3.2.1)", _PROTOCOL_ERROR
            )
        return name

    def publish(self, qos):
        """
        Return (topic str, packet id int or 0, payload bytes) of a PUBLISH (section 3.3); `at` is
        then the offset of the payload. The topic alias is resolved, and not among `properties`.

        qos  int, from the first byte: (first >> 1) & 3
        """
        buf = self.buf
        end = self.end
        at = self.at + 2
        n = at + (buf[at - 2] << 8 | buf[at - 1])
        if n > end - (3 if qos else 1):
            raise ProtocolError("PUBLISH shorter than its topic (5.0 section 3.3.2)", _MALFORMED)
        last = self._last
        if buf[at:n] != last[0]:
            name = text(buf, at, n)
            if "+" in name or "#" in name:
                raise ProtocolError("PUBLISH topic %r [MQTT-3.3.2-2]" % name[:50], _PROTOCOL_ERROR)
            self._last = last = bytes(buf[at:n]), name
        packet_id = 0
        if qos:
            self.at = n
            packet_id = self.packet_id()
            n += 2
        properties, self.at = decode(buf, n, end, _PUBLISH)
        name = self.resolved(last[1], properties)
        self.code = 0
        self.properties = properties or None
        if properties:
            count = len(properties) + len(properties.get("user_property", ()))
            self.extra = self.at - n + 100 * count
        return name, packet_id, bytes(buf[self.at : end])
