"""The resolver against real DNS and multicast DNS servers on loopback, dead and alive."""

import json

import pytest

from tests.support import mpy, udp

# Resolves the host of JOB, prints what came of it as JSON; sys.argv takes 255 characters only.
PROGRAM = """
import asyncio, json
import mqtt_as_tls.dns as dns
from mqtt_as_tls.errors import ResolveError
from tests.device.watch import watched

job = json.loads(JOB)
servers = job["servers"] and [tuple(s) if isinstance(s, list) else s for s in job["servers"]]
if job["mdns"]:
    dns.MDNS = tuple(job["mdns"])

async def resolve(found):
    found.update(address=None, error=None, host=None)
    try:
        found["address"] = await dns.resolve(job["host"], servers, **job["options"])
    except ResolveError as error:
        found["error"] = str(error)
        found["host"] = error.host

asyncio.run(watched(resolve))
"""


def resolve(host, *servers, mdns=None, **options):
    """Return what dns.resolve did in MicroPython; each of `servers` is a udp.DNS or an entry."""
    entries = [[s.host, s.port] if isinstance(s, udp.UDPServer) else s for s in servers]
    job = {
        "host": host,
        "servers": entries or None,
        "mdns": [mdns.host, mdns.port] if mdns else None,
        "options": options,
    }
    result = json.loads(mpy.check(f"JOB = {json.dumps(job)!r}\n{PROGRAM}"))
    assert result["left_open"] == result["left_running"] == 0
    return result


@pytest.fixture
def dns():
    """A DNS server that knows broker.lan, and an alias of it."""
    table = {
        "broker.lan": ["192.168.1.2", "192.168.1.3"],
        "alias.lan": "other.lan",
        "other.lan": "broker.lan",
        "ipv6.lan": None,
        "a." * 126 + "a": "192.168.1.4",
    }
    with udp.DNS(table) as server:
        yield server


@pytest.fixture
def silent():
    """A DNS server that does not answer."""
    with udp.DNS({}, fault="silent") as server:
        yield server


def test_a_name_is_resolved_with_one_query(dns):
    assert resolve("Broker.Lan", dns, timeout_ms=60_000)["address"] == "192.168.1.2"
    assert dns.queries == ["broker.lan"]


def test_an_address_is_returned_without_asking_anybody(dns):
    assert resolve("10.1.2.3", dns)["address"] == "10.1.2.3"
    assert dns.queries == []


def test_an_alias_leads_to_the_address(dns):
    assert resolve("alias.lan", dns)["address"] == "192.168.1.2"


def test_the_longest_name_is_resolved(dns):
    assert resolve("a." * 126 + "a", dns)["address"] == "192.168.1.4"


@pytest.mark.parametrize("host", ["nobody.lan", "ipv6.lan"])
def test_a_name_without_an_address_is_told_at_once(dns, silent, host):
    result = resolve(host, dns, silent, timeout_ms=60_000)
    assert result["address"] is None
    assert f"no address for {host} from DNS server" in result["error"]
    assert "no such name" in result["error"]
    assert str(dns.port) in result["error"]
    assert result["host"] == host
    assert dns.queries == [host]
    assert silent.queries == []


def test_what_is_no_name_is_never_sent(dns):
    for host in ("bröker.lan", "a..b", "x" * 64 + ".lan"):
        result = resolve(host, dns)
        assert "is no host name" in result["error"]
        assert result["host"] == host
    assert dns.queries == []


@pytest.mark.parametrize("fault", ["servfail", "refused"])
def test_a_server_that_cannot_tell_is_followed_by_the_next_at_once(dns, fault):
    with udp.DNS({}, fault=fault) as lost:
        assert resolve("broker.lan", lost, dns, timeout_ms=60_000)["address"] == "192.168.1.2"
        assert lost.queries == dns.queries == ["broker.lan"]
        result = resolve("broker.lan", lost, timeout_ms=60_000)
        assert f"OSError({2 if fault == 'servfail' else 5},)" in result["error"]


def test_a_silent_server_delays_only_the_resolver(silent):
    result = resolve("broker.lan", silent, tries=2, timeout_ms=300)
    assert "no answer" in result["error"]
    assert result["host"] == "broker.lan"
    assert result["ticks"] > 5
    assert silent.queries == ["broker.lan"] * 2


