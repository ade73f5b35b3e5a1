"""
MicroPython: the real client on top of a socket that is a Python object, for thousands of inputs
in a process. `python -m tests.fuzz.run` writes the inputs and judges what is told here.

    micropython fuzzed.py FILE

Each line of FILE is an input, as tests/fuzz/inputs.py describes it. Every input has a client of
its own: it goes through the connections of the input, and then through a good one on which
everything has to work. For each input a line is printed, fields separated by |

number, what is wrong ("" nothing), then for each connection
class of the error that ended it, its code, text, hex of what was sent

An input whose number is "heap" is there to be weighed after it, as what others leave for the next
one to clear differs: heap|bytes in use.

A heap that is not much larger than what is in use shows what takes memory for a length that lies.
"""

import asyncio
import gc
import os
import sys
import time
from asyncio import core

from mqtt_as_tls import MQTTClient, packet, retry, transport
from mqtt_as_tls.errors import MQTTError
from tests.device.app import Soonest
from tests.device.inside import load_everything

HANG_MS = int(5000 * float(os.getenv("TEST_PATIENCE") or 1))
ROUNDS = 12  # turns of every task before the broker goes on
PROBES = (b"a/probe", b"b/probe", b"probe")
PROBE_ID = 60001

MAX_PACKET = 700  # more than the buffer of a decoder, so that it takes a larger one


class Socket:
    """
    The socket of one connection, and the broker's end of it.

    protocol  4 or 5
    present   bool, the broker claims to have the session, if it was asked for
    early     bool, the pieces come in the place of CONNACK
    pieces    list of bytes that the broker sends, each when the one before was read
    narrow    bool, a write takes few bytes, or none
    broker    bool, it is a good broker: it answers what comes
    """

    properties = b""  # of a good CONNACK

    def __init__(self, protocol, present, early, pieces, narrow=False, broker=False):
        self.protocol = protocol
        self.present = present
        self.early = early
        self.pieces = pieces
        self.narrow = narrow
        self.broker = broker
        self.input = b""
        self.sent = b""  # by the client
        self.kept = b""
        self.greeted = self.ended = self.closed = False
        self.turn = 0
        self.acks = []  # (first byte, packet id) of the client

    # What transport.py uses

    def setblocking(self, yes):
        pass

    def setsockopt(self, *args):
        pass

    def connect(self, address):
        pass

    def recv(self, n):
        raise OSError(11)

    def ready(self, writing):
        """Return whether a task that waits for it may go on."""
        return writing or self.input or self.ended

    def readinto(self, view):
        n = min(len(view), len(self.input))
        if n:
            view[:n] = self.input[:n]
            self.input = self.input[n:]
            return n
        return 0 if self.ended else None

    def write(self, buf):
        n = len(buf)
        if self.narrow:
            self.turn += 1
            n = min(n, self.turn % 3 * 5)
            if not n:
                return None
        self.sent += buf[:n]
        self.kept += buf[:n]
        while True:
            packet = self.packet()
            if not packet:
                break
            if packet[0] == 0x10:
                self.hello(packet)
            elif self.broker:
                self.answer(packet)
        return n

    def close(self):
        self.closed = True

    # The broker

    def probed(self):
        """Return the acknowledgements of the probes."""
        return [ack for ack in self.acks if ack[1] >= PROBE_ID]

    def packet(self):
        """Take the next whole packet off what came; None when there is none."""
        kept = self.kept
        at = 1
        length = shift = 0
        while True:
            if at >= len(kept):
                return None
            length |= (kept[at] & 127) << shift
            shift += 7
            at += 1
            if kept[at - 1] < 128:
                break
        if len(kept) < at + length:
            return None
        self.kept = kept[at + length :]
        return kept[0], kept[at : at + length]

    def hello(self, packet):
        self.greeted = True
        if self.early:
            return
        present = self.present and not packet[1][7] & 2
        five = self.protocol == 5
        more = bytes((len(self.properties),)) + self.properties if five else b""
        self.input += bytes((0x20, 2 + len(more), present, 0)) + more
        if self.broker:
            for i, topic in enumerate(PROBES):
                self.input += probe(topic, PROBE_ID + i, five)

    def answer(self, packet):
        first, body = packet
        five = self.protocol == 5
        kind = first & 0xF0
        packet_id = body[:2]
        if kind == 0x30:
            qos = first >> 1 & 3
            if qos:
                n = 2 + (body[0] << 8 | body[1])
                self.input += bytes((0x30 + 0x10 * qos, 2)) + body[n : n + 2]
        elif first == 0x62:
            self.input += b"\x70\2" + packet_id
        elif kind in (0x40, 0x50, 0x70):
            self.acks.append((kind, body[0] << 8 | body[1]))
        elif first in (0x82, 0xA2):
            at = 3 if five else 2
            codes = b""
            while at < len(body):
                at += 2 + (body[at] << 8 | body[at + 1])
                if first == 0x82:
                    codes += bytes((body[at] & 3,))
                    at += 1
                elif five:
                    codes += b"\0"
            codes = packet_id + (b"\0" if five else b"") + codes
            self.input += bytes((0x90 if first == 0x82 else 0xB0, len(codes))) + codes


