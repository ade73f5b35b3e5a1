"""
Memory for the next connection, held in pieces while the client has no use for it, so that an app
that takes all there is cannot keep it from connecting again.

On most boards TLS has its memory from the same heap. Its buffers are held from the moment it gives
them back until the next handshake; what a handshake and the rest of an attempt take besides is
held whenever these wait.
"""

import gc
import sys

from micropython import const

# In words, less the 2 of a tuple: the buffers of a TLS connection, 16,717 and 4,429 bytes and the
# 8 that MicroPython adds to each; first, so that they find the places that TLS had
_BUFFERS = const((4182, 1110))
# In 8 words: all else, most of it for a handshake (9 KB with RSA on both sides, 5 with P-256)
_OTHERS = const(
    b"--\x15\x15\x15\x15\x11\x11\x11\x11\x11\x11\x11\x11\t\t\t\t\t\t\t\t\t\t"
    b"\3\3\3\3\3\3\3\3\3\3\3\3\3\3\3\3"
)
_TCP = const(16)  # the first piece that plain TCP has use for
_WORD = const((0,))


def _piece(words):
    try:
        return _WORD * words
    except MemoryError:
        return None


class Reserve:
    """
    The memory that a client holds. It takes what it can get, later if not now, and never raises.

    tls  TLS or None
    """

    def __init__(self, tls):
        # Each a tuple, one block of memory; None: to be taken; (): never
        self._pieces = pieces = [None] * (2 + len(_OTHERS))
        self._lent = False  # TLS has the buffers
        if not tls or sys.maxsize >> 31 or sys.platform == "esp32":
            for i in range(_TCP):  # 64-bit ports and the esp32 have other memory for TLS
                pieces[i] = ()

    def _take(self, at, end):
        """Take the pieces from `at` to `end` that are to be taken; return whether one lacks."""
        pieces = self._pieces
        lacking = 0
        while at < end:
            if pieces[at] is None:
                words = _OTHERS[at - 2] * 8 - 2 if at > 1 else _BUFFERS[at]
                if words != lacking:
                    pieces[at] = _piece(words)
                    if not pieces[at]:
                        lacking = words
            at += 1
        return lacking

    def hold(self, wanted):
        """
        Hold what is not in use.

        wanted  bool; False: give all back
        """
        if not wanted:
            self._free(0)
            return
        automatic = gc.isenabled()
        try:  # Ctrl-C may come at any time
            gc.disable()  # or each piece that lacks would have it collect
            at = 2 if self._lent else 0
            if self._take(at, len(self._pieces)):
                gc.collect()
                self._take(at, len(self._pieces))
        finally:
            if automatic:
                gc.enable()

    def _free(self, at):
        pieces = self._pieces
        while at < len(pieces):
            if pieces[at]:
                pieces[at] = None
            at += 1

    def lend(self):
        """All of it is for a handshake, which follows at once."""
        self._lent = True
        self._free(0)
        gc.collect()

    def regain(self):
        """TLS may have given its buffers back just now, as it does when it fails."""
        self._lent = False
        self._take(0, 2)

    def back(self):
        """TLS gave its buffers back just now; the rest is for what has to be told."""
        self.regain()
        self._free(2)

    def guard(self, client, coroutine):
        """
        Return a coroutine that does what `coroutine` does: while it runs it can use what is held,
        and while it waits nobody can. With a connection it does nothing more.

        Returns and raises what that does.
        """
        error = None
        while True:
            up = client.connected
            if not up:
                self._free(2)
            try:
                if error:
                    coroutine.throw(error)
                else:
                    coroutine.send(None)
            except StopIteration as e:
                return e.value
            finally:
                if not (up and client.connected):
                    if self._lent and client.connected:
                        gc.collect()  # or it lies behind what the attempt has left
                    self.hold(client.running)
            try:
                error = None
                yield
            except BaseException as e:
                error = e
