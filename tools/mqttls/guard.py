"""
Whether a folder may be acted in: nobody else can change it, and no name in it leads elsewhere.

A folder of certificates may come from somebody else, or lie where others can write. In one that
passes here every path is what it seems to be, and stays so while a command runs: what is written
into it goes nowhere else, and what is read from it is nobody else's. (On Windows it looks for
links only: whose a folder is, and who may write there, are lists of rights, which `init` sets.)
"""

import contextlib
import os
import stat

from . import system
from .messages import Failure, shell

_OTHERS_WRITE, _OTHERS_REACH = 0o022, 0o011
_MOST_LINKS = 40  # as Linux has it
_JUNCTION = getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)


def check_place(path):
    """
    Raise Failure where somebody else could put another folder in the place of `path` (str).

    That is where one above it is writable by others, unless it is sticky like /tmp, or belongs to
    another user than root and the caller.
    """
    if not str(path).isprintable() or not os.path.realpath(path).isprintable():
        raise Failure(
            f"{os.path.realpath(path)} has characters in its name that cannot be printed",
            "choose another --dir, or rename the folder that has them",
            stage="files",
        )
    if system.is_windows():
        return
    seen = set()
    for at, is_link in _way(path):
        if is_link:
            _check_owner(at, os.lstat(at))
        elif at not in seen:
            seen.add(at)
            _check_above(path, at)


def _way(path):
    """
    Yield how the system finds `path` (str), which may not be there: (each folder in which it looks
    a name up, False), (each link that it follows, True). None of these has a link in its path.
    """
    names = os.path.join(os.getcwd(), path).split("/")[::-1]
    here, links = "/", 0
    while names and links < _MOST_LINKS:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":  # of where a link led to, not of where it lies
            here = os.path.dirname(here)
            continue
        yield here, False
        at = os.path.join(here, name)
        try:
            target = os.readlink(at)
        except OSError:  # no link, or not there
            here = at
            continue
        yield at, True
        links += 1
        here = "/" if target.startswith("/") else here
        names += target.split("/")[::-1]


def _check_above(path, above):
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(above)
        if not _is_trusted(found.st_uid):
            raise Failure(
                f"{path} lies in {above}, which belongs to {_user(found.st_uid)}, who could "
                "exchange it",
                "keep it in a folder of your own, with --dir",
                stage="files",
            )
        if _others_write(above, found) and not found.st_mode & stat.S_ISVTX:
            raise Failure(
                f"{path} lies in {above}, in which others can write: they could exchange it",
                "keep it in a folder of your own, with --dir; or: "
                + shell("chmod", "go-w", above),
                stage="files",
            )


def check_folder(path):
    """
    Raise Failure where others can write in the folder `path` (str), it or something in it belongs
    to somebody else, or something in it is no file and no folder but a link or a device.
    """
    top = os.stat(path)
    if not system.is_windows():
        _check_owner(path, top, only=os.geteuid())
        _check_writable(path, top)
    reachable = bool(top.st_mode & _OTHERS_REACH)
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            if folder == path:
                raise
            continue  # another run has ended a change, or made one: it comes before the lock
        for each in entries:
            with contextlib.suppress(FileNotFoundError):
                found = each.stat(follow_symlinks=False)
                _check_kind(each.path, found)
                if not system.is_windows():
                    _check_owner(each.path, found)
                    if reachable:  # into one of mode 0700 nobody else comes
                        _check_writable(each.path, found)
                if stat.S_ISDIR(found.st_mode):
                    folders.append(each.path)


def check_alone(path):
    """Raise Failure where the file `path`, which will be opened for writing, has other names."""
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_nlink > 1:
            raise _foreign(path, "is another name of a file that lies elsewhere")


def _check_kind(path, found):
    if stat.S_ISLNK(found.st_mode) or _is_junction(found):
        with contextlib.suppress(OSError, ValueError):
            raise _foreign(path, f"is a link, to {os.readlink(path)}")
        raise _foreign(path, "is a link")
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise _foreign(path, "is neither a file nor a folder")


def _is_junction(found):
    return _JUNCTION is not None and getattr(found, "st_reparse_tag", 0) == _JUNCTION


def _foreign(path, what):
    return Failure(
        f"{path} {what}: mqttls makes none and follows none",
        "remove it; but if that folder comes from somebody else, use none of it",
        stage="files",
    )


def _check_owner(path, found, only=None):
    trusted = _is_trusted(found.st_uid) if only is None else found.st_uid == only
    if not trusted:
        owner, me = _user(found.st_uid), _user(os.geteuid())
        raise Failure(
            f"{path} belongs to {owner}, not to {me}: mqttls acts in folders of its user only",
            f"run it as {owner}, without sudo; or, where the folder is yours: "
            f"{shell('sudo', 'chown', '-R', me, path)}",
            stage="files",
        )


def _check_writable(path, found):
    if _others_write(path, found):
        raise Failure(
            f"others can write to {path}: what is in it may be theirs",
            f"look through it, then: {shell('chmod', '-R', 'go-w', path)}",
            stage="files",
        )


def _is_trusted(uid):
    return uid in (0, os.geteuid()) or _is_unmapped(uid)


def _is_unmapped(uid):
    """Tell whether `uid` stands for users outside of this container (user_namespaces(7))."""
    try:
        with open("/proc/sys/kernel/overflowuid", encoding="ascii") as file:
            if uid != int(file.read()):
                return False
        with open("/proc/self/uid_map", encoding="ascii") as file:
            ranges = [list(map(int, line.split())) for line in file]
    except (OSError, ValueError):
        return False
    return not any(first <= uid < first + count for first, _, count in ranges)


def _others_write(path, found):
    others = found.st_mode & _OTHERS_WRITE
    is_own = others == stat.S_IWGRP and _is_own_group(found.st_gid) and not _has_list(path)
    return bool(others) and not is_own


def _has_list(path):
    """Tell whether more users are named for `path` (acl(5)); the group's bits are theirs, too."""
    try:
        return bool(os.getxattr(path, "system.posix_acl_access"))
    except (AttributeError, OSError):  # macOS shows no such; none, or none on this disk
        return False


def _is_own_group(gid):
    """Tell whether only root and the caller are in a group: many systems make one a user."""
    import grp  # Windows, which does not come here, has neither
    import pwd

    try:
        group, me = grp.getgrgid(gid), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return group.gr_name in (me, "root") and set(group.gr_mem) <= {me, "root"}


def _user(uid):
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return f"user {uid}"
