"""
Memory for the next connection, held in pieces while the clients have no use for it, so that an app
that takes all there is cannot keep them from connecting again.

On most boards TLS has its memory from the same heap. A client that is not connected holds what a
connection takes: its two buffers, from the moment TLS gives them back until the next handshake,
and what else an attempt needs, whenever that waits. While it is connected it holds no more than
what TLS will not give back at the end: what a handshake takes for itself.
"""

import gc
import sys

from micropython import const

# In words, less the 2 of a tuple: the buffers of a TLS connection, 16,717 and 4,429 bytes and the
# 8 that MicroPython adds to each
_IN = const(4182)
_OUT = const(1110)
# The others, in blocks of 4 words, of sizes that TLS asks for: what it left of larger pieces would
# be the app's. First those that are held with a connection, then what an attempt needs besides
# (with an RSA key they are held with a connection, too), then what it needs with an RSA key
_OTHERS = const(
    b"\x5a\x2a\x22\x22\x22\x22\x22\x22\x19\x06\x06\x06\x06\x06\x06"
    b"\x22\x22\x22\x19\x19\x19\x12\x12\x12\x0e\x08\x08\x06\x06\x06\x06\x03\x03\x03\x03"
    b"\x22\x22\x22\x22\x22\x12\x12"
)
_UP = const(15)
_EC = const(35)
_RSA = const(42)
_IN_TLS = const(4)  # states, as in connection
_BEHIND_TLS = const(5)
_CONNECTED = const(6)
_OVER = const(7)
# Bytes: with so many free a step of an attempt needs nothing of what is held
_ENOUGH = const(24_000)
_GARBAGE = const(3_000)  # and so many are collected, or what stays would lie behind them
_WORD = const((0,))

# States in which what runs asks for next to nothing
try:
    import tls_steps

    _SETTLED = (_CONNECTED, _IN_TLS)  # many short steps, and TLS has memory of its own
except ImportError:
    tls_steps = None
    _SETTLED = (_CONNECTED,)


def _piece(words):
    try:
        return _WORD * words  # a tuple is one block of memory
    except MemoryError:
        return None


class Reserve:
    """
    The memory that a client holds: buffers of its own, and the others together with all clients.
    It takes what it can get, later if not now, and never raises.

    client  MQTTClient
    """

    others = [None] * _RSA

    def __init__(self, client):
        self._client = client
        self._in = self._out = None
        tls = client.tls
        # 64-bit ports and the esp32 have other memory for TLS, and so has firmware with tls_steps
        self._has_buffers = bool(tls) and not (
            sys.maxsize >> 31 or sys.platform == "esp32" or tls_steps
        )
        self._lent = not self._has_buffers  # TLS has the buffers
        self._collect()  # what is held is to lie low

    def _wanted(self):
        # how many of the others are to be held for this client
        client = self._client
        up = _BEHIND_TLS <= client.connection.state < _OVER
        if not (client.running and (self._has_buffers or not up)):
            return 0
        if not self._has_buffers:
            return _UP
        if client.tls.rsa:
            return _EC if up else _RSA
        return _UP if up else _EC

    def hold(self):
        """Hold what is not in use; nothing for a client that does not run."""
        client = self._client
        wanted = 0
        for each in client.clients:
            if each.connection.reserve:
                wanted = max(wanted, each.connection.reserve._wanted())
        self._free(wanted)
        if not client.running:
            self._in = self._out = None
        if not wanted:
            return
        automatic = gc.isenabled()
        free = gc.mem_free()
        try:  # Ctrl-C may come at any time
            gc.disable()  # or each piece that lacks would have it collect
            if not self._take(wanted):
                self._collect()
                free = self._clean
                self._take(wanted)
        finally:
            if automatic:
                gc.enable()
        self._clean -= free - gc.mem_free()

    def _take(self, wanted):
        # take what lacks; return whether all is there
        others = self.others
        at = lacking = 0
        while at < wanted:
            if not others[at]:
                size = _OTHERS[at]
                if size != lacking:
                    others[at] = _piece(size * 4 - 2)
                    if not others[at]:
                        lacking = size
            at += 1
        if not self._lent:
            self.regain()
        return not lacking and (self._lent or self._in and self._out)

    def _free(self, at):
        others = self.others
        while at < _RSA:
            others[at] = None
            at += 1

    def _collect(self):
        gc.collect()
        self._clean = gc.mem_free()

    def room(self):
        """Give the others back: for what stays of a connection, which is to lie low."""
        self._free(0)
        if self._has_buffers or gc.mem_free() < _ENOUGH:  # without TLS it may lie anywhere
            self._collect()

    def _make_room(self):
        # What is given back is of use when it is collected, which takes its time
        client = self._client
        free = gc.mem_free()
        if not self._has_buffers:
            self._clean = free
        elif self._clean - free > _GARBAGE:
            self._collect()
        # what TLS keeps is to lie low
        if client.connection.state == _IN_TLS or client.retry.own or self._clean < _ENOUGH:
            self.room()

    def lend(self):
        """All of it is for a handshake, which follows at once."""
        self._lent = True
        # In a full heap the buffers are left to be collected when TLS asks for them: the object of
        # its socket, which comes first, would take from their place
        roomy = not self._has_buffers or _piece(_IN)
        if roomy:
            roomy = self._in = self._out = None
        self.room()
        self._in = self._out = None

    def regain(self):
        """TLS gave its buffers back just now, as it does when it fails."""
        self._lent = not self._has_buffers
        if not self._lent and self._client.running:
            self._in = self._in or _piece(_IN)
            self._out = self._out or _piece(_OUT)

    def back(self):
        """TLS gave its buffers back just now; the rest is for what has to be told."""
        self.regain()
        self._free(0)

    def guard(self, coroutine):
        """
        Return a coroutine that does what `coroutine` does: while it runs it can use what is held,
        and while it waits nobody can. With a connection it does nothing more.

        Returns and raises what that does.
        """
        client = self._client
        error = None
        while True:
            settled = client.connection.state in _SETTLED
            if not settled:
                self._make_room()
            try:
                if error:
                    coroutine.throw(error)
                else:
                    coroutine.send(None)
            except StopIteration as e:
                return e.value
            finally:
                if not (settled and client.connection.state in _SETTLED):
                    self.hold()
            try:
                error = None
                yield
            except BaseException as e:
                error = e
