"""
Child processes that never outlive the tests.

Each child leads a process group of its own, so that it can be ended with everything that it
started and so that Ctrl-C on the terminal reaches only pytest. A small reaper process reads a
pipe from us: when we are gone, however that came about, the pipe closes and it kills what is left.
"""

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

_REAPER = """
import os, signal, sys
alive = set()
for line in sys.stdin:
    sign, pid = line[0], int(line[1:])
    alive.add(pid) if sign == "+" else alive.discard(pid)
for pid in alive:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    for name in sys.argv[1:]:
        try:
            os.unlink(name.format(pid))
        except OSError:
            pass
"""

NULL = subprocess.DEVNULL
SIGSTOP, SIGCONT, SIGHUP = signal.SIGSTOP, signal.SIGCONT, signal.SIGHUP

# What libfaketime has for each process, and leaves when that is killed (Linux)
_LEFT = ("/dev/shm/sem.faketime_sem_{}", "/dev/shm/faketime_shm_{}")

_lock = threading.Lock()
_reaper = None
_children = {}


def _tell(sign, pid):
    global _reaper
    if _reaper is None:
        _reaper = subprocess.Popen(
            [sys.executable, "-S", "-c", _REAPER, *_LEFT],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    with contextlib.suppress(BrokenPipeError):
        _reaper.stdin.write(f"{sign}{pid}\n")
        _reaper.stdin.flush()


def spawn(command, **options):
    """
    Start `command` (list of str) in a process group of its own; return the subprocess.Popen.

    options  as for subprocess.Popen
    """
    child = subprocess.Popen(command, start_new_session=True, **options)
    with _lock:
        _children[child.pid] = child
        _tell("+", child.pid)
    return child


def signal_group(child, number):
    """Send the signal `number` to the whole process group of `child`; no error if it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def end(child, grace_s=0):
    """
    End `child`, of spawn(), and all that it started; return its exit status (negative: the
    signal). Nothing happens when that was done: its number may be another's by now.

    grace_s  seconds that it is given after SIGTERM before SIGKILL; 0 kills at once
    """
    if _children.get(child.pid) is not child:
        return child.wait()
    if grace_s and child.poll() is None:
        signal_group(child, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_s)
    signal_group(child, signal.SIGKILL)
    child.wait()
    for name in _LEFT:
        Path(name.format(child.pid)).unlink(missing_ok=True)
    with _lock:
        if _children.pop(child.pid, None):
            _tell("-", child.pid)
    return child.returncode


def end_all():
    """End every child that is still there."""
    for child in list(_children.values()):
        end(child)


atexit.register(end_all)
