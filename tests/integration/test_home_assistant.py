"""
A device in Home Assistant, against a real broker and what Home Assistant's documentation says of
its messages (tests/support/home.py).
"""

import itertools
import json

import pytest

from tests.support import apps, home
from tests.support.broker import Broker
from tests.support.device import Device

ME = "devices/garden-1/"
CONFIG = "homeassistant/device/garden-1/config"

# the device of these tests; each line that it hears is an expression to be evaluated
DEVICE = """
import json
from mqtt_as_tls.home_assistant import HomeAssistant

def device(**options):
    client = make(client_id="garden-1", protocol=PROTOCOL, **options, will=Will(
        "devices/garden-1/status", "offline", qos=1, retain=True, birth="online"))
    return client, HomeAssistant(client, "Garden", "devices/garden-1/")

client, ha = device()
"""

ALL = """
temperature = ha.sensor("temperature", unit="°C", device_class="temperature",
    state_class="measurement", suggested_display_precision=1, force_update=True, value=21.5)
rain = ha.sensor("rain", unit="mm", state_class="total_increasing", expire_after=90, value=3,
    icon="mdi:water", enabled_by_default=False)
mood = ha.sensor("mood", device_class="enum", options=["good", "bad"], value="good",
    entity_category="diagnostic")
leak = ha.binary_sensor("leak", device_class="moisture", value=False, expire_after=60,
    off_delay=5)
door = ha.binary_sensor("door", name=None)

@ha.switch("valve", device_class="switch", name="Ventil \\"Süd\\"", value=True)
async def valve(on):
    print("valve", on)

@ha.button("restart", device_class="restart", entity_category="config")
def restart():
    print("restart")

@ha.number("interval", min=1, max=60, step=0.5, unit="s", mode="box", value=10)
def interval(seconds):
    print("interval", seconds)

@ha.number("level")
def level(percent):
    print("level", percent)

@ha.text("display", min=1, max=8, pattern="[a-z]*", mode="text", value="hello")
async def display(text):
    print("display", text)
"""


def garden(broker, protocol, program=ALL):
    return Device(broker, DEVICE, program, names={"PROTOCOL": protocol})


@pytest.fixture(params=[4, 5])
def protocol(request):
    return request.param


def announced(peer, count=1):
    """Return the device of the `count`-th announcement, as Home Assistant would read it."""
    return home.read(peer.wait_for(count, topic=CONFIG)[count - 1].payload)


def last(peer):
    """Return {topic below home: last payload}."""
    return {
        topic.removeprefix(ME): payload.decode()
        for topic, payload in peer.received
        if topic.startswith(ME)
    }


STATES = {
    "status": "online",
    "temperature": "21.5",
    "rain": "3",
    "mood": "good",
    "leak": "OFF",
    "valve": "ON",
    "interval": "10",
    "display": "hello",
}

KEPT = STATES.keys() - {"rain", "leak"}  # by the broker; these two would look fresh later on


def wait_for_states(peer, count=1, names=STATES):
    for name in names:
        peer.wait_for(1 if name == "status" else count, topic=ME + name)


def test_a_device_is_announced_with_all_its_entities_and_their_states(broker, protocol):
    peer = broker.peer("homeassistant/#", ME + "#")
    with garden(broker, protocol):
        device = announced(peer)
        wait_for_states(peer)
    assert device["device"] == {"identifiers": "garden-1", "name": "Garden"}
    assert device["origin"] == {"name": "mqtt_as_tls", "sw_version": "0.1.0"}
    assert device["availability_topic"] == ME + "status"
    assert (device["payload_available"], device["payload_not_available"]) == ("online", "offline")
    components = device["components"]
    assert [(id, each["platform"]) for id, each in components.items()] == [
        *(("temperature", "sensor"), ("rain", "sensor"), ("mood", "sensor")),
        *(("leak", "binary_sensor"), ("door", "binary_sensor"), ("valve", "switch")),
        *(("restart", "button"), ("interval", "number"), ("level", "number")),
        ("display", "text"),
    ]
    assert components["temperature"] == {
        "platform": "sensor",
        "name": "temperature",
        "unique_id": "garden-1.temperature",
        "state_topic": ME + "temperature",
        "qos": 1,
        "unit_of_measurement": "°C",
        "device_class": "temperature",
        "state_class": "measurement",
        "suggested_display_precision": 1,
        "force_update": True,
    }
    assert components["valve"] == {
        "platform": "switch",
        "name": 'Ventil "Süd"',
        "unique_id": "garden-1.valve",
        "state_topic": ME + "valve",
        "command_topic": ME + "valve/set",
        "qos": 1,
        "device_class": "switch",
    }
    assert components["door"]["name"] is None
    assert "state_topic" not in components["restart"]
    peer.wait_for(2, topic=ME + "status")
    assert last(peer) == {**STATES, "status": "offline"}
    # what Home Assistant finds when it comes later
    late = broker.peer("#")
    wait_for_states(late, names=KEPT)
    assert late.wait_for(topic=CONFIG)[0].retain
    assert last(late).keys() == KEPT


