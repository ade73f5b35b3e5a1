"""The doctor and what a device has: its certificate, its key, CONNACK, the broker's log."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.support import patience, process
from tests.support import pki as made
from tests.support.broker import Broker, is_listening, mosquitto
from tests.support.doctoring import (
    bare,
    conf_of,
    doctor,
    explained,
    forge,
    log_of,
    mqttls,
    revocations,
    server_context,
    tls_server,
)
from tests.support.server import server
from tests.support.tool import write_secret
from tools.mqttls.micropython import interpreter
from tools.ports import free_port

pytestmark = pytest.mark.usefixtures("micropython")


@pytest.fixture
def mutual(tmp_path, pki):
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        yield broker


# The client certificate


def test_row_24_none_at_all(mutual, pki):
    word = doctor(mutual.port, ca=pki.ca).names(24, "client certificate", "mqttls device add")
    assert word.stages["chain"] == "ok"
    error = bare(mutual.port, pki.ca.cert_der)
    assert explained(error)
    word = doctor(mutual.port, "--log", log_of(mutual), ca=pki.ca)
    word.names(24, "client certificate", "peer did not return a certificate")
    line = next(each for each in mutual.log().split("\n") if "did not return" in each)
    assert "client certificate" in explained(line)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("device_expired", "expired"),
        ("device_wrong_ca", "other ca"),
        ("device_wrong_usage", "clientAuth"),
    ],
)
def test_row_25_from_the_files(mutual, pki, which, words):
    device = getattr(pki, which)
    word = doctor(mutual.port, "--conf", conf_of(mutual), ca=pki.ca, device=device)
    word.names(25, "client certificate", words)
    assert word.attempt["ok"] is False
    assert word.json["stages"]["client certificate"]["state"] == "failed"


def test_row_25_a_foreign_certificate_from_the_log(mutual, pki):
    arguments = {"ca": pki.ca, "device": pki.device_wrong_ca}
    doctor(mutual.port, **arguments).names(25, "client certificate", "--log")
    word = doctor(mutual.port, "--log", log_of(mutual), **arguments)
    word.names(25, "client certificate", "certificate verify failed", "another CA")
    error = bare(
        mutual.port,
        pki.ca.cert_der,
        "localhost",
        pki.device_wrong_ca.cert_der,
        pki.device_wrong_ca.key_der,
    )
    assert explained(error)


@pytest.mark.skipif(not shutil.which("openssl"), reason="the program openssl is not installed")
def test_row_25_a_server_that_lists_other_cas(pki):
    port = free_port()
    line = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-Verify", "1"]
    line += ["-verify_return_error", "-CAfile", pki.other_ca.cert_pem]
    line += ["-cert", pki.broker.cert_pem, "-key", pki.broker.key_pem]
    child = process.spawn(line, stdin=process.NULL, stdout=process.NULL, stderr=process.NULL)
    try:
        deadline = time.monotonic() + patience.stretched(10)
        while not is_listening(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        word = doctor(port, ca=pki.ca, device=pki.device)
        word.names(25, "client certificate", "does not list ca")
    finally:
        process.end(child)


def test_row_25_revoked(tmp_path, pki):
    lists = revocations(pki.ca, tmp_path / "crl.pem", pki.device)
    with Broker(tmp_path / "b", "mtls", pki=pki, lines=[f"crlfile {lists}"]) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=pki.device)
        word.names(25, "client certificate", "revoked")
        word = doctor(broker.port, ca=pki.ca, device=pki.device)
        word.names(25, "client certificate", "alert: certificate_revoked", "list of revoked")
        other = pki.issue("not revoked", "client", issuer=pki.ca)
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=other)
        assert word.problems == [], word


def test_row_26_an_expired_list_refuses_everybody(tmp_path, pki):
    lists = revocations(pki.ca, tmp_path / "crl.pem", next_update=made.days(-1))
    with Broker(tmp_path / "b", "mtls", pki=pki, lines=[f"crlfile {lists}"]) as broker:
        doctor(None, "--conf", conf_of(broker)).names(26, "client certificate", "expired")
        word = doctor(
            broker.port,
            *("--conf", conf_of(broker), "--log", log_of(broker)),
            ca=pki.ca,
            device=pki.device,
        )
        assert 26 in word.rows, word
        assert word.first["stage"] == "client certificate", word
        assert "certificate verify failed" in broker.log()
        assert word.attempt["ok"] is False
        word = doctor(broker.port, ca=pki.ca, device=pki.device)
        word.names(26, "client certificate", "alert: certificate_expired", "(CRL) has expired")


def test_row_26_a_list_of_an_older_ca(tmp_path, pki):
    twin = forge(
        pki, "twin", "", basic=(True, 0), key_usage="key_cert_sign crl_sign", subject="ca"
    )
    lists = revocations(twin, tmp_path / "crl.pem")
    with Broker(tmp_path / "b", "mtls", pki=pki, lines=[f"crlfile {lists}"]) as broker:
        doctor(None, "--conf", conf_of(broker)).names(26, "client certificate", "another key")


def test_row_26_no_list_of_the_ca_that_issued_the_client(tmp_path, pki):
    lists = revocations(pki.other_ca, tmp_path / "crl.pem")
    with Broker(tmp_path / "b", "mtls", pki=pki, lines=[f"crlfile {lists}"]) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=pki.device)
        word.names(26, "client certificate", "no list of ca")
        assert word.attempt["ok"] is False
        word = doctor(broker.port, ca=pki.ca, device=pki.device)
        word.names(25, "client certificate", "alert: unknown_ca", "no list of ca", "--conf")


def test_row_27_key_and_certificate_are_no_pair(mutual, pki):
    other = pki.issue("other device", "client", issuer=pki.ca)
    pair = ["--cert", pki.device.cert_der, "--key", other.key_der]
    doctor(mutual.port, *pair, ca=pki.ca).names(27, "client certificate", "pair")
    # A program without this package notices nothing; the broker's log tells.
    bare(mutual.port, pki.ca.cert_der, "localhost", pki.device.cert_der, other.key_der)
    mutual.wait_for_log("bad signature")
    line = next(each for each in mutual.log().split("\n") if "bad signature" in each)
    assert "not a pair" in explained(line)
    assert 27 in doctor(None, "--log", log_of(mutual)).rows


# The device's files


def only(*arguments):
    return doctor(None, *arguments)


def test_row_28_pem_on_firmware_that_reads_der_only(pki, tls_broker):
    shown = bare(tls_broker.port, pki.ca.cert_pem)  # depends on the interpreter
    assert shown.startswith("CONNACK") or "cannot read" in explained(shown)
    word = only(
        "--ca", pki.ca.cert_pem, "--cert", pki.device.cert_pem, "--key", pki.device.key_pem
    )
    assert word.problems == [], word  # this package reads both
    assert "1.28" in word.remarks[28]["cause"]
    assert "cannot read" in explained("ValueError: invalid cert")


def test_row_29_pkcs8(pki):
    word = only(
        "--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", pki.device.pkcs8_der
    )
    assert word.problems == [], word
    assert "1.23" in word.remarks[29]["cause"]


@pytest.mark.parametrize("form", ["pem", "der"])
def test_row_30_an_encrypted_key(pki, tmp_path, form):
    path = pki.device.encrypted_pem
    if form == "der":
        lock = made.serialization.BestAvailableEncryption(b"secret")
        path = tmp_path / "key.der"
        path.write_bytes(pki.device.key.private_bytes(made._DER, made._PKCS8, lock))
    only("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", path).names(
        30, "files", "encrypted", "openssl pkey"
    )


def test_row_30_the_older_form_of_encryption(pki, tmp_path):
    lock = made.serialization.BestAvailableEncryption(b"secret")
    path = tmp_path / "old.key"
    path.write_bytes(pki.device.key.private_bytes(made._PEM, made._TRADITIONAL, lock))
    assert b"Proc-Type" in path.read_bytes()
    only("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der, "--key", path).names(30, "files")


def test_row_32_a_client_certificate_over_4_kb(mutual, pki):
    names = tuple(f"a-rather-long-name-{each:04}.device.example" for each in range(110))
    # A certificate with a long list of names, but for clients
    san = made.x509.SubjectAlternativeName([made.x509.DNSName(each) for each in names])
    large = forge(pki, "device large", "client", issuer=pki.ca, more=[(san, False)])
    doctor(mutual.port, ca=pki.ca, device=large).names(32, "client certificate", "4096")
    error = bare(mutual.port, pki.ca.cert_der, "localhost", large.cert_der, large.key_der)
    assert "4 KB" in explained(error)


def test_row_34_out_of_memory():
    for error in ("OSError(12)", "OSError(-32512, 'x')", "OSError(-16256)", "MemoryError: ..."):
        assert "memory" in explained(error)
    for error in ("OSError(-17168)", "OSError(-15104)", "OSError(-20864)"):
        assert "memory" in explained(error)


@pytest.mark.parametrize("kind", ["rsa2048", "p521"])
def test_row_40_a_slow_key(pki, kind):
    slow = pki.issue(f"device {kind}", "client", issuer=pki.ca, key=kind)
    word = only("--ca", pki.ca.cert_der, "--cert", slow.cert_der, "--key", slow.key_der)
    assert word.problems == []
    assert "P-256" in word.remarks[40]["cure"]


def test_files_that_are_damaged_or_something_else(pki, tmp_path):
    good = ("--ca", pki.ca.cert_der, "--cert", pki.device.cert_der)
    cut = tmp_path / "cut.der"
    cut.write_bytes(Path(pki.ca.cert_der).read_bytes()[:-20])
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for arguments, words in (
        (("--ca", cut), "damaged"),
        (("--ca", empty), "empty"),
        (("--ca", tmp_path), "folder"),
        (("--ca", tmp_path / "nothing"), "cannot be read"),
        (("--ca", pki.device.key_pem), "no certificate"),
        ((*good, "--key", pki.device.cert_pem), "no private key"),
        ((*good, "--key", pki.device.cert_der), "no private key"),
        (good, "no key"),
    ):
        word = only(*arguments)
        assert any(words in each["fact"] for each in word.problems), (arguments, word)
        assert {each["stage"] for each in word.problems} == {"files"}
        assert word.json["exit"] == 1


# CONNACK


def test_row_35_not_authorised(tmp_path, pki):
    lines = ["allow_anonymous false"]
    with Broker(tmp_path / "b", "tls", pki=pki, users={"ann": "right"}, lines=lines) as broker:
        doctor(broker.port, ca=pki.ca).names(35, "CONNACK", "ACL")
        assert "not authorised" in explained("RefusedError: CONNACK 5: not authorised (5)")


def test_row_35_the_identity_option_is_missing(tmp_path, pki):
    lines = ["allow_anonymous false"]
    with Broker(tmp_path / "b", "mtls", pki=pki, lines=lines) as broker:
        text = broker.configuration().replace("allow_anonymous true\n", "")
        (broker.directory / "broker.toml").write_text(text)
        broker.stop()
        broker.configuration = lambda: text
        broker.start()
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, device=pki.device)
        word.names(35, "CONNACK", "use_identity_as_username true")
        assert word.rows == [35, 35], word


def test_row_36_a_wrong_password(tmp_path, pki):
    password = tmp_path / "password"
    with Broker(tmp_path / "b", "tls", pki=pki, users={"ann": "right"}) as broker:
        write_secret(password, "not-the-one\n")
        login = ("--user", "ann", "--password-file", password)
        word = doctor(broker.port, *login, ca=pki.ca)
        # mosquitto 2.0 says 5, what else the specification calls 4
        assert word.first["row"] in (35, 36), word
        assert word.first["stage"] == "CONNACK"
        assert "user" in word.first["cure"]
        assert "not-the-one" not in str(word)
        password.write_text("right\n")
        assert doctor(broker.port, *login, ca=pki.ca).problems == []
    with tls_server(server_context(pki.broker), b"\x20\x02\0\x04") as port:
        doctor(port, ca=pki.ca).names(36, "CONNACK", "require_certificate")


def test_row_36_identity_without_a_certificate(tmp_path, pki):
    lines = [f"cafile {pki.ca.cert_pem}", "use_identity_as_username true"]
    with Broker(tmp_path / "b", "tls", pki=pki, lines=lines) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca)
        assert word.first["row"] == 36, word
        assert word.first["stage"] == "CONNACK", word
        assert [each["stage"] for each in word.problems] == ["CONNACK", "configuration"]


def test_row_37_a_refused_client_id(pki):
    with tls_server(server_context(pki.broker), b"\x20\x02\0\x02") as port:
        doctor(port, "--client-id", "x", ca=pki.ca).names(37, "CONNACK", "client id")


def test_row_38_closed_instead_of_connack(pki):
    with tls_server(server_context(pki.broker), b"") as port:
        doctor(port, ca=pki.ca).names(38, "CONNACK", "policy", "client id")


def test_silence_instead_of_connack_is_no_refusal(pki):
    over = threading.Event()

    def handle(connection):
        with server_context(pki.broker).wrap_socket(connection, True) as sock:
            sock.recv(1000)
            over.wait(patience.stretched(20))

    with server(handle) as port:
        word = doctor(port, ca=pki.ca, timeout_s=2)
        over.set()
    assert word.first["stage"] == "CONNACK", word
    assert word.first["row"] == 0, word
    assert "CONNECT" in word.first["cause"]


def test_row_38_two_with_one_client_id(tmp_path, pki):
    with Broker(tmp_path / "b", "tls", pki=pki) as broker:
        one = broker.peer(client_id="twin")
        word = doctor(broker.port, "--client-id", "twin", ca=pki.ca)
        assert word.problems == [], word
        broker.wait_for_log("Received DISCONNECT from twin")
        one.close()
        doctor(None, "--log", log_of(broker)).names(38, "CONNACK", "same client id")


# A broker that does not start


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no pair", "pair"),
        ("der", "PEM"),
        ("encrypted", "passphrase"),
        ("certificate", "no private key"),
    ],
)
def test_row_39_the_broker_cannot_load_its_key(tmp_path, pki, what, words):
    other = pki.issue(f"key of {what}", "server", issuer=pki.ca)
    key = {
        "no pair": other.key_pem,
        "der": pki.broker.key_der,
        "encrypted": other.encrypted_pem,
        "certificate": pki.broker.cert_pem,
    }[what]
    path = tmp_path / "mosquitto.conf"
    lines = ["log_dest stderr", "allow_anonymous true", "listener 0 127.0.0.1"]
    lines += [f"certfile {pki.broker.cert_pem}", f"keyfile {key}"]
    if os.geteuid() == 0:
        lines.insert(0, "user root")
    port = free_port()
    path.write_text("\n".join(lines).replace("listener 0", f"listener {port}") + "\n")
    log = tmp_path / "log"
    with log.open("wb") as out:
        code = run_out([mosquitto(), "-c", str(path)], out)
    assert code not in (0, None)
    word = doctor(None, "--conf", path)
    assert word.first["stage"] == "configuration", word
    text = f"{word.first['fact']} {word.first['cause']}"
    assert words in text, word
    from_log = doctor(None, "--log", log)
    assert 39 in from_log.rows, (from_log, log.read_text())
    assert from_log.first["cure"]
    both = doctor(port, "--conf", path, "--log", log, ca=pki.ca)
    both.names(2, "connect")
    assert "configuration" in [each["stage"] for each in both.problems]


def run_out(command, out):
    """Run a command that must end by itself; return its exit status."""
    nothing = subprocess.DEVNULL
    return subprocess.run(
        command, stdout=out, stderr=out, stdin=nothing, timeout=patience.stretched(20)
    ).returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_row_39_the_broker_may_not_read_its_key(tmp_path, pki):
    key = tmp_path / "private.key"
    key.write_bytes(Path(pki.broker.key_pem).read_bytes())
    key.chmod(0o600)
    port = free_port()
    path = tmp_path / "conf" / "mosquitto.conf"
    path.parent.mkdir()
    path.write_text(
        f"user nobody\nallow_anonymous true\nlistener {port} 127.0.0.1\n"
        f"certfile {pki.broker.cert_pem}\nkeyfile {key}\n"
    )
    word = doctor(None, "--conf", path)
    assert 39 in word.rows, word
    assert "nobody may not read" in word.problems[word.rows.index(39)]["fact"], word


# Without MicroPython


def test_without_micropython_python_takes_its_place(mutual, pki, monkeypatch):
    monkeypatch.setenv("MICROPYTHON", "")
    interpreter.cache_clear()
    word = doctor(mutual.port, ca=pki.ca, device=pki.device)
    assert word.problems == [], word
    assert word.attempt["by"] == "Python's ssl"
    assert "no MicroPython" in word.remarks[0]["fact"]
    doctor(mutual.port, ca=pki.ca).names(24, "client certificate")
    doctor(mutual.port, ca=pki.ca, device=pki.device_wrong_ca).names(25, "client certificate")
    doctor(mutual.port, ca=pki.other_ca, device=pki.device).names(17, "chain")
    with tls_server(server_context(pki.broker), b"\x20\x02\0\x05") as port:
        doctor(port, ca=pki.ca).names(35, "CONNACK")
    with tls_server(server_context(pki.broker), b"") as port:
        doctor(port, ca=pki.ca).names(38, "CONNACK")


# The command itself


def test_the_folder_of_init_is_looked_through(tmp_path):
    where = tmp_path / "pki"
    assert mqttls("init", "--broker", "localhost", "--dir", where)["exit"] == 0
    assert mqttls("device", "add", "kitchen", "cellar", "--dir", where)["exit"] == 0
    said = mqttls("doctor", "--dir", where)
    assert said["exit"] == 0, said
    assert [each["title"] for each in said["looks"]][-2:] == [
        "the files of cellar",
        "the files of kitchen",
    ]
    (where / "devices/kitchen/key.der").write_bytes(
        (where / "devices/cellar/key.der").read_bytes()
    )
    said = mqttls("doctor", "--dir", where)
    assert said["exit"] == 1
    assert said["verdict"]["row"] == 27


def test_a_revoked_device_is_told_from_the_folder(tmp_path):
    where = tmp_path / "pki"
    mqttls("init", "--broker", "localhost", "--dir", where)
    mqttls("device", "add", "kitchen", "--dir", where)
    kept = {
        each: (where / "devices/kitchen" / each).read_bytes() for each in ("cert.der", "key.der")
    }
    assert mqttls("revoke", "kitchen", "--dir", where)["exit"] == 0
    line = ["doctor", "--dir", where, "--conf", where / "broker/mosquitto.conf"]
    for name, data in kept.items():
        (tmp_path / name).write_bytes(data)
    authority = tmp_path / "ca.crt"
    authority.write_bytes((where / "ca.crt").read_bytes())
    said = mqttls(
        *line,
        *("--ca", authority, "--cert", tmp_path / "cert.der", "--key", tmp_path / "key.der"),
    )
    assert said["exit"] == 1, said
    assert said["verdict"]["row"] == 25
    assert "revoked" in said["verdict"]["fact"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["broker.lan:0"],
        ["broker.lan:x"],
        ["[::1]:8883"],
        [":8883"],
        ["localhost", "--timeout", "0"],
        ["localhost", "--password-file", "x"],
        ["localhost", "--device", "a", "--ca", "b"],
        ["--dir", "/nowhere/at/all"],
    ],
)
def test_wrong_use_is_told_with_status_2(arguments):
    said = mqttls("doctor", *arguments)
    assert said["exit"] == 2, said
    assert said["problems"][0]["fact"]


def test_a_log_that_is_not_there_is_told(tmp_path):
    said = mqttls("doctor", "--log", tmp_path / "none.log")
    assert said["exit"] == 1
    assert "none.log" in said["problems"][0]["fact"]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("OSError: [Errno 115] EINPROGRESS", "does not wait"),
        ("OSError: [Errno 11] EAGAIN", "does not wait"),
        ("OSError: 119", "does not wait"),
        ("BlockingIOError: [Errno 35] Resource temporarily unavailable", "does not wait"),
        ("OSError: [Errno 97] Address family not supported by protocol", "IPv6"),
        ("OSError: 127", "does not take such a call"),
        ("OSError: [Errno 22] EINVAL", "does not take such a call"),
        ("[WinError 10061] No connection could be made", "nothing listens"),
        ("socket.gaierror: [Errno 11001] getaddrinfo failed", "no IPv4 address"),
        ("TimeoutError: [WinError 10060] A connection attempt failed", "no answer"),
        ("ConnectionResetError: [WinError 10054] An existing connection", "hung up"),
    ],
)
def test_errors_that_only_a_person_meets_are_explained(error, cause):
    assert cause in explained(error)


def test_what_is_unknown_is_said_to_be():
    said = mqttls("explain", "OSError: something that nobody has ever seen")
    assert said["exit"] == 1
    assert "doctor" in said["problems"][0]["cure"]
