"""
A folder that stands for the file system of a board: main.py, the settings, the certificates. Its
programs get tests/fakes as `network`, `machine` and `umqtt`; the package is the project's.
"""

import shutil

from tests.support import app_config, mpy
from tests.support.app_config import WIFI

FAKES = mpy.ROOT / "tests/fakes"
CLIENT_ID = "garden-1"
HOME = f"devices/{CLIENT_ID}/"


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

    def settings(self, port, *, wifi=True, mutual=True, **own):
        """
        Write config.py: the broker's port on loopback, with the board's Wi-Fi or a PC's net.

        own  of it: `user`, `password`, and more arguments of TLS (str) as `tls`
        """
        more = ', cert="certs/cert.der", key="certs/key.der"' if mutual else ""
        text = app_config.text(
            "127.0.0.1",
            port,
            CLIENT_ID,
            user=own.get("user"),
            password=own.get("password"),
            wifi=wifi,
            tls=f'TLS(ca="certs/ca.der"{more}, {own.get("tls", "ntp=None")})',
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
