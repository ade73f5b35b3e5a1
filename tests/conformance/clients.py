"""
MicroPython: the clients that mosquitto's tests drive, an async function for each program of
theirs, in CLIENTS. The exit status is 0 when all went as it should.

    micropython clients.py NAME PORT [ARGUMENT ...]
"""

import asyncio
import os
import sys

from mqtt_as_tls import TLS, CertificateError, Disconnected, MQTTClient, RefusedError, Will

NAME, PORT, *ARGUMENTS = sys.argv[1:]
SSL = os.getenv("MOSQUITTO_SSL")  # the folder of mosquitto's certificates

# What libmosquitto sends in an MQTT 5 CONNECT, told nothing: a Receive Maximum of 20
V5 = {
    "protocol": 5,
    "properties": [
        ("receive_maximum", 20),
        ("session_expiry_interval", None),
        ("maximum_packet_size", None),
    ],
}
V5_1000 = dict(V5, max_packet=1000)
V5_1000["properties"] = [
    ("maximum_packet_size", 1000),
    ("receive_maximum", 20),
    ("session_expiry_interval", None),
]


def client(client_id, *, host="localhost", **options):
    options = dict({"clean_start": True, "log": None}, **options)
    return MQTTClient(host, int(PORT), client_id=client_id, **options)


async def lost(client):
    """Run `client` until its connection ends, or an attempt fails; return the error."""
    events = client.events()
    if not client.running:
        await client.__aenter__()
    async for event in events:
        if isinstance(event, Disconnected):
            break
    await client.disconnect()
    return event.error


def collect(client):
    """
    Return a list that gets what `client` receives, without a subscription. It must be connecting
    by the next await.
    """
    got = []

    async def read():
        async for message in client.messages():
            got.append(message)

    asyncio.create_task(read())
    return got


async def until(condition):
    while not condition():
        await asyncio.sleep_ms(1)


async def answered(client, bytes_in):
    """Return when `client` has received more than `bytes_in` and answered that."""
    await until(lambda: client.stats.bytes_in > bytes_in)
    await asyncio.sleep_ms(0)


def check(message, topic, qos):
    assert message.topic == topic, message.topic
    assert message.payload == b"message", message.payload
    assert message.qos == qos, message.qos
    assert message.retain is False


async def refused(code, awaitable):
    try:
        await awaitable
    except RefusedError as error:
        assert error.code == code, error.code
    else:
        raise AssertionError("not refused")


# 01: connect


async def connect_disconnect(client):
    await client.connect()
    await client.disconnect()


async def success():
    await connect_disconnect(client("01-con-discon-success"))


async def success_v5():
    await connect_disconnect(client("01-con-discon-success-v5", **V5_1000))


def will(**options):
    return Will("will/topic", "will-payload", 1, True, goodbye=False, **options)


async def will_set_and_cleared():
    await connect_disconnect(client("01-con-discon-will", will=None))


async def with_will():
    await connect_disconnect(client("01-con-discon-will", will=will()))


async def with_will_v5():
    properties = {"payload_format_indicator": 1}
    await connect_disconnect(client("01-con-discon-will", will=will(properties=properties), **V5))


async def auth_continue():
    def step(data):
        if data is None:
            return None
        assert data == b"test-request", data
        return b"test-reply"

    await connect_disconnect(client("01-extended-auth", auth=("test-method", step), **V5_1000))


async def auth_failure():
    def step(data):
        if data is not None:
            raise ValueError("I do not know this")

    await lost(client("01-extended-auth", auth=("test-method", step), **V5_1000))


async def keepalive():
    await lost(client("01-keepalive-pingreq", keepalive_s=5))


async def server_keepalive():
    await lost(client("01-server-keepalive-pingreq", **V5))


async def no_clean_session():
    await lost(client("01-no-clean-session", clean_start=False))


async def user_and_password():
    await lost(client("01-unpwd-set", user="uname", password=";'[08gn=#"))


async def user_before_connect():
    await lost(client("01-pre-connect", user="uname", password=";'[08gn=#"))


async def will_set():
    topic = "topic/on/unexpected/disconnect"
    await lost(client("01-will-set", will=Will(topic, "will message", 1, True)))


async def will_user_and_password():
    await lost(
        client(
            "01-will-unpwd-set",
            user="oibvvwqw",
            password="#'^2hg9a&nm38*us",
            will=Will("will-topic", "will message", 2),
        )
    )


# 02: subscribe


def subscribes(qos):
    async def run():
        c = client(f"subscribe-qos{qos}-test")
        await c.connect()
        assert await c.subscribe(f"qos{qos}/test", qos) == qos
        await c.disconnect()

    return run


async def subscribe_and_take_one():
    c = client("subscribe-qos2-test")
    got = collect(c)
    await c.connect()
    await c.subscribe("qos2/test", 2)
    await until(lambda: got)
    check(got[0], "qos2/test", 0)
    await c.disconnect()


async def unsubscribe():
    c = client("unsubscribe-test")
    await c.connect()
    await c.unsubscribe("unsubscribe/test")
    await c.disconnect()


