"""
Signed updates of an app (update/mqtt_update.py): what is good is installed, tried, kept or taken
back; what is not leaves the board as it was.
"""

import json
import os

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.support import mpy
from tests.support.board import FAKES, HOME, Board
from tools.mqttls import certificates, updates

MAIN = "import mqtt_update\nmqtt_update.start('app', version=1)\n"
APP = """
import asyncio
import config
import mqtt_update
from mqtt_as_tls import MQTTClient

client = MQTTClient(**config.mqtt)
mqtt_update.listen(client, config.home + "update", "update.der")

async def main():
    async with client:
        print("runs", mqtt_update.version, "of", NUMBER)
        await asyncio.sleep(3600)

asyncio.run(main())
"""
STATUS = HOME + "update/status"
PATH = {"MICROPYPATH": f"{FAKES}:{mpy.ROOT / 'update'}:{mpy.environment()['MICROPYPATH']}"}


@pytest.fixture(scope="session")
def key():
    return certificates.new_key("rsa3072")


def app(number, text=APP):
    return text.replace("NUMBER", str(number)).encode()


def good(key, version, text=APP, **files):
    return updates.packed("app", version, {"app.py": app(version, text), **files}, key)


def made(key, said, body=b"", magic=b"MUP1"):
    """Return what is signed, whatever is in it."""
    manifest = said if isinstance(said, bytes) else json.dumps(said).encode()
    head = magic + len(manifest).to_bytes(2, "big") + manifest
    return head + key.sign(head, padding.PKCS1v15(), hashes.SHA256()) + body


class Updated:
    """A board with main.py, app.py and the key, at a broker."""

    def __init__(self, folder, pki, broker, key):
        self.board = Board(folder, pki)
        self.board.settings(broker.port)
        self.at = self.board.directory
        (self.at / "update.der").write_bytes(updates.public_der(key))
        (self.at / "app.py").write_bytes(app(1))
        self.peer = broker.peer(STATUS)
        self._told = 0

    def boot(self, main=MAIN):
        return self.board.start(main, env=PATH)

    def send(self, data):
        self.peer.publish(HOME + "update", data)

    def told(self):
        """Return the next status (dict)."""
        self._told += 1
        return json.loads(self.peer.wait_for(self._told, topic=STATUS)[self._told - 1].payload)

    def versions(self):
        """Return the names of what is in the folder of updates."""
        folder = self.at / "updates"
        return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def updated(tmp_path, pki, mtls_broker, key):
    return Updated(tmp_path / "board", pki, mtls_broker, key)


def runs(running, version, number=None):
    running.wait_for(f"^runs {version} of {number or version}$")


def restarts(running):
    running.wait_for("^machine: reset")
    running.wait()


def test_an_update_is_installed_tried_and_kept(updated, key):
    (updated.at / "secret.py").write_text("own = 1\n")
    with updated.boot() as running:
        runs(running, 1)
        assert updated.told() == {"app": "app", "version": 1, "failed": 0, "said": ""}
        updated.send(good(key, 2, **{"lib/more.py": b"x = 1\n", "empty.txt": b""}))
        assert updated.told()["said"] == "installed 2, starting it"
        restarts(running)
    assert updated.versions() == ["2", "state"]
    assert (updated.at / "updates/2/lib/more.py").read_bytes() == b"x = 1\n"
    with updated.boot() as running:
        runs(running, 2)
        assert updated.told()["version"] == 2
        updated.send(good(key, 7))
        assert updated.told()["said"] == "installed 7, starting it"
        restarts(running)
    for _ in range(2):  # once it has connected it stays
        with updated.boot() as running:
            runs(running, 7)
            assert updated.told()["version"] == 7
    assert updated.versions() == ["7", "state"]
    assert (updated.at / "secret.py").exists()


def test_an_app_of_the_cable_that_is_newer_runs(updated, key):
    with updated.boot() as running:
        updated.told()
        updated.send(good(key, 2))
        restarts(running)
    with updated.boot(MAIN.replace("version=1", "version=5")) as running:
        runs(running, 5, 1)
        assert updated.versions() == ["state"]


