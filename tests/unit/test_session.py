"""The session's state machine against MQTT 3.1.1 sections 4.3, 4.4 and 4.6: no I/O, no clock."""

import gc

from mqtt_as_tls import packet
from mqtt_as_tls.session import Session
from tests.unit.checks import raises

PUBACK = 0x40
PUBREC = 0x50
PUBCOMP = 0x70


class Message:
    ack_code = 0

    def __init__(self, id, payload=b"", qos=1, topic="t"):
        self.id = id
        self.payload = payload
        self.qos = qos
        self.topic = topic
        self.size = 100 + len(topic) + len(payload)


class Outgoing:
    id = sent_ms = 0

    def __init__(self, packet, qos):
        self.packet = packet
        self.qos = qos


def send(session, payload=b"x", now_ms=0, qos=1):
    """Publish; return the Outgoing."""
    out = Outgoing(packet.publish(b"t", payload, qos), qos)
    session.publish(out, now_ms)
    return out


def puback(session, out):
    """PUBACK came for `out` (Outgoing): return what the session knows by that id."""
    return session.acknowledged(PUBACK, out.id)


def odd(session):
    """Return the kinds (list) of what was odd about acknowledgements."""
    return [each >> 16 for each in session.odd]


def resend(session, now_ms=0):
    """Send what has to be sent again, as far as the window allows; return it (list)."""
    sent = []
    while session.to_resend and not session.full():
        sent.append(session.to_resend[0])
        session.publish(sent[-1], now_ms)
    return sent


def wire(out):
    """Return (dup, packet id, payload) as the bytes of `out` say."""
    decoder = packet.Decoder()
    decoder.space()[: len(out.packet)] = out.packet
    decoder.fed(len(out.packet))
    first = decoder.next()
    _, packet_id, payload = decoder.publish(first >> 1 & 3)
    return first & 8 == 8, packet_id, payload


def acks(session):
    """Send all acknowledgements that are due; return them as (first byte, packet id)."""
    got = []
    while True:
        message = session.next_ack()
        if message is None:
            return got
        assert session.next_ack() is message  # until it is sent
        session.inbound.remove(message)
        got.append((PUBACK if message.qos == 1 else PUBREC, message.id))


def receive(session, id, payload=b"", dup=False, qos=1, topic="t"):
    """Return (message, is it new)."""
    message = Message(id, payload, qos, topic)
    return message, session.received(message, dup)


# Packet ids


def test_packet_ids_start_at_1_and_are_in_the_packet():
    """
    MQTT 3.1.1: [MQTT-2.3.1-1], [MQTT-4.3.2-1]
    MQTT 5.0: [MQTT-2.2.1-3], [MQTT-4.3.2-1], [MQTT-4.3.2-2]
    """
    session = Session(8)
    outs = [send(session, b"%d" % i) for i in range(3)]
    assert [out.id for out in outs] == [1, 2, 3]
    assert [wire(out) for out in outs] == [(False, 1, b"0"), (False, 2, b"1"), (False, 3, b"2")]


def test_packet_ids_wrap_from_65535_to_what_is_not_for_qos_2():
    """
    MQTT 3.1.1: [MQTT-2.3.1-1]
    MQTT 5.0: [MQTT-2.2.1-3]
    """
    session = Session(8)
    for expected in range(1, 65535 + 3):
        if expected > 65535:
            expected -= 65535 - 16
        assert session.request("record") == expected
        assert session.answered(expected) == "record"


def test_packet_ids_in_use_are_skipped():
    """
    MQTT 3.1.1: [MQTT-2.3.1-2]
    MQTT 5.0: [MQTT-2.2.1-3], [MQTT-4.3.2-1]
    """
    session = Session(8)
    session.resume(False, 0)
    first = send(session)  # 1
    assert session.request("a") == 2
    third = send(session)  # 3
    session._id, session._free = 65534, 0
    assert send(session).id == 65535
    assert send(session).id == 17  # the first are QoS 2's from then on
    assert send(session, qos=2).id == 4
    assert puback(session, first) is first
    assert session.answered(2) == "a"
    session._id, session._free = 0, 0
    assert session.request("b") == 1
    assert session.request("c") == 2
    assert send(session).id == 5  # 3 and 4 are in flight
    assert third.id == 3


def test_requests_and_messages_share_the_packet_ids():
    """
    MQTT 3.1.1: [MQTT-2.3.1-2]
    MQTT 5.0: [MQTT-2.2.1-3]
    """
    session = Session(8)
    assert [session.request("a"), send(session).id, session.request("b")] == [1, 2, 3]
    assert session.acknowledged(PUBACK, 1) is None
    assert session.answered(2) is None
    assert session.stray == 2
    assert (session.answered(3), session.answered(1)) == ("b", "a")
    assert session.acknowledged(PUBACK, 2) is not None
    assert session.stray == 2