async def unsubscribe_v5():
    c = client("unsubscribe-test", **V5)
    await c.connect()
    await c.unsubscribe("unsubscribe/test", properties={"user_property": ("key", "value")})
    await c.disconnect()


async def unsubscribe_multiple_v5():
    c = client("unsubscribe-test", **V5)
    await c.connect()
    await c.subscribe("unsubscribe/test", 2)
    await c.unsubscribe("unsubscribe/test", "no-sub")
    await c.disconnect()


# 03: publish


async def receive_qos1():
    c = client("publish-qos1-test")
    got = collect(c)
    await lost(c)
    check(got[0], "pub/qos1/receive", 1)


async def receive_qos2():
    c = client("publish-qos2-test")
    got = collect(c)
    await lost(c)
    check(got[0], "pub/qos2/receive", 2)


async def receive_qos2_len():
    c = client("publish-qos2-test", **V5)
    message = await take(c)
    check(message, "len/qos2/test", 2)
    await c.disconnect()


async def receive_qos2_unexpected_pubrel():
    c = client("publish-qos2-test")
    got = collect(c)
    await lost(c)
    check(got[0], "pub/qos2/receive", 2)
    assert [message.topic for message in got[1:]] == ["quit"]


async def stray_puback():
    c = client("publish-qos1-test", keepalive_s=5)
    await lost(c)
    assert c.stats.connects == 1


async def stray_pubcomp():
    c = client("publish-qos2-test", keepalive_s=5)
    await lost(c)
    assert c.stats.connects == 1


def publishes(qos, **options):
    async def run():
        c = client(f"publish-qos{qos}-test", **options)
        await c.connect()
        assert await c.publish(f"pub/qos{qos}/test", "message", qos=qos) == 0
        await c.disconnect()

    return run


def publishes_many(qos, count):
    async def run():
        c = client(f"publish-qos{qos}-test", **V5)
        await c.connect()
        codes = await asyncio.gather(*[c.publish("topic", "12345", qos=qos) for _ in range(count)])
        assert codes == [0] * count, codes
        await c.disconnect()

    return run


def maximum_qos(highest):
    async def run():
        c = client("publish-qos2-test", **V5)
        await c.connect()
        for qos in (2, 1, 0):
            publish = c.publish(f"maximum/qos/qos{qos}", "message", qos=qos)
            if qos > highest:
                await refused(0x9B, publish)
            else:
                await publish
        await c.disconnect()

    return run


async def pubrec_error():
    c = client("publish-qos2-test", **V5)
    await c.connect()
    await asyncio.gather(
        refused(0x80, c.publish("topic", "rejected", qos=2)),
        c.publish("topic", "accepted", qos=2),
    )
    await c.disconnect()


async def loop():
    c = client("loop-test", **V5)
    got = collect(c)
    await c.connect()
    await c.subscribe("loop/test")
    await c.publish("loop/test", "message")
    await until(lambda: got)
    check(got[0], "loop/test", 0)
    await c.disconnect()


async def publish_no_payload():
    c = client("publish-qos0-test-np")
    await c.connect()
    await c.publish("pub/qos0/no-payload/test")
    await c.disconnect()


def requests(properties, answer):
    async def run():
        c = client("request-test", **V5)
        ended = asyncio.create_task(lost(c))
        await asyncio.sleep_ms(0)  # it runs
        got = collect(c)
        await c.subscribe("response/topic")
        await c.publish("request/topic", "action", properties=properties)
        await ended
        assert [message.payload for message in got] == [answer]

    return run


async def responds():
    c = client("response-test", **V5)
    got = collect(c)
    await c.connect()
    await c.subscribe("request/topic")
    await until(lambda: got)
    await c.respond(got[0], "a response")
    await c.disconnect()


async def retained():
    c = client("retain-qos0-test")
    await c.connect()
    await c.publish("retain/qos0/test", "retained message", retain=True)
    await c.disconnect()


# 08: TLS


def secure(ca="test-root-ca", name=None):
    def path(file):
        return SSL + "/" + file

    if name:
        return TLS(path(ca + ".crt"), path(name + ".crt"), path(name + ".key"))
    return TLS(path(ca + ".crt"))


async def tls_bad_ca():
    try:
        TLS(ca="no/such/ca.crt")
    except ValueError:
        return
    raise AssertionError("no error")


async def tls_fake_ca():
    tls = secure("test-fake-root-ca", "client")
    error = await lost(client("08-ssl-connect-crt-auth", tls=tls))
    assert isinstance(error, CertificateError), repr(error)


async def tls():
    await connect_disconnect(client("08-ssl-connect-no-auth", tls=secure()))


async def tls_alternative_name(host):
    await connect_disconnect(client("08-ssl-connect-san", host=host, tls=secure()))


async def mutual_tls():
    await connect_disconnect(client("08-ssl-connect-crt-auth", tls=secure(name="client")))


# 11: properties


