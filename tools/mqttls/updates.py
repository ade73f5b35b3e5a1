"""A signed update of an app: its form (update/mqtt_update.py has it), the key that signs it."""

import hashlib
import json
import os
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from . import certificates, given
from .messages import Failure

KEY, PUBLIC = "update.key", "update.der"  # in the folder; only the second one goes onto a board
_KIND = "rsa3072"
_MAGIC = b"MUP1"
_MOST_MANIFEST, _MOST_FILES, _LONGEST_PATH, _MOST_LEVELS = 4096, 64, 64, 4
_LETTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
HIGHEST = 0x3FFFFFFF  # version, size


def put_key(change, secret=None):
    """Make the key, into a files.Change; `secret` encrypts it (bytes or None)."""
    key = certificates.new_key(_KIND)
    change.put(KEY, certificates.key_pem(key, secret))
    change.put(PUBLIC, public_der(key), 0o644)


def public_der(key):
    """Return the public part of a key (bytes), as boards have it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.DER, form)


def load_key(folder, passphrase):
    """
    Return the key that signs, from the folder (Path); Failure when it is damaged or another one
    than boards were given.

    passphrase  function that returns it (bytes)
    """
    key = certificates.load_key(folder / KEY, passphrase)
    if certificates.key_kind(key) != _KIND or given.read(folder / PUBLIC) != public_der(key):
        raise Failure(
            f"{folder / KEY} is not the key of {PUBLIC}, which boards have",
            "put both back from a backup of the folder",
            stage="files",
        )
    return key


def collect(paths):
    """
    Return {path on the board: content} of files, and of all that is in folders, without the
    folder's own name; what is hidden, and __pycache__, is left out.

    Raises Failure for a name that boards do not take, and what is no file; OSError.
    """
    found = {}
    for path in map(Path, paths):
        if path.is_dir():
            for folder, below, names in os.walk(path):
                below[:] = sorted(each for each in below if not _is_left_out(each))
                names = sorted(each for each in names if not _is_left_out(each))
                for each in [Path(folder, name) for name in (*below, *names)]:
                    if each.is_symlink():  # to what its owner may not mean to publish
                        raise _wrong(f"{each} is a link", "put the file itself there")
                for each in names:
                    _add(found, Path(folder, each), Path(folder, each).relative_to(path))
        else:
            _add(found, path, Path(path.name))
    if len(found) > _MOST_FILES:
        raise _wrong(f"{len(found)} files are more than an update may have, {_MOST_FILES}")
    return found


def _is_left_out(name):
    return name.startswith(".") or name == "__pycache__"


def _add(found, path, place):
    name = place.as_posix()
    good = len(name) <= _LONGEST_PATH and len(place.parts) <= _MOST_LEVELS
    if not good or not all(_is_name(each) for each in place.parts):
        raise _wrong(
            f"{name!r} is no name for a file of a board",
            f"use A-Z a-z 0-9 _ . -, {_LONGEST_PATH} characters with its folders",
        )
    if name in found:
        raise _wrong(f"{name} is there twice", "an update has each name once")
    found[name] = given.read(path)


def _is_name(part):
    return part[:1] != "." and set(part) <= _LETTERS


def packed(app, version, files, key):
    """
    Return the update (bytes).

    app      str, the module that main.py starts
    version  int, larger than those before
    files    {path on the board: content}, as of collect()
    key      the private key

    Raises Failure when the app is not among the files, or there are too many.
    """
    forms = [f"{app}{each}" for each in (".py", ".mpy", "/__init__.py", "/__init__.mpy")]
    if not set(forms) & set(files):
        raise _wrong(f"{app}.py is not among the files", "name it, or say --app")
    body = b"".join(files.values())
    said = {
        "app": app,
        "version": version,
        "sha256": hashlib.sha256(body).hexdigest(),
        "files": [[name, len(data)] for name, data in files.items()],
    }
    manifest = json.dumps(said, separators=(",", ":")).encode()
    if len(manifest) > _MOST_MANIFEST:
        raise _wrong("its files have too many, or too long names", "shorten them")
    head = _MAGIC + len(manifest).to_bytes(2, "big") + manifest
    return head + key.sign(head, padding.PKCS1v15(), hashes.SHA256()) + body


def _wrong(fact, cure=""):
    return Failure(fact, cure, stage="files")
