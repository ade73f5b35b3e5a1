"""The doctor about topics: what a broker lets a device publish and receive, and its log of it."""

import json
import os
import re
import subprocess

import pytest

from tests.support import mpy
from tests.support.broker import HOST, Broker, mosquitto
from tests.support.doctoring import conf_of, doctor, explained, mqttls
from tests.support.tool import Mosquitto, Watcher, init, open_folder
from tools.mqttls.cli import main
from tools.mqttls.doctor import log, topic

pytestmark = pytest.mark.usefixtures("micropython")

# what `device add --topics` gives: for the topic "t/x", and what the doctor must find
RIGHTS = {
    "none": (),
    "read": ("read:t/#",),
    "write": ("write:t/x",),
    "both": ("t/+",),
}


class Fleet:
    """A folder of mqttls with a device for each of RIGHTS, and the broker that it made."""

    def __init__(self, folder, *options):
        self.pki = folder / "mqtt-pki"
        self.port = init(self.pki, *options)
        mqttls("device", "add", "desk", "desk-2", "--admin", "--dir", self.pki)
        for name, topics in RIGHTS.items():
            words = [word for each in topics for word in ("--topics", each)]
            mqttls("device", "add", name, *words, "--dir", self.pki)
        self.conf = self.pki / "broker/mosquitto.conf"

    def doctor(self, name, *arguments):
        """Return (publish, receive) as states, and the doctor's whole word."""
        at = ("--dir", self.pki, "--device", name)
        said = mqttls("doctor", f"{HOST}:{self.port}", "--topic", "t/x", *at, *arguments)
        return tuple(said["stages"][each]["state"] for each in ("publish", "receive")), said


@pytest.fixture(scope="module", params=["mutual", "--server-only"])
def fleet(request):
    with open_folder() as folder:
        made = Fleet(folder, *[each for each in (request.param,) if each.startswith("--")])
        with Mosquitto(made.conf, made.port, made.pki) as made.broker:
            yield made


