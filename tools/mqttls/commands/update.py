"""`mqttls update build`: an app's files, signed, as one message that boards install."""

from pathlib import Path

from .. import foreign, passphrase, system, updates
from ..files import Directory
from ..messages import Failure, Usage, command, shell

NAME = "update"
SUMMARY = "sign an update of an app, which boards take over MQTT"


def add(parser):
    below = parser.add_subparsers(dest="action", metavar="build", required=True)
    one = below.add_parser(
        "build",
        help="make the message; the first time, the key that signs, too",
        description="Pack the files of an app into one message and sign it. The key is made the "
        "first time; `provision` gives boards the public part of it.",
    )
    one.add_argument(
        "files", nargs="+", metavar="PATH", help="of the app: files, folders with all in them"
    )
    one.add_argument(
        "--version",
        required=True,
        type=_version,
        metavar="N",
        help="a number, larger than that of any update before: boards take nothing else",
    )
    one.add_argument(
        "--app", default="app", metavar="MODULE", help="what main.py starts (default: app)"
    )
    one.add_argument("--output", metavar="NEW_FILE", help="where to (default: APP-N.update)")
    one.add_argument(
        "--encrypt-key",
        action="store_true",
        help="encrypt the key that is made with a passphrase, which is asked for or read from the "
        f"file named by ${passphrase.VARIABLE}",
    )


def _version(text):
    number = int(text)
    if not 0 < number <= updates.HIGHEST:
        raise ValueError
    return number


def run(arguments, report):
    app, version = arguments.app, arguments.version
    if not app.isascii() or not app.isidentifier() or len(app) > 32:
        raise Usage(f"--app {app!r}: a module's name, such as app")
    found = updates.collect(arguments.files)
    output = Path(arguments.output or f"{app}-{version}.update")
    if not str(output).isprintable():
        raise Usage(f"--output {str(output)!r}: a name that can be printed")
    with Directory.opened(arguments.dir) as directory:
        folder = directory.path
        new = not (folder / updates.KEY).exists()
        if new:
            secret = passphrase.ask("the update key", True) if arguments.encrypt_key else None
            with directory.change() as change:
                updates.put_key(change, secret)
            report.made(folder / updates.KEY, "signs updates; it stays here")
            report.made(folder / updates.PUBLIC, "the public part, for boards")
        elif arguments.encrypt_key:
            raise Usage("--encrypt-key: there is a key already, and boards know it")
        key = updates.load_key(folder, lambda: passphrase.ask("the update key"))
        data = updates.packed(app, version, found, key)
        name = next(iter(directory.devices()), "NAME")
        sending = _sending(directory, name, output)
    try:
        system.create(output, data, 0o644)
    except FileExistsError:
        raise Failure(
            f"{output} is there already",
            "what was sent under a number stays what it was: take the next one, or --output",
            stage="files",
        ) from None
    report.made(output, f"version {version} of {app}: {len(found)} files, {len(data):,} bytes")
    report.data.update(app=app, version=version, files=sorted(found), bytes=len(data))
    if new:
        report.next(command("provision", name), "gives the board the public key")
    report.next(*sending)
    return report.status


def _sending(directory, name, output):
    """Return the command that sends the update to a device (str), and what it does."""
    admins = [] if foreign.is_foreign(directory) else directory.settings["admins"]
    if not admins:
        what = "who may publish to devices/… sends it: a certificate for that"
        return command("device", "add", "desk", "--admin"), what
    at = directory.device(admins[0])
    proof = ("--cert", at / "cert.crt", "--key", at / "key.pem")
    if directory.settings["server_only"]:
        proof = ("-u", at.name, "-P", "PASSWORD")
    host, port = directory.settings["names"][0], directory.settings["port"]
    words = ("--cafile", at / "ca.crt", *proof, "-h", host, "-p", port, "-q", "1")
    topic = f"devices/{name}/update"
    return shell("mosquitto_pub", *words, "-t", topic, "-f", output), "sends it to one board"
