"""
How many words of variables each function of the package needs when it is called:

    .venv/bin/python -m tools.frames

A frame of more than MOST words MicroPython takes from its heap, at each call, and gives it back.
That is slow by itself. Worse, one that fits a hole between other things is taken out of that hole
again and again, and every search for a larger piece begins there. Coroutines and generators have
theirs made once.
"""

import ast
import subprocess
import tempfile
from pathlib import Path

from tools import freeze
from tools.micropython_source import Source

MOST = 11  # VM_MAX_STATE_ON_STACK of py/objfun.c
_TRY = 3  # words of each `try` in another, of which `except ... as` has one more
_SCOPES = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
)


class _Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def number(self):
        n = 0
        while True:
            byte = self.byte()
            n = n << 7 | byte & 127
            if byte < 128:
                return n

    def skip_object(self):
        kind = self.byte()
        if kind <= 4:  # the table of functions, None, False, True, ...
            return
        length = self.number()
        if kind == 10:  # tuple
            for _ in range(length):
                self.skip_object()
        else:
            self.at += length + (kind in (5, 6))  # str and bytes end in 0

    def code(self):
        """Return (words, whether it is a generator, [the same of each code in it])."""
        length = self.number()
        start = self.at
        words, generator = self.frame()
        self.at = start + (length >> 3)
        inner = [self.code() for _ in range(self.number())] if length & 4 else []
        return words, generator, inner

    def frame(self):
        byte = self.byte()
        state = byte >> 3 & 15
        tries = byte >> 2 & 1
        flags = n = 0
        while byte & 128:
            byte = self.byte()
            state |= (byte & 0x30) << 2 * n
            tries |= (byte & 2) << n
            flags |= (byte >> 6 & 1) << n
            n += 1
        return state + 1 + _TRY * tries, bool(flags & 1)


def _scopes(node):
    # the scopes right inside of `node`, in the order of the source
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SCOPES):
            yield child
        else:
            yield from _scopes(child)


def _named(code, node, name):
    found = {}
    for inner, child in zip(code[2], _scopes(node), strict=True):
        own = f"{name}.{getattr(child, 'name', '<>')}"
        if not isinstance(child, ast.ClassDef) and not inner[1]:
            found[own] = inner[0]
        found.update(_named(inner, child, own))
    return found


def frames(path):
    """
    Return {"module.Class.function": words} of the functions of a .py file (Path), without
    generators. Raises freeze.Unavailable.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.mpy")
        subprocess.check_call([Source().mpy_cross(), "-O3", "-march=armv6m", "-o", out, path])
        reader = _Reader(out.read_bytes())
    reader.at = 4
    strings, objects = reader.number(), reader.number()
    for _ in range(strings):
        length = reader.number()
        if not length & 1:
            reader.at += (length >> 1) + 1
    for _ in range(objects):
        reader.skip_object()
    return _named(reader.code(), ast.parse(path.read_text()), path.stem)


def main():
    for path in sorted((freeze.ROOT / "mqtt_as_tls").glob("*.py")):
        for name, words in frames(path).items():
            print(f"{words:3} {'from the heap' if words > MOST else '':14}{name}")


if __name__ == "__main__":
    main()
