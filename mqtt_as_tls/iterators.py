"""What is read with `async for`: messages that no handler claims, and events."""

import asyncio

_EVENTS = 16  # kept for an iterator that is slow


class Connected:
    """Event: the broker accepted the connection. session_present  bool"""

    def __init__(self, session_present):
        self.session_present = session_present


class Disconnected:
    """Event: the connection was lost, or an attempt to connect failed. error  the exception"""

    def __init__(self, error):
        self.error = error


class RadioDead:
    """Event: the radio did not start. failures  int, times in a row"""

    def __init__(self, failures):
        self.failures = failures


class Suspect:
    """Event: connections keep breaking right after this message was sent. topic  str"""

    def __init__(self, topic):
        self.topic = topic


class SubscriptionRefused:
    """Event: the broker refused a declared subscription. filter  str"""

    def __init__(self, filter):
        self.filter = filter


class Undelivered:
    """
    Event: a message that no task waits for was refused, or nobody knows whether it was delivered.

    topic  str
    error  RefusedError, DeliveryUnknown or another MQTTError
    """

    def __init__(self, what):
        self.topic, self.error = what


class Oversized:
    """
    Event: a message did not fit, over max_packet or without memory for it. It was read past, and
    acknowledged.

    topic  str, its first 480 bytes
    size   int, bytes of its packet
    """

    def __init__(self, what):
        self.topic, self.size = what


class EventLog:
    """The last events of a client, for any number of iterators."""

    def __init__(self, _):
        self._events = []
        self._count = 0
        self._news = asyncio.Event()

    def put(self, kind, value):
        """Add an event: the name of its class and what that takes."""
        self._count += 1
        self._events.append(globals()[kind](value))
        if len(self._events) > _EVENTS:
            self._events.pop(0)
        self.wake()

    def wake(self):
        """Let every iterator look again."""
        self._news.set()
        self._news.clear()


def events(client):
    """`client.events()`: return an async iterator of events from now on."""
    return Events(client, client.lazily("event_log", EventLog))


def messages(client):
    """`client.messages()`: return an async iterator of the messages that no handler claims."""
    return Messages(client)


def leave(client):
    """The iterator is left: what waits for it is acknowledged as unclaimed."""
    dispatcher = client.dispatcher
    dispatcher.open = False
    inbox = dispatcher.inbox
    dispatcher.finish(inbox)
    client.stats.unclaimed += len(inbox.queue)
    while inbox.queue:
        dispatcher.release(inbox.queue.pop(0))


class Events:
    """
    `async for event in client.events()`: events from when it was made, the last 16 of those not
    fetched yet. It ends when the client stops.
    """

    def __init__(self, client, log):
        self._client = client
        self._log = log
        self._at = log._count

    def __aiter__(self):
        return self

    async def __anext__(self):
        log = self._log
        while self._at >= log._count:
            if not self._client.running:
                raise StopAsyncIteration
            await log._news.wait()
        self._at = max(self._at, log._count - len(log._events)) + 1
        return log._events[self._at - 1 - log._count]


class Messages:
    """
    `async for message in client.messages()`: what no handler claims, in order of arrival.

    A message is acknowledged when the next one is asked for. An iterator that does not ask within
    handler_timeout_s counts as left, until it asks again; so does one after `close()`, or after
    its `async with` block. It ends when the client stops.
    """

    def __init__(self, client):
        self._client = client
        self._dispatcher = client.dispatcher
        self._dispatcher.open = True

    def __aiter__(self):
        return self

    async def __anext__(self):
        d = self._dispatcher
        d.open = True
        inbox = d.inbox
        d.finish(inbox)
        while self._client.running:
            if inbox.queue:
                return d.take(inbox)
            inbox.signal.waiter = None
            await inbox.signal
        raise StopAsyncIteration

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        self.close()

    def close(self):
        """Leave the iterator: its message is acknowledged, the rest counts as unclaimed."""
        leave(self._client)
