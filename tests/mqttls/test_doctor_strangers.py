"""The doctor and what strangers have: proxies, other services, other brokers' words and files."""

import base64
import contextlib
import functools
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.support import faketime
from tests.support import pki as made
from tests.support.broker import HOST, Broker, mosquitto
from tests.support.doctoring import (
    bare,
    conf_of,
    cured,
    doctor,
    explained,
    forge,
    log_of,
    mqttls,
    on_a_board,
    revocations,
    server_context,
    tls_server,
)
from tests.support.server import server
from tests.support.tool import write_secret
from tools.mqttls import der_form
from tools.ports import free_port

pytestmark = pytest.mark.usefixtures("micropython")

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
CONNACK = b"\x20\x02\0\0"


def files(*arguments):
    return doctor(None, *arguments)


def plain(port, *arguments):
    return doctor(port, "--no-tls", *arguments)


# Proxies


def behind_a_header(handle, first):
    """A server that hangs up unless a header of the PROXY protocol, version `first`, comes."""

    def look(sock):
        if first == 1:
            line = b""
            while not line.endswith(b"\n") and len(line) < 108:
                line += sock.recv(1)
                if not b"PROXY ".startswith(line[:6]):
                    return
        else:
            head = sock.recv(16, socket.MSG_WAITALL)
            if head[:12] != b"\r\n\r\n\0\r\nQUIT\n":
                return
            sock.recv(int.from_bytes(head[14:16], "big"), socket.MSG_WAITALL)
        handle(sock)

    return server(look)


def answers_mqtt(sock):
    if sock.recv(1000):
        sock.sendall(CONNACK)
        sock.recv(1000)


@pytest.mark.parametrize("version", [1, 2])
def test_row_66_a_port_that_wants_the_header_of_a_proxy(pki, version):
    context = server_context(pki.broker)

    def handle(sock):
        with context.wrap_socket(sock, server_side=True) as wrapped:
            answers_mqtt(wrapped)

    with behind_a_header(handle, version) as port:
        word = doctor(port, ca=pki.ca).names(66, "TLS", "PROXY protocol", "accept-proxy")
        assert word.rows == [66]
    with behind_a_header(answers_mqtt, version) as port:
        plain(port).names(66, "CONNACK", "PROXY protocol", "enable_proxy_protocol")


def test_row_67_a_proxy_without_a_broker_behind_it(pki):
    with server(lambda sock: None) as port:
        word = doctor(port, ca=pki.ca).names(67, "TLS", "without anything", "docker", "max_conn")
        assert word.rows == [67]
        plain(port).names(67, "CONNACK", "without anything", "start the broker")
    context = server_context(pki.broker)

    def handle(sock):
        context.wrap_socket(sock, server_side=True).close()

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(67, "TLS", "a proxy")


def test_row_67_a_broker_that_has_as_many_clients_as_it_takes(tmp_path, pki):
    more = {"pki": pki, "lines": ["max_connections 1"]}
    context = ssl.create_default_context(cafile=pki.ca.cert_pem)
    with Broker(tmp_path / "b", "tls", **more) as broker, contextlib.ExitStack() as open_ones:
        taken = 0
        for number in range(10):  # those that looked whether it runs may count still, or not
            raw = open_ones.enter_context(socket.create_connection((HOST, broker.port)))
            try:
                one = open_ones.enter_context(
                    context.wrap_socket(raw, server_hostname="localhost")
                )
                one.sendall(b"\x10\x0d\0\x04MQTT\x04\x02\0<\0\x01%d" % number)
                taken += one.recv(4)[:2] == b"\x20\x02"
            except OSError:
                if taken:
                    break
        else:
            raise AssertionError("it takes as many as come")
        doctor(broker.port, ca=pki.ca).names(67, "TLS", "as many clients", "max_connections")
        word = doctor(broker.port, "--log", log_of(broker), ca=pki.ca)
        word.names(67, "TLS", "max_connections exceeded", "raise max_connections")
        assert "proxy" not in word.first["cause"], "the log knows that it is none"


