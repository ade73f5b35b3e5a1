"""
For MicroPython programs that test the client over TLS: the arguments of TLS come as JSON in the
environment (TLS), and every event of the client is a line on stdout.
"""

import asyncio
import json
import os
import socket
import sys

from mqtt_as_tls import TLS, transport
from tests.device.app import make
from tests.device.watch import open_files


def tls_arguments():
    """Return what the test said."""
    return json.loads(os.getenv("TLS"))


def tls_given():
    """Return the TLS(...) that the test described, `ntp` off by default."""
    arguments = tls_arguments()
    arguments.setdefault("ntp", None)
    if isinstance(arguments["ntp"], list):
        arguments["ntp"] = tuple(arguments["ntp"])
    unverified = arguments.pop("unverified", False)
    return (TLS.unverified if unverified else TLS)(**arguments)


def secure(*host, **options):
    """Return an MQTTClient as make() does, with tls_given()."""
    return make(*host, tls=tls_given(), **options)


def hurry(client):
    """Have `client` wait for its broker less than options can say; return it."""
    client.connect_timeout_s = client.ack_timeout_s = 0.4
    return client


async def tell(events):
    """Print every event of the iterator `events` as a line "event NAME ERROR CODE"."""
    async for event in events:
        error = getattr(event, "error", None)
        if error:
            code = getattr(error, "code", None)
            print("event", type(event).__name__, type(error).__name__, code)
        else:
            print("event", type(event).__name__)


class Sockets:
    """
    Stands between the client and `socket`, and remembers how many others were open whenever it
    made one.
    """

    def __init__(self):
        self._before = open_files()
        self.others = []
        transport.socket = self

    def __getattr__(self, name):
        return getattr(socket, name)

    def socket(self, *args):
        self.others.append(self.open())
        return socket.socket(*args)

    def open(self):
        """Return how many files and sockets are open that were not there at first."""
        return open_files() - self._before


async def obey(names):
    """Do what the test sends: lines of Python, with `names` (dict) as their globals."""
    stdin = asyncio.StreamReader(sys.stdin)
    while True:
        line = (await stdin.readline()).decode().strip()
        if not line:
            return
        exec(line, names)
        print("did", line)
