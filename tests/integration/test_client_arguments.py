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

class Half:  # a link that lacks the rest
    def is_up(self):
        return True

async def main():
  check([
    (new(client_id=""), ValueError, "client_id: a str"),
    (new(client_id="", clean_start=0), ValueError, "client_id: a str"),
    (new(client_id=7), ValueError, "client_id: a str", "not 7"),
    (new(client_id="x" * 70000), ValueError, "client_id: a str"),
    (new(user=b"ann"), ValueError, "user: a str"),
    (new(user="ann", password=1234), TypeError, "password: bytes-like or str, not int"),
    (new(user="ann", password="x" * 65536), ValueError, "password: 65536 bytes, at most 65535"),
    (new(will=Will("t", bytes(65536)), max_packet=90000, max_backlog=90000), ValueError, ""),
    (new(password="secret"), ValueError, "password without user: give user= too"),
    (new(protocol=3), ValueError, "protocol 3: 4 is MQTT 3.1.1, 5 is MQTT 5.0"),
    (new(protocol="4"), ValueError, "4 is MQTT 3.1.1"),
    (new(store="/data"), TypeError, "store: FileStore(...) or None, not a str of 5"),
    (new(session_expiry_s=60), ValueError, "session_expiry_s: MQTT 5 only"),
    (new(properties={"receive_maximum": 5}), ValueError, "properties: MQTT 5 only"),
    (new(auth=("name", print)), ValueError, "auth: MQTT 5 only: give MQTTClient protocol=5"),
    (new(will=Will("t", "x", delay_s=5)), ValueError, "MQTT 5 only"),
    (new(will=Will("t", "x", properties={"content_type": "a"})), ValueError, "MQTT 5 only"),
    (new(tls="ca.pem"), TypeError, "tls: TLS(ca=...) or None, not a str of 6"),
    (new(tls=True), TypeError, "tls: TLS(ca=...) or None"),
    (new(link="my-ssid"), TypeError, "link: WiFi(...), another link with up() is_up() reset()"),
    (new(link=Half()), TypeError, "link: WiFi(...), another link with up() is_up() reset()"),
    (new(link=("home", "secret")), TypeError, "or None, not a tuple"),
    (new(tls="-----BEGIN EC PRIVATE KEY-----"), TypeError, "tls: TLS(ca=...) or None, not a str"),
    (new(will=("t", "gone")), TypeError, "will: Will(...) or None"),
    (new(log="yes"), TypeError, "log: a function that takes a line, or None"),
    (new(nonsense=60), TypeError, "MQTTClient has no argument 'nonsense'"),
    (new(client_id=b"me"), ValueError, "client_id: a str", ".decode() makes one"),
    (new(will=Will("t", bytes(5000))), ValueError, "max_packet is 4096: raise max_packet"),
    (new(will=Will("t", "", birth=bytes(5000))), ValueError, "max_packet is 4096"),
    (new(max_packet=1000, max_backlog=999), ValueError, "max_backlog: a number from 1000"),
]
    + number("port", 1, 65535, 0, 65536, -1, "1883", 18.83, True, "secret", b"1883", "")
    + number("keepalive_s", 1, 65535, 0, 65536, "60", None)
    + number("connect_timeout_s", 1, 600, 0, 601)
    + number("ack_timeout_s", 1, 600, 0, 601, "20")
    + number("handler_timeout_s", 1, 86400, 0, 86401)
    + number("drain_s", 0, 600, -1, 601)
    + number("max_packet", 64, 268435455, 63, 268435456)
    + number("max_inflight", 1, 65535, 0, 65536)
    + number("max_queue", 0, 268435455, -1)
    + number("max_waiting", 1, 65535, 0, 65536)
    + number("give_up_after", 1, 65535, 0, -1, 65536, "3")
    + [
        (new(**{name: 999.5}), ValueError, name + ": a whole number from ", "not 999.5")
        for name in (
            "max_packet", "max_backlog", "max_inflight", "max_queue", "max_waiting",
            "give_up_after",
        )
    ]
)
""")


HOSTS = {
    "mqtt://broker.lan": 'MQTTClient("broker.lan")',
    "MQTT://broker.lan:1884/": 'MQTTClient("broker.lan", 1884)',
    "mqtts://broker.lan:8883": 'MQTTClient("broker.lan", 8883, tls=TLS(ca=...))',
    "ssl://broker.lan": 'MQTTClient("broker.lan", tls=TLS(ca=...))',
    "tcp://10.0.0.9:1883": 'MQTTClient("10.0.0.9", 1883)',
    "http://broker.lan": 'MQTTClient("broker.lan")',
    "https://broker.lan/mqtt": 'MQTTClient("broker.lan", tls=TLS(ca=...))',
    "broker.lan:8883": 'MQTTClient("broker.lan", 8883)',
    "10.0.0.9 : 1883": 'MQTTClient("10.0.0.9", 1883)',
    "broker.lan/path": 'MQTTClient("broker.lan")',
    "broker.lan.": 'MQTTClient("broker.lan")',
    "10.0.0.9 ": 'MQTTClient("10.0.0.9")',
    "\tbroker.lan\r\n": 'MQTTClient("broker.lan")',
    "ws://broker.lan:9001/mqtt": "MQTT over WebSocket is not supported",
    "wss://broker.lan/mqtt": 'MQTTClient("broker.lan", tls=TLS(ca=...))',
    "fe80::1": "IPv6 is not supported",
    "[::1]": "IPv6 is not supported",
    "[2001:db8::1]:8883": "IPv6 is not supported",
    "mqtt://[::1]:1883": "IPv6 is not supported",
    "broker lan": "' ' that no name has",
    "broker\0": "'\\x00' that no name has",
    "bro\x1bker": "'\\x1b' that no name has",
    "br\xf6ker.lan": "as DNS has it, xn--",
    "": "a str with a name or an IPv4 address, not ''",
    " ": "a name has 1 to 63 characters",
    "a..b": "a name has 1 to 63 characters",
    "x" * 64: "a name has 1 to 63 characters",
    ".".join(["x" * 62] * 5): "253 in all",
    "10.0.0": "no IPv4 address: four numbers",
    "10.0.0.256": "no IPv4 address: four numbers",
    "10.0.0.09": "no IPv4 address: four numbers from 0 to 255, without zeros in front",
    # what may be a password is not shown
    "mqtt://ann:secret@broker.lan": 'MQTTClient("broker.lan", user=..., password=...)',
    "mqtts://ann:se@secret/@broker.lan:8883": "user=..., password=..., tls=TLS(ca=...)",
    "ann:secret@broker.lan": 'MQTTClient("broker.lan", user=..., password=...)',
    "mqtt://ann:secret": 'MQTTClient("ann", 1883)',
    "wss://broker.lan/mqtt?password=top@secret": "MQTT over WebSocket is not supported",
    "mqtt://ann:secret@bro ker.lan": "a character that no name has",
    "mqtt://ann:secret@[::1]": "IPv6 is not supported",
}


def test_a_broker_that_is_written_another_way():
    """The right form is told, in a list of brokers, too; and nothing of a password."""
    outcome(
        f"HOSTS = {HOSTS!r}"
        + """
