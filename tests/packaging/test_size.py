"""
What the modules take is within its budgets, and docs/size.md says it.

WRITE_DOCS=1 in the environment writes the page anew.
"""

import os

import pytest

from tools import freeze, size

# the first test builds what measures
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def sizes():
    try:
        return size.measure()
    except freeze.Unavailable as reason:
        pytest.skip(f"sizes were not measured: {reason}")


def test_no_budget_is_passed(sizes):
    assert size.passed(sizes) == [], size.modules_text(sizes)


def test_the_page_says_what_each_module_takes(sizes):
    old = size.PAGE.read_text()
    new = size.put(old, "modules", size.modules_text(sizes))
    if os.environ.get("WRITE_DOCS"):
        size.PAGE.write_text(new)
        old = new
    assert size.is_same(old, new), f"WRITE_DOCS=1 ./dev test {__file__} writes it anew:\n{new}"


def test_the_page_has_every_module_once():
    names = [*size.WORKING, *size.LATER]
    assert sorted(names) == sorted(path.stem for path in size.PACKAGE.glob("*.py"))


def test_a_budget_that_is_passed_is_named(sizes, monkeypatch):
    monkeypatch.setitem(size.BUDGETS, "frozen", 8000)
    (told,) = size.passed(sizes)
    assert told.startswith("frozen: ") and told.endswith(" B, budget 8,000 B")


def test_a_page_that_is_far_from_the_figures_is_out_of_date():
    page = "| `client` | 10,238 | 1,696 |"
    assert size.is_same(page, "| `client` | 10,400 | 1,750 |")
    assert not size.is_same(page, "| `client` | 11,238 | 1,696 |")
    assert not size.is_same(page, "| `clock` | 10,238 | 1,696 |")


def test_the_command_ends_with_0_when_all_is_well_and_with_the_reason_when_not(sizes, monkeypatch):
    monkeypatch.setattr("sys.argv", ["size", "--check"])
    monkeypatch.setattr(size, "measure", lambda: sizes)
    assert size.main() is None
    monkeypatch.setitem(size.BUDGETS, "frozen", 1)
    assert "budget passed" in size.main()
