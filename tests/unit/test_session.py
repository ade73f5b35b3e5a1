"""The session's state machine against MQTT 3.1.1 sections 4.3, 4.4 and 4.6: no I/O, no clock."""

import gc

from mqtt_as_tls import packet
from mqtt_as_tls.errors import ProtocolError
from mqtt_as_tls.session import Session
from tests.unit.checks import raises


class Message:
    def __init__(self, id, payload=b"", qos=1, topic="t"):
        self.id = id
        self.payload = payload
        self.qos = qos
        self.topic = topic


class Outgoing:
    def __init__(self, packet, qos):
        self.packet = packet
        self.qos = qos


def send(session, payload=b"x", now_ms=0):
    """Publish with QoS 1; return the Outgoing."""
    out = Outgoing(packet.publish(b"t", payload, 1), 1)
    session.publish(out, now_ms)
    return out


def wire(out):
    """Return (dup, packet id, payload) as the bytes of `out` say."""
    decoder = packet.Decoder()
    decoder.space()[: len(out.packet)] = out.packet
    decoder.fed(len(out.packet))
    first = decoder.next()
    _, packet_id, payload = decoder.publish(first >> 1 & 3)
    return first & 8 == 8, packet_id, payload


def acks(session):
    """Return all acknowledgements that are due, as (first byte, packet id)."""
    got = []
    while True:
        ack = session.next_ack()
        if ack is None:
            return got
        assert len(ack) == 4 and ack[1] == 2
        got.append((ack[0], ack[2] << 8 | ack[3]))


def receive(session, id, payload=b"", dup=False, qos=1, topic="t"):
    """Return (message, is it new)."""
    message = Message(id, payload, qos, topic)
    return message, session.received(message, dup)


# Packet ids


def test_packet_ids_start_at_1_and_are_in_the_packet():
    session = Session(8)
    outs = [send(session, b"%d" % i) for i in range(3)]
    assert [out.id for out in outs] == [1, 2, 3]
    assert [wire(out) for out in outs] == [(False, 1, b"0"), (False, 2, b"1"), (False, 3, b"2")]


def test_packet_ids_wrap_from_65535_to_1():
    session = Session(8)
    for expected in range(1, 65535 + 3):
        if expected > 65535:
            expected -= 65535
        assert session.request("record") == expected
        assert session.answered(expected) == "record"


def test_packet_ids_in_use_are_skipped():
    session = Session(8)
    first = send(session)  # 1
    assert session.request("a") == 2
    third = send(session)  # 3
    session._id = 65534
    assert send(session).id == 65535
    assert send(session).id == 4
    assert session.acknowledged(first.id) is first
    assert session.answered(2) == "a"
    session._id = 65535
    assert session.request("b") == 1
    assert session.request("c") == 2
    assert send(session).id == 5  # 3 and 4 are in flight
    assert third.id == 3


def test_requests_and_messages_share_the_packet_ids():
    session = Session(8)
    assert [session.request("a"), send(session).id, session.request("b")] == [1, 2, 3]
    assert session.acknowledged(1) is None
    assert session.answered(2) is None
    assert session.stray == 2
    assert (session.answered(3), session.answered(1)) == ("b", "a")
    assert session.acknowledged(2) is not None
    assert session.stray == 2


def test_ids_of_messages_in_flight_survive_a_resumed_session():
    session = Session(8)
    old = send(session)
    session.resume(True, 0)
    session._id = 65535
    assert send(session).id == 2
    assert old.id == 1


# Out


def test_the_window_bounds_what_is_in_flight():
    session = Session(2)
    assert not session.full()
    first = send(session)
    assert not session.full()
    send(session)
    assert session.full()
    session.acknowledged(first.id)
    assert not session.full()


def test_acknowledgements_find_their_message_in_any_order():
    session = Session(8)
    a, b, c = [send(session) for _ in range(3)]
    assert session.acknowledged(b.id) is b
    assert session.acknowledged(c.id) is c
    assert session.inflight == [a]
    assert session.acknowledged(a.id) is a
    assert session.inflight == []
    assert session.stray == 0


def test_lesson_6_a_late_or_repeated_puback_is_counted_and_nothing_more():
    session = Session(8)
    a = send(session)
    b = send(session)
    assert session.acknowledged(a.id) is a
    assert session.acknowledged(a.id) is None
    assert session.acknowledged(777) is None
    assert session.stray == 2
    assert session.inflight == [b]


