"""mosquitto.conf and the files it names, judged by mosquitto's rules and by what boards need."""

import contextlib
import os
import ssl
import stat
from pathlib import Path

from cryptography import x509

from ..messages import shell
from ..names import is_port
from . import clients, lint, reading
from .causes import problem, remark
from .peek import BOARD_CIPHERS, CIPHERS

_MOST_INCLUDED = 50
_HERE = "configuration"

# Options that belong to the listener above them.
_OF_LISTENER = set(
    "cafile capath certfile keyfile crlfile require_certificate use_identity_as_username "
    "use_subject_as_username tls_version ciphers dhparamfile psk_hint psk_file protocol "
    "bind_address bind_interface mount_point max_connections tls_engine tls_keyform".split()
)
# Options that belong to it only with per_listener_settings true.
_SECURITY = set("acl_file password_file allow_anonymous psk_file plugin auth_plugin".split())


class Listener:
    """One listener: `port`, `address` ("" for all), `options` {name: value}, `line` number."""

    def __init__(self, port, address="", line=0):
        self.port, self.address, self.line = port, address, line
        self.options = {}

    @property
    def tls(self):
        return "certfile" in self.options or "psk_hint" in self.options

    def is_on(self, name):
        return self.options.get(name, "false").lower() == "true"


class Configuration:
    """
    What a mosquitto.conf says.

    path       Path of the file
    listeners  list of Listener
    options    dict of what belongs to all listeners
    findings   what was wrong while reading it
    """

    def __init__(self, path):
        self.path = Path(path)
        self.listeners, self.options, self.findings = [], {}, []
        self._included = 0
        self._default = Listener(1883)
        self._read(self.path)
        if self._default.options or "port" in self.options:
            port = self.options.get("port", "1883").partition(" ")[0]
            self._default.port = int(port) if is_port(port) else 0
            self.listeners.insert(0, self._default)

    def _read(self, path):
        try:
            text = reading.read(path, _HERE).decode("utf-8", "replace")
        except reading.Unreadable as error:
            self.findings.append(error.finding)
            return
        for number, line in enumerate(text.splitlines(), 1):
            name, _, value = line.strip().partition(" ")
            value = value.strip()
            if not name or name.startswith("#"):
                continue
            if name == "listener":
                self._listen(path, number, value)
            elif name == "include_dir":
                self._include(path, number, value)
            elif name in _OF_LISTENER or name in _SECURITY and self._apart and self.listeners:
                target = self.listeners[-1] if self.listeners else self._default
                target.options[name] = value
            else:
                self.options[name] = value
            if name in ("cafile", "certfile", "keyfile", "crlfile", "acl_file") and not value:
                self._wrong(
                    0, f"{path} line {number}: {name} has no value", "give the file's path"
                )

    @property
    def _apart(self):
        return self.options.get("per_listener_settings", "false").lower() == "true"

    def _listen(self, path, number, value):
        words = value.split()
        if not words or not (words[0] == "0" or is_port(words[0])):  # 0: no TCP
            self._wrong(0, f"{path} line {number}: listener without a port", "listener 8883")
            return
        address = words[1] if len(words) > 1 else ""
        self.listeners.append(Listener(int(words[0]), address, number))

    def _include(self, path, number, value):
        folder = Path(value)
        if not folder.is_dir():
            self._wrong(
                0, f"{path} line {number}: there is no folder {value}", "make it, or drop the line"
            )
            return
        for each in sorted(folder.glob("*.conf")):
            self._included += 1
            if self._included <= _MOST_INCLUDED:
                self._read(each)

    def _wrong(self, row, fact, cure, cause="mosquitto does not start with that"):
        self.findings.append(problem(row, fact, stage=_HERE, cause=cause, cure=cure))

    def file(self, path):
        """
        Return the path (str) of a file that the configuration names: where it says, or, of a copy
        that is not on the broker, beside the configuration.
        """
        if not path:
            return ""
        beside = self.path.parent / Path(path).name
        return str(beside) if not os.path.exists(path) and beside.is_file() else path

    def of(self, listener, name, default=""):
        """Return the value of an option of the kind that can belong to all listeners."""
        return listener.options.get(name, self.options.get(name, default))

    def listener(self, port=None):
        """Return the Listener with TLS on `port` (any, when None), or None."""
        having = [each for each in self.listeners if each.tls]
        if port is not None:
            having = [each for each in self.listeners if each.port == port]
        return having[0] if having else None


class Files:
    """
    What a listener's files hold, as far as they can be read.

    chain        certificates in certfile
    authorities  certificates in cafile
    crls         revocation lists in crlfile
    known        certificates lying beside them, to tell a missing intermediate
    """

    def __init__(self):
        self.chain, self.authorities, self.crls, self.known = [], [], [], []


