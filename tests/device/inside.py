"""What programs of tests know of a client's inside: the one place that has its private names."""


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
