"""
The broker's certificates, and the files of a device, judged by the rules of the mbedTLS that
boards have. `when` is an aware datetime, "now" in all but tests.
"""

import dataclasses
import datetime
import hashlib
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

_MOST_ABOVE = 8  # MBEDTLS_X509_MAX_INTERMEDIATE_CA
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
    try:
        hashed = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        hashed = None
    oid = certificate.signature_algorithm_oid
    by_pss = _signed_by_pss(certificate, whose)
    out += by_pss
    if not (
        by_pss
        or isinstance(hashed, _HASHES)
        or trusted
        or certificate.issuer == certificate.subject
    ):
        how = hashed.name.upper() if hashed else reading.oid_name(oid)
        out.append(problem(33, f"{whose} is signed with {how}; mbedTLS wants SHA-256, 384 or 512"))
    return out + _extensions(certificate, whose)


def _signed_by_pss(certificate, whose):
    if certificate.signature_algorithm_oid != x509.SignatureAlgorithmOID.RSASSA_PSS:
        return []
    return [problem(33, f"{whose} is signed with RSA-PSS, which MicroPython does not have")]


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


def _extensions(certificate, whose):
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
    when = when or certificates.now()
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start > when:
        return [problem(13, f"{whose} is valid from {minute(start)} on; now it is {minute(when)}")]
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


# The chain, as mbedtls_x509_crt_verify walks it


def _key_id(certificate, kind):
    value = reading.extension(certificate, kind)
    digest = getattr(value, "digest", None) or getattr(value, "key_identifier", None)
    return digest.hex() if digest else ""


def path(sent, trusted, when=None):
    """
    Return the certificates that mbedTLS takes on its way from the broker's own (`sent[0]`) to one
    that the board trusts, each with whether the board holds it: [(certificate, bool)].

    It takes a parent from what the board trusts first, then from what the broker sent behind the
    child. The last pair is (…, False) where it finds none.
    """
    when = when or certificates.now()
    at, held, selves = 0, False, 0
    out = [(sent[0], False)]
    while len(out) <= _MOST_ABOVE + 1:
        child = out[-1][0]
        if held or len(out) == 1 and child.issuer == child.subject and child in trusted:
            out[-1] = (child, True)
            return out
        above = len(out) - 1 - selves
        parent = _parent(child, trusted, above, True, when)
        held = parent is not None
        if not held:
            parent = _parent(child, sent[at + 1 :], above, False, when)
            if parent is None:
                return out
            at = sent.index(parent, at + 1)
        selves += len(out) > 1 and child.issuer == child.subject
        out.append((parent, held))
    return out


def _parent(child, candidates, above, trusted, when):
    later = None
    for each in candidates:
        if not reading.same_name(each.subject, child.issuer) or not reading.is_ca(each, trusted):
            continue
        constraints = reading.extension(each, x509.BasicConstraints)
        limit = constraints.path_length if constraints else None
        if limit is not None and limit < above or not reading.signed_by(child, each):
            continue
        if each.not_valid_before_utc <= when <= each.not_valid_after_utc:
            return each
        later = later or each  # with wrong dates it is taken only where there is no other
    return later


