"""`mqttls explain ERROR`: what an error means, from the table that boards have."""

from .. import device

NAME = "explain"
SUMMARY = "what an error of a board means, and what to do"

_MOST = 2000


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
    cause, cure = device.explain(error, year=arguments.year)
    report.data.update(error=error, cause=cause, cure=cure)
    if cause:
        report.say(cause)
        report.say(f"  cure: {cure}")
        return 0
    report.problem(
        "",
        f"the table does not know {error!r}",
        cure="mqttls doctor HOST:PORT looks at the broker itself; or give the whole last line of "
        "the traceback",
    )
    return 1
