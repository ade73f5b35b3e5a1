"""
What an error means and what to do about it, in plain words. Imported only when something failed.

The table serves the device and the PC. It knows numbers and key words, not sentences and no
classes: texts differ between releases, and this module imports nothing.
"""

# Each row: one or more keys, then "cause|cure". A key is a number (mbedTLS, errno, or 1000 + the
# return code of the broker), or a part of the error's text in lower case. The first row with a
# key of the error is the one, so what is precise comes first.
ROWS = (
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
        "reissue it with P-256 and SHA-256, without nameConstraints",
    ),
    (
        "out of memory",
        "alloc_failed",
        "memory ran out or is in pieces|connect early, freeze the package, use P-256 certificates",
    ),
    (
        "the board are in use",
        23,
        24,
        98,
        99,
        105,
        "the board has no socket, port or buffer left|"
        "close what the app does not use: an RP2040 has 5 TCP connections and 5 UDP sockets",
    ),
    (
        "memoryerror",
        12,
        "memory ran out or is in pieces|hold less at a time, freeze the package, connect early",
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
    (-28928, "the broker's certificates are over 16 KB|use P-256, a shorter chain"),
    (-29184, "something else than TLS on this port, such as HTTP|use the broker's TLS port, 8883"),
    (-28288, "the broker has no TLS 1.2|update it, or set its tls_version to tlsv1.2"),
    (
        "after the broker's",
        "the broker wants a certificate of the device, or another|"
        "pass cert= and key=: a pair, for clients, not expired, of a CA in the broker's cafile",
    ),
    (
        "off (-30592",
        "no TLS version, cipher or curve in common|"
        "let the broker have TLS 1.2, AES-GCM, P-256 or RSA (see its log)",
    ),
    (
        -30592,
        "the broker refused the TLS handshake|"
        "see its log: client certificate (cert=, key=), or no TLS 1.2 with P-256 or RSA",
    ),
    (-29312, "no TLS on this port, or the broker hung up|use its TLS port, 8883, or see its log"),
    ("(tls)", "silence in the TLS handshake|is it the TLS port? does the broker allow P-256?"),
    ("(connect)", "no answer to CONNECT|is it an MQTT broker? a TLS port needs tls="),
    ("addrinfo", -2, -202, "the name has no address|use the IP address, or check name and DNS"),
    (111, 61, "nothing listens there|start the broker, check its listener, port and firewall"),
    (101, 113, 118, 51, 65, "no way to that address|check the address and the network"),
    (
        "(tcp)",
        110,
        103,
        116,
        60,
        "no answer from that address|check the address, port and firewall",
    ),
    (
        "closed",
        32,
        104,
        54,
        -30848,
        "the other side hung up|"
        "see the broker's log: a TLS port without tls=, its ACL, a client id used twice",
    ),
    (1001, "it is no MQTT 3.1.1 broker|update it"),
    (1002, 1133, "the client id is refused|pass another client_id="),
    (1003, 1136, "the broker is not ready|see its log"),
    (
        1004,
        1134,
        "wrong user or password|"
        "check both (names from certificates need require_certificate in the broker)",
    ),
    (
        1005,
        1135,
        "not authorised|"
        "check user= and the broker's ACL (certificates: its use_identity_as_username)",
    ),
    ("code 128", "the subscription is not allowed|check the broker's ACL"),
    ("max_packet", "more than this client takes|raise max_packet=, or have less sent"),
    (
        "protocolerror",
        "that is no MQTT, or a broker with a mistake|check host and port, update the broker",
    ),
)


def explain(error, *, year=None, rows=ROWS):
    """
    Return (cause, cure), two str of one line each, "" where nothing is known.

    error  an exception: OSError, ValueError, MemoryError or of this package's tree; or its text
           as a str, such as "OSError(-30592, 'MBEDTLS_ERR_...')"
    year   int, the year that the device's clock says, if the error is from there
    rows   the table; a tool on the PC may put rows of its own before these
    """
    text = repr(error)
    code = getattr(error, "code", None)
    if isinstance(error, str):  # the last number in it
        for mark in "()[],:":
            error = error.replace(mark, " ")
        for word in error.split():
            try:
                code = int(word)
            except ValueError:
                pass
    elif code is None and error.args:
        code = error.args[0]
    text = text.lower()
    if isinstance(code, int):
        module = -code >> 7  # mbedTLS counts its modules in steps of 128
        if code != 111 and ("refusederror" in text or "mqttexception" in text):
            code += 1000
        elif 0 < module < 256 and module in b"\xfe\xc3\xa3\x9b\x86\x85\x7f\x76\x51":  # as in tls
            text = "out of memory"
        elif 64 < module < 84 and code != -9984:  # X.509
            code = -9570
        elif code == 104 and "cannot connect" in text:
            code = 111  # as lwIP says it
        elif code == 12 and "cannot connect" in text:
            code = 105  # lwIP has no memory of its own left
        elif code in (32, 104) and "tls" in text:
            code = -29312
    for row in rows:
        for key in row[:-1]:
            if key == code or isinstance(key, str) and key in text:
                cause, cure = row[-1].split("|")
                if year and key in ("in the future", "has expired"):
                    cause += " (the device's clock says %d)" % year
                return cause, cure
    return "", ""
