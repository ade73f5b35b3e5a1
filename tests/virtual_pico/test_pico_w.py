"""
A Pico W with its own driver: the README's app over Wi-Fi and TLS, and all that can go wrong with
Wi-Fi. Needs a firmware of MicroPython for it: PICO_W_FIRMWARE.
"""

import re
import signal
import subprocess
import sys
import time

import pytest

from tests.support import docs, patience, process
from tests.support.mpy import ROOT
from tests.virtual_pico import image
from tests.virtual_pico.desk import NETWORK, Desk
from tests.virtual_pico.figures import install

pytestmark = [pytest.mark.pico_w, pytest.mark.timeout(600)]

SSID, PASSWORD = NETWORK["ssid"], NETWORK["password"]
NOTICED_S = 30  # until each fault that passes by itself has been noticed
BACK_S = 900  # a board whose radio did not start waits for up to half an hour between two tries
FAST = 20


@pytest.fixture(scope="module")
def desk(pico_w_firmware, dist, pki, tmp_path_factory):
    """A Desk with a Pico W onto which the package was installed."""
    with Desk(pico_w_firmware, tmp_path_factory.mktemp("desk"), pki, wifi=True) as desk:
        install(desk.pico, dist / "mip/package.json")
        yield desk


def test_the_readmes_app_runs_over_wifi_and_tls(desk):
    pico = desk.pico
    peer = desk.broker.peer("devices/#")
    pico.wifi.history()
    pico.start(docs.text("app"))
    pico.wait_for(r"connected in \d+ ms \(TLS \d+\)")
    peer.publish("devices/garden/valve/1", "open", qos=1)
    pico.wait_for("devices/garden/valve/1 b'open'")
    assert {message.topic for message in peer.wait_for(2)} >= {
        "devices/garden/temperature",
        "devices/garden/status",
    }
    asked = "\n".join(text for _, text in pico.wifi.history())
    assert "set country" in asked and "event PSK_SUP status=6" in asked and "DHCP 3" in asked
    assert pico.wifi.state()["power_save"] == 0
    pico.interrupt()


# What goes wrong, for how many seconds, and how it is mended; None: it passes by itself, or the
# board has to do it
FAULTS = {
    "an access point that is off": (
        lambda pico: pico.wifi.access_point(SSID, False),
        60,
        lambda pico: pico.wifi.access_point(SSID, True),
    ),
    "beacons that are lost": (
        lambda pico: pico.wifi.air(beacons=False),
        60,
        lambda pico: pico.wifi.air(beacons=True),
    ),
    "a goodbye": (lambda pico: pico.wifi.kick(), NOTICED_S, None),
    "a goodbye of which nobody is told": (
        lambda pico: (pico.wifi.air(rejoins=False), pico.wifi.kick("disassoc", told=False)),
        NOTICED_S,
        None,
    ),
    "a goodbye after which the chip stays away": (
        lambda pico: (pico.wifi.air(rejoins=False), pico.wifi.kick()),
        NOTICED_S,
        None,
    ),
    "a chip that leaves": (lambda pico: pico.wifi.lapse(), NOTICED_S, None),
    "keys that differ": (lambda pico: pico.wifi.keys_differ(), NOTICED_S, None),
    "an access point that forgot the board": (lambda pico: pico.wifi.forget(), NOTICED_S, None),
    "an association that carries nothing": (
        lambda pico: pico.wifi.air(carries=False),
        90,
        lambda pico: pico.wifi.air(carries=True),
    ),
    "a chip that does not leave": (
        lambda pico: pico.wifi.air(carries=False, deaf_leave=True),
        60,
        lambda pico: pico.wifi.heal(),
    ),
    **{
        f"another password, {how}": (
            lambda pico, how=how: (
                pico.wifi.air(wrong_key=how),
                pico.wifi.add(SSID, "another-password"),
                pico.wifi.kick(),
            ),
            100,
            lambda pico: pico.wifi.add(SSID, PASSWORD),
        )
        for how in ("deauth", "timeout", "retry", "silent")
    },
    **{
        f"authentication, {how}": (
            lambda pico, how=how: (pico.wifi.air(authentication=how), pico.wifi.kick()),
            90,
            lambda pico: pico.wifi.air(authentication="up"),
        )
        for how in ("silent", "none")
    },
    "a weak signal": (
        lambda pico: (
            pico.wifi.air(weak_joins=4),
            pico.wifi.kick(),
            pico.fault(lose_to_device=0.2, lose_from_device=0.2),
        ),
        60,
        lambda pico: pico.heal(),
    ),
    **{
        f"DHCP, {how}": (
            lambda pico, how=how: (pico.wifi.router(dhcp=how), pico.wifi.kick()),
            90,
            lambda pico: pico.wifi.router(dhcp="up"),
        )
        for how in ("silent", "nak", "offer")
    },
    "DHCP, slow": (
        lambda pico: (pico.wifi.router(dhcp_ms=3000), pico.wifi.kick()),
        60,
        lambda pico: pico.wifi.router(dhcp_ms=5),
    ),
    "another address": (
        lambda pico: (pico.wifi.router(address="10.77.0.42"), pico.wifi.kick()),
        NOTICED_S,
        None,
    ),
    "the first address again": (
        lambda pico: (pico.wifi.router(address="10.77.0.2"), pico.wifi.kick()),
        NOTICED_S,
        None,
    ),
    "ARP without answers": (
        lambda pico: (pico.wifi.router(arp="silent"), pico.wifi.kick()),
        60,
        lambda pico: pico.wifi.router(arp="up"),
    ),
    **{
        f"a chip that is {how}": (
            lambda pico, how=how: pico.wifi.chip(**{how: True}),
            NOTICED_S,
            None,
        )
        for how in ("hung", "clogged", "creditless")
    },
    "commands without answers": (
        lambda pico: (pico.wifi.air(unanswered=["*"]), pico.wifi.kick()),
        90,
        lambda pico: pico.wifi.air(unanswered=[]),
    ),
    "a chip that is dead": (
        lambda pico: pico.wifi.chip(dead=True),
        120,
        lambda pico: pico.wifi.chip(dead=False),
    ),
}


