"""The doctor and what a network and a server can do wrong: names, ports, versions, ciphers."""

import contextlib
import http.server
import socket
import ssl
import struct
import threading

import pytest

from tests.support import mpy, patience
from tests.support.broker import HOST, Broker
from tests.support.doctoring import (
    bare,
    conf_of,
    doctor,
    explained,
    forge,
    log_of,
    mqttls,
    server_context,
    tls_server,
)
from tests.support.server import server
from tools.mqttls.doctor import outside
from tools.mqttls.doctor.attempt import Target
from tools.ports import free_port

pytestmark = pytest.mark.usefixtures("micropython")


def test_a_healthy_broker_passes_every_stage(tmp_path, pki):
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        word = doctor(
            broker.port,
            *("--conf", conf_of(broker), "--log", log_of(broker)),
            ca=pki.ca,
            device=pki.device,
            host="localhost",
        )
    assert word.problems == [], word
    assert word.json["exit"] == 0
    assert set(word.stages.values()) == {"ok"}, word
    assert list(word.stages)[-1] == "CONNACK"
    assert word.attempt["by"].startswith("MicroPython")


def test_row_1_a_name_without_an_address():
    word = doctor(8883, host="no-such-broker.invalid")
    word.names(1, "resolve", "no-such-broker.invalid", "DNS")
    console = mpy.run("import socket\nsocket.getaddrinfo('no-such-broker.invalid', 1)")
    assert "no address" in explained((console.out + console.err).strip().split("\n")[-1])
    assert "no address" in explained("OSError(-202)")


def test_row_1_a_name_that_only_this_pc_knows(tmp_path, pki, monkeypatch):
    """By its hosts file, or a search domain: a board asks DNS for just that name."""
    find, known = socket.getaddrinfo, {"brokerpc": HOST, "broker": "192.0.2.1"}

    def by_hosts(host, *more, **options):
        return find(known.get(host, host), *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", by_hosts)
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        word = doctor(port, host="brokerpc", timeout_s=1)
        assert "hosts file" in word.remarks[1]["cause"], word
        said = mqttls("use", f"brokerpc:{port}", "--dir", tmp_path / "pki", "--no-tls")
        assert "hosts file" in str(said["notes"]), said
    looked = outside.Look(Target("broker", 8883, tls=False), 0.01)
    assert "search domain" in looked.findings[0].cause and "broker.lan" in looked.findings[0].cure
    assert 1 not in doctor(free_port(), ca=pki.ca, host="localhost").remarks


def test_row_2_nothing_listens(pki):
    port = free_port()
    doctor(port, ca=pki.ca).names(2, "connect", str(port), "listener")
    assert "nothing listens" in explained(bare(port))


@pytest.mark.parametrize("scheme", ["mqtt", "MQTTS", "tcp", "ssl"])
def test_a_broker_may_be_given_as_a_url(pki, scheme):
    port = free_port()
    doctor(f"{port}/", ca=pki.ca, host=f"{scheme}://127.0.0.1").names(2, "connect", str(port))


def test_row_2_mosquitto_without_a_listener_on_that_port(tmp_path, pki):
    path = tmp_path / "mosquitto.conf"
    path.write_text("listener 1883\nallow_anonymous true\n")
    port = free_port()
    word = doctor(port, "--conf", path, ca=pki.ca).names(2, "connect")
    assert [each["stage"] for each in word.problems] == ["connect", "configuration"]
    assert f"no listener on port {port}" in word.problems[1]["fact"]


def test_row_3_the_plain_port(broker, pki):
    doctor(broker.port, ca=pki.ca).names(3, "TLS", "CONNACK", "8883")
    assert "TLS" in explained(bare(broker.port))


def test_row_4_the_broker_tells_of_a_client_without_tls(tmp_path, pki):
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        with socket.create_connection((HOST, broker.port)) as sock:
            sock.sendall(b"\x10\x0f\0\x04MQTT\x04\x02\0<\0\x03abc")
            sock.settimeout(patience.stretched(5))
            with contextlib.suppress(OSError):
                while sock.recv(100):
                    pass
        broker.wait_for_log("wrong version number")
        doctor(None, "--log", log_of(broker)).names(4, "TLS", "wrong version", "tls=")
        line = next(each for each in broker.log().split("\n") if "wrong version" in each)
    assert "without TLS" in explained(line)


def test_row_5_http(pki):
    web = http.server.ThreadingHTTPServer((HOST, 0), http.server.SimpleHTTPRequestHandler)
    web.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=web.serve_forever, daemon=True).start()
    try:
        port = web.server_address[1]
        doctor(port, ca=pki.ca).names(5, "TLS", "8883")
        assert "something else than TLS" in explained(bare(port))
    finally:
        web.shutdown()
        web.server_close()


def test_row_6_hung_up_before_an_answer(pki):
    with server(lambda sock: sock.recv(1000)) as port:
        doctor(port, ca=pki.ca).names(6, "TLS", "hangs up", "--log")
        assert "hung up" in explained(bare(port))


