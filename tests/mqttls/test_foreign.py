"""
`mqttls use`: boards of a broker that is somebody else's, with the certificates that such brokers
have; up to what a board does with what it was given.
"""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.support import pki as made
from tests.support.board import WIFI
from tests.support.broker import HOST, Broker
from tests.support.doctoring import doctor, forge, mqttls
from tests.support.pty_board import PtyBoard
from tests.support.tool import APP, typing, write_secret
from tools.mqttls.board import Board
from tools.mqttls.doctor import roots
from tools.ports import free_port

pytestmark = pytest.mark.usefixtures("micropython", "store")
PEM = serialization.Encoding.PEM


@pytest.fixture
def store(monkeypatch, letsencrypt):
    """The system trusts the root of `letsencrypt`, and nothing else but certifi's."""
    monkeypatch.setenv("SSL_CERT_FILE", letsencrypt["root"].cert_pem)
    roots.stores.cache_clear()
    yield
    roots.stores.cache_clear()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mqtt-pki"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "password"
    write_secret(path, "secret\n")
    return path


def ca(name, issuer=None, key=None, **options):
    """Return (certificate, key) of a CA; `key` is that of another certificate of the same one."""
    key = key or made.new_key()
    extensions = [
        (x509.BasicConstraints(True, None), True),
        (made.key_usage("key_cert_sign crl_sign"), True),
    ]
    return made.signed(name, key, issuer, extensions, **options), key


@pytest.fixture(scope="module")
def letsencrypt(pki):
    """
    A chain as Let's Encrypt sends one: the broker's certificate, that of R12, and that of the
    root, signed by an older root, too, which has expired.
    """
    folder = pki.directory
    old = made.Identity(folder, "dst root", *ca("DST Root CA X3", valid_to=made.days(-9)))
    root = made.Identity(folder, "isrg root", *ca("ISRG Root X1"))
    crossed, _ = ca("ISRG Root X1", old, root.key)
    between = made.Identity(folder, "r12", *ca("R12", root), root)
    names = {"names": ("mqtt.example.org", "localhost"), "addresses": (HOST,)}
    leaf = pki.issue("mqtt.example.org", issuer=between, **names)
    return {"root": root, "leaf": _chained(folder, leaf, between.certificate, crossed)}


def _chained(folder, leaf, *above):
    """Have a broker send the certificates `above` behind that of `leaf` (Identity)."""
    path = folder / f"{leaf.name}-fullchain.pem".replace(" ", "-")
    path.write_bytes(b"".join(each.public_bytes(PEM) for each in (leaf.certificate, *above)))
    leaf.__dict__["chain_pem"] = str(path)
    return leaf


def use(port, folder, *arguments, host=HOST):
    return mqttls("use", f"{host}:{port}", *arguments, "--dir", folder)


def one_problem(said, *words):
    """Assert that a command ended with one problem that has these words."""
    assert said["exit"] == 1, said
    (problem,) = said["problems"]
    text = " | ".join(problem[each] for each in ("fact", "cause", "cure"))
    assert "\n" not in text
    for each in words:
        assert each in text, text
    return text


def connects(folder, name, tmp_path, app=APP, expected="acknowledged True True\n"):
    """Assert that the doctor connects as a device, and a board with what provision writes."""
    said = mqttls("doctor", "--device", name, "--dir", folder)
    assert said["exit"] == 0 and said["attempt"]["ok"], said
    write_secret(tmp_path / "wifi", WIFI[1])
    with PtyBoard(tmp_path / "flash", wifi=WIFI) as board:
        wifi = ("--wifi-ssid", WIFI[0], "--wifi-password-file", tmp_path / "wifi")
        said = mqttls("provision", name, "--port", board.port, *wifi, "--dir", folder)
        assert said["exit"] == 0, said
        with Board(board.port) as connected:
            assert expected in connected.run(app, "the app", timeout_s=60)
        status = mqttls("status", "--board", "--port", board.port, "--dir", folder)
        assert status["exit"] == 0, status
        assert status["board"]["name"] == name
    return said


def tls_json(folder, name):
    return json.loads((folder / "devices" / name / "tls.json").read_text())


