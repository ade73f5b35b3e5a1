"""For MicroPython programs: is the event loop alive, is everything closed?"""

import asyncio
import json
import os
import time


class Ticker:
    """
    A task that counts how often it got its turn, about every 5 ms, while an `async with` runs:

        async with Ticker() as ticker:
            ...
        print(ticker.ticks)
    """

    async def __aenter__(self):
        self.ticks = 0
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _run(self):
        while True:
            self.ticks += 1
            await asyncio.sleep_ms(5)


def starved_ms(path="/proc/self/schedstat"):
    """Return for how long this process was ready and had no processor so far; 0 but on Linux."""
    try:
        with open(path) as file:
            return int(file.read().split()[1]) // 1_000_000
    except OSError:
        return 0


async def slowest():
    """
    For a task: print "stall MS" whenever it came later to its turn than ever before. That other
    programs had the processor meanwhile does not count.
    """
    longest = 0
    while True:
        start = time.ticks_ms()
        starved = starved_ms()
        await asyncio.sleep_ms(5)
        taken = time.ticks_diff(time.ticks_ms(), start)
        if taken > longest:
            taken -= starved_ms() - starved
        if taken > longest:
            longest = taken
            print("stall", longest)


def open_files():
    """Return how many files and sockets this process has open (Linux and macOS)."""
    return len(os.listdir("/dev/fd"))


class Tasks:
    """Remembers the tasks that asyncio.create_task makes from its construction on."""

    def __init__(self):
        self._create = asyncio.create_task
        self._tasks = []
        asyncio.create_task = self._remember

    def _remember(self, coroutine):
        self._tasks.append(self._create(coroutine))
        return self._tasks[-1]

    def running(self):
        """Return how many of them have not ended."""
        return sum(not task.done() for task in self._tasks)


async def watched(work):
    """
    Await work(found), which notes in the dict what came of it, and print that as JSON: with
    `ticks`, the turns of a task beside it, and with the files and tasks that it left
    (`left_open`, `left_running`).
    """
    before = open_files()
    tasks = Tasks()
    found = {}
    async with Ticker() as ticker:
        await work(found)
    found["ticks"] = ticker.ticks
    await asyncio.sleep_ms(5)
    found["left_open"] = open_files() - before
    found["left_running"] = tasks.running()
    print(json.dumps(found))