def test_row_67_what_ends_connections_as_they_come(pki):
    """As a proxy with a list of who may come: whether at connect() or later, it is a reset."""

    def handle(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(67, "TLS", "who may come")


def test_row_2_a_broker_that_listens_on_ipv6_only(monkeypatch):
    """As `socket_domain ipv6` and some systems' defaults make it; the name has both addresses."""
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        taken.listen()
        port, find = taken.getsockname()[1], socket.getaddrinfo

        def both(host, *more, **options):
            six = socket.AF_INET6 in (*more, *options.values()) and host == "localhost"
            return find("::1" if six else host, *more, **options)

        monkeypatch.setattr(socket, "getaddrinfo", both)
        word = doctor(port, host="localhost").names(2, "connect", "IPv6 only", "IPv4, too")
        assert "on IPv6 it is open" in word.first["fact"]


def test_row_72_a_keepalive_that_is_too_long(pki, conf):
    """mosquitto 2.1 answers so where max_keepalive is below that of a client of MQTT 3.1.1."""

    def handle(connection):
        with contextlib.suppress(OSError), context.wrap_socket(connection, True) as sock:
            keepalive_s = int.from_bytes(sock.recv(1000)[10:12], "big")
            sock.sendall(b"\x20\x02\0" + (b"\2" if keepalive_s > 45 else b"\0"))
            sock.recv(1000)

    context = server_context(pki.broker)
    with server(handle) as port:
        doctor(port, ca=pki.ca).names(72, "CONNACK", "max_keepalive", "keepalive_s=")
    word = files("--conf", conf("max_keepalive 45"))
    assert word.problems == [] and "60 s" in word.remarks[72]["fact"]


def test_client_ids_that_a_broker_takes_by_their_beginning(conf):
    word = files("--conf", conf("clientid_prefixes garden-"))
    assert "garden-" in word.remarks[37]["cure"] and "code 5" in word.remarks[37]["cause"]


def test_row_68_a_broker_that_insists_on_extended_master_secret(pki):
    context = server_context(pki.broker)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def handle(sock):
        if b"\0\x17\0\0" not in sock.recv(4096, socket.MSG_PEEK):
            sock.recv(4096)
            sock.sendall(b"\x15\x03\x03\0\x02\x02\x28")  # handshake_failure
            return
        with context.wrap_socket(sock, server_side=True) as wrapped:
            answers_mqtt(wrapped)

    with server(handle) as port:
        word = doctor(port, ca=pki.ca).names(68, "TLS", "Extended Master Secret", "FIPS")
        assert 41 in word.remarks
        assert explained(bare(port, pki.ca.cert_der))


def test_row_69_a_proxy_passes_plain_text_on_to_the_tls_port(tmp_path, pki):
    context = server_context(pki.broker)
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:

        def handle(sock):
            with (
                context.wrap_socket(sock, server_side=True) as wrapped,
                socket.create_connection((HOST, broker.port)) as behind,
            ):
                behind.sendall(wrapped.recv(1000))
                wrapped.sendall(behind.recv(1000))

        with server(handle) as port:
            word = doctor(port, "--log", log_of(broker), ca=pki.ca)
            word.names(69, "CONNACK", "wrong version number", "plain port")

        def through(sock):
            with (
                context.wrap_socket(sock, server_side=True) as wrapped,
                socket.create_connection((HOST, broker.port)) as behind,
            ):
                behind.sendall(wrapped.recv(1000))
                with contextlib.suppress(OSError):  # it ends what is no TLS
                    wrapped.sendall(behind.recv(1000))

        with server(through) as port:  # the same without a log
            doctor(port, ca=pki.ca).names(69, "CONNACK", "with TLS again", "plain port")


def test_row_42_a_proxy_that_goes_by_names(tmp_path, pki):
    context = server_context(pki.broker)

    def handle(sock):
        if b"broker.lan" not in sock.recv(4096, socket.MSG_PEEK):
            return
        with context.wrap_socket(sock, server_side=True) as wrapped:
            answers_mqtt(wrapped)

    def wait(sock):  # as it does: until a hello is there
        sock.recv(1, socket.MSG_PEEK)
        handle(sock)

    conf = tmp_path / "mosquitto.conf"
    conf.write_text(
        f"listener 8883\ncertfile {pki.broker.chain_pem}\nkeyfile {pki.broker.key_pem}\n"
    )
    with server(wait) as port:
        doctor(port, ca=pki.ca).names(6, "TLS", "goes by server names", "--name")
        word = doctor(port, ca=pki.ca, host="localhost")
        word.names(6, "TLS", "none for localhost", "--name")
        word = doctor(port, "--conf", conf, ca=pki.ca, host="localhost")
        word.names(42, "TLS", "answers to broker.lan", "--name broker.lan")
        assert doctor(port, "--name", "broker.lan", ca=pki.ca).problems == [], "the cure cures"


# Ports without TLS, and what else is there


def test_row_4_a_port_with_tls_that_was_tried_without(tmp_path, pki):
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        for more in ((), ("--log", log_of(broker))):
            plain(broker.port, *more).names(4, "CONNACK", "answers a ClientHello", "--ca FILE")
        assert doctor(broker.port, ca=pki.ca).problems == [], "the cure cures"


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail ESMTP\r\n", b"\x1b[31mhello\r\n"]
)
def test_row_5_another_service(pki, banner):
    def handle(sock):
        sock.sendall(banner)
        while sock.recv(1000):
            pass

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(5, "TLS", repr(banner.decode()[:8])[1:-1])
        word = plain(port).names(5, "CONNACK", "speaks first", "1883")
        assert "\x1b" not in word.first["fact"]


def websocket(sock):
    """What mosquitto's listener for websockets does: it answers no other request."""
    if b"Sec-WebSocket-Protocol: mqtt" in sock.recv(1000):
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")


def test_row_50_mqtt_over_websocket(pki):
    context = server_context(pki.broker)

    def handle(sock):
        with context.wrap_socket(sock, server_side=True) as wrapped:
            websocket(wrapped)

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(50, "TLS", "101 Switching", "WebSocket", "8883")
    with server(websocket) as port:
        plain(port).names(5, "CONNACK", "101 Switching", "WebSocket")
        doctor(port, ca=pki.ca).names(5, "TLS", "101 Switching", "WebSocket")


def test_row_5_a_listener_for_websockets_in_the_configuration(tmp_path, pki):
    path = tmp_path / "mosquitto.conf"
    own = f"certfile {pki.broker.cert_pem}\nkeyfile {pki.broker.key_pem}\n"
    for more in (own, ""):
        path.write_text(f"listener 8884\nallow_anonymous true\nprotocol websockets\n{more}")
        word = mqttls("doctor", "127.0.0.1:8884", "--no-tls", "--conf", path)
        found = [each for each in word["findings"] if each["stage"] == "configuration"]
        assert [each["row"] for each in found] == [5], found
        assert "without the line `protocol`" in found[0]["cure"]


def test_a_plain_listener_is_no_problem_for_who_comes_without_tls(tmp_path, broker):
    path = tmp_path / "mosquitto.conf"
    path.write_text(f"listener {broker.port} 127.0.0.1\nallow_anonymous true\n")
    assert plain(broker.port, "--conf", path).problems == []


def test_row_49_tls_1_3_alone_in_a_server_that_does_not_say_so(pki):
    """GnuTLS answers handshake_failure where OpenSSL says protocol_version."""
    context = server_context(pki.broker)
    context.minimum_version = ssl.TLSVersion.TLSv1_3

    def handle(sock):
        if b"\0\x2b" not in sock.recv(4096, socket.MSG_PEEK):  # supported_versions
            sock.recv(4096)
            sock.sendall(b"\x15\x03\x03\0\x02\x02\x28")
            return
        with context.wrap_socket(sock, server_side=True) as wrapped:
            wrapped.recv(1)

    with server(handle) as port:
        doctor(port, ca=pki.ca).names(49, "TLS", "TLS 1.3 alone", "let it have TLS 1.2")


# Certificates


def rewritten(identity, issuer, change):
    """Return the DER of a certificate, its TBSCertificate altered by `change`, signed anew."""
    outer = der_form.elements(der_form.element(identity.certificate.public_bytes(DER))[1])
    tbs = change(outer[0])
    bits = der_form.packed(3, b"\0" + issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256())))
    return der_form.packed(0x30, tbs + outer[1] + bits)


