"""
Mutations of what the grammar makes: of the parts of a packet, of its bytes, of the order and the
moment of packets. From a seed, always the same.
"""

import random

from tests.fuzz.inputs import (
    ALIASES,
    MAX_PACKET,
    Connection,
    Grammar,
    Input,
    Packet,
    Properties,
    Text,
    split,
)
from tests.support import bad_packets as bad
from tests.support.five import varint

LENGTHS = (  # Remaining and Property Lengths that lie, or are written wrongly
    b"\0", b"\1", b"\2", b"\x7f", b"\x80\0", b"\x80\1", b"\xff\x7f", b"\x80\x80\0",
    b"\xff\xff\x7f", b"\x80\x80\x80\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x7f", b"\x80\x80\x80\x80\0", b"\x80\x80\x80\x80\1",
)  # fmt: skip
TEXTS = (
    *bad.BAD_TEXTS.values(), b"", b"+", b"#", b"a/+", b"a/#/b", b"\xef\xbb\xbf", b"\xed\x9f\xbf",
    b"\xee\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf0\x90\x80\x80", b"x" * 300, "\u6c34".encode() * 100,
)  # fmt: skip
LONGEST = 3000  # bytes on a connection
IDENTIFIERS = sorted({*bad.KNOWN, 0, 4, 7, 10, 43, 63, 64, 127, 128, 166, 255})


def other_length(dice, part):
    part.length = dice.choice(LENGTHS)
    if dice.random() < 0.5:
        right = len(part.body()) if isinstance(part, Packet) else len(b"".join(part.items))
        part.length = varint(max(0, right + dice.choice((-9, -2, -1, 1, 2, 9, 200))))


def change_first(dice, packet):
    if dice.random() < 0.5:
        packet.first ^= 1 << dice.randrange(8)
    else:
        packet.first = dice.randrange(256)


def change_length(dice, packet):
    other_length(dice, packet)


def change_text(dice, packet):
    texts = [part for part in packet.parts if isinstance(part, Text)]
    if texts:
        text = dice.choice(texts)
        if dice.random() < 0.5:
            text.data = dice.choice(TEXTS)
        else:
            n = len(text.data)
            text.length = dice.choice((0, 1, n - 1, n + 1, n + 2, n + 9, 255, 256, 65535))


def change_properties(dice, packet):
    blocks = [part for part in packet.parts if isinstance(part, Properties)]
    if not blocks:
        return
    block = dice.choice(blocks)
    items = block.items
    kind = dice.randrange(8)
    if kind == 0:
        other_length(dice, block)
    elif kind == 1 and items:  # twice
        items.insert(dice.randint(0, len(items)), dice.choice(items))
    elif kind == 2 and items:  # cut
        i = dice.randrange(len(items))
        items[i] = items[i][: dice.randint(0, len(items[i]))]
    elif kind == 3 and items:  # of another kind
        i = dice.randrange(len(items))
        items[i] = bytes((dice.choice(IDENTIFIERS),)) + items[i][1:]
    elif kind == 4:  # for another packet, or with a bad value
        _, (number, kind, _) = dice.choice(list(bad.PROPERTIES.items()))
        values = [value for value, _ in bad.BAD_VALUES.get(kind, ())] + [bad.VALUES[kind]]
        items.insert(dice.randint(0, len(items)), bytes((number,)) + dice.choice(values))
    elif kind == 5:  # many
        pair = b"\x26\0\0\0\0" if dice.random() < 0.5 else b"\x0b\1"
        items += [pair] * dice.choice((63, 64, 65, 90))
    elif kind == 6:  # a length that lies
        number = dice.choice(
            [n for n, kind, _ in bad.PROPERTIES.values() if kind in ("text", "binary")]
        )
        n = dice.choice((1, 4, 300, 65535))
        items.append(bytes((number,)) + n.to_bytes(2, "big") + b"abc")
    else:  # an alias
        alias = dice.choice((0, 1, 2, ALIASES, ALIASES + 1, 65535))
        items.append(b"\x23" + alias.to_bytes(2, "big"))
        if dice.random() < 0.5:
            packet.parts[0] = Text(b"")


