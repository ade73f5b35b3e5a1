"""
DNS, multicast DNS and SNTP servers on loopback, well behaved or not.

Each answers from a thread of its own between construction and `close` (or in a `with`):

    with udp.DNS({"broker.lan": "192.168.1.2"}) as dns:
        dns.host, dns.port      where it listens
        dns.queries             what it was asked, in order
        dns.fault = "silent"    what it does wrong from now on; None: nothing
        dns.delay_s = 0.3       how late it answers
        dns.faults = 2          only the next two answers are wrong; None: all of them

A fault is a name of the server's table FAULTS. All of them know
    silent        no answer
    garbage       random bytes instead
    empty         a datagram of no bytes
    stranger      the right answer, from another port
"""

import contextlib
import os
import select
import socket
import struct
import threading
import time

from . import patience

HOST = "127.0.0.1"
_A = 1
_CNAME = 5
_AAAA = 28
_NSEC = 47
_IN = 1
_IN_FLUSH = 0x8001  # in a record: the cache-flush bit; in a question: a unicast answer is wished
_ERA_S = 2**32
_1900_TO_1970_S = 2_208_988_800


class UDPServer:
    """Base of the servers: the thread, the log, and the faults that all of them know."""

    FAULTS = ("silent", "garbage", "empty", "stranger")

    def __init__(self, fault=None, faults=None, delay_s=0):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._stranger.bind((HOST, 0))
        self._timers = []
        self._closing = False
        self.host, self.port = self._socket.getsockname()
        self.fault = fault
        self.faults = faults
        self.delay_s = delay_s
        self._queries = []
        self._taking = threading.Lock()
        self.senders = []  # (host, port) of each query
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def queries(self):
        """What it was asked, in order: all that has arrived, however busy its thread is."""
        while not self._closing and select.select([self._socket], [], [], 0)[0]:
            time.sleep(0.001)
        with self._taking:
            return self._queries

    @property
    def fault(self):
        return self._fault

    @fault.setter
    def fault(self, name):
        if name is not None and name not in self.FAULTS:
            raise ValueError(f"{name!r} is no fault of this server: {', '.join(self.FAULTS)}")
        self._fault = name

    def close(self):
        """Stop answering; the port is free again."""
        for timer in self._timers:
            timer.cancel()
        self._closing = True
        with contextlib.suppress(OSError):
            self._stranger.sendto(b"", (self.host, self.port))  # wakes the thread
        self._thread.join(patience.stretched(5))
        self._socket.close()
        self._stranger.close()

    def _serve(self):
        while not self._closing:
            select.select([self._socket], [], [])
            with self._taking:
                data, sender = self._socket.recvfrom(2048)
                if sender == self._stranger.getsockname():
                    continue
                self._queries.append(self.read(data))
                self.senders.append(sender)
            fault = self.fault
            if fault and self.faults is not None:
                self.faults -= 1
                if self.faults < 0:
                    fault = None
            for answer in self._answers(data, fault):
                via = self._stranger if fault == "stranger" else self._socket
                if self.delay_s:
                    timer = threading.Timer(self.delay_s, via.sendto, (answer, sender))
                    timer.daemon = True
                    self._timers.append(timer)
                    timer.start()
                else:
                    via.sendto(answer, sender)

    def _answers(self, data, fault):
        if fault == "silent":
            return []
        if fault == "garbage":
            return [os.urandom(100) for _ in range(5)]
        if fault == "empty":
            return [b""]
        return self.answer(data, None if fault == "stranger" else fault)

    def read(self, data):
        """Return what goes into `queries` for the datagram `data`."""
        raise NotImplementedError

    def answer(self, data, fault):
        """Return the datagrams (list of bytes) that answer `data`, with `fault` or None."""
        raise NotImplementedError


