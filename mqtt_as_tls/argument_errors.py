"""
The caller's mistakes in words: what is wrong and what to do. Imported when one was made.
"""

_ANEW = "; after Ctrl-C call asyncio.new_event_loop()"
_FIVE = (
    "properties auth reason topic_aliases request respond no_local retain_as_published"
    " retain_handling"
)
_LONG = 40  # characters of a topic that are shown
_SMALL = 10_000_000  # an int: a password of Wi-Fi has 8 digits and more
# Files of which the path is shown, though there is none; what else cannot be opened may be a key
_FILES = " .pem .crt .cer .cert .der .key .p7b .p8 .p12 .pfx .txt .bin "
# what a path may have that is shown; all but the last one, a host name
PATH = "abcdefghijklmnopqrstuvwxyz0123456789-_./"


def shown(value):
    """
    Return what `value` is, in words: a small number itself, of all else type and length, as it
    may be a secret that stands in the wrong place.
    """
    is_small = isinstance(value, int) and abs(value) < _SMALL
    if not value or is_small or isinstance(value, (bool, float)):
        return repr(value)
    what = "a " + type(value).__name__
    try:
        return "%s of %d" % (what, len(value))
    except TypeError:
        return what


def quoted(name):
    """Return `name` (str), a topic or the like, in quotes; of one as long as a key, its length."""
    return repr(name) if len(name) <= _LONG else shown(name)


def path(name, folder=False):
    """
    Return the path `name` (str) of a file, or of a `folder`, for messages if that is what it is,
    else what it may be.
    """
    low = name.lower()
    known = folder or " %s " % low[low.rfind(".") :] in _FILES
    if known and len(low) < 100 and not low.strip(PATH):
        return name
    return "%s, no path of a file" % shown(name)


def payload(value, what="payload"):
    """Return the TypeError for the argument `what` (str), which is no payload."""
    why = "" if what == "password" else ": str(value) or json.dumps(value) makes one"
    return TypeError("%s: bytes-like or str, not %s%s" % (what, type(value).__name__, why))


def qos(value):
    """Return the ValueError for a QoS that is none."""
    return ValueError("qos %s: 0, 1 or 2" % shown(value))


def properties(value):
    """Return the TypeError for properties that are none."""
    return TypeError(
        "properties: a dict, or a list of pairs (name, value), not %s" % type(value).__name__
    )


def property(name):
    """Return the ValueError for the name of a property that MQTT 5 does not have."""
    name = quoted(name) if isinstance(name, str) else shown(name)
    return ValueError("no property of MQTT 5 is %s" % name)


def property_value(name, what, value):
    """Return the TypeError for the property `name` (str), which is `what` (str), not `value`."""
    return TypeError("property %s: %s, not %s" % (name, what, shown(value)))


def code(value, name, packet):
    """Return the ValueError for the reason code `name` (str), which is none of `packet` (str)."""
    return ValueError("%s %s is none of %s" % (name, shown(value), packet))


def auth(value):
    """Return the TypeError for an `auth` that is none."""
    return TypeError("auth: (method str, step function), not %s" % shown(value))


def request(value):
    """Return the TypeError for what is no message that respond() could answer."""
    return TypeError("respond: the Message of a request, not %s" % shown(value))


def size(value, limit, name):
    """Return the ValueError for a message of `value` bytes, where option `name` is `limit`."""
    return ValueError(
        "message of %d bytes, %s is %d: raise %s or send less" % (value, name, limit, name)
    )


def full(value):
    """Return the ValueError for enqueue(full=value)."""
    return ValueError(
        "full %s: newest or oldest; with a store, FileStore(full=...) alone" % shown(value)
    )


def waiting(limit):
    """Return the RuntimeError for a publish() beyond max_waiting."""
    return RuntimeError(
        "%d publish() calls wait already (max_waiting): await each before the next, or use"
        " enqueue()" % limit
    )


def thread():
    """Return the RuntimeError for a call in another thread than that of the event loop."""
    return RuntimeError(
        "enqueue in a second thread: have micropython.schedule(function, argument) call it"
    )


def stream(source, length):
    """Return the error for publish(topic, source, length=length), which cannot be sent."""
    if not isinstance(length, int) or isinstance(length, bool):
        return TypeError("length: an int, not %s" % shown(length))
    if not 0 <= length <= 268_435_455:
        return ValueError("length %d: 0 to 268435455" % length)
    if not hasattr(source, "readinto"):
        return TypeError(
            "payload with length=: a stream with readinto(), as open(path, 'rb') is, not %s:"
            " leave length= out" % type(source).__name__
        )
    return TypeError(
        "%s has no seek() and tell(): QoS 1 and 2 may have to send it again, use qos=0"
        % type(source).__name__
    )


