"""
The same diagnosis with a board on USB: what it holds, its clock and Wi-Fi, and its own attempt to
connect.
"""

import dataclasses
import hashlib
import time

from .. import board_files, given, library
from ..board import Board, BoardError, BoardRaised, dotted
from ..messages import command
from . import diagnose as pc
from .attempt import AFTER_S, Attempt
from .causes import problem, remark
from .dial import board_program, parse

_BY = "the board, MicroPython"
_CLOCK_OFF_S = 3600
_RELEASED = 1785542400  # as in mqtt_as_tls/clock.py: a clock before it is unset
_MORE_S = 90  # Wi-Fi, the time server, and importing the library, on top of the attempt

_NETWORK = """\
import json
try:
    import network
    _r = network.WLAN(network.STA_IF).isconnected()
except (ImportError, AttributeError):
    _r = None
if _r is False:  # boot.py may have brought up something else, Ethernet or PPP
    for _o in list(globals().values()):
        if hasattr(_o, "isconnected") and not isinstance(_o, type):
            _r = _r or bool(_o.isconnected())
print()
print(json.dumps(_r))
"""


def name_on(port="auto"):
    """Return the name of the device that the board on `port` was made; BoardError if none."""
    with Board(port) as board:
        tls = board_files.read_tls(board)
    if not tls or not board_files.name_in(tls):
        raise BoardError(
            f"the board on {board.port} holds no certificates",
            f"{command('provision', 'NAME')} puts them there; or name a device with --device",
        )
    return board_files.name_in(tls)


def diagnose(case, port="auto"):
    """
    Return the Verdict about a Case whose `target` is a device, with the board on `port`.

    The PC looks at the broker and into the files; the attempt to connect is the board's, with what
    the board holds. Its program is stopped, its flash stays as it is.

    Raises BoardError where the board does not answer; what diagnose.diagnose raises.
    """
    with Board(port) as board:
        held = board_files.look(board)
        findings, wrong = _held(case.target, held)
        dialler = _Dialler(board, held)
        if wrong or not case.target or not case.online:
            verdict = pc.diagnose(dataclasses.replace(case, online=False))
        else:
            # it is the device itself, whose program is stopped: nobody is thrown out
            verdict = pc.diagnose(dataclasses.replace(case, as_device=True), dialler)
    problems = [each.fact for each in findings if each.level == "problem"]
    findings += dialler.findings
    version = dotted(held["micropython"])
    detail = problems[0] if problems else f"{held['name']}, MicroPython {version}"
    stages = {**verdict.stages, "board": ("failed" if problems else "ok", detail)}
    if dialler.link:
        stages["Wi-Fi"] = dialler.link
    findings = _sorted(findings, verdict.findings, dialler)
    return dataclasses.replace(verdict, stages=stages, findings=findings)


def _sorted(findings, others, dialler):
    if dialler.link and dialler.link[0] == "failed":  # its attempt was none
        others = [each for each in others if dialler.link[1] not in each.fact]
    if any(each.row == 17 for each in findings):  # so it was not the memory
        others = [each for each in others if each.row != 20]
    return sorted(findings + others, key=lambda each: each.level != "problem")


def _held(target, held):
    """Return (findings about what a board holds, whether it cannot even try)."""
    name = held["name"] or (target and target.client_id.removesuffix("-doctor")) or "NAME"
    again = command("provision", name)
    if held["tls"] is None:
        return [problem(0, "the board holds no certificates", stage="board", cure=again)], True
    findings = []
    if held["library"] == "none":
        findings.append(problem(0, "the board has no mqtt_as_tls", stage="board", cure=again))
    elif held["library"] == "other":
        fact = f"the board has another mqtt_as_tls ({held['version']}) than this mqttls"
        findings.append(remark(0, fact, stage="board", cure=f"{again} brings {library.version()}"))
    elif held["version"] != library.version():
        fact = f"the board's firmware has mqtt_as_tls {held['version']}"
        findings.append(remark(0, fact, stage="board"))
    findings += _certificates(target, held, again)
    dials = f"{held['tls'].get('host')} port {held['tls'].get('port')}"
    if dials != f"{target.host} port {target.port}":
        fact = f"the board dials {dials}; here {target.host} port {target.port} is looked at"
        cure = f"{again} gives it the address that the folder has"
        findings.append(remark(0, fact, stage="board", cure=cure))
    findings += _clock(held)
    return findings, held["library"] == "none"


