"""
Run the tests under every MicroPython at hand, and write what came of it into docs/firmware.md.

    ./dev matrix [TEST ...]

The interpreters: 1.25 built from Debian trixie's sources, the program of Debian sid, the one of
.venv; or those that MICROPYTHON names, several with a colon between them. TEST is what pytest
takes, folders and files; without one it is all that runs under an interpreter.
"""

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree
from pathlib import Path

from tools import debian, freeze
from tools.debian import Unavailable
from tools.micropython_source import ROOT, STABLE, Source

PAGE = ROOT / "docs" / "firmware.md"
TESTS = ("tests/unit", "tests/integration", "tests/faults", "tests/fuzz", "tests/conformance")
_BEGIN, _END = "<!-- begin of the matrix -->\n", "<!-- end of the matrix -->\n"
_ASK = "import sys, tls; print('%d.%d.%d' % sys.implementation[1][:3], tls.MBEDTLS_VERSION)"

# What fails by the nature of a release: part of a test's name -> why
KNOWN = {
    "without_a_common_version": "it has TLS 1.3, and ChaCha20",
    "only_tls_1_3": "it has TLS 1.3",
    "tls_1_3_alone": "it has TLS 1.3",
    "too_old_is_explained": "with TLS 1.3 a broker of TLS 1.1 breaks off first",
    "beyond_its_buffer": "its buffers hold 16 KB either way",
}


def newest():
    """Return the path of the interpreter of Debian's newest MicroPython. Raises Unavailable."""
    folder = debian.CACHE / "sid" / "micropython"
    return debian.program("sid", "micropython", "usr/bin/micropython", folder)


def oldest():
    """Return the path of the interpreter of 1.25, of Debian's sources. Raises Unavailable."""
    return freeze.unix(64, of=Source(STABLE))


def _interpreters():
    named = os.environ.get("MICROPYTHON")
    if named:
        yield from named.split(":")
        return
    for make in oldest, newest:
        try:
            yield make()
        except Unavailable as reason:
            print(f"without {make.__name__}: {reason}", file=sys.stderr)
    own = ROOT / ".venv" / "bin" / "micropython"
    if own.exists():
        yield own


def run(interpreter, tests):
    """Return (version, count of tests, names of those that failed) under one interpreter."""
    version = subprocess.check_output([interpreter, "-c", _ASK], text=True).strip()
    print(f"MicroPython {version}: {interpreter}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mqtt-matrix-") as folder:
        report = Path(folder, "report.xml")
        options = ("-q", "-n", "2", "--dist", "loadfile", f"--junitxml={report}")
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=ROOT,
            env={**os.environ, "MICROPYTHON": str(interpreter)},
            check=False,
        )
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    ran = [case for case in cases if case.find("skipped") is None]
    bad = [case for case in ran if {"failure", "error"} & {each.tag for each in case}]
    return version, len(ran), [case.get("name") for case in bad]


def text(results, tests):
    """Return the table of what `run` returned for each, with `tests`, as Markdown."""
    lines = [
        "",
        "| MicroPython | tests | passed | what did not, and why |",
        "|---|---:|---:|---|",
    ]
    for version, ran, failed in results:
        why = {}
        for name in failed:
            reason = next((KNOWN[part] for part in KNOWN if part in name), "not known")
            why.setdefault(reason, []).append(f"`{name}`" if reason == "not known" else "")
        told = "; ".join(
            f"{len(names)}: {reason}" + "".join(f" {name}" for name in sorted(names) if name)
            for reason, names in sorted(why.items())
        )
        lines.append(f"| {version} | {ran} | {ran - len(failed)} | {told or 'all did'} |")
    lines += ["", f"These were run: {', '.join(f'`{name}`' for name in tests)}.", ""]
    return "\n".join(lines) + "\n"


def main(arguments):
    tests = arguments or [name for name in TESTS if (ROOT / name).is_dir()]
    results = [run(interpreter, tests) for interpreter in _interpreters()]
    table = text(results, tests)
    print(table)
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(f"(?s)(?<={_BEGIN}).*(?={_END})", lambda _: table, page)
    PAGE.write_text(page, encoding="utf-8")
    return 1 if any("not known" in line for line in table.splitlines()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
