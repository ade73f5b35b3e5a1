"""umqtt.simple of PyPI. It blocks, so a program that waits for it can do nothing else."""

import sys

from benchmarks import ussl
from benchmarks.blocking import contest
from benchmarks.common import CA, CLIENT_ID, HOST, PAYLOAD, PORT

sys.modules["ussl"] = ussl

from umqtt.simple import MQTTClient  # noqa: E402  (it imports ussl)


class Client:
    def __init__(self, arrived=None, filter=None, qos=0):
        self._client = client = MQTTClient(CLIENT_ID, HOST, PORT, keepalive=60, ssl=bool(CA))
        client.set_callback(lambda topic, payload: arrived())
        client.connect()
        if filter:
            client.subscribe(filter.encode(), qos)
        self.wait = client.wait_msg
        self.close = client.disconnect

    def publish(self, topic, qos):
        self._client.publish(topic, PAYLOAD, qos=qos)


contest(Client)