def _certificates(target, held, again):
    """Compare the device's files on the PC with what the board holds."""
    findings, on_board = [], held["hashes"]
    for path, there in on_board.items():
        if there is None:
            fact = f"{path} is missing on the board"
            findings.append(problem(0, fact, stage="board", cure=again))
    for path in [*target.ca, *filter(None, (target.cert, target.key))]:
        mine = hashlib.sha256(given.read(path)).hexdigest()
        if mine in on_board.values():
            continue
        row = 17 if path in target.ca else 25 if path == target.cert else 27
        what = {17: "CA", 25: "certificate", 27: "key"}[row]
        fact = f"the board does not hold the {what} in {path}"
        cause = f"it was provisioned as {held['name']!r}, with another {what}"
        findings.append(problem(row, fact, cause=cause, cure=again, stage="board"))
    return findings


def _clock(held):
    off = held["time"] - time.time()
    if held["time"] < _RELEASED:
        fact = f"the board's clock says {time.gmtime(held['time']).tm_year}"
        cure = "mqtt_as_tls asks a time server by itself (ntp=); mqttls provision sets it, too"
        return [remark(12, fact, stage="board", cause="it was without power", cure=cure)]
    if abs(off) > _CLOCK_OFF_S:
        fact = f"the board's clock is {abs(off) / 3600:.0f} h {'ahead' if off > 0 else 'behind'}"
        return [problem(12, fact, stage="board", cure="mqttls provision sets it")]
    return []


class _Dialler:
    """
    Asks the board to connect: called as dial.dial is.

    findings  what it noticed; link: (state, detail) of its Wi-Fi, None where it was not tried
    """

    def __init__(self, board, held):
        self.board, self.held = board, held
        self.findings, self.link = [], None

    def __call__(self, target, timeout_s):
        try:
            self.board.fresh()  # what looking took is free, and its boot.py comes to an end
            attempt = self.attempt(target, timeout_s)
        except BoardRaised as error:
            kind, _, text = error.error.partition(": ")
            cause, cure = library.explain(error.error)
            attempt = Attempt(by=_BY, error=kind, text=text, cause=cause, cure=cure)
        if attempt.error == "LinkError":
            self.no_link(attempt.text, attempt.cure)
        elif self.held["wifi"]:
            self.link = ("ok", self.held["wifi"])
        return attempt

    def no_link(self, text, cure):
        self.link = ("failed", text)
        self.findings.append(problem(0, text, cure=cure, stage="Wi-Fi"))

    def attempt(self, target, timeout_s):
        wifi = board_files.WIFI_JSON if self.held["wifi"] else None
        if not wifi and self.board.ask(_NETWORK, "asking for its network") is False:
            cure = (
                f"{command('provision', 'NAME', '--wifi-ssid', 'SSID')}, "
                "or bring Wi-Fi up in boot.py"
            )
            text = "the board is in no network, and has no Wi-Fi settings"
            return Attempt(by=_BY, error="LinkError", text=text, cure=cure)
        tls = self.held["tls"]
        asked = {
            "tls": target.tls,
            "host": target.host,
            "port": target.port,
            "server_hostname": target.server_hostname,
            "ca": tls["ca"],
            "cert": tls.get("cert"),
            "key": tls.get("key"),
            "client_id": target.client_id,
            "user": target.user,
            "password": target.password,
            "keep": target.keep,
            "timeout_s": int(timeout_s),
            "after_ms": int(AFTER_S * 1000),
            "ntp": "pool.ntp.org",
            "wifi": wifi,
        }
        out = self.board.run(board_program(asked), "connecting", timeout_s + _MORE_S)
        attempt = parse(out, _BY)
        if attempt is None:
            raise BoardError(f"connecting: the board answered {out[-200:]!r}")
        return attempt
