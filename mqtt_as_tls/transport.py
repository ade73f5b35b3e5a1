"""
One connection to a broker: open, handshake, read, write, close.

It owns the raw socket and closes it on every path. A packet is one buffer and one write; what the
socket does not take at once is sent in turn by a task that lives as long as there is something
to send.
"""

import asyncio
import gc
import socket
import time
from asyncio import core

from micropython import const

from .errors import ConnectError

_EINPROGRESS = const((115, 119, 36))  # Linux and lwIP, esp32, macOS
_NOTHING = const((11, 35))  # EAGAIN

_STOP = StopIteration()


def _stop():
    """End an `await` without allocating an exception."""
    _STOP.__traceback__ = None
    raise _STOP


class Signal:
    """
    A flag that one task waits for: `await signal` returns once `set()` was called.

    Like asyncio.Event with one waiter, but waiting takes no memory.
    """

    is_set = False
    _task = None

    def set(self):
        """Set the flag and wake the task that waits."""
        self.is_set = True
        task = self._task
        if task is not None:
            self._task = None
            core._task_queue.push(task)

    def remove(self, task):
        """Called by asyncio when the task that waits is cancelled."""
        self._task = None

    def __iter__(self):
        return self

    def __next__(self):
        if self.is_set:
            _stop()
        self.is_set = False  # it has its place now: with no memory left, set() still wakes
        self._task = task = core.cur_task
        task.data = self


class _Poll:
    """
    `await poll` returns when the socket is ready; waiting takes no memory of its own.

    more  bool: there is input that the socket does not know of, nothing is to be waited for
    """

    def __init__(self, enqueue, sock):
        self._enqueue = enqueue
        self._sock = sock
        self._armed = self.more = False

    def __iter__(self):
        self._armed = not self.more
        return self

    def __next__(self):
        if not self._armed:
            _stop()
        self._armed = False
        self._enqueue(self._sock)


class Transport:
    """
    One TCP or TLS connection.

    client     has stats, _lost(error): a write found the connection dead, _drained(): all that
               waited is sent, _silent: attempts in a row that nobody answered

    decoder    what `read` feeds, set by the client once the connection is open
    out        list of the packets that wait to be sent
    blocked    bool, nothing can be sent at once
    moved_ms   ticks when a blocked write last made progress
    rx_ms      ticks of the last byte received
    tx_ms      ticks of the last packet written
    tls_ms     int, what the handshake took
    readable   awaitable: input came
    stage      str, how far `open` came
    streams    list of the payloads larger than memory that are under way, each with `moved_ms`,
               ticks of its last progress
    """

    def __init__(self, client):
        self._client = client
        self._raw = self._sock = self._task = None
        self._sent = self.tls_ms = 0
        self.blocked = False
        self.out = []
        self.streams = []
        self.rx_ms = self.tx_ms = self.moved_ms = time.ticks_ms()

    async def open(self, address, port, host, tls, hello):
        """
        Connect, shake hands, send the first packet. The caller sets the deadline.

        address  str, IPv4
        port     int
        host     str, the name that the certificate must have
        tls      TLS or None
        hello    bytes-like, the CONNECT packet: the handshake runs inside its write

        Raises ConnectError, TLSError, CertificateError.
        """
        self.stage = "TCP"
        if self.blocked:  # closed before it began: there was no memory to wait for it
            raise ConnectError("closed")
        self._raw = s = socket.socket()
        self._sock = s
        try:
            s.setblocking(False)
            try:
                # 6 is IPPROTO_TCP; TCP_NODELAY is another number in lwIP than on the unix port
                s.setsockopt(6, getattr(socket, "TCP_NODELAY", 1), 1)
            except OSError:
                pass  # this port's lwIP has no such option
            try:
                s.connect(socket.getaddrinfo(address, port)[0][-1])
            except OSError as e:
                if e.errno not in _EINPROGRESS:
                    raise
            await _Poll(core._io_queue.queue_write, s)
            # a refused connection shows here, apart from what TLS makes of it
            try:
                if s.recv(1):
                    raise ConnectError("the other side speaks first: no MQTT broker on this port")
                raise ConnectError("closed at once by the other side")
            except OSError as e:
                if e.errno not in _NOTHING:
                    raise
        except OSError as e:
            raise ConnectError("cannot connect to %s port %d: %r" % (address, port, e), e.errno)
        self._client._silent = 0  # whatever comes now, the link works
        self.stage = "TLS" if tls else "MQTT"
        gc.collect()
        start = time.ticks_ms()
        try:
            if tls:
                self._sock = s = tls.wrap(s, host)
            io = core._io_queue
            # not `s`: the unix port polls TLS once a ms, and TLS takes one record at a time, so
            # that what it has while the socket has nothing is the rest of what read() got
            self.readable = _Poll(io.queue_read, self._raw)
            self._writable = _Poll(io.queue_write, s)
            while True:
                n = s.write(hello)
                if n:
                    break
                await self._writable
        except (OSError, ValueError, MemoryError) as e:
            if tls:
                raise tls.failure(e)
            raise _closed(e)
        self.stage = "MQTT"
        self.rx_ms = time.ticks_ms()
        self.tls_ms = time.ticks_diff(self.rx_ms, start)
        if n < len(hello):
            self.write(memoryview(hello)[n:])

    def read(self):
        """
        Read what is there into `decoder`; return whether there may be more.

        Raises ConnectError when the connection ended.
        """
        view = self.decoder.space()
        try:
            n = self._sock.readinto(view)
        except OSError as e:
            raise _closed(e)
        self.readable.more = more = n == len(view)
        if n:
            self.decoder.fed(n)
            self._client.stats.bytes_in += n
            self.rx_ms = time.ticks_ms()
        elif n == 0:
            raise ConnectError("the broker closed the connection")
        return more

    def write(self, buf):
        """
        Send `buf` (bytes-like, a whole packet), in turn after what waits. It never waits itself
        and never raises: a dead connection is told to `lost`.

        Returns whether all of it is sent.
        """
        self.tx_ms = now = time.ticks_ms()
        size = len(buf)
        self._client.stats.bytes_out += size
        if self.blocked:
            self.out.append(buf)
            return False
        try:
            n = self._sock.write(buf)
            if n == size:
                return True
            self.blocked = True
            self.moved_ms = now
            self.out.append(buf)
            self._sent = n or 0
            self._task = asyncio.create_task(self._drain())
        except (OSError, MemoryError) as e:
            self.blocked = True
            self._client._lost(_closed(e))
        return False

    async def _drain(self):
        out = self.out
        try:
            while out:
                await self._writable
                n = self._sock.write(memoryview(out[0])[self._sent :])
                if n:
                    self._sent += n
                    self.tx_ms = self.moved_ms = time.ticks_ms()
                    if self._sent == len(out[0]):
                        out.pop(0)
                        self._sent = 0
            self.blocked = False
            self._client._drained()
        except (OSError, MemoryError) as e:
            self._client._lost(_closed(e))

    def close(self):
        """Close the connection; nothing is sent any more. Twice does no harm."""
        self.blocked = True
        if self._task is not None:
            self._task.cancel()
            self._task = None
        s = self._sock
        while s is not None:
            try:
                s.close()
            except OSError:
                pass
            # after a failed handshake TLS has lost its socket; a loop over both would take memory
            s, self._raw = self._raw, None
        self._sock = None


def _closed(error):
    if isinstance(error, MemoryError):
        return error
    code = error.errno if isinstance(error, OSError) else None
    return ConnectError("broken off: %r" % error, code)
