"""
What the programs of the contestants share. For MicroPython.

A contestant has a function for each workload of loopback.py, by its name. It connects, then for
ever waits for its turn, does its work on as many messages as it is told and reports a figure.
Other contestants have their turns in between, so that a machine that is busy for a while is so
for all of them.
"""

import asyncio
import gc
import json
import sys
import time

HOST = "127.0.0.1"
WORKLOAD, PORT, TOPIC, CA = sys.argv[-4:]  # CA: a DER file, or "" for TCP
PORT = int(PORT)
CLIENT_ID = TOPIC[6:]
END = "other" + TOPIC[5:]  # as long as TOPIC
PAYLOAD = b"x" * 100
IN_FLIGHT = 16
WARM_UP = 10  # messages before those whose memory is measured
IDLE_S = 10


def run(workloads):
    """Run the workload that the command line names, of those in `workloads` (dict)."""
    if WORKLOAD not in workloads:
        unable("has nothing of the kind")
    running = workloads[WORKLOAD]()
    if running is not None:
        asyncio.run(running)


def unable(reason):
    """End here: this client cannot do that."""
    print("unable", reason)
    sys.exit()


def turn():
    """Return when it is our turn: with how many messages. Nothing else runs meanwhile."""
    print("ready")
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return int(line)


def report(result):
    print("result", json.dumps(result))


def rate(count, since_us):
    """Return how many a second: `count` since then (ticks)."""
    return count * 1e6 / max(1, time.ticks_diff(time.ticks_us(), since_us))  # all at once


def since_ms(start_us):
    return time.ticks_diff(time.ticks_us(), start_us) / 1000


def median(values):
    return sorted(values)[len(values) // 2]


def context():
    """Return an ssl.SSLContext that verifies the broker's certificate; None for TCP."""
    if not CA:
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    with open(CA, "rb") as file:
        context.load_verify_locations(cadata=file.read())
    return context


def modules():
    """Report the modules that are imported."""
    turn()
    report(list(sys.modules))


class Allocated:
    """
    Bytes taken from the heap between `start()` and `stop()`, used again or not: nothing is
    collected meanwhile.
    """

    def __init__(self):
        self._before = 0  # or storing it would take memory of its own

    def start(self):
        gc.collect()
        gc.disable()
        self._before = gc.mem_alloc()

    def stop(self):
        """Return the bytes."""
        taken = gc.mem_alloc() - self._before
        gc.enable()
        return taken


class Ticker:
    """A task that wakes every ms; `worst_ms` is the longest that it came late."""

    async def __aenter__(self):
        self._worst_us = 0
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep_ms(5)
        self._worst_us = 0
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep_ms(5)
        self._task.cancel()
        self.worst_ms = self._worst_us / 1000

    async def _run(self):
        last = time.ticks_us()
        while True:
            await asyncio.sleep_ms(1)
            now = time.ticks_us()
            self._worst_us = max(self._worst_us, time.ticks_diff(now, last) - 1000)
            last = now


async def idle():
    """Sit for some seconds and report the bytes that were allocated meanwhile."""
    allocated = Allocated()
    seconds = turn()
    allocated.start()
    await asyncio.sleep_ms(seconds * 1000)
    report(allocated.stop())
