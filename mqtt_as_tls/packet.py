"""
MQTT 3.1.1 on the wire: fields to bytes, bytes to fields. No I/O and no state but the decoder's.

Every encoder returns one buffer, to be sent with one write.
"""

from micropython import const

from .errors import ProtocolError

# Packet types: each module names those that it takes, a number costs nothing on the device
_PUBLISH = const(0x30)
_SUBACK = const(0x90)
_PINGRESP = const(0xD0)

_BUFFER = const(512)
_TWO = const(b"\x20\x40\x50\x62\x70\xb0")  # first bytes of what has a Remaining Length of 2


def framed(first, payload, extra=0, more=0):
    """
    Return a packet (bytearray): fixed header, `extra` bytes 0, and `payload` (bytes-like).

    first  int, the first byte of the packet
    more   int, bytes of the payload that follow the packet

    Raises ValueError when its Remaining Length needs more than 4 bytes (section 2.2.3).
    """
    length = extra + len(payload) + more
    if length > 268_435_455:
        raise ValueError("packet over 268435455 bytes (section 2.2.3)")
    at = 2 if length < 128 else 3 + (length > 16383) + (length > 2097151)
    buf = bytearray(at + length - more)
    buf[0] = first
    buf[at + extra :] = payload
    at = 1
    while length > 127:
        buf[at] = length & 127 | 128
        length >>= 7
        at += 1
    buf[at] = length
    return buf


def u16(n):
    """Return `n` as two bytes (section 1.5.2). Raises ValueError when it is over 65535."""
    return bytes((n >> 8, n & 255))


def field(data):
    """Return `data` (bytes-like) behind its length (section 1.5.3). ValueError over 65535."""
    return u16(len(data)) + data


def connect(client_id, keepalive_s, clean, user=None, password=None, will=None):
    """
    Encode CONNECT (section 3.1).

    client_id   bytes, UTF-8
    keepalive_s int, 0 to 65535 seconds
    clean       bool, CleanSession
    user        bytes, UTF-8, or None
    password    bytes or None; only with `user`
    will        (topic bytes, payload bytes, qos int, retain bool) or None

    Returns a bytearray. Raises ValueError when a field or the keep alive is over 65535.
    """
    flags = 2 if clean else 0
    body = field(client_id)
    if will:
        flags |= 4 | will[2] << 3 | will[3] << 5
        body += field(will[0]) + field(will[1])
    if user is not None:
        flags |= 128
        body += field(user)
        if password is not None:
            flags |= 64
            body += field(password)
    return framed(0x10, b"\0\4MQTT\4" + bytes((flags,)) + u16(keepalive_s) + body)


def publish(topic, payload, qos=0, retain=False, middle=None, more=0):
    """
    Encode PUBLISH (section 3.3). The packet id is 0 until `set_id`, DUP is 0 until `set_dup`.

    topic    bytes, UTF-8
    payload  bytes or bytearray
    qos      int, 0 to 2
    retain   bool
    middle   bytes between packet id and payload (MQTT 5), or None
    more     int, bytes of the payload that are sent after the packet

    Returns a bytearray. Raises ValueError over 268,435,455 bytes.
    """
    n = len(topic)
    extra = n + (4 if qos else 2)
    if middle:
        extra += len(middle)
    if n > 65535:
        raise ValueError("topic of %d bytes" % n)
    buf = framed(_PUBLISH | qos << 1 | (1 if retain else 0), payload, extra, more)
    at = _body_at(buf)
    if middle:
        buf[at + extra - len(middle) : at + extra] = middle
    buf[at] = n >> 8
    buf[at + 1] = n & 255
    at += 2
    buf[at : at + n] = topic
    return buf


def set_clean(buf, clean):
    """Write CleanSession (bool) into an encoded CONNECT (section 3.1.2.4)."""
    at = _body_at(buf) + 7
    buf[at] = buf[at] & 0xFD | clean << 1


def _body_at(buf):
    """Return the offset of the variable header of a packet."""
    at = 2
    while buf[at - 1] & 128:
        at += 1
    return at


def topic(buf):
    """Return the topic (str) of an encoded PUBLISH packet."""
    at = _body_at(buf)
    return str(buf[at + 2 : at + 2 + (buf[at] << 8 | buf[at + 1])], "utf-8")


