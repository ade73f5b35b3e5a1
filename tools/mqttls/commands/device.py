"""`mqttls device add`: a key and a certificate for each board; `device list`: who there is."""

from pathlib import Path

from .. import acl, device_csv, foreign, roster
from ..arguments import LOGIN, add_login, days
from ..broker import install_command
from ..files import Directory, batches
from ..messages import Failure, Usage, command, shell
from ..names import DEVICE_NAME_RULE, is_device_name

NAME = "device"
SUMMARY = "make keys and certificates for boards; list them"


def add(parser):
    below = parser.add_subparsers(dest="action", metavar="add | list", required=True)
    one = below.add_parser(
        "add",
        help="make a key and a certificate for each name; skips what is there and valid",
        description="Make a key and a certificate for each name. Those that are there and valid "
        "stay as they are.",
    )
    one.add_argument("names", nargs="*", metavar="NAME", help=f"of a board: {DEVICE_NAME_RULE}")
    one.add_argument(
        "--csv",
        metavar="FILE",
        help="a file with a name a line, or with the columns name, host, port, topics",
    )
    one.add_argument(
        "--topics",
        action="append",
        metavar="[read:|write:]TOPIC",
        help="besides devices/NAME/… it may use these topics: give it for each one; they take the "
        f"place of those it had ({acl.NONE}: just that)",
    )
    one.add_argument(
        "--admin", action="store_true", help="it may use every topic: for a PC, Home Assistant, …"
    )
    one.add_argument(
        "--monitor",
        action="store_true",
        help="it sees how all boards are, and may publish nothing: for a PC with mqttls fleet",
    )
    one.add_argument("--days", type=days, help="how long the certificate is valid (365)")
    add_login(one)
    one = below.add_parser(
        "list",
        help="who there is, until when, on which board; who was revoked",
        description="Who there is, until when, with which rights, on which board since when; who "
        "was revoked.",
    )
    one.add_argument("names", nargs="*", metavar="NAME", help="only these devices")


def run(arguments, report):
    if arguments.action == "list":
        with Directory.opened(arguments.dir, write=False) as directory:
            roster.tell(foreign.opened(directory), arguments.names, report)
        return report.status
    return _run_add(arguments, report)


def _run_add(arguments, report):
    if bool(arguments.names) == bool(arguments.csv):
        example = command("device", "add", "kitchen", "cellar")
        raise Usage(f"give names, or --csv FILE: {example}")
    bad = [each for each in arguments.names if not is_device_name(each)]
    if bad:
        raise Usage(
            f"{', '.join(map(repr, bad))} cannot be a device's name: use {DEVICE_NAME_RULE}"
        )
    try:
        topics = acl.rules(arguments.topics) if arguments.topics else None
    except ValueError as error:
        raise Usage(f"--topics: {error}") from None
    if arguments.monitor and (arguments.admin or arguments.topics or arguments.csv):
        raise Usage("--monitor says all that it may do: without --admin, --topics and --csv")
    with Directory.opened(arguments.dir) as directory:
        deployment = foreign.opened(directory)
        if foreign.is_foreign(directory):
            _refuse_twins(directory, [{"name": each} for each in arguments.names])
            return foreign.add_devices(deployment, arguments, report)
        _refuse_login(arguments)
        if arguments.csv:
            wanted = device_csv.read(arguments.csv, deployment.settings["names"])
        else:
            wanted = [{"name": each} for each in dict.fromkeys(arguments.names)]
        if topics is not None:
            wanted = [{"topics": topics, **each} for each in wanted]
        _refuse_names_of_the_broker(deployment.settings["names"], wanted)
        _refuse_twins(directory, wanted)
        return _add(deployment, wanted, arguments, report)


def _refuse_login(arguments):
    given = [name for name in LOGIN if getattr(arguments, name)]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        use = command("use", "HOST", "--dir", "OTHER")
        raise Usage(
            f"{option}: here mqttls makes what devices show, as the broker is yours; for somebody "
            f"else's: {use}"
        )


def _refuse_names_of_the_broker(names, wanted):
    """A certificate with the broker's name, in a device's hands, is half of a false broker."""
    for one in wanted:
        if one["name"].lower() in names:
            raise Failure(
                f"{one['name']!r} is a name of the broker",
                "choose another name: nothing was made",
                stage="files",
            )


def _refuse_twins(directory, wanted):
    """Names that differ in case only are one folder on a Mac, and two users for the broker."""
    names = {each.lower(): each for each in directory.devices()}
    for one in wanted:
        name = one["name"]
        other = names.setdefault(name.lower(), name)
        if other != name:
            raise Failure(
                f"{name!r} and {other!r} differ in upper and lower case only",
                "choose another name: nothing was made",
                stage="files",
            )


