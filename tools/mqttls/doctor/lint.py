"""
The broker's certificates, and the files of a device, judged by the rules of the mbedTLS that
boards have. `when` is an aware datetime, "now" in all but tests.
"""

import datetime
import ipaddress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from .. import certificates
from . import reading
from .causes import problem, remark
from .peek import BOARD_IN

# Where the clock of a board starts that nobody set (rp2).
UNSET_CLOCK = datetime.datetime(2021, 1, 1, tzinfo=datetime.timezone.utc)

_MOST_ABOVE = 8  # MBEDTLS_X509_MAX_INTERMEDIATE_CA
_MANY_BYTES = 1500

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# What mbedTLS understands of what may be critical (RFC 5280 section 4.2).
_UNDERSTOOD = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
)


def day(when):
    """Return the day of a datetime, for messages."""
    return when.strftime("%Y-%m-%d")


def minute(when):
    """Return the minute of a datetime, for messages."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def form(certificate, whose):
    """
    Return the findings about what mbedTLS cannot read or trust in a certificate at all.

    whose  str for messages, such as "the broker's certificate"
    """
    out = []
    public = reading.public_key(certificate)
    kind = reading.key_name(public) if public is not None else "of an unknown kind"
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < 2048:
            out.append(
                problem(
                    33,
                    f"{whose} has a key of {kind} bits; mbedTLS wants 2048 or more",
                    cure="reissue it with P-256 (or RSA with 2048 bits)",
                )
            )
    elif not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, _CURVES
    ):
        out.append(
            problem(9, f"{whose} has a key {kind}; MicroPython knows P-256, 384, 521 and RSA")
        )
    try:
        hashed = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        hashed = None
    oid = certificate.signature_algorithm_oid
    if oid == x509.SignatureAlgorithmOID.RSASSA_PSS:
        out.append(problem(33, f"{whose} is signed with RSA-PSS, which MicroPython does not have"))
    elif not isinstance(hashed, _HASHES) and certificate.issuer != certificate.subject:
        how = hashed.name.upper() if hashed else reading.oid_name(oid)
        out.append(problem(33, f"{whose} is signed with {how}; mbedTLS wants SHA-256, 384 or 512"))
    try:
        extensions = list(certificate.extensions)
    except (ValueError, KeyError, TypeError, x509.DuplicateExtension) as error:
        out.append(problem(33, f"the extensions of {whose} are damaged ({str(error)[:80]})"))
        extensions = []
    for each in extensions:
        if each.critical and each.oid not in _UNDERSTOOD:
            out.append(
                problem(33, f"{whose} has a critical extension {reading.oid_name(each.oid)}")
            )
    return out


def dates(certificate, whose, when=None):
    """Return the findings about the dates of a certificate."""
    when = when or certificates.now()
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start > when:
        return [problem(13, f"{whose} is valid from {minute(start)} on; now it is {minute(when)}")]
    if end < when:
        return [problem(14, f"{whose} expired on {minute(end)}", cause=f"{whose} has expired")]
    out = []
    if start > UNSET_CLOCK:
        out.append(
            remark(
                12,
                f"{whose} is valid from {day(start)} on; a board whose clock was never set says "
                f"{day(UNSET_CLOCK)}",
            )
        )
    if end < when + datetime.timedelta(days=30):
        out.append(
            remark(
                14,
                f"{whose} expires on {minute(end)}, in {(end - when).days} days",
                cause="it will be refused then",
            )
        )
    return out


def matches(name, certificate):
    """
    Return (bool, bool): does `name` (str, DNS name or IP address) match by the rules of mbedTLS
    since 3.5 (MicroPython 1.23), and by those before, which ignore IP addresses in the SAN.
    """
    dns, addresses = reading.alternative_names(certificate)
    if not dns and not addresses:
        if reading.extension(certificate, x509.SubjectAlternativeName) is not None:
            return False, False
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found_one = any(_same(name, str(each.value)) for each in names)
        return found_one, found_one
    old = any(_same(name, each) for each in dns)
    try:
        return old or str(ipaddress.ip_address(name)) in addresses, old
    except ValueError:
        return old, old


def _same(name, pattern):
    name, pattern = name.lower(), pattern.lower()
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and rest == pattern[2:] and bool(rest)
    return name == pattern


def named(certificate, name):
    """Return the findings about the name that is dialled."""
    new, old = matches(name, certificate)
    dns, addresses = reading.alternative_names(certificate)
    if dns or addresses:
        have = ", ".join([*dns, *(f"{each} (IP)" for each in addresses)][:20])
    else:
        have = f"only the common name {reading.name_of(certificate)}"
    if not new:
        return [problem(15, f"{name} is not among the names of the broker's certificate: {have}")]
    if not old:
        return [remark(16, f"{name} is in the broker's certificate as IP address only")]
    return []


def server(certificate, cipher=0xC02B):
    """
    Return the findings about whether a certificate is one for servers.

    cipher  int, what the broker chose: with those of RSA key exchange (0x00..) nothing is signed
    """
    out = []
    purposes = reading.extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if purposes is not None and not any(each in allowed for each in purposes):
        have = ", ".join(map(reading.oid_name, purposes))
        out.append(problem(31, f"the broker's certificate is for {have}, not for serverAuth"))
    usage = reading.extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature and cipher >> 8:
        out.append(problem(11, "the keyUsage of the broker's certificate lacks digitalSignature"))
    return out


# The chain, as mbedtls_x509_crt_verify walks it


def _key_id(certificate, kind):
    value = reading.extension(certificate, kind)
    digest = getattr(value, "digest", None) or getattr(value, "key_identifier", None)
    return digest.hex() if digest else ""


def chain(sent, trusted, when=None, known=()):
    """
    Return the findings about whether a board that trusts `trusted` accepts the chain `sent`.

    sent     list of x509.Certificate as the broker sends them, its own first
    trusted  list of those that the board has; empty means that it has none
    known    other certificates that were found, to tell a missing intermediate
    """
    out = form(sent[0], "the broker's certificate")
    at, whose, above = sent[0], "the broker's certificate", 0
    if not trusted:
        return [*out, problem(21, "the board has no CA"), *dates(at, whose, when)]
    while above <= _MOST_ABOVE:
        out += dates(at, whose, when)
        if at in trusted and (above or at.issuer == at.subject):
            return out  # a trusted root, or a pinned self-signed broker
        parent = _parent(at, trusted, above) or _parent(at, sent[1:], above)
        if parent is None or parent == at:
            return [*out, _why_no_parent(at, whose, sent, trusted, known)]
        if above:
            whose = f"the CA {reading.name_of(parent)}"
        else:
            whose = f"the certificate of {reading.name_of(parent)}, which signed the broker's,"
        out += form(parent, whose)
        at, above = parent, above + 1
    return [
        *out,
        problem(33, f"the chain has more than {_MOST_ABOVE} certificates above the broker"),
    ]


def _parent(child, candidates, above):
    for each in candidates:
        if each.subject == child.issuer and reading.is_ca(each) and reading.signed_by(child, each):
            limit = reading.extension(each, x509.BasicConstraints).path_length
            if limit is None or limit >= above:
                return each
    return None


def _why_no_parent(child, whose, sent, trusted, known):
    issuer = reading.issuer_of(child)
    names = ", ".join(sorted({reading.name_of(each) for each in trusted}))
    wanted = _key_id(child, x509.AuthorityKeyIdentifier)
    for each in [*trusted, *sent[1:]]:
        if each.subject != child.issuer or each == child:
            continue
        if reading.signed_by(child, each):
            if not reading.is_ca(each):
                missing = "keyCertSign" if reading.says_ca(each) else "CA:TRUE"
                return problem(18, f"{reading.name_of(each)} signed {whose}, but has no {missing}")
            return problem(
                18,
                f"the path length of the CA {reading.name_of(each)} forbids the CA below it",
                cause="the CA's certificate allows fewer CAs below it than there are",
            )
    for each in trusted:
        if each.subject == child.issuer:
            have = _key_id(each, x509.SubjectKeyIdentifier) or "none"
            return problem(
                17,
                f"the board has another CA named {issuer}: key id {have[:16]}, while {whose} is "
                f"signed by {wanted[:16] or 'an unnamed one'}",
            )
    for each in known:
        if each.subject == child.issuer and reading.signed_by(child, each) and each not in trusted:
            above = [other for other in trusted if other.subject == each.issuer]
            if any(reading.signed_by(each, other) for other in above):
                return problem(
                    19,
                    f"{whose} is signed by the intermediate {issuer}, which the broker does not "
                    f"send, and that one by {reading.name_of(above[0])}",
                )
    if child.issuer == child.subject and child is not sent[0]:
        return problem(17, f"the broker's chain ends at the CA {issuer}; the board trusts {names}")
    if child.issuer == child.subject:
        return problem(17, f"{whose} is signed by itself ({issuer}); the board trusts {names}")
    return problem(
        17,
        f"{whose} is signed by {issuer}; the board trusts {names}",
        cause="the board trusts another CA than the one that signed the broker's certificate, or "
        "the broker does not send the intermediate certificate",
        cure=f"put the CA {issuer} on the board (mqttls provision); or, if {issuer} is below "
        f"{names}, append its certificate to the broker's certfile",
    )


def flight(lengths, largest=0):
    """
    Return the findings about the size of the broker's certificates.

    lengths  bytes of each certificate
    largest  bytes of the largest message, if a peek saw it
    """
    total = max(largest, 7 + sum(3 + each for each in lengths))
    if total > BOARD_IN:
        return [problem(32, f"the broker's certificates are {total} bytes; a board has 16384")]
    return []


# The device's files


def device_key(private, path):
    """Return the findings about the form of a device's key; `path` for messages."""
    out = []
    kind = reading.key_name(private.private.public_key())
    if not isinstance(private.private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        out.append(problem(9, f"{path} is a key {kind}", stage="files", cure="make a P-256 key"))
    elif kind not in ("P-256", "P-384"):
        out.append(remark(40, f"{path} is a key of {kind}: on a Pico W seconds, not one"))
    if private.pem:
        out.append(remark(28, f"{path} is PEM"))
    elif private.form == "PKCS#8":
        out.append(remark(29, f"{path} is PKCS#8"))
    return out


def device_certificates(path, what):
    """
    Return (certificates, findings) of a file for the board; `what` is "ca" or "cert".

    Raises reading.Unreadable.
    """
    data = reading.read(path)
    loaded = reading.load_all(path)
    out = []
    if reading.is_pem(data):
        out.append(remark(28, f"{path} is PEM"))
    elif len(loaded) > 1:
        out.append(
            remark(
                17,
                f"{path} holds {len(loaded)} certificates in DER",
                cause="mbedTLS reads only the first of them (mqtt_as_tls reads all)",
                cure="one file for each, and all of them in ca=[...]",
            )
        )
    for each in loaded:
        if reading.size(each) > _MANY_BYTES and what == "ca":
            fact = (
                f"{path} has {reading.size(each)} bytes: the CA takes that of the board's memory"
            )
            out.append(remark(34, fact, cause="each certificate is kept in memory", stage="files"))
    return loaded, out
