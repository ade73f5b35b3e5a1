"""
What follows a connection that was lost or could not be made: say why in plain words, and decide
how long to wait. Imported when the first one failed.
"""

import gc
import random
import sys
import time

from micropython import const

from . import packet
from .errors import (
    CertificateError,
    ConnectError,
    DeliveryUnknown,
    LinkError,
    MQTTError,
    RefusedError,
)

_SLOW_MS = const(600_000)  # between tries when the error will not heal by itself
_LASTING_MS = const(5_000)  # a connection that lived longer was a good one
_SUSPECT_AFTER = const(3)  # connections that broke
_SUSPECT_MS = const(5_000)  # after it was sent
_LONGEST_MS = const(60_000)  # of the back-off
# CONNACK codes that mean "not now" (3.1.1 section 3.2.2.3, 5.0 section 2.4) and DISCONNECT codes
# of a broker that goes or moves; the others will not heal by themselves
_PASSING = const(b"\x03\x80\x83\x88\x89\x8b\x8d\x8e\x93\x96\x97\x98\x9c\x9d\x9f\xa0")
_HANDSHAKE = const(40_000)  # bytes of heap: with less, memory may be what is wrong


def failed(client, error):
    """
    Tell why `client` is not connected; return the ms until the next try: exponential back-off
    with full jitter.

    error  Exception, whatever ended the attempt
    """
    now = time.ticks_ms()
    lost = client._since_ms is not None
    lasted = lost and time.ticks_diff(now, client._since_ms) > _LASTING_MS
    if lost:
        if lasted or client._behind:
            client._failures = 0
        client._since_ms = None
        # else the client itself closed the connection, for want of memory or of room
        if not (client._behind or isinstance(error, MemoryError)):
            _suspect(client, now)
    stubborn = isinstance(error, RefusedError) and error.code not in _PASSING
    if isinstance(error, CertificateError) or getattr(error, "code", None) == -30592:
        from .clock import plausible

        gc.collect()
        stubborn = plausible() and gc.mem_free() > _HANDSHAKE
    # low memory looks like a wrong CA, and a broker that is just starting refuses: try twice more
    client._refusals = client._refusals + 1 if stubborn else 0
    hosts = client._hosts
    client._slow = client._refusals > (2 * len(hosts) if hosts else 2)
    # a refused connection (104 on lwIP) and an unknown name are answers too: the link works
    answered = getattr(error, "code", 0) in (104, 111) or "no such name" in str(error)
    if not answered and not isinstance(error, LinkError):
        client._silent += 1
    delay = 50 + int(random.random() * min(_LONGEST_MS, 500 << min(client._failures, 7)))
    client._failures += 1
    if client._slow:
        delay = _SLOW_MS
    elif client._strikes >= _SUSPECT_AFTER:
        delay = _LONGEST_MS
    if hosts:
        from . import failover

        there = failover.following(client, lost)
        if there != hosts[0]:  # the list was not gone through
            client._failures -= 1
            delay = min(delay, 500)
    old = client.error
    client.error = error
    if lost or not client._why or repr(old) != repr(error):
        client._why = "%s: %s" % (
            "connection lost" if lost else "not connected",
            error if isinstance(error, MQTTError) else repr(error),
        )
        if not (lasted and isinstance(error, ConnectError)):  # else it was set up rightly
            client._why += _explained(error)
    elif isinstance(error, MQTTError):
        error.cure = old.cure
    slowly = ", rarely now as this does not heal by itself" if client._slow else ""
    client._say(client._why + slowly, ", next try in %.1f s" % (delay / 1000))
    _event(client, "Disconnected", error)
    if hosts:
        failover.move(client, there)
    _forget("explain", "reasons")
    return delay


def _event(client, kind, value):
    if client._events:
        client._events.put(kind, value)


def _forget(*names):
    """Unload modules of the package: the next handshake needs the memory."""
    package = sys.modules[__name__.split(".")[0]]
    for name in names:
        sys.modules.pop("%s.%s" % (package.__name__, name), None)
        package.__dict__.pop(name, None)


def unanswered(client):
    """
    Tell that the link of `client` is about to be reset; the next reset, which serves all clients
    of that link, has to wait twice as long.
    """
    after = client._reset_at * 2
    for mate in client._clients:
        if mate._link is client._link:
            mate._reset_at = after
    client._say("the link looks up but no broker answers: resetting it")


