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
from cryptography.x509.oid import ExtendedKeyUsageOID

from .. import certificates
from . import reading
from .causes import problem, remark
from .peek import BOARD_IN

# Where the clock of a board starts that nobody set (rp2).
UNSET_CLOCK = datetime.datetime(2021, 1, 1, tzinfo=datetime.timezone.utc)

_MANY_BYTES = 1500

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# What mbedTLS understands of what may be critical (RFC 5280 section 4.2).
_READ = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
    x509.CertificatePolicies,
)
_UNDERSTOOD = {each.oid.dotted_string for each in _READ[:-1]} | {"2.16.840.1.113730.1.1"}


def day(when):
    """Return the day of a datetime, for messages."""
    return when.strftime("%Y-%m-%d")


def minute(when):
    """Return the minute of a datetime, for messages."""
    return when.strftime("%Y-%m-%d %H:%M UTC")


def form(certificate, whose, trusted=False, ca=False):
    """
    Return the findings about what mbedTLS cannot read or trust in a certificate at all.

    whose    str for messages, such as "the broker's certificate"
    trusted  the board holds it: then its own signature and the strength of it do not matter
    ca       it is that of a CA
    """
    out = _unknown_key(certificate, whose, ca)
    public = reading.public_key(certificate)
    if not out and isinstance(public, rsa.RSAPublicKey) and public.key_size < 2048:
        fact = f"{whose} has a key of {reading.key_name(public)} bits; mbedTLS wants 2048 or more"
        cure = "reissue it with P-256 (or RSA with 2048 bits)"
        if ca:
            cure = "make that CA anew with a P-256 key, and reissue what it signed (mqttls init)"
        out.append(problem(33, fact, cure=cure))
    unknown = _unknown_signature(certificate, whose)
    out += unknown
    weak = not unknown and not isinstance(_hash_of(certificate), _HASHES)
    if weak and not trusted and certificate.issuer != certificate.subject:
        how = _hash_of(certificate).name.upper()
        out.append(problem(33, f"{whose} is signed with {how}; mbedTLS wants SHA-256, 384 or 512"))
    return out + extensions(certificate, whose)


def odd(certificate, whose):
    """Return the findings about what of a certificate that is sent only strict programs mind."""
    if not reading.not_der(certificate):
        return []
    fact = f"{whose} is BER, not DER: it has {reading.not_der(certificate)}"
    return [remark(71, fact, cause=reading.BER_OF_BOARDS, stage="chain")]


def unreadable(certificate, whose, ca=False):
    """Return those of the findings of form() with which mbedTLS cannot even read a certificate."""
    out = _unknown_key(certificate, whose, ca) + _unknown_signature(certificate, whose)
    return out + extensions(certificate, whose)


def _hash_of(certificate):
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _unknown_signature(certificate, whose):
    """Return the finding about a signature that MicroPython does not know, in a list."""
    oid = certificate.signature_algorithm_oid
    if oid == x509.SignatureAlgorithmOID.RSASSA_PSS:
        how = "RSA-PSS"
    elif _hash_of(certificate) is None:
        how = reading.oid_name(oid)
    else:
        return []
    return [problem(33, f"{whose} is signed with {how}, which MicroPython does not have")]


def _unknown_key(certificate, whose, ca):
    """Return the finding about a key that MicroPython does not know, in a list."""
    odd = reading.odd_public_key(certificate)
    public = reading.public_key(certificate)
    cure = "make that CA anew with a P-256 key, and reissue what it signed (mqttls init)"
    others = {"stage": "chain", "cure": cure} if ca else {}
    if odd in (reading.COMPRESSED, reading.EXPLICIT):
        # mbedTLS may read a compressed point; no server may choose it for a board, though
        kind = "an EC key " if odd == reading.EXPLICIT else "its EC key "
        if ca:
            if odd == reading.COMPRESSED:
                return []
            others["cause"] = "MicroPython does not know such a key of a CA"
        return [problem(48, f"{whose} has {kind}{odd}", **others)]
    if odd == reading.PSS:
        cause = "a key of this kind signs with RSA-PSS alone, which MicroPython does not have"
        cure = "reissue it with a P-256 key, or a plain RSA key (rsaEncryption)"
        return [problem(9, f"{whose} has a key {odd}", **{"cause": cause, "cure": cure, **others})]
    if isinstance(public, rsa.RSAPublicKey):
        return []
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, _CURVES):
        return []
    kind = reading.key_name(public) if public is not None else "of an unknown kind"
    if ca:
        others["cause"] = "the CA's key is of a kind that MicroPython does not know"
    fact = f"{whose} has a key {kind}; MicroPython knows P-256, 384, 521 and RSA"
    return [problem(9, fact, **others)]


