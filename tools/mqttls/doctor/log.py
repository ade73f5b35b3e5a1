"""
What the broker's log says: the lines of mosquitto 2.0 and 2.1, and of the OpenSSL in it.

A log holds much that is long past. `Watch` gives what was added since it was made.
"""

import contextlib
import dataclasses
import os
import re
from pathlib import Path

from .. import acl, given, system
from ..names import is_device_name
from . import other_logs
from .causes import ROWS, problem

WENT = "the client went without a DISCONNECT: it lost its network or its power, was reset, or "
WENT += "did not trust the broker"
_MOST_BYTES = 1024 * 1024
_MOST_LINES = 20_000
_MOST_LONG = 2000

# (pattern, row, what it means; None takes the row's cause). The first that is found is the one.
_LINES = tuple(
    (re.compile(pattern, re.IGNORECASE), row, cause)
    for pattern, row, cause in (
        *other_logs.LINES,
        (r"wrong version number|http request", 4, None),
        (r"appears to be using TLS to connect to a non-TLS listener", 3,
         "a client came with TLS to a port without it"),
        (r"client did not connect using TLS", 4, None),
        (r"unsupported protocol|wrong ssl version|no protocols available", 7,
         "client and broker have no TLS version in common: the broker may want TLS 1.3, "
         "MicroPython has 1.2"),
        (r"no shared cipher|no suitable key share|no suitable groups|no shared group", 10,
         "no cipher or curve in common: `ciphers` has none for the kind of the broker's key "
         "(ECDSA for EC, RSA for RSA), or its certificate may not sign (keyUsage without "
         "digitalSignature), or has its key as a compressed point"),
        (r"no suitable signature algorithm|no shared signature algorithms", 9, None),
        (r"peer did not return a certificate|certificate required|did not provide a certificate",
         24, None),
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
        (r"Permission denied", 45, "the broker may not read one of its files"),
        (r"Unable to load plugin", 58,
         "the broker does not start: a plugin is not there, or is one for another release"),
        (r"No such file or directory", 58, None),
        (r"Both certfile and keyfile must be provided|(cafile|capath) specified without", 59,
         "TLS wants certfile and keyfile, both: mosquitto does not start with one of them"),
        (r"Unsupported tls_version", 60, None),
        (r"Unable to set TLS ciphers|no cipher match|Unable to set TLS 1.3 ciphersuites", 10,
         "the broker's OpenSSL knows none of the names in `ciphers`"),
        (r"certificate/key are inconsistent", 39,
         "key and certificate of the broker are not a pair"),
        (r"is now deprecated|no longer available|no longer required", 62, None),
        (r"(ee|ca) key too small|ca md too weak", 33,
         "the broker's OpenSSL finds a key or signature too weak"),
        (r"Unable to load server key file", 39, None),
        (r"Unable to load server certificate", 39,
         "the broker cannot load its certificate: missing, unreadable or not PEM"),
        (r"Unable to load CA certificates", 39,
         "the broker cannot load its cafile: missing, unreadable or not PEM"),
        (r"Unable to load certificate revocation file", 26,
         "the broker cannot load its crlfile: missing, unreadable or not PEM"),
        (r"Unable to open (acl_file|pwfile|password_file)|opening (acl|password) file", 45,
         f"{ROWS[45][1]}; mosquitto 2.1 opens no such file through a symbolic link, either"),
        (r"Unable to open log file|Unable to write pid file", 45,
         "the folder of the broker's log_dest or pid_file is not there, or the user that "
         "mosquitto becomes may not write in it"),
        (r"(decode|Invalid) line in password file|user \S* in password file|username in password "
         r"file", 57,
         "a line of the password file is none that mosquitto takes, as it is not hashed, or by "
         "another program: 2.1 does not start with that, 2.0 leaves that user out"),
        (r"File .* (has world readable permissions|(owner|group) is not )", 62,
         "mosquitto 2.1 says that a later one will refuse this file, as others than its user may "
         "read it"),
        (r"Unable to drop privileges", 45,
         "the user that mosquitto is to become when root starts it is not on this machine"),
        (r"Interface \S+ does not exist|Interface address for", 2,
         "bind_interface names a network that the broker's machine does not have"),
        (r"Unknown configuration variable|Error found at .*:\d|(Invalid|Empty|Duplicate) .* value|"
         r"option requires .* to be defined|must be set before any other security|value not a "
         r"number|value out of range|Error: .* (must (not )?be |cannot be used with)|"
         r"Cannot use both|"
         r"Invalid (line in|bridge|port|ACL|topic access)|(Missing username|Empty topic) in acl|"
         r"Unable to open (config file|include_dir)|Config file .* is a directory", 57,
         "the broker does not start: a line of its configuration is wrong, or stands in a wrong "
         "place"),
        (r"Starting in local only mode", 2,
         "without a listener in its configuration mosquitto 2 takes clients of its own PC only"),
        (r"Websockets support not available|Unable to create websockets listener", 57,
         "mosquitto does not start: it was built without WebSocket, which boards do not need"),
        (r"Unable to start any listening sockets", 2,
         "mosquitto does not start: it could open no listener, or (2.0.11) all that it has are "
         "for websockets"),
        (r"Cannot assign requested address", 2,
         "the address behind the port in `listener` is none of the broker's machine"),
        (r"Address already in use", 2,
         "another program, perhaps another broker, has the port"),
        (r"already connected, closing old connection", 38,
         "two clients have the same client id and throw each other out"),
        (r"disconnected[,:] not authori[sz]ed|Connection Refused: not authori[sz]ed", 35, None),
        (r"bad username or password|Bad user name|password without username", 36, None),
        (r"(invalid|bad) client ?id|identifier (rejected|not valid)", 37, None),
        (r"session taken over", 38,
         "two clients have the same client id and throw each other out"),
        (r"exceeded timeout|has exceeded timeout", 0,
         "the client was silent for longer than its keepalive: it lost its network or its power, "
         "or its program blocks"),
        (r"disconnected[,:] (due to )?(oversize p|packet too large)", 0,
         "the client sent more than the broker takes (max_packet_size, message_size_limit)"),
        (r"disconnected[,:] (due to )?out of memory|disconnected[,:] quota exceeded", 0,
         "the broker has no memory or quota left for this client"),
        (r"disallowed feature|QoS too high or retain", 0,
         "the client used a QoS, retain, or a version of MQTT that the broker was told not to "
         "take (max_qos, retain_available, accept_protocol_versions)"),
        (r"receive.maximum", 0,
         "the client sent more at once than the broker allows (max_inflight_messages)"),
        (r"denied access by tcpd", 67,
         "the lists of who may come (hosts.allow, hosts.deny) keep this client out"),
        (r"administrative action|client banned|connection rate exceeded|server (busy|unavail)", 0,
         "the broker was told to end this connection, or has too many of them"),
        (r"max_connections exceeded|Unable to accept new connection", 0,
         "the broker has as many clients as it was told to take, or no file handles left"),
        (r"Denied (PUBLISH|SUBSCRIBE)", 44, None),
        (r"denying access to client with dangerous", 44,
         "the user name or client id has + or # in it: mosquitto's ACL denies it everything"),
        (r"disconnected(:| due to) (protocol error|malformed packet)", 4,
         "what came was no MQTT: TLS on a plain port, a handshake broken off, or another program"),
        (r"Bad socket read/write on client .*: (Invalid|malformed)", 4,
         "what came was no MQTT: TLS on a plain port, or another program"),
        (r"connection closed by client|closed its connection|Socket error on client|"
         r"disconnected: (bad socket|connection (reset|timed out))", 0,
         WENT),
        (r"unexpected eof while reading|peer closed connection without|SSL_accept:error", 6,
         "a client hung up in the middle of the handshake: it did not trust the broker, ran out "
         "of memory, or only looked"),
    )
)  # fmt: skip

