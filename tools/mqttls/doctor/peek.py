"""
A look at what a broker answers to a board: send the ClientHello that MicroPython's mbedTLS sends,
read the answer up to ServerHelloDone, close. No key is used, nothing is decrypted or believed.
Where that is not enough, Python's ssl looks, which believes nothing either.

Only the standard library. Every wait, size and count has a bound: the other side can be anything.
"""

import base64
import contextlib
import dataclasses
import os
import socket
import ssl
import struct
import threading
import time

# What MicroPython 1.25 to 1.29 offers on every port with the common mbedTLS configuration (rp2,
# unix, stm32, mimxrt); taken from the wire, in its order.
BOARD_CIPHERS = (
    *(0xC02C, 0xC030, 0xC024, 0xC028, 0xC00A, 0xC014, 0xC02B, 0xC02F, 0xC023, 0xC027),
    *(0xC009, 0xC013, 0x009D, 0x003D, 0x0035, 0x009C, 0x003C, 0x002F),
)
BOARD_GROUPS = (23, 24, 25)
BOARD_SIGNATURES = (0x0603, 0x0601, 0x0503, 0x0501, 0x0403, 0x0401)

# What a PC offers besides, to learn what the broker would have liked.
_MORE_CIPHERS = (
    *(0xCCA9, 0xCCA8, 0xCCAA, 0x009F, 0x009E, 0x006B, 0x0067, 0x0039, 0x0033),
    *(0xC0AC, 0xC0AD, 0xC0AE, 0xC0AF, 0xC072, 0xC073, 0xC076, 0xC077),
)
_MORE_GROUPS = (29, 30, 26, 27, 28, 22, 21, 256, 257)
_MORE_SIGNATURES = (
    *(0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x081A, 0x081B, 0x081C),
    *(0x0203, 0x0201),
)
# of keys that both sides have (RFC 4279, 5487, 5489, 7905), without certificates
_PSK_CIPHERS = (
    *(0xC035, 0xC036, 0xC037, 0xC038, 0xCCAC, 0xCCAB, 0x00A8, 0x00A9, 0x00AA, 0x00AB),
    *(0x00AE, 0x00AF, 0x008C, 0x008D, 0x0090, 0x0091),
)
_CIPHERS_13 = (0x1302, 0x1303, 0x1301)

VERSIONS = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2"}
VERSIONS[0x0304] = "TLS 1.3"
CIPHERS = {
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xC024: "ECDHE-ECDSA-AES256-SHA384",
    0xC028: "ECDHE-RSA-AES256-SHA384",
    0xC00A: "ECDHE-ECDSA-AES256-SHA",
    0xC014: "ECDHE-RSA-AES256-SHA",
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC023: "ECDHE-ECDSA-AES128-SHA256",
    0xC027: "ECDHE-RSA-AES128-SHA256",
    0xC009: "ECDHE-ECDSA-AES128-SHA",
    0xC013: "ECDHE-RSA-AES128-SHA",
    0x009D: "AES256-GCM-SHA384",
    0x003D: "AES256-SHA256",
    0x0035: "AES256-SHA",
    0x009C: "AES128-GCM-SHA256",
    0x003C: "AES128-SHA256",
    0x002F: "AES128-SHA",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xCCAA: "DHE-RSA-CHACHA20-POLY1305",
    0x009F: "DHE-RSA-AES256-GCM-SHA384",
    0x009E: "DHE-RSA-AES128-GCM-SHA256",
    0x006B: "DHE-RSA-AES256-SHA256",
    0x0067: "DHE-RSA-AES128-SHA256",
    0x0039: "DHE-RSA-AES256-SHA",
    0x0033: "DHE-RSA-AES128-SHA",
    0xC0AC: "ECDHE-ECDSA-AES128-CCM",
    0xC0AD: "ECDHE-ECDSA-AES256-CCM",
    0xC0AE: "ECDHE-ECDSA-AES128-CCM8",
    0xC0AF: "ECDHE-ECDSA-AES256-CCM8",
    0xC072: "ECDHE-ECDSA-CAMELLIA128-SHA256",
    0xC073: "ECDHE-ECDSA-CAMELLIA256-SHA384",
    0xC076: "ECDHE-RSA-CAMELLIA128-SHA256",
    0xC077: "ECDHE-RSA-CAMELLIA256-SHA384",
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
GROUPS = {
    21: "P-224",
    22: "secp256k1",
    23: "P-256",
    24: "P-384",
    25: "P-521",
    26: "brainpoolP256r1",
    27: "brainpoolP384r1",
    28: "brainpoolP512r1",
    29: "X25519",
    30: "X448",
    256: "ffdhe2048",
    257: "ffdhe3072",
}
SIGNATURES = {
    0x0201: "RSA with SHA-1",
    0x0203: "ECDSA with SHA-1",
    0x0401: "RSA with SHA-256",
    0x0403: "ECDSA with SHA-256",
    0x0501: "RSA with SHA-384",
    0x0503: "ECDSA with SHA-384",
    0x0601: "RSA with SHA-512",
    0x0603: "ECDSA with SHA-512",
    0x0804: "RSA-PSS with SHA-256",
    0x0805: "RSA-PSS with SHA-384",
    0x0806: "RSA-PSS with SHA-512",
    0x0807: "Ed25519",
    0x0808: "Ed448",
}
ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    22: "record_overflow",
    40: "handshake_failure",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    109: "missing_extension",
    112: "unrecognized_name",
    116: "certificate_required",
    120: "no_application_protocol",
}

