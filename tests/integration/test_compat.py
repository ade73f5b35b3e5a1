"""
Programs written for mqtt_as on compat/mqtt_as.py: three of them (tests/compat) through a restart
of the broker, and what mqtt_as promises in each of its entries and methods.
"""

import re
import textwrap

import pytest

from tests.support import mpy
from tests.support.board import FAKES, WIFI
from tests.support.broker import HOST, Broker, properties_of

COMPAT = mpy.ROOT / "compat"
PROGRAMS = mpy.ROOT / "tests/compat"

_LOCAL = """\
from mqtt_as import config
config["server"] = {host!r}
config["port"] = {port}
config["client_id"] = b"garden-1"
config["ssid"], config["wifi_pw"] = {wifi}
"""
_READ = """\
def read(name):
    with open(name, "rb") as file:
        return file.read()
config["ssl"] = True
"""
_BEFORE = """\
import asyncio
from mqtt_as import MQTTClient
from mqtt_local import config
async def until(is_so):
    for _ in range(3000):
        if is_so():
            return
        await asyncio.sleep_ms(10)
    raise RuntimeError("waited in vain")
def run(main):
    asyncio.run(asyncio.wait_for(main, 60))
    print("over")
"""


class Device:
    """
    What runs a program: a folder with mqtt_local.py.

    port   of the broker
    lines  more lines of mqtt_local.py
    board  with tests/fakes for `network` and `machine`; else a PC, whose network is up
    """

    def __init__(self, folder, port, lines="", *, board=False):
        folder.mkdir(exist_ok=True)
        text = _LOCAL.format(host=HOST, port=port, wifi=WIFI) + textwrap.dedent(lines)
        (folder / "mqtt_local.py").write_text(text)
        path = f"{folder}:{COMPAT}:{mpy.environment()['MICROPYPATH']}"
        self._env = {"MICROPYPATH": path}
        if board:
            self._env = {"MICROPYPATH": f"{FAKES}:{path}", "FAKE_WIFI": ":".join(WIFI)}

    def start(self, program):
        """Start a file of tests/compat (Path), or source text behind the usual imports."""
        if isinstance(program, str):
            program = _BEFORE + textwrap.dedent(program)
        return mpy.start(program, env=self._env)

    def check(self, program):
        """Run `program` to its end; return its stdout, AssertionError unless it ended well."""
        with self.start(program) as running:
            result = running.wait(80)
        assert result.code == 0 and result.out.endswith("over\n"), result
        return result.out


def ssl_params(**files):
    """Return lines of mqtt_local.py: config["ssl_params"] with the content of files."""
    entries = ", ".join(f"{name}=read({str(path)!r})" for name, path in files.items())
    return f'{_READ}config["ssl_params"] = dict({entries})\n'


def readings(peer):
    return [int(each.payload.split()[0]) for each in peer.messages if "reading" in each.topic]


def all_came(peer, last):
    """Wait for the reading `last`; assert that each one before it came, in order of the first."""
    for count in range(1, 100):
        if last in readings(peer):
            break
        peer.wait_for(count * 10, topic="garden/reading")
    first = list(dict.fromkeys(readings(peer)))
    assert first[: last + 1] == list(range(last + 1))


# Three programs


def test_callbacks_through_a_restart_of_the_broker(tmp_path, broker):
    peer = broker.peer("garden/#", client_id="watcher", clean=False)
    device = Device(tmp_path / "device", broker.port, board=True)
    with device.start(PROGRAMS / "callbacks.py") as running:
        running.wait_for("^network up$")
        running.wait_for("^subscribed$")
        peer.publish("garden/valve", b"1")
        running.wait_for("^got garden/valve 1 False$")
        broker.restart()
        running.wait_for("^network down$")
        running.wait_for("^network up$")
        running.wait_for("^subscribed$")
        broker.peer().publish("garden/valve", b"2")
        running.wait_for("^got garden/valve 2 False$")
        all_came(peer, max(readings(peer)) + 5)
        running.interrupt()
        running.wait_for("^interrupted$")
        assert running.wait().code == 0, running.report()
    all_came(peer, max(readings(peer)))
    will = peer.wait_for(topic="garden/status")[-1]
    assert will.payload == b"gone", "close() says no goodbye"
    assert running.lines.count("network down") == 1


