"""The doctor's reading of configurations, logs and names, and its word on what init wrote."""

import datetime
import getpass
import json
import re
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from tests.support.doctoring import forge
from tests.support.doctoring import mqttls as in_process
from tests.support.tool import Mosquitto, init, mqttls, open_folder
from tools.mqttls.doctor import chain, clients, conf, conf_lint, lint, log, reading
from tools.mqttls.doctor.causes import ROWS, STAGES

pytestmark = pytest.mark.usefixtures("micropython")


@pytest.fixture
def judge(tmp_path):
    """Returns the findings about the text of a configuration, as {row: fact} of the problems."""

    def of(text, port=None):
        path = tmp_path / "mosquitto.conf"
        path.write_text(text)
        findings, _ = conf_lint.judge(conf.Configuration(path), port)
        assert all(each.stage in STAGES and each.cure for each in findings)
        return {each.row: each.fact for each in findings if each.level == "problem"}

    return of


# The configuration


def good(pki, more=""):
    return (
        f"user {getpass.getuser()}\nallow_anonymous true\nlistener 8883\n"
        f"certfile {pki.broker.cert_pem}\nkeyfile {pki.broker.key_pem}\n{more}\n"
    )


def test_a_good_configuration_has_no_problem(judge, pki):
    assert judge(good(pki)) == {}
    assert judge("# a comment\n\n" + good(pki).replace(" ", "   ", 1)) == {}


@pytest.mark.parametrize(
    ("more", "row", "words"),
    [
        ("tls_version tlsv1.3", 7, "tlsv1.3"),
        ("tls_version tlsv3", 60, "knows no"),
        ("tls_version tlsv1.2 tlsv1.3", 60, "knows no"),
        ("ciphers ECDHE-RSA-CHACHA20-POLY1305", 10, "CHACHA20"),
        ("ciphers nonsense", 10, "nonsense"),
        ("use_identity_as_username true", 36, "require_certificate"),
        ("require_certificate true", 25, "cafile"),
        ("protocol websockets", 5, "websockets"),
        ("acl_file /nowhere/acl", 58, "not there"),
        ("cafile /nowhere/ca.crt", 58, "not there"),
        ("crlfile /nowhere/crl.pem", 58, "not there"),
        ("listener x", 0, "without a port"),
        ("include_dir /nowhere", 0, "no folder"),
    ],
)
def test_a_line_that_is_wrong(judge, pki, more, row, words):
    assert words in judge(good(pki, more))[row]


def test_what_is_missing(judge, pki, tmp_path):
    assert 35 in judge(good(pki).replace("allow_anonymous true\n", ""))
    assert 39 in judge(good(pki).replace("keyfile", "#"))
    assert 2 in judge("allow_anonymous true\n")
    assert 2 in judge("listener 1883\nallow_anonymous true\n")
    assert 3 in judge("listener 1883\nallow_anonymous true\n", 1883)
    assert 0 in judge("")
    findings, _ = conf_lint.judge(conf.Configuration(tmp_path / "none.conf"))
    assert "cannot be read" in findings[0].fact


def test_settings_of_one_listener_are_its_own(judge, pki):
    text = "per_listener_settings true\n" + good(pki).replace("allow_anonymous true\n", "")
    assert 35 in judge(text)
    assert judge(text + "allow_anonymous true\n") == {}
    assert 35 in judge(text + "listener 1883\nallow_anonymous true\n", 8883)


def test_an_acl_that_allows_nothing(judge, pki, tmp_path):
    acl = tmp_path / "acl"
    for text, words in (
        ("# nothing\n", "no topic"),
        ("", "no topic"),
        ("pattern readwrite devices/%u/#\n", "%u"),
    ):
        acl.write_text(text)
        assert words in judge(good(pki, f"acl_file {acl}"))[35]
    acl.write_text("topic readwrite #\n")
    assert judge(good(pki, f"acl_file {acl}")) == {}


def test_a_configuration_in_pieces(judge, pki, tmp_path):
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "tls.conf").write_text(good(pki, "tls_version tlsv1.3"))
    (folder / "ignored.bak").write_text("listener 1\n")
    assert 7 in judge(f"include_dir {folder}\n")


def test_what_is_no_port_is_told(judge, pki):
    for text in ("\u00b2", "9" * 5000, "", "65536"):
        assert "listener without a port" in judge(good(pki) + f"listener {text}\n")[0]
        assert 2 in judge(f"port {text}\n")


def test_a_configuration_that_includes_itself_ends(judge, tmp_path):
    (tmp_path / "round.conf").write_text(f"include_dir {tmp_path}\n")
    assert 2 in judge(f"include_dir {tmp_path}\n")


