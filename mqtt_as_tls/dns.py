"""
Names to IPv4 addresses over UDP, without ever stopping the event loop.

A board's own getaddrinfo blocks every task for seconds when nothing answers. Here a query is a
datagram (RFC 1035 section 4) and waiting for its answer is a task like any other. Names that end
in `.local` go to the link's multicast group instead of a server (RFC 6762 section 5.1).
"""

import asyncio
import os
import socket

from . import load
from .errors import ConnectError, ResolveError

# Group and port of multicast DNS; a module variable so that it can be pointed elsewhere.
MDNS = ("224.0.0.251", 5353)


def is_ip(text):
    """Return whether the str `text` is a dotted IPv4 address, such as "192.168.1.10"."""
    parts = text.split(".")
    for part in parts:
        if not part.isdigit() or int(part) > 255:
            return False
    return len(parts) == 4


def encode_query(host):
    """
    Return the message (bytes) that asks for the IPv4 address of `host` (RFC 1035 section 4.1).

    host  str: labels of 1 to 63 of the characters a-z 0-9 - _ in either case, joined by dots, at
          most 253 in all. For a name in `.local` it is the one-shot multicast query: no
          recursion, a unicast answer wished (RFC 6762 sections 5.4 and 18.6).

    Raises ResolveError when `host` is not such a name.
    """
    name = b""
    for label in host.lower().split("."):
        size = len(label)
        # strip stops at a character that is not in its list, so a strange one is left over.
        if not 0 < size < 64 or label.strip("abcdefghijklmnopqrstuvwxyz0123456789-_"):
            name = bytes(255)
            break
        name += bytes((size,)) + label.encode()
    if len(name) > 254:
        raise ResolveError("%r is no host name: use letters, digits, - and dots" % host, host)
    local = label == "local"
    return (
        os.urandom(2)
        + bytes((not local, 0, 0, 1, 0, 0, 0, 0, 0, 0))
        + name
        + bytes((0, 0, 1, local << 7, 1))
    )


def decode_answer(data, query):
    """
    Return the first IPv4 address (str) that `data` gives for `query`, "no such name" when it says
    that there is none, None when it is no answer to it.

    data   bytes, a datagram from anybody: never followed beyond its end, and its compression
           pointers never followed at all
    query  bytes that encode_query made; id and question must be the same. The answer to a
           multicast query, which the whole link saw, may have any id (many send 0) and leave the
           question out (RFC 6762 sections 6 and 18.1).

    Raises OSError with the response code (RFC 1035 section 4.1.1) when the server cannot tell:
    another one may.
    """
    local = query[-2]
    at = len(query)
    if (
        data[12 : at - 4].lower() != query[12:-4]
        or data[2] & 0xF8 != 0x80  # not a response to a standard query
        or not local
        and data[:2] != query[:2]
    ):
        return None
    if local and not data[5]:
        at = 12  # no question: the name compared above is the first record's
    elif data[4:6] + data[at - 4 : at - 2] + data[at - 1 : at] != b"\0\1\0\1\1":
        return None
    code = data[3] & 15
    try:
        for _ in range(0 if code else data[7]):
            while 0 < data[at] < 64:
                at += data[at] + 1
            at += 2 if data[at] else 1  # a name ends with a pointer or with a zero
            end = at + 10 + (data[at + 8] << 8 | data[at + 9])
            if end > len(data):
                return None
            if data[at : at + 2] == b"\0\1" and end == at + 14:
                return "%d.%d.%d.%d" % tuple(data[at + 10 : end])
            at = end
    except IndexError:
        return None
    # Other responders may know the name (RFC 6762 section 6.1); an answer that was cut short.
    if local or data[2] & 2:
        return None
    if code in (0, 3):
        return "no such name"
    raise OSError(code)


def _listen(sock, senders, decode, request):
    while True:
        yield asyncio.core._io_queue.queue_read(sock)
        try:
            data, sender = sock.recvfrom(512)
        except OSError:
            continue
        if not senders or sender in senders:
            result = decode(data, request)
            if result is not None:
                return result


async def ask(request, servers, decode, tries, timeout_ms):
    """
    Send a datagram to servers in turn until one answers; return what `decode` made of it.

    request     bytes
    servers     sequence of "ip" (port 53) or ("ip", port); what is not an IPv4 address is skipped
    decode      function of (datagram, request), both bytes. It returns None for what is no
                answer, which is then ignored, and raises OSError when the next server is to be
                asked at once. Whatever else it raises ends the asking.
    tries       how often each server is asked, 1 and up
    timeout_ms  wait after each datagram. An answer that comes later still counts: there is one
                socket for all of them.

    Raises OSError when there is no answer: the last one that came up, if any; ConnectError when
    the board has no socket left.
    """
    error = OSError("no answer")
    addresses = []
    for server in servers:
        ip, port = (server, 53) if isinstance(server, str) else server
        if is_ip(ip):  # getaddrinfo would block on a name
            addresses.append(socket.getaddrinfo(ip, port)[0][-1])
    within = load("transport").within
    senders = MDNS not in servers and addresses  # a multicast query is answered by anybody
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as e:
        raise ConnectError("all UDP sockets of the board are in use: %r" % e, e.errno)
    try:
        sock.setblocking(False)
        for address in addresses * tries:
            try:
                sock.sendto(request, address)
                return await within(timeout_ms, _listen(sock, senders, decode, request))
            except asyncio.TimeoutError:
                pass
            except OSError as e:
                error = e
        raise error
    finally:
        sock.close()


async def resolve(host, servers=None, *, tries=3, timeout_ms=1000):
    """
    Return the IPv4 address (str) of `host`: the first in the answer, aliases followed.

    host        str. An IPv4 address is returned as it is; a name in `.local` is asked for by
                multicast; any other name is asked of `servers`.
    servers     sequence of "ip" or ("ip", port). None or empty: on a board what
                network.ipconfig("dns") tells, on a PC its own resolver, which blocks.
    tries       how often each server is asked, 1 and up
    timeout_ms  wait for an answer to each query, in milliseconds

    Raises ResolveError when `host` is no valid name (RFC 1035 section 2.3.4), at once when a
    server says that it does not exist or has no IPv4 address, and when no server knows it;
    ConnectError when the board has no socket left.
    """
    if is_ip(host):
        return host
    query = encode_query(host)
    try:
        if query[-2]:
            servers = (MDNS,)
        elif not servers:
            try:
                import network
            except ImportError:
                servers = "of this computer"
                found = socket.getaddrinfo(host, 0, socket.AF_INET)
                return "%d.%d.%d.%d" % tuple(found[0][-1][4:8])  # from a struct sockaddr_in
            servers = (network.ipconfig("dns"),)
        result = await ask(query, servers, decode_answer, tries, timeout_ms)
        if is_ip(result):
            return result
    except OSError as e:
        result = e
    raise ResolveError(
        "no address for %s from DNS server %s (%r): use its IP address" % (host, servers, result),
        host,
    )