def judge(configuration, port=None, name=None, when=None):
    """
    Return (findings, Files or None) for the listener on `port`, or else the first with TLS.

    name  the name that devices dial, to be checked against the certificate; None: unchecked
    """
    out = list(configuration.findings)
    listener = configuration.listener(port)
    if out and not configuration.listeners:
        return out, None
    if listener is None:
        ports = ", ".join(str(each.port) for each in configuration.listeners) or "none"
        wanted = f"on port {port}" if port is not None else "with certfile"
        fact = f"{configuration.path} has no listener {wanted} (ports: {ports})"
        cure = "add: listener 8883, certfile, keyfile (mqttls broker-conf writes them)"
        if port is not None and not configuration.listeners:
            cure += "; without any listener mosquitto 2 accepts connections of its own PC only"
        return [*out, problem(2, fact, stage=_HERE, cure=cure)], None
    if listener.address in ("localhost", "127.0.0.1", "::1"):
        # A tried configuration may well listen there; then a board is not what comes.
        out.append(
            remark(
                2,
                f"the listener on port {listener.port} is bound to {listener.address}",
                stage=_HERE,
                cause="only programs on the broker's own PC reach it",
                cure=f"listener {listener.port} (without an address)",
            )
        )
    out += _access(configuration, listener)
    if not listener.tls:
        fact = f"the listener on port {listener.port} has no certfile: it is a plain one"
        return [*out, problem(3, fact, stage=_HERE)], None
    out += _protocol(listener)
    found_files, files = _files(configuration, listener, name, when)
    return out + found_files, files


def _protocol(listener):
    out = []
    version = listener.options.get("tls_version", "")
    if version == "tlsv1.3":
        out.append(problem(7, f"tls_version {version} on port {listener.port}", stage=_HERE))
    elif version and version not in ("tlsv1.2", "tlsv1.1"):
        fact = f"mosquitto knows no tls_version {version}"
        out.append(problem(7, fact, stage=_HERE, cause="", cure="tls_version tlsv1.2"))
    asked = listener.options.get("ciphers")
    if asked:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = set()
        with contextlib.suppress(ssl.SSLError):
            context.set_ciphers(asked)
            names = {each["name"] for each in context.get_ciphers()}
        if not names & {CIPHERS[each] for each in BOARD_CIPHERS}:
            fact = f"ciphers {asked} leaves none of those that MicroPython has"
            out.append(problem(10, fact, stage=_HERE))
    if listener.options.get("protocol", "mqtt") == "websockets":
        fact = f"the listener on port {listener.port} is one for websockets"
        out.append(problem(5, fact, stage=_HERE, cure="use the listener with protocol mqtt"))
    return out


def _access(configuration, listener):
    out = []
    anonymous = configuration.of(listener, "allow_anonymous", "false").lower() == "true"
    passwords = configuration.of(listener, "password_file")
    plugin = configuration.of(listener, "plugin") or configuration.of(listener, "auth_plugin")
    identity = listener.is_on("use_identity_as_username")
    identity = identity or listener.is_on("use_subject_as_username")
    demanded = listener.is_on("require_certificate")
    if identity and not demanded:
        out.append(
            problem(
                36,
                f"port {listener.port} has use_identity_as_username without require_certificate",
                stage=_HERE,
                cause="a client without certificate is refused as with a wrong password",
                cure="require_certificate true",
            )
        )
    if demanded and "cafile" not in listener.options and "capath" not in listener.options:
        fact = f"port {listener.port} has require_certificate without cafile"
        cause = "the broker has no CA to check clients with: it does not start or refuses all"
        cure = "cafile with the CA that signed the devices"
        out.append(problem(25, fact, stage=_HERE, cause=cause, cure=cure))
    if not (anonymous or passwords or plugin or identity):
        who = "clients with a certificate" if demanded else "every client"
        fact = f"port {listener.port} has neither allow_anonymous true nor a password_file"
        cure = "password_file, or allow_anonymous true"
        if demanded:
            fact += " nor use_identity_as_username"
            cure = "use_identity_as_username true"
        cause = f"mosquitto 2 refuses {who}: not authorised"
        out.append(problem(35, fact, stage=_HERE, cause=cause, cure=cure))
    for option in ("acl_file", "password_file"):
        path = configuration.file(configuration.of(listener, option))
        if path and not os.path.isfile(path):
            fact = f"{option} {path} is not there"
            cure = f"make it, or drop the line {option}"
            out.append(problem(35, fact, stage=_HERE, cause="mosquitto does not start", cure=cure))
    acl = configuration.file(configuration.of(listener, "acl_file"))
    if acl and os.path.isfile(acl):
        out += _acl(acl, identity or passwords)
    return out


def _acl(path, named):
    try:
        lines = reading.read(path, _HERE).decode("utf-8", "replace").splitlines()
    except reading.Unreadable as error:
        if os.path.getsize(path):
            return [error.finding]
        lines = []
    rules = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not any(each[0] in ("topic", "pattern") for each in rules):
        fact = f"{path} allows no topic at all"
        cure = "pattern readwrite devices/%u/#"
        return [problem(35, fact, stage=_HERE, cause="every publish is dropped", cure=cure)]
    if not named and any(each[0] == "pattern" and "%u" in each[-1] for each in rules):
        fact = f"{path} has patterns with %u, but clients have no user name"
        cure = "use_identity_as_username true, or a password_file"
        return [problem(35, fact, stage=_HERE, cause="the patterns match nothing", cure=cure)]
    return []


