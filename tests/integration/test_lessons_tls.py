"""
What happened to the users of other clients, where TLS, names or Wi-Fi had a part in it, and does
not here: docs/testing.md has the lessons and their numbers.
"""

import ssl

from tests.support import udp
from tests.support.broker import HOST, Broker
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker
from tests.support.secure import files

FOLLOWED = """
from tests.device.links import Gate

client = make(tls=tls_given(), link=Gate())
events = client.events()
async with client:
    task = asyncio.create_task(tell(events))
    await client.wait_connected()
    await client.publish("t", "1", qos=1)
    print("published")
    await told("restarted")
    await client.publish("t", "2", qos=1)
await task
"""


def test_lesson_2_a_certificate_error_does_not_end_the_reconnecting(tmp_path, pki):
    with (
        Broker(tmp_path / "broker", "tls", pki=pki) as broker,
        Device(broker, FOLLOWED, tls=files(pki.ca)) as device,
    ):
        device.send("go")
        device.wait_for("published")
        broker.stop()
        broker.identity = pki.broker_wrong_ca
        broker.start()
        device.send("restarted")
        for _ in range(2):
            device.send("go")
            device.wait_for("^event Disconnected CertificateError")
        broker.stop()
        broker.identity = pki.broker
        broker.start()
        device.send("go")
        device.wait_for("^event Connected")
        device.finish()


def test_lesson_3_a_broker_that_is_silent_in_tls_stops_no_other_task(pki):
    with FakeBroker(lambda connection: connection.until_closed()) as silent:
        out = Device.check(
            silent,
            """
            events = client.events()
            async with Ticker() as ticker:
                async with client:
                    error = (await events.__anext__()).error
            print(error)
            print(ticker.ticks)
            """,
            tls=files(pki.ca),
            connect_timeout_s=1,
        )
    *_, error, ticks = out.splitlines()
    assert "no answer within 1 s (TLS)" in error
    assert int(ticks) > 10  # one every 5 ms, had it the computer for itself


def test_lesson_13_the_address_of_the_broker_is_asked_for_again(tmp_path, pki):
    with (
        udp.DNS({"broker.lan": "127.0.0.3"}) as dns,  # where nobody is
        Broker(tmp_path / "broker", "tls", pki=pki) as broker,
        Device(
            broker,
            """
            from tests.device.links import Cable

            link = Cable([DNS])
            client = make("broker.lan", tls=tls_given(), link=link)
            async with client:
                await client.publish("t", "x", qos=1)
            """,
            names={"DNS": (dns.host, dns.port)},
            tls=files(pki.ca),
        ) as device,
    ):
        device.wait_for("not connected: cannot connect to 127.0.0.3")
        dns.table["broker.lan"] = HOST
        device.wait_for("connected in")
        device.finish()


def test_lesson_14_a_broker_that_is_away_costs_no_wifi(mtls_proxy, pki):
    mtls_proxy.refuse()
    with Device(
        mtls_proxy,
        """
        from tests.fakes import network
        from mqtt_as_tls import WiFi

        set_wifi(10)

        client = make(tls=tls_given(), link=WiFi("home", "correct horse"), log=None)
        events = client.events()
        async with client:
            for _ in range(12):
                assert "cannot connect" in str((await events.__anext__()).error)
            print("away")
            await client.wait_connected()
            print(*[call[0] for call in network.calls])
        """,
        tls=files(pki.ca, pki.device),
    ) as device:
        device.wait_for("away")
        mtls_proxy.heal()
        assert device.finish() == "away\nactive config connect\n"


def test_lesson_15_a_clean_start_opens_no_second_tls_socket(tls_proxy, pki):
    with Device(
        tls_proxy,
        """
        await asyncio.sleep_ms(0)
        sockets = Sockets()
        async with client:
            for n in range(3):
                await client.publish("t", str(n), qos=1)
                await client.publish("t", str(n), qos=1)  # nothing is suspected
                print("published")
                await until(lambda: client.stats.connects > n + 1)
        print("sockets", sockets.others)
        """,
        tls=files(pki.ca),
        clean_start=True,
    ) as device:
        for how in (tls_proxy.rst, tls_proxy.fin, tls_proxy.rst):
            device.wait_for("published")
            how()
        line = device.wait_for("^sockets")
        device.finish()
    assert line == "sockets [0, 0, 0, 0]"
    assert tls_proxy.connections == 4


def test_lesson_19_tls_verifies_by_default_and_sends_the_server_name(pki):
    told = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.broker.chain_pem, pki.broker.key_pem)
    context.sni_callback = lambda peer, name, context: told.append(name)

    def handshake(connection):
        context.wrap_socket(connection.sock, server_side=True)

    with FakeBroker(handshake) as server:
        out = Device.check(
            ("localhost", server.port),
            """
            with raises(ValueError, "no ca: give the CA of the broker's certificate"):
                TLS()
            with raises(CertificateError, "not correctly signed"):
                await client.connect(timeout_s=0.1)
            print("refused")
            """,
            tls=files(pki.other_ca),
            log=None,
        )
    assert out == "refused\n"
    assert set(told) == {"localhost"}
