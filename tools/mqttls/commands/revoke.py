"""`mqttls revoke`: shut devices out."""

from .. import foreign
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
        deployment = foreign.own(directory, NAME)
        with directory.change() as change:
            count = deployment.put_revocation(change, names)
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
