"""
Whether a broker lets a client in by its certificate: judged by the rules of mosquitto and of the
OpenSSL in it. `when` is an aware datetime, "now" in all but tests.
"""

import dataclasses
import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from .. import certificates
from ..messages import shell
from . import lint, reading
from .causes import problem, remark
from .peek import BOARD_OUT

_MOST_ABOVE = 10
_NO_LIST = "mosquitto does not start with such a crlfile"


def judge(certificate, private, authorities=(), crls=(), when=None, *, chain=(), named=False):
    """
    Return the findings about the certificate that a device shows.

    chain        those of the CAs above it (x509.Certificate) that the device sends, too
    private      Key, or None to leave the pair unchecked
    authorities  CAs (x509.Certificate) that the broker takes clients from; empty: unknown
    crls         lists (x509.CertificateRevocationList) that the broker reads
    named        the broker takes the user name from the certificate
    """
    name = reading.name_of(certificate)
    whose = f"the client certificate of {name}"
    out = [
        dataclasses.replace(each, stage="client certificate")
        for each in (*lint.form(certificate, whose), *lint.dates(certificate, whose, when))
        if each.row != 12
    ]
    for at, each in enumerate(out):
        if each.row == 13 and "this PC" in each.cure:
            continue
        if each.row in (13, 14) and each.level == "problem":
            cure = "issue a new one (mqttls renew, then mqttls provision)"
            out[at] = dataclasses.replace(each, row=25, cure=cure)
        elif each.row == 33 and (" bits; " in each.fact or "SHA1" in each.fact):
            cause = "the broker's OpenSSL takes no RSA key below 2048 bits, and no SHA-1"
            cure = "issue a new one with P-256 and SHA-256 (mqttls device add)"
            out[at] = problem(25, each.fact.partition(";")[0], cause=cause, cure=cure)
        elif each.row in (9, 33, 48):
            cause = "MicroPython cannot use the device's certificate" if each.row == 33 else None
            cure = "reissue the device's" + each.cure.removeprefix("reissue it") if cause else None
            out[at] = problem(47, each.fact, stage="client certificate", cause=cause, cure=cure)
    common_name = certificates.common_name(certificate)
    if named and ("+" in common_name or "#" in common_name):
        fact = f"the name in the client certificate is {common_name}"
        cause = "mosquitto's ACL denies everything to a user with + or # in its name"
        out.append(remark(52, fact, cause=cause, cure="reissue it with another name as CN"))
    if named and not common_name:
        subject = reading.name_of(certificate)
        out.append(problem(52, f"the client certificate has no CN, only {subject}"))
    if private is not None and not reading.is_pair(certificate, private.private):
        out.append(problem(27, f"the key does not belong to {whose}"))
    purposes = reading.extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if purposes is not None and not any(each in allowed for each in purposes):
        have = ", ".join(map(reading.oid_name, purposes))
        fact = f"{whose} is for {have}, not for clientAuth"
        out.append(problem(25, fact, cure="reissue it with extendedKeyUsage clientAuth"))
    usage = reading.extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        fact = f"the keyUsage of {whose} lacks digitalSignature"
        out.append(problem(25, fact, cure="reissue it with keyUsage digitalSignature"))
    for each in path(certificate, chain, authorities)[1:]:
        along = f"the certificate of the CA {reading.name_of(each)} that the device sends along"
        for one in lint.dates(each, along, when):
            if one.level == "problem" and one.row == 14:
                cure = "put the one that replaced it into the device's certificate file"
                out.append(problem(25, one.fact, cause=one.cause, cure=cure))
    out += _issuers(certificate, whose, authorities, chain)
    for each in crls:
        out += revoked(each, certificate)
    if crls and all(each.issuer != certificate.issuer for each in crls):
        issuer = reading.issuer_of(certificate)
        fact = f"the broker's CRL file has no list of {issuer}, which issued {whose}"
        cause = f"a broker with a crlfile refuses clients of a CA without a list: {issuer}"
        cure = f"append the list of {issuer} to it (mqttls renew)"
        out.append(problem(26, fact, cause=cause, cure=cure))
    size = sum(3 + reading.size(each) for each in (certificate, *chain))
    if size + 7 > BOARD_OUT:
        with_chain = f" with its chain of {len(chain)}" if chain else ""
        fact = f"{whose}{with_chain} has {size} bytes; a board sends 4096 at most"
        out.append(problem(32, fact, stage="client certificate"))
    return out


def unlisted(certificate, chain, listed):
    """
    Return the Finding about a client whose CAs are not in the list that the broker sends, or None.

    chain   as in judge()
    listed  names in DER (list of bytes)
    """
    shown = path(certificate, chain)
    if any(reading.is_listed(each.issuer, listed) for each in shown):
        return None
    names = ", ".join(map(reading.name_in, listed[:4])) + (", …" if len(listed) > 4 else "")
    issuer = reading.issuer_of(shown[-1])
    cause = f"the broker takes clients of {names}, and this one is of another CA"
    cure = (
        f"issue it from one of those, or add {issuer} to the broker's cafile; --log and --conf, "
    )
    cure += "on the broker's machine, tell more"
    return problem(25, f"the broker does not list {issuer} among its CAs", cause=cause, cure=cure)


def path(certificate, chain, authorities=()):
    """
    Return the certificates (list) from a device's own upwards, as far as `chain` has them and
    none of `authorities` signed one.
    """
    found = [certificate]
    while not _issuer(found[-1], authorities):
        above = _issuer(found[-1], [each for each in chain if each not in found])
        if above is None:
            break
        found.append(above)
    return found


