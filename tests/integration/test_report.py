"""client.report(): how a board is, against a real broker."""

import json
import re
import time

import fastjsonschema
import pytest

from tests.support import mpy, patience, secure
from tests.support.device import Device

SCHEMA = json.loads((mpy.ROOT / "tests/support/report.schema.json").read_text())
check = fastjsonschema.compile(SCHEMA)
REPORT, STATUS = "devices/device/report", "devices/device/status"


@pytest.fixture(params=[4, 5])
def protocol(request):
    return request.param


def reports(peer, count, topic=REPORT):
    """Return the first `count` reports (list of dict), each checked."""
    found = [json.loads(each.payload) for each in peer.wait_for(count, topic=topic)]
    for each in found:
        check(each)
    return found


def reported_on(proxy, connection):
    """Return when a report has passed on that connection."""
    deadline = time.monotonic() + patience.stretched(20)
    while not any(
        each.topic == REPORT and each.passed for each in proxy.seen("PUBLISH", "up", connection)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def statuses(peer, count):
    return [each.payload.decode() for each in peer.wait_for(count, topic=STATUS)]


def test_one_line_tells_how_a_board_is_and_whether_it_is_online(proxy, broker, protocol):
    """Its will comes along, also where a user and a password stand behind it in CONNECT."""
    peer = broker.peer("devices/#")
    more = {"user": "me", "password": "x" * 130}
    program = """
    client.report()
    async with client:
        await told("acknowledged")
        await until(lambda: not in_flight(client))
        print("acknowledged")
        await told("leave")
    """
    with Device(proxy, program, protocol=protocol, **more) as device:
        (first,) = reports(peer, 1)
        assert statuses(peer, 1) == ["online"]
        device.send("acknowledged")
        device.wait_for("acknowledged")  # or they would come twice
        proxy.rst()
        second = reports(peer, 2)[1]
        assert statuses(peer, 3) == ["online", "offline", "online"]
        assert broker.peer(REPORT).wait_for()[0].retain  # for whoever comes later
        device.leave()
    assert statuses(peer, 4)[-1] == "offline"
    assert (first["connects"], second["connects"]) == (1, 2)
    assert first["error"] is None
    assert second["error"].startswith("ConnectError: broken off")
    assert first["every_s"] == 900
    assert first["rssi"] is first["reset"] is first["ends"] is None
    assert first["outage_s"] == first["online_s"] == 0
    assert first["queue"] == 1  # the birth message
    assert 0 < first["mem_block"] <= first["mem_free"]


def test_it_goes_on_now_and_then_and_no_more_than_one_waits(proxy, broker):
    peer = broker.peer(REPORT)
    program = """
    suspect_nothing()
    hurry_reports(20)
    client.report("devices/device/report", every_s=10)
    async with client:
        await told("look")
        print("in flight", in_flight(client))
        await told("leave")
    await asyncio.sleep_ms(100)
    print("tasks", client.callbacks.tasks)
    """
    with Device(proxy, program) as device:
        assert [each["connects"] for each in reports(peer, 3)] == [1, 1, 1]
        proxy.swallow("PUBACK")
        for count in (2, 3, 4):
            proxy.rst()
            proxy.wait_for_connections(count)
            reported_on(proxy, count)
        again = [payload for _, payload in peer.received[-2:]]
        assert again[0] == again[1]  # what is not acknowledged goes again, and no other
        device.send("look")
        device.wait_for("in flight")
        proxy.heal()
        proxy.rst()
        peer.wait_for(len(peer.received) + 3)
        assert json.loads(peer.received[-1][1])["connects"] == 5  # on it goes
        device.leave()
        end = len(peer.received)
    assert device.said("in flight") in (["1"], ["2"])  # the birth may be the other
    assert device.said("tasks") == ["[]"]
    assert len(peer.received) == end


LINK = """
class Link:
    class wlan:
        status = {"rssi": -61}.get
    async def up(self): pass
    async def reset(self): pass
    def is_up(self): return True
    def dns_servers(self): return []

import machine
machine.reset_cause = lambda: 3
will = Will("garden/status", "gone", retain=True)
client = make(link=Link(), will=will, tls=tls_given())
client.report()
"""


def test_it_tells_when_the_certificate_ends_and_what_radio_and_board_say(mtls_broker, pki):
    peer = mtls_broker.peer("garden/#")
    fakes = f"{mpy.environment()['MICROPYPATH']}:{mpy.ROOT}/tests/fakes"
    files = secure.files(pki.ca, pki.device)
    with Device(mtls_broker, LINK, tls=files, env={"MICROPYPATH": fakes}) as device:
        found = reports(peer, 1, "garden/report")[0]  # beside its own will
        device.leave()
    assert found["ends"] == f"{pki.device.certificate.not_valid_after_utc:%Y%m%d%H%M%S}Z"
    assert (found["rssi"], found["reset"]) == (-61, 3)
    assert [each.payload for each in peer.wait_for(1, topic="garden/status")] == [b"gone"]


def test_wrong_use_raises_at_the_call(broker):
    out = Device.check(
        broker,
        """
        def refused(client=client, **options):
            try:
                client.report(**options)
            except (ValueError, TypeError, RuntimeError) as error:
                print(error)
            assert client.will is None and not client.callbacks
        for every_s in (9.9, 86401, "900", None):
            refused(every_s=every_s)
        for topic in ("a/+/report", "", 3):
            refused(topic=topic)
        async with client:
            refused()
        for name, options in (("", {"clean_start": True}), ("a", {"max_packet": 100})):
            refused(make(client_id=name, **options))
        """,
    )
    out = re.sub(r"of \d+ bytes", "of n bytes", out)
    assert [line for line in out.splitlines() if not line.startswith("mqtt ")] == [
        "every_s: a number from 10 to 86400, not 9.9",
        "every_s: a number from 10 to 86400, not 86401",
        "every_s: a number from 10 to 86400, not a str of 3",
        "every_s: a number from 10 to 86400, not None",
        "topic 'a/+/report': + and # are for subscribing only [MQTT-3.3.2-2]",
        "topic: empty [MQTT-4.7.3-1]",
        "topic: a str, not int",
        "report(): call it before the client is started",
        "topic: empty [MQTT-4.7.3-1]",
        "message of n bytes, max_packet is 100: raise max_packet or send less",
    ]
