"""The PC's tool as a user runs it, and a mosquitto that runs what it wrote."""

import contextlib
import io
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support import mpy, patience, process
from tests.support.broker import is_listening, mosquitto
from tests.support.forked import Forked
from tools.mqttls import cli
from tools.mqttls.authority import DAYS
from tools.ports import free_port

NOBODY = 65534
# As the command that pip installs; in the project's folder, or with that in PYTHONPATH
MQTTLS = [sys.executable, "-c", "import sys; from tools.mqttls.cli import main; sys.exit(main())"]
_forked = Forked(
    MQTTLS,
    ["tools.mqttls.cli", *(each.__name__ for each in cli.find_commands())],
    cwd=mpy.ROOT,
)


# What an app does with what it was given
APP = """\
import asyncio, config
from mqtt_as_tls import MQTTClient

async def main():
    client = MQTTClient(**config.mqtt, log=None)
    await client.connect(timeout_s=20)
    await client.publish(config.home + "t", "21.5", qos=1)
    await client.disconnect()
    print("acknowledged", config.link is not None, config.tls.verified)

asyncio.run(main())
"""


class Outcome:
    """
    What a run of mqttls left: `code`, `out`, `err` (str), and `json` where --json was given.
    """

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\n{self.out}\n{self.err}"


def mqttls(folder, *arguments, code=0, env=None, stdin=subprocess.DEVNULL, wrapper=(), **options):
    """
    Run `mqttls ARGUMENTS --dir FOLDER`; return its Outcome.

    code     the exit status that it must have; None for any
    env      more environment (dict)
    wrapper  command (list of str) to run it under
    options  of subprocess.run

    Raises AssertionError with its output when it ends otherwise.
    """
    words = [*map(str, arguments)]
    if folder is not None:
        words += ["--dir", str(folder)]
    timeout_s = patience.stretched(100)
    plain = not env and not wrapper and not options and stdin == subprocess.DEVNULL
    done = _forked.run(words, timeout_s) if plain else None
    if not done:
        run = subprocess.run(
            [*wrapper, *MQTTLS, *words],
            stdin=stdin,
            capture_output=True,
            text=True,
            cwd=mpy.ROOT,
            env={**os.environ, **(env or {})},
            timeout=timeout_s,
            **options,
        )
        done = run.returncode, run.stdout, run.stderr
    outcome = Outcome(*done)
    if code is not None and outcome.code != code:
        raise AssertionError(f"mqttls {' '.join(map(str, arguments))}: {outcome}")
    return outcome


def in_here(folder, *arguments, code=0):
    """Run `mqttls ARGUMENTS --dir FOLDER` in this process, faster; return what it said (str)."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main([*map(str, arguments), "--dir", str(folder)])
    assert status == code, said.getvalue()
    return said.getvalue()


def typing(command, *answers, cwd=mpy.ROOT, **environment):
    """
    Run mqttls on a terminal and answer each of its questions; return (status, text).

    command      its words
    environment  more of it; None takes a variable away
    """
    env = {**os.environ, "PYTHONPATH": str(mpy.ROOT), "MQTTLS_PASSPHRASE_FILE": None}
    env = {name: value for name, value in {**env, **environment}.items() if value is not None}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(sys.executable, [*MQTTLS, *map(str, command)], env)
    text, answers = "", list(answers)
    watchdog = threading.Timer(patience.stretched(30), os.kill, (child, signal.SIGKILL))
    watchdog.start()
    asked = 0
    while True:
        try:
            data = os.read(terminal, 1000)
        except OSError:  # Linux: the other side is closed
            data = b""
        if not data:
            break
        text += data.decode()
        while answers and text.count(": ", asked) and text.endswith(": "):
            asked = len(text)
            os.write(terminal, answers.pop(0).encode() + b"\n")
    watchdog.cancel()
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, text.replace("\r\n", "\n")


def without_root():
    """Return a wrapper under which root is held to files' modes as anybody is; [] for others."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]


@contextlib.contextmanager
def open_folder():
    """Give a new folder (Path) that a mosquitto of another user can reach; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mqttls-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give_away(folder):
    """Make an unprivileged user the owner of `folder` and what is in it, when we are root."""
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.lchown(path, NOBODY, NOBODY)


def give_nobody_rights(folder):
    """Give an unprivileged user all rights in `folder` by a list (acl(5)): `ls` shows a group."""
    entries = [(1, 7, -1), (2, 7, NOBODY), (4, 0, -1), (16, 7, -1), (32, 5, -1)]
    packed = [struct.pack("<HHI", *kind, who & 0xFFFFFFFF) for *kind, who in entries]
    os.setxattr(folder, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(packed))


def write_secret(path, text, encoding=None):
    """Write a file (Path) with a secret, which nobody else can read; return it."""
    path.touch(0o600)
    path.chmod(0o600)
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text, encoding)
    return path


def take_back(folder):
    """Make us the owner of `folder` and what is in it again: mqttls acts in its user's only."""
    if os.geteuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.lchown(path, 0, 0)


def make_directory(path, pki, port, identity=None, name="kitchen"):
    """
    Make the folder `path` (Path) with no more in it than what `provision` needs; return it.

    pki       pki.PKI whose broker the device `name` has to do with
    port      of that broker on this PC
    identity  of the device; that of the PKI when None
    """
    folder = path / "devices" / name
    folder.mkdir(parents=True)
    settings = {"names": ["127.0.0.1"], "port": port, "bind": None, "key": "p256"}
    settings.update(server_only=False, docker=False, admins=[], days=DAYS)
    (path / "settings.json").write_text(json.dumps(settings))
    identity = identity or pki.device
    shutil.copy(pki.ca.cert_der, folder / "ca.der")
    shutil.copy(identity.cert_der, folder / "cert.der")
    shutil.copy(identity.key_der, folder / "key.der")
    (folder / "tls.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "port": port,
                "client_id": name,
                "server_hostname": None,
                "ca": ["ca.der"],
                "cert": "cert.der",
                "key": "key.der",
            }
        )
    )
    return path


