"""
What follows a connection that was lost or could not be made: why it was, and how long to wait.
Imported when one failed, and unloaded when that is told: what is known of failures stays.
"""

import random
import time

from micropython import const

from . import errors, load, packet, unload

_STUBBORN_MS = const(3_000)  # the first pause after an error that will not heal by itself
_SLOW_MS = const(600_000)  # the longest after such
_LASTING_MS = const(5_000)  # a connection that lived longer was a good one
_SUSPECT_AFTER = const(3)  # connections that broke
_SUSPECT_MS = const(5_000)  # after it was sent
_UNRELEASED_AFTER = const(8)  # connections that broke on a PUBREL
_LONGEST_MS = const(60_000)  # of the back-off
_SPREAD_MS = const(5_000)  # in which those whose broker went come to another one
_OWN_TRIES = const(3)  # at one broker, then at the next: it may have larger certificates
_LINK_RESET_AFTER = const(5)  # attempts that nobody answered
# CONNACK codes that mean "not now" (3.1.1 section 3.2.2.3, 5.0 section 2.4) and DISCONNECT codes
# of a broker that goes or moves; the others will not heal by themselves
_PASSING = const(b"\x03\x80\x83\x88\x89\x8b\x8d\x8e\x93\x96\x97\x98\x9c\x9d\x9f\xa0")
_PUBCOMP = const(0x70)
# What the board itself lacks, by errno: memory (12), files or sockets (23, 24), ports (98, 99; 125
# on an esp32; 48, 49 on macOS), buffers (105; 55)
_OWN = const(b"\x0c\x17\x18\x62\x63\x69\x7d\x30\x31\x37")
_OWN_MS = const(10_000)  # the longest back-off then: nobody is asked but the board
_SAME = const(" (low memory looks the same)")  # in explain, but not here: see texts.tls_failure


class Retry:
    """
    What a client knows of its failures since it was started. No more than that, so that nothing
    of this module stays in memory with it.

    slow        bool, the error will not heal by itself
    unanswered  int, attempts in a row that no broker answered; `reset_at`  so many reset the link
    connects    int, connections at the last failure
    failures    int, attempts of this back-off; refusals  int, those in a row that will not heal
    around      what the refusals may depend on, see MQTTClient.around
    own         int, attempts in a row that failed for want of something of the board's own
    strikes     int, connections in a row that broke on the message `suspect`; -n: on its PUBREL
    doubts      Doubts of topic filters on which connections ended, or None
    aside       Aside of messages on which connections ended, or None
    no_memory   dict, for oversized: of a message with QoS 1 or 2 that there was no memory for its
                "size" and "packet_id"; on how many connections that was so for this id ("tries"),
                and for messages of this size ("in_all"). Empty: there was for the last one
    why         str, what was said last
    lost_ms     ticks when the last connection was lost, or None
    """

    slow = False
    unanswered = connects = failures = own = refusals = strikes = 0
    reset_at = _LINK_RESET_AFTER
    suspect = doubts = aside = why = around = lost_ms = None

    def __init__(self):
        self.no_memory = {}


