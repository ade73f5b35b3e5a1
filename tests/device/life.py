"""
The device of the fault matrix (tests/faults): one life of a client after the other, each the same.

Lines of stdin are cases (JSON) and, while one runs, words that the driver says; lines of stdout
tell it how far that is. A life: connect and subscribe, two messages out at each QoS, some in,
silence where the case is about that, two more each way, goodbye. Then a line of JSON says what is
left.

The number of a message is the first byte of its payload, so that a handler needs no memory.
"""

import asyncio
import gc
import json
import socket
import sys
import time
from asyncio import core

import micropython

from mqtt_as_tls import MQTTClient, packet, transport
from mqtt_as_tls import client as client_module
from mqtt_as_tls.errors import DeliveryUnknown
from tests.device import rtc  # noqa: F401 - its RTC is that of `machine` now
from tests.device.app import soonest
from tests.device.hunger import Hunger
from tests.device.inside import load_everything
from tests.device.links import Cable
from tests.device.secure import tls_given
from tests.device.watch import open_files

PADDING = bytes(20)


class Hurried:
    """In the place of `asyncio` in the client: no pause is longer than 0.1 s."""

    def __getattr__(self, name):
        return getattr(asyncio, name)

    @staticmethod
    def sleep_ms(ms):
        return asyncio.sleep_ms(min(ms, 100))


class Ticker:
    """
    Counts its turns, about every 5 ms.

    stats  Stats of the client whose input it watches
    mark   int, the turns when the last of that had come
    """

    stats = None

    def __init__(self):
        self.ticks = self.mark = self.longest_ms = self._seen = 0

    async def run(self):
        last = time.ticks_ms()
        while True:
            await asyncio.sleep_ms(5)
            now = time.ticks_ms()
            self.longest_ms = max(self.longest_ms, time.ticks_diff(now, last))
            last = now
            self.ticks += 1
            if self.stats and self.stats.bytes_in != self._seen:
                self._seen = self.stats.bytes_in
                self.mark = self.ticks


class Memory:
    """Takes all memory away from the task that runs now, until it waits for something."""

    def __init__(self):
        self._taken = transport.Signal()

    def take(self):
        """Let every allocation fail until the loop goes on."""
        taken = self._taken
        task = taken.waiter
        if task is not True:
            taken.waiter = True
            core._task_queue.push(task, time.ticks_add(time.ticks_ms(), -1000))  # first
            micropython.heap_lock()

    async def run(self):
        while True:
            await self._taken
            micropython.heap_unlock()
            self._taken.waiter = None
            print("memory is back")


class Interrupts:
    """
    They come in the midst of what runs now, at the first jump of the program and at later ones,
    and each enqueues a message: numbers from 10 on, QoS in turn.
    """

    GAPS = (0, 2, 5, 11, 23, 47)  # jumps between them

    def __init__(self):
        self.step = self._step  # made once

    def take(self):
        self._number = 0
        micropython.schedule(self.step, self.GAPS[0])

    def _step(self, jumps):
        if not jumps:
            life = self.life
            qos = self._number % 3
            number = 10 + self._number
            payload = bytes([number]) + PADDING
            if life.client.enqueue("up/%s/%d" % (life.case["id"], qos), payload, qos=qos):
                life.fate["%d %d" % (qos, number)] = "delivered"
            self._number += 1
            if self._number == len(self.GAPS):
                print("interrupts are over")
                return
            jumps = self.GAPS[self._number]
        micropython.schedule(self.step, jumps - 1)


class Sockets:
    """Takes all sockets that the program may have, and those that become free, until `free`."""

    def __init__(self):
        self._held = [None] * 100
        self._taking = False

    def take(self):
        self._taking = True
        try:
            for i in range(len(self._held)):
                if not self._held[i]:
                    self._held[i] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError:
            return
        raise AssertionError("there are more sockets than can be taken")

    def free(self):
        self._taking = False
        for i in range(len(self._held)):
            if self._held[i]:
                self._held[i].close()
                self._held[i] = None

    async def run(self):
        while True:
            if self._taking:
                self.take()
            await asyncio.sleep_ms(5)


