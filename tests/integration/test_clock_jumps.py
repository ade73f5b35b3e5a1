"""
A clock that jumps while the client runs: nothing that is counted in milliseconds minds, and what a
certificate's dates say at the next handshake is told by what the clock says then.

libfaketime moves the clock of the whole process, mbedTLS's too; milliseconds go on as they do on a
board.
"""

import pytest

from tests.support import clocks, faketime, mpy, udp
from tests.support.broker import Broker
from tests.support.clocks import sntp_of
from tests.support.device import Device
from tests.support.pki import days
from tests.support.proxy import Proxy
from tests.support.secure import files

BOTH = pytest.mark.parametrize("protocol", [4, 5])
DAY_S = 86400


@pytest.fixture
def clock(tmp_path):
    """A clock that is right, so far."""
    try:
        return faketime.Clock(tmp_path, at(0))
    except faketime.Unavailable as reason:
        pytest.skip(f"no clock jumped: {reason}")


def at(ahead_days):
    """Return what the clock says when it is so many days ahead (str)."""
    return f"{days(ahead_days):%Y-%m-%dT%H:%M:%S}"


JUMPS = [at(0.01), at(3), at(-3), at(3000), "2000-01-01", "2021-01-01", at(30000), at(0)]


@BOTH
def test_no_jump_ends_a_connection_or_keeps_a_ping_a_message_or_a_handler_back(
    clock, broker, proxy, protocol
):
    with Device(
        proxy,
        """
        @client.on("t", qos=1)
        async def handle(message):
            await asyncio.sleep_ms(50)
            print("handled", message.payload.decode())

        async with client:
            n = 0
            while n < JUMPS:
                n += 1
                await told("publish")
                assert client.enqueue("t", "queued %d" % n, qos=1)
                await client.publish("t", "awaited %d" % n, qos=1, timeout_s=5)
                print("acknowledged", n)
            await told("leave")
            print("connects", client.stats.connects)
        """,
        env=clock.environment,
        names={"JUMPS": len(JUMPS)},
        protocol=protocol,
        keepalive_s=1,
        handler_timeout_s=5,
    ) as device:
        device.subscribed()
        for n, says in enumerate(JUMPS, 1):
            clock.set(says)
            proxy.wait_for("PINGREQ", "up", len(proxy.seen("PINGREQ", "up")) + 2)
            device.send("publish")
            device.wait_for(f"^acknowledged {n}$")
            device.wait_for(f"^handled awaited {n}$")
        out = device.leave()
    assert out.count("handled queued") == len(JUMPS)
    assert "connects 1" in out and "not acknowledged" not in out, out


@pytest.mark.parametrize("ahead_days", [-3, 3, 4000])
def test_no_jump_has_a_message_expire_or_keeps_it_from_that(clock, broker, proxy, ahead_days):
    """It waits for as long as milliseconds say (MQTT 5)."""
    peer = broker.peer("t", protocol=5)
    with Device(
        proxy,
        """
        async def send(name, seconds):
            try:
                await client.publish(
                    "t", name, qos=1, properties={"message_expiry_interval": seconds}
                )
                print("delivered", name)
            except MQTTError as error:
                print(name, "failed:", error)

        async with client:
            await client.wait_connected()
            await told("offline")
            await until(lambda: not client.connected)
            for name, seconds in (("short", 2), ("long", 3600)):
                asyncio.create_task(send(name, seconds))
            assert client.enqueue(
                "t", "queued", qos=1, properties={"message_expiry_interval": 3600}
            )
            await asyncio.sleep_ms(100)
            print("wait")
            await asyncio.sleep_ms(2000)
            print("waited")
            await told("leave")
        """,
        env=clock.environment,
        protocol=5,
    ) as device:
        device.wait_for("connected in")
        proxy.refuse()
        proxy.rst()
        device.send("offline")
        device.wait_for("^wait$")
        clock.set(at(ahead_days))
        device.wait_for("^waited$")
        proxy.heal()
        device.wait_for("^short failed: it expired")
        device.wait_for("^delivered long")
        got = {message.payload: message for message in peer.wait_for(2)}
        device.leave()
    assert set(got) == {b"long", b"queued"}
    for message in got.values():
        assert 3600 - 600 < message.properties.MessageExpiryInterval < 3600


@pytest.mark.parametrize("ahead_days", [-3, 3])
def test_a_pause_after_a_refusal_ends_with_a_jump_in_either_direction(clock, tmp_path, ahead_days):
    """The clock may have been the cause; and the next pause is a short one."""
    with (
        Broker(tmp_path / "b", users={"ann": "secret"}) as broker,
        Device(
            broker,
            """
            async with client:
                refused_before(client, 9)
                await told("leave")
            """,
            env=clock.environment,
            back_off="latest",
            user="ann",
            password="wrong",
        ) as device,
    ):
        device.wait_for("next try in 600.0 s")
        clock.set(at(ahead_days))
        broker.wait_for_log("not authorised", count=2)
        device.leave()


