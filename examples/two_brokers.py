"""Pass what the broker at home hears on to one in the cloud, over one Wi-Fi."""

import asyncio

import config

from mqtt_as_tls import TLS, MQTTClient

home = MQTTClient(config.host, config.port, link=config.link, tls=config.tls)
cloud = MQTTClient(
    config.cloud_host,
    config.cloud_port,
    link=config.link,  # the same object: the clients bring it up and reset it by turns
    tls=TLS(ca=config.cloud_ca),
    user=config.cloud_user,
    password=config.cloud_password,
    client_id="garden-relay",
)


@home.on("garden/#", qos=1)
async def relay(message):
    # Acknowledged at home only when the cloud has it: an outage there loses nothing.
    await cloud.publish("home/" + message.topic, message.payload, qos=1)


async def main():
    async with cloud, home:
        while True:
            await asyncio.sleep(60)
            print("relayed", cloud.stats.sent, "of", home.stats.received)


asyncio.run(main())
