"""
The same diagnosis with a board on USB: what it holds, its clock and Wi-Fi, and its own attempt to
connect. The only module of the doctor that needs mpremote.
"""

import dataclasses
import hashlib
import json
import time
from pathlib import Path

from .. import device, onboard
from ..board import Board, BoardError, BoardRaised
from . import dial
from . import diagnose as pc
from .table import found, remark

_CLOCK_OFF_S = 3600
_RELEASED = 1785542400  # as in mqtt_as_tls/clock.py: a clock before it is unset
_WIFI_S = 60

_UP = """\
import asyncio, json
_r = {"up": True, "text": ""}
try:
    import config
    if config.link:
        asyncio.run(config.link.up())
except Exception as _e:
    _r = {"up": False, "text": str(_e), "error": type(_e).__name__}
    if _r["error"] != "LinkError":
        raise
print()
print(json.dumps(_r))
"""

_IS_UP = """\
import json
try:
    import network
    _w = network.WLAN(network.STA_IF)
    _r = {"up": _w.isconnected(), "address": _w.ifconfig()[0]}
except (ImportError, AttributeError):
    _r = {"up": None, "address": ""}
print()
print(json.dumps(_r))
"""


def name_on(port="auto"):
    """Return the name of the device that the board on `port` was made; BoardError if none."""
    with Board(port) as board:
        tls = onboard.read_tls(board)
    if not tls or not tls.get("client_id"):
        raise BoardError(
            f"the board on {board.port} holds no certificates",
            "mqttls provision NAME puts them there; or name a device with --device",
        )
    return tls["client_id"]


def diagnose(case, port="auto"):
    """
    Return the Verdict about a Case whose `target` is a device, with the board on `port`.

    The PC looks at the broker and into the files; the attempt to connect is the board's, with what
    the board holds. Its program is stopped, its flash stays as it is.

    Raises BoardError where the board does not answer; what diagnose.diagnose raises.
    """
    with Board(port) as board:
        held = onboard.look(board)
        findings, wrong = _held(case.target, held)
        dialler = _Dialler(board, held)
        if wrong or not case.target or not case.online:
            verdict = pc.diagnose(dataclasses.replace(case, online=False))
        else:
            verdict = pc.diagnose(case, dialler)
    findings += dialler.findings
    problems = [each.fact for each in findings if each.level == "problem"]
    version = ".".join(map(str, held["micropython"]))
    detail = problems[0] if problems else f"{held['name']}, MicroPython {version}"
    verdict.stages["board"] = ("failed" if problems else "ok", detail)
    if dialler.link:
        verdict.stages["Wi-Fi"] = dialler.link
    verdict.findings = _sorted(findings, verdict.findings, dialler)
    return verdict


def _sorted(findings, others, dialler):
    if dialler.link and dialler.link[0] == "failed":  # its attempt was none
        others = [each for each in others if dialler.link[1] not in each.fact]
    both = findings + others
    return sorted(both, key=lambda each: each.level != "problem")


def _held(target, held):
    """Return (findings about what a board holds, whether it cannot even try)."""
    name = target.client_id.removesuffix("-doctor") if target else "NAME"
    again = f"mqttls provision {name}"
    if held["tls"] is None:
        return [found(0, "the board holds no certificates", stage="board", cure=again)], True
    findings = []
    if held["library"] == "none":
        findings.append(found(0, "the board has no mqtt_as_tls", stage="board", cure=again))
    elif held["library"] == "other":
        fact = f"the board has another mqtt_as_tls ({held['version']}) than this mqttls"
        findings.append(remark(0, fact, stage="board", cure=f"{again} brings {device.version()}"))
    elif held["version"] != device.version():
        fact = f"the board's firmware has mqtt_as_tls {held['version']}"
        findings.append(remark(0, fact, stage="board"))
    findings += _certificates(target, held, again)
    for each in ("host", "port", "server_hostname"):
        dialled, told = getattr(target, each), held["tls"].get(each)
        if dialled != told and (dialled or told) and not (each == "server_hostname" and not told):
            fact = f"the board dials {each} {told}, and {dialled} is looked at here"
            findings.append(remark(0, fact, stage="board", cure=again))
    findings += _clock(held)
    return findings, held["library"] == "none"


