"""
The client over TLS: what connects, what every failure looks like, and that each of them ends
when its cause does.

Each app is MicroPython's own against a real mosquitto, or against a server made for one fault.
"""

import ast
import contextlib
import re
import shutil
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.support import secure, udp
from tests.support.broker import HOST, Broker
from tests.support.device import Device
from tests.support.proxy import Proxy
from tests.support.secure import files
from tests.support.server import server

CONNACK = b"\x20\x02\x00\x00"


@pytest.fixture
def mosquitto(tmp_path, pki):
    """A function that starts a mosquitto: mosquitto("tls", identity=...)."""
    with contextlib.ExitStack() as stack:

        def start(*listeners, **options):
            directory = tmp_path / f"broker{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(Broker(directory, *listeners, pki=pki, **options))

        yield start


def tls_server(identity, told=None, answer=CONNACK):
    """
    A TLS server that answers CONNECT with `answer`, one record, and then waits.

    told  list that gets the server name of each handshake; None where none was sent
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.chain_pem, identity.key_pem)
    if told is not None:
        context.sni_callback = lambda peer, name, context: told.append(name)

    def handle(connection):
        with context.wrap_socket(connection, server_side=True) as peer:
            peer.recv(1000)
            peer.sendall(answer)
            while peer.recv(1000):
                pass

    return server(handle)


# What connects


ROUND_TRIPS = """
    def read(path):
        with open(path, "rb") as file:
            return file.read()

    async def round_trip(**arguments):
        came = asyncio.Event()
        client = make(tls=TLS(**arguments), log=None)

        @client.on("t", qos=1)
        def take(message):
            assert message.payload == b"x" * 600
            came.set()

        await client.connect(timeout_s=10)
        await client.publish("t", b"x" * 600, qos=1)
        await asyncio.wait_for(came.wait(), 10)
        await client.disconnect()

    async def main():
        for files in tls_arguments():
            await round_trip(**files)
            await round_trip(**{name: read(files[name]) for name in files})
            print("ok")
"""


@pytest.mark.parametrize("kind", ["tls", "mtls"])
@pytest.mark.parametrize("identity", ["broker", "broker_rsa"])
def test_messages_go_both_ways_whatever_form_the_certificates_have(mosquitto, pki, kind, identity):
    """MQTT 3.1.1: [MQTT-7.1.2-1]"""
    broker = mosquitto(kind, identity=getattr(pki, identity))
    device = pki.device if kind == "mtls" else None
    forms = [files(pki.ca, device, form) for form in ("pem", "der")]
    out = secure.check(ROUND_TRIPS, broker.port, forms)
    assert out.splitlines() == ["ok"] * 2


CONNECTS = """
async with client:
    await client.publish("t", "here", qos=1)
"""


def connects(port, tls, **options):
    """Check that the app with these TLS arguments publishes; return what it logged."""
    out = Device.check(port, CONNECTS, tls=tls, **options)
    assert "connected in" in out, out
    assert "not connected" not in out, out
    return out


def test_a_self_signed_broker_is_pinned_by_its_own_certificate(mosquitto, pki):
    broker = mosquitto("tls", identity=pki.broker_self_signed)
    connects(broker.port, files(pki.broker_self_signed))


def test_a_broker_with_an_intermediate_certificate_is_accepted(mosquitto, pki):
    broker = mosquitto("mtls", identity=pki.broker_by_intermediate)
    connects(broker.port, files(pki.ca, pki.device))


@pytest.mark.parametrize("der", [False, True], ids=["pem", "der"])
def test_a_broker_of_either_of_several_cas_is_accepted(mosquitto, pki, der):
    bundle = {"ca": pki.bundle(pki.other_ca, pki.ca, der=der)}
    both = {"ca": [pki.other_ca.cert_der, pki.ca.cert_pem]}
    for identity in (pki.broker, pki.broker_wrong_ca):
        broker = mosquitto("tls", identity=identity)
        connects(broker.port, both)
        connects(broker.port, bundle)


# What fails, and that it ends when its cause does


# Each attempt waits for a line "go"; publishes when one succeeds.
PACED = """
from tests.device.links import Gate

