"""The certificates themselves: what every mbedTLS takes, and how time passes."""

import datetime
import io
import json
from contextlib import redirect_stdout

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from tools.mqttls import broker, certificates, cli
from tools.mqttls.messages import Failure
from tools.mqttls.names import parse_host


@pytest.fixture
def pki(tmp_path):
    return tmp_path / "mqtt-pki"


def run(pki, *arguments, code=0):
    """Run a command line in this process; return the object that it prints."""
    with redirect_stdout(io.StringIO()) as out:
        status = cli.main([*arguments, "--dir", str(pki), "--json"])
    found = json.loads(out.getvalue())
    assert status == code, found
    return found


def later(monkeypatch, days):
    """Let `days` pass for the tool."""
    when = certificates.now() + datetime.timedelta(days=days)
    monkeypatch.setattr(certificates, "now", lambda: when)


def extension(certificate, kind):
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def made(pki):
    run(pki, "init", "--broker", "192.168.1.10", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen")
    return [
        certificates.load(pki / path)
        for path in ("ca.crt", "broker/broker.crt", "devices/kitchen/cert.crt")
    ]


def test_the_certificates_are_those_that_every_mbedtls_accepts(pki):
    ca, server, client = found = made(pki)
    for each in found:
        assert isinstance(each.public_key().curve, ec.SECP256R1)
        assert isinstance(each.signature_hash_algorithm, hashes.SHA256)
        assert each.not_valid_before_utc == certificates.VALID_FROM
        assert each.version == x509.Version.v3
        assert extension(each, x509.BasicConstraints)[1], "critical"
        assert extension(each, x509.KeyUsage)[1], "critical"
        known = {x509.BasicConstraints, x509.KeyUsage, x509.SubjectKeyIdentifier}
        known |= {x509.AuthorityKeyIdentifier, x509.ExtendedKeyUsage, x509.SubjectAlternativeName}
        assert {type(one.value) for one in each.extensions} <= known
    assert len({each.serial_number for each in found}) == 3
    assert all(each.serial_number > 1 << 64 for each in found)

    basic = extension(ca, x509.BasicConstraints)[0]
    assert (basic.ca, basic.path_length) == (True, 0)
    usage = extension(ca, x509.KeyUsage)[0]
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    for each, purpose in (
        (server, ExtendedKeyUsageOID.SERVER_AUTH),
        (client, ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        assert not extension(each, x509.BasicConstraints)[0].ca
        usage = extension(each, x509.KeyUsage)[0]
        assert usage.digital_signature and not usage.key_cert_sign
        assert list(extension(each, x509.ExtendedKeyUsage)[0]) == [purpose]
        assert certificates.is_issued_by(each, ca)
        assert each.not_valid_after_utc <= ca.not_valid_after_utc
    assert certificates.common_name(client) == "kitchen"


def test_a_broker_s_addresses_are_there_as_addresses_and_as_names(pki):
    server = made(pki)[1]
    names = extension(server, x509.SubjectAlternativeName)[0]
    assert names.get_values_for_type(x509.DNSName) == ["192.168.1.10", "broker.lan"]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.10"]


def test_a_board_s_files_are_small_der_and_sec1(pki):
    made(pki)
    folder = pki / "devices" / "kitchen"
    key = (folder / "key.der").read_bytes()
    assert key[:7] == bytes.fromhex("30770201010420")  # ECPrivateKey of RFC 5915, not PKCS#8
    size = sum((folder / each).stat().st_size for each in ("ca.der", "cert.der", "key.der"))
    assert size < 1000
    settings = json.loads((folder / "tls.json").read_text())
    assert settings == {
        "host": "192.168.1.10",
        "port": 8883,
        "client_id": "kitchen",
        "server_hostname": "192.168.1.10",
        "ca": ["ca.der"],
        "cert": "cert.der",
        "key": "key.der",
    }


def test_no_certificate_outlives_its_authority(pki, monkeypatch):
    run(pki, "init", "--broker", "broker.lan")
    later(monkeypatch, 7300 - 100)
    run(pki, "device", "add", "kitchen")
    ends = certificates.load(pki / "ca.crt").not_valid_after_utc
    found = certificates.load(pki / "devices/kitchen/cert.crt")
    assert found.not_valid_after_utc == ends


def test_status_warns_before_the_end_and_renew_renews_what_is_due(pki, monkeypatch):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen", "--days", "200")
    run(pki, "device", "add", "cellar")
    assert run(pki, "status")["problems"] == []
    later(monkeypatch, 150)
    assert "kitchen: its certificate ends" in run(pki, "status", code=1)["problems"][0]["fact"]
    found = run(pki, "renew")
    assert found["devices"] == ["kitchen"] and "broker" not in found
    assert found["next"] == [f"mqttls provision kitchen --dir {pki}"]
    assert run(pki, "renew")["devices"] == []
    assert run(pki, "status")["problems"] == []
    later(monkeypatch, 1825 - 150 - 50)
    assert "broker's certificate" in run(pki, "status", code=1)["problems"][0]["fact"]
    old = (pki / "broker/broker.crt").read_bytes()
    found = run(pki, "renew")
    assert (pki / "broker/broker.crt").read_bytes() != old
    assert found["next"][0].endswith("install.sh reload")
    assert run(pki, "status")["problems"] == []
    assert run(pki, "renew", "--within", "20000", code=1)["devices"] == ["cellar", "kitchen"]


def test_what_has_expired_is_said_and_made_anew(pki, monkeypatch):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen", "--days", "10")
    later(monkeypatch, 11)
    assert "kitchen: it expired on" in run(pki, "status", code=1)["problems"][0]["fact"]
    assert run(pki, "device", "add", "kitchen")["added"] == ["kitchen"]
    assert run(pki, "status")["problems"] == []


def test_an_expired_authority_is_replaced_at_once(pki, monkeypatch):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen")
    later(monkeypatch, 7301)
    facts = " ".join(each["fact"] for each in run(pki, "status", code=1)["problems"])
    assert "authority" in facts and "the broker refuses everyone" in facts
    run(pki, "renew", "--ca")
    assert run(pki, "status")["problems"] == []
    assert len(run(pki, "status")["authorities"]) == 1


def test_an_expired_authority_issues_nothing(pki, monkeypatch):
    run(pki, "init", "--broker", "broker.lan")
    later(monkeypatch, 7301)
    found = run(pki, "device", "add", "kitchen", code=1)
    assert found["problems"][0]["fact"].startswith("the authority ended on")
    assert "renew --ca" in found["problems"][0]["cure"]
    assert not (pki / "devices").exists()


def test_a_pc_whose_clock_was_never_set_issues_nothing(pki, monkeypatch):
    later(monkeypatch, -20_000)
    found = run(pki, "init", "--broker", "broker.lan", code=1)
    assert "this PC's clock says 197" in found["problems"][0]["fact"]
    assert not pki.exists()


def test_the_next_commands_can_be_pasted_from_a_folder_with_a_space(tmp_path):
    pki = tmp_path / "my certificates"
    found = run(pki, "init", "--broker", "broker.lan")
    for each in found["next"]:
        assert f"'{pki}" in each
    assert run(pki, "device", "add", "kitchen")["next"][0].endswith(f"--dir '{pki}'")


def test_the_revocation_list_lives_as_long_as_the_authority(pki):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen", "cellar")
    serial = certificates.serial_of(certificates.load(pki / "devices/kitchen/cert.crt"))
    run(pki, "revoke", "kitchen")
    (found,) = certificates.load_crls(pki / "crl.pem")
    assert [f"{each.serial_number:040x}" for each in found] == [serial]
    assert found.next_update_utc == certificates.load(pki / "ca.crt").not_valid_after_utc
    assert (pki / "broker/crl.pem").read_bytes() == (pki / "crl.pem").read_bytes()
    status = run(pki, "status")
    assert status["crl"]["revoked"] == 1
    assert [each["name"] for each in status["devices"]] == ["cellar"]
    kept = pki / "archive" / serial / "devices/kitchen"
    assert (kept / "cert.crt").exists() and not (kept / "key.der").exists()


def test_status_says_which_boards_have_an_older_certificate(pki):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen", "cellar")
    current = run(pki, "status")
    note = {
        "cert": current["devices"][1]["serial"],
        "ca": [current["authorities"][0]["serial"]],
    }
    (pki / "devices/kitchen/board.json").write_text(json.dumps(note))

    def text():
        with redirect_stdout(io.StringIO()) as out:
            assert cli.main(["status", "--dir", str(pki)]) == 0
        return out.getvalue()

    assert "on its board\n" in text() and text().count("board") == 1
    run(pki, "renew", "kitchen")
    assert "its board has an older certificate\n" in text()
    run(pki, "renew", "--ca")
    assert "its board has the old authority only\n" in text()


def test_a_second_roll_over_waits_for_the_end_of_the_first(pki):
    run(pki, "init", "--broker", "broker.lan")
    run(pki, "device", "add", "kitchen")
    assert run(pki, "renew", "--ca", "--finish", code=1)["problems"]
    run(pki, "renew", "--ca")
    before = (pki / "ca.crt").read_bytes()
    found = run(pki, "renew", "--ca")
    assert found["waiting"] == {"kitchen": "not provisioned by this tool yet"}
    assert (pki / "ca.crt").read_bytes() == before
    assert json.loads((pki / "devices/kitchen/tls.json").read_text())["ca"] == [
        "ca.der",
        "ca2.der",
    ]
    # the broker's certificate stays one that every board knows, also when it is renewed now
    run(pki, "renew", "--broker")
    old = certificates.load_all(pki / "broker/ca.crt")[1]
    assert certificates.is_issued_by(certificates.load(pki / "broker/broker.crt"), old)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Broker.LAN", "broker.lan"),
        ("10.0.0.1", "10.0.0.1"),
        ("FE80::1", "fe80::1"),
        ("my_pi", "my_pi"),
        ("xn--brker-kva.lan", "xn--brker-kva.lan"),
    ],
)
def test_names_of_brokers_are_read(text, name):
    assert parse_host(text) == name


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", "-a", "a-", "a" * 64, "x." * 130, "*.lan", "10.0.0", "a:1", "a/b"]
)
def test_what_can_be_no_name_of_a_broker_is_refused(text):
    with pytest.raises(Failure):
        parse_host(text)


def test_passwords_are_random_and_kept_as_hashes():
    one, two = broker.new_password(), broker.new_password()
    assert one != two and len(one) == 20
    line = broker.password_line("kitchen", one)
    assert line.startswith("kitchen:$7$101$") and one not in line
    assert line != broker.password_line("kitchen", one)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),  # X.509 version 8
        (b"\x06\x03\x55\x04\x03\x0c", b"\x06\x03\x55\x04\x03\x7f"),  # a name of no known type
        (b"\x17\x0d200101", b"\x17\x0d209901"),  # month 99
    ],
)
def test_a_certificate_with_a_field_that_cannot_be_is_damaged(pki, old, new):
    run(pki, "init", "--broker", "broker.lan")
    der = certificates.load(pki / "ca.crt").public_bytes(serialization.Encoding.DER)
    assert old in der
    (pki / "wrong.der").write_bytes(der.replace(old, new))
    with pytest.raises(Failure, match="wrong.der is damaged"):
        certificates.load_all(pki / "wrong.der")
