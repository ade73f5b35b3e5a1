"""
The session state of a client (MQTT 3.1.1 sections 4.1, 4.3, 4.4, 4.6): packet ids, what is in
flight, what to send again and in which order, what is acknowledged and when.

It outlives every connection. No I/O and no clock: milliseconds are passed in.

The rule of its lists: an outgoing message is in `inflight` or in `awaiting_pubcomp`, never in
both, and what is in `to_resend` is in `inflight` too, in the same order. Nobody but a Session
changes them: who gives a message up, or keeps it back in `aside`, calls `drop`. What was sent
is in one of them: module aside moves what it keeps back no longer to `inflight` and `to_resend`.
"""

from micropython import const

from . import packet

_PUBACK = const(0x40)
_PUBREC = const(0x50)
_PUBREL = const(0x62)
_PUBCOMP = const(0x70)

_AWAITING_PUBREL = const(256)  # QoS 2 messages that wait for their PUBREL: more are forgotten
_REPEATS = const(32)  # PUBRECs in a row that no PUBLISH waits for, and that are answered
_FORGOTTEN = const(-65536)  # in `odd`
_FEW = const(16)  # packet ids that QoS 2 takes: so few that what a program left can be released
_TICKS = const(0x3FFFFFFF)  # time.ticks_ms() wraps at a power of two, not below this one


def _find(those, packet_id):
    for message in those:
        if message.id == packet_id:
            return message
    return None


