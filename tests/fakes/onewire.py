"""What a board's `onewire` has, on the pins of tests/fakes/machine.py: who is there, no bytes."""

import json

from machine import _given


class OneWireError(Exception):
    pass


class OneWire:
    def __init__(self, pin):
        self.pin = pin

    def temperatures(self):
        """Return {address (bytes): degrees}, as the test has set them."""
        given = json.loads(_given("one-wire-%s" % self.pin._id, "{}"))
        return {bytes.fromhex(address): value for address, value in given.items()}

    def reset(self, required=False):
        there = bool(self.temperatures())
        if required and not there:
            raise OneWireError
        return there

    def scan(self):
        return sorted(self.temperatures())
