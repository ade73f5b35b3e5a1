"""
docs/timeouts.md and the table of errors in docs/tls.md say what the code says.

WRITE_DOCS=1 in the environment writes the table of errors anew.
"""

import ast
import datetime
import os
import re
from pathlib import Path

from mqtt_as_tls import explain
from tests.support import docs
from tests.unit.test_imports_follow_the_table import TYPES

CPYTHON_ONLY = True

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mqtt_as_tls"
TIMEOUTS = ROOT / "docs/timeouts.md"
TLS = ROOT / "docs/tls.md"
CHANGELOG = ROOT / "CHANGELOG.md"

# constants that are no time-out and no bound
OTHERS = {
    "connection._EARLY",
    "clock._RELEASED",
    "clock._FROM_1900",
    "clock._LIFE_S",
    "doubts._LEFT_OUT",
    "mqtt5._LONGEST_S",
    "mqtt5._TICKS",
    "oversized._TOPIC_ALIAS",
    "outbox._TICKS",
    "queueing._COUNT",
    "queueing._TIMED",
    "session._TICKS",
    "store._ENOSPC",
    "store._MINUTE_MS",
    "store._TICKS",
    "stream_out._NO_LIMIT",
    "texts._FRAMES",
}
_RECORDS = (
    "MAGIC VERSION HEAD QUEUED DIRECT SENT RECEIVED DONE INBOUND RELEASED FRESH SUSPECT ASIDE"
)
OTHERS |= {
    f"connection._{name}" for name in "LINK CLOCK RESOLVE TCP TLS CONNECT UP CLOSED".split()
}
OTHERS |= {f"store._{name}" for name in _RECORDS.split()}  # their form, in the log of the store
MODULES = (
    *(
        "client",
        "clock",
        "connection",
        "dispatch",
        "dns",
        "failover",
        "outbox",
        "queueing",
        "repeats",
        "retry",
        "stream_in",
        "lifecycle",
        "mqtt5",
        "stream_out",
    ),
    *("request_response", "session", "store", "iterators", "transport", "oversized"),
    *("wifi_faults", "doubts", "surplus", "aside", "texts"),
)


# arguments whose default is a time-out or a bound
DEFAULTS = ("tries", "timeout_ms", "timeout_s", "max_bytes", "max_writes")


def numbers(module):
    """Return {name: value} of the numbers that `module` fixes: constants and defaults."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "const":
                value = value.args[0]
            name = node.targets[0].id
            number = isinstance(value, ast.Constant) and type(value.value) is int
            if number and name[1:].isupper() and name[1:] not in TYPES:
                found[f"{module}.{name}"] = value.value
        name = getattr(node, "name", "")
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if function.name != "__init__":
                name = function.name
            names = function.args.args + function.args.kwonlyargs
            values = function.args.defaults + function.args.kw_defaults
            for argument, default in zip(names[::-1], values[::-1], strict=False):
                value = getattr(default, "value", None)
                if argument.arg in DEFAULTS and value is not None:
                    found[f"{module}.{name}({argument.arg})"] = value
    return found


def options():
    """Return [(name, default, least, most)] of the arguments of MQTTClient that are numbers."""
    for node in ast.parse((PACKAGE / "options.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "NUMBERS":
            return ast.literal_eval(node.value.args[0])
    raise AssertionError("options.py has no NUMBERS")


def wifi():
    """Return {name: value} of the times that the class WiFi has."""
    for node in ast.parse((PACKAGE / "wifi.py").read_text()).body:
        if isinstance(node, ast.ClassDef):
            return {
                f"wifi.WiFi.{each.targets[0].id}": each.value.value
                for each in node.body
                if isinstance(each, ast.Assign) and each.targets[0].id.endswith("_ms")
            }
    raise AssertionError("wifi.py has no class")


def in_the_code():
    found = {**{name: default for name, default, *_ in options()}, **wifi()}
    for module in MODULES:
        found.update(numbers(module))
    return {name: value for name, value in found.items() if name not in OTHERS}


def on_the_page():
    """Return [(name, value)] of the rows; a time has the unit that the name in the code has."""
    found = []
    for table in docs.tables(TIMEOUTS):
        assert table[0][-1] == "in the code", table[0]
        for _, default, _, name in table[1:]:
            if name == "–":
                continue
            name = name.strip("`")
            number, unit = re.fullmatch(r"(\d+)(?: (s|ms|B))?", default).groups()
            milliseconds = "_ms" in name.lower() and unit == "s"
            found.append((name, int(number) * (1000 if milliseconds else 1)))
    return found


def test_every_time_out_and_bound_is_on_the_page():
    assert set(in_the_code()) - {name for name, _ in on_the_page()} == set()


def test_the_page_has_the_values_of_the_code():
    code = in_the_code()
    wrong = [f"{name}: {value}" for name, value in on_the_page() if code.get(name) != value]
    assert wrong == [], f"the code has {code}"


def key(value):
    """Return how a key of explain.ROWS is written in the docs."""
    if isinstance(value, int):
        return f"code {value - 1000}" if value >= 1000 else str(value)
    return f'"{value}"'


def test_the_table_of_errors_is_that_of_explain():
    lines = ["| in the error | cause | what to do |", "|---|---|---|"]
    for *keys, text in explain.ROWS:
        cause, cure = text.split("|")
        lines.append(f"| {', '.join(map(key, keys))} | {cause} | {cure} |")
    table = "\n".join(lines) + "\n"
    if os.environ.get("WRITE_DOCS"):
        docs.replace(TLS, "test: errors", table)
    assert table in TLS.read_text(), f"WRITE_DOCS=1 ./dev test {__file__} writes it anew:\n{table}"


def test_every_option_is_explained_somewhere():
    pages = "".join(path.read_text() for path in docs.FILES)
    missing = [name for name, *_ in options() if f"`{name}`" not in pages]
    assert missing == []


def test_the_readme_repeats_the_figures_of_the_tables():
    """Each row's numbers are in one row of a page that a tool writes, under the same words."""
    measured = {}
    for name in ("benchmarks.md", "size.md"):
        for table in docs.tables(ROOT / "docs" / name):
            for what, *cells in table:
                measured[what] = {number for cell in cells for number in cell.split()}
    figures = [row for table in docs.tables(ROOT / "README.md") for row in table[1:]]
    figures = [row for row in figures if re.search(r", (ms|B|/s)$", row[0])]
    assert len(figures) == 8
    for what, *cells in figures:
        numbers = {number for cell in cells for number in cell.split()} - {"to"}
        assert numbers <= measured[what], what