def test_every_server_is_asked_in_turn_each_try(silent, dns):
    dns.fault, dns.faults = "silent", 1
    result = resolve("broker.lan", silent, dns, timeout_ms=200, tries=30)
    assert result["address"] == "192.168.1.2"
    assert result["ticks"] > 5
    # an answer that is late counts when the next one has been asked
    assert 2 <= len(dns.queries) <= len(silent.queries) <= len(dns.queries) + 1


@pytest.mark.parametrize(
    "fault",
    [
        *("garbage", "empty", "stranger", "wrong_id", "wrong_question", "wrong_type"),
        *("not_a_response", "cut", "truncated", "loop"),
    ],
)
def test_wrong_answers_are_ignored_and_the_server_is_asked_again(dns, fault):
    dns.fault, dns.faults = fault, 1
    assert resolve("broker.lan", dns, timeout_ms=200, tries=30)["address"] == "192.168.1.2"
    assert len(dns.queries) > 1 and set(dns.queries) == {"broker.lan"}


def test_nothing_but_wrong_answers_ends_in_an_error(dns):
    dns.fault = "garbage"
    result = resolve("broker.lan", dns, tries=2, timeout_ms=100)
    assert "no answer" in result["error"]
    assert result["ticks"] > 5


def test_an_answer_later_than_the_next_query_still_counts(dns):
    dns.delay_s = 0.3
    assert resolve("broker.lan", dns, timeout_ms=200, tries=30)["address"] == "192.168.1.2"
    assert len(dns.queries) >= 2
    assert len(set(dns.senders)) == 1


def test_a_server_that_cannot_be_sent_to_is_told_at_once(dns):
    # Without SO_BROADCAST the system refuses to send there.
    result = resolve("broker.lan", "255.255.255.255", timeout_ms=60_000)
    assert "255.255.255.255" in result["error"]
    assert "OSError(" in result["error"]
    assert resolve("broker.lan", "255.255.255.255", dns)["address"] == "192.168.1.2"


def test_servers_that_are_no_ipv4_address_are_skipped(dns):
    assert resolve("broker.lan", "fe80::1", "dns.lan", dns)["address"] == "192.168.1.2"
    assert "no answer" in resolve("broker.lan", "fe80::1", "dns.lan")["error"]


@pytest.mark.parametrize("style", ["legacy", "modern", "no_id"])
@pytest.mark.parametrize("fault", [None, "stranger"])
def test_a_name_in_local_is_asked_for_by_multicast(dns, style, fault):
    with udp.MDNS({"pi.local": "192.168.1.7"}, style=style, fault=fault) as mdns:
        result = resolve("Pi.local", dns, mdns=mdns, timeout_ms=60_000)
        assert result["address"] == "192.168.1.7"
        assert mdns.queries == ["pi.local"]
        assert mdns.unicast_wished == [True]
        assert mdns.flags == [0]
        assert mdns.senders[0][1] != 5353  # RFC 6762 section 5.1
    assert dns.queries == []


def test_a_name_in_local_that_nobody_has_is_asked_for_again(dns):
    with udp.MDNS({"pi.local": "192.168.1.7"}) as mdns:
        result = resolve("zero.local", mdns=mdns, tries=3, timeout_ms=100)
        assert "no address for zero.local" in result["error"]
        assert mdns.queries == ["zero.local"] * 3
        assert result["ticks"] > 5


def test_a_multicast_refusal_and_a_lost_answer_are_no_answers():
    with udp.MDNS({"pi.local": "192.168.1.7"}, fault="servfail", faults=1) as mdns:
        result = resolve("pi.local", mdns=mdns, timeout_ms=200, tries=30)
        assert result["address"] == "192.168.1.7"
        assert len(mdns.queries) > 1


def test_a_pc_resolves_with_its_own_resolver():
    assert resolve("localhost")["address"] == "127.0.0.1"


def test_a_pc_that_cannot_resolve_raises_the_same_error():
    out = mpy.check(
        """
        import asyncio, socket
        import mqtt_as_tls.dns as dns
        from mqtt_as_tls.errors import ResolveError

        class NoResolver:
            AF_INET = socket.AF_INET
            def getaddrinfo(*_):
                raise OSError("[addrinfo error -2]")

        dns.socket = NoResolver
        try:
            asyncio.run(dns.resolve("broker.lan"))
        except ResolveError as error:
            print(error, error.host)
        """
    )
    assert out.startswith("no address for broker.lan from DNS server of this computer (OSError(")
    assert "addrinfo error -2" in out