class Pieces:
    """Leaves the heap in pieces, and does so with larger ones that `again` finds, until `end`."""

    def __init__(self):
        self._hunger = Hunger(1000)
        self._going = False

    def begin(self):
        self._going = True
        self._hunger.shatter(2000)

    def again(self):
        if self._going:
            try:
                bytearray(6000)
            except MemoryError:
                return
            self._hunger.shatter(2000)

    def end(self):
        self._going = False
        self._hunger.end()


class OnPurpose(Exception):
    pass


class Failed:
    """Counts tasks that ended with an exception that nobody waits for."""

    count = 0

    def handle(self, loop, context):
        if not isinstance(context["exception"], OnPurpose):
            self.count += 1
            print("task failed", context["future"].coro)
            sys.print_exception(context["exception"])
        context["exception"] = context["future"] = None  # asyncio would keep them


ticker = Ticker()
memory = Memory()
interrupts = Interrupts()
sockets = Sockets()
pieces = Pieces()
failed = Failed()


class Trigger:
    """
    Has something strike at a moment of the client, once.

    what  Memory or Interrupts
    """

    moment = None
    next = False

    def set(self, moment, number=1, after=False):
        """
        moment  "dns", "tcp", "hello", "idle", or the first byte of a packet (& 0xF0) with 0x100
                added for one that comes in
        number  the how many-th of them
        after   bool: when that is done, not before
        """
        self.moment, self.number, self.after = moment, number, after
        self.next = False

    def met(self, moment, after=False):
        """The client is at `moment`, or has just been."""
        if moment == self.moment and after == self.after:
            self.number -= 1
            if not self.number:
                self.moment = None
                self.what.take()

    def around_write(self, write):
        def wrapped(transport, buf):
            kind = buf[0] & 0xF0
            self.met(kind)
            sent = write(transport, buf)
            self.met(kind, True)
            return sent

        return wrapped

    def around_next(self, read):
        def wrapped(decoder):
            if self.next:  # the packet before this one was dealt with
                self.next = False
                self.met(self.moment, True)
            first = read(decoder)
            if first is not None and first & 0xF0 | 0x100 == self.moment:
                if self.after and self.number == 1:
                    self.next = True
                else:
                    self.met(self.moment, self.after)
            return first

        return wrapped

    def around_init(self, init):
        def wrapped(decoder, max_packet=4096):
            self.met("hello", True)
            init(decoder, max_packet)

        return wrapped

    def around_handshake(self, handshake):
        def wrapped(transport, *args):
            self.met("hello")
            return handshake(transport, *args)

        return wrapped

    # In the place of `socket` in transport

    def socket(self, *args):
        self.met("tcp")
        return socket.socket(*args)

    def __getattr__(self, name):
        return getattr(socket, name)


trigger = Trigger()


class Link(Cable):
    """Goes and comes as the driver says."""

    there = True

    def is_up(self):
        return self.there

    async def up(self):
        print("link wanted")
        while not self.there:
            await asyncio.sleep_ms(5)

    def dns_servers(self):
        trigger.met("dns")
        return self.servers


class Tasks:
    """Those that were made and have not ended, as far as they can be counted."""

    def __init__(self):
        self._create = core.create_task
        self._made = []
        core.create_task = asyncio.create_task = self._remember

    def _remember(self, coroutine):
        task = self._create(coroutine)
        try:
            self._made.append(task)
        except MemoryError:  # it is counted when it waits in a queue
            pass
        return task

    def names(self):
        """Return what those that were made and have not ended run (list of str)."""
        return [str(task.coro) for task in self._made]

    def count(self):
        """Return how many there are, and how many wait in the loop's queues for time or input."""
        self._made = [task for task in self._made if not task.done()]
        queue = core._task_queue
        waiting = []
        while queue.peek():
            task = queue.pop()
            waiting.append((task, task.ph_key))
        for task, at in waiting:
            queue.push(task, at)
        return len(self._made), len(waiting) + len(core._io_queue.map)


# a broker may send more than the client takes, as all do with MQTT 3.1.1
ANY_SIZE = {4: {}, 5: {"properties": {"maximum_packet_size": None}}}


