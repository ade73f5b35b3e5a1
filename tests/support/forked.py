"""
A Python program that is run hundreds of times: each time a process of its own, which has what it
imports from the start. A process that has loaded all that forks for each run.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading

from tests.support import process

_BEFORE = "from tests.support.forked import become; become({fd}, {modules})\n"


def become(fd, modules):
    """
    Be the process that forks: return in each child, which goes on as the program does.

    fd       int, of the socket to Forked
    modules  list of str, what is imported before
    """
    for name in modules:
        importlib.import_module(name)
    with socket.socket(fileno=fd) as sock:
        while True:
            word, fds, _, _ = socket.recv_fds(sock, 1, 3)
            if not word:
                os._exit(0)
            child = os.fork()
            if not child:
                break
            for each in fds:
                os.close(each)
            _, status = os.waitpid(child, 0)
            sock.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    given, *files = fds
    with open(given, "rb") as file:
        arguments, environment = json.load(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    for number, each in enumerate(files, 1):
        os.dup2(each, number)
        os.close(each)


class Forked:
    """
    command  list of str, [an interpreter, "-c", the program]
    modules  list of str, what it imports
    options  of subprocess.Popen
    """

    def __init__(self, command, modules, **options):
        self._command, self._modules, self._options = command, modules, options
        self._lock = threading.Lock()
        self._child = None

    def run(self, arguments, timeout_s):
        """
        Return (exit status, stdout, stderr) of a run with `arguments` (list of str), without
        stdin, with the environment that this process has now; None while another one runs.

        Raises subprocess.TimeoutExpired.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._run(arguments, timeout_s)
        finally:
            self._lock.release()

    def _run(self, arguments, timeout_s):
        if self._child is None or self._child.poll() is not None:
            self._start()
        with contextlib.ExitStack() as stack:
            given, out, err = (
                stack.enter_context(tempfile.TemporaryFile(dir=self._folder)) for _ in range(3)
            )
            given.write(json.dumps([arguments, dict(os.environ)]).encode())
            given.seek(0)
            self._sock.settimeout(timeout_s)
            try:
                socket.send_fds(self._sock, [b"."], [each.fileno() for each in (given, out, err)])
                status = self._sock.makefile("rb").readline()
            except TimeoutError:
                self.close()
                raise subprocess.TimeoutExpired(arguments, timeout_s) from None
            assert status, "what forks has ended"
            said = []
            for each in (out, err):
                each.seek(0)
                said.append(each.read().decode())
            return int(status), *said

    def _start(self):
        self._folder = tempfile.gettempdir()
        self._sock, far = socket.socketpair()
        with far:
            fd = far.fileno()
            interpreter, flag, program = self._command
            before = _BEFORE.format(fd=fd, modules=self._modules)
            self._child = process.spawn(
                [interpreter, flag, before + program],
                stdin=process.NULL,
                stdout=process.NULL,
                pass_fds=[fd],
                **self._options,
            )

    def close(self):
        """End it, and what it runs."""
        if self._child:
            process.signal_group(self._child, signal.SIGKILL)
            process.end(self._child)
            self._sock.close()
            self._child = None
