"""
Every argument of every public call, with values of every kind: one that it cannot have raises
ValueError or TypeError at the call, and the sentence names the argument. What the arguments are is
read from the stub, so that a new one without a row here fails.
"""

import ast

import pytest

from tests.support import apps, mpy

# By name: what an argument is given
VALUES = {
    "-1": -1,
    "0": 0,
    "1": 1,
    "2": 2,
    "1.0": 1.0,
    "1.5": 1.5,
    "70000": 70000,
    "1 << 33": 1 << 33,
    "1 << 70": 1 << 70,
    "1e30": 1e30,
    "True": True,
    "None": None,
    '"1"': "1",
    '""': "",
    '"a/b"': "a/b",
    '"a/#"': "a/#",
    '"a\\0"': "a\0",
    '"x" * 70000': "x" * 70000,
    'b"1"': b"1",
    "[1]": [1],
    "[]": [],
}
OTHERS = ('float("nan")', 'float("inf")', "chr(0xD800)", "object()", "bytes(70000)")


def numbers(low, high, *kinds):
    """Return the names of the VALUES that are numbers from `low` to `high`, of these `kinds`."""
    return {name for name, v in VALUES.items() if type(v) in kinds and low <= v <= high}


def whole(low, high):
    return numbers(low, high, int)


def seconds(low, high):
    return numbers(low, high, int, float)


_ALL = {*VALUES, *OTHERS}
_EMPTY = {"0", "None", '""', "[]"}  # no properties
FLAG = _ALL  # true or false, as everything is
TIME_OUT = seconds(-500_000, 500_000) | {"None"}
TOPIC = {'"1"', '"a/b"'}
FILTER = TOPIC | {'"a/#"'}
PAYLOAD = {'"1"', '""', '"a/b"', '"a/#"', '"a\\0"', 'b"1"', "chr(0xD800)"}
TEXT = FILTER | {'""', '"a\\0"', '"x" * 70000', "chr(0xD800)"}
LONG = {'"x" * 70000', "bytes(70000)"}
MESSAGE = {
    "topic": TOPIC,
    "payload": PAYLOAD,
    "qos": whole(0, 2),
    "retain": FLAG,
    "properties": _EMPTY,
}
SUBSCRIBE = {
    "filter": FILTER,
    "qos": whole(0, 2),
    "no_local": FLAG,
    "retain_as_published": FLAG,
    "retain_handling": whole(0, 2),
    "properties": _EMPTY,
}

