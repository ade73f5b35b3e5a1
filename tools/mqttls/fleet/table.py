"""The boards for people: a table in a terminal, or CSV."""

import csv
import io
import time

from .boards import COLUMNS

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would run
_HEADS = (
    *("NAME", "STATE", "SINCE", "VERSION", "dBm", "FREE KB", "BLOCK KB", "WAITS", "CONNECTS"),
    *("CERT DAYS", "LOOK AT"),
)
_RIGHT = range(4, 10)


def since(seconds, now):
    """Return how long ago something was, in words: "3 min", "5 h", "12 d"; "?" for None."""
    if seconds is None:
        return "?"
    ago = max(int(now - seconds), 0)
    for unit, most, size in (("s", 120, 1), ("min", 7200, 60), ("h", 172_800, 3600)):
        if ago < most:
            return f"{ago // size} {unit}"
    return f"{ago // 86400} d"


def _whole(value, size=1):
    return "" if value is None else f"{value / size:.0f}"


def _cells(row, now):
    state = {True: "online", False: "offline", None: "?"}[row["online"]]
    look = "; ".join(row["needs"])
    if row["error"] and (row["needs"] or row["online"] is False):
        look += f" (last error: {row['error']})"
    return (
        *(row["name"], state, since(row["since"], now), row["package"] or ""),
        *(_whole(row["rssi"]), _whole(row["mem_free"], 1024), _whole(row["mem_block"], 1024)),
        *(_whole(row["queue"]), _whole(row["connects"]), _whole(row["days"]), look),
    )


def lines(rows, now, most=None):
    """
    Return the table (list of str), its heads first.

    rows  as Boards.rows() returns them
    now   the time (s since 1970)
    most  rows that are shown; None: all
    """
    shown = [_cells(each, now) for each in (rows if most is None else rows[:most])]
    widths = [max(map(len, column)) for column in zip(_HEADS, *shown, strict=True)]
    out = []
    for cells in (_HEADS, *shown):
        padded = [
            each.rjust(width) if at in _RIGHT else each.ljust(width)
            for at, (each, width) in enumerate(zip(cells, widths, strict=True))
        ]
        out.append("  ".join(padded).rstrip())
    if len(rows) > len(shown):
        out.append(f"… and {len(rows) - len(shown):,} more")
    return out


def summary(rows):
    """Return one line (str) about all."""
    online = sum(1 for each in rows if each["online"])
    gone = sum(1 for each in rows if each["online"] is False)
    look = sum(1 for each in rows if each["needs"])
    boards = "board" if len(rows) == 1 else "boards"
    return f"{len(rows):,} {boards}, {online:,} online, {gone:,} offline, {look:,} to look at"


def as_csv(rows):
    """Return the rows as CSV (str), times as ISO 8601 in UTC."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_csv_cell(name, row[name]) for name in COLUMNS])
    return out.getvalue()


def _csv_cell(name, value):
    if value is None:
        return ""
    if name in ("since", "heard"):
        try:
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
        except (OverflowError, ValueError, OSError):
            return ""
    if isinstance(value, list):
        value = "; ".join(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
