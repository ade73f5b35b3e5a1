"""The broker: mosquitto, or one from PyPI where it is not installed."""

import asyncio
import contextlib
import importlib.util
import os
import re
import shutil
import socket
import sys
from importlib.metadata import version

from .processes import ADDRESS, Trouble, free_port

_PATIENCE_S = 60
_PLACES = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/homebrew/sbin",
    "/usr/local/opt/mosquitto/sbin",
)

# What a distribution has in its own: the rest is in mqttls's mosquitto.conf
_MOSQUITTO = """\
log_dest stderr
log_timestamp false
include_dir {certificates}
"""

_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 10
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v4.tls]
name = "tls"
listen = "{address}:{port}"
next_connection_delay_ms = 1
[v4.tls.connections]
connection_timeout_ms = 5000
max_payload_size = 16384
max_inflight_count = 100
dynamic_filters = true
[v4.tls.tls]
certpath = "{certificates}/broker.crt"
keypath = "{certificates}/broker.key"
"""


def find_mosquitto():
    """Return the path of mosquitto, or None; distributions keep it where PATH does not look."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    return shutil.which("mosquitto", path=path)


class Broker:
    """
    A broker with TLS on a `port` of its own.

    children  Children
    folder    Path of a folder for its state and its log
    certificates  Certificates for it and `port`
    program   path of mosquitto; None: the broker of the PyPI package `iotcore`, which asks for
              no client certificate and keeps no state when it stops
    """

    def __init__(self, children, folder, certificates, port, program):
        self.embedded = program is None
        self.port = port
        self._spare_ports = 2
        self._children = children
        self._folder = folder
        self._certificates = certificates
        self._program = program
        self._child = None
        self._log = folder / "broker.log"
        if self.embedded:
            if importlib.util.find_spec("iotcore") is None:
                raise Trouble(
                    "there is no broker: sudo apt-get install mosquitto, brew install mosquitto, "
                    "or pip install -r requirements/embedded-broker.txt"
                )
            self.name = f"iotcore {version('iotcore')}"
        else:
            self.name = "mosquitto"

    async def start(self):
        """
        Start it, on the port that it had before; return when it accepts connections.

        The first time, when `port` is in use by then, it takes another one.

        Raises Trouble with its own words when it does not come up.
        """
        if self._program and self._spare_ports:
            said, _ = await self._children.ask([self._program, "-h"])
            if found := re.search(r"mosquitto version \S+", said):
                self.name = found[0].replace("version ", "")
        while reason := await self._try():
            if not self._spare_ports or "in use" not in reason:
                hint = "" if self.embedded else " (./dev demo --embedded does without it)"
                raise Trouble(f"{self.name} does not start: {reason}{hint}")
            self._spare_ports -= 1
            self.port = free_port()
            self._certificates.use_port(self.port)
        self._spare_ports = 0  # from now on others know it

    async def _try(self):
        """Return why it does not run, or None."""
        path = self._folder / "broker.toml"  # iotcore goes by the ending
        if self.embedded:
            text, command = _IOTCORE, [sys.executable, "-m", "iotcore", "--log-level", "CRITICAL"]
            command += ["--config", str(path)]
        else:
            text, command = _MOSQUITTO, [self._program, "-c", str(path)]
        if self._listens():
            return f"port {self.port} is in use"
        certificates = self._certificates.broker
        path.write_text(
            text.format(address=ADDRESS, port=self.port, certificates=certificates), "utf-8"
        )
        with self._log.open("wb") as log:
            self._child = self._children.start(command, cwd=self._folder, stdout=log, stderr=log)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while loop.time() < deadline:
            await asyncio.sleep(0.02)
            if self._child.poll() is not None:
                return self.last_words()
            if self._listens():
                return None
        return f"silent for {_PATIENCE_S} s"

    def _listens(self):
        with contextlib.suppress(OSError):
            socket.create_connection((ADDRESS, self.port), 1).close()
            return True
        return False

    async def stop(self):
        """Stop it as an administrator does: it may save its state."""
        self._child.terminate()
        for _ in range(250):
            if self._child.poll() is not None:
                break
            await asyncio.sleep(0.02)
        self._children.end(self._child)
        self._child = None

    @property
    def ended(self):
        """Whether it has ended without being stopped."""
        return self._child is not None and self._child.poll() is not None

    def last_words(self):
        """Return the errors in its log, else its last line."""
        lines = self._log.read_text("utf-8", "replace").strip().split("\n")
        errors = [line[line.index("Error: ") :] for line in lines if "Error: " in line]
        return " / ".join(errors or lines[-1:]) or "it says nothing"
