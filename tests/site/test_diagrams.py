"""The diagrams of docs/ are those that the tool draws."""

from xml.etree import ElementTree

import pytest

from tools.site.diagrams import DIAGRAMS, FOLDER


@pytest.mark.parametrize("name", DIAGRAMS)
def test_a_diagram_is_as_the_tool_draws_it(name):
    drawn = DIAGRAMS[name]().svg()
    assert (FOLDER / name).read_text() == drawn, "python -m tools.site.diagrams writes it anew"
    ElementTree.fromstring(drawn)
