"""Fixtures, and what the device package needs to be imported on CPython."""

import sys
import types

import pytest
from hypothesis import HealthCheck, settings

from tests.support.broker import Broker
from tests.support.pki import PKI
from tests.support.proxy import Proxy

if "micropython" not in sys.modules:
    stand_in = types.ModuleType("micropython")
    stand_in.const = lambda value: value
    sys.modules["micropython"] = stand_in

# A busy machine fails no test: how long an example takes says nothing
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Folders whose files take longest: several workers begin with them, or one has them at the end
_LONGEST = ("virtual_pico", "faults", "packaging", "fuzz", "mqttls")


def pytest_collection_modifyitems(items):
    def place(item):
        folder = item.path.parent.name
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST)

    items.sort(key=place)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """Certificates, see tests/support/pki.py."""
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def broker(tmp_path):
    """A mosquitto on plain TCP that keeps its state across restarts."""
    with Broker(tmp_path / "broker", "tcp", persistence=True) as running:
        yield running


@pytest.fixture
def tls_broker(tmp_path, pki):
    """A mosquitto with server-only TLS (`port`) and plain TCP (`ports["tcp"]`, for peers)."""
    with Broker(tmp_path / "broker", "tls", "tcp", pki=pki, persistence=True) as running:
        yield running


@pytest.fixture
def mtls_broker(tmp_path, pki):
    """A mosquitto that demands client certificates (`port`), and plain TCP for peers."""
    with Broker(tmp_path / "broker", "mtls", "tcp", pki=pki, persistence=True) as running:
        yield running


@pytest.fixture
def proxy(broker):
    """A fault proxy in front of `broker`."""
    with Proxy(broker.port) as running:
        yield running


@pytest.fixture
def tls_proxy(tls_broker):
    """A fault proxy in front of `tls_broker`: bytes only, no packets."""
    with Proxy(tls_broker.port) as running:
        yield running


@pytest.fixture
def mtls_proxy(mtls_broker):
    """A fault proxy in front of `mtls_broker`: bytes only, no packets."""
    with Proxy(mtls_broker.port) as running:
        yield running
