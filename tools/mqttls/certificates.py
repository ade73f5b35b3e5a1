"""
Certificates that every mbedTLS of MicroPython accepts, and OpenSSL at its strictest.

P-256 with SHA-256 unless asked otherwise; an authority whose basicConstraints say CA:TRUE,
pathlen 0; one use for each certificate; random serial numbers; valid from 2020 on, so that a
board's first connection works before its clock is set.
"""

import base64
import contextlib
import datetime
import ipaddress
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from . import ber, der_form, given, odd_names, pkcs8
from .messages import Failure, command
from .names import is_address

VALID_FROM = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
RELEASED = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)  # a clock before is wrong
CA, SERVER, CLIENT = "ca", "server", "client"

_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_SEC1 = serialization.PrivateFormat.TraditionalOpenSSL  # SEC1 (EC) or PKCS#1 (RSA)
_PKCS8 = serialization.PrivateFormat.PKCS8
_PLAIN = serialization.NoEncryption()
_CURVES = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}
_USES = {SERVER: ExtendedKeyUsageOID.SERVER_AUTH, CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH}


def now():
    """Return the time of now, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


# Keys


def new_key(kind="p256"):
    """Return a new private key; `kind` is one of names.KEY_KINDS."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind]())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))


def key_kind(key):
    """Return the kind of a private or public key (str): p256, rsa2048, …, Ed25519PublicKey."""
    if hasattr(key, "curve"):
        names = {curve.name: kind for kind, curve in _CURVES.items()}
        return names.get(key.curve.name, key.curve.name)
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return f"rsa{key.key_size}"
    return type(key).__name__.strip("_")


def key_pem(key, passphrase=None):
    """Return the key as PEM (bytes), PKCS#8; encrypted when there is a `passphrase` (bytes)."""
    if passphrase:
        return pkcs8.encrypted(key, passphrase)
    return key.private_bytes(_PEM, _PKCS8, _PLAIN)


def key_der(key):
    """Return the key as a board wants it (bytes): SEC1 DER, of an RSA key PKCS#1 DER."""
    return key.private_bytes(_DER, _SEC1, _PLAIN)


def key_from_der(data):
    """
    Return the private key in `data` (bytes, DER, without a passphrase), also one of P-256, P-384
    or P-521 whose number has a zero before it, as GnuTLS writes it, or lacks one: OpenSSL and
    mbedTLS take both. Raises ValueError, TypeError, UnsupportedAlgorithm.
    """
    try:
        return serialization.load_der_private_key(data, None)
    except ValueError:
        whole = _with_whole_number(data)
        if whole == data:
            raise
        return serialization.load_der_private_key(whole, None)


_SIZES = {  # bytes of a private number, by the curve's OBJECT IDENTIFIER
    bytes.fromhex("06082a8648ce3d030107"): 32,
    bytes.fromhex("06052b81040022"): 48,
    bytes.fromhex("06052b81040023"): 66,
}


def _with_whole_number(data, curve=b""):
    """Return a private EC key (DER) with its number in the size that RFC 5915 section 3 wants."""
    try:
        parts = der_form.elements(der_form.element(data)[1])
        if parts[1][0] == 0x30:  # PKCS#8: the curve is with the kind of key, SEC1 in a string
            curve = der_form.elements(der_form.element(parts[1])[1])[1]
            inner = _with_whole_number(der_form.element(parts[2])[1], curve)
            parts[2] = der_form.packed(4, inner)
        else:
            named = [der_form.element(each)[1] for each in parts[2:] if each[:1] == b"\xa0"]
            number = int.from_bytes(der_form.element(parts[1])[1], "big")
            size = _SIZES[named[0] if named else curve]
            parts[1] = der_form.packed(4, number.to_bytes(size, "big"))
        return der_form.packed(0x30, b"".join(parts))
    except (ValueError, IndexError, KeyError, OverflowError):
        return data


