"""
What a board meets at the broker's address: does the name resolve, does anybody listen, what comes
back to the ClientHello of a board, and if that is no handshake, why.
"""

import contextlib
import dataclasses
import time

from ..names import is_address
from . import lint, peek, reading
from .causes import ROWS, problem, remark

_ALONE_S = 1.5  # to wait for what a server does by itself
_TLS_PORT = "this is a port with TLS, and it was tried without"
_HTTP = "a web server, or MQTT over WebSocket, which boards do not know"
_PSK = "it has TLS by pre-shared keys, and no certificate; MicroPython checks a broker by one"
_OTHER_PORT = "use the broker's port, usually 1883 without TLS, 8883 with it"


_MOST_NAMES = 4  # to try
# What Traefik and the ingress of Kubernetes show for names that they do not know
_OF_PROXIES = ("TRAEFIK DEFAULT CERT", "Kubernetes Ingress Controller Fake Certificate")


def _only_here(host, address):
    """Return the findings about a name that this PC knows in ways that a board does not have."""
    if is_address(host) or host == "localhost":
        return []
    if address.startswith("127."):
        cause = (
            "its hosts file says so; a board asks the DNS of its network, which may not know it"
        )
        return [remark(1, f"{host} is this PC itself here ({address})", cause=cause)]
    if "." not in host:
        cause = "this PC may know it by its search domain, its hosts file or Windows' own ways; a "
        cause += "board asks DNS for just that name"
        cure = f"give the whole name, such as {host}.lan or {host}.fritz.box, or the IP address"
        return [remark(1, f"{host} is a name without a domain", cause=cause, cure=cure)]
    return []


