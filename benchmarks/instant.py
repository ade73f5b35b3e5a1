"""
A broker in the program's own memory: what takes the place of MicroPython's `socket` and `select`,
so that nothing is measured but the program. For MicroPython, on a PC and on a chip.

`install()` comes before whatever imports these, asyncio too. The broker takes CONNECT, SUBSCRIBE
and PUBLISH, answers at once and never loses anything.
"""

import sys
import time

_READABLE = 1
_WRITABLE = 4
_NOTHING = 11  # EAGAIN

_CONNACK = {4: b"\x20\2\0\0", 5: b"\x20\3\0\0\0"}
_PINGRESP = b"\xd0\0"


class Socket:
    """
    A connection to the broker, the client's end.

    last      the one that was made last
    protocol  4 or 5: which CONNACK is sent
    """

    last = None
    protocol = 4

    def __init__(self, *_):
        Socket.last = self
        self._for_client = []

    def push(self, packet):
        """Send the bytes of a packet to the client."""
        self._for_client.append(packet)

    def ready(self, events):
        """Return which of `events` are there."""
        return events & (_WRITABLE | (_READABLE if self._for_client else 0))

    def write(self, buf):
        kind = buf[0] & 0xF0
        if kind == 0x30:
            if buf[0] & 6:  # QoS 1, with a short topic and less than 16,384 bytes
                at = 2 if buf[1] < 128 else 3
                at += 2 + buf[at + 1]
                self.push(b"\x40\2" + bytes(buf[at : at + 2]))
        elif kind == 0x10:
            self.push(_CONNACK[self.protocol])
        elif kind == 0x80:
            more = b"\0" if self.protocol == 5 else b""
            body = bytes(buf[2:4]) + more + bytes((buf[len(buf) - 1] & 3,))
            self.push(bytes((0x90, len(body))) + body)
        elif kind == 0xC0:
            self.push(_PINGRESP)
        return len(buf)

    def readinto(self, view):
        if not self._for_client:
            return None
        n = 0
        while self._for_client and n + len(self._for_client[0]) <= len(view):
            packet = self._for_client.pop(0)
            view[n : n + len(packet)] = packet
            n += len(packet)
        return n

    def recv(self, _):
        raise OSError(_NOTHING)

    def close(self):
        pass

    def connect(self, address):
        pass

    def setblocking(self, _):
        pass

    def setsockopt(self, *_):
        pass


class _Poll:
    def __init__(self):
        self._asked = {}

    def register(self, sock, events):
        self._asked[sock] = events

    modify = register

    def unregister(self, sock):
        del self._asked[sock]

    def ipoll(self, timeout_ms):
        for sock, events in self._asked.items():
            events = sock.ready(events)
            if events:
                return ((sock, events),)
        if timeout_ms:  # nothing will come from outside
            time.sleep_ms(max(timeout_ms, 1))
        return ()


class _Module:
    socket = Socket
    poll = _Poll
    POLLIN = _READABLE
    POLLOUT = _WRITABLE

    @staticmethod
    def getaddrinfo(host, port):
        return [(0, 0, 0, "", (host, port))]


def install():
    """Let `import socket` and `import select` give this broker."""
    sys.modules["socket"] = sys.modules["select"] = _Module
