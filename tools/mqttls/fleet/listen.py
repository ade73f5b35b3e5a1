"""The connection of a PC to the broker: it subscribes, and publishes nothing."""

import contextlib
import secrets
import ssl
import threading
import time

from ..messages import Failure, command

try:
    import paho.mqtt.client as paho
except ImportError:
    paho = None

_TIMEOUT_S = 20
_QUIET_S = 1  # without a message: then the broker has sent what it keeps
_LONGEST_S = 30


class _NamedBroker(ssl.SSLContext):
    """One that asks for `name` (str) in the certificate, whatever is dialled."""

    name = None

    def wrap_socket(self, sock, **options):
        return super().wrap_socket(sock, **{**options, "server_hostname": self.name})


def _context(folder, settings):
    made = _NamedBroker(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # as for a board: whom it trusts need not be a root, and brokers' certificates are as they are
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    made.name = settings.get("server_hostname") or settings["host"]
    made.load_verify_locations(folder / "ca.crt")
    if settings.get("cert"):
        made.load_cert_chain(folder / "cert.crt", folder / "key.pem")
    return made


class Listener:
    """
    Hears what boards say, and goes on when the connection was lost, in a thread of its own. Use it
    in a `with`.

    folder    Path of the device in the directory of certificates that it connects as
    settings  dict of its tls.json
    boards    fleet.boards.Boards
    own_id    bool: its client id is one of its own, as another may have that of the device

    connected  bool

    Raises Failure when the broker does not let it in, or gives it nothing.
    """

    def __init__(self, folder, settings, boards, own_id=False):
        if paho is None:
            raise Failure(
                "fleet needs paho-mqtt, which is not installed",
                "pip install 'mqttls[fleet]', in the Python that mqttls runs in",
                stage="files",
            )
        self._boards, self._host, self._port = boards, settings["host"], settings["port"]
        self._name = folder.name
        self._answered = threading.Event()
        self._why, self.connected = "", False
        client_id = settings.get("client_id") or folder.name
        if own_id:
            client_id = f"mqttls-fleet-{secrets.token_hex(4)}"
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, reconnect_on_failure=True
        )
        if settings.get("tls", True):
            try:
                client.tls_set_context(_context(folder, settings))
            except (ssl.SSLError, OSError) as error:
                raise Failure(
                    f"the certificates in {folder}: {error}",
                    command("device", "add", folder.name),
                    stage="files",
                ) from None
        if settings.get("user") is not None:
            client.username_pw_set(settings["user"], settings.get("password"))
        client.connect_timeout = _TIMEOUT_S
        client.reconnect_delay_set(1, 30)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message

    def __enter__(self):
        where = f"{self._host} port {self._port}"
        cure = command("doctor", f"{self._host}:{self._port}", "--device", self._name)
        try:
            self._client.connect(self._host, self._port, keepalive=30)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise Failure(f"{where}: {error}", cure, stage="connect") from None
        self._client.loop_start()
        if not self._answered.wait(_TIMEOUT_S) or self._why:
            self.__exit__()
            why = self._why or f"no answer within {_TIMEOUT_S} s"
            raise Failure(f"{where} does not let {self._name} in: {why}", cure, stage="CONNACK")
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()

    def settle(self):
        """Return when the broker has sent what it keeps, or a while after."""
        end, seen, since = time.monotonic() + _LONGEST_S, -1, time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < _QUIET_S:
            if self._boards.came != seen:
                seen, since = self._boards.came, time.monotonic()
            time.sleep(0.05)

    # In the thread of paho

    def _on_connect(self, client, data, flags, reason, properties):
        if reason.is_failure:
            self._why = self._why or str(reason).lower()
            self._answered.set()
            return
        client.subscribe([(each, 0) for each in self._boards.filters])

    def _on_subscribe(self, client, data, packet_id, reasons, properties):
        if any(each.is_failure for each in reasons):
            self._why = self._why or "it may not subscribe to how boards are"
        self.connected = not self._why
        self._answered.set()

    def _on_disconnect(self, client, data, flags, reason, properties):
        self.connected = False
        if not self._answered.is_set():
            self._why = f"the connection ended ({reason})"
            self._answered.set()

    def _on_message(self, client, data, message):
        with contextlib.suppress(UnicodeDecodeError):  # of a topic: no board's
            self._boards.take(message.topic, message.payload, message.retain)
