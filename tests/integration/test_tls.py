"""
TLS from the device's side: what it accepts, what it refuses, and what it says about it.

Each handshake is MicroPython's own against a real mosquitto, or against a server made for one
fault; each failure must be explained by its cause.
"""

import contextlib
import json
import socket
import ssl
import struct
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support import mpy, secure
from tests.support.broker import HOST, Broker
from tests.support.pki import Identity, days, new_key
from tests.support.server import server
from tools import freeze

CONNACK = "20020000"
FORMS = pytest.mark.parametrize("form", ["pem", "der"])


def files(form, ca=None, device=None, **more):
    """Return the arguments of TLS that name the files of these identities, in PEM or in DER."""
    return secure.files(ca, device, form, **more)


def handshake(port, name="localhost", deadline_ms=5000, heap=None, **arguments):
    """Return what came of a handshake from MicroPython, as tests/device/handshake.py says it."""
    call = f"handshake({HOST!r}, {port}, {name!r}, {deadline_ms}, **{arguments!r})"
    program = f"from tests.device.handshake import handshake\n{call}"
    return json.loads(mpy.check(program, heap=heap))


def assert_connected(result):
    assert result == {"answer": CONNACK, "kind": None}, result


def assert_failed(result, kind, cause, cure, codes=None):
    """Check the class, the words of cause and cure, and the number where it is always the same."""
    assert result["kind"] == kind, result
    assert cause in result["cause"], result
    assert cure in result["cure"], result
    if codes:
        assert result["code"] in codes, result
    assert "\n" not in result["reason"], result


@pytest.fixture
def mosquitto(tmp_path, pki):
    """A function that starts a mosquitto: mosquitto("tls", identity=...)."""
    with contextlib.ExitStack() as stack:

        def start(kind="tls", **options):
            directory = tmp_path / f"broker{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(Broker(directory, kind, pki=pki, **options))

        yield start


def tls_server(identity, tune=None):
    """A TLS server that answers what comes with CONNACK; `tune` may change its SSLContext."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.chain_pem, identity.key_pem)
    if tune:
        tune(context)

    def handle(connection):
        with context.wrap_socket(connection, server_side=True) as peer:
            peer.recv(100)
            peer.sendall(bytes.fromhex(CONNACK))
            peer.recv(1)

    return server(handle)


def odd(pki, name, *, key=None, extensions=(), names=("localhost",), issuer=None):
    """Return an Identity that is not as usual; `extensions` are tuples (extension, critical)."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    issuer = issuer or pki.ca
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(days(-1))
        .not_valid_after(days(100))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    certificate = builder.sign(issuer.key, hashes.SHA256())
    made = Identity(pki.directory, name, certificate, key, issuer)
    if isinstance(key, ed25519.Ed25519PrivateKey):  # PKCS#8 is its only form
        path = pki.directory / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        made.__dict__["key_pem"] = str(path)
    return made


# What connects


@FORMS
def test_a_broker_of_our_ca_is_accepted(tls_broker, pki, form):
    assert_connected(handshake(tls_broker.port, **files(form, pki.ca)))


@FORMS
@pytest.mark.parametrize("identity", ["broker_rsa", "broker_by_intermediate"])
def test_rsa_and_intermediate_certificates_are_accepted(mosquitto, pki, form, identity):
    broker = mosquitto(identity=getattr(pki, identity))
    assert_connected(handshake(broker.port, **files(form, pki.ca)))


@FORMS
def test_a_self_signed_broker_is_pinned_by_its_own_certificate(mosquitto, pki, form):
    broker = mosquitto(identity=pki.broker_self_signed)
    assert_connected(handshake(broker.port, **files(form, pki.broker_self_signed)))


@FORMS
@pytest.mark.parametrize("device", ["device", "device_rsa"])
def test_a_device_shows_its_certificate(mtls_broker, pki, form, device):
    arguments = files(form, pki.ca, getattr(pki, device))
    assert_connected(handshake(mtls_broker.port, **arguments))


@FORMS
@pytest.mark.parametrize("device", ["device", "device_rsa"])
def test_a_key_may_be_pkcs8(mtls_broker, pki, form, device):
    device = getattr(pki, device)
    arguments = files(form, pki.ca, device)
    arguments["key"] = getattr(device, f"pkcs8_{form}")
    assert_connected(handshake(mtls_broker.port, **arguments))


def test_pem_and_der_may_be_mixed(mtls_broker, pki):
    arguments = {"ca": pki.ca.cert_der, "cert": pki.device.cert_pem, "key": pki.device.key_der}
    assert_connected(handshake(mtls_broker.port, **arguments))


