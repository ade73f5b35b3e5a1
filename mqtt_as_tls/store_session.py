"""
The session of a client with a store: what has to survive a reset is on flash before the broker
hears of it. Imported with `store=` only.
"""

import asyncio
import time

from . import load, packet
from .outbox import Delivery
from .router import wrong
from .session import Session


class StoredSession(Session):
    """
    A Session that begins with what its store has, and tells the store what changes.

    client  MQTTClient
    store   FileStore
    task    Task that waits until the store may write again, or None

    Raises ValueError when the store cannot be opened.
    """

    task = None

    def __init__(self, client, store):
        super().__init__(client.max_inflight)
        if not client.client_id:
            wrong("store")
        self.client = client
        self._store = store
        five = client.five
        store.open(5 if five else 4, client.client_id, self._say)
        if five and (client.clean_start or not store.restored):
            self.discard = ""
        for entry, buf in store.inflight():
            since = None
            if five:
                buf, since = five.restored(buf)
            out = Delivery(b"", 1)
            out.fill(buf, entry, since)
            out.id = entry[2]
            packet.set_id(buf, out.id)
            (self.awaiting_pubcomp if entry[3] else self.inflight).append(out)
        if store.restored and client.failover:
            client.failover.restored()
        self.awaiting_pubrel = list(store.inbound)

    def _say(self, text):
        load("repeats").tell(self.client, text)

    def _late(self):
        # whether nothing is to be begun that is written to flash
        late_ms = self._store.wait_ms(time.ticks_ms())
        if late_ms and not self.task:
            self.task = asyncio.create_task(self._go_on(late_ms))
        return late_ms > 0

    async def _go_on(self, late_ms):
        try:
            await asyncio.sleep_ms(late_ms)
        finally:
            self.task = None
        client = self.client
        if client in client.clients:
            try:
                client.connection.handled()
                client.outbox.pump()
            except MemoryError as e:  # what waits is sent on the next connection
                if client.outbox.transport:
                    client.outbox.transport.lost(e)

    def full(self):
        return super().full() or self._late()

    def _stored(self, out):
        five = self.client.five
        return five.dated(out) if five else out.packet

    def keep(self, out, at_once):
        """
        Take a message of enqueue(). Returns True when it waits on flash; False when there is no
        room; None when it need not (it can be sent at once) or cannot (the flash fails) wait
        there. Raises ValueError when it is too large for the store.

        at_once  bool, the connection has room for it, and nothing waits in memory
        """
        if at_once and not (
            self.to_resend
            or self.aside  # it may have to wait with those
            or self._store.waiting
            or self.full()
            or (self.leftover and not self.releasing)  # that comes first
            or len(out.packet) > self.client.max_queue
        ):
            return None
        if self.client.running and self._late():
            return None
        return self._store.put(self._stored(out))

    def fetch(self):
        """
        Return the oldest message that waits on flash, or None. One with QoS 0 leaves the store
        now.
        """
        store = self._store
        if not (store.waiting or store.again) or self._late():
            return None
        out = Delivery(b"", 1)
        out.fill(b"\0", True, 0)  # before one is given out: there may be no memory
        found = store.next()
        if not found:
            return None
        entry, buf = found
        since = None
        five = self.client.five
        if five:
            try:
                buf, since = five.restored(buf)
            except MemoryError:
                store.again.insert(0, entry)
                raise
        out.fill(buf, entry, since)
        if not out.qos:
            try:
                self.forget(out)
            except MemoryError:
                pass  # it goes out now, and after a reset once more
        return out

    def forget(self, out):
        """The message `out` is delivered, or never will be."""
        if out.entry:
            self._store.done(out.entry)
            out.entry = None

    def publish(self, out, now_ms):
        new = not out.id
        super().publish(out, now_ms)
        if not new:
            return
        if out.entry:
            self._store.sent(out.entry, out.id)
        elif not out.length:
            out.entry = self._store.add(self._stored(out), out.id)

    def acknowledged(self, kind, packet_id, now_ms=0, refused=False):
        out = super().acknowledged(kind, packet_id, now_ms, refused)
        if out and out.entry:
            if out not in self.awaiting_pubcomp:
                self.forget(out)
            elif not out.entry[3]:
                self._store.received(out.entry)
        return out

    def resume(self, present, now_ms, unsure=False):
        self.task = None  # it may be of an event loop that is gone
        super().resume(present, now_ms, unsure)
        for out in self.unknown:
            self.forget(out)
        if not present:
            self._store.fresh()
        for n in self.awaiting_pubrel:
            self._inbound_id(n)

    def _inbound_id(self, n):
        store = self._store
        if n not in store.inbound:
            if len(store.inbound) >= len(self.awaiting_pubrel):  # one was forgotten for it
                for old in store.inbound:
                    if old not in self.awaiting_pubrel:
                        store.inbound_remove(old)
                        break
            store.inbound_add(n)

    def next_ack(self):
        if [each for each in self.inbound if each.qos == 2] and self._late():
            return None  # a PUBREC costs two writes: it waits, and so does the broker
        message = super().next_ack()
        if message and message.qos == 2 and message.id in self.awaiting_pubrel:
            self._inbound_id(message.id)
        return message

    def released(self, packet_id):
        known = super().released(packet_id)
        if known:
            self._store.inbound_remove(packet_id)
        return known
