"""The doctor and what others made: their files, authorities, ports and configurations."""

import contextlib
import datetime
import itertools
import os
import shlex
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from hypothesis import given
from hypothesis import strategies as st

from tests.support import pki as made
from tests.support.broker import Broker, mosquitto
from tests.support.doctoring import (
    bare,
    conf_of,
    doctor,
    explained,
    forge,
    log_of,
    server_context,
    tls_server,
)
from tests.support.server import server
from tools.mqttls.cli import main
from tools.mqttls.doctor import error_text, file_kinds, mbedtls
from tools.mqttls.micropython import interpreter
from tools.ports import free_port

NUMBERS = itertools.count()

pytestmark = pytest.mark.usefixtures("micropython")

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER

with_openssl = pytest.mark.skipif(
    not shutil.which("openssl"), reason="the program openssl is not installed"
)


def openssl(*words, cwd=None):
    return subprocess.run(
        ["openssl", *map(str, words)], check=True, capture_output=True, cwd=cwd, timeout=60
    ).stdout


def files(*arguments):
    return doctor(None, *arguments)


def cured(word, folder, *more):
    """Run the command that the first problem's cure names (str), in `folder`."""
    line = word.first["cure"].partition(": ")[2]
    done = subprocess.run(
        f"{line} {' '.join(more)}", shell=True, cwd=folder, capture_output=True, timeout=60
    )
    assert done.returncode == 0, (line, done.stderr)


# Files of another kind


@pytest.fixture
def device_files(pki):
    return "--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", pki.device.key_der


@with_openssl
@pytest.mark.parametrize("old", [False, True])
def test_row_46_a_pfx_and_the_command_that_opens_it(tmp_path, pki, old):
    path = tmp_path / "my device.pfx"
    lock = serialization.BestAvailableEncryption(b"x")
    if old:
        lock = (
            serialization.PrivateFormat.PKCS12.encryption_builder()
            .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .hmac_hash(hashes.SHA1())
            .build(b"x")
        )
    data = pkcs12.serialize_key_and_certificates(
        b"d", pki.device.key, pki.device.certificate, [pki.ca.certificate], lock
    )
    path.write_bytes(data)
    word = files("--ca", pki.ca.cert_der, "--cert", path, "--key", path)
    word.names(46, "files", "PFX", "openssl pkcs12", "-nodes", *(["-legacy"] if old else []))
    assert word.rows == [46], "once, not for the certificate and for the key"
    cured(word, tmp_path, "-passin pass:x")
    made_of_it = tmp_path / "my device.pem"
    assert files("--ca", pki.ca.cert_der, "--cert", made_of_it, "--key", made_of_it).rows == []


@with_openssl
@pytest.mark.parametrize("form", [PEM, DER])
def test_row_46_a_p7b_and_the_command_that_opens_it(tmp_path, pki, form):
    path = tmp_path / "ca.p7b"
    path.write_bytes(pkcs7.serialize_certificates([pki.ca.certificate], form))
    word = files("--ca", path).names(46, "files", "PKCS#7", "-print_certs")
    cured(word, tmp_path)
    assert files("--ca", tmp_path / "ca.pem").problems == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_row_46_text_in_utf_16_and_the_command_that_converts_it(tmp_path, pki, encoding):
    path = tmp_path / "ca.crt"
    path.write_bytes(pki.ca.certificate.public_bytes(PEM).decode().encode(encoding))
    word = files("--ca", path).names(46, "files", "UTF-16", "iconv")
    if encoding == "utf-16" and shutil.which("iconv"):
        cured(word, tmp_path)
        assert files("--ca", tmp_path / "ca.utf8.crt").problems == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"certificatePem": "-"}', "JSON"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me", "SSH"),
        (b"PK\x03\x04" + bytes(50), "ZIP"),
        (b"\xfe\xed\xfe\xed" + bytes(50), "Java"),
        (b"https://letsencrypt.org/certs/isrgrootx1.pem", "address"),
        (b"base64", "base64 without"),
        (b"request", "signing request"),
        (b"public", "public key"),
        (b"openssh", "OpenSSH"),
    ],
)
def test_row_46_what_else_people_give(tmp_path, pki, data, words):
    key = pki.device.key
    if data == b"base64":
        data = b"".join(pki.ca.certificate.public_bytes(PEM).split(b"\n")[1:-2])
    elif data == b"request":
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "d")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        data = builder.sign(key, hashes.SHA256()).public_bytes(PEM)
    elif data == b"public":
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        data = key.public_key().public_bytes(PEM, form)
    elif data == b"openssh":
        form = serialization.PrivateFormat.OpenSSH
        data = key.private_bytes(PEM, form, serialization.NoEncryption())
    path = tmp_path / "given"
    path.write_bytes(data)
    files("--ca", path).names(46, "files", words)
    word = files("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", path)
    assert 46 in word.rows, word


@pytest.mark.parametrize("form", ["written out", "hexadecimal"])
def test_row_46_what_was_pasted_and_the_command_that_mends_it(tmp_path, pki, form):
    path = tmp_path / "pasted.txt"
    if form == "hexadecimal":
        path.write_text(Path(pki.ca.cert_der).read_bytes().hex("\n", 32))
    else:
        path.write_text(Path(pki.ca.cert_pem).read_text().replace("\n", "\\n"))
    word = files("--ca", path).names(46, "files", form)
    made_of_it = tmp_path / ("pasted.der" if form == "hexadecimal" else "pasted.unpacked.pem")
    if shutil.which("xxd" if form == "hexadecimal" else "sed"):
        cured(word, tmp_path)
        assert files("--ca", made_of_it).problems == []


def test_a_file_whose_last_block_has_no_end_is_damaged(tmp_path, pki):
    path = tmp_path / "cut.pem"
    path.write_text(Path(pki.ca.cert_pem).read_text() + "-----BEGIN CERTIFICATE-----\nMIIB")
    word = files("--ca", path)
    assert "its last block has no END" in word.first["fact"]
    assert word.first["stage"] == "files" and "whole" in word.first["cure"]


