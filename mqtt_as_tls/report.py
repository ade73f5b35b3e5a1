"""
How a board is: a retained message that tells it, after every connect and then now and then. Loaded
when an app asks for it. docs/fleet.md says what it holds.
"""

import asyncio
import gc
import json
import sys
import time

from micropython import const

from . import __version__, load
from .errors import printable
from .router import wrong

_SCHEMA = const(1)
_LONGEST = const(120)  # characters of an error
_FIRST = const(4096)  # words: what is asked for first to find the largest block, then half of it
_LAST = const(16)
_EARLY = const(1785542400)  # 2026-08-01: a clock before this is not set
_2000 = const(946684800)  # where the clock of an esp32 begins


def _largest():
    # Nothing else tells it without printing. No interrupt comes between a piece and its clear(),
    # which gives it back; without the collector a piece that is not there is soon told
    n = 0
    more = _FIRST
    collects = gc.isenabled()
    gc.disable()
    while more >= _LAST:
        try:
            ([0] * (n + more)).clear()
            n += more
        except MemoryError:
            pass
        more >>= 1
    if collects:
        gc.enable()
    return n * 4


def report(client, topic=None, every_s=900):
    """
    `client.report(...)`: tell how the board is, after every connect and then every `every_s`
    seconds: a retained message, JSON, with QoS 1. Before the client is started. A client without a
    will gets one, so that others see whether it is online.

    topic    str; None: devices/ID/report with the client id, or beside the will's, if that is
             .../status. The will that is made is on .../status beside it
    every_s  seconds, 10 to 86400

    Raises ValueError and TypeError as publish() does; RuntimeError when the client runs.
    """
    if not isinstance(every_s, (int, float)) or not 10 <= every_s <= 86400:
        wrong("number", "every_s", every_s, 10, 86400)
    if client.running:
        wrong("started")
    will = client.will
    if topic is None:
        topic = client.client_id and "devices/%s/report" % client.client_id
        if will and will.topic.endswith("/status"):
            topic = will.topic[:-6] + "report"
    outbox = client.outbox
    session = client.session
    ticked = up_ms = time.ticks_ms()  # since the board was reset, unless that was 12 days ago
    since_ms = away_ms = 0  # up at the connect; without a connection
    out = None

    def tick(away):
        nonlocal ticked, up_ms, away_ms
        passed = max(time.ticks_diff(time.ticks_ms(), ticked), 0)
        ticked = time.ticks_ms()
        up_ms += passed
        lost_ms = client.retry.lost_ms
        if away and lost_ms is not None:
            away = time.ticks_diff(ticked, lost_ms)
            away_ms += away if 0 <= away < passed else passed

    def encode():
        gc.collect()
        now = int(time.time()) + _2000 * (time.gmtime(0)[0] == 2000)
        error = client.error
        rssi = reset = None
        try:
            import machine

            reset = machine.reset_cause()
            rssi = client.link.wlan.status("rssi")
        except (ImportError, AttributeError, TypeError, ValueError, OSError):
            pass  # no board, no Wi-Fi, or another chip
        said = {
            "v": _SCHEMA,
            "package": __version__,
            "firmware": sys.version.split("; ")[-1],
            "machine": sys.implementation[2],
            "at": now if now > _EARLY else None,
            "every_s": every_s,
            "uptime_s": up_ms // 1000,
            "online_s": (up_ms - since_ms) // 1000,
            "outage_s": away_ms // 1000,
            "connects": client.stats.connects,
            "reset": reset,
            "error": error and printable("%s: %s" % (type(error).__name__, error))[:_LONGEST],
            "rssi": rssi,
            "mem_free": gc.mem_free(),
            "mem_block": _largest(),
            "ends": client.tls and client.tls.ends,
            "queue": len(outbox.queue + session.inflight + session.awaiting_pubcomp)
            + sum([len(ring) for ring in outbox.rings], len(session.aside)),
        }
        return outbox.encode(topic, json.dumps(said), 1, True, None)

    async def run():
        nonlocal since_ms, out
        tick(True)
        since_ms = up_ms
        while True:
            if client.connected:
                if out in outbox.queue + session.inflight + session.aside:
                    await out  # one waits at most, however often connections end
                    continue
                try:
                    out = encode()
                    outbox.add(out, False)
                    outbox.pump()
                except MemoryError:
                    pass  # the next time
            await asyncio.sleep(every_s)
            tick(not client.connected)

    encode()
    if not will:
        load("will").give(client, topic[: topic.rfind("/") + 1] + "status")
    client.on_connect(run)
