"""
What the text of an error means, whoever wrote it: a board, mbedTLS, mosquitto, OpenSSL, Python or
Windows. The device's own table has the last word; here stands what only a person at a PC sees.
"""

import re

from .. import library
from . import log, mbedtls, other_logs
from .causes import ROWS
from .peek import ALERTS

# Other libraries' errors, and those of Windows. Before the rows of the device's table.
_OTHERS = (
    *(
        (*keys, "|".join(ROWS[row][1:]))
        for row, keys in (
            (43, ("ssl_params",)),
            (1, (11001, "getaddrinfo failed", "name or service not known", "nodename nor")),
            (2, (10061,)),
        )
    ),
    (10051, 10060, 10065, "no answer from that address|check the address, port and firewall"),
    (10053, 10054, "the other side hung up|see the broker's log"),
    (
        114,
        115,
        "a socket that does not wait is not connected yet; on an esp32: no way to that address, "
        "or no network|no fault: wait for it; on an esp32: is the Wi-Fi up?",
    ),
    (-203, "memory ran out in the search for a name (esp32)|hold less at a time, close sockets"),
    (-204, 97, 47, "an IPv6 address, which is not supported|use the broker's IPv4 address"),
    (
        *("eagain", "einprogress", "ealready", 11, 119, 120, 35, 36, 37),
        "a socket that does not wait has nothing yet|no fault: try again later, or let it wait",
    ),
    (
        *(22, 106, 127, 56),
        "the port does not take such a call|check host, port and options, connect a socket once",
    ),
    (
        -26880,
        -26752,
        "a handshake that does not wait is not done yet|no fault: call it again, or let it wait",
    ),
    (-26624, "no answer in the handshake in time|is it the broker's TLS port? see its log"),
    (
        *(-15616, -15744, -7808, -4224, -4352),
        "that is no key or certificate that mbedTLS can read|"
        "give PEM (with the lines BEGIN and END, and a NUL at the end for mbedtls_x509_crt_parse "
        "and mbedtls_pk_parse_key) or DER, of the right file",
    ),
    (
        *(-15360, -15232, -4864, -4992),
        "the key has a passphrase, or another one|decrypt it: openssl pkey -in KEY -out PLAIN",
    ),
    (
        *(-29824, -30208),
        "the broker wants a client certificate, and there is none, or no key to it|"
        "give certificate and private key of the device",
    ),
    (
        *(-17280, -19968, -32128, -32384, -29056),
        "a signature or a checksum in the handshake is wrong: the broker's key does not belong to "
        "its certificate, or something on the way changes what is sent|"
        "see that keyfile belongs to certfile; try it without a proxy in between",
    ),
    (
        *(-29440, -29568, -27008, -27904, -26368, -24320, -31360, -31616, -30976, -31744, -32000),
        *(-29952, -32256),
        "what the broker sent in the handshake is not what mbedTLS expects: another TLS version, "
        "cipher or kind of key, or something on the way changes it|"
        "mqttls doctor HOST:PORT says what the broker offers; let it have TLS 1.2 with P-256",
    ),
    (-30720, "the server knows no such name|dial a name that it serves: server_hostname="),
    (-30080, "|".join(ROWS[51][1:])),
)
# What mosquitto_pub, mosquitto_sub and other clients print in the place of an error
_PRINTED = (
    (r"host name verification failed", *ROWS[15][1:]),
    (
        r"problem setting TLS options",
        "a file of --cafile, --cert or --key is not there, cannot be read, or is not PEM",
        "look at each with: openssl x509 -in FILE -noout -subject; openssl pkey -in FILE -noout",
    ),
    (
        r"A TLS error occurred|Error: TLS error",
        "the handshake failed: a wrong CA or name, or a client certificate that is refused",
        "add -d for more, and see the broker's log; mqttls doctor HOST:PORT says which it is",
    ),
    (r"The connection was lost|connection lost\b", *ROWS[38][1:]),
    (
        r"failed, rc=-2\b|rc=-4\b|Error transport connect|select\(\) timeout",
        "no connection to the broker: its address, its port, a firewall, or its certificate",
        "mqttls doctor HOST:PORT says which it is",
    ),
    (r"Failed to verify peer certificate", *ROWS[17][1:]),
)
# What libraries on a PC say of a broker that they connect to: the other way round than in its log
_CLIENTS = (
    (r"unable to get (local )?issuer certificate|self[- ]signed certificate in", 17),
    (r"unable to verify the first certificate", 19),
    (r"self[- ]signed certificate", 17),
    (r"hostname mismatch|ip address mismatch|doesn't match|not valid for", 15),
    (r"certificate has expired", 14),
    (r"certificate is not yet valid", 13),
    (r"unsuitable certificate purpose|unsupported certificate purpose", 31),
    (r"(TLSV1|SSLV3|TLSV13)_ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_(EXPIRED|REVOKED|UNKNOWN"
     r")|DECRYPT_ERROR)", 25),
    (r"ALERT_CERTIFICATE_REQUIRED|tlsv13 alert certificate required", 24),
    (r"ALERT_PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL", 8),
    (r"ALERT_HANDSHAKE_FAILURE|ALERT_INSUFFICIENT_SECURITY", 10),
    (r"ALERT_UNRECOGNIZED_NAME|UNRECOGNIZED_NAME", 42),
    (r"ALERT_NO_APPLICATION_PROTOCOL", 51),
    (r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE", 3),
    (r"HTTP_REQUEST", 4),
    (r"KEY_VALUES_MISMATCH", 27),
    (r"NO_START_LINE|PEM lib", 46),
    (r"UNEXPECTED_EOF|EOF occurred in violation", 6),
    (r"CERTIFICATE_VERIFY_FAILED|server_certificate:certificate verify failed", 17),
)  # fmt: skip
# The words of other libraries: Node, Go, rustls, GnuTLS, Windows, ESP-IDF. A row, or both halves.
_BOTH_WAYS = (
    "who writes this does not know the CA of the other side's certificate",
    "in a client's log: give it the CA that signed the broker's; in the broker's: put the CA that "
    "signed the device's into its cafile (its truststore)",
)
_REVOCATION = (
    "Windows could not ask whether the certificate was revoked, as with a CA of one's own",
    "no fault of the broker, boards do not ask: curl --ssl-no-revoke",
)
_WORDS = (
    (r"DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT_IN|UNABLE_TO_GET_ISSUER_CERT", 17),
    (r"UNABLE_TO_VERIFY_LEAF", 19),
    (r"CERT_HAS_EXPIRED|CERT_E_EXPIRED|SEC_E_CERT_EXPIRED", 14),
    (r"CERT_NOT_YET_VALID", 13),
    (r"ALTNAME_INVALID|SEC_E_WRONG_PRINCIPAL|0x80090322", 15),
    (r"disconnected before secure TLS", 6),
    (r"EPROTO.*wrong version number", 3),
    (r"SEC_E_UNTRUSTED_ROOT|0x80090325", 17),
    (r"0x8009201[23]|CRYPT_E_(NO_REVOCATION|REVOCATION_OFFLINE)", _REVOCATION),
    (r"SEC_E_ALGORITHM_MISMATCH|0x80090331", 10),
    (r"x509: certificate is valid for|doesn't contain any IP SANs|relies on legacy Common Name",
     15),
    (r"No subject alternative (DNS )?names? (present|matching)|No name matching", 15),
    (r"x509: certificate has expired or is not yet valid", (
        "a certificate has expired, or is not valid yet, by the clock of who writes this",
        "the times in the line tell which: renew it, or set that clock")),
    (r"x509: certificate signed by unknown authority|PKIX path building failed|"
     r"unable to find valid certification path", _BOTH_WAYS),
    (r"CertificateExpiredException|validity check failed", 14),
    (r"CertificateNotYetValidException", 13),
    (r"keystore password was incorrect", (
        "the passphrase of the keystore is another one",
        "see that the broker's configuration has the one that it was made with")),
    (r"certificate issuer is unknown", 17),
    (r"name in the certificate does not match", 15),
    (r"is NOT trusted.*expired", 14),
    (r"Error in the certificate\.", 17),
    (r"invalid peer certificate: (UnknownIssuer|BadSignature)", 17),
    (r"invalid peer certificate:.*NotValidForName", 15),
    (r"invalid peer certificate:.*NotValidYet", 13),
    (r"invalid peer certificate:.*Expired", 14),
    (r"CaUsedAsEndEntity", (
        "the broker's certificate says CA:TRUE, with which rustls refuses it; boards do not",
        "reissue it with basicConstraints CA:FALSE, if others than boards come")),
    (r"InvalidContentType", 3),
    (r"NoCipherSuitesInCommon|NoKxGroupsInCommon|NoSignatureSchemesInCommon", 10),
    (r"IllegalSniName", (
        "the broker takes no address as server name, as rustls does",
        "dial a name that is in its certificate, or set server_hostname=")),
    (r"unacceptable protocol version", (
        "the broker takes no MQTT 3.1.1 (CONNACK 1)",
        "let it (mosquitto: accept_protocol_versions), or try protocol=5")),
    (r"(refused|rc ?= ?5)[,: ]+not authori[sz]ed", 35),
    (r"(refused|rc ?= ?4)[,: ]+bad user ?name", 36),
    (r"read ECONNRESET", (
        "the other side hung up", "see the broker's log: a TLS port without tls=, its ACL")),
    (r"Failed to open new connection in specified timeout", (
        "no answer from that address", "check the address, port and firewall")),
    (r"DH_KEY_TOO_SMALL", (
        "the broker's DH parameters are too small for this PC; boards do without DH",
        "take dhparamfile out of the broker's configuration, or make it anew with 2048 bits")),
    (r"UNSAFE_LEGACY_RENEGOTIATION|legacy sigalg disallowed", 8),
    (r"not marked critical|Missing (Authority|Subject) Key Identifier|CA cert does not include key"
     r" usage", (
        "Python from 3.13 on is stricter about a CA than boards are (VERIFY_X509_STRICT)",
        "make the CA anew: basicConstraints and keyUsage critical, with key identifiers (mqttls "
        "init); or let that program leave VERIFY_X509_STRICT off")),
)  # fmt: skip
_FAILED_WITHIN = (
    "the other side failed in the handshake: it has no certificate for this name, or an error of "
    "its own",
    "see its log; dial it by its name (server_hostname=)",
)
# What a client may think when the broker sends it an alert (RFC 5246 section 7.2): its row
_ALERTS = {
    **dict.fromkeys((42, 43, 44, 45, 46, 48), 25),
    **dict.fromkeys((40, 71), 10),
    49: 35,
    51: 27,
    70: 7,
    80: _FAILED_WITHIN,
    112: 42,
    116: 24,
    120: 51,
}
_ALERT = re.compile(
    r"alert number (\d{1,3})|AlertDescription:? (\d{1,3})|^(\d{1,3}) ?:? ?(?=[a-z]+_[a-z_]+$)",
    re.IGNORECASE,
)
_ALERT_NAME = re.compile(
    r"(?:fatal alert:?|remote error: tls:|alert[_ ]) ?([a-z][A-Za-z_ ]+)", re.IGNORECASE
)
_UNREADABLE = -15616
_FROM_A_CLIENT = re.compile(
    r"\[SSL|process_server_certificate|_ssl\.c|ssl\.\w*Error|verify error:num|SSLError|curl:"
)
_OF_THE_BOARD = re.compile(
    r"^mqtt \S+:\d+: |\b(TLS|Certificate|Refused|Connect|Link|Resolve)Error\b"
)
_HEX = re.compile(r"-?0x([0-9a-f]{1,8})\b", re.IGNORECASE)
_NAME = re.compile(r"\b(?:MBEDTLS_)?ERR_((?:ASN1|CIPHER|ECP|MD|MPI|NET|PEM|PK|RSA|SSL|X509)_\w+)")
# Names that have the number of another one in another release, or none that says much
_BY_NAME = {
    "SSL_PEER_VERIFY_FAILED": -9984,
    "SSL_CERTIFICATE_REQUIRED": -29824,
    "SSL_CERTIFICATE_TOO_LARGE": -27136,
    **dict.fromkeys(("ASN1_ALLOC_FAILED", "MPI_ALLOC_FAILED", "PEM_ALLOC_FAILED"), -32512),
}
# mbedTLS's own net module, by what it means on a board
_NET = {-0x42: 23, -0x44: 113, -0x4C: 104, -0x4E: 104, -0x50: 104, -0x52: -2}
# What mbedtls_strerror() writes, as far as it is not in the table
_SENTENCES = (
    ("certificate verification failed", -9984),
    ("the connection indicated an eof", -29312),
    ("a fatal alert message was received", -30592),
    ("an unexpected message was received", -30464),
    ("an invalid ssl record was received", -29184),
    ("no ca chain is set", -30336),
    ("peer notified us that the connection is going to be closed", -30848),
    ("memory allocation failed", -32512),
    ("unavailable feature", -28800),
    ("invalid key tag or value", -15616),
)


def look_up(error, year=None):
    """
    Return (cause, cure) of an error or a line of the broker's log (str); "" where it is unknown.

    year  int, that the board's clock says
    """
    table = library.table()
    rows = (*_OTHERS, *table.ROWS)
    error = error.strip()
    if _OF_THE_BOARD.search(error):
        return table.explain(error, year=year, rows=rows)
    if _FROM_A_CLIENT.search(error):
        for pattern, row in _CLIENTS:
            if re.search(pattern, error, re.IGNORECASE):
                return ROWS[row][1:]
    found = _of_others(error)
    if found:
        return found
    error = _PLACES.sub("", error)
    number = _number(error)
    if number is not None and not _CODE.search(error):
        return _of_number(number, table, year)
    decimal = re.search(r"-(\d{4,5})\b", error)
    if decimal and any(-int(decimal[1]) in row for row in _OTHERS):
        return _of_number(-int(decimal[1]), table, year)
    if not _is_number_of_an_error(error):
        finding = log.judge_line(error)
        if finding:
            return finding.cause, finding.cure
    found = _of_alert(error)
    if found:
        return found
    found = table.explain(error, year=year, rows=rows)
    if found[0]:
        return found
    for pattern, cause, cure in _PRINTED:
        if re.search(pattern, error, re.IGNORECASE):
            return cause, cure
    for words, number in _SENTENCES:
        if words in error.lower():
            return _of_number(number, table, year)
    for pattern, row in (*_CLIENTS, *_REFUSED):
        if re.search(pattern, error, re.IGNORECASE):
            return ROWS[row][1:]
    code = _CODE.search(error)
    if code:
        said = f"RefusedError: the broker refused: code {int(code[1], 0)}"
        return table.explain(said, year=year, rows=rows)
    return found


# what other clients print of a CONNACK (MQTT 3.1.1 section 3.2.2.3, 5.0 section 3.2.2.2)
_REFUSED = (
    (r"not[_ ]authori[sz]ed", 35),
    (r"bad[_ ]user|bad[_ ]password", 36),
    (r"(id|identifier)[_ ](was )?rejected", 37),
)
_CODE = re.compile(
    r"(?:\bconnack|\brc|(?<!exit )\bcode|\bresult)\b[ :=]{1,3}"
    r"(0x0?[1-5]\b|0x[89][0-9a-f]\b|[1-5]\b|1[2-5]\d\b)",
    re.IGNORECASE,
)


# numbers that count something else than errors: a line of a source, an exit status
_PLACES = re.compile(r"\(?_ssl\.c:\d+\)?|^curl: \(\d+\) ")


def _of_others(error):
    """Return (cause, cure) of the words of another library or broker, None for no such words."""
    for pattern, meaning in _WORDS:
        if re.search(pattern, error, re.IGNORECASE):
            return ROWS[meaning][1:] if isinstance(meaning, int) else meaning
    for pattern, row, cause in other_logs.LINES:
        if re.search(pattern, error, re.IGNORECASE):
            return cause or ROWS[row][1], ROWS[row][2]
    return None


def _of_alert(error):
    """Return (cause, cure) of an alert of TLS by number or name, None for no alert."""
    number, found = None, _ALERT.search(error)
    if found:
        number = int(found[1] or found[2] or found[3])
    elif not _is_number_of_an_error(error):
        found = _ALERT_NAME.search(error)
        words = found[1].replace("_", "").replace(" ", "").lower() if found else ""
        for at, name in ALERTS.items():
            if words and words.startswith(name.replace("_", "")):
                number = at
    meaning = _ALERTS.get(number)
    return ROWS[meaning][1:] if isinstance(meaning, int) else meaning


def _of_number(number, table, year):
    for row in _OTHERS:  # the table of the device sees only whole modules of mbedTLS
        if number in row:
            return tuple(row[-1].split("|"))
    found = ("", "")
    if number < -127 or number in (-2, -6) or number > 0:
        found = table.explain(f"OSError({number})", year=year, rows=table.ROWS)
    name = mbedtls.name_of(number)
    if name and not found[0]:
        return f"an error of mbedTLS, {name}, without a cause of its own", (
            "give the whole last line of the traceback, and what the broker's log says"
        )
    return found


def _is_number_of_an_error(error):
    return re.search(r"OSError|ValueError|Errno|MQTTException", error) is not None


def _number(error):
    """Return the number (int) that a text names in hexadecimal or by mbedTLS's name, or None."""
    name = _NAME.search(error)
    if name is None and re.fullmatch(r"[A-Z0-9]+_[A-Z0-9_]+", error):
        name = re.fullmatch(r"(?:MBEDTLS_)?(?:ERR_)?(\w+)", error)
    numbers = mbedtls.names()
    if name and name[1] in numbers:
        name, number = name[1], numbers[name[1]]
        if name.startswith(("ASN1", "PEM")) and "PASSWORD" not in name and "ALLOC" not in name:
            return _UNREADABLE
        return _BY_NAME.get(name) or _NET.get(number, number)
    found = _HEX.findall(error)
    if found and not re.search(r"error:[0-9A-F]{8}:", error):
        value = int(found[-1], 16)
        if value >= 1 << 31:
            value -= 1 << 32
        number = -abs(value)
        number = _NET.get(number, number)
        if number < -31 or number > 0:
            return number
    return None
