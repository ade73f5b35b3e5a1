"""
Figures of this chip, in its own time. Each function prints lines of "name number": see
tests/virtual_pico/figures.py, which runs them.
"""

import asyncio
import gc
import select
import socket
import time
from asyncio import core

import config

ADDRESS = ("10.77.0.1", config.port)
NAME = "broker.lan"
_CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04bare"
_DISCONNECT = b"\xe0\x00"
_TOPIC = "measured"
_PAYLOAD = bytes(100)


def tell(name, number):
    print("figure", name, number)


def since(start):
    return time.ticks_diff(time.ticks_us(), start) / 1000


def link():
    asyncio.run(config.link.up())


def bare(tls, publishes=20):
    """
    A program without a client: connect, handshake, CONNECT, CONNACK, each waited for; then
    prepared packets, of which nothing is kept and whose answers are counted only.
    """
    gc.collect()
    start = time.ticks_us()
    raw = socket.socket()
    raw.connect(ADDRESS)
    sock = tls.context.wrap_socket(raw, server_hostname=NAME)
    tell("bare_handshake_ms", since(start))
    sock.write(_CONNECT)
    sock.read(4)
    tell("bare_ms", since(start))
    raw.setsockopt(6, 1, 1)  # TCP_NODELAY
    raw.setblocking(False)
    asyncio.run(_bare_publishes(sock, publishes))
    raw.setblocking(True)
    sock.write(_DISCONNECT)
    sock.close()
    raw.close()


async def _bare_publishes(sock, count):
    head = bytes((0, len(_TOPIC))) + _TOPIC.encode()
    packet = bytearray((0x32, len(head) + 2 + len(_PAYLOAD))) + head + b"\0\0" + _PAYLOAD
    packet_id = 2 + len(head)
    ack = bytearray(4)

    def readable():
        yield core._io_queue.queue_read(sock)

    async def publish(n):
        packet[packet_id + 1] = n
        sock.write(packet)
        answer = None
        while not answer:
            await readable()
            answer = sock.readinto(ack)

    await publish(1)
    await asyncio.sleep_ms(20)
    gc.collect()
    for n in range(count):
        start = time.ticks_us()
        await publish(n + 2)
        tell("bare_publish_ms", since(start))
    packet = bytearray((0x30, len(head) + len(_PAYLOAD))) + head + _PAYLOAD
    gc.collect()
    start = time.ticks_us()
    for _ in range(count):
        while sock.write(packet) is None:
            await asyncio.sleep_ms(1)
    tell("bare_publish_qos0_ms", since(start) / count)
    await asyncio.sleep_ms(200)


def step(tls):
    """The longest single call of mbedTLS in a handshake."""
    gc.collect()
    raw = socket.socket()
    raw.connect(ADDRESS)
    raw.setblocking(False)
    poller = select.poll()
    worst = 0
    start = time.ticks_us()
    sock = tls.context.wrap_socket(raw, server_hostname=NAME, do_handshake_on_connect=False)
    poller.register(sock, select.POLLOUT)  # what it waits for itself
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
        await client.publish(_TOPIC, _PAYLOAD, qos=1)
        await asyncio.sleep_ms(20)
        gc.collect()
        ticker.worst_ms = 0
        for _ in range(publishes):
            await client.publish(_TOPIC, _PAYLOAD, qos=1)
        tell("publish_stall_ms", ticker.worst_ms)
        ticker.task.cancel()
        await asyncio.sleep_ms(20)
        gc.collect()
        for _ in range(publishes):
            start = time.ticks_us()
            await client.publish(_TOPIC, _PAYLOAD, qos=1)
            tell("publish_ms", since(start))
        gc.collect()
        start = time.ticks_us()
        for _ in range(publishes):
            await client.publish(_TOPIC, _PAYLOAD)
        tell("publish_qos0_ms", since(start) / publishes)


async def _awake(tls):
    from mqtt_as_tls import MQTTClient

    client = MQTTClient(*ADDRESS, link=config.link, tls=tls, client_id="measured", log=None)
    gc.collect()
    start = time.ticks_us()
    async with client:
        await client.wait_connected(60)
        await client.publish(_TOPIC, _PAYLOAD, qos=1)
    tell("awake_ms", since(start))


def awake(tls):
    """What a device on a battery does when its link is up: connect, publish, disconnect."""
    asyncio.run(_awake(tls))


async def _reconnects(tls, rounds):
    from mqtt_as_tls import MQTTClient

    def log(line):
        if "connected in" in line:
            tell("reconnect_ms", float(line.split("connected in ")[1].split()[0]))

    client = MQTTClient(*ADDRESS, link=config.link, tls=tls, client_id="measured", log=log)
    async with client:
        for n in range(rounds):
            while client.stats.connects <= n or not client.connected:
                await asyncio.sleep_ms(20)
            client.connection.transport.lost(OSError(104))
            while client.connected:
                await asyncio.sleep_ms(20)


def reconnects(tls, rounds=4):
    """From the begin of the TCP connection to CONNACK, again and again: of one client."""
    asyncio.run(_reconnects(tls, rounds))


def client(tls, protocol=4, publishes=20):
    asyncio.run(_client(tls, protocol, publishes))
