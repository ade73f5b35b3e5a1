"""
The chain from the broker's certificate to a CA that the board holds, as mbedTLS walks it
(mbedtls_x509_crt_verify), and the CAs that a board holds. `when` is an aware datetime, "now" in
all but tests.
"""

import dataclasses
import hashlib

from cryptography import x509

from .. import certificates
from . import lint, reading
from .causes import problem, remark

_MOST_ABOVE = 8  # MBEDTLS_X509_MAX_INTERMEDIATE_CA


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


def judge(sent, trusted, when=None, known=()):
    """
    Return the findings about whether a board that trusts `trusted` accepts the chain `sent`.

    sent     list of x509.Certificate as the broker sends them, its own first
    trusted  list of those that the board has; empty means that it has none
    known    other certificates that were found, to tell a missing intermediate
    """
    leaf = "the broker's certificate"
    if not trusted:
        return [
            *lint.form(sent[0], leaf),
            *lint.odd(sent[0], leaf),
            problem(21, "the board has no CA"),
            *lint.dates(sent[0], leaf, when),
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
        out += lint.form(each, whose, held, ca=number > 0)
        out += lint.odd(each, whose) if not held else []  # of its file that was said
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
            out += lint.extensions(each, whose)
    child, held = taken[-1]
    if held:
        return out
    if len(taken) > _MOST_ABOVE + 1:
        fact = f"the chain has more than {_MOST_ABOVE} certificates above the broker"
        return [*out, problem(33, fact, cure="use a shorter chain")]
    whose = leaf if child is sent[0] else f"the certificate of the CA {reading.name_of(child)}"
    finding = _why_no_parent(child, whose, sent, trusted, known, len(taken) - 1)
    if len(taken) > 1 and child.not_valid_after_utc < (when or certificates.now()):
        # an expired cross-sign: what is above it is of no use any more
        finding = dataclasses.replace(finding, level="remark")
    return [*out, finding]


def _dates_in_chain(certificate, whose, when, held, number):
    out = lint.dates(certificate, whose, when)
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
        if not reading.similar_name(each.subject, child.issuer) or each == child:
            continue
        if not reading.same_name(each.subject, child.issuer) and reading.signed_by(child, each):
            fact = f"{whose} and the CA {issuer} have that name in two types of string"
            return problem(70, fact)
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
            out += [
                _held_ca(one) for one in lint.dates(each, f"the CA {reading.name_of(each)}", when)
            ]
    elif expired:
        fact = f"of the {len(trusted)} CAs of the board {len(expired)} have expired: "
        cause = "a broker below them is refused"
        out.append(remark(54, fact + _names(expired), cause=cause, stage="files"))
    for each in trusted:
        whose = f"the CA {reading.name_of(each)}"
        if each.not_valid_before_utc > when:
            out += lint.dates(each, whose, when)
        if len(trusted) == 1:
            out += lint.form(each, whose, True, ca=True)
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
        found = lint.unreadable(each, whose, ca=True)
        if len(trusted) > 1:
            cure = "take that certificate out of the file: a board reads all of them, or none"
            found = [dataclasses.replace(one, cure=cure) for one in found]
        out += found
    return out
