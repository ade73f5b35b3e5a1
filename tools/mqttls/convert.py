"""
Certificates and keys out of whatever people were given: PEM, DER, PKCS#12 (PFX), PKCS#7 (P7B),
encrypted or not, in one file or several, in any order, with text around them, as an editor or a
download left them. What comes out is what a board takes.

A file may hold anything: it is read up to a bound, and what is in it is believed to be nothing.
"""

import base64
import binascii
import contextlib
import dataclasses
import os
import re
import warnings

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import PublicKeyAlgorithmOID

from . import ber, certificates, der_form, given, pfx, pkcs8
from .doctor import file_kinds, reading
from .doctor.causes import ROWS
from .messages import Failure, shell

LARGEST = 1024 * 1024  # bytes of a file
_MOST_PARTS = 1000  # of one file: bundles of all roots have 150
_MOST_FILES = 50  # of a folder

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 .#]{1,40})-----")
_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_BUNDLES = ("PKCS7", "CMS")
_KEYS = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY", "DSA PRIVATE KEY")
# what stands beside them and is none
_OTHERS = {
    "CERTIFICATE REQUEST": "a request for a certificate (CSR)",
    "NEW CERTIFICATE REQUEST": "a request for a certificate (CSR)",
    "PUBLIC KEY": "a public key",
    "RSA PUBLIC KEY": "a public key",
    "OPENSSH PRIVATE KEY": "a key for SSH",
    "X509 CRL": "a revocation list",
}

_OID_PKCS7 = bytes.fromhex("06092a864886f70d0107")  # 1.2.840.113549.1.7…
_OLD_LOCKS = (  # RC2, RC4, 3DES and DES of PKCS#12 (RFC 7292 appendix C) and PKCS#5 (RFC 8018)
    bytes.fromhex("2a864886f70d010c01"),
    *(bytes.fromhex("2a864886f70d0105") + bytes((n,)) for n in (1, 3, 4, 6, 10, 11)),
)
_EXPLICIT = bytes.fromhex("06072a8648ce3d0101")  # prime-field: EC parameters that are spelled out
_P256_KEY = shell("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out")

_DAMAGED = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    OverflowError,
    x509.InvalidVersion,
)


def wrong(fact, cure="", cause=""):
    """Return the Failure about a file that was given."""
    return Failure(fact, cure, cause=cause, stage="files")


@dataclasses.dataclass
class Parts:
    """
    What files hold.

    certificates  list of x509.Certificate, each once, in the order of the files
    keys          list of private keys, each once
    others        what else was there, in words (dict, for its order)
    """

    certificates: list = dataclasses.field(default_factory=list)
    keys: list = dataclasses.field(default_factory=list)
    others: dict = dataclasses.field(default_factory=dict)

    def add(self, more):
        """Take what another Parts holds."""
        self.certificates += [one for one in more.certificates if one not in self.certificates]
        for key in more.keys:
            self.add_key(key)
        self.others.update(more.others)

    def add_key(self, key):
        """Take a private key, unless it is there."""
        if all(_public(key) != _public(each) for each in self.keys):
            self.keys.append(key)

    def take_out(self, wanted):
        """Take the certificates out that the function `wanted` is true of; return them (list)."""
        found = [each for each in self.certificates if wanted(each)]
        self.certificates = [each for each in self.certificates if each not in found]
        return found

    def said(self):
        """Return what there is, in words."""
        counts = ((len(self.certificates), "certificate"), (len(self.keys), "private key"))
        found = [f"{n} {what}{'s' if n > 1 else ''}" for n, what in counts if n]
        return ", ".join([*found, *self.others]) or "nothing of the kind"


