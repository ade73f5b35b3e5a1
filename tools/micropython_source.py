"""
MicroPython's source and its cross compiler, which tools.freeze and tools.firmware build from.

The sources are those of Debian trixie, fetched by tools.debian and unpacked once, in
.cache/freeze. Debian carries no micropython-lib: the build gets a folder in its place that holds
one package, `ssl`, which only hands on the names of the C module `tls` (the real one wraps its
class). asyncio is MicroPython's own.

What is built is built again only when a source, a manifest or a tool here has changed. What
cannot be had raises `Unavailable`, which says what is missing, and the remedy.
"""

import collections
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from tools.debian import Unavailable, fetch, locked, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "freeze"
OUT = CACHE / "out"
TREE = CACHE / "micropython"
LIBRARY = CACHE / "micropython-lib"
MPY_CROSS = OUT / "mpy-cross"
_LIFE_S = 10  # between signs of life of a build
MAKE = ("make", "-s", f"-j{os.cpu_count()}")

SUITE = "trixie"
# Debian's packages in the versions that the figures in docs/ are of. A stable release moves for
# security alone: then the build goes on, and says so.
VERSIONS = {
    "micropython": "1.25.0",
    "mbedtls": "3.6.6",
    "lwip": "2.2.1",
    "pico-sdk-source": "2.1.1",
    "tinyusb-source": "0.18.0",
}
# What no build here reads, half of the whole
UNUSED = ("tests", "docs", "logo", "lib/mbedtls/tests", "lib/mbedtls/programs")
PORTS = ("unix", "rp2")
# Debian's source package -> where it is unpacked
SOURCES = {"micropython": TREE, "mbedtls": TREE / "lib" / "mbedtls"}

SSL_STAND_IN = {
    "README.md": "Stands in for micropython-lib, which Debian does not carry.\n",
    "python-stdlib/ssl/manifest.py": 'metadata(version="0")\nmodule("ssl.py", opt=3)\n',
    "python-stdlib/ssl/ssl.py": "from tls import *\n",
}


def sources():
    """
    Have MicroPython's tree in TREE; return a text that names its versions.

    Raises Unavailable.
    """
    with locked(CACHE):
        packages = CACHE / "packages"
        versions = fetch(SUITE, SOURCES, packages)
        stamp = TREE / "unpacked.txt"
        if not (stamp.is_file() and stamp.read_text() == versions):
            say("unpack", versions)
            warn_if_moved(versions)
            # the dates in the archives say nothing to what was built from older ones
            for old in (TREE, *CACHE.glob("build-*")):
                shutil.rmtree(old, ignore_errors=True)
            for name, folder in SOURCES.items():
                unpack(next(packages.glob(f"{name}_*.orig.tar.*")), folder)
            unused = {TREE / name for name in UNUSED} | set((TREE / "ports").iterdir())
            for folder in unused - {TREE / "ports" / name for name in PORTS}:
                shutil.rmtree(folder)
            stamp.write_text(versions)
        write_files(LIBRARY, SSL_STAND_IN)
        return versions


def upstream(versions):
    """
    Return the upstream versions of Debian's packages as a dict.

    >>> upstream("lwip_2.2.1+dfsg1-1+deb13u1.dsc tinyusb-source_0.18.0+dfsg-1_all.deb")
    {'lwip': '2.2.1', 'tinyusb-source': '0.18.0'}
    """
    return dict(re.findall(r"(\S+?)_([0-9.]*[0-9])\S*", versions))


def warn_if_moved(versions):
    """Say which of `versions` (text, names of Debian's files) are not those of VERSIONS."""
    for name, version in upstream(versions).items():
        if version != VERSIONS[name]:
            say(f"{name} is {version} in Debian {SUITE}, the figures here are of {VERSIONS[name]}")


def mpy_cross():
    """Return the path of mpy-cross, built if need be. Raises Unavailable."""
    wanted = key(sources())
    with locked(CACHE):
        if not is_fresh(MPY_CROSS, wanted):
            packages = ("gcc", "libc6-dev", "make")
            need("compiler", packages, lambda: has("make") and compiles("gcc"))
            say("build mpy-cross")
            build(TREE / "mpy-cross", *MAKE, "CWARN=-w")
            deliver(TREE / "mpy-cross" / "build" / "mpy-cross", MPY_CROSS, wanted)
    return MPY_CROSS


