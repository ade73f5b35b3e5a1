"""
A board's app with what `mqttls device add` made: python -m … FOLDER ACTION ARGUMENTS

FOLDER is the device's; it is read anew at each start, as a board reads its flash.

publish TOPIC PAYLOAD   connect once, publish with QoS 1: prints "done", or "failed" and the error
refused TOPIC           the same, but for 3 s only
request TOPIC PAYLOAD SECONDS   send a request, with MQTT 5; prints the topic and payload of the
                        response, which has 10 s unless it says another number
respond TOPIC PAYLOAD   answer each request that comes to the topic, for ever; prints "ready", and
                        "not told" for an answer that the broker refuses
tick TOPIC              publish a counter every 100 ms for ever; prints each event
"""

import asyncio
import json
import sys

from mqtt_as_tls import TLS, MQTTClient


def make_client(folder, log=None, **options):
    """Return an MQTTClient with the settings and files in `folder`; `options` of it."""
    with open(folder + "/tls.json") as file:
        settings = json.load(file)

    def path(name):
        return folder + "/" + name if name else None

    tls = TLS(
        ca=[path(each) for each in settings["ca"]],
        cert=path(settings.get("cert")),
        key=path(settings.get("key")),
        server_hostname=settings["server_hostname"],
        ntp=None,
    )
    return MQTTClient(
        settings["host"],
        settings["port"],
        tls=tls,
        client_id=settings["client_id"],
        user=settings.get("user"),
        password=settings.get("password"),
        log=log,
        **options,
    )


async def once(folder, action, *arguments):
    client = make_client(folder)
    try:
        await client.connect(timeout_s=3 if action == "refused" else 20)
        await client.publish(*arguments, qos=1, timeout_s=10)
        print("done")
    except Exception as error:
        print("failed", repr(error))
        return
    await client.disconnect()


async def request(folder, topic, payload, timeout_s="10"):
    async with make_client(folder, protocol=5) as client:
        try:
            answer = await client.request(topic, payload, qos=1, timeout_s=float(timeout_s))
            print("answer", answer.topic, answer.payload.decode())
        except Exception as error:
            print("failed", repr(error))


async def respond(folder, topic, payload):
    client = make_client(folder, protocol=5)

    @client.on(topic, qos=1)
    async def asked(message):
        try:
            await client.respond(message, payload)
        except Exception as error:
            print("not told", repr(error))

    async with client:
        await client.subscribe(topic, 1)
        print("ready")
        while True:
            await asyncio.sleep(1)


async def tick(folder, topic):
    client = make_client(folder)
    async with client:
        asyncio.create_task(tell(client))
        count = 0
        while True:
            await client.publish(topic, str(count), qos=1)
            count += 1
            await asyncio.sleep_ms(100)


async def tell(client):
    async for event in client.events():
        print("event", type(event).__name__)


if __name__ == "__main__":
    _, folder, action, *arguments = sys.argv
    action = {"tick": tick, "request": request, "respond": respond}.get(action)
    asyncio.run(action(folder, *arguments) if action else once(*sys.argv[1:]))
