"""DNS messages, written and read (RFC 1035 section 4, RFC 6762)."""

import random

from mqtt_as_tls.dns import decode_answer, encode_query, is_ip
from mqtt_as_tls.errors import ResolveError
from tests.unit.checks import raises

QUESTION = b"\6broker\3lan\0\0\1\0\1"
OWNER = b"\xc0\x0c"  # a pointer to the question's name
ADDRESS = b"\0\1\0\1\0\0\0\x3c\0\4\xc0\xa8\1\2"  # A, IN, 60 s, 192.168.1.2


def answer(query, records=(OWNER + ADDRESS,), flags=b"\x81\x80", query_id=None, question=None):
    """Return an answer to `query`: its id and its question, unless others are given."""
    if question is None:
        question = query[12:]
    return (
        (query[:2] if query_id is None else query_id)
        + flags
        + (b"\0\1" if question else b"\0\0")
        + bytes((0, len(records)))
        + b"\0\0\0\0"
        + question
        + b"".join(records)
    )


def alias(target, owner=OWNER):
    """Return a CNAME record."""
    return owner + b"\0\5\0\1\0\0\0\x3c" + bytes((0, len(target))) + target


def test_addresses_are_told_from_names():
    for text in ("0.0.0.0", "192.168.1.10", "255.255.255.255"):
        assert is_ip(text), text
    for text in ("", "lan", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1..2.3", "1.2.3.x", "1.2.3.-4"):
        assert not is_ip(text), text


def test_a_query_asks_for_one_address_and_wishes_recursion():
    query = encode_query("broker.lan")
    assert query[2:] == b"\1\0\0\1\0\0\0\0\0\0" + QUESTION


def test_names_are_asked_in_lower_case():
    assert encode_query("Broker.LAN")[12:] == QUESTION


def test_ids_are_random():
    assert len({encode_query("broker.lan")[:2] for _ in range(20)}) > 10


def test_a_name_in_local_wishes_a_unicast_answer_and_no_recursion():
    query = encode_query("broker.local")
    assert query[2:] == b"\0\0\0\1\0\0\0\0\0\0" + b"\6broker\5local\0\0\1\x80\1"
    assert encode_query("local.lan")[-2:] == b"\0\1"
    assert encode_query("notlocal")[-2:] == b"\0\1"


def test_the_longest_names_are_taken():
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(name) == 253
    assert len(encode_query(name)) == 12 + 255 + 4
    with raises(ResolveError, "is no host name"):
        encode_query(name + "d")


def test_what_is_no_name_is_refused_with_a_sentence():
    wrong = ["", ".", "a..b", ".lan", "lan.", "a" * 64, "x." * 127 + "x", "broker lan", "bröker"]
    wrong += ["broker:8883", "mqtt://broker", "a/b", "a\0b", "::1", "user@host", "日本", "a" * 300]
    for name in wrong:
        with raises(ResolveError, "is no host name: use letters") as caught:
            encode_query(name)
        assert caught.error.host == name


def test_the_address_is_read_from_the_answer():
    query = encode_query("broker.lan")
    assert decode_answer(answer(query), query) == "192.168.1.2"


def test_the_first_of_several_addresses_is_taken():
    query = encode_query("broker.lan")
    other = OWNER + ADDRESS[:-1] + b"\x09"
    assert decode_answer(answer(query, (OWNER + ADDRESS, other)), query) == "192.168.1.2"
    assert decode_answer(answer(query, (other, OWNER + ADDRESS)), query) == "192.168.1.9"


def test_aliases_are_followed_to_the_address_behind_them():
    query = encode_query("broker.lan")
    one = alias(b"\4host\xc0\x13")
    two = alias(b"\7another\7example\0", b"\4host\xc0\x13")
    last = b"\7another\7example\0" + ADDRESS
    assert decode_answer(answer(query, (one, two, last)), query) == "192.168.1.2"
    # Some servers put the address first.
    assert decode_answer(answer(query, (last, one, two)), query) == "192.168.1.2"


def test_records_of_other_types_are_stepped_over():
    query = encode_query("broker.lan")
    ipv6 = OWNER + b"\0\x1c\0\1\0\0\0\x3c\0\x10" + bytes(16)
    long = OWNER + b"\0\x10\0\1\0\0\0\x3c\1\x2c" + b"\0\1" * 150
    assert decode_answer(answer(query, (ipv6, long, OWNER + ADDRESS)), query) == "192.168.1.2"


def test_a_question_may_come_back_in_capitals():
    query = encode_query("broker.lan")
    data = answer(query, question=b"\6BROKER\3Lan\0\0\1\0\1")
    assert decode_answer(data, query) == "192.168.1.2"


def test_no_such_name_and_no_address_end_the_search():
    query = encode_query("broker.lan")
    for records in ((), (alias(b"\4host\xc0\x13"),)):
        for flags in (b"\x81\x83", b"\x81\x80"):
            found = decode_answer(answer(query, records, flags), query)
            assert found == "no such name", (records, flags)


def test_a_server_that_cannot_tell_raises_its_code():
    query = encode_query("broker.lan")
    for code in (1, 2, 4, 5, 9, 15):
        with raises(OSError) as caught:
            decode_answer(answer(query, (), bytes((0x81, 0x80 | code))), query)
        assert caught.error.args[0] == code
        with raises(OSError):  # an address beside an error code is not believed
            decode_answer(answer(query, flags=bytes((0x81, 0x80 | code))), query)


def test_what_answers_another_question_is_ignored():
    query = encode_query("broker.lan")
    other_id = bytes((query[0] ^ 1, query[1]))
    for data in (
        answer(query, query_id=other_id),
        answer(query, query_id=b"\0\0" if query[:2] != b"\0\0" else other_id),
        answer(query, flags=b"\1\x80"),  # a query
        answer(query, flags=b"\xa9\x80"),  # another operation
        answer(query, question=b""),
        answer(query, question=b"\6brokes\3lan\0\0\1\0\1"),
        answer(query, question=b"\6broker\3lan\0\0\x1c\0\1"),  # AAAA
        answer(query, question=b"\6broker\3lan\0\0\1\0\3"),  # another class
        answer(query, question=b"\6broker\3lan\4home\0\0\1\0\1"),
        answer(query)[:4] + b"\0\2" + answer(query)[6:],
        query,
        b"",
    ):
        assert decode_answer(data, query) is None, data


def test_a_truncated_answer_is_used_only_if_it_has_the_address():
    query = encode_query("broker.lan")
    assert decode_answer(answer(query, flags=b"\x83\x80"), query) == "192.168.1.2"
    assert decode_answer(answer(query, (), b"\x83\x80"), query) is None


def test_an_answer_that_is_cut_anywhere_is_ignored():
    for name, flags in (("broker.lan", b"\x81\x80"), ("broker.local", b"\x84\0")):
        query = encode_query(name)
        for records in (
            (OWNER + ADDRESS,),
            (alias(b"\4host\xc0\x13"), b"\4host\xc0\x13" + ADDRESS),
            (b"\7another\7example\0" + ADDRESS,),
        ):
            whole = answer(query, records, flags)
            assert decode_answer(whole, query) == "192.168.1.2"
            for size in range(len(whole)):
                assert decode_answer(whole[:size], query) is None, (whole, size)


def test_pointers_that_go_in_circles_or_nowhere_do_no_harm():
    query = encode_query("broker.lan")
    at = len(query)
    for owner in (b"\xc0" + bytes((at,)), b"\xff\xff", b"\1a\xc0\x0c", b"\x80\0", b"\x40\0"):
        data = answer(query, (owner + ADDRESS,))
        assert decode_answer(data, query) == "192.168.1.2", owner
        data = answer(query, (alias(owner), owner + ADDRESS))
        assert decode_answer(data, query) == "192.168.1.2", owner


def test_lengths_beyond_the_packet_are_ignored():
    query = encode_query("broker.lan")
    for record in (
        OWNER + b"\0\1\0\1\0\0\0\x3c\xff\xff" + bytes(4),
        OWNER + b"\0\1\0\1\0\0\0\x3c\0\5" + bytes(4),
        OWNER + b"\0\5\0\1\0\0\0\x3c\xff\xff" + bytes(400),
        b"\x3f" + ADDRESS,
        b"",
    ):
        assert decode_answer(answer(query, (record,)), query) is None, record
    for count in (2, 255):  # more records announced than there are, none an address
        data = bytearray(answer(query, (alias(b"\4host\xc0\x13"),)))
        data[7] = count
        assert decode_answer(bytes(data), query) is None


def test_an_address_of_another_length_is_no_address():
    query = encode_query("broker.lan")
    for size in (0, 3, 5, 14, 16):
        record = OWNER + b"\0\1\0\1\0\0\0\x3c" + bytes((0, size)) + bytes(size)
        assert decode_answer(answer(query, (record,)), query) == "no such name"


def test_a_multicast_answer_may_lack_id_and_question():
    query = encode_query("broker.local")
    first = b"\6Broker\5local\0" + ADDRESS
    ipv6 = b"\6broker\5local\0" + b"\0\x1c\x80\1\0\0\0\x78\0\x10" + bytes(16)
    for data in (
        answer(query, flags=b"\x84\0"),
        answer(query, flags=b"\x84\0", query_id=b"\0\0"),
        answer(query, flags=b"\x84\0", question=b"\6broker\5local\0\0\1\0\1"),
        answer(query, (first,), b"\x84\0", b"\0\0", b""),
        answer(query, (ipv6, OWNER + ADDRESS), b"\x84\0", b"\0\0", b""),
    ):
        assert decode_answer(data, query) == "192.168.1.2", data


def test_multicast_answers_about_others_and_without_an_address_are_ignored():
    query = encode_query("broker.local")
    other = b"\7printer\5local\0" + ADDRESS
    for data in (
        query,
        answer(query, (other,), b"\x84\0", b"\0\0", b""),
        answer(query, question=b"\7printer\5local\0\0\1\0\1"),
        answer(query, (), b"\x84\0"),
        answer(query, (), b"\x84\0", b"\0\0", b""),
        answer(query, flags=b"\x84\3"),  # RFC 6762 section 18.11
        answer(query, flags=b"\x84\2"),
    ):
        assert decode_answer(data, query) is None, data


def test_hostile_answers_raise_nothing_but_a_servers_code():
    random.seed(20)
    for name in ("broker.lan", "broker.local"):
        query = encode_query(name)
        good = answer(query, (alias(b"\4host\xc0\x13"), OWNER + ADDRESS), b"\x81\x80")
        for _ in range(15_000):
            data = bytearray(good)
            for _ in range(random.getrandbits(3)):
                data[random.getrandbits(8) % len(data)] = random.getrandbits(8)
            data = bytes(data[: random.getrandbits(8) % (len(data) + 1) or None])
            data += bytes(random.getrandbits(8) for _ in range(random.getrandbits(3)))
            try:
                found = decode_answer(data, query)
            except OSError as error:
                assert error.args[0] in range(1, 16)
                continue
            assert found in (None, "no such name") or is_ip(found), data
