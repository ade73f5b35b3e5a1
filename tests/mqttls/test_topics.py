"""Who may use which topics: `device add --topics`, `broker-conf --acl-file`, and how both stay."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.broker import Broker
from tests.support.doctoring import mqttls as in_process
from tests.support.tool import Mosquitto, Watcher, init, mqttls, open_folder
from tools.mqttls import acl
from tools.mqttls.messages import Failure

OWN = """\
# the weather station
user station
topic write weather/#

pattern read news/%u
"""


@pytest.fixture
def pki():
    with open_folder() as folder:
        yield folder / "mqtt-pki"


def may(pki, access, topic, name="kitchen"):
    """Tell what the ACL in the folder lets a device do."""
    return acl.allows((pki / "broker/acl").read_text(), access, topic, name, name)


def added(pki, *arguments, **options):
    return mqttls(pki, "device", "add", *arguments, **options)


def test_topics_that_a_device_was_given_survive_every_command_that_writes_the_acl(pki, tmp_path):
    init(pki)
    said = added(pki, "kitchen", "--topics", "ha/#", "--topics", "read:weather/+/now", "--json")
    assert said.json["topics"] == {"kitchen": ["readwrite ha/#", "read weather/+/now"]}
    (tmp_path / "own").write_text(OWN)
    mqttls(pki, "broker-conf", "--acl-file", tmp_path / "own")
    (tmp_path / "own").unlink()
    for command in (
        ("device", "add", "cellar", "--topics", "write:cellar"),
        ("device", "add", "kitchen"),
        ("device", "add", "desk", "--admin"),
        ("init", "--broker", "127.0.0.1", "--broker", "another.lan"),
        ("init", "--broker", "127.0.0.1", "--broker", "another.lan", "--server-only"),
        ("broker-conf", "--mutual"),
        ("renew", "kitchen"),
        ("renew", "--all"),
        ("revoke", "cellar"),
        ("broker-conf", "--docker"),
        ("renew", "--ca"),
        ("renew", "--ca", "--finish", "--force"),
    ):
        assert in_process(*command, "--dir", pki)["exit"] == 0
        rights = [
            may(pki, access, topic)
            for topic in ("ha/x", "weather/a/now", "devices/kitchen/x", "devices/cellar/x")
            for access in ("write", "read")
        ]
        assert rights == [True, True, False, True, True, True, False, False], command
        assert may(pki, "write", "weather/a", "station"), command
        assert may(pki, "read", "news/kitchen") and not may(pki, "read", "news/desk2"), command
    assert not may(pki, "write", "cellar", "cellar")
    added(pki, "cellar")
    assert not may(pki, "write", "cellar", "cellar"), "a new one of that name begins anew"


def test_topics_are_replaced_and_taken_away_and_told(pki):
    init(pki)
    added(pki, "kitchen", "cellar", "--topics", "ha/#")
    assert may(pki, "write", "ha/x", "cellar")
    out = added(pki, "kitchen", "--topics", "write:a b/c", "--topics", "readwrite:read:x").out
    assert "kitchen may use, too: write a b/c, readwrite read:x" in out
    assert (
        not may(pki, "write", "ha/x") and may(pki, "write", "a b/c") and may(pki, "read", "read:x")
    )
    assert may(pki, "write", "ha/x", "cellar")
    assert "too: write a b/c, readwrite read:x" in mqttls(pki, "status").out
    (one,) = mqttls(pki, "status", "kitchen", "--json").json["devices"]
    assert one["topics"] == ["write a b/c", "readwrite read:x"]
    assert "may use, too" not in added(pki, "kitchen", "--topics", "none").out
    assert not may(pki, "write", "a b/c")
    assert "kitchen" not in (pki / "broker/acl").read_text()


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a/#/b",
        "a#",
        "a/b+",
        " a",
        "a ",
        "a\nuser other",
        "a\rtopic #",
        "a\x1b[2J",
        "a\u2028b",
        "a\ud800",
        "read:",
        "$share/g/a",
        "ä" * 129,
    ],
)
def test_what_is_no_topic_is_told(topic):
    with pytest.raises(ValueError, match="is no topic that a device can be given"):
        acl.rules([topic])


def test_of_a_topic_that_is_none_nothing_is_made(pki):
    init(pki)
    before = (pki / "broker/acl").read_bytes()
    for topic in ("a\nuser other", "a\x1b[2J"):
        said = added(pki, "kitchen", "--topics", topic, code=2)
        assert "--topics" in said.err and "\x1b" not in said.err
    assert (pki / "broker/acl").read_bytes() == before
    assert not (pki / "devices/kitchen").exists()


def test_more_topics_than_a_device_may_have_are_refused(pki):
    init(pki)
    many = [word for n in range(acl.MOST + 1) for word in ("--topics", f"t/{n}")]
    added(pki, "kitchen", *many[2:])
    assert "more than the 32" in added(pki, "cellar", *many, code=2).err


@given(st.text(max_size=40))
def test_whatever_is_taken_makes_one_line_that_mosquitto_reads_as_that(topic):
    try:
        (rule,) = acl.rules([f"write:{topic}"])
    except ValueError:
        return
    text = acl.text({"admins": [], "topics": {"kitchen": [rule]}})
    assert text.count("\n") == acl.text({"admins": [], "topics": {}}).count("\n") + 4
    assert len(text.splitlines()) == text.count("\n")
    plain = topic.replace("+", "x").replace("#", "y")
    assert acl.allows(text, "write", plain, "kitchen", "kitchen")


@pytest.mark.parametrize(
    "topics",
    [
        [],
        {"kitchen": "read a"},
        {"kitchen": ["read a\npattern readwrite #"]},
        {"kitchen": ["deny a"]},
        {"kitchen": [1]},
        {"../x": ["read a"]},
        {"x\nuser y": ["read a"]},
    ],
)
def test_what_else_is_in_the_settings_gets_into_no_acl(topics):
    with pytest.raises(Failure, match="settings.json is damaged"):
        acl.text({"admins": [], "topics": topics})


def test_topics_in_a_csv_file(pki, tmp_path):
    init(pki)
    fleet = tmp_path / "fleet.csv"
    fleet.write_text("name,topics\nkitchen,ha/# read:weather/#\ncellar,\nroof,none\n")
    added(pki, "cellar", "roof", "--topics", "old")
    added(pki, "--csv", fleet)
    assert may(pki, "write", "ha/x") and not may(pki, "write", "weather/x")
    assert may(pki, "write", "old", "cellar") and not may(pki, "write", "old", "roof")
    # those of the command line are for the rows that have none
    added(pki, "--csv", fleet, "--topics", "all/#")
    assert may(pki, "write", "all/x", "cellar") and not may(pki, "write", "all/x", "kitchen")
    fleet.write_text("name,topics\nshed,a/#/b\nbarn,ok b+\n")
    said = added(pki, "--csv", fleet, code=1).err
    assert "line 2: 'a/#/b' is no topic" in said and "line 3: 'b+' is no topic" in said
    assert not (pki / "devices/shed").exists()


BAD_LINES = {
    "topic read a": "for clients without a name",
    "user\n": "nothing after user",
    "user a\ntopic  ": "nothing after topic",
    "user a\ntopic a b/#": "it is read, write, readwrite or deny",
    "user a\ntopic\tread a": "a tab",
    "user a\n  # indented": "it begins with user, topic, pattern or #",
    "pattern read a/#/b": "# comes last",
    "pattern read a\x1bb": "cannot be printed",
    "publish a": "it begins with user",
}


@pytest.mark.parametrize("lines", BAD_LINES)
def test_lines_that_mosquitto_would_not_take_are_told_by_number(lines):
    number = 2 + lines.strip("\n").count("\n")
    with pytest.raises(Failure) as caught:
        acl.own_lines(f"\n{lines}".encode(), "own")
    (said,) = caught.value.lines
    assert f"line {number}: " in said and BAD_LINES[lines] in said and "\x1b" not in said


def test_a_file_that_is_no_acl_changes_nothing(pki, tmp_path):
    init(pki)
    path = tmp_path / "own"
    for data, word in (
        (b"user a\xff", "is not UTF-8 (byte 6)"),
        (b"user a\ntopic a b/#", "line 2: 'a': it is read, write, readwrite or deny"),
    ):
        path.write_bytes(data)
        assert word in mqttls(pki, "broker-conf", "--acl-file", path, code=1).err
    assert "is a folder" in mqttls(pki, "broker-conf", "--acl-file", tmp_path, code=1).err
    assert not (pki / acl.OWN).exists()


def test_lines_of_ones_own_are_kept_shown_and_taken_out_again(pki, tmp_path):
    """Written on Windows, with a `user` at the end that takes nobody's rights."""
    port = init(pki)
    path = tmp_path / "own"
    path.write_bytes(b"\xef\xbb\xbf" + OWN.replace("\n", "\r\n").encode() + b"user kitchen\r\n")
    added(pki, "desk", "--admin")
    added(pki, "kitchen", "station", "--topics", "ha/#")
    mqttls(pki, "broker-conf", "--acl-file", path)
    assert (pki / acl.OWN).read_text().endswith("user kitchen\n")
    assert "ACL        4 lines of your own, in acl.own" in mqttls(pki, "status").out
    with Mosquitto(pki / "broker/mosquitto.conf", port, pki), Watcher(pki, "desk", port) as desk:
        for name, topic in (
            ("kitchen", "weather/x"),
            ("station", "weather/x"),
            ("kitchen", "ha/x"),
        ):
            publish(pki, name, topic, port)
        desk.wait_for("ha/x")
        assert desk.received == [("weather/x", "station"), ("ha/x", "kitchen")]
    (pki / acl.OWN).write_bytes(b"user a\xff")  # by hand
    assert "acl.own is not UTF-8" in mqttls(pki, "status", code=1).err
    mqttls(pki, "broker-conf", "--no-acl-file")
    assert not (pki / acl.OWN).exists()
    assert not may(pki, "write", "weather/x", "station") and may(pki, "write", "ha/x")


