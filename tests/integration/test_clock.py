"""SNTP against real time servers on loopback; the board's clock is a record of what was set."""

import json
import time

import pytest

from tests.support import mpy, udp

# Sets a board's clock from the server of JOB, prints what came of it as JSON.
PROGRAM = """
import asyncio, json, sys
import mqtt_as_tls.clock as clock
from mqtt_as_tls.errors import ConnectError, ResolveError
from tests.device.watch import watched

job = json.loads(JOB)
was_set = []

class RTC:
    def datetime(self, fields):
        was_set.append(fields)

class Machine:
    pass

if job["board"]:
    Machine.RTC = RTC
sys.modules["machine"] = Machine
server = job["server"]
if isinstance(server, list):
    server = tuple(server)

async def sync(found):
    found.update(seconds=None, error=None, was_set=was_set)
    try:
        servers = [tuple(each) for each in job["dns"]]
        found["seconds"] = await clock.sync(server, servers, **job["options"])
    except (ConnectError, ResolveError) as error:
        found["error"] = str(error)
        found["kind"] = type(error).__name__

asyncio.run(watched(sync))
"""


def sync(server, dns=None, board=True, prelude="", **options):
    """Return what clock.sync did in MicroPython, on a board or on a PC, after `prelude`."""
    job = {
        "server": [server.host, server.port] if isinstance(server, udp.SNTP) else server,
        "dns": [[dns.host, dns.port]] if dns else [],
        "board": board,
        "options": options,
    }
    result = json.loads(mpy.check(f"{prelude}\nJOB = {json.dumps(job)!r}\n{PROGRAM}"))
    assert result["left_open"] == result["left_running"] == 0
    return result


def fields(seconds):
    """Return what machine.RTC().datetime takes: year, month, day, weekday, h, m, s, subseconds."""
    t = time.gmtime(seconds)
    return [t.tm_year, t.tm_mon, t.tm_mday, t.tm_wday, t.tm_hour, t.tm_min, t.tm_sec, 0]


def test_the_clock_is_set_from_the_time_server():
    before = int(time.time())
    with udp.SNTP() as server:
        result = sync(server, timeout_ms=60_000)
        assert len(server.queries) == 1
    assert before <= result["seconds"] <= time.time()
    assert result["was_set"] == [fields(result["seconds"])]


@pytest.mark.parametrize(
    "seconds",
    [
        1_803_772_799,  # 2027-02-27T23:59:59
        1_835_395_200,  # 2028-02-29
        2_085_978_497,  # a second after the NTP era that began in 1900
    ],
)
def test_every_date_arrives_in_the_clock(seconds):
    with udp.SNTP(unix_s=seconds) as server:
        result = sync(server)
    assert result["seconds"] == seconds
    assert result["was_set"] == [fields(seconds)]


def test_a_port_whose_epoch_is_2000_sets_the_same_date():
    seconds = 1_803_772_799
    prelude = """
import asyncio, sys, time

class Time2000:
    def time():
        return time.time() - 946684800
    def gmtime(seconds):
        return time.gmtime(seconds + 946684800)[:8]

sys.modules["time"] = Time2000
import mqtt_as_tls.clock
sys.modules["time"] = time
"""
    with udp.SNTP(unix_s=seconds) as server:
        result = sync(server, prelude=prelude)
    assert result["seconds"] == seconds
    assert result["was_set"] == [fields(seconds)]


def test_a_request_is_a_clients_with_a_random_timestamp():
    with udp.SNTP() as server:
        sync(server)
        sync(server)
        one, two = server.queries
    assert len(one) == 48
    assert one[:40] == two[:40] == b"\x23" + bytes(39)  # version 4, mode 3
    assert one[40:] != two[40:]


def test_the_name_of_a_time_server_is_resolved():
    with udp.DNS({"ntp.lan": "127.0.0.1"}) as dns, udp.SNTP() as server:
        result = sync(["ntp.lan", server.port], dns)
        assert dns.queries == ["ntp.lan"]
    assert result["was_set"] == [fields(result["seconds"])]


def test_a_time_server_without_an_address_is_a_resolve_error():
    with udp.DNS({}) as dns:
        result = sync("ntp.lan", dns)
    assert result["kind"] == "ResolveError"
    assert "no address for ntp.lan" in result["error"]
    assert result["was_set"] == []


def test_a_silent_time_server_delays_only_the_clock():
    with udp.SNTP(fault="silent") as server:
        result = sync(server, tries=2, timeout_ms=300)
        assert len(server.queries) == 2
    assert result["kind"] == "ConnectError"
    assert "no time from 127.0.0.1" in result["error"]
    assert "check ntp=" in result["error"]
    assert result["was_set"] == []
    assert result["ticks"] > 5


