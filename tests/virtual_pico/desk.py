"""What stands round a virtual Pico: a broker, name and time servers, certificates on its flash."""

import contextlib
from pathlib import Path

from tests.support import mpy
from tests.support.broker import Broker
from tests.support.udp import DNS, SNTP
from tests.virtual_pico.pico import ADDRESS, Pico

PROGRAMS = mpy.ROOT / "tests/virtual_pico/programs"
NETWORK = {"ssid": "my-ssid", "password": "my-password"}
LINK = mpy.ROOT / "examples/ppp_link.py"


class Desk:
    """
    A mosquitto that wants client certificates (`broker`; plain TCP for peers and for tests that
    are not about TLS), a DNS server that knows broker.lan and time.lan, an SNTP server, and a
    Pico (`pico`, running) whose file system has the certificates, config.py and ppp_link.py. With
    `wifi` it is a Pico W that hears NETWORK, and config.py joins that.

    Use it in a `with`.

    firmware  Path of the image
    folder    Path for everything's files
    pki       tests.support.pki.PKI
    """

    def __init__(self, firmware, folder, pki, *, wifi=False, **options):
        if wifi:
            options["networks"] = [NETWORK]
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.broker = stack.enter_context(
                Broker(folder / "broker", "mtls", "tcp", pki=pki, persistence=True)
            )
            self.dns = stack.enter_context(DNS({"broker.lan": ADDRESS, "time.lan": ADDRESS}))
            self.sntp = stack.enter_context(SNTP())
            ports = {53: self.dns.port, 123: self.sntp.port}
            self.pico = stack.enter_context(
                Pico(firmware, folder / "pico", ports=ports, **options)
            )
            self._furnish(pki, wifi)
            self._stack = stack.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _furnish(self, pki, wifi):
        ports = self.broker.ports
        files = {
            "/certs/ca.der": pki.ca.cert_der,
            "/certs/other_ca.der": pki.other_ca.cert_der,
            "/certs/cert.der": pki.device.cert_der,
            "/certs/key.der": pki.device.key_der,
        }
        if wifi:
            files["/config.py"] = PROGRAMS / "config_wifi.py"
        else:
            files |= {"/ppp_link.py": LINK, "/config.py": PROGRAMS / "config.py"}
        self.pico.put("/wiring.py", f"tls_port = {ports['mtls']}\ntcp_port = {ports['tcp']}\n")
        for name, path in files.items():
            self.pico.put(name, Path(path).read_bytes())

    def install(self, *programs):
        """Put programs (str, names in programs/) onto the Pico as modules."""
        for name in programs:
            self.pico.put(f"/{name}.py", (PROGRAMS / f"{name}.py").read_bytes())