def _certificates(target, held, again):
    """Compare the device's files on the PC with what the board holds."""
    findings, on_board = [], held["hashes"]
    for path, there in on_board.items():
        if there is None:
            fact = f"{path} is missing on the board"
            findings.append(found(0, fact, stage="board", cure=again))
    for path in [*target.ca, *filter(None, (target.cert, target.key))]:
        mine = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        if mine in on_board.values():
            continue
        row = 17 if path in target.ca else 25 if path == target.cert else 27
        what = {17: "CA", 25: "certificate", 27: "key"}[row]
        fact = f"the board does not hold the {what} in {path}"
        cause = f"it was provisioned as {held['name']!r}, before that {what} was made anew"
        findings.append(found(row, fact, cause=cause, cure=again, stage="board"))
    return findings


def _clock(held):
    off = held["time"] - time.time()
    if held["time"] < _RELEASED:
        fact = f"the board's clock says {time.gmtime(held['time']).tm_year}"
        cure = "mqtt_as_tls asks a time server by itself (ntp=); mqttls provision sets it, too"
        return [remark(12, fact, stage="board", cause="it was without power", cure=cure)]
    if abs(off) > _CLOCK_OFF_S:
        fact = f"the board's clock is {abs(off) / 3600:.0f} h {'ahead' if off > 0 else 'behind'}"
        return [found(12, fact, stage="board", cure="mqttls provision sets it")]
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
        version = ".".join(map(str, self.held["micropython"]))
        attempt = dial.Attempt(by=f"the board's {dial.MICROPYTHON} {version}")
        try:
            self.board.fresh()  # the memory of the program that ran there is free
            if not self.up(attempt):
                return attempt
            said = self.ask(target, timeout_s)
        except BoardRaised as error:
            attempt.error, _, attempt.text = error.error.partition(": ")
            attempt.cause, attempt.cure = device.explain(error.error)
            attempt.stage = dial.stage_of(attempt)
            return attempt
        said.pop("version", None)
        for key, value in said.items():
            setattr(attempt, key, value)
        attempt.stage = dial.stage_of(attempt)
        return attempt

    def up(self, attempt):
        """Bring up the board's Wi-Fi; False, and a finding, when that does not work."""
        said = self.board.ask(_UP, "joining its Wi-Fi", timeout_s=_WIFI_S)
        if said["up"]:
            network = self.board.ask(_IS_UP, "asking for its address")
            if network["up"] is not False:
                self.link = ("ok", network["address"] or "its own network")
                return True
            said["text"] = "it is not in any network"
            cure = "mqttls provision NAME --wifi-ssid SSID, or let the program bring it up"
        else:
            _, cure = device.explain("LinkError: " + said["text"])
        self.link = ("failed", said["text"])
        self.findings.append(found(0, f"Wi-Fi: {said['text']}", stage="Wi-Fi", cure=cure))
        attempt.error, attempt.text = "LinkError", said["text"]
        attempt.stage = "Wi-Fi"
        return False

    def ask(self, target, timeout_s):
        tls = self.held["tls"]
        asked = {
            "host": target.host,
            "port": target.port,
            "server_hostname": target.server_hostname,
            "ca": tls["ca"],
            "cert": tls.get("cert"),
            "key": tls.get("key"),
            "client_id": target.client_id,
            "user": target.user,
            "password": target.password,
            **dial.limits(timeout_s),
        }
        out = self.board.run(
            dial.PROGRAM + f"asyncio.run(main({asked!r}))\n", "connecting", timeout_s + 30
        )
        for line in out.splitlines():
            if line.startswith("mqttls:"):
                return json.loads(line[7:])
        raise BoardError(f"connecting: the board answered {out[-200:]!r}")
