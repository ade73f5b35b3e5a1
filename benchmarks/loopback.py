"""
All contestants at one mosquitto on loopback, each in a process of its own.

For its speed each works in turns of some milliseconds, in alternating order: how many messages
fit into one is found out first, because some do 20 a second and some 80,000. A contestant's
figure of a run is the median of its turns, and so is its processor time a message (user and
system), which says the same on a busy machine. Memory and idleness do not depend on who else is
busy: for them all work at once.
"""

import contextlib
import json
import os
import re
import socket
import statistics
import threading
import time
from collections import namedtuple
from pathlib import Path

from benchmarks.contestants import ALL, BARE, OURS, start
from benchmarks.table import OVER_BARE
from tests.support.broker import HOST

PAYLOAD = b"x" * 100  # these are those of common.py
WARM_UP = 10
TRANSPORTS = {"TCP": "tcp", "TLS": "tls"}  # name -> listener of the broker
IDLE_S = 10
WAIT_S = 60

Workload = namedtuple("Workload", "name what unit decimals cores least most length targets")
Workload.__doc__ = """
name     of the function in the contestants' programs
cores    for broker and client together
least, most  messages a turn
length   of a turn; 1 is what the caller wants
targets  {transport: target, as Table.add takes it}
"""

STALL = {"TLS": ("ratio", "<=", 1.2)}  # over the longest step of mbedTLS
CONNECT = (
    Workload("connect", "connect to CONNACK", "ms", 2, 2, 1, 50, 1, {}),
    Workload("stall", "longest stall while connecting", "ms", 1, 2, 1, 5, 1, STALL),
)
SPEED = (
    Workload(
        *("one_by_one", "QoS 1 publish, one by one", "/s", 0, 1, 4, 500, 1),
        {"TCP": ("ratio", ">=", 0.5)},
    ),
    Workload(
        *("in_flight", "QoS 1 publish, 16 in flight", "/s", 0, 2, 16, 1600, 1),
        {"TCP": ("ratio", ">=", 0.4)},
    ),
    Workload(
        *("round_trip", "round trip", "ms", 3, 1, 4, 500, 1),
        {"TCP": (OURS, "<", 0.3)},
    ),
    Workload(
        *("publish_qos0", "QoS 0 publish", "/s", 0, 2, 16, 8000, 8),
        {"TCP": (OURS, ">=", 50_000)},
    ),
    Workload(
        *("receive", "QoS 0 receive", "/s", 0, 2, 16, 4000, 1),
        {"TCP": (OURS, ">=", 10_000)},
    ),
)
MEMORY = (
    Workload(
        *("publish_memory", "allocated by a QoS 1 publish of 100 B", "B", 0, 0, 0, 50, 0),
        {"TCP": (OURS, "<=", 650)},
    ),
    Workload(
        *("receive_memory", "allocated by receiving QoS 1, 100 B", "B", 0, 0, 0, 50, 0),
        {"TCP": (OURS, "<=", 900)},
    ),
)


