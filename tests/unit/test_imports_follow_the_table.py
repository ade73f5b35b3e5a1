"""The modules of the package know of each other only what the design's table allows."""

import ast
import re
from pathlib import Path

CPYTHON_ONLY = True

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"

# module: the siblings that it may import (docs/design.md, the device package)
TABLE = {
    "errors": "",
    "mistakes": "",
    "reasons": "",
    "explain": "",
    "streams": "",
    "packet": "errors",
    "properties": "packet errors",
    "packet5": "packet properties errors",
    "session": "packet errors",
    "router": "errors mistakes",
    "dns": "errors",
    "clock": "dns errors",
    "tls": "errors mistakes",
    "transport": "dns tls errors",
    "will": "router",
    "failover": "router",
    "failing": "packet clock explain errors streams reasons failover",
    "wifi": "errors failing mistakes",
    # parts of the client: how messages reach their handlers, and what is loaded when needed
    "dispatch": "router transport failing",
    "mqtt5": "packet5 properties errors reasons failing",
    "requests": "errors mqtt5 router transport",
    "hooks": "mistakes",
    "queueing": "router",
    "stored": "session packet dispatch errors router",
    "store": "stored errors mistakes",
    "subscribing": "packet errors mistakes dispatch router",
    "leaving": "packet errors mistakes transport",
    "incoming": "dispatch errors router transport",
    "outgoing": "dispatch errors failing router transport",
    "home_assistant": "outgoing router",
}
TABLE["client"] = " ".join(TABLE)
TABLE["__init__"] = " ".join(TABLE)


def siblings(source):
    """Return the names of the sibling modules (set) that the text of a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = ("mqtt_as_tls." if node.level else "") + (node.module or "")
            names = [f"{module.rstrip('.')}.{each.name}" for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name + "." for each in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("mqtt_as_tls.")}
    return found - {"__version__"}


def modules():
    return {path.stem: path.read_text() for path in PACKAGE.glob("*.py")}


# of the modules, what compat/ may import besides the public names
COMPAT = {"dns", "leaving", "properties"}


def test_compat_imports_no_more_than_the_design_says():
    found = siblings((PACKAGE.parent / "compat/mqtt_as.py").read_text())
    assert found >= COMPAT
    assert [name for name in found - COMPAT if not name[0].isupper()] == []
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
"""
    assert siblings(source) == set("abcefhi")


def test_every_module_is_in_the_table():
    assert set(modules()) - set(TABLE) == set()


def test_the_table_has_no_circles():
    above = set()
    for name, allowed in TABLE.items():
        assert set(allowed.split()) <= above, name
        above.add(name)


def test_no_module_imports_more_than_the_table_allows():
    wrong = [
        f"{name} imports {sibling}"
        for name, source in modules().items()
        for sibling in siblings(source)
        if sibling not in TABLE.get(name, "").split()
    ]
    assert wrong == []


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


def test_a_packet_type_has_one_value_in_every_module():
    seen = {}
    for name, source in modules().items():
        for constant, text in re.findall(r"^_([A-Z]+) = const\((.+)\)", source, re.MULTILINE):
            if constant in TYPES:
                value = ast.literal_eval(text)
                if isinstance(value, bytes):  # the whole packet, where it has no fields
                    assert value[1:] == b"\0"
                    value = value[0]
                assert value == TYPES[constant], f"{name}: _{constant} = {text}"
                seen[constant] = value
    assert seen == TYPES


# what they load when it is needed stands in a table of theirs, and they may import everything
LAZY = ("__init__", "client")


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
