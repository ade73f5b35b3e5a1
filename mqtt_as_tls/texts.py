"""
What went wrong, in plain words, and who is told: the task that waits, the log, an event. Imported
when something did.
"""

import gc
import io
import sys

from micropython import const

from . import load, packet
from .errors import (
    ConnectError,
    DeliveryUnknown,
    ProtocolError,
    RefusedError,
    TLSError,
    printable,
)

_FRAMES = const(8)  # of a traceback, the innermost
# What a handshake must find besides its two buffers, in words of the heap: with less, memory may
# be what is wrong. No piece that it asks for is larger
_PIECE = const(150)
_PIECES = const(13)
_LARGE = const(900)  # bytes of a certificate that RSA of 4096 bits may have signed
_MORE = const(25)  # pieces for such
_BUFFERS = const(35)  # more of them where nobody holds the buffers
_GAPS = const(11)  # one of so many may be in smaller pieces


def often(client, what, details="", say=None):
    """Log what may happen often: see repeats.tell."""
    return load("repeats").tell(client, what, details, say)


def tell(client, kind, value):
    """Add an event, of the class `kind` (str), for those who iterate over them."""
    if client.event_log:
        client.event_log.put(kind, value)


def refusal(client, code, filter=None):
    """
    Return the RefusedError for the code of a CONNACK, SUBACK or another answer, just received.

    filter  str that a SUBSCRIBE or UNSUBSCRIBE asked for
    """
    what = "the broker refused%s: " % (" %r" % filter if filter else "")
    properties = client.connection.transport.decoder.properties
    if client.five:
        what += load("reasons").words(code, properties)
    else:
        what += "code %d" % code
    error = RefusedError(what, code)
    error.properties = properties
    return error


def no_broker(data):
    """Return the ConnectError for the other side of TCP that sent `data` (bytes), or closed."""
    if data:
        return ConnectError("the other side speaks first: no MQTT broker on this port")
    return ConnectError("closed at once by the other side")


def tls_failure(tls, error, reserve):
    """
    Return the exception for what a handshake of `tls` (TLS) raised just now, before anything else
    runs: see TLS.failure. mbedTLS may say that the certificate is not correctly signed, or the
    broker that it cannot read what comes, where there is too little memory: it is named then.

    reserve  Reserve, which has the buffers again; None: nobody has
    """
    error = tls.failure(error)
    if (error.code == -30592 or "signed" in str(error)) and _short(
        (_PIECES if tls.seen < _LARGE else _MORE) + (not reserve) * _BUFFERS
    ):
        error = TLSError("TLS handshake out of memory, which looks like: %s" % error, 12)
    return error


def _short(pieces):
    # whether there is less than the handshake may have needed, or it is in pieces
    gc.collect()
    if gc.mem_free() < pieces * _PIECE * 4:
        return True
    held = []
    pieces -= pieces // _GAPS
    try:
        while len(held) < pieces:
            held.append([0] * _PIECE)
    except MemoryError:
        return True
    finally:
        for piece in held:  # which gives its memory back at once
            piece.clear()
    return False


def out_of_place(first):
    """
    Return the ProtocolError for a packet of the broker that must not come now.

    first  int, its first byte; 0: CONNACK with a session that was not asked for; 1: the
           answer to another request
    """
    if not first:
        return ProtocolError("session present after a clean start [MQTT-3.2.2-1]")
    if first == 1:
        return ProtocolError("SUBACK or UNSUBACK for another request [MQTT-3.8.4-5]")
    if first >> 4 == 2:
        return ProtocolError("a second CONNACK (section 3.2)")
    return ProtocolError("packet 0x%02x before CONNACK [MQTT-3.2.0-1]" % first)


def unanswered(client, state):
    """Return the ConnectError for an attempt that took too long in the state `state` (str)."""
    return ConnectError(
        "%s port %d: no answer within %d s (%s)"
        % (client.connection.address, client.port, client.connect_timeout_s, state)
    )


