"""
A real connection up to the broker's CONNACK, with what a device has.

It runs under MicroPython where one is installed, with the device package itself, so that its
verdict is the board's; else with Python's ssl, held to what a board can do.
"""

import contextlib
import dataclasses
import json
import os
import socket
import ssl
import struct
import subprocess
import time

from cryptography.hazmat.primitives import serialization

from .. import library, system
from ..micropython import interpreter
from . import reading
from .peek import BOARD_CIPHERS, CIPHERS

MICROPYTHON, PYTHON = "MicroPython", "Python's ssl"
_MOST_OUTPUT = 64 * 1024
_SLACK_S = 15  # for the interpreter to start and to end, on top of the attempt's own time
_AFTER_S = 0.3  # a broker that does not want a client may say so after CONNACK


@dataclasses.dataclass
class Target:
    """
    Whom to connect to, as whom.

    host, port       as the device dials them
    server_hostname  str, or None for `host`
    ca               list of paths; cert, key  paths, or None
    client_id        str
    user, password   str, or None
    """

    host: str
    port: int = 8883
    server_hostname: str = None
    ca: list = dataclasses.field(default_factory=list)
    cert: str = None
    key: str = None
    client_id: str = ""
    user: str = None
    password: str = None

    @property
    def name(self):
        """The name that must be in the certificate."""
        return self.server_hostname or self.host


@dataclasses.dataclass
class Attempt:
    """
    How it went: `ok`, or `error` (the class's name), `text`, `code` (int or None) as a board
    shows them, and what the device's own table says about it (`cause`, `cure`).

    stage  of table.STAGES, the one that failed; "CONNACK" when ok
    by     the interpreter; `tls_ms` what its handshake took, connection included for Python
    """

    ok: bool = False
    by: str = MICROPYTHON
    error: str = ""
    text: str = ""
    code: int = None
    cause: str = ""
    cure: str = ""
    stage: str = "CONNACK"
    tls_ms: int = 0

    @property
    def shown(self):
        """The error as a console shows it."""
        return f"{self.error}: {self.text}"


_PROGRAM = """\
import asyncio, json, sys, time
from mqtt_as_tls import MQTTClient, TLS, WiFi

async def main(o):
    r = {"version": ".".join(str(each) for each in sys.implementation[1][:3]), "ok": False}
    error = None
    try:
        tls = TLS(ca=o["ca"], cert=o["cert"], key=o["key"],
                  server_hostname=o["server_hostname"], ntp=o.get("ntp"))
        link = None
        if o.get("wifi"):
            with open(o["wifi"]) as f:
                w = json.load(f)
            link = WiFi(w["ssid"], w["password"], country=w.get("country"))
        client = MQTTClient(o["host"], o["port"], link=link, tls=tls,
                            client_id=o["client_id"], user=o["user"],
                            password=o["password"], clean_start=True,
                            connect_timeout_s=o["timeout_s"], keepalive_s=30, log=None)
        await client.__aenter__()
        while not client.connected and client.error is None:
            await asyncio.sleep_ms(10)
        if client.connected:
            r["tls_ms"] = client._transport.tls_ms
            await asyncio.sleep_ms(o["after_ms"])
        error = client.error
        if client.connected:
            r["ok"] = True
        await client.disconnect()
    except Exception as e:
        error = error or e
    if error and not r["ok"]:
        from mqtt_as_tls.explain import explain
        code = getattr(error, "code", None)
        if code is None and isinstance(error, OSError) and isinstance(error.errno, int):
            code = error.errno
        r["error"] = type(error).__name__
        r["text"] = str(error)
        r["code"] = code
        r["cause"], r["cure"] = explain(error, year=time.gmtime()[0])
    print("\\nmqttls:" + json.dumps(r))

asyncio.run(main(json.loads(%s)))
"""


def board_program(asked):
    """
    Return the program (str) that attempts the connection on a board; parse() reads its output.

    asked  dict of Target's fields with the board's own paths, and `timeout_s` (int), `after_ms`
           (int), `ntp` (what sets its clock, or None), `wifi` (path of wifi.json, or None)
    """
    return _PROGRAM % repr(json.dumps(asked))


