"""
A broker that is somebody else's: whom boards trust there, and who they are. Nothing is issued;
what a device is given is what its owner got.

    mqtt-pki/
      settings.json           as for a broker of one's own, and "foreign"
      ca.crt                  whom boards trust; not there without TLS
      login.json login.crt login.key
                              who they are, unless a device has its own: user and password, or a
                              certificate with its chain
      devices/NAME/           as for a broker of one's own
"""

import dataclasses
import getpass
import sys

from . import board_files, certificates, convert, device_csv, passphrase
from .authority import DAYS, expired, is_due
from .deployment import Deployment
from .doctor import clients, lint, reading
from .files import SETTINGS, batches, read_json
from .messages import Failure, Usage, command
from .names import parse_host
from .screen import printable

_LOGIN, _CERT, _KEY = "login.json", "login.crt", "login.key"
_SHAPE = {
    "foreign": {"tls": bool, "name": (str, type(None)), "pinned": bool},
}
_OWN = "own_fields"  # in tls.json: what of its login is not that of all devices
_CAS = ["ca.der", "ca2.der", "ca3.der"]
MOST_TRUSTED = len(_CAS)
_FIELDS = ("user", "password", "client_id", "home")
_LONGEST = 65535  # bytes of a string of MQTT (3.1.1 section 1.5.3)
_TRIES = 3
_SOON_DAYS = 30
_NOT_HERE = {
    "init": (
        "there is no authority in this folder",
        "make one in another folder: mqttls init --broker NAME --dir OTHER",
    ),
    "broker-conf": (
        "its configuration is its owner's",
        "ask who runs it; mqttls use HOST says anew how boards reach it",
    ),
    "renew": (
        "a certificate is renewed by who issued it",
        "then give it to all boards with: mqttls use HOST --cert FILE --key FILE; or to one with: "
        "mqttls device add NAME --cert FILE --key FILE",
    ),
    "revoke": (
        "only who runs it can shut a device out",
        "have its user or its certificate taken away there, then delete its folder in devices/",
    ),
}


def is_foreign(directory):
    """Tell whether a files.Directory is for somebody else's broker."""
    return "foreign" in directory.settings


def own(directory, verb):
    """
    Return the Deployment of a files.Directory.

    Raises Failure where the broker is somebody else's, and the command `verb` has no meaning.
    """
    if not is_foreign(directory):
        return Deployment(directory)
    why, cure = _NOT_HERE[verb]
    host = directory.settings["names"][0]
    raise Failure(f"{host} is somebody else's broker: {why}", cure, stage="files")


def opened(directory):
    """Return the Foreign or the Deployment of a files.Directory."""
    return (Foreign if is_foreign(directory) else Deployment)(directory)


# Who a board is


@dataclasses.dataclass
class Login:
    """
    Who a board is at the broker.

    user, password  str, or None
    identity        convert.Identity, or None
    client_id       str; None: the device's name
    home            str, what its topics begin with; None: devices/NAME/
    """

    user: str = None
    password: str = None
    identity: convert.Identity = None
    client_id: str = None
    home: str = None

    def over(self, old):
        """Return the Login that has of `old` (Login) what this one leaves open."""
        kept = {each: getattr(self, each) or getattr(old, each) for each in ("client_id", "home")}
        who = self if self.is_somebody else old
        return Login(who.user, who.password, who.identity, **kept)

    @property
    def is_somebody(self):
        """Whether it has a user or a certificate."""
        return self.user is not None or self.identity is not None

    def said(self):
        """Return it in words, without what is secret."""
        out = []
        if self.user is not None:
            out.append(f"user {self.user}")
        if self.identity:
            end = self.identity.certificate.not_valid_after_utc
            out.append(f"certificate of {reading.name_of(self.identity.certificate)}")
            out.append(f"until {end:%Y-%m-%d}")
        return ", ".join(out) or "no user and no certificate"


