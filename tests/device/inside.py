"""What programs of tests know of a client's inside: the one place that has its private names."""


def nothing_inbound(client):
    """Tell whether no delivery of QoS 2 to this client is under way."""
    return not (client._session.inbound or client._session.awaiting_pubrel)


def held(client):
    """Return (what is held for handlers and acknowledgements, its bytes)."""
    return client._dispatcher.held, client._dispatcher.size
