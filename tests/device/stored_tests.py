"""
StoredSession: a Session in every respect, and what it tells the store when. Runs on MicroPython:
prints "ok NAME" or "FAILED NAME" with a traceback for each test.
"""

from mqtt_as_tls import packet
from mqtt_as_tls.session import Session
from mqtt_as_tls.store import FileStore
from mqtt_as_tls.store_session import StoredSession
from tests.device.hunger import Hunger
from tests.unit import test_session
from tests.unit.checks import run_tests
from tests.unit.test_session import Message
from tests.unit.test_store import Directory, message, number

PUBACK = 0x40
PUBREC = 0x50
PUBCOMP = 0x70


class Outgoing:
    entry = error = None
    id = length = 0
    awaited = True

    def __init__(self, packet, qos):
        self.packet = packet
        self.qos = qos


class Client:
    """What a session needs of a client."""

    five = failover = None
    clean_start = False
    running = True
    client_id = "me"
    max_queue = 8192
    clients = ()  # that run

    def __init__(self, max_inflight=8):
        self.max_inflight = max_inflight

    def say(self, text):
        raise AssertionError(text)


def start(path, max_inflight=8):
    """Return the session after a reset."""
    session = FileStore(path).session(Client(max_inflight))
    assert isinstance(session, StoredSession)
    return session


def publish(session, n, qos=1):
    out = Outgoing(message(n, qos=qos), qos)
    session.publish(out, 0)
    return out


def wire(out):
    """Return (number, id in the packet, DUP)."""
    decoder = packet.Decoder()
    decoder.space()[: len(out.packet)] = out.packet
    decoder.fed(len(out.packet))
    first = decoder.next()
    _, packet_id, _ = decoder.publish(first >> 1 & 3)
    assert packet_id == out.id
    return number(out.packet), packet_id, first & 8 == 8


def acks(session):
    """Send the acknowledgements that are due; return their packet ids."""
    found = []
    while True:
        ready = session.next_ack()
        if not ready:
            return found
        found.append(ready.id)
        session.inbound.remove(ready)


def receive(session, packet_id, dup=False):
    """Return whether an inbound QoS 2 message is new; it is handled then."""
    inbound = Message(packet_id, qos=2)
    new = session.received(inbound, dup)
    inbound.done = True
    return new


def test_a_stored_session_passes_every_test_of_a_session():
    directories = []

    def make(*args):
        directory = Directory()
        directories.append(directory)
        return start(directory.__enter__(), *args)

    outgoing = test_session.Outgoing
    outgoing.entry = None
    outgoing.length = 0
    test_session.Session = make
    try:
        count = 0
        for name in dir(test_session):
            if name.startswith("test_") and "wrap" not in name and "memory" not in name:
                getattr(test_session, name)()
                count += 1
        assert count > 20
    finally:
        test_session.Session = Session
        for directory in directories:
            directory.__exit__()


def test_what_is_in_flight_is_sent_again_after_a_reset_with_its_id_and_dup():
    with Directory() as path:
        session = start(path)
        outs = [publish(session, i, 1 + i % 2) for i in range(5)]
        session.acknowledged(PUBACK, outs[2].id)
        session.acknowledged(PUBREC, outs[3].id)
        session.acknowledged(PUBREC, outs[1].id)
        session = start(path)
        assert [out.id for out in session.awaiting_pubcomp] == [4, 2]
        assert [wire(out) for out in session.inflight] == [(0, 1, False), (4, 5, False)]
        session.resume(True, 0)
        assert session.unknown == []
        assert [wire(out) for out in session.to_resend] == [(0, 1, True), (4, 5, True)]
        for out in list(session.to_resend):
            session.publish(out, 0)
        session._id, session._free = 0, 0
        assert publish(session, 9).id == 3  # ids in use are skipped
        assert session.acknowledged(PUBCOMP, 4) is not None
        session = start(path)
        assert [out.id for out in session.awaiting_pubcomp] == [2]
        assert [wire(out)[:2] for out in session.inflight] == [(0, 1), (4, 5), (9, 3)]


def test_what_is_acknowledged_is_gone_after_a_reset():
    with Directory() as path:
        session = start(path)
        for qos, kinds in ((1, (PUBACK,)), (2, (PUBREC, PUBCOMP))):
            out = publish(session, 1, qos)
            for kind in kinds:
                assert session.acknowledged(kind, out.id) is out
        out = publish(session, 2, 2)
        session.acknowledged(PUBREC, out.id, 0, True)  # refused
        assert len(session._store) == 0
        session = start(path)
        assert session.inflight == session.awaiting_pubcomp == []


