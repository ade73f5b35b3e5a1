"""
Build MicroPython from source with mqtt_as_tls frozen in, as a user's firmware has it.

What comes out, in .cache/freeze/out/:

    micropython-64   the unix port, 64 bits
    micropython-32   the unix port, 32 bits, TLS memory taken from the garbage-collected heap as on
                     the rp2 port: what fits in its `-X heapsize=` fits on the board
    mpy-cross        the cross compiler of the same release

Both interpreters carry the modules that a *user's* manifest names: tests/packaging/
user_manifest.py, which includes the one in the repository's root.

What both are built from, and where it comes from, is in tools/micropython_source.py.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from tools import micropython_source as micropython
from tools.debian import Unavailable, locked
from tools.micropython_source import ROOT, Source
from tools.mqttls.library import bytecode

USER_MANIFEST = ROOT / "tests" / "packaging" / "user_manifest.py"
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


def unix(bits, manifest=USER_MANIFEST, of=None):
    """
    Return the path of the unix port's interpreter with `manifest` frozen in, built if need be.

    bits      64, or 32 for the one whose TLS memory comes from the heap
    manifest  path of a manifest.py
    of        Source to build from; None: what MICROPYTHON_SOURCE says

    Raises Unavailable.
    """
    manifest = Path(manifest).resolve()
    source = of or Source()
    source.mpy_cross()
    frozen = [path for _, path in source.files_of(manifest)]
    key = micropython.key(source.unpacked(), __file__, manifest, *frozen)
    program = source.cache / "out" / f"micropython-{bits}"
    with locked(source.cache):
        if not micropython.is_fresh(program, key):
            micropython.deliver(_build(source, bits, manifest), program, key)
    return program


def compile_into(folder):
    """
    Write the .mpy files of mqtt_as_tls, those of `./dev build`, into `folder`.

    Return {module name: bytes of its .mpy}. Raises Unavailable.
    """
    try:
        files = bytecode.compiled(ROOT / "mqtt_as_tls")
    except bytecode.Unavailable as reason:
        raise Unavailable(reason) from None
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        Path(folder, name).write_bytes(data)
    return {Path(name).stem: len(data) for name, data in files.items()}


def _build(source, bits, manifest):
    """Return the path of what make makes."""
    micropython.need(
        f"compiler for {bits} bits",
        COMPILERS,
        lambda: micropython.has("make") and micropython.compiles("gcc", f"-m{bits}"),
    )
    micropython.say(f"build the unix port for {bits} bits")
    folder = source.cache / f"build-{bits}"
    micropython.forget_frozen(folder)
    options = [
        *OPTIONS,
        f"BUILD={folder}",
        f"FROZEN_MANIFEST={manifest}",
        f"MPY_LIB_DIR={source.library}",
    ]
    if bits == 32:
        header = {"heap_tls.h": HEAP_TLS_HEADER}
        header = micropython.write_files(source.cache, header) / "heap_tls.h"
        flags = " ".join(("-m32", *HEAP_TLS_FLAGS, f"-include {header}"))
        options += ["CC=gcc -m32", "LDFLAGS_EXTRA=-m32 -no-pie", f"CFLAGS_EXTRA={flags}"]
    source.build(source.tree / "ports" / "unix", *micropython.MAKE, *options)
    return folder / "micropython"


def main():
    parser = argparse.ArgumentParser(
        prog="./dev freeze", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    started = time.monotonic()
    built = 0
    for bits in (64, 32):
        try:
            program = unix(bits)
        except Unavailable as error:
            print(f"micropython-{bits}: skipped: {error}")
        else:
            built += 1
            print(f"{os.path.relpath(program)}  {program.stat().st_size:,} B")
    print(f"{time.monotonic() - started:.1f} s")
    return 0 if built else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PermissionError, RuntimeError) as error:
        sys.exit(f"freeze: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