def extensions(certificate, whose):
    """Return the findings about extensions that mbedTLS cannot read, or does not understand."""
    out, found = [], reading.extensions(certificate)
    for kind in _READ:
        oid = kind.oid.dotted_string
        if sum(each[0] == oid for each in found) > 1:
            fact = f"{whose} has the extension {reading.oid_name(oid)} twice"
            out.append(problem(33, fact, cure="reissue it with that extension once"))
        elif reading.is_damaged(certificate, kind):
            fact = f"the extension {reading.oid_name(oid)} of {whose} cannot be read"
            cure = "reissue it: what is in that extension does not follow RFC 5280"
            out.append(problem(33, fact, cure=cure))
    odd = [each for each in reading.alternative_names(certificate)[1] if "/" in each]
    if odd:
        fact = f"the subjectAltName of {whose} has the address {odd[0]} with its mask"
        cure = "reissue it with the address alone, 4 bytes (16 of IPv6): mbedTLS reads no other"
        out.append(problem(33, fact, cure=cure))
    for oid, critical, _ in found:
        if critical and oid not in _UNDERSTOOD and not _is_any_policy(certificate, oid):
            fact = f"{whose} has a critical extension {reading.oid_name(oid)}"
            out.append(problem(33, fact))
    return out


def _is_any_policy(certificate, oid):
    # of policies mbedTLS understands one, which stands for all
    if oid != x509.CertificatePolicies.oid.dotted_string:
        return False
    policies = reading.extension(certificate, x509.CertificatePolicies) or ()
    return {each.policy_identifier.dotted_string for each in policies} == {"2.5.29.32.0"}


def dates(certificate, whose, when=None):
    """Return the findings about the dates of a certificate."""
    when, is_now = when or certificates.now(), when is None
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start > when:
        fact = f"{whose} is valid from {minute(start)} on; now it is {minute(when)}"
        if is_now and when < certificates.RELEASED:
            cause, cure = "this PC's clock is wrong", "set the clock of this PC, and look again"
            return [problem(13, fact, cause=cause, cure=cure)]
        return [problem(13, fact)]
    if end < when:
        cause = f"{whose.split(',')[0]} has expired"
        return [problem(14, f"{whose} expired on {minute(end)}", cause=cause)]
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
    elif reading.extension(certificate, x509.SubjectAlternativeName) is not None:
        have = "its subjectAltName has neither a DNS name nor an IP address"
    elif certificates.common_name(certificate):
        have = f"only the common name {reading.name_of(certificate)}"
    else:
        have = "it has none at all"
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
        out.append(problem(47, f"{path} is a key of the kind {kind}"))
    elif private.odd:
        out.append(problem(47, f"{path} is a key {private.odd}"))
    elif isinstance(private.private, ec.EllipticCurvePrivateKey) and not isinstance(
        private.private.curve, _CURVES
    ):
        out.append(problem(47, f"{path} is a key on the curve {kind}"))
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
    elif len(loaded) > 1 and what == "ca":
        out.append(
            remark(
                17,
                f"{path} holds {len(loaded)} certificates in DER",
                cause="mbedTLS reads only the first of them (mqtt_as_tls reads all)",
                cure="one file for each, and all of them in ca=[...]",
            )
        )
    not_der = [each for each in loaded if reading.not_der(each)]
    out += [reading.in_ber(path, each, reading.is_pem(data)) for each in not_der]
    size = sum(map(reading.size, loaded))
    if what == "ca" and size > _MANY_BYTES:
        fact = (
            f"{path} has {len(loaded)} certificates of {size} bytes: a board keeps them in memory"
        )
        cure = "give it the one root that signs the broker's" if len(loaded) > 2 else "use P-256"
        cause = "a Pico W has 190 KB, of which a connection takes 28"
        out.append(remark(34, fact, cause=cause, cure=cure, stage="files"))
    return loaded, out
