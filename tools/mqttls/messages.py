"""
What a message to the user is made of: failures, and commands that can be pasted.

A command in a text is marked until the text is printed: only then it is known how mqttls was
started, and with which --dir.
"""

import random
import re

from . import system
from .screen import printable

# In the order in which a user meets them
VERBS = [
    *("init", "use", "device", "broker-conf", "provision", "status", "fleet", "renew", "revoke"),
    *("update", "doctor", "explain", "keys", "try"),
]

_WITHOUT_FOLDER = ("explain", "keys", "try")
# Round a command in a text, and in the place of its spaces: no line breaks there. They differ from
# run to run, as what comes from outside (a certificate, a log) might hold them; none is printed.
_BEGIN, _END, SPACE, LINE = map(chr, random.SystemRandom().sample(range(0xF0000, 0xFFFFE), 4))
MARKS = _BEGIN + _END + SPACE
_COMMAND = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_MENTION = re.compile(rf"(?<![\w./\\-])mqttls (?=(?:{'|'.join(VERBS)}|COMMAND|--help)\b)")


class Failure(Exception):
    """
    The command cannot go on; the user reads the fact, then the cure. Exit status 1.

    fact   what is so, one sentence without a full stop
    cure   what to do about it, or ""
    cause  why it is so, or ""
    stage  where it failed ("files", "resolve", "TLS", …), or ""
    lines  list of str, what the fact announces with a colon, a line each
    """

    def __init__(self, fact, cure="", *, cause="", stage="", lines=()):
        super().__init__(fact)
        self.fact, self.cure, self.cause, self.stage = fact, cure, cause, stage
        self.lines = list(lines)


class Usage(Exception):
    """The command was called wrongly; the text says how, then the remedy. Exit status 2."""


def command(*words):
    """
    Return a command of mqttls for a message: command("device", "add", name).

    The Report puts in how mqttls was started and its --dir, so that what it prints can be pasted.
    Words in capitals (NAME) are for the user to fill in.
    """
    return _BEGIN + shell(*words) + _END


def shell(*words):
    """Return a command of another program for a message; on one line, its words quoted."""
    return " ".join(system.quote(str(each)) for each in words).replace(" ", SPACE)


def spelled(text, program, folder=None):
    """
    Return `text` (str) with its commands complete; their spaces are SPACE.

    program  what the user types for mqttls, such as "./dev mqttls"
    folder   --dir as it was given; None for that which needs not be given
    """

    def whole(words):
        if folder is None or words.partition(SPACE)[0] in _WITHOUT_FOLDER:
            return words
        path = shell(printable(folder))
        return f"{words}{SPACE}--dir{'=' if path.startswith('-') else SPACE}{path}"

    # what tables and boards mention is spelled `mqttls status`
    kept = program.replace(" ", SPACE)
    parts = text.split(program)  # the usage has it already
    text = kept.join(_MENTION.sub(lambda _: kept + " ", each) for each in parts)
    return _COMMAND.sub(lambda found: f"{kept}{SPACE}{whole(found[1])}", text)
