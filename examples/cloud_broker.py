"""A broker in the cloud: its CA is all that the board needs besides user and password."""

import asyncio

import config

from mqtt_as_tls import TLS, MQTTClient

client = MQTTClient(
    config.cloud_host,  # also sent as server name (SNI), without which many clouds hang up
    config.cloud_port,
    link=config.link,
    tls=TLS(ca=config.cloud_ca),
    user=config.cloud_user,
    password=config.cloud_password,
)


@client.on("greetings/#", qos=1)
def show(message):
    print(message.topic, message.payload.decode())


async def main():
    async with client:
        await client.publish("greetings/" + client.client_id, "hello", qos=1)
        await asyncio.sleep(600)


asyncio.run(main())