def test_events_and_a_kept_session_through_a_restart_with_tls(tmp_path, tls_broker, pki):
    peer = tls_broker.peer("garden/#", client_id="watcher", clean=False)
    lines = ssl_params(cadata=pki.ca.cert_der)
    device = Device(tmp_path / "device", tls_broker.port, lines)
    with device.start(PROGRAMS / "events.py") as running:
        running.wait_for("^up$")
        tls_broker.stop()
        running.wait_for("^down 1 False$")
        running.pause()
        tls_broker.start()
        sender = tls_broker.peer()
        for n in range(30):
            sender.publish("garden/valve", b"%d" % n)
        running.resume()
        running.wait_for("session resumed")
        for n in range(30):
            running.wait_for(f"^got garden/valve {n} False$")
        all_came(peer, max(readings(peer)) + 5)
    assert running.lines.count("up") == 2
    assert not [line for line in running.lines if "VERIF" in line]


def test_battery_wakes_hears_what_came_and_says_so_when_nobody_is_there(
    tmp_path, mtls_broker, pki
):
    peer = mtls_broker.peer("garden/#")
    files = {"key": pki.device.key_der, "cert": pki.device.cert_der, "cadata": pki.ca.cert_der}
    device = Device(tmp_path / "device", mtls_broker.port, ssl_params(**files), board=True)

    def wake():
        with device.start(PROGRAMS / "battery.py") as running:
            return running.wait()

    assert wake() == ("broker up True\nsleep False\n", "", 0)
    assert peer.wait_for()[0].payload == b"3.9"
    peer.publish("garden/settings", b"new")
    mtls_broker.restart()
    heard = "got b'garden/settings' b'new' False"
    assert sorted(wake().out.splitlines()) == ["broker up True", heard, "sleep False"]
    assert wake().out == "broker up True\nsleep False\n"
    mtls_broker.stop()
    out = wake().out
    assert out.startswith("Connection failed: (-1, ") and "nothing listens there" not in out
    assert "-> start the broker" in out
    assert "garden/status" not in [each.topic for each in peer.messages], "the will of nobody"


# The connection


def test_connect_fails_with_an_oserror_and_can_be_tried_again(tmp_path, broker):
    device = Device(tmp_path / "device", broker.port)
    broker.stop()
    with device.start("""
        client = MQTTClient(config)
        async def main():
            while True:
                try:
                    await client.connect()
                    break
                except OSError as e:
                    print("failed", e)
                    await asyncio.sleep_ms(500)
            print(client.isconnected(), await client.broker_up())
            await client.connect()  # as programs do that look after it themselves
            await client.disconnect()
            print(client.isconnected(), await client.broker_up(), await client.wan_ok())
            await client.connect()
            await client.publish("garden/reading", "1", qos=1)
        run(main())
        """) as running:
        running.wait_for("^failed .*cannot connect to 127.0.0.1.* -> start the broker")
        broker.start()
        running.wait_for("^True True$")
        running.wait_for("^False False False$")
        running.wait_for("^over$")


def test_a_board_without_its_wi_fi_says_so(tmp_path, broker):
    lines = 'config["wifi_pw"] = "another password"'
    device = Device(tmp_path / "device", broker.port, lines, board=True)
    out = device.check("""
        client = MQTTClient(config)
        async def main():
            try:
                await client.connect()
            except OSError as e:
                print(e)
        try:
            run(main())
        finally:
            client.close()
            import network
            print(network.WLAN(network.STA_IF).active())
            print("over")
        """)
    assert "Wi-Fi 'my-ssid': wrong password" in out
    assert out.endswith("False\nover\n")