DEVICE = """
import asyncio, sys
from tests.device.inside import subscribed
from tests.device.provisioned import make_client

async def main(folder, protocol):
    client = make_client(folder, protocol=protocol)
    got = []
    async with client:
        @client.on("t/x", qos=1)
        def came(message):
            got.append(message.payload)
        await subscribed(client)
        print("subscribed")
        sys.stdin.readline()
        try:
            await client.publish("t/x", "from it", qos=1, timeout_s=10)
            print("acknowledged")
        except Exception as error:
            print("refused", error.code)
        await asyncio.sleep_ms(300)
        print(b"from desk" in got)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def publishing(fleet, topic, *more):
    """Return the command by which `desk-2`, who may do everything, publishes."""
    at = fleet.pki / "devices/desk-2"
    said = json.loads((at / "tls.json").read_text())
    proof = ["--cert", at / "cert.crt", "--key", at / "key.pem"]
    if "password" in said:
        proof = ["-u", said["user"], "-P", said["password"]]
    where = ["-h", HOST, "-p", str(fleet.port), "--cafile", at / "ca.crt", "-t", topic]
    return ["mosquitto_pub", *proof, *where, *more]


def publish(fleet, payload, *more, topic="t/x"):
    """Have `desk-2` publish with QoS 1."""
    what = ["-m", payload] if payload else ["-n"]
    command = publishing(fleet, topic, "-q", "1", *more, *what)
    subprocess.run(command, check=True, timeout=20)


@pytest.mark.parametrize("name", RIGHTS)
def test_the_doctor_s_word_about_a_topic_is_what_a_device_meets(fleet, name):
    """With both protocols, though 3.1.1 has no word for it; nobody gets the question."""
    states, said = fleet.doctor(name)
    assert said["exit"] == (1 if name == "none" else 0), said
    with Watcher(fleet.pki, "desk", fleet.port) as desk:
        assert fleet.doctor(name, "--as-device")[0] == states, "the broker says what its ACL does"
        assert desk.received == []
    with Watcher(fleet.pki, "desk", fleet.port) as desk:
        for protocol in (4, 5):
            with mpy.start(DEVICE, fleet.pki / "devices" / name, protocol) as running:
                running.wait_for("subscribed")
                before = desk.received
                assert fleet.doctor(name)[0] == states
                publish(fleet, "from desk")
                desk.wait_for_count("t/x", sum(each[0] == "t/x" for each in before) + 1)
                assert desk.received[len(before) :] == [("t/x", "from desk")], "and no question"
                running.send("")
                answer = running.wait_for("acknowledged|refused")
                received = running.wait_for("True|False") == "True"
                arrived = ("t/x", "from it") in desk.received[len(before) :]
            assert states == (
                "ok" if arrived else "denied",
                "ok" if received else "denied",
            ), protocol
            refused = protocol == 5 and not arrived
            assert answer == ("refused 135" if refused else "acknowledged")


def test_a_retained_message_shows_that_it_receives_and_stays(fleet):
    publish(fleet, "kept", "-r")
    try:
        for name, state in (("read", "ok"), ("none", "denied")):
            (_, receive), said = fleet.doctor(name, "--as-device")
            assert receive == state
            assert ("a message came" in str(said["stages"])) == (state == "ok")
        with Watcher(fleet.pki, "desk", fleet.port) as desk:
            assert desk.wait_for("t/x") == "kept"
    finally:
        publish(fleet, None, "-r")


def test_a_topic_on_which_much_is_said_is_judged_all_the_same(fleet):
    """It would listen for ever to what comes without a pause."""
    often = ("-m", "x", "--repeat", "1000000", "--repeat-delay", "0.05")
    with subprocess.Popen(publishing(fleet, "t/x", *often)) as busy:
        try:
            assert fleet.doctor("both", "--as-device")[0] == ("ok", "ok")
            assert busy.poll() is None
        finally:
            busy.terminate()


def test_row_44_a_device_that_may_not_use_a_topic_gets_the_command_for_it(fleet):
    _, said = fleet.doctor("none", "--as-device")
    (problem,) = said["problems"]
    assert problem["stage"] == "publish" and "none may not use t/x" in problem["fact"]
    assert "mqttls device add none --topics t/x, then" in problem["cure"]
    line = next(
        each for each in fleet.broker.log().splitlines() if "Denied PUBLISH from none" in each
    )
    cure = "mqttls device add none --topics write:t/x, then on the broker: sudo sh install.sh"
    assert cure in explained(line)
    assert "acknowledges what it drops" in explained(line.partition(": ")[2])


@pytest.mark.parametrize("topic", ["a'; rm -rf /; '", "a\x1b[2J", "a#"])
def test_row_44_a_topic_of_a_hostile_client_is_no_command(topic):
    line = f"Denied PUBLISH from kitchen (d0, q1, r0, m1, '{topic}', ... (4 bytes))"
    cure = log.judge_line(line).cure
    if "rm" in topic:
        assert """ --topics 'write:a'"'"'; rm -rf /; '"'"''""" in cure
    else:
        assert "NAME --topics TOPIC" in cure
    line = line.replace("kitchen", "kitchen; reboot")
    assert "NAME --topics TOPIC" in log.judge_line(line).cure


def test_row_44_a_broker_that_did_not_read_its_acl_anew_is_found_out(fleet):
    mqttls("device", "add", "none", "--topics", "t/x", "--dir", fleet.pki)
    try:
        states, said = fleet.doctor("none", "--as-device")
        assert states[0] == "denied"
        (remark,) = [each for each in said["findings"] if each["row"] == 44]
        assert remark["fact"].startswith("the broker has another ACL than")
        assert "sudo sh install.sh reload" in remark["cure"]
    finally:
        mqttls("device", "add", "none", "--topics", "none", "--dir", fleet.pki)


def test_without_a_folder_of_ours_the_configuration_tells_the_acl(tmp_path, pki):
    acl = "user device\ntopic read a\npattern write by/%c\n"
    options = {"pki": pki, "identity_as_user": True, "acl": acl}
    with Broker(tmp_path / "b", "mtls", **options) as broker:
        options = {"ca": pki.ca, "device": pki.device}
        word = doctor(broker.port, "--topic", "a", **options)
        assert (word.stages["publish"], word.stages["receive"]) == ("denied", "unknown")
        assert "--conf tells more" in word.json["stages"]["receive"]["detail"]
        word = doctor(broker.port, "--topic", "a", "--conf", conf_of(broker), **options)
        assert word.stages["receive"] == "ok"
        mine = ("--topic", "by/me", "--conf", conf_of(broker), "--client-id", "me-doctor")
        word = doctor(broker.port, *mine, **options)
        assert "(%c)" in word.remarks[44]["cause"], "by the client id of the device, me, it may"
        assert doctor(broker.port, *mine[:-1], "me", **options).stages["publish"] == "ok"


def test_a_certificate_gives_no_right_where_its_name_is_no_user(tmp_path, pki):
    acl = "user device\ntopic read a\n"
    with Broker(tmp_path / "b", "mtls", pki=pki, acl=acl) as broker:
        options = {"ca": pki.ca, "device": pki.device}
        word = doctor(broker.port, "--topic", "a", "--conf", conf_of(broker), **options)
        assert word.stages["receive"] == "denied"


def test_a_broker_without_qos_2_is_not_sent_what_it_would_deliver(tmp_path, pki):
    with Broker(tmp_path / "b", "tcp", "tls", pki=pki, lines=["max_qos 1"]) as broker:
        peer = broker.peer("#")
        word = doctor(broker.ports["tls"], "--topic", "a", ca=pki.ca)
        assert word.stages["publish"] == "unknown"
        assert topic.NO_QOS_2 in word.json["stages"]["publish"]["detail"]
        peer.publish("end", b"end")
        peer.wait_for(topic="end")
        assert [each[0] for each in peer.received] == ["end"]


def test_a_topic_is_one_and_needs_a_broker(capsys):
    for arguments in (
        ("--topic", "a"),
        ("broker.lan", "--topic", "a/#"),
        ("broker.lan", "--topic", "$share/group/a"),
        ("broker.lan", "--topic", ""),
        ("broker.lan", "--topic", "a\x1b[2J"),
    ):
        assert main(["doctor", *arguments]) == 2
        said = capsys.readouterr().err
        assert "--topic" in said and "\x1b" not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_row_45_root_s_mosquitto_may_not_read_the_folder():
    """What mosquitto 2.0 says: without `user`, and with one who is not there."""
    with open_folder() as folder:
        init(folder / "mqtt-pki")
        conf = folder / "mqtt-pki/broker/mosquitto.conf"
        ours = conf.read_text()
        assert ours.count("\nuser ") == 1
        for user, words in (
            ("", "Unable to open acl_file"),
            ("\nuser nobody-of-that-name", "Unable to drop privileges"),
        ):
            conf.write_text(re.sub(r"\nuser .*", user, ours))
            command = [mosquitto(), "-c", conf]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            assert words in done.stderr and done.returncode, done
            line = next(each for each in done.stderr.splitlines() if words in each)
            assert "mqttls broker-conf" in explained(line)
            assert log.judge_line(line).row == 45
