"""
How much memory it takes, and what happens with less: an app in heaps from too small to import to
large enough, under the 32-bit interpreter whose TLS takes memory from the heap, as on a Pico W.

    .venv/bin/python -m benchmarks.starvation                    all of it, about 20 minutes
    .venv/bin/python -m benchmarks.starvation "3.1.1 mtls"       what has this in its name
    .venv/bin/python -m benchmarks.starvation --json heaps.json  the same for tools/size.py

In each heap the app (starving.py, or examples/sensor.py) has to import the package, connect,
publish and receive with QoS 1, lose its connection, and do it all once more. Where it cannot, it
has to say that memory is what it lacks, and either ends with a MemoryError or goes on trying with
an event loop that is alive. Anything else is a fault, is printed, and makes the exit status 1:
silence, another error, a dead interpreter, a message that is not what was sent.

The smallest heap is the smallest in which the app did all of it, as in the next two (1 KB apart).
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import environment
from tests.support import mpy
from tests.support.board import FAKES, HOME, Board
from tests.support.broker import Broker, Peer
from tests.support.pki import PKI
from tests.support.proxy import Proxy
from tools import freeze

APP = Path(__file__).parent / "starving.py"
SENSOR = mpy.ROOT / "examples/sensor.py"

PROTOCOLS = {"3.1.1": 4, "5.0": 5}
SECURITIES = ("tcp", "tls", "mtls")
FORMS = ("frozen", ".mpy", ".py")
EXTRAS = ("store", "streams")

STEP_KB = 4
PATIENCE_S = 30  # without memory for the words the client tries every 5 s
SMALLEST_KB = 16
LARGEST_KB = 240
DOWN = b"x" * 1000
STREAM = b"y" * 20_000

# what an app may come to; the first is the aim, the last four are faults
WORKS, RETRIES, ENDS = "works", "retries", "ends"
HANGS, CRASHES, BREAKS, MUTE = "hangs", "crashes", "breaks", "says nothing of memory"
FAULTS = (HANGS, CRASHES, BREAKS, MUTE)


def cases():
    """Return what is measured: a list of (protocol, security, form, extra)."""
    found = [(p, s, f, "plain") for p in PROTOCOLS for s in SECURITIES for f in FORMS]
    found += [(p, "mtls", f, extra) for extra in EXTRAS for p in PROTOCOLS for f in FORMS]
    return [*found, *(("3.1.1", "mtls", f, "sensor") for f in FORMS)]


class Bench:
    """
    A broker behind a proxy, and a folder for the app; use it in a `with`.

    folder  Path of an empty folder
    """

    def __init__(self, folder):
        self.folder = folder
        self.pki = PKI(folder)
        freeze.compile_into(folder / "mpy" / "mqtt_as_tls")
        self.paths = {
            "frozen": ".frozen",
            ".mpy": f"{folder / 'mpy'}:.frozen",
            ".py": f"{mpy.ROOT}:.frozen",
        }

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.broker = stack.enter_context(
                Broker(self.folder / "broker", *SECURITIES, pki=self.pki)
            )
            self.proxies = {
                name: stack.enter_context(Proxy(port)) for name, port in self.broker.ports.items()
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def start(self, case, heap_kb):
        """Start the app of `case` in a heap of so many KB; return its mpy.Program."""
        protocol, security, form, extra = case
        board = self.folder / "board"
        shutil.rmtree(board, ignore_errors=True)
        port = self.proxies[security].port
        path, heap = self.paths[form], f"{heap_kb}K"
        if extra == "sensor":
            there = Board(board, self.pki)
            there.settings(port)
            # every 60 s is too seldom here
            main = SENSOR.read_text().replace("asyncio.sleep(60)", "asyncio.sleep(0.2)")
            return there.start(main, heap=heap, env={"MICROPYPATH": f"{FAKES}:{path}"})
        board.mkdir()
        device = self.pki.device
        for name, source in (
            ("ca.der", self.pki.ca.cert_der),
            ("cert.der", device.cert_der),
            ("key.der", device.key_der),
        ):
            shutil.copy(source, board / name)
        arguments = (port, PROTOCOLS[protocol], security, extra, f"device{time.monotonic_ns()}")
        return mpy.start(APP, *arguments, heap=heap, env={"MICROPYPATH": path}, cwd=board)

    def try_heap(self, case, heap_kb):
        """Return (what the app of `case` came to, how that shows) in a heap of so many KB."""
        security, extra = case[1], case[3]
        proxy = self.proxies[security]
        with (
            Peer(self.broker.ports["tcp"]) as peer,
            self.start(case, heap_kb) as app,
        ):
            peer.subscribe(HOME + "temperature" if extra == "sensor" else "up")
            judge = Judge(app, proxy)
            for again in (False, True):
                if again:
                    proxy.rst()
                seen = len(peer.messages)
                if not judge.wait(lambda seen=seen: len(peer.messages) > seen):
                    return judge.result()
                if extra == "sensor":
                    continue
                content = STREAM if extra == "streams" else DOWN
                said, at = f"got {len(content)}", len(app.lines)
                peer.publish("down", content)
                if not judge.wait(lambda said=said, at=at: said in app.lines[at:]):
                    return judge.result()
            good = bytes(20_000) if extra == "streams" else rb"[\d.]+"
            for message in peer.messages:
                if not re.fullmatch(good, message.payload):
                    return BREAKS, f"it sent {message.payload[:60]}"
        return WORKS, ""


class Judge:
    """Waits for what `app` (a mpy.Program, on `proxy`) should come to, and tells what it did."""

    def __init__(self, app, proxy):
        self._app = app
        self._proxy = proxy

    def wait(self, is_so):
        """Return True when `is_so()`; False when the app will not come to that."""
        end = time.monotonic() + PATIENCE_S
        tries = None
        while not is_so():
            if self._app.code is not None:
                return is_so()
            if tries is None and self._complaint():
                tries = self._proxy.connections
            gone_on = tries is not None and self._proxy.connections > tries + 1
            if gone_on or time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def _complaint(self):
        for line in reversed(self._app.lines):
            if line.startswith("mqtt") and "memory" in line:
                return line
        return None

    def result(self):
        """Return (what the app came to, how that shows)."""
        app = self._app
        if app.code is None:
            complaint, before = self._complaint(), app.lines.count("alive")
            end = time.monotonic() + PATIENCE_S
            while "started" in app.lines and app.lines.count("alive") == before:
                if time.monotonic() > end:
                    return HANGS, app.report()
                time.sleep(0.01)
            return (RETRIES, complaint) if complaint else (MUTE, app.report())
        app.wait()
        if app.code < 0 or app.code > 128:
            return CRASHES, app.report()
        if re.search("memory", "\n".join(app.lines + app.errors), re.I):
            return ENDS, "started" if "imported" in app.lines else "at import"
        return MUTE, app.report()


def smallest(bench, case, every):
    """
    Return the smallest heap in KB in which the app of `case` works; and a list of (KB, what it
    came to, how that shows) for all that were tried.

    every  bool: try every KB below it, too
    """
    tried = {}

    def works(heap_kb):
        if heap_kb not in tried:
            tried[heap_kb] = bench.try_heap(case, heap_kb)
            print(f"    {heap_kb} KB", *tried[heap_kb], flush=True)
        return tried[heap_kb][0] == WORKS

    heap_kb = SMALLEST_KB
    while not all(works(each) for each in range(heap_kb, heap_kb + 3)):
        heap_kb += 1 if every else STEP_KB
        if heap_kb > LARGEST_KB:
            heap_kb = None
            break
    while heap_kb and works(heap_kb - 1):
        heap_kb -= 1
    return heap_kb, sorted((kb, *result) for kb, result in tried.items())


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starvation")
    parser.add_argument("names", nargs="*", metavar="NAME", help='part of a name: "5.0 tls .mpy"')
    parser.add_argument("--every", action="store_true", help="every KB, not every fourth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    wanted = {
        name: case
        for case in cases()
        if any(part in (name := " ".join(case)) for part in options.names or [""])
    }
    os.environ["MICROPYTHON"] = str(freeze.unix(32))
    where = environment()
    print(*where.values(), sep="; ")
    found, faults = {}, 0
    with tempfile.TemporaryDirectory(prefix="mqtt-heap-") as folder, Bench(Path(folder)) as bench:
        for name, case in wanted.items():
            print(name, flush=True)
            heap_kb, tried = smallest(bench, case, options.every)
            print(f"{name:28} {heap_kb} KB", flush=True)
            found[name] = {"smallest_kb": heap_kb, "tried": tried}
            faults += sum(result[1] in FAULTS for result in tried)
    if options.json:
        options.json.write_text(json.dumps({**where, "heaps": found}, indent=1) + "\n")
    print(f"{sum(len(each['tried']) for each in found.values())} heaps, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