class Secret:
    """
    Tells passphrases, for convert.load: the first line of the file `path`, or as typed where that
    is None.
    """

    def __init__(self, path):
        self.path = path
        self.tries = 1 if path or not sys.stdin.isatty() else _TRIES

    def __call__(self, name, is_again=False):
        if self.path:
            return passphrase.first_line(self.path)
        if not sys.stdin.isatty():
            raise Failure(
                f"{name} is encrypted, and there is no terminal to ask for its passphrase on",
                "write it into a file that only you can read: --passphrase-file FILE",
                stage="files",
            )
        wrong = "that was wrong; " if is_again else ""
        return getpass.getpass(f"{wrong}passphrase of {printable(str(name))}: ").encode()


def login(arguments):
    """
    Return what arguments.add_login takes: (Login, [(file, certificates of CAs that it has)]).

    The password is not in it: see with_password. Raises Usage for what does not go together,
    Failure for files and passphrases.
    """
    if bool(arguments.cert) + bool(arguments.pfx) + bool(arguments.aws) > 1:
        raise Usage("--cert, --pfx and --aws are three ways to give one certificate: give one")
    if arguments.key and not arguments.cert:
        raise Usage("--key belongs to --cert FILE")
    if arguments.password_file and arguments.user is None:
        raise Usage("--password-file needs --user")
    if arguments.user is not None and not arguments.password_file and not sys.stdin.isatty():
        passphrase.password(arguments.user)  # Usage, before anything is looked at
    user = _text("--user", arguments.user)
    client_id, home = _text("--client-id", arguments.client_id), _home(arguments.home)
    secret, identity, others = Secret(arguments.passphrase_file), None, []
    if arguments.cert:
        held = convert.load(arguments.cert, secret)
        where = str(arguments.cert)
        if arguments.key and arguments.key != arguments.cert:
            held.add(convert.load(arguments.key, secret))
            where += f" and {arguments.key}"
        identity = convert.identity(held, where)
    elif arguments.pfx:
        held = convert.load(arguments.pfx, secret)
        identity = convert.identity(held, str(arguments.pfx))
        others = [(str(arguments.pfx), held.certificates)]
    elif arguments.aws:
        identity, others = _of_aws(arguments.aws, secret)
    return Login(user, None, identity, client_id, home), others


def with_password(who, arguments):
    """Return a Login (`who`) with the password of its user; Usage, Failure, OSError."""
    if who.user is None:
        return who
    password = passphrase.password(who.user, arguments.password_file)
    return dataclasses.replace(who, password=password)


def _of_aws(folder, secret):
    """Return (Identity, [(file, CAs in it)]) of what AWS IoT let somebody download."""
    held, roots = convert.Parts(), []
    for path, more in convert.load_folder(folder, secret):
        found = more.take_out(reading.says_ca)
        if found:
            roots.append((path, found))
        held.add(more)
    if not held.certificates and not held.keys:
        raise convert.wrong(
            f"{folder} holds neither certificates nor keys",
            "put what AWS IoT let you download into it: …-certificate.pem.crt, "
            "…-private.pem.key, AmazonRootCA1.pem",
        )
    return convert.identity(held, f"the files in {folder}"), roots


def _text(option, value):
    if value is None:
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _LONGEST or not value.isprintable():
        raise Usage(f"{option} has 1 to 65535 bytes of UTF-8 that can be printed")
    return value


def _home(value):
    if value is None:
        return None
    if not value or not value.isprintable() or len(value.encode(errors="replace")) > 256:
        raise Usage("--home has 1 to 256 bytes that can be printed, such as garden/")
    if "+" in value or "#" in value:
        raise Usage(f"--home {value}: topics begin with it, so without + and #")
    return value if value.endswith("/") else value + "/"


