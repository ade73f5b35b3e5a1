"""
Where mosquitto's tests and this client differ: what does not apply, and what is asked in another
way. Each entry says why. Everything that is not here has to pass as it is.
"""

# Tests that do not apply, by file
NOT_APPLICABLE = {
    "08-ssl-connect-cert-auth-enc": (
        "a private key with a password: MicroPython's tls cannot read one, and TLS() says so"
    ),
    "09-util-topic-tokenise": "a function of libmosquitto's API; nothing goes over the network",
}

# Message sequences that do not apply: data file -> their names -> why. "*" stands for any end.
_LEVEL_3 = "MQTT 3.1, protocol level 3: this client does not speak it"
_CONTROL_CHARACTER = (
    "a receiver MAY close the connection on a control character (3.1.1 section 1.5.3, 5.0 section "
    "1.5.4); libmosquitto does, this client takes it"
)
_NO_REASON_CODE = (
    "UNSUBACK has a reason code for each filter [MQTT-3.11.3-1], one of a list [MQTT-3.11.3-2]; "
    "libmosquitto does not look, this client closes"
)
NOT_APPLICABLE_SEQUENCES = {
    "CONNECT.json": {"v3.1 *": _LEVEL_3},
    "CONNACK.json": {
        "v3.1.1 CONNACK issue 2163 v3": _LEVEL_3,
        "v5.0   CONNACK 20 long": "a byte too much, which libmosquitto overlooks; malformed here",
    },
    "PUBLISH.json": {
        "v3.1.1 PUBLISH 38 QoS 0 Dup 1": (
            "DUP is 0 with QoS 0 [MQTT-3.3.1-2]: libmosquitto overlooks it, this client closes"
        ),
        "v3.1.1 PUBLISH 30 topic with U+0001": _CONTROL_CHARACTER,
        "v3.1.1 PUBLISH 30 topic with U+001F": _CONTROL_CHARACTER,
        "v3.1.1 PUBLISH 30 topic with U+007F": _CONTROL_CHARACTER,
        "v3.1.1 PUBLISH 30 topic with U+009F": _CONTROL_CHARACTER,
        "v5.0   PUBLISH 30 topic with U+0001": _CONTROL_CHARACTER,
        "v5.0   PUBLISH 30 topic with U+001F": _CONTROL_CHARACTER,
        "v5.0   PUBLISH 30 topic with U+007F": _CONTROL_CHARACTER,
        "v5.0   PUBLISH 30 topic with U+009F": _CONTROL_CHARACTER,
        "v5.0   PUBLISH ALLOWED PROPERTIES 2*subscription-identifier=1 (variable byte integer)": (
            "a message that matches several subscriptions has several identifiers (5.0 section "
            "3.3.2.3.8); libmosquitto takes one only"
        ),
    },
    "UNSUBACK.json": {
        "v5.0   UNSUBACK unsolicited B0": _NO_REASON_CODE,
        "v5.0   UNSUBACK unsolicited B0 with property": _NO_REASON_CODE,
        "v5.0   UNSUBACK unsolicited B0 reason code 0xFF unknown": _NO_REASON_CODE,
        "v5.0   UNSUBACK B0": _NO_REASON_CODE,
        "v5.0   UNSUBACK B0 with property": _NO_REASON_CODE,
        "v5.0   UNSUBACK B0 reason code 0xFF unknown": _NO_REASON_CODE,
    },
}

