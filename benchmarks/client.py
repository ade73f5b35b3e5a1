"""mqtt_as_tls under the workloads of run.py, used as an app uses it."""

import asyncio
import time

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
from mqtt_as_tls import MQTTClient


def _client(port, **options):
    return MQTTClient(HOST, port, client_id="bench", log=None, clean_start=True, **options)


def _receiver(port, qos, handle):
    """Return a client whose `handle` gets the messages, and an Event: the broker knows that."""
    client = _client(port)
    subscribed = asyncio.Event()
    client.on(TOPIC, qos)(handle)

    @client.on_connect  # it runs when the broker has granted the subscription
    async def connected():
        subscribed.set()

    return client, subscribed


async def one_by_one(port, count):
    async with _client(port) as client:
        await client.wait_connected()
        while True:
            turn()
            start = time.ticks_us()
            for _ in range(count):
                await client.publish(TOPIC, PAYLOAD, qos=1)
            report(rate(count, start))


async def in_flight(port, count):
    async with _client(port, max_inflight=IN_FLIGHT) as client:
        await client.wait_connected()

        async def publisher():
            for _ in range(count // IN_FLIGHT):
                await client.publish(TOPIC, PAYLOAD, qos=1)

        while True:
            turn()
            start = time.ticks_us()
            await asyncio.gather(*(publisher() for _ in range(IN_FLIGHT)))
            report(rate(count // IN_FLIGHT * IN_FLIGHT, start))


async def round_trip(port, count):
    arrived = asyncio.Event()
    end = 0

    def handle(message):
        nonlocal end
        end = time.ticks_us()
        arrived.set()

    client, subscribed = _receiver(port, 0, handle)
    async with client:
        await subscribed.wait()
        while True:
            times = []
            turn()
            for _ in range(count):
                arrived.clear()
                start = time.ticks_us()
                await client.publish(TOPIC, PAYLOAD)
                await arrived.wait()
                times.append(time.ticks_diff(end, start))
            report(median(times) / 1000)


async def publish_qos0(port, count):
    async with _client(port) as client:
        await client.wait_connected()
        while True:
            turn()
            start = time.ticks_us()
            for _ in range(count):
                await client.publish(TOPIC, PAYLOAD)
            await client.publish(TOPIC, PAYLOAD, qos=1)  # acknowledged: the broker has read all
            report(rate(count, start))


async def receive(port, count):
    complete = asyncio.Event()
    received = start = result = 0

    def handle(message):
        nonlocal received, start, result
        if not received:
            start = time.ticks_us()
        received += 1
        if received == count:
            result = rate(count, start)
            complete.set()

    client, subscribed = _receiver(port, 0, handle)
    async with client:
        await subscribed.wait()
        while True:
            received = 0
            complete.clear()
            turn()
            await complete.wait()
            report(result)


async def publish_memory(port, count):
    allocated = Allocated()
    async with _client(port) as client:
        await client.wait_connected()
        while True:
            turn()
            for i in range(WARM_UP + count):
                if i == WARM_UP:
                    allocated.start()
                await client.publish(TOPIC, PAYLOAD, qos=1)
            report(allocated.stop() / count)


async def receive_memory(port, count):
    allocated = Allocated()
    complete = asyncio.Event()
    received = result = 0

    def handle(message):
        nonlocal received, result
        received += 1
        if received == WARM_UP:
            allocated.start()
        elif received == WARM_UP + count:
            result = allocated.stop() / count
            complete.set()

    client, subscribed = _receiver(port, 1, handle)
    async with client:
        await subscribed.wait()
        while True:
            received = 0
            complete.clear()
            turn()
            await complete.wait()
            report(result)


async def stay_idle(port, count):
    client, subscribed = _receiver(port, 1, lambda message: None)
    async with client:
        await subscribed.wait()
        await client.publish(TOPIC, PAYLOAD, qos=1)
        await asyncio.sleep(1)
        await idle()


main(globals())
