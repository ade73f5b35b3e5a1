"""The radio of a virtual Pico W: runs emulator/radio_checks.mjs, which has no firmware."""

import functools
import json
import re
import subprocess

import pytest

from tests.support import node, patience
from tests.virtual_pico.pico import EMULATOR, install

CHECKS = EMULATOR / "radio_checks.mjs"
NAMES = re.findall(r"^  '(.+)'\(\) \{$", CHECKS.read_text(), re.M)


@functools.cache
def outcomes():
    """Return {name of a check: None, or what went wrong}; one process does all of them."""
    install()
    done = subprocess.run(
        [node.node(), CHECKS],
        capture_output=True,
        text=True,
        timeout=patience.stretched(60),
        check=False,
    )
    found = map(json.loads, done.stdout.splitlines())
    return {each["name"]: each["error"] for each in found} or {"": done.stderr}


@pytest.mark.parametrize("name", NAMES)
def test_radio(name):
    if error := outcomes()[name]:
        pytest.fail(error, pytrace=False)


def test_every_check_was_found():
    assert list(outcomes()) == NAMES