def _issuers(certificate, whose, authorities, chain):
    """Return the findings about the way from a client's certificate to a root of the broker's."""
    if not authorities:
        return []
    at, on_the_way = certificate, []
    while at.issuer != at.subject and len(on_the_way) < _MOST_ABOVE:
        above = _issuer(at, [*authorities, *chain])
        if above is None:
            break
        on_the_way.append(above)
        at = above
    names = ", ".join(sorted({reading.name_of(each) for each in authorities}))
    if not on_the_way:
        issuer = reading.issuer_of(certificate)
        cure = f"issue it from the broker's CA, or add {issuer} to cafile; if {issuer} is itself "
        cure += f"below {names}, append its certificate to the device's, which sends it along"
        if at.issuer == at.subject:
            if at in authorities:
                return []  # the broker takes this very one
            cure = "add it itself to the broker's cafile, or issue one from the broker's CA"
        fact = f"{whose} is from {issuer}; the broker takes those from {names}"
        if any(reading.similar_name(each.subject, at.issuer) for each in authorities):
            fact = f"{whose} was not signed by the CA {issuer} in the broker's cafile, but by "
            fact += "another one of that name"
            cure = "put that one into cafile, too; or issue a new certificate (mqttls device add)"
        return [problem(25, fact, cure=cure)]
    if at.issuer == at.subject and at in authorities:
        return []
    if not any(each in authorities for each in on_the_way):
        fact = f"{whose} is from {reading.name_of(on_the_way[-1])}, which is not in the broker's "
        return [problem(25, f"{fact}cafile ({names})", cure="add the root above it to cafile")]
    missing = reading.issuer_of(at)
    last = [each for each in on_the_way if each.issuer != each.subject][-1:]
    below = reading.name_of(last[0]) if last else names
    fact = f"{whose} is below {below}, and that one is from {missing}, which is not in "
    return [problem(53, f"{fact}the broker's cafile ({names})", cure=root_to_cafile(missing))]


def root_to_cafile(name):
    """Return the cure (str) of row 53: `name` is that of the missing CA."""
    return f"append the certificate of {name} to the broker's cafile, and restart the broker"


def _issuer(certificate, candidates):
    for each in candidates:
        if reading.similar_name(each.subject, certificate.issuer) and reading.signed_by(
            certificate, each
        ):
            return each
    return None


def rootless(authorities):
    """
    Return the CAs of a broker's cafile from which there is no way to a root in it: OpenSSL
    believes no client that they issued.
    """
    out = []
    for each in authorities:
        at, seen = each, 0
        while at is not None and at.issuer != at.subject and seen < _MOST_ABOVE:
            at, seen = _issuer(at, authorities), seen + 1
        if at is None:
            out.append(each)
    return out


def revoked(crl, certificate):
    """Return the findings when `certificate` is on the list `crl`."""
    if crl.issuer != certificate.issuer:
        return []
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        return []
    fact = f"the client certificate of {reading.name_of(certificate)} was revoked on "
    fact += lint.day(entry.revocation_date_utc)
    return [problem(25, fact, cure="issue a new one (mqttls device add)")]


def crl(path, authorities=(), when=None, stage="client certificate"):
    """
    Return (list of CRLs, findings) of a CRL file, by mosquitto's rules.

    authorities  CAs of the broker's cafile: it wants a list of each one that issued clients
    """
    when = when or certificates.now()
    data = reading.read(path, stage)
    ders = [der for label, der in reading.blocks(data) if label == "X509 CRL"]
    if not reading.is_pem(data):
        fact = f"{path} is DER; mosquitto wants PEM"
        raise reading.wrong(
            stage,
            fact,
            shell("openssl", "crl", "-inform", "DER", "-in", path, "-out", "crl.pem"),
            26,
            _NO_LIST,
        )
    lists, out = [], []
    for der in ders[: reading.MOST_CERTIFICATES]:
        try:
            lists.append(x509.load_der_x509_crl(der))
        except ValueError as error:
            fact = f"{path} is damaged ({str(error)[:80]})"
            raise reading.wrong(
                stage, fact, "rebuild it (mqttls revoke, mqttls renew)", 26, _NO_LIST
            ) from None
    if not lists:
        raise reading.wrong(
            stage, f"{path} has no revocation list", "rebuild it (mqttls renew)", 26, _NO_LIST
        )
    for each in lists:
        name = each.issuer.rfc4514_string()
        end = each.next_update_utc
        if end is not None and end < when:
            out.append(problem(26, f"{path}: the list of {name} expired on {lint.minute(end)}"))
        elif end is not None and end < when + datetime.timedelta(days=30):
            fact = f"{path}: the list of {name} expires on {lint.minute(end)}"
            out.append(remark(26, fact, cause="after that the broker refuses every client"))
        if each.last_update_utc > when:
            fact = (
                f"{path}: the list of {name} is valid from {lint.minute(each.last_update_utc)} on"
            )
            out.append(problem(26, fact, cause="the broker refuses every client until then"))
        signers = [ca for ca in authorities if ca.subject == each.issuer]
        if signers and not any(reading.signed_by(each, ca) for ca in signers):
            fact = f"{path}: the list of {name} is signed with another key than that CA's"
            out.append(problem(26, fact, cause="the CRL is of an older CA with the same name"))
    return lists, out
