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


def test_the_page_is_what_the_tests_say():
    text = conformance.page()
    if os.environ.get("WRITE_DOCS"):
        conformance.PAGE.write_text(text)
    assert conformance.PAGE.read_text() == text, f"WRITE_DOCS=1 ./dev test {__file__} writes it"


def test_every_tag_names_a_statement_that_binds_a_client():
    known = {version: conformance.statements(version) for version in COUNTS}
    wrong = []
    for version, number, test in conformance.tags():
        statement = known[version].get(number)
        if statement is None or statement.binds == "server":
            wrong.append((version, number, test))
    assert wrong == []


def test_every_statement_that_the_code_names_is_one():
    known = {each for version in COUNTS for each in conformance.statements(version)}
    for path in sorted((conformance.ROOT / "mqtt_as_tls").glob("*.py")):
        named = set(re.findall(r"-(\d+\.\d+\.\d+-\d+)[],]", path.read_text()))
        assert named - known == set(), path


def test_every_line_of_tags_is_in_a_test_and_well_formed():
    for path in (conformance.ROOT / "tests").rglob("*.py"):
        read = sum(len(conformance.LINE.findall(source)) for _, source in conformance.tests(path))
        meant = re.findall(r"MQTT [\d.]+:? \[MQTT.*", path.read_text())
        assert len(meant) == read, f"{path}: tools/conformance.py says how to write: {meant}"


def test_what_binds_a_client_has_a_test_or_a_reason():
    for version, known in conformance.collect().items():
        ours = [each for each in known.values() if each.binds != "server"]
        bare = {each.id for each in ours if not each.tests and not each.reason}
        assert bare == set(), f"MQTT {version}: nothing shows these"


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
