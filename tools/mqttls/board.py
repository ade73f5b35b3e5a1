"""
A MicroPython board on a serial port. The one module that knows mpremote.

Whatever the board does, every call returns or raises BoardError: each wait has a time-out. Files
arrive under a temporary name, are read back and compared, and only then take the place of the old
ones: a board that is unplugged half-way has the old files.
"""

import ast
import base64
import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import struct
import sys
import textwrap
import time

from .messages import Failure, shell

PIN = "1.29.0"  # of mpremote, whose classes are no stable interface: as in pyproject.toml
OLDEST = (1, 25)
TEMPORARY = ".new"

_CHUNK = 1024  # bytes of a file in one command
_WAIT_S = 10
_READ_S = 3  # for the next byte of an answer that has begun
_HASH_S = 60  # a whole library, read from flash

_VERSION = re.compile(r"[\w.+-]{1,32}", re.ASCII)

# USB vendors of boards and of the serial chips on them
_VENDORS = {0x2E8A, 0x303A, 0xF055, 0x2341, 0x239A, 0x1D50, 0x10C4, 0x1A86, 0x0403}

# What helps when the board's own answer is an OSError
_CURES = {
    errno.ENOSPC: "its flash is full: delete files from it (mpremote rm) and run this again",
    errno.EROFS: "its file system is mounted read-only: look into its boot.py",
    errno.EIO: "its file system is damaged: save what you need and flash the firmware again",
}


class BoardError(Failure):
    """The board does not do what it should; see Failure."""

    def __init__(self, fact, cure="", *, cause=""):
        super().__init__(fact, cure, cause=cause, stage="board")


class BoardGone(BoardError):
    """The serial port went away, or nobody answers on it."""


class BoardRaised(BoardError):
    """A program on the board raised: `traceback` (str), `error` is its last line."""

    def __init__(self, traceback, doing):
        self.traceback = traceback.strip()
        self.error = self.traceback.rsplit("\n", 1)[-1]
        found = re.match(r"OSError: (?:\[Errno )?(\d+)", self.error)
        cure = _CURES.get(int(found[1]), "") if found else ""
        if self.error.startswith("MemoryError"):
            cure = "press the board's reset button, so that its memory is free, and run this again"
        super().__init__(f"{doing}: the board raised {self.error}", cure)


def _mpremote():
    """Return (module of the transport, module that lists ports)."""
    try:
        import mpremote.transport_serial
        import serial.tools.list_ports
    except ImportError:
        raise BoardError(
            "mpremote is not installed, which talks to boards",
            shell(sys.executable, "-m", "pip", "install", f"mpremote=={PIN}"),
        ) from None
    return mpremote.transport_serial, serial.tools.list_ports


def ports():
    """Return [(device, description)] of the serial ports that look like a board's."""
    _, lister = _mpremote()
    return [
        (port.device, port.product or port.description or "")
        for port in sorted(lister.comports(), key=lambda port: port.device)
        if port.vid in _VENDORS
    ]


def dotted(version):
    """Return a version ([1, 28, 0]) for messages (str)."""
    return ".".join(map(str, version))


def find_port(port="auto"):
    """Return `port`, or for "auto" the one port that has a board; else raise BoardError."""
    if port != "auto":
        return port
    found = ports()
    if len(found) == 1:
        return found[0][0]
    if not found:
        raise BoardError(
            "no board found on USB",
            "plug it in with a cable that carries data; a board with other firmware needs "
            "MicroPython first; or name its port with --port",
        )
    listed = ", ".join(f"{device} ({what})" if what else device for device, what in found)
    raise BoardError(f"several boards: {listed}", f"say which: --port {found[0][0]}")