def test_the_page_of_the_client_has_each_argument_as_it_is():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    client = next(node for node in stub.body if getattr(node, "name", "") == "MQTTClient")
    made = next(node for node in client.body if getattr(node, "name", "") == "__init__").args
    defaults = dict(zip([each.arg for each in made.kwonlyargs], made.kw_defaults, strict=True))
    tables = docs.tables(ROOT / "docs/client.md")
    tables = [table for table in tables if table[0][0] == "argument"]
    rows = {row[0].strip("`"): row[1:] for table in tables for row in table[1:]}
    assert sum(map(len, tables)) - len(tables) == len(rows)
    assert set(rows) == {"host", "port", *defaults}
    for name, value in defaults.items():
        plain = rows[name][0].strip("`").partition(":")[0]
        assert name == "client_id" or plain == ast.unparse(value), name
    for name, _, low, high in options():
        least = "`max_packet`" if name == "max_backlog" else low
        assert rows[name][1] == f"{least} to {high}", name


def test_links_between_the_pages_lead_somewhere():
    def anchors(path):
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
        plain = [re.sub(r"[^\w\- ]", "", each.lower()) for each in headings]
        return {each.replace(" ", "-") for each in plain}

    dead = []
    for path in docs.FILES:
        source = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", source):
            name, _, anchor = target.partition("#")
            there = (path.parent / name) if name else path
            if not there.exists() or (anchor and anchor not in anchors(there)):
                dead.append(f"{path.name}: {target}")
    assert dead == []


def test_no_clock_is_believed_that_is_before_the_newest_release():
    """docs/releasing.md, "Each time": who gives a release its date writes that into the code."""
    released = in_source("clock", "_RELEASED")
    assert in_source("connection", "_EARLY") == released
    day = datetime.datetime.fromtimestamp(released, datetime.timezone.utc)
    assert (day.hour, day.minute, day.second) == (0, 0, 0)
    assert day <= datetime.datetime.now(datetime.timezone.utc)
    dates = re.findall(r"^## \[.*\] - (\d{4}-\d\d-\d\d)$", CHANGELOG.read_text(), re.MULTILINE)
    for date in dates[:1]:  # the newest one comes first
        assert f"{day:%Y-%m-%d}" == date
    comment = (PACKAGE / "clock.py").read_text()
    assert f"# {day:%Y-%m-%d}T00:00:00Z" in comment


def in_source(module, name):
    """Return the number that `name` is in a module."""
    (text,) = re.findall(
        rf"^{name} = const\((\d+)\)", (PACKAGE / f"{module}.py").read_text(), re.M
    )
    return int(text)
