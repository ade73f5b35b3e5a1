"""What `./dev build` makes: the same bytes everywhere, and .mpy files that every board takes."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import docs, mpy, patience
from tools import build

ROOT = Path(__file__).resolve().parents[2]
WHO = ("NAME", "EMAIL")

pytestmark = pytest.mark.timeout(120)


def sums(folder):
    return (folder / build.SUMS).read_text()


def names():
    return sorted(path.stem for path in (ROOT / "mqtt_as_tls").glob("*.py"))


def clone(target):
    """Copy what `./dev build` reads; other dates, other modes, another order."""
    ignore = shutil.ignore_patterns("__pycache__", "*.mpy")
    for name in ("tools", "mqtt_as_tls", "tests", "examples"):
        shutil.copytree(ROOT / name, target / name, ignore=ignore, copy_function=shutil.copyfile)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, target / name)
    for path in sorted(target.rglob("*.py"), reverse=True):
        path.chmod(0o600)
        os.utime(path, (1e9, 1e9))


def test_another_clone_makes_the_same_bytes(dist, tmp_path):
    clone(tmp_path / "elsewhere")
    line = [sys.executable, "-m", "tools.build", "--out", tmp_path / "out"]
    line = ["sh", "-c", 'umask 077; exec "$@"', "sh", *line]
    env = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    ran = subprocess.run(
        line,
        cwd=tmp_path / "elsewhere",
        env=env,
        capture_output=True,
        text=True,
        timeout=patience.stretched(60),
    )
    assert ran.returncode == 0, ran.stderr
    assert sums(tmp_path / "out") == sums(dist)


def test_the_sums_are_those_of_every_file(dist):
    found = {}
    for line in sums(dist).splitlines():
        digest, name = line.split("  ")
        found[name] = digest
    files = [path for path in dist.rglob("*") if path.is_file() and path.name != build.SUMS]
    assert found == {
        path.relative_to(dist).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    assert len(files) == len(names()) + 4


def test_a_second_build_leaves_nothing_of_the_first_and_nothing_else_of_ours(dist, tmp_path):
    shutil.copytree(dist, tmp_path / "dist")
    for name in ("mip/mqtt_as_tls/gone.mpy", "mqttls-0.0.1-py3-none-any.whl", "notes.txt"):
        (tmp_path / "dist" / name).write_bytes(b"")
    (tmp_path / "dist/mip/mine").mkdir()
    build.build(tmp_path / "dist")
    left = {path.name for path in (tmp_path / "dist").rglob("*")}
    assert left - {path.name for path in dist.rglob("*")} == {"notes.txt", "mine"}


def test_mips_package_has_each_module_once_as_bytecode_without_machine_code(dist):
    package = json.loads((dist / "mip/package.json").read_text())
    assert sorted(package["urls"]) == [[f"mqtt_as_tls/{n}.mpy"] * 2 for n in names()]
    assert not package.get("deps") and package["version"] == build.library.version()
    for _, name in package["urls"]:
        # M, version 6, no architecture, integers that fit 32 bits
        assert (dist / "mip" / name).read_bytes()[:4] == b"M\x06\x00\x1f"


def test_every_module_is_imported_from_its_mpy(dist):
    program = f"""
        import sys
        sys.path[:] = [{str(dist / "mip")!r}, ".frozen"]
        for name in {names()!r}:
            module = __import__("mqtt_as_tls" + ("." + name if name != "__init__" else ""))
            for part in () if name == "__init__" else (name,):
                module = getattr(module, part)
            assert module.__file__.endswith(name + ".mpy"), module.__file__
        print("all", sys.implementation._mpy & 255)
        """
    assert mpy.check(program).strip() == "all 6"


def test_the_wheel_of_the_device_package_is_typed_and_carries_no_mpy(dist):
    (wheel,) = dist.glob("mqtt_as_tls-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {n for n in archive.namelist() if n.startswith("mqtt_as_tls/")}
        stub = archive.read("mqtt_as_tls/__init__.pyi")
        meta = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA")))
    sources = [p for p in (ROOT / "mqtt_as_tls").iterdir() if p.suffix in (".py", ".pyi")]
    assert found == {"mqtt_as_tls/py.typed", *(f"mqtt_as_tls/{p.name}" for p in sources)}
    assert stub == (ROOT / "mqtt_as_tls/__init__.pyi").read_bytes()
    assert b"Requires-Dist" not in meta, "the device package needs nothing"


def test_an_address_goes_into_the_wheels_when_there_is_one():
    text = (ROOT / "pyproject.toml").read_text()
    assert address() in build._published(text) or build.NOWHERE in address()
    published = text.replace(address(), "https://example.org/me/mqtt_as_tls")
    assert "https://example.org/me/mqtt_as_tls" in build._published(published)
    assert "urls" not in build._published(text.replace(address(), "https://HOST/OWNER/x"))


def address():
    """Return where pyproject.toml says that the project is published."""
    return re.search(r'^Repository = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def test_all_pages_name_the_address_of_pyproject():
    owner = address().split("/")[-2]
    pages = {path.name: path.read_text() for path in docs.FILES}
    found = [
        (name, each)
        for name, text in pages.items()
        for each in re.findall(
            r"(?:https://|\b(?:github|gitlab|codeberg):)\S+/mqtt_as_tls\b", text
        )
    ]
    assert len(found) > 3
    for name, each in found:
        if each.startswith("https:"):
            assert each == address(), name
        else:
            assert each.split(":")[1] == f"{owner}/mqtt_as_tls", name


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
def test_the_branch_for_mip_holds_what_was_built(dist, tmp_path):
    block = docs.text("mip branch")
    clone = tmp_path / "clone"
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(tmp_path, "init", "--quiet", "clone")
    git(clone, "remote", "add", "origin", tmp_path / "origin")
    shutil.copytree(dist, clone / "dist")
    (clone / ".gitignore").write_text("/dist/\n*.mpy\n")
    for _ in range(2):  # the second is the next release
        subprocess.run(
            ["sh", "-e", "-c", block], cwd=clone, env=identity(), check=True, capture_output=True
        )
    for name in ("mip", f"mip-{build.library.version()}"):
        git(tmp_path, "clone", "--quiet", "--branch", name, "origin", name)
        there = {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")}
        there = {path for path in there if path.parts[0] != ".git"}
        files = [path for path in (dist / "mip").rglob("*.*") if path.is_file()]
        assert there == {path.relative_to(dist / "mip") for path in files}
        for path in files:
            copy = tmp_path / name / path.relative_to(dist / "mip")
            assert copy.read_bytes() == path.read_bytes()
    assert not git(clone, "status", "--porcelain", "--untracked-files=no")


def identity():
    who = {f"GIT_{of}_{what}": "t@example.org" for of in ("AUTHOR", "COMMITTER") for what in WHO}
    return {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}


def git(folder, *words):
    line = ["git", *map(str, words)]
    return subprocess.run(
        line, cwd=folder, env=identity(), check=True, capture_output=True, text=True
    ).stdout
