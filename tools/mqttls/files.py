"""
The folder in which everything is kept, and how it is written.

    mqtt-pki/                 0700
      settings.json           what `init` was told
      ca.crt ca.key           the authority; ca/SERIAL.crt and .key are older ones, in a roll-over
      crl.pem revoked.json    what was revoked
      issued.jsonl            every certificate that was ever issued, a line each
      update.key update.der   what signs updates, made by the first `update build`; its public part
      acl.own                 what `broker-conf --acl-file` was given
      broker/                 what the broker needs, and its install script
      devices/NAME/           what the board NAME needs
      archive/SERIAL/         what was replaced or revoked, by the certificate's serial number,
                              without keys and passwords

A command changes it in one `Change`: new files are written beside the old ones, into `.new`; a
rename of that folder to `.commit` decides; then they move to their places. Whoever is killed
before the rename has changed nothing; who is killed after it is finished off by the next command.

Such a rest may be one that somebody else has put there. It can do no more than what could have
been put there in the first place: a folder with links in it is refused (guard), and of a change
only paths that stay in the folder are taken.
"""

import contextlib
import json
import os
import re
import stat
from pathlib import Path

import filelock

from . import guard, system
from .messages import Failure, command
from .names import check_device_name, is_device_name, is_port, settings_problem

SETTINGS, TLS_JSON = "settings.json", "tls.json"
_MAY_HAVE = ("client_id", "server_hostname", "user", "password", "own_host", "device", "home")
LOCK_WAIT_S = 60
_AT_ONCE = 25

# What the rest relies on
_SETTINGS = {
    "names": [str],
    "port": int,
    "bind": (str, type(None)),
    "key": str,
    "server_only": bool,
    "docker": bool,
    "admins": [str],
    "days": {"broker": int, "device": int},
}

# Nobody needs them any more, but whoever finds them
_SECRET = re.compile(r"key\.(?:der|pem)|.*\.key|tls\.json|passwords")

_LOCK, _NEW, _COMMIT, _TREE, _REMOVALS = ".lock", ".new", ".commit", "tree", "remove.json"
# A change has no hidden names, none that leads upwards, none from the root
_PLACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,7}")


