"""The link between the device and the broker: a TCP relay that can be cut."""

import asyncio
import contextlib
import socket
import struct

from .processes import ADDRESS, Trouble, free_port


class Link:
    """
    A TCP relay to the port `target`, on a `port` of its own. It can be cut as radio is: nothing
    passes any more, what was under way is gone, and neither side is told.
    """

    def __init__(self, target):
        self.port = free_port()
        self._target = target
        self._server = None
        self._dead = False
        self._open = set()  # StreamWriter

    async def listen(self):
        """Accept connections. Raises Trouble."""
        try:
            self._server = await asyncio.start_server(self._serve, ADDRESS, self.port)
        except OSError as error:
            raise Trouble(
                f"cannot listen on {ADDRESS} port {self.port}: {error.strerror}: try again"
            ) from None

    def refuse(self):
        """Refuse connections from now on; those that are open stay."""
        self._server.close()

    def cut(self):
        """Let nothing pass any more."""
        self._dead = True

    def mend(self):
        """Pass on what comes over new connections; the old ones have lost bytes: reset them."""
        self._dead = False
        self.reset()

    def reset(self):
        """Break all connections off, without a goodbye."""
        linger = struct.pack("ii", 1, 0)
        for writer in self._open:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async def _serve(self, from_device, to_device):
        self._open.add(to_device)
        try:
            from_broker, to_broker = await asyncio.open_connection(ADDRESS, self._target)
            self._open.add(to_broker)
            await asyncio.gather(
                self._pass(from_device, to_broker), self._pass(from_broker, to_device)
            )
            self._open.discard(to_broker)
        except OSError:  # the broker is down
            to_device.close()
        except asyncio.CancelledError:  # the demo ends; start_server would call it a failure
            pass
        self._open.discard(to_device)

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(65536):
                if not self._dead:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
