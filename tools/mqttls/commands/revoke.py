"""`mqttls revoke`: shut devices out."""

from .. import x509
from ..authority import REVOKED, Authority
from ..files import Directory
from ..report import command
from .init import install_command

NAME = "revoke"
SUMMARY = "shut a device out: lost, stolen, sold"


def add(parser):
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a device")


def run(arguments, report):
    names = list(dict.fromkeys(arguments.names))
    with Directory.opened(arguments.dir) as directory:
        for name in names:
            directory.existing_device(name)
        authority = Authority(directory)
        revoked = authority.revoked()
        known = {each["serial"] for each in revoked}
        when, count = x509.now().isoformat(), 0
        with directory.change() as change:
            for name in names:
                found = authority.serials_of(name)
                for serial, certificate in found.items():
                    issuer = x509.issuer_among(certificate, authority.trusted)
                    if issuer is None or serial in known:
                        continue  # of an authority that nobody trusts any more; revoked before
                    revoked.append(
                        {
                            "serial": serial,
                            "name": name,
                            "revoked": when,
                            "authority": x509.serial_of(issuer),
                        }
                    )
                    count += 1
                kept = next(iter(found), f"password-{name}-{x509.now():%Y%m%dT%H%M%S}")
                change.keep(kept, f"devices/{name}")
                change.remove(f"devices/{name}")
            authority.settings["admins"] = [
                each for each in authority.settings["admins"] if each not in names
            ]
            topics = authority.topics
            authority.give({each: topics[each] for each in topics if each not in names})
            change.put_json(REVOKED, revoked)
            authority.put_settings(change)
            authority.put_crl(change, revoked)
            authority.put_broker_files(change, gone=names)
        for name in names:
            report.say(f"revoked  {name}")
        report.say(f"certificates put onto the list: {count}; their files are in the archive")
        report.data["revoked"] = names
        report.made(directory.path / "crl.pem", "and broker/crl.pem")
        report.next(
            install_command(directory),
            "on the broker: until then they get in as before",
        )
        report.next(command("status"))
    return report.status