@contextlib.contextmanager
def showing(tmp_path, der, identity):
    """A server that shows the certificate `der` with the key of an Identity; its port."""
    path = tmp_path / "shown.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, identity.key_pem)
    with tls_server(context) as port:
        yield port


CN_OF_CA = b"\x06\x03\x55\x04\x03\x0c\x02ca"


@pytest.mark.parametrize(("kind", "row"), [(0x13, None), (0x14, 70), (0x16, 70), (0x0C, None)])
def test_row_70_the_issuer_in_another_type_of_string(tmp_path, pki, kind, row):
    def change(tbs):
        other = CN_OF_CA.replace(b"\x0c", bytes((kind,)))
        assert tbs.count(CN_OF_CA) == 1
        return tbs.replace(CN_OF_CA, other.upper() if kind == 0x0C else other)

    der = rewritten(pki.broker, pki.ca, change)
    with showing(tmp_path, der, pki.broker) as port:
        word = doctor(port, ca=pki.ca)
        assert (word.first and word.first["row"]) == row, word
        assert bare(port, pki.ca.cert_der).startswith("CONNACK") == (row is None)
        if row:
            word.names(70, "chain", "two types of string", "issuer's name")


def test_row_33_an_address_with_its_mask(pki):
    san = b"\x30\x15\x87\x08\x7f\0\0\x01\xff\xff\xff\xff\x82\x09localhost"
    extension = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, san)
    odd = forge(pki, "broker masked", "", issuer=pki.ca, more=[(extension, False)])
    with tls_server(server_context(odd)) as port:
        word = doctor(port, ca=pki.ca, host="localhost").names(33, "chain", "mask", "4 bytes")
        assert word.attempt["text"] == "invalid cert"