def probe(topic, packet_id, five):
    body = bytes((0, len(topic))) + topic + bytes((packet_id >> 8, packet_id & 255))
    body += b"\0probe" if five else b"probe"
    return bytes((0x32, len(body))) + body


class Waiting:
    """
    In the place of asyncio's poller, which takes 1 ms for each look at what is no file: the tasks
    that wait for a Socket.
    """

    def __init__(self):
        self.map = []  # (task, Socket, bool: it waits to write)

    def queue_read(self, s):
        self.map.append((core.cur_task, s, False))
        core.cur_task.data = self

    def queue_write(self, s):
        self.map.append((core.cur_task, s, True))
        core.cur_task.data = self

    def remove(self, task):
        self.map = [each for each in self.map if each[0] is not task]

    def wait_io_event(self, dt):
        ready = [each for each in self.map if each[1].ready(each[2])]
        for each in ready:
            self.map.remove(each)
            core._task_queue.push(each[0])
        if dt and not ready:
            time.sleep_ms(1)


class Network:
    """In the place of `socket`: the connections of the input that is played."""

    TCP_NODELAY = 1

    def begin(self, sockets):
        self.sockets = sockets
        self.at = 0

    def socket(self):
        self.at += 1
        return self.sockets[min(self.at, len(self.sockets)) - 1]

    def getaddrinfo(self, address, port):
        return [(0, 0, 0, "", (address, port))]


network = transport.socket = Network()
retry.random = Soonest
_sleep_ms = asyncio.sleep_ms
asyncio.sleep_ms = lambda ms: _sleep_ms(0)  # pauses of the client: nobody needs them here
_failed = retry.failed
_explained = retry._explained
ends = []
escaped = []


def failed(client, error, old):
    """Note what ended a connection; the next try is at once."""
    ends.append((type(error).__name__, getattr(error, "code", None), str(error)))
    if not isinstance(error, MQTTError):
        escaped.append("escape: %r" % error)
        sys.print_exception(error, sys.stderr)
    _failed(client, error, old)
    return 0


async def over(task, ms):
    """In the place of what ends an attempt: a deadline is no pause."""
    await _sleep_ms(ms)
    task.cancel()


def measured(value):
    """In the place of bytearray in packet.py: note what is larger than any packet may be."""
    if isinstance(value, int) and value > MAX_PACKET:
        escaped.append("memory: %d bytes" % value)
    return bytearray(value)


load_everything()  # or the heap would grow by it later
packet.bytearray = measured
retry.failed = failed
transport._cancel = over
retry._explained = lambda error, state: ""  # a module is loaded for it, every time


def unhandled(loop, context):
    escaped.append("task: %r" % context["exception"])
    sys.print_exception(context["exception"], sys.stderr)


async def rounds(n=ROUNDS):
    for _ in range(n):
        await asyncio.sleep_ms(0)


async def until(is_so, what, problems):
    """Return whether `is_so()` is true in time."""
    end = time.ticks_add(time.ticks_ms(), HANG_MS)
    while not is_so():
        if time.ticks_diff(end, time.ticks_ms()) < 0:
            problems.append("hang: " + what)
            return False
        await asyncio.sleep_ms(0)
    return True


async def app(client, work):
    """Do one thing with the client; note what it ended with."""
    try:
        await work
    except MQTTError:
        pass
    except Exception as e:
        escaped.append("app: %r" % e)
        sys.print_exception(e, sys.stderr)


async def take(messages, got):
    async for message in messages:
        got.append(message.payload)


async def follow(s, number, problems):
    """Be the broker on the connection `number` (int, from 0) until it ended; return whether."""

    async def wait(is_so, what):
        return await until(is_so, what, problems)

    if not await wait(lambda: network.at > number, "no connection"):
        return False
    if not await wait(lambda: s.closed or s.greeted, "no CONNECT"):
        return False
    for piece in s.pieces:
        s.input += piece
        if not await wait(lambda: s.closed or not s.input, "nothing read"):
            return False
        await rounds(2)
    await rounds()
    s.ended = True
    if not await wait(lambda: len(ends) > number, "still connected"):
        return False
    if len(ends) > number + 1:
        problems.append("ended twice")
    return True


