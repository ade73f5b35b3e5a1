"""
What is known of each board: what it said on its topics, checked, bounded, and made harmless.

The reports are those of `client.report()`: docs/fleet.md, "What a board tells". Whoever may
publish there may say anything.
"""

import datetime
import functools
import json
import re
import threading
import time

from ..doctor import error_text
from ..screen import printable

MOST = 20_000  # boards
_LONGEST = 8192  # bytes of a report
_LONGEST_NAME = 64
_LONGEST_TEXT = 120
_HIGHEST = 1 << 53  # what JSON's readers agree on
_TEXTS = ("package", "firmware", "machine", "error")
_NUMBERS = (
    *("at", "every_s", "uptime_s", "online_s", "outage_s", "connects", "reset", "rssi"),
    *("mem_free", "mem_block", "queue"),
)
_ENDS = re.compile(r"\d{14}Z", re.ASCII)

# When a board needs somebody: see Board.needs
_DAYS = 30  # of its certificate
_BLOCK = 20_000  # bytes: a handshake wants a piece of 17 KB
_WEAK_DBM = -80
_QUEUE = 20
_SILENT = 3  # reports that did not come
_WATCHDOG = 3  # machine.reset_cause() of rp2 and esp32

COLUMNS = (
    *("name", "online", "since", "needs", "package", "firmware", "machine", "rssi", "mem_free"),
    *("mem_block", "queue", "connects", "outage_s", "uptime_s", "reset", "error", "means"),
    *("days", "heard"),
)


