"""
Build MicroPython for the RP2040 with mqtt_as_tls frozen in, as a user's firmware has it.

    .venv/bin/python -m tools.firmware           build, show what the package adds to the firmware
    .venv/bin/python -m tools.firmware --json    the same as one line of JSON

    .venv/bin/python -m tools.firmware --micropython sid|FOLDER
                                                 the same from other sources

What comes out, in .cache/firmware/out/ (of other sources in a folder of .cache of their own):

    frozen/firmware.bin, .elf    with the modules that a *user's* manifest names:
                                 tests/virtual_pico/manifest.py, which includes the one in the
                                 repository's root
    plain/firmware.bin, .elf     the same without the package: manifest_plain.py
    steps/firmware.bin, .elf     as frozen/, with the C module in firmware/: TLS in steps, with
                                 memory of its own

The board is tests/virtual_pico/board: a Pico with the Pico W's file system and heap whose network
is PPP over a UART, for an emulator without a Wi-Fi chip. lwIP and mbedTLS are what the Pico W has.

MicroPython comes from tools/micropython_source.py; lwIP, the Pico SDK and TinyUSB are Debian's
packages too. What differs in what is frozen alone is built in one folder.
"""

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from tools import micropython_source as micropython
from tools.debian import Unavailable, locked, run
from tools.micropython_source import ROOT, Source

BOARD = ROOT / "tests" / "virtual_pico" / "board"
STEPS = ROOT / "firmware"
USER_MANIFEST_RP2 = BOARD.parent / "manifest.py"
PLAIN_MANIFEST_RP2 = BOARD.parent / "manifest_plain.py"

NEWEST = "sid"

COMPILERS = ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "cmake", "ninja-build")
PROGRAMS = ("cmake", "ninja", "dpkg-deb")

# Debian's source package -> where it goes in MicroPython's tree
SOURCES = {"lwip": "lib/lwip"}
# its binary package -> where its source lies in it, where that goes
BINARIES = {
    "pico-sdk-source": ("usr/src/pico-sdk", "lib/pico-sdk"),
    "tinyusb-source": ("usr/src/tinyusb", "lib/tinyusb"),
}

# file in MicroPython's tree -> pairs of what is there and what replaces it
CHANGES = {
    # lwIP's timer, an interrupt, must not find lwIP at work (the sockets take this lock too)
    "extmod/network_ppp_lwip.c": [
        (
            "        pppos_input(self->pcb, (u8_t *)buf, len);\n",
            "        MICROPY_PY_LWIP_ENTER\n"
            "        pppos_input(self->pcb, (u8_t *)buf, len);\n"
            "        MICROPY_PY_LWIP_EXIT\n",
        ),
        (
            "    if (ppp_connect(self->pcb, 0) != ERR_OK) {\n",
            "    MICROPY_PY_LWIP_ENTER\n"
            "    err_t error = ppp_connect(self->pcb, 0);\n"
            "    MICROPY_PY_LWIP_EXIT\n"
            "    if (error != ERR_OK) {\n",
        ),
        (
            "        ppp_close(self->pcb, 0);\n",
            "        MICROPY_PY_LWIP_ENTER\n"
            "        ppp_close(self->pcb, 0);\n"
            "        MICROPY_PY_LWIP_EXIT\n",
        ),
        # from 1.26 on a soft reset, which frees this object when no memory is to be had, would end
        # here, before lwIP's part is given back: it has one, and the next "pppos_create failed"
        (
            "    mp_load_method(self->stream, MP_QSTR_irq, dest);\n"
            "    dest[2] = mp_const_none;\n"
            "    mp_call_method_n_kw(1, 0, dest);\n",
            "    nlr_buf_t nlr;\n"
            "    if (nlr_push(&nlr) == 0) {\n"
            "        mp_load_method(self->stream, MP_QSTR_irq, dest);\n"
            "        dest[2] = mp_const_none;\n"
            "        mp_call_method_n_kw(1, 0, dest);\n"
            "        nlr_pop();\n"
            "    }\n",
        ),
        # a soft reset frees this object while PPP comes up or goes: lwIP ends at once only what
        # runs, and would go on in memory that is another's
        (
            "ppp_close(self->pcb, 1);\n",
            "if (self->pcb->phase != PPP_PHASE_DEAD) {\n"
            "                self->pcb->phase = PPP_PHASE_RUNNING;\n"
            "            }\n"
            "            ppp_close(self->pcb, 1);\n",
        ),
    ],
    # a tenth of the time goes into debug information; warnings are for MicroPython's authors
    "ports/rp2/CMakeLists.txt": [
        ("    -Werror\n    -g  # always include debug information in the ELF\n", "    -g0\n")
    ],
}


def rp2040(manifest=USER_MANIFEST_RP2, name="frozen", *, module=None, of=None, **options):
    """
    Return the path of an RP2040's firmware.bin (its .elf lies beside it), built if need be.

    manifest  path of a manifest.py: what is frozen in
    name      str, of the folder that it gets
    module    Path of the folder of a user C module, or None
    of        Source to build from; None: what MICROPYTHON_SOURCE says
    options   of CMake, for the module: {"MICROPY_C_HEAP_SIZE": 81920}, …

    Raises Unavailable.
    """
    manifest = Path(manifest).resolve()
    source = of or Source()
    micropython.need("compiler for the RP2040", COMPILERS, _can_build)
    cache = source.caches / "firmware"
    with locked(cache):
        versions = _sources(source)
        source.mpy_cross()
        files = [manifest, *sorted(path for path in BOARD.rglob("*") if path.is_file())]
        files += [path for _, path in source.files_of(manifest, "rp2")]
        files += sorted(module.iterdir()) if module else []
        key = micropython.key(f"{versions} {options}", __file__, *files)
        firmware = cache / "out" / name / "firmware.bin"
        if not micropython.is_fresh(firmware, key):
            built = _build(source, cache, manifest, versions, module, options)
            firmware.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built.with_suffix(".elf"), firmware.with_suffix(".elf"))
            micropython.deliver(built, firmware, key)
        return firmware


