"""
What an error means and what to do about it, in plain words. Imported only when something failed.

The table serves the device and the PC. It knows numbers and key words, not sentences and no
classes: texts differ between releases, and this module imports nothing of the package.

Error numbers are those of Linux, which rp2 and most ports have, of newlib on the esp32 and mimxrt,
and of macOS. 113 to 115 mean one thing on Linux and another on an esp32.
"""

import sys

# Each row: one or more keys, then "cause|cure". A key is a number (mbedTLS, errno, or 1000 + the
# return code of the broker), or a part of the error's text in lower case. The first row with a
# key of the error is the one, so what is precise comes first.
ROWS = (
    (
        "out of memory",
        "alloc_failed",
        "memory ran out or is in pieces|connect early, freeze the package, use P-256 certificates",
    ),
    (
        "in the future",
        "the broker's certificate is not valid yet|"
        "set the device's clock (ntp=), or reissue it, if the PC that issued it had a wrong clock",
    ),
    (
        "has expired",
        "a certificate of the broker or its CA has expired|"
        "renew it and restart the broker, unless the device's clock is ahead",
    ),
    (
        "correctly signed",
        -9984,
        "the broker's certificate is not from the CA in ca=|"
        "give the CA that signed it, add intermediates to the broker's certfile "
        "(low memory looks the same)",
    ),
    (
        "expected cn",
        "the broker's certificate is for another name|"
        "dial a name that is in it, set server_hostname=, or reissue it with this name and IP",
    ),
    (
        -31232,
        "usage does not match",
        "the broker's certificate is not one for servers|"
        "reissue it with extendedKeyUsage serverAuth",
    ),
    (
        "unacceptable",
        -9570,
        "the board cannot read or trust the form of the broker's certificate|"
        "reissue it with P-256 by its name and SHA-256, a short chain, without nameConstraints",
    ),
    (
        "the board are in use",
        23,
        24,
        98,
        99,
        105,
        125,
        48,
        49,
        55,
        "the board has no socket, port or buffer left|"
        "close what is not used: an RP2040 has 5 TCP and 5 UDP sockets",
    ),
    (
        "memoryerror",
        "memory ran out or is in pieces|hold less at a time, freeze the package, connect early",
    ),
    (
        12,
        "memory ran out: the heap, or the network stack's own (sockets)|"
        "hold less at a time, close sockets, freeze the package, connect early",
    ),
    (
        "invalid cert",
        "invalid key",
        "the firmware cannot read this file|"
        "TLS(ca=, cert=, key=) takes PEM and DER: P-256 or RSA, SHA-256, not encrypted",
    ),
    ("server_hostname", "no name to check the certificate against|pass server_hostname="),
    (-30336, "no CA is loaded|pass ca="),
    (-27136, "the device's certificate is over 4 KB|use a P-256 one without its chain"),
    (
        -28928,
        -28800,
        "the broker's certificates are over 16 KB, or come in pieces|use P-256, a shorter chain",
    ),
    (-29184, "something else than TLS on this port, such as HTTP|use the broker's TLS port, 8883"),
    (-28288, "the broker has no TLS 1.2|update it, or set its tls_version to tlsv1.2"),
    (
        "off (-30592",
        -26112,
        -28160,
        -30464,
        -31104,
        -31488,
        "no TLS version, cipher or curve in common: it may have TLS 1.3 only|"
        "let the broker have TLS 1.2, AES-GCM, P-256 or RSA (see its log)",
    ),
    (
        "after the broker's",
        "the broker wants a certificate of the device, or another|"
        "pass cert= and key=: a pair, for clients, not expired, of a CA in the broker's cafile",
    ),
    (
        "as server name",
        "the broker has TLS 1.3 only, no cipher in common, or takes no address as SNI|"
        "let it have TLS 1.2, AES-GCM, P-256 or RSA (see its log); or dial its name, or set"
        " server_hostname= to one in its certificate",
    ),
    (
        -30592,
        "the broker refused the TLS handshake|"
        "see its log: client certificate (cert=, key=), or no TLS 1.2 with P-256 or RSA",
    ),
    (
        "no connack",
        "the broker hung up instead of answering CONNECT|"
        "see its log: a TLS port without tls=, a port for ALPN (443: use 8883), its ACL or policy,"
        " a client id used twice",
    ),
    (-29312, "no TLS on this port, or the broker hung up|use its TLS port, 8883, or see its log"),
    ("(tls)", "silence in the TLS handshake|is it the TLS port? does the broker allow P-256?"),
    (
        "(connect)",
        "no answer to CONNECT|"
        "is it MQTT, and without TLS if tls= is missing? else the broker is busy, or the node "
        "that has the session is down: new client_id=",
    ),
    (
        "addrinfo",
        -2,
        -3,
        -16,
        -200,
        -202,
        "the name has no address|use the IP address, or check name and DNS",
    ),
    (-6, "the board knows no DNS server|is its Wi-Fi up? give static= one, or use the IP address"),
    (111, 61, "nothing listens there|start the broker, check its listener, port and firewall"),
    (
        "ehostunreach",
        "no route to host",
        101,
        100,
        112,
        117,
        118,
        50,
        51,
        64,
        65,
        "no way to that address|is the Wi-Fi up? check address and network",
    ),
    (
        "econnaborted",
        "answer to a ping",
        "progress in sending",
        103,
        126,
        53,
        "no answer for long, or the board's network was lost, or its address|"
        "is its Wi-Fi up, and the signal good? check the address, port and firewall",
    ),
    (
        "(tcp)",
        110,
        116,
        60,
        "no answer from that address|check the address, port and firewall",
    ),
    (
        113,
        "no way to that address; on an esp32: no answer from it, or the Wi-Fi was lost|"
        "is the Wi-Fi up? check address, network and firewall",
    ),
    (
        107,
        128,
        57,
        9,
        "the socket is not connected: it was closed, or the network was lost|"
        "is the Wi-Fi up? does the app close it? see the broker's log",
    ),
    (
        5,
        "the network chip does not answer|"
        "power-cycle the board, look at its supply; a silent I2C sensor says the same",
    ),
    (
        -1,
        "the Wi-Fi takes nothing, or (umqtt) the broker closed the connection|"
        "is the Wi-Fi up? see the broker's log",
    ),
    (
        1,
        13,
        "the radio is not on, or a firewall on this computer forbids it|"
        "power-cycle the board, or look at the firewall",
    ),
    (
        "closed",
        32,
        104,
        108,
        54,
        58,
        -30848,
        "the other side hung up|"
        "see the broker's log: a TLS port without tls=, its ACL, a client id used twice",
    ),
    (1001, "it takes no MQTT 3.1.1|update it, or protocol=5"),
    (
        1002,
        1133,
        "the client id is refused, or keepalive_s is too long|"
        "pass another client_id=, or a lower keepalive_s=",
    ),
    (1003, 1136, "the broker is not ready|see its log"),
    (
        1004,
        1134,
        "wrong user or password, or none and no certificate of the device|"
        "check both, or pass cert= and key= (the broker: require_certificate)",
    ),
    (
        1005,
        1135,
        "not authorised, or a wrong password|"
        "check user=, password=, the broker's ACL (certificates: use_identity_as_username)",
    ),
    (
        "code 128",
        1143,
        1158,
        1161,
        1162,
        "the subscription is not allowed|check the broker's ACL",
    ),
    (
        "packet 0x48",
        "a web server or a WebSocket port answers (0x48 is the H of HTTP)|"
        "use the broker's port for MQTT, 8883 with TLS",
    ),
    ("max_packet", "more than this client takes|raise max_packet=, or have less sent"),
    (
        "protocolerror",
        "that is no MQTT, or a broker with a mistake|check host and port, update the broker",
    ),
)


