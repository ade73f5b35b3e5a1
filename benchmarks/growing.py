"""
What a message takes with many in flight, and with many that wait: growth.py runs this. For
MicroPython.

    run(case, size)  prints "grows µs", the processor's time of a message
"""

import instant

instant.install()

import asyncio  # noqa: E402
import gc  # noqa: E402
import time  # noqa: E402

from mqtt_as_tls import MQTTClient  # noqa: E402  (after instant)

PAYLOAD = b"x" * 100
MESSAGES = 16000  # of a measurement, about
ROUNDS = 3


async def _client(window):
    client = MQTTClient(
        "127.0.0.1", 1883, client_id="a", max_inflight=window, max_queue=1 << 19, log=None
    )
    await client.__aenter__()
    await client.wait_connected()
    await asyncio.sleep_ms(20)
    return client


async def _least(count, work):
    least = 0
    for round in range(ROUNDS + 1):  # the first is not counted
        took = 0
        done = 0
        while done < MESSAGES:
            gc.collect()
            gc.disable()  # what it takes to collect grows with what waits, whoever holds it
            start = time.clock()  # in steps of a ms
            for _ in range(max(1, 1000 // count)):
                await work()
                done += count
            took += time.clock() - start
            gc.enable()
        least = min(least, took / done) if round > 1 else took / done
    return least * 1_000_000


async def window(size):
    """A thousand messages go out, `size` of them at a time in flight."""
    client = await _client(size)

    async def work():
        for _ in range(999):
            client.enqueue("topic/bench", PAYLOAD, qos=1)
        await client.publish("topic/bench", PAYLOAD, qos=1)  # acknowledged after them

    print("grows", "%.2f" % await _least(1000, work))
    await client.disconnect()


async def waiting(size):
    """`size` tasks publish a message each, 8 of which may be in flight."""
    client = await _client(8)

    async def work():
        await asyncio.gather(*[client.publish("topic/bench", PAYLOAD, qos=1) for _ in range(size)])

    print("grows", "%.2f" % await _least(size, work))
    await client.disconnect()


async def queued(size):
    """`size` messages of enqueue() wait, 8 of which may be in flight."""
    client = await _client(8)

    async def work():
        for _ in range(size - 1):
            client.enqueue("topic/bench", PAYLOAD, qos=1)
        await client.publish("topic/bench", PAYLOAD, qos=1)

    print("grows", "%.2f" % await _least(size, work))
    await client.disconnect()


def run(case, size):
    asyncio.run({"window": window, "waiting": waiting, "queued": queued}[case](size))
