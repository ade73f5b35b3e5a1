"""
Who may use which topics: what devices were given, lines of one's own, and how mosquitto 2 reads
them (its manual, mosquitto.conf(5), "acl_file").
"""

from .files import SETTINGS
from .messages import Failure
from .names import is_device_name

OWN = "acl.own"  # in the folder: what `broker-conf --acl-file` was given
NONE = "none"
MOST = 32  # topics that a device is given
LONGEST = 256  # bytes of one

_ACCESS = ("read", "write", "readwrite")
_MOST_BYTES = 1024 * 1024

_ALL = """\
# Written by mqttls. A device NAME may use the topics devices/NAME/…, and what is said below.
pattern readwrite devices/%u/#
"""

_ADMIN = """
# mqttls device add {name} --admin
user {name}
topic readwrite #
topic read $SYS/#
"""

# It subscribes and no more: what every device may do with topics of its own is taken away
_MONITOR = """
# mqttls device add {name} --monitor
user {name}
topic deny devices/{name}/#
topic read devices/#
"""

_MORE = """
# mqttls device add {name} --topics …
user {name}
{topics}"""

_OF_ONES_OWN = """
# mqttls broker-conf --acl-file …
"""


def rules(texts):
    """
    Return what a device is given (list of str, such as "read weather/#"), as its settings have it.

    texts  list of str: topic filters, each after "read:", "write:" or "readwrite:", which is what
           it is without; or ["none"]

    Raises ValueError, with a sentence, for what is no topic filter, or when there are too many.
    """
    texts = list(texts)
    if texts == [NONE]:
        return []
    found = list(dict.fromkeys(_rule(each) for each in texts))
    if len(found) > MOST:
        raise ValueError(f"{len(found)} topics are more than the {MOST} that a device may have")
    return found


def given(settings):
    """
    Return what devices were given: {name: list of rules}.

    settings  dict of settings.json

    Raises Failure when that is damaged: nothing else may get into the ACL.
    """
    found = settings.get("topics", {})
    try:
        whole = all(
            is_device_name(name) and rules(map(_asked, own)) == own for name, own in found.items()
        )
    except (AttributeError, TypeError, ValueError):
        whole = False
    if not whole:
        raise Failure(
            f"{SETTINGS} is damaged: `topics` is not what mqttls writes",
            "put it back from a backup of the folder",
            stage="files",
        )
    return dict(found)


def monitors(settings):
    """Return the names (list) of those that see how all boards are, and may publish nothing."""
    return settings.get("monitors", [])


def _asked(rule):
    return rule.replace(" ", ":", 1)


def _rule(text):
    access, colon, topic = text.partition(":")
    if not colon or access not in _ACCESS:
        access, topic = "readwrite", text
    why = _bad_filter(topic)
    if why:
        raise ValueError(f"{topic!r} is no topic that a device can be given: {why}")
    return f"{access} {topic}"


