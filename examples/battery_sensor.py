"""Wake up, publish one reading, sleep for ten minutes; a board then starts main.py again.

On the PC: .venv/bin/micropython -m examples.battery_sensor (docs/tls.md, An app on the PC).
"""

import asyncio
import sys

import config
from machine import ADC, deepsleep

from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)


async def main():
    reading = ADC(26).read_u16()  # before the radio is on: it disturbs
    try:
        await client.connect(timeout_s=30)
        await client.publish(config.home + "moisture", str(reading), qos=1, timeout_s=10)
    finally:
        await client.disconnect()
        if config.link:
            await config.link.down()  # the radio is what takes the current


try:
    asyncio.run(main())
except Exception as error:  # not today; Ctrl-C is none, so that you can stop it
    sys.print_exception(error)
deepsleep(600_000)
