"""Every error gets the cause and the cure that belong to it."""

from mqtt_as_tls import errors
from mqtt_as_tls.explain import ROWS, explain
from tests.unit.checks import raises

FUTURE = "\nThe certificate validity starts in the future\n"
EXPIRED = "\nThe certificate validity has expired\n"
UNSIGNED = "\nThe certificate is not correctly signed by the trusted CA\n"
NAME = "\nThe certificate Common Name (CN) does not match with the expected CN\n"
USAGE = "\nUsage does not match the extendedKeyUsage extension\n"

# error, a word of its cause, a word of its cure; what a handshake raised, as mbedTLS says it
RAW = (
    (ValueError(UNSIGNED), "not from the CA", "low memory"),
    (ValueError(NAME), "another name", "reissue"),
    (ValueError(EXPIRED), "has expired", "renew"),
    (ValueError(FUTURE), "not valid yet", "clock"),
    (ValueError(USAGE), "not one for servers", "serverAuth"),
    (ValueError(FUTURE + UNSIGNED), "not valid yet", "clock"),
    (ValueError(NAME + UNSIGNED), "not from the CA", "CA"),
    (ValueError("\nThe certificate is signed with an unacceptable hash.\n"), "form", "SHA-256"),
    (ValueError("invalid cert"), "cannot read", "PEM and DER"),
    (ValueError("invalid key"), "cannot read", "not encrypted"),
    (ValueError("CERT_REQUIRED requires server_hostname"), "no name", "server_hostname="),
    (MemoryError("memory allocation failed, allocating 16717 bytes"), "memory", "freeze"),
    (OSError(12), "network stack", "close sockets"),
    (OSError(12), "memory", "freeze"),
    (OSError(23), "socket", "close"),
    (OSError(24), "socket", "close"),
    (OSError(105), "buffer", "close"),
    (OSError(-32512, "MBEDTLS_ERR_SSL_ALLOC_FAILED"), "memory", "P-256"),
    (OSError(-20864, "MBEDTLS_ERR_MD_ALLOC_FAILED"), "memory", "freeze"),
    (OSError(-17168), "memory", "freeze"),
    (OSError(-17040), "memory", "freeze"),
    (OSError(-16256), "memory", "freeze"),
    (OSError(-15104), "memory", "freeze"),
    (OSError(-10368, "MBEDTLS_ERR_X509_ALLOC_FAILED"), "memory", "freeze"),
    (OSError(-30592, "MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE"), "refused the TLS", "cert="),
    (OSError(-30336, "MBEDTLS_ERR_SSL_CA_CHAIN_REQUIRED"), "no CA", "ca="),
    (OSError(-31232, "MBEDTLS_ERR_SSL_BAD_CERTIFICATE"), "servers", "serverAuth"),
    (OSError(-29184, "MBEDTLS_ERR_SSL_INVALID_RECORD"), "HTTP", "8883"),
    (OSError(-29312), "no TLS on this port", "8883"),
    (OSError(-28288), "no TLS 1.2", "tlsv1.2"),
    (OSError(-27136), "4 KB", "P-256"),
    (OSError(-28928), "16 KB", "chain"),
    (OSError(-9984), "not from the CA", "CA"),
    (OSError(-9570), "form", "nameConstraints"),
    (OSError(-8960, "MBEDTLS_ERR_X509_INVALID_ALG"), "form", "P-256"),
    (OSError(-15488, "MBEDTLS_ERR_PK_UNKNOWN_PK_ALG"), "form", "P-256"),
    (OSError(-14720, "MBEDTLS_ERR_PK_FEATURE_UNAVAILABLE"), "form", "P-256"),
    (OSError(-28160, "MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE"), "in common", "TLS 1.2"),
    (OSError(-26112, "MBEDTLS_ERR_SSL_ILLEGAL_PARAMETER"), "in common", "TLS 1.2"),
    (OSError(-28800, "MBEDTLS_ERR_SSL_FEATURE_UNAVAILABLE"), "16 KB", "P-256"),
    (OSError(-20096, "MBEDTLS_ERR_ECP_FEATURE_UNAVAILABLE"), "form", "P-256 by its name"),
    (OSError(-12288), "form", "short chain"),
    (OSError(-30464, "MBEDTLS_ERR_SSL_UNEXPECTED_MESSAGE"), "in common", "TLS 1.2"),
    (OSError(-31104), "in common", "TLS 1.2"),  # MBEDTLS_ERR_SSL_BAD_HS_SERVER_HELLO, up to 2.28
    (OSError(-31488), "in common", "TLS 1.2"),  # its SERVER_KEY_EXCHANGE
    (OSError(111), "nothing listens", "listener"),
    (OSError(113), "no way", "network"),
    (OSError(101), "no way", "address"),
    (OSError(110), "no answer", "firewall"),
    (OSError(103), "no answer", "firewall"),  # lwIP has sent its SYN often enough
    (OSError(103), "network was lost", "signal"),
    (OSError(104), "hung up", "log"),
    (OSError(-104), "hung up", "log"),  # TLS passes errnos on with a sign
    (OSError(-110), "no answer", "firewall"),
    (OSError(1), "radio", "firewall"),
    (OSError(5), "network chip", "power-cycle"),
    (OSError(9), "not connected", "close"),
    (OSError(107), "not connected", "Wi-Fi"),
    (OSError(128), "not connected", "Wi-Fi"),
    (OSError(-1), "umqtt", "Wi-Fi"),
    (OSError(-6), "no DNS server", "Wi-Fi"),
    (OSError(-16), "no address", "DNS"),
    (OSError(32), "hung up", "log"),
    (OSError(-30848), "hung up", "log"),
    (OSError(-2), "no address", "DNS"),
    (OSError(-202), "no address", "DNS"),
    (OSError("[addrinfo error -2]"), "no address", "IP"),
)

