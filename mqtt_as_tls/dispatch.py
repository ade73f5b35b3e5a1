"""
Subscriptions and messages in: topic filters and their handlers, what was asked of the broker
and what it granted; one queue and one task a handler, so that the reader never waits for any, and
a bound in bytes on all that is not handled.
"""

import asyncio
from asyncio import core
from time import ticks_diff, ticks_ms

from micropython import const

from . import load, router
from .router import matches, wrong
from .transport import Signal

_SUBACK = const(0x90)
_FILTERS = const(8)  # in one SUBSCRIBE: AWS IoT takes no more
_FEW = const(4)  # filters that are matched sooner one by one than by an index
_OVERHEAD = const(100)  # bytes that a waiting message takes besides its topic and payload
_RETRY_MS = const(100)  # where there is no memory to go on


class Message:
    """
    A message from the broker.

    topic       str
    payload     bytes
    qos         int, 0 to 2, as the broker sent it
    retain      bool, kept by the broker from earlier
    dup         bool, sent before
    stream      for handlers with stream=True: the payload, to be read in pieces; `payload` is b""
    length      int, its bytes; 0 where there is no stream
    properties  dict of what MQTT 5 carries with it (the first 64 user properties), or None

    With MQTT 5 a handler may set what its acknowledgement says:

    ack_code        int, reason code of PUBACK or PUBREC (5.0 section 3.4.2.1)
    ack_properties  dict or list of pairs, or None
    """

    properties = ack_properties = stream = None
    ack_code = length = qos = id = 0
    retain = dup = False
    done = stale = False  # of session
    claims = 0  # handlers that have not returned

    def __init__(self, first, fields, decoder=None):
        """
        first    int, that byte of its PUBLISH
        fields   (topic, packet id, payload); None: those that `decoder` is at
        """
        size = _OVERHEAD
        if fields is None:
            fields = decoder.publish(first >> 1 & 3)
            if decoder.properties:
                self.properties = decoder.properties
                size += decoder.extra
        self.topic, packet_id, self.payload = fields
        # bytes of memory that it takes
        self.size = size + len(fields[0]) + len(fields[2])
        if packet_id:  # attributes that it has not take no memory
            self.id = packet_id
            self.qos = first >> 1 & 3
        if first & 1:
            self.retain = True
        if first & 8:
            self.dup = True


class Subscription:
    """
    A topic filter, the handler that wants what it matches, and the lane of what waits for that
    handler: a queue, and the task that handles one after the other.

    filter   str
    data     bytes, the filter in UTF-8
    handler  function of the app, or None
    flags    int, subscription options but the QoS; properties  bytes, encoded (MQTT 5)
    reason   RefusedError of the SUBACK, or None
    granted  int, the QoS granted in this session; 128 and over: refused; None not answered yet
    asked    the packet id of its last SUBSCRIBE on this connection, or False

    queue    Messages that wait; current  the one being handled, since `since_ms` (ticks), or None;
             without a handler, the first in `queue` waits since then
    task     None before the first message, and when it is taken back
    signal   Signal: look at `queue`
    waits    bool, the handler has asked for what the broker answers
    """

    handler = task = current = granted = reason = None
    asked = waits = False
    flags = 0
    properties = b""

    def __init__(self, filter, data, qos):
        self.filter = filter
        self.data = data
        self.qos = qos
        self.queue = []
        self.signal = Signal()


