"""
enqueue(): a message that goes out when it can, while the app goes on; from the event loop, from
soft interrupts, and from other threads where a lock of the interpreter keeps them apart.
"""

import asyncio
import gc
import sys
from asyncio import core

import micropython
from micropython import const

from .outbox import Delivery
from .router import wrong

try:
    from _thread import get_ident
except ImportError:
    get_ident = None

_LEAST = const(256)  # bytes: a smaller ring is none
_TIMED = const(8)  # in the first byte of a record: its time follows. DUP, which no new message has
_COUNT = const(0x3FFFFFFF)
_OLDEST = const("max_queue is full: the oldest messages of enqueue() give way")
_SMALL = const("memory is short: enqueue() has room for less than max_queue")

# threads do not run at the same time
_LOCKED = getattr(sys.implementation, "_thread", "") == "GIL" or sys.platform == "esp32"

_bell = asyncio.ThreadSafeFlag()
_bell.set()

_asked = []  # has something while the scheduler has not run what interrupted() gave it
_answer = _asked.remove


def interrupted():
    """Return whether this is called from a soft interrupt (or from what the scheduler runs)."""
    # the scheduler runs nothing while something that it runs is under way
    if not _asked:
        _asked.append(0)
        try:
            micropython.schedule(_answer, 0)
        except RuntimeError:  # it is full
            _asked.pop()
            return True
    turns = 8  # each jump lets it run one, and no more than 8 wait
    while _asked and turns:
        turns -= 1
    return len(_asked) > 0