_SAID = "the broker's log: "
_LOOK = "see the device's own log, and the broker's lines before this one"
_CURES = {
    pattern.pattern: cure
    for pattern, _, _ in _LINES
    for word, cure in (
        (
            "line in password",
            "mosquitto_passwd -U FILE hashes what is plain text; else write that "
            "user anew: mosquitto_passwd FILE NAME",
        ),
        ("world readable", "chown mosquitto FILE; chmod 0600 FILE"),
        ("Unable to write", "make that folder, and give it to that user: chown mosquitto"),
        ("Interface", "drop `bind_interface`, or name a network of that machine"),
        ("tcpd", "let it in there: hosts.allow"),
        ("no cipher match", "remove `ciphers` and `ciphers_tls1.3` from mosquitto.conf"),
        ("exceeded timeout", "is its Wi-Fi good? does its program block longer than keepalive_s?"),
        ("oversize p", "raise max_packet_size and message_size_limit, or send less"),
        ("max_connections", "raise max_connections, and the broker's limit of open files"),
        ("certfile and keyfile must", "give both certfile and keyfile to the listener"),
        ("Websockets support", "drop the line `protocol websockets`"),
        (
            "any listening sockets",
            "a listener for boards, without `protocol websockets`; see the lines before this one",
        ),
        ("Cannot assign", "listener 8883 (without an address)"),
    )
    if word in pattern.pattern
}