@pytest.fixture(scope="module")
def job(desk):
    """(the desk, a peer that hears the numbers that its board counts), for all faults one run."""
    desk.install("job")
    peer = desk.broker.peer("from/pico/count", qos=1)
    pico = desk.pico
    pico.start("import asyncio, job; asyncio.run(job.run(job.make(4)))")
    pico.wait_for("connected in")
    peer.wait_for(3)
    yield desk, peer
    assert "Traceback" not in pico.output
    numbers = [int(message.payload) for message in peer.messages]
    assert sorted(set(numbers)) == list(range(numbers[0], max(numbers) + 1))  # none is lost


@pytest.mark.parametrize("name", FAULTS)
def test_the_board_comes_back_after(job, name):
    come_back(job, name)


def come_back(job, name, *, most_s=BACK_S, speed=FAST):
    """
    Have a fault of `job`, and wait until its board is back.

    name    str, of FAULTS
    most_s  how long it lasts at most
    speed   how many times faster than ours time goes afterwards
    """
    desk, peer = job
    pico = desk.pico
    begin, seconds, mend = FAULTS[name]
    begin(pico)
    pico.set_speed(FAST)
    _pass(pico, min(seconds, most_s))
    pico.set_speed(speed)
    if mend:
        mend(pico)
    count, mended = len(peer.messages), pico.emulated_s()
    while len(peer.messages) < count + 3:
        assert pico.emulated_s() < mended + BACK_S, pico.wifi.history()[-30:]
        time.sleep(0.05)
    print(f"{name}: back after {pico.emulated_s() - mended:.0f} s")
    pico.set_speed(1)
    pico.heal()
    pico.wifi.heal()


def _pass(pico, seconds):
    """Wait until `seconds` have gone by for the board, though it may stand still in the driver."""
    end = pico.emulated_s() + seconds
    deadline = time.monotonic() + patience.stretched(300)
    while pico.emulated_s() < end:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_download_runs_at_the_prompt_and_its_files_stay(pico_w_firmware, tmp_path):
    download = tmp_path / "download.uf2"
    download.write_bytes(image.uf2(image.read(pico_w_firmware).data))
    command = [sys.executable, "-m", "tests.virtual_pico", "--firmware", str(download)]
    command += ["--folder", str(tmp_path / "board")]
    join = """
import network, os, time
wlan = network.WLAN(network.STA_IF)
wlan.active(True)
wlan.connect("my-ssid", "my-password")
while not wlan.isconnected():
    time.sleep_ms(20)
print(wlan.ifconfig()[0], os.listdir())
open("kept.txt", "w").close()
"""
    for files in "[]", "['kept.txt']":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = process.spawn(command, cwd=ROOT, text=True, **pipes)
        try:
            lines = (re.search(r"connect (\S+)", line) for line in running.stdout)
            url = next(filter(None, lines))[1]
            said = subprocess.run(
                [sys.executable, "-m", "mpremote", "connect", url, "exec", join],
                capture_output=True,
                text=True,
                timeout=patience.stretched(60),
                check=True,
            )
            assert said.stdout.strip() == f"10.77.0.2 {files}"
            running.stdin.close()
            process.signal_group(running, signal.SIGINT)
            assert running.wait(patience.stretched(20)) == 0
        finally:
            process.end(running)
            running.stdout.close()
