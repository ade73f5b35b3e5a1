"""
A virtual Pico to play with: its prompt on a TCP port, its network this computer's.

    ./dev pico [--plain] [--speed N] [--folder FOLDER]
    ./dev pico --firmware FILE [...]

Its files stay in FOLDER, .cache/pico. boot.py, written where there is none, brings the network up:
broker.lan, localhost and 10.77.0.1 are this computer, with all ports that listen on 127.0.0.1. Its
time server, pool.ntp.org, is here too.

With --firmware it is a Pico W that runs what is in FILE, a .uf2, .elf or .bin for the RP2040, an
official download for one. Its files stay in .cache/pico-w. It hears the Wi-Fi network "my-ssid"
with the password "my-password".

What goes wrong with the network is typed in: "help" tells what there is.
"""

import argparse
import inspect
import json
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from tests.support.mpy import ROOT
from tests.support.udp import SNTP
from tests.virtual_pico.desk import NETWORK
from tests.virtual_pico.pico import ADDRESS, LINK_UP, Pico, PicoError
from tools import firmware

FOLDER = ROOT / ".cache/pico"
FOLDER_W = ROOT / ".cache/pico-w"
NAMES = ("broker.lan", "localhost", "pool.ntp.org")
_HAS_BOOT = "import os; print('boot.py' in os.listdir())"
_HELP = """\
NAME [ARGUMENT] [WHAT=VALUE ...], for one:

    fault link=silent           heal                   power_cut
    access_point my-ssid up=false                      wifi_heal
    air wrong_key=retry         router dhcp=silent     chip hung=true

help NAME tells more of one of these:

    {}"""


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev pico", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--firmware", type=Path, help="a Pico W with that")
    parser.add_argument("--plain", action="store_true", help="firmware without mqtt_as_tls")
    parser.add_argument("--speed", type=float, default=1, help="of its time while it waits")
    parser.add_argument("--folder", type=Path, help="where its flash is kept")
    options = parser.parse_args(arguments)
    if options.firmware and options.plain:
        parser.error("--plain is for the firmware that is built here")
    networks = [NETWORK] if options.firmware else None
    image = options.firmware or (firmware.plain() if options.plain else firmware.rp2040())
    folder = options.folder or (FOLDER_W if networks else FOLDER)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    settings = {"names": dict.fromkeys(NAMES, ADDRESS), "speed": options.speed}
    with (
        SNTP() as sntp,
        Pico(image, folder, ports={123: sntp.port}, networks=networks, **settings) as pico,
    ):
        if networks:
            how = 'its Wi-Fi is "my-ssid" with "my-password"; '
        else:
            how = ""
            if pico.run(_HAS_BOOT) == "False":
                pico.put("/boot.py", LINK_UP)
            pico.soft_reset()
        url = pico.repl_url
        print(
            f"A Pico{' W' if networks else ''} runs {os.path.relpath(image)}; {how}"
            f"broker.lan and {ADDRESS} are this computer.\n"
            f"\n"
            f"    mpremote connect {url}\n"
            f"    ./dev mqttls provision NAME --port {url}\n"
            f"\n"
            f'"help" tells what can go wrong with its network.\n'
            f"Ctrl-C switches it off; its files stay in {os.path.relpath(folder)}.",
            flush=True,
        )
        threading.Thread(target=_obey, args=(pico,), daemon=True).start()
        while not stop.wait(1):
            pico.stats()  # raises when the emulator has ended
            if pico.failure:
                raise PicoError(f"{pico.failure}: see {pico.folder / 'emulator.log'}")


def _obey(pico):
    """Do what is typed in, until there is no more."""
    for line in sys.stdin:
        try:
            answer = command(pico, line)
        except (PicoError, TypeError, ValueError) as error:
            answer = f"no: {error}"
        if answer:
            print(answer, flush=True)


def command(pico, line):
    """
    Do what a line (str) says: a method of Pico or its Wifi, with arguments in JSON, or as they are
    where they are no JSON. Returns what it has to say, a str.

    Raises PicoError, TypeError and ValueError.
    """
    name, *words = shlex.split(line) or [""]
    methods = _methods(pico)
    if name == "help" and words and words[0] in methods:
        method = methods[words[0]]
        return f"{words[0]}{inspect.signature(method)}\n{inspect.getdoc(method)}"
    if name in ("help", ""):
        return _HELP.format("\n    ".join(_wrapped(methods))) if name else ""
    if name not in methods:
        raise ValueError(f"there is no {name}: try help")
    named = dict(word.split("=", 1) for word in words if "=" in word)
    result = methods[name](
        *(_value(word) for word in words if "=" not in word),
        **{each: _value(text) for each, text in named.items()},
    )
    if result is None:
        return "done"
    if name == "history":
        return "\n".join(f"{at:10.4f}  {text}" for at, text in result)
    return json.dumps(result, indent=4)


def _methods(pico):
    """Return {name: method} of what can be typed."""
    names = "fault heal reset_connections power_cut power_on reset set_speed stats".split()
    methods = {name: getattr(pico, name) for name in names}
    if pico.wifi:
        public = [name for name in vars(type(pico.wifi)) if not name.startswith("_")]
        for name in public:
            key = f"wifi_{name}" if name in methods else name
            methods[key] = getattr(pico.wifi, name)
    return methods


def _wrapped(names, a_line=6):
    names = list(names)
    return ["  ".join(names[at : at + a_line]) for at in range(0, len(names), a_line)]


def _value(text):
    try:
        return json.loads(text)
    except ValueError:
        return text
