"""The device's clock, for programs that make a TLS connection without the client."""

from collections.abc import Sequence

def plausible() -> bool:
    """Return whether the device's clock is not before the release of this library."""

async def sync(
    server: str | tuple[str, int],
    servers: Sequence[str | tuple[str, int]] | None = None,
    *,
    tries: int = 3,
    timeout_ms: int = 2000,
) -> int:
    """
    Ask a time server for the time and set the device's clock, in UTC, without ever stopping the
    event loop (RFC 4330, RFC 5905). The client does it by itself, as `TLS(ntp=)` says.

    Args:
        server: A name or an IPv4 address, or a pair of one and a UDP port.
        servers: DNS servers for a name, as of `Link.dns_servers()`; None: MicroPython's own
            resolver, or what it knows of them.
        tries: How often it is asked, 1 and more.
        timeout_ms: How long it waits for each answer, in ms.

    Returns:
        The Unix time, in s.

    Raises:
        ResolveError: The name has no address.
        ConnectError: No answer, a server that has no time, or no clock to set: a PC's own is left
            alone.
    """
