"""
MQTT 3.1.1 on the wire: fields to bytes, bytes to fields. No I/O and no state but the decoder's.

Every encoder returns one buffer, to be sent with one write.
"""

from micropython import const

from .errors import ProtocolError

CONNACK = const(0x20)
PUBLISH = const(0x30)
PUBACK = const(0x40)
PUBREC = const(0x50)
PUBREL = const(0x62)
PUBCOMP = const(0x70)
SUBACK = const(0x90)
UNSUBACK = const(0xB0)
PINGRESP = const(0xD0)

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"

_BUFFER = const(512)

# What a server may send (section 2.2.1): first byte -> exact Remaining Length; -1: at least 3
_LENGTHS = {
    CONNACK: 2,
    PUBACK: 2,
    PUBREC: 2,
    PUBREL: 2,
    PUBCOMP: 2,
    SUBACK: -1,
    UNSUBACK: 2,
    PINGRESP: 0,
}


def _start(first, length):
    """
    Return (buffer, offset): the fixed header written, `length` bytes free from the offset.

    first   int, the first byte of the packet
    length  int, Remaining Length in bytes (section 2.2.3)

    Raises ValueError when `length` needs more than 4 bytes.
    """
    if length > 268_435_455:
        raise ValueError("packet over 268435455 bytes: MQTT 3.1.1 section 2.2.3 allows no more")
    at = 2
    n = length >> 7
    while n:
        at += 1
        n >>= 7
    buf = bytearray(at + length)
    buf[0] = first
    at = 1
    while length > 127:
        buf[at] = length & 127 | 128
        length >>= 7
        at += 1
    buf[at] = length
    return buf, at + 1


def _put(buf, at, data):
    """Write `data` (bytes) with its two-byte length at `at` (section 1.5.3); return the end."""
    n = len(data)
    buf[at] = n >> 8
    buf[at + 1] = n & 255
    at += 2
    buf[at : at + n] = data
    return at + n


def connect(client_id, keepalive_s, clean, user=None, password=None, will=None):
    """
    Encode CONNECT (section 3.1).

    client_id   bytes, UTF-8
    keepalive_s int, 0 to 65535 seconds
    clean       bool, CleanSession
    user        bytes, UTF-8, or None
    password    bytes or None; only with `user`
    will        (topic bytes, payload bytes, qos int, retain bool) or None

    Returns a bytearray.
    """
    flags = 2 if clean else 0
    fields = [client_id]
    if will:
        flags |= 4 | will[2] << 3 | (32 if will[3] else 0)
        fields.append(will[0])
        fields.append(will[1])
    if user is not None:
        flags |= 128
        fields.append(user)
        if password is not None:
            flags |= 64
            fields.append(password)
    length = 10
    for field in fields:
        length += 2 + len(field)
    buf, at = _start(0x10, length)
    at = _put(buf, at, b"MQTT")
    buf[at] = 4
    buf[at + 1] = flags
    buf[at + 2] = keepalive_s >> 8
    buf[at + 3] = keepalive_s & 255
    at += 4
    for field in fields:
        at = _put(buf, at, field)
    return buf


def publish(topic, payload, qos=0, retain=False):
    """
    Encode PUBLISH (section 3.3). The packet id is 0 until `set_id`, DUP is 0 until `set_dup`.

    topic    bytes, UTF-8
    payload  bytes or bytearray
    qos      int, 0 to 2
    retain   bool

    Returns a bytearray. Raises ValueError over 268,435,455 bytes.
    """
    n = len(topic)
    buf, at = _start(
        PUBLISH | qos << 1 | (1 if retain else 0), n + len(payload) + (4 if qos else 2)
    )
    at = _put(buf, at, topic)
    if qos:
        at += 2
    buf[at:] = payload
    return buf


def _topic_at(buf):
    """Return the offset of the topic's two-byte length in a PUBLISH packet."""
    at = 1
    while buf[at] & 128:
        at += 1
    return at + 1


