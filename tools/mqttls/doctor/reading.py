"""
Certificates and keys in files, PEM or DER, as a board or a broker would read them; and what they
say, however odd they are.
"""

import base64
import contextlib
import dataclasses
import re
import warnings
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from .. import ber, certificates, der_form, given
from ..messages import Failure, shell
from . import file_kinds
from .causes import ROWS, problem, remark

# mbedTLS takes any serial number; `cryptography` speaks of each at every look
warnings.filterwarnings("ignore", "Parsed a .*serial number")

_MOST_FILE = 1024 * 1024
MOST_CERTIFICATES = 1000  # a system's bundle has some 150
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"


class Unreadable(ValueError):
    """A file that cannot be used; `finding` says why."""

    def __init__(self, finding):
        super().__init__(finding.fact)
        self.finding = finding


def wrong(stage, fact, cure, row=0, cause=None):
    """Return an Unreadable."""
    return Unreadable(problem(row, fact, stage=stage, cause=cause or "", cure=cure))


def read(path, stage="files"):
    """Return the content (bytes) of the file `path`; raises Unreadable."""
    try:
        data = given.read(path, _MOST_FILE)
    except Failure as failure:
        raise wrong(stage, failure.fact, failure.cure) from None
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        fact = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise wrong(stage, fact, "give the path of a file that you may read") from None
    if not data.strip():
        raise wrong(stage, f"{path} is empty", "make it again")
    return data


def another_kind(path, data, stage):
    """
    Return the Unreadable for a file that is neither PEM nor DER of a certificate or a key, which
    says what it is; None for what is not known.
    """
    labels = [label for label, _ in blocks(data)]
    found = file_kinds.recognise(path, data, labels)
    if found is None:
        return None
    return _of_another_kind(path, *found, stage)


def _of_another_kind(path, what, cure, stage):
    cause = "neither board nor broker reads that"
    if file_kinds.is_convertible(what):
        cause += "; mqttls use does"
    elif cure == _OTHER_FILE or cure.startswith("give"):
        cause = "it is not what is asked for"
    return Unreadable(problem(46, f"{path} is {what}", stage=stage, cause=cause, cure=cure))


def odd_characters(body):
    """
    Return what stands in the lines of a PEM block (bytes) that PEM has not, for messages (str): at
    most 5 characters; "" where nothing does.
    """
    text = body.decode("utf-8", "replace")
    odd = dict.fromkeys(each for each in text if not (each.isspace() or each in _BASE64))
    return " ".join(ascii(each)[1:-1] for each in list(odd)[:5])


_BASE64 = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
_CUT = "damaged block"


def blocks(data):
    """Return [(label, DER)] of the PEM blocks in `data` (bytes); DER b"" where damaged."""
    out, at = [], data.find(_BEGIN)
    while at >= 0 and len(out) < MOST_CERTIFICATES:
        head = data.find(_DASHES, at + len(_BEGIN), at + 60)
        end = data.find(_END, at)
        if head < 0 or end < head:
            out.append((_CUT, b""))
            break
        label = data[at + len(_BEGIN) : head].decode("latin-1")
        body = data[head + len(_DASHES) : end]
        if b"Proc-Type" in body or b"DEK-Info" in body:
            label, body = "ENCRYPTED PRIVATE KEY", b""
        try:
            der = base64.b64decode(b"".join(body.split()), validate=True)
        except ValueError:
            der = b""
        out.append((label, der))
        at = data.find(_BEGIN, end)
    return out


def is_pem(data):
    return _BEGIN in data


def parse(der):
    """
    Return the x509.Certificate in `der` (bytes), with every field that we use looked at once:
    `cryptography` parses them when they are asked for.

    Raises ValueError.
    """
    try:
        with warnings.catch_warnings():  # of serial numbers that mbedTLS takes
            warnings.simplefilter("ignore")
            certificate = certificates.from_der(der)
            for field in ("version", "subject", "issuer", "serial_number"):
                getattr(certificate, field)
        certificate.signature_algorithm_oid  # noqa: B018
        name_of(certificate)
        issuer_of(certificate)
        for field in ("not_valid_before_utc", "not_valid_after_utc"):
            getattr(certificate, field)
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        text = str(error)
        if "ParseError" in text:  # with what only its library understands
            text = "cut off" if "ShortData" in text else "it is not the DER of one"
            not_der, _ = ber.certificate(der)
            text = f"it is BER, not DER: it has {not_der}" if not_der else text
        raise ValueError(text[:80] or "cut off") from None
    return certificate


