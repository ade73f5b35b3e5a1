"""What differs between Linux, macOS and Windows: private files, renames, how a word is quoted."""

import contextlib
import errno
import os
import re
import shlex
import shutil
import stat
import subprocess
import time

_PATIENCE_S = 5  # Windows: for a virus scanner, an indexer, a broker to close a file
_PLAIN = re.compile(r"[\w.,:/\\@+=-]+", re.ASCII)


def is_windows():
    """Tell whether this is Windows itself (WSL is Linux)."""
    return os.name == "nt"


def quote(word):
    """
    Return `word` (str) as a shell takes it: sh here, on Windows cmd and PowerShell alike.

    Those two agree on double quotes only; where PowerShell would replace something inside of them
    it gets single ones.
    """
    if not is_windows():
        return shlex.quote(word)
    if _PLAIN.fullmatch(word):
        return word
    if "$" in word or "`" in word:
        return "'" + word.replace("'", "''") + "'"
    # a backslash before the closing quote would make it a part of the word
    return '"' + re.sub(r"(\\+)$", r"\1\1", word) + '"'


def create(path, data, mode=0o600):
    """
    Make the file `path`, which is not there, with `data` (bytes), on the disk when this returns.

    mode  who may read it, whatever the umask; on Windows it has the rights of its folder

    Raises OSError with the file's name.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    # Windows has no links to follow here, and would make CR LF of each LF
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags, mode)
    try:
        if not is_windows():
            os.fchmod(file, mode)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(file)


def replace(old, new):
    """Rename the file or folder `old` to `new`, in the place of a file that is there. OSError."""
    _patiently(os.replace, old, new)


def remove_tree(folder):
    """Remove `folder` and what is in it. Raises OSError."""
    _patiently(shutil.rmtree, folder)


def _patiently(function, path, *target):
    # Windows refuses while another program has the file open, or when it is marked read-only.
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return function(path, *target)
        except PermissionError as error:
            if not is_windows() or time.monotonic() > deadline:
                raise
            with contextlib.suppress(OSError):
                os.chmod(target[0] if target else error.filename, stat.S_IWRITE)
        time.sleep(0.05)


def sync_folder(path):
    """Have the names in a folder on the disk; Windows does that by itself. Raises OSError."""
    if is_windows():
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems sync no folders
            raise
    finally:
        os.close(folder)


def keep_private(folder):
    """
    Let nobody but its owner into `folder`; on Windows what is made in it inherits that.

    Return why it was not possible (str), "" when it was. Raises OSError.
    """
    if not is_windows():
        os.chmod(folder, 0o700)
        return ""
    try:
        _run(*_icacls(folder))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def is_open_to_others(path):
    """Tell whether others may read a file or folder; on Windows of a folder only. OSError."""
    if not is_windows():
        return bool(os.stat(path).st_mode & 0o077)
    if not os.path.isdir(path):
        return False
    try:
        return b"(I)" in _run("icacls", str(path))  # rights inherited from the folder above
    except OSError:
        return True


def owner_of(path):
    """Return the name of the user who owns a file or folder, "" where the system names none."""
    try:
        return path.owner()
    except (KeyError, NotImplementedError, OSError):
        return ""


def private_command(path):
    """Return the command (str) that lets nobody but the owner read a file or folder."""
    if not is_windows():
        return f"chmod {'700' if os.path.isdir(path) else '600'} {quote(str(path))}"
    try:
        command = _icacls(path)
    except OSError:
        command = ["icacls", str(path), "/inheritance:r", "/grant:r", "YOU:(OI)(CI)F"]
    return " ".join(map(quote, command))


def _icacls(path):
    # By number: names of accounts may be in any code page.
    found = re.search(rb"S-1-[\d-]+", _run("whoami", "/user"))
    if not found:
        raise OSError(errno.EINVAL, "whoami names no account")
    grant = f"*{found[0].decode()}:(OI)(CI)F"
    return ["icacls", str(path), "/inheritance:r", "/grant:r", grant]


def _run(program, *arguments):
    # With its whole path: Windows looks into the current folder first.
    path = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", f"{program}.exe")
    done = subprocess.run(
        [path, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise OSError(errno.EIO, f"{program} ended with {done.returncode}: {said[-300:]}")
    return done.stdout