client = make(tls=tls_given(), link=Gate(), connect_timeout_s=TIMEOUT)
events = client.events()
async with Ticker() as ticker:
    async with client:
        task = asyncio.create_task(tell(events))
        await client.publish("t", "here", qos=1)
    await task
print("ticks", ticker.ticks)
"""


def paced(to, arguments, timeout_s):
    return Device(to, PACED, tls=arguments, names={"TIMEOUT": timeout_s})


def fails_until(mend, port, arguments, cause, cure, kinds=("TLSError",), timeout_s=2):
    """
    Check that every attempt of the device is an event and a line with cause and cure, and that one
    after mend() connects; return the lines of the failures.
    """
    with paced(port, arguments, timeout_s) as device:
        for _ in range(2):
            device.send("go")
            line = device.wait_for("not connected: ")
            said, _, advice = line.partition(" -> ")
            assert re.search(cause, said) and re.search(cure, advice), line
            assert re.search(r"next try in [012]\.\d s$", line), line
            event = device.wait_for("^event ")
            assert event.split()[1] == "Disconnected", event
            assert event.split()[2] in kinds, event
        mend()
        device.send("go")
        device.wait_for("connected in")
        device.wait_for("^event Connected")
        out = device.finish()
    for line in out.splitlines():
        assert line.startswith(("mqtt 127.0.0.1:", "event ", "ticks ")), out
    assert int(out.rpartition("ticks ")[2]) > 10
    return [line for line in out.splitlines() if "not connected" in line]


def becomes(broker, **attributes):
    """Return a function that restarts `broker` with these attributes, on the same port."""

    def mend():
        broker.stop()
        for name, value in attributes.items():
            setattr(broker, name, value)
        broker.start()

    return mend


@pytest.mark.parametrize(
    ("identity", "cause", "cure"),
    [
        ("broker_wrong_ca", "not from the CA in ca=", "give the CA"),
        ("broker_wrong_name", "for another name", "server_hostname="),
        ("broker_expired", "has expired", "renew"),
        ("broker_future", "not valid yet", "set the device's clock"),
        ("broker_wrong_usage", "not one for servers", "serverAuth"),
    ],
)
def test_a_bad_certificate_of_the_broker_is_refused_until_it_is_replaced(
    mosquitto, pki, identity, cause, cure
):
    broker = mosquitto("tls", identity=getattr(pki, identity))
    mend = becomes(broker, identity=pki.broker)
    lines = fails_until(mend, broker.port, files(pki.ca), cause, cure, ["CertificateError"])
    assert len(lines) == 2


# a ConnectError where MicroPython has TLS 1.3: the broker looks at it after the handshake
CLIENT_CERTIFICATE = (
    "wants a certificate of the device",
    "cert= and key=",
    ("TLSError", "ConnectError"),
)


def test_without_a_client_certificate_it_fails_until_none_is_wanted(mosquitto, pki):
    broker = mosquitto("mtls")
    broker.ports["tls"] = broker.port
    mend = becomes(broker, listeners=["tls"], ports={"tls": broker.port})
    fails_until(mend, broker.port, files(pki.ca), *CLIENT_CERTIFICATE)


def test_a_foreign_client_certificate_is_refused_until_the_broker_knows_its_ca(mosquitto, pki):
    broker = mosquitto("mtls")
    mend = becomes(broker, client_ca=pki.other_ca)
    arguments = files(pki.ca, pki.device_wrong_ca)
    fails_until(mend, broker.port, arguments, *CLIENT_CERTIFICATE)


def http(connection):
    connection.recv(2000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.recv(1)


def garbage(connection):
    connection.recv(2000)
    connection.sendall(bytes(range(100, 200)))
    connection.recv(1)


def garbage_in_a_record(connection):
    connection.recv(2000)
    connection.sendall(b"\x16\x03\x03\x00\x64\x02\x00\x00\x60" + bytes(range(100, 196)))
    connection.recv(1)


def silence(connection):
    while connection.recv(2000):
        pass


def hang_up(connection):
    pass


def hang_up_after_hello(connection):
    connection.recv(2000)


def chatter(connection):
    connection.sendall(b"220 mail.lan ESMTP\r\n")
    connection.recv(2000)


@pytest.mark.parametrize(
    ("handle", "cause", "cure", "kinds"),
    [
        (http, "something else than TLS", "8883", ["TLSError"]),
        (garbage, "something else than TLS", "8883", ["TLSError"]),
        (garbage_in_a_record, "", "", ["TLSError"]),
        (silence, "silence in the TLS handshake", "is it the TLS port", ["ConnectError"]),
        (hang_up, "hung up", "log", ["TLSError", "ConnectError"]),
        (hang_up_after_hello, "hung up", "log", ["TLSError"]),
        (chatter, "speaks first|something else", "", ["ConnectError", "TLSError"]),
    ],
)
def test_what_is_no_tls_broker_is_told_and_left_until_there_is_one(
    tls_broker, pki, handle, cause, cure, kinds
):
    with server(handle) as port, Proxy(port) as proxy:

        def mend():
            proxy.target = (HOST, tls_broker.port)

        timeout_s = 1 if handle is silence else 5
        fails_until(mend, proxy.port, files(pki.ca), cause, cure, kinds, timeout_s=timeout_s)


def test_a_plain_mqtt_port_is_told_until_tls_is_there(tls_broker, pki):
    with Proxy(tls_broker.ports["tcp"]) as proxy:

        def mend():
            proxy.target = (HOST, tls_broker.port)

        fails_until(mend, proxy.port, files(pki.ca), "no TLS on this port", "8883")


DAMAGED = """
events = client.events()
async with client:
    async for event in events:
        error = getattr(event, "error", None)
        if not error:
            break
        forget_refusals(client)  # else the pauses grow to 10 minutes
        print(type(error).__name__, error, "|", isinstance(error, MQTTError))
    await client.publish("t", "here", qos=1)
