"""
For MicroPython programs under libfaketime (tests/support/faketime.py): importing this gives them
a `machine` whose RTC sets the clock of the process, as that of a board sets the board's.
"""

import os
import sys

from tests.fakes import machine

RTC = machine.RTC
RTC.clock_file = os.getenv("FAKETIME_TIMESTAMP_FILE")
sys.modules["machine"] = machine
