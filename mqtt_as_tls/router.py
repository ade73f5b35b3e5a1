"""
Topic names and topic filters: what is valid, what matches (MQTT 3.1.1 section 4.7). What else an
app may publish.
"""

from . import load


def wrong(mistake, *args):
    """Raise what the function `mistake` (str) of `argument_errors` returns for `args`."""
    raise getattr(load("argument_errors"), mistake)(*args)


def encode(name):
    """
    Return `name` as UTF-8 bytes; None for what is no text of MQTT (section 1.5.3) or empty, and so
    neither a topic nor a filter.
    """
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    data = name.encode()
    if len(data) != len(name):
        last = 0
        for c in data:  # bytes: MicroPython never frees a character that was taken out of a str
            if last == 0xED and c > 0x9F:  # a surrogate
                return None
            last = c
    return data if len(data) < 65536 else None


def topic(name):
    """
    Return the topic `name` (str) as UTF-8 bytes.

    Raises TypeError when it is no str; ValueError when it is empty, over 65,535 bytes, or has a
    NUL, a surrogate or a wildcard ([MQTT-3.3.2-2], section 4.7.3).
    """
    data = encode(name)
    if not data or "+" in name or "#" in name:
        wrong("topic", name)
    return data


def filter(name):
    """
    Return the topic filter `name` (str, `$share/group/...` too) as UTF-8 bytes.

    Raises TypeError when it is no str; ValueError when it is not valid (sections 4.7.1, 4.7.3).
    """
    data = encode(name)
    if data:
        levels = name.split("/")
        bad = "#" in levels[:-1] or (
            levels[0] == "$share"
            and (len(levels) < 3 or levels[1] in "+" or levels[2:] == [""])  # "" is in it
        )
        for level in levels:
            if len(level) > 1 and ("+" in level or "#" in level):
                bad = True
        if not bad:
            return data
    return wrong("filter", name)


def payload(data):
    """Return a payload (bytes-like or str) as bytes or bytearray. TypeError for anything else."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, memoryview):
        return bytes(data)
    if not isinstance(data, bytearray):
        wrong("payload", data)
    return data


def qos(qos):
    """Return `qos` (int, 0 to 2). Raises ValueError for anything else."""
    if not isinstance(qos, int) or not 0 <= qos < 3:
        wrong("qos", qos)
    return qos


def matches(filter, topic):
    """
    Return whether `topic` (str, valid) is one that `filter` (str, valid) subscribes to.

    A wildcard at the start does not match a topic that begins with $ ([MQTT-4.7.2-1]).
    """
    if filter == topic:
        return True
    shared = filter.startswith("$share/")
    if "+" not in filter and "#" not in filter and not shared:
        return False
    have = topic.split("/")
    want = filter.split("/")
    if shared:
        want = want[2:]
    if topic.startswith("$") and want[0] in "+#":
        return False
    n = len(have)
    for i, level in enumerate(want):
        if level == "#":
            return True  # the parent level too: a/# matches a (section 4.7.1.2)
        if i == n or (level != "+" and level != have[i]):
            return False
    return n == len(want)
