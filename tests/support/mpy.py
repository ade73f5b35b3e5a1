"""
Run programs under the real MicroPython interpreter.

Environment
    MICROPYTHON       the interpreter; else that of .venv, else `micropython` from PATH
    MQTT_FROZEN=1     it has the package frozen in: keep the package's folder out of sys.path
    MICROPYTHON_HEAP  heap of programs that do not ask for one, as -X heapsize takes it
"""

import ast
import atexit
import collections
import contextlib
import functools
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

from . import patience, process

ROOT = Path(__file__).resolve().parents[2]

Result = collections.namedtuple("Result", "out err code")
Result.__doc__ = "What a program wrote (out, err: str) and its exit status (code: int)."


def interpreter():
    """Return the path of the interpreter; raise RuntimeError where there is none."""
    asked = os.environ.get("MICROPYTHON")
    if asked:
        return asked
    beside = Path(sys.executable).parent
    for folder in (ROOT / ".venv/bin", beside):
        if (folder / "micropython").exists():
            return str(folder / "micropython")
    found = shutil.which("micropython")
    if not found:
        raise RuntimeError("no MicroPython found: set MICROPYTHON to the path of an interpreter")
    return found


def frozen():
    """Tell whether the interpreter has the package frozen in."""
    return os.environ.get("MQTT_FROZEN") == "1"


_frozen_root = None


def search_root():
    """
    Return the folder that programs import from: the project, or, when the package is frozen, a
    folder that has only tests/, so that nothing but the frozen package can be imported.
    """
    global _frozen_root
    if not frozen():
        return str(ROOT)
    if _frozen_root is None:
        _frozen_root = tempfile.mkdtemp(prefix="mqtt-frozen-")
        atexit.register(shutil.rmtree, _frozen_root, ignore_errors=True)
        os.symlink(ROOT / "tests", os.path.join(_frozen_root, "tests"))
    return _frozen_root


def command(program, *args, heap=None, by=None):
    """
    Return the command line (list of str) that runs `program` with `args`.

    program  source text, or the path of a file: a Path, or a str that ends in .py
    heap     bytes (int), or a str like "190K" or "48wK"; None is the interpreter's default
    by       path of an interpreter, None for interpreter()
    """
    heap = heap or os.environ.get("MICROPYTHON_HEAP")
    line = [str(by or interpreter())]
    if heap:
        line += ["-X", f"heapsize={heap}"]
    if isinstance(program, Path) or ("\n" not in program and program.endswith(".py")):
        line.append(str(program))
    else:
        line += ["-c", textwrap.dedent(program)]
    return line + [str(arg) for arg in args]


def environment(extra=None):
    """Return os.environ with the module path of programs, and with `extra` (dict) on top."""
    path = [".frozen", search_root()] if frozen() else [search_root(), ".frozen"]
    return {**os.environ, "MICROPYPATH": ":".join(path), **(extra or {})}


