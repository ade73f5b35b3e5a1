"""
Certificates whose names have characters that their type of string does not allow, such as `_`, `@`
or `*` in a PrintableString (X.680 section 41.4), as older authorities and devices make them, and
those that are a little out of DER. mbedTLS and OpenSSL do not look at that; `cryptography` reads
nothing of such a certificate.
"""

import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from . import ber
from .der_form import element, elements, packed

_PRINTABLE, _UTF8, _TELETEX = 0x13, 0x0C, 0x14
_ALLOWED = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


class AsItWas:
    """
    A certificate as `cryptography` reads it with its names respelled and in DER, and as it was in
    all that signatures and files are made of: what an x509.Certificate has.

    not_der  str, what in it is not DER, "" for nothing
    """

    def __init__(self, der, respelled, not_der=""):
        self._der, self._read, self.not_der = der, respelled, not_der

    def __getattr__(self, name):
        return getattr(self._read, name)

    def __eq__(self, other):
        encoding = serialization.Encoding.DER
        return hasattr(other, "public_bytes") and other.public_bytes(encoding) == self._der

    def __hash__(self):
        return hash(self._der)

    @property
    def tbs_certificate_bytes(self):
        """What was signed."""
        return elements(element(self._der)[1])[0]

    def public_bytes(self, encoding):
        """Return it as DER or PEM (bytes)."""
        if encoding == serialization.Encoding.DER:
            return self._der
        return ssl.DER_cert_to_PEM_cert(self._der).encode()

    def fingerprint(self, algorithm):
        """Return its fingerprint (bytes)."""
        digest = hashes.Hash(algorithm)
        digest.update(self._der)
        return digest.finalize()


def load(der):
    """
    Return the certificate in `der` (bytes), which `cryptography` does not load.

    Raises ValueError where that is not because of its names, or of BER that mbedTLS takes.
    """
    not_der, in_der = ber.read_by_boards(der)
    try:
        parts = elements(element(in_der or der)[1])
        fields = elements(element(parts[0])[1])
        at = 1 if fields[0][:1] == b"\xa0" else 0  # the version may be left out
        for number in (at + 2, at + 4):  # issuer, subject
            fields[number] = _respelled(fields[number])
    except (ValueError, IndexError):
        raise ValueError("it is not the DER of one") from None
    changed = packed(0x30, packed(0x30, b"".join(fields)) + b"".join(parts[1:]))
    if changed == der:
        raise ValueError("it is not the DER of one")
    return AsItWas(der, x509.load_der_x509_certificate(changed), not_der)


def _respelled(name):
    sets = []
    for several in elements(element(name)[1]):
        pairs = []
        for each in elements(element(several)[1]):
            oid, value = elements(element(each)[1])
            pairs.append(packed(0x30, oid + _string(value)))
        sets.append(packed(0x31, b"".join(pairs)))
    return packed(0x30, b"".join(sets))


def _string(value):
    text = element(value)[1]
    if value[0] != _PRINTABLE or set(text) <= _ALLOWED:
        return value
    try:
        text.decode()
    except ValueError:
        return packed(_TELETEX, text)
    return packed(_UTF8, text)
