"""
A device with a store, to be killed at any moment: enqueues or publishes numbered messages and
prints which ones it was promised (a line that was not cut ends with a dot), or empties its store
and ends.

    kept.py PORT PROTOCOL DIRECTORY RUN WHAT QOS

WHAT is enqueue, publish, receive, offline (enqueue without a broker) or empty.
"""

import asyncio
import sys

from mqtt_as_tls import FileStore, MQTTClient

port, protocol, directory, run, what, qos = sys.argv[1:7]
qos = int(qos)
store = FileStore(directory, 16384, max_writes=60_000)
client = MQTTClient(
    "127.0.0.1",
    int(port),
    protocol=int(protocol),
    client_id="kept",
    store=store,
    drain_s=0,
    log=None if what == "empty" else print,
)


@client.on("to/kept", qos=2)
def arrived(message):
    print("got", message.payload.decode(), ".")


async def publisher(lane):
    i = 0
    while True:
        name = "%s-%s-%d" % (run, lane, i)
        await client.publish("from/kept", name, qos=qos)
        print("acknowledged", name, ".")
        i += 1


async def enqueue():
    i = 0
    while True:
        name = "%s-q-%d" % (run, i)
        if client.enqueue("from/kept", name, qos=qos):
            print("kept", name, ".")
            i += 1
            await asyncio.sleep_ms(0)
        else:
            await asyncio.sleep_ms(5)


async def main():
    async with client:
        print("started")
        if what in ("enqueue", "offline"):
            await enqueue()
        elif what == "publish":
            await asyncio.gather(*[publisher(lane) for lane in "abc"])
        elif what == "receive":
            while True:
                await asyncio.sleep(1)
        else:
            await client.wait_connected()
            while len(store):
                await asyncio.sleep_ms(10)
            await asyncio.sleep_ms(500)
    print("empty", len(store), store.damaged, store.errors)


asyncio.run(main())
