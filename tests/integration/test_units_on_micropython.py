"""The unit tests once more, under MicroPython."""

from pathlib import Path

import pytest

from tests.support import mpy

UNIT = Path(__file__).parents[1] / "unit"
CPYTHON_ONLY = ("CPYTHON_ONLY = True\n", "_properties.py")


def files():
    return [
        path.name
        for path in sorted(UNIT.glob("test_*.py"))
        if CPYTHON_ONLY[0] not in path.read_text() and not path.name[5:].endswith(CPYTHON_ONLY[1])
    ]


@pytest.mark.parametrize("name", files())
def test_on_micropython(name):
    out = mpy.check(UNIT / "run_micropython.py", name, timeout_s=110)
    assert out.splitlines()[-1].endswith(" passed, 0 failed"), out