def test_a_puback_for_a_qos_2_message_is_stray():
    session = Session(8)
    out = Outgoing(packet.publish(b"t", b"x", 2), 2)
    session.publish(out, 0)
    assert session.acknowledged(out.id) is None
    assert session.inflight == [out]


def test_the_age_is_that_of_the_oldest_message():
    session = Session(8)
    assert session.oldest_ms(5) == -1
    a = send(session, now_ms=100)
    send(session, now_ms=150)
    assert session.oldest_ms(100) == 0
    assert session.oldest_ms(160) == 60
    session.acknowledged(a.id)
    assert session.oldest_ms(160) == 10


def test_the_age_is_right_when_the_ticks_wrap():
    for period in (1 << 30, 1 << 62):  # 32-bit and 64-bit ports
        session = Session(8)
        send(session, now_ms=period - 10)
        assert session.oldest_ms(period - 10) == 0
        assert session.oldest_ms(period - 1) == 9
        assert session.oldest_ms(0) == 10
        assert session.oldest_ms(19990) == 20000


# A new connection


def test_lesson_7_a_resumed_session_sends_again_with_dup_and_the_same_ids():
    session = Session(8)
    outs = [send(session, b"%d" % i, 10) for i in range(4)]
    session.acknowledged(outs[1].id)
    again = session.resume(True, 500)
    assert again == [outs[0], outs[2], outs[3]]
    assert [wire(out) for out in again] == [(True, 1, b"0"), (True, 3, b"2"), (True, 4, b"3")]
    assert session.inflight == again
    assert session.oldest_ms(700) == 200
    for out in again:  # while the client walks along the list, acknowledgements come
        assert session.acknowledged(out.id) is out
    assert session.inflight == []
    assert not wire(send(session, b"new"))[0]


def test_without_a_session_the_messages_are_new_ones_in_the_same_order():
    session = Session(8)
    outs = [send(session, b"%d" % i) for i in range(3)]
    session.resume(True, 0)  # DUP is set
    again = session.resume(False, 0)
    assert again == outs
    assert session.inflight == []
    assert not session.full()
    assert session.oldest_ms(9) == -1
    assert [out.id for out in again] == [0, 0, 0]
    assert session.acknowledged(1) is None
    for out in again:
        session.publish(out, 5)
    assert [wire(out) for out in again] == [(False, 4, b"0"), (False, 5, b"1"), (False, 6, b"2")]
    assert session.inflight == outs


def test_the_order_stays_over_several_connections():
    session = Session(8)
    a, b = send(session), send(session)
    assert session.resume(True, 0) == [a, b]
    c = send(session)
    session.acknowledged(a.id)
    assert session.resume(True, 0) == [b, c]
    assert session.resume(False, 0) == [b, c]
    session.publish(b, 0)
    assert session.resume(True, 0) == [b]
    assert wire(b)[0]


def test_a_lost_connection_ends_its_requests():
    session = Session(8)
    n = session.request("a")
    session.resume(True, 0)
    assert session.requests == {}
    assert session.answered(n) is None
    assert session.stray == 1


# In


def test_a_message_is_acknowledged_once_and_only_when_it_is_done():
    session = Session(8)
    a, new = receive(session, 5)
    assert new
    assert session.next_ack() is None
    a.done = True
    assert acks(session) == [(0x40, 5)]
    assert acks(session) == []


def test_acknowledgements_go_in_order_of_arrival():
    session = Session(8)
    a, b, c = [receive(session, n)[0] for n in (9, 3, 7)]
    c.done = True
    assert acks(session) == []
    a.done = True
    assert acks(session) == [(0x40, 9)]
    b.done = True
    assert acks(session) == [(0x40, 3), (0x40, 7)]


def test_an_acknowledged_id_serves_again():
    session = Session(8)
    for payload in (b"1", b"2"):
        message, new = receive(session, 5, payload)
        assert new
        message.done = True
        assert acks(session) == [(0x40, 5)]
    assert receive(session, 5, b"2", dup=True)[1]  # the acknowledgement was lost, perhaps


def test_a_redelivery_to_a_running_handler_is_not_handled_again():
    session = Session(8)
    a, _ = receive(session, 5, b"x")
    session.resume(True, 0)
    assert session.next_ack() is None
    _, new = receive(session, 5, b"x", dup=True)
    assert not new
    assert acks(session) == []
    a.done = True
    assert acks(session) == [(0x40, 5)]
    assert acks(session) == []


