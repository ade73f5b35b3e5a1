"""`mqttls broker-conf`: what the broker needs besides its certificate."""

from .. import acl, broker, foreign, given
from ..arguments import address, port
from ..broker import install_command
from ..files import Directory
from ..messages import Failure, Usage, command, shell

NAME = "broker-conf"
SUMMARY = "write mosquitto's configuration, also for Docker or with passwords"


def add(parser):
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--mutual", action="store_true", help="devices show certificates (as init has it)"
    )
    kind.add_argument(
        "--server-only",
        action="store_true",
        help="devices show a user name and a password; makes those that are missing",
    )
    lines = parser.add_mutually_exclusive_group()
    lines.add_argument(
        "--acl-file",
        metavar="FILE",
        help="lines of your own for the broker's ACL (user, topic, pattern); kept in --dir",
    )
    lines.add_argument(
        "--no-acl-file", action="store_true", help="take the lines of your own out again"
    )
    parser.add_argument("--port", type=port, help="port of the broker")
    parser.add_argument("--bind", type=address, help="the only address that the broker listens on")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help=f"what clients can take of the broker: {', '.join(broker.LIMITS)}; give it for each",
    )
    parser.add_argument(
        "--docker", action="store_true", help="compose.yaml and a configuration for it, too"
    )


def _own_lines(arguments):
    """Return the lines of the user's own ACL (str), "" when they shall go, None for no change."""
    path = arguments.acl_file
    if not path:
        return "" if arguments.no_acl_file else None
    try:
        data = given.read(path)
    except OSError as error:
        fact = f"{path} cannot be read: {error.strerror}"
        raise Failure(fact, "give the path of a file", stage="files") from None
    return acl.own_lines(data, path)


def _limits(arguments):
    try:
        return dict(map(broker.limit, arguments.limit))
    except ValueError as error:
        raise Usage(f"--limit: {error}") from None


def run(arguments, report):
    own, limits = _own_lines(arguments), _limits(arguments)
    with Directory.opened(arguments.dir) as directory:
        deployment = foreign.own(directory, NAME)
        before = dict(deployment.settings)
        deployment.set(
            port=arguments.port or before["port"],
            bind=arguments.bind or before["bind"],
            docker=arguments.docker or before["docker"],
            limits={**before.get("limits", {}), **limits},
            server_only=not arguments.mutual and (arguments.server_only or before["server_only"]),
        )
        settings = deployment.settings
        with directory.change() as change:
            deployment.put_settings(change)
            if own is not None:
                deployment.put_own_acl(change, own)
            passwords = deployment.put_all_device_settings(change)
            if not settings["server_only"]:
                for name in directory.devices():
                    if deployment.device_problem(name):
                        deployment.put_device(change, name)
            deployment.put_broker_files(change, passwords)
        folder = directory.path / "broker"
        report.made(folder / "mosquitto.conf", "with acl, crl.pem, install.sh")
        if own:
            report.made(directory.path / acl.OWN, "your own lines of the ACL")
        if settings["server_only"]:
            report.made(folder / "passwords", "of each device; in clear text in its tls.json")
        report.say()
        report.show((folder / "mosquitto.conf").read_text("utf-8"))
        report.data["conf"] = str(folder / "mosquitto.conf")
        if settings["docker"]:
            report.say()
            report.made(folder / "compose.yaml", "and mosquitto.docker.conf")
            report.next(shell("docker", "compose", "-f", folder / "compose.yaml", "up", "-d"))
        else:
            report.next(install_command(directory.path), "on the broker")
            report.next(
                shell("mosquitto", "-c", folder / "mosquitto.conf"),
                "or a trial run, as any user",
            )
        if any(settings[key] != before[key] for key in ("port", "server_only")):
            for name in deployment.boards():
                report.next(command("provision", name), "it has new settings")
    return report.status
