"""
A board on a serial port, for mpremote: MicroPython's unix port between two bridged ptys.

Its flash is a file of the PC with littlefs on it, as large as a Pico W's; `machine` and `network`
come from tests/fakes; nothing else of the PC's files is in its reach.
"""

import contextlib
import os
import pty
import re
import select
import signal
import threading
import time
import tty
from pathlib import Path

from tests.support import mpy, patience, process

_BLOCK = 4096
_BLOCKS = 212  # 848 KB

_FORMATS = {
    "littlefs": ("vfs.VfsLfs2(flash, progsize=256)", "vfs.VfsLfs2.mkfs(flash, progsize=256)"),
    "FAT": ("vfs.VfsFat(flash)", "vfs.VfsFat.mkfs(flash)"),
}

# Runs before the prompt: the fakes first, because afterwards the PC's files are out of reach.
_BOOT = """\
import os, sys, vfs
sys.path.insert(0, {fakes!r})
for name in {modules!r}: __import__(name)
sys.path[:] = ["", ".frozen", "/lib"]

class Flash:
    def __init__(self, path):
        self.file = open(path, "r+b")
    def readblocks(self, block, buf, offset=0):
        self.file.seek(block * {block} + offset)
        self.file.readinto(buf)
    def writeblocks(self, block, buf, offset=0):
        self.file.seek(block * {block} + offset)
        self.file.write(buf)
    def ioctl(self, operation, argument):
        if operation == 4:
            return {blocks}
        if operation == 5:
            return {block}
        return 0

flash = Flash({path!r})
try:
    fs = {make}
    fs.statvfs("/")
except OSError:
    {format}
    fs = {make}
os.chdir("/")
vfs.umount("/")
vfs.mount(fs, "/")
os.chdir("/")
del name, os, sys, vfs, flash, fs, Flash
"""


class PtyBoard:
    """
    A board that is plugged in from construction to `close`. Use it in a `with`.

    flash     Path of the file that is its flash; made where there is none
    fakes     modules of tests/fakes that it has; without "machine" it has no clock to set
    wifi      (name, password) of the network in its reach
    heap      as mpy.run takes it
    files     its file system: "littlefs" or "FAT"

    `port` is the path of its serial port, `passed` counts the bytes that came from the PC.
    """

    def __init__(
        self, flash, *, fakes=("machine", "network"), wifi=None, heap=None, files="littlefs"
    ):
        self.passed = 0
        self._pull_at = self._hold_at = None
        self._held, self._go = threading.Event(), threading.Event()
        if not flash.exists():
            flash.write_bytes(bytes(_BLOCK * _BLOCKS))
        ours, theirs = pty.openpty()  # the board's stdin and stdout
        self._host, far = pty.openpty()  # what mpremote opens
        self._board = ours
        for fd in (theirs, far):
            tty.setraw(fd)
        self.port = os.ttyname(far)
        # kept open until `close`: the port is there while nobody has it open, and its name is not
        # given to another one once this is unplugged
        self._far = far
        boot = _BOOT.format(
            fakes=str(mpy.ROOT / "tests/fakes"),
            modules=[*fakes],
            path=str(flash),
            block=_BLOCK,
            blocks=_BLOCKS,
            make=_FORMATS[files][0],
            format=_FORMATS[files][1],
        )
        self._line = mpy.command(boot, heap=heap)
        self._line.insert(1, "-i")
        self._env = {
            **os.environ,
            "MICROPYPATH": ".frozen",
            "FAKE_WIFI": ":".join(wifi or ()),
            "HOME": str(flash.parent),  # of what was typed at its prompt it writes a history there
        }
        self._theirs = theirs
        self._power_on()
        self._stop, self._stopped = os.pipe()
        self._wait_for_prompt()
        self._bridge = threading.Thread(target=self._carry, daemon=True)
        self._bridge.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _power_on(self):
        self._child = process.spawn(
            self._line, env=self._env, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs
        )

    def _soft_reset(self):
        # The unix port ends where a board begins anew; that one stays in the raw REPL.
        process.end(self._child)
        os.write(self._host, b"OK\r\nMPY: soft reboot\r\n")
        self._power_on()
        self._wait_for_prompt()
        os.write(self._board, b"\x01")

    def _wait_for_prompt(self, timeout_s=20):
        seen = b""
        deadline = time.monotonic() + patience.stretched(timeout_s)
        # what came while it was off may have asked for the raw REPL
        while not seen.endswith((b">>> ", b"CTRL-B to exit\r\n>")):
            ready, _, _ = select.select([self._board], [], [], deadline - time.monotonic())
            assert ready, f"the board does not come up: {seen!r}"
            seen += os.read(self._board, 4096)

    def _carry(self):
        with contextlib.suppress(OSError):
            while True:
                ready, _, _ = select.select([self._host, self._board, self._stop], [], [], 0.2)
                if self._stop in ready:
                    break
                if self._host in ready:
                    data = os.read(self._host, 4096)
                    self.passed += len(data)
                    if self._pull_at is not None and self.passed >= self._pull_at:
                        break
                    if self._hold_at is not None and self.passed >= self._hold_at:
                        self._hold_at = None
                        self._held.set()
                        self._go.wait()
                    if b"\x03" in data and self._runs_a_program():
                        os.kill(self._child.pid, signal.SIGINT)  # as a board's serial driver does
                        data = data.replace(b"\x03", b"")
                    os.write(self._board, data)
                if self._board not in ready and self._child.poll() is not None:
                    self._soft_reset()
                elif self._board in ready:
                    os.write(self._host, os.read(self._board, 4096))
        self._unplug()

    def _runs_a_program(self):
        # The unix port catches SIGINT while it does, and at its prompt would die of it.
        try:
            status = Path(f"/proc/{self._child.pid}/status").read_text()
        except OSError:  # not Linux: its programs cannot be interrupted
            return False
        caught = int(re.search(r"^SigCgt:\s*(\S+)", status, re.M)[1], 16)
        return bool(caught & 1 << signal.SIGINT - 1)

    def _unplug(self):
        process.end(self._child)
        for fd in (self._host, self._board, self._theirs):
            with contextlib.suppress(OSError):
                os.close(fd)

    def unplug_after(self, count):
        """Pull the plug when `count` more bytes have come from the PC: the port is gone then."""
        self._pull_at = self.passed + count

    def hold_after(self, count):
        """Pass nothing more from when `count` bytes more have come from the PC, until `go_on`."""
        self._hold_at = self.passed + count

    def wait_until_held(self, timeout_s=60):
        """Return when `hold_after` has come true; else AssertionError."""
        assert self._held.wait(patience.stretched(timeout_s)), f"{self.passed} bytes came"

    def go_on(self):
        """Pass on what was held."""
        self._go.set()

    def signal(self, number):
        """Send it a signal: SIGSTOP makes a board that hangs, SIGCONT ends that."""
        process.signal_group(self._child, number)

    def interrupt(self):
        """Press Ctrl-C, if a program runs; one may be lost that comes while it writes."""
        if self._runs_a_program():
            self.signal(signal.SIGINT)

    @property
    def plugged(self):
        """Whether it still is there."""
        return self._bridge.is_alive()

    def close(self):
        self.go_on()
        with contextlib.suppress(OSError):
            os.close(self._stopped)
        self._bridge.join(patience.stretched(10))
        with contextlib.suppress(OSError):
            os.close(self._far)
        with contextlib.suppress(OSError):
            os.close(self._stop)
