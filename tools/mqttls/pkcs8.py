"""
A private key under a passphrase (PKCS#8, RFC 5958, with PBES2 and PBKDF2, RFC 8018).

`cryptography` writes that, too, but with 2048 rounds of PBKDF2: a PC guesses millions of
passphrases a second at that. What is written here it reads, and so does OpenSSL.
"""

import base64
import contextlib
import hashlib
import math
import os
import re
import textwrap

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from .der_form import content, elements, packed

ROUNDS = 600_000  # of HMAC-SHA256: OWASP's number for passwords (2023)
MOST_ROUNDS = 5_000_000  # some seconds, in which nothing can interrupt it

_CONSTRUCTED = 0x20
_INTEGER, _OCTETS, _NULL, _OID, _SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_SCRYPT = bytes.fromhex("2b06010401da47040b")
_HMAC_SHA256 = bytes.fromhex("2a864886f70d0209")
_AES_256_CBC = bytes.fromhex("60864801650304012a")


def encrypted(key, passphrase):
    """Return a private key as PEM (bytes) that only the `passphrase` (bytes) opens."""
    plain = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    salt, start = os.urandom(16), os.urandom(16)
    secret = hashlib.pbkdf2_hmac("sha256", passphrase, salt, ROUNDS, 32)
    size = 16 - len(plain) % 16
    cipher = Cipher(algorithms.AES(secret), modes.CBC(start)).encryptor()
    data = cipher.update(plain + bytes([size]) * size) + cipher.finalize()
    function = _sequence(
        packed(_OID, _PBKDF2),
        _sequence(
            packed(_OCTETS, salt),
            packed(_INTEGER, ROUNDS.to_bytes(4, "big").lstrip(b"\0")),
            _sequence(packed(_OID, _HMAC_SHA256), packed(_NULL, b"")),
        ),
    )
    scheme = _sequence(packed(_OID, _AES_256_CBC), packed(_OCTETS, start))
    whole = _sequence(
        _sequence(packed(_OID, _PBES2), _sequence(function, scheme)), packed(_OCTETS, data)
    )
    lines = textwrap.wrap(base64.b64encode(whole).decode(), 64)
    name = "ENCRYPTED PRIVATE KEY"
    text = [f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""]
    return "\n".join(text).encode()


def is_weak(pem):
    """Tell whether a key under a passphrase (PEM, bytes) is not as `encrypted` makes it."""
    body = re.search(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----(.+?)-----END", pem, re.DOTALL)
    try:
        der = base64.b64decode(body[1]) if body else b""
    except ValueError:
        return True
    found = re.search(re.escape(packed(_INTEGER, ROUNDS.to_bytes(3, "big"))), der[:200])
    return not found


def rounds(data):
    """
    Return how often what is in `data` (bytes, DER or PEM) has a passphrase hashed, the largest
    number that can be seen (int): of PBKDF2, of PKCS#12's own ways; of scrypt (RFC 7914) the
    product of its cost, block size and parallelization.
    """
    found = re.search(rb"-----BEGIN ENCRYPTED PRIVATE KEY-----(.+?)-----END", data, re.DOTALL)
    with contextlib.suppress(ValueError):
        data = base64.b64decode(found[1]) if found else data
    return _rounds(data, 16)


def _rounds(data, depth):
    # in all of these forms the number stands behind its salt
    most, salted, is_scrypt = 0, False, False
    with contextlib.suppress(ValueError, IndexError):
        for each in elements(data) if depth else ():
            tag, inner = each[0], content(each)
            if tag == _INTEGER and salted:
                most = max(most, int.from_bytes(inner, "big"))
            elif tag == _OID:
                is_scrypt = inner == _SCRYPT
            elif is_scrypt and tag == _SEQUENCE:
                numbers = [content(one) for one in elements(inner) if one[0] == _INTEGER]
                # the fourth would be the length of the key (section 7.1)
                most = max(most, math.prod(int.from_bytes(one, "big") for one in numbers[:3]))
            elif tag == _OCTETS or tag & _CONSTRUCTED:
                most = max(most, _rounds(inner, depth - 1))
                salted = salted or tag == _OCTETS
    return most


def _sequence(*parts):
    return packed(_SEQUENCE, b"".join(parts))