"""


def test_whatever_byte_of_the_handshake_is_damaged_it_is_an_error_and_a_retry(mtls_broker, pki):
    passed = []  # bytes of each connection

    def pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(2000):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def damaged(connection):
        number = len(passed)
        passed.append(0)
        at = 3 + 90 * number
        with socket.create_connection((HOST, mtls_broker.port)) as upstream:
            threading.Thread(target=pass_on, args=(connection, upstream), daemon=True).start()
            while data := bytearray(upstream.recv(2000)):
                if 0 <= at - passed[number] < len(data):
                    data[at - passed[number]] ^= 0x20
                passed[number] += len(data)
                connection.sendall(data)

    with server(damaged) as port:
        out = Device.check(
            port,
            DAMAGED,
            tls=files(pki.ca, pki.device),
            connect_timeout_s=1,
            log=None,
            timeout_s=60,
        )
    lines = out.splitlines()
    assert len(lines) == len(passed) - 1 and len(lines) > 8, out
    for line in lines:
        assert line.endswith(" | True"), line


# The broker's certificate changes while it runs


HOLDS = """
events = client.events()
async with client:
    asyncio.create_task(tell(events))
    for n in (1, 2):
        await told("publish")
        await client.publish("t", str(n), qos=1)
        print("acknowledged", n)
"""


@pytest.fixture
def live(tmp_path, pki):
    """
    A running broker behind a proxy, and a function that swaps its certificate without a restart:
    (broker, proxy, swap).
    """
    identity = pki.issue(f"live {tmp_path.name}", issuer=pki.ca)
    with (
        Broker(tmp_path / "live", "tls", "tcp", pki=pki, identity=identity) as broker,
        Proxy(broker.port) as proxy,
    ):

        def swap(new):
            shutil.copy(new.chain_pem, identity.chain_pem)
            shutil.copy(new.key_pem, identity.key_pem)
            broker.reload()

        yield broker, proxy, swap


def shown(port):
    """Return the certificate (DER) that is shown on `port`."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((HOST, port)))