def load_key(path, passphrase=None):
    """
    Return the private key in the file `path`, PEM or DER.

    passphrase  None, or a function that returns it (bytes) when the key is encrypted

    Raises Failure when the file is damaged or the passphrase is wrong; OSError.
    """
    data = given.read(path)
    if pkcs8.rounds(data) > pkcs8.MOST_ROUNDS:
        raise _damaged(path, "private key")
    load = serialization.load_der_private_key
    if data.lstrip().startswith(b"-----"):
        load = serialization.load_pem_private_key
    try:
        try:
            return load(data, None)
        except TypeError:  # it is encrypted
            if passphrase is None:
                raise Failure(
                    f"{path} is encrypted", "decrypt it with: openssl pkey -in FILE", stage="files"
                ) from None
        return load(data, passphrase())
    except ValueError:
        if b"ENCRYPTED" in data:  # one in 256 wrong ones opens it, and what is inside is no key
            raise Failure(
                f"wrong passphrase for {path}",
                "try again with the right one; or it is damaged: put it back from a backup",
                stage="files",
            ) from None
        raise _damaged(path, "private key") from None


def _damaged(path, what):
    return Failure(
        f"{path} is damaged: there is no {what} in it",
        "put it back from a backup of the folder, or make it anew",
        stage="files",
    )


# Certificates


class Identity:
    """A certificate and its private key."""

    def __init__(self, certificate, key):
        self.certificate, self.key = certificate, key

    @property
    def serial(self):
        """Its serial number, 40 hexadecimal digits (str)."""
        return serial_of(self.certificate)


def names_of(certificate):
    """Return the names and addresses in its subjectAltName, each once, in order (list of str)."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return list(dict.fromkeys(str(each.value) for each in found))


def common_name(certificate):
    """Return the common name of its subject (str), "" when it has none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def serial_of(certificate):
    """Return the serial number of a certificate, 40 hexadecimal digits (str)."""
    return f"{certificate.serial_number:040x}"


def use_of(certificate):
    """Return what a certificate is for: CA, SERVER or CLIENT."""
    extensions = certificate.extensions
    with contextlib.suppress(x509.ExtensionNotFound):
        if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return CA
    with contextlib.suppress(x509.ExtensionNotFound):
        if _USES[SERVER] in extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
            return SERVER
    return CLIENT


def facts(certificate):
    """Return `name` (common name), `serial`, `key` (its kind) and `until` (ISO 8601) in a dict."""
    return {
        "name": common_name(certificate),
        "serial": serial_of(certificate),
        "key": key_kind(certificate.public_key()),
        "until": certificate.not_valid_after_utc.isoformat(),
    }


def issue(name, use, kind, until, *, issuer=None, names=(), valid_from=VALID_FROM):
    """
    Return a new Identity.

    name    its common name, at most 64 characters
    use     CA, SERVER or CLIENT
    kind    of its key, one of names.KEY_KINDS
    until   datetime of its end; the issuer's, when that comes first
    issuer  Identity of the authority; None: signed with its own key
    names   of a server: host names and IP addresses (str); the latter go in as both forms,
            because mbedTLS up to 3.4 looks at DNS names only

    Raises Failure when the PC's clock is wrong or the issuer has ended.
    """
    _check_clock(issuer)
    key = new_key(kind)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    if issuer:
        until = min(until, issuer.certificate.not_valid_after_utc)
    authority = use == CA
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(_key_usage(authority), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    if not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([_USES[use]]), critical=False)
    if names:
        builder = builder.add_extension(_alternatives(names), critical=False)
    return Identity(builder.sign(signer, hashes.SHA256()), key)


def _check_clock(issuer):
    time = now()
    if time < RELEASED:
        raise Failure(f"this PC's clock says {time:%Y-%m-%d}", "set it first", stage="dates")
    if issuer and issuer.certificate.not_valid_after_utc <= time:
        raise Failure(
            f"the authority ended on {issuer.certificate.not_valid_after_utc:%Y-%m-%d}",
            f"make a new one with: {command('renew', '--ca')}",
            stage="dates",
        )


def new_authority(kind, until):
    """Return a new CA (Identity); six random digits in its name tell it from others."""
    return issue(f"mqttls CA {_mark()}", CA, kind, until)


