"""
Who signs what: the authorities of a folder, and what they revoked.

Methods named put_… add files to a Change and decide nothing about when.

In a roll-over there are two authorities. The broker trusts both, boards get both; what is issued
to devices comes from the new one, the broker's own certificate from the old one, which every
board knows. Once every board has been provisioned, the broker's comes from the new one, too, and
the old one goes to the archive.
"""

import contextlib
import datetime
import functools
import json
import re

from . import certificates, passphrase, pkcs8
from .files import read_json, read_lines
from .messages import Failure

DUE_DAYS = 90  # `renew` renews it, `status` says so
SOON_DAYS = 30  # every command says so
DAYS = {"ca": 7300, "broker": 1825, "device": 365}
_REVOKED, _ISSUED = "revoked.json", "issued.jsonl"
_OF_ISSUED = ("serial", "name", "use", "authority", "issued", "until")


def _is_serial(value):
    # RFC 5280 section 4.1.2.2: 20 octets at most, above 0
    digits = isinstance(value, str) and re.fullmatch("[0-9a-f]{1,40}", value)
    return bool(digits) and 0 < int(value, 16) < 1 << 159


def _is_time(value):
    try:
        found = datetime.datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return False
    return found.tzinfo is not None and found.year > 2000


_OF_REVOKED = {"serial": _is_serial, "name": str, "revoked": _is_time, "authority": str}


def ends_in(days):
    """Return the time that is `days` from now."""
    return certificates.now() + datetime.timedelta(days=days)


def is_due(certificate, days=DUE_DAYS):
    """Tell whether the certificate ends within `days`."""
    return certificate.not_valid_after_utc < ends_in(days)


def expired(certificate):
    """Return when the certificate expired, as a reason (str), "" where it did not."""
    end = certificate.not_valid_after_utc
    return f"it expired on {end:%Y-%m-%d}" if end < certificates.now() else ""