def publish(pki, name, topic, port):
    """Have the device `name` publish its name with QoS 1 by mosquitto_pub."""
    at = pki / "devices" / name
    files = ["--cafile", at / "ca.crt", "--cert", at / "cert.crt", "--key", at / "key.pem"]
    where = ["-h", "127.0.0.1", "-p", str(port), "-t", topic, "-m", name, "-q", "1"]
    subprocess.run(["mosquitto_pub", *files, *where], check=True, timeout=20)


MANY = """\
pattern readwrite devices/%u/#
pattern write by-id/%c
user kitchen
topic readwrite a b/#
topic read only/read/+
topic write only/write
topic deny only/write/not
topic both
topic deny devices/kitchen/secret
user nobody
topic readwrite nobodys
user kitchen
topic write only/write/#
topic write +/free
user boss
topic readwrite #
"""
TOPICS = (
    "devices/kitchen/x devices/kitchen devices/cellar/x devices/kitchen/secret by-id/kitchen "
    "by-id/other only/read/x only/read/x/y only/write only/write/not only/write/yes both nobodys "
    "x/free $x/free a"
).split() + ["a b/c d"]


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("name", ["kitchen", "cellar"])
def test_an_acl_is_read_as_mosquitto_reads_it(tmp_path, protocol, name):
    users = dict.fromkeys(("kitchen", "cellar", "boss"), "x")
    with Broker(tmp_path / "b", "tcp", users=users, acl=MANY) as broker:
        one = {"password": "x", "protocol": protocol}
        boss = broker.peer("#", "$x/#", user="boss", **one)
        peer = broker.peer(*TOPICS, user=name, client_id=name, **one)
        for topic in TOPICS:
            peer.publish(topic, b"from it")
        peer.publish(f"devices/{name}/end", b"end")
        boss.wait_for(topic=f"devices/{name}/end")
        written = {each.topic for each in boss.messages if each.payload == b"from it"}
        for topic in TOPICS:
            boss.publish(topic, b"to it")
        peer.subscribe(f"devices/{name}/end")
        boss.publish(f"devices/{name}/end", b"end")
        peer.wait_for(topic=f"devices/{name}/end")
        read = {each.topic for each in peer.messages if each.payload == b"to it"}
        # of such an id mosquitto has no fear; one with a wildcard it does not let in
        broker.peer(user=name, client_id="a/b", **one).publish("by-id/a/b", b"by id")
        boss.wait_for(topic="by-id/a/b")
    for topic in TOPICS:
        assert acl.allows(MANY, "write", topic, name, name) == (topic in written), topic
        if topic[0] != "$":  # to which `boss` may not write
            assert acl.allows(MANY, "read", topic, name, name) == (topic in read), topic
    assert acl.allows(MANY, "write", "by-id/a/b", name, "a/b")
    assert not acl.allows(MANY, "write", "by-id/axb", name, "a+b")
    assert written and read and len(read) < len(TOPICS)