# The record buffer of a board, for what comes in and for what goes out.
BOARD_IN, BOARD_OUT = 16384, 4096

_MOST_BYTES = 256 * 1024  # read in all
_MOST_MESSAGE = 128 * 1024  # one handshake message
_MOST_RECORD = 16384 + 2048  # RFC 5246 section 6.2.3
_MOST_CERTIFICATES = 32
_MOST_AUTHORITIES = 200
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


def _named(table, number):
    return table.get(number) or f"0x{number:04x}"


@dataclasses.dataclass
class Answer:
    """
    What came back. `end` says how it ended:

    done      the broker said all that it says before the client's turn (ServerHelloDone)
    alert     it refused; see `alert`
    closed    it closed the connection
    reset     it reset the connection
    silence   nothing more came within the time
    no tls    its first bytes are no TLS; they are in `first`
    broken    its TLS does not follow the specification; see `detail`
    tls13     it goes on with TLS 1.3, where all else is encrypted
    """

    end: str = "silence"
    detail: str = ""
    alpn: str = ""  # the protocol that it chose of those that were offered
    first: bytes = b""
    version: int = 0
    cipher: int = 0
    group: int = 0
    signature: int = 0
    chain: list = dataclasses.field(default_factory=list)  # DER, the broker's own first
    wants_certificate: bool = False
    authorities: list = dataclasses.field(default_factory=list)  # DER names it takes clients from
    client_types: tuple = ()  # certificate types: 1 RSA, 64 ECDSA
    alert: int = -1
    received: int = 0  # bytes in all
    largest: int = 0  # bytes of the largest handshake message

    @property
    def version_name(self):
        return _named(VERSIONS, self.version)

    @property
    def cipher_name(self):
        return _named(CIPHERS, self.cipher)

    @property
    def group_name(self):
        return _named(GROUPS, self.group)

    @property
    def signature_name(self):
        return _named(SIGNATURES, self.signature)

    @property
    def alert_name(self):
        return ALERTS.get(self.alert) or f"alert {self.alert}"

    def data(self):
        """Return it as a dict for --json: what is known, with names instead of numbers."""
        facts = {"end": self.end, "bytes": self.received}
        if self.detail:
            facts["detail"] = self.detail
        if self.version:
            facts["version"] = self.version_name
            facts["cipher"] = self.cipher_name
        if self.group:
            facts["group"] = self.group_name
        if self.signature:
            facts["signature"] = self.signature_name
        if self.chain:
            facts["certificate_bytes"] = [len(each) for each in self.chain]
            facts["largest_message"] = self.largest
        if self.end == "done":
            facts["wants_certificate"] = self.wants_certificate
        if self.alert >= 0:
            facts["alert"] = self.alert_name
        return facts


