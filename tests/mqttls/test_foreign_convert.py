"""
What users were given becomes what a board takes, whatever it came in; and what is no certificate
and no key ends in one sentence.
"""

import base64
import os
import shutil
import subprocess
import textwrap

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import pki as made
from tools.mqttls import certificates, convert, pkcs8
from tools.mqttls.messages import Failure, shell

CPYTHON_ONLY = True
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8
PLAIN = serialization.NoEncryption()
OPENSSL = pytest.mark.skipif(not shutil.which("openssl"), reason="no program openssl")


class Secret:
    """Tells passphrases in turn."""

    def __init__(self, *words):
        self.words, self.tries, self.asked = list(words), len(words), []

    def __call__(self, name, is_again):
        assert is_again == bool(self.asked)
        self.asked.append(name)
        return self.words.pop(0)


@pytest.fixture(scope="module")
def device(pki):
    """A device's Identity of tests, whose CA is below the root."""
    return pki.issue("a device", "client", issuer=pki.intermediate_ca)


def pem(*identities):
    return b"".join(each.certificate.public_bytes(PEM) for each in identities)


def key_of(identity, encoding=PEM, form=PKCS8, word=None):
    lock = serialization.BestAvailableEncryption(word) if word else PLAIN
    return identity.key.private_bytes(encoding, form, lock)


def pfx(identity, cas, word=None, lock=None):
    if lock is None:
        lock = serialization.BestAvailableEncryption(word) if word else PLAIN
    others = [each.certificate for each in cas]
    return pkcs12.serialize_key_and_certificates(
        b"name", identity.key, identity.certificate, others, lock
    )


def p7b(encoding, *identities):
    return pkcs7.serialize_certificates([each.certificate for each in identities], encoding)


def is_that(held, device, pki):
    found = convert.identity(held, "FILE")
    assert found.certificate == device.certificate
    assert found.key.private_numbers() == device.key.private_numbers()
    assert found.chain == [pki.intermediate_ca.certificate]
    own, chain = found.cert_der, found.chain
    assert own == b"".join(map(certificates.cert_der, (device.certificate, *chain)))
    return True


def fails(data, *words, secret=None):
    """Assert that `data` ends in a Failure with `words`; return its text."""
    with pytest.raises(Failure) as caught:
        convert.identity(convert.parts(data, "FILE", secret), "FILE")
    text = f"{caught.value.fact} | {caught.value.cause} | {caught.value.cure}"
    assert "\n" not in text
    for word in words:
        assert word in text, text
    return text


# Each form


