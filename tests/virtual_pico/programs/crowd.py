"""
Messages that come faster than they can go, or while nothing can.

    crowd.timer(count)    a timer enqueues so many while the program publishes
    crowd.burst(full)     as many of 12 bytes as enqueue() takes while the broker is away, or 2,000
    crowd.tasks(count)    a task for each publish() while the broker is away, 10 a second
    crowd.full(count)     all memory is taken while there is a connection, and kept for so many
                          outages
    crowd.hungry(ms)      while the broker is away all that there is is taken, and kept, every so
                          many ms
"""

import asyncio
import gc
import time

import config
import machine

from mqtt_as_tls import MQTTClient


def _make(**options):
    return MQTTClient(config.host, config.port, link=config.link, tls=config.tls, **options)


async def _timer(count):
    client = MQTTClient(config.host, config.tcp_port, link=config.link, client_id="pico")
    n = refused = 0

    def tick(_):
        nonlocal n, refused
        if n < count:
            if client.enqueue("from/crowd/timer", str(n), qos=1):
                n += 1
            else:
                refused += 1

    async with client:
        await client.wait_connected(120)
        timer = machine.Timer(period=5, mode=machine.Timer.PERIODIC, callback=tick)
        k = 0
        while n < count:
            await client.publish("from/crowd/main", str(k), qos=1)
            k += 1
        timer.deinit()
        # the loop has nothing to do but what the timer gives it
        timer.init(mode=machine.Timer.ONE_SHOT, period=100, callback=tick)
        count += 1
        start = time.ticks_ms()
        sent = client.stats.sent
        while n < count or client.stats.sent == sent:
            await asyncio.sleep_ms(500)
        print("idle", time.ticks_diff(time.ticks_ms(), start) < 3000)
        await client.publish("from/crowd/main", "end", qos=1)
        print("timer done", n, k, client.stats.connects, refused)


def timer(count):
    asyncio.run(_timer(count))


async def _away(client):
    await client.wait_connected(120)
    print("up")
    while client.connected:
        await asyncio.sleep_ms(100)


async def _back(client):
    start = time.ticks_ms()
    while not client.connected:
        await asyncio.sleep_ms(100)
        if time.ticks_diff(time.ticks_ms(), start) > 120_000:
            print("never back", repr(client.error))
            return
    print("back")


async def _burst(full):
    client = _make(client_id="pico")
    async with client:
        await _away(client)
        gc.collect()
        before = gc.mem_free()
        n = 0
        while n < 2000 and client.enqueue("from/crowd", f"{n:04}", qos=1, full=full):
            n += 1
        gc.collect()
        print("took", n, before - gc.mem_free())
        await _back(client)
        await client.publish("from/crowd", "end", qos=1)
        print("burst done")


def burst(full):
    asyncio.run(_burst(full))


async def _tasks(count):
    client = _make(client_id="pico")
    refused = 0
    async with client:
        await _away(client)
        for n in range(count):
            try:
                asyncio.create_task(client.publish("from/crowd", str(n), qos=1))
            except RuntimeError as e:
                if not refused:
                    print("refused", e)
                refused += 1
            await asyncio.sleep_ms(100)
        gc.collect()
        print("took", count - refused, gc.mem_free())
        await _back(client)
        await client.publish("from/crowd", "end", qos=1)
        print("tasks done")


def tasks(count):
    asyncio.run(_tasks(count))


async def _full(count):
    kept = None
    client = _make(client_id="pico")
    async with client:
        await client.wait_connected(120)
        for size in (30000, 2000, 100, 16):
            try:
                while True:
                    kept = kept, bytearray(size)
            except MemoryError:
                pass
        gc.collect()
        print("left", gc.mem_free())
        for _ in range(count):  # with what takes no memory
            await asyncio.sleep_ms(6000)  # it lasted: the next back-off begins anew
            print("up")
            while client.connected:
                await asyncio.sleep_ms(100)
            print("lost")
            while not client.connected:
                await asyncio.sleep_ms(100)
            print("back")


def full(count):
    asyncio.run(_full(count))


kept = None


def _crumbs():
    chain = None
    for _ in range(20):
        chain = chain, bytearray(16)
    return chain


def _fill():
    # some of the smallest holes are spared, for what the app does itself
    global kept
    spare = _crumbs()
    for size in (4000, 500, 100, 16):
        try:
            while True:
                kept = kept, bytearray(size)
        except MemoryError:
            pass
    spare = None  # noqa: F841
    gc.collect()


async def _eats(ms):
    while True:
        _fill()
        await asyncio.sleep_ms(ms)


async def _hungry(ms):
    asyncio.get_event_loop().set_exception_handler(lambda loop, context: None)
    client = _make(client_id="pico")
    eats = _eats(ms)
    async with client:
        await _away(client)
        asyncio.create_task(eats)
        await asyncio.sleep_ms(3000)
        last = client.error
        while not client.connected and client.error is last:
            await asyncio.sleep_ms(100)
        print("tried")
        while not client.connected:
            await asyncio.sleep_ms(100)
        print("back")
        while True:
            await asyncio.sleep_ms(1000)


def hungry(ms):
    asyncio.run(_hungry(ms))
