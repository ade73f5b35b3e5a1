"""
A device app that publishes readings and obeys commands, both with QoS 1, on verified mutual TLS.

    core_program.py PORT CA CERTIFICATE KEY READINGS

It prints what it does, line by line; the tests read that. It ends on the command "stop".
"""

import asyncio
import gc
import sys

import mqtt_as_tls
from mqtt_as_tls import TLS, MQTTClient

port, ca, certificate, key, readings = sys.argv[1:]

client = MQTTClient(
    "127.0.0.1",
    int(port),
    tls=TLS(ca=ca, cert=certificate, key=key, server_hostname="broker.lan", ntp=None),
    client_id="core",
)
stopped = asyncio.Event()


@client.on("core/command", qos=1)
def command(message):
    print("command", str(message.payload, "utf-8"))
    if message.payload == b"stop":
        stopped.set()


async def main():
    async with client:
        for number in range(int(readings)):
            await client.publish("core/reading", str(number), qos=1)
            print("acknowledged", number)
            await asyncio.sleep_ms(50)
        await stopped.wait()
        gc.collect()
        print("heap in use", gc.mem_alloc())
        print("modules", *(name for name in sys.modules if name.startswith("mqtt_as_tls.")))
    print("done")


print("imported from", mqtt_as_tls.__path__)
asyncio.run(main())
