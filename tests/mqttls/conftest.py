"""What several tests of the tool take."""

import pytest

from tests.support import mpy
from tests.support.board import WIFI
from tests.support.pty_board import PtyBoard
from tools.mqttls.micropython import interpreter


@pytest.fixture
def micropython(monkeypatch):
    """The doctor takes the interpreter that all tests take."""
    monkeypatch.setenv("MICROPYTHON", mpy.interpreter())
    interpreter.cache_clear()
    yield
    interpreter.cache_clear()


@pytest.fixture
def board(tmp_path):
    """A board on a pty; the Wi-Fi that it reaches is WIFI."""
    with PtyBoard(tmp_path / "flash", wifi=WIFI) as running:
        yield running