def set_id(buf, packet_id):
    """Write `packet_id` (int, 1 to 65535) into a PUBLISH packet with QoS 1 or 2 (3.3.2.2)."""
    at = _body_at(buf)
    at += 2 + (buf[at] << 8 | buf[at + 1])
    buf[at] = packet_id >> 8
    buf[at + 1] = packet_id & 255


def set_dup(buf, dup):
    """Write the DUP flag (bool) of a PUBLISH packet (section 3.3.1.1)."""
    buf[0] = buf[0] & 0xF7 | dup << 3


def ack(first, packet_id, code=0, properties=None):
    """
    Encode PUBACK, PUBREC, PUBREL or PUBCOMP (`first`) for `packet_id` (sections 3.4-3.7); there
    is no `code` before MQTT 5.
    """
    return bytes((first, 2, packet_id >> 8, packet_id & 255))


def subscribe(packet_id, filters, properties=None):
    """
    Encode SUBSCRIBE (section 3.8).

    packet_id  int, 1 to 65535
    filters    list of (topic filter bytes, qos int), not empty

    Returns a bytearray.
    """
    body = u16(packet_id)
    for name, qos in filters:
        body += field(name) + bytes((qos,))
    return framed(0x82, body)


def unsubscribe(packet_id, filters, properties=None):
    """Encode UNSUBSCRIBE (section 3.10) of `filters` (list of bytes, not empty)."""
    body = u16(packet_id)
    for name in filters:
        body += field(name)
    return framed(0xA2, body)


def text(data):
    """
    Return bytes-like `data` as str, or raise ProtocolError: section 1.5.3 forbids ill-formed
    UTF-8, surrogates and U+0000.
    """
    try:
        s = str(data, "utf-8")
    except ValueError:  # UnicodeError is one
        s = "\0"
    if len(data) != len(s):  # not ASCII: MicroPython lets surrogates and over-long forms pass
        n = 0
        for c in data:  # bytes: MicroPython never frees a character that was taken out of a str
            n = (n & 255) << 8 | c
            if (
                c in b"\xc0\xc1"
                or c > 0xF4
                or n >> 5 in (0x704, 0x76D)  # E0 80 to 9F, ED A0 to BF
                or n >> 4 in (0xF08, 0xF49, 0xF4A, 0xF4B)
            ):
                s = "\0"
    if "\0" in s:
        raise ProtocolError("text that is not UTF-8 [MQTT-1.5.3-1, -2]", 129)
    return s


