"""From nothing to a board on mutual TLS: init, device add, provision, the app; real brokers."""

import pytest

from tests.support.board import WIFI
from tests.support.tool import APP, Mosquitto, Watcher, init, mqttls, open_folder, write_secret
from tools.mqttls.board import Board


@pytest.fixture
def pki():
    with open_folder() as folder:
        yield folder / "mqtt-pki"


@pytest.fixture
def provision(pki, board, tmp_path):
    secret = tmp_path / "wifi-password"
    write_secret(secret, WIFI[1])
    wifi = ("--wifi-ssid", WIFI[0], "--wifi-password-file", secret)

    def run(name="kitchen"):
        return mqttls(pki, "provision", name, "--port", board.port, *wifi)

    return run


def running(pki, port):
    return Mosquitto(pki / "broker/mosquitto.conf", port, pki)


def run_app(board, app=APP):
    with Board(board.port) as connected:
        connected.fresh()
        return connected.run(app, "the app", timeout_s=60)


def doctor(pki, board, code=0):
    return mqttls(pki, "doctor", "--board", "--port", board.port, code=code).out


def test_a_board_is_on_mutual_tls_after_three_commands(pki, board, provision):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "device", "add", "desk", "--admin")
    provision()
    with running(pki, port), Watcher(pki, "desk", port) as watcher:
        assert "acknowledged True True" in run_app(board)
        assert watcher.wait_for("devices/kitchen/t") == "21.5"
        assert "all is well" in doctor(pki, board)
        mqttls(pki, "status", "--board", "--port", board.port)


def test_a_board_with_a_password_is_on_server_only_tls(pki, board, provision):
    port = init(pki, "--server-only")
    mqttls(pki, "device", "add", "kitchen")
    provision()
    with running(pki, port):
        assert "acknowledged True True" in run_app(board)
        assert "all is well" in doctor(pki, board)


def test_a_revoked_board_is_refused_and_the_doctor_names_it(pki, board, provision):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    provision()
    mqttls(pki, "revoke", "kitchen")
    with running(pki, port):
        said = mqttls(pki, "status", "--board", "--port", board.port, code=1).out
        assert "its certificate was revoked" in said
        mqttls(pki, "device", "add", "kitchen")
        said = doctor(pki, board, code=1)
        assert "the board does not hold the certificate in" in said
        provision()
        assert "all is well" in doctor(pki, board)


def test_a_board_goes_through_a_change_of_the_authority(pki, board, provision):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    provision()
    with running(pki, port) as broker:
        assert "acknowledged" in run_app(board)
        mqttls(pki, "renew", "--ca")
        broker.restart()
        assert "acknowledged" in run_app(board)  # what it holds still is good
        assert "ca2.der" in provision().out
        broker.restart()
        assert "acknowledged" in run_app(board)
        mqttls(pki, "renew", "--ca", "--finish")
        broker.restart()
        assert "acknowledged" in run_app(board)
        provision()
        assert "acknowledged" in run_app(board)
        with Board(board.port) as connected:
            assert connected.hashes(["/certs/ca2.der"])["/certs/ca2.der"] is None
