"""
An emulated Raspberry Pi Pico with MicroPython: real firmware on rp2040js, driven from tests.

    with Pico(firmware, tmp_path, ports={8883: broker.port}) as pico:
        print(pico.run("import os; print(os.uname())"))
        pico.run(LINK_UP)
        pico.start("import main")  # a program that goes on
        pico.wait_for("^connected")
        pico.fault(link="silent")
        pico.interrupt()

The chip has a PPP line on UART 1 (GP4, GP5; any baud rate) to a network of one host, 10.77.0.1,
which is this computer: its port P is 127.0.0.1:P, or what `ports` says. It is the DNS server, too.
The addresses up to 10.77.0.9 are this computer as well, all others are silent.

With `networks` it is a Pico W instead: any firmware for it finds its Wi-Fi chip, these networks,
and behind them the same host. `pico.wifi` changes what is on the air (wifi.py).

Time: while the chip is busy, emulated time goes as fast as this computer can make it, slower than
ours; while it waits, with ours, times `speed` unless an answer from the network may be on its way.
Each `timeout_s` is our time, and generous: it is there against hangs.

What is not there: Bluetooth, the second core, the misses of the flash's cache, the depth of sleep
(lightsleep and deepsleep return early), anything on the pins.
"""

import codecs
import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import mpremote.transport
import mpremote.transport_serial

from ..support import node, patience, process
from ..support.elsewhere import CACHE, run
from . import image
from .wifi import Wifi

EMULATOR = Path(__file__).parent / "emulator"
INSTALLED = CACHE / "emulator"

ADDRESS = "10.77.0.1"  # of this computer, for the device
LINK_UP = """\
import machine, network, time
uart = machine.UART(1, 2_000_000, tx=machine.Pin(4), rx=machine.Pin(5), rxbuf=8192, txbuf=2048)
ppp = network.PPP(uart)
ppp.connect()
while not ppp.isconnected():
    time.sleep_ms(20)
"""

_START_S = 60
_COMMAND_S = 60
_ENTER_S = 120  # until the prompt is there
_READ_S = 60  # for the next byte of an answer that has begun
_FAILED = "the emulator failed"
_END = b"\x04"  # of the output, and of the traceback


class PicoError(Exception):
    """A program on the board raised, or the board did not do what it should."""


class PicoReset(PicoError):
    """The chip was reset, or lost its power, while something was expected of it."""


def install():
    """
    Install the packages that the emulator needs into .cache/emulator, unless they are there.

    Raises Unavailable.
    """
    node.install(EMULATOR, INSTALLED)


def environment():
    """Return the environment (dict) of the emulator, which says where its packages are."""
    return {**node.environment(), "EMULATOR_PACKAGES": str(INSTALLED.resolve())}


