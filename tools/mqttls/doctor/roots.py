"""
Which root a board needs for a broker: found by the chain that it sends, in what this system and
`certifi` trust.
"""

import contextlib
import dataclasses
import functools
import ssl
import warnings

from cryptography import x509

from .. import certificates, given
from ..messages import Failure
from . import lint, reading

_MOST = 2000  # certificates of a store
_MOST_ABOVE = 8
SYSTEM, CERTIFI = "your system's store", "certifi's list"
# where OpenSSL does not look and others do: Debian, Fedora, SUSE, Alpine, macOS, FreeBSD, Homebrew
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
)


@dataclasses.dataclass
class Found:
    """
    root    the certificate that a board needs (x509.Certificate); None: it is in no store
    where   in which store it is, in words
    below   the certificate that it signed, as far as the chain led: the broker's or a CA's; the
            root itself, where the broker sends that
    """

    root: x509.Certificate = None
    where: str = ""
    below: x509.Certificate = None

    @property
    def is_self_signed(self):
        """Whether the chain ends at a certificate that nobody else signed."""
        return is_self_signed(self.below)


def is_self_signed(certificate):
    """Tell whether a certificate was signed by its own key."""
    return certificate.issuer == certificate.subject and reading.signed_by(
        certificate, certificate
    )


@functools.cache
def stores():
    """Return [(name, certificates)]: whom this system and `certifi` trust; lists may be empty."""
    return [(SYSTEM, _parsed(_system())), (CERTIFI, _parsed(_certifi()))]


def _system():
    ders = []
    with contextlib.suppress(OSError, ValueError):  # ssl.SSLError is an OSError
        ders = ssl.create_default_context().get_ca_certs(binary_form=True)
    return ders or [der for path in _FILES for der in _of_file(path)]


def _certifi():
    try:
        import certifi
    except ImportError:
        return []
    return _of_file(certifi.where())


def _of_file(path):
    try:
        text = given.read(path).decode("ascii", "replace")
        begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        blocks = [each.partition(end)[0] for each in text.split(begin)[1 : _MOST + 1]]
        return [ssl.PEM_cert_to_DER_cert(f"{begin}\n{each}\n{end}\n") for each in blocks]
    except (OSError, ValueError, Failure):
        return []


def _parsed(ders):
    out = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some roots are older than today's rules
        for der in ders[:_MOST]:
            with contextlib.suppress(ValueError):
                out.append(reading.parse(der))
    return out


def find(sent, places=None):
    """
    Return the Found for a chain.

    sent    list of x509.Certificate as the broker sends them, its own first
    places  [(name, certificates)] to look in, the first first; stores() when None
    """
    places = stores() if places is None else places
    at, way, second = sent[0], [], None
    while len(way) <= _MOST_ABOVE:
        way.append(at)
        for where, trusted in places:
            root = _above(at, trusted, held=True)
            if root is not None and is_self_signed(root):
                return Found(root, where, at)
            if root is not None and second is None:  # a CA in between, which changes more often
                second = Found(root, where, at)
        above = _above(at, [each for each in sent[1:] if each not in way])
        if above is None:
            break
        at = above
    return second or Found(None, "", at)


def _above(child, candidates, held=False):
    """
    Return which of `candidates` signed `child`, or is it; the one that is valid longest, of those
    that a board takes.

    held  a board would hold it: then version 1 will do
    """
    wanted = _key_id(child, x509.AuthorityKeyIdentifier, "key_identifier")
    found = []
    for each in candidates:
        if each == child and is_self_signed(each):
            return each
        if each.subject != child.issuer or not reading.is_ca(each, held):
            continue
        own = _key_id(each, x509.SubjectKeyIdentifier, "digest")
        if wanted and own and wanted != own:
            continue
        if reading.signed_by(child, each) and each.not_valid_after_utc > certificates.now():
            found.append(each)
    usable = [each for each in found if not lint.form(each, "", trusted=held)]
    # a root of its own before one that another one signed, too
    usable.sort(key=lambda each: (is_self_signed(each), each.not_valid_after_utc))
    return usable[-1] if usable else None


def _key_id(certificate, kind, field):
    return getattr(reading.extension(certificate, kind), field, None)


def sentence(found):
    """Return what was found, as a sentence for people: "R12 is signed by ISRG Root X1, …"."""
    below = reading.name_of(found.below)
    if found.root is None:
        if found.is_self_signed:
            return f"{below} is signed by itself, and in no list of this system"
        issuer = reading.issuer_of(found.below)
        return f"{below} is signed by {issuer}, which is in no list of this system"
    if found.root == found.below:
        return f"{below} is in {found.where}"
    return f"{below} is signed by {reading.name_of(found.root)}, which is in {found.where}"
