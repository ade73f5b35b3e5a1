"""What of tests/fakes/machine.py few apps use: PWM, I2C. It loads them by itself."""

import os

from machine import _DESK, _shown, _there


class PWM:
    def __init__(self, pin, *, freq=0, duty_u16=0):
        self._id = pin._id
        self._freq = freq
        self.duty_u16(duty_u16)

    def freq(self, *new):
        if not new:
            return self._freq
        self._freq = new[0]
        return None

    def duty_u16(self, *new):
        if not new:
            return self._duty
        self._duty = new[0]
        _shown("pwm-%s.out" % self._id, self._duty)
        return None

    def duty_ns(self, *new):
        if not new:
            return self._duty * 1_000_000_000 // (65535 * self._freq)
        return self.duty_u16(new[0] * self._freq * 65535 // 1_000_000_000)

    def deinit(self):
        self.duty_u16(0)


class I2C:
    """
    Each device on the bus is a file with its registers, a byte each: the first byte that is
    written says which register is next.
    """

    def __init__(self, *_, **__):
        self._next = {}

    init = __init__

    def scan(self):
        names = os.listdir(_DESK) if _there() else ()
        return sorted(int(name[4:]) for name in names if name.startswith("i2c-"))

    def _open(self, address):
        try:
            return open(_DESK + "i2c-%d" % address, "r+b")
        except OSError:
            raise OSError(5)

    def readfrom_mem_into(self, address, register, buffer, *, addrsize=8):
        with self._open(address) as file:
            file.seek(register)
            file.readinto(buffer)
        self._next[address] = register + len(buffer)

    def readfrom_mem(self, address, register, count, *, addrsize=8):
        buffer = bytearray(count)
        self.readfrom_mem_into(address, register, buffer)
        return bytes(buffer)

    def writeto_mem(self, address, register, data, *, addrsize=8):
        with self._open(address) as file:
            file.seek(register)
            file.write(data)
        self._next[address] = register

    def readfrom(self, address, count, stop=True):
        return self.readfrom_mem(address, self._next.get(address, 0), count)

    def readfrom_into(self, address, buffer, stop=True):
        self.readfrom_mem_into(address, self._next.get(address, 0), buffer)

    def writeto(self, address, data, stop=True):
        data = bytes(data)
        self.writeto_mem(address, data[0] if data else 0, data[1:])
        return len(data) + 1

    def writevto(self, address, parts, stop=True):
        return self.writeto(address, b"".join(bytes(part) for part in parts))


SoftI2C = I2C
