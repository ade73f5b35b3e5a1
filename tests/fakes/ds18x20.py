"""The `ds18x20` of a board, on tests/fakes/onewire.py: sensors of temperature that a test sets."""


class DS18X20:
    def __init__(self, onewire):
        self.ow = onewire

    def scan(self):
        return [rom for rom in self.ow.scan() if rom[0] in (0x10, 0x22, 0x28)]

    def convert_temp(self):
        self.ow.reset(True)
        self._read = self.ow.temperatures()

    def read_temp(self, rom):
        """None where it does not answer, as on a board whose checksum is wrong."""
        return self._read.get(bytes(rom))
