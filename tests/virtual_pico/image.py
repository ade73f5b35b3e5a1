"""
A firmware of the RP2040 as it lies in flash: read from a .uf2 (what is downloaded), .elf or .bin.

What it says of itself (pico-sdk's "binary info") tells where MicroPython keeps its files, and so
how large the flash of its board is.
"""

import struct
from typing import NamedTuple

FLASH = 0x1000_0000  # the address at which the chip sees its flash
MOST = 16 << 20  # bytes of flash that it can see
_SMALLEST = 2 << 20  # a Pico's
_SECTOR = 4096

_UF2_BLOCK = 512
_UF2_HEAD = struct.Struct("<8I")
_UF2_BEGIN = (0x0A32_4655, 0x9E5D_5157)
_UF2_END = 0x0AB1_6F30
_NOT_FLASH = 1  # flags
_HAS_FAMILY = 0x2000
_RP2040 = 0xE48B_FF56
_RP2350 = (0xE48B_FF59, 0xE48B_FF5A, 0xE48B_FF5B)
_DATA = 476  # bytes of a block at most

_ELF = b"\x7fELF\x01\x01\x01"  # 32 bits, little endian
_ARM = 40
_LOAD = 1  # type of a segment

_BOOT = 256  # bytes of the second-stage boot loader, the last four of them its checksum
_INFO_BEGIN = 0x7188_EBF2
_INFO_END = 0xE71A_A390
_BLOCK_DEVICE = 7
_MICROPYTHON = b"MP"
_FILES = b"MicroPython"


class NoImage(RuntimeError):
    """A file is no firmware for an RP2040, and why."""


class Image(NamedTuple):
    """
    data         bytes from the begin of flash on
    flash_bytes  int, the size of the board's flash
    kept_from    int, where its files begin; they go on to the end of flash
    """

    data: bytes
    flash_bytes: int
    kept_from: int


def read(path):
    """
    Return the Image in the file at `path` (Path).

    Raises NoImage: what is wrong with it.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise NoImage(f"{path} is a folder: name the .uf2, .elf or .bin in it")
        if size > 8 * MOST:  # an .elf has more in it than what is flashed
            raise NoImage(f"{path} is too large for a firmware: is it another file?")
        content = path.read_bytes()
    except OSError as error:
        raise NoImage(f"{path}: {error.strerror}") from None
    try:
        if content[:8] == struct.pack("<2I", *_UF2_BEGIN):
            data = _joined(_of_uf2(content))
        elif content[:4] == _ELF[:4]:
            data = _joined(_of_elf(content))
        elif path.suffix.lower() in (".uf2", ".elf"):
            raise NoImage(f"it is no {path.suffix[1:].upper()} file, whatever its name says")
        else:
            data = content
        _check(data)
    except NoImage as error:
        raise NoImage(f"{path}: {error}") from None
    return Image(data, *_layout(data))


def uf2(data, family=_RP2040):
    """Return the UF2 file (bytes) with `data` (bytes) at the begin of flash."""
    pieces = [data[at : at + 256] for at in range(0, len(data), 256)]
    blocks = []
    for number, piece in enumerate(pieces):
        address = FLASH + 256 * number
        head = (*_UF2_BEGIN, _HAS_FAMILY, address, 256, number, len(pieces), family)
        blocks.append(
            _UF2_HEAD.pack(*head) + piece.ljust(_DATA, b"\0") + struct.pack("<I", _UF2_END)
        )
    return b"".join(blocks)


def _of_uf2(content):
    """Yield (address, bytes) of the blocks of a UF2 file."""
    if len(content) % _UF2_BLOCK:
        raise NoImage("it is a UF2 file that is cut short: get it anew")
    for at in range(0, len(content), _UF2_BLOCK):
        block = content[at : at + _UF2_BLOCK]
        first, second, flags, address, size, _, _, family = _UF2_HEAD.unpack_from(block)
        (end,) = struct.unpack_from("<I", block, _UF2_BLOCK - 4)
        if (first, second) != _UF2_BEGIN or end != _UF2_END or size > _DATA:
            raise NoImage("it is a UF2 file with a broken block: get it anew")
        if flags & _NOT_FLASH:
            continue
        if flags & _HAS_FAMILY and family in _RP2350:
            raise NoImage("it is for an RP2350 (Pico 2): take the one for a Pico or Pico W")
        if not flags & _HAS_FAMILY or family != _RP2040:
            raise NoImage("it is a UF2 file for another chip: take the one for a Pico or Pico W")
        yield address, block[_UF2_HEAD.size :][:size]


def _of_elf(content):
    """Yield (address, bytes) of what an ELF file loads into flash."""
    if content[:7] != _ELF or len(content) < 52:
        raise NoImage("it is an ELF file for another chip, or of a PC")
    (machine,) = struct.unpack_from("<H", content, 18)
    if machine != _ARM:
        raise NoImage("it is an ELF file for another chip, or of a PC")
    (table,) = struct.unpack_from("<I", content, 28)
    size, count = struct.unpack_from("<2H", content, 42)
    for number in range(count):
        try:
            segment = struct.unpack_from("<5I", content, table + size * number)
        except struct.error:
            raise NoImage("it is an ELF file that is cut short") from None
        kind, offset, _, address, length = segment
        if kind != _LOAD or not length:
            continue
        if offset + length > len(content):
            raise NoImage("it is an ELF file that is cut short")
        if address < FLASH or address >= FLASH + MOST:
            raise NoImage("it is for the RAM of the chip: take one that is flashed")
        yield address, content[offset : offset + length]


def _joined(pieces):
    """Return pieces, (address, bytes), as they lie in flash."""
    data = bytearray()
    for address, piece in pieces:
        begin = address - FLASH
        if begin < 0:
            raise NoImage("it is for the RAM of the chip: take one that is flashed")
        end = begin + len(piece)
        if end > MOST:
            raise NoImage(f"it is too large: an RP2040 sees {MOST >> 20} MB of flash")
        if end > len(data):
            data += b"\xff" * (end - len(data))
        data[begin:end] = piece
    return bytes(data)


def _check(data):
    if len(data) > MOST:
        raise NoImage(f"it is too large: an RP2040 sees {MOST >> 20} MB of flash")
    if len(data) <= _BOOT or _crc(data[: _BOOT - 4]) != _word(data, _BOOT - 4):
        raise NoImage(
            "it does not begin with the boot loader of an RP2040's flash: take the .uf2, .elf or "
            ".bin of a Pico or Pico W (not of a Pico 2)"
        )


def _crc(data):
    """Return the checksum that the boot ROM calculates (RP2040 datasheet, section 2.8.1.3.1)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ 0x04C1_1DB7 if crc & 0x8000_0000 else crc << 1
            crc &= 0xFFFF_FFFF
    return crc


