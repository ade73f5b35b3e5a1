"""
The client on a board whose clock is wrong: libfaketime starts MicroPython in the year 2021, a time
server on loopback knows better, mbedTLS sees what `machine.RTC` is given.
"""

import datetime
import json
import re

import pytest

from tests.support import clocks, faketime, udp
from tests.support.broker import Broker
from tests.support.clocks import sntp_of
from tests.support.pki import days
from tests.support.proxy import Proxy
from tests.support.secure import files


@pytest.fixture
def clock(tmp_path):
    """The clock of a Pico W after power-on."""
    try:
        return faketime.Clock(tmp_path, "2021-01-01T00:00:04")
    except faketime.Unavailable as reason:
        pytest.skip(f"no wrong clock was tested: {reason}")


@pytest.fixture(scope="module")
def recent(pki):
    """A broker's certificate as people have it: valid since yesterday."""
    return pki.issue("recent", issuer=pki.ca, valid_from=days(-1))


@pytest.fixture
def broker(tmp_path, pki, recent):
    with Broker(tmp_path / "broker", "tls", "tcp", pki=pki, identity=recent) as running:
        yield running


# Each attempt waits for a line "go".
APP = """
    async def main():
        soonest()
        link = Gate(json.loads(os.getenv("SERVERS") or "[]"))
        client = secure(link=link)
        events = client.events()
        async with Ticker() as ticker:
            async with client:
                asyncio.create_task(again(client))
                asyncio.create_task(set_by_hand())
                task = asyncio.create_task(tell(events))
                await client.publish("t", "here", qos=1)
                print("published in", time.gmtime()[0], "ticks", ticker.ticks)
                await told("end")
            await task
"""
NOT_VALID_YET = "starts in the future.*the device's clock says 2021.*set the device's clock"


def start(clock, port, arguments, dns=None, by_hand=None):
    env = {"SERVERS": json.dumps([[dns.host, dns.port]])} if dns else {}
    return clocks.start(APP, clock, port, arguments, by_hand, **env)


def finish(app):
    """Check that it publishes now, with the right time on its clock; return its output."""
    app.wait_for("connected in")
    app.wait_for(f"published in {days(0).year} ")
    app.send("end")
    result = app.wait()
    assert result.code == 0, result
    return result.out