def test_it_is_announced_again_when_home_assistant_or_the_broker_has_started(broker, protocol):
    peer = broker.peer("homeassistant/device/#", ME + "#", client_id="home", clean=False)
    with garden(broker, protocol) as device:
        first = announced(peer)
        wait_for_states(peer)
        peer.publish("homeassistant/status", b"offline")
        peer.publish("homeassistant/status", b"online")
        assert announced(peer, 2) == first
        wait_for_states(peer, 2)
        broker.restart(wipe=True)  # what it kept is gone
        device.wait_for("connected in .*, session new")
        device.wait_for("connected in .*, session new")
        late = broker.peer("homeassistant/device/#", ME + "#")
        assert announced(late) == first
        wait_for_states(late, names=KEPT)
        assert last(late).items() >= {(name, STATES[name]) for name in KEPT}
        device.leave()


def test_a_status_that_the_broker_has_kept_is_not_news(broker):
    peer = broker.peer("homeassistant/device/#")
    peer.publish("homeassistant/status", b"online", retain=True)
    with garden(broker, 4) as device:
        announced(peer)
        broker.wait_for_log("Received PUBACK from garden-1")  # it has the old status
        peer.publish("homeassistant/status", b"online")
        announced(peer, 2)
        device.leave()
    assert len(peer.messages) == 2


def test_commands_reach_their_functions_and_come_back_as_states(broker, protocol):
    peer = broker.peer("homeassistant/#", ME + "+")
    with garden(broker, protocol) as device:
        components = announced(peer)["components"]
        wait_for_states(peer)
        for id, command, handled in (
            ("valve", "OFF", "valve False"),
            ("valve", "ON", "valve True"),
            ("restart", "PRESS", "restart"),
            ("interval", "60", "interval 60$"),
            ("interval", "1.0", "interval 1$"),
            ("interval", "2.5", r"interval 2\.5"),
            ("level", "1e2", "level 100$"),
            ("display", "ä", "display ä"),
            ("display", "12345678", "display 12345678"),
        ):
            peer.publish(components[id]["command_topic"], command)
            device.wait_for(f"^{handled}")
        peer.wait_for(3, topic=ME + "display")
    states = [each for each in peer.received[-12:] if each[0] != ME + "status"]
    states = [(topic.removeprefix(ME), payload.decode()) for topic, payload in states]
    assert states[-8:] == [
        *(("valve", "OFF"), ("valve", "ON"), ("interval", "60"), ("interval", "1")),
        *(("interval", "2.5"), ("level", "100"), ("display", "ä"), ("display", "12345678")),
    ]
    assert not [topic for topic, _ in peer.received if topic == ME + "restart"]


BAD = {
    "valve": [b"on", b"", b"ON ", b"1", b"\x1b[2J\xff", b"O" * 4000],
    "restart": [b"press", b"", b"PRESS\0"],
    "interval": [
        b"0.99",
        b"60.5",
        b"1.25",
        b"nan",
        b"inf",
        b"-inf",
        b"1e999",
        b"",
        b"1,5",
        b"\xff",
    ],
    "display": [b"", b"123456789", b"\xff\xfe", b"a" * 4000],
}


def test_a_bad_command_does_nothing_and_the_log_tells_of_it(broker):
    peer = broker.peer("homeassistant/#", ME + "+")
    with garden(broker, 4) as device:
        announced(peer)
        wait_for_states(peer)
        for commands in itertools.zip_longest(*BAD.values()):
            given = [each for each in zip(BAD, commands, strict=True) if each[1] is not None]
            for id, command in given:
                peer.publish(f"{ME}{id}/set", command)
                line = device.wait_for(f"{ME}{id}/set: ignored, {len(command)} bytes")
                assert line.isprintable() and len(line) < 250
        peer.publish(ME + "valve/set", b"OFF", retain=True)  # live: this one counts
        device.wait_for("^valve False")
        device.leave()
    handled = [line for line in device.lines if not line.startswith("mqtt ")]
    assert handled == ["valve False"]
    peer.wait_for(2, topic=ME + "status")
    assert last(peer) == {**STATES, "valve": "OFF", "status": "offline"}


