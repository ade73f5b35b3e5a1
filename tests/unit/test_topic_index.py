"""The index of topic filters finds what `router.matches` says of each."""

from mqtt_as_tls.router import matches
from mqtt_as_tls.topic_index import index
from tests.unit.test_router import TABLE


class Declared:
    """What the index knows of a Subscription."""

    def __init__(self, filter):
        self.filter = filter


def found(filters, topic):
    """Return the filters (list) that an index of `filters` finds for `topic`."""
    return [sub.filter for sub in index([Declared(filter) for filter in filters])(topic)]


def matching(filters, topic):
    """Return what it has to find."""
    return [filter for filter in filters if matches(filter, topic)]


def test_every_row_of_the_routers_table_is_found_as_it_says():
    filters = [filter for filter, _, _ in TABLE]
    for filter, yes, no in TABLE:
        for topic in yes + no:
            assert found([filter], topic) == ([filter] if topic in yes else []), (filter, topic)
            assert found(filters, topic) == matching(filters, topic), topic


def test_no_filter_at_all_finds_nothing():
    assert found([], "a") == found([], "$SYS/a") == []


def test_what_is_found_is_in_the_order_of_declaration():
    filters = ["a/b", "#", "a/+", "$share/g/a/b", "+/b", "a/#", "+/+", "a/b/#", "$share/h/#", "x"]
    for _ in filters:
        filters.append(filters.pop(0))
        assert found(filters, "a/b") == [filter for filter in filters if filter != "x"]


def test_groups_that_share_a_filter_are_found_beside_it():
    filters = ["$share/g/a/+", "a/b", "a/+", "$share/h/a/+", "$share/g/a/b", "$share/h/a/b"]
    assert found(filters, "a/b") == filters
    assert found(filters, "a/c") == ["$share/g/a/+", "a/+", "$share/h/a/+"]


def test_a_broker_that_does_not_share_has_a_shared_filter_as_a_topic():
    filters = ["$share/g/a/b", "$share/h/$share/g/a/b", "$share/h/a/b", "#"]
    assert found(filters, "$share/g/a/b") == filters[:2]
    assert found(filters[1::-1], "$share/g/a/b") == filters[1::-1]


def test_an_empty_level_is_a_level():
    filters = ["/", "//", "/+", "+/", "+/+", "+/+/+", "/#", "//#", "#"]
    for topic in ("/", "//", "///", "a/", "/a", "/a/", "//a", "a"):
        assert found(filters, topic) == matching(filters, topic), topic


def test_every_filter_of_a_full_tree_is_found_once():
    """With a + beside each level a topic goes every way down."""
    filters = []
    for bits in range(64):
        filters.append("/".join(["+" if bits >> at & 1 else "abcdef"[at] for at in range(6)]))
    assert found(filters, "a/b/c/d/e/f") == filters
    assert found(filters, "a/b/c/d/e") == []
    assert found(filters, "a/b/c/d/e/f/g") == []
    assert len(found(filters, "a/x/c/d/e/f")) == 32


def test_a_topic_may_be_deeper_than_every_filter():
    filters = ["#", "+/#", "+/+/+/#", "+", "+/+", "a", "/#", "/////#"]
    for topic in ("/" * 30000, "a/" * 15000, "$a" + "/" * 30000):
        assert found(filters, topic) == matching(filters, topic)


def test_a_filter_may_be_deeper_than_every_topic():
    deep = "/".join(["+"] * 15000)
    filters = [deep, deep + "/#", "+/b"]
    assert found(filters, "a/b") == ["+/b"]
    assert found(filters, "/" * 14999) == [deep, deep + "/#"]


def test_what_is_indexed_may_be_found_time_and_again():
    subs = [Declared("a/+"), Declared("a/b")]
    find = index(subs)
    first = find("a/b")
    first.clear()  # it is the caller's
    assert find("a/b") == subs
    assert find("a/c") == subs[:1]
    assert find("b") == []
