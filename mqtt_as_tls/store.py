"""
The session and the outgoing queue on flash: an append-only log that survives a power cut at any
byte. What a session (module store_session) calls:

open(protocol, client_id, log) -> bool  load what is there; False: it was open already
restored         bool, a session was found
inflight()       [(entry, packet bytearray)] to be taken up again: first those that wait for
                 PUBACK or PUBREC, in the order of their sending, then those whose PUBREC came, in
                 the order of the PUBRECs. The id in the packet may be 0
inbound          list of the packet ids of inbound QoS 2 messages that wait for their PUBREL
put(packet)      keep a message of enqueue(): True; False: full; None: the flash failed
waiting          int, messages that `next` has yet to give, besides those in `again` (list)
next()           (entry, packet bytearray) of the oldest one that waits, or None. It stays in the
                 log until `done`, and is given again after a reset unless `sent` came; one of
                 both, or `aside`, has to come before the next is taken
sent(entry, id)  it goes into flight with this packet id
aside(entry)     it waits on, and others go first
add(packet, id)  a publish() goes into flight: its entry, or None when it could not be kept
received(entry)  its PUBREC came: call it before PUBREL is sent
done(entry)      it was delivered, or failed for good
inbound_add(id)  call it before PUBREC is sent; inbound_remove(id): before PUBCOMP is sent
strike(entry, n)  n connections in a row ended on this message; struck(entry): how many did
suspect          (segment, offset, n) of the last one, or None
fresh()          the broker lost the session: the ids are void. What stays in flight is given
                 by next() after a reset; what is not to be sent again needs done(entry) first
close()
wait_ms(now_ms)  for how many ms nothing new is to be begun, as max_writes are used up

len(store) is the number of messages in it. Of an entry, [2] is the packet id or 0, [3] is true
once its PUBREC came.

A call that changes something returns when it is on flash, at the cost of one write. A flash that
fails is noted (`error`, `errors`, and `log`) and never raised: the state in memory goes on, and
is written as a whole as soon as the flash takes it again.

The log: segment files NNNNNNNN.log, numbers ascending, each begins with HEAD: the whole state but
for the queued messages. So a segment without live messages can go whatever is in it, and loading
reads no more than the last segment and the queue. A record:

magic 1  kind 1  length of the body 2  body  CRC-32 4 (begun with the segment's number)
"""

import os
from binascii import crc32
from struct import pack, unpack_from

from micropython import const

from . import load

_MAGIC = const(0xA7)
_VERSION = const(1)

# kind        body
_HEAD = const(1)  # version 1, protocol 1, queue's segment 4 and offset 2, n, m 2 each,
#                   n entries in flight, m inbound ids 2 each, client id
_QUEUED = const(2)  # PUBLISH packet
_DIRECT = const(3)  # PUBLISH packet, its id 2: in flight at once
_SENT = const(4)  # segment 4 and offset 2 of a queued message, its id 2; 0: it is done
_RECEIVED = const(5)  # id 2
_DONE = const(6)  # id 2
_INBOUND = const(7)  # id 2
_RELEASED = const(8)  # id 2
_FRESH = const(9)  # empty
_SUSPECT = const(10)  # segment 4 and offset 2 of a message, connections 1 that ended on it
_ASIDE = const(11)  # segment 4 and offset 2 of a queued message, 2 bytes 0: others go first

_OVERHEAD = const(8)  # bytes of a record besides its body
_IDS = const(1024)  # that 256 inbound ids take in HEAD, twice: the old one goes after the new one
_GROWTH = const(32)  # of HEAD and the log by a record that is no message, at most
_LEAST = const(8192)
_MINUTE_MS = const(60_000)
# what max_writes did not use of such a time may be used at once, as when an outage is over; a
# variable, so that it can be changed
SPARE_MS = 1_800_000
_ENOSPC = const(28)
_TICKS = const(0x3FFFFFFF)
_STRIKES = const("<IHB")
_ENTRY = const("<IHHB")  # segment, offset, packet id or 0, PUBREC came