def test_an_unreadable_certificate_is_not_told_as_one_that_nobody_wants(tmp_path, pki):
    path = tmp_path / "device.csr"
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "d")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    path.write_bytes(builder.sign(pki.device.key, hashes.SHA256()).public_bytes(PEM))
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        word = doctor(broker.port, "--cert", path, "--key", pki.device.key_der, ca=pki.ca).names(
            46, "files", "signing request"
        )
    assert word.rows == [46], "the attempt, which the file stops, says no more"
    stage = word.json["stages"]["client certificate"]
    assert stage["state"] == "failed"
    assert "asks for one" in stage["detail"]


# Kinds of keys


def test_row_47_an_ed25519_key_of_the_device(tmp_path, pki):
    ed = forge(pki, "device ed", "client", issuer=pki.ca, key="ed25519")
    word = files("--ca", pki.ca.cert_der, "--cert", ed.cert_der, "--key", ed.key_der)
    word.names(47, "files", "Ed25519", "device's key", "prime256v1")
    assert word.rows == [47], word


@pytest.fixture(scope="module")
def odd(tmp_path_factory, pki):
    """A function that returns the paths (certificate, key) of an odd kind, from the CA of pki."""
    folder = tmp_path_factory.mktemp("odd")
    curve = ("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    kinds = {
        "explicit": (*curve, "-param_enc", "explicit"),
        "compressed": curve,
        "pss": ("genpkey", "-algorithm", "rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"),
    }

    def of(kind):
        key, request, cert = (folder / f"{kind}.{end}" for end in ("key", "csr", "crt"))
        if not cert.exists():
            openssl(*kinds[kind], "-out", key)
            if kind == "compressed":
                openssl("ec", "-in", key, "-conv_form", "compressed", "-out", key)
            openssl("req", "-new", "-key", key, "-subj", "/CN=odd", "-out", request)
            (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            sign = ("-CA", pki.ca.cert_pem, "-CAkey", pki.ca.key_pem, "-set_serial", "7")
            more = ("-days", "99", "-sha256", "-extfile", folder / "ext", "-out", cert)
            openssl("x509", "-req", "-in", request, *sign, *more)
        return cert, key

    return of


@with_openssl
@pytest.mark.parametrize(("kind", "words"), [("explicit", "explicit"), ("pss", "RSA-PSS")])
def test_row_47_a_device_s_key_of_an_odd_form(pki, odd, kind, words):
    cert, key = odd(kind)
    word = files("--ca", pki.ca.cert_der, "--cert", cert, "--key", key)
    word.names(47, "files", words, "prime256v1")
    assert word.rows == [47], word


@with_openssl
@pytest.mark.parametrize("kind", ["explicit", "compressed"])
def test_row_48_a_broker_s_key_of_an_odd_form(pki, odd, kind):
    cert, key = odd(kind)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with tls_server(context) as port:
        word = doctor(port, ca=pki.ca, host="localhost")
        if word.attempt and word.attempt["ok"]:  # a newer OpenSSL sends it to whoever asks
            assert kind == "compressed", word
            assert "connected all the same" in word.remarks[48]["fact"]
            return
        word.names(48, "TLS", kind, "prime256v1")
        assert 11 not in word.rows
        assert explained(bare(port, pki.ca.cert_der))


# Ciphers


@pytest.mark.parametrize(
    ("kind", "ciphers"),
    [("p256", "ECDHE-RSA-AES128-GCM-SHA256"), ("rsa2048", "ECDHE-ECDSA-AES128-GCM-SHA256")],
)
def test_row_49_ciphers_without_one_for_this_kind_of_key(tmp_path, pki, kind, ciphers):
    identity = pki.broker_rsa if kind == "rsa2048" else pki.broker
    fits = ciphers.replace("RSA", "*").replace("ECDSA", "RSA").replace("*", "ECDSA")
    if kind == "rsa2048":
        fits = "ECDHE-RSA-AES128-GCM-SHA256"
    more = {"pki": pki, "identity": identity}
    with Broker(tmp_path / "b", "tls", lines=[f"ciphers {ciphers}"], **more) as broker:
        doctor(broker.port, ca=pki.ca).names(49, "TLS", "its key is", fits)
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca)
        assert set(word.rows) == {49}, word
        doctor(None, "--conf", conf_of(broker)).names(49, "configuration", fits)
        assert explained(bare(broker.port, pki.ca.cert_der))
    with Broker(tmp_path / "c", "tls", lines=[f"ciphers {ciphers}:{fits}"], **more) as broker:
        assert doctor(broker.port, ca=pki.ca).problems == []


def test_row_49_without_tls_1_3_both_causes_are_named(pki):
    context = server_context(pki.broker)
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with tls_server(context) as port:
        word = doctor(port, ca=pki.ca).names(49, "TLS", "ciphers", "digitalSignature")
        assert word.rows == [49]


# Ports of other protocols behind TLS


def test_row_50_a_web_server_behind_tls(pki):
    answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
    with tls_server(server_context(pki.broker), answer) as port:
        word = doctor(port, ca=pki.ca).names(50, "TLS", "HTTP/1.1 400", "WebSocket", "8883")
        assert word.rows == [50]
        assert "0x48" in word.attempt["text"]
        assert "web server or a WebSocket" in word.attempt["cause"]


def alpn_server(pki, protocol):
    """A server that closes unless `protocol` of ALPN was asked for."""
    context = server_context(pki.broker)
    context.set_alpn_protocols([protocol])

    def handle(connection):
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(connection, server_side=True) as sock,
        ):
            if sock.selected_alpn_protocol() and sock.recv(1000):
                sock.sendall(b"\x20\x02\0\0")

    return server(handle)


def test_row_51_a_port_that_wants_alpn(pki):
    with alpn_server(pki, "x-amzn-mqtt-ca") as port:
        word = doctor(port, ca=pki.ca).names(51, "TLS", "ALPN", "x-amzn-mqtt-ca", "8883")
        assert word.rows == [51]
        assert "ALPN" in word.attempt["cure"]


