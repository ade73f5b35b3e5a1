"""
The modules of the package keep out of each other's objects: how often they do not may only fall.
Those of the PC's tool do so always.
"""

from pathlib import Path

import pytest

from tests.support.coupling import Coupling, read

CPYTHON_ONLY = True

PACKAGE = Path(__file__).parents[2] / "mqtt_as_tls"
TOOL = Path(__file__).parents[2] / "tools/mqttls"

# what variables are called that are not called like their class
NAMES = {
    "client": "MQTTClient",
    "mate": "MQTTClient",
    "other": "MQTTClient",
    "d": "Dispatcher",
    "t": "Transport",
    "sub": "Subscription",
    "inbox": "Subscription",
    "lane": "Subscription",
    "outbox": "Outbox",
    "retry": "Retry",
    "out": "Delivery",
    "ready": "Message",
    "five": "Wire",
    "store": "FileStore",
    "task": None,  # asyncio's
}
# counters are there for whoever counts
UNCOUNTED = ("Stats",)

# It may only fall: lower it here when it did.
LIMITS = {
    "attributes of MQTTClient that other modules write": 3,
    "attributes of all classes that other modules write": 47,
    "uses of another module's name with an underscore": 0,
}


@pytest.fixture(scope="module")
def coupling():
    return Coupling(read(PACKAGE), PACKAGE.name, NAMES, UNCOUNTED)


def test_every_name_is_that_of_a_class(coupling):
    classes = coupling.attributes
    assert [name for name in NAMES.values() if name and name not in classes] == []
    assert [name for name in UNCOUNTED if name not in classes] == []


@pytest.mark.parametrize("what", LIMITS)
def test_the_modules_reach_no_further_into_each_other_than_before(coupling, what):
    of_client = len(coupling.writes.get("MQTTClient", ()))
    counts = of_client, coupling.written(), len(coupling.private)
    counted = dict(zip(LIMITS, counts, strict=True))
    listed = coupling.private_text() if "underscore" in what else coupling.writes_text()
    assert counted[what] <= LIMITS[what], f"{what}:\n{listed}"
    assert counted[what] == LIMITS[what], f"fewer {what}, lower the limit to {counted[what]}"


def test_the_modules_of_the_tool_do_not_reach_into_each_other():
    coupling = Coupling(read(TOOL), TOOL.name)
    assert {"Authority", "Board", "Directory", "Report"} <= set(coupling.attributes)
    assert coupling.writes_text() == ""
    assert coupling.private_text() == ""


# The measure itself

A = """
from outside import Thing
class Box:
    size = 0
    def __init__(self):
        self.lid, self._key = None, 1
        setattr(self, "late", 1)
    def _turn(self): pass
class Count:
    def __init__(self): self.n = 0
def open(box): box.lid = 1; box._key += 1
"""


def of(source, names=None):
    return Coupling({"a": A, "b": source}, "package", names, ("Count",))


def test_what_a_class_has_is_what_it_assigns():
    assert of("").attributes["Box"] == {"size", "lid", "_key", "late"}


def test_a_class_and_its_module_write_as_they_like():
    assert (of("").writes, of("").private) == ({}, [])


@pytest.mark.parametrize(
    "source",
    [
        "def f(box): box.lid = 1",
        "def f(box): box.lid += 1",
        "def f(box): del box.lid",
        "def f(box): setattr(box, 'lid', 1)",
        "def f(box): box.x, box.lid.y, (box.lid, q) = 1, 2, (3, 4)",
        "def f(box):\n for box.lid in (): pass",
        "def f(self): self._box.lid = 1",
        "def f(y): y.x.box.lid = 1",
        "from .a import Box\ndef f():\n q = Box()\n q.lid = 1",
        "from . import a\ndef f():\n q = a.Box()\n def g(): q.lid = 1",
        "def f(n): n.lid = 1",
        "def f(anything): anything.lid = 1",
        "def f(anything): anything[0].lid = 1",
    ],
)
def test_a_write_from_another_module_is_seen(source):
    assert of(source, {"n": "Box"}).writes["Box"]["lid"] == {"b"}


@pytest.mark.parametrize(
    "source",
    [
        "def f(box): box.lid.append(1); box.lid[0] = 1; print(box.lid)",
        "def f(self): self.lid = 1",
        "def f(count): count.n += 1",
        "import lib\nlib.lid = 1; lib.x[0].lid = 1",
        "import lib as l\nfrom far import away\nl.lid = away.lid = 1",
        "def f(other): other.height = 1",
        "def f(thread): thread.lid = 1",
        "class Own:\n def f(self, other): self.lid = other.lid = 1",
        "class Own:\n lid = 1\n def f(self): q = Own(); q.lid = 1",
        "def f(box, name): setattr(box, name, 1)",
    ],
)
def test_what_is_no_write_into_another_module_is_not(source):
    assert of(source, {"thread": None}).writes == {}


def test_an_attribute_that_only_others_write_is_one_of_its_class():
    assert of("def f(box): box.colour = 1").writes == {"Box": {"colour": {"b"}}}


def test_each_attribute_counts_once_and_names_who_writes_it():
    coupling = Coupling(
        {
            "a": A,
            "b": "def f(box): box.lid = 1; box.lid = 2",
            "c.d": "def f(box): box.lid = box.size = 1",
        },
        "package",
    )
    assert coupling.written() == 2
    assert coupling.writes_text() == "Box: lid (b c.d), size (c.d)"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(box): box._key; box._turn(); box.lid", 2),
        ("def f(self): self._box._key = 1", 1),
        ("def f(box): return getattr(box, '_key', None) or hasattr(box, '_key')", 2),
        ("def f(anything): anything._key; anything.x[0]._key", 2),
        ("from .a import _name, other\nfrom package.a import _name", 2),
        ("from . import a\na._name()", 1),
        ("class Own:\n def f(self, box): self._key = box._key", 1),
        ("class Own:\n def f(self, o): self._key = o._key; super()._turn()", 0),
        ("import lib\nfrom far import _away\nlib._x, _away._y, lib.z()._x", 0),
        ("from packages import a\na._name()", 0),
        ("def f(box, thread): box.__class__, thread._key", 0),
        ("_own = 1\nfrom . import b\nb._own", 0),
    ],
)
def test_private_names_of_other_modules_are_counted_each_time(source, count):
    assert len(of(source, {"thread": None}).private) == count


def test_private_names_are_told_with_their_lines():
    source = "from .a import _x\ndef f(box):\n  box._key()\n"
    assert of(source).private_text() == "b: 1 import _x, 3 box._key"


def test_the_modules_of_a_folder_are_read_with_those_below(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b.py").write_text("x = 1")
    (tmp_path / "a.py").write_text("y = 2")
    assert read(tmp_path) == {"a": "y = 2", "below.b": "x = 1"}
