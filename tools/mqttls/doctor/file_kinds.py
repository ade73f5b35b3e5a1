"""
What a file is that is neither PEM nor DER of what was asked for: a PFX, a PKCS#7, UTF-16, a
signing request, a downloaded page, … and the command that makes of it what boards and brokers
read.
"""

import binascii
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
    (b"\xfe\xed\xfe\xed", "a Java keystore", "keytool -importkeystore makes a PFX of it"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it, and give the file in it"),
    (b"\x1f\x8b", "a compressed file", "unpack it: gunzip"),
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
        return "text in UTF-16, without a certificate or key", cure
    if b"\\n" in data and _PEM_BEGIN in data:
        out = Path(path).with_suffix(".unpacked.pem")
        take = shell("sed", r"s/\\n/\n/g", path)
        cure = f"make line breaks of them: {take} > {shell(out)}"
        return "PEM whose line breaks are written out as \\n", cure
    if labels:
        kinds = [_LABELS.get(each) for each in labels]
        for kind in kinds:
            if kind:
                return _described(kind, path, "PEM", data)
        return None
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:64]
    for mark, what, cure in _BEGINNINGS:
        if start.startswith(mark) and (mark != b"http" or b"://" in start):
            return what, cure
    kind = _of_der(data)
    if kind:
        return _described(kind, path, "DER", data)
    packed = b"".join(data.split()).lower()
    if packed.startswith(b"3082") and not packed.strip(b"0123456789abcdef"):
        out = Path(path).with_suffix(".der")
        return "DER in hexadecimal", f"convert it: {shell('xxd', '-r', '-p', path, out)}"
    if _is_base64(data):
        cure = "put the line -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- "
        return "base64 without the lines BEGIN and END", cure + "after it"
    return None


def is_convertible(what):
    """Tell whether `mqttls use` reads what recognise() called `what` (str)."""
    return what.startswith(("a PFX", "a P7B", "text in UTF-16, as", "base64"))


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
    stem = Path(path).with_suffix("")
    if kind == "pfx":
        legacy = ("-legacy",) if _OLD_CIPHERS in data else ()
        out = f"{stem}.pem"
        take = shell("openssl", "pkcs12", "-in", path, "-nodes", *legacy, "-out", out)
        old = ", with old ciphers (OpenSSL 3 wants -legacy)" if legacy else ""
        cure = f"take certificate and key out of it, both into {out}: {take}"
        return f"a PFX (PKCS#12): certificate and key under a passphrase{old}", cure
    if kind == "pkcs7":
        command = shell("openssl", "pkcs7", *inform, "-in", path, "-print_certs")
        cure = f"take the certificates out of it: {command} -out {shell(f'{stem}.pem')}"
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
