"""`mqttls provision`: the library, the certificates and the settings onto a board."""

import getpass
import json
import sys
from pathlib import PurePosixPath

from .. import board_files, certificates, foreign, library, passphrase
from ..arguments import add_serial_port
from ..board import Board, BoardRaised, dotted
from ..deployment import note_board
from ..files import Directory
from ..library import bytecode
from ..messages import Failure, Usage, command, shell
from ..screen import printable

NAME = "provision"
SUMMARY = "the library, the certificates and the settings onto a board; its clock set"

# The board's own library reads what was written, as the app will.
_CHECK = """\
import json
from mqtt_as_tls import TLS
with open("/certs/tls.json") as _f:
    _t = json.load(_f)
TLS(ca=_t["ca"], cert=_t.get("cert"), key=_t.get("key"))
"""


def add(parser):
    parser.add_argument("device", metavar="NAME", help="the device, as in mqttls device add NAME")
    add_serial_port(parser)
    parser.add_argument("--wifi-ssid", metavar="SSID", help="the Wi-Fi that it joins")
    parser.add_argument(
        "--wifi-password-file",
        metavar="FILE",
        help="the Wi-Fi's password is in the first line of FILE (default: asked)",
    )
    parser.add_argument("--wifi-open", action="store_true", help="the Wi-Fi has no password")
    parser.add_argument(
        "--wifi-country", metavar="CC", help="two letters, such as DE: its allowed channels"
    )
    parser.add_argument(
        "--source",
        action="store_true",
        help="the library as .py files, also where the board takes .mpy files, which are smaller",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only say what would be written to the board"
    )


def run(arguments, report):
    with Directory.opened(arguments.dir, write=False) as directory:
        wanted = board_files.settings(directory.existing_device(arguments.device))
        given = _certificates(arguments.device, wanted)
        wanted.update(board_files.update_key(directory.path))
        deployment = foreign.opened(directory)
    ended = given["cert"] and given["cert"].not_valid_after_utc
    if ended and ended < certificates.now():
        raise Failure(
            f"the certificate of {arguments.device} ended on {ended:%Y-%m-%d}",
            f"{deployment.cure_of_end(arguments.device)}, then this again",
            stage="dates",
        )
    network = _network(arguments)
    if network:
        if "password" not in network:
            with Board(arguments.port) as board:
                board.info()  # it is there and can be used, before anybody types
            network["password"] = _typed(arguments.wifi_ssid)
        wanted.update(board_files.wifi(**network))
    with Board(arguments.port) as board:
        info = board.info()
        _tell(board, info, report)
        library = _library(info, arguments.source, report)
        wanted.update(library)
        wanted.update(_config(board, report))
        obsolete = _obsolete(board, arguments.device, wanted, report)
        if library:  # the other form of each module, and what was one in an older version
            obsolete += sorted(board_files.modules(board) - set(library))
        changed = board.compare(wanted)
        report.data["changed"] = sorted(changed)
        report.data["same"] = len(wanted) - len(changed)
        if arguments.dry_run:
            _dry_run(changed, wanted, obsolete, report)
            return 0
        board.put(wanted, report.progress)
        board.remove(obsolete)
        _wrote(changed, wanted, obsolete, report)
        _note(arguments, given, info, report)
        if given["ca"]:
            _check(board, report, has_key=given["cert"] is not None)
        _clock(board, report)
        there = board.hashes([board_files.WIFI_JSON, "/main.py"])
        _readable(
            deployment.cure_of_loss(arguments.device), wanted, there[board_files.WIFI_JSON], report
        )
        if there["/main.py"]:
            reset = shell("mpremote", "connect", board.port, "reset")
            report.next(reset, "starts its program again")
    port = () if arguments.port == "auto" else ("--port", arguments.port)
    doctor = command("doctor", "--device", arguments.device, "--board", *port)
    report.next(doctor, "does it reach the broker?")
    return report.status


def _certificates(name, wanted):
    """Return {"ca": list, "cert": one or None} of the certificates that go onto the board."""
    tls = json.loads(wanted[board_files.TLS_JSON])

    def load(path):
        try:
            return certificates.first_from_der(wanted[path])
        except ValueError:
            raise Failure(
                f"{PurePosixPath(path).name} of {name} is damaged: there is no certificate in it",
                f"make it anew with: {command('device', 'add', name)}",
                stage="files",
            ) from None

    return {
        "ca": [load(path) for path in tls["ca"]],
        "cert": load(tls["cert"]) if tls.get("cert") else None,
    }