def test_a_board_in_2021_sets_its_clock_before_the_handshake(clock, broker, pki):
    with udp.SNTP() as sntp:
        with start(clock, broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app:
            app.send("go")
            out = finish(app)
        assert len(sntp.queries) == 1
    assert abs(clock.offset_s) < 3
    assert "not connected" not in out
    assert re.search(rf"clock set from .*{days(0):%Y-%m-%d} \d\d:\d\d UTC", out), out


def test_the_time_server_s_name_is_asked_of_the_link_s_dns_server(clock, broker, pki):
    with udp.SNTP() as sntp, udp.DNS({"time.lan": sntp.host}) as dns:
        arguments = files(pki.ca, ntp=["time.lan", sntp.port])
        with start(clock, broker.port, arguments, dns) as app:
            app.send("go")
            out = finish(app)
        assert dns.queries == ["time.lan"]
        assert len(sntp.queries) == 1
    assert "clock set from ('time.lan'" in out


def test_a_clock_that_was_set_is_not_set_again_at_a_reconnect(clock, broker, pki):
    with (
        Proxy(broker.port) as proxy,
        udp.SNTP() as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("published")
        app.send("again")
        app.wait_for("will ask again")
        proxy.rst()
        app.send("go")
        app.wait_for("connected in")
        assert len(sntp.queries) == 1


@pytest.mark.parametrize("year", [2021, 2050])
def test_a_clock_that_is_set_wrong_right_after_it_was_set_is_set_again(clock, broker, pki, year):
    with (
        Proxy(broker.port) as proxy,
        udp.SNTP() as sntp,
        start(
            clock,
            proxy.port,
            files(pki.ca, ntp=sntp_of(sntp)),
            by_hand=datetime.datetime(year, 6, 1),
        ) as app,
    ):
        app.send("go")
        app.wait_for("published")
        app.send("set")
        app.wait_for(f"machine: clock set to {year}")
        proxy.rst()
        app.send("go")
        if year > 2021:  # nothing but a certificate tells that it is wrong
            app.wait_for(f"has expired .*clock says {year}")
            app.send("go")
        app.wait_for("clock set from")
        app.wait_for("connected in")
        app.send("end")
        assert app.wait().code == 0
        assert len(sntp.queries) == 2
    assert abs(clock.offset_s) < 3


def test_a_silent_time_server_is_told_and_asked_until_it_answers(clock, broker, pki):
    with (
        udp.SNTP(fault="silent") as sntp,
        start(clock, broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        assert "check ntp=" in app.wait_for("clock not set: no time from 127.0.0.1")
        app.wait_for(NOT_VALID_YET)
        for _ in range(4):
            app.wait_for("^event Disconnected CertificateError")
            app.send("go")  # more than the two tries that are not slow with a clock
        assert len(sntp.queries) == 3  # and no more until 60 s are over
        sntp.fault = None
        app.wait_for("^event Disconnected CertificateError")
        app.send("again")
        app.wait_for("will ask again")
        app.send("go")
        app.wait_for("clock set from")
        out = finish(app)
    assert "next try in 600" not in out
    assert int(out.rpartition("ticks ")[2].split()[0]) > 10


def test_a_time_server_without_time_is_no_obstacle_to_a_certificate_valid_since_2020(
    clock, tls_broker, pki
):
    with (
        udp.SNTP(fault="kiss") as sntp,
        start(clock, tls_broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("clock not set: .*time server has no time")
        app.wait_for("connected in")
        app.wait_for("published in 2021")


def test_without_a_time_server_it_connects_once_the_app_has_set_the_clock(clock, broker, pki):
    with start(clock, broker.port, files(pki.ca)) as app:
        for _ in range(2):
            app.send("go")
            app.wait_for(NOT_VALID_YET)
        app.send("set")
        app.wait_for("machine: clock set")
        app.send("go")
        finish(app)


def test_refusals_are_not_retried_slowly_while_the_clock_is_wrong(clock, tmp_path, pki):
    """The broker is of another CA, too; but who knows what is right once the clock is."""
    with (
        Broker(tmp_path / "other", "tls", pki=pki, identity=pki.broker_wrong_ca) as broker,
        start(clock, broker.port, files(pki.ca)) as app,
    ):
        for _ in range(5):
            app.send("go")
            app.wait_for("^event Disconnected CertificateError")
        assert "ever more rarely" not in app.report()


def test_a_clock_that_is_ahead_is_set_when_the_certificate_seems_to_have_expired(
    tmp_path, broker, pki
):
    try:
        clock = faketime.Clock(tmp_path, "2050-06-01")
    except faketime.Unavailable as reason:
        pytest.skip(f"no wrong clock was tested: {reason}")
    with udp.SNTP() as sntp:
        with start(clock, broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app:
            app.send("go")
            app.wait_for("has expired .*clock says 2050")
            app.send("go")
            app.wait_for("clock set from")
            out = finish(app)
        assert len(sntp.queries) == 1
    assert out.count("not connected") == 1


def right(tmp_path, ahead_days=0):
    """A clock that is right, or so many days ahead."""
    try:
        return faketime.Clock(tmp_path, f"{days(ahead_days):%Y-%m-%dT%H:%M:%S}")
    except faketime.Unavailable as reason:
        pytest.skip(f"no other clock was tested: {reason}")


def test_a_time_server_does_not_make_an_expired_certificate_valid(tmp_path, pki):
    """
    Somebody has an old key of the broker, and answers in place of the broker and the time server:
    the clock, which is right, stays so.
    """
    clock = right(tmp_path)
    ended = pki.issue("ended", issuer=pki.ca, valid_from=days(-110), valid_to=days(-10))
    with (
        Broker(tmp_path / "thief", "tls", pki=pki, identity=ended) as broker,
        udp.SNTP(offset_s=-30 * 86400) as sntp,
        start(clock, broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("has expired")
        app.send("go")
        line = app.wait_for("clock not set: ")
        assert f"says {days(-30):%Y-%m-%d}" in line and "is not put back" in line
        assert "set it (machine.RTC) or power-cycle the board" in line
        app.wait_for("^event Disconnected CertificateError")
        app.send("again")
        app.wait_for("will ask again")
        app.send("go")
        app.wait_for("clock not set: ")
        assert "connected in" not in app.report().replace("not connected", "")
        assert "New client connected" not in broker.log()
    assert abs(clock.offset_s) < 3


def test_a_time_that_no_handshake_confirmed_is_taken_back(clock, tmp_path, pki):
    """A spoofed time server keeps a board offline for as long as it is there, and no longer."""
    until = pki.issue("until", issuer=pki.ca, valid_from=days(-1), valid_to=days(90))
    with (
        Broker(tmp_path / "b", "tls", "tcp", pki=pki, identity=until) as broker,
        udp.SNTP(offset_s=200 * 86400) as sntp,
        start(clock, broker.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for(f"clock set from .*: {days(200):%Y-%m}")
        app.wait_for("has expired")
        sntp.offset_s = 0
        app.wait_for("^event Disconnected CertificateError")
        app.send("again")
        app.wait_for("will ask again")
        app.send("go")
        app.wait_for("connected in")
    assert abs(clock.offset_s) < 3


def test_a_time_that_a_handshake_confirmed_is_not(clock, broker, pki):
    """The clock is reset, and the time server says less than what was true already."""
    then = datetime.datetime(2021, 6, 1)
    with (
        Proxy(broker.port) as proxy,
        udp.SNTP() as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp)), by_hand=then) as app,
    ):
        app.send("go")
        app.wait_for("published")
        app.send("set")
        app.wait_for("machine: clock set to 2021")
        sntp.offset_s = -3600
        proxy.rst()
        app.send("go")
        app.wait_for("clock not set: .* is not put back")
        app.wait_for(NOT_VALID_YET)
        sntp.offset_s = 0
        app.wait_for("^event Disconnected CertificateError")
        app.send("again")
        app.wait_for("will ask again")
        app.send("go")
        app.wait_for("clock set from")
        app.wait_for("connected in")
        app.send("end")
        assert app.wait().code == 0
    assert abs(clock.offset_s) < 3
