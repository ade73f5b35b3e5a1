"""Wrong use raises at the call, with a sentence that says what to do."""

import pytest

from tests.support import apps
from tests.support.device import Device

CASES = """
def check(cases):
    wrong = []
    for call, expected, *texts in cases:
        try:
            result = call()
            got = "nothing was raised, returned %r" % (result,)
            if hasattr(result, "close"):
                result.close()
        except Exception as e:
            got = "%s: %s" % (type(e).__name__, e)
            if type(e) is expected and all(text in str(e) for text in texts):
                continue
        wrong.append("expected %s %s but %s" % (expected.__name__, texts, got))
    assert not wrong, "; ".join(wrong)
    print("checked", len(cases))
"""


def outcome(app, port=1883):
    assert "checked" in apps.check(CASES + app, port)


def test_arguments_of_a_client():
    """MQTT 3.1.1: [MQTT-3.1.2-22]"""
    outcome("""
def new(*args, **options):
    return lambda: MQTTClient(*(args or ("broker.lan",)), **options)

def number(name, low, high, *values):
    return [
        (new(**{name: value}), ValueError, name, "a number from %d to %d" % (low, high))
        for value in values
    ]

async def main():
  check([
    (new(5), ValueError, "host: a str of 1 to 65535 bytes without NUL"),
    (new(""), ValueError, "host: a str"),
    (new("a\\0b"), ValueError, "host: a str"),
    (new(client_id=""), ValueError, "client_id: a str"),
    (new(client_id="", clean_start=0), ValueError, "client_id: a str"),
    (new(client_id=7), ValueError, "client_id: a str", "not 7"),
    (new(client_id="x" * 70000), ValueError, "client_id: a str"),
    (new(user=b"ann"), ValueError, "user: a str"),
    (new(user="ann", password=5), TypeError, "bytes-like or str, not int"),
    (new(user="ann", password="x" * 65536), ValueError, ""),
    (new(will=Will("t", bytes(65536)), max_packet=90000, max_backlog=90000), ValueError, ""),
    (new(password="secret"), ValueError, "password without user: give user= too"),
    (new(protocol=3), ValueError, "protocol 3: 4 is MQTT 3.1.1, 5 is MQTT 5.0"),
    (new(protocol="4"), ValueError, "4 is MQTT 3.1.1"),
    (new(store="/data"), TypeError, "store: FileStore(...) or None, not '/data'"),
    (new(session_expiry_s=60), ValueError, "session_expiry_s: MQTT 5 only"),
    (new(properties={"receive_maximum": 5}), ValueError, "properties: MQTT 5 only"),
    (new(auth=("name", print)), ValueError, "auth: MQTT 5 only: give MQTTClient protocol=5"),
    (new(will=Will("t", "x", delay_s=5)), ValueError, "MQTT 5 only"),
    (new(will=Will("t", "x", properties={"content_type": "a"})), ValueError, "MQTT 5 only"),
    (new(tls="ca.pem"), TypeError, "tls: TLS(ca=...) or None, not 'ca.pem'"),
    (new(tls=True), TypeError, "tls: TLS(ca=...) or None"),
    (new(link="my-ssid"), TypeError, "link: WiFi(...), another link, or None"),
    (new(will=("t", "gone")), TypeError, "will: Will(...) or None"),
    (new(log="yes"), TypeError, "log: a function that takes a line, or None"),
    (new(give_up_after="3"), TypeError, "give_up_after: a number of connections, or None"),
    (new(keep_alive=60), TypeError, "MQTTClient has no argument 'keep_alive'"),
    (new(ssl=True), TypeError, "MQTTClient has no argument 'ssl'"),
    (new(will=Will("t", bytes(5000))), ValueError, "max_packet is 4096: raise max_packet"),
    (new(will=Will("t", "", birth=bytes(5000))), ValueError, "max_packet is 4096"),
    (new(max_packet=1000, max_backlog=999), ValueError, "max_backlog: a number from 1000"),
]
    + number("port", 1, 65535, 0, 65536, -1, "1883", 18.83)
    + number("keepalive_s", 1, 65535, 0, 65536, "60", None)
    + number("connect_timeout_s", 1, 600, 0, 601)
    + number("ack_timeout_s", 1, 600, 0, 601, "20")
    + number("handler_timeout_s", 1, 86400, 0, 86401)
    + number("drain_s", 0, 600, -1, 601)
    + number("max_packet", 64, 268435455, 63, 268435456)
    + number("max_inflight", 1, 65535, 0, 65536)
    + number("max_queue", 0, 268435455, -1)
)
""")


def test_arguments_of_a_will():
    """MQTT 3.1.1: [MQTT-3.1.2-14], [MQTT-4.7.1-1]"""
    outcome("""
def new(*args, **options):
    return lambda: Will(*args, **options)

async def main():
  assert Will("t", "x", retain=2).retain is True and Will("t", "x", retain=None).retain is False
  check([
    (new("t/#", "x"), ValueError, "topic 't/#': + and # are for subscribing only"),
    (new("", "x"), ValueError, "topic: empty"),
    (new(None, "x"), TypeError, "topic: a str, not NoneType"),
    (new("t", 5), TypeError, "payload: bytes-like or str, not int: str(value) or json.dumps"),
    (new("t", None), TypeError, "payload: bytes-like or str"),
    (new("t", "x", qos=3), ValueError, "qos 3: 0, 1 or 2"),
    (new("t", "x", qos="2"), ValueError, "qos '2': 0, 1 or 2"),
    (new("t", "x", birth=5), TypeError, "payload: bytes-like or str"),
])
""")


