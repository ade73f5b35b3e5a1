"""Fixtures, and what the device package needs to be imported on CPython."""

import os
import re
import shutil
import signal
import sys
import tempfile
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import chance, patience
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

# The files that take longest, longest first: begun last, one would go on when all others are over.
# But the first one builds the firmware, and the others that want it would wait for that.
_LONGEST = """
virtual_pico/test_link integration/test_streams integration/test_qos2
mqttls/test_what_init_writes_runs integration/test_client_outages mqttls/test_killed
mqttls/test_foreign_strangers mqttls/test_foreign_convert virtual_pico/test_tls_steps
faults/test_starvation virtual_pico/test_queue virtual_pico/test_updates_on_flash
virtual_pico/test_whole_job virtual_pico/test_wifi integration/test_client_tls
packaging/test_testkit mqttls/test_board_to_broker mqttls/test_doctor_topics
packaging/test_freeze versions/test_versions versions/test_versions_tls integration/test_demo
mqttls/test_bad_input mqttls/test_windows packaging/test_wheel unit/test_packet5_properties
integration/test_client_receive virtual_pico/test_mqttls virtual_pico/test_tls_sessions
faults/test_reserve mqttls/test_foreign integration/test_aside integration/test_dead_path
fuzz/test_fuzz integration/test_docs mqttls/test_fleet mqttls/test_board_doctor
faults/test_matrix integration/test_client_link faults/test_half_open virtual_pico/test_install
virtual_pico/test_testkit mqttls/test_provision mqttls/test_what_is_printed_arrives
mqttls/test_device_list integration/test_failover wifi_contract/test_contract mqttls/test_pages
site/test_site integration/test_queue integration/test_soak mqttls/test_board
integration/test_bench conformance/test_mosquitto mqttls/test_doctor_files integration/test_store
virtual_pico/test_large_payloads virtual_pico/test_store_on_flash virtual_pico/test_emulator
virtual_pico/test_repl virtual_pico/test_firmware
""".split()

_MEMORY = Path("/dev/shm")  # Linux has a file system in memory there
_ROOM = 1 << 30  # bytes, some times what the tests write

# Tests of a Pico W's own driver run where there is such a firmware; it cannot be built here.
_PICO_W = os.environ.get("PICO_W_FIRMWARE")
_NO_PICO_W = (
    "the driver of a Pico W was not tested: PICO_W_FIRMWARE=FILE ./dev test tests/wifi_contract "
    "tests/virtual_pico, with a .uf2 from micropython.org/download/RPI_PICO_W"
)

_scratch = None  # the folder of all temporary files; None in workers, which go by TMPDIR


def _in_memory():
    """
    Return the folder in which temporary files are in memory, or None where there is none, or no
    room, or the user has named another. A disk takes a minute for what stores write through to it.
    """
    if "TMPDIR" in os.environ:
        return None
    try:
        there = os.statvfs(_MEMORY)
        free = re.search(r"^MemAvailable: *(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        return None
    room = min(there.f_bavail * there.f_frsize, int(free[1]) * 1024 if free else 0)
    fits = room >= _ROOM and not there.f_flag & (os.ST_NOEXEC | os.ST_RDONLY)
    return str(_MEMORY) if fits and os.access(_MEMORY, os.W_OK | os.X_OK) else None


def pytest_configure(config):
    global _scratch
    config.addinivalue_line("markers", "pico_w: needs PICO_W_FIRMWARE")
    if hasattr(config, "workerinput"):
        return
    # what is started from here can be interrupted, though this may run behind a shell script's `&`
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # the same terminal for what the tests start, whatever this is started from
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm"
    # the tool is started hundreds of times, and would be compiled each time
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    patience.measure()
    chance.begin()
    # `./dev clean` knows it by this name
    _scratch = tempfile.mkdtemp(prefix=f"mqtt-tests-{os.getpid()}-", dir=_in_memory())
    os.chmod(_scratch, 0o755)  # brokers that run as another user
    os.environ["TMPDIR"] = tempfile.tempdir = _scratch


def pytest_unconfigure():
    if _scratch:
        shutil.rmtree(_scratch, ignore_errors=True)


@pytest.hookimpl(trylast=True)  # when other files have set their limits
def pytest_collection_modifyitems(config, items):
    def place(item):
        name = f"{item.path.parent.name}/{item.path.stem}"
        return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)

    left_out = [item for item in items if not _PICO_W and item.get_closest_marker("pico_w")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
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
def pytest_runtest_setup(item):
    chance.seed(item.nodeid)
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
        terminalreporter.line(f"{chance.told()} ./dev test repeats what was left to chance")
    reports = [each for group in terminalreporter.stats.values() for each in group]
    nodes = [getattr(each, "nodeid", "") for each in reports]
    near = ("tests/virtual_pico/", "tests/wifi_contract/")
    if not _PICO_W and any(node.startswith(near) for node in nodes):
        terminalreporter.line(_NO_PICO_W)
    if _all_skipped(config):
        terminalreporter.line("nothing was tested: all was skipped", red=True)


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """Certificates, see tests/support/pki.py."""
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def pico_w_firmware():
    """Path of a firmware for the Pico W; tests that want it are marked pico_w."""
    return Path(_PICO_W).resolve()


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
    # the heap lies low, as on a board: the id() of what is in it takes no memory
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000000")


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