def test_ids_of_messages_in_flight_survive_a_resumed_session():
    """
    MQTT 3.1.1: [MQTT-2.3.1-2], [MQTT-2.3.1-3]
    MQTT 5.0: [MQTT-2.2.1-3]
    """
    session = Session(8)
    session.resume(False, 0)
    old = send(session)
    session.resume(True, 0)
    session._id, session._free = 0, 0
    assert send(session).id == 2
    assert old.id == 1


# Out


def test_the_window_bounds_what_is_in_flight():
    """MQTT 5.0: [MQTT-4.9.0-2]"""
    session = Session(2)
    assert not session.full()
    first = send(session)
    assert not session.full()
    send(session)
    assert session.full()
    puback(session, first)
    assert not session.full()


def test_acknowledgements_find_their_message_in_any_order():
    session = Session(8)
    a, b, c = [send(session) for _ in range(3)]
    assert puback(session, b) is b
    assert puback(session, c) is c
    assert session.inflight == [a]
    assert puback(session, a) is a
    assert session.inflight == []
    assert session.stray == 0


def test_lesson_6_a_late_or_repeated_puback_is_counted_and_nothing_more():
    session = Session(8)
    a = send(session)
    b = send(session)
    assert puback(session, a) is a
    assert puback(session, a) is None
    assert session.acknowledged(PUBACK, 777) is None
    assert session.stray == 2
    assert session.inflight == [b]


def test_a_puback_ends_a_qos_2_message_before_its_pubrec_and_after_it():
    """A broker without QoS 2 answers so, and would do so for ever."""
    session = Session(1)
    for with_pubrec in (False, True):
        out = send(session, qos=2)
        if with_pubrec:
            assert session.acknowledged(PUBREC, out.id) is out
        assert puback(session, out) is out
        assert odd(session) == [PUBACK + 2]
        assert session.inflight == session.awaiting_pubcomp == []
        assert not session.full()
    assert session.stray == 0


def test_the_age_is_that_of_the_oldest_message():
    session = Session(8)
    assert session.oldest_ms(5) == -1
    a = send(session, now_ms=100)
    send(session, now_ms=150)
    assert session.oldest_ms(100) == 0
    assert session.oldest_ms(160) == 60
    puback(session, a)
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
    """
    MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    MQTT 5.0: [MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.4.0-1], [MQTT-4.6.0-1]
    """
    session = Session(8)
    outs = [send(session, b"%d" % i, 10) for i in range(4)]
    puback(session, outs[1])
    session.resume(True, 500)
    assert session.unknown == []
    again = list(session.to_resend)
    assert again == [outs[0], outs[2], outs[3]]
    assert [wire(out) for out in again] == [(True, 1, b"0"), (True, 3, b"2"), (True, 4, b"3")]
    assert session.inflight == again
    assert session.oldest_ms(700) == 200
    for out in again:  # while the client walks along the list, acknowledgements come
        assert session.to_resend[0] is out
        session.publish(out, 600)
        assert wire(out)[:2] == (True, out.id)
        assert puback(session, out) is out
    assert session.inflight == session.to_resend == []
    assert not wire(send(session, b"new"))[0]


def test_without_a_session_the_messages_are_new_ones_in_the_same_order():
    """
    MQTT 3.1.1: [MQTT-3.3.1-3]
    MQTT 5.0: [MQTT-3.2.2-5], [MQTT-3.3.1-3]
    """
    session = Session(8)
    session.resume(False, 0)
    outs = [send(session, b"%d" % i) for i in range(3)]
    session.resume(True, 0)  # DUP is set
    session.resume(False, 0)
    assert session.unknown == []
    assert session.to_resend == outs
    assert not session.full()
    assert [out.id for out in outs] == [0, 0, 0]
    for n in (1, 2, 3):
        assert session.acknowledged(PUBACK, n) is None
    assert resend(session, 5) == outs
    assert [wire(out) for out in outs] == [(False, 4, b"0"), (False, 5, b"1"), (False, 6, b"2")]
    assert session.inflight == outs
    assert session.oldest_ms(9) == 4
    session.resume(True, 10)
    assert [wire(out) for out in session.to_resend] == [
        (True, 4, b"0"),
        (True, 5, b"1"),
        (True, 6, b"2"),
    ]


def test_a_session_lost_twice_in_a_row_changes_nothing_more():
    session = Session(8)
    outs = [send(session, b"%d" % i) for i in range(2)]
    session.resume(False, 0)
    session.publish(outs[0], 0)
    session.resume(False, 0)
    assert session.unknown == []
    assert resend(session) == outs
    assert [wire(out)[:2] for out in outs] == [(False, 4), (False, 5)]


def test_a_resumed_session_where_a_lost_one_was_not_sent_again_yet():
    session = Session(8)
    a, b = send(session, b"a"), send(session, b"b")
    session.resume(False, 0)
    session.publish(a, 0)
    session.resume(True, 0)  # the connection broke before `b` had its turn
    assert resend(session) == [a, b]
    assert wire(a) == (True, 3, b"a")
    assert wire(b) == (False, 4, b"b")
    assert session.inflight == [a, b]


