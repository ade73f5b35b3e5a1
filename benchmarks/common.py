"""
What the programs of the benchmark share. For MicroPython.

A program that stands for a client has a function for each workload of run.py, by its name:
`async def workload(port, count)`. It connects, then for ever waits for its turn, does its work on
`count` messages and reports a figure. Other clients have theirs in between, so that a machine
that is busy for a while is so for all of them.
"""

import asyncio
import gc
import json
import sys
import time

HOST = "127.0.0.1"
TOPIC = sys.argv[-1]  # of this program alone
PAYLOAD = b"x" * 100
IN_FLIGHT = 16
WARM_UP = 20  # messages before those whose memory is measured
IDLE_S = 10


def main(workloads):
    """Run the workload that the command line names: NAME PORT COUNT TOPIC."""
    name, port, count, _ = sys.argv[1:]
    asyncio.run(workloads[name](int(port), int(count)))


def turn():
    """Return when it is our turn. Nothing else runs meanwhile."""
    print("ready")
    if not sys.stdin.readline():
        sys.exit()


def report(result):
    print("result", json.dumps(result))


def rate(count, since_us):
    """Return how many a second: `count` since then (ticks)."""
    return count * 1e6 / time.ticks_diff(time.ticks_us(), since_us)


def median(values):
    return sorted(values)[len(values) // 2]


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


async def idle():
    """
    Sit for IDLE_S seconds and report what happened meanwhile: `wakeups` of the event loop, and
    `allocated` bytes.
    """
    queue = asyncio.core._io_queue
    wait = queue.wait_io_event
    sleeps = 0

    def counting(ms):
        nonlocal sleeps
        if ms:  # 0 only looks what has come
            sleeps += 1
        wait(ms)

    allocated = Allocated()
    turn()
    queue.wait_io_event = counting
    allocated.start()
    await asyncio.sleep_ms(IDLE_S * 1000)
    taken = allocated.stop()
    report({"wakeups": sleeps - 1, "allocated": taken})  # one is the end of our own sleep
