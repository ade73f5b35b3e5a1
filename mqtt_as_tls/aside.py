"""
Messages on which connections end: kept back, so that others get through, and tried alone, ever
more rarely. Imported when two connections in a row ended on the same one.
"""

import asyncio
import time

from micropython import const

from . import load, packet
from .errors import MQTTError

_STRIKES = const(3)  # connections that ended on it until it is kept back
_LONGEST_S = const(3_600)
_NOTHING_S = const(60)  # the longest where no other message gets through
_SHARE = const(512)  # one of n bytes counts 1 + n // 512 times, as it does in outbox
_TURN_MS = const(100)  # between looks at one that is tried


def _topic(out):
    return packet.topic(out.packet)


def _share(out):
    return 1 + len(out.packet) // _SHARE


class Aside:
    """
    What a client knows of such messages. They are in `session.aside`: those on which connections
    ended, and in their order others for the same topics, which must not overtake them.

    client  MQTTClient
    """

    _again_s = 10  # until one is tried again, the first time; then twice as long

    def __init__(self, client):
        self._client = client
        self._strikes = {}  # topic (str): connections that ended on the first message for it
        self._until = None  # Delivery: until it is through one message at a time is under way
        self._tried = None  # the one of `aside` that is tried
        self._other = None  # the last one that was none of them
        self._passes = False  # others got through since one was tried
        self._window = client.session.max_inflight
        self._task = None

    def up(self):
        """There is a connection."""
        client = self._client
        session = client.session
        # in MQTT 5 the broker has just said how many it takes
        self._window = session.max_inflight if client.five else client.max_inflight
        session.max_inflight = 1 if self._is_under_way(self._until) else self._window

    def _is_under_way(self, out):
        return out in self._client.session.inflight or out in self._client.outbox.queue

    def struck(self, out):
        """Return how many connections ended on the Delivery `out` so far."""
        return self._strikes.get(_topic(out), 0)

    def broke(self, out, strikes):
        """
        A connection ended on the Delivery `out`, as did others before, `strikes` in all.

        Returns for how many seconds it is kept back; None: it is sent once more, and what is
        behind it when it is through, as there were too few of them, or there is no room.
        """
        session = self._client.session
        topic = _topic(out)
        if topic in self._strikes:
            longest_s = _LONGEST_S if self._passes else _NOTHING_S
            self._again_s = min(2 * self._again_s, longest_s)
        elif strikes < _STRIKES or not self._has_room(out, None):
            self._until = session.inflight[-1]
            return None
        # before those that wait behind it; else there are none, and the others are older
        at = 0 if topic in self._strikes else len(session.aside)
        self._strikes[topic] = strikes
        for each in reversed(session.inflight):
            if _topic(each) == topic:
                session.drop(each, at)
        if not self._task:
            self._task = asyncio.create_task(self._try())
        return self._again_s

    def keeps(self, out):
        """
        The Delivery `out`, with QoS 1 or 2, is the next to be sent. Returns True when it is kept
        back from now on, or stays in the queue of the outbox as it has to wait, and all behind it.
        """
        client = self._client
        session = client.session
        if self._until and not self._is_under_way(self._until):
            self._until = None
            session.max_inflight = self._window
        if out is self._tried:
            return False
        topic = _topic(out)
        if topic not in self._strikes:
            other = self._other
            if other and not (other in session.inflight + session.aside or other.error):
                self._passes = True
            self._other = out
            return False
        if not self._has_room(out, topic):
            return True
        if out.entry:
            client.store.aside(out.entry)
        session.drop(out, len(session.aside))
        client.outbox.drop(out)
        return True

    def _has_room(self, out, topic):
        # whether `out` can be kept back; the oldest for this topic, or of all, gives way if others
        # get through: else it may not be their doing
        client = self._client
        aside = list(client.session.aside)
        room = client.max_waiting - _share(out)
        for each in aside:
            room -= _share(each)
        for each in aside:
            if room >= 0:
                break
            if each is self._tried or topic not in (None, _topic(each)):
                continue
            if not self._passes:
                return False
            room += _share(each)
            self._strikes[_topic(each)] = _STRIKES
            error = MQTTError("given up: too many on which connections end")
            load("texts").undelivered(client, each, error)
        return True

    async def _try(self):
        client = self._client
        while client.session.aside:
            await asyncio.sleep(self._again_s)
            await client.up.wait()
            try:
                await self._try_one()
            except MemoryError:  # there may be some the next time
                client.outbox.drop(self._tried)
            self._tried = None
        self._strikes = {}
        self._task = None

    async def _try_one(self):
        client = self._client
        session = client.session
        out = None
        for each in session.aside:  # in turn
            if not out or self.struck(each) < self.struck(out):
                out = each
        if not out:
            return
        self._tried = self._until = out
        self._passes = False
        session.max_inflight = 1
        if out not in client.outbox.queue:
            client.outbox.add(out, True)
        client.outbox.pump()
        while self._is_under_way(out):
            await asyncio.sleep_ms(_TURN_MS)
        if out.error:  # it was given up: the next one is another
            self._strikes[_topic(out)] = _STRIKES
        elif out not in session.aside:
            topic = _topic(out)
            client.say("a message to %r that was kept back is through" % topic)
            self._let_go(topic)
            del self._strikes[topic]
            self._again_s = Aside._again_s
            client.outbox.pump()

    def _let_go(self, topic):
        # what is kept back for this topic, or all, is the session's if it was sent, and may wait
        # for the window; else it is as all that waits
        client = self._client
        session = client.session
        for out in list(session.aside):
            if hasattr(out, "sent_ms") and (not topic or topic == _topic(out)):
                session.inflight.append(out)
                session.aside.remove(out)
                out.sent_ms = time.ticks_ms()
                session.to_resend.append(out)
        for out in reversed(list(session.aside)):
            if not topic or topic == _topic(out):
                client.outbox.add(out, True)
                session.drop(out)

    def is_idle(self):
        """Return whether nothing is kept back, and nothing else to be done."""
        return not (self._until or self._task)

    def stop(self, alive):
        """
        The client stops, in an event loop that is `alive` (bool): what was kept back is as all
        that waits, or is under way.
        """
        client = self._client
        if self._task and alive:
            self._task.cancel()
        client.outbox.drop(self._tried)
        self._let_go(None)
        client.session.max_inflight = self._window
