"""`mqttls init`: authority, broker's certificate and configuration."""

from .. import certificates, foreign, passphrase
from ..arguments import address, port
from ..authority import DAYS, ends_in
from ..broker import install_command
from ..deployment import Deployment
from ..files import SETTINGS, Directory
from ..messages import Failure, Usage, command
from ..names import KEY_KINDS, parse_host

NAME = "init"
SUMMARY = "make the authority, the broker's certificate and its configuration"

SLOWER = {"p384": "1.7", "p521": "2.9", "rsa2048": "2.7", "rsa4096": "15.5"}


def add(parser):
    parser.add_argument(
        "--broker",
        action="append",
        required=True,
        metavar="NAME",
        dest="names",
        help="a name or IP address that devices reach the broker under; give it for each one, "
        "the first is what devices use",
    )
    parser.add_argument("--key", choices=KEY_KINDS, help="kind of all keys (p256)")
    parser.add_argument("--port", type=port, help="port of the broker (8883)")
    parser.add_argument("--bind", type=address, help="the only address that the broker listens on")
    parser.add_argument(
        "--server-only",
        action="store_true",
        help="devices check the broker, and show it a password instead of a certificate",
    )
    parser.add_argument(
        "--encrypt-ca",
        action="store_true",
        help="encrypt the authority's key with a passphrase, which is asked for or read from the "
        f"file named by ${passphrase.VARIABLE}",
    )


def run(arguments, report):
    try:
        names = list(dict.fromkeys(parse_host(each) for each in arguments.names))
    except Failure as failure:
        raise Usage(f"--broker {failure.fact}: {failure.cure}") from None
    with Directory.opened(arguments.dir, create=True) as directory:
        if directory.exposed:
            report.note(
                f"others may be able to read the keys in {directory.path}: {directory.exposed}; "
                "keep it in a folder of your own"
            )
        if (directory.path / SETTINGS).exists():
            return _again(directory, names, arguments, report)
        return _first(directory, names, arguments, report)


def _first(directory, names, arguments, report):
    settings = {
        "version": 1,
        "names": names,
        "port": arguments.port or 8883,
        "bind": arguments.bind,
        "key": arguments.key or "p256",
        "server_only": arguments.server_only,
        "docker": False,
        "admins": [],
        "days": DAYS,
    }
    secret = passphrase.ask("the CA's key", twice=True) if arguments.encrypt_ca else None
    deployment = Deployment(directory, settings)
    with directory.change() as change:
        deployment.put_settings(change)
        deployment.authority.put(
            change, certificates.new_authority(settings["key"], ends_in(DAYS["ca"])), secret
        )
        issued = deployment.put_broker(change)
        deployment.put_broker_files(change)
    path = directory.path
    ca = deployment.authority.certificate
    report.made(path / "ca.crt", f"authority, until {ca.not_valid_after_utc:%Y-%m-%d}")
    report.made(path / "ca.key", "its key: keep a copy in a safe place, give it to nobody")
    _tell_broker(report, path, deployment, issued)
    report.made(path / "broker/mosquitto.conf", "and acl, ca.crt, crl.pem, install.sh beside it")
    if settings["key"] in SLOWER and not settings["server_only"]:
        report.note(
            f"with {settings['key']} keys a board's handshake takes {SLOWER[settings['key']]} "
            "times as long as with p256"
        )
    report.next(install_command(directory.path), "on the broker; copy the folder there first")
    report.next(command("device", "add", "NAME"), "for each board")
    return report.status


def _refuse_names_of_devices(directory, names):
    """A device with such a name has half of what a false broker needs: see `device add`."""
    for name in directory.devices():
        if name.lower() in names:
            raise Failure(
                f"{name!r} is the name of a device, which the broker cannot have, too",
                f"choose another name; or: {command('revoke', name)}",
                stage="files",
            )


def _again(directory, names, arguments, report):
    """Change what differs; the authority stays, so that boards go on trusting it."""
    deployment = foreign.own(directory, NAME)
    _refuse_names_of_devices(directory, names)
    path, before = directory.path, dict(deployment.settings)
    deployment.set(
        names=names,
        key=arguments.key or before["key"],
        port=arguments.port or before["port"],
        bind=arguments.bind or before["bind"],
        server_only=arguments.server_only or before["server_only"],
    )
    settings = deployment.settings
    why = deployment.broker_problem()
    encrypted = deployment.authority.is_encrypted
    encrypt = arguments.encrypt_ca and (not encrypted or deployment.authority.is_weak)
    if settings == before and not why and not encrypt and not deployment.authority.crl_problem():
        report.say(f"{path} is complete: nothing to do")
        report.next(command("status"))
        return report.status
    secret = None
    if encrypt and encrypted:  # with the same one, but so that it is not guessed soon
        secret = deployment.authority.passphrase()
    elif encrypt:
        secret = passphrase.ask("the CA's key", twice=True)
    issued = None
    with directory.change() as change:
        deployment.put_settings(change)
        if encrypt:
            deployment.authority.put_key(change, secret)
        if why:
            issued = deployment.put_broker(change)
        extra = deployment.put_all_device_settings(change)
        deployment.put_broker_files(change, extra)
    report.say(f"the authority in {path} stays: boards go on trusting it")
    if encrypt:
        report.made(path / "ca.key", "encrypted")
    if issued:
        report.say(f"the broker's certificate was issued anew: {why}")
        _tell_broker(report, path, deployment, issued)
    report.made(path / "broker/mosquitto.conf", "")
    report.next(install_command(directory.path), "on the broker")
    changed = [key for key in ("port", "server_only") if settings[key] != before[key]]
    if names[0] != before["names"][0] or changed:
        for name in deployment.boards():
            report.next(command("provision", name), "it has new settings")
    return report.status


def _tell_broker(report, path, deployment, issued):
    names = ", ".join(deployment.settings["names"])
    end = issued.certificate.not_valid_after_utc
    report.made(path / "broker/broker.crt", f"for {names}, until {end:%Y-%m-%d}")
    report.data["names"] = deployment.settings["names"]
    report.data["until"] = end.isoformat()
