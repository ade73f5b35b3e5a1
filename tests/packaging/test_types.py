"""What an editor says of a program that uses the package: nothing, unless there is a mistake."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.support import docs, mpy, patience

pytest.importorskip("mypy", reason="mypy is not installed: ./dev test")

# of MicroPython's, which a type checker for CPython does not know
MICROPYTHONS = re.compile(r'Module has no attribute "(print_exception|sleep_ms)"')

MISTAKES = """\
from mqtt_as_tls import LinkError, MQTTClient, TLS, Will

client = MQTTClient("broker.lan", keepalive=30)
client = MQTTClient("broker.lan", tls=TLS())

@client.on("a/+", qos=1)
async def got(message):
    print(message.topik)

async def main():
    await client.publish("a", 21.5)
    try:
        await client.connect()
    except LinkError as error:
        print(error.code)
    client.publish("a", "not awaited")
"""


@pytest.fixture
def folder(tmp_path):
    """As a wheel installs it, beside the programs of a user."""
    package = tmp_path / "mqtt_as_tls"
    package.mkdir()
    for path in (mpy.ROOT / "mqtt_as_tls").glob("*.pyi"):
        shutil.copy(path, package)
    (package / "py.typed").touch()
    return tmp_path


def errors(folder):
    """Return the errors that mypy finds in the programs of `folder`, lines "file:line: text"."""
    names = sorted(path.name for path in folder.glob("*.py"))
    command = [sys.executable, "-m", "mypy", "--check-untyped-defs", "--ignore-missing-imports"]
    command += ["--cache-dir", str(folder / "cache"), "--no-error-summary", *names]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=patience.stretched(100)
    )
    assert done.returncode in (0, 1), done
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    return [line for line in lines if not MICROPYTHONS.search(line)]


def test_the_program_of_the_readme_and_the_examples_have_no_error(folder):
    for path in (mpy.ROOT / "examples").glob("*.py"):
        shutil.copy(path, folder)
    (folder / "readme.py").write_text(docs.text("app"))
    assert errors(folder) == []


def test_mistakes_are_found(folder):
    (folder / "argument_errors.py").write_text(MISTAKES)
    found = "\n".join(errors(folder))
    for number in (3, 4, 11, 15, 16):
        assert f"argument_errors.py:{number}: " in found