def parse(out, by=MICROPYTHON):
    """Return the Attempt that a program's output (str) tells of, or None."""
    for line in reversed(out[-_MOST_OUTPUT:].splitlines()):
        if line.startswith("mqttls:"):
            said = json.loads(line[7:])
            attempt = Attempt(by=f"{by} {said.pop('version')}", **said)
            attempt.stage = stage_of(attempt)
            return attempt
    return None


def dial(target, timeout_s=20):
    """
    Return the Attempt to connect to `target`, a Target; one, without a second try.

    The session of a live device stays untouched: the connection is a clean one; with the client id
    of a live device the broker would throw that one out, so give it another.
    """
    path = interpreter()
    attempt = micropython(path, target, timeout_s) if path else python(target, timeout_s)
    attempt.stage = stage_of(attempt)
    return attempt


def micropython(path, target, timeout_s):
    """Return the Attempt of the MicroPython at `path`."""
    asked = dataclasses.asdict(target)
    asked["ca"] = [os.path.abspath(each) for each in target.ca]
    for name in ("cert", "key"):
        asked[name] = os.path.abspath(asked[name]) if asked[name] else None
    asked.update(timeout_s=int(timeout_s), after_ms=int(_AFTER_S * 1000))
    environment = {**os.environ, "MICROPYPATH": f"{library.folder().parent}{os.pathsep}.frozen"}
    try:
        done = subprocess.run(
            [path, "-c", _PROGRAM % "sys.stdin.readline()"],
            input=json.dumps(asked) + "\n",
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s + _SLACK_S,
        )
    except subprocess.TimeoutExpired:
        return Attempt(error="TimeoutError", text=f"MicroPython hung for {timeout_s} s")
    except OSError as error:
        return Attempt(error="OSError", text=f"{path} cannot be started: {error.strerror}")
    attempt = parse(done.stdout)
    if attempt:
        return attempt
    text = (done.stdout + done.stderr).strip().splitlines()
    return Attempt(error="RuntimeError", text=f"{path} failed: {text[-1] if text else 'silently'}")


# Python in the board's place

# X509_V_ERR_…: what MicroPython says about the same
_SAID = {
    10: "The certificate validity has expired",
    9: "The certificate validity starts in the future",
    62: "The certificate Common Name (CN) does not match with the expected CN",
    64: "The certificate Common Name (CN) does not match with the expected CN",
    26: "The certificate usage does not match",
}
_NOT_TRUSTED = "The certificate is not correctly signed by the trusted CA"


