"""mqttls at the chip's own prompt, as with a board on USB: the library frozen, and from /lib."""

import pytest

from tests.mqttls.test_provision import APP
from tests.support.tool import Mosquitto, Watcher, init, mqttls, open_folder
from tests.support.udp import DNS, SNTP
from tests.virtual_pico.pico import ADDRESS, LINK_UP, Pico


@pytest.fixture
def pki():
    with open_folder() as folder:
        yield folder / "mqtt-pki"


@pytest.fixture(params=["firmware", "plain_firmware"], ids=["frozen", "from /lib"])
def board(request, tmp_path):
    """A Pico whose boot.py brings its network up. `localhost` is this computer for it, too."""
    firmware = request.getfixturevalue(request.param)
    names = {"localhost": ADDRESS, "pool.ntp.org": ADDRESS}
    with DNS(names) as dns, SNTP() as sntp:
        ports = {53: dns.port, 123: sntp.port}
        with Pico(firmware, tmp_path, ports=ports) as pico:
            pico.put("/boot.py", LINK_UP)
            yield pico


def test_provisioned_by_mqttls_it_connects_and_the_doctor_is_content(board, pki):
    port = init(pki, "--broker", "localhost", "--broker", "127.0.0.1")
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "device", "add", "desk", "--admin")
    at = ("--port", board.repl_url)
    said = mqttls(pki, "provision", "kitchen", *at).out
    assert "clock set; it was 5 years behind" in said
    assert "certificate and key belong together" in said
    conf = pki / "broker/mosquitto.conf"
    with Mosquitto(conf, port, pki), Watcher(pki, "desk", port) as watcher:
        said = mqttls(pki, "doctor", "--board", *at).out
        assert "all is well" in said
        board.soft_reset()
        assert "acknowledged False True" in board.run(APP)
        assert watcher.wait_for("devices/kitchen/t") == "21.5"
    said = mqttls(pki, "doctor", "--board", *at, code=1).out
    assert "refused" in said
