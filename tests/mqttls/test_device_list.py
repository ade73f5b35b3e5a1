"""`mqttls device list`: who there is, on which board, and who was revoked."""

import json

import pytest

from tests.support.tool import mqttls


@pytest.fixture
def pki(tmp_path):
    mqttls(tmp_path, "init", "--broker", "127.0.0.1")
    mqttls(tmp_path, "device", "add", "kitchen", "cellar", "attic")
    mqttls(tmp_path, "device", "add", "homeassistant", "--admin")
    return tmp_path


def note_a_board(pki, name, **more):
    """Write what `provision` notes, as if it had run now."""
    found = mqttls(pki, "status", "--json").json
    (device,) = [each for each in found["devices"] if each["name"] == name]
    note = {
        "cert": device["serial"],
        "ca": [found["authorities"][0]["serial"]],
        "at": "2031-05-06T07:08:09+00:00",
        "machine": "Raspberry Pi Pico W with RP2040",
    }
    (pki / "devices" / name / "board.json").write_text(json.dumps({**note, **more}))


def rows(said):
    """Return {name: the rest of its row} of what was printed."""
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in said.out.splitlines()}


def test_it_says_who_there_is_and_who_was_revoked(pki):
    note_a_board(pki, "kitchen")
    note_a_board(pki, "cellar")
    mqttls(pki, "renew", "cellar")
    mqttls(pki, "revoke", "attic")
    mqttls(
        pki, "device", "add", "gate", "--topics", "read:weather/#", "--topics", "homeassistant/#"
    )
    found = mqttls(pki, "device", "list", "--json").json
    devices = {each["name"]: each for each in found["devices"]}
    assert sorted(devices) == ["cellar", "gate", "homeassistant", "kitchen"]
    kitchen = devices["kitchen"]
    assert kitchen["kind"] == "certificate" and kitchen["key"] == "p256"
    assert kitchen["until"][:4] > "2026" and len(kitchen["serial"]) == 40
    assert (kitchen["problem"], kitchen["lacks"], kitchen["admin"]) == ("", "", False)
    assert devices["homeassistant"]["admin"] and devices["homeassistant"]["board"] == {}
    assert [each["name"] for each in found["revoked"]] == ["attic"]
    shown = rows(mqttls(pki, "device", "list"))
    until = kitchen["until"][:10]
    where = "on Raspberry Pi Pico W with RP2040 since 2031-05-06"
    assert shown["kitchen"] == f"until {until}  p256      {where}"
    assert shown["cellar"].endswith(f"{where}; its board has an older certificate")
    assert shown["homeassistant"].endswith("every topic")
    assert devices["gate"]["topics"] == ["read weather/#", "readwrite homeassistant/#"]
    assert "too: read weather/#, readwrite homeassistant/#; not provisioned" in shown["gate"]
    assert shown["attic"] == f"revoked {found['revoked'][0]['revoked'][:10]}"


def test_what_is_damaged_is_in_its_row_and_breaks_nothing(pki):
    (pki / "devices/cellar/cert.crt").write_text("nothing")
    (pki / "devices/kitchen/key.der").unlink()
    shown = rows(mqttls(pki, "device", "list"))
    assert "cert.crt is damaged" in shown["cellar"] and "key.der is missing" in shown["kitchen"]
    assert shown["attic"].startswith("until")


def test_names_choose_the_rows_and_unknown_ones_are_said(pki):
    mqttls(pki, "revoke", "attic")
    assert sorted(rows(mqttls(pki, "device", "list", "cellar", "attic"))) == ["attic", "cellar"]
    assert "no device 'celar'" in mqttls(pki, "device", "list", "celar", code=1).err


def test_passwords_have_no_end_and_a_revoked_one_is_told(tmp_path):
    mqttls(tmp_path, "init", "--broker", "127.0.0.1", "--server-only")
    assert "device add NAME" in mqttls(tmp_path, "device", "list").out
    mqttls(tmp_path, "device", "add", "kitchen", "cellar")
    mqttls(tmp_path, "revoke", "cellar")
    found = mqttls(tmp_path, "device", "list", "--json").json
    (kitchen,) = found["devices"]
    assert kitchen["kind"] == "password" and "until" not in kitchen
    assert [each["name"] for each in found["revoked"]] == ["cellar"]
    shown = mqttls(tmp_path, "device", "list").out
    secret = json.loads((tmp_path / "devices/kitchen/tls.json").read_text())["password"]
    assert "password" in rows(mqttls(tmp_path, "device", "list"))["kitchen"]
    assert secret not in shown + json.dumps(found)
