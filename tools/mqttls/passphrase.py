"""Secrets: from the terminal or the first line of a file, never from a command line."""

import codecs
import getpass
import os
import sys

from . import given
from .messages import Failure, Usage
from .screen import printable

_LONGEST = 65535  # bytes of a password (3.1.1 section 3.1.3.5)
VARIABLE = "MQTTLS_PASSPHRASE_FILE"
SHORTEST = 12  # characters of a new passphrase


def first_line(path):
    """
    Return the first line (bytes) of a file with a secret, b"" where it is empty.

    Raises Failure where others can read it, and else, as OSError: see given.read.
    """
    data = given.read(path, private=True)
    if data.startswith(codecs.BOM_UTF16_LE):  # what > writes in Windows's PowerShell
        data = data.decode("utf-16", "replace").encode()
    return (data.removeprefix(codecs.BOM_UTF8).splitlines() or [b""])[0]


def ask(what, twice=False):
    """
    Return the passphrase (bytes): of the file that $MQTTLS_PASSPHRASE_FILE names, its first line;
    else as typed on the terminal.

    what   whose it is, for the question
    twice  ask again, and compare: for a new one, which has a shortest length

    Raises Failure when it is empty, too short, differs, others can read its file, or there is
    neither file nor terminal; OSError.
    """
    name = os.environ.get(VARIABLE)
    if name:
        found = first_line(name)
        if not found:
            raise Failure(f"{name} is empty", f"put the passphrase into the first line of {name}")
        return _long_enough(found) if twice else found
    if not sys.stdin.isatty():
        raise Failure(
            f"the passphrase of {what} is needed, and there is no terminal to ask on",
            f"write it into a file that only you can read, and set {VARIABLE} to its path",
        )
    typed = getpass.getpass(f"passphrase of {what}: ")
    if not typed:
        raise Failure("the passphrase is empty", "type one, or leave --encrypt-ca away")
    found = typed.encode(errors="surrogateescape")
    if twice:
        _long_enough(found)
    if twice and getpass.getpass("once more: ") != typed:
        raise Failure("the two passphrases differ", "try again")
    return found


def password(user, path=None):
    """
    Return the password (str) of `user` (str) at a broker: the first line of the file `path`, of
    the standard input where that is "-"; else as typed on the terminal.

    Raises Usage when it is empty, too long, no UTF-8, or there is neither file nor terminal;
    Failure, OSError: see given.read.
    """
    if path == "-":
        data = sys.stdin.buffer.readline(_LONGEST + 2).rstrip(b"\r\n")
    elif path:
        data = first_line(path)
    elif sys.stdin.isatty():
        data = getpass.getpass(f"password of {printable(user)}: ").encode(errors="surrogateescape")
    else:
        raise Usage(
            f"the password of {user} is needed, and there is no terminal to ask on: "
            "--password-file FILE, or - for the standard input"
        )
    try:
        found = data.decode()
    except UnicodeDecodeError:
        raise Usage("the password is not UTF-8: save its file as that") from None
    if not found or len(data) > _LONGEST:
        raise Usage("the password is empty" if not found else "the password is too long")
    return found


def _long_enough(passphrase):
    """Return `passphrase` (bytes); raise Failure where somebody with the file would guess it."""
    if len(passphrase.decode(errors="replace")) < SHORTEST:
        raise Failure(
            f"a passphrase of less than {SHORTEST} characters is guessed by who has the file",
            "take a longer one: four or five words that have nothing to do with each other",
        )
    return passphrase
