"""
FileStore against a model that is a few lists: random use, resets, cuts at any byte of the last
change, failing writes. Bounds hold at every step.
"""

import shutil
import tempfile

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.test_store import LEAST, Journal, message, number, opened, state, used, write

some = st.integers(0, 10**6)
sizes = st.one_of(st.integers(8, 80), st.integers(8, LEAST // 4 - 10))


class StoreMachine(RuleBasedStateMachine):
    @initialize(full=st.sampled_from(["newest", "oldest"]))
    def begin(self, full):
        self.path = tempfile.mkdtemp(prefix="mqtt-store-")
        self.full = full
        self.journal = Journal()
        self.journal.__enter__()
        self.count = self.id = 0
        self.queue = []
        self.flight = []  # [number, id, received] in the order of the store's
        self.entries = {}  # number -> entry
        self.taken = None
        self.failed = False
        self.inbound = []
        self.store = opened(self.path, full=full)
        self.mark()

    def teardown(self):
        if hasattr(self, "journal"):
            self.store.close()
            self.journal.__exit__()
            shutil.rmtree(self.path)

    def mark(self):
        """Note what a cut during the next change may bring back."""
        self.before = self.expected()
        self.queued = len(self.queue)
        self.position = len(self.journal.changes)

    def expected(self):
        flight = [tuple(f) for f in self.flight if f[1] and not f[2]]
        flight += [tuple(f) for f in self.flight if f[1] and f[2]]
        waiting = [f[0] for f in self.flight if not f[1]]
        # what was taken is of the queue still, unless the log had to have it before
        behind = sorted(waiting, key=lambda n: n == self.taken)
        return [(flight, w + self.queue, sorted(self.inbound)) for w in (waiting, behind)]

    def next_id(self):
        self.id = self.id % 65535 + 1
        return self.id

    def pick(self, n, good):
        found = [f for f in self.flight if good(f)]
        return found[n % len(found)] if found else None

    @rule(size=sizes, qos=st.integers(0, 2))
    def put(self, size, qos):
        self.mark()
        self.count += 1
        n = self.store.dropped
        stored = self.store.put(message(self.count, size, qos))
        n = self.store.dropped - n
        assert n == 0 or self.full == "oldest"
        del self.queue[:n]
        if stored:
            self.queue.append(self.count)
        else:
            assert stored is False
            assert self.store.bytes > LEAST // 2 - size
            assert self.full == "newest" or not self.queue

    @rule(size=sizes, qos=st.integers(1, 2))
    def add(self, size, qos):
        self.mark()
        self.count += 1
        packet_id = self.next_id()
        n = self.store.dropped
        entry = self.store.add(message(self.count, size, qos), packet_id)
        n = self.store.dropped - n
        del self.queue[:n]
        if entry:
            assert entry[2] == packet_id
            self.entries[self.count] = entry
            self.flight.append([self.count, packet_id, 0])

    @rule()
    @precondition(lambda self: self.taken is None)
    def take(self):
        self.mark()
        found = self.store.next()
        waiting = self.expected()[0][1]
        again = [f[0] for f in self.flight if not f[1] and f[0] not in self.entries]
        if not waiting[len(waiting) - len(self.queue) - len(again) :]:
            assert found is None
            return
        entry, packet = found
        n = number(packet)
        assert n == (again or self.queue)[0]
        if not again:
            self.flight.append([self.queue.pop(0), 0, 0])
        self.entries[n] = entry
        self.taken = n

    @rule()
    @precondition(lambda self: self.taken is not None)
    def aside(self):
        """Others go before the one that was taken."""
        self.mark()
        f = [f for f in self.flight if f[0] == self.taken][0]
        self.flight.remove(f)
        self.flight.append(f)
        self.store.aside(self.entries[f[0]])
        self.taken = None

    @rule()
    def sent(self):
        """The one that was taken, or those of a session that was lost, in order."""
        again = [f for f in self.flight if not f[1] and f[0] in self.entries]
        if again:
            self.mark()
            f = again[0]
            f[1] = self.next_id()
            self.flight.remove(f)
            self.flight.append(f)
            self.store.sent(self.entries[f[0]], f[1])
            if f[0] == self.taken:
                self.taken = None

    @rule(n=some)
    def received(self, n):
        f = self.pick(n, lambda f: f[1] and not f[2])
        if f:
            self.mark()
            f[2] = 1
            self.flight.remove(f)
            self.flight.append(f)
            self.store.received(self.entries[f[0]])

    @rule(n=some)
    def done(self, n):
        f = self.pick(n, lambda f: f[0] in self.entries)
        if f:
            self.mark()
            self.flight.remove(f)
            self.store.done(self.entries.pop(f[0]))
            if f[0] == self.taken:
                self.taken = None

    @rule(packet_id=st.integers(1, 65534))
    def inbound_add(self, packet_id):
        self.mark()
        if packet_id not in self.inbound and len(self.inbound) < 100:
            self.inbound.append(packet_id)
            self.store.inbound_add(packet_id)

    @rule(n=some)
    @precondition(lambda self: self.inbound)
    def inbound_remove(self, n):
        self.mark()
        self.store.inbound_remove(self.inbound.pop(n % len(self.inbound)))

    @rule()
    def fresh(self):
        for f in [f for f in self.flight if f[2]]:
            self.flight.remove(f)
            self.store.done(self.entries.pop(f[0]))
        self.mark()
        for f in self.flight:
            f[1] = 0
        self.inbound = []
        self.store.fresh()

    @rule(closed=st.booleans())
    def reset(self, closed):
        if closed:
            self.store.close()
        self.load(*self.expected())

    def load(self, *expected):
        check = opened(self.path, full=self.full)
        found = state(check)
        check.close()
        assert found in expected
        assert check.damaged == 0 or self.failed
        self.store = opened(self.path, full=self.full)
        self.entries = {number(packet): entry for entry, packet in self.store.inflight()}
        self.flight = [[number(self.store._get(e)), *e[2:]] for e in self.store._flight]
        self.queue = found[1][len(self.flight) - len(found[0]) :]
        self.inbound = found[2]
        self.taken = None
        self.mark()

    @rule(n=some)
    def power_cut(self, n):
        """Somewhere in the last change: it is there, or it is not."""
        position = self.position
        total = sum(len(data or "x") for _, data in self.journal.changes[position:])
        if not total:
            return
        n %= total + 1
        self.failed = True  # what was cut off stays behind
        changes = []
        for name, data in self.journal.changes[position:]:
            size = len(data or "x")
            if n < size:
                if data and n:
                    changes.append((name, data[:n]))
                break
            changes.append((name, data))
            n -= size
        self.journal.changes[position:] = changes
        self.store.close()
        write(self.path, self.journal.files(len(self.journal.changes)))
        after = self.expected()
        # messages may have given way before the new one was there
        gave_way = []
        for flight, waits, inbound in self.before:
            n = len(waits) - self.queued
            for i in range(n, len(waits) + 1):
                gave_way.append((flight, waits[:n] + waits[i:], inbound))
        self.load(*self.before, *after, *(gave_way if self.full == "oldest" else ()))

    def change(self, fail, puts):
        """Put some and end what is in flight, while the flash fails after `fail` writes."""
        self.failed = True  # half a record stays behind
        self.journal.fail = fail
        for _ in range(puts):
            self.count += 1
            dropped = self.store.dropped
            stored = self.store.put(message(self.count))
            del self.queue[: self.store.dropped - dropped]
            if stored:
                self.queue.append(self.count)
        for f in list(self.flight):
            if f[0] in self.entries and f[1] and not f[2]:
                self.flight.remove(f)
                self.store.done(self.entries.pop(f[0]))
        self.journal.fail = None

    @rule(fail=st.integers(0, 12), puts=st.integers(0, 5))
    def flash_fails(self, fail, puts):
        """The memory goes on; the flash has it all again as soon as it takes a write."""
        self.change(fail, puts)
        self.mark()
        self.inbound.append(65535)
        self.store.inbound_add(65535)
        self.inbound.pop()
        self.store.inbound_remove(65535)
        self.mark()
        assert self.store.error is None
        self.store.errors = 0

    @rule(fail=st.integers(0, 12), puts=st.integers(0, 5))
    def reset_while_the_flash_fails(self, fail, puts):
        """What ended meanwhile may come again; all else is there, once and in order."""
        self.change(fail, puts)
        self.store.close()
        check = opened(self.path, full=self.full)
        found = flight, waiting, inbound = state(check)
        check.close()
        numbers = [f[0] for f in flight] + waiting
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) >= {f[0] for f in self.flight} | set(self.queue)
        assert [n for n in waiting if n in self.queue] == self.queue
        assert inbound == sorted(self.inbound)
        self.load(found)

    @invariant()
    def bounds_hold(self):
        if not hasattr(self, "store"):
            return
        assert len(self.store) == len(self.flight) + len(self.queue)
        assert self.store.waiting == len(self.queue)
        assert used(self.path) <= self.store.bytes <= LEAST
        assert self.store.errors == 0


StoreMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
test_random_use = StoreMachine.TestCase