def test_a_broker_that_hangs_up_and_knows_alpn_is_not_accused_of_it(pki):
    context = server_context(pki.broker)
    context.set_alpn_protocols(["mqtt"])
    with tls_server(context, b"") as port:
        doctor(port, ca=pki.ca).names(38, "CONNACK", "policy")


# The client's certificate


def without_a_name(pki):
    """A device's certificate whose subject has an organisation, and no CN, as mkcert's."""
    if "nameless" not in pki.__dict__:
        key = made.new_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "a development")])
        now = made.days(0)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(pki.ca.certificate.subject)
            .public_key(key.public_key())
            .serial_number(9)
            .not_valid_before(now - datetime.timedelta(1))
            .not_valid_after(now + datetime.timedelta(99))
            .add_extension(x509.ExtendedKeyUsage([made.USES["client"]]), False)
            .sign(pki.ca.key, hashes.SHA256())
        )
        identity = made.Identity(pki.directory, "nameless", certificate, key, pki.ca)
        pki.__dict__["nameless"] = identity
    return pki.__dict__["nameless"]


def test_row_52_a_client_certificate_without_a_common_name(tmp_path, pki):
    device = without_a_name(pki)
    with Broker(tmp_path / "b", "mtls", pki=pki, identity_as_user=True) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=device)
        word.names(52, "client certificate", "no CN", "a development", "CN")
        assert word.rows == [52]
        word = doctor(broker.port, ca=pki.ca, device=device)
        word.names(52, "client certificate", "no CN")
    with Broker(tmp_path / "c", "mtls", pki=pki) as broker:
        assert doctor(broker.port, ca=pki.ca, device=device).problems == []


def test_row_53_a_cafile_with_the_issuing_ca_only(tmp_path, pki):
    device = pki.issue("below", "client", issuer=pki.intermediate_ca)
    with Broker(tmp_path / "b", "mtls", pki=pki, client_ca=pki.intermediate_ca) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=device)
        word.names(53, "client certificate", "intermediate ca", "cafile", "certificate of ca ")
        assert set(word.rows) == {53}, word
        doctor(None, "--conf", conf_of(broker)).names(53, "configuration", "certificate of ca ")
        word = doctor(broker.port, ca=pki.ca, device=device)
        word.names(25, "client certificate", "the root above it", "--conf")
        both = pki.bundle(pki.intermediate_ca, pki.ca)
        text = broker.configuration().replace(pki.intermediate_ca.cert_pem, both)
        broker.stop()
        broker.configuration = lambda: text
        broker.start()
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=device)
        assert word.problems == [], "the cure cures"


# The board's CA


def test_row_54_the_ca_that_the_board_holds_has_expired(tmp_path, pki):
    old = forge(
        pki,
        "old ca",
        "",
        basic=(True, 0),
        key_usage="key_cert_sign crl_sign",
        valid_to=made.days(-2),
    )
    below = forge(pki, "broker of old ca", issuer=old)
    with Broker(tmp_path / "b", "tls", pki=pki, identity=below) as broker:
        word = doctor(broker.port, ca=old).names(54, "dates", "old ca", "expired", "board")
        assert word.rows == [54]
        assert "expired" in explained(bare(broker.port, old.cert_der))
    files("--ca", old.cert_der).names(54, "dates", "old ca")
    word = files("--ca", old.cert_der, "--ca", pki.ca.cert_der)
    assert word.problems == []
    assert "1 have expired" in word.remarks[54]["fact"]


def cross_signed(pki, old, until):
    """The CA of pki, signed by another, `old`, until a date."""
    key_usage = made.key_usage("key_cert_sign crl_sign")
    extensions = [(x509.BasicConstraints(True, 1), True), (key_usage, True)]
    certificate = made.signed("ca", pki.ca.key, old, extensions, valid_to=until)
    return made.Identity(pki.directory, f"cross {until:%y}", certificate, pki.ca.key, old)


def test_row_54_the_old_root_of_a_cross_sign(tmp_path, pki):
    old = forge(
        pki, "DST Root", "", basic=(True, 2), key_usage="key_cert_sign", valid_to=made.days(-9)
    )
    cross = cross_signed(pki, old, made.days(-3))
    chain = pki.bundle(pki.broker, cross)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, pki.broker.key_pem)
    with tls_server(context) as port:
        word = doctor(port, ca=old).names(54, "dates", "DST Root", "put the CA ca on the board")
        assert word.rows == [54], word
        word = doctor(port, ca=pki.ca)
        assert word.problems == [], "a cross-sign that is merely sent along does no harm"
        assert word.json["stages"]["dates"]["detail"] > "until 2030"


def test_row_55_a_file_with_the_root_first(tmp_path, pki):
    path = tmp_path / "all.pem"
    parts = pki.bundle(pki.ca, pki.device), pki.device.key_pem
    path.write_bytes(b"".join(Path(each).read_bytes() for each in parts))
    word = files("--ca", pki.ca.cert_der, "--cert", path, "--key", path)
    assert word.problems == [], "mqtt_as_tls takes the one of the key"
    fact = word.remarks[55]["fact"]
    assert "the first certificate" in fact and "is ca; the key belongs to device" in fact
    assert "first" in word.remarks[55]["cure"]


def test_row_56_the_broker_s_own_certificate_given_as_the_ca(tmp_path, pki):
    files("--ca", pki.broker.cert_der).names(56, "files", "broker", "the CA ca")
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        doctor(broker.port, ca=pki.broker).names(56, "chain", "itself is given", "the CA ca")
        doctor(broker.port, ca=pki.device).names(56, "chain", "device", "the CA ca")


