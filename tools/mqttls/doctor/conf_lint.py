"""
The broker's configuration and the files it names, judged by mosquitto's rules and by what boards
need: what keeps mosquitto from starting, and what keeps boards out.
"""

import contextlib
import errno
import os
import re
import socket
import ssl
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..messages import shell
from ..names import is_address
from . import clients, conf, lint, reading
from .causes import problem, remark
from .mqtt import KEEPALIVE_S
from .peek import BOARD_CIPHERS, CIPHERS

_HERE = "configuration"
_DOCKER_UID = 1883  # of mosquitto in its container


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


def judge(configuration, port=None, name=None, when=None, tls=True):
    """
    Return (findings, Files or None) for the listener on `port`, or else the first with TLS.

    name  the name that devices dial, to be checked against the certificate; None: unchecked
    tls   whether devices come with TLS
    """
    out = list(configuration.findings)
    listener = configuration.listener(port)
    if out and not configuration.listeners:
        return out, None
    out += _deprecated(configuration) + _missing(configuration) + _folders(configuration)
    if listener is None:
        ports = ", ".join(str(each.port) for each in configuration.listeners) or "none"
        wanted = f"on port {port}" if port is not None else "with certfile"
        fact = f"{configuration.path} has no listener {wanted} (ports: {ports})"
        cure = "add: listener 8883, certfile, keyfile (mqttls broker-conf writes them)"
        if port is not None and not configuration.listeners:
            cure += "; without any listener mosquitto 2 accepts connections of its own PC only"
        cause = "a board with TLS has nothing there to connect to"
        return [*out, problem(2, fact, stage=_HERE, cause=cause, cure=cure)], None
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
    out += _sockets(configuration)
    out += _versions(listener) + _keepalive(configuration) + _prefixes(configuration)
    out += _access(configuration, listener)
    if listener.options.get("protocol", "mqtt") == "websockets":
        fact = f"the listener on port {listener.port} is one for websockets"
        cause = "it takes MQTT over WebSocket only, which boards do not know"
        cure = "a listener of its own for boards, without the line `protocol`"
        return [*out, problem(5, fact, stage=_HERE, cause=cause, cure=cure)], None
    if listener.half_tls:
        have = " and ".join(
            each for each in ("cafile", "capath", "keyfile") if each in listener.options
        )
        fact = f"port {listener.port} has {have}, but no certfile"
        return [*out, problem(59, fact)], None
    if not listener.tls and not tls:
        return out, None
    if not listener.tls:
        fact = f"the listener on port {listener.port} has no certfile: it is a plain one"
        return [*out, problem(3, fact, stage=_HERE)], None
    found_files, files = _files(configuration, listener, name, when)
    return [*out, *_protocol(listener, files.chain), *found_files], files


_MADE_AT_THE_START = ("/run/", "/var/run/", "/var/log/mosquitto/")  # by its service


def _folders(configuration):
    """Return the findings about folders that are not there, and a user that nobody is."""
    out = []
    if configuration.is_copy or any("/mosquitto/" in path for _, path, _ in configuration.paths()):
        return out
    for name, value, where in configuration.lines:
        path = value
        if name == "log_dest":
            kind, _, path = value.partition(" ")
            if kind != "file":
                continue
        elif name not in ("pid_file", "plugin", "auth_plugin", "global_plugin"):
            continue
        if path.startswith(_MADE_AT_THE_START):
            continue
        missing = path if name.endswith("plugin") else os.path.dirname(path.strip())
        if missing and not os.path.exists(missing):
            out.append(problem(58, f"{where}: {missing} is not there"))
    user = configuration.options.get("user")
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        with contextlib.suppress(KeyError):
            pwd.getpwnam(user or "root")
            return out
        fact = f"there is no user {user} on this machine"
        cause = "mosquitto does not start as root then: it cannot become that user"
        out.append(problem(45, fact, stage=_HERE, cause=cause, cure="user mosquitto"))
    return out


