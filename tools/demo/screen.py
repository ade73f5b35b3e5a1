"""What the demo shows: a line for each thing that happens, and below them the numbers, live."""

import time

from tools.mqttls import screen

_WHO = {"demo": "magenta", "broker": "blue", "device": "cyan", "watcher": "good"}
_INDENT = 18
_NUMBERS_S = 2  # between them where lines cannot be written over


class Screen(screen.Screen):
    """
    Coloured and live on a terminal, plain lines elsewhere; NO_COLOR is respected.

    when_gone  called, once, when nobody reads any more (`| head`)
    """

    def __init__(self):
        super().__init__()
        self.when_gone = None
        try:
            self._block = "■"
            self._block.encode(self.out.encoding)
        except UnicodeEncodeError:
            self._block = "#"
        self._start = time.monotonic()
        self._numbers = ""
        self._shown_s = 0

    @property
    def elapsed_s(self):
        return time.monotonic() - self._start

    def tell(self, who, text, tone=None):
        """
        Show that something happened.

        who   "demo", "broker", "device" or "watcher"
        tone  "good", "bad", "wait", "dim", "bold" or None
        """
        text = screen.printable(text)
        lines = self.wrap(" " * _INDENT + text, _INDENT, most=self.columns)
        head = self.paint(f"{self.elapsed_s:5.1f} s ", "dim")
        head += " " + self.paint(f"{who:<8}", _WHO[who])
        for line in lines:
            self._line(f"{head}  {self.paint(line[_INDENT:], tone)}")
            head = " " * (_INDENT - 2)

    def line(self, text, tone=None):
        """Show a line of its own."""
        for each in self.wrap(text, 0):
            self._line(self.paint(each, tone))

    def row(self, name, value, tone=None):
        """Show a line of the summary."""
        self._line(f"  {name:<15}{self.paint(value, tone)}")

    def numbers(self, published, acknowledged):
        """Show the numbers below all lines; where there is no terminal, now and then."""
        waiting = published - acknowledged
        text = f"published {published}  acknowledged {acknowledged}  waiting {waiting}"
        if not self.live:
            if self.elapsed_s - self._shown_s >= _NUMBERS_S:
                self._shown_s = self.elapsed_s
                self.tell("device", text)
            return
        # a line that is full would wrap, and could not be written over
        room = max(self.columns - _INDENT - 1, 0)
        text = text[:room]
        bar = self._block * min(waiting, room - len(text) - 2)
        self._numbers = " " * _INDENT + text + ("  " + self.paint(bar, "wait") if bar else "")
        self._show("")

    def clear(self):
        """Take the numbers away."""
        self._numbers = ""
        if self.live:
            self._show("")

    def _line(self, text):
        self._show(text.rstrip() + "\n")

    def _show(self, text):
        if self.live:
            text = "\r\x1b[K" + text + self._numbers
        try:
            self.write(text)
        except OSError:
            screen.stop_writing(self.out)
            self.when_gone()