class Board:
    """
    A connection to a board's raw REPL. Use it in a `with`.

    What ran on it is interrupted and a soft reset takes its memory away, as that may be nearly all
    of it: boot.py runs anew, main.py does not. A boot.py that does not end is interrupted, too.

    port  path of its serial port, or "auto"

    Raises BoardError when there is no board, or it does not answer.
    """

    def __init__(self, port="auto"):
        self._module, _ = _mpremote()
        self.port = find_port(port)
        self._busy = False  # a program may still run on it
        self._transport = None
        try:
            self._transport = self._module.SerialTransport(self.port, timeout=_READ_S)
        except (self._module.TransportError, OSError, ValueError):
            raise self._not_opened() from None
        try:
            self._transport.serial.write_timeout = _WAIT_S
            self._enter()
            try:
                self.fresh()
            except BoardGone:
                self._enter()
            # a program may have switched the collector off, and a soft reset leaves it so
            self.run("import gc\ngc.enable()", "preparing it")
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _not_opened(self):
        if not os.path.exists(self.port) and not self.port.upper().startswith("COM"):
            return BoardError(f"there is no port {self.port}", "plug the board in, or --port auto")
        if os.path.exists(self.port) and not os.access(self.port, os.R_OK | os.W_OK):
            return BoardError(
                f"no permission to use {self.port}",
                "sudo usermod -a -G dialout $USER, then log in anew",
            )
        return BoardError(
            f"{self.port} cannot be opened",
            "close the other program that uses it: Thonny, mpremote, a serial monitor",
        )

    def _enter(self):
        for again in (True, False):
            try:
                # It prints what it read when it fails.
                with contextlib.redirect_stdout(io.StringIO()):
                    self._transport.enter_raw_repl(soft_reset=False, timeout_overall=5)
                return
            except self._module.TransportError:
                if again:
                    continue
                raise BoardGone(
                    f"no answer from the board on {self.port}",
                    "press its reset button, or unplug it and plug it in, then run this again",
                    cause="no MicroPython on it, or its program does not let itself be "
                    "interrupted (Ctrl-C)",
                ) from None
            except OSError:
                raise self._gone("talking to it") from None

    def fresh(self):
        """
        Reset the board softly: its memory is empty, boot.py ran, main.py did not.

        Raises BoardGone when it does not come back.
        """
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self._transport.enter_raw_repl(soft_reset=True, timeout_overall=_WAIT_S)
        except self._module.TransportError:
            raise BoardGone(
                "the board does not come back from a soft reset",
                "press its reset button, then run this again; does its boot.py come to an end?",
            ) from None
        except OSError:
            raise self._gone("a soft reset") from None

    def _gone(self, doing):
        return BoardGone(
            f"the board on {self.port} is gone: {doing} was not finished",
            "look at the cable, plug it in and run the same command again: it goes on where it "
            "was, and what was on the board is still complete",
            cause="it was unplugged or reset (a watchdog does that when its program is stopped)",
        )

    def close(self):
        """Leave the raw REPL, stop what may still run there, and close the port."""
        if self._transport is None:
            return
        with contextlib.suppress(OSError):
            self._transport.serial.write(b"\r\x03" * self._busy + b"\r\x02")
        with contextlib.suppress(OSError):
            self._transport.close()
        with contextlib.suppress(OSError):
            self._transport.serial.close()
        self._transport = None

    def run(self, program, doing, timeout_s=_WAIT_S):
        """
        Run a program (str) on the board and return what it printed (str).

        doing      what that is, for messages: "writing /certs/ca.der"
        timeout_s  for how long it may be silent

        Raises BoardRaised when it raised; BoardGone when the board is gone or silent.
        """
        self._busy = True
        try:
            out, err = self._transport.exec_raw(textwrap.dedent(program), timeout=timeout_s)
        except self._module.TransportError as error:
            if "timeout" not in str(error):
                raise self._gone(doing) from None
            raise BoardGone(
                f"{doing}: the board was silent for {timeout_s} s",
                "press its reset button, or unplug it and plug it in, then run this again",
            ) from None
        except (OSError, struct.error, AttributeError, TypeError):
            # pyserial's own, and what mpremote and pyserial stumble over when a port is gone
            raise self._gone(doing) from None
        self._busy = False
        if err:
            raise BoardRaised(err.decode(errors="replace"), doing)
        return out.decode(errors="replace").replace("\r\n", "\n")

    def ask(self, program, doing, timeout_s=_WAIT_S):
        """
        Run a program whose last line on stdout is JSON; return that. Lines before it, of other
        tasks on the board, are passed over. Errors are those of run().
        """
        out = self.run(program, doing, timeout_s)
        try:
            return json.loads(out.strip().rsplit("\n", 1)[-1])
        except ValueError:
            raise BoardError(f"{doing}: the board answered {out[-200:]!r}") from None

    # What it is

    def info(self):
        """
        Return a dict of what the board says of itself: `version` ([1, 28, 0]), `machine`,
        `platform`, `free` and `block` (bytes of its file system, of one block of it), `time`
        (Unix time of its clock), `clock` (whether it can be set), `wifi`, `mpy` (version
        of the .mpy files that it takes, or 0), `frozen` (version of a frozen mqtt_as_tls, or
        None), `installed` (of the one in /lib), `id` (hexadecimal, or "").

        Raises BoardError also where its MicroPython is too old for mqtt_as_tls.
        """
        found = self.ask(INFO, "asking what it is")
        for each in ("frozen", "installed"):  # what is there may be anything
            if found[each] is not None and not _VERSION.fullmatch(found[each]):
                found[each] = "unknown"
        if tuple(found["version"][:2]) < OLDEST:
            raise BoardError(
                f"the board has MicroPython {dotted(found['version'])}",
                "flash {}.{} or newer: micropython.org/download".format(*OLDEST),
                cause="older firmware verifies too little of a broker, and is not tested",
            )
        return found

    def set_clock(self, unix_s=None):
        """
        Set the board's clock to UTC, `unix_s` or now. Return by how many seconds it was wrong,
        None where it has no clock to set.
        """
        now = int(time.time() if unix_s is None else unix_s)
        at = time.gmtime(now)
        program = _CLOCK.format(
            fields=(*at[:3], at.tm_wday, *at[3:6], 0), unix=now, epoch=_EPOCH_SOURCE
        )
        return self.ask(program, "setting its clock")

    # Files

    def names(self, folder):
        """Return the names (list of str) in a folder, [] where there is none."""
        return self.ask(_NAMES.format(folder=folder), f"listing {folder}")

    def hashes(self, paths):
        """Return {path: sha256 in hexadecimal, None where there is no such file}."""
        return self.ask(_HASH.format(paths=list(paths)), "comparing files", timeout_s=_HASH_S)

    def read(self, path):
        """Return the content of a file (bytes), None where there is none."""
        out = self.run(_READ.format(path=path), f"reading {path}")
        if out.strip() == "None":
            return None
        return b"".join(map(base64.b64decode, ast.literal_eval("[" + out + "]")))

    def compare(self, files):
        """Return those of `files` ({path: bytes}) that the board does not have just so."""
        there = self.hashes(files)
        return {path: data for path, data in files.items() if there[path] != _sha256(data)}

    def put(self, files, progress=None):
        """
        Write `files` ({absolute path: bytes}) that differ; return the paths that were written.

        After all have arrived they take the place of the old ones, one after the other within
        milliseconds. What a run that was cut off has left behind is used.

        progress  called with (bytes done, bytes in all, path)
        """
        files = self.compare(files)
        if not files:
            return []
        news = {path + TEMPORARY: data for path, data in files.items()}
        missing = self.compare(news)
        self._check_room(missing)
        try:
            self._write(missing, progress)
        except BoardRaised:  # full, most likely: what cannot be used is in the way
            with contextlib.suppress(BoardError):
                self.run("_f.close()", "closing a file")
                self.remove(news)
            raise
        damaged = self.compare(missing)
        if damaged:
            raise BoardError(
                f"{', '.join(sorted(damaged))}: other bytes are on the board than were sent",
                "run this again; if it stays so, its flash is worn out or the cable bad",
            )
        try:
            self.run(_RENAME.format(paths=list(files), new=TEMPORARY), "putting files in place")
        except BoardGone as error:
            cure = "plug it in and run the same command again: some files are new already"
            raise BoardGone(error.fact, cure, cause=error.cause) from None
        return list(files)

    def _write(self, files, progress):
        self.run(_FOLDERS.format(paths=sorted(files)), "making folders")
        done, total = 0, sum(map(len, files.values()))
        for path, data in files.items():
            name = path.removesuffix(TEMPORARY)
            doing = f"writing {name}"
            self.run(f"from binascii import a2b_base64 as _d\n_f = open({path!r}, 'wb')", doing)
            for at in range(0, len(data), _CHUNK):
                piece = base64.b64encode(data[at : at + _CHUNK])
                self.run(f"_f.write(_d({piece!r}))", doing)
                done += len(data[at : at + _CHUNK])
                if progress:
                    progress(done, total, name)
            self.run("_f.close()", doing)

    def _check_room(self, files):
        found = self.ask(_ROOM, "asking for free space")
        block = found["block"]
        # a block for each folder and its changes
        needed = sum(math.ceil(len(data) / block) * block for data in files.values()) + 4 * block
        if needed > found["free"]:
            raise BoardError(
                f"the board has {found['free'] // 1024} KB free, {needed // 1024} KB are needed",
                _CURES[errno.ENOSPC],
            )

    def remove(self, paths):
        """Remove files; those that are not there are no error."""
        self.run(_REMOVE.format(paths=list(paths)), "removing files")


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


