"""
Measure mqtt_as_tls beside a bare socket and the clients of PyPI: what docs/benchmarks.md and its
chart come from.

    ./dev bench                        everything, in about five minutes
    ./dev bench speed memory           some parts: connect speed memory idle stalls sizes
    ./dev bench --json results.json    the same figures for a program, with every single run
    ./dev bench --quick                whether the programs run: figures that say nothing
    ./dev bench soak --help            another program of this folder

Each figure is the median of five runs, each ratio that of the five ratios to the bare socket of
the same run. All are measured in one go, in turns, on one machine and one broker. A missed target
is shown and is no error: a busy machine misses it too. What a message takes of the processor is
counted beside it, as a ratio to the bare socket's, which says the same on a busy machine.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import contestants, loopback, sizes, trouble
from benchmarks.table import Table
from tests.support import mpy
from tests.support.broker import Broker, mosquitto
from tests.support.pki import PKI

HERE = Path(__file__).parent
PARTS = ("connect", "speed", "memory", "idle", "stalls", "sizes")


def others():
    """Return the names of the other benchmarks: programs of their own, in this folder."""
    sources = {path.stem: path.read_text() for path in HERE.glob("*.py")}
    del sources["run"]
    return sorted(name for name, text in sources.items() if "\ndef main(" in text)


def environment():
    """Return what the figures depend on: {what: text}."""
    ask = """
        import sys
        major, minor, micro, *more = sys.implementation.version
        print("MicroPython %d.%d.%d%s, %d bits" % (
            major, minor, micro, "-" + more[0] if more and more[0] else "",
            64 if sys.maxsize >> 31 else 32,
        ))
        """
    broker = subprocess.run([mosquitto(), "-h"], stdout=subprocess.PIPE, text=True).stdout
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, TypeError):
        cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)[1]
    return {
        "date": datetime.date.today().isoformat(),
        "interpreter": mpy.check(ask).strip(),
        "broker": broker.splitlines()[0],
        "machine": f"{os.cpu_count()} x {cpu}, {platform.system()}",
    }


def arguments():
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description=__doc__.partition(":")[0].strip() + ".",
        epilog=f"Other benchmarks: ./dev bench {'|'.join(others())} [--help]",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--runs", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--quick", action="store_true", help="try the programs: one short run, nothing downloaded"
    )
    options = parser.parse_args()
    if wrong := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(wrong)}; there are {', '.join(PARTS)}")
    return options


def main():
    if len(sys.argv) > 1 and sys.argv[1] in others():
        name = sys.argv.pop(1)
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
        return
    options = arguments()
    quick = options.quick
    runs = 1 if quick else options.runs
    wanted = options.parts or PARTS

    missing = contestants.install(download=not quick)
    where = environment()
    print(*where.values(), sep="; ")
    print(f"medians of {runs}, payload 100 B, loopback\n")
    table = Table()
    with tempfile.TemporaryDirectory(prefix="mqtt-bench-") as folder:
        folder = Path(folder)
        pki = PKI(folder)
        # A log line a packet would slow all down, Nagle's algorithm would hold acknowledgements
        # back for up to 40 ms, and nothing may be dropped for coming fast.
        quiet = ["log_type none", "set_tcp_nodelay true", "max_queued_messages 0"]
        with Broker(folder / "broker", "tcp", "tls", pki=pki, lines=quiet) as broker:
            turns = {"turn_ms": 2, "turns": 1} if quick else {}
            race = loopback.Loopback(table, broker, missing, runs, **turns)
            if "connect" in wanted:
                race.measure(loopback.CONNECT)
            if "speed" in wanted:
                race.measure(loopback.SPEED)
            if "memory" in wanted:
                race.memory()
            if "idle" in wanted:
                race.idle(1 if quick else loopback.IDLE_S)
            used = race.modules() if "sizes" in wanted else None
        if "stalls" in wanted:
            trouble.measure(table, runs, pki)
        if used:
            sizes.measure(table, folder, pki, *used)
    print()
    for reason in table.reasons():
        table.note(f"-: {reason}")
    if options.json:
        results = {
            **where,
            "runs": runs,
            "versions": contestants.versions(),
            "figures": table.figures,
        }
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
