"""
An asyncio MQTT client with TLS for MicroPython.

MQTT 3.1.1 and 5.0 are OASIS standards; "section" and "[MQTT-...]" below are theirs. Mistakes of
the program raise `ValueError`, `TypeError` or `RuntimeError` at the call; what the network, the
broker or a certificate does is an `MQTTError`. Any call may raise MemoryError.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

__version__: str
"""The version of the package."""

_Data = bytes | bytearray | memoryview | str
_Handler = TypeVar("_Handler", bound=Callable[[Message], Any])
_Hook = TypeVar("_Hook", bound=Callable[[], Awaitable[Any]])
_Server = str | tuple[str, int]
_Properties = Mapping[str, Any] | Sequence[tuple[str, Any]]
_Step = Callable[[bytes | None], bytes | None | Awaitable[bytes | None]]

class MQTTError(Exception):
    """
    What the network, the broker or a certificate did; the base of the errors below.

    `asyncio.TimeoutError`, raised by every `timeout_s=`, is not one of them.
    """

    reason: str
    """What happened, in plain words."""
    cure: str
    """What to do about it; "" where nothing is known, or nobody has asked yet."""

class LinkError(MQTTError):
    """The link (Wi-Fi) is not up: wrong password, no such network, no address."""

    status: int | None
    """What the driver reported: `WLAN.status()`."""

class ResolveError(MQTTError):
    """A name has no address, or no DNS server answered (RFC 1035)."""

    host: str | None
    """The name that was asked for."""

class ConnectError(MQTTError):
    """The connection was refused, timed out, or closed by the other side."""

    code: int | None
    """The errno, where there was one."""

class TLSError(MQTTError):
    """The TLS handshake failed (RFC 5246)."""

    code: int | None
    """The number of mbedTLS, which is negative, or an errno; None for a certificate."""

class CertificateError(TLSError):
    """The broker's certificate was not accepted: wrong CA, name or dates (RFC 5280)."""

class RefusedError(MQTTError):
    """
    The broker answered no: in CONNACK or SUBACK, in MQTT 5 in any acknowledgement, or by a
    DISCONNECT.
    """

    code: int
    """
    The return code (3.1.1 sections 3.2.2.3 and 3.9.3) or the reason code (5.0 section 2.4).
    """
    properties: dict[str, Any] | None
    """What the broker said with it (MQTT 5)."""

class ProtocolError(MQTTError):
    """The broker broke the specification; the message names the section."""

    code: int | None
    """The reason code that MQTT 5 has for it (5.0 section 4.13)."""

class DeliveryUnknown(MQTTError):
    """The broker lost the session while a QoS 2 message was under way: it may have arrived."""

    topic: str | None
    """Where it was published."""

class Source(Protocol):
    """
    What `publish(..., length=n)` reads: an open file, `io.BytesIO`, or an object of your own.
    QoS 1 and 2 also need `seek()` and `tell()`, as the payload may have to be sent again.
    """

    def readinto(self, buf: Any, /) -> int | None:
        """
        Put bytes into a buffer. It may be a coroutine.

        Args:
            buf: Writable, of 1024 bytes at most.

        Returns:
            The number of bytes, 0 at the end; None for nothing yet.
        """

class Stream:
    """The payload of a message, to be read once, from its start to its end."""

    async def readinto(self, buf: bytearray | memoryview) -> int:
        """
        Read what is there into `buf`, waiting for the first byte.

        Args:
            buf: Writable, of any size.

        Returns:
            The number of bytes, 0 at the end.

        Raises:
            ConnectError: The connection ended before the payload did.
        """

    async def read(self, n: int = -1) -> bytes:
        """
        Return the next bytes. A cancelled call loses what it has read.

        Args:
            n: Bytes, fewer only at the end. By default all, but no more than `max_packet`.

        Returns:
            The bytes, b"" at the end.

        Raises:
            ConnectError: The connection ended before the payload did.
        """

