"""`mqttls renew`: what ends soon, or what is named; the authority's roll-over."""

from .. import certificates, foreign
from ..arguments import days
from ..authority import DAYS, DUE_DAYS, ends_in, is_due
from ..broker import install_command
from ..files import Directory, batches
from ..messages import Failure, Usage, command

NAME = "renew"
SUMMARY = "new certificates for what ends soon; a new authority"


def add(parser):
    parser.add_argument("names", nargs="*", metavar="NAME", help="these devices, due or not")
    parser.add_argument("--broker", action="store_true", help="the broker's, due or not")
    parser.add_argument("--all", action="store_true", help="the broker's and every device's")
    parser.add_argument(
        "--within",
        type=days,
        default=DUE_DAYS,
        metavar="DAYS",
        help=f"due is what ends within so many days ({DUE_DAYS})",
    )
    parser.add_argument("--days", type=days, help="how long the new ones are valid")
    parser.add_argument(
        "--ca",
        action="store_true",
        help="begin the roll-over to a new authority, or say its state",
    )
    parser.add_argument(
        "--finish", action="store_true", help="with --ca: boards have both, drop the old one"
    )
    parser.add_argument(
        "--now",
        action="store_true",
        help="with --ca: the old authority ends at once, as its key or the broker's was stolen; "
        "boards lose contact until they are provisioned",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --ca --finish: also when some boards are not known to have the new one",
    )


def run(arguments, report):
    if arguments.finish and not arguments.ca or arguments.force and not arguments.finish:
        raise Usage("--finish belongs to --ca, --force to --ca --finish")
    if arguments.now and (not arguments.ca or arguments.finish):
        raise Usage("--now belongs to --ca, without --finish")
    if arguments.ca and (arguments.names or arguments.broker or arguments.all):
        raise Usage("--ca renews everything: give no names with it")
    with Directory.opened(arguments.dir) as directory:
        deployment = foreign.own(directory, NAME)
        if not arguments.ca:
            return _renew(deployment, arguments, report)
        if arguments.now or not deployment.authority.older:
            if arguments.finish:
                begin = command("renew", "--ca")
                raise Failure("no roll-over is under way", f"begin one with: {begin}")
            return _begin(deployment, arguments, report)
        waiting = _waiting(deployment)
        if arguments.finish and (arguments.force or not waiting):
            return _finish(deployment, report)
        return _tell_state(waiting, arguments, report)


def _renew(deployment, arguments, report):
    for name in arguments.names:
        deployment.directory.existing_device(name)
    named = arguments.names or arguments.broker
    names = list(dict.fromkeys(arguments.names))
    if not named and not deployment.settings["server_only"]:
        names = [
            each
            for each in deployment.directory.devices()
            if arguments.all
            or deployment.device_problem(each)
            or is_due(deployment.device_certificate(each), arguments.within)
        ]
    elif deployment.settings["server_only"] and names:
        raise Failure(
            "devices have passwords here, which do not end",
            f"to change one: {command('revoke', 'NAME')}, then {command('device', 'add', 'NAME')}",
        )
    why = deployment.broker_problem()
    broker = arguments.broker or arguments.all
    if not named and not broker:
        path = deployment.path / "broker" / "broker.crt"
        broker = why or is_due(certificates.load(path), arguments.within)
    crl = deployment.authority.crl_problem() or _ends_soon(deployment.authority, arguments.within)
    if broker:
        with deployment.directory.change() as change:
            found = deployment.put_broker(change, arguments.days)
            deployment.put_broker_files(change)
        end = found.certificate.not_valid_after_utc
        report.made(deployment.path / "broker/broker.crt", f"until {end:%Y-%m-%d}")
        report.data["broker"] = {"serial": found.serial, "until": end.isoformat()}
    elif crl:
        with deployment.directory.change() as change:
            deployment.authority.put_crl(change)
        report.made(deployment.path / "crl.pem", f"because {crl}")
    _renew_devices(deployment, names, arguments, report)
    report.data["devices"] = names
    if not broker and not names and not crl:
        report.say(f"nothing ends within {arguments.within} days")
    if is_due(deployment.authority.certificate, arguments.within):
        end = deployment.authority.certificate.not_valid_after_utc
        report.problem(
            "dates",
            f"the authority itself ends on {end:%Y-%m-%d}, and with it what it issued",
            cure=command("renew", "--ca"),
        )
    if crl:
        report.next(install_command(deployment.path), "on the broker")
    elif broker:
        report.next(install_command(deployment.path, "reload"), "on the broker; cuts nobody off")
    for name in names[:3]:
        report.next(command("provision", name), "until then the old one works")
    return report.status