def _deprecated(configuration):
    out = []
    for name, value, where in configuration.lines:
        if name in conf.DEPRECATED and (name, value) != ("per_listener_settings", "false"):
            fact = f"{where}: {name} is deprecated in mosquitto 2.1"
            out.append(remark(62, fact, cure=conf.DEPRECATED[name]))
    return out


def _missing(configuration):
    """Return the findings about files that are not where the configuration says."""
    out, copy = [], configuration.is_copy
    for name, path, where in configuration.paths():
        if not configuration.is_missing(path):
            continue
        beside = configuration.file(path)
        fact = f"{where}: {name} {path} is not there"
        if "#" in path:
            cure = (
                "put the comment on a line of its own: mosquitto takes it for a part of the path"
            )
            out.append(problem(58, fact, cure=cure))
        elif path[:1] in "\"'":
            out.append(problem(58, fact, cure="write the path without quotes"))
        elif beside != path and Path(path).is_absolute() and path.startswith("/mosquitto/"):
            continue  # in a container
        elif beside != path and not Path(path).is_absolute():
            cause = f"{beside} is beside the configuration, but a relative path counts from the "
            cause += "folder in which mosquitto is started (as a service: /)"
            cure = f"{name} {Path(beside).resolve()}"
            out.append(remark(58, fact, cause=cause, cure=cure))
        elif beside != path:
            cause = f"a file of that name is beside the configuration, {beside}, which mosquitto "
            cause += "does not look at"
            out.append(problem(58, fact, cause=cause, cure=f"{name} {Path(beside).resolve()}"))
        else:
            out.append(problem(58, fact))
    if copy:
        fact = f"the files that {configuration.path} names are not on this machine"
        cause = "those of the same names beside it were looked at"
        cure = "on the broker's machine more can be seen: who may read them"
        out.append(remark(58, fact, cause=cause, cure=cure))
    return out


def _protocol(listener, chain):
    out = []
    version = listener.options.get("tls_version", "")
    if version == "tlsv1.3":
        out.append(problem(7, f"tls_version {version} on port {listener.port}", stage=_HERE))
    elif version and version not in ("tlsv1.2", "tlsv1.1"):
        fact = f"mosquitto knows no tls_version {version}"
        out.append(problem(60, fact, stage=_HERE))
    asked = listener.options.get("ciphers")
    if asked:
        out += _ciphers(asked, chain)
    unknown = set(listener.options.get("ciphers_tls1.3", "").split(":")) - _CIPHERS_13 - {""}
    if unknown:
        fact = f"ciphers_tls1.3 has {', '.join(sorted(unknown))[:80]}, which OpenSSL does not know"
        out.append(problem(57, fact, cure="drop that line: boards speak TLS 1.2"))
    if listener.options.get("socket_domain") == "ipv6":
        fact = f"the listener on port {listener.port} has socket_domain ipv6"
        cause = "boards come with IPv4"
        out.append(problem(2, fact, stage=_HERE, cause=cause, cure="drop that line"))
    return out


def _sockets(configuration):
    """Return the findings about listeners that cannot listen, or not to boards."""
    out, seen = [], set()
    for each in configuration.listeners:
        line = f"listener {each.port} {each.address}".strip()
        if each.port and (each.port, each.address) in seen:
            fact = f"{configuration.path} has {line} twice"
            cause = "mosquitto does not start: it has that port already"
            out.append(problem(2, fact, stage=_HERE, cause=cause, cure="drop one of them"))
        seen.add((each.port, each.address))
        interface = each.options.get("bind_interface")
        if configuration.is_copy:
            continue
        if interface and not _is_interface(interface):
            fact = f"{line} has bind_interface {interface}, which this machine does not have"
            cause = "mosquitto does not start with that"
            out.append(problem(2, fact, stage=_HERE, cause=cause, cure="drop that line"))
        if ":" in each.address:
            fact, cause = f"{line} is bound to an address of IPv6", "boards come with IPv4"
            cure = f"listener {each.port}"
            out.append(problem(2, fact, stage=_HERE, cause=cause, cure=cure))
        elif is_address(each.address) and not _is_here(each.address):
            fact = f"{line} is bound to an address that this machine does not have"
            cause = "mosquitto does not start there"
            cure = f"listener {each.port}; or give the address that the broker's machine has"
            out.append(problem(2, fact, stage=_HERE, cause=cause, cure=cure))
    return out


