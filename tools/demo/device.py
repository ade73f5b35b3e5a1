"""
A device app: a greenhouse that reports its temperature and has a valve to open and close.

    micropython device.py HOST PORT FOLDER     # FOLDER has ca.der, cert.der and key.der

`mqttls device add greenhouse` makes that folder; mqttls's ACL gives the device the topics
devices/greenhouse/… and no others.

It runs here as it would on a board, where MQTTClient also gets link=WiFi("ssid", "password"). It
knows nothing of outages: every publish() returns when the broker has the message, however often
the connection breaks before. The lines of JSON that it prints are for the display of `./dev demo`.
"""

import asyncio
import gc
import json
import math
import sys
import time

from mqtt_as_tls import TLS, MQTTClient, Will

HOST, PORT, FOLDER = sys.argv[1:]
EVERY_MS = 100
MOST_WAITING = 150  # readings that wait for the broker: memory ends somewhere

client = MQTTClient(
    HOST,
    int(PORT),
    tls=TLS(ca=FOLDER + "/ca.der", cert=FOLDER + "/cert.der", key=FOLDER + "/key.der"),
    will=Will("devices/greenhouse/status", "offline", retain=True, birth="online"),
    ack_timeout_s=2,  # a link that is silent for longer is taken for dead
    max_waiting=MOST_WAITING + 1,  # and the answer of the valve
)
stop = asyncio.Event()
facts = {"published": 0, "acknowledged": 0, "stall_ms": 0}


@client.on("devices/greenhouse/valve", qos=1)
async def set_valve(message):
    position = message.payload.decode()
    print("valve is now", position)  # a board moves its motor here
    await client.publish("devices/greenhouse/valve/is", position, qos=1, retain=True)


@client.on("devices/greenhouse/stop", qos=1)
def set_stop(message):
    stop.set()


async def report(n):
    celsius = 21 + 4 * math.sin(n / 30)  # a board reads its sensor here
    reading = {"n": n, "celsius": round(celsius, 1)}
    await client.publish("devices/greenhouse/temperature", json.dumps(reading), qos=1)
    facts["acknowledged"] += 1


async def tick():
    """Keep how long the other tasks of the app had to wait at worst."""
    last = time.ticks_ms()
    while True:
        await asyncio.sleep_ms(1)
        now = time.ticks_ms()
        facts["stall_ms"] = max(facts["stall_ms"], time.ticks_diff(now, last) - 1)
        last = now


async def tell():
    while True:
        print(json.dumps(facts))
        await asyncio.sleep_ms(200)


async def main():
    async with client:
        await client.wait_connected()
        others = [asyncio.create_task(each()) for each in (tick, tell)]
        while not stop.is_set():
            if facts["published"] - facts["acknowledged"] < MOST_WAITING:
                facts["published"] += 1
                asyncio.create_task(report(facts["published"]))
            await asyncio.sleep_ms(EVERY_MS)
        while facts["acknowledged"] < facts["published"]:
            await asyncio.sleep_ms(10)
        for each in others:
            each.cancel()
        gc.collect()
        facts["heap"] = gc.mem_alloc()
        facts["resent"] = client.stats.resent
    print(json.dumps(facts))


asyncio.run(main())