async def drive(sockets, got, wanted, problems):
    """
    Have the client go through all sockets; the last one is good, and `wanted` of the probes are
    handled.
    """
    for i, s in enumerate(sockets[:-1]):
        if not await follow(s, i, problems):
            return
    last = sockets[-1]
    await until(lambda: sum(b"probe" in each for each in got) == wanted, "probes", problems)
    await until(lambda: len(last.probed()) == 3, "acknowledgements", problems)
    if last.probed() != [(0x40, PROBE_ID + i) for i in range(3)]:
        problems.append("acknowledged %s" % last.probed())


def left_over(client):
    """Return what the client still has, though all is done (list of str)."""
    session = client.session
    lists = ["inflight", "awaiting_pubcomp", "to_resend", "requests", "unknown"]
    left = [name for name in lists if getattr(session, name)]
    if [message for message in session.inbound if not message.stale]:
        left.append("inbound")
    if client.dispatcher.held or client.dispatcher.size:
        left.append("held")
    if client.outbox.queue or any(client.outbox.rings):
        left.append("queue")
    return left


async def play(protocol, options, sockets):
    """Play one input; return what is wrong."""
    problems = []
    got = [], [], []
    more = {}
    if protocol == 5:
        more["properties"] = {"topic_alias_maximum": 4}
        if "a" in options:
            more["auth"] = ("m", lambda data: b"x")
    client = MQTTClient(
        "127.0.0.1",
        1883,
        client_id="device",
        protocol=protocol,
        max_packet=MAX_PACKET,
        max_backlog=4096,
        log=None,
        **more,
    )

    @client.on("a/#", qos=2)
    def handler(message):
        got[0].append(message.payload)

    @client.on("b/+", qos=1)
    async def slow(message):
        await asyncio.sleep_ms(0)
        got[1].append(message.payload)

    client.on("c", qos=0)(lambda message: None)
    if "s" in options:

        @client.on("s/#", qos=1, stream=True)
        async def stream(message):
            while await message.stream.read(100):
                pass

    network.begin(sockets)
    async with client:
        tasks = []
        if "u" not in options:
            asyncio.create_task(take(client.messages(), got[2]))
        for work in (
            client.publish("out/1", "one", qos=1),
            client.publish("out/2", "two", qos=2),
            client.publish("out/3", "three", qos=1),
            client.publish("out/0", "zero"),
            client.unsubscribe("c"),
        ):
            tasks.append(asyncio.create_task(app(client, work)))
        await drive(sockets, got, 2 if "u" in options else 3, problems)
        if not problems:
            await until(lambda: all(task.done() for task in tasks), "a task", problems)
            await rounds(3)
            problems += ["left over: " + name for name in left_over(client)]
        if len(ends) != len(sockets) - 1:
            problems.append("%d connections ended" % len(ends))
        if problems:
            client.drain_s = 0
    await rounds(4)
    if core._io_queue.map:
        problems.append("a socket is waited for")
    if core._task_queue.peek():
        problems.append("a task is left")
    for s in sockets[: network.at]:
        if not s.closed:
            problems.append("a socket is open")
    if not problems and not sockets[-1].sent.endswith(b"\xe0\0"):
        problems.append("no DISCONNECT")
    return problems


def parse(line):
    """Return (number, protocol, options, sockets) of an input."""
    number, protocol, options, *connections = line.split()
    protocol = int(protocol)
    sockets = []
    for connection in connections:
        flags, _, pieces = connection.partition(":")
        pieces = [bytes.fromhex(p) for p in pieces.split(",") if p]
        sockets.append(Socket(protocol, "p" in flags, "e" in flags, pieces, "w" in flags))
    sockets.append(Socket(protocol, "r" in options, False, [], broker=True))
    if "a" in options:
        for s in sockets:
            s.properties = b"\x15\0\1m"
    return number, protocol, options, sockets


async def main():
    core._io_queue = Waiting()
    asyncio.get_event_loop().set_exception_handler(unhandled)
    with open(sys.argv[1]) as f:
        for line in f:
            number, protocol, options, sockets = parse(line)
            del ends[:], escaped[:]
            problems = await play(protocol, options, sockets)
            problems = escaped + problems
            parts = [number, "; ".join(problems)]
            ends.append(("", None, ""))
            for s, end in zip(sockets, ends):  # noqa: B905
                parts += [end[0], str(end[1]), end[2], s.sent.hex()]
            line = "|".join([part.replace("|", "/").replace("\n", " ") for part in parts])
            del sockets, parts, problems, s, end, number, ends[:], escaped[:]
            network.begin(())
            if line.startswith("heap"):
                del line
                gc.collect()
                print("heap|%d" % gc.mem_alloc())
                continue
            print(line)
            if "hang" in line:
                return


asyncio.run(main())