def _is_interface(name):
    try:
        return bool(socket.if_nametoindex(name))
    except (OSError, ValueError, AttributeError):
        return False


def _is_here(address):
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


_CIPHERS_13 = set(
    "TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256 "
    "TLS_AES_128_CCM_SHA256 TLS_AES_128_CCM_8_SHA256".split()
)


def _ciphers(asked, chain):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = set()
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers(asked)
        names = {each["name"] for each in context.get_ciphers()}
    names &= {CIPHERS[each] for each in BOARD_CIPHERS}
    if not names:
        fact = f"ciphers {asked} leaves none of those that MicroPython has"
        return [problem(10, fact, stage=_HERE)]
    public = reading.public_key(chain[0]) if chain else None
    if isinstance(public, ec.EllipticCurvePublicKey):
        kind, fits = "EC", any("-ECDSA-" in each for each in names)
    elif isinstance(public, rsa.RSAPublicKey):
        kind, fits = "RSA", any("-ECDSA-" not in each for each in names)
    else:
        return []
    if fits:
        return []
    fact = f"ciphers {asked} has none for the broker's key, which is an {kind} key"
    more = f"ECDHE-{'ECDSA' if kind == 'EC' else 'RSA'}-AES128-GCM-SHA256"
    return [problem(49, fact, stage=_HERE, cure=f"remove `ciphers`, or add {more} to it")]


def _versions(listener):
    """Return the finding about a listener of 2.1 that takes no MQTT 3.1.1, which it calls 4."""
    given = listener.options.get("accept_protocol_versions")
    numbers = re.split(r"[\s,]+", given or "4")
    if "4" in numbers:
        if not given or "5" in numbers:
            return []
        fact = f"port {listener.port} has accept_protocol_versions {given}, without 5"
        cause = "it refuses a board that says protocol=5, which the doctor does not try"
        return [remark(0, fact, stage=_HERE, cause=cause, cure="protocol=4 on the boards")]
    fact = f"port {listener.port} has accept_protocol_versions {given}, without 4 (MQTT 3.1.1)"
    cause = "boards come with MQTT 3.1.1 unless they say protocol=5; the broker answers code 1"
    cure = "accept_protocol_versions 4, 5 (3.1.1 is written 4)"
    level = "remark" if "5" in numbers else "problem"
    return [problem(0, fact, stage=_HERE, cause=cause, cure=cure, level=level)]


def _prefixes(configuration):
    given = configuration.options.get("clientid_prefixes")
    if not given:
        return []
    fact = f"the broker takes client ids only that begin with {given}"
    cause = "to others it says not authorised (code 5)"
    return [remark(37, fact, stage=_HERE, cause=cause, cure=f"client_id={given}...")]


def _keepalive(configuration):
    """Return the finding about a max_keepalive below what boards have by themselves."""
    given = configuration.options.get("max_keepalive", "")
    if not given.isdigit() or not 0 < int(given) < KEEPALIVE_S:
        return []
    fact = f"max_keepalive is {given} s, and boards come with {KEEPALIVE_S} s of their own accord"
    cure = f"keepalive_s={given} in the device's program, or drop that line"
    return [remark(72, fact, stage=_HERE, cure=cure)]


_PLUGINS = ("plugin", "auth_plugin", "global_plugin", "plugin_load", "plugin_use")