_users = {}  # absolute path of a directory -> the FileStore whose log a client has or had


class FileStore:
    """
    Where a client keeps its session and its queue: `MQTTClient(..., store=FileStore("/mqtt"))`.

    directory  str, made if missing (its parent must exist); a client needs one of its own
    max_bytes  int, the most that the log may take, from 8192 bytes on
    full       "newest": enqueue() returns False when the log is full; "oldest": the oldest
               messages that are not in flight give way, an eighth of max_bytes at a time
    max_writes  int, writes to flash a minute, on average over half an hour: beyond it what is new
               waits, in memory or at the broker

    error     OSError or MemoryError of the last write or read when it failed, else None
    errors    int, writes and reads that failed
    damaged   int, places in the log that could not be read
    dropped   int, messages that gave way (full="oldest")
    refused   int, messages that found no room
    writes    int, writes to flash
    bytes     int, size of the log
    restored  bool, a session was found
    paused    bool, max_writes are used up
    log       function that takes a line (str), or None

    Raises ValueError for arguments out of their range.
    """

    log = error = _segments = _file = _session = None
    errors = damaged = dropped = refused = writes = bytes = waiting = 0
    restored = paused = _whole = False
    _paid = _debt_ms = 0
    _paid_ms = None

    def __init__(self, directory, max_bytes=65536, full="newest", *, max_writes=120):
        if (
            not isinstance(directory, str)
            or not directory
            or not isinstance(max_bytes, int)
            or max_bytes < _LEAST
            or full not in ("newest", "oldest")
            or not isinstance(max_writes, int)
            or not 0 < max_writes <= _MINUTE_MS
        ):
            raise load("argument_errors").file_store(
                directory, max_bytes, full, _LEAST, max_writes, _MINUTE_MS
            )
        self._cost_ms = -(-_MINUTE_MS // max_writes)  # of a write
        self.directory = directory
        self.max_bytes = max_bytes
        self.largest = min(max_bytes // 4, 65000)
        self._oldest = full == "oldest"
        self._size = n = min(max_bytes // 8, 65535)  # of a segment
        self._spare = n // 2 + _IDS  # no message takes these bytes: they are for what ends one
        self._flight = []

    def __len__(self):
        return self.waiting + len(self._flight)

    def __bool__(self):
        return True  # empty or not, there is one

    # Loading

    def open(self, protocol, client_id, log=None):
        """
        Load the log, or begin one.

        protocol   int, 4 or 5
        client_id  str
        log        a function that takes a line (str)

        Returns False when it is open already, else True. Raises ValueError when the directory
        cannot be used, or has the log of another client.
        """
        if self._segments is not None:
            return False
        self.log = log or self.log
        self._name = bytes((_VERSION, protocol)), client_id.encode()
        try:
            self._load()
        except (OSError, ValueError) as e:
            self.close()
            if isinstance(e, OSError):
                e = "%s: give a directory to write in, in one that exists" % e
            name = load("argument_errors").path(self.directory, True)
            raise ValueError("store %s: %s" % (name, e))
        if self.damaged:
            self._say("%d damaged places skipped" % self.damaged)
        return True

    def _load(self):
        try:
            os.mkdir(self.directory)
        except OSError:
            pass  # it is there, or listdir says why not
        self._segments = segments = {}  # number -> [size, offset of its last queued message or -1]
        self._flight = []  # entries that next() and add() gave, in the order of their sending
        self.inbound = []
        self._cursor = (0, 0)  # segment and offset where the queue begins
        self.suspect = None
        self._first = None  # where _count() found the first message of the queue
        self.bytes = self.damaged = self.waiting = self._found = self._base = 0
        self.restored = False
        for name in os.listdir(self.directory):
            if len(name) == 12 and name[8:] == ".log" and name[:8].isdigit():
                seg = int(name[:8])
                n = os.stat(self._path(seg))[6]
                segments[seg] = [n, -1]
                self.bytes += n
        order = sorted(segments)
        self._now = order[-1] if order else 0
        i = len(order)
        headed = False
        while i and not headed:  # back to the newest state that is whole
            i -= 1
            headed = self._scan(order[i], self._is_head)
        for seg in order[i:]:
            self._scan(seg, self._replay, 1)
        self._safe = good = bool(headed) and self._now == order[i] and self._whole
        for seg in order:
            if seg >= self._cursor[0]:
                self._scan(seg, self._count, seg < order[i])
        self.waiting = self._found
        self._cursor = self._first or (self._now + 1, 0)
        for entry in list(self._flight):
            if entry[0] not in segments:
                self._gone(entry)
        self.again = [e for e in self._flight if not e[2]]
        n = self.max_bytes
        if self.bytes + self._overhead() + _GROWTH > n:  # it was larger when they were written
            n = self.bytes + self._spare
        self._limit = n
        if good:
            self._file = self._open(self._now, "ab")
        else:  # nothing goes behind a record that was cut off
            try:
                self._roll()
            except OSError as e:
                if e.errno != _ENOSPC:
                    raise
                self._failed(e)
        self._sweep()

    def _scan(self, seg, visit, see=0):
        """_each() of a whole segment; one that cannot be read is left alone."""
        if seg in self._segments:
            try:
                return self._each(seg, 0, visit, see)
            except OSError as e:
                self._failed(e)
                self.damaged += 1
                self._whole = False
                self.bytes -= self._segments.pop(seg)[0]
        return None

    def _is_head(self, seg, at, end, kind, body):
        return kind == _HEAD and not at

    def _replay(self, seg, at, end, kind, body):
        self.restored = True
        self._apply(seg, at, kind, body)

    def _count(self, seg, at, end, kind, body):
        if kind == _QUEUED and (seg, at) >= self._cursor:
            self._segments[seg][1] = at
            self._first = self._first or (seg, at)
            self._found += 1

    # The log

    def _path(self, seg):
        return "%s/%08d.log" % (self.directory, seg)

    def _open(self, seg, mode):
        return open(self._path(seg), mode)

    def _each(self, seg, at, visit, see=0):
        """
        Call visit(segment, offset, offset after it, kind, body bytearray) for each record from
        `at` on, until it returns anything but None; return that. Whatever is no record is skipped;
        `see`: 1 to count it.
        """
        size = self._segments[seg][0]
        good = at
        with self._open(seg, "rb") as f:
            while at + _OVERHEAD <= size:
                f.seek(at)
                head = f.read(4)
                if len(head) < 4:
                    break
                n = head[2] | head[3] << 8
                end = at + _OVERHEAD + n
                if head[0] == _MAGIC and end <= size:
                    body = bytearray(n)
                    f.readinto(body)
                    if f.read(4) == pack("<I", crc32(body, crc32(head, seg))):
                        if at != good:
                            self.damaged += see
                        value = visit(seg, at, end, head[1], body)
                        if value is not None:
                            return value
                        at = good = end
                        continue
                at += 1
        self._whole = good == size
        if good != size:
            self.damaged += see
        return None

    def _write(self, kind, body, tail=b""):
        """Append a record, in one write to flash; return its offset. Raises OSError."""
        head = pack("<BBH", _MAGIC, kind, len(body) + len(tail))
        tail += pack("<I", crc32(tail, crc32(body, crc32(head, self._now))))
        segment = self._segments[self._now]
        at = segment[0]
        f = self._file
        try:
            f.write(head)
            f.write(body)
            f.write(tail)
            f.flush()
            f = None
        finally:
            n = 4 + len(body) + len(tail)
            segment[0] += n
            self.bytes += n
            if f:
                self._shut()
        self.writes += 1
        self.error = None
        return at

    def _shut(self):
        f = self._file
        self._file = None
        try:
            if f:
                f.close()
        except OSError:
            pass  # what was to be kept was flushed

    def _overhead(self):
        """Return the bytes that HEAD takes now."""
        n = 14 + 9 * len(self._flight) + 2 * len(self.inbound)
        return _OVERHEAD + n + len(self._name[1])

    def _roll(self):
        """Begin a segment with the whole state, remove those that have nothing else."""
        n = self._overhead()
        if self.bytes + n > self._limit:
            raise OSError(_ENOSPC)
        now = self._now + 1
        if not self.waiting:
            self._cursor = (now, 0)
        seg, at = self._cursor
        body = self._name[0] + pack("<IIHH", seg, at, len(self._flight), len(self.inbound))
        for entry in self._flight:
            body += pack(_ENTRY, *entry)
        for packet_id in self.inbound:
            body += pack("<H", packet_id)
        self._shut()
        self._segments[now] = [0, -1]
        self._now = now
        try:
            self._file = self._open(now, "wb")
            self._write(_HEAD, body, self._name[1])
            now = None
        finally:
            if now:
                self._shut()
                self._now = now - 1
                self._remove(now)
        self._safe = True
        if self.suspect and self.suspect[0] in self._segments:
            try:
                self._write(_SUSPECT, pack(_STRIKES, *self.suspect))
            except OSError:
                pass  # it is counted anew
        self._base = self._segments[self._now][0]
        self._sweep()

    def _waits(self, seg):
        """Return whether a segment has a message of the queue."""
        last = self._segments[seg][1]
        return last >= 0 and (seg, last) >= self._cursor

    def _dead(self, seg):
        """Return whether a segment has no message that is still to be delivered."""
        return not self._waits(seg) and seg not in [entry[0] for entry in self._flight]

    def _sweep(self):
        if self._safe:  # the newest segment begins with a whole state
            for seg in list(self._segments):
                if seg != self._now and self._dead(seg):
                    self._remove(seg)

    def _remove(self, seg):
        self.bytes -= self._segments.pop(seg)[0]
        try:
            os.remove(self._path(seg))
        except OSError as e:
            self._failed(e)

    def _append(self, kind, body, tail=b""):
        """Append a record; return its offset, or None: no room, or the flash failed."""
        n = _OVERHEAD + len(body) + len(tail)
        try:
            if self._file:
                used = self._segments[self._now][0]
                # the next segment, which makes room, must find room itself
                room = self._limit - self.bytes - n - self._overhead() - _GROWTH
                if not self._dead(self._now):  # it stays, with all that is still to come
                    room -= self._overhead() + _GROWTH + _IDS - 4 * len(self.inbound)
            if not self._file or room < 0 or (used + n > self._size and used > self._base):
                self._roll()
            if self.bytes + n > self._limit:
                raise OSError(_ENOSPC)
            return self._write(kind, body, tail)
        except (OSError, MemoryError) as e:
            self._shut()  # the next record begins a segment: the whole state
            self._failed(e)
            return None

    def _failed(self, error):
        self.error = error
        self.errors += 1
        self._say("%r: what changes now may not survive a reset" % error)

    def _say(self, text):
        if self.log:
            self.log("store %s: %s" % (self.directory, text))

    def _gone(self, entry):
        """A message in flight cannot be read any more."""
        self._flight.remove(entry)
        self.damaged += 1

    # The state

    def _apply(self, seg, at, kind, body):
        """Do to the state in memory what a record says; return the entry it is about."""
        flight = self._flight
        found = None
        if kind == _HEAD:
            n, m = unpack_from("<HH", body, 10)
            end = 14 + 9 * n
            if (body[:2], body[end + 2 * m :]) != self._name:
                raise ValueError(
                    "log of client id %r, protocol %d: give each client a directory, or remove it"
                    % (str(body[end + 2 * m :], "utf-8")[:60], body[1])
                )
            self._cursor = unpack_from("<II", body, 2)
            self._flight = [list(unpack_from(_ENTRY, body, 14 + 9 * i)) for i in range(n)]
            self.inbound = list(unpack_from("<%dH" % m, body, end))
        elif kind in (_SENT, _DIRECT, _ASIDE):
            packet_id = body[-2] | body[-1] << 8
            if kind != _DIRECT:
                seg, at = unpack_from("<IH", body)
            for entry in list(flight):
                if entry[0] == seg and entry[1] == at:
                    flight.remove(entry)
                    found = entry
                elif packet_id and entry[2] == packet_id:
                    flight.remove(entry)  # what ended it is damaged
            if not found:
                found = [seg, at, 0, 0]
                if kind != _DIRECT and (seg, at) >= self._cursor:
                    self._cursor = (seg, at + 1)
            if packet_id or kind == _ASIDE:
                found[2] = packet_id
                flight.append(found)
        elif kind == _SUSPECT:
            self.suspect = unpack_from(_STRIKES, body) if body[-1] else None
        elif kind == _FRESH:
            self.inbound = []
            for entry in flight:
                entry[2] = entry[3] = 0
        elif kind != _QUEUED:
            packet_id = body[0] | body[1] << 8
            if kind < _INBOUND:
                for entry in list(flight):
                    if entry[2] == packet_id:
                        flight.remove(entry)
                        if kind == _RECEIVED:
                            entry[3] = 1
                            flight.append(entry)
            else:
                if packet_id in self.inbound:
                    self.inbound.remove(packet_id)
                if kind == _INBOUND:
                    self.inbound.append(packet_id)
        return found

    def _note(self, kind, form, *values):
        body = pack(form, *values)
        self._append(kind, body)
        self._apply(0, 0, kind, body)

    def _get(self, entry):
        """Return the packet of an entry (bytearray), or None when it is damaged."""
        at, kind, body = self._each(entry[0], entry[1], self._grab) or (-1, 0, None)
        if at == entry[1] and kind in (_QUEUED, _DIRECT):
            return body if kind == _QUEUED else body[:-2]
        self._gone(entry)
        return None

    def _grab(self, seg, at, end, kind, body):
        return at, kind, body

    def _take(self, seg, at, end, kind, body):
        if kind != _QUEUED:
            return None
        found = [seg, at, 0, 0], body
        cursor = seg, end
        self._flight.append(found[0])  # till here there may be no memory
        self._base = 0  # no record says that it was given, see _drop
        self._cursor = cursor
        self.waiting -= 1
        return found

    # What a client calls, see the top

    def _absolute(self):
        path = self.directory if self.directory[0] == "/" else os.getcwd() + "/" + self.directory
        parts = []
        for part in path.split("/"):
            if part == "..":
                parts = parts[:-1]
            elif part not in ".":  # "" is in it
                parts.append(part)
        return "/".join(parts)

    def session(self, client):
        """
        Return the session of `client`. It is read from flash unless `client` has it; a client that
        had it and does not run loses it.

        Raises ValueError when a client that runs has the log of this directory, also through
        another FileStore, and when the directory cannot be used.
        """
        path = self._absolute()
        before = _users.get(path)
        if before and before._segments is not None and before._session:
            user = before._session.client
            if before is self and user is client:
                return self._session
            same = (user.client_id, user.five is None) == (client.client_id, client.five is None)
            if user in client.clients or (before is self and not same):
                self._taken(user)
            if before is self:
                self.close()
        self._session = None
        self._session = load("store_session").StoredSession(client, self)
        if before and before is not self:
            before.close()
        _users[path] = self
        return self._session

    def check(self, client):
        """Raises ValueError when another client has taken the log from `client`."""
        if self._segments is None or not self._session or self._session.client is not client:
            self._taken(self._session and self._session.client)

    def _taken(self, user):
        raise load("argument_errors").store_taken(self.directory, user)

    def inflight(self):
        """Return what was in flight when the log was loaded."""
        found = []
        for received in (0, 1):
            for entry in list(self._flight):
                if entry[2] and entry[3] == received:
                    try:
                        buf = self._get(entry)
                    except OSError as e:
                        self._failed(e)
                        continue
                    if buf:
                        found.append((entry, buf))
        return found

    def put(self, packet):
        """Keep an encoded PUBLISH. Raises ValueError when it is larger than `largest`."""
        n = len(packet)
        if n > self.largest:
            raise load("argument_errors").size(n, self.largest, "a quarter of max_bytes")
        if not self._make_room(n):
            return None if self.error else False
        at = self._append(_QUEUED, packet)
        if at is None:
            return None
        self._segments[self._now][1] = at
        if not self.waiting:
            self._cursor = (self._now, at)
        self.waiting += 1
        return True

    def _make_room(self, n):
        n += _OVERHEAD
        try:
            while self.bytes + n + self._overhead() > self.max_bytes - self._spare:
                if not self._file or (
                    self._segments[self._now][0] > self._base and self._dead(self._now)
                ):
                    self._roll()
                elif self._oldest and self.waiting:
                    self._drop()
                else:
                    self.refused += 1
                    return False
        except OSError as e:
            self._failed(e)
            return False
        return True

    def _drop(self):
        """
        The messages that wait in the oldest segment give way. One that was given before them is in
        HEAD first: after a reset it would be gone with them.
        """
        for seg in sorted(self._segments):
            last = self._segments[seg][1]
            if self._waits(seg):
                break
        else:  # those that are missing became unreadable
            self.waiting = 0
            return
        if seg == self._now or not self._base:
            self._roll()
        self._found = 0
        self._each(seg, 0, self._count)
        self._note(_SENT, "<IHH", seg, last, 0)
        self._cursor = (seg + 1, 0)
        self.waiting = max(0, self.waiting - self._found)
        self.dropped += self._found
        self._sweep()

    def wait_ms(self, now_ms):
        if self._paid_ms is not None:
            passed_ms = (now_ms - self._paid_ms) & _TICKS
            self._debt_ms = max(0, self._debt_ms - passed_ms)
        self._paid_ms = now_ms
        self._debt_ms += (self.writes - self._paid) * self._cost_ms
        self._paid = self.writes
        late_ms = max(0, self._debt_ms - SPARE_MS)
        if late_ms and not self.paused:
            self.paused = True
            self._say(
                "%d writes a minute (max_writes) are used up: what is new waits -> send less"
                " often, or raise max_writes, at the cost of the flash"
                % (_MINUTE_MS // self._cost_ms)
            )
        elif self._debt_ms < SPARE_MS // 2:
            self.paused = False
        return late_ms

    def next(self):
        try:
            while self.again:
                entry = self.again[0]
                found = entry, self._get(entry)
                self.again.pop(0)  # till here there may be no memory
                if found[1]:
                    return found
            while self.waiting:
                seg, at = self._cursor
                found = seg in self._segments and self._each(seg, at, self._take)
                if found:
                    return found
                later = [s for s in self._segments if s > seg]
                if later:
                    self._cursor = (min(later), 0)
                else:
                    self.damaged += self.waiting
                    self.waiting = 0
        except OSError as e:  # maybe it can be read later
            self._failed(e)
        return None

    def sent(self, entry, packet_id):
        self._note(_SENT, "<IHH", entry[0], entry[1], packet_id)

    def aside(self, entry):
        self._note(_ASIDE, "<IHH", entry[0], entry[1], 0)

    def add(self, packet, packet_id):
        if len(packet) > self.largest or not self._make_room(len(packet) + 2):
            return None
        tail = pack("<H", packet_id)
        at = self._append(_DIRECT, packet, tail)
        return None if at is None else self._apply(self._now, at, _DIRECT, tail)

    def received(self, entry):
        self._note(_RECEIVED, "<H", entry[2])

    def done(self, entry):
        if entry[2]:
            self._note(_DONE, "<H", entry[2])
        else:
            self.sent(entry, 0)
        self._sweep()

    def strike(self, entry, n):
        self._note(_SUSPECT, _STRIKES, entry[0], entry[1], min(n, 255))

    def struck(self, entry):
        suspect = self.suspect
        return suspect[2] if suspect and list(suspect[:2]) == entry[:2] else 0

    def inbound_add(self, packet_id):
        self._note(_INBOUND, "<H", packet_id)

    def inbound_remove(self, packet_id):
        self._note(_RELEASED, "<H", packet_id)

    def fresh(self):
        for entry in self._flight:
            if entry[2]:
                break
        else:
            if not self.inbound:
                return
        self._note(_FRESH, "")

    def close(self):
        self._shut()
        self._segments = None