@FORMS
def test_every_ca_of_a_bundle_is_trusted(mosquitto, pki, form):
    bundle = pki.bundle(pki.other_ca, pki.ca, der=form == "der")
    for identity in (pki.broker, pki.broker_wrong_ca):
        assert_connected(handshake(mosquitto(identity=identity).port, ca=bundle))


@FORMS
def test_every_ca_of_a_list_is_trusted(mosquitto, pki, form):
    both = [getattr(each, f"cert_{form}") for each in (pki.other_ca, pki.ca)]
    for identity in (pki.broker, pki.broker_wrong_ca):
        assert_connected(handshake(mosquitto(identity=identity).port, ca=both))


def test_a_renewed_ca_of_the_same_name_is_trusted_beside_the_old_one(mosquitto, pki):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, days(-1), days(100))
    builder = builder.add_extension(x509.BasicConstraints(True, 0), True)
    renewed = Identity(pki.directory, "renewed-ca", builder.sign(key, hashes.SHA256()), key)
    after = pki.issue("broker of the renewed ca", issuer=renewed)
    both = [pki.ca.cert_der, renewed.cert_der]
    for identity in (pki.broker, after):
        assert_connected(handshake(mosquitto(identity=identity).port, ca=both))


def test_an_address_is_checked_like_a_name(mosquitto, pki):
    assert_connected(handshake(mosquitto().port, name="127.0.0.1", ca=pki.ca.cert_der))


def test_server_hostname_takes_the_place_of_the_host(mosquitto, pki):
    broker = mosquitto(identity=pki.broker_wrong_name)
    arguments = files("der", pki.ca, server_hostname="elsewhere.lan")
    assert_connected(handshake(broker.port, **arguments))


@pytest.mark.parametrize(
    "arguments", [{}, {"server_hostname": "broker.lan"}, {"unverified": True}]
)
def test_the_broker_is_told_the_name(pki, arguments):
    told = []

    def tune(context):
        context.sni_callback = lambda peer, name, context: told.append(name)

    expected = arguments.get("server_hostname", "localhost")
    if not arguments.get("unverified"):
        arguments = {**arguments, "ca": pki.ca.cert_der}
    with tls_server(pki.broker, tune) as port:
        assert_connected(handshake(port, **arguments))
    assert told == [expected]


@pytest.mark.parametrize("identity", ["broker_expired", "broker_wrong_name", "broker_wrong_ca"])
def test_only_unverified_accepts_any_broker(mosquitto, pki, identity):
    broker = mosquitto(identity=getattr(pki, identity))
    assert handshake(broker.port, ca=pki.ca.cert_der)["kind"] == "CertificateError"
    assert_connected(handshake(broker.port, unverified=True))


def test_unverified_still_shows_the_certificate_of_the_device(mtls_broker, pki):
    arguments = files("der", device=pki.device, unverified=True)
    assert_connected(handshake(mtls_broker.port, **arguments))


def test_a_context_serves_many_connections_also_after_failures(mosquitto, pki):
    good, bad = mosquitto().port, mosquitto(identity=pki.broker_wrong_ca).port
    mutual = mosquitto("mtls").port
    out = mpy.check(
        """
        import json, sys
        from mqtt_as_tls.tls import TLS
        from tests.device.handshake import attempt
        tls = TLS(sys.argv[1])
        for port in sys.argv[2:]:
            print(json.dumps(attempt(tls, "127.0.0.1", int(port), "localhost")))
        """,
        pki.ca.cert_der,
        *(good, bad, good, mutual, bad, good),
    )
    results = [json.loads(line) for line in out.splitlines()]
    for at in (0, 2, 5):
        assert_connected(results[at])
    for at in (1, 4):
        assert_failed(results[at], "CertificateError", "not from the CA", "CA")
    assert_failed(results[3], "TLSError", "wants a certificate of the device", "cert=")


def test_the_context_verifies_for_others_too(mosquitto, pki):
    """As umqtt.simple uses a context: blocking, with the host's name."""
    good, bad = mosquitto().port, mosquitto(identity=pki.broker_wrong_ca).port
    out = mpy.check(
        """
        import socket, sys
        from mqtt_as_tls.tls import TLS
        context = TLS(sys.argv[1]).context
        for port in sys.argv[2:]:
            sock = socket.socket()
            sock.connect(socket.getaddrinfo("127.0.0.1", int(port))[0][-1])
            try:
                sock = context.wrap_socket(sock, server_hostname="localhost")
                sock.write(b"\\x10\\x0e\\x00\\x04MQTT\\x04\\x02\\x00\\x3c\\x00\\x02hs")
                print(sock.read(4).hex())
            except ValueError as error:
                print(str(error).strip())
            sock.close()
        """,
        pki.ca.cert_pem,
        good,
        bad,
    )
    assert out.splitlines() == [
        CONNACK,
        "The certificate is not correctly signed by the trusted CA",
    ]


