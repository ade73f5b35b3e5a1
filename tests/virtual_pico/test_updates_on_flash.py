"""Updates on the chip: its flash, its timer, its watchdog, and power that goes within a write."""

import json
import random

import pytest

from tests.support import mpy
from tests.virtual_pico.desk import PROGRAMS
from tools.mqttls import certificates, updates

MAIN = "import mqtt_update\nmqtt_update.start('app', version=1, trial_s=3)\n"
TOPIC = "devices/garden/update"


def app(number):
    text = (PROGRAMS / "updated.py").read_text()
    return text.replace("number = 1", f"number = {number}").encode()


@pytest.fixture
def key():
    return certificates.new_key("rsa3072")


@pytest.fixture
def pico(desk, key):
    """The desk's Pico, on which version 1 of the app runs."""
    desk.pico.put("/certs/update.der", updates.public_der(key))
    desk.pico.put("/mqtt_update.py", (mpy.ROOT / "update/mqtt_update.py").read_bytes())
    desk.pico.put("/app.py", app(1))
    desk.pico.put("/main.py", MAIN)
    with desk.broker.peer(f"{TOPIC}/status") as peer:
        desk.pico.reset()
        desk.pico.wait_for("^runs 1 of 1")
        peer.wait_for()  # it is subscribed then
    return desk.pico


def update(key, version, text=None, **files):
    held = {"app.py": text.encode() if text is not None else app(version), **files}
    return updates.packed("app", version, held, key)


def test_a_new_app_with_60_kb_of_data_is_installed_and_kept(desk, pico, key):
    peer = desk.broker.peer(f"{TOPIC}/status")
    data = random.Random(1).randbytes(60_000)
    peer.publish(TOPIC, update(key, 2, **{"lib/data.bin": data}))
    said, count = {}, 0
    while said.get("version") != 2:
        count += 1
        said = json.loads(peer.wait_for(count, timeout_s=200)[-1].payload)
    assert said["failed"] == 0
    pico.reset()  # it is tried no more
    pico.wait_for("^runs 2 of 2")
    assert pico.get("/updates/2/lib/data.bin") == data
    assert pico.get("/updates/state") == b"2 0 0 0"


HANGS = {
    "in a loop": "while True:\n    pass\n",
    "where only a watchdog helps": """
import machine
machine.WDT(timeout=2000)
machine.disable_irq()
while True:
    pass
""",
    "and never connects": "import asyncio\nasyncio.run(asyncio.sleep(100_000))\n",
}


@pytest.mark.parametrize("text", HANGS.values(), ids=HANGS)
def test_a_new_app_that_hangs_is_taken_back(desk, pico, key, text):
    peer = desk.broker.peer(f"{TOPIC}/status")
    peer.publish(TOPIC, update(key, 2, text))
    # what version 1 says when it is back
    said, count = {}, 0
    while said.get("failed") != 2:
        count += 1
        said = json.loads(peer.wait_for(count, timeout_s=200)[-1].payload)
    assert said["version"] == 1


def test_what_does_not_fit_the_flash_is_refused_before_it_is_written(desk, pico, key):
    peer = desk.broker.peer(f"{TOPIC}/status")
    writes = pico.flash_writes()
    desk.broker.peer().publish(TOPIC, update(key, 2, **{"large.bin": bytes(900_000)}))
    count = 1
    while not (said := json.loads(peer.wait_for(count)[-1].payload))["said"]:
        count += 1
    assert "KB of flash" in said["said"] and said["version"] == 1
    assert pico.flash_writes() - writes < 10  # a folder


@pytest.mark.parametrize(("cut", "part"), [(3, 0.5), (11, 0.9), (20, 0.1)])
def test_power_that_goes_while_it_is_written_leaves_the_old_one(desk, pico, key, cut, part):
    pico.power_cut(after_ops=cut, part=part)
    peer = desk.broker.peer()
    peer.publish(TOPIC, update(key, 2, **{"data.bin": bytes(range(256)) * 80}))
    pico.wait_for_power_off()
    pico.power_on()
    pico.wait_for("^runs 1 of 1")
    # the broker has the message still, as it was not acknowledged: it comes again, and is taken
    pico.wait_for_boot()
    pico.wait_for("^runs 2 of 2")
