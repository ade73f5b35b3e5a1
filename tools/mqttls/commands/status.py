"""`mqttls status`"""

from ..files import Directory

NAME = "status"
SUMMARY = "what exists, for which names, until when"


def add(parser):
    """It takes nothing but the common options."""


def run(arguments, report):
    """Say what the folder holds; a problem found makes it 1."""
    with Directory.opened(arguments.dir, write=False) as directory:
        report.say(f"{directory.path}: {len(directory.devices())} devices")
        report.data["devices"] = directory.devices()
    return report.status
