"""
Each example as a user has it, under MicroPython with a board's Wi-Fi, against a real broker with
TLS. What a user changes too is replaced: config.py.
"""

import pytest

from tests.support import mpy
from tests.support.board import Board
from tests.support.broker import Broker

EXAMPLES = mpy.ROOT / "examples"
CONNECTED = r"^mqtt 127.0.0.1:\d+: connected in \d+ ms \(TLS \d+\), session new"


@pytest.fixture
def board(tmp_path, pki):
    return Board(tmp_path / "board", pki)


@pytest.fixture
def cloud(tmp_path, pki):
    """A broker that wants user and password on server-only TLS; peers come without TLS."""
    users = {"my-user": "my-cloud-password"}
    options = {"pki": pki, "users": users, "persistence": True}
    with Broker(tmp_path / "cloud", "tls", "tcp", **options) as running:
        yield running


def watch_cloud(cloud, topic_filter):
    """A peer whose session, like the cloud's own state, survives a restart."""
    who = {"user": "my-user", "password": "my-cloud-password"}
    return cloud.peer(topic_filter, client_id="watcher", clean=False, **who)


def names():
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "config")


def test_every_example_has_a_test_here():
    missing = [name for name in names() if f"test_{name}" not in " ".join(globals())]
    assert names()
    assert missing == []


@pytest.mark.parametrize("name", [*names(), "config"])
def test_an_example_fits_on_a_screen(name):
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith('"""') and lines[0].endswith('"""'), "one line says what it shows"


def test_config_of_the_user_and_of_the_tests_have_the_same_names(board):
    board.settings(1)

    def assigned(path):
        lines = path.read_text().splitlines()
        return [line.split(" =")[0] for line in lines if " = " in line and line[0].isalpha()]

    assert assigned(EXAMPLES / "config.py") == assigned(board.directory / "config.py")


def test_sensor_publishes_what_it_measures(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer("garden/#")
    with board.start(EXAMPLES / "sensor.py") as running:
        running.wait_for("link up")
        running.wait_for(CONNECTED)
        message = peer.wait_for()[0]
        assert (message.topic, message.payload, message.qos) == (
            "garden/temperature",
            b"27.0",
            1,
        )
        mtls_broker.wait_for_log("mpe66138")  # its client id comes from machine.unique_id()


def test_sensor_runs_on_a_pc_without_wifi(board, mtls_broker):
    board.settings(mtls_broker.port, wifi=False)
    peer = mtls_broker.peer("garden/#")
    with board.start(EXAMPLES / "sensor.py") as running:
        running.wait_for(CONNECTED)
        peer.wait_for()
        assert "link up" not in running.report()


def test_sensor_says_what_is_wrong_when_the_wifi_password_is(board, mtls_broker):
    board.settings(mtls_broker.port)
    with board.start(EXAMPLES / "sensor.py", env={"FAKE_WIFI": "my-ssid:another"}) as running:
        running.wait_for("not connected: Wi-Fi 'my-ssid': wrong password: check it")


def test_actuator_obeys_and_tells_its_state(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer("garden/valve/state", "garden/valve/status")
    with board.start(EXAMPLES / "actuator.py") as running:
        assert peer.wait_for(topic="garden/valve/status")[-1].payload == b"online"
        for number, (command, value) in enumerate(((b"on", 1), (b"off", 0)), 1):
            peer.publish("garden/valve/set", command)
            running.wait_for(f"pin 15 is {value}")
            state = peer.wait_for(number, topic="garden/valve/state")[-1]
            assert state.payload == command
        peer.publish("garden/valve/set", b"wide open")
        running.wait_for("neither on nor off: b'wide open'")
        running.kill()
    assert peer.wait_for(2, topic="garden/valve/status")[-1].payload == b"offline"
    late = mtls_broker.peer("garden/valve/+")
    assert sorted((m.topic, m.payload, m.retain) for m in late.wait_for(2)) == [
        ("garden/valve/state", b"off", 1),
        ("garden/valve/status", b"offline", 1),
    ]


def test_battery_sensor_publishes_and_sleeps(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer("garden/#")
    with board.start(EXAMPLES / "battery_sensor.py") as running:
        result = running.wait()
    assert result.code == 0, running.report()
    lines = result.out.splitlines()
    assert lines[-1] == "machine: deepsleep 600000"
    assert "disconnected" in lines[-2]
    assert peer.received == [("garden/moisture", b"14021")]


def test_battery_sensor_sleeps_although_the_broker_is_away(board, mtls_broker):
    board.settings(mtls_broker.port)
    mtls_broker.stop()
    program = (EXAMPLES / "battery_sensor.py").read_text()
    assert "timeout_s=30" in program
    with board.start(program.replace("timeout_s=30", "timeout_s=1")) as running:
        result = running.wait()
    assert "ConnectError: cannot connect to 127.0.0.1" in result.out
    assert result.out.splitlines()[-1] == "machine: deepsleep 600000"


def test_two_brokers_passes_messages_on(board, mtls_broker, cloud):
    board.settings(mtls_broker.port, cloud.port)
    home_peer = mtls_broker.peer()
    cloud_peer = watch_cloud(cloud, "home/#")
    with board.start(EXAMPLES / "two_brokers.py") as running:
        running.wait_for(CONNECTED)
        running.wait_for(CONNECTED)
        mtls_broker.wait_for_log("SUBACK", count=1)
        home_peer.publish("garden/temperature", b"21.5")
        assert cloud_peer.wait_for() and cloud_peer.received == [
            ("home/garden/temperature", b"21.5")
        ]
        assert running.report().count("link up") == 1
        # An outage of one broker does not lose what the other one had.
        cloud.stop()
        running.wait_for(f"{cloud.port}: connection lost")
        home_peer.publish("garden/temperature", b"22.0")
        cloud.start()
        count = 2
        while cloud_peer.wait_for(count)[-1].payload != b"22.0":  # QoS 1: the first may come twice
            count += 1


def test_umqtt_tls_publishes_on_verified_tls(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer("garden/#")
    with board.start(EXAMPLES / "umqtt_tls.py") as running:
        running.wait_for("^published")
    peer.wait_for()
    assert peer.received == [("garden/temperature", b"21.5")]


def test_umqtt_tls_explains_a_broker_it_must_not_trust(board, tmp_path, pki):
    with Broker(tmp_path / "other", "mtls", pki=pki, identity=pki.broker_wrong_ca) as broker:
        board.settings(broker.port)
        with board.start(EXAMPLES / "umqtt_tls.py") as running:
            running.wait_for("the broker's certificate is not from the CA in ca=")


def test_cloud_broker_greets_itself_with_user_and_password(board, cloud):
    board.settings(1, cloud.port)
    peer = watch_cloud(cloud, "greetings/#")
    with board.start(EXAMPLES / "cloud_broker.py") as running:
        running.wait_for(CONNECTED)
        running.wait_for("^greetings/mpe66138.* hello")
    assert peer.wait_for()[0].payload == b"hello"


def test_cloud_broker_says_that_the_password_is_wrong(board, tmp_path, pki):
    users = {"my-user": "something else"}
    with Broker(tmp_path / "cloud", "tls", pki=pki, users=users) as broker:
        board.settings(1, broker.port)
        with board.start(EXAMPLES / "cloud_broker.py") as running:
            running.wait_for("the broker refused: code 5; not authorised|wrong user or password")