def plain():
    """Return the path of firmware.bin without the package, built if need be."""
    return rp2040(PLAIN_MANIFEST_RP2, "plain")


def steps(of=None):
    """Return the path of firmware.bin with the C module too, built of a Source if need be."""
    return rp2040(name="steps", module=STEPS, of=of)


def newest():
    """
    Return the Source of the newest MicroPython that Debian has, unless MICROPYTHON_SOURCE names
    one. Where that cannot be had it is the stable one.
    """
    source = Source(os.environ.get("MICROPYTHON_SOURCE") or NEWEST)
    try:
        _sources(source)
    except Unavailable as reason:
        micropython.say(f"{reason}: going on with {micropython.STABLE}")
        return Source(micropython.STABLE)
    return source


def flash_size(firmware):
    """Return how many bytes of flash a firmware.bin (or the one beside an .elf) takes."""
    return Path(firmware).with_suffix(".bin").stat().st_size


def symbols(firmware):
    """Return where things are, from the .elf beside firmware.bin: {name: address}."""
    lines = run("arm-none-eabi-nm", Path(firmware).with_suffix(".elf")).splitlines()
    return {name: int(address, 16) for address, _, name in (line.split() for line in lines)}


def sizes():
    """Build both firmwares; return what a tool wants to record of them (dict)."""
    frozen, without = flash_size(rp2040()), flash_size(plain())
    return {
        "versions": micropython.upstream(_sources(Source())),
        "frozen_bytes": frozen,
        "plain_bytes": without,
        "added_bytes": frozen - without,
    }


def _sources(source):
    """Have all that the firmware takes in MicroPython's tree; return a text of the versions."""
    versions = source.unpacked()
    if source.suite is None:
        return versions
    with locked(source.cache):
        packages = source.caches / "firmware" / "packages"
        return f"{versions} {source.add('unpacked-rp2.txt', packages, SOURCES, BINARIES)}"


def _can_build():
    compiler = ("arm-none-eabi-gcc", "--specs=nosys.specs")
    return micropython.has(*PROGRAMS) and micropython.compiles(*compiler)


def _change(tree):
    """Make the CHANGES, unless they are made."""
    for name, changes in CHANGES.items():
        path = tree / name
        text = path.read_text()
        for old, new in changes:
            if new not in text:
                if text.count(old) != 1:
                    raise RuntimeError(f"{name} has changed: see CHANGES in tools/firmware.py")
                text = text.replace(old, new)
        micropython.write_files(tree, {name: text})


def _build(source, cache, manifest, versions, module, options):
    """Return the path of firmware.bin in the folder in which it was built."""
    _change(source.tree)
    folder = cache / (f"build-{module.name}" if module else "build")
    of = f"{versions} {source.tree}\n"  # CMake remembers where its sources were
    stamp = folder / "built-from.txt"
    if not (stamp.is_file() and stamp.read_text() == of):
        shutil.rmtree(folder, ignore_errors=True)
        micropython.write_files(folder, {stamp.name: of})
    with_module = f"and {module.name}/" if module else ""
    micropython.say("build the firmware with", manifest.name, with_module)
    micropython.forget_frozen(folder)
    options = {
        "MICROPY_C_HEAP_SIZE": 0,
        "TLS_STEPS_P256": "ON",
        **options,
        "MICROPY_BOARD": "VIRTUAL_PICO",
        "MICROPY_BOARD_DIR": BOARD,
        "MICROPY_FROZEN_MANIFEST": manifest,
        "MICROPY_LIB_DIR": source.library,
        "PICO_CLIB": "newlib",
        "PICO_NO_PICOTOOL": 1,  # it would be fetched and built, for a file that nothing here reads
        "USER_C_MODULES": module or "",
    }
    port = source.tree / "ports" / "rp2"
    configure = [f"-D{name}={value}" for name, value in options.items()]
    source.build(port, "cmake", "-G", "Ninja", "-S", port, "-B", folder, *configure)
    source.build(folder, "ninja", "-j", str(os.cpu_count()))
    return folder / "firmware.bin"


def main():
    parser = argparse.ArgumentParser(prog="python -m tools.firmware")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    parser.add_argument(
        "--micropython",
        metavar="SUITE|PATH",
        help="build from a suite of Debian (sid), or from a folder with MicroPython's release "
        "sources and their submodules; default: MICROPYTHON_SOURCE, else trixie",
    )
    arguments = parser.parse_args()
    if arguments.micropython:
        os.environ["MICROPYTHON_SOURCE"] = arguments.micropython
    started = time.monotonic()
    result = sizes()
    if arguments.json:
        print(json.dumps(result))
        return
    for firmware, name in (rp2040(), "frozen"), (plain(), "plain"):
        print(f"{os.path.relpath(firmware)}  {result[name + '_bytes']:,} B")
    print(f"mqtt_as_tls adds {result['added_bytes']:,} B")
    print(f"{time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, Unavailable) as error:
        sys.exit(f"firmware: {error}")
