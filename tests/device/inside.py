"""What programs of tests know of a client's inside: the one place that has its private names."""

import gc

from mqtt_as_tls.dispatch import Dispatcher, Message, Subscription
from mqtt_as_tls.router import matches


def to_send(client):
    """Return how many messages wait to be sent, or are without the acknowledgement they need."""
    s = client._session
    return client._queued + len(s.inflight) + len(s.awaiting_pubcomp) + len(s.to_resend)


def strays(client):
    """Return how many acknowledgements came that nothing waited for."""
    return client._session.stray


def to_receive(client):
    """Return how many deliveries of QoS 2 to this client are under way."""
    return len(client._session.inbound) + len(client._session.awaiting_pubrel)


def next_id(client, packet_id):
    """Have the next message take `packet_id`, or the first after it that is free."""
    client._session._id = (packet_id - 2) % 65535 + 1


def held(client):
    """Return (what is held for handlers and acknowledgements, its bytes)."""
    return client._dispatcher.held, client._dispatcher.size


def granted(client, topic_filter=None):
    """Return the QoS granted for a filter (None: not yet), or the list of those of all."""
    if topic_filter is None:
        return [each.granted for each in client._dispatcher.subscriptions]
    return client._dispatcher.find(topic_filter).granted


def lanes(client):
    """Return how many queues there are beside those of filters."""
    return len(client._dispatcher.others)


def indexed(client):
    """Tell whether this client has an index of its topic filters."""
    return bool(client._dispatcher._index)


class Filters:
    """
    The part of a client that finds what a topic is for, alone.

    filters  list of str, in order of declaration
    """

    def __init__(self, filters):
        self._dispatcher = Dispatcher(None)
        for filter in filters:
            sub = Subscription(filter, b"", 0)
            sub.handler = sub.task = id  # never called
            self._dispatcher.subscriptions.append(sub)

    def candidates(self, topic):
        """Return the Subscriptions that are tried for `topic` (str), without memory of its own."""
        return self._dispatcher._candidates(topic)

    def indexed(self):
        """Tell whether these are found by an index."""
        return bool(self._dispatcher._index)

    def find(self, topic):
        """Return the filters (list) that `topic` (str) is for."""
        found = [sub.filter for sub in self.candidates(topic)]
        return found if self.indexed() else [each for each in found if matches(each, topic)]

    def forget(self):
        """Have the index made anew."""
        self._dispatcher.changed()

    def taken(self, topic):
        """Return the bytes that the delivery of a message to `topic` (str) takes."""
        message = Message(topic, b"", 0, False, False, 0)
        gc.collect()
        before = gc.mem_alloc()
        self._dispatcher.deliver(message)
        after = gc.mem_alloc()
        for sub in self._dispatcher.subscriptions:
            sub.queue.clear()
        return after - before
