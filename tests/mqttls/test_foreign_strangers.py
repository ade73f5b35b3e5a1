"""What strangers were given: keystores, files that went through a mail, hostile passphrases."""

import base64
import os
import shutil
import ssl
import subprocess
import textwrap

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support import mpy
from tests.support import pki as made
from tests.support.doctoring import doctor, forge, mqttls, server_context, tls_server
from tools.mqttls import certificates, convert, odd_names, pfx, pkcs8
from tools.mqttls.der_form import element, elements, packed
from tools.mqttls.messages import Failure, shell

CPYTHON_ONLY = True
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()
with_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="no program openssl")
SECRET = b"secret"


class Secret:
    """Tells the passphrase."""

    tries = 1

    def __call__(self, name, is_again):
        return SECRET


def told(data):
    """Return the text of the Failure that the file `data` (bytes) ends in."""
    with pytest.raises(Failure) as caught:
        convert.identity(convert.parts(data, "FILE", Secret()), "FILE")
    text = f"{caught.value.fact} | {caught.value.cause} | {caught.value.cure}"
    assert "\n" not in text and "secret" not in text
    return text


def is_that(held, device):
    found = convert.identity(held, "FILE")
    assert found.certificate == device.certificate
    assert found.key.private_numbers() == device.key.private_numbers()
    return True


# Texts that went through other programs


def _texts(device):
    text = device.certificate.public_bytes(PEM).decode()
    text += device.key.private_bytes(PEM, PKCS8, PLAIN).decode()
    packed_once = base64.b64encode(text.encode()).decode()
    return {
        "word processor": text.replace("-----", "\u2013\u2013\u2013"),
        "four hyphens": text.replace("-----", "----"),
        "blanks": text.replace("-----BEGIN", "----- BEGIN").replace("KEY-----", "KEY -----"),
        "small letters": text.replace("BEGIN CERTIFICATE", "Begin Certificate").replace(
            "END CERTIFICATE", "End Certificate"
        ),
        "mail": textwrap.indent(text, "> ", lambda line: True),
        "C": "".join(f'"{line}\\n" \\\n' for line in text.splitlines()),
        "Python": repr(text.encode()),
        "base64 once more": packed_once,
        "base64 in lines": textwrap.fill(packed_once, 76),
    }


def test_texts_of_other_programs_become_the_same(pki):
    for name, text in _texts(pki.device).items():
        assert is_that(convert.parts(text.encode(), name), pki.device), name


def test_what_certutil_wraps_is_read(pki):
    device = pki.device
    whole = pkcs12.serialize_key_and_certificates(
        b"d", device.key, device.certificate, None, PLAIN
    )
    lines = b"-----BEGIN CERTIFICATE-----\r\n%s-----END CERTIFICATE-----\r\n"
    wrapped = lines % base64.encodebytes(whole)
    assert is_that(convert.parts(wrapped, "F"), device)
    for _ in range(6):  # and what somebody did again and again
        wrapped = lines % base64.encodebytes(wrapped)
    assert is_that(convert.parts(wrapped, "F"), device)


def test_what_stands_in_a_damaged_block_is_named(pki):
    text = pki.device.certificate.public_bytes(PEM).replace(b"\n", b"\x1b<br>\n")
    assert r"\x1b < stands in it" in told(text)


# Keys and PFX that Python's cryptography does not open


@with_openssl
@pytest.mark.parametrize(
    "line",
    [
        "ec -in {} -aes192 -passout pass:secret",
        "ec -in {} -camellia256 -passout pass:secret",
        "pkcs8 -topk8 -in {} -v2 aria-256-cbc -passout pass:secret",
        "pkcs8 -topk8 -in {} -v2 camellia-256-cbc -passout pass:secret",
        "pkcs8 -topk8 -in {} -v2 aes-256-cbc -v2prf hmacWithSHA512-256 -passout pass:secret",
        "pkcs8 -topk8 -in {} -v1 PBE-MD5-DES -passout pass:secret -provider legacy "
        "-provider default",
    ],
)
def test_a_key_in_a_lock_that_only_openssl_knows(pki, tmp_path, line):
    path = tmp_path / "locked.key"
    words = line.format(pki.device.key_pem).split()
    made = subprocess.run(["openssl", *words, "-out", path], capture_output=True)
    if made.returncode:
        pytest.skip("this openssl does not make such a key")
    certificate = pki.device.certificate.public_bytes(PEM)
    try:
        held = convert.load(path, Secret())
    except Failure as failure:
        assert "cannot be decrypted here" in failure.fact
        assert "only openssl knows" in failure.cause or "1990s" in failure.cause
        command = failure.cure.partition(": ")[2].partition(", then")[0]
        command = command.replace(shell("a", "b")[1:-1], " ").replace("NEW", str(tmp_path / "NEW"))
        subprocess.run(
            [*command.split(), "-passin", "pass:secret"], check=True, capture_output=True
        )
        held = convert.load(tmp_path / "NEW")
    held.add(convert.parts(certificate, "F"))
    assert is_that(held, pki.device)


