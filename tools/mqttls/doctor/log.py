"""
What the broker's log says: the lines of mosquitto 2.0 and 2.1, and of the OpenSSL in it.

A log holds much that is long past. `Watch` gives what was added since it was made.
"""

import contextlib
import os
import re
from pathlib import Path

from .. import acl, system
from ..names import is_device_name
from .causes import ROWS, problem, remark

_MOST_BYTES = 1024 * 1024
_MOST_LINES = 20_000
_MOST_LONG = 2000

# (pattern, row, what it means; None takes the row's cause). The first that is found is the one.
_LINES = tuple(
    (re.compile(pattern, re.IGNORECASE), row, cause)
    for pattern, row, cause in (
        (r"wrong version number|http request", 4, None),
        (r"unsupported protocol|wrong ssl version|no protocols available", 7,
         "client and broker have no TLS version in common: the broker may want TLS 1.3, "
         "MicroPython has 1.2"),
        (r"no shared cipher|no suitable key share|no suitable groups|no shared group", 10,
         "no cipher or curve in common, or the broker's certificate does not allow it "
         "(keyUsage without digitalSignature)"),
        (r"no suitable signature algorithm|no shared signature algorithms", 9, None),
        (r"peer did not return a certificate", 24, None),
        (r"crl (has )?expired", 26, None),
        (r"certificate verify failed", 25,
         "the client's certificate is expired, revoked, of another CA or not for clients, or the "
         "broker's CRL has expired"),
        (r"bad signature|decrypt error.*client|wrong signature", 27, None),
        (r"alert unknown ca", 17, None),
        (r"alert certificate expired", 14, None),
        (r"alert certificate revoked", 17,
         "the client says that the broker's certificate is revoked"),
        (r"alert bad certificate", 15,
         "the client does not accept the broker's certificate: name, dates or CA"),
        (r"alert unsupported certificate", 31, None),
        (r"alert certificate unknown", 17,
         "the client does not accept the broker's certificate"),
        (r"alert (handshake failure|insufficient security|protocol version)", 10,
         "the client broke the handshake off: no cipher, curve or version in common"),
        (r"key values mismatch", 39, "key and certificate of the broker are not a pair"),
        (r"no start line|wrong tag|bad base64", 39,
         "the file is not PEM, or not what it should be"),
        (r"bad decrypt|problems getting password|bad password read|empty password", 39,
         "the broker's key has a passphrase"),
        (r"Permission denied", 39, "the broker may not read one of its files"),
        (r"(ee|ca) key too small|ca md too weak", 33,
         "the broker's OpenSSL finds a key or signature too weak"),
        (r"Unable to load server key file", 39, None),
        (r"Unable to load server certificate", 39,
         "the broker cannot load its certificate: missing, unreadable or not PEM"),
        (r"Unable to load CA certificates", 39,
         "the broker cannot load its cafile: missing, unreadable or not PEM"),
        (r"Unable to load certificate revocation file", 26,
         "the broker cannot load its crlfile: missing, unreadable or not PEM"),
        (r"Unable to open (acl_file|pwfile|password_file)|opening (acl|password) file", 45, None),
        (r"Unable to drop privileges", 45,
         "the user that mosquitto is to become when root starts it is not on this machine"),
        (r"Unknown configuration variable|Error found at .*:\d|Invalid .* value", 39,
         "the broker does not start: a line of its configuration is wrong"),
        (r"Starting in local only mode", 2,
         "without a listener in its configuration mosquitto 2 takes clients of its own PC only"),
        (r"Address already in use", 2,
         "another program, perhaps another broker, has the port"),
        (r"already connected, closing old connection", 38,
         "two clients have the same client id and throw each other out"),
        (r"disconnected, not authorised", 35, None),
        (r"bad username or password|Bad user name", 36, None),
        (r"(invalid|bad) client ?id|identifier rejected", 37, None),
        (r"Denied (PUBLISH|SUBSCRIBE)", 44, None),
        (r"disconnected due to protocol error|disconnected due to malformed packet", 4,
         "what came was no MQTT: TLS on a plain port, or another program"),
        (r"unexpected eof while reading", 6,
         "a client hung up in the middle of the handshake: it did not trust the broker, ran out "
         "of memory, or only looked"),
    )
)  # fmt: skip

_DENIED = re.compile(r"Denied PUBLISH from (.+?) \(d\d, q\d, r\d, m\d+, '(.*)', ")

# OpenSSL's own words after a line of mosquitto that names only the file: they say more.
_VAGUE = re.compile("Unable to load", re.IGNORECASE)
_TIME = re.compile(r"^(\d{9,11}|\d{4}-\d\d-\d\d[T ][\d:+Z.-]+): ")


def judge_line(line):
    """Return the Finding that a line (str) of the log is about, or None."""
    line = line[:_MOST_LONG]
    for pattern, row, cause in _LINES:
        if pattern.search(line):
            text = _TIME.sub("", line.strip())
            cure = _cure_of_denied(text) if row == 44 else None
            return problem(row, f"the broker's log: {text}", cause=cause, cure=cure)
    return None


def _cure_of_denied(line):
    found_in_it = _DENIED.search(line)
    if not found_in_it:
        return None
    name, topic = found_in_it.groups()
    return cure_of_denied(name.removesuffix("-doctor"), f"write:{topic}")


def cure_of_denied(name, rule):
    """Return the cure (str) of row 44 for a device and what `--topics` gives it, if it can."""
    words = ""
    with contextlib.suppress(ValueError):
        acl.rules([rule])
        if is_device_name(name):
            words = f"mqttls device add {name} --topics {system.quote(rule)}"
    general = "mqttls device add NAME --topics TOPIC"
    return ROWS[44][2].replace(general, words or general)


def judge(lines):
    """
    Return the findings in `lines` (list of str), each kind once, the latest first.

    What only looked (a peek, a port scan) leaves lines, too: they become remarks.
    """
    kinds, vague = {}, None
    for line in lines[-_MOST_LINES:]:
        finding = judge_line(line)
        if finding is None:
            continue
        if _VAGUE.search(line):
            vague = (finding.row, finding.cause)
        elif finding.row == 39 and vague:
            kinds.pop(vague, None)  # the next line says why
            vague = None
        kinds.pop((finding.row, finding.cause), None)
        kinds[(finding.row, finding.cause)] = finding
    out = list(kinds.values())[::-1]
    return [
        remark(each.row, each.fact, cause=each.cause) if each.row == 6 else each for each in out
    ]


class Watch:
    """
    The log file `path`, from where it ends now.

    Raises OSError when it cannot be read.
    """

    def __init__(self, path):
        self.path = Path(path)
        with open(self.path, "rb") as file:
            self._at = file.seek(0, os.SEEK_END)

    def before(self):
        """Return the last lines (list of str) from before this object was made, 1 MB at most."""
        with open(self.path, "rb") as file:
            start = max(0, self._at - _MOST_BYTES)
            file.seek(start)
            return self._lines(file.read(self._at - start), start > 0)

    def since(self):
        """Return the lines (list of str) that were added since; a rotated log begins anew."""
        with open(self.path, "rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(self._at if end >= self._at else 0)
            return self._lines(file.read(_MOST_BYTES))

    def mark(self):
        """Let `since` begin here."""
        with open(self.path, "rb") as file:
            self._at = file.seek(0, os.SEEK_END)

    @staticmethod
    def _lines(data, cut=False):
        lines = data.decode("utf-8", "replace").splitlines()
        return lines[1:] if cut else lines
