"""request() and respond(): a question and its answer over MQTT 5 (5.0 section 4.10)."""

import asyncio
from os import urandom

from . import router
from .errors import MQTTError, RefusedError
from .properties import pairs
from .transport import Signal

_WAITING = 16  # requests that wait for their response at a time


class _Request(Signal):
    message = error = topic = None


class Requests:
    """
    The requests of a client that wait for their response.

    topics   those that it listens to
    waiting  dict, correlation data (bytes) -> _Request
    """

    def __init__(self, client):
        self._client = client
        self.topics = set()
        self.waiting = {}

    def topic(self):
        """Return the topic (str) where responses are sent to unless a request says another."""
        client = self._client
        offered = client.properties.get("response_information")  # by the broker: it may be wrong
        return offered if _is_topic(offered) else own_topic(client)

    def stop(self, alive):
        """The client stops: return those that wait (list); `alive` bool: and will be told."""
        waiting = list(self.waiting.values())
        if not alive:
            self.waiting = {}
        return waiting

    def received(self, message):
        """The handler of the response topic. Only the first response to a request is one."""
        data = (message.properties or {}).get("correlation_data")
        request = self.waiting.get(data)
        if request and request.topic == message.topic:
            del self.waiting[data]
            request.message = message
            request.set()


def own_topic(client):
    """
    Return the topic (str) of the responses to `client`, below those of a device whose user name is
    its client id: what the ACL that mqttls writes lets it read.

    Raises ValueError for a client id that cannot be part of one.
    """
    topic = "devices/%s/response" % client.client_id
    if not _is_topic(topic):
        router.wrong("topic", topic, "response_topic")
    return topic


def _is_topic(name):
    return router.encode(name) is not None and "+" not in name and "#" not in name


def _five(client, what, timeout_s):
    client.check_running(timeout_s)
    if not client.five:
        router.wrong("option", what, None)


def request(
    client, topic, payload=b"", *, qos=0, timeout_s=10, properties=None, response_topic=None
):
    """
    `client.request(...)`: publish a message and wait for its response.

    topic       str without wildcards, where something answers
    payload     bytes-like or str
    qos         int, 0 to 2, of the request; the response comes with 1 at most
    timeout_s   seconds, or None
    properties  dict or list of pairs; the response topic and the correlation data are added
    response_topic  str, where the response is to go; by default what the broker offers, else
                    devices/ID/response with the client id; no handler of the app may have it

    The awaited call returns the Message of the response.

    Raises TypeError, ValueError and RuntimeError at the call, as publish does; RuntimeError when
    16 wait already; RefusedError, when no one is subscribed to `topic` too (code 16; QoS 1 and
    2); asyncio.TimeoutError; MQTTError when the client is stopped meanwhile.
    """
    _five(client, "request", timeout_s)
    client.dispatcher.asks()
    if response_topic is None:
        own_topic(client)
    elif not _is_topic(response_topic):
        router.wrong("topic", response_topic, "response_topic")
    own = pairs(properties)
    for name, _ in own:
        if name in ("response_topic", "correlation_data"):
            raise ValueError("%s: request() sets it itself" % name)
    client.outbox.encode(topic, payload, qos, False, own)
    wait = _request(client, topic, payload, qos, own, response_topic)
    return wait if timeout_s is None else asyncio.wait_for(wait, timeout_s)


async def _request(client, topic, payload, qos, own, back):
    await client.wait_connected()
    requests = client.lazily("requests", Requests)
    back = back or requests.topic()
    if back not in requests.topics or not client.dispatcher.find(back):
        client.on(back, 1)(requests.received)
        requests.topics.add(back)
    while client.dispatcher.find(back).granted is None:
        await client.wait_connected()
        await asyncio.sleep_ms(10)
    sub = client.dispatcher.find(back)
    if sub.granted > 2:
        raise sub.reason
    if len(requests.waiting) >= _WAITING:
        raise RuntimeError("%d requests wait for their response already" % _WAITING)
    data = urandom(16)  # nobody answers a request that he did not see
    own += [("response_topic", back), ("correlation_data", data)]
    requests.waiting[data] = answer = _Request()
    answer.topic = back
    try:
        code = await client.publish(topic, payload, qos=qos, properties=own)
        if code == 16:
            raise RefusedError("no one is subscribed to %r" % topic, code)
        await answer
    finally:
        requests.waiting.pop(data, None)
    if answer.error:
        raise MQTTError("the client was stopped before the response came")
    return answer.message


def respond(client, message, payload=b"", *, qos=None, properties=None):
    """
    `client.respond(...)`: answer a request.

    message     Message of the request
    payload     bytes-like or str
    qos         int; that of the request by default
    properties  dict or list of pairs; the correlation data is added

    The awaited call returns as publish does. Raises as it does, and ValueError for a message that
    asks for no response.
    """
    _five(client, "respond", None)
    if not hasattr(message, "properties"):
        router.wrong("request", message)
    said = message.properties or {}
    topic = said.get("response_topic")
    if not topic:
        raise ValueError("message to %r: asks for no response" % message.topic[:100])
    own = pairs(properties)
    if "correlation_data" in said:
        own.append(("correlation_data", said["correlation_data"]))
    return client.publish(topic, payload, qos=message.qos if qos is None else qos, properties=own)