def shown(text):
    """Return `text` (str), which may be anybody's, on one line and bounded."""
    text = printable(text)
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def read(payload):
    """
    Return what a report (bytes) says (dict); what it lacks, or has in another form, is None.

    Raises ValueError, with a sentence, for what is none.
    """
    if len(payload) > _LONGEST:
        raise ValueError(f"a report of {len(payload):,} bytes")
    try:
        said = json.loads(payload.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("a report that is no JSON") from None
    if not isinstance(said, dict):
        raise ValueError("a report that is no JSON object")
    if said.get("v") != 1:
        raise ValueError("a report of another version")
    found = {}
    for name in _TEXTS:
        text = said.get(name)
        found[name] = shown(text) if isinstance(text, str) and text else None
    for name in _NUMBERS:
        number = said.get(name)
        good = isinstance(number, (int, float)) and not isinstance(number, bool)
        found[name] = number if good and abs(number) < _HIGHEST else None
    ends = said.get("ends")
    found["ends"] = _time(ends) if isinstance(ends, str) and _ENDS.fullmatch(ends) else None
    return found


def _time(text):
    try:
        found = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ")
    except ValueError:
        return None
    return int(found.replace(tzinfo=datetime.timezone.utc).timestamp())


@functools.lru_cache(1000)
def means(error):
    """Return what an error (str) of a report means, in words; "" where nobody knows."""
    cause, cure = error_text.look_up(error)
    return " -> ".join(filter(None, (cause, cure)))


class Board:
    """
    One board.

    name    str, its client id
    online  bool, None: it has not said
    since   seconds since 1970: when that began, None: before this was started
    heard   seconds since 1970: when its last report was made, or None
    report  dict as read() returns it, or {}
    odd     str, why its last report was none, or ""
    change  int, of Boards.changes when something of it changed last
    """

    def __init__(self, name):
        self.name = name
        self.online = self.since = self.heard = None
        self.report, self.odd, self.change = {}, "", 0

    def says_status(self, online, now):
        """It is online, or not; `now` (s): just since now, None: the broker has kept it."""
        if online is not self.online:
            self.online = online
            if now or not online:  # else its report says it
                self.since = now

    def says_report(self, payload, now):
        """It reported (bytes); `now` (s), None: the broker has kept it."""
        try:
            self.report, self.odd = read(payload), ""
        except ValueError as error:
            self.odd = str(error)
            return
        at, online_s = self.report["at"], self.report["online_s"]
        self.heard = now or at
        if self.online is not False and self.since is None and None not in (at, online_s):
            self.since = at - online_s

    def needs(self, now):
        """Return what somebody should look at, the worst first (list of str)."""
        found, said = [], self.report
        days = self.days(now)
        if self.online is False:
            found.append("offline")
        if days is not None and days < 0:
            found.append("its certificate has ended")
        elif self.is_silent(now):
            found.append("online, but silent")
        if self.odd:
            found.append(self.odd)
        if days is not None and 0 <= days < _DAYS:
            found.append(f"its certificate ends in {days} days")
        block = said.get("mem_block")
        if block is not None and block < _BLOCK:
            found.append(f"no piece of memory above {block:.0f} bytes")
        if said.get("reset") == _WATCHDOG:
            found.append("reset by its watchdog")
        queue = said.get("queue")
        if queue is not None and queue > _QUEUE:
            found.append(f"{queue:.0f} messages wait")
        rssi = said.get("rssi")
        if rssi is not None and rssi < _WEAK_DBM:
            found.append(f"weak signal, {rssi:.0f} dBm")
        return found

    def is_silent(self, now):
        """Tell whether it does not report, though it should."""
        every_s = self.report.get("every_s")
        if self.online is False or not every_s or self.heard is None:
            return False
        return now - self.heard > _SILENT * every_s

    def days(self, now):
        """Return for how many days its certificate is still good (int), None: it has none."""
        ends = self.report.get("ends")
        return None if ends is None else int((ends - now) // 86400)

    def row(self, now):
        """Return it as a dict of COLUMNS, of types that JSON has."""
        said = self.report
        error = said.get("error")
        own = {
            "name": self.name,
            "online": self.online,
            "since": self.since,
            "needs": self.needs(now),
            "means": means(error) if error else None,
            "days": self.days(now),
            "heard": self.heard,
        }
        return {name: own[name] if name in own else said.get(name) for name in COLUMNS}


_WORST = (
    *("offline", "its certificate has ended", "online, but silent", "a report"),
    *("its certificate ends", "no piece", "reset", ""),
)


def urgency(board, now):
    """Return a key that sorts boards by what needs somebody, then by name."""
    needs = board.needs(now)
    rank = len(_WORST)
    if needs:
        rank = next(at for at, each in enumerate(_WORST) if needs[0].startswith(each))
    return rank, -len(needs), board.name


class Boards:
    """
    All boards that were heard of. A thread may tell it what comes while others look.

    home     what the topics of a board begin with, a + in the place of its name: "devices/+/"
    changes  int, grows whenever something changes
    ignored  int, messages of names that were too many, too long, or cannot be printed
    came     int, messages
    """

    def __init__(self, home="devices/+/", clock=time.time):
        before, _, after = home.partition("+")
        self._topic = re.compile(
            f"{re.escape(before)}([^/]*){re.escape(after)}(status|report)", re.DOTALL
        )
        self.filters = [home + "status", home + "report"]
        self._clock = clock
        self._boards = {}
        self._lock = threading.Lock()
        self.changes = self.ignored = self.came = 0

    def now(self):
        """Return the time (s since 1970)."""
        return self._clock()

    def take(self, topic, payload, retained):
        """
        A message came.

        topic     str
        payload   bytes
        retained  bool, the broker has kept it
        """
        found = self._topic.fullmatch(topic)
        if not found:
            return
        name, kind = found.groups()
        with self._lock:
            self.came += 1
            if not payload:  # taken back
                if kind == "status" and name in self._boards:
                    del self._boards[name]
                    self.changes += 1
                return
            board = self._boards.get(name)
            if board is None:
                good = 0 < len(name) <= _LONGEST_NAME and name.isprintable()
                if not good or len(self._boards) >= MOST:
                    self.ignored += 1
                    return
                self._boards[name] = board = Board(name)
            now = None if retained else self.now()
            if kind == "report":
                board.says_report(payload, now)
            elif payload in (b"online", b"offline"):
                board.says_status(payload == b"online", now)
            self.changes += 1
            board.change = self.changes

    def sorted(self):
        """Return the boards (list of Board), those first that need somebody."""
        now = self.now()
        with self._lock:
            return sorted(self._boards.values(), key=lambda each: urgency(each, now))

    def rows(self, after=0):
        """Return the boards as rows (list of dict), those alone that changed `after` (int)."""
        now = self.now()
        return [each.row(now) for each in self.sorted() if each.change > after]

    @property
    def count(self):
        """How many boards there are (int)."""
        return len(self._boards)
