"""
Updates on littlefs as a Pico W has it.

    updates.py cut KEY TWO THREE FOUR      the power goes before, and in the middle of, every erase
                                           and every write, until version 3 is confirmed
    updates.py changed KEY TWO THREE FOUR  each byte of version 3 is changed in turn

The files: the public key, and updates to these versions.
"""

import asyncio
import gc
import os
import sys

import mqtt_update

from tests.device.littlefs import Flash, mount

BLOCKS = 32


class Message:
    """An update that comes through a connection, as a handler gets it."""

    def __init__(self, data):
        self.length = len(data)
        self.stream = self
        self._data = memoryview(data)

    async def readinto(self, buf):
        n = min(len(buf), 700, len(self._data))
        buf[:n] = self._data[:n]
        self._data = self._data[n:]
        return n


class Reset(Exception):
    pass


def boot():
    """Start the app as main.py does, which says that it works; return which version runs."""
    sys.modules.pop("fruit", None)
    path = list(sys.path)
    mqtt_update._timer = None
    try:
        mqtt_update.start("fruit", 1)
        return sys.modules["fruit"].number
    finally:
        sys.path[:] = path


def install(data, modulus):
    asyncio.run(mqtt_update._install(Message(data), modulus))


def whole(flash, again, modulus):
    """The power is back: it runs the old or the new version, and takes an update again."""
    flash.left = None
    flash.half = False
    mount(flash)
    runs = boot()
    assert runs in (2, 3), runs
    assert boot() == runs == mqtt_update.version  # and goes on doing so
    keep = ("state", str(runs)) if runs > 1 else ("state",)
    try:
        left = [each[0] for each in os.ilistdir("/flash/updates")]
    except OSError:
        left = []
    assert not [each for each in left if each not in keep], (runs, left)
    install(again, modulus)
    assert boot() == 4
    os.umount("/flash")
    return runs


def prepare(two, modulus):
    """Return a Flash with an app that came by cable, and with version 2 of it, confirmed."""
    mqtt_update.FOLDER = "/flash/updates"
    mqtt_update.machine.Timer = Timer
    mqtt_update.machine.reset = reset
    sys.path.append("/flash")  # what came by cable
    fresh = Flash(BLOCKS)
    mount(fresh, True)
    with open("/flash/fruit.py", "w") as file:
        file.write("number = 1\n")
    assert boot() == 1
    install(two, modulus)
    assert boot() == 2
    os.umount("/flash")
    return fresh


def cut(two, three, four, modulus):
    fresh = prepare(two, modulus)
    cuts = 0
    seen = []
    while True:
        flash = Flash(BLOCKS, bytearray(fresh.data))
        mount(flash)
        boot()
        flash.left = cuts // 2
        flash.half = cuts % 2 == 1
        try:
            install(three, modulus)
            boot()
        except (OSError, Reset):
            pass
        ended = flash.left > 0
        flash.left = 0
        os.umount("/flash")
        seen.append(whole(flash, four, modulus))
        gc.collect()
        if ended:
            break
        cuts += 1
    assert seen[0] == 2 and seen[-1] == 3
    print("%d cuts, %d of them left the old one" % (cuts, seen.count(2)))


def changed(two, three, modulus):
    flash = prepare(two, modulus)
    mount(flash)
    boot()
    for at in range(len(three)):
        wrong = bytearray(three)
        wrong[at] ^= 1 << at % 8
        try:
            install(wrong, modulus)
        except ValueError:
            continue
        print("not noticed:", at)
    assert boot() == 2
    install(three, modulus)
    assert boot() == 3
    print("%d bytes" % len(three))


class Timer:
    ONE_SHOT = 0

    def __init__(self, *args, **options):
        pass

    def deinit(self):
        pass


def reset():
    raise Reset


def main():
    what, *paths = sys.argv[1:]
    files = []
    for path in paths:
        with open(path, "rb") as file:
            files.append(file.read())
    key, two, three, four = files
    modulus = int.from_bytes(key[33:-5], "big")
    if what == "cut":
        cut(two, three, four, modulus)
    else:
        changed(two, three, modulus)


main()
