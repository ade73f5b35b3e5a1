"""Who there is: what is known of each device, for `device list` and `status`."""

import re

from . import certificates
from .authority import is_due
from .messages import Failure, command

_PASSWORD = re.compile(r"password-(.+)-(\d{4})(\d\d)(\d\d)T\d{6}")  # of revoke, in the archive


def facts(deployment, name):
    """
    Return what is known of a device (dict):

    `name`; `problem` why it must be made anew, or ""; `kind` "certificate" or "password"; of its
    certificate, where that can be read, `serial`, `key`, `until` (ISO 8601) and `due`, whether it
    ends soon; `admin` whether it may use every topic; `monitor` whether it sees how boards are
    and publishes nothing; `topics` what else it may use (list of str);
    `board` what `provision` noted (dict, {} when it never ran); `lacks` what a board has not got
    yet, or ""
    """
    found = {
        "name": name,
        "problem": deployment.device_problem(name),
        "kind": deployment.proof(name),
        "admin": name in deployment.settings["admins"],
        "monitor": name in deployment.monitors,
        "topics": deployment.topics.get(name, []),
        "board": deployment.board(name),
        "lacks": "",
    }
    try:
        certificate = deployment.device_certificate(name)
        if found["board"] or name not in deployment.on_pcs:  # nobody provisions those
            found["lacks"] = deployment.board_lacks(name)
    except (Failure, FileNotFoundError):
        return found
    if certificate is not None:
        found.update(certificates.facts(certificate), name=name, due=is_due(certificate))
    return found


def revoked(deployment):
    """Return what was revoked, oldest first: list of dicts of `name` and `revoked` (ISO 8601)."""
    known = deployment.authority.revoked()
    found = [
        {"name": each["name"] or f"serial-{each['serial']}", "revoked": each["revoked"]}
        for each in known
    ]
    for each in (deployment.path / "archive").glob("password-*"):
        kept = _PASSWORD.fullmatch(each.name)
        if kept:
            found.append({"name": kept[1], "revoked": "-".join(kept.groups()[1:])})
    return sorted(found, key=lambda each: each["revoked"])


def tell(deployment, names, report):
    """
    Say who there is, and who was revoked.

    names  list of str, only these; [] for all

    Raises Failure when there is and was no device of such a name; OSError.
    """
    directory, gone = deployment.directory, revoked(deployment)
    there, ever = directory.devices(), {each["name"] for each in gone}
    for name in set(names) - ever:
        directory.existing_device(name)
    if names:
        there = [name for name in there if name in names]
        gone = [each for each in gone if each["name"] in names]
    found = [facts(deployment, name) for name in there]
    report.data.update(devices=found, revoked=gone)
    last = {each["name"]: each["revoked"][:10] for each in gone if each["name"] not in there}
    width = max(map(len, [*last, *(each["name"] for each in found)]), default=0)
    for each in found:
        until = f"until {each['until'][:10]}" if "until" in each else ""
        key = each.get("key", each["kind"])
        tone = "bad" if each["problem"] else "good"
        line = f"{each['name']:{width}}  {until:16}  {key:8}  {_rest(each)}"
        report.say(line, word=each["problem"] or until, word_tone=tone)
    for name, day in sorted(last.items()):
        report.say(f"{name:{width}}  revoked {day}", tone="dim")
    if not found and not last:
        report.say("there is no device yet")
        report.next(command("device", "add", "NAME"), "for each board")


def rights(one):
    """Return what a device of facts() may use besides its own topics, for people (list of str)."""
    if one["admin"]:
        return ["every topic"]
    if one["monitor"]:
        return ["sees all boards, publishes nothing"]
    topics = one["topics"]
    more = f", … ({len(topics)} in all)" if len(topics) > 3 else ""
    return [f"too: {', '.join(topics[:3])}{more}"] if topics else []


def _rest(one):
    """Return the last column (str)."""
    said = []
    if one["problem"]:
        said.append(one["problem"])
    said += rights(one)
    board = one["board"]
    if board:
        said.append(f"on {board.get('machine') or 'its board'} since {str(board.get('at'))[:10]}")
    if one["lacks"]:
        said.append(one["lacks"])
    return "; ".join(said)