def test_a_renewed_certificate_of_the_broker_goes_unnoticed(live, pki):
    broker, proxy, swap = live
    renewed = pki.issue(f"renewed {broker.port}", issuer=pki.ca)
    with Device(proxy, HOLDS, tls=files(pki.ca)) as device:
        device.send("go")
        device.wait_for("^event Connected")
        swap(renewed)
        device.send("publish")
        device.wait_for("acknowledged 1")
        assert shown(broker.port) == Path(renewed.cert_der).read_bytes()
        assert proxy.connections == 1
        proxy.rst()
        device.send("go")
        device.wait_for("^event Connected")
        device.send("publish")
        device.wait_for("acknowledged 2")
        out = device.finish()
    assert out.count("connection lost") == 1 and "not connected" not in out, out


def test_a_wrong_certificate_swapped_in_while_it_runs_is_refused_until_it_is_gone(live, pki):
    broker, proxy, swap = live
    right = pki.issue(f"right {broker.port}", issuer=pki.ca)
    with Device(proxy, HOLDS, tls=files(pki.ca)) as device:
        device.send("go")
        device.wait_for("^event Connected")
        swap(pki.broker_wrong_ca)
        device.send("publish")
        device.wait_for("acknowledged 1")  # by the connection that there is
        proxy.rst()
        device.send("go")
        assert "not from the CA" in device.wait_for("not connected")
        device.wait_for("^event Disconnected CertificateError")
        swap(right)
        device.send("go")
        device.wait_for("^event Connected")
        device.send("publish")
        device.wait_for("acknowledged 2")
        device.finish()


# Sockets