def forms(device, pki):
    inter, root = pki.intermediate_ca, pki.ca
    key = key_of(device)
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    both = pem(device, inter, root) + key
    bare = base64.encodebytes(pfx(device, [inter, root]))
    return {
        "PEM": both,
        "key first, root first": key + pem(root, inter, device),
        "CRLF": both.replace(b"\n", b"\r\n"),
        "CR": both.replace(b"\n", b"\r"),
        "byte order mark": b"\xef\xbb\xbf" + both,
        "UTF-16 of Windows": both.decode().encode("utf-16"),
        "UTF-16 big": b"\xfe\xff" + both.decode().encode("utf-16-be"),
        "UTF-16 without mark": both.decode().encode("utf-16-le"),
        "no line end": both.rstrip(),
        "one line": both.replace(b"\n", b" ").replace(b" PRIVATE KEY", b" PRIVATE KEY"),
        "JSON": b'{"all": "' + both.replace(b"\n", rb"\n") + b'"}',
        "JSON of Windows": b'{"all": "' + both.replace(b"\n", rb"\r\n") + b'"}',
        "indented": textwrap.indent(both.decode(), "    ").encode(),
        "bag attributes": b"Bag Attributes\n    localKeyID: 01 \nsubject=CN = x\n" + both,
        "SEC1 with parameters": pem(device, inter) + parameters + key_of(device, form=SEC1),
        "DER, one after the other": b"".join(
            each.certificate.public_bytes(DER) for each in (inter, device)
        )
        + key_of(device, DER),
        "SEC1 DER": inter.certificate.public_bytes(DER)
        + device.certificate.public_bytes(DER)
        + key_of(device, DER, SEC1),
        "P7B and key": p7b(PEM, root, device, inter) + key,
        "P7B DER and key": p7b(DER, root, device, inter) + key_of(device, DER),
        "PFX": pfx(device, [root, inter]),
        "PFX in base64": bare,
        "PFX twice": pfx(device, [inter]) + pfx(device, [root, inter]),
        "trusted certificate": (pem(device, inter) + key).replace(
            b" CERTIFICATE-", b" TRUSTED CERTIFICATE-"
        ),
        "X509 label": (pem(device, inter) + key).replace(b" CERTIFICATE-", b" X509 CERTIFICATE-"),
        "a request beside it": _request(device) + both,
        "a public key beside it": device.key.public_key().public_bytes(
            PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        + both,
        "other certificates beside it": pem(pki.other_ca, pki.broker, device, inter) + key,
    }


@pytest.fixture(scope="module")
def every_form(device, pki):
    return forms(device, pki)


def _request(device):
    builder = x509.CertificateSigningRequestBuilder().subject_name(device.certificate.subject)
    return builder.sign(device.key, hashes.SHA256()).public_bytes(PEM)


def test_every_form_becomes_the_same(device, pki, every_form):
    for name, data in every_form.items():
        assert is_that(convert.parts(data, name), device, pki), name


def test_a_wrong_passphrase_that_seems_to_fit_is_asked_for_again(device, pki):
    """With the padding of CBC one of 256 does; what comes out is no key."""
    key = key_of(device, word=b"secret")
    for n in range(10_000):
        word = b"%d" % n
        try:
            serialization.load_pem_private_key(key, word)
        except ValueError as error:
            if "password" not in str(error).lower():
                break
    else:
        raise AssertionError("none of 10,000 seems to fit")
    secret = Secret(word, b"secret")
    assert is_that(convert.parts(pem(device, pki.intermediate_ca) + key, "F", secret), device, pki)


def test_an_encrypted_key_is_opened(device, pki):
    lock = serialization.BestAvailableEncryption(b"secret")
    key = device.key.private_bytes(PEM, PKCS8, lock)
    secret = Secret(b"wrong", b"secret")
    assert is_that(convert.parts(pem(device, pki.intermediate_ca) + key, "F", secret), device, pki)
    assert secret.asked == ["F", "F"]
    der = device.key.private_bytes(DER, PKCS8, lock)
    held = convert.parts(der, "F", Secret(b"secret"))
    held.add(convert.parts(pem(device, pki.intermediate_ca), "G"))
    assert is_that(held, device, pki)
    fails(key, "FILE", "wrong passphrase", secret=Secret(b"no"))
    fails(key, "encrypted", "openssl pkey")


def test_a_key_of_the_old_encrypted_form_is_opened(device, pki):
    lock = serialization.BestAvailableEncryption(b"secret")
    key = device.key.private_bytes(PEM, SEC1, lock)
    assert b"DEK-Info" in key
    for data in (key, key.replace(b"\n", b"\r\n"), key.decode().encode("utf-16")):
        held = convert.parts(data, "F", Secret(b"secret"))
        held.add(convert.parts(pem(device, pki.intermediate_ca), "G"))
        assert is_that(held, device, pki)
    fails(key, "wrong passphrase", secret=Secret(b"no"))


def _pbes(algorithm, mac):
    builder = serialization.PrivateFormat.PKCS12.encryption_builder().kdf_rounds(5)
    return builder.key_cert_algorithm(algorithm).hmac_hash(mac).build(b"secret")


def test_a_pfx_of_any_age_is_opened(device, pki):
    cas = [pki.intermediate_ca, pki.ca]
    modern = pfx(device, cas, b"secret")
    old = pfx(device, cas, lock=_pbes(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC, hashes.SHA1()))
    for data in (modern, old):
        assert is_that(convert.parts(data, "F", Secret(b"no", b"secret")), device, pki)
    fails(modern, "wrong passphrase", secret=Secret(b"no"))
    text = fails(old, "wrong passphrase", secret=Secret(b"no"))
    assert shell("openssl", "pkcs12", "-legacy", "-in", "FILE") in text
    assert "1990s" in text


@OPENSSL
def test_a_pfx_of_rc2_is_opened_or_the_way_is_shown(device, pki, tmp_path):
    path = tmp_path / "old.pfx"
    chain = pki.bundle(pki.intermediate_ca, pki.ca)
    line = ["openssl", "pkcs12", "-export", "-legacy", "-inkey", device.key_pem]
    line += ["-in", device.cert_pem, "-certfile", chain, "-out", path, "-passout", "pass:secret"]
    line += ["-keypbe", "PBE-SHA1-RC2-40", "-certpbe", "PBE-SHA1-RC2-40"]
    if subprocess.run(line, capture_output=True).returncode:
        pytest.skip("this openssl has no RC2")
    try:
        assert is_that(convert.load(path, Secret(b"secret")), device, pki)
    except Failure as failure:  # its OpenSSL has none
        assert "-legacy" in failure.cure


def test_p7b_alone_has_no_key(device, pki):
    fails(p7b(DER, device), "no private key", "1 certificate")


# What no board can use


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda: ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
        (lambda: ed448.Ed448PrivateKey.generate(), "Ed448"),
        (lambda: ec.generate_private_key(ec.SECP256K1()), "secp256k1"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "secp224r1"),
        (lambda: ec.generate_private_key(ec.BrainpoolP256R1()), "brainpoolP256r1"),
        (lambda: rsa.generate_private_key(65537, 1024), "1024"),
        (lambda: dsa.generate_private_key(1024), "DSA"),
    ],
)
def test_kinds_of_keys_that_boards_lack_are_named(pki, key, words):
    key = key()
    edwards = isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    certificate = made.signed("odd", key, None, [], hashed=None if edwards else hashes.SHA256())
    data = certificate.public_bytes(PEM) + key.private_bytes(PEM, PKCS8, PLAIN)
    fails(data, words, "P-256")