def test_tasks_may_publish_and_subscribe_before_connect(tmp_path, broker):
    peer = broker.peer("garden/#")
    device = Device(tmp_path / "device", broker.port)
    device.check("""
        got = []
        config["subs_cb"] = lambda topic, msg, retained: got.append(msg)
        client = MQTTClient(config)
        async def early():
            await client.subscribe("garden/valve", 1)
            await client.publish("garden/valve", "early", qos=1)
        async def main():
            soon = early(), client.publish(b"garden/a", b"0")
            tasks = [asyncio.create_task(each) for each in soon]
            await asyncio.sleep_ms(300)
            await client.connect()
            for task in tasks:
                await task
            await until(lambda: got == [b"early"])
            await client.disconnect()
            task = asyncio.create_task(client.publish("garden/late", "late", False, 1))
            await asyncio.sleep_ms(300)
            await client.connect()
            await task
        run(main())
        """)
    peer.wait_for(3)
    assert sorted(peer.received) == [
        ("garden/a", b"0"),
        ("garden/late", b"late"),
        ("garden/valve", b"early"),
    ]


SESSIONS = [  # clean_init, clean: what arrives of three that came while the program did not run
    (True, True, [0, 0]),
    (True, False, [0, 3]),
    (False, False, [3, 3]),
]


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("clean_init, clean, expected", SESSIONS)
def test_clean_init_decides_at_the_start_and_clean_after_an_outage(
    tmp_path, broker, proxy, protocol, clean_init, clean, expected
):
    """As mqtt_as documents it; its 0.8.3 cannot come back to a session at all."""
    lines = f"""
        config["clean_init"], config["clean"] = {clean_init}, {clean}
        config["mqttv5"] = {protocol == 5}
        config["mqttv5_con_props"] = {{0x11: 600}}
        """
    device = Device(tmp_path / "device", proxy.port, lines)
    program = """
        async def connected(client):
            await client.subscribe("garden/valve", 1)
            print("up")
        config["connect_coro"] = connected
        config["subs_cb"] = lambda topic, msg, *_: print("got", msg.decode())
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await asyncio.sleep(60)
        asyncio.run(main())
        """

    def send(name):
        with broker.peer() as sender:
            for n in range(3):
                sender.publish("garden/valve", f"{name} {n}")

    def heard(name):
        broker.peer().publish("garden/valve", "end of " + name)
        running.wait_for("^got end of " + name)
        return len([line for line in running.lines if line.startswith(f"got {name} ")])

    with device.start(program) as running:  # it leaves a session behind, or not
        running.wait_for("^up$")
    send("start")
    with device.start(program) as running:
        running.wait_for("^up$")
        found = [heard("start")]
        proxy.refuse()
        proxy.rst()
        send("outage")
        proxy.heal()
        running.wait_for("^up$")
        found.append(heard("outage"))
    assert found == expected


@pytest.mark.parametrize("clean", [True, False])
def test_what_is_retained_comes_at_each_subscribe_and_once_for_it(tmp_path, broker, proxy, clean):
    """As with mqtt_as, whose programs subscribe when they are connected, or again at any time."""
    peer = broker.peer()
    peer.publish("garden/valve", "now", retain=True)
    device = Device(tmp_path / "device", proxy.port, f'config["clean"] = {clean}')
    with device.start("""
        async def subscribe(client):
            await client.subscribe("garden/valve", 1)
            await client.subscribe("garden/do/#", 1)
        def on_message(topic, msg, retained):
            print("got", topic.decode(), retained)
            if topic == b"garden/do/again":
                asyncio.create_task(subscribe(client))
        config["subs_cb"] = on_message
        config["connect_coro"] = subscribe
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await asyncio.sleep(60)
        asyncio.run(main())
        """) as running:
        running.wait_for("^got garden/valve True$")
        broker.wait_for_log("Received PUBACK from garden-1")  # else it comes twice, rightly
        proxy.rst()
        running.wait_for("^got garden/valve True$")
        broker.wait_for_log("garden/do/#", count=2)
        peer.publish("garden/do/again")
        running.wait_for("^got garden/valve True$")
        peer.publish("garden/do/end")
        running.wait_for("^got garden/do/end False$")
    assert len([line for line in running.lines if "valve" in line]) == 3


