"""
session.py against a broker and a network that are a few lists: random publishing, acknowledging,
breaking, resuming, delivering, handling.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt_as_tls import packet
from mqtt_as_tls.session import Session
from tests.unit.test_session import Outgoing

some = st.integers(0, 10**6)


def pick(items, number):
    return items[number % len(items)]


def parse(buf):
    """Return (dup, packet id, payload) of a PUBLISH with QoS 1."""
    assert buf[0] & 6 == 2
    n = 2 + 2 + (buf[2] << 8 | buf[3])
    return bool(buf[0] & 8), buf[n] << 8 | buf[n + 1], bytes(buf[n + 2 :])


class OutMachine(RuleBasedStateMachine):
    """What the client sends: packet ids, order, DUP, window, acknowledgements."""

    @initialize(window=st.integers(1, 9), start=st.sampled_from([0, 1, 65530, 65534]))
    def begin(self, window, start):
        self.session = Session(window)
        self.session._id = start
        self.window = window
        self.count = 0
        self.queue = []  # what a client holds back, oldest first
        self.sent = []  # model: [payload, packet id] in flight in the order of their sending
        self.requests = {}
        self.stray = 0
        self.delivered = []  # at the broker, in its order
        self.now = (1 << 30) - 100

    def transmit(self, out):
        self.session.publish(out, self.now)
        dup, packet_id, payload = parse(out.packet)
        assert not dup
        assert packet_id == out.id
        assert packet_id not in [n for _, n in self.sent]
        assert packet_id not in self.requests
        self.sent.append([payload, packet_id])

    def pump(self):
        while self.queue and not self.session.full():
            self.transmit(self.queue.pop(0))

    @rule()
    def publish(self):
        self.count += 1
        self.queue.append(Outgoing(packet.publish(b"topic", b"%d" % self.count, 1), 1))
        self.pump()

    @rule(number=some)
    @precondition(lambda self: self.sent)
    def broker_acknowledges(self, number):
        payload, packet_id = pick(self.sent, number)
        out = self.session.acknowledged(packet_id)
        assert parse(out.packet)[2] == payload
        self.sent.remove([payload, packet_id])
        self.delivered.append(payload)
        self.pump()

    @rule(packet_id=st.integers(1, 65535))
    def broker_acknowledges_what_was_never_sent(self, packet_id):
        if packet_id not in [n for _, n in self.sent]:
            assert self.session.acknowledged(packet_id) is None
            self.stray += 1
        if packet_id not in self.requests:
            assert self.session.answered(packet_id) is None
            self.stray += 1

    @rule()
    def ask(self):
        if len(self.requests) < 20:
            record = object()
            n = self.session.request(record)
            assert n not in self.requests
            assert n not in [m for _, m in self.sent]
            self.requests[n] = record

    @rule(number=some)
    @precondition(lambda self: self.requests)
    def broker_answers(self, number):
        n = pick(sorted(self.requests), number)
        assert self.session.answered(n) is self.requests.pop(n)

    @rule(ms=st.integers(0, 50))
    def time_passes(self, ms):
        before = self.session.oldest_ms(self.now)
        self.now = (self.now + ms) % (1 << 30)
        assert self.session.oldest_ms(self.now) == (before + ms if self.sent else -1)

    @rule()
    def resume(self):
        again = self.session.resume(True, self.now)
        self.requests = {}
        assert [list(parse(out.packet)) for out in again] == [[True, n, p] for p, n in self.sent]
        assert [out.id for out in again] == [n for _, n in self.sent]
        assert self.session.oldest_ms(self.now) == (0 if self.sent else -1)

    @rule()
    def start_over(self):
        again = self.session.resume(False, self.now)
        self.requests = {}
        assert [parse(out.packet)[2] for out in again] == [p for p, _ in self.sent]
        assert [parse(out.packet)[0] for out in again] == [False] * len(again)
        assert self.session.inflight == []
        self.sent = []
        self.queue = again + self.queue
        self.pump()

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "session"):
            return
        session = self.session
        assert [[parse(out.packet)[2], out.id] for out in session.inflight] == self.sent
        used = [n for _, n in self.sent] + list(self.requests)
        assert len(set(used)) == len(used)
        assert all(0 < n < 65536 for n in used)
        assert session.requests == self.requests
        assert len(self.sent) <= self.window
        assert session.full() == (len(self.sent) == self.window)
        assert session.stray == self.stray
        # nothing is lost, nothing overtakes
        waiting = [int(p) for p, _ in self.sent] + [int(parse(o.packet)[2]) for o in self.queue]
        assert waiting == sorted(waiting)
        assert sorted(waiting + [int(p) for p in self.delivered]) == list(range(1, self.count + 1))


class Sent:
    """The broker's record of a message, and what the model knows about the client's."""

    def __init__(self, number, id, qos, payload):
        self.number = number
        self.id = id
        self.qos = qos
        self.payload = payload
        self.message = None  # what the client's handler has
        self.handled = 0  # times that a handler got it
        self.held = False  # the client knows it and did not acknowledge it
        self.stale = False  # not delivered on this connection
        self.released = False  # PUBREC came: only PUBREL is missing


class Message:
    topic = "topic"

    def __init__(self, id, qos, payload):
        self.id = id
        self.qos = qos
        self.payload = payload


class InMachine(RuleBasedStateMachine):
    """What the client receives: handled once, acknowledged in order, never too early."""

    @initialize()
    def begin(self):
        self.session = Session()
        self.count = 0
        self.unacked = []  # Sent, in the order in which the broker sent them first
        self.arrived = []  # Sent, on this connection and not acknowledged, in order of arrival
        self.to_send = []  # Sent, to be delivered again before anything new
        self.stray = 0

    def deliver(self, sent, dup):
        message = Message(sent.id, sent.qos, sent.payload)
        known = sent.held or (sent.qos == 2 and sent.handled)
        new = self.session.received(message, dup)
        assert new == (not known)
        if new:
            sent.handled += 1
            sent.message = message
        elif not sent.held:  # QoS 2 that waits for PUBREL: PUBREC once more
            sent.message = message
            assert message.done
        sent.held = True
        sent.stale = False
        if sent not in self.arrived:
            self.arrived.append(sent)

    @rule(number=some, qos=st.sampled_from([1, 1, 2]), payload=st.sampled_from([b"", b"x"]))
    @precondition(lambda self: not self.to_send and len(self.unacked) < 6)
    def broker_delivers(self, number, qos, payload):
        free = [n for n in range(1, 9) if n not in [s.id for s in self.unacked]]
        self.count += 1
        sent = Sent(self.count, pick(free, number), qos, payload)
        self.unacked.append(sent)
        self.deliver(sent, False)

    @rule()
    @precondition(lambda self: self.to_send)
    def broker_delivers_again(self):
        self.deliver(self.to_send.pop(0), True)

    @rule(number=some)
    @precondition(lambda self: [s for s in self.arrived if not s.released])
    def broker_repeats_on_a_live_connection(self, number):
        self.deliver(pick([s for s in self.arrived if not s.released], number), True)

    @rule(number=some)
    @precondition(lambda self: [s for s in self.unacked if s.message and not s.message.done])
    def a_handler_returns(self, number):
        running = [s.message for s in self.unacked if s.message and not s.message.done]
        pick(running, number).done = True

    @rule(number=some)
    @precondition(lambda self: [s for s in self.arrived if not s.message.done])
    def the_handler_of_an_arrived_message_returns(self, number):
        pick([s.message for s in self.arrived if not s.message.done], number).done = True

    @rule(lost=st.booleans(), most=st.integers(1, 9))
    def acknowledge(self, lost, most):
        """The client sends what is due; the network may lose it (before it breaks)."""
        for _ in range(most):
            ack = self.session.next_ack()
            if ack is None:
                assert not self.arrived or not self.arrived[0].message.done
                return
            sent = self.arrived.pop(0)
            assert sent.message.done and sent.handled
            assert ack == bytes((0x40 if sent.qos == 1 else 0x50, 2, 0, sent.id))
            sent.held = False
            if lost:
                continue
            if sent.qos == 1:
                self.unacked.remove(sent)
            else:
                sent.released = True

    @rule(number=some, lost=st.booleans())
    @precondition(lambda self: [s for s in self.unacked if s.released])
    def broker_releases(self, number, lost):
        sent = pick([s for s in self.unacked if s.released], number)
        known = sent.id in self.session._unreleased
        assert self.session.released(sent.id) == bytes((0x70, 2, 0, sent.id))
        self.stray += not known
        assert sent.handled == 1
        if not lost:  # else PUBREL comes again
            self.unacked.remove(sent)

    @rule()
    def resume(self):
        self.session.resume(True, 0)
        self.arrived = []
        self.to_send = [s for s in self.unacked if not s.released]
        for sent in self.to_send:
            if sent.stale and sent.message.done and sent.qos == 1:
                sent.held = False  # a whole connection did not deliver it: forgotten
            sent.stale = True

    @rule()
    def start_over(self):
        self.session.resume(False, 0)
        self.unacked, self.arrived, self.to_send = [], [], []

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "session"):
            return
        session = self.session
        assert session.stray == self.stray
        assert len(session._inbound) <= len(self.unacked)
        assert session.lingering() == sum(
            100 + len("topic") + len(s.payload) for s in self.arrived if s.message.done
        )
        for sent in self.unacked:
            if sent.qos == 2:
                assert sent.handled == 1


TestOutgoing = OutMachine.TestCase
TestIncoming = InMachine.TestCase
TestOutgoing.settings = TestIncoming.settings = settings(max_examples=150, stateful_step_count=60)