class Mosquitto:
    """
    A mosquitto that runs the configuration at `conf` as an unprivileged user, in a `with`.

    conf    Path of mosquitto.conf; its folder must be reachable by that user (see open_folder)
    folder  what is given to that user, when we are root, while it starts and reloads
    command instead of mosquitto itself; it is started as we are (list of str)
    """

    def __init__(self, conf, port, folder=None, command=None):
        self._command = command
        self.conf, self.port = Path(conf), port
        self.folder = Path(folder or self.conf.parent)
        self._log = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._child = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        self._log.close()

    def user(self):
        """Return the number of the user it runs as (Linux)."""
        return Path(f"/proc/{self._child.pid}").stat().st_uid

    def start(self):
        """Start it; raise AssertionError with its log when it does not listen."""
        give_away(self.folder)
        options = {}
        if os.geteuid() == 0 and not self._command:
            options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._child = process.spawn(
            self._command or [mosquitto(), "-c", str(self.conf), "-v"],
            stdin=process.NULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
            **options,
        )
        deadline = time.monotonic() + patience.stretched(10)
        while not is_listening(self.port):
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"mosquitto did not start:\n{self.log()}")
            time.sleep(0.02)
        self._until_it_answers()
        take_back(self.folder)

    def _until_it_answers(self):
        # It listens before it reads its files; whom it answers it has accepted after that.
        with (
            contextlib.suppress(ConnectionResetError),
            socket.create_connection(("127.0.0.1", self.port), patience.stretched(10)) as sock,
        ):
            sock.sendall(b"no TLS")
            sock.recv(100)
        assert self._child.poll() is None, f"mosquitto did not start:\n{self.log()}"

    def stop(self):
        process.end(self._child, grace_s=patience.stretched(5))

    def restart(self):
        """Stop it and start it: it reads everything anew."""
        self.stop()
        self.start()

    def reload(self):
        """Send SIGHUP; return when it has read its files anew."""
        give_away(self.folder)
        before = self.log().count("Reloading config")
        process.signal_group(self._child, process.SIGHUP)
        deadline = time.monotonic() + patience.stretched(10)
        while self.log().count("Reloading config") == before:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        self._until_it_answers()
        take_back(self.folder)

    def log(self):
        """Return all that it said since construction (str)."""
        return Path(self._log.name).read_text(errors="replace")


class Watcher:
    """
    mosquitto_sub on every topic that it may read, with the files of the device `name`, in a
    `with`; `received` is the list of (topic, payload) so far.
    """

    def __init__(self, pki, name, port):
        folder = pki / "devices" / name
        settings = json.loads((folder / "tls.json").read_text())
        if "password" in settings:
            proof = ["-u", settings["user"], "-P", settings["password"]]
        else:
            proof = ["--cert", folder / "cert.crt", "--key", folder / "key.pem"]
        self._data = b""
        self._terminal, stdout = pty.openpty()  # a pipe would be buffered
        self._child = process.spawn(
            ["mosquitto_sub", "--cafile", folder / "ca.crt", *proof, "-h", "127.0.0.1"]
            + ["-p", str(port), "-q", "1", "-t", "#", "-F", "%t %p", "-d"],
            stdin=process.NULL,
            stdout=stdout,
            stderr=stdout,
        )
        os.close(stdout)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._wait(lambda: "Subscribed (mid" in self._text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        process.end(self._child)
        self._reader.join(patience.stretched(5))
        os.close(self._terminal)

    def _read(self):
        with contextlib.suppress(OSError):  # its other side is closed
            while data := os.read(self._terminal, 4096):
                self._data += data

    def _text(self):
        return self._data.decode()

    def _wait(self, is_so):
        deadline = time.monotonic() + patience.stretched(20)
        while not is_so():
            if time.monotonic() > deadline or self._child.poll() is not None:
                raise AssertionError(f"mosquitto_sub:\n{self._text()}")
            time.sleep(0.05)

    @property
    def received(self):
        lines = [each.partition(" ") for each in self._text().splitlines()]
        return [(each[0], each[2]) for each in lines if "/" in each[0]]

    def count(self, topic):
        """Return how many messages of `topic` came."""
        return sum(1 for each in self.received if each[0] == topic)

    def wait_for_count(self, topic, count):
        """Return when `count` messages of `topic` came; AssertionError after 20 s."""
        self._wait(lambda: self.count(topic) >= count)

    def wait_for(self, topic):
        """Return the first payload (str) of `topic`; AssertionError when none comes in 20 s."""
        self.wait_for_count(topic, 1)
        return dict(reversed(self.received))[topic]


def init(folder, *arguments, code=0, run=mqttls, **options):
    """
    Run `mqttls init` for a broker on loopback and a free port; return that port.

    run  how: mqttls, or in_here
    """
    port = free_port()
    names = ("--broker", "127.0.0.1", "--broker", "localhost")
    if "--broker" in arguments:
        names = ()
    bind = ("--bind", "127.0.0.1", "--port", port)
    run(folder, "init", *names, *bind, *arguments, code=code, **options)
    return port