def context(target):
    """Return an SSLContext for a Target, with a board's TLS 1.2, ciphers and strictness."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.maximum_version = made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(":".join(CIPHERS[each] for each in BOARD_CIPHERS))
    for path in target.ca:
        for each in reading.certificates(path):
            der = each.public_bytes(serialization.Encoding.DER)
            made.load_verify_locations(cadata=der)
    if target.cert:
        _load_pair(made, target)
    return made


def _load_pair(context, target):
    # OpenSSL wants files, in PEM: a temporary folder that only we can read.
    import tempfile

    private = reading.key(target.key).private
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pair.pem")
        pair = [
            each.public_bytes(serialization.Encoding.PEM)
            for each in reading.certificates(target.cert)
        ]
        pair.append(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        system.create(path, b"".join(pair))
        context.load_cert_chain(path)


def field(text):
    """Return `text` (str) as a field of MQTT: its length, then UTF-8 (3.1.1 section 1.5.3)."""
    data = text.encode()
    return struct.pack(">H", len(data)) + data


def varint(size):
    """Return `size` (int) as a Remaining Length (3.1.1 section 2.2.3)."""
    out = b""
    while True:
        size, low = size >> 7, size & 127
        out += bytes((low | (128 if size else 0),))
        if not size:
            return out


def connect_packet(target, keepalive_s=30, level=4, properties=b""):
    """
    Return the CONNECT packet (bytes) of MQTT 3.1.1, section 3.1, for a clean session.

    level       4, or 5: that of MQTT 5.0, with `properties` (bytes, their length first)
    """
    flags, payload = 2, field(target.client_id)
    if target.user is not None:
        flags |= 0x80
        payload += field(target.user)
        if target.password is not None:
            flags |= 0x40
            payload += field(target.password)
    body = field("MQTT") + bytes((level, flags)) + struct.pack(">H", keepalive_s)
    body += properties + payload
    return b"\x10" + varint(len(body)) + body


_CODES = {
    1: "unacceptable protocol version",
    2: "identifier rejected",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
}


def python(target, timeout_s):
    """Return the Attempt of Python's ssl with a board's TLS 1.2, ciphers and strictness."""
    attempt = Attempt(by=PYTHON)
    start = time.monotonic()
    stage = "TCP"

    def failed(error, text, code=None):
        attempt.error, attempt.text, attempt.code = error, text, code
        attempt.cause, attempt.cure = library.explain(f"{error}({text!r}, {code})")
        return attempt

    try:
        made = context(target)
    except (reading.Unreadable, ssl.SSLError, ValueError) as error:
        return failed("ValueError", str(error))
    try:
        raw = socket.create_connection((target.host, target.port), timeout_s)
    except socket.gaierror as error:
        return failed("ResolveError", f"cannot find the address of {target.host}: {error}")
    except OSError as error:
        return failed("ConnectError", f"cannot connect: {error}", error.errno)
    with contextlib.closing(raw):
        try:
            stage = "TLS"
            with made.wrap_socket(raw, server_hostname=target.name) as sock:
                attempt.tls_ms = int((time.monotonic() - start) * 1000)
                stage = "MQTT"
                sock.sendall(connect_packet(target))
                answer = b""
                while len(answer) < 4:
                    more = sock.recv(4 - len(answer))
                    if not more:
                        return failed("ConnectError", "the broker closed the connection")
                    answer += more
                if answer[:2] != b"\x20\x02":
                    return failed("ProtocolError", "the answer to CONNECT is no CONNACK")
                if answer[3]:
                    said = _CODES.get(answer[3], "unknown")
                    text = f"CONNACK {answer[3]}: {said}"
                    return failed("RefusedError", text, answer[3])
                sock.settimeout(_AFTER_S)
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(1):
                        return failed("ConnectError", "the broker closed the connection")
                sock.settimeout(timeout_s)
                with contextlib.suppress(OSError):
                    sock.sendall(b"\xe0\0")
                attempt.ok = True
                return attempt
        except ssl.SSLCertVerificationError as error:
            return failed("CertificateError", _SAID.get(error.verify_code, _NOT_TRUSTED))
        except TimeoutError:
            return failed("ConnectError", f"no {stage} for {int(timeout_s)} s", None)
        except ssl.SSLError as error:
            if stage == "MQTT":  # TLS 1.2 or not: what is refused after the handshake is ours
                return failed("ConnectError", f"the broker closed the connection: {error.reason}")
            code = -28288 if "VERSION" in (error.reason or "") else -30592
            return failed("TLSError", f"TLS handshake broken off ({code}): {error.reason}", code)
        except OSError as error:
            kind = "TLSError" if stage == "TLS" else "ConnectError"
            return failed(kind, f"{stage} broken off ({error.errno})", error.errno)


def stage_of(attempt):
    """Return the stage (of table.STAGES) at which an Attempt failed."""
    text = f"{attempt.error} {attempt.text}".lower()
    if attempt.error == "ResolveError":
        return "resolve"
    if attempt.error == "LinkError":
        return "connect"
    if attempt.error == "ConnectError":
        if "cannot connect" in text or "no tcp" in text or "(tcp)" in text:
            return "connect"
        return "TLS" if "no tls" in text or "(tls)" in text else "CONNACK"
    if attempt.error in ("TLSError", "CertificateError"):
        if "after the broker's" in text:
            return "client certificate"
        if "signed" in text:
            return "chain"
        if "cn" in text.split() or "common name" in text:
            return "name"
        return "dates" if "validity" in text else "TLS"
    if attempt.error == "ValueError":
        return "files"
    return "CONNACK"
