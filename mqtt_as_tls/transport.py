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

from . import load
from .errors import ConnectError

STALL_MS = const(10_000)  # the longest time without progress in sending, or in a stream
_EINPROGRESS = const((115, 119, 36))  # Linux and lwIP, esp32, macOS
_NOTHING = const((11, 35))  # EAGAIN
# MicroPython's lwIP waits up to 10 s within a write when its 32 buffers or 8000 B for what is not
# acknowledged are used up: what a packet takes besides its bytes, and what may be on the way until
# a ping asks whether the path lives; twice that, until its answer is waited for
_BUFFER = const(180)
_UNHEARD = const(2100)
_TURN_MS = const(10)  # between looks for an answer
_PINGREQ = const(b"\xc0\0")

_STOP = StopIteration()  # it ends an `await` without allocating an exception


async def within(ms, awaitable):
    """
    Return what `awaitable` returns, which runs in this task, for `ms` at most.

    asyncio.wait_for makes tasks of its own, which need memory also when they end.

    Raises asyncio.TimeoutError, and whatever it raises.
    """
    timer = asyncio.create_task(_cancel(core.cur_task, ms))
    try:
        return await awaitable
    except asyncio.CancelledError:
        if timer.done():
            raise asyncio.TimeoutError
        raise
    finally:
        timer.cancel()


async def _cancel(task, ms):
    await asyncio.sleep_ms(ms)
    task.cancel()


class Signal:
    """
    A flag that one task waits for: `await signal` returns once `set()` was called.

    Like asyncio.Event with one waiter, but waiting takes no memory.
    """

    # One attribute: an object takes memory anew for its 2nd, 3rd, 5th, 7th
    waiter = None  # the task that waits, or True: it is set

    def set(self):
        """Set the flag and wake the task that waits."""
        task = self.waiter
        self.waiter = True
        if task is not None and task is not True:
            core._task_queue.push(task)

    def remove(self, task):
        """Called by asyncio when the task that waits is cancelled."""
        self.waiter = None

    def __iter__(self):
        return self

    def __next__(self):
        if self.waiter is True:
            _STOP.__traceback__ = None
            raise _STOP
        self.waiter = task = core.cur_task  # it has its place: with no memory left, set() wakes
        task.data = self


class _Poll:
    """
    `await poll` returns when the socket is ready; waiting takes no memory of its own.

    ready  True: nothing is to be waited for, there is input that the socket does not know of;
           2: a task waits, or did just now; False
    """

    def __init__(self, enqueue, sock):
        self._enqueue = enqueue
        self.sock = sock
        self.ready = False

    __iter__ = Signal.__iter__

    def __next__(self):
        if self.ready:
            self.ready = False
            _STOP.__traceback__ = None
            raise _STOP
        try:
            self._enqueue(self.sock)
        except MemoryError:
            # what asyncio has noted would stay; MicroPython's poll() crashes on a half of it
            core._io_queue.remove(core.cur_task)
            raise
        self.ready = 2