class Broken(ValueError):
    """The other side's TLS does not follow the specification, or goes beyond our bounds."""


def _list16(numbers):
    packed = b"".join(struct.pack(">H", each) for each in numbers)
    return struct.pack(">H", len(packed)) + packed


def _extension(kind, body):
    return struct.pack(">HH", kind, len(body)) + body


# What the brokers of clouds and web servers know of ALPN (RFC 7301).
ALPN = ("mqtt", "x-amzn-mqtt-ca", "http/1.1", "h2")


def client_hello(name=None, offer="board"):
    """
    Return the bytes (one TLS record) of a ClientHello (RFC 5246 section 7.4.1.2).

    name   str for the server name indication, as a board sends it, also for an IP address;
           None sends none
    offer  "board" exactly what MicroPython sends; "more" TLS 1.2 with all that a PC knows besides;
           "tls13" TLS 1.3 alone; "alpn" as a board, with the protocols of ALPN, which it lacks;
           "psk" TLS 1.2 with keys that both sides have, and no certificates;
           "bound" as a board, with Extended Master Secret (RFC 7627) and Encrypt-then-MAC (RFC
           7366)

    Raises ValueError for a name over 255 bytes.
    """
    ciphers, groups, signatures = BOARD_CIPHERS, BOARD_GROUPS, BOARD_SIGNATURES
    if offer not in ("board", "alpn", "bound"):
        ciphers += _MORE_CIPHERS
        groups += _MORE_GROUPS
        signatures += _MORE_SIGNATURES
    if offer == "psk":
        ciphers = _PSK_CIPHERS
    extensions = b""
    if name is not None:
        host = name.encode()
        if not 0 < len(host) < 256:
            raise ValueError("a server name has 1 to 255 bytes")
        extensions += _extension(0, struct.pack(">HBH", len(host) + 3, 0, len(host)) + host)
    extensions += _extension(10, _list16(groups))
    extensions += _extension(13, _list16(signatures))
    if offer in ("more", "bound"):
        extensions += _extension(22, b"") + _extension(23, b"")
    if offer == "alpn":
        protocols = b"".join(bytes((len(each),)) + each.encode() for each in ALPN)
        extensions += _extension(16, struct.pack(">H", len(protocols)) + protocols)
    if offer == "tls13":
        ciphers = _CIPHERS_13
        extensions += _extension(43, b"\x02\x03\x04")  # supported_versions
        # No key share: the broker asks for one, and that is answer enough.
        extensions += _extension(51, b"\0\0")
    else:
        ciphers += (0x00FF,)  # renegotiation_info, as a cipher
        extensions += _extension(11, b"\x01\x00")  # ec_point_formats: uncompressed
    random = struct.pack(">I", int(time.time()) & 0xFFFFFFFF) + os.urandom(28)
    session = b"\0" if offer != "tls13" else b"\x20" + os.urandom(32)
    body = b"\x03\x03" + random + session + _list16(ciphers) + b"\x01\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x03" + struct.pack(">H", len(message)) + message


class _Fields:
    # Takes fields from a message, and never reads beyond it.
    def __init__(self, data):
        self._data = data
        self._at = 0

    def take(self, count):
        if count > len(self._data) - self._at:
            raise Broken("a field is longer than its message")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def vector(self, size):
        return self.take(self.number(size))

    def left(self):
        return len(self._data) - self._at


