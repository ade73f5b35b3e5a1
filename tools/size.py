"""
Write what the package takes into docs/size.md, and hold it against the budgets:

    .venv/bin/python -m tools.size            write the modules anew
    .venv/bin/python -m tools.size --check    only compare: CI does that
    .venv/bin/python -m tools.size --heaps heaps.json
                                              the smallest heaps too, from a run of
                                              python -m benchmarks.starvation --json heaps.json

The exit status is 1 when a budget is passed or, with --check, when the page is out of date. The
cross compiler and the 32-bit interpreter are those of `./dev freeze`.
"""

import argparse
import ast
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tools import freeze, modules

PAGE = freeze.ROOT / "docs/size.md"
PACKAGE = freeze.ROOT / "mqtt_as_tls"

# Bytes. A budget is what was reached, with up to 2 % to spare, where the design's was not:
# docs/design.md, "Where building changed the plan". Smaller is welcome: lower the budget then.
BUDGETS = {
    "mpy": 29_950,  # of what a working app imports and keeps: options, clock, dns are unloaded
    "mpy of all": 129_850,
    "mpy of home_assistant": 2_560,
    "frozen": 9_400,  # heap to import what a working app imports
    "imported": 33_500,  # the same from .mpy files
}

# What an app with MQTT 3.1.1 imports when all goes well; {module: when it is loaded} of the others
WORKING = modules.always()
LATER = modules.later()
SUMS = {
    "**a working app**": WORKING,
    "+ telling why it failed": ("retry", "texts", "explain"),
    "+ MQTT 5": ("mqtt5", "packet5", "properties", "reasons"),
    "+ the store": ("store", "store_session"),
    "+ payloads larger than memory, both ways": ("stream_in", "stream_out"),
    "**everything**": (*WORKING, *LATER),
}

# a program that imports what the modules import of the firmware's own, which is not theirs
FIRMWARE = """\
import asyncio, binascii, gc, random, select, socket, struct, sys, time
asyncio.open_connection, asyncio.Lock, asyncio.Event, asyncio.gather, asyncio.wait_for"""

FORMS = ("frozen", ".mpy", ".py")
LISTENERS = {"tcp": "TCP", "tls": "TLS", "mtls": "mutual TLS"}
EXTRAS = {
    "plain": "",
    "store": ", with a store",
    "streams": ", 20 KB as streams both ways",
    "sensor": ", `examples/sensor.py` with Wi-Fi",
}

_NUMBER = re.compile(r"\d[\d,]*")


class Size:
    """
    What a module takes, in bytes.

    mpy       its .mpy file
    frozen    heap, once it is imported from flash
    imported  heap, once it is imported from the .mpy file
    """

    def __init__(self, mpy, frozen, imported):
        self.mpy = mpy
        self.frozen = frozen
        self.imported = imported


def in_order():
    """
    Return the names of all modules, each after those that it imports at its top, and those of a
    working app before the others: tables that grow with the number of modules do so for these.
    """
    imports = {}
    for path in PACKAGE.glob("*.py"):
        found = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                found |= {node.module} if node.module else {each.name for each in node.names}
        found -= {"__version__", "load", "unload"}
        imports[path.stem] = found
    ordered = []
    while len(ordered) < len(imports):
        ready = [n for n in imports if n not in ordered and imports[n] <= set(ordered)]
        ordered.append(min(ready, key=lambda name: (name not in WORKING, name)))
    return ordered


def heap_of(modules, path, folder=None):
    """
    Import `modules`, in this order, from `path` (str) under the 32-bit interpreter. Names of files
    are in memory: let it be as short as a board's.

    folder  Path in which it is looked for, None where that does not matter

    Return {name: bytes of heap that each takes}. What else they load, of asyncio for instance, is
    there before. Raises freeze.Unavailable.
    """
    names = ["", *(f".{name}" for name in modules if name != "__init__")]
    # statements, as a name that is put together would take memory
    steps = "".join(f"import mqtt_as_tls{name}\nnote()\n" for name in names)
    program = f"""
{FIRMWARE}
sys.path[:] = ["{path}", ".frozen"]
seen = [0] * {len(names) + 1}
count = 0
def note():
    global count
    gc.collect()
    seen[count] = gc.mem_alloc()
    count += 1
note()
{steps}
print(*seen)
"""
    out = subprocess.check_output([freeze.unix(32), "-c", program], text=True, cwd=folder)
    seen = [int(each) for each in out.split()]
    taken = [after - before for before, after in itertools.pairwise(seen)]
    return dict(zip(["__init__", *(name[1:] for name in names[1:])], taken, strict=True))