# the same from the tree, as the modules of the package raise it
OURS = (
    (errors.CertificateError(UNSIGNED.strip()), "not from the CA", "low memory"),
    (errors.CertificateError("TLS handshake broken off (-9984)", -9984), "not from the CA", "CA"),
    (
        errors.CertificateError("TLS handshake broken off (-31232)", -31232),
        "servers",
        "serverAuth",
    ),
    (errors.CertificateError("TLS handshake broken off (-9570)", -9570), "form", "P-256"),
    (errors.TLSError("TLS handshake out of memory (12)", 12), "memory", "P-256"),
    (
        errors.ConnectError("all TCP connections of the board are in use: OSError(12,)", 12),
        "no socket",
        "5 TCP",
    ),
    (
        errors.ConnectError("cannot connect to 10.0.0.9 port 8883: OSError(12,)", 12),
        "buffer",
        "close",
    ),
    (errors.TLSError("TLS handshake out of memory (16)", 16), "memory", "freeze"),
    (
        errors.TLSError("TLS handshake broken off after the broker's certificate (32)", 32),
        "wants a certificate of the device",
        "cert=",
    ),
    (
        errors.TLSError("TLS handshake broken off after the broker's certificate (104)", 104),
        "wants a certificate of the device",
        "not expired",
    ),
    (
        errors.TLSError(
            "TLS handshake broken off after the broker's certificate (-30592)", -30592
        ),
        "wants a certificate of the device",
        "pair",
    ),
    (
        errors.TLSError(
            "TLS handshake broken off after the broker's certificate (-27136)", -27136
        ),
        "4 KB",
        "P-256",
    ),
    (errors.TLSError("TLS handshake broken off (-30592)", -30592), "in common", "TLS 1.2"),
    (
        errors.TLSError(
            "TLS handshake broken off after the broker's certificate (-28160)", -28160
        ),
        "in common",
        "P-256",
    ),
    (
        errors.TLSError("TLS handshake broken off at the address ::1 as server name (-30592)", 1),
        "takes no address",
        "server_hostname=",
    ),
    (errors.TLSError("TLS handshake broken off (104)", 104), "no TLS on this port", "8883"),
    (errors.TLSError("TLS handshake broken off (-29312)", -29312), "no TLS on this port", "8883"),
    (errors.TLSError("TLS handshake broken off (-29184)", -29184), "HTTP", "8883"),
    (
        errors.ConnectError("cannot connect to 10.0.0.9 port 8883: OSError(111,)", 111),
        "nothing listens",
        "listener",
    ),
    (
        errors.ConnectError("cannot connect to 10.0.0.9 port 8883: OSError(104,)", 104),
        "nothing listens",
        "listener",
    ),
    (
        errors.ConnectError("10.0.0.9 port 8883: no answer within 30 s (TCP)"),
        "no answer from that address",
        "firewall",
    ),
    (
        errors.ConnectError("10.0.0.9 port 8883: no answer within 30 s (TLS)"),
        "silence in the TLS handshake",
        "TLS port",
    ),
    (
        errors.ConnectError("10.0.0.9 port 1883: no answer within 30 s (CONNECT)"),
        "no answer to CONNECT",
        "tls=",
    ),
    (errors.ConnectError("the broker closed the connection"), "hung up", "tls="),
    (errors.ConnectError("broken off: OSError(104,)", 104), "hung up", "used twice"),
    (errors.RefusedError("the broker refused: not authorised", 5), "not authorised", "ACL"),
    (errors.RefusedError("the broker refused: not authorised", 5), "wrong password", "password="),
    (errors.RefusedError("the broker refused: not authorized", 135), "wrong password", "ACL"),
    (errors.RefusedError("the broker refused: bad login", 4), "wrong user", "check"),
    (errors.RefusedError("the broker refused: bad login", 4), "no certificate", "cert="),
    (errors.RefusedError("the broker refused: bad login", 134), "no certificate", "cert="),
    (
        errors.ConnectError("10.0.0.9 port 1883: no answer within 30 s (CONNECT)"),
        "no answer to CONNECT",
        "node that has the session is down",
    ),
    (errors.ConnectError("no answer to a ping for 20 s"), "network was lost", "Wi-Fi"),
    (errors.ConnectError("no progress in sending for 30 s"), "network was lost", "signal"),
    (errors.ConnectError("broken off: OSError(103,)", 103), "network was lost", "Wi-Fi"),
    (errors.ConnectError("broken off: OSError(110,)", 110), "network was lost", "Wi-Fi"),
    (errors.ConnectError("broken off: OSError(107,)", 107), "not connected", "Wi-Fi"),
    (errors.ConnectError("broken off: OSError(-29312,)", -29312), "hung up", "used twice"),
    (errors.ConnectError("broken off: OSError(5,)", 5), "network chip", "supply"),
    (errors.RefusedError("the broker refused", 3), "not ready", "log"),
    (errors.RefusedError("the broker refused", 2), "client id", "client_id="),
    (errors.RefusedError("the broker refused", 1), "no MQTT 3.1.1", "update"),
    (errors.RefusedError("the broker refused 't': code 128", 128), "subscription", "ACL"),
    (
        errors.ProtocolError("packet 0x48 with Remaining Length 84 (sections 2.2, 3)"),
        "web server or a WebSocket port",
        "8883",
    ),
    (errors.ProtocolError("reserved bits set [MQTT-3.3.1-4]"), "no MQTT", "port"),
)