class Dispatcher:
    """
    The subscriptions of a client, and the messages that its handlers have not handled yet.

    client  MQTTClient; its session, wire and five are there

    subscriptions  list of Subscription, in the order in which they were declared
    index          topic_index.index of them, or None: who changes them takes it away first
    held    messages not handled yet, in order of arrival
    size    int, their bytes
    began_ms  ticks when a handler last began with one, or could: the first came
    open    an iterator takes what no handler claims, from `inbox`: the task that asks it,
            True before that; else False
    warned  list of what was told of messages and is not told again: True, numbers of topics
    others  lanes of what the broker does not have: `inbox`, one for each stream that is read, and
            those of subscriptions taken back whose handler still runs
    """

    def __init__(self, client):
        self._client = client
        self._session = client.session
        self._most = client.max_backlog
        self.warned = []
        self.subscriptions = []
        self._transport = self.index = None  # the first: while there is no connection
        self.inbox = Subscription("messages()", None, 0)
        self.open = False
        self.others = [self.inbox]
        self.size = self.began_ms = 0
        self.held = []

    # What is asked of the broker

    def find(self, filter):
        """Return the Subscription of `filter` (str), or None."""
        for sub in self.subscriptions:
            if sub.filter == filter:
                return sub
        return None

    def candidates(self, topic):
        """
        Return the Subscriptions (list) that match `topic` (str), by the `index`, in order of
        declaration; all of them where there is no memory for one.
        """
        try:
            if not self.index:
                self.index = load("topic_index").index(self.subscriptions)
            return self.index(topic)
        except MemoryError:
            self.index = None
            return self.subscriptions

    def declare(self, filter, qos, options, handler=None):
        """
        Return the Subscription of `filter`, new or with what is asked for now.

        Raises TypeError and ValueError as `MQTTClient.subscribe` does.
        """
        client = self._client
        data = router.filter(filter)
        router.qos(qos)
        old = self.find(filter)
        sub = old or Subscription(filter, data, qos)
        if options:
            if not client.five:
                wrong("subscription", options)
            client.five.subscription(sub, options)
        if not old:
            if client.five:
                client.five.declared(sub, self.subscriptions)
            self.index = None
            self.subscriptions.append(sub)
        if qos != sub.qos or (sub.granted or 0) > 2:
            sub.qos = qos
            sub.granted = None
            sub.asked = False
        sub.handler = handler or sub.handler  # it is told when it is refused at once
        t = self._transport
        if t:
            try:
                self.renew()
            except MemoryError as e:  # asked or not, the next connection asks for it
                t.lost(e)
                raise
        return sub

    def up(self, t, resumed):
        """
        There is a connection, the Transport `t`: ask for what this session does not have.

        resumed  bool, it is the session of the last connection, for sure
        """
        self._transport = t
        for sub in self.subscriptions:
            if not resumed or (sub.granted or 0) > 2:
                sub.granted = None
        doubts = self._client.retry.doubts
        if doubts:
            doubts.up()
        self.renew()

    def down(self):
        """The connection ended."""
        self._transport = None
        for sub in self.subscriptions:
            sub.asked = False

    def renew(self):
        """Ask for every declared subscription that this session does not have."""
        client = self._client
        five = client.five
        most = five.filters if five else _FILTERS
        doubts = client.retry.doubts
        while True:
            part = []
            filters = []
            for sub in doubts.next() if doubts else self.subscriptions:
                if sub.granted is not None or sub.asked or len(part) == most:
                    continue
                if five and (five.unavailable(sub) or five.apart(sub, part)):
                    continue
                sub.asked = True
                part.append(sub)
                filters.append((sub.data, sub.qos | sub.flags))
            if not part:
                return
            properties = five and five.identified(part, filters)
            n = self.request(client.wire.subscribe, part, filters, properties)
            for sub in part:
                sub.asked = n

    def request(self, encode, record, what, properties):
        """
        Send a SUBSCRIBE or UNSUBSCRIBE; return its packet id.

        record  its Subscriptions, a list or a tuple
        """
        t = self._transport
        packet_id = self._session.request(record, ticks_ms())
        t.send(encode(packet_id, what, properties))
        t.due(self._client.ack_timeout_s * 1000)
        return packet_id

    def answered(self, packet_id, kind, codes):
        """
        A SUBACK or UNSUBACK (`kind`) came.

        codes  bytes, its return codes; none of an UNSUBACK of MQTT 3.1.1

        Raises ProtocolError.
        """
        part = self._session.answered(packet_id)
        if not part:
            return
        codes = codes or bytes(len(part))
        if len(codes) != len(part) or isinstance(part, list) != (kind == _SUBACK):
            raise load("texts").out_of_place(1)
        for i, sub in enumerate(part):
            if kind == _SUBACK and sub.asked and sub.asked != packet_id:
                continue  # it was asked for anew meanwhile
            sub.granted = codes[i]
            if codes[i] > 127:
                load("texts").refused(self._client, sub)
        if self._client.retry.doubts:
            self.renew()

    # What comes

    def room(self, message):
        """Return whether the backlog has room for `message`."""
        limit = self._most - message.size
        if message.qos:
            limit -= self._session.lingering()
        return self.size <= limit or not self.held

    def asks(self):
        """
        The task that runs is about to wait for an answer of the broker. Raises RuntimeError in a
        handler that must not, as it comes behind the payload that it reads.
        """
        if self._client.stream_in:
            self._client.stream_in.forbid()
        task = core.cur_task
        for lane in self.lanes():
            if lane.task is task or lane is self.inbox and self.open is task:
                lane.waits = True

    def lanes(self):
        """Return every lane (list of Subscription), that of the iterator too."""
        return self.subscriptions + self.others

    def deliver(self, message):
        """
        Queue `message` for every handler whose filter matches, else for the iterator. A handler
        that waits, where it is the only one, has it at once: its task goes on in the turn of this
        one.
        """
        self.held.append(message)  # first: with no memory for the rest the books stay right
        self.size += message.size
        try:
            if not (
                message.properties and self._client.five.offered(self, message)
            ) and self._offer(message):
                return
        except:  # noqa: E722  (nobody gets it now: it comes again)
            self._withdraw(message)
            raise
        if message.claims:
            return
        self.held.remove(message)
        self.size -= message.size
        if message.done:  # a copy that nobody wants
            return
        message.done = True
        self._client.stats.unclaimed += 1
        if True not in self.warned:
            self.warned.append(True)
            self._client.say(
                "no handler and no iterator for topic %r: see stats.unclaimed"
                % message.topic[:100]
            )

    def _offer(self, message):
        # returns whether its handler had it at once. 11 words: two lanes have one name
        topic = message.topic
        subs = self.subscriptions
        if len(subs) > _FEW:
            subs = self.candidates(topic)
        at = -len(subs)
        lane = None
        while at:  # `for` takes more words
            sub = subs[at]
            if sub.handler and (sub.filter == topic or self.index or matches(sub.filter, topic)):
                if lane:
                    self.queue(lane, message)
                lane = sub
            at += 1
        if lane is None:  # quicker than to ask whether it is true
            return self.open and self.queue(self.inbox, message)
        sub = lane.task
        if not sub or lane.signal.waiter is not sub or message.claims:
            return self.queue(lane, message)
        message.claims = 1
        lane.queue.append(message)
        lane.signal.waiter = True
        lane = core.cur_task  # it stands still meanwhile
        sub.data = None
        core.cur_task = sub
        next(sub.coro, None)
        core.cur_task = lane
        if lane.data:  # cancelled by that
            lane.data = None
            raise asyncio.CancelledError
        return True

    def _withdraw(self, message):
        if message in self.held:  # else the client was stopped
            self.held.remove(message)
            self.size -= message.size
        for sub in self.subscriptions:
            if message in sub.queue:
                sub.queue.remove(message)
        if message.claims:  # else there is no place for it
            message.claims = 0

    def queue(self, lane, message):
        """Let the handler of `lane` have `message`, in its turn."""
        if len(self.held) == 1:
            self.began_ms = ticks_ms()
        if not lane.handler:
            if not lane.queue:  # an iterator: from now on it should ask
                lane.since_ms = ticks_ms()
        elif lane.task is None:
            lane.task = asyncio.create_task(self._serve(lane))
        message.claims += 1  # first: it may be what there is no memory for
        lane.queue.append(message)
        lane.signal.set()

    def take(self, lane):
        """Return the next message of `lane`, of which there is one, as its current one."""
        lane.since_ms = self.began_ms = ticks_ms()
        if lane.waits:
            lane.waits = False
        lane.current = lane.queue[0]  # till here there may be no memory
        return lane.queue.pop(0)

    def finish(self, lane):
        """The handler of `lane` is done with its current message."""
        message = lane.current
        lane.current = None
        if message is not None:  # quicker than to ask it whether it is true
            self.release(message)

    def release(self, message):
        """One of those that want `message` is done with it."""
        message.claims = claims = message.claims - 1
        if not claims:
            self.held.remove(message)
            self.size -= message.size
            connection = self._client.connection
            qos = message.qos
            if qos:
                message.done = True
            if qos or connection.behind:
                connection.handled()

    async def _serve(self, lane):
        while True:
            while not lane.queue:  # `await lane.signal` takes longer
                signal = lane.signal
                signal.waiter = task = core.cur_task
                task.data = signal
                yield
            try:
                message = self.take(lane)
            except MemoryError:
                await asyncio.sleep_ms(_RETRY_MS)
                continue
            try:
                result = lane.handler(message)
                if result is not None and hasattr(result, "send"):
                    await result
            except BaseException as e:  # a tuple of those that are meant would take memory
                if not isinstance(e, Exception) and not isinstance(e, asyncio.CancelledError):
                    raise
                if not lane.task and not lane.current:  # stopped
                    raise
                self._client.failed("handler of %r", lane.filter, e)
            message = None
            self.finish(lane)
            if lane.task is None:  # taken back
                return

    def overdue(self, now):
        """
        Acknowledge what handlers have had for longer than handler_timeout_s.

        now  ticks

        Returns the ms until the next one can be.
        """
        limit = next_ms = self._client.handler_timeout_s * 1000
        for lane in self.lanes():
            if lane.current or lane.queue and not lane.handler:
                left = limit - ticks_diff(now, lane.since_ms)
                if left > 0:
                    next_ms = min(left, next_ms)
                    continue
                load("texts").overdue(self._client, lane)
        return next_ms
