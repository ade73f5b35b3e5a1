"""What the doctor sends and reads itself of MQTT: CONNECT, and what packets are made of."""

import struct

KEEPALIVE_S = 60  # that of a board that says none


def field(text):
    """Return `text` (str) as a field of MQTT: its length, then UTF-8 (3.1.1 section 1.5.3)."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def varint(size):
    """Return `size` (int) as a Remaining Length (3.1.1 section 2.2.3)."""
    out = b""
    while True:
        size, low = size >> 7, size & 127
        out += bytes((low | (128 if size else 0),))
        if not size:
            return out


def read_varint(data, at):
    """Return a Variable Byte Integer (5.0 section 1.5.5) and the offset after it; IndexError."""
    value = 0
    for n in range(4):
        byte = data[at + n]
        value |= (byte & 127) << 7 * n
        if byte < 128:
            return value, at + n + 1
    raise IndexError


def connect_packet(target, keepalive_s=KEEPALIVE_S, level=4, properties=b""):
    """
    Return the CONNECT packet (bytes) of MQTT 3.1.1, section 3.1, for a clean session, unless the
    target keeps its own.

    level       4, or 5: that of MQTT 5.0, with `properties` (bytes, their length first)
    """
    flags, payload = 0 if target.keep else 2, field(target.client_id)
    if target.user is not None:
        flags |= 0x80
        payload += field(target.user)
        if target.password is not None:
            flags |= 0x40
            payload += field(target.password)
    body = field("MQTT") + bytes((level, flags)) + struct.pack(">H", keepalive_s)
    body += properties + payload
    return b"\x10" + varint(len(body)) + body


# of CONNACK (3.1.1 section 3.2.2.3)
CODES = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}
