"""
What a file is that is neither PEM nor DER of what was asked for: a PFX, a PKCS#7, UTF-16, a
signing request, a downloaded page, … and the command that makes of it what boards and brokers
read.
"""

import base64
import binascii
import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from .. import der_form
from ..messages import shell

_SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")  # 1.2.840.113549.1.7.2, PKCS#7
_OF_PKCS12 = bytes.fromhex("06092a864886f70d0107")  # …7.1 or …7.2: what a PFX authenticates
_OLD_CIPHERS = bytes.fromhex("060a2a864886f70d010c01")  # 1.2.840.113549.1.12.1: RC2, RC4, 3DES
_PEM_BEGIN = b"-----BEGIN "

# (what its first bytes are, what the file is, what to do)
_BEGINNINGS = (
    (b"PK\x03\x04", "a ZIP archive", "unpack it, and give the file in it"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it, and give the file in it"),
    (b"Rar!", "a RAR archive", "unpack it, and give the file in it"),
    (b"\x1f\x8b", "a compressed file", "unpack it: gunzip"),
    (b"%PDF", "a PDF", "download the certificate itself"),
    (b"$ANSIBLE_VAULT", "a file that Ansible encrypted", "decrypt it: ansible-vault decrypt"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch what it points to: git lfs pull"),
    (b"[InternetShortcut]", "a link of Windows", "download what it points to"),
    (
        b"PuTTY-User-Key-File",
        "a key of PuTTY, which is for SSH",
        "give the key of the certificate",
    ),
    (b"ssh-", "a public key for SSH", "give the certificate, which begins with BEGIN CERTIFICATE"),
    (b"ecdsa-sha2-", "a public key for SSH", "give the certificate: BEGIN CERTIFICATE"),
    (b"SSL-Session", "a TLS session of openssl", "give the certificate: BEGIN CERTIFICATE"),
    (b"<", "a web page or XML", "download the certificate itself, with `curl -fLO`"),
    (b"{", "JSON", "give the certificate in it as a file of its own, its \\n as line breaks"),
    (b"http", "an address, not what is there", "download the certificate from it"),
)
_KEYSTORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # JKS, JCEKS
_SPECIMEN = "-----BEGIN CERTIFICATE-----"
# a BEGIN line as word processors, chats and tired people write it
_ALMOST_PEM = re.compile(r"[-\u2010-\u2015\u2212=_*#]{1,10} ?BEGIN [A-Z0-9 ]{1,40}", re.IGNORECASE)
_PEM_IN_BASE64 = base64.b64encode(_PEM_BEGIN[:9])  # of a whole number of its groups
# by the label between the dashes of PEM
_LABELS = {
    "PKCS7": "pkcs7",
    "CMS": "pkcs7",
    "CERTIFICATE REQUEST": "request",
    "NEW CERTIFICATE REQUEST": "request",
    "PUBLIC KEY": "public",
    "RSA PUBLIC KEY": "public",
    "OPENSSH PRIVATE KEY": "openssh",
    "SSH2 PUBLIC KEY": "public",
    "X509 CRL": "crl",
    "EC PARAMETERS": "parameters",
    "DH PARAMETERS": "parameters",
    "CERTIFICATE": "certificate",
    "X509 CERTIFICATE": "certificate",
    "TRUSTED CERTIFICATE": "certificate",
    "PRIVATE KEY": "key",
    "RSA PRIVATE KEY": "key",
    "EC PRIVATE KEY": "key",
    "ENCRYPTED PRIVATE KEY": "key",
}


def recognise(path, data, labels=()):
    """
    Return (what the file is, what to do) of `data` (bytes), two str; None for what is not known.

    path    of the file, for commands
    labels  of its PEM blocks, if it has any
    """
    text = _utf16(data)
    if text is not None:
        end = Path(path).suffix or ".pem"
        out = Path(path).with_suffix(f".utf8{end}")
        cure = f"convert it: {shell('iconv', '-f', 'UTF-16', '-t', 'UTF-8', path)} > {shell(out)}"
        if _PEM_BEGIN in text:
            return "text in UTF-16, as PowerShell's > and Notepad write it", cure
        return "text in UTF-16, without a certificate or key", _ITSELF
    if b"\\n" in data and _PEM_BEGIN in data:
        out = Path(path).with_suffix(".unpacked.pem")
        take = shell("sed", "-e", r"s/\\n/\n/g", "-e", r's/["\\]//g', path)
        cure = f"make line breaks of them: {take} > {shell(out)}"
        return "PEM whose line breaks are written out as \\n", cure
    if labels:
        kinds = [_LABELS.get(each) for each in labels]
        for kind in kinds:
            if kind:
                return _described(kind, path, "PEM", data)
        return None
    if data[:4] in _KEYSTORES:
        words = ("-importkeystore", "-srckeystore", path, "-deststoretype", "PKCS12")
        return "a Java keystore", "make a PFX of it: " + shell(
            "keytool", *words, "-destkeystore", _beside(path, ".p12")
        )
    if data[257:262] == b"ustar":
        return "an archive of tar", "unpack it, and give the file in it"
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:64]
    for mark, what, cure in _BEGINNINGS:
        if start.startswith(mark) and (mark != b"http" or b"://" in start):
            return what, cure
    kind = _of_der(data)
    if kind:
        return _described(kind, path, "DER", data)
    if _PEM_IN_BASE64 in data:
        return _twice(path, data)
    packed = b"".join(data.split()).lower()
    if packed.startswith(b"3082") and not packed.strip(b"0123456789abcdef"):
        out = Path(path).with_suffix(".der")
        return "DER in hexadecimal", f"convert it: {shell('xxd', '-r', '-p', path, out)}"
    if _is_base64(data):
        cure = "put the line -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- "
        return "base64 without the lines BEGIN and END", cure + "after it"
    return _text(data)


_ITSELF = f"give the certificate's own file, which begins with {_SPECIMEN} or is binary"


def _text(data):
    """Return (what, cure) of a text that has no PEM, None for what is no text."""
    try:
        text = data.decode("utf-8-sig")
    except ValueError:
        return None
    if not all(each.isprintable() or each in "\t\r\n\f\x1a" for each in text):
        return None
    almost = _ALMOST_PEM.search(text)
    if almost:
        cure = f"write it so, with five hyphens on either side: {_SPECIMEN}; and END alike"
        return f"PEM whose line {almost[0][:40]!r} is not as it must be", cure
    if text.lstrip().startswith("Certificate:"):
        return "what openssl tells about a certificate, without it", _ITSELF
    return "text, neither a certificate nor a private key", _ITSELF


def _twice(path, data):
    """Return (what, cure) of PEM that was made base64 once more, alone or in a larger text."""
    what = "PEM in base64 once more, as Kubernetes keeps it"
    if b"".join(data.split()).startswith(_PEM_IN_BASE64):
        out = _beside(path, ".pem")
        return what, f"make PEM of it: {shell('base64', '-d', path)} > {shell(out)}"
    found = re.search(rb"\b" + _PEM_IN_BASE64 + rb"[A-Za-z0-9+/=]*", data)
    if found is None:
        return None
    take = shell("grep", "-o", f"{_PEM_IN_BASE64.decode()}[A-Za-z0-9+/=]*", path)
    out = shell(_beside(path, ".pem"))
    return what, f"take the right one out of it: {take} | head -1 | base64 -d > {out}"


def _beside(path, ending):
    """Return the path (str) of a new file with `ending` beside `path`, never that one itself."""
    out = Path(path).with_suffix(ending)
    return str(out if out != Path(path) else out.with_suffix(f".new{ending}"))


def wrapped(path, der):
    """
    Return (what the file is, what to do) where the block CERTIFICATE of a PEM file holds `der`,
    which is something else; None where that is not known.
    """
    kind = "pem" if der.startswith(_PEM_BEGIN) else _of_der(der)
    names = {"pfx": "a PFX (PKCS#12)", "pkcs7": "a P7B (PKCS#7)", "key": "a private key"}
    names.update(pem="PEM once more", request="a signing request (CSR)", crl="a CRL")
    if kind not in names:
        return None
    ending = {"pfx": ".p12", "pkcs7": ".p7b", "pem": ".pem"}.get(kind, ".der")
    out = shell(_beside(path, ending))
    strip = shell("tr", "-d", r"\r")
    take = f"{shell('sed', '/-----/d', path)} | {strip} | base64 -d > {out}"
    what = f"{names[kind]} between the lines of a certificate, as `certutil -encode` writes it"
    return what, f"take it out: {take}"


def is_convertible(what):
    """Tell whether `mqttls use` reads what recognise() or wrapped() called `what` (str)."""
    return what.startswith(("a PFX", "a P7B", "text in UTF-16, as", "base64", "PEM "))


def _utf16(data):
    """Return the bytes of a text in UTF-16 as UTF-8, None for what is none."""
    order = "utf-16"
    if data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        if data[:4] == b"-\0-\0":
            order = "utf-16-le"
        elif data[:4] == b"\0-\0-":
            order = "utf-16-be"
        else:
            return None
    return data.decode(order, "replace").encode("utf-8", "replace")


def _of_der(data):
    """Return the kind of what is in DER: "pfx", "pkcs7", "request", "public", "key", or None."""
    if data[:1] != b"\x30":
        return None
    inner = der_form.content(data)
    if inner[:3] == b"\2\1\3" and der_form.content(inner[3:])[:9] == _OF_PKCS12[:9]:
        return "pfx"
    if inner.startswith(_SIGNED_DATA):
        return "pkcs7"
    for load, kind in (
        (x509.load_der_x509_certificate, "certificate"),
        (x509.load_der_x509_csr, "request"),
        (x509.load_der_x509_crl, "crl"),
        (load_der_public_key, "public"),
        (lambda der: load_der_private_key(der, None), "key"),
    ):
        try:
            load(data)
        except TypeError:  # it has a passphrase
            return "key"
        except Exception:  # what is no such thing may raise anything
            continue
        return kind
    return None


def _is_base64(data):
    packed = b"".join(data.split())
    if len(packed) < 100 or not packed.startswith(b"MI"):
        return False
    try:
        return binascii.a2b_base64(packed, strict_mode=True)[:1] == b"\x30"
    except (binascii.Error, TypeError):  # strict_mode is there from Python 3.11 on
        return packed.replace(b"+", b"a").replace(b"/", b"a").rstrip(b"=").isalnum()


def _described(kind, path, form, data):
    """Return (what, cure) of a `kind` in the `form` PEM or DER."""
    inform = ("-inform", "DER") if form == "DER" else ()
    out = _beside(path, ".pem")
    if kind == "pfx":
        legacy = ("-legacy",) if _OLD_CIPHERS in data else ()
        take = shell("openssl", "pkcs12", "-in", path, "-nodes", *legacy, "-out", out)
        old = ", with old ciphers (OpenSSL 3 wants -legacy)" if legacy else ""
        cure = f"take certificate and key out of it, both into {out}: {take}"
        return f"a PFX (PKCS#12): certificate and key under a passphrase{old}", cure
    if kind == "pkcs7":
        command = shell("openssl", "pkcs7", *inform, "-in", path, "-print_certs")
        cure = f"take the certificates out of it: {command} -out {shell(out)}"
        return "a P7B (PKCS#7): certificates in a bag", cure
    return {
        "request": (
            "a signing request (CSR), no certificate",
            "give the certificate that the CA made of it",
        ),
        "public": ("a public key", "give the certificate, and the private key"),
        "openssh": (
            "a private key in OpenSSH's form",
            f"convert it: {shell('ssh-keygen', '-p', '-m', 'PEM', '-f', path)}",
        ),
        "crl": ("a revocation list (CRL)", "give the certificate"),
        "parameters": ("only the parameters of a key, not the key", "give the key's file"),
        "certificate": ("a certificate", "name the other file"),
        "key": ("a private key", "name the other file"),
    }[kind]
