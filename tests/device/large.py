"""Payloads that nobody keeps in memory, for apps (MicroPython) and the tests that check them."""

import asyncio
import binascii
import hashlib

_BLOCK = bytes((i * 7 + i // 100) & 255 for i in range(1021))


def content(size, seed=0):
    """Return the bytes (of any length) that a Source(size, seed) gives."""
    seed %= len(_BLOCK)
    block = _BLOCK[seed:] + _BLOCK[:seed]
    return (block * (size // len(block) + 1))[:size]


def digest(data):
    """Return the SHA-256 of bytes as hexadecimal digits (str)."""
    return binascii.hexlify(hashlib.sha256(data).digest()).decode()


class Source:
    """
    A stream of `size` bytes.

    most   int, what readinto gives at a time at most
    """

    def __init__(self, size, seed=0, most=1 << 30):
        self.size = size
        self.most = most
        self._seed = seed
        self._at = 0

    def tell(self):
        return self._at

    def seek(self, at):
        self._at = at

    def readinto(self, buf):
        n = min(len(buf), self.size - self._at, self.most)
        start = (self._at + self._seed) % len(_BLOCK)
        n = min(n, len(_BLOCK) - start)
        memoryview(buf)[:n] = _BLOCK[start : start + n]
        self._at += n
        return n


class Slow:
    """A stream without seek() whose readinto is awaited; it pauses before each piece."""

    def __init__(self, size, pause_ms, most=1 << 30):
        self._source = Source(size, most=most)
        self._pause_ms = pause_ms

    async def readinto(self, buf):
        await asyncio.sleep_ms(self._pause_ms)
        return self._source.readinto(buf)


async def drink(stream, piece=1000, pause_ms=0):
    """Read `stream` to its end; return (its SHA-256, its length)."""
    summed = hashlib.sha256()
    buf = bytearray(piece)
    view = memoryview(buf)
    length = 0
    while True:
        n = await stream.readinto(buf)
        if not n:
            return binascii.hexlify(summed.digest()).decode(), length
        summed.update(view[:n])
        length += n
        if pause_ms:
            await asyncio.sleep_ms(pause_ms)


async def drinks(message):
    """A handler that reads a stream to its end: print "got SHA-256 LENGTH"."""
    print("got", *await drink(message.stream))
