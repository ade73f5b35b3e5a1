"""
Plays inputs on the real client under MicroPython (tests/device/fuzzed.py), and judges what it did.
"""

import contextlib
import tempfile
from pathlib import Path

from tests.fuzz.inputs import Connection, Input
from tests.support import bad_packets as bad
from tests.support import mpy
from tests.support.five import varint
from tests.unit.test_packet_properties import Reader
from tests.unit.test_properties_properties import NUMBERS, read, read_length

PROGRAM = mpy.ROOT / "tests" / "device" / "fuzzed.py"
HEAP = "640K"
WEIGHED = 25  # inputs after which the heap is
WEIGHT = "heap 5 - -:"  # the input that it is weighed after: the broker closes, and is back
CODES = (0x81, 0x82, 0x93, 0x94, 0x95)  # that an error of the broker may end a connection with
GROWTH = 64  # bytes of heap in use, over a whole run: what leaks adds up


TITLES = {number: title for title, (number, _, _) in bad.PROPERTIES.items()}


def packets(protocol, data, cut=False):
    """
    Return the packets of a client [(first byte, body)], each as the specification has it.

    cut  bool, the last one may not be whole

    Raises AssertionError.
    """
    found = []
    while data:
        at = 1
        length = shift = 0
        while at < len(data):
            length |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        end = at + length
        if end > len(data) or end < 2:
            assert cut, f"half a packet: {data.hex()}"
            break
        found.append((data[0], data[at:end]))
        check(protocol, data[:end])
        data = data[end:]
    return found


def check(protocol, data):
    """Raise AssertionError unless `data` is one well-formed packet of a client."""
    r = Reader(data)
    first = r.first
    five = protocol == 5

    def properties():
        if five:
            n = read_length(r)
            assert n <= len(r.rest)
            read(r, n)

    if first == 0x10:
        assert (r.string(), r.u8()) == (b"MQTT", protocol)
        r.take(3)
        properties()
        r.string()
    elif first & 0xF0 == 0x30:
        qos = first >> 1 & 3
        assert qos < 3 and (qos or not first & 8)
        r.string().decode()
        assert not qos or r.u16()
        properties()
        r.rest = b""
    elif first in (0x40, 0x50, 0x62, 0x70):
        assert r.u16() or not five  # the id that a server used
        if five and r.rest:
            r.u8()
            if r.rest:
                properties()
    elif first in (0x82, 0xA2):
        assert r.u16()
        properties()
        assert r.rest
        while r.rest:
            assert r.string()
            if first == 0x82:
                r.u8()
    elif five and first in (0xE0, 0xF0):
        if r.rest:
            r.u8()
            if r.rest:
                properties()
    else:
        assert first in (0xC0, 0xE0), f"first byte 0x{first:02x}"
    r.end()


NAMES = {good[0]: name for name, good in bad.GOOD[5].items()}


def properties(r, name):
    """Take the properties of the packet `name` of a server off a Reader."""
    n = read_length(r)
    assert n <= len(r.rest)
    seen = set()
    for title, value in read(r, n):
        number, kind, packets = bad.PROPERTIES[TITLES[NUMBERS[title]]]
        assert name in packets.split(), f"{title} in {name}"
        assert kind in ("pair", "varint") or title not in seen, f"{title} twice"
        seen.add(title)
        assert kind != "bool" or value in (0, 1)
        assert kind not in ("two, not 0", "four, not 0", "varint", "alias") or value
        if kind in ("text", "topic", "pair"):
            assert "\0" not in "".join(value)
        if kind == "topic":
            assert value and "+" not in value and "#" not in value
    return seen


