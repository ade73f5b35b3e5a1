"""A valve and a thermometer that appear in Home Assistant by themselves."""

import asyncio
import json

import config
from machine import ADC, Pin

from mqtt_as_tls import MQTTClient, Will

ME = "garden-1"  # begins every topic, and is what Home Assistant knows the device by
relay = Pin(15, Pin.OUT, value=0)
status = Will(ME + "/status", "offline", qos=1, retain=True, birth="online")
client = MQTTClient(**config.mqtt, will=status)


async def describe(kind, name, **more):
    more.update(name=name, unique_id=ME + "-" + name, state_topic=ME + "/" + name)
    more.update(availability_topic=status.topic, device={"identifiers": [ME], "name": ME})
    topic = "homeassistant/%s/%s/%s/config" % (kind, ME, name)
    await client.publish(topic, json.dumps(more), qos=1, retain=True)


@client.on(ME + "/valve/set", qos=1)
async def switch(message):
    relay.value(message.payload == b"ON")
    await client.publish(ME + "/valve", message.payload, qos=1, retain=True)


async def main():
    async with client:
        await describe("switch", "valve", command_topic=ME + "/valve/set")
        await describe("sensor", "temperature", unit_of_measurement="°C")
        while True:
            celsius = 27 - (ADC(ADC.CORE_TEMP).read_u16() * 3.3 / 65535 - 0.706) / 0.001721
            await client.publish(ME + "/temperature", "%.1f" % celsius, qos=1)
            await asyncio.sleep(60)


asyncio.run(main())