class Life:
    """
    One case.

    case  dict: port, id, protocol, tls; dns (host and port of a server); idle (bool: be silent for
          a while); resumed (bool: all of it on a second connection); and memory or interrupt,
          arguments of Trigger.set, where that is the fault
    """

    def __init__(self, case):
        self.case = case
        self.words = {}
        self.link = Link([case["dns"]])
        self.got = [bytearray(64) for _ in range(3)]
        self.told = [bytearray(64) for _ in range(3)]
        self.fate = {}  # (qos, number) of a message out: "delivered", "unknown"
        self.busy = 0
        self.client = client = MQTTClient(
            "broker.lan",
            case["port"],
            client_id=case["id"],
            protocol=case["protocol"],
            tls=secure if case["tls"] else None,
            link=self.link,
            keepalive_s=1,
            log=self.log,
            **ANY_SIZE[case["protocol"]],
        )
        # less than the arguments can say
        client.ack_timeout_s = 0.5
        client.connect_timeout_s = 1.5 if case["tls"] else 0.8
        for qos in range(3):
            client.on("down/%s/%d" % (case["id"], qos), qos)(self.handler(self.got[qos]))
        client.on_connect(self.connected)

    def log(self, line):
        print("#", line)

    @staticmethod
    def handler(counts):
        def handler(message):
            counts[message.payload[0]] += 1

        return handler

    async def connected(self):
        print("connected")

    def word(self, word):
        """The driver said `word`."""
        if word == "link down":
            self.link.there = False
        elif word == "link up":
            self.link.there = True
        elif word == "reset soon":
            self.client.retry.reset_at = 1
        elif word == "take sockets":
            sockets.take()
        elif word == "free sockets":
            sockets.free()
        elif word == "shatter":
            pieces.begin()
        elif word == "gather":
            pieces.end()
        elif word != "turn":
            self.words[word] = True
            return
        print("did", word)

    def news(self):
        """Tell the driver of messages that came."""
        for qos in range(3):
            got, told = self.got[qos], self.told[qos]
            for number in range(len(got)):
                if got[number] != told[number]:
                    told[number] = got[number]
                    print("got", qos, number)

    async def until(self, word):
        while word not in self.words:
            self.news()
            await asyncio.sleep_ms(4)

    async def publish(self, qos, number):
        fate = "unknown"
        try:
            payload = bytes([number]) + PADDING
            await self.client.publish("up/%s/%d" % (self.case["id"], qos), payload, qos=qos)
            fate = "delivered"
        except DeliveryUnknown:
            pass
        except MemoryError:  # nobody can say what became of it
            pass
        finally:
            self.busy -= 1
        self.fate["%d %d" % (qos, number)] = fate

    async def subscribed(self):
        """Return when the broker has all subscriptions, as far as the client knows."""
        client = self.client
        subs = client.dispatcher.subscriptions
        while not client.connected or [sub for sub in subs if sub.granted is None]:
            await asyncio.sleep_ms(2)

    async def out(self, qos, *numbers):
        """Publish messages at once; return when their fate is known."""
        for number in numbers:
            self.busy += 1
            asyncio.create_task(self.publish(qos, number))
        while self.busy:
            await asyncio.sleep_ms(2)

    async def follow(self, events):
        async for event in events:
            if getattr(event, "error", None):
                print("lost after", ticker.ticks - ticker.mark)
                pieces.again()  # of what the connection had, too

    async def run(self):
        client = self.client
        interrupts.life = self
        for name, trigger.what in (("memory", memory), ("interrupt", interrupts)):
            if self.case.get(name):
                trigger.set(*self.case[name])
                break
        try:
            await self.live(client)
        except MemoryError:  # of disconnect(), which tells its caller
            await asyncio.sleep_ms(2)
            print("stopped without memory")

    async def live(self, client):
        async with client:
            following = asyncio.create_task(self.follow(client.events()))
            await self.subscribed()
            if self.case["resumed"]:
                print("break")
                while client.stats.connects < 2:
                    await asyncio.sleep_ms(2)
                await self.subscribed()
            for qos in range(3):
                await self.out(qos, 1, 2)
            await self.subscribed()
            print("in")
            await self.until("next")
            if self.case["idle"]:
                print("idle")
                trigger.met("idle")
                await self.until("on")
            await self.out(1, 3)
            await self.out(2, 3)
            await self.subscribed()
            print("again")
            await self.until("last")
            print("leaving")
            await self.until("leave")
        await following