def checked(who, report):
    """
    Return a Login (`who`) as boards can have it: without a chain that they cannot send. Say what
    is odd about it; raise Failure where no board can use its certificate.
    """
    identity = who.identity
    if identity is None:
        return who
    whose = f"the certificate of {reading.name_of(identity.certificate)}"
    problems = lint.form(identity.certificate, whose)
    problems += [
        each for each in lint.dates(identity.certificate, whose) if each.level == "problem"
    ]
    if problems:
        raise Failure(
            problems[0].fact,
            "have another one issued: for a P-256 key, with SHA-256",
            stage=problems[0].stage,
        )
    key = reading.Key(identity.key, "SEC1", pem=False)
    found = clients.judge(identity.certificate, key, chain=identity.chain)
    size = [each for each in found if each.row == 32]
    if size and identity.chain:
        report.note(
            f"{size[0].fact}: the CAs above it are left out, and the broker must know them"
        )
        identity = dataclasses.replace(identity, chain=[])
        found = clients.judge(identity.certificate, key)
        size = [each for each in found if each.row == 32]
    if size:
        raise Failure(size[0].fact, size[0].cure, stage=size[0].stage)
    for each in [*found, *lint.device_key(key, "the key")]:
        if each.row in (25, 40):
            report.note("; ".join(filter(None, (each.fact, each.cure))))
    return dataclasses.replace(who, identity=identity)


# The folder


