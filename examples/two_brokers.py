"""Pass what the broker at home hears on to one in the cloud, over one Wi-Fi.

On the PC, with your cloud in it: .venv/bin/micropython -m examples.two_brokers
(docs/tls.md, An app on the PC).
"""

import asyncio

import config

from mqtt_as_tls import TLS, MQTTClient

home = MQTTClient(**config.mqtt)
cloud = MQTTClient(
    "mycluster.example.com",
    link=config.link,  # the same object: the clients bring it up and reset it by turns
    # The root CA as the cloud has it to download: mpremote cp cloud-ca.pem :/certs/
    tls=TLS(ca="/certs/cloud-ca.pem"),
    user="my-user",
    password="my-cloud-password",
    client_id="garden-relay",
)


@home.on(config.home + "#", qos=1)
async def relay(message):
    # Acknowledged at home only when the cloud has it: an outage there loses nothing.
    await cloud.publish(message.topic, message.payload, qos=1)


async def main():
    async with cloud, home:
        while True:
            await asyncio.sleep(60)
            print("relayed", cloud.stats.sent, "of", home.stats.received)


asyncio.run(main())
