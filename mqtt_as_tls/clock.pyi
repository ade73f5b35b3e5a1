"""The device's clock, for programs that make a TLS connection without the client."""

from collections.abc import Sequence

def plausible() -> bool:
    """Return whether the device's clock says a time in the 20 years from this release on."""

async def sync(
    server: str | tuple[str, int],
    servers: Sequence[str | tuple[str, int]] | None = None,
    *,
    tries: int = 3,
    timeout_ms: int = 2000,
    back: bool = False,
    least: int = 0,
) -> int:
    """
    Ask a time server for the time and set the device's clock, in UTC, without ever stopping the
    event loop (RFC 4330, RFC 5905). The client does it by itself, as `TLS(ntp=)` says. Anybody
    may answer for the server, so a clock that can be right is never put back by it.

    Args:
        server: A name or an IPv4 address, or a pair of one and a UDP port.
        servers: DNS servers for a name, as of `Link.dns_servers()`; None: MicroPython's own
            resolver, or what it knows of them.
        tries: How often it is asked, 1 and more.
        timeout_ms: How long it waits for each answer, in ms.
        back: A time server set the clock, and nothing has confirmed it: it may be put back.
        least: The clock (`time.time()`) is never set below this.

    Returns:
        The Unix time, in s.

    Raises:
        ResolveError: The name has no address.
        ConnectError: No answer, a server that has no time or would put the clock back, or no
            clock to set: a PC's own is left alone.
    """
