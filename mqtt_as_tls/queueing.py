"""enqueue(): a message that goes out when it can, while the app goes on."""

from .router import wrong


def enqueue(client, topic, payload=b"", *, qos=0, retain=False, properties=None):
    """
    `client.enqueue(...)`: put a message on the outgoing queue, without waiting.

    Returns False when the queue (max_queue bytes; with a store: that) is full, else True.
    Raises as `publish` does at the call, and ValueError for one larger than the queue (with a
    store: than a quarter of its max_bytes).
    """
    client._check()
    out = client._encode(topic, payload, qos, retain, properties)
    out.awaited = False
    if client._store is not None:
        kept = client._session.keep(out)
        if kept is not None:
            _pump(client)
            return kept
    size = len(out.packet)
    if size > client.max_queue:
        wrong("size", size, client.max_queue, "max_queue")
    if client._queued + size > client.max_queue:
        return False
    out.queued = size
    client._queue.append(out)
    client._queued += size
    _pump(client)
    return True


def _pump(client):
    try:
        client._pump()
    except MemoryError as e:  # it is queued: the next connection sends it
        client._lost(e)