@OPENSSL
@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("openssl ec -param_enc explicit -in {}", ["spelled"]),
        ("openssl ec -conv_form compressed -in {}", ["compressed"]),
        ("openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", ["RSA-PSS"]),
        ("openssl genpkey -algorithm X25519", ["no certificate"]),
    ],
)
def test_odd_forms_of_keys_are_named(device, tmp_path, make, words):
    key, crt = tmp_path / "odd.key", tmp_path / "odd.crt"
    line = [*make.format(device.key_pem).split(), "-out", key]
    subprocess.run(line, check=True, capture_output=True)
    line = ["openssl", "req", "-x509", "-new", "-key", key, "-subj", "/CN=odd", "-days", "9"]
    subprocess.run([*line, "-out", crt], capture_output=True)
    data = key.read_bytes() + (crt.read_bytes() if crt.exists() else b"")
    fails(data, *words)


def test_a_compressed_key_is_made_an_ordinary_one(device, pki, tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("no program openssl")
    path = tmp_path / "compressed.key"
    line = ["openssl", "ec", "-in", device.key_pem, "-conv_form", "compressed", "-out", path]
    subprocess.run(line, check=True, capture_output=True)
    held = convert.parts(path.read_bytes() + pem(device, pki.intermediate_ca), "F")
    assert is_that(held, device, pki)
    der = certificates.key_der(convert.identity(held, "F").key)
    assert b"\x03B\0\x04" in der  # a point that is not compressed


# What does not belong together, or is something else


def test_a_key_and_a_certificate_that_do_not_belong_together(device, pki):
    fails(pem(device) + key_of(pki.device), "not that of the certificate of a device")
    both = pem(device, pki.device) + key_of(pki.device) + key_of(device)
    fails(both, "several certificates with keys: a device, device")


def test_of_two_certificates_for_one_key_the_newer_is_taken(pki):
    extensions = [(x509.BasicConstraints(False, None), True)]
    key = made.new_key()
    ends = (made.days(5), made.days(50), made.days(20))
    several = [made.signed("renewed", key, pki.ca, extensions, valid_to=each) for each in ends]
    data = b"".join(each.public_bytes(PEM) for each in several)
    data += key.private_bytes(PEM, PKCS8, PLAIN)
    assert convert.identity(convert.parts(data, "F"), "F").certificate == several[1]


def test_a_missing_half_is_named(device, pki):
    fails(pem(device), "no private key in FILE, but 1 certificate", "name the file")
    fails(key_of(device), "no certificate in FILE, but 1 private key")
    request = _request(device)
    fails(request, "a request for a certificate (CSR)", "name the other file")
    fails(request + key_of(device), "no certificate", "what comes back is the certificate")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 100, "neither a certificate nor a private key"),
        (b"hello", "neither a certificate nor a private key"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"<HTML>", "a web page"),
        (b"ssh-ed25519 AAAA", "a public key for SSH"),
        (b"PK\x03\x04" + bytes(50), "ZIP archive"),
        (b"\x30\x82\xff\xff", "damaged"),
        (b"\x30\x80\x30\x80" * 9, "damaged"),
        (b"\x30\x03\x02\x01\x03", "PKCS#12"),
        (b"-----BEGIN CERTIFICATE-----", "has no end"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", "damaged"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", "damaged"),
        (b"-----BEGIN CERTIFICATE-----\n?????\n-----END CERTIFICATE-----", "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----", "damaged"),
        (b"-----BEGIN PKCS7-----\nMAMCAQA=\n-----END PKCS7-----", "damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----", "for SSH"),
        (b"-----BEGIN X509 CRL-----\nx\n-----END X509 CRL-----", "revocation list"),
        (b"-----BEGIN CERTIFICATE-----\nM\n-----BEGIN CERTIFICATE-----\n", "has no end"),
    ],
)
def test_what_is_something_else_is_named(data, words):
    fails(data, words)


