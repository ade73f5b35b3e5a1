"""
Coverage-guided fuzzing of tests/fuzz/targets.py with atheris (requirements/fuzz.txt):

    .venv/bin/python -m tests.fuzz.run --inputs 0 --coverage SECONDS

The corpus of a target is tests/fuzz/corpus/TARGET.txt, an input a line in hex: the smallest inputs
that together reach all that was ever reached. ./dev test replays it without atheris.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).resolve().parents[2]
DRIVEN = ("packet", "packet5", "properties", "session")
LONGEST = {"decoder4": 120, "decoder5": 160, "block": 120, "world": 300}  # bytes of an input


def read(name):
    """Return the corpus of a target (list of bytes)."""
    path = CORPUS / f"{name}.txt"
    lines = path.read_text().splitlines() if path.exists() else ()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def seeds(name):
    """Return inputs of the grammar for a target: a fuzzer would take long to find them."""
    from tests.fuzz.inputs import legal
    from tests.fuzz.mutations import mutated

    found = []
    for n in range(200):
        for given in (legal(n)[0], mutated(n)):
            for each in given.connections:
                data = b"".join(each.pieces)[: LONGEST[name] - 1]
                if name == f"decoder{given.protocol}":
                    found.append(b"\x05" + data)
    return found


def lines_of(code):
    """Return the numbers of the lines with code in a function and those inside it."""
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    own = {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
    return own.union(*map(lines_of, inner))


def reached():
    """
    Replay every corpus; return for each module of the package that it drives (lines of functions
    that were run, lines of functions, numbers of the others).
    """
    from tests.fuzz.targets import TARGETS

    seen = {}

    def trace(frame, event, _):
        name = frame.f_code.co_filename
        if event == "call":
            path = Path(name)
            return trace if path.parent.name == "mqtt_as_tls" and path.stem in DRIVEN else None
        seen.setdefault(name, set()).add(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        for name, target in TARGETS.items():
            for data in read(name):
                target(data)
    finally:
        sys.settrace(None)
    found = {}
    for path in sorted(seen):
        module = compile(Path(path).read_text(), path, "exec")
        parts = [const for const in module.co_consts if isinstance(const, types.CodeType)]
        # a class: its methods
        bodies = [
            inner
            for part in parts
            for inner in (
                [part]
                if part.co_flags & 2  # a function: it has fast locals
                else [const for const in part.co_consts if isinstance(const, types.CodeType)]
            )
        ]
        lines = set().union(*map(lines_of, bodies)) if bodies else set()
        found[Path(path).stem] = len(lines & seen[path]), len(lines), sorted(lines - seen[path])
    return found


def program(folder, name):
    """Return a program that fuzzes a target: for a merge, libFuzzer starts itself."""
    path = folder / "fuzz"
    path.write_text(
        f'#!/bin/sh\nFUZZ="$0" exec {sys.executable} -m tests.fuzz.coverage {name} "$@"\n'
    )
    path.chmod(0o755)
    return path


def run(seconds):
    """Fuzz every target for so many seconds; return what failed [(target, input in hex)]."""
    if importlib.util.find_spec("atheris") is None:
        sys.exit("atheris is missing: .venv/bin/python -m pip install -r requirements/fuzz.txt")
    failures = []
    for name in LONGEST:
        with tempfile.TemporaryDirectory(prefix="mqtt-fuzz-") as folder:
            old, new, merged, crashes = (
                Path(folder) / each for each in "old new merged crash".split()
            )
            for each in (old, new, merged, crashes):
                each.mkdir()
            for n, data in enumerate(read(name) + seeds(name)):
                (old / str(n)).write_bytes(data)
            command = [str(program(Path(folder), name))]
            options = [
                f"-max_len={LONGEST[name]}",
                f"-artifact_prefix={crashes}/",
                "-timeout=20",
                "-len_control=0",
            ]
            time = f"-max_total_time={seconds}"
            done = subprocess.run(
                [*command, str(new), str(old), *options, time, "-print_final_stats=1"],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                text=True,
            )
            lines = done.stderr.splitlines()
            for line in lines:
                if "stat::number_of_executed_units" in line or "stat::average_exec" in line:
                    print(name, line)
            print(name, *[line for line in lines if " cov: " in line][-1:])
            for crash in crashes.iterdir():
                failures.append((name, crash.read_bytes().hex()))
                print(name, "failed:", crash.read_bytes().hex())
                print("\n".join(lines[-30:]))
            subprocess.run(
                [*command, "-merge=1", str(merged), str(new), str(old), options[0]],
                cwd=ROOT,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            inputs = sorted(
                {each.read_bytes() for each in merged.iterdir()}, key=lambda d: (len(d), d)
            )
            inputs += [bytes.fromhex(text) for target, text in failures if target == name]
            (CORPUS / f"{name}.txt").write_text("".join([f"{data.hex()}\n" for data in inputs]))
            print(f"{name}: {len(inputs)} inputs kept", flush=True)
    for name, (count, of, others) in reached().items():
        print(f"{name}: {count} of {of} lines reached, not {others}")
    return failures


def main():
    import atheris

    sys.modules["micropython"] = types.ModuleType("micropython")
    sys.modules["micropython"].const = lambda value: value
    with atheris.instrument_imports(include=["mqtt_as_tls"]):
        from tests.fuzz import targets
    name = sys.argv.pop(1)
    sys.argv[0] = os.environ["FUZZ"]
    atheris.Setup(sys.argv, targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
