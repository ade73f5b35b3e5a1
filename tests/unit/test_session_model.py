"""session.py and stored.py in a world where anything may happen at any time, by hypothesis."""

import types

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.session_model import FileStore, Message, StoredSession, World

CPYTHON_ONLY = True

some = st.integers(0, 20)
few = st.integers(0, 9)
seldom = st.sampled_from([0, 0, 0, 1])
present = st.sampled_from([True, True, True, False])
moves = st.lists(some, max_size=20)
qos = st.lists(few, min_size=1, max_size=4)


class Machine(RuleBasedStateMachine):
    """Every event of the world, in any order; at the end everything heals."""

    stored = False

    @initialize(
        protocol=st.sampled_from([4, 5]),
        window=st.integers(1, 6),
        first_id=st.sampled_from([0, 1, 65530, 65534]),
        limit=st.integers(1, 5),
        at_once=st.booleans(),
        orderly=st.booleans(),
    )
    def begin(self, **options):
        self.world = World(stored=self.stored, **options)
        self.world.connect(True, 4)

    @rule(qos=qos, flash=st.booleans(), moves=moves)
    def publish(self, qos, flash, moves):
        for each in qos:
            self.world.publish(each, flash)
        self.world.network(moves)

    @rule(number=some)
    def cancel(self, number):
        self.world.cancel(number)

    @rule(present=present, window=few)
    def connect(self, present, window):
        self.world.connect(present, window)

    @rule(up=few, down=few, present=present, window=few, moves=moves)
    def connect_anew(self, up, down, present, window, moves):
        self.world.cut(up, down)
        self.world.connect(present, window)
        self.world.network(moves)

    @rule(up=few, down=few)
    def cut(self, up, down):
        self.world.cut(up, down)

    @rule(moves=moves, all_return=st.booleans())
    def network(self, moves, all_return):
        for move in moves:
            self.world.network([move])
            if all_return:
                self.world.handler_returns(move)

    @rule(qos=qos, count=few, moves=moves)
    def broker_refuses(self, qos, count, moves):
        self.world.connect(True, 4)
        for each in qos:
            self.world.publish(each)
        self.world.broker_takes(count, True)
        self.world.network(moves)

    @rule(moves=moves)
    def packet_comes_twice(self, moves):
        self.world.network(moves)
        self.world.packet_comes(True)

    @rule(qos=qos, comes=st.booleans(), moves=moves)
    def broker_publishes(self, qos, comes, moves):
        for each in qos:
            self.world.broker_publishes(each)
            self.world.network([1, 2] if comes else [])
        self.world.network(moves)

    @rule(number=some)
    def broker_repeats(self, number):
        self.world.broker_repeats(number)

    @rule(number=some)
    def broker_strays(self, number):
        self.world.broker_strays(number)

    @rule(number=some)
    def broker_confuses(self, number):
        self.world.broker_confuses(number)

    @rule(up=few, window=few, number=some)
    def broker_acknowledges_late(self, up, window, number):
        self.world.cut(up, 0)
        self.world.connect(True, window)
        self.world.broker_acknowledges_late(number)

    @rule(number=some, returns=st.booleans(), moves=moves)
    def broker_drops(self, number, returns, moves):
        """A message that is being handled, and its packet id goes to the next one."""
        self.world.connect(True, 4)
        self.world.broker_publishes(0)
        self.world.network([1, 2])
        self.world.cut(0, 0)
        self.world.broker_drops(number)
        if returns:
            self.world.handler_returns(number)
        self.world.connect(True, 4)
        self.world.broker_publishes(0)
        self.world.network([1, 2, 1, 2])
        self.world.cut(0, 0)
        self.world.connect(True, 4)
        self.world.network(moves)

    @rule(number=some, code=seldom, no_memory=seldom)
    def handler_returns(self, number, code, no_memory):
        self.world.handler_returns(number, code, no_memory)

    @rule(qos=qos, number=some)
    def handler_refuses(self, qos, number):
        self.world.connect(True, 4)
        for each in qos:
            self.world.broker_publishes(each)
            self.world.network([1, 2])
        self.world.handler_returns(number, 1)

    @rule(number=some)
    def ids_come_round(self, number):
        self.world.subscribe()
        self.world.ids_come_round(number)

    @rule(ms=st.integers(0, 50), give_up=seldom)
    def give_up(self, ms, give_up):
        self.world.time_passes(ms)
        if give_up:
            self.world.give_up()

    @rule(up=few, down=few, present=present, moves=moves)
    def keep_back(self, up, down, present, moves):
        self.world.cut(up, down)
        self.world.keep_back()
        self.world.connect(present, 4)
        self.world.network(moves)

    @rule()
    def keep_next(self):
        self.world.keep_next()

    @rule(moves=moves)
    def take_up(self, moves):
        self.world.take_up()
        self.world.network(moves)

    @rule(moves=moves)
    def let_go(self, moves):
        self.world.let_go()
        self.world.network(moves)

    @rule(up=few, down=few, moves=moves, again=st.booleans())
    def reset(self, up, down, moves, again):
        self.world.network(moves)
        self.world.cut(up, down)
        self.world.reset()
        if again:
            self.world.connect(True, 4)

    @rule(number=some, up=few, connects=st.booleans())
    def reset_with_qos_2_under_way(self, number, up, connects):
        self.world.connect(True, 4)
        self.world.publish(1)
        self.world.broker_publishes(1)
        self.world.network([1, 2])
        self.world.cut(up, 0)
        self.world.handler_returns(number)
        if connects:
            self.world.connect(True, 4)
        self.world.reset()
        self.world.connect(True, 4)
        self.world.publish(1)
        self.world.broker_takes(9)

    @invariant()
    def agrees_with_the_world(self):
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self):
        if hasattr(self, "world"):
            try:
                self.world.settle()
            finally:
                self.world.close()


class StoredMachine(Machine):
    """The session on flash."""

    stored = True


TestSession = Machine.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=50)
TestStoredSession = StoredMachine.TestCase
TestStoredSession.settings = settings(max_examples=60, stateful_step_count=50)


def test_a_message_given_up_before_its_connection_carried_it_again_is_nowhere():
    world = World(protocol=5, window=3)
    try:
        world.connect(True, 4)
        world.publish(1)  # QoS 2
        world.publish(0)
        world.broker_takes(1)
        world.network([1, 2])  # PUBREC of the first
        world.cut(0, 0)
        world.connect(True, 0)  # the broker takes one at a time: PUBREL
        assert len(world.session.to_resend) == 1
        world.cut(0, 0)
        world.give_up()
        world.check()
        assert not (world.session.inflight or world.session.to_resend)
        world.settle()
    finally:
        world.close()


def test_of_qos_2_messages_without_pubrel_the_smallest_store_keeps_the_newest(tmp_path):
    client = types.SimpleNamespace(
        max_inflight=8,
        client_id="me",
        clean_start=False,
        five=None,
        failover=None,
        say=lambda text: None,
    )

    def power_on():
        store = FileStore(str(tmp_path), 8192)
        return store, StoredSession(client, store)

    store, session = power_on()
    session.resume(False, 0)
    for n in range(1, 701):
        message = Message(n, 2, b"x")
        assert session.received(message, False)
        message.done = True
        assert session.next_ack() is message
        session.inbound.remove(message)
        assert store.inbound == session.awaiting_pubrel == list(range(max(1, n - 255), n + 1))
        if n % 99 == 0:
            store.close()
            store, session = power_on()
            session.resume(True, 0)
    assert session.released(500) and not session.released(400)
    assert len(store.inbound) == 255
    assert store.errors == 0
    store.close()