def files_of(manifest, port="unix"):
    """
    Return what `manifest` (path) has frozen, as a list of (path on the device, path here).

    port    str, the port whose manifest it is: its folder in MicroPython's ports/

    Raises Unavailable.
    """
    sources()
    spec = importlib.util.spec_from_file_location("manifestfile", TREE / "tools/manifestfile.py")
    manifestfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(manifestfile)
    folders = {"MPY_DIR": TREE, "PORT_DIR": TREE / "ports" / port, "MPY_LIB_DIR": LIBRARY}
    reader = manifestfile.ManifestFile(
        manifestfile.MODE_FREEZE, {name: str(folder) for name, folder in folders.items()}
    )
    reader.execute(str(manifest))
    return [(file.target_path, Path(file.full_path)) for file in reader.files()]


def forget_frozen(build):
    """
    Have what is frozen in the folder `build` compiled anew.

    makemanifest compares times only; what it froze last may be newer than what is frozen now.
    """
    shutil.rmtree(build / "frozen_mpy", ignore_errors=True)
    (build / "frozen_content.c").unlink(missing_ok=True)


# Building


def need(what, packages, works):
    """
    Ask for what a build takes.

    what      what cannot be had without, for the message
    packages  Debian's packages that bring it
    works     returns whether it is there

    Raises Unavailable.
    """
    if not works():
        raise Unavailable(f"no {what}: apt-get install {' '.join(packages)}")


def has(*programs):
    return all(shutil.which(program) for program in programs)


def compiles(compiler, *flags):
    """Return whether a C compiler is there, with the headers and libraries of a program."""
    if not has(compiler):
        return False
    probe = subprocess.run(
        [compiler, *flags, "-x", "c", "-", "-o", "/dev/null"],
        input=b'#include <stdio.h>\nint main(void) { return puts(""); }\n',
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return probe.returncode == 0


def build(folder, *command):
    """Run a command that builds in `folder`; where it fails, its last words are shown."""
    # the environment of a calling make, or the user's own flags, are not for this build
    dropped = ("MAKEFLAGS", "MFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    # or the version of the repository round the cache would become MicroPython's
    env["GIT_CEILING_DIRECTORIES"] = str(ROOT / ".cache")
    env["MICROPY_MPYCROSS"] = str(MPY_CROSS)
    lines = collections.deque(maxlen=40)
    with (
        _life_shown(lines),
        subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child,
    ):
        lines.extend(child.stdout)
    if child.returncode != 0:
        for line in lines:
            print(line.rstrip()[:300], file=sys.stderr)
        raise RuntimeError(f"{command[0]} failed in {folder}")


@contextmanager
def _life_shown(lines):
    """Say every few seconds how long it takes, and what Ninja says of how far it is in `lines`."""
    begin, over = time.monotonic(), threading.Event()

    def show():
        while not over.wait(_LIFE_S):
            step = re.match(r"\[\d+/\d+\]", lines[-1]) if lines else None
            say(f"{time.monotonic() - begin:.0f} s", *([step[0]] if step else []))

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def key(versions, *files):
    """Return a digest of what a program is built from: `versions` (text), `files` (paths)."""
    digest = hashlib.sha256(versions.encode())
    for path in (__file__, *files):
        digest.update(b"\0" + str(path).encode() + b"\0" + Path(path).read_bytes())
    return digest.hexdigest()


def is_fresh(program, key):
    """Return whether `program` was delivered with `key`."""
    stamp = program.with_suffix(".key")
    return program.is_file() and stamp.is_file() and stamp.read_text() == key


def deliver(built, program, key):
    """Copy what was built to `program`, which may be running: that one stays as it is."""
    program.parent.mkdir(parents=True, exist_ok=True)
    stamp = program.with_suffix(".key")
    stamp.unlink(missing_ok=True)
    new = program.with_suffix(".new")
    shutil.copy2(built, new)
    new.replace(program)
    stamp.write_text(key)


def write_files(folder, files):
    """Write the texts of `files`, by name, where they differ from what is there."""
    for name, text in files.items():
        path = folder / name
        if not (path.is_file() and path.read_text() == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


def say(*words):
    print("build:", *words, file=sys.stderr, flush=True)
