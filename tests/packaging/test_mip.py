"""The package as mip puts it on a board, from a web server, and as .mpy files."""

import functools
import http.server
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support import mpy, patience
from tools import freeze

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
READINGS = 3

# one test builds mpy-cross
pytestmark = pytest.mark.timeout(300)


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def index():
    """The URL of a web server on loopback that has the project's folder."""
    handler = functools.partial(Handler, directory=ROOT)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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


def test_mip_installs_the_whole_package_and_it_connects(index, tmp_path, mtls_broker, pki):
    target = tmp_path / "lib"
    target.mkdir()
    mip = ("-m", "mip", "install", "--index", index, "--target", target, f"{index}/package.json")
    ran = subprocess.run(
        [mpy.interpreter(), *mip],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=patience.stretched(60),
    )
    # mip exits with 0 whatever happened: only the files tell
    installed = {path.relative_to(target): path for path in target.rglob("*") if path.is_file()}
    assert sorted(map(str, installed)) == [f"mqtt_as_tls/{name}" for name in modules()], ran
    for name, path in installed.items():
        assert path.read_bytes() == (ROOT / name).read_bytes(), f"{name} arrived changed"
    check_that_it_works(target, mtls_broker, pki)


def test_the_package_works_from_mpy_files_alone(tmp_path, mtls_broker, pki):
    try:
        freeze.compile_into(tmp_path / "mqtt_as_tls")
    except freeze.Unavailable as reason:
        pytest.skip(f"no .mpy files were tested: {reason}")
    made = sorted(path.name for path in (tmp_path / "mqtt_as_tls").iterdir())
    assert made == modules(".mpy")
    check_that_it_works(tmp_path, mtls_broker, pki)
