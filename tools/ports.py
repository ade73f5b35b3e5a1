"""TCP ports for servers that are started later, by this process or by one that it starts."""

import errno
import random
import socket

ADDRESS = "127.0.0.1"

_TRIES = 1000
_chance = random.SystemRandom()  # hypothesis gives every process the same numbers of `random`
_reserved = {}  # port: the UDP socket of the same number


def free_port():
    """
    Return a TCP port of loopback (int) that nobody has, and that no caller on this machine gets
    before it is given back, or this process has ended.

    It lies below the range from which systems give ports to outgoing connections, so that it
    stays free while its server is down. What reserves it is a UDP socket of the same number: it
    is in no TCP server's way, every process sees it, and it cannot be left behind.

    Raises OSError when there is none.
    """
    for _ in range(_TRIES):
        port = _chance.randrange(20_000, 32_000)
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            held.bind((ADDRESS, port))
            with socket.socket() as probe:
                probe.bind((ADDRESS, port))
        except OSError:
            held.close()
            continue
        _reserved[port] = held
        return port
    raise OSError(errno.EADDRINUSE, f"no free port on {ADDRESS}: is there an interface `lo`?")


def give_back(port):
    """Let others have `port` (int) again; nothing happens when it is not ours."""
    held = _reserved.pop(port, None)
    if held:
        held.close()
