"""
The caller's mistakes in MQTTClient(...) in words: names of other libraries, a broker that is
written another way. Imported when one was made.
"""

from .argument_errors import PATH, option, shown

_HOST = PATH + ":[] \t\r\n"  # what else is there may be a password
# The names of mqtt_as, umqtt, paho, aiomqtt, Adafruit's MiniMQTT, ChuMicro and chance, and ours
_NAMES = (
    (
        "server broker hostname uri url socket transport_factory",
        "the broker comes first, MQTTClient('broker.lan')",
    ),
    ("servers brokers hosts", "a list of brokers comes first, MQTTClient(['a.lan', 'b.lan'])"),
    (
        "ssl ssl_params is_ssl use_ssl use_tls tls_params tls_context ssl_context ca cafile"
        " ca_certs cadata cert certfile key keyfile",
        "tls=TLS(ca=, cert=, key=)",
    ),
    ("server_hostname ntp", "it is one of TLS(...)"),
    ("username", "user="),
    ("password_file passwd pswd pwd", "password="),
    ("clientid id identifier", "client_id="),
    ("keepalive keep_alive keep_alive_seconds ping_interval", "keepalive_s="),
    ("clean clean_session clean_init", "clean_start="),
    ("response_time recv_timeout ack_timeout_seconds send_timeout_seconds", "ack_timeout_s="),
    ("timeout connect_timeout socket_timeout", "connect_timeout_s="),
    ("session_expiry session_expiry_interval", "session_expiry_s="),
    ("ssid wifi_pw wifi", "link=WiFi(ssid, password)"),
    ("network socket_pool radio", "link=, or leave it out"),
    ("will_topic will_message will_payload will_qos will_retain", "will=Will(topic, payload)"),
    (
        "subs_cb callback on_message topic queue_len",
        "write @client.on(filter, qos) before a function",
    ),
    ("connect_coro on_connect", "write @client.on_connect before a function"),
    ("wifi_coro on_disconnect", "async for event in client.events()"),
    ("mqttv5 version mqtt_version", "protocol=5, or 4"),
    ("mqttv5_con_props", "properties="),
    ("debug logger", "log= a function that takes a line, or None"),
    ("max_inflight_messages", "max_inflight="),
    (
        "max_queued_messages max_queued_outgoing_messages max_tx_queue_size pre_connect_queue_size"
        " when_disconnected",
        "max_queue= bytes, or store=",
    ),
    ("rx_buffer_size when_oversized", "max_packet="),
    ("max_queued_incoming_messages", "max_backlog= bytes"),
    (
        "transport websocket_path websocket_headers",
        "MQTT over WebSocket is not supported, dial the broker's port for TCP or TLS",
    ),
    (
        "max_repubs publish_retry_max reconnect reconnect_retry_time connect_retries"
        " reconnect_on_failure",
        "leave it out, it reconnects and sends again by itself",
    ),
    ("qos retain", "it is one of publish(), on() and Will(...)"),
    (
        "gateway userdata callback_api_version manual_ack bind_address use_binary_mode"
        " recv_budget_per_tick ticks",
        "leave it out, there is nothing like it",
    ),
)


def options(left):
    """Return the error for the arguments of MQTTClient (dict) that it does not have."""
    texts = []
    for name in sorted(left):
        error = option(name, left[name])
        if isinstance(error, ValueError):  # it has, with MQTT 5
            return error
        texts.append(str(error) + _ours(name))
    return TypeError("; ".join(texts))


def _ours(name):
    for names, ours in _NAMES:
        if name in names.split():
            return ": " + ours
    return ""


def no_host(left):
    """Return the error for an MQTTClient without a broker; `left` dict, what it was given."""
    for name in sorted(left):
        if name in _NAMES[0][0].split() + _NAMES[1][0].split():
            return options({name: None})
    return TypeError("MQTTClient: the broker is missing, MQTTClient('broker.lan')")


def positional(port):
    """Return the error for more than two arguments without names; `port`: the second."""
    return TypeError(
        "MQTTClient(host, port): whatever else has a name, as client_id=, user=, password=, tls=%s"
        % (_UMQTT if isinstance(port, str) else "")
    )


_UMQTT = "; umqtt's client id comes first, here it is MQTTClient(server, client_id=client_id)"


