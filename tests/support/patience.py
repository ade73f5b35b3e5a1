"""
How long tests wait for what must happen.

The limits that stand in the tests are those of a quiet machine that is as fast as the one they
were written on. What waits takes them times `factor()`: some times as long for everybody, and
longer where `measure` found the machine to be slower, or busy. They are there against hangs; how
long something takes is no test's subject.

Environment
    TEST_PATIENCE  the factor, instead of what is measured
"""

import os
import time

_NAME = "TEST_PATIENCE"
_AT_LEAST = 5
_TURNS = 200_000
_QUIET_S = 0.008  # that they take on that machine


def measure(at_least=_AT_LEAST):
    """
    Measure how slow this machine is; this process and those that it starts go by it.

    at_least  the factor of a machine that is as fast as the one that the limits are those of
    """
    if _NAME not in os.environ:
        slower = max(1, min(_work_s() for _ in range(5)) / _QUIET_S)
        os.environ[_NAME] = f"{at_least * slower:.1f}"


def factor():
    """Return how many times longer than its limit says a test waits: 1 until it was measured."""
    return float(os.environ.get(_NAME, 1))


def stretched(limit_s):
    """Return how long to wait (seconds) where a test says `limit_s`."""
    return limit_s * factor()


def _work_s():
    begin = time.perf_counter()
    number = 0
    for turn in range(_TURNS):
        number += turn * turn % 7
    return time.perf_counter() - begin