class Session:
    """
    One session with one broker.

    max_inflight  int, the most QoS 1 and 2 messages that wait for their last acknowledgement
    anew          bool, the broker's side of it is to begin now

    An outgoing message is an object with these attributes:

    packet   bytearray, an encoded PUBLISH; its packet id and DUP flag are written here
    qos      int
    id       int, packet id; 0 until it is in flight
    sent_ms  int, when it (or its PUBREL) was last handed to a connection
    """

    stray = 0  # acknowledgements that nothing waits for
    _repeats = 0  # PUBRECs in a row that no PUBLISH waited for

    def __init__(self, max_inflight=8, anew=False):
        self._id = 0  # the packet id that was used last
        self._free = 0  # how many after it are known to be free
        self._two = -1  # that of the first ones which QoS 2 used last; -1: no connection so far
        # what is odd about the broker's acknowledgements, for texts.odd: each kind once, as
        # `kind << 16` and a packet id
        self.odd = []
        # bit n: the broker may still have that id, from a QoS 2 message of an earlier program
        self.leftover = 0
        # what `leftover` was when PUBREL went out for it on this connection; 0: it did not;
        # -1: the broker does not answer that
        self.releasing = 0
        self.unsure = False  # that of this connection may have begun after ours
        self._quiet = 0  # connections since a message without DUP came
        # why the next CONNECT has to be clean, the broker's side being another than ours (str, for
        # people); None: it has not
        self.discard = "" if anew else None
        self.max_inflight = max_inflight
        self.inflight = []  # outgoing, in the order of their first sending
        self.to_resend = []  # those of them that this connection has to carry once more
        self.awaiting_pubcomp = []  # QoS 2 whose PUBREC came, in that order
        self.aside = []  # kept back, sent before (they have their packet ids) or not
        self.requests = {}  # packet id of SUBSCRIBE and UNSUBSCRIBE -> the client's record
        self.asked_ms = 0  # when the last of those was sent
        self.inbound = []  # messages not acknowledged yet, in the order of their arrival
        self.awaiting_pubrel = []  # packet ids of QoS 2 messages that had their PUBREC
        # QoS 2 messages of a lost session, maybe delivered: who tells of one takes it off
        self.unknown = []

    def full(self):
        """Return whether another QoS 1 or 2 message has to wait for an acknowledgement."""
        if self.releasing > 0:
            return True
        sent = len(self.inflight)
        if self.awaiting_pubcomp or self.to_resend:
            sent += len(self.awaiting_pubcomp) - len(self.to_resend)
        return sent >= self.max_inflight

    def _next_id(self, qos):
        # 1 to 65535, none that is in use ([MQTT-2.3.1-1, -2]). The first are QoS 2's when the
        # others are beyond them, and stay there: what was acknowledged just before, and is once
        # more, has another
        if qos == 2 and self._id >= _FEW and not self.leftover:
            flying = self.inflight + self.awaiting_pubcomp + self.aside
            for _ in range(_FEW):
                self._two = n = self._two % _FEW + 1
                if n not in self.requests and not _find(flying, n):
                    return n
        while not self._free:
            self._look()
        self._free -= 1
        self._id += 1
        return self._id

    def _look(self):
        # how many of the next ids are free; when it is none, pass over the next one
        n = self._id
        if n == 65535:
            n = self._id = _FEW
        free = 65535 - n
        for out in self.inflight + self.awaiting_pubcomp + self.aside:
            if out.id > n:
                free = min(free, out.id - n - 1)
        for used in self.requests:
            if used > n:
                free = min(free, used - n - 1)
        self._free = free
        if not free:
            self._id = n + 1

    def publish(self, out, now_ms):
        """
        Put the outgoing QoS 1 or 2 message `out` in flight, or take it from `to_resend` or
        `aside`: its packet is ready to be sent.
        """
        again = out in self.to_resend
        out.sent_ms = now_ms
        n = out.id
        if not n:
            n = self._next_id(out.qos)
            out.id = 0  # a place for it: till here, and in the next line, there may be no memory
        if not again:
            self.inflight.append(out)
        if out.id != n:
            out.id = n
            packet.set_id(out.packet, n)
        if again:
            self.to_resend.remove(out)
        elif out in self.aside:
            self.aside.remove(out)

    def request(self, record, now_ms=0):
        """
        Return a packet id for a SUBSCRIBE or UNSUBSCRIBE that `record` (any object but None)
        stands for.
        """
        self.asked_ms = now_ms
        n = self._next_id(1)
        self.requests[n] = record
        return n

    def answered(self, packet_id):
        """Return the record whose SUBACK or UNSUBACK came, or None for one that nobody sent."""
        record = self.requests.pop(packet_id, None)
        if record is None:
            self.stray += 1
        return record

    def acknowledged(self, kind, packet_id, now_ms=0, refused=False):
        """
        Note a PUBACK, PUBREC or PUBCOMP (`kind`, int: its first byte) (section 4.3).

        refused  bool, its reason code says no (MQTT 5); None: no PUBCOMP came, as the broker does
                 not answer PUBREL. Should it have the message after all, it is released with what
                 an earlier program left

        Returns the outgoing message that it is for; None when there is none: late and repeated
        ones are counted; False when it is for what an earlier program left. After a PUBREC that is
        not `refused` a message with QoS 2 waits for PUBCOMP. What brokers without this QoS answer
        instead ends the delivery, or the message would be sent for ever: a PUBACK with QoS 2, a
        PUBREC with QoS 1, a PUBCOMP instead of the PUBREC for what was sent twice, and PUBREC to
        PUBREL again and again. `odd` says so.
        """
        out = _find(self.awaiting_pubcomp if kind == _PUBCOMP else self.inflight, packet_id)
        if out is None or (kind == _PUBACK) != (out.qos == 1):
            return self._unexpected(kind, packet_id, refused)
        if kind == _PUBCOMP:
            self.awaiting_pubcomp.remove(out)
            if refused is None and out.id <= _FEW:
                self.leftover |= 1 << out.id
                self.releasing = 0
            return out
        if kind == _PUBREC and not refused:
            out.sent_ms = now_ms
            self.awaiting_pubcomp.append(out)
            self._repeats = 0
        self.drop(out)
        return out

    def _unexpected(self, kind, packet_id, refused):
        # an acknowledgement for which no message waits, or one with another QoS
        if kind == _PUBCOMP and self.releasing > 0 and self.leftover >> packet_id & 1:
            self.leftover ^= 1 << packet_id
            if not self.leftover:
                self.releasing = 0
            return False
        out = _find(self.inflight, packet_id) or _find(self.awaiting_pubcomp, packet_id)
        if out and kind == _PUBCOMP and not out.packet[0] & 8:
            out = None  # it was sent once only
        odd = kind + out.qos if out else kind
        if kind == _PUBREC and odd != _PUBREC + 1:
            self._repeats += 1
            if self._repeats > _REPEATS:
                odd = 3  # without end
            elif out and not refused:
                return out  # it was repeated
        new = not (out and refused)  # else it is no more than that
        for each in self.odd:
            # what nothing waits for may follow from what was noted
            new = new and each >> 16 != odd and odd & 3
        if new:
            self.odd.append(odd << 16 | packet_id)  # first: there may be no memory
        if not out:
            self.stray += 1
            return False if odd == 3 else None
        if out in self.awaiting_pubcomp:
            self.awaiting_pubcomp.remove(out)
        self.drop(out)
        return out

    def release(self, now_ms):
        """
        Return PUBREL for the ids that an earlier program may have left (section 4.3.3), one behind
        the other (bytearray). Until each has its PUBCOMP, known to the broker or not, `full` says
        True.

        The broker keeps a message whose PUBREL never came, and its packet id. mosquitto counts it
        against max_inflight_messages (20), and throws away what is beyond that, with a PUBREC as
        if it had taken it.
        """
        left = self.leftover
        for out in self.inflight + self.awaiting_pubcomp + self.aside:
            if out.qos == 2 and left >> out.id & 1:  # not left over, but ours
                left ^= 1 << out.id
        buf = bytearray()
        for n in range(1, _FEW + 1):
            if left >> n & 1:
                buf.extend(packet.ack(_PUBREL, n))
        self.leftover = self.releasing = left
        self.asked_ms = now_ms
        return buf

    def drop(self, out, kept_at=None):
        """
        The outgoing message `out` is not to be sent any more, if it was in flight or kept back;
        or it is kept back as of now, at the index `kept_at` of `aside`.
        """
        if kept_at is not None:
            self.aside.insert(kept_at, out)  # first: there may be no memory
        elif out in self.aside:
            self.aside.remove(out)
        if out in self.inflight:
            self.inflight.remove(out)
        if out in self.to_resend:
            self.to_resend.remove(out)

    def postpone(self, now_ms):
        """What waits for an answer does so from now on."""
        self.asked_ms = now_ms
        for waiting in (self.inflight, self.awaiting_pubcomp):
            for out in waiting:
                out.sent_ms = now_ms

    def oldest_ms(self, now_ms):
        """Return how long the oldest message in flight has waited, in ms; -1: there is none."""
        age = -1
        if self.releasing > 0:
            age = (now_ms - self.asked_ms) & _TICKS
        for waiting in (self.inflight, self.awaiting_pubcomp):
            if waiting:
                age = max(age, (now_ms - waiting[0].sent_ms) & _TICKS)
        return age

    def resume(self, present, now_ms, unsure=False):
        """
        Take up the session on a new connection, after CONNACK (section 4.4).

        present  bool, session present
        unsure   bool, an earlier CONNECT was not answered: it may have begun that session

        What was in flight still is: PUBREL has to be sent for all in `awaiting_pubcomp`, then all
        in `to_resend` through `publish`, before any other ([MQTT-4.4.0-1, -4.6.0-1]). Their DUP
        flag is set; without a session they are new ones. What is kept back stays so. Requests are
        forgotten: their answer belonged to the connection. When the session is lost, what QoS 2
        had in flight goes to `unknown`.
        """
        kept = []
        self._repeats = 0
        self.requests = {}
        self.unsure = unsure
        self._free = 0
        if self.releasing > 0:  # once more, if some were answered
            self.releasing = -(self.releasing == self.leftover)
        if not present:
            self.leftover = self.releasing = 0
            unknown = self.unknown + self.awaiting_pubcomp
            again = []
            aside = []
            for out in self.inflight + self.aside:
                those = aside if out in self.aside else again
                (unknown if out.qos == 2 and out.id else those).append(out)
            self.inflight, self.aside, self.awaiting_pubcomp, self.awaiting_pubrel = (
                again,
                aside,
                [],
                [],
            )
            self.unknown = unknown
        elif self._two < 0:  # what an earlier program used may still be taken at the broker
            # spread: each boot comes here after as long
            self._id = now_ms * 7919 % (65535 - _FEW) + _FEW
            self.leftover = (1 << _FEW) - 1 << 1
        self._two = max(self._two, 0)
        self.to_resend = list(self.inflight)
        for out in self.to_resend + self.aside:
            if not present:
                out.id = 0
            packet.set_dup(out.packet, out.id > 0)
        self.postpone(now_ms)
        for message in self.inbound if present else ():
            # of what is handled only PUBREC is missing; or it was not delivered again on a whole
            # connection, and never will be
            if not message.done or not (
                self._awaits(message) or message.stale and not 0 < self._quiet < 9
            ):
                message.stale = True
                kept.append(message)
        self.inbound = kept
        self._quiet += 1
        self.discard = None

    def received(self, message, dup):
        """
        Note an inbound QoS 1 or 2 message.

        message  object with id, qos, topic, payload, size (in bytes), ack_code (of the
                 acknowledgement: 0 and 16 take it); `done` and `stale` are kept on it
        dup      bool, the DUP flag of its PUBLISH

        Returns True when it is new and has to be handled; False for a redelivery of one that is
        being handled or was handled ([MQTT-4.3.3-2]).
        """
        message.done = message.stale = False
        inbound = self.inbound
        old = _find(inbound, message.id) if inbound else None
        if old is not None:
            same = dup and old.topic == message.topic and old.payload == message.payload
            if same or (old.qos == 2 and not old.stale):
                if old.stale:  # its place is now that of the redelivery
                    old.stale = False
                    inbound.remove(old)
                    inbound.append(old)
                return False
            inbound.remove(old)  # the broker forgot it and uses its id again
        if not dup:  # a broker that has something new has sent again what it had to
            self._quiet = 0
        if message.qos == 2 and message.id in self.awaiting_pubrel:
            message.done = dup or not self.unsure
        inbound.append(message)
        return not message.done

    def lingering(self):
        """
        Return the bytes of messages that were handled and still wait for their acknowledgement
        behind an earlier one.
        """
        n = 0
        for message in self.inbound:
            if message.done and not message.stale:
                n += message.size
        return n

    def next_ack(self):
        """
        Return the message to be acknowledged next, with PUBACK or PUBREC, or None; take it from
        `inbound` once that is sent. They go in the order of arrival ([MQTT-4.6.0-2]), each once it
        is `done`; a message of an earlier connection waits until the broker delivered it again.
        """
        for message in self.inbound:
            if message.stale:
                continue
            if not message.done:
                break
            self._awaits(message)
            return message
        return None

    def _awaits(self, message):
        # returns whether PUBREL follows its acknowledgement
        if message.qos != 2 or message.ack_code not in (0, 16):  # it is refused
            return False
        waiting = self.awaiting_pubrel
        n = message.id
        if n not in waiting:
            if len(waiting) >= _AWAITING_PUBREL:
                if _FORGOTTEN not in self.odd:
                    self.odd.append(_FORGOTTEN)
                waiting.pop(0)  # the one that is least likely to come again
            waiting.append(n)
        return True

    def released(self, packet_id):
        """
        Note a PUBREL; it is answered with PUBCOMP, known or not (section 4.3.3). Returns whether
        it was known.
        """
        if packet_id in self.awaiting_pubrel:
            self.awaiting_pubrel.remove(packet_id)
            message = _find(self.inbound, packet_id)
            if message:  # delivered again meanwhile: no PUBREC is due any more
                self.inbound.remove(message)
            return True
        self.stray += 1
        return False
