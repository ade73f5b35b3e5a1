"""The doctor and others' ports and files: real WebSocket listeners, proxies by name, BER."""

import base64
import shutil
import socket
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support import patience
from tests.support import pki as made
from tests.support.broker import Broker, is_listening
from tests.support.doctoring import (
    bare,
    cured,
    doctor,
    explained,
    forge,
    log_of,
    mqttls,
    on_a_board,
    server_context,
    tls_server,
)
from tests.support.server import server
from tools.mqttls import ber, certificates, convert
from tools.mqttls.der_form import element, elements, packed
from tools.mqttls.messages import Failure
from tools.ports import free_port

pytestmark = pytest.mark.usefixtures("micropython")

CONNACK = b"\x20\x02\0\0"


# mosquitto's own listener for MQTT over WebSocket


def wait_for(port):
    deadline = time.monotonic() + patience.stretched(5)
    while not is_listening(port):
        assert time.monotonic() < deadline, "mosquitto was built without libwebsockets"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def websockets(tmp_path_factory, pki):
    """(port with TLS, port without, the Broker) of a mosquitto that speaks WebSocket."""
    tls, plain = free_port(), free_port()
    own = [f"certfile {pki.broker.chain_pem}", f"keyfile {pki.broker.key_pem}"]
    lines = [f"listener {tls} 127.0.0.1", "protocol websockets", *own]
    lines += [f"listener {plain} 127.0.0.1", "protocol websockets"]
    with Broker(tmp_path_factory.mktemp("ws"), "tcp", pki=pki, lines=lines) as broker:
        for port in (tls, plain):
            wait_for(port)
        yield tls, plain, broker


def test_row_50_mosquitto_s_websockets(websockets, pki):
    tls, _, broker = websockets
    word = doctor(tls, ca=pki.ca).names(50, "TLS", "WebSocket", "8883")
    said = word.attempt["text"]  # 2.0 answers in HTTP, 2.1 hangs up
    assert word.rows == [50] and ("0x48" in said or "closed the connection" in said)
    word = doctor(tls, "--log", log_of(broker), ca=pki.ca)
    assert word.names(50, "TLS", "WebSocket").rows == [50]
    word = doctor(tls)
    assert word.names(50, "TLS", "WebSocket", "CONNECT").rows == [50], "without a CA, too"
    assert not word.json.get("next"), "nobody is told to trust it"


def test_row_5_mosquitto_s_websockets_without_tls(websockets, pki):
    _, plain, _ = websockets
    assert doctor(plain, ca=pki.ca).names(5, "TLS", "WebSocket", "8883").rows == [5]
    assert doctor(plain, "--no-tls").names(5, "CONNACK", "WebSocket", "1883").rows == [5]


def test_use_makes_no_folder_for_a_port_of_websockets(websockets, pki, tmp_path):
    tls, _, _ = websockets
    folder = tmp_path / "pki"
    said = mqttls("use", f"127.0.0.1:{tls}", "--ca", pki.ca.cert_pem, "--dir", folder)
    (found,) = said["problems"]
    assert "WebSocket" in found["cause"] and "8883" in found["cure"]
    assert not folder.exists()


def test_without_a_ca_a_broker_is_not_accused(tmp_path, pki):
    with Broker(tmp_path / "b", "tls", "mtls", pki=pki) as broker:
        for port in broker.ports.values():
            assert doctor(port).problems == []


def test_a_mosquitto_that_opens_no_listener_says_so():
    assert "websockets" in explained("1: Error: Unable to start any listening sockets, exiting.")


# Proxies that go by server names


def by_name(context, name, most=4096):
    """A proxy that reads the whole ClientHello, and hangs up unless `name` is in it."""

    def handle(sock):
        seen = b""
        while len(seen) < 5 or len(seen) < 5 + int.from_bytes(seen[3:5], "big"):
            more = sock.recv(most, socket.MSG_PEEK)
            if more[:1] != b"\x16":
                return
            if len(more) == len(seen):
                time.sleep(0.01)
            seen = more
        if name not in seen:
            sock.recv(most)
            return
        with context.wrap_socket(sock, server_side=True) as wrapped:
            if wrapped.recv(1000):
                wrapped.sendall(CONNACK)
                wrapped.recv(1000)

    return server(handle)