class Decoder:
    """
    Incremental decoder of what a server sends: input in any pieces, whole packets out.

    Read into `space()`, tell `fed(n)`, call `next()` until it returns None. No memory is taken
    for a packet before its length was checked. Each connection needs one of its own.

    buf      memoryview that holds the packet of the last `next()`, until `space()`
    at       int, offset of its variable header
    end      int, offset after its last byte
    partial  bool, a PUBLISH over `max_packet` is told by its header, not refused
    """

    properties = None  # and reason code of the last packet: MQTT 5 has them
    partial = False

    def __init__(self, max_packet=4096):
        """max_packet: int, the largest whole packet that is accepted, in bytes."""
        self.max_packet = max_packet
        self._small = self.buf = memoryview(bytearray(_BUFFER))
        self.start = 0  # of the first byte that is not consumed
        self.stop = 0  # after the last byte received
        self.need = 0  # bytes of the whole packet at start, as far as known
        self.at = self.end = self.code = 0
        self._last = None, None  # a topic as it came and as str: the next one is often the same

    def space(self):
        """Return a writable memoryview, never empty, to read input into."""
        buf = self.buf
        start = self.start
        stop = self.stop
        if start == stop:
            self.start = self.stop = 0
            self.buf = buf = self._small
            return buf
        if self.need > len(buf):
            self.buf = memoryview(bytearray(self.need))
        elif not start:
            return buf[stop:]
        self.start = 0
        self.stop = stop = stop - start
        self.buf[:stop] = buf[start : start + stop]
        return self.buf[stop:]

    def fed(self, n):
        """Note that `n` bytes were written to the start of `space()`."""
        self.stop += n

    def next(self):
        """
        Return the first byte of the next whole packet (int; `buf`, `at`, `end` tell where its
        body is), or None when more input is needed. With `partial`, a PUBLISH over `max_packet`
        is not consumed: its first byte + 256 is returned, again and again.

        Raises ProtocolError for a packet that no server may send, or one over `max_packet`.
        """
        # At most 11 words of variables: larger frames MicroPython takes from the heap
        buf = self.buf
        at = self.start + 1
        if at >= self.stop:
            return None
        length = buf[at]
        self.at = at + 1
        if length > 127:
            length = self._length(at)
            if length < 0:
                return None
        first = buf[at - 1]
        if (
            length < 3 or first & 6 == 6 or first & 14 == 8
            if first & 0xF0 == _PUBLISH
            else self._bad(first, length)
        ):
            raise ProtocolError(
                "packet 0x%02x with Remaining Length %d (sections 2.2, 3)" % (first, length), 129
            )
        self.end = end = self.at + length
        length = end - at + 1  # of the whole packet
        if length > self.max_packet:
            if self.partial and first & 0xF0 == _PUBLISH:
                return first | 256
            raise ProtocolError(
                "packet of %d bytes, max_packet is %d" % (length, self.max_packet), 149
            )
        if end > self.stop:
            self.need = length
            return None
        self.need = 0
        self.start = end
        return first

    def _length(self, at):
        # a Remaining Length of several bytes, and `at` behind it; less than 0: it is not there yet
        length = shift = 0
        byte = 128
        while byte > 127:
            if at >= self.stop:
                return -1
            byte = self.buf[at]
            length |= (byte & 127) << shift
            shift += 7
            if shift > 7 and not byte or shift > 21 and byte > 127:
                raise ProtocolError("Remaining Length malformed (section 2.2.3)", 129)
            at += 1
        self.at = at
        return length

    def _bad(self, first, length):
        # whether no server sends such a packet (`length`: Remaining Length); PUBLISH is checked
        if first == _SUBACK:
            return length < 3
        return length != (2 if first in _TWO else 0 if first == _PINGRESP else -1)

    def packet_id(self):
        """Return the packet id at `at`; ProtocolError when it is 0 ([MQTT-2.3.1-1])."""
        n = self.buf[self.at] << 8 | self.buf[self.at + 1]
        if not n:
            raise ProtocolError("packet id 0 [MQTT-2.3.1-1]")
        return n

    answer = packet_id  # of PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4-3.7)

    def connack(self):
        """Return (session_present bool, return code int) of a CONNACK (section 3.2)."""
        flags = self.buf[self.at]
        code = self.buf[self.at + 1]
        if flags > 1 or (flags and code):
            raise ProtocolError("CONNACK flags 0x%02x, code %d (section 3.2.2)" % (flags, code))
        return flags == 1, code

    def suback(self):
        """
        Return the return codes (bytes of 0, 1, 2 or 0x80) of a SUBACK (section 3.9.3); none of an
        UNSUBACK (section 3.11). Others from 0x80 on are those of MQTT 5, with which ejabberd
        refuses over 3.1.1, too.
        """
        codes = bytes(self.buf[self.at + 2 : self.end])
        for code in codes:
            if 2 < code < 128:
                raise ProtocolError("SUBACK return code 0x%02x [MQTT-3.9.3-2]" % code)
        return codes

    def publish(self, qos):
        """
        Return (topic str, packet id int or 0, payload bytes) of a PUBLISH (section 3.3); `at` is
        then the offset of the payload.

        qos  int, from the first byte: (first >> 1) & 3
        """
        buf = self.buf
        at = self.at + 2
        n = at + (buf[at - 2] << 8 | buf[at - 1])
        if n > self.end - (2 if qos else 0):
            raise ProtocolError("PUBLISH shorter than its topic (section 3.3.2)", 129)
        last = self._last
        if buf[at:n] != last[0]:
            name = text(buf[at:n])
            if not name or "+" in name or "#" in name:
                raise ProtocolError("PUBLISH topic %r [MQTT-3.3.2-2, -4.7.3-1]" % name[:50])
            self._last = last = bytes(buf[at:n]), name
        self.at = n
        if qos:
            qos = self.packet_id()  # QoS 0 has none, and 0 says so
            self.at = n = n + 2
        buf = bytes(buf[n : self.end])
        return last[1], qos, buf
