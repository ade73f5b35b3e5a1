"""mqttls at the chip's own prompt, as with a board on USB: the library frozen, and from /lib."""

import pytest

from tests.support import docs
from tests.support.tool import Mosquitto, Watcher, init, mqttls, open_folder, write_secret
from tests.support.udp import DNS, SNTP
from tests.virtual_pico.desk import NETWORK
from tests.virtual_pico.pico import ADDRESS, LINK_UP, Pico


@pytest.fixture(params=["firmware", "plain_firmware"], ids=["frozen, Wi-Fi", "from /lib, PPP"])
def board(request, tmp_path):
    """
    A Pico that hears a Wi-Fi network, or whose boot.py brings PPP up. `localhost` is this computer
    for it, too.
    """
    firmware = request.getfixturevalue(request.param)
    networks = [NETWORK] if request.param == "firmware" else None
    names = {"localhost": ADDRESS, "pool.ntp.org": ADDRESS}
    with DNS(names) as dns, SNTP() as sntp:
        ports = {53: dns.port, 123: sntp.port}
        with Pico(firmware, tmp_path, ports=ports, networks=networks) as pico:
            if not networks:
                pico.put("/boot.py", LINK_UP)
            yield pico


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


def provision(board, pki, *options):
    """Make a broker's folder, put the device `kitchen` of it onto the board; return the port."""
    port = init(pki, "--broker", "localhost", "--broker", "127.0.0.1", *options)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "device", "add", "desk", "--admin")
    wifi = ()
    if board.wifi:
        write_secret(pki / "wifi-password", NETWORK["password"])
        wifi = ("--wifi-ssid", NETWORK["ssid"], "--wifi-password-file", pki / "wifi-password")
    said = mqttls(pki, "provision", "kitchen", "--port", board.repl_url, *wifi).out
    assert ("certificate and key belong together" in said) == (not options)
    assert "library is in its firmware" in said or " .mpy files, " in said or options
    assert "clock set" in said
    return port


def run_readmes_program(board, pki, port):
    """Run it; assert that a second client has what it says, and what it is told arrives."""
    with Watcher(pki, "desk", port) as watcher:
        board.soft_reset()
        board.start(docs.text("app"))
        assert watcher.wait_for("devices/kitchen/status") == "online"
        assert watcher.wait_for("devices/kitchen/temperature") == "21.5"
        board.interrupt()
    board.run("import gc; gc.disable()")  # an app may: it outlives a soft reset


def test_provisioned_by_mqttls_the_readmes_program_arrives(board, folder):
    """A certificate, then a password in its place; what the doctor says of the board meanwhile."""
    for options in (), ("--server-only",):
        pki = folder / ("passwords" if options else "certificates")
        port = provision(board, pki, *options)
        at = ("doctor", "--board", "--port", board.repl_url)
        with Mosquitto(pki / "broker/mosquitto.conf", port, pki):
            assert "all is well" in mqttls(pki, *at).out
            run_readmes_program(board, pki, port)
    assert "refused" in mqttls(pki, *at, code=1).out
