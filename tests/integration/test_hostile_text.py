"""
Text of the broker, the network, a link: no line of it is forged, none of it controls a terminal,
none is longer than a line of the log may be. What decoders make of it: test_malformed.py.
"""

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_as_tls.errors import MQTTError, printable
from tests.support import five, mpy
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, FakeBroker
from tests.support.five import field, user

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"
FORGED = "mqtt 127.0.0.1:1883: connected in 1 ms"
# what ends a line, moves the cursor, changes the order of what is read, in UTF-8 that MQTT allows
NASTY = f"x\r\n{FORGED}\r\n\x1b[2J\x1b]0;title\x07\x9b2J\x7f\u202e\u2028\u2066\ufeff\x08'\"\\%s%n"
LONG = NASTY + "A" * 2000 + NASTY

# In the program: what of the errors and events of the client is not as it should be
WATCH = """
def bad(text):
    return len(text) > 600 or [c for c in text.encode() if not 31 < c < 127]

async def watch():
    async for event in client.events():
        for value in [getattr(event, "error", None), client.error]:
            if isinstance(value, MQTTError):
                for text in (str(value), value.reason, value.cure):
                    if bad(text):
                        print("BAD", repr(text))
        topic = getattr(event, "topic", "")
        if [c for c in topic.encode() if c < 32 or c == 127]:
            print("BAD", repr(topic))
        print("event", type(event).__name__)

asyncio.create_task(watch())
"""
STAYS = """
async with client:
    await told("leave")
"""


def judge(lines):
    """Each line is one of the log or of the program, printable, and not too long."""
    assert lines
    for line in lines:
        assert re.match(r"(mqtt 127\.0\.0\.1:\d+: |event |  File |said |BAD )", line), line
        assert line.isascii() and line.isprintable(), line
        assert len(line) <= 600, line
        assert not line.startswith("BAD"), line
        assert not line.startswith(FORGED), line


def connack(code=0):
    return five.connack(code=code)


def refused_at_connect(connection):
    connection.packet()
    reason, server = b"\x1f" + field(LONG[:1500]), b"\x1c" + field(LONG[:1500])
    connection.send(five.connack(reason, server, user(NASTY, NASTY), code=0x9C))
    connection.until_closed()


def refused_at_publish(connection):
    connection.accept(connack())
    while True:
        first, body = connection.packet()
        if first >> 4 == 3:
            size = int.from_bytes(body[:2], "big")
            number = int.from_bytes(body[2 + size : 4 + size], "big")
            connection.send(
                five.answer(0x40, number, 0x97, b"\x1f" + field(LONG), user("a", LONG[:900]))
            )


def refused_at_subscribe(connection):
    connection.accept(connack())
    while True:
        first, body = connection.packet()
        if first == 0x82:
            connection.send(five.suback(body, 0x87, properties=b"\x1f" + field(LONG)))


