"""
Several brokers for one client, in order: which one is tried next. Imported when a list of hosts is
given.
"""


class Failover:
    """
    The brokers of a client.

    hosts   list of pairs (host, port), not empty
    shared  bool, they are one cluster and share the session

    other_broker  bool, the next one is another than the one that has the session: each has one of
                  its own, so that it begins anew
    """

    def __init__(self, hosts, shared):
        self.hosts = found = []
        for pair in hosts:
            if pair not in found:  # else those behind it would never have their turn
                found.append(pair)
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
