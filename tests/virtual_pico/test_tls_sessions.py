"""Sessions of TLS that the C module in firmware/ resumes, and all that makes a handshake full."""

import re

import pytest

from tests.virtual_pico.desk import Desk
from tests.virtual_pico.pico import PicoError
from tools import firmware as builder

_LINK = "import config, asyncio; asyncio.run(config.link.up())"


@pytest.fixture
def desk(steps_firmware, tmp_path, pki):
    with Desk(steps_firmware, tmp_path, pki) as desk:
        desk.install("handshakes", "sessions")
        desk.pico.soft_reset()
        desk.pico.run(_LINK)
        yield desk


def trials(said):
    """Return {what: how} of a program's output."""
    return dict(re.findall(r"^trial (.*?) (full|resumed|\w+\(.*)\s*$", said, re.M))


def test_a_session_is_resumed_by_whom_it_was_made_with_and_by_nobody_else(desk, steps_firmware):
    address = builder.symbols(steps_firmware)["kept_session"]
    said = desk.pico.run(f"import sessions; sessions.cases({address})", timeout_s=600)
    found = trials(said)
    for what in ("other CA", "elsewhere", "no certificate", "expired"):
        assert "Error" in found.pop(what), what
    assert found == {
        "off": "full",
        "off again": "full",
        "no clock": "full",
        "no clock again": "full",
        "first": "full",
        "second": "resumed",
        "third": "resumed",
        "after elsewhere": "resumed",
        "after other CA": "full",
        "after no certificate": "full",
        "callback": "full",
        "callback again": "resumed",
        "after callback": "full",
        "unverified": "full",
        "after unverified": "full",
        "clock behind": "full",
        "in time": "resumed",
        "too late": "full",
        "after expired": "full",
        "repaired": "resumed",
        "damaged": "full",
        "after ended ones": "resumed",
        "forgotten": "full",
    }
    assert re.findall(r"^damaged (\w+)\s*$", said, re.M) == ["False"] * 8
    assert re.findall(r"^(kept|seen|left) (\w+)", said, re.M) == [
        ("seen", "True"),
        ("kept", "False"),
        ("left", "0"),
    ]


def test_it_outlasts_resets_and_a_broker_that_starts_anew_costs_a_full_handshake(desk):
    def again(what, seconds):
        desk.pico.run(_LINK)
        return trials(desk.pico.run(f"import sessions; sessions.again({what!r}, {seconds})"))[what]

    for wrong in (-1, 86401):
        with pytest.raises(PicoError, match="ValueError: seconds: 0"):
            desk.pico.run(f"import tls_steps; tls_steps.resume({wrong})")
    assert again("first", 0) == "full"
    desk.pico.soft_reset()
    assert again("soft reset", 60) == "resumed"
    desk.pico.start("import machine; machine.reset()")
    desk.pico.wait_for_boot()
    assert again("reset", 120) == "resumed"
    desk.pico.start("import machine; machine.deepsleep(500)")
    desk.pico.wait_for_boot()
    assert again("deep sleep", 150) == "resumed"
    desk.broker.restart()
    assert again("new broker", 180) == "full"
    assert again("new ticket", 240) == "resumed"
    desk.pico.power_cut()
    desk.pico.wait_for_power_off()
    desk.pico.power_on()
    assert again("power cut", 300) == "full"