_DENIED = re.compile(r"Denied PUBLISH from (.+?) \(d\d, q\d, r\d, m\d+, '(.*)', ")

_REMARKS = (6, 62)
# OpenSSL's own words after a line of mosquitto that names only the file: they say more.
_END = re.compile("disconnected.*protocol error", re.IGNORECASE)
_VAGUE = re.compile("Unable to load", re.IGNORECASE)
_TIME = re.compile(
    r"^(\d{4,11}|\d{4}-\d\d-\d\d[T ][\d:+Z.,-]+|[A-Z][a-z]{2} [ \d]\d [\d:]{8} \S+ \S+?):? "
)


def judge_line(line):
    """Return the Finding that a line (str) of the log is about, or None."""
    line = line[:_MOST_LONG]
    for pattern, row, cause in _LINES:
        if pattern.search(line):
            text = _TIME.sub("", line.strip())
            cure = _cure_of_denied(text) if row == 44 else _CURES.get(pattern.pattern)
            if not row and not cure:
                cure = _LOOK
            stage = "CONNACK" if not row else None
            fact = f"{_SAID}{text}"
            return problem(row, fact, cause=cause, cure=cure, stage=stage)
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
    kinds, vague, before = {}, None, ""
    for line in lines[-_MOST_LINES:]:
        finding = judge_line(line)
        if finding is None:
            continue
        if _END.search(line) and "SSL" in before:  # the line before says why
            continue
        before = line
        if _VAGUE.search(line):
            vague = finding
        elif vague and finding.row in (39, 45, 58):
            kinds.pop((vague.row, vague.cause), None)  # the next line says why
            fact = f"{vague.fact}; {finding.fact.removeprefix(_SAID)}"
            finding, vague = dataclasses.replace(finding, fact=fact), None
        kinds.pop((finding.row, finding.cause), None)
        kinds[(finding.row, finding.cause)] = finding
    out = list(kinds.values())[::-1]
    return [
        dataclasses.replace(each, level="remark") if each.row in _REMARKS else each for each in out
    ]


class Watch:
    """
    The log file `path`, from where it ends now.

    Raises OSError when it cannot be read, Failure where it is no file.
    """

    def __init__(self, path):
        self.path = Path(path)
        with given.opened(self.path) as file:
            self._at = file.seek(0, os.SEEK_END)

    def before(self):
        """Return the last lines (list of str) from before this object was made, 1 MB at most."""
        with given.opened(self.path) as file:
            start = max(0, self._at - _MOST_BYTES)
            file.seek(start)
            return self._lines(file.read(self._at - start), start > 0)

    def since(self):
        """Return the lines (list of str) that were added since; a rotated log begins anew."""
        with given.opened(self.path) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(self._at if end >= self._at else 0)
            return self._lines(file.read(_MOST_BYTES))

    def mark(self):
        """Let `since` begin here."""
        with given.opened(self.path) as file:
            self._at = file.seek(0, os.SEEK_END)

    @staticmethod
    def _lines(data, cut=False):
        lines = data.decode("utf-8", "replace").splitlines()
        return lines[1:] if cut else lines