def write(path, data):
    """
    Write `data` (bytes or str) to `path` so that it is there whole or not at all.

    A temporary file beside it, which only the owner may read, is synced and renamed. For one file
    in a Directory that is open; several change together in a Change.

    Raises OSError with the file's name.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a run that was killed
    try:
        system.create(temporary, _bytes(data))
        system.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    system.sync_folder(path.parent)


def _bytes(data):
    return data.encode() if isinstance(data, str) else data


def _make_folder(path):
    if not path.is_dir():
        _make_folder(path.parent)
        os.mkdir(path, 0o700)  # Path.mkdir would give the folders above it the umask's mode


def batches(items):
    """
    Return lists of 25 of `items` (list), for a Change each: when it is killed, so much is lost.
    """
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]


def read_json(path, shape=dict):
    """
    Return what the JSON file `path` holds; raise Failure when it is damaged, OSError.

    shape  what it must be like: a type, {key: shape} of keys that it must have, [shape] of all
           that is in a list, or a function that tells whether a value is so
    """
    try:
        found, why = _loaded(Path(path).read_bytes()), "it is not what mqttls writes"
    except (ValueError, RecursionError):
        found, why = None, "it is not JSON"
    if not _fits(found, shape):
        raise _damaged(path, why)
    return found


def read_tls_json(folder):
    """
    Return what the tls.json in the folder of a device (Path) holds (dict).

    Raises Failure when it is missing or damaged: what it names are files of that folder.
    """
    path = folder / TLS_JSON
    anew = command("device", "add", folder.name)
    try:
        found = read_json(path, {"host": str, "port": int, "ca": [str]})
    except FileNotFoundError:
        fact = f"{path} is missing"
        raise Failure(fact, f"make it with: {anew}", stage="files") from None
    except Failure as failure:
        fact = f"{failure.fact}: it needs host, port and ca"
        raise Failure(fact, f"make it anew with: {anew}", stage="files") from None
    named = [*found["ca"], *(found[each] for each in ("cert", "key") if found.get(each))]
    others = [found.get(each) for each in _MAY_HAVE]
    wrong = "a file of another folder" if not all(map(_is_file_name, named)) else ""
    if not all(each is None or isinstance(each, str) for each in others):
        wrong = "something else than text"
    if not is_port(str(found["port"])) or not is_port(str(found.get("own_port", 1))):
        wrong = "a port that is none"
    if not found["ca"] and found.get("tls") is not False:  # none by mistake is not none at all
        wrong = "no CA"
    if wrong or not found["host"].isprintable():
        fact = f"{path} is damaged: it has {wrong or 'no host'}"
        raise Failure(fact, f"make it anew with: {anew}", stage="files")
    return found


def _is_file_name(text):
    return isinstance(text, str) and _PLACE.fullmatch(text) is not None and "/" not in text


def _damaged(path, why):
    cure = "put it back from a backup of the folder"
    return Failure(f"{path} is damaged: {why}", cure, stage="files")


def read_lines(path, shape):
    """Return what the lines of JSON in the file `path` hold (list), as read_json does."""
    found = []
    for line in Path(path).read_bytes().splitlines():
        try:
            found.append(_loaded(line))
        except (ValueError, RecursionError):
            found.append(None)
        if not _fits(found[-1], shape):
            raise _damaged(path, f"line {len(found)} is not what mqttls writes")
    return found


def _loaded(data):
    """Return what JSON (bytes) holds; raise ValueError, also for half a character in a text."""
    found = json.loads(data)
    json.dumps(found, ensure_ascii=False).encode()
    return found


def _fits(value, shape):
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(
            key in value and _fits(value[key], each) for key, each in shape.items()
        )
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if isinstance(shape, (type, tuple)):
        return isinstance(value, shape)
    return shape(value)


class Directory:
    """
    The folder of a user's certificates.

    path       Path of it
    settings   dict of settings.json
    exposed    why it could not be kept from others when it was made (str), or ""
    """

    def __init__(self, path):
        self.path = Path(path)
        self.exposed = ""

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path, *, create=False, write=True):
        """
        Give the Directory, locked against another run, an interrupted change finished.

        create  make it (0700) where there is none
        write   False for a command that only looks: works on a read-only disk, too

        Raises Failure when it is not there, not one of ours, not safe from others (see guard), or
        busy for LOCK_WAIT_S; OSError.
        """
        self = cls(path)
        new = False
        guard.check_place(path)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
                new = True
        if not self.path.is_dir():
            if self.path.exists():
                raise Failure(f"{self.path} is not a folder", "choose another --dir")
            raise self._missing()
        if create and not (self.path / _LOCK).exists():
            self._refuse_strangers()  # nothing of ours may be left in their folder
        try:
            guard.check_folder(self.path)
            with self._locked(write):
                try:
                    self._recover()
                except OSError:
                    if write:
                        raise
                if write:
                    self._sweep_archive()
                if create:
                    self._refuse_strangers()
                    self.exposed = system.keep_private(self.path)
                elif not (self.path / SETTINGS).exists():
                    raise self._missing()
                yield self
        except BaseException:
            if new:
                with contextlib.suppress(OSError):  # something is in it: it stays
                    (self.path / _LOCK).unlink(missing_ok=True)
                    os.rmdir(self.path)
            raise

    def _missing(self):
        init = command("init", "--broker", "NAME-OR-ADDRESS")
        return Failure(
            f"there are no certificates in {self.path}",
            f"make them with: {init}; for a broker that is somebody else's: "
            f"{command('use', 'HOST')}; or say where with --dir",
            stage="files",
        )

    def _refuse_strangers(self):
        others = [each for each in os.listdir(self.path) if not each.startswith(".")]
        if others and not (self.path / SETTINGS).exists():
            raise Failure(
                f"{self.path} holds other files ({sorted(others)[0]}, …)",
                "choose an empty or a new folder with --dir",
                stage="files",
            )

    @contextlib.contextmanager
    def _locked(self, write):
        # It ends with the process, however that ends; the file stays.
        guard.check_alone(self.path / _LOCK)
        lock = filelock.FileLock(self.path / _LOCK, LOCK_WAIT_S, mode=0o600)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise Failure(
                f"another mqttls has been working in {self.path} for {LOCK_WAIT_S} s",
                "wait for it to end, or end it",
                stage="files",
            ) from None
        except OSError:
            if write:
                raise
        try:
            yield
        finally:
            lock.release()

    @property
    def settings(self):
        found = read_json(self.path / SETTINGS, _SETTINGS)
        why = settings_problem(found)
        if why:
            raise _damaged(self.path / SETTINGS, why)
        return found

    def device(self, name):
        """Return the Path of the device's folder, there or not; Failure on an impossible name."""
        return self.path / "devices" / check_device_name(name)

    def existing_device(self, name):
        """Return the Path of the device's folder; Failure when there is no such device."""
        folder, known = self.device(name), self.devices()
        if name not in known:  # where case does not matter, is_dir() would find "Kitchen", too
            have = f"there are {', '.join(known[:8])}" if known else "there is none yet"
            raise Failure(
                f"there is no device {name!r} in {self.path}",
                f"{have}; make it with: {command('device', 'add', name)}",
                stage="files",
            )
        return folder

    def devices(self):
        """Return the names of all devices (list of str), sorted."""
        folder = self.path / "devices"
        if not folder.is_dir():
            return []
        return sorted(
            each.name for each in folder.iterdir() if is_device_name(each.name) and each.is_dir()
        )

    @contextlib.contextmanager
    def change(self):
        """
        Give a Change; at the end of the `with` all of it is done, or after an exception nothing.
        """
        os.mkdir(self.path / _NEW, 0o700)
        change = Change(self.path)
        try:
            yield change
            change.seal()
            system.replace(self.path / _NEW, self.path / _COMMIT)
        except BaseException:
            with contextlib.suppress(OSError):
                system.remove_tree(self.path / _NEW)
            raise
        system.sync_folder(self.path)
        self._finish()

    def _sweep_archive(self):
        """Take keys and passwords out of the archive of an older version."""
        for folder, _, names in os.walk(self.path / "archive"):
            for name in filter(_SECRET.fullmatch, names):
                os.unlink(os.path.join(folder, name))

    def _recover(self):
        """Undo what was not decided, finish what was."""
        if _is_of_a_change(self.path / _NEW):
            system.remove_tree(self.path / _NEW)
        if _is_of_a_change(self.path / _COMMIT):
            self._finish()

    def _finish(self):
        done = self.path / _COMMIT
        if (done / _TREE).exists():
            _move_into(done / _TREE, self.path)
        if (done / _REMOVALS).exists():
            for number, each in enumerate(read_json(done / _REMOVALS, [str])):
                with contextlib.suppress(FileNotFoundError):  # done before, or never there
                    system.replace(self.path / _checked(each), done / str(number))
        system.sync_folder(self.path)
        system.remove_tree(done)


