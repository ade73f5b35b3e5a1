"""AWS IoT Core: mutual TLS on port 8883, MQTT 5, and a setting kept in the thing's shadow."""

import asyncio
import json

import config

from mqtt_as_tls import MQTTClient

SHADOW = "$aws/things/garden-1/shadow/update"
state = {"interval_s": 60}
client = MQTTClient(
    config.host,  # what `aws iot describe-endpoint --endpoint-type iot:Data-ATS` says
    config.port,
    link=config.link,
    tls=config.tls,  # Amazon's root CAs 1 and 3, the certificate and the key of the thing
    client_id="garden-1",  # the name of the thing, as its policy demands
    protocol=5,
)


@client.on(SHADOW + "/delta", qos=1)  # AWS refuses QoS 2
async def change(message):
    state.update(json.loads(message.payload)["state"])
    await report()


@client.on_connect  # the answer is a delta, if somebody changed the setting meanwhile
async def report():
    await client.publish(SHADOW, json.dumps({"state": {"reported": state}}), qos=1)


async def main():
    async with client:
        while True:
            await client.publish("things/garden-1/reading", '{"celsius": 21.5}', qos=1)
            await asyncio.sleep(state["interval_s"])


asyncio.run(main())
