"""A fresh virtual environment with wheels of ours and what they ask for: no more, no network."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import patience


def run(*command, cwd=None):
    """Run a command; return its stdout, or raise AssertionError with all that it wrote."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=patience.stretched(200),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def following(requirement, ours, extras=()):
    """
    Yield the names of the distributions that a Requirement asks for, and those that these need.

    ours  names of the wheels that are installed anyway
    """
    marker = requirement.marker
    if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
        if canonicalize_name(requirement.name) in ours:
            return
        version = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(version), f"{requirement} and {version}"
        yield requirement.name
        for line in importlib.metadata.requires(requirement.name) or ():
            yield from following(Requirement(line), ours, requirement.extras)


def make(folder, wheels, extras=()):
    """
    Make it in `folder` (Path); return its folder bin/.

    wheels  Paths, all installed; what they need comes from where the tests have it
    extras  of theirs, that are wanted too
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin/python"
    options = ("--quiet", "--no-deps", "--no-index", "--no-compile")
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *wheels)
    site = next(folder.glob("lib/python3*/site-packages"))
    found = [importlib.metadata.PathDistribution(path) for path in site.glob("*.dist-info")]
    ours = {canonicalize_name(each.metadata["Name"]) for each in found}
    lines = [line for each in found for line in each.requires or ()]
    needed = {name for line in lines for name in following(Requirement(line), ours, extras)}
    for name in needed:
        for file in importlib.metadata.files(name):
            here = Path(file.locate())
            if file.parts[0] == "..":
                target = folder / "bin" / here.name if here.parent.name == "bin" else None
            else:
                here = here.parents[len(file.parts) - 1] / file.parts[0]
                target = site / here.name
            if target and not target.exists():
                target.symlink_to(here.resolve())
    return folder / "bin"
