"""
A TCP proxy that breaks connections on purpose, in ways that can be changed while it runs.

"up" is from the client to the broker, "down" the way back. What runs over plain TCP and begins
with an MQTT CONNECT is taken apart into packets, which are recorded and can be swallowed or kill
the connection; everything else (TLS) is passed as bytes, and only the byte-wise faults work. But
`hold` knows the records of TLS, too: what is in them it cannot see, only kind, size and order.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time

from . import patience
from .elsewhere import free_port, give_back

HOST = "127.0.0.1"
_NAMES = """
    RESERVED CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP
    SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH
""".split()
_WAYS = ("up", "down")
_RECORDS = {20: "ccs", 21: "alert", 22: "handshake", 23: "data"}
_SHORT = 26  # bytes of a record with 2 bytes in it: AES-GCM adds 8 and 16


class Record:
    """
    A TLS record that came by.

    direction, connection  as those of Packet
    name    "handshake", "ccs", "alert", "data"; "short" is data of no more than 2 bytes. "TCP" is
            no record but the connection itself, just accepted
    number  it is the how many-th of its name, direction and connection, from 1
    raw     bytes: all of it
    """

    def __init__(self, direction, connection, raw, name=None):
        self.direction = direction
        self.connection = connection
        self.name = name or _RECORDS.get(raw[0], "unknown")
        if self.name == "data" and len(raw) - 5 <= _SHORT:
            self.name = "short"
        self.raw = raw

    def __repr__(self):
        return f"<{self.direction} {self.connection} {self.name} {self.number}>"


class Packet:
    """
    An MQTT packet that came by.

    direction   "up" or "down"
    connection  number of its connection, from 1
    name        "PUBLISH", "PUBACK", …
    number      it is the how many-th of its name, direction and connection, from 1
    raw, body   bytes: all of it, and what follows the Remaining Length
    at          time.monotonic() of its arrival at the proxy
    passed      False while it was not forwarded (swallowed, stalled, or the connection killed)
    """

    def __init__(self, direction, connection, raw, start):
        self.direction = direction
        self.connection = connection
        self.name = _NAMES[raw[0] >> 4]
        self.raw = raw
        self.body = raw[start:]
        self.at = time.monotonic()
        self.passed = False

    def __repr__(self):
        label = f"<{self.direction} {self.connection} {self.name}"
        if self.name == "PUBLISH":
            label += f" {self.topic} qos={self.qos} dup={self.dup}"
        if self.packet_id:
            label += f" id={self.packet_id}"
        return label + ("" if self.passed else " not passed") + ">"

    @property
    def dup(self):
        return bool(self.raw[0] & 8)

    @property
    def qos(self):
        return self.raw[0] >> 1 & 3

    @property
    def retain(self):
        return bool(self.raw[0] & 1)

    @property
    def topic(self):
        """Of a PUBLISH (str)."""
        return self.body[2 : self._topic_end()].decode()

    def _topic_end(self):
        return 2 + int.from_bytes(self.body[:2], "big")

    @property
    def packet_id(self):
        """0 where the packet has none."""
        if self.name == "PUBLISH":
            at = self._topic_end() if self.qos else None
        else:
            at = None if self.name in ("CONNECT", "CONNACK") or not self.body else 0
        return 0 if at is None else int.from_bytes(self.body[at : at + 2], "big")

    @property
    def payload(self):
        """Of a PUBLISH of MQTT 3.1.1 (bytes)."""
        return self.body[self._topic_end() + (2 if self.qos else 0) :]


class _Splitter:
    """Cut a stream into MQTT packets. `feed` returns [(bytes, offset of the body or None)]."""

    def __init__(self):
        self._kept = b""
        self.broken = False  # not MQTT (any more): all is passed as it comes

    def feed(self, data):
        if self.broken:
            return [(data, None)]
        data = self._kept + data
        pieces = []
        while len(data) > 1:
            length = shift = 0
            at = 1
            while at < len(data) and at <= 4:
                length |= (data[at] & 127) << shift
                shift += 7
                at += 1
                if data[at - 1] < 128:
                    break
            else:
                if at == 5:
                    self.broken = True
                    self._kept = b""
                    return [*pieces, (data, None)]
                break
            if len(data) < at + length:
                break
            pieces.append((data[: at + length], at))
            data = data[at + length :]
        self._kept = data
        return pieces


class _Records:
    """Cut a stream into TLS records. `feed` returns a list of bytes."""

    def __init__(self):
        self._kept = b""

    def feed(self, data):
        data = self._kept + data
        pieces = []
        while len(data) >= 5 and len(data) >= 5 + int.from_bytes(data[3:5], "big"):
            end = 5 + int.from_bytes(data[3:5], "big")
            pieces.append(data[:end])
            data = data[end:]
        self._kept = data
        return pieces


class _Rule:
    """A fault that strikes a number of times; `times` None is always."""

    def __init__(self, times, **what):
        self.times = times
        self.__dict__.update(what)

    def strikes(self):
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class _Killed(Exception):
    """The connection is to end now."""


class _Connection:
    """One client, its connection to the broker, and two tasks that pump between them."""

    def __init__(self, proxy, number, client):
        self.proxy = proxy
        self.number = number
        self.writers = {"down": client[1]}
        # asked for now: TLS that has ended has none any more
        self.sockets = {"down": client[1].get_extra_info("socket")}
        self.readers = {"up": client[0]}
        self.sent = {"up": 0, "down": 0}
        self.counts = {}
        self.mqtt = self.tls = None  # not known yet
        self.frozen = self.lost = False

    async def run(self):
        instead = await self.meet(Record("up", self.number, b"", "TCP"))
        if instead:
            self.writers["down"].write(instead)
        host, port = self.proxy.target
        try:
            to_broker = self.proxy.tls and {"ssl": self.proxy.tls[1], "server_hostname": HOST}
            reader, writer = await asyncio.open_connection(host, port, **(to_broker or {}))
            self.readers["down"], self.writers["up"] = reader, writer
            self.sockets["up"] = writer.get_extra_info("socket")
            for each in self.sockets.values():  # the client's may have been reset meanwhile
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            self.end("rst")
            return
        pumps = [asyncio.ensure_future(self.pump(way)) for way in _WAYS]
        try:
            await asyncio.gather(*pumps)
        except (OSError, _Killed):
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            self.end("fin")

    async def pump(self, way):
        """Forward one way until its source ends, then pass on the FIN."""
        splitter = _Splitter()
        records = _Records()
        while True:
            data = await self.readers[way].read(65536)
            if not data:
                break
            if self.mqtt is None:
                self.mqtt = self.proxy.takes_apart and way == "up" and data[0] == 0x10
                self.tls = self.proxy.holds_records and data[0] == 0x16
            if self.tls:
                for raw in records.feed(data):
                    await self.forward_record(way, Record(way, self.number, raw))
                continue
            if not self.mqtt:
                await self.forward(way, data)
                continue
            for raw, body in splitter.feed(data):
                if body is None:
                    await self.forward(way, raw)
                else:
                    await self.forward_packet(way, Packet(way, self.number, raw, body))
        await self.proxy.gate(way)
        if not self.lost:
            with contextlib.suppress(OSError):
                if self.writers[way].can_write_eof():
                    self.writers[way].write_eof()
                else:  # TLS ends both ways
                    self.writers[way].close()

    async def meet(self, unit, after=False):
        """Stay here while the proxy holds `unit`; return what to pass in its place, or None."""
        if not after:
            key = unit.direction, unit.name
            unit.number = self.counts[key] = self.counts.get(key, 0) + 1
        return await self.proxy.meet(unit, after)

    async def forward_record(self, way, record):
        instead = await self.meet(record)
        await self.forward(way, record.raw if instead is None else instead)
        await self.meet(record, after=True)

    async def forward_packet(self, way, packet):
        proxy = self.proxy
        await proxy.record(packet)
        instead = await self.meet(packet)
        if instead is not None:
            await self.forward(way, instead)
            return
        if proxy.strikes(proxy.swallowed, packet):
            return
        if rule := proxy.strikes(proxy.killers, packet, after=False):
            await self.kill(rule.how)
        await self.forward(way, packet.raw, packet)
        if rule := proxy.strikes(proxy.killers, packet, after=True):
            await self.kill(rule.how)
        await self.meet(packet, after=True)

    async def forward(self, way, data, packet=None):
        """Write `data`, with the faults that work on bytes."""
        proxy = self.proxy
        if proxy.delay_s:
            await asyncio.sleep(proxy.delay_s)
        await proxy.gate(way)
        while self.frozen:  # the other pump is about to end the connection
            await asyncio.sleep(1)
        if self.lost:
            return
        cut = proxy.cuts.get(way)
        left = -1 if cut is None else cut.after - self.sent[way]
        cuts = 0 <= left <= len(data) and cut.strikes()
        if cuts:
            data = data[:left]
        elif packet:
            packet.passed = True
        step = 1 if proxy.dribble_s is not None else max(1, len(data))
        for at in range(0, len(data), step):
            self.writers[way].write(data[at : at + step])
            await self.writers[way].drain()
            if proxy.dribble_s is not None:
                await asyncio.sleep(proxy.dribble_s)
        self.sent[way] += len(data)
        proxy.bytes[way] += len(data)
        if cuts:
            await self.kill(cut.how)

    async def kill(self, how):
        """End it, once what was forwarded has arrived; meanwhile nothing passes any more."""
        self.frozen = True
        await asyncio.sleep(0.05)  # a reset may overtake data
        self.end(how)
        raise _Killed

    def end(self, how):
        """Close both sides: "rst" resets them, "fin" ends them in an orderly way."""
        self.frozen = True
        for way, writer in self.writers.items():
            if how == "rst":
                with contextlib.suppress(OSError):
                    self.sockets[way].setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """
    A proxy on a port of its own, which stays the same. Use it in a `with`, or as a fixture.

    port         of the broker on loopback; `target` (host, port) may be changed later, for
                 connections to come
    takes_apart  False: pass bytes as they come and record no packets, so that a stall leaves a
                 packet half sent (else a packet is taken in whole first)
    holds_records  True: take TLS apart into records, for `hold`
    tls          (ssl.SSLContext of a server, of a client): it speaks TLS both ways, each on its
                 own, so that packets in TLS are taken apart, too

    Every method may be called at any time from the test's thread, and works at once on the
    connections that there are and on those to come. `heal()` takes all faults back.

    port         int, to connect to
    connections  int, how many were accepted so far
    open         int, how many are open now
    packets      list of Packet, both ways, in order of arrival
    bytes        {"up": int, "down": int}, forwarded so far
    """

    def __init__(self, port, takes_apart=True, holds_records=False, tls=None):
        self.host = HOST
        self.tls = tls
        self.takes_apart = takes_apart
        self.holds_records = holds_records
        self.target = (HOST, port)
        self.connections = 0
        self.packets = []
        self._changed = threading.Condition()
        self._live = set()
        self._server = self._fillers = self._released = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(self._begin)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Used by the connections

    async def gate(self, way):
        await self._gates[way].wait()

    async def meet(self, unit, after):
        hold = self._hold
        if not hold or hold.after != after or not hold.match(unit):
            return None
        self._hold = None
        for gate in self._gates.values():
            gate.clear()
        self._released = asyncio.Event()
        self._instead = None
        hold.reached(unit)
        await self._released.wait()
        return self._instead

    async def record(self, packet):
        with self._changed:
            self.packets.append(packet)
            self._changed.notify_all()

    @staticmethod
    def strikes(rules, packet, **also):
        """Return the first of `rules` that is meant for `packet` and strikes now, or None."""
        for rule in rules:
            if (
                rule.name == packet.name
                and rule.direction in (None, packet.direction)
                and all(getattr(rule, key) == value for key, value in also.items())
                and rule.strikes()
            ):
                return rule
        return None

    # The thread

    def _call(self, work, *args):
        """Run the coroutine function `work` in the proxy's thread; return what it returns."""
        return asyncio.run_coroutine_threadsafe(work(*args), self._loop).result(
            patience.stretched(10)
        )

    async def _begin(self):
        self._gates = {way: asyncio.Event() for way in _WAYS}
        self.bytes = {"up": 0, "down": 0}
        self._no_faults()
        self.port = free_port()
        await self._listen()

    def _no_faults(self):
        for gate in self._gates.values():
            gate.set()
        self.swallowed, self.killers, self.cuts = [], [], {}
        self._hold = None
        if self._released:
            self._released.set()
        self.delay_s, self.dribble_s = 0, None

    async def _listen(self):
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, sock=await self._bound(), ssl=self.tls and self.tls[0]
            )

    async def _bound(self):
        """
        Return a socket with our port. A process that another thread is just starting has a copy of
        the last one that listened, until its exec.
        """
        end = time.monotonic() + patience.stretched(5)
        while True:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((self.host, self.port))
                return sock
            except OSError:
                sock.close()
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.02)

    async def _unlisten(self):
        for each in self._fillers or ():
            each.close()
        self._fillers = None
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accept(self, *client):
        with self._changed:
            self.connections += 1
            self._changed.notify_all()
        connection = _Connection(self, self.connections, client)
        connection.task = asyncio.current_task()
        self._live.add(connection)
        try:
            await connection.run()
        except asyncio.CancelledError:
            pass  # ended from outside; asyncio would report it as an error
        finally:
            self._live.discard(connection)

    # Faults

    def heal(self):
        """Take every fault back: what was stalled flows on, the port listens again."""

        async def work():
            self._no_faults()
            if self._fillers:
                await self._unlisten()
            await self._listen()

        self._call(work)

    def stall(self, *ways):
        """
        Keep the connections open but forward nothing, either way or only "up" or "down". What
        comes meanwhile waits in the kernel's buffers until `heal`: for what the client sends they
        take about 5 MB.
        """

        async def work():
            for way in ways or _WAYS:
                self._gates[way].clear()
            for each in self._live:  # else they would grow up to 40 MB
                with contextlib.suppress(OSError):
                    each.sockets["down"].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        self._call(work)

    def stall_up(self):
        """Let nothing through from the client to the broker."""
        self.stall("up")

    def stall_down(self):
        """Let nothing through from the broker to the client."""
        self.stall("down")

    def _end_all(self, how):
        async def work():
            for connection in list(self._live):
                connection.end(how)
                connection.task.cancel()  # it may wait for a stall to end

        self._call(work)

    def rst(self):
        """Reset all connections that are open now; new ones are welcome."""
        self._end_all("rst")

    def fin(self):
        """Close all connections that are open now in an orderly way; new ones are welcome."""
        self._end_all("fin")

    def refuse(self):
        """Refuse new connections (ECONNREFUSED); those that are open stay."""
        self._call(self._unlisten)

    def blackhole(self):
        """Leave new connections without an answer to their SYN; those that are open stay."""

        async def work():
            await self._unlisten()
            listener = await self._bound()
            listener.listen(1)
            self._fillers = [listener]
            for _ in range(8):  # fill its queue until the kernel answers no more
                filler = socket.socket()
                self._fillers.append(filler)
                filler.settimeout(0.2)
                try:
                    filler.connect((self.host, self.port))
                except TimeoutError:
                    return
            raise RuntimeError("this system answers connections beyond the listener's backlog")

        self._call(work)

    def lose(self):
        """
        Lose the connections that are open now, as a router does that forgets them: what is sent
        on them vanishes, both ways, and neither end is told. New ones are welcome.
        """

        async def work():
            for each in self._live:
                each.lost = True

        self._call(work)

    def inject(self, way, data):
        """Send `data` (bytes) on the connections that are open now, between two packets."""

        async def work():
            for each in self._live:
                each.writers[way].write(data)

        self._call(work)

    def move(self, host):
        """Listen on another address of loopback, no longer on the old one."""

        async def work():
            await self._unlisten()
            self.host = host
            await self._listen()

        self._call(work)

    def hold(self, match, reached, after=False):
        """
        Hold everything, both ways, as soon as a packet or record comes by for which
        `match(packet)` is true; once. `release` or `heal` end it, and any other method may be
        called meanwhile.

        match    function of a Packet, or of a Record
        reached  function of it, called then in the proxy's thread: it must not wait
        after    False: before it is passed on; True: when it was, but nothing that follows
        """
        self._hold = _Rule(1, match=match, reached=reached, after=after)

    def freeze(self):
        """Hold everything now, whatever comes."""
        self.stall()

    def release(self, *stalled, instead=None):
        """
        Let what is held go on, but keep the ways in `stalled` ("up", "down") stalled.

        instead  bytes to be passed on in the place of the packet or record that was held; of a
                 connection just accepted: to be sent to the client first
        """

        async def work():
            for way, gate in self._gates.items():
                if way not in stalled:
                    gate.set()
            self._instead = instead
            if self._released:
                self._released.set()

        self._call(work)

    def cut(self, after, direction="up", times=1, how="rst"):
        """
        End a connection when `after` bytes of it passed in `direction`, from its start on. One
        that is beyond that already is left alone.

        times  how many connections it happens to; None is every one
        how    "rst" or "fin"
        """
        self.cuts = {**self.cuts, direction: _Rule(times, after=after, how=how)}

    def delay(self, ms):
        """Hold each piece back for `ms` milliseconds, both ways; 0 ends that."""
        self.delay_s = ms / 1000

    def dribble(self, pause_ms=0):
        """Pass single bytes, each a segment of its own, with `pause_ms` after each."""
        self.dribble_s = pause_ms / 1000

    def swallow(self, name, direction=None, times=None):
        """
        Drop MQTT packets of the type `name` ("PUBACK", …), `times` of them or all; one direction
        ("up", "down") or both.
        """
        self.swallowed = [*self.swallowed, _Rule(times, name=name, direction=direction)]

    def kill_on(self, name, direction=None, after=False, times=1, how="rst"):
        """
        End the connection when an MQTT packet of the type `name` comes by.

        after  False: before it is forwarded; True: when it has arrived, but nothing that follows
        times  how many times; None is always
        how    "rst" or "fin"
        """
        rule = _Rule(times, name=name, direction=direction, after=after, how=how)
        self.killers = [*self.killers, rule]

    # What happened

    @property
    def open(self):
        return len(self._live)

    def seen(self, name=None, direction=None, connection=None):
        """
        Return the packets (list) of that type, direction and connection number, among them all
        that were sent by now.
        """
        self._catch_up()
        return self._recorded(name, direction, connection)

    def _catch_up(self):
        """Return when what has come to its sockets was looked at, on a slow computer too."""

        async def work():
            for _ in range(50):  # each looks at the sockets, and lets the pumps go on
                await asyncio.sleep(0)

        if self._loop.is_running() and threading.current_thread() is not self._thread:
            self._call(work)

    def _recorded(self, name=None, direction=None, connection=None):
        return [
            each
            for each in list(self.packets)
            if name in (None, each.name)
            and direction in (None, each.direction)
            and connection in (None, each.connection)
        ]

    def wait_for(self, name, direction=None, count=1, timeout_s=20):
        """
        Return the packets (list) of type `name` when at least `count` of them came by.

        Raises AssertionError with the last packets that did.
        """
        return self._wait(lambda: self._recorded(name, direction), count, timeout_s, name)

    def wait_for_connections(self, count, timeout_s=20):
        """Return when at least `count` connections were accepted since construction."""
        self._wait(lambda: range(self.connections), count, timeout_s, "connections")

    def _wait(self, found, count, timeout_s, what):
        with self._changed:
            limit_s = patience.stretched(timeout_s)
            if not self._changed.wait_for(lambda: len(found()) >= count, limit_s):
                raise AssertionError(
                    f"{len(found())} of {count} {what} within {limit_s:g} s; {self.connections} "
                    f"connections, last packets: {self.packets[-20:]}"
                )
            return found()

    def close(self):
        """End the connections and the thread."""

        async def work():
            await self._unlisten()
            for connection in list(self._live):
                connection.end("rst")
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._call(work)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience.stretched(5))
        self._loop.close()
        give_back(self.port)
