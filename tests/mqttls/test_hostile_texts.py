"""Certificates, logs, lists and folders of somebody else control no terminal and forge no line."""

import argparse
import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest

from tests.support.doctoring import forge, server_context, tls_server
from tests.support.pki import PKI
from tools.mqttls import cli

EVIL = "x\x1b]0;x\x07\x9b31m\u202ey\r\nnext: sudo rm\x02revoke\x03\U000f1234"


def said(*arguments, code=None):
    """Return what mqttls says (str); assert that it is harmless."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = cli.main([str(each) for each in arguments])
    text = out.getvalue()
    assert all(each.isprintable() for each in text.replace("\n", "")), ascii(text)
    assert "\nnext: sudo rm" not in text and "Traceback" not in text
    assert status == code or code is None, text
    return text


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    pki = PKI(tmp_path_factory.mktemp("evil"))
    return forge(pki, "evil", subject=EVIL[:64], names=["x\x1b[2J\x07.lan"])


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["lines", "json"])
def test_a_certificate_of_a_broker(tmp_path, evil, more):
    log = tmp_path / "log"
    log.write_text(
        f"1: Client {EVIL} disconnected due to protocol error.\n"
        f"2: Denied PUBLISH from {EVIL} (d0, q1, r0, m1, '{EVIL}', ... (4 bytes))\n"
        f"3: OpenSSL Error[0]: error:0A000126:SSL routines::{EVIL}\n"
    )
    with tls_server(server_context(evil)) as port:
        where = ("doctor", f"127.0.0.1:{port}", "--timeout", 3)
        for files in ((), ("--ca", evil.cert_pem)):
            text = said(*where, *files, *more)
            assert "\\x1b" in text or "\\\\x1b" in text, "it is shown"
    for files in (
        ("--cert", evil.cert_pem, "--key", evil.key_pem),
        ("--ca", evil.cert_pem),
        ("--log", log),
    ):
        said("doctor", *files, *more)


def test_an_error_and_a_path():
    assert "\\x1b" in said("explain", f"OSError({EVIL})", code=1)
    said("explain", f"Denied PUBLISH from {EVIL} (d0, q1, r0, m1, '{EVIL}', ... (4 bytes))")
    for command in ("status", "doctor", "device list"):
        said(*command.split(), "--dir", f"/nowhere/{EVIL}")
    for option in ("--conf", "--log", "--ca"):
        said("doctor", option, f"/nowhere/{EVIL}", code=1)
    said("device", "add", EVIL, code=2)
    said(EVIL, code=2)
    said("doctor", EVIL, code=2)


def options(parser, words=()):
    """Return (words of the command, option or None) of each argument that takes a value."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found += options(below, (*words, name))
        elif words and (not action.option_strings or action.nargs != 0):
            found.append((words, (action.option_strings or [None])[0]))
    return found


# what a command needs besides, to get as far as that argument
NEEDS = {
    "init": ("--broker", "127.0.0.1"),
    "use": ("127.0.0.1:1",),
    "provision": ("kitchen", "--port", "/dev/none"),
    "renew": ("kitchen",),
    "update": ("--version", 2, "FILE"),
    "doctor": ("--timeout", 1),
    "keys": ("--runs", 1, "--key", "none"),
}


@pytest.mark.parametrize("value", [EVIL, "a\nlistener 1", "\ud800"], ids=ascii)
def test_any_argument_of_any_command(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    pki = tmp_path / "pki"
    said("init", "--broker", "127.0.0.1", "--dir", pki, code=0)
    said("device", "add", "kitchen", "--dir", pki, code=0)
    (tmp_path / "app.py").write_text("")
    found = options(cli.make_parser())
    assert len(found) > 60
    for words, option in found:
        needs = [
            tmp_path / "app.py" if each == "FILE" else each for each in NEEDS.get(words[0], ())
        ]
        given = [f"{option}={value}"] if option else [value]
        folder = [] if option == "--dir" else ["--dir", pki]
        for more in ((), ("--json",)):
            said(*words, *needs, *given, *folder, *more)
    for path in (pki / "broker").iterdir():
        assert b"\nlistener 1\n" not in path.read_bytes() and b"\x1b" not in path.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["app.py", "pki"]


@pytest.mark.parametrize(
    "words",
    [
        ("use", "h", "--user", "u", "--password", "S3CRET"),
        ("--password", "S3CRET", "use", "h"),
        ("--json", "use", "h", "--password=S3CRET word"),
        ("provision", "kitchen", "--wifi-ssid", "x", "--wifi-password", "S3CRET"),
        ("init", "--broker", "h", "--passphrase", "S3CRET"),
        ("device", "add", "kitchen", "-P", "S3CRET"),
        ("doctor", "h", "-uann", "-PS3CRET!"),
        ("update", "build", "x", "--version", "2", "--Passphrase=S3CRET"),
        ("doctor", "mqtts://ann:S3CRET@h"),
        ("init", "--broker", "ann:S3CRET@h"),
    ],
    ids=" ".join,
)
def test_a_secret_behind_an_option_that_is_none_is_not_shown(words):
    text = said(*words, code=2)
    assert "S3CRET" not in text
    assert "there is no option -" in text or "@" in words[-1]


def test_what_is_no_option_is_taken_as_before():
    said("explain", "-9984", code=0)
    said("explain", "-0x2700", code=0)
    assert "'-x' is neither" in said("doctor", "--", "-x", code=2)
    assert "kitchen" in said("keys", "kitchen", code=2)


def test_a_folder_and_a_list_of_devices(tmp_path):
    pki = tmp_path / "pki"
    said("init", "--broker", "127.0.0.1", "--dir", pki, code=0)
    said("device", "add", "kitchen", "--dir", pki, code=0)
    (tmp_path / "list.csv").write_text(f'name,host\n"{EVIL}",\nx,"{EVIL}"\n')
    assert "2 mistakes" in said("device", "add", "--csv", tmp_path / "list.csv", "--dir", pki)
    (tmp_path / "acl").write_bytes(f"topic {EVIL}\n".encode())
    said("broker-conf", "--acl-file", tmp_path / "acl", "--dir", pki, code=1)
    when = "2026-01-01T00:00:00+00:00"
    gone = {"serial": "01", "name": EVIL, "revoked": when, "authority": EVIL}
    (pki / "revoked.json").write_text(json.dumps([gone]))
    board = {"ca": [EVIL], "machine": EVIL, "at": EVIL, "cert": EVIL}
    (pki / "devices/kitchen/board.json").write_text(json.dumps(board))
    for command in ("device list", "status", "device list --json", "status --json"):
        said(*command.split(), "--dir", pki)
    for key in ("names", "admins", "bind", "key", "topics", "limits"):
        settings = json.loads((pki / "settings.json").read_text())
        (pki / "settings.json").write_text(json.dumps({**settings, key: {EVIL: [EVIL]}}))
        said("status", "--dir", pki, code=1)
        (pki / "settings.json").write_text(json.dumps(settings))