# The root is found


def test_a_board_trusts_the_root_that_the_chain_needs(letsencrypt, folder, secret, tmp_path):
    login = ("--user", "garden", "--password-file", secret)
    options = {"identity": letsencrypt["leaf"], "users": {"garden": "secret"}}
    with Broker(tmp_path / "b", "tls", pki=_any_pki(letsencrypt), **options) as broker:
        said = use(broker.port, folder, *login, "--home", "garden")
        assert said["exit"] == 0, said
        root = letsencrypt["root"].certificate
        assert [each["name"] for each in said["trusted"]] == ["ISRG Root X1"]
        assert said["trusted"][0]["sha256"] == root.fingerprint(hashes.SHA256()).hex()
        assert said["next"] == [f"mqttls device add NAME --dir {folder}"]
        said = mqttls("device", "add", "kitchen", "--dir", folder)
        assert said["exit"] == 0 and said["added"] == ["kitchen"], said
        connects(folder, "kitchen", tmp_path)
    found = tls_json(folder, "kitchen")
    assert (found["user"], found["home"]) == ("garden", "garden/")
    der = (folder / "devices/kitchen/ca.der").read_bytes()
    assert der == root.public_bytes(serialization.Encoding.DER)
    for path in folder.rglob("*"):
        assert not path.stat().st_mode & 0o077, path


def _any_pki(letsencrypt):
    class Nothing:
        broker = letsencrypt["leaf"]
        ca = letsencrypt["root"]

    return Nothing


@pytest.fixture
def shows(tmp_path, pki):
    """A function that starts a broker which shows an Identity."""
    with contextlib.ExitStack() as stack:

        def start(identity, kind="tls", **options):
            place = tmp_path / f"broker{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(Broker(place, kind, pki=pki, identity=identity, **options))

        yield start


