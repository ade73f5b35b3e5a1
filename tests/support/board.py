"""
A folder that stands for the file system of a board: main.py, the settings, the certificates. Its
programs get tests/fakes as `network`, `machine` and `umqtt`; the package is the project's.
"""

import shutil

from tests.support import mpy

FAKES = mpy.ROOT / "tests/fakes"
WIFI = ("my-ssid", "my-password")  # what the examples and the docs say

_CONFIG = """\
from mqtt_as_tls import TLS, WiFi

host = {host!r}
port = {port}
link = {link}
tls = {tls}
cloud_host = {host!r}
cloud_port = {cloud_port}
cloud_ca = "certs/ca.der"
cloud_user = "my-user"
cloud_password = "my-cloud-password"
"""


class Board:
    """
    directory  Path, made if it is not there
    pki        tests.support.pki.PKI; its CA and `device` are put into certs/
    device     Identity of the device, pki.device when None
    """

    def __init__(self, directory, pki, device=None):
        self.directory = directory
        certificates = directory / "certs"
        certificates.mkdir(parents=True, exist_ok=True)
        device = device or pki.device
        for source, name in (
            (pki.ca.cert_der, "ca.der"),
            (device.cert_der, "cert.der"),
            (device.key_der, "key.der"),
        ):
            shutil.copy(source, certificates / name)

    def settings(self, port, cloud_port=0, *, wifi=True, mutual=True):
        """Write config.py: the broker's port on loopback, with the board's Wi-Fi or a PC's net."""
        more = ', cert="certs/cert.der", key="certs/key.der"' if mutual else ""
        text = _CONFIG.format(
            host="127.0.0.1",
            port=port,
            cloud_port=cloud_port,
            link="WiFi({!r}, {!r})".format(*WIFI) if wifi else None,
            tls=f'TLS(ca="certs/ca.der"{more}, ntp=None)',
        )
        (self.directory / "config.py").write_text(text)

    def start(self, main, *args, **options):
        """Put `main` (Path, or source text) on the board as main.py; return its mpy.Program."""
        path = self.directory / "main.py"
        path.write_text(main if isinstance(main, str) else main.read_text())
        env = {
            "MICROPYPATH": f"{FAKES}:{mpy.environment()['MICROPYPATH']}",
            "FAKE_WIFI": ":".join(WIFI),
            **options.pop("env", {}),
        }
        return mpy.start(path, *args, env=env, cwd=self.directory, **options)
