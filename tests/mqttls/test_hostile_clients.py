"""What the broker that `mqttls init` makes holds against its own clients: a stolen board."""

import contextlib
import socket
import time
import types

import pytest

from tests.support import patience
from tests.support.broker import Peer
from tests.support.tool import Mosquitto, in_here, init, open_folder
from tools.mqttls import broker, cli

LIMITS = ("max_packet_size=200000", "memory_limit=3000000", "max_connections=3")


class Place:
    """A broker of mqttls with kitchen, cellar and desk, which may use every topic."""

    def __init__(self, folder):
        self.pki = folder / "mqtt-pki"
        self.port = init(self.pki, run=in_here)
        in_here(self.pki, "device", "add", "kitchen", "cellar")
        in_here(self.pki, "device", "add", "desk", "--admin")
        limits = [each for limit in LIMITS for each in ("--limit", limit)]
        in_here(self.pki, "broker-conf", *limits)
        self.broker = Mosquitto(self.pki / "broker/mosquitto.conf", self.port, self.pki)

    def peer(self, name, **options):
        at = self.pki / "devices" / name
        named = types.SimpleNamespace
        pair = named(cert_pem=at / "cert.crt", key_pem=at / "key.pem")
        return Peer(self.port, ca=named(cert_pem=at / "ca.crt"), identity=pair, **options)


def wait_until(is_so):
    deadline = time.monotonic() + patience.stretched(10)
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def place():
    with open_folder() as folder:
        made = Place(folder)
        with made.broker:
            yield made


def test_no_device_takes_the_place_of_another_nor_what_waits_for_it(place):
    with place.peer("kitchen", client_id="kitchen", clean=False) as kitchen:
        kitchen.subscribe("devices/kitchen/#", 1)
    with place.peer("desk") as desk:
        desk.publish("devices/kitchen/set", b"for the kitchen", qos=1)
        for clean in (False, True):
            with place.peer("cellar", client_id="kitchen", clean=clean) as thief:
                thief.subscribe("devices/kitchen/#", 1)
                thief.publish("devices/kitchen/set", b"forged", qos=1)
                assert thief.received == []
        assert "as kitchen (p2, c1, k60, u'cellar')" not in place.broker.log()
        with place.peer("kitchen", client_id="anything", clean=False) as kitchen:
            kitchen.wait_for()
            assert kitchen.received == [("devices/kitchen/set", b"for the kitchen")]
            log = len(place.broker.log())
            with place.peer("cellar", client_id="kitchen"):
                desk.publish("devices/kitchen/set", b"again", qos=1)
                kitchen.wait_for(2)
            assert "already connected" not in place.broker.log()[log:]


def test_a_message_that_is_too_large_cuts_its_sender_off_and_nobody_else(place):
    with place.peer("desk") as desk, place.peer("cellar") as thief:
        with contextlib.suppress(RuntimeError):  # when it was cut off
            for number in range(30):
                thief.publish(f"devices/cellar/{number}", bytes(190_000), qos=0, retain=True)
        cut = "Client cellar disconnected due to out of memory"
        wait_until(lambda: cut in place.broker.log())
        desk.subscribe("devices/desk/#", 1)
        desk.publish("devices/desk/alive", b"1", qos=1)
        desk.wait_for()
    with place.peer("kitchen") as kitchen, place.peer("desk") as desk:
        with contextlib.suppress(RuntimeError):
            kitchen.publish("devices/kitchen/x", bytes(300_000), qos=0)
        desk.subscribe("devices/desk/#", 1)
        desk.publish("devices/desk/alive", b"2", qos=1)
        desk.wait_for()
        wait_until(lambda: "Client kitchen disconnected due to oversize" in place.broker.log())
        assert "x', ... (300000" not in place.broker.log()


def test_more_clients_than_the_broker_takes_are_refused(place):
    with contextlib.ExitStack() as many:
        for _ in range(20):  # who holds a place need not even speak TLS
            made = socket.create_connection(("127.0.0.1", place.port))
            many.enter_context(contextlib.closing(made))
        wait_until(lambda: "denied: max_connections exceeded" in place.broker.log())
    with place.peer("kitchen"):
        pass


def test_the_limits_are_in_the_configuration_and_stay(place):
    conf = (place.pki / "broker/mosquitto.conf").read_text()
    for each in LIMITS:
        assert f"\n{each.replace('=', ' ')}\n" in conf
    assert f"\nmax_queued_messages {broker.LIMITS['max_queued_messages']}\n" in conf
    in_here(place.pki, "broker-conf", "--limit", "max_queued_bytes=1000000")
    conf = (place.pki / "broker/mosquitto.conf").read_text()
    assert "\nmax_queued_bytes 1000000\n" in conf and "\nmax_packet_size 200000\n" in conf


@pytest.mark.parametrize(
    "limit",
    ["x=1", "max_packet_size", "max_packet_size=0", "memory_limit=-1", "memory_limit=1\nuser x"]
    + ["max_connections=" + "9" * 5000, "max_packet_size=268435461"],
)
def test_a_limit_that_is_none_is_refused(tmp_path, capsys, limit):
    assert cli.main(["broker-conf", "--limit", limit, "--dir", str(tmp_path)]) == 2
    assert "--limit: " in capsys.readouterr().err
