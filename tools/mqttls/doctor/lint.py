"""
Certificates, keys and revocation lists, judged by the rules of the mbedTLS that boards have.

Files are read as the board or mosquitto would read them; nothing is changed. `when` is an aware
datetime, "now" in all but tests.
"""

import dataclasses
import datetime
import ipaddress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from .. import certificates
from ..messages import shell
from . import reading
from .causes import problem, remark
from .peek import BOARD_IN, BOARD_OUT

# Where the clock of a board starts that nobody set (rp2).
UNSET_CLOCK = datetime.datetime(2021, 1, 1, tzinfo=datetime.timezone.utc)

_MOST_ABOVE = 8  # MBEDTLS_X509_MAX_INTERMEDIATE_CA
_MANY_BYTES = 1500

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# What mbedTLS understands of what may be critical (RFC 5280 section 4.2).
_UNDERSTOOD = (
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
)


def day(when):
    """Return the day of a datetime, for messages."""
    return when.strftime("%Y-%m-%d")


def _date(when):
    return when.strftime("%Y-%m-%d %H:%M UTC")


# What a certificate is

# as RFC 5280 calls them (sections 4.2.1 and 4.2.1.12), and algorithms without a hash
_NAMES = {
    ExtensionOID.NAME_CONSTRAINTS: "nameConstraints",
    ExtensionOID.CERTIFICATE_POLICIES: "certificatePolicies",
    ExtensionOID.POLICY_MAPPINGS: "policyMappings",
    ExtensionOID.POLICY_CONSTRAINTS: "policyConstraints",
    ExtensionOID.INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "cRLDistributionPoints",
    ExtensionOID.ISSUER_ALTERNATIVE_NAME: "issuerAltName",
    ExtensionOID.TLS_FEATURE: "TLSFeature",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    x509.SignatureAlgorithmOID.ED25519: "ed25519",
    x509.SignatureAlgorithmOID.ED448: "ed448",
}


def _name_of(oid):
    """Return an x509.ObjectIdentifier for messages: "clientAuth", or its numbers."""
    return _NAMES.get(oid, oid.dotted_string)


def _extension(certificate, kind):
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, KeyError, TypeError):
        return None


