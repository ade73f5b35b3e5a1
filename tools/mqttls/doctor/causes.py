"""
What goes wrong, by number: the stage at which it shows, its cause, its cure.

The numbers are those of the table in docs/tls.md. What a device says in a few words about an error
is in mqtt_as_tls/explain.py; here is what the PC adds because it sees more than one error number.
"""

import dataclasses

# In the order in which a connection meets them.
STAGES = (
    "files",
    "configuration",
    "board",
    "Wi-Fi",
    "resolve",
    "connect",
    "TLS",
    "chain",
    "name",
    "dates",
    "client certificate",
    "CONNACK",
    "publish",
    "receive",
)

# number: (stage, cause, cure)
ROWS = {
    1: (
        "resolve",
        "the name has no IPv4 address, or DNS does not answer",
        "use the IP address, or enter the name in the DNS of the network the board is in",
    ),
    2: (
        "connect",
        "nothing listens there, or a firewall is in between",
        "start the broker; check the port of its `listener`, the address it is bound to, and the "
        "firewall",
    ),
    3: (
        "TLS",
        "this is the broker's plain port: it speaks MQTT without TLS",
        "use the port of the listener that has certfile and keyfile, usually 8883",
    ),
    4: (
        "TLS",
        "a client came to the TLS port without TLS",
        "give that client tls=TLS(ca=...), or the plain port",
    ),
    5: (
        "TLS",
        "something else than TLS answers on this port",
        "use the broker's TLS port, usually 8883, and no proxy",
    ),
    6: (
        "TLS",
        "the other side hangs up before it answers the ClientHello",
        "read the broker's log (--log); is it the TLS port, does a firewall cut in? a proxy may "
        "want another server name (--name)",
    ),
    7: (
        "TLS",
        "the broker speaks TLS 1.3 only, MicroPython up to TLS 1.2",
        "in mosquitto.conf: tls_version tlsv1.2 (a minimum: PCs go on with 1.3)",
    ),
    8: (
        "TLS",
        "the broker is too old: it has no TLS 1.2",
        "update it, or let it have TLS 1.2",
    ),
    9: (
        "TLS",
        "the broker's key is of a kind that MicroPython does not know",
        "reissue the broker's certificate with a P-256 key",
    ),
    10: (
        "TLS",
        "the broker's settings exclude every cipher or curve that MicroPython has",
        "remove `ciphers` from mosquitto.conf, or allow ECDHE with AES-GCM and the curve P-256",
    ),
    11: (
        "TLS",
        "the broker's certificate has a keyUsage without digitalSignature: it may not sign the "
        "handshake",
        "reissue it with keyUsage digitalSignature",
    ),
    12: (
        "dates",
        "for a clock that is not set the certificate starts in the future",
        "set the board's clock first (ntp=, or mqttls provision), or use certificates that are "
        "valid from 2020 on",
    ),
    13: (
        "dates",
        "the certificate is not valid yet: the PC that issued it had a wrong clock",
        "set that PC's clock and reissue it",
    ),
    14: (
        "dates",
        "a certificate has expired",
        "renew it (mqttls renew) and have the broker load it (SIGHUP or a restart)",
    ),
    15: (
        "name",
        "the name that is dialled is not in the broker's certificate",
        "reissue it with this name and this IP address, dial a name that is in it, or set "
        "server_hostname=",
    ),
    16: (
        "name",
        "firmware up to 1.22 does not look at IP addresses in a certificate",
        "reissue it with the IP address as a DNS name, too, or update the firmware",
    ),
    17: (
        "chain",
        "the board trusts another CA than the one that signed the broker's certificate, or an old "
        "one of the same name",
        "put the CA of this broker on the board (mqttls provision)",
    ),
    18: (
        "chain",
        "the CA's certificate is not one that may sign others (CA:TRUE, keyCertSign)",
        "make a new CA (mqttls init) and reissue what it signed",
    ),
    19: (
        "chain",
        "the broker does not send the intermediate certificate",
        "append it to the broker's certfile, after its own certificate",
    ),
    20: (
        "chain",
        "the chain is right, so the board ran out of memory: it says the same then",
        "free memory, connect early, use P-256 certificates",
    ),
    21: (
        "chain",
        "there is no CA to check the broker against",
        "give the board the CA's certificate: TLS(ca=...)",
    ),
    22: (
        "chain",
        "a client that connects to this broker all the same does not verify it (CERT_NONE)",
        "let it verify: verify_mode CERT_REQUIRED, or TLS(ca=...)",
    ),
    23: (
        "name",
        "there is no name to check the certificate against",
        "pass server_hostname=",
    ),
    24: (
        "client certificate",
        "the broker wants a client certificate, and there is none",
        "make one and put it on the board (mqttls device add NAME, mqttls provision NAME)",
    ),
    25: (
        "client certificate",
        "the broker does not accept the client's certificate",
        "issue one for clients, from a CA in the broker's cafile, neither expired nor revoked",
    ),
    26: (
        "client certificate",
        "the broker's list of revoked certificates (CRL) has expired: it refuses every client",
        "rebuild it (mqttls renew) and have the broker load it",
    ),
    27: (
        "client certificate",
        "key and certificate are not a pair",
        "put both on the board again, from one folder",
    ),
    28: (
        "files",
        "the file is PEM, and firmware up to 1.28 reads DER only",
        "convert it to DER (mqtt_as_tls reads PEM everywhere; umqtt and others do not)",
    ),
    29: (
        "files",
        "the key is PKCS#8, which firmware 1.23 reads wrongly",
        "convert it to SEC1 (EC) or PKCS#1 (RSA) DER, or use newer firmware",
    ),
    30: (
        "files",
        "the key is encrypted, and MicroPython asks for no password",
        "decrypt it: openssl pkey -in KEY -out PLAIN",
    ),
    31: (
        "TLS",
        "the broker's certificate is not one for servers",
        "reissue it with extendedKeyUsage serverAuth",
    ),
    32: (
        "TLS",
        "the certificates are larger than the board's buffers: 16 KB in, 4 KB out",
        "use P-256 certificates, fewer names, a shorter chain",
    ),
    33: (
        "chain",
        "MicroPython cannot read or trust a certificate of this form",
        "reissue it: P-256 with SHA-256, without nameConstraints and other critical extensions",
    ),
    34: (
        "TLS",
        "the board ran out of memory in the handshake",
        "close old connections, gc.collect(), connect early, use P-256 certificates",
    ),
    35: (
        "CONNACK",
        "the broker does not let this client in: not authorised, or a wrong password",
        "check user, password, password_file and ACL; for names from certificates: "
        "use_identity_as_username true",
    ),
    36: (
        "CONNACK",
        "user name or password is wrong, or the broker takes the name from a certificate that it "
        "does not demand",
        "check user and password; with use_identity_as_username also require_certificate true",
    ),
    37: (
        "CONNACK",
        "the broker refuses the client id",
        "use another client id",
    ),
    38: (
        "CONNACK",
        "the broker hangs up instead of answering CONNECT: its policy, or the client id is used "
        "twice, or behind a proxy no broker runs",
        "check the policy (AWS: iot:Connect for this client id), give each device its own id",
    ),
    39: (
        "configuration",
        "the broker cannot load its key",
        "let the user that it runs as read the key; it must be PEM, without passphrase, and "
        "belong to certfile",
    ),
    40: (
        "files",
        "this key makes the handshake slow on a board",
        "use a P-256 key for the device",
    ),
    41: (
        "TLS",
        "a PC uses TLS 1.3, or other ciphers and CAs: that it can connect proves nothing for the "
        "board",
        "believe this look at the broker, not the PC",
    ),
    42: (
        "TLS",
        "this broker serves several names: without the right server name (SNI) it hangs up or "
        "shows another certificate",
        "dial the broker by its name, or set server_hostname=",
    ),
    43: (
        "TLS",
        "this umqtt.simple has no ssl_params: release 1.4 took it out",
        "pass a context: MQTTClient(..., ssl=context); mqtt_as_tls takes tls=TLS(...)",
    ),
    44: (
        "publish",
        "the broker's ACL does not let this client use this topic; with MQTT 3.1.1 the broker "
        "acknowledges what it drops",
        "use topics below devices/NAME/ (config.home), or give it this one: "
        "mqttls device add NAME --topics TOPIC, then on the broker: sudo sh install.sh reload",
    ),
    45: (
        "configuration",
        "the broker cannot read a file that its configuration names: it is not there, or belongs "
        "to another user than the one that mosquitto becomes when root starts it",
        "start it as the owner of the folder; or write the configuration anew, for which root "
        "becomes that owner (mqttls broker-conf); or install it (sudo sh broker/install.sh)",
    ),
    46: (
        "files",
        "the file is of another kind than the one that is asked for",
        "convert it as said, or give the right one",
    ),
    47: (
        "files",
        "the device's key is of a kind or form that MicroPython does not know",
        "make a P-256 key for the device, and have a certificate issued for it "
        "(openssl ecparam -name prime256v1 -genkey -noout; or mqttls device add NAME)",
    ),
    48: (
        "TLS",
        "the broker's key stands in its certificate in a form that boards do not take: as a "
        "compressed point, or with explicit curve parameters",
        "make the broker's key anew (openssl ecparam -name prime256v1 -genkey -noout), and "
        "reissue its certificate",
    ),
    49: (
        "TLS",
        "the broker's `ciphers` has none for the kind of its key: those with ECDSA are for EC "
        "keys, those with RSA for RSA keys",
        "remove `ciphers` from mosquitto.conf, or add ECDHE-ECDSA-AES128-GCM-SHA256 for an EC "
        "key, ECDHE-RSA-AES128-GCM-SHA256 for an RSA key",
    ),
    50: (
        "TLS",
        "behind TLS this port speaks HTTP: a web server, a proxy for one, or MQTT over WebSocket, "
        "which boards do not know",
        "use the port of MQTT over TLS, usually 8883",
    ),
    51: (
        "TLS",
        "this port tells its protocols apart by ALPN, which MicroPython's TLS does not have",
        "use a port without it, usually 8883 (AWS IoT: 8883 with certificates; 443 wants ALPN)",
    ),
    52: (
        "client certificate",
        "the client's certificate has no common name (CN), and the broker takes the user name "
        "from it",
        "reissue it with the device's name as CN (mqttls device add NAME), or drop "
        "use_identity_as_username",
    ),
    53: (
        "client certificate",
        "the broker's cafile holds the CA that issued the client, but not the root above it: "
        "OpenSSL wants the whole chain",
        "append the root's certificate to the broker's cafile, and restart the broker",
    ),
    54: (
        "dates",
        "the CA that the board holds has expired",
        "put the CA that replaced it on the board (mqttls provision); a new certificate for the "
        "broker does not help",
    ),
    55: (
        "files",
        "the first certificate in the file is not the one of the device's key: mqtt_as_tls looks "
        "for that one, other programs take the first",
        "put the device's own certificate first, those of CAs after it",
    ),
    56: (
        "files",
        "what is given as the CA is the certificate of a broker or a device: it signed nothing",
        "give the certificate of the CA that signed the broker's",
    ),
    57: (
        "configuration",
        "mosquitto does not know this line, and does not start",
        "mend it, or drop it",
    ),
    58: (
        "configuration",
        "the file is not where the configuration says",
        "put it there, or mend the path; a relative one counts from the folder in which mosquitto "
        "is started",
    ),
    59: (
        "configuration",
        "without certfile a listener is a plain one up to mosquitto 2.0.20, and later ones do not "
        "start",
        "add certfile with the broker's certificate",
    ),
    60: (
        "configuration",
        "mosquitto takes one value of tls_version, the lowest version that it allows, and does "
        "not start with another",
        "tls_version tlsv1.2 (TLS 1.3 is allowed with it, too), or leave the line out",
    ),
    61: (
        "configuration",
        "only in lines with `pattern` mosquitto puts a name in the place of %u and %c; after "
        "`topic` they stand for themselves",
        "write `pattern` in the place of `topic`, outside of any `user`",
    ),
    62: (
        "configuration",
        "mosquitto 2.1 says that this option goes with version 3, or it is gone already",
        "replace it while there is time",
    ),
    63: (
        "configuration",
        "the broker runs with files that it read before: mosquitto reads them anew when told to",
        "sudo systemctl reload mosquitto (or kill -HUP), and a restart for cafile and crlfile",
    ),
    64: (
        "CONNACK",
        "with use_username_as_clientid the doctor has the client id of the device, and throws a "
        "live one out",
        "--as-device tries it all the same: a live device is back in seconds, and what waits for "
        "it stays",
    ),
    65: (
        "chain",
        "the broker sends its certificates in a wrong order: PCs sort them, MicroPython looks for "
        "the one that signed another only behind it",
        "put them into the broker's certfile in this order: its own, the one that signed it, the "
        "one that signed that",
    ),
    66: (
        "TLS",
        "this port is for a proxy: it wants the header of the PROXY protocol, which tells it who "
        "comes, before anything else",
        "dial the proxy's own port; or switch that off here (mosquitto: enable_proxy_protocol, "
        "haproxy: accept-proxy, nginx: proxy_protocol)",
    ),
    67: (
        "TLS",
        "behind this port no broker takes the connection: a proxy, a container or a tunnel passes "
        "it on to one that does not run, or sends that one a header that it does not expect "
        "(send-proxy); or the broker has as many clients as it takes, or a list of who may come",
        "start the broker behind it; see to which address and port it is passed on, and how "
        "(docker ps, the proxy's log); max_connections in mosquitto.conf",
    ),
    68: (
        "TLS",
        "the broker insists on Extended Master Secret, as OpenSSL does in FIPS mode, or on "
        "Encrypt-then-MAC: MicroPython has neither",
        "let it go on without: in OpenSSL's FIPS mode tls1-prf-ems-check = 0; in GnuTLS without "
        "%FORCE_SESSION_HASH and %FORCE_ETM",
    ),
    69: (
        "CONNACK",
        "a proxy in between passes something on that the broker does not expect: from behind its "
        "own TLS to the broker's TLS port, or with a header of the PROXY protocol",
        "pass it on to the broker's plain port; or through, without TLS of the proxy's own; "
        "without send-proxy",
    ),
    70: (
        "chain",
        "the certificate spells the name of the CA that signed it in another type of string than "
        "the CA's own does: to PCs that is the same, to mbedTLS it is not",
        "reissue it with the issuer's name copied from the CA's certificate (openssl does so)",
    ),
    71: (
        "files",
        "the certificate is in BER where DER is asked for, the one form that all programs read: "
        "OpenSSL takes it, MicroPython only some of that",
        "reissue it with another program: in what its signature covers nothing can be mended",
    ),
    72: (
        "CONNACK",
        "the broker takes no keepalive as long as the device's (mosquitto 2.1: max_keepalive): "
        "with MQTT 3.1.1 it answers as to a wrong client id",
        "give the client that many seconds or fewer (keepalive_s=), or raise max_keepalive",
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """
    Something that is wrong ("problem") or worth knowing ("remark").

    row    int of ROWS; 0 for what the table does not have
    stage  of STAGES
    fact   what was seen, with names and dates
    cause, cure
    level  "problem" or "remark"
    """

    row: int
    stage: str
    fact: str
    cause: str
    cure: str
    level: str = "problem"

    def data(self):
        """Return it as a dict for --json."""
        return dataclasses.asdict(self)


def problem(row, fact, *, cause=None, cure=None, stage=None, level="problem"):
    """Return a Finding of `row`, with its stage, cause and cure unless others are given."""
    of_row = ROWS.get(row, ("", "", ""))
    return Finding(row, stage or of_row[0], fact, cause or of_row[1], cure or of_row[2], level)


def remark(row, fact, **others):
    """Return a Finding that is no problem here, but may be one elsewhere."""
    return problem(row, fact, level="remark", **others)
