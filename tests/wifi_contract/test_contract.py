"""
One contract, two sides: the fake `network` module of the tests says and does what the driver of a
Pico W does.

programs/   what is asked of a WLAN, unchanged for both
said/       what the drivers of versions of MicroPython answered, on a virtual Pico W. The fake is
            held against that in every run, the driver where there is a firmware (PICO_W_FIRMWARE)
            of such a version; with WRITE_DOCS=1 in the environment it is written anew then

In every run MicroPython's own `network` module, of the version that the firmware here is built
from, is held against that too, over the driver's stand-in on the virtual Pico's board.
"""

import contextlib
import functools
import itertools
import os
import re
from pathlib import Path

import pytest

from tests.support import mpy
from tests.virtual_pico.pico import Pico
from tests.wifi_contract import actions
from tools import firmware as builder

HERE = Path(__file__).parent
PROGRAMS = sorted((HERE / "programs").glob("*.py"))
VERSIONS = sorted(folder.name for folder in (HERE / "said").iterdir())
_FACTOR = 1.5  # between the times of both,
_CALL_MS = 15  # where a call blocks; and that much
_CHANGE_MS = 500  # where something is noticed: DHCP's timer goes in steps of that

each = pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)


def differences(said, expected):
    """Return what differs (list of str) between two lists of lines of observer.py."""
    found = []
    for ours, theirs in itertools.zip_longest(said, expected, fillvalue="nothing"):
        (what, ms), (other, other_ms) = _parts(ours), _parts(theirs)
        slack = _CHANGE_MS if what.startswith("= is |") else _CALL_MS
        low, high = sorted((ms, other_ms))
        if what != other or high > _FACTOR * low + slack:
            found.append(f"{ours}\n    instead of {theirs}")
    return found


def _parts(line):
    """Return (what was said, its milliseconds)."""
    what, _, ms = line.rpartition(" | ")
    return (what, int(ms)) if what else (line, 0)


def recorded(version, program):
    """Return the Path of what the driver of a version said."""
    return HERE / "said" / version / f"{program.stem}.txt"


@functools.cache
def fake(version):
    """Return what the fake says, {name of the program: lines}."""
    path = mpy.environment()["MICROPYPATH"] + f":{HERE}"
    out = mpy.check(HERE / "run_fake.py", version, *PROGRAMS, env={"MICROPYPATH": path})
    parts = re.split(r"^# .*/(\w+)\.py\n", out, flags=re.M)[1:]
    return dict(zip(parts[::2], map(str.splitlines, parts[1::2]), strict=True))


@each
@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_does_what_the_driver_does(version, program):
    expected = recorded(version, program).read_text().splitlines()
    assert not differences(fake(version)[program.stem], expected)


@contextlib.contextmanager
def running(firmware, folder):
    """(A virtual Pico W that programs of the contract run on, its version of MicroPython)."""
    with Pico(firmware, folder, networks=actions.NETWORKS) as pico:
        pico.put("/scene.py", (HERE / "scene_board.py").read_text())
        pico.put("/observer.py", (HERE / "observer.py").read_text())
        release = pico.run("import os; print(os.uname().release)")
        yield pico, ".".join(release.split(".")[:2])


@pytest.fixture(scope="module")
def board(pico_w_firmware, tmp_path_factory):
    """`running` with the driver."""
    with running(pico_w_firmware, tmp_path_factory.mktemp("pico-w")) as board:
        yield board


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """`running` with the driver's stand-in."""
    with running(builder.plain(), tmp_path_factory.mktemp("pico")) as board:
        yield board


def ask(pico, program):
    """Return what the driver of `pico` says to a program, a list of lines."""
    pico.set_speed(1)
    pico.reset()  # what failed starts took from the driver is back
    actions.restore(pico.wifi)
    pico.start(program.read_text() + "\nprint('that is all')\n")
    said = []
    while (line := pico.wait_for("^[?=] |^that is all$")) != "that is all":
        pico.set_speed(1)
        if line.startswith("? "):
            actions.ACTIONS[line[2:]](pico.wifi)
            pico.type("\n")
        else:
            said.append(line)
            pico.set_speed(20)
    pico.finish()
    return said


@pytest.mark.timeout(300)
@each
def test_the_stand_in_does_what_the_driver_does(stand_in, program):
    pico, version = stand_in
    path = recorded(version, program)
    expected = path.read_text().splitlines() if path.exists() else fake(version)[program.stem]
    assert not differences(ask(pico, program), expected)


@pytest.mark.pico_w
@pytest.mark.timeout(300)
@each
def test_the_driver_does_what_was_recorded(board, program):
    pico, version = board
    said = ask(pico, program)
    path = recorded(version, program)
    expected = path.read_text().splitlines() if path.exists() else []
    if differences(said, expected) and os.environ.get("WRITE_DOCS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(said) + "\n")
    else:
        assert not differences(said, expected)


def test_both_sides_know_the_same_actions():
    fake = re.findall(r'^    "([^"]+)": ', (HERE / "scene_fake.py").read_text(), re.M)
    used = set(re.findall(r'happens\("([^"]+)"\)', "".join(map(Path.read_text, PROGRAMS))))
    assert sorted(fake) == sorted(actions.ACTIONS)
    assert used == set(fake)


def test_what_differs_is_seen():
    assert not differences(["= a | 1 | 100"], ["= a | 1 | 120"])
    assert differences(["= a | 2 | 100"], ["= a | 1 | 100"])
    assert differences(["= a | 1 | 0"], ["= a | 1 | 16"])
    assert differences([], ["= a | 1 | 0"])
    assert differences(["Traceback"], ["= a | 1 | 0"])