def test_the_order_stays_over_several_connections():
    """
    MQTT 3.1.1: [MQTT-4.6.0-1]
    MQTT 5.0: [MQTT-4.6.0-1]
    """
    session = Session(8)
    a, b = send(session), send(session)
    session.resume(True, 0)
    assert session.to_resend == [a, b]
    c = send(session)
    assert puback(session, a) is a  # an earlier connection carried it
    session.resume(True, 0)
    assert session.to_resend == [b, c]
    session.resume(False, 0)
    assert session.to_resend == [b, c]
    session.publish(b, 0)
    session.resume(True, 0)
    assert session.to_resend == [b, c]
    assert wire(b)[0]


def test_what_is_kept_back_is_not_sent_again_and_keeps_its_id():
    session = Session(3)
    outs = [send(session, b"%d" % n) for n in range(3)]
    session.drop(outs[1], 0)
    assert session.inflight == [outs[0], outs[2]] and session.aside == [outs[1]]
    assert not session.full(), "it takes no place in the window"
    session.resume(True, 0)
    assert resend(session) == [outs[0], outs[2]]
    session.publish(outs[1], 0)
    assert session.inflight == [outs[0], outs[2], outs[1]] and not session.aside
    assert wire(outs[1]) == (True, 2, b"1")
    assert puback(session, outs[1]) is outs[1]


def test_no_other_message_takes_the_id_of_one_that_is_kept_back():
    for qos in (1, 2):
        session = Session(50)
        out = send(session, qos=qos)
        if qos == 2:
            session.drop(out)
            session.publish(Outgoing(packet.publish(b"t", b"", 1), 1), 0)
            session._id = 16  # from here on those with QoS 2 have ids of their own
            out = send(session, qos=2)
            session.acknowledged(PUBACK, 2)
        session.drop(out, 0)
        others = []
        for _ in range(20):
            session._id = out.id - 1 if qos == 1 else session._id
            session._free = 0
            others.append(send(session, qos=qos))
            session.drop(others[-1])
        assert out.id not in [other.id for other in others]


def test_what_is_kept_back_is_a_new_message_for_a_new_session_but_with_qos_2():
    session = Session()
    one, two, never = send(session, b"1"), send(session, b"2", qos=2), Outgoing(b"", 2)
    never.packet = packet.publish(b"t", b"3", 2)
    for out in (never, two, one):
        session.drop(out, 0)
    session.resume(True, 0)
    session.resume(False, 0)
    assert session.unknown == [two] and session.aside == [one, never]
    assert not (session.inflight or session.to_resend)
    session.publish(one, 0)
    assert wire(one) == (False, one.id, b"1") and one.id


def test_what_is_kept_back_no_longer_is_sent_again_as_the_window_allows():
    for present in (True, False):
        session = Session(1)
        one, two, three = [send(session, b"%d" % n, qos=2 - (n == 1)) for n in (1, 2, 3)]
        for out in (three, two, one):
            session.drop(out, 0)
        session.resume(True, 0)
        for out in (one, two, three):
            session.inflight.append(out)
            session.aside.remove(out)
            session.to_resend.append(out)
        assert not session.full()
        assert resend(session, 6) == [one] and session.full()
        assert wire(one) == (True, 1, b"1")
        session.resume(present, 7)
        assert session.to_resend == ([one, two, three] if present else [one])
        assert session.unknown == ([] if present else [two, three])
        assert [wire(out)[0] for out in session.to_resend] == [present] * len(session.to_resend)


def test_what_is_kept_back_can_be_dropped():
    session = Session()
    out = send(session)
    session.drop(out, 0)
    session.drop(out)
    assert not (session.aside or session.inflight)


def test_a_lost_connection_ends_its_requests():
    session = Session(8)
    n = session.request("a")
    session.resume(True, 0)
    assert session.requests == {}
    assert session.answered(n) is None
    assert session.stray == 1


# QoS 2 out


def receipt(session, out, now_ms=0, refused=False):
    """PUBREC came for `out` (Outgoing)."""
    return session.acknowledged(PUBREC, out.id, now_ms, refused)


def complete(session, out):
    """PUBCOMP came for `out` (Outgoing)."""
    return session.acknowledged(PUBCOMP, out.id)


def test_a_qos_2_message_is_delivered_by_pubrec_and_pubcomp():
    """
    MQTT 3.1.1: [MQTT-4.3.3-1]
    MQTT 5.0: [MQTT-4.3.3-1], [MQTT-4.3.3-2]
    """
    session = Session(8)
    out = send(session, b"x", qos=2)
    assert wire(out) == (False, 1, b"x")
    assert receipt(session, out) is out
    assert (session.inflight, session.awaiting_pubcomp) == ([], [out])
    assert complete(session, out) is out
    assert (session.inflight, session.awaiting_pubcomp) == ([], [])
    assert session.stray == 0


