"""
What a program of the contract sees of a WLAN, printed: lines "= what | value | ms". Times are
since the last thing that was done, or how long a call took.
"""

from time import ticks_diff

from scene import do, sleep_ms, ticks_ms

_POLL_MS = 5
_begin = 0


def said(what, value, ms):
    print(f"= {what} | {value} | {ms}")


def call(what, function, *args, **options):
    """Call `function`; tell what came of it and how long it took."""
    global _begin
    _begin = ticks_ms()
    try:
        value = repr(function(*args, **options))
    except Exception as error:
        value = repr(error)
    said(what, value, ticks_diff(ticks_ms(), _begin))


def happens(action):
    """Have something happen (scene.do)."""
    global _begin
    do(action)
    _begin = ticks_ms()


def watch(wlan, ms):
    """Look for `ms` at what `wlan` says of itself; tell each change."""
    last = None
    until = ticks_ms() + ms  # a program does not run for days
    while True:
        now = wlan.status(), wlan.isconnected(), wlan.ifconfig()[0]
        if now != last:
            said("is", now, ticks_diff(ticks_ms(), _begin))
            last = now
        if ticks_diff(ticks_ms(), until) >= 0:
            return
        sleep_ms(_POLL_MS)
