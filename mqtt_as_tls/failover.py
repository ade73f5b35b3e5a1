"""
Several brokers for one client, in order: which one is tried next. Imported when a list of hosts is
given.
"""

from .router import wrong


def first(client, hosts, port, options):
    """
    Note the brokers of `client`; return host and port of the first.

    hosts    list of host (str), or of pairs (host, port)
    port     int, where an entry has none
    options  dict; shared_session is taken out

    Raises TypeError and ValueError for what is no such list.
    """
    if not isinstance(hosts, (list, tuple)) or not hosts:
        wrong("text", "host", hosts)
    client._hosts = found = []
    for entry in hosts:
        host, at = (entry, port) if isinstance(entry, str) else entry
        if not isinstance(host, str) or not host:
            wrong("text", "host", host)
        if not isinstance(at, int) or not 0 < at < 65536:
            wrong("number", "port", at, 1, 65535)
        if (host, at) not in found:  # else those behind it would never have their turn
            found.append((host, at))
    client._shared = bool(options.pop("shared_session", False))
    client._home = None
    client._seen = 0
    return found[0]


def following(client, lost):
    """
    Return the broker of the next attempt, as (host, port): the first one after a connection that
    was `lost`, else the next in the list.
    """
    here = client.host, client.port
    if client._seen != client.stats.connects:
        client._seen = client.stats.connects
        client._home = here
    if lost:
        return client._hosts[0]
    return client._hosts[(client._hosts.index(here) + 1) % len(client._hosts)]


def move(client, there):
    """Have the next attempt go to the broker `there`, (host, port)."""
    if there != (client.host, client.port):
        client._address = None
    client.host, client.port = there
    # each broker has a session of its own: at another one than before it begins anew
    client._foreign = not client._shared and client._home not in (None, there)