def test_a_repeated_pubrec_finds_its_message_again_and_one_too_late_none():
    session = Session(8)
    out = send(session, qos=2)
    for _ in range(3):
        assert receipt(session, out) is out  # each is answered with PUBREL
    assert session.awaiting_pubcomp == [out]
    assert session.stray == 0
    assert complete(session, out) is out
    assert receipt(session, out) is None
    assert complete(session, out) is None
    assert session.stray == 2


def test_a_pubcomp_before_the_pubrec_is_stray_until_the_message_was_sent_twice():
    session = Session(8)
    for qos in (1, 2):
        out = send(session, qos=qos)
        assert complete(session, out) is None
        assert session.stray == qos
        assert session.inflight == [out]
        session.resume(True, 0)
        assert complete(session, out) is out
        assert session.inflight == session.to_resend == []
    out = send(session, qos=2)
    assert complete(session, out) is None
    assert receipt(session, out) is out
    assert complete(session, out) is out


def test_a_pubrec_ends_a_qos_1_message():
    for refused in (False, True):
        session = Session(1)
        out = send(session)
        assert receipt(session, out, refused=refused) is out
        assert session.inflight == session.awaiting_pubcomp == []
        assert not session.full()
        assert complete(session, out) is None
        assert session.stray == 1


def test_a_refused_message_is_no_longer_in_flight_and_its_id_is_free():
    """MQTT 5.0: [MQTT-4.3.3-4], [MQTT-4.4.0-2]"""
    session = Session(1)
    out = send(session, qos=2)
    assert receipt(session, out, refused=True) is out
    assert session.inflight == session.awaiting_pubcomp == []
    assert not session.full()
    assert receipt(session, out) is None
    assert session.stray == 1
    session._id, session._free = 0, 0
    assert send(session, qos=2).id == 1


def test_a_refusal_after_the_pubrec_ends_the_message():
    session = Session(8)
    out = send(session, qos=2)
    receipt(session, out)
    assert receipt(session, out, refused=True) is out
    assert session.awaiting_pubcomp == session.inflight == []


def test_an_id_is_in_use_until_the_pubcomp():
    """
    MQTT 3.1.1: [MQTT-2.3.1-3], [MQTT-4.3.3-1]
    MQTT 5.0: [MQTT-4.3.3-1]
    """
    session = Session(8)
    first, second = send(session, qos=2), send(session, qos=2)
    receipt(session, first)
    session._id, session._free = 0, 0
    assert send(session).id == 3
    complete(session, first)
    session._id, session._free = 0, 0
    assert send(session).id == 1
    assert second.id == 2


def test_the_window_counts_a_qos_2_message_until_its_pubcomp():
    """MQTT 5.0: [MQTT-4.9.0-2]"""
    session = Session(2)
    a = send(session, qos=2)
    b = send(session, qos=1)
    assert session.full()
    receipt(session, a)
    assert session.full()
    puback(session, b)
    assert not session.full()
    send(session, qos=2)
    assert session.full()
    complete(session, a)
    assert not session.full()


def test_the_age_of_a_qos_2_message_is_that_of_its_last_step():
    session = Session(8)
    a = send(session, now_ms=100, qos=2)
    assert session.oldest_ms(150) == 50
    receipt(session, a, 160)
    assert session.oldest_ms(170) == 10
    receipt(session, a, 190)  # repeated: it is the PUBCOMP that is waited for
    assert session.oldest_ms(200) == 40
    send(session, now_ms=180)
    assert session.oldest_ms(200) == 40
    complete(session, a)
    assert session.oldest_ms(200) == 20


def test_the_age_is_that_of_a_publish_older_than_any_pubrel():
    session = Session(8)
    send(session, now_ms=100, qos=2)
    b = send(session, now_ms=110, qos=2)
    receipt(session, b, 120)
    assert session.oldest_ms(130) == 30


def test_a_resumed_session_releases_in_the_order_of_the_pubrecs_and_then_sends_again():
    """
    MQTT 3.1.1: [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4]
    MQTT 5.0: [MQTT-4.3.3-5], [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.6.0-4]
    """
    session = Session(8)
    a, b, c, d, e = [send(session, b"%d" % i, qos=i % 2 + 1) for i in range(5)]
    f = send(session, b"5", qos=2)
    for out in (d, f, b):
        assert receipt(session, out) is out
    session.resume(True, 500)
    assert session.unknown == []
    assert session.awaiting_pubcomp == [d, f, b]
    assert session.oldest_ms(520) == 20
    assert resend(session, 510) == [a, c, e]
    assert [wire(out)[:2] for out in (a, c, e)] == [(True, 1), (True, 3), (True, 5)]
    assert complete(session, d) is d
    session.resume(True, 600)
    assert session.unknown == []
    assert session.awaiting_pubcomp == [f, b]
    assert session.to_resend == [a, c, e]


