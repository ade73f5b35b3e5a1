"""
The workloads of a client with `await client.publish(topic, payload, qos=)`. For MicroPython.

A contestant calls `contest` with two functions:

    async def open(arrived=None, filter=None, qos=0)
        return a client that is connected, its subscription of `filter` granted, which calls
        arrived() for each message
    async def close(client)
"""

import asyncio
import time

from benchmarks import common
from benchmarks.common import (
    END,
    IN_FLIGHT,
    PAYLOAD,
    TOPIC,
    WARM_UP,
    Allocated,
    Ticker,
    median,
    rate,
    report,
    since_ms,
    turn,
)


def contest(open, close):
    """Run the workload of the command line."""
    global _open, _close
    _open, _close = open, close
    common.run(globals())


async def connect():
    while True:
        count = turn()
        times = []
        for _ in range(count):
            start = time.ticks_us()
            client = await _open()
            times.append(since_ms(start))
            await _close(client)
        report(median(times))


async def stall():
    while True:
        count = turn()
        stalls = []
        for _ in range(count):
            async with Ticker() as ticker:
                client = await _open()
            stalls.append(ticker.worst_ms)
            await _close(client)
        report(median(stalls))


async def one_by_one():
    client = await _open()
    while True:
        count = turn()
        start = time.ticks_us()
        for _ in range(count):
            await client.publish(TOPIC, PAYLOAD, qos=1)
        report(rate(count, start))


async def in_flight():
    client = await _open()

    async def publisher(count):
        for _ in range(count):
            await client.publish(TOPIC, PAYLOAD, qos=1)

    while True:
        each = turn() // IN_FLIGHT
        start = time.ticks_us()
        await asyncio.gather(*(publisher(each) for _ in range(IN_FLIGHT)))
        report(rate(each * IN_FLIGHT, start))


async def round_trip():
    arrived = asyncio.Event()
    end = 0

    def handle():
        nonlocal end
        end = time.ticks_us()
        arrived.set()

    client = await _open(handle, TOPIC)
    while True:
        count = turn()
        times = []
        for _ in range(count):
            arrived.clear()
            start = time.ticks_us()
            await client.publish(TOPIC, PAYLOAD, qos=0)
            await arrived.wait()
            times.append(time.ticks_diff(end, start))
        report(times)


async def publish_qos0():
    arrived = asyncio.Event()
    client = await _open(arrived.set, END)
    while True:
        count = turn()
        arrived.clear()
        start = time.ticks_us()
        for _ in range(count):
            await client.publish(TOPIC, PAYLOAD, qos=0)
        await client.publish(END, PAYLOAD, qos=0)  # when it is back the broker has read all
        await arrived.wait()
        report(rate(count, start))


async def receive():
    complete = asyncio.Event()
    wanted = start = result = 0

    def handle():
        nonlocal wanted, start, result
        if not start:
            start = time.ticks_us()
        wanted -= 1
        if not wanted:
            result = rate(count - 1, start)
            complete.set()

    await _open(handle, TOPIC)
    while True:
        complete.clear()
        start = 0
        wanted = count = turn()
        await complete.wait()
        report(result)


async def publish_memory():
    allocated = Allocated()
    client = await _open()
    while True:
        count = turn()
        for i in range(WARM_UP + count):
            if i == WARM_UP:
                allocated.start()
            await client.publish(TOPIC, PAYLOAD, qos=1)
        report(allocated.stop() / count)


async def receive_memory():
    allocated = Allocated()
    complete = asyncio.Event()
    wanted = result = 0

    def handle():
        nonlocal wanted, result
        wanted -= 1
        if wanted == count:
            allocated.start()
        elif not wanted:
            result = allocated.stop() / count
            complete.set()

    await _open(handle, TOPIC, 1)
    while True:
        complete.clear()
        count = turn()
        wanted = count + WARM_UP
        await complete.wait()
        report(result)


async def stay_idle():
    client = await _open(lambda: None, TOPIC, 1)
    await client.publish(TOPIC, PAYLOAD, qos=1)
    await asyncio.sleep(1)
    await common.idle()


async def modules():
    client = await _open(lambda: None, TOPIC, 1)
    await client.publish(TOPIC, PAYLOAD, qos=1)
    await asyncio.sleep_ms(200)
    common.modules()
