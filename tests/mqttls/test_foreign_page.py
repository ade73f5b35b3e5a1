"""
The commands of docs/own_broker.md, against brokers with certificates as those services have: up to
a device that connects.
"""

import contextlib
import shlex

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.support import docs, mpy
from tests.support import pki as made
from tests.support.broker import HOST, Broker
from tests.support.doctoring import forge, mqttls
from tests.support.tool import typing

pytestmark = pytest.mark.usefixtures("micropython")
USERS = dict.fromkeys(("garden", "garden-1", "USERNAME"), "secret")
NAMES = (
    *("0123456789abcdef.s1.eu.hivemq.cloud", "io.adafruit.com", "test.mosquitto.org"),
    *("abc123-ats.iot.eu-west-1.amazonaws.com", "mqtt.example.com", "ha.example.org"),
)


def shown(block):
    """Return the commands (list of str) of a block of the page."""
    return docs.text(block).splitlines()


@pytest.fixture(scope="module")
def public(pki):
    """A root that the system trusts, and a broker below one of its intermediate ones."""
    root = pki.issue("public root", "ca", path_length=1)
    between = pki.issue("public issuing ca", "ca", issuer=root, key="rsa2048")
    leaf = pki.issue("public broker", issuer=between, names=NAMES, addresses=())
    return {"root": root, "leaf": leaf}


@pytest.fixture
def told(tmp_path, pki, public, monkeypatch):
    """
    A function that runs commands (list of str) as the page has them against a broker of its own,
    which shows an Identity, and then connects as a device.
    """
    with contextlib.ExitStack() as stack:

        def tell(lines, identity, kind="tls", *answers, **options):
            place = tmp_path / f"broker{len(list(tmp_path.iterdir()))}"
            broker = Broker(place, kind, pki=pki, identity=identity, **options)
            stack.enter_context(broker)
            folder = place.with_name(f"{place.name}-pki")
            for line in lines:
                tool, verb, target, *words = shlex.split(line)
                assert (tool, verb) == ("mqttls", "use")
                host = target.partition(":")[0]
                if kind != "tcp" and "--name" not in words:  # the name stays, the address is here
                    words += ["--name", host]
                command = ["use", f"{HOST}:{broker.port}", *words, "--dir", str(folder)]
                status, text = typing(
                    command,
                    *answers,
                    cwd=tmp_path,
                    SSL_CERT_FILE=public["root"].cert_pem,
                    PYTHONPATH=str(mpy.ROOT),
                )
                assert status == 0, f"{line}\n{text}"
                assert mqttls("device", "add", "kitchen", "--dir", folder)["exit"] == 0
                said = mqttls("doctor", "--device", "kitchen", "--dir", folder)
                assert said["exit"] == 0 and said["attempt"]["ok"], said
            return text

        yield tell


def test_services_with_a_public_root(told, public):
    for block in ("own broker hivemq", "own broker adafruit", "own broker name"):
        text = told(shown(block), public["leaf"], "tls", "secret", users=USERS)
        assert "public issuing ca is signed by public root" in text.replace("\n ", "")


def test_home_assistants_own_certificate(told, pki):
    addon = forge(
        pki,
        "addon",
        "",
        subject="homeassistant.local",
        key="rsa2048",
        basic=(True, None),
        key_usage=None,
    )
    text = told(shown("own broker pin"), addon, "tls", "y", "secret", users=USERS)
    assert "the broker's own certificate" in text.replace("\n  ", " ")


def test_the_public_broker_of_mosquitto(told, pki, public, tmp_path):
    own = pki.issue("mosquitto.org", "ca", key="rsa2048")
    leaf = pki.issue("test.mosquitto.org", issuer=own, names=("test.mosquitto.org",))
    (tmp_path / "mosquitto.org.crt").write_bytes(
        own.certificate.public_bytes(serialization.Encoding.PEM)
    )
    first, second = shown("own broker mosquitto")
    assert ":8886 " in first and "--ca mosquitto.org.crt" in second
    told([first], public["leaf"])
    told([second], leaf)


def test_awss_files(told, pki, public, tmp_path):
    issuer = pki.issue("aws devices", "ca")
    device = forge(pki, "AWS IoT Certificate", "", issuer=issuer, key="rsa2048")
    folder = tmp_path / "thing-1"
    folder.mkdir()
    pem = serialization.Encoding.PEM
    (folder / "1f-certificate.pem.crt").write_bytes(device.certificate.public_bytes(pem))
    (folder / "AmazonRootCA1.pem").write_bytes(public["root"].certificate.public_bytes(pem))
    with open(device.key_pem, "rb") as key:
        (folder / "1f-private.pem.key").write_bytes(key.read())
    text = told(shown("own broker aws"), public["leaf"], "mtls", client_ca=issuer)
    assert "AmazonRootCA1.pem: taken" in text.replace("\n  ", " ")


def test_a_companys_pfx(told, pki, tmp_path):
    device = pki.issue("garden one", "client", issuer=pki.intermediate_ca)
    lock = serialization.BestAvailableEncryption(b"secret")
    chain = [pki.intermediate_ca.certificate, pki.ca.certificate]
    (tmp_path / "garden-1.pfx").write_bytes(
        pkcs12.serialize_key_and_certificates(b"g", device.key, device.certificate, chain, lock)
    )
    (tmp_path / "company-root.cer").write_bytes(
        pki.ca.certificate.public_bytes(serialization.Encoding.DER)
    )
    leaf = pki.issue("company broker", issuer=pki.ca, names=(*made.NAMES, "mqtt.example.com"))
    told(shown("own broker company"), leaf, "mtls", "secret")


def test_without_tls(told):
    text = told(shown("own broker plain"), None, "tcp", "secret", users=USERS)
    assert "everybody in the network" in text
