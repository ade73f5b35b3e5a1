"""
The session state of a client (MQTT 3.1.1 sections 4.1, 4.3, 4.4, 4.6): packet ids, what is in
flight, what to send again and in which order, what is acknowledged and when.

It outlives every connection. No I/O and no clock: milliseconds are passed in.
"""

from micropython import const

from . import packet
from .errors import ProtocolError

_PUBACK = const(0x40)
_PUBREC = const(0x50)
_PUBCOMP = const(0x70)

_UNRELEASED = const(256)  # the most QoS 2 messages that may wait for their PUBREL
_OVERHEAD = const(100)  # bytes that a message takes besides its topic and payload
_TICKS = const(0x3FFFFFFF)  # time.ticks_ms() wraps at a power of two, not below this one


class Session:
    """
    One session with one broker.

    max_inflight  int, the most QoS 1 messages that wait for their acknowledgement at a time

    An outgoing message is an object with these attributes:

    packet   bytearray, an encoded PUBLISH; its packet id and DUP flag are written here
    qos      int
    id       int, packet id; 0 until it is in flight
    sent_ms  int, when it was last handed to a connection
    """

    def __init__(self, max_inflight=8):
        self.max_inflight = max_inflight
        self.inflight = []  # outgoing, in the order of their first sending
        self.requests = {}  # packet id of SUBSCRIBE and UNSUBSCRIBE -> the client's record
        self.stray = 0  # acknowledgements that nothing waits for
        self._id = 0
        self._inbound = []  # messages not acknowledged yet, in the order of their arrival
        # packet ids of QoS 2 messages acknowledged with PUBREC; no set: MicroPython's is broken by
        # a MemoryError in add()
        self._unreleased = {}

    def full(self):
        """Return whether another QoS 1 message has to wait for an acknowledgement."""
        return len(self.inflight) >= self.max_inflight

    def _next_id(self):
        # 1 to 65535, none that is in use ([MQTT-2.3.1-1, -2])
        while True:
            self._id = n = self._id % 65535 + 1
            for out in self.inflight:
                if out.id == n:
                    break
            else:
                if n not in self.requests:
                    return n

    def publish(self, out, now_ms):
        """Put the outgoing QoS 1 message `out` in flight: its packet is ready to be sent."""
        out.id = n = self._next_id()
        packet.set_id(out.packet, n)
        out.sent_ms = now_ms
        self.inflight.append(out)

    def request(self, record):
        """
        Return a packet id for a SUBSCRIBE or UNSUBSCRIBE that `record` (any object but None)
        stands for.
        """
        n = self._next_id()
        self.requests[n] = record
        return n

    def answered(self, packet_id):
        """Return the record whose SUBACK or UNSUBACK came, or None for one that nobody sent."""
        record = self.requests.pop(packet_id, None)
        if record is None:
            self.stray += 1
        return record

    def acknowledged(self, packet_id):
        """Return the outgoing message whose PUBACK came, or None; late and repeated ones count."""
        for out in self.inflight:
            if out.id == packet_id and out.qos == 1:
                self.inflight.remove(out)
                return out
        self.stray += 1
        return None

    def oldest_ms(self, now_ms):
        """Return how long the oldest message in flight has waited, in ms; -1: there is none."""
        if not self.inflight:
            return -1
        return (now_ms - self.inflight[0].sent_ms) & _TICKS

    def resume(self, present, now_ms):
        """
        Take up the session on a new connection, after CONNACK (section 4.4).

        present  bool, session present

        Returns the messages that were in flight (list), oldest first. With `present`
        they are still in flight, DUP set, to be sent again before anything else ([MQTT-4.6.0-1]).
        Without it they are new ones, to be published again. Requests are forgotten: their answer
        belonged to the connection.
        """
        again = self.inflight
        inbound = self._inbound
        self.requests = {}
        self._inbound = []
        if not present:
            self.inflight = []
            self._unreleased = {}
        for out in again:
            packet.set_dup(out.packet, present)
            out.sent_ms = now_ms
            if not present:
                out.id = 0
        for message in inbound:
            # what was handled and not delivered again on a whole connection never will be
            if present and not (message.stale and message.done and message.qos == 1):
                message.stale = True
                self._inbound.append(message)
        return list(again)

    def received(self, message, dup):
        """
        Note an inbound QoS 1 or 2 message.

        message  object with id, qos, topic, payload; `done` and `stale` are kept on it
        dup      bool, the DUP flag of its PUBLISH

        Returns True when it is new and has to be handled; False for a redelivery of one that is
        being handled or was handled ([MQTT-4.3.3-2]).

        Raises ProtocolError when over 256 messages with QoS 2 wait for PUBREL.
        """
        message.done = message.stale = False
        inbound = self._inbound
        for old in inbound:
            if old.id != message.id:
                continue
            same = dup and old.topic == message.topic and old.payload == message.payload
            if same or (old.qos == 2 and not old.stale):
                if old.stale:  # its place is now that of the redelivery
                    old.stale = False
                    inbound.remove(old)
                    inbound.append(old)
                return False
            inbound.remove(old)  # the broker forgot it and uses its id again
            break
        if message.qos == 2:
            if message.id in self._unreleased:
                message.done = True
            elif len(self._unreleased) + len(inbound) >= _UNRELEASED:
                raise ProtocolError("QoS 2 messages without end and no PUBREL (section 4.3.3)")
        inbound.append(message)
        return not message.done

    def lingering(self):
        """
        Return the bytes of messages that were handled and still wait for their acknowledgement
        behind an earlier one.
        """
        n = 0
        for message in self._inbound:
            if message.done and not message.stale:
                n += _OVERHEAD + len(message.topic) + len(message.payload)
        return n

    def next_ack(self):
        """
        Return the acknowledgement (bytes) to be sent next, or None. They go in the order of
        arrival ([MQTT-4.6.0-2]), each once its message is `done`; a message of an earlier
        connection waits until the broker delivered it again.
        """
        for message in self._inbound:
            if message.stale:
                continue
            if not message.done:
                break
            ack = packet.ack(_PUBACK if message.qos == 1 else _PUBREC, message.id)
            if message.qos == 2:
                self._unreleased[message.id] = True
            self._inbound.remove(message)
            return ack
        return None

    def released(self, packet_id):
        """Return the PUBCOMP (bytes) for a PUBREL, known or not (section 4.3.3)."""
        if packet_id in self._unreleased:
            del self._unreleased[packet_id]
        else:
            self.stray += 1
        return packet.ack(_PUBCOMP, packet_id)
