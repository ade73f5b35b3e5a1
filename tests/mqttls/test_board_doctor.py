"""`mqttls doctor --board` and `mqttls status --board`, with a board on a pty and a real broker."""

import json
from pathlib import Path

import pytest

from tests.support.board import WIFI
from tests.support.tool import make_directory, write_secret
from tools.mqttls.board import Board
from tools.mqttls.cli import main


@pytest.fixture
def directory(tmp_path, pki, mtls_broker):
    return make_directory(tmp_path / "pki", pki, mtls_broker.port)


@pytest.fixture
def mqttls(directory, board, capsys):
    """Runs a command with that folder and board; returns (exit status, what it printed)."""

    def run(*arguments):
        status = main([*arguments, "--dir", str(directory), "--port", board.port])
        out, err = capsys.readouterr()
        return status, out + err

    return run


@pytest.fixture
def provisioned(mqttls, tmp_path):
    secret = tmp_path / "wifi-password"
    write_secret(secret, WIFI[1])
    wifi = ("--wifi-ssid", WIFI[0], "--wifi-password-file", str(secret))
    assert mqttls("provision", "kitchen", *wifi)[0] == 0


def test_a_provisioned_board_connects(mqttls, provisioned, mtls_broker):
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 0, out
    assert "board               ok      kitchen, MicroPython 1." in out
    assert f"Wi-Fi               ok      {WIFI[0]}" in out
    assert "the board, MicroPython 1." in out and " connected, handshake " in out
    assert "kitchen-doctor" in mtls_broker.log()


def test_without_a_name_it_is_the_device_that_the_board_is(mqttls, provisioned):
    status, out = mqttls("doctor", "--board", "--json")
    found = json.loads(out)
    assert status == 0, out
    assert found["stages"]["CONNACK"]["state"] == "ok"
    assert found["attempt"]["by"].startswith("the board, MicroPython 1.")


def test_an_empty_board_is_told_to_be_provisioned(mqttls):
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "the board holds no certificates" in out and "mqttls provision kitchen" in out
    status, out = mqttls("doctor", "--board")
    assert status == 1 and "holds no certificates" in out


def test_a_board_with_an_older_ca_is_found_before_it_fails(mqttls, provisioned, directory, pki):
    folder = directory / "devices/kitchen"
    (folder / "ca.der").write_bytes(Path(pki.other_ca.cert_der).read_bytes())
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "the board does not hold the CA in " in out


def test_a_board_that_trusts_another_ca_says_so_itself(mqttls, provisioned, board, pki):
    with Board(board.port) as connected:
        connected.put({"/certs/ca.der": Path(pki.other_ca.cert_der).read_bytes()})
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "the board does not hold the CA in " in out
    assert "not correctly signed" in out


def test_a_wrong_wifi_password_is_named(mqttls, provisioned, board):
    with Board(board.port) as connected:
        text = json.dumps({"ssid": WIFI[0], "password": "wrong password", "country": None})
        connected.put({"/certs/wifi.json": text.encode()})
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "PROBLEM (Wi-Fi): " in out and "password" in out


def test_a_board_without_wifi_settings_is_told(mqttls, provisioned, board):
    with Board(board.port) as connected:
        connected.remove(["/certs/wifi.json"])
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "no network, and has no Wi-Fi settings" in out and "--wifi-ssid" in out


def test_a_missing_library_and_a_damaged_key_are_found(mqttls, provisioned, board):
    with Board(board.port) as connected:
        connected.remove(["/lib/mqtt_as_tls/__init__.mpy", "/certs/key.der"])
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "the board has no mqtt_as_tls" in out
    assert "/certs/key.der is missing on the board" in out


# status --board, with a folder that init made


@pytest.fixture
def made(tmp_path, board, capsys):
    """Runs a command with a real folder; makes the device kitchen and puts it on the board."""

    def run(*arguments, port=True):
        line = [*arguments, "--dir", str(tmp_path / "mqtt-pki")]
        status = main(line + (["--port", board.port] if port else []))
        out, err = capsys.readouterr()
        return status, out + err

    assert run("init", "--broker", "broker.lan", port=False)[0] == 0
    assert run("device", "add", "kitchen", "cellar", port=False)[0] == 0
    return run


def test_status_says_what_a_board_holds(made, board):
    assert made("provision", "kitchen")[0] == 0
    with Board(board.port) as connected:
        connected.set_clock()
    status, out = made("status", "--board", "--json")
    found = json.loads(out)["board"]
    assert status == 0, out
    assert found["name"] == "kitchen" and found["same"] is True and found["library"] == "same"
    assert found["wifi"] is None and found["port"] == board.port and "until" in found
    status, out = made("status", "--board")
    assert status == 0
    assert "kitchen, dials broker.lan port 8883" in out
    assert "its certificates and key are those of the folder" in out


def test_status_says_that_a_board_is_empty(made):
    status, out = made("status", "--board")
    assert status == 1
    assert "PROBLEM (board): it was not provisioned" in out
    assert "library none" in out


def test_status_says_that_a_board_has_a_revoked_certificate(made):
    made("provision", "kitchen")
    assert made("revoke", "kitchen", port=False)[0] == 0
    status, out = made("status", "--board")
    assert status == 1
    assert "its certificate was revoked" in out


def test_status_says_that_a_board_has_an_older_certificate(made, tmp_path):
    made("provision", "kitchen")
    for name in ("cert.crt", "key.der"):
        (tmp_path / "mqtt-pki/devices/kitchen" / name).unlink()
    assert made("device", "add", "kitchen", port=False)[0] == 0
    status, out = made("status", "--board")
    assert status == 1
    assert "its /certs/cert.der is not that of the folder" in out
    assert "mqttls provision kitchen" in out
    assert made("provision", "kitchen")[0] == 0
    assert made("status", "--board")[0] == 0


def test_a_folder_of_init_is_provisioned_and_a_roll_over_knows_it(made):
    made("provision", "kitchen")
    assert made("renew", "--ca", port=False)[0] == 0
    status, out = made("renew", "--ca", "--finish", port=False)
    assert status == 1 and "kitchen" in out and "cellar" in out
    status, out = made("provision", "kitchen")
    assert status == 0 and "made  board:/certs/ca2.der" in out
    _, out = made("renew", "--ca", "--finish", port=False)
    assert "kitchen" not in out and "cellar" in out
