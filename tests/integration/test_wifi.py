"""Wi-Fi on boards that fail in every known way: runs tests/device/wifi_tests.py."""

import pytest

from tests.support import mpy

TESTS = mpy.Tests(mpy.ROOT / "tests/device/wifi_tests.py", timeout_s=90)


@pytest.mark.parametrize("name", TESTS.names)
def test_wifi(name):
    TESTS.passes(name)


def test_every_test_was_found():
    assert sorted(TESTS.outcomes) == sorted(TESTS.names)


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
    assert out == "True ['127.0.0.1']\n"
