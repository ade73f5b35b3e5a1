"""
Figures of this chip, in its own time. Each function prints lines of "name number": see
tests/virtual_pico/figures.py, which runs them.
"""

import asyncio
import gc
import select
import socket
import time

import config

ADDRESS = ("10.77.0.1", config.port)
NAME = "broker.lan"
_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04bare"
_DISCONNECT = b"\xe0\x00"
_PAYLOAD = bytes(100)


def tell(name, number):
    print("figure", name, number)


def since(start):
    return time.ticks_diff(time.ticks_us(), start) / 1000


def link():
    asyncio.run(config.link.up())


def bare(tls):
    """A program without a client: connect, handshake, CONNECT, CONNACK, each waited for."""
    gc.collect()
    start = time.ticks_us()
    raw = socket.socket()
    raw.connect(ADDRESS)
    sock = tls.context.wrap_socket(raw, server_hostname=NAME)
    tell("bare_handshake_ms", since(start))
    sock.write(_CONNECT)
    sock.read(4)
    tell("bare_ms", since(start))
    sock.write(_DISCONNECT)
    sock.close()
    raw.close()


def step(tls):
    """The longest single call of mbedTLS in a handshake."""
    gc.collect()
    raw = socket.socket()
    raw.connect(ADDRESS)
    raw.setblocking(False)
    poller = select.poll()
    poller.register(raw, select.POLLIN)
    worst = 0
    start = time.ticks_us()
    sock = tls.context.wrap_socket(raw, server_hostname=NAME, do_handshake_on_connect=False)
    while True:
        written = sock.write(_CONNECT)
        worst = max(worst, since(start))
        if written:
            break
        poller.poll(10000)
        start = time.ticks_us()
    tell("step_ms", worst)
    sock.close()
    raw.close()


class Ticker:
    """A task that wakes every ms; `worst_ms` is the longest that it came late."""

    def __init__(self):
        self.worst_ms = 0
        self.task = asyncio.create_task(self.run())

    async def run(self):
        last = time.ticks_us()
        while True:
            await asyncio.sleep_ms(1)
            now = time.ticks_us()
            self.worst_ms = max(self.worst_ms, time.ticks_diff(now, last) / 1000 - 1)
            last = now


async def _client(tls, protocol, publishes):
    from mqtt_as_tls import MQTTClient

    client = MQTTClient(
        *ADDRESS, link=config.link, tls=tls, protocol=protocol, client_id="measured", log=None
    )
    gc.collect()
    ticker = Ticker()
    await asyncio.sleep_ms(20)
    ticker.worst_ms = 0
    start = time.ticks_us()
    async with client:
        await client.wait_connected(60)
        tell("client_ms", since(start))
        await asyncio.sleep_ms(20)
        tell("connect_stall_ms", ticker.worst_ms)
        gc.collect()
        await client.publish("measured", _PAYLOAD, qos=1)
        await asyncio.sleep_ms(20)
        gc.collect()
        ticker.worst_ms = 0
        for _ in range(publishes):
            start = time.ticks_us()
            await client.publish("measured", _PAYLOAD, qos=1)
            tell("publish_ms", since(start))
        tell("publish_stall_ms", ticker.worst_ms)
        ticker.task.cancel()


def client(tls, protocol=4, publishes=20):
    asyncio.run(_client(tls, protocol, publishes))