def test_row_33_what_only_mbedtls_finds_odd(tmp_path, pki):
    def change(tbs):  # an issuerUniqueID, which nobody has used since 1996
        parts = der_form.elements(der_form.element(tbs)[1])
        return der_form.packed(0x30, b"".join([*parts[:7], b"\x81\x02\0\x55", *parts[7:]]))

    with showing(tmp_path, rewritten(pki.broker, pki.ca, change), pki.broker) as port:
        word = doctor(port, ca=pki.ca).names(33, "chain", "-9570")
        assert word.rows == [33]


def test_row_14_the_expired_one_of_two_cross_signs(pki):
    old = forge(pki, "cross old", "", basic=(True, 2), key_usage="key_cert_sign crl_sign")
    new = forge(pki, "cross new", "", basic=(True, 2), key_usage="key_cert_sign crl_sign")
    options = {"basic": (True, 1), "key_usage": "key_cert_sign crl_sign"}
    between = forge(pki, "cross between", "", issuer=new, **options)
    key_usage = made.key_usage("key_cert_sign crl_sign")
    extensions = [(x509.BasicConstraints(True, 1), True), (key_usage, True)]
    expired = made.Identity(
        pki.directory,
        "cross expired",
        made.signed("cross between", between.key, old, extensions, valid_to=made.days(-3)),
        between.key,
        old,
    )
    leaf = forge(pki, "cross leaf", issuer=between)

    def shown(*chain):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.bundle(leaf, *chain), leaf.key_pem)
        return tls_server(context)

    with shown(expired) as port:
        word = doctor(port, ca=new).names(14, "dates", "cross between", "itself on the board")
        assert word.rows == [14], "not the CA above it, which is of no use any more"
        assert doctor(port, ca=between).problems == [], "the cure cures"
    with shown(between) as port:
        assert doctor(port, ca=new).problems == [], "the other cure cures, too"


# Files


