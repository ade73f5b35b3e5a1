"""Wi-Fi on boards that fail in every known way: runs tests/device/wifi_tests.py."""

import ast

import pytest

from tests.support import mpy

PROGRAM = mpy.ROOT / "tests/device/wifi_tests.py"
NAMES = [
    node.name
    for node in ast.parse(PROGRAM.read_text()).body
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
]


@pytest.fixture(scope="module")
def outcomes():
    """What the program printed for each test: {name: "ok" or the failure}."""
    found = {}
    for line in mpy.check(PROGRAM, timeout_s=90).splitlines():
        word, _, name = line.partition(" ")
        if word in ("ok", "FAILED"):
            found[name] = word
            last = name
        else:
            found[last] += "\n" + line
    return found


@pytest.mark.parametrize("name", NAMES)
def test_wifi(outcomes, name):
    assert outcomes.get(name, "it did not run") == "ok"


def test_every_test_was_found(outcomes):
    assert sorted(outcomes) == sorted(NAMES)


def test_wifi_can_be_imported_where_there_is_no_network_module():
    out = mpy.check(
        """
        from mqtt_as_tls.wifi import WiFi
        try:
            WiFi("home", "correct horse")
        except ValueError as error:
            print(error)
        """
    )
    assert out == "no Wi-Fi here: pass link=None\n"


def test_a_program_that_knows_nothing_of_the_fake_joins_with_it():
    path = mpy.environment()["MICROPYPATH"] + f":{mpy.ROOT}/tests/fakes"
    out = mpy.check(
        """
        import asyncio
        from mqtt_as_tls.wifi import WiFi
        wifi = WiFi("my-ssid", "my-password")
        asyncio.run(wifi.up())
        print(wifi.is_up(), wifi.dns_servers())
        """,
        env={"MICROPYPATH": path, "FAKE_WIFI": "my-ssid:my-password"},
    )
    assert out == "True ['192.168.4.1']\n"