# call: {argument: the names of the values that it takes}
ARGUMENTS = {
    "MQTTClient": {
        "host": TOPIC - {'"1"', '"a/b"'},
        "port": whole(1, 65535) | {"None"},
        "link": {"None"},
        "tls": {"None"},
        "client_id": FILTER | {"None", '""'},
        "user": FILTER | {"None"},
        "password": PAYLOAD | {"None"},
        "will": {"None"},
        "log": {"None"},
        "clean_start": FLAG,
        "give_up_after": whole(1, 65535) | {"None"},
        "protocol": set(),
        "store": {"None"},
        "session_expiry_s": whole(0, 0xFFFFFFFF) | {"None"},
        "properties": _EMPTY,
        "auth": {"None"},
        "topic_aliases": whole(0, 65535),
        "keepalive_s": seconds(1, 65535),
        "connect_timeout_s": seconds(1, 600),
        "ack_timeout_s": seconds(1, 600),
        "handler_timeout_s": seconds(1, 86400),
        "drain_s": seconds(0, 600),
        "max_packet": whole(64, 16384),  # the default of max_backlog
        "max_backlog": whole(4096, 268435455),
        "max_inflight": whole(1, 65535),
        "max_queue": whole(0, 268435455),
        "max_waiting": whole(1, 65535),
    },
    "MQTTClient of several": {
        "shared_session": FLAG,
        "balance": FLAG,
        "prefer_first_s": whole(1, 86400) | {"None"},
    },
    "MQTTClient.on": {**SUBSCRIBE, "stream": FLAG},
    "MQTTClient.on_connect": {"handler": set()},
    "MQTTClient.publish": {**MESSAGE, "timeout_s": TIME_OUT, "length": {"None"}},
    "MQTTClient.publish of a stream": {"length": whole(0, 268435455)},
    "MQTTClient.enqueue": {**MESSAGE, "full": set()},
    "MQTTClient.request": {
        **{name: values for name, values in MESSAGE.items() if name != "retain"},
        "timeout_s": TIME_OUT,
        "response_topic": TOPIC | {"None"},
    },
    "MQTTClient.respond": {
        "message": set(),
        "payload": PAYLOAD,
        "qos": whole(0, 2) | {"None"},
        "properties": _EMPTY,
    },
    "MQTTClient.subscribe": {**SUBSCRIBE, "timeout_s": TIME_OUT},
    "MQTTClient.unsubscribe": {"filters": FILTER, "timeout_s": TIME_OUT, "properties": _EMPTY},
    "MQTTClient.connect": {"timeout_s": TIME_OUT - {"None"}},
    "MQTTClient.wait_connected": {"timeout_s": TIME_OUT},
    "MQTTClient.report": {"topic": TOPIC | {"None"}, "every_s": seconds(10, 86400)},
    "MQTTClient.disconnect": {"reason": _EMPTY | {"0"}, "properties": _EMPTY},
    "Messages.next": {"timeout_s": TIME_OUT},
    "Events.next": {"timeout_s": TIME_OUT},
    "Will": {
        **MESSAGE,
        "payload": PAYLOAD | LONG,
        "birth": PAYLOAD | LONG | {"None"},
        "goodbye": FLAG,
        "delay_s": whole(0, 0xFFFFFFFF),
        "properties": _ALL,  # those of MQTT 5 are checked by the client
    },
    "TLS.unverified": {
        "cert": {"None"},
        "key": {"None"},
        "server_hostname": TEXT | {"None"},
        "ntp": _ALL,  # by the client
    },
    "TLS": {"ca": set()},
    "MQTTClient of the time": {"ntp": _EMPTY},
    "MQTTClient of a will": {"properties": _EMPTY},
    "FileStore": {
        "directory": TEXT - {'""'},  # it is looked at when a client is made
        "max_bytes": whole(8192, 1 << 80),
        "max_writes": whole(1, 60000),
        "full": set(),
    },
    "WiFi": {
        "ssid": PAYLOAD - {'b"1"', '""', "chr(0xD800)"} | {"chr(0xD800)"},
        "password": {"None"},
        "networks": _EMPTY,
        "country": {"None"},
        "hostname": PAYLOAD - {'b"1"', '""'} | {"None"},
        "static": {"None"},
        "power_save": FLAG,
    },
}
SAYS = {  # where the sentence has another word for it
    "filters": "topic filter",
    "handler": "handler|on_connect",
    "host": "host|broker",
    "length": "length|payload",
    "message": "respond",
    "max_packet": "max_packet|max_backlog",  # which must not be less
}
NOT_HERE = {"self", "kind", "error", "traceback"}
SAME = {"TLS": "cert key server_hostname ntp"}  # as of TLS.unverified

CHECK = """
def named(text, says):
    for word in says.split("|"):
        if word in text:
            return True
    return False

async def attempt(call, name, value, good, says):
    global wrong
    what = "%s(%s=%s)" % (call, name, value)
    try:
        result = CALLS[call](**{name: eval(value)})
        if call in AWAITED:
            await asyncio.wait_for(result, 1) if value in good else await result
        elif hasattr(result, "close") and hasattr(result, "send"):
            result.close()
        if value not in good:
            print(what, "was taken")
    except asyncio.TimeoutError:
        pass
    except (ValueError, TypeError) as e:
        text = str(e)
        if value in good:
            print(what, "->", type(e).__name__, text[:200])
        elif not named(text, says) and not (LARGE in text and len(eval(value)) == 70000):
            print(what, "does not name it:", text[:200])
        elif len(text) > 300:
            print(what, "says", len(text), "characters:", text[:100])
    except Exception as e:
        print(what, "->", repr(e)[:200])

LARGE = "max_packet is 4096"

async def every():
    for call in CALLS:
        for name in ARGUMENTS[call]:
            good = ARGUMENTS[call][name]
            for value in VALUES:
                await attempt(call, name, value, good, SAYS.get(name, name))
"""

