"""
The README's program and every example, as they are printed, on a board that `mqttls provision`
furnished, at the brokers that `mqttls init` makes: a second client receives what they publish.
"""

import concurrent.futures
import contextlib
import json
import re
import time
import types

import pytest

from tests.support import docs, mpy, patience, process
from tests.support.board import WIFI
from tests.support.broker import Peer, properties_of
from tests.support.pty_board import PtyBoard
from tests.support.tool import Mosquitto, init, mqttls, open_folder, write_secret
from tools.mqttls.board import Board, BoardGone, BoardRaised

EXAMPLES = mpy.ROOT / "examples"
HOME = "devices/kitchen/"
NOT_AT_A_BROKER = {"config", "ppp_link"}
KINDS = {"mutual": (), "server-only": ("--server-only",)}


class Place:
    """A broker of mqttls, and a board with what `provision` gives `kitchen`."""

    def __init__(self, folder, options):
        self.pki = folder / "mqtt-pki"
        self.port = init(self.pki, *options)
        mqttls(self.pki, "device", "add", "kitchen")
        mqttls(self.pki, "device", "add", "desk", "--admin", "--topics", "$aws/#")
        self.broker = Mosquitto(self.pki / "broker/mosquitto.conf", self.port, self.pki)
        self._peers = []
        self.board = PtyBoard(
            folder / "flash", wifi=WIFI, fakes=("machine", "network", "umqtt.simple")
        )
        write_secret(folder / "wifi-password", WIFI[1])
        wifi = ("--wifi-ssid", WIFI[0], "--wifi-password-file", folder / "wifi-password")
        mqttls(self.pki, "provision", "kitchen", "--port", self.board.port, *wifi)

    def close(self):
        self.forget_peers()
        self.board.close()
        self.broker.stop()

    def peer(self, *filters, **options):
        """
        Return a Peer with all rights, `desk`, that is subscribed to `filters`; the one before it
        goes. The broker knows both by the name in the certificate, and ends one when the other
        comes, which would then come back, without its subscriptions, and so on.
        """
        self.forget_peers()
        at = self.pki / "devices/desk"
        said = json.loads((at / "tls.json").read_text())
        if "password" in said:
            options.update(user=said["user"], password=said["password"])
        else:
            options["identity"] = types.SimpleNamespace(
                cert_pem=at / "cert.crt", key_pem=at / "key.pem"
            )
        ca = types.SimpleNamespace(cert_pem=at / "ca.crt")
        self._peers.append(Peer(self.port, ca=ca, **options))
        for each in filters:
            self._peers[-1].subscribe(each)
        return self._peers[-1]

    def forget_peers(self):
        while self._peers:
            self._peers.pop().close()

    def put(self, path, data):
        with Board(self.board.port) as board:
            board.put({path: data})

    def running(self, program):
        """Return what runs `program` (str) on the board in a `with`, and stops it at its end."""
        return _Running(self, program)

    def allow(self, *topics):
        """
        Give `kitchen` these topics, and no others.

        The broker starts anew: mosquitto 2.0.11 may crash at a SIGHUP while a client with a
        session is away.
        """
        words = [word for each in topics or ("none",) for word in ("--topics", each)]
        mqttls(self.pki, "device", "add", "kitchen", *words)
        self.broker.restart()


class _Running:
    def __init__(self, place, program):
        self._place, self._program = place, program

    def __enter__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._run)
        return self

    def _run(self):
        try:
            with Board(self._place.board.port) as board:
                board.fresh()
                return board.run(self._program, "the program", timeout_s=60)
        except (BoardRaised, BoardGone) as error:  # KeyboardInterrupt; deepsleep()
            return error
        return None

    def ends(self):
        """Return when it has ended by itself, as with a reset."""
        assert concurrent.futures.wait([self._done], patience.stretched(20)).done

    def __exit__(self, kind, *_):
        deadline = time.monotonic() + patience.stretched(20)
        while not self._done.done() and time.monotonic() < deadline:
            self._place.board.interrupt()
            concurrent.futures.wait([self._done], 1)
        said = self._done.result(1)
        self._pool.shutdown()
        if kind:  # shown with the failure
            print("the program:", said)
            print("the broker:", self._place.broker.log()[-4000:])


