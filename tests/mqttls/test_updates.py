"""`mqttls update build`: what it signs, with which key, and what it does not take."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest

from tests.support.tool import in_here, init, mqttls, write_secret
from tools.mqttls import updates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of mqttls with a key for updates: making one takes a second."""
    folder = tmp_path_factory.mktemp("made") / "mqtt-pki"
    init(folder, run=in_here)
    app = folder.parent / "app.py"
    app.write_text("first = 1\n")
    build(folder, app, "--version", 1)
    return folder


@pytest.fixture
def pki(made, tmp_path):
    return shutil.copytree(made, tmp_path / "mqtt-pki")


@pytest.fixture
def app(tmp_path):
    """A folder with an app of two files, and what does not belong to it."""
    folder = tmp_path / "garden"
    (folder / "lib/__pycache__").mkdir(parents=True)
    (folder / "app.py").write_text("import lib.pump\n")
    (folder / "lib/pump.py").write_text("x = 1\n")
    (folder / "lib/__pycache__/pump.pyc").write_bytes(b"\0")
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("secret")
    (folder / ".env").write_text("secret")
    return folder


def build(pki, *words, code=0):
    output = pki.parent / "out.update"
    output.unlink(missing_ok=True)
    return in_here(pki, "update", "build", *words, "--output", output, code=code)


def parts(pki):
    """Return (what is signed, signature, manifest, what follows) of the update."""
    data = (pki.parent / "out.update").read_bytes()
    end = 6 + int.from_bytes(data[4:6], "big")
    assert data[:4] == b"MUP1"
    return data[:end], data[end : end + 384], json.loads(data[6:end]), data[end + 384 :]


def test_openssl_finds_that_it_is_signed_with_the_key(pki, app, tmp_path):
    build(pki, app, "--version", 7)
    signed, signature, said, body = parts(pki)
    (tmp_path / "signed").write_bytes(signed)
    (tmp_path / "signature").write_bytes(signature)
    public = ["-verify", pki / "update.der", "-keyform", "DER"]
    checked = subprocess.run(
        ["openssl", "dgst", "-sha256", *public, "-signature", tmp_path / "signature"]
        + [tmp_path / "signed"],
        capture_output=True,
        text=True,
    )
    assert checked.stdout == "Verified OK\n", checked
    assert said == {
        "app": "app",
        "version": 7,
        "sha256": hashlib.sha256(body).hexdigest(),
        "files": [["app.py", 16], ["lib/pump.py", 6]],
    }
    assert body == b"import lib.pump\nx = 1\n"


def test_the_key_is_made_once_and_only_its_owner_reads_it(pki, app):
    before = {name: (pki / name).read_bytes() for name in (updates.KEY, updates.PUBLIC)}
    said = build(pki, app, "--version", 8)
    assert {name: (pki / name).read_bytes() for name in before} == before
    assert "provision" not in said
    if os.name == "posix":
        assert (pki / updates.KEY).stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (pki.parent / "out.update").read_bytes()


def test_what_was_built_is_not_written_over(pki, app):
    output = pki.parent / "app.update"
    words = ("update", "build", app, "--version", 9, "--output", output)
    in_here(pki, *words)
    data = output.read_bytes()
    assert "is there already" in in_here(pki, *words, code=1)
    assert output.read_bytes() == data
    output.unlink()
    output.symlink_to(pki.parent / "elsewhere")
    assert "is there already" in in_here(pki, *words, code=1)
    assert not (pki.parent / "elsewhere").exists()


def test_a_key_that_boards_do_not_know_signs_nothing(pki, app, tmp_path):
    with (tmp_path / "other").open("wb") as file:
        subprocess.run(["openssl", "genrsa", "3072"], stdout=file, check=True)
    shutil.copy(tmp_path / "other", pki / updates.KEY)
    assert "is not the key of update.der" in build(pki, app, "--version", 9, code=1)
    (pki / updates.KEY).write_bytes((pki / "ca.key").read_bytes())
    assert "is not the key of update.der" in build(pki, app, "--version", 9, code=1)
    (pki / updates.KEY).write_text("no key")
    assert "is damaged" in build(pki, app, "--version", 9, code=1)
    (pki / updates.PUBLIC).unlink()
    said = build(pki, app, "--version", 9, code=1)
    assert "Traceback" not in said and not (pki.parent / "out.update").exists()


def test_under_a_passphrase_it_signs_with_that_alone(tmp_path, app):
    pki = tmp_path / "mqtt-pki"
    init(pki, run=in_here)
    word = write_secret(tmp_path / "word", "correct horse battery\n")
    wrong = write_secret(tmp_path / "wrong", "battery horse correct\n")
    words = ("update", "build", app, "--version")
    env = {"MQTTLS_PASSPHRASE_FILE": str(word)}
    at = ("--output", tmp_path / "1.update")
    mqttls(pki, *words, 1, "--encrypt-key", *at, env=env)
    assert b"ENCRYPTED" in (pki / updates.KEY).read_bytes()
    at = ("--output", tmp_path / "2.update")
    assert "passphrase" in mqttls(pki, *words, 2, *at, code=1).err
    env["MQTTLS_PASSPHRASE_FILE"] = str(wrong)
    assert "wrong passphrase" in mqttls(pki, *words, 2, *at, env=env, code=1).err
    env["MQTTLS_PASSPHRASE_FILE"] = str(word)
    mqttls(pki, *words, 2, *at, env=env)
    assert (
        "there is a key already"
        in mqttls(pki, *words, 3, "--encrypt-key", *at, env=env, code=2).err
    )


@pytest.mark.parametrize("version", ["0", "-1", "1.5", "x", "1073741824", "1\n2"])
def test_a_version_that_is_none(pki, app, version):
    build(pki, app, f"--version={version}", code=2)


@pytest.mark.parametrize("name", ["", "a b", "../app", "a.b", "-x", "ä", "x" * 33, "a\nb", "1"])
def test_an_app_that_is_no_module(pki, app, name):
    assert "\nb" not in build(pki, app, "--version", 9, f"--app={name}", code=2)


def test_what_is_no_file_of_an_app_is_told(pki, app, tmp_path):
    assert "other.py is not among the files" in build(
        pki, app, "--version", 9, "--app", "other", code=1
    )
    for name in ("a b.py", "ä.py", "x" * 65, "a\nb", "\x1b[2J"):
        path = tmp_path / name
        path.write_text("")
        said = build(pki, app, path, "--version", 9, code=1)
        assert "no name for a file of a board" in said and "\x1b" not in said
    (app / "link").symlink_to("/etc/passwd")
    assert "link is a link" in build(pki, app, "--version", 9, code=1)
    (app / "link").unlink()
    (app / "folder").symlink_to("/etc")
    assert "folder is a link" in build(pki, app, "--version", 9, code=1)
    (app / "folder").unlink()
    os.mkfifo(app / "pipe")
    assert "is a pipe" in build(pki, app, "--version", 9, code=1)
    (app / "pipe").unlink()
    assert "app.py is there twice" in build(pki, app, app / "app.py", "--version", 9, code=1)
    assert "No such file" in build(pki, tmp_path / "nothing", "--version", 9, code=1)
    for number in range(64):
        (app / f"{number}").write_text("")
    assert "more than an update may have" in build(pki, app, "--version", 9, code=1)
    assert not (pki.parent / "out.update").exists()
