"""
The modules of the PC's tool import each other as the design's table says: all that stands there,
nothing else, and none from below upwards.
"""

import ast
from pathlib import Path

import pytest

from tests.support.coupling import read
from tools import modules as design

CPYTHON_ONLY = True

FOLDER = Path(__file__).parents[2] / "tools/mqttls"


def imports(sources):
    """
    Return {module: {name in it: module that it stands for}}, for {dotted name: source} of all
    modules of a package, as coupling.read returns it. A name is in it only for what it imports.
    """
    names = {name: name.removesuffix(".__init__") for name in sources}
    return {
        names[name]: _bound(ast.parse(source), name.split(".")[:-1], set(names.values()))
        for name, source in sources.items()
    }


def _bound(tree, package, modules):
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = package[: len(package) + 1 - node.level] + (node.module or "").split(".")
        where = ".".join(filter(None, above)) or "__init__"
        for each in node.names:
            below = f"{where}.{each.name}".removeprefix("__init__.")
            found[each.asname or each.name] = below if below in modules else where
    return found


def reached(sources):
    """Return {module: set of the modules that it uses by way of another one}."""
    bound = imports(sources)
    found = {}
    for name, source in sources.items():
        name = name.removesuffix(".__init__")
        used = set(bound[name].items())  # (what was asked for, the module that was asked)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.add((node.attr, bound[name].get(node.value.id)))
        for what, by in used:
            behind = bound.get(by, {}).get(what, "")
            if behind.split(".")[-1] == what:
                found.setdefault(name, set()).add(behind)
    return found


@pytest.fixture(scope="module")
def sources():
    return read(FOLDER)


def arrows():
    return {
        name.replace("/", "."): {each.replace("/", ".") for each in allowed}
        for name, allowed in design.arrows(design.TOOL).items()
    }


def test_each_module_imports_what_its_row_says(sources):
    found = {name: set(bound.values()) for name, bound in imports(sources).items()}
    assert set(found) == set(arrows())
    wrong = {name: found[name] ^ allowed for name, allowed in arrows().items()}
    assert {name: arrow for name, arrow in wrong.items() if arrow} == {}


def test_no_row_imports_from_one_below_it_in_the_table():
    above, wrong = set(), {}
    for name, allowed in arrows().items():
        if allowed - above:
            wrong[name] = allowed - above
        above.add(name)
    assert wrong == {}


def test_no_command_imports_another():
    commands = {name for name in arrows() if name.startswith("commands.")}
    assert len(commands) == 14
    assert [name for name in commands if arrows()[name] & commands] == []


def test_they_import_each_other_by_relative_names_which_installed_they_keep(sources):
    wrong = []
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            asked = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                asked = [node.module]
            wrong += [name for each in asked if each.split(".")[0] in ("tools", "mqttls")]
    assert wrong == []


def test_no_module_is_used_by_way_of_another(sources):
    assert reached(sources) == {}


# The measure itself

SOURCES = {
    "__init__": "",
    "a": "import b\nfrom os import path",
    "b": "from . import a, p\nfrom .p.q import r as s",
    "p.__init__": "from . import q\nfrom .. import a\nfrom .. import VERSION",
    "p.q": "def f():\n  from ..a import x\n  from ..b import a, y\n  a.z, y.s, q.a",
    "p.r": "from .. import b\nfrom . import q\nb.a.x, b.x, q.f, q.a, b.p",
}


def test_imports_of_modules_and_of_names_in_them_are_seen():
    assert imports(SOURCES) == {
        "__init__": {},
        "a": {},
        "b": {"a": "a", "p": "p", "s": "p.q"},
        "p": {"q": "p.q", "a": "a", "VERSION": "__init__"},
        "p.q": {"x": "a", "a": "b", "y": "b"},
        "p.r": {"b": "b", "q": "p.q"},
    }


def test_what_is_reached_through_another_module_is_seen():
    assert reached(SOURCES) == {"p.q": {"a"}, "p.r": {"a", "p"}}
