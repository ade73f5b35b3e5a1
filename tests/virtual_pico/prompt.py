"""
A virtual Pico to play with: its prompt on a TCP port, its network this computer's.

    ./dev pico [--plain] [--speed N] [--folder FOLDER]

Its files stay in FOLDER, .cache/pico. boot.py, written where there is none, brings the network up:
broker.lan, localhost and 10.77.0.1 are this computer, with all ports that listen on 127.0.0.1. Its
time server, pool.ntp.org, is here too.
"""

import argparse
import os
import signal
import threading

from tests.support.mpy import ROOT
from tests.support.udp import SNTP
from tests.virtual_pico.pico import ADDRESS, LINK_UP, Pico, PicoError
from tools import firmware

FOLDER = ROOT / ".cache/pico"
NAMES = ("broker.lan", "localhost", "pool.ntp.org")
_HAS_BOOT = "import os; print('boot.py' in os.listdir())"


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev pico", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--plain", action="store_true", help="firmware without mqtt_as_tls")
    parser.add_argument("--speed", type=float, default=1, help="of its time while it waits")
    parser.add_argument("--folder", default=FOLDER, help="where its flash is kept")
    options = parser.parse_args(arguments)
    image = firmware.plain() if options.plain else firmware.rp2040()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = {"names": dict.fromkeys(NAMES, ADDRESS), "speed": options.speed}
    with SNTP() as sntp, Pico(image, options.folder, ports={123: sntp.port}, **settings) as pico:
        if pico.run(_HAS_BOOT) == "False":
            pico.put("/boot.py", LINK_UP)
        pico.soft_reset()
        url = pico.repl_url
        print(
            f"A Pico runs {image.relative_to(ROOT)}; broker.lan and {ADDRESS} are this computer.\n"
            f"\n"
            f"    mpremote connect {url}\n"
            f"    ./dev mqttls provision NAME --port {url}\n"
            f"\n"
            f"Ctrl-C switches it off; its files stay in {os.path.relpath(options.folder)}.",
            flush=True,
        )
        while not stop.wait(1):
            if not pico.stats()["powered"]:  # which raises when the emulator has ended
                raise PicoError(f"it crashed: see {pico.folder / 'emulator.log'}")
