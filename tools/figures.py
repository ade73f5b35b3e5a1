"""
Write the README's table of figures from a run of the benchmark:

    ./dev bench --json figures.json
    .venv/bin/python -m tools.figures figures.json

It takes the place of the table after `<!-- figures -->`, and of the line below it.
"""

import json
import re
import sys

from tests.support.docs import FILES

README = FILES[0]
SUBJECTS = ("mqtt_as_tls", "bare socket")
_PLACE = re.compile(r"(?<=<!-- figures -->\n)(?:\|.*\n)*(?:\n?Medians of [^#]*?\n(?=\n))?")


def cell(figure, subject):
    """Return the median of `subject` with its unit, "" where it was not measured."""
    value = figure["median"].get(subject)
    if value is None:
        return ""
    digits = 0 if value >= 20 or value == int(value) else 3 if value < 1 else 1
    return f"{value:,.{digits}f} {figure['unit']}".strip()


def table(results):
    """Return the table, and the line that says what was measured where, as Markdown."""
    lines = ["| | mqtt_as_tls | a bare socket | ratio |", "|---|---:|---:|---:|"]
    for figure in results["figures"]:
        what = figure.get("what", "  ")
        if what.startswith("  "):  # a note, a single module
            continue
        what = what.replace(" | ", ", beside ")
        ratio = f"{figure['ratio']:.2f}" if "ratio" in figure else ""
        cells = [what, *(cell(figure, subject) for subject in SUBJECTS), ratio]
        lines.append(f"| {' | '.join(cells)} |")
    where = "{interpreter}; {broker}; {machine}; {date}".format(**results)
    lines += ["", f"Medians of {results['runs']} runs. {where}.", ""]
    return "\n".join(lines)


def main(path):
    with open(path) as file:
        text = table(json.load(file))
    source = README.read_text()
    written, count = _PLACE.subn(lambda _: text, source, count=1)
    if not count:
        sys.exit(f"{README.name} has no line <!-- figures -->")
    README.write_text(written)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(sys.argv[1])