def test_what_is_said_of_the_root_is_a_sentence(shows, letsencrypt, folder, capsys):
    from tools.mqttls.cli import main

    broker = shows(letsencrypt["leaf"])
    assert main(["use", f"{HOST}:{broker.port}", "--dir", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "R12 is signed by ISRG Root X1, which is in your system's store: taken\n" in out
    assert "  mqtt.example.org, P-256, until " in out


def test_a_root_that_nobody_has_is_named(shows, pki, folder):
    said = use(shows(pki.broker_by_intermediate).port, folder)
    one_problem(said, "intermediate ca is signed by ca, which is in no list", "--ca FILE")
    assert not folder.exists(), "nothing is left of what failed"
    lonely = _chained(pki.directory, pki.issue("lonely", issuer=pki.intermediate_ca))
    said = use(shows(lonely).port, folder)
    one_problem(said, "is signed by intermediate ca", "fullchain.pem, not cert.pem")


def test_where_the_issuer_can_be_had_is_told(shows, pki, folder):
    place = x509.AccessDescription(
        x509.oid.AuthorityInformationAccessOID.CA_ISSUERS,
        x509.UniformResourceIdentifier("http://ca.example.org/ca.cer"),
    )
    more = [(x509.AuthorityInformationAccess([place]), False)]
    leaf = forge(pki, "with aia", issuer=pki.ca, more=more)
    one_problem(use(shows(leaf).port, folder), "http://ca.example.org/ca.cer")


def test_the_ca_comes_in_any_form(shows, pki, tmp_path):
    port = shows(pki.broker_by_intermediate).port
    certificates = [pki.other_ca.certificate, pki.ca.certificate]
    bundle = b"".join(each.public_bytes(PEM) for each in certificates)
    for number, data in enumerate(
        (
            bundle,
            bundle.decode().encode("utf-16"),
            pkcs7.serialize_certificates(certificates, serialization.Encoding.DER),
            pki.bundle(pki.intermediate_ca, pki.ca),
            pki.intermediate_ca.certificate.public_bytes(PEM),
        )
    ):
        path, folder = tmp_path / f"ca{number}", tmp_path / f"folder{number}"
        path.write_bytes(data if isinstance(data, bytes) else Path(data).read_bytes())
        said = use(port, folder, "--ca", path)
        assert said["exit"] == 0, said
        wanted = "ca" if number < 4 else "intermediate ca"
        assert [each["name"] for each in said["trusted"]] == [wanted]
        mqttls("device", "add", "a", "--dir", folder)
        assert mqttls("doctor", "--device", "a", "--dir", folder)["exit"] == 0


def test_a_ca_that_is_not_the_one_is_told(shows, pki, letsencrypt, folder):
    port = shows(pki.broker).port
    one_problem(use(port, folder, "--ca", pki.other_ca.cert_pem), "broker is signed by ca")
    text = one_problem(use(port, folder, "--ca", pki.broker.cert_pem), "is the broker's own")
    assert "give that of the CA ca" in text
    one_problem(use(port, folder, "--ca", pki.broker.key_pem), "has no certificate")
    port = shows(letsencrypt["leaf"]).port
    said = use(port, folder, "--ca", pki.other_ca.cert_pem)
    one_problem(said, "leave --ca away: R12 is signed by ISRG Root X1")


def test_the_ca_that_is_to_come_is_trusted_too(shows, pki, folder):
    both = ("--ca", pki.other_ca.cert_pem, "--ca", pki.ca.cert_pem)
    said = use(shows(pki.broker).port, folder, *both)
    assert [each["name"] for each in said["trusted"]] == ["ca", "other ca"], said
    mqttls("device", "add", "a", "--dir", folder)
    assert tls_json(folder, "a")["ca"] == ["ca.der", "ca2.der"]
    assert mqttls("doctor", "--device", "a", "--dir", folder)["exit"] == 0
    port = shows(pki.broker_wrong_ca).port  # the CA has changed
    assert doctor(port, "--name", "localhost", ca=[pki.ca, pki.other_ca]).problems == []
    assert [each["name"] for each in use(port, folder)["trusted"]] == ["ca", "other ca"]
    use(port, folder, "--ca", pki.other_ca.cert_pem)
    assert tls_json(folder, "a")["ca"] == ["ca.der"]
    assert not (folder / "devices/a/ca2.der").exists()
    bundle = pki.bundle(pki.other_ca, pki.intermediate_ca)
    one_problem(
        use(shows(pki.broker).port, folder, "--ca", pki.ca.cert_pem, "--ca", bundle), "2 CAs"
    )


def test_a_name_that_is_another_one(shows, pki, letsencrypt, folder):
    leaf = _chained(
        pki.directory,
        pki.issue("only by name", issuer=pki.ca, names=("*.lan", "hub.lan"), addresses=()),
    )
    port = shows(leaf).port
    said = use(port, folder, "--ca", pki.ca.cert_pem)
    one_problem(said, f"{HOST} is not among", f"mqttls use {HOST}:{port} --name hub.lan")
    assert use(port, folder, "--ca", pki.ca.cert_pem, "--name", "hub.lan")["exit"] == 0
    mqttls("device", "add", "a", "--dir", folder)
    assert tls_json(folder, "a")["server_hostname"] == "hub.lan"
    assert mqttls("doctor", "--device", "a", "--dir", folder)["exit"] == 0


def test_a_broker_that_no_board_can_use_is_told_why(shows, pki, folder):
    one_problem(use(shows(pki.broker_expired).port, folder, "--ca", pki.ca.cert_pem), "expired")
    said = use(shows(pki.broker_wrong_usage).port, folder, "--ca", pki.ca.cert_pem)
    one_problem(said, "serverAuth")
    odd = forge(pki, "pss", key="rsa2048", pss=True)
    one_problem(use(shows(odd).port, folder), "RSA-PSS", "reissue")
    broker = shows(pki.broker, lines=["tls_version tlsv1.3"])
    one_problem(use(broker.port, folder), "TLS 1.3")


def test_where_nothing_answers_only_what_is_given_counts(pki, folder):
    port = free_port()
    one_problem(use(port, folder), "refused", "--ca FILE")
    said = use(port, folder, "--ca", pki.ca.cert_pem)
    assert said["exit"] == 0 and "nothing was checked" in said["notes"][0], said
    again = use(port, folder)
    assert [each["name"] for each in again["trusted"]] == ["ca"]
    many = pki.bundle(*(pki.issue(f"ca no {n}", "ca") for n in range(4)))
    one_problem(use(port, folder, "--ca", many), "cannot be asked which")


# A broker that signed its certificate itself


@pytest.fixture(scope="module")
def addon(pki):
    """As Home Assistant's add-on gets one: openssl req -x509 -newkey rsa:2048."""
    return forge(
        pki,
        "homeassistant",
        "",
        key="rsa2048",
        basic=(True, None),
        key_usage=None,
        more=[(made.alternatives(("homeassistant.local",), (HOST,)), False)],
    )


def fingerprint(identity):
    return identity.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def test_a_self_signed_certificate_is_pinned_once_it_was_compared(shows, addon, folder):
    port = shows(addon).port
    command = ["use", f"{HOST}:{port}", "--dir", folder]
    status, text = typing(command, "n")
    assert status == 1 and fingerprint(addon) in text and "nothing was pinned" in text, text
    assert "openssl x509 -in CERTIFICATE -noout -fingerprint -sha256" in text
    status, text = typing(command, "y")
    assert status == 0 and "the broker's own certificate" in text, text
    mqttls("device", "add", "kitchen", "--dir", folder)
    assert mqttls("doctor", "--device", "kitchen", "--dir", folder)["exit"] == 0
    status = mqttls("status", "--dir", folder)
    assert status["broker"]["trusted"][0]["name"] == "homeassistant"
    assert use(port, folder)["pinned"], "what is pinned already is not asked for again"


def test_without_a_terminal_the_fingerprint_is_given(shows, pki, addon, folder):
    port = shows(addon).port
    shown = fingerprint(addon)
    one_problem(use(port, folder), "only its owner can tell", f"--pin {shown}")
    for form in (shown, shown.lower().replace(":", ""), f"SHA256 Fingerprint={shown}"):
        assert use(port, folder, "--pin", form)["pinned"]
    one_problem(use(port, folder, "--pin", "ab" * 32), "another certificate", shown)
    assert use(port, folder, "--pin", "abc")["exit"] == 2
    assert use(port, folder, "--ca", addon.cert_pem)["pinned"], "its owner gave the file"
    said = use(port, folder, "--ca", pki.ca.cert_pem)
    one_problem(said, "is signed by homeassistant", "compare its fingerprint")


def test_another_certificate_in_the_place_of_the_pinned_one_is_asked_for(
    shows, pki, addon, folder
):
    use(shows(addon).port, folder, "--pin", fingerprint(addon))
    said = use(shows(pki.broker_self_signed).port, folder)
    one_problem(said, "only its owner can tell", fingerprint(pki.broker_self_signed))


def test_a_private_root_that_the_broker_sends_is_pinned(shows, pki, folder):
    leaf = _chained(pki.directory, pki.issue("with its root", issuer=pki.ca), pki.ca.certificate)
    port = shows(leaf).port
    one_problem(use(port, folder), "ca is the broker's own", f"--pin {fingerprint(pki.ca)}")
    said = use(port, folder, "--pin", fingerprint(pki.ca))
    assert not said["pinned"] and said["trusted"][0]["name"] == "ca", said
    said = use(port, folder, "--pin", fingerprint(leaf))
    one_problem(said, "is not signed by itself, and no CA")


# Who the board is


@pytest.fixture(scope="module")
def amazon(pki):
    """AWS IoT: its roots, a broker below one that another root signed, too, and a device's CA."""
    folder = pki.directory
    star = made.Identity(folder, "starfield", *ca("Starfield Services Root CA - G2"))
    root1 = made.Identity(folder, "amazon1", *ca("Amazon Root CA 1", key=made.new_key("rsa2048")))
    root3 = made.Identity(folder, "amazon3", *ca("Amazon Root CA 3"))
    crossed, _ = ca("Amazon Root CA 1", star, root1.key)
    between = made.Identity(folder, "m01", *ca("Amazon RSA 2048 M01", root1), root1)
    leaf = pki.issue("iot.eu-west-1.amazonaws.com", issuer=between)
    _chained(folder, leaf, between.certificate, crossed, star.certificate)
    issuer = pki.issue("AWS IoT devices", "ca")
    device = forge(pki, "AWS IoT Certificate", "", issuer=issuer, key="rsa2048")
    return {"leaf": leaf, "roots": (root1, root3), "issuer": issuer, "device": device}


def download(folder, amazon, *numbers):
    """Write what AWS IoT lets somebody download into `folder`; of its roots those `numbers`."""
    folder.mkdir()
    stem = folder / "3f2a9c"
    device = amazon["device"]
    shutil.copy(device.cert_pem, f"{stem}-certificate.pem.crt")
    shutil.copy(device.key_pem, f"{stem}-private.pem.key")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = device.key.public_key().public_bytes(PEM, form)
    (folder / "3f2a9c-public.pem.key").write_bytes(public)
    for number in numbers:
        root = amazon["roots"][number // 2]
        shutil.copy(root.cert_pem, folder / f"AmazonRootCA{number}.pem")
    return folder


def test_the_files_of_aws(shows, amazon, folder, tmp_path):
    broker = shows(amazon["leaf"], "mtls", client_ca=amazon["issuer"])
    files = download(tmp_path / "thing", amazon, 1, 3)
    said = use(broker.port, folder, "--aws", files, "--client-id", "thing-1", "--home", "thing-1/")
    assert said["exit"] == 0, said
    assert [each["name"] for each in said["trusted"]] == ["Amazon Root CA 1"]
    mqttls("device", "add", "kitchen", "--dir", folder)
    assert tls_json(folder, "kitchen")["client_id"] == "thing-1"
    tries = f"mqttls doctor --device kitchen --client-id thing-1 --dir {folder}"
    assert tries in mqttls("device", "add", "kitchen", "--dir", folder)["next"]
    assert mqttls("doctor", "--device", "kitchen", "--dir", folder)["exit"] == 0
    said = mqttls("device", "add", "cellar", "--dir", folder)
    one_problem(said, "kitchen has the client id 'thing-1'", "--client-id")
    said = mqttls("device", "add", "cellar", "--client-id", "thing-2", "--dir", folder)
    assert tls_json(folder, "cellar")["client_id"] == "thing-2"
    assert tls_json(folder, "cellar")["cert"] == "cert.der"


def test_a_root_of_amazon_that_is_not_there_is_named(shows, amazon, folder, tmp_path):
    broker = shows(amazon["leaf"], "mtls", client_ca=amazon["issuer"])
    files = download(tmp_path / "thing", amazon, 3)
    said = use(broker.port, folder, "--aws", files)
    one_problem(said, "Amazon Root CA 1", "amazontrust.com/repository/AmazonRootCA1.pem")
    shutil.copy(amazon["roots"][0].cert_pem, files / "AmazonRootCA1.pem")
    assert use(broker.port, folder, "--aws", files)["exit"] == 0
    os.remove(files / "3f2a9c-private.pem.key")
    one_problem(use(broker.port, folder, "--aws", files), "no private key")
    empty = tmp_path / "empty"
    empty.mkdir()
    one_problem(use(broker.port, folder, "--aws", empty), "neither certificates nor keys")


def test_a_companys_pfx_with_its_chain(shows, pki, folder, tmp_path):
    device = pki.issue("garden 1", "client", issuer=pki.intermediate_ca)
    others = [pki.ca.certificate, pki.intermediate_ca.certificate]
    lock = serialization.BestAvailableEncryption(b"secret")
    path, word = tmp_path / "garden.pfx", tmp_path / "word"
    path.write_bytes(
        pkcs12.serialize_key_and_certificates(b"g", device.key, device.certificate, others, lock)
    )
    broker = shows(pki.broker, "mtls", lines=["use_identity_as_username true"])
    command = ["use", f"{HOST}:{broker.port}", "--pfx", path, "--dir", folder]
    status, text = typing(command, "wrong", "secret")
    assert status == 0, text
    assert "that was wrong; passphrase of " in text
    assert "broker is signed by ca, which is in" in text and "certificate of garden 1" in text
    mqttls("device", "add", "kitchen", "--dir", folder)
    connects(folder, "kitchen", tmp_path)
    one_problem(mqttls(*command), "no terminal", "--passphrase-file")
    write_secret(word, "secret\n")
    assert mqttls(*command, "--passphrase-file", word)["exit"] == 0
    assert mqttls(*command, "--ca", path, "--passphrase-file", word)["exit"] == 0
    word.write_text("other\n")
    one_problem(mqttls(*command, "--passphrase-file", word), "wrong passphrase")


def test_what_a_board_has_of_its_own_stays(shows, pki, folder, secret, tmp_path):
    users = {"garden": "secret", "cellar": "secret"}
    broker = shows(pki.broker, users=users)
    login = ("--password-file", secret)
    use(broker.port, folder, "--ca", pki.ca.cert_pem, "--user", "garden", *login)
    mqttls("device", "add", "kitchen", "--dir", folder)
    own = ("--user", "cellar", *login, "--home", "below/")
    mqttls("device", "add", "cellar", *own, "--dir", folder)
    for name in ("kitchen", "cellar"):
        assert mqttls("doctor", "--device", name, "--dir", folder)["exit"] == 0
    secret.write_text("another\n")
    said = use(broker.port, folder, "--user", "garden", *login)
    assert f"mqttls provision kitchen --dir {folder}" in said["next"]
    assert tls_json(folder, "kitchen")["password"] == "another"
    kept = tls_json(folder, "cellar")
    assert (kept["user"], kept["password"], kept["home"]) == ("cellar", "secret", "below/")
    said = mqttls("doctor", "--device", "kitchen", "--dir", folder)
    assert said["attempt"]["code"] in (4, 5), said
    assert use(broker.port, folder)["login"] == "user garden", "what is not given stays"


def test_a_folder_is_for_one_broker(shows, pki, folder, secret):
    broker = shows(pki.broker, users={"garden": "secret"})
    login = ("--user", "garden", "--password-file", secret)
    assert use(free_port(), folder, "--no-tls", host="elsewhere.lan")["exit"] == 0
    use(broker.port, folder, "--ca", pki.ca.cert_pem, *login)
    mqttls("device", "add", "kitchen", "--dir", folder)
    said = use(broker.port, folder, host="localhost")
    one_problem(said, f"is for {HOST}, with kitchen", "--dir FOLDER", "--moved")
    assert use(broker.port, folder, "--moved", host="localhost")["exit"] == 0
    found = tls_json(folder, "kitchen")
    assert (found["host"], found["user"]) == ("localhost", "garden")
    assert mqttls("doctor", "--device", "kitchen", "--dir", folder)["exit"] == 0


def test_a_password_is_asked_for_or_comes_in_a_pipe(shows, pki, folder):
    broker = shows(pki.broker, users={"garden": "secret"})
    command = ["use", f"{HOST}:{broker.port}", "--ca", pki.ca.cert_pem, "--user", "garden"]
    status, text = typing([*command, "--dir", folder], "secret")
    assert status == 0 and "password of garden: " in text and "secret" not in text, text
    mqttls("device", "add", "a", "--dir", folder)
    assert mqttls("doctor", "--device", "a", "--dir", folder)["exit"] == 0
    said = mqttls(*command, "--dir", folder)
    assert said["exit"] == 2 and "--password-file FILE" in said["problems"][0]["fact"]


def test_a_key_that_no_board_can_use_is_told(shows, pki, folder):
    device = forge(pki, "edwards", "client", issuer=pki.ca, key="ed25519")
    port = shows(pki.broker).port
    pair = ("--cert", device.cert_pem, "--key", device.pkcs8_pem)
    one_problem(use(port, folder, "--ca", pki.ca.cert_pem, *pair), "Ed25519", "P-256")
    pair = ("--cert", pki.device_expired.cert_pem, "--key", pki.device_expired.key_pem)
    one_problem(use(port, folder, "--ca", pki.ca.cert_pem, *pair), "expired")
    pair = ("--cert", pki.device.cert_pem, "--key", pki.device_rsa.key_pem)
    one_problem(use(port, folder, "--ca", pki.ca.cert_pem, *pair), "is not that of")
    pair = ("--cert", pki.device_wrong_usage.cert_pem, "--key", pki.device_wrong_usage.key_pem)
    said = use(port, folder, "--ca", pki.ca.cert_pem, *pair)
    assert said["exit"] == 0 and "not for clientAuth" in said["notes"][0]


def test_a_chain_that_is_too_long_for_a_board_is_left_out(shows, pki, folder, tmp_path):
    above = pki.ca
    for number in range(5):
        key = made.new_key("rsa2048")
        above = made.Identity(pki.directory, f"l{number}", *ca(f"L{number}", above, key), above)
    device = forge(pki, "deep", "client", issuer=above, key="rsa2048")
    path = tmp_path / "deep.pem"
    at, chain = device, b""
    while at.issuer:
        chain += at.certificate.public_bytes(PEM)
        at = at.issuer
    path.write_bytes(chain + Path(device.key_pem).read_bytes())
    port = shows(pki.broker).port
    said = use(port, folder, "--ca", pki.ca.cert_pem, "--cert", path)
    assert said["exit"] == 0 and "the broker must know them" in said["notes"][0], said


# Without TLS

PLAIN_APP = """\
import asyncio, config
from mqtt_as_tls import MQTTClient

async def main():
    client = MQTTClient(**config.mqtt, log=None)
    await client.connect(timeout_s=20)
    await client.publish(config.home + "t", "21.5", qos=1)
    await client.disconnect()
    print("acknowledged", config.tls)

asyncio.run(main())
"""


def test_a_broker_without_tls(tmp_path, folder, secret):
    login = ("--user", "garden", "--password-file", secret)
    with Broker(tmp_path / "b", "tcp", users={"garden": "secret"}) as broker:
        said = use(broker.port, folder, *login)
        one_problem(said, "without TLS", f"mqttls use {HOST}:{broker.port} --no-tls")
        said = use(broker.port, folder, "--no-tls", *login)
        assert said["exit"] == 0 and "everybody in the network can read" in said["notes"][0]
        mqttls("device", "add", "kitchen", "--dir", folder)
        connects(folder, "kitchen", tmp_path, PLAIN_APP, "acknowledged None\n")
        said = mqttls("doctor", "--device", "kitchen", "--dir", folder, "--topic", "x")
        assert said["stages"]["publish"]["state"] == "ok", said
    assert "passwords too" in said["stages"]["TLS"]["detail"]
    for option in ("--ca", "--name", "--pin", "--cert"):
        assert use(broker.port, folder, "--no-tls", option, "x")["exit"] == 2


def test_a_plain_broker_is_diagnosed(tmp_path, pki, secret, monkeypatch):
    with Broker(tmp_path / "b", "tcp", "tls", pki=pki, users={"garden": "secret"}) as broker:
        login = ("--user", "garden", "--password-file", secret)
        doctor(broker.port, *login).names(3, "TLS", "plain port")
        word = doctor(broker.port, "--no-tls", *login)
        assert word.problems == [] and word.attempt["ok"], word
        monkeypatch.setattr("tools.mqttls.commands.doctor.PLAIN_PORT", broker.port)
        word = doctor(broker.port, *login)
        assert word.problems == [] and word.attempt["ok"], word
        assert list(word.stages) == ["resolve", "connect", "TLS", "CONNACK"]
        secret.write_text("wrong\n")
        assert doctor(broker.port, *login).first["stage"] == "CONNACK"
        assert doctor(broker.port, "--no-tls", "--ca", pki.ca.cert_pem).json["exit"] == 2
        word = doctor(broker.ports["tls"], "--no-tls", *login)
        assert word.first["stage"] == "CONNACK" and word.attempt["ok"] is False
    doctor(free_port(), "--no-tls").names(2, "connect", "refused")


# The doctor offers it


def test_the_doctor_names_the_root_that_is_missing(shows, pki, letsencrypt, addon):
    port = shows(letsencrypt["leaf"]).port
    said = doctor(port).json
    assert "R12 is signed by ISRG Root X1" in said["stages"]["chain"]["detail"]
    assert f"mqttls use {HOST}:{port}" in said["next"]
    port = shows(pki.broker).port
    said = doctor(port).json
    assert "broker is signed by ca, which is in no list" in said["stages"]["chain"]["detail"]
    assert f"mqttls use {HOST}:{port} --ca FILE" in said["next"]
    port = shows(addon).port
    for ca in (None, pki.ca):
        assert f"mqttls use {HOST}:{port}" in doctor(port, ca=ca).json["next"]


# What has no meaning there


def test_what_needs_an_authority_says_why_it_cannot(shows, pki, folder, tmp_path):
    port = shows(pki.broker).port
    use(port, folder, "--ca", pki.ca.cert_pem)
    mqttls("device", "add", "kitchen", "--dir", folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for line in (["renew"], ["revoke", "kitchen"], ["broker-conf"], ["init", "--broker", "a"]):
        one_problem(mqttls(*line, "--dir", folder), f"{HOST} is somebody else's broker: ")
    for option in (["--admin"], ["--topics", "a"], ["--days", "9"]):
        said = mqttls("device", "add", "kitchen", *option, "--dir", folder)
        assert said["exit"] == 2 and "for its owner to say" in said["problems"][0]["fact"]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    own = tmp_path / "own"
    mqttls("init", "--broker", "broker.lan", "--dir", own)
    one_problem(use(port, own, "--ca", pki.ca.cert_pem), "has an authority of its own", "--dir")
    said = mqttls("device", "add", "kitchen", "--user", "u", "--dir", own)
    assert said["exit"] == 2 and "mqttls use HOST" in said["problems"][0]["fact"]


@pytest.mark.parametrize(
    "line",
    [
        ["--password-file", "x"],
        ["--key", "x"],
        ["--cert", "x", "--pfx", "y"],
        ["--user", ""],
        ["--user", "a\nb"],
        ["--home", "a/#"],
        ["--home", ""],
        ["--client-id", "\x1b[2J"],
        ["--name", "a/b"],
        ["--pin", "xyz"],
        ["--no-tls", "--pfx", "x"],
    ],
)
def test_mistakes_on_the_command_line(folder, line):
    assert use(1, folder, *line)["exit"] == 2
    assert not (folder / "settings.json").exists()


def test_damaged_settings_are_told(shows, pki, folder):
    use(shows(pki.broker).port, folder, "--ca", pki.ca.cert_pem)
    mqttls("device", "add", "kitchen", "--dir", folder)
    path = folder / "settings.json"
    whole = json.loads(path.read_text())
    for bad in (
        1,
        {},
        {"tls": 1},
        {**whole["foreign"], "name": 7},
        {**whole["foreign"], "name": "/"},
    ):
        path.write_text(json.dumps({**whole, "foreign": bad}))
        for line in (["status"], ["device", "add", "b"], ["renew"], ["provision", "kitchen"]):
            said = mqttls(*line, "--dir", folder)
            assert said["exit"] == 1 and said["problems"], (bad, said)
    path.write_text(json.dumps(whole))
    (folder / "devices/kitchen/tls.json").write_text('{"host": "a", "port": 1, "ca": []}')
    one_problem(mqttls("provision", "kitchen", "--dir", folder), "no CA")
    assert mqttls("device", "add", "kitchen", "--dir", folder)["added"] == ["kitchen"]


# What others wrote into certificates


def test_names_in_certificates_are_nothing_to_a_terminal(shows, pki, folder, capsys):
    from tools.mqttls.cli import main

    evil = "\x1b[2J\x07\u202eevil\n$(reboot) 'x'"
    identity = forge(pki, "evil", subject=evil, names=("a`b", *made.NAMES))
    port = shows(identity).port
    for line in (
        ["use", f"localhost:{port}"],
        ["use", f"elsewhere.localhost:{port}"],
        ["use", f"localhost:{port}", "--pin", "ab" * 32],
        ["use", f"localhost:{port}", "--ca", identity.cert_pem],
        ["status"],
        ["doctor", f"localhost:{port}"],
    ):
        main([*line, "--dir", str(folder)])
        out = "".join(capsys.readouterr())
        assert out.isascii() or "\u202e" not in out
        assert "\x1b" not in out and "\x07" not in out, ascii(out)
        assert all(each.isprintable() for each in out.replace("\n", "")), ascii(out)
