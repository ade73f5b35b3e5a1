"""
A `machine` module for MicroPython's unix port: as much of a Pico W's as the examples and the docs
use. For tests alone; on MICROPYPATH it takes the place of the port's own.

What a board shows by what it does is a line on stdout here. deepsleep(), reset() and a watchdog
that was not fed end the program, as they end a run on a board.
"""

import _thread
import sys
from time import sleep_ms, ticks_diff, ticks_ms

import micropython


def unique_id():
    """As on an RP2040: 8 bytes, always the same."""
    return b"\xe6\x61\x38\x52\x83\x4f\x2b\x2c"


def deepsleep(ms=0):
    print("machine: deepsleep", ms)
    sys.exit()


def reset():
    print("machine: reset")
    sys.exit()


class RTC:
    """Keeps what it is given; the PC's clock is left alone."""

    _now = (2021, 1, 1, 4, 0, 0, 0, 0)

    def datetime(self, *new):
        if new:
            RTC._now = tuple(new[0])
            print("machine: clock set to", *RTC._now[:3])
        return RTC._now


class ADC:
    """Every input is at 0.706 V: what the RP2040's temperature sensor says at 27 degrees."""

    CORE_TEMP = 4

    def __init__(self, pin):
        pass

    def read_u16(self):
        return 14021


class Pin:
    IN = 0
    OUT = 1
    PULL_UP = 1
    IRQ_FALLING = 4

    def __init__(self, id, mode=-1, pull=-1, *, value=0):
        self._id = id
        self._value = value or int(pull == Pin.PULL_UP)

    def irq(self, handler, trigger):
        """The button is pressed at once, and never again."""
        micropython.schedule(handler, self)

    def value(self, *new):
        if not new:
            return self._value
        self._value = int(bool(new[0]))
        print("machine: pin", self._id, "is", self._value)
        return None

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)


class Timer:
    """Its callback runs where that of a board's does, between two bytecodes of the program."""

    ONE_SHOT = 0
    PERIODIC = 1

    def __init__(self, id=-1, *, period, mode, callback):
        self._on = True
        _thread.start_new_thread(self._run, (period, mode, callback))

    def _run(self, period, mode, callback):
        if mode == Timer.ONE_SHOT:
            sleep_ms(period)
        while self._on:
            micropython.schedule(callback, self)
            if mode == Timer.ONE_SHOT:
                break
            sleep_ms(period)

    def deinit(self):
        self._on = False


class WDT:
    """Looks at the time when it is fed: late is a reset."""

    def __init__(self, id=0, timeout=5000):
        if not 0 < timeout <= 8388:
            raise ValueError("timeout exceeds 8388")
        self._timeout = timeout
        self._fed = ticks_ms()
        print("machine: watchdog", timeout)

    def feed(self):
        if ticks_diff(ticks_ms(), self._fed) > self._timeout:
            print("machine: reset by the watchdog")
            sys.exit(1)
        self._fed = ticks_ms()
