"""The marked blocks of the Markdown files, for tests that run them or compare them."""

import re

from tests.support.mpy import ROOT

FILES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCED = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
_TABLE = re.compile(r"^(?:\|.*\|\n)+", re.M)


class Block:
    """A fenced block: `mark` (the comment before it, or None), `language`, `text`, `where`."""

    def __init__(self, path, source, match):
        self.mark, self.language, self.text = match.group("mark", "language", "text")
        self.path = path
        line = source.count("\n", 0, match.start("text")) + 1
        self.where = f"{path.relative_to(ROOT)}:{line}"


def blocks():
    """Return every Block of the README and docs/ (list)."""
    found = []
    for path in FILES:
        source = path.read_text()
        found += [Block(path, source, match) for match in _FENCED.finditer(source)]
    return found


def text(name):
    """Return the text of the one block that is marked `test: name`."""
    (block,) = [each for each in blocks() if each.mark == f"test: {name}"]
    return block.text


def tables(path):
    """Return the tables of a file: lists of rows, which are lists of cells (str)."""
    found = []
    for match in _TABLE.finditer(path.read_text()):
        rows = [line.strip("|").split("|") for line in match.group().splitlines()]
        found.append([[cell.strip() for cell in row] for row in rows if set(row[0]) - set("-: ")])
    return found


def rewrite(name, new):
    """Put `new` in the place of the text of the one block that is marked `test: name`."""
    (block,) = [each for each in blocks() if each.mark == f"test: {name}"]
    replace(block.path, f"test: {name}", new)


def replace(path, mark, new):
    """Put `new` in the place of what follows the comment `mark`: a fenced block or a table."""
    source = path.read_text()
    at = source.index(f"<!-- {mark} -->\n") + len(f"<!-- {mark} -->\n")
    found = _FENCED.match(source, at) or _TABLE.match(source, at)
    start, end = found.span("text") if found.re is _FENCED else found.span()
    path.write_text(source[:start] + new + source[end:])
