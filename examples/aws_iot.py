"""AWS IoT Core: mutual TLS on port 8883, MQTT 5, and a setting kept in the thing's shadow.

On the PC: .venv/bin/micropython -m examples.aws_iot (docs/tls.md, An app on the PC).
"""

import asyncio
import json

# host: what `aws iot describe-endpoint --endpoint-type iot:Data-ATS` says; client_id: the name
# of the thing, as its policy demands; tls: Amazon's root CAs 1 and 3, the thing's certificate, key
import config

from mqtt_as_tls import MQTTClient

SHADOW = "$aws/things/%s/shadow/update" % config.client_id
state = {"interval_s": 60}
client = MQTTClient(**config.mqtt, protocol=5)


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
            await client.publish(config.home + "reading", '{"celsius": 21.5}', qos=1)
            await asyncio.sleep(state["interval_s"])


asyncio.run(main())