def _access(configuration, listener):
    out = []
    anonymous = configuration.of(listener, "allow_anonymous", "false").lower() == "true"
    own = listener.options.get("listener_allow_anonymous", "")  # of 2.1
    anonymous = own == "true" if own else anonymous
    passwords = configuration.of(listener, "password_file")
    plugin = any(name in _PLUGINS for name, _, _ in configuration.lines)
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
    acl = configuration.file(configuration.of(listener, "acl_file"))
    if acl and os.path.isfile(acl):
        out += _acl(acl, identity or passwords)
    for option in ("acl_file", "password_file"):
        path = configuration.file(configuration.of(listener, option))
        if path and os.path.isfile(path):
            out += _permission(configuration, path, 45) + _link(path, option)
            if option == "password_file":
                out += _passwords(path)
    return out


def _link(path, option):
    """Return the finding about a file behind a symbolic link, as in a volume of Kubernetes."""
    if not os.path.islink(path):
        return []
    fact = f"{option} {path} is a symbolic link"
    cause = "mosquitto 2.1 does not start with that, 2.0 does"
    cure = f"{option} {os.path.realpath(path)}; or start it with "
    cure += "MOSQUITTO_UNSAFE_ALLOW_SYMLINKS=1 in its environment"
    return [remark(58, fact, cause=cause, cure=cure)]


_HASHES = ("$6$", "$7$", "$argon2id$")  # the last is of 2.1


def _passwords(path):
    def wrong(fact, cause, cure, level="problem"):
        return [problem(36, fact, stage=_HERE, cause=cause, cure=cure, level=level)]

    try:
        text = reading.read(path, _HERE).decode("utf-8", "replace")
    except reading.Unreadable:
        text = ""
    anew = shell("mosquitto_passwd", path, "NAME")
    if text[:1] == "\ufeff" or "\0" in text:
        how = "in UTF-16" if "\0" in text else "with a byte order mark"
        cause = "mosquitto takes that for a part of the first user's name, or of all"
        return wrong(f"{path} is text {how}", cause, f"save it as UTF-8 without BOM; or {anew}")
    lines = [each.partition(":") for each in text.splitlines() if not each.startswith("#")]
    words = [word for _, colon, word in lines if colon]
    if any(not each.startswith("$") for each in words):
        cause = "that user's password is always wrong, and mosquitto 2.1 does not start"
        cure = shell("mosquitto_passwd", "-U", path)
        return wrong(f"{path} has a password that is not hashed", cause, cure)
    if any(not each.startswith(_HASHES) for each in words):
        fact = f"{path} has a password hashed in a way that mosquitto does not know"
        cause = "2.0 leaves that user out, 2.1 does not start; htpasswd and mkpasswd write such"
        return wrong(fact, cause, anew)
    if not words:
        return wrong(f"{path} has no user in it", "whoever gives a user name is refused", anew)
    if any(each.startswith(_HASHES[-1]) for each in words):
        fact = f"{path} has passwords hashed by mosquitto 2.1"
        cause = "mosquitto 2.0 leaves such users out"
        return wrong(fact, cause, f"with 2.0: {anew}", "remark")
    return []


def _is_filter(topic):
    levels = topic.split("/")
    alone = all(each in ("+", "#") or not set(each) & set("+#") for each in levels)
    return alone and "#" not in levels[:-1]


_ACCESS = ("read", "write", "readwrite", "deny")


