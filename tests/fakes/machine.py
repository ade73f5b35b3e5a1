"""
A `machine` module for MicroPython's unix port: as much of a Pico W's as apps use. For tests alone;
on MICROPYPATH it takes the place of the port's own.

What a board shows by what it does is a line on stdout here. deepsleep(), reset() and a watchdog
that was not fed end the program, as they end a run on a board.

What is at the pins is in files of the folder /testkit, where there is one: tests/kit/desk.py
writes what is read here, and reads what is written. Without it a sensor always says the same, and
a button is pressed once.
"""

import _thread
import asyncio
import os
import sys
import time
from time import sleep_ms, ticks_diff, ticks_ms

import micropython

PWRON_RESET = 1
WDT_RESET = 3

_DESK = "/testkit/"
_POLL_MS = 5


def _there():
    try:
        os.stat(_DESK)
    except OSError:
        return False
    return True


def _given(name, otherwise):
    """Return what the test has written for `name` (str), or `otherwise`."""
    try:
        with open(_DESK + name) as file:
            return file.read()
    except OSError:
        return otherwise


def _shown(name, value):
    """Have the test see `value`."""
    if _there():
        with open(_DESK + name, "w") as file:
            file.write("%s\n" % value)  # without a line end it is not complete


def unique_id():
    """As on an RP2040: 8 bytes, always the same."""
    return b"\xe6\x61\x38\x52\x83\x4f\x2b\x2c"


def freq(*_):
    return 125_000_000


def reset_cause():
    return WDT_RESET if _given("reset", "") else PWRON_RESET


def idle():
    sleep_ms(1)


def lightsleep(ms=0):
    print("machine: lightsleep", ms)
    sleep_ms(ms)


def deepsleep(ms=0):
    print("machine: deepsleep", ms)
    sys.exit()


def reset():
    print("machine: reset")
    sys.exit()


soft_reset = reset


def __getattr__(name):
    if name not in ("I2C", "PWM", "SoftI2C"):
        raise AttributeError(name)
    import machine_buses  # what few apps use takes no memory of the others

    return getattr(machine_buses, name)


class RTC:
    """
    Keeps what it is given; the PC's clock is left alone, but where this process has one of its own
    (tests/support/faketime.py), whose file is `clock_file`.
    """

    clock_file = _DESK + "clock" if _given("clock", "") else None
    _now = (2021, 1, 1, 4, 0, 0, 0, 0)

    def datetime(self, *new):
        if new:
            print("machine: clock set to", *new[0][:3])
        if self.clock_file:
            return self._of_process(*new)
        if new:
            RTC._now = tuple(new[0])
        return RTC._now

    def _of_process(self, *new):
        if not new:
            t = time.gmtime()
            return t[:3] + (t[6],) + t[3:6] + (0,)
        year, month, day, _, hour, minute, second, _ = new[0]
        with open(self.clock_file) as file:
            offset = float(file.read())
        offset += time.mktime((year, month, day, hour, minute, second, 0, 0)) - time.time()
        with open(self.clock_file, "w") as file:
            file.write("%+.3f\n" % offset)
        return None


class ADC:
    """What nobody has set is at 0.706 V: what the temperature sensor says at 27 degrees."""

    CORE_TEMP = 4

    def __init__(self, pin):
        pin = pin._id if isinstance(pin, Pin) else pin
        self._id = pin + 26 if pin < 4 else pin  # inputs 0 to 3 are at the pins 26 to 29

    def read_u16(self):
        return int(_given("adc-%s" % self._id, 14021))


class Pin:
    IN = 0
    OUT = 1
    OPEN_DRAIN = 2
    PULL_UP = 1
    PULL_DOWN = 2
    IRQ_FALLING = 4
    IRQ_RISING = 8

    def __init__(self, id, mode=-1, pull=-1, *, value=None):
        self._id = id._id if isinstance(id, Pin) else id
        self._value = int(bool(value)) if value is not None else int(pull == Pin.PULL_UP)
        self._out = mode in (Pin.OUT, Pin.OPEN_DRAIN)
        if self._out:
            _shown("pin-%s.out" % self._id, self._value)

    def init(self, mode=-1, pull=-1, *, value=None):
        self.__init__(self._id, mode, pull, value=value)

    def irq(self, handler=None, trigger=IRQ_FALLING | IRQ_RISING):
        """
        The test presses the button, while the event loop runs; without a test it is pressed at
        once, and never again.
        """
        if not _there():
            micropython.schedule(handler, self)
            return
        self._handler = handler
        if handler:
            asyncio.create_task(self._watch(handler, trigger))

    async def _watch(self, handler, trigger):
        before = self.value()
        while self._handler is handler:
            await asyncio.sleep_ms(_POLL_MS)
            now = self.value()
            if now != before and trigger & (Pin.IRQ_RISING if now else Pin.IRQ_FALLING):
                micropython.schedule(handler, self)
            before = now

    def value(self, *new):
        if not new:
            if self._out:
                return self._value
            return int(_given("pin-%s" % self._id, self._value))
        self._value = int(bool(new[0]))
        print("machine: pin", self._id, "is", self._value)
        _shown("pin-%s.out" % self._id, self._value)
        return None

    __call__ = value

    def on(self):
        self.value(1)

    def off(self):
        self.value(0)

    high, low = on, off

    def toggle(self):
        self.value(not self._value)


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
