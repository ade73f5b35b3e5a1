"""Mosquitto's own tests of a client, run against ours: see upstream.py and differences.py."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance import differences
from tests.conformance.upstream import WRITTEN_FOR, Upstream
from tools.debian import Unavailable

pytestmark = pytest.mark.timeout(150)

TESTS = """
01-con-discon-success 01-con-discon-success-v5 01-con-discon-will 01-con-discon-will-clear
01-con-discon-will-v5 01-extended-auth-continue 01-extended-auth-failure 01-keepalive-pingreq
01-no-clean-session 01-pre-connect-callback 01-server-keepalive-pingreq 01-unpwd-set 01-will-set
01-will-unpwd-set
02-subscribe-helper-qos2 02-subscribe-qos0 02-subscribe-qos1 02-subscribe-qos2 02-unsubscribe
02-unsubscribe-multiple-v5 02-unsubscribe-v5
03-publish-b2c-qos1 03-publish-b2c-qos1-unexpected-puback 03-publish-b2c-qos2
03-publish-b2c-qos2-len 03-publish-b2c-qos2-unexpected-pubcomp
03-publish-b2c-qos2-unexpected-pubrel 03-publish-c2b-qos1-disconnect 03-publish-c2b-qos1-len
03-publish-c2b-qos1-receive-maximum 03-publish-c2b-qos2 03-publish-c2b-qos2-disconnect
03-publish-c2b-qos2-len 03-publish-c2b-qos2-maximum-qos-0 03-publish-c2b-qos2-maximum-qos-1
03-publish-c2b-qos2-pubrec-error 03-publish-c2b-qos2-receive-maximum-1
03-publish-c2b-qos2-receive-maximum-2 03-publish-loop 03-publish-qos0 03-publish-qos0-no-payload
03-request-response 03-request-response-correlation
04-retain-qos0
08-ssl-bad-cacert 08-ssl-connect-cert-auth 08-ssl-connect-no-auth 08-ssl-connect-san
08-ssl-fake-cacert
11-prop-oversize-packet 11-prop-recv-qos0 11-prop-recv-qos1 11-prop-recv-qos2
11-prop-send-content-type 11-prop-send-payload-format
""".split()

SEQUENCES = "msg_sequence_test"
DATA = """
CONNECT CONNACK DISCONNECT PUBLISH PUBACK PUBREC SUBSCRIBE UNSUBSCRIBE UNSUBACK AUTH FORBIDDEN
PINGREQ PINGRESP
""".split()

# They wait for pings, a few seconds each time
SLEEPERS = """
01-keepalive-pingreq 01-server-keepalive-pingreq 03-publish-b2c-qos1-unexpected-puback
03-publish-b2c-qos2-unexpected-pubcomp
""".split()
WORKERS = (os.cpu_count() or 1) + len(SLEEPERS)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    try:
        return Upstream(tmp_path_factory.mktemp("mosquitto"))
    except Unavailable as reason:
        pytest.skip(f"mosquitto's tests were not run: {reason}")


@pytest.fixture(scope="module")
def result(request, upstream):
    """A function that returns the Run of a test. All that were selected run beside each other."""
    selected = {
        tuple(item.callspec.params["test"])
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    }
    pool = ThreadPoolExecutor(WORKERS)
    runs = {test: pool.submit(upstream.run, *test) for test in sorted(selected, key=_order)}
    yield lambda test: runs[test].result()
    pool.shutdown(wait=False, cancel_futures=True)
    upstream.stop()  # after Ctrl-C, or with -x
    pool.shutdown()


def _order(test):
    """What sleeps comes first, then what is much work."""
    name, *data = test
    return (name not in SLEEPERS, name != SEQUENCES, DATA.index(data[0][:-5]) if data else 0)


def judge(upstream, run):
    problems = run.problems()
    if problems and upstream.version > WRITTEN_FOR:
        version = ".".join(map(str, upstream.version))
        pytest.skip(f"fails with mosquitto {version}, newer than the clients here: {problems[0]}")
    if problems:
        pytest.fail("\n".join(problems[:40] + [run.report()]), pytrace=False)


@pytest.mark.parametrize("test", [(name,) for name in TESTS], ids=TESTS)
def test_mosquitto(upstream, result, test):
    """
    One of mosquitto's tests of a client passes with ours.

    MQTT 3.1.1: [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.2-23], [MQTT-4.3.1-1],
    [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.3-1], [MQTT-4.3.3-2], [MQTT-4.4.0-1]
    MQTT 5.0: [MQTT-3.1.2-21], [MQTT-3.2.2-11], [MQTT-3.2.2-15], [MQTT-3.2.2-21], [MQTT-3.3.4-7],
    [MQTT-4.3.3-4], [MQTT-4.4.0-2], [MQTT-4.12.0-3]
    """
    if test[0] not in upstream.tests():
        pytest.skip("this version of mosquitto has no such test")
    if test[0].startswith("08-ssl-connect") and upstream.certificates_expired():
        pytest.skip("the certificates that come with mosquitto are past their end")
    judge(upstream, result(test))


@pytest.mark.parametrize("test", [(SEQUENCES, f"{name}.json") for name in DATA], ids=DATA)
def test_message_sequences(upstream, result, test):
    """
    Packets from the broker, most of them malformed, end the connection or do not.

    MQTT 3.1.1: [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-2.2.2-2], [MQTT-3.3.1-4], [MQTT-3.3.2-2]
    MQTT 5.0: [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-1.5.5-1], [MQTT-2.1.3-1], [MQTT-3.3.1-4],
    [MQTT-3.3.2-2], [MQTT-3.3.2-14], [MQTT-3.14.1-1], [MQTT-3.15.1-1]
    """
    if test[1] not in upstream.data():
        pytest.skip("this version of mosquitto has no such sequences")
    run = result(test)
    judge(upstream, run)
    assert run.sequences() == upstream.sequences(test[1]), run.report()


def test_every_test_of_mosquitto_is_run_or_does_not_apply(upstream):
    known = {*TESTS, SEQUENCES, *differences.NOT_APPLICABLE}
    new = upstream.tests() - known
    new |= upstream.data() - {f"{name}.json" for name in DATA}
    if new and upstream.version > WRITTEN_FOR:
        pytest.skip(f"mosquitto {upstream.version} has tests for which there is no client: {new}")
    assert not new
