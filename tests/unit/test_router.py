"""Topic names and filters against sections 1.5.3 and 4.7 of MQTT 3.1.1."""

from mqtt_as_tls import router
from tests.unit.checks import raises

# filter, topics that match, topics that do not; the first rows are the specification's own
TABLE = (
    (
        "sport/tennis/player1/#",
        ("sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/a/b"),
        ("sport/tennis", "sport/tennis/player2", "sport/tennis/player10", "sport/tennis/player1x"),
    ),
    ("sport/#", ("sport", "sport/", "sport/tennis"), ("sports", "Sport", "/sport")),
    ("#", ("a", "/", "a/b/c", "/a", "a$"), ("$SYS", "$SYS/a", "$", "$x/y")),
    (
        "sport/tennis/+",
        ("sport/tennis/player1", "sport/tennis/", "sport/tennis/$x"),
        ("sport/tennis", "sport/tennis/player1/ranking"),
    ),
    ("sport/+", ("sport/", "sport/x"), ("sport", "sport/x/", "sport//")),
    ("+", ("a", "finance"), ("/finance", "a/b", "a/", "$SYS")),
    ("+/+", ("/finance", "a/b", "/", "a/"), ("finance", "a/b/c", "$SYS/a")),
    ("/+", ("/finance", "/"), ("finance", "/a/b", "//")),
    ("+/tennis/#", ("a/tennis", "/tennis/x", "a/tennis/b/c"), ("a/golf", "tennis", "$a/tennis")),
    ("+/monitor/Clients", ("x/monitor/Clients",), ("$SYS/monitor/Clients",)),
    ("$SYS/#", ("$SYS", "$SYS/", "$SYS/a/b"), ("SYS", "$SYSTEM", "a")),
    ("$SYS/monitor/+", ("$SYS/monitor/Clients",), ("$SYS/monitor", "$SYS/monitor/a/b")),
    ("/#", ("/", "/a", "/a/b"), ("a", "a/b")),
    ("+/#", ("a", "a/b", "/", "/a/b"), ("$SYS", "$SYS/a")),
    ("a/+/c", ("a/b/c", "a//c", "a/$b/c"), ("a/b", "a/c", "a/b/c/d", "a/b/d", "x/b/c")),
    ("a/+/+/#", ("a/b/c", "a/b/c/d", "a///"), ("a/b", "a")),
    ("+/b/+", ("a/b/c", "/b/"), ("a/b", "a/c/b", "$a/b/c")),
    ("a/b", ("a/b",), ("a", "a/b/", "/a/b", "A/b", "a/bc", "a/b/c")),
    ("/", ("/",), ("a", "//")),
    ("//", ("//",), ("/", "a//")),
    ("ACCOUNTS", ("ACCOUNTS",), ("Accounts", "accounts")),
    ("Accounts payable", ("Accounts payable",), ("Accounts", "Accounts  payable")),
    ("k\xe4se/+", ("k\xe4se/\u20ac",), ("kase/x",)),
    ("$share/group/a/+", ("a/b",), ("a", "$share/group/a/b", "group/a/b")),
    ("$share/group/a/b", ("a/b",), ("a/b/c", "b")),
    ("$share/group/#", ("a", "a/b"), ("$SYS/a",)),
    ("$share/group/+/b", ("a/b",), ("$SYS/b",)),
    ("$share/group//a", ("/a",), ("a",)),
    ("$share/group/$SYS/#", ("$SYS/a", "$SYS"), ("a",)),
    ("$shared/a/+", ("$shared/a/b",), ("b", "a/b")),
)

GOOD_TOPICS = ("a", "/", "a/b", "/a", "a/", "//", " ", "$SYS/x", "\x7f\x01", "k\xe4se/\u20ac")
GOOD_FILTERS = ("#", "+", "+/+", "/+", "+/", "a/#", "/#", "+/#", "a/+/#", "a/+/b", "$SYS/#")
BAD_FILTERS = (
    "a#",
    "#a",
    "##",
    "a/b#",
    "sport/tennis#",
    "sport/tennis/#/ranking",
    "#/",
    "#/a",
    "a/#/",
    "sport+",
    "+a",
    "a/b+/c",
    "++",
    "+#",
    "#+",
    "a/+#",
)


def test_every_row_of_the_table_matches_as_it_says():
    for filter, yes, no in TABLE:
        router.filter(filter)
        for topic in yes:
            assert router.matches(filter, topic) is True, (filter, topic)
        for topic in no:
            assert router.matches(filter, topic) is False, (filter, topic)


