"""
Numbered messages that are on flash, or on their way. What is promised is printed.

    keeper.keep("run")             enqueue without a network, until the power goes
    keeper.publish("run", qos)     publish through the broker, until the power goes
    keeper.empty()                 send what is on flash, and end
"""

import asyncio

import config

from mqtt_as_tls import FileStore, MQTTClient


class Nowhere:
    """A link that never comes up."""

    def is_up(self):
        return False

    async def up(self):
        await asyncio.sleep(3600)

    reset = up

    def dns_servers(self):
        return []


def make(link=config.link, **options):
    store = FileStore("/kept", 32768)
    client = MQTTClient(
        config.host, config.tcp_port, link=link, client_id="keeper", store=store, **options
    )
    return client, store


async def _keep(run):
    client, _ = make(Nowhere(), log=None)
    number = 0
    async with client:
        while client.enqueue("from/keeper", f"{run}-{number}", qos=2):
            print("kept", f"{run}-{number}", ".")
            number += 1


def keep(run):
    asyncio.run(_keep(run))


async def _publish(run, qos):
    client, _ = make()
    number = 0
    async with client:
        while True:
            name = f"{run}-{number}"
            await client.publish("from/keeper", name, qos=qos)
            print("delivered", name, ".")
            number += 1


def publish(run, qos):
    asyncio.run(_publish(run, qos))


async def _empty():
    client, store = make()
    print("on flash", len(store))
    async with client:
        while len(store):
            await asyncio.sleep_ms(50)
    print("empty")


def empty():
    asyncio.run(_empty())
