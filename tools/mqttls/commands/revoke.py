"""`mqttls revoke`: shut devices out."""

from .. import certificates
from ..authority import REVOKED, Authority
from ..broker import install_command
from ..files import Directory
from ..messages import command

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
        when, count = certificates.now().isoformat(), 0
        with directory.change() as change:
            for name in names:
                found = authority.serials_of(name)
                for serial, certificate in found.items():
                    issuer = certificates.issuer_among(certificate, authority.trusted)
                    if issuer is None or serial in known:
                        continue  # of an authority that nobody trusts any more; revoked before
                    revoked.append(
                        {
                            "serial": serial,
                            "name": name,
                            "revoked": when,
                            "authority": certificates.serial_of(issuer),
                        }
                    )
                    count += 1
                kept = next(iter(found), f"password-{name}-{certificates.now():%Y%m%dT%H%M%S}")
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
            install_command(directory.path),
            "on the broker: until then they get in as before",
        )
        report.next(command("status"))
    return report.status
