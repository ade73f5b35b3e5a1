"""
For MicroPython programs that test the client: a client to the port in argv[1], a conversation
with the test through stdin, no pauses where a test needs many reconnects.
"""

import asyncio
import sys

from mqtt_as_tls import MQTTClient, connection, retry
from mqtt_as_tls import client as client_module

_said = None  # lines of stdin that nobody has asked for


def make(host="127.0.0.1", **options):
    """Return an MQTTClient to `host`, port argv[1], with the id "device" unless given."""
    options.setdefault("client_id", "device")
    return MQTTClient(host, int(sys.argv[1]), **options)


async def _listen():
    stdin = asyncio.StreamReader(sys.stdin)
    while True:
        line = await stdin.readline()
        if not line:
            return
        _said.append(line.decode().strip())


async def told(line):
    """Return when the test has sent `line` (str); other tasks go on."""
    global _said
    if _said is None:
        _said = []
        asyncio.create_task(_listen())
    await until(lambda: line in _said)
    _said.remove(line)


async def until(is_so):
    """Return when `is_so()` is true, looking often; the test's own deadline ends it."""
    while not is_so():
        await asyncio.sleep_ms(5)


async def next_event(events, name):
    """Return the next event of the iterator `events` whose class has this name (str)."""
    event = None
    while type(event).__name__ != name:
        event = await events.__anext__()
    return event


def _keeps_retry(unload):
    return lambda *names: unload(*[name for name in names if name != "retry"])


for _module in (client_module, connection, retry):  # or it would not stay as a test changed it
    _module.unload = _keeps_retry(_module.unload)


class Soonest:
    """In the place of `random`: every back-off is the shortest that the jitter allows."""

    @staticmethod
    def random():
        return 0.0


class Latest:
    """In the place of `random`: every back-off is the longest that the jitter allows."""

    @staticmethod
    def random():
        return 0.999999


def soonest():
    """Reconnect without the back-off, so that a test of many outages is short."""
    retry.random = Soonest


def latest():
    """Reconnect with as long a back-off as may be."""
    retry.random = Latest