def test_the_broker_is_not_up_when_it_does_not_answer(tmp_path, broker):
    device = Device(tmp_path / "device", broker.port, 'config["response_time"] = 3')
    with device.start("""
        client = MQTTClient(config)
        async def main():
            await client.connect()
            print("up", await client.broker_up())
            input()
            print("up", await client.broker_up())
        run(main())
        """) as running:
        running.wait_for("^up True$")
        broker.pause()
        running.send("")
        running.wait_for("^up False$")
        broker.resume()


def test_keepalive_and_ping_interval_are_those_of_mqtt_as(tmp_path):
    out = Device(tmp_path / "device", 1883).check("""
        for keepalive, ping_interval in ((60, 0), (0, 0), (60, 15), (20, 30), (60, 0.1)):
            config.update(keepalive=keepalive, ping_interval=ping_interval)
            print(MQTTClient(config)._client.keepalive_s)
        print("over")
        """)
    assert out.split() == ["60", "80", "20.0", "20", "1", "over"]


# Messages


def test_a_callback_that_raises_is_told_and_the_next_message_comes(tmp_path, broker):
    device = Device(tmp_path / "device", broker.port)
    with device.start("""
        def on_message(topic, msg, retained):
            print("got", int(msg))
        config["subs_cb"] = on_message
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await client.subscribe("garden/#", 1)
            for msg in ("1", "no number", "2"):
                await client.publish("garden/valve", msg, qos=1)
            await asyncio.sleep(10)
        run(main())
        """) as running:
        running.wait_for("^got 1$")
        running.wait_for("^mqtt_as: subs_cb failed: ValueError")
        running.wait_for("^got 2$")


def test_two_tasks_share_the_queue(tmp_path, broker):
    device = Device(tmp_path / "device", broker.port, 'config["queue_len"] = 1')
    out = device.check("""
        client = MQTTClient(config)
        got = {"a": [], "b": []}
        async def messages(name):
            async for topic, msg, retained in client.queue:
                await asyncio.sleep_ms(20)
                got[name].append(int(msg))
        async def main():
            tasks = [asyncio.create_task(messages(name)) for name in got]
            await client.connect()
            await client.subscribe("garden/n", 1)
            for n in range(40):
                await client.publish("garden/n", str(n), qos=1)
            await until(lambda: len(got["a"]) + len(got["b"]) == 40)
            print(sorted(got["a"] + got["b"]) == list(range(40)), min(map(len, got.values())) > 10)
            print(client.queue.discards, client.REPUB_COUNT)
        run(main())
        """)
    assert out == "True True\n0 0\nover\n"


def test_text_beyond_ascii_is_carried_as_utf8(tmp_path, broker):
    peer = broker.peer("garden/#")
    device = Device(tmp_path / "device", broker.port)
    device.check("""
        got = []
        config["subs_cb"] = lambda *message: got.append(message)
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await client.subscribe("garden/öl".encode(), 1)
            await client.publish("garden/öl", "½", qos=1)
            await client.publish(bytearray(b"garden/x"), bytearray(b"1"), qos=1)
            await until(lambda: got)
            assert got == [("garden/öl".encode(), "½".encode(), False)], got
        run(main())
        """)
    peer.wait_for(2)
    assert peer.received == [("garden/öl", "½".encode()), ("garden/x", b"1")]


