"""`mqttls doctor --board` and `mqttls status --board`, with a board on a pty and a real broker."""

import json
from pathlib import Path

import pytest

from tests.mqttls.test_provision import WIFI, make_directory
from tests.support.pty_board import PtyBoard
from tools.mqttls.board import Board
from tools.mqttls.cli import main


@pytest.fixture
def directory(tmp_path, pki, mtls_broker):
    return make_directory(tmp_path / "pki", pki, mtls_broker.port)


@pytest.fixture
def board(tmp_path):
    with PtyBoard(tmp_path / "flash", wifi=WIFI) as running:
        yield running


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
    secret.write_text(WIFI[1])
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
        connected.remove(["/lib/mqtt_as_tls/__init__.py", "/certs/key.der"])
    status, out = mqttls("doctor", "--device", "kitchen", "--board")
    assert status == 1
    assert "the board has no mqtt_as_tls" in out
    assert "/certs/key.der is missing on the board" in out
