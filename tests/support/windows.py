"""
Windows, as far as Linux can show it: a Python without what Python has on POSIX only.

A process started with environment() has `os.name` "nt"; `import fcntl` and its like fail; what
`os` and `signal` lack on Windows is gone; Popen refuses what it refuses there; the console speaks
cp1252; text files opened without an encoding raise. What it cannot show: `sys.platform` stays, as
the standard library would import what only Windows has; paths stay POSIX's; open files can be
renamed; nothing writes CR LF by itself; `icacls` is what a test puts in its place.
"""

import os
import sys

MODULES = (
    "crypt",
    "fcntl",
    "grp",
    "pty",
    "pwd",
    "readline",
    "resource",
    "syslog",
    "termios",
    "tty",
)
OS = (
    "O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_SYNC WIFEXITED WIFSIGNALED "
    "chown chroot ctermid fchdir fchmod fchown fdatasync fork forkpty getegid geteuid getgid "
    "getgroups getloadavg getpgid getpgrp getpriority getresuid getsid getuid initgroups killpg "
    "lchown lockf mkfifo mknod nice openpty pipe2 pread pwrite readv "
    "sched_getaffinity sendfile setegid seteuid setgid setgroups setpgid setpriority setreuid "
    "setsid setuid statvfs sync sysconf tcgetpgrp ttyname uname wait wait3 wait4 writev"
).split()
# SIGKILL, posix_spawn and O_NONBLOCK are gone there, too, but subprocess and shutil use them here
SIGNALS = "SIGALRM SIGCHLD SIGHUP SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pause setitimer".split()
POPEN = ("extra_groups", "group", "pass_fds", "preexec_fn", "process_group", "umask", "user")


def environment(folder, **more):
    """
    Return the environment (dict) of a Python process that finds itself on Windows.

    folder  Path of a folder that this may write into; temporary files lie there, too
    more    further variables
    """
    site = folder / "as-on-windows"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(
        f"import runpy\nrunpy.run_path({__file__!r})['take_away']()\n", encoding="utf-8"
    )
    # as a login to Windows has it; neither NO_COLOR nor a virtual environment of this process
    gone = ("COLUMNS", "HOME", "LANG", "LC_ALL", "NO_COLOR", "PYTHONUTF8", "TERM")
    env = {name: value for name, value in os.environ.items() if name not in gone}
    paths = [str(site), *filter(None, [env.get("PYTHONPATH")])]
    return {
        **env,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONWARNDEFAULTENCODING": "1",
        "SYSTEMROOT": str(folder / "no-such-windows"),
        "TMPDIR": str(folder),
        "USERPROFILE": str(folder),
        **more,
    }


def icacls(folder, sid="S-1-5-21-1-2-3-1001", fails=False):
    """
    Put `whoami` and `icacls` into `folder` (Path); return {"SYSTEMROOT": …} for environment().

    fails  icacls refuses

    What icacls was called with is in `folder`/icacls.log, a line a call.
    """
    system = folder / "System32"
    system.mkdir(parents=True)
    log = folder / "icacls.log"
    answer = "echo Access denied.; exit 5" if fails else 'echo "$1 PC\\\\me:(OI)(CI)(F)"'
    scripts = {
        "whoami.exe": f'echo \'"pc\\me","{sid}"\'\n',
        "icacls.exe": f'echo "$*" >>"{log}"\n{answer}\n',
    }
    for name, text in scripts.items():
        (system / name).write_text("#!/bin/sh\n" + text, encoding="utf-8")
        (system / name).chmod(0o755)
    return {"SYSTEMROOT": str(folder)}


def take_away():
    """Make this process one on Windows; what the standard library needs is imported before."""
    import asyncio  # noqa: F401
    import pathlib
    import shutil  # noqa: F401
    import signal
    import socket
    import ssl  # noqa: F401
    import subprocess
    import tempfile  # noqa: F401
    import warnings

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name in MODULES:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Finder)
    for module, names in ((os, OS), (signal, SIGNALS), (socket, ["AF_UNIX"])):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            for name in POPEN:
                if options.get(name) not in (None, (), -1):
                    raise ValueError(f"{name} is not supported on Windows platforms")
            super().__init__(*arguments, **options)

    subprocess.Popen = Popen
    for module in (pathlib, sys.modules.get("pathlib._local")):
        if module:
            module.WindowsPath = pathlib.PosixPath
    # filelock has another lock on Windows, which is not here; this one has no fcntl
    warnings.filterwarnings("ignore", "only soft file lock", UserWarning)
    warnings.filterwarnings("error", category=EncodingWarning, module=r"(tools|__main__)\b")
    os.name = "nt"
