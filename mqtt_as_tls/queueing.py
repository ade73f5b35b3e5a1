"""enqueue(): a message that goes out when it can, while the app goes on."""

from .router import wrong


def enqueue(client, topic, payload=b"", *, qos=0, retain=False, properties=None):
    """
    `client.enqueue(...)`: put a message on the outgoing queue, without waiting.

    Returns False when the queue (max_queue bytes; with a store: that) is full, else True.
    Raises as `publish` does at the call, and ValueError for one larger than the queue (with a
    store: than a quarter of its max_bytes).
    """
    client.check_running()
    outbox = client.outbox
    out = outbox.encode(topic, payload, qos, retain, properties)
    t = outbox.transport
    kept = None
    if client.store is not None:
        kept = client.session.keep(out, t and not (t.blocked or outbox.queue))
    if kept is None:
        size = len(out.packet)
        if size > client.max_queue:
            wrong("size", size, client.max_queue, "max_queue")
        kept = outbox.size + size <= client.max_queue
        if kept:
            outbox.add(out, False, size)
    try:
        outbox.pump()
    except MemoryError as e:  # it is queued: the next connection sends it
        t.lost(e)
    return kept