from mqtt_as_tls import TLS

def refusal(*args, **options):
    try:
        MQTTClient(*args, **options)
    except (ValueError, TypeError) as e:
        text = str(e)
        assert "secret" not in text, text
        for c in text:
            assert ord(c) > 31, text
        return type(e).__name__ + " " + text
    raise AssertionError(args)

async def main():
    for host in HOSTS:
        text = refusal(host)
        assert text.startswith("ValueError host") and HOSTS[host] in text, (host, text)
        for several in (["good.lan", host], [("good.lan", 1883), (host, 1883)]):
            text = refusal(several)
            assert text.startswith("ValueError host"), (several, text)
            assert "write" in text or HOSTS[host] in text, (several, text)
    assert 'write MQTTClient("b", 1884)' in refusal("tcp://b", 1884)
    assert 'write MQTTClient("b", 5)' in refusal("b:5", 1884)
    assert "host 'b:8883'" in refusal(["a", "b:8883"])
    assert 'write ("b", 8883)' in refusal(["a", "b:8883"])
    assert 'write ("b", 5)' in refusal(["a", ("b/", 5)])
    assert 'write "b", and give MQTTClient user=' in refusal(["mqtt://ann:secret@b"])
    for value, text in (
        (5, "not 5"), (b"ann:secret@b", "not a bytes"), (True, "not True"),
        ({"password": "secret"}, "a dict of 1, as mqtt_as takes it"),
    ):
        assert text in refusal(value) and text in refusal([("a", 1), (value, 1)]), value
    for several in ([], (), [None], ["a", ("b",)], [("a", 1, "secret")], [b"secret"]):
        assert "a list of brokers has 'host' or ('host', port)" in refusal(several), several
    assert "without brackets, MQTTClient('host', port)" in refusal(("a", 1883))
    for port in (0, 65536, "1883", True, None):
        assert port is None or "port: a number from 1 to 65535" in refusal([("a", port)]), port
    assert "write 1883, not '1883'" in refusal("a", "1883")
    assert "MQTTClient(server, client_id=client_id)" in refusal("me", "b.lan")
    for port in ("b.lan", "my.secret", "secret"):
        text = refusal("me", port, 1883, "ann", "secret")
        assert "MQTTClient(server, client_id=client_id)" in text, text
    assert "whatever else has a name" in refusal("b.lan", 1883, "secret")
    for ntp, text in (
        ("ntp://pool.ntp.org", 'TLS(..., ntp="pool.ntp.org")'),
        ("pool.ntp.org:123", 'TLS(..., ntp=("pool.ntp.org", 123))'),
        (("pool.ntp.org ", 123), 'TLS(..., ntp=("pool.ntp.org", 123))'),
        ("::1", "IPv6"),
    ):
        assert text in refusal("b.lan", tls=TLS.unverified(ntp=ntp)), ntp
    for good in (
        "b", "broker.lan", "10.0.0.9", "BROKER.Lan", "a_b.local", "x" * 63, "1a", "3com.com",
        "xn--brker-jua.lan", ["a", "10.0.0.9"], [("a", 1), ["b", 2]], ("a", "b"),
        ".".join(["x" * 62] * 4),
    ):
        MQTTClient(good)
    print("checked", len(HOSTS))
