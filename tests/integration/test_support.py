"""The tools of the tests do what they say."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import mpy, process
from tests.support.broker import Broker, Peer, is_listening

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


def test_a_program_that_hangs_is_ended_and_its_output_is_shown():
    with pytest.raises(AssertionError, match="still running after 0.3 s\n.*\nbegun"):
        mpy.run("import time; print('begun'); time.sleep(60)", timeout_s=0.3)


def test_an_uncaught_exception_is_shown_and_fails():
    result = mpy.run("raise ValueError('no')")
    assert result.code == 1
    assert "ValueError: no" in result.out + result.err
    with pytest.raises(AssertionError, match="ValueError: no"):
        mpy.check("raise ValueError('no')")


def test_a_program_is_followed_line_by_line_and_answers_its_stdin():
    with mpy.start("while True: print('got', input())") as program:
        program.send("one")
        assert program.wait_for("got") == "got one"
        program.send("two")
        assert program.wait_for("got t") == "got two"
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
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until(lambda: not _exists(pid))


def test_end_takes_the_children_of_a_child_with_it():
    child = process.spawn(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE)
    pid = int(child.stdout.readline())
    process.end(child)
    child.stdout.close()
    _wait_until(lambda: not _exists(pid))


def _exists(pid):
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True
    ).stdout.strip()
    return state not in ("", "Z")


def _wait_until(is_so, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