def test_row_65_a_chain_in_a_wrong_order(pki):
    root = pki.issue("order root", "ca", path_length=2)
    upper = pki.issue("order upper", "ca", issuer=root, path_length=1)
    lower = pki.issue("order lower", "ca", issuer=upper)
    leaf = pki.issue("order leaf", issuer=lower)

    def shown(*chain):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.bundle(*chain), leaf.key_pem)
        return tls_server(context)

    with shown(leaf, upper, lower) as port:
        doctor(port, ca=root).names(65, "chain", "order leaf < order upper < order lower")
        assert "not from the CA" in explained(bare(port, root.cert_der))
    with shown(leaf, lower, upper) as port:
        assert doctor(port, ca=root).problems == []


def test_a_bundle_of_150_cas_is_read_whole(tmp_path, pki):
    path = tmp_path / "bundle.pem"
    some = pki.other_ca.certificate.public_bytes(PEM)
    path.write_bytes(some * 150 + pki.ca.certificate.public_bytes(PEM))
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        word = doctor(broker.port, "--ca", path)
        assert word.problems == []
        assert 17 not in word.remarks
        assert "151 certificates" in word.remarks[34]["fact"]
        assert "one root" in word.remarks[34]["cure"]


def test_extensions_that_nobody_can_read(tmp_path, pki):
    oid = x509.ObjectIdentifier
    junk = x509.UnrecognizedExtension(
        oid("1.3.6.1.5.5.7.1.1"), b"\x30\x03\xff\xff\xff"
    )  # where its CA is
    harmless = forge(pki, "broker junk", issuer=pki.ca, more=[(junk, False)])
    with Broker(tmp_path / "b", "tls", pki=pki, identity=harmless) as broker:
        assert doctor(broker.port, ca=pki.ca).problems == []
        assert doctor(None, "--conf", conf_of(broker)).problems == []


CONSTRAINED = x509.NameConstraints([x509.DNSName("localhost")], None)
POLICY = x509.CertificatePolicies(
    [x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), None)]
)
JUNK = x509.UnrecognizedExtension(x509.CertificatePolicies.oid, b"\x30\x03\xff\xff\xff")
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\0")
YEAR_2060 = datetime.datetime(2060, 1, 1, tzinfo=datetime.timezone.utc)
CERT_SIGN = "key_cert_sign crl_sign"


@pytest.mark.parametrize(
    ("root", "between", "leaf", "row"),
    [
        ({}, None, {}, None),
        ({"key": "p521"}, None, {"key": "p384"}, None),
        ({"key": "rsa1024"}, None, {}, 33),
        ({"key": "ed25519"}, None, {}, 9),
        ({}, {"key": "ed25519"}, {}, 9),
        ({"basic": (True, 0)}, {}, {}, 18),
        ({}, {"basic": (False, None)}, {}, 18),
        ({}, {"basic": None}, {}, 18),
        ({}, {"key_usage": "digital_signature"}, {}, 18),
        ({}, {"key_usage": None}, {}, None),
        ({"more": [(CONSTRAINED, False)]}, None, {}, None),
        ({}, {"more": [(CONSTRAINED, True)]}, {}, 33),
        ({"more": [(CONSTRAINED, True)]}, None, {}, 33),
        ({}, None, {"more": [(POLICY, True)]}, None),
        ({}, None, {"more": [(JUNK, False)]}, 33),
        ({}, None, {"more": [(UNKNOWN, True)]}, 33),
        ({}, None, {"more": [(UNKNOWN, False)]}, None),
        ({}, None, {"valid_to": YEAR_2060}, None),
        ({}, None, {"hashed": hashes.SHA224()}, 33),
        ({}, None, {"key_usage": "key_encipherment", "key": "rsa2048"}, 11),
        ({}, None, {"names": ("*.lan",), "addresses": ()}, 15),
    ],
)
def test_the_doctor_foretells_what_mbedtls_does(pki, root, between, leaf, row):
    """Each kind of certificate, and what a bare MicroPython says to it."""

    def made_so(name, issuer, usage, options):
        options = (
            {"basic": (True, None), "key_usage": CERT_SIGN, **options} if not usage else options
        )
        return forge(pki, f"{name} {next(NUMBERS)}", usage, issuer=issuer, **options)

    top = made_so("root", None, "", root)
    chain = [made_so("between", top, "", between)] if between is not None else []
    own = made_so("leaf", chain[0] if chain else top, "server", leaf)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(pki.bundle(own, *chain), own.key_pem)
    with tls_server(context) as port:
        word = doctor(port, ca=top, host="localhost")
        assert (word.first and word.first["row"]) == row, word
        assert not any("all the same" in each["fact"] for each in word.remarks.values()), word
        assert bare(port, top.cert_der).startswith("CONNACK") == (row is None)


def test_a_ca_that_firmware_cannot_read_spoils_the_bundle(pki, tmp_path):
    ed = forge(pki, "ed root", "", basic=(True, None), key_usage=CERT_SIGN, key="ed25519")
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        word = doctor(broker.port, ca=[pki.ca, ed]).names(9, "chain", "ed root", "take that")
        assert word.attempt["ok"] is False
    below = forge(pki, "below ed", "", issuer=ed, basic=(True, None), key_usage=CERT_SIGN)
    leaf = forge(pki, "leaf below ed", issuer=below)
    with tls_server(server_context(leaf)) as port:
        doctor(port, ca=below).names(33, "chain", "below ed", "signed with ed25519")
        assert "cannot read" in explained(bare(port, below.cert_der))


# The configuration, as mosquitto reads it


