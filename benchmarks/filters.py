"""
Measure how long a message takes to find its handler among many topic filters, and write it into
docs/benchmarks.md.

    python -m benchmarks.filters
    python -m benchmarks.filters --dry-run --json filters.json    leave the page as it is

Each filter has a handler, and the message is for one of them. Times are medians of several rounds,
in each of which every case has its turn; ratios are those within a round.
"""

import argparse
import json
import statistics
from pathlib import Path

from benchmarks import page
from benchmarks.run import environment
from tests.support import mpy

COUNTS = (1, 10, 100, 500)
KINDS = {"exact": "without wildcards", "wildcard": "with a wildcard"}

_PROGRAM = """
import json
import sys
from tests.virtual_pico.programs.many_filters import Filters

rounds, messages = int(sys.argv[1]), int(sys.argv[2])
cases = [(kind, count) for kind in {kinds} for count in {counts}]
filters = {{case: Filters(*case) for case in cases}}
for _ in range(rounds):
    for (kind, count), each in filters.items():
        print(json.dumps([kind, count, each.us(messages), each.us(messages, True)]))
"""


def measure(rounds, messages):
    """Return {kind: {count: {"us": [...], "one by one": [...]}}}, a number for each round."""
    program = _PROGRAM.format(kinds=tuple(KINDS), counts=COUNTS)
    out = mpy.check(program, rounds, messages, timeout_s=300 + rounds * messages)
    found = {kind: {count: {"us": [], "one by one": []} for count in COUNTS} for kind in KINDS}
    for line in out.splitlines():
        kind, count, us, one_by_one = json.loads(line)
        found[kind][count]["us"].append(us)
        found[kind][count]["one by one"].append(one_by_one)
    return found


def number(value):
    return f"{value:,.{1 if value < 100 else 0}f}"


def table(figures):
    """Return the figures as Markdown."""
    heads = ["filters", "", "µs a message", "ratio to 1 filter", "each tried, µs"]
    lines = [f"| {' | '.join(heads)} |", "|---:|---|---:|---:|---:|"]
    for kind, counts in figures.items():
        alone = counts[COUNTS[0]]["us"]
        for count, found in counts.items():
            pairs = zip(found["us"], alone, strict=True)
            ratio = statistics.median(us / one for us, one in pairs)
            us, each = (statistics.median(found[name]) for name in ("us", "one by one"))
            cells = [str(count), KINDS[kind], number(us), f"{ratio:.2f}", number(each)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(
        prog="./dev bench filters",
        description=__doc__.partition(".\n")[0].strip() + ".",
    )
    parser.add_argument("--rounds", type=int, default=21, help="default: 21")
    parser.add_argument("--messages", type=int, default=100, help="of a round (default: 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument("--dry-run", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    where = environment()
    figures = measure(options.rounds, options.messages)
    text = f"{table(figures)}\n{where['interpreter']}; {where['machine']}; {where['date']}.\n"
    print(text)
    if options.json:
        options.json.write_text(json.dumps({**where, "figures": figures}, indent=1) + "\n")
    if not options.dry_run:
        page.write("filters", text)


if __name__ == "__main__":
    main()
