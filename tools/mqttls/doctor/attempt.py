"""An attempt to connect: to whom and as whom, and how it went."""

import dataclasses

MICROPYTHON, PYTHON = "MicroPython", "Python's ssl"
AFTER_S = 0.3  # a broker that does not want a client may say so after CONNACK


@dataclasses.dataclass
class Target:
    """
    Whom to connect to, as whom.

    host, port       as the device dials them
    server_hostname  str, or None for `host`
    ca               list of paths; cert, key  paths, or None
    client_id        str
    user, password   str, or None
    tls              False: without TLS
    keep             whether its session at the broker stays, with what waits in it: for a client
                     that the broker takes for the device itself
    """

    host: str
    port: int = 8883
    server_hostname: str = None
    ca: list = dataclasses.field(default_factory=list)
    cert: str = None
    key: str = None
    client_id: str = ""
    user: str = None
    password: str = None
    tls: bool = True
    keep: bool = False

    @property
    def name(self):
        """The name that must be in the certificate."""
        return self.server_hostname or self.host


@dataclasses.dataclass
class Attempt:
    """
    How it went: `ok`, or `error` (the class's name), `text`, `code` (int or None) as a board
    shows them, and what the device's own table says about it (`cause`, `cure`).

    by  the interpreter; `tls_ms` what its handshake took, connection included for Python
    """

    ok: bool = False
    by: str = MICROPYTHON
    error: str = ""
    text: str = ""
    code: int = None
    cause: str = ""
    cure: str = ""
    tls_ms: int = 0

    @property
    def shown(self):
        """The error as a console shows it."""
        return f"{self.error}: {self.text}"

    @property
    def stage(self):
        """Of causes.STAGES, the one that failed; "CONNACK" when ok."""
        text = f"{self.error} {self.text}".lower()
        if self.error == "ResolveError":
            return "resolve"
        if self.error == "LinkError":
            return "Wi-Fi"
        if self.error == "ConnectError":
            if "cannot connect" in text or "no tcp" in text or "(tcp)" in text:
                return "connect"
            return "TLS" if "no tls" in text or "(tls)" in text else "CONNACK"
        if self.error in ("TLSError", "CertificateError"):
            if "after the broker's" in text:
                return "client certificate"
            if "signed" in text:
                return "chain"
            if "cn" in text.split() or "common name" in text:
                return "name"
            return "dates" if "validity" in text else "TLS"
        if self.error == "ValueError":
            return "files"
        return "CONNACK"

    def data(self):
        """Return it as a dict for --json."""
        return {**dataclasses.asdict(self), "stage": self.stage}