def test_a_pubrec_that_was_lost_is_followed_by_the_same_publish():
    """
    MQTT 3.1.1: [MQTT-4.3.3-1]
    MQTT 5.0: [MQTT-4.3.3-3], [MQTT-4.3.3-6]
    """
    session = Session(8)
    out = send(session, b"x", qos=2)
    session.resume(True, 0)
    assert resend(session) == [out]
    assert wire(out) == (True, 1, b"x")
    assert receipt(session, out) is out
    session.resume(True, 0)
    assert session.to_resend == []  # [MQTT-4.3.3-1]: no PUBLISH after PUBREL
    assert session.awaiting_pubcomp == [out]
    assert complete(session, out) is out


def test_a_lost_session_leaves_the_fate_of_qos_2_unknown_and_sends_qos_1_as_new():
    session = Session(8)
    a, b, c, d = [send(session, b"%d" % i, qos=i % 2 + 1) for i in range(4)]
    receipt(session, d)
    session.resume(False, 0)
    unknown = session.unknown
    assert sorted(out.packet[-1:] for out in unknown) == [b"1", b"3"]
    session.resume(True, 0)
    assert session.unknown == unknown  # nobody was told yet
    unknown.clear()
    assert session.awaiting_pubcomp == []
    assert session.inflight == session.to_resend == [a, c]
    assert resend(session) == [a, c]
    assert [wire(out) for out in (a, c)] == [(False, 5, b"0"), (False, 6, b"2")]
    assert receipt(session, b) is None
    assert complete(session, d) is None
    session.resume(False, 0)
    assert session.unknown == []


def test_what_is_sent_again_keeps_within_a_window_that_became_smaller():
    """MQTT 5.0: [MQTT-4.9.0-2]"""
    session = Session(6)
    outs = [send(session, b"%d" % i, qos=2) for i in range(6)]
    for out in outs[:2]:
        receipt(session, out)
    session.resume(True, 0)
    session.max_inflight = 3
    assert not session.full()  # two wait for PUBCOMP
    assert resend(session) == [outs[2]]
    assert session.to_resend == outs[3:]
    complete(session, outs[0])
    assert resend(session) == [outs[3]]
    receipt(session, outs[2])
    assert resend(session) == []
    complete(session, outs[2])
    complete(session, outs[1])
    assert resend(session) == outs[4:]
    assert session.full()
    session.resume(True, 0)
    session.max_inflight = 1
    for out in outs[3:]:
        assert resend(session) == [out]
        assert receipt(session, out) is out
        assert session.full()
        assert complete(session, out) is out
    assert session.inflight == session.awaiting_pubcomp == session.to_resend == []


def test_an_answer_to_what_was_not_sent_again_yet_takes_it_off_the_list():
    session = Session(8)
    a, b, c = send(session), send(session, qos=2), send(session, qos=2)
    session.resume(True, 0)
    assert puback(session, a) is a
    assert receipt(session, b) is b
    assert session.to_resend == [c]
    assert session.awaiting_pubcomp == [b]
    assert resend(session) == [c]


# In


def test_a_message_is_acknowledged_once_and_only_when_it_is_done():
    """
    MQTT 3.1.1: [MQTT-4.3.2-2]
    MQTT 5.0: [MQTT-4.3.2-4]
    """
    session = Session(8)
    a, new = receive(session, 5)
    assert new
    assert session.next_ack() is None
    a.done = True
    assert acks(session) == [(0x40, 5)]
    assert acks(session) == []


def test_acknowledgements_go_in_order_of_arrival():
    """
    MQTT 3.1.1: [MQTT-4.6.0-2]
    MQTT 5.0: [MQTT-4.6.0-2]
    """
    session = Session(8)
    a, b, c = [receive(session, n)[0] for n in (9, 3, 7)]
    c.done = True
    assert acks(session) == []
    a.done = True
    assert acks(session) == [(0x40, 9)]
    b.done = True
    assert acks(session) == [(0x40, 3), (0x40, 7)]


def test_an_acknowledged_id_serves_again():
    """
    MQTT 3.1.1: [MQTT-4.3.2-2]
    MQTT 5.0: [MQTT-4.3.2-5]
    """
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
        assert session.inbound == [message]
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
        assert len(session.inbound) <= 2
    running, _ = receive(session, 2000, b"slow")
    for _ in range(3):
        session.resume(True, 0)
    assert not receive(session, 2000, b"slow", dup=True)[1]  # its handler still runs
    running.done = True
    assert acks(session) == [(0x40, 2000)]


def test_a_connection_that_ended_before_the_redelivery_does_not_count():
    session = Session(8)
    first, last = [receive(session, n, b"%d" % n)[0] for n in (1, 2)]
    session.resume(True, 0)
    first.done = last.done = True
    for _ in range(3):  # of two one comes again, before the connection ends, or none
        session.resume(True, 0)
        assert not receive(session, 1, b"1", dup=True)[1]
        session.resume(True, 0)
    assert not receive(session, 1, b"1", dup=True)[1]
    assert not receive(session, 2, b"2", dup=True)[1]
    assert acks(session) == [(0x40, 1), (0x40, 2)]
    assert not session.inbound


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
    session.inbound.remove(session.next_ack())
    assert session.lingering() == 2 * (10 + 1 + 100)
    session.resume(True, 0)
    assert session.lingering() == 0  # they are not what the broker sent on this connection


