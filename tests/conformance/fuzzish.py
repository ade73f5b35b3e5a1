"""
MicroPython: the client of mosquitto's message sequences. It connects, does what it is told and
ends with its connection, which must have ended with an MQTTError.

    micropython fuzzish.py fuzzish PORT PROTOCOL CLEAN_START [COMMAND]
"""

import asyncio
import sys

from mqtt_as_tls import Connected, Disconnected, MQTTClient, MQTTError

_, PORT, PROTOCOL, CLEAN_START, *COMMAND = sys.argv[1:]
OPTIONS = {}
PUBLISH = UNSUBSCRIBE = None
if PROTOCOL == "5":
    OPTIONS = {
        "max_backlog": 20 * 4096,
        "properties": [("session_expiry_interval", None), ("maximum_packet_size", None)],
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


async def obey(client, command):
    try:
        if command.startswith("publish-"):
            qos = int(command[-1])
            await client.publish("test/publish", "message", qos=qos, properties=PUBLISH)
        elif command == "unsubscribe":
            await client.unsubscribe("test/subscribe", properties=UNSUBSCRIBE)
        else:
            raise NotImplementedError(command)
    except MQTTError:
        pass  # refused, or the connection ended
    except Exception as error:
        if client.running:
            failed(error)


def failed(error):
    print("FAIL:", sys.argv[1:])
    sys.print_exception(error)


async def main():
    client = MQTTClient(
        "localhost",
        int(PORT),
        client_id="fuzzish",
        protocol=int(PROTOCOL),
        clean_start=CLEAN_START == "True",
        log=None,
        **OPTIONS,
    )
    events = client.events()
    async with client:
        async for event in events:
            if isinstance(event, Connected) and COMMAND:
                asyncio.create_task(obey(client, COMMAND[0]))
            if isinstance(event, Disconnected):
                break
    if not isinstance(event.error, MQTTError):
        failed(event.error)


asyncio.run(asyncio.wait_for(main(), 60))