class Reader:
    """
    Reads the TLS 1.2 messages of a server (RFC 5246 section 7.4) from bytes cut in any way.

    answer  the Answer that is filled in
    """

    def __init__(self, answer=None):
        self.answer = answer or Answer()
        self._records = bytearray()
        self._messages = bytearray()

    def feed(self, data):
        """
        Take more bytes; return True when the answer is complete: `answer.end` says how.

        Raises Broken.
        """
        answer = self.answer
        answer.received += len(data)
        if len(answer.first) < 64:
            answer.first = (answer.first + data)[:64]
        if answer.received > _MOST_BYTES:
            raise Broken(f"more than {_MOST_BYTES} bytes before the client's turn")
        records = self._records
        records += data
        while records:
            if not 20 <= records[0] <= 23 or len(records) > 1 and records[1] != 3:
                if answer.version:
                    raise Broken("a record of an unknown kind")
                answer.end = "no tls"
                return True
            if len(records) < 5:
                return False
            size = int.from_bytes(records[3:5], "big")
            if size > _MOST_RECORD:
                raise Broken(f"a record of {size} bytes")
            if len(records) < 5 + size:
                return False
            kind, body = records[0], bytes(records[5 : 5 + size])
            del records[: 5 + size]
            if kind == 21:
                if size < 2:
                    raise Broken("an alert of less than 2 bytes")
                answer.alert = body[1]
                if body[0] == 1 and body[1] != 0:  # a warning (unrecognized_name): it goes on
                    continue
                answer.end = "alert"
                return True
            if kind != 22:
                raise Broken(f"a record of kind {kind} in the middle of the handshake")
            self._messages += body
            if self._handshake():
                return True
        return False

    def _handshake(self):
        messages, answer = self._messages, self.answer
        while len(messages) >= 4:
            size = int.from_bytes(messages[1:4], "big")
            if size > _MOST_MESSAGE:
                raise Broken(f"a handshake message of {size} bytes")
            if len(messages) < 4 + size:
                return False
            kind, body = messages[0], bytes(messages[4 : 4 + size])
            del messages[: 4 + size]
            answer.largest = max(answer.largest, 4 + size)
            if not answer.version and kind != 2:
                raise Broken(f"message {kind} before ServerHello")
            if kind == 2:
                self._server_hello(_Fields(body))
                if answer.version == 0x0304:
                    answer.end = "tls13"
                    return True
            elif kind == 11:
                self._certificate(_Fields(body))
            elif kind == 12:
                self._key_exchange(_Fields(body))
            elif kind == 13:
                self._request(_Fields(body))
            elif kind == 14:
                answer.end = "done"
                return True
            elif kind not in (0, 4, 22):  # HelloRequest, NewSessionTicket, CertificateStatus
                raise Broken(f"message {kind} does not belong here")
        return False

    def _server_hello(self, fields):
        answer = self.answer
        if answer.version:
            raise Broken("a second ServerHello")
        answer.version = fields.number(2)
        random = fields.take(32)
        fields.vector(1)
        answer.cipher = fields.number(2)
        fields.take(1)
        if random == _RETRY:
            answer.version = 0x0304
        if fields.left():
            extensions = _Fields(fields.vector(2))
            while extensions.left():
                kind, value = extensions.number(2), _Fields(extensions.vector(2))
                if kind == 43:
                    answer.version = value.number(2)
                elif kind == 16:
                    chosen = _Fields(value.vector(2)).vector(1)
                    answer.alpn = chosen.decode("ascii", "replace")

    def _certificate(self, fields):
        chain = _Fields(fields.vector(3))
        while chain.left():
            if len(self.answer.chain) == _MOST_CERTIFICATES:
                raise Broken(f"a chain of more than {_MOST_CERTIFICATES} certificates")
            self.answer.chain.append(chain.vector(3))

    def _key_exchange(self, fields):
        # ECDHE (RFC 8422 section 5.4); of DHE nothing is of interest but that it is none.
        answer = self.answer
        if answer.cipher >> 8 not in (0xC0, 0xCC) or answer.cipher == 0xCCAA:
            return
        if fields.number(1) != 3:
            return  # a curve that has no number
        answer.group = fields.number(2)
        fields.vector(1)
        if answer.version == 0x0303:
            answer.signature = fields.number(2)

    def _request(self, fields):
        answer = self.answer
        answer.wants_certificate = True
        answer.client_types = tuple(fields.vector(1))
        if answer.version == 0x0303:
            fields.vector(2)
        names = _Fields(fields.vector(2))
        while names.left() and len(answer.authorities) < _MOST_AUTHORITIES:
            answer.authorities.append(names.vector(2))