def test_a_copy_of_a_configuration_finds_its_files_beside_it(judge, pki, tmp_path):
    shutil.copy(pki.broker.cert_pem, tmp_path / "broker.pem")
    shutil.copy(pki.broker_wrong_name.key_pem, tmp_path / "broker.key")
    text = "listener 8883\ncertfile /etc/m/broker.pem\nkeyfile /etc/m/broker.key\n"
    assert "does not belong" in judge("allow_anonymous true\n" + text)[39]


@given(st.text(max_size=300))
def test_any_text_is_read_as_a_configuration(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("conf") / "mosquitto.conf"
    path.write_bytes(text.encode("utf-8", "replace"))
    conf_lint.judge(conf.Configuration(path))


# Certificates


@given(data=st.data())
def test_a_damaged_certificate_is_told_not_raised(pki, tmp_path_factory, data):
    with open(pki.broker.cert_der, "rb") as file:
        der = bytearray(file.read())
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("der") / "x.der"
    path.write_bytes(bytes(der))
    try:
        (leaf, *_) = reading.load_all(path)
        chain.judge([leaf], [pki.ca.certificate])
        lint.named(leaf, "localhost")
        lint.server(leaf)
        clients.judge(leaf, None, [pki.ca.certificate])
    except reading.Unreadable as error:
        assert error.finding.cure


def test_pem_is_read_in_one_pass_whatever_is_in_it(tmp_path, pki):
    path = tmp_path / "x.pem"
    path.write_bytes(b"-----BEGIN CERTIFICATE-----\n" * 37_000)
    with pytest.raises(reading.Unreadable):
        reading.load_all(path)
    text = Path(pki.ca.cert_pem).read_bytes()
    path.write_bytes(b"a comment\r\n" + text.replace(b"\n", b"\r\n") + b"\n" + text)
    assert reading.load_all(path) == [pki.ca.certificate] * 2
    path.write_bytes(text[:-30])
    with pytest.raises(reading.Unreadable):
        reading.load_all(path)


@pytest.mark.parametrize(
    ("name", "names", "addresses", "new", "old"),
    [
        ("a.lan", ["a.lan"], [], True, True),
        ("A.LAN", ["a.lan"], [], True, True),
        ("b.lan", ["a.lan"], [], False, False),
        ("a.lan", ["*.lan"], [], True, True),
        ("a.b.lan", ["*.lan"], [], False, False),
        ("lan", ["*.lan"], [], False, False),
        ("10.0.0.1", [], ["10.0.0.1"], True, False),
        ("10.0.0.1", ["10.0.0.1"], [], True, True),
        ("10.0.0.2", ["a.lan"], ["10.0.0.1"], False, False),
        ("the name", ["a.lan"], [], False, False),
        ("the name", [], [], True, True),  # CN counts only without SAN
    ],
)
def test_names_match_as_in_mbedtls(pki, name, names, addresses, new, old):
    usage = "server" if names or addresses else "client"
    leaf = forge(
        pki, f"n {name} {names}", usage, names=names, addresses=addresses, subject="the name"
    )
    assert lint.matches(name, leaf.certificate) == (new, old)


def test_der_with_two_cas_is_remarked(pki):
    said = in_process("doctor", "--ca", pki.bundle(pki.ca, pki.other_ca, der=True))
    assert said["exit"] == 0, said
    assert any("first" in each for each in said["notes"])


def test_a_list_of_revoked_ones_in_der(pki, tmp_path):
    path = tmp_path / "crl.pem"
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(pki.ca.certificate.subject)
    made = builder.last_update(now).next_update(now + datetime.timedelta(9))
    made = made.sign(pki.ca.key, hashes.SHA256())
    path.write_bytes(made.public_bytes(serialization.Encoding.DER))
    with pytest.raises(reading.Unreadable, match="DER"):
        clients.crl(path)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    lists, findings = clients.crl(path, [pki.ca.certificate])
    assert len(lists) == 1
    assert [(each.row, each.level) for each in findings] == [(26, "remark")]  # it ends soon


# The log

SSL = "Client connection from 10.0.0.7 failed: error:0A000000:SSL routines::"


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (SSL + "wrong version number.", 4),
        (SSL + "http request.", 4),
        (SSL + "unsupported protocol.", 7),
        (SSL + "no shared cipher.", 10),
        (SSL + "peer did not return a certificate.", 24),
        (SSL + "certificate verify failed.", 25),
        (SSL + "bad signature.", 27),
        (SSL + "tlsv1 alert unknown ca.", 17),
        (SSL + "sslv3 alert certificate expired.", 14),
        (SSL + "sslv3 alert bad certificate.", 15),
        (SSL + "sslv3 alert unsupported certificate.", 31),
        ('1700000000: Error: Unable to load server key file "x". Check keyfile.', 39),
        ("1700000000: OpenSSL Error[0]: error:0B080074:x509::key values mismatch", 39),
        ("1700000000: Error: Address already in use", 2),
        ("1700000000: Client a already connected, closing old connection.", 38),
        ("1700000000: Client a disconnected, not authorised.", 35),
        ("1700000000: Denied PUBLISH from a (d0, q0, r0, m0, 'x', ... (1 bytes))", 44),
        ("1700000000: New connection from 10.0.0.7:1 on port 8883.", None),
    ],
)
def test_lines_of_the_log(line, row):
    finding = log.judge_line(line)
    assert (finding and finding.row) == row
    if finding:
        assert finding.cause
        assert finding.cure
        assert "1700000000" not in finding.fact


