"""The command line: finds the commands, reads the arguments, turns the outcome into a status."""

import argparse
import errno
import importlib
import os
import pkgutil
import sys

from . import commands
from .report import Failure, Report, Usage

DIRECTORY = "./mqtt-pki"

EXAMPLES = """\
mqttls init --broker 192.168.1.10 --broker broker.lan   certificates and a broker's configuration
mqttls device add kitchen                               a key and a certificate for a board
mqttls provision kitchen --wifi-ssid my-ssid            library, certificates and clock onto it
mqttls doctor broker.lan:8883 --device kitchen          why does it not connect?

mqttls --help lists every command, mqttls COMMAND --help its options.
"""

# In the order in which a user meets them; others follow by name
_ORDER = "init device broker-conf provision status renew revoke doctor explain keys".split()


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise Usage(f"{message}: {self.prog} --help shows what it takes")


def find_commands():
    """Return the modules of all commands, in the order of `mqttls --help`."""
    found = [
        importlib.import_module(f"{commands.__name__}.{each.name}")
        for each in pkgutil.iter_modules(commands.__path__)
    ]
    order = {name: at for at, name in enumerate(_ORDER)}
    return sorted(found, key=lambda each: (order.get(each.NAME, len(order)), each.NAME))


def make_parser():
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="mqttls",
        description="Certificates, broker, board and doctor for MQTT over TLS.",
    )
    below = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for module in find_commands():
        one = below.add_parser(module.NAME, help=module.SUMMARY, description=module.SUMMARY)
        module.add(one)
        one.set_defaults(run=module.run)
    _add_common(parser, argparse.SUPPRESS)
    return parser


def _add_common(parser, default):
    """Give a parser and those below it --dir and --json; the innermost one that is used wins."""
    group = parser.add_argument_group("common options")
    group.add_argument(
        "--dir", default=default, help=f"folder of the certificates (default: {DIRECTORY})"
    )
    group.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object"
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _add_common(each, default)


def main(arguments=None):
    """Run the command line `arguments` (list of str; of the process when None); return 0, 1, 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("\nmqttls: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mqttls status | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _main(arguments):
    if not arguments:
        print(EXAMPLES, end="")
        return 0
    report = Report(as_json="--json" in arguments)
    command = ""
    try:
        chosen = make_parser().parse_args(arguments)
        if chosen.command is None:
            raise Usage("no command given: mqttls --help lists them")
        command = chosen.command
        chosen.dir = getattr(chosen, "dir", DIRECTORY)
        chosen.json = report.as_json
        status = chosen.run(chosen, report) or report.status
    except Usage as error:
        status = _failed(report, 2, Failure(str(error)))
    except Failure as error:
        status = _failed(report, 1, error)
    except OSError as error:  # full disk, no permission, …: with the file's name
        if isinstance(error, BrokenPipeError):
            raise
        status = _failed(report, 1, _sentence(error))
    report.finish(command, status)
    return status


def _failed(report, status, failure):
    """Tell of a Failure: among the JSON object's problems, or on stderr."""
    if report.as_json:
        report.problem(failure.stage, failure.fact, failure.cause, failure.cure)
        return status
    report.finish("", status)
    print(f"mqttls: {failure.fact}", file=sys.stderr)
    if failure.cause:
        print(f"  why:  {failure.cause}", file=sys.stderr)
    if failure.cure:
        print(f"  cure: {failure.cure}", file=sys.stderr)
    return status


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
    return Failure(f"{where}{error.strerror or error}", _CURES.get(name, ""), stage="files")
