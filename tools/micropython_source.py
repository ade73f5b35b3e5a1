"""
MicroPython's source and its cross compiler, which tools.freeze and tools.firmware build from.

The sources are those of Debian trixie, fetched by tools.debian and unpacked once, in
.cache/freeze. MICROPYTHON_SOURCE in the environment names others: another suite of Debian
("sid"), or a folder with MicroPython's release sources and their submodules; what is built from
these lies in a folder of .cache of their own.

Debian carries no micropython-lib: the build gets a folder in its place that holds one package,
`ssl`, which only hands on the names of the C module `tls` (the real one wraps its class). asyncio
is MicroPython's own.

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

from tools.debian import Unavailable, fetch, locked, unpack, unpack_binary

ROOT = Path(__file__).resolve().parent.parent
_LIFE_S = 10  # between signs of life of a build
MAKE = ("make", "-s", f"-j{os.cpu_count()}")

STABLE = "trixie"
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
SOURCES = {"micropython": "", "mbedtls": "lib/mbedtls"}

SSL_STAND_IN = {
    "README.md": "Stands in for micropython-lib, which Debian does not carry.\n",
    "python-stdlib/ssl/manifest.py": 'metadata(version="0")\nmodule("ssl.py", opt=3)\n',
    "python-stdlib/ssl/ssl.py": "from tls import *\n",
}


class Source:
    """
    MicroPython's sources, and where what is built from them lies.

    of  str, a suite of Debian, or the path of a folder with MicroPython's own sources; None: what
        MICROPYTHON_SOURCE in the environment says, else STABLE

    Attributes: `suite` (str, or None where the sources are of a folder), `caches` (Path, for all
    that is built), `cache` (Path, for what is built here), `tree` (Path of MicroPython's sources),
    `library` (Path of micropython-lib).
    """

    def __init__(self, of=None):
        of = str(of or os.environ.get("MICROPYTHON_SOURCE") or STABLE)
        self.caches = ROOT / ".cache"
        if "/" in of:
            self.suite = None
            self._folder = Path(of).resolve()
            place = hashlib.sha256(str(self._folder).encode()).hexdigest()[:8]
            self.caches /= f"{self._folder.name}-{place}"
        elif re.fullmatch("[a-z][a-z-]*", of):
            self.suite = of
            if of != STABLE:
                self.caches /= of
        else:
            raise Unavailable(f"MICROPYTHON_SOURCE: {of!r} is no suite of Debian, and no path")
        self.cache = self.caches / "freeze"
        self.tree = self.cache / "micropython"
        if self.suite:
            self.library = self.cache / "micropython-lib"
        else:
            self.library = self.tree / "lib" / "micropython-lib"
        self.mpy_cross_path = self.cache / "out" / "mpy-cross"

    def unpacked(self):
        """
        Have MicroPython's tree in `tree`; return a text that names its versions.

        Raises Unavailable.
        """
        with locked(self.cache):
            if self.suite is None:
                return self._copied()
            versions = self.add("unpacked.txt", self.cache / "packages", SOURCES)
            write_files(self.library, SSL_STAND_IN)
            return versions

    def add(self, stamp, packages, sources, binaries=None):
        """
        Have Debian's packages in the tree, while its cache is locked; return their versions (str).

        stamp     str, name of the file that says what is there
        packages  Path of a folder for what is downloaded
        sources   {source package: where it goes in the tree; "" for the tree itself}
        binaries  {binary package: (where its source lies in it, where that goes in the tree)}

        Raises Unavailable.
        """
        binaries = binaries or {}
        versions = fetch(self.suite, sources, packages, binaries)
        stamp = self.tree / stamp
        if not (stamp.is_file() and stamp.read_text() == versions):
            say("unpack", versions)
            if self.suite == STABLE:
                warn_if_moved(versions)
            if "" in sources.values():
                self._begin_anew()
            for name, folder in sources.items():
                unpack(next(packages.glob(f"{name}_*.orig.tar.*")), self.tree / folder)
            for name, (only, folder) in binaries.items():
                package = next(packages.glob(f"{name}_*.deb"))
                unpack_binary(package, self.tree / folder, only)
            if "" in sources.values():
                unused = {self.tree / name for name in UNUSED}
                unused |= set((self.tree / "ports").iterdir())
                for folder in unused - {self.tree / "ports" / name for name in PORTS}:
                    shutil.rmtree(folder)
            stamp.write_text(versions)
        return versions

    def _begin_anew(self):
        # the dates in the archives say nothing to what was built from older ones
        for old in (self.tree, *self.cache.glob("build-*")):
            shutil.rmtree(old, ignore_errors=True)

    def _copied(self):
        """Have a copy of the folder, which stays as it is; return what `unpacked` does."""
        try:
            config = (self._folder / "py" / "mpconfig.h").read_text()
        except OSError as error:
            raise Unavailable(f"{self._folder}: no sources of MicroPython: {error}") from None
        for library in ("mbedtls", "micropython-lib"):
            if not any((self._folder / "lib" / library).glob("*")):
                raise Unavailable(
                    f"{self._folder}: lib/{library} is empty: make -C ports/rp2 submodules there"
                )
        numbers = re.findall(r"#define MICROPY_VERSION_(?:MAJOR|MINOR|MICRO) +(\d+)", config)
        digest = hashlib.sha256()
        for path in sorted(self._folder.rglob("*")):
            if _is_wanted(path.relative_to(self._folder)) and path.is_file():
                state = path.stat()
                digest.update(f"{path} {state.st_size} {state.st_mtime_ns}\n".encode())
        versions = f"micropython_{'.'.join(numbers)} {digest.hexdigest()}"
        stamp = self.tree / "unpacked.txt"
        if not (stamp.is_file() and stamp.read_text() == versions):
            say("copy", self._folder)
            self._begin_anew()

            def unwanted(folder, names):
                folder = Path(folder).relative_to(self._folder)
                return [name for name in names if not _is_wanted(folder / name)]

            shutil.copytree(self._folder, self.tree, symlinks=True, ignore=unwanted)
            stamp.write_text(versions)
        return versions

    def mpy_cross(self):
        """Return the path of mpy-cross, built if need be. Raises Unavailable."""
        wanted = key(self.unpacked())
        with locked(self.cache):
            if not is_fresh(self.mpy_cross_path, wanted):
                packages = ("gcc", "libc6-dev", "make")
                need("compiler", packages, lambda: has("make") and compiles("gcc"))
                say("build mpy-cross")
                self.build(self.tree / "mpy-cross", *MAKE, "CWARN=-w")
                built = self.tree / "mpy-cross" / "build" / "mpy-cross"
                deliver(built, self.mpy_cross_path, wanted)
        return self.mpy_cross_path

    def files_of(self, manifest, port="unix"):
        """
        Return what `manifest` (path) has frozen, as a list of (path on the device, path here).

        port    str, the port whose manifest it is: its folder in MicroPython's ports/

        Raises Unavailable.
        """
        self.unpacked()
        tool = self.tree / "tools" / "manifestfile.py"
        spec = importlib.util.spec_from_file_location("manifestfile", tool)
        manifestfile = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(manifestfile)
        folders = {
            "MPY_DIR": self.tree,
            "PORT_DIR": self.tree / "ports" / port,
            "MPY_LIB_DIR": self.library,
        }
        reader = manifestfile.ManifestFile(
            manifestfile.MODE_FREEZE, {name: str(folder) for name, folder in folders.items()}
        )
        reader.execute(str(manifest))
        return [(file.target_path, Path(file.full_path)) for file in reader.files()]

    def build(self, folder, *command):
        """Run a command that builds in `folder`; where it fails, its last words are shown."""
        # the environment of a calling make, or the user's own flags, are not for this build
        dropped = ("MAKEFLAGS", "MFLAGS", "CFLAGS", "CXXFLAGS", "LDFLAGS")
        env = {name: value for name, value in os.environ.items() if name not in dropped}
        # or the version of the repository round the cache would become MicroPython's
        env["GIT_CEILING_DIRECTORIES"] = str(ROOT / ".cache")
        env["MICROPY_MPYCROSS"] = str(self.mpy_cross_path)
        _run_shown(folder, command, env)


def _is_wanted(path):
    """Return whether a build here reads `path` (Path in a folder of MicroPython's sources)."""
    parts = path.parts
    if path.name.startswith(".git") or (parts[-1].startswith("build") and len(parts) <= 3):
        return False
    if parts[0] == "ports" and len(parts) > 1:
        return parts[1] in PORTS
    return not any(path.is_relative_to(name) for name in UNUSED)


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
            say(
                f"{name} is {version} in Debian {STABLE}, the figures here are of {VERSIONS[name]}"
            )


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


def _run_shown(folder, command, env):
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
