"""Keep every reading on flash until the broker has it: through outages, resets, power cuts.

On the PC: .venv/bin/micropython -m examples.store_and_forward (docs/tls.md, An app on the PC).
"""

import asyncio
import time

import config
from machine import ADC

from mqtt_as_tls import FileStore, MQTTClient

# Over 1,000 readings. When it is full the oldest make room; full="newest" refuses new ones.
store = FileStore("readings", max_bytes=65536, full="oldest")
client = MQTTClient(**config.mqtt, store=store)
sensor = ADC(ADC.CORE_TEMP)


async def main():
    async with client:
        while True:
            celsius = 27 - (sensor.read_u16() * 3.3 / 65535 - 0.706) / 0.001721
            # It may arrive days later: so it says when it was measured. Until the first
            # connection after power-on a board has no clock: it says 2021 (2000 on an ESP32).
            reading = "%d %.1f" % (time.time(), celsius)
            if not client.enqueue(config.home + "temperature", reading, qos=1):
                print("no room for", reading)
            await asyncio.sleep(60)


asyncio.run(main())