class Foreign(Deployment):
    """
    Somebody else's broker and the boards that use it: see Deployment.

    broker  dict: tls, name (server_hostname or None), pinned
    host    str, as boards dial it
    """

    def __init__(self, directory, settings=None):
        if settings is None:
            found = read_json(directory.path / SETTINGS, _SHAPE)["foreign"]
            if found["name"] is not None:
                parse_host(found["name"])  # Failure
        super().__init__(directory, settings)
        self.broker, self.host = self.settings["foreign"], self.settings["names"][0]

    @classmethod
    def new(cls, directory, host, port, name, tls):
        """Return one with nothing in it but how the broker is reached."""
        broker = {"tls": tls, "name": name, "pinned": False}
        settings = {
            "version": 1,
            "names": [host],
            "port": port,
            "bind": None,
            "key": "p256",
            "server_only": False,
            "docker": False,
            "admins": [],
            "days": DAYS,
            "foreign": broker,
        }
        return cls(directory, settings)

    @property
    def trusted(self):
        """The certificates that boards trust (list); [] without TLS."""
        path = self.path / "ca.crt"
        return certificates.load_all(path) if self.broker["tls"] and path.exists() else []

    def login(self):
        """Return the Login of devices that have none of their own."""
        path = self.path / _LOGIN
        found = read_json(path) if path.exists() else {}
        identity = self._identity(self.path / _CERT, self.path / _KEY)
        return Login(identity=identity, **{each: found.get(each) for each in _FIELDS})

    def _identity(self, cert, key):
        if not cert.exists():
            return None
        first, *chain = certificates.load_all(cert)
        pair = certificates.load_identity(cert, key)
        return convert.Identity(first, pair.key, chain)

    def put(self, change, trusted, who):
        """
        Write all of it: settings, whom boards trust, who they are, and every device anew.

        trusted  list of x509.Certificate; [] without TLS
        who      Login
        """
        self.set(server_only=who.identity is None)
        self.put_settings(change)
        change.put_json(_LOGIN, {each: getattr(who, each) for each in _FIELDS})
        self._put_or_remove(change, "ca.crt", trusted and certificates.cert_pem(*trusted))
        pair = who.identity
        self._put_or_remove(change, _CERT, pair and pair.cert_pem)
        self._put_or_remove(change, _KEY, pair and certificates.key_pem(pair.key))
        for name in self.directory.devices():
            self.put_foreign_device(change, name, who, trusted)

    def _put_or_remove(self, change, path, data):
        if data:
            change.put(path, data)
        else:
            change.remove(path)

    def put_foreign_device(self, change, name, who, trusted, *, own=None, host=None, port=None):
        """
        Make a device, or make it anew: what it trusts, and who it is.

        who         Login of all devices
        own         Login with what is its own from now on, or None; what was so before stays
        host, port  of the broker as this device knows it; those of the settings when None
        """
        folder, own = f"devices/{name}", own or Login()
        before = self.device_settings(name)
        told = {key: before[key] for key in ("own_host", "own_port") if key in before}
        told.update({f"own_{key}": each for key, each in (("host", host), ("port", port)) if each})
        host = told.get("own_host", self.host)
        settings = {
            "device": name,
            "host": host,
            "port": told.get("own_port", self.settings["port"]),
            "ca": _CAS[: len(trusted)],
        }
        for file, each in zip(settings["ca"], trusted, strict=True):
            change.put(f"{folder}/{file}", certificates.cert_der(each))
        for file in _CAS[len(trusted) :]:
            change.remove(f"{folder}/{file}")
        pem = trusted and certificates.cert_pem(*trusted)
        self._put_or_remove(change, f"{folder}/ca.crt", pem)
        if self.broker["tls"]:
            settings["server_hostname"] = self.broker["name"] or host
        else:
            settings["tls"] = False
        fields = set(before.get(_OWN) or ())
        for field, default in (("client_id", name), ("home", f"devices/{name}/")):
            given, kept = getattr(own, field), before.get(field) if field in fields else None
            settings[field] = given or kept or getattr(who, field) or default
            if given:
                fields.add(field)
        if own.is_somebody:
            fields.add("login")
        if own.is_somebody or "login" not in fields:
            self._put_who(change, folder, own if own.is_somebody else who, settings)
        else:
            kept = ("user", "password", "cert", "key")
            settings.update({key: before[key] for key in kept if key in before})
        if fields:
            settings[_OWN] = sorted(fields)
        change.put_json(f"{folder}/tls.json", {**settings, **told})
        change.put(f"{folder}/config.py", board_files.config_on_pc())

    def _put_who(self, change, folder, who, settings):
        if who.user is not None:
            settings["user"], settings["password"] = who.user, who.password
        pair = who.identity
        if pair:
            settings["cert"], settings["key"] = "cert.der", "key.der"
        files = {
            "cert.crt": pair and pair.cert_pem,
            "cert.der": pair and pair.cert_der,
            "key.der": pair and certificates.key_der(pair.key),
            "key.pem": pair and certificates.key_pem(pair.key),
        }
        for file, data in files.items():
            self._put_or_remove(change, f"{folder}/{file}", data)

    # What Deployment says of devices

    def proof(self, name):
        found = self.device_settings(name)
        if found.get("cert"):
            return "certificate"
        return "password" if found.get("user") is not None else "no login"

    def cure_of_end(self, name):
        return (
            "have another one issued, then: "
            f"{command('device', 'add', name, '--cert', 'FILE', '--key', 'FILE')}"
        )

    def cure_of_loss(self, name):
        return "have its user or its certificate taken away by who runs the broker"

    def device_certificate(self, name):
        path = self.directory.device(name) / "cert.crt"
        return certificates.load(path) if path.exists() else None

    def device_problem(self, name):
        folder = self.directory.device(name)
        try:
            settings = read_json(folder / "tls.json")
            if self.broker["tls"] and not settings.get("ca"):
                return "its tls.json names no CA"
            if not settings.get("cert"):
                return ""
            found = self._identity(folder / "cert.crt", folder / "key.der")
            if found is None:
                return f"{folder}/cert.crt is missing"
            if (folder / "cert.der").read_bytes() != found.cert_der:
                return f"{folder}/cert.der is not what cert.crt is"
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except Failure as failure:
            return failure.fact
        return expired(found.certificate)

    def board_lacks(self, name):
        board, certificate = self.board(name), self.device_certificate(name)
        if not board:
            return "not provisioned by this tool yet"
        if board.get("ca") != [certificates.serial_of(each) for each in self.trusted]:
            return "its board trusts another CA"
        if certificate is not None and board.get("cert") != certificates.serial_of(certificate):
            return "its board has another certificate"
        return ""


# The commands that a broker of one's own has, too


