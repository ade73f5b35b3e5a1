"""An app that takes updates of itself: what main.py starts is this, as app.py."""

import asyncio
import time

import config
import mqtt_update

from mqtt_as_tls import MQTTClient

client = MQTTClient(config.host, config.tcp_port, link=config.link, client_id="updated")
mqtt_update.listen(client, config.home + "update")
number = 1
longest = 0


async def main():
    global longest
    async with client:
        await client.wait_connected()
        print("runs", mqtt_update.version, "of", number)
        last = time.ticks_ms()
        while True:
            await asyncio.sleep_ms(10)
            now = time.ticks_ms()
            late = time.ticks_diff(now, last) - 10
            if late > longest:
                longest = late
                print("another task stood still for", longest, "ms")
            last = now


asyncio.run(main())
