from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

__version__: str

_Data = bytes | bytearray | memoryview | str
_Handler = TypeVar("_Handler", bound=Callable[[Message], Any])
_Hook = TypeVar("_Hook", bound=Callable[[], Awaitable[Any]])
_Server = str | tuple[str, int]

class MQTTError(Exception):
    reason: str
    code: int | None
    cure: str

class LinkError(MQTTError):
    status: int | None

class ResolveError(MQTTError):
    host: str | None

class ConnectError(MQTTError): ...
class TLSError(MQTTError): ...
class CertificateError(TLSError): ...
class RefusedError(MQTTError): ...
class ProtocolError(MQTTError): ...

class DeliveryUnknown(MQTTError):
    topic: str | None

class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    properties: None

class Connected:
    session_present: bool

class Disconnected:
    error: Exception

class Suspect:
    topic: str

class SubscriptionRefused:
    filter: str

class Stats:
    connects: int
    sent: int
    received: int
    resent: int
    duplicates: int
    dropped: int
    unclaimed: int
    bytes_in: int
    bytes_out: int
    round_trip_ms: int

class Will:
    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    birth: bytes | None
    def __init__(
        self,
        topic: str,
        payload: _Data,
        qos: int = 0,
        retain: bool = False,
        birth: _Data | None = None,
    ) -> None: ...

class TLS:
    context: Any
    verified: bool
    server_hostname: str | None
    ntp: _Server | None
    def __init__(
        self,
        ca: _Data | Sequence[_Data],
        cert: _Data | None = None,
        key: _Data | None = None,
        *,
        server_hostname: str | None = None,
        ntp: _Server | None = "pool.ntp.org",
    ) -> None: ...
    @classmethod
    def unverified(
        cls,
        cert: _Data | None = None,
        key: _Data | None = None,
        *,
        server_hostname: str | None = None,
        ntp: _Server | None = ...,
    ) -> TLS: ...

class Link(Protocol):
    """What MQTTClient needs of a link; WiFi is one."""

    async def up(self) -> None: ...
    def is_up(self) -> bool: ...
    async def reset(self) -> None: ...
    async def down(self) -> None: ...
    def dns_servers(self) -> Sequence[_Server]: ...

class WiFi:
    def __init__(
        self,
        ssid: str | None = None,
        password: str | None = None,
        *,
        networks: Sequence[tuple[str, str | None]] | None = None,
        country: str | None = None,
        hostname: str | None = None,
        static: tuple[str, str, str, str] | None = None,
        power_save: bool = False,
    ) -> None: ...
    async def up(self) -> None: ...
    def is_up(self) -> bool: ...
    async def reset(self) -> None: ...
    async def down(self) -> None: ...
    def dns_servers(self) -> list[str]: ...

class Messages(AsyncIterator[Message]):
    async def __anext__(self) -> Message: ...
    async def __aenter__(self) -> Messages: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def close(self) -> None: ...

class MQTTClient:
    host: str
    port: int
    client_id: str
    connected: bool
    running: bool
    error: Exception | None
    stats: Stats
    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        link: Link | None = None,
        tls: TLS | None = None,
        client_id: str | None = None,
        user: str | None = None,
        password: str | bytes | None = None,
        will: Will | None = None,
        log: Callable[[str], Any] | None = print,
        clean_start: bool = False,
        give_up_after: int | None = None,
        protocol: int = 4,
        keepalive_s: float = 60,
        connect_timeout_s: float = 30,
        ack_timeout_s: float = 20,
        handler_timeout_s: float = 60,
        drain_s: float = 5,
        max_packet: int = 4096,
        max_backlog: int = 16384,
        max_inflight: int = 8,
        max_queue: int = 8192,
    ) -> None: ...
    def on(self, filter: str, qos: int = 0) -> Callable[[_Handler], _Handler]: ...
    def on_connect(self, handler: _Hook) -> _Hook: ...
    async def __aenter__(self) -> MQTTClient: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    async def connect(self, timeout_s: float = 30) -> None: ...
    async def disconnect(self) -> None: ...
    async def wait_connected(self, timeout_s: float | None = None) -> None: ...
    async def publish(
        self,
        topic: str,
        payload: _Data = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        timeout_s: float | None = None,
    ) -> None: ...
    def enqueue(
        self, topic: str, payload: _Data = b"", *, qos: int = 0, retain: bool = False
    ) -> bool: ...
    async def subscribe(
        self, filter: str, qos: int = 0, *, timeout_s: float | None = None
    ) -> int: ...
    async def unsubscribe(self, filter: str, *, timeout_s: float | None = None) -> None: ...
    def messages(self) -> Messages: ...
    def events(
        self,
    ) -> AsyncIterator[Connected | Disconnected | Suspect | SubscriptionRefused]: ...
