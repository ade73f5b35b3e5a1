"""`mqttls keys`: what a handshake costs with each kind of key, measured."""

import argparse
import contextlib

from .. import handshakes, library
from ..arguments import add_serial_port
from ..names import KEY_KINDS

NAME = "keys"
SUMMARY = "handshake times by kind of key, measured on this PC or on a board"

_NAMES = {"p256": "P-256", "p384": "P-384", "p521": "P-521"}
_MODES = {"server-only": (False,), "mutual": (True,), "both": (False, True)}


def add(parser):
    parser.add_argument("--board", action="store_true", help="measure on the board on USB")
    add_serial_port(parser)
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        help="with --board: the address of this PC in the board's network (default: found)",
    )
    parser.add_argument(
        "--key",
        action="append",
        choices=KEY_KINDS,
        dest="kinds",
        help="only this kind of key; give it for each one (default: all)",
    )
    parser.add_argument(
        "--mode", choices=_MODES, default="both", help="with or without a client certificate"
    )
    parser.add_argument(
        "--runs", type=_runs, default=5, metavar="N", help="handshakes of each kind (5)"
    )


def _runs(text):
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError("1 to 100")
    return number


def run(arguments, report):
    names = arguments.kinds or list(KEY_KINDS)
    modes = _MODES[arguments.mode]
    client = None if arguments.board else handshakes.OnPC()
    handshakes.find_mosquitto()
    client = client or handshakes.OnBoard(arguments.port, arguments.listen)
    with contextlib.closing(client):
        kinds = []
        for name in dict.fromkeys(names):
            report.progress(len(kinds), len(names), f"making keys: {name}")
            kinds.append(handshakes.Kind(name, (client.address,)))
        with handshakes.broker(kinds, client.address) as version:
            rows = handshakes.measure(client, kinds, modes, arguments.runs, report.progress)
    base = _base(rows)
    for row in rows:
        row["ratio"] = row["seconds"] / base["seconds"] if base and row["seconds"] else None
    report.data.update(client=client.name, broker=version, runs=arguments.runs, rows=rows)
    _tell(rows, base, client, version, arguments.runs, report)
    for row in rows:
        if row["error"]:
            cause, cure = library.explain(row["error"])
            report.problem("TLS", f"{_name(row)}: {row['error']}", cause, cure)
    return report.status


def _base(rows):
    """Return the row that the others are compared with: mutual P-256, else the first."""
    good = [row for row in rows if row["seconds"]]
    best = [row for row in good if row["kind"] == "p256" and row["mutual"]]
    return (best or good or [None])[0]


def _name(row):
    kind = _NAMES.get(row["kind"], row["kind"].upper().replace("RSA", "RSA-"))
    return f"{kind} {'mutual' if row['mutual'] else 'server-only'}"


def _tell(rows, base, client, version, runs, report):
    report.say(f"{client.name}, {version}; TLS 1.2 handshakes, medians of {runs}")
    report.say("CA, broker and device have the same kind of key")
    report.say()
    report.say(f"{'key':<22}{'handshake':>12}{'ratio':>8}{'on the board':>14}")
    for row in rows:
        took = _time(row["seconds"]) if row["seconds"] else "failed"
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        report.say(f"{_name(row):<22}{took:>12}{ratio:>8}{row['bytes']:>8} bytes")
    if base:
        report.say()
        report.say(f"ratio: to {_name(base)}")


def _time(seconds):
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
