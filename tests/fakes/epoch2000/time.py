"""
The `time` of a port that counts from 2000 on (esp32), for MicroPython's unix port: with this
folder first on its MICROPYPATH every program and module has it.
"""

from utime import gmtime as _gmtime
from utime import localtime as _localtime
from utime import mktime as _mktime
from utime import (  # noqa: F401
    sleep,
    sleep_ms,
    sleep_us,
    ticks_add,
    ticks_diff,
    ticks_ms,
    ticks_us,
)
from utime import time as _time

_TO_2000 = 946684800  # from 1970


def time():
    return int(_time()) - _TO_2000


def gmtime(seconds=None):
    return _gmtime(*(() if seconds is None else (seconds + _TO_2000,)))


def localtime(seconds=None):
    return _localtime(*(() if seconds is None else (seconds + _TO_2000,)))


def mktime(date):
    return int(_mktime(date)) - _TO_2000