class Message:
    """A message from the broker (3.1.1 section 3.3). It is got, not made."""

    topic: str
    """Where it was published; never with wildcards."""
    payload: bytes
    """Its bytes; b"" for a handler with `stream=True`."""
    qos: int
    """0 to 2, as the broker sent it."""
    retain: bool
    """Kept by the broker from earlier, not published just now."""
    dup: bool
    """The broker sends it again; it may have been here before."""
    stream: Stream | None
    """The payload, for a handler with `stream=True`; else None."""
    length: int
    """The bytes of `stream`; 0 where there is none."""
    properties: dict[str, Any] | None
    """What came with it (MQTT 5), the first 64 user properties among it; else None."""
    ack_code: int
    """To be set by a handler: the reason code of the acknowledgement (5.0 section 3.4.2.1)."""
    ack_properties: _Properties | None
    """To be set by a handler: the properties of the acknowledgement (MQTT 5)."""

class Connected:
    """Event: the broker accepted the connection."""

    session_present: bool
    """The broker had kept the session (3.1.1 section 3.2.2.2)."""

class Disconnected:
    """Event: the connection was lost, or an attempt to connect failed."""

    error: Exception
    """What ended it: an `MQTTError`, or another exception, such as MemoryError."""

class RadioDead:
    """Event: the radio did not start. A reset of the board may help, or a power cut."""

    failures: int
    """How often in a row."""

class Suspect:
    """
    Event: three connections in a row broke right after this message was sent, or for want of its
    acknowledgement. It is kept back, and tried again ever more rarely.
    """

    topic: str
    """Where it was published."""

class SubscriptionRefused:
    """
    Event: the broker refused the subscription of a handler, or three connections ended when it was
    asked for; its ACL may say why.
    """

    filter: str
    """The topic filter."""

class Undelivered:
    """
    Event: a message that no task waits for was refused, or nobody knows whether it arrived.
    """

    topic: str
    """Where it was published."""
    error: MQTTError
    """A `RefusedError`, `DeliveryUnknown` or another `MQTTError`."""

class Oversized:
    """
    Event: a message did not fit, as it is over `max_packet` or there was no memory for it. It was
    read past and acknowledged.
    """

    topic: str
    """Its topic, the first 480 bytes; one with control characters is escaped."""
    size: int
    """Bytes of its packet."""

_Event = Connected | Disconnected | Suspect | SubscriptionRefused | Undelivered | Oversized

class Stats:
    """Counters since the client was made."""

    connects: int
    """Connections that the broker accepted."""
    sent: int
    """PUBLISH packets sent, repetitions left out."""
    received: int
    """PUBLISH packets received."""
    resent: int
    """Messages sent again after a reconnect."""
    duplicates: int
    """Redeliveries that were not handled twice."""
    dropped: int
    """Messages that gave way because handlers were behind (`max_backlog`): with QoS 0, or in a
    session that ends with its connection."""
    gave_way: int
    """Messages of `enqueue()` that gave way to newer ones (`full="oldest"`)."""
    unclaimed: int
    """Messages that no handler and no iterator wanted."""
    oversized: int
    """Messages that did not fit (`max_packet`, or no memory) and were read past."""
    bytes_in: int
    """Bytes received, TLS left out."""
    bytes_out: int
    """Bytes sent, TLS left out."""
    round_trip_ms: int
    """The last one, from a publish or ping to its answer, in ms; -1 before the first."""

class Will:
    """
    What the broker publishes when the client is gone without a goodbye (3.1.1 section 3.1.2.5).
    """

    topic: str
    """Where it is published."""
    payload: bytes | bytearray
    """What is published."""
    qos: int
    """0 to 2."""
    retain: bool
    """Whether the broker keeps it for later subscribers."""
    birth: bytes | bytearray | None
    """What the client publishes there after every connect."""
    goodbye: bool
    """Whether `disconnect()` publishes `payload`."""
    delay_s: int
    """Seconds that the broker waits (MQTT 5)."""
    properties: _Properties | None
    """Of the will (MQTT 5)."""
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
    ) -> None:
        """
        Args:
            topic: Without wildcards, 1 to 65535 bytes.
            payload: Bytes, or a str sent as UTF-8; at most `max_packet` bytes with its topic.
            qos: 0 to 2.
            retain: The broker keeps it for later subscribers.
            birth: Published on the same topic after every connect; None for nothing.
            goodbye: `disconnect()` publishes the payload itself, as the broker throws the will
                away then.
            delay_s: Seconds that the broker waits before it publishes the will, 0 to 4294967295
                (MQTT 5, 5.0 section 3.1.3.2.2).
            properties: Of the will (MQTT 5, 5.0 section 3.1.3.2).

        Raises:
            ValueError: A topic with wildcards, a QoS that is none, `delay_s` out of its range.
            TypeError: A topic, payload or birth of another type.
        """

