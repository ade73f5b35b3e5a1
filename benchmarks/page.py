"""docs/benchmarks.md, of which a benchmark writes its own part."""

import re

from tests.support import mpy

PAGE = mpy.ROOT / "docs/benchmarks.md"


def write(name, text):
    """
    Put `text` between the lines <!-- NAME --> and <!-- /NAME --> of the page; SystemExit with a
    sentence when it has not one such place.
    """
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->\n)", re.S)
    written, count = place.subn(lambda _: text, PAGE.read_text())
    if count != 1:
        raise SystemExit(f"{PAGE.name} has no line <!-- {name} -->, or none <!-- /{name} -->")
    PAGE.write_text(written)