def number(name, value, low, high):
    """Return the ValueError for an argument out of its range."""
    whole = "whole " if isinstance(value, float) and low <= value <= high else ""
    return ValueError(
        "%s: a %snumber from %d to %d, not %s" % (name, whole, low, high, shown(value))
    )


def text(name, value):
    """Return the ValueError for a name that MQTT cannot carry."""
    hint = ": .decode() makes one" if isinstance(value, bytes) else ""
    return ValueError(
        "%s: a str of 1 to 65535 bytes without NUL, not %s%s" % (name, shown(value), hint)
    )


def subscription(options):
    """Return the error for `options` (dict) of subscribe() or on(), with MQTT 3.1.1."""
    for name in sorted(options):
        if name not in _FIVE.split():
            return unknown(name)
    return option(name, None)


def unknown(name):
    """Return the TypeError for the argument `name` (str) of subscribe() or on(): it has none."""
    return TypeError("subscribe() or on() has no argument %r" % name)


def option(name, value):
    """Return the error for an argument of MQTTClient that cannot be taken."""
    if name == "protocol":
        return ValueError("protocol %s: 4 is MQTT 3.1.1, 5 is MQTT 5.0" % shown(value))
    if name == "session_expiry_s":
        return ValueError("session_expiry_s: MQTT 5 only; with 3.1.1 the broker decides")
    if name == "will" and hasattr(value, "birth"):
        name = "delay_s of the will" if value.delay_s else "properties of the will"
    if name in _FIVE.split() or " of the will" in name:
        return ValueError("%s: MQTT 5 only: give MQTTClient protocol=5" % name)
    if name in ("shared_session", "balance", "prefer_first_s"):
        return ValueError("%s: for a list of hosts, not for one" % name)
    if name == "password":
        return ValueError("password without user: give user= too")
    hints = {
        "tls": "TLS(ca=...) or None",
        "link": "WiFi(...), another link with up() is_up() reset() dns_servers(), or None",
        "will": "Will(...) or None",
        "store": "FileStore(...) or None",
        "log": "a function that takes a line, or None",
        "handler": "a function that takes a message",
        "on_connect": "an async function without arguments",
        "timeout_s": "seconds, up to 500000",
    }
    if name in hints:
        more = ""
        if name == "timeout_s" and isinstance(value, str):
            more = " (the broker is the first argument of MQTTClient)"
        return TypeError("%s: %s, not %s%s" % (name, hints[name], shown(value), more))
    return TypeError("MQTTClient has no argument %r" % name)


def store():
    """Return the ValueError for a store of a client whose id is another one at every start."""
    return ValueError("store: give client_id=: this board has no id of its own")


def file_store(directory, max_bytes, full, least, max_writes, most):
    """
    Return the ValueError for arguments of FileStore: max_bytes from `least`, max_writes to `most`.
    """
    if not isinstance(directory, str) or not directory:
        why = "directory: a path, not " + shown(directory)
    elif full not in ("newest", "oldest"):
        why = "full: newest or oldest, not " + shown(full)
    elif not isinstance(max_bytes, int) or max_bytes < least:
        why = "max_bytes: a whole number from %d on, not %s" % (least, shown(max_bytes))
    else:
        why = "max_writes: a number from 1 to %d, not %s" % (most, shown(max_writes))
    return ValueError("FileStore: " + why)


def store_taken(directory, user):
    """Return the ValueError for a FileStore that another client, `user` or None, has."""
    return ValueError(
        "store %s: client %s has it: give each client a FileStore with a directory of its own"
        % (directory, user and quoted(user.client_id))
    )


def handler(filter):
    """Return the ValueError for a second handler of one filter."""
    return ValueError(
        "topic filter %s has a handler: call both functions from one" % quoted(filter)
    )


def not_running():
    """Return the RuntimeError for a call that needs a running client."""
    return RuntimeError("the client is not running: use it inside `async with client:`")


def running():
    """Return the RuntimeError for a second start."""
    return RuntimeError("the client is running" + _ANEW)


def started():
    """Return the RuntimeError for report() of a client that runs."""
    return RuntimeError("report(): call it before the client is started")


def same_id(client):
    """Return the ValueError for two clients with one id."""
    return ValueError(
        "a second client with the id %s on %s port %d: give it another client_id=%s"
        % (quoted(client.client_id), client.host, client.port, _ANEW)
    )


