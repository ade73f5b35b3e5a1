from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

__version__: str

_Data = bytes | bytearray | memoryview | str
_Handler = TypeVar("_Handler", bound=Callable[[Message], Any])
_Hook = TypeVar("_Hook", bound=Callable[[], Awaitable[Any]])
_Server = str | tuple[str, int]
_Properties = Mapping[str, Any] | Sequence[tuple[str, Any]]
_Step = Callable[[bytes | None], bytes | None | Awaitable[bytes | None]]

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

class RefusedError(MQTTError):
    properties: dict[str, Any] | None

class ProtocolError(MQTTError): ...

class DeliveryUnknown(MQTTError):
    topic: str | None

class Source(Protocol):
    """What `publish(..., length=n)` reads; QoS 1 and 2 also need seek() and tell()."""

    def readinto(self, buf: Any, /) -> int | None: ...

class Stream:
    async def readinto(self, buf: bytearray | memoryview) -> int: ...
    async def read(self, n: int = -1) -> bytes: ...

class Message:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    stream: Stream | None
    length: int
    properties: dict[str, Any] | None
    ack_code: int
    ack_properties: _Properties | None

class Connected:
    session_present: bool

class Disconnected:
    error: Exception

class Suspect:
    topic: str

class SubscriptionRefused:
    filter: str

class Undelivered:
    topic: str
    error: MQTTError

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
    topic: str
    payload: bytes | bytearray
    qos: int
    retain: bool
    birth: bytes | bytearray | None
    goodbye: bool
    delay_s: int
    properties: _Properties | None
    def __init__(
        self,
        topic: str,
        payload: _Data,
        qos: int = 0,
        retain: bool = False,
        birth: _Data | None = None,
        *,
        goodbye: bool = True,
        delay_s: int = 0,
        properties: _Properties | None = None,
    ) -> None: ...

class FileStore:
    directory: str
    max_bytes: int
    error: OSError | MemoryError | None
    errors: int
    damaged: int
    dropped: int
    refused: int
    writes: int
    bytes: int
    restored: bool
    log: Callable[[str], Any] | None
    def __init__(
        self,
        directory: str,
        max_bytes: int = 65536,
        full: Literal["newest", "oldest"] = "newest",
    ) -> None: ...
    def __len__(self) -> int: ...

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
    properties: dict[str, Any] | None
    def __init__(
        self,
        host: str | Sequence[str | tuple[str, int]],
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
        protocol: Literal[4, 5] = 4,
        store: FileStore | None = None,
        shared_session: bool = False,
        session_expiry_s: int | None = None,
        properties: _Properties | None = None,
        auth: tuple[str, _Step] | None = None,
        topic_aliases: int = 0,
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
    def on(
        self,
        filter: str,
        qos: int = 0,
        *,
        stream: bool = False,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: _Properties | None = None,
    ) -> Callable[[_Handler], _Handler]: ...
    def on_connect(self, handler: _Hook) -> _Hook: ...
    async def __aenter__(self) -> MQTTClient: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    async def connect(self, timeout_s: float = 30) -> None: ...
    async def disconnect(self, reason: int = 0, properties: _Properties | None = None) -> None: ...
    async def wait_connected(self, timeout_s: float | None = None) -> None: ...
    async def publish(
        self,
        topic: str,
        payload: _Data | Source = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        timeout_s: float | None = None,
        properties: _Properties | None = None,
        length: int | None = None,
    ) -> int: ...
    def enqueue(
        self,
        topic: str,
        payload: _Data = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: _Properties | None = None,
    ) -> bool: ...
    async def request(
        self,
        topic: str,
        payload: _Data = b"",
        *,
        qos: int = 0,
        timeout_s: float | None = 10,
        properties: _Properties | None = None,
    ) -> Message: ...
    async def respond(
        self,
        message: Message,
        payload: _Data = b"",
        *,
        qos: int | None = None,
        properties: _Properties | None = None,
    ) -> int: ...
    async def subscribe(
        self,
        filter: str,
        qos: int = 0,
        *,
        timeout_s: float | None = None,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: _Properties | None = None,
    ) -> int: ...
    async def unsubscribe(
        self,
        *filters: str,
        timeout_s: float | None = None,
        properties: _Properties | None = None,
    ) -> None: ...
    async def reauthenticate(self) -> None: ...
    def messages(self) -> Messages: ...
    def events(
        self,
    ) -> AsyncIterator[Connected | Disconnected | Suspect | SubscriptionRefused | Undelivered]: ...
