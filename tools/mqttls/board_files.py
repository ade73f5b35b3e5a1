"""What a provisioned board holds: which files, which settings, and how it dials with them."""

import contextlib
import json
from pathlib import Path

from . import library, updates
from .files import read_tls_json
from .library import bytecode
from .messages import Failure, command

LIBRARY = "/lib"
PACKAGE = f"{LIBRARY}/{library.NAME}"
FORMS = (".py", bytecode.SUFFIX)  # of a module; where a board has both, it imports the first
CERTIFICATES = "/certs"
TLS_JSON = f"{CERTIFICATES}/tls.json"
WIFI_JSON = f"{CERTIFICATES}/wifi.json"
CONFIG = "/config.py"

_OURS = b"# Written by `mqttls provision`"


def _json(value):
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def library_files(form):
    """
    Return {path on the board: content} of the device package.

    form  ".py" or ".mpy"

    Raises bytecode.Unavailable for ".mpy" where that cannot be had.
    """
    return {f"{LIBRARY}/{name}": data for name, data in library.files(form).items()}


def takes_mpy(info):
    """Tell whether a board (what Board.info() says of it) takes our .mpy files."""
    return info["mpy"] == bytecode.VERSION


def modules(board):
    """Return the paths (set) of all modules in a board's folder of the library, in any form."""
    names = board.names(PACKAGE)
    return {f"{PACKAGE}/{name}" for name in names if name.endswith(FORMS)}


def settings(folder):
    """
    Return {path on the board: content} for a device: its certificates, its key, tls.json.

    folder  Path of the device in the directory of certificates

    Raises Failure when a file is missing or damaged.
    """
    folder = Path(folder)
    tls = read_tls_json(folder)
    tls = {key: value for key, value in tls.items() if not key.startswith("own_")}
    files = {}

    def take(name):
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise Failure(
                f"{path} is missing",
                f"make it anew with: {command('device', 'add', folder.name)}",
                stage="files",
            )
        files[f"{CERTIFICATES}/{name}"] = path.read_bytes()
        return f"{CERTIFICATES}/{name}"

    tls["ca"] = [take(name) for name in tls["ca"]]
    for each in ("cert", "key"):
        if tls.get(each):
            tls[each] = take(tls[each])
    files[TLS_JSON] = _json(tls)
    return files


def update_key(folder):
    """
    Return {path on the board: content} of the public key of updates; empty where there is none.

    folder  Path of the directory of certificates
    """
    path = Path(folder, updates.PUBLIC)
    return {f"{CERTIFICATES}/{path.name}": path.read_bytes()} if path.exists() else {}


def wifi(ssid, password, country=None):
    """Return {path on the board: content} of the Wi-Fi settings; `password` None: an open one."""
    return {WIFI_JSON: _json({"ssid": ssid, "password": password, "country": country})}


def config():
    """Return the content (bytes) of config.py, from which a program takes its settings."""
    return (Path(__file__).with_name("board_config.py")).read_bytes()


def config_on_pc():
    """Return the content (bytes) of such a config.py for a PC, where it lies beside tls.json."""
    first, mark, rest = config().partition(b'_FOLDER = "/certs/"')
    assert mark
    _, _, text = first.partition(b"\n")
    first = b"# Written by mqttls: for programs that run as this device on a PC\n" + text
    return first + b'_FOLDER = __file__[: -len("config.py")]' + rest


def is_ours(data):
    """Tell whether a config.py (bytes, or None for no file) may be overwritten."""
    return data is None or data.startswith(_OURS)


def look(board):
    """
    Return a dict of what a board holds: what Board.info() says, and

    `name`      of the device (the client id of its tls.json), None where it was not provisioned
    `tls`       its tls.json (dict), or None
    `wifi`      name of its Wi-Fi, or None
    `library`   "same", "other", "none" or "frozen": how its library compares with this tool's
    `version`   of that library, or None
    `form`      what it is imported from: ".py", ".mpy", or None
    `hashes`    {path: sha256} of the certificates that its tls.json names
    `cert`      its certificate (DER, bytes), or None
    """
    found = board.info()
    found["micropython"] = found.pop("version")
    tls = read_tls(board)
    network = _parse(board.read(WIFI_JSON))
    found["tls"] = tls
    found["name"] = tls and name_in(tls)
    found["wifi"] = network and network.get("ssid")
    found["hashes"] = board.hashes(named_in(tls)) if tls else {}
    found["cert"] = board.read(tls["cert"]) if tls and tls.get("cert") else None
    found["library"], found["version"], found["form"] = _library_of(board, found)
    return found


def read_tls(board):
    """Return the tls.json of a board (dict), None where it has none or a damaged one."""
    return _parse(board.read(TLS_JSON))


def name_in(tls):
    """Return the name of the device (str or None) that a board's tls.json (dict) was made for."""
    return tls.get("device") or tls.get("client_id")


def named_in(tls):
    """Return the paths of the certificates and the key that a board's tls.json (dict) names."""
    one = [tls[each] for each in ("cert", "key") if tls.get(each)]
    return [*(tls.get("ca") or []), *one]


def _parse(data):
    with contextlib.suppress(TypeError, ValueError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return None


def _library_of(board, info):
    if info["frozen"]:
        return "frozen", info["frozen"], None
    there = modules(board)
    form = next((form for form in FORMS if f"{PACKAGE}/__init__{form}" in there), None)
    if form is None:
        return "none", None, None
    version = info["installed"] or "unknown"
    try:
        wanted = library_files(form)
    except bytecode.Unavailable:  # then the version has to do
        same = version == library.version()
    else:
        same = there == set(wanted) and not board.compare(wanted)
    return ("same", library.version(), form) if same else ("other", version, form)