"""
    )


# as other libraries call it: what ours is called
NAMES = {
    # mqtt_as
    "server": "MQTTClient('broker.lan')",
    "keepalive": "keepalive_s=",
    "ping_interval": "keepalive_s=",
    "ssl": "tls=TLS(ca=, cert=, key=)",
    "ssl_params": "tls=TLS(ca=, cert=, key=)",
    "response_time": "ack_timeout_s=",
    "clean_init": "clean_start=",
    "clean": "clean_start=",
    "max_repubs": "leave it out",
    "subs_cb": "@client.on(filter, qos)",
    "connect_coro": "@client.on_connect",
    "wifi_coro": "client.events()",
    "queue_len": "@client.on(filter, qos)",
    "ssid": "link=WiFi(ssid, password)",
    "wifi_pw": "link=WiFi(ssid, password)",
    "gateway": "leave it out",
    "mqttv5": "protocol=5",
    "mqttv5_con_props": "properties=",
    # paho
    "clean_session": "clean_start=",
    "userdata": "leave it out",
    "transport": "WebSocket",
    "reconnect_on_failure": "leave it out",
    "manual_ack": "leave it out",
    "callback_api_version": "leave it out",
    "bind_address": "leave it out",
    "ca_certs": "tls=TLS(",
    "certfile": "tls=TLS(",
    "keyfile": "tls=TLS(",
    "on_message": "@client.on(filter, qos)",
    # aiomqtt
    "hostname": "MQTTClient('broker.lan')",
    "username": "user=",
    "identifier": "client_id=",
    "timeout": "connect_timeout_s=",
    "tls_context": "tls=TLS(",
    "tls_params": "tls=TLS(",
    "max_inflight_messages": "max_inflight=",
    "max_queued_outgoing_messages": "max_queue=",
    "max_queued_incoming_messages": "max_backlog=",
    "websocket_path": "WebSocket",
    "logger": "log=",
    # MiniMQTT
    "broker": "MQTTClient('broker.lan')",
    "is_ssl": "tls=TLS(",
    "keep_alive": "keepalive_s=",
    "recv_timeout": "ack_timeout_s=",
    "socket_pool": "link=",
    "socket_timeout": "connect_timeout_s=",
    "ssl_context": "tls=TLS(",
    "use_binary_mode": "leave it out",
    "connect_retries": "leave it out",
    # ChuMicro
    "socket": "MQTTClient('broker.lan')",
    "transport_factory": "MQTTClient('broker.lan')",
    "keep_alive_seconds": "keepalive_s=",
    "ack_timeout_seconds": "ack_timeout_s=",
    "send_timeout_seconds": "ack_timeout_s=",
    "publish_retry_max": "leave it out",
    "will_topic": "will=Will(topic, payload)",
    "will_message": "will=Will(topic, payload)",
    "will_qos": "will=Will(topic, payload)",
    "will_retain": "will=Will(topic, payload)",
    "rx_buffer_size": "max_packet=",
    "when_oversized": "max_packet=",
    "when_disconnected": "max_queue=",
    "pre_connect_queue_size": "max_queue=",
    "recv_budget_per_tick": "leave it out",
    "max_tx_queue_size": "max_queue=",
    "ticks": "leave it out",
    # others'
    "password_file": "password=",
    "connect_timeout": "connect_timeout_s=",
    "server_hostname": "TLS(...)",
    "hosts": "a list of brokers comes first",
}


def test_names_of_other_libraries_lead_to_ours():
    outcome(
        f"NAMES = {NAMES!r}"
        + """
