"""
The arguments of MQTTClient: their defaults, what each may be, and the id of a client that was
given none. Unloaded once a client is made.
"""

from micropython import const

from . import router
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
METHODS = const((("tls", "wrap"), ("link", "is_up"), ("will", "birth"), ("store", "put")))
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
    )
)


def text(name, value):
    """Return the argument `name` (str) as UTF-8 bytes. TypeError and ValueError if it is none."""
    data = router.encode(value)
    if data is None:
        wrong("text", name, value)
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
        if not isinstance(value, (int, float)) or not low <= value <= high:
            wrong("number", name, value, low, high)
        found[name] = value
    if port is None:
        port = 8883 if found["tls"] else 1883
    if not isinstance(port, int) or not 0 < port < 65536:
        wrong("number", "port", port, 1, 65535)
    if found["max_backlog"] < found["max_packet"]:
        wrong("number", "max_backlog", found["max_backlog"], found["max_packet"], 268435455)
    for name, value, good in (
        ("protocol", protocol or 0, protocol in (4, 5)),
        ("password", password, user is not None or protocol == 5),
        ("give_up_after", found["give_up_after"], isinstance(found["give_up_after"], int)),
        ("log", found["log"], callable(found["log"])),
    ):
        if not good and value is not None:
            wrong("option", name, value)
    for name, method in METHODS:
        if found[name] is not None and not hasattr(found[name], method):
            wrong("option", name, found[name])
    found["clean_start"] = bool(found["clean_start"])
    found["failover"] = None
    if not isinstance(host, str):
        from .failover import Failover

        found["failover"] = several = Failover(host, port, options.pop("shared_session", False))
        host, port = several.hosts[0]
    text("host", host)
    found["host"] = host
    found["port"] = port
    return protocol, client_id, user, password, found


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