def _layout(data):
    """Return (size of flash, begin of the files in it)."""
    begin = -(-len(data) // _SECTOR) * _SECTOR
    end = begin + 1  # no MicroPython: what is behind the image is kept
    for name, address, size in _block_devices(data):
        if name == _FILES and len(data) <= address - FLASH < MOST:
            begin, end = address - FLASH, address - FLASH + size
    flash = _SMALLEST
    while flash < end and flash < MOST:
        flash *= 2
    return flash, min(begin, flash)


def _block_devices(data):
    """Yield (name, address, size) of MicroPython's that the image tells of."""
    for at in range(_BOOT, _BOOT + 256, 4):
        if _word(data, at) == _INFO_BEGIN and _word(data, at + 16) == _INFO_END:
            break
    else:
        return
    begin, end, copies = (_word(data, at + 4 * number) for number in (1, 2, 3))
    for pointer in range(begin, min(end, begin + 4096), 4):
        entry = _in_flash(data, _word(data, _in_flash(data, pointer, copies)), copies)
        kind, tag, name, address, size = struct.unpack("<H2s3I", _bytes(data, entry, 16))
        if kind == _BLOCK_DEVICE and tag == _MICROPYTHON:
            text = _bytes(data, _in_flash(data, name, copies), 32)
            yield text.partition(b"\0")[0], address, size


def _in_flash(data, address, copies):
    """Return where in `data` is what the program has at `address`, which may be in RAM."""
    if FLASH <= address < FLASH + MOST:
        return address - FLASH
    for at in range(copies - FLASH, copies - FLASH + 12 * 16, 12):
        source, begin, end = (_word(data, at + 4 * number) for number in range(3))
        if not source:
            break
        if begin <= address < end:
            return source - FLASH + address - begin
    return len(data)


def _bytes(data, at, count):
    return data[max(at, 0) : max(at, 0) + count].ljust(count, b"\0")


def _word(data, at):
    return int.from_bytes(_bytes(data, at, 4), "little")
