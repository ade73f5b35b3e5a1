"""The bytes of MQTT 5 for tests, written apart from the codec that they test."""


def field(data):
    """Return str or bytes with its length in front."""
    data = data.encode() if isinstance(data, str) else data
    return len(data).to_bytes(2, "big") + data


def varint(number):
    """Return an int as a Variable Byte Integer."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def user(name, value):
    """Return a User Property."""
    return b"\x26" + field(name) + field(value)


def with_length(*properties):
    """Return encoded properties with the Property Length in front."""
    return varint(len(b"".join(properties))) + b"".join(properties)


def packet(first, *parts):
    """Return a packet of the first byte `first` (int) and `parts` (bytes)."""
    return bytes([first]) + with_length(*parts)


def connack(*properties, code=0, present=0):
    return packet(0x20, bytes([present, code]), with_length(*properties))


def answer(first, packet_id, code=0, *properties):
    """Return PUBACK, PUBREC, PUBREL or PUBCOMP."""
    head = packet_id.to_bytes(2, "big") + bytes([code])
    return packet(first, head, with_length(*properties))


def suback(body, *codes, properties=b"", first=0x90):
    """Return the SUBACK (UNSUBACK: first=0xB0) for a SUBSCRIBE with the body `body`."""
    return packet(first, body[:2], with_length(properties), bytes(codes))


def publish(topic, payload, *properties, qos=0, packet_id=0, flags=0):
    middle = packet_id.to_bytes(2, "big") if qos else b""
    return packet(0x30 | qos << 1 | flags, field(topic), middle, with_length(*properties), payload)


def disconnect(code, *properties):
    return packet(0xE0, bytes([code]), with_length(*properties))


def auth(code, *properties):
    return packet(0xF0, bytes([code]), with_length(*properties))
