"""The package as mip and mpremote put it on a board: as .py files, and as .mpy files."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import docs, mpy, patience
from tests.support.pty_board import PtyBoard
from tools.mqttls import board_files
from tools.mqttls.board import Board

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
READINGS = 3

pytestmark = pytest.mark.timeout(120)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def index():
    """Serves a folder (Path) on loopback, and returns the URL of that."""
    with contextlib.ExitStack() as stack:

        def serve(folder):
            handler = functools.partial(Handler, directory=folder)
            server = stack.enter_context(
                http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            )
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        yield serve


def modules(ending=".py"):
    return sorted(path.stem + ending for path in (ROOT / "mqtt_as_tls").glob("*.py"))


def check_that_it_works(folder, broker, pki):
    """Run the device app with no package but that in `folder`."""
    device = pki.device
    peer = broker.peer("core/reading")
    arguments = (broker.port, pki.ca.cert_der, device.cert_der, device.key_der, READINGS)
    env = {"MICROPYPATH": f"{folder}:.frozen"}
    with mpy.start(HERE / "core_program.py", *arguments, env=env, cwd=folder) as app:
        app.wait_for(f"imported from {folder}/mqtt_as_tls")
        peer.wait_for(READINGS)
        peer.publish("core/command", "stop")
        app.wait_for("done")
        assert app.wait().code == 0
    assert [int(payload) for _, payload in peer.received] == list(range(READINGS))


def install(package, index, target):
    """Install from the path `package` below `index` into the folder `target`, as a board does."""
    target.mkdir()
    mip = ("-m", "mip", "install", "--index", index, "--target", target, f"{index}/{package}")
    ran = subprocess.run(
        [mpy.interpreter(), *mip],
        cwd=target.parent,
        capture_output=True,
        text=True,
        timeout=patience.stretched(60),
    )
    # mip exits with 0 whatever happened: only the files tell
    installed = {path.relative_to(target): path for path in target.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in installed.items()}, ran


def test_mip_installs_the_whole_package_and_it_connects(index, tmp_path, mtls_broker, pki):
    installed, ran = install("package.json", index(ROOT), tmp_path / "lib")
    assert sorted(installed) == [f"mqtt_as_tls/{name}" for name in modules()], ran
    for name, data in installed.items():
        assert data == (ROOT / name).read_bytes(), f"{name} arrived changed"
    check_that_it_works(tmp_path / "lib", mtls_broker, pki)


def test_mip_installs_what_was_built_and_it_connects(index, dist, tmp_path, mtls_broker, pki):
    installed, ran = install("mip/package.json", index(dist), tmp_path / "lib")
    assert sorted(installed) == [f"mqtt_as_tls/{name}" for name in modules(".mpy")], ran
    for name, data in installed.items():
        assert data == (dist / "mip" / name).read_bytes(), f"{name} arrived changed"
    check_that_it_works(tmp_path / "lib", mtls_broker, pki)


def test_the_lines_of_the_readme_put_mpy_files_onto_a_board(dist, tmp_path):
    made, line = docs.text("install").splitlines()
    assert made == "./dev build"
    command, *words = line.split()
    assert command == "mpremote" and dist.name == "dist"
    with PtyBoard(tmp_path / "flash") as board:
        at = (sys.executable, "-m", "mpremote", "connect", board.port, "resume")
        with Board(board.port) as connected:
            connected.run("import os; os.mkdir('/lib')", "making /lib")
        ran = subprocess.run(
            [*at, *words],
            cwd=dist.parent,
            capture_output=True,
            text=True,
            timeout=patience.stretched(60),
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        with Board(board.port) as connected:
            held = board_files.look(connected)
    assert (held["library"], held["form"]) == ("same", ".mpy")