FIVE = "host port client_id user password protocol properties auth session_expiry_s topic_aliases"

async def main():
    from mqtt_as_tls import options
    from mqtt_as_tls.client_errors import _NAMES
    for name in NAMES:
        check([
            (lambda: MQTTClient("b.lan", **{name: "secret"}), TypeError,
             "MQTTClient has no argument %r: " % name, NAMES[name]),
            (lambda: MQTTClient("b.lan", protocol=5, **{name: "secret"}), TypeError, NAMES[name]),
        ])
    check([
        (lambda: MQTTClient(client_id="me", server="b.lan", port=1883, keepalive=60), TypeError,
         "no argument 'server': the broker comes first"),
        (lambda: MQTTClient(client_id="me"), TypeError, "the broker is missing"),
        (lambda: MQTTClient("b.lan", ssl=True, keepalive=60), TypeError,
         "'keepalive': keepalive_s=; ", "'ssl': tls=TLS("),
    ])
    ours = " ".join([name for name, *_ in options.ATTRIBUTES + options.NUMBERS]) + " " + FIVE
    theirs = " ".join([names for names, _ in _NAMES]).split()
    assert not [name for name in theirs if name in ours.split() or theirs.count(name) > 1]
"""
    )


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
    (new("t", "x", qos="2"), ValueError, "qos a str of 1: 0, 1 or 2"),
    (new("t", "x", qos=1.0), ValueError, "qos 1.0: 0, 1 or 2"),
    (new("t", "x", birth=5), TypeError, "birth: bytes-like or str"),
    (new("t", "x", delay_s=-1), ValueError, "delay_s: a number from 0 to 4294967295, not -1"),
    (new("t", "x", delay_s="5"), ValueError, "delay_s: a number from 0 to"),
    (new("x" * 65536, "x"), ValueError, "topic: 65536 bytes, at most 65535"),
    (new("a" + chr(0) * 99, "x"), ValueError, "topic a str of 100: has a NUL character"),
    (new("a" + chr(0xD800), "x"), ValueError, "has a surrogate [MQTT-1.5.3-1]"),
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
    ("1", ValueError, "qos a str of 1: 0, 1 or 2"),
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


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_time_out_that_is_none_raises_at_the_call(broker, protocol):
    out = Device.check(
        broker,
        """
        nan = float("nan")
        async with client:
            await client.wait_connected()
            for wrong in ("1", b"1", [], nan, float("inf"), float("-inf"), 1e6, -1e6):
                for call in (
                    lambda: client.publish("t", qos=1, timeout_s=wrong),
                    lambda: client.subscribe("t", timeout_s=wrong),
                    lambda: client.unsubscribe("t", timeout_s=wrong),
                    lambda: client.messages().next(wrong),
                    lambda: client.events().next(timeout_s=wrong),
                ):
                    with raises(TypeError, "timeout_s: seconds, up to 500000"):
                        call()
                with raises(TypeError, "timeout_s: seconds, up to 500000"):
                    await client.wait_connected(wrong)
                if client.five:
                    with raises(TypeError, "timeout_s: seconds, up to 500000"):
                        client.request("t", timeout_s=wrong)
            for past in (-1, -0.5, 0):
                with raises(asyncio.TimeoutError):
                    await client.messages().next(timeout_s=past)
            assert not client.stats.sent and not filters(client)
            await client.publish("t", qos=1, timeout_s=500000)
        """,
        protocol=protocol,
        log=None,
    )
    assert out == ""


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
        with raises(TypeError, "the broker is the first argument of MQTTClient"):
            await client.connect("broker.lan")  # as paho has it
        assert not client.running
        await client.connect(timeout_s=10)
        assert client.connected
        await client.disconnect()
        """,
        log=None,
    )