APP = """
import io
from mqtt_as_tls import TLS, FileStore

count = 0

def on(**options):
    global count
    count += 1
    options["filter"] = options.get("filter", "on/%d" % count)
    client.on(**options)(print)

class Question:
    topic = "t"
    qos = 0
    properties = {"response_topic": "a"}

def message(function):
    def call(topic="t", payload="x", **options):
        return function(topic, payload, **options)
    return call

def new(host="b.lan", **options):
    MQTTClient(host, protocol=options.pop("protocol", 5), log=options.pop("log", None), **options)

CALLS = {
    "MQTTClient": new,
    "MQTTClient of several": lambda **options: new(["a", "b"], **options),
    "MQTTClient of the time": lambda ntp: new(tls=TLS.unverified(ntp=ntp)),
    "MQTTClient of a will": lambda properties: new(will=Will("t", "x", properties=properties)),
    "MQTTClient.on": on,
    "MQTTClient.on_connect": lambda handler: client.on_connect(handler),
    "MQTTClient.publish": message(lambda *a, **options: client.publish(*a, **options)),
    "MQTTClient.publish of a stream": lambda length: client.publish(
        "t", io.BytesIO(b""), length=length
    ),
    "MQTTClient.enqueue": message(lambda *a, **options: client.enqueue(*a, **options)),
    "MQTTClient.request": message(lambda *a, **options: client.request(*a, **options)),
    "MQTTClient.respond": lambda message=Question, **options: client.respond(message, **options),
    "MQTTClient.subscribe": lambda filter="t", **options: client.subscribe(filter, **options),
    "MQTTClient.unsubscribe": lambda filters="t", **options: client.unsubscribe(
        filters, **options
    ),
    "MQTTClient.connect": lambda **options: client.connect(**options),
    "MQTTClient.wait_connected": lambda **options: client.wait_connected(**options),
    "MQTTClient.report": lambda **options: make(log=None).report(**options),
    "MQTTClient.disconnect": lambda **options: client.disconnect(**options),
    "Messages.next": lambda **options: client.messages().next(**options),
    "Events.next": lambda **options: client.events().next(**options),
    "Will": message(Will),
    "TLS.unverified": TLS.unverified,
    "TLS": TLS,
    "FileStore": lambda directory="/nowhere/to/be/found", **options: FileStore(
        directory, **options
    ),
}
AWAITED = ("MQTTClient.connect", "MQTTClient.wait_connected")

async def main():
    global client
    for name in ("reason", "properties"):  # what is good ends it
        good = ARGUMENTS["MQTTClient.disconnect"].pop(name)
        client = make(protocol=5, log=None)
        async with client:
            await client.wait_connected()
            for value in VALUES:
                if value not in good:
                    try:
                        await client.disconnect(**{name: eval(value)})
                        print("disconnect", name, value, "was taken")
                    except (ValueError, TypeError) as e:
                        if name not in str(e):
                            print("disconnect", name, value, "does not name it:", e)
    client = make(protocol=5, log=None, max_waiting=65535)
    async with client:
        await client.wait_connected()
        await every()
        assert client.connected and client.stats.connects == 1
"""


def arguments_in_the_stub():
    """Return {call: set of its arguments}, as the stub has them."""
    found = {}
    tree = ast.parse((mpy.ROOT / "mqtt_as_tls/__init__.pyi").read_text())
    for each in tree.body:
        if not isinstance(each, ast.ClassDef) or each.name in ("Source", "Stream", "Link"):
            continue
        for function in each.body:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                a = function.args
                names = {arg.arg for arg in (*a.args, *a.kwonlyargs, a.vararg) if arg}
                names -= NOT_HERE | {"cls"}
                name = function.name
                call = each.name if name == "__init__" else f"{each.name}.{name}"
                if names:
                    found[call] = names
    return found


def test_every_argument_has_its_row():
    rows = {}
    for call, arguments in ARGUMENTS.items():
        rows.setdefault(call.split(" of ")[0], set()).update(arguments)
    rows["TLS"] |= set(SAME["TLS"].split())
    rows["MQTTClient"].discard("ntp")
    assert rows == arguments_in_the_stub()


@pytest.fixture(scope="module")
def tables():
    rows = {call: {a: sorted(good) for a, good in row.items()} for call, row in ARGUMENTS.items()}
    return f"ARGUMENTS = {rows!r}\nSAYS = {SAYS!r}\nVALUES = {sorted(_ALL)!r}\n" + CHECK


def test_what_an_argument_cannot_have_is_named_at_the_call(broker, tables):
    assert apps.check(tables + APP, broker.port) == ""


def test_what_an_argument_of_wifi_cannot_have_is_named_at_the_call(tables):
    path = mpy.environment()["MICROPYPATH"] + f":{mpy.ROOT}/tests/fakes"
    out = apps.check(
        tables
        + """
from mqtt_as_tls import WiFi
AWAITED = ()

def wifi(**options):
    if not options.get("networks"):
        options["ssid"] = options.get("ssid", "home")
    WiFi(**options)

CALLS = {"WiFi": wifi}

async def main():
    await every()
""",
        1,
        env={"MICROPYPATH": path, "FAKE_WIFI": "home:password"},
    )
    assert out == ""