def behind():
    """Return the ConnectError that ends a connection on which handlers could not keep up."""
    return ConnectError("handlers are done: connecting anew for what did not fit")


def undelivered(client, out, error=None):
    """
    The message `out` is not delivered, or nobody knows: it is not sent any more, wherever it
    waits. Tell who waits for it, or an event.

    error  exception; int: the code of its acknowledgement; None: QoS 2, and the broker lost the
           session
    """
    client.session.drop(out)
    client.outbox.drop(out)
    topic = packet.topic(out.packet)
    if error is None:
        error = DeliveryUnknown("the broker lost the session: was %r delivered?" % topic, topic)
    elif isinstance(error, int):
        error = refusal(client, error)
    if out.entry:
        client.session.forget(out)
    if not out.awaited:
        often(client, "message to %r" % topic, ": %s" % error)
        tell(client, "Undelivered", (topic, error))
    out.error = error
    out.set()


def odd(client, told):
    """
    Tell what is odd about the broker's acknowledgements (section 4.3): what the session has noted
    in `odd` from the entry `told` (int) on. Returns their number.

    Of each the kind is an int: the first byte of an acknowledgement and the QoS of its message, or
    0 when none waits for it; 3: PUBREC without end; -1: PUBREL is missing.
    """
    noted = client.session.odd
    for each in noted[told:]:
        kind = each >> 16
        qos = kind & 3
        if kind < 0:
            text = (
                "too many QoS 2 messages without PUBREL: the oldest are forgotten, and handled"
                " anew if they come again"
            )
        elif kind == 3:
            text = (
                "the broker answers PUBREL with PUBREC without end: it is answered no more,"
                " its message counts as delivered"
            )
        elif kind == 0x72:
            continue  # sent twice, and taken the first time
        elif qos:
            text = "the broker answers QoS %d as if it were QoS %d: " % (qos, 3 - qos)
            text += "that message is delivered, maybe twice"
            if qos == 2:
                text += ": it has no QoS 2, publish with qos=1"
        else:
            name = "PUBACK" if kind == 0x40 else "PUBREC" if kind == 0x50 else "PUBCOMP"
            text = "the broker acknowledges what was not sent: %s with packet id %d" % (
                name,
                each & 65535,
            )
        client.say(text)
    return len(noted)


def unawaited(client, out):
    """The message `out` was made by a publish() that nobody awaits: MicroPython tells of none."""
    text = "publish to %r was not awaited: write await client.publish(...)"
    often(client, text % packet.topic(out.packet))


def refused(client, sub, error=None):
    """
    The broker refused the subscription `sub`: note why, and tell it of a declared one.

    error  RefusedError; None: what the packet just received says
    """
    sub.reason = error or refusal(client, sub.granted, sub.filter)
    if sub.handler and sub.asked:  # not an UNSUBACK
        client.say("%s%s" % (sub.reason, "" if error else ": see its ACL"))
        tell(client, "SubscriptionRefused", sub.filter)


def overdue(client, lane):
    """The handler of `lane`, or the iterator, is too slow: acknowledge the message it has."""
    streams = client.stream_in
    if streams and streams.is_reading(lane.current):
        return  # it is being read: there is a limit to pauses
    often(
        client,
        "handler of %r runs for over %d s: message acknowledged, handler goes on"
        % (lane.filter, client.handler_timeout_s),
    )
    dispatcher = client.dispatcher
    dispatcher.finish(lane)
    if lane is dispatcher.inbox:
        load("iterators").leave(client)


def failed(client, what, error, say=None):
    """
    Tell that a function of the app raised `error`; with log=print where, too. Nothing of its text
    is printed but as a line of the log: it may be from the network.

    say  see repeats.tell
    """
    if often(client, what + " failed", ": %r" % error, say) and (say or client.log is print):
        out = io.StringIO()
        sys.print_exception(error, out)
        lines = out.getvalue().split("\n")
        n = 1
        while lines[n].startswith("  File "):  # what follows is the text of the error
            n += 1
        for line in lines[max(1, n - _FRAMES) : n]:
            print(printable(line))