@pytest.fixture
def conf(tmp_path, pki):
    """A function that writes a mosquitto.conf and returns its path; `{}` is the port."""

    own = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"

    def write(*lines):
        if not any(each.startswith(("certfile", "keyfile", "Certfile")) for each in lines):
            lines = (*own, *lines)
        path = tmp_path / "mosquitto.conf"
        text = "\n".join(("user root", "allow_anonymous true", "listener 18830", *lines, ""))
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("require_certificates true", "require_certificate"),
        ("Certfile x", "certfile"),
        ("require_certificate yes", "true or false"),
        ("use_identity_as_username\ttrue", "tab"),
        ("per_listener_settings true", "first line"),
        ("keyfile a\nkeyfile b", "twice"),
    ],
)
def test_row_57_a_line_that_mosquitto_does_not_know(conf, line, words):
    word = files("--conf", conf(line))
    row = word.rows.index(57)
    found = word.problems[row]
    assert words in f"{found['fact']} {found['cure']}", found
    assert found["stage"] == "configuration"
    assert word.json["exit"] == 1


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("require_certificates true", 57),
        ("require_certificate yes", 57),
        ("require_certificate", 57),
        ("   # a comment that is indented", 57),
        ("max_qos 3", 57),
        ("log_type everything", 57),
        ("ciphers_tls1.3 AES128-SHA", 57),
        ("cafile nothing.crt", 58),
        ("plugin /nothing.so", 58),
        ("tls_version tlsv1.2 tlsv1.3", 60),
        ("acl_file bad", 57),
        ("user nobody-of-that-name", 45),
    ],
)
def test_what_mosquitto_does_not_start_with_is_a_problem(conf, tmp_path, line, row):
    (tmp_path / "bad").write_text("topic readwrite a/#/b\n")
    path = conf(line.replace("bad", f"{tmp_path}/bad"))
    if row == 45:
        path.write_text(path.read_text().replace("user root\n", ""))
    assert row in files("--conf", path).rows
    text = path.read_text().replace("18830", f"{free_port()} 127.0.0.1")
    path.write_text(text if os.geteuid() == 0 else text.replace("user root\n", ""))
    if row == 45 and os.geteuid() != 0:
        return  # it becomes nobody else
    done = subprocess.run(
        [mosquitto(), "-c", path], cwd=tmp_path, capture_output=True, timeout=20, check=False
    )
    assert done.returncode != 0


def test_row_57_lines_of_an_acl_that_mosquitto_does_not_know(conf, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topics readwrite #\ntopic all a/b\n")
    word = files("--conf", conf(f"acl_file {acl}"))
    assert [each["row"] for each in word.problems].count(57) == 2, word


def test_row_58_paths_that_lead_nowhere(conf, tmp_path, pki):
    good = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"
    word = files("--conf", conf(*good, "cafile /etc/nothing/ca.crt"))
    word.names(58, "configuration", "/etc/nothing/ca.crt", "not there")
    (tmp_path / "ca.crt").write_bytes(Path(pki.ca.cert_pem).read_bytes())
    word = files("--conf", conf(*good, "cafile /etc/nothing/ca.crt"))
    word.names(58, "configuration", "beside the configuration", f"{tmp_path}/ca.crt")
    word = files("--conf", conf(*good, f"cafile {pki.ca.cert_pem} # ours"))
    word.names(58, "configuration", "comment")
    word = files("--conf", conf(*good, f'cafile "{pki.ca.cert_pem}"'))
    word.names(58, "configuration", "quotes")


def test_row_58_the_paths_of_a_container_are_found_beside(conf, tmp_path, pki):
    certs = tmp_path / "certs"
    certs.mkdir(mode=0o755)
    tmp_path.chmod(0o755)
    for name, path in (("b.crt", pki.broker.cert_pem), ("b.key", pki.broker.key_pem)):
        (certs / name).write_bytes(Path(path).read_bytes())
        (certs / name).chmod(0o644)
    at = "/mosquitto/config/certs"
    word = files("--conf", conf(f"certfile {at}/b.crt", f"keyfile {at}/b.key"))
    assert word.problems == [], word
    (certs / "b.key").chmod(0o600)
    word = files("--conf", conf(f"certfile {at}/b.crt", f"keyfile {at}/b.key"))
    found = {**word.remarks, **{each["row"]: each for each in word.problems}}
    assert "1883" in found[39]["fact"], word


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_row_45_a_folder_of_letsencrypt_that_mosquitto_may_not_enter(conf, tmp_path, pki):
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:  # those of pytest are closed, too
        if folder.name.startswith(("pytest-", "mqtt-tests-", "popen-")):
            folder.chmod(0o711)
    live = tmp_path / "letsencrypt/live"
    live.mkdir(parents=True)
    live.chmod(0o700)
    for name, path in (
        ("fullchain.pem", pki.broker.cert_pem),
        ("privkey.pem", pki.broker.key_pem),
    ):
        (live / name).write_bytes(Path(path).read_bytes())
    path = conf(f"certfile {live}/fullchain.pem", f"keyfile {live}/privkey.pem")
    path.write_text(path.read_text().replace("user root", "user nobody"))
    word = files("--conf", path)
    assert set(word.rows) == {39, 45}, word
    for each in word.problems:
        assert f"the folder {live} is closed" in each["fact"]
        assert "--deploy-hook" in each["cure"]
    path.write_text(path.read_text().replace("18830", f"{free_port()} 127.0.0.1"))
    done = subprocess.run([mosquitto(), "-c", path], capture_output=True, timeout=20, check=False)
    assert b"Permission denied" in done.stdout + done.stderr


def test_row_59_cafile_and_keyfile_without_certfile(conf, pki):
    word = files("--conf", conf(f"cafile {pki.ca.cert_pem}", f"keyfile {pki.broker.key_pem}"))
    word.names(59, "configuration", "no certfile", "add certfile")


def test_row_60_a_list_in_tls_version(conf, pki):
    good = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"
    word = files("--conf", conf(*good, "tls_version tlsv1.2 tlsv1.3"))
    word.names(60, "configuration", "tlsv1.2 tlsv1.3", "one value")
    assert "TLS 1.3 only" not in str(word)


def test_row_61_a_name_in_a_topic_line(conf, tmp_path, pki):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite devices/%u/#\n")
    word = files("--conf", conf(f"acl_file {acl}"))
    found = next(each for each in word.problems if each["row"] == 61)
    assert "pattern readwrite devices/%u/#" in found["cure"]
    acl.write_text("pattern readwrite devices/%u/#\n")
    assert 61 not in files("--conf", conf(f"acl_file {acl}")).rows


def test_row_62_lines_that_go_with_mosquitto_3(tmp_path, pki):
    path, parameters = tmp_path / "mosquitto.conf", tmp_path / "dh.pem"
    parameters.write_text(
        "-----BEGIN DH PARAMETERS-----\nMAYCAQ0CAQI=\n-----END DH PARAMETERS-----\n"
    )
    path.write_text(
        "per_listener_settings true\nuser root\nlistener 8883\nallow_anonymous true\n"
        f"certfile {pki.broker.cert_pem}\nkeyfile {pki.broker.key_pem}\n"
        f"dhparamfile {parameters}\n"
    )
    word = files("--conf", path)
    assert word.problems == [], word
    notes = [each for each in word.json["findings"] if each["row"] == 62]
    assert [each["level"] for each in notes] == ["remark", "remark"]
    assert "listener_allow_anonymous" in notes[0]["cure"]


def test_what_debian_ships_has_nothing_wrong_but_the_listener_that_is_missing(tmp_path):
    path = tmp_path / "mosquitto.conf"
    path.write_text(
        "pid_file /run/mosquitto/mosquitto.pid\npersistence true\n"
        "persistence_location /var/lib/mosquitto/\n"
        f"log_dest file /var/log/mosquitto/mosquitto.log\ninclude_dir {tmp_path}\n"
    )
    word = files("--conf", path).names(2, "configuration", "no listener", "listener 8883")
    assert word.rows == [2], word


def test_row_63_renewed_on_disk_and_not_reloaded(tmp_path, pki):
    old = pki.issue("to be renewed", issuer=pki.ca, valid_to=made.days(-1))
    new = pki.issue("to be renewed 2", issuer=pki.ca)
    with Broker(tmp_path / "b", "tls", pki=pki, identity=old) as broker:
        text = broker.configuration().replace(old.chain_pem, new.cert_pem)
        text = text.replace(old.key_pem, new.key_pem)
        path = tmp_path / "mosquitto.conf"
        path.write_text(text)
        word = doctor(broker.port, "--conf", path, ca=pki.ca)
        word.names(63, "TLS", "its file has another", "reload")
        assert word.rows == [63, 14]


def test_row_64_a_broker_that_takes_the_user_name_as_client_id(tmp_path, pki):
    lines = ["use_username_as_clientid true"]
    with Broker(tmp_path / "b", "mtls", pki=pki, identity_as_user=True, lines=lines) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=pki.device)
        assert word.problems == []
        assert word.attempt is None, "a live device is not thrown out"
        assert "throws a live one out" in word.remarks[64]["cause"]
        word = doctor(
            broker.port,
            *("--conf", conf_of(broker), "--client-id", "device"),
            ca=pki.ca,
            device=pki.device,
        )
        assert word.attempt["ok"]


