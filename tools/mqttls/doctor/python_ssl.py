"""
Python's ssl in the board's place: held to TLS 1.2, the ciphers and the strictness of a board.
"""

import contextlib
import os
import socket
import ssl
import tempfile
import time

from .. import certificates, library, system
from . import reading
from .attempt import AFTER_S, PYTHON, Attempt
from .mqtt import CODES, connect_packet
from .peek import BOARD_CIPHERS, CIPHERS

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
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # to a board every CA that it has is a root
    for path in target.ca:
        for each in reading.load_all(path):
            made.load_verify_locations(cadata=certificates.cert_der(each))
    if target.cert:
        _load_pair(made, target)
    return made


def connect(target, timeout_s):
    """
    Return a socket that is connected to `target`, an attempt.Target: over TLS, unless it has none.

    Raises OSError, ValueError, reading.Unreadable.
    """
    made = context(target) if target.tls else None
    raw = socket.create_connection((target.host, target.port), timeout_s)
    try:
        return made.wrap_socket(raw, server_hostname=target.name) if made else raw
    except BaseException:
        raw.close()
        raise


def _load_pair(context, target):
    # OpenSSL wants files, in PEM: a temporary folder that only we can read.
    pair = certificates.cert_pem(*reading.load_all(target.cert))
    pair += certificates.key_pem(reading.load_key(target.key).private)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pair.pem")
        system.create(path, pair)
        context.load_cert_chain(path)


def connack(target, alpn, timeout_s):
    """Tell whether the broker answers CONNECT when the protocol `alpn` (str) is asked for."""
    with contextlib.suppress(OSError, ValueError):
        made = context(target)
        made.set_alpn_protocols([alpn])
        with (
            socket.create_connection((target.host, target.port), timeout_s) as raw,
            made.wrap_socket(raw, server_hostname=target.name) as sock,
        ):
            sock.sendall(connect_packet(target))
            return sock.recv(1) == b"\x20"
    return False


def takes(target, timeout_s, keepalive_s):
    """Tell whether the broker takes the client of a Target with `keepalive_s` (int)."""
    problems = (OSError, ValueError, reading.Unreadable)
    with contextlib.suppress(*problems), connect(target, timeout_s) as sock:
        sock.sendall(connect_packet(target, keepalive_s))
        answer = sock.recv(4)
        sock.sendall(b"\xe0\0")
        return answer[:1] == b"\x20" and answer[3:] == b"\0"
    return False


def alert(target, timeout_s):
    """
    Return the alert (str, as "unknown_ca") with which the broker refuses the certificate of a
    Target, "" where none comes. A board is not told which it was; no CONNECT is sent.
    """
    for _ in range(_TRIES):  # who hangs up may take back what it has sent
        try:
            with connect(target, timeout_s) as sock:
                sock.settimeout(AFTER_S)
                sock.recv(1)
            return ""
        except ssl.SSLError as error:
            _, found, name = (error.reason or "").partition("_ALERT_")
            if found:
                return name.lower()
        except (OSError, ValueError, reading.Unreadable):
            pass
    return ""


_TRIES = 3


def dial(target, timeout_s, *, connect=True):
    """
    Return the Attempt to connect to `target`, an attempt.Target; without `connect` to shake hands
    with the broker, which checks the client's certificate in that, and no more.
    """
    tls_ms = 0
    start = time.monotonic()
    stage = "TCP"

    def failed(error, text, code=None):
        state = "CONNECT" if stage == "MQTT" else None
        cause, cure = library.explain(f"{error}({text!r}, {code})", state=state)
        return Attempt(False, PYTHON, error, text, code, cause, cure, tls_ms)

    try:
        made = context(target) if target.tls else None
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
            with made.wrap_socket(raw, server_hostname=target.name) if made else raw as sock:
                tls_ms = int((time.monotonic() - start) * 1000)
                if not connect:
                    return Attempt(True, PYTHON, tls_ms=tls_ms)
                stage = "MQTT"
                sock.sendall(connect_packet(target))
                answer = b""
                while len(answer) < 4:
                    more = sock.recv(4 - len(answer))
                    if not more:
                        return failed("ConnectError", "the broker closed the connection")
                    answer += more
                if answer[:2] != b"\x20\x02":
                    text = f"packet 0x{answer[0]:02x} in the place of CONNACK"
                    return failed("ProtocolError", text)
                if answer[3]:
                    said = CODES.get(answer[3], "unknown")
                    text = f"CONNACK {answer[3]}: {said}"
                    return failed("RefusedError", text, answer[3])
                sock.settimeout(AFTER_S)
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(1):
                        return failed("ConnectError", "the broker closed the connection")
                sock.settimeout(timeout_s)
                with contextlib.suppress(OSError):
                    sock.sendall(b"\xe0\0")
                return Attempt(True, PYTHON, tls_ms=tls_ms)
        except ssl.SSLCertVerificationError as error:
            said = _SAID.get(error.verify_code, _NOT_TRUSTED)
            return failed("CertificateError", f"{said} ({error.verify_message})")
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
