"""
Topic filters that brokers answer by ending the connection: asked for one by one, and left out when
it is known which. Imported when a connection ended before a SUBSCRIBE was answered.
"""

import asyncio
import time

from micropython import const

from .errors import RefusedError

_STRIKES = const(3)  # connections that ended on a filter asked for alone
_LONGEST_S = const(38_400)
_LEFT_OUT = const(128)  # its `granted`


class Doubts:
    """
    What a client knows of such filters.

    client  MQTTClient
    """

    _again_s = 600  # until a filter that was left out is asked for again; then twice as long

    def __init__(self, client):
        self._client = client
        self._strikes = {}  # Subscription: connections that ended on it; all that are in doubt
        self._out = {}  # Subscription: (ticks when it was left out, for how many seconds)

    def broke(self):
        """A connection ended, and not all requests were answered."""
        client = self._client
        strikes = self._strikes
        pending = []
        for part in client.session.requests.values():
            if isinstance(part, list):  # no UNSUBSCRIBE
                pending += part
        alone = len(pending) == 1
        for sub in pending:
            strikes[sub] = strikes.get(sub, 0) + alone
            if strikes[sub] < _STRIKES or sub not in client.dispatcher.subscriptions:
                continue
            again_s = self._again_s
            if sub in self._out:
                again_s = min(2 * self._out[sub][1], _LONGEST_S)
            self._out[sub] = time.ticks_ms(), again_s
            sub.granted = _LEFT_OUT
            sub.reason = error = RefusedError(
                "connections end when %r is asked for" % sub.filter, _LEFT_OUT
            )
            client.say("%s: left out for %d min -> see the broker's ACL" % (error, again_s // 60))
            if client.event_log and sub.handler:
                client.event_log.put("SubscriptionRefused", sub.filter)
            asyncio.create_task(self._later(sub, again_s))

    async def _later(self, sub, again_s):
        await asyncio.sleep(again_s)
        client = self._client
        if client.connected and client.retry.doubts is self and sub.granted == _LEFT_OUT:
            sub.granted = None
            client.dispatcher.renew()

    def up(self):
        """There is a connection: what was left out stays so for its time."""
        now = time.ticks_ms()
        for sub in self._out:
            since, again_s = self._out[sub]
            if time.ticks_diff(now, since) < again_s * 1000:
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
            if sub.granted is not None:
                continue
            if sub.asked:
                return []
            if client.five and client.five.unavailable(sub):
                continue
            if not found or strikes.get(sub, 0) < strikes.get(found, 0):
                found = sub
        return [found] if found else []