def topic(buf):
    """Return the topic (str) of an encoded PUBLISH packet."""
    at = _topic_at(buf)
    return str(bytes(buf[at + 2 : at + 2 + (buf[at] << 8 | buf[at + 1])]), "utf-8")


def set_id(buf, packet_id):
    """Write `packet_id` (int, 1 to 65535) into a PUBLISH packet with QoS 1 or 2 (3.3.2.2)."""
    at = _topic_at(buf)
    at += 2 + (buf[at] << 8 | buf[at + 1])
    buf[at] = packet_id >> 8
    buf[at + 1] = packet_id & 255


def set_dup(buf, dup):
    """Write the DUP flag (bool) of a PUBLISH packet (section 3.3.1.1)."""
    buf[0] = buf[0] & 0xF7 | (8 if dup else 0)


def ack(kind, packet_id):
    """Encode PUBACK, PUBREC, PUBREL or PUBCOMP (`kind`) for `packet_id` (sections 3.4-3.7)."""
    return bytes((kind, 2, packet_id >> 8, packet_id & 255))


def subscribe(packet_id, filters):
    """
    Encode SUBSCRIBE (section 3.8).

    packet_id  int, 1 to 65535
    filters    list of (topic filter bytes, qos int), not empty

    Returns a bytearray.
    """
    length = 2
    for name, _ in filters:
        length += 3 + len(name)
    buf, at = _start(0x82, length)
    buf[at] = packet_id >> 8
    buf[at + 1] = packet_id & 255
    at += 2
    for name, qos in filters:
        at = _put(buf, at, name)
        buf[at] = qos
        at += 1
    return buf


def unsubscribe(packet_id, name):
    """Encode UNSUBSCRIBE (section 3.10) of one topic filter (`name`, bytes)."""
    buf, at = _start(0xA2, 4 + len(name))
    buf[at] = packet_id >> 8
    buf[at + 1] = packet_id & 255
    _put(buf, at + 2, name)
    return buf


def text(data):
    """
    Return bytes-like `data` as str, or raise ProtocolError: section 1.5.3 forbids ill-formed
    UTF-8, surrogates and U+0000.
    """
    try:
        s = str(data, "utf-8")
    except ValueError:  # UnicodeError is one
        s = "\0"
    n = len(data)
    if n != len(s):  # not ASCII: MicroPython lets surrogates and over-long forms pass
        for c in s:
            c = ord(c)
            n -= 1 if c < 128 else 2 if c < 2048 else 3 if c < 65536 else 4
            if 0xD800 <= c < 0xE000 or c > 0x10FFFF:
                n = -1
                break
    else:
        n = 0
    if n or "\0" in s:
        raise ProtocolError("text that is not UTF-8 [MQTT-1.5.3-1, -2]")
    return s