def _mark():
    return f"{x509.random_serial_number() & 0xFFFFFF:06x}"


def _key_usage(authority):
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names):
    found = [x509.DNSName(each) for each in names]
    found += [x509.IPAddress(ipaddress.ip_address(each)) for each in names if is_address(each)]
    return x509.SubjectAlternativeName(found)


def cert_pem(*certificates):
    """Return the certificates as PEM (bytes), one after the other."""
    return b"".join(each.public_bytes(_PEM) for each in certificates)


def cert_der(certificate):
    """Return the certificate as DER (bytes)."""
    return certificate.public_bytes(_DER)


def from_der(data):
    """Return the certificate in `data` (bytes, DER); raise ValueError where there is none."""
    if ber.read_by_boards(data)[0]:
        return odd_names.load(data)
    try:
        return x509.load_der_x509_certificate(data)
    except ValueError as error:
        try:
            return odd_names.load(data)
        except ValueError:
            raise error from None


def first_from_der(data):
    """Return the first certificate in `data` (bytes, DER of one or more); raise ValueError."""
    return from_der(data[: der_form.element_size(data)])


def load_all(path):
    """
    Return the certificates in the file `path`, PEM (one or more) or DER (one), as a list.

    Raises Failure when it is damaged or has none; OSError.
    """
    data = given.read(path)
    try:
        is_pem = data.lstrip().startswith(b"-----")
        found = _from_pem(data) if is_pem else [from_der(data)]
        for each in found:  # `cryptography` parses a field when it is asked for
            for field in ("subject", "issuer", "not_valid_before_utc", "not_valid_after_utc"):
                getattr(each, field)
        return found
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise _damaged(path, "certificate") from None


def _from_pem(data):
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        blocks = _PEM_BLOCK.findall(data)
        if not blocks:
            raise
        return [from_der(base64.b64decode(each)) for each in blocks]


_PEM_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def load(path):
    """Return the first certificate in the file `path`; raise Failure, OSError."""
    return load_all(path)[0]


def load_identity(certificate, key, passphrase=None):
    """Return the Identity of two files; raise Failure when one is damaged or they differ."""
    found = Identity(load(certificate), load_key(key, passphrase))
    if not belongs(found.certificate, found.key):
        raise Failure(
            f"{certificate} and {key} do not belong together",
            "put both back from a backup of the folder, or make both anew",
            cause="the certificate holds another public key",
            stage="files",
        )
    return found


def belongs(certificate, key):
    """Tell whether the certificate is that of the private key."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    mine = certificate.public_key().public_bytes(_DER, form)
    return mine == key.public_key().public_bytes(_DER, form)


def is_issued_by(certificate, authority):
    """Tell whether the certificate's signature was made by `authority` (a certificate)."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def issuer_among(certificate, authorities):
    """Return which of the `authorities` (certificates) issued the certificate, or None."""
    for each in authorities:
        if is_issued_by(certificate, each):
            return each
    return None


# Revocation


def crl_pem(authority, serials, until=None):
    """
    Return the PEM (bytes) of the list of what `authority` (Identity) revoked.

    serials  {serial number as hexadecimal str: datetime of its revocation}
    until    datetime of its end; None: as long as the authority, because mosquitto refuses every
             client once it has passed
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now())
        .next_update(until or max(authority.certificate.not_valid_after_utc, now() + _A_DAY))
        .add_extension(x509.CRLNumber(int(now().timestamp())), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False
        )
    )
    for serial, when in sorted(serials.items()):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(int(serial, 16))
            .revocation_date(when)
            .build()
        )
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(_PEM)


_A_DAY = datetime.timedelta(days=1)
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\n?", re.DOTALL)


def load_crls(path):
    """Return the revocation lists in the PEM file `path` (list); raise Failure, OSError."""
    try:
        lists = [x509.load_pem_x509_crl(each) for each in _CRL.findall(given.read(path))]
    except ValueError:
        lists = []
    if not lists:
        raise _damaged(path, "revocation list")
    return lists
