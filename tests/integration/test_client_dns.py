"""
The client and names: the broker is "broker.lan" to it, which a DNS server on loopback resolves as
long as it lives; its certificate is for that name.
"""

import json

import pytest

from tests.support import secure, udp
from tests.support.broker import HOST, Broker, is_listening
from tests.support.proxy import Proxy
from tests.support.secure import files

ELSEWHERE = "127.0.0.2"
NAME = "broker.lan"

# Publishes 1, 2, 3 ... one for each line "publish"; with "local" in argv names are asked of mDNS.
APP = """
    from mqtt_as_tls import dns
    from tests.device.inside import keep_loaded
    from tests.device.links import Cable

    async def main():
        soonest()
        if "mdns" in sys.argv:
            keep_loaded()
            dns.MDNS = tuple(json.loads(os.getenv("SERVERS"))[0])
        client = secure(sys.argv[2], link=Cable(json.loads(os.getenv("SERVERS"))))
        events = client.events()
        async with Ticker() as ticker:
            async with client:
                asyncio.create_task(tell(events))
                for n in range(1, int(sys.argv[3]) + 1):
                    await told("publish")
                    before = ticker.ticks
                    await client.publish("t", str(n), qos=1)
                    print("acknowledged", n, "ticks", ticker.ticks - before)
        print("connects", client.stats.connects)
"""


def start(port, arguments, servers, publishes, *more, name=NAME):
    env = {"SERVERS": json.dumps([[server.host, server.port] for server in servers])}
    return secure.start(APP, port, arguments, name, publishes, *more, env=env)


def publish(app, number):
    """Have the app publish; return how often its ticker ticked meanwhile."""
    app.send("publish")
    return int(app.wait_for(f"^acknowledged {number} ").split()[3])


@pytest.fixture
def broker(tmp_path, pki):
    with Broker(tmp_path / "broker", "tls", pki=pki, persistence=True) as running:
        yield running


@pytest.fixture
def dns():
    with udp.DNS({NAME: HOST}) as server:
        yield server


def moves(broker, server):
    """Stop the broker and start it at another address, which `server` tells from then on."""
    name = next(iter(server.table))
    broker.stop()
    broker.host = ELSEWHERE
    try:
        broker.start()
    except RuntimeError:
        pytest.skip(f"no broker at {ELSEWHERE} was tested: this system has no such address")
    server.table[name] = ELSEWHERE
    assert not is_listening(broker.port)


def test_a_name_is_resolved_at_each_connect_and_certified(broker, dns, pki):
    with Proxy(broker.port) as proxy, start(proxy.port, files(pki.ca), [dns], 2) as app:
        publish(app, 1)
        proxy.rst()
        app.wait_for("^event Connected")
        publish(app, 2)
        app.wait()
    assert dns.queries == [NAME] * 2


def test_a_broker_whose_address_changes_during_an_outage_is_followed(broker, dns, pki):
    with start(broker.port, files(pki.ca), [dns], 3) as app:
        publish(app, 1)
        moves(broker, dns)
        publish(app, 2)
        publish(app, 3)
        app.wait_for("connects 2")
        app.wait()


def test_a_silent_dns_server_delays_only_the_connection_and_the_last_address_serves(
    broker, dns, pki
):
    with Proxy(broker.port) as proxy, start(proxy.port, files(pki.ca), [dns], 2) as app:
        publish(app, 1)
        dns.fault = "silent"
        before = len(dns.queries)
        proxy.rst()
        assert publish(app, 2) > 100
        assert len(dns.queries) == before + 3
        out = app.wait().out
    assert "connects 2" in out
    assert "not connected" not in out  # one loss, and the next attempt succeeded


def test_while_the_first_dns_server_is_silent_the_second_is_asked(broker, dns, pki):
    with udp.DNS({}, fault="silent") as dead:
        with start(broker.port, files(pki.ca), [dead, dns], 1) as app:
            publish(app, 1)
            assert "not connected" not in app.wait().out
        assert dead.queries == dns.queries == [NAME]


@pytest.mark.parametrize("fault", ["silent", "servfail", None])
def test_a_name_that_nobody_knows_is_told_and_asked_for_until_somebody_does(
    broker, dns, pki, fault
):
    dns.fault = fault
    if not fault:
        dns.table.clear()
    with start(broker.port, files(pki.ca), [dns], 1) as app:
        line = app.wait_for(f"not connected: no address for {NAME} from DNS server")
        assert " -> " in line or "use its IP address" in line, line
        app.wait_for("^event Disconnected ResolveError")
        dns.fault = None
        dns.table[NAME] = HOST
        publish(app, 1)
        out = app.wait().out
    assert "Traceback" not in out


def test_a_name_that_does_not_exist_is_no_reason_to_reset_the_link(broker, dns, pki):
    """That is an answer; a server that cannot tell may be cut off from the world, as we may be."""
    dns.table.clear()
    with start(broker.port, files(pki.ca), [dns], 1) as app:
        for _ in range(8):
            app.wait_for("^event Disconnected ResolveError")
        assert "link reset" not in app.lines
        dns.fault = "servfail"
        app.wait_for("^link reset")


def test_a_local_name_is_asked_of_the_link_s_responder_and_followed(tmp_path, pki):
    identity = pki.issue("local broker", issuer=pki.ca, names=("broker.local",), addresses=())
    with (
        udp.MDNS({"broker.local": HOST}) as responder,
        Broker(tmp_path / "local", "tls", pki=pki, identity=identity) as broker,
        start(broker.port, files(pki.ca), [responder], 2, "mdns", name="broker.local") as app,
    ):
        publish(app, 1)
        moves(broker, responder)
        publish(app, 2)
        app.wait_for("connects 2")
        app.wait()
        assert set(responder.queries) == {"broker.local"}