def test_row_6_a_proxy_that_has_another_name_is_told_without_its_configuration(pki):
    with by_name(server_context(pki.broker), b"broker.lan") as port:
        word = doctor(port, ca=pki.ca, host="localhost")
        word.names(6, "TLS", "has none for localhost", "to its end", "--name NAME")
        assert word.rows == [6] and "no TLS port" not in word.first["cause"]
        word = doctor(port, ca=pki.ca).names(6, "TLS", "an address is none", "--name NAME")
        assert word.rows == [6]
        assert doctor(port, "--name", "broker.lan", ca=pki.ca).problems == [], "the cure cures"


def test_row_6_what_hangs_up_at_the_first_bytes_may_be_no_tls(pki):
    with server(lambda sock: sock.recv(20)) as port:
        word = doctor(port, ca=pki.ca, host="localhost").names(6, "TLS", "no TLS port")
        assert word.rows == [6]


@pytest.mark.parametrize(
    "name", ["TRAEFIK DEFAULT CERT", "Kubernetes Ingress Controller Fake Certificate"]
)
def test_row_42_the_stand_in_certificate_of_a_proxy(tmp_path, pki, name):
    shown = forge(pki, "stand-in", names=("a.traefik.default",), addresses=(), subject=name)
    with Broker(tmp_path / "b", "tls", pki=pki, identity=shown) as broker:
        for ca in (None, pki.ca):
            word = doctor(broker.port, ca=ca).names(42, "TLS", name, "does not know", "--name")
            assert word.rows == [42], "neither its name nor its CA is what is wrong"
            assert not word.json.get("next"), "nobody is told to pin it"
        where = f"127.0.0.1:{broker.port}"
        said = mqttls("use", where, "--name", "a.traefik.default", "--dir", tmp_path / "pki")
        assert name in said["problems"][0]["fact"]
        assert not (tmp_path / "pki").exists()


# BER where DER is asked for


def longer(der):
    """The element `der` with a length of four bytes."""
    body = element(der)[1]
    return der[:1] + b"\x84" + len(body).to_bytes(4, "big") + body


def indefinite(der):
    return der[:1] + b"\x80" + element(der)[1] + b"\0\0"


def in_pieces(bits):
    body = element(bits)[1][1:]
    return packed(0x23, packed(3, b"\0" + body[:20]) + packed(3, b"\0" + body[20:]))


def outside(der, how):
    """A certificate in BER whose signature is still right."""
    tbs, algorithm, bits = elements(element(der)[1])
    if how == "whole":
        return indefinite(der)
    if how == "pieces":
        return packed(0x30, tbs + algorithm + in_pieces(bits))
    return packed(0x30, tbs + longer(algorithm) + bits)


def inside(identity, how):
    """A certificate whose signature covers what is not DER."""
    tbs, algorithm, _ = elements(element(Path(identity.cert_der).read_bytes())[1])
    fields = elements(element(tbs)[1])
    start, end = elements(element(fields[4])[1])
    if how == "serial":
        fields[1] = packed(2, b"\0\0" + element(fields[1])[1])
    elif how == "time":
        fields[4] = packed(0x30, packed(0x17, element(start)[1][:10] + b"Z") + end)
    elif how == "turned":
        fields[4] = packed(0x30, end + start)
    body = packed(0x30, b"".join(fields))
    body = indefinite(body) if how == "whole" else body
    signer = (identity.issuer or identity).key
    signature = signer.sign(body, ec.ECDSA(hashes.SHA256()))
    return packed(0x30, body + algorithm + packed(3, b"\0" + signature))


def as_pem(der):
    text = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"


@pytest.mark.skipif(not shutil.which("openssl"), reason="no program openssl")
@pytest.mark.parametrize("pem", [False, True])
@pytest.mark.parametrize(
    ("how", "words"),
    [("whole", "indefinite"), ("pieces", "in pieces"), ("length", "more bytes than it needs")],
)
def test_row_71_ber_around_what_is_signed_and_the_command_that_mends_it(
    tmp_path, pki, how, words, pem
):
    right = Path(pki.ca.cert_der).read_bytes()
    odd = outside(right, how)
    path = tmp_path / ("ca.pem" if pem else "ca.der")
    path.write_bytes(as_pem(odd) if pem else odd)
    taken = how == "length"  # mbedTLS takes lengths of any size, nothing else of BER around
    if not pem:
        assert ("ValueError" in on_a_board(path)) is not taken
    word = doctor(None, "--ca", path)
    if taken:
        word.first = word.remarks[71]
        assert words in word.first["fact"] and "boards" in word.first["cause"]
    else:
        word.names(71, "files", "BER", words, "mqttls use")
    assert word.rows == ([] if taken else [71])
    if how != "pieces":  # which OpenSSL puts together wrongly
        cured(word, tmp_path)
        assert doctor(None, "--ca", tmp_path / "ca.clean.der").problems == []
        assert (tmp_path / "ca.clean.der").read_bytes() == right
    (found,) = convert.load(path).certificates
    assert found == pki.ca.certificate, "use takes it"


