"""For MicroPython programs that test the client: take memory away, whole or in pieces."""

import asyncio
import gc

_SIZES = (4096, 512, 64, 16)


class Hunger:
    """
    Memory that an app holds.

    most  int, blocks that it can hold at a time
    """

    def __init__(self, most=4000):
        self._held = [None] * most
        self._count = 0

    def _take(self, size, most=1 << 30):
        """Hold blocks of `size` bytes until there is no other, or there are `most` more."""
        try:
            while most > 0 and self._count < len(self._held):
                self._held[self._count] = bytearray(size)
                self._count += 1
                most -= 1
        except MemoryError:
            pass

    def eat(self, left):
        """Take all memory but one block of `left` bytes, and nothing where that is 0."""
        gc.collect()
        spared = bytearray(min(left, gc.mem_free() // 2))
        for size in _SIZES:
            self._take(size)
        del spared
        gc.collect()

    def crumbs(self, count):
        """Take all memory but `count` of the smallest blocks, no two beside each other."""
        self.eat(0)
        try:
            while self._count < len(self._held):
                self._held[self._count] = object()
                self._count += 1
        except MemoryError:
            pass
        at = self._count
        while count and at > 1:
            at -= 2
            count -= 1
            self._held[at] = None
        gc.collect()

    def nibble(self, size):
        """Take one block of `size` bytes; return whether there was one."""
        count = self._count
        self._take(size, 1)
        return self._count > count

    def shatter(self, size):
        """Give back every second of many blocks: half the memory is free, in pieces of `size`."""
        gc.collect()
        first = self._count
        self._take(size)
        for i in range(first, self._count, 2):
            self._held[i] = None
        gc.collect()

    def taken(self):
        """Return how many blocks it holds."""
        return self._count

    def end(self):
        """Give all of it back."""
        for i in range(self._count):
            self._held[i] = None
        self._count = 0
        gc.collect()


def _as_on_rp2040(enqueue):
    # Of the unix port's poll() a half of what it notes is the end, and on an RP2040 that can be
    # taken back: so here the wait for a socket fails before anything is noted, or not at all
    def _enqueue(self, sock, idx):
        bytearray(256)
        enqueue(self, sock, idx)

    return _enqueue


asyncio.core.IOQueue._enqueue = _as_on_rp2040(asyncio.core.IOQueue._enqueue)
