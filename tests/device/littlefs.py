"""
A store on littlefs as a Pico W has it (4 KB blocks, 256 byte pages), on a block device in RAM.

    littlefs.py wear   prints the erases and page writes that a message costs
    littlefs.py cut    cuts the power before and in the middle of every erase and every write
"""

import gc
import os
import sys

from mqtt_as_tls.store import FileStore

BLOCK = 4096
PAGE = 256


class Flash:
    """A block device that counts, and stops when `left` writes are done."""

    def __init__(self, blocks, data=None):
        self.data = data or bytearray(blocks * BLOCK)
        self.erased = self.written = 0
        self.left = None
        self.half = False

    def change(self, at, data):
        """Return 0, or EIO: an exception would leave littlefs in the middle of what it does."""
        if self.left == 0:
            if self.half:  # the power went in the middle of it
                data = memoryview(data)[: len(data) // 2]
                self.data[at : at + len(data)] = data
                self.half = False
            return -5
        if self.left:
            self.left -= 1
        self.data[at : at + len(data)] = data
        return 0

    def readblocks(self, block, buf, offset=0):
        at = block * BLOCK + offset
        buf[:] = memoryview(self.data)[at : at + len(buf)]

    def writeblocks(self, block, buf, offset=0):
        self.written += (len(buf) + PAGE - 1) // PAGE
        return self.change(block * BLOCK + offset, buf)

    def ioctl(self, operation, argument):
        if operation == 4:
            return len(self.data) // BLOCK
        if operation == 5:
            return BLOCK
        if operation == 6:
            self.erased += 1
            return self.change(argument * BLOCK, b"\xff" * BLOCK)
        return 0


def mount(flash, make=False):
    if make:
        os.VfsLfs2.mkfs(flash, progsize=PAGE)
    os.mount(os.VfsLfs2(flash, progsize=PAGE), "/flash")


def message(number, size=60):
    payload = b"%d " % number
    payload += b"." * (size - len(payload))
    return bytearray(b"\x32" + bytes((len(payload) + 5,)) + b"\0\1t\0\0" + payload)


def number(packet):
    return int(bytes(packet)[7:].split(b" ")[0])


def wear():
    flash = Flash(64)
    mount(flash, True)
    store = FileStore("/flash/mqtt")
    store.open(4, "me")
    for what in ("at once", "from the queue"):
        gc.collect()
        erased, written, writes = flash.erased, flash.written, store.writes
        for i in range(500):
            if what == "at once":
                entry = store.add(message(i), 1)
            else:
                store.put(message(i))
                entry, _ = store.next()
                store.sent(entry, 1)
            store.done(entry)
        print(
            "%s: %.2f writes, %.2f erases, %.1f pages a message"
            % (
                what,
                (store.writes - writes) / 500,
                (flash.erased - erased) / 500,
                (flash.written - written) / 500,
            )
        )
    store.close()
    os.umount("/flash")


def steps(store, states):
    """Do what a client does, append each state to `states` (list); OSError when a write failed."""
    waiting, flight, inbound = [], [], []

    def note():
        states.append((list(flight), list(waiting), list(inbound)))
        if store.errors:
            raise OSError

    note()
    entries = {}
    for i in range(30):
        store.put(message(i, 120))
        waiting.append(i)
        note()
        if i % 2:
            entry, packet = store.next()
            n = waiting.pop(0)
            assert number(packet) == n
            store.sent(entry, i + 1)
            flight.append((n, i + 1))
            entries[n] = entry
            note()
        if i % 5 == 4:
            n = flight.pop(0)[0]
            store.done(entries.pop(n))
            note()
        if i % 7 == 3:
            store.inbound_add(i)
            inbound.append(i)
            note()


def found(store):
    flight = [(number(packet), entry[2]) for entry, packet in store.inflight()]
    waiting = []
    while store.waiting:
        waiting.append(number(store.next()[1]))
    return flight, waiting, list(store.inbound)


def cut():
    fresh = Flash(16)
    mount(fresh, True)
    os.umount("/flash")
    cuts = 0
    while True:
        flash = Flash(16, bytearray(fresh.data))
        mount(flash)
        flash.left = cuts // 2
        flash.half = cuts % 2 == 1
        states = [([], [], [])]
        store = FileStore("/flash/mqtt", 8192)
        errors = 0
        try:
            store.open(4, "me")

            steps(store, states)
        except (OSError, ValueError):
            errors = 1
        flash.left = 0
        flash.half = False
        store.close()
        os.umount("/flash")
        again = Flash(16, flash.data)
        mount(again)
        store = FileStore("/flash/mqtt", 8192)
        store.open(4, "me")
        state = found(store)
        assert state in states[-2:], (cuts, state, states[-2:])
        assert store.put(message(99)) and not store.errors and not store.damaged
        store.close()
        os.umount("/flash")
        gc.collect()
        if not errors:
            break
        cuts += 1
    print("%d cuts" % cuts)


if __name__ == "__main__":
    cut() if sys.argv[1] == "cut" else wear()