@pytest.mark.parametrize(
    "reshape",
    [
        lambda pem: pem.replace(b"\n", b"\r\n"),
        lambda pem: pem.rstrip(),
        lambda pem: b"Subject: somebody\n  0 lines of no use\n\n" + pem + b"\nthe end\n",
        lambda pem: pem.replace(b"-----\nM", b"-----\n\n  M"),
        lambda pem: b"\xef\xbb\xbf" + pem,
    ],
    ids=["crlf", "no last newline", "text around it", "blank lines", "byte order mark"],
)
def test_pem_is_read_whatever_surrounds_it(mtls_broker, pki, tmp_path, reshape):
    arguments = files("pem", pki.ca, pki.device)
    for what, path in arguments.items():
        copy = tmp_path / what
        copy.write_bytes(reshape(Path(path).read_bytes()))
        arguments[what] = str(copy)
    assert_connected(handshake(mtls_broker.port, **arguments))


def test_pem_may_be_given_as_text(mtls_broker, pki):
    paths = files("pem", pki.ca, pki.device)
    arguments = {what: Path(path).read_text() for what, path in paths.items()}
    assert_connected(handshake(mtls_broker.port, **arguments))


def test_one_pem_file_may_hold_certificate_and_key(mtls_broker, pki, tmp_path):
    both = tmp_path / "both.pem"
    both.write_text(
        "".join(Path(f).read_text() for f in (pki.device.key_pem, pki.device.cert_pem))
    )
    arguments = files("pem", pki.ca, cert=str(both), key=str(both))
    assert_connected(handshake(mtls_broker.port, **arguments))


def test_a_key_behind_its_parameters_is_found(mtls_broker, pki, tmp_path):
    """openssl ecparam -genkey writes the curve as a block of its own before the key."""
    key = tmp_path / "key"
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    key.write_text(parameters + Path(pki.device.key_pem).read_text())
    arguments = {**files("pem", pki.ca, pki.device), "key": str(key)}
    assert_connected(handshake(mtls_broker.port, **arguments))


@pytest.fixture(scope="module")
def below_two(pki):
    """A device whose CA is below a CA below that of the broker; [it, its CA, the next]."""
    root = pki.issue("root of chains", "ca", path_length=2)
    upper = pki.issue("upper ca", "ca", issuer=root, path_length=1)
    lower = pki.issue("lower ca", "ca", issuer=upper)
    return root, [pki.issue("device below two", "client", issuer=lower), lower, upper]


def test_the_device_sends_its_whole_chain(mosquitto, pki, below_two):
    root, chain = below_two
    arguments = files("pem", pki.ca, chain[0])
    port = mosquitto("mtls", client_ca=root).port
    result = handshake(port, **arguments)
    assert_failed(result, "TLSError", "wants a certificate of the device", "cafile")
    for given in (
        pki.bundle(*chain),
        pki.bundle(*chain, der=True),
        [each.cert_der for each in chain],
        [chain[0].cert_pem, pki.bundle(*chain[1:])],
        pki.bundle(*chain[::-1]),  # its own last: found by its key
    ):
        assert_connected(handshake(port, **{**arguments, "cert": given}))


@pytest.mark.timeout(300)  # the interpreter may have to be built
def test_an_older_firmware_sends_the_whole_chain_too(mosquitto, pki, below_two, monkeypatch):
    monkeypatch.setenv("MICROPYTHON", str(freeze.unix(32)))
    monkeypatch.setenv("MQTT_FROZEN", "1")
    assert mpy.check("import sys; print(sys.implementation[1][1])") == "25\n"
    root, chain = below_two
    arguments = files("der", pki.ca, chain[0], cert=[each.cert_der for each in chain])
    assert_connected(handshake(mosquitto("mtls", client_ca=root).port, **arguments))


def test_a_chain_without_the_devices_own_certificate_is_refused(pki, below_two):
    _, chain = below_two
    arguments = files("pem", pki.ca, chain[0], cert=pki.bundle(*chain[1:]))
    assert "not the key of cert" in refusal(**arguments)