def port(value):
    """Return the ValueError for the port `value` of a broker."""
    more = ", not " + shown(value)
    if isinstance(value, str):
        if value.isdigit() and len(value) < 6:
            more = ": write %s, not %r" % (value, value)
        elif "." in value:
            more += _UMQTT
    return ValueError("port: a number from 1 to 65535" + more)


def password(n):
    """Return the ValueError for a password of `n` bytes."""
    return ValueError("password: %d bytes, at most 65535 (section 3.1.3.5)" % n)


def ntp(value):
    """Return the TypeError for `value`, which is no server of the time."""
    return TypeError(
        "ntp: a name, an address, a pair (address, port), or None, not %s" % shown(value)
    )


def hosts(value):
    """Return the error for `value`, which is no list of brokers or no entry of one."""
    form = "a list of brokers has 'host' or ('host', port) as entries"
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str):
        return ValueError("host: without brackets, MQTTClient('host', port); " + form)
    return ValueError("host: %s, not %s" % (form, value if not value else type(value).__name__))


def host(value, port, kind, is_host):
    """
    Return the ValueError for `value`, which is no server's name: with the right form where it can
    be read from it, and with nothing of a password.

    port     what was given for it
    kind     where it stands, see options.server
    is_host  function: whether a str may be one
    """
    name = "ntp" if kind == "ntp" else "host"
    if not isinstance(value, str) or not value:
        what = shown(value) if value else repr(value)
        if isinstance(value, dict):
            what += ", as mqtt_as takes it: docs/migrating.md has its names and ours"
        return ValueError("%s: a str with a name or an IPv4 address, not %s" % (name, what))
    rest = value.split("://")[-1]
    scheme = value[: len(value) - len(rest)].lower()
    secret = "@" in rest or "?" in rest  # it may hold a password
    if "@" in rest:
        before, rest = rest.rsplit("@", 1)
        for mark in "/?#":
            if mark in before:
                rest = "broker.lan"  # a password with such a character, or no user at all
    for mark in "/?#\\":
        rest = rest.split(mark)[0]
    rest = rest.strip()
    shape = "." in value or ":" in value or len(value) < 8  # else it may be a key with a slash
    known = shape and not (secret or len(value) > 80 or value.lower().strip(_HOST))
    said = " %r" % value if known else ""
    if rest[:1] == "[" or rest.count(":") > 1:
        return ValueError(
            "%s%s: IPv6 is not supported: give an IPv4 address, or a name that has one"
            % (name, said)
        )
    found = None
    if ":" in rest:
        rest, found = rest.split(":")
        found = found.strip()
        # what stands there may be a password, too
        if not (found.isdigit() and len(found) < 6 and 0 < int(found) < 65536):
            said = found = ""
        rest = rest.strip()
    if rest[-1:] == ".":
        rest = rest[:-1]
    if not is_host(rest):
        return ValueError("%s%s: %s" % (name, said, _letters(rest, found is not None or secret)))
    secure = scheme[:-3] in ("mqtts", "ssl", "tls", "https", "wss")
    socket = scheme[:-3] in ("ws", "wss")
    if socket or (found is None and not isinstance(port, int)):
        found = None
    elif found is None:
        found = port
    elif not found:
        found = 8883 if secure else 1883
    if not shape:
        rest = "broker.lan"
    form = '"%s"%s' % (rest, "" if found is None else ", %s" % found)
    if kind == "broker":
        if "@" in value:
            form += ", user=..., password=..."
        form = "MQTTClient(%s%s)" % (form, ", tls=TLS(ca=...)" if secure else "")
    elif found is not None:
        form = "(%s)" % form
    if kind == "ntp":
        form = "TLS(..., ntp=%s)" % form
    why = "write " + form
    if socket:
        why = "MQTT over WebSocket is not supported: " + why + " with the port for TCP or TLS"
    elif "@" in value and kind == "brokers":
        why += ", and give MQTTClient user= and password="
    return ValueError("%s%s: %s" % (name, said, why))


def _letters(text, hidden):
    # Return why `text` is no host name; `hidden`: without saying what it is.
    for c in text:
        if ord(c) > 126:
            return "write a name that is not ASCII as DNS has it, xn--..."
    if not text.replace(".", "").strip("0123456789") and text:
        return "no IPv4 address: four numbers from 0 to 255, without zeros in front"
    for c in text.lower():
        if c not in PATH[:-1]:
            what = "a character" if hidden else repr(c)
            return "%s that no name has: use letters, digits, - and dots" % what
    return "a name has 1 to 63 characters from one dot to the next, 253 in all"