class NoAddress(OSError):
    """The name has no IPv4 address."""


def resolve(host, timeout_s=10):
    """
    Return the IPv4 address (str) of `host`; boards know no IPv6.

    Raises NoAddress when there is none, or no answer within `timeout_s` seconds.
    """
    found = []

    def look():
        try:
            found.append(socket.getaddrinfo(host, 0, socket.AF_INET, socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=look, daemon=True)  # it cannot be stopped
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise NoAddress(f"no answer about {host} within {timeout_s} s")
    if isinstance(found[0], Exception):
        raise NoAddress(f"{host}: {getattr(found[0], 'strerror', None) or found[0]}")
    return found[0][0][4][0]


def listens_on_ipv6(host, port, timeout_s=3):
    """Tell whether somebody takes connections on `port` of an IPv6 address of `host`."""
    with contextlib.suppress(OSError, UnicodeError):
        for *_, address in socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_STREAM)[:2]:
            socket.create_connection(address[:2], timeout_s).close()
            return True
    return False


def connect(address, port, timeout_s=10):
    """Return a connected socket; raises OSError (ConnectionRefusedError, TimeoutError, …)."""
    return socket.create_connection((address, port), timeout_s)


# Headers of the PROXY protocol (haproxy's proxy-protocol.txt), as a proxy sends them to what is
# behind it: version 2, version 1.
PROXY_HEADERS = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\x9c\x40\x22\xb3",
    b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 8883\r\n",
)


def peek(address, port, name=None, *, offer="board", timeout_s=10, before=b""):
    """
    Return the Answer of the server to a ClientHello.

    address  str, an IP address; see resolve
    port     int
    name     str, sent as server name; None sends none
    offer    see client_hello
    timeout_s  for connecting, and again for the whole answer
    before   bytes to send before it, such as one of PROXY_HEADERS

    Raises OSError when there is no connection at all; never for what the other side says.
    """
    reader = Reader()
    answer = reader.answer
    sock = connect(address, port, timeout_s)
    deadline = time.monotonic() + timeout_s
    try:
        sock.sendall(before + client_hello(name, offer))
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            data = sock.recv(16384)
            if not data:
                answer.end = "closed"
                break
            if reader.feed(data):
                break
    except TimeoutError:
        answer.end = "silence"
    except Broken as error:
        answer.end, answer.detail = "broken", str(error)
    except OSError as error:
        answer.end, answer.detail = "reset", error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            if answer.end == "done":
                sock.settimeout(1)
                sock.sendall(b"\x15\x03\x03\x00\x02\x01\x5a")  # user_canceled
        sock.close()
    return answer


def reads_hello(address, port, name, wait_s):
    """
    Tell whether the server waits for the second half of a ClientHello, and hangs up when it has
    the whole, all within `wait_s` seconds each: it knows TLS. Never raises OSError.
    """
    hello = client_hello(name)
    half = len(hello) // 2
    try:
        with connect(address, port, wait_s) as sock:
            sock.settimeout(wait_s)
            sock.sendall(hello[:half])
            with contextlib.suppress(TimeoutError):
                sock.recv(1)
                return False
            sock.sendall(hello[half:])
            try:
                return sock.recv(1) == b""
            except ConnectionError:
                return True
    except OSError:
        return False


# CONNECT of MQTT 3.1.1, clean session, without user; the client id is of the doctor.
_CONNECT = b"\x10\x18\0\x04MQTT\x04\x02\0\x0a\0\x0cmqttls-doctr"


