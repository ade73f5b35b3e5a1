"""`./dev demo`, as a stranger runs it: to its end, interrupted, and where something is missing."""

import contextlib
import functools
import importlib.util
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import mpy, process
from tests.support.broker import mosquitto
from tests.support.mpy import ROOT

DEMO = [sys.executable, "-m", "tools.demo"]
without_iotcore = pytest.mark.skipif(
    importlib.util.find_spec("iotcore") is None,
    reason="iotcore has no wheel for this Python or platform",
)


class Demo:
    """A demo that runs, with `folder` for its temporary files. What it printed is in `out`."""

    def __init__(self, folder, *arguments, env=None, terminal=False):
        self.folder = folder
        self.out = ""
        read, write = pty.openpty() if terminal else os.pipe()
        self._read = read
        self._child = process.spawn(
            [*DEMO, *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), **(env or {})},
            stdin=process.NULL,
            stdout=write,
            stderr=write,
            # under nohup it would be ignored, there too
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        os.close(write)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        process.end(self._child, grace_s=10)

    def read(self, until=None):
        """Return `out` when it has `until`, or when it has ended."""
        while until is None or until not in self.out:
            data = b""
            with contextlib.suppress(OSError):  # so does Linux end a terminal
                data = os.read(self._read, 4096)
            if not data:
                assert until is None, f"it ended without {until!r}:\n{self.out}"
                break
            self.out += data.decode(errors="replace")
        return self.out

    def send(self, number):
        self._child.send_signal(number)

    def stop_reading(self):
        os.close(self._read)

    def wait(self):
        return self._child.wait(60)

    def summary(self):
        """Return the summary as a dict: name -> the first word of its value."""
        return dict(re.findall(r"^  (\w[\w ]{1,13}\w) {2,}(\S+)", self.out, re.MULTILINE))

    def left_behind(self):
        """Return what has or is in its folder (list of str): processes by arguments, and files."""
        if Path("/proc/self/cmdline").exists():
            commands = []
            for each in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    commands.append(each.read_bytes().replace(b"\0", b" ").decode())
        else:
            ps = ["ps", "-A", "-ww", "-o", "command="]
            commands = subprocess.run(ps, stdout=subprocess.PIPE, text=True).stdout.split("\n")
        return [each for each in commands if str(self.folder) in each] + os.listdir(self.folder)


def lossy_interpreter(folder):
    """Return the path of a `micropython` with which the device app forgets its seventh reading."""
    app = (ROOT / "tools/demo/device.py").read_text()
    publish = '    await client.publish("devices/greenhouse/temperature"'
    assert app.count(publish) == 1
    lossy = folder / "device.py"
    lossy.write_text(app.replace(publish, f"    if n != 7:\n    {publish}"))
    real = shlex.quote(mpy.interpreter())
    path = folder / "micropython"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {real} "$@"\n'
        f'exec {real} "$1" "$2" {shlex.quote(str(lossy))} "$4" "$5" "$6"\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Run at the same time: with mosquitto, with the broker from PyPI, with a reading lost."""
    mosquitto()
    new_folder = functools.partial(tmp_path_factory.mktemp, "demo")
    lossy = {"MICROPYTHON": lossy_interpreter(new_folder())}
    with contextlib.ExitStack() as stack:
        all_ = {
            "mosquitto": Demo(new_folder()),
            "embedded": Demo(new_folder(), "--embedded"),
            "lossy": Demo(new_folder(), env=lossy),
        }
        for demo in all_.values():
            stack.enter_context(demo)
        for demo in all_.values():
            demo.read()
        yield all_


def check_that_all_went_well(demo):
    assert demo.wait() == 0, demo.out
    assert demo.left_behind() == []
    summary = demo.summary()
    assert int(summary["published"]) > 50, demo.out
    assert summary["acknowledged"] == summary["received"] == summary["published"], demo.out
    assert summary["lost"] == "0"
    assert summary["commands"] == "2"
    assert summary["wrong CA"] == "refused"
    assert demo.out.count("connected in") == 3, demo.out  # at first, and after either outage
    assert demo.out.count("connection lost") == 2, demo.out
    assert "not from the CA" in demo.out  # in words, not only as a number
    assert "\x1b" not in demo.out and "\r" not in demo.out  # it is no terminal


