"""
A clock that is wrong, for one program: libfaketime, which stands between it and the system.

    clock = faketime.Clock(tmp_path, "2021-01-01")
    mpy.start(program, env=clock.environment)

The program's `from tests.device import rtc` gives it a `machine.RTC` that sets this clock. What
counts milliseconds is not touched.
"""

import datetime
import glob
import math
import time

from . import mpy

_LIBRARY = "libfaketime.so.1"
_PLACES = (
    "/usr/lib/*/faketime/",
    "/usr/lib/faketime/",
    "/usr/lib64/faketime/",
    "/usr/local/lib/faketime/",
)


class Unavailable(Exception):
    """There is no libfaketime that works here; the text says why, and the remedy."""


class Clock:
    """
    directory  Path of a folder for its file
    says       the UTC date (str, ISO 8601) that the clock begins with

    environment  dict, of the programs that go by it

    Raises Unavailable.
    """

    def __init__(self, directory, says):
        found = [path for place in _PLACES for path in glob.glob(place + _LIBRARY)]
        if not found:
            raise Unavailable("libfaketime is missing: sudo apt-get install libfaketime")
        self._file = directory / "clock"
        self.environment = {
            "LD_PRELOAD": found[0],
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # what older releases call it
        }
        self.set(says)
        result = mpy.run("import time\nprint(time.gmtime()[0])", env=self.environment)
        if result.out.split() != [says[:4]]:
            raise Unavailable(f"this interpreter does not go by libfaketime: {result}")

    def set(self, says):
        """Have the clock say the UTC date `says` (str, ISO 8601) from now on; None: the right."""
        ahead_s = 0
        if says:
            moment = datetime.datetime.fromisoformat(says).replace(tzinfo=datetime.timezone.utc)
            ahead_s = moment.timestamp() - time.time()
        # in place of the old file at once: the program may be reading it
        new = self._file.with_suffix(".new")
        new.write_text(f"{math.ceil(ahead_s):+d}\n")  # not in the year before
        new.replace(self._file)

    @property
    def offset_s(self):
        """Seconds (float) that the clock is ahead of the computer's."""
        return float(self._file.read_text())
