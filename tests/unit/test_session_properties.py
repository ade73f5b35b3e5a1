"""
session.py against a broker and a network that are a few lists: random publishing, acknowledging,
breaking, resuming, delivering, handling.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt_as_tls import packet
from mqtt_as_tls.session import Session
from tests.unit.test_session import PUBACK, PUBCOMP, PUBREC, Outgoing

PUBLISH = 0x30
PUBREL = 0x62

some = st.integers(0, 10**6)


def pick(items, number):
    return items[number % len(items)]


def parse(buf):
    """Return (dup, packet id, number) of a PUBLISH with QoS 1 or 2."""
    n = 2 + 2 + (buf[2] << 8 | buf[3])
    return bool(buf[0] & 8), buf[n] << 8 | buf[n + 1], int(buf[n + 2 :])


class Broker:
    """
    A broker that counts: it delivers a message when its PUBLISH comes, QoS 2 once per packet id
    until the PUBREL (section 4.3.3, method B).
    """

    def __init__(self):
        self.deliveries = {}  # number -> times
        self.first = []  # numbers in the order in which they came first
        self.forget()

    def forget(self):
        """Lose the session."""
        self.received = {}  # packet id of QoS 2 -> number, until PUBREL

    def takes(self, packet):
        """Process what the client sent; return the answer."""
        kind, n, qos, number = packet
        if kind == PUBREL:
            self.received.pop(n, None)
            return PUBCOMP, n
        if qos == 1 or n not in self.received:
            if number not in self.deliveries:
                self.first.append(number)
            self.deliveries[number] = self.deliveries.get(number, 0) + 1
        if qos == 1:
            return PUBACK, n
        assert self.received.setdefault(n, number) == number, "an id in use means another message"
        return PUBREC, n


class OutMachine(RuleBasedStateMachine):
    """
    What the client sends: ids, order, DUP, window, and how often the broker delivers it. The
    broker answers in any order, also twice; a cut loses whatever is under way.
    """

    @initialize(window=st.integers(1, 9), start=st.sampled_from([0, 1, 65530, 65534]))
    def begin(self, window, start):
        self.session = Session(window)
        self.session._id = start
        self.broker = Broker()
        self.count = 0
        self.qos = {}  # number -> QoS
        self.queue = []  # what a client holds back, oldest first
        self.up = []  # sent, not at the broker yet: (kind, packet id, qos, number)
        self.down = []  # answers under way: (kind, packet id)
        self.ids = {}  # packet id -> number, of what is in flight
        self.releasing = []  # packet ids, in the order of the PUBRECs
        self.requests = {}
        self.stray = 0
        self.done = set()  # numbers of which the publisher was told
        self.unknown = set()  # or told that nobody knows
        self.now = (1 << 30) - 100

    # The client around the session

    def pump(self):
        session = self.session
        while not session.full():
            queue = session.again or self.queue
            if not queue:
                break
            out = queue[0]
            known = out.id
            session.publish(out, self.now)
            if queue is self.queue:
                queue.pop(0)
            dup, n, number = parse(out.packet)
            assert n == out.id
            assert dup == (known != 0)
            if not known:
                assert n not in self.ids and n not in self.requests
                self.ids[n] = number
            assert self.ids[n] == number
            self.up.append((PUBLISH, n, out.qos, number))

    def answer(self, kind, n):
        number = self.ids.get(n)
        out = self.session.acknowledged(kind, n, self.now)
        if kind == PUBREC:
            if number is None:
                assert out is None
                self.stray += 1
            elif n not in self.releasing:
                self.releasing.append(n)
            self.up.append((PUBREL, n, 2, number))
        elif number is None or (kind == PUBCOMP and n not in self.releasing):
            assert out is None
            self.stray += 1
        else:
            assert parse(out.packet)[2] == number
            self.done.add(number)
            del self.ids[n]
            if kind == PUBCOMP:
                self.releasing.remove(n)
            times = self.broker.deliveries[number]
            assert times == 1 or self.qos[number] == 1
        self.pump()

    @rule(qos=st.sampled_from([1, 2]))
    def publish(self, qos):
        self.count += 1
        self.qos[self.count] = qos
        data = packet.publish(b"topic", b"%d" % self.count, qos)
        self.queue.append(Outgoing(data, qos))
        self.pump()

    # The broker and the network

    @rule(count=st.integers(1, 5))
    @precondition(lambda self: self.up)
    def broker_takes(self, count):
        for sent in self.up[:count]:
            self.down.append(self.broker.takes(sent))
        del self.up[:count]

    @rule(number=some)
    @precondition(lambda self: self.down)
    def an_answer_comes(self, number):
        answer = pick(self.down, number)
        self.down.remove(answer)
        self.answer(*answer)

    @rule(number=some)
    @precondition(lambda self: self.down)
    def an_answer_comes_twice(self, number):
        answer = pick(self.down, number)
        self.down.remove(answer)
        for _ in range(2):
            self.answer(*answer)

    @rule(packet_id=st.integers(1, 65535), kind=st.sampled_from([PUBACK, PUBREC, PUBCOMP]))
    def broker_acknowledges_what_was_never_sent(self, packet_id, kind):
        if packet_id not in self.ids:
            assert self.session.acknowledged(kind, packet_id) is None
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
            assert n not in self.ids
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
        assert self.session.oldest_ms(self.now) == (before + ms if self.ids else -1)

    def cut(self, window):
        self.up, self.down = [], []
        self.requests = {}
        self.session.max_inflight = window

    @rule(window=st.integers(1, 9))
    def resume(self, window):
        self.cut(window)
        assert self.session.resume(True, self.now) == []
        assert self.session.oldest_ms(self.now) == (0 if self.ids else -1)
        assert [out.id for out in self.session.releasing] == self.releasing
        for n in self.releasing:
            self.up.append((PUBREL, n, 2, self.ids[n]))
        self.pump()

    @rule(window=st.integers(1, 9))
    def start_over(self, window):
        self.cut(window)
        self.broker.forget()
        lost = self.session.resume(False, self.now)
        unknown = {parse(out.packet)[2] for out in lost}
        lost.clear()
        assert unknown == {number for number in self.ids.values() if self.qos[number] == 2}
        self.unknown |= unknown
        self.ids = {}
        self.releasing = []
        assert not self.session.releasing
        assert not [out for out in self.session.inflight if parse(out.packet)[0]]
        self.pump()

    @invariant()
    def agrees_with_the_model(self):
        if not hasattr(self, "session"):
            return
        session = self.session
        flying = session.inflight + session.releasing
        assert {out.id: parse(out.packet)[2] for out in flying if out.id} == self.ids
        used = list(self.ids) + list(self.requests)
        assert len(set(used)) == len(used)
        assert all(0 < n < 65536 for n in used)
        assert session.requests == self.requests
        assert session.stray == self.stray
        # the window: no more than it, but for what a larger one released already
        sent = len(flying) - len(session.again)
        assert sent <= max(session.max_inflight, len(self.releasing))
        assert session.full() == (sent >= session.max_inflight)
        assert session.full() or not (session.again or self.queue)
        # nothing overtakes
        orders = (
            self.broker.first,
            [parse(out.packet)[2] for out in session.inflight + self.queue],
            [parse(out.packet)[2] for out in session.again],
        )
        for numbers in orders:
            assert numbers == sorted(numbers)
        # nothing is lost, and nothing is delivered twice that must not be
        waiting = {parse(out.packet)[2] for out in flying + self.queue}
        assert waiting | self.done | self.unknown == set(range(1, self.count + 1))
        assert not waiting & (self.done | self.unknown)
        for number, times in self.broker.deliveries.items():
            assert times == 1 or self.qos[number] == 1
        assert self.done <= set(self.broker.deliveries)

    def teardown(self):
        """The network heals: everything is delivered."""
        if not hasattr(self, "session"):
            return
        self.resume(3)
        while self.up or self.down:
            if self.up:
                self.broker_takes(len(self.up))
            while self.down:
                self.an_answer_comes(0)
        assert self.done | self.unknown == set(range(1, self.count + 1))
        self.agrees_with_the_model()


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
    ack_code = 0

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

    @rule(lost=st.booleans(), most=st.integers(1, 9), no_memory=st.sampled_from([0, 0, 0, 1]))
    def acknowledge(self, lost, most, no_memory):
        """The client sends what is due; the network may lose it (before it breaks)."""
        for _ in range(most):
            message = self.session.next_ack()
            if message is None:
                assert not self.arrived or not self.arrived[0].message.done
                return
            sent = self.arrived.pop(0)
            assert message is sent.message and message.done and sent.handled
            if no_memory:  # for sending it: the connection ends
                self.resume()
                return
            self.session.inbound.remove(message)
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
        assert self.session.released(sent.id) == known
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
            if sent.message.done and (sent.qos == 2 or sent.stale):
                sent.held = False  # only its packet id is kept; QoS 1: not even that, after a
                # whole connection that did not deliver it
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
        assert len(session.inbound) <= len(self.unacked)
        assert session.lingering() == sum(
            100 + len("topic") + len(s.payload) for s in self.arrived if s.message.done
        )
        for sent in self.unacked:
            if sent.qos == 2:
                assert sent.handled == 1


TestOutgoing = OutMachine.TestCase
TestIncoming = InMachine.TestCase
TestOutgoing.settings = TestIncoming.settings = settings(max_examples=150, stateful_step_count=60)