class Program:
    """A MicroPython program that runs beside the test. Use it in a `with`: leaving ends it."""

    def __init__(self, program, *args, heap=None, env=None, cwd=None, by=None):
        self.lines = []  # of stdout, as far as they were read
        self.errors = []  # of stderr
        self._news = queue.Queue()
        self._child = process.spawn(
            command(program, *args, heap=heap, by=by),
            env=environment(env),
            cwd=cwd or (search_root() if frozen() else None),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            bufsize=1,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, kept, news), daemon=True)
            for stream, kept, news in (
                (self._child.stdout, self.lines, self._news),
                (self._child.stderr, self.errors, None),
            )
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, kept, news):
        for line in stream:
            kept.append(line.rstrip("\r\n"))
            if news:
                news.put(kept[-1])
        if news:
            news.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def pid(self):
        return self._child.pid

    @property
    def code(self):
        """The exit status, or None while it runs."""
        return self._child.poll()

    def report(self):
        """Return all that it wrote so far, for messages of failed tests."""
        return "\n".join(["--- stdout", *self.lines, "--- stderr", *self.errors, "---"])

    def wait_for(self, pattern, timeout_s=20):
        """
        Return the next line of stdout in which the regular expression `pattern` is found. Lines
        before it are passed over; a later call goes on after it.

        Raises AssertionError, with all output, when it ends or is silent for `timeout_s` seconds,
        stretched.
        """
        limit_s = patience.stretched(timeout_s)
        deadline = time.monotonic() + limit_s
        while True:
            try:
                line = self._news.get(timeout=max(0.001, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"no line with {pattern!r} within {limit_s:g} s\n{self.report()}"
                ) from None
            if line is None:
                self._news.put(None)
                self._readers[1].join(patience.stretched(5))
                try:
                    status = self._child.wait(patience.stretched(5))
                except subprocess.TimeoutExpired:
                    status = None  # it closed its stdout and runs
                raise AssertionError(
                    f"ended ({status}) before a line with {pattern!r}\n{self.report()}"
                )
            if re.search(pattern, line):
                return line

    def followed(self):
        """Yield each line of its stdout, as it comes, until that is closed."""
        while (line := self._news.get()) is not None:
            yield line
        self._news.put(None)

    def ended(self):
        """Return its Result; it has closed its stdout, and is about to end by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(patience.stretched(5))
        return self.kill()

    def send(self, line):
        """Write `line` and a line end to its stdin."""
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def interrupt(self):
        """Press Ctrl-C: KeyboardInterrupt in the program."""
        self._child.send_signal(signal.SIGINT)

    def pause(self):
        """Stop it where it is (SIGSTOP): its sockets stay open and silent."""
        process.signal_group(self._child, signal.SIGSTOP)

    def resume(self):
        """Let it go on after pause()."""
        process.signal_group(self._child, signal.SIGCONT)

    def wait(self, timeout_s=30):
        """
        Return its Result when it has ended by itself.

        Raises AssertionError, with all output, when it is not over after `timeout_s` seconds,
        stretched.
        """
        limit_s = patience.stretched(timeout_s)
        try:
            self._child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {limit_s:g} s\n{self.report()}") from None
        return self._result()

    def kill(self):
        """End it at once if it still runs; return its Result."""
        process.end(self._child)
        return self._result()

    def _result(self):
        process.end(self._child)  # also what it left behind in its group
        for reader in self._readers:
            reader.join(patience.stretched(5))
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            stream.close()
        out, err = ("".join(line + "\n" for line in kept) for kept in (self.lines, self.errors))
        return Result(out, err, self._child.returncode)


def start(program, *args, heap=None, env=None, cwd=None, by=None):
    """Start a program (see `command`) and return a Program to follow it."""
    return Program(program, *args, heap=heap, env=env, cwd=cwd, by=by)


def run(program, *args, timeout_s=30, heap=None, env=None, cwd=None):
    """
    Run a program (see `command`) to its end and return its Result, whatever its exit status.

    Raises AssertionError, with all output, when it is not over after `timeout_s` seconds.
    """
    with start(program, *args, heap=heap, env=env, cwd=cwd) as running:
        return running.wait(timeout_s)


def check(program, *args, **options):
    """Do as `run` does, but raise AssertionError with all output unless it exits with 0."""
    result = run(program, *args, **options)
    assert result.code == 0, f"exit status {result.code}\n{result.out}\n{result.err}"
    return result.out


class Tests:
    """
    Tests that are functions of a program, which calls them when it is run, as run_tests() of
    tests/unit/checks.py does.

    names  list of str
    """

    def __init__(self, program, **options):
        tree = ast.parse(program.read_text())
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        named = [node.name for node in tree.body if isinstance(node, functions)]
        self.names = [name for name in named if name.startswith("test_")]
        self._program = program
        self._options = options

    @functools.cached_property
    def outcomes(self):
        """What became of them, a dict: "ok", or the failure."""
        found = {}
        for line in check(self._program, **self._options).splitlines():
            word, _, name = line.partition(" ")
            if word in ("ok", "FAILED"):
                found[name] = word
                last = name
            else:
                found[last] += "\n" + line
        return found

    def passes(self, name):
        """Raise AssertionError, with what it wrote, unless this one passed."""
        outcome = self.outcomes.get(name, "it did not run")
        assert outcome == "ok", outcome