def alternative_names(certificate):
    """Return (DNS names, IP addresses), two lists of str, both empty where there is no SAN."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    if names is None:
        return [], []
    dns = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    return list(dns), [str(each) for each in addresses]


def key_name(public):
    """Return what a public key is: "P-256", "RSA 2048", "Ed25519", …"""
    if isinstance(public, ec.EllipticCurvePublicKey):
        names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
        return names.get(public.curve.name, public.curve.name)
    if isinstance(public, rsa.RSAPublicKey):
        return f"RSA {public.key_size}"
    name = type(public).__name__.replace("PublicKey", "").strip("_")
    return {"ED25519": "Ed25519", "ED448": "Ed448"}.get(name.upper(), name)


def public_key(certificate):
    """Return the public key object, or None for a kind that not even the PC knows."""
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None


def is_ca(certificate):
    """Tell whether mbedTLS lets this certificate sign others."""
    if certificate.version == x509.Version.v1:
        return False
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    return bool(constraints and constraints.ca and (usage is None or usage.key_cert_sign))


def signed_by(certificate, issuer):
    """Tell whether the key of `issuer` made the signature of `certificate` (or CRL)."""
    public = public_key(issuer)
    data = getattr(certificate, "tbs_certificate_bytes", None) or certificate.tbs_certlist_bytes
    try:
        if isinstance(public, rsa.RSAPublicKey):
            scheme = getattr(certificate, "signature_algorithm_parameters", None)
            scheme = scheme or padding.PKCS1v15()
            hashed = certificate.signature_hash_algorithm
            public.verify(certificate.signature, data, scheme, hashed)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            hashed = certificate.signature_hash_algorithm
            public.verify(certificate.signature, data, ec.ECDSA(hashed))
        elif public is not None:
            public.verify(certificate.signature, data)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, AttributeError):
        return False
    return True


def size(certificate):
    """Return how many bytes it has as DER."""
    return len(certificates.cert_der(certificate))


def form(certificate, whose):
    """
    Return the findings about what mbedTLS cannot read or trust in a certificate at all.

    whose  str for messages, such as "the broker's certificate"
    """
    out = []
    public = public_key(certificate)
    kind = key_name(public) if public is not None else "of an unknown kind"
    if isinstance(public, rsa.RSAPublicKey):
        if public.key_size < 2048:
            out.append(
                problem(
                    33,
                    f"{whose} has a key of {kind} bits; mbedTLS wants 2048 or more",
                    cure="reissue it with P-256 (or RSA with 2048 bits)",
                )
            )
    elif not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, _CURVES
    ):
        out.append(
            problem(9, f"{whose} has a key {kind}; MicroPython knows P-256, 384, 521 and RSA")
        )
    try:
        hashed = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        hashed = None
    oid = certificate.signature_algorithm_oid
    if oid == x509.SignatureAlgorithmOID.RSASSA_PSS:
        out.append(problem(33, f"{whose} is signed with RSA-PSS, which MicroPython does not have"))
    elif not isinstance(hashed, _HASHES) and certificate.issuer != certificate.subject:
        how = hashed.name.upper() if hashed else _name_of(oid)
        out.append(problem(33, f"{whose} is signed with {how}; mbedTLS wants SHA-256, 384 or 512"))
    try:
        extensions = list(certificate.extensions)
    except (ValueError, KeyError, TypeError, x509.DuplicateExtension) as error:
        out.append(problem(33, f"the extensions of {whose} are damaged ({str(error)[:80]})"))
        extensions = []
    for each in extensions:
        if each.critical and each.oid not in _UNDERSTOOD:
            out.append(problem(33, f"{whose} has a critical extension {_name_of(each.oid)}"))
    return out


def dates(certificate, whose, when=None):
    """Return the findings about the dates of a certificate."""
    when = when or certificates.now()
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if start > when:
        return [problem(13, f"{whose} is valid from {_date(start)} on; now it is {_date(when)}")]
    if end < when:
        return [problem(14, f"{whose} expired on {_date(end)}", cause=f"{whose} has expired")]
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
                f"{whose} expires on {_date(end)}, in {(end - when).days} days",
                cause="it will be refused then",
            )
        )
    return out


def matches(name, certificate):
    """
    Return (bool, bool): does `name` (str, DNS name or IP address) match by the rules of mbedTLS
    since 3.5 (MicroPython 1.23), and by those before, which ignore IP addresses in the SAN.
    """
    dns, addresses = alternative_names(certificate)
    if not dns and not addresses:
        if _extension(certificate, x509.SubjectAlternativeName) is not None:
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
    dns, addresses = alternative_names(certificate)
    if dns or addresses:
        have = ", ".join([*dns, *(f"{each} (IP)" for each in addresses)][:20])
    else:
        have = f"only the common name {reading.name_of(certificate)}"
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
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if purposes is not None and not any(each in allowed for each in purposes):
        have = ", ".join(map(_name_of, purposes))
        out.append(problem(31, f"the broker's certificate is for {have}, not for serverAuth"))
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature and cipher >> 8:
        out.append(problem(11, "the keyUsage of the broker's certificate lacks digitalSignature"))
    return out


# The chain, as mbedtls_x509_crt_verify walks it


def _key_id(certificate, kind):
    value = _extension(certificate, kind)
    digest = getattr(value, "digest", None) or getattr(value, "key_identifier", None)
    return digest.hex() if digest else ""


def chain(sent, trusted, when=None, known=()):
    """
    Return the findings about whether a board that trusts `trusted` accepts the chain `sent`.

    sent     list of x509.Certificate as the broker sends them, its own first
    trusted  list of those that the board has; empty means that it has none
    known    other certificates that were found, to tell a missing intermediate
    """
    out = form(sent[0], "the broker's certificate")
    at, whose, above = sent[0], "the broker's certificate", 0
    if not trusted:
        return [*out, problem(21, "the board has no CA"), *dates(at, whose, when)]
    while above <= _MOST_ABOVE:
        out += dates(at, whose, when)
        if at in trusted and (above or at.issuer == at.subject):
            return out  # a trusted root, or a pinned self-signed broker
        parent = _parent(at, trusted, above) or _parent(at, sent[1:], above)
        if parent is None or parent == at:
            return [*out, _why_no_parent(at, whose, sent, trusted, known)]
        if above:
            whose = f"the CA {reading.name_of(parent)}"
        else:
            whose = f"the certificate of {reading.name_of(parent)}, which signed the broker's,"
        out += form(parent, whose)
        at, above = parent, above + 1
    return [
        *out,
        problem(33, f"the chain has more than {_MOST_ABOVE} certificates above the broker"),
    ]


def _parent(child, candidates, above):
    for each in candidates:
        if each.subject == child.issuer and is_ca(each) and signed_by(child, each):
            limit = _extension(each, x509.BasicConstraints).path_length
            if limit is None or limit >= above:
                return each
    return None


def _why_no_parent(child, whose, sent, trusted, known):
    issuer = reading.issuer_of(child)
    names = ", ".join(sorted({reading.name_of(each) for each in trusted}))
    wanted = _key_id(child, x509.AuthorityKeyIdentifier)
    for each in [*trusted, *sent[1:]]:
        if each.subject != child.issuer or each == child:
            continue
        if signed_by(child, each):
            if not is_ca(each):
                missing = "keyCertSign" if _says_ca(each) else "CA:TRUE"
                return problem(18, f"{reading.name_of(each)} signed {whose}, but has no {missing}")
            return problem(
                18,
                f"the path length of the CA {reading.name_of(each)} forbids the CA below it",
                cause="the CA's certificate allows fewer CAs below it than there are",
            )
    for each in trusted:
        if each.subject == child.issuer:
            have = _key_id(each, x509.SubjectKeyIdentifier) or "none"
            return problem(
                17,
                f"the board has another CA named {issuer}: key id {have[:16]}, while {whose} is "
                f"signed by {wanted[:16] or 'an unnamed one'}",
            )
    for each in known:
        if each.subject == child.issuer and signed_by(child, each) and each not in trusted:
            above = [other for other in trusted if other.subject == each.issuer]
            if any(signed_by(each, other) for other in above):
                return problem(
                    19,
                    f"{whose} is signed by the intermediate {issuer}, which the broker does not "
                    f"send, and that one by {reading.name_of(above[0])}",
                )
    if child.issuer == child.subject and child is not sent[0]:
        return problem(17, f"the broker's chain ends at the CA {issuer}; the board trusts {names}")
    if child.issuer == child.subject:
        return problem(17, f"{whose} is signed by itself ({issuer}); the board trusts {names}")
    return problem(
        17,
        f"{whose} is signed by {issuer}; the board trusts {names}",
        cause="the board trusts another CA than the one that signed the broker's certificate, or "
        "the broker does not send the intermediate certificate",
        cure=f"put the CA {issuer} on the board (mqttls provision); or, if {issuer} is below "
        f"{names}, append its certificate to the broker's certfile",
    )


def _says_ca(certificate):
    constraints = _extension(certificate, x509.BasicConstraints)
    return bool(constraints and constraints.ca)


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


# The device's side


def client(certificate, private, authorities=(), crls=(), when=None):
    """
    Return the findings about the certificate that a device shows.

    private      Key, or None to leave the pair unchecked
    authorities  CAs (x509.Certificate) that the broker takes clients from; empty: unknown
    crls         lists (x509.CertificateRevocationList) that the broker reads
    """
    name = reading.name_of(certificate)
    whose = f"the client certificate of {name}"
    out = [
        dataclasses.replace(each, stage="client certificate")
        for each in (*form(certificate, whose), *dates(certificate, whose, when))
        if each.row != 12
    ]
    for at, each in enumerate(out):
        if each.row in (13, 14) and each.level == "problem":
            out[at] = dataclasses.replace(each, row=25)
    if private is not None and not is_pair(certificate, private.private):
        out.append(problem(27, f"the key does not belong to {whose}"))
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    allowed = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    if purposes is not None and not any(each in allowed for each in purposes):
        have = ", ".join(map(_name_of, purposes))
        fact = f"{whose} is for {have}, not for clientAuth"
        out.append(problem(25, fact, cure="reissue it with extendedKeyUsage clientAuth"))
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        fact = f"the keyUsage of {whose} lacks digitalSignature"
        out.append(problem(25, fact, cure="reissue it with keyUsage digitalSignature"))
    if authorities and not any(
        each.subject == certificate.issuer and signed_by(certificate, each) for each in authorities
    ):
        names = ", ".join(sorted({reading.name_of(each) for each in authorities}))
        issuer = reading.issuer_of(certificate)
        fact = f"{whose} is from {issuer}; the broker takes those from {names}"
        out.append(
            problem(25, fact, cure="issue it from the broker's CA, or add its CA to cafile")
        )
    for each in crls:
        out += revoked(each, certificate, when)
    if crls and all(each.issuer != certificate.issuer for each in crls):
        issuer = reading.issuer_of(certificate)
        fact = f"the broker's CRL file has no list of {issuer}, which issued {whose}"
        cause = f"a broker with a crlfile refuses clients of a CA without a list: {issuer}"
        cure = f"append the list of {issuer} to it (mqttls renew)"
        out.append(problem(26, fact, cause=cause, cure=cure))
    if size(certificate) + 10 > BOARD_OUT:
        fact = f"{whose} has {size(certificate)} bytes; a board sends 4096 at most"
        out.append(problem(32, fact, stage="client certificate"))
    return out


def is_pair(certificate, private):
    """Tell whether a private key is that of the certificate; True where nobody can know."""
    if public_key(certificate) is None:
        return True
    return certificates.belongs(certificate, private)


def revoked(crl, certificate, when=None):
    """Return the findings when `certificate` is on the list `crl`."""
    if crl.issuer != certificate.issuer:
        return []
    entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    if entry is None:
        return []
    fact = f"the client certificate of {reading.name_of(certificate)} was revoked on "
    fact += day(entry.revocation_date_utc)
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
        )
    lists, out = [], []
    for der in ders[: reading.MOST_CERTIFICATES]:
        try:
            lists.append(x509.load_der_x509_crl(der))
        except ValueError as error:
            fact = f"{path} is damaged ({str(error)[:80]})"
            raise reading.wrong(
                stage, fact, "rebuild it (mqttls revoke, mqttls renew)", 26
            ) from None
    if not lists:
        raise reading.wrong(
            stage, f"{path} has no revocation list", "rebuild it (mqttls renew)", 26
        )
    for each in lists:
        name = each.issuer.rfc4514_string()
        end = each.next_update_utc
        if end is not None and end < when:
            out.append(problem(26, f"{path}: the list of {name} expired on {_date(end)}"))
        elif end is not None and end < when + datetime.timedelta(days=30):
            fact = f"{path}: the list of {name} expires on {_date(end)}"
            out.append(remark(26, fact, cause="after that the broker refuses every client"))
        if each.last_update_utc > when:
            fact = f"{path}: the list of {name} is valid from {_date(each.last_update_utc)} on"
            out.append(problem(26, fact, cause="the broker refuses every client until then"))
        signers = [ca for ca in authorities if ca.subject == each.issuer]
        if signers and not any(signed_by(each, ca) for ca in signers):
            fact = f"{path}: the list of {name} is signed with another key than that CA's"
            out.append(problem(26, fact, cause="the CRL is of an older CA with the same name"))
    return lists, out


def device_key(private, path):
    """Return the findings about the form of a device's key; `path` for messages."""
    out = []
    kind = key_name(private.private.public_key())
    if not isinstance(private.private, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        out.append(problem(9, f"{path} is a key {kind}", stage="files", cure="make a P-256 key"))
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
    loaded = reading.certificates(path)
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
        if size(each) > _MANY_BYTES and what == "ca":
            fact = f"{path} has {size(each)} bytes: the CA takes that of the board's memory"
            out.append(remark(34, fact, cause="each certificate is kept in memory", stage="files"))
    return loaded, out
