"""
Certificates, made when a test asks for them.

`PKI` has one attribute for each certificate that tests want; each is an `Identity`, made at its
first use, with its files in every form that a device or a broker may be given.
"""

import datetime
import functools
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_TRADITIONAL = serialization.PrivateFormat.TraditionalOpenSSL  # SEC1 for EC, PKCS#1 for RSA
_PKCS8 = serialization.PrivateFormat.PKCS8

_SHA256 = hashes.SHA256()
USES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
NAMES = ("localhost", "broker.lan", "127.0.0.1")  # an IP as DNS name too, for old firmware
ADDRESSES = ("127.0.0.1",)


def days(count):
    """Return the time that is `count` days from now (negative: in the past)."""
    return datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=count)


def new_key(kind="p256"):
    """Return a new private key; `kind` is p256, p384, p521, ed25519, rsa2048, rsa3072, …"""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind.startswith("rsa"):
        return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))
    curve = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "p521": ec.SECP521R1}[kind]
    return ec.generate_private_key(curve())


def key_usage(fields):
    """Return the extension keyUsage with `fields` (str, names with blanks between)."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment "
        "key_agreement key_cert_sign crl_sign encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{name: name in fields.split() for name in every})


def alternatives(names, addresses):
    """Return the extension subjectAltName of DNS names and IP addresses (str)."""
    found = [x509.DNSName(each) for each in names]
    found += [x509.IPAddress(ipaddress.ip_address(each)) for each in addresses]
    return x509.SubjectAlternativeName(found)


def signed(
    name, key, issuer, extensions, *, valid_from=EPOCH, valid_to=None, hashed=_SHA256, **how
):
    """
    Return a certificate.

    name        its common name
    key         its private key, which signs it where there is no issuer
    issuer      Identity of the CA, or None
    extensions  list of (extension, critical), beside the identifiers of the two keys
    valid_from, valid_to  datetime; to 10 years from now when None
    hashed, how  as CertificateBuilder.sign() takes them
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(valid_to or days(3650))
    )
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    its = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    for extension, critical in [*extensions, (own, False), (its, False)]:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashed, **how)


