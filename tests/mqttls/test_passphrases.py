"""The passphrase of the authority's key, and files with secrets."""

import os
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization

from tools.mqttls import certificates, cli, passphrase, pkcs8
from tools.mqttls.messages import Failure

INIT = ("init", "--broker", "127.0.0.1", "--broker", "broker.lan")
RIGHT = "correct horse battery"


@pytest.fixture
def secret(tmp_path, monkeypatch):
    path = tmp_path / "passphrase"
    path.touch(0o600)

    def write(text):
        path.write_text(text + "\n")
        monkeypatch.setenv(passphrase.VARIABLE, str(path))
        return path

    return write


def says(capsys, folder, *command, code=0):
    capsys.readouterr()
    assert cli.main([*command, "--dir", str(folder)]) == code
    return "".join(capsys.readouterr())


def test_who_has_the_file_guesses_slowly(tmp_path, secret, capsys):
    pki, path = tmp_path / "pki", secret(RIGHT)
    says(capsys, pki, *INIT, "--encrypt-ca")
    shown = ["openssl", "asn1parse", "-in", pki / "ca.key"]
    said = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    assert "PBES2" in said and "INTEGER           :0927C0" in said  # 600,000
    assert "hmacWithSHA256" in said and "aes-256-cbc" in said
    opened = ["openssl", "pkey", "-in", pki / "ca.key", "-passin", f"file:{path}", "-pubout"]
    public = subprocess.run(opened, capture_output=True, check=True).stdout
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    mine = certificates.load(pki / "ca.crt").public_key()
    assert mine.public_bytes(serialization.Encoding.PEM, form) == public


@pytest.mark.parametrize(
    ("kind", "secret"), [("p256", "x"), ("p384", "ä ß"), ("p521", "y" * 200), ("rsa2048", "z")]
)
def test_every_kind_of_key_is_read_back(monkeypatch, tmp_path, kind, secret):
    monkeypatch.setattr(pkcs8, "ROUNDS", 1000)
    key = certificates.new_key(kind)
    (tmp_path / "key").write_bytes(certificates.key_pem(key, secret.encode()))
    found = certificates.load_key(tmp_path / "key", secret.encode)
    assert found.private_numbers() == key.private_numbers()
    with pytest.raises(Failure, match="wrong passphrase"):
        certificates.load_key(tmp_path / "key", lambda: b"another")


def test_a_key_of_an_older_version_is_told_and_mended(tmp_path, secret, capsys):
    pki = tmp_path / "pki"
    says(capsys, pki, *INIT)
    key = certificates.load_key(pki / "ca.key")
    weak = serialization.BestAvailableEncryption(b"abc")
    pem, pkcs = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (pki / "ca.key").write_bytes(key.private_bytes(pem, pkcs, weak))
    said = says(capsys, pki, "status", code=1)
    assert "guessed fast" in said
    assert "mqttls init --broker 127.0.0.1 --broker broker.lan --encrypt-ca --dir" in said
    secret("abc")  # short, but it is the one that it has
    says(capsys, pki, *INIT, "--encrypt-ca")
    says(capsys, pki, "status")
    assert certificates.load_key(pki / "ca.key", lambda: b"abc")
    assert "nothing to do" in says(capsys, pki, *INIT, "--encrypt-ca")


@pytest.mark.parametrize("text", ["", "x", "elevenchars", "äöüäöüäöüäö"])
def test_a_short_new_passphrase_is_refused(tmp_path, secret, capsys, text):
    secret(text)
    said = says(capsys, tmp_path / "pki", *INIT, "--encrypt-ca", code=1)
    assert "less than 12 characters" in said if text else "is empty" in said
    assert not (tmp_path / "pki").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_with_a_secret_that_others_can_read_is_refused(tmp_path, secret, capsys, mode):
    path = secret(RIGHT)
    path.chmod(mode)
    said = says(capsys, tmp_path / "pki", *INIT, "--encrypt-ca", code=1)
    assert f"others can read {path}" in said and f"chmod 600 {path}" in said
    assert not (tmp_path / "pki").exists()
    says(capsys, tmp_path / "pki", *INIT)
    says(capsys, tmp_path / "pki", "device", "add", "kitchen")
    for command in (
        ("provision", "kitchen", "--wifi-ssid", "x", "--wifi-password-file", str(path)),
        ("doctor", "127.0.0.1:1", "--user", "x", "--password-file", str(path)),
    ):
        assert "others can read" in says(capsys, tmp_path / "pki", *command, code=1)


def test_a_secret_comes_through_a_pipe_too():
    ours, theirs = os.pipe()
    os.write(theirs, b"correct horse\nx")
    os.close(theirs)
    assert passphrase.first_line(f"/dev/fd/{ours}") == b"correct horse"
    os.close(ours)
