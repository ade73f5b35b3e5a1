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


class Modem(Cable):
    """
    Down at first; counts what is asked of it.

    errors  list of exceptions, which its first attempts to come up raise
    """

    def __init__(self, errors=()):
        super().__init__()
        self.errors = list(errors)
        self.ups = self.resets = self.downs = 0

    def is_up(self):
        return self.ups > 0

    async def up(self):
        if self.errors:
            raise self.errors.pop(0)
        self.ups += 1

    async def reset(self):
        await super().reset()
        self.resets += 1

    async def down(self):
        self.downs += 1

    def show(self):
        print("link", self.ups, self.resets, self.downs)