# The board's programs. The epoch is 1970 on rp2 and unix, 2000 on esp32.

_EPOCH_SOURCE = "time.gmtime(0)[0] // 2000 * 946684800"

INFO = f"""\
import gc, json, os, sys, time
gc.collect()
_s = os.statvfs("/")
_r = {{
    "version": list(sys.implementation[1])[:3],
    "machine": getattr(sys.implementation, "_machine", ""),
    "platform": sys.platform,
    "block": _s[1] or _s[0],
    "free": (_s[1] or _s[0]) * _s[3],
    "time": time.time() + {_EPOCH_SOURCE},
    "clock": False,
    "wifi": False,
    "mpy": getattr(sys.implementation, "_mpy", 0) & 255,
    "frozen": None,
    "installed": None,
    "id": "",
}}
try:
    import machine
    _r["clock"] = hasattr(machine, "RTC")
    _r["id"] = machine.unique_id().hex()
except (ImportError, AttributeError):
    pass
try:
    import network
    _r["wifi"] = hasattr(network, "WLAN")
except ImportError:
    pass
_p, _m = sys.path[:], sys.modules.pop("mqtt_as_tls", None)
for _k, _d in (("frozen", ".frozen"), ("installed", "/lib")):
    sys.path[:] = [_d]
    try:
        import mqtt_as_tls
        _r[_k] = str(mqtt_as_tls.__version__)
    except Exception:
        pass
    sys.modules.pop("mqtt_as_tls", None)
sys.path[:] = _p
if _m:
    sys.modules["mqtt_as_tls"] = _m
print(json.dumps(_r))
"""

