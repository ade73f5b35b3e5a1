"""`mqttls fleet`: how all boards are, in a table, a page of this PC, or for Prometheus."""

import contextlib
import time

from .. import foreign
from ..arguments import port
from ..files import Directory, read_tls_json
from ..fleet import metrics, table, web
from ..fleet.boards import Boards
from ..fleet.listen import Listener
from ..messages import Failure, Usage, command

NAME = "fleet"
SUMMARY = "how all boards are: online or not, versions, last error, signal, memory"

_WEB_PORT, _METRICS_PORT = 8088, 9641
_TURN_S = 1  # between looks whether there is something new to show
_EVERY = 10  # turns: then the table is drawn anew whatever came, as time goes by


def add(parser):
    parser.add_argument(
        "--as",
        dest="who",
        metavar="NAME",
        help="the device that this PC connects as (default: the one of device add --monitor)",
    )
    parser.add_argument(
        "--home",
        default="devices/+/",
        metavar="TOPICS/",
        help="what boards' topics begin with, a + in the place of the name (default: devices/+/)",
    )
    parser.add_argument("--once", action="store_true", help="show it once, and end")
    parser.add_argument("--csv", action="store_true", help="the same as CSV")
    parser.add_argument(
        "--web",
        nargs="?",
        type=port,
        const=_WEB_PORT,
        metavar="PORT",
        help=f"a page at http://127.0.0.1:PORT/ ({_WEB_PORT})",
    )
    parser.add_argument(
        "--prometheus",
        nargs="?",
        type=port,
        const=_METRICS_PORT,
        metavar="PORT",
        help=f"metrics at http://127.0.0.1:PORT/metrics ({_METRICS_PORT})",
    )


def run(arguments, report):
    if arguments.csv and arguments.json:
        raise Usage("--csv or --json, not both")
    if (arguments.web or arguments.prometheus) and (arguments.csv or arguments.json):
        raise Usage("--web and --prometheus stay until Ctrl-C: without --csv and --json")
    boards = Boards(_home(arguments.home))
    with Directory.opened(arguments.dir, write=False) as directory:
        name, own_id = _who(directory, arguments.who)
        folder = directory.existing_device(name)
        settings = read_tls_json(folder)
        listener = Listener(folder, settings, boards, own_id)
    with contextlib.ExitStack() as stack:
        if arguments.prometheus:
            stack.enter_context(metrics.Server(boards, arguments.prometheus))
        stack.enter_context(listener)
        if arguments.web or arguments.prometheus:
            return _serve(boards, listener, arguments, report)
        listener.settle()
        if arguments.once or arguments.csv or arguments.json or not report.live:
            return _once(boards, arguments, report)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(boards, listener, report)
    return 0


def _home(text):
    if not text.isprintable() or len(text) > 256 or text.split("/").count("+") != 1:
        raise Usage("--home: what topics begin with, one + in the place of the name: devices/+/")
    home = text if text.endswith("/") else text + "/"
    if any(len(each) > 1 and "+" in each or "#" in each for each in home.split("/")):
        raise Usage("--home: + stands alone between slashes, and # nowhere")
    return home


def _who(directory, who):
    """Return the name of the device to connect as, and whether the client id is another."""
    if who:
        return who, False
    deployment = foreign.opened(directory)
    if foreign.is_foreign(directory):
        names = directory.devices()
        make = command("device", "add", "NAME")
    else:
        names = [name for name in deployment.monitors if name in directory.devices()]
        make = command("device", "add", "wall", "--monitor")
    if not names:
        raise Failure("there is no device that this PC can connect as", make, stage="files")
    return names[0], foreign.is_foreign(directory)


def _once(boards, arguments, report):
    rows = boards.rows()
    report.data["boards"] = rows
    report.data["ignored"] = boards.ignored
    if arguments.csv:
        report.show(table.as_csv(rows))
    else:
        report.show("\n".join(table.lines(rows, boards.now())))
        report.say(table.summary(rows))
        _tell_ignored(boards, report)
    if not rows:
        report.note("no board told anything: client.report() in its app does")
    return 0


def _tell_ignored(boards, report):
    if boards.ignored:
        report.note(f"{boards.ignored:,} messages of names that are too many, too long, or odd")


def _watch(boards, listener, report):
    """Draw the table anew when something changes, until Ctrl-C."""
    drawn, turns = None, 0
    while True:
        state = (boards.changes, listener.connected, report.rows)
        if state != drawn or turns >= _EVERY:
            drawn, turns = state, 0
            rows = boards.rows()
            head = table.summary(rows) + ("" if listener.connected else "; NOT CONNECTED")
            shown = table.lines(rows, boards.now(), max(report.rows - 5, 1))
            report.draw([head, "", *shown])
        turns += 1
        time.sleep(_TURN_S)


def _serve(boards, listener, arguments, report):
    def ready():
        if arguments.prometheus:
            report.say(f"metrics: http://127.0.0.1:{arguments.prometheus}/metrics")
        if arguments.web:
            report.say(f"page: http://127.0.0.1:{arguments.web}/")
        report.say("Ctrl-C ends it")

    with contextlib.suppress(KeyboardInterrupt):
        if arguments.web:
            web.serve(boards, listener, arguments.web, ready)
            return 0
        ready()
        while True:
            time.sleep(_TURN_S)
    return 0
