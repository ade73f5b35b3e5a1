"""A program written for mqtt_as: callbacks, a clean session, readings that must all arrive."""

import asyncio

from mqtt_as import MQTTClient
from mqtt_local import config

outages = 0


def on_message(topic, msg, retained):
    print("got", topic.decode(), msg.decode(), retained)


async def on_wifi(state):
    global outages
    if not state:
        outages += 1
    print("network", "up" if state else "down")


async def on_connect(client):
    await client.subscribe("garden/valve", 1)
    print("subscribed")


async def main(client):
    try:
        await client.connect()
    except OSError as e:
        print("Connection failed.", e)
        return
    n = 0
    while True:
        await client.publish("garden/reading", "{}".format(n), qos=1)
        n += 1
        await asyncio.sleep_ms(100)


config["subs_cb"] = on_message
config["wifi_coro"] = on_wifi
config["connect_coro"] = on_connect
config["will"] = ("garden/status", "gone", True, 0)
config["clean"] = True

client = MQTTClient(config)
try:
    asyncio.run(main(client))
except KeyboardInterrupt:
    print("interrupted")
finally:
    client.close()
    asyncio.new_event_loop()
