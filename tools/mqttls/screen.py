"""A terminal or what is in its place: colours, words wrapped at its edge, nothing that harms."""

import errno
import os
import re
import shutil
import sys

from . import system

WIDEST = 80  # of prose; a command may be as long as the terminal's line

_TONES = {
    "good": "32",
    "bad": "31",
    "wait": "33",
    "dim": "2",
    "bold": "1",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}


def printable(text, keep=""):
    """
    Return `text` (str) on one line, without what a terminal would obey.

    Control characters, what changes the direction of writing, and what no encoding has become
    escapes as in Python: a name in a certificate or a line of a log may hold anything.

    keep  characters that stay
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )


class Screen:
    """
    A text stream that people read: coloured and wrapped on a terminal, plain elsewhere.

    out       the stream (sys.stdout)
    terminal  whether it is a terminal
    live      whether what stands there can be written over; not with TERM=dumb
    """

    def __init__(self, out=None):
        self.out = out or sys.stdout
        if hasattr(self.out, "reconfigure"):
            self.out.reconfigure(errors="backslashreplace")  # Windows: cp1252
        self.terminal = self.out.isatty()
        self.live = self.terminal and _understands(self.out)
        self._colour = self.live and not os.environ.get("NO_COLOR")

    @property
    def columns(self):
        """How many characters a line of the terminal has (int)."""
        return shutil.get_terminal_size().columns

    @property
    def rows(self):
        """How many lines the terminal has (int)."""
        return shutil.get_terminal_size().lines

    def draw(self, lines):
        """Have `lines` (list of str) be all that the terminal shows, cut at its edges."""
        width, most = self.columns - 1, self.rows - 1
        shown = "".join(f"{printable(each)[:width]}\x1b[K\n" for each in lines[:most])
        self.write(f"\x1b[H{shown}\x1b[J")

    def paint(self, text, tone):
        """Return `text` in the colour of `tone` ("good", "bad", …), where there are colours."""
        code = _TONES.get(tone)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code and text else text

    def wrap(self, text, indent=None, most=WIDEST):
        """
        Return the lines (list of str) of `text`, broken between words on a terminal.

        indent  of the lines after the first (int); None: below the last column of `text`, where
                two spaces or more stand between columns
        most    of their width, if the terminal is wider
        """
        width = min(self.columns, most) - 1
        if not self.terminal or len(text) <= width:
            return [text]
        starts = [found.end() for found in re.finditer(r"(?:^|(?<=\S)) {2,}", text)]
        if indent is None:
            indent = max([each for each in starts if each <= width // 2], default=2)
        # spaces between columns stay as they are
        words = re.findall(r"^ *\S+|(?<= )\S+| {2,}(?=\S)", text)
        lines, line = [], ""
        for word in words:
            glue = "" if not line or word.isspace() or line.endswith("  ") else " "
            if line.strip() and len(line) + len(glue) + len(word) > width:
                lines.append(line.rstrip())
                line, glue = " " * indent, ""
                if word.isspace():
                    continue
            line += glue + word
        return [*lines, line.rstrip()]

    def write(self, text):
        """
        Write `text` as it is, and let it be seen.

        Raises BrokenPipeError when nobody reads any more; OSError.
        """
        try:
            self.out.write(text)
            self.out.flush()
        except OSError as error:
            if system.is_windows() and error.errno == errno.EINVAL:  # its word for EPIPE
                raise BrokenPipeError from error
            raise


def _understands(out):
    """Tell whether a terminal obeys escape sequences; have Windows do so."""
    if os.environ.get("TERM") == "dumb":
        return False
    if not system.is_windows():
        return bool(os.environ.get("TERM"))
    try:
        import ctypes
        import msvcrt

        handle, mode = msvcrt.get_osfhandle(out.fileno()), ctypes.c_ulong()
        kernel = ctypes.windll.kernel32
        if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
            return False
        return bool(kernel.SetConsoleMode(handle, mode.value | 4))  # VIRTUAL_TERMINAL_PROCESSING
    except (ImportError, AttributeError, OSError):
        return False


def stop_writing(out):
    """Let what is written to `out` from now on, also at Python's end, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