def test_properties_count_among_the_bytes_behind_a_slow_handler():
    session = Session(8)
    receive(session, 1)
    fast, _ = receive(session, 2, b"y" * 10)
    fast.size += 300  # as of packet5's decoder
    fast.done = True
    assert session.lingering() == 10 + len("t") + 100 + 300


# QoS 2 in: what a session may hold from an earlier program


def test_a_qos_2_message_is_handled_once_until_it_is_released():
    """
    MQTT 3.1.1: [MQTT-4.3.3-2]
    MQTT 5.0: [MQTT-4.3.3-8], [MQTT-4.3.3-10], [MQTT-4.3.3-12]
    """
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
    assert session.released(5)
    assert session.stray == 0
    assert receive(session, 5, b"x", qos=2)[1]


def test_a_pubrel_that_nothing_waits_for_is_told_apart_and_counted():
    session = Session(8)
    assert not session.released(9)
    assert not session.released(65535)
    assert session.stray == 2
    receive(session, 9, qos=2)[0].done = True
    assert acks(session) == [(PUBREC, 9)]
    assert session.released(9)
    assert not session.released(9)  # the PUBCOMP was lost
    assert session.stray == 3


def test_a_redelivery_that_waits_for_its_turn_when_the_pubrel_comes_leaves_nothing_behind():
    for reconnect in (False, True):
        session = Session(8)
        receive(session, 5, b"x", qos=2)[0].done = True
        assert acks(session) == [(PUBREC, 5)]
        slow, _ = receive(session, 6, b"slow")
        assert not receive(session, 5, b"x", dup=True, qos=2)[1]  # it crossed the PUBREC
        assert session.released(5)
        slow.done = True
        if reconnect:
            session.resume(True, 0)
        else:
            assert acks(session) == [(0x40, 6)]
        assert receive(session, 5, b"x", qos=2)[1]  # else the next message was lost


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
    """
    MQTT 3.1.1: [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    MQTT 5.0: [MQTT-4.6.0-2], [MQTT-4.6.0-3]
    """
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


def test_of_qos_2_messages_without_end_and_without_pubrel_the_oldest_are_forgotten():
    session = Session(8)
    for n in range(1, 1000):
        message, new = receive(session, n, qos=2)
        assert new
        message.done = True
        assert acks(session) == [(0x50, n)]
        assert len(session.awaiting_pubrel) == min(n, 256)
        assert odd(session) == ([-1] if n > 256 else [])
    assert not receive(session, 744, dup=True, qos=2)[1]
    assert acks(session) == [(0x50, 744)]
    assert not session.released(743)
    assert receive(session, 743, dup=True, qos=2)[1]
    assert session.released(744)
    assert len(session.awaiting_pubrel) == 255


def test_any_number_of_messages_may_wait_for_their_handlers_here():
    # it is the client that bounds them, by their bytes
    session = Session(8)
    for n in range(1, 600):
        assert receive(session, n, qos=n % 2 + 1)[1]


def test_a_refused_qos_2_message_makes_room_at_once_and_its_id_is_free():
    """MQTT 5.0: [MQTT-4.3.3-9]"""
    session = Session(8)
    for _ in range(3):
        message, new = receive(session, 1, qos=2)
        assert new
        message.done = True
        message.ack_code = 0x80
        assert acks(session) == [(PUBREC, 1)]
    assert not session.released(1)


# Without memory


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
            message = session.next_ack()
            session.inbound.remove(message)
            got[n] = message
            n += 1
    except MemoryError:
        pass
    del taken
    got = [(PUBREC, message.id) for message in got[:n]] + acks(session)
    assert got == [(0x50, n) for n in range(1, 201)]
    for n in range(1, 201):
        assert not receive(session, n, dup=True, qos=2)[1]
        assert acks(session) == [(0x50, n)]
    for n in range(1, 201):
        session.released(n)
    assert session.stray == 0


def test_what_is_dropped_is_sent_no_more_and_takes_no_room():
    session = Session(2)
    released, a = send(session, qos=2), send(session)
    receipt(session, released)
    session.resume(True, 0)
    session.max_inflight = 1
    assert resend(session) == []  # it waits for the PUBCOMP, and has to be sent again
    session.drop(a)
    assert session.inflight == session.to_resend == []
    assert complete(session, released) is released
    assert not session.full()
    b = send(session)
    session.drop(b)  # was sent
    session.drop(b)
    assert session.inflight == session.to_resend == []
    assert not session.full()
    assert puback(session, a) is None


class Full(list):
    """A list that finds no memory for one item more."""

    def append(self, item):
        raise MemoryError("no memory")


