"""A broker in the cloud: its CA is all that the board needs besides user and password.

On the PC, with your cloud in it: .venv/bin/micropython -m examples.cloud_broker
(docs/tls.md, An app on the PC).
"""

import asyncio

from mqtt_as_tls import TLS, MQTTClient, WiFi

link = WiFi("my-ssid", "my-password")  # link = None on a PC: its network is up already
home = "devices/garden-1/"  # the topics that your cloud lets this device use begin so

client = MQTTClient(
    "mycluster.example.com",  # also sent as server name (SNI), without which many clouds hang up
    link=link,
    # The root CA as the cloud has it to download: mpremote cp cloud-ca.pem :/certs/
    tls=TLS(ca="/certs/cloud-ca.pem"),
    user="my-user",
    password="my-cloud-password",
)


@client.on(home + "greetings/#", qos=1)
def show(message):
    print(repr(message.topic), message.payload)  # as it is: it may hold anything


async def main():
    async with client:
        await client.publish(home + "greetings/" + client.client_id, "hello", qos=1)
        await asyncio.sleep(600)


asyncio.run(main())