def test_topics_payloads_and_qos(broker):
    """
    MQTT 3.1.1: [MQTT-3.3.1-4], [MQTT-3.3.2-2], [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.1-3],
    [MQTT-4.7.3-1], [MQTT-4.7.3-2], [MQTT-4.7.3-3]
    """
    outcome(
        """
TOPICS = (
    ("a/+/b", ValueError, "topic 'a/+/b': + and # are for subscribing only"),
    ("a/#", ValueError, "+ and # are for subscribing only"),
    ("", ValueError, "topic: empty"),
    ("a\\0b", ValueError, "has a NUL character"),
    ("x" * 65536, ValueError, "65536 bytes, at most 65535"),
    (b"a", TypeError, "topic: a str, not bytes"),
    (5, TypeError, "topic: a str, not int"),
    (None, TypeError, "topic: a str, not NoneType"),
)
PAYLOADS = (5, 21.5, None, True, ["a"], {"a": 1}, object())
FILTERS = (
    ("a/#/b", ValueError, "# stands alone and last"),
    ("a#", ValueError, "# stands alone and last"),
    ("a+/b", ValueError, "+ stands for a whole level"),
    ("", ValueError, "topic filter: empty"),
    ("a\\0", ValueError, "has a NUL character"),
    ("$share/a", ValueError, "write $share/group/filter"),
    ("$share/+/a", ValueError, "write $share/group/filter"),
    (7, TypeError, "topic filter: a str, not int"),
)
QOS = (
    (3, ValueError, "qos 3: 0, 1 or 2"),
    (-1, ValueError, "qos -1: 0, 1 or 2"),
    ("1", ValueError, "qos '1': 0, 1 or 2"),
    (None, ValueError, "qos None: 0, 1 or 2"),
)

async def main():
    client = make()
    client.on("taken")(print)
    cases = [
        (lambda: client.on("taken"), ValueError, "'taken' has a handler: call both functions"),
        (lambda: client.on("new")(5), TypeError, "handler: a function that takes a message"),
        (lambda: client.on_connect(5), TypeError, "on_connect: an async function"),
        (lambda: client.nonsense, AttributeError, "nonsense"),
    ]
    for qos, *rest in QOS:
        cases.append([lambda qos=qos: client.on("other", qos)] + rest)
    for filter, *rest in FILTERS:
        cases.append([lambda filter=filter: client.on(filter)] + rest)
    async with client:
        for call in (client.publish, client.enqueue):
            for topic, *rest in TOPICS:
                cases.append([lambda call=call, topic=topic: call(topic, "x")] + rest)
            for payload in PAYLOADS:
                cases.append((
                    lambda call=call, payload=payload: call("t", payload),
                    TypeError, "payload: bytes-like or str, not ", "str(value) or json.dumps",
                ))
            for qos, *rest in QOS:
                cases.append([lambda call=call, qos=qos: call("t", "x", qos=qos)] + rest)
            cases.append((
                lambda call=call: call("t", bytes(5000)),
                ValueError, "message of 500", "bytes, max_packet is 4096: raise max_packet",
            ))
            cases.append((
                lambda call=call: call("t", "x", properties={"content_type": "a"}),
                ValueError, "properties: MQTT 5 only: give MQTTClient protocol=5",
            ))
        for filter, *rest in FILTERS:
            cases.append([lambda filter=filter: client.subscribe(filter)] + rest)
            cases.append([lambda filter=filter: client.unsubscribe("t", filter)] + rest)
        for qos, *rest in QOS:
            cases.append([lambda qos=qos: client.subscribe("t", qos)] + rest)
        for name in ("properties", "no_local", "retain_as_published", "retain_handling"):
            for call in (client.on, client.subscribe):
                cases.append((
                    lambda call=call, name=name: call("t", **{name: 1})
                    if call is client.subscribe
                    else call("t", **{name: 1})(print),
                    ValueError, name + ": MQTT 5 only",
                ))
        check(cases)
        await client.publish("t", "all is well", qos=1)
        assert client.stats.connects == 1 and client.stats.sent == 1
""",
        broker.port,
    )


def test_what_was_refused_leaves_nothing_behind(broker):
    with Device(
        broker,
        """
        for call in (lambda: client.on("a/#/b"), lambda: client.on("b", 3)):
            with raises(ValueError):
                call()
        async with client:
            await client.wait_connected()
            for call in (lambda: client.subscribe("d+"), lambda: client.subscribe("e", 3)):
                with raises(ValueError):
                    call()
            print("granted", await client.subscribe("f", 1))
        """,
    ) as device:
        device.wait_for("granted 1")
        device.finish()
    log = broker.log()
    assert log.count("Received SUBSCRIBE") == 1
    assert "\tf (QoS 1)" in log


@pytest.mark.parametrize("call", ["publish('t')", "enqueue('t')", "subscribe('t')"])
def test_calls_before_the_start_say_how_to_start(call):
    outcome(
        f"""
client = make()
async def main():
  check([(lambda: client.{call}, RuntimeError, "use it inside `async with client:`")])
"""
    )


def test_a_connect_that_was_refused_leaves_the_client_stopped(broker):
    Device.check(
        broker,
        """
        with raises(TypeError):
            await client.connect(timeout_s=None)
        assert not client.running
        await client.connect(timeout_s=10)
        assert client.connected
        await client.disconnect()
        """,
        log=None,
    )
