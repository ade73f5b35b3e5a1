"""An app that takes signed updates of itself, tries each once, and goes back where it must.

Not on the PC: it restarts the board. On the board it is app.py; main.py: docs/updates.md.
"""

import asyncio

import config
import mqtt_update

from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)

# mqttls update build app.py --version 2
# mosquitto_pub ... -q 1 -t devices/NAME/update -f app-2.update
mqtt_update.listen(client, config.home + "update")


async def main():
    async with client:
        while True:
            await client.publish(config.home + "version", str(mqtt_update.version), qos=1)
            await asyncio.sleep(3600)


asyncio.run(main())
