"""Programs of tests know a client's inside through tests/device/inside.py alone."""

import re
from pathlib import Path

CPYTHON_ONLY = True

TESTS = Path(__file__).parents[1]
PRIVATE = re.compile(r"\b(client|clients\[\d\]|other|c)\._[a-z]\w*")


def test_no_program_of_a_test_has_a_private_name_of_a_client():
    assert PRIVATE.search((TESTS / "device/inside.py").read_text())
    found = [
        f"{path.relative_to(TESTS)}:{number}: {line.strip()}"
        for folder in ("integration", "faults", "mqttls", "virtual_pico")
        for path in sorted((TESTS / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []
