"""
A world around one Session: an app, what the client does with the session, a network that can be
cut anywhere, and a broker that is a few lists. Whatever happens in it, `check` and the assertions
on the way say what the specifications promise; `settle` brings it to its end.

Every event takes numbers and does nothing when it cannot happen, so that random numbers, or the
bytes of a fuzzer, can drive it.
"""

import shutil
import sys
import tempfile
import time
import types
from collections import Counter

from mqtt_as_tls import packet, packet5
from mqtt_as_tls.session import Session
from mqtt_as_tls.store import FileStore

# store_session.py needs a class of outbox.py, and that MicroPython's loop, which CPython lacks
sys.modules.setdefault("asyncio.core", types.ModuleType("asyncio.core"))
time.ticks_ms = lambda: time.monotonic_ns() // 1_000_000 % (1 << 30)
from mqtt_as_tls.outbox import Delivery  # noqa: E402
from mqtt_as_tls.store_session import StoredSession  # noqa: E402

PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK = 0x82, 0x90
REFUSED = 0x97
NOTHING_EXPIRES = types.SimpleNamespace(  # of mqtt5.Wire
    dated=lambda out: out.packet, restored=lambda buf: (buf, None)
)
STRAY = 30000  # packet ids from here on are nobody's
WRAP = 1 << 30  # of ticks
TOPIC = b"topic"


def pick(items, number):
    return items[number % len(items)]


class Message:
    """An inbound message, as the client has it."""

    topic = "topic"
    ack_code = 0
    done = stale = False

    def __init__(self, id, qos, payload):
        self.id = id
        self.qos = qos
        self.payload = payload
        self.size = 100 + len(self.topic) + len(payload)


class Sent:
    """What the broker has to deliver to the client."""

    def __init__(self, number, qos):
        self.number = number
        self.qos = qos
        self.id = 0
        self.released = False  # PUBREC came: only PUBREL is due


class Broker:
    """
    limit     int, messages that it has under way to the client at most
    at_once   bool, it delivers QoS 2 when the PUBLISH comes, else with its PUBREL (section 4.3.3)
    """

    def __init__(self, limit, at_once):
        self.limit = limit
        self.at_once = at_once
        self.delivered = Counter()  # number -> times
        self.refused = Counter()
        self.order = []  # numbers as their PUBLISH came first
        self.lost = set()  # numbers of its own that went with a session
        self.waiting = []  # Sent, not under way yet
        self.under_way = []  # Sent, in order
        self.forget()

    def forget(self):
        """Lose the session."""
        self.lost |= {sent.number for sent in self.under_way + self.waiting}
        self.exists = False
        self.received = {}  # packet id of QoS 2 -> number, until PUBREL
        self.next_id = 1
        self.waiting = []
        self.under_way = []
        self.answers = []
        self.repeated = set()

    def connected(self, receive_maximum):
        self.exists = True
        self.receive_maximum = receive_maximum
        self.quota = receive_maximum
        self.answers = []  # packets that it will send
        self.repeated = set()  # packet ids that it sent again on this connection
        self.sending = []  # packets of its own deliveries, in order
        for sent in self.under_way:
            if sent.released:
                self.sending.append((PUBREL, sent.id))
            else:
                self.sending.append((PUBLISH, sent.id, sent.qos, True, sent.number))
        self.deliver()

    def deliver(self):
        while self.waiting and len(self.under_way) < self.limit:
            sent = self.waiting.pop(0)
            # one that was sent again may be acknowledged twice
            used = self.repeated | {each.id for each in self.under_way}
            while self.next_id in used:
                self.next_id = self.next_id % 200 + 1
            sent.id = self.next_id
            self.next_id = self.next_id % 200 + 1
            self.under_way.append(sent)
            self.sending.append((PUBLISH, sent.id, sent.qos, False, sent.number))

    def takes(self, sent, refuse):
        """Process a packet of the client; `refuse`: say no to a message (MQTT 5)."""
        kind, n = sent[:2]
        if kind == PUBLISH:
            _, _, qos, dup, number = sent
            self.quota -= 1
            assert self.quota >= 0, "more messages than the Receive Maximum allows"
            if number not in self.order:
                self.order.append(number)
            if qos == 1:
                code = REFUSED if refuse else 0
                (self.refused if refuse else self.delivered)[number] += 1
                self.answers.append((PUBACK, n, code))
            elif n in self.received:
                assert dup, "a packet id in use without DUP"
                assert self.received[n] == number, "a packet id in use for another message"
                self.answers.append((PUBREC, n, 0))
            elif refuse:
                self.refused[number] += 1
                self.answers.append((PUBREC, n, REFUSED))
            else:
                self.received[n] = number
                self.delivered[number] += self.at_once
                self.answers.append((PUBREC, n, 0))
        elif kind == PUBREL:
            number = self.received.pop(n, None)
            if number is not None and not self.at_once:
                self.delivered[number] += 1
            self.answers.append((PUBCOMP, n, 0))
        elif kind == SUBSCRIBE:
            self.answers.append((SUBACK, n))
        else:
            for each in self.under_way:
                if each.id == n and each.qos == (1 if kind == PUBACK else 2):
                    break
            else:
                return None
            if kind == PUBREC and sent[2] < 128:
                each.released = True
                self.answers.append((PUBREL, n))
                return each
            self.under_way.remove(each)
            self.deliver()
            return each
        return None

    def said(self, answer):
        """`answer` is on its way."""
        if answer[0] in (PUBACK, PUBCOMP) or answer[0] == PUBREC and answer[2] > 127:
            self.quota = min(self.quota + 1, self.receive_maximum)