class Ring:
    """
    What waits from enqueue(): packets one behind the other in one piece of memory. Any number of
    interrupts may come at any place of it: whoever has the key works on the piece, who comes
    meanwhile leaves a message in `late`.

    client  MQTTClient

    woken  bool, a task that sends is on its way

    len(ring) is the number of messages in it. Raises MemoryError when there is none for it.
    """

    def __init__(self, client):
        self._client = client
        self._buf = self._make()
        self._at = self._used = self._records = self._gone = 0
        self._key = [0]
        self._late = []  # pairs: a message, and whether others give way to it
        self._news = []
        if len(self._buf) < client.max_queue:
            self._news.append(_SMALL)
        self._refused = -1  # writes of the store when it was full
        self.woken = self._full = False

    def _make(self):
        gc.collect()
        n = min(self._client.max_queue, gc.mem_free() // 2)  # handshakes need the rest
        while True:
            try:
                return bytearray(n)
            except MemoryError:
                n //= 2
                if n < _LEAST:
                    raise

    def __len__(self):
        return self._records + len(self._late)

    def put(self, data, oldest):
        """
        Take a message, from wherever. Returns whether there was room.

        data    bytearray, encoded PUBLISH, and its time
        oldest  bool, the oldest messages give way to it
        """
        try:
            self._key.pop()
        except IndexError:  # this interrupts who has it
            n = self._used + len(data)
            for each, _ in self._late:
                n += len(each)
            if n > len(self._buf):
                return False
            self._late.append((data, oldest))
            return True
        try:
            self._settle()
            return not self._late and self._write(data, oldest)
        finally:
            self._key.append(0)

    # With the key

    def _settle(self):
        while self._late and self._write(*self._late[0]):
            self._late.pop(0)

    def _write(self, data, oldest):
        n = len(data)
        buf = self._buf
        if n > len(buf) and not self._records:
            try:
                self._buf = buf = self._make()  # there may be more by now
            except MemoryError:
                pass
        size = len(buf)
        if n > size:
            return False
        while self._used + n > size:
            if not oldest:
                return False
            if not self._full:
                self._full = True
                self._news.append(_OLDEST)
            self._forget(self._size())
            self._client.stats.gave_way += 1
        at = (self._at + self._used) % size
        end = at + n
        if end <= size:
            buf[at:end] = data
        else:
            data = memoryview(data)
            buf[at:] = data[: size - at]
            buf[: end - size] = data[size - at :]
        self._used += n
        self._records += 1
        return True

    def _size(self):
        # bytes of the oldest record, which may go round the end of the piece
        buf = self._buf
        at = self._at
        n = 5 if buf[at] & _TIMED else 1
        shift = 0
        byte = 128
        while byte > 127:
            at = (at + 1) % len(buf)
            byte = buf[at]
            n += 1 + ((byte & 127) << shift)
            shift += 7
        return n

    def _read(self, n):
        # a message of `n` bytes, the oldest one
        buf = memoryview(self._buf)
        at = self._at
        data = bytearray(buf[at : at + n])
        if len(data) < n:
            data += buf[: n - len(data)]
        since = None
        if data[0] & _TIMED:
            data[0] ^= _TIMED
            since = int.from_bytes(data[n - 4 :], "big")
            data = data[: n - 4]
        return Delivery(data, data[0] >> 1 & 3, since)

    def _forget(self, n):
        self._at = (self._at + n) % len(self._buf)
        self._used -= n
        self._records -= 1
        self._gone = (self._gone + 1) & _COUNT
        if not self._records:
            self._full = False

    # The loop

    def end(self):
        """Return the `turn` of a publish() that comes after those that are here."""
        return (self._gone + len(self)) & _COUNT

    def feed(self):
        """
        If the oldest message is the next to be sent, put it first in the queue of the outbox.
        Returns whether it is and cannot be sent yet.
        """
        client = self._client
        while self._news:
            client.say(self._news.pop(0))
        if not self._records and not self._late:
            return False
        if client.store is not None and self.keep() is not None:
            return False  # it is there
        queue = client.outbox.queue
        if queue:
            turn = queue[0].turn
            if turn is None or not 0 < ((turn - self._gone) & _COUNT) <= len(self):
                return False
        try:
            self._key.pop()
        except IndexError:  # called by what is called with it
            return True
        try:
            self._settle()
            if self._buf[self._at] & 6 and client.session.full():
                return True
            n = self._size()
            client.outbox.add(self._read(n), True)
            self._forget(n)
        finally:
            self._key.append(0)
        return False

    def keep(self):
        """
        With a store: what waits goes there. Returns True when that is all, False when it is full;
        None when the next one need not or cannot wait there.
        """
        client = self._client
        outbox = client.outbox
        kept = True
        while kept and self:
            if self._refused == client.store.writes:
                return False
            try:
                self._key.pop()
            except IndexError:
                return False
            try:
                self._settle()
                n = self._size()
                t = outbox.transport
                kept = client.session.keep(self._read(n), t and not (t.blocked or outbox.queue))
                if kept:
                    self._forget(n)
                elif kept is False:
                    self._refused = client.store.writes
            finally:
                self._key.append(0)
        return kept

    def clear(self):
        """The client stops: what is not with the store is forgotten."""
        if self._client.store is not None:
            self.keep()
        if self._key:
            self._late = []
            while self._records:
                self._forget(self._size())
        self.woken = False

    def wake(self):
        """Have the event loop send what waits, or store it."""
        client = self._client
        if self.woken or not (client.outbox.transport or client.store):
            return
        self.woken = True
        try:
            asyncio.create_task(self._go())
            _ring_bell()
        except MemoryError:
            self.woken = False  # the next one does it, or the connection at its next deadline

    async def _go(self):
        self.woken = False
        client = self._client
        if client in client.clients:
            if client.store is not None:
                self.keep()
            _pump(client.outbox)


def _pump(outbox):
    t = outbox.transport
    try:
        outbox.pump()
    except MemoryError as e:  # it is queued: the next connection sends it
        if t:
            t.lost(e)


def _ring_bell():
    # a loop that waits for sockets looks for tasks when there is one that has something
    try:
        core.cur_task.coro.pend_throw(None)
    except ValueError:  # it does not wait, a task runs
        return
    except AttributeError:
        pass
    io = core._io_queue
    if id(_bell) not in io.map:
        io.map[id(_bell)] = [None, None, _bell]
        io.poller.register(_bell, 1)


def enqueue(client, topic, payload=b"", *, qos=0, retain=False, properties=None, full="newest"):
    """
    `client.enqueue(...)`: put a message on the outgoing queue, without waiting.

    full  "newest": when the queue is full this message is not taken; "oldest": the oldest that
          wait give way (with a store its own `full` decides)

    Returns False when the queue (max_queue bytes; with a store: that) is full, else True.
    Raises as `publish` does at the call, and ValueError for one larger than the queue (with a
    store: than a quarter of its max_bytes); RuntimeError in a second thread of a MicroPython
    without a lock of the interpreter.
    """
    client.check_running(None)
    outbox = client.outbox
    elsewhere = get_ident and get_ident() != outbox.thread
    if elsewhere and not _LOCKED:
        wrong("thread")
    store = client.store
    oldest = full == "oldest"
    if oldest and store is not None or not oldest and full != "newest":
        wrong("full", full)
    out = outbox.encode(topic, payload, qos, retain, properties)
    data = out.packet
    size = len(data) if out.since is None else len(data) + 4
    elsewhere = elsewhere or interrupted()
    kept = None
    t = outbox.transport
    queue = outbox.queue
    rings = outbox.rings
    if store is not None:
        if size > store.largest:
            wrong("size", size, store.largest, "a quarter of max_bytes")
        if not elsewhere:
            kept = not rings or rings[0].keep()
            if kept:
                kept = client.session.keep(out, t and not (t.blocked or queue))
    if kept is None:
        if size > client.max_queue:
            wrong("size", size, client.max_queue, "max_queue")
        if not rings:
            rings.append(Ring(client))
            del rings[1:]  # an interrupt made one
        ring = rings[0]
        session = client.session
        if t and not (
            elsewhere or t.blocked or queue or ring or session.to_resend or qos and session.full()
        ):
            outbox.add(out, False)
            kept = True
        else:
            if out.since is not None:
                data[0] |= _TIMED
                data += out.since.to_bytes(4, "big")
            kept = ring.put(data, oldest)
            if elsewhere:
                ring.wake()
    if not elsewhere:
        _pump(outbox)
    return kept
