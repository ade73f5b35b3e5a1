"""The list of devices in a CSV file."""

import csv
import io

from . import acl, given
from .messages import Failure
from .names import DEVICE_NAME_RULE, is_device_name, is_port, parse_host

COLUMNS = ("name", "host", "port", "topics")
LARGEST = 100_000  # rows


def read(path, known=()):
    """
    Return the devices in the CSV file `path`: list of dicts with "name" and, where the file has
    them, "host" and "port" of the broker as that device reaches it, and "topics" as acl.rules
    returns them (in the file with spaces between them).

    known  host names and addresses that the broker's certificate has

    The first line may name the columns; without one, the first column is the name. Empty lines
    and lines that begin with # are skipped.

    Raises Failure that lists every bad row with its line number; OSError.
    """
    try:
        text = given.read(path).decode("utf-8-sig")  # as Excel writes it, too
    except UnicodeDecodeError as error:
        raise Failure(
            f"{path} is not UTF-8 (byte {error.start})", "save it as CSV UTF-8", stage="files"
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    first = text.partition("\n")[0]
    separator = ";" if first.count(";") > first.count(",") else ","
    rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    columns, found, bad, lines = None, [], [], {}
    while True:
        try:
            row = [each.strip() for each in next(rows)]
        except StopIteration:
            break
        except csv.Error as error:
            bad.append(f"line {rows.line_num}: {error}")
            continue
        line = rows.line_num
        if not any(row) or row[0].startswith("#"):
            continue
        if columns is None:
            columns, is_header = _columns(row)
            unknown = [each for each in columns if each not in COLUMNS]
            if unknown:
                bad.append(f"line {line}: unknown column {unknown[0]!r}: {', '.join(COLUMNS)}")
                break
            if is_header:
                continue
        problems = _check_row(row, columns, known, lines)
        bad += [f"line {line}: {each}" for each in problems]
        if not problems:
            one = {key: value for key, value in zip(columns, row, strict=False) if value}
            lines[one["name"].lower()] = line
            if "port" in one:
                one["port"] = int(one["port"])
            if "topics" in one:
                one["topics"] = acl.rules(one["topics"].split())
            found.append(one)
        if len(found) > LARGEST:
            bad.append(f"line {line}: more than {LARGEST} devices: split the file")
            break
    if bad:
        mistakes = "1 mistake" if len(bad) == 1 else f"{len(bad)} mistakes"
        raise Failure(
            f"{path} has {mistakes}, nothing was made:",
            "correct them, then run the same command again",
            stage="files",
            lines=bad,
        )
    if not found:
        raise Failure(f"{path} names no device", "write one name a line", stage="files")
    return found


def _columns(row):
    """Return the columns' names by the first row, and whether it was a header."""
    lower = [each.lower() for each in row]
    if "name" in lower:
        return lower, True
    return ["name"], False


def _check_row(row, columns, known, lines):
    """Return what is wrong with a row (list of str); `lines` are those of names so far."""
    if len(row) > len(columns) and any(row[len(columns) :]):
        return [f"{len(row)} fields, but {len(columns)} columns"]
    one = dict(zip(columns, row, strict=False))
    problems = []
    name = one.get("name", "")
    if not name:
        problems.append("no name")
    elif not is_device_name(name):
        problems.append(f"{name!r} cannot be a device's name: use {DEVICE_NAME_RULE}")
    elif name.lower() in lines:
        problems.append(f"{name!r} is there already, in line {lines[name.lower()]}")
    elif name.lower() in known:
        problems.append(f"{name!r} is a name of the broker")
    host = one.get("host")
    if host:
        try:
            if known and parse_host(host) not in known:
                problems.append(
                    f"the broker's certificate is not for {host!r}: {', '.join(known)}"
                )
        except Failure as failure:
            problems.append(failure.fact)
    port = one.get("port")
    if port and not is_port(port):
        problems.append(f"{port[:40]!r} is not a port: 1 to 65535")
    try:
        acl.rules((one.get("topics") or acl.NONE).split())
    except ValueError as error:
        problems.append(str(error))
    return problems
