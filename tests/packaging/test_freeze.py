"""The package as firmware has it: frozen from a user's manifest, in the memory of a board."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import mpy
from tools import debian, freeze, size
from tools.micropython_source import Source
from tools.mqttls import library
from tools.mqttls.board import INFO

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
READINGS = 8

KB = 1024

# the first test builds two interpreters
pytestmark = pytest.mark.timeout(300)


def had(build, *args):
    """Return what `build` makes, or skip with the reason why it cannot be made here."""
    try:
        return build(*args)
    except freeze.Unavailable as reason:
        pytest.skip(f"nothing frozen was tested: {reason}")


def use(monkeypatch, program, heap=None):
    """Have mpy.run use `program`, an interpreter with the package frozen in."""
    monkeypatch.setenv("MICROPYTHON", str(program))
    monkeypatch.setenv("MQTT_FROZEN", "1")
    if heap:
        monkeypatch.setenv("MICROPYTHON_HEAP", heap)


@pytest.fixture(params=[64, 32], ids=["64 bits", "32 bits"])
def firmware(request, monkeypatch):
    use(monkeypatch, had(freeze.unix, request.param))


# a Pico W has 190 KB of heap; 55 KB is what docs/firmware.md promises
@pytest.fixture(
    params=[(64, None), (32, "190K"), (32, "55K")],
    ids=["64 bits", "32 bits with 190 KB", "32 bits with 55 KB"],
)
def board(request, monkeypatch):
    bits, heap = request.param
    use(monkeypatch, had(freeze.unix, bits), heap)


@pytest.fixture
def pico(monkeypatch):
    """The 32-bit interpreter, which counts memory as a Pico does."""
    use(monkeypatch, had(freeze.unix, 32))


def test_mqttls_sees_that_the_package_is_frozen(firmware):
    said = json.loads(mpy.check(INFO).splitlines()[-1])
    assert said["frozen"] == library.version()


def test_the_frozen_package_has_no_line_numbers(firmware):
    out = mpy.check(
        """
        import sys
        from mqtt_as_tls import router
        try:
            router.topic("a/+")
        except ValueError as error:
            sys.print_exception(error, sys.stdout)
        """
    )
    # opt=3 takes them out, and asserts with them
    assert 'File "mqtt_as_tls/router.py", line 1, in topic' in out


def test_nothing_but_the_frozen_package_is_on_the_path(firmware):
    out = mpy.check("import sys, mqtt_as_tls\nprint(mqtt_as_tls.__path__)\nprint(sys.path)")
    where, path = out.splitlines()
    assert where == ".frozen/mqtt_as_tls"
    assert str(ROOT) not in path


def test_the_frozen_app_loses_nothing_when_the_broker_restarts(board, mtls_broker, pki):
    device = pki.device
    peer = mtls_broker.peer("core/reading", client_id="peer", clean=False)
    arguments = (mtls_broker.port, pki.ca.cert_der, device.cert_der, device.key_der, READINGS)
    with mpy.start(HERE / "core_program.py", *arguments) as app:
        app.wait_for("imported from .frozen/mqtt_as_tls")
        app.wait_for("acknowledged 2")
        peer.publish("core/command", "go on")
        app.wait_for("command go on")
        mtls_broker.restart(down_s=1)
        app.wait_for(f"acknowledged {READINGS - 1}", timeout_s=60)
        peer.wait_for(READINGS)
        peer.publish("core/command", "stop")
        app.wait_for("command stop")
        result = app.wait()
    assert result.code == 0, result.err
    # at least once: the one whose acknowledgement was lost comes again
    assert list(dict.fromkeys(int(payload) for _, payload in peer.received)) == list(
        range(READINGS)
    )


def test_the_frozen_app_refuses_a_broker_of_another_ca(board, mtls_broker, pki):
    device = pki.device
    arguments = (mtls_broker.port, pki.other_ca.cert_der, device.cert_der, device.key_der)
    out = mpy.check(HERE / "wrong_ca_program.py", *arguments, timeout_s=60)
    assert "CertificateError: " in out
    assert "as 'core'" not in mtls_broker.log(), "it got as far as CONNECT"


def test_a_users_manifest_takes_ours_by_include_and_by_require(tmp_path):
    # require() looks for a folder of the package's name, as a clone of the project has
    clone = tmp_path / "libraries" / "mqtt_as_tls"
    shutil.copytree(ROOT / "mqtt_as_tls", clone / "mqtt_as_tls")
    shutil.copy(ROOT / "manifest.py", clone)
    modules = {f"mqtt_as_tls/{path.name}" for path in (ROOT / "mqtt_as_tls").glob("*.py")}
    for text in (
        f'include("{clone}/manifest.py")',
        f'include("{clone}")',
        f"""