class FileStore:
    """The session and the queue of a client in a directory on flash: they survive a reset."""

    directory: str
    """Where it is."""
    max_bytes: int
    """The most bytes that it takes."""
    error: OSError | MemoryError | None
    """Of the last write or read, when that failed."""
    errors: int
    """Writes and reads that failed."""
    damaged: int
    """Places in it that could not be read."""
    dropped: int
    """Messages that gave way (`full="oldest"`)."""
    refused: int
    """Messages that found no room."""
    writes: int
    """Writes to flash."""
    bytes: int
    """Its size now."""
    restored: bool
    """A session was found at the start."""
    paused: bool
    """The writes of `max_writes` are used up: what is new waits."""
    log: Callable[[str], Any] | None
    """Takes a line. The client that uses the store puts its own log here."""
    def __init__(
        self,
        directory: str,
        max_bytes: int = 65536,
        full: Literal["newest", "oldest"] = "newest",
        *,
        max_writes: int = 120,
    ) -> None:
        """
        Args:
            directory: Made if missing, in one that exists; each client needs one of its own.
            max_bytes: The most that it may take, 8192 or more. A message may take a quarter, or
                65000 bytes if that is less.
            full: What gives way when it is full: "newest", `enqueue()` returns False; "oldest",
                an eighth of `max_bytes` of the oldest messages that are not in flight.
            max_writes: Writes to flash a minute, on average over half an hour, 1 to 60000. Beyond
                it what is new waits: `publish()` for its turn, `enqueue()` in memory, QoS 2
                messages of the broker with the broker.

        Raises:
            ValueError: An argument out of its range.
        """

    def __len__(self) -> int:
        """Return the number of messages in it."""

class TLS:
    """How to reach a broker over TLS 1.2: whom to trust, and who we are (RFC 5246, RFC 5280)."""

    context: Any
    """A `tls.SSLContext`, for whatever else takes one, such as `umqtt.simple`."""
    verified: bool
    """False of `TLS.unverified()`."""
    rsa: bool
    """The device's key is of RSA."""
    ends: str | None
    """When the device's certificate ends (UTC), YYYYMMDDHHMMSSZ; None without one."""
    server_hostname: str | None
    """The name that the certificate must have, where that is not the host that is dialled."""
    ntp: _Server | None
    """What sets the clock."""
    def __init__(
        self,
        ca: _Data | Sequence[_Data],
        cert: _Data | Sequence[_Data] | None = None,
        key: _Data | None = None,
        *,
        server_hostname: str | None = None,
        ntp: _Server | None = "pool.ntp.org",
    ) -> None:
        """
        Args:
            ca: Whom to trust: the certificate of the CA that signed the broker's, or the broker's
                own if that is self-signed. A path, the content (bytes, or a str with the PEM
                text), or a list of these; PEM or DER, each with one certificate or several.
            cert: The device's certificate, for brokers that want one (mutual TLS), and those of
                the CAs between it and the root, where the broker does not have them; given as
                `ca` is. All are sent, in their order: the device's own first.
            key: Its private key, not encrypted: a path or the content.
            server_hostname: The name that must be in the broker's certificate, where that is not
                the host that is dialled. It is also sent to the broker (SNI, RFC 6066).
            ntp: What sets the clock before the first handshake if it cannot be right: a name or
                an address, or a pair of one and a UDP port; None for never (RFC 4330).

        Raises:
            ValueError: A file that is missing, empty, encrypted, damaged or of another kind, or
                no pair; the message has the file's name and what to do.
            TypeError: Another type.
        """

    @classmethod
    def unverified(
        cls,
        cert: _Data | Sequence[_Data] | None = None,
        key: _Data | None = None,
        *,
        server_hostname: str | None = None,
        ntp: _Server | None = ...,
    ) -> TLS:
        """
        Return a TLS that encrypts but believes any broker: whoever is in between can read and
        change everything. For a first try on a bench.

        Args:
            cert: As of TLS.
            key: As of TLS.
            server_hostname: Sent to the broker (SNI), not checked.
            ntp: As of TLS.

        Returns:
            A TLS with `verified` False. The log says "NOT VERIFIED" at every connect.

        Raises:
            ValueError: As TLS.
            TypeError: As TLS.
        """

