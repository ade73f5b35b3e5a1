"""
The doctor at a broker that takes client ids from certificates or user names, as the one of mqttls:
a live device stays connected, and what waits for one that is away stays there.
"""

import json
import os
import types

import pytest

from tests.support.broker import Peer
from tests.support.doctoring import mqttls as said
from tests.support.tool import Mosquitto, in_here, init, open_folder

MODES = {"mutual": (), "server-only": ("--server-only",), "encrypted": ("--encrypt-ca",)}


class Place:
    def __init__(self, folder, mode):
        self.pki = folder / "mqtt-pki"
        secret = folder / "passphrase"
        secret.touch(0o600)
        secret.write_text("correct horse battery\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MQTTLS_PASSPHRASE_FILE", str(secret))
            self.port = init(self.pki, *MODES[mode], run=in_here)
            in_here(self.pki, "device", "add", "kitchen")
            in_here(self.pki, "device", "add", "desk", "--admin")
        self.broker = Mosquitto(self.pki / "broker/mosquitto.conf", self.port, self.pki)

    def peer(self, name, **options):
        at, named = self.pki / "devices" / name, types.SimpleNamespace
        tls = json.loads((at / "tls.json").read_text())
        if "password" in tls:
            options.update(user=tls["user"], password=tls["password"])
        else:
            options["identity"] = named(cert_pem=at / "cert.crt", key_pem=at / "key.pem")
        return Peer(self.port, ca=named(cert_pem=at / "ca.crt"), **options)

    def doctor(self, *arguments):
        line = (f"127.0.0.1:{self.port}", "--device", "kitchen", "--dir", self.pki)
        found = said("doctor", *line, *arguments)
        assert found["problems"] == [], found
        return found


@pytest.fixture(scope="module", params=MODES)
def place(request):
    with open_folder() as folder:
        made = Place(folder, request.param)
        made.own = request.param == "mutual"
        with made.broker:
            yield made


@pytest.fixture(scope="module", autouse=True)
def no_passphrase():
    assert "MQTTLS_PASSPHRASE_FILE" not in os.environ


def keep_session(place):
    with place.peer("kitchen", client_id="kitchen", clean=False) as kitchen:
        kitchen.subscribe("devices/kitchen/#")


def test_a_live_device_stays_connected(place, micropython):
    with place.peer("kitchen", client_id="kitchen", clean=False):
        before = len(place.broker.log())
        for more in ((), ("--topic", "devices/kitchen/x")):
            found = place.doctor(*more)
            assert "already connected" not in place.broker.log()[before:]
    state = found["stages"]["CONNACK"]
    if place.own:
        assert state["state"] == "ok" and " connected as mqttls-doctor-" in state["detail"]
        assert "as mqttls-doctor-" in place.broker.log()[before:]
    else:
        assert state["state"] == "unknown" and "throw out a live device" in state["detail"]
        assert any("--as-device tries it" in each for each in found["notes"])
        assert "--device kitchen --as-device" in found["next"][-1]
    assert found["stages"]["publish"]["state"] == found["stages"]["receive"]["state"] == "ok"
    assert "broker/acl allows it" in found["stages"]["publish"]["detail"]


def test_what_waits_for_a_device_stays(place, micropython):
    keep_session(place)
    with place.peer("desk") as desk:
        desk.publish("devices/kitchen/set", b"one", qos=1)
        place.doctor()
        found = place.doctor("--as-device")
        assert found["stages"]["CONNACK"]["state"] == "ok"
        assert "connected, handshake" in found["stages"]["CONNACK"]["detail"]
    with place.peer("kitchen", client_id="kitchen", clean=False) as kitchen:
        assert [each.payload for each in kitchen.wait_for()] == [b"one"]


def test_python_in_the_place_of_micropython_leaves_it_too(place, monkeypatch):
    monkeypatch.setattr("tools.mqttls.doctor.dial.interpreter", lambda: None)
    keep_session(place)
    with place.peer("desk") as desk:
        desk.publish("devices/kitchen/set", b"two", qos=1)
        place.doctor("--as-device")
    with place.peer("kitchen", client_id="kitchen", clean=False) as kitchen:
        assert [each.payload for each in kitchen.wait_for()] == [b"two"]


@pytest.mark.parametrize("place", ["mutual"], indirect=True)
def test_without_the_folder_the_configuration_tells(place, micropython):
    at = place.pki / "devices/kitchen"
    files = ("--ca", at / "ca.der", "--cert", at / "cert.der", "--key", at / "key.der")
    conf = ("--conf", place.pki / "broker/mosquitto.conf")
    with place.peer("kitchen", client_id="kitchen"):
        before = len(place.broker.log())
        found = said("doctor", f"127.0.0.1:{place.port}", *files, *conf)
        assert "already connected" not in place.broker.log()[before:]
    assert found["stages"]["CONNACK"]["state"] == "unknown" and found["problems"] == []


@pytest.mark.parametrize("place", ["mutual"], indirect=True)
def test_a_device_that_is_refused_is_told_in_its_own_words(place, micropython):
    in_here(place.pki, "device", "add", "lost")
    (place.pki / "saved").write_bytes((place.pki / "devices/lost/cert.der").read_bytes())
    in_here(place.pki, "revoke", "--cert", place.pki / "saved")
    place.broker.restart()
    line = (f"127.0.0.1:{place.port}", "--device", "lost", "--dir", place.pki)
    found = said("doctor", *line)
    assert found["problems"][0]["stage"] == "client certificate", found
    assert found["stages"]["CONNACK"]["state"] != "ok"


@pytest.mark.parametrize("place", ["mutual"], indirect=True)
def test_what_the_doctor_was_issued_is_in_the_record_and_nowhere_else(place):
    lines = [json.loads(each) for each in (place.pki / "issued.jsonl").read_text().splitlines()]
    doctors = [each for each in lines if each["name"].startswith("mqttls-doctor-")]
    assert doctors and all(each["until"][:10] < "2100" for each in doctors)
    assert not list(place.pki.glob("devices/mqttls-doctor*"))
    for name in ("mqttls-doctor", "MQTTLS-doctor-1"):
        assert "or the doctor" in in_here(place.pki, "device", "add", name, code=2)
