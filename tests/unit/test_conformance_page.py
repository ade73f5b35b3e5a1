"""
docs/conformance.md says what the tests' docstrings say, and nothing is left open.

WRITE_DOCS=1 in the environment writes the page anew.
"""

import os
import re

from tools import conformance

CPYTHON_ONLY = True

COUNTS = {"3.1.1": 141, "5.0": 251}  # of the specifications' appendix B
GAPS = {"5.0": {"2.2.1-1"}}  # there is no such number
# to be tested still
OPEN = {
    "3.1.1": set(
        """
        1.5.3-3 2.2.2-1 2.3.1-2 2.3.1-5 3.1.0-1 3.1.0-2 3.1.2-3 3.1.2-11 3.1.2-13 3.1.2-15
        3.1.2-18 3.1.2-19 3.1.2-20 3.1.2-21 3.1.3-1 3.1.3-3 3.1.3-4 3.1.3-7 3.1.3-10 3.1.3-11
        3.6.1-1 3.8.1-1 3.8.3-3 3.8.3-4 3.10.1-1 3.10.3-2 3.14.4-1 3.14.4-2 4.3.3-1 4.6.0-3
        4.6.0-4
        """.split()
    ),
    "5.0": set(
        """
        1.5.4-3 1.5.5-1 1.5.7-1 2.1.3-1 2.2.1-2 2.2.1-3 2.2.1-5 2.2.2-1 3.1.0-1 3.1.0-2 3.1.2-1
        3.1.2-2 3.1.2-3 3.1.2-4 3.1.2-9 3.1.2-11 3.1.2-12 3.1.2-13 3.1.2-16 3.1.2-17 3.1.2-18
        3.1.2-19 3.1.2-20 3.1.2-21 3.1.2-23 3.1.2-30 3.1.3-1 3.1.3-2 3.1.3-3 3.1.3-4 3.1.3-11
        3.1.3-12 3.2.2-4 3.2.2-5 3.2.2-11 3.2.2-14 3.2.2-15 3.2.2-17 3.2.2-18 3.2.2-21 3.3.1-1
        3.3.1-2 3.3.1-3 3.3.1-4 3.3.2-7 3.3.2-8 3.3.2-9 3.3.2-10 3.3.2-13 3.3.2-14 3.3.2-19
        3.3.4-1 3.3.4-6 3.3.4-7 3.3.4-8 3.4.2-1 3.4.2-2 3.4.2-3 3.5.2-1 3.5.2-2 3.5.2-3 3.6.1-1
        3.6.2-1 3.6.2-2 3.6.2-3 3.7.2-1 3.7.2-2 3.7.2-3 3.8.1-1 3.8.3-2 3.8.3-4 3.8.3-5 3.10.1-1
        3.10.3-2 3.14.1-1 3.14.2-1 3.14.2-3 3.14.2-4 3.14.4-1 3.14.4-2 3.15.1-1 3.15.2-1
        3.15.2-2 3.15.2-3 4.1.0-1 4.2.0-1 4.3.1-1 4.3.2-1 4.3.2-2 4.3.2-3 4.3.2-4 4.3.2-5
        4.3.3-1 4.3.3-2 4.3.3-3 4.3.3-4 4.3.3-5 4.3.3-6 4.3.3-7 4.3.3-8 4.3.3-9 4.3.3-10
        4.3.3-11 4.3.3-12 4.3.3-13 4.4.0-1 4.4.0-2 4.5.0-2 4.6.0-1 4.6.0-2 4.6.0-3 4.6.0-4
        4.9.0-1 4.9.0-2 4.9.0-3 4.12.0-3 4.12.0-5 4.12.0-7 4.12.1-1 4.12.1-2 4.13.2-1
        """.split()
    ),
}


def test_the_page_is_what_the_tests_say():
    text = conformance.page()
    if os.environ.get("WRITE_DOCS"):
        conformance.PAGE.write_text(text)
    assert conformance.PAGE.read_text() == text, f"WRITE_DOCS=1 ./dev test {__file__} writes it"


def test_every_tag_names_a_statement():
    known = {version: conformance.statements(version) for version in COUNTS}
    wrong = [each for each in conformance.tags() if each[1] not in known[each[0]]]
    assert wrong == []


def test_every_line_of_tags_is_in_a_test_and_well_formed():
    for path in (conformance.ROOT / "tests").rglob("*.py"):
        read = sum(len(conformance.LINE.findall(source)) for _, source in conformance.tests(path))
        meant = re.findall(r"MQTT [\d.]+:? \[MQTT.*", path.read_text())
        assert len(meant) == read, f"{path}: tools/conformance.py says how to write: {meant}"


def test_what_binds_a_client_has_a_test_or_a_reason():
    for version, known in conformance.collect().items():
        ours = [each for each in known.values() if each.binds != "server"]
        bare = {each.id for each in ours if not each.tests and not each.reason}
        assert bare == OPEN[version], f"MQTT {version}: {bare ^ OPEN[version]}"


def test_no_statement_with_a_test_has_a_reason_to_have_none():
    for known in conformance.collect().values():
        assert [each.id for each in known.values() if each.tests and each.reason] == []


def test_the_lists_are_complete():
    for version, count in COUNTS.items():
        known = conformance.statements(version)
        assert len(known) == count
        assert {each.binds for each in known.values()} == {"client", "server", "both"}
        for each in known:
            part, _, last = each.rpartition("-")
            before = f"{part}-{int(last) - 1}"
            assert last == "1" or before in known or before in GAPS[version], each
