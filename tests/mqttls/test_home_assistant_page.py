"""
docs/home_assistant.md: its programs, settings and commands run as they stand there, with a peer in
the place of Home Assistant. Replaced are names, ports and folders.
"""

import json
import shlex
import shutil
from types import SimpleNamespace

import pytest

from tests.support import docs, home, mpy
from tests.support.board import FAKES, WIFI
from tests.support.broker import HOST, Broker, Peer
from tests.support.tool import Mosquitto, init, mqttls, open_folder

CONFIG = "homeassistant/device/garden-1/config"
ME = "devices/garden-1/"


def run_commands(name, pki):
    """Run the commands of a block, each `mqttls …`, in the folder `pki`."""
    for line in docs.text(name).splitlines():
        word, *words = shlex.split(line)
        assert word == "mqttls"
        mqttls(pki, *(each.replace("192.168.1.20", HOST) for each in words))


def start(program, folder, config):
    """Start a board's main.py and config.py (str) in `folder`; return its mpy.Program."""
    (folder / "config.py").write_text(config)
    (folder / "main.py").write_text(program)
    path = f"{FAKES}:{mpy.environment()['MICROPYPATH']}"
    return mpy.start(
        folder / "main.py", env={"MICROPYPATH": path, "FAKE_WIFI": ":".join(WIFI)}, cwd=folder
    )


def at(config, port):
    """Return the page's config.py for a broker of the test."""
    assert config.count('"homeassistant.local"') == 1
    return config.replace('"homeassistant.local"', repr(HOST)).replace(
        '"port": 1883', f'"port": {port}'
    )


def in_home_assistant(peer, running):
    """The device is announced, shows its state and obeys."""
    components = home.read(peer.wait_for(topic=CONFIG)[-1].payload)["components"]
    assert list(components) == ["temperature", "valve"]
    assert peer.wait_for(topic=components["temperature"]["state_topic"])[-1].payload == b"21.5"
    peer.publish(components["valve"]["command_topic"], b"ON")
    running.wait_for("pin 15 is 1")
    peer.publish("homeassistant/status", b"online")
    peer.wait_for(2, topic=CONFIG)


def test_with_user_and_password_on_tcp(tmp_path):
    users = {"garden-1": "secret", "home": "x"}
    with Broker(tmp_path / "broker", users=users) as broker:
        peer = broker.peer("homeassistant/device/#", ME + "#", user="home", password="x")
        config = at(docs.text("home assistant config"), broker.port)
        with start(docs.text("home assistant program"), tmp_path, config) as running:
            in_home_assistant(peer, running)


def test_with_a_certificate_of_mqttls_in_the_add_on(tmp_path):
    pki = tmp_path / "mqtt-pki"
    run_commands("home assistant init", pki)
    (tmp_path / "certs").mkdir()
    shutil.copy(pki / "ca.crt", tmp_path / "certs")
    config = docs.text("home assistant config") + docs.text("home assistant tls")
    users = {"garden-1": "secret", "home": "x"}
    shown = SimpleNamespace(chain_pem=pki / "broker/broker.crt", key_pem=pki / "broker/broker.key")
    with Broker(tmp_path / "broker", "tls", "tcp", identity=shown, users=users) as broker:
        peer = broker.peer("homeassistant/device/#", ME + "#", user="home", password="x")
        config = at(config, 0).replace("8883", str(broker.port)).replace('"/certs/', '"certs/')
        config = config.replace('.crt")', '.crt", ntp=None)')
        with start(docs.text("home assistant program"), tmp_path, config) as running:
            running.wait_for(r"connected in .* \(TLS ")
            in_home_assistant(peer, running)


_OF_MQTTLS = """\
from mqtt_as_tls import TLS
import json

with open("{files}/tls.json") as file:
    found = json.load(file)
certificate = {{"cert": "{files}/cert.der", "key": "{files}/key.der"}} if {mutual} else {{}}
mqtt = {{
    "host": "127.0.0.1",
    "port": {port},
    "client_id": found["client_id"],
    "user": found.get("user"),
    "password": found.get("password"),
    "tls": TLS(ca="{files}/ca.der", ntp=None, **certificate),
}}
home = "devices/" + found["client_id"] + "/"
"""


