"""The will: what the broker publishes for a client that is gone."""

from micropython import const

from . import router
from .packet import field, framed

_FLAGS = const(0x2C)  # of CONNECT: a will, QoS 1, retained (3.1.1 section 3.1.2.3)


class Will:
    """
    What the broker publishes when this client is gone without a goodbye (3.1.1 section 3.1.2.5).

    topic    str
    payload  bytes-like or str (UTF-8)
    qos      int, 0 to 2
    retain   bool
    birth    bytes-like or str, published on the same topic after every connect; None: nothing
    goodbye  bool, disconnect() publishes the will's payload, as the broker discards the will then

    MQTT 5: delay_s  seconds that the broker waits; properties  dict or list of pairs

    Raises TypeError and ValueError as `MQTTClient.publish` does.
    """

    def __init__(
        self,
        topic,
        payload,
        qos=0,
        retain=False,
        birth=None,
        *,
        goodbye=True,
        delay_s=0,
        properties=None,
    ):
        router.topic(topic)
        self.topic = topic
        self.payload = router.payload(payload)
        self.qos = router.qos(qos)
        self.retain = bool(retain)
        if birth is not None:
            if not isinstance(birth, (bytes, bytearray, memoryview, str)):
                router.wrong("payload", birth, "birth")
            birth = router.payload(birth)
        self.birth = birth
        self.goodbye = goodbye
        if not isinstance(delay_s, int) or not 0 <= delay_s <= 0xFFFFFFFF:
            router.wrong("number", "delay_s", delay_s, 0, 0xFFFFFFFF)
        self.delay_s = delay_s
        self.properties = properties

    def up(self, client, out):
        """
        The MQTTClient `client` is connected: have it send the birth first. Returns its Delivery;
        that is `out`, the one before (or None), while that is under way.
        """
        outbox = client.outbox
        session = client.session
        if self.birth is not None and (
            out not in outbox.queue + session.inflight + session.awaiting_pubcomp + session.aside
        ):
            out = outbox.encode(self.topic, self.birth, self.qos, self.retain, None)
            outbox.add(out, True)
        return out


def give(client, topic):
    """
    Give an MQTTClient that has none, and is not started, the will that says on `topic` (str)
    whether it is online.
    """
    will = Will(topic, "offline", 1, True, "online")
    client.lazily("will", lambda client: will)
    topic = topic.encode()
    five = client.five
    if five:
        five.connect(*(five.fields[:5] + ((topic, will.payload, 1, True),)))
        return
    buf = client.connect_packet
    at = 2 + (buf[1] > 127)  # its length takes two bytes at most
    buf[at + 7] |= _FLAGS
    end = at + 12 + (buf[at + 10] << 8 | buf[at + 11])  # of the client id (3.1.1 section 3.1.3)
    buf[:] = framed(0x10, buf[at:end] + field(topic) + field(will.payload) + buf[end:])
