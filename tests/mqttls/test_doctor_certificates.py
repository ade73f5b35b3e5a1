"""The doctor and the broker's certificates: chain, name, dates, form."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.support import faketime
from tests.support import pki as made
from tests.support.broker import Broker
from tests.support.doctoring import (
    bare,
    conf_of,
    doctor,
    explained,
    forge,
    server_context,
    tls_server,
)

pytestmark = pytest.mark.usefixtures("micropython")


def shown_by(tmp_path, pki, identity, **options):
    """Return a mosquitto that shows `identity`."""
    return Broker(tmp_path / "b", "tls", pki=pki, identity=identity, **options)


def at(year, month=1):
    return datetime.datetime(year, month, 1, tzinfo=datetime.timezone.utc)


def test_row_12_a_clock_that_was_never_set(tmp_path, pki):
    late = forge(pki, "broker late", issuer=pki.ca, valid_from=at(2024, 6))
    with shown_by(tmp_path, pki, late) as broker:
        word = doctor(broker.port, ca=pki.ca)
        assert word.problems == [], word
        assert "2024-06-01" in word.remarks[12]["fact"]
        assert "2021-01-01" in word.remarks[12]["fact"]
        try:
            clock = faketime.Clock(tmp_path, "2021-01-02")
        except faketime.Unavailable as reason:
            pytest.skip(str(reason))
        error = bare(broker.port, pki.ca.cert_der, env=clock.environment)
    assert "not valid yet" in explained(error)
    assert "clock" in explained(error)


def test_row_13_a_certificate_from_the_future(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_future) as broker:
        word = doctor(broker.port, ca=pki.ca).names(13, "dates", "wrong clock")
        assert "future" in word.attempt["text"]
        assert "wrong clock" in explained(bare(broker.port, pki.ca.cert_der))
        assert 13 in doctor(None, "--conf", conf_of(broker)).rows


def test_row_14_expired(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_expired) as broker:
        doctor(broker.port, ca=pki.ca).names(14, "dates", "the broker's certificate", "renew")
        assert "expired" in explained(bare(broker.port, pki.ca.cert_der))
        assert 14 in doctor(None, "--conf", conf_of(broker)).rows


def test_a_certificate_that_soon_expires_is_remarked(tmp_path, pki):
    soon = forge(pki, "broker soon", issuer=pki.ca, valid_to=made.days(10))
    with shown_by(tmp_path, pki, soon) as broker:
        word = doctor(broker.port, ca=pki.ca)
    assert word.problems == []
    assert "expires" in word.remarks[14]["fact"]


def test_row_15_another_name(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_wrong_name) as broker:
        word = doctor(broker.port, ca=pki.ca, host="localhost")
        word.names(15, "name", "localhost", "elsewhere.lan", "server_hostname")
        assert "another name" in explained(bare(broker.port, pki.ca.cert_der))
        word = doctor(broker.port, "--name", "elsewhere.lan", ca=pki.ca)
        assert word.problems == [], word


def test_row_16_an_address_as_ip_only(tmp_path, pki):
    only = forge(pki, "broker ip only", issuer=pki.ca, names=("broker.lan",))
    with shown_by(tmp_path, pki, only) as broker:
        word = doctor(broker.port, ca=pki.ca)
    assert word.problems == [], word  # this MicroPython is a newer one
    assert "1.22" in word.remarks[16]["cause"]


def test_row_17_another_ca(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_wrong_ca) as broker:
        word = doctor(broker.port, ca=pki.ca).names(17, "chain", "other ca", "provision")
        assert word.attempt["ok"] is False
        assert "not from the CA" in explained(bare(broker.port, pki.ca.cert_der))


def test_row_17_an_older_ca_of_the_same_name(tmp_path, pki):
    ca = {"basic": (True, 0), "key_usage": "key_cert_sign crl_sign", "subject": "garden ca"}
    old, new = forge(pki, "old", "", **ca), forge(pki, "new", "", **ca)
    with shown_by(tmp_path, pki, forge(pki, "of new", issuer=new)) as broker:
        doctor(broker.port, ca=old).names(17, "chain", "garden ca", "key id", "same name")


def test_row_17_a_self_signed_broker(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_self_signed) as broker:
        doctor(broker.port, ca=pki.ca).names(17, "chain", "itself")
        pinned = doctor(broker.port, ca=pki.broker_self_signed)
    assert pinned.problems == [], pinned


def test_row_18_a_ca_that_is_none(tmp_path, pki):
    for name, fields, missing in (
        ("no basic", {"basic": None, "key_usage": "key_cert_sign"}, "CA:TRUE"),
        ("not ca", {"basic": (False, None), "key_usage": "key_cert_sign"}, "CA:TRUE"),
        ("no sign", {"basic": (True, 0), "key_usage": "digital_signature"}, "keyCertSign"),
    ):
        ca = forge(pki, name, "", **fields)
        below = forge(pki, f"broker of {name}", issuer=ca)
        with Broker(tmp_path / name.replace(" ", ""), "tls", pki=pki, identity=below) as broker:
            doctor(broker.port, ca=ca).names(18, "chain", missing, name)
            assert "not from the CA" in explained(bare(broker.port, ca.cert_der))


def test_row_18_a_path_length_that_forbids_the_intermediate(tmp_path, pki):
    root = pki.issue("root 0", "ca", path_length=0)
    below = pki.issue("below root 0", "ca", issuer=root)
    with shown_by(tmp_path, pki, pki.issue("broker deep", issuer=below)) as broker:
        doctor(broker.port, ca=root).names(18, "chain", "path length")


def test_row_19_an_intermediate_that_is_not_sent(tmp_path, pki):
    leaf = pki.broker_by_intermediate
    alone = made.Identity(pki.directory, "broker alone", leaf.certificate, leaf.key)
    assert pki.intermediate_ca.cert_pem  # it lies beside the broker's certificate
    with shown_by(tmp_path, pki, alone) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca)
        word.names(19, "chain", "intermediate ca", "certfile")
        # Without the broker's files both remain, and both are said.
        doctor(broker.port, ca=pki.ca).names(17, "chain", "intermediate ca", "certfile")
        assert "intermediates" in explained(bare(broker.port, pki.ca.cert_der))
    with Broker(tmp_path / "whole", "tls", pki=pki, identity=leaf) as broker:
        assert doctor(broker.port, ca=pki.ca).problems == []


def test_row_20_the_chain_is_right_and_the_board_says_no(pki):
    """What low memory looks like: a peek that finds all well, and a board that does not."""
    right, wrong = server_context(pki.broker), server_context(pki.broker_wrong_ca)
    seen = []

    def take_turns():
        seen.append(1)
        return right if len(seen) < 2 else wrong  # the peek, then the board

    with tls_server(take_turns) as port:
        doctor(port, ca=pki.ca).names(20, "chain", "memory", "correctly signed")


def test_row_21_no_ca(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker) as broker:
        doctor(broker.port, device=pki.device).names(21, "chain", "CA")
        assert "no CA" in explained(bare(broker.port))


def test_row_22_connected_to_the_wrong_broker(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_wrong_ca) as broker:
        assert bare(broker.port, pki.ca.cert_der, "CERT_NONE").startswith("CONNACK")
        word = doctor(broker.port, ca=pki.ca).names(17, "chain")
    assert "CERT_REQUIRED" in word.remarks[22]["cure"]


def test_row_23_no_name(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker) as broker:
        assert "server_hostname" in explained(bare(broker.port, pki.ca.cert_der, ""))


def test_row_31_a_client_certificate_on_the_broker(tmp_path, pki):
    with shown_by(tmp_path, pki, pki.broker_wrong_usage) as broker:
        doctor(broker.port, ca=pki.ca).names(31, "TLS", "serverAuth")
        assert "serverAuth" in explained(bare(broker.port, pki.ca.cert_der))
        assert 31 in doctor(None, "--conf", conf_of(broker)).rows


def test_row_32_certificates_beyond_the_boards_buffer(tmp_path, pki):
    names = tuple(f"a-rather-long-name-{each:04}.broker.example" for each in range(420))
    large = forge(pki, "broker large", issuer=pki.ca, names=(*made.NAMES, *names))
    with shown_by(tmp_path, pki, large) as broker:
        doctor(broker.port, ca=pki.ca).names(32, "TLS", "16384", "P-256")
        assert "16 KB" in explained(bare(broker.port, pki.ca.cert_der))
        assert 32 in doctor(None, "--conf", conf_of(broker)).rows


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        (
            "critical",
            {
                "more": [
                    (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0"), True)
                ]
            },
            "1.2.3.4",
        ),
        ("sha384 fine", {"hashed": hashes.SHA384()}, None),
        ("sha224", {"hashed": hashes.SHA224()}, "SHA224"),
        ("rsa1024", {"key": "rsa1024"}, "RSA 1024"),
    ],
)
def test_row_33_forms_that_boards_do_not_take(pki, what, options, words):
    leaf = forge(pki, f"broker {what}", issuer=pki.ca, **options)
    context = server_context_weak(leaf)
    with tls_server(context) as port:
        word = doctor(port, ca=pki.ca, host="localhost")
        if words is None:
            assert word.problems == [], word
            return
        word.names(33, "chain", words, "P-256")
        assert word.attempt["ok"] is False
        error = bare(port, pki.ca.cert_der)
    assert explained(error)


def server_context_weak(identity):
    """Of a server whose OpenSSL takes everything."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity.chain_pem, identity.key_pem)
    return context


