"""The firmware that the tests of this folder run, or look into."""

from pathlib import Path

import pytest

from tools import firmware as builder

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    # the first test builds the firmware; those that want it meanwhile wait as long
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))


def had(build):
    try:
        return build()
    except builder.Unavailable as reason:
        pytest.skip(f"no firmware, no virtual Pico: {reason}")


@pytest.fixture(scope="session")
def firmware():
    """Path of the RP2040's firmware.bin with the package frozen in."""
    return had(builder.rp2040)


@pytest.fixture(scope="session")
def plain_firmware():
    """Path of the same firmware without the package."""
    return had(builder.plain)
