"""The demo's certificates and mosquitto's configuration: mqttls makes them, as for anyone."""

import contextlib
import io
import shutil

from tools.mqttls import certificates, cli
from tools.mqttls.authority import ends_in

from .processes import ADDRESS, HOST, Trouble


class Certificates:
    """
    What mqttls makes in `folder` (Path, new) for a broker on `port` of this PC.

    broker   Path of the folder with broker.crt, broker.key, mosquitto.conf and what that names
    device   Path of the folder with ca.der, cert.der and key.der
    watcher  Path of the folder with ca.crt, cert.crt and key.pem

    Raises Trouble.
    """

    def __init__(self, folder, port):
        self._folder = folder
        self.broker = folder / "broker"
        self.device = folder / "devices/greenhouse"
        self.watcher = folder / "devices/watcher"
        names = ["--broker", HOST, "--broker", ADDRESS]
        self._mqttls("init", *names, "--bind", ADDRESS, "--port", str(port))
        self._mqttls("device", "add", "greenhouse")
        self._mqttls("device", "add", "watcher", "--admin")

    def use_port(self, port):
        """Have the broker on another port. Raises Trouble."""
        self._mqttls("broker-conf", "--port", str(port))

    def device_size(self):
        """Return the bytes of what goes onto the device (int)."""
        return sum(each.stat().st_size for each in self.device.glob("*.der"))

    def copy_device_with_another_ca(self, folder):
        """Make `folder` (Path) as that of the device, with a CA in it that nobody knows."""
        shutil.copytree(self.device, folder)
        ca = certificates.new_authority("p256", ends_in(days=1)).certificate
        (folder / "ca.der").write_bytes(certificates.cert_der(ca))

    def _mqttls(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = cli.main([*arguments, "--dir", str(self._folder)])
        if status:
            said = "; ".join(each.strip() for each in said.getvalue().splitlines())
            raise Trouble(f"{said} (TMPDIR says where the demo keeps its files)")