def chain(sent, trusted, when=None, known=()):
    """
    Return the findings about whether a board that trusts `trusted` accepts the chain `sent`.

    sent     list of x509.Certificate as the broker sends them, its own first
    trusted  list of those that the board has; empty means that it has none
    known    other certificates that were found, to tell a missing intermediate
    """
    leaf = "the broker's certificate"
    if not trusted:
        return [
            *form(sent[0], leaf),
            problem(21, "the board has no CA"),
            *dates(sent[0], leaf, when),
        ]
    taken = path(sent, trusted, when)
    out, whose = [], leaf
    for number, (each, held) in enumerate(taken):
        if number == 1:
            whose = f"the certificate of {reading.name_of(each)}, which signed the broker's,"
        if held and number:
            whose = f"the CA {reading.name_of(each)}"
        elif number > 1:
            whose = f"the certificate of the CA {reading.name_of(each)}"
        out += form(each, whose, held, ca=number > 0)
        out += _dates_in_chain(each, whose, when, held and number, number)
    for at, each in enumerate(out):
        if each.row == 54 and each.level == "problem" and len(taken) > 1:
            below = reading.name_of(taken[-2][0])
            if len(taken) > 2:  # it came signed by that old CA, and is one itself by now
                cure = f"put the CA {below} on the board in its place, or what replaced it "
                out[at] = problem(54, each.fact, cure=f"{cure}(mqttls provision)")
    if any(each.row == 9 and each.stage == "chain" for each in out):  # how a CA signs follows
        out = [each for each in out if each.row != 33 or " signed with ed" not in each.fact]
    if any(each.row == 54 and each.level == "problem" for each in out):
        # what replaces that CA makes those that it signed needless
        out = [
            dataclasses.replace(each, level="remark") if each.row == 14 else each for each in out
        ]
    for each in sent[1:]:
        if all(each != one for one, _ in taken):
            # mbedTLS passes over keys and signatures that it does not know, not over these
            whose = f"the certificate of {reading.name_of(each)}, which the broker sends along,"
            out += _extensions(each, whose)
    child, held = taken[-1]
    if held:
        return out
    if len(taken) > _MOST_ABOVE + 1:
        fact = f"the chain has more than {_MOST_ABOVE} certificates above the broker"
        return [*out, problem(33, fact, cure="use a shorter chain")]
    whose = leaf if child is sent[0] else f"the certificate of the CA {reading.name_of(child)}"
    return [*out, _why_no_parent(child, whose, sent, trusted, known, len(taken) - 1)]


def _dates_in_chain(certificate, whose, when, held, number):
    out = dates(certificate, whose, when)
    if held:
        return [_held_ca(each) if each.row == 14 else each for each in out]
    if not number:
        return out
    for at, each in enumerate(out):
        if each.row == 14 and each.level == "problem":
            cure = "put the one that replaced it into the broker's certfile, and have it loaded; "
            cure += f"or put the CA {reading.name_of(certificate)} itself on the board"
            out[at] = dataclasses.replace(each, cure=cure)
    return out


def _held_ca(finding):
    # A finding about dates, of a CA that the board holds
    if finding.level == "problem":
        return problem(54, finding.fact)
    return remark(54, finding.fact, cause=finding.cause)


def _why_no_parent(child, whose, sent, trusted, known, above):
    issuer = reading.issuer_of(child)
    names = _names(trusted)
    wanted = _key_id(child, x509.AuthorityKeyIdentifier)
    if child in trusted and child.issuer != child.subject:
        fact = f"{whose} itself is given as the CA; it is signed by {issuer}"
        cure = f"give the certificate of the CA {issuer}"
        return problem(56, fact, stage="chain", cure=cure)
    for each in [*trusted, *sent[1:]]:
        if not reading.same_name(each.subject, child.issuer) or each == child:
            continue
        if reading.signed_by(child, each):
            if not reading.is_ca(each, each in trusted):
                missing = "keyCertSign" if reading.says_ca(each) else "CA:TRUE"
                return problem(18, f"{reading.name_of(each)} signed {whose}, but has no {missing}")
            if each in sent and each not in trusted and sent.index(each) < sent.index(child):
                order = " < ".join(map(reading.name_of, sent))
                return problem(65, f"the broker sends {order}")
            return problem(
                18,
                f"the path length of the CA {reading.name_of(each)} forbids the CA below it",
                cause="the CA's certificate allows fewer CAs below it than there are",
                cure="make that CA anew with a larger path length, or none; or issue the broker's "
                "certificate without the CA in between",
            )
    for each in trusted:
        if reading.same_name(each.subject, child.issuer):
            have = _key_id(each, x509.SubjectKeyIdentifier)
            if not have or not wanted:  # a key has an id without one in the certificate, too
                have, wanted = _thumb(each), "that of another key"
            return problem(
                17,
                f"the board has another CA named {issuer}: key id {have[:16]}, while {whose} is "
                f"signed by {wanted[:16] if ' ' not in wanted else 'another key'}",
            )
    for each in sent[1:]:
        if reading.same_name(each.subject, child.issuer) and each != child:
            have = _key_id(each, x509.SubjectKeyIdentifier)[:16] or "unnamed"
            return problem(
                17,
                f"{whose} is not signed by the CA {issuer} that the broker sends (key id {have})",
                cause="the broker sends another CA of that name, or an older one",
                cure=f"put the CA {issuer} that signed it into the broker's certfile",
            )
    for each in known:
        if (
            reading.same_name(each.subject, child.issuer)
            and reading.signed_by(child, each)
            and each not in trusted
        ):
            above_it = [one for one in trusted if reading.same_name(one.subject, each.issuer)]
            if any(reading.signed_by(each, one) for one in above_it):
                return problem(
                    19,
                    f"{whose} is signed by the intermediate {issuer}, which the broker does not "
                    f"send, and that one by {reading.name_of(above_it[0])}",
                )
    if not any(reading.is_ca(each, True) or each.issuer == each.subject for each in trusted):
        fact = (
            f"the board has no CA, but the certificate of {names}; {whose} is signed by {issuer}"
        )
        cure = f"give the certificate of the CA {issuer}"
        return problem(56, fact, stage="chain", cure=cure)
    if child.issuer == child.subject and above:
        return problem(
            17,
            f"the broker's chain ends at the CA {issuer}; the board trusts {names}",
            cure=f"put the CA {issuer} on the board, if you trust it (mqttls provision)",
        )
    if child.issuer == child.subject:
        return problem(
            17,
            f"{whose} is signed by itself ({issuer}); the board trusts {names}",
            cure="put the broker's own certificate on the board in the place of a CA, which pins "
            "it; or have a CA sign it",
        )
    return problem(
        17,
        f"{whose} is signed by {issuer}; the board trusts {names}",
        cause="the board trusts another CA than the one that signed the broker's certificate, or "
        "the broker does not send the intermediate certificate",
        cure=f"put the CA {issuer} on the board (mqttls provision); or, if {issuer} is below "
        f"{names}, append its certificate to the broker's certfile",
    )


