"""
Make what is given to others, in dist/:

    ./dev build [--out FOLDER]

    mip/package.json, mip/mqtt_as_tls/*.mpy   for mip and mpremote: bytecode for every board
    mqtt_as_tls-VERSION-py3-none-any.whl      the device package for editors, type checkers, pipkin
    mqttls-VERSION-py3-none-any.whl           the PC's tool, with the device package in both forms
    mqtt_as_tls_testkit-VERSION-py3-none-any.whl
                                              the test kit for users' apps, a part of tests/
    SHA256SUMS                                of all these

The same sources make the same bytes, whenever and wherever they are built: no date but the one in
$SOURCE_DATE_EPOCH (else 1980-01-01, the oldest that a zip file can have), no order and no mode of
a file system. The compilers are pinned in requirements/.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.mqttls import library
from tools.mqttls.library import bytecode

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
PACKAGE = ROOT / library.NAME
SUMS = "SHA256SUMS"
MIP = "mip"
MADE = (f"{MIP}/package.json", f"{MIP}/{library.NAME}/*.mpy")
MADE += (SUMS, "mqtt_as_tls-*.whl", "mqttls-*.whl", "mqtt_as_tls_testkit-*.whl")

# What the test kit is made of: modules of tests/ import each other by relative names
TESTKIT = "mqtt_as_tls_testkit"
_SUPPORT = "app_config broker elsewhere faketime mpy node patience pki process proxy udp".split()
_KIT = ("kit/*.py", "fakes/*.py", "fakes/umqtt/*.py", "faults/matrix.py")
_KIT += tuple(f"support/{name}.py" for name in _SUPPORT)
_KIT += tuple(
    f"virtual_pico/{name}" for name in ("pico.py", "image.py", "wifi.py", "emulator/*.*")
)
_KIT_TOOLS = ("debian.py", "ports.py")

_EPOCH = "315532800"
# modes of files are in a wheel
_WHEEL = """\
import os, sys
from setuptools import build_meta
os.umask(0o022)
build_meta.build_wheel(sys.argv[1])
"""
_URLS = re.compile(r"^\[project\.urls\]\n(?:.+\n)*", re.M)
NOWHERE = "HOST/"  # in the address of a repository that was not published yet


def build(out=DIST):
    """
    Make all of it in the folder `out` (Path), in the place of what an earlier run has left there.

    Return {name below `out`: sha256 in hexadecimal}. Raises bytecode.Unavailable.
    """
    compiled = bytecode.compiled(PACKAGE)
    with tempfile.TemporaryDirectory(prefix="mqtt-build-") as folder:
        new = Path(folder, "dist")
        _mip(new / MIP, compiled)
        device = {"pyproject.toml": _project("device_wheel.toml"), **_package()}
        tool = {"pyproject.toml": _published((ROOT / "pyproject.toml").read_text("utf-8"))}
        tool |= {"README.md": (ROOT / "README.md").read_bytes(), **_package()}
        tool |= {name: (ROOT / name).read_bytes() for name in _files(ROOT / "tools/mqttls")}
        tool |= {f"{library.NAME}/{name}": data for name, data in compiled.items()}
        kit = {"pyproject.toml": _project("testkit_wheel.toml"), **_package(), **_testkit()}
        for name, files in (("device", device), ("tool", tool), ("testkit", kit)):
            _wheel(Path(folder, name), new, files)
        sums = {
            path.relative_to(new).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in new.rglob("*")
            if path.is_file()
        }
        sums = dict(sorted(sums.items()))
        # two spaces: what `sha256sum --check` reads
        _write(new / SUMS, "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
        out.mkdir(parents=True, exist_ok=True)
        for old in [path for pattern in MADE for path in out.glob(pattern)]:
            old.unlink()
        shutil.copytree(new, out, dirs_exist_ok=True)
    return sums


def _mip(folder, compiled):
    """Write what mip takes: package.json, and `compiled` ({file name: bytes})."""
    names = [f"{library.NAME}/{name}" for name in compiled]
    lines = ",\n".join(f"    {json.dumps([name, name])}" for name in names)
    text = f'{{\n  "urls": [\n{lines}\n  ],\n  "version": "{library.version()}"\n}}\n'
    _write(folder / "package.json", text)
    for name, data in compiled.items():
        _write(folder / library.NAME / name, data)


def _package():
    """Return {name: bytes} of what every wheel is built with: its version is the package's."""
    return {name: (ROOT / name).read_bytes() for name in ("LICENSE", *_files(PACKAGE))}


def _testkit():
    """Return {name: bytes} of the test kit's modules: of tests/, and of tools/ what they need."""
    tests, tools = ROOT / "tests", ROOT / "tools"
    files = [(path, path.relative_to(tests)) for each in _KIT for path in tests.glob(each)]
    files += [(tools / name, Path("tools", name)) for name in _KIT_TOOLS]
    files.append((ROOT / "examples/ppp_link.py", Path("virtual_pico/ppp_link.py")))
    found = {f"{TESTKIT}/{name.as_posix()}": path.read_bytes() for path, name in sorted(files)}
    return {f"{TESTKIT}/__init__.py": b"", **found}


def _wheel(folder, out, files):
    """
    Build a wheel into `out` from its sources.

    folder  Path, for a copy of them
    files   {name: bytes or text}
    """
    for name, data in files.items():
        _write(folder / name, data)
    out.mkdir(parents=True, exist_ok=True)
    env = {"SOURCE_DATE_EPOCH": _EPOCH, **os.environ}
    command = [sys.executable, "-c", _WHEEL, str(out.resolve())]
    ran = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ran.returncode != 0:
        raise RuntimeError(f"setuptools built no wheel:\n{ran.stdout}")


def _files(folder):
    """Yield the names of a package's sources, relative to the repository."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".pyi") or path.name == "py.typed":
            yield path.relative_to(ROOT).as_posix()


def _project(name):
    """Return the pyproject.toml (text) of a wheel, from the file of that name in tools/."""
    text = (ROOT / "tools" / name).read_text("utf-8").replace("VERSION", library.version())
    urls = _URLS.search((ROOT / "pyproject.toml").read_text("utf-8"))
    return _published(text + "\n" + (urls[0] if urls else ""))


def _published(text):
    """Return a pyproject.toml (text) without its addresses, where they are still the example."""
    return _URLS.sub(lambda found: "" if NOWHERE in found[0] else found[0], text)


def _write(path, data):
    """Write text or bytes, with a mode that does not depend on who builds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(0o644)


def main():
    parser = argparse.ArgumentParser(
        prog="./dev build", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DIST, metavar="FOLDER", help="instead of dist")
    out = parser.parse_args().out
    sums = build(out)
    where = os.path.relpath(out)
    files = [out / name for name in sums if name.startswith(f"{MIP}/")]
    size = sum(path.stat().st_size for path in files)
    print(f"{where}/{MIP}/  {len(files)} files, {size:,} B")
    for path in sorted(out.glob("*.whl")):
        print(f"{where}/{path.name}  {path.stat().st_size:,} B")
    print(f"{where}/{SUMS}  {hashlib.sha256((out / SUMS).read_bytes()).hexdigest()}")
    print(f"onto a board: mpremote mip install {where}/{MIP}/package.json")


if __name__ == "__main__":
    try:
        main()
    except (bytecode.Unavailable, OSError, RuntimeError) as error:
        sys.exit(f"./dev build: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