def test_the_demo_loses_nothing_while_its_link_breaks_and_its_broker_stops(demos):
    check_that_all_went_well(demos["mosquitto"])
    assert "demands a client certificate" in demos["mosquitto"].out


@without_iotcore
def test_the_demo_does_without_mosquitto(demos):
    check_that_all_went_well(demos["embedded"])
    assert "asks for no client certificate" in demos["embedded"].out


def test_a_lost_reading_fails_the_demo(demos):
    demo = demos["lossy"]
    assert demo.wait() == 1, demo.out
    summary = demo.summary()
    assert summary["lost"] == "1", demo.out
    assert summary["acknowledged"] == summary["published"]
    assert int(summary["received"]) == int(summary["published"]) - 1
    assert "Nothing was lost" not in demo.out


@pytest.mark.parametrize(
    "number, phase",
    [
        (signal.SIGINT, "under MicroPython"),
        (signal.SIGINT, "demands a client certificate"),
        (signal.SIGINT, "publishes a reading"),
        (signal.SIGTERM, "link cut"),
        (signal.SIGHUP, "stops for"),
    ],
)
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path, number, phase):
    mosquitto()
    with Demo(tmp_path) as demo:
        demo.read(until=phase)
        demo.send(number)
        demo.send(number)  # impatient
        demo.read()
        assert demo.wait() == 128 + number, demo.out
        assert demo.left_behind() == []
    assert "interrupted" in demo.out
    assert "Traceback" not in demo.out


def test_a_demo_that_nobody_reads_leaves_nothing_behind(tmp_path):
    with Demo(tmp_path) as demo:
        demo.read(until="publishes a reading")
        demo.stop_reading()
        assert demo.wait() == 128 + signal.SIGPIPE
        assert demo.left_behind() == []


@pytest.mark.parametrize("colours", [True, False])
def test_a_terminal_shows_the_numbers_live(tmp_path, colours):
    env = {"TERM": "xterm", "NO_COLOR": "" if colours else "1"}
    with Demo(tmp_path, env=env, terminal=True) as demo:
        demo.read(until="waiting 0")
        demo.read(until="greenhouse/valve/is open")
        demo.send(signal.SIGINT)
        demo.read()
    assert "\r\x1b[K" in demo.out
    assert ("\x1b[36m" in demo.out) is colours


def test_an_app_that_ends_is_told_with_its_last_words(tmp_path):
    interpreter = tmp_path / "micropython"
    interpreter.write_text('#!/bin/sh\n[ "$1" = -c ] && echo 1.25.0 64 || echo "no such thing"\n')
    interpreter.chmod(0o755)
    folder = tmp_path / "tmp"
    folder.mkdir()
    with Demo(folder, env={"MICROPYTHON": str(interpreter)}) as demo:
        demo.read()
        assert demo.wait() == 1
        assert "./dev demo: the device app ended: no such thing" in demo.out
        assert demo.left_behind() == []


@pytest.mark.parametrize(
    "interpreter, sentence",
    [
        ("/nowhere/micropython", "cannot run /nowhere/micropython: No such file"),
        (sys.executable, "is no MicroPython with asyncio and TLS"),
    ],
)
def test_an_interpreter_that_will_not_do_is_told_in_a_sentence(tmp_path, interpreter, sentence):
    with Demo(tmp_path, env={"MICROPYTHON": interpreter}) as demo:
        demo.read()
        assert demo.wait() == 1
    assert sentence in demo.out
    assert "Traceback" not in demo.out


def test_a_broker_that_does_not_start_is_told_with_its_own_words(tmp_path):
    broker = tmp_path / "mosquitto"
    broker.write_text('#!/bin/sh\necho "1700000000: Error: Unable to load it."\nexit 1\n')
    broker.chmod(0o755)
    folder = tmp_path / "tmp"
    folder.mkdir()
    with Demo(folder, env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}) as demo:
        demo.read()
        assert demo.wait() == 1
    assert "mosquitto does not start: Error: Unable to load it." in demo.out
    assert "Traceback" not in demo.out
