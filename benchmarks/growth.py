"""
How much more a message takes with many in flight, and with many that wait:

    ./dev bench growth [--dry-run]

A thousand messages of QoS 1 go out through windows (max_inflight) of several sizes; and several
numbers of tasks publish a message each, or of messages of enqueue() wait, of which 8 may be in
flight. The broker is in the program's own memory (instant.py), the time is that of the processor,
garbage is collected in between. Ratios are to the first of each row; all are measured in turns.
What came out is written into docs/benchmarks.md.
"""

import argparse
import statistics
from pathlib import Path

from benchmarks import page
from tests.support import mpy

HERE = Path(__file__).parent
CASES = {"window": (8, 100, 1000), "waiting": (8, 16, 32), "queued": (10, 100, 4000)}
WHAT = {
    "window": "a window of",
    "waiting": "publishers that wait,",  # max_waiting: no more do
    "queued": "messages of `enqueue()` that wait,",
}
ROUNDS = 5


def measure(case, size):
    """Return the µs of a message."""
    path = f"{mpy.search_root()}:{HERE}:.frozen"
    program = f"import growing\ngrowing.run('{case}', {size})\n"
    out = mpy.check(program, heap="64M", timeout_s=300, env={"MICROPYPATH": path})
    return float(out.rpartition("grows ")[2])


def rows():
    """Return {case: [ratio of each size]}, medians."""
    found = {}
    for case, sizes in CASES.items():
        rounds = [[measure(case, size) for size in sizes] for _ in range(ROUNDS)]
        ratios = [[us / each[0] for us in each] for each in rounds]
        found[case] = [statistics.median(column) for column in zip(*ratios, strict=True)]
    return found


def table(found):
    """Return `found` of `rows` as Markdown."""
    lines = ["| QoS 1 publish: ratio with | | | |", "|---|---:|---:|---:|"]
    for case, ratios in found.items():
        cells = [f"{size:,}: {ratio:.2f}" for size, ratio in zip(CASES[case], ratios, strict=True)]
        lines.append(f"| {WHAT[case]} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(
        prog="./dev bench growth",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="leave docs/benchmarks.md as it is")
    options = parser.parse_args()
    text = table(rows())
    print(text)
    if not options.dry_run:
        page.write("growth", text)


if __name__ == "__main__":
    main()