class Authority:
    """
    The authority in the folder `path` (Path of a files.Directory).

    certificate  that of the current CA; `older` is that of the one before, in a roll-over, or None
    """

    def __init__(self, path):
        self.path = path
        self._noted = False

    @functools.cached_property
    def certificate(self):
        return certificates.load(self.path / "ca.crt")

    @functools.cached_property
    def older(self):
        found = sorted((self.path / "ca").glob("*.crt"))
        return certificates.load(found[0]) if found else None

    @property
    def trusted(self):
        """The certificates that boards and broker trust, the current one first (list)."""
        return [self.certificate, *([self.older] if self.older else [])]

    @functools.cached_property
    def identity(self):
        """The current CA with its key; asks for the passphrase where it needs one."""
        return certificates.load_identity(
            self.path / "ca.crt", self.path / "ca.key", self.passphrase
        )

    @functools.cached_property
    def older_identity(self):
        stem = self.path / "ca" / certificates.serial_of(self.older)
        return certificates.load_identity(f"{stem}.crt", f"{stem}.key", self.passphrase)

    @property
    def broker_issuer(self):
        """The CA with its key that signs the broker's certificate: one that every board knows."""
        return self.older_identity if self.older else self.identity

    def identity_of(self, certificate):
        """
        Return the CA with its key that issued a certificate (certificates.Identity), None where
        nobody trusts that, its key has a passphrase, or is kept elsewhere.
        """
        issuer = certificates.issuer_among(certificate, self.trusted)
        if issuer is None or self.is_encrypted:
            return None
        try:
            return self.older_identity if issuer is self.older else self.identity
        except FileNotFoundError:
            return None

    @functools.cached_property
    def _passphrase(self):
        return passphrase.ask("the CA's key")

    def passphrase(self):
        """Return the passphrase of the CA's key (bytes), asked for once."""
        return self._passphrase

    @property
    def is_encrypted(self):
        """Whether the current CA's key has a passphrase; False where the key is kept elsewhere."""
        try:
            return b"ENCRYPTED" in (self.path / "ca.key").read_bytes()
        except FileNotFoundError:
            return False

    @property
    def is_weak(self):
        """Whether the current CA's key has a passphrase, but in a form that is soon guessed."""
        return self.is_encrypted and pkcs8.is_weak((self.path / "ca.key").read_bytes())

    @property
    def has_ended(self):
        """Whether the current CA's certificate has expired."""
        return self.certificate.not_valid_after_utc < certificates.now()

    def put(self, change, identity, secret=None):
        """Make `identity` the current CA; `secret` encrypts its key (bytes or None)."""
        change.put("ca.crt", certificates.cert_pem(identity.certificate))
        change.put("ca.key", certificates.key_pem(identity.key, secret))
        self.put_issued(change, identity.certificate, identity.serial)
        self.identity, self.certificate = identity, identity.certificate

    def put_key(self, change, secret):
        """Have the current CA's key encrypted with `secret` (bytes)."""
        change.put("ca.key", certificates.key_pem(self.identity.key, secret))

    def put_next(self, change, kind, until, *, now=False):
        """
        Begin a roll-over: make a new CA, its key encrypted where that of the old one is. The old
        one stays trusted; if it has ended it is of no use, and goes.

        kind   of its key, one of names.KEY_KINDS
        until  datetime of its end
        now    bool: nobody trusts the old one from now on, nor the one before

        Return the new one (certificates.Identity).
        """
        old, ended = self.identity, now or self.has_ended
        secret = self.passphrase() if self.is_encrypted else None
        new = certificates.new_authority(kind, until)
        change.keep(old.serial, "ca.crt")
        if now and self.older:
            self.drop_older(change)
        if not ended:
            change.put(f"ca/{old.serial}.crt", certificates.cert_pem(old.certificate))
            change.put(f"ca/{old.serial}.key", certificates.key_pem(old.key, secret))
            self.older, self.older_identity = old.certificate, old
        self.put(change, new, secret)
        return new

    def drop_older(self, change):
        """End the roll-over: nobody trusts the older CA. Return its serial number (str)."""
        serial = certificates.serial_of(self.older)
        self.older = None
        change.keep(serial, f"ca/{serial}.crt")
        change.remove(f"ca/{serial}.crt")
        change.remove(f"ca/{serial}.key")
        return serial

    # What was issued

    def issued(self):
        """
        Return what was ever issued, oldest first: list of dicts with serial, name, use ("ca",
        "broker", "device"), authority (serial number of the issuer, "" if unknown), issued, until
        (ISO 8601).

        In a folder of an older version that is what can be found in it.
        """
        path = self.path / _ISSUED
        shape = dict.fromkeys(_OF_ISSUED, str)
        return read_lines(path, shape) if path.exists() else self._found()

    def put_issued(self, change, certificate, authority):
        """Note a new certificate; `authority` is the serial number (str) of who issued it."""
        if not (self.path / _ISSUED).exists() and not self._noted:
            for each in self._found():
                change.append(_ISSUED, json.dumps(each) + "\n")
        self._noted = True
        line = _line(certificate, authority, certificates.now().isoformat())
        change.append(_ISSUED, json.dumps(line) + "\n")

    def _found(self):
        """Return the certificates that are in the folder, as issued() does."""
        found, authorities = {}, {}
        names = ("ca.crt", "ca/*.crt", "broker/broker.crt", "devices/*/cert.crt")
        for name in [*names, *(f"archive/*/{each}" for each in names)]:
            for path in sorted(self.path.glob(name)):
                with contextlib.suppress(Failure, OSError):
                    certificate = certificates.load(path)
                    found[certificates.serial_of(certificate)] = certificate
                    if certificates.use_of(certificate) == certificates.CA:
                        authorities[certificates.serial_of(certificate)] = certificate
        lines = []
        for certificate in found.values():
            issuer = certificates.issuer_among(certificate, authorities.values())
            lines.append(_line(certificate, certificates.serial_of(issuer) if issuer else "", ""))
        return lines

    # Revocation

    def revoked(self):
        """Return what was revoked: list of dicts with serial, name, revoked, authority."""
        path = self.path / _REVOKED
        return read_json(path, [_OF_REVOKED]) if path.exists() else []

    def put_revoked(self, change, revoked):
        """Have `revoked` (list of dicts, as revoked() returns them) be all that was revoked."""
        change.put_json(_REVOKED, revoked)
        self.put_crl(change, revoked)

    def put_crl(self, change, revoked=None):
        """Write the revocation lists, one for each authority, from `revoked` or revoked.json."""
        revoked = self.revoked() if revoked is None else revoked
        identities = [self.identity, *([self.older_identity] if self.older else [])]
        text = b""
        for each in identities:
            serials = {
                one["serial"]: datetime.datetime.fromisoformat(one["revoked"])
                for one in revoked
                if one["authority"] == each.serial
            }
            text += certificates.crl_pem(each, serials)
        change.put("crl.pem", text)
        change.put("broker/crl.pem", text)

    def crl_end(self, days):
        """
        Return when the first of the revocation lists ends (datetime), None where that is not
        within `days`, or they end with their authorities, no earlier.
        """
        lists = certificates.load_crls(self.path / "crl.pem")
        ends = [
            one.next_update_utc
            for one, authority in zip(lists, self.trusted, strict=False)
            if one.next_update_utc < min(ends_in(days), authority.not_valid_after_utc)
        ]
        return min(ends, default=None)

    def crl_problem(self):
        """Return why the revocation lists must be written anew (str), or "" if they are good."""
        try:
            lists = certificates.load_crls(self.path / "crl.pem")
            if (self.path / "crl.pem").read_bytes() != (
                self.path / "broker" / "crl.pem"
            ).read_bytes():
                return "the broker has another list"
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except Failure as failure:
            return failure.fact
        if len(lists) != len(self.trusted):
            return "a list is missing"
        for one, authority in zip(lists, self.trusted, strict=True):
            if not one.is_signature_valid(authority.public_key()):
                return "a list is from another authority"
            if one.next_update_utc < certificates.now():
                return f"it expired on {one.next_update_utc:%Y-%m-%d}: the broker refuses everyone"
            if {each.serial_number for each in one} != {
                int(each["serial"], 16)
                for each in self.revoked()
                if each["authority"] == certificates.serial_of(authority)
            }:
                return "it does not hold what was revoked"
        return ""


def use_of(certificate):
    """Return what a certificate is for, as Authority.issued has it: "ca", "broker", "device"."""
    uses = {certificates.CA: "ca", certificates.SERVER: "broker", certificates.CLIENT: "device"}
    return uses[certificates.use_of(certificate)]


def _line(certificate, authority, issued):
    return {
        "serial": certificates.serial_of(certificate),
        "name": certificates.common_name(certificate),
        "use": use_of(certificate),
        "authority": authority,
        "issued": issued,
        "until": certificate.not_valid_after_utc.isoformat(),
    }
