"""
Packets that no server may send, one a connection: the client says which rule was broken, closes,
and goes on with its session on the next connection.
"""

import re

import pytest

from tests.support import apps
from tests.support import bad_packets as bad
from tests.support.bad_packets import TOO_LARGE, connack, message, packet
from tests.support.fake_broker import FakeBroker

BOTH = pytest.mark.parametrize("protocol", [4, 5])
BYE = (0xE0, b"")
# bytes that a connection may take: its own, a packet as it came, and once more its topic or payload
ROOM = 8192 + 2 * bad.MAX_PACKET

APP = """
class Watched:
    # every reconnect at once; what ended a connection, and the bytes taken meanwhile, in order

    def __init__(self):
        self.failed = failing.failed
        failing.failed = self
        failing._explained = lambda error: ""  # a module is loaded for it, every time
        self.base = None

    def __call__(self, client, error):
        took = 0 if self.base is None else gc.mem_alloc() - self.base
        self.failed(client, error)
        said = type(error).__name__, getattr(error, "code", None), took, repr(str(error))
        error = None
        gc.collect()
        self.base = gc.mem_alloc()
        print("end", self.base, *said)
        return 0


async def main():
    soonest()
    watched = Watched()
    protocol = int(sys.argv[2])
    client = make(protocol=protocol, log=None, **eval(sys.argv[3]))
    received = []

    @client.on("end", qos=1)
    def handler(message):
        received.append(message.payload)

    async with client:
        await until(lambda: received)
        await client.publish("out", "x", qos=1)
"""


class Server(FakeBroker):
    """
    Plays one case a connection, between a good connection and a last good exchange.

    cases  list of (before CONNACK: bool, (name, bytes, reason code))

    ends     list: the packets that the client sent after its CONNECT, for each case
    hellos   list of the flags of every CONNECT
    """

    def __init__(self, protocol, cases, pieces=False, close=False):
        self.protocol = protocol
        self.cases = cases
        self.ends = []
        self.hellos = []
        self._pieces = pieces
        self._close = close
        super().__init__(self._play)

    def _play(self, connection):
        number = connection.number - 2
        first, body = connection.packet()
        assert first == 0x10
        self.hellos.append(body[7])
        present = connack(self.protocol, connection.number > 1)
        if number < 0:
            connection.send(present)
            first, body = connection.packet()
            end = b"\0" if self.protocol == 5 else b""
            connection.send(packet(0x90, body[:2] + end + b"\1"))
        elif number < len(self.cases):
            early, (_, data, _) = self.cases[number]
            self.ends.append(self._end(connection, data if early else present + data))
        else:
            connection.send(present)
            connection.send(message(self.protocol, b"end", b"bye", 1, 3))
            assert connection.packet() == (0x40, b"\0\3")
            first, body = connection.packet()
            assert first == 0x32 and body[:5] == b"\0\3out", (first, body)
            connection.send(packet(0x40, body[5:7]))
            assert connection.until_closed() == [BYE]

    def _end(self, connection, data):
        packets = []
        connection.sock.settimeout(10)
        try:
            if self._pieces:
                for i in range(len(data)):
                    connection.send(data[i : i + 1])
            else:
                connection.send(data)
            if self._close:
                connection.sock.shutdown(1)
        except OSError:
            pass  # closed by the client, and what it said can be read
        try:
            while True:
                packets.append(connection.packet())
        except TimeoutError:
            packets.append("still open")
        except OSError:
            pass
        return packets

    def play(self, options="{}", timeout_s=60):
        """Run the client through all cases; return [(class, code, bytes, text)], one a case."""
        with self:
            args = self.port, self.protocol, options
            try:
                out = apps.check(APP, *args, timeout_s=timeout_s, heap="8M")
            except AssertionError as error:
                said = str(error)  # a line a case
                raise (self._errors or [AssertionError(said[:500] + said[-3000:])])[0] from None
        ends = re.findall(r"^end (\d+) (\w+) (\w+) (-?\d+) (.*)$", out, re.M)
        assert len(ends) == len(self.cases) + 1, out[-2000:]
        bases = [int(end[0]) for end in ends]
        grown = min(bases[-20:]) - min(bases[:20])
        assert grown < 1024, f"{grown} bytes more than before"
        # 3.1.1 asks for the session at every CONNECT, 5 at all but the first of a process
        assert self.hellos[0] & 2 == (2 if self.protocol == 5 else 0)
        assert not [flags for flags in self.hellos[1:] if flags & 2]
        return [(name, code, int(took), text) for _, name, code, took, text in ends[1:]]


def refused(protocol, cases, options="{}", **how):
    """Play `cases` and assert that each ends the connection as it has to."""
    cases = list(cases)
    server = Server(protocol, cases, **how)
    wrong = []
    told = server.play(options)
    for (_, (name, _, code)), end, (error, _, took, text) in zip(
        cases, server.ends, told, strict=True
    ):
        # 3.1.1 has no word for it, and DISCONNECT would discard the will
        expected = [(0xE0, bytes((code,)))] if protocol == 5 else []
        if (error, end) != ("ProtocolError", expected):
            wrong.append(f"{name}: {error} {text}, the server got {end}")
        elif code != TOO_LARGE and not re.search(r"section|MQTT-", text):
            wrong.append(f"{name}: {text} names no section")
        elif took > ROOM and not how:  # in pieces it turns over more
            wrong.append(f"{name}: took {took} bytes")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)}", *wrong])


def late(cases):
    """Those after CONNACK."""
    return [(False, case) for case in cases]


@BOTH
def test_a_wrong_packet_ends_the_connection_and_nothing_else(protocol):
    """
    MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-2.2.2-2], [MQTT-2.3.1-1], [MQTT-3.3.1-2],
    [MQTT-3.3.1-4], [MQTT-3.3.2-2], [MQTT-4.7.3-1], [MQTT-4.8.0-1]
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.5-1], [MQTT-2.1.3-1], [MQTT-3.3.1-2],
    [MQTT-3.3.1-4], [MQTT-3.3.2-1], [MQTT-3.3.2-2], [MQTT-3.6.1-1], [MQTT-3.14.1-1],
    [MQTT-3.15.1-1], [MQTT-4.7.0-1], [MQTT-4.7.3-1], [MQTT-4.13.2-1]
    """
    cases = late(bad.headers(protocol)) + late(bad.bodies(protocol))
    cases += [(True, case) for case in bad.connacks(protocol)]
    refused(protocol, cases)


@BOTH
def test_a_wrong_packet_is_wrong_in_single_bytes_too(protocol):
    cases = late(bad.headers(protocol))[::5] + late(bad.bodies(protocol))[::2]
    cases += [(True, case) for case in bad.connacks(protocol)][::2]
    refused(protocol, cases, pieces=True)


def test_a_reason_code_that_the_packet_cannot_have_ends_the_connection():
    """
    MQTT 5.0: [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.14.2-1],
    [MQTT-3.15.2-1]
    """
    refused(5, bad.reason_codes())


def test_a_wrong_property_ends_the_connection():
    """
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.5-1], [MQTT-1.5.7-1], [MQTT-2.2.2-1],
    [MQTT-3.3.2-8], [MQTT-3.3.2-13], [MQTT-3.3.2-14], [MQTT-3.3.2-19]
    """
    refused(5, bad.properties())
