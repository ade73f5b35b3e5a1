"""
The matrix: moments of a connection's life, faults, and which of their combinations CI runs.

A case is (moment, side, fault, protocol, transport). The moments are those of one life that is
the same in every case (tests/device/life.py): connect, subscribe, two messages out at each QoS,
four in, silence until a ping, two more each way, goodbye. A moment is a packet of it: the fault
strikes just before that packet is passed on, or just after. QoS and direction are in its name.

`pairwise()` gives every pair of values of any two of the five factors that makes sense.
"""

import collections
import itertools

Case = collections.namedtuple("Case", "moment side fault protocol transport")

# What either side sends in that life, in order. Over TLS a packet is a record that nobody can
# read: a moment is the how many-th it is. (Pings, which come when they like, are shorter.)
_UP = """
    CONNECT SUBSCRIBE PUBLISH PUBLISH PUBLISH PUBLISH PUBLISH PUBLISH PUBREL PUBREL
    PUBACK PUBACK PUBREC PUBCOMP
""".split()
_DOWN = """
    CONNACK SUBACK PUBACK PUBACK PUBREC PUBREC PUBCOMP PUBCOMP
    PUBLISH PUBLISH PUBLISH PUBLISH PUBREL
""".split()

Moment = collections.namedtuple("Moment", "way name number tls_name tls_number")


def _packet(way, name, number=1):
    sent = _UP if way == "up" else _DOWN
    at = [i for i, each in enumerate(sent) if each == name][number - 1]
    return Moment(way, name, number, "data", at + 1)


# The second of two messages is hit, so that there is one before it in each state
MOMENTS = {
    "dns": None,
    "tcp": Moment("up", "TCP", 1, "TCP", 1),
    "tls-client-hello": Moment("up", None, 0, "handshake", 1),
    "tls-server-hello": Moment("down", None, 0, "handshake", 1),
    "tls-client-key": Moment("up", None, 0, "handshake", 2),
    "tls-server-finished": Moment("down", None, 0, "ccs", 1),
    "connect": _packet("up", "CONNECT"),
    "connack": _packet("down", "CONNACK"),
    "subscribe": _packet("up", "SUBSCRIBE"),
    "suback": _packet("down", "SUBACK"),
    "publish-out-qos0": _packet("up", "PUBLISH", 2),
    "publish-out-qos1": _packet("up", "PUBLISH", 4),
    "puback-in": _packet("down", "PUBACK", 2),
    "publish-out-qos2": _packet("up", "PUBLISH", 6),
    "pubrec-in": _packet("down", "PUBREC", 2),
    "pubrel-out": _packet("up", "PUBREL", 2),
    "pubcomp-in": _packet("down", "PUBCOMP", 2),
    "publish-in-qos0": _packet("down", "PUBLISH", 1),
    "publish-in-qos1": _packet("down", "PUBLISH", 3),
    "puback-out": _packet("up", "PUBACK", 2),
    "publish-in-qos2": _packet("down", "PUBLISH", 4),
    "pubrec-out": _packet("up", "PUBREC"),
    "pubrel-in": _packet("down", "PUBREL"),
    "pubcomp-out": _packet("up", "PUBCOMP"),
    "idle": None,
    "pingreq": Moment("up", "PINGREQ", 1, "short", 1),
    "pingresp": Moment("down", "PINGRESP", 1, "short", 1),
    "disconnect": Moment("up", "DISCONNECT", 1, "short", 1),
}

