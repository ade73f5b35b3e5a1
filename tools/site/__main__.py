"""
Build the website into build/site, to be opened as it lies there: `./dev docs`.

A warning of mkdocs (a dead link, a page that is not in mkdocs.yml) fails it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build/site"


def build(folder):
    """Build the site into `folder` (Path); return the exit status. Warnings go to stderr."""
    # not --quiet: mkdocs would not see its own warnings
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's advertisement
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    )
    for line in done.stderr.splitlines():
        if not line.startswith("INFO"):
            print(line, file=sys.stderr)
    return done.returncode


def main():
    parser = argparse.ArgumentParser(
        prog="./dev docs", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.parse_args()
    if build(SITE):
        return 1
    pages = len(list(SITE.rglob("*.html")))
    print(f"{(SITE / 'index.html').relative_to(ROOT)}  ({pages} pages)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
