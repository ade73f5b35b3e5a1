"""Two clients, one per protocol, that share the link: each sends to the other."""

import asyncio

import config

from mqtt_as_tls import MQTTClient


def make(name, protocol):
    return MQTTClient(
        config.host,
        config.port,
        link=config.link,
        tls=config.tls,
        protocol=protocol,
        client_id=name,
    )


async def _main():
    castor, pollux = make("castor", 4), make("pollux", 5)
    heard = []

    @castor.on("twins/castor", qos=1)
    def to_castor(message):
        heard.append(message.payload)

    @pollux.on("twins/pollux", qos=2)
    def to_pollux(message):
        heard.append(message.payload)

    async with castor, pollux:
        for client in (castor, pollux):
            await client.wait_connected(60)
        await castor.publish("twins/pollux", "from castor", qos=2)
        await pollux.publish("twins/castor", "from pollux", qos=1)
        while len(heard) < 2:
            await asyncio.sleep_ms(20)
    print("heard", sorted(heard))


def main():
    asyncio.run(_main())
