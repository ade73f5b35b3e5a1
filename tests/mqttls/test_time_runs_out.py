"""What ends soon is said by every command; what was issued is on record, and can be revoked."""

import json
import os
import shutil
import subprocess

import pytest

from tests.support.doctoring import mqttls as said
from tools.mqttls import certificates, cli, deployment, health
from tools.mqttls.authority import Authority, ends_in
from tools.mqttls.files import Directory

SECRETS = ("key.der", "key.pem", "ca.key", "broker.key", "tls.json", "passwords")


@pytest.fixture
def run(tmp_path, capsys):
    """Return a function that runs mqttls in a folder of its own, and returns its JSON."""
    pki = tmp_path / "mqtt-pki"

    def call(*arguments, code=0):
        found = said(*arguments, "--dir", pki)
        assert found["exit"] == code, found
        return found

    call.pki = pki
    call("init", "--broker", "127.0.0.1", "--broker", "Broker.LAN")
    return call


def serial(path):
    return certificates.serial_of(certificates.load(path))


def on_the_lists(pki):
    lists = certificates.load_crls(pki / "crl.pem")
    assert (pki / "crl.pem").read_bytes() == (pki / "broker/crl.pem").read_bytes()
    return [{f"{each.serial_number:040x}" for each in one} for one in lists]


def record(pki):
    return [json.loads(each) for each in (pki / "issued.jsonl").read_text().splitlines()]


# What ends


def notes(run, *arguments, code=0):
    return " ".join(run(*arguments, code=code)["notes"])


def test_device_certificates_live_a_year_and_status_reminds(run):
    run("device", "add", "kitchen")
    end = certificates.load(run.pki / "devices/kitchen/cert.crt").not_valid_after_utc
    assert 363 < (end - certificates.now()).days < 366
    run("device", "add", "cellar", "--days", "80")
    found = run("status", code=1)
    assert "cellar: its certificate ends" in found["problems"][0]["fact"]
    assert "mqttls renew" in found["next"][0]
    run("renew")
    assert run("status")["problems"] == []


def test_every_command_says_what_ends_soon(run):
    run("device", "add", "kitchen", "--days", "21")
    run("device", "add", "cellar", "--days", "20")
    for command in (("device", "list"), ("device", "add", "attic"), ("broker-conf",)):
        assert "the certificate of cellar ends on" in notes(run, *command)
        assert "and 1 more" in notes(run, *command)
    assert "ends on" not in notes(run, "renew")
    run("renew", "--broker", "--days", "20")
    assert "the broker's certificate ends on" in notes(run, "device", "list")


def test_a_list_of_revoked_certificates_that_is_about_to_end_is_told_and_renewed(run, monkeypatch):
    real = certificates.crl_pem
    monkeypatch.setattr(certificates, "crl_pem", lambda *given: real(*given, until=ends_in(20)))
    run("device", "add", "kitchen", "cellar")
    run("revoke", "cellar")
    monkeypatch.undo()
    assert "the list of revoked certificates ends on" in notes(run, "device", "list")
    assert "refuses everybody" in notes(run, "device", "add", "attic")
    for failing in (["revoke", "nobody"], ["provision", "kitchen", "--port", "/dev/none"]):
        assert "refuses everybody" in run(*failing, code=1)["notes"][0]
    (problem,) = run("status", code=1)["problems"]
    assert "ends on" in problem["fact"] and "mqttls renew" in problem["cure"]
    run("renew")
    assert notes(run, "device", "list") == "" and run("status")["problems"] == []


@pytest.mark.skipif(os.name == "nt", reason="icacls tells that, to status alone")
def test_every_command_says_that_others_can_look_into_the_folder(run):
    run.pki.chmod(0o755)
    for command in (("device", "list"), ("device", "add", "attic"), ("broker-conf",)):
        assert f"others can look into {run.pki}" in notes(run, *command)


def test_a_folder_that_is_none_has_no_health(tmp_path, capsys):
    health.tell(tmp_path, None)
    (tmp_path / "settings.json").write_text("{")
    tmp_path.chmod(0o700)
    health.tell(tmp_path, None)