def taken(protocol, connection):
    """Raise AssertionError unless every packet that came whole is one of a server."""
    data = b"".join(connection.pieces)
    while len(data) > 1:
        at = 1
        while at < len(data) and data[at] > 127:
            at += 1
        if at == len(data):
            return
        length = sum((byte & 127) << 7 * i for i, byte in enumerate(data[1 : at + 1]))
        end = at + 1 + length
        assert data[1 : at + 1] == varint(length), "Remaining Length"
        first = data[0]
        name = NAMES.get(0x30 if first & 0xF0 == 0x30 else first)
        assert name in bad.GOOD[protocol], f"packet 0x{first:02x}"
        if end > len(data):
            return
        r = Reader(data[:end])
        data = data[end:]
        if name == "CONNACK":
            assert r.u8() < 2
        if name == "PUBLISH":
            qos = first >> 1 & 3
            assert qos < 3 and (qos or not first & 8)
            topic = r.string().decode()
            assert not set(topic) & set("\0+#")
            assert not qos or r.u16()
            seen = properties(r, name) if protocol == 5 else ()
            assert topic or "topic_alias" in seen
            continue
        if name not in ("CONNACK", "PINGRESP", "DISCONNECT", "AUTH"):
            assert r.u16()
        if name in ("SUBACK", "UNSUBACK"):
            if protocol == 5:
                properties(r, name)
            assert r.rest or (protocol, name) == (4, "UNSUBACK")
            codes = {0, 1, 2, *range(128, 256)}  # over 3.1.1 some refuse with those of MQTT 5
            if protocol == 5:
                codes = bad.allowed(name)
            assert set(r.rest) <= codes
            assert protocol == 5 or name == "SUBACK" or not r.rest
        elif protocol == 4:
            assert name != "CONNACK" or r.u8() < 6
            r.end()
        elif r.rest:
            assert r.u8() in bad.allowed(name)
            if r.rest:
                properties(r, name)
            r.end()


class Record:
    """
    What the device told about an input.

    problem  str, what the device found wrong
    ends     for each connection (class of the error, its code, text, bytes sent)
    """

    def __init__(self, fields):
        self.problem = fields[1]
        rest = fields[2:]
        self.ends = [
            (name, None if code == "None" else int(code), text, bytes.fromhex(sent))
            for name, code, text, sent in zip(*[iter(rest)] * 4, strict=True)
        ]


def judge(given, record, acks=None):
    """
    Return what is wrong (str), "" for nothing.

    given   Input
    record  Record, or None when the interpreter died or hung
    acks    of an input without any fault, the acknowledgements that it has to get
    """
    if record is None:
        return "the interpreter died or hung"
    if record.problem:
        return record.problem
    if len(record.ends) != len(given.connections) + 1:
        return f"{len(record.ends)} connections"
    for number, (end, connection) in enumerate(
        zip(record.ends, [*given.connections, Connection("", [])], strict=True)
    ):
        name, code, text, sent = end
        about = f"connection {number}: "
        narrow = "w" in connection.flags
        try:
            said = packets(given.protocol, sent, narrow)
        except (AssertionError, UnicodeDecodeError, KeyError) as error:
            return f"{about}sent {sent.hex()}: {error!r}"
        if number == len(given.connections):
            break
        closed = name == "ConnectError" and text.startswith(("the broker closed", "handlers are "))
        if not closed and name not in ("ProtocolError", "RefusedError"):
            return f"{about}{name}: {text}"
        goodbye = [body for first, body in said if first == 0xE0]
        expected = []
        if given.protocol == 5 and name == "ProtocolError":
            if code not in (None, *CODES):
                return f"{about}code {code}: {text}"
            expected = [bytes((code or 0x82,))]
        if goodbye != expected and not narrow:
            return f"{about}{name} {text}, and then {goodbye}"
        if closed and text.startswith("the broker closed"):
            try:
                taken(given.protocol, connection)
            except (AssertionError, UnicodeDecodeError, KeyError) as error:
                return f"{about}took what is malformed: {error!r}"
        if acks is not None:
            if not closed:
                return f"{about}{name}: {text}, but nothing was wrong"
            for expected, kinds in zip(acks[number], ((0x40, 0x50), (0x62, 0x70)), strict=True):
                got = [(f, int.from_bytes(body[:2], "big")) for f, body in said if f in kinds]
                # of a session that is taken up again PUBREL is sent, too
                if got[len(got) - len(expected) :] != expected and not narrow:
                    return f"{about}sent {got}, not {expected}"
    return ""


