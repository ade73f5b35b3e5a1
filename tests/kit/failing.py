"""What a failed test reads: what was waited for, and what the app said last."""

import time

from ..support import patience

_POLL_S = 0.01
LAST = 30  # lines of the app


def told(what, *more):
    """Return the text of a failure: `what`, then `more` (texts), what is empty left out."""
    return "\n".join([what, *filter(None, more)])


def indented(title, lines):
    """Return a title with lines (list of str) below it, or "" where there are none."""
    return "\n".join([title, *(f"    {line}" for line in lines)]) if lines else ""


def wait(found, within_s, what, *more, ended=lambda: ""):
    """
    Return what `found()` returns, as soon as that is true.

    found     function, called again and again
    within_s  seconds, stretched on a slow computer
    what      str, what is waited for, for the message
    more      functions that return what else belongs into it (str)
    ended     function that returns why it cannot come any more (str), or ""

    Raises AssertionError when it is not so in time.
    """
    __tracebackhide__ = True  # pytest shows the line of the user's test
    limit_s = patience.stretched(within_s)
    deadline = time.monotonic() + limit_s
    while True:
        over = ended()
        result = found()
        if result:
            return result
        if over or time.monotonic() > deadline:
            why = f": {over}" if over else f" within {limit_s:g} s"
            raise AssertionError(told(what + why, *(each() for each in more)))
        time.sleep(_POLL_S)
