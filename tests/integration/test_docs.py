"""
What the README and docs/ tell people to type is typed here: the commands in a shell, the Python
under MicroPython with a board's Wi-Fi, against a real mosquitto with TLS.

A block is marked by a comment before it, `<!-- test: name -->`. Replaced are only the broker's
name and port, and the folder of the certificates. WRITE_DOCS=1 in the environment writes the lines
of the log anew where they are not what the client says now.
"""

import contextlib
import hmac
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from tests.support import docs, five, mpy, patience, process
from tests.support.board import FAKES, WIFI, Board
from tests.support.broker import HOST, Broker, is_listening, mosquitto
from tests.support.fake_broker import FakeBroker
from tests.support.pty_board import PtyBoard
from tools.mqttls import board as serial
from tools.ports import free_port


def for_board(source, port, host=HOST):
    """Return a program of the docs with the broker of the test, and the files of its board."""
    return source.replace('"broker.lan"', f'"{host}", {port}').replace('"/certs/', '"certs/')


def shell(commands, directory):
    """Run commands (str) as they are; return their stdout."""
    ran = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=patience.stretched(60),
    )
    assert ran.returncode == 0, f"{commands}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture
def board(tmp_path, pki):
    return Board(tmp_path / "board", pki)


# Every block


def test_every_marked_block_is_tested():
    source = "".join(path.read_text() for path in (mpy.ROOT / "tests").rglob("test_*.py"))
    names = [each.mark.removeprefix("test: ") for each in docs.blocks() if each.mark]
    unused = [name for name in names if name != "compile" and f'"{name}"' not in source]
    assert unused == []
    assert len(set(names)) == len([name for name in names if name != "compile"]) + 1


def test_every_python_block_is_marked_and_compiles(tmp_path):
    python = [each for each in docs.blocks() if each.language == "python"]
    ours = [each for each in python if each.path.name != "firmware.md"]  # that is for manifests
    assert [each.where for each in ours if not each.mark] == []
    for number, each in enumerate(python):
        (tmp_path / f"{number}.py").write_text(each.text)
    out = mpy.check(
        f"""
        for number in range({len(python)}):
            name = {str(tmp_path)!r} + "/%d.py" % number
            with open(name) as file:
                compile(file.read(), name, "exec")
        print("compiled")
        """
    )
    assert out == "compiled\n"


# The README: from nothing to a board


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder certs/ after the README's commands."""
    folder = tmp_path_factory.mktemp("made")
    shell(docs.text("certificates"), folder)
    return folder / "certs"


def make_certificates(folder, ip):
    """Follow the README in `folder`, as a PC with the address `ip`."""
    commands = docs.text("certificates")
    assert commands.count("IP=192.168.1.10") == 1
    shell(commands.replace("IP=192.168.1.10", f"IP={ip}"), folder)
    return folder / "certs"


@contextlib.contextmanager
def broker_of_the_readme(certs, more=""):
    """Start mosquitto in `certs` with the README's configuration; yield its port."""
    port = free_port()
    text = docs.text("mosquitto.conf")
    assert text.startswith("listener 8883\n")
    text = text.replace("8883", f"{port} {HOST}") + more
    if os.geteuid() == 0:
        text += "user root\n"  # the test's folder is root's alone
    (certs / "mosquitto.conf").write_text(text)
    command = docs.text("watch").splitlines()[0].split()
    assert command[0] == "mosquitto"
    with (certs / "broker.log").open("wb") as log:
        child = process.spawn(
            [mosquitto(), *command[1:]], cwd=certs, stdin=process.NULL, stdout=log, stderr=log
        )
        try:
            for _ in range(500):
                if is_listening(port) or child.poll() is not None:
                    break
            assert child.poll() is None, (certs / "broker.log").read_text()
            yield port
        finally:
            process.end(child)


def put_on(board, certs):
    """Copy what the README copies onto the board."""
    (line,) = [each for each in docs.text("copy").splitlines() if " :certs/" in each]
    for name in line.split()[2:-1]:
        shutil.copy(certs / Path(name).name, board.directory / "certs")


def test_the_certificates_are_what_mbedtls_likes(made):
    files = {path.name: path.read_bytes() for path in made.glob("*.der")}
    assert sorted(files) == ["ca.der", "cert.der", "key.der"]
    assert 880 < sum(map(len, files.values())) < 960
    assert files["key.der"][2:7] == b"\x02\x01\x01\x04\x20", "SEC1: version 1, then 32 bytes"
    broker = x509.load_pem_x509_certificate((made / "broker.crt").read_bytes())
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.lan", "192.168.1.10"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.10"]
    for name, role in (("broker", "SERVER_AUTH"), ("pico", "CLIENT_AUTH"), ("pc", "CLIENT_AUTH")):
        certificate = x509.load_pem_x509_certificate((made / f"{name}.crt").read_bytes())
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [getattr(x509.ExtendedKeyUsageOID, role)]


@pytest.mark.parametrize("name", ["broker.lan", "192.168.1.10"])
def test_the_readme_leads_to_a_connection(made, board, name):
    """Dialled is the test's address; the certificate is checked for the README's names."""
    put_on(board, made)
    with broker_of_the_readme(made) as port:
        board.settings(port, tls=f"server_hostname={name!r}")
        with board.start(docs.text("app")) as running:
            running.wait_for("connected in")
            log = (made / "broker.log").read_text()
            assert "garden-1" in log, "the common name is the user name"