def test_a_command_that_the_broker_has_kept_is_not_taken(broker):
    peer = broker.peer(CONFIG)
    peer.publish(ME + "restart/set", b"PRESS", retain=True)
    with garden(broker, 5) as device:
        device.wait_for("restart/set: ignored, 5 bytes")
        announced(peer)
        device.leave()
    assert "restart" not in device.lines


def test_the_state_is_what_the_function_comes_to(broker):
    peer = broker.peer(CONFIG, ME + "+")
    program = """
        @ha.number("level", value=50)
        async def level(percent):
            if percent == 13:
                raise OSError("stuck")
            return min(percent, 80)

        @ha.switch("lamp")
        def lamp(on):
            return 7

        async with client:
            await client.wait_connected()
            assert level.value == 50 and lamp.value is None
            assert (lamp.kind, lamp.topic) == ("switch", "devices/garden-1/lamp")
            await lamp.set(0)
            await told("leave")
            assert level.value == 80 and lamp.value == 0
    """
    with garden(broker, 4, program) as device:
        announced(peer)
        peer.wait_for(1, topic=ME + "level")
        assert peer.wait_for(1, topic=ME + "lamp")[0].payload == b"OFF"
        peer.publish(ME + "level/set", b"13")
        device.wait_for(f"handler of '{ME}level/set' failed: OSError\\('stuck',\\)")
        peer.publish(ME + "level/set", b"99")
        assert peer.wait_for(2, topic=ME + "level")[1].payload == b"80"
        peer.publish(ME + "lamp/set", b"ON")
        device.wait_for(f"handler of '{ME}lamp/set' failed: .*lamp: True or False, not 7")
        device.leave()
    assert len(peer.wait_for(topic=ME + "level")) == 2


def test_states_are_published_as_home_assistant_reads_them(broker, protocol):
    peer = broker.peer(ME + "+")
    Device.check(
        broker,
        DEVICE,
        """
        number = ha.number("number", min=-1, max=1, step=0.1)(print)
        text = ha.text("text", min=2)(print)
        sensor = ha.sensor("sensor")
        door = ha.binary_sensor("door")

        async with client:
            await client.wait_connected()
            await until(lambda: client.stats.sent > 1)
            await ha.announce()  # and the one before it is over, which would publish states again
            for entity, values in (
                (sensor, (21.5, -3, "rainy", None, "x" * 255)), (door, (True, False, 1, 0)),
                (number, (-1, 0.3, 1)), (text, ("ok", "ü" * 255)),
            ):
                for value in values:
                    assert await entity.set(value) in (0, 16)
                    assert entity.value == value
            for entity, value, why in (
                (door, "ON", "devices/garden-1/door: True or False, not a str of 2"),
                (door, None, "True or False"), (door, 2, "True or False"),
                (number, 1.1, "devices/garden-1/number: -1 to 1 in steps of 0.1, not 1.1"),
                (number, 0.25, "in steps of 0.1"), (number, float("nan"), "in steps of 0.1"),
                (text, "x", "devices/garden-1/text: 2 to 255 characters, not a str of 1"),
                (text, "x" * 256, "2 to 255 characters"),
                (sensor, "x" * 256, "0 to 255 characters"),
            ):
                with raises(ValueError, why):
                    entity.set(value)
            for entity, value in ((number, "1"), (text, 5)):
                with raises(TypeError):
                    entity.set(value)
        """,
        names={"PROTOCOL": protocol},
    )
    states = [payload.decode() for topic, payload in peer.received if topic != ME + "status"]
    assert states == [
        *("21.5", "-3", "rainy", "None", "x" * 255, "ON", "OFF", "ON", "OFF"),
        *("-1", "0.3", "1", "ok", "ü" * 255),
    ]


def test_it_is_unavailable_when_the_device_is_gone_and_back_with_it(broker, protocol):
    peer = broker.peer(ME + "status")
    for count in (1, 3):
        with garden(broker, protocol) as device:
            assert peer.wait_for(count)[-1].payload == b"online"
            device.kill()
        assert peer.wait_for(count + 1)[-1].payload == b"offline"