def play(inputs, timeout_s=120, heap=HEAP):
    """
    Play all `inputs` in one interpreter; return Records: a Record for each, None from the one on
    at which it died or hung.
    """
    with tempfile.TemporaryDirectory(prefix="mqtt-fuzz-") as folder:
        path = Path(folder) / "inputs"
        lines = []
        for n, each in enumerate(inputs, 1):
            lines.append(f"{n - 1} {each}")
            if n % WEIGHED == 0:
                lines.append(WEIGHT)
        path.write_text("\n".join([*lines, ""]))
        with mpy.start(PROGRAM, path, heap=heap) as running:
            with contextlib.suppress(AssertionError):
                running.wait(timeout_s)
            result = running.kill()
    records = Records([None] * len(inputs))
    for line in result.out.splitlines():
        fields = line.split("|")
        with contextlib.suppress(ValueError, IndexError):
            if fields[0] == "heap":
                records.heaps.append(int(fields[1]))
            else:
                records[int(fields[0])] = Record(fields)
    records.errors = result.err + "\n".join(result.out.splitlines()[-5:])
    return records


class Records(list):
    """
    errors  str, what the interpreter wrote to stderr, and its last lines
    heaps   list of int, bytes that were in use after each WEIGHED inputs
    """

    def __init__(self, records=()):
        super().__init__(records)
        self.errors = ""
        self.heaps = []


def grown(heaps):
    """Return by how many bytes the heap grew (list of int, of Records)."""
    tenth = max(1, len(heaps) // 10)
    return min(heaps[-tenth:]) - min(heaps[tenth : 2 * tenth])


def verdict(given, acks=None):
    """Play one input alone; return what is wrong."""
    return judge(given, play([given], timeout_s=20)[0], acks)


def kind(text):
    """Return what two verdicts on the same fault have in common."""
    return "".join([c for c in text.split(":")[-1] if not c.isdigit()])[:40] if text else ""


def smaller(given):
    """Yield inputs that are a little smaller than `given`."""
    connections = given.connections

    def having(new):
        return Input(given.protocol, given.options, new)

    for i, each in enumerate(connections):
        before, after = connections[:i], connections[i + 1 :]
        yield having(before + after)
        if len(each.pieces) > 1:
            yield having([*before, Connection(each.flags, [b"".join(each.pieces)]), *after])
        for letter in each.flags:
            yield having(
                [*before, Connection(each.flags.replace(letter, ""), each.pieces), *after]
            )
        for j, piece in enumerate(each.pieces):
            step = max(1, len(piece) // 2)
            while True:
                for at in range(0, len(piece), step):
                    pieces = [*each.pieces]
                    pieces[j] = piece[:at] + piece[at + step :]
                    pieces = [p for p in pieces if p]
                    yield having([*before, Connection(each.flags, pieces), *after])
                if step == 1:
                    break
                step //= 2
    for letter in given.options:
        yield Input(given.protocol, given.options.replace(letter, ""), connections)


def minimised(given, rounds=30):
    """Return the smallest input found that has the same fault as `given`."""
    wanted = kind(verdict(given))
    if not wanted:
        return given
    for _ in range(rounds):
        tries = list(smaller(given))
        found = None
        while tries and not found:
            part, tries = tries[:200], tries[200:]
            records = play(part, timeout_s=60)
            for number, each in enumerate(part):
                if records[number] is None:  # what killed or hung it: the rest was not played
                    if kind(verdict(each)) == wanted:
                        found = each
                    tries = part[number + 1 :] + tries
                    break
                if kind(judge(each, records[number])) == wanted:
                    found = each
                    break
        if not found:
            break
        given = found
    return given