def change_parts(dice, packet):
    parts = packet.parts
    if not parts:
        parts.append(bytearray(dice.randbytes(dice.randint(1, 9))))
        return
    i = dice.randrange(len(parts))
    kind = dice.randrange(4)
    if kind == 0:
        del parts[i]
    elif kind == 1:
        parts.insert(i, parts[i])
    elif kind == 2:
        dice.shuffle(parts)
    else:
        parts.insert(dice.randint(0, len(parts)), bytearray(dice.randbytes(dice.randint(1, 5))))


def change_number(dice, packet):
    """A packet id, flags or reason codes."""
    numbers = [part for part in packet.parts if isinstance(part, bytearray) and part]
    if numbers:
        number = dice.choice(numbers)
        i = dice.randrange(len(number))
        number[i] = dice.choice((0, 1, 2, 7, 127, 128, 255, dice.randrange(256)))
        if dice.random() < 0.2:
            number[:] = bytes(len(number))


CHANGES = (
    change_first,
    change_length,
    change_text,
    change_text,
    change_properties,
    change_properties,
    change_properties,
    change_parts,
    change_number,
)


def damage(dice, data):
    """Return bytes that differ from `data` in a few places."""
    data = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        i = dice.randrange(len(data))
        kind = dice.randrange(6)
        if kind == 0:
            data[i] ^= 1 << dice.randrange(8)
        elif kind == 1:
            data[i] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        elif kind == 2:
            del data[i : i + dice.choice((1, 1, 2, 9))]
        elif kind == 3:
            data[i:i] = dice.randbytes(dice.choice((1, 1, 2, 9)))
        elif kind == 4:
            del data[i:]
        else:
            n = dice.choice((2, 4, 16))
            data[i : i + n] = data[i : i + n] * 2
    return bytes(data)


def rearrange(dice, packets, grammar):
    """Change the order of `packets` (list of bytes), or what is among them."""
    i = dice.randrange(len(packets))
    kind = dice.randrange(6)
    if kind == 0:
        packets.insert(dice.randint(0, len(packets)), packets[i])
    elif kind == 1:
        dice.shuffle(packets)
    elif kind == 2:
        packets[i:i] = [packets[i]] * dice.choice((2, 8, 40))
    elif kind == 3:  # what only a client sends
        clients = bad.CLIENTS[grammar.protocol]
        packets.insert(i, clients[dice.choice(sorted(clients))])
    elif kind == 4:  # too large
        n = dice.choice((MAX_PACKET - 4, MAX_PACKET, MAX_PACKET + 1, 1000, 70000, 268435455))
        packets.append(b"\x30" + varint(n) + b"\0\3a/x" + b"x" * dice.randint(0, 600))
    else:
        packets.insert(i, dice.randbytes(dice.choice((1, 2, 5, 30))))


def mutated(seed):
    """Return the Input of `seed` (any number): packets of the grammar, changed here and there."""
    dice = random.Random(f"mutated {seed}")
    protocol = dice.choice((4, 5, 5))
    grammar = Grammar(dice, protocol)
    connections = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        early = dice.random() < 0.2
        packets = [grammar.any() for _ in range(dice.randint(1, 6))]
        if early and dice.random() < 0.7:
            packets.insert(0, grammar.connack())
        for _ in range(dice.choice((0, 1, 1, 2, 3))):
            dice.choice(CHANGES)(dice, packets[0 if early else dice.randrange(len(packets))])
        data = [bytes(packet) for packet in packets]
        if dice.random() < 0.3:
            rearrange(dice, data, grammar)
        stream = b"".join(data)[:LONGEST]
        if dice.random() < 0.3:
            stream = damage(dice, stream)
        flags = ("p" if dice.random() < 0.5 else "") + ("e" if early else "")
        flags += "w" if dice.random() < 0.1 else ""
        connections.append(Connection(flags, split(dice, stream)))
    options = "".join(
        [
            letter
            for letter, chance in (("r", 0.5), ("s", 0.2), ("u", 0.1))
            if dice.random() < chance
        ]
    )
    if protocol == 5 and dice.random() < 0.1:
        options += "a"
    return Input(protocol, options, connections)
