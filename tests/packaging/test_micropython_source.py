"""The sources that MicroPython is built from here: Debian's, or a folder's."""

import pytest

from tools import micropython_source
from tools.debian import Unavailable
from tools.micropython_source import ROOT, Source

CONFIG = """\
#define MICROPY_VERSION_MAJOR 1
#define MICROPY_VERSION_MINOR 28
#define MICROPY_VERSION_MICRO 0
"""
WANTED = {
    "py/mpconfig.h",
    "lib/mbedtls/library/ecp.c",
    "lib/micropython-lib/README.md",
    "ports/rp2/main.c",
    "ports/rp2/boards/PICO/board.json",
}
UNWANTED = {
    ".git/HEAD",
    "lib/mbedtls/.git",
    "lib/mbedtls/tests/test.c",
    "ports/esp32/main.c",
    "ports/rp2/build-PICO/main.o",
    "mpy-cross/build/mpy-cross",
    "tests/run.py",
}


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Folder of a release's sources; the cache is in another one."""
    monkeypatch.setattr(micropython_source, "ROOT", tmp_path / "project")
    folder = tmp_path / "micropython"
    for name in WANTED | UNWANTED:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG)
    return folder


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_source_has_folders_of_its_own(monkeypatch):
    monkeypatch.delenv("MICROPYTHON_SOURCE", raising=False)
    assert Source().suite == Source("trixie").suite == "trixie"
    assert Source().caches == ROOT / ".cache"
    assert Source("sid").caches == ROOT / ".cache" / "sid"
    folders = [Source(name).caches for name in ("/a/micropython", "/b/micropython")]
    assert len({*folders, Source("sid").caches}) == 3
    monkeypatch.setenv("MICROPYTHON_SOURCE", "sid")
    assert Source().suite == "sid"
    assert Source("trixie").suite == "trixie"


def test_what_is_neither_suite_nor_path_is_refused():
    for name in ("1.28", "..", "sid main", "Trixie\n"):
        with pytest.raises(Unavailable, match="no suite of Debian, and no path"):
            Source(name)


def test_a_release_is_copied_without_what_no_build_reads_and_again_when_it_has_changed(release):
    before = files_in(release)
    source = Source(release)
    first = source.unpacked()
    assert micropython_source.upstream(first) == {"micropython": "1.28.0"}
    assert files_in(source.tree) == WANTED | {"unpacked.txt"}
    changed_here = source.tree / "py" / "mpconfig.h"
    changed_here.write_text("")
    assert Source(release).unpacked() == first
    assert changed_here.read_text() == "", "it was copied for nothing"
    (release / "ports" / "esp32" / "main.c").write_text("nothing to us")
    assert Source(release).unpacked() == first
    (release / "py" / "mpconfig.h").write_text(CONFIG + "\n")
    assert Source(release).unpacked() != first
    assert changed_here.read_text() == CONFIG + "\n"
    assert files_in(release) == before


def test_a_folder_that_cannot_be_built_from_is_told(release, tmp_path):
    with pytest.raises(Unavailable, match="no sources of MicroPython: .*mpconfig.h"):
        Source(tmp_path).unpacked()
    (release / "lib" / "mbedtls" / "library" / "ecp.c").unlink()
    (release / "lib" / "mbedtls" / "library").rmdir()
    for name in ("tests/test.c", ".git"):
        (release / "lib" / "mbedtls" / name).unlink()
    (release / "lib" / "mbedtls" / "tests").rmdir()
    with pytest.raises(Unavailable, match="lib/mbedtls is empty: make -C ports/rp2 submodules"):
        Source(release).unpacked()
