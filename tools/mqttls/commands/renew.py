"""`mqttls renew`: what ends soon, or what is named; the authority's roll-over."""

from .. import certificates
from ..arguments import days
from ..authority import DAYS, DUE_DAYS, Authority, ends_in, is_due
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
        "--force",
        action="store_true",
        help="with --ca --finish: also when some boards are not known to have the new one",
    )


def run(arguments, report):
    if arguments.finish and not arguments.ca or arguments.force and not arguments.finish:
        raise Usage("--finish belongs to --ca, --force to --ca --finish")
    if arguments.ca and (arguments.names or arguments.broker or arguments.all):
        raise Usage("--ca renews everything: give no names with it")
    with Directory.opened(arguments.dir) as directory:
        authority = Authority(directory)
        if not arguments.ca:
            return _renew(authority, arguments, report)
        if not authority.older:
            if arguments.finish:
                begin = command("renew", "--ca")
                raise Failure("no roll-over is under way", f"begin one with: {begin}")
            return _begin(authority, arguments, report)
        waiting = _waiting(authority)
        if arguments.finish and (arguments.force or not waiting):
            return _finish(authority, report)
        return _tell_state(waiting, arguments, report)


def _renew(authority, arguments, report):
    for name in arguments.names:
        authority.directory.existing_device(name)
    named = arguments.names or arguments.broker
    names = list(dict.fromkeys(arguments.names))
    if not named and not authority.settings["server_only"]:
        names = [
            each
            for each in authority.directory.devices()
            if arguments.all
            or authority.device_problem(each)
            or is_due(authority.device_certificate(each), arguments.within)
        ]
    elif authority.settings["server_only"] and names:
        raise Failure(
            "devices have passwords here, which do not end",
            f"to change one: {command('revoke', 'NAME')}, then {command('device', 'add', 'NAME')}",
        )
    why = authority.broker_problem()
    broker = arguments.broker or arguments.all
    if not named and not broker:
        path = authority.path / "broker" / "broker.crt"
        broker = why or is_due(certificates.load(path), arguments.within)
    crl = authority.crl_problem()
    if broker:
        with authority.directory.change() as change:
            found = authority.put_broker(change, arguments.days)
            authority.put_broker_files(change)
        end = found.certificate.not_valid_after_utc
        report.made(authority.path / "broker/broker.crt", f"until {end:%Y-%m-%d}")
        report.data["broker"] = {"serial": found.serial, "until": end.isoformat()}
    elif crl:
        with authority.directory.change() as change:
            authority.put_crl(change)
        report.made(authority.path / "crl.pem", f"because {crl}")
    _renew_devices(authority, names, arguments, report)
    report.data["devices"] = names
    if not broker and not names and not crl:
        report.say(f"nothing ends within {arguments.within} days")
    if is_due(authority.certificate, arguments.within):
        end = authority.certificate.not_valid_after_utc
        report.problem(
            "dates",
            f"the authority itself ends on {end:%Y-%m-%d}, and with it what it issued",
            cure=command("renew", "--ca"),
        )
    if crl:
        report.next(install_command(authority.path), "on the broker")
    elif broker:
        report.next(install_command(authority.path, "reload"), "on the broker; cuts nobody off")
    for name in names[:3]:
        report.next(command("provision", name), "until then the old one works")
    return report.status


def _renew_devices(authority, names, arguments, report):
    done = 0
    for some in batches(names):
        with authority.directory.change() as change:
            for name in some:
                report.progress(done, len(names), name)
                authority.put_device(change, name, days=arguments.days)
                done += 1
    report.progress(len(names), len(names))
    for name in names:
        end = authority.device_certificate(name).not_valid_after_utc
        report.made(authority.path / "devices" / name, f"until {end:%Y-%m-%d}")


# The roll-over


def _begin(authority, arguments, report):
    """
    A new authority beside the old one; devices get certificates from the new one, and both.

    An authority that has ended is of no use to anybody: then the new one replaces it at once.
    """
    dead, until = authority.has_ended, ends_in(arguments.days or DAYS["ca"])
    with authority.directory.change() as change:
        new = authority.put_next_authority(change, until)
        _put_everything(authority, change, broker=dead, report=report)
    report.made(authority.path / "ca.crt", f"new authority, until {until:%Y-%m-%d}")
    if dead:
        report.note("the old authority had ended: the new one takes its place at once")
    else:
        report.say("the old authority stays in ca/: the broker trusts both")
    _tell_admins(authority, report)
    report.next(install_command(authority.path), "on the broker, first")
    for name in authority.boards()[:3]:
        report.next(command("provision", name), "and every other device")
    if not dead:
        report.next(command("renew", "--ca", "--finish"), "when all boards are done")
    report.data["authority"] = new.serial
    return report.status


def _tell_admins(authority, report):
    for name in authority.settings["admins"]:
        report.note(f"{name} is a program on a PC: give it the files in devices/{name}/, too")


def _put_everything(authority, change, *, broker, report):
    if broker:
        authority.put_broker(change)
    names = authority.directory.devices()
    for at, name in enumerate(names):
        report.progress(at, len(names), name)
        authority.put_device(change, name)
    report.progress(len(names), len(names))
    authority.put_crl(change)
    authority.put_broker_files(change)


def _waiting(authority):
    """
    Return the devices whose boards are not known to have the new authority, with the reason.

    Not those that may use every topic: they are programs on PCs, which nobody provisions.
    """
    found = {}
    for name in authority.boards():
        why = authority.board_lacks(name)
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


def _finish(authority, report):
    """The broker's certificate comes from the new authority; nobody trusts the old one."""
    with authority.directory.change() as change:
        old = authority.drop_older(change)
        authority.put_broker(change)
        for name in authority.directory.devices():
            authority.put_device_settings(change, name)
        authority.put_crl(change)
        authority.put_broker_files(change)
    report.made(authority.path / "broker/broker.crt", "from the new authority")
    report.say(f"the old authority is trusted no more; it is in archive/{old}/")
    report.next(install_command(authority.path), "on the broker")
    report.next(command("provision", "NAME"), "some day: takes the old one off the board")
    return report.status