def test_a_cut_off_file_is_told(device, pki):
    whole = pem(device, pki.intermediate_ca) + key_of(device)
    fails(whole[:-20], "the block PRIVATE KEY has no end")
    der = device.certificate.public_bytes(DER)
    fails(der[:-20], "damaged")
    fails(pfx(device, [])[:-20], "PKCS#12 file (PFX) that is damaged")
    fails(p7b(DER, device)[:-20], "PKCS#7 file (P7B) that is damaged")


def test_a_file_that_is_none_is_told(tmp_path):
    def told(path):
        with pytest.raises(Failure) as caught:
            convert.load(path)
        return caught.value.fact

    assert "is a folder" in told(tmp_path)
    assert "cannot be read" in told(tmp_path / "nothing")
    assert "cannot be read" in told("a\0b")
    (tmp_path / "empty").write_bytes(b" \n")
    assert "is empty" in told(tmp_path / "empty")
    (tmp_path / "large").write_bytes(bytes(convert.LARGEST + 1))
    assert "more than 1 MB" in told(tmp_path / "large")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "a pipe that nobody writes into" in told(tmp_path / "pipe")
        assert "is a device" in told("/dev/zero")
    os.symlink(tmp_path / "round", tmp_path / "round")
    assert "cannot be read" in told(tmp_path / "round")


@pytest.mark.parametrize("kind", ["pfx", "pfx without a passphrase", "key", "key as PEM"])
def test_a_passphrase_that_takes_hours_is_not_tried(device, tmp_path, kind):
    """Nothing could interrupt it: the number stands in the file, which may be of anybody."""
    word = "pass:" if "without" in kind else "pass:abc"
    rounds = 100_001
    common = ["-passout", word, "-iter", str(rounds)]
    if kind.startswith("pfx"):
        made = ["pkcs12", "-export", "-in", device.cert_pem, "-inkey", device.key_pem]
        made += ["-keypbe", "AES-256-CBC", "-certpbe", "AES-256-CBC"]
    else:
        made = ["pkcs8", "-topk8", "-in", device.key_pem, "-outform", "DER"]
    subprocess.run(
        ["openssl", *made, *common, "-out", tmp_path / "made"], check=True, capture_output=True
    )
    data = (tmp_path / "made").read_bytes()
    old = b"\x02\x03" + rounds.to_bytes(3, "big")
    assert old in data and pkcs8.rounds(data) == rounds
    data = data.replace(old, b"\x02\x03\x7f\xff\xff")
    if kind == "key as PEM":
        body = base64.encodebytes(data)
        name = b"ENCRYPTED PRIVATE KEY-----\n"
        data = b"-----BEGIN " + name + body + b"-----END " + name
    fails(data, "hashed more than", secret=lambda *_: pytest.fail("it asks for a passphrase"))
    if "key" in kind:  # as the key of an authority in somebody else's folder
        (tmp_path / "made").write_bytes(data)
        with pytest.raises(Failure, match="is damaged"):
            certificates.load_key(tmp_path / "made", lambda: b"abc")