def test_the_line_after_unable_to_load_says_why():
    lines = [
        '1700000000: Error: Unable to load server key file "k". Check keyfile.',
        "1700000000: OpenSSL Error[0]: error:0909006C:PEM routines:get_name:no start line",
    ]
    (finding,) = log.judge(lines)
    assert "PEM" in finding.cause


def test_each_kind_is_told_once_the_latest_first():
    lines = [SSL + "wrong version number."] * 500 + [SSL + "no shared cipher."]
    assert [each.row for each in log.judge(lines)] == [10, 4]


def test_a_log_is_read_from_where_it_was(tmp_path):
    path = tmp_path / "log"
    path.write_text("old\n")
    watch = log.Watch(path)
    assert (watch.before(), watch.since()) == (["old"], [])
    with path.open("ab") as file:
        file.write(b"new \xff\n")
    assert watch.since() == ["new \ufffd"]
    path.write_text("x\n")  # rotated
    assert watch.since() == ["x"]


def test_of_a_huge_log_the_end_is_read(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.seek(50_000_000)
        file.write(b"\n" + SSL.encode() + b"no shared cipher.\n")
    assert [each.row for each in log.judge(log.Watch(path).before())] == [10]


@given(st.text(max_size=500))
def test_any_line_is_read(line):
    log.judge([line])


# The table


def test_every_row_has_a_stage_a_cause_and_a_cure():
    assert sorted(ROWS) == list(range(1, len(ROWS) + 1))
    for stage, cause, cure in ROWS.values():
        assert stage in STAGES
        assert cause
        assert cure


def test_every_row_has_a_test():
    here = Path(__file__).parent
    names = re.findall(
        r"def test_rows?_(\d+(?:_and_\d+)*)_",
        "".join(each.read_text() for each in here.glob("test_doctor_*.py")),
    )
    tested = {int(number) for each in names for number in each.split("_and_")}
    assert tested == set(ROWS)


# What init wrote


def text_of(pki, *arguments, code):
    return mqttls(pki, "doctor", *arguments, code=code).out


def test_what_init_wrote_is_well_until_the_device_is_revoked():
    with open_folder() as base:
        pki = base / "mqtt-pki"
        port = init(pki)
        mqttls(pki, "device", "add", "kitchen")
        old = base / "old"
        shutil.copytree(pki / "devices/kitchen", old)
        with Mosquitto(pki / "broker/mosquitto.conf", port, pki) as broker:
            line = ["--device", "kitchen", "--topic", "devices/kitchen/x"]
            line += ["--log", broker._log.name]
            line += ["--conf", pki / "broker/mosquitto.conf"]
            out = text_of(pki, *line, code=0)
            for stage in STAGES[:2] + STAGES[4:]:
                assert f"\n  {stage:<18}  ok " in out, out
            assert "all is well" in out
            assert "client id" not in out
            mqttls(pki, "revoke", "kitchen")
            broker.restart()
            shutil.copytree(old, pki / "devices/kitchen", dirs_exist_ok=True)
            out = text_of(pki, *line, code=1)
            assert "PROBLEM (client certificate)" in out, out
            assert "revoked" in out
            assert "  cure: " in out


def test_a_device_with_a_password():
    with open_folder() as base:
        pki = base / "mqtt-pki"
        port = init(pki, "--server-only")
        mqttls(pki, "device", "add", "kitchen")
        with Mosquitto(pki / "broker/mosquitto.conf", port, pki):
            line = ["--device", "kitchen", "--as-device"]
            assert "all is well" in text_of(pki, *line, code=0)
            assert "a live device" in text_of(pki, *line[:2], code=0), "nobody is thrown out"
            path = pki / "devices/kitchen/tls.json"
            settings = json.loads(path.read_text())
            secret, settings["password"] = settings["password"], "another one"
            path.write_text(json.dumps(settings))
            out = text_of(pki, *line, code=1)
            assert "PROBLEM (CONNACK)" in out
            assert "another one" not in out
            assert secret not in out