class Pico:
    """
    A board that has power from `open`, or the begin of a `with`, on.

    firmware  path of the firmware's .bin, .uf2 or .elf
    folder    Path of a folder for its flash (flash.bin) and its log (emulator.log). With the same
              folder it is the same board: the files on it and its unique id are the same
    ports     {port that the device uses: port of this computer}, for TCP and UDP; other ports are
              the same. With 53 in it, that is the DNS server
    names     {name: address} that the DNS server knows; default: broker.test is this computer
    speed     how many times faster than ours its time goes while it waits
    seed      of what is left to chance: which packets are lost, what a power cut leaves
    networks  None: PPP. Else those that a Pico W can hear at first, a list of
              {"ssid": str, "password": str or None}

    Raises Unavailable when there is no emulator, PicoError when it does not start, NoImage when
    that is no firmware for it.
    """

    def __init__(
        self, firmware, folder, *, ports=None, names=None, speed=1, seed=1, networks=None
    ):
        install()
        self.folder = Path(folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._settings = {
            **self._flash(Path(firmware).resolve()),
            "networks": networks,
            "ports": ports or {},
            "names": {"broker.test": ADDRESS} if names is None else names,
            "speed": speed,
            "id": str(self.folder),
            "seed": seed,
        }
        self._child = None
        self.wifi = None if networks is None else Wifi(self._command)

    def _flash(self, firmware):
        """Return the settings of the emulator for the Path of a firmware."""
        found = image.read(firmware)
        if firmware.suffix != ".bin":
            firmware = self.folder / "firmware.bin"
            firmware.write_bytes(found.data)
        files = self.folder / "flash.bin"
        kept = found.flash_bytes - found.kept_from
        if files.exists() and files.stat().st_size != kept:
            raise image.NoImage(
                f"{files} is of a board whose files take {files.stat().st_size} bytes, this one's "
                f"take {kept}: take another folder"
            )
        return {
            "firmware": str(firmware),
            "flash": str(files),
            "flash_bytes": found.flash_bytes,
            "kept_from": found.kept_from,
        }

    def __enter__(self):
        self.open()
        return self

    def __exit__(self, *_):
        self.close()

    # The emulator

    def open(self):
        """Start the emulator and switch the board on."""
        self._news = threading.Condition()  # guards what comes from the emulator:
        self._answers = {}
        self._boots = []  # causes of all starts of the chip
        self._gone = "power off"  # why it does not run
        self._ended = False  # the emulator has
        self._commands = 0
        self._known_boots = 0  # those that were expected
        self._transport = None
        self._raw = False  # it is at the raw prompt
        self._forget()
        with (self.folder / "emulator.log").open("ab") as log:
            self._child = process.spawn(
                [node.node(), str(EMULATOR / "main.mjs"), json.dumps(self._settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment(),
            )
        ready = queue.Queue()
        self._listener = threading.Thread(target=self._listen, args=(ready,), daemon=True)
        self._listener.start()
        try:
            self._port = ready.get(timeout=patience.stretched(_START_S))
            if self._port is None:
                raise queue.Empty
        except queue.Empty:
            self.close()
            raise PicoError(f"the emulator does not start:\n{self._log()}") from None
        self.listen()
        self.power_on()

    def close(self):
        """Switch the board off and end the emulator; `folder` keeps what is in the flash."""
        if self._child is None:
            return
        self._disconnect()
        with contextlib.suppress(OSError):
            self._child.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(patience.stretched(5))
        process.end(self._child)
        self._listener.join(patience.stretched(5))
        self._child.stdout.close()
        self._child = None

    def _log(self):
        return (self.folder / "emulator.log").read_text(errors="replace")[-2000:]

    def _listen(self, ready):
        for line in self._child.stdout:
            message = json.loads(line)
            event = message.get("event")
            with self._news:
                if event == "ready":
                    ready.put(message["repl_port"])
                elif event == "boot":
                    self._boots.append(message["cause"])
                    self._gone = None
                elif event == "power_off":
                    self._gone = "power off"
                elif event == "crashed":
                    self._gone = f"{_FAILED}: {message['error']}"
                else:
                    self._answers[message["id"]] = message
                self._news.notify_all()
        ready.put(None)
        with self._news:
            self._gone = "the emulator ended"
            self._ended = True
            self._news.notify_all()

    def _command(self, name, **parameters):
        with self._news:
            self._commands += 1
            number = self._commands
            with contextlib.suppress(OSError):  # it has ended
                line = json.dumps({"id": number, "command": name, **parameters})
                self._child.stdin.write(line + "\n")
                self._child.stdin.flush()
            self._news.wait_for(
                lambda: number in self._answers or self._ended, patience.stretched(_COMMAND_S)
            )
            answer = self._answers.pop(number, None)
        if answer is None:
            raise PicoError(f"no answer to {name}: {self._gone or 'time-out'}\n{self._log()}")
        if "error" in answer:
            raise PicoError(answer["error"])
        return answer["result"]

    # Power

    def power_on(self):
        """Switch it on, if it is off; it starts with what its flash holds."""
        self._drain()
        self._command("power_on")
        self._started_anew()

    def power_cut(self, after_ops=None, part=0.0):
        """
        Take its power away: at once, or in the middle of an operation of its flash to come.

        after_ops  how many operations, an erase or a program each, are done before that one
        part       how much of that one is done, 0.0 to 1.0; the page after that is torn

        `wait_for_power_off` waits for it, `power_on` starts the board again.
        """
        self._command("power_cut", after=after_ops, part=part)

    def wait_for_power_off(self, timeout_s=300):
        """Wait until a `power_cut` has come about."""
        with self._news:
            self._news.wait_for(lambda: self._gone, patience.stretched(timeout_s))
        if self._gone != "power off":
            raise PicoError(self._gone or "the power was not cut")
        self._raw = False

    def reset(self):
        """Reset the chip, as its RUN pin does."""
        self._drain()
        self._command("reset")
        self._started_anew()

    def _drain(self):
        while self._transport and self._transport.serial.in_waiting:
            self._transport.serial.read(1)

    def _started_anew(self):
        self._known_boots = len(self._boots)
        self._raw = False
        self._forget()

    def wait_for_boot(self, timeout_s=300):
        """
        Wait until the chip starts again by itself, if it did not since the last program was
        started; return why: "watchdog", which machine.reset() is, too.
        """
        with self._news:
            self._news.wait_for(
                lambda: len(self._boots) > self._known_boots or self._ended,
                patience.stretched(timeout_s),
            )
        if len(self._boots) == self._known_boots:
            raise PicoError(self._gone or "it did not start again")
        self._started_anew()
        return self._boots[-1]

    # The prompt

    @property
    def repl_url(self):
        """
        What `mpremote connect` takes, a str.

        One program at a time can have the port open: this closes ours, until the next call of
        a method that needs it. What runs on the board runs on; what it prints is lost.
        """
        self._disconnect()
        return f"socket://127.0.0.1:{self._port}"

    def mpremote(self, *words):
        """
        Run mpremote with it; return what that printed.

        words  str, a command and its arguments

        Raises subprocess.CalledProcessError, which has the output too.
        """
        return run(sys.executable, "-m", "mpremote", "connect", self.repl_url, *words)

    def _disconnect(self):
        self._raw = False
        if self._transport:
            self._transport.serial.close()
            self._transport = None

    def listen(self):
        """Hear what it prints from now on, main.py for one, without interrupting it."""
        if self._transport is None:
            url = f"socket://127.0.0.1:{self._port}"
            self._transport = mpremote.transport_serial.SerialTransport(
                url, timeout=patience.stretched(_READ_S)
            )
            self._forget()

    def _forget(self):
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._parts = ["", ""]  # what was printed, and the traceback
        self._ends = 0  # how many of these are complete
        self._read = 0  # how much of what was printed `wait_for` has seen

    @property
    def output(self):
        """What the program that was started last has printed so far, as far as it was read."""
        return self._parts[0].replace("\r\n", "\n")

    def read(self):
        """Read what it has printed by now, without waiting for more; return `output`."""
        self.listen()
        while self._transport.serial.in_waiting and self._ends < 2:
            self._take(time.monotonic())
        return self.output

    def _enter(self, soft_reset=False):
        """Return the transport, at the raw prompt."""
        self.listen()
        self._check()
        if soft_reset or not self._raw:
            self._raw = False
            # a Ctrl-C that meets the callback of a UART ends that alone: so press it again
            for tries_left in (2, 1, 0):
                try:
                    self._transport.enter_raw_repl(
                        soft_reset, timeout_overall=patience.stretched(_ENTER_S)
                    )
                    break
                except mpremote.transport.TransportError as error:
                    self._check()
                    if not tries_left:
                        raise PicoError(f"{error}\n{self._log()}") from None
            self._raw = True
        return self._transport

    @property
    def failure(self):
        """Why the emulator cannot go on with the chip, a str; "" while it can."""
        return self._gone if (self._gone or "").startswith(_FAILED) else ""

    def _unexpected(self):
        """Return why it does not run, or started again, or "" when neither is so."""
        if self._gone or len(self._boots) > self._known_boots:
            return self._gone or f"reset by {self._boots[-1]}"
        return ""

    def _check(self):
        """Raise PicoReset when it does not run, or started again unexpectedly."""
        if cause := self._unexpected():
            self._raw = False
            raise PicoReset(f"{cause}; it had printed:\n{self.output}")

    def soft_reset(self):
        """Start the interpreter anew, as Ctrl-D does; boot.py runs, main.py does not."""
        self._enter(soft_reset=True)

    def run(self, code, timeout_s=300):
        """
        Run `code` (str) to its end; return what it printed, without the white space around.

        Raises PicoError with the traceback when it raised, PicoReset when the chip was reset.
        """
        self.start(code)
        return self.finish(timeout_s)

    def start(self, code):
        """Start `code` (str); what ran before is interrupted. Then `wait_for` or `finish`."""
        self._known_boots = len(self._boots)
        if self._ends < 2:
            self._raw = False
        transport = self._enter()
        self._forget()
        transport.exec_raw_no_follow(code)

    def _take(self, deadline):
        """Read what has come, or wait for more."""
        serial = self._transport.serial
        while not serial.in_waiting:
            if self._unexpected() and not serial.in_waiting:  # all that it printed is read
                self._check()
            if time.monotonic() > deadline:
                raise PicoError(f"time-out; it had printed:\n{self.output}")
            time.sleep(0.005)
        while serial.in_waiting and self._ends < 2:
            try:
                byte = serial.read(1)
            except OSError:  # the emulator is gone, and its port with it
                with self._news:
                    self._news.wait_for(lambda: self._ended, 5)
                why = self._gone or "its port closed"
                raise PicoError(f"{why}; it had printed:\n{self.output}") from None
            if byte == _END and self._raw:
                self._ends += 1
            else:
                self._parts[self._ends] += self._decode(byte)

    def wait_for(self, pattern, timeout_s=300):
        """
        Wait for a line of the program's output that `pattern` (regular expression) is found in,
        after that of the last call; return the line.

        Raises PicoError when the program ends before, PicoReset when the chip is reset.
        """
        self.listen()
        deadline = time.monotonic() + patience.stretched(timeout_s)
        while True:
            while (end := self._parts[0].find("\n", self._read)) >= 0:
                line = self._parts[0][self._read : end].rstrip("\r")
                self._read = end + 1
                if re.search(pattern, line):
                    return line
            if self._ends == 2:
                raise PicoError(
                    f"it ended without {pattern!r}; it had printed:\n{self.output}{self._parts[1]}"
                )
            self._take(deadline)

    def finish(self, timeout_s=300):
        """Wait for the end of what `start` started; returns and raises as `run` does."""
        deadline = time.monotonic() + patience.stretched(timeout_s)
        while self._ends < 2:
            self._take(deadline)
        if self._parts[1]:
            traceback = self._parts[1].replace("\r\n", "\n").strip()
            raise PicoError(f"{traceback}\nit had printed:\n{self.output}")
        return self.output.strip()

    def interrupt(self):
        """Press Ctrl-C; the program usually ends with KeyboardInterrupt then (`finish`)."""
        self.listen()
        self._transport.serial.write(b"\x03")

    def type(self, text):
        """Type `text` (str), for a program that reads it."""
        self.listen()
        self._transport.serial.write(text.encode())

    def put(self, path, data):
        """Write `data` (bytes or str) into the file `path` on the board; makes its folders."""
        data = data.encode() if isinstance(data, str) else data
        transport = self._idle()
        folders = path.strip("/").split("/")[:-1]
        for count in range(len(folders)):
            folder = "/" + "/".join(folders[: count + 1])
            if not transport.fs_exists(folder):
                transport.fs_mkdir(folder)
        transport.fs_writefile(path, data, chunk_size=2048)

    def get(self, path):
        """Return what is in the file `path` on the board, bytes."""
        return self._idle().fs_readfile(path, chunk_size=2048)

    def _idle(self):
        """Return the transport at the raw prompt, where nothing runs."""
        self._known_boots = len(self._boots)
        if self._ends < 2:
            self._raw = False
        transport = self._enter()
        self._ends = 2
        return transport

    # The network, and figures

    def fault(self, **faults):
        """
        Change what is wrong with the network from now on; what is not named stays as it is.

        link              "up"; "silent": nothing passes either way and nobody is told;
                          "down": PPP is terminated first, then silent (a Pico W: just silent)
        lose_to_device, lose_from_device  probability that an IP packet is lost, 0.0 to 1.0
        drop_to_device, drop_from_device  how many of the next IP packets are lost
        delay_ms          of each packet each way, in emulated time
        dns               "up" or "silent"
        refuse            ports (of the device's view) where connects are answered with RST
        blackhole         such ports, or addresses, for which packets are lost
        segment_bytes     the most that a TCP segment to the device carries
        """
        self._command("fault", **faults)

    def heal(self):
        """End all faults."""
        self._command("heal")

    def reset_connections(self):
        """End all TCP connections with RST, both ways."""
        self._command("reset_connections")

    def set_names(self, names):
        """Change what the network's DNS server knows: {name: address}."""
        self._command("names", names=names)

    def set_ports(self, ports):
        """Change the map of ports for new connections."""
        self._command("ports", ports=ports)

    def set_speed(self, speed):
        """Change how fast time goes while it waits."""
        self._command("speed", speed=speed)

    def stats(self):
        """
        Return a dict: packets_to_device, packets_from_device, bytes_to_device, bytes_from_device,
        lost_to_device, lost_from_device, retransmitted (towards the device), malformed,
        bad_frames (PPP), connections (open), flash_writes, emulated_s, powered.
        """
        return self._command("stats")

    def emulated_s(self):
        """Return the seconds that went by for the board, all its starts together."""
        return self.stats()["emulated_s"]

    def flash_writes(self):
        """Return how many operations, erases and programs, its flash has done."""
        return self.stats()["flash_writes"]
