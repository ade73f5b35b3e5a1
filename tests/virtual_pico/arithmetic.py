"""
Hold the arithmetic of P-256 in firmware/ against mbedTLS's: `./dev pico arithmetic`.

It is the firmware's own code that runs in the emulator, called function by function: products,
squares, reductions, inverses, each in constant time, then signatures and key agreements with
vectors that others have published.

    ./dev pico arithmetic                  as the tests do
    ./dev pico arithmetic --values 1000000 --edges 0 --inverses 1000
                                           a million of each at random, all pairs of edges
    ./dev pico arithmetic ecdsa_secp256r1_sha256_p1363_test.json ecdh_secp256r1_ecpoint_test.json
                                           and what is in these files of Wycheproof's
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

from tests.support import node, patience
from tests.virtual_pico.pico import EMULATOR, install
from tools import firmware


class Differs(Exception):
    """What was found to differ, or not to take the same time."""


def compare(image, timeout_s=300, **settings):
    """
    Compare on the firmware.bin `image` (Path; its .elf lies beside it).

    settings  those of emulator/p256.mjs: values, edges, inverses, traced, seed, groups

    Returns what was compared (dict): how many of each, and the cycles of each function. Raises
    Differs.
    """
    install()
    settings = {"firmware": str(image), "symbols": firmware.symbols(image), **settings}
    done = subprocess.run(
        [node.node(), EMULATOR / "p256.mjs"],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        timeout=timeout_s and patience.stretched(timeout_s),
        check=False,
    )
    if done.returncode != 0:
        raise Differs(done.stdout + done.stderr)
    return json.loads(done.stdout)


def der(r, s):
    """Return a signature of two numbers (str, hexadecimal) as TLS has it (str, hexadecimal)."""

    def integer(text):
        content = bytes.fromhex(text).lstrip(b"\0") or b"\0"
        content = b"\0" + content if content[0] & 0x80 else content
        return bytes([2, len(content)]) + content

    content = integer(r) + integer(s)
    return (bytes([0x30, len(content)]) + content).hex()


def vectors(path):
    """Return what a file of Wycheproof's has for `compare`; signatures are two numbers there."""
    groups = json.loads(Path(path).read_text())["testGroups"]
    for group in groups:
        if group["type"] == "EcdsaP1363Verify":
            whole = [test for test in group["tests"] if len(test["sig"]) == 128]
            signed = [{**each, "sig": der(each["sig"][:64], each["sig"][64:])} for each in whole]
            group.update(type="EcdsaVerify", tests=signed)
    return groups


def main(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev pico arithmetic",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--values", type=int, default=1000, help="numbers at random")
    parser.add_argument("--edges", type=int, default=1000, help="pairs of edges; 0: all of them")
    parser.add_argument("--inverses", type=int, default=20)
    parser.add_argument(
        "--traced", type=int, default=20, help="calls of which each step is watched"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("files", nargs="*", metavar="FILE", help="vectors, as Wycheproof has them")
    settings = vars(parser.parse_args(arguments))
    groups = [group for name in settings.pop("files") for group in vectors(name)]
    started = time.monotonic()
    try:
        compared = compare(firmware.steps(), timeout_s=None, groups=groups, **settings)
    except Differs as error:
        raise SystemExit(f"./dev pico arithmetic: {error}") from None
    for name, number in compared.items():
        print(f"{name:12} {number}")
    print(f"{time.monotonic() - started:.1f} s")