def test_a_board_asks_its_networks_server_and_never_its_own_resolver(dns):
    out = mpy.check(
        """
        import asyncio, socket, sys
        import mqtt_as_tls.dns as dns
        from mqtt_as_tls.errors import ResolveError

        class Network:
            server = "127.0.0.1"
            def ipconfig(self, name):
                assert name == "dns"
                return self.server

        class Sockets:  # port 53 belongs to root; getaddrinfo sees addresses only
            AF_INET = socket.AF_INET
            SOCK_DGRAM = socket.SOCK_DGRAM
            socket = staticmethod(socket.socket)
            def getaddrinfo(host, port):
                assert host == "127.0.0.1", host
                assert port == 53, port
                return socket.getaddrinfo(host, int(sys.argv[1]))

        sys.modules["network"] = network = Network()
        dns.socket = Sockets
        print(asyncio.run(dns.resolve("broker.lan")))
        network.server = "fe80::1"
        try:
            asyncio.run(dns.resolve("broker.lan"))
        except ResolveError as error:
            print(error)
        """,
        dns.port,
    )
    assert out.splitlines()[0] == "192.168.1.2"
    assert out.splitlines()[1].startswith("no address for broker.lan from DNS server ('fe80::1',)")


def test_no_socket_left_to_open_is_told_as_what_the_board_lacks(dns):
    out = mpy.check(
        """
        import asyncio, socket, sys
        import mqtt_as_tls.dns as dns
        from mqtt_as_tls.errors import ConnectError

        class Sockets:
            AF_INET = socket.AF_INET
            SOCK_DGRAM = socket.SOCK_DGRAM
            getaddrinfo = staticmethod(socket.getaddrinfo)
            def socket(*_):
                raise OSError(24)

        dns.socket = Sockets
        try:
            asyncio.run(dns.resolve("broker.lan", [("127.0.0.1", int(sys.argv[1]))]))
        except ConnectError as error:
            print(error, error.code)
        """,
        dns.port,
    )
    assert "all UDP sockets of the board are in use" in out and out.endswith(" 24\n")


def test_cancelling_closes_the_socket_whenever_it_comes(silent):
    out = mpy.check(
        """
        import asyncio, sys
        import mqtt_as_tls.dns as dns
        from tests.device.watch import Ticker, open_files

        servers = [("127.0.0.1", int(sys.argv[1]))]

        async def main():
            before = open_files()
            for steps in range(8):
                task = asyncio.create_task(dns.resolve("broker.lan", servers))
                for _ in range(steps):
                    await asyncio.sleep_ms(0)
                task.cancel()
                try:
                    await task
                    print("not cancelled")
                except asyncio.CancelledError:
                    pass
                await asyncio.sleep_ms(0)
                print(steps, open_files() - before, len(asyncio.core._io_queue.map))
            try:
                await asyncio.wait_for_ms(dns.resolve("broker.lan", servers), 50)
            except asyncio.TimeoutError:
                print("timed out", open_files() - before, len(asyncio.core._io_queue.map))

        asyncio.run(main())
        """,
        silent.port,
    )
    assert out.splitlines() == [f"{steps} 0 0" for steps in range(8)] + ["timed out 0 0"]


def test_many_resolvers_at_once_get_their_own_answers_and_leak_nothing(dns):
    dns.delay_s = 0.05
    out = mpy.check(
        """
        import asyncio, gc, sys
        import mqtt_as_tls.dns as dns
        from mqtt_as_tls.errors import ResolveError
        from tests.device.watch import open_files

        servers = [("127.0.0.1", int(sys.argv[1]))]

        async def one(name):
            try:
                return await dns.resolve(name, servers, timeout_ms=5000)
            except ResolveError:
                return None

        async def main():
            before = open_files()
            used = []
            for _ in range(6):
                names = ["broker.lan", "nobody.lan", "alias.lan", "10.0.0.1", "ipv6.lan"]
                print(await asyncio.gather(*[one(name) for name in names]))
                gc.collect()
                used.append(gc.mem_alloc())
            print(open_files() - before, used[-1] - used[1] < 500)

        asyncio.run(main())
        """,
        dns.port,
    )
    *answers, last = out.splitlines()
    assert answers == ["['192.168.1.2', None, '192.168.1.2', '10.0.0.1', None]"] * 6
    assert last == "0 True"
