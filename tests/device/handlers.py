"""Handlers that the programs of tests share. Each prints "got PAYLOAD QOS" first."""

import asyncio

from tests.device.app import told


def text(message):
    return str(message.payload, "utf-8")


def got(message):
    print("got", text(message), message.qos)


async def hold(message):
    """Return, after "ends PAYLOAD", when the test has said "end"."""
    got(message)
    await told("end")
    print("ends", text(message))


class Barrier:
    """
    A handler that lets no message pass until `open()`.

    passed  list of int: the payloads (numbers) that did, in order
    """

    def __init__(self):
        self.passed = []
        self._open = asyncio.Event()

    async def __call__(self, message):
        got(message)
        await self._open.wait()
        self.passed.append(int(message.payload))

    def open(self):
        self._open.set()
