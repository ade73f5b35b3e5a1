"""
How long a 1 ms ticker waits for its turn while mqtt_as_tls is in trouble beside it.

    stalls.py alone
    stalls.py dns|tcp|tls|black_hole PORT CA
    stalls.py handshake PORT CA CERT KEY

The result is the longest stall in ms and what ended the attempt to connect. That of `handshake`,
where all goes well, is the longest stall and beside it the longest single step of mbedTLS when a
bare socket's handshake is driven by hand: medians of ROUNDS connections each, in turn.
"""

import asyncio
import select
import socket
import sys
import time

from benchmarks.common import HOST, median, report
from mqtt_as_tls import TLS, MQTTClient

scenario, *parameters = sys.argv[1:]
port = int(parameters[0]) if parameters else 1
NAME = "broker.lan"
ROUNDS = 5


class Ticker:
    """A task that wakes every ms; `worst_ms` is the longest that it came late."""

    async def __aenter__(self):
        self.worst_us = 0
        self._task = asyncio.create_task(self._run())
        await asyncio.sleep_ms(5)
        self.worst_us = 0
        return self

    async def __aexit__(self, *_):
        await asyncio.sleep_ms(5)
        self._task.cancel()
        self.worst_ms = self.worst_us / 1000

    async def _run(self):
        last = time.ticks_us()
        while True:
            await asyncio.sleep_ms(1)
            now = time.ticks_us()
            self.worst_us = max(self.worst_us, time.ticks_diff(now, last) - 1000)
            last = now


class Link:
    """A network that is always up, with a DNS server on loopback."""

    def is_up(self):
        return True

    def dns_servers(self):
        return [(HOST, port)]


async def trouble():
    client = MQTTClient(
        NAME if scenario == "dns" else HOST,
        port,
        link=Link() if scenario == "dns" else None,
        tls=TLS(ca=parameters[1], server_hostname=NAME) if scenario == "tls" else None,
        connect_timeout_s=1,
        log=lambda line: None,
    )
    async with Ticker() as ticker:
        if scenario == "alone":
            await asyncio.sleep(1)
        else:
            async with client:
                while client.error is None:
                    await asyncio.sleep_ms(50)
    return {"stall_ms": ticker.worst_ms, "error": repr(client.error)}


def longest_step(tls):
    """Shake hands with the broker; return the longest call of mbedTLS in ms."""
    raw = socket.socket()
    raw.connect(socket.getaddrinfo(HOST, port)[0][-1])
    raw.setblocking(False)
    worst = 0
    start = time.ticks_us()
    sock = tls.context.wrap_socket(raw, server_hostname=NAME, do_handshake_on_connect=False)
    poller = select.poll()
    poller.register(raw, select.POLLIN)
    while True:
        n = sock.write(b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04step")
        worst = max(worst, time.ticks_diff(time.ticks_us(), start))
        if n:
            break
        poller.poll(5000)
        start = time.ticks_us()
    sock.close()
    raw.close()
    return worst / 1000


async def handshake():
    tls = TLS(*parameters[1:], server_hostname=NAME)
    client = MQTTClient(HOST, port, tls=tls, log=None)
    stalls, steps = [], []
    for _ in range(ROUNDS):
        async with Ticker() as ticker, client:
            await client.wait_connected(10)
        stalls.append(ticker.worst_ms)
        steps.append(longest_step(tls))
    return {"stall_ms": median(stalls), "step_ms": median(steps)}


report(asyncio.run(handshake() if scenario == "handshake" else trouble()))