def load_all(path, stage="files"):
    """Return the certificates (list of x509.Certificate, not empty) in a PEM or DER file."""
    data = read(path, stage)
    if is_pem(data):
        labels = blocks(data)
        if labels[-1][0] == _CUT:
            fact = f"{path} is damaged: its last block has no END"
            raise wrong(stage, fact, "copy it again, whole")
        ders = [_first(der) for label, der in labels if label.endswith("CERTIFICATE")]
        if not ders:
            other = another_kind(path, data, stage)
            if other and other.finding.cure != _OTHER_FILE:
                raise other
            have = labels[0][0].lower() if labels else "a damaged block"
            raise wrong(stage, f"{path} has no certificate, but {have}", "name the other file")
    else:
        ders = der_form.split(data, b"")
    out = []
    for der in ders[:MOST_CERTIFICATES]:
        try:
            out.append(parse(der))
        except ValueError as error:
            written_out = b"\\n" in data
            other = another_kind(path, data, stage) if written_out or not is_pem(data) else None
            wrapped = file_kinds.wrapped(path, der) if is_pem(data) else None
            if wrapped and not written_out:
                other = _of_another_kind(path, *wrapped, stage)
            if other:
                raise other from None
            if out and not is_pem(data):
                raise _behind(path, ders[len(out) :], stage) from None
            number = f"certificate {len(out) + 1} in {path}" if out else path
            odd = "" if der or not is_pem(data) else odd_characters(_bodies(data))
            if odd:
                fact = f"{number} is damaged: between its lines BEGIN and END stands {odd}"
                cure = "copy it again as it was: there are letters, digits, +, / and = in it"
                raise wrong(stage, fact, cure) from None
            not_der, mended = ber.certificate(der)
            if not_der:
                fact = f"{number} is BER, not DER: it has {not_der}"
                cause, cure = None, None
                if mended:
                    cause = f"{ROWS[71][1]}; mqttls use makes DER of it"
                    cure = _written_anew(path, is_pem(data), not_der)
                raise Unreadable(problem(71, fact, stage=stage, cause=cause, cure=cure)) from None
            raise wrong(
                stage,
                f"{number} is damaged or no certificate ({error})",
                "make it again, or copy it again in binary mode",
            ) from None
    return out


def not_der(certificate):
    """Return what in a certificate is not DER (str), "" for nothing."""
    return getattr(certificate, "not_der", "")


def in_ber(path, certificate, pem):
    """Return the Finding about a certificate of a file that boards take though it is not DER."""
    fact = f"{path} is BER, not DER: it has {not_der(certificate)}"
    mended = ber.certificate(certificates.cert_der(certificate))[1]
    cure = _written_anew(path, pem, not_der(certificate)) if mended else ROWS[71][2]
    return remark(71, fact, cause=BER_OF_BOARDS, cure=cure, stage="files")


BER_OF_BOARDS = "boards and OpenSSL take that, stricter programs, such as those in Go, do not"


def _bodies(data):
    return b"".join(re.findall(rb"-----BEGIN [^-]*-----(.*?)-----END ", data, re.DOTALL))


def _behind(path, rest, stage):
    # what is no certificate behind one in DER: a line end from an editor, zeros of a flash
    size = sum(map(len, rest))
    fact = f"{path} has {size} byte{'s' if size > 1 else ''} behind its certificate"
    out = Path(path).with_suffix(".clean.der")
    cure = shell("openssl", "x509", "-inform", "DER", "-in", path, "-outform", "DER", "-out", out)
    return wrong(stage, fact, cure, cause="a board takes them for another one, a damaged one")


def _written_anew(path, pem, not_der):
    if not_der == ber.PIECES:  # which OpenSSL puts together wrongly
        return "have it issued anew, or give it to mqttls use (--ca), which writes it as DER"
    inform = () if pem else ("-inform", "DER")
    out = Path(path).with_suffix(".clean.der")
    take = shell("openssl", "x509", *inform, "-in", path, "-outform", "DER", "-out", out)
    return f"write it as DER: {take}"


def _first(der):
    # "TRUSTED CERTIFICATE" of openssl has more behind the certificate
    return der_form.split(der)[0] if der else der


