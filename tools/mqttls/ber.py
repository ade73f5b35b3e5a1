"""
Certificates in BER that are not DER (X.690 sections 8, 10 and 11): OpenSSL and keystores read
them, mbedTLS and `cryptography` read some of that or nothing.
"""

from .der_form import elements, packed

PIECES = "a string in pieces"
_LENGTH = "a length with more bytes than it needs"
_NOT_BOOLEAN = "a BOOLEAN that is neither 0 nor 255"
_LONG_INTEGER = "an INTEGER with more bytes than it needs"
_TAKEN = {_LENGTH, _NOT_BOOLEAN, _LONG_INTEGER}  # by mbedTLS, and by OpenSSL
_DEEPEST = 30
_MOST_BYTES = 1 << 20
_STRINGS = {3, 4, 12, 18, 19, 20, 21, 22, 25, 26, 27, 28, 30}  # universal tags of strings
_BITS, _BOOLEAN, _INTEGER, _UTC, _TIME = 3, 1, 2, 0x17, 0x18


def certificate(der):
    """
    Return (what, DER) of a certificate in BER: what is not DER in it (str), and the same in DER,
    b"" where what is signed would be changed by that; ("", b"") for what is no BER, or DER.
    """
    if len(der) > _MOST_BYTES:
        return "", b""
    try:
        faults = []
        whole, _ = _element(der, 0, faults)
        signed = []
        inner, _ = _head(der)
        _element(der[inner:], 0, signed)
        parts = len(elements(elements(whole)[0][_head(whole)[0] :]))
    except (ValueError, IndexError, RecursionError):
        return "", b""
    if not faults or parts != 3 or der[0] != 0x30:
        return "", b""
    return (signed or faults)[0], b"" if signed else whole


def read_by_boards(der):
    """
    Return (what, DER) of a certificate that is no DER in ways that mbedTLS does not mind: what
    that is (str), and how it is written in DER, in which no signature counts any more; ("", b"")
    for all others.
    """
    if len(der) > _MOST_BYTES:
        return "", b""
    faults = []
    try:
        whole, size = _element(der, 0, faults)
        whole = _with_values(whole, faults)
    except (ValueError, IndexError, RecursionError):
        return "", b""
    if not faults or size != len(der) or not set(faults) <= _TAKEN:
        return "", b""
    return faults[0], whole


def _with_values(whole, faults):
    # an extension is a SEQUENCE whose last element has its value, an element again
    tbs, *others = elements(whole[_head(whole)[0] :])
    fields = elements(tbs[_head(tbs)[0] :])
    for at, field in enumerate(fields):
        if field[:1] == b"\xa3":
            listed = field[_head(field)[0] :]
            values = [_value(each, faults) for each in elements(listed[_head(listed)[0] :])]
            fields[at] = packed(0xA3, packed(0x30, b"".join(values)))
    return packed(0x30, packed(0x30, b"".join(fields)) + b"".join(others))


def _value(extension, faults):
    *first, value = elements(extension[_head(extension)[0] :])
    body, more = value[_head(value)[0] :], []
    try:
        inner, size = _element(body, 0, more)
    except (ValueError, IndexError, RecursionError):
        return extension
    if size != len(body) or not more:
        return extension
    faults += more
    return packed(0x30, b"".join(first) + packed(4, inner))


def _head(data):
    """Return (bytes of the head, bytes of the content or -1 where the form is indefinite)."""
    if data[0] & 31 == 31:
        raise ValueError("a tag of several bytes")
    size = data[1]
    if size < 128:
        return 2, size
    count = size & 127
    if not count:
        return 2, -1
    if count > 4 or len(data) < 2 + count:
        raise ValueError("a length of several bytes")
    return 2 + count, int.from_bytes(data[2 : 2 + count], "big")


def _element(data, depth, faults):
    """Return (the first element in `data` as DER, its bytes in `data`); ValueError, IndexError."""
    if depth > _DEEPEST:
        raise ValueError("too deep")
    tag, (head, size) = data[0], _head(data)
    if size < 0:
        if not tag & 32:
            raise ValueError("an end is missing")
        faults.append("a length of the indefinite form")
        parts, used = _until_end(data, head, depth, faults)
    else:
        used = head + size
        if used > len(data):
            raise ValueError("cut off")
        if head != len(packed(0, bytes(size))) - size:
            faults.append(_LENGTH)
        if not tag & 32:
            return packed(tag, _plain(tag, data[head:used], faults)), used
        parts, at = [], head
        while at < used:
            part, more = _element(data[at:used], depth + 1, faults)
            parts.append(part)
            at += more
    if tag < 64 and tag & 31 in _STRINGS:
        faults.append(PIECES)
        return packed(tag & 31, _joined(tag & 31, parts)), used
    return packed(tag, b"".join(parts)), used


def _until_end(data, at, depth, faults):
    parts = []
    while data[at : at + 2] != b"\0\0":
        part, more = _element(data[at:], depth + 1, faults)
        parts.append(part)
        at += more
    return parts, at + 2


def _joined(tag, parts):
    bodies = [each[_head(each)[0] :] for each in parts]
    if tag == _BITS and bodies:  # the first byte of each says how many bits of the last are none
        return bodies[-1][:1] + b"".join(each[1:] for each in bodies)
    return b"".join(bodies)


def _plain(tag, body, faults):
    if tag == _BOOLEAN and body not in (b"\0", b"\xff"):
        faults.append(_NOT_BOOLEAN)
        return b"\xff"
    if tag == _INTEGER and len(body) > 1 and body[0] in (0, 255) and body[0] >> 7 == body[1] >> 7:
        faults.append(_LONG_INTEGER)
        sign = body[0]
        while len(body) > 1 and body[0] == sign and body[1] >> 7 == sign >> 7:
            body = body[1:]
    elif tag in (_UTC, _TIME) and (len(body) != (13 if tag == _UTC else 15) or body[-1:] != b"Z"):
        faults.append("a time without seconds, or in a time zone")
    return body
