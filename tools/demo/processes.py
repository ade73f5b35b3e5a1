"""Processes that end with the demo, ports that are free, and what to say when it cannot go on."""

import asyncio
import contextlib
import os
import signal
import subprocess

from tools import ports

HOST = "localhost"
ADDRESS = ports.ADDRESS


class Trouble(Exception):
    """The demo cannot go on: the fact, then the remedy."""


class Children:
    """Processes that end with the demo. Each leads a group, which Ctrl-C does not reach."""

    def __init__(self):
        self._all = []

    def start(self, command, **options):
        """Start `command`; return the subprocess.Popen. Raises Trouble."""
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, start_new_session=True, **options
            )
        except OSError as error:
            raise Trouble(f"cannot run {command[0]}: {error.strerror}: check its path") from None
        self._all.append(child)
        return child

    async def ask(self, command, patience_s=10):
        """Return what `command` says and its exit status. Raises Trouble."""
        child = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(patience_s * 50):
            if child.poll() is not None:
                break
            await asyncio.sleep(0.02)
        else:
            raise Trouble(f"{' '.join(command)} has not ended after {patience_s} s: try another")
        return child.stdout.read().decode(errors="replace").strip(), child.returncode

    def end(self, child):
        """Kill `child` and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child in self._all:
            self._all.remove(child)

    def end_all(self):
        for child in list(self._all):
            self.end(child)


def free_port():
    """Return a TCP port that is ours until the end, as ports.free_port does. Raises Trouble."""
    try:
        return ports.free_port()
    except OSError as error:
        raise Trouble(error.strerror) from None