def explain(error, *, year=None, rows=ROWS, platform=None, state=None):
    """
    Return (cause, cure), two str of one line each, "" where nothing is known.

    error  an exception: OSError, ValueError, MemoryError or of this package's tree; or its text
           as a str, such as "OSError(-30592, 'MBEDTLS_ERR_...')"
    year   int, the year that the device's clock says, or str, the day, such as "2021-01-01", if
           the error is from there
    rows   the table; a tool on the PC may put rows of its own before these
    platform  str, sys.platform of where the error is from, as error numbers differ; None: this
              one for an exception, unknown for a text
    state  str, of connection.STATES the one in which a connection ended, or None
    """
    text = repr(error).lower()
    code = getattr(error, "code", None)
    if isinstance(error, str):  # the last number in it
        for mark in "()[],:":
            error = error.replace(mark, " ")
        for word in error.split():
            try:
                code = int(word)
            except ValueError:
                pass
        if code is not None and -32 < code < 32 and len(error.split()) > 1:
            for word in ("oserror", "errno", "mqttexception", "refusederror"):
                if word in text:
                    break
            else:
                code = None  # such numbers stand in many a line
    else:
        platform = platform or sys.platform
        if code is None and error.args:
            code = error.args[0]
    if isinstance(code, int):
        if -200 < code < -31:  # an errno that TLS passed on
            code = -code
        if platform in ("esp32", "mimxrt") and 111 < code < 116:
            code = (98, 103, 101, 101)[code - 112]
        elif platform and code == 113:
            code = 101
        lost = "broken off: " in text  # an established connection
        module = -code >> 7  # mbedTLS counts its modules in steps of 128
        if code != 111 and ("refusederror" in text or "mqttexception" in text):
            code += 1000
        elif 0 < module < 256 and module in b"\xfe\xc3\xa3\x9b\x86\x85\x7f\x76\x51":  # as in tls
            text = "out of memory"
        elif code != -9984 and (64 < module < 84 or 114 < module < 127 or 149 < module < 160):
            code = -9570  # X.509, keys, curves
        elif code == -12288:  # a chain of too many
            code = -9570
        elif code == 104 and "cannot connect" in text:
            code = 111  # as lwIP says it
        elif code == 12 and "cannot connect" in text:
            code = 105  # lwIP has no memory of its own left
        elif lost and code in (110, 116, 60):
            code = 103
        elif lost and code == -29312:
            code = 104
        elif code in (32, 104) and "tls" in text:
            code = -29312
    if state == "CONNECT" and ("closed" in text or "broken off: " in text):
        # with TLS 1.3 a broker looks at our certificate after the handshake
        text = "after the broker's" if code == -30592 else "no connack"
        code = None
    for row in rows:
        for key in row[:-1]:
            if key == code or isinstance(key, str) and key in text:
                cause, cure = row[-1].split("|")
                if year and key in ("in the future", "has expired"):
                    cause += " (the device's clock says %s)" % year
                return cause, cure
    return "", ""
