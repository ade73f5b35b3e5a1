"""For MicroPython programs: is the event loop alive, is everything closed?"""

import asyncio
import os


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
