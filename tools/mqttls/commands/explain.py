"""`mqttls explain ERROR`: what an error means, from the table that boards have."""

from ..doctor import error_text

NAME = "explain"
SUMMARY = "what an error of a board, or a line of the broker's log, means, and what to do"

_MOST = 2000


def add(parser):
    parser.add_argument(
        "error",
        nargs="+",
        metavar="ERROR",
        help="as the console or the broker's log shows it: "
        "\"OSError(-30592, 'MBEDTLS_ERR_...')\", a name of mbedTLS, or a number, hexadecimal too",
    )
    parser.add_argument("--year", type=int, help="the year that the board's clock says")


def run(arguments, report):
    """Return 0 when the table knows the error, else 1."""
    error = " ".join(arguments.error).strip()[:_MOST]
    cause, cure = error_text.look_up(error, arguments.year)
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