# Changes to what a test sends or expects (functions of drive.py make them), and why
CHANGES = {
    "01-extended-auth-continue": (
        "authentication_method",
        "the broker sends AUTH to a client whose CONNECT names no method, which it MUST NOT do "
        "[MQTT-4.12.0-6]; now CONNECT names one, and so does CONNACK [MQTT-4.12.0-5]",
    ),
    "01-extended-auth-failure": ("authentication_method", "as 01-extended-auth-continue"),
    "03-publish-c2b-qos1-disconnect": (
        "persistent_session",
        "it connects with CleanSession=1, which ends the session [MQTT-3.1.2-6], and yet expects "
        "the message of the ended session again; with a session that lasts it is asked rightly",
    ),
    "03-publish-c2b-qos2-disconnect": ("persistent_session", "as for QoS 1"),
    "11-prop-oversize-packet": (
        "a_byte_more",
        "libmosquitto counts a packet without its first byte, and sends 31 bytes where the "
        "maximum is 30 [MQTT-3.2.2-15]; with a maximum of 31 the same bytes are right",
    ),
}

# Changes to message sequences: data file -> their names -> (old text, new text, why)
_NO_ALIAS = (
    "r116 s12 'test/publish' m1 v92 01 i1 02 ffffffff 23 ffff ",
    "r113 s12 'test/publish' m1 v89 01 i1 02 ffffffff ",
    "a topic alias where the broker takes none [MQTT-3.3.2-9]: this client refuses to send it, "
    "and is asked for the same message without one",
)
_NOT_ALLOWED_HERE = (
    "E0 r1 82",
    "E0 r1 81",
    "an identifier that is not valid for its packet type is malformed (5.0 section 2.2.2.2)",
)
_UNKNOWN_ID = (
    "62 r2 m1",
    "62 r3 m1 92",
    "this client says that it does not know the packet identifier (5.0 section 3.6.2.1)",
)
_WILDCARD = ("E0 r1 81", "E0 r1 82", "[MQTT-3.3.2-2] names no reason code; 0x82 is section 4.13's")
CHANGED_SEQUENCES = {
    "PUBACK.json": {"v5.0   PUBACK*": _NO_ALIAS},
    "PUBREC.json": {
        "v5.0   PUBREC unsolicited 50 len=*": _UNKNOWN_ID,
        "v5.0   PUBREC*": _NO_ALIAS,
    },
    "PUBLISH.json": {
        "v5.0   PUBLISH 36 QoS 3 (with mid) [MQTT-3.3.1-4]": (
            "E0 r1 82",
            "E0 r1 81",
            "QoS 3 is a malformed packet [MQTT-3.3.1-4], whatever follows",
        ),
        "v5.0   PUBLISH 30 topic with + [MQTT-3.3.2-2]": _WILDCARD,
        "v5.0   PUBLISH 30 topic with # [MQTT-3.3.2-2]": _WILDCARD,
        "v5.0   PUBLISH DISALLOWED PROPERTIES*": _NOT_ALLOWED_HERE,
    },
}


def matches(name, pattern):
    """Return whether `name` is `pattern`, or begins with it where that ends in "*"."""
    if pattern.endswith("*"):
        return name.startswith(pattern[:-1])
    return name == pattern


def applicable(data, groups):
    """
    Return the groups of sequences that the file `data` holds, without those that do not apply and
    with what is changed.

    Raises ValueError for an entry of the tables above that fits nothing.
    """
    left_out = set(NOT_APPLICABLE_SEQUENCES.get(data, ()))
    changes = CHANGED_SEQUENCES.get(data, {})
    unused = {*left_out, *changes}
    for group in groups:
        kept = []
        # of the group's own messages each sequence gets its copy
        common = group.pop("group_msgs", [])
        for each in group["tests"]:
            name = f"{group['group']} {each['name']}"
            out = {pattern for pattern in left_out if matches(name, pattern)}
            unused -= out
            if out:
                continue
            kept.append(each)
            each["msgs"] = [dict(message) for message in common + each["msgs"]]
            for pattern, (old, new, _) in changes.items():
                for message in each["msgs"] if matches(name, pattern) else ():
                    if old in message["payload"]:
                        unused.discard(pattern)
                        message["payload"] = message["payload"].replace(old, new)
        group["tests"] = kept
    if unused:
        raise ValueError(f"{data} has no such sequences, or they are as wanted: {unused}")
    return groups