def _names(found, most=4):
    names = sorted({reading.name_of(each) for each in found})
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _thumb(certificate):
    return hashlib.sha1(reading.public_bytes(certificate)).hexdigest()


def held(trusted, when=None):
    """
    Return the findings about the dates of the CAs that a board holds, and whether they are CAs.

    Of a bundle some may have expired: what is of no use any more does no harm.
    """
    when = when or certificates.now()
    out, expired = [], [each for each in trusted if each.not_valid_after_utc < when]
    if expired and len(expired) == len(trusted):
        for each in expired:
            out += [_held_ca(one) for one in dates(each, f"the CA {reading.name_of(each)}", when)]
    elif expired:
        fact = f"of the {len(trusted)} CAs of the board {len(expired)} have expired: "
        cause = "a broker below them is refused"
        out.append(remark(54, fact + _names(expired), cause=cause, stage="files"))
    for each in trusted:
        whose = f"the CA {reading.name_of(each)}"
        if each.not_valid_before_utc > when:
            out += dates(each, whose, when)
        if len(trusted) == 1:
            out += form(each, whose, True, ca=True)
    if trusted and not any(reading.is_ca(each, True) for each in trusted):
        own = [each for each in trusted if each.issuer == each.subject]
        for each in trusted:
            if each not in own:
                fact = (
                    f"{reading.name_of(each)}, given as the CA, has no CA:TRUE: it is signed by "
                )
                fact += reading.issuer_of(each)
                cure = f"give the certificate of the CA {reading.issuer_of(each)}"
                out.append(problem(56, fact, cure=cure))
    return out


def unreadable(trusted):
    """Return the findings about CAs of the board that its firmware cannot even read."""
    out = []
    for each in trusted:
        whose = f"the CA {reading.name_of(each)}"
        found = _unknown_key(each, whose, True) + _signed_by_pss(each, whose)
        found += _extensions(each, whose)
        if len(trusted) > 1:
            cure = "take that certificate out of the file: a board reads all of them, or none"
            found = [dataclasses.replace(one, cure=cure) for one in found]
        out += found
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
    elif len(loaded) > 1:
        out.append(
            remark(
                17,
                f"{path} holds {len(loaded)} certificates in DER",
                cause="mbedTLS reads only the first of them (mqtt_as_tls reads all)",
                cure="one file for each, and all of them in ca=[...]",
            )
        )
    for each in loaded:
        if reading.size(each) > _MANY_BYTES and what == "ca":
            fact = (
                f"{path} has {reading.size(each)} bytes: the CA takes that of the board's memory"
            )
            out.append(remark(34, fact, cause="each certificate is kept in memory", stage="files"))
    return loaded, out