def _acl(path, named):
    try:
        lines = reading.read(path, _HERE).decode("utf-8", "replace").splitlines()
    except reading.Unreadable as error:
        if os.path.getsize(path):
            return [error.finding]
        lines = []
    rules = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    out = []
    for each in rules:
        line = " ".join(each)
        if each[0] not in ("topic", "pattern", "user"):
            fact = f"{path}: mosquitto does not know the line {line[:60]!r}"
            out.append(problem(57, fact, cure="lines begin with user, topic, pattern, or #"))
        elif each[0] == "topic" and ("%u" in each[-1] or "%c" in each[-1]):
            cure = f"{' '.join(['pattern', *each[1:]])}, before the first line with `user`"
            out.append(problem(61, f"{path}: {line[:80]!r}", cure=cure))
        elif each[0] != "user" and not _is_filter(each[-1]):
            fact = f"{path}: {each[-1][:60]!r} is no topic filter"
            out.append(problem(57, fact, cure="+ and # stand alone between slashes, # last"))
        elif len(each) > 2 and each[0] != "user" and each[1] not in _ACCESS:
            fact = f"{path}: {each[1]!r} in {line[:60]!r} is no kind of access"
            out.append(problem(57, fact, cure="read, write, readwrite or deny"))
    if out:
        return out
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
    if "certfile" not in options:
        fact = f"port {listener.port} has TLS by pre-shared keys (psk_hint), without a certificate"
        cure = "certfile and keyfile, in a listener of its own"
        cause = "mqtt_as_tls checks the broker by its certificate"
        return [problem(10, fact, stage=_HERE, cause=cause, cure=cure)], files
    certfile = configuration.file(options["certfile"]) if "certfile" in options else ""
    keyfile = configuration.file(options["keyfile"]) if "keyfile" in options else ""
    if not keyfile:
        fact = f"port {listener.port} has certfile without keyfile"
        cause = "up to 2.0.20 that is a plain listener, and later ones do not start"
        return [problem(39, fact, cause=cause, cure="keyfile PATH")], files
    for option in ("certfile", "cafile"):
        path = configuration.file(options.get(option, ""))
        if path and os.path.exists(path):  # else that was told
            try:
                _must_be_pem(path, option)
                loaded = reading.load_all(path, _HERE)
                if option == "certfile":
                    files.chain = loaded
                else:
                    files.authorities = loaded
            except reading.Unreadable as error:
                out.append(error.finding)
            out += _permission(configuration, path, 45)
    if os.path.exists(keyfile):
        out += _key(configuration, keyfile, files.chain)
    if files.chain:
        files.known = _beside(certfile) + files.authorities
        leaf = files.chain[0]
        misplaced = reading.is_ca(leaf) and len(files.chain) > 1
        if misplaced:
            # all else that is wrong with it as the broker's own follows from that
            out = [each for each in out if "does not belong to the certificate" not in each.fact]
            fact = f"{certfile} begins with the CA {reading.name_of(leaf)}"
            cure = "put the broker's own certificate first, those of CAs after it"
            cause = "the first certificate is the one that the broker shows"
            out.append(problem(39, fact, cause=cause, cure=cure))
            leaf = next((each for each in files.chain if not reading.is_ca(each)), leaf)
            files.chain = [leaf, *(each for each in files.chain if each is not leaf)]
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
    if listener.is_on("require_certificate"):
        roots = clients.rootless(files.authorities)
        for each in roots[:3]:
            fact = (
                f"the cafile of port {listener.port} holds {reading.name_of(each)}, but not the "
            )
            fact += f"CA above it, {reading.issuer_of(each)}"
            cure = clients.root_to_cafile(reading.issuer_of(each))
            out.append(problem(53, fact, stage=_HERE, cure=cure))
    out += _folder_of_cas(configuration, listener) + _parameters(configuration, options)
    crlfile = configuration.file(options.get("crlfile", ""))
    if crlfile and os.path.exists(crlfile):
        try:
            files.crls, more = clients.crl(crlfile, files.authorities, when, _HERE)
            out += more
        except reading.Unreadable as error:
            out.append(error.finding)
    return out, files


def _folder_of_cas(configuration, listener):
    """Return the findings about a capath in which OpenSSL finds nothing."""
    path = listener.options.get("capath")
    if not path or configuration.is_copy or not os.path.isdir(path):
        return []
    if any(re.fullmatch(r"[0-9a-f]{8}\.\d+", each) for each in os.listdir(path)):
        return []
    fact = f"capath {path} has no certificate under the name of its hash"
    cause = "OpenSSL looks for files such as 9d66eef0.0 in it, so no client's CA is found"
    level = "problem" if "cafile" not in listener.options else "remark"
    cure = shell("openssl", "rehash", path)
    return [problem(25, fact, stage=_HERE, cause=cause, cure=cure, level=level)]