def failed(client, error, old):
    """
    Tell why `client` is not connected; return the ms until the next try: exponential back-off with
    full jitter.

    error  Exception, whatever ended the attempt
    old    that of the attempt before, or None
    """
    known = client.retry
    connection = client.connection
    now = time.ticks_ms()
    own = lacking(error)
    lost = connection.up_ms is not None and client.stats.connects != known.connects
    # ticks go round in 12 days, and half of that looks like the future
    lasted = lost and not 0 <= time.ticks_diff(now, connection.up_ms) <= _LASTING_MS
    if lost:
        known.connects = client.stats.connects
        known.lost_ms = now
        known.refusals = 0
        known.reset_at = _LINK_RESET_AFTER
        if known.aside and known.aside.is_idle():
            known.aside = None
            unload("aside")
        if lasted or connection.behind:
            known.failures = known.own = 0
        # else the cause is what was received, or want of memory or of room for it
        sent = isinstance(error, (errors.ConnectError, errors.RefusedError))
        if sent and not (connection.behind or own):
            # no message is accused of what may be the doing of a SUBSCRIBE
            if client.session.requests:
                known.doubts = known.doubts or load("doubts").Doubts(client)
                known.doubts.broke(error)
            else:
                _search(client, now, error)
    code = getattr(error, "code", None) or 0
    stubborn = isinstance(error, errors.RefusedError) and code not in _PASSING
    certificate = isinstance(error, errors.CertificateError) or code == -30592
    if certificate:
        stubborn = load("dns", "clock").plausible()
    failover = client.failover
    hosts = len(failover.hosts) if failover else 1
    if stubborn:
        around = client.around(known.around)
        if around is not known.around:  # it may have been for that
            known.refusals = 0
            known.around = around
    known.refusals = known.refusals + 1 if stubborn else 0
    # a broker that is just starting refuses
    known.slow = known.refusals > 2 * hosts
    # what mbedTLS does not like, a refused connection (104 on lwIP), an unknown name, an end are
    # answers: the link works
    answered = certificate or code < -999 or code in (104, 111)
    answered = answered or "no such name" in str(error) or "closed" in str(error)
    if not (answered or own or isinstance(error, errors.LinkError)):
        known.unanswered += 1
    known.own = known.own + 1 if own else 0
    longest = min(_OWN_MS if own else _LONGEST_MS, 500 << min(known.own or known.failures, 7))
    jitter = random.random()
    delay = 50 + int(jitter * longest)
    known.failures += not own
    longest = 0  # of a pause that has a third of it at least
    if stubborn:  # those that were refused for a minute are back within another
        longest = min(_SLOW_MS, _STUBBORN_MS << min((known.refusals - 1) // hosts, 8))
    elif known.strikes >= _SUSPECT_AFTER:
        longest = _LONGEST_MS
    delay = max(delay, int(longest * (1 + 2 * jitter) / 3))
    if own and not lost and known.own % _OWN_TRIES:
        pass  # none of the brokers was asked
    elif failover:
        # what it had no room for is at that broker
        if not failover.plan(lost, lasted, lost and (own or connection.behind)):
            known.failures -= not own  # the list was not gone through
            delay = 0
        if failover.moves:
            delay = max(delay, 50 + int(jitter * _SPREAD_MS))
    if lost or not known.why or repr(old) != repr(error):
        known.why = "%s: %s" % (
            "connection lost" if lost else "not connected",
            error if isinstance(error, errors.MQTTError) else repr(error),
        )
        if not (lasted and isinstance(error, errors.ConnectError)):  # else it was set up rightly
            known.why += _explained(error, connection.ended_in)
        # a refusal says so itself
        bare = isinstance(error, errors.MQTTError) and not isinstance(error, errors.RefusedError)
        if client.five and connection.ended_in == "CONNECT" and bare and not known.connects:
            known.why += "; or the broker has no MQTT 5: use protocol=4"
    elif isinstance(error, errors.MQTTError):
        error.cure = old.cure
    slowly = ", ever more rarely as this does not heal by itself" if known.slow else ""
    client.say(known.why + slowly, ", next try in %.1f s" % (delay / 1000))
    if connection.reserve and connection.reserve.short:
        known.why = None  # the next attempt needs its memory more
    if client.event_log:
        client.event_log.put("Disconnected", error)
        if getattr(error, "failed_starts", None):
            client.event_log.put("RadioDead", error.failed_starts)
    unload("explain", "reasons", "texts", "oversized", "surplus", "retry")
    return delay


def lacking(error):
    """
    Return whether `error` (Exception) tells what the board itself lacks, such as memory or
    sockets: nothing is known of the link and the broker then.
    """
    if isinstance(error, errors.RefusedError):
        return False  # its code is not an errno
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    return (
        isinstance(error, MemoryError)
        or "out of memory" in str(error)
        or isinstance(code, int)
        and 0 < code < 128
        and code in _OWN
    )


async def resets_link(client):
    """
    Return whether the link of `client`, over which nobody answered, is to be reset, and tell it.
    The next time, for all clients of that link, waits twice as long. A link that can be asked
    (`alive`) is not reset while it answers, and sooner if it does not.
    """
    link = client.link
    known = client.retry
    least = known.reset_at
    why = "no broker answers"
    if hasattr(link, "alive"):
        if not link.is_up() or await link.alive():
            return False
        least = least // 4
        why = "the router does not answer"
    if known.unanswered < least:
        return False
    after = known.reset_at * 2
    for mate in client.clients:
        if mate.link is link:
            mate.retry.reset_at = after
    client.say("the link looks up but %s: resetting it" % why)
    return True


def _search(client, now, error):
    """
    Count the connections that ended right after the same oldest message was sent, or for want of
    its acknowledgement.
    """
    known = client.retry
    session = client.session
    out = session.inflight[0] if session.inflight else None
    late = "no PUBACK" in str(error)
    store = client.give_up_after and client.store
    if session.awaiting_pubcomp:
        older = session.awaiting_pubcomp[0]
        if not out or time.ticks_diff(older.sent_ms, out.sent_ms) <= 0:
            out = older
    if not out or out in session.to_resend or not (late or session.oldest_ms(now) <= _SUSPECT_MS):
        known.strikes = 0
        if store and store.suspect:
            store.strike(store.suspect, 0)
        return
    entry = store and out.entry
    if out is not known.suspect:
        known.suspect = out
        known.strikes = known.aside.struck(out) if known.aside else 0
        if entry:  # before a reset
            known.strikes = max(known.strikes, store.struck(entry))
    topic = packet.topic(out.packet)
    received = out in session.awaiting_pubcomp
    if received and not late:
        # the broker has it: it hangs up where it knows nothing of it any more, as its PUBCOMP was
        # lost. It is not accused, and counted downwards
        known.strikes = min(known.strikes, 0) - 1
    else:
        known.strikes = max(known.strikes, 0) + 1
        if entry:
            store.strike(entry, known.strikes)
    gives_up = client.give_up_after and known.strikes >= client.give_up_after
    more = ""
    if known.strikes > 1 and not (received or gives_up):
        known.aside = known.aside or load("aside").Aside(client)
        again_s = known.aside.broke(out, known.strikes)
        if again_s is not None:
            more = ": others go first, it goes again in %d s -> see the broker's log" % again_s
    if known.strikes >= _SUSPECT_AFTER:
        what = "the broker does not acknowledge" if late else "connections break right after"
        client.say("%s a message to %r%s" % (what, topic, "" if late else " was sent"), more)
        if client.event_log:
            client.event_log.put("Suspect", topic)
    if gives_up:
        undelivered = load("texts").undelivered
        if received:
            session.acknowledged(_PUBCOMP, out.id)
        session.discard = "a message was given up"  # the broker may have it
        error = errors.MQTTError("given up: %d connections ended on it" % known.strikes)
        undelivered(client, out, error)
        known.strikes = 0
    elif received and abs(known.strikes) >= _UNRELEASED_AFTER:
        session.acknowledged(_PUBCOMP, out.id, now, None)
        client.say(
            "the broker does not answer PUBREL: a message to %r counts as delivered" % topic
        )
        out.set()
        known.strikes = 0
    if known.aside and out in session.aside:
        known.suspect = None
        known.strikes = 0


def _explained(error, state):
    """Return cause and cure, as the end of a line; note the cure on `error`."""
    try:
        day = "%d-%02d-%02d" % time.localtime()[:3]
        cause, cure = load("explain").explain(error, year=day, state=state)
    except (ImportError, MemoryError):
        return ""  # the number is printed
    cure = cure.replace(_SAME, "")
    if isinstance(error, errors.MQTTError):
        error.cure = cure
    return (cause and "; " + cause) + (cure and " -> " + cure)