_CLOCK = """\
import json, time
_e = None
try:
    from machine import RTC
    _e = {unix} - time.time() - ({epoch})
    RTC().datetime({fields})
except ImportError:
    pass
print()
print(json.dumps(_e))
"""

_ROOM = """\
import json, os
_s = os.statvfs("/")
print(json.dumps({"block": _s[1] or _s[0], "free": (_s[1] or _s[0]) * _s[3]}))
"""

_NAMES = """\
import json, os
try:
    _r = os.listdir({folder!r})
except OSError as _e:
    if _e.args[0] not in (2, 20):
        raise
    _r = []
print(json.dumps(_r))
"""

_HASH = """\
import json
from hashlib import sha256
from binascii import hexlify
_b, _r = bytearray(1024), {{}}
for _p in {paths}:
    _r[_p] = None
    try:
        with open(_p, "rb") as _f:
            _h = sha256()
            while True:
                _n = _f.readinto(_b)
                if not _n:
                    break
                _h.update(memoryview(_b)[:_n])
            _r[_p] = hexlify(_h.digest()).decode()
    except OSError as _e:
        if _e.args[0] not in (2, 20):
            raise
print(json.dumps(_r))
"""

_READ = """\
from binascii import b2a_base64
try:
    _f = open({path!r}, "rb")
except OSError:
    print(None)
else:
    with _f:
        while True:
            _b = _f.read(384)
            if not _b:
                break
            print(b2a_base64(_b), end=",")
"""

_FOLDERS = """\
import os
for _p in {paths}:
    _at = _p.find("/", 1)
    while _at > 0:
        try:
            os.mkdir(_p[:_at])
        except OSError as _e:
            if _e.args[0] != 17:
                raise
        _at = _p.find("/", _at + 1)
"""

# FAT does not rename onto a file that is there; littlefs does, and loses nothing in between.
_RENAME = """\
import os
for _p in {paths}:
    try:
        os.rename(_p + {new!r}, _p)
    except OSError as _e:
        if _e.args[0] != 17:
            raise
        os.remove(_p)
        os.rename(_p + {new!r}, _p)
if hasattr(os, "sync"):
    os.sync()
"""

_REMOVE = """\
import os
for _p in {paths}:
    try:
        os.remove(_p)
    except OSError as _e:
        if _e.args[0] != 2:
            raise
"""