def written(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


with_sed = pytest.mark.skipif(
    not (shutil.which("sed") and shutil.which("base64")), reason="no sed, or no base64"
)


def wrapped(data):
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return b"-----BEGIN CERTIFICATE-----\r\n" + body + b"-----END CERTIFICATE-----\r\n"


@with_sed
@pytest.mark.parametrize("what", ["PFX", "P7B", "private key", "PEM once more"])
def test_row_46_anything_between_the_lines_of_a_certificate(tmp_path, pki, what):
    """`certutil -encode` of Windows writes these lines round any file."""
    device, none = pki.device, serialization.NoEncryption()
    data = {
        "PFX": pkcs12.serialize_key_and_certificates(
            b"d", device.key, device.certificate, None, none
        ),
        "P7B": pkcs7.serialize_certificates([pki.ca.certificate], DER),
        "private key": Path(device.key_der).read_bytes(),
        "PEM once more": pki.ca.certificate.public_bytes(PEM),
    }[what]
    path = written(tmp_path, "encoded.cer", wrapped(data))
    if what == "private key":
        word = files("--ca", pki.ca.cert_der, "--cert", device.cert_der, "--key", path)
    else:
        word = files("--ca", path)
    word.names(46, "files", what, "certutil", "base64 -d")
    cured(word, tmp_path)
    endings = {"PFX": ".p12", "P7B": ".p7b", "private key": ".der", "PEM once more": ".pem"}
    assert (tmp_path / f"encoded{endings[what]}").read_bytes() == data


@with_sed
@pytest.mark.parametrize("around", [b"", b"apiVersion: v1\nkind: Secret\ndata:\n  ca.crt: "])
def test_row_46_pem_in_base64_once_more(tmp_path, pki, around):
    packed = base64.b64encode(pki.ca.certificate.public_bytes(PEM))
    path = written(tmp_path, "secret.yaml", around + packed + b"\n")
    word = files("--ca", path).names(46, "files", "base64 once more", "Kubernetes")
    cured(word, tmp_path)
    assert files("--ca", tmp_path / "secret.pem").problems == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("\u2013\u2013\u2013\u2013\u2013BEGIN CERTIFICATE\u2013\u2013", "not as it must be"),
        ("----BEGIN CERTIFICATE----\nMIIB\n----END CERTIFICATE----\n", "five hyphens"),
        ("----- BEGIN CERTIFICATE -----\nMIIB\n", "five hyphens"),
        ("-----Begin Certificate-----\nMIIB\n", "five hyphens"),
        ("Certificate:\n    Data:\n        Version: 3 (0x2)\n", "what openssl tells"),
        ("[InternetShortcut]\r\nURL=https://x\r\n", "link of Windows"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "Git LFS"),
        ("$ANSIBLE_VAULT;1.1;AES256\n3030\n", "ansible-vault decrypt"),
        ("Dear customer,\nyour certificate is attached.\n", "text, neither"),
        ("%PDF-1.4\n", "a PDF"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(50), "7-Zip"),
        (b"a" + bytes(256) + b"ustar\x0000" + bytes(300), "tar"),
        (b"\xce\xce\xce\xce" + bytes(50), "keytool -importkeystore -srckeystore"),
        ("X509-Zertifikat:\r\n".encode("utf-16"), "give the certificate's own file"),
    ],
)
def test_row_46_what_strangers_send(tmp_path, data, words):
    path = written(tmp_path, "sent.crt", data if isinstance(data, bytes) else data.encode())
    files("--ca", path).names(46, "files", words)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("\n", "<br>\n"), "< >"),
        (lambda text: "".join(f"{n}: {line}\n" for n, line in enumerate(text.split("\n"))), ":"),
        (lambda text: text.replace("+", "-").replace("/", "_") + "", "_"),
        (lambda text: text[:200] + "\x1b[31m" + text[200:], r"\x1b ["),
    ],
)
def test_what_stands_in_a_damaged_block_is_named(tmp_path, pki, damage, words):
    text = pki.ca.certificate.public_bytes(PEM).decode()
    text = text.replace("\nM", "\n+_/M", 1) if "_" in words else text
    path = written(tmp_path, "damaged.pem", damage(text).encode())
    word = files("--ca", path)
    assert word.first["stage"] == "files" and "between its lines" in word.first["fact"], word
    assert words in word.first["fact"] and "\x1b" not in word.first["fact"]


@with_sed
def test_row_46_the_string_of_a_program(tmp_path, pki):
    lines = pki.ca.certificate.public_bytes(PEM).decode().splitlines()
    path = written(tmp_path, "ca.h", "".join(f'"{each}\\n" \\\n' for each in lines).encode())
    word = files("--ca", path).names(46, "files", "written out")
    cured(word, tmp_path)
    assert files("--ca", tmp_path / "ca.unpacked.pem").problems == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="no program openssl")
@pytest.mark.parametrize("behind", [b"\n", b"\r\n", bytes(7), b"hello"])
def test_what_stands_behind_a_certificate_in_der_is_told(tmp_path, pki, behind):
    path = written(tmp_path, "ca.der", Path(pki.ca.cert_der).read_bytes() + behind)
    assert "ValueError" in on_a_board(path), "a board takes it for a damaged one"
    word = files("--ca", path)
    fact = word.first["fact"]
    assert f"{len(behind)} byte" in fact and "behind its certificate" in fact, word
    cured(word, tmp_path)
    assert files("--ca", tmp_path / "ca.clean.der").problems == []
    key = written(tmp_path, "key.der", Path(pki.device.key_der).read_bytes() + behind)
    word = files("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", key)
    assert word.problems == [], "of a key a board reads no further than it goes"
    assert on_a_board(pki.ca.cert_der, pki.device.cert_der, key) == ""


def test_a_public_key_in_der_is_no_encrypted_one(tmp_path, pki):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path = written(tmp_path, "key.der", pki.device.key.public_key().public_bytes(DER, form))
    word = files("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", path)
    word.names(46, "files", "a public key")