# The log of mosquitto 2.1


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("Client x [10.0.0.7:1] disconnected: not authorised.", 35),
        ("Client x [10.0.0.7:1] disconnected: bad username or password.", 36),
        ("Client x [10.0.0.7:1] disconnected: Protocol error.", 4),
        ("Client x [10.0.0.7:1] disconnected: client identifier not valid.", 37),
        ("Client x [10.0.0.7:1] disconnected: session taken over.", 38),
        ("Error: Both certfile and keyfile must be provided to enable a TLS listener.", 59),
        ("Error: cafile specified without certfile and keyfile.", 59),
        ('Error: Unsupported tls_version "tlsv1.2 tlsv1.3".', 60),
        ("Error: Unknown configuration variable 'x'.", 57),
        ("Error: The 'cafile' option requires a listener to be defined first.", 57),
        ("OpenSSL Error[0]: error:80000002:system library::No such file or directory", 58),
        ("OpenSSL Error[0]: error:8000000D:system library::Permission denied", 45),
        ("The 'port' option is now deprecated and will be removed in version 3.0.", 62),
        ("Warning: dhparamfile is no longer required.", 62),
        ("Warning: The 'retry_interval' option is no longer available.", 62),
        ("Warning: File acl has world readable permissions. Future versions will refuse to load "
         "this file.", 62),
        ("Warning: File acl group is not mosquitto. Future versions will refuse to load this "
         "file.", 62),
        ("Error: 'max_connections' value not a number.", 57),
        ("Error: Invalid topic access type \"foo\" in acl_file \"acl\".", 57),
        ("Error: Invalid bridge configuration: no topics defined.", 57),
        ("Error: The 'plugin_opt_' option requires plugin/global_plugin/plugin_load to be defined "
         "first.", 57),
        ("password-file: Error: Unable to decode line in password file 'pw'.", 57),
        ("password-file: Error: Invalid line in password file 'pw': :x", 57),
        ('password-file: Error: Unable to open pwfile "link".', 45),
        ("Error: Unable to open log file /nix/x for writing.", 45),
        ("Error: Unable to write pid file.", 45),
        ('Error: Unable to load plugin "/nix.so".', 58),
        ("Error: Interface foo0 does not exist.", 2),
        ("Client from 10.0.0.7:1 appears to be using TLS to connect to a non-TLS listener.", 3),
        ("Client x [10.0.0.7:1] disconnected: used disallowed feature (QoS too high, retain "
         "not supported, or bad AUTH method).", 0),
        ("OpenSSL Error while trying to get the error[0]: error:0A000126:SSL routines::unexpected "
         "eof while reading", 6),
    ],
)  # fmt: skip
def test_lines_of_mosquitto_2_1(tmp_path, line, row):
    log = tmp_path / "log"
    for stamp in ("", "1795991842: ", "2026-11-30T10:00:00: ", "1795: "):
        log.write_text(f"{stamp}{line}\n")
        word = doctor(None, "--log", log)
        found = [each for each in word.json["findings"] if each["row"] == row]
        assert found, (stamp, word)
        assert explained(stamp + line) == f"{found[0]['cause']} | {found[0]['cure']}"