def test_the_readme_with_the_address_of_this_pc(tmp_path, board):
    certs = make_certificates(tmp_path, HOST)
    put_on(board, certs)
    with broker_of_the_readme(certs) as port:
        watch = docs.text("watch").splitlines()[1]
        watch = watch.replace("broker.lan", HOST).replace("8883", str(port))
        assert watch.startswith("mosquitto_sub ")
        if not shutil.which("mosquitto_sub"):
            pytest.skip("mosquitto_sub is not installed: sudo apt install mosquitto-clients")
        watcher = process.spawn(
            ["sh", "-c", f"exec {watch}"],
            cwd=certs,
            stdin=process.NULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            board.settings(port)
            with board.start(docs.text("app")) as running:
                running.wait_for("connected in")
                seen = {watcher.stdout.readline(), watcher.stdout.readline()}
            home = "devices/garden-1/"
            assert seen == {f"{home}status online\n", f"{home}temperature 21.5\n"}
        finally:
            process.end(watcher)
            watcher.stdout.close()


def test_who_has_no_certificate_stays_outside(tmp_path):
    certs = make_certificates(tmp_path, HOST)
    with broker_of_the_readme(certs) as port:
        program = f"""
            import asyncio
            from mqtt_as_tls import MQTTClient, TLS
            client = MQTTClient({HOST!r}, {port}, tls=TLS(ca={str(certs / "ca.crt")!r}))
            asyncio.run(client.connect(timeout_s=1))
            """
        result = mpy.run(program)
    assert "the broker wants a certificate of the device" in result.out


def test_what_the_readme_copies_is_there(made):
    for line in docs.text("copy").splitlines() + docs.text("install").splitlines():
        command, *words = line.split()
        if line == "./dev build":
            continue
        assert command == "mpremote"
        if words[:2] == ["mip", "install"]:
            assert words[2] == "dist/mip/package.json"  # tests/packaging installs it
        elif words[0] == "cp":
            there = [made / Path(each).name for each in words[1:-1] if "certs/" in each]
            there += [mpy.ROOT / each for each in words[1:-1] if "certs/" not in each]
            assert [each for each in there if not each.exists()] == []
    assert docs.text("autostart").startswith("mpremote cp main.py :main.py\n")


def test_the_readme_runs_without_a_board(tmp_path, mtls_broker, pki):
    clone = Board(tmp_path / "clone", pki).directory  # its certs/ is where the README's is
    peer = mtls_broker.peer("devices/#")
    (clone / "examples").mkdir()
    mine = (mpy.ROOT / "examples/config.py").read_text().replace("broker.lan", HOST)
    assert "port = 8883" in mine
    mine = mine.replace("port = 8883", f"port = {mtls_broker.port}")
    (clone / "examples/config.py").write_text(mine)
    shell(docs.text("unix by hand"), clone)
    (clone / "main.py").write_text(docs.text("app"))
    with mpy.start(clone / "main.py", cwd=clone) as running:
        running.wait_for("connected in")
        peer.wait_for(2)


# What the log says


def plain(text):
    """Return `text` without what differs from run to run."""
    text = re.sub(r"127\.0\.0\.1:\d+", "broker.lan:8883", text)
    text = re.sub(r"127\.0\.0\.1 port \d+", "192.168.1.10 port 8883", text)
    return re.sub(r"127\.0\.0\.1", "192.168.1.10", text)


def same(text):
    """Return `text` without its numbers: a broker that hung up is 104, 32 or -30592 by chance."""
    return re.sub(r"-?\d+(\.\d+)?", "0", text)


def compare(name, lines):
    """Compare `lines` with the block `name`, but for the numbers, or write them there."""
    text = "".join(f"{plain(line)}\n" for line in lines)
    if os.environ.get("WRITE_DOCS") and same(docs.text(name)) != same(text):
        docs.rewrite(name, text)
    assert same(docs.text(name)) == same(text), f"WRITE_DOCS=1 writes it anew:\n{text}"


def test_the_log_when_it_works(board, mtls_broker):
    board.settings(mtls_broker.port)
    with board.start(docs.text("app")) as running:
        running.wait_for("connected in")
        compare("log when it works", running.lines)


def test_the_app_of_the_readme_obeys_and_says_goodbye_by_its_will(board, mtls_broker):
    home = "devices/garden-1/"
    peer = mtls_broker.peer(f"{home}status", f"{home}temperature")
    board.settings(mtls_broker.port)
    with board.start(docs.text("app")) as running:
        peer.wait_for(2)
        assert sorted(peer.received) == [
            (f"{home}status", b"online"),
            (f"{home}temperature", b"21.5"),
        ]
        peer.publish(f"{home}valve/2", b"30")
        running.wait_for(rf"^{home}valve/2 b'30'")
    assert peer.wait_for(3)[-1].payload == b"offline"


def test_the_log_when_it_fails(tmp_path, board, pki):
    """One line for each thing that goes wrong most often, from the app of the README."""
    lines = []

    def first_failure(port, mutual=True, **options):
        board.settings(port, mutual=mutual)
        with board.start(docs.text("app"), **options) as running:
            lines.append(running.wait_for("not connected|connection lost"))

    with Broker(tmp_path / "good", "mtls", "tls", pki=pki, users={"me": "secret"}) as broker:
        first_failure(broker.port, env={"FAKE_WIFI": f"{WIFI[0]}:another"})
        first_failure(broker.port, env={"FAKE_WIFI": f"another:{WIFI[1]}"})
        first_failure(broker.ports["mtls"], mutual=False)
        first_failure(broker.ports["tls"], mutual=False)
        broker.stop()
        first_failure(broker.port)
    for identity in (pki.broker_wrong_ca, pki.broker_wrong_name, pki.broker_future):
        with Broker(tmp_path / identity.name, "mtls", pki=pki, identity=identity) as broker:
            first_failure(broker.port)
    compare("log when it fails", lines)


def test_the_readme_shows_some_of_the_lines_when_it_fails():
    lines = {same(line) for line in docs.text("log when it fails").splitlines()}
    shown = docs.text("log when it fails, in short").splitlines()
    assert [line for line in shown if same(line) not in lines] == []


def test_mistakes_raise_with_a_remedy(board, mtls_broker):
    program = """
        from mqtt_as_tls import TLS, MQTTClient
        def show(call):
            try:
                call()
            except Exception as error:
                print("%s: %s" % (type(error).__name__, error))
        client = MQTTClient("broker.lan", tls=TLS(ca="/certs/ca.der"), log=None)
        async def main():
            async with client:
                show(lambda: TLS(ca="/certs/nothing.der"))
                show(lambda: TLS(ca="/certs/key.der"))
                show(lambda: TLS(ca="/certs/ca.der", cert="/certs/cert.der"))
                show(lambda: MQTTClient("broker.lan", keepalive=30))
                show(lambda: client.publish("garden/+/level", "3"))
                show(lambda: client.publish("garden/level", 3))
                show(lambda: client.publish("garden/level", "3", qos=3))
        import asyncio
        asyncio.run(main())
        """
    source = "\n".join(line[8:] for line in program.splitlines())
    with board.start(for_board(source, mtls_broker.port)) as running:
        result = running.wait()
    assert result.code == 0, result
    compare("mistakes", [line.replace("certs/", "/certs/") for line in result.out.splitlines()])


# docs/guide.md and docs/tls.md: fragments, each with what it needs before and after it

_BEFORE = """\
import asyncio
from mqtt_as_tls import MQTTClient, TLS, WiFi, Will
client = MQTTClient(
    "broker.lan", tls=TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der")
)
"""
_RUN = """
async def main():
    async with client:
        await client.wait_connected(10)
        await asyncio.wait_for(test(), 10)
    print("ok")
asyncio.run(main())
"""
_CONNECT = "\nasync def test():\n    await client.publish('garden/a', 'b', qos=1)\n"
_CONNECT_WITH_TLS = (
    "\nclient = MQTTClient('127.0.0.1', client.port, tls=tls, client_id='x')" + _CONNECT
)

FRAGMENTS = {
    "handlers": """
async def test():
    await client.publish("garden/valve/2", "0", qos=1)
    await client.publish("garden/settings", '{"frost": true}', qos=1)
    await asyncio.sleep(0.2)
""",
    "subscribe": """
async def test():
    await follow("well")
    got = []
    async with client.messages() as messages:
        await client.publish("garden/well/level", "3", qos=1)
        async for message in messages:
            got.append(message.payload)
            break
    await forget("well")
    from tests.device.inside import filters
    print(got, filters(client))
""",
    "messages": """
async def test():
    await client.subscribe("garden/+/level", qos=1)
    task = asyncio.create_task(levels())
    await asyncio.sleep(0)
    await client.publish("garden/tank/level", "7", qos=1)
    await client.publish("garden/well/level", "3", qos=1)
    await task
""",
    "messages with time-out": """
async def test():
    await client.subscribe("garden/+/level", qos=1)
    async with client.messages() as messages:
        await client.publish("garden/tank/level", "7", qos=1)
        print(await next_level(messages), await next_level(messages))
""",
    "publish": """
async def test():
    await report(21.55)
    await report_soon(21.6)
    report_later(21.7)
""",
    "newest": """
async def test():
    report_newest(21.55)
""",
    "timer": """
def light():
    return 42
async def test():
    got = []
    client.on("garden/light", qos=1)(lambda message: got.append(message.payload))
    client.on("garden/button", qos=1)(lambda message: got.append(b"button " + message.payload))
    begin()
    while len(got) < 2:
        await asyncio.sleep(0.01)
    print(sorted(got))
""",
    "second core": """
import time
levels = ["1", "2"]
def level():
    return levels.pop(0) if levels else "0"
async def test():
    got = []
    client.on("garden/level", qos=1)(lambda message: got.append(message.payload))
    begin()
    while len(got) < 2:
        await asyncio.sleep(0.01)
    print(got)
""",
    "flag": """
async def test():
    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    alarm(None)
    await asyncio.sleep(0.3)
    task.cancel()
""",
    "will": _CONNECT,
    "on_connect": """
async def test():
    got = []
    @client.on("garden/firmware")
    def version(message):
        got.append(message.payload)
    while not got:
        await asyncio.sleep(0.01)
    print(got)
""",
    "events": """
class Led:
    def on(self):
        print("on")
    def off(self):
        print("off")
async def test():
    asyncio.create_task(lamp(Led()))
    await asyncio.sleep(0)
    from tests.device.inside import lose
    lose(client, OSError(104))
    await asyncio.sleep(0.1)
    await client.wait_connected(10)
    await asyncio.sleep(0.1)
""",
    "log": """
client = MQTTClient("broker.lan", client_id="x", log=log, tls=TLS(
    ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der"))
async def test():
    with open("mqtt.log") as file:
        print(file.read())
""",
    "networks": """
async def test():
    await link.up()
    import network
    print(link.is_up(), network.country(), network.hostname(), link.dns_servers())
""",
    "own link": """
class NIC:
    up = False
    def active(self, yes):
        self.up = yes
        print("nic", yes)
    def isconnected(self):
        return self.up
    def ifconfig(self):
        return ("127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1")
client = MQTTClient("broker.lan", client_id="x", link=Ethernet(NIC()), tls=TLS(
    ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der"))
"""
    + _CONNECT,
    "watchdog": """
async def test():
    task = asyncio.create_task(watchdog())
    await asyncio.sleep(1.2)
    task.cancel()
""",
    "radio dead": """
async def test():
    machine.reset = lambda: print("machine: reset")
    task = asyncio.create_task(reset_for_the_radio())
    await asyncio.sleep(0)
    for n in range(1, 4):
        print(n, "starts failed")
        client.event_log.put("RadioDead", n)
        await asyncio.sleep(0.01)
    task.cancel()
""",
    "script": """
import gc
async def main():
    await once()
    print("stopped", not client.running)
    print("ok")
asyncio.run(main())
""",
    "pc": _CONNECT,
    "stream in": """
import io
async def test():
    await client.publish("garden/picture", io.BytesIO(bytes(9000)), length=9000, qos=1)
    while "picture.jpg" not in os.listdir():
        await asyncio.sleep(0.01)
    print(os.stat("picture.jpg")[6])
""",
    "stream out": """
@client.on("garden/log", qos=1, stream=True)
async def log(message):
    print(message.length, len(await message.stream.read()))
async def test():
    with open("big", "wb") as file:
        file.write(bytes(4000))
    await send("big")
    await asyncio.sleep(0.2)
""",
    "mutual": _CONNECT_WITH_TLS,
    "ntp": '\nprint("ok")\n',
    "several CAs": _CONNECT_WITH_TLS,
    "chain": _CONNECT_WITH_TLS,
    "pinned": '\nprint(tls.verified)\nprint("ok")\n',
    "unverified": '\nprint(tls.verified)\nprint("ok")\n',
    "methods as handlers": """
async def test():
    told = []
    client.on("garden/valve/+/state", qos=1)(lambda message: told.append(message.topic))
    await client.publish("garden/valve/2/set", "30", qos=1)
    while not told:
        await asyncio.sleep(0.01)
    print(told)
""",
    "publish from a plain function": """
async def test():
    told = []
    client.on("garden/button", qos=1)(lambda message: told.append(message.payload))
    pressed(None)
    while not told:
        await asyncio.sleep(0.01)
    print(told)
""",
    "umqtt": """
client.connect()
client.publish("garden/a", "b", qos=1)
client.disconnect()
print("ok")
""",
}
# what is among the lines of the output
EXPECTED = {
    "handlers": ["valve 2 opens for 0 s", "valve 2 closed", "settings: {'frost': True}"],
    "subscribe": ["well is followed with QoS 1", "[b'3'] []"],
    "messages": ["garden/tank/level 7", "garden/well/level 3"],
    "messages with time-out": ["7 None"],
    "publish": ["the broker has it"],
    "timer": ["[b'42', b'button 1']"],
    "second core": ["[b'1', b'2']"],
    "flag": ["the broker has it"],
    "on_connect": ["[b'1.4.2']"],
    "events": ["off", "on"],
    "networks": ["True DE garden-1 ['127.0.0.1']"],
    "own link": ["nic True"],
    "watchdog": ["machine: watchdog 8000"],
    "radio dead": ["1 starts failed", "2 starts failed", "3 starts failed", "machine: reset"],
    "stream in": ["9000"],
    "stream out": ["4000 4000"],
    "methods as handlers": ["garden/valve/2 turns to b'30'", "['garden/valve/2/state']"],
    "publish from a plain function": ["[b'pressed']"],
    "script": ["stopped True"],
    "pinned": ["True"],
    "unverified": ["False"],
}


SERVER_ONLY = ("several CAs",)  # these show no client certificate

# docs/mqtt5.md: the same for the client of that page
FRAGMENTS |= {
    "mqtt5 client": """
async def test():
    await client.wait_connected()
    print(sorted(client.properties))
""",
    "mqtt5 properties": """
async def test():
    await client.wait_connected()
    await report(21.55)
    await asyncio.sleep(0.2)
""",
    "mqtt5 request": """
async def test():
    tank = MQTTClient("broker.lan", client_id="tank", protocol=5, log=None, tls=client.tls)
    @tank.on("garden/level/get", qos=1)
    async def tell(message):
        if message.payload == b"tank":
            await tank.respond(message, "420")
    print(await level("tank"))
    async with tank:
        await tank.wait_connected()
        await asyncio.sleep(0.2)
        print(await level("tank"))
""",
    "mqtt5 respond": """
async def test():
    await asyncio.sleep(0.2)
    for name in ("tank", "barrel"):
        answer = await client.request("garden/level/get", name, qos=1)
        print(name, answer.payload)
""",
    "mqtt5 ack": """
async def test():
    await asyncio.sleep(0.2)
    for payload in ("60", "often"):
        await client.publish("garden/settings", payload, qos=1)
    await asyncio.sleep(0.2)
    print(client.stats.connects)
""",
    "mqtt5 will": _CONNECT,
    "mqtt5 subscribe": """
async def test():
    await asyncio.sleep(0.2)
    friend = MQTTClient("broker.lan", client_id="friend", protocol=5, log=None, tls=client.tls)
    async with friend:
        await client.publish("chat/me", "I say", qos=1)
        await friend.publish("chat/you", "hello", qos=1)
        await asyncio.sleep(0.2)
""",
}
EXPECTED |= {
    "mqtt5 client": ["['receive_maximum', 'topic_alias_maximum']"],
    "mqtt5 properties": ["b'21.6' text/plain [('unit', 'celsius'), ('sensor', 'north')]"],
    "mqtt5 request": ["cannot ask: no one is subscribed to 'garden/level/get'", "None", "420"],
    "mqtt5 respond": ["tank b'420'", "barrel b'0'"],
    "mqtt5 ack": ["every 60 s", "1"],
    "mqtt5 subscribe": ["chat/you b'hello' [7]"],
}


# docs/recipes.md; its radio is one that joins, whatever it is asked for, and says so
_RADIO = """
class Radio:
    SEC_WPA3 = 0x1000004
    SEC_WPA2_WPA3 = 0x1400004
    joined = False
    def __init__(self, interface):
        self.address = ("192.168.4.1" if interface else "192.168.4.17",) + ("192.168.4.1",) * 3
    def active(self, yes):
        print("active", yes)
    def config(self, **values):
        print("config", sorted(values))
    def connect(self, ssid, password, security):
        print("joins", ssid, hex(security))
        self.joined = True
    def disconnect(self):
        self.joined = False
    def isconnected(self):
        return self.joined
    def ifconfig(self):
        return self.address
network.WLAN = Radio
"""
FRAGMENTS |= {
    "wpa3": _RADIO
    + """
link = WPA3("my-ssid", "my-password")
client = MQTTClient("broker.lan", client_id="x", link=link, tls=TLS(
    ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der"))
async def test():
    await client.publish('garden/a', 'b', qos=1)
    print(link.dns_servers(), link.is_up())
    await link.reset()
    print(link.is_up())
    await link.up()
    await link.down()
""",
    "web server": """
async def get(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    try:
        await writer.drain()
        return await reader.read(-1)
    except OSError:  # hung up on
        return b""
    finally:
        writer.close()
async def test():
    server = await serve(free_port)
    got = await asyncio.gather(*[get(free_port) for _ in range(5)])
    print(len([page for page in got if page.endswith(b"connected")]) > 1, open_pages)
    print((await get(free_port)).split()[-1])
    server.close()
""",
    "aiorepl": """
async def app():
    global client
    client = MQTTClient("broker.lan", client_id="x", log=print, tls=client.tls)
    await main()
    print("ok")
asyncio.run(app())
""",
    "lightsleep": """
link = WiFi("my-ssid", "my-password")
client = MQTTClient("broker.lan", client_id="x", link=link, tls=client.tls)
machine.lightsleep = lambda ms: print("sleeps", ms, link.is_up(), client.running)
async def main():
    for reading in "12":
        await report_and_sleep(reading)
    print(client.stats.connects, client.stats.sent)
    print("ok")
asyncio.run(main())
""",
    "latest": """
async def test():
    got = []
    client.on("garden/temperature", qos=1)(lambda message: got.append(message.payload))
    task = asyncio.create_task(report())
    from tests.device.inside import lose
    lose(client, OSError(104))
    while client.connected:
        await asyncio.sleep(0.01)
    for value in (1, 2, 3):
        measure(value)
        await asyncio.sleep(0)
    while not got:
        await asyncio.sleep(0.01)
    measure(4)
    while len(got) < 2:
        await asyncio.sleep(0.01)
    print(got)
    task.cancel()
""",
}
EXPECTED |= {
    "wpa3": ["joins my-ssid 0x1000004", "['192.168.4.1'] True", "False", "active False"],
    "web server": ["True 0", "b'connected'"],
    "aiorepl": ["prompt True"],
    "lightsleep": ["sleeps 600000 False False", "2 2"],
    "latest": ["[b'3.0', b'4.0']"],
}
# what a fragment imports that is installed from elsewhere
_AIOREPL = """
import asyncio
async def task(names):
    await names["client"].wait_connected(10)
    print("prompt", eval("client.connected", names))
"""


@pytest.fixture
def both_brokers(tmp_path, pki):
    with Broker(tmp_path / "broker", "mtls", "tls", pki=pki) as running:
        yield running


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragment(name, board, both_brokers, pki):
    shutil.copy(pki.ca.cert_der, board.directory / "certs/next-ca.der")
    shutil.copy(pki.intermediate_ca.cert_der, board.directory / "certs/issuing-ca.der")
    shutil.copy(pki.broker_self_signed.cert_pem, board.directory / "certs/broker.crt")
    after = FRAGMENTS[name]
    before = _BEFORE
    if name.startswith("mqtt5 "):
        before = before.replace('"broker.lan",', '"broker.lan", protocol=5,')
    program = before + docs.text(name) + after + (_RUN if "def test" in after else "")
    options = {"env": {"FAKE_WIFI": "workshop:battery staple"}} if name == "networks" else {}
    (board.directory / "aiorepl.py").write_text(_AIOREPL)
    program = program.replace("free_port", str(free_port()))
    port = both_brokers.ports["tls" if name in SERVER_ONLY else "mtls"]
    if name in SERVER_ONLY:
        program = program.replace(', cert="/certs/cert.der", key="/certs/key.der"', "")
    with board.start(for_board(program, port), **options) as running:
        result = running.wait()
    lines = result.out.splitlines()
    assert result.code == 0 and "ok" in lines, running.report()
    assert [each for each in EXPECTED.get(name, ()) if each not in lines] == [], result.out


def _setup(port):
    setup = docs.text("setup").replace("port=80", f"port={port}")
    return _BEFORE.partition("client =")[0] + setup


def test_settings_from_a_phone(board):
    """A board without settings asks for them, starts anew, and is in that network."""
    port = free_port()
    program = _setup(port) + _RADIO + docs.text("settings")
    with board.start(program) as running:
        running.wait_for("open http://192.168.4.1")
        held = [socket.create_connection((HOST, port)) for _ in range(5)]  # as browsers do
        for sent in (b"POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nssid=", b"\xff\n\n", b""):
            held.append(socket.create_connection((HOST, port)))
            held[-1].sendall(sent)
            held[-1].shutdown(socket.SHUT_WR)
        with urllib.request.urlopen(f"http://{HOST}:{port}/") as page:
            assert b"name=ssid" in page.read()
        for each in held:  # the board ends those that send nothing
            each.settimeout(patience.stretched(30))
            with contextlib.suppress(ConnectionError):
                while each.recv(4096):
                    pass
            each.close()
        form = urllib.parse.urlencode({"ssid": "Büro & co", "password": "50% correct=horse"})
        with contextlib.suppress(OSError):  # it resets before it answers
            urllib.request.urlopen(f"http://{HOST}:{port}/", form.encode())
        running.wait_for("machine: reset")
    assert running.errors == [], running.report()
    assert json.loads((board.directory / "wifi.json").read_text()) == [
        "Büro & co",
        "50% correct=horse",
    ]
    after = "\nprint(asyncio.run(link.up()), link.is_up())\n"
    with board.start(
        _setup(port) + docs.text("settings") + after,
        env={"FAKE_WIFI": "Büro & co:50% correct=horse"},
    ) as running:
        running.wait_for("^None True")


def test_settings_of_an_open_network(board):
    port = free_port()
    program = _setup(port) + _RADIO + docs.text("settings")
    with board.start(program) as running:
        running.wait_for("open http://192.168.4.1")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/", b"ssid=cafe&password=")
        running.wait_for("machine: reset")
    after = "\nprint(link.is_up())\n"
    program = _setup(port) + docs.text("settings") + after
    with board.start(program, env={"FAKE_WIFI": "cafe:"}) as running:
        running.wait_for("^True")


def test_settings_that_do_not_work_are_asked_for_again(board):
    port = free_port()
    (board.directory / "wifi.json").write_text('["home", "correct mouse"]')
    # the station is the simulated one, the access point that of the other test
    both = """
station = network.WLAN
""" + _RADIO.replace(
        "network.WLAN = Radio",
        "class Both(station):\n"
        "    def __new__(cls, interface=0):\n"
        "        return (Radio if interface else station)(interface)\n"
        "network.WLAN = Both",
    )
    settings = docs.text("settings")
    assert "asyncio.sleep(20)" in settings
    program = _setup(port) + both + settings.replace("asyncio.sleep(20)", "asyncio.sleep(0.01)")
    with board.start(program, env={"FAKE_WIFI": "home:correct horse"}) as running:
        running.wait_for("open http://192.168.4.1")
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{HOST}:{port}/", b"ssid=home&password=correct+horse")
        running.wait_for("machine: reset")
        assert len([line for line in running.lines if "wrong password" in line]) == 10
    with board.start(
        _setup(port) + settings + "\nprint(link.is_up())\n",
        env={"FAKE_WIFI": "home:correct horse"},
    ) as running:
        running.wait_for("^True")


def test_a_captive_portal_answers_every_name(board):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    program = "import asyncio\n" + docs.text("captive portal")
    program += f"asyncio.run(every_name('192.168.4.1', {port}))\n"
    question = b"\3www\7example\3com\0\0\1\0\1"
    with (
        board.start(program) as running,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(0.2)
        answer = b""
        for _ in range(100):  # until it is there
            sock.sendto(b"ab\1\0\0\1\0\0\0\0\0\0" + question, (HOST, port))
            with contextlib.suppress(OSError):
                answer = sock.recv(512)
                break
        assert answer, running.report()
    assert answer[:2] == b"ab" and answer[12 : 12 + len(question)] == question
    assert answer[-4:] == bytes((192, 168, 4, 1)) and len(answer) == 12 + len(question) + 16


def test_names_in_the_certificate_need_not_be_the_ones_dialled(tmp_path, board, pki):
    named = pki.issue("only a name", issuer=pki.ca, names=("broker.lan",), addresses=())
    with Broker(tmp_path / "broker", "tls", pki=pki, identity=named) as broker:
        dialled = f'MQTTClient("127.0.0.1", {broker.port}'
        program = _BEFORE.split("client =")[0] + docs.text("names")
        assert 'MQTTClient("127.0.0.1"' in program
        program = program.replace('MQTTClient("127.0.0.1"', dialled).replace('"/certs/', '"certs/')
        with board.start(program + "\nasyncio.run(client.connect())\n") as running:
            running.wait_for("connected in")


def test_clients_share_a_link(board, mtls_broker):
    peer = mtls_broker.peer("garden/#")
    program = _BEFORE + docs.text("shared link") + "\nasyncio.run(main())\n"
    with board.start(for_board(program, mtls_broker.port)) as running:
        result = running.wait()
    assert result.code == 0 and result.out.count("link up") == 1, running.report()
    peer.wait_for(2)
    assert sorted(peer.received) == [
        ("garden/alarm", b"frost"),
        ("garden/temperature", b"21.5"),
    ]


def test_ctrl_c_and_run_again(board, mtls_broker):
    """As at the prompt: the same program twice in one interpreter, the first one interrupted."""
    program = f"""
{_BEFORE}
async def main():
    async with client:
        await client.wait_connected()
        print("runs")
        await asyncio.sleep(60)

{docs.text("again")}"""
    (board.directory / "app.py").write_text(for_board(program, mtls_broker.port))
    twice = """
def run():
    with open("app.py") as file:
        exec(file.read(), {"__name__": "__main__"})
try:
    run()
except KeyboardInterrupt:
    print("interrupted")
run()
"""
    with board.start(twice) as running:
        running.wait_for("^runs")
        running.interrupt()
        running.wait_for("^interrupted")
        running.wait_for("^runs")


# docs/guide.md: what a broker does that forgets, or that is one of two

_PLAIN = """\
import asyncio
from mqtt_as_tls import MQTTClient
client = MQTTClient("broker.lan", client_id="garden-1")
"""


def forgetful(connection):
    """Lose the session of the first connection once three QoS 2 messages are under way."""
    connection.accept()
    if connection.number > 1:
        connection.until_closed()
    for _ in range(3):
        assert connection.packet()[0] == 0x34


def test_nobody_knows_whether_a_qos_2_message_of_a_lost_session_arrived(board):
    """One whose publisher waits, one that is cancelled, one of the queue."""
    program = """
async def main():
    async with client:
        watching = asyncio.create_task(watch())
        opening = asyncio.create_task(open_gate())
        cancelled = asyncio.create_task(client.publish("cancelled", "x", qos=2))
        await asyncio.sleep(0)
        client.enqueue("queued", "x", qos=2)
        await client.wait_connected()
        cancelled.cancel()
        await opening
        await asyncio.sleep(0.1)
asyncio.run(main())
"""
    program = _PLAIN + docs.text("unknown") + docs.text("undelivered") + program
    with (
        FakeBroker(forgetful) as broker,
        board.start(for_board(program, broker.port)) as running,
    ):
        result = running.wait()
    assert result.code == 0, running.report()
    lines = result.out.splitlines()
    assert "nobody knows: look at the gate before you try again" in lines
    lost = [line for line in lines if line.startswith("perhaps lost: ")]
    assert [line.split()[2] for line in lost] == ["cancelled", "queued"]
    assert all("DeliveryUnknown" in line for line in lost)


def test_of_several_brokers_the_first_that_lives_is_taken(tmp_path, board, pki):
    app = """
@client.on("garden/valve", qos=1)
def valve(message):
    print("valve", message.payload)
async def main():
    async with client:
        while True:
            await client.wait_connected()
            print("at", client.port)
            while client.connected:
                await asyncio.sleep(0.05)
asyncio.run(main())
"""
    with (
        Broker(tmp_path / "first", "mtls", "tcp", pki=pki) as first,
        Broker(tmp_path / "backup", "mtls", "tcp", pki=pki) as backup,
    ):
        program = docs.text("several brokers")
        names = '["broker.lan", "backup.lan"]'
        assert names in program
        program = program.replace(names, f'[("{HOST}", {first.port}), ("{HOST}", {backup.port})]')
        before = "import asyncio\nfrom mqtt_as_tls import MQTTClient, TLS\n"
        with board.start(for_board(before + program + app, 0)) as running:
            running.wait_for(f"^at {first.port}$")
            first.stop()
            running.wait_for(f"^at {backup.port}$")
            backup.peer().publish("garden/valve", b"1")
            running.wait_for("^valve b'1'")
            first.start()
            backup.stop()
            running.wait_for(f"^at {first.port}$")
            first.peer().publish("garden/valve", b"2")
            running.wait_for("^valve b'2'")


def test_a_fleet_goes_back_to_its_first_broker(tmp_path, board, pki):
    with contextlib.ExitStack() as stack:
        brokers = {
            broker.ports["mtls"]: broker
            for broker in (
                stack.enter_context(Broker(tmp_path / name, "mtls", "tcp", pki=pki))
                for name in "abc"
            )
        }
        program = docs.text("a fleet over several brokers")
        names = '["a.lan", "b.lan", "c.lan"]'
        assert names in program and "prefer_first_s=600" in program
        program = program.replace(names, str([(HOST, port) for port in brokers]))
        program = program.replace("prefer_first_s=600", "prefer_first_s=1")
        app = """
async def main():
    async with client:
        while True:
            await client.wait_connected()
            print("at", client.port)
            while client.connected:
                await asyncio.sleep(0.05)
asyncio.run(main())
"""
        before = "import asyncio\nfrom mqtt_as_tls import MQTTClient, TLS\n"
        running = stack.enter_context(board.start(for_board(before + program + app, 0)))
        own = int(running.wait_for("^at ").split()[1])
        brokers[own].stop()
        assert int(running.wait_for("^at ").split()[1]) in set(brokers) - {own}
        brokers[own].start()
        running.wait_for(f"^at {own}$")


# docs/mqtt5.md


def said(board, port, program):
    """Run `program` on the board, with the client of docs/mqtt5.md; return its stdout."""
    before = _BEFORE.replace('"broker.lan",', '"broker.lan", protocol=5, log=None,')
    with board.start(for_board(before + program, port)) as running:
        result = running.wait()
    assert result.code == 0, running.report()
    return result.out


def test_mistakes_with_properties(board, mtls_broker):
    program = """
other = MQTTClient("broker.lan", client_id="other", log=None)
def show(client, name):
    try:
        client.publish("garden/temperature", "21.5", properties={name: 5})
    except Exception as error:
        print("%s: %s" % (type(error).__name__, error))
async def main():
    async with client, other:
        show(client, "contenttype")
        show(client, "will_delay_interval")
        show(other, "content_type")
asyncio.run(main())
"""
    assert said(board, mtls_broker.port, program) == docs.text("mqtt5 mistakes")


def test_a_broker_says_that_a_publish_is_not_allowed(tmp_path, board, pki):
    program = """
from mqtt_as_tls import RefusedError
async def main():
    async with client:
        await try_it()
asyncio.run(main())
"""
    with Broker(tmp_path / "broker", "mtls", pki=pki, acl="topic garden/#\n") as broker:
        out = said(board, broker.port, docs.text("mqtt5 refused") + program)
    assert out == docs.text("mqtt5 refusal")


@pytest.mark.parametrize("known", [True, False])
def test_authentication_with_proofs_of_both_sides(known, board):
    """The sketch of the page, against the same written with Python's own hmac."""
    source = docs.text("mqtt5 auth")
    secret = re.search(r'SECRET = b"(.*)"', source)[1].encode()
    assert len(secret) == 32
    method = b"\x15" + five.field("HMAC-EXAMPLE")
    seen = []

    def script(connection):
        _, body = connection.packet()
        nonce = body.split(b"\x16" + (25).to_bytes(2, "big") + b"garden-1 ")[1][:16]
        connection.send(five.auth(0x18, method, b"\x16" + five.field(b"salt")))
        first, body = connection.packet()
        proof = hmac.digest(secret, b"device" + nonce + b"salt", "sha256")
        seen.append((first, body[-32:] == proof))
        mine = hmac.digest(secret if known else b"?", b"broker" + nonce + b"salt", "sha256")
        connection.send(five.connack(method, b"\x16" + five.field(mine)))
        connection.until_closed()

    with FakeBroker(script) as broker:
        program = re.sub(r"    tls=.*\n", "", source).replace(
            "    protocol=5,", '    protocol=5, client_id="garden-1",'
        )
        assert program.count("tls") == 0
        before = "import asyncio\nfrom mqtt_as_tls import MQTTClient\n"
        after = "\nasyncio.run(client.connect(timeout_s=3))\n"
        with board.start(before + for_board(program, broker.port) + after) as running:
            running.wait_for("connected in" if known else "does not know the secret")
    assert seen[0] == (0xF0, True)


# docs/tls.md: commands


def connects(board, port, certs=None):
    """Tell whether the app of the README connects with what is on the board."""
    if certs:
        put_on(board, certs)
    board.settings(port)
    with board.start(docs.text("app")) as running:
        running.wait_for("connected in")


def test_converting_a_key_and_a_certificate(tmp_path, board):
    certs = make_certificates(tmp_path, HOST)
    shell("openssl pkcs8 -topk8 -nocrypt -in pico.key -out new.key; mv new.key pico.key", certs)
    (certs / "cert.der").unlink()
    (certs / "key.der").unlink()
    shell(docs.text("convert"), certs)
    assert (certs / "key.der").read_bytes()[2:7] == b"\x02\x01\x01\x04\x20", "SEC1"
    with broker_of_the_readme(certs) as port:
        connects(board, port, certs)


def test_certificates_that_are_valid_from_2020_on(tmp_path, board):
    certs = make_certificates(tmp_path, HOST)
    shell(docs.text("early"), certs)
    for name in ("ca", "broker", "pico"):
        certificate = x509.load_pem_x509_certificate((certs / f"{name}.crt").read_bytes())
        assert certificate.not_valid_before_utc.year == 2020
        assert certificate.not_valid_after_utc.year == 2036
    with broker_of_the_readme(certs) as port:
        connects(board, port, certs)


def test_a_self_signed_broker_is_pinned(tmp_path, board):
    certs = make_certificates(tmp_path, HOST)
    shell(docs.text("self-signed"), certs)
    shutil.copy(certs / "broker.crt", board.directory / "certs")
    shutil.copy(certs / "pico.crt", board.directory / "certs")
    shutil.copy(certs / "pico.key", board.directory / "certs")
    pinned = docs.text("pinned").strip()
    assert pinned.startswith("tls = TLS(") and pinned.endswith(")")
    program = f"""
import config
from mqtt_as_tls import TLS
{pinned[:-1]}, cert="/certs/pico.crt", key="/certs/pico.key")
config.mqtt["tls"] = tls
"""
    with broker_of_the_readme(certs) as port:
        board.settings(port)
        with board.start(for_board(program, port) + docs.text("app")) as running:
            running.wait_for("connected in")


def test_inspecting_a_broker(tmp_path):
    certs = make_certificates(tmp_path, HOST)
    with broker_of_the_readme(certs) as port:
        command = docs.text("inspect").replace("broker.lan:8883", f"{HOST}:{port}")
        if "LibreSSL" in shell("openssl version", certs):  # as the page says
            command = command.replace("-ext subjectAltName", "-text")
        out = shell(command, certs)
    assert "broker.lan" in out and "notAfter=" in out and f"IP Address:{HOST}" in out


def test_the_acl_keeps_devices_apart(tmp_path, board, pki):
    certs = make_certificates(tmp_path, HOST)
    (certs / "acl").write_text(docs.text("acl"))
    (certs / "acl").chmod(0o600)
    put_on(board, certs)
    program = """
import asyncio
from mqtt_as_tls import MQTTClient, TLS
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der")
client = MQTTClient("broker.lan", tls=tls)
got = []
@client.on("devices/#", qos=1)
def show(message):
    got.append(message.topic)
async def main():
    async with client:
        await client.publish("devices/other/level", "3", qos=1)
        await client.publish("devices/garden-1/level", "3", qos=1)
        while not got:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        print(got)
asyncio.run(main())
"""
    with (
        broker_of_the_readme(certs, "acl_file acl\n") as port,
        board.start(for_board(program, port)) as running,
    ):
        running.wait_for(r"^\['devices/garden-1/level'\]$")


# docs/own_broker.md


def test_a_board_at_a_broker_with_passwords(tmp_path, board, pki):
    """Its configuration by hand, and the program of the README."""
    shutil.copy(pki.ca.cert_pem, board.directory / "certs/ca.pem")
    with Broker(tmp_path / "broker", "tls", pki=pki, users={"garden": "secret", "me": "x"}) as own:
        config = docs.text("own broker config")
        assert '"port": 8883,' in config and config.count('"broker.lan"') == 1
        config = config.replace('"broker.lan"', repr(HOST)).replace("8883", str(own.port))
        (board.directory / "config.py").write_text(config.replace('"/certs/', '"certs/'))
        peer = own.peer("garden/#", user="me", password="x")
        with board.start(docs.text("app")) as running:
            running.wait_for("connected in")
            peer.wait_for(2)
        received = sorted(peer.received[:2])
    assert received == [("garden/status", b"online"), ("garden/temperature", b"21.5")]


def test_a_certificate_that_a_company_signed(tmp_path, board, pki):
    folder = tmp_path / "mine"
    folder.mkdir()
    shell(docs.text("own broker request"), folder)
    shutil.copy(pki.ca.cert_pem, folder / "company.crt")
    shutil.copy(pki.ca.key_pem, folder / "company.key")
    sign = "openssl x509 -req -in pico.csr -CA company.crt -CAkey company.key -CAcreateserial"
    shell(f"echo extendedKeyUsage=clientAuth > ext; {sign} -extfile ext -out pico.crt", folder)
    shell(docs.text("convert"), folder)
    for name in ("cert.der", "key.der"):
        shutil.copy(folder / name, board.directory / "certs")
    with Broker(tmp_path / "broker", "mtls", pki=pki, identity_as_user=True) as own:
        board.settings(own.port)
        with board.start(docs.text("app")) as running:
            running.wait_for("connected in")
        assert "u'garden-1'" in own.log()


# docs/migrating.md


@pytest.mark.parametrize("name", ["from mqtt_as", "from umqtt"])
def test_migrated_programs_run(name, board, tls_broker):
    peer = tls_broker.peer("garden/temperature")
    with board.start(for_board(docs.text(name), tls_broker.port)) as running:
        running.wait_for("connected in")
        assert peer.wait_for()[0].payload == b"21.5"
        peer.publish("garden/valve", b"open")
        running.wait_for("^garden/valve b'open'")


def with_compat(board, program, port):
    """Start a program that is written for mqtt_as on `board`, with compat/ installed."""
    program = program.replace('"broker.lan"', f'"{HOST}"\nconfig["port"] = {port}')
    path = f"{FAKES}:{mpy.ROOT / 'compat'}:{mpy.environment()['MICROPYPATH']}"
    return board.start(program.replace('"/certs/', '"certs/'), env={"MICROPYPATH": path})


def test_the_program_before_the_migration_runs_too(board, tls_broker):
    peer = tls_broker.peer("garden/temperature")
    with with_compat(board, docs.text("written for mqtt_as"), tls_broker.port) as running:
        assert peer.wait_for()[0].payload == b"21.5"
        tls_broker.wait_for_log("garden/valve (QoS 1)")
        peer.publish("garden/valve", b"open")
        running.wait_for("^b'garden/valve' b'open' False$")


def test_arguments_of_this_library_for_a_program_of_mqtt_as(board, tls_broker):
    program = docs.text("written for mqtt_as")
    more = docs.text("compat arguments").replace('"/mqtt"', '"mqtt"')
    program = program.replace(
        'config["will"]', f'config["client_id"] = b"x"\n{more}config["will"]'
    )
    with with_compat(board, program, tls_broker.port) as running:
        running.wait_for("^mqtt 127.0.0.1:.*connected in")
    assert (board.directory / "mqtt").is_dir()


def test_updates_come_onto_a_board_and_two_lines_into_an_app(tmp_path):
    (line,) = docs.text("install update").splitlines()
    command, *words = line.split()
    assert command == "mpremote"
    with PtyBoard(tmp_path / "flash") as board:
        with serial.Board(board.port) as connected:
            connected.run("import os\nos.mkdir('/lib')", "making a folder")
        at = (sys.executable, "-m", "mpremote", "connect", board.port, "resume")
        ran = subprocess.run(
            [*at, *words], cwd=mpy.ROOT, capture_output=True, timeout=patience.stretched(60)
        )
        assert ran.returncode == 0, ran
        with serial.Board(board.port) as connected:
            found = connected.read("/lib/mqtt_update.py")
    assert found == (mpy.ROOT / "update/mqtt_update.py").read_bytes()
    # what the page shows of an app is in the example, whose tests run it
    example = (mpy.ROOT / "examples/firmware_over_mqtt.py").read_text()
    for line in filter(None, docs.text("update listen").splitlines()):
        assert f"\n{line}\n" in example


def test_compat_takes_the_place_of_mqtt_as_on_a_board(tmp_path):
    (line,) = docs.text("install compat").splitlines()
    command, *words = line.split()
    assert command == "mpremote"
    with PtyBoard(tmp_path / "flash") as board:
        with serial.Board(board.port) as connected:
            make = "import os\nfor name in ('/lib', '/lib/mqtt_as'):\n    os.mkdir(name)\n"
            connected.run(make, "making folders")
            connected.run("open('/lib/mqtt_as/__init__.py', 'w').close()", "writing mqtt_as")
        at = (sys.executable, "-m", "mpremote", "connect", board.port, "resume")
        ran = subprocess.run(
            [*at, *words], cwd=mpy.ROOT, capture_output=True, timeout=patience.stretched(60)
        )
        assert ran.returncode == 0, ran
        with serial.Board(board.port) as connected:
            found = connected.run("print(open('/lib/mqtt_as/__init__.py').read())", "reading")
    assert found.strip().replace("\r", "") == (mpy.ROOT / "compat/mqtt_as.py").read_text().strip()
