"""
Mosquitto's own client tests (`test/lib` of its source), fetched from Debian sid and run against
our client.

Each test is a Python program that plays the broker and starts the program under test, once or more
often, as BUILD_ROOT/test/lib/c/NAME.test and .../cpp/NAME.test. Here these are links to one shell
script, which starts MicroPython with the client of that name (clients.py, fuzzish.py).

What makes a run a failure (Run.problems), as some tests swallow what they find:

- its exit status, which is 0 in spite of a mismatch in 03-publish-c2b-qos1-disconnect and
  03-publish-c2b-qos2-disconnect, and says nothing of the programs under test: client_test() of
  mosq_test.py looks only whether they ended, 03-request-response-correlation not even that;
- so also every mismatch that was printed ("FAIL: Received incorrect ...", a sequence that
  "failed"), and sequences that were not run;
- and every program under test that did not end with 0: the script notes each in clients.log.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509

from tests.conformance import differences
from tests.support import mpy, patience, process
from tools import debian
from tools.micropython_source import upstream

HERE = Path(__file__).parent
CACHE = debian.CACHE / "mosquitto"
WRITTEN_FOR = (2, 1, 2)

# SIGTERM is how the sequences end a client whose connection they have just closed: it has noticed,
# and its exit status counts.
SCRIPT = """\
#!/bin/sh
trap '' TERM
unset LD_LIBRARY_PATH
export PATH={path} MICROPYPATH={search} MOSQUITTO_SSL={ssl}
name=${{0##*/}}
name=${{name%.test}}
if [ "$name" = fuzzish ]; then
    echo "$*" >jobs
    read -r code <ended
else
    {clients} "$name" "$@" >>clients.log 2>&1
    code=$?
fi
echo "$name $* ended with $code" >>clients.log
exit "$code"
"""


@dataclass
class Run:
    """What became of a test: exit status, output, the log of its clients, and how long it took."""

    code: int
    out: str
    clients: str
    seconds: float

    def problems(self):
        """Return a list of str, empty if all is well."""
        found = []
        if self.code:
            found.append(f"exit status {self.code}")
        found += re.findall(r"^(?:FAIL|Traceback|\w*Error).*", self.out, re.MULTILINE)
        found += [f"{name}: {why}" for name, why in self.failed_sequences()]
        ended = re.findall(r"^(.* ended with (-?\d+))$", self.clients, re.MULTILINE)
        if not ended:
            found.append("no client ended by itself")
        found += [line for line, code in ended if code != "0"]
        found += re.findall(r"^FAIL.*", self.clients, re.MULTILINE)
        return found

    def failed_sequences(self):
        """Return a list of (name, why) of the message sequences that failed."""
        return re.findall("^\033\\[31m(.*) failed: (.*)\033\\[0m$", self.out, re.MULTILINE)

    def sequences(self):
        """Return how many message sequences were run to their end."""
        return sum(map(int, re.findall(r"^(\d+) tests total$", self.out, re.MULTILINE)))

    def report(self):
        return f"--- test\n{self.out[-8000:]}\n--- clients\n{self.clients[-8000:]}\n---"


class Upstream:
    """
    Mosquitto's tests, ready to be run in `folder` (Path).

    version  tuple of int

    Raises debian.Unavailable.
    """

    def __init__(self, folder):
        with debian.locked(CACHE):
            packages = CACHE / "packages"
            name = debian.fetch("sid", ["mosquitto"], packages)
            tests = CACHE / "test"
            stamp = tests / "unpacked.txt"
            if not (stamp.is_file() and stamp.read_text() == name):
                archive = next(packages.glob("mosquitto_*.orig.tar.*"))
                debian.unpack(archive, tests, only="test")
                stamp.write_text(name)
        self.version = tuple(map(int, upstream(name)["mosquitto"].split(".")))
        self.lib = tests / "lib"
        self._folder = folder
        self._children = []
        self._lock = threading.Lock()
        self._stopped = False
        environment = mpy.environment()
        script = folder / "client.sh"
        script.write_text(
            SCRIPT.format(
                path=shlex.quote(environment["PATH"]),
                search=shlex.quote(environment["MICROPYPATH"]),
                ssl=shlex.quote(str(tests / "ssl")),
                clients=shlex.join(mpy.command(HERE / "clients.py")),
            )
        )
        script.chmod(0o755)
        names = {"fuzzish"}
        for test in self.lib.glob("*.py"):
            names.update(re.findall(r"([\w-]+)\.test\"", test.read_text()))
        for language in ("c", "cpp"):
            programs = folder / "test" / "lib" / language
            programs.mkdir(parents=True)
            for name in names:
                (programs / f"{name}.test").symlink_to(script)
        self.environment = {**environment, "BUILD_ROOT": str(folder), "PYTHONPATH": str(mpy.ROOT)}

    def certificates_expired(self):
        """Return whether the certificates that come with the tests are past their end."""
        pem = (self.lib.parent / "ssl" / "server.crt").read_bytes()
        end = x509.load_pem_x509_certificate(pem).not_valid_after_utc
        return end < datetime.now(timezone.utc)

    def tests(self):
        """Return the names of all tests, a set of str."""
        others = {"test", "mosq_test_helper"}
        return {path.stem for path in self.lib.glob("*.py")} - others

    def data(self):
        """Return the names of the files of message sequences, a set of str."""
        return {path.name for path in (self.lib / "data").glob("*.json")}

    def sequences(self, data):
        """Return how many sequences that apply are in the file `data`."""
        groups = json.loads((self.lib / "data" / data).read_text())
        return sum(len(group["tests"]) for group in differences.applicable(data, groups))

    def run(self, name, data=None, timeout_s=250):
        """Run the test `name`, or of the message sequences the file `data`; return a Run."""
        folder = self._folder / (data or name)
        folder.mkdir()
        for language in ("c", "cpp"):  # some tests look for their programs here
            (folder / language).symlink_to(self._folder / "test" / "lib" / language)
        start = time.monotonic()
        command = [sys.executable, "-B", str(HERE / "drive.py"), str(self.lib / f"{name}.py")]
        with (
            open(folder / "out.log", "w") as out,
            open(folder / "clients.log", "a") as clients,
            self._fuzzish(folder, clients) if data else nullcontext(),
        ):
            child = self._start(command + ([data] if data else []), folder, out)
            try:
                child.wait(patience.stretched(timeout_s))
            except subprocess.TimeoutExpired:
                out.write("\nFAIL: still running\n")
            code = process.end(child)
        seconds = time.monotonic() - start
        logs = ((folder / log).read_text(errors="replace") for log in ("out.log", "clients.log"))
        return Run(code, *logs, seconds)

    @contextmanager
    def _fuzzish(self, folder, log):
        """Have the interpreter that runs the clients of sequences."""
        pipes = []
        for name in ("jobs", "ended"):
            os.mkfifo(folder / name)
            pipes.append(os.open(folder / name, os.O_RDWR))  # no end of file between two clients
        child = self._start(mpy.command(HERE / "fuzzish.py"), folder, log, pipes[0])
        try:
            yield
        finally:
            process.end(child)
            for pipe in pipes:
                os.close(pipe)

    def _start(self, command, folder, out, stdin=subprocess.DEVNULL):
        with self._lock:
            if self._stopped:
                raise RuntimeError("nothing is started any more")
            child = process.spawn(
                command,
                cwd=folder,
                env=self.environment,
                stdin=stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            self._children.append(child)
        return child

    def stop(self):
        """End what still runs; nothing is started from now on."""
        with self._lock:
            self._stopped = True
        for child in self._children:
            if child.poll() is None:
                process.end(child)