def test_the_content_may_be_given_as_bytes(mtls_broker, pki):
    for form in ("pem", "der"):
        paths = files(form, pki.ca, pki.device)
        out = mpy.check(
            """
            import sys
            from mqtt_as_tls.tls import TLS
            from tests.device.handshake import attempt
            ca, cert, key = [open(path, "rb").read() for path in sys.argv[2:]]
            for given in (
                (ca, cert, key),
                (bytearray(ca), memoryview(cert), bytearray(key)),
                ([memoryview(ca)], cert, key),
            ):
                tls = TLS(*given)
                print(attempt(tls, "127.0.0.1", int(sys.argv[1]), "localhost")["answer"])
            """,
            mtls_broker.port,
            *paths.values(),
        )
        assert out.split() == [CONNACK] * 3


# What TLS refuses when it is made


def refusal(**arguments):
    """Return the error of TLS(...) as "ValueError: text", or "accepted"."""
    call = f"refusal(**{arguments!r})"
    out = mpy.check(f"from tests.device.handshake import refusal\n{call}")
    assert out.count("\n") == 1, out
    return out.strip()


@pytest.mark.parametrize("nothing", [{}, {"ca": None}, {"ca": ""}, {"ca": []}, {"ca": b""}])
def test_no_ca_is_refused(nothing):
    assert refusal(**nothing) == "ValueError: no ca: give the CA of the broker's certificate"


def test_firmware_that_verifies_too_little_is_refused(pki):
    out = mpy.check(
        """
        import sys
        from mqtt_as_tls import TLS
        from tests.device.inside import be_firmware
        for version in (1, 22, 2), (1, 24, 1, ""), (1, 25, 0), (1, 26, 1, "preview"), (2, 0):
            be_firmware(*version)
            for make in TLS, TLS.unverified:
                try:
                    make(*sys.argv[1:] if make is TLS else [])
                    print("made")
                except ValueError as error:
                    print(error)
        """,
        pki.ca.cert_der,
    )
    refused = "MicroPython: verifies too little: flash 1.25 or newer, micropython.org"
    assert out.splitlines() == [refused] * 4 + ["made"] * 6


def test_a_certificate_without_its_key_is_refused(pki):
    for what in ("cert", "key"):
        found = refusal(ca=pki.ca.cert_pem, **{what: getattr(pki.device, what + "_pem")})
        assert found == "ValueError: give both cert and key, or none"


def test_a_file_that_is_not_there_is_named(pki):
    told = "cannot open ([Errno 2] ENOENT): copy it to the board"
    assert refusal(ca="/no/ca.der") == f"ValueError: ca /no/ca.der: {told}"
    found = refusal(ca=pki.ca.cert_der, cert=pki.device.cert_der, key="/no/key.der")
    assert found == f"ValueError: key /no/key.der: {told}"
    found = refusal(ca=[pki.ca.cert_der, "/no/second.der"])
    assert found == f"ValueError: ca /no/second.der: {told}"


