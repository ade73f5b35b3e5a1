"""
What a broker sends to the client that is fuzzed: made by the grammar of the packets of a server,
from a seed.

An input is one line of text, so that a file of them can be read and replayed:

    PROTOCOL OPTIONS CONNECTION CONNECTION ...

PROTOCOL    4 or 5
OPTIONS     letters, - for none: r the last, good connection resumes the session; s a handler
            reads streams; u messages that no handler claims are unclaimed, else an iterator takes
            them; a enhanced authentication (MQTT 5)
CONNECTION  FLAGS:PIECE,PIECE,... the connections of a client, one after the other, until the
            broker closes them or the client does
FLAGS       letters, - for none: p session present, if it was asked for; e the pieces come in the
            place of CONNACK, else after it; w the network takes few bytes at a time
PIECE       hex, what one read brings (at most)
"""

import random

from tests.support import bad_packets as bad
from tests.support.five import field, varint

# What the client has under way on its first connection, see tests/device/fuzzed.py
SUBSCRIBE_ID, OUT_1, OUT_2, OUT_3, UNSUBSCRIBE_ID = range(1, 6)
SUBSCRIBED = 2  # topic filters in its SUBSCRIBE
MAX_PACKET = 700  # more than the buffer of a decoder, so that it takes a larger one
ALIASES = 4  # the topic alias maximum
ACCEPT = {4: b"\x20\2\0\0", 5: b"\x20\3\0\0\0"}

TOPICS = (
    b"a/x",
    b"b/y",
    b"b/z",
    b"c",
    b"z",
    b"a/" + "\u00e4\u6c34\U0001f4a7".encode(),
    b"$SYS/a",
    b"/",
)
STREAMED = b"s/firmware"


class Packet:
    """
    A packet as its parts, so that a mutation knows what it changes.

    first   int
    parts   list of bytearray (as it is), Text and Properties
    length  bytes in the place of the Remaining Length; None: the right one
    """

    def __init__(self, first, *parts):
        self.first = first
        self.parts = [bytearray(p) if isinstance(p, bytes) else p for p in parts]
        self.length = None

    def body(self):
        return b"".join([bytes(part) for part in self.parts])

    def __bytes__(self):
        body = self.body()
        length = varint(len(body)) if self.length is None else self.length
        return bytes((self.first,)) + length + body


class Text:
    """A field behind two bytes of length (`length`: int in their place)."""

    def __init__(self, data, length=None):
        self.data = data
        self.length = length

    def __bytes__(self):
        n = len(self.data) if self.length is None else self.length
        return (n & 0xFFFF).to_bytes(2, "big") + self.data


class Properties:
    """Properties of MQTT 5 (list of bytes) behind their length (`length`: bytes in its place)."""

    def __init__(self, items=(), length=None):
        self.items = list(items)
        self.length = length

    def __bytes__(self):
        data = b"".join(self.items)
        return (varint(len(data)) if self.length is None else self.length) + data


def u16(n):
    return bytearray(n.to_bytes(2, "big"))


