"""The command line: finds the commands, reads the arguments, turns the outcome into a status."""

import argparse
import contextlib
import errno
import importlib
import itertools
import os
import pkgutil
import re
import sys

from . import commands, guard, health, library, system
from .messages import VERBS, Failure, Usage, command
from .report import Report
from .screen import stop_writing

DIRECTORY = "./mqtt-pki"

_OPTION = re.compile(r"(--[A-Za-z][\w-]{0,40}|-[A-Za-z])(?![^= ]* )", re.ASCII)
_HEXADECIMAL = re.compile(r"-0[xX][0-9a-fA-F]{1,8}")

EXAMPLES = (
    (
        ("init", "--broker", "192.168.1.10", "--broker", "broker.lan"),
        "certificates and a broker's configuration",
    ),
    (("use", "broker.lan:8883"), "or, for a broker that is there already: whom boards trust"),
    (("device", "add", "kitchen"), "a key and a certificate for a board"),
    (("provision", "kitchen", "--wifi-ssid", "my-ssid"), "library, certificates, clock onto it"),
    (("doctor", "broker.lan:8883", "--device", "kitchen"), "why does it not connect?"),
)


# of the folder, or has nothing to do with it
_SAYS_IT_ALL = ("status", "explain", "keys", "try")


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)
        self._below = None

    def add_subparsers(self, **options):
        self._below = super().add_subparsers(**options)
        return self._below

    def add_common(self):
        """Give it and those below it --dir and --json; the innermost one that is used wins."""
        group = self.add_argument_group("common options")
        group.add_argument(
            "--dir",
            default=argparse.SUPPRESS,
            help=f"folder of the certificates (default: {DIRECTORY})",
        )
        group.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object"
        )
        for each in self._below.choices.values() if self._below else ():
            each.add_common()

    def options(self):
        """Return the names of the options (set) that it and those below it know."""
        found = set(self._option_string_actions)
        for each in self._below.choices.values() if self._below else ():
            found |= each.options()
        return found

    def parse_args(self, args=None, namespace=None):
        """
        Parse as argparse does; but an option that no command has is named without what stands
        behind it, as that may be a secret.
        """
        known = self.options()
        for each in itertools.takewhile(lambda word: word != "--", args):
            found = _OPTION.match(each)
            if found and found[1] not in known:
                why = "; a secret is in a file or asked for" if "pass" in found[1].lower() else ""
                self.error(f"there is no option {found[1]}{why}")
        return super().parse_args(args, namespace)

    def error(self, message):
        raise Usage(f"{message}: {self.prog} --help shows what it takes")


def find_commands():
    """Return the modules of all commands, in the order of `mqttls --help`."""
    found = [
        importlib.import_module(f"{commands.__name__}.{each.name}")
        for each in pkgutil.iter_modules(commands.__path__)
    ]
    return sorted(found, key=lambda each: VERBS.index(each.NAME))


def make_parser(program="mqttls"):
    """Return the parser of the whole command line; `program` is what the user types for it."""
    parser = _Parser(
        prog=program,
        description="Certificates, broker, board and doctor for MQTT over TLS.",
    )
    version = f"mqttls {library.version()}"
    parser.add_argument("--version", action="version", version=version)
    below = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for module in find_commands():
        one = below.add_parser(module.NAME, help=module.SUMMARY, description=module.SUMMARY)
        module.add(one)
        one.set_defaults(run=module.run)
    parser.add_common()
    return parser


def main(arguments=None, program="mqttls"):
    """
    Run the command line; return its exit status: 0, 1 or 2.

    arguments  list of str; of the process when None
    program    what the user types for mqttls, for the commands that it prints
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _main(arguments, program)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C; Ctrl-D where something is asked
        print("\nmqttls: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mqttls status | head`: nobody reads on
        stop_writing(sys.stdout)
        return 1


def as_typed(script):
    """Return what the user types for `./dev mqttls`; `script` is the path of `dev`, as called."""
    if system.is_windows():
        return f"python {system.quote(script)} mqttls"
    python = "" if "/" in script else "python3 "  # `python3 dev`: no shell finds it by itself
    return f"{python}{system.quote(script)} mqttls"


def _main(arguments, program):
    report = Report("--json" in arguments, program=program)
    # no option, but an error's number for `explain`
    arguments = [f" {each}" if _HEXADECIMAL.fullmatch(each) else each for each in arguments]
    if not arguments:
        report.examples([(command(*words), what) for words, what in EXAMPLES])
        report.say()
        report.say("mqttls --help lists every command, mqttls COMMAND --help its options.")
        return 0
    name = ""
    try:
        if not all(map(_is_text, arguments)):
            raise Usage("an argument has half a character in it, which is in no name of a file")
        chosen = make_parser(program).parse_args(arguments)
        if chosen.command is None:
            raise Usage("no command given: mqttls --help lists them")
        name = chosen.command
        chosen.dir = getattr(chosen, "dir", DIRECTORY)
        if os.path.normpath(chosen.dir) != os.path.normpath(DIRECTORY):
            report.set_folder(chosen.dir)
        chosen.json = report.as_json
        status = chosen.run(chosen, report) or report.status
        _tell_health(chosen, report)
    except Usage as error:
        status = 2
        report.failed(Failure(str(error)))
    except BrokenPipeError:
        raise
    except (Failure, OSError) as error:
        status = 1
        # an OSError (full disk, no permission, …) has the file's name
        report.failed(error if isinstance(error, Failure) else _sentence(error))
        with contextlib.suppress(Failure, OSError):  # what ends may be why it failed
            guard.check_place(chosen.dir)
            guard.check_folder(chosen.dir)
            _tell_health(chosen, report)
    report.finish(name, status)
    return status


def _tell_health(chosen, report):
    name = chosen.command
    if name not in _SAYS_IT_ALL and not (name == "doctor" and not chosen.device):
        health.tell(chosen.dir, report)


def _is_text(word):
    """Tell whether `word` may be a path: what Windows hands over may have half a character."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


_CURES = {
    "EACCES": "give yourself the right to it, or use another folder with --dir",
    "EPERM": "give yourself the right to it, or use another folder with --dir",
    "EROFS": "use a folder on a disk that can be written, with --dir",
    "ENOSPC": "make room on that disk, then run the same command again: nothing is half-written",
    "EDQUOT": "make room on that disk, then run the same command again: nothing is half-written",
    "EFBIG": "raise the limit (ulimit -f), then run the same command again",
}


def _sentence(error):
    name = errno.errorcode.get(error.errno, "")
    where = f"{error.filename}: " if error.filename else ""
    cure = _CURES.get(name, "")
    if system.is_windows() and isinstance(error, PermissionError):
        cure = "close what has it open, or give yourself the right to it, then run this again"
    return Failure(f"{where}{error.strerror or error}", cure, stage="files")
