"""The PC's MicroPython, if there is one."""

import functools
import os
import shutil
import sys
from pathlib import Path

from . import system


@functools.lru_cache(None)
def interpreter():
    """
    Return the path of a MicroPython, or None: $MICROPYTHON, beside this Python, or in PATH.

    On Windows the first only: the MicroPython that is built for it has no sockets.
    """
    asked = os.environ.get("MICROPYTHON")
    if asked is not None or system.is_windows():
        return shutil.which(asked) if asked else None
    beside = Path(sys.executable).parent / "micropython"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("micropython")
