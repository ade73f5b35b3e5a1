"""The tools of the tests do what they say."""

import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support import chance, mpy, patience, process
from tests.support.broker import (
    HOST,
    Broker,
    EmbeddedBroker,
    Peer,
    is_listening,
    published_again,
    publishes,
)
from tests.support.device import Device
from tests.support.forked import Forked
from tests.support.proxy import Proxy
from tools import ports
from tools.debian import Unavailable

# Python programs


FORKED = """
import json, os, sys, time
print(os.getpid(), json.loads("[1]"), sys.argv[1:], os.environ["GIVEN"], repr(sys.stdin.read()))
print("warning", file=sys.stderr)
time.sleep(60) if "wait" in sys.argv else sys.exit(3)
"""


def test_a_program_that_forks_is_run_as_if_it_were_started(monkeypatch):
    program = Forked([sys.executable, "-c", FORKED], ["json"], cwd=mpy.ROOT)
    try:
        runs = []
        for given in ("one", "two"):
            monkeypatch.setenv("GIVEN", given)
            status, out, err = program.run(["a", "ü"], 60)
            assert (status, err) == (3, "warning\n")
            pid, _, rest = out.partition(" ")
            assert rest == f"[1] ['a', 'ü'] {given} ''\n"
            runs.append(pid)
        assert runs[0] != runs[1]
        with pytest.raises(subprocess.TimeoutExpired):
            program.run(["wait"], 0.5)
        assert program.run([], 60)[0] == 3  # another is started
    finally:
        program.close()


# Chance


def test_what_is_left_to_chance_comes_from_the_seed_of_the_run_and_the_test(monkeypatch, request):
    name = request.node.nodeid
    number = random.random()
    chance.seed(name)
    assert random.random() == number
    chance.seed("another test")
    assert random.random() != number
    monkeypatch.setenv("TEST_SEED", "of another run")
    assert chance.told() == "TEST_SEED=of another run"
    chance.seed(name)
    assert random.random() != number


# Ports