def _public(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


# Files


def read_file(path):
    """
    Return what is in a file that the user named (bytes).

    Raises Failure for what is no file, empty, or too large.
    """
    try:
        data = given.read(path, LARGEST)
    except (OSError, ValueError) as error:  # ValueError: a name with NUL
        why = getattr(error, "strerror", None) or error
        raise wrong(f"{path} cannot be read: {why}", "name a file that you may read") from None
    if not data.strip():
        raise wrong(f"{path} is empty", "download or copy it again")
    return data


_pem_key, _der_key = serialization.load_pem_private_key, serialization.load_der_private_key


def load(path, secret=None):
    """
    Return the Parts in a file.

    secret  function that returns the passphrase (bytes) of what is named to it; it is told
            whether the one before was wrong. Its attribute `tries` says how often it may be asked.
            None where nothing may be encrypted

    Raises Failure: for a file that cannot be read, is damaged or holds neither certificate nor
    key, and for a wrong passphrase.
    """
    return parts(read_file(path), str(path), secret)


def load_folder(path, secret=None):
    """
    Return [(path of a file, its Parts)] of what holds certificates or keys in a folder, folders
    in it left out.

    Raises Failure.
    """
    try:
        with os.scandir(path) as found:
            entries = sorted(each.path for each in found if each.is_file())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise wrong(f"{path} cannot be read: {why}", "name the folder") from None
    if len(entries) > _MOST_FILES:
        raise wrong(
            f"{path} holds {len(entries)} files", "put those that belong to it into one of its own"
        )
    out = []
    for each in entries:
        try:
            held = load(each, secret)
        except Failure:
            continue  # a README, a program, a picture
        if held.certificates or held.keys:
            out.append((each, held))
    return out


# What is in them


def parts(data, name, secret=None):
    """Return the Parts in `data` (bytes); `name` for messages. See load()."""
    out = Parts()
    text = _plain(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of `cryptography`, about what others made long ago
        if b"-----BEGIN " in text:
            _of_pem(text, name, secret, out)
        else:
            bare = _base64(text)
            _of_der(bare if bare is not None else data, name, secret, out)
    if not out.certificates and not out.keys:
        if out.others:
            raise wrong(
                f"{name} holds {out.said()}, no certificate and no private key",
                "name the other file",
            )
        known = file_kinds.recognise(name, data)
        if known:
            raise wrong(f"{name} is {known[0]}", known[1])
        raise wrong(
            f"{name} is damaged, or holds neither a certificate nor a private key",
            "copy it again in binary mode, or download it again",
        )
    return out


_DASHES = r"[-\u2010-\u2015\u2212=_*#]{1,10}"
_ALMOST = re.compile(rf"{_DASHES} ?(BEGIN|END) ([A-Z0-9 ]{{1,40}}?) ?{_DASHES}", re.IGNORECASE)


def _plain(data):
    """Return `data` as ASCII text where it is text in another encoding, else as it is."""
    for mark, coding in (
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if data.startswith(mark):
            data = data[len(mark) :].decode(coding, "replace").encode()
            break
    else:
        for coding in ("utf-16-le", "utf-16-be"):
            if "-----BEGIN ".encode(coding) in data:
                # its place may be odd where a byte was lost before it
                at = data.find("-----BEGIN ".encode(coding))
                data = data[at:].decode(coding, "replace").encode()
                break
    if b"-----BEGIN " not in data:
        packed = b"".join(data.split())
        if packed.startswith(_IN_BASE64):  # once more, as Kubernetes keeps it
            with contextlib.suppress(ValueError):
                return _plain(base64.b64decode(packed, validate=True))
    data = _straightened(data)
    if b"-----BEGIN " in data and rb"\n" in data:  # in JSON, or in a shell's variable
        data = data.replace(rb"\r", b"").replace(rb"\n", b"\n")
    return data


_IN_BASE64 = base64.b64encode(b"-----BEGI")


def _straightened(data):
    """Return a text with its lines BEGIN and END as PEM wants them; what is no text as it is."""
    if b"BEGIN" not in data.upper():
        return data
    try:
        text = data.decode()
    except ValueError:
        return data
    return _ALMOST.sub(lambda found: f"-----{found[1]} {found[2]}-----".upper(), text).encode()


def _base64(text):
    """Return the DER of what is base64 without the lines round it, else None."""
    try:
        der = base64.b64decode(b"".join(text.split()), validate=True)
    except (ValueError, binascii.Error):
        return None
    return der if der[:1] == b"\x30" else None


def _of_pem(text, name, secret, out):
    at = 0
    for count in range(_MOST_PARTS + 1):
        found = _PEM.search(text, at)
        if not found:
            return
        if count == _MOST_PARTS:
            raise wrong(f"{name} has more than {_MOST_PARTS} parts", "name a smaller file")
        label = found[1].decode()
        end = text.find(b"-----END " + found[1] + b"-----", found.end())
        following = _PEM.search(text, found.end())
        if end < 0 or (following and following.start() < end):
            raise wrong(
                f"{name}: the block {label} has no end",
                "copy the whole of it, from its BEGIN line to its END line",
            )
        at = end
        body = text[found.end() : end]
        _of_block(label, body, name, secret, out)


def _of_block(label, body, name, secret, out):
    if label in _OTHERS:
        out.others[_OTHERS[label]] = True
        return
    if label not in (*_CERTIFICATES, *_BUNDLES, *_KEYS, "ENCRYPTED PRIVATE KEY", "PKCS12"):
        return  # EC PARAMETERS, DH PARAMETERS and others: nobody needs them
    if b"Proc-Type" in body:
        block = _rebuilt(label, body)
        out.add_key(_unlocked(_with(_pem_key, block), name, secret, block))
        return
    body = re.sub(rb"""["'\\>]""", b"", body)  # of mails, and of strings in a program
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
    except (ValueError, binascii.Error):
        odd = reading.odd_characters(body)
        has = f": {odd} stands in it" if odd else ""
        fact = f"{name}: the block {label} is damaged{has}"
        raise wrong(fact, "copy it again as it was") from None
    if label in _CERTIFICATES and file_kinds.wrapped(name, der):  # as certutil -encode does
        out.add(parts(der, name, secret))
    elif label in _CERTIFICATES:
        _add_certificate(der[: der_form.element_size(der)], name, out)
    else:
        _of_der(der, name, secret, out)


def _rebuilt(label, body):
    # the headers of an old encrypted key as OpenSSL wrote them: editors leave blanks and CR
    lines = [each.strip() for each in body.strip().splitlines()]
    head = [each for each in lines if b":" in each]
    rest = [each for each in lines if each and b":" not in each]
    name = label.encode()
    return b"\n".join(
        [b"-----BEGIN " + name + b"-----", *head, b"", *rest, b"-----END " + name + b"-----", b""]
    )


def _content(der):
    return der_form.content(der) if der[:1] == b"\x30" else b""


def _of_der(data, name, secret, out):
    for der in der_form.split(data, b"\r\n\0"):
        inner = _content(der)
        if inner[:3] == b"\2\1\3":
            _of_pfx(der, name, secret, out)
        elif inner.startswith(_OID_PKCS7):
            _of_p7b(der, name, out)
        elif inner[:3] in (b"\2\1\0", b"\2\1\1"):
            out.add_key(_key(der, name))
        elif reading.is_locked(der):
            out.add_key(_unlocked(_with(_der_key, der), name, secret, der))
        elif inner[:1] == b"\x30":
            what = _other(der, inner)
            if what:
                out.others[_OTHERS[what]] = True
            else:
                _add_certificate(der, name, out)
        elif out.certificates or out.keys:
            raise wrong(f"{name} is damaged behind {out.said()}", "copy it again in binary mode")
        else:
            return


def _other(der, inner):
    """Return of what an element is that begins like a certificate (a key of _OTHERS), or ""."""
    if _content(inner)[:1] == b"\x06" and inner[der_form.element_size(inner) :][:1] == b"\x03":
        return "PUBLIC KEY"
    for look, what in (
        (x509.load_der_x509_csr, "CERTIFICATE REQUEST"),
        (x509.load_der_x509_crl, "X509 CRL"),
    ):
        try:
            look(der)
        except _DAMAGED:
            continue
        return what
    return ""


def _add_certificate(der, name, out):
    not_der, mended = "", b""
    try:
        try:
            found = reading.parse(der)
            mended = reading.not_der(found) and ber.certificate(der)[1]
            found = reading.parse(mended) if mended else found
        except ValueError:
            not_der, mended = ber.certificate(der)
            if not mended:
                raise
            found = reading.parse(mended)
    except ValueError as error:
        if not_der:
            fact = f"{name} has a certificate in BER, not DER: it has {not_der}"
            raise wrong(fact, ROWS[71][2], ROWS[71][1]) from None
        raise wrong(
            f"{name} has a certificate that is damaged ({error})",
            "copy it again as it was, in binary mode, or download it again",
        ) from None
    if found not in out.certificates:
        out.certificates.append(found)


def _key(der, name):
    try:
        return certificates.key_from_der(der)
    except TypeError:  # encrypted in a form that is none
        pass
    except _DAMAGED:
        if _EXPLICIT in der:
            raise wrong(
                f"{name}: the key's EC parameters are spelled out, which boards do not read",
                shell("openssl", "ec", "-in", name, "-param_enc", "named_curve", "-out", "NEW")
                + ", and then NEW",
            ) from None
    raise wrong(
        f"{name} has a private key that is damaged, or of a kind that nobody knows here",
        "copy it again as it was, in binary mode",
    )


def _of_p7b(der, name, out):
    try:
        found = pkcs7.load_der_pkcs7_certificates(der)
        for each in found[:_MOST_PARTS]:
            _add_certificate(certificates.cert_der(each), name, out)
    except _DAMAGED:
        raise wrong(
            f"{name} is a PKCS#7 file (P7B) that is damaged, or has no certificates",
            "have it exported again as PEM",
        ) from None


def _check_rounds(data, name):
    if pkcs8.rounds(data) > pkcs8.MOST_ROUNDS:
        raise _too_many_rounds(name)


def _too_many_rounds(name):
    return wrong(
        f"{name} has its passphrase hashed more than {pkcs8.MOST_ROUNDS:,} times",
        "have it made anew; who made it so wanted a PC to be busy with it for hours",
    )


def _of_pfx(der, name, secret, out):
    _check_rounds(der, name)
    count = der.count(_KEY_BAG)
    if count > 1:
        cure = "give one alone; of a keystore of Java: " + shell(
            *("keytool", "-importkeystore", "-srckeystore", name, "-srcalias", "NAME"),
            *("-destkeystore", "NEW.p12", "-deststoretype", "PKCS12"),
        )
        raise wrong(f"{name} is a PFX with {count} private keys", cure)
    try:
        key, found = _pfx(der, name, (None, b""))
    except _DAMAGED as error:
        if "deserialize" in str(error):
            raise wrong(
                f"{name} is a PKCS#12 file (PFX) that is damaged", "copy it again in binary mode"
            ) from None
        key, found = _unlocked(lambda word: _pfx(der, name, (word,)), name, secret, der)
    if key is None and not found:
        raise wrong(
            f"{name} is a PFX with neither a certificate nor a private key",
            "have it exported again, with both in it",
        )
    if key is not None:
        out.add_key(key)
    for each in found:
        _add_certificate(certificates.cert_der(each), name, out)


# pkcs8ShroudedKeyBag, as the type of a bag (RFC 7292 section 4.2)
_KEY_BAG = bytes.fromhex("060b2a864886f70d010c0a0102")


def _pfx(der, name, words):
    try:
        return pfx.load(der, words)
    except pfx.TooSlow:
        raise _too_many_rounds(name) from None


def _with(function, data):
    return lambda word: function(data, word)


def _unlocked(load_with, name, secret, data):
    """Return what `load_with` makes of the passphrase that `secret` tells."""
    _check_rounds(data, name)
    if secret is None:
        raise wrong(f"{name} is encrypted", "decrypt it first: openssl pkey -in FILE -out NEW")
    for left in reversed(range(secret.tries)):
        word = secret(name, left < secret.tries - 1)
        try:
            return load_with(word)
        except _DAMAGED as error:
            text = str(error).lower()
            known = "password" in text or "decrypt" in text
            # one of 256 wrong ones seems to fit, and what comes out is no key
            if left and (known or not isinstance(error, UnsupportedAlgorithm)):
                continue
            raise _locked(name, data, known) from None
    raise AssertionError("tries is less than 1")


def _locked(name, data, is_known):
    old = any(each in data for each in _OLD_LOCKS) or b"DEK-Info: DES" in data
    newer = _PBMAC1 in data
    words = ("openssl", "pkcs12", *(("-nomacver",) if newer else ("-legacy",)))
    convert = shell(*words, "-in", name, "-nodes", "-out", "NEW")
    if _content(data)[:3] != b"\2\1\3":
        convert = shell(
            *("openssl", "pkey", "-provider", "legacy", "-provider", "default"),
            *("-in", name, "-out", "NEW"),
        )
    if is_known and not old and not newer:
        return wrong(f"wrong passphrase for {name}", "try again with the right one")
    fact = f"wrong passphrase for {name}" if is_known else f"{name} cannot be decrypted here"
    cause = "it is encrypted in a way that only openssl knows"
    if newer:
        cause = "its checksum is of a newer kind (PBMAC1), and openssl can leave that aside"
    elif old:
        cause = (
            "it is encrypted as in the 1990s (RC2, DES), which not every OpenSSL still decrypts"
        )
    cure = f"if the passphrase is right: {convert}, then take NEW in its place and delete it after"
    return wrong(fact, cure, cause)


_PBMAC1 = bytes.fromhex("06092a864886f70d01050e")  # 1.2.840.113549.1.5.14 (RFC 9579)


# What a board can use


@dataclasses.dataclass
class Identity:
    """
    Who a board is: `certificate`, its private `key`, and `chain`, the certificates of the CAs
    above it that it sends along, without the root (list).
    """

    certificate: x509.Certificate
    key: object
    chain: list

    @property
    def cert_pem(self):
        return certificates.cert_pem(self.certificate, *self.chain)

    @property
    def cert_der(self):
        return b"".join(map(certificates.cert_der, (self.certificate, *self.chain)))


def identity(held, where):
    """
    Return the Identity in a Parts.

    where  the files' names, for messages

    Raises Failure where there is no certificate with its key, or more than one.
    """
    if not held.keys or not held.certificates:
        missing = "private key" if held.certificates else "certificate"
        cause = ""
        if any("CSR" in each for each in held.others):
            cause = "the key of a request stays where that was made, and what comes back is the "
            cause += "certificate"
        raise wrong(
            f"there is no {missing} in {where}, but {held.said()}",
            f"name the file with the {missing}, too",
            cause,
        )
    known = [each for each in held.certificates if reading.public_key(each) is not None]
    known = known or held.certificates  # of an odd form of its key _check_kind tells
    pairs = [(one, key) for key in held.keys for one in known if reading.is_pair(one, key)]
    if not pairs:
        names = ", ".join(map(reading.name_of, held.certificates[:5]))
        more = ", …" if len(held.certificates) > 5 else ""
        raise wrong(
            f"the private key in {where} is not that of the certificate of {names}{more}",
            "give the key that was made with the request for it; nothing else is of use",
        )
    keys = {id(key) for _, key in pairs}
    if len(keys) > 1:
        names = ", ".join(sorted(reading.name_of(one) for one, _ in pairs))
        raise wrong(f"{where} holds several certificates with keys: {names}", "give one alone")
    # of a certificate and the one that renewed it, with the same key
    own, key = max(pairs, key=lambda each: each[0].not_valid_after_utc)
    _check_kind(own, key, where)
    return Identity(own, key, chain_above(own, held.certificates))


def chain_above(certificate, candidates):
    """
    Return the certificates (list) among `candidates` that are between `certificate` and a root,
    in order, the root left out.
    """
    out, at = [], certificate
    while at.issuer != at.subject:
        above = [
            each
            for each in candidates
            if each.subject == at.issuer and each not in out and reading.signed_by(at, each)
        ]
        above.sort(key=lambda each: each.not_valid_after_utc)
        if not above or above[-1].issuer == above[-1].subject or len(out) > 8:
            break
        out.append(above[-1])
        at = above[-1]
    return out


def _check_kind(certificate, key, where):
    """Raise Failure where no board can use the key or its certificate."""
    again = f"have a certificate issued for a P-256 key: {_P256_KEY} pico.key"
    kind = reading.key_name(key.public_key())
    der = certificates.cert_der(certificate)
    if isinstance(key, rsa.RSAPrivateKey):
        if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
            raise wrong(
                f"{where}: the key is for RSA-PSS alone; MicroPython knows plain RSA", again
            )
        if key.key_size < 2048:
            raise wrong(f"{where}: the key is {kind}; brokers want 2048 bits or more", again)
        return
    curves = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curves):
        raise wrong(
            f"{where}: the key is {kind}; MicroPython knows P-256, P-384, P-521 and RSA", again
        )
    if _public(key) not in der:
        how = "spelled-out EC parameters" if _EXPLICIT in der else "a compressed EC point"
        raise wrong(
            f"{where}: the certificate has its key as {how}, which not all can read",
            "have it issued again for a request of: openssl req -new -key KEY, with a key made by "
            f"{_P256_KEY} KEY",
        )