def refusal(client, code, filter=None):
    """
    Return the RefusedError for the code of a CONNACK, SUBACK or another answer, just received.

    filter  str that a SUBSCRIBE or UNSUBSCRIBE asked for
    """
    what = "the broker refused%s: " % (" %r" % filter if filter else "")
    properties = client._transport.decoder.properties
    if client._five:
        from .reasons import words

        what += words(code, properties)
    else:
        what += "code %d" % code
    error = RefusedError(what, code)
    error.properties = properties
    return error


def undelivered(client, out, error=None):
    """
    The message `out` is not delivered, or nobody knows: tell who waits for it, or an event.

    error  exception; int: the code of its acknowledgement; None: QoS 2, and the broker lost the
           session
    """
    topic = packet.topic(out.packet)
    if error is None:
        error = DeliveryUnknown("the broker lost the session: was %r delivered?" % topic, topic)
    elif isinstance(error, int):
        error = refusal(client, error)
    out.error = error
    if out.entry:
        client._session.forget(out)
    if not out.awaited:
        client._say("message to %r: %s" % (topic, error))
        _event(client, "Undelivered", (topic, error))
    out.set()


def refused(client, sub, error=None):
    """
    The broker refused the subscription `sub`: note why, and tell it of a declared one.

    error  RefusedError; None: what the packet just received says
    """
    sub.reason = error or refusal(client, sub.granted, sub.filter)
    if sub.handler and sub.asked:  # not an UNSUBACK
        client._say("%s%s" % (sub.reason, "" if error else ": see its ACL"))
        _event(client, "SubscriptionRefused", sub.filter)


def overdue(dispatcher, sub):
    """The handler of `sub`, or the iterator, is too slow: acknowledge the message it has."""
    client = dispatcher._client
    stream = client._incoming
    if stream and stream.message is sub.current:
        return  # it is being read: there is a limit to pauses
    client._say(
        "handler of %r runs for over %d s: message acknowledged, handler goes on"
        % (sub.filter, client.handler_timeout_s)
    )
    dispatcher.finish(sub)
    if sub is dispatcher.inbox:
        from .iterators import leave

        leave(dispatcher)


def not_joined(ssid, status):
    """
    Return in words why a board is not in the network `ssid` (str).

    status  int of the driver, or the exception that it raised
    """
    if status in (-3, 15, 202, 204):
        why = "wrong password: check it, it is case-sensitive"
    elif status in (-2, 201):
        why = "no such network in reach: check its name (2.4 GHz only on most boards)"
    elif status == 2:
        why = "joined but got no address: check the router's DHCP, or give static="
    else:
        why = "cannot join (%s): check password, signal and access point" % status
    return "Wi-Fi '%s': %s" % (ssid, why)


def _explained(error):
    """Return cause and cure, as the end of a line; note the cure on `error`."""
    try:
        from .explain import explain

        cause, cure = explain(error, year=time.localtime()[0])
    except (ImportError, MemoryError):
        return ""  # the number is printed
    if isinstance(error, MQTTError):
        error.cure = cure
    return (cause and "; " + cause) + (cure and " -> " + cure)


def _suspect(client, now):
    """Count the connections that ended right after the same oldest message was sent."""
    session = client._session
    out = session.inflight[0] if session.inflight else None
    if not out or out in session.to_resend or session.oldest_ms(now) > _SUSPECT_MS:
        client._strikes = 0
        return
    client._strikes = client._strikes + 1 if out is client._suspect else 1
    client._suspect = out
    if client._strikes >= _SUSPECT_AFTER:
        topic = packet.topic(out.packet)
        client._say("connections break right after a message to %r was sent" % topic)
        _event(client, "Suspect", topic)
    if client.give_up_after and client._strikes >= client.give_up_after:
        session.drop(out)
        undelivered(
            client, out, MQTTError("given up: %d connections broke on it" % client._strikes)
        )
        client._strikes = 0
        client._clean = True  # or the broker's session would still have it


def unawaited(client, out):
    """The message `out` was made by a publish() that nobody awaits: MicroPython tells of none."""
    client._say(
        "publish to %r was not awaited: write await client.publish(...)" % packet.topic(out.packet)
    )


def report(client, what, error):
    """Tell that a function of the app raised `error`; with log=print where, too."""
    client._say("%s failed: %r" % (what, error))
    if client._log is print:
        sys.print_exception(error)
