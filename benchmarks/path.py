"""
Where the time and the memory of a message go, from the app to the socket and back:

    ./dev bench path              on this computer and on the emulated RP2040 (./dev pico has to
                                  work); write what came out into docs/benchmarks.md
    ./dev bench path --here       on this computer only; write nothing

The broker is in the program's own memory (instant.py), so that nothing else is measured; the
pieces are in pieces.py. On this computer the time is that of the processor, on the chip its own.
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

from benchmarks import page
from tests.support import mpy
from tools.debian import Unavailable

HERE = Path(__file__).parent
PROTOCOLS = (4, 5)
PROGRAMS = ("instant.py", "pieces.py")
PIECES = {
    "publish_qos0": "**`await publish()`, QoS 0**",
    "publish_qos1": "**`await publish()`, QoS 1, to its PUBACK**",
    "in_flight": "16 of them in flight, each",
    "call": "of these: the call, checks and packet, till it is awaited",
    "encode": "of that: the packet",
    "session": "packet id, in flight, acknowledged",
    "decode_puback": "PUBACK: bytes to fields",
    "receive_qos0": "**a message to its handler, QoS 0**",
    "receive_qos1": "**QoS 1, with its PUBACK**",
    "decode_publish": "of these: bytes to fields",
    "message": "the `Message`",
    "turn": "a turn of asyncio: `sleep_ms(0)`",
    "bare_qos1": "a bare program: QoS 1, packet and answer prepared",
}

_LINE = re.compile(r"^piece (\w+) ([\d.]+) (\d+)$", re.M)


def found(output):
    """Return {piece: (µs, bytes)} of what pieces.py printed."""
    return {name: (float(us), int(taken)) for name, us, taken in _LINE.findall(output)}


def here(protocol, count=200, repeats=50):
    """Return the pieces of `protocol` on this computer, of `count` times `repeats` messages."""
    path = f"{mpy.search_root()}:{HERE}:.frozen"
    program = f"import pieces\npieces.run({protocol}, {count}, {repeats})\n"
    return found(mpy.check(program, heap="2M", timeout_s=300, env={"MICROPYPATH": path}))


def on_chip():
    """Return {protocol: pieces} on the emulated RP2040. Raises Unavailable, PicoError."""
    from tests.virtual_pico.pico import Pico
    from tools import firmware

    results = {}
    with tempfile.TemporaryDirectory() as folder, Pico(firmware.rp2040(), folder) as pico:
        for name in PROGRAMS:
            pico.put(f"/{name}", (HERE / name).read_text())
        for protocol in PROTOCOLS:
            pico.soft_reset()
            results[protocol] = found(pico.run(f"import pieces\npieces.run({protocol}, 50, 1)\n"))
    return results


def table(results):
    """Return the table (Markdown) of {(place, protocol): pieces}; place "PC" or "chip"."""
    chip = any(place == "chip" for place, _ in results)
    heads = ["3.1.1, µs", "MQTT 5, µs"]
    if chip:
        heads += ["3.1.1, chip, µs", "bytes", "MQTT 5, chip, µs", "bytes"]
    else:
        heads += ["3.1.1, bytes", "MQTT 5, bytes"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for name, what in PIECES.items():
        cells = [f"{results['PC', protocol][name][0]:.1f}" for protocol in PROTOCOLS]
        for protocol in PROTOCOLS:
            us, taken = results["chip" if chip else "PC", protocol][name]
            cells += [f"{us:,.0f}", f"{taken:,}"] if chip else [f"{taken:,}"]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main():
    parser = argparse.ArgumentParser(
        prog="./dev bench path",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--here", action="store_true", help="on this computer only")
    options = parser.parse_args()
    results = {("PC", protocol): here(protocol) for protocol in PROTOCOLS}
    if not options.here:
        try:
            chip = on_chip()
        except Unavailable as reason:
            sys.exit(f"path: no chip: {reason}")
        results.update({("chip", protocol): pieces for protocol, pieces in chip.items()})
    text = table(results)
    print(text)
    if not options.here:
        page.write("path", text)


if __name__ == "__main__":
    main()