BROKEN = {
    "raises": "raise ValueError('the new one is broken')",
    "is no Python": "if:",
    "imports what is not there": "import nowhere",
    "has no memory": "x = bytearray(1 << 40)",
    "ends": "pass",
    "exits": "import sys\nsys.exit()",
    "is killed": "import machine\nmachine.reset()",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_an_app_that_does_not_come_up_is_taken_back(updated, key, text):
    with updated.boot() as running:
        updated.told()
        updated.send(good(key, 2, text))
        restarts(running)
    with updated.boot() as running:
        running.wait()
    updated.told()  # that it is installed
    with updated.boot() as running:
        running.wait_for("^update: version 2 did not connect, back to the one before")
        runs(running, 1)
        assert updated.told() == {"app": "app", "version": 1, "failed": 2, "said": ""}
        updated.send(good(key, 2))  # the same number again is not tried again
        assert "refused: not newer" in updated.told()["said"]
        updated.send(good(key, 3))
        restarts(running)
    with updated.boot() as running:
        runs(running, 3)


# Attacks


def refused(updated, data, why="refused: "):
    updated.send(data)
    said = updated.told()
    assert said["said"].startswith(why), said
    assert said["version"] == 1
    assert "state" not in updated.versions()


def test_what_was_changed_on_its_way_is_refused_and_what_was_not_is_taken(updated, key):
    data = good(key, 2, "print(1)")
    size = 6 + int.from_bytes(data[4:6], "big")
    with updated.boot() as running:
        updated.told()
        for at in (0, 4, 5, 6, size - 1, size, size + 383, size + 384, len(data) - 1):
            wrong = bytearray(data)
            wrong[at] ^= 1
            refused(updated, bytes(wrong))
        assert updated.versions() == []
        updated.send(data)
        restarts(running)


def test_what_is_cut_or_longer_is_refused_before_anything_is_written(updated, key):
    data = good(key, 2)
    with updated.boot():
        updated.told()
        for at in (1, 5, 6, 50, 200, 500, len(data) - 1):
            refused(updated, data[:at])
        for more in (b"x", bytes(100_000), data):
            refused(updated, data + more, "refused: more or less than its manifest says")
        assert updated.versions() == []


def test_another_key_signs_nothing(updated, key):
    other = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    modulus = key.public_key().public_numbers().n
    data = good(key, 2)
    size = int.from_bytes(data[4:6], "big")
    before, after = data[: 6 + size], data[6 + size + 384 :]
    with updated.boot():
        updated.told()
        refused(updated, good(other, 2), "refused: not signed")
        # numbers whose power is what it was, or nothing: 0, 1, n - 1, n, s + n
        signature = int.from_bytes(data[6 + size : 6 + size + 384], "big")
        for number in (0, 1, modulus - 1, modulus, signature + modulus, (1 << 3072) - 1):
            if number < 1 << 3072:
                forged = before + number.to_bytes(384, "big") + after
                refused(updated, forged, "refused: not signed")
        for scheme, hashed in (
            (padding.PKCS1v15(), hashes.SHA1()),
            (padding.PKCS1v15(), hashes.SHA512()),
            (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        ):
            forged = before + key.sign(before, scheme, hashed) + after
            refused(updated, forged, "refused: not signed")


def test_an_old_version_and_one_for_another_app_are_not_taken(updated, key):
    old = good(key, 2)
    with updated.boot() as running:
        updated.told()
        refused(updated, good(key, 1), "refused: not newer")
        other = updates.packed("garden", 9, {"garden.py": b"", "app.py": b""}, key)
        refused(updated, other, "refused: for another app")
        updated.send(good(key, 3))
        restarts(running)
    with updated.boot() as running:
        updated.told()
        updated.told()
        for again in (old, good(key, 3)):
            updated.send(again)
            assert "refused: not newer" in updated.told()["said"]
        assert updated.versions() == ["3", "state"]


NAMES = (
    "../boot.py ../../boot.py /boot.py a/../boot.py a/./b .hidden a/.b a//b a/ / . .. ~/x a\\b"
    " C:x a:b x%2f..%2fy"
).split() + ["", "a b", "a\0b", "boot.py\n", "\x1b[2J", "ä.py", "x" * 65, "a/b/c/d/e", "a/b/../.."]


def test_a_name_that_leads_elsewhere_is_refused_though_it_is_signed(updated, key):
    before = set(os.listdir(updated.at))
    with updated.boot():
        updated.told()
        for name in NAMES:
            said = {"app": "app", "version": 2, "sha256": "", "files": [["app.py", 0], [name, 0]]}
            refused(updated, made(key, said), "refused: a file with an impossible name")
        assert set(os.listdir(updated.at)) - before <= {"main.py", "updates"}


GOOD = {"app": "app", "version": 2, "sha256": "", "files": [["app.py", 0]]}
MANIFESTS = {
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "deep": b"[" * 4000,
    "nothing": b"{}",
    **{f"no {name}": {k: v for k, v in GOOD.items() if k != name} for name in GOOD},
    "a version in words": {**GOOD, "version": "3"},
    "half a version": {**GOOD, "version": 2.5},
    "a large version": {**GOOD, "version": 1 << 40},
    "a negative version": {**GOOD, "version": -2},
    "files that are none": {**GOOD, "files": 7},
    "a file without a size": {**GOOD, "files": [["app.py"]]},
    "a size in words": {**GOOD, "files": [["app.py", "0"]]},
    "a negative size": {**GOOD, "files": [["app.py", 5], ["a", -5]]},
    "a name that is a number": {**GOOD, "files": [[7, 0]]},
    "a file twice": {**GOOD, "files": [["app.py", 0], ["app.py", 0]]},
    "a file that is a folder, too": {**GOOD, "files": [["app.py", 0], ["app.py/a", 0]]},
    "no app": {**GOOD, "files": [["other.py", 0]]},
    "many files": {**GOOD, "files": [["app.py", 0]] + [[f"a{n}", 0] for n in range(64)]},
    "another hash": {**GOOD, "sha256": "0" * 64},
    "a hash that is none": {**GOOD, "sha256": 7},
}


def test_a_manifest_that_is_none_is_refused_though_it_is_signed(updated, key):
    with updated.boot():
        updated.told()
        for what, said in MANIFESTS.items():
            updated.send(made(key, said))
            told = updated.told()["said"]
            assert told.startswith(("refused: ", "failed: flash: ")), (what, told)
            assert updated.versions() == [], what


def test_two_at_once_end_in_one(updated, key):
    with updated.boot() as running:
        updated.told()
        updated.peer.publish_all(HOME + "update", [good(key, 2), good(key, 3), good(key, 4)])
        restarts(running)
    seen = set(updated.versions()) - {"state"}
    assert len(seen) == 1
    with updated.boot() as running:
        runs(running, seen.pop())


def test_what_a_lost_connection_cut_comes_again(updated, key, mtls_broker):
    text = APP + "#" * 400_000
    with updated.boot() as running:
        updated.told()
        updated.send(good(key, 2, text))
        while not (updated.at / "updates/2/app.py").exists():
            assert running.report() is not None
        mtls_broker.restart()
        restarts(running)
    with updated.boot() as running:
        runs(running, 2)


def test_a_key_that_is_none_is_told_at_once(updated, key):
    small = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for wrong in (b"", b"x" * 422, updates.public_der(small), updates.public_der(key)[:-1]):
        (updated.at / "update.der").write_bytes(wrong)
        with updated.boot() as running:
            assert "ValueError: key: not the public key" in running.wait().out


def test_without_start_it_says_so(updated):
    with updated.boot("import app") as running:
        assert "main.py did not call mqtt_update.start()" in running.wait().out


# one that works only where all of its files are there
WHOLE = """
import mqtt_update
number = NUMBER
with open(__file__.replace("fruit.py", "lib/data.bin"), "rb") as file:
    assert file.read() == bytes([number]) * 1500
mqtt_update.confirm()
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory, key):
    """Paths of the public key and of updates to the versions 2, 3 and 4."""
    folder = tmp_path_factory.mktemp("updates")
    (folder / "key").write_bytes(updates.public_der(key))
    for number in (2, 3, 4):
        held = {
            "fruit.py": WHOLE.replace("NUMBER", str(number)).encode(),
            "lib/data.bin": bytes([number]) * 1500,
        }
        (folder / f"{number}").write_bytes(updates.packed("fruit", number, held, key))
    return [folder / each for each in ("key", "2", "3", "4")]


def on_littlefs(what, files):
    return mpy.check(mpy.ROOT / "tests/device/updates.py", what, *files, env=PATH, timeout_s=200)


def test_the_power_may_go_at_any_byte(files):
    """Before and in the middle of every erase and write: the old one runs, or the new one."""
    cuts, *_ = on_littlefs("cut", files).splitlines()[-1].split()
    assert int(cuts) > 50


def test_each_byte_that_was_changed_is_noticed(files):
    said = on_littlefs("changed", files).splitlines()
    assert said == [f"{files[2].stat().st_size} bytes"]