class Grammar:
    """
    Packets that a server may send.

    dice      random.Random
    protocol  4 or 5
    """

    def __init__(self, dice, protocol):
        self.dice = dice
        self.protocol = protocol
        self.five = protocol == 5

    def id(self):
        """One that the client has under way, or a server would use; seldom another."""
        dice = self.dice
        if dice.random() < 0.9:
            return dice.randint(1, 9)
        return dice.choice((10, 255, 256, 1000, 60000, 65535))

    def text(self):
        dice = self.dice
        kind = dice.random()
        if kind < 0.7:
            return b"text"[: dice.randint(0, 4)]
        if kind < 0.9:
            return "\u00e9\u6c34\U0001f4a7\ufeff\u0001"[: dice.randint(1, 5)].encode()
        return b"x" * dice.choice((30, 127, 128, 200))

    def value(self, kind):
        """Return the bytes of a property's value; `kind` is one of bad_packets.VALUES."""
        dice = self.dice
        if kind == "bool":
            return dice.choice((b"\0", b"\1"))
        if kind.startswith(("two", "four", "alias")):
            n = 2 if kind[:4] != "four" else 4
            low = 1 if "not 0" in kind or kind == "alias" else 0
            high = ALIASES if kind == "alias" else (1 << 8 * n) - 1
            number = dice.choice((low, high, dice.randint(low, min(high, 30))))
            return number.to_bytes(n, "big")
        if kind == "varint":
            return varint(dice.choice((1, 127, 128, 16383, 16384, 268435455)))
        if kind == "topic":
            return field(b"answer/" + self.text())
        if kind == "pair":
            return field(self.text()) + field(self.text())
        return field(self.text())

    def properties(self, name, alias=True):
        """Return Properties that the packet `name` may have."""
        dice = self.dice
        items = []
        if dice.random() < 0.5:
            names = [n for n, (_, _, packets) in bad.PROPERTIES.items() if name in packets.split()]
            for title in dice.sample(names, min(len(names), dice.randint(1, 4))):
                number, kind, _ = bad.PROPERTIES[title]
                if title.startswith("auth") or title == "assigned client identifier":
                    continue  # nobody asked for it
                if kind == "alias" and not alias:
                    continue
                times = dice.randint(1, 3) if kind in ("pair", "varint") else 1
                items += [bytes((number,)) + self.value(kind) for _ in range(times)]
            dice.shuffle(items)
        return Properties(items)

    def publish(self, packet_id=None, streamed=False):
        dice = self.dice
        qos = dice.choice((0, 1, 1, 2))
        first = 0x30 | qos << 1 | dice.randint(0, 1)
        if qos and dice.random() < 0.2:
            first |= 8
        parts = [Text(STREAMED if streamed else dice.choice(TOPICS))]
        if qos:
            parts.append(u16(self.id() if packet_id is None else packet_id))
        if self.five:
            properties = self.properties("PUBLISH")
            if [i for i in properties.items if i[0] == 0x23] and dice.random() < 0.3:
                properties.items = [i for i in properties.items if i[0] != 0x23]
            parts.append(properties)
        size = dice.choice((0, 1, 5, 20, 100, 127, 128, 600))
        if streamed:
            size = dice.choice((MAX_PACKET, 600, 1500))
        parts.append(bytes(dice.getrandbits(8) for _ in range(min(size, 5))).ljust(size, b"."))
        return Packet(first, *parts)

    def acknowledgement(self, name, packet_id=None):
        first = bad.GOOD[4][name][0]
        parts = [u16(self.id() if packet_id is None else packet_id)]
        if self.five and self.dice.random() < 0.7:
            parts.append(bytes((self.dice.choice(sorted(bad.allowed(name))),)))
            if self.dice.random() < 0.7:
                parts.append(self.properties(name))
        return Packet(first, *parts)

    def answer(self, name, packet_id=None, count=None):
        """Return a SUBACK or UNSUBACK."""
        parts = [u16(self.id() if packet_id is None else packet_id)]
        if self.five:
            parts.append(self.properties(name))
        if self.five or name == "SUBACK":
            codes = sorted(bad.allowed(name)) if self.five else (0, 1, 2, 128)
            count = count or (SUBSCRIBED if name == "SUBACK" else 1)
            parts.append(bytes(self.dice.choices(codes, k=count)))
        return Packet(bad.GOOD[4][name][0], *parts)

    def connack(self):
        code = 0
        if self.dice.random() < 0.2:
            codes = bad.allowed("CONNACK") if self.five else range(6)
            code = self.dice.choice(sorted(codes))
        parts = [bytes((not code and self.dice.random() < 0.2, code))]
        if self.five:
            parts.append(self.properties("CONNACK"))
        return Packet(0x20, *parts)

    def closing(self, name):
        """Return a DISCONNECT or AUTH of MQTT 5."""
        dice = self.dice
        first = {"DISCONNECT": 0xE0, "AUTH": 0xF0}[name]
        if dice.random() < 0.2:
            return Packet(first)
        properties = self.properties(name)
        if name == "AUTH":
            properties.items += [b"\x15\0\1m", b"\x16\0\1x"][: dice.randint(1, 2)]
        return Packet(first, bytes((dice.choice(sorted(bad.allowed(name))),)), properties)

    def any(self):
        """Return a packet of any type, that may or may not fit in here."""
        name = self.dice.choice(
            ("PUBLISH",) * 5
            + ("PUBACK", "PUBREC", "PUBREC", "PUBREL", "PUBREL", "PUBCOMP")
            + ("SUBACK", "SUBACK", "UNSUBACK", "PINGRESP", "CONNACK")
            + (("DISCONNECT", "AUTH") if self.five else ())
        )
        if name == "PUBLISH":
            return self.publish(streamed=self.dice.random() < 0.1)
        if name in ("SUBACK", "UNSUBACK"):
            first = SUBSCRIBE_ID if name == "SUBACK" else UNSUBSCRIBE_ID
            return self.answer(name, first if self.dice.random() < 0.7 else None)
        if name == "PINGRESP":
            return Packet(0xD0)
        if name == "CONNACK":
            return self.connack()
        if name in ("DISCONNECT", "AUTH"):
            return self.closing(name)
        return self.acknowledgement(name)