class Loopback:
    """
    table    Table
    broker   Broker with the listeners "tcp" and "tls"
    missing  {contestant: why it is not there}
    runs     of each figure
    turn_ms, turns  how long a contestant's turn is, and how many there are in a run
    """

    def __init__(self, table, broker, missing, runs, turn_ms=25, turns=9):
        self.table = table
        self.broker = broker
        self.missing = missing
        self.runs = runs
        self.turn_ms = turn_ms
        self.turns = turns

    @contextlib.contextmanager
    def contestants(self, workload, transport, absent):
        """
        Start all that can; yield {contestant: program} when each waits for its turn. The others
        are put into `absent`, with the reason.
        """
        port = self.broker.ports[TRANSPORTS[transport]]
        ca = self.broker.pki.ca.cert_der if transport == "TLS" else ""
        absent.update(self.missing)
        with contextlib.ExitStack() as stack:
            programs = {
                each.name: stack.enter_context(
                    start(each, workload, port, topic(each.name, transport), ca)
                )
                for each in ALL
                if each.name not in absent
            }
            for name, program in list(programs.items()):
                try:
                    line = program.wait_for("^(ready|unable )", WAIT_S)
                except AssertionError:
                    line = f"unable failed: {last_words(program)}"
                if line != "ready":
                    absent[name] = line.removeprefix("unable ")
                    del programs[name]
            yield programs

    def measure(self, workloads):
        """Add the figures of `workloads`, over TCP and over TLS."""
        for workload in workloads:
            found = {}
            for transport in TRANSPORTS:
                absent, counts = {}, {}
                runs = [self.run(workload, transport, absent, counts) for _ in range(self.runs)]
                results, busy = zip(*runs, strict=True)
                names = [each.name for each in ALL if all(each.name in run for run in results)]
                found[transport] = {name: [run[name] for run in results] for name in names}
                self.add(workload, transport, found[transport], absent)
                if workload.name != "stall":
                    self.add_busy(workload, transport, names, busy, absent)
            if workload.name == "in_flight":
                self.compare(found)

    def add(self, workload, transport, found, absent):
        what = f"{workload.what}, {transport}"
        target = workload.targets.get(transport, ())
        if workload.name != "round_trip":
            self.table.add(what, workload.unit, found, workload.decimals, target, absent)
            return
        for part, quantile in (("p50", 0.5), ("p99", 0.99)):
            runs = {
                name: [sorted(times)[int(len(times) * quantile)] / 1000 for times in each]
                for name, each in found.items()
            }
            what = f"{workload.what} {part}, {transport}"
            self.table.add(what, workload.unit, runs, workload.decimals, target, absent)
            target = ()

    def add_busy(self, workload, transport, names, busy, absent):
        """Add the processor time of a message or connection, over that of the bare socket's."""
        if not all(name in run for run in busy for name in names):
            return  # nobody counts it here
        what = f"CPU time: {workload.what}, {transport}"
        ratios = {name: [run[name] / run[BARE] for run in busy] for name in names}
        figure = self.table.add(what, OVER_BARE, ratios, 2, (), absent)
        figure["us"] = {name: [run[name] for run in busy] for name in names}

    def compare(self, found):
        """Add what of the speed over TCP is left over TLS."""
        runs = {
            name: [tls / tcp for tls, tcp in zip(each, found["TCP"][name], strict=True)]
            for name, each in found["TLS"].items()
            if name in found["TCP"]
        }
        what = "TLS / TCP, QoS 1, 16 in flight"
        self.table.add(what, "", runs, 2, ("ratio", ">=", 0.85))

    def run(self, workload, transport, absent, counts):
        """
        Return {contestant: the median of its turns}, or for round trips all times of them; and
        {contestant: median of the µs of processor time that a message took}, without those whose
        time nobody counts.

        counts  {contestant: messages a turn}, found out where it is not there
        """
        results, busy_us, spent_s = {}, {}, {}
        with (
            self.contestants(workload.name, transport, absent) as programs,
            Feeder(self.broker.ports["tcp"]) as feeder,
        ):
            place(self.broker, programs.values(), workload.cores)

            def play(name, count):
                before = usage(programs[name].pid)
                start = time.monotonic()
                programs[name].send(str(count))
                if workload.name == "receive":
                    feeder.flood(topic(name, transport), count)
                result = result_of(programs[name])
                programs[name].wait_for("^ready", WAIT_S)
                spent_s[name] = time.monotonic() - start + spent_s.get(name, 0)
                if before:
                    used_ms = usage(programs[name].pid)[0] - before[0]
                    busy_us.setdefault(name, []).append(used_ms * 1000 / count)
                return result

            for name in list(programs):
                try:
                    counts[name] = counts.get(name) or self.count(workload, name, play)
                    play(name, workload.least)
                except AssertionError:
                    absent[name] = f"failed: {last_words(programs.pop(name))}"
                    continue
                results[name] = []
                spent_s[name] = 0
                busy_us.pop(name, None)
            for turn in range(self.turns):
                for name in list(programs)[:: -1 if turn % 2 else 1]:
                    # one that is slow needs no nine turns
                    if spent_s[name] < self.turns * self.turn_ms / 1000:
                        results[name].append(play(name, counts[name]))
        busy_us = {name: statistics.median(each) for name, each in busy_us.items()}
        if workload.name == "round_trip":
            return {name: sum(each, []) for name, each in results.items()}, busy_us
        return {name: statistics.median(each) for name, each in results.items()}, busy_us

    def count(self, workload, name, play):
        """
        Return with how many messages a turn of `name` has the right length.

        A few do not tell: where a packet is several writes, the last one waits for 40 ms.
        """
        turn_s = self.turn_ms * workload.length / 1000
        count = workload.least
        while True:
            start = time.monotonic()
            play(name, count)
            took_s = time.monotonic() - start
            if took_s > turn_s:
                count = max(int(count * turn_s / took_s), workload.least)
            elif count < workload.most:
                count = min(count * 4, workload.most)
                continue
            return count - count % workload.least

    def memory(self):
        """Add what the contestants allocate."""
        for workload in MEMORY:
            with contextlib.ExitStack() as stack:
                feeder = stack.enter_context(Feeder(self.broker.ports["tcp"]))
                playing, found, absent = {}, {}, {}
                for transport in TRANSPORTS:
                    absent[transport] = {}
                    found[transport] = {}
                    programs = stack.enter_context(
                        self.contestants(workload.name, transport, absent[transport])
                    )
                    for name, program in programs.items():
                        playing[transport, name] = program
                slow = set()
                for _ in range(self.runs):
                    for player in playing.keys() - slow:
                        playing[player].send(str(workload.most))
                    if workload.name == "receive_memory":
                        feeder.drip([topic(name, of) for of, name in playing], workload.most)
                    start = time.monotonic()
                    for player in sorted(playing.keys() - slow):
                        transport, name = player
                        found[transport].setdefault(name, []).append(result_of(playing[player]))
                        if time.monotonic() - start > 1:  # it is the same every time
                            slow.add(player)
                for transport in TRANSPORTS:
                    what = f"{workload.what}, {transport}"
                    target = workload.targets.get(transport, ())
                    self.table.add(
                        what, workload.unit, found[transport], 0, target, absent[transport]
                    )

    def idle(self, seconds):
        """Add what the contestants do while nothing is to be done."""
        rows = {
            "CPU time": ("ms", 1, ()),
            "wake-ups": ("", 0, (OURS, "<=", 0)),
            "allocated": ("B", 0, (OURS, "<=", 0)),
        }
        found = {(row, of): {} for of in TRANSPORTS for row in rows}
        absent = {of: {} for of in TRANSPORTS}
        with contextlib.ExitStack() as stack:
            playing = {}
            for of in TRANSPORTS:
                programs = stack.enter_context(self.contestants("stay_idle", of, absent[of]))
                playing.update({(of, name): program for name, program in programs.items()})
            for program in playing.values():
                program.send(str(seconds + 2))
            time.sleep(1)
            before = {player: usage(program.pid) for player, program in playing.items()}
            time.sleep(seconds)
            after = {player: usage(program.pid) for player, program in playing.items()}
            for of, name in playing:
                for row, at in (("CPU time", 0), ("wake-ups", 1)):
                    if before[of, name] and after[of, name]:
                        used = after[of, name][at] - before[of, name][at]
                        found[row, of][name] = [used]
            for (of, name), program in playing.items():
                with contextlib.suppress(AssertionError):  # a blocking one tells nothing
                    found["allocated", of][name] = [result_of(program, 4)]
        for row, (unit, decimals, target) in rows.items():
            for of in TRANSPORTS:
                what = f"idle {seconds} s: {row}, {of}"
                runs = found[row, of]
                blocking = (
                    {}
                    if row != "allocated"
                    else {
                        name: "waits in a call that tells nothing"
                        for o, name in playing
                        if o == of and name not in runs
                    }
                )
                if OURS in runs:
                    self.table.add(what, unit, runs, decimals, target, {**absent[of], **blocking})

    def modules(self):
        """Return {contestant: names of the modules in use}, {contestant: why not}."""
        found, absent = {}, {"TCP": {}, "TLS": {}}
        for of in ("TLS", "TCP"):
            with self.contestants("modules", of, absent[of]) as programs:
                for name, program in programs.items():
                    if name not in found:
                        program.send("0")
                        found[name] = result_of(program)
        return found, absent["TCP"]


