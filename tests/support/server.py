"""A hand-made server: what a broker never does, a test lets it do."""

import contextlib
import socket
import threading

from tests.support import patience
from tests.support.broker import HOST


@contextlib.contextmanager
def server(handle):
    """Call `handle` with each connection to a port of loopback; yield that port."""
    listener = socket.create_server((HOST, 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(patience.stretched(20))
            handle(connection)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
