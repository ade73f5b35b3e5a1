"""A valve and a thermometer that appear in Home Assistant by themselves.

A broker of mqttls must let it announce itself: docs/home_assistant.md (With a broker of mqttls).
On the PC: .venv/bin/micropython -m examples.home_assistant (docs/tls.md, An app on the PC).
"""

import asyncio

import config
from machine import ADC, Pin

from mqtt_as_tls import MQTTClient, Will
from mqtt_as_tls.home_assistant import HomeAssistant

relay = Pin(15, Pin.OUT, value=0)
chip = ADC(ADC.CORE_TEMP)

# Home Assistant shows the device as unavailable while the broker says "offline" for it.
will = Will(config.home + "status", "offline", qos=1, retain=True, birth="online")
client = MQTTClient(**config.mqtt, will=will)
ha = HomeAssistant(client, "Garden", config.home, model="Pico W")

temperature = ha.sensor(
    "temperature", unit="°C", device_class="temperature", state_class="measurement"
)


@ha.switch("valve", value=False)
def valve(on):
    relay.value(on)


async def main():
    async with client:
        while True:
            celsius = 27 - (chip.read_u16() * 3.3 / 65535 - 0.706) / 0.001721
            await temperature.set(round(celsius, 1))
            await asyncio.sleep(60)


asyncio.run(main())
