"""
What the tests know of umqtt.simple 1.4 and later: the same constructor, the same methods, and the
one line that matters here, `ssl.wrap_socket(sock, server_hostname=server)`. It really connects.

The library itself is in MicroPython's own package index only, which tests must not need.
"""

import socket


class MQTTException(Exception):
    """args[0] is the return code of CONNACK."""


class MQTTClient:
    """A blocking client: it connects, publishes with QoS 0 and 1, and disconnects."""

    def __init__(self, client_id, server, port=0, user=None, password=None, keepalive=0, ssl=None):
        self.client_id = client_id
        self.server = server
        self.port = port or (8883 if ssl else 1883)
        self.user = user
        self.pswd = password
        self.keepalive = keepalive
        self.ssl = ssl
        self.sock = None

    def connect(self, clean_session=True):
        self.sock = socket.socket()
        self.sock.connect(socket.getaddrinfo(self.server, self.port)[0][-1])
        if self.ssl:
            self.sock = self.ssl.wrap_socket(self.sock, server_hostname=self.server)
        login = b"" if self.user is None else _text(self.user) + _text(self.pswd)
        flags = clean_session << 1 | (0xC0 if login else 0)
        body = b"\0\4MQTT\4" + bytes((flags, 0, self.keepalive))
        self._send(0x10, body + _text(self.client_id) + login)
        answer = self.sock.read(4)
        if answer[3]:
            raise MQTTException(answer[3])
        return answer[2] & 1

    def publish(self, topic, msg, retain=False, qos=0):
        body = _text(topic) + (b"\0\1" if qos else b"") + _bytes(msg)
        self._send(0x30 | qos << 1 | retain, body)
        if qos and self.sock.read(4) != b"\x40\2\0\1":
            raise OSError(-1)

    def disconnect(self):
        self._send(0xE0, b"")
        self.sock.close()

    def _send(self, first, body):
        assert len(body) < 128
        self.sock.write(bytes((first, len(body))) + body)


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()


def _text(text):
    data = _bytes(text)
    return bytes((0, len(data))) + data