@pytest.mark.parametrize(
    ("how", "words"),
    [("whole", "indefinite"), ("time", "without seconds")],
)
def test_row_71_ber_in_what_is_signed(tmp_path, pki, how, words):
    path = tmp_path / "ca.der"
    path.write_bytes(inside(pki.ca, how))
    assert "ValueError" in on_a_board(path)
    word = doctor(None, "--ca", path).names(71, "files", "BER", words, "reissue it")
    assert word.rows == [71]
    with pytest.raises(Failure, match="BER, not DER"):
        convert.load(path)


TRUE, CONSTRAINTS = b"\x01\x01\xff", b"\x06\x03\x55\x1d\x13"


def odd_true(identity, which):
    """
    The certificate with TRUE as 01, signed so: `which` is "critical" for that flag of
    basicConstraints, "CA" for its value.
    """
    der = Path(identity.cert_der).read_bytes()
    tbs, algorithm, _ = elements(element(der)[1])
    at = tbs.index(CONSTRAINTS) + len(CONSTRAINTS)
    at = tbs.index(TRUE, at + (len(TRUE) if which == "CA" else 0))
    tbs = tbs[:at] + b"\x01\x01\x01" + tbs[at + len(TRUE) :]
    signature = (identity.issuer or identity).key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return packed(0x30, tbs + algorithm + packed(3, b"\0" + signature))


def test_row_71_ber_that_boards_take(tmp_path, pki):
    """mbedTLS takes every BOOLEAN but 0 for TRUE, and integers and lengths with zeros before."""
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        for at, odd in enumerate(
            (inside(pki.ca, "serial"), odd_true(pki.ca, "critical"), odd_true(pki.ca, "CA"))
        ):
            path = tmp_path / f"{at}.der"
            path.write_bytes(odd)
            assert "CONNACK" in bare(broker.port, str(path))
            word = doctor(broker.port, "--ca", path)
            assert word.attempt["ok"] and word.problems == [], word
            assert "boards" in word.remarks[71]["cause"] and 18 not in word.remarks, word
            (found,) = convert.load(path).certificates
            assert certificates.cert_der(found) == odd


def test_row_71_a_broker_s_certificate_in_ber_that_boards_take(tmp_path, pki):
    identity = pki.broker
    path = tmp_path / "broker.pem"
    path.write_bytes(as_pem(odd_true(identity, "critical")))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, identity.key_pem)
    with tls_server(context) as port:
        word = doctor(port, ca=pki.ca)
        assert word.attempt["ok"] and word.problems == [], word
        assert "a BOOLEAN" in word.remarks[71]["fact"] and 33 not in word.remarks, word


def test_what_is_der_or_nothing_is_no_ber(pki):
    der = Path(pki.ca.cert_der).read_bytes()
    for data in (
        der,
        b"",
        b"0",
        b"\x30\x80",
        b"\x30\x80" * 5000,
        der[:90],
        bytes(99),
        b"\xff" * 9,
    ):
        assert ber.certificate(data) == ("", b"")


def test_row_10_a_listener_of_pre_shared_keys(tmp_path, pki):
    """mosquitto's psk_hint: there is no certificate that could be checked."""
    keys, port = tmp_path / "psk", free_port()
    keys.write_text("kitchen:aabbccddeeff\n")
    lines = [f"listener {port} 127.0.0.1", "psk_hint hint", f"psk_file {keys}"]
    with Broker(tmp_path / "b", "tcp", pki=pki, lines=lines):
        wait_for(port)
        word = doctor(port, ca=pki.ca).names(10, "TLS", "PSK", "pre-shared", "certfile")
        assert word.rows == [10]


def test_row_14_a_certificate_that_ends_before_it_begins(tmp_path, pki):
    """As `openssl x509 -days -1` makes it."""
    dates = {"valid_from": made.days(-9), "valid_to": made.days(-1)}
    right = forge(pki, "turned", issuer=pki.ca, **dates)
    turned = x509.load_der_x509_certificate(inside(right, "turned"))
    odd = made.Identity(pki.directory, "turned", turned, right.key, pki.ca)
    with Broker(tmp_path / "b", "tls", pki=pki, identity=odd) as broker:
        word = doctor(broker.port, ca=pki.ca).names(14, "dates", "expired", "renew")
        assert word.rows == [14]
        assert "expired" in bare(broker.port, pki.ca.cert_der)