def _add(deployment, wanted, arguments, report):
    admins = set(deployment.settings["admins"])
    monitors, names = set(deployment.monitors), {each["name"] for each in wanted}
    topics = dict(deployment.topics)
    if arguments.admin:
        admins |= names
        monitors -= names
    elif arguments.monitor:
        monitors |= names
        admins -= names
        topics = {name: rules for name, rules in topics.items() if name not in names}
    topics.update({each["name"]: each["topics"] for each in wanted if "topics" in each})
    monitors -= {each["name"] for each in wanted if each.get("topics")}
    topics = {name: rules for name, rules in topics.items() if rules}
    todo, kept = [], []
    for done, one in enumerate(wanted):
        report.progress(done, len(wanted), "looked at")
        there = deployment.directory.device(one["name"]).is_dir()
        why = deployment.device_problem(one["name"]) if there else "new"
        (todo if why else kept).append({**one, "why": why})
    report.progress(len(wanted), len(wanted))
    rights = {"admins": sorted(admins), "monitors": sorted(monitors), "topics": topics}
    before = deployment.settings["admins"], deployment.monitors, deployment.topics
    if tuple(rights.values()) != before:
        deployment.set(**rights)
        with deployment.directory.change() as change:
            deployment.put_settings(change)
            deployment.put_broker_files(change)
        reload = install_command(deployment.path, "reload")
        report.note(f"the broker must read its ACL anew: {reload}")
    made = []
    for some in batches(todo):
        passwords = {}
        with deployment.directory.change() as change:
            for one in some:
                report.progress(len(made), len(todo), one["name"])
                made.append(one["name"])
                host, port = one.get("host"), one.get("port")
                secret = deployment.put_device(
                    change, one["name"], host=host, port=port, days=arguments.days
                )
                if secret:
                    passwords[one["name"]] = secret
            if passwords:
                deployment.put_broker_files(change, passwords)
    report.progress(len(todo), len(todo))
    moved = _settings_anew(deployment, kept)
    _tell(deployment, todo, kept, moved, report)
    return report.status


def _settings_anew(deployment, kept):
    """Write host and port of a CSV into devices whose certificates stay; return their names."""
    moved = []
    for one in kept:
        before = deployment.device_settings(one["name"])
        if all(one.get(key) in (None, before.get(key)) for key in ("host", "port")):
            continue
        with deployment.directory.change() as change:
            deployment.put_device_settings(
                change, one["name"], host=one.get("host"), port=one.get("port")
            )
        moved.append(one["name"])
    return moved


def _tell_topics(deployment, names, report):
    """Say what the devices `names` may use besides their own topics."""
    topics = deployment.topics
    report.data["topics"] = found = {each: topics[each] for each in names if each in topics}
    for name, rules in list(found.items())[:10]:
        report.say(f"{name} may use, too: {', '.join(rules)}")


def _tell(deployment, todo, kept, moved, report):
    folder = Path(deployment.path, "devices")
    names = [each["name"] for each in todo]
    for one in todo[:10]:
        what = "password in tls.json"
        if not deployment.settings["server_only"]:
            end = deployment.device_certificate(one["name"]).not_valid_after_utc
            what = f"key and certificate, until {end:%Y-%m-%d}"
        again = "" if one["why"] == "new" else f"; made anew, because {one['why']}"
        report.made(folder / one["name"], what + again)
    if len(todo) > 10:
        report.say(f"… and {len(todo) - 10} more: {len(todo)} devices in all")
        report.made_too(folder / each for each in names[10:])
    if kept:
        shown = ", ".join(each["name"] for each in kept[:5]) + (", …" if len(kept) > 5 else "")
        report.say(f"{len(kept)} valid already, left as they are: {shown}")
    if moved:
        report.say(f"new host or port: {', '.join(moved)}")
    _tell_topics(deployment, [each["name"] for each in [*todo, *kept]], report)
    report.data["added"] = names
    report.data["kept"] = [each["name"] for each in kept]
    report.data["moved"] = moved
    if deployment.settings["server_only"] and todo:
        reload = install_command(deployment.path, "reload")
        report.note(f"the broker must read its passwords anew: {reload}")
    first = (names + moved + [each["name"] for each in kept])[0]
    if first in deployment.settings["admins"]:
        _tell_admin(folder / first, deployment, report)
    elif first in deployment.monitors:
        report.next(command("fleet", "--as", first), "how all boards are")
    else:
        report.next(command("provision", first), "puts it on the board")


def _tell_admin(at, deployment, report):
    """Say how a PC sees everything with the files in `at` (Path)."""
    proof, why = ("--cert", at / "cert.crt", "--key", at / "key.pem"), ""
    if deployment.settings["server_only"]:
        proof, why = ("-u", at.name, "-P", "PASSWORD"), f"; PASSWORD: see {at / 'tls.json'}"
    report.next(
        shell(
            *("mosquitto_sub", "--cafile", at / "ca.crt", *proof),
            *("-h", deployment.settings["names"][0], "-p", deployment.settings["port"]),
            *("-v", "-t", "#"),
        ),
        f"everything that passes{why}",
    )