def test_row_6_cut_in_the_middle(pki):
    def handle(sock):
        sock.recv(1000)
        sock.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + bytes(40))

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(6, "TLS", "hangs up")


def test_a_server_that_is_silent_is_told_within_the_time(pki):
    done = threading.Event()
    with server(lambda sock: done.wait(patience.stretched(20))) as port:
        doctor(port, ca=pki.ca, timeout_s=1).names(6, "TLS", "does not answer", "1 s")
        done.set()


def test_rows_7_and_41_tls_1_3_only(tmp_path, pki):
    with Broker(tmp_path / "b", "tls", pki=pki, lines=["tls_version tlsv1.3"]) as broker:
        word = doctor(broker.port, ca=pki.ca).names(7, "TLS", "protocol_version", "tlsv1.2")
        with_files = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca)
        error = bare(broker.port, pki.ca.cert_der)
        context = ssl.create_default_context(cafile=pki.ca.cert_pem)
        with (
            socket.create_connection((HOST, broker.port)) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as on_the_pc,
        ):
            assert on_the_pc.version() == "TLSv1.3"
    assert 41 in word.remarks
    assert with_files.rows == [7, 7]
    assert "TLS 1.2" in explained(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_row_8_tls_1_1_only(pki):
    context = server_context(pki.broker)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1_1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with tls_server(context) as port:
        doctor(port, ca=pki.ca).names(8, "TLS", "TLS 1.1")
        assert "no TLS 1.2" in explained(bare(port, pki.ca.cert_der))


def test_row_9_an_ed25519_key(tmp_path, pki):
    broker_key = forge(pki, "broker ed", issuer=pki.ca, key="ed25519")
    with Broker(tmp_path / "b", "tls", pki=pki, identity=broker_key) as broker:
        word = doctor(broker.port, ca=pki.ca).names(9, "TLS", "Ed25519", "P-256")
        error = bare(broker.port, pki.ca.cert_der)
        assert 9 in doctor(None, "--conf", conf_of(broker)).rows
    assert 41 in word.remarks
    assert "P-256" in explained(error)


def test_row_10_ciphers_without_those_of_the_board(tmp_path, pki):
    lines = ["ciphers ECDHE-ECDSA-CHACHA20-POLY1305"]
    with Broker(tmp_path / "b", "tls", pki=pki, lines=lines) as broker:
        doctor(broker.port, ca=pki.ca).names(10, "TLS", "CHACHA20", "ciphers")
        assert doctor(None, "--conf", conf_of(broker)).names(10, "configuration").rows == [10]
        error = bare(broker.port, pki.ca.cert_der)
        broker.wait_for_log("no shared cipher")
        word = doctor(None, "--log", log_of(broker))
        assert 10 in word.rows, word
    assert "cipher" in explained(error) or "P-256" in explained(error)


def test_row_10_a_curve_that_boards_lack(pki):
    context = server_context(pki.broker)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ecdh_curve("brainpoolP256r1")
    with tls_server(context) as port:
        doctor(port, ca=pki.ca).names(10, "TLS", "brainpoolP256r1", "P-256")


def test_row_11_a_key_usage_without_digital_signature(tmp_path, pki):
    careless = forge(pki, "broker ku", issuer=pki.ca, key_usage="key_agreement")
    with Broker(tmp_path / "b", "tls", pki=pki, identity=careless) as broker:
        doctor(broker.port, ca=pki.ca).names(11, "TLS", "digitalSignature")
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca)
        assert word.rows == [11, 11], word
        assert "TLS" in explained(bare(broker.port, pki.ca.cert_der))


def test_row_42_a_server_of_many_names(pki):
    context = server_context(pki.broker)

    def by_name(sock, name, context):
        return None if name == "broker.lan" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    context.sni_callback = by_name
    with tls_server(context) as port:
        doctor(port, ca=pki.ca).names(42, "TLS", HOST, "server_hostname")
        word = doctor(port, "--name", "broker.lan", ca=pki.ca)
        assert word.problems == [], word
        assert "umqtt" in word.remarks[42]["cure"]


def test_row_42_another_certificate_without_the_name(pki):
    other, right = server_context(pki.broker_wrong_name), server_context(pki.broker)

    def by_name(sock, name, context):
        if name == "localhost":
            sock.context = right

    other.sni_callback = by_name
    with tls_server(other) as port:
        word = doctor(port, ca=pki.ca, host="localhost")
        assert word.problems == [], word
        assert "another certificate" in word.remarks[42]["fact"]


def test_row_43_the_umqtt_without_ssl_params():
    text = explained("TypeError: unexpected keyword argument 'ssl_params'")
    assert "umqtt" in text
    assert "ssl=context" in text


def test_a_reset_instead_of_an_answer(pki):
    def handle(sock):
        sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(6, "TLS", "hangs up")
