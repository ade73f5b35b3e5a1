"""
The firmware that the tests of this folder run, or look into. With PICO_FIRMWARE=steps in the
environment all of them run on that with the C module. That one is built from the newest
MicroPython that Debian has: where it does not work with the module, these tests say so.

Where it cannot be built, or there is no emulator, they are skipped: see tests/conftest.py.
"""

import os
from pathlib import Path

import pytest

from tests.virtual_pico.desk import Desk
from tools import firmware as builder

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def firmware():
    """Path of the RP2040's firmware.bin with the package frozen in."""
    if os.environ.get("PICO_FIRMWARE") == "steps":
        return builder.steps(builder.newest())
    return builder.rp2040()


@pytest.fixture(scope="session")
def plain_firmware():
    """Path of the same firmware without the package."""
    return builder.plain()


@pytest.fixture(scope="session")
def steps_firmware():
    """Path of the newest firmware with the package and the C module: TLS in steps."""
    return builder.steps(builder.newest())


@pytest.fixture(params=["frozen", "steps"])
def either_firmware(request):
    """Path of the firmware with the package, then of that with the C module, too."""
    return request.getfixturevalue("firmware" if request.param == "frozen" else "steps_firmware")


@pytest.fixture
def desk(firmware, tmp_path, pki):
    """A running Desk with the package frozen in: a board, its broker, its servers."""
    with Desk(firmware, tmp_path, pki) as desk:
        yield desk


def pytest_collection_modifyitems(items):
    # the first test builds the firmware; those that want it meanwhile wait as long
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
