"""What a board holds, and how that compares with the folder of certificates."""

import hashlib
import json
import time

from . import board_files, certificates, library
from .authority import is_due
from .board import Board, dotted
from .messages import command
from .names import is_device_name

_CLOCK_OFF_S = 60


def tell(deployment, port, report):
    """
    Say what the board on `port` holds; problems go to the Report, all of it into data["board"].

    deployment  deployment.Deployment of the folder
    port        serial port of the board, or "auto"

    Raises BoardError when there is no board or it does not answer.
    """
    with Board(port) as board:
        held = board_files.look(board)
        version = dotted(held["micropython"])
        report.say(
            f"board      {held['machine'] or held['platform']} on {board.port}, MicroPython "
            f"{version}, {held['free'] // 1024} KB free"
        )
        data = {
            key: held[key]
            for key in ("name", "wifi", "library", "version", "form", "machine", "id")
        }
        report.data["board"] = {**data, "port": board.port, "micropython": version}
        told = _Told(deployment, held, report)
        told.device()
        if told.certificate is not None:
            told.judge_certificate()
        told.rest()


class _Told:
    def __init__(self, deployment, held, report):
        self.deployment, self.held, self.report = deployment, held, report
        self.name = held["name"]
        self.again = command("provision", held["name"] or "NAME")
        self.certificate = None

    def problem(self, fact, cause="", cure=None):
        self.report.problem("board", fact, cause, self.again if cure is None else cure)

    def device(self):
        if self.held["tls"] is None:
            self.problem("it was not provisioned")
            return
        tls = self.held["tls"]
        self.report.say(f"           {self.name}, dials {tls.get('host')} port {tls.get('port')}")
        for path, there in self.held["hashes"].items():
            if there is None:
                self.problem(f"{path} is missing on it")
        if self.held["cert"] is not None:
            try:
                self.certificate = certificates.first_from_der(self.held["cert"])
            except ValueError:
                self.problem("its certificate is damaged")
        if (
            not is_device_name(self.name or "")
            or self.name not in self.deployment.directory.devices()
        ):
            self.problem(
                f"{self.deployment.path} has no device {self.name!r}",
                "it was provisioned from another folder, or the device was removed",
            )
            return
        self.compare_files()

    def compare_files(self):
        """Each certificate on the board must be the folder's, and the other way round."""
        wanted = board_files.settings(self.deployment.directory.device(self.name))
        held = self.held["hashes"]
        same = True
        for path, data in wanted.items():
            if path == board_files.TLS_JSON:
                if json.loads(data) != self.held["tls"]:
                    same = False
                    self.problem(f"its {path} is not what the folder has", "host, port or login")
            elif held.get(path) != hashlib.sha256(data).hexdigest():
                same = False
                if held.get(path) is not None or path not in held:
                    self.problem(f"its {path} is not that of the folder", "one is newer")
        if same:
            self.report.say("           its certificates and key are those of the folder")
        self.report.data["board"]["same"] = same

    def judge_certificate(self):
        end = self.certificate.not_valid_after_utc
        serial = certificates.serial_of(self.certificate)
        self.report.say(f"           certificate until {end:%Y-%m-%d}")
        self.report.data["board"].update(until=end.isoformat(), serial=serial)
        if serial in {each["serial"] for each in self.deployment.authority.revoked()}:
            another = command("device", "add", "ANOTHER-NAME")
            self.problem("its certificate was revoked", cure=another)
        elif end < certificates.now():
            self.problem(f"its certificate ended on {end:%Y-%m-%d}", cure=self.renew())
        elif is_due(self.certificate):
            self.problem(f"its certificate ends on {end:%Y-%m-%d}", cure=self.renew())

    def renew(self):
        return f"{self.deployment.cure_of_end(self.name)}, then {self.again}"

    def rest(self):
        held, report = self.held, self.report
        which = {
            "same": f"{held['version']}, {held['form']} files",
            "other": f"{held['version']}, {held['form']} files, other than those of this mqttls "
            f"({library.version()})",
            "frozen": f"{held['version']}, in its firmware",
            "none": "none",
        }[held["library"]]
        report.say(f"           library {which}; Wi-Fi {held['wifi'] or 'not set here'}")
        if held["library"] == "none":
            self.problem("it has no mqtt_as_tls")
        elif held["library"] == "other":
            report.note(f"{self.again} brings its library up to date")
        off = int(held["time"] - time.time())
        report.data["board"]["clock_off_s"] = off
        shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(held["time"]))
        right = abs(off) <= _CLOCK_OFF_S
        report.say(f"           clock {shown} UTC{'' if right else ', which is wrong'}")
        if not right:
            report.note("its clock is wrong; mqtt_as_tls sets it by itself before it connects")