async def take(client):
    """Connect, and return the first message when it is acknowledged and nothing is left of it."""
    messages = client.messages()
    await client.connect()
    message = await messages.__anext__()
    messages.close()
    if message.qos == 2:
        await answered(client, client.stats.bytes_in)
    return message


async def oversize():
    c = client("publish-qos0-test", **V5)
    await c.connect()
    filter = "0123456789012345678901234567890"
    await refused(0x95, c.subscribe(filter))
    await refused(0x95, c.unsubscribe(filter))
    await refused(0x95, c.publish("pub/test", "0123456789012345678"))
    await c.publish("pub/test", "012345678901234567")
    await c.disconnect()


async def receive_properties(qos):
    c = client("prop-test", **V5)
    message = await take(c)
    assert message.qos == int(qos)
    assert message.properties == {"content_type": "plain/text", "response_topic": "msg/123"}
    await c.publish("ok", "ok")
    await c.disconnect()


def publishes_with(name, value):
    async def run():
        c = client("prop-test", **V5)
        await c.connect()
        await c.publish("prop/qos0", "message", properties={name: value})
        await c.disconnect()

    return run


CLIENTS = {
    "01-con-discon-success": success,
    "01-con-discon-success-v5": success_v5,
    "01-con-discon-will": with_will,
    "01-con-discon-will-clear": will_set_and_cleared,
    "01-con-discon-will-v5": with_will_v5,
    "01-extended-auth-continue": auth_continue,
    "01-extended-auth-failure": auth_failure,
    "01-keepalive-pingreq": keepalive,
    "01-no-clean-session": no_clean_session,
    "01-pre-connect-callback": user_before_connect,
    "01-server-keepalive-pingreq": server_keepalive,
    "01-unpwd-set": user_and_password,
    "01-will-set": will_set,
    "01-will-unpwd-set": will_user_and_password,
    "02-subscribe-helper-callback-qos2": subscribe_and_take_one,
    "02-subscribe-helper-simple-qos2": subscribe_and_take_one,
    "02-subscribe-qos0": subscribes(0),
    "02-subscribe-qos1": subscribes(1),
    "02-subscribe-qos1-async1": subscribes(1),
    "02-subscribe-qos1-async2": subscribes(1),
    "02-subscribe-qos2": subscribes(2),
    "02-unsubscribe": unsubscribe,
    "02-unsubscribe-multiple-v5": unsubscribe_multiple_v5,
    "02-unsubscribe-v5": unsubscribe_v5,
    "03-publish-b2c-qos1": receive_qos1,
    "03-publish-b2c-qos1-unexpected-puback": stray_puback,
    "03-publish-b2c-qos2": receive_qos2,
    "03-publish-b2c-qos2-len": receive_qos2_len,
    "03-publish-b2c-qos2-unexpected-pubcomp": stray_pubcomp,
    "03-publish-b2c-qos2-unexpected-pubrel": receive_qos2_unexpected_pubrel,
    "03-publish-c2b-qos1-disconnect": publishes(1, clean_start=False),
    "03-publish-c2b-qos1-len": publishes(1, **V5),
    "03-publish-c2b-qos1-receive-maximum": publishes_many(1, 6),
    "03-publish-c2b-qos2": publishes(2),
    "03-publish-c2b-qos2-disconnect": publishes(2, clean_start=False),
    "03-publish-c2b-qos2-len": publishes(2, **V5),
    "03-publish-c2b-qos2-maximum-qos-0": maximum_qos(0),
    "03-publish-c2b-qos2-maximum-qos-1": maximum_qos(1),
    "03-publish-c2b-qos2-pubrec-error": pubrec_error,
    "03-publish-c2b-qos2-receive-maximum": publishes_many(2, 5),
    "03-publish-loop": loop,
    "03-publish-loop-forever": loop,
    "03-publish-loop-manual": loop,
    "03-publish-loop-start": loop,
    "03-publish-qos0": publishes(0),
    "03-publish-qos0-no-payload": publish_no_payload,
    "03-request-response-1": requests([("response_topic", "response/topic")], b"a response"),
    "03-request-response-2": responds,
    # the test hands the request back instead of the answer
    "03-request-response-correlation-1": requests(
        [("response_topic", "response/topic"), ("correlation_data", b"corridor")], b"action"
    ),
    "04-retain-qos0": retained,
    "08-ssl-bad-cacert": tls_bad_ca,
    "08-ssl-connect-cert-auth": mutual_tls,
    "08-ssl-connect-cert-auth-custom-ssl-ctx": mutual_tls,
    "08-ssl-connect-cert-auth-custom-ssl-ctx-default": mutual_tls,
    "08-ssl-connect-no-auth": tls,
    "08-ssl-connect-san": tls_alternative_name,
    "08-ssl-fake-cacert": tls_fake_ca,
    "11-prop-oversize-packet": oversize,
    "11-prop-recv": receive_properties,
    "11-prop-send-content-type": publishes_with("content_type", "application/json"),
    "11-prop-send-payload-format": publishes_with("payload_format_indicator", 1),
}

if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(CLIENTS[NAME](*ARGUMENTS), 60))