class Transport:
    """
    One TCP or TLS connection.

    owner   the task that watches its deadlines, in `sleep`
    client  has stats (bytes_in, bytes_out), and outbox: `drained` is called when all that waited
            is sent

    decoder    what `read` feeds, set by the owner once the connection is open
    error      what ended it, or None
    out        list of the packets that wait to be sent
    blocked    bool, nothing can be sent at once
    unheard    int, what was written since a byte was received last, each packet with _BUFFER
    limit      int, of that: `room`, or twice that when a ping was sent since
    room       int, _UNHEARD where that matters; tests change it
    moved_ms   ticks when a blocked write last made progress
    rx_ms      ticks of the last byte received
    tx_ms      ticks of the last packet written
    tls_ms     int, what the handshake took
    wake_ms    ticks until which the owner sleeps, or None
    sock       what is written to; writer  the task that does when it is blocked, or None
    readable   awaitable: input came; writable  awaitable: the socket takes more
    streams    list of the payloads larger than memory that are under way, each with `moved_ms`,
               ticks of its last progress
    """

    error = None
    tls_ms = 0
    room = _UNHEARD if hasattr(socket, "reset") else 1 << 28  # only that lwIP has reset()

    def __init__(self, owner, client):
        self._owner = owner
        self._queue = core._task_queue  # that of its event loop
        self._client = client
        self._raw = self.sock = self.writer = self.wake_ms = None
        self._sent = self.unheard = 0
        self.limit = self.room
        self.blocked = False
        self.out = []
        self.streams = []
        self.rx_ms = self.tx_ms = self.moved_ms = time.ticks_ms()

    async def dial(self, address, port):
        """
        Connect over TCP. The caller sets the deadline.

        address  str, IPv4; port  int

        Raises ConnectError.
        """
        if self.blocked:  # closed before it began: there was no memory to wait for it
            raise ConnectError("closed")
        try:
            self._raw = s = socket.socket()
        except OSError as e:
            raise ConnectError("all TCP connections of the board are in use: %r" % e, e.errno)
        self.sock = s
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
                data = s.recv(1)
                raise load("texts").no_broker(data)
            except OSError as e:
                if e.errno not in _NOTHING:
                    raise
        except OSError as e:
            raise ConnectError("cannot connect to %s port %d: %r" % (address, port, e), e.errno)

    async def handshake(self, tls, host, connect, reserve):
        """
        Do the TLS handshake and send CONNECT. The caller sets the deadline.

        tls    TLS or None
        host   str, the name that the certificate must have
        connect  bytes-like, the CONNECT packet: the handshake runs inside its write
        reserve  Reserve, memory for it, or None

        Raises ConnectError, TLSError, CertificateError.
        """
        s = self.sock
        start = time.ticks_ms()
        try:
            if tls:
                if reserve:
                    reserve.lend()
                else:
                    gc.collect()
                self.sock = s = tls.wrap(s, host)
            io = core._io_queue
            # not `s`: the unix port polls TLS once a ms, and TLS takes one record at a time, so
            # that what it has while the socket has nothing is the rest of what read() got
            self.readable = _Poll(io.queue_read, self._raw)
            self.writable = _Poll(io.queue_write, s)
            while True:
                n = s.write(connect)
                if n:
                    break
                await self.writable
        except (OSError, ValueError, MemoryError) as e:
            if tls:
                self.close()
                if reserve:
                    reserve.back()
                raise load("texts").tls_failure(tls, e, reserve)
            raise closed(e)
        self.rx_ms = time.ticks_ms()
        self.tls_ms = time.ticks_diff(self.rx_ms, start)
        if n < len(connect):
            self.send(memoryview(connect)[n:])

    def read(self):
        """
        Read what is there into `decoder`; return whether there may be more.

        Raises ConnectError or OSError when the connection ended.
        """
        view = self.decoder.space()
        n = self.sock.readinto(view)
        self.readable.ready = more = n == len(view)
        if n:
            self.decoder.fed(n)
            self._client.stats.bytes_in += n
            self.rx_ms = time.ticks_ms()
            self.unheard = 0
            self.limit = self.room
        elif n == 0:
            raise ConnectError("the broker closed the connection")
        return more

    def send(self, buf):
        """
        Send `buf` (bytes-like, a whole packet), in turn after what waits. It never waits itself
        and never raises: a dead connection is told to `lost`.

        Returns whether all of it is sent.
        """
        self.tx_ms = time.ticks_ms()
        size = len(buf)
        self._client.stats.bytes_out += size
        if self.blocked:
            self.out.append(buf)
            return False
        try:
            # DISCONNECT goes at once, as its sender closes then
            n = (self.unheard + size <= self.limit or buf[0] > 0xDF) and self.sock.write(buf)
            if n == size:
                self.unheard += size + _BUFFER
                return True
            self.blocked = True
            self.moved_ms = self.tx_ms
            self.out.append(buf)
            self._sent = n or 0
            self.writer = asyncio.create_task(self.drain(n is not False))
            self.due(STALL_MS)
        except Exception as e:  # a tuple of those that are meant would take memory
            self.blocked = True
            self.lost(e)
        return False

    async def drain(self, begun):
        """Send what waits in `out`; `begun` (bool): the first one was tried, it goes first."""
        out = self.out
        try:
            while True:
                size = len(out[0]) if out else 0
                if not begun and self.unheard and self.unheard + size > self.limit:
                    if self.limit == self.room and self.decoder.partial:  # not before CONNACK
                        self.limit *= 2
                        out.insert(0, _PINGREQ)
                        self._client.stats.bytes_out += 2
                    elif size and (self.readable.ready == 2 or self._client.connection.waiting):
                        # else an answer may be there, and nobody reads it
                        await asyncio.sleep_ms(_TURN_MS)
                        continue
                if not out:
                    break
                begun = True
                await self.writable
                n = self.sock.write(memoryview(out[0])[self._sent :])
                if n:
                    self._sent += n
                    self.tx_ms = self.moved_ms = time.ticks_ms()
                    if self._sent == len(out[0]):
                        out.pop(0)
                        self.unheard += self._sent + _BUFFER
                        self._sent = 0
                        begun = False
            self.blocked = False
            self._client.outbox.drained()
        except (OSError, MemoryError) as e:
            self.lost(e)

    # Its deadlines: the owner sleeps until the next one

    def sleep(self, ms):
        """Return what the owner awaits: it ends in `ms`, or when `due` or `lost` says so."""
        ms = int(ms)
        self.wake_ms = time.ticks_add(time.ticks_ms(), ms)
        return asyncio.sleep_ms(ms)

    def due(self, ms):
        """Have the owner look at the deadlines within `ms`, if it sleeps until a later one."""
        task = self._owner
        if (
            self.wake_ms is not None
            and time.ticks_diff(self.wake_ms, time.ticks_ms()) > ms
            and task is not core.cur_task
            and task.data is None  # else it is cancelled, and would forget that
        ):
            self.wake_ms = None
            self._queue.remove(task)
            self._queue.push(task)

    def lost(self, error):
        """The connection ended, by `error` (OSError: of its socket): let the owner know."""
        if isinstance(error, MemoryError):
            error = MemoryError  # the instance may be one that MicroPython has for the next, too
        self.error = self.error or error
        reserve = self._client.connection.reserve
        if reserve:
            reserve.lost(self.error)
        self.due(0)

    def close(self):
        """Close the connection; nothing is sent any more. Twice does no harm."""
        self.blocked = True
        self.wake_ms = None
        if self.writer is not None:
            self.writer.cancel()
            self.writer = None
        s = self.sock
        while s is not None:
            try:
                s.close()
            except OSError:
                pass
            # after a failed handshake TLS has lost its socket; a loop over both would take memory
            s, self._raw = self._raw, None
        self.sock = None


def closed(error):
    if isinstance(error, MemoryError):
        return error
    return ConnectError("broken off: %r" % error, getattr(error, "errno", None))
