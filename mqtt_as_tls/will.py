"""The will: what the broker publishes for a client that is gone."""

from . import router


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
