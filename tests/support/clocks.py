"""Programs on a device whose clock is wrong, or becomes so."""

import datetime

from . import secure

# What such a program takes along: "again" lets SNTP be tried before its 60 s are over, "set" puts
# the clock right as a person does it.
HELPERS = """
    from tests.device import rtc
    from tests.device.inside import forget_sntp
    from tests.device.links import Gate

    async def again(client):
        while True:
            await told("again")
            forget_sntp(client)
            print("will ask again")

    async def set_by_hand():
        await told("set")
        rtc.RTC().datetime(BY_HAND)
"""


def start(app, clock, port, arguments, by_hand=None, **env):
    """
    Start `HELPERS` and `app` under the faketime.Clock `clock`; as secure.start.

    by_hand  datetime.datetime in UTC that a person sets; None: what it is
    env      its environment besides
    """
    now = by_hand or datetime.datetime.now(datetime.timezone.utc)
    day = now.timetuple()[:3] + (now.weekday(),) + now.timetuple()[3:6] + (0,)
    app = HELPERS.replace("BY_HAND", repr(day)) + app
    return secure.start(app, port, arguments, env={**clock.environment, **env})


def sntp_of(server):
    """Return what ntp= takes for a udp.SNTP."""
    return [server.host, server.port]