metadata(version="7")
add_library("libraries", "{clone.parent}")
require("mqtt_as_tls")
""",
    ):
        manifest = tmp_path / "manifest.py"
        manifest.write_text(text)
        frozen = [name for name, _ in had(Source().files_of, manifest)]
        assert sorted(frozen) == sorted({"ssl.py", *modules}), text


@pytest.mark.parametrize(
    ("apt_get", "reason"),
    [
        (None, "apt-get, which is not here"),
        ('[ "$1" = indextargets ]', "knows no Debian mirror"),
        ('[ "$1" = indextargets ] && echo http://127.0.0.1:9/debian', "could not fetch"),
    ],
    ids=["no apt", "no mirror", "no network"],
)
def test_where_the_sources_cannot_be_had_it_says_so(tmp_path, apt_get, reason):
    if sys.platform != "linux" or not debian.KEYRING.exists():
        pytest.skip("apt's part of freezing is for Debian")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("tools", "mqtt_as_tls"):  # a cache of their own
        shutil.copytree(ROOT / name, tmp_path / name)
    if apt_get:
        (programs / "apt-get").write_text(f"#!/bin/sh\n{apt_get}\n")
        (programs / "apt-get").chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-m", "tools.freeze"],
        cwd=tmp_path,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran
    skipped = [line for line in ran.stdout.splitlines() if ": skipped: " in line]
    assert len(skipped) == 2, ran
    assert all(reason in line for line in skipped), skipped


@pytest.fixture
def working(mtls_broker, pki):
    """The modules that an app imports on a board when all goes well: names without the package."""
    device = pki.device
    arguments = (mtls_broker.port, pki.ca.cert_der, device.cert_der, device.key_der, 1)
    with mpy.start(HERE / "core_program.py", *arguments) as app:
        app.wait_for("acknowledged 0")
        mtls_broker.peer().publish("core/command", "stop")
        line = app.wait_for("^modules ")
    found = {name.split(".")[1] for name in line.split()[1:]}
    # this one has no Wi-Fi; a reserve is there only where the heap has room for one
    return (found | {"wifi", "__init__"}) - {"reserve"}


def test_a_working_app_imports_what_the_budgets_count(working):
    assert working == set(size.WORKING)


def importing(modules):
    """Return the source text that imports `modules` of the package."""
    return "; ".join(f"import mqtt_as_tls.{name}" for name in sorted(modules - {"__init__"}))


def test_the_package_imports_from_source_in_a_heap_of_110_kb(pico, working):
    path = {"MICROPYPATH": f"{ROOT}:.frozen"}
    program = f"{importing(working)}\nprint(mqtt_as_tls.__path__)"
    too_small, enough = 20, 190  # KB
    while enough - too_small > 1:
        heap = (too_small + enough) // 2
        if mpy.run(program, env=path, heap=f"{heap}K").out.strip() == f"{ROOT}/mqtt_as_tls":
            enough = heap
        else:
            too_small = heap
    print(f"from source: {enough} KB")
    assert enough <= 110


def test_the_package_connects_right_after_its_import_from_source(pico, mtls_broker, pki):
    device = pki.device
    peer = mtls_broker.peer("core/reading")
    arguments = (mtls_broker.port, pki.ca.cert_der, device.cert_der, device.key_der, 1)
    path = {"MICROPYPATH": f"{ROOT}:.frozen"}
    with mpy.start(HERE / "core_program.py", *arguments, env=path, heap="190K") as app:
        app.wait_for(f"imported from {ROOT}/mqtt_as_tls")
        peer.wait_for(1)
        peer.publish("core/command", "stop")
        app.wait_for("done")
        assert app.wait().code == 0