class World:
    """
    protocol  4 or 5
    stored    bool, the session is kept on flash, and the device can be reset
    window    int, max_inflight of the client
    first_id  int, the packet id that was used last
    limit     int, messages that the broker has under way at most
    at_once   bool, see Broker
    orderly   bool, the broker answers in order
    """

    def __init__(
        self, protocol=4, stored=False, window=3, first_id=0, limit=4, at_once=True, orderly=True
    ):
        self.wire = packet5 if protocol == 5 else packet
        self.five = protocol == 5
        self.max_inflight = window
        self.orderly = orderly
        self.broker = Broker(limit, at_once)
        self.folder = tempfile.mkdtemp(prefix="mqtt-model-") if stored else None
        self.now = WRAP - 100
        self.count = 0
        self.qos = {}  # number -> QoS, of all that the app published
        self.fate = {}  # number -> what became of it, as the app knows
        self.handled = Counter()  # number of an inbound message -> times
        self.finished = set()  # numbers whose handler returned
        self.inbound_qos = {}
        # inbound QoS 2 -> times that it may be handled once more: it was refused, or a reset made
        # the client forget it
        self.forgotten = Counter()
        self.kinds = {}  # number -> where it waits until it is sent: "queue" or "flash"
        self.newest = {}  # of each kind, the number that was sent last
        self.kept_back = set()  # numbers that are out of order for that
        self.rebooted = False
        self.unreleasable = False  # a program could not release what the one before it left
        self.stray = 0
        self.sent_before = {}  # number -> packet id, of what was sent in this session
        self.order = []  # numbers in the order of their first sending
        self.power_on(first_id)

    def close(self):
        if self.folder:
            self.session._store.close()
            shutil.rmtree(self.folder)

    # The client around the session: what client.py does

    def power_on(self, first_id=0):
        self.connected = self.taken_up = self.given_up = False
        self.news = False  # a message without DUP came on the last connection
        # handlers that ran when a connection began, the first one after such a message: what they
        # had stays until the next one
        self.running = 0
        self.queue = []
        self.requests = set()
        if self.folder:
            self.client = types.SimpleNamespace(
                max_inflight=self.max_inflight,
                max_queue=8192,
                client_id="me",
                clean_start=False,
                running=True,
                five=self.five and NOTHING_EXPIRES or None,
                failover=None,
                say=lambda text: None,
            )
            store = FileStore(self.folder, 65536)
            self.session = StoredSession(self.client, store)
            self.clean = self.five and not store.restored
        else:
            self.session = Session(self.max_inflight)
            self.clean = self.five
        self.session._id, self.session._free = first_id, 0
        self.arrived = []  # numbers on this connection that wait for their acknowledgement
        self.up, self.down = [], []
        self.awaiting_pubcomp = []  # packet ids, in the order of the PUBRECs
        if self.folder:
            self.awaiting_pubcomp = [out.id for out in self.session.awaiting_pubcomp]

    def parse(self, buf):
        """Return (dup, packet id, number) of a PUBLISH."""
        n = 2 + 2 + len(TOPIC)
        return bool(buf[0] & 8), buf[n] << 8 | buf[n + 1], int(buf[n + 2 + self.five :])

    def number(self, out):
        return self.parse(out.packet)[2]

    def used(self):
        """Return the packet ids in use."""
        session = self.session
        flying = session.inflight + session.awaiting_pubcomp + session.aside
        return [out.id for out in flying if out.id] + list(session.requests)

    def pump(self):
        session = self.session
        while self.connected:
            queue = session.to_resend or self.queue
            if not queue:
                out = self.folder and session.fetch()
                if not out:
                    return
                queue.append(out)
            out = queue[0]
            if out.qos == 2 and session.leftover and not session.releasing:
                self.release()
            if session.full():
                return
            fresh = not out.id
            used = self.used()
            again = queue is session.to_resend
            session.publish(out, self.now)
            if not again:
                queue.pop(0)
            dup, n, number = self.parse(out.packet)
            assert n == out.id and 0 < n < 65536
            assert out not in session.aside
            if fresh:
                assert n not in used, "a packet id that is in use"
            assert number not in self.on_this_connection, "sent twice on one connection"
            assert dup == (self.sent_before.get(number) == n and not fresh), "DUP"
            assert not (self.resending and not again), "a new message before a resent one"
            if again:
                assert self.resending.pop(0) == number, "not in the original order"
            elif not self.rebooted and number not in self.kept_back:
                kind = self.kinds[number]
                assert number > self.newest.get(kind, 0), "not in the order of publishing"
                self.newest[kind] = number
            if number not in self.order:
                self.order.append(number)
            self.on_this_connection.add(number)
            self.sent_before[number] = n
            self.up.append((PUBLISH, n, out.qos, dup, number))

    def release(self):
        """PUBREL goes out for what another program may have left."""
        session = self.session
        buf = bytes(session.release(self.now))
        assert session.releasing == session.leftover
        ids = [buf[i + 3] for i in range(0, len(buf), 4)]
        assert buf == b"".join(bytes((PUBREL, 2, 0, n)) for n in ids)
        flying = session.inflight + session.awaiting_pubcomp + session.aside
        own = [out.id for out in flying if out.qos == 2]
        assert not set(ids) & set(own), "PUBREL for one whose PUBREC did not come"
        self.up += [(PUBREL, n, 0) for n in ids]

    def comes(self, item):
        """A packet of the broker came."""
        session = self.session
        kind, n = item[:2]
        if kind == PUBLISH:
            self.arrives(*item[1:])
        elif kind == SUBACK:
            known = n in self.requests
            assert (session.answered(n) is not None) == known
            self.requests.discard(n)
            self.stray += not known
        elif kind == PUBREL:
            known = n in session.awaiting_pubrel
            again = [m.number for m in session.inbound if m.id == n and m.done]
            assert session.released(n) == known
            self.stray += not known
            if known and again and again[0] in self.arrived:
                self.arrived.remove(again[0])
            self.up.append((PUBCOMP, n, 0 if known else 146))
        else:
            self.acknowledged(kind, n, item[2])

    def acknowledged(self, kind, n, code):
        session = self.session
        waits = {out.id: out for out in session.inflight}
        releasing = {out.id: out for out in session.awaiting_pubcomp}
        expected = (releasing if kind == PUBCOMP else waits).get(n)
        if not expected and kind != PUBCOMP:
            expected = releasing.get(n)
        left = kind == PUBCOMP and session.releasing > 0 and session.leftover >> n & 1
        if not expected and left:
            expected = False
        out = session.acknowledged(kind, n, self.now, code > 127)
        assert out is expected
        self.stray += out is None
        if out is False:
            self.pump()
        elif kind == PUBREC and code < 128:
            self.up.append((PUBREL, n, 0 if out else 146))
            if out and out.qos == 2 and n not in self.awaiting_pubcomp:
                self.awaiting_pubcomp.append(n)
            if out and self.number(out) in self.resending:
                self.resending.remove(self.number(out))
        if out and out not in session.awaiting_pubcomp:
            number = self.number(out)
            if n in self.awaiting_pubcomp:
                self.awaiting_pubcomp.remove(n)
            if number in self.resending:
                self.resending.remove(number)
            assert out not in session.inflight + session.awaiting_pubcomp + session.to_resend
            if code > 127:
                self.fate[number] = "refused"
                assert self.broker.refused[number]
            else:
                self.fate[number] = "done"
                times = self.broker.delivered[number]
                assert times == 1 or times and out.qos == 1, "delivered %d times" % times
            self.pump()

    def arrives(self, n, qos, dup, number):
        session = self.session
        held = [m for m in session.inbound if m.number == number]
        self.news |= not dup
        message = Message(n, qos, b"%d" % number)
        message.number = number
        new = session.received(message, dup)
        if new:
            self.handled[number] += 1
            if qos == 2:
                most = 1 + self.forgotten[number]
                assert self.handled[number] <= most, "QoS 2 handled twice"
            assert not held, "handled twice, and the first time has no end yet"
            later = [m for m in self.handled if m > number]
            assert self.handled[number] > 1 or not later, "not in the order of sending"
        else:
            assert dup or qos == 2
            assert self.handled[number], "taken for one that was handled"
        if number not in self.arrived:
            self.arrived.append(number)
        self.acknowledge()

    def acknowledge(self, no_memory=False):
        """Acknowledge what is due; `no_memory`: there is none for the first."""
        session = self.session
        while self.connected:
            message = session.next_ack()
            if message is None:
                # the oldest that came on this connection is what it waits for
                waits = [m for m in session.inbound if not m.stale]
                assert not waits or not waits[0].done
                return
            assert message.done and message.number in self.finished, "acknowledged too early"
            assert message.number == self.arrived.pop(0), "not in the order of arrival"
            if no_memory:
                self.cut(0, 0)
                return
            kind = PUBACK if message.qos == 1 else PUBREC
            self.up.append((kind, message.id, message.ack_code))
            session.inbound.remove(message)

    # Events

    def publish(self, qos, flash=False):
        """The app publishes; `flash`: with enqueue()."""
        qos = qos % 2 + 1
        self.count += 1
        number = self.count
        self.qos[number] = qos
        self.fate[number] = "waits"
        self.kinds[number] = "queue"
        out = Delivery(self.wire.publish(TOPIC, b"%d" % number, qos), qos)
        flash = flash and self.folder
        if flash and self.session.keep(out, self.connected and not self.queue):
            self.kinds[number] = "flash"
        else:
            self.queue.append(out)
        self.pump()
        if flash and self.kinds[number] == "queue":
            assert out in self.session.inflight and out.entry, "kept in memory alone"

    def cancel(self, number):
        """A publisher stops waiting: it takes back what was not sent."""
        session = self.session
        aside = [out for out in session.aside if out not in self.queue]
        waiting = [out for out in self.queue + aside if out.awaited]
        if waiting:
            out = pick(waiting, number)
            out.awaited = False
            if not hasattr(out, "sent_ms"):
                session.drop(out)
                self.fate[self.number(out)] = "taken back"
            if out in self.queue:
                self.queue.remove(out)

    def ids_come_round(self, number):
        """So many messages came and went that a packet id in use is due again."""
        used = self.used()
        # what another program left at the broker is avoided by chance only
        if used and (self.folder or not self.rebooted):
            self.session._id = pick(used, number) - 1
            self.session._free = 0

    def subscribe(self):
        if self.connected and len(self.requests) < 9:
            used = self.used()
            n = self.session.request(object())
            assert 0 < n < 65536 and n not in used
            self.requests.add(n)
            self.up.append((SUBSCRIBE, n))

    def connect(self, present, window):
        """`present`: the broker still has the session; `window`: its Receive Maximum."""
        if self.connected:
            return
        broker = self.broker
        session = self.session
        if self.clean or not present:
            broker.forget()
        present = broker.exists
        receive_maximum = window % 5 + 1 if self.five else 65535
        session.max_inflight = min(self.max_inflight, receive_maximum)
        self.clean = not present
        flying = [self.number(out) for out in session.inflight]
        lost = session.inflight + session.awaiting_pubcomp + session.aside
        lost = [self.number(out) for out in lost if out.id]
        session.resume(present, self.now)
        self.unreleasable |= session.releasing < 0
        unknown = session.unknown
        if self.news or not present:
            self.running = len([m for m in session.inbound if not m.done])
        self.news = False
        while unknown:
            out = unknown.pop(0)
            if out in self.queue:  # kept back, and to be sent next
                self.queue.remove(out)
            number = self.number(out)
            assert self.qos[number] == 2 and number in lost and not present
            self.fate[number] = "unknown"
        if not present:
            assert not [n for n in lost if self.qos[n] == 2 and self.fate[n] != "unknown"]
            flying = [n for n in flying if self.qos[n] == 1]
            self.awaiting_pubcomp = []
            self.sent_before = {}
            assert not session.inbound and not session.awaiting_pubrel
        self.clean = False
        self.resending = flying
        self.on_this_connection = set()
        self.up, self.down, self.arrived = [], [], []
        self.requests = set()
        self.connected = self.taken_up = True
        self.given_up = False
        broker.connected(receive_maximum)
        assert session.requests == {}
        assert [out.id for out in session.awaiting_pubcomp] == self.awaiting_pubcomp
        assert session.oldest_ms(self.now) == (
            0 if session.inflight + session.awaiting_pubcomp else -1
        )
        for out in session.awaiting_pubcomp:
            self.up.append((PUBREL, out.id, 0))
        self.pump()

    def cut(self, arrived_up, arrived_down):
        """The connection ends; of what was under way so many packets still arrive."""
        if not self.connected:
            return
        for _ in range(arrived_down % 4):
            self.packet_comes(0)
        if not self.connected:  # no memory for one of them
            return
        self.broker_takes(arrived_up % 8)
        self.connected = False
        self.up, self.down = [], []

    def broker_takes(self, count, refuse=False):
        for item in self.up[:count]:
            each = self.broker.takes(item, refuse and self.five)
            if each and item[0] in (PUBACK, PUBREC):
                assert self.handled[each.number], "acknowledged and never handled"
        del self.up[:count]

    def broker_sends(self, number):
        """One of the packets that the broker has for the client goes on its way."""
        if not self.connected:
            return
        broker = self.broker
        if broker.answers and (number % 2 or not broker.sending):
            i = 0 if self.orderly else number // 2 % len(broker.answers)
            # those for one packet id stay in order
            i = [each[1] for each in broker.answers].index(broker.answers[i][1])
            answer = broker.answers.pop(i)
            broker.said(answer)
            self.down.append(answer)
        elif broker.sending:
            self.down.append(broker.sending.pop(0))

    def network(self, moves):
        """Packets move: each of `moves` (numbers) says which way."""
        for move in moves:
            if move % 3 == 0:
                self.broker_takes(1 + move // 3)
            elif move % 3 == 1:
                self.broker_sends(move // 3)
            else:
                self.packet_comes(0)

    def packet_comes(self, twice):
        if self.connected and self.down:
            item = self.down.pop(0)
            self.comes(item)
            # not after 65,535 messages, when the packet id means another
            ends = item[0] != PUBREC or item[2] > 127
            late = ends and item[1] in self.used()
            late = late or self.session._repeats > 20
            if twice and self.connected and item[0] not in (PUBLISH, PUBREL) and not late:
                self.comes(item)

    def broker_publishes(self, qos):
        if len(self.broker.waiting) < 20 and self.broker.exists:
            self.count += 1
            self.inbound_qos[self.count] = qos % 2 + 1
            self.broker.waiting.append(Sent(self.count, qos % 2 + 1))
            if self.connected:
                self.broker.deliver()

    def broker_repeats(self, number):
        """A broker that sends again on a live connection, as 3.1.1 allows it."""
        if not self.connected or self.five:
            return
        sending = {item[1] for item in self.broker.sending}
        sent = [s for s in self.broker.under_way if not s.released and s.id not in sending]
        if sent:
            each = pick(sent, number)
            # what the client has acknowledged already it may handle again (QoS 1)
            self.broker.repeated.add(each.id)
            self.down.append((PUBLISH, each.id, each.qos, True, each.number))

    def broker_strays(self, number):
        """An acknowledgement of what was never sent."""
        if self.connected:
            kind = pick((PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK), number)
            coming = [item for item in self.down if item[0] == PUBREC]
            if kind == PUBREC and self.session._repeats + len(coming) > 20:
                return  # it is not answered without end
            self.down.append((kind, STRAY + number // 5 % 9, 0))

    def broker_confuses(self, number):
        """An acknowledgement of the wrong kind, for a message that waits for another."""
        session = self.session
        broker = self.broker
        coming = broker.answers + self.down
        wrong = [(out.id, PUBCOMP) for out in session.inflight if not out.packet[0] & 8]
        wrong += [(out.id, PUBACK) for out in session.awaiting_pubcomp]
        for out in session.inflight:
            again = [each for each in self.up if each[:2] == (PUBLISH, out.id)]
            if out.qos == 1 and (PUBACK, out.id, 0) in coming and not again:
                wrong.append((out.id, PUBREC))
            elif out.qos == 2 and out.id in broker.received and not again:
                wrong.append((out.id, PUBACK))
        wrong = [each for each in wrong if each[0]]
        if self.connected and wrong:
            n, kind = pick(wrong, number)
            if kind != PUBCOMP:  # it ends the delivery
                self.up = [each for each in self.up if each[:2] != (PUBREL, n)]
                if kind == PUBACK:
                    broker.takes((PUBREL, n, 0), False)
                # it says nothing else
                for queue in (broker.answers, self.down):
                    queue[:] = [
                        each
                        for each in queue
                        if each[1] != n or each[0] not in (PUBACK, PUBREC, PUBCOMP)
                    ]
                broker.said((PUBACK, n))
            self.comes((kind, n, 0))

    def broker_acknowledges_late(self, number):
        """What came on an earlier connection, before it is sent again."""
        again = self.session.to_resend
        came = [out for out in again if out.id and self.broker.delivered[self.number(out)]]
        if self.connected and came:
            out = pick(came, number)
            if out.qos == 1 or out.id in self.broker.received:
                self.comes((PUBACK if out.qos == 1 else PUBREC, out.id, 0))

    def broker_drops(self, number):
        """A message of the broker expires between two connections; its id may go to the next."""
        sent = [each for each in self.broker.under_way if each.qos == 1]
        if not self.connected and sent:
            each = pick(sent, number)
            self.broker.under_way.remove(each)
            self.broker.lost.add(each.number)
            if number % 2:
                self.broker.next_id = each.id

    def handler_returns(self, number, code=0, no_memory=False):
        """A handler is done, in any order; `code`: it refuses the message (MQTT 5)."""
        running = [m for m in self.session.inbound if not m.done]
        if running:
            message = pick(running, number)
            if code and self.five:
                message.ack_code = REFUSED
                self.forgotten[message.number] += 1
            message.done = True
            self.finished.add(message.number)
            self.acknowledge(no_memory)

    def time_passes(self, ms):
        if not self.taken_up:  # when what comes from flash was sent is not known
            return
        self.now = (self.now + ms) % WRAP
        session = self.session
        flying = session.inflight + session.awaiting_pubcomp
        ages = [(self.now - out.sent_ms) % WRAP for out in flying]
        sent = [
            each for each, out in zip(ages, flying, strict=True) if out not in session.to_resend
        ]
        # what is to be sent again may have to wait for a window that became smaller
        oldest = session.oldest_ms(self.now)
        assert max(sent, default=-1) <= oldest
        assert oldest <= max(ages, default=-1) or session.releasing > 0

    def give_up(self):
        """The oldest message in flight broke too many connections."""
        if not self.connected and self.session.inflight:
            out = self.session.inflight[0]
            self.session.drop(out)
            if self.folder:
                self.session.forget(out)
            self.fate[self.number(out)] = "given up"
            self.clean = self.given_up = True

    def keep_back(self):
        """Connections end on the oldest message in flight: it is kept back."""
        if self.taken_up and not self.connected and self.session.inflight:
            out = self.session.inflight[0]
            self.session.drop(out, 0)
            self.kept_back.add(self.number(out))

    def keep_next(self):
        """The next one has to wait behind one that is kept back."""
        session = self.session
        if session.aside and self.queue and self.queue[0] not in session.aside:
            out = self.queue[0]
            if out.entry:
                session._store.aside(out.entry)
            session.drop(out, len(session.aside))
            self.queue.remove(out)
            self.kept_back.add(self.number(out))
            self.pump()

    def take_up(self):
        """One that is kept back is sent."""
        again = [out for out in self.session.aside if out not in self.queue]
        if self.connected and again:
            self.queue.insert(0, again[0])
            self.pump()

    def let_go(self):
        """What is kept back goes out: first what was sent before."""
        session = self.session
        for out in list(session.aside):
            if hasattr(out, "sent_ms") and out not in self.queue:
                session.inflight.append(out)
                session.aside.remove(out)
                out.sent_ms = self.now
                session.to_resend.append(out)
                if self.connected:
                    self.resending.append(self.number(out))
        for out in reversed(list(session.aside)):
            if out not in self.queue:
                self.queue.insert(0, out)
                session.drop(out)
        self.pump()

    def reset(self):
        """
        The device loses its power; what is on flash comes back. Without a store it is another
        program that finds the session (MQTT 3.1.1).
        """
        if self.five and not self.folder:
            return
        self.cut(0, 0)
        if self.given_up:  # a reset now forgets that the session has to be a new one
            self.connect(True, 2)
            self.cut(0, 0)
        session = self.session
        flying = session.inflight + session.awaiting_pubcomp + session.aside
        # what was sent once stays there, also when the broker lost the session
        self.kinds |= {self.number(out): "flash" for out in flying + self.queue if out.entry}
        kept = {n for n, kind in self.kinds.items() if kind == "flash"}
        for number, fate in self.fate.items():
            if fate == "waits" and number not in kept:
                self.fate[number] = "died with the app"
        if self.folder:
            known = set(session.awaiting_pubrel)
            session._store.close()
        else:
            known = set()
        self.now = (self.now + 9999) % WRAP
        for sent in self.broker.under_way:
            if sent.qos == 2 and sent.id not in known and self.handled[sent.number]:
                self.forgotten[sent.number] += 1
        self.rebooted = True
        self.sent_before = {n: i for n, i in self.sent_before.items() if n in kept}
        self.power_on()
        for out in self.session.inflight + self.session.awaiting_pubcomp:
            assert self.number(out) in kept

    # What is always true

    def check(self):
        session = self.session
        flying = session.inflight + session.awaiting_pubcomp
        numbers = [self.number(out) for out in flying + session.aside]
        assert len(set(numbers)) == len(numbers)
        ids = self.used()
        assert len(set(ids)) == len(ids)
        assert set(session.requests) == self.requests or not self.connected
        assert session.stray == self.stray or self.rebooted
        assert [out.id for out in session.awaiting_pubcomp] == self.awaiting_pubcomp
        assert [out for out in session.inflight if out in session.to_resend] == session.to_resend
        sent = len(flying) - len(session.to_resend)
        assert session.full() == (sent >= session.max_inflight or session.releasing > 0)
        if self.connected:
            assert session.full() or not (session.to_resend or self.queue)
        # what the app was not told of is somewhere
        waits = {n for n, fate in self.fate.items() if fate == "waits"}
        here = set(numbers) | {self.number(out) for out in self.queue}
        assert here <= waits
        for n in waits - here:
            assert self.folder and self.kinds[n] == "flash", "lost"
        # a handler may run for ever; all else has an end
        done = len([m for m in session.inbound if m.done])
        assert done <= 2 * self.broker.limit + self.running
        assert session.lingering() == sum(
            100 + len("topic") + len(m.payload) for m in session.inbound if m.done and not m.stale
        )
        for number, times in self.broker.delivered.items():
            assert times <= 1 or self.qos[number] == 1, "QoS 2 delivered twice"

    def settle(self):
        """The network heals, every handler returns: nothing is left, and nothing was lost."""
        self.finish()
        broker = self.broker
        if self.rebooted and broker.received:
            self.publish(1)
            self.finish()
        self.check()
        session = self.session
        assert not (
            session.inflight or session.awaiting_pubcomp or session.to_resend or self.queue
        )
        assert not session.aside
        assert not session.requests and not session.awaiting_pubrel and not session.unknown
        assert not [m for m in session.inbound if not m.stale]
        assert not broker.under_way and not broker.waiting
        assert not broker.received or self.unreleasable
        assert "waits" not in self.fate.values(), "lost"
        for number, fate in self.fate.items():
            times = broker.delivered[number]
            if fate == "done":
                assert times >= 1 if self.qos[number] == 1 else times == 1
            elif fate == "taken back":
                assert not times
        for number in self.inbound_qos:
            if number not in broker.lost:
                assert self.handled[number], "never handled"
        for _ in range(9):  # nothing new comes on any of them
            self.cut(0, 0)
            self.connect(True, 2)
        assert not session.inbound
        if self.folder:
            assert len(session._store) == 0 and not session._store.inbound

    def finish(self):
        """All that is under way comes to its end."""
        self.connect(True, 2)
        broker = self.broker
        for _ in range(9999):
            if not self.connected:
                self.connect(True, 2)
            self.broker_takes(9)
            self.broker_sends(1)
            self.broker_sends(0)
            self.packet_comes(0)
            self.handler_returns(0)
            self.take_up()
            under_way = self.up or self.down or broker.answers or broker.sending
            if not (under_way or self.session.aside) and all(m.done for m in self.session.inbound):
                break