def _files(configuration, listener, name, when):
    out, files = [], Files()
    options = listener.options
    certfile = configuration.file(options["certfile"]) if "certfile" in options else ""
    keyfile = configuration.file(options["keyfile"]) if "keyfile" in options else ""
    if not keyfile:
        fact = f"port {listener.port} has certfile without keyfile"
        return [problem(39, fact, cause="mosquitto does not start", cure="keyfile PATH")], files
    for option in ("certfile", "cafile"):
        path = configuration.file(options.get(option, ""))
        if path:
            try:
                _must_be_pem(path, option)
                loaded = reading.load_all(path, _HERE)
                if option == "certfile":
                    files.chain = loaded
                else:
                    files.authorities = loaded
            except reading.Unreadable as error:
                out.append(error.finding)
    out += _key(configuration, keyfile, files.chain)
    if files.chain:
        files.known = _beside(certfile) + files.authorities
        leaf = files.chain[0]
        if reading.is_ca(leaf) and len(files.chain) > 1:
            fact = f"{certfile} begins with the CA {reading.name_of(leaf)}"
            cure = "put the broker's own certificate first, those of CAs after it"
            cause = "the first certificate is the one that the broker shows"
            out.append(problem(39, fact, cause=cause, cure=cure))
        whose = f"the broker's certificate ({certfile})"
        out += lint.form(leaf, whose) + lint.server(leaf) + lint.dates(leaf, whose, when)
        out += lint.flight([reading.size(each) for each in files.chain])
        if name is not None:
            out += lint.named(leaf, name)
    for each in files.authorities:
        whose = f"the CA {reading.name_of(each)} (cafile)"
        out += [one for one in lint.dates(each, whose, when) if one.row != 12]
        if not reading.is_ca(each) and each.issuer != each.subject:
            fact = f"{whose} has no CA:TRUE or no keyCertSign"
            out.append(problem(18, fact))
    crlfile = configuration.file(options.get("crlfile", ""))
    if crlfile:
        try:
            files.crls, more = clients.crl(crlfile, files.authorities, when, _HERE)
            out += more
        except reading.Unreadable as error:
            out.append(error.finding)
    return out, files


def _must_be_pem(path, option):
    if not reading.is_pem(reading.read(path, _HERE)):
        raise reading.Unreadable(
            problem(
                39,
                f"{option} {path} is not PEM",
                cause="mosquitto reads PEM only",
                cure=_to_pem("x509", path),
            )
        )


def _key(configuration, path, chain):
    try:
        data = reading.read(path, _HERE)
        if not reading.is_pem(data):
            cure = _to_pem("pkey", path)
            fact = f"keyfile {path} is not PEM"
            return [problem(39, fact, cause="mosquitto reads PEM only", cure=cure)]
        private = reading.load_key(path, _HERE)
    except reading.Unreadable as error:
        if error.finding.row == 30:
            cause = "mosquitto asks for its passphrase, and nobody answers"
            cure = shell("openssl", "pkey", "-in", path, "-out", "PLAIN")
            return [problem(39, f"keyfile {path} is encrypted", cause=cause, cure=cure)]
        return [error.finding]
    out = []
    if chain and not reading.is_pair(chain[0], private.private):
        whose = reading.name_of(chain[0])
        fact = f"keyfile {path} does not belong to the certificate of {whose}"
        cause = "key and certificate of the broker are not a pair"
        out.append(problem(39, fact, cause=cause, cure="name the key that was made with it"))
    return out + _permission(configuration, path)


def _to_pem(kind, path):
    pem = Path(path).with_suffix(".pem")
    return shell("openssl", kind, "-inform", "DER", "-in", path, "-out", pem)


def _permission(configuration, path):
    # A broker that is started as root reads its key after it became `user`.
    try:
        import pwd
    except ImportError:  # Windows
        return []
    if Path(path).parent == configuration.path.parent:  # a folder that install.sh copies from
        return []
    user = configuration.options.get("user", "mosquitto")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return []
    state = os.stat(path)
    own = state.st_uid == account.pw_uid and state.st_mode & stat.S_IRUSR
    group = state.st_gid == account.pw_gid and state.st_mode & stat.S_IRGRP
    if own or group or state.st_mode & stat.S_IROTH or account.pw_uid == 0:
        return []
    return [
        remark(
            39,
            f"the user {user} may not read {path}",
            cause=f"a broker that the system starts runs as {user} and cannot load its key",
            cure=shell("chown", user, path),
        )
    ]


def _beside(path, most=50):
    # Certificates in the folder of `path`, quietly.
    out = []
    with contextlib.suppress(OSError):
        names = sorted(Path(path).parent.iterdir())[:500]
        names = [each for each in names if each.suffix in (".crt", ".pem", ".cer")][:most]
        for each in names:
            with contextlib.suppress(reading.Unreadable, ValueError):
                out += reading.load_all(each)
    return [each for each in out if isinstance(each, x509.Certificate)]
