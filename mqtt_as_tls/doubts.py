"""
Topic filters that brokers answer by ending the connection: asked for one by one, and left out when
it is known which. Imported when a connection ended before a SUBSCRIBE was answered.
"""

import asyncio
import time

from micropython import const

from .errors import RefusedError

_STRIKES = const(3)  # connections that ended on a filter asked for alone
_SOON_MS = const(5_000)  # after it was asked for
_LONGEST_S = const(3_600)
_NOTHING_S = const(60)  # the longest where no other filter is granted
_LEFT_OUT = const(128)  # its `granted`
_CLOSED = const(b"\x20\x36\x67\x68")  # errno of a reset: EPIPE, 54 on macOS, 103, 104
_EARLY_MS = const(100)  # that a sleep may be too short
_PINGREQ = const(b"\xc0\0")


class Doubts:
    """
    What a client knows of such filters.

    client  MQTTClient

    Each time that one is left out is twice as long as the one before. The first is short, and
    nobody is told, as a bad network may end three connections in the same place: if it was that,
    the broker grants it then.
    """

    _again_s = 10  # until a filter that was left out is asked for again, the first time

    def __init__(self, client):
        self._client = client
        self._strikes = {}  # Subscription: connections that ended on it; all that are in doubt
        # Subscription: (ticks when it was left out, for how many seconds, bool: and told)
        self._out = {}
        self._heard = 0  # bytes received when one was asked for alone

    def broke(self, error):
        """A connection ended by `error` (MQTTError), and not all requests were answered."""
        client = self._client
        strikes = self._strikes
        pending = []
        for part in client.session.requests.values():
            if isinstance(part, list):  # no UNSUBSCRIBE
                pending += part
        strike = len(pending) == 1 and self._speaks_against_it(error)
        for sub in pending:
            strikes[sub] = strikes.get(sub, 0) + strike
            if not strike or strikes[sub] < _STRIKES or sub not in client.dispatcher.subscriptions:
                continue
            again_s = self._again_s
            told = sub in self._out
            if told:
                again_s = min(2 * self._out[sub][1], _LONGEST_S)
                self._tell(sub)
            if not [each for each in client.dispatcher.subscriptions if each.granted in (0, 1, 2)]:
                again_s = min(again_s, _NOTHING_S)
            self._out[sub] = time.ticks_ms(), again_s, told
            client.say(
                "connections end when %r is asked for" % sub.filter,
                ": left out for %d s -> see the broker's log: its ACL, or in a cluster what waits"
                " for this client is on a node that is down" % again_s,
            )
            asyncio.create_task(self._later(sub, again_s))

    def _speaks_against_it(self, error):
        # whether the broker did it, and soon: not whatever lies between
        client = self._client
        why = str(error)
        if "SUBACK" in why:
            return client.stats.bytes_in > self._heard  # it answered the ping
        closed = "closed" in why or error.code and error.code in _CLOSED
        if not closed and not isinstance(error, RefusedError):
            return False
        return time.ticks_diff(time.ticks_ms(), client.session.asked_ms) < _SOON_MS

    def _tell(self, sub):
        client = self._client
        known = self._out[sub][2]
        sub.granted = _LEFT_OUT
        sub.reason = RefusedError("connections end when %r is asked for" % sub.filter, _LEFT_OUT)
        if client.event_log and sub.handler and not known:
            client.event_log.put("SubscriptionRefused", sub.filter)

    async def _later(self, sub, again_s):
        await asyncio.sleep(again_s)
        client = self._client
        if client.connected and client.retry.doubts is self and not self._is_out(sub):
            if sub.granted == _LEFT_OUT:
                sub.granted = None
            client.dispatcher.renew()

    def _is_out(self, sub):
        since, again_s, _ = self._out.get(sub, (0, -1, False))
        return 0 <= time.ticks_diff(time.ticks_ms(), since) < again_s * 1000 - _EARLY_MS

    def up(self):
        """There is a connection: what was left out stays so for its time."""
        for sub in self._out:
            if self._out[sub][2] and self._is_out(sub):
                sub.granted = _LEFT_OUT

    def next(self):
        """
        Return what is to be asked for now (list of Subscriptions): one, and none while that is not
        answered, those that are most in doubt last. Without doubt all.
        """
        client = self._client
        subs = client.dispatcher.subscriptions
        strikes = self._strikes
        for sub in list(strikes):
            if sub.granted in (0, 1, 2) or sub not in subs:
                del strikes[sub]
                self._out.pop(sub, None)
        if not strikes:
            return subs
        found = None
        for sub in subs:
            if sub.granted is not None or self._is_out(sub):
                continue
            if sub.asked:
                return []
            if client.five and client.five.unavailable(sub):
                continue
            if not found or strikes.get(sub, 0) < strikes.get(found, 0):
                found = sub
        if not found:
            return []
        if found in strikes:
            client.connection.transport.send(_PINGREQ)  # its answer shows that the path works
            self._heard = client.stats.bytes_in
        return [found]