class Look:
    """
    A look at the broker of `target` (attempt.Target) from outside: resolve, connect, peek.

    timeout_s  for each of them
    hints      list of Finding of the broker's configuration: what it says of ciphers and keys
    names      those in the certificate of its configuration: a proxy may want one of them

    answer    peek.Answer where it got as far as ServerHelloDone and a board could go on; an empty
              one where a board without TLS could; or None
    data      dict of what the peek saw, for --json
    stages    {stage: (state, detail)}, as in diagnose.Verdict
    findings  list of Finding
    """

    def __init__(self, target, timeout_s, hints=(), names=()):
        self.target, self.timeout_s, self.hints = target, timeout_s, hints
        self.names = [each for each in names if each != target.name][:_MOST_NAMES]
        self.address = None
        self.stages, self.findings, self.data = {}, [], {}
        self.answer = self._look() if target.tls else self._look_without_tls()

    def _stage(self, name, state, detail):
        self.stages[name] = (state, detail)

    def _fails(self, finding):
        self.findings.append(finding)
        self._stage(finding.stage, "failed", finding.fact)

    def _look(self):
        target = self.target
        try:
            address = peek.resolve(target.host, self.timeout_s)
        except peek.NoAddress as error:
            self._fails(problem(1, str(error)))
            return None
        self._stage("resolve", "ok", address)
        self.findings += _only_here(target.host, address)
        self.address = address
        try:
            answer = self._peek(address, target.name)  # raises only where it cannot connect
            self._stage("connect", "ok", f"port {target.port}")
        except OSError as error:
            self._fails(self._no_connection(error, address))
            return None
        self.data = answer.data()
        finding = self._judge_answer(answer, address)
        if finding is not None:
            self._fails(finding)
            return None
        facts = f"{answer.version_name}, {answer.cipher_name}"
        self._stage("TLS", "ok", facts + (f", {answer.group_name}" if answer.group else ""))
        return answer

    def _look_without_tls(self):
        target = self.target
        try:
            address = self.address = peek.resolve(target.host, self.timeout_s)
        except peek.NoAddress as error:
            self._fails(problem(1, str(error)))
            return None
        self._stage("resolve", "ok", address)
        self.findings += _only_here(target.host, address)
        try:
            peek.connect(address, target.port, self.timeout_s).close()
        except OSError as error:
            self._fails(self._no_connection(error, address))
            return None
        self._stage("connect", "ok", f"port {target.port}")
        self._stage("TLS", "none", "whoever is in this network can read all, passwords too")
        return peek.Answer()

    def _no_connection(self, error, address):
        what = error.strerror or "no answer"
        if isinstance(error, TimeoutError):
            what = f"no answer within {self.timeout_s:g} s"
        host, port = self.target.host, self.target.port
        if isinstance(error, ConnectionResetError):
            return problem(67, f"{address} port {port} takes connections and ends them at once")
        if not is_address(host) and peek.listens_on_ipv6(host, port):
            cure = f"let it listen on IPv4, too (mosquitto: listener {port}, no socket_domain)"
            cause = "the broker listens on IPv6 only, and boards come with IPv4"
            fact = f"{address} port {port}: {what}; on IPv6 it is open"
            return problem(2, fact, cause=cause, cure=cure)
        return problem(2, f"{address} port {self.target.port}: {what}")

    def _peek(self, address, name, offer="board", before=b""):
        more = {"offer": offer, "before": before, "timeout_s": self.timeout_s}
        return peek.peek(address, self.target.port, name, **more)

    def _try_peek(self, *args):
        try:
            return self._peek(*args)
        except OSError:
            return peek.Answer(end="reset")

    def _judge_answer(self, answer, address):
        """Return the Finding when a board cannot even shake hands, else None."""
        target = self.target
        where = f"{target.host} port {target.port}"
        if answer.version and answer.version < 0x0303:
            return problem(8, f"{where} chose {answer.version_name}")
        if answer.end == "done":
            findings = lint.flight([len(each) for each in answer.chain], answer.largest)
            if findings:
                return findings[0]
            found = self._of_a_proxy(answer)
            if found is None:
                self._compare_without_name(answer, address)
            return found
        if answer.end == "no tls":
            if answer.first[:2] in (b"\x20\x02", b"\x20\x03"):
                return problem(3, f"{where} answers with MQTT")
            first = answer.first.split(b"\r")[0][:40].decode("latin-1")
            cause = _HTTP if first.startswith("HTTP/") else None
            return problem(5, f"{where} answers {first!r}", cause=cause)
        if answer.end in ("closed", "reset", "silence") and not answer.version:
            return self._judge_nothing(answer, address, where)
        if answer.end == "broken":
            return problem(5, f"{where} breaks the TLS specification: {answer.detail}")
        if answer.end in ("closed", "reset", "silence"):
            return problem(
                6,
                f"{where} stops in the middle of its answer, after {answer.received} bytes",
                cause="the network or a proxy in between cuts the connection (MTU?), or the "
                "broker fails",
            )
        return self._judge_alert(answer, address, where)

    def _of_a_proxy(self, answer):
        """Return the Finding about a certificate that a proxy shows in the broker's place."""
        try:
            name = reading.name_of(reading.parse(answer.chain[0]))
        except (ValueError, IndexError):
            return None
        if name not in _OF_PROXIES:
            return None
        dialled = self.target.name
        fact = f"a proxy shows {name}, as it does for a name that it does not know: {dialled}"
        cure = f"{ROWS[42][2]} (--name); or have the proxy pass {dialled} on to the broker"
        return problem(42, fact, cure=cure)

    def _judge_nothing(self, answer, address, where):
        """Return the Finding about a port that does not answer the ClientHello at all."""
        port, name = self.target.port, self.target.name
        if peek.speaks_mqtt(address, port):
            return problem(3, f"{where} answers a plain CONNECT with CONNACK")
        other = self._other_name(answer, address)
        if other is not None:
            return self._wants_other(other, f"{where} hangs up on the name {name}")
        http = peek.speaks_http(address, port, name, self.timeout_s, tls=False)
        if http:
            return problem(5, f"{where} answers {http!r} to HTTP without TLS", cause=_HTTP)
        if answer.end == "silence":
            return problem(
                6,
                f"{where} does not answer the ClientHello within {self.timeout_s:g} s",
                cause="no broker is behind this port, or it hangs",
            )
        shown = f"{where} hangs up at the ClientHello"
        alone = self._closes_alone(shown)
        if alone:
            return alone
        for header in peek.PROXY_HEADERS:
            if self._try_peek(address, name, "board", header).version:
                return problem(66, f"{where} answers only behind a header of the PROXY protocol")
        if is_address(name):
            cause = "a proxy goes by server names, of which an address is none; or it is no TLS "
            cure = f"dial the broker by its name, or give that: --name NAME; {ROWS[6][2]}"
            return problem(6, shown, cause=f"{cause}port", cure=cure)
        cause = f"a proxy goes by server names, and has none for {name}"
        if peek.reads_hello(address, port, name, _ALONE_S):
            shown += ", once it has read it to its end"
            cause += ", or nothing runs where it passes that on"
            cure = "give the name that the proxy has for the broker: --name NAME, server_hostname="
            return problem(6, shown, cause=cause, cure=f"{cure}; {ROWS[6][2]}")
        return problem(6, shown, cause=f"this is no TLS port; or {cause}")

    def _closes_alone(self, shown, tls=False):
        """
        Return the Finding about a port that ends a connection on which nothing was sent, and as
        fast as one on which something was; else None.
        """
        port, name = self.target.port, self.target.name
        start = time.monotonic()
        if tls:
            peek.speaks_mqtt(self.address, port, self.timeout_s, tls=True, name=name or None)
        else:
            self._try_peek(self.address, name)
        wait_s = min(self.timeout_s, _ALONE_S + 2 * (time.monotonic() - start))
        if peek.by_itself(self.address, port, wait_s, name, tls) == b"":
            return problem(67, f"{shown}, and without anything being sent, too")
        return None

    def _other_name(self, answer, address):
        """Return another server name with which it answers ("" for none at all), or None."""
        blind = "" if answer.end == "silence" else "localhost"
        for other in (*self.names, blind):
            if self._try_peek(address, other or None).end == "done":
                return other
        return None

    def _wants_other(self, other, fact):
        """Return the Finding about a port that answers the server name `other` only."""
        if other not in self.names:
            return problem(42, fact)
        cure = f"dial it by the name {other}, or give that one: --name {other}, server_hostname="
        return problem(42, f"{fact}, and answers to {other}", cure=cure)

    def _judge_alert(self, answer, address, where):
        name = self.target.name
        fact = f"{where} refuses a board's ClientHello: {answer.alert_name}"
        if answer.alert == 112:
            return problem(42, f"{where} does not know the name {name}")
        if answer.alert == 120 or self._try_peek(address, name, "alpn").end == "done":
            return problem(51, f"{fact}, without ALPN")
        newer = self._try_peek(address, name, "tls13")
        if answer.alert == 70:
            if newer.end == "tls13":
                self._believe_the_peek()
                return problem(7, fact)
            return problem(8, fact)
        more = self._try_peek(address, name, "more")
        if more.end == "done":
            self._believe_the_peek()
            return self._what_it_wants(more, fact)
        other = self._other_name(answer, address)
        if other is not None:
            return self._wants_other(other, f"{fact} for the name {name}")
        if self._try_peek(address, name, "psk").version:
            cure = "a listener of its own for boards, with certfile and keyfile"
            return problem(10, f"{fact}, without a pre-shared key (PSK)", cause=_PSK, cure=cure)
        # Not even a PC's long list of ciphers has one for it.
        return self._why_none(newer, f"{fact}, and all other ciphers and curves of TLS 1.2")

    def _why_none(self, newer, fact):
        """
        Return the Finding about a broker that finds no cipher of TLS 1.2 for its certificate.

        newer  peek.Answer to TLS 1.3, in which a cipher does not depend on the kind of key
        """
        der = peek.certificate_of_a_pc(
            self.address, self.target.port, self.target.name, self.timeout_s
        )
        with contextlib.suppress(ValueError):
            leaf = reading.parse(der)
            self._believe_the_peek()
            found = lint.form(leaf, "the broker's certificate") + lint.server(leaf)
            for each in found:
                if each.row in (9, 11, 48):
                    return dataclasses.replace(each, fact=f"{fact}; {each.fact}", stage="TLS")
            kind = reading.key_name(reading.public_key(leaf))
            more = f"ECDHE-{'RSA' if kind[:3] == 'RSA' else 'ECDSA'}-AES128-GCM-SHA256"
            cure = f"remove `ciphers` from mosquitto.conf, or add {more} to it"
            cause = f"{ROWS[49][1]}; or it speaks TLS 1.3 alone"
            by_conf = any(each.row == 49 for each in self.hints)
            if newer.end != "tls13" or by_conf:
                return problem(49, f"{fact}; its key is {kind}", cure=cure)
            cure += "; and let it have TLS 1.2"
            return problem(49, f"{fact}; its key is {kind}", cause=cause, cure=cure)
        for each in self.hints:
            if each.row in (9, 10, 11, 48, 49) and each.level == "problem":
                return dataclasses.replace(each, fact=f"{fact}; {each.fact}", stage="TLS")
        return problem(
            49,
            fact,
            cause="its `ciphers` has none for the kind of its key; or the certificate may not "
            "sign a handshake (keyUsage without digitalSignature), or holds its key as a "
            "compressed point",
            cure="give --conf, which tells them apart; remove `ciphers` from mosquitto.conf; "
            "reissue the certificate with a P-256 key and keyUsage digitalSignature",
        )

    def without_ca(self):
        """
        Return the Finding about a port with TLS behind which no MQTT is, or None. Nothing is
        believed of the certificate, and nothing entrusted to the port: a CONNECT without a user.
        """
        known = {"tls": True, "name": self.target.name or None}

        def connack(alpn=None):
            where = (self.address, self.target.port, self.timeout_s)
            return peek.speaks_mqtt(*where, alpn=alpn, **known)

        return None if connack() else self.behind("it does not answer CONNECT", connack)

    def behind(self, shown, connack):
        """
        Return the Finding about a port that takes a connection, and no MQTT: HTTP, or ALPN; None
        where neither is seen.

        shown    str, what happened
        connack  function (protocol of ALPN) -> bool: does MQTT work when that is asked for?
        """
        port, name = self.target.port, self.target.name
        if not self.target.tls:
            return self._behind_plain(shown)
        chosen = self._try_peek(self.address, name, "alpn").alpn
        if chosen and not chosen.startswith("h") and (port == 443 or connack(chosen)):
            return problem(51, f"{shown}; offered ALPN, the server chooses {chosen!r}")
        http = peek.speaks_http(self.address, port, name, self.timeout_s)
        if http:
            return problem(50, f"{shown}; to HTTP it answers {http!r}")
        if chosen.startswith("h"):
            return problem(50, f"{shown}; offered ALPN, the server chooses {chosen!r}")
        if peek.speaks_tls_within(self.address, port, name, self.timeout_s):
            return problem(69, f"{shown}; within its TLS it answers a ClientHello with TLS again")
        return self._closes_alone(shown, tls=True)

    def _behind_plain(self, shown):
        """Return the Finding about a port that takes no MQTT without TLS, or None."""
        port, name = self.target.port, self.target.name
        if self._peek_sees_tls(name):
            fact = f"{shown}; it answers a ClientHello with TLS"
            cure = "use TLS: --ca FILE in the place of --no-tls, tls=TLS(ca=...) in the program"
            return problem(4, fact, stage="CONNACK", cause=_TLS_PORT, cure=cure)
        http = peek.speaks_http(self.address, port, name, self.timeout_s, tls=False)
        if http:
            fact = f"{shown}; to HTTP it answers {http!r}"
            return problem(5, fact, stage="CONNACK", cause=_HTTP, cure=_OTHER_PORT)
        for header in peek.PROXY_HEADERS:
            if peek.speaks_mqtt(self.address, port, self.timeout_s, header):
                fact = f"{shown}; behind a header of the PROXY protocol it answers MQTT"
                return problem(66, fact, stage="CONNACK")
        first = peek.by_itself(self.address, port, _ALONE_S)
        if first:
            said = first.splitlines()[0][:40].decode("latin-1")
            cause = "something else than MQTT answers on this port"
            fact = f"{shown}; it speaks first: {said!r}"
            return problem(5, fact, stage="CONNACK", cause=cause, cure=_OTHER_PORT)
        alone = self._closes_alone(shown)
        return alone and dataclasses.replace(alone, stage="CONNACK")

    def _peek_sees_tls(self, name):
        seen = self._try_peek(self.address, name)
        return bool(seen.version) or seen.end == "alert"

    def _what_it_wants(self, more, fact):
        """Return the Finding about what the broker chose when offered more than a board has."""
        with contextlib.suppress(ValueError, IndexError):
            leaf = reading.parse(more.chain[0])
            for each in lint.form(leaf, "the broker's certificate"):
                if each.row == 9:
                    return dataclasses.replace(each, fact=f"{fact}; {each.fact}")
        wants = []
        if self._try_peek(self.address, self.target.name, "bound").end == "done":
            return problem(68, f"{fact}, unless it offers what binds the keys to the handshake")
        if more.cipher not in peek.BOARD_CIPHERS:
            wants.append(f"the cipher {more.cipher_name}")
        if more.group and more.group not in peek.BOARD_GROUPS:
            wants.append(f"the curve {more.group_name}")
        if more.signature and more.signature not in peek.BOARD_SIGNATURES:
            wants.append(f"signatures by {more.signature_name}")
        return problem(10, f"{fact}; it wants {' and '.join(wants) or 'what only PCs offer'}")

    def _believe_the_peek(self):
        self.findings.append(remark(41, "a PC may well connect to this broker"))

    def _compare_without_name(self, answer, address):
        name = self.target.name
        if is_address(name):
            return
        without = self._try_peek(address, None)
        fact = f"without the server name {name} the broker "
        if without.end != "done":
            fact += f"refuses ({without.end})"
        elif without.chain[:1] != answer.chain[:1]:
            fact += "shows another certificate"
        else:
            return
        cure = "mqtt_as_tls sends it; umqtt needs server_hostname"
        self.findings.append(remark(42, fact, cure=cure))
