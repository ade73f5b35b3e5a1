"""
The reason codes of MQTT 5 in words (5.0 section 2.4). Imported when one is to be told.
"""

from .errors import printable

_WORDS = {
    0x00: "normal",
    0x04: "disconnect with will",
    0x10: "no matching subscribers",
    0x11: "no subscription existed",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "protocol version not supported: use protocol=4",
    0x85: "client id not valid",
    0x86: "bad user name or password",
    0x87: "not authorized: see the broker's ACL",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8C: "bad authentication method",
    0x8D: "keep alive time-out",
    0x8E: "session taken over: another client has this client id",
    0x8F: "topic filter not valid",
    0x90: "topic name not valid",
    0x91: "packet id in use",
    0x92: "packet id not found",
    0x93: "receive maximum exceeded",
    0x94: "topic alias not valid",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format not valid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9E: "shared subscriptions not supported",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
    0xA1: "subscription identifiers not supported",
    0xA2: "wildcard subscriptions not supported",
}


def words(code, properties=None):
    """
    Return the reason `code` (int) in words, with what the broker said about it.

    properties  dict of the packet, or None: reason_string and server_reference are told
    """
    text = "%s (0x%02x)" % (_WORDS.get(code, "unknown reason"), code)
    properties = properties or {}
    for name, what in (("reason_string", "%s: %s"), ("server_reference", "%s; go to %s")):
        if name in properties:
            text = what % (text, printable(properties[name][:200]))
    return text