def _sequence(*parts):
    return packed(0x30, b"".join(parts))


_OID = {
    "data": bytes.fromhex("06092a864886f70d010701"),
    "encrypted": bytes.fromhex("06092a864886f70d010706"),
    "shrouded": bytes.fromhex("060b2a864886f70d010c0a0102"),
    "pbes2": bytes.fromhex("06092a864886f70d01050d"),
    "pbkdf2": bytes.fromhex("06092a864886f70d01050c"),
    "pbmac1": bytes.fromhex("06092a864886f70d01050e"),
    "scrypt": bytes.fromhex("06092b06010401da47040b"),
    "hmac": bytes.fromhex("06082a864886f70d0209"),
    "aes": bytes.fromhex("060960864801650304012a"),
}


def _integer(value):
    return packed(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _lock(salt, start, rounds):
    """The algorithm PBES2 with PBKDF2 and AES."""
    hmac = _sequence(_OID["hmac"], b"\x05\0")
    function = _sequence(_OID["pbkdf2"], _sequence(packed(4, salt), _integer(rounds), hmac))
    return _sequence(_OID["pbes2"], _sequence(function, _sequence(_OID["aes"], packed(4, start))))


def _locked(plain, rounds):
    """Return (algorithm, what is encrypted by it)."""
    salt, start = os.urandom(8), os.urandom(16)
    key = PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(SECRET)
    size = 16 - len(plain) % 16
    cipher = Cipher(algorithms.AES(key), modes.CBC(start)).encryptor()
    return _lock(salt, start, rounds), cipher.update(plain + bytes([size]) * size)


def _pfx_with_a_hidden_key(key, rounds):
    """A PFX whose key, in a lock of its own, lies in an encrypted part."""
    plain = key.private_bytes(DER, PKCS8, PLAIN)
    if rounds < 10_000:
        algorithm, data = _locked(plain, rounds)
    else:
        algorithm, data = _lock(bytes(8), bytes(16), rounds), bytes(160)
    shrouded = _sequence(algorithm, packed(4, data))
    bags = _sequence(_sequence(_OID["shrouded"], packed(0xA0, shrouded)))
    algorithm, data = _locked(bags, 1000)
    content = _sequence(_OID["data"], algorithm, packed(0x80, data))
    part = _sequence(_OID["encrypted"], packed(0xA0, _sequence(b"\2\1\0", content)))
    safe = _sequence(_OID["data"], packed(0xA0, packed(4, _sequence(part))))
    return _sequence(b"\2\1\3", safe)


def test_rounds_that_are_hidden_in_an_encrypted_part_end(pki, monkeypatch):
    good = _pfx_with_a_hidden_key(pki.device.key, 1000)
    held = convert.parts(good, "F", Secret())
    assert held.keys[0].private_numbers() == pki.device.key.private_numbers()
    hostile = _pfx_with_a_hidden_key(pki.device.key, 2**31 - 1)
    assert pkcs8.rounds(hostile) == 1000, "nobody sees it"
    monkeypatch.setattr(pfx, "LONGEST_S", 2)
    assert "hashed more than" in told(hostile)


def test_a_pfx_is_opened_without_what_lies_in_the_folder(pki, tmp_path, monkeypatch):
    for name in ("cryptography", "json", "base64"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    device = pki.device
    data = pkcs12.serialize_key_and_certificates(b"d", device.key, device.certificate, None, PLAIN)
    assert is_that(convert.parts(data, "F"), device)
    assert not (tmp_path / "ran").exists()


def test_the_parameters_of_scrypt_count_together():
    numbers = b"".join(map(_integer, (16384, 8, 1_000_000)))
    function = _sequence(_OID["scrypt"], _sequence(packed(4, bytes(8)), numbers))
    aes = _sequence(_OID["aes"], packed(4, bytes(16)))
    data = _sequence(_sequence(_OID["pbes2"], _sequence(function, aes)), packed(4, bytes(160)))
    assert pkcs8.rounds(data) > pkcs8.MOST_ROUNDS
    assert "hashed more than" in told(data)


@with_openssl
def test_a_scrypt_of_openssl_is_opened(pki, tmp_path):
    line = ["openssl", "pkcs8", "-topk8", "-in", pki.device.key_pem, "-scrypt"]
    path = tmp_path / "scrypt.key"
    subprocess.run([*line, "-passout", "pass:secret", "-out", path], check=True)
    assert len(convert.load(path, Secret()).keys) == 1


@with_openssl
def test_a_pfx_with_the_newer_checksum(pki, tmp_path):
    device, lock = pki.device, serialization.BestAvailableEncryption(SECRET)
    whole = pkcs12.serialize_key_and_certificates(b"d", device.key, device.certificate, None, lock)
    version, safe, _ = elements(element(whole)[1])
    hmac = _sequence(_OID["hmac"], b"\x05\0")
    function = _sequence(
        _OID["pbkdf2"], _sequence(packed(4, bytes(8)), _integer(2048), _integer(32), hmac)
    )
    algorithm = _sequence(_OID["pbmac1"], _sequence(function, hmac))
    mac = _sequence(_sequence(algorithm, packed(4, bytes(32))), packed(4, b"NOT USED"), b"\2\1\1")
    path = tmp_path / "new.p12"
    path.write_bytes(_sequence(version, safe, mac))
    with pytest.raises(Failure) as caught:
        convert.load(path, Secret())
    assert "PBMAC1" in caught.value.cause
    command = caught.value.cure.partition(": ")[2].partition(", then")[0]
    command = command.replace(shell("a", "b")[1:-1], " ").replace("NEW", str(tmp_path / "NEW"))
    subprocess.run([*command.split(), "-passin", "pass:secret"], check=True, capture_output=True)
    assert is_that(convert.load(tmp_path / "NEW"), device)


# Keystores of Java


@pytest.fixture
def keystore(tmp_path):
    """A function that returns a PKCS#12 keystore of keytool with entries for these commands."""
    if not shutil.which("keytool"):
        pytest.skip("no keytool of Java")

    def make(*commands):
        path = tmp_path / "store.p12"
        for number, words in enumerate(commands):
            common = ["-alias", f"a{number}", "-keystore", path, "-storepass", "secret"]
            subprocess.run(
                ["keytool", *words.split(), *common, "-storetype", "PKCS12"],
                check=True,
                capture_output=True,
            )
        return path

    return make


KEY = "-genkeypair -keyalg EC -groupname secp256r1 -dname CN=device"


def test_a_keystore_of_java_is_read(keystore):
    held = convert.load(keystore(KEY), Secret())
    assert len(held.keys) == len(held.certificates) == 1
    assert convert.identity(held, "F").chain == []


def test_of_two_keys_in_a_keystore_none_is_taken(keystore):
    text = told(keystore(KEY, KEY).read_bytes())
    assert "2 private keys" in text and "-srcalias" in text


def test_a_keystore_with_trusted_certificates_only(keystore, pki):
    path = keystore(f"-importcert -noprompt -file {pki.ca.cert_pem}")
    assert convert.load(path, Secret()).certificates == [pki.ca.certificate]
    assert "no private key" in told(path.read_bytes())


def test_a_keystore_with_neither(keystore):
    text = told(keystore("-genseckey -keyalg AES -keysize 128").read_bytes())
    assert "neither a certificate nor a private key" in text


# What `use` says of others' authorities


def used(port, tmp_path, *words):
    said = mqttls("use", f"localhost:{port}", *words, "--dir", tmp_path / "pki")
    problem = said["problems"][0]
    assert said["exit"] == 1 and problem["cure"]
    return problem


def test_the_right_ca_that_boards_cannot_use_is_not_called_another(pki, tmp_path):
    constraints = x509.PolicyConstraints(0, None)
    for name, options, words in (
        ("strict ca", {"basic": (True, None), "more": [(constraints, True)]}, "policyConstraints"),
        ("half a ca", {"basic": None}, "CA:TRUE"),
    ):
        ca = forge(pki, name, "", key_usage="key_cert_sign", **options)
        leaf = forge(pki, f"leaf of {name}", issuer=ca)
        with tls_server(server_context(leaf)) as port:
            problem = used(port, tmp_path, "--ca", ca.cert_der)
        assert words in problem["fact"], problem
        assert "mqttls init" not in problem["cure"], "it is somebody else's"


def test_an_expired_intermediate_is_told_and_not_another_ca(pki, tmp_path):
    between = pki.issue("old issuing ca", "ca", issuer=pki.ca, valid_to=made.days(-1))
    leaf = pki.issue("leaf of the old one", issuer=between)
    with tls_server(server_context(leaf)) as port:
        problem = used(port, tmp_path, "--ca", pki.ca.cert_der)
        assert "old issuing ca" in problem["fact"] and "expired" in problem["fact"], problem
        assert problem["stage"] == "dates" and "certfile" in problem["cure"]
        doctor(port, ca=pki.ca).names(14, "dates", "old issuing ca")


def test_a_name_that_is_not_as_dns_has_it_is_told_by_doctor_and_use_alike(capsys):
    for line in (
        ["doctor", "localhost", "--name", "bücher.lan"],
        ["use", "l", "--name", "a.lan."],
    ):
        said = mqttls(*line)
        assert said["exit"] == 2 and ("xn--bcher-kva.lan" in str(said) or "dot" in str(said))


def test_the_root_without_the_intermediate_names_both_ways(pki, tmp_path):
    leaf = pki.broker_by_intermediate
    context = server_context(leaf)
    context.load_cert_chain(leaf.cert_pem, leaf.key_pem)
    with tls_server(context) as port:
        problem = used(port, tmp_path, "--ca", pki.ca.cert_der)
        assert "its owner must have the broker send" in problem["cure"]
        said = mqttls(
            *("use", f"localhost:{port}", "--ca", pki.intermediate_ca.cert_der),
            *("--dir", tmp_path / "pki"),
        )
    assert said["exit"] == 0, "the other cure cures"


def test_another_ca_of_the_same_name_is_told_by_its_signature(pki, tmp_path):
    """As after a second run of the script that makes a CA; here even the key ids are the same."""
    right = forge(pki, "twin ca", "", basic=(True, None), key_usage="key_cert_sign")
    other = forge(
        pki, "other twin ca", "", basic=(True, None), key_usage="key_cert_sign", subject="twin ca"
    )
    same_id = x509.SubjectKeyIdentifier.from_public_key(right.key.public_key())
    name = other.certificate.subject
    lying = (
        x509.CertificateBuilder(name, name, other.key.public_key(), 7)
        .not_valid_before(made.EPOCH)
        .not_valid_after(made.days(99))
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(same_id, False)
        .sign(other.key, hashes.SHA256())
    )
    (tmp_path / "lying.crt").write_bytes(lying.public_bytes(serialization.Encoding.PEM))
    leaf = forge(pki, "leaf of twin", issuer=right)
    with tls_server(server_context(leaf)) as port:
        for path in (other.cert_pem, tmp_path / "lying.crt"):
            problem = used(port, tmp_path, "--ca", path)
            assert "has its name, and another key" in problem["cure"], problem
            word = doctor(port, "--ca", path)
            word.names(17, "chain", "another CA named twin ca", "mqttls provision")
        said = mqttls(
            *("use", f"localhost:{port}", "--ca", other.cert_pem, "--ca", right.cert_pem),
            *("--dir", tmp_path / "pki"),
        )
        assert said["exit"] == 0 and len(said["trusted"]) == 2, said


def test_an_expired_certificate_of_others_is_not_renewed_with_our_command(pki, tmp_path):
    with tls_server(server_context(pki.broker_expired)) as port:
        problem = used(port, tmp_path, "--ca", pki.ca.cert_der)
    assert "expired" in problem["fact"] and "mqttls renew" not in problem["cure"]


# Names as older authorities spell them


def respelled(certificate, key, names):
    """Return the DER of a certificate with these common names as PrintableString."""
    outer = elements(element(certificate.public_bytes(DER))[1])
    tbs = outer[0]
    for name in names:
        before = b"\x06\x03\x55\x04\x03\x0c" + bytes([len(name)]) + name
        assert before in tbs
        tbs = tbs.replace(before, before.replace(b"\x0c", b"\x13", 1))
    signature = key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return _sequence(tbs, outer[1], packed(3, b"\0" + signature))


@pytest.fixture
def odd(pki, tmp_path):
    """(path of a CA, its port): both it and the broker have names that are no PrintableString."""
    ca = forge(pki, "my_ca@lan", "", basic=(True, None), key_usage="key_cert_sign crl_sign")
    leaf = forge(pki, "*.my_lan", issuer=ca)
    names = (b"my_ca@lan",)
    root, own = tmp_path / "root.pem", tmp_path / "chain.pem"
    root.write_text(ssl.DER_cert_to_PEM_cert(respelled(ca.certificate, ca.key, names)))
    names = (b"my_ca@lan", b"*.my_lan")
    own.write_text(ssl.DER_cert_to_PEM_cert(respelled(leaf.certificate, ca.key, names)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, leaf.key_pem)
    with tls_server(context) as port:
        yield root, port


@pytest.mark.usefixtures("micropython")
def test_names_that_only_python_refuses_are_read(odd, tmp_path):
    root, port = odd
    word = doctor(port, "--ca", root)
    assert word.problems == [] and word.attempt["ok"], word
    assert word.json["stages"]["chain"]["detail"].startswith("*.my_lan")
    assert not any("cannot be read" in each["fact"] for each in word.remarks.values())
    folder = tmp_path / "pki"
    said = mqttls("use", f"localhost:{port}", "--ca", root, "--dir", folder)
    assert said["exit"] == 0 and said["trusted"][0]["name"] == "my_ca@lan", said
    assert mqttls("device", "add", "kitchen", "--dir", folder)["exit"] == 0
    der = ssl.PEM_cert_to_DER_cert(root.read_text())
    assert (folder / "devices/kitchen/ca.der").read_bytes() == der, "as it was signed"
    assert mqttls("status", "--dir", folder)["exit"] == 0
    assert mqttls("doctor", "--device", "kitchen", "--dir", folder)["exit"] == 0


def test_a_name_that_is_no_name_stays_unreadable(pki):
    der = respelled(pki.device.certificate, pki.ca.key, (b"device",))
    with pytest.raises(ValueError, match="not the DER"):
        odd_names.load(der)
    for at in range(len(der)):  # cut anywhere
        with pytest.raises(ValueError):
            certificates.from_der(der[:at])


# Numbers of EC keys as others write them


def _with_number(key, size, pkcs8_form):
    """Return an EC key as DER whose private number has `size` bytes."""
    sec1 = key.private_bytes(DER, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN)
    parts = elements(element(sec1)[1])
    parts[1] = packed(4, key.private_numbers().private_value.to_bytes(size, "big"))
    if not pkcs8_form:
        return _sequence(*parts)
    whole = elements(element(key.private_bytes(DER, PKCS8, PLAIN))[1])
    inner = [each for each in parts if each[:1] != b"\xa0"]
    return _sequence(whole[0], whole[1], packed(4, _sequence(*inner)))


@pytest.fixture(scope="module")
def small_key():
    """A P-256 key whose number has 31 bytes: one of 256 has."""
    while True:
        key = ec.generate_private_key(ec.SECP256R1())
        if key.private_numbers().private_value < 1 << 248:
            return key


@pytest.mark.parametrize("pkcs8_form", [False, True])
@pytest.mark.parametrize("size", [31, 33])
def test_a_key_with_a_zero_too_many_or_too_few_is_read(pki, tmp_path, small_key, size, pkcs8_form):
    der = _with_number(small_key, size, pkcs8_form)
    with pytest.raises(ValueError):
        serialization.load_der_private_key(der, None)
    held = convert.parts(der, "F")
    assert held.keys[0].private_numbers() == small_key.private_numbers()
    certificate = made.signed("small", small_key, pki.ca, [])
    cert, key = tmp_path / "small.crt", tmp_path / "small.key"
    cert.write_bytes(certificate.public_bytes(PEM))
    key.write_bytes(der)
    word = doctor(None, "--ca", pki.ca.cert_der, "--cert", cert, "--key", key)
    assert word.problems == [], word
    program = "import sys\nfrom mqtt_as_tls import TLS\nTLS(*sys.argv[1:])"
    mpy.check(program, pki.ca.cert_der, cert, key)


def test_a_key_with_a_number_that_no_curve_has_is_damaged(small_key):
    der = _with_number(small_key, 40, False)
    curve = packed(0xA0, bytes.fromhex("06082a8648ce3d030107"))
    beyond = _sequence(b"\2\1\1", packed(4, b"\xff" * 40), curve)
    for data in (der[:20], beyond, _sequence(b"\2\1\1", packed(4, b"\x01" * 32))):
        with pytest.raises((ValueError, TypeError)):
            certificates.key_from_der(data)


@pytest.mark.usefixtures("micropython")
def test_a_root_of_version_1_is_one_for_a_board(pki, tmp_path):
    ca = forge(pki, "old root", "", basic=None, key_usage=None)
    leaf = forge(pki, "leaf of old root", issuer=ca)
    outer = elements(element(ca.certificate.public_bytes(DER))[1])
    fields = elements(element(outer[0])[1])
    tbs = _sequence(*fields[1:7])  # without the version and without extensions
    signature = ca.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    root = tmp_path / "root.der"
    root.write_bytes(_sequence(tbs, outer[1], packed(3, b"\0" + signature)))
    with tls_server(server_context(leaf)) as port:
        assert doctor(port, "--ca", root).problems == []
        said = mqttls("use", f"localhost:{port}", "--ca", root, "--dir", tmp_path / "pki")
    assert said["exit"] == 0 and said["trusted"][0]["name"] == "old root", said