def test_every_topic_matches_itself_and_no_prefix_of_itself():
    for topic in GOOD_TOPICS:
        assert router.matches(topic, topic)
        assert not router.matches(topic, topic + "x")
        assert not router.matches(topic, topic + "/")
        assert not router.matches(topic + "/", topic)


def test_topics_become_utf_8():
    """
    MQTT 3.1.1: [MQTT-3.3.2-1], [MQTT-3.8.3-1], [MQTT-3.10.3-1]
    MQTT 5.0: [MQTT-3.3.2-1], [MQTT-3.8.3-1], [MQTT-3.10.3-1]
    """
    for topic in GOOD_TOPICS:
        assert router.topic(topic) == topic.encode()
        assert router.filter(topic) == topic.encode()
    assert router.topic("k\xe4se/\U0001f600") == b"k\xc3\xa4se/\xf0\x9f\x98\x80"
    for filter in GOOD_FILTERS:
        assert router.filter(filter) == filter.encode()


def test_a_topic_has_no_wildcards():
    """
    MQTT 3.1.1: [MQTT-3.3.2-2], [MQTT-4.7.1-1]
    MQTT 5.0: [MQTT-3.3.2-2], [MQTT-4.7.0-1]
    """
    for topic in GOOD_FILTERS + BAD_FILTERS:
        if "+" in topic or "#" in topic:
            with raises(ValueError, "for subscribing only"):
                router.topic(topic)


def test_wildcards_of_a_filter_stand_alone():
    """
    MQTT 3.1.1: [MQTT-4.7.1-2], [MQTT-4.7.1-3]
    MQTT 5.0: [MQTT-4.7.1-1], [MQTT-4.7.1-2]
    """
    for filter in BAD_FILTERS:
        with raises(ValueError, "MQTT-4.7.1-"):
            router.filter(filter)
    with raises(ValueError, "# stands alone and last"):
        router.filter("a/#/b")
    with raises(ValueError, "+ stands for a whole level"):
        router.filter("a/b+")


def test_what_no_topic_and_no_filter_may_be():
    """
    MQTT 3.1.1: [MQTT-1.5.3-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    MQTT 5.0: [MQTT-1.5.4-2], [MQTT-4.7.3-1], [MQTT-4.7.3-2]
    """
    for check in (router.topic, router.filter):
        for name in (None, b"a", bytearray(b"a"), 5, ["a"]):
            with raises(TypeError, "a str, not %s" % type(name).__name__):
                check(name)
        with raises(ValueError, "empty"):
            check("")
        for name in ("\0", "a\0b", "a/\0", "\xe4\0"):
            with raises(ValueError, "NUL"):
                check(name)


def test_a_topic_has_at_most_65535_bytes():
    """
    MQTT 3.1.1: [MQTT-4.7.3-3]
    MQTT 5.0: [MQTT-4.7.3-3]
    """
    for check in (router.topic, router.filter):
        assert len(check("a" * 65535)) == 65535
        with raises(ValueError, "65536 bytes"):
            check("a" * 65536)
        assert len(check("a" + "\xe4" * 32767)) == 65535  # bytes, not characters
        with raises(ValueError, "65536 bytes"):
            check("\xe4" * 32768)


def test_a_surrogate_is_no_character():
    """
    MQTT 3.1.1: [MQTT-1.5.3-1]
    MQTT 5.0: [MQTT-1.5.4-1]
    """
    for code in (0xD800, 0xDBFF, 0xDC00, 0xDFFF):
        for check in (router.topic, router.filter):
            with raises(ValueError):
                check("a" + chr(code))
    for code in (0xD7FF, 0xE000, 0xFFFF, 0x10FFFF):
        assert router.topic(chr(code)) == chr(code).encode()


def test_a_shared_filter_has_a_group_and_a_filter():
    """MQTT 5.0: [MQTT-4.8.2-1], [MQTT-4.8.2-2]"""
    for filter in ("$share/g/a", "$share/g/#", "$share/g/+/a", "$share/g//", "$share/a b/c"):
        assert router.filter(filter) == filter.encode()
    for filter in ("$share", "$share/", "$share/g", "$share/g/", "$share//a"):
        with raises(ValueError, "$share/group/filter"):
            router.filter(filter)
    for filter in ("$share/+/a", "$share/#/a", "$share/g+/a", "$share/#"):
        with raises(ValueError, "topic filter '%s'" % filter):
            router.filter(filter)
    with raises(ValueError, "MQTT-4.7.1-2"):
        router.filter("$share/g/a#")
