"""
What the board itself lacks - memory, sockets, ports - is told as that: it is no broker that does
not answer. So no link is reset for it, no other broker is tried, and the next try is soon.
"""

import pytest

from tests.support import mpy
from tests.support.device import Device
from tests.support.udp import DNS

FILES = 24  # that a program may have open at a time

# An app that can take all the sockets there are, and give them back
TAKES = """
import socket
from tests.device.links import Cable, Modem
import mqtt_as_tls.dns, mqtt_as_tls.explain, mqtt_as_tls.lifecycle  # to load them takes a file
import mqtt_as_tls.reserve

keep_loaded()
held = [None] * 100

def take():
    try:
        for i in range(len(held)):
            held[i] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as e:
        assert e.errno == 24, e

def free():
    for i in range(len(held)):
        if held[i]:
            held[i].close()
            held[i] = None
"""


@pytest.fixture
def few_files(tmp_path, monkeypatch):
    script = tmp_path / "micropython"
    script.write_text(f'#!/bin/sh\nulimit -n {FILES}\nexec {mpy.interpreter()} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("MICROPYTHON", str(script))


def test_sockets_that_the_app_holds_are_not_held_against_the_link(broker, few_files):
    out = Device.check(
        broker,
        TAKES,
        """
        link = Modem()
        client = make(link=link)
        async with client:
            await client.wait_connected()
            lose(client, ConnectError("lost for the test"))
            await until(lambda: not client.connected)
            take()
            await until(lambda: failures(client) == 10)
            assert unanswered(client) == 1, "that of the connection that was lost"
            assert "TCP connections" in str(client.error) and client.error.code == 24
            free()
            await client.wait_connected(10)
        assert link.resets == 0
        """,
    )
    said = "all TCP connections of the board are in use: OSError(24,); the board has no socket"
    assert out.count(f"not connected: {said}") == 1
    assert "resetting it" not in out


def test_without_a_socket_for_dns_it_says_so_and_finds_the_broker_later(broker, few_files):
    with DNS({"broker.lan": "127.0.0.1"}) as dns:
        out = Device.check(
            broker,
            TAKES,
            """
            link = Cable([("127.0.0.1", DNS)])
            client = make("broker.lan", link=link)
            take()
            async with client:
                await until(lambda: failures(client) == 8)
                assert unanswered(client) == 0
                free()
                await client.wait_connected(10)
            """,
            names={"DNS": dns.port},
        )
    assert out.count("not connected: all UDP sockets of the board are in use: OSError(24,)") == 1
    assert "link reset" not in out


@pytest.mark.parametrize("error", ["MemoryError()", 'ConnectError("all UDP sockets", 12)'])
def test_an_address_that_cannot_be_asked_for_is_the_last_good_one(broker, error):
    Device.check(
        broker,
        f"""
        async def resolve(host, servers):
            if client.stats.connects:
                raise {error}
            return "127.0.0.1"

        resolve_with(resolve)
        client = make("broker.lan")
        async with client:
            await client.wait_connected()
            lose(client, ConnectError("lost for the test"))
            await until(lambda: client.stats.connects == 2)
        """,
    )


def test_another_broker_is_not_tried_at_once_for_what_the_board_lacks(broker, few_files):
    """It is after three tries: it may have smaller certificates."""
    Device.check(
        [broker, 1],
        TAKES,
        """
        take()
        async with client:
            for n in range(3):
                await until(lambda: failures(client) == n)
                assert client.port == PORT
            free()
            await client.wait_connected(10)
            assert client.port == PORT
        """,
        names={"PORT": broker.port},
    )


OWN = (
    "MemoryError()",
    *(f"OSError({code})" for code in (12, 23, 24, 98, 99, 105)),
    'ConnectError("cannot connect to 10.0.0.9 port 1883: OSError(12,)", 12)',
    'TLSError("TLS handshake out of memory (-20864)", -20864)',
)
OTHERS = (
    *(f"OSError({code})" for code in (101, 110, 113)),
    'ConnectError("no answer within 30 s")',
    'TLSError("TLS handshake broken off (110)", 110)',
)
# no mbedTLS says so before it has received something
ANSWERS = (
    'ConnectError("cannot connect: OSError(104,)", 104)',
    'TLSError("TLS handshake broken off (-28288)", -28288)',
)


@pytest.mark.parametrize(
    ("errors", "counted"),
    [(OWN, False), (OTHERS, True), (ANSWERS, False)],
    ids=["own", "others", "answers"],
)
def test_which_errors_count_as_a_broker_that_does_not_answer(broker, errors, counted):
    Device.check(
        broker,
        f"""
        from tests.device.links import Modem

        link = Modem([{", ".join(errors)}])
        client = make(link=link, log=None)
        async with client:
            seen = set()
            await until(lambda: seen.add(unanswered(client)) or client.connected)
            assert max(seen) == {len(errors) if counted else 0}, seen
        """,
    )


def test_tries_for_want_of_something_of_the_boards_own_are_at_most_10_s_apart():
    Device.check(
        1,
        """
        from tests.device.links import Modem

        link = Modem([MemoryError() for n in range(30)] + [OSError(110) for n in range(30)])
        longest = {"own": 0, "other": 0}

        def note(client, error, old):
            delay = failed(client, error, old)
            kind = "own" if isinstance(error, MemoryError) else "other"
            longest[kind] = max(longest[kind], delay)
            return 1

        failed = watch_failures(note)
        client = make(link=link, log=None)
        async with client:
            await until(lambda: not link.errors)
        assert 9000 < longest["own"] <= 10_050, longest
        assert longest["other"] > 30_000, longest
        """,
        back_off="latest",
    )


def test_the_numbers_of_every_port_are_known():
    out = mpy.check(
        """
        from mqtt_as_tls.errors import ConnectError, RefusedError
        from mqtt_as_tls.retry import lacking
        for n in range(1, 140):
            if lacking(OSError(n)):
                assert lacking(ConnectError("cannot connect", n)), n
                assert not lacking(RefusedError("no", n)), n
                print(n, end=" ")
        """
    )
    assert out.split() == "12 23 24 48 49 55 98 99 105 125".split()
