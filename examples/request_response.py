"""Ask another program and wait for its answer; answer what others ask. MQTT 5 carries both.

On the PC: .venv/bin/micropython -m examples.request_response (docs/tls.md, An app on the PC).
"""

import asyncio

import config

from mqtt_as_tls import MQTTClient, RefusedError

client = MQTTClient(**config.mqtt, protocol=5)
liters = {"garden/tank": 420, "garden/barrel": 75}


@client.on(config.home + "level/get", qos=1)
async def level(message):
    name = message.payload.decode()
    # To the topic that the question names, with its correlation data: only who asked sees it.
    await client.respond(message, str(liters.get(name, "unknown")))


async def rain(day):
    topic, back = config.home + "rain/get", config.home + "rain"
    return await client.request(topic, day, qos=1, timeout_s=10, response_topic=back)


async def main():
    async with client:
        while True:
            try:
                print("rain tomorrow:", (await rain("tomorrow")).payload)
            except RefusedError as error:
                print("cannot ask:", error)  # nobody is there to answer, or the broker's ACL
            except asyncio.TimeoutError:
                print("no answer within 10 s")
            await asyncio.sleep(600)


asyncio.run(main())
