"""`mqttls status`: what there is, for which names, until when, and what is wrong with it."""

from .. import acl, board_status, certificates, foreign, roster, system
from ..arguments import add_serial_port
from ..authority import DUE_DAYS, is_due
from ..broker import install_command
from ..files import Directory
from ..messages import command

NAME = "status"
SUMMARY = "what exists, for which names, until when"


def add(parser):
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these devices")
    parser.add_argument("--board", action="store_true", help="what the board on USB holds, too")
    add_serial_port(parser)


def run(arguments, report):
    """Say what the folder holds; a problem found makes the status 1."""
    with Directory.opened(arguments.dir, write=False) as directory:
        for name in arguments.names:
            directory.existing_device(name)
        deployment = foreign.opened(directory)
        if not arguments.names and foreign.is_foreign(directory):
            foreign.tell(deployment, report)
            _rights(directory, report)
        elif not arguments.names:
            _authority(deployment, report)
            _broker(deployment, report)
            _revocation(deployment, report)
            _own_acl(deployment, report)
            _rights(directory, report)
        _devices(deployment, arguments, report)
        if arguments.board:
            board_status.tell(deployment, arguments.port, report)
    return report.status


def _until(certificate):
    return f"until {certificate.not_valid_after_utc:%Y-%m-%d}"


def _authority(deployment, report):
    authority = deployment.authority
    secret = "encrypted" if authority.is_encrypted else "not encrypted"
    found = []
    for which, certificate in zip(("", " (older)"), authority.trusted, strict=False):
        name = certificates.common_name(certificate)
        kind = certificates.key_kind(certificate.public_key())
        report.say(f"authority{which}  {name}, {kind}, {_until(certificate)}, key {secret}")
        found.append(certificates.facts(certificate))
        if is_due(certificate):
            report.problem(
                "dates", f"the authority {name!r} ends soon", cure=command("renew", "--ca")
            )
    report.data["authorities"] = found
    if authority.is_weak:
        names = [each for name in deployment.settings["names"] for each in ("--broker", name)]
        report.problem(
            "files",
            "the authority's key has its passphrase in a form in which it is guessed fast",
            cure=command("init", *names, "--encrypt-ca"),
        )
    if authority.older:
        report.note(f"a roll-over is under way; {command('renew', '--ca')} says what comes next")


def _broker(deployment, report):
    names = ", ".join(deployment.settings["names"])
    kind = "passwords" if deployment.settings["server_only"] else "client certificates"
    report.say(f"broker     {names}, port {deployment.settings['port']}, {kind}")
    why = deployment.broker_problem()
    if why:
        report.problem(
            "files", f"the broker's certificate: {why}", cure=command("renew", "--broker")
        )
        return
    certificate = certificates.load(deployment.path / "broker" / "broker.crt")
    report.say(f"           certificate {_until(certificate)}")
    report.data["broker"] = {
        **certificates.facts(certificate),
        "names": deployment.settings["names"],
        "port": deployment.settings["port"],
        "server_only": deployment.settings["server_only"],
    }
    if is_due(certificate):
        reload = install_command(deployment.path, "reload")
        report.problem(
            "dates",
            f"the broker's certificate is valid {_until(certificate)}",
            cure=f"{command('renew', '--broker')}, then {reload}",
        )


def _revocation(deployment, report):
    why = deployment.authority.crl_problem()
    if why:
        cure = f"{command('renew')}, then {install_command(deployment.path)}"
        report.problem("files", f"crl.pem: {why}", cure=cure)
        return
    newest = max(
        each.last_update_utc for each in certificates.load_crls(deployment.path / "crl.pem")
    )
    age, end = (certificates.now() - newest).days, deployment.authority.crl_end(DUE_DAYS)
    if end:
        fact = f"the list of revoked certificates ends on {end:%Y-%m-%d}"
        cure = f"{command('renew')}, then {install_command(deployment.path)}"
        why = "the broker refuses everybody when it has ended"
        report.problem("dates", fact, why, cure)
    count = len(deployment.authority.revoked())
    report.say(f"revoked    {count}; the list is {age} days old")
    report.data["crl"] = {"updated": newest.isoformat(), "age_days": age, "revoked": count}


def _own_acl(deployment, report):
    lines = [each for each in deployment.own_acl.splitlines() if each and each[0] != "#"]
    if lines:
        count = "1 line" if len(lines) == 1 else f"{len(lines)} lines"
        report.say(f"ACL        {count} of your own, in {acl.OWN}")
    report.data["own_acl"] = lines


def _rights(directory, report):
    """Keys that others can read."""
    keys = [*directory.path.rglob("*.key"), *directory.path.rglob("key.*")]
    for path in [directory.path, *keys]:
        if system.is_open_to_others(path):
            cure = system.private_command(path)
            report.problem("files", f"others can read {path}", cure=cure)


def _devices(deployment, arguments, report):
    names = arguments.names or deployment.directory.devices()
    report.say(f"devices    {len(names)}")
    width = max(map(len, names), default=0)
    report.data["devices"] = found = []
    for name in names:
        one = roster.facts(deployment, name)
        why, cure = one["problem"], command("device", "add", name)
        said = []
        if "until" in one:
            said.append(f"until {one['until'][:10]}")
            if not why and one["due"]:
                why = f"its certificate ends {one['until'][:10]}"
                cure = deployment.cure_of_end(name)
        else:
            said.append(one["kind"])
        said += roster.rights(one)
        if one["board"] and "until" in one:
            said.append(one["lacks"] or "on its board")
        report.say(f"  {name:{width}}  {', '.join(said)}".rstrip())
        found.append(one)
        if why:
            report.problem("client certificate", f"{name}: {why}", cure=cure)
    if any(each.get("due") for each in found):
        report.next(command("renew"), "new certificates; then provision, for each of these boards")