def test_an_entity_of_earlier_firmware_is_removed(broker, protocol):
    peer = broker.peer(CONFIG)
    old = """
        old = ha.sensor("old", unit="%", value=1)
        kept = ha.sensor("kept", unit="%")
    """
    new = old.replace('ha.sensor("old", unit="%", value=1)', 'ha.remove("sensor", "old")')
    for count, program in ((1, old), (2, new)):
        with garden(broker, protocol, program) as device:
            found = announced(peer, count)
            device.leave()
    assert found["components"]["old"] == {"platform": "sensor"}
    assert found["components"]["kept"]["unit_of_measurement"] == "%"


def test_what_is_declared_later_is_told_by_announce(broker):
    peer = broker.peer(CONFIG, ME + "late")
    Device.check(
        broker,
        DEVICE,
        """
        async with client:
            await client.wait_connected()
            first = ha.sensor("first")
            ha.switch("late", value=True)(print)
            await ha.announce()
        with raises(RuntimeError, "not running"):
            await ha.announce()
        """,
        names={"PROTOCOL": 4},
    )
    *_, message = peer.wait_for(topic=CONFIG)
    assert set(home.read(message.payload)["components"]) == {"first", "late"}
    assert peer.wait_for(topic=ME + "late")[-1].payload == b"ON"


def test_many_entities_need_no_larger_packets_and_no_more_memory(broker, protocol):
    """71 entities in a message of four times max_packet; announcing them again takes nothing."""
    peer = broker.peer(CONFIG, ME + "#")
    out = Device.check(
        broker,
        DEVICE,
        """
        for n in range(60):
            ha.sensor("sensor_%d" % n, unit="°C", device_class="temperature",
                state_class="measurement", name="Sensor number %d of the greenhouse" % n, value=n)
        for n in range(10):
            ha.switch("switch_%d" % n, device_class="outlet", value=False)(print)
        options = ["option number %d" % n for n in range(100)]
        ha.sensor("long", device_class="enum", options=options)

        async with client:
            await client.wait_connected()
            await until(lambda: client.stats.sent > 71)
            used = []
            for _ in range(4):
                await ha.announce()
                gc.collect()
                used.append(gc.mem_alloc())
            assert max(used[1:]) - min(used[1:]) < 1000, used
        """,
        names={"PROTOCOL": protocol},
    )
    assert "failed" not in out
    messages = peer.wait_for(5, topic=CONFIG)
    assert len(messages[0].payload) > 16_000
    assert len({each.payload for each in messages}) == 1
    assert len(home.read(messages[0].payload)["components"]) == 71


def test_the_least_rights_are_enough(tmp_path, protocol):
    """What docs/home_assistant.md gives the device beside its own topics."""
    rights = (
        "user garden-1\n"
        "topic readwrite devices/garden-1/#\n"
        "topic write homeassistant/device/garden-1/config\n"
        "topic read homeassistant/status\n"
        "user home\n"
        "topic readwrite #\n"
    )
    users = {"garden-1": "secret", "home": "secret"}
    with Broker(tmp_path / "b", acl=rights, users=users) as broker:
        who = {"user": "home", "password": "secret"}
        peer = broker.peer("homeassistant/device/#", ME + "#", **who)
        program = "client, ha = device(user='garden-1', password='secret')\n" + ALL
        with garden(broker, protocol, program) as device:
            announced(peer)
            wait_for_states(peer)
            peer.publish("homeassistant/status", b"online")
            announced(peer, 2)
            peer.publish(ME + "valve/set", b"OFF")
            device.wait_for("^valve False")
        assert "Denied" not in broker.log()


