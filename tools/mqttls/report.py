"""What a command says: lines for people, or with --json one object at the end."""

import json
import sys


class Failure(Exception):
    """
    The command cannot go on; the user reads the fact, then the cure. Exit status 1.

    fact   what is so, one sentence without a full stop
    cure   what to do about it, or ""
    cause  why it is so, or ""
    stage  where it failed ("files", "resolve", "TLS", …), or ""
    """

    def __init__(self, fact, cure="", *, cause="", stage=""):
        super().__init__(fact)
        self.fact, self.cure, self.cause, self.stage = fact, cure, cause, stage


class Usage(Exception):
    """The command was called wrongly; the text says how, then the remedy. Exit status 2."""


class Report:
    """
    Collects what a command did, and prints it as it happens (not with `as_json`).

    `data` is a dict for what a command finds; with --json its items stand beside the lists
    "made", "notes", "problems" and "next" in the object that `finish` prints.
    """

    def __init__(self, as_json=False, out=None, err=None):
        self.as_json = as_json
        self.data = {}
        self.made_files, self.notes, self.problems, self.commands = [], [], [], []
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._bar = 0  # characters of a progress bar that stands on the terminal's last line

    def _print(self, text=""):
        if not self.as_json:
            self._clear_bar()
            print(text, file=self._out, flush=True)

    def say(self, text=""):
        """Print a line for people only; what a program should know goes into `data`."""
        self._print(text)

    def note(self, text):
        """Say something that the user should know though nothing is wrong."""
        self.notes.append(text)
        self._print(f"note: {text}")

    def made(self, path, what):
        """Say that the file or folder `path` was made; `what` is a short description of it."""
        self.made_files.append({"path": str(path), "what": what})
        self._print(f"made  {path}  ({what})" if what else f"made  {path}")

    def problem(self, stage, fact, cause="", cure=""):
        """
        Say that something is wrong; the exit status becomes 1.

        stage  "files", "resolve", "connect", "TLS", "chain", "name", "dates",
               "client certificate", "CONNACK", …
        fact, cause, cure  a sentence each, without a full stop; "" for none
        """
        self.problems.append({"stage": stage, "fact": fact, "cause": cause, "cure": cure})
        self._print(f"PROBLEM ({stage}): {fact}" if stage else f"PROBLEM: {fact}")
        if cause:
            self._print(f"  why:  {cause}")
        if cure:
            self._print(f"  cure: {cure}")

    def next(self, command, why=""):
        """Say which command comes next; `why` is what it will do."""
        if not self.commands:
            self._print()
        self.commands.append(command)
        self._print(f"next: {command}" + (f"   # {why}" if why else ""))

    def progress(self, done, total, what=""):
        """Draw a progress bar on the terminal, if there is one; gone when `done` is `total`."""
        if self.as_json or not self._err.isatty():
            return
        full = 30 * done // max(total, 1)
        bar = f"[{'#' * full}{'.' * (30 - full)}] {done}/{total} {what}"
        print("\r" + bar.ljust(self._bar), end="", file=self._err, flush=True)
        self._bar = len(bar)
        if done >= total:
            self._clear_bar()

    def _clear_bar(self):
        if self._bar:
            print("\r" + " " * self._bar + "\r", end="", file=self._err, flush=True)
            self._bar = 0

    @property
    def status(self):
        """The exit status so far: 1 when there was a problem, else 0."""
        return 1 if self.problems else 0

    def finish(self, command, status):
        """Print the object of --json; `status` is the exit status."""
        self._clear_bar()
        if self.as_json:
            found = {
                "command": command,
                "exit": status,
                "made": self.made_files,
                "notes": self.notes,
                "problems": self.problems,
                "next": self.commands,
                **self.data,
            }
            print(json.dumps(found, indent=2, ensure_ascii=False), file=self._out, flush=True)