def test_row_62_is_a_remark_in_a_log_as_in_a_configuration(tmp_path):
    log = tmp_path / "log"
    log.write_text("Warning: dhparamfile is no longer required.\n")
    word = doctor(None, "--log", log)
    assert word.problems == [] and word.remarks[62]["cure"] and word.json["exit"] == 0


@pytest.mark.parametrize(
    ("given", "level"), [("5", "remark"), ("3", "problem"), ("3, 5", "remark"), ("4, 5", None)]
)
def test_a_listener_of_2_1_that_takes_no_mqtt_3_1_1(conf, pki, given, level):
    good = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"
    word = files("--conf", conf(*good, f"accept_protocol_versions {given}"))
    found = [each for each in word.json["findings"] if "accept_protocol" in each["fact"]]
    assert [each["level"] for each in found] == ([level] if level else [])


def test_row_58_files_behind_links_that_mosquitto_2_1_does_not_open(conf, tmp_path, pki):
    (tmp_path / "acl").write_text("topic readwrite #\n")
    (tmp_path / "link").symlink_to("acl")
    good = f"certfile {pki.broker.cert_pem}", f"keyfile {pki.broker.key_pem}"
    word = files("--conf", conf(*good, f"acl_file {tmp_path}/link"))
    assert f"acl_file {tmp_path}/acl" in word.remarks[58]["cure"]
    assert 58 not in files("--conf", conf(*good, f"acl_file {tmp_path}/acl")).remarks


def test_the_line_of_openssl_says_why_a_file_was_not_loaded(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        '1: Error: Unable to load CA certificates. Check cafile "/etc/nothing/ca.crt".\n'
        "1: OpenSSL Error[0]: error:80000002:system library::No such file or directory\n"
    )
    word = doctor(None, "--log", log).names(58, "configuration", "/etc/nothing/ca.crt")
    assert word.rows == [58]


# The texts of others

LISTENER = (
    "1795991843: Error: Both certfile and keyfile must be provided to enable a TLS listener."
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("-0x2700", "not from the CA"),
        ("0x7780", "refused the TLS handshake"),
        ("0xffff8880", "refused the TLS handshake"),
        ("mbedtls_ssl_handshake returned -0x2700", "not from the CA"),
        ("E (123) esp-tls-mbedtls: mbedtls_ssl_handshake returned -0x50", "hung up"),
        ("mbedtls_pk_parse_keyfile returned -0x3D00", "no key or certificate"),
        ("OSError(-15616,)", "no key or certificate"),
        ("MBEDTLS_ERR_X509_CERT_VERIFY_FAILED", "not from the CA"),
        ("MBEDTLS_ERR_SSL_CONN_EOF", "hung up"),
        ("MBEDTLS_ERR_SSL_PEER_VERIFY_FAILED", "not from the CA"),
        ("MBEDTLS_ERR_PEM_NO_HEADER_FOOTER_PRESENT", "no key or certificate"),
        ("X509 - Certificate verification failed, e.g. CRL, CA or signature", "not from the CA"),
        ("OSError(-20096,)", "form"),
        ("OSError(-28800,)", "16 KB"),
        ("OSError(-12288,)", "form"),
        ("OSError: [Errno 12] ENOMEM", "network stack"),
        ("OSError: 23", "no socket"),
        ("OSError: 5", "network chip"),
        ("OSError: 128", "not connected"),
        ("OSError: 107", "not connected"),
        ("OSError: -6", "no DNS server"),
        ("OSError: 103", "no answer"),
        ("OSError: 113", "esp32"),
        ("MQTTException: 5", "wrong password"),
        ("MQTTException: 4", "no certificate of the device"),
        (LISTENER, "certfile and keyfile, both"),
        (LISTENER.partition(": ")[2], "certfile and keyfile, both"),
        ("OpenSSL Error[0]: error:8000000D:system library::Permission denied", "may not read"),
        ("tlsv1 alert unknown ca", "another CA"),
        ("error:0A000418:SSL routines::tlsv1 alert unknown ca", "another CA"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate in "
         "certificate chain (_ssl.c:1002)", "another CA"),
        ("ssl.SSLCertVerificationError: Hostname mismatch, certificate is not valid for 'x'. "
         "(_ssl.c:1002)", "name that is dialled"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1)", "plain port"),
        ("ssl.SSLError: [SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:1)",
         "the client's certificate"),
        ("Error: host name verification failed.", "name that is dialled"),
        ("Unable to connect (A TLS error occurred.).", "handshake failed"),
        ("Error: The connection was lost.", "instead of answering CONNECT"),
        ("mqtt broker.lan:8883: not connected: the broker closed the connection", "hung up"),
        # Erlang: EMQX, RabbitMQ, VerneMQ, ejabberd
        ("TLS server: In state hello at tls_record.erl:558 generated SERVER ALERT: Fatal - "
         "Unexpected Message", "without TLS"),
        ("TLS server: In state certify at ssl_handshake.erl:1890 generated SERVER ALERT: Fatal - "
         "Unknown CA", "the client's certificate"),
        ("TLS server: In state wait_cert received CLIENT ALERT: Fatal - Unknown CA",
         "the board trusts another CA"),
        ("TLS server: In state hello at tls_handshake.erl:350 generated SERVER ALERT: Fatal - "
         "Protocol Version", "TLS 1.3 only"),
        ("TLS server: In state hello at tls_handshake.erl:354 generated SERVER ALERT: Fatal - "
         "Insufficient Security - no_suitable_ciphers", "every cipher"),
        ("TLS server: In state certify at tls_dtls_connection.erl:315 generated SERVER ALERT: "
         "Fatal - Handshake Failure", "showed no certificate"),
        (" no_client_certificate_provided", "there is none"),
        (" {bad_cert,invalid_ext_key_usage}", "clientAuth"),
        ("TLS server: In state certify received CLIENT ALERT: Warning - User Canceled",
         "only looked"),
        ("msg: authorization_permission_denied, clientid: pico, topic: a/b, action: publish",
         "ACL"),
        ("Client 'abc' is not authorized to Publish to topic: t. Permission denied", "ACL"),
        ("msg: client_connect_failed reason: bad_username_or_password", "password is wrong"),
        # Java: HiveMQ, ActiveMQ
        ("javax.net.ssl.SSLHandshakeException: no cipher suites in common", "every cipher"),
        ("javax.net.ssl.SSLHandshakeException: Empty client certificate chain", "there is none"),
        ("javax.net.ssl.SSLHandshakeException: Received fatal alert: certificate_unknown",
         "the board trusts another CA"),
        ("io.netty.handler.ssl.NotSslRecordException: not an SSL/TLS record: 100f00044d515454",
         "without TLS"),
        ("sun.security.validator.ValidatorException: PKIX path building failed", "truststore"),
        ("java.io.IOException: keystore password was incorrect", "passphrase"),
        # Go, nginx, haproxy
        ("tls: first record does not look like a TLS handshake", "without TLS"),
        ("tls: client didn't provide a certificate", "there is none"),
        ("tls: client offered only unsupported versions: [303]", "TLS 1.3 only"),
        ("remote error: tls: unknown certificate authority", "the board trusts another CA"),
        ("x509: certificate is valid for broker.lan, not localhost", "name that is dialled"),
        ("client sent no required SSL certificate while reading", "there is none"),
        ("fe/1: Received something which does not look like a PROXY protocol header",
         "PROXY protocol"),
        ("SSL_do_handshake() failed (SSL: error:0A000418:SSL routines::tlsv1 alert unknown ca:SSL "
         "alert number 48) while SSL handshaking", "the board trusts another CA"),
        # clients
        ("DEPTH_ZERO_SELF_SIGNED_CERT", "another CA"),
        ("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "intermediate"),
        ("Error [ERR_TLS_CERT_ALTNAME_INVALID]", "name that is dialled"),
        ("write EPROTO 140735:error:1408F10B:SSL routines:ssl3_get_record:wrong version number",
         "plain port"),
        ("schannel: SEC_E_UNTRUSTED_ROOT (0x80090325)", "another CA"),
        ("schannel: Unknown error (0x80092012) - The revocation function was unable", "revoked"),
        ("invalid peer certificate: NotValidForName", "name that is dialled"),
        ("invalid peer certificate: CaUsedAsEndEntity", "CA:TRUE"),
        ("peer misbehaved: IllegalSniName", "no address as server name"),
        ("SSL alert number 42", "the client's certificate"),
        ("alert number 116", "there is none"),
        ("40:handshake_failure", "every cipher"),
        ("AlertDescription: 70", "TLS 1.3 only"),
        ("curl: (35) OpenSSL/3.0.2: error:0A000438:SSL routines::tlsv1 alert internal error",
         "failed in the handshake"),
        ("[SSL: TLSV1_ALERT_INTERNAL_ERROR] tlsv1 alert internal error (_ssl.c:1002)",
         "failed in the handshake"),
        ("[SSL: DH_KEY_TOO_SMALL] dh key too small (_ssl.c:1002)", "DH parameters"),
        ("certificate verify failed: Missing Authority Key Identifier (_ssl.c:1032)",
         "VERIFY_X509_STRICT"),
        ("Connection error: Connection Refused: unacceptable protocol version.", "CONNACK 1"),
        ("E (1234) mqtt_client: Connection refused, not authorized", "not authorised"),
        ("failed, rc=5 try again", "not authorised, or a wrong password"),
        ("CONNACK 4", "wrong user or password"),
        ("CONNACK: 0x86", "wrong user or password"),
        ("Connection error: code 2", "client id"),
        ("MQTT_CONNECTION_REFUSE_NOT_AUTHORIZED", "not authorised"),
        ("MQTT_CONNECTION_REFUSE_BAD_USERNAME", "user name or password"),
        ("Connection returned result: 135", "not authorised"),
        ("1733000000: Error: Cannot assign requested address", "none of the broker's machine"),
        ("1733000000: Error: Websockets support not available.", "without WebSocket"),
    ],
)  # fmt: skip
def test_errors_of_all_who_write_some_are_explained(error, words):
    assert words in explained(error)


