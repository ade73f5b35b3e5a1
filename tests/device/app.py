"""
For MicroPython programs that test the client: a client to the port in argv[1], a conversation
with the test through stdin, no pauses where a test needs many reconnects.
"""

import asyncio
import sys

from mqtt_as_tls import MQTTClient, failing

_stdin = None


def make(**options):
    """Return an MQTTClient for loopback, port argv[1], with the id "device" unless given."""
    options.setdefault("client_id", "device")
    return MQTTClient("127.0.0.1", int(sys.argv[1]), **options)


async def told(line=None):
    """Return the next line of stdin, which must be `line` if that is given; others go on."""
    global _stdin
    if _stdin is None:
        _stdin = asyncio.StreamReader(sys.stdin)
    said = (await _stdin.readline()).decode().strip()
    if line is not None and said != line:
        raise RuntimeError("told {!r} instead of {!r}".format(said, line))
    return said


async def until(is_so):
    """Return when `is_so()` is true, looking often; the test's own deadline ends it."""
    while not is_so():
        await asyncio.sleep_ms(5)


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
    failing.random = Soonest