# as people paste it, and other libraries raise it
TEXTS = (
    ("OSError(-30592, 'x')", "refused the TLS", "log"),
    ("OSError: (-30592, 'MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE')", "refused the TLS", "log"),
    ("OSError: -202", "no address", "DNS"),
    ("-31232", "servers", "serverAuth"),
    ("OSError: [Errno 104] ECONNRESET", "hung up", "log"),
    ("OSError: [Errno 113] EHOSTUNREACH", "no way", "network"),
    ("OSError: [Errno 113] ECONNABORTED", "no answer", "firewall"),
    ("OSError: [Errno 118] EHOSTUNREACH", "no way", "network"),
    ("[Errno 113] No route to host", "no way", "network"),
    ("OSError: [Errno 5] EIO", "network chip", "I2C"),
    ("OSError: -6", "no DNS server", "Wi-Fi"),
    ("-6", "no DNS server", "Wi-Fi"),
    ("OSError: 128", "not connected", "Wi-Fi"),
    ("OSError: [Errno 12] ENOMEM", "memory", "freeze"),
    ("OSError: -17168", "memory", "freeze"),
    ("MQTTException: 5", "not authorised", "ACL"),
    ("MQTTException(4,)", "wrong user", "check"),
    ("umqtt.simple.MQTTException: 2", "client id", "client_id="),
    ("RefusedError(135)", "not authorised", "ACL"),
    ("ValueError: " + UNSIGNED, "not from the CA", "low memory"),
    ("The certificate is NOT CORRECTLY SIGNED by the trusted CA", "not from the CA", "CA"),
    ("ConnectionRefusedError: [Errno 111] Connection refused", "nothing listens", "listener"),
    ("cannot connect: TLS handshake broken off (-30592): no TLS 1.2", "in common", "TLS 1.2"),
    ("TLS handshake broken off after the broker's certificate (32)", "certificate of", "cert="),
)


