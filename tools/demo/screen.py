"""What the demo shows: a line for each thing that happens, and below them the numbers, live."""

import os
import shutil
import sys
import textwrap
import time

_COLOURS = {"good": "32", "bad": "31", "wait": "33", "dim": "2", "bold": "1"}
_WHO = {"demo": "35", "broker": "34", "device": "36", "watcher": "32"}
_INDENT = 18
_NUMBERS_S = 2  # between them where lines cannot be written over


class Screen:
    """
    Coloured and live on a terminal, plain lines elsewhere; NO_COLOR is respected.

    when_gone  called, once, when nobody reads any more (`| head`)
    """

    def __init__(self):
        self.when_gone = None
        self._out = sys.stdout
        self._out.reconfigure(errors="replace")
        self._live = self._out.isatty() and os.environ.get("TERM") not in (None, "", "dumb")
        self._colour = self._live and not os.environ.get("NO_COLOR")
        try:
            self._block = "■"
            self._block.encode(self._out.encoding)
        except UnicodeEncodeError:
            self._block = "#"
        self._start = time.monotonic()
        self._numbers = ""
        self._shown_s = 0

    @property
    def elapsed_s(self):
        return time.monotonic() - self._start

    def paint(self, text, tone):
        """Return `text` in the colour of `tone`, where there are colours."""
        code = _COLOURS.get(tone) or _WHO.get(tone)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code else text

    def tell(self, who, text, tone=None):
        """
        Show that something happened.

        who   "demo", "broker", "device" or "watcher"
        tone  "good", "bad", "wait", "dim", "bold" or None
        """
        lines = [text]
        if self._live:
            width = shutil.get_terminal_size().columns
            lines = textwrap.wrap(text, max(width - _INDENT - 1, 30), break_on_hyphens=False)
        head = self.paint(f"{self.elapsed_s:5.1f} s ", "dim") + " " + self.paint(f"{who:<8}", who)
        for line in lines:
            self._line(f"{head}  {self.paint(line, tone)}")
            head = " " * (_INDENT - 2)

    def line(self, text, tone=None):
        """Show a line of its own."""
        self._line(self.paint(text, tone))

    def row(self, name, value, tone=None):
        """Show a line of the summary."""
        self._line(f"  {name:<15}{self.paint(value, tone)}")

    def numbers(self, published, acknowledged):
        """Show the numbers below all lines; where there is no terminal, now and then."""
        waiting = published - acknowledged
        text = f"published {published}  acknowledged {acknowledged}  waiting {waiting}"
        if not self._live:
            if self.elapsed_s - self._shown_s >= _NUMBERS_S:
                self._shown_s = self.elapsed_s
                self.tell("device", text)
            return
        # a line that is full would wrap, and could not be written over
        room = max(shutil.get_terminal_size().columns - _INDENT - 1, 0)
        text = text[:room]
        bar = self._block * min(waiting, room - len(text) - 2)
        self._numbers = " " * _INDENT + text + ("  " + self.paint(bar, "wait") if bar else "")
        self._write("")

    def clear(self):
        """Take the numbers away."""
        self._numbers = ""
        if self._live:
            self._write("")

    def _line(self, text):
        self._write(text.rstrip() + "\n")

    def _write(self, text):
        if self._live:
            text = "\r\x1b[K" + text + self._numbers
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            # what is written from now on, also at Python's end, goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self.when_gone()
