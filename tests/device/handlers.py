"""Handlers that the programs of tests share. Each prints what it does with which payload."""

import asyncio

from tests.device.app import told


def text(message):
    return str(message.payload, "utf-8")


def got(message):
    """Print "got PAYLOAD QOS"."""
    print("got", text(message), message.qos)


async def hold(message):
    """Print "begins PAYLOAD", and "ends PAYLOAD" when the test has said "end"."""
    print("begins", text(message))
    await told("end")
    print("ends", text(message))


class Gate:
    """
    A handler that lets no message pass until `open()`.

    got  list of int: the payloads (numbers) that passed, in order
    """

    def __init__(self):
        self.got = []
        self._open = asyncio.Event()

    async def __call__(self, message):
        print("begins")
        await self._open.wait()
        self.got.append(int(message.payload))

    def open(self):
        self._open.set()