def test_debug_prints_what_happens_and_dprint_may_be_another(tmp_path, broker):
    device = Device(tmp_path / "device", broker.port)
    out = device.check("""
        class Silent(MQTTClient):
            pass
        class Logged(MQTTClient):
            DEBUG = True
            def dprint(self, msg, *args):
                print("LOG", msg % args)
        async def main():
            for kind in (Silent, Logged):
                client = kind(config)
                await client.connect()
                await client.disconnect()
        run(main())
        """)
    first, *more = out.splitlines()
    assert first.startswith("LOG mqtt 127.0.0.1:") and "connected in" in first
    assert len(more) == 2


# MQTT 5


def test_properties_have_their_numbers(tmp_path, broker):
    peer = broker.peer("garden/#", protocol=5)
    lines = """
        config["mqttv5"] = True
        config["mqttv5_con_props"] = {0x11: 3600, 0x26: {"made": "here"}, 0x21: 10}
        """
    device = Device(tmp_path / "device", broker.port, lines)
    out = device.check("""
        got = []
        config["subs_cb"] = lambda topic, msg, retained, properties: got.append(properties)
        client = MQTTClient(config)
        async def main():
            await client.connect(quick=True)
            print("aliases", client.topic_alias_maximum)
            await client.subscribe("garden/#", 1, {0x0B: 7})
            properties = {0x26: {"value": "test"}, 0x09: b"12", 0x08: "garden/answer", 0x02: 60}
            await client.publish("garden/a", "b", qos=1, properties=properties)
            await client.publish("garden/a", "c", qos=1)
            await until(lambda: len(got) == 2)
            for each in got:
                print(sorted(each.items()))
            try:
                await client.publish("garden/a", "b", properties={0x23: 1})
            except ValueError as e:
                print(e)
            await client.unsubscribe("garden/#")
        run(main())
        """)
    lines = out.splitlines()
    first = "[(2, 60), (8, 'garden/answer'), (9, b'12'), (11, 7), (38, {'value': 'test'})]"
    assert lines[:3] == ["aliases 10", first, "[(11, 7)]"]
    assert "use topic_aliases=" in lines[3]
    said = properties_of(peer.wait_for(2)[0])
    assert said["user_property"] == [("value", "test")]


def test_properties_are_left_out_where_mqtt_5_is_not_spoken(tmp_path, broker):
    peer = broker.peer("garden/#")
    Device(tmp_path / "device", broker.port).check("""
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await client.publish("garden/a", "b", qos=1, properties={0x02: 60})
        run(main())
        """)
    peer.wait_for()
    assert peer.received == [("garden/a", b"b")]


# TLS

CONNECTS = """
    client = MQTTClient(config)
    async def main():
        try:
            await client.connect()
            print("connected")
        except OSError as e:
            print("OSError", e)
    run(main())
    """
CONTEXT = """\
import tls
config["ssl"] = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
context.verify_mode = tls.CERT_{0}
"""
CADATA = "config['ssl_params']['cadata'] = read('CA')\n"
TLS_FORMS = {  # lines of mqtt_local.py, part of what is printed besides "connected"
    "nothing": ("", 'ssl_params has no "cadata"'),
    "a name": ('config["ssl_params"] = {"server_hostname": "broker.lan"}\n', 'no "cadata"'),
    "CERT_NONE": (CADATA + 'config["ssl_params"]["cert_reqs"] = 0\n', "leave cert_reqs out"),
    "a CA": (CADATA, None),
    "CERT_REQUIRED": (CADATA + 'config["ssl_params"]["cert_reqs"] = 2\n', None),
    "a context": (CONTEXT.format("NONE"), "set it, and load_verify_locations()"),
    "a context with a CA": (
        CONTEXT.format("REQUIRED") + "context.load_verify_locations(read('CA'))\n",
        None,
    ),
    "TLS": ("from mqtt_as_tls import TLS\nconfig['ssl'] = TLS(ca='CA', ntp=None)\n", None),
}


