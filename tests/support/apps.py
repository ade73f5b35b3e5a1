"""
Device apps for tests: MicroPython programs that differ only in what they do with the client.

An app is source text that defines `async def main()` (or calls asyncio.run itself); it is run
after the imports below, with the port that `make()` connects to as its first argument.
"""

import textwrap

from tests.support import mpy

_BEFORE = """\
import asyncio
import gc
import sys
import time
from mqtt_as_tls import MQTTClient, Will, retry, texts
from mqtt_as_tls.errors import *
from tests.device.app import *
from tests.device.watch import Ticker, open_files
from tests.unit.checks import raises
"""
_AFTER = "\nasyncio.run(main())\n"


def source(app):
    return _BEFORE + textwrap.dedent(app) + ("" if "asyncio.run(" in app else _AFTER)


def start(app, port, *args, **options):
    """Start `app`; return a mpy.Program to follow it."""
    return mpy.start(source(app), port, *args, **options)


def check(app, port, *args, **options):
    """Run `app` to its end and return its stdout; AssertionError unless it exits with 0."""
    return mpy.check(source(app), port, *args, **options)