def test_a_folder_gives_what_belongs_to_it(device, pki, tmp_path):
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "README").write_text("hello")
    (folder / "picture.png").write_bytes(bytes(range(256)) * 9)
    (folder / "x-certificate.pem.crt").write_bytes(pem(device))
    (folder / "x-private.pem.key").write_bytes(key_of(device))
    (folder / "below").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    found = convert.load_folder(folder)
    assert [os.path.basename(path) for path, _ in found] == [
        "x-certificate.pem.crt",
        "x-private.pem.key",
    ]
    for number in range(60):
        (folder / str(number)).touch()
    with pytest.raises(Failure, match="files"):
        convert.load_folder(folder)


def test_a_bundle_of_many_is_read_whole(pki):
    many = pem(pki.ca) * 400 + pem(pki.other_ca)
    assert len(convert.parts(many, "F").certificates) == 2
    fails(pem(pki.ca) * 1001, "more than 1000 parts")


# Any order and mix of the parts, and anything between them

LETTERS = st.text(st.characters(codec="ascii", exclude_characters="-\\"), max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_order_and_mix_of_the_parts_is_the_same(device, pki, data):
    draw = data.draw
    inter, root = pki.intermediate_ca, pki.ca
    parts = [key_of(device, form=draw(st.sampled_from([PKCS8, SEC1])))]
    if draw(st.booleans()):
        parts.append(p7b(PEM, *draw(st.permutations([device, inter, root]))))
    else:
        parts += [pem(device), pem(inter)]
    more = [pem(root), pem(pki.other_ca), _request(device), pem(device)]
    parts += draw(st.lists(st.sampled_from(more), max_size=3))
    between = draw(st.lists(LETTERS, min_size=len(parts) + 1, max_size=len(parts) + 1))
    text = ""
    for garbage, part in zip(between, draw(st.permutations(parts)), strict=False):
        text += f"{garbage}\n{part.decode()}"
    text += between[-1]
    end = draw(st.sampled_from(["\n", "\r\n", "\r", "\n\n", " \n\t"]))
    coding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]))
    assert is_that(convert.parts(text.replace("\n", end).encode(coding), "F"), device, pki)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_anything_else_is_the_same_or_one_sentence(device, every_form, data):
    draw = data.draw
    whole = draw(st.sampled_from(list(every_form.values())))
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, len(whole))), draw(st.integers(0, 30))
        piece = draw(
            st.one_of(
                st.binary(max_size=30),
                st.sampled_from(
                    [b"-----BEGIN ", b"-----END CERTIFICATE-----", b"\0", b"\xff\xfe"]
                ),
            )
        )
        whole = whole[:at] + piece + whole[at + size :]
    try:
        found = convert.identity(convert.parts(whole, "F", Secret(b"x")), "F")
    except Failure as failure:
        for text in (failure.fact, failure.cause, failure.cure):
            assert "\n" not in text
        assert failure.fact and failure.cure
    else:
        assert found.key.private_numbers() == device.key.private_numbers()


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\x30\x80", b"\x30\x82\1\0\2\1\3", b"\x30"])
)
def test_bytes_at_random_are_one_sentence(data, start):
    with pytest.raises(Failure) as caught:
        convert.identity(convert.parts(start + data, "F", Secret(b"x")), "F")
    assert "\n" not in caught.value.fact