def _name(what, name):
    # Return the error for what neither a topic nor a filter may be, or None.
    if not isinstance(name, str):
        return TypeError("%s: a str, not %s" % (what, type(name).__name__))
    if not name:
        return ValueError("%s: empty [MQTT-4.7.3-1]" % what)
    size = len(name.encode())
    if size > 65535:
        return ValueError("%s: %d bytes, at most 65535 [MQTT-4.7.3-3]" % (what, size))
    if "\0" in name:
        return ValueError("%s %s: has a NUL character [MQTT-4.7.3-2]" % (what, quoted(name)))
    for c in name:
        if 0xD800 <= ord(c) < 0xE000:
            return ValueError("%s %s: has a surrogate [MQTT-1.5.3-1]" % (what, quoted(name)))
    return None


def topic(name, what="topic"):
    """
    Return the TypeError or ValueError for `name`, the argument `what` (str), which is no topic
    (router.topic).
    """
    return _name(what, name) or ValueError(
        "%s %s: + and # are for subscribing only [MQTT-3.3.2-2]" % (what, quoted(name))
    )


def filter(name):
    """Return the TypeError or ValueError for `name`, which is no topic filter (router.filter)."""
    error = _name("topic filter", name)
    if error:
        return error
    why = "write $share/group/filter, any but + as group"
    levels = name.split("/")
    for level in levels:
        if "+" in level and level != "+":
            why = "+ stands for a whole level, as in a/+/b [MQTT-4.7.1-3]"
    if "#" in name and (name.find("#") < len(name) - 1 or levels[-1] != "#"):
        why = "# stands alone and last, as in a/# [MQTT-4.7.1-2]"
    return ValueError("topic filter %s: %s" % (quoted(name), why))


def file(name, problem, detail):
    """
    Return the error for a certificate, key or name that TLS cannot take.

    name     str, which one
    problem  str, a key of the table below, or "pair", "type", "name"
    detail   str that its sentence names, or None; of "open" the path and the error
    """
    if problem == "open":
        name += " " + path(detail[0])
        detail = detail[1]
    name = name[:250] + "..." * (len(name) > 250)
    if problem == "pair":
        return ValueError("give both cert and key, or none")
    if problem == "type":
        return TypeError("%s must be a path or bytes" % name)
    if problem == "name":
        return TypeError("%s: a str or None, not %s" % (name, shown(detail)))
    why = {
        "ca": "give the CA of the broker's certificate",
        "cut": "damaged: copy it again",
        "der": "no %s, or encrypted",
        "empty": "empty",
        "encrypted": "encrypted: openssl pkey -in OLD -out NEW",
        "find": "no %s",
        "key": "not the key of %s: copy both again",
        "old": "verifies too little: flash 1.25 or newer, micropython.org",
        "open": "cannot open (%s): copy it to the board",
        "read": "unreadable: use P-256 or RSA, SHA-256 (or low memory)",
    }[problem]
    return ValueError("%s: %s" % (name, why % detail if "%s" in why else why))


def entity(what, value):
    """Return the ValueError for an argument of HomeAssistant: `what` (str or Entity) is wrong."""
    why = {
        "device": "a device has no option %s there",
        "home": "home ends with a slash, as config.home does, not %s",
        "id": "an id has A-Z, a-z, 0-9, _ and - only, not %s: give another id=",
        "range": "min, max, step are %s: min up to max, step from 0.001, lengths of a text from 0"
        " to 255",
        "twice": "%s is the name of two entities, or that of the will",
    }
    if what in why:
        why = why[what]
        if what == "home" and value[-1:] == "/":
            value += "status"
            why = (
                "it sees by the will whether the client is there: give MQTTClient will=Will(%s,"
                " 'offline', retain=True, birth='online')"
            )
        if isinstance(value, tuple):
            value = "(%s)" % ", ".join([shown(each) for each in value])
        else:
            value = quoted(value) if isinstance(value, str) else shown(value)
        return ValueError("HomeAssistant: " + why % value)
    if what.kind == "number":
        wants = "%s to %s in steps of %s" % (what.min, what.max, what.step)
    elif "s" in what.kind and what.kind != "sensor":
        wants = "True or False"
    else:
        wants = "%s to %s characters" % (what.min, what.max)
    return ValueError("%s: %s, not %s" % (what.topic, wants, shown(value)))


def wifi(what, value="", low=0, high=0):
    """Return the error for the argument `what` (str) of WiFi, which is `value`."""
    if not isinstance(value, str):
        return TypeError("WiFi: %s must be a str" % what)
    why = {
        "WLAN": "no Wi-Fi here: pass link=None",
        "country": "WiFi: country must be 2 letters",
        "networks": "WiFi takes ssid, password or networks=[(ssid, password)]",
        "static": "WiFi: static must be 4 IPv4 addresses: own, mask, router, DNS",
    }
    return ValueError(why.get(what) or "WiFi: %s must have %d to %d bytes" % (what, low, high))