@given(st.text(max_size=200) | st.from_regex(r"-?0x[0-9a-f]{1,9}|MBEDTLS_ERR_[A-Z0-9_]{1,30}"))
def test_any_text_is_looked_up(text):
    cause, cure = error_text.look_up(text)
    assert bool(cause) == bool(cure)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x30\x82", b"\x30\x03\x02\x01\x03", b"MII"])
)
def test_any_file_is_looked_at(data, start):
    found = file_kinds.recognise("x", start + data)
    assert found is None or all(found)


def test_every_name_of_mbedtls_is_known():
    for name, number in mbedtls.names().items():
        for text in (f"MBEDTLS_ERR_{name}", f"ssl: {hex(number)}"):
            cause, cure = error_text.look_up(text)
            assert (cause and cure) or number > -128, text
    assert mbedtls.name_of(-9984) == "MBEDTLS_ERR_X509_CERT_VERIFY_FAILED"
    assert mbedtls.name_of(-1) == ""


# What is said where nothing is wrong


def test_nothing_wrong_in_files_says_what_was_not_seen(pki, capsys):
    assert main(["doctor", "--ca", pki.ca.cert_der]) == 0
    said = capsys.readouterr().out
    assert "nothing wrong in these files; not seen in them" in said
    assert f"doctor HOST:PORT --ca {shlex.quote(pki.ca.cert_der)}" in said


def test_without_micropython_what_only_boards_refuse_is_a_problem(tmp_path, pki, monkeypatch):
    monkeypatch.setenv("MICROPYTHON", "")
    interpreter.cache_clear()
    ed = forge(pki, "device ed 2", "client", issuer=pki.ca, key="ed25519")
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        word = doctor(broker.port, ca=pki.ca, device=ed).names(47, "files", "Ed25519")
        assert word.attempt["ok"], "Python's ssl connects with it"
        assert log_of(broker)
