"""
MicroPython: the client of mosquitto's message sequences. For each it connects, does what it is
told and ends with its connection, which must have ended with an MQTTError.

One interpreter runs the clients of many sequences, as starting it takes longer than all the rest.
Each line of stdin is PORT PROTOCOL CLEAN_START [COMMAND]; the exit status that a client would have
is written to the file `ended`.
"""

import asyncio
import sys

from mqtt_as_tls import Connected, Disconnected, MQTTClient, MQTTError

BARE = {
    "properties": [
        ("receive_maximum", 20),
        ("session_expiry_interval", None),
        ("maximum_packet_size", None),
    ],
}
PUBLISH = [
    ("payload_format_indicator", 1),
    ("message_expiry_interval", 0xFFFFFFFF),
    ("response_topic", "response/topic"),
    ("correlation_data", b"7deac5c5-8802-44ff-86ce-11479f337419"),
    ("content_type", "text/plain"),
    ("user_property", ("key", "value")),
]
UNSUBSCRIBE = [("user_property", ("key", "value"))]


async def obey(client, five, command):
    try:
        if command.startswith("publish-"):
            qos = int(command[-1])
            properties = PUBLISH if five else None
            await client.publish("test/publish", "message", qos=qos, properties=properties)
        elif command == "unsubscribe":
            await client.unsubscribe("test/subscribe", properties=UNSUBSCRIBE if five else None)
        else:
            raise NotImplementedError(command)
    except MQTTError:
        pass  # refused, or the connection ended
    except Exception as error:
        if client.running:
            failed(error)


def failed(error):
    print("FAIL:", repr(error))
    sys.print_exception(error)


async def run(port, protocol, clean_start, command=None):
    five = protocol == "5"
    client = MQTTClient(
        "localhost",
        int(port),
        client_id="fuzzish",
        protocol=int(protocol),
        clean_start=clean_start == "True",
        log=None,
        **(BARE if five else {}),
    )
    events = client.events()
    async with client:
        async for event in events:
            if isinstance(event, Connected) and command:
                asyncio.create_task(obey(client, five, command))
            if isinstance(event, Disconnected):
                break
    if not isinstance(event.error, MQTTError):
        raise event.error


async def main():
    for line in sys.stdin:
        code = 0
        try:
            await asyncio.wait_for(run(*line.split()), 60)
        except Exception as error:
            failed(error)
            code = 1
        with open("ended", "w") as ended:
            print(code, file=ended)


asyncio.run(main())
