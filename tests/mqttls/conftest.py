"""What several tests of the tool take."""

import pytest

from tests.support import mpy
from tools.mqttls.doctor import dial


@pytest.fixture
def micropython(monkeypatch):
    """The doctor takes the interpreter that all tests take."""
    monkeypatch.setenv("MICROPYTHON", mpy.interpreter())
    dial.interpreter.cache_clear()
    yield
    dial.interpreter.cache_clear()
