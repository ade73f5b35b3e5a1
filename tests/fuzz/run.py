"""
The long run of the fuzzing; `./dev test` runs a short one.

    .venv/bin/python -m tests.fuzz.run                       100,000 inputs on the client
    .venv/bin/python -m tests.fuzz.run --inputs 5000 --seed 7
    .venv/bin/python -m tests.fuzz.run --socket 20000        over real sockets too
    .venv/bin/python -m tests.fuzz.run --coverage 600        atheris, 600 s a target

What fails is made small and kept in tests/fuzz/corpus/found.txt, which every later run replays.
"""

import argparse
import random
import re
import sys
import time
import types
from collections import Counter
from pathlib import Path

sys.modules.setdefault("micropython", types.ModuleType("micropython")).const = lambda value: value

from tests.fuzz import play  # noqa: E402
from tests.fuzz.inputs import MAX_PACKET, Input, legal  # noqa: E402
from tests.fuzz.mutations import mutated  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
FOUND = CORPUS / "found.txt"
OUTCOMES = CORPUS / "outcomes.txt"
BATCH = 10_000  # inputs in one interpreter


def corpus():
    """Return what is kept: [(Input, the comment above it)]."""
    found = []
    for path in (FOUND, OUTCOMES):
        name = ""
        for line in path.read_text().splitlines() if path.exists() else ():
            if line.startswith("#"):
                name = line
            elif line:
                found.append((Input.parse(line), name))
    return found


def fresh(seed, count):
    """Return [(Input, the acknowledgements it has to get, or None)]: a tenth breaks no rule."""
    return [
        legal(f"{seed}.{n}") if n % 10 == 0 else (mutated(f"{seed}.{n}"), None)
        for n in range(count)
    ]


def wrong(cases, timeout_s=600):
    """
    Play `cases` [(Input, acknowledgements or None)]; return ([(Input, what is wrong)], records).
    When one kills or hangs the interpreter, the rest goes on in another.
    """
    found = []
    records = play.Records()
    while len(records) < len(cases):
        rest = cases[len(records) :]
        part = play.play([given for given, _ in rest], timeout_s)
        records.errors += part.errors
        # up to and with the first one that was not played to its end
        end = part.index(None) + 1 if None in part else len(part)
        for (given, acks), record in zip(rest[:end], part[:end], strict=True):
            text = play.judge(given, record, acks)
            if text:
                found.append((given, text))
        records += part[:end]
        grown = play.grown(part.heaps) if len(part.heaps) >= 10 else 0
        if grown > play.GROWTH:
            found.append((rest[0][0], f"the heap grew by {grown} bytes over {end} inputs"))
    return found, records


def keep(given, text):
    """Make a failing input small and add it to the corpus."""
    small = play.minimised(given)
    with FOUND.open("a") as f:
        f.write(f"# {text}\n{small}\n")
    return small


def outcome(given, end):
    """Return what stands for all connections that ended alike."""
    name, code, text, _ = end
    return (
        given.protocol,
        name,
        code,
        re.sub(r"0x\w+|\d+", "#", re.split("[:'\"]", text)[0])[:45].strip(),
    )


def collect(cases, records):
    """Have the corpus show every way in which a connection can end, by its smallest input."""
    known = {}
    for line in OUTCOMES.read_text().splitlines() if OUTCOMES.exists() else ():
        if line.startswith("#"):
            name = line
        elif line:
            known[name] = line
    for (given, _), record in zip(cases, records, strict=True):
        if record is None or len(record.ends) != 2:  # one connection shows it best
            continue
        name = "# " + " ".join(map(str, outcome(given, record.ends[0])))
        if name not in known or len(str(given)) < len(known[name]):
            known[name] = str(given)
    OUTCOMES.write_text("".join([f"{name}\n{known[name]}\n" for name in sorted(known)]))


def on_sockets(seed, count):
    """Play single connections over real sockets; return what was wrong (list of str)."""
    # it has the broker for what is malformed
    from tests.integration.test_malformed import Server

    options = {"max_packet": MAX_PACKET, "properties": {"topic_alias_maximum": 4}}
    found = []
    for protocol in (4, 5):
        cases = []
        number = 0
        while len(cases) < count // 2:
            given = mutated(f"socket {seed}.{number}")
            number += 1
            if given.protocol == protocol:
                for each in given.connections:
                    data = b"".join(each.pieces)
                    cases.append(("e" in each.flags, (str(given), data, None)))
        if protocol == 4:
            del options["properties"]
        else:
            options["properties"] = {"topic_alias_maximum": 4}
        server = Server(protocol, cases, close=True)
        told = server.play(repr(options), timeout_s=60 + count // 50)
        for (_, (name, data, _)), (error, code, _, text), end in zip(
            cases, told, server.ends, strict=True
        ):
            goodbye = [body for first, body in end if first == 0xE0]
            good = error in ("ConnectError", "RefusedError") and not goodbye
            if error == "ProtocolError":
                code = 0x82 if code == "None" else int(code)
                good = goodbye == ([bytes((code,))] if protocol == 5 else [])
            if not good:
                found.append(f"{data.hex()} of {name}: {error} {text}, {end}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--socket", type=int, default=0)
    parser.add_argument("--coverage", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--collect", action="store_true", help="renew corpus/outcomes.txt")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    failures = []
    start = time.monotonic()
    outcomes = Counter()
    found, _ = wrong([(given, None) for given, _ in corpus()])
    failures += found
    for at in range(0, options.inputs, BATCH):
        cases = fresh(f"{options.seed}.{at}", min(BATCH, options.inputs - at))
        found, records = wrong(cases)
        for (given, _), record in zip(cases, records, strict=True):
            outcomes.update([outcome(given, end) for end in (record.ends[:-1] if record else ())])
        for given, text in found:
            print(f"{text}\n    {keep(given, text)}", flush=True)
        failures += found
        if options.collect:
            collect(cases, records)
        took = time.monotonic() - start
        print(
            f"{at + len(cases)} inputs, {sum(outcomes.values())} connections, {took:.0f} s, "
            f"{len(outcomes)} ways to end, {len(failures)} failures",
            flush=True,
        )
    if options.socket:
        start = time.monotonic()
        found = on_sockets(options.seed, options.socket)
        print(f"{options.socket} connections over sockets, {time.monotonic() - start:.0f} s")
        print("\n".join(found))
        failures += found
    if options.coverage:
        from tests.fuzz import coverage

        failures += coverage.run(options.coverage)
    sys.exit(f"{len(failures)} failures" if failures else 0)


if __name__ == "__main__":
    main()
