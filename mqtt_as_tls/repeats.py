"""
What happens again and again is told once a second at most: the first time at once, then how often
it was since. Imported when something did that may.
"""

import asyncio
import time

from micropython import const

_PAUSE_MS = const(1_000)  # between two lines about the same
_CONDITIONS = const(16)  # that are told apart within such a time
_SHOWN = const(120)  # characters that are kept of a condition, and of its last details
_OTHERS = const("other things like these")


class Repeats:
    """
    What a client told within the last second.

    client  MQTTClient
    task    Task that tells how often it was, while there is something, or None
    """

    def __init__(self, client):
        self._client = client
        self._told = {}  # condition -> [function that says it, ticks, how often since, details]
        self.task = None

    def tell(self, what, details, say):
        """See the function `tell`."""
        now = time.ticks_ms()
        told = self._told
        line = what
        what = what[:_SHOWN]
        if what not in told and len(told) >= _CONDITIONS:
            what = line = _OTHERS
        known = told.get(what)
        if known and 0 <= time.ticks_diff(now, known[1]) < _PAUSE_MS:
            known[2] += 1
            known[3] = details[:_SHOWN]
            return False
        say = say or self._client.say
        if known and known[2]:
            details = "%s (%d more)" % (details, known[2] + 1)
        told[what] = [say, now, 0, ""]  # before that: a log may do what is told here
        say(line, details, True)
        if not self.task:
            self.task = asyncio.create_task(self._later())
        return True

    async def _later(self):
        try:
            while self._told:
                await asyncio.sleep_ms(_PAUSE_MS // 4)
                self.flush(False)
        except MemoryError:
            pass  # counted still; the next one makes another task
        finally:
            self.task = None

    def flush(self, now):
        """Tell how often it was, of all (`now` True) or of what its second is over of."""
        for what in list(self._told):
            say, since, count, details = self._told[what]
            if now or not 0 <= time.ticks_diff(time.ticks_ms(), since) < _PAUSE_MS:
                del self._told[what]
                if count:
                    say(what, "%s (%d more)" % (details, count), True)
                    if not now:
                        self._told[what] = [say, time.ticks_ms(), 0, ""]


def tell(client, what, details="", say=None):
    """
    Log a line, unless one about the same was logged within the last second: then it is counted,
    and told with the next one.

    client   MQTTClient
    what     str, the condition; details  str, what differs from one time to the next
    say      function (text, more, bool) that logs it, in the place of the client

    Returns whether it is logged now.
    """
    if not client.log:
        return False
    return client.lazily("repeats", Repeats).tell(what, details, say)