def test_no_memory_for_a_message_in_flight_leaves_it_as_it_was():
    session = Session(8)
    session.inflight = Full()
    out = Outgoing(packet.publish(b"t", b"x", 1), 1)
    with raises(MemoryError):
        session.publish(out, 0)
    assert (out.id, session.inflight, session.to_resend) == (0, [], [])
    session.inflight = []
    session.publish(out, 0)
    assert session.inflight == [out]
    assert puback(session, out) is out


class Poor(Outgoing):
    """It finds no memory for its id, or for when it was sent, so many times in all."""

    fails = 0

    def _set(self, name, value):
        if self.fails:
            self.fails -= 1
            raise MemoryError("no memory")
        self.kept[name] = value

    id = property(lambda self: self.kept["id"], lambda self, n: self._set("id", n))
    sent_ms = property(lambda self: self.kept["ms"], lambda self, n: self._set("ms", n))

    def __init__(self, fails):
        self.kept = {"id": 0, "ms": 0}
        self.fails = fails
        super().__init__(packet.publish(b"t", b"x", 1), 1)


def test_no_memory_for_what_a_message_notes_puts_it_in_flight_once():
    for fails in (1, 2):
        session = Session(8)
        out = Poor(fails)
        for _ in range(fails):
            with raises(MemoryError):
                session.publish(out, 0)
            assert session.inflight == []
        session.publish(out, 0)
        assert session.inflight == [out]
        assert puback(session, out) is out


def test_no_memory_at_a_pubrec_leaves_the_message_in_flight():
    session = Session(8)
    out = send(session, qos=2)
    session.awaiting_pubcomp = Full()
    with raises(MemoryError):
        receipt(session, out)
    assert session.inflight == [out]
    session.awaiting_pubcomp = []
    session.resume(True, 0)
    assert resend(session) == [out]
    assert receipt(session, out) is out
    assert complete(session, out) is out


def test_packet_ids_go_on_elsewhere_in_a_session_that_an_earlier_program_left():
    """A broker may still have its QoS 2 messages, and take a new one for one of them."""
    first = []
    for ms in (4000, 4001, 4020, 70_000):  # since the boot: it takes about as long every time
        session = Session()
        session.resume(True, ms)
        assert session.leftover
        first.append(send(session).id)
        session.resume(True, 90_000)
        assert send(session).id == first[-1] + 1
    first.sort()
    assert first[0] > 16
    assert min(first[i + 1] - first[i] for i in range(3)) > 1000
    session = Session()
    session.resume(False, 70_000)
    assert not session.leftover
    assert send(session, qos=2).id == 1


def test_qos_2_takes_few_ids_and_others_when_there_are_none():
    session = Session(65535)
    session.resume(False, 0)
    assert [send(session, qos=qos).id for qos in (1, 2, 2, 1)] == [1, 2, 3, 4]
    for _ in range(20):
        puback(session, send(session))
    assert [send(session, qos=2).id for _ in range(13)] == list(range(5, 17)) + [25]
    for out in list(session.inflight):
        puback(session, out)
    assert [send(session, qos=qos).id for qos in (2, 1, 2)] == [1, 26, 2]


def test_an_id_of_qos_2_is_not_that_of_a_message_that_was_acknowledged_just_before():
    """A broker that acknowledges everything twice: what it says of the one is not of the next."""
    session = Session(8)
    last = []
    session.resume(False, 0)
    for n in range(400):
        if n == 200:
            session._id, session._free = 65500, 0
        out = send(session, qos=1 if n % 7 else 2)
        assert out.id not in last
        last = last[-5:] + [out.id]
        if out.qos == 2:
            assert out.id <= 16
            assert session.acknowledged(PUBREC, out.id) is out
            assert session.acknowledged(PUBCOMP, out.id) is out
        else:
            assert puback(session, out) is out


def test_a_pubrec_to_every_pubrel_ends_the_message_some_time():
    session = Session(8)
    for _ in range(2):
        out = send(session, qos=2)
        n = 0
        while out in session.inflight + session.awaiting_pubcomp:
            assert session.acknowledged(PUBREC, out.id) is out
            n += 1
        assert n == 34
        assert odd(session) == [3]
    session.odd = []
    for n in range(50):
        if n == 10:
            session.resume(True, 0)
        assert session.acknowledged(PUBREC, 999) is (None if 10 <= n < 42 else False)
        assert odd(session) == [3]
    assert session.stray == 50
    out = send(session, qos=2)
    assert session.acknowledged(PUBREC, out.id) is out
    assert session.acknowledged(PUBREC, 999) is None  # counted anew


