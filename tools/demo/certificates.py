"""The demo's certificates: P-256, valid from 2020 on, gone with their folder."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_FROM = datetime.datetime(2020, 1, 1)  # a board connects before it knows the time
_TO = datetime.datetime(2040, 1, 1)
_USAGE = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


class Identity:
    """
    A certificate and its private key; its common name is `name`.

    usage   "ca", "server" or "client"
    issuer  Identity of the CA; None: signed with its own key
    """

    def __init__(self, name, usage, issuer=None):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = issuer or self
        ca = usage == "ca"
        builder = (
            x509.CertificateBuilder()
            .issuer_name(issuer.subject)
            .subject_name(self.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_FROM)
            .not_valid_after(_TO)
            .add_extension(x509.BasicConstraints(ca, 0 if ca else None), critical=True)
            .add_extension(
                x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False),
                critical=True,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGE[usage]]), critical=False)
        if usage == "server":
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name), address]), critical=False
            )
        self.certificate = builder.sign(issuer.key, hashes.SHA256())

    def write_pem(self, certificate, key):
        """Write both to the paths `certificate` and `key`, for a broker or a PC."""
        certificate.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        key.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def write_der(self, folder, ca):
        """Write ca.der, cert.der and key.der into `folder`, for a board; return their bytes."""
        folder.mkdir()
        key = self.key.private_bytes(
            Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        files = {
            "ca.der": ca.certificate.public_bytes(Encoding.DER),
            "cert.der": self.certificate.public_bytes(Encoding.DER),
            "key.der": key,
        }
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return sum(map(len, files.values()))