def test_row_27_the_key_behind_another_one(tmp_path, pki):
    parts = pki.device.cert_pem, pki.broker.key_pem, pki.device.key_pem
    path = written(tmp_path, "all.pem", b"".join(Path(each).read_bytes() for each in parts))
    assert "not the key of" in on_a_board(pki.ca.cert_der, path, path)
    word = files("--ca", pki.ca.cert_der, "--cert", path, "--key", path)
    word.names(27, "client certificate", "several keys", "first key", "alone")
    path.write_bytes(b"".join(Path(parts[n]).read_bytes() for n in (0, 2, 1)))
    assert files("--ca", pki.ca.cert_der, "--cert", path, "--key", path).problems == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="no program openssl")
@pytest.mark.parametrize("kind", ["pfx", "p7b"])
def test_a_cure_never_writes_over_the_file_it_reads(tmp_path, pki, kind):
    device = pki.device
    if kind == "pfx":
        lock = serialization.BestAvailableEncryption(b"x")
        data = pkcs12.serialize_key_and_certificates(
            b"d", device.key, device.certificate, None, lock
        )
    else:
        data = pkcs7.serialize_certificates([pki.ca.certificate], DER)
    path = written(tmp_path, "only-copy.pem", data)
    word = files("--ca", path)
    line = word.first["cure"].partition(": ")[2] + (" -passin pass:x" if kind == "pfx" else "")
    subprocess.run(line, shell=True, check=True, capture_output=True, cwd=tmp_path)
    assert path.read_bytes() == data
    made_of_it = tmp_path / "only-copy.new.pem"
    if kind == "pfx":
        word = files("--ca", pki.ca.cert_der, "--cert", made_of_it, "--key", made_of_it)
        assert word.problems == []
    else:
        assert files("--ca", made_of_it).problems == []


# The configuration


@pytest.fixture
def conf(tmp_path, pki):
    """A function that writes a mosquitto.conf with one TLS listener; `port` is taken by it."""

    def write(*lines, listener=None):
        path = tmp_path / "mosquitto.conf"
        own = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"
        first = ("user root", "allow_anonymous true", listener or f"listener {free_port()}")
        path.write_text("\n".join((*first, *own, *lines, "")))
        return path

    return write


