"""
A device app on Wi-Fi (that of tests/fakes) and mutual TLS, with one handler, which says what it
has imported of the package after each thing that happens to it:

    app.py PORT CA CERT KEY
"""

import asyncio
import sys

from mqtt_as_tls import TLS, MQTTClient, WiFi
from tests.fakes import network

port, ca, cert, key = sys.argv[1:]

network.board("cyw43")
client = MQTTClient(
    "127.0.0.1",
    int(port),
    link=WiFi("home", "correct horse"),
    tls=TLS(ca=ca, cert=cert, key=key, server_hostname="broker.lan"),
    client_id="app",
)
heard = asyncio.Event()


@client.on("app/command", qos=1)
def command(message):
    heard.set()


def imported(when):
    print(when, *(name for name in sys.modules if name.startswith("mqtt_as_tls")))


async def main():
    async with client:
        await client.publish("app/reading", "21.5", qos=1)
        await client.publish("app/command", "go on", qos=1)
        await heard.wait()
        imported("working")
        while client.error is None:  # the broker goes away and comes back
            await asyncio.sleep_ms(20)
        await client.publish("app/reading", "22.0", qos=1)
        imported("outage")
        await client.subscribe("app/other")
        imported("subscribe")
    imported("disconnect")


asyncio.run(main())
