"""`mqttls use`: a folder for the boards of a broker that is somebody else's."""

import re
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import AuthorityInformationAccessOID

from .. import certificates, convert, foreign
from ..arguments import add_login, host_port, server_name
from ..doctor import chain, lint, outside, peek, reading, roots
from ..doctor.attempt import Target
from ..files import SETTINGS, Directory
from ..messages import Failure, Usage, command, shell
from ..names import parse_host

NAME = "use"
SUMMARY = "a broker that is somebody else's: whom boards trust there, and who they are"

_TLS_PORT, _PLAIN_PORT = 8883, 1883
_TIMEOUT_S = 10
_AMAZON = "https://www.amazontrust.com/repository/"


def add(parser):
    parser.add_argument("target", metavar="HOST[:PORT]", help="the broker, as boards dial it")
    parser.add_argument(
        "--name", metavar="NAME", help="the name in its certificate, where that is not HOST"
    )
    parser.add_argument(
        "--moved",
        action="store_true",
        help="it is the broker of this folder, under another name, address or port",
    )
    trust = parser.add_argument_group("whom boards trust (it is found where you give neither)")
    trust.add_argument(
        "--ca",
        action="append",
        metavar="FILE",
        help="the CA of its certificate, in any form; give it again for the next one, which the "
        "broker is going to have",
    )
    trust.add_argument(
        "--pin",
        metavar="SHA256",
        help="a broker that signed its certificate itself: the fingerprint that its owner sees",
    )
    trust.add_argument(
        "--no-tls",
        action="store_true",
        help=f"it has no TLS (port {_PLAIN_PORT}): who is in its network reads all",
    )
    add_login(parser)


def run(arguments, report):
    host, port = host_port(arguments.target)
    if arguments.no_tls:
        given = (arguments.name, arguments.ca, arguments.pin, arguments.cert, arguments.pfx)
        if any((*given, arguments.aws)):
            raise Usage("--no-tls: without TLS there are no certificates and no name in them")
    target = Target(
        host,
        port or (_PLAIN_PORT if arguments.no_tls else _TLS_PORT),
        arguments.name and server_name(arguments.name),
        tls=not arguments.no_tls,
    )
    fingerprint = arguments.pin and _fingerprint_in(arguments.pin)
    with Directory.opened(arguments.dir, create=True) as directory:
        if directory.exposed:
            report.note(
                f"others may be able to read the keys in {directory.path}: {directory.exposed}; "
                "keep it in a folder of your own"
            )
        before = _before(directory, target, arguments.moved)
        who, others = foreign.login(arguments)
        who = foreign.checked(who, report)
        trust = _Trust(target, fingerprint, report)
        trust.look()
        if target.tls:
            given = _given(arguments, others)
            trust.settle(given, bool(arguments.ca), before.trusted if before else [])
        who = foreign.with_password(who, arguments)
        who = who.over(before.login() if before else foreign.Login())
        _write(directory, target, trust, who, report)
    report.next(command("device", "add", "NAME"), "for each board")
    return report.status


def _fingerprint_in(text):
    """Return 64 hexadecimal digits of what openssl, browsers and we print as a fingerprint."""
    bare = re.sub(r"[\s:]", "", text.rpartition("=")[2]).lower()
    bare = bare.removeprefix("sha256")
    if not re.fullmatch("[0-9a-f]{64}", bare):
        raise Usage(
            "--pin takes the SHA-256 fingerprint of a certificate: 64 hexadecimal digits, with "
            "colons between or without"
        )
    return bare


def _before(directory, target, has_moved):
    """Return the foreign.Foreign that the folder was before for the same broker, or None."""
    if not (directory.path / SETTINGS).exists():
        return None
    if not foreign.is_foreign(directory):
        raise Failure(
            f"{directory.path} has an authority of its own, for a broker of yours",
            "give somebody else's a folder of its own: --dir FOLDER",
            stage="files",
        )
    found = foreign.Foreign(directory)
    if has_moved or found.host == target.host:
        return found
    devices = directory.devices()
    if devices:
        some = ", ".join(devices[:3]) + (", …" if len(devices) > 3 else "")
        raise Failure(
            f"{directory.path} is for {found.host}, with {some}",
            "give another broker a folder of its own: --dir FOLDER; if it is the same one under "
            "another name: --moved",
            stage="files",
        )
    return None


def _given(arguments, others):
    """Return [(where, certificates)] that came with the command."""
    found = []
    for path in arguments.ca or ():
        held = convert.load(path, foreign.Secret(arguments.passphrase_file))
        if not held.certificates:
            raise convert.wrong(
                f"{path} has no certificate, but {held.said()}", "name the file of the CA"
            )
        found.append((str(path), held.certificates))
    return found or others