@pytest.mark.parametrize("form", TLS_FORMS)
def test_tls_verifies_when_it_has_whom_to_trust_and_else_says_so(form, tmp_path, tls_broker, pki):
    lines, told = TLS_FORMS[form]
    lines = _READ + lines.replace("'CA'", repr(str(pki.ca.cert_der)))
    out = Device(tmp_path / "device", tls_broker.port, lines).check(CONNECTS)
    *warnings, connected, _ = out.splitlines()
    assert connected == "connected"
    if not told:
        assert warnings == []
        return
    (warning,) = warnings
    assert warning.startswith("mqtt_as: TLS WITHOUT VERIFICATION: ") and told in warning


@pytest.mark.parametrize("form", ["a CA", "CERT_REQUIRED", "a context with a CA", "TLS"])
def test_what_verifies_does_not_believe_another_broker(form, tmp_path, pki):
    identity = pki.broker_wrong_ca
    with Broker(tmp_path / "broker", "tls", pki=pki, identity=identity) as broker:
        lines, _ = TLS_FORMS[form]
        lines = _READ + lines.replace("'CA'", repr(str(pki.ca.cert_der)))
        out = Device(tmp_path / "device", broker.port, lines).check(CONNECTS)
    assert out.startswith('OSError (-1, "The certificate is not correctly signed by the trusted')


# What cannot be carried over


MISTAKES = {
    'config["server"] = None': 'ValueError config["server"] is None: give',
    'config["gateway"] = True': 'ValueError config["gateway"]: ESP-NOW is not here: keep',
    'config.update(ssl=True, ssl_params={"cert_reqs": 2})': "ValueError .*: give the certificate",
    'config.update(ssl=True, ssl_params={"server_side": True})': "ValueError .*: leave it out",
    'config.update(ssl=True, ssl_params={"ciphers": "x"})': "TypeError ssl_params: .*; it takes",
    'config["will"] = ("a/#", "b", False, 0)': "ValueError topic 'a/#'",
    'config["mqtt_as_tls"] = {"max_pakcet": 1}': "TypeError MQTTClient has no argument",
}


def test_what_cannot_be_carried_over_is_told_with_a_remedy(tmp_path):
    program = "kept = dict(config)\n"
    for line in MISTAKES:
        program += f"config.clear()\nconfig.update(kept)\n{line}\n"
        program += "try:\n    MQTTClient(config)\nexcept Exception as e:\n"
        program += "    print(type(e).__name__, e)\n"
    out = Device(tmp_path / "device", 1883).check(program + 'print("over")\n')
    *told, _ = out.splitlines()
    assert len(told) == len(MISTAKES)
    for text, pattern in zip(told, MISTAKES.values(), strict=True):
        assert re.match(re.sub(r"([\[\]])", r"\\\1", pattern), text), text


def test_arguments_of_mqtt_as_tls_can_be_given_too(tmp_path, broker):
    lines = 'config["mqtt_as_tls"] = {"max_packet": 9000, "log": print}'
    out = Device(tmp_path / "device", broker.port, lines).check("""
        got = []
        config["subs_cb"] = lambda topic, msg, retained: got.append(len(msg))
        client = MQTTClient(config)
        async def main():
            await client.connect()
            await client.subscribe("garden/large", 1)
            await client.publish("garden/large", bytes(8000), qos=1)
            await until(lambda: got == [8000])
        run(main())
        """)
    assert "connected in" in out


def test_the_names_that_programs_import_are_there(tmp_path):
    out = Device(tmp_path / "device", 1883, board=True).check("""
        from mqtt_as import RP2, ESP32, ESP8266, PYBOARD, VERSION, config
        print(RP2, ESP32, ESP8266, PYBOARD, VERSION >= (0, 8), config["client_id"], config["port"])
        import mqtt_as
        mqtt_as.IBUFSIZE = 5000
        print("over")
        """)
    assert out == "False False False False True b'garden-1' 1883\nover\n"
