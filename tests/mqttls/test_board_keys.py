"""`mqttls keys`: real handshakes of each kind of key, by the PC's MicroPython and by a board."""

import json

import pytest

from tests.support import mpy
from tests.support.board import WIFI
from tests.support.broker import mosquitto
from tests.support.pty_board import PtyBoard
from tools.mqttls import board_files, handshakes, micropython
from tools.mqttls.board import Board
from tools.mqttls.cli import main
from tools.mqttls.names import KEY_KINDS


@pytest.fixture(autouse=True)
def interpreter(monkeypatch):
    mosquitto()
    monkeypatch.setenv("MICROPYTHON", mpy.interpreter())
    micropython.interpreter.cache_clear()
    yield
    micropython.interpreter.cache_clear()


def keys(capsys, *arguments):
    status = main(["keys", *arguments])
    out, err = capsys.readouterr()
    return status, out + err


def test_every_kind_shakes_hands_with_and_without_a_client_certificate(capsys):
    status, out = keys(capsys, "--runs", "1", "--json")
    found = json.loads(out)
    assert status == 0, out
    assert [(row["kind"], row["mutual"]) for row in found["rows"]] == [
        (kind, mutual) for kind in KEY_KINDS for mutual in (False, True)
    ]
    for row in found["rows"]:
        assert row["seconds"] > 0 and len(row["times"]) == 1 and not row["error"]
    base = next(row for row in found["rows"] if row["kind"] == "p256" and row["mutual"])
    assert base["ratio"] == 1 and base["bytes"] < 1000
    assert found["client"].startswith("MicroPython 1.") and "mosquitto 2" in found["broker"]


def test_the_table_has_a_line_for_each(capsys):
    status, out = keys(capsys, "--key", "p256", "--key", "rsa2048", "--runs", "2")
    assert status == 0, out
    for name in ("P-256 server-only", "P-256 mutual", "RSA-2048 server-only", "RSA-2048 mutual"):
        assert f"\n{name} " in out
    assert "medians of 2" in out and "ratio: to P-256 mutual" in out


def test_a_board_shakes_hands_and_keeps_its_files(tmp_path, capsys):
    with PtyBoard(tmp_path / "flash", wifi=WIFI) as pty_board:
        with Board(pty_board.port) as board:
            board.put(board_files.wifi(*WIFI))
        line = ("--board", "--port", pty_board.port, "--listen", "127.0.0.1")
        status, out = keys(capsys, *line, "--key", "p256", "--runs", "2", "--json")
        assert status == 0, out
        with Board(pty_board.port) as board:
            assert "['certs']" in board.run("import os\nprint(os.listdir('/'))", "listing")
    found = json.loads(out)
    assert [row["error"] for row in found["rows"]] == ["", ""]
    assert all(len(row["times"]) == 2 for row in found["rows"])


def test_a_board_without_a_network_is_told(tmp_path, capsys):
    with PtyBoard(tmp_path / "flash") as pty_board:
        status, out = keys(capsys, "--board", "--port", pty_board.port, "--key", "p256")
    assert status == 1
    assert "the board is not in a network" in out and "--wifi-ssid" in out


def test_a_handshake_that_fails_is_a_line_and_a_problem(capsys, monkeypatch):
    asked = handshakes.Kind.asked

    def wrong_name(self, mutual, host):
        return {**asked(self, mutual, host), "name": "other.lan" if mutual else "broker.lan"}

    monkeypatch.setattr(handshakes.Kind, "asked", wrong_name)
    status, out = keys(capsys, "--key", "p256", "--runs", "1")
    assert status == 1
    assert "failed" in out and "PROBLEM (TLS): P-256 mutual: " in out
    assert "for another name" in out


def test_what_is_missing_is_said(capsys, monkeypatch):
    there = mpy.interpreter()
    monkeypatch.setenv("MICROPYTHON", "/nothing")
    micropython.interpreter.cache_clear()
    status, out = keys(capsys)
    assert status == 1 and "no MicroPython on this PC" in out
    monkeypatch.setenv("MICROPYTHON", there)
    micropython.interpreter.cache_clear()
    monkeypatch.setenv("PATH", "/nothing")
    monkeypatch.setattr(handshakes, "_PLACES", ())
    status, out = keys(capsys)
    assert status == 1 and "mosquitto is not installed" in out


@pytest.mark.parametrize("runs", ["0", "101", "x"])
def test_runs_is_a_sensible_number(capsys, runs):
    assert keys(capsys, "--runs", runs)[0] == 2


def test_an_address_of_somebody_else_is_refused(tmp_path, capsys):
    with PtyBoard(tmp_path / "flash", wifi=WIFI) as pty_board:
        with Board(pty_board.port) as board:
            board.put(board_files.wifi(*WIFI))
        line = ("--board", "--port", pty_board.port, "--listen", "192.0.2.1", "--key", "p256")
        status, out = keys(capsys, *line)
    assert status == 1
    assert "nothing can listen on 192.0.2.1" in out and "--listen ADDRESS" in out