def _note(arguments, given, info, report):
    """Note in the folder what the board has now: `renew --ca --finish` asks for it."""
    cert = given["cert"]
    found = {
        "cert": cert and certificates.serial_of(cert),
        "ca": [certificates.serial_of(each) for each in given["ca"]],
        "at": certificates.now().isoformat(),
        "id": info["id"],
        "machine": info["machine"],
        "library": info["frozen"] or library.version(),
    }
    try:
        with Directory.opened(arguments.dir) as directory:
            note_board(directory, arguments.device, found)
    except (OSError, Failure) as error:
        report.note(f"what the board has could not be noted in {arguments.dir}: {error}")


def _network(arguments):
    """
    Return the Wi-Fi settings, as board_files.wifi takes them (dict), {} when none were given;
    without `password` where that is to be asked for.
    """
    ssid, country = arguments.wifi_ssid, arguments.wifi_country
    if ssid is None:
        if arguments.wifi_password_file or arguments.wifi_open or country:
            raise Usage("--wifi-ssid is missing: say which Wi-Fi that is for")
        return {}
    data = ssid.encode(errors="surrogateescape")
    if not 1 <= len(data) <= 32 or data != ssid.encode(errors="replace"):
        raise Usage("--wifi-ssid has 1 to 32 bytes of UTF-8")
    if country is not None and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise Usage(f"--wifi-country {country}: two letters, such as DE")
    found = {"ssid": ssid, "country": country and country.upper()}
    if arguments.wifi_open:
        found["password"] = None
    elif arguments.wifi_password_file:
        found["password"] = _checked(passphrase.first_line(arguments.wifi_password_file))
    elif not sys.stdin.isatty():
        raise Usage(
            "the password of the Wi-Fi is needed, and there is no terminal to ask on: "
            "--wifi-password-file FILE, or --wifi-open"
        )
    return found


def _typed(ssid):
    typed = getpass.getpass(f"password of the Wi-Fi {printable(ssid)}: ")
    return _checked(typed.encode(errors="surrogateescape"))


def _checked(data):
    """Return the password (str) in `data` (bytes); raise Usage for what cannot be one."""
    try:
        password = data.decode()
    except UnicodeDecodeError:
        raise Usage("the Wi-Fi password is not UTF-8: save its file as that") from None
    most = 64 if not password.strip("0123456789abcdefABCDEF") else 63
    if not 8 <= len(data) <= most:
        raise Usage("a Wi-Fi password has 8 to 63 characters, or 64 hexadecimal digits")
    return password


def _tell(board, info, report):
    report.data["port"] = board.port
    report.data["board"] = {key: info[key] for key in ("machine", "version", "id", "free")}
    version = dotted(info["version"])
    report.say(
        f"board on {board.port}: {info['machine'] or info['platform']}, MicroPython {version}, "
        f"{info['free'] // 1024} KB free"
    )


def _library(info, source, report):
    """
    Return {path on the board: content} of the library, {} where the firmware has it.

    source  bool: as .py files, whatever the board takes
    """
    frozen = info["frozen"]
    report.data["form"] = None
    if frozen is None:
        return _installed(info, source, report)
    report.say(f"the library is in its firmware (version {frozen}): nothing to install")
    if frozen != library.version():
        report.note(
            f"this mqttls ships version {library.version()}; the board's is of its firmware "
            "and changes with that"
        )
    return {}


def _installed(info, source, report):
    why = "as --source says"
    if not source and not board_files.takes_mpy(info):
        why = f"this board's MicroPython takes no .mpy files of version {bytecode.VERSION}"
    elif not source:
        try:
            found = board_files.library_files(bytecode.SUFFIX)
        except bytecode.Unavailable as reason:
            why = f"no .mpy files, which need less of its memory, could be made: {reason}"
        else:
            report.data["form"] = bytecode.SUFFIX
            return found
    report.note(f"the library goes onto it as .py files: {why}")
    report.data["form"] = ".py"
    return board_files.library_files(".py")


