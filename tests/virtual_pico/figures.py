"""
Measure on the emulated RP2040, and write what came out into docs/size.md and docs/benchmarks.md:

    ./dev pico figures [--json FILE] [--dry-run] [PART ...]

What is measured is in programs/measure.py and programs/many_filters.py; times are the chip's own.
The package is in the firmware ("frozen"), or in /lib of a firmware without it, as .mpy and as .py
files. The parts are "app", "filters" (frozen alone) and "steps" (the C module in firmware/, see
figures_steps.py); without one it is all of them.
"""

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path

from tests.support.docs import ROOT
from tests.support.pki import PKI
from tests.virtual_pico import figures_steps
from tests.virtual_pico.desk import Desk
from tests.virtual_pico.printed import largest_block, number, of_app, taken
from tools import build, firmware, size
from tools.micropython_source import VERSIONS

PARTS = ("app", "filters", "steps")
KINDS = ("frozen", ".mpy", ".py")
# what has no room for a handshake beside the program that measures
TOO_LARGE = ((".py", 5),)
FILTERS = (1, 30)
ROUNDS = 5

_MEMORY = """
import gc, micropython
gc.collect()
print("figure free", gc.mem_free())
micropython.mem_info()
"""

_IMPORT = f"""
{size.FIRMWARE}
import network, machine
gc.collect()
before = gc.mem_alloc()
{{imports}}
gc.collect()
print("figure import", gc.mem_alloc() - before)
"""

_CONNECT = """
import sys, measure
measure.link()
from mqtt_as_tls import TLS
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der",
          server_hostname=measure.NAME, ntp=None)
for _ in range({rounds}):
    measure.bare(tls)
    measure.step(tls)
    measure.client(tls, {protocol})
print("modules", *[name for name in sys.modules if name.startswith("mqtt_as_tls")])
"""


_FILTERS = """
import many_filters
for kind in ("exact", "wildcard"):
    for count in {counts}:
        filters = many_filters.Filters(kind, count)
        print("figure %s_%d_bytes" % (kind, count), filters.index_bytes)
        for _ in range({rounds}):
            print("figure %s_%d_us" % (kind, count), filters.us(20))
            print("figure %s_%d_each_us" % (kind, count), filters.us(20, True))
"""


def install(pico, package):
    """Install from a package.json (Path); return how many seconds of the chip's that takes."""
    begin = pico.emulated_s()
    pico.mpremote("mip", "install", str(package))
    return pico.emulated_s() - begin


def measure(kind, folder, pki):
    """Return the figures (dict of medians) of one way to have the package on the board."""
    image = firmware.rp2040() if kind == "frozen" else firmware.plain()
    package = ROOT / "package.json"
    if kind == ".mpy":
        build.build(folder / "dist")
        package = folder / "dist/mip/package.json"
    with Desk(image, folder, pki) as desk:
        pico = desk.pico
        install_s = None if kind == "frozen" else install(pico, package)
        desk.install("measure")
        pico.soft_reset()
        boot = pico.run(_MEMORY)
        figures = {
            "install_s": install_s,
            "boot_free_bytes": taken(boot)["free"][0],
            "boot_largest_bytes": largest_block(boot),
        }
        for protocol in (4, 5):
            if (kind, protocol) not in TOO_LARGE:
                pico.soft_reset()
                output = pico.run(_CONNECT.format(rounds=ROUNDS, protocol=protocol))
                for name, numbers in taken(output).items():
                    # of stalls and steps the longest of each round, of times all
                    figures[f"{name}_{protocol}"] = statistics.median(numbers)
                if protocol == 4:
                    modules = re.search(r"^modules (.*)$", output, re.M)[1].split()
            free, largest = of_app(pico, protocol)
            figures[f"connected_free_{protocol}"] = free
            figures[f"connected_largest_bytes_{protocol}"] = largest
        imports = "\n".join(f"import {name}" for name in sorted(modules))
        pico.soft_reset()
        figures["import_bytes"] = taken(pico.run(_IMPORT.format(imports=imports)))["import"][0]
    return figures