@pytest.mark.parametrize("kind", ["mutual", "server-only"])
def test_at_a_broker_of_mqttls_with_the_rights_of_the_page(kind, tmp_path):
    with open_folder() as folder:
        pki = folder / "mqtt-pki"
        mutual = kind == "mutual"
        port = init(pki, *(() if mutual else ("--server-only",)))
        run_commands("home assistant mqttls", pki)
        files = {each: pki / "devices" / each for each in ("homeassistant", "garden-1")}
        who = {"ca": SimpleNamespace(cert_pem=pki / "ca.crt")}
        mine = files["homeassistant"]
        if mutual:
            who["identity"] = SimpleNamespace(cert_pem=mine / "cert.crt", key_pem=mine / "key.pem")
        else:
            password = json.loads((mine / "tls.json").read_text())["password"]
            who |= {"user": "homeassistant", "password": password}
        config = _OF_MQTTLS.format(files=files["garden-1"], port=port, mutual=mutual)
        with Mosquitto(pki / "broker/mosquitto.conf", port, folder=folder) as broker:
            with Peer(port, **who) as peer:
                peer.subscribe("homeassistant/device/#")
                peer.subscribe(ME + "#")
                program = docs.text("home assistant program")
                with start(program, tmp_path, config) as running:
                    in_home_assistant(peer, running)
            assert "Denied" not in broker.log()


_BEFORE = """
import asyncio
import config
import machine
from mqtt_as_tls import MQTTClient, Will
from mqtt_as_tls.home_assistant import HomeAssistant

"""


def test_the_commands_of_the_page(tmp_path):
    program = (
        _BEFORE
        + """
class pump:
    async def every(seconds):
        print("pump", seconds)

class lcd:
    write = print

will = Will(config.home + "status", "offline", qos=1, retain=True, birth="online")
client = MQTTClient(**config.mqtt, will=will)
ha = HomeAssistant(client, "Garden", config.home)
"""
        + docs.text("home assistant commands")
        + """
async def main():
    async with client:
        await asyncio.sleep(100)

asyncio.run(main())
"""
    )
    users = {"garden-1": "secret", "home": "x"}
    with Broker(tmp_path / "broker", users=users) as broker:
        peer = broker.peer(CONFIG, ME + "#", user="home", password="x")
        config = at(docs.text("home assistant config"), broker.port)
        with start(program, tmp_path, config) as running:
            home.read(peer.wait_for(topic=CONFIG)[0].payload)
            peer.publish(ME + "interval/set", "20.5")
            running.wait_for("pump 20.5")
            peer.publish(ME + "display/set", "good evening")
            running.wait_for("good evening")
            peer.publish(ME + "display/set", "more than it shows")
            running.wait_for("display/set: ignored")
            peer.publish(ME + "restart/set", "PRESS")
            running.wait_for("machine: reset")


def test_the_device_that_sleeps(tmp_path):
    """It stays available, and what Home Assistant needs to know of it is kept."""
    program = _BEFORE + docs.text("home assistant sleeps") + "\nasyncio.run(main())\n"
    users = {"garden-1": "secret", "home": "x"}
    with Broker(tmp_path / "broker", users=users) as broker:
        peer = broker.peer(ME + "#", user="home", password="x")
        config = at(docs.text("home assistant config"), broker.port)
        with start(program, tmp_path, config) as running:
            assert running.wait().code == 0, running.report()
        late = broker.peer(CONFIG, ME + "#", user="home", password="x")
        device = home.read(late.wait_for(topic=CONFIG)[0].payload)
        assert device["components"]["moisture"]["expire_after"] == 3600
        assert late.wait_for(2)[-1].payload == b"online"
    assert peer.wait_for(topic=ME + "moisture")[0].payload == b"42"
    assert {payload for topic, payload in peer.received if topic == ME + "status"} == {b"online"}
