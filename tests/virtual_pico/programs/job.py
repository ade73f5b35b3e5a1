"""
What a device does all day: it publishes from/pico/count with numbers at QoS 1, and answers what
comes to to/pico/+ on from/pico/+ with the same QoS. Told so on to/pico/wrong, it tries a second
client that trusts the wrong CA; to/pico/stop ends the job.

    client = job.make(protocol)
    await job.run(client)
"""

import asyncio
import time

import config

from mqtt_as_tls import TLS, MQTTClient, MQTTError


def make(protocol):
    # with MQTT 3.1.1 the broker keeps the session for as long as it likes
    lasting = {"session_expiry_s": 600} if protocol == 5 else {}
    return MQTTClient(
        config.host,
        config.port,
        link=config.link,
        tls=config.tls,
        protocol=protocol,
        client_id="pico",
        keepalive_s=8,
        ack_timeout_s=6,
        **lasting,
    )


async def run(client):
    turns = 0
    stop = asyncio.Event()

    async def tick():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep_ms(20)

    async def count():
        number = 0
        while not stop.is_set():
            await client.publish("from/pico/count", str(number), qos=1)
            number += 1
            await asyncio.sleep_ms(500)
        print("counted", number)

    @client.on("to/pico/+", qos=2)
    async def answer(message):
        which = message.topic.split("/")[-1]
        if which == "stop":
            stop.set()
        elif which == "wrong":
            asyncio.create_task(wrong_ca())
        else:
            await client.publish("from/pico/" + which, message.payload, qos=message.qos)

    print("clock says", time.gmtime()[0])
    ticker = asyncio.create_task(tick())
    async with client:
        counter = asyncio.create_task(count())
        await client.wait_connected(60)
        print("now it says", time.gmtime()[0])
        await counter
    ticker.cancel()
    print("job done,", turns, "turns of another task")


async def wrong_ca():
    tls = TLS(ca="/certs/other_ca.der", cert="/certs/cert.der", key="/certs/key.der", ntp=None)
    client = MQTTClient(config.host, config.port, link=config.link, tls=tls, client_id="wrong")
    try:
        await client.connect(timeout_s=60)
    except MQTTError as error:
        print("refused:", type(error).__name__, error, "|", error.cure)
    finally:
        await client.disconnect()
