"""
What a server must not send, by the words of the two specifications: tables of packets, with the
reason code that MQTT 5 has for each. Written from the specifications, not from the code.

A case is a tuple (name, bytes that the server sends, reason code).
"""

import random

from tests.support.five import field, varint

MALFORMED = 0x81
PROTOCOL_ERROR = 0x82
ALIAS_INVALID = 0x94
TOO_LARGE = 0x95
MAX_PACKET = 4096  # the client's default
CONNACKS = {4: b"\x20\x02%c\0", 5: b"\x20\x03%c\0\0"}


def packet(first, body=b""):
    return bytes((first,)) + varint(len(body)) + body


def connack(protocol, present=False):
    return CONNACKS[protocol] % present


def message(protocol, topic=b"t", payload=b"x", qos=0, packet_id=7, properties=b"", flags=0):
    """Return a PUBLISH."""
    body = field(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    if protocol == 5:
        body += varint(len(properties)) + properties
    return packet(0x30 | qos << 1 | flags, body + payload)


# Texts

BAD_TEXTS = {
    "U+0000": b"a\0b",
    "half a character": b"\xc3",
    "a lone continuation": b"a\x80",
    "a character broken off": b"\xe2\x82(",
    "over-long, 2 bytes": b"\xc0\xaf",
    "over-long, 3 bytes": b"\xe0\x80\xaf",
    "over-long, 4 bytes": b"\xf0\x80\x80\xaf",
    "over-long U+0000": b"\xc0\x80",
    "surrogate": b"\xed\xa0\x80",
    "last surrogate": b"\xed\xbf\xbf",
    "pair of surrogates": b"\xed\xa0\xbd\xed\xb8\x80",
    "over U+10FFFF": b"\xf4\x90\x80\x80",
    "5 bytes": b"\xf8\x88\x80\x80\x80",
    "0xFF": b"\xff",
}

# Fixed headers

GOOD = {  # a packet of each type that a server sends, well-formed
    4: {
        "CONNACK": b"\x20\2\0\0",
        "PUBLISH": message(4),
        "PUBACK": b"\x40\2\0\7",
        "PUBREC": b"\x50\2\0\7",
        "PUBREL": b"\x62\2\0\7",
        "PUBCOMP": b"\x70\2\0\7",
        "SUBACK": b"\x90\3\0\7\0",
        "UNSUBACK": b"\xb0\2\0\7",
        "PINGRESP": b"\xd0\0",
    },
    5: {
        "CONNACK": b"\x20\3\0\0\0",
        "PUBLISH": message(5),
        "PUBACK": b"\x40\4\0\7\0\0",
        "PUBREC": b"\x50\4\0\7\0\0",
        "PUBREL": b"\x62\4\0\7\0\0",
        "PUBCOMP": b"\x70\4\0\7\0\0",
        "SUBACK": b"\x90\4\0\7\0\0",
        "UNSUBACK": b"\xb0\4\0\7\0\0",
        "PINGRESP": b"\xd0\0",
        "DISCONNECT": b"\xe0\2\0\0",
        "AUTH": b"\xf0\2\x18\0",
    },
}
CLIENTS = {  # what only a client sends
    4: {
        "CONNECT": packet(0x10, b"\0\4MQTT\4\2\0\x3c\0\1c"),
        "SUBSCRIBE": packet(0x82, b"\0\7\0\1t\0"),
        "UNSUBSCRIBE": packet(0xA2, b"\0\7\0\1t"),
        "PINGREQ": b"\xc0\0",
        "DISCONNECT": b"\xe0\0",
        "AUTH": b"\xf0\0",
    },
    5: {
        "CONNECT": packet(0x10, b"\0\4MQTT\5\2\0\x3c\0\0\1c"),
        "SUBSCRIBE": packet(0x82, b"\0\7\0\0\1t\0"),
        "UNSUBSCRIBE": packet(0xA2, b"\0\7\0\0\1t"),
        "PINGREQ": b"\xc0\0",
    },
}
LEAST = {  # bytes of the shortest body
    4: {"CONNACK": 2, "PUBLISH": 3, "SUBACK": 3, "UNSUBACK": 2},
    5: {"CONNACK": 3, "PUBLISH": 3, "SUBACK": 4, "UNSUBACK": 4},
}
for each in LEAST.values():
    each.update(PUBACK=2, PUBREC=2, PUBREL=2, PUBCOMP=2, PINGRESP=0, DISCONNECT=0, AUTH=0)


def headers(protocol):
    """Yield cases whose first bytes are wrong; none of them needs a body to be refused."""
    for flags in range(16):
        yield f"type 0, flags {flags}", bytes((flags, 0)), MALFORMED
    for name, good in GOOD[protocol].items():
        for flags in range(16):
            if name == "PUBLISH":
                if flags & 6 != 6 and flags & 14 != 8:
                    continue
            elif flags == good[0] & 15:
                continue
            bad = bytes((good[0] & 0xF0 | flags,)) + good[1:]
            yield f"{name}, flags {flags}", bad, MALFORMED
        for n in range(LEAST[protocol][name]):
            if (protocol, name, n) == (5, "CONNACK", 2):
                continue  # a server of 3.1.1 may answer so
            bad = packet(good[0], good[2 : 2 + n])
            yield f"{name}, {n} bytes", bad, MALFORMED
        if name == "PUBLISH":
            pass  # one that is too large is passed over: test_oversized.py
        elif name == "SUBACK" or protocol == 5 and name != "PINGRESP":
            for n in (MAX_PACKET - 2, 65536, 268_435_455):
                bad = good[:1] + varint(n)
                yield f"{name} of {n} bytes", bad, TOO_LARGE
        else:
            for n in (len(good) - 1, 200, 268_435_455):
                bad = good[:1] + varint(n)
                yield f"{name} of {n} bytes", bad, MALFORMED
        for n in (2, 3, 4):
            length = bytes((good[1] | 128,)) + b"\x80" * (n - 2) + b"\0"
            bad = good[:1] + length + good[2:]
            yield f"{name}, length in {n} bytes for one", bad, MALFORMED
        for end in (b"\x01", b"\x7f", b"\x80\x01", b""):
            bad = good[:1] + b"\xff\xff\xff\xff" + end
            yield f"{name}, length ff ff ff ff {end.hex()}", bad, MALFORMED
    for name, bad in CLIENTS[protocol].items():
        yield f"{name} from a server", bad, PROTOCOL_ERROR
        yield f"{name}, flags 15", bytes((bad[0] | 15,)) + bad[1:], MALFORMED
    if protocol == 5:
        yield "AUTH, 1 byte", b"\xf0\1\x18", MALFORMED


def bodies(protocol):
    """Yield cases of packets with properties' length 0 or none."""
    end = protocol == 5 and b"\0" or b""

    def publish(what, body, code, first=0x30):
        return f"PUBLISH, {what}", packet(first, body), code

    yield publish("empty topic", b"\0\0" + end + b"x", PROTOCOL_ERROR)
    yield publish("empty topic, QoS 1", b"\0\0\0\7" + end, PROTOCOL_ERROR, 0x32)
    for topic in (b"+", b"#", b"a/+", b"a/#", b"a+", b"#a", b"a/+/b"):
        yield publish(f"topic {topic}", field(topic) + end, PROTOCOL_ERROR)
    for topic in (b"+" * 4000, b"\0" * 4000, b"\xff" * 4000):
        code = PROTOCOL_ERROR if topic[0] == 43 else MALFORMED
        yield publish(f"4000 times {topic[:1]}", field(topic) + end, code)
    for name, text in BAD_TEXTS.items():
        yield publish(f"topic with {name}", field(text) + end, MALFORMED)
    for n in (2, 3, 300, 65535):
        yield publish(f"topic of {n} in 1", n.to_bytes(2, "big") + b"t" + end, MALFORMED)
    for qos in (1, 2):
        first = 0x30 | qos << 1
        yield publish("no packet id", b"\0\1t", MALFORMED, first)
        yield publish("half a packet id", b"\0\1t\0", MALFORMED, first)
        yield publish("packet id 0", b"\0\1t\0\0" + end, PROTOCOL_ERROR, first)
    for name in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK"):
        good = GOOD[protocol][name]
        yield f"{name}, packet id 0", good[:2] + b"\0\0" + good[4:], PROTOCOL_ERROR
    if protocol == 4:
        for code in range(3, 128):
            yield f"SUBACK, code {code}", b"\x90\3\0\7%c" % code, PROTOCOL_ERROR


def connacks(protocol):
    """Yield cases of what a server sends in the place of CONNACK."""
    for name, good in (*GOOD[protocol].items(), *CLIENTS[protocol].items()):
        if name not in ("CONNACK", "AUTH"):
            yield f"{name} before CONNACK", good, PROTOCOL_ERROR
    for bit in range(1, 8):
        bad = connack(protocol, 1 << bit)
        yield f"CONNACK, reserved bit {bit}", bad, MALFORMED
    if protocol == 5:
        yield "CONNACK of MQTT 3.1.1", connack(4), MALFORMED
    for code in (1, 5) if protocol == 4 else (0x80, 0x87, 0x97):
        bad = connack(protocol, True)
        bad = bad[:3] + bytes((code,)) + bad[4:]
        yield f"CONNACK {code} with a session", bad, PROTOCOL_ERROR
    for name, bad, code in headers(protocol):
        if name.startswith(("CONNACK", "type 0")):
            yield f"first packet: {name}", bad, code


# Reason codes of MQTT 5 (section 2.4, and those that each packet lists)

NAMED = (0, 1, 2, 4, 0x10, 0x11, 0x18, 0x19, *range(0x80, 0x92), *range(0x92, 0xA3))
CODES = {
    "CONNACK": "00 80-8a 8c 90 95 97 99 9a-9d 9f",
    "PUBACK": "00 10 80 83 87 90 91 97 99",
    "PUBREC": "00 10 80 83 87 90 91 97 99",
    "PUBREL": "00 92",
    "PUBCOMP": "00 92",
    "SUBACK": "00-02 80 83 87 8f 91 97 9e a1 a2",
    "UNSUBACK": "00 11 80 83 87 8f 91",
    "DISCONNECT": "00 80-83 87 89 8b 8c 8d-90 93-a2",
    "AUTH": "00 18",
}


def allowed(name):
    """Return the reason codes (set of int) that a server may put into the packet `name`."""
    codes = set()
    for part in CODES[name].split():
        low, _, high = part.partition("-")
        codes.update(range(int(low, 16), int(high or low, 16) + 1))
    return codes


def with_code(name, code, properties=b"", length=None):
    """
    Return the packet `name` of MQTT 5 with a reason code and properties.

    length  bytes, the length of the properties as it is said to be; None: as it is
    """
    first = GOOD[5][name][0]
    own = (varint(len(properties)) if length is None else length) + properties
    if name == "PUBLISH":
        return packet(first, field(b"t") + own + b"x")
    if name in ("SUBACK", "UNSUBACK"):
        return packet(first, b"\0\7" + own + bytes((code,)))
    head = {"CONNACK": b"\0", "DISCONNECT": b"", "AUTH": b""}.get(name, b"\0\7")
    return packet(first, head + bytes((code,)) + own)


def reason_codes():
    """Yield (is CONNACK, case) with reason codes that are not of their packet."""
    for name in CODES:
        for code in sorted({*NAMED, 0x03, 0x7F, 0xA3, 0xFF} - allowed(name)):
            bad = with_code(name, code)
            yield name == "CONNACK", (f"{name}, code 0x{code:02x}", bad, PROTOCOL_ERROR)


# Properties (table 2-4): identifier, type, packets from a server that may have it

PROPERTIES = {
    "payload format indicator": (0x01, "bool", "PUBLISH"),
    "message expiry interval": (0x02, "four", "PUBLISH"),
    "content type": (0x03, "text", "PUBLISH"),
    "response topic": (0x08, "topic", "PUBLISH"),
    "correlation data": (0x09, "binary", "PUBLISH"),
    "subscription identifier": (0x0B, "varint", "PUBLISH"),
    "session expiry interval": (0x11, "four", "CONNACK"),
    "assigned client identifier": (0x12, "text", "CONNACK"),
    "server keep alive": (0x13, "two", "CONNACK"),
    "authentication method": (0x15, "text", "CONNACK AUTH"),
    "authentication data": (0x16, "binary", "CONNACK AUTH"),
    "request problem information": (0x17, "bool", ""),
    "will delay interval": (0x18, "four", ""),
    "request response information": (0x19, "bool", ""),
    "response information": (0x1A, "text", "CONNACK"),
    "server reference": (0x1C, "text", "CONNACK DISCONNECT"),
    "reason string": (
        0x1F,
        "text",
        "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH",
    ),
    "receive maximum": (0x21, "two, not 0", "CONNACK"),
    "topic alias maximum": (0x22, "two", "CONNACK"),
    "topic alias": (0x23, "alias", "PUBLISH"),
    "maximum QoS": (0x24, "bool", "CONNACK"),
    "retain available": (0x25, "bool", "CONNACK"),
    "user property": (
        0x26,
        "pair",
        "CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH",
    ),
    "maximum packet size": (0x27, "four, not 0", "CONNACK"),
    "wildcard subscription available": (0x28, "bool", "CONNACK"),
    "subscription identifier available": (0x29, "bool", "CONNACK"),
    "shared subscription available": (0x2A, "bool", "CONNACK"),
}
KNOWN = {each[0] for each in PROPERTIES.values()}
VALUES = {
    "bool": b"\1",
    "two": b"\0\5",
    "two, not 0": b"\0\5",
    "four": b"\0\0\x10\0",
    "four, not 0": b"\0\0\x10\0",
    "varint": b"\x80\1",
    "text": field(b"text"),
    "topic": field(b"a/b"),
    "binary": field(b"\0\xff"),
    "alias": b"\0\1",
    "pair": field(b"name") + field(b"value"),
}
BAD_VALUES = {
    "bool": [(b"\2", PROTOCOL_ERROR), (b"\xff", PROTOCOL_ERROR)],
    "two, not 0": [(b"\0\0", PROTOCOL_ERROR)],
    "four, not 0": [(b"\0\0\0\0", PROTOCOL_ERROR)],
    "alias": [(b"\0\0", ALIAS_INVALID), (b"\0\1", ALIAS_INVALID), (b"\xff\xff", ALIAS_INVALID)],
    "varint": [
        (b"\0", PROTOCOL_ERROR),
        (b"\x80\0", MALFORMED),
        (b"\xff\xff\xff\xff\1", MALFORMED),
        (b"\x80\x80\x80\x80\0", MALFORMED),
    ],
    "text": [(field(text), MALFORMED) for text in BAD_TEXTS.values()],
    "topic": [
        (field(b""), PROTOCOL_ERROR),
        (field(b"a/+"), PROTOCOL_ERROR),
        (field(b"#"), PROTOCOL_ERROR),
        (field(b"\xc0\x80"), MALFORMED),
    ],
    "pair": [
        *((field(b"a") + field(text), MALFORMED) for text in BAD_TEXTS.values()),
        *((field(text) + field(b"a"), MALFORMED) for text in BAD_TEXTS.values()),
    ],
}


def having(name, properties, length=None):
    """Return the packet `name` of MQTT 5 with `properties`; see `with_code`."""
    return with_code(name, 0x18 if name == "AUTH" else 0, properties, length)


PROPERTIED = ("CONNACK", "PUBLISH", *[name for name in CODES if name != "CONNACK"])


def properties():
    """Yield (is CONNACK, case) with wrong properties."""
    for name in PROPERTIED:

        def case(what, sent, code, name=name):
            return name == "CONNACK", (f"{name}, {what}", sent, code)

        for title, (number, kind, packets) in PROPERTIES.items():
            one = bytes((number,)) + VALUES[kind]
            if name not in packets.split():
                yield case(f"{title} is not for it", having(name, one), MALFORMED)
                continue
            if kind != "pair" and kind != "varint":
                code = ALIAS_INVALID if kind == "alias" else PROTOCOL_ERROR
                yield case(f"{title} twice", having(name, one + one), PROTOCOL_ERROR)
            for n in {1, len(one) // 2, len(one) - 1}:
                yield case(f"{title} cut at {n}", having(name, one[:n]), MALFORMED)
            if kind in ("text", "binary", "pair", "topic"):
                for n in (300, 65535):
                    far = bytes((number,)) + n.to_bytes(2, "big") + b"abc"
                    yield case(f"{title} of {n} in 3", having(name, far), MALFORMED)
            values = BAD_VALUES.get(kind, ())
            if len(values) > 9 and name != "PUBLISH":  # all of them in one packet, some in all
                values = values[number % 5 :: 5]
            for value, code in values:
                bad = bytes((number,)) + value
                yield case(f"{title}: {value}", having(name, bad), code)
        for number in {0, 4, 10, 16, 27, 43, 44, 64, 127, 128, 129, 166, 255} - KNOWN:
            bad = bytes((number, 0, 0, 0, 0))
            yield case(f"property 0x{number:02x}", having(name, bad), MALFORMED)
        pair = b"\x26" + VALUES["pair"]
        longer = having(name, pair, varint(len(pair) + 30))
        yield case("properties beyond the packet", longer, MALFORMED)
        for length in (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\1", b"\x8e\0"):
            bad = having(name, pair, length)
            yield case(f"properties' length {length.hex()}", bad, MALFORMED)
        if name != "PUBLISH":
            bad = having(name, pair)
            if name in ("SUBACK", "UNSUBACK"):
                bad = packet(bad[0], bad[2:-1])
                yield case("no reason code", bad, MALFORMED)
            else:
                bad = packet(bad[0], bad[2:] + b"\0")
                yield case("a byte after the properties", bad, MALFORMED)


def accepted():
    """Yield (name, packet) with every property that it may have; several where it may."""
    for name in PROPERTIED:
        own = b""
        for title, (number, kind, packets) in PROPERTIES.items():
            if name in packets.split() and kind != "alias" and not title.startswith("auth"):
                own += (bytes((number,)) + VALUES[kind]) * (1 + (kind in ("pair", "varint")))
        yield name, having(name, own)


# Garbage


def garbage(protocol, seed, count):
    """Yield cases of random bytes, and of good packets with some bytes changed; no reason code."""
    dice = random.Random(seed)
    goods = list(GOOD[protocol].values())
    goods += [message(protocol, b"a/b", b"payload", qos, 9) for qos in (1, 2)]
    if protocol == 5:
        goods += [sent for _, sent in accepted()]
    for n in range(count):
        if n % 3 == 0:
            sent = dice.randbytes(int(5000 ** dice.random()))
        elif n % 3 == 1:
            first = dice.choice([good[0] for good in goods])
            sent = packet(first, dice.randbytes(dice.randrange(64)))
        else:
            bad = bytearray(dice.choice(goods))
            for _ in range(dice.randrange(1, 4)):
                bad[dice.randrange(len(bad))] = dice.randrange(256)
            sent = bytes(bad) + b"".join(dice.choices(goods, k=3))
        yield f"garbage {seed}.{n}: {sent[:40].hex()}", sent, None