def _ends_soon(authority, within):
    end = authority.crl_end(within)
    return f"it ends on {end:%Y-%m-%d}" if end else ""


def _renew_devices(deployment, names, arguments, report):
    done = 0
    for some in batches(names):
        with deployment.directory.change() as change:
            for name in some:
                report.progress(done, len(names), name)
                deployment.put_device(change, name, days=arguments.days)
                done += 1
    report.progress(len(names), len(names))
    for name in names:
        end = deployment.device_certificate(name).not_valid_after_utc
        report.made(deployment.path / "devices" / name, f"until {end:%Y-%m-%d}")


# The roll-over


def _begin(deployment, arguments, report):
    """
    A new authority beside the old one; devices get certificates from the new one, and both.

    An authority that has ended is of no use to anybody, one whose key was stolen (--now) of use to
    its thief: then the new one replaces it at once.
    """
    ended, until = deployment.authority.has_ended, ends_in(arguments.days or DAYS["ca"])
    dead = ended or arguments.now
    with deployment.directory.change() as change:
        new = deployment.authority.put_next(
            change, deployment.settings["key"], until, now=arguments.now
        )
        _put_everything(deployment, change, broker=dead, report=report)
    report.made(deployment.path / "ca.crt", f"new authority, until {until:%Y-%m-%d}")
    if ended:
        report.note("the old authority had ended: the new one takes its place at once")
    elif dead:
        report.note(
            "the old authority has ended: once this is installed the broker lets nobody in that "
            "has its certificates, and each board takes the broker for a stranger until it is "
            "provisioned; until then a board believes who holds the old key"
        )
    else:
        report.say("the old authority stays in ca/: the broker trusts both")
    _tell_admins(deployment, report)
    report.next(install_command(deployment.path), "on the broker, first")
    for name in deployment.boards()[:3]:
        report.next(command("provision", name), "and every other device")
    if not dead:
        report.next(command("renew", "--ca", "--finish"), "when all boards are done")
    report.data["authority"] = new.serial
    return report.status


def _tell_admins(deployment, report):
    for name in deployment.on_pcs:
        report.note(f"{name} is a program on a PC: give it the files in devices/{name}/, too")


def _put_everything(deployment, change, *, broker, report):
    if broker:
        deployment.put_broker(change)
    names = deployment.directory.devices()
    for at, name in enumerate(names):
        report.progress(at, len(names), name)
        deployment.put_device(change, name)
    report.progress(len(names), len(names))
    deployment.authority.put_crl(change)
    deployment.put_broker_files(change)


def _waiting(deployment):
    """
    Return the devices whose boards are not known to have the new authority, with the reason.

    Not those that may use every topic: they are programs on PCs, which nobody provisions.
    """
    found = {}
    for name in deployment.boards():
        why = deployment.board_lacks(name)
        if why:
            found[name] = why
    return found


def _tell_state(waiting, arguments, report):
    report.data["waiting"] = waiting
    if not waiting:
        report.say("a roll-over is under way, and every board has the new authority")
        report.next(command("renew", "--ca", "--finish"))
        return report.status
    text = "; ".join(f"{name}: {why}" for name, why in list(waiting.items())[:10])
    if arguments.finish:
        count = "1 device" if len(waiting) == 1 else f"{len(waiting)} devices"
        raise Failure(
            f"{count} would lose contact: {text}",
            f"{command('provision', 'NAME')} for each, or --force if you know better",
            stage="chain",
        )
    report.say(f"a roll-over is under way; not ready: {text}")
    for name in list(waiting)[:3]:
        report.next(command("provision", name))
    report.next(command("renew", "--ca", "--finish"), "when all boards are done")
    return report.status


def _finish(deployment, report):
    """The broker's certificate comes from the new authority; nobody trusts the old one."""
    with deployment.directory.change() as change:
        old = deployment.authority.drop_older(change)
        deployment.put_broker(change)
        for name in deployment.directory.devices():
            deployment.put_device_settings(change, name)
        deployment.authority.put_crl(change)
        deployment.put_broker_files(change)
    report.made(deployment.path / "broker/broker.crt", "from the new authority")
    report.say(f"the old authority is trusted no more; it is in archive/{old}/")
    report.next(install_command(deployment.path), "on the broker")
    report.next(command("provision", "NAME"), "some day: takes the old one off the board")
    return report.status
