"""
What an app does all at once beside the soak's messages, on the device: many subscriptions, a loop
that reads a sensor, interrupts that enqueue, a web server, and retained messages that all come
anew at each connect, faster than they are handled.
"""

import _thread
import asyncio
import time

import micropython

FILTERS = 30
RETAINED = 300  # more than the backlog has room for
_STEP_MS = 50


class Everyday:
    """
    Two clients, a web server and a thread.

    make   function (name, clean_start) that returns an MQTTClient
    step   int, from the number of a message of a subscription to that of the next

    paused  bool, to be set: send nothing meanwhile
    """

    def __init__(self, make, step):
        self._step = step
        self._stopping = self.paused = False
        self.enqueued = self.measured = 0
        self.counts = [[0, 0, 0] for _ in range(FILTERS)]  # number expected next, missed, twice
        self.client = make("everyday", False)
        for n in range(FILTERS):
            self._listen(n)

        @self.client.on_connect
        async def ready():
            print("ready everyday")

        self.retained = bytearray(RETAINED)  # of each: 1 when it came
        self.flooded = make("flooded", True)

        @self.flooded.on("retained/#")
        async def handle(message):
            self.retained[int(message.topic.split("/")[1])] = 1
            await asyncio.sleep_ms(1)

    def _listen(self, n):
        count = self.counts[n]

        @self.client.on("home/%d/+/#" % n, qos=1)
        def handle(message):
            number = int(message.payload)
            if number < count[0]:
                count[2] += 1
                return
            count[1] += number - count[0]
            count[0] = number + self._step
            if min(each[0] for each in self.counts) == count[0]:
                print("through", count[0], "everyday")

    async def start(self, web_port):
        """Start all of it; the clients are running."""
        self._server = await asyncio.start_server(self._page, "127.0.0.1", web_port)
        self._sensor = asyncio.create_task(self._measure())
        _thread.start_new_thread(self._timer, ())

    async def _page(self, reader, writer):
        while (await reader.readline()).strip():
            pass
        writer.write("HTTP/1.0 200 OK\r\n\r\n%d" % self.enqueued)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def _measure(self):
        while not self._stopping:
            if not self.paused:
                await self.client.publish("up/everyday/0", str(self.measured))
                self.measured += 1
            await asyncio.sleep_ms(2 * _STEP_MS)

    def _timer(self):
        # in the place of machine.Timer, which the unix port does not have
        due = self._enqueue
        while not self._stopping:
            try:
                if not self.paused:
                    micropython.schedule(due, None)
            except RuntimeError:
                pass  # the scheduler has enough to run
            time.sleep_ms(_STEP_MS)

    def _enqueue(self, _):
        if self.client.enqueue("up/everyday/1", str(self.enqueued), qos=1):
            self.enqueued += 1

    async def stop(self):
        """Stop what sends; print what was sent, and what came of the retained messages."""
        self._stopping = True
        await self._sensor
        await asyncio.sleep_ms(4 * _STEP_MS)  # the timer has seen it
        print("published everyday 0", self.measured)
        print("published everyday 1", self.enqueued)
        await self.flooded.disconnect()
        self.retained[:] = bytes(RETAINED)
        await self.flooded.__aenter__()
        await self.flooded.wait_connected()
        for _ in range(1000):
            if sum(self.retained) == RETAINED:
                break
            await asyncio.sleep_ms(20)
        print("retained", sum(self.retained), self.flooded.stats.dropped)
        for count in self.counts:
            print("heard", *count)
        self._server.close()
