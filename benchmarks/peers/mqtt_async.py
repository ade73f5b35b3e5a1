"""mqtt_async, which descends from mqtt_as: `micropython-mqtt` of PyPI. Wi-Fi is up beforehand."""

import asyncio

import mqtt_async
import network
from mqtt_async import STA_IF, MQTTClient, MQTTConfig

from benchmarks.awaiting import contest
from benchmarks.common import CA, CLIENT_ID, HOST, PORT, unable


class BoardSockets:
    """What a board's getaddrinfo returns can be read; that of the unix port is packed."""

    @staticmethod
    def getaddrinfo(host, port):
        return [(None, None, None, "", (host, port))]


mqtt_async.socket = BoardSockets
network.air.join_ms = network.air.dhcp_ms = 0
STA_IF.active(True)
STA_IF.connect("home", "correct horse")
while not STA_IF.isconnected():
    pass


async def open(arrived=None, filter=None, qos=0):
    config = MQTTConfig()
    config.server, config.port, config.client_id = HOST, PORT, CLIENT_ID
    config.subs_cb = lambda topic, payload, retained, qos: arrived()
    client = MQTTClient(config)
    await client.connect()
    if filter:
        await client.subscribe(filter, qos)
    return client


async def close(client):
    await client.disconnect()
    await asyncio.sleep_ms(10)  # its tasks end


if CA:
    unable("has no TLS")
contest(open, close)
