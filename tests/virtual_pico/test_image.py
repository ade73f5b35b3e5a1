"""Files that are, or are not, a firmware for the RP2040."""

import struct

import pytest

from tests.virtual_pico import image

BOOT = bytes(range(252))
RP2350 = 0xE48B_FF59
START = image.FLASH


def firmware(size=5000):
    """Return an image with the right checksum at its place."""
    return (BOOT + struct.pack("<I", image._crc(BOOT))).ljust(size, b"\x55")


def elf(data, *, machine=40, address=START, size=None):
    """Return an ELF file that loads `data`."""
    head = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, START, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    load = struct.pack("<8I", 1, 84, 0, address, size or len(data), len(data), 5, 4)
    return head + load + data


def read(tmp_path, content, name="firmware.bin"):
    path = tmp_path / name
    path.write_bytes(content)
    return image.read(path)


def test_the_same_image_comes_out_of_all_three_formats(tmp_path):
    data = firmware()
    for name, content in ("a.bin", data), ("a.elf", elf(data)), ("download", image.uf2(data)):
        found = read(tmp_path, content, name)
        assert found.data[: len(data)] == data
        # no MicroPython: what is behind it is kept
        assert (found.flash_bytes, found.kept_from) == (2 << 20, 8192)


def test_micropython_says_where_its_files_are(plain_firmware):
    for path in plain_firmware, plain_firmware.with_suffix(".elf"):
        found = image.read(path)
        assert (found.flash_bytes, found.kept_from) == (2 << 20, 1200 << 10)
        assert found.data == plain_firmware.read_bytes()


def test_a_large_flash_is_seen_by_where_the_files_are(tmp_path):
    data = bytearray(firmware())
    table = START + 512
    marks = (0x7188_EBF2, table, table + 4, table + 64, 0xE71A_A390)
    struct.pack_into("<5I", data, 300, *marks)
    struct.pack_into("<I", data, 512, START + 600)
    struct.pack_into("<I", data, 512 + 64, 0)  # nothing is copied into RAM
    begin, size = 1 << 20, 7 << 20
    struct.pack_into("<H2s3I", data, 600, 7, b"MP", START + 700, START + begin, size)
    data[700:712] = b"MicroPython\0"
    assert read(tmp_path, data)[1:] == (8 << 20, begin)
    # others, and places that cannot be, are passed over
    struct.pack_into("<3I", data, 604, START + 700, START, size)
    assert read(tmp_path, data)[1:] == (2 << 20, 8192)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.uf2", b"", "no UF2 file, whatever its name says"),
        ("a.elf", b"hello", "no ELF file, whatever its name says"),
        ("a.bin", b"hello", "boot loader of an RP2040's flash"),
        ("a.bin", bytes(5000), "not of a Pico 2"),
        ("a.bin", firmware((16 << 20) + 1), "too large: an RP2040 sees 16 MB"),
        ("a.uf2", image.uf2(firmware(), RP2350), r"for an RP2350 \(Pico 2\)"),
        ("a.uf2", image.uf2(firmware(), 0x6E31_4A1F), "for another chip"),
        ("a.uf2", image.uf2(firmware())[:-1], "cut short"),
        ("a.uf2", image.uf2(firmware())[:-512] + bytes(512), "broken block"),
        ("a.uf2", image.uf2(firmware())[512:], "boot loader of an RP2040's flash"),
        ("a.elf", elf(firmware(), machine=62), "for another chip, or of a PC"),
        ("a.elf", b"\x7fELF\x02" + bytes(100), "for another chip, or of a PC"),
        ("a.elf", elf(firmware(), address=0x2000_0000), "for the RAM"),
        ("a.elf", elf(firmware(), size=9999), "cut short"),
        ("a.elf", elf(firmware())[:60], "cut short"),
    ],
)
def test_what_is_no_firmware_is_told_why(tmp_path, name, content, why):
    with pytest.raises(image.NoImage, match=why) as caught:
        read(tmp_path, content, name)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(image.NoImage, match="No such file"):
        image.read(tmp_path / "nothing.uf2")
    with pytest.raises(image.NoImage, match="is a folder"):
        image.read(tmp_path)
    huge = tmp_path / "huge.elf"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(image.NoImage, match="too large for a firmware"):
        image.read(huge)
