"""
`mqttls try main.py`: an app against the faults of its network and its broker. What does it is the
test kit, a package of its own.
"""

import importlib
import importlib.util
from pathlib import Path

from ..messages import Failure, Usage, shell

NAME = "try"
SUMMARY = "run an app here, break its connections in every way, and say what became of it"

_KIT = "mqtt_as_tls_testkit"
_LAST = 12  # lines of the app


def add(parser):
    parser.add_argument("app", nargs="?", metavar="main.py", help="what would run on the board")
    parser.add_argument(
        "--fault",
        action="append",
        nargs="+",
        default=[],
        metavar="FAULT",
        help="only these, such as broker-restart, or rst@puback-in: the packet at which it "
        "strikes (default: every fault; --fault help lists them)",
    )
    parser.add_argument(
        "--send",
        action="append",
        default=[],
        metavar="TOPIC=PAYLOAD",
        help="publish this to the app after each fault, and see that it takes it",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=5,
        metavar="S",
        help="how long the app goes on for when it is back (default: 5)",
    )


def run(arguments, report):
    """Return 0 when the app has got over all of them, else 1."""
    trial = _trial()
    faults = [each for some in arguments.fault for each in some]
    if faults == ["help"]:
        for name, what in trial.FAULTS.items():
            report.say(f"{name}  {what}")
        report.say("moments  " + ", ".join(trial.MOMENTS))
        report.data.update(faults=trial.FAULTS, moments=list(trial.MOMENTS))
        return 0
    if arguments.app is None:
        raise Usage("no app given: mqttls try main.py")
    main = Path(arguments.app)
    if not main.is_file():
        raise Failure(f"there is no app {main}", "give the path of its main.py")
    try:
        for each in faults:
            trial.parse(each)
    except ValueError as error:
        raise Usage(str(error)) from None
    sends = [_split(each) for each in arguments.send]
    found = report.data["faults"] = []
    tried = 0
    try:
        for outcome in trial.outcomes(main.resolve(), faults, sends, arguments.seconds):
            found.append(vars(outcome))
            tried += not outcome.unable
            _tell(outcome, report)
    except trial.Unavailable as reason:
        raise Failure(str(reason)) from None
    if not tried:
        raise Failure("no fault could be tried")
    return 1 if report.problems else 0


def _split(text):
    topic, equals, payload = text.partition("=")
    if not equals or not topic:
        raise Usage("--send takes TOPIC=PAYLOAD, such as devices/test-device/valve=on")
    return topic, payload


def _tell(outcome, report):
    report.say(f"{outcome.fault}  {outcome.words()}", word=outcome.fault, word_tone="bold")
    problems = outcome.problems()
    for fact, cure in problems:
        report.problem(outcome.fault, fact, cure=cure)
    if problems:
        for line in outcome.lines[-_LAST:]:
            report.say(f"    {line}", tone="dim")


def _trial():
    """Return the module of the test kit that does it: in the clone, or of its wheel."""
    package = "tests" if __package__.startswith("tools.") else _KIT
    if not importlib.util.find_spec(package):
        raise Failure(
            "the test kit is not installed",
            "in the Python of mqttls: " + shell("pip", "install", "mqtt-as-tls-testkit"),
        )
    return importlib.import_module(f"{package}.kit.trial")
