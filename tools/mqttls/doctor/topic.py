"""
What a broker lets a client do with a topic: asked in MQTT 5, which has reason codes for that.

With MQTT 3.1.1 a broker acknowledges what it drops; the rights are those of the client, whatever
it speaks. The question reaches nobody: it is an empty message with QoS 2, not retained, which a
broker like mosquitto passes on only when it is released (PUBREL, 5.0 section 4.3.3), and this one
never is: the session ends with the connection.
"""

import contextlib
import dataclasses
import ssl
import struct
import time

from . import python_ssl, reading
from .mqtt import connect_packet, field, read_varint, varint

_AFTER_S = 0.5  # for a retained message to come
_LARGEST = 16 * 1024  # bytes of a packet that is taken

_CONNACK, _PUBLISH, _PUBREC, _SUBACK = 2, 3, 5, 9
_MAXIMUM_QOS = 0x24
# what is behind the identifier of a property: bytes, or "text", "pair" (5.0 section 2.2.2.2)
_PROPERTIES = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1}
_PROPERTIES |= {0x2A: 1, 0x12: "text", 0x15: "text", 0x16: "text", 0x1A: "text", 0x1C: "text"}
_PROPERTIES |= {0x1F: "text", 0x26: "pair"}

NO_MQTT_5 = "the broker speaks no MQTT 5, and with 3.1.1 it acknowledges what it drops"
NO_QOS_2 = "the broker takes no QoS 2, and a message of QoS 1 would reach whoever listens"
GRANTED = "the broker grants the subscription"


class _Stopped(Exception):
    """The conversation is over: the text says why."""


@dataclasses.dataclass
class Answer:
    """
    publish, receive  True, False, or None where the broker does not tell
    why_publish, why_receive  what it said, or why it is not known
    passed_on  bool: the broker passed the question on, unreleased, as some do
    """

    publish: bool = None
    receive: bool = None
    why_publish: str = ""
    why_receive: str = ""
    passed_on: bool = False


def ask(target, topic, timeout_s=10):
    """
    Return the Answer of the broker of `target` (attempt.Target) about `topic`, a str without
    wildcards.
    """
    answer = Answer()
    try:
        with _Conversation(target, timeout_s) as broker:
            _ask_receive(broker, topic, answer)
            if answer.receive is not False:
                _ask_publish(broker, topic, answer)
                _listen(broker, answer)
                return answer
        with _Conversation(target, timeout_s) as broker:  # some hang up on what they refuse
            _ask_publish(broker, topic, answer)
    except _Stopped as stopped:
        answer.why_publish = answer.why_publish or str(stopped)
        answer.why_receive = answer.why_receive or str(stopped)
    return answer


def _ask_receive(broker, topic, answer):
    try:
        broker.send(0x82, b"\0\1\0" + field(topic) + b"\0")
        code = broker.wait_for(_SUBACK)[-1]
    except _Stopped as stopped:
        answer.receive, answer.why_receive = False, f"on SUBSCRIBE {stopped}"
        return
    answer.why_receive = GRANTED
    if code >= 128:
        answer.receive = False
        answer.why_receive = f"the broker refuses the subscription (code {code})"


def _ask_publish(broker, topic, answer):
    if broker.maximum_qos < 2:
        answer.why_publish = NO_QOS_2
        return
    try:
        broker.send(0x34, field(topic) + b"\0\2\0")
        body = broker.wait_for(_PUBREC)
    except _Stopped as stopped:
        answer.publish, answer.why_publish = False, f"on PUBLISH {stopped}"
        return
    code = body[2] if len(body) > 2 else 0
    answer.publish = code < 128
    answer.why_publish = "the broker takes it"
    if code >= 128:
        answer.why_publish = f"the broker refuses it (code {code})"


def _listen(broker, answer):
    with contextlib.suppress(_Stopped):
        broker.wait_for(None, _AFTER_S)
    if broker.messages:
        answer.receive, answer.why_receive = True, "a message came"
        answer.passed_on = any(
            not retained and not payload for retained, payload in broker.messages
        )


