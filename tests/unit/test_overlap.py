"""Which topic filters have topics in common, held against all topics that are short enough."""

import itertools

from mqtt_as_tls.overlap import declared, overlap
from mqtt_as_tls.router import matches

CPYTHON_ONLY = True

LEVELS = ("a", "ab", "", "$a")


def topics():
    """Return topics of up to four levels, and the empty one, which no broker has."""
    found = []
    for depth in range(1, 5):
        found += ["/".join(each) for each in itertools.product(LEVELS, repeat=depth)]
    return found


def filters():
    """Return filters of up to three levels, some of them shared."""
    found = []
    for depth in range(1, 4):
        for each in itertools.product(("a", "ab", "", "$a", "+"), repeat=depth):
            found.append("/".join(each))
            if depth < 3:
                found.append("/".join((*each, "#")))
    found = ["#"] + [each for each in found if each]
    return found + ["$share/g/" + each for each in found[::7]]


class Sub:
    granted = None
    asked = False

    def __init__(self, filter):
        self.filter = filter


def test_filters_overlap_that_some_topic_matches_both_of():
    have = filters()
    matched = {each: {topic for topic in topics() if matches(each, topic)} for each in have}
    wrong = [(a, b) for a in have for b in have if overlap(a, b) != bool(matched[a] & matched[b])]
    assert wrong == []


def test_a_new_filter_is_noted_with_all_that_it_overlaps():
    have = filters()[::3]
    for name in have:
        others = [Sub(each) for each in have if each != name]
        ids = {}
        declared(ids, [], Sub(name), others)
        found = {each.filter for each in others if overlap(each.filter, name)}
        assert set(ids) == (found | {name} if found else set()), name