def _unverified():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def certificate_of_a_pc(address, port, name, timeout_s=5):
    """
    Return the certificate (DER) that the server shows to a PC, which speaks TLS 1.3, too; b""
    where not even that gets one. Nothing of it is believed. Never raises OSError.
    """
    with (
        contextlib.suppress(OSError, ValueError),
        connect(address, port, timeout_s) as raw,
        _unverified().wrap_socket(raw, server_hostname=name or None) as sock,
    ):
        return sock.getpeercert(True) or b""
    return b""


def speaks_http(address, port, name, timeout_s=5, tls=True):
    """
    Return the first line (str) that the server answers to an HTTP request, within TLS unless `tls`
    is False; "" where it is no HTTP. Never raises OSError.

    The request is that of a WebSocket for MQTT (RFC 6455 section 4.1): some answer no other.
    """
    host = name if name and name.isascii() and name.isprintable() else address
    key = base64.b64encode(os.urandom(16)).decode()
    lines = ("GET /mqtt HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade")
    lines += (f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    asked = "\r\n".join((*lines, "Sec-WebSocket-Protocol: mqtt", "", "")).encode()
    answer = b""
    with contextlib.suppress(OSError, ValueError), contextlib.ExitStack() as opened:
        sock = opened.enter_context(connect(address, port, timeout_s))
        if tls:
            sock = _unverified().wrap_socket(sock, server_hostname=name or None)
            opened.enter_context(sock)
        sock.sendall(asked)
        answer = sock.recv(200)
    return answer.split(b"\r")[0][:60].decode("latin-1") if answer[:5] == b"HTTP/" else ""


def speaks_tls_within(address, port, name, timeout_s=5):
    """Tell whether a ClientHello within TLS is answered with TLS again. Never raises OSError."""
    with (
        contextlib.suppress(OSError, ValueError),
        connect(address, port, timeout_s) as raw,
        _unverified().wrap_socket(raw, server_hostname=name or None) as sock,
    ):
        sock.sendall(client_hello(name))
        return sock.recv(5)[:2] in (b"\x16\x03", b"\x15\x03")
    return False


def by_itself(address, port, wait_s, name=None, tls=False):
    """
    Return what the server does within `wait_s` seconds while nothing is sent to it: the first
    bytes that it sends (64 at most), b"" where it closes the connection, None where it waits.
    Never raises OSError.

    name, tls  behind TLS, with this server name
    """
    with contextlib.suppress(TimeoutError), contextlib.ExitStack() as opened:
        try:
            sock = opened.enter_context(connect(address, port, wait_s))
            if tls:
                sock = _unverified().wrap_socket(sock, server_hostname=name or None)
                opened.enter_context(sock)
        except ConnectionResetError:
            return None if tls else b""
        except (OSError, ValueError):
            return None
        sock.settimeout(wait_s)
        try:
            return sock.recv(64)
        except TimeoutError:
            return None
        except OSError:
            return b""
    return None


def speaks_mqtt(address, port, timeout_s=5, before=b"", *, tls=False, name=None, alpn=None):
    """
    Tell whether the server answers an MQTT CONNECT with a CONNACK, whatever its code.

    before     bytes to send before it
    tls, name  behind TLS, with this server name; nothing of its certificate is believed
    alpn       str, a protocol of ALPN to ask for

    Never raises OSError.
    """
    try:
        with contextlib.ExitStack() as opened:
            sock = opened.enter_context(connect(address, port, timeout_s))
            if tls:
                context = _unverified()
                if alpn:
                    context.set_alpn_protocols([alpn])
                sock = opened.enter_context(context.wrap_socket(sock, server_hostname=name))
            sock.settimeout(timeout_s)
            sock.sendall(before + _CONNECT)
            return sock.recv(4)[:2] in (b"\x20\x02", b"\x20\x03")
    except (OSError, ValueError):
        return False