def test_an_empty_file_is_refused(pki, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    assert refusal(ca=str(empty)) == f"ValueError: ca {empty}: empty"
    found = refusal(ca=pki.ca.cert_der, cert=b"", key=pki.device.key_der)
    assert found == "ValueError: cert: empty"


@pytest.mark.parametrize("content", [b"hello\n", b"\0", b"-----BEGIN", b"\xff\xfe-\0-\0", b"\x30"])
def test_what_is_no_certificate_is_refused(tmp_path, content):
    path = tmp_path / "no-certificate"
    path.write_bytes(content)
    assert refusal(ca=str(path)) in (
        f"ValueError: ca {path}: no CERTIFICATE, or encrypted",
        f"ValueError: ca {path}: damaged: copy it again",
    )


@FORMS
def test_a_key_is_no_certificate_and_a_certificate_no_key(pki, form):
    device = pki.device
    ca, cert, key = (files(form, pki.ca, device)[what] for what in ("ca", "cert", "key"))
    assert refusal(ca=key).startswith(f"ValueError: ca {key}: no CERTIFICATE")
    found = refusal(ca=ca, cert=key, key=key)
    assert found.startswith(f"ValueError: cert {key}: no CERTIFICATE")
    found = refusal(ca=ca, cert=cert, key=cert)
    assert found.startswith(f"ValueError: key {cert}: no PRIVATE KEY")


def encrypted(pki, form, encoding):
    return pki.device.key.private_bytes(
        encoding, form, serialization.BestAvailableEncryption(b"secret")
    )


def test_an_encrypted_key_is_refused_with_the_way_to_decrypt_it(pki, tmp_path):
    path = tmp_path / "key"
    pair = {"ca": pki.ca.cert_der, "cert": pki.device.cert_der, "key": str(path)}
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    pkcs8 = serialization.PrivateFormat.PKCS8
    for form in (pkcs8, serialization.PrivateFormat.TraditionalOpenSSL):
        path.write_bytes(encrypted(pki, form, pem))
        assert refusal(**pair) == (
            f"ValueError: key {path}: encrypted: openssl pkey -in OLD -out NEW"
        )
    path.write_bytes(encrypted(pki, pkcs8, der))
    assert refusal(**pair) == f"ValueError: key {path}: no PRIVATE KEY, or encrypted"


@pytest.mark.parametrize("device", ["device", "device_rsa"])
@pytest.mark.parametrize("key_form", ["key_pem", "key_der", "pkcs8_pem", "pkcs8_der"])
def test_a_key_of_another_certificate_is_noticed(pki, device, key_form):
    device = getattr(pki, device)
    kind = "rsa2048" if device is pki.device_rsa else "p256"
    path = pki.directory / f"stray-{kind}"
    stray = Identity(path.parent, path.name, None, new_key(kind))
    key, cert = getattr(stray, key_form), device.cert_der
    found = refusal(ca=pki.ca.cert_der, cert=cert, key=key)
    assert found == f"ValueError: key {key}: not the key of cert {cert}: copy both again"


@pytest.mark.parametrize("kind", ["p384", "p521", "rsa4096"])
def test_other_keys_fit_their_certificates(pki, kind):
    device = pki.issue(f"device {kind}", "client", issuer=pki.ca, key=kind)
    assert refusal(**files("der", pki.ca, device)) == "accepted"
    pkcs8 = {**files("pem", pki.ca, device), "key": device.pkcs8_pem}
    assert refusal(**pkcs8) == "accepted"


def test_what_the_firmware_cannot_read_is_refused(pki):
    told = "unreadable: use P-256 or RSA, SHA-256 (or low memory)"
    ed = odd(pki, "ed25519 device", key=ed25519.Ed25519PrivateKey.generate())
    found = refusal(ca=pki.ca.cert_der, cert=ed.cert_pem, key=ed.key_pem)
    assert found == f"ValueError: cert {ed.cert_pem}, key {ed.key_pem}: {told}"
    assert refusal(ca=ed.cert_pem) == f"ValueError: ca {ed.cert_pem}: {told}"


def test_every_damaged_file_is_a_value_error(pki):
    """Cut anywhere, or with a byte changed: never another exception, never a crash."""
    out = mpy.check(
        """
        import sys
        from mqtt_as_tls.tls import TLS
        ca, cert, key = [open(path, "rb").read() for path in sys.argv[1:]]
        refused = accepted = 0
        def try_one(ca, cert, key):
            global refused, accepted
            try:
                TLS(ca, cert, key)
                accepted += 1
            except ValueError as error:
                refused += 1
                assert ": " in str(error), error
        for at in range(1, len(ca)):
            try_one(ca[:at], cert, key)
        print(refused, accepted)
        for length in range(128, 256):  # of any number of bytes
            try_one(bytes((0x30, length)) + ca, cert, key)
        for whole in (0, 1, 2):
            data = (ca, cert, key)[whole]
            for at in range(0, len(data), 3):
                changed = bytearray(data)
                changed[at] ^= 0x55
                given = [ca, cert, key]
                given[whole] = changed
                try_one(*given)
        """,
        *files("der", pki.ca, pki.device).values(),
        timeout_s=60,
    )
    size = len(Path(pki.ca.cert_der).read_bytes())
    assert out.split() == [str(size - 1), "0"]


def test_every_cut_pem_file_is_a_value_error(pki):
    pem = Path(pki.ca.cert_pem).read_bytes()
    end = pem.index(b"-----END CERTIFICATE")
    out = mpy.check(
        """
        import sys
        from mqtt_as_tls.tls import TLS
        pem = open(sys.argv[1], "rb").read()
        for at in range(1, int(sys.argv[2])):
            try:
                TLS(pem[:at])
                print("accepted", at)
            except ValueError as error:
                assert str(error).startswith("ca: "), error
        print("done")
        """,
        pki.ca.cert_pem,
        end,
    )
    assert out == "done\n"


@pytest.mark.parametrize("wrong", [5, 1.5, True, [5], [None]])
def test_other_types_are_refused(pki, wrong):
    assert refusal(ca=wrong) == "TypeError: ca must be a path or bytes"
    if not isinstance(wrong, list):
        pair = {"cert": wrong, "key": pki.device.key_der}
        assert refusal(ca=pki.ca.cert_der, **pair) == "TypeError: cert must be a path or bytes"
        assert refusal(ca=pki.ca.cert_der, server_hostname=wrong).startswith("TypeError: ")


def test_the_attributes_say_how_it_was_made(pki):
    out = mpy.check(
        """
        import sys
        from mqtt_as_tls.tls import TLS
        import tls as module
        def show(tls):
            mode = tls.context.verify_mode
            required = mode == module.CERT_REQUIRED
            print(tls.verified, required, tls.server_hostname, tls.ntp)
        show(TLS(sys.argv[1]))
        show(TLS(sys.argv[1], server_hostname="broker.lan", ntp=None))
        show(TLS(ca=[sys.argv[1]], ntp=("192.168.1.1", 123)))
        show(TLS.unverified())
        show(TLS.unverified(server_hostname="broker.lan", ntp=None))
        print(type(TLS.unverified()) is TLS, module is not sys.modules["mqtt_as_tls.tls"])
        """,
        pki.ca.cert_pem,
    )
    assert out.splitlines() == [
        "True True None pool.ntp.org",
        "True True broker.lan None",
        "True True None ('192.168.1.1', 123)",
        "False False None pool.ntp.org",
        "False False broker.lan None",
        "True True",
    ]


# The broker's certificate is refused


@FORMS
@pytest.mark.parametrize(
    ("identity", "cause", "cure"),
    [
        ("broker_wrong_ca", "not from the CA", "low memory"),
        ("broker_self_signed", "not from the CA", "give the CA that signed it"),
        ("broker_wrong_name", "another name", "server_hostname="),
        ("broker_expired", "has expired", "renew"),
        ("broker_future", "not valid yet", "clock"),
    ],
)
def test_a_bad_certificate_is_refused_and_explained(mosquitto, pki, form, identity, cause, cure):
    broker = mosquitto(identity=getattr(pki, identity))
    result = handshake(broker.port, **files(form, pki.ca))
    assert_failed(result, "CertificateError", cause, cure)
    assert result["code"] is None
    assert result["raw"] == [result["cause"], result["cure"]]


@FORMS
def test_a_ca_that_the_board_does_not_hold_is_explained(tls_broker, pki, form):
    result = handshake(tls_broker.port, **files(form, pki.other_ca))
    assert_failed(result, "CertificateError", "not from the CA", "give the CA that signed it")


def test_a_name_that_nobody_certified_is_explained(tls_broker, pki):
    result = handshake(tls_broker.port, name="broker.example", ca=pki.ca.cert_der)
    assert_failed(result, "CertificateError", "another name", "reissue")


def test_a_leaf_cannot_be_pinned_unless_it_is_self_signed(tls_broker, pki):
    result = handshake(tls_broker.port, ca=pki.broker.cert_der)
    assert_failed(result, "CertificateError", "not from the CA", "give the CA that signed it")


def test_a_missing_intermediate_is_explained(mosquitto, pki):
    leaf = pki.broker_by_intermediate
    alone = Identity(pki.directory, "without intermediate", leaf.certificate, leaf.key)
    result = handshake(mosquitto(identity=alone).port, ca=pki.ca.cert_der)
    assert_failed(result, "CertificateError", "not from the CA", "certfile")


def test_an_expired_ca_is_explained(mosquitto, pki):
    ca = pki.issue("expired ca", "ca", valid_to=days(-1))
    broker = mosquitto(identity=pki.issue("broker of the expired ca", issuer=ca))
    result = handshake(broker.port, ca=ca.cert_der)
    assert_failed(result, "CertificateError", "CA has expired", "renew")


def test_several_faults_are_one_line(mosquitto, pki):
    broker = mosquitto(identity=pki.broker_wrong_ca)
    result = handshake(broker.port, name="elsewhere", ca=pki.ca.cert_der)
    assert_failed(result, "CertificateError", "not from the CA", "give the CA that signed it")
    assert "; " in result["reason"] and "CN" in result["reason"]


def test_a_client_certificate_as_the_broker_s_is_explained(mosquitto, pki):
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    broker = mosquitto(identity=odd(pki, "client as server", extensions=[(purpose, False)]))
    result = handshake(broker.port, ca=pki.ca.cert_der)
    assert_failed(result, "CertificateError", "not one for servers", "serverAuth", [-31232])


def test_an_unknown_critical_extension_is_explained(mosquitto, pki):
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    broker = mosquitto(identity=odd(pki, "critical", extensions=[(strange, True)]))
    result = handshake(broker.port, ca=pki.ca.cert_der)
    assert_failed(result, "CertificateError", "form", "reissue", [-9570])


def test_certificates_beyond_the_board_s_buffer_are_explained(mosquitto, pki):
    many = ["localhost", *(f"host{n:04}.example.org" for n in range(800))]
    result = handshake(mosquitto(identity=odd(pki, "huge", names=many)).port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "over 16 KB", "P-256", [-28928])


# The device's certificate is refused


@FORMS
@pytest.mark.parametrize(
    "device", [None, "device_expired", "device_wrong_ca", "device_wrong_usage"]
)
def test_a_device_that_the_broker_refuses_is_told_so(mtls_broker, pki, form, device):
    arguments = files(form, pki.ca, device and getattr(pki, device))
    result = handshake(mtls_broker.port, **arguments)
    assert_failed(
        result, "TLSError", "wants a certificate of the device", "cert=", [32, 104, -30592]
    )


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096"])
def test_a_key_of_another_certificate_is_refused(pki, kind):
    one, other = (
        odd(pki, f"{kind} {n}", key=new_key(kind), extensions=[]) for n in ("one", "other")
    )
    for form in ("key_der", "pkcs8_der"):
        given = files("der", pki.ca, one)
        assert refusal(**{**given, "key": getattr(one, form)}) == "accepted"
        assert "not the key of cert" in refusal(**{**given, "key": getattr(other, form)})


def test_a_key_of_another_certificate_is_refused_by_the_broker(mtls_broker, pki, tmp_path):
    """A key without its public half tells nothing before the handshake."""
    one, other = (pki.issue(f"half {n}", "client", issuer=pki.ca) for n in (1, 2))
    half = tmp_path / "half.der"
    numbers = other.key.private_numbers().private_value.to_bytes(32, "big")
    curve = bytes.fromhex("a00a06082a8648ce3d030107")
    body = b"\x02\x01\x01\x04\x20" + numbers + curve  # RFC 5915 section 3
    half.write_bytes(b"\x30" + bytes((len(body),)) + body)
    arguments = {**files("der", pki.ca, one), "key": str(half)}
    result = handshake(mtls_broker.port, **arguments)
    assert_failed(result, "TLSError", "wants a certificate of the device", "a pair")
    assert "bad signature" in mtls_broker.log()
    assert_connected(handshake(mtls_broker.port, **{**arguments, "cert": other.cert_der}))


def test_a_certificate_of_the_device_beyond_its_buffer_is_explained(mtls_broker, pki):
    many = [f"host{n:04}.example.org" for n in range(230)]
    arguments = files("der", pki.ca, odd(pki, "big", names=many))
    result = handshake(mtls_broker.port, heap="250K", **arguments)
    assert_failed(result, "TLSError", "over 4 KB", "P-256", [-27136])


# What the broker offers does not fit


def minimum_tls_1_3(context):
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def only_chacha20(context):
    context.set_ciphers("CHACHA20")


def only_brainpool(context):
    # X25519 is as good an example, and not every Python's OpenSSL can be told to take it alone
    context.set_ecdh_curve("brainpoolP256r1")


@FORMS
@pytest.mark.parametrize("tune", [minimum_tls_1_3, only_chacha20, only_brainpool])
def test_a_broker_without_a_common_version_cipher_or_curve_is_explained(pki, form, tune):
    with tls_server(pki.broker, tune) as port:
        result = handshake(port, **files(form, pki.ca))
    assert_failed(result, "TLSError", "in common", "TLS 1.2", [-30592])


def test_mosquitto_with_only_tls_1_3_is_explained(mosquitto, pki):
    broker = mosquitto(lines=["tls_version tlsv1.3"])
    result = handshake(broker.port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "in common", "TLS 1.2", [-30592, 104])


def test_an_ed25519_key_of_the_broker_is_explained(mosquitto, pki):
    key = ed25519.Ed25519PrivateKey.generate()
    result = handshake(mosquitto(identity=odd(pki, "ed", key=key)).port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "in common", "P-256", [-30592])


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_a_broker_that_is_too_old_is_explained(pki):
    def tune(context):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with tls_server(pki.broker, tune) as port:
        result = handshake(port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "no TLS 1.2", "tlsv1.2", [-28288])


# There is no TLS


@FORMS
def test_a_plain_mqtt_port_is_explained(broker, pki, form):
    result = handshake(broker.port, **files(form, pki.ca))
    assert_failed(result, "TLSError", "no TLS on this port", "8883", [104, 32, -29312])


def http(connection):
    connection.recv(2000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    connection.recv(1)


def plain_mqtt(connection):
    connection.recv(2000)
    connection.sendall(b"\x20\x02\x00\x01")
    connection.recv(1)


def test_an_http_server_is_explained(pki):
    with server(http) as port:
        result = handshake(port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "HTTP", "8883", [-29184])


def test_a_server_that_answers_four_bytes_and_waits_is_silence(pki):
    with server(plain_mqtt) as port:
        assert handshake(port, deadline_ms=300, ca=pki.ca.cert_der)["answer"] is None


def hang_up(connection):
    pass


def hang_up_after_hello(connection):
    connection.recv(2000)


def hang_up_in_the_middle(connection):
    connection.recv(2000)
    connection.sendall(b"\x16\x03\x03\x00\x50abc")


def reset(connection):
    connection.recv(2000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("handle", [hang_up, hang_up_after_hello, hang_up_in_the_middle, reset])
def test_a_server_that_hangs_up_is_explained(pki, handle):
    with server(handle) as port:
        result = handshake(port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "hung up", "log", [104, 32, -29312])


def test_a_server_that_says_goodbye_at_once_is_explained(pki):
    def goodbye(connection):
        connection.recv(2000)
        connection.sendall(b"\x15\x03\x03\x00\x02\x01\x00")
        connection.recv(1)

    with server(goodbye) as port:
        result = handshake(port, ca=pki.ca.cert_der)
    assert_failed(result, "TLSError", "hung up", "log", [-30848])


def test_a_silent_server_is_left_at_the_deadline(pki):
    with server(lambda connection: connection.recv(2000) and connection.recv(1)) as port:
        assert handshake(port, deadline_ms=300, ca=pki.ca.cert_der)["answer"] is None


# Memory runs out


@pytest.mark.timeout(300)  # the interpreter may have to be built
def test_low_memory_is_never_explained_without_naming_memory(tls_broker, pki, monkeypatch):
    """It may look like a wrong CA; where TLS has the heap for its memory, as on rp2."""
    monkeypatch.setenv("MICROPYTHON", str(freeze.unix(32)))
    monkeypatch.setenv("MQTT_FROZEN", "1")
    out = mpy.check(
        """
        import gc, json, socket, sys
        from mqtt_as_tls.tls import TLS
        from tests.device.handshake import attempt
        tls = TLS(sys.argv[1])
        gc.collect()
        before = gc.mem_free()
        wrapped = tls.wrap(socket.socket(), "localhost")
        assert before - gc.mem_free() > 10000, "its TLS takes memory from elsewhere"
        wrapped.close()
        for left in range(16000, 48000, 1000):
            gc.collect()
            ballast = []
            while gc.mem_free() > left:
                ballast.append(bytearray(256))
            result = attempt(tls, "127.0.0.1", int(sys.argv[2]), "localhost")
            ballast = None
            gc.collect()
            print(json.dumps(result))
        """,
        pki.ca.cert_der,
        tls_broker.port,
        heap="190K",
        timeout_s=100,
    )
    results = [json.loads(line) for line in out.splitlines()]
    failed = [result for result in results if result["kind"]]
    for result in failed:
        assert "memory" in result["cause"] + result["cure"], result
    assert failed
    assert_connected(results[-1])


# What failure() makes of an error


def test_errors_of_a_handshake_join_the_tree(pki):
    out = mpy.check(
        """
        import json, sys
        from mqtt_as_tls.tls import TLS
        tls = TLS(sys.argv[1])
        tls.wrap(__import__("socket").socket(), "localhost").close()
        for error in (
            MemoryError("memory allocation failed"),
            OSError(12),
            OSError(16),
            OSError(-20864, "MBEDTLS_ERR_MD_ALLOC_FAILED"),
            OSError(-17040),
            OSError(-10368),
            OSError(-9984),
            OSError(-8960),
            OSError(104),
            OSError(),
            ValueError("\\nOne\\n\\nTwo\\n"),
            KeyError("x"),
        ):
            made = tls.failure(error)
            if made is None:
                print(None)
            else:
                print(json.dumps([type(made).__name__, made.code, made.reason, made.cure]))
        """,
        pki.ca.cert_der,
    )
    memory, broken = "TLS handshake out of memory (%s)", "TLS handshake broken off (%s)"
    expected = [
        *(["TLSError", n, memory % n, ""] for n in (12, 12, 16, -20864, -17040, -10368)),
        *(["CertificateError", n, broken % n, ""] for n in (-9984, -8960)),
        *(["TLSError", n, broken % n, ""] for n in (104, None)),
        ["CertificateError", None, "One; Two", ""],
    ]
    *made, unknown = out.splitlines()
    assert [json.loads(line) for line in made] == expected
    assert unknown == "None"
