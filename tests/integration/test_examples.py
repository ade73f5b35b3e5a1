"""
Each example as a user has it, under MicroPython with a board's Wi-Fi, against a real broker with
TLS. What a user changes too is replaced: config.py.
"""

import ast
import json

import pytest

from tests.support import docs, home, mpy
from tests.support.board import FAKES, HOME, Board
from tests.support.broker import Broker, properties_of
from tools.mqttls import certificates, updates

EXAMPLES = mpy.ROOT / "examples"
ON_A_VIRTUAL_PICO = {"ppp_link"}  # in tests/virtual_pico, which has PPP
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
    here = " ".join(globals())
    missing = [
        name for name in names() if f"test_{name}" not in here and name not in ON_A_VIRTUAL_PICO
    ]
    assert names()
    assert missing == []


@pytest.mark.parametrize("name", [*names(), "config"])
def test_an_example_fits_on_a_screen(name):
    """The docstring's first line says what it shows; the rest of it, how to run it on the PC."""
    text = (EXAMPLES / f"{name}.py").read_text()
    first, *rest = ast.get_docstring(ast.parse(text)).splitlines()
    more = len(rest) + 1 if rest else 0  # and the line that ends it
    assert len(text.splitlines()) - more <= 40
    assert text.startswith(f'"""{first}') and len(first) <= 99 and first.endswith(".")
    if name != "config":
        how = " ".join(rest)
        assert f".venv/bin/micropython -m examples.{name}" in how or "Not on the PC" in how
        assert len(rest) <= 3


def test_config_of_the_user_the_tool_and_the_tests_have_the_same_names(board):
    board.settings(1)

    def assigned(path):
        found = ast.parse(path.read_text()).body
        targets = [
            each.target if isinstance(each, ast.AnnAssign) else each.targets[0]
            for each in found
            if isinstance(each, (ast.Assign, ast.AnnAssign))
        ]
        (settings,) = [each.value for each in found if ast.unparse(each).startswith("mqtt")]
        keys = [each.value for each in settings.keys]
        return sorted(each.id for each in targets if each.id[0] != "_"), keys

    mine, tools = board.directory / "config.py", mpy.ROOT / "tools/mqttls/board_config.py"
    assert assigned(EXAMPLES / "config.py") == assigned(mine) == assigned(tools)


