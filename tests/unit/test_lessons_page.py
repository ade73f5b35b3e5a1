"""docs/testing.md and the tests that are called after its lessons name each other."""

import re

from tests.support import docs
from tools import conformance

CPYTHON_ONLY = True

PAGE = conformance.ROOT / "docs/testing.md"


def there_are():
    """Return the names (set) of all tests, as "test_file.py::test_name"."""
    files = (conformance.ROOT / "tests").rglob("test_*.py")
    return {f"{path.name}::{name}" for path in files for name, _ in conformance.tests(path)}


def on_the_page():
    """Return [(number, set of tests)], one for each row."""
    (table,) = [each for each in docs.tables(PAGE) if each[0][0] == "lesson"]
    return [(int(n), set(re.findall(r"`(\w+\.py::\w+)`", tests))) for n, _, tests in table[1:]]


def test_the_lessons_are_numbered_and_each_has_a_test_that_exists():
    rows = on_the_page()
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    existing = there_are()
    assert [number for number, tests in rows if not tests or tests - existing] == []


def test_every_test_that_is_called_after_a_lesson_is_in_its_row():
    called = {
        (int(number), name)
        for name in there_are()
        for number in re.findall(r"::test_lesson_(\d+)_", name)
    }
    named = {(number, name) for number, tests in on_the_page() for name in tests}
    assert called - named == set()
    assert {each for each in named if "::test_lesson_" in each[1]} - called == set()