def test_a_repeated_pubrec_costs_no_write():
    with Directory() as path:
        session = start(path)
        out = publish(session, 1, 2)
        session.acknowledged(PUBREC, out.id)
        writes = session._store.writes
        assert session.acknowledged(PUBREC, out.id) is out
        assert session._store.writes == writes


def test_a_message_that_there_is_no_memory_to_take_stays_in_the_store():
    hunger = Hunger()
    failed = 0
    # before: by a store that has not heard since that it was sent
    for qos, given_before in ((0, False), (1, False), (2, True)):
        for left in range(0, 4000, 48):
            with Directory() as path:
                session = start(path)
                for n in range(3):
                    session.keep(Outgoing(message(n, qos=qos), qos), False)
                if given_before:
                    session.fetch()
                    session = start(path)
                out = None
                hunger.eat(left)
                try:
                    out = session.fetch()
                except MemoryError:
                    failed += 1
                hunger.end()
                found = [] if out is None else [out]
                while len(found) < 3:
                    found.append(session.fetch())
                assert [number(out.packet) for out in found] == [0, 1, 2], left
                assert session.fetch() is None
    assert 10 < failed < 240


def test_qos_2_of_a_lost_session_is_not_sent_again_after_a_reset_and_qos_1_is():
    with Directory() as path:
        session = start(path)
        for i in range(4):
            publish(session, i, 1 + i % 2)
        session.acknowledged(PUBREC, 2)
        session = start(path)
        session.resume(False, 0)
        unknown = session.unknown
        assert sorted([number(out.packet) for out in unknown]) == [1, 3]
        session.publish(session.to_resend[0], 0)  # number 0; 2 was not reached
        assert session.inflight[0].id == 1
        session = start(path)
        assert [wire(out) for out in session.inflight] == [(0, 1, False)]
        out = session.fetch()
        assert out and not session.fetch()
        assert (number(out.packet), out.id, out.awaited) == (2, 0, False)


def test_enqueued_messages_wait_on_flash_and_come_in_order():
    with Directory() as path:
        session = start(path)
        for i in range(5):
            assert session.keep(Outgoing(message(i, qos=i % 3), i % 3), False) is True
        session = start(path)
        for i in range(5):
            out = session.fetch()
            assert (number(out.packet), out.qos) == (i, i % 3)
            assert (out.entry is None) == (out.qos == 0)
            if out.qos:
                session.publish(out, 0)
        assert not session.fetch()
        session = start(path)
        assert [wire(out)[:2] for out in session.inflight] == [(1, 1), (2, 2), (4, 3)]


def test_a_message_that_can_go_at_once_does_not_wait_on_flash():
    with Directory() as path:
        session = start(path, 1)
        out = Outgoing(message(0), 1)
        assert session.keep(out, False) is True  # not connected
        assert session.keep(out, True) is True  # behind that one
        while session.fetch():
            pass
        assert session.keep(out, False) is True  # behind those
        session.fetch()
        assert session.keep(out, True) is None
        publish(session, 7)
        assert session.keep(out, True) is True  # the window is full


def test_a_message_that_is_given_up_is_forgotten():
    with Directory() as path:
        session = start(path)
        out = publish(session, 1)
        session.drop(out)
        session.forget(out)
        session.forget(out)
        assert start(path).inflight == []


def test_a_stream_is_not_stored():
    with Directory() as path:
        session = start(path)
        out = Outgoing(message(1), 1)
        out.length = 100
        session.publish(out, 0)
        assert out.entry is None and len(session._store) == 0


def test_inbound_qos_2_is_not_handled_again_after_a_reset():
    with Directory() as path:
        session = start(path)
        assert receive(session, 5) and receive(session, 6)
        assert acks(session) == [5, 6]
        session = start(path)
        session.resume(True, 0)
        assert not receive(session, 5, True)
        assert acks(session) == [5]
        assert session.released(5)
        session = start(path)
        session.resume(True, 0)
        assert receive(session, 5)  # a new one with the same id
        assert not receive(session, 6, True)
        assert not session.released(77)


def test_what_was_handled_without_its_pubrec_is_noted_when_the_session_goes_on():
    with Directory() as path:
        session = start(path)
        assert receive(session, 5)  # handled, then the connection breaks
        session.resume(True, 0)
        session = start(path)
        session.resume(True, 0)
        assert not receive(session, 5, True)


def test_a_lost_session_forgets_inbound_ids():
    with Directory() as path:
        session = start(path)
        assert receive(session, 5)
        acks(session)
        session.resume(False, 0)
        session = start(path)
        session.resume(True, 0)
        assert receive(session, 5)


if __name__ == "__main__":
    run_tests(globals())
