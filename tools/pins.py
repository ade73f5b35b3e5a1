"""
Write requirements/*.txt anew: what is pinned in requirements/*.in, and what that wants, each with
its hashes, for CPython 3.10 to 3.14 on Linux, macOS and Windows. It takes uv:

    pipx run --spec uv uv --version
    .venv/bin/python tools/pins.py
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
FIRST = "test"  # what the others share with it has its versions
HEAD = "# Written by tools/pins.py of {name}.in: change that, and run it.\n"


def main():
    uv = shutil.which("uv")
    if not uv:
        sys.exit("uv is missing: pipx install uv")
    names = sorted(path.stem for path in FOLDER.glob("*.in"))
    for name in sorted(names, key=lambda each: each != FIRST):
        command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", f"{name}.in"]
        command += ["-c", f"{FIRST}.txt"] if name != FIRST else []
        done = subprocess.run(command, cwd=FOLDER, check=True, stdout=subprocess.PIPE, text=True)
        (FOLDER / f"{name}.txt").write_text(HEAD.format(name=name) + done.stdout, "utf-8")


if __name__ == "__main__":
    main()
