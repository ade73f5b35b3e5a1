"""Secrets: from the terminal or the first line of a file, never from a command line."""

import codecs
import getpass
import os
import sys

from .files import read_given
from .messages import Failure

VARIABLE = "MQTTLS_PASSPHRASE_FILE"


def first_line(path):
    """
    Return the first line (bytes) of a file with a secret, b"" where it is empty.

    Raises Failure, OSError: see files.read_given.
    """
    data = read_given(path)
    if data.startswith(codecs.BOM_UTF16_LE):  # what > writes in Windows's PowerShell
        data = data.decode("utf-16", "replace").encode()
    return (data.removeprefix(codecs.BOM_UTF8).splitlines() or [b""])[0]


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
        found = first_line(name)
        if not found:
            raise Failure(f"{name} is empty", f"put the passphrase into the first line of {name}")
        return found
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