def test_mistakes_are_told_at_the_call(broker):
    apps.check(
        "PROTOCOL = 4\n"
        + DEVICE
        + """
from mqtt_as_tls import MQTTClient

def other(retain=True, birth="online"):
    will = Will("x/y", "offline", retain=retain, birth=birth)
    return MQTTClient("localhost", client_id="x", will=will)

for client, home, options, error, text in (
    (other(), "devices/a", {}, ValueError, "home ends with a slash"),
    (other(), "dev+ices/a/", {}, ValueError, "+ and # are for subscribing only"),
    (other(), "devices/a.b/", {}, ValueError, "an id has A-Z, a-z, 0-9, _ and - only, not 'a.b'"),
    (other(), "a/", {"id": "a b"}, ValueError, "give another id="),
    (other(), "a/", {"prefix": "a/#"}, ValueError, "+ and # are for subscribing only"),
    (other(), "a/", {"colour": "red"}, ValueError, "a device has no option 'colour' there"),
    (other(retain=False), "a/", {}, ValueError, "will=Will('a/status', 'offline', retain=True"),
    (other(birth=None), "a/", {}, ValueError, "birth='online')"),
    (MQTTClient("localhost", client_id="x"), "a/", {}, ValueError, "give MQTTClient will=Will("),
):
    with raises(error, text):
        HomeAssistant(client, "Name", home, **options)
with raises(ValueError, "has a handler"):  # a second device for one client
    client, ha = device()
    HomeAssistant(client, "Garden", "devices/garden-1/")

client, ha = device()
ha.sensor("a")
ha.remove("sensor", "gone")
for call, error, text in (
    (lambda: ha.sensor("a"), ValueError, "'a' is the name of two entities"),
    (lambda: ha.switch("a")(print), ValueError, "'a' is the name of two entities"),
    (lambda: ha.sensor("gone"), ValueError, "'gone' is the name of two entities"),
    (lambda: ha.remove("sensor", "a"), ValueError, "'a' is the name of two entities"),
    (lambda: ha.sensor("status"), ValueError, "'status' is the name of two entities, or that of"),
    (lambda: ha.sensor("b c"), ValueError, "an id has"),
    (lambda: ha.sensor(""), ValueError, "an id has"),
    (lambda: ha.sensor("a/b"), ValueError, "an id has"),
    (lambda: ha.switch(print), ValueError, "an id has"),  # @ha.switch without its ("id")
    (lambda: ha.remove("sensor", "b/c"), ValueError, "an id has"),
    (lambda: ha.remove("lamp", "b"), AttributeError, "lamp"),
    (lambda: ha.number("n", min=5, max=4)(print), ValueError, "min, max, step are (5, 4, 1)"),
    (lambda: ha.number("n", step=0)(print), ValueError, "step from 0.001"),
    (lambda: ha.number("n", value=101)(print), ValueError, "n: 1 to 100 in steps of 1, not 101"),
    (lambda: ha.text("t", max=256)(print), ValueError, "lengths of a text from 0 to 255"),
    (lambda: ha.text("t", min=-1)(print), ValueError, "lengths of a text from 0 to 255"),
    (lambda: ha.text("t", max=2, value="abc")(print), ValueError, "t: 0 to 2 characters, not"),
    (lambda: ha.binary_sensor("b", value="on"), ValueError, "b: True or False, not a str of 2"),
):
    with raises(error, text):
        call()
with raises(RuntimeError, "not running"):
    ha.entities["a"].set(1)

async def main():
    pass
""",
        broker.port,
    )


def test_home_assistants_own_examples_fit_the_schema_and_bad_ones_do_not():
    """The schema allows what the documentation shows, and refuses what it forbids."""
    sensor = {"p": "sensor", "uniq_id": "temp01ae_t", "stat_t": "bedroom/state"}
    kitchen = {
        "dev": {"ids": "ea334450945afc", "name": "Kitchen", "sw_version": "1.0"},
        "o": {"name": "bla2mqtt", "sw": "2.1", "url": "https://bla2mqtt.example.com/support"},
        "cmps": {"t": {**sensor, "device_class": "temperature", "unit_of_measurement": "°C"}},
    }

    def fits(**changes):
        try:
            home.read(json.dumps({**kitchen, **changes}).encode())
        except home.Misfit:
            return False
        return True

    def entity(**options):
        return fits(cmps={"x": {"uniq_id": "x", "qos": 1, **options}})

    assert fits()
    assert fits(cmps={"t": {"p": "sensor"}})
    assert not fits(cmps={"t": {"p": "lamp"}})
    assert not fits(cmps={"t/u": sensor})
    assert not fits(dev={"name": "Kitchen"})
    assert not fits(dev={**kitchen["dev"], "colour": "red"})
    assert not fits(o={})
    assert not fits(avty_t="a/#")
    assert entity(p="switch", cmd_t="a/set", stat_t="a", device_class="outlet")
    assert not entity(p="switch", stat_t="a")
    assert not entity(p="switch", cmd_t="a", device_class="lamp")
    assert not entity(p="button", cmd_t="a", stat_t="a")
    assert not entity(p="sensor", stat_t="a", cmd_t="a")
    assert not entity(p="sensor", stat_t="a", options=["x"])
    assert entity(p="sensor", stat_t="a", options=["x"], device_class="enum")
    assert not entity(p="number", cmd_t="a", step=0.0001)
    assert not entity(p="text", cmd_t="a", max=256)
    assert not fits(cmps={"x": {"p": "sensor", "stat_t": "a"}})