def test_a_port_is_given_to_nobody_else_until_it_is_given_back(monkeypatch):
    given = [ports.free_port() for _ in range(3)]
    # whatever it comes upon, in this process and in another
    chosen = iter([*given, given[0]])
    monkeypatch.setattr(ports, "_TRIES", len(given))
    monkeypatch.setattr(ports._chance, "randrange", lambda *_: next(chosen))
    with pytest.raises(OSError, match="no free port"):
        ports.free_port()
    program = f"""
    from tools import ports
    ports._TRIES, ports._chance.randrange = 1, lambda *_: {given[1]}
    ports.free_port()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    other = subprocess.run(command, cwd=mpy.ROOT, stderr=subprocess.PIPE, text=True)
    assert "no free port" in other.stderr
    for port in given:
        socket.create_server((HOST, port)).close()
        ports.give_back(port)
    ports.give_back(given[0])
    assert ports.free_port() == given[0]
    ports.give_back(given[0])


def test_a_port_of_a_process_that_ended_is_free():
    program = "from tools import ports; print(ports.free_port())"
    command = [sys.executable, "-c", program]
    port = int(subprocess.run(command, cwd=mpy.ROOT, stdout=subprocess.PIPE).stdout)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HOST, port))


# MicroPython programs


def test_a_program_returns_its_output_and_exit_status():
    result = mpy.run(
        """
        import sys
        print("hello", sys.argv[1:])
        print("oops", file=sys.stderr)
        sys.exit(3)
        """,
        "a",
        2,
    )
    assert result == ("hello ['a', '2']\n", "oops\n", 3)


def test_a_program_imports_the_package():
    out = mpy.check("from mqtt_as_tls import errors; print(errors.__name__)")
    assert out == "mqtt_as_tls.errors\n"


def test_a_program_from_a_file_gets_the_heap_it_asks_for(tmp_path):
    path = tmp_path / "heap.py"
    path.write_text("import gc\nprint(gc.mem_free() + gc.mem_alloc())\n")
    assert int(mpy.check(path, heap=100_000)) < 100_000 < int(mpy.check(path, heap="1M"))


def test_a_program_that_hangs_is_ended_and_its_output_is_shown(monkeypatch):
    monkeypatch.setenv("TEST_PATIENCE", "1")
    with pytest.raises(AssertionError, match="still running after 0.3 s\n.*\nbegun"):
        mpy.run("import time; print('begun'); time.sleep(60)", timeout_s=0.3)


def test_an_uncaught_exception_is_shown_and_fails():
    result = mpy.run("raise ValueError('no')")
    assert result.code == 1
    assert "ValueError: no" in result.out + result.err
    with pytest.raises(AssertionError, match="ValueError: no"):
        mpy.check("raise ValueError('no')")


def test_a_program_is_followed_line_by_line_and_answers_its_stdin(monkeypatch):
    with mpy.start("while True: print('got', input())") as program:
        program.send("one")
        assert program.wait_for("got") == "got one"
        program.send("two")
        assert program.wait_for("got t") == "got two"
        monkeypatch.setenv("TEST_PATIENCE", "1")
        with pytest.raises(AssertionError, match="no line with 'three' within 0.1 s"):
            program.wait_for("three", timeout_s=0.1)
    assert program.code == -signal.SIGKILL


def test_waiting_for_a_line_of_a_program_that_ended_shows_its_error():
    with mpy.start("import nothing_of_this_name") as program:
        with pytest.raises(AssertionError, match="ImportError"):
            program.wait_for("ready")
        assert program.wait().code == 1


def test_ctrl_c_is_a_keyboard_interrupt():
    with mpy.start(
        """
        import asyncio
        async def main():
            print("ready")
            await asyncio.sleep(60)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """
    ) as program:
        program.wait_for("ready")
        program.interrupt()
        assert program.wait(10) == ("ready\ninterrupted\n", "", 0)


def test_no_child_outlives_a_killed_parent():
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tests.support import mpy\n"
            "program = mpy.start('while True: print(1, end=str())')\n"
            "print(program.pid, flush=True)\n"
            "program.wait(60)\n",
        ],
        cwd=mpy.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(parent.stdout.readline())
    assert _exists(pid)
    left = Path(f"/dev/shm/faketime_shm_{pid}")  # as libfaketime does
    if left.parent.exists():
        left.touch()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: not _exists(pid) and not left.exists())


def test_end_takes_the_children_of_a_child_with_it():
    child = process.spawn(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    pid = int(child.stdout.readline())
    process.end(child)
    child.stdout.close()
    _wait_until(lambda: not _exists(pid))


def _exists(pid):
    if not shutil.which("ps"):
        raise Unavailable("ps is missing: sudo apt-get install procps")
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return state not in ("", "Z")


def _wait_until(is_so, timeout_s=10):
    deadline = time.monotonic() + patience.stretched(timeout_s)
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Devices


def test_a_device_says_what_its_program_prints_and_leaves_when_it_is_told(proxy, broker):
    program = 'client.on("t", qos=QOS)(hold)'
    with Device(proxy, program, names={"QOS": 2}, protocol=5, client_id="device") as device:
        device.subscribed()
        broker.publish("t", "1", 2, qos=2)
        for n in (1, 2):
            device.wait_for(f"got {n} 2")
            device.send("end")
            device.wait_for(f"ends {n}")
        assert "disconnected" in device.leave()
    assert device.said("got") == ["1 2", "2 2"]
    assert device.said("end") == []
    assert proxy.seen("CONNECT")[0].body[6] == 5


def test_a_device_that_starts_its_client_itself_ends_by_itself(broker, tmp_path):
    out = Device.check(
        broker,
        "said = 'left'",
        """
        async with client:
            await client.publish("t", "x", qos=1)
        print(client.client_id, said, len(store))
        """,
        store=tmp_path / "store",
        log=None,
    )
    assert out == "device left 0\n"
    assert (tmp_path / "store").is_dir()


def test_a_device_over_tls_tries_its_hosts_in_order(tls_broker, pki):
    nobody = ports.free_port()
    out = Device.check(
        [nobody, ("localhost", nobody), tls_broker],
        """
        async with client:
            await client.wait_connected()
            print("at", client.port == PORT)
        """,
        names={"PORT": tls_broker.port},
        tls={"ca": pki.ca.cert_der},
    )
    ports.give_back(nobody)
    assert "at True" in out


def test_a_device_that_fails_fails_its_test_and_shows_what_it_wrote(broker):
    for program in ("raise KeyError('mine')", "async with client:\n    raise OSError('mine')"):
        with pytest.raises(AssertionError, match="(?s)exit status 1.*mine"):
            Device.check(broker, program)


def test_options_that_would_reach_no_client_are_no_options(broker):
    with pytest.raises(AssertionError, match="keepalive_s"):
        Device(broker, "client = make()", keepalive_s=5)


def test_what_a_scripted_broker_finds_wrong_says_more_than_the_device():
    def script(connection):
        connection.accept()
        assert connection.packet() == "something else"

    with pytest.raises(AssertionError, match="something else"):
        Device.against(
            script,
            """
            async with client:
                await client.publish("t", "x", qos=1, timeout_s=1)
            """,
        )


def test_there_is_no_memory_once_in_every_place_that_tests_name():
    mpy.check(
        """
        from tests.device import inside
        from tests.unit.checks import raises

        for place in inside._PLACES:
            owner, name = inside.owner_of(place)
            real = getattr(owner, name)
            inside.no_memory(place)
            with raises(MemoryError):
                getattr(owner, name)()
            assert getattr(owner, name) is real, place
        """
    )


# Brokers


def test_a_message_goes_from_peer_to_peer(broker):
    listener = broker.peer("test/+")
    broker.peer().publish("test/a", "hello", qos=1)
    message = listener.wait_for(1, "test/a")[0]
    assert (message.payload, message.qos, message.retain) == (b"hello", 1, False)
    assert listener.received == [("test/a", b"hello")]


def test_a_broker_keeps_its_port_and_its_state_across_a_restart(broker):
    broker.peer().publish("test/kept", "1", retain=True)
    port = broker.port
    broker.stop()
    assert not is_listening(port)
    broker.start()
    assert broker.port == port
    assert broker.peer("test/kept").wait_for(1)[0].retain
    broker.restart(wipe=True)
    late = broker.peer("test/#")
    broker.peer().publish("test/end")
    assert late.wait_for(1)[0].topic == "test/end"


def test_a_peer_comes_back_after_a_restart_and_finds_its_session(broker):
    peer = broker.peer("test/#", client_id="peer", clean=False)
    broker.restart()
    broker.peer().publish("test/after", "1")
    peer.wait_for(1, "test/after")
    assert peer.session_present


@pytest.mark.parametrize("kind", ["tls", "mtls"])
def test_peers_speak_tls(tmp_path, pki, kind):
    with Broker(tmp_path, kind, pki=pki) as broker:
        peer = broker.peer("test/#")
        peer.publish("test/a", "1")
        peer.wait_for(1)


def test_mutual_tls_refuses_those_without_a_certificate(mtls_broker, pki):
    with pytest.raises((AssertionError, OSError)):
        Peer(mtls_broker.port, ca=pki.ca)
    mtls_broker.wait_for_log("peer did not return a certificate")


def test_passwords_and_acl_are_enforced(tmp_path):
    with Broker(tmp_path, users={"ann": "secret"}, acl="user ann\ntopic read open/#\n") as broker:
        with pytest.raises(AssertionError, match="Not authorized"):
            broker.peer(user="ann", password="wrong")
        peer = broker.peer(user="ann", password="secret")
        assert peer.subscribe("open/a") == 1
        peer.publish("open/a", "denied")
        broker.wait_for_log("Denied PUBLISH")


def test_a_broker_refuses_packets_over_its_limit(tmp_path):
    with Broker(tmp_path, max_packet=100) as broker:
        peer = broker.peer()
        peer._client.publish("test/large", bytes(200), 0)
        broker.wait_for_log("oversize packet")


def test_a_broker_that_cannot_start_shows_its_log(tmp_path):
    with pytest.raises(RuntimeError, match="no_such_option"):
        Broker(tmp_path, lines=["no_such_option 1"])


LOG = """
Sending PUBLISH to a b (d0, q2, r0, m1, 't', ... (1 bytes))
Sending PUBREL to a b (m1)
{}
Sending PUBREL to a b (m1)
"""
AGAIN = "Sending PUBLISH to a b (d1, q2, r0, m1, 't', ... (1 bytes))"


@pytest.mark.parametrize(
    ("between", "count"),
    [
        (AGAIN, 1),
        (f"{AGAIN}\n{AGAIN}", 1),  # before its second PUBREL the client knows its id
        (f"{AGAIN}\nSending PUBREL to a b (m1)\n{AGAIN}", 2),
        ("", 0),
        (f"Received PUBCOMP from a b (Mid: 1)\n{AGAIN}", 0),
        (f"Received PUBCOMP from a b (Mid: 1, RC:0)\n{AGAIN}", 0),
        (f"Received PUBCOMP from a b (Mid: 11)\n{AGAIN}", 1),
        (f"Received PUBCOMP from a (Mid: 1)\n{AGAIN}", 1),
        (AGAIN.replace("d1", "d0"), 0),  # a new message, in a new session
        (AGAIN.replace("q2", "q1"), 0),
        (AGAIN.replace("m1", "m11"), 0),
        (AGAIN.replace("a b", "a"), 0),
        (AGAIN.replace("a b", "c a b"), 0),
    ],
)
def test_what_a_broker_published_again_after_its_pubrel_is_counted(between, count):
    assert published_again(LOG.format(between), "a b") == count


def test_the_order_in_which_a_broker_published_is_read_for_each_connection():
    sent = "Sending PUBLISH to {} (d0, q{}, r0, m{}, 't', ... (1 bytes))"
    log = [
        "Sending CONNACK to a b (0, 0)",
        *(sent.format("a b", *each) for each in ((1, 3), (2, 4), (1, 5), (1, 12))),
        *(sent.format("a", 1, 6), sent.format("c a b", 1, 7), "Sending CONNACK to a (0, 0)"),
        "Sending CONNACK to a b (1, 0)",
        *(sent.format("a b", *each) for each in ((1, 12), (1, 5), (2, 4))),
    ]
    assert publishes("\n".join(log), "a b", 1) == [[0, 1, 2], [2, 1]]
    assert publishes("\n".join(log), "a b", 2) == [[0], [0]]


def test_the_embedded_broker_speaks_tls(tmp_path, pki):
    pytest.importorskip("iotcore", reason="the embedded broker has no wheel for this platform")
    with EmbeddedBroker(tmp_path, "tls", "tcp", pki=pki) as broker:
        watcher = broker.peer("test/#")
        with Peer(broker.port, ca=pki.ca) as sender:
            sender.publish("test/a", "1", qos=1)
        watcher.wait_for(1)
        broker.restart()
        assert broker.peer().subscribe("test/#") == 1


def test_every_certificate_of_the_pki_can_be_written(pki):
    names = [each for each in dir(type(pki)) if each.startswith(("ca", "other", "inter"))]
    names += [each for each in dir(type(pki)) if each.startswith(("broker", "device"))]
    for name in names:
        identity = getattr(pki, name)
        kind = b"RSA" if name.endswith("_rsa") else b"EC"
        for path, start in (
            (identity.cert_pem, b"-----BEGIN CERTIFICATE-"),
            (identity.key_pem, b"-----BEGIN " + kind + b" PRIVATE KEY-"),
            (identity.pkcs8_pem, b"-----BEGIN PRIVATE KEY-"),
            (identity.encrypted_pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-"),
            (identity.cert_der, b"\x30"),
            (identity.key_der, b"\x30"),
            (identity.pkcs8_der, b"\x30"),
        ):
            assert Path(path).read_bytes().startswith(start), path
    for path, count in (
        (pki.broker_by_intermediate.chain_pem, 2),
        (pki.broker.chain_pem, 1),
        (pki.bundle(pki.ca, pki.other_ca), 2),
    ):
        assert Path(path).read_bytes().count(b"BEGIN") == count


# The proxy, with a bare socket that speaks MQTT by hand as the client

CONNECT = b"\x10\x10\0\4MQTT\4\2\0\x3c\0\4test"
CONNACK = b"\x20\2\0\0"
PINGREQ, PINGRESP = b"\xc0\0", b"\xd0\0"
PUBLISH = b"\x32\x0a\0\4test\0\7hi"
PUBACK = b"\x40\2\0\7"


@pytest.fixture
def client(proxy):
    """A socket that is connected to the broker through the proxy, its CONNECT accepted."""
    with connect(proxy) as connected:
        yield connected


def connect(proxy):
    client = socket.create_connection((HOST, proxy.port), 5)
    client.sendall(CONNECT)
    assert read(client, 4) == CONNACK
    return client


def read(client, count, timeout_s=None):
    client.settimeout(timeout_s or patience.stretched(5))
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def test_the_proxy_passes_and_records_packets(proxy, client, monkeypatch):
    client.sendall(PUBLISH + PINGREQ)
    assert read(client, 6) == PUBACK + PINGRESP
    assert [(each.direction, each.name) for each in proxy.packets[:2]] == [
        ("up", "CONNECT"),
        ("down", "CONNACK"),
    ]
    publish = proxy.wait_for("PUBLISH")[0]
    assert (publish.topic, publish.payload, publish.qos, publish.packet_id, publish.dup) == (
        "test",
        b"hi",
        1,
        7,
        False,
    )
    assert proxy.seen("PUBACK", "down", connection=1)[0].packet_id == 7
    assert proxy.seen("PUBACK", "up") == []
    assert all(each.passed for each in proxy.packets)
    assert (proxy.connections, proxy.open) == (1, 1)
    monkeypatch.setenv("TEST_PATIENCE", "1")
    with pytest.raises(AssertionError, match="0 of 1 PUBREC within 0.05 s"):
        proxy.wait_for("PUBREC", timeout_s=0.05)


def test_packets_in_any_pieces_are_recorded_whole(proxy, client):
    for at in range(len(PUBLISH)):
        client.sendall(PUBLISH[at : at + 1])
        time.sleep(0.002)
    assert read(client, 4) == PUBACK
    assert [each.raw for each in proxy.seen("PUBLISH")] == [PUBLISH]


def test_bytes_that_are_not_mqtt_are_passed(proxy, client, broker):
    client.sendall(b"\xc0\xff\xff\xff\xff\x7f")
    assert read(client, 1) == b""
    _wait_until(lambda: proxy.bytes["up"] == len(CONNECT) + 6)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_stalled_way_holds_what_comes_until_healed(proxy, client, way):
    {"up": proxy.stall_up, "down": proxy.stall_down}[way]()
    client.sendall(PINGREQ)
    with pytest.raises(TimeoutError):
        read(client, 2, timeout_s=0.3)
    assert len(proxy.wait_for("PINGREQ")) == 1
    if way == "down":
        proxy.wait_for("PINGRESP")
    else:
        assert not proxy.seen("PINGRESP")
    proxy.heal()
    assert read(client, 2) == PINGRESP


def test_rst_resets_and_a_new_connection_is_welcome(proxy, client):
    proxy.rst()
    with pytest.raises(ConnectionResetError):
        read(client, 1)
    connect(proxy).close()
    assert proxy.connections == 2


def test_a_stalled_connection_can_be_reset(proxy, client):
    proxy.stall()
    client.sendall(PINGREQ)
    proxy.wait_for("PINGREQ")
    proxy.rst()
    with pytest.raises(ConnectionResetError):
        read(client, 1)
    _wait_until(lambda: proxy.open == 0)


def test_fin_ends_the_connection_in_an_orderly_way(proxy, client, broker):
    proxy.fin()
    assert read(client, 1) == b""
    broker.wait_for_log("closed")
    _wait_until(lambda: proxy.open == 0)


def test_the_clients_own_end_reaches_the_broker(proxy, client, broker):
    client.sendall(b"\xe0\0")
    client.close()
    broker.wait_for_log("test disconnected")
    _wait_until(lambda: proxy.open == 0)


def test_refused_connections_leave_those_that_are_open(proxy, client):
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), 5)
    client.sendall(PINGREQ)
    assert read(client, 2) == PINGRESP
    proxy.heal()
    connect(proxy).close()


def test_a_black_hole_does_not_answer_until_healed(proxy, client):
    proxy.blackhole()
    with pytest.raises(TimeoutError):
        socket.create_connection((HOST, proxy.port), 0.5)
    client.sendall(PINGREQ)
    assert read(client, 2) == PINGRESP
    proxy.heal()
    connect(proxy).close()


def test_a_connection_is_cut_after_some_bytes_once(proxy, broker):
    proxy.cut(after=len(CONNECT) + 3, direction="up", how="fin")
    with connect(proxy) as client:
        client.sendall(PUBLISH)
        assert read(client, 1) == b""
    assert proxy.bytes["up"] == len(CONNECT) + 3
    with connect(proxy) as client:
        client.sendall(PUBLISH)
        assert read(client, 4) == PUBACK


def test_a_connection_is_cut_on_the_way_down(proxy):
    proxy.cut(after=2, direction="down", how="rst")
    with socket.create_connection((HOST, proxy.port), 5) as client:
        client.sendall(CONNECT)
        assert read(client, 2) == CONNACK[:2]
        with pytest.raises(ConnectionResetError):
            read(client, 1)


def test_delay_holds_each_piece_back(proxy, client):
    proxy.delay(100)
    begun = time.monotonic()
    client.sendall(PINGREQ)
    assert read(client, 2) == PINGRESP
    assert time.monotonic() - begun >= 0.2


def test_dribble_passes_single_bytes(proxy, client):
    proxy.dribble(pause_ms=1)
    (connection,) = proxy._live
    writer = connection.writers["down"]
    sizes, write = [], writer.write
    writer.write = lambda data: (sizes.append(len(data)), write(data))
    client.sendall(PUBLISH)
    assert read(client, 4) == PUBACK
    assert sizes == [1, 1, 1, 1]


def test_swallowed_packets_do_not_arrive(proxy, client):
    proxy.swallow("PUBACK", "down", times=1)
    client.sendall(PUBLISH + PINGREQ)
    assert read(client, 2) == PINGRESP
    assert [each.passed for each in proxy.seen("PUBACK")] == [False]
    client.sendall(PUBLISH)
    assert read(client, 4) == PUBACK


def test_a_packet_kills_the_connection_before_it_arrives(proxy, client, broker):
    proxy.kill_on("PUBLISH", "up")
    client.sendall(PUBLISH)
    with pytest.raises(ConnectionResetError):
        read(client, 1)
    with connect(proxy) as again:
        again.sendall(PINGREQ)
        assert read(again, 2) == PINGRESP
    assert "Received PUBLISH" not in broker.log()


def test_a_packet_kills_the_connection_after_it_arrived_but_before_the_answer(
    proxy, client, broker
):
    proxy.kill_on("PUBLISH", "up", after=True, how="fin")
    client.sendall(PUBLISH)
    assert read(client, 1) == b""
    broker.wait_for_log("Received PUBLISH")
    with connect(proxy) as again:
        again.sendall(PUBLISH)
        assert read(again, 4) == PUBACK


def test_an_answer_that_kills_arrives_first(proxy, client):
    proxy.kill_on("PUBACK", "down", after=True)
    client.sendall(PUBLISH)
    assert read(client, 4) == PUBACK
    with pytest.raises(ConnectionResetError):
        read(client, 1)


def test_the_target_can_be_switched(proxy, client, tmp_path):
    with Broker(tmp_path / "other") as other:
        proxy.target = (HOST, other.port)
        connect(proxy).close()
        assert "New client connected" in other.log()
        other.stop()
        with pytest.raises((ConnectionResetError, BrokenPipeError)), connect(proxy):
            pass  # the reset may come while it connects, writes or reads
    client.sendall(PINGREQ)
    assert read(client, 2) == PINGRESP


def test_a_lost_connection_swallows_everything_and_tells_nobody(proxy, client, broker):
    proxy.lose()
    client.sendall(PINGREQ)
    with pytest.raises(TimeoutError):
        read(client, 1, timeout_s=0.2)
    proxy.wait_for("PINGREQ", "up")
    client.close()
    time.sleep(0.1)
    assert "Client test closed" not in broker.log()
    connect(proxy).close()
    assert "Received PINGREQ" not in broker.log()


def test_a_proxy_can_move_to_another_address(proxy, client):
    elsewhere = "127.0.0.2"
    try:
        socket.create_server((elsewhere, 0)).close()
    except OSError as reason:
        pytest.skip(f"loopback has no address {elsewhere}: {reason}")
    proxy.move(elsewhere)
    assert not is_listening(proxy.port)
    assert is_listening(proxy.port, host=elsewhere)
    client.sendall(PINGREQ)  # what was open stays
    assert read(client, 2) == PINGRESP


@pytest.mark.parametrize("after", [False, True])
def test_everything_is_held_before_or_after_a_packet_until_released(proxy, client, broker, after):
    reached = queue.Queue()
    proxy.hold(lambda packet: packet.name == "PUBLISH" and packet.number == 2, reached.put, after)
    client.sendall(PUBLISH * 2 + PINGREQ)
    assert reached.get(timeout=patience.stretched(5)).number == 2
    if after:
        broker.wait_for_log("Received PUBLISH", count=2)
    time.sleep(0.1)
    assert broker.log().count("Received PUBLISH") == 1 + after
    assert "Received PINGREQ" not in broker.log()
    proxy.release("down")
    broker.wait_for_log("Received PINGREQ")
    proxy.heal()
    assert read(client, 10) == PUBACK * 2 + PINGRESP


def test_something_else_can_be_passed_in_the_place_of_what_is_held(proxy, client):
    reached = queue.Queue()
    proxy.hold(lambda packet: packet.name == "PINGRESP", reached.put)
    client.sendall(PINGREQ)
    reached.get(timeout=patience.stretched(5))
    proxy.release(instead=b"garbage")
    assert read(client, 7) == b"garbage"


def test_a_connection_just_accepted_can_be_held(proxy, broker):
    reached = queue.Queue()
    proxy.hold(lambda packet: packet.name == "TCP", reached.put)
    with socket.create_connection((HOST, proxy.port), 5) as client:
        reached.get(timeout=patience.stretched(5))
        client.sendall(CONNECT)
        with pytest.raises(TimeoutError):
            read(client, 1, timeout_s=0.1)
        proxy.release()
        assert read(client, 4) == CONNACK


def test_records_of_tls_can_be_held_by_kind_and_number(tls_broker, pki):
    reached = queue.Queue()
    with Proxy(tls_broker.port, holds_records=True) as proxy:
        peer = Peer(proxy.port, ca=pki.ca)
        proxy.hold(lambda record: (record.direction, record.name) == ("up", "data"), reached.put)
        peer.publish("test/a", "1", qos=0)
        # CONNECT was one; in TLS 1.3 its Finished, too
        assert reached.get(timeout=patience.stretched(5)).number > 1
        assert "Received PUBLISH" not in tls_broker.log()
        proxy.release()
        tls_broker.wait_for_log("Received PUBLISH")
        peer.close()


def test_tls_passes_through_the_proxy_and_faults_on_bytes_work(tls_proxy, tls_broker, pki):
    peer = Peer(tls_proxy.port, ca=pki.ca)
    peer.publish("test/a", "1")
    assert tls_proxy.packets == []
    assert tls_proxy.bytes["up"] > 100
    peer.close()
    tls_proxy.cut(after=50, direction="down")
    with pytest.raises((OSError, AssertionError)):
        Peer(tls_proxy.port, ca=pki.ca)