def topic(name, transport):
    """Return the topic of a contestant, of the same length for each."""
    number = [each.name for each in ALL].index(name) + 20 * (transport == "TLS")
    return f"topic/bench{number:02}"


def result_of(program, timeout_s=WAIT_S):
    """Return what a running program reports next."""
    return json.loads(program.wait_for("^result ", timeout_s).removeprefix("result "))


def last_words(program):
    """Return the last line that a program wrote."""
    program.kill()
    lines = [line for line in program.lines + program.errors if line.strip()]
    return lines[-1] if lines else "it says nothing"


def place(broker, programs, cores):
    """
    Pin the broker and the clients to one core, or to one for each. Left to itself the system
    puts them on one for one client and on two for another, which halves or doubles the speed of
    those that wait for each answer.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(broker.pid, cpus[:1])
        for program in programs:
            os.sched_setaffinity(program.pid, cpus[:1] if cores == 1 else cpus[-1:])


def usage(pid):
    """Return (ms on a processor, times asleep) of the process `pid`, None where nobody counts."""
    try:
        busy_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        status = Path(f"/proc/{pid}/status").read_text()
        return busy_ns / 1e6, int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status, re.M)[1])
    except (OSError, TypeError):
        return None


class Feeder:
    """A connection that publishes prepared packets as fast, or as slowly, as it likes."""

    def __init__(self, port):
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06feeder")
        assert self._socket.recv(4) == b"\x20\x02\0\0"
        threading.Thread(target=self._forget_acknowledgements, daemon=True).start()

    def _forget_acknowledgements(self):
        with contextlib.suppress(OSError):
            while self._socket.recv(4096):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @staticmethod
    def _packet(topic, qos):
        topic = topic.encode()
        body = bytes((0, len(topic))) + topic + (b"\0\1" if qos else b"") + PAYLOAD
        return bytes((0x30 | qos << 1, len(body))) + body

    def flood(self, topic, count):
        """Publish `count` messages with QoS 0 at once."""
        self._socket.sendall(self._packet(topic, 0) * count)

    def drip(self, topics, count):
        """Publish messages with QoS 1, each long after the one before it, until all had enough."""
        packets = b"".join(self._packet(topic, 1) for topic in topics)
        for _ in range(WARM_UP + count):
            self._socket.sendall(packets)
            time.sleep(0.005)