FAULTS = {
    "stall-up": "what the device sends is held back, on new connections too, until it noticed",
    "stall-down": "what the broker sends is held back likewise",
    "rst": "the connection is reset",
    "fin": "the connection is closed in an orderly way",
    "drop": "the network forgets the connection: all on it vanishes and nobody is told",
    "dribble": "from here on single bytes, each a segment of its own",
    "garbage": "random bytes in the place of the packet; over TLS a record with a bit flipped",
    "link-down": "the link goes, and says so when it is asked",
    "link-silent": "the link goes and looks up; only reset() brings it back",
    "restart": "the broker is stopped and started again with its state",
    "wipe": "the broker is killed and comes back without its state",
    "clock-forward": "the clock jumps by 20 years, and the connection is reset",
    "clock-back": "the clock jumps to before the broker's certificate, and the same",
    "clock-unset": "the clock is that of a board just powered on, and the same",
    "move": "the broker's name has another address; the old one is silent",
    "memory": "every allocation fails for a moment, with MemoryError",
    "interrupt": "interrupts enqueue, in the midst of what the client does then",
    "oversized": "a retained message larger than max_packet is published to what it subscribes to",
    "sockets-full": "the app takes all sockets there are until the client has said so, and the"
    " connection is reset",
    "fragmented": "the app leaves the heap in pieces of 2,000 bytes, what the connection had too,"
    " until it is connected again, and the same; on 32 bits, where TLS has its memory from it",
}

SIDES = ("before", "after")
PROTOCOLS = (4, 5)
TRANSPORTS = ("tcp", "tls")


def nonsense(case):
    """Return why there is no such `case` (str), None where there is."""
    moment, side, fault = case.moment, case.side, case.fault
    if moment.startswith("tls-") and case.transport == "tcp":
        return "TCP has no handshake of TLS"
    if moment == "idle" and side == "after":
        return "there is no packet to be before or after"
    if moment in ("dns", "tcp"):
        if side == "after":
            return "after it is before the next moment"
        if moment == "dns" and fault in ("rst", "fin", "dribble", "stall-up"):
            return "a question and its answer are one datagram each, without a connection"
        if moment == "tcp" and fault in ("drop", "dribble"):
            return "no byte was sent; a SYN that vanishes is stall-up"
    if fault == "garbage" and (side == "after" or moment == "idle"):
        return "a packet that has arrived cannot be changed any more"
    if fault == "memory" and moment == "idle":
        return "nothing runs that could ask for memory"
    inside_tls = ("tls-server-hello", "tls-client-key", "tls-server-finished")
    if fault == "memory" and moment in inside_tls:
        return (
            "there mbedTLS allocates, outside of MicroPython's heap: see benchmarks/starvation.py"
        )
    if fault == "interrupt" and moment in inside_tls:
        return "mbedTLS is at work, and interrupts wait until it has returned"
    if fault in ("interrupt", "oversized") and moment == "disconnect":
        return "the client takes nothing any more"
    if fault in ("sockets-full", "fragmented") and moment == "disconnect":
        return "it does not connect any more"
    return None


def name(case):
    """Return the id of `case`: "puback-in-rst-mqtt5-tls", with "after-" before it if it is so."""
    after = "after-" if case.side == "after" else ""
    return f"{after}{case.moment}-{case.fault}-mqtt{case.protocol}-{case.transport}".replace(
        "mqtt4", "mqtt3"
    )


def everything():
    """Return the list of all cases."""
    factors = (MOMENTS, SIDES, FAULTS, PROTOCOLS, TRANSPORTS)
    return [case for case in map(Case._make, itertools.product(*factors)) if not nonsense(case)]


def pairs(case):
    """Return the pairs (set) of values that `case` covers."""
    return set(itertools.combinations(enumerate(case), 2))


def pairwise():
    """
    Return a list of cases, always the same, that has every pair of values of any two factors
    that any case has.

    Greedy: each pair of a moment and a fault needs a case of its own; that takes the sides,
    protocols and transports which add most. TLS costs ten times as much as TCP, so it is taken
    only where it adds something, or there is no other.
    """
    left = set().union(*map(pairs, everything()))
    by_two = {}
    for case in everything():
        by_two.setdefault((case.moment, case.fault), []).append(case)
    chosen = []
    for turn, cases in enumerate(by_two.values()):

        def gain(case, turn=turn, left=left):
            new = len(pairs(case) & left)
            spread = (case.side == "after") + 2 * (case.protocol == 5) ^ turn % 4
            return new, case.transport == "tcp", spread

        best = max(cases, key=gain)
        chosen.append(best)
        left -= pairs(best)
    for case in everything():  # what is left, if anything
        if pairs(case) & left:
            chosen.append(case)
            left -= pairs(case)
    return chosen
