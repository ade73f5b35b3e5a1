"""
Who is measured: mqtt_as_tls, a bare socket, and the MicroPython clients that lie on PyPI.

`install()` has the latter in .cache/peers, in the versions of requirements/peers.txt. One that
cannot be had stays in every table, with the reason.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import namedtuple
from pathlib import Path

from tests.support import mpy

ROOT = mpy.ROOT
PEERS = ROOT / ".cache" / "peers"
REQUIREMENTS = ROOT / "requirements" / "peers.txt"
_DONE = PEERS / "unpacked.json"

Contestant = namedtuple("Contestant", "name module packages fakes")
Contestant.__doc__ = """
name      of its column
module    the program that uses it, a module for MicroPython
packages  what it needs of requirements/peers.txt
fakes     it wants a board's `network` or `machine`: those of tests/fakes
"""

OURS, BARE = "mqtt_as_tls", "bare socket"
CHUMICRO = [f"chumicro-{part}" for part in ("mqtt", "config", "runner", "sockets", "timing")]
ALL = (
    Contestant(OURS, "benchmarks.client", (), False),
    Contestant(BARE, "benchmarks.bare", (), False),
    Contestant("umqtt.simple", "benchmarks.peers.simple", ("micropython-umqtt.simple",), False),
    Contestant("umqtt.simple2", "benchmarks.peers.simple2", ("micropython-umqtt.simple2",), False),
    Contestant("mqtt_async", "benchmarks.peers.mqtt_async", ("micropython-mqtt",), True),
    Contestant("aiomqttc", "benchmarks.peers.aiomqttc", ("aiomqttc",), True),
    Contestant("chumicro-mqtt", "benchmarks.peers.chumicro", CHUMICRO, False),
)


def start(contestant, *arguments):
    """Start the program of `contestant`; return a mpy.Program."""
    path = [ROOT, PEERS, *([ROOT / "tests" / "fakes"] if contestant.fakes else []), ".frozen"]
    program = f"import {contestant.module}\n"
    return mpy.start(program, *arguments, env={"MICROPYPATH": ":".join(map(str, path))})


def pinned():
    """Return {package: the line that pins it}."""
    lines = REQUIREMENTS.read_text().splitlines()
    return {line.partition("==")[0]: line for line in lines if not line.startswith("#")}


def versions():
    """Return {contestant: version} of the peers."""
    lines = pinned()
    found = {each.name: lines[each.packages[0]] for each in ALL if each.packages}
    return {name: line.split()[0].partition("==")[2] for name, line in found.items()}


def install(download=True):
    """
    Have the peers in .cache/peers; return {contestant: why it is not there} of the others.

    download  False: take what is there already
    """
    failed = {}
    for package, line in pinned().items():
        done = json.loads(_DONE.read_text()) if _DONE.exists() else []
        if line in done:
            continue
        if not download:
            failed[package] = "not downloaded: run ./dev bench once"
            continue
        print(f"fetching {line.split()[0]}", file=sys.stderr, flush=True)
        failed[package] = _fetch(package, line)
        if not failed[package]:
            del failed[package]
            _DONE.write_text(json.dumps([*done, line]))
    missing = {}
    for each in ALL:
        for package in each.packages:
            if package in failed:
                missing[each.name] = f"{package} {failed[package]}"
    return missing


def _fetch(package, line):
    """
    Unpack what `line` pins into .cache/peers; return "", or why that failed.

    Packages for MicroPython's former installer have no setup.py. pip fetches such a one, checks
    its hash, unpacks it and then refuses it; with --no-clean the files stay.
    """
    PEERS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PEERS) as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(line + "\n")
        asked = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"),
                *("--no-clean", "--no-build-isolation", "--ignore-requires-python"),
                *("--require-hashes", "--disable-pip-version-check"),
                *("--dest", folder, "--requirement", str(wanted)),
            ],
            env={**os.environ, "TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for wheel in Path(folder).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(PEERS)
            return ""
        for unpacked in Path(folder).glob(f"pip-download-*/{package.replace('.', '-')}_*"):
            shutil.copytree(unpacked, PEERS, dirs_exist_ok=True)
            return ""
    errors = [each for each in asked.stdout.splitlines() if each.startswith("ERROR: ")]
    return "could not be fetched: " + (errors or ["ERROR: pip says nothing"])[0][7:]
