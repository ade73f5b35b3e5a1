"""
Memory for the next connection, held in pieces while the clients have no use for it, so that an app
that takes all there is cannot keep them from connecting again.

On most boards TLS has its memory from the same heap. A client that is not connected holds what a
connection takes: its two buffers, from the moment TLS gives them back until the next handshake,
and what else an attempt needs, whenever that waits. While it is connected it holds no more than
what TLS will not give back at the end: what a handshake takes for itself.

What counts is how much is held: but for its buffers TLS asks for 38 blocks of 16 bytes at most.
While memory is short all of it is held, block by block: else an app would get what is between the
pieces, a little more with each step, until too little is left.
"""

import gc
import sys

from micropython import const

# In blocks, of 4 words: the buffers of a TLS connection, 16,717 and 4,429 bytes and the 8 that
# MicroPython adds to each
_IN = const(1046)
_OUT = const(278)
# The others. They are cleared when they are lent, which gives their memory back at once: nothing
# has to be collected for it
_PIECE = const(99)
_UP = const(4)  # so many are held with a connection
_EC = const(7)  # what an attempt needs, and what is held with a connection by an RSA key
_RSA = const(9)  # what it needs with an RSA key
_PIECES = const(16)
_LEAST = const(6)  # blocks of a piece
_IN_TLS = const(4)  # states, as in connection
_BEHIND_TLS = const(5)
_CONNECTED = const(6)
_OVER = const(7)
_ZERO = [0]

# States in which what runs asks for next to nothing
try:
    import tls_steps

    _SETTLED = (_CONNECTED, _IN_TLS)  # many short steps, and TLS has memory of its own
except ImportError:
    tls_steps = None
    _SETTLED = (_CONNECTED,)


def _buffer(blocks):
    # bytes: that of a list or a bytearray would first put its object into the hole that it is to
    # fill, where no other block is free below
    try:
        return bytes(blocks * 16 - 1)
    except MemoryError:
        return None


def _piece(blocks):
    try:
        return _ZERO * (blocks * 4)
    except MemoryError:
        return None


class Reserve:
    """
    The memory that a client holds: buffers of its own, and the others together with all clients.
    It takes what it can get, later if not now, and never raises.

    client  MQTTClient

    short  bool, not all could be had
    tight  bool, the last connection ended for want of memory, whatever could be had before it
    """

    others = [None] * _PIECES
    rest = [None]  # a chain of single blocks

    def __init__(self, client):
        self._client = client
        self._in = self._out = None
        self.short = self.tight = False
        tls = client.tls
        # 64-bit ports and the esp32 have other memory for TLS, and so has firmware with tls_steps
        self._has_buffers = bool(tls) and not (
            sys.maxsize >> 31 or sys.platform == "esp32" or tls_steps
        )
        self._lent = not self._has_buffers  # TLS has the buffers
        gc.collect()  # what is held is to lie low

    def _wanted(self):
        # how many of the others are to be held for this client
        client = self._client
        if not client.running:
            return 0
        up = _BEHIND_TLS <= client.connection.state < _OVER
        if not self._has_buffers:
            return 0 if up and not tls_steps else _UP
        if client.tls.rsa:
            return _EC if up else _RSA
        return _UP if up else _EC

    def hold(self):
        """Hold what is not in use; nothing for a client that does not run."""
        client = self._client
        wanted = more = 0
        for each in client.clients:
            if each.connection.reserve:
                n = each.connection.reserve._wanted()
                wanted = max(wanted, n)
                more += (n > _UP) * _UP  # what stays with a connection besides its buffers
        wanted += max(more - _UP, 0)
        if not client.running:
            self._in = self._out = None
        automatic = gc.isenabled()
        try:  # Ctrl-C may come at any time
            gc.disable()  # or each piece that lacks would have it collect
            wanted *= _PIECE
            self.short = self._take(wanted) > 0
            if self.short:
                self.free()
                gc.collect()
                wanted = self._take(wanted)
                gc.collect()  # the exceptions of what could not be had
                wanted = min(wanted, gc.mem_free() >> (5 if sys.maxsize >> 31 else 4))
                while wanted > 0:
                    self.rest[0] = self.rest[0], 0
                    wanted -= 1
        except MemoryError:
            pass  # an interrupt took some
        finally:
            if automatic:
                gc.enable()

    def _take(self, wanted):
        # take what lacks; return how many blocks still do
        if not self._lent and self._client.running:
            self.regain()
            wanted += (not self._in) * _IN + (not self._out) * _OUT
        others = self.others
        at = 0
        while at < _PIECES and others[at] and len(others[at]) <= wanted * 4:
            wanted -= len(others[at]) >> 2
            at += 1
        self.free(at)
        size = _PIECE
        while at < _PIECES and wanted and size >= _LEAST:
            size = min(size, wanted)
            others[at] = _piece(size)
            if others[at]:
                wanted -= size
                at += 1
            else:
                size = size * 2 // 5
        return wanted

    def free(self, at=0):
        """Let what is held besides the buffers, from the piece `at` (int) on, be taken now."""
        others = self.others
        while at < _PIECES:
            if others[at]:
                others[at].clear()
                others[at] = None
            at += 1
        self.rest[0] = None

    def lend(self):
        """All of it is for a handshake, which follows at once."""
        if not self._has_buffers:
            return
        self._lent = True
        # In a full heap the buffers are left to be collected when TLS asks for them: the object of
        # its socket, which comes first, would take from their place
        roomy = _buffer(_IN)
        if roomy:
            roomy = self._in = self._out = None
        gc.collect()
        self._in = self._out = None

    def regain(self):
        """TLS gave its buffers back just now, as it does when it fails."""
        self._lent = not self._has_buffers
        if not self._lent and self._client.running:
            self._in = self._in or _buffer(_IN)
            self._out = self._out or _buffer(_OUT)
            if self._in and not self._out:
                self._make_way()

    def _make_way(self):
        # The object of the one buffer may lie where the other was: another that keeps the same
        # bytes is to lie elsewhere, as the rest of that place is taken meanwhile
        self._out = _piece(_OUT - 2)
        try:
            self._in = memoryview(self._in)
        except MemoryError:
            pass
        self._out = None
        gc.collect()
        self._out = _buffer(_OUT)

    def back(self):
        """TLS gave its buffers back just now; the rest is for what has to be told."""
        self.free()  # or there may be no block for the object of a buffer
        self.regain()

    def lost(self, error):
        """A connection ended by `error`, MemoryError for want of memory; TLS may have failed."""
        self.tight = error is MemoryError
        self.regain()

    def guard(self, coroutine):
        """
        Return a coroutine that does what `coroutine` does: while it runs it can use what is held,
        and while it waits nobody can. With a connection that is so only while memory is short.

        What begins with a connection has it for as long as it runs: where memory is neither short
        nor tight then, nothing is to be done.

        Returns and raises what that does.
        """
        client = self._client
        error = None
        if client.connection.state == _CONNECTED and not (self.short or self.tight):
            return (yield from coroutine)
        while True:
            settled = client.connection.state in _SETTLED and not self.tight
            if self.short or not settled:
                self.free()
            if self.short:
                gc.collect()  # or what stays would lie between what is left of the pieces
            try:
                if error:
                    coroutine.throw(error)
                else:
                    coroutine.send(None)
            except StopIteration as e:
                return e.value
            finally:
                if self.short or not (settled and client.connection.state in _SETTLED):
                    self.hold()
            try:
                error = None
                yield
            except BaseException as e:
                error = e
