"""Publish the temperature of the chip once a minute, and know that it arrived.

On the PC: .venv/bin/micropython -m examples.sensor (docs/tls.md, An app on the PC).
"""

import asyncio

import config
from machine import ADC

from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)
sensor = ADC(ADC.CORE_TEMP)


def celsius():
    return 27 - (sensor.read_u16() * 3.3 / 65535 - 0.706) / 0.001721


async def main():
    async with client:
        while True:
            # Returns when the broker has acknowledged it, however long the network was gone.
            await client.publish(config.home + "temperature", "%.1f" % celsius(), qos=1)
            await asyncio.sleep(60)


asyncio.run(main())
