"""
The yardstick: a bare non-blocking socket under asyncio that does what a client does and no more.
It knows every packet beforehand, keeps no state, checks nothing but that the answer came.

Over TLS it waits for the raw socket, because the unix port polls a TLS socket once a ms. mbedTLS
takes one record at a time from that, so that it never has what the raw socket does not show,
unless a buffer was too small for the record.
"""

import select
import socket
import time
from asyncio import core

from benchmarks import common
from benchmarks.common import (
    CLIENT_ID,
    HOST,
    IN_FLIGHT,
    PAYLOAD,
    PORT,
    TOPIC,
    WARM_UP,
    Allocated,
    median,
    rate,
    report,
    run,
    since_ms,
    turn,
)

_CONNECT = b"\x10\x13\x00\x04MQTT\x04\x02\x00\x3c\x00\x07" + CLIENT_ID.encode()
_context = common.context()


def _publish(qos):
    """Return (packet, offset of its packet id)."""
    head = bytes((0, len(TOPIC))) + TOPIC.encode()
    body = head + (b"\0\1" if qos else b"") + PAYLOAD
    return bytearray((0x30 | qos << 1, len(body))) + body, 2 + len(head)


class Bare:
    """
    A connection that the broker has accepted.

    sock      what is read and written
    step_ms   the longest call that its opening took: nothing else runs meanwhile
    """

    def __init__(self):
        start = time.ticks_us()
        self._raw = self.sock = s = socket.socket()
        s.connect(socket.getaddrinfo(HOST, PORT)[0][-1])
        s.setsockopt(6, 1, 1)  # TCP_NODELAY
        s.setblocking(False)
        if _context:
            self.sock = s = _context.wrap_socket(
                s, server_hostname=HOST, do_handshake_on_connect=False
            )
        self.buf = bytearray(4096)
        self._full = False
        self.step_ms = since_ms(start)
        poller = select.poll()
        poller.register(self._raw, select.POLLIN)
        while not self._timed(s.write, _CONNECT):  # the handshake runs in it
            poller.poll()
        while not self._timed(s.readinto, self.buf):
            poller.poll()

    def _timed(self, call, argument):
        start = time.ticks_us()
        result = call(argument)
        self.step_ms = max(self.step_ms, since_ms(start))
        return result

    def close(self):
        self.sock.write(b"\xe0\0")
        self.sock.close()
        self._raw.close()

    def readable(self):
        yield core._io_queue.queue_read(self._raw)  # noqa: SLF001

    def writable(self):
        yield core._io_queue.queue_write(self._raw)  # noqa: SLF001

    async def read(self):
        """Return how many bytes came into `buf`."""
        if not self._full:
            await self.readable()
        n = self.sock.readinto(self.buf) or 0
        self._full = n == len(self.buf)
        return n

    async def subscribe(self, qos):
        topic = TOPIC.encode()
        size = len(topic)
        self.sock.write(bytes((0x82, size + 5, 0, 1, 0, size)) + topic + bytes((qos,)))
        await self.read()


async def connect():
    while True:
        count = turn()
        times = []
        for _ in range(count):
            start = time.ticks_us()
            bare = Bare()
            times.append(since_ms(start))
            bare.close()
        report(median(times))


async def stall():
    while True:
        steps = []
        for _ in range(turn()):
            bare = Bare()
            steps.append(bare.step_ms)
            bare.close()
        report(median(steps))


async def one_by_one():
    bare = Bare()
    packet, at = _publish(1)
    sock, ack = bare.sock, bytearray(4)
    while True:
        count = turn()
        start = time.ticks_us()
        for i in range(1, count + 1):
            packet[at] = i >> 8 & 255
            packet[at + 1] = i & 255
            sock.write(packet)
            n = None
            while n is None:  # of a TLS record the first part only
                await bare.readable()
                n = sock.readinto(ack)
            if n != 4:
                raise OSError("no PUBACK")
        report(rate(count, start))


async def in_flight():
    bare = Bare()
    packet, at = _publish(1)
    sock, acks = bare.sock, bytearray(4 * IN_FLIGHT)
    while True:
        count = turn()
        start = time.ticks_us()
        sent = received = 0
        while received < count * 4:
            while sent < count and sent * 4 - received < 4 * IN_FLIGHT:
                sent += 1
                packet[at] = sent >> 8 & 255
                packet[at + 1] = sent & 255
                sock.write(packet)
            await bare.readable()
            received += sock.readinto(acks) or 0
        report(rate(count, start))


async def round_trip():
    bare = Bare()
    await bare.subscribe(0)
    packet, _ = _publish(0)
    while True:
        count = turn()
        times = []
        for _ in range(count):
            start = time.ticks_us()
            bare.sock.write(packet)
            n = 0
            while n < len(packet):
                n += await bare.read()
            times.append(time.ticks_diff(time.ticks_us(), start))
        report(times)


async def publish_qos0():
    bare = Bare()
    packet, _ = _publish(0)
    sock, size = bare.sock, len(packet)
    while True:
        count = turn()
        start = time.ticks_us()
        for _ in range(count):
            n = sock.write(packet) or 0
            while n < size:
                await bare.writable()
                n += sock.write(memoryview(packet)[n:]) or 0
        sock.write(b"\xc0\0")
        while not await bare.read():  # PINGRESP: the broker has read all
            pass
        report(rate(count, start))


async def receive():
    bare = Bare()
    await bare.subscribe(0)
    size = len(_publish(0)[0])
    while True:
        count = turn()
        received = 0
        while not received:
            received = first = await bare.read()
        start = time.ticks_us()
        while received < count * size:
            received += await bare.read()
        report(rate((received - first) / size, start))


async def publish_memory():
    bare = Bare()
    packet, _ = _publish(1)
    allocated = Allocated()
    while True:
        count = turn()
        for i in range(WARM_UP + count):
            if i == WARM_UP:
                allocated.start()
            bare.sock.write(packet)
            n = None
            while n is None:
                await bare.readable()
                n = bare.sock.readinto(bare.buf)
        report(allocated.stop() / count)


async def receive_memory():
    bare = Bare()
    await bare.subscribe(1)
    packet, at = _publish(1)
    size = len(packet)
    ack = bytearray(b"\x40\2\0\0")
    allocated = Allocated()
    while True:
        count = turn()
        received = 0
        while received < WARM_UP + count:
            if received == WARM_UP:
                allocated.start()
            for end in range(size, await bare.read() + 1, size):
                ack[2] = bare.buf[end - size + at]
                ack[3] = bare.buf[end - size + at + 1]
                bare.sock.write(ack)
                received += 1
        report(allocated.stop() / count)


async def stay_idle():
    import asyncio

    bare = Bare()
    reader = asyncio.create_task(bare.read())
    await asyncio.sleep_ms(100)
    await common.idle()
    reader.cancel()


run(globals())
