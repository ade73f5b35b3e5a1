"""
The modules of the device package, and of the PC's tool, as the tables of docs/design.md have them.
"""

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/design.md"

# which part of the page, by its heading
DEVICE, TOOL = "Modules", "The PC's tool"

_WHEN = "loaded"
_IMPORTS = "may import"


def _rows(part):
    """Return {module: {title: text of the cell}} of the tables of a part that have arrows."""
    found = {}
    titles = here = None
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            here = line.removeprefix("## ")
        if here != part:
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            titles = None
        elif not titles:
            titles = cells
        elif _IMPORTS in titles and cells[0].strip("-"):
            name = cells[0].strip("`")
            if name in found:
                raise ValueError(f"{PAGE.name}: {name} is there twice")
            found[name] = dict(zip(titles, cells, strict=True))
    return found


def always():
    """Return the names (tuple of str) of what every working app imports of the device package."""
    return tuple(name for name, row in _rows(DEVICE).items() if _WHEN not in row)


def later():
    """Return {name: when it is loaded} of the other modules of the device package."""
    return {name: row[_WHEN] for name, row in _rows(DEVICE).items() if _WHEN in row}


def arrows(part=DEVICE):
    """
    Return {name: set of the modules that it may import}, in the order of the tables. A cell says
    `a, b`, or `all`, or `all but a, b`, or `–` for none.

    part  DEVICE or TOOL

    Raises ValueError where it names what is no other module.
    """
    rows = _rows(part)
    found = {}
    for name, row in rows.items():
        text = row[_IMPORTS].replace("`", "")
        others = set(rows) - {name}
        named = set() if text in ("all", "–") else set(text.removeprefix("all but ").split(", "))
        if not named <= others:
            raise ValueError(f"{PAGE.name}, {name}: no modules: {named - others}")
        found[name] = others - named if text.startswith("all") else named
    return found