# The record


def test_everything_that_was_ever_issued_is_on_record(run):
    run("device", "add", "kitchen", "cellar")
    first = serial(run.pki / "devices/kitchen/cert.crt")
    run("renew", "--all")
    run("renew", "--ca")
    run("renew", "--ca", "--finish", "--force")
    lines = record(run.pki)
    assert len({each["serial"] for each in lines}) == len(lines) == 2 + 2 + 3 + 3 + 1
    for path in run.pki.rglob("*.crt"):
        for each in certificates.load_all(path):
            assert certificates.serial_of(each) in {line["serial"] for line in lines}, path
    assert {each["use"] for each in lines} == {"ca", "broker", "device"}
    assert first in {each["serial"] for each in lines}
    before = (run.pki / "issued.jsonl").read_text()
    run("device", "add", "attic")
    assert (run.pki / "issued.jsonl").read_text().startswith(before), "only ever longer"


def test_the_record_of_an_older_folder_is_made_of_what_is_in_it(run):
    run("device", "add", "kitchen", "cellar")
    old = [serial(run.pki / "devices/kitchen/cert.crt")]
    run("renew", "kitchen")
    old += [serial(run.pki / "devices/kitchen/cert.crt")]
    (run.pki / "issued.jsonl").unlink()
    run("device", "add", "attic")
    kitchen = [each["serial"] for each in record(run.pki) if each["name"] == "kitchen"]
    assert sorted(kitchen) == sorted(old)
    (run.pki / "issued.jsonl").unlink()
    run("revoke", "kitchen")
    assert on_the_lists(run.pki) == [set(old)]


def test_a_device_whose_folder_is_gone_is_revoked_all_the_same(run):
    run("device", "add", "kitchen", "cellar", "--topics", "garden/#")
    old = {serial(run.pki / "devices/kitchen/cert.crt")}
    run("renew", "kitchen")
    old |= {serial(run.pki / "devices/kitchen/cert.crt")}
    shutil.rmtree(run.pki / "devices/kitchen")
    shutil.rmtree(run.pki / "archive")
    found = run("revoke", "kitchen")
    assert on_the_lists(run.pki) == [old] and set(found["serials"]) == old
    assert "user kitchen" not in (run.pki / "broker/acl").read_text()
    assert [each["name"] for each in run("device", "list")["revoked"]] == ["kitchen"] * 2
    assert "no device 'nobody'" in run("revoke", "nobody", code=1)["problems"][0]["fact"]


@pytest.mark.parametrize("form", ["{}", "0x{}", "{:upper}", "{:colons}"])
def test_one_certificate_is_revoked_by_its_number(run, form):
    run("device", "add", "kitchen")
    one = serial(run.pki / "devices/kitchen/cert.crt")
    colons = ":".join(one[at : at + 2] for at in range(0, 40, 2))
    text = {"{:upper}": one.upper(), "{:colons}": colons}.get(form) or form.format(one)
    assert run("revoke", "--serial", text)["serials"] == [one]
    assert on_the_lists(run.pki) == [{one}]
    assert "was revoked" in run("status", code=1)["problems"][0]["fact"]
    run("device", "add", "kitchen")
    assert run("status")["problems"] == []


def test_a_number_that_nobody_knows_is_revoked_at_every_authority(run):
    run("renew", "--ca")
    run("revoke", "--serial", "1ff")
    assert on_the_lists(run.pki) == [{f"{0x1FF:040x}"}] * 2
    assert run("status")["problems"] == []


@pytest.mark.parametrize("text", ["", "0", "xyz", "f" * 41, "-1", "1_0", "١"])
def test_what_is_no_number_is_refused(run, text):
    assert "hexadecimal digits" in run("revoke", f"--serial={text}", code=2)["problems"][0]["fact"]


