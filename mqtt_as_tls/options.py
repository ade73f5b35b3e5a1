"""
The arguments of MQTTClient: their defaults, what each may be, and the id of a client that was
given none. Unloaded once a client is made.
"""

from micropython import const

from . import load, router
from .router import wrong

# name, default: attributes of the client
ATTRIBUTES = (
    ("link", None),
    ("tls", None),
    ("will", None),
    ("log", print),
    ("clean_start", False),
    ("give_up_after", None),
    ("store", None),
)
OTHERS = const((("protocol", 4), ("client_id", None), ("user", None), ("password", None)))
# what an object must have to be one
METHODS = const(
    (
        ("tls", "wrap"),
        ("link", "up is_up reset dns_servers"),
        ("will", "birth"),
        ("store", "put"),
    )
)
# name, default, least, most
NUMBERS = const(
    (
        ("keepalive_s", 60, 1, 65535),
        ("connect_timeout_s", 30, 1, 600),
        ("ack_timeout_s", 20, 1, 600),
        ("handler_timeout_s", 60, 1, 86400),
        ("drain_s", 5, 0, 600),
        ("max_packet", 4096, 64, 268435455),
        ("max_backlog", 16384, 64, 268435455),
        ("max_inflight", 8, 1, 65535),
        ("max_queue", 8192, 0, 268435455),
        ("max_waiting", 32, 1, 65535),
    )
)

_LETTERS = const("abcdefghijklmnopqrstuvwxyz0123456789-_")


def refuse(mistake, *args):
    """Raise what the function `mistake` (str) of `client_errors` returns for `args`."""
    raise getattr(load("argument_errors", "client_errors"), mistake)(*args)


def is_host(text):
    """
    Return whether the str `text` may be a host name (RFC 1035 section 2.3.4) or is a dotted IPv4
    address.
    """
    labels = text.lower().split(".")
    for label in labels:
        if not 0 < len(label) < 64 or label.strip(_LETTERS):
            return False
    if label.isdigit():  # no top-level domain is
        for label in labels:
            if not label.isdigit() or str(int(label)) != label or int(label) > 255:
                return False
        return len(labels) == 4
    return len(text) < 254


def server(host, port, usual, kind):
    """
    Return (host, port) if they can be those of a server.

    port  int, or None for `usual`
    kind  where they stand, "broker", "brokers" (one of a list) or "ntp"

    Raises ValueError that says how to write it.
    """
    if not isinstance(host, str) or not is_host(host):
        refuse("host", host, port, kind, is_host)
    if port is None:
        port = usual
    if not isinstance(port, int) or not 0 < port < 65536:
        refuse("port", port)
    return host, port


def number(name, value, low, high):
    """
    Raise ValueError unless `value` is a number from `low` to `high` (int); only seconds, of which
    the name ends in _s, may be a fraction.
    """
    kinds = (int, float) if name[-2:] == "_s" else int
    if not isinstance(value, kinds) or not low <= value <= high:
        wrong("number", name, value, low, high)


def text(name, value):
    """Return the argument `name` (str) as UTF-8 bytes. TypeError and ValueError if it is none."""
    data = router.encode(value)
    if data is None:
        wrong("text", name, value)
    return data


def secret(value):
    """Return the password as bytes, None for none. TypeError and ValueError if it is none."""
    if value is None:
        return None
    if not isinstance(value, (bytes, bytearray, memoryview, str)):
        wrong("payload", value, "password")
    data = router.payload(value)
    if len(data) > 65535:
        refuse("password", len(data))
    return data


def taken(host, port, options):
    """
    Return protocol, client_id, user, password, and the attributes (dict) that a client gets from
    its other arguments.

    options  dict of the arguments by name: those that are known here are taken out

    Raises TypeError and ValueError for what is out of its range.
    """
    found = {name: options.pop(name, value) for name, value in ATTRIBUTES}
    protocol, client_id, user, password = [options.pop(name, value) for name, value in OTHERS]
    for name, value, low, high in NUMBERS:
        value = options.pop(name, value)
        number(name, value, low, high)
        found[name] = value
    if found["give_up_after"] is not None:
        number("give_up_after", found["give_up_after"], 1, 65535)
    if found["max_backlog"] < found["max_packet"]:
        wrong("number", "max_backlog", found["max_backlog"], found["max_packet"], 268435455)
    for name, value, good in (
        ("protocol", protocol or 0, protocol in (4, 5)),
        ("password", password, user is not None or protocol == 5),
        ("log", found["log"], callable(found["log"])),
    ):
        if not good and value is not None:
            wrong("option", name, value)
    for name, methods in METHODS:
        for method in methods.split():
            if found[name] is not None and not hasattr(found[name], method):
                wrong("option", name, found[name])
    found["clean_start"] = bool(found["clean_start"])
    tls = found["tls"]
    usual = 8883 if tls else 1883
    found["failover"] = None
    if host is None:
        refuse("no_host", options)
    if isinstance(host, (list, tuple)):
        failover = load("failover")
        if not host or (len(host) == 2 and isinstance(host[1], int)):
            refuse("hosts", host)
        pairs = []
        for entry in host:
            if isinstance(entry, str):
                entry = entry, port
            elif not isinstance(entry, (list, tuple)) or len(entry) != 2:
                refuse("hosts", entry)
            pairs.append(server(entry[0], entry[1], usual, "brokers"))
        prefer_s = options.pop("prefer_first_s", None)
        if prefer_s is not None and not (isinstance(prefer_s, int) and 0 < prefer_s <= 86400):
            wrong("number", "prefer_first_s", prefer_s, 1, 86400)
        if options.pop("balance", False):
            failover.own_order(pairs, client_id or default_id(None))
        shared = options.pop("shared_session", False)
        found["failover"] = several = failover.Failover(pairs, shared, prefer_s)
        host, port = several.hosts[0]
    found["host"], found["port"] = server(host, port, usual, "broker")
    ntp = getattr(tls, "ntp", None)
    if ntp:
        if isinstance(ntp, str):
            ntp = ntp, None
        elif not isinstance(ntp, (list, tuple)) or len(ntp) != 2:
            refuse("ntp", ntp)
        server(ntp[0], ntp[1], 123, "ntp")
    return protocol, client_id, user, password, found


def connect(client, user, password):
    """
    Return the CONNECT packet (bytearray) of the MQTTClient `client`.

    user  str or None; password  str, bytes or None

    Raises TypeError and ValueError for these, the client id, and the will.
    """
    will = client.will
    if will:
        if not client.five and (will.properties or will.delay_s):
            wrong("option", "will", will)
        topic = will.topic.encode()
        for data in (will.payload, will.birth or b""):
            size = len(client.wire.publish(topic, data, will.qos, will.retain, None))
            if size > client.max_packet:
                wrong("size", size, client.max_packet, "max_packet")
        will = topic, will.payload, will.qos, will.retain
    own = client.client_id != "" or not (client.five or client.clean_start)
    return client.wire.connect(
        text("client_id", client.client_id) if own else b"",
        int(client.keepalive_s),
        False,
        None if user is None else text("user", user),
        secret(password),
        will,
    )


def default_id(store):
    """
    Return an id (str) that is this board's, or a random one where there is none of the hardware:
    ValueError then with a `store`, whose session would be lost with it.
    """
    try:
        from machine import unique_id

        data = unique_id()
    except (ImportError, AttributeError):
        from os import urandom

        if store is not None:
            wrong("store")
        data = urandom(8)
    return "mp" + data.hex()
