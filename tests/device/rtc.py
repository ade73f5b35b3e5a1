"""
For MicroPython programs under libfaketime (tests/support/faketime.py): importing this gives them
a `machine` whose RTC sets the clock of the process, as that of a board sets the board's.
"""

import os
import sys
import time

from tests.fakes import machine


class RTC:
    def datetime(self, *new):
        if not new:
            t = time.gmtime()
            return t[:3] + (t[6],) + t[3:6] + (0,)
        year, month, day, _, hour, minute, second, _ = new[0]
        name = os.getenv("FAKETIME_TIMESTAMP_FILE")
        with open(name) as file:
            offset = float(file.read())
        offset += time.mktime((year, month, day, hour, minute, second, 0, 0)) - time.time()
        with open(name, "w") as file:
            file.write("%+.3f\n" % offset)
        print("machine: clock set to", *new[0])
        return None


machine.RTC = RTC
sys.modules["machine"] = machine
