"""The peek: the ClientHello is that of MicroPython, and no answer whatever does harm."""

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import mpy
from tests.support.broker import HOST, Broker
from tests.support.server import server
from tools.mqttls.doctor import peek
from tools.mqttls.doctor.peek import Answer, Broken, Reader


def records(*messages, size=16384, kind=22):
    """Return handshake messages as TLS records of at most `size` bytes."""
    data = b"".join(messages)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(bytes((kind, 3, 3)) + len(each).to_bytes(2, "big") + each for each in pieces)


def message(kind, body):
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


HELLO = message(2, b"\x03\x03" + bytes(32) + b"\0" + b"\xc0\x2b" + b"\0")
CERTIFICATE = message(11, b"\0\0\x08" + b"\0\0\x05" + b"12345")
KEY = message(12, b"\x03\0\x17" + b"\x03abc" + b"\x04\x03" + b"\0\x01x")
REQUEST = message(13, b"\x02\x01\x40" + b"\0\x02\x04\x03" + b"\0\x06" + b"\0\x04name")
DONE = message(14, b"")
FLIGHT = HELLO + CERTIFICATE + KEY + REQUEST + DONE


def test_the_hello_is_that_of_micropython():
    """Byte by byte but for the 32 of the random, which begin with the time."""
    seen = []

    def handle(sock):
        seen.append(sock.recv(4096))

    program = """
    import socket, sys, tls
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    context.verify_mode = tls.CERT_NONE
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", int(sys.argv[1]))[0][-1])
    try:
        context.wrap_socket(s, server_hostname=sys.argv[2])
    except OSError:
        pass
    """
    for name in ("broker.lan", "192.168.1.10"):
        with server(handle) as port:
            mpy.check(program, port, name)
        theirs, ours = seen.pop(), peek.client_hello(name)
        assert len(theirs) == len(ours)
        assert theirs[:11] == ours[:11]
        assert theirs[43:] == ours[43:]


def test_offers_differ():
    board, more = peek.client_hello("a"), peek.client_hello("a", "more")
    assert b"\xcc\xa8" in more
    assert b"\xcc\xa8" not in board[43:]
    assert b"\x00\x2b\x00\x03\x02\x03\x04" in peek.client_hello("a", "tls13")
    assert b"\x00\x2b\x00\x03" not in board[43:]


@pytest.mark.parametrize("name", ["", "a" * 256])
def test_a_name_that_cannot_be_sent(name):
    with pytest.raises(ValueError, match="255"):
        peek.client_hello(name)


@pytest.mark.parametrize("cut", [1, 2, 5, 7, 4096])
@pytest.mark.parametrize("size", [1, 9, 16384])
def test_a_flight_in_any_pieces(cut, size):
    data = records(FLIGHT, size=size)
    reader = Reader()
    over = False
    for at in range(0, len(data), cut):
        assert not over
        over = reader.feed(data[at : at + cut])
    answer = reader.answer
    assert over
    assert answer.end == "done"
    assert answer.chain == [b"12345"]
    assert (answer.version_name, answer.cipher_name) == (
        "TLS 1.2",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
    )
    assert (answer.group_name, answer.signature_name) == ("P-256", "ECDSA with SHA-256")
    assert answer.wants_certificate
    assert answer.authorities == [b"name"]
    assert answer.client_types == (1, 64)
    assert answer.largest == len(HELLO)


def test_numbers_without_a_name_are_shown_as_numbers():
    answer = Answer(version=0x0305, cipher=0x1234, group=999, alert=200)
    assert answer.version_name == "0x0305"
    assert answer.data()["cipher"] == "0x1234"
    assert answer.data()["alert"] == "alert 200"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (records(HELLO, HELLO), "second"),
        (records(CERTIFICATE), "before"),
        (records(HELLO, message(20, b"")), "does not belong"),
        (records(HELLO) + b"\x17\x03\x03\0\x01x", "middle"),
        (records(HELLO) + b"HTTP/1.1", "unknown kind"),
        (b"\x16\x03\x03\xff\xff", "65535 bytes"),
        (records(HELLO, b"\x0b\xff\xff\xff"), "16777215 bytes"),
        (records(HELLO, message(11, b"\0\0\x09\0\0\xff12345")), "longer"),
        (records(HELLO, message(11, b"\0\0\x84" + b"\0\0\x01x" * 33)), "32 certificates"),
        (records(message(2, b"\x03\x03")), "longer"),
        (b"\x15\x03\x03\0\x01\x02", "less than 2"),
        (records(HELLO, *[message(0, b"x" * 60000)] * 5), "before the client's turn"),
    ],
)
def test_what_breaks_the_rules_is_told(data, words):
    with pytest.raises(Broken, match=words):
        Reader().feed(data)


def test_a_warning_does_not_end_the_handshake():
    reader = Reader()
    assert not reader.feed(b"\x15\x03\x03\0\x02\x01\x70" + records(HELLO))
    assert reader.answer.alert == 112
    assert reader.feed(records(CERTIFICATE, DONE))
    assert reader.answer.end == "done"


@given(st.binary(max_size=300), st.integers(1, 50))
def test_garbage_does_no_harm(data, cut):
    reader = Reader()
    try:
        for at in range(0, len(data), cut):
            if reader.feed(data[at : at + cut]):
                assert reader.answer.end != "silence"
                return
    except Broken:
        pass


@given(st.data())
def test_a_damaged_flight_does_no_harm(data):
    flight = bytearray(records(FLIGHT))
    for _ in range(data.draw(st.integers(1, 4))):
        flight[data.draw(st.integers(0, len(flight) - 1))] = data.draw(st.integers(0, 255))
    reader = Reader()
    try:
        reader.feed(bytes(flight))
    except Broken:
        return
    reader.answer.data()


def test_a_server_that_sends_without_end_is_left():
    def handle(sock):
        sock.recv(1000)
        data = records(HELLO) + records(*[message(0, b"")] * 4000) * 100
        sock.sendall(data)

    with server(handle) as port:
        answer = peek.peek(HOST, port, "localhost", timeout_s=5)
    assert answer.end == "broken"
    assert answer.received < 300_000


def test_a_server_that_dribbles_is_left_in_time():
    stop = threading.Event()

    def handle(sock):
        sock.recv(1000)
        for each in records(HELLO, size=1):
            if stop.wait(0.2):
                return
            sock.sendall(bytes((each,)))

    with server(handle) as port:
        answer = peek.peek(HOST, port, "localhost", timeout_s=1)
        stop.set()
    assert answer.end == "silence"
    assert 0 < answer.received < 20


def test_facts_about_a_real_broker(tmp_path, pki):
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        answer = peek.peek(HOST, broker.port, "localhost")
    facts = answer.data()
    assert facts["end"] == "done"
    assert facts["version"] == "TLS 1.2"
    assert facts["group"] == "P-256"
    assert facts["wants_certificate"] is True
    with open(pki.broker.cert_der, "rb") as file:
        assert answer.chain[0] == file.read()


def test_a_name_without_address_is_told_in_time():
    with pytest.raises(peek.NoAddress):
        peek.resolve("no-such-name.invalid", 5)
    assert peek.resolve("localhost") == "127.0.0.1"


def test_mqtt_is_known_when_it_answers(broker):
    assert peek.speaks_mqtt(HOST, broker.port)
    with server(lambda sock: sock.sendall(b"SSH-2.0-x\r\n")) as port:
        assert not peek.speaks_mqtt(HOST, port)
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    assert not peek.speaks_mqtt(HOST, port)
