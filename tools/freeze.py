"""
Build MicroPython from source with mqtt_as_tls frozen in, as a user's firmware has it.

    ./dev freeze            fetch the sources, build, show where the interpreters lie

What comes out, in .cache/freeze/out/:

    micropython-64   the unix port, 64 bits
    micropython-32   the unix port, 32 bits, TLS memory taken from the garbage-collected heap as on
                     the rp2 port: what fits in its `-X heapsize=` fits on the board
    mpy-cross        the cross compiler of the same release

Both interpreters carry the modules that a *user's* manifest names: tests/packaging/
user_manifest.py, which includes the one in the repository's root.

The sources are those of Debian trixie, the packages micropython and mbedtls (tools/debian.py
fetches them). Debian carries no micropython-lib; the build gets a folder in its place that holds
one package, `ssl`, which only hands on the names of the C module `tls` (the real one wraps its
class). asyncio is MicroPython's own.

Fetched once, built again only when a source, a manifest or this file has changed. Where something
that it takes cannot be had (Linux with apt and Debian's mirror, gcc, make, gcc-multilib for the
32-bit build), `Unavailable` says what; as root it installs the compilers itself.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tools.debian import Unavailable, fetch, locked, run, unpack

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "freeze"
OUT = CACHE / "out"
TREE = CACHE / "micropython"
PORT = TREE / "ports" / "unix"
USER_MANIFEST = ROOT / "tests" / "packaging" / "user_manifest.py"

SUITE = "trixie"
# Debian's source package -> where it is unpacked
SOURCES = {"micropython": TREE, "mbedtls": TREE / "lib" / "mbedtls"}
COMPILERS = ("gcc", "gcc-multilib", "libc6-dev", "make")

# As large as fits what the tests need: no database, no calls of C libraries (they want libffi).
# Warnings are for MicroPython's authors; as errors they would break the build under a new gcc.
OPTIONS = ("MICROPY_PY_BTREE=0", "MICROPY_PY_FFI=0", "CWARN=-w")

# mbedTLS asks MicroPython's tracked allocator for memory, which takes it from the heap.
HEAP_TLS_HEADER = """\
#include <stddef.h>
void *m_tracked_calloc(size_t count, size_t size);
void m_tracked_free(void *block);
"""
HEAP_TLS_FLAGS = (
    "-DMICROPY_TRACKED_ALLOC=1",
    "-DMBEDTLS_PLATFORM_MEMORY",
    "-DMBEDTLS_PLATFORM_STD_CALLOC=m_tracked_calloc",
    "-DMBEDTLS_PLATFORM_STD_FREE=m_tracked_free",
)

SSL_STAND_IN = {
    "README.md": "Stands in for micropython-lib, which Debian does not carry.\n",
    "python-stdlib/ssl/manifest.py": 'metadata(version="0")\nmodule("ssl.py", opt=3)\n',
    "python-stdlib/ssl/ssl.py": "from tls import *\n",
}


def mpy_cross():
    """Return the path of mpy-cross, built if need be. Raises Unavailable."""
    with locked(CACHE):
        return _mpy_cross()


def unix(bits, manifest=USER_MANIFEST):
    """
    Return the path of the unix port's interpreter with `manifest` frozen in, built if need be.

    bits      64, or 32 for the one whose TLS memory comes from the heap
    manifest  path of a manifest.py

    Raises Unavailable.
    """
    with locked(CACHE):
        _mpy_cross()
        return _unix(bits, Path(manifest).resolve())


def compile_into(folder):
    """
    Compile the modules of mqtt_as_tls as their manifest does (opt=3), for a Pico W, into `folder`.

    Return {module name: bytes of its .mpy}. Raises Unavailable.
    """
    cross, sizes = mpy_cross(), {}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "mqtt_as_tls").glob("*.py")):
        mpy = Path(folder, path.stem + ".mpy")
        run(cross, "-O3", "-march=armv6m", "-o", mpy, path.relative_to(ROOT), cwd=ROOT)
        sizes[path.stem] = mpy.stat().st_size
    return sizes


def files_of(manifest):
    """
    Return what `manifest` (path) has frozen, as a list of (path on the device, path here).

    Raises Unavailable.
    """
    with locked(CACHE):
        _sources()
        return _files_of(manifest)


def _files_of(manifest):
    spec = importlib.util.spec_from_file_location("manifestfile", TREE / "tools/manifestfile.py")
    manifestfile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(manifestfile)
    folders = {"MPY_DIR": TREE, "PORT_DIR": PORT, "MPY_LIB_DIR": _library()}
    reader = manifestfile.ManifestFile(
        manifestfile.MODE_FREEZE, {name: str(folder) for name, folder in folders.items()}
    )
    reader.execute(str(manifest))
    return [(file.target_path, Path(file.full_path)) for file in reader.files()]


def _library():
    return _write_files(CACHE / "micropython-lib", SSL_STAND_IN)


def _mpy_cross():
    program = OUT / "mpy-cross"
    key = _key(_sources())
    if not _is_fresh(program, key):
        _need_compiler()
        _make(TREE / "mpy-cross", "CWARN=-w")
        _deliver(TREE / "mpy-cross" / "build" / "mpy-cross", program, key)
    return program


def _unix(bits, manifest):
    program = OUT / f"micropython-{bits}"
    key = _key(_sources(), manifest, *(path for _, path in _files_of(manifest)))
    if _is_fresh(program, key):
        return program
    _need_compiler(bits)
    build = CACHE / f"build-{bits}"
    # makemanifest compares times only; what it froze last may be newer than what is frozen now
    shutil.rmtree(build / "frozen_mpy", ignore_errors=True)
    (build / "frozen_content.c").unlink(missing_ok=True)
    options = [
        *OPTIONS,
        f"BUILD={build}",
        f"FROZEN_MANIFEST={manifest}",
        f"MPY_LIB_DIR={_library()}",
    ]
    if bits == 32:
        header = _write_files(CACHE, {"heap_tls.h": HEAP_TLS_HEADER}) / "heap_tls.h"
        flags = " ".join(("-m32", *HEAP_TLS_FLAGS, f"-include {header}"))
        options += ["CC=gcc -m32", "LDFLAGS_EXTRA=-m32", f"CFLAGS_EXTRA={flags}"]
    _make(PORT, *options)
    _deliver(build / "micropython", program, key)
    return program


def _sources():
    """Have MicroPython's tree in TREE; return a text that names its versions."""
    packages = CACHE / "packages"
    versions = fetch(SUITE, SOURCES, packages)
    stamp = TREE / "unpacked.txt"
    if not (stamp.is_file() and stamp.read_text() == versions):
        _say("unpack", versions)
        shutil.rmtree(TREE, ignore_errors=True)
        for name, folder in SOURCES.items():
            unpack(next(packages.glob(f"{name}_*.orig.tar.*")), folder)
        stamp.write_text(versions)
    return versions