@pytest.mark.parametrize("file", ["cert.crt", "cert.der"])
def test_one_certificate_is_revoked_by_its_file(run, tmp_path, file):
    run("device", "add", "kitchen")
    shutil.copy(run.pki / "devices/kitchen" / file, tmp_path)
    shutil.rmtree(run.pki / "devices")
    one = serial(tmp_path / file)
    assert run("revoke", "--cert", tmp_path / file)["serials"] == [one]
    assert on_the_lists(run.pki) == [{one}]


def test_what_no_list_revokes_is_said_with_what_does(run, tmp_path):
    other = tmp_path / "other"
    assert cli.main(["init", "--broker", "x", "--dir", str(other)]) == 0
    problem = run("revoke", "--cert", other / "ca.crt", code=1)["problems"][0]
    assert "not from this authority" in problem["fact"]
    for file in ("broker/broker.crt", "ca.crt"):
        for how in (("--cert", run.pki / file), ("--serial", serial(run.pki / file))):
            problem = run("revoke", *how, code=1)["problems"][0]
            assert "devices read no list" in problem["fact"]
            assert "mqttls renew --ca --now" in problem["cure"]


# Stolen keys


def test_a_stolen_authority_ends_at_once(run):
    run("device", "add", "kitchen")
    run("device", "add", "desk", "--admin")
    stolen = certificates.load_identity(run.pki / "ca.crt", run.pki / "ca.key")
    said = run("renew", "--ca", "--now")
    assert "takes the broker for a stranger until it is provisioned" in said["notes"][0]
    assert "desk is a program on a PC" in said["notes"][1]
    trusted = certificates.load_all(run.pki / "broker/ca.crt")
    assert len(trusted) == 1 and certificates.serial_of(trusted[0]) != stolen.serial
    for path in ("broker/broker.crt", "devices/kitchen/cert.crt", "devices/desk/cert.crt"):
        assert certificates.is_issued_by(certificates.load(run.pki / path), trusted[0])
    forged = certificates.issue("x", certificates.CLIENT, "p256", ends_in(9), issuer=stolen)
    assert certificates.issuer_among(forged.certificate, trusted) is None
    assert run("status")["problems"] == []
    assert json.loads((run.pki / "devices/kitchen/tls.json").read_text())["ca"] == ["ca.der"]


def test_in_a_roll_over_both_end(run):
    run("device", "add", "kitchen")
    run("renew", "--ca")
    before = {serial(each) for each in [run.pki / "ca.crt", *(run.pki / "ca").glob("*.crt")]}
    assert len(before) == 2
    run("renew", "--ca", "--now")
    assert not list((run.pki / "ca").iterdir()) and serial(run.pki / "ca.crt") not in before
    assert len(certificates.load_all(run.pki / "broker/ca.crt")) == 1
    assert run("status")["problems"] == []
    assert "--now belongs to --ca" in run("renew", "--now", code=2)["problems"][0]["fact"]


def test_the_archive_keeps_no_secrets(run):
    run("device", "add", "kitchen", "cellar")
    run("renew", "--all")
    run("renew", "--ca")
    run("renew", "--ca", "--finish", "--force")
    run("renew", "--ca", "--now")
    run("revoke", "kitchen")
    run("broker-conf", "--server-only")
    run("revoke", "cellar")
    kept = [each.name for each in (run.pki / "archive").rglob("*") if each.is_file()]
    assert kept and not set(kept) & set(SECRETS) and not [each for each in kept if "key" in each]
    # of an older version
    place = run.pki / "archive/0123/devices/lost"
    place.mkdir(parents=True)
    for name in (*SECRETS, "cert.crt"):
        (place / name).write_text("x")
    run("device", "list")
    assert len(list(place.iterdir())) == 7, "who only looks changes nothing"
    run("broker-conf")
    assert [each.name for each in place.iterdir()] == ["cert.crt"]


# Names