def _is_of_a_change(folder):
    """Tell whether a Change made `folder`: what --dir names by mistake may have one, too."""
    return folder.is_dir() and all(
        name in (_TREE, _REMOVALS) or name.isdecimal() for name in os.listdir(folder)
    )


def _checked(path):
    """Return `path` (str); raise Failure when it is no place in the folder for a change."""
    if not _PLACE.fullmatch(path):
        raise Failure(
            f"a change that was begun in this folder is none of mqttls: it names {path!r}",
            f"delete the folder {_COMMIT} in it; but if it comes from somebody else, use none of "
            "it",
            stage="files",
        )
    return path


def _move_into(source, target, above=""):
    """Move what is in the folder `source` into `target`; folders that are new move as a whole."""
    for each in sorted(source.iterdir()):
        place = target / each.name
        path = _checked(above + each.name)
        if _is_folder(each) and _is_folder(place):
            _move_into(each, place, f"{path}/")
        else:
            system.replace(each, place)
    system.sync_folder(target)


def _is_folder(path):
    """Tell whether `path` is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


class Change:
    """What one command is going to change; see Directory.change. Paths are relative to it."""

    def __init__(self, root):
        self._root = root
        self._tree = root / _NEW / _TREE
        self._removals, self._lines = [], {}
        os.mkdir(self._tree, 0o700)

    def put(self, path, data, mode=0o600):
        """Have the file `path` hold `data` (bytes or str)."""
        new = self._tree / _checked(path)
        _make_folder(new.parent)
        new.unlink(missing_ok=True)
        system.create(new, _bytes(data), mode)

    def put_json(self, path, value):
        self.put(path, json.dumps(value, indent=2) + "\n")

    def append(self, path, line):
        """Have the text file `path` end with `line` (str, with its LF)."""
        self._lines.setdefault(_checked(path), []).append(line)

    def has(self, path):
        """Tell whether the file `path` was put."""
        return (self._tree / path).exists()

    def keep(self, serial, *paths):
        """Copy files or folders, as they are now, to archive/`serial`/, but no secrets."""
        for path in paths:
            old = self._root / path
            for each in sorted(old.rglob("*")) if old.is_dir() else [old]:
                if each.is_file() and not _SECRET.fullmatch(each.name):
                    name = each.relative_to(self._root)
                    self.put(f"archive/{serial}/{name}", each.read_bytes())

    def remove(self, path):
        """Have the file or folder `path` gone."""
        self._removals.append(_checked(path))

    def seal(self):
        """Have all of it on the disk; see Directory.change."""
        for path, lines in self._lines.items():
            old = self._root / path
            before = old.read_bytes() if old.exists() else b""
            if before and not before.endswith(b"\n"):  # damaged; what is noted now is not
                before += b"\n"
            self.put(path, before + "".join(lines).encode())
        if self._removals:
            system.create(self._root / _NEW / _REMOVALS, _bytes(json.dumps(self._removals)))
        for folder, _, _ in os.walk(self._root / _NEW):
            system.sync_folder(folder)