def _bad_filter(topic):
    """Return why a line of the ACL cannot have the topic filter `topic` (str), "" if it can."""
    if not topic:
        return "it is empty"
    if not topic.isprintable():
        return "it has characters that cannot be printed"
    if len(topic.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if topic != topic.strip():
        return "mosquitto drops spaces at its ends"
    levels = topic.split("/")
    if levels[0] == "$share":
        return "rights are for the topic after $share/GROUP/"
    if any(len(each) > 1 and ("+" in each or "#" in each) for each in levels):
        return "+ and # stand alone between slashes"
    return "# comes last" if "#" in levels[:-1] else ""


def own_lines(data, path):
    """
    Return the text (str) of a file of one's own with lines of an ACL.

    data  its content (bytes); path  of it, for messages

    Raises Failure that lists what mosquitto would stumble over, with line numbers.
    """
    cure = "correct it, then run the same command again; nothing was changed"
    fact = None
    if len(data) > _MOST_BYTES:
        fact = f"{path} is longer than {_MOST_BYTES} bytes"
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        fact = f"{path} is not UTF-8 (byte {error.start})"
    if fact:
        raise Failure(fact, cure, stage="files")
    lines = [each.rstrip() for each in text.split("\n")]
    bad, user = [], False
    for number, line in enumerate(lines, 1):
        why = _bad_line(line, user)
        if why:
            bad.append(f"line {number}: {why}")
        user = user or line.startswith("user ")
    if bad:
        more = [f"… and {len(bad) - 10} more"] if len(bad) > 10 else []
        fact = f"{path} is no ACL for mosquitto:"
        raise Failure(fact, cure, stage="files", lines=bad[:10] + more)
    return "\n".join(lines).strip("\n") + "\n"


def _bad_line(line, user):
    """Return what is wrong with a line of an ACL, "" if nothing; `user`: one came before it."""
    if not line or line.startswith("#"):
        return "" if line.replace("\t", " ").isprintable() else "characters that cannot be printed"
    if not line.isprintable():
        return "a tab, or another character that cannot be printed: use spaces"
    word, _, rest = line.partition(" ")
    rest = rest.strip()
    if word not in ("user", "topic", "pattern"):
        return f"{word[:40]!r}: it begins with user, topic, pattern or #"
    if not rest:
        return f"nothing after {word}"
    if word == "user":
        return ""
    if word == "topic" and not user:
        return (
            "a topic without a user above it is for clients without a name, whom this broker "
            "does not let in: put `user NAME` before it, or write pattern"
        )
    access, space, topic = rest.partition(" ")
    if not space:
        access, topic = "readwrite", rest
    elif access not in (*_ACCESS, "deny"):
        return f"{access[:40]!r}: it is read, write, readwrite or deny"
    why = _bad_filter(topic.strip())
    return f"{topic.strip()[:40]!r}: {why}" if why else ""


def text(settings, own=""):
    """
    Return the text of the broker's ACL.

    settings  dict of settings.json: `admins`, `monitors`, `topics`
    own       lines of one's own, as own_lines returns them; they come last, so that a `user` of
              theirs takes no rule that is not theirs
    """
    out = _ALL
    for name, topics in sorted(given(settings).items()):
        lines = "".join(f"topic {each}\n" for each in topics)
        out += _MORE.format(name=name, topics=lines)
    out += "".join(_ADMIN.format(name=each) for each in sorted(settings["admins"]))
    out += "".join(_MONITOR.format(name=each) for each in sorted(monitors(settings)))
    return out + (_OF_ONES_OWN + own if own else "")


def allows(acl, access, topic, user, client_id):
    """
    Tell whether mosquitto with the text `acl` lets a client do something.

    access     "write": publish to the topic, "read": receive what is published there
    topic      str, without wildcards
    user       its user name (str), or None
    client_id  str
    """
    own, patterns = _parsed(acl, user)
    if _decides(own, access, topic) is not None:
        return _decides(own, access, topic)
    names = (user or "") + client_id
    if any(each in names for each in "+#"):
        return False  # such a name could reach into the topics of others
    for pattern in patterns:
        pattern[1] = pattern[1].replace("%c", client_id)
        if "%u" in pattern[1]:
            pattern[1] = pattern[1].replace("%u", user) if user else None
    return bool(_decides([each for each in patterns if each[1]], access, topic))


def _parsed(acl, user):
    """Return the lists of [access, filter] of a user and of all patterns in the text of an ACL."""
    own, patterns, here = [], [], None
    for line in acl.splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "user":
            here = rest
        elif word in ("topic", "pattern") and rest:
            access, space, topic = rest.partition(" ")
            rule = [access, topic.strip()] if space else ["readwrite", rest]
            if word == "pattern":
                patterns.append(rule)
            elif here == user:
                own.append(rule)
    return own, patterns


def _decides(found, access, topic):
    """Return True or False where the rules `found` allow or deny it, None where none does."""
    hits = {each[0] for each in found if _matches(each[1], topic)}
    if "deny" in hits:
        return False
    return True if hits & {access, "readwrite"} else None


def _matches(pattern, topic):
    """Tell whether a topic filter matches `topic` (3.1.1 section 4.7)."""
    if topic.startswith("$") != pattern.startswith("$"):
        return False
    levels, names = pattern.split("/"), topic.split("/")
    for at, level in enumerate(levels):
        if level == "#":
            return True
        if at >= len(names) or level not in ("+", names[at]):
            return False
    return len(levels) == len(names)