def measure_filters(folder, pki):
    """Return the figures (dict of medians) of many topic filters, frozen."""
    with Desk(firmware.rp2040(), folder, pki) as desk:
        desk.install("many_filters")
        desk.pico.soft_reset()
        output = desk.pico.run(_FILTERS.format(counts=FILTERS, rounds=ROUNDS))
    return {name: statistics.median(numbers) for name, numbers in taken(output).items()}


def rows(results):
    """Return the lines of the table: what, unit, then one cell for each way."""

    def row(what, cell):
        return f"| {what} | {' | '.join(cell(results[kind]) for kind in KINDS)} |"

    def bytes_of(name):
        return lambda each: number(each[name])

    def ms(name, digits=0):
        return lambda each: number(each[name], digits) if name in each else "no memory"

    def over(ours, bare):
        return lambda each: number(each[ours] / each[bare], 2)

    def seconds(each):
        return number(each["install_s"]) if each["install_s"] else "–"

    return [
        row("`mpremote mip install`, s", seconds),
        row("heap free after boot, B", bytes_of("boot_free_bytes")),
        row("largest free block then, B", bytes_of("boot_largest_bytes")),
        row("taken by the import, B", bytes_of("import_bytes")),
        row("heap free when connected, MQTT 3.1.1, B", bytes_of("connected_free_4")),
        row("largest free block then, B", bytes_of("connected_largest_bytes_4")),
        row("heap free when connected, MQTT 5, B", bytes_of("connected_free_5")),
        row("largest free block then, B", bytes_of("connected_largest_bytes_5")),
        row("a bare program: connect to CONNACK, ms", ms("bare_ms_4")),
        row("the client: connect to CONNACK, ms", ms("client_ms_4")),
        row("ratio", over("client_ms_4", "bare_ms_4")),
        row("longest step of mbedTLS in a handshake, ms", ms("step_ms_4")),
        row("longest stall of another task meanwhile, ms", ms("connect_stall_ms_4")),
        row("a bare program: QoS 0 publish of 100 B, TLS, ms", ms("bare_publish_qos0_ms_4", 1)),
        row("the client: QoS 0 publish, MQTT 3.1.1, ms", ms("publish_qos0_ms_4", 1)),
        row("the client: QoS 0 publish, MQTT 5, ms", ms("publish_qos0_ms_5", 1)),
        row("a bare program: QoS 1 publish of 100 B, TLS, ms", ms("bare_publish_ms_4", 1)),
        row("the client: QoS 1 publish, MQTT 3.1.1, ms", ms("publish_ms_4", 1)),
        row("the client: QoS 1 publish, MQTT 5, ms", ms("publish_ms_5", 1)),
        row("ratio, MQTT 3.1.1", over("publish_ms_4", "bare_publish_ms_4")),
        row("longest stall of another task meanwhile, ms", ms("publish_stall_ms_4", 1)),
    ]


_WHERE = f"""\
MicroPython {VERSIONS["micropython"]} on an emulated RP2040 at 125 MHz with 190 KB of heap, mutual
TLS with P-256. The heap when connected is that of the README's app, times are medians of {ROUNDS}
connections. The link is PPP; the emulator has no misses of the flash's cache and no second core: a
board is slower by what these cost.
"""


def full(results):
    """Return the text for docs/size.md."""
    heads = " | ".join(kind if kind == "frozen" else f"`{kind}` files" for kind in KINDS)
    head = f"| | {heads} |\n|---|{'---:|' * len(KINDS)}\n"
    added = number(results["flash"]["added_bytes"])
    flash = f"Frozen, the package adds {added} B to the firmware's flash.\n"
    return head + "\n".join(rows(results)) + f"\n\n{flash}\n{_WHERE}"


