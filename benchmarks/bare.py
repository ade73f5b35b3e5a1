"""
The yardstick: a bare non-blocking socket under asyncio that does what a client does and no more.
It knows every packet beforehand, keeps no state, checks nothing but that the answer came.
"""

import asyncio
import socket
import time
from asyncio import core

from benchmarks.common import (
    HOST,
    IN_FLIGHT,
    PAYLOAD,
    TOPIC,
    WARM_UP,
    Allocated,
    idle,
    main,
    median,
    rate,
    report,
    turn,
)

_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04bare"


def _publish(qos):
    """Return (packet, offset of its packet id)."""
    head = bytes((0, len(TOPIC))) + TOPIC.encode()
    body = head + (b"\0\1" if qos else b"") + PAYLOAD
    return bytearray((0x30 | qos << 1, len(body))) + body, 2 + len(head)


class Bare:
    """A connection that the broker has accepted."""

    def __init__(self, port):
        self.sock = s = socket.socket()
        s.connect(socket.getaddrinfo(HOST, port)[0][-1])
        s.setsockopt(6, 1, 1)  # TCP_NODELAY
        s.write(_CONNECT)
        s.read(4)
        s.setblocking(False)
        self.buf = bytearray(4096)

    def readable(self):
        yield core._io_queue.queue_read(self.sock)

    def writable(self):
        yield core._io_queue.queue_write(self.sock)

    async def read(self):
        """Return how many bytes came into `buf`."""
        await self.readable()
        return self.sock.readinto(self.buf)

    async def subscribe(self, qos):
        topic = TOPIC.encode()
        size = len(topic)
        self.sock.write(bytes((0x82, size + 5, 0, 1, 0, size)) + topic + bytes((qos,)))
        await self.read()


async def one_by_one(port, count):
    bare = Bare(port)
    packet, at = _publish(1)
    sock, ack = bare.sock, bytearray(4)
    while True:
        turn()
        start = time.ticks_us()
        for i in range(1, count + 1):
            packet[at] = i >> 8 & 255
            packet[at + 1] = i & 255
            sock.write(packet)
            await bare.readable()
            if sock.readinto(ack) != 4:
                raise OSError("no PUBACK")
        report(rate(count, start))


async def in_flight(port, count):
    bare = Bare(port)
    packet, at = _publish(1)
    sock, acks = bare.sock, bytearray(4 * IN_FLIGHT)
    while True:
        turn()
        start = time.ticks_us()
        sent = received = 0
        while received < count * 4:
            while sent < count and sent * 4 - received < 4 * IN_FLIGHT:
                sent += 1
                packet[at] = sent >> 8 & 255
                packet[at + 1] = sent & 255
                sock.write(packet)
            await bare.readable()
            received += sock.readinto(acks)
        report(rate(count, start))


async def round_trip(port, count):
    bare = Bare(port)
    await bare.subscribe(0)
    packet, _ = _publish(0)
    while True:
        times = []
        turn()
        for _ in range(count):
            start = time.ticks_us()
            bare.sock.write(packet)
            if await bare.read() != len(packet):
                raise OSError("no whole PUBLISH")
            times.append(time.ticks_diff(time.ticks_us(), start))
        report(median(times) / 1000)


async def publish_qos0(port, count):
    bare = Bare(port)
    packet, _ = _publish(0)
    sock, size = bare.sock, len(packet)
    while True:
        turn()
        start = time.ticks_us()
        for _ in range(count):
            n = sock.write(packet) or 0
            while n < size:
                await bare.writable()
                n += sock.write(memoryview(packet)[n:]) or 0
        sock.write(b"\xc0\0")
        await bare.read()  # PINGRESP: the broker has read all
        report(rate(count, start))


async def receive(port, count):
    bare = Bare(port)
    await bare.subscribe(0)
    size = len(_publish(0)[0])
    while True:
        turn()
        received = first = await bare.read()
        start = time.ticks_us()
        while received < count * size:
            received += await bare.read()
        report(rate((received - first) / size, start))


async def publish_memory(port, count):
    bare = Bare(port)
    packet, _ = _publish(1)
    allocated = Allocated()
    while True:
        turn()
        for i in range(WARM_UP + count):
            if i == WARM_UP:
                allocated.start()
            bare.sock.write(packet)
            await bare.readable()
            bare.sock.readinto(bare.buf)
        report(allocated.stop() / count)


async def receive_memory(port, count):
    bare = Bare(port)
    await bare.subscribe(1)
    packet, at = _publish(1)
    size = len(packet)
    ack = bytearray(b"\x40\2\0\0")
    allocated = Allocated()
    while True:
        turn()
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


async def stay_idle(port, count):
    bare = Bare(port)
    reader = asyncio.create_task(bare.read())
    await asyncio.sleep_ms(100)
    await idle()
    reader.cancel()


main(globals())
