"""
Files that the user names: whatever is there, it is read to a bound, and nothing waits for ever.
"""

import contextlib
import os
import select
import stat
import time

from . import system
from .messages import Failure

LARGEST = 16 << 20  # bytes, where the caller has no bound of its own
_PIPE_S = 60  # for all of a pipe: who writes into it may ask for a passphrase first
_PIECE = 65536


def read(path, largest=LARGEST, private=False):
    """
    Return what is in the file `path`, or comes out of that pipe (bytes).

    largest  bytes that it may have; a multiple of 1 MB
    private  others must not be able to read it: there is a secret in it

    Raises Failure when it is larger, a folder, a device, a pipe that nobody writes into or that
    is not closed within 60 s, or when others can read it; OSError when it cannot be opened.
    """
    with _opened(path) as file:
        kind = os.fstat(file).st_mode
        if private and stat.S_ISREG(kind) and system.is_open_to_others(file):
            raise Failure(
                f"others can read {path}, in which a secret is",
                f"{system.private_command(path)}; and choose another secret if they may have"
                " read it",
                stage="files",
            )
        is_pipe = stat.S_ISFIFO(kind)
        deadline = time.monotonic() + _PIPE_S
        data = bytearray()
        while len(data) <= largest:
            try:
                more = os.read(file, min(_PIECE, largest + 1 - len(data)))
            except BlockingIOError:
                _wait(path, file, deadline)
                continue
            if not more:
                break
            data += more
    if is_pipe and not data:
        raise Failure(f"{path} is a pipe that nobody writes into", "name a file", stage="files")
    if len(data) > largest:
        raise Failure(
            f"{path} has more than {largest >> 20} MB", "name another file", stage="files"
        )
    return bytes(data)


@contextlib.contextmanager
def opened(path):
    """
    Give the regular file `path`, open for reading (binary), in a `with`.

    Raises Failure for what is none; OSError.
    """
    with _opened(path) as number:
        if stat.S_ISFIFO(os.fstat(number).st_mode):
            raise Failure(f"{path} is a pipe, not a file", "name the file", stage="files")
        with open(number, "rb", closefd=False) as file:
            yield file


@contextlib.contextmanager
def _opened(path):
    # without waiting: a pipe would keep us until somebody writes into it
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    file = os.open(path, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        kind = os.fstat(file).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
            what = "a folder" if stat.S_ISDIR(kind) else "a device"
            raise Failure(f"{path} is {what}, not a file", "name the file", stage="files")
        yield file
    finally:
        os.close(file)


def _wait(path, file, deadline):
    left = deadline - time.monotonic()
    if left <= 0 or not select.select([file], [], [], left)[0]:
        raise Failure(
            f"{path} is a pipe that was not closed within {_PIPE_S} s",
            "end who writes into it, or name a file",
            stage="files",
        )