@pytest.mark.parametrize("name", ["broker.lan", "127.0.0.1", "BROKER.lan"])
def test_no_device_has_a_name_of_the_broker(run, tmp_path, name):
    problem = run("device", "add", name, code=1)["problems"][0]
    assert f"{name!r} is a name of the broker" in problem["fact"]
    (tmp_path / "fleet.csv").write_text(f"kitchen\n{name}\n")
    problem = run("device", "add", "--csv", tmp_path / "fleet.csv", code=1)["problems"][0]
    assert f"line 2: {name!r} is a name of the broker" in problem["fact"]
    assert Directory(run.pki).devices() == []


def test_no_broker_has_the_name_of_a_device(run):
    run("device", "add", "Kitchen")
    names = ("--broker", "127.0.0.1", "--broker", "kitchen")
    problem = run("init", *names, code=1)["problems"][0]
    assert "'Kitchen' is the name of a device" in problem["fact"]


# What a damaged file does


def test_damaged_settings_of_a_device_are_made_anew(run):
    run("device", "add", "kitchen")
    path = run.pki / "devices/kitchen/tls.json"
    good = json.loads(path.read_text())
    for text in ("{", "[]", "null", '{"host": 1}', json.dumps({**good, "port": "x"}), "\xff"):
        path.write_text(text)
        assert "tls.json is damaged" in run("status", code=1)["problems"][0]["fact"]
        assert run("device", "add", "kitchen")["added"] == ["kitchen"]
        assert {**json.loads(path.read_text())} == good
    run("broker-conf", "--server-only")
    password = json.loads(path.read_text())["password"]
    path.write_text("{")
    run("device", "add", "kitchen")
    tls = json.loads(path.read_text())
    line = (run.pki / "broker/passwords").read_text()
    assert tls["password"] != password
    assert deployment.broker.is_password_line(line, "kitchen", tls["password"])


def test_a_damaged_record_is_told(run):
    run("device", "add", "kitchen")
    with (run.pki / "issued.jsonl").open("a") as file:
        file.write("{}\n")
    problem = run("revoke", "kitchen", code=1)["problems"][0]
    assert "issued.jsonl is damaged: line 4 is not what mqttls writes" in problem["fact"]


@pytest.mark.parametrize("damage", [b"\x82\xff", b"\xff\xfe\0{", b'{"serial": "1'])
def test_a_damaged_record_keeps_nobody_from_what_is_urgent(run, damage):
    """What is noted afterwards is whole, and the damage is told."""
    run("device", "add", "kitchen")
    path = run.pki / "issued.jsonl"
    path.write_bytes(path.read_bytes() + damage)
    run("device", "add", "cellar")
    run("renew", "--ca", "--now")
    lines = path.read_bytes().split(b"\n")
    assert lines[3] == damage and lines[-1] == b""
    names = [json.loads(line)["name"] for line in lines[4:-1]]
    assert names.count("cellar") == 2 and names.count("kitchen") == 1
    problem = run("revoke", "kitchen", code=1)["problems"][0]
    assert "issued.jsonl is damaged: line 4 is not what mqttls writes" in problem["fact"]


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\0", b"\x82", b"kitchen:x\n" * 3])
def test_a_damaged_list_of_passwords_is_written_anew(run, damage):
    run("broker-conf", "--server-only")
    run("device", "add", "kitchen", "cellar")
    path = run.pki / "broker/passwords"
    path.write_bytes(damage + path.read_bytes())
    run("revoke", "cellar")
    (line,) = path.read_text().splitlines(keepends=True)
    password = json.loads((run.pki / "devices/kitchen/tls.json").read_text())["password"]
    assert deployment.broker.is_password_line(line, "kitchen", password)


def test_openssl_agrees_about_what_was_revoked(run):
    run("device", "add", "kitchen")
    run("revoke", "--serial", serial(run.pki / "devices/kitchen/cert.crt"))
    folder = run.pki / "devices/kitchen"
    command = ["openssl", "verify", "-crl_check", "-CAfile", run.pki / "broker/ca.crt"]
    command += ["-CRLfile", run.pki / "broker/crl.pem", folder / "cert.crt"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "certificate revoked" in done.stderr
    assert Authority(run.pki).revoked()[0]["name"] == "kitchen"