def check(error, cause, cure):
    found = explain(error)
    assert cause in found[0] and cure in found[1], (error, found)


def test_raw_errors_are_explained():
    for row in RAW:
        check(*row)


def test_raw_errors_are_explained_from_their_text_alone():
    for error, cause, cure in RAW:
        check(repr(error), cause, cure)


def test_errors_of_the_package_are_explained():
    for row in OURS:
        check(*row)


def test_pasted_texts_are_explained():
    for row in TEXTS:
        check(*row)


def test_a_certificate_from_the_future_tells_the_year_of_the_device():
    cause, cure = explain(ValueError(FUTURE), year="2021-01-02")
    assert cause.startswith("the broker's certificate is not valid yet")
    assert cause.endswith(" (the device's clock says 2021-01-02)")
    assert cure.startswith("set the device's clock (ntp=)")
    assert "2021" not in explain(ValueError(FUTURE))[0]


def test_an_expired_certificate_tells_the_year_of_the_device():
    assert "the device's clock says 2038" in explain(ValueError(EXPIRED), year=2038)[0]


def test_the_year_is_told_only_where_it_matters():
    for error in (ValueError(UNSIGNED), ValueError(NAME), OSError(-30592), OSError(12)):
        assert explain(error, year=2021) == explain(error)


def test_what_is_unknown_has_neither_cause_nor_cure():
    for error in (
        OSError(-7),
        OSError(),
        OSError(17),
        KeyError("x"),
        "mqtt 10.0.0.9:8883: handler of 'a' runs for over 5 s",
        "Wi-Fi 'home': cannot join (1): check password, signal, access point, supply",
        "no SUBACK for 20 s, next try in 1 s",
        Exception(),
        errors.MQTTError("stopped"),
        errors.LinkError("Wi-Fi 'home': wrong password: check it, it is case-sensitive", -3),
        errors.ResolveError("no address for x from DNS server y: use its IP address", "x"),
        errors.DeliveryUnknown("unknown", "a/b"),
        "",
        "something else",
    ):
        assert explain(error) == ("", ""), error


def test_a_broker_that_hangs_up_instead_of_connack_is_told_apart():
    for error in (
        errors.ConnectError("the broker closed the connection"),
        errors.ConnectError("broken off: OSError(104,)", 104),
    ):
        cause, cure = explain(error, state="CONNECT")
        assert "instead of answering CONNECT" in cause
        assert "ALPN" in cure and "policy" in cure and "tls=" in cure
        assert "hung up" in explain(error, state="UP")[0]
        assert "CONNECT" not in explain(error, state="UP")[0]
    refused = errors.RefusedError("the broker refused: code 5", 5)
    assert explain(refused, state="CONNECT") == explain(refused)


def test_tls_1_3_alone_is_named():
    off = "TLS handshake broken off (-30592)"
    assert "TLS 1.3 only" in explain(errors.TLSError(off, -30592))[0]
    at = "TLS handshake broken off at the address 10.0.0.7 as server name (-30592)"
    assert "TLS 1.3 only" in explain(errors.TLSError(at, -30592))[0]


