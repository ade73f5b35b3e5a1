"""What happens in the demo, in this order."""

import asyncio
import contextlib
import re
import tempfile
from pathlib import Path

from .board import Device, find_micropython
from .broker import Broker, find_mosquitto
from .certificates import Certificates
from .link import Link
from .processes import HOST, Children, Trouble, free_port
from .watcher import TOPICS, Watcher

_PATIENCE_S = 120


@contextlib.contextmanager
def temporary_folder():
    """A Path of a folder that is gone afterwards. Raises Trouble."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="mqtt-demo-", ignore_cleanup_errors=True)
    except OSError as error:
        raise Trouble(
            f"no temporary folder ({error.strerror}): set TMPDIR to one that can be written to"
        ) from None
    with folder as path:
        yield Path(path)


class Story:
    """
    The demo from its beginning to its end.

    screen    Screen
    embedded  bool, take the broker from PyPI even where mosquitto is installed
    """

    def __init__(self, screen, embedded=False):
        self._screen = screen
        self._children = Children()
        self._program = None if embedded else find_mosquitto()
        self._embedded = embedded
        self._handshakes = []
        self._valve = None
        self._sent = self._obeyed = 0
        self._device = self._watcher = self._facts = self._numbers = None

    async def run(self):
        """
        Return whether all went well: nothing lost, commands obeyed, the wrong CA refused.

        Raises Trouble when it cannot go on. However it ends, nothing that it started is left.
        """
        with temporary_folder() as folder:
            try:
                await self._prepare(folder)
                await self._work()
                await self._distrust(folder)
                return self._sum_up()
            finally:
                self._children.end_all()
                if self._watcher:
                    self._watcher.end()
                if self._numbers:
                    self._numbers.cancel()
                self._screen.clear()

    # The acts

    async def _prepare(self, folder):
        tell = self._screen.tell
        self._board = board = await find_micropython(self._children)
        title = (
            f"A device under MicroPython {board.version} on TLS: its link breaks, its broker stops"
        )
        self._screen.line(title, "bold")
        self._screen.line("")
        port = free_port()
        self._certificates = made = Certificates(folder / "mqtt-pki", port)
        tell(
            "demo",
            f"mqttls made a CA, and certificates for the broker ({HOST}), the device (greenhouse: "
            f"{made.device_size()} bytes of DER) and a watcher, in {folder} until the end",
        )
        self._broker = Broker(self._children, folder, made, port, self._program)
        await self._broker.start()
        if self._broker.embedded:
            why = "" if self._embedded else "mosquitto is not installed: "
            tell(
                "broker",
                f"{why}{self._broker.name} runs instead; it asks for no client "
                "certificate and keeps nothing when it stops",
                "wait",
            )
        else:
            tell(
                "broker",
                f"{self._broker.name} runs with mqttls's configuration: it demands a client "
                "certificate, and keeps a device to its own topics",
            )
        self._link = Link(self._broker.port)
        await self._link.listen()
        self._watcher = Watcher(self._broker.port, made.watcher, self._on_news)
        await self._until(lambda: self._watcher.connected, "the watcher did not connect")
        tell("watcher", f"{self._watcher.name} on this PC is connected and counts what comes")

    async def _work(self):
        screen, link, broker = self._screen, self._link, self._broker
        device = self._start_device(self._certificates.device)
        await self._until(lambda: self._handshakes, "the device did not connect")
        self._numbers = asyncio.ensure_future(self._show_numbers())
        screen.tell("device", "publishes a reading every 100 ms with QoS 1")
        await asyncio.sleep(1.5)
        await self._until_obeyed("open", self._send("open"))
        await asyncio.sleep(2)  # after five seconds a connection is a good one: see back-off

        heard = len(device.lines)
        link.cut()
        screen.tell("demo", "link cut: nothing passes, and neither side is told", "bad")
        await asyncio.sleep(0.5)
        sent_s = self._send("closed")
        await self._until(lambda: len(device.lines) > heard, "the device did not notice")
        link.mend()
        screen.tell("demo", "link mended", "good")
        await self._until_obeyed("closed", sent_s)
        await self._until_acknowledged()
        await asyncio.sleep(1.5)

        link.refuse()
        if broker.embedded:
            link.reset()  # what it has acknowledged and not passed on would be lost
            await asyncio.sleep(0.3)
        screen.tell("broker", "stops for 3 seconds", "bad")
        await broker.stop()
        await asyncio.sleep(3)
        await broker.start()
        screen.tell("broker", "started again", "good")
        await self._until(lambda: self._watcher.connected, "the watcher did not come back")
        await link.listen()
        await self._until_acknowledged()
        await asyncio.sleep(1.5)

        self._watcher.send(TOPICS + "stop", "")
        await self._until(lambda: "heap" in device.facts, "the device did not stop")
        self._facts, self._device = device.facts, None
        self._numbers.cancel()
        screen.clear()
        with contextlib.suppress(Trouble):  # what is missing then is lost
            await self._until(self._all_received, "", 5)

    async def _distrust(self, folder):
        self._screen.tell("demo", "the same app again, with the certificate of another CA:")
        kept = len(self._handshakes)
        wrong = folder / "wrong-certs"
        self._certificates.copy_device_with_another_ca(wrong)
        device = self._start_device(wrong)
        await self._until(
            lambda: len(self._handshakes) > kept or any("CA" in line for line in device.lines),
            "the device said nothing of a wrong CA",
        )
        self._refused = len(self._handshakes) == kept
        del self._handshakes[kept:]
        device.end()

    def _sum_up(self):
        facts, board = self._facts, self._board
        readings = self._watcher.readings
        lost = [n for n in range(1, facts["published"] + 1) if n not in readings]
        again = sum(readings.values()) - len(readings)
        obeyed = self._obeyed == self._sent
        handshakes = " / ".join(map(str, self._handshakes))
        sides = "server-only" if self._broker.embedded else "mutual"
        row = self._screen.row
        self._screen.line("")
        row("handshake", f"{handshakes} ms, verified, {sides}")
        row("published", facts["published"])
        row("acknowledged", facts["acknowledged"])
        row("received", f"{len(readings)} by the watcher")
        row("lost", len(lost), "bad" if lost else "good")
        row("duplicated", f"{again} ({facts['resent']} sent again; QoS 1 is at least once)")
        row("commands", f"{self._obeyed} of {self._sent} obeyed", None if obeyed else "bad")
        row(
            "wrong CA",
            "refused" if self._refused else "BELIEVED",
            None if self._refused else "bad",
        )
        row("longest stall", f"{facts['stall_ms']} ms, of a task that wakes every 1 ms")
        row("heap in use", f"{facts['heap'] >> 10} KB of {board.heap_kb} KB ({board.bits} bits)")
        self._screen.line("")
        if lost or not obeyed or not self._refused:
            self._screen.line("That must not be: please report it.", "bad")
            return False
        self._screen.line(
            f"Nothing was lost, in {self._screen.elapsed_s:.0f} s. The app is "
            "tools/demo/device.py; README.md puts one on a board.",
            "good",
        )
        return True

    # What they are made of

    def _start_device(self, folder):
        self._device = Device(
            self._children, self._board, folder, self._link.port, self._on_device_line
        )
        return self._device

    def _on_device_line(self, line):
        found = re.match(r"connected in .*\(TLS (\d+)\)", line)
        tone = "wait"
        if found:
            self._handshakes.append(int(found[1]))
            tone = "good"
        elif line.startswith("valve"):
            tone = None
        self._screen.tell("device", line, tone)

    def _on_news(self, topic, text):
        if topic == TOPICS + "valve/is":
            self._valve = text
        elif topic == TOPICS + "status":
            self._screen.tell("watcher", f"{topic} is {text}", "dim")

    def _send(self, position):
        """Send the command; return when (seconds of the event loop)."""
        self._screen.tell("watcher", f"sends the command: {TOPICS}valve {position}", "bold")
        self._sent += 1
        self._watcher.send(TOPICS + "valve", position)
        return asyncio.get_running_loop().time()

    async def _until_obeyed(self, position, sent_s):
        await self._until(lambda: self._valve == position, f"the valve is not {position}")
        took = asyncio.get_running_loop().time() - sent_s
        took = f"{took * 1000:.0f} ms" if took < 1 else f"{took:.1f} s"
        self._obeyed += 1
        self._screen.tell("watcher", f"{TOPICS}valve/is {position}, {took} later", "good")

    def _all_received(self):
        return len(self._watcher.readings) >= self._facts["published"]

    async def _until_acknowledged(self):
        """Return when nothing has been waiting at the device for longer than a moment."""
        old = self._device.facts

        def acknowledged():
            facts = self._device.facts
            return facts is not old and facts["published"] - facts["acknowledged"] <= 1

        await self._until(acknowledged, "the device did not come back")

    async def _until(self, condition, complaint, patience_s=_PATIENCE_S):
        """Return when `condition()`; raise Trouble with `complaint` after too long a time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not condition():
            if self._device and self._device.ended:
                raise Trouble(f"the device app ended: {self._device.last_words()}")
            if self._broker.ended:
                raise Trouble(f"the broker ended: {self._broker.last_words()}")
            if loop.time() > deadline:
                said = self._broker.last_words()
                raise Trouble(
                    f"{complaint} within {patience_s} s; the broker's last words: {said}"
                )
            await asyncio.sleep(0.02)

    async def _show_numbers(self):
        while True:
            facts = self._device.facts
            self._screen.numbers(facts["published"], facts["acknowledged"])
            await asyncio.sleep(0.1)
