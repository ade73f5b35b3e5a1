"""For MicroPython programs: links such as users write them, with the five methods and no more."""

from tests.device.app import told


class Cable:
    """
    This computer's own network, always there.

    servers  list of ("ip", port) or [ip, port], the DNS servers that it tells
    """

    def __init__(self, servers=()):
        self.servers = [tuple(server) for server in servers]

    async def up(self):
        pass

    def is_up(self):
        return True

    async def reset(self):
        print("link reset")

    async def down(self):
        pass

    def dns_servers(self):
        return self.servers


class Gate(Cable):
    """Every attempt to connect waits for a line "go" of stdin, so that a test sets the pace."""

    def is_up(self):
        return False

    async def up(self):
        await told("go")