def test_sensor_publishes_what_it_measures(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer(HOME + "#")
    with board.start(EXAMPLES / "sensor.py") as running:
        running.wait_for("link up")
        running.wait_for(CONNECTED)
        message = peer.wait_for()[0]
        assert (message.topic, message.payload, message.qos) == (
            HOME + "temperature",
            b"27.0",
            1,
        )
        mtls_broker.wait_for_log(" as garden-1 ")


def test_sensor_runs_on_a_pc_without_wifi(board, mtls_broker):
    board.settings(mtls_broker.port, wifi=False)
    peer = mtls_broker.peer(HOME + "#")
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
    peer = mtls_broker.peer(HOME + "valve", HOME + "status")
    with board.start(EXAMPLES / "actuator.py") as running:
        assert peer.wait_for(topic=HOME + "status")[-1].payload == b"online"
        for number, (command, value) in enumerate(((b"on", 1), (b"off", 0)), 1):
            peer.publish(HOME + "valve/set", command)
            running.wait_for(f"pin 15 is {value}")
            state = peer.wait_for(number, topic=HOME + "valve")[-1]
            assert state.payload == command
        peer.publish(HOME + "valve/set", b"wide open")
        running.wait_for("neither on nor off: b'wide open'")
        running.kill()
    assert peer.wait_for(2, topic=HOME + "status")[-1].payload == b"offline"
    late = mtls_broker.peer(HOME + "+")
    assert sorted((m.topic, m.payload, m.retain) for m in late.wait_for(2)) == [
        (HOME + "status", b"offline", 1),
        (HOME + "valve", b"off", 1),
    ]


def test_firmware_over_mqtt_replaces_itself(board, mtls_broker):
    """As app.py, with the main.py of docs/updates.md; test_updates.py has what may go wrong."""
    board.settings(mtls_broker.port)
    key = certificates.new_key("rsa3072")
    example = (EXAMPLES / "firmware_over_mqtt.py").read_text()
    (board.directory / "certs/update.der").write_bytes(updates.public_der(key))
    # on a PC the certificates are not in the root
    here = example.replace('"update")', '"update", "certs/update.der")')
    assert here != example
    (board.directory / "app.py").write_text(here)
    peer = mtls_broker.peer(HOME + "version")
    path = {"MICROPYPATH": f"{FAKES}:{mpy.ROOT / 'update'}:{mpy.environment()['MICROPYPATH']}"}
    with board.start(docs.text("update main"), env=path) as running:
        assert peer.wait_for(1)[-1].payload == b"1"
        peer.publish(HOME + "update", updates.packed("app", 2, {"app.py": here.encode()}, key))
        running.wait_for("^machine: reset")
    with board.start(docs.text("update main"), env=path) as running:
        assert peer.wait_for(2)[-1].payload == b"2"


def test_battery_sensor_publishes_and_sleeps(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer(HOME + "#")
    with board.start(EXAMPLES / "battery_sensor.py") as running:
        result = running.wait()
    assert result.code == 0, running.report()
    lines = result.out.splitlines()
    assert lines[-1] == "machine: deepsleep 600000"
    assert "disconnected" in lines[-2]
    peer.wait_for(1)
    assert peer.received == [(HOME + "moisture", b"14021")]


def test_battery_sensor_sleeps_although_the_broker_is_away(board, mtls_broker):
    board.settings(mtls_broker.port)
    mtls_broker.stop()
    program = (EXAMPLES / "battery_sensor.py").read_text()
    assert "timeout_s=30" in program
    with board.start(program.replace("timeout_s=30", "timeout_s=1")) as running:
        result = running.wait()
    assert "ConnectError: cannot connect to 127.0.0.1" in result.out
    assert result.out.splitlines()[-1] == "machine: deepsleep 600000"


def in_the_cloud(name, cloud):
    """Return the example `name` with the broker `cloud` in the place of the one it names."""
    program = (EXAMPLES / f"{name}.py").read_text()
    for old, new in (
        ('"mycluster.example.com",', f'"127.0.0.1", {cloud.port},'),
        ("/certs/cloud-ca.pem", "certs/ca.der"),
    ):
        assert program.count(old) == 1
        program = program.replace(old, new)
    return program


def test_two_brokers_passes_messages_on(board, mtls_broker, cloud):
    board.settings(mtls_broker.port)
    home_peer = mtls_broker.peer()
    cloud_peer = watch_cloud(cloud, HOME + "#")
    topic = HOME + "temperature"
    with board.start(in_the_cloud("two_brokers", cloud)) as running:
        running.wait_for(CONNECTED)
        running.wait_for(CONNECTED)
        mtls_broker.wait_for_log("SUBACK", count=1)
        home_peer.publish(topic, b"21.5")
        assert cloud_peer.wait_for() and cloud_peer.received == [(topic, b"21.5")]
        assert running.report().count("link up") == 1
        # An outage of one broker does not lose what the other one had.
        cloud.stop()
        running.wait_for(f"{cloud.port}: connection lost")
        home_peer.publish(topic, b"22.0")
        cloud.start()
        count = 2
        while cloud_peer.wait_for(count)[-1].payload != b"22.0":  # QoS 1: the first may come twice
            count += 1


@pytest.mark.parametrize("name", ["two_brokers", "cloud_broker"])
def test_what_a_cloud_needs_besides_is_said_where_it_is_missing(name, board, mtls_broker):
    """The board as `mqttls provision` leaves it: it has nothing of a cloud."""
    board.settings(mtls_broker.port)
    with board.start(EXAMPLES / f"{name}.py") as running:
        result = running.wait()
    assert "ca /certs/cloud-ca.pem: cannot open" in result.out, result


def test_umqtt_tls_publishes_on_verified_tls(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer(HOME + "#")
    with board.start(EXAMPLES / "umqtt_tls.py") as running:
        running.wait_for("^published")
    peer.wait_for()
    assert peer.received == [(HOME + "temperature", b"21.5")]


def test_umqtt_tls_explains_a_broker_it_must_not_trust(board, tmp_path, pki):
    with Broker(tmp_path / "other", "mtls", pki=pki, identity=pki.broker_wrong_ca) as broker:
        board.settings(broker.port)
        with board.start(EXAMPLES / "umqtt_tls.py") as running:
            running.wait_for("the broker's certificate is not from the CA in ca=")


def test_cloud_broker_greets_itself_with_user_and_password(board, cloud):
    board.settings(1)
    peer = watch_cloud(cloud, HOME + "#")
    with board.start(in_the_cloud("cloud_broker", cloud)) as running:
        running.wait_for(CONNECTED)
        running.wait_for(f"^'{HOME}greetings/mpe66138.*' b'hello'")
    assert peer.wait_for()[0].payload == b"hello"


def test_cloud_broker_says_that_the_password_is_wrong(board, tmp_path, pki):
    users = {"my-user": "something else"}
    with Broker(tmp_path / "cloud", "tls", pki=pki, users=users) as broker:
        board.settings(1)
        with board.start(in_the_cloud("cloud_broker", broker)) as running:
            running.wait_for("the broker refused: code 5; not authorised|wrong user or password")


def test_request_response_asks_and_answers(board, mtls_broker):
    board.settings(mtls_broker.port)
    weather = mtls_broker.peer(HOME + "rain/get", protocol=5)
    visitor = mtls_broker.peer("answers/visitor", protocol=5)
    with board.start(EXAMPLES / "request_response.py") as running:
        question = weather.wait_for()[0]
        said = properties_of(question)
        assert question.payload == b"tomorrow"
        assert said["response_topic"] == HOME + "rain" and said["correlation_data"]
        only = {"correlation_data": said["correlation_data"]}
        weather.publish(said["response_topic"], b"3 mm", properties=only)
        running.wait_for("^rain tomorrow: b'3 mm'")
        for number, (name, answer) in enumerate(
            {"garden/tank": b"420", "moon": b"unknown"}.items()
        ):
            asked = {"response_topic": "answers/visitor", "correlation_data": bytes([number])}
            visitor.publish(HOME + "level/get", name, properties=asked)
            message = visitor.wait_for(number + 1)[-1]
            assert message.payload == answer
            assert properties_of(message) == {"correlation_data": bytes([number])}


def test_request_response_says_that_nobody_answers(board, mtls_broker):
    board.settings(mtls_broker.port)
    with board.start(EXAMPLES / "request_response.py") as running:
        running.wait_for("^cannot ask: no one is subscribed")


def test_request_response_says_that_no_answer_came(board, mtls_broker):
    board.settings(mtls_broker.port)
    mtls_broker.peer(HOME + "rain/get")  # listens, and says nothing
    program = (EXAMPLES / "request_response.py").read_text()
    assert "timeout_s=10" in program
    with board.start(program.replace("timeout_s=10", "timeout_s=1")) as running:
        running.wait_for("^no answer within 10 s")


def test_store_and_forward_brings_what_was_measured_without_a_broker(board, mtls_broker):
    """Killed twice while the broker is down: every reading arrives, in order."""
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer(HOME + "#", client_id="watcher", clean=False)
    program = (EXAMPLES / "store_and_forward.py").read_text()
    for old, new in (
        ("sleep(60)", "sleep(0.05)"),
        ("time.time()", "time.ticks_ms()"),  # one is not like another then
        (
            "            await asyncio",
            "            print('kept', reading)\n            await asyncio",
        ),
    ):
        assert program.count(old) == 1
        program = program.replace(old, new)
    mtls_broker.stop()
    kept = []
    for _ in range(2):
        with board.start(program) as running:
            for _ in range(10):
                kept.append(running.wait_for("^kept ").removeprefix("kept ").encode())
            running.kill()
            assert "not connected" in running.report()
    mtls_broker.start()
    with board.start(program) as running:
        running.wait_for(CONNECTED)
        while not set(kept) <= {payload for _, payload in peer.received}:
            peer.wait_for(len(peer.messages) + 1)
    arrived = list(dict.fromkeys(payload for _, payload in peer.received))  # QoS 1: maybe twice
    assert [each for each in arrived if each in kept] == kept


def test_home_assistant_finds_the_device_and_commands_it(board, mtls_broker):
    board.settings(mtls_broker.port)
    peer = mtls_broker.peer(HOME + "+")
    with board.start(EXAMPLES / "home_assistant.py") as running:
        peer.wait_for(topic=HOME + "temperature")
        # Home Assistant comes later: what it needs is kept
        late = mtls_broker.peer("homeassistant/device/garden-1/config")
        device = home.read(late.wait_for()[0].payload)
        valve, temperature = (device["components"][each] for each in ("valve", "temperature"))
        assert temperature["unit_of_measurement"] == "°C"
        # What it then does with the topics that it was told:
        peer.publish(valve["command_topic"], b"ON")
        running.wait_for("pin 15 is 1")
        assert peer.wait_for(2, topic=valve["state_topic"])[-1].payload == b"ON"
        assert float(peer.wait_for(topic=temperature["state_topic"])[0].payload) == 27
        assert peer.wait_for(topic=device["availability_topic"])[-1].payload == b"online"
        running.kill()
    assert peer.wait_for(2, topic=HOME + "status")[-1].payload == b"offline"
    late = mtls_broker.peer(HOME + "+")
    assert sorted((m.topic, m.payload) for m in late.wait_for(3)) == [
        (HOME + "status", b"offline"),
        (HOME + "temperature", b"27.0"),
        (HOME + "valve", b"ON"),
    ]


@pytest.fixture
def aws(tmp_path, pki):
    """A broker with AWS's limits: mutual TLS, QoS 1, packets of 128 KB."""
    limits = ["max_qos 1", "max_keepalive 1200"]
    options = {"pki": pki, "max_packet": 131072, "lines": limits}
    with Broker(tmp_path / "aws", "tcp", "mtls", **options) as running:
        yield running


def test_aws_iot_reports_its_readings_and_obeys_its_shadow(board, aws):
    board.settings(aws.ports["mtls"])
    shadow = "$aws/things/garden-1/shadow/update"
    cloud = aws.peer(HOME + "reading", shadow)
    with board.start(EXAMPLES / "aws_iot.py") as running:
        running.wait_for(CONNECTED)
        assert json.loads(cloud.wait_for(topic=HOME + "reading")[0].payload)
        reported = cloud.wait_for(topic=shadow)[0].payload
        assert json.loads(reported) == {"state": {"reported": {"interval_s": 60}}}
        cloud.publish(shadow + "/delta", json.dumps({"version": 2, "state": {"interval_s": 5}}))
        reported = cloud.wait_for(2, topic=shadow)[-1].payload
        assert json.loads(reported) == {"state": {"reported": {"interval_s": 5}}}
        assert " as garden-1 (p5," in aws.log()


def test_aws_iot_keeps_to_the_limits_of_such_a_broker(board, aws):
    """8 filters in a SUBSCRIBE, no QoS 2, no packet over 128 KB; a refused one ends nothing."""
    board.settings(aws.ports["mtls"])
    program = (EXAMPLES / "aws_iot.py").read_text()
    assert "protocol=5" in program
    more = "protocol=5, max_packet=200_000, max_backlog=200_000"
    program = program.replace("protocol=5", more)
    before, _ = program.split("async def main")
    limits = """
from mqtt_as_tls import RefusedError

for n in range(9):
    client.on("$aws/things/garden-1/jobs/%d" % n, qos=1)(print)


async def main():
    async with client:
        await client.wait_connected()
        print("takes", client.properties["maximum_qos"], client.properties["maximum_packet_size"])
        for size, qos in ((1, 2), (131_072, 1)):
            try:
                await client.publish(config.home + "reading", bytes(size), qos=qos)
            except RefusedError as error:
                print(hex(error.code), error)
        await client.publish(config.home + "reading", bytes(131_000), qos=1)
        print("still connected", client.stats.connects)


asyncio.run(main())
"""
    cloud = aws.peer(HOME + "reading")
    with board.start(before + limits) as running:
        result = running.wait()
    assert "takes 1 131072" in result.out, running.report()
    assert "0x9b the broker takes no such message: QoS not supported" in result.out
    assert "0x95 the broker takes no such message: packet too large" in result.out
    assert "still connected 1" in result.out
    assert len(cloud.wait_for()[0].payload) == 131_000
    parts = aws.log().split("Received SUBSCRIBE from garden-1")[1:]
    asked = [part.split("Sending SUBACK to garden-1")[0].count("(QoS 1)") for part in parts]
    assert sum(asked) == 10 and max(asked) == 8