class _Conversation:
    """
    A connection in MQTT 5, up to CONNACK; use it in a `with`, at the end of which it is closed.

    maximum_qos  int, what the broker takes
    messages     list of (retained, payload) of what came

    Raises _Stopped, when it cannot be had.
    """

    def __init__(self, target, timeout_s):
        self.maximum_qos, self.messages = 2, []
        self._timeout_s, self._until = timeout_s, 0
        try:
            self._sock = python_ssl.connect(target, timeout_s)
        except (OSError, ValueError, reading.Unreadable) as error:
            raise _Stopped(f"no second connection: {error}") from None
        try:
            # Maximum Packet Size; no Session Expiry Interval: the session ends with the connection
            properties = b"\5\x27" + struct.pack(">I", _LARGEST)
            self._write(connect_packet(target, level=5, properties=properties))
            self._connected(self.wait_for(_CONNACK))
        except BaseException:
            self._sock.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(_Stopped):
            self._write(b"\xe0\0")
        self._sock.close()

    def _connected(self, body):
        if body[1]:
            older = len(body) == 2 or body[1] == 0x84
            raise _Stopped(NO_MQTT_5 if older else f"the broker refuses MQTT 5 (code {body[1]})")
        with contextlib.suppress(IndexError, KeyError, struct.error):
            size, at = read_varint(body, 2)
            end = at + size
            while at < end:
                kind, start = _PROPERTIES[body[at]], at + 1
                if body[at] == _MAXIMUM_QOS:
                    self.maximum_qos = body[start]
                if isinstance(kind, int):
                    at = start + kind
                    continue
                at = start
                for _ in range(2 if kind == "pair" else 1):
                    at += 2 + struct.unpack_from(">H", body, at)[0]

    def _write(self, data):
        try:
            self._sock.settimeout(self._timeout_s)
            self._sock.sendall(data)
        except OSError:
            raise _Stopped("the broker hangs up") from None

    def send(self, first, body):
        """Send a packet: its first byte (int), what follows its length (bytes)."""
        self._write(bytes((first,)) + varint(len(body)) + body)

    def wait_for(self, kind, timeout_s=None):
        """
        Return the body (bytes) of the next packet of a kind (int, 5.0 section 2.1.2); messages
        that come before go into `messages`. None waits for nothing but them.

        Raises _Stopped, when `timeout_s` (that of the conversation when None) is over, too,
        whatever else comes: a topic may be a busy one.
        """
        self._until = time.monotonic() + (timeout_s or self._timeout_s)
        while True:
            first, body = self._packet()
            if first >> 4 == _PUBLISH:
                self.messages.append((bool(first & 1), _payload(first, body)))
            elif first >> 4 == kind and len(body) >= 2:
                return body
            elif first >> 4 == 14:
                raise _Stopped("the broker hangs up")

    def _packet(self):
        head = self._read(2)
        while head[-1] & 128 and len(head) < 5:
            head += self._read(1)
        try:
            size, _ = read_varint(head, 1)
        except IndexError:
            raise _Stopped("the broker breaks the protocol") from None
        if size > _LARGEST:
            raise _Stopped("the broker sends more than it was asked for")
        return head[0], self._read(size)

    def _read(self, size):
        data = b""
        while len(data) < size:
            left_s = self._until - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                self._sock.settimeout(left_s)
                more = self._sock.recv(size - len(data))
            except TimeoutError:
                raise _Stopped("the broker does not answer") from None
            except (OSError, ssl.SSLError):
                more = b""
            if not more:
                raise _Stopped("the broker hangs up")
            data += more
        return data


def _payload(first, body):
    with contextlib.suppress(IndexError, struct.error):
        at = 2 + struct.unpack_from(">H", body)[0] + (2 if first & 6 else 0)
        size, at = read_varint(body, at)
        return body[at + size :]
    return b"?"