class Input:
    """Lines of stdin, as they come: cases to run, and words for the one that runs."""

    def __init__(self):
        self.cases = []
        self.life = None

    async def run(self):
        readable = transport._Poll(core._io_queue.queue_read, sys.stdin)
        while True:
            await readable
            line = sys.stdin.readline()
            if not line:
                self.cases.append(None)
                return
            if line[0] == "{":
                self.cases.append(json.loads(line))
            elif self.life:
                self.life.word(line.strip())


async def play(case, given):
    """Run a life; return what can be said of it. Its memory is garbage then."""
    ticker.ticks = ticker.mark = ticker.longest_ms = failed.count = 0
    given.life = life = Life(case)
    ticker.stats = life.client.stats
    await life.run()
    given.life = ticker.stats = interrupts.life = None
    sockets.free()
    pieces.end()
    return {
        "fate": life.fate,
        "got": [[n for n in range(64) for _ in range(each[n])] for each in life.got],
        "connects": life.client.stats.connects,
        "oversized": life.client.stats.oversized,
        "failed": failed.count,
        "ticks": ticker.ticks,
        "held": held(life.client.connection.reserve),
        "longest_ms": ticker.longest_ms,
    }


def held(reserve):
    """Return how many words a Reserve holds."""
    return sum([len(piece) for piece in [reserve._in, reserve._out] + reserve.others if piece])


async def pause(ms):
    await asyncio.sleep_ms(ms)


async def fail():
    raise OnPurpose


async def overwrite():
    """
    Do once more what tasks do: the collector takes what the loop's stack still has of the last
    ones for an address, which keeps the memory of a whole life.
    """
    await asyncio.create_task(pause(0))
    task = asyncio.create_task(pause(1000))
    await asyncio.sleep_ms(2)
    task.cancel()
    event = asyncio.Event()
    try:
        await asyncio.wait_for_ms(event.wait(), 2)
    except asyncio.TimeoutError:
        pass
    asyncio.create_task(event.wait())
    await asyncio.sleep_ms(0)
    event.set()
    asyncio.create_task(fail())
    await asyncio.sleep_ms(2)
    # the exception that MicroPython has for when there is no memory for one
    micropython.heap_lock()
    try:
        raise ValueError
    except ValueError:
        micropython.heap_unlock()


async def main():
    soonest()
    asyncio.get_event_loop().set_exception_handler(failed.handle)
    asyncio.create_task(ticker.run())
    asyncio.create_task(memory.run())
    asyncio.create_task(sockets.run())
    given = Input()
    asyncio.create_task(given.run())
    tasks = Tasks()
    await asyncio.sleep_ms(10)
    before = tasks.count()
    print("ready")
    while True:
        while not given.cases:
            await asyncio.sleep_ms(2)
        case = given.cases.pop(0)
        if case is None:
            return
        report = await play(case, given)
        case = None
        for _ in range(100):  # what was cancelled needs its turn
            made, waiting = tasks.count()
            if made <= before[0] and waiting <= before[1]:
                break
            await asyncio.sleep_ms(2)
        report["tasks"] = made + waiting - sum(before)
        report["left"] = tasks.names()
        report["files"] = open_files()
        await overwrite()
        gc.collect()
        report["heap"] = gc.mem_alloc()
        print(json.dumps(report))


load_everything()  # or the heap would grow by it later
client_module.asyncio = Hurried()
transport.socket = trigger
transport.Transport.handshake = trigger.around_handshake(transport.Transport.handshake)
transport.Transport.send = trigger.around_write(transport.Transport.send)
packet.Decoder.next = trigger.around_next(packet.Decoder.next)
packet.Decoder.__init__ = trigger.around_init(packet.Decoder.__init__)
secure = tls_given()
asyncio.run(main())
