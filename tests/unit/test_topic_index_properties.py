"""The index of topic filters against the plain definition, by hypothesis."""

from hypothesis import example, given
from hypothesis import strategies as st

from mqtt_as_tls import router
from tests.unit.test_topic_index import found, matching

# few, so that filters and topics meet
LEVELS = ("a", "b", "", "aa", "$", "$SYS", "$share", "ü")


def names(levels, last):
    """Topic names of up to six of `levels`, which may end in one of `last`."""
    ends = st.sampled_from([*levels, *last])
    return st.builds(
        lambda above, end: "/".join([*above, end]),
        st.lists(st.sampled_from(levels), max_size=5),
        ends,
    ).filter(bool)


def is_valid(filter):
    try:
        return bool(router.filter(filter))
    except ValueError:
        return False


TOPICS = names(LEVELS, ())
PLAIN = names((*LEVELS, "+", "+"), ("#", "#"))
SHARED = st.builds("$share/{}/{}".format, st.sampled_from("gh"), PLAIN)
FILTERS = st.lists((PLAIN | SHARED).filter(is_valid), unique=True, max_size=20)


@given(FILTERS, st.lists(TOPICS, min_size=1, max_size=5))
@example(["+"], ["a//"])
@example(["#", "$share/g/#", "$share/g/+/a"], ["$SYS/a", "$share/g/a", "a"])
def test_the_index_finds_what_the_definition_says_in_the_same_order(filters, topics):
    for topic in topics:
        assert found(filters, topic) == matching(filters, topic)


@given(FILTERS, st.data())
def test_what_a_filter_is_for_is_found(filters, data):
    """Topics made from a filter, so that deep ones meet, too."""
    for filter in filters:
        levels = filter.split("/")
        if filter.startswith("$share/"):
            levels = levels[2:]
        below = data.draw(st.lists(st.sampled_from(LEVELS), max_size=3))
        if levels[-1] == "#":
            levels[-1:] = below
        topic = "/".join(
            data.draw(st.sampled_from(LEVELS)) if level == "+" else level for level in levels
        )
        if topic:
            assert found(filters, topic) == matching(filters, topic)
