"""
Servers on this PC alone: where they listen, and by which names a browser may ask for them. A page
of somebody else's whose name leads here (DNS rebinding) asks by that name, and gets nothing.
"""

from ..messages import Failure

ADDRESS = "127.0.0.1"
REFUSED = "this is for http://127.0.0.1 alone\n"


def allowed(port):
    """Return the values (set of str) that the Host header may have."""
    names = {ADDRESS, "localhost"}
    return {f"{each}:{port}" for each in names} | (names if port == 80 else set())


def taken(port, error):
    """Return the Failure for an OSError of listening on `port`."""
    return Failure(
        f"port {port}: {error.strerror or error}",
        "end what listens there, or give another port",
        stage="connect",
    )
