"""`mqttls explain ERROR`: what an error means, from the table that boards have."""

import re

from .. import library
from ..doctor import log
from ..doctor.causes import ROWS

NAME = "explain"
SUMMARY = "what an error of a board, or a line of the broker's log, means, and what to do"

_MOST = 2000
_LOG_LINE = re.compile(
    r"error:0|SSL routines|^\d{10}: |Client .* (disconnected|closed|connected)|"
    r"Denied (PUBLISH|SUBSCRIBE)|Unable to (open|load|drop)|Error opening"
)

# What only a person at a PC sees: other libraries' errors, and those of Windows. Before the rows
# of the device's table.
_OTHERS = (
    *(
        (*keys, "|".join(ROWS[row][1:]))
        for row, keys in (
            (43, ("ssl_params",)),
            (1, (11001, "getaddrinfo failed")),
            (2, (10061,)),
        )
    ),
    (10051, 10060, 10065, "no answer from that address|check the address, port and firewall"),
    (10053, 10054, "the other side hung up|see the broker's log"),
    (97, 47, "an IPv6 address, which is not supported|use the broker's IPv4 address"),
    (
        *("eagain", "einprogress", "ealready", 11, 119, 120, 35, 36, 37),
        "a socket that does not wait has nothing yet|no fault: try again later, or let it wait",
    ),
    (
        *(22, 106, 127, 56),
        "the port does not take such a call|check host, port and options, connect a socket once",
    ),
)


def look_up(error, year=None):
    """Return (cause, cure) of an error or a line of the broker's log; "" where it is unknown."""
    if _LOG_LINE.search(error):
        finding = log.judge_line(error)
        if finding:
            return finding.cause, finding.cure
    table = library.table()
    return table.explain(error, year=year, rows=(*_OTHERS, *table.ROWS))


def add(parser):
    parser.add_argument(
        "error",
        nargs="+",
        metavar="ERROR",
        help="as the console shows it: \"OSError(-30592, 'MBEDTLS_ERR_...')\", or a number",
    )
    parser.add_argument("--year", type=int, help="the year that the board's clock says")


def run(arguments, report):
    """Return 0 when the table knows the error, else 1."""
    error = " ".join(arguments.error)[:_MOST]
    cause, cure = look_up(error, arguments.year)
    report.data.update(error=error, cause=cause, cure=cure)
    if cause:
        report.explain(cause, cure)
        return 0
    report.problem(
        "",
        f"the table does not know {error!r}",
        cure="mqttls doctor HOST:PORT looks at the broker itself; or give the whole last line of "
        "the traceback",
    )
    return 1