def brief(results):
    """Return the text for docs/benchmarks.md: what the package does frozen."""
    found = results["frozen"]
    lines = [
        ("flash", f"{number(results['flash']['added_bytes'])} B"),
        ("heap free after boot", f"{number(found['boot_free_bytes'])} B"),
        ("taken by the import", f"{number(found['import_bytes'])} B"),
        ("heap free when connected", f"{number(found['connected_free_4'])} B"),
        (
            "connect to CONNACK; a bare program",
            f"{number(found['client_ms_4'])} ms; {number(found['bare_ms_4'])} ms",
        ),
        (
            "other tasks stand still meanwhile; the longest step of mbedTLS",
            f"{number(found['connect_stall_ms_4'])} ms; {number(found['step_ms_4'])} ms",
        ),
        (
            "QoS 0 publish of 100 B over TLS; a bare program",
            f"{number(found['publish_qos0_ms_4'], 1)} ms; "
            f"{number(found['bare_publish_qos0_ms_4'], 1)} ms",
        ),
        (
            "QoS 1 publish of 100 B over TLS; a bare program",
            f"{number(found['publish_ms_4'], 1)} ms; {number(found['bare_publish_ms_4'], 1)} ms",
        ),
    ]
    table = "".join(f"| {what} | {figure} |\n" for what, figure in lines)
    return f"| | frozen, MQTT 3.1.1 |\n|---|---:|\n{table}\n{_WHERE}"


def of_filters(results):
    """Return the text for docs/benchmarks.md: what many topic filters cost."""
    lines = ["| filters | | ms a message | each tried, ms | memory of the index, B |"]
    lines.append("|---:|---|---:|---:|---:|")
    found = results["filters"]
    for kind, what in (("exact", "without wildcards"), ("wildcard", "with a wildcard")):
        for count in FILTERS:
            case = f"{kind}_{count}"
            ms, each = (number(found[f"{case}{name}_us"] / 1000, 2) for name in ("", "_each"))
            index_bytes = found[f"{case}_bytes"] - found[f"{kind}_{FILTERS[0]}_bytes"]
            memory = number(index_bytes) if index_bytes else "–"
            lines.append(f"| {count} | {what} | {ms} | {each} | {memory} |")
    return "\n".join(lines) + "\n"


def texts(results):
    """Return [(page, name of its markers, text between them)] of what was measured."""
    found = []
    if "frozen" in results:
        found.append(("size.md", "chip", full(results)))
        found.append(("benchmarks.md", "chip", brief(results)))
    if "filters" in results:
        found.append(("benchmarks.md", "chip filters", of_filters(results)))
    if "steps" in results:
        found.append(("size.md", "chip steps", figures_steps.table(results["steps"])))
    return found


def write(results):
    """Put the tables between the markers of the pages."""
    for page, name, text in texts(results):
        path = ROOT / "docs" / page
        place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->\n)", re.S)
        written, count = place.subn(lambda _, text=text: text, path.read_text(), count=1)
        if not count:
            raise SystemExit(f"{page} has no line <!-- {name} -->, or none <!-- /{name} -->")
        path.write_text(written)


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev pico figures",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    parser.add_argument("--dry-run", action="store_true", help="leave the pages as they are")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options = parser.parse_args(arguments)
    parts = options.parts or PARTS
    if wrong := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(wrong)}; there are {', '.join(PARTS)}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pki").mkdir()
        pki = PKI(Path(folder, "pki"))
        if "app" in parts:
            results["flash"] = firmware.sizes()
            for kind in KINDS:
                results[kind] = measure(kind, Path(folder) / kind.strip("."), pki)
                print(kind, json.dumps(results[kind]), flush=True)
        if "filters" in parts:
            results["filters"] = measure_filters(Path(folder) / "filters", pki)
        if "steps" in parts:
            results["steps"] = figures_steps.measure(Path(folder) / "steps")
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1))
    for *_, text in texts(results):
        print(text)
    if not options.dry_run:
        write(results)