class Link(Protocol):
    """
    What MQTTClient needs of a link; WiFi is one. A link may also have `async def alive(self)`, as
    WiFi has it: it is asked after attempts that nobody answered.
    """

    async def up(self) -> str | None:
        """
        Return when there is an address, at once if there is one already.

        Returns:
            A remark for the log, or None.

        Raises:
            LinkError: It cannot come up, and why.
        """

    def is_up(self) -> bool:
        """Return whether there is an address. It is called often and must not block."""

    async def reset(self) -> None:
        """Take down a link that looks up but carries nothing, so that `up()` starts afresh."""

    async def down(self) -> None:
        """Take it down. The client does not call it; an app does, to save current."""

    def dns_servers(self) -> Sequence[_Server]:
        """Return the DNS servers: addresses, or pairs of one and a UDP port; [] if unknown."""

class WiFi:
    """
    The station interface of the board, with the networks that it may join (rp2 with its cyw43
    chip, esp32).
    """

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
    ) -> None:
        """
        The radio is not touched before `up()`. The first one leaves a network that boot.py or an
        earlier program had joined, and joins with these settings.

        Args:
            ssid: The name of the network, 1 to 32 bytes.
            password: 8 to 63 bytes, or 64 hexadecimal digits; None for an open network.
            networks: Instead of both, pairs of them, tried in turn. The one that worked last is
                tried first the next time.
            country: Two letters, such as "DE": which channels may be used, from the next time on
                that the radio is switched on. The esp32 takes no notice of it.
            hostname: 1 to 32 bytes, told to DHCP.
            static: Address, netmask, gateway and DNS server, dotted IPv4; None for DHCP.
            power_save: The cyw43 sleeps between beacons: less current, and messages come later.

        Raises:
            ValueError: An argument that cannot be right, or a machine without Wi-Fi: give
                MQTTClient `link=None` there.
            TypeError: Another type.
        """

    async def up(self) -> str | None:
        """
        Return when the board is in one of the networks and has an address, at once if it is so
        already. Each network gets 20 s at most. It may be cancelled.

        Returns:
            A remark for the log, or None.

        Raises:
            LinkError: What stood in the way at which network, and what to do about it.
        """

    def is_up(self) -> bool:
        """
        Return whether the board is in a network and has an address; False before the first
        `up()`. It does not block.
        """

    async def alive(self) -> bool:
        """
        Ask the router and the DNS server for a sign of life, over a link that is up. A radio that
        hangs is switched off.

        Returns:
            Whether there was one.
        """

    async def reset(self) -> None:
        """Leave the network, even one that only seems to be there: `up()` joins afresh."""

    async def down(self) -> None:
        """
        Leave the network and switch the radio off, for battery devices. On the cyw43 Bluetooth
        and the access point go with it.
        """

    def dns_servers(self) -> list[str]:
        """Return the DNS servers, dotted IPv4; [] where none is known."""

class Messages(AsyncIterator[Message]):
    """
    What no handler claims, in order of arrival: `async for message in client.messages()`.

    A message is acknowledged when the next one is asked for. An iterator that does not ask within
    `handler_timeout_s` counts as left, until it asks again. It ends when the client stops, or is
    about to: what it has not given out then stays with the broker (QoS 1 and 2).
    """

    async def __anext__(self) -> Message:
        """
        Acknowledge the last message, wait for the next.

        Raises:
            StopAsyncIteration: The client was stopped.
        """

    async def next(self, timeout_s: float | None = None) -> Message:
        """
        Acknowledge the last message, wait for the next. A time-out or a cancellation loses none,
        not even where it meets a message.

        Args:
            timeout_s: Seconds; 0 for what is there already; None: for ever.

        Returns:
            The message.

        Raises:
            asyncio.TimeoutError: After `timeout_s`.
            StopAsyncIteration: The client was stopped.
        """

    async def __aenter__(self) -> Messages:
        """Return the iterator, which its block leaves at its end."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the iterator, as `close()`."""

    def close(self) -> None:
        """Leave the iterator: its message is acknowledged, the rest counts as unclaimed."""