def test_an_errno_is_not_taken_for_a_return_code():
    assert "network chip" in explain(OSError(5))[0]
    assert "not authorised" in explain("MQTTException: 5")[0]
    assert explain(errors.RefusedError("refused", 111)) != explain(errors.RefusedError("no", 5))


# what a socket call gives on each port, by a word of its cause: lwIP's errors (modlwip.c and
# ESP-IDF's err.c) and the numbers that the port has for them
LWIP = ("no way", "no answer", "hung up", "not connected", "network chip", "memory")
PORTS = {
    "rp2": (113, 103, 104, 107, 5, 12),
    "pyboard": (113, 103, 104, 107, 5, 12),
    "esp32": (118, 113, 104, 128, 5, 12),
    "esp8266": (113, 103, 104, 107, 5, 12),  # MICROPY_USE_INTERNAL_ERRNO, as all but two
    "mimxrt": (118, 113, 104, -128, 5, 12),  # newlib's in a table of int8_t
}
# connect(), send() and recv() of the others, as their manuals list them
SYSTEMS = {
    "linux": {
        "no way": (100, 101, 113, 112),
        "no answer": (110, 103),
        "nothing listens": (111,),
        "hung up": (104, 32, 108),
        "not connected": (107, 9),
        "firewall": (1, 13),
        "no socket, port or buffer": (23, 24, 98, 99, 105),
    },
    "darwin": {
        "no way": (50, 51, 64, 65),
        "no answer": (60, 53),
        "nothing listens": (61,),
        "hung up": (54, 32, 58),
        "not connected": (57, 9),
        "firewall": (1, 13),
        "no socket, port or buffer": (23, 24, 48, 49, 55),
    },
    "esp32": {
        "no way": (114, 115, 117, 118),
        "no answer": (116, 113),
        "no socket, port or buffer": (23, 105, 112, 125),
    },
}


def test_the_number_of_an_error_is_read_as_its_port_means_it():
    cases = []
    for port, numbers in PORTS.items():
        cases += [(port, n, LWIP[i]) for i, n in enumerate(numbers)]
    for system, words in SYSTEMS.items():
        cases += [(system, n, word) for word in words for n in words[word]]
    for port, n, word in cases:
        cause, cure = explain(OSError(n), platform=port)
        assert word in cause and cure, (port, n, cause)


def test_a_number_that_means_two_things_is_told_as_both_where_the_port_is_unknown():
    cause, cure = explain("OSError: 113")
    assert "no way" in cause and "esp32" in cause and "no answer" in cause and "Wi-Fi" in cure
    assert "esp32" not in explain(OSError(113))[0]


def test_a_tool_can_put_rows_of_its_own_first():
    rows = (("peer did not return a certificate", -30592, "none sent|provision one"),)
    assert explain(OSError(-30592), rows=rows + ROWS) == ("none sent", "provision one")
    assert explain(OSError(-31232), rows=rows + ROWS) == explain(OSError(-31232))
    assert explain(OSError(-31232), rows=rows) == ("", "")


def test_every_row_has_keys_and_a_line_of_cause_and_cure():
    keys = []
    for row in ROWS:
        assert len(row) > 1
        cause, cure = row[-1].split("|")
        assert 5 < len(cure) < 140 and 5 < len(cause) < 80, row
        assert "\n" not in row[-1]
        for key in row[:-1]:
            if isinstance(key, str):
                assert key == key.lower() and key
            else:
                assert isinstance(key, int)
            assert key not in keys, key  # the second would never be found
            keys.append(key)


def test_no_argument_but_the_error_is_positional():
    with raises(TypeError):
        explain(OSError(1), 2021)


def test_an_unspecified_error_of_mqtt_5_is_no_refused_subscription():
    error = errors.RefusedError("the broker refused: unspecified error (0x80)", 128)
    assert explain(error) == ("", "")


def test_only_a_handshake_without_memory_is_told_to_use_other_certificates():
    assert "P-256" in explain(errors.TLSError("TLS handshake out of memory (12)", 12))[1]
    for error in (MemoryError("no memory"), OSError(12), errors.ConnectError("broken off", 12)):
        assert "P-256" not in explain(error)[1], error
