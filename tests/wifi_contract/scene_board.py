"""What a program of the contract has round it, on a board: the test does what it asks for."""

import sys
from time import sleep_ms, ticks_ms  # noqa: F401


def do(action):
    """Have `action` (str, of actions.py) happen."""
    print("?", action)
    sys.stdin.readline()
