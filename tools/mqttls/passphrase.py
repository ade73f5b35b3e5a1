"""The passphrase of the CA's key: from the terminal or a file, never from a command line."""

import getpass
import os
import sys
from pathlib import Path

from .report import Failure

VARIABLE = "MQTTLS_PASSPHRASE_FILE"


def ask(what, twice=False):
    """
    Return the passphrase (bytes): of the file that $MQTTLS_PASSPHRASE_FILE names, its first line;
    else as typed on the terminal.

    what   whose it is, for the question
    twice  ask again, and compare: for a new one

    Raises Failure when it is empty, differs, or there is neither file nor terminal; OSError.
    """
    name = os.environ.get(VARIABLE)
    if name:
        lines = Path(name).read_bytes().splitlines()
        if not lines or not lines[0]:
            raise Failure(f"{name} is empty", f"put the passphrase into the first line of {name}")
        return lines[0]
    if not sys.stdin.isatty():
        raise Failure(
            f"the passphrase of {what} is needed, and there is no terminal to ask on",
            f"write it into a file that only you can read, and set {VARIABLE} to its path",
        )
    typed = getpass.getpass(f"passphrase of {what}: ")
    if not typed:
        raise Failure("the passphrase is empty", "type one, or leave --encrypt-ca away")
    if twice and getpass.getpass("once more: ") != typed:
        raise Failure("the two passphrases differ", "try again")
    return typed.encode()
