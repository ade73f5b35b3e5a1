"""A program written for mqtt_as: wake up, connect at once, say and hear what there is, sleep."""

import asyncio

from mqtt_as import MQTTClient
from mqtt_local import config


def on_message(topic, msg, retained):
    print("got", bytes(topic), bytes(msg), retained)


async def main(client):
    try:
        await client.connect(quick=True)
    except OSError as e:
        print("Connection failed:", e)
        return
    await client.subscribe(b"garden/settings", 1)
    await client.publish(b"garden/battery", b"3.9", True, 1)
    print("broker up", await client.broker_up())
    await asyncio.sleep_ms(500)  # for what came while it slept
    await client.disconnect()
    print("sleep", client.isconnected())


config["subs_cb"] = on_message
config["clean"] = False
config["clean_init"] = False
config["keepalive"] = 120
config["will"] = ("garden/status", "crashed", False, 0)

client = MQTTClient(config)
asyncio.run(main(client))