def test_every_acknowledgement_in_every_state():
    """One that a message does not wait for is noted, and ends what it can mean the end of."""
    A, C, R = PUBACK, PUBCOMP, PUBREC
    states = {  # QoS, whether its PUBREC came, whether it was sent again
        "1": (1, False, False),
        "1 again": (1, False, True),
        "2": (2, False, False),
        "2 again": (2, False, True),
        "2 received": (2, True, False),
    }
    ends = {  # (state, kind) -> what is noted; those that are not here change nothing
        ("1", A): 0,
        ("1", R): R + 1,
        ("1 again", A): 0,
        ("1 again", R): R + 1,
        ("1 again", C): C + 1,
        ("2", A): A + 2,
        ("2 again", A): A + 2,
        ("2 again", C): C + 2,
        ("2 received", A): A + 2,
        ("2 received", C): 0,
    }
    for state, (qos, received, again) in states.items():
        for kind in (A, R, C):
            for refused in (False, True):
                session = Session(8)
                session.resume(False, 0)
                out = send(session, qos=qos)
                if received:
                    session.acknowledged(R, out.id)
                if again:
                    session.resume(True, 0)
                    resend(session)
                got = session.acknowledged(kind, out.id, 0, refused)
                here = session.inflight + session.awaiting_pubcomp
                what = state, kind, refused
                if (state, kind) in ends or (refused and kind == R):
                    assert got is out and not here, what
                    noted = [] if refused or not ends[state, kind] else [ends[state, kind]]
                    assert odd(session) == noted, what
                    assert session.stray == 0, what
                elif kind == R:  # QoS 2: it came, or came once more
                    assert got is out and session.awaiting_pubcomp == [out], what
                    assert odd(session) == session.inflight == [], what
                else:
                    assert got is None and here == [out], what
                    assert odd(session) == [kind] and session.stray == 1, what
                for other in (A, R, C):  # of what was never sent
                    session.odd = []
                    assert session.acknowledged(other, 9, 0, refused) is None
                    assert session.odd == [other << 16 | 9]
                    assert session.inflight + session.awaiting_pubcomp == here


# What an earlier program left at the broker (section 4.3.3)


def release(session):
    """Return the ids of the PUBRELs that are sent."""
    data = session.release(4000)
    ids = [data[i + 3] for i in range(0, len(data), 4)]
    assert data == b"".join([bytes((0x62, 2, 0, n)) for n in ids])
    return ids


def test_what_an_earlier_program_left_with_qos_2_is_released_before_its_ids_are_used():
    session = Session(8)
    session.resume(True, 3000)
    assert not session.full()
    ids = list(range(1, 17))
    assert release(session) == ids
    assert session.oldest_ms(4010) == 10
    for n in ids:
        assert session.full()  # till all are answered
        assert session.acknowledged(PUBCOMP, n) is False
    assert not session.full() and session.oldest_ms(5000) == -1
    assert session.stray == 0 and odd(session) == []
    assert session.acknowledged(PUBCOMP, 1) is None
    assert [send(session, qos=2).id for _ in range(2)] == [1, 2]


def test_what_was_not_answered_is_released_on_the_next_connection_if_something_was():
    session = Session(8)
    session.resume(True, 3000)
    release(session)
    for n in [3] + list(range(5, 14)):
        assert session.acknowledged(PUBCOMP, n) is False
    session.resume(True, 5000)
    assert not session.full() and session.leftover and not session.releasing
    assert release(session) == [1, 2, 4, 14, 15, 16]
    session.resume(True, 6000)  # nothing was answered: it is not asked again
    assert session.leftover and session.releasing and not session.full()
    assert send(session, qos=2).id > 16
    assert session.acknowledged(PUBCOMP, 1) is None  # too late
    session.resume(False, 7000)
    assert not session.leftover and not session.releasing
    assert send(session, qos=2).id <= 16


def test_what_is_in_flight_itself_is_not_left_over():
    session = Session(8)
    out = send(session, qos=2)
    done = send(session, qos=2)
    receipt(session, done)
    session.leftover = 0x1FFFE
    assert release(session) == list(range(3, 17))
    assert session.acknowledged(PUBREC, out.id) is out
    assert session.acknowledged(PUBCOMP, done.id) is done
    session.resume(True, 0)
    assert session.awaiting_pubcomp == [out]
    session = Session(8)
    for _ in range(16):
        send(session, qos=2)
    session.leftover = 0x1FFFE
    assert release(session) == []
    assert not session.leftover and not session.releasing


def test_a_message_with_qos_1_keeps_no_id_from_being_released():
    session = Session(8)
    out = send(session)
    session.leftover = 0x1FFFE
    assert release(session) == list(range(1, 17))
    assert session.acknowledged(PUBCOMP, 1) is False
    assert session.inflight == [out]
    assert session.acknowledged(PUBACK, 1) is out


def test_a_message_whose_pubrel_has_no_answer_may_be_left_at_the_broker():
    session = Session(8)
    session.resume(False, 0)
    a, b = send(session, qos=2), send(session, qos=2)
    receipt(session, a)
    session.resume(True, 0)
    assert session.acknowledged(PUBCOMP, a.id, 0, None) is a
    assert session.awaiting_pubcomp == [] and session.inflight == [b]
    assert session.leftover == 1 << a.id
    assert release(session) == [a.id]
    assert session.full()
    assert session.acknowledged(PUBCOMP, a.id) is False
    assert not session.full()
