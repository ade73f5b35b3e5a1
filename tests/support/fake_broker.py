"""A server that follows a script: for what no real broker does."""

import contextlib
import socket
import threading
import time

from tests.support import patience

HOST = "127.0.0.1"
CONNACK = b"\x20\x02\x00\x00"
RESUMED = b"\x20\x02\x01\x00"


def in_order(ends):
    """
    Return what scripts have left, in the order of their connections: a new one may begin, and
    end, before the old one is read to its end.

    ends  iterable of (Connection.number, anything)
    """
    return [end for _, end in sorted(ends, key=lambda pair: pair[0])]


class Connection:
    """
    One accepted connection, for a script.

    number  int, from 1
    sock    the socket
    reads   list of bytes, what each recv() brought
    hello   body of its CONNECT, when `accept` has come that far
    """

    def __init__(self, number, sock):
        self.number = number
        self.sock = sock
        self.reads = []
        self.hello = None
        self._kept = b""

    def send(self, data):
        self.sock.sendall(data)

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed by the client")
        self.reads.append(data)
        self._kept += data

    def _take(self, count):
        while len(self._kept) < count:
            self._more()
        data, self._kept = self._kept[:count], self._kept[count:]
        return data

    def packet(self):
        """Return the next packet of the client as (first byte, body); OSError at its end."""
        first = self._take(1)[0]
        length = shift = 0
        while True:
            byte = self._take(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self._take(length)

    def accept(self, connack=CONNACK):
        """
        Take the CONNECT and answer it; return its body.

        What a script notes after it may stand behind what that of the next connection notes, as
        the client goes on at once: `hello` of FakeBroker.connections is in order.
        """
        first, self.hello = self.packet()
        assert first == 0x10, f"first packet 0x{first:02x}"
        self.send(connack)
        return self.hello

    def until_closed(self):
        """Read on until the client closes; return the packets that came (list)."""
        packets = []
        with contextlib.suppress(OSError):
            while True:
                packets.append(self.packet())
        return packets


class FakeBroker:
    """
    Listens on a free port of loopback until `close`. Use it in a `with`.

    script  function of a Connection, run in a thread for each connection; when it returns, the
            connection is closed. OSError ends it quietly, what else it raises is raised again by
            `close`, and so by leaving the `with`.

    port         int
    connections  list of Connection, in the order of their arrival
    """

    def __init__(self, script):
        self._script = script
        self._errors = []
        self._threads = []
        self._changed = threading.Condition()
        self.connections = []
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close(kind is None)

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    connection = Connection(len(self.connections) + 1, sock)
                    self.connections.append(connection)
                    self._changed.notify_all()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)  # once it can be joined

    def _serve(self, connection):
        try:
            with connection.sock:
                self._script(connection)
        except OSError:
            pass
        except Exception as error:
            self._errors.append(error)

    def wait_for_connections(self, count, timeout_s=20):
        """Return when at least `count` connections were accepted; else AssertionError."""
        with self._changed:
            limit_s = patience.stretched(timeout_s)
            if not self._changed.wait_for(lambda: len(self.connections) >= count, limit_s):
                raise AssertionError(f"{len(self.connections)} of {count} connections")

    def close(self, report=True):
        """
        Close everything, let the scripts come to their end (5 s at most), and raise what went
        wrong in one, if `report`.
        """
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + patience.stretched(5)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0, end - time.monotonic()))
        if report and self._errors:
            raise self._errors[0]