def _write(directory, target, trust, who, report):
    settings = foreign.Foreign.new(
        directory, target.host, target.port, target.server_hostname, target.tls
    )
    settings.broker["pinned"] = trust.pinned
    with directory.change() as change:
        settings.put(change, trust.trusted, who)
    path = directory.path
    if trust.trusted:
        names = ", ".join(map(reading.name_of, trust.trusted))
        end = min(each.not_valid_after_utc for each in trust.trusted)
        what = "the broker's own certificate" if trust.pinned else names
        report.made(path / "ca.crt", f"whom boards trust: {what}, until {end:%Y-%m-%d}")
    report.made(path / SETTINGS, f"{target.host} port {target.port}")
    report.made(path / "login.json", f"who they are: {who.said()}")
    if not who.is_somebody and trust.wants_certificate:
        report.note(
            "the broker asks boards for a certificate: give it with --cert and --key, or --pfx"
        )
    elif not who.is_somebody:
        report.note("boards have no user and no certificate there: --user, or --cert and --key")
    report.data.update(
        host=target.host,
        port=target.port,
        tls=target.tls,
        pinned=trust.pinned,
        trusted=[
            {"name": reading.name_of(each), **_fingerprint_of(each)} for each in trust.trusted
        ],
        login=who.said(),
    )
    for name in settings.boards():
        report.next(command("provision", name), "it has new settings")


def _fingerprint_of(certificate):
    return {"sha256": certificate.fingerprint(hashes.SHA256()).hex()}


def _shown(certificate):
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


