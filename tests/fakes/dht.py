"""The `dht` of a board: a sensor of temperature and humidity that a test sets."""

from machine import _given


class DHT22:
    def __init__(self, pin):
        self.pin = pin

    def measure(self):
        values = _given("dht-%s" % self.pin._id, "")
        if not values:
            raise OSError(110)
        self._values = [float(each) for each in values.split()]

    def temperature(self):
        return self._values[0]

    def humidity(self):
        return self._values[1]


class DHT11(DHT22):
    pass
