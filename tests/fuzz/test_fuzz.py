"""
A short run of the fuzzing: what is kept is replayed, then fresh inputs, some from a seed that is
another each time. The long run is `python -m tests.fuzz.run`.
"""

import random

import pytest

from tests.fuzz import coverage, play, run
from tests.fuzz.inputs import Connection, Input
from tests.fuzz.targets import TARGETS


def played(cases):
    """Play `cases` on the client; nothing may be wrong."""
    found, records = run.wrong(cases, timeout_s=100)
    said = "\n".join(f"{text}\n    {given}" for given, text in found)
    assert not found, f"{said}\n{records.errors[-3000:]}"
    return records


def test_what_the_fuzzing_kept_is_survived_still():
    kept = run.corpus()
    assert len(kept) > 100
    records = played([(given, None) for given, _ in kept])
    for (given, name), record in zip(kept, records, strict=True):
        if given.connections and name.split()[1] in ("4", "5"):  # how its connection ended
            assert name.split()[2] == record.ends[0][0], f"{name}: {record.ends[0]}\n    {given}"


def test_inputs_of_a_known_seed_are_survived():
    records = played(run.fresh("known", 1000))
    names = {end[0] for record in records for end in record.ends}
    assert names == {"", "ConnectError", "ProtocolError", "RefusedError"}


def test_inputs_of_a_new_seed_are_survived():
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # shown when it fails
    played(run.fresh(seed, 500))


def test_real_sockets_say_the_same():
    assert run.on_sockets("known", 300) == []


def test_an_input_is_the_same_after_it_was_written():
    for given, _ in run.fresh("known", 100):
        assert str(Input.parse(str(given))) == str(given)


def test_22000_mutated_answers_are_read_or_refused():
    """What a server may send, changed at random places: the decoders alone, which is quick."""
    dice = random.Random("answers")
    answers = []
    for given, _ in run.fresh("answers", 220):
        answers += [(given.protocol, b"".join(each.pieces)) for each in given.connections]
    for _ in range(22_000):
        protocol, data = dice.choice(answers)
        data = bytearray(data[: 1 + dice.randrange(200)])
        for _ in range(dice.randrange(4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        # the first byte says into pieces of which size it is cut
        TARGETS["decoder5" if protocol == 5 else "decoder4"](b"\x07" + bytes(data))


@pytest.mark.parametrize("name", TARGETS)
def test_what_coverage_found_holds(name):
    inputs = coverage.read(name)
    assert len(inputs) > 40
    for data in inputs:
        TARGETS[name](data)


# The judge itself


def test_a_failing_input_is_made_small(monkeypatch):
    def verdicts(inputs, timeout_s=0):
        return list(inputs)  # in the place of records

    def judge(given, record, acks=None):
        data = b"".join(piece for each in given.connections for piece in each.pieces)
        return "wrong: bad" if b"\x31\x07" in data and record else ""

    monkeypatch.setattr(play, "play", verdicts)
    monkeypatch.setattr(play, "judge", judge)
    connections = [Connection("p", [b"abc", b"d\x31", b"\x07ef"]), Connection("w", [b"g" * 50])]
    small = play.minimised(Input(5, "rs", connections))
    assert str(small) == "5 - -:3107"


@pytest.mark.parametrize(
    "protocol, data",
    [
        (4, "3003"),  # not whole
        (4, "4003000100"),  # longer than it may be
        (4, "6202"),
        (5, "62020000"),  # packet id 0
        (4, "820500010001"),
        (4, "90030001"),  # a server's
        (4, "360500016100016100"),  # QoS 3
        (5, "e0028101"),  # properties beyond the packet
    ],
)
def test_the_judge_knows_what_no_client_may_send(protocol, data):
    with pytest.raises((AssertionError, KeyError, UnicodeDecodeError)):
        play.packets(protocol, bytes.fromhex(data))
