"""An app that takes updates of itself: what main.py starts is this, as app.py."""

import asyncio

import config
import mqtt_update

from mqtt_as_tls import MQTTClient

client = MQTTClient(config.host, config.tcp_port, link=config.link, client_id="updated", log=None)
mqtt_update.listen(client, config.home + "update")
number = 1


async def main():
    async with client:
        await client.wait_connected()
        print("runs", mqtt_update.version, "of", number)
        await asyncio.sleep(10_000)


asyncio.run(main())
