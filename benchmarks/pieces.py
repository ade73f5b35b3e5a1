"""
Where the time and the memory of a message go, with a broker that takes none: path.py runs this,
on a PC and on an emulated chip. For MicroPython.

    run(protocol, count, repeats)  prints "piece NAME µs bytes" for each

The time is that of the least of some rounds, each of `repeats` times `count` messages. The bytes
are all that is taken from the heap, used again or not.
"""

import instant

instant.install()

import asyncio  # noqa: E402
import gc  # noqa: E402
import time  # noqa: E402
from asyncio import core  # noqa: E402

from mqtt_as_tls import MQTTClient, packet, packet5  # noqa: E402  (after instant)
from mqtt_as_tls.dispatch import Message  # noqa: E402
from mqtt_as_tls.session import Session  # noqa: E402

TOPIC = "topic/bench"
PAYLOAD = b"x" * 100
IN_FLIGHT = 16
ROUNDS = 7
_repeats = 1


def _clock_us():
    # on Unix that of the processor, in steps of a ms
    return time.clock() * 1_000_000 if hasattr(time, "clock") else time.ticks_us()


async def _least(count, work):
    # what one of the `count` things takes that the coroutine function `work` does: (µs, bytes)
    await work()
    gc.collect()
    gc.disable()
    taken = gc.mem_alloc()
    await work()
    taken = gc.mem_alloc() - taken
    gc.enable()
    least = 0
    for round in range(ROUNDS):
        gc.collect()
        start = _clock_us()
        for _ in range(_repeats):
            await work()
        took = _clock_us() - start
        least = min(least, took) if round else took
    return least / count / _repeats, taken / count


async def _measure(name, count, work):
    us, taken = await _least(count, work)
    print("piece", name, round(us, 2), round(taken))


async def _piece(name, count, function):
    # the same for a function without arguments, less the loop and the call
    def loop(function):
        async def work():
            for _ in range(count):
                function()

        return work

    us, taken = await _least(count, loop(function))
    around_us, around = await _least(count, loop(lambda: None))
    print("piece", name, round(max(us - around_us, 0), 2), round(taken - around))


async def _bare(count):
    # a program without a client: writes a packet that it has, waits, reads
    sock = instant.Socket()
    packet = bytearray(b"\x32\x71\0\x0btopic/bench\0\1") + PAYLOAD
    answer = bytearray(4)

    def readable():
        yield core._io_queue.queue_read(sock)  # noqa: SLF001

    async def work():
        for _ in range(count):
            sock.write(packet)
            await readable()
            sock.readinto(answer)

    await _measure("bare_qos1", count, work)


async def _publishes(client, count):
    async def publish(qos, count=count):
        for _ in range(count):
            await client.publish(TOPIC, PAYLOAD, qos=qos)

    async def together():
        await asyncio.gather(*(publish(1, count // IN_FLIGHT) for _ in range(IN_FLIGHT)))

    await _measure("publish_qos0", count, lambda: publish(0))
    await _measure("publish_qos1", count, lambda: publish(1))
    await _measure("in_flight", count // IN_FLIGHT * IN_FLIGHT, together)


async def _receives(client, wire, count, qos):
    sock = instant.Socket.last
    arriving = wire.publish(b"in", PAYLOAD, qos)
    if qos:
        packet.set_id(arriving, 1)
    left = 0
    done = asyncio.Event()

    def arrived(message):
        nonlocal left
        left -= 1
        if left:
            sock.push(arriving)
        else:
            done.set()

    async def receive():
        nonlocal left
        done.clear()
        left = count
        sock.push(arriving)
        await done.wait()

    client.handle = arrived
    await _measure("receive_qos1" if qos else "receive_qos0", count, receive)


class _Outgoing:
    id = sent_ms = 0
    qos = 1

    def __init__(self, buf):
        self.packet = buf


async def _pieces(client, wire, count):
    topic = TOPIC.encode()
    await _piece("encode", count, lambda: wire.publish(topic, PAYLOAD, 1))
    await _piece("call", count, lambda: client.publish(TOPIC, PAYLOAD).close())
    session = Session(8)
    out = _Outgoing(wire.publish(topic, PAYLOAD, 1))

    def in_flight():
        out.id = 0
        session.publish(out, 5)
        session.acknowledged(0x40, out.id, 6)

    await _piece("session", count, in_flight)
    for name, arriving in (
        ("decode_puback", b"\x40\2\0\1"),
        ("decode_publish", wire.publish(topic, PAYLOAD)),
    ):
        decoder = wire.Decoder()
        size = len(arriving)

        def decode(decoder=decoder, arriving=arriving, size=size):
            decoder.space()[:size] = arriving
            decoder.fed(size)
            if decoder.next() & 0xF0 == 0x30:
                decoder.publish(0)
            else:
                decoder.answer()

        await _piece(name, count, decode)
    fields = TOPIC, 0, PAYLOAD
    await _piece("message", count, lambda: Message(0x30, fields))

    async def turns():
        for _ in range(count):
            await asyncio.sleep_ms(0)

    await _measure("turn", count, turns)


async def _all(protocol, count):
    instant.Socket.protocol = protocol
    wire = packet5 if protocol == 5 else packet
    client = MQTTClient(
        "127.0.0.1",
        1883,
        client_id="a",
        max_inflight=IN_FLIGHT,
        max_waiting=65535,  # calls that do not begin count, too
        log=None,
        protocol=protocol,
    )
    client.handle = None

    @client.on("in", qos=1)
    def arrived(message):
        client.handle(message)

    await _bare(count)
    async with client:
        await client.wait_connected()
        await asyncio.sleep_ms(20)
        await _publishes(client, count)
        for qos in (0, 1):
            await _receives(client, wire, count, qos)
        await _pieces(client, wire, count)


def run(protocol, count, repeats):
    global _repeats
    _repeats = repeats
    asyncio.run(_all(protocol, count))
