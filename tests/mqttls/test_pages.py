"""
What README.md, docs/tls.md and docs/mqttls.md show of mqttls is what it says, run in their order.

A block marked `<!-- test: mqttls … -->` has lines that begin with `$ ` and the output of each.
Replaced are the broker's names and port, the board's serial port, and the password of the Wi-Fi
is given in a file; numbers and dates may differ. WRITE_DOCS=1 in the environment writes what
differs, and the table of rows, anew; WRITE_DOCS=all writes all, so that it is of one run.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import docs, mpy, patience
from tests.support.broker import Broker, mosquitto
from tests.support.pki import PKI
from tests.support.pty_board import PtyBoard
from tests.support.tool import MQTTLS, Mosquitto, Watcher, open_folder, write_secret
from tools.mqttls.board import Board
from tools.mqttls.doctor.causes import ROWS
from tools.ports import free_port

WIFI = ("my-ssid", "my-password")
TLS = mpy.ROOT / "docs/tls.md"

pytestmark = pytest.mark.timeout(120)


class Story:
    """One folder, one broker, one board: what the pages do, in their order."""

    def __init__(self, base):
        self.base = base
        self.pki = base / "mqtt-pki"
        self.port = free_port()
        self.board = None
        self.environment = {}
        write_secret(base / "wifi-password", WIFI[1])

    def run(self, line):
        """Run one line as it is shown, with the names of the test; return its output (str)."""
        words = shlex.split(line.removeprefix("./dev "))
        assert words.pop(0) == "mqttls"
        words = [self.inwards(each) for each in words]
        if words[:1] == ["init"]:
            words += ["--bind", "127.0.0.1", "--port", str(self.port)]
        if "--wifi-ssid" in words:
            words += ["--wifi-password-file", "wifi-password"]
        if words[:1] == ["provision"] or "--board" in words:
            words += ["--port", self.board.port]
        if words[:1] == ["keys"]:
            words += ["--key", "p256", "--runs", "1"]
        done = subprocess.run(
            [*MQTTLS, *words],
            cwd=self.base,
            env={**os.environ, "PYTHONPATH": str(mpy.ROOT), **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience.stretched(100),
        )
        assert done.returncode in (0, 1), f"{line}\n{done.stdout}"
        return self.outwards(done.stdout)

    def inwards(self, text):
        text = text.replace(":8883", f":{self.port}").replace("192.168.1.10", "127.0.0.1")
        return text.replace("broker.lan", "localhost")

    def outwards(self, text):
        text = text.replace(str(self.base.resolve()), "/home/you").replace(
            str(self.base), "/home/you"
        )
        if self.board:
            text = text.replace(self.board.port, "/dev/ttyACM0")
        text = re.sub(r"(?m)^user .*$", "user you", text)
        text = re.sub(rf"\b{self.port}\b", "8883", text).replace("127.0.0.1", "192.168.1.10")
        text = text.replace("listener 8883 192.168.1.10", "listener 8883")  # the test's --bind
        return text.replace("localhost", "broker.lan").replace("\r", "")

    def tell(self, name):
        """Run the block `name` and compare, or write, what came of it."""
        shown = docs.text(name)
        lines = [each for each in shown.splitlines() if each.startswith("$ ")]
        assert lines
        told = "\n".join(f"{line}\n{self.run(line[2:])}" for line in lines)
        write = os.environ.get("WRITE_DOCS")
        if write == "all" or (write and same(shown) != same(told)):
            docs.rewrite(name, told)
        assert same(docs.text(name)) == same(told), f"WRITE_DOCS=1 writes it anew:\n{told}"


def same(text):
    """Return `text` without what differs from run to run."""
    text = re.sub(r"\b(CA |archive/|mqttls-doctor-)[0-9a-f]+", r"\1X", text)
    text = re.sub(r"(?m)^(board on \S+: ).*?, MicroPython", r"\1MicroPython", text)
    text = re.sub(r" on .*? since ", " on X since ", text)
    return re.sub(r" +", " ", re.sub(r"\d+(\.\d+)?", "0", text))


def test_the_pages_from_init_to_the_new_authority():
    with open_folder() as base:
        story = Story(base)
        story.tell("mqttls alone")
        story.tell("mqttls init")
        story.tell("mqttls device")
        story.tell("mqttls admin")
        with (
            Mosquitto(story.pki / "broker/mosquitto.conf", story.port, story.pki) as broker,
            PtyBoard(base / "flash", wifi=WIFI) as story.board,
        ):
            story.tell("mqttls dry run")
            story.tell("mqttls provision")
            the_app_runs(story)
            story.tell("mqttls doctor")
            story.tell("mqttls doctor board")
            story.tell("mqttls wrong name")
            story.tell("mqttls topic")
            story.tell("mqttls topics")
            broker.reload()
            story.tell("mqttls status")
            (base / "fleet.csv").write_text(story.inwards(docs.text("mqttls fleet.csv")))
            story.tell("mqttls fleet")
            (base / "bad.csv").write_text(story.inwards(docs.text("mqttls bad.csv")))
            story.tell("mqttls bad fleet")
            story.tell("mqttls renew")
            broker.reload()
            story.tell("mqttls revoke")
            story.tell("mqttls device list")
            broker.restart()
            story.tell("mqttls roll-over")
            broker.restart()
            story.tell("mqttls roll-over boards")
            story.tell("mqttls roll-over end")
            broker.restart()
            story.tell("mqttls after the roll-over")
            broker.stop()
            story.tell("mqttls nothing listens")
            story.tell("mqttls docker")
        story.board = None
        (base / "app.py").write_text((mpy.ROOT / "examples/firmware_over_mqtt.py").read_text())
        story.tell("mqttls update")
        story.tell("mqttls explain")


def one_round(app):
    """Return the app of the README that ends after a message."""
    assert app.count("while True:") == 1 and app.count("sleep(60)") == 1
    return app.replace("while True:", "for _ in range(1):").replace("sleep(60)", "sleep(0.5)")


def the_app_runs(story):
    """The app of the README on the board that was provisioned, for one round."""
    app = one_round(docs.text("app"))
    with Watcher(story.pki, "homeassistant", story.port) as watcher:
        with Board(story.board.port) as board:
            board.run(app, "the app", timeout_s=60)
        watcher.wait_for("devices/kitchen/temperature")
        assert ("devices/kitchen/status", "online") in watcher.received


def test_passwords_in_the_place_of_certificates():
    with open_folder() as base:
        story = Story(base)
        story.tell("mqttls server-only")
        with Mosquitto(story.pki / "broker/mosquitto.conf", story.port, story.pki):
            story.tell("mqttls server-only doctor")


def test_a_broker_that_was_there_before(tmp_path):
    (tmp_path / "pki").mkdir()
    pki = PKI(tmp_path / "pki")
    root = pki.issue("Example Root CA", "ca", path_length=1)
    between = pki.issue("Example Issuing CA", "ca", issuer=root)
    identity = pki.issue("broker.lan", issuer=between)
    users = {"garden": "secret"}
    with (
        open_folder() as base,
        Broker(tmp_path / "broker", "tls", pki=pki, identity=identity, users=users) as broker,
    ):
        shutil.copy(root.cert_pem, base / "ca.pem")
        write_secret(base / "password", "secret\n")
        story = Story(base)
        story.port = broker.port
        story.environment["SSL_CERT_FILE"] = root.cert_pem
        story.tell("own broker use")
        story.tell("own broker doctor")
        shutil.rmtree(story.pki)
        story.tell("own broker look")
        ask = story.inwards(docs.text("own broker issuer"))
        done = subprocess.run(
            ["sh", "-c", ask], capture_output=True, text=True, timeout=patience.stretched(60)
        )
    *_, last = done.stdout.splitlines()
    assert last.strip().startswith("i:") and "Example Root CA" in last, done


def test_the_five_minutes_of_the_readme():
    if not shutil.which("mosquitto_sub"):
        pytest.skip("mosquitto_sub is not installed: sudo apt install mosquitto-clients")
    with open_folder() as base:
        story = Story(base)
        for line in docs.text("five minutes: certificates").splitlines():
            assert "made" in story.run(line)
        start, *watch = docs.text("five minutes: broker").splitlines()
        assert start == "mosquitto -c mqtt-pki/broker/mosquitto.conf -v"
        watch = "\n".join(watch).replace("-p 8883", f"-p {story.port}")
        assert watch.count(" -v") == 1
        with (
            Mosquitto(base / start.split()[2], story.port, story.pki),
            PtyBoard(base / "flash", wifi=WIFI) as story.board,
        ):
            (line,) = docs.text("five minutes: board").splitlines()
            assert "belong together" in story.run(line)
            (line,) = docs.text("five minutes: doctor").splitlines()
            assert "all is well" in story.run(line)
            command = ["timeout", "60", "sh", "-euc", story.inwards(watch) + " -C 2"]
            watcher = subprocess.Popen(command, cwd=base, stdout=subprocess.PIPE, text=True)
            with Board(story.board.port) as board:
                board.run(one_round(docs.text("app")), "the app", timeout_s=60)
            seen, _ = watcher.communicate(timeout=patience.stretched(60))
    assert "devices/kitchen/status o" in seen, "online, or offline if the watcher was slow"


def test_dev_runs_it_in_the_folder_of_the_caller(tmp_path):
    if not (mpy.ROOT / ".venv/installed.json").exists():
        pytest.skip("./dev has made no .venv here")
    command = [mpy.ROOT / "dev", "mqttls", "init", "--broker", "broker.lan"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=patience.stretched(200)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "mqtt-pki/broker/mosquitto.conf").is_file()
    assert f"\nnext: {mpy.ROOT}/dev mqttls device add NAME" in done.stdout, "it can be pasted"


def test_the_install_script_is_there_where_the_pages_call_it():
    pages = "".join(path.read_text() for path in docs.FILES)
    calls = set(re.findall(r"sudo sh (mqtt-pki/\S+?)[`\s]", pages))
    assert calls == {"mqtt-pki/broker/install.sh"}
    with open_folder() as base:
        Story(base).run("mqttls init --broker broker.lan")
        assert (base / "mqtt-pki/broker/install.sh").is_file()


def test_the_table_of_key_kinds_has_the_columns_of_the_tool():
    """The page has all kinds, which take a minute; here it is one."""
    mosquitto()
    shown = docs.text("mqttls keys").splitlines()
    assert shown[0].startswith("$ mqttls keys")
    with open_folder() as base:
        out = Story(base).run(shown[0][2:]).splitlines()
    lines = {same(line) for line in shown}
    assert [line for line in out if same(line) not in lines] == []


def test_the_table_of_rows_names_the_tests_of_each():
    tests = {}
    for path in sorted(Path(__file__).parent.glob("test_doctor_*.py")):
        for found in re.finditer(r"def (test_rows?_(\d+(?:_and_\d+)*)_\w+)", path.read_text()):
            for number in found[2].split("_and_"):
                tests.setdefault(int(number), []).append(f"`{path.stem[12:]}::{found[1]}`")
    lines = ["| # | cause | tests in tests/mqttls/test_doctor_*.py |", "|---|---|---|"]
    for number, (_, cause, _) in ROWS.items():
        lines.append(f"| {number} | {cause} | {', '.join(tests[number])} |")
    table = "\n".join(lines) + "\n"
    if os.environ.get("WRITE_DOCS"):
        docs.replace(TLS, "test: mqttls rows", table)
    assert table in TLS.read_text(), f"WRITE_DOCS=1 writes it anew:\n{table}"
