"""
Several brokers for one client, in order: which one is tried next. Imported when a list of hosts is
given.
"""

from .router import wrong


class Failover:
    """
    The brokers of a client.

    hosts   list of host (str), or of pairs (host, port)
    port    int, where an entry has none
    shared  bool, they are one cluster and share the session

    other_broker  bool, the next one is another than the one that has the session: each has one of
                  its own, so that it begins anew

    Raises TypeError and ValueError for what is no such list.
    """

    def __init__(self, hosts, port, shared):
        if not isinstance(hosts, (list, tuple)) or not hosts:
            wrong("text", "host", hosts)
        self.hosts = found = []
        for entry in hosts:
            host, at = (entry, port) if isinstance(entry, str) else entry
            if not isinstance(host, str) or not host:
                wrong("text", "host", host)
            if not isinstance(at, int) or not 0 < at < 65536:
                wrong("number", "port", at, 1, 65535)
            if (host, at) not in found:  # else those behind it would never have their turn
                found.append((host, at))
        self._shared = shared
        self._here = self._next = found[0]
        self._home = None  # the broker that has the session, when it is known
        self.other_broker = False

    def restored(self):
        """A session was read from flash: which of the brokers has it is not known."""
        if not self._shared:
            self._home = ()  # none of them
            self.other_broker = True

    def connected(self):
        """The broker of this attempt accepted it."""
        self._home = self._here
        self.other_broker = False

    def plan(self, lost):
        """
        An attempt failed: choose the broker of the next one, the first after a connection that was
        `lost`, else the next in the list. Returns whether that is the first.
        """
        hosts = self.hosts
        self._next = hosts[0 if lost else (hosts.index(self._here) + 1) % len(hosts)]
        return self._next == hosts[0]

    def go(self):
        """Return the broker of the next attempt, (host, port): it is that of this one now."""
        self._here = there = self._next
        self.other_broker = not self._shared and self._home not in (None, there)
        return there
