"""
Runs cases of the matrix: one lane is a broker, a fault proxy, servers of names and of the time, an
observer, and one MicroPython process that lives a life for each case (tests/device/life.py).

The proxy (or the DNS server) holds everything at the moment of the case. Then the fault is placed,
and all is let go. What follows is up to the client; the driver undoes what does not heal by itself
when the client has noticed it, and answers the device's lines so that its life goes on.
"""

import contextlib
import json
import queue
import random
import resource
import socket
import threading
import time

from tests.faults import matrix
from tests.support import faketime, mpy, patience, pki, secure, udp
from tests.support.broker import HOST, Broker
from tests.support.proxy import Proxy
from tools import freeze

DEVICE = mpy.ROOT / "tests/device/life.py"
ELSEWHERE = "127.0.0.2"
FIRST_BYTES = {
    name: (i + 1) << 4
    for i, name in enumerate(
        "CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK".split()
        + "UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT".split()
    )
}

LONGEST_S = 30  # of a case, against hangs

# What is bounded in a case
TICKS = 3  # of 100 or so, that the device has while it waits for somebody who is silent
# Bytes of heap that it takes more after each of the last few cases than after any before them, on
# the same device. What looks like an address of it keeps a life of 10,000 bytes from being
# collected, now and then, and another one after a lack of memory; what leaks adds up.
HEAP = 20_000
FEW = 6
# What the device does to itself, and what it says when that is over
PLACED = {"memory": "memory is back", "interrupt": "interrupts are over"}
ENQUEUED = 10  # numbers from here on are those of interrupts
# while nothing is under way, the connection may live on
HARMLESS = ("dribble", "garbage", "oversized")
SILENT = ("stall-up", "stall-down", "drop", "link-down", "link-silent", "move")


class Missed(AssertionError):
    """The computer was so slow that the connection broke before its moment came."""


class Unable(Exception):
    """This computer cannot play the case; the text says why."""


def broker_identity(keys):
    """
    Return an Identity that is valid since yesterday, so that a clock can be before that and yet
    look set.
    """
    return keys.issue(
        "broker since yesterday", issuer=keys.ca, valid_from=pki.days(-1), names=("broker.lan",)
    )


class Device:
    """
    A program that lives lives.

    bits  int, 64 or 32 of its interpreter; env  dict, its environment

    news   Queue of (what, value): its lines, None when it has ended, and what is held
    files  int, how many it has open between two lives; heaps  list of int, bytes that it had after
           each; both are for the lane
    """

    FILES = 64  # that it may have

    def __init__(self, bits, env):
        options = {"heap": "4M", "env": env}
        if bits == 32:
            path = {"MICROPYPATH": f".frozen:{mpy.ROOT}", "TLS": env["TLS"]}
            options = {"heap": "700K", "env": path, "by": freeze.unix(32)}
        self._program = program = mpy.start(DEVICE, **options)
        self.send, self.report, self.kill = program.send, program.report, program.kill
        self.news = news = queue.Queue()
        self.files = None
        self.heaps = []
        program.wait_for("ready")
        with contextlib.suppress(AttributeError):  # not Linux
            most = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (self.FILES, most))

        def follow():
            try:
                while True:
                    news.put(("line", program.wait_for("", timeout_s=3600)))
            except AssertionError:
                news.put(("line", None))

        threading.Thread(target=follow, daemon=True).start()


class Names(udp.DNS):
    """A DNS server that can hold its answer."""

    held = None  # function that is called once, while it does

    def __init__(self):
        self._go = threading.Event()
        super().__init__({"broker.lan": HOST})

    def answer(self, data, fault):
        reached, self.held = self.held, None
        if reached:
            self._go.clear()
            reached()
            self._go.wait(patience.stretched(20))
            fault = self.fault
        return [] if fault == "silent" else super().answer(data, fault)

    def release(self):
        self._go.set()