def faulty(pki):
    """A server that fails every handshake in another way, in turn; yields its port."""
    context = {}
    for name in ("broker_wrong_ca", "broker_wrong_name"):
        identity = getattr(pki, name)
        context[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context[name].load_cert_chain(identity.chain_pem, identity.key_pem)
    turn = [0]

    def handle(connection):
        turn[0] += 1
        kind = turn[0] % 5
        if kind == 1:
            garbage(connection)
        elif kind == 2:
            context["broker_wrong_ca"].wrap_socket(connection, server_side=True)
        elif kind == 3:
            hang_up_after_hello(connection)
        elif kind == 4:
            context["broker_wrong_name"].wrap_socket(connection, server_side=True)
        elif turn[0] < 11:
            silence(connection)

    return server(handle)


TWENTY = """
events = client.events()
kinds = {}
sockets = Sockets()
async with client:
    for _ in range(20):
        kind = type((await events.__anext__()).error).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
assert sockets.others == [0] * len(sockets.others), sockets.others
assert sockets.open() == 0
print(len(sockets.others), sorted(kinds.items()))
"""


def test_twenty_failed_handshakes_leave_no_socket_open(pki):
    with faulty(pki) as port:
        out = Device.check(port, TWENTY, tls=files(pki.ca), connect_timeout_s=1, log=None)
    made, _, kinds = out.partition(" ")
    kinds = dict(ast.literal_eval(kinds))
    assert int(made) == sum(kinds.values()) == 20, out
    assert kinds["CertificateError"] == 8, out
    # what the peer said before it closed may be lost to its reset, and a TLSError with it
    assert kinds["ConnectError"] + kinds["TLSError"] == 12 and kinds["TLSError"] >= 6, out


BESIDE = """
await asyncio.sleep_ms(0)
stop = asyncio.create_task(told("stop"))
sockets = Sockets()
async with client:
    while not stop.done():
        await client.publish("t", "x", qos=1)
        print("acknowledged")
        await asyncio.sleep_ms(5)
print("sockets", len(sockets.others), sum(sockets.others), sockets.open())
"""


def test_a_second_tls_socket_is_never_open_beside_the_first(tls_proxy, pki):
    """However the connection ended: a board has memory for one TLS socket."""
    proxy = tls_proxy

    def cut_a_handshake():
        proxy.cut(700, "down")
        proxy.rst()

    with Device(
        proxy, BESIDE, tls=files(pki.ca), clean_start=True, connect_timeout_s=2, ack_timeout_s=1
    ) as device:
        for fault in (proxy.rst, proxy.fin, proxy.stall, proxy.stall_down, cut_a_handshake):
            device.wait_for("connected in")
            device.wait_for("acknowledged")
            device.wait_for("acknowledged")  # else the message is suspected that was under way
            before = proxy.connections
            fault()
            proxy.wait_for_connections(before + (2 if fault is cut_a_handshake else 1))
            proxy.heal()
        device.wait_for("connected in")
        device.send("stop")
        line = device.wait_for("^sockets")
        device.finish()
    made, others, left = map(int, line.split()[1:])
    assert made == proxy.connections >= 7, line
    assert others == left == 0, line


def test_wherever_the_connection_is_cut_in_the_handshake_it_is_an_error_and_a_retry(
    mtls_proxy, pki
):
    with paced(mtls_proxy, files(pki.ca, pki.device), 5) as device:
        for how in ("rst", "fin"):
            for way, points in (("up", range(0, 900, 180)), ("down", range(0, 900, 180))):
                for after in points:
                    mtls_proxy.cut(after, way, how=how)
                    device.send("go")
                    device.wait_for("^event Disconnected (TLS|Connect)Error")
                    mtls_proxy.heal()
        device.send("go")
        device.wait_for("^event Connected")
        device.finish()


def test_it_can_be_stopped_at_any_moment_of_the_handshake_and_started_again(mtls_proxy, pki):
    mtls_proxy.dribble()  # which takes a while
    out = Device.check(
        mtls_proxy,
        """
        await asyncio.sleep_ms(0)
        sockets = Sockets()
        stages = set()
        async with client:
            await client.wait_connected()
        start = time.ticks_ms()
        async with client:
            await client.wait_connected()
        whole_ms = time.ticks_diff(time.ticks_ms(), start)
        for n in range(12):
            async with client:
                await asyncio.sleep_ms(whole_ms * n // 12)
                stages.add(stage(client))
            if n % 2:
                await asyncio.sleep_ms(20)  # else it is started again at once
                assert not sockets.open()
        async with client:
            await client.publish("t", "here", qos=1)
        assert not sockets.open()
        print("TLS" in stages)
        """,
        tls=files(pki.ca, pki.device),
        log=None,
        drain_s=0,
    )
    assert out == "True\n"


# What is retried slowly


REFUSED = """
events = client.events()
async with client:
    asyncio.create_task(tell(events))
    await told("leave")
"""


def test_three_refusals_of_the_certificate_make_the_retry_slow_and_the_log_says_so(mosquitto, pki):
    broker = mosquitto("tls", identity=pki.broker_wrong_ca)
    with Device(broker, REFUSED, tls=files(pki.ca)) as device:
        assert "next try in 1.0 s" in device.wait_for("not connected")
        for _ in range(3):
            device.wait_for("^event Disconnected CertificateError")
        out = device.leave()
    lines = [line for line in out.splitlines() if line.startswith("mqtt ")]
    assert len(lines) == 2, out  # the second refusal is no news, the third is
    assert "ever more rarely" in lines[1] and "next try in 4.0 s" in lines[1], out
    assert all("not from the CA" in line for line in lines), out


def test_no_time_server_is_asked_while_the_clock_is_right(tls_broker, pki):
    with udp.SNTP() as sntp:
        connects(tls_broker.port, files(pki.ca, ntp=[sntp.host, sntp.port]))
        assert sntp.queries == []


# The name, and what is not verified


@pytest.mark.parametrize(
    ("host", "arguments", "name"),
    [
        ("localhost", {}, "localhost"),
        ("localhost", {"server_hostname": "broker.lan"}, "broker.lan"),
        ("localhost", {"unverified": True}, "localhost"),
        ("127.0.0.1", {"unverified": True, "server_hostname": "broker.lan"}, "broker.lan"),
    ],
)
def test_the_server_name_is_always_sent(pki, host, arguments, name):
    told = []
    if "unverified" not in arguments:
        arguments = {**arguments, **files(pki.ca)}
    with tls_server(pki.broker, told) as port:
        Device.check(
            (host, port),
            """
            for _ in range(2):
                await client.connect(timeout_s=10)
                await client.disconnect()
            """,
            tls=arguments,
        )
    assert told == [name] * 2


def test_a_broker_that_takes_no_address_as_server_name_is_named_and_a_name_helps(pki):
    """RFC 6066 section 3 forbids addresses there, which MicroPython sends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.broker.chain_pem, pki.broker.key_pem)

    def strict(peer, name, context):
        return ssl.ALERT_DESCRIPTION_DECODE_ERROR if name == HOST else None

    context.sni_callback = strict

    def handle(connection):
        with context.wrap_socket(connection, server_side=True) as peer:
            peer.recv(1000)
            peer.sendall(CONNACK)
            peer.recv(1000)

    with server(handle) as port, Device((HOST, port), tls=files(pki.ca)) as device:
        line = device.wait_for("not connected")
        assert "(-30592)" in line and "takes no address as SNI" in line, line
        assert "set server_hostname= to one in its certificate" in line, line
    with server(handle) as port:
        for host, more in (HOST, {"server_hostname": "localhost"}), ("localhost", {}):
            Device.check(
                (host, port),
                "await client.connect()\nawait client.disconnect()",
                tls={**files(pki.ca), **more},
            )


def test_a_broker_with_tls_1_3_alone_is_named(mosquitto, pki):
    broker = mosquitto("tls", lines=["tls_version tlsv1.3"])
    for host in (HOST, "localhost"):
        with Device((host, broker.port), tls=files(pki.ca)) as device:
            line = device.wait_for("not connected")
            assert "(-30592)" in line and "TLS 1.3 only" in line, line
            assert "let the broker have TLS 1.2" in line or "let it have TLS 1.2" in line, line


@pytest.mark.parametrize(
    ("answer", "cause", "cure"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "web server or a WebSocket port", "8883"),
        (b"", "instead of answering CONNECT", "a port for ALPN"),
    ],
)
def test_a_port_of_another_protocol_behind_tls_is_named(pki, answer, cause, cure):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.broker.chain_pem, pki.broker.key_pem)

    def handle(connection):
        with context.wrap_socket(connection, server_side=True) as peer:
            peer.recv(1000)
            peer.sendall(answer)

    with server(handle) as port, Device((HOST, port), tls=files(pki.ca)) as device:
        line = device.wait_for("not connected")
        assert cause in line and cure in line, line


def test_unverified_warns_in_the_log_at_each_connect(mosquitto, pki):
    broker = mosquitto("tls", identity=pki.broker_wrong_ca)
    out = Device.check(
        broker,
        """
        for _ in range(2):
            async with client:
                await client.publish("t", "here", qos=1)
        """,
        tls={"unverified": True},
    )
    lines = [line for line in out.splitlines() if "connected in" in line]
    assert len(lines) == 2
    assert all("NOT VERIFIED: anybody may listen" in line for line in lines), out


# Bytes in odd pieces


def test_a_connection_that_brings_single_bytes_works(mtls_proxy, pki):
    mtls_proxy.dribble()
    connects(mtls_proxy.port, files(pki.ca, pki.device))


def test_messages_larger_than_a_tls_record_go_both_ways(tls_broker, pki):
    Device.check(
        tls_broker,
        """
        def pattern(size):
            return bytes([i % 251 for i in range(size)])

        sizes = []
        done = asyncio.Event()

        @client.on("t", qos=1)
        def take(message):
            assert message.payload == pattern(len(message.payload))
            sizes.append(len(message.payload))
            if len(sizes) == 6:
                done.set()

        async with client:
            for size in (1000, 4000, 5000, 16380, 17000, 50_000):
                await client.publish("t", pattern(size), qos=1)
            await asyncio.wait_for(done.wait(), 10)
        assert sizes == [1000, 4000, 5000, 16380, 17000, 50_000], sizes
        """,
        tls=files(pki.ca),
        max_packet=60_000,
        max_backlog=200_000,
    )


def packet(first, *parts):
    """Return a packet with a body of 128 to 16383 bytes."""
    body = b"".join(parts)
    return bytes((first, len(body) & 127 | 128, len(body) >> 7)) + body


LONG_TOPIC = b"\3\0" + b"t" * 768
REASON = b"\x1f\3\0" + b"r" * 768  # Reason String, 771 bytes


@pytest.mark.parametrize(
    ("options", "answer", "size"),
    [
        ({}, CONNACK + packet(0x30, b"\0\1t", bytes(300)) * 20, 300 * 20),
        (
            {"protocol": 5},
            packet(0x20, b"\0\0\x83\6", REASON) + packet(0x30, b"\0\1t\0", bytes(300)),
            300,
        ),
        ({"max_packet": 1024}, CONNACK + packet(0x30, LONG_TOPIC, bytes(3000)), 3000),
    ],
    ids=["messages", "CONNACK", "stream"],
)
def test_what_a_tls_record_brings_is_read_to_its_end(pki, options, answer, size):
    """What is left of it when a buffer is full, the socket does not know of."""
    with tls_server(pki.broker, answer=answer) as port:
        Device.check(
            port,
            """
            size = 0
            done = asyncio.Event()

            @client.on("#", stream=True)
            async def take(message):
                nonlocal size
                while piece := await message.stream.read(700):
                    size += len(piece)
                if size == SIZE:
                    done.set()

            async with client:
                await asyncio.wait_for(done.wait(), 5)
            """,
            names={"SIZE": size},
            tls=files(pki.ca),
            **options,
        )


def test_a_stall_in_the_middle_of_a_message_damages_no_record(tls_proxy, tls_broker, pki):
    """What TLS could not send must be given to it again, unchanged."""
    # 20 MB: more than the kernel buffers on the way
    peer = tls_broker.peer("t")
    with Device(
        tls_proxy,
        """
        async with client:
            await told("publish")
            tasks = [
                asyncio.create_task(client.publish("t", bytes([i]) * 250_000, qos=i % 2))
                for i in range(80)
            ]
            await until(lambda: blocked_ms(client) >= 300)
            print("blocked")
            await asyncio.gather(*tasks)
        print("stats", client.stats.connects, client.stats.resent)
        """,
        tls=files(pki.ca),
        max_packet=300_000,
        max_backlog=300_000,
        max_inflight=80,
        max_waiting=65535,  # they count by their size
        heap="60M",
    ) as device:
        device.wait_for("connected in")
        tls_proxy.stall_up()
        device.send("publish")
        device.wait_for("blocked")
        tls_proxy.heal()
        device.wait_for("stats 1 0")
        device.finish()
    peer.wait_for(80)
    assert sorted(payload for _, payload in peer.received) == [
        bytes([i]) * 250_000 for i in range(80)
    ]


# Memory runs out


@pytest.mark.timeout(300)  # it may have to be built
def test_a_handshake_without_memory_is_told_and_succeeds_once_the_app_frees_some(
    on_pico, tls_broker, pki
):
    out = secure.check(
        """
        from tests.device.inside import failures, is_slow

        async def main():
            soonest()
            tls = tls_given()
            for left in (3000, 10000, 17000, 24000):
                lines = []
                client = make(tls=tls, log=lines.append)
                gc.collect()
                ballast = None
                while gc.mem_free() > left:
                    ballast = bytearray(200), ballast
                async with client:
                    await asyncio.sleep_ms(600)
                    failed = failures(client)
                    assert not client.connected and not is_slow(client)
                    ballast = None
                    gc.collect()
                    await client.wait_connected(10)
                    await client.publish("t", "here", qos=1)
                print(failed, lines[0])
        """,
        tls_broker.port,
        files(pki.ca),
        heap="120K",
        timeout_s=120,
    )
    lines = out.splitlines()
    assert len(lines) == 4
    for line in lines:
        failures, _, said = line.partition(" ")
        assert int(failures) >= 1, out
        assert "memory" in said, out
    assert "connect early" in out, out


# Holes of SIZE bytes between pieces that stay, or none (0): mbedTLS wants up to 600 B in a piece.
# The link never comes up: the handshake is the test's own, so that the heap is always the same
FRAGMENTED = """
    from tests.device.handshake import talk
    from tests.device.inside import forget_said, no_reserve
    from tests.device.links import Cable

    class Nowhere(Cable):
        def is_up(self):
            return False

        async def up(self):
            await asyncio.sleep(3600)

    no_reserve()
    held = [None] * 3400

    def holes(left):
        "Let `left` bytes be free: room for the buffers of TLS, and the rest in holes."
        buffers = bytearray(16800), bytearray(4500)
        at = 0
        while gc.mem_free() > 3000:
            held[at] = bytearray(SIZE - 16 if SIZE else 256)
            held[at + 1] = SIZE and bytearray(16)
            at += 2
        gc.collect()
        while gc.mem_free() < left - 21400 and at:
            at -= 2
            held[at] = None
            gc.collect()

    async def main():
        tls = tls_given()
        lines = []
        client = make(tls=tls, log=lines.append, link=Nowhere())
        async with client:
            talk(tls, "127.0.0.1", client.port, "localhost")
            for left in range(24000, 44000, 400):
                gc.collect()
                error = None
                try:
                    holes(left)
                    talk(tls, "127.0.0.1", client.port, "localhost")
                except Exception as e:
                    error = e
                if error:
                    client.error = error = texts.tls_failure(tls, error, None)
                    client.retry.refusals = 7
                    forget_said(client)
                    delay_ms = retry.failed(client, error, None)
                    slow = client.retry.slow or delay_ms > 10_050
                for at in range(len(held)):  # each, as the stack may still have one
                    held[at] = None
                gc.collect()
                if error:
                    print(slow, lines.pop())
    """


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("identity", "size"),
    [
        ("broker", 0),
        ("broker", 48),
        ("broker", 128),
        ("broker_rsa", 320),
        ("broker_by_intermediate", 0),
        ("below_rsa_4096", 0),
    ],
)
def test_whatever_a_lack_of_memory_looks_like_it_is_named_and_tried_again_soon(
    on_pico, tmp_path, pki, identity, size
):
    app = FRAGMENTED.replace("SIZE", str(size))
    ca = pki.ca
    if identity == "below_rsa_4096":
        ca = pki.issue("rsa 4096", "ca", key="rsa4096", path_length=1)
        identity = pki.issue("below rsa 4096", issuer=ca)
    else:
        identity = getattr(pki, identity)
    with Broker(tmp_path / "b", "tls", pki=pki, identity=identity) as broker:
        out = secure.check(app, broker.port, files(ca), heap="130K", timeout_s=200)
    failed = out.splitlines()
    looks = [line.partition("looks like: ")[2] for line in failed]
    assert any(looks) or identity is pki.broker_rsa, out
    for line in failed:
        assert line.startswith("False"), line
        assert "out of memory" in line.partition("; ")[0] and "P-256" in line, line


def test_a_certificate_of_another_ca_is_no_lack_of_memory(on_pico, tmp_path, pki):
    app = """
        async def main():
            soonest()
            async with make(tls=tls_given(), host="localhost"):
                await told("leave")
    """
    with (
        Broker(tmp_path / "b", "tls", pki=pki, identity=pki.broker_wrong_ca) as broker,
        secure.start(app, broker.port, files(pki.ca), heap="80K") as app,
    ):
        line = app.wait_for("not connected: ")
        assert "add intermediates to the broker's certfile, next try" in line, line
        app.wait_for("ever more rarely")
        app.send("leave")
        assert app.wait().code == 0
    assert "memory" not in app.report()