def measure():
    """Return {module: Size}. Raises freeze.Unavailable."""
    modules = in_order()
    with tempfile.TemporaryDirectory(prefix="mqtt-size-") as folder:
        mpy = freeze.compile_into(Path(folder, "lib", PACKAGE.name))
        frozen, imported = heap_of(modules, ".frozen"), heap_of(modules, "lib", folder)
    return {name: Size(mpy[name], frozen[name], imported[name]) for name in modules}


def total(sizes, modules):
    """Return the Size of `modules` together."""
    columns = ("mpy", "frozen", "imported")
    return Size(*(sum(getattr(sizes[name], each) for name in modules) for each in columns))


def passed(sizes):
    """Return a list of str, one for each budget that is passed."""
    of_app = total(sizes, WORKING)
    reached = {
        "mpy of all": total(sizes, sizes).mpy,
        "mpy of home_assistant": sizes["home_assistant"].mpy,
    }
    reached |= {name: getattr(of_app, name) for name in BUDGETS if name not in reached}
    return [
        f"{name}: {reached[name]:,} B, budget {budget:,} B"
        for name, budget in BUDGETS.items()
        if reached[name] > budget
    ]


def modules_text(sizes):
    """Return what the page says of the modules, as Markdown."""

    def row(*cells):
        return f"| {' | '.join(cells)} |"

    def of(size):
        return (f"{size.mpy:,}", f"{size.frozen:,}", f"{size.imported:,}")

    columns = ("`.mpy` B", "RAM frozen B", "RAM from `.mpy` B")
    lines = [row("together", *columns), "|---|---:|---:|---:|"]
    lines += [row(what, *of(total(sizes, modules))) for what, modules in SUMS.items()]
    lines += ["", row("what every app imports", *columns), "|---|---:|---:|---:|"]
    ordered = sorted(WORKING, key=lambda name: -sizes[name].mpy)
    lines += [row(f"`{name}`", *of(sizes[name])) for name in ordered]
    lines += ["", row("loaded when used", "when", *columns), "|---|---|---:|---:|---:|"]
    lines += [row(f"`{name}`", when, *of(sizes[name])) for name, when in LATER.items()]
    return "\n".join([*lines, ""])


def heaps_text(results):
    """Return what the page says of the smallest heaps (dict of the benchmark), as Markdown."""
    heaps = {name: each["smallest_kb"] for name, each in results["heaps"].items()}
    lines = ["| smallest heap, KB | frozen | `.mpy` | `.py` |", "|---|---:|---:|---:|"]
    seen = []
    for name in heaps:
        protocol, listener, _, extra = name.split()
        case = protocol, listener, extra
        if case in seen:
            continue
        seen.append(case)
        what = f"MQTT {protocol}, {LISTENERS[listener]}{EXTRAS[extra]}"
        cells = [heaps.get(f"{protocol} {listener} {form} {extra}") for form in FORMS]
        lines.append(f"| {what} | {' | '.join(str(cell or '–') for cell in cells)} |")
    tried = [each for case in results["heaps"].values() for each in case["tried"]]
    ended = sum(each[1] == "ends" for each in tried)
    went_on = sum(each[1] == "retries" for each in tried)
    where = "{interpreter}, TLS memory from the heap; {broker}; {date}".format(**results)
    lines += [
        "",
        f"{len(tried)} heaps were tried: in {went_on} the app went on trying and said why,",
    ]
    lines += [f"in {ended} it ended with an error that names memory. {where}."]
    return "\n".join([*lines, ""])


def put(text, name, new):
    """Return the page `text` with `new` between its marks `name`."""
    place = re.compile(f"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->\n)", re.S)
    if not place.search(text):
        raise ValueError(f"{PAGE.name} has no <!-- {name} --> and <!-- /{name} -->")
    return place.sub(lambda _: new, text, count=1)


def is_same(old, new):
    """
    Tell whether two texts differ in their numbers alone, and in these by no more than 3 % or 100:
    another release of the compiler, or a line more of code, does not make the page wrong.
    """
    if _NUMBER.sub("", old) != _NUMBER.sub("", new):
        return False
    pairs = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True)
    pairs = [(int(a.replace(",", "")), int(b.replace(",", ""))) for a, b in pairs]
    return all(abs(a - b) <= max(100, 0.03 * b) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.size")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    parser.add_argument("--heaps", type=Path, metavar="FILE", help="of benchmarks.starvation")
    options = parser.parse_args()
    sizes = measure()
    old = PAGE.read_text()
    new = put(old, "modules", modules_text(sizes))
    if options.heaps:
        new = put(new, "heaps", heaps_text(json.loads(options.heaps.read_text())))
    wrong = [f"budget passed: {each}" for each in passed(sizes)]
    if not options.check:
        PAGE.write_text(new)
    elif not is_same(old, new):
        wrong.append(f"docs/{PAGE.name} is out of date: .venv/bin/python -m tools.size")
    return "\n".join(wrong) or None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except freeze.Unavailable as reason:
        sys.exit(f"size: nothing measured: {reason}")