def add_devices(deployment, arguments, report):
    """`mqttls device add` for somebody else's broker: its devices, with a login of their own."""
    for option in ("topics", "admin", "monitor", "days"):
        if getattr(arguments, option):
            raise Usage(
                f"--{option}: at somebody else's broker that is for its owner to say; "
                "mqttls gives boards what they need to get in"
            )
    wanted = [{"name": each} for each in dict.fromkeys(arguments.names)]
    if arguments.csv:
        wanted = device_csv.read(arguments.csv, deployment.settings["names"])
        if any(one.get("topics") for one in wanted):
            raise Usage("--csv: topics are for the owner of the broker to give: leave them out")
    own = with_password(checked(login(arguments)[0], report), arguments)
    who, trusted = deployment.login(), deployment.trusted
    _refuse_same_id(deployment, [one["name"] for one in wanted], own.client_id or who.client_id)
    todo, kept = [], []
    for one in wanted:
        there = deployment.directory.device(one["name"]).is_dir()
        again = own != Login() or one.get("host") or one.get("port")
        why = deployment.device_problem(one["name"]) if there else "new"
        (todo if why or again else kept).append(one)
    for some in batches(todo):
        with deployment.directory.change() as change:
            for one in some:
                host, port = one.get("host"), one.get("port")
                deployment.put_foreign_device(
                    change, one["name"], who, trusted, own=own, host=host, port=port
                )
    names = [one["name"] for one in todo]
    said = (own if own.is_somebody else who).said()
    _tell_added(deployment, names, [one["name"] for one in kept], said, report)
    return report.status


def _refuse_same_id(deployment, names, client_id):
    """Two clients with one id throw each other out, for ever."""
    if not client_id:
        return
    others = [each for each in deployment.directory.devices() if each not in names]
    same = [
        each for each in others if deployment.device_settings(each).get("client_id") == client_id
    ]
    if same or len(names) > 1:
        raise Failure(
            f"{(same or names)[0]} has the client id {client_id!r}: two with one throw each "
            "other out",
            "add devices one by one, each with its own --client-id ID",
            stage="files",
        )


def _tell_added(deployment, todo, kept, said, report):
    folder = deployment.path / "devices"
    for name in todo[:10]:
        report.made(folder / name, said)
    if len(todo) > 10:
        report.say(f"… and {len(todo) - 10} more: {len(todo)} devices in all")
        report.made_too(folder / each for each in todo[10:])
    if kept:
        shown = ", ".join(kept[:5]) + (", …" if len(kept) > 5 else "")
        report.say(f"{len(kept)} there already, left as they are: {shown}")
    report.data.update(added=todo, kept=kept)
    first = (todo + kept)[0]
    client_id = deployment.device_settings(first).get("client_id")
    if client_id in (None, first):
        report.next(command("doctor", "--device", first), "does it connect?")
    else:  # the broker may know this one alone, and not that of the doctor
        line = command("doctor", "--device", first, "--client-id", client_id)
        report.next(line, "does it connect? While the board is off")
    report.next(command("provision", first), "puts it on the board")


def tell(deployment, report):
    """Say how boards reach the broker, and whom they trust, for `mqttls status`."""
    broker = deployment.broker
    how = "TLS" if broker["tls"] else "no TLS: everybody in the network can read all"
    report.say(
        f"broker     {deployment.host}, port {deployment.settings['port']}, somebody else's, {how}"
    )
    if broker["name"]:
        report.say(f"           its certificate must be for {broker['name']}")
    found = []
    for each in deployment.trusted:
        end, name = each.not_valid_after_utc, reading.name_of(each)
        kind = "its own certificate" if broker["pinned"] else name
        report.say(f"           boards trust {kind}, until {end:%Y-%m-%d}")
        found.append({**certificates.facts(each), "name": name})
        if is_due(each, _SOON_DAYS):
            report.problem(
                "dates",
                f"{name}, whom boards trust, ends on {end:%Y-%m-%d}",
                cure=f"{command('use', deployment.host)}, then {command('provision', 'NAME')}",
            )
    report.say(f"login      {deployment.login().said()}")
    report.data["broker"] = {
        "names": [deployment.host],
        "port": deployment.settings["port"],
        "foreign": True,
        "tls": broker["tls"],
        "trusted": found,
    }
