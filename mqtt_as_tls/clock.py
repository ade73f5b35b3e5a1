"""
The device's clock, set by SNTP without ever stopping the event loop (RFC 4330, RFC 5905).

A board starts in the year 2021 (rp2) or 2000 (esp32), where every certificate is from the future.
"""

import os
import time

from micropython import const

from .dns import ask, resolve
from .errors import ConnectError, MQTTError

# 2026-08-01T00:00:00Z: the day of the release, or before the first one. A clock before it is
# unset, and so is one that is so far ahead that every certificate of today has expired.
_RELEASED = const(1785542400)
_LIFE_S = const(631152000)  # 20 years
_LESS_S = const(60)  # a time server that says no less than that too little is right enough
_FROM_1900 = const(2208988800)  # to 1970, in seconds
_AGAIN_MS = const(60_000)

# The port's epoch in Unix time: 1970 on rp2 and unix, 2000 on esp32.
_EPOCH = time.gmtime(0)[0] // 2000 * 946684800


def plausible():
    """Return whether the device's clock says a time in the 20 years from this release on."""
    return 0 <= time.time() + _EPOCH - _RELEASED < _LIFE_S


def decode_time(data, request):
    """
    Return the Unix time (int, seconds, until 2106) that `data` answers to `request`; None if it
    is no answer to it (RFC 4330 section 5).

    data     bytes, a datagram
    request  bytes, 48, the last 8 of them random: an answer returns them as its originate
             timestamp, which nobody else could

    Raises ConnectError when the server says that it has no time (kiss-o'-death, its clock is not
    synchronised), or gives one from before this library's release.
    """
    if data[24:32] != request[40:] or len(data) < 48 or data[0] & 6 != 4:
        return None
    stamp = int.from_bytes(data[40:44], "big")  # seconds since 1900, from 0 again in 2036
    seconds = (stamp - _FROM_1900) & 0xFFFFFFFF
    if not stamp or data[0] >= 0xC0 or not 0 < data[1] < 16 or seconds < _RELEASED:
        raise ConnectError(
            "time server has no time (stratum %d, %s): use another" % (data[1], data[12:16])
        )
    return seconds


def _day(seconds):
    return "%d-%02d-%02d %02d:%02d UTC" % time.gmtime(seconds)[:5]


async def sync(server, servers=None, *, tries=3, timeout_ms=2000, back=False, least=0):
    """
    Ask `server` for the time, set the device's clock (UTC), return it in Unix time (int, seconds).
    Anybody may answer for it, so a clock that can be right is never put back by it.

    server      name or IPv4 address (str), or a tuple of one and a UDP port
    servers     DNS servers for a name, see dns.resolve
    tries       how often it is asked, 1 and up
    timeout_ms  wait for an answer to each, in milliseconds
    back        bool, a time server set the clock, and nothing has confirmed it: it may be put back
    least       the clock (s) at a handshake with a verified broker: it is never set below that

    Raises ResolveError when the name has no address; ConnectError when the server does not
    answer or has no time, would put the clock back, and where there is no clock to set (a PC's own
    is left alone).
    """
    try:
        from machine import RTC
    except ImportError:
        raise ConnectError("set this computer's own clock")
    host, port = (server, 123) if isinstance(server, str) else server
    address = await resolve(host, servers)
    request = b"\x23" + bytes(39) + os.urandom(8)  # version 4, mode client
    try:
        seconds = await ask(request, ((address, port),), decode_time, tries, timeout_ms)
        t = seconds - _EPOCH
        if plausible() and not back:
            least = max(least, time.time())
        if least - t >= _LESS_S:
            raise ConnectError(
                "%s says %s: the clock is not put back; if it is wrong, set it (machine.RTC) or"
                " power-cycle the board" % (server, _day(t))
            )
        t = max(t, least)
        seconds = t + _EPOCH
        t = time.gmtime(t)
        RTC().datetime(t[:3] + t[6:7] + t[3:6] + (0,))
    except (OSError, OverflowError) as e:  # some 32-bit ports end in 2038
        raise ConnectError("no time from %s (%r): check ntp=" % (host, e))
    return seconds


async def check(client, servers, asked):
    """
    Before a TLS handshake: set the clock when it cannot be right, or when the last handshake
    failed by a date. A time server that does not answer is told, and is not fatal.

    client   MQTTClient with TLS
    servers  DNS servers, see dns.resolve
    asked    what this returned last, or None: a clock that goes on from there is not asked for
             again within a minute, one that was set since then is

    Returns ticks and the clock (s) when a time server was last asked, and whether it set the
    clock; or None.
    """
    server = client.tls.ntp
    text = str(client.error)
    if not server or (plausible() and "certificate validity" not in text):
        return asked
    if asked:
        ms = time.ticks_diff(time.ticks_ms(), asked[0])
        if 0 <= ms < _AGAIN_MS and abs(time.time() - asked[1] - ms // 1000) < 3:  # s
            return asked
    back = asked and asked[2]
    least = max([getattr(mate.tls, "proved_s", 0) for mate in client.clients])
    try:
        await sync(server, servers, back=back, least=least)
        back = True
        client.say("clock set from %s: %s" % (server, _day(time.time())))
    except MQTTError as e:
        client.say("clock not set: %s" % e)
    return time.ticks_ms(), time.time(), back
