"""
The pytest plugin. Fixtures: broker, device, faults, published, clock, virtual_pico.

    def test_it_tells_the_temperature(device, published):
        device.desk.temperature(21)
        device.start()
        published("devices/test-device/temperature", "21.0", within_s=10)

In pytest's configuration `mqtt_app` names the program, main.py beside it unless it does. A test's
mark says what is different there:

    @pytest.mark.mqtt_app("valve.py", config={"interval_s": 1}, mqtt={"keepalive_s": 5})

which may also have heap (as device of kit.app.App), wifi=False, and acl, text of an ACL file.
"""

from pathlib import Path

import pytest

from ..support import faketime, patience, udp
from ..support.elsewhere import Unavailable
from ..support.pki import PKI
from . import app as boards
from .broker import Broker
from .faults import Faults

_MARK = "mqtt_app"
_PATIENCE = 1.5  # times a limit on a quiet PC
_OPTIONS = ("config", "mqtt", "heap", "wifi", "acl")


def pytest_addoption(parser):
    parser.addini(_MARK, "the app to test (default: main.py)", default="main.py")
    parser.addini("mqtt_pico_firmware", "the firmware of virtual_pico, a .bin file", default="")


def pytest_configure(config):
    patience.measure(_PATIENCE)
    config.addinivalue_line(
        "markers",
        f"{_MARK}(main, *, config, mqtt, heap, wifi, acl): what the app has in this test alone",
    )


def _fail_where_unavailable():
    try:
        return (yield)
    except (Unavailable, faketime.Unavailable) as reason:
        pytest.fail(str(reason), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup():
    return (yield from _fail_where_unavailable())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    return (yield from _fail_where_unavailable())


class _Wish:
    """What the test's mark and the configuration say of the app."""

    def __init__(self, request):
        mark = request.node.get_closest_marker(_MARK)
        self.options = dict(mark.kwargs) if mark else {}
        unknown = [each for each in self.options if each not in _OPTIONS]
        if unknown:
            raise pytest.UsageError(f"{_MARK} takes {', '.join(_OPTIONS)}, not {unknown[0]!r}")
        name = mark.args[0] if mark and mark.args else request.config.getini(_MARK)
        self.main = Path(request.config.rootpath, name)
        if not self.main.is_file():
            raise pytest.UsageError(
                f"there is no app {self.main}: name it with {_MARK} in pytest's configuration"
            )

    def config(self, broker, **more):
        """Return the files {name: content} that make its config.py."""
        text = boards.config(
            broker,
            mqtt=self.options.get("mqtt"),
            more=self.options.get("config"),
            **{"wifi": self.options.get("wifi", True), **more},
        )
        return {**boards.certificates(broker), "config.py": text.encode()}


@pytest.fixture(scope="session")
def _mqtt_pki(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def _mqtt_wish(request):
    return _Wish(request)


@pytest.fixture
def broker(_mqtt_wish, _mqtt_pki, tmp_path):
    """A mosquitto on mutual TLS, see kit.broker.Broker: publish, messages, restart, kill, …"""
    with Broker(tmp_path / "mqtt-broker", _mqtt_pki, _mqtt_wish.options.get("acl")) as running:
        yield running


@pytest.fixture
def _mqtt_folder(tmp_path):
    folder = tmp_path / "mqtt-device"
    (folder / "desk").mkdir(parents=True)
    return folder


@pytest.fixture
def clock(_mqtt_folder):
    """
    The clock that the device goes by, the right one at first: clock.set("2021-01-01"), as on a
    board that was just powered on; clock.set(None). Its time server has the right one.
    """
    clock = faketime.Clock(_mqtt_folder / "desk", "2030-06-01")
    clock.set(None)
    return clock


@pytest.fixture
def device(request, broker, _mqtt_wish, _mqtt_folder):
    """The app on a board, switched off until device.start(), see kit.app.App."""
    clocked = "clock" in request.fixturenames
    env = request.getfixturevalue("clock").environment if clocked else None
    heap = _mqtt_wish.options.get("heap", boards.HEAP)
    with udp.SNTP() as sntp:
        files = _mqtt_wish.config(broker, ntp=(sntp.host, sntp.port))
        with boards.App(_mqtt_folder, _mqtt_wish.main, files, heap=heap, env=env) as app:
            yield app


@pytest.fixture
def faults(request, broker, device):
    """faults("rst"), with faults.at("puback-in", "rst"), see kit.faults.Faults."""
    clock = request.getfixturevalue("clock") if "clock" in request.fixturenames else None
    return Faults(broker, device, clock)


@pytest.fixture
def virtual_pico(request, broker, _mqtt_wish, tmp_path):
    """The app on an emulated chip, not started until start_app(), see kit.chip.Chip."""
    try:
        from .chip import Chip, firmware
    except ImportError:
        raise Unavailable(
            "the virtual Pico takes mpremote: pip install mqtt-as-tls-testkit[pico]"
        ) from None
    image = firmware(request.config.getini("mqtt_pico_firmware"), request.config.rootpath)
    more = {name: _mqtt_wish.options.get(name) for name in ("mqtt", "config")}
    folder = tmp_path / "mqtt-pico"
    with (
        udp.SNTP() as sntp,
        Chip(image, folder, _mqtt_wish.main, broker, sntp.port, **more) as chip,
    ):
        yield chip


@pytest.fixture
def published(request, broker):
    """
    published("topic", "payload", within_s=10) returns the next message on it, see
    kit.broker.Broker.published.
    """
    names = [name for name in ("device", "virtual_pico") if name in request.fixturenames]
    board = request.getfixturevalue(names[0]) if names else None

    def published(topic, payload=None, within_s=10):
        __tracebackhide__ = True
        return broker.published(topic, payload, within_s, board)

    return published
