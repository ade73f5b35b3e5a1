"""
The device package `mqtt_as_tls`, as this tool ships it, and its table of errors.

Installed, the package's files lie in this folder; in the repository they are its own mqtt_as_tls/.
"""

import functools
import importlib.util
import re
from pathlib import Path

from . import bytecode

NAME = "mqtt_as_tls"


@functools.lru_cache(None)
def folder():
    """Return the Path of the device package; raise FileNotFoundError where it is missing."""
    for place in (_shipped(), Path(__file__).resolve().parents[3] / NAME):
        if (place / "__init__.py").exists():
            return place
    raise FileNotFoundError(f"{NAME} is not beside mqttls: install mqttls again")


@functools.lru_cache(None)
def files(form):
    """
    Return {name below the board's /lib: content (bytes)} of what goes onto a board.

    form  ".py", or ".mpy": bytecode, which needs less of a board's memory; it came with this tool,
          or is compiled now

    Raises bytecode.Unavailable for ".mpy" where neither can be had.
    """
    if form == bytecode.SUFFIX and not list(_shipped().glob("*" + form)):
        found = bytecode.compiled(folder())
    else:
        place = folder() if form == ".py" else _shipped()
        found = {path.name: path.read_bytes() for path in sorted(place.glob("*" + form))}
    return {f"{NAME}/{name}": data for name, data in found.items()}


def _shipped():
    """Return the Path of the package in an installed mqttls: .mpy files elsewhere may be old."""
    return Path(__file__).resolve().parent / NAME


def version():
    """Return the version of the device package, "1.2.3"."""
    text = (folder() / "__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "(.*)"', text, re.M)[1]


@functools.lru_cache(None)
def table():
    """Return the device's own module `explain`: its ROWS, and explain(error, year=None)."""
    spec = importlib.util.spec_from_file_location(f"{NAME}.explain", folder() / "explain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explain(error, year=None, state=None):
    """
    Return (cause, cure) of an error, each "" where the table does not know it.

    error  an exception, or what a console shows of one, such as "OSError(-30592, …)"
    year   what the board's clock says, where that is known
    state  in which a connection ended, such as "CONNECT" (str), where that is known
    """
    return table().explain(error, year=year, state=state)
