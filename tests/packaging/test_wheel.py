"""The wheels, as `./dev build` makes them, installed where nothing else is."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import docs, node, patience, venv
from tests.support.pty_board import PtyBoard
from tools.debian import CACHE, Unavailable

ROOT = Path(__file__).resolve().parents[2]
PYRIGHT = ROOT / "tests/packaging/pyright"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def wheel(dist):
    """The Path of the wheel."""
    return next(dist.glob("mqttls-*.whl"))


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The folder bin/ of a fresh venv that has both wheels and what they ask for, no more."""
    wheels = [next(dist.glob(f"{name}-*.whl")) for name in ("mqtt_as_tls", "mqttls")]
    return venv.make(tmp_path_factory.mktemp("venv"), wheels, extras=("board",))


def mqttls(installed, *arguments, cwd):
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    return subprocess.run(
        [installed / "mqttls", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience.stretched(100),
    )


def test_the_wheel_has_every_module_and_the_device_package_in_both_forms(wheel, tmp_path):
    shutil.unpack_archive(wheel, tmp_path, "zip")
    host = {
        path.relative_to(ROOT / "tools"): path for path in (ROOT / "tools/mqttls").rglob("*.py")
    }
    inside = Path("mqttls/library/mqtt_as_tls")
    sources = [path for path in (ROOT / "mqtt_as_tls").iterdir() if path.suffix != ".mpy"]
    device = {inside / path.name: path for path in sources if path.is_file()}
    mpy = {inside / (path.stem + ".mpy") for path in (ROOT / "mqtt_as_tls").glob("*.py")}
    found = {path.relative_to(tmp_path) for path in (tmp_path / "mqttls").rglob("*.*")}
    assert found == {*host, *device, *mpy}
    for name, path in {**host, **device}.items():
        assert (tmp_path / name).read_bytes() == path.read_bytes(), f"{name} was changed"


def test_the_command_alone_shows_worked_examples(installed, tmp_path):
    done = mqttls(installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nmqttls ") >= 3 and done.stdout.startswith("mqttls init ")


def test_explain_is_the_devices_own_table(installed, tmp_path):
    done = mqttls(installed, "explain", "OSError(-30592, 'x')", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "refused the TLS handshake" in done.stdout


def test_try_says_how_to_get_the_test_kit(installed, tmp_path):
    done = mqttls(installed, "try", "main.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "the test kit is not installed" in done.stderr
    assert "pip install mqtt-as-tls-testkit" in done.stderr


def test_an_unknown_command_is_a_usage_error(installed, tmp_path):
    assert mqttls(installed, "nothing", cwd=tmp_path).returncode == 2


def test_what_is_installed_makes_certificates_and_puts_them_on_a_board(installed, tmp_path):
    for line in ("init --broker broker.lan --broker 127.0.0.1", "device add kitchen"):
        done = mqttls(installed, *line.split(), cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    with PtyBoard(tmp_path / "flash") as board:
        line = ("provision", "kitchen", "--port", board.port, "--json")
        done = mqttls(installed, *line, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert "/lib/mqtt_as_tls/client.mpy" in found["changed"] and found["form"] == ".mpy"
    assert found["readable"] == ["its key"]


def test_pyright_finds_no_error_in_the_readmes_program_and_one_in_a_wrong_one(installed, tmp_path):
    try:
        node.install(PYRIGHT, CACHE / "pyright")
    except Unavailable as reason:
        pytest.skip(f"pyright did not run: {reason}")
    program = docs.text("app")
    by_hand, by_mqttls = "examples/config.py", "tools/mqttls/board_config.py"
    for name, text, config in (
        ("by_hand", program, by_hand),
        ("by_mqttls", program, by_mqttls),
        ("wrong", program.replace('"21.5"', "21.5"), by_hand),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text(text)
        shutil.copy(ROOT / config, tmp_path / name / "config.py")
    checker = CACHE / "pyright/node_modules/pyright/index.js"
    done = subprocess.run(
        [node.node(), checker, "--pythonpath", installed / "python", "--outputjson", tmp_path],
        cwd=tmp_path,
        env=node.environment(),
        capture_output=True,
        text=True,
        timeout=patience.stretched(100),
    )
    (told,) = json.loads(done.stdout)["generalDiagnostics"]
    assert Path(told["file"]).parent.name == "wrong" and '"float"' in told["message"]


def test_the_pin_of_mpremote_is_one():
    from tools.mqttls import board

    for name in ("pyproject.toml", "requirements/test.txt"):
        assert f"mpremote=={board.PIN}" in (ROOT / name).read_text()
