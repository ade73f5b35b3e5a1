"""
Lines of other brokers' logs than mosquitto's, and of proxies before them: those in Erlang (EMQX,
RabbitMQ, VerneMQ, ejabberd), Java (HiveMQ, ActiveMQ) and Go (Mochi), nginx, haproxy.
"""

_PROXY_HEADER = (
    "a client came without the header of the PROXY protocol, or one came where none is expected"
)

# (pattern, row of causes.ROWS, what it means; None takes the row's cause). The first is the one.
LINES = (
    # Erlang
    (
        r"CLIENT ALERT: Warning - User Canceled",
        6,
        "a client ended the handshake on purpose: the doctor, which only looked",
    ),
    (r"no_client_certificate_provided|SERVER ALERT.*certificate.required", 24, None),
    (
        r"bad_cert,invalid_ext_key_usage",
        25,
        "the client's certificate is not one for clients (extendedKeyUsage clientAuth)",
    ),
    (
        r"In state (certify|wait_cert\w*) .*SERVER ALERT.*handshake.failure",
        25,
        "the client showed no certificate, or one not for clients: the next line says which",
    ),
    (
        r"SERVER ALERT.*(unknown.ca|bad.certificate|certificate.(expired|unknown|revoked)|"
        r"unsupported.certificate)",
        25,
        None,
    ),
    (r"SERVER ALERT.*(unexpected.message|unsupported_record_type)", 4, None),
    (r"SERVER ALERT.*protocol.version", 7, None),
    (r"SERVER ALERT.*(insufficient.security|no_suitable_ciphers|handshake.failure)", 10, None),
    (r"CLIENT ALERT.*(unknown.ca|certificate.unknown)", 17, None),
    (r"CLIENT ALERT.*certificate.expired", 14, None),
    (r"CLIENT ALERT.*unsupported.certificate", 31, None),
    (
        r"CLIENT ALERT.*bad.certificate",
        15,
        "the client does not accept the broker's certificate: name, dates or CA",
    ),
    (r"authorization_permission_denied|not authorized to (publish|subscribe)", 44, None),
    (r"reason: bad_username_or_password|bad_username_or_password\b", 36, None),
    (r"\bnot_authorized\b", 35, None),
    (r"client_identifier_not_valid", 37, None),
    (
        r"shutdown,? ?(reason: )?(takenover|takeovered|discarded)",
        38,
        "two clients have the same client id and throw each other out",
    ),
    # Java
    (r"Empty (client|server)? ?certificate chain", 24, None),
    (r"Received fatal alert: (certificate_unknown|unknown_ca)", 17, None),
    (r"Received fatal alert: certificate_expired", 14, None),
    (
        r"Received fatal alert: bad_certificate",
        15,
        "the client does not accept the broker's certificate: name, dates or CA",
    ),
    (r"no cipher suites in common", 10, None),
    (r"Client requested protocol \S+ is not enabled", 7, None),
    (r"Unsupported or unrecognized SSL message|NotSslRecordException|not an SSL/TLS record", 4,
     None),
    # Go
    (r"first record does not look like a TLS handshake", 4, None),
    (r"client didn't provide a certificate", 24, None),
    (r"no cipher suite supported by both|no ECDHE curve supported by both", 10, None),
    (r"client offered only unsupported versions", 7, None),
    (r"remote error: tls: unknown certificate", 17, None),
    (r"remote error: tls: expired certificate", 14, None),
    (
        r"remote error: tls: bad certificate",
        15,
        "the other side does not accept the certificate: name, dates or CA; of a client that has "
        "none the broker says so, too",
    ),
    # nginx, haproxy
    (r"sent no required SSL certificate", 24, None),
    (r"client SSL certificate verify error", 25, None),
    (r"PROXY protocol header|reading PROXY protocol", 66, _PROXY_HEADER),
)  # fmt: skip
