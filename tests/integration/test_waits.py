"""What the client waits with: a deadline without a task for it, a socket when memory is gone."""

import pytest

from tests.support import mpy

BEFORE = """
import asyncio
from asyncio import core
from mqtt_as_tls.transport import within

async def give(ms, what):
    await asyncio.sleep_ms(ms)
    if isinstance(what, Exception):
        raise what
    return what

async def caught(awaitable):
    try:
        print("got", await awaitable)
    except (Exception, asyncio.CancelledError) as e:
        print(type(e).__name__)

async def forever():
    try:
        await asyncio.sleep_ms(100_000)
    finally:
        print("cleaned up")

"""


def said(program):
    return mpy.check(BEFORE + program + "\nasyncio.run(main())\n").splitlines()


@pytest.mark.parametrize(
    ("awaitable", "lines"),
    [
        ("give(5, 'it')", ["got it"]),
        ("give(0, 'it')", ["got it"]),
        ("give(5, OSError(5))", ["OSError"]),
        ("forever()", ["cleaned up", "TimeoutError"]),
        ("within(100_000, forever())", ["cleaned up", "TimeoutError"]),
        ("within(20, forever())", ["cleaned up", "TimeoutError"]),
        ("asyncio.create_task(forever())", ["cleaned up", "TimeoutError"]),
    ],
)
def test_a_deadline_ends_a_wait_and_nothing_else(awaitable, lines):
    limit_ms = 50 if "forever" in awaitable else 100_000
    program = f"""
async def main():
    await caught(within({limit_ms}, {awaitable}))
    await asyncio.sleep_ms(10)
    print("left", core._task_queue.peek())
"""
    assert said(program) == [*lines, "left None"]


def test_who_is_cancelled_before_the_deadline_is_cancelled():
    program = """
async def main():
    task = asyncio.create_task(caught(within(100_000, forever())))
    await asyncio.sleep_ms(10)
    task.cancel()
    await asyncio.sleep_ms(10)
    print("left", core._task_queue.peek())
"""
    assert said(program) == ["cleaned up", "CancelledError", "left None"]


def test_without_memory_for_a_deadline_nothing_is_begun():
    program = """
async def begin():
    print("begun")

def no_memory(coroutine):
    raise MemoryError

async def main():
    asyncio.create_task = no_memory
    await caught(within(100, begin()))
    print("left", core._task_queue.peek())
"""
    assert said(program) == ["MemoryError", "left None"]


def test_a_socket_that_there_is_no_memory_to_wait_for_is_noted_nowhere():
    """It would stay in asyncio's books, and poll() of MicroPython would crash on it."""
    program = """
from mqtt_as_tls.transport import _Poll

class Poller:
    unregistered = None

    def register(self, sock, events):
        raise MemoryError

    def unregister(self, sock):
        self.unregistered = sock

async def wait(sock):
    await _Poll(core._io_queue.queue_read, sock)

async def main():
    sock = object()
    poller = core._io_queue.poller = Poller()
    await caught(wait(sock))
    print(core._io_queue.map, poller.unregistered is sock)
"""
    assert said(program) == ["MemoryError", "{} True"]
