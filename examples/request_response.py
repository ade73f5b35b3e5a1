"""Ask another device and wait for its answer; answer what others ask. MQTT 5 carries both."""

import asyncio

import config

from mqtt_as_tls import MQTTClient, RefusedError

client = MQTTClient(config.host, config.port, link=config.link, tls=config.tls, protocol=5)
liters = {"garden/tank": 420, "garden/barrel": 75}


@client.on("garden/level/get", qos=1)
async def level(message):
    name = message.payload.decode()
    # To the topic that the question names, with its correlation data: only who asked sees it.
    await client.respond(message, str(liters.get(name, "unknown")))


async def main():
    async with client:
        while True:
            try:
                answer = await client.request("weather/rain/get", "tomorrow", qos=1, timeout_s=10)
                print("rain tomorrow:", answer.payload.decode())
            except RefusedError:
                print("nobody is there to answer")
            except asyncio.TimeoutError:
                print("no answer within 10 s")
            await asyncio.sleep(600)


asyncio.run(main())
