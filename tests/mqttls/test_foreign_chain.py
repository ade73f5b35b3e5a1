"""The doctor and a device that is below a CA which the broker does not know."""

import pytest

from tests.support.broker import Broker
from tests.support.doctoring import conf_of, doctor

pytestmark = pytest.mark.usefixtures("micropython")


@pytest.fixture(scope="module")
def below(pki):
    return pki.issue("device below", "client", issuer=pki.intermediate_ca)


def told(broker, pki, identity, cert, *more):
    pair = ["--cert", cert, "--key", identity.key_der]
    return doctor(broker.port, *pair, *more, ca=pki.ca)


def test_the_doctor_sends_the_whole_chain_as_the_device_does(tmp_path, pki, below):
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        conf = ["--conf", conf_of(broker)]
        for bundle in (
            pki.bundle(below, pki.intermediate_ca),
            pki.bundle(pki.intermediate_ca, below),
        ):
            word = told(broker, pki, below, bundle, *conf)
            assert word.problems == [], word
            detail = word.json["stages"]["client certificate"]["detail"]
            assert detail.startswith("device below, until"), detail
        word = told(broker, pki, below, below.cert_pem, *conf)
        word.names(25, "client certificate", "is from intermediate ca", "takes those from ca")


def test_a_chain_that_a_board_cannot_send_is_told(tmp_path, pki, below):
    many = [below, *(pki.issue(f"ca {n}", "ca") for n in range(12))]
    with Broker(tmp_path / "b", "mtls", pki=pki) as broker:
        word = told(broker, pki, below, pki.bundle(*many))
        assert 32 in word.rows, word
        assert "with its chain of 12" in str(word.problems), word