class Connection:
    """What the broker does on one connection; see the top of this file."""

    def __init__(self, flags, pieces):
        self.flags = flags
        self.pieces = pieces


class Input:
    """An input; see the top of this file."""

    def __init__(self, protocol, options, connections):
        self.protocol = protocol
        self.options = options
        self.connections = connections

    @classmethod
    def parse(cls, line):
        """Return the Input of a line of text."""
        protocol, options, *connections = line.split()
        return cls(
            int(protocol),
            options.strip("-"),
            [
                Connection(
                    each.partition(":")[0].strip("-"),
                    [bytes.fromhex(piece) for piece in each.partition(":")[2].split(",") if piece],
                )
                for each in connections
            ],
        )

    def __str__(self):
        connections = [
            (each.flags or "-") + ":" + ",".join([piece.hex() for piece in each.pieces])
            for each in self.connections
        ]
        return " ".join([str(self.protocol), self.options or "-", *connections])

    @property
    def size(self):
        """Bytes that the broker sends."""
        return sum(len(piece) for each in self.connections for piece in each.pieces)


def split(dice, data):
    """Return `data` in pieces: whole, in single bytes, or anything between."""
    how = dice.random()
    if how < 0.6 or not data:
        return [data] if data else []
    if how < 0.7 and len(data) < 60:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(dice.sample(range(len(data) + 1), min(len(data), dice.randint(1, 4))))
    edges = [0, *cuts, len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False) if a < b]


def fits(packet):
    return len(bytes(packet)) <= MAX_PACKET


def legal(seed):
    """
    Return (Input, for each connection what has to be sent for what came): a broker that breaks no
    rule. That is two lists of (first byte, packet id): the acknowledgements of messages, and the
    answers to PUBREC and PUBREL, each in its order.
    """
    dice = random.Random(f"legal {seed}")
    grammar = Grammar(dice, dice.choice((4, 5)))
    connections = []
    acks = []
    packet_id = dice.choice((1, 100, 60000))
    for number in range(dice.randint(1, 3)):
        packets = []
        expected = []
        replies = []
        if not number and dice.random() < 0.5:
            packets += [p for p in [grammar.answer("SUBACK", SUBSCRIBE_ID)] if fits(p)]
        for _ in range(dice.randint(0, 8)):
            kind = dice.random()
            if kind < 0.5:
                packet = grammar.publish(packet_id)
                qos = packet.first >> 1 & 3
                packet.first &= 0xF7
                if qos and fits(packet):
                    expected.append((0x30 + 0x10 * qos, packet_id))
                    packet_id += 1
            elif kind < 0.9:
                name = dice.choice(("PUBACK", "PUBREC", "PUBREL", "PUBCOMP"))
                packet = grammar.acknowledgement(name)
                refuses = len(packet.parts) > 1 and packet.parts[1][0] > 127
                if fits(packet) and (name == "PUBREL" or name == "PUBREC" and not refuses):
                    reply = 0x70 if name == "PUBREL" else 0x62
                    replies.append((reply, int.from_bytes(packet.parts[0], "big")))
            else:
                packet = Packet(0xD0)
            if fits(packet):
                packets.append(packet)
        data = b"".join(map(bytes, packets))
        acks.append((expected, replies))
        flags = ("p" if dice.random() < 0.5 else "") + ("w" if dice.random() < 0.1 else "")
        connections.append(Connection(flags, split(dice, data)))
    options = "r" if dice.random() < 0.5 else ""
    return Input(grammar.protocol, options, connections), acks
