"""What DER is made of (X.690 section 8.1): elements with a tag, a length and a content."""


def _head(der):
    """Return (length of its head, length of its content) as the first element in `der` says."""
    size, head = der[1] if len(der) > 1 else 0, 2
    if size > 127:
        head = 2 + (size & 127)
        size = int.from_bytes(der[2:head], "big")
    return head, size


def element(der):
    """Return (head, content, rest) of the first element in `der`; ValueError where it is cut."""
    head, size = _head(der)
    if len(der) < head + size or not der:
        raise ValueError("cut off")
    return der[:head], der[head : head + size], der[head + size :]


def elements(data):
    """Return all elements in `data` (list of bytes); ValueError where one is cut."""
    out = []
    while data:
        head, inner, data = element(data)
        out.append(head + inner)
    return out


def packed(tag, data):
    """Return an element of the tag `tag` (int) with `data` (bytes) as its content."""
    size = len(data)
    if size < 128:
        return bytes((tag, size)) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 128 | len(length))) + length + data


def dotted(body):
    """Return the content of an OBJECT IDENTIFIER as dotted numbers (str)."""
    numbers, value = [], 0
    for byte in body:
        value = value << 7 | byte & 127
        if byte < 128:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2) if numbers else 0
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]])) if numbers else ""


def element_size(data):
    """
    Return how many of the bytes in `data` its first element takes (X.690 section 8.1.3); all of
    them where that is cut off, or has the indefinite form.
    """
    if len(data) < 2 or data[1] == 128:
        return len(data)
    return min(sum(_head(data)), len(data))


def split(data, between=b"\r\n", most=1000):
    """
    Return the elements in `data` (bytes), one after the other, `most` at most; the last is the
    rest when a length is wrong.

    between  bytes that may stand between them
    """
    out = []
    while data and len(out) < most:
        size = element_size(data)
        out.append(data[:size])
        data = data[size:].lstrip(between)
    return out


def content(der):
    """Return what follows the head of the first element in `der` (bytes), however long."""
    if len(der) < 2:
        return b""
    return der[2 + (der[1] & 127 if der[1] > 127 else 0) :]
