"""
Write the tables of docs/benchmarks.md from a run of the benchmark:

    ./dev bench --json figures.json
    .venv/bin/python -m tools.figures figures.json

They take the place of what stands between `<!-- figures -->` and `<!-- end of figures -->`.
"""

import json
import re
import sys

from benchmarks.table import OVER_BARE
from tests.support.docs import ROOT

PAGE = ROOT / "docs/benchmarks.md"
OURS, BARE = "mqtt_as_tls", "bare socket"
_PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->\n)", re.S)


def cell(figure, name):
    """Return the median of the contestant `name`, "–" where there is none."""
    value = figure["median"].get(name)
    if value is None:
        return "–"
    digits = 0 if value >= 100 or value == int(value) else 3 if value < 1 else 1
    if figure["unit"] == OVER_BARE:
        digits = 2
    return f"{value:,.{digits}f}"


def row(figure, names):
    """Return a line of a table: the figure of `names`, after the second its ratio."""
    cells = [cell(figure, name) for name in names]
    if figure["unit"] == OVER_BARE:
        return f"| {figure['what']} | {' | '.join(cells)} |"
    if BARE in names:
        ratio = figure["ratios"].get(OURS)
        cells.insert(2, "" if ratio is None else f"{ratio:.2f}")
    unit = f", {figure['unit']}" if figure["unit"] else ""
    return f"| {figure['what']}{unit} | {' | '.join(cells)} |"


def tables(results):
    """
    Return the tables, of all contestants, of their processor time and of ours alone, and what was
    measured where.
    """
    figures = [figure for figure in results["figures"] if "what" in figure]
    versions = results["versions"]
    names = [OURS, BARE, *versions]
    heads = [OURS, "a bare socket", "ratio", *(f"{peer} {versions[peer]}" for peer in versions)]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    busy = [figure for figure in figures if figure["unit"] == OVER_BARE]
    shared = [
        figure
        for figure in figures
        if figure not in busy and (len(figure["median"]) > 1 or figure["absent"])
    ]
    lines += [row(figure, names) for figure in shared]
    reasons = [figure["note"] for figure in results["figures"] if "note" in figure]
    reasons = [each.removeprefix("-: ") for each in reasons if each.startswith("-: ")]
    lines += [
        "",
        f"–: {'; '.join(reasons)}.",
        "",
    ]
    if busy:
        heads.remove("ratio")
        lines += [
            "What a message, or a connection, takes of the processor (user and system), as a",
            "multiple of what it takes the bare socket; a busy machine does not blur it:",
            "",
            f"| | {' | '.join(heads)} |",
            f"|---|{'---:|' * len(heads)}",
            *(row(figure, names) for figure in busy),
            "",
        ]
    lines += [
        "Ours alone:",
        "",
        f"| | {OURS} |",
        "|---|---:|",
    ]
    lines += [row(figure, [OURS]) for figure in figures if figure not in shared + busy]
    where = "{interpreter}; {broker}; {machine}; {date}".format(**results)
    lines += ["", f"Medians of {results['runs']} runs; idleness and sizes once. {where}.", ""]
    return "\n".join(lines)


def main(path):
    with open(path) as file:
        text = tables(json.load(file))
    source = PAGE.read_text()
    written, count = _PLACE.subn(lambda _: text, source, count=1)
    if not count:
        sys.exit(f"{PAGE.name} has no line <!-- figures -->, or none <!-- end of figures -->")
    PAGE.write_text(written)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(sys.argv[1])