class _Trust:
    """
    Whom boards trust, as it is found.

    trusted            list of x509.Certificate
    pinned             whether that is the broker's own certificate
    wants_certificate  whether the broker asks boards for one
    """

    def __init__(self, target, fingerprint, report):
        self.target, self.fingerprint, self.report = target, fingerprint, report
        self.trusted, self.pinned = [], False
        self.answer, self.unseen = None, ""
        self.where = f"{target.host}:{target.port}"

    @property
    def wants_certificate(self):
        return bool(self.answer and self.answer.wants_certificate)

    def again(self, *words):
        """Return this command with other words, for messages."""
        name = ("--name", self.target.server_hostname) if self.target.server_hostname else ()
        return command("use", self.where, *name, *words)

    def look(self):
        """Look at the broker; raise Failure where no board could talk to it."""
        target, report = self.target, self.report
        looked = outside.Look(target, _TIMEOUT_S)
        self.answer = looked.answer
        for each in looked.findings:
            if (each.row, each.level) == (1, "remark"):
                report.note(f"{each.fact}: {each.cause}; {each.cure}")
        if not target.tls:
            self._look_without_tls(looked)
            return
        if looked.answer is not None:
            report.say(f"{target.host} port {target.port}: {looked.stages['TLS'][1]}")
            found = None if looked.answer.wants_certificate else looked.without_ca()
            if found and found.row in (50, 51):
                raise Failure(found.fact, found.cure, cause=found.cause, stage=found.stage)
            if found:
                report.note(f"{found.fact}: {found.cause}")
            return
        finding = looked.findings[-1]
        if finding.stage in ("resolve", "connect"):
            self.unseen = finding.fact
            return
        cure = finding.cure
        if finding.row == 3:
            cure += f"; or {command('use', self.where, '--no-tls')}, if everybody in the network "
            cure += "may read all, the password too"
        raise Failure(finding.fact, cure, cause=finding.cause, stage=finding.stage)

    def _look_without_tls(self, looked):
        target, report = self.target, self.report
        if looked.answer is None:
            report.note(f"{looked.findings[-1].fact}: it was not looked at")
        elif not peek.speaks_mqtt(target.host, target.port):
            raise Failure(
                f"{target.host} port {target.port} does not answer MQTT without TLS",
                f"is it a port with TLS? {command('use', self.where)}",
                stage="TLS",
            )
        report.note(
            "without TLS everybody in the network can read and change all that boards send, "
            "passwords too: for a network of your own only"
        )

    def settle(self, given, exclusive, before):
        """
        Find whom boards must trust; raise Failure where that is not known, or not enough.

        given      [(where, certificates)] that came with the command
        exclusive  bool: nobody else is to be trusted
        before     those that boards of this folder trust
        """
        if self.unseen:
            self._settle_unseen(given, before)
            return
        sent = self._sent()
        self._check_leaf(sent[0])
        for each in sent:
            key = reading.public_key(each)
            kind = reading.key_name(key) if key is not None else "unknown kind of key"
            self.report.say(f"  {reading.name_of(each)}, {kind}, until {_day(each)}")
        if self.fingerprint:
            self._pin(sent)
        else:
            places = list(given)
            if not exclusive:
                places += [("this folder already", before), *roots.stores()]
            self._take(roots.find(sent, places), sent, places, given, exclusive)
            if not exclusive and self.trusted[0] in before:
                self.trusted = list(before)  # with the one that is to come
        self.pinned = sent[0] in self.trusted
        if exclusive:
            self._add_next(given)
        for each in chain.judge(sent, self.trusted):
            if each.level == "problem":
                raise Failure(each.fact, _of_others(each.cure), cause=each.cause, stage="chain")

    def _take(self, found, sent, places, given, exclusive):
        if found.root is not None:
            self.report.say(f"{roots.sentence(found)}: taken")
            self.trusted = [found.root]
        elif found.is_self_signed and not exclusive and not _amazon(sent):
            self._ask(found.below)
            self.trusted = [found.below]
        else:
            raise self._missing(found, sent, places, given, exclusive)

    def _add_next(self, given):
        """Have boards trust the CAs of further files, too: those that are to come."""
        for where, held in given:
            if self.trusted[0] in held:
                continue
            found = [each for each in held if reading.says_ca(each)]
            if len(found) != 1 or len(self.trusted) == foreign.MOST_TRUSTED:
                raise Failure(
                    f"{where} has {len(found)} CAs, and boards get {foreign.MOST_TRUSTED} at most",
                    "give one more CA in a file of its own, or leave it away",
                    stage="files",
                )
            self.report.say(f"{reading.name_of(found[0])}, of {where}, is trusted, too")
            self.trusted.append(found[0])

    def _sent(self):
        sent, why = [], "it sends none"
        try:
            sent = [reading.parse(each) for each in self.answer.chain]
        except ValueError as error:
            why = str(error)
        if not sent:
            raise Failure(
                f"the certificate of {self.where} cannot be read ({why})",
                "its owner must have it issued anew, with P-256 and SHA-256",
                stage="chain",
            )
        return sent

    def _check_leaf(self, leaf):
        target = self.target
        for each in lint.named(leaf, target.name):
            if each.level == "problem":
                raise Failure(each.fact, self._other_name(leaf), cause=each.cause, stage="name")
        found = lint.form(leaf, "the broker's certificate")
        found += lint.server(leaf, self.answer.cipher) + lint.dates(leaf, "its certificate")
        for each in found:
            if each.level == "problem":
                cure = _of_others(each.cure)
                raise Failure(each.fact, cure, cause=each.cause, stage=each.stage)

    def _other_name(self, leaf):
        dns, addresses = reading.alternative_names(leaf)
        names = [*dns, *addresses] or [certificates.common_name(leaf)]
        for each in names:
            try:
                name = parse_host(each)
            except Failure:  # a wildcard, or what is no name
                continue
            again = command("use", self.where, "--name", name)
            return f"dial one of its names; or, if {name} is the broker's own name: {again}"
        return "dial one of its names, or have it issued anew with this one"

    def _pin(self, sent):
        """Trust what the user gave the fingerprint of."""
        for each in sent:
            if each.fingerprint(hashes.SHA256()).hex() != self.fingerprint:
                continue
            if not roots.is_self_signed(each) and not reading.is_ca(each):
                raise Failure(
                    f"{reading.name_of(each)} is not signed by itself, and no CA",
                    f"leave --pin away; boards need the CA {reading.issuer_of(each)}",
                    stage="chain",
                )
            self.report.say(f"{reading.name_of(each)} has the fingerprint that you gave: pinned")
            self.trusted = [each]
            return
        raise Failure(
            f"{self.where} shows another certificate than that of --pin: {_shown(sent[0])}",
            "ask its owner for the fingerprint of now; if that is not this one, somebody is in "
            "between",
            stage="chain",
        )

    def _ask(self, top):
        """Have the user compare the fingerprint of a certificate that nobody else signed."""
        report, shown = self.report, _shown(top)
        name = reading.name_of(top)
        look = shell("openssl", "x509", "-in", "CERTIFICATE", "-noout", "-fingerprint", "-sha256")
        report.say(f"{name} is signed by itself: nobody else vouches for it")
        report.say(f"  SHA-256  {shown}")
        if report.as_json or not sys.stdin.isatty():
            raise Failure(
                f"whether {name} is the broker's own certificate, only its owner can tell",
                f"compare on the broker's machine: {look}; if it says {shown}: "
                f"{self.again('--pin', shown)}",
                stage="chain",
            )
        report.say(f"  on the broker's machine this shows the same: {look}")
        answer = input("Is it the same? Boards will trust it, and nothing else (y, N): ")
        if answer.strip().lower() not in ("y", "yes"):
            raise Failure(
                "nothing was pinned", "compare the two, then run this again", stage="chain"
            )

    def _on_the_way(self, sent, places):
        """Return the Failure about what is wrong on the way to a CA of `places`, or None."""
        known = [each for _, held in places for each in held]
        taken = chain.path(sent, known)
        if not taken[-1][1]:
            return None
        for each in chain.judge(sent, [taken[-1][0]]):
            if each.level == "problem":
                cure = _of_others(each.cure)
                return Failure(each.fact, cure, cause=each.cause, stage=each.stage)
        return None

    def _missing(self, found, sent, places, given, exclusive):
        """Return the Failure about a CA that nobody here has."""
        failure = self._on_the_way(sent, places)
        if failure:
            return failure
        below, issuer = reading.name_of(found.below), reading.issuer_of(found.below)
        if exclusive:
            where, held = given[0]
            if any(each == sent[0] for each in held):
                return Failure(
                    f"{where} is the broker's own certificate, which {issuer} signed",
                    f"give that of the CA {issuer}",
                    stage="chain",
                )
            for each in held:
                if each.subject == found.below.issuer and reading.signed_by(found.below, each):
                    raise self._unusable(each, sent)
            cure = f"give the CA {issuer}"
            if any(reading.same_name(each.subject, found.below.issuer) for each in held):
                cure += ": the one in the file has its name, and another key"
            elif found.below.issuer != found.below.subject:
                names = ", ".join(sorted(map(reading.name_of, held))[:3])
                cure += f"; or, if {issuer} is below {names}, its owner must have the broker send "
                cure += f"the certificate of {issuer}, too"
            if found.is_self_signed and found.below == sent[0]:
                cure = "it is signed by itself: give this certificate itself, or leave --ca away, "
                cure += "and compare its fingerprint"
            elsewhere = roots.find(sent)
            if elsewhere.root is not None:
                cure += f"; or leave --ca away: {roots.sentence(elsewhere)}"
            return Failure(
                f"{where} has not the CA that boards need: {below} is signed by {issuer}",
                cure,
                stage="chain",
            )
        amazon = _amazon(sent)
        if amazon:
            root = f"Amazon Root CA {amazon}"
            return Failure(
                f"boards need {root}, which is in no list of this system",
                f"download {_AMAZON}AmazonRootCA{amazon}.pem, then {self.again('--ca', 'FILE')}",
                stage="chain",
            )
        cure = f"ask who runs the broker for the CA {issuer}{self._url(found.below)}, then "
        cure += self.again("--ca", "FILE")
        if found.below == sent[0] and len(sent) == 1:
            cure += (
                f"; if {issuer} is no root, the broker must send its certificate, too "
                "(fullchain.pem, not cert.pem)"
            )
        return Failure(roots.sentence(found), cure, stage="chain")

    def _unusable(self, ca, sent):
        """Return the Failure about the right CA, with which boards cannot check the broker."""
        for each in (*chain.held([ca]), *chain.judge(sent, [ca])):
            if each.level == "problem":
                return Failure(each.fact, _of_others(each.cure), cause=each.cause, stage="chain")
        return Failure(
            f"boards cannot use the CA {reading.name_of(ca)}",
            "its owner must have it made anew, with P-256 and SHA-256",
            stage="chain",
        )

    def _url(self, certificate):
        """Return where a certificate says that its issuer's can be had, for messages."""
        for each in reading.extension(certificate, x509.AuthorityInformationAccess) or ():
            url = getattr(each.access_location, "value", "")
            if each.access_method == AuthorityInformationAccessOID.CA_ISSUERS and re.fullmatch(
                r"https?://[\w.~:/?%&=+-]{1,200}", str(url), re.ASCII
            ):
                return f" (its certificate says: {url})"
        return ""

    def _settle_unseen(self, given, before):
        held = [each for _, some in given for each in some]
        held = [each for each in held if reading.says_ca(each) or roots.is_self_signed(each)]
        if not held and not before:
            raise Failure(
                self.unseen,
                f"is it on, its name right? Where this PC cannot reach it: "
                f"{self.again('--ca', 'FILE')}",
                stage="connect",
            )
        if len(held) > foreign.MOST_TRUSTED:
            raise Failure(
                f"{given[0][0]} has {len(held)} CAs, and the broker cannot be asked which: "
                f"{self.unseen}",
                "give the one that boards need",
                stage="connect",
            )
        self.trusted = held or list(before)
        self.report.note(f"{self.unseen}: boards get what you gave, and nothing was checked")


def _of_others(cure):
    """Return a cure (str) without our commands for a broker of one's own."""
    return re.sub(r" \((mqttls [a-z ]+)\)", "", cure)


def _amazon(sent):
    """Return the number (str) of the Amazon Root CA above the certificates, None without one."""
    for each in sent:
        found = re.fullmatch(r"Amazon Root CA ([1-4])", reading.issuer_of(each))
        if found:
            return found[1]
    return None


def _day(certificate):
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"