class Lane:
    """
    directory  Path of an empty folder
    keys       tests.support.pki.PKI
    identity   the broker's: broker_identity(keys)

    `run(case)` plays one case; AssertionError says what is wrong, and all that led to it; Unable,
    that there is no libfaketime, or no second address of loopback.
    """

    def __init__(self, directory, keys, identity):
        directory.mkdir(parents=True, exist_ok=True)
        self._count = 0
        self._devices = {}  # by their bits
        self._device = self._peer = None
        self._broker = Broker(
            directory / "broker",
            *("tcp", "mtls"),
            pki=keys,
            identity=identity,
            persistence=True,
            lines=["set_tcp_nodelay true"],
        )
        self._proxy = Proxy(self._broker.port, holds_records=True)
        self._dns = Names()
        self._sntp = udp.SNTP()
        self._clock = None
        self._unable = {}  # fault: why
        try:
            self._clock = faketime.Clock(directory, "2030-06-01")
            self._clock.set(None)
        except faketime.Unavailable as reason:
            clocks = [each for each in matrix.FAULTS if each.startswith("clock")]
            self._unable.update(dict.fromkeys(clocks, reason))
        try:
            socket.create_server((ELSEWHERE, 0)).close()
        except OSError as reason:
            self._unable["move"] = f"loopback has no address {ELSEWHERE}: {reason}"
        if not hasattr(resource, "prlimit"):
            self._unable["sockets-full"] = "the files of a program can be limited on Linux only"
        arguments = secure.files(keys.ca, keys.device, ntp=(self._sntp.host, self._sntp.port))
        self._env = {
            "TLS": json.dumps(arguments),
            **(self._clock.environment if self._clock else {}),
        }

    def close(self):
        for device in self._devices.values():
            device.kill()
        self._proxy.close()
        self._dns.release()
        self._dns.close()
        self._sntp.close()
        if self._peer:
            self._peer.close()
        self._broker.close()

    def _start_device(self):
        bits = 32 if self.case.fault == "fragmented" else 64
        self._device = self._devices.get(bits)
        if not self._device:
            try:
                self._device = self._devices[bits] = Device(bits, self._env)
            except freeze.Unavailable as reason:
                raise Unable(str(reason)) from reason

    def _end_device(self):
        for bits, device in list(self._devices.items()):
            if device is self._device:
                device.kill()
                del self._devices[bits]

    # A case

    def run(self, case):
        """Play `case` (matrix.Case) and check what came of it; return the device's report."""
        if case.fault in self._unable:
            raise Unable(self._unable[case.fault])
        for left in (2, 1, 0):
            try:
                return self._run(case)
            except Missed:
                if not left:
                    raise
        return None

    def _run(self, case):
        self.case = case
        self._count += 1
        self._lines = []
        over = False
        try:
            self._start_device()
            self._prepare()
            report = self._live()
            over = True
            self._undo()
            self._check(report)
            return report
        except (AssertionError, OSError, RuntimeError) as e:
            lines = self._lines
            if len(lines) > 80:
                lines = [*lines[:40], "…", *lines[-40:]]
            packets = map(repr, self._proxy.packets[-60:])
            told = "\n".join([f"{matrix.name(case)}: {e}", *lines, *packets])
            if not over:
                self._end_device()
                with contextlib.suppress(OSError, RuntimeError):
                    self._undo()
            raise (Missed if isinstance(e, Missed) else AssertionError)(told) from e

    def _undo(self):
        """Have everything as it was."""
        self._dns.release()
        self._dns.fault = self._dns.held = None
        self._dns.faults = None
        self._dns.table["broker.lan"] = HOST
        self._proxy.heal()
        if self._proxy.host != HOST:
            self._proxy.move(HOST)
        self._proxy.rst()
        if self._clock:
            self._clock.set(None)
        if not self._broker.running:
            self._broker.start()

    def _prepare(self):
        case = self.case
        self._id = f"d{self._count}"
        self._deadline = time.monotonic() + patience.stretched(LONGEST_S)
        self._proxy.packets.clear()
        self._proxy.target = (
            HOST,
            self._broker.ports["mtls" if case.transport == "tls" else "tcp"],
        )
        self._then = {}  # begin of a line of the device: what to do then, once
        self._seen = []
        self._required = [set(), set(), set()]  # numbers that must come to the device, by QoS
        self._optional = [set(), set(), set()]
        self._got = [set(), set(), set()]
        self._next = 0  # number
        self._waits = None  # the word that the device waits for until it has what is required
        self._struck = self._silent = self._armed = False
        if not self._peer:
            self._observe()

    def _observe(self):
        self._peer = self._broker.peer("up/#", qos=2)

    def _spec(self):
        case, moment = self.case, matrix.MOMENTS.get(self.case.moment)
        spec = {
            "id": self._id,
            "port": self._proxy.port,
            "protocol": case.protocol,
            "tls": case.transport == "tls",
            "dns": [self._dns.host, self._dns.port],
            "resumed": self._resumed(),
            "idle": case.moment in ("idle", "pingreq", "pingresp"),
        }
        if case.fault in PLACED:
            after = case.side == "after"
            if case.moment in ("dns", "tcp", "idle"):
                place = [case.moment, 1, False]
            elif case.moment in ("connect", "tls-client-hello"):
                place = ["hello", 1, after]
            else:
                first = FIRST_BYTES[moment.name] | (0x100 if moment.way == "down" else 0)
                place = [first, moment.number, after]
            spec[case.fault] = place
        return spec

    def _resumed(self):
        """
        Whether the fault hits a second connection: mosquitto 2.0.11 does not save a session of
        MQTT 5 that began with the connection which is open when it stops.
        """
        case = self.case
        stateful = case.moment in STATEFUL or case.moment in LATE
        return case.fault == "restart" and case.protocol == 5 and stateful

    def _arm(self):
        """Have everything held at the moment of the case."""
        case = self.case
        moment = matrix.MOMENTS[case.moment]
        tls = case.transport == "tls"
        number = moment.tls_number - self._resumed() if tls else moment.number
        name = moment.tls_name if tls else moment.name
        connection = self._proxy.connections + 1 if case.moment not in LATE else None

        def match(unit):
            return (
                unit.direction == moment.way
                and unit.name == name
                and (unit.number == number or connection is None)
                and unit.connection in (connection or unit.connection,)
            )

        news = self._device.news
        self._armed = True
        self._proxy.hold(match, lambda unit: news.put(("held", unit)), after=case.side == "after")

    def _live(self):
        case = self.case
        if case.fault in PLACED:
            pass  # the device places it itself
        elif case.moment == "dns":
            self._dns.held = lambda: self._device.news.put(("held", None))
        elif case.moment == "tcp" and case.fault in ("rst", "stall-up"):
            # no packet of the connection passes: it has to be there before
            self._struck = True
            self._proxy.refuse() if case.fault == "rst" else self._proxy.blackhole()
            self._then["lost"] = self._proxy.heal
        elif case.moment not in LATE and not self._resumed():
            self._arm()
        self._device.send(json.dumps(self._spec()))
        report = None
        while not report or self._armed:
            what, value = self._event()
            if what == "held":
                self._armed = False
                self._strike(value)
            elif value.startswith('{"'):
                report = json.loads(value)
            else:
                self._answer(value)
        return report

    def _event(self):
        try:
            left_s = self._deadline - time.monotonic()
            what, value = self._device.news.get(timeout=max(0.01, left_s))
        except queue.Empty:
            raise AssertionError("not over in time") from None
        assert left_s > 0, "not over in time"
        if what == "line":
            assert value is not None, f"the device ended\n{self._device.report()[-3000:]}"
        self._lines.append(f"{what} {value}")
        return what, value

    def _answer(self, line):
        word, *rest = line.split() or [""]
        if word == "got":
            qos, number = map(int, rest)
            self._got[qos].add(number)
            self._go_on()
        elif word == "in":
            self._publish(0, 1, 1, 2)
            self._wait("next")
        elif word == "again":
            self._publish(1, 2)
            self._wait("last")
        elif word == "break":
            if self.case.moment not in LATE:
                self._arm()
            self._proxy.rst()
        elif word == "idle":
            self._idle()
        elif word == "leaving":
            if self.case.moment == "disconnect" and self.case.fault not in PLACED:
                self._arm()
            else:
                if not self._struck and self.case.fault not in PLACED:
                    raise Missed("no fault was placed")
                self._proxy.heal()
            self._device.send("leave")
        for begin in list(self._then):
            if line.startswith(begin):
                self._then.pop(begin)()

    def _publish(self, *qos):
        for each in qos:
            self._next += 1
            self._required[each].add(self._next)
            payload = bytes([self._next]) + bytes(20)
            self._peer.publish(f"down/{self._id}/{each}", payload, qos=each)

    def _wait(self, word):
        """Send `word` when the device has got what it must."""
        self._waits = word
        self._go_on()

    def _go_on(self):
        missing = any(self._required[qos] - self._got[qos] for qos in (1, 2))
        if self._waits and not missing:
            self._device.send(self._waits)
            self._waits = None

    def _idle(self):
        fault = self.case.fault
        if fault in PLACED:
            self._then[PLACED[fault]] = self._on
        elif fault not in HARMLESS:
            self._then["connected"] = self._on
        if fault in PLACED:
            pass
        elif self.case.moment == "idle":
            self._proxy.freeze()
            self._strike(None)
        else:
            self._arm()

    def _on(self):
        self._device.send("on")

    # Faults, while everything is held

    def _strike(self, unit):
        self._struck = True
        fault = self.case.fault
        if self.case.side == "after":  # what was passed is to arrive, and not to be overtaken
            self._settle()
        if self.case.moment == "disconnect":
            pass  # the device has gone, or is about to
        elif self.case.side == "after" or fault in SILENT:
            self._tell("turn")
        self._silent = fault in SILENT
        if fault.startswith("clock"):
            self._jump()
        else:
            getattr(self, "_" + fault.replace("-", "_"))(unit)
        if fault in HARMLESS and self.case.moment in ("idle", "pingreq", "pingresp"):
            self._on()

    def _tell(self, word):
        """Have the device do `word`, and return when it has."""
        self._device.send(word)
        while self.case.moment != "disconnect":
            what, value = self._event()
            if value == f"did {word}":
                return
            self._answer(value)

    def _let_go(self, *stalled, instead=None):
        self._proxy.release(*stalled, instead=instead)
        self._dns.release()

    def _heal(self):
        self._dns.fault = None
        self._proxy.heal()

    def _stall(self, way):
        self._then["lost"] = self._heal
        if self.case.moment == "dns":
            self._dns.fault = "silent"
        self._let_go(way)

    def _stall_up(self, unit):
        self._stall("up")

    def _stall_down(self, unit):
        self._stall("down")

    def _rst(self, unit):
        self._proxy.rst()
        self._let_go()

    def _fin(self, unit):
        self._proxy.fin()
        self._let_go()

    def _drop(self, unit):
        self._proxy.lose()
        if self.case.moment == "dns":
            self._dns.fault, self._dns.faults = "silent", 0
        self._let_go()

    def _dribble(self, unit):
        self._proxy.dribble()
        self._let_go()

    def _oversized(self, unit):
        self._peer.publish(f"down/{self._id}/1", bytes(6000), qos=1, retain=True)
        self._let_go()

    def _sockets_full(self, unit):
        self._tell("take sockets")
        self._said = said = f"# mqtt broker.lan:{self._proxy.port}: not connected: all "
        self._then[said] = lambda: (self._heal(), self._device.send("free sockets"))
        if self.case.moment == "dns":
            self._dns.fault = "silent"  # or its socket is that of TCP
        self._lose()

    def _fragmented(self, unit):
        self._tell("shatter")
        then = self._then.get("connected")
        self._then["connected"] = lambda: (self._device.send("gather"), then and then())
        self._lose()

    def _lose(self):
        """The connection is over."""
        if self.case.moment != "dns":
            self._proxy.rst()
        self._let_go()

    def _garbage(self, unit):
        if self.case.moment == "dns":
            self._dns.fault, self._dns.faults = "garbage", 0
            self._let_go()
            return
        chance = random.Random(matrix.name(self.case))
        if unit.raw and self.case.transport == "tls":
            raw = bytearray(unit.raw)
            raw[chance.randrange(5, len(raw))] ^= 1 << chance.randrange(8)
        else:
            raw = chance.randbytes(chance.randrange(1, 60))
        self._let_go(instead=bytes(raw))

    def _link_down(self, unit):
        self._tell("link down")
        self._proxy.lose()
        self._proxy.refuse()

        def back():
            self._heal()
            self._device.send("link up")

        self._then["link wanted"] = back
        if self.case.moment == "dns":
            self._dns.fault = "silent"
        self._let_go()

    def _link_silent(self, unit):
        self._tell("reset soon")
        self._proxy.lose()
        self._proxy.blackhole()
        self._then["link reset"] = self._heal
        if self.case.moment == "dns":
            self._dns.fault = "silent"
        self._let_go()

    def _restart(self, unit, wipe=False):
        # the observer must not lose anything by it
        self._settle()
        self._peer.close()
        if wipe:
            self._broker.kill()
            self._broker.wipe()
        else:
            self._broker.stop()
        self._broker.start()
        self._observe()
        self._let_go()

    def _wipe(self, unit):
        def once_more():
            """What the broker has forgotten on its way to the device may be lost."""
            lost = []
            for qos, (required, got) in enumerate(zip(self._required, self._got, strict=True)):
                lost += [qos for _ in required - got]
                self._optional[qos] |= required - got
                required &= got
            self._publish(*lost)
            self._go_on()

        then = self._then.get("connected")
        self._then["connected"] = lambda: (once_more(), then and then())
        self._restart(unit, wipe=True)

    def _jump(self):
        self._clock.set(
            {
                "clock-forward": "2046-11-23T12:00:00",
                "clock-back": pki.days(-3).replace(tzinfo=None).isoformat(),
                "clock-unset": "2021-01-01T00:00:05",
            }[self.case.fault]
        )
        if self.case.moment not in ("dns", "tcp"):
            self._proxy.rst()
        self._let_go()

    def _move(self, unit):
        self._dns.table["broker.lan"] = ELSEWHERE
        self._proxy.lose()
        self._proxy.move(ELSEWHERE)
        self._let_go()

    # What came of it

    def _settle(self):
        """Return when the observer has all that the broker has; keep it."""
        self._peer.publish("up/marker", b"", qos=2)  # paho tells of QoS 2 when it is released
        self._peer.wait_for(1, topic="up/marker")
        messages = list(self._peer.messages)
        self._peer.messages.clear()
        self._seen += [(each.topic, each.payload[0]) for each in messages if each.payload]

    def _check(self, report):
        case = self.case
        if case.fault in PLACED and f"line {PLACED[case.fault]}" not in self._lines:
            raise Missed("it never came")
        self._settle()
        if case.fault == "interrupt":
            self._check_enqueued(report)
        if case.fault == "sockets-full":
            assert "line link reset" not in self._lines, "the link was reset for it"
            if not [line for line in self._lines if line.startswith(f"line {self._said}")]:
                raise Missed("sockets were enough")
        if case.fault == "oversized":
            got = report["oversized"], report["connects"]
            assert got == (1, 1), f"{got[0]} messages were passed over, {got[1]} connections"
        for qos, count in ((0, 2), (1, 3), (2, 3)):
            for number in range(1, count + 1):
                fate = report["fate"].get(f"{qos} {number}", "forgotten")
                seen = self._seen.count((f"up/{self._id}/{qos}", number))
                what = f"QoS {qos} number {number}, {fate}, was seen {seen} times at the broker"
                assert seen < 2 or qos == 1, what
                assert seen or fate != "delivered" or qos == 0, what
                assert fate == "delivered" or case.fault in ("wipe", "memory"), what
        for qos in range(3):
            got = report["got"][qos]
            sent = self._required[qos] | self._optional[qos]
            for number in sent:
                what = f"QoS {qos} number {number} came {got.count(number)} times"
                assert got.count(number) < 2 or qos == 1, what
                assert number in got or qos == 0 or number in self._optional[qos], what
            assert sent >= set(got), f"QoS {qos}: {set(got) - sent} came and were not sent"
        # asyncio's own tasks, of wait_for, end so without memory
        assert not report["failed"] or case.fault == "memory", (
            f"{report['failed']} tasks ended with an exception"
        )
        # those of the app are, when disconnect() raised for want of memory
        left = 4 if "line stopped without memory" in self._lines else 0
        assert report["tasks"] <= left, f"{report['tasks']} tasks are left: {report['left']}"
        device = self._device
        if device.files is None:
            device.files = report["files"]
        assert report["files"] == device.files, f"{report['files']} files, not {device.files}"
        heaps = device.heaps
        heaps.append(report["heap"])
        grown = min(heaps[-FEW:]) - min(heaps)
        assert grown < HEAP, f"the heap grew by {grown} bytes over {len(heaps)} cases"
        assert not report["held"], f"{report['held']} words are held for a next connection"
        if report["tasks"]:
            self._end_device()
        lines = self._lines
        if "line did turn" in lines:  # a slow computer may have lost connections before
            lines = lines[lines.index("line did turn") :]
        lost = [line.split()[-1] for line in lines if line.startswith("line lost after")]
        if self._silent and lost:
            assert int(lost[0]) >= TICKS, f"other tasks had {lost[0]} turns while all was silent"
        assert report["ticks"] > 0

    def _check_enqueued(self, report):
        """What interrupts enqueued arrives once, on the connection that there is."""
        wanted = sorted(key for key in report["fate"] if int(key.split()[1]) >= ENQUEUED)
        assert len(wanted) == 6, f"enqueued: {wanted}"
        for key in wanted:
            qos, number = key.split()
            seen = self._seen.count((f"up/{self._id}/{qos}", int(number)))
            assert seen == 1, f"QoS {qos} number {number}, enqueued, was seen {seen} times"
        assert report["connects"] == 1, f"{report['connects']} connections"


# Moments that are armed when they are near, and those where there is something to resume
LATE = ("idle", "pingreq", "pingresp", "disconnect")
STATEFUL = [each for each in matrix.MOMENTS if each.startswith("pub")]