def test_a_handler_that_returned_while_offline_is_acknowledged_at_the_redelivery():
    session = Session(8)
    a, _ = receive(session, 5, b"x")
    session.resume(True, 0)
    a.done = True
    assert acks(session) == []  # the new connection has not seen the message yet
    assert not receive(session, 5, b"x", dup=True)[1]
    assert acks(session) == [(0x40, 5)]


def test_what_was_done_behind_a_slow_handler_is_not_handled_again():
    session = Session(8)
    slow, _ = receive(session, 5, b"slow")
    fast, _ = receive(session, 6, b"fast")
    fast.done = True
    session.resume(True, 0)
    assert not receive(session, 5, b"slow", dup=True)[1]
    assert not receive(session, 6, b"fast", dup=True)[1]
    assert acks(session) == []
    slow.done = True
    assert acks(session) == [(0x40, 5), (0x40, 6)]


def test_redeliveries_are_acknowledged_in_the_order_of_their_new_arrival():
    session = Session(8)
    messages = [receive(session, n, b"%d" % n)[0] for n in (1, 2, 3)]
    session.resume(True, 0)
    for message in messages:
        message.done = True
    assert not receive(session, 2, b"2", dup=True)[1]
    fresh, new = receive(session, 4, b"4")
    assert new
    fresh.done = True
    assert not receive(session, 1, b"1", dup=True)[1]
    assert acks(session) == [(0x40, 2), (0x40, 4), (0x40, 1)]
    assert not receive(session, 3, b"3", dup=True)[1]
    assert acks(session) == [(0x40, 3)]


def test_a_message_that_is_not_delivered_again_does_not_hold_up_the_others():
    session = Session(8)
    receive(session, 1)
    session.resume(True, 0)
    b, _ = receive(session, 2)
    b.done = True
    assert acks(session) == [(0x40, 2)]


def test_a_redelivery_on_a_live_connection_keeps_the_place_of_the_first():
    session = Session(8)
    a, b = receive(session, 1, b"a")[0], receive(session, 2, b"b")[0]
    assert not receive(session, 1, b"a", dup=True)[1]
    a.done = b.done = True
    assert acks(session) == [(0x40, 1), (0x40, 2)]


def test_an_id_with_other_content_is_another_message():
    for id, payload, topic, dup in (
        (5, b"y", "t", True),
        (5, b"x", "u", True),
        (5, b"x", "t", False),
    ):
        session = Session(8)
        old, _ = receive(session, 5, b"x")
        session.resume(True, 0)
        message, new = receive(session, id, payload, dup, 1, topic)
        assert new
        assert session._inbound == [message]
        old.done = True
        assert acks(session) == []  # it is the new one that the broker waits for
        message.done = True
        assert acks(session) == [(0x40, 5)]
        assert acks(session) == []


def test_acknowledgements_of_a_lost_session_are_dropped():
    session = Session(8)
    a, _ = receive(session, 5, b"x")
    b, _ = receive(session, 6, b"x")
    b.done = True
    session.resume(False, 0)
    a.done = True
    assert acks(session) == []
    message, new = receive(session, 5, b"x", dup=True)
    assert new  # of another session: not the same message
    assert acks(session) == []
    message.done = True
    assert acks(session) == [(0x40, 5)]


def test_a_flag_of_an_earlier_session_is_taken_off_a_message():
    session = Session(8)
    message, _ = receive(session, 5)
    message.done = True
    session.resume(True, 0)
    session.resume(False, 0)
    assert session.received(message, False)
    assert acks(session) == []


def test_what_the_broker_never_delivers_again_is_forgotten():
    session = Session(8)
    for n in range(1, 1000):  # each connection leaves a message behind
        message, new = receive(session, n)
        assert new
        message.done = True
        session.resume(True, 0)
        assert len(session._inbound) <= 2
    running, _ = receive(session, 2000, b"slow")
    for _ in range(3):
        session.resume(True, 0)
    assert not receive(session, 2000, b"slow", dup=True)[1]  # its handler still runs
    running.done = True
    assert acks(session) == [(0x40, 2000)]


def test_bytes_behind_a_slow_handler_are_told():
    session = Session(8)
    slow, _ = receive(session, 1, b"x" * 50)
    fast = [receive(session, n, b"y" * 10)[0] for n in (2, 3)]
    assert session.lingering() == 0
    for message in fast:
        message.done = True
    assert session.lingering() == 2 * (10 + len("t") + 100)
    slow.done = True
    assert session.lingering() == 50 + 1 + 100 + 2 * (10 + 1 + 100)
    session.next_ack()
    assert session.lingering() == 2 * (10 + 1 + 100)
    session.resume(True, 0)
    assert session.lingering() == 0  # they are not what the broker sent on this connection


