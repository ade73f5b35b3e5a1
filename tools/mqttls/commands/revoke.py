"""`mqttls revoke`: shut devices out."""

from .. import certificates, foreign
from ..authority import use_of
from ..broker import install_command
from ..files import Directory
from ..messages import Failure, Usage, command

NAME = "revoke"
SUMMARY = "shut a device out: lost, stolen, sold"


def add(parser):
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="of a device: with every certificate that it ever had, also when its folder is gone",
    )
    parser.add_argument(
        "--serial",
        action="append",
        default=[],
        metavar="NUMBER",
        help="one certificate, by its serial number in hexadecimal digits",
    )
    parser.add_argument(
        "--cert", action="append", default=[], metavar="FILE", help="one certificate, by its file"
    )


def _serial(text):
    """Return a serial number as the record has it (str) of what openssl and others print."""
    digits = text.lower().removeprefix("0x").replace(":", "").replace(" ", "")
    try:
        number = int(digits, 16) if digits.isascii() and digits.isalnum() else 0
    except ValueError:
        number = 0
    if not 0 < number < 1 << 159:  # RFC 5280 section 4.1.2.2: 20 octets, and no sign
        raise Usage(
            f"--serial {text[:60]!r}: 1 to 40 hexadecimal digits, as `openssl x509` has it"
        )
    return f"{number:040x}"


def run(arguments, report):
    names = list(dict.fromkeys(arguments.names))
    serials = [_serial(each) for each in arguments.serial]
    if not names and not serials and not arguments.cert:
        raise Usage("say what is to be revoked: NAME, --serial NUMBER or --cert FILE")
    with Directory.opened(arguments.dir) as directory:
        deployment = foreign.own(directory, NAME)
        for name in names:
            if not deployment.issued_to(name):
                directory.existing_device(name)
        found = [one for each in serials for one in _by_serial(deployment, each)]
        found += [_by_file(deployment, each) for each in arguments.cert]
        with directory.change() as change:
            before = [one for name in names for one in deployment.issued_to(name)]
            count = deployment.put_revocation(change, names, more=found)
        for name in names:
            report.say(f"revoked  {name}")
        for one in found:
            report.say(f"revoked  {one['name'] or 'a certificate'}, serial number {one['serial']}")
        report.say(f"certificates put onto the list: {count}; their files are in the archive")
        report.data["revoked"] = names
        report.data["serials"] = [each["serial"] for each in before + found]
        report.made(directory.path / "crl.pem", "and broker/crl.pem")
        report.next(
            install_command(directory.path),
            "on the broker: until then they get in as before",
        )
        report.next(command("status"))
    return report.status


def _by_serial(deployment, serial):
    """Return what is to be put onto the lists for a serial number (list of dicts)."""
    known = [each for each in deployment.authority.issued() if each["serial"] == serial]
    for each in known:
        _check_use(each)
    if known:
        return known
    # of a backup that is gone, or by somebody with the CA's key: on the list of each authority
    return [
        {"serial": serial, "name": "", "authority": certificates.serial_of(each)}
        for each in deployment.authority.trusted
    ]


def _by_file(deployment, path):
    certificate = certificates.load(path)
    issuer = certificates.issuer_among(certificate, deployment.authority.trusted)
    if issuer is None:
        raise Failure(
            f"{path} is not from this authority: the broker does not let it in",
            "name a certificate that is; --dir says which authority",
            stage="chain",
        )
    found = {
        "serial": certificates.serial_of(certificate),
        "name": certificates.common_name(certificate),
        "authority": certificates.serial_of(issuer),
        "use": use_of(certificate),
    }
    _check_use(found)
    return found


def _check_use(found):
    """Raise Failure for what no list can revoke: devices read none."""
    if found["use"] == "device":
        return
    what = "the broker's certificate" if found["use"] == "broker" else "an authority"
    raise Failure(
        f"{found['serial']} is {what}: devices read no list of what was revoked",
        f"{command('renew', '--ca', '--now')} ends it at once, and with it the contact to every "
        "board until it is provisioned",
        stage="chain",
    )