def _need_compiler(bits=64):
    """Raise Unavailable unless gcc and make build for `bits`; as root, install them first."""
    if _can_compile(bits):
        return
    if os.getuid() == 0 and shutil.which("apt-get"):
        _say("install", *COMPILERS)
        try:
            run("apt-get", "-q", "update")
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            install = ("apt-get", "-q", "install", "-y", "--no-install-recommends")
            run(*install, *COMPILERS, env=env)
        except subprocess.CalledProcessError:
            pass  # what is missing is said below
    if not _can_compile(bits):
        raise Unavailable(f"no compiler for {bits} bits: apt-get install {' '.join(COMPILERS)}")


def _can_compile(bits):
    if not (shutil.which("gcc") and shutil.which("make")):
        return False
    probe = subprocess.run(
        ["gcc", f"-m{bits}", "-x", "c", "-", "-o", "/dev/null"],
        input=b'#include <stdio.h>\nint main(void) { return puts(""); }\n',
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return probe.returncode == 0


def _make(folder, *options):
    _say("build", folder.name, *(o for o in options if o.startswith("BUILD=")))
    # the environment of a calling make, or the user's own flags, are not for this build
    dropped = ("MAKEFLAGS", "MFLAGS", "CFLAGS", "LDFLAGS")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    # or the version of the repository round the cache would become MicroPython's
    env["GIT_CEILING_DIRECTORIES"] = str(CACHE)
    try:
        run("make", "-s", f"-j{os.cpu_count()}", "-C", folder, *options, env=env)
    except subprocess.CalledProcessError as error:
        sys.stderr.write("\n".join(error.stdout.splitlines()[-40:]) + "\n")
        raise RuntimeError(f"make failed in {folder}") from None


def _key(versions, *files):
    """Return a digest of everything that a program is built from."""
    digest = hashlib.sha256(versions.encode())
    for path in (Path(__file__), *files):
        digest.update(b"\0" + str(path).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _is_fresh(program, key):
    stamp = program.with_suffix(".key")
    return program.is_file() and stamp.is_file() and stamp.read_text() == key


def _deliver(built, program, key):
    OUT.mkdir(exist_ok=True)
    stamp = program.with_suffix(".key")
    stamp.unlink(missing_ok=True)
    new = program.with_suffix(".new")
    shutil.copy2(built, new)
    new.replace(program)  # one that runs stays as it is
    stamp.write_text(key)


def _write_files(folder, files):
    """Write the texts of `files`, by name, where they differ from what is there."""
    for name, text in files.items():
        path = folder / name
        if not (path.is_file() and path.read_text() == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return folder


def _say(*words):
    print("freeze:", *words, file=sys.stderr, flush=True)


def main():
    started = time.monotonic()
    for bits in (64, 32):
        try:
            program = unix(bits)
        except Unavailable as error:
            print(f"micropython-{bits}: skipped: {error}")
        else:
            print(f"{os.path.relpath(program)}  {program.stat().st_size:,} B")
    try:
        for name, size in compile_into(OUT / "mqtt_as_tls").items():
            print(f"{name + '.mpy':16} {size:>6,} B")
    except Unavailable as error:
        print(f"mpy-cross: skipped: {error}")
    print(f"{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(f"freeze: {error}")
