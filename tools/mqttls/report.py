"""What a command says: lines for people, or with --json one object at the end."""

import json
import sys

from . import messages
from .messages import LINE, SPACE
from .screen import Screen, printable


class Report:
    """
    Collects what a command did, and prints it as it happens (not with `as_json`).

    `data` is a dict for what a command finds; with --json its items stand beside the lists
    "made", "notes", "problems" and "next" in the object that `finish` prints.

    program  what the user types for mqttls, such as "./dev mqttls"
    folder   --dir as it was given; None for that which needs not be given
    """

    def __init__(self, as_json=False, out=None, err=None, *, program="mqttls", folder=None):
        self.as_json = as_json
        self.program, self.folder = program, folder
        self.data = {}
        self.made_files, self.notes, self.problems, self.commands = [], [], [], []
        self._out, self._err = Screen(out), Screen(err or sys.stderr)
        self._bar = 0  # characters of a progress bar that stands on the terminal's last line

    def set_folder(self, path):
        """Have the commands that are printed from now on say --dir `path` (str)."""
        self.folder = path

    def spelled(self, text):
        """Return `text` (str) with its commands complete, as they can be pasted."""
        return self._spelled(text).replace(SPACE, " ")

    def _spelled(self, text):
        return messages.spelled(text, self.program, self.folder)

    def _shown(self, text):
        # one line, without what harms a terminal; SPACE is still in commands
        text = printable(text, keep=messages.MARKS)
        return printable(self._spelled(text), keep=SPACE)

    def _print(self, text="", *, tone=None, word="", word_tone=None, indent=None, screen=None):
        """
        Print a line, wrapped on a terminal; nothing with --json.

        tone    of all of it, as in Screen.paint
        word    a part of it, the first of its kind, that has `word_tone`
        indent  of its second line and those after it, as in Screen.wrap
        """
        if self.as_json:
            return
        self._clear_bar()
        screen = screen or self._out
        for line in screen.wrap(self._shown(text), indent):
            line = line.replace(SPACE, " ")
            before, found, after = line.partition(word) if word else ("", "", line)
            word = "" if found else word
            parts = (before, tone), (found, word_tone), (after, tone)
            screen.write("".join(screen.paint(each, one) for each, one in parts if each) + "\n")

    def say(self, text="", *, tone=None, word="", word_tone=None):
        """
        Print a line for people only; what a program should know goes into `data`.

        Columns stand two spaces or more apart: what is wrapped goes below the last one.
        """
        self._print(text, tone=tone, word=word, word_tone=word_tone)

    def show(self, text):
        """Print what is in a file (str), its lines as they are."""
        if not self.as_json:
            self._clear_bar()
            self._out.write("".join(f"{printable(line)}\n" for line in text.splitlines()))

    @property
    def live(self):
        """Whether people look at a terminal that can be drawn on."""
        return self._out.live and not self.as_json

    @property
    def rows(self):
        """How many lines that terminal has (int)."""
        return self._out.rows

    def draw(self, lines):
        """Have `lines` (list of str) be all that the terminal shows."""
        self._out.draw(lines)

    def note(self, text):
        """Say something that the user should know though nothing is wrong."""
        self.notes.append(text)
        self._print(f"note: {text}", word="note:", word_tone="wait", indent=6)

    def made(self, path, what):
        """Say that the file or folder `path` was made; `what` is a short description of it."""
        self.made_files.append({"path": str(path), "what": what})
        text = f"made  {path}  ({what})" if what else f"made  {path}"
        self._print(text, word="made", word_tone="good", indent=8)

    def made_too(self, paths):
        """Have `paths` in the object of --json; for people they were said in one line."""
        self.made_files += [{"path": str(each), "what": ""} for each in paths]

    def problem(self, stage, fact, cause="", cure=""):
        """
        Say that something is wrong; the exit status becomes 1.

        stage  "files", "resolve", "connect", "TLS", "chain", "name", "dates",
               "client certificate", "CONNACK", …
        fact, cause, cure  a sentence each, without a full stop; "" for none
        """
        self.problems.append({"stage": stage, "fact": fact, "cause": cause, "cure": cure})
        head = f"PROBLEM ({stage}):" if stage else "PROBLEM:"
        self._print(f"{head} {fact}", word=head, word_tone="bad", indent=2)
        self._why(cause, cure)

    def _why(self, cause, cure, screen=None):
        for word, text in (("why:", cause), ("cure:", cure)):
            if text:
                self._print(
                    f"  {word:<5} {text}", word=word, word_tone="bold", indent=8, screen=screen
                )

    def explain(self, cause, cure):
        """Say what an error means, and what helps."""
        self._print(cause, indent=2)
        self._why("", cure)

    def failed(self, failure):
        """Say why the command cannot go on: on stderr, or among the problems of --json."""
        if self.as_json:
            fact = f"{LINE}  ".join((failure.fact, *failure.lines))
            self.problem(failure.stage, fact, failure.cause, failure.cure)
            return
        head, screen = "mqttls:", self._err
        self._print(f"{head} {failure.fact}", word=head, word_tone="bad", indent=2, screen=screen)
        for each in failure.lines:
            self._print(f"  {each}", indent=4, screen=screen)
        self._why(failure.cause, failure.cure, screen)

    def next(self, text, why=""):
        """Say which command comes next; `why` is what it will do."""
        if not self.commands:
            self._print()
        self.commands.append(text)
        self._command("next: ", self.spelled(text), why)

    def examples(self, pairs):
        """Print commands and what they do: pairs of str."""
        found = [(self.spelled(text), why) for text, why in pairs]
        width = max(len(text) for text, _ in found)
        for text, why in found:
            self._command("", text.ljust(width), why)

    def _command(self, head, text, why):
        # What it does stands beside it or below it; a command is never broken.
        if self.as_json:
            return
        self._clear_bar()
        screen, line = self._out, head + printable(text)
        why = printable(why)
        if why and (not screen.terminal or len(line) + 5 + len(why) < screen.columns):
            line, why = f"{line}   {screen.paint(f'# {why}', 'dim')}", ""
        screen.write(screen.paint(head, "bold") + line[len(head) :].rstrip() + "\n")
        if why:
            start = " " * (len(head) or 4) + "# "
            for each in screen.wrap(start + why, len(start)):
                screen.write(screen.paint(start + each[len(start) :], "dim") + "\n")

    def progress(self, done, total, what=""):
        """Draw a progress bar on the terminal, if there is one; gone when `done` is `total`."""
        if self.as_json or not self._err.live:
            return
        full = 30 * done // max(total, 1)
        bar = f"[{'#' * full}{'.' * (30 - full)}] {done}/{total} {printable(what)}"
        bar = bar[: self._err.columns - 1]
        self._err.write("\r" + bar.ljust(self._bar))
        self._bar = len(bar)
        if done >= total:
            self._clear_bar()

    def _clear_bar(self):
        if self._bar:
            self._err.write("\r" + " " * self._bar + "\r")
            self._bar = 0

    @property
    def status(self):
        """The exit status so far: 1 when there was a problem, else 0."""
        return 1 if self.problems else 0

    def finish(self, name, status):
        """Print the object of --json of the command `name`; `status` is the exit status."""
        self._clear_bar()
        if self.as_json:
            found = {
                "command": name,
                "exit": status,
                "made": self.made_files,
                "notes": self.notes,
                "problems": self.problems,
                "next": self.commands,
                **self.data,
            }
            # ASCII: the same for every console, and for what reads UTF-8
            self._out.write(json.dumps(self._complete(found), indent=2) + "\n")

    def _complete(self, value):
        if isinstance(value, str):  # printable: another program may put it onto a terminal
            text = printable(value, keep=messages.MARKS + LINE)
            return printable(self.spelled(text), keep=LINE).replace(LINE, "\n")
        if isinstance(value, dict):
            return {key: self._complete(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._complete(each) for each in value]
        return value
