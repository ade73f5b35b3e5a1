"""
What is wired to the board: a folder of files that tests/fakes/machine.py reads and writes. Here it
is seen from the test.
"""

import json
import os
from pathlib import Path

from .failing import wait

_REGISTERS = 256
_CORE_TEMP = 4


class Pin:
    """
    A pin of the board; `number` is what the app calls it: 15, "LED".

    value  what the app has put out: 0, 1, or None where it has not used the pin so far
    """

    def __init__(self, desk, number):
        self._desk = desk
        self._number = number

    @property
    def value(self):
        return self._desk.shown(f"pin-{self._number}.out")

    @property
    def duty_u16(self):
        """What the app has given its PWM, 0 to 65535, or None."""
        return self._desk.shown(f"pwm-{self._number}.out")

    def set(self, value):
        """Put 0 or 1 onto an input of the app; an interrupt that waits for it comes."""
        self._desk.write(f"pin-{self._number}", int(bool(value)))

    def wait_for(self, value, within_s=10):
        """Return when the app has put out `value`; AssertionError with its last lines if not."""
        __tracebackhide__ = True
        wait(
            lambda: self.value == value,
            within_s,
            f"pin {self._number} did not become {value}",
            lambda: f"it is {self.value}",
            self._desk.tail,
            ended=self._desk.ended,
        )


class ADC:
    """An analogue input: a pin (26 to 29), or 4, the sensor of temperature in the chip."""

    def __init__(self, desk, number):
        self._desk = desk
        self._number = number + 26 if number < _CORE_TEMP else number

    def set(self, u16):
        """What read_u16() returns from now on, 0 to 65535."""
        self._desk.write(f"adc-{self._number}", int(u16))

    def set_volts(self, volts):
        """The same in volts, 0 to 3.3."""
        self.set(round(volts * 65535 / 3.3))


class I2C:
    """
    A device on the I2C bus, there from now on, with 256 registers of a byte each.

    address  7 bits, as scan() has it
    """

    def __init__(self, desk, address):
        self._path = desk.folder / f"i2c-{address}"
        if not self._path.exists():
            self._path.write_bytes(bytes(_REGISTERS))

    def set(self, register, data):
        """Put `data` (bytes) into the registers from number `register` on."""
        with self._path.open("r+b", buffering=0) as file:
            file.seek(register)
            file.write(data)

    def get(self, register, count=1):
        """Return what is in them now (bytes): what the app wrote, for one."""
        return self._path.read_bytes()[register : register + count]

    def remove(self):
        """Pull it off the bus: to the app it is an OSError."""
        self._path.unlink()


class Desk:
    """
    folder  Path, made if it is not there
    tail    function that returns the app's last lines, for messages
    ended   function that returns why the app has ended, or ""
    """

    def __init__(self, folder, tail, ended):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tail, self.ended = tail, ended

    def shown(self, name):
        """Return the number that the app has written for `name`, or None where there is none."""
        path = self.folder / name
        if not path.exists():
            return None
        text = wait(
            lambda: (text := path.read_text()).endswith("\n") and text,
            1,
            f"{name} is only half written",
            self.tail,
        )
        return int(text)

    def write(self, name, value):
        """Write a file in one piece: the app may be reading it."""
        new = self.folder / f"{name}.new"
        new.write_text(str(value))
        os.replace(new, self.folder / name)

    def pin(self, number):
        return Pin(self, number)

    @property
    def led(self):
        """The board's own: Pin("LED")."""
        return self.pin("LED")

    def adc(self, number):
        return ADC(self, number)

    def temperature(self, celsius):
        """What the sensor in the chip says."""
        self.adc(_CORE_TEMP).set_volts(0.706 - (celsius - 27) * 0.001721)

    def i2c(self, address):
        return I2C(self, address)

    def one_wire(self, number, temperatures):
        """
        Have sensors of temperature at pin `number`: {address: degrees}, an address as 16
        hexadecimal digits, of a DS18B20 such as "28ff641e8216c3a1".
        """
        self.write(f"one-wire-{number}", json.dumps(temperatures))

    def dht(self, number, celsius, humidity):
        """Have a DHT11 or DHT22 at pin `number`."""
        self.write(f"dht-{number}", f"{celsius} {humidity}")