def _config(board, report):
    if board_files.is_ours(board.read(board_files.CONFIG)):
        return {board_files.CONFIG: board_files.config()}
    report.note(
        f"{board_files.CONFIG} on the board is your own and stays as it is; the files are in "
        f"{board_files.CERTIFICATES}"
    )
    return {}


def _obsolete(board, name, wanted, report):
    """Return paths of certificates on the board that no longer belong to it."""
    before = board_files.read_tls(board)
    if not before:
        return []
    if board_files.name_in(before) != name:
        report.note(f"this board was {board_files.name_in(before)!r} until now")
    return [path for path in board_files.named_in(before) if path not in wanted]


def _groups(changed):
    """Return [(what, paths)] of changed files, the library's as one."""
    library = [path for path in changed if path.startswith(board_files.PACKAGE)]
    groups = [(path, [path]) for path in changed if path not in library]
    if library:
        groups.insert(0, (board_files.PACKAGE, library))
    return groups


_WHAT = {
    board_files.TLS_JSON: "which broker, which certificates",
    board_files.WIFI_JSON: "Wi-Fi",
    board_files.CONFIG: "import config",
    f"{board_files.CERTIFICATES}/cert.der": "its certificate",
    f"{board_files.CERTIFICATES}/key.der": "its key",
}


def _what(path, paths, changed):
    if path in _WHAT:
        what = _WHAT[path]
    elif path == board_files.PACKAGE:
        form = PurePosixPath(paths[0]).suffix
        what = f"the library {library.version()}, {len(paths)} {form} files"
    else:
        what = "whom it trusts"
    return f"{what}, {sum(len(changed[each]) for each in paths)} bytes"


def _dry_run(changed, wanted, obsolete, report):
    for path, paths in _groups(changed):
        report.say(f"would write {path}  ({_what(path, paths, changed)})")
    for what in _named(obsolete):
        report.say(f"would remove {what}")
    report.say(f"{len(wanted) - len(changed)} files are there already; nothing was written")


def _named(obsolete):
    """Return what is removed, a list of str: the modules of the library as one."""
    library = [path for path in obsolete if path.startswith(board_files.PACKAGE)]
    names = [path for path in obsolete if path not in library]
    if library:
        names.append(f"{len(library)} other modules in {board_files.PACKAGE}")
    return names


def _wrote(changed, wanted, obsolete, report):
    for path, paths in _groups(changed):
        report.made(f"board:{path}", _what(path, paths, changed))
    for what in _named(obsolete):
        report.say(f"removed {what}")
    if len(wanted) > len(changed):
        report.say(f"{len(wanted) - len(changed)} files were there already, the same")


def _clock(board, report):
    off = board.set_clock()
    report.data["clock_off_s"] = off
    if off is None:
        report.say("it has no clock that could be set")
    elif abs(off) > 2:
        report.say(f"clock set; it was {_span(abs(off))} {'behind' if off > 0 else 'ahead'}")
    else:
        report.say("clock set; it was right")


def _span(seconds):
    for size, name in ((86400 * 365, "years"), (86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {name}"
    return f"{seconds} seconds"


def _check(board, report, has_key):
    try:
        board.run(_CHECK, "reading the certificates", timeout_s=60)
    except BoardRaised as error:
        if error.error.startswith("MemoryError"):
            report.note(
                f"no memory left to check them on the board: {command('doctor')} does after reset"
            )
            return
        cause, cure = library.explain(error.error)
        report.problem("files", f"the board cannot use them: {error.error}", cause, cure)
    else:
        pair = ": certificate and key belong together" if has_key else ""
        report.say(f"the board has read them{pair}")


def _readable(cure, wanted, has_wifi, report):
    """Say what can be read by whoever holds the board, and what then (`cure`)."""
    tls = json.loads(wanted[board_files.TLS_JSON])
    held = []
    if tls.get("key"):
        held.append("its key")
    if tls.get("password"):
        held.append("its password for the broker")
    if has_wifi:
        held.append("the Wi-Fi password")
    report.data["readable"] = held
    if held:
        report.note(
            f"whoever holds the board can read {' and '.join(held)}: its flash is not encrypted. "
            f"If it is lost: {cure}"
        )