def _parameters(configuration, options):
    """Return the findings about a dhparamfile that holds something else."""
    path = configuration.file(options.get("dhparamfile", ""))
    if not path or not os.path.exists(path):
        return []
    with contextlib.suppress(reading.Unreadable):
        if b"-----BEGIN DH PARAMETERS-----" not in reading.read(path, _HERE):
            fact = f"dhparamfile {path} holds no DH parameters"
            cause = "mosquitto 2.0 does not start with that"
            cure = "drop that line: boards do without"
            return [problem(39, fact, cause=cause, cure=cure)]
    return []


def _must_be_pem(path, option):
    data = reading.read(path, _HERE)
    if reading.is_pem(data):
        return
    other = reading.another_kind(path, data, _HERE)
    if other and "a certificate" not in other.finding.fact:
        raise other
    fact, cause = f"{option} {path} is not PEM", "mosquitto reads PEM only"
    raise reading.Unreadable(problem(39, fact, cause=cause, cure=_to_pem("x509", path)))


def _key(configuration, path, chain):
    try:
        data = reading.read(path, _HERE)
        if not reading.is_pem(data):
            other = reading.another_kind(path, data, _HERE)
            if other and "a private key" not in other.finding.fact:
                return [other.finding]
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
    return out + _permission(configuration, path, 39)


def _to_pem(kind, path):
    pem = Path(path).with_suffix(".pem")
    return shell("openssl", kind, "-inform", "DER", "-in", path, "-out", pem)


def _permission(configuration, path, row):
    """
    Return the findings about a file that mosquitto may not read as the user that it becomes.

    row  39 for its key, 45 for others
    """
    try:
        import pwd
    except ImportError:  # Windows
        return []
    user = configuration.options.get("user", "mosquitto")
    if any(value.startswith("/mosquitto/") for _, value, _ in configuration.paths()):
        user, uid, groups = "mosquitto (1883) of the container", _DOCKER_UID, {_DOCKER_UID}
        first = configuration.path.parent.resolve()
    else:
        if configuration.is_copy:
            return []
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            return []
        uid, groups = account.pw_uid, set(os.getgrouplist(user, account.pw_gid))
        first = None
    if uid == 0:
        return []
    found = _unreadable(Path(path).resolve(), uid, groups, first)
    if found is None:
        return []
    where, state = found
    fact = f"the user {user} may not read {path}"
    if where != Path(path).resolve():
        fact += f": the folder {where} is closed to it"
    cause = f"a broker that the system starts runs as {user} and cannot load "
    cause += "its key" if row == 39 else "it"
    cure = shell("chown", user.split(" ")[0] if first is None else str(_DOCKER_UID), where)
    if "letsencrypt" in str(path):
        into = configuration.path.parent / "certs"
        cure = (
            f"copy certificate and key to {into} at each renewal (certbot --deploy-hook), owned "
        )
        cure += f"by {user}; the folders of letsencrypt stay closed"
    mine = getattr(os, "geteuid", lambda: 0)()
    kind = remark if mine and state.st_uid == mine else problem
    return [kind(row, fact, stage=_HERE, cause=cause, cure=cure)]


def _unreadable(path, uid, groups, first):
    """
    Return (path, stat) of the first folder, or the file, on the way to `path` that a user may not
    go through; None where he may read it.

    first  folder from which on it counts; None: from / on
    """
    for each in (*reversed(path.parents), path):
        if first is not None and each != first and first not in each.parents:
            continue
        try:
            state = os.stat(each)
        except OSError:
            return None
        bits = (stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH)
        if each == path:
            bits = (stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH)
        own = 0 if state.st_uid == uid else 1 if state.st_gid in groups else 2
        if not state.st_mode & bits[own]:
            return each, state
    return None


def _beside(path, most=50):
    # Certificates in the folder of `path`, quietly.
    out = []
    with contextlib.suppress(OSError):
        names = sorted(Path(path).parent.iterdir())[:500]
        names = [each for each in names if each.suffix in (".crt", ".pem", ".cer")][:most]
        for each in names:
            with contextlib.suppress(reading.Unreadable, ValueError):
                out += reading.load_all(each)
    return out