@dataclasses.dataclass
class Key:
    """
    A private key in a file: `form` is "PKCS#8", "SEC1" or "PKCS#1"; `odd` as odd_key() has it.
    """

    private: object
    form: str
    pem: bool
    odd: str = ""


def later_keys(path):
    """Return the private keys in a PEM file behind its first (list), those that can be read."""
    out = []
    with contextlib.suppress(Unreadable):
        keys = [der for label, der in blocks(read(path)) if label.endswith("PRIVATE KEY")]
        for der in keys[1:10]:
            with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
                out.append(certificates.key_from_der(der))
    return out


def load_key(path, stage="files"):
    """Return the Key in a PEM or DER file; raises Unreadable, also when it is encrypted."""
    data = read(path, stage)
    label, der, pem = "", data[: der_form.element_size(data)], is_pem(data)
    if pem:
        keys = [each for each in blocks(data) if each[0].endswith("PRIVATE KEY")]
        if not keys:
            other = another_kind(path, data, stage)
            found = [file_kinds.wrapped(path, der) for _, der in blocks(data)]
            if any(found):
                other = _of_another_kind(path, *next(filter(None, found)), stage)
            if other and other.finding.cure != _OTHER_FILE:
                raise other
            raise wrong(stage, f"{path} has no private key", "name the key's file")
        label, der = keys[0]
        if label == "OPENSSH PRIVATE KEY":
            raise another_kind(path, data, stage)
    if label == "ENCRYPTED PRIVATE KEY" or is_locked(der):
        raise Unreadable(problem(30, f"{path} is encrypted", stage=stage))
    try:
        private = certificates.key_from_der(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        kind = odd_key(der)
        if kind:
            fact = f"{path} is a key {kind}"
            raise Unreadable(problem(47, fact, stage=stage)) from None
        other = None if pem else another_kind(path, data, stage)
        if other and other.finding.cure != _OTHER_FILE:
            raise other from None
        raise wrong(
            stage,
            f"{path} is damaged or no private key ({str(error)[:80] or 'cut off'})",
            "make it again, or copy it again in binary mode",
        ) from None
    return Key(private, _form(der, private), pem, odd_key(der))


_OTHER_FILE = "name the other file"

# In the DER of keys and certificates: the type of a field, which stands where a curve has its
# parameters in the place of its name (RFC 3279 section 2.3.5); RSASSA-PSS as the kind of a key
_PRIME_FIELD = bytes.fromhex("06072a8648ce3d0101")
_EC_KEY = bytes.fromhex("06072a8648ce3d0201")
_RSA_PSS = bytes.fromhex("06092a864886f70d01010a")
EXPLICIT = "with explicit curve parameters in the place of the curve's name"
COMPRESSED = "as a compressed point"
PSS = "for RSA-PSS only"


def odd_key(der):
    """
    Return in words what is odd about the form of the key in `der` (bytes, of a private key or a
    SubjectPublicKeyInfo), "" where nothing is.
    """
    if _PRIME_FIELD in der[:96]:  # SEC1 has the private number before it
        return EXPLICIT
    return PSS if _RSA_PSS in der[:40] else ""


def odd_public_key(certificate):
    """Return the same of the key in a certificate; COMPRESSED, too."""
    der = _fields(certificate)[1]
    if _EC_KEY in der[:24]:
        with contextlib.suppress(ValueError):
            _, bits = der_form.elements(der_form.element(der)[1])
            if bits[2:3] == b"\0" and bits[3:4] in (b"\2", b"\3"):
                return COMPRESSED
    return odd_key(der)


def _fields(certificate):
    """
    Return (the fields of the certificate's TBSCertificate, its SubjectPublicKeyInfo), DER each;
    ([], b"") where they cannot be told apart.
    """
    try:
        fields = der_form.elements(der_form.element(certificate.tbs_certificate_bytes)[1])
    except ValueError:
        return [], b""
    at = 6 if fields[:1] and fields[0][:1] == b"\xa0" else 5  # the version may be left out
    return fields, fields[at] if len(fields) > at else b""


def extensions(certificate):
    """
    Return [(dotted OID, critical, DER of the value)] of all extensions of a certificate, whether
    anybody can read what is in them or not.
    """
    out = []
    for field in _fields(certificate)[0]:
        if field[:1] != b"\xa3":
            continue
        try:
            for each in der_form.elements(der_form.element(der_form.element(field)[1])[1]):
                oid, *rest = der_form.elements(der_form.element(each)[1])
                out.append(
                    (
                        der_form.dotted(der_form.element(oid)[1]),
                        len(rest) > 1 and rest[0][2:] != b"\0",
                        each,
                    )
                )
        except (ValueError, IndexError):
            return out
    return out


def _with_one_extension(certificate, kind):
    # `cryptography` reads all extensions or none: one that is damaged hides the others.
    wanted = kind.oid.dotted_string
    whole = der_form.elements(der_form.element(certificates.cert_der(certificate))[1])
    fields = [each for each in _fields(certificate)[0] if each[:1] != b"\xa3"]
    found = [each for oid, _, each in extensions(certificate) if oid == wanted]
    if found:
        fields.append(der_form.packed(0xA3, der_form.packed(0x30, found[0])))
    body = der_form.packed(0x30, b"".join(fields)) + b"".join(whole[1:])
    return certificates.from_der(der_form.packed(0x30, body))


def is_locked(der):
    """
    Tell whether `der` (bytes) is a private key under a passphrase (EncryptedPrivateKeyInfo, RFC
    5958 section 3): an algorithm and a string. A public key has bits in the place of the string.
    """
    inner = der_form.content(der) if der[:1] == b"\x30" else b""
    if inner[:1] != b"\x30" or der_form.content(inner)[:1] != b"\x06":
        return False
    return inner[der_form.element_size(inner) :][:1] == b"\x04"


def _form(der, private):
    inner = der_form.content(der)  # version, then in PKCS#8 the algorithm: a sequence
    if inner[:3] in (b"\2\1\0", b"\2\1\1") and inner[3:4] == b"\x30":
        return "PKCS#8"
    return "SEC1" if isinstance(private, ec.EllipticCurvePrivateKey) else "PKCS#1"


# What a certificate says

# as RFC 5280 calls them (sections 4.2.1 and 4.2.1.12), and algorithms without a hash
_OID_NAMES = {
    ExtensionOID.BASIC_CONSTRAINTS: "basicConstraints",
    ExtensionOID.KEY_USAGE: "keyUsage",
    ExtensionOID.EXTENDED_KEY_USAGE: "extendedKeyUsage",
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME: "subjectAltName",
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: "subjectKeyIdentifier",
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: "authorityKeyIdentifier",
    ExtensionOID.NAME_CONSTRAINTS: "nameConstraints",
    ExtensionOID.CERTIFICATE_POLICIES: "certificatePolicies",
    ExtensionOID.POLICY_MAPPINGS: "policyMappings",
    ExtensionOID.POLICY_CONSTRAINTS: "policyConstraints",
    ExtensionOID.INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "cRLDistributionPoints",
    ExtensionOID.ISSUER_ALTERNATIVE_NAME: "issuerAltName",
    ExtensionOID.TLS_FEATURE: "TLSFeature",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    x509.SignatureAlgorithmOID.ED25519: "ed25519",
    x509.SignatureAlgorithmOID.ED448: "ed448",
}


def name_of(certificate):
    """Return whom it is for, for messages: its common name, or the whole subject."""
    return _short(certificate.subject)


def issuer_of(certificate):
    """Return who signed it, as name_of does."""
    return _short(certificate.issuer)


def _short(name):
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else name.rfc4514_string() or "(no name)"


def oid_name(oid):
    """Return an x509.ObjectIdentifier, or its dotted str, for messages: "clientAuth"."""
    if isinstance(oid, str):
        oid = x509.ObjectIdentifier(oid)
    return _OID_NAMES.get(oid, oid.dotted_string)


def extension(certificate, kind):
    """Return an extension of a class of cryptography.x509, None where it is not or is damaged."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except _DAMAGED:
        pass
    try:
        found = _with_one_extension(certificate, kind)
        return found.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, *_DAMAGED):
        return None


_DAMAGED = (x509.DuplicateExtension, ValueError, KeyError, TypeError, AttributeError)


def is_damaged(certificate, kind):
    """Tell whether a certificate has an extension of the class `kind` that cannot be read."""
    there = any(oid == kind.oid.dotted_string for oid, _, _ in extensions(certificate))
    return there and extension(certificate, kind) is None


def alternative_names(certificate):
    """Return (DNS names, IP addresses), two lists of str, both empty where there is no SAN."""
    names = extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return [], []
    dns = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return list(dns), [str(each) for each in addresses]


def key_name(public):
    """Return what a public key is: "P-256", "RSA 2048", "Ed25519", …"""
    if isinstance(public, ec.EllipticCurvePublicKey):
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        return names.get(public.curve.name, public.curve.name)
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA {public.key_size}"
    name = type(public).__name__.replace("PublicKey", "").strip("_")
    return {"ED25519": "Ed25519", "ED448": "Ed448"}.get(name.upper(), name)


def public_key(certificate):
    """Return the public key object, or None for a kind that not even the PC knows."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def public_bytes(certificate):
    """Return the DER of its SubjectPublicKeyInfo (bytes), b"" where it cannot be found."""
    return _fields(certificate)[1]


def is_ca(certificate, trusted=False):
    """
    Tell whether mbedTLS lets this certificate sign others.

    trusted  the board holds it: then the old version 1, which has no extensions, will do
    """
    if certificate.version == x509.Version.v1:
        return trusted
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    return bool(constraints and constraints.ca and (usage is None or usage.key_cert_sign))


def same_name(one, other):
    """
    Tell whether two x509.Name are the same to mbedTLS (x509_name_cmp): of UTF8String and
    PrintableString it ignores the difference, and capitals; of other types of string it does not.
    """
    return _same_der_name(one.public_bytes(), other.public_bytes())


def is_listed(name, ders):
    """Tell whether an x509.Name is one of those in DER (list of bytes), as same_name has it."""
    return any(_same_der_name(name.public_bytes(), each) for each in ders)


def name_in(der):
    """Return a name in DER for messages (str): its common name, or the last thing in it."""
    with contextlib.suppress(ValueError, IndexError):
        found = _attributes(der)
        named = [value for oid, _, value in found if oid == _COMMON_NAME]
        return (named or [found[-1][2]])[0].decode("utf-8", "replace")
    return "(no name)"


_COMMON_NAME = b"\x06\x03\x55\x04\x03"


def _same_der_name(one, other):
    try:
        one, other = _attributes(one), _attributes(other)
    except (ValueError, IndexError):
        return one == other
    return len(one) == len(other) and all(map(_same_attribute, one, other))


def similar_name(one, other):
    """Tell whether two x509.Name are the same to OpenSSL, or to mbedTLS."""
    return one == other or same_name(one, other)


_FREE_STRINGS = (0x0C, 0x13)  # UTF8String, PrintableString


def _attributes(name):
    """Return [(OID, type of string, content)] of a name in DER, bytes and int."""
    out = []
    for several in der_form.elements(der_form.element(name)[1]):
        for each in der_form.elements(der_form.element(several)[1]):
            oid, value = der_form.elements(der_form.element(each)[1])
            out.append((oid, value[0], der_form.element(value)[1]))
    return out


def _same_attribute(one, other):
    if one == other:
        return True
    free = one[1] in _FREE_STRINGS and other[1] in _FREE_STRINGS
    return free and one[0] == other[0] and one[2].lower() == other[2].lower()


def signed_by(certificate, issuer):
    """Tell whether the key of `issuer` made the signature of `certificate` (or CRL)."""
    public = public_key(issuer)
    data = getattr(certificate, "tbs_certificate_bytes", None) or certificate.tbs_certlist_bytes
    try:
        if isinstance(public, rsa.RSAPublicKey):
            scheme = getattr(certificate, "signature_algorithm_parameters", None)
            scheme = scheme or padding.PKCS1v15()
            hashed = certificate.signature_hash_algorithm
            public.verify(certificate.signature, data, scheme, hashed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            hashed = certificate.signature_hash_algorithm
            public.verify(certificate.signature, data, ec.ECDSA(hashed))
        elif public is not None:
            public.verify(certificate.signature, data)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, AttributeError):
        return False
    return True


def size(certificate):
    """Return how many bytes it has as DER."""
    return len(certificates.cert_der(certificate))


def says_ca(certificate):
    """Tell whether a certificate says CA:TRUE."""
    constraints = extension(certificate, x509.BasicConstraints)
    return bool(constraints and constraints.ca)


def is_pair(certificate, private):
    """Tell whether a private key is that of the certificate; True where nobody can know."""
    if public_key(certificate) is None:
        return True
    return certificates.belongs(certificate, private)
