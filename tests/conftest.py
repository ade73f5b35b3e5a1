"""Fixtures, and what the device package needs to be imported on CPython."""

import os
import shutil
import signal
import sys
import tempfile
import types

import pytest
from hypothesis import HealthCheck, settings

from tests.support import patience
from tests.support.broker import Broker
from tests.support.pki import PKI
from tests.support.proxy import Proxy
from tools import build, freeze
from tools.debian import Unavailable
from tools.mqttls.library import bytecode

if "micropython" not in sys.modules:
    stand_in = types.ModuleType("micropython")
    stand_in.const = lambda value: value
    sys.modules["micropython"] = stand_in

# A busy machine fails no test: how long an example takes says nothing
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# Folders whose files take longest: several workers begin with them, or one has them at the end
_LONGEST = ("virtual_pico", "faults", "packaging", "fuzz", "mqttls")


_scratch = None  # the folder of all temporary files; None in workers, which go by TMPDIR


def pytest_configure(config):
    global _scratch
    if hasattr(config, "workerinput"):
        return
    # what is started from here can be interrupted, though this may run behind a shell script's `&`
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # the same terminal for what the tests start, whatever this is started from
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm"
    patience.measure()
    _scratch = tempfile.mkdtemp(prefix=f"mqtt-tests-{os.getpid()}-")  # as `./dev clean` knows it
    os.chmod(_scratch, 0o755)  # brokers that run as another user
    os.environ["TMPDIR"] = tempfile.tempdir = _scratch


def pytest_unconfigure():
    if _scratch:
        shutil.rmtree(_scratch, ignore_errors=True)


@pytest.hookimpl(trylast=True)  # when other files have set their limits
def pytest_collection_modifyitems(config, items):
    def place(item):
        folder = item.path.parent.name
        return _LONGEST.index(folder) if folder in _LONGEST else len(_LONGEST)

    items.sort(key=place)
    for item in items:
        marker = item.get_closest_marker("timeout")
        limit_s = marker.args[0] if marker else float(config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(patience.stretched(limit_s)), append=False)


def _skip_where_unavailable():
    try:
        return (yield)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup():
    return (yield from _skip_where_unavailable())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from _skip_where_unavailable())


def _all_skipped(config):
    stats = config.pluginmanager.get_plugin("terminalreporter").stats
    return stats.get("skipped") and not any(stats.get(each) for each in ("passed", "failed"))


def pytest_sessionfinish(session, exitstatus):
    global _scratch
    if not _scratch:
        return
    if exitstatus == pytest.ExitCode.OK and _all_skipped(session.config):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        _scratch = None  # it stays


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    if exitstatus == pytest.ExitCode.TESTS_FAILED:
        terminalreporter.line(f"what the failed tests wrote is kept in {tempfile.gettempdir()}")
    if _all_skipped(config):
        terminalreporter.line("nothing was tested: all was skipped", red=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """Certificates, see tests/support/pki.py."""
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """A folder like the dist/ of `./dev build`, made of the sources as they are now."""
    folder = tmp_path_factory.mktemp("built") / "dist"
    try:
        build.build(folder)
    except bytecode.Unavailable as reason:
        pytest.skip(f"nothing was built: {reason}")
    return folder


@pytest.fixture(scope="session")
def pico():
    """
    The path of a 32-bit interpreter with the package frozen in, whose TLS takes its memory from
    the heap, as that of a Pico W does.
    """
    return str(freeze.unix(32))


@pytest.fixture
def on_pico(pico, monkeypatch):
    """Programs run on that interpreter."""
    monkeypatch.setenv("MICROPYTHON", pico)
    monkeypatch.setenv("MQTT_FROZEN", "1")


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