class Decoder:
    """
    Incremental decoder of what a server sends: input in any pieces, whole packets out.

    Read into `space()`, tell `fed(n)`, call `next()` until it returns None. No memory is taken
    for a packet before its length was checked.

    buf  the bytes-like that holds the packet of the last `next()`
    at   int, offset of its variable header
    end  int, offset after its last byte
    """

    def __init__(self, max_packet=4096):
        """max_packet: int, the largest whole packet that is accepted, in bytes."""
        self.max_packet = max_packet
        self._small = self.buf = bytearray(_BUFFER)
        self._view = memoryview(self.buf)
        self._start = 0  # of the first byte that is not consumed
        self._stop = 0  # after the last byte received
        self._need = 0  # bytes of the whole packet at _start; 0: not known yet
        self.at = self.end = 0

    def space(self):
        """Return a writable memoryview, never empty, to read input into."""
        start = self._start
        stop = self._stop
        if self.buf is not self._small:
            if start < len(self.buf):  # the large packet is not complete: to its end, no further
                return memoryview(self.buf)[stop:]
            self.buf = self._small
            start = stop = 0
        if self._need > _BUFFER:
            buf = bytearray(self._need)
            buf[: stop - start] = self._view[start:stop]
            self.buf = buf
            self._stop = stop - start
            self._start = 0
            return memoryview(buf)[self._stop :]
        if start:
            stop -= start
            if stop:
                self.buf[:stop] = self._view[start : start + stop]
            self._start = 0
        self._stop = stop
        return self._view[stop:] if stop else self._view

    def fed(self, n):
        """Note that `n` bytes were written to the start of `space()`."""
        self._stop += n

    def next(self):
        """
        Return the first byte of the next whole packet (int; `buf`, `at`, `end` tell where its
        body is), or None when more input is needed.

        Raises ProtocolError for a packet that no server may send, or one over `max_packet`.
        """
        start = self._start
        have = self._stop - start
        need = self._need
        buf = self.buf
        if not need:
            at = start + 1
            length = shift = 0
            while True:
                if at >= self._stop:
                    if have:
                        self._first(buf[start])
                    return None
                byte = buf[at]
                at += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 21:
                    raise ProtocolError("Remaining Length over 4 bytes (section 2.2.3)")
            if shift and not byte:
                raise ProtocolError("Remaining Length longer than needed (section 2.2.3)")
            want = self._first(buf[start])
            if length < 3 if want < 0 else length != want:
                raise ProtocolError(
                    "packet 0x%02x with Remaining Length %d (section 3)" % (buf[start], length)
                )
            self.at = at
            need = at - start + length
            if need > self.max_packet:
                raise ProtocolError(
                    "packet of %d bytes, max_packet is %d: raise max_packet or send less"
                    % (need, self.max_packet)
                )
            self._need = need
            self._head = at - start
        if have < need:
            return None
        self.at = start + self._head
        self.end = self._start = start + need
        self._need = 0
        return buf[start]

    def _first(self, first):
        """Check the first byte of a packet; return its exact Remaining Length, or < 0."""
        want = _LENGTHS.get(first)
        if want is None:
            if first & 0xF0 != PUBLISH or first & 6 == 6 or first & 14 == 8:
                raise ProtocolError("packet 0x%02x from the server (sections 2.2, 3.3.1)" % first)
            return -1
        return want

    def packet_id(self):
        """Return the packet id at `at`; ProtocolError when it is 0 ([MQTT-2.3.1-1])."""
        n = self.buf[self.at] << 8 | self.buf[self.at + 1]
        if not n:
            raise ProtocolError("packet id 0 [MQTT-2.3.1-1]")
        return n

    def connack(self):
        """Return (session_present bool, return code int) of a CONNACK (section 3.2)."""
        flags = self.buf[self.at]
        code = self.buf[self.at + 1]
        if flags > 1 or (flags and code):
            raise ProtocolError("CONNACK flags 0x%02x, code %d (section 3.2.2)" % (flags, code))
        return flags == 1, code

    def suback(self):
        """Return the return codes (bytes of 0, 1, 2 or 0x80) of a SUBACK (section 3.9.3)."""
        codes = bytes(self.buf[self.at + 2 : self.end])
        for code in codes:
            if code > 2 and code != 128:
                raise ProtocolError("SUBACK return code 0x%02x [MQTT-3.9.3-2]" % code)
        return codes

    def publish(self, qos):
        """
        Return (topic str, packet id int or 0, payload bytes) of a PUBLISH (section 3.3).

        qos  int, from the first byte: (first >> 1) & 3
        """
        buf = self.buf
        at = self.at + 2
        n = at + (buf[at - 2] << 8 | buf[at - 1])
        if n > self.end - (2 if qos else 0):
            raise ProtocolError("PUBLISH shorter than its topic (section 3.3.2)")
        name = text(buf[at:n])
        if not name or "+" in name or "#" in name:
            raise ProtocolError("PUBLISH topic %r [MQTT-3.3.2-2, -4.7.3-1]" % name)
        packet_id = 0
        if qos:
            self.at = n
            packet_id = self.packet_id()
            n += 2
        return name, packet_id, bytes(memoryview(buf)[n : self.end])