def test_row_33_a_ca_with_name_constraints(tmp_path, pki):
    constraints = x509.NameConstraints([x509.DNSName("lan")], None)
    ca = forge(
        pki,
        "constrained",
        "",
        basic=(True, 0),
        key_usage="key_cert_sign",
        more=[(constraints, True)],
    )
    leaf = forge(pki, "broker constrained", issuer=ca, names=("broker.lan",), addresses=())
    with shown_by(tmp_path, pki, leaf) as broker:
        word = doctor(broker.port, "--name", "broker.lan", ca=ca)
        word.names(33, "chain", "nameConstraints")
        assert explained(bare(broker.port, ca.cert_der, "broker.lan"))


def test_row_33_a_pss_signature(tmp_path, pki):
    ca = forge(pki, "pss ca", "", key="rsa2048", basic=(True, 0), key_usage="key_cert_sign")
    leaf = forge(pki, "broker pss", issuer=ca, pss=True)
    with shown_by(tmp_path, pki, leaf) as broker:
        doctor(broker.port, ca=ca).names(33, "chain", "PSS")
        assert explained(bare(broker.port, ca.cert_der))


def test_row_11_an_rsa_broker_that_may_only_encipher(tmp_path, pki):
    leaf = forge(pki, "broker ke", issuer=pki.ca, key="rsa2048", key_usage="key_encipherment")
    with shown_by(tmp_path, pki, leaf) as broker:
        word = doctor(broker.port, ca=pki.ca).names(11, "TLS", "digitalSignature")
        assert word.attempt["code"] == -31232
    old = Broker(
        tmp_path / "old", "tls", pki=pki, identity=leaf, lines=["ciphers AES256-GCM-SHA384"]
    )
    with old as broker:  # nothing is signed there
        assert doctor(broker.port, ca=pki.ca).problems == []


@pytest.mark.parametrize("kind", ["broker", "broker_rsa", "broker_by_intermediate"])
def test_good_brokers_have_no_problems(tmp_path, pki, kind):
    with shown_by(tmp_path, pki, getattr(pki, kind)) as broker:
        word = doctor(broker.port, "--conf", conf_of(broker), ca=pki.ca, host="localhost")
    assert word.problems == [], word
    assert word.attempt["ok"], word
