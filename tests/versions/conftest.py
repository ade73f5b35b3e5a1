"""
A core of the other tests under other releases of MicroPython than the one of all tests:

1.25    the oldest that is supported, built from Debian trixie's sources as `./dev freeze` does,
        with MicroPython's own settings of mbedTLS
newest  the program of Debian sid, which uses Debian's mbedTLS: that has TLS 1.3
"""

import pytest

from tools import matrix

MICROPYTHON = {"1.25": matrix.oldest, "newest": matrix.newest}


@pytest.fixture(params=MICROPYTHON, autouse=True)
def version(request, monkeypatch):
    """Have programs run under one of MICROPYTHON; return its name."""
    monkeypatch.setenv("MICROPYTHON", str(MICROPYTHON[request.param]()))
    monkeypatch.delenv("MQTT_FROZEN", raising=False)
    return request.param


def pytest_collection_modifyitems(items):
    # the first one of each may have to get or to build its interpreter
    for item in items:
        if "version" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(300))