class Identity:
    """
    A certificate with its private key. `certificate` and `key` are the objects of `cryptography`.

    Each of these is the path (str) of a file that is written at its first use:

    cert_pem cert_der  the certificate
    key_pem key_der    the key, not encrypted: SEC1 (EC), PKCS#1 (RSA), PKCS#8 (all others)
    pkcs8_pem pkcs8_der  the same as PKCS#8
    encrypted_pem      the same, encrypted with the password "secret"
    chain_pem          the certificate and those of its issuers below the root
    """

    def __init__(self, directory, name, certificate, key, issuer=None):
        self.name = name
        self.certificate = certificate
        self.key = key
        self.issuer = issuer
        self._stem = Path(directory) / name.replace(" ", "-")

    def _write(self, ending, data):
        path = Path(f"{self._stem}{ending}")
        path.write_bytes(data)
        return str(path)

    def _write_key(self, ending, encoding, form, password=None):
        lock = serialization.NoEncryption()
        if password:
            lock = serialization.BestAvailableEncryption(password)
        return self._write(ending, self.key.private_bytes(encoding, form, lock))

    @property
    def _own_form(self):
        older = isinstance(self.key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        return _TRADITIONAL if older else _PKCS8

    @functools.cached_property
    def cert_pem(self):
        return self._write(".crt", self.certificate.public_bytes(_PEM))

    @functools.cached_property
    def cert_der(self):
        return self._write(".crt.der", self.certificate.public_bytes(_DER))

    @functools.cached_property
    def chain_pem(self):
        chain, at = [], self
        while at is not None and (at is self or at.issuer is not None):
            chain.append(at.certificate.public_bytes(_PEM))
            at = at.issuer
        return self._write(".chain.crt", b"".join(chain))

    @functools.cached_property
    def key_pem(self):
        return self._write_key(".key", _PEM, self._own_form)

    @functools.cached_property
    def key_der(self):
        return self._write_key(".key.der", _DER, self._own_form)

    @functools.cached_property
    def pkcs8_pem(self):
        return self._write_key(".pkcs8.key", _PEM, _PKCS8)

    @functools.cached_property
    def pkcs8_der(self):
        return self._write_key(".pkcs8.key.der", _DER, _PKCS8)

    @functools.cached_property
    def encrypted_pem(self):
        return self._write_key(".encrypted.key", _PEM, _PKCS8, b"secret")


class PKI:
    """
    A certificate authority and what it issued, in the folder `directory`.

    The authority's certificates are those of the docs: P-256, SHA-256, valid from 2020 on.
    """

    def __init__(self, directory):
        self.directory = Path(directory)

    def issue(
        self,
        name,
        usage="server",
        *,
        issuer=None,
        names=None,
        addresses=None,
        key="p256",
        valid_from=EPOCH,
        valid_to=None,
        path_length=0,
    ):
        """
        Return a new Identity.

        name        of its files (must be new) and its common name
        usage       "server", "client" or "ca"; "" for no extended key usage at all
        issuer      Identity of the CA; None signs with its own key
        names       DNS names (tuple of str); those of the broker, for a server, when None
        addresses   IP addresses (tuple of str); those of the broker, for a server, when None
        key         kind of its key, see new_key
        valid_from, valid_to  datetime; to 10 years from now when None
        path_length of a CA: how many CAs may follow below it
        """
        private = new_key(key)
        authority = usage == "ca"
        extensions = [
            (x509.BasicConstraints(authority, path_length if authority else None), True),
            (key_usage("key_cert_sign crl_sign" if authority else "digital_signature"), True),
        ]
        if usage in USES:
            extensions.append((x509.ExtendedKeyUsage([USES[usage]]), False))
        server = usage in ("server", "")
        names = NAMES if names is None and server else names or ()
        addresses = ADDRESSES if addresses is None and server else addresses or ()
        if names or addresses:
            extensions.append((alternatives(names, addresses), False))
        certificate = signed(
            name, private, issuer, extensions, valid_from=valid_from, valid_to=valid_to
        )
        return Identity(self.directory, name, certificate, private, issuer)

    # The authority, and another that nobody trusts

    @functools.cached_property
    def ca(self):
        return self.issue("ca", "ca", path_length=1)

    @functools.cached_property
    def other_ca(self):
        return self.issue("other ca", "ca")

    @functools.cached_property
    def intermediate_ca(self):
        return self.issue("intermediate ca", "ca", issuer=self.ca)

    # Brokers; all but `broker` and `broker_rsa` have one thing wrong or special

    @functools.cached_property
    def broker(self):
        return self.issue("broker", issuer=self.ca)

    @functools.cached_property
    def broker_rsa(self):
        return self.issue("broker rsa", issuer=self.ca, key="rsa2048")

    @functools.cached_property
    def broker_by_intermediate(self):
        return self.issue("broker by intermediate", issuer=self.intermediate_ca)

    @functools.cached_property
    def broker_self_signed(self):
        return self.issue("broker self signed")

    @functools.cached_property
    def broker_expired(self):
        return self.issue("broker expired", issuer=self.ca, valid_to=days(-1))

    @functools.cached_property
    def broker_future(self):
        return self.issue("broker future", issuer=self.ca, valid_from=days(2))

    @functools.cached_property
    def broker_wrong_name(self):
        return self.issue(
            "broker wrong name", issuer=self.ca, names=("elsewhere.lan",), addresses=()
        )

    @functools.cached_property
    def broker_wrong_ca(self):
        return self.issue("broker wrong ca", issuer=self.other_ca)

    @functools.cached_property
    def broker_wrong_usage(self):
        """A client's certificate, but with the broker's names."""
        return self.issue(
            "broker wrong usage", "client", issuer=self.ca, names=NAMES, addresses=ADDRESSES
        )

    # Devices; all but `device` and `device_rsa` have one thing wrong

    @functools.cached_property
    def device(self):
        return self.issue("device", "client", issuer=self.ca)

    @functools.cached_property
    def device_rsa(self):
        return self.issue("device rsa", "client", issuer=self.ca, key="rsa2048")

    @functools.cached_property
    def device_expired(self):
        return self.issue("device expired", "client", issuer=self.ca, valid_to=days(-1))

    @functools.cached_property
    def device_wrong_ca(self):
        return self.issue("device wrong ca", "client", issuer=self.other_ca)

    @functools.cached_property
    def device_wrong_usage(self):
        return self.issue("device wrong usage", "server", issuer=self.ca)

    def bundle(self, *identities, der=False):
        """Return the path (str) of one file with the certificates of `identities`, in order."""
        names = (each.name.replace(" ", "-") for each in identities)
        path = self.directory / "-".join(["bundle", *names, "der" if der else "pem"])
        form = _DER if der else _PEM
        path.write_bytes(b"".join(each.certificate.public_bytes(form) for each in identities))
        return str(path)