APP = """
    async def main():
        soonest()
        client = secure(link=Gate())
        events = client.events()
        async with client:
            asyncio.create_task(again(client))
            asyncio.create_task(set_by_hand())
            asyncio.create_task(tell(events))
            n = 0
            while True:
                n += 1
                await told("publish")
                await client.publish("t", str(n), qos=1)
                print("published", n)
"""


def start(clock, port, arguments, **env):
    return clocks.start(APP, clock, port, arguments, **env)


@pytest.fixture
def ten_days(pki):
    """A broker's certificate that began yesterday and ends in 10 days."""
    return pki.issue("ten days", issuer=pki.ca, valid_from=days(-1), valid_to=days(10))


def day(ahead_days):
    return f"{days(ahead_days):%Y-%m-%d}"


def test_a_certificate_that_ends_meanwhile_is_told_at_the_next_connect_and_renewed(
    clock, tmp_path, pki, ten_days
):
    renewed = pki.issue("renewed", issuer=pki.ca, valid_from=days(-1), valid_to=days(100))
    with (
        Broker(tmp_path / "old", "tls", pki=pki, identity=ten_days) as old,
        Broker(tmp_path / "new", "tls", pki=pki, identity=renewed) as new,
        Proxy(old.port) as proxy,
        udp.SNTP() as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("connected in")
        clock.set(at(11))
        sntp.offset_s = 11 * DAY_S
        app.send("publish")
        app.wait_for("published 1")  # by the connection that there is
        assert proxy.connections == 1
        proxy.rst()
        app.send("go")
        line = app.wait_for("not connected: ")
        assert "has expired" in line and f"the device's clock says {day(11)}" in line, line
        assert "renew it and restart the broker" in line, line
        app.wait_for("^event Disconnected CertificateError")
        proxy.target = ("127.0.0.1", new.port)
        app.send("go")  # which asks for the time first: it is right
        app.wait_for("connected in")
        app.send("publish")
        app.wait_for("published 2")


def test_a_clock_that_jumps_beyond_a_certificate_is_told_and_not_put_back_but_by_hand(
    clock, tmp_path, pki, ten_days
):
    with (
        Broker(tmp_path / "b", "tls", pki=pki, identity=ten_days) as broker,
        Proxy(broker.port) as proxy,
        udp.SNTP() as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("connected in")
        clock.set(at(11))
        proxy.rst()
        app.send("go")
        assert f"has expired (the device's clock says {day(11)})" in app.wait_for("has expired")
        app.send("go")
        line = app.wait_for("clock not set: ")
        assert f"says {day(0)}" in line and "is not put back" in line, line
        app.wait_for("^event Disconnected CertificateError")
        app.send("set")
        app.wait_for("machine: clock set")
        app.send("go")
        app.wait_for("connected in")
        app.send("publish")
        app.wait_for("published 1")
    assert abs(clock.offset_s) < 3


@pytest.mark.parametrize("ahead_days", [-5, -20])
def test_a_clock_that_jumps_before_a_certificate_is_set_at_the_next_connect(
    clock, tmp_path, pki, ten_days, ahead_days
):
    with (
        Broker(tmp_path / "b", "tls", pki=pki, identity=ten_days) as broker,
        Proxy(broker.port) as proxy,
        udp.SNTP(offset_s=ahead_days * DAY_S) as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp))) as app,
    ):
        app.send("go")
        app.wait_for("connected in")
        clock.set(at(ahead_days))
        proxy.rst()
        app.send("go")
        line = app.wait_for("starts in the future")
        assert f"the device's clock says {day(ahead_days)}" in line, line
        app.send("go")  # the time server is wrong, too, as far as it agrees
        app.wait_for("^event Disconnected CertificateError")
        sntp.offset_s = 0
        app.send("again")
        app.wait_for("will ask again")
        app.send("go")
        app.wait_for("clock set from")
        app.wait_for("connected in")
        app.send("publish")
        app.wait_for("published 1")
    assert abs(clock.offset_s) < 3


@pytest.mark.parametrize("says", ["2000-01-01", "2021-01-01", None])
def test_a_port_that_counts_from_2000_does_the_same(tmp_path, pki, ten_days, says):
    """The esp32; its clock after power-on, that of another board, one that is right."""
    try:
        clock = faketime.Clock(tmp_path, says or at(0))
    except faketime.Unavailable as reason:
        pytest.skip(f"no clock was wrong: {reason}")
    path = f"{mpy.ROOT}/tests/fakes/epoch2000:{mpy.environment()['MICROPYPATH']}"
    with (
        Broker(tmp_path / "b", "tls", pki=pki, identity=ten_days) as broker,
        Proxy(broker.port) as proxy,
        udp.SNTP() as sntp,
        start(clock, proxy.port, files(pki.ca, ntp=sntp_of(sntp)), MICROPYPATH=path) as app,
    ):
        app.send("go")
        app.wait_for("connected in")
        assert len(sntp.queries) == (says is not None)
        assert abs(clock.offset_s) < 3
        for jump, told in ((at(11), "has expired"), ("2021-01-01", "clock set from")):
            clock.set(jump)
            proxy.rst()
            app.send("go")
            app.wait_for(told)
            clock.set(None)
            app.send("go")
            app.wait_for("connected in")
        app.send("publish")
        app.wait_for("published 1")
