"""The modules of the package know of each other only what the design's table allows."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tools import modules as design

CPYTHON_ONLY = True

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"


def siblings(source):
    """Return the names of the sibling modules (set) that the text of a module imports."""
    found = {names[-1] for names in loaded(source) if names}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = ("mqtt_as_tls." if node.level else "") + (node.module or "")
            names = [f"{module.rstrip('.')}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name + "." for each in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("mqtt_as_tls.")}
    return found - {"__version__", "load", "unload"}


def loaded(source):
    """Return what each `load("a", "b")` of a text loads, and its table _LATER (list of tuples)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "load":
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            found.append(tuple(texts))
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_LATER":
            (table,) = node.value.args
            found += [tuple(names.split()) for names, _ in ast.literal_eval(table)]
    return found


def at_its_top(source):
    """Return the sibling modules (set) that are there before a module can be."""
    tree = ast.parse(source)
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return siblings("\n".join(map(ast.unparse, imports)))


def modules():
    return {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}


def compat():
    """Return the modules that compat/ may import, besides the public names."""
    (text,) = re.findall(r"of the modules\s(.*?)\. It has", design.PAGE.read_text(), re.DOTALL)
    return set(re.findall(r"`(\w+)`", text)) & set(design.arrows())


def test_compat_imports_no_more_than_the_design_says():
    found = siblings((PACKAGE.parent / "compat/mqtt_as.py").read_text())
    assert found >= compat() > set()
    assert [name for name in found - compat() if not name[0].isupper()] == []
    assert not [name for name, source in modules().items() if "import mqtt_as\n" in source]


def test_every_form_of_import_is_seen():
    source = """
from . import a, b, __version__
from .c import d
import mqtt_as_tls.e
from mqtt_as_tls.f import g
from mqtt_as_tls import h
import tls
from os import path
def lazy():
    from . import i
    load("j", "k").f()
_LATER = const((("l m", "f g"), ("n", "h")))
"""
    assert siblings(source) == set("abcefhikmn")


def test_every_module_is_in_the_table():
    assert set(modules()) == set(design.arrows())


def test_the_table_has_no_circles():
    assert [*TopologicalSorter(design.arrows()).static_order()][-1] == "__init__"


def test_no_module_imports_more_than_the_table_allows():
    allowed = design.arrows()
    wrong = [
        f"{name} imports {sibling}"
        for name, source in modules().items()
        for sibling in siblings(source)
        if sibling not in allowed.get(name, ())
    ]
    assert wrong == []


PAGE = """
## Modules

| module | knows | may import |
|---|---|---|
| `a` | <-> | – |
| `b` | `x` | a |
| `c` | | {} |

| module | knows | loaded | may import |
|---|---|---|---|
| `d` | | by `f()` | c, b |
| `e` | | | all |

| module | knows |
|---|---|
| `data` | |

## The PC's tool

| module | knows | may import |
|---|---|---|
| `tool` | | – |
| `tool/a` | | tool |
"""


@pytest.fixture
def page(monkeypatch, tmp_path):
    monkeypatch.setattr(design, "PAGE", tmp_path / "design.md")
    return design.PAGE


def test_the_tables_are_read(page):
    page.write_text(PAGE.format("all but d, e"))
    assert design.always() == ("a", "b", "c")
    assert design.later() == {"d": "by `f()`", "e": ""}
    assert design.arrows() == {
        "a": set(),
        "b": {"a"},
        "c": {"a", "b"},
        "d": {"b", "c"},
        "e": set("abcd"),
    }
    assert design.arrows(design.TOOL) == {"tool": set(), "tool/a": {"tool"}}


@pytest.mark.parametrize("text", ["all but data", "tool", "c", "x, a", "a b", "", "all but"])
def test_a_table_that_names_what_is_no_other_module_is_refused(page, text):
    page.write_text(PAGE.format(text))
    with pytest.raises(ValueError, match=r"design\.md, c: no modules"):
        design.arrows()


def test_a_module_that_is_there_twice_is_refused(page):
    page.write_text(PAGE.format("a") + PAGE.format("b"))
    with pytest.raises(ValueError, match="a is there twice"):
        design.arrows()


# sections 2.2.1 of MQTT 3.1.1 and 2.1.2 of MQTT 5.0, with the flags that PUBREL and SUBSCRIBE have
TYPES = {
    "CONNECT": 0x10,
    "CONNACK": 0x20,
    "PUBLISH": 0x30,
    "PUBACK": 0x40,
    "PUBREC": 0x50,
    "PUBREL": 0x62,
    "PUBCOMP": 0x70,
    "SUBSCRIBE": 0x82,
    "SUBACK": 0x90,
    "UNSUBACK": 0xB0,
    "PINGREQ": 0xC0,
    "PINGRESP": 0xD0,
    "DISCONNECT": 0xE0,
    "AUTH": 0xF0,  # MQTT 5.0 section 2.1.2
}


# the states of a connection have numbers of their own, from 0
STATES = len("LINK CLOCK RESOLVE TCP TLS CONNECT UP CLOSED".split())


def test_a_packet_type_has_one_value_in_every_module():
    seen = {}
    for name, source in modules().items():
        for constant, text in re.findall(
            r"^_([A-Z]+) = const\((.+?)\)(?: *#.*)?$", source, re.MULTILINE
        ):
            value = ast.literal_eval(text)
            if constant in TYPES and not (name == "connection" and value in range(STATES)):
                if isinstance(value, bytes):  # the whole packet, where it has no fields
                    assert value[1:] == b"\0"
                    value = value[0]
                assert value == TYPES[constant], f"{name}: _{constant} = {text}"
                seen[constant] = value
    assert seen == TYPES


# what it loads when it is needed stands in a table of its own
LAZY = ("__init__",)


def test_what_is_imported_when_it_is_needed_is_imported_by_load():
    """MicroPython crashes on a second import of what it had no memory for: `load` forgets it."""
    late = [
        f"{name}, line {node.lineno}"
        for name, source in modules().items()
        for function in ast.walk(ast.parse(source))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert late == []


def test_load_names_what_a_module_imports_at_its_top_before_it():
    """Else it could not tell which of them there was no memory for."""
    sources = modules()
    later = set(design.later())
    calls = [(name, call) for name, source in sources.items() for call in loaded(source) if call]
    assert len(calls) > 20
    wrong = []
    for name, call in calls:
        for i, each in enumerate(call):
            missing = at_its_top(sources[each]) & later - set(call[:i])
            wrong += [f"{name}: load{call}: {each} needs {other} first" for other in missing]
    assert wrong == []


def test_no_module_but_the_lazy_ones_imports_by_a_name_made_at_run_time():
    wrong = [
        name
        for name, source in modules().items()
        if name not in LAZY
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Name)
        and node.id in ("__import__", "exec", "eval")
        or isinstance(node, ast.Attribute)
        and node.attr == "import_module"
    ]
    assert wrong == []
