"""
Certificates and keys for a TLS context, from PEM or DER. Loaded when a TLS is made, and unloaded
then.
"""

import sys
from binascii import a2b_base64

from micropython import const

from . import load

_CERTIFICATE = const(b"CERTIFICATE")
_KEY = const(b"PRIVATE KEY")
_BEGIN = const(b"-----BEGIN ")

# How a public key begins in DER, in a certificate and in its key alike: P-256, P-384, P-521, RSA
# of 2048, 3072, 4096 bits.
_PUBLIC = const(
    (
        b"\x03B\0\x04",
        b"\x03b\0\x04",
        b"\x03\x81\x86\0\x04",
        b"\x02\x82\x01\x01\0",
        b"\x02\x82\x01\x81\0",
        b"\x02\x82\x02\x01\0",
    )
)

# How the validity of a certificate begins: a SEQUENCE of two times, each UTCTime (23) or
# GeneralizedTime (24)
_VALIDITY = const((b"0\x1e\x17\r", b"0 \x17\r", b'0"\x18\x0f'))


def _wrong(name, problem, detail=None):
    return load("argument_errors").file(name, problem, detail)


def _load(what, source, label, use=None):
    # Call `use` with the DER of each `label` in `source` and return the name of `source` for
    # messages; without `use` return the name and the first DER. One by one, because mbedTLS reads
    # only the first of several in DER; as DER, because releases up to 1.28 read nothing else.
    name = what
    if isinstance(source, str):
        if "-----B" in source:
            source = source.encode()
        else:
            try:
                with open(source, "rb") as file:
                    name += " " + source
                    source = file.read()
            except (OSError, ValueError) as error:  # ValueError: a NUL in it
                raise _wrong(what, "open", (source, error))
    elif not isinstance(source, (bytes, bytearray, memoryview)):
        raise _wrong(what, "type", source)
    data = bytes(source)
    problem = "cut"
    found = False
    at = max(data.find(_BEGIN), 0)
    try:
        while 0 <= at < len(data):
            if data[at] == 45:  # "-": PEM
                head = data.index(b"-----", at + 11)
                end = data.index(b"-----END ", head + 5)
                encrypted = b"ENCRYPTED" in data[at:end]
                at = data.find(_BEGIN, end)
                if not data[:head].endswith(label):
                    continue
                if encrypted:
                    problem = "encrypted"
                    raise ValueError
                der = a2b_base64(data[head + 5 : end])
            else:
                # Each element begins with its length (X.690 section 8.1.3).
                head = at + 2
                size = data[at + 1]
                if size > 127:
                    head += size & 3  # no file of a board is larger
                    size = int.from_bytes(data[at + 2 : head], "big")
                # A key begins with its version, an INTEGER; a certificate, an encrypted key don't.
                if data[at] != 48 or (data[head] == 2) != (label == _KEY):
                    problem = "der"
                    raise ValueError
                der = data[at : head + size]
                at = head + size
                if at > len(data):
                    raise ValueError
            if not use:
                return name, der
            found = True
            problem = "read"
            use(der)
            problem = "cut"
        if not found:
            problem = "find" if data else "empty"
            raise ValueError
    except (ValueError, IndexError):
        raise _wrong(name, problem, label.decode())
    return name


def _end(der):
    # of a certificate: notAfter, with its century (RFC 5280 section 4.1.2.5)
    for head in _VALIDITY:
        at = der.find(head) + 4
        if at > 3:
            at += der[at - 1]
            text = der[at + 2 : at + 2 + der[at + 1]].decode()
            return text if len(text) > 13 else "20" + text
    return None


def _listed(source):
    return source if isinstance(source, (list, tuple)) else (source,)


def fill(context, ca, cert, key, server_hostname):
    """
    Give an SSLContext of a client whom it trusts and who it is, as TLS takes them.

    ca  of no meaning where the context verifies nothing

    Returns whether the key is of RSA (bool), and when our certificate ends (str, see TLS; None).

    Raises ValueError and TypeError: see TLS.
    """
    if server_hostname is not None and not isinstance(server_hostname, str):
        raise _wrong("server_hostname", "name", server_hostname)
    if sys.implementation[1] < (1, 25):
        raise _wrong("MicroPython", "old")
    verifies = context.verify_mode
    if verifies and not ca:
        raise _wrong("no ca", "ca")
    if (cert is None) != (key is None):
        raise _wrong("cert and key", "pair")
    for source in _listed(ca) if verifies else ():
        _load("ca", source, _CERTIFICATE, context.load_verify_locations)
    if cert is None:
        return False, None
    chain = []
    for source in _listed(cert):
        name = _load("cert", source, _CERTIFICATE, chain.append)
    key_name, key = _load("key", key, _KEY)
    for mark in _PUBLIC:
        at = key.find(mark)
        if not 0 <= at < 199:
            continue
        # mbedTLS takes any two, and then the broker hangs up; it sends them as they were loaded.
        own = [each for each in chain if key[at : at + 60] in each]
        if not own:
            raise _wrong(key_name, "key", name)
        chain.remove(own[0])
        chain.insert(0, own[0])
    try:
        for each in chain:  # one by one: of several in one call it takes the first
            context.load_cert_chain(each, key)
    except ValueError:
        raise _wrong(name + ", " + key_name, "read")
    return len(key) > 500, _end(chain[0])
