"""
Write docs/conformance.md: each normative statement that binds a client, and what shows it.

    .venv/bin/python -m tools.conformance

The statements are those of tests/conformance/statements_*.txt. A test says in its docstring, or in
a comment in its body or its parameters, which of them it shows, on a line per version that may go
on on the next:

    MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-4.6.0-2]
    MQTT 5.0: [MQTT-3.3.2-8]
"""

import ast
import functools
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/conformance.md"
VERSIONS = {"3.1.1": "29 October 2014", "5.0": "7 March 2019"}

_TAG = re.compile(r"\[MQTT-([\d.]+-\d+)\]")
LINE = re.compile(
    r"^[#\s\"]*MQTT (3\.1\.1|5\.0): ((?:\[MQTT-[\d.]+-\d+\],?\s*(?:#\s*)?)+)(?:\"\"\")?$", re.M
)

_HEAD = """\
# Conformance

Each statement of the two specifications that binds a client, or whoever sends or receives what a
client does, and the tests that show it: their docstrings name the statements, and this page is
made from them by `tools/conformance.py` (a test holds it against them). The numbers are those of
the specifications' appendix B; what is asked for is said in our own words: read the
specification for what is meant. Statements that bind a server only are counted.
"""


class Statement:
    """
    One normative statement.

    id      str, such as "2.3.1-1"
    binds   "client", "server" or "both"
    text    str, what it asks for
    reason  str, why no test can show it; or ""
    tests   list of str, the tests that show it: "tests/unit/test_packet.py::test_name"
    """

    def __init__(self, line):
        self.id, self.binds, self.text, *reason = [each.strip() for each in line.split(" | ")]
        self.reason = "".join(reason)
        self.tests = []


def statements(version):
    """Return {id: Statement} of `version` ("3.1.1" or "5.0"), in the order of their numbers."""
    name = f"statements_{version.replace('.', '_')}.txt"
    lines = (ROOT / "tests/conformance" / name).read_text().splitlines()
    found = [Statement(line) for line in lines if line and not line.startswith("#")]
    return {each.id: each for each in sorted(found, key=number)}


def number(statement):
    """Return what sorts a Statement."""
    return [int(part) for part in re.split(r"[.-]", statement.id)]


def tests(path):
    """Yield the name and the source of each test of a file, decorators included."""
    source = path.read_text()
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = min(each.lineno for each in [node, *node.decorator_list])
            if node.name.startswith("test_"):
                yield node.name, "".join(lines[first - 1 : node.end_lineno])


@functools.cache
def tags():
    """Return what the tests say they show: a list of (version, id, test)."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, source in tests(path):
            for version, listed in LINE.findall(source):
                test = f"{path.relative_to(ROOT)}::{name}"
                found += [(version, each, test) for each in _TAG.findall(listed)]
    return found


def collect():
    """Return {version: {id: Statement}} with their tests; what no statement has is left out."""
    known = {version: statements(version) for version in VERSIONS}
    for version, each, test in tags():
        statement = known[version].get(each)
        if statement and test not in statement.tests:
            statement.tests.append(test)
    return known


def section(version, known):
    """Return the part of the page for one version (str)."""
    ours = [each for each in known.values() if each.binds != "server"]
    tested = sum(bool(each.tests) for each in ours)
    reasons = sum(bool(each.reason) for each in ours)
    counts = (
        f"OASIS, {VERSIONS[version]}. Of {len(known)} statements {len(known) - len(ours)} bind a "
        f"server only. Of the other {len(ours)}, {tested} are shown by tests; {reasons} cannot "
        "be, and say why."
    )
    lines = [
        f"## MQTT {version}",
        "",
        textwrap.fill(counts, 99),
        "",
        "| statement | asks for | shown by |",
        "|---|---|---|",
    ]
    for each in ours:
        by = "<br>".join(f"`{test.rpartition('/')[2]}`" for test in each.tests)
        lines.append(f"| {each.id} | {each.text} | {by or each.reason or '**open**'} |")
    return "\n".join(lines) + "\n"


def page():
    """Return the text of docs/conformance.md."""
    return "\n".join([_HEAD, *(section(*each) for each in collect().items())])


if __name__ == "__main__":
    PAGE.write_text(page())
