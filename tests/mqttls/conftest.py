"""What several tests of the tool take."""

import pytest

from tests.support import mpy
from tools.mqttls.micropython import interpreter


@pytest.fixture
def micropython(monkeypatch):
    """The doctor takes the interpreter that all tests take."""
    monkeypatch.setenv("MICROPYTHON", mpy.interpreter())
    interpreter.cache_clear()
    yield
    interpreter.cache_clear()