def name_bytes(name):
    """Return the str `name` as DNS writes it, uncompressed."""
    labels = [label.encode() for label in name.split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(name, kind, data, group=_IN):
    """Return a resource record. `name` is bytes as on the wire, `data` bytes."""
    return name + struct.pack(">HHIH", kind, group, 60, len(data)) + data


def message(query_id, flags, question=b"", answers=(), extra=()):
    """Return a DNS message; `question` is bytes on the wire, the others lists of records."""
    counts = (1 if question else 0, len(answers), 0, len(extra))
    return struct.pack(">HH4H", query_id, flags, *counts) + question + b"".join([*answers, *extra])


class DNS(UDPServer):
    """
    A DNS server.

    table  {name: value}; a value is an IPv4 address, a name (an alias, followed through the
           table), None (the name exists and has no address), or a list of these. Other names
           do not exist.

    `queries` is the list of names that were asked for, in lower case.

    Faults besides those of every server: "servfail"; "refused"; "wrong_id", "wrong_question",
    "wrong_type" and "not_a_response", where the rest is right; "cut" (it ends within the first
    record); "truncated" (bit TC, no records); "loop" (compression pointers in a circle).
    """

    FAULTS = (
        *UDPServer.FAULTS,
        *("servfail", "refused", "wrong_id", "wrong_question", "wrong_type", "not_a_response"),
        *("cut", "truncated", "loop"),
    )

    def __init__(self, table, **options):
        self.table = {name.lower(): value for name, value in table.items()}
        super().__init__(**options)

    @staticmethod
    def _question(data):
        labels = []
        at = 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        kind, group = struct.unpack_from(">HH", data, at + 1)
        return ".".join(labels), kind, group, data[12 : at + 5]

    def read(self, data):
        return self._question(data)[0].lower()

    def _records(self, name, owner=b"\xc0\x0c", group=_IN):
        """Return the records about `name`, None where it does not exist."""
        if name.lower() not in self.table:
            return None
        values = self.table[name.lower()]
        records = []
        for value in values if isinstance(values, list) else [values]:
            if value is None:
                continue
            try:
                records.append(record(owner, _A, socket.inet_aton(value), group))
            except OSError:  # no address, so an alias
                target = name_bytes(value)
                records.append(record(owner, _CNAME, target))
                records += self._records(value, target) or []
        return records

    def answer(self, data, fault):
        name, _, _, question = self._question(data)
        query_id = int.from_bytes(data[:2], "big")
        records = self._records(name)
        flags = 0x8180 if records is not None else 0x8183
        records = records or []
        if fault == "servfail":
            flags, records = 0x8182, []
        elif fault == "refused":
            flags, records = 0x8185, []
        elif fault == "wrong_id":
            query_id ^= 0x0100
        elif fault == "wrong_question":
            question = name_bytes("x" + name) + question[-4:]
        elif fault == "wrong_type":
            question = question[:-4] + struct.pack(">HH", _AAAA, 1)
        elif fault == "not_a_response":
            flags &= 0x7FFF
        elif fault == "truncated":
            flags, records = flags | 0x0200, []
        elif fault == "loop":
            at = 12 + len(question)
            records = [record(struct.pack(">H", 0xC000 | at), _CNAME, b"\xc0\x0c")] * 3
            flags |= 0x0200
        whole = message(query_id, flags, question, records)
        return [whole[: 12 + len(question) + 14]] if fault == "cut" else [whole]


class MDNS(DNS):
    """
    A responder of multicast DNS that is reached by unicast, as a test's loopback has no group.

    table  as that of DNS; names that it does not have are not answered (RFC 6762 section 6)
    style  how it answers a query from a port that is not 5353: "legacy" (id and question
           repeated, RFC 6762 section 6.7), "modern" (id 0, no question, cache-flush bit set,
           an AAAA record before and an additional one after), "no_id" (id 0, question repeated)

    `unicast_wished` lists for each query whether its QU bit was set, `flags` its flags (int).
    """

    def __init__(self, table, style="legacy", **options):
        self.style = style
        self.unicast_wished = []
        self.flags = []
        super().__init__(table, **options)

    def read(self, data):
        _, _, group, _ = self._question(data)
        self.unicast_wished.append(group == _IN_FLUSH)
        self.flags.append(int.from_bytes(data[2:4], "big"))
        return super().read(data)

    def answer(self, data, fault):
        name, _, _, question = self._question(data)
        if name.lower() not in self.table:
            return []
        query_id = int.from_bytes(data[:2], "big")
        if fault == "servfail":
            return [message(query_id, 0x8402, question)]
        if self.style != "modern":
            query_id = query_id if self.style == "legacy" else 0
            return [message(query_id, 0x8400, question, self._records(name))]
        answers = [record(name_bytes(name), _AAAA, bytes(16), _IN_FLUSH)]
        answers += self._records(name, group=_IN_FLUSH)
        return [message(0, 0x8400, b"", answers, [record(b"\xc0\x0c", _NSEC, bytes(4))])]


class SNTP(UDPServer):
    """
    A time server.

    offset_s  seconds that its clock is ahead of this computer's
    unix_s    the Unix time that it always says, instead; None: the clock's

    `queries` is the list of requests (bytes).

    Faults besides those of every server: "wrong_originate" (as from somebody who did not see the
    request), "wrong_mode" (a client's), "kiss" (stratum 0, code RATE), "alarm" (leap indicator
    3), "stratum_16", "zero" (no time stamp), "short" (47 bytes).
    """

    FAULTS = (
        *UDPServer.FAULTS,
        *("wrong_originate", "wrong_mode", "kiss", "alarm", "stratum_16", "zero", "short"),
    )

    def __init__(self, offset_s=0, unix_s=None, **options):
        self.offset_s = offset_s
        self.unix_s = unix_s
        super().__init__(**options)

    def read(self, data):
        return data

    def answer(self, data, fault):
        now = time.time() + self.offset_s if self.unix_s is None else self.unix_s
        stamp = struct.pack(">II", int(now + _1900_TO_1970_S) % _ERA_S, int(now % 1 * _ERA_S))
        leap = 3 if fault == "alarm" else 0
        mode = 3 if fault == "wrong_mode" else 4
        stratum = {"kiss": 0, "stratum_16": 16}.get(fault, 2)
        origin = os.urandom(8) if fault == "wrong_originate" else data[40:48]
        head = struct.pack(">BBbb", leap << 6 | 4 << 3 | mode, stratum, 6, -20)
        head += bytes(8) + (b"RATE" if fault == "kiss" else bytes((10, 0, 0, 1)))
        answer = head + stamp + origin + stamp + (bytes(8) if fault == "zero" else stamp)
        return [answer[:47] if fault == "short" else answer]
