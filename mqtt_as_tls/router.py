"""Topic names and topic filters: what is valid, what matches (MQTT 3.1.1 section 4.7)."""


def _encode(name, what):
    if not isinstance(name, str):
        raise TypeError("%s: a str, not %s" % (what, type(name).__name__))
    data = name.encode()
    if not data:
        raise ValueError("%s: empty [MQTT-4.7.3-1]" % what)
    if len(data) > 65535:
        raise ValueError("%s: %d bytes, at most 65535 [MQTT-4.7.3-3]" % (what, len(data)))
    if "\0" in name:
        raise ValueError("%s %r: has a NUL character [MQTT-4.7.3-2]" % (what, name))
    if len(data) != len(name):
        for c in name:
            if 0xD800 <= ord(c) < 0xE000:
                raise ValueError("%s %r: has a surrogate [MQTT-1.5.3-1]" % (what, name))
    return data


def topic(name):
    """
    Return the topic `name` (str) as UTF-8 bytes.

    Raises TypeError when it is no str; ValueError when it is empty, over 65,535 bytes, or has a
    NUL, a surrogate or a wildcard ([MQTT-3.3.2-2], section 4.7.3).
    """
    data = _encode(name, "topic")
    if "+" in name or "#" in name:
        raise ValueError("topic %r: + and # are for subscribing only [MQTT-3.3.2-2]" % name)
    return data


def filter(name):
    """
    Return the topic filter `name` (str, `$share/group/...` too) as UTF-8 bytes.

    Raises TypeError when it is no str; ValueError when it is not valid (sections 4.7.1, 4.7.3).
    """
    data = _encode(name, "topic filter")
    levels = name.split("/")
    last = len(levels) - 1
    if levels[0] == "$share" and (
        last < 2 or levels[1] in ("", "+") or (last == 2 and not levels[2])
    ):
        raise ValueError("topic filter %r: write $share/group/filter, any but + as group" % name)
    for i, level in enumerate(levels):
        if "#" in level and (level != "#" or i != last):
            raise ValueError(
                "topic filter %r: # stands alone and last, as in a/# [MQTT-4.7.1-2]" % name
            )
        if "+" in level and level != "+":
            raise ValueError(
                "topic filter %r: + stands for a whole level, as in a/+/b [MQTT-4.7.1-3]" % name
            )
    return data


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
    if topic[0] == "$" and want[0] in ("+", "#"):
        return False
    n = len(have)
    for i, level in enumerate(want):
        if level == "#":
            return True  # the parent level too: a/# matches a (section 4.7.1.2)
        if i == n or (level != "+" and level != have[i]):
            return False
    return n == len(want)