class Events(AsyncIterator[_Event]):
    """
    What happens to the connection: `async for event in client.events()`. The last 16 are kept for
    an iterator that is slow. It ends when the client stops.
    """

    async def __anext__(self) -> _Event:
        """
        Wait for the next event.

        Raises:
            StopAsyncIteration: The client was stopped.
        """

    async def next(self, timeout_s: float | None = None) -> _Event:
        """
        Wait for the next event. A time-out or a cancellation loses none.

        Args:
            timeout_s: Seconds; 0 for what is there already; None: for ever.

        Returns:
            The event.

        Raises:
            asyncio.TimeoutError: After `timeout_s`.
            StopAsyncIteration: The client was stopped.
        """

class MQTTClient:
    """
    An MQTT client that stays connected.

    `async with client:` starts it and goes on at once; from then on it connects, and connects
    again, until the block is left. `publish` and `subscribe` wait while there is no connection.
    """

    host: str
    """The broker that it is connected to, or tries next."""
    port: int
    """Its port."""
    client_id: str
    """The client id; with `client_id=""` the one that the broker gave it (MQTT 5)."""
    connected: bool
    """Whether the broker has accepted the connection that is there now."""
    running: bool
    """Whether it is started and not stopped."""
    error: Exception | None
    """What ended the last connection or attempt; None after a start."""
    stats: Stats
    """Its counters."""
    properties: dict[str, Any] | None
    """What the broker said in CONNACK (MQTT 5); else None."""
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
        balance: bool = False,
        prefer_first_s: int | None = None,
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
        max_waiting: int = 32,
    ) -> None:
        """
        It touches nothing but memory, and with `store` the flash.

        Args:
            host: Name or IPv4 address of the broker; or a list of them, or of pairs (host, port),
                tried in order.
            port: 1 to 65535; by default 8883 with `tls`, else 1883.
            link: `WiFi(...)` or another link; None: something else keeps the network up.
            tls: `TLS(...)`; None: plain TCP.
            client_id: 1 to 65535 bytes, another one for each client of a broker. By default from
                `machine.unique_id()`; on the PC random for the process. "" lets the broker
                choose (MQTT 5, or with `clean_start`).
            user: User name, 1 to 65535 bytes.
            password: Password, at most 65535 bytes; with MQTT 3.1.1 only with `user`.
            will: `Will(...)`: what the broker publishes when the client is gone.
            log: Takes a line (str) at each change of state; None: no log.
            clean_start: Forget the session at every connect (MQTT 5: at the first), 3.1.1 section
                3.1.2.4.
            give_up_after: Fail a message after which so many connections broke, or on which it was
                not acknowledged, 1 to 65535; None: never: after three it is kept back, so that
                others get through, and tried again ever more rarely.
            protocol: 4 is MQTT 3.1.1, 5 is MQTT 5.0.
            store: `FileStore(...)`: the session and the queue of `enqueue()` survive a reset.
            shared_session: The brokers of the list are one cluster, which shares the session.
            balance: Each client has an order of the list of its own, by its id: a fleet spreads
                evenly, also when one of the brokers is gone.
            prefer_first_s: 1 to 86400: seconds, half to one and a half of them, between questions
                whether the first broker is back, while the client is with another one; it then
                goes back there. None: it stays where it is.
            session_expiry_s: MQTT 5: seconds that the broker keeps the session while the device
                is away, 0 to 4294967295 (for ever); by default 3600 (5.0 section 3.1.2.11.2).
            properties: MQTT 5: of CONNECT; a value of None leaves out what is there by default
                (5.0 section 3.1.2.11).
            auth: MQTT 5: method and step function of an enhanced authentication (5.0 section
                4.12).
            topic_aliases: MQTT 5: the most topics of a connection that QoS 0 messages send as a
                number, 0 to 65535 (5.0 section 3.3.2.3.4).
            keepalive_s: 1 to 65535 s, the longest silence before the broker is asked for a sign
                (3.1.1 section 3.1.2.10).
            connect_timeout_s: 1 to 600 s, for TCP, TLS and CONNACK together.
            ack_timeout_s: 1 to 600 s, a later acknowledgement drops the connection.
            handler_timeout_s: 1 to 86400 s, a handler that takes longer gets its message
                acknowledged.
            drain_s: 0 to 600 s, how long `disconnect()` waits for handlers and what is in flight.
            max_packet: 64 to 268435455 bytes, the largest packet sent or accepted.
            max_backlog: `max_packet` to 268435455 bytes received and not handled yet.
            max_inflight: 1 to 65535 QoS 1 and 2 messages that wait for their acknowledgement at a
                time.
            max_queue: 0 to 268435455 bytes that wait in the queue of `enqueue()`: one piece of
                memory that its first call takes.
            max_waiting: 1 to 65535 `publish()` calls that wait at a time, for a connection or for
                those before them. One whose packet has n bytes counts 1 + n // 512 times.

        Raises:
            ValueError: An argument out of its range, one of MQTT 5 with `protocol=4`, a running
                client with the same broker and id, a store that cannot be used.
            TypeError: An argument of another type, or of an unknown name.
        """

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
    ) -> Callable[[_Handler], _Handler]:
        """
        Declare a subscription and its handler, a function or a coroutine, which gets a `Message`:
        `@client.on("garden/valve/+", qos=1)`. It is renewed after every connect.

        A QoS 1 or 2 message is acknowledged when its handlers have returned.

        Args:
            filter: Topic filter, 1 to 65535 bytes (3.1.1 section 4.7).
            qos: 0 to 2, the most that messages come with.
            stream: The handler reads `message.stream`, which may be larger than memory.
            no_local: MQTT 5: not what this client publishes itself (5.0 section 3.8.3.1).
            retain_as_published: MQTT 5: `message.retain` as the sender set it.
            retain_handling: MQTT 5: messages that the broker has kept: 0 always, 1 only for a new
                subscription, 2 never.
            properties: MQTT 5: of SUBSCRIBE (5.0 section 3.8.2.1).

        Returns:
            The decorator.

        Raises:
            ValueError: A bad filter or QoS, a filter that has a handler already, an option of
                MQTT 5 with `protocol=4`.
            TypeError: What is decorated is no function; another type.
        """

    def on_connect(self, handler: _Hook) -> _Hook:
        """
        Run a coroutine after every connect, when the subscriptions are in place, in a task of its
        own: `@client.on_connect`. The next connect ends one that still runs, and starts it anew.

        Args:
            handler: `async def`, without arguments.

        Returns:
            `handler`.

        Raises:
            TypeError: It is no function.
        """

    def report(self, topic: str | None = None, every_s: float = 900) -> None:
        """
        Tell how the board is, after every connect and then every `every_s` seconds: a retained
        message, JSON, with QoS 1; docs/fleet.md says what is in it. Call it before the client is
        started. A client without a will gets one, retained, which says "online" or "offline".

        Args:
            topic: Where; None: devices/ID/report with the client id, or beside the topic of the
                will, if that ends with /status. The will that is made is on status beside it.
            every_s: Seconds, 10 to 86400.

        Raises:
            ValueError: Another number of seconds, no topic, a `max_packet` too small for it.
            TypeError: Another type of topic.
            RuntimeError: The client runs.
        """

    async def __aenter__(self) -> MQTTClient:
        """
        Start the client and return it, at once. It connects in a task of its own.

        Raises:
            RuntimeError: It runs already.
            ValueError: Another client with the same broker and id runs.
        """

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Disconnect and stop, as `disconnect()`."""

    async def connect(self, timeout_s: float = 30) -> None:
        """
        Start, and return when connected: for scripts, which want an error rather than patience.
        An app uses `async with client`.

        Args:
            timeout_s: Seconds until the last error is raised; one that will not heal by itself is
                raised sooner.

        Raises:
            MQTTError: What keeps it from connecting, or another exception that does. The client
                is stopped then.
            ValueError: Another client with the same broker and id runs.
        """

    async def disconnect(self, reason: int = 0, properties: _Properties | None = None) -> None:
        """
        Say goodbye and stop (3.1.1 section 3.14): publish the will's payload, wait up to `drain_s`
        for what is in flight and for the handlers that have a message, disconnect. Until then
        `publish()` and `enqueue()` work. What still waits raises `MQTTError`; a message whose
        handler has not returned is not acknowledged (QoS 1 and 2: it comes again in the next
        session). The client can be started again.

        Args:
            reason: MQTT 5: reason code; 4 asks the broker to publish the will (5.0 section
                3.14.2.1).
            properties: MQTT 5: of DISCONNECT.

        Raises:
            ValueError: A reason or properties that it cannot have.
            TypeError: Another type.
        """

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """
        Return when connected.

        Args:
            timeout_s: Seconds; None: for ever.

        Raises:
            asyncio.TimeoutError: After `timeout_s`.
            RuntimeError: The client is not running, or is stopped meanwhile.
        """

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
    ) -> int:
        """
        Publish; return when the QoS is fulfilled: 0 handed to the network, 1 acknowledged by the
        broker, 2 received by it exactly once, across reconnects (3.1.1 section 4.3). Offline it
        waits.

        A time-out and a cancellation take back a message of which nothing was sent; else they end
        the waiting only. Arguments are checked at the call, before the `await`. Without `await` it
        sends nothing; the log says so after a minute or so.

        Args:
            topic: Without wildcards, 1 to 65535 bytes.
            payload: Bytes, or a str sent as UTF-8; with `length` a stream.
            qos: 0 to 2.
            retain: The broker keeps it for later subscribers (3.1.1 section 3.3.1.3).
            timeout_s: Seconds; None: for ever.
            properties: MQTT 5: of PUBLISH (5.0 section 3.3.2.3).
            length: 0 to 268435455 bytes to be read from the stream `payload`.

        Returns:
            The reason code of the acknowledgement: 0; with MQTT 5 also 16, no subscriber.

        Raises:
            ValueError: A bad topic, QoS or `length`, a message larger than `max_packet`,
                `properties` without MQTT 5; later, a stream that ended before `length` bytes.
            TypeError: A payload of another type: `str(value)` or `json.dumps(value)` makes one;
                a stream without `seek()` and `tell()` with QoS 1 and 2.
            RuntimeError: The client is not running; `max_waiting` calls wait already; or a handler
                with `stream=True` would wait for an answer that comes after the payload that it
                reads.
            RefusedError: The broker refused it (MQTT 5).
            DeliveryUnknown: QoS 2, and the broker lost the session.
            ConnectError: A stream that gives nothing for 10 s, or has no `seek()` and was sent in
                part. What a stream raises comes here, too.
            asyncio.TimeoutError: After `timeout_s`.
            MQTTError: The client was stopped meanwhile, or gave up (`give_up_after`); MQTT 5: the
                message expired while it waited.
        """

    def enqueue(
        self,
        topic: str,
        payload: _Data = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: _Properties | None = None,
        full: Literal["newest", "oldest"] = "newest",
    ) -> bool:
        """
        Put a message on the outgoing queue, without waiting: from plain functions, and from soft
        interrupts, too.

        Args:
            topic: As of `publish`.
            payload: Bytes, or a str sent as UTF-8.
            qos: 0 to 2.
            retain: As of `publish`.
            properties: MQTT 5: of PUBLISH.
            full: What becomes of it when the queue is full: "newest", it is not taken; "oldest",
                the oldest that wait give way. With a store its own `full` decides.

        Returns:
            False when the queue is full (`max_queue` bytes; with a store: that), else True.

        Raises:
            ValueError: As `publish`; also for a message that is larger than the queue, or than a
                quarter of the store; and for a `full` that is neither, or "oldest" with a store.
            TypeError: As `publish`.
            RuntimeError: The client is not running; or it is called in a second thread, on a port
                where nothing keeps threads apart.
            MemoryError: The first call found no memory for the queue, or one for its message.
        """

    async def request(
        self,
        topic: str,
        payload: _Data = b"",
        *,
        qos: int = 0,
        timeout_s: float | None = 10,
        properties: _Properties | None = None,
        response_topic: str | None = None,
    ) -> Message:
        """
        Publish a question and return its answer (MQTT 5, 5.0 section 4.10).

        Args:
            topic: Where something answers.
            payload: Bytes, or a str sent as UTF-8.
            qos: 0 to 2, of the question; the answer comes with 1 at most.
            timeout_s: Seconds; None: for ever.
            properties: Of PUBLISH. The response topic and the correlation data are added.
            response_topic: Where the answer is to go, and no handler of yours; None: what the
                broker offers, else `devices/ID/response` with the client id.

        Returns:
            The answer.

        Raises:
            ValueError: As `publish`; also without `protocol=5`, and for a `response_topic` that
                is none, or has a handler of yours.
            TypeError: As `publish`.
            RuntimeError: The client is not running, or 16 requests wait already.
            RefusedError: The broker refused it, or nobody is subscribed to `topic` (code 16, QoS 1
                and 2, where the broker says so).
            asyncio.TimeoutError: After `timeout_s`.
            MQTTError: The client was stopped meanwhile.
        """

    async def respond(
        self,
        message: Message,
        payload: _Data = b"",
        *,
        qos: int | None = None,
        properties: _Properties | None = None,
    ) -> int:
        """
        Answer a request (MQTT 5, 5.0 section 4.10).

        Args:
            message: The request.
            payload: Bytes, or a str sent as UTF-8.
            qos: 0 to 2; by default that of the request.
            properties: Of PUBLISH. The correlation data is added.

        Returns:
            The reason code, as of `publish`.

        Raises:
            ValueError: As `publish`; also without `protocol=5`, and for a message that asks for no
                answer.
            TypeError: As `publish`.
            RuntimeError: As `publish`.
            RefusedError: As `publish`.
            DeliveryUnknown: As `publish`.
            MQTTError: As `publish`.
        """

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
    ) -> int:
        """
        Subscribe now, and after every connect (3.1.1 section 3.8). What matches goes to the
        handlers and to `messages()`.

        Args:
            filter: Topic filter, 1 to 65535 bytes (3.1.1 section 4.7).
            qos: 0 to 2, the most that messages come with.
            timeout_s: Seconds; None: for ever. What is not granted by then, or when the call is
                cancelled, is not asked for any more, unless a handler wants it, another call
                waits for it, or it was granted before.
            no_local: MQTT 5: as of `on`.
            retain_as_published: MQTT 5: as of `on`.
            retain_handling: MQTT 5: as of `on`.
            properties: MQTT 5: of SUBSCRIBE.

        Returns:
            The QoS that the broker granted, 0 to 2.

        Raises:
            ValueError: A bad filter or QoS, an option of MQTT 5 with `protocol=4`.
            TypeError: Another type.
            RuntimeError: As `publish`; also when the client is stopped meanwhile.
            RefusedError: The broker refused it, or three connections ended when it was asked for.
            asyncio.TimeoutError: After `timeout_s`.
        """

    async def unsubscribe(
        self,
        *filters: str,
        timeout_s: float | None = None,
        properties: _Properties | None = None,
    ) -> None:
        """
        Take back subscriptions and their handlers; return when the broker knows (3.1.1 section
        3.10). What waits for a handler is acknowledged.

        Args:
            *filters: Topic filters, also of an earlier program, which the session may still have.
            timeout_s: Seconds; None: for ever.
            properties: MQTT 5: of UNSUBSCRIBE.

        Raises:
            ValueError: A bad filter, `properties` without MQTT 5.
            TypeError: Another type.
            RuntimeError: As `publish`; also when the client is stopped meanwhile.
            RefusedError: The broker refused it (MQTT 5), or three connections in a row ended on
                it: it is not asked for any more.
            asyncio.TimeoutError: After `timeout_s`.
        """

    async def reauthenticate(self) -> None:
        """
        Authenticate once more on this connection; return when the broker agrees (MQTT 5, 5.0
        section 4.12.1). A cancellation and the time-out end the waiting only.

        Raises:
            ValueError: The client has no `auth`.
            RuntimeError: It is not connected, or this is under way already.
            RefusedError: The broker does not agree; the connection is closed.
            asyncio.TimeoutError: After `ack_timeout_s`.
            MQTTError: What else ended the connection.
        """

    def messages(self) -> Messages:
        """Return an iterator of the messages that no handler claims."""

    def events(self) -> Events:
        """Return an iterator of the events from now on."""
