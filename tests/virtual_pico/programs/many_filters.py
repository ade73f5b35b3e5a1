"""
How long a message takes to find its handler among many topic filters, by the clock of whatever
this runs on: benchmarks/filters.py and tests/virtual_pico/figures.py do.
"""

import gc
import time

from mqtt_as_tls.dispatch import Dispatcher, Message, Subscription
from mqtt_as_tls.router import matches

KINDS = {"exact": "home/room%d/lamp/set", "wildcard": "home/room%d/+/set"}


class Filters:
    """
    A client's filters, each with a handler, and messages for the last of them.

    kind   "exact", "wildcard"
    count  int, how many
    """

    max_backlog = 0

    def __init__(self, kind, count):
        self.session = self.wire = self.five = None
        self._dispatcher = Dispatcher(self)
        self._subs = self._dispatcher.subscriptions
        for i in range(count):
            sub = Subscription(KINDS[kind] % i, b"", 0)
            sub.handler = sub.task = id  # never called: what it takes is not measured
            self._subs.append(sub)
        self._topic = KINDS["exact"] % (count - 1)
        gc.collect()
        before = gc.mem_alloc()
        self._deliver()
        gc.collect()
        self.index_bytes = gc.mem_alloc() - before  # and of its module
        if [sub for sub in self._subs if sub.queue]:
            raise ValueError("a message that is for the last one alone went to others")

    def _message(self):
        return Message(0x30, (self._topic, 0, b""))

    def _deliver(self):
        self._dispatcher.deliver(self._message())
        self._subs[-1].queue.pop()
        self._dispatcher.held.pop()

    def _try_each(self):
        message = self._message()
        for sub in self._subs:
            if sub.handler and matches(sub.filter, message.topic):
                sub.queue.append(message)
        self._subs[-1].queue.pop()

    def us(self, messages, one_by_one=False):
        """
        Return how many microseconds a message takes, from its making into the queue of its
        handler, the mean of `messages`: as the client does it, or with each filter tried.
        """
        step = self._try_each if one_by_one else self._deliver
        gc.collect()
        start = time.ticks_us()
        for _ in range(messages):
            step()
        return time.ticks_diff(time.ticks_us(), start) / messages
