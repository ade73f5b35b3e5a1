"""
Several brokers for one client: which one is tried next, and the way back to the first. Imported
when a list of hosts is given.
"""

import asyncio
import random
import time

from micropython import const

from . import load, unload
from .errors import ConnectError
from .transport import Transport

_SHORT = const(3)  # connections in a row that did not last: the next broker has its turn
# for the first broker to take a connection, when it is asked whether it is back
_DIAL_S = const(10)
_STAYS_MS = const(500)  # how long it must keep it
_LONGEST_S = const(86400)  # between two such questions, when going back has failed again and again
_TURN_MS = const(20)  # between looks whether the last acknowledgement has come
_NOTHING = const((11, 35))  # EAGAIN
_GOODBYE = const(b"\xe0\0")


def own_order(hosts, client_id):
    """
    Sort `hosts` (list of pairs) by hashes of the id (str) and each: every client has an order of
    its own, the same at each start, and what one broker had is spread over all others.
    """
    from hashlib import sha256

    hosts.sort(key=lambda pair: sha256(("%s %s %d" % ((client_id,) + pair)).encode()).digest())


class Failover:
    """
    The brokers of a client.

    hosts     list of pairs (host, port), not empty
    shared    bool, they are one cluster and share the session
    prefer_s  seconds from one question to the next whether the first broker is back, half of it to
              one and a half; None: it is not asked

    other_broker  bool, the next one is another than the one that has the session: each has one of
                  its own, so that it begins anew
    moves         bool, the next one is another than the last, and many devices may go there now
    """

    _prefer = _home_ms = _task = None
    _short = _vain = 0
    _returns = moves = other_broker = False

    def __init__(self, hosts, shared, prefer_s):
        self.hosts = found = []
        for pair in hosts:
            if pair not in found:  # else those behind it would never have their turn
                found.append(pair)
        self._shared = shared
        if prefer_s and len(found) > 1:
            self._prefer = prefer_s
        self._here = self._next = found[0]
        self._home = None  # the broker that has the session, when it is known

    def restored(self):
        """A session was read from flash: which of the brokers has it is not known."""
        if not self._shared:
            self._home = ()  # none of them
            self.other_broker = True

    def connected(self, client, connection):
        """The broker of this attempt accepted it."""
        self._home = self._here
        self.other_broker = False
        if self._returns:
            self._returns = False
            self._home_ms = time.ticks_ms()
        elif self._prefer and self._here != self.hosts[0]:
            self._task = asyncio.create_task(self._return(client, connection))

    def closed(self):
        """The connection ended."""
        if self._task:
            self._task.cancel()
            self._task = None

    def plan(self, lost, lasted, stay):
        """
        An attempt failed, or a connection ended: choose the broker of the next one, the first
        after a connection that was `lost`, else the next in the list. Returns whether that is the
        first, or the list is not to be gone through.

        lasted  bool, the connection was a good one
        stay    bool, the client itself ended it for want of memory or room: what it did not take
                is at this broker
        """
        hosts = self.hosts
        here = self._here
        first = hosts[0]
        if self._returns and not lost or self._home_ms is not None:
            stayed = time.ticks_diff(time.ticks_ms(), self._home_ms) if lost else 0
            # in vain, and so more rarely the next time
            self._vain = self._vain + 1 if 0 <= stayed < self._prefer * 1000 else 0
            self._returns = False
            self._home_ms = None
        self._short = self._short + 1 if lost and not (lasted or self._returns) else 0
        if stay:
            self._next = here
        elif lost and self._short < _SHORT:
            self._next = first
        else:
            self._short = 0
            self._next = hosts[(hosts.index(here) + 1) % len(hosts)]
            lost = False
        self.moves = self._next != here and not self._returns and (lost or self._next != first)
        return stay or self._next == first

    def go(self):
        """Return the broker of the next attempt, (host, port): it is that of this one now."""
        self._here = there = self._next
        self.other_broker = not self._shared and self._home not in (None, there)
        return there

    # Back to the first

    async def _return(self, client, connection):
        """Connected to another broker than the first: go there once it answers."""
        t = connection.transport
        wait_s = min(self._prefer << min(self._vain, 16), max(self._prefer, _LONGEST_S))
        while True:
            # not all devices at once
            await asyncio.sleep_ms(int(wait_s * (500 + random.random() * 1000)))
            try:
                if await self._answers(client) and await self._settled(client, t):
                    break
            except Exception:
                pass  # no memory: later
        self._task = None
        self._returns = True
        error = ConnectError("%s port %d answers again: going back to it" % self.hosts[0])
        five = client.five
        if five and not self._shared:  # its session has no use any more; its will is to be told
            t.send(client.wire.disconnect(4 * bool(client.will), {"session_expiry_interval": 0}))
        elif self._shared or not client.will:
            t.send(_GOODBYE)
        t.lost(error)

    async def _answers(self, client):
        """Return whether the first broker takes a connection, and keeps it."""
        host, port = self.hosts[0]
        t = Transport(asyncio.core.cur_task, client)
        try:
            servers = client.link and client.link.dns_servers()
            address = await load("dns").resolve(host, servers)
            await asyncio.wait_for(t.dial(address, port), _DIAL_S)
            await asyncio.sleep_ms(_STAYS_MS)
            t.sock.recv(1)
        except OSError as e:
            return e.errno in _NOTHING
        except Exception:
            pass  # it does not answer, or there is no memory to ask it
        finally:
            t.close()
            unload("dns")
        return False

    async def _settled(self, client, t):
        """
        Let nothing more be sent. Return True when all that was sent is acknowledged, and all that
        came; or False when that took too long, and all goes on.
        """
        session = client.session
        outbox = client.outbox
        end = time.ticks_add(time.ticks_ms(), int(client.ack_timeout_s * 1000))
        paused = False
        while time.ticks_diff(end, time.ticks_ms()) > 0:
            if not (paused or t.blocked or t.streams):
                paused = True
                outbox.down()
            if paused and not (
                t.blocked
                or t.streams
                or session.inflight
                or session.awaiting_pubcomp
                or session.inbound
                or session.requests
                or client.requests
                and client.requests.waiting
            ):
                return True
            await asyncio.sleep_ms(_TURN_MS)
        if paused:
            outbox.up(t)
        return False