@pytest.mark.parametrize(
    "fault", ["garbage", "empty", "stranger", "wrong_originate", "wrong_mode", "short"]
)
def test_wrong_times_are_ignored_and_the_server_is_asked_again(fault):
    with udp.SNTP(fault=fault, faults=1) as server:
        result = sync(server, timeout_ms=200, tries=30)
        assert len(server.queries) > 1
    assert result["was_set"] == [fields(result["seconds"])]


@pytest.mark.parametrize("fault", ["kiss", "alarm", "stratum_16", "zero"])
def test_a_server_that_has_no_time_is_not_asked_again(fault):
    with udp.SNTP(fault=fault) as server:
        result = sync(server, timeout_ms=60_000)
        assert len(server.queries) == 1
    assert result["kind"] == "ConnectError"
    assert "time server has no time" in result["error"]
    assert ("RATE" in result["error"]) == (fault == "kiss")
    assert result["was_set"] == []


@pytest.mark.parametrize("seconds", [0, 946_684_800, 1_609_459_200, 1_785_542_399])
def test_a_time_server_in_the_past_does_not_set_the_clock(seconds):
    with udp.SNTP(unix_s=seconds) as server:
        result = sync(server)
    assert "time server has no time" in result["error"]
    assert result["was_set"] == []


@pytest.mark.parametrize("back_s", [61, 3600, 86400 * 60])
def test_a_clock_that_can_be_right_is_not_put_back(back_s):
    """Who answers in place of the time server would make an old certificate valid."""
    with udp.SNTP(offset_s=-back_s) as server:
        result = sync(server)
        assert result["kind"] == "ConnectError"
        assert "the clock is not put back" in result["error"]
        assert "power-cycle the board" in result["error"]
        then = time.gmtime(time.time() - back_s)
        assert time.strftime("%Y-%m-%d", then) in result["error"]
        assert result["was_set"] == []
        # it may be where a time server has set it
        result = sync(server, back=True)
        assert abs(result["seconds"] - (time.time() - back_s)) < 60
        assert result["was_set"] == [fields(result["seconds"])]
        # but not behind a handshake that confirmed it
        result = sync(server, back=True, least=int(time.time()))
        assert "the clock is not put back" in result["error"]
        assert result["was_set"] == []


def test_a_time_server_that_is_a_little_behind_changes_nothing():
    before = int(time.time())
    with udp.SNTP(offset_s=-30) as server:
        result = sync(server)
    assert before <= result["seconds"] <= time.time()
    assert result["was_set"] == [fields(result["seconds"])]


@pytest.mark.parametrize("year", [2021, 2049])
def test_a_clock_that_cannot_be_right_is_set_but_not_behind_a_handshake(year):
    """It was reset, or is so far ahead that no certificate is valid."""
    prelude = f"""
import time

class TimeThen:
    gmtime = time.gmtime
    def time():
        return {(year - 1970) * 31556952}

import mqtt_as_tls.clock
mqtt_as_tls.clock.time = TimeThen
"""
    with udp.SNTP() as server:
        result = sync(server, prelude=prelude)
        assert abs(result["seconds"] - time.time()) < 60
        result = sync(server, prelude=prelude, least=int(time.time()) - 100)
        assert result["was_set"] == [fields(result["seconds"])]
        result = sync(server, prelude=prelude, least=int(time.time()) + 100)
        assert "the clock is not put back" in result["error"]
        assert result["was_set"] == []


def test_a_pcs_clock_is_left_alone():
    with udp.SNTP(offset_s=-3600) as server:
        result = sync(server, board=False)
        assert server.queries == []
    assert result["kind"] == "ConnectError"
    assert result["error"] == "set this computer's own clock"


def test_a_date_that_the_port_cannot_hold_is_a_connect_error():
    """Some 32-bit ports count seconds in 31 bits."""
    prelude = """
import time

class Time31:
    time = time.time
    def gmtime(seconds):
        if seconds >> 31:
            raise OverflowError("overflow converting long int to machine word")
        return time.gmtime(seconds)

import mqtt_as_tls.clock
mqtt_as_tls.clock.time = Time31
"""
    with udp.SNTP(unix_s=2**31) as server:
        result = sync(server, prelude=prelude)
    assert result["kind"] == "ConnectError"
    assert "OverflowError" in result["error"]
    assert result["was_set"] == []
