"""umqtt.simple2 of PyPI: as umqtt.simple, but acknowledgements are told to a callback."""

import sys

from benchmarks import ussl
from benchmarks.blocking import contest
from benchmarks.common import CA, CLIENT_ID, HOST, IN_FLIGHT, PAYLOAD, PORT, TOPIC

sys.modules["ussl"] = ussl

from umqtt.simple2 import MQTTClient  # noqa: E402  (it imports ussl)


class Client:
    def __init__(self, arrived=None, filter=None, qos=0):
        self._unanswered = 0
        self._client = client = MQTTClient(CLIENT_ID, HOST, PORT, keepalive=60, ssl=bool(CA))
        client.set_callback(lambda topic, payload, retain, dup: arrived())
        client.set_callback_status(self._answered)
        client.connect()
        self.wait = client.wait_msg
        self.close = client.disconnect
        if filter:
            self._unanswered = 1
            client.subscribe(filter.encode(), qos)
            self._settle(0)

    def _answered(self, packet_id, status):
        if status != 1:
            raise OSError("not acknowledged")
        self._unanswered -= 1

    def _settle(self, most):
        while self._unanswered > most:
            self.wait()

    def publish(self, topic, qos):
        self._client.publish(topic, PAYLOAD, qos=qos)
        if qos:
            self._unanswered += 1
            self._settle(0)

    def in_flight(self, count):
        for _ in range(count):
            self._settle(IN_FLIGHT - 1)
            self._client.publish(TOPIC, PAYLOAD, qos=1)
            self._unanswered += 1
        self._settle(0)


contest(Client)