@pytest.fixture(scope="module")
def places():
    """{kind: Place}, each made when it is asked for."""
    with contextlib.ExitStack() as stack:
        found = {}

        def place(kind):
            if kind not in found:
                folder = stack.enter_context(open_folder())
                found[kind] = Place(folder, KINDS[kind])
                stack.callback(found[kind].close)
            return found[kind]

        yield place


@pytest.fixture(params=KINDS)
def place(request, places):
    found = places(request.param)
    yield found
    found.forget_peers()


def example(name):
    return (EXAMPLES / f"{name}.py").read_text()


def test_every_example_is_run_here():
    here = " ".join(globals())
    names = {path.stem for path in EXAMPLES.glob("*.py")} - NOT_AT_A_BROKER
    assert len(names) > 10
    assert [each for each in sorted(names - set(PUBLISHED)) if f"test_{each}" not in here] == []


def come(peer, topic, payload):
    """Return when that message came; others of the topic, such as a retained one, may be first."""
    count = 1
    while peer.wait_for(count, topic=topic)[-1].payload != payload:
        count += 1


# What these publish by themselves, without further rights
PUBLISHED = {
    "README": (HOME + "temperature", b"21.5"),
    "sensor": (HOME + "temperature", b"27.0"),
    "battery_sensor": (HOME + "moisture", b"14021"),
    "umqtt_tls": (HOME + "temperature", b"21.5"),
    "store_and_forward": (HOME + "temperature", None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_it_publishes_is_received(place, name):
    topic, payload = PUBLISHED[name]
    peer = place.peer("#")
    program = docs.text("app") if name == "README" else example(name)
    with place.running(program):
        message = peer.wait_for(topic=topic)[0]
        assert payload is None or message.payload == payload
        if name == "README":
            come(peer, HOME + "status", b"online")


@pytest.mark.parametrize("name", [each for each in PUBLISHED if each != "README"] + ["main"])
def test_on_the_pc_it_is_received_too(place, name, tmp_path):
    """As its docstring and docs/tls.md say it, with the config.py of `device add`."""
    for each in ("examples", "tests", "mqtt_as_tls"):
        (tmp_path / each).symlink_to(mpy.ROOT / each)
    (tmp_path / "mqtt-pki").symlink_to(place.pki)
    (tmp_path / "main.py").write_text(docs.text("app"))
    path, _ = docs.text("unix").splitlines()
    command = ".venv/bin/micropython -m main"
    if name != "main":
        command = re.search(r"\.venv/bin/micropython -m \S+", example(name))[0]
    command = command.replace(".venv/bin/micropython", mpy.interpreter())
    topic, payload = PUBLISHED["README" if name == "main" else name]
    peer = place.peer("#")
    child = process.spawn(["sh", "-euc", f"{path}\nexec {command}"], cwd=tmp_path)
    try:
        message = peer.wait_for(topic=topic)[0]
        assert payload is None or message.payload == payload
    finally:
        process.end(child)


def test_actuator_obeys(place):
    peer = place.peer("#")
    with place.running(example("actuator")):
        come(peer, HOME + "status", b"online")
        peer.publish(HOME + "valve/set", b"on")
        come(peer, HOME + "valve", b"on")


def test_firmware_over_mqtt_installs_an_update(place, tmp_path):
    """Built by the tool, with the key that it made, of which `provision` gave the board a part."""
    peer = place.peer(HOME + "update/status", HOME + "version")
    (tmp_path / "app.py").write_text(example("firmware_over_mqtt"))
    output = tmp_path / "app-2.update"
    build = ("update", "build", tmp_path / "app.py", "--version", 2, "--output", output)
    mqttls(place.pki, *build)
    mqttls(place.pki, "provision", "kitchen", "--port", place.board.port)
    place.put("/lib/mqtt_update.py", (mpy.ROOT / "update/mqtt_update.py").read_bytes())
    place.put("/app.py", (tmp_path / "app.py").read_bytes())
    with place.running(docs.text("update main")) as before:
        come(peer, HOME + "version", b"1")
        peer.publish(HOME + "update", output.read_bytes())
        count = 1
        while json.loads(peer.wait_for(count, topic=HOME + "update/status")[-1].payload)[
            "said"
        ] != ("installed 2, starting it"):
            count += 1
        before.ends()
    with place.running(docs.text("update main")):
        come(peer, HOME + "version", b"2")


KEEP_WHAT_IT_PRINTS = """\
def print(*words):
    with open("/printed", "w") as file:
        file.write(" ".join([str(word) for word in words]) + "\\n")
"""


def test_request_response_asks_and_answers(place):
    place.allow("write:desk/answer")  # who is asked must be allowed to answer there
    peer = place.peer("#", protocol=5)
    with place.running(KEEP_WHAT_IT_PRINTS + example("request_response")):
        question = peer.wait_for(topic=HOME + "rain/get")[0]
        said = properties_of(question)
        only = {"correlation_data": said["correlation_data"]}
        peer.publish(said["response_topic"], b"3 mm", properties=only)
        asked = {"response_topic": "desk/answer", "correlation_data": b"1"}
        peer.publish(HOME + "level/get", b"garden/tank", properties=asked)
        assert peer.wait_for(topic="desk/answer")[0].payload == b"420"
    place.allow()
    with Board(place.board.port) as board:
        board.fresh()
        assert board.read("/printed") == b"rain tomorrow: b'3 mm'\n"


def test_aws_iot_reports_its_readings_and_with_more_rights_has_its_shadow(place):
    """What is in AWS's own topics it may not use here, and that ends nothing."""
    peer = place.peer("devices/#", "$aws/#")
    with place.running(example("aws_iot")):
        assert json.loads(peer.wait_for(topic=HOME + "reading")[0].payload)
    assert [each.topic for each in peer.messages if each.topic[0] == "$"] == []
    place.allow("$aws/things/kitchen/#")
    peer = place.peer("$aws/#")
    with place.running(example("aws_iot")):
        (allowed,) = peer.wait_for(topic="$aws/things/kitchen/shadow/update")
    place.allow()
    assert json.loads(allowed.payload) == {"state": {"reported": {"interval_s": 60}}}


def test_home_assistant_is_found_with_the_right_to_announce_itself(place):
    place.allow("homeassistant/#")
    try:
        peer = place.peer("#")
        with place.running(example("home_assistant")):
            peer.wait_for(topic="homeassistant/device/kitchen/config")
    finally:
        place.allow()


def in_the_cloud(name, cloud):
    """Return an example with a server-only broker of mqttls as its cloud, and `kitchen` there."""
    program = example(name)
    said = json.loads((cloud.pki / "devices/kitchen/tls.json").read_text())
    for old, new in (
        ('"mycluster.example.com"', f'"127.0.0.1", {cloud.port}'),
        ('"my-user"', repr(said["user"])),
        ('"my-cloud-password"', repr(said["password"])),
    ):
        assert program.count(old) == 1
        program = program.replace(old, new)
    return program.replace("devices/garden-1/", HOME)  # cloud_broker has no config


def test_cloud_broker_greets_itself(place, places):
    cloud = places("server-only")
    place.put("/certs/cloud-ca.pem", (cloud.pki / "ca.crt").read_bytes())
    peer = cloud.peer("#")
    with place.running(in_the_cloud("cloud_broker", cloud)):
        message = peer.wait_for()[0]
        while message.payload != b"hello":
            message = peer.wait_for(len(peer.messages) + 1)[-1]
        assert message.topic.startswith(HOME + "greetings/")
    cloud.forget_peers()


def test_two_brokers_passes_on_what_it_hears(places):
    home, cloud = places("mutual"), places("server-only")
    home.put("/certs/cloud-ca.pem", (cloud.pki / "ca.crt").read_bytes())
    peer, here = cloud.peer("#"), home.peer()
    here.publish(HOME + "level", b"3", retain=True)
    try:
        with home.running(in_the_cloud("two_brokers", cloud)):
            assert peer.wait_for(topic=HOME + "level")[0].payload == b"3"
    finally:
        here.publish(HOME + "level", b"", retain=True)
        home.forget_peers()
        cloud.forget_peers()