# QoS 2 in: what a session may hold from an earlier program


def test_a_qos_2_message_is_handled_once_until_it_is_released():
    session = Session(8)
    a, new = receive(session, 5, b"x", qos=2)
    assert new
    assert not receive(session, 5, b"x", dup=True, qos=2)[1]  # being handled
    assert not receive(session, 5, b"x", qos=2)[1]  # even without DUP
    a.done = True
    assert acks(session) == [(0x50, 5)]
    assert not receive(session, 5, b"x", dup=True, qos=2)[1]  # the PUBREC was lost
    assert acks(session) == [(0x50, 5)]
    session.resume(True, 0)
    assert not receive(session, 5, b"x", dup=True, qos=2)[1]
    assert acks(session) == [(0x50, 5)]
    assert session.released(5) == b"\x70\x02\x00\x05"
    assert session.stray == 0
    assert receive(session, 5, b"x", qos=2)[1]


def test_every_pubrel_is_answered():
    session = Session(8)
    assert session.released(9) == b"\x70\x02\x00\x09"
    assert session.released(65535) == b"\x70\x02\xff\xff"
    assert session.stray == 2


def test_a_new_session_knows_no_qos_2_message():
    session = Session(8)
    a, _ = receive(session, 5, qos=2)
    a.done = True
    assert acks(session) == [(0x50, 5)]
    session.resume(False, 0)
    assert receive(session, 5, qos=2)[1]
    session.released(6)
    assert session.stray == 1


def test_qos_2_and_1_are_acknowledged_in_one_order():
    session = Session(8)
    a, b = receive(session, 1, qos=2)[0], receive(session, 2, qos=1)[0]
    b.done = True
    assert acks(session) == []
    a.done = True
    assert acks(session) == [(0x50, 1), (0x40, 2)]


def test_a_qos_2_message_handled_while_offline_is_never_handled_again():
    session = Session(8)
    a, _ = receive(session, 5, b"x", qos=2)
    a.done = True
    for _ in range(4):  # connections too short for the redelivery
        session.resume(True, 0)
    assert not receive(session, 5, b"x", dup=True, qos=2)[1]
    assert acks(session) == [(0x50, 5)]


def test_qos_2_without_end_is_a_protocol_error():
    session = Session(8)
    with raises(ProtocolError, "PUBREL"):
        for n in range(1, 65536):
            message, new = receive(session, n, qos=2)
            assert new
            message.done = True
            assert acks(session) == [(0x50, n)]
            assert len(session._unreleased) <= 256
    assert n == 257
    assert not receive(session, 256, dup=True, qos=2)[1]  # a known one needs no room
    assert acks(session) == [(0x50, 256)]
    session.released(1)
    assert receive(session, 257, qos=2)[1]


def test_qos_2_that_nobody_handles_is_bounded_too():
    session = Session(8)
    with raises(ProtocolError, "PUBREL"):
        for n in range(1, 65536):
            receive(session, n, qos=2)
    assert n == 257


def fill_heap():
    """
    Return what takes the heap but for crumbs of up to 64 bytes. CPython's has no end: nothing.
    """
    taken = None
    for size in (65536, 4096, 512, 64) if hasattr(gc, "mem_free") else ():
        try:
            while True:
                taken = (taken, bytearray(size))  # a list would grow in leaps
        except MemoryError:
            pass
    return taken


def test_a_full_heap_loses_no_acknowledgement_of_qos_2():
    session = Session(8)
    for n in range(1, 201):
        receive(session, n, qos=2)[0].done = True
    got = [None] * 200
    n = 0
    taken = fill_heap()
    try:
        while n < 200:
            got[n] = session.next_ack()
            n += 1
    except MemoryError:
        pass
    del taken
    got = [(ack[0], ack[2] << 8 | ack[3]) for ack in got[:n]] + acks(session)
    assert got == [(0x50, n) for n in range(1, 201)]
    for n in range(1, 201):
        assert not receive(session, n, dup=True, qos=2)[1]
        assert acks(session) == [(0x50, n)]
    for n in range(1, 201):
        session.released(n)
    assert session.stray == 0
