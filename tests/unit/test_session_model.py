"""session.py and stored.py in a world where anything may happen at any time, by hypothesis."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.unit.session_model import World

CPYTHON_ONLY = True

some = st.integers(0, 20)
few = st.integers(0, 9)
seldom = st.sampled_from([0, 0, 0, 1])


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

    @rule(qos=few, flash=st.booleans())
    def publish(self, qos, flash):
        self.world.publish(qos, flash)

    @rule(number=some)
    def cancel(self, number):
        self.world.cancel(number)

    @rule()
    def subscribe(self):
        self.world.subscribe()

    @rule(present=st.sampled_from([True, True, True, False]), window=few)
    def connect(self, present, window):
        self.world.connect(present, window)

    @rule(up=few, down=few)
    def cut(self, up, down):
        self.world.cut(up, down)

    @rule(count=few, refuse=seldom)
    def broker_takes(self, count, refuse):
        self.world.broker_takes(count, refuse)

    @rule(number=some)
    def broker_sends(self, number):
        self.world.broker_sends(number)

    @rule(twice=seldom)
    def packet_comes(self, twice):
        self.world.packet_comes(twice)

    @rule(qos=few)
    def broker_publishes(self, qos):
        self.world.broker_publishes(qos)

    @rule(number=some)
    def broker_repeats(self, number):
        self.world.broker_repeats(number)

    @rule(number=some)
    def broker_strays(self, number):
        self.world.broker_strays(number)

    @rule(number=some, code=seldom, no_memory=seldom)
    def handler_returns(self, number, code, no_memory):
        self.world.handler_returns(number, code, no_memory)

    @rule(ms=st.integers(0, 50))
    def time_passes(self, ms):
        self.world.time_passes(ms)

    @rule()
    def give_up(self):
        self.world.give_up()

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
    """With a store: the device loses its power, too."""

    stored = True

    @rule()
    def reset(self):
        self.world.reset()


TestSession = Machine.TestCase
TestSession.settings = settings(max_examples=200, stateful_step_count=80)
TestStoredSession = StoredMachine.TestCase
TestStoredSession.settings = settings(max_examples=60, stateful_step_count=80)