def starts(path):
    """Tell whether mosquitto starts with the configuration `path`."""
    text = path.read_text()
    path.write_text(text if os.geteuid() == 0 else text.replace("user root\n", ""))
    with subprocess.Popen(
        [mosquitto(), "-c", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        try:
            for line in child.stdout:
                if line.rstrip().endswith(b" running"):
                    return True
        finally:
            child.terminate()
    return False


@functools.cache
def is_2_0():
    """Tell whether mosquitto is one of before 2.1."""
    said = subprocess.run([mosquitto(), "-h"], capture_output=True, text=True, timeout=60).stdout
    return said.startswith("mosquitto version 2.0")


@pytest.mark.parametrize(
    ("make", "row", "words"),
    [
        (lambda conf, pki: conf(listener="listener 18831 203.0.113.9"), 2, "does not have"),
        (lambda conf, pki: conf("bind_interface nothing9"), 2, "bind_interface nothing9"),
        (lambda conf, pki: conf(f"dhparamfile {pki.ca.cert_pem}"), 39, "no DH parameters"),
    ],
)
def test_what_mosquitto_cannot_listen_with(conf, pki, make, row, words):
    path = make(conf, pki)
    word = files("--conf", path)
    found = [each for each in word.problems if each["row"] == row]
    assert found and words in found[0]["fact"], word
    assert found[0]["cause"] and found[0]["cure"]
    if "mosquitto 2.0" not in found[0]["cause"] or is_2_0():
        assert not starts(path)


def test_two_listeners_on_one_port(conf):
    path = conf()
    line = next(each for each in path.read_text().splitlines() if each.startswith("listener"))
    path.write_text(path.read_text() + line + "\n")
    word = files("--conf", path).names(2, "configuration", "twice", "drop one")
    assert word.rows == [2]


def test_a_listener_for_ipv6_only(conf):
    files("--conf", conf(listener="listener 18832 ::")).names(2, "configuration", "IPv6", "IPv4")


def test_a_capath_without_hashes(conf, pki, tmp_path):
    folder = tmp_path / "cas"
    folder.mkdir()
    shutil.copy(pki.ca.cert_pem, folder / "ca.pem")
    path = conf(f"capath {folder}", "require_certificate true")
    word = files("--conf", path).names(25, "configuration", "hash", "openssl rehash")
    if shutil.which("openssl"):
        subprocess.run(word.first["cure"], shell=True, check=True, capture_output=True)
        assert files("--conf", path).problems == []


def test_a_certfile_with_the_root_first_has_that_wrong_and_nothing_else(conf, pki, tmp_path):
    path = tmp_path / "chain.pem"
    path.write_bytes(b"".join(Path(each.cert_pem).read_bytes() for each in (pki.ca, pki.broker)))
    text = conf().read_text().replace(pki.broker.cert_pem, str(path))
    (tmp_path / "mosquitto.conf").write_text(text)
    word = files("--conf", tmp_path / "mosquitto.conf")
    word.names(39, "configuration", "begins with the CA", "first")
    assert word.rows == [39], "its key is right, and its own certificate, too"


def test_a_password_file_without_users(conf, tmp_path):
    for text in ("", "# nobody yet\n", "u\n"):
        (tmp_path / "passwords").write_text(text)
        word = files("--conf", conf(f"password_file {tmp_path}/passwords"))
        found = [each for each in word.problems if "passwords" in each["fact"]]
        assert found and found[0]["cure"], word


def starts_not_with(words):
    """Tell whether mosquitto does not even start with such a password file, as 2.1 has it."""
    return words in ("does not know", "not hashed") and not is_2_0()


@pytest.mark.parametrize(
    ("change", "words", "lets_in"),
    [
        (lambda good: good, "", True),
        (lambda good: good.replace("\n", "\r\n"), "", True),
        (lambda good: "# ours\n" + good, "", True),
        (lambda good: "u:$apr1$abc$def\n", "does not know", False),
        (lambda good: "u:$5$salt$abc\n", "does not know", False),
        (lambda good: "u:right\n", "not hashed", False),
        (lambda good: "\ufeff" + good, "byte order mark", False),
    ],
)
def test_what_mosquitto_does_with_a_password_file(tmp_path, pki, change, words, lets_in):
    with Broker(tmp_path / "b", "tcp", pki=pki, users={"u": "right"}) as broker:
        text = broker.configuration()
        path = Path(text.partition("password_file ")[2].split()[0])
        broker.stop()
        path.write_bytes(change(path.read_text()).encode())
        broker.configuration = lambda: text
        login = ()
        if not starts_not_with(words):
            broker.start()
            secret = tmp_path / "secret"
            write_secret(secret, "right\n")
            login = ("--user", "u", "--password-file", secret)
            word = plain(broker.port, *login, "--conf", conf_of(broker))
            assert word.attempt["ok"] == lets_in, word
        else:
            with pytest.raises(RuntimeError, match="decode line in password file"):
                broker.start()
            word = plain(broker.port, "--conf", conf_of(broker))
            assert "2.1" in [each for each in word.problems if each["row"] == 36][0]["cause"]
    found = [each for each in word.problems if each["row"] == 36]
    assert bool(found) != lets_in, word
    assert all(words in each["fact"] and "mosquitto_passwd" in each["cure"] for each in found)


def test_passwords_of_mosquitto_2_1(conf, tmp_path):
    (tmp_path / "passwords").write_text("u:$argon2id$v=19$m=47104,t=1,p=1$aaaa$bbbb\n")
    word = files("--conf", conf(f"password_file {tmp_path}/passwords"))
    assert word.problems == [] and "2.1" in word.remarks[36]["fact"]


def test_a_configuration_in_utf_16(conf):
    path = conf()
    path.write_bytes(path.read_text().encode("utf-16"))
    word = files("--conf", path)
    word.names(57, "configuration", "UTF-16", "iconv")
    assert word.rows.count(57) == 1, "once, and not for each line"


def test_nothing_of_the_library_is_printed_about_others_serial_numbers(tmp_path):
    key = made.new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a root of 2004")])
    above = x509.AuthorityKeyIdentifier(None, [x509.DirectoryName(name)], 0)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(9)
    builder = builder.not_valid_before(made.EPOCH).not_valid_after(made.days(99))
    builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    root = builder.add_extension(above, False).sign(key, hashes.SHA256())
    zero = written(tmp_path, "zero.der", root.public_bytes(DER))
    program = "import sys; from tools.mqttls.cli import main; sys.exit(main())"
    line = [sys.executable, "-c", program, "doctor", "--ca", zero]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert "nothing wrong in these files" in done.stdout
    assert done.stderr == ""


# The words of other brokers, and of other clients


def test_the_log_of_another_broker_is_evidence(tmp_path):
    log = tmp_path / "emqx.log"
    log.write_text(
        "2026-11-30T10:00:00 [error] supervisor: esockd, reason: {tls_alert,{unknown_ca,\"TLS "
        "server: In state certify at ssl_handshake.erl:2113 generated SERVER ALERT: Fatal - "
        "Unknown CA\\n\"}}\n"
    )  # fmt: skip
    doctor(None, "--log", log).names(25, "client certificate", "Unknown CA", "cafile")


# What comes next


def test_with_files_of_one_s_own_the_next_command_has_them_too(tmp_path, pki):
    lines = ["use_username_as_clientid true"]
    with Broker(tmp_path / "b", "mtls", pki=pki, identity_as_user=True, lines=lines) as broker:
        given = ("--conf", conf_of(broker))
        word = doctor(broker.port, *given, ca=pki.ca, device=pki.device)
        (line,) = word.json["next"]
        for each in (pki.ca.cert_der, pki.device.cert_der, pki.device.key_der, "--as-device"):
            assert each in line, line
        words = shlex.split(line)
        assert mqttls(*words[words.index("doctor") :])["attempt"]["ok"], "it is one that works"


# Devices' certificates, and clocks


def test_row_25_an_expired_ca_that_the_device_sends_along(tmp_path, pki):
    options = {"basic": (True, 0), "key_usage": "key_cert_sign crl_sign"}
    old = forge(pki, "along old", "", issuer=pki.ca, valid_to=made.days(-1), **options)
    device = forge(pki, "below old", "client", issuer=old)
    chain = pki.bundle(device, old)
    given = ("--cert", chain, "--key", device.key_der)
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        for more in ((), ("--conf", conf_of(broker))):
            word = doctor(broker.port, *given, *more, ca=pki.ca)
            word.names(25, "client certificate", "along old", "expired", "the one that replaced")
            assert word.attempt["ok"] is False


def test_row_25_the_configuration_says_first_why_clients_are_refused(tmp_path, pki):
    lines = ["listener 18833", "allow_anonymous true", "require_certificate true"]
    own = [f"certfile {pki.broker.chain_pem}", f"keyfile {pki.broker.key_pem}"]
    with Broker(tmp_path / "b", "mtls", pki=pki, client_ca=pki.other_ca) as broker:
        path = tmp_path / "mosquitto.conf"
        lines[0] = f"listener {broker.port}"
        path.write_text("\n".join((*lines, *own, "")))
        word = doctor(broker.port, "--conf", path, ca=pki.ca, device=pki.device)
        word.names(25, "configuration", "require_certificate without cafile", "cafile with")


@pytest.mark.parametrize("kind", ["DER", "a certificate", "damaged"])
def test_row_26_a_crlfile_that_is_none_has_not_expired(conf, pki, tmp_path, kind):
    path = revocations(pki.ca, tmp_path / "crl.pem")
    if kind == "DER":
        crl = x509.load_pem_x509_crl(path.read_bytes())
        path.write_bytes(crl.public_bytes(DER))
    elif kind == "damaged":
        path.write_text("-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n")
    else:
        path.write_bytes(Path(pki.ca.cert_pem).read_bytes())
    made_so = conf(f"crlfile {path}", f"cafile {pki.ca.cert_pem}", "require_certificate true")
    word = files("--conf", made_so).names(26, "configuration", "does not start")
    assert "expired" not in word.first["cause"]
    assert not starts(made_so)


def test_row_13_the_clock_of_this_pc(tmp_path, pki):
    late = forge(pki, "broker of late", issuer=pki.ca, valid_from=made.days(-30))
    try:
        clock = faketime.Clock(tmp_path, "2021-01-02")
    except faketime.Unavailable as reason:
        pytest.skip(str(reason))
    program = "import sys; from tools.mqttls.cli import main; sys.exit(main())"
    with tls_server(server_context(late)) as port:
        line = [sys.executable, "-c", program, "doctor", f"{HOST}:{port}", "--ca", pki.ca.cert_der]
        environment = {**os.environ, **clock.environment}
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment)
        assert "this PC's clock is wrong" in done.stdout, done
        assert "the PC that issued it" not in done.stdout
        assert doctor(port, ca=pki.ca).problems == []
