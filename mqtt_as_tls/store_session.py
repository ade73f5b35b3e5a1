"""
The session of a client with a store: what has to survive a reset is on flash before the broker
hears of it. Imported with `store=` only.
"""

from micropython import const

from . import packet
from .dispatch import Delivery
from .router import wrong
from .session import Session

_PUBREC = const(0x50)


class StoredSession(Session):
    """
    A Session that begins with what its store has, and tells the store what changes.

    client  MQTTClient
    store   FileStore

    Raises ValueError when the store cannot be opened.
    """

    def __init__(self, client, store):
        super().__init__(client.max_inflight)
        if not client.client_id:
            wrong("store")
        self._client = client
        self._store = store
        store.log = client._say
        store.open(5 if client._five else 4, client.client_id)
        for entry, buf in store.inflight():
            out = self._outgoing(entry, buf)
            out.id = entry[2]
            packet.set_id(buf, out.id)
            (self.awaiting_pubcomp if entry[3] else self.inflight).append(out)
        if store.restored and client._hosts and not client._shared:
            client._foreign = True  # which of the brokers has the session is not known:
            client._home = ()  # none of them
        for n in store.inbound:
            self.awaiting_pubrel[n] = True

    def _outgoing(self, entry, buf):
        out = Delivery(buf, buf[0] >> 1 & 3)
        out.entry = entry
        out.awaited = False
        return out

    def keep(self, out):
        """
        Take a message of enqueue(). Returns True when it waits on flash; False when there is no
        room; None when it need not (it can be sent at once) or cannot (the flash fails) wait
        there. Raises ValueError when it is too large for the store.
        """
        client = self._client
        if client.connected and not (
            client._queue
            or self.to_resend
            or self._store.waiting
            or self.full()
            or client._transport.blocked
            or len(out.packet) > client.max_queue
        ):
            return None
        return self._store.put(out.packet)

    def fetch(self, queue):
        """
        Move the oldest message that waits on flash to `queue` (list), which is empty; return
        whether there was one. One with QoS 0 leaves the store now.
        """
        found = self._store.next()
        if not found:
            return False
        out = self._outgoing(*found)
        if not out.qos:
            self.forget(out)
        queue.append(out)
        return True

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
            out.entry = self._store.add(out.packet, out.id)

    def acknowledged(self, kind, packet_id, now_ms=0, refused=False):
        out = super().acknowledged(kind, packet_id, now_ms, refused)
        if out and out.entry:
            if kind != _PUBREC or refused:
                self.forget(out)
            elif not out.entry[3]:
                self._store.received(out.entry)
        return out

    def resume(self, present, now_ms):
        unknown = super().resume(present, now_ms)
        for out in unknown:
            self.forget(out)
        if not present:
            self._store.fresh()
        for n in self.awaiting_pubrel:
            self._inbound_id(n)
        return unknown

    def _inbound_id(self, n):
        if n not in self._store.inbound:
            self._store.inbound_add(n)

    def next_ack(self):
        message = super().next_ack()
        if message and message.qos == 2 and message.id in self.awaiting_pubrel:
            self._inbound_id(message.id)
        return message

    def released(self, packet_id):
        known = super().released(packet_id)
        if known:
            self._store.inbound_remove(packet_id)
        return known