def disconnected(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(
        five.disconnect(0x9D, b"\x1f" + field(LONG[:1500]), b"\x1c" + field(LONG[:1500]))
    )
    connection.until_closed()


def unclaimed(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(five.publish(LONG, b"x"))
    connection.send(five.publish("fine", b"x"))
    connection.until_closed()


def oversized(connection):
    connection.accept(connack())
    connection.packet()
    for n in range(40):
        connection.send(five.publish(f"{n}{NASTY}", b"x" * 5000))
    connection.until_closed()


def wrong_topic(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(five.publish("#" + LONG, b"x"))
    connection.until_closed()


def wrong_property(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(five.publish("t", b"x", b"\x08" + field("#" + LONG)))
    connection.until_closed()


def unknown_authentication(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(five.auth(0x18, b"\x15" + field(LONG), b"\x16" + field(LONG[:300])))
    connection.until_closed()


def assigned_id(connection):
    connection.packet()
    connection.send(five.connack(b"\x12" + field(LONG)))
    connection.until_closed()


def offered_topic(connection):
    connection.accept(five.connack(b"\x1a" + field(NASTY)))
    while True:
        first, body = connection.packet()
        if first == 0x82:
            connection.send(five.suback(body, 0x87, properties=b"\x1f" + field(NASTY)))


def banner(connection):
    connection.send(LONG.encode())
    connection.until_closed()


def http(connection):
    connection.packet()
    connection.send(b"HTTP/1.1 400 " + LONG.encode())
    connection.until_closed()


def handler_raises(connection):
    connection.accept(connack())
    connection.packet()
    connection.send(five.publish("t", LONG.encode()))
    connection.until_closed()


SUBSCRIBES = 'client.on("t", 1)(lambda message: None)\n'
RAISES = """
@client.on("t", 1)
def handler(message):
    raise ValueError(message.payload.decode())
"""
AWAITS_RAISES = """
@client.on("t", 1)
async def handler(message):
    def deeper(n):
        if n:
            deeper(n - 1)
        raise MQTTError("%s" % message.payload.decode())
    deeper(30)
"""
STREAM_RAISES = """
@client.on("t", 1, stream=True)
async def handler(message):
    raise OSError(str(await message.stream.read(), "utf-8"))
"""
PUBLISHES = """
async with client:
    for n in range(3):
        client.enqueue("t", "x", qos=1)
    try:
        await client.publish("t", "x", qos=1)
    except RefusedError as e:
        print("said", e)
    await told("leave")
"""
REQUESTS = """
async with client:
    try:
        await client.request("t", "x", qos=1)
    except RefusedError as e:
        print("said", e)
    await told("leave")
"""
CASES = {
    "CONNACK": (
        refused_at_connect,
        STAYS,
        "not connected: the broker refused: use another server",
    ),
    "PUBACK": (refused_at_publish, PUBLISHES, "said the broker refused: quota exceeded"),
    "SUBACK": (refused_at_subscribe, SUBSCRIBES + STAYS, "the broker refused 't'"),
    "DISCONNECT": (disconnected, SUBSCRIBES + STAYS, "the broker disconnected: server moved"),
    "topic": (unclaimed, SUBSCRIBES + STAYS, "no handler and no iterator for topic 'x"),
    "large": (oversized, SUBSCRIBES + STAYS, "to '0x"),
    "wrong topic": (wrong_topic, SUBSCRIBES + STAYS, "PUBLISH topic '#x"),
    "property": (wrong_property, SUBSCRIBES + STAYS, "property response_topic: #x"),
    "AUTH": (unknown_authentication, SUBSCRIBES + STAYS, "AUTH that nobody asked for"),
    "id": (assigned_id, STAYS, "a client id that nobody asked for"),
    "offer": (offered_topic, REQUESTS, "said the broker refused"),
    "banner": (banner, STAYS, "the other side speaks first"),
    "HTTP": (http, STAYS, "a web server or a WebSocket port answers"),
    "handler": (handler_raises, RAISES + STAYS, "handler of 't' failed: ValueError"),
    "async handler": (handler_raises, AWAITS_RAISES + STAYS, "handler of 't' failed: MQTTError"),
    "stream": (handler_raises, STREAM_RAISES + STAYS, "handler of 't' failed: OSError"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_broker_forges_no_line_and_controls_no_terminal(case):
    script, program, said = CASES[case]
    with (
        FakeBroker(script) as fake,
        Device(
            fake, WATCH + program, protocol=5, max_packet=8000 if case != "large" else 4096
        ) as device,
    ):
        device.wait_for(re.escape(said))
        device.leave()
    judge(device.lines)


LINK = """
class Link:
    left = 1

    async def up(self):
        if RAISES:
            kinds = OSError, LinkError, ValueError, RuntimeError
            raise kinds[self.left % 4](LONG)
        self.left = 0
        return LONG

    def is_up(self):
        self.left += 1
        return not self.left and not RAISES

    async def reset(self):
        pass

    async def down(self):
        pass

    def dns_servers(self):
        return [LONG]

client = make(link=Link(), host=HOST)
"""


@pytest.mark.parametrize("raises", [True, False])
def test_a_link_and_a_time_server_do_not_either(raises):
    """What drivers, DHCP and name servers say."""

    def script(connection):
        connection.accept(CONNACK)
        connection.until_closed()

    names = {"RAISES": raises, "LONG": LONG, "HOST": "no.such.name.test"}
    with FakeBroker(script) as fake:
        program = LINK + WATCH + STAYS
        with Device(fake, program, names=names) as device:
            for _ in range(4 if raises else 1):
                device.wait_for("not connected")
            device.leave()
    lines = [line.replace("mqtt no.such.name.test:", "mqtt 127.0.0.1:") for line in device.lines]
    judge(lines)


# The one function


@given(st.text(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_whatever_it_is_it_becomes_a_line(text):
    text = text.encode("utf-8", "replace").decode()
    line = printable(text)
    assert line.isascii() and (line.isprintable() or not line) and len(line) <= 600
    if text.isascii() and text.isprintable() and len(text) <= 600:
        assert line == text
    assert printable(line) == line
    assert str(MQTTError(text)) == MQTTError(text).reason == line


def test_it_is_the_same_under_micropython(tmp_path):
    texts = [NASTY, LONG, "", "a" * 600, "a" * 601, "\n", "\\n", "ü" * 601, "'\"", "水\x1b" * 300]
    program = tmp_path / "lines.py"
    program.write_text(
        f"TEXTS = {texts!r}\n"
        "from mqtt_as_tls.errors import printable\n"
        "for each in TEXTS:\n    print('>' + printable(each) + '<')\n"
    )
    out = mpy.check(program)
    assert out.splitlines() == [f">{printable(each)}<" for each in texts]


def test_the_middle_is_what_is_left_out():
    assert printable("begin" + "x" * 5000 + "cure").startswith("beginxxx")
    assert printable("begin" + "x" * 5000 + "cure").endswith("xxxcure")


def calls():
    """Yield (module, function that is called, its class or None) of the whole package."""
    for path in [*PACKAGE.glob("*.py"), PACKAGE.parent / "compat/mqtt_as.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.stem, ast.unparse(node.func), [ast.unparse(each) for each in node.args]


def test_nothing_prints_or_logs_but_what_makes_a_line_of_it():
    """The log is written in one place of the client; a program's standard output in two."""
    printing = sorted(
        (module, function, *args)
        for module, function, args in calls()
        if function
        in ("print", "sys.print_exception", "self.log", "client.log", "sys.stdout.write")
    )
    assert printing == [
        ("client", "self.log", "line"),  # printable(...), or words of its own
        (
            "mqtt_as",
            "print",
            "'mqtt_as: TLS WITHOUT VERIFICATION: %s: whoever is in between can read "
            "and change everything -> %s' % (why, cure)",
        ),
        ("mqtt_as", "print", "msg % args"),  # lines of the log, and those of a program
        ("mqtt_as", "print", "printable('mqtt_as: %s%s' % (text, more))"),
        ("store", "self.log", "'store %s: %s' % (self.directory, text)"),  # repeats.tell
        ("texts", "print", "printable(line)"),
        ("texts", "sys.print_exception", "error", "out"),
    ]
    logs = {(module, *args) for module, function, args in calls() if function == "store.open"}
    assert logs == {("store_session", "5 if five else 4", "client.client_id", "self._say")}
