"""
Place every fault at every moment of a connection's life, in every combination that makes sense:
the whole of the matrix of which tests/faults runs a part.

    python -m benchmarks.faults                    all of it: 3,700 cases, a quarter of an hour
    python -m benchmarks.faults 'puback.*-tls'     those whose name matches
    python -m benchmarks.faults --list             only name them
    python -m benchmarks.faults --lanes 2          so many at a time (6)

A line for each case that failed, with all that led to it; the exit status is 1 then. What a case
is, and what is checked after it: tests/faults/matrix.py and driver.py.
"""

import argparse
import collections
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.faults import matrix
from tests.faults.driver import Unable
from tests.faults.lanes import Lanes
from tests.support.pki import PKI


def main(arguments):
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--lanes", type=int, default=6)
    given = parser.parse_args(arguments)
    cases = [case for case in matrix.everything() if re.search(given.pattern, matrix.name(case))]
    if given.list:
        print(*map(matrix.name, cases), sep="\n")
        return 0
    print(f"{len(cases)} cases in {given.lanes} lanes")
    start_s = time.monotonic()
    count = collections.Counter()
    longest_ms = reconnects = 0
    with tempfile.TemporaryDirectory() as folder:
        keys = PKI(Path(folder))
        with Lanes(Path(folder), keys, min(given.lanes, len(cases)), cases) as lanes:
            for case in cases:
                try:
                    report = lanes.result(case, timeout_s=None)
                except Unable as e:
                    count["left out"] += 1
                    print(f"left out: {matrix.name(case)}: {e}", flush=True)
                except Exception as e:
                    count["failed"] += 1
                    print(f"FAILED {e}", flush=True)
                else:
                    count["passed"] += 1
                    longest_ms = max(longest_ms, report["longest_ms"])
                    reconnects += report["connects"] - 1
                if not sum(count.values()) % 200:
                    print(
                        f"{sum(count.values())} cases, {time.monotonic() - start_s:.0f} s",
                        flush=True,
                    )
    told = ", ".join(f"{number} {what}" for what, number in count.items())
    print(
        f"{told} in {time.monotonic() - start_s:.0f} s; {reconnects} reconnects; other tasks "
        f"waited for {longest_ms} ms at most (a step of TLS on a busy computer)"
    )
    return 1 if count["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
