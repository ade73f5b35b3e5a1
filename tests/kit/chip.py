"""
A user's app on the emulated chip, with MicroPython's own firmware: that of a Pico W, with its
Wi-Fi, or one with PPP.
"""

import os
from pathlib import Path

from ..support.elsewhere import PPP_LINK, Unavailable
from ..virtual_pico.image import read
from ..virtual_pico.pico import ADDRESS, Pico
from . import app as boards
from . import failing

ENVIRONMENT = "MQTT_PICO_FIRMWARE"
HOST = "broker.lan"  # a name of the broker's certificate
TIME = "time.lan"
_OF_W = b"Raspberry Pi Pico W"  # in a firmware for it
LINK = "PPP(UART(1, 2_000_000, tx=Pin(4), rx=Pin(5), rxbuf=8192, txbuf=2048, timeout=0))"
IMPORTS = """\
from machine import UART, Pin
from ppp_link import PPP
"""
_IS_FROZEN = """\
try:
    import mqtt_as_tls
    print("frozen")
except ImportError:
    print("not there")
"""


def firmware(configured, folder):
    """
    Return the Path of the firmware.

    configured  its path (str) in pytest's configuration, or ""; ENVIRONMENT goes before it
    folder      Path that it is relative to

    Raises Unavailable.
    """
    name = os.environ.get(ENVIRONMENT) or configured
    path = Path(folder, name)
    if not name or not path.is_file():
        what = f"there is no firmware {path}" if name else "no firmware for the virtual Pico"
        raise Unavailable(
            f"{what}: name one with mqtt_pico_firmware in pytest's configuration, or with "
            f"{ENVIRONMENT}: https://micropython.org/download/RPI_PICO_W/ has them"
        )
    return path


class Chip(Pico):
    """
    The app on a virtual Pico, whose other methods are those of virtual_pico.pico.Pico: fault(),
    heal(), put(), wait_for(), … Use it in a `with`: it has power from then on.

    image      Path of its firmware
    folder     Path of a folder for its flash
    main       Path of the app
    broker     kit.broker.Broker
    sntp_port  UDP port of the time server
    mqtt, config  of its config.py, as `mqtt` and `more` of kit.app.config

    Raises Unavailable where there is no Node.js.
    """

    def __init__(self, image, folder, main, broker, sntp_port, *, mqtt=None, config=None):
        names = {HOST: ADDRESS, TIME: ADDRESS}
        self._is_w = _OF_W in read(image).data
        network = dict(zip(("ssid", "password"), boards.WIFI, strict=True))
        networks = [network] if self._is_w else None
        ports = {123: sntp_port}
        super().__init__(image, folder, names=names, ports=ports, networks=networks)
        self._main, self._broker, self._more = main, broker, {"mqtt": mqtt, "more": config}

    def _furnish(self):
        own, broker = boards.files_of(self._main), self._broker
        link = {} if self._is_w else {"link": LINK, "imports": IMPORTS}
        text = boards.config(broker, host=HOST, ntp=TIME, **link, **self._more)
        files = {name: path.read_bytes() for name, path in own.items()}
        files |= {"main.py": self._main.read_bytes(), "config.py": text.encode()}
        files |= {"ppp_link.py": PPP_LINK.read_bytes(), **boards.certificates(broker)}
        if self.run(_IS_FROZEN) != "frozen":
            files |= boards.package(own)
        for name, data in files.items():
            self.put(f"/{name}", data)

    def start_app(self):
        """Put the app onto its flash, and start it as power-on does."""
        self._furnish()
        self.reset()
        self.listen()

    def lose_power(self):
        """Cut its power, and switch it on again: the app starts with what its flash holds."""
        self.power_cut()
        self.wait_for_power_off()
        self.power_on()
        self.listen()

    def tail(self):
        """Return the app's last lines, for messages."""
        lines = self.read().splitlines()[-failing.LAST :]
        return failing.indented("the app's last lines:", lines) or "it has printed nothing"

    def ended(self):
        """As of kit.app.App; a chip runs on."""
        self.read()
        return ""
