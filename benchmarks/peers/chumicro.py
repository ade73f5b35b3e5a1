"""chumicro-mqtt of PyPI, driven by its Runner, with buffers as large as those of mqtt_as_tls."""

import time

from chumicro_mqtt import MQTTBackpressureError, MQTTClient
from chumicro_runner import Runner
from chumicro_timing import ticks_ms

from benchmarks.blocking import contest
from benchmarks.common import CLIENT_ID, HOST, IN_FLIGHT, PAYLOAD, PORT, TOPIC, context, since_ms

_context = context()


class Client:
    def __init__(self, arrived=None, filter=None, qos=0):
        self._granted = not filter
        self._unanswered = 0
        self._runner = Runner()
        self._client = client = MQTTClient.from_config(
            {"mqtt.broker.host": HOST, "mqtt.broker.port": PORT, "mqtt.client_id": CLIENT_ID},
            ssl_context=_context,
            rx_buffer_size=4096,
            recv_budget_per_tick=4096,
        )
        if filter:
            client.on_message = lambda topic, payload: arrived()
            client.subscribe(filter, qos, on_subscribe=self._subscribed)
        client.connect()
        self._runner.add(client)
        self.step_ms = 0
        while client.state != "connected" or not self._granted:
            self._runner.wait(ticks_ms())
            start = time.ticks_us()
            self._runner.tick()
            self.step_ms = max(self.step_ms, since_ms(start))
            if client.state == "failed":
                raise client.last_error

    def _subscribed(self, topic, granted):
        self._granted = True

    def _acknowledged(self, topic, payload):
        self._unanswered -= 1

    def wait(self):
        self._runner.wait(ticks_ms())
        self._runner.tick()
        if self._client.state != "connected":
            raise self._client.last_error

    def close(self):
        self._client.disconnect()

    def publish(self, topic, qos):
        if qos:
            self._unanswered += 1
            self._client.publish(topic, PAYLOAD, qos=1, on_publish=self._acknowledged)
            while self._unanswered:
                self.wait()
            return
        while True:
            try:
                self._client.publish(topic, PAYLOAD)
                return
            except MQTTBackpressureError:
                self.wait()

    def in_flight(self, count):
        for _ in range(count):
            while self._unanswered == IN_FLIGHT:
                self.wait()
            self._unanswered += 1
            self._client.publish(TOPIC, PAYLOAD, qos=1, on_publish=self._acknowledged)
        while self._unanswered:
            self.wait()


contest(Client)
