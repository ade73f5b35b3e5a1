"""mosquitto.conf: its lines and listeners, and where the files are that it names."""

import difflib
import os
from pathlib import Path

from ..messages import shell
from ..names import is_port
from . import reading
from .causes import problem

_MOST_INCLUDED = 50
_HERE = "configuration"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# Options that belong to the listener above them.
_OF_LISTENER = set(
    "cafile capath certfile keyfile crlfile require_certificate use_identity_as_username "
    "use_subject_as_username use_username_as_clientid tls_version ciphers ciphers_tls1.3 "
    "dhparamfile psk_hint psk_file protocol bind_address bind_interface mount_point "
    "max_connections socket_domain tls_engine tls_keyform disable_client_cert_date_checks "
    "accept_protocol_versions listener_allow_anonymous listener_auto_id_prefix http_dir max_qos "
    "maximum_qos max_topic_alias max_topic_alias_broker enable_proxy_protocol websockets_origin "
    "proxy_protocol_v2_require_tls tls_engine_kpass_sha1".split()
)
# Of them, those for which mosquitto 2.1 wants a line `listener` first
_AFTER_LISTENER = set(
    "cafile tls_version mount_point http_dir max_topic_alias disable_client_cert_date_checks "
    "listener_allow_anonymous listener_auto_id_prefix accept_protocol_versions plugin_use "
    "max_topic_alias_broker enable_proxy_protocol proxy_protocol_v2_require_tls "
    "websockets_origin".split()
)
# Options that belong to it only with per_listener_settings true.
_SECURITY = set("acl_file password_file allow_anonymous psk_file plugin auth_plugin".split())
# All others that mosquitto 2.0 or 2.1 knows
_OTHERS = set(
    "address addresses allow_duplicate_messages allow_zero_length_clientid "
    "auth_plugin_deny_special_chars auto_id_prefix autosave_interval autosave_on_changes "
    "bridge_alpn bridge_attempt_unsubscribe bridge_bind_address bridge_cafile bridge_capath "
    "bridge_certfile bridge_ciphers bridge_ciphers_tls1.3 bridge_identity bridge_insecure "
    "bridge_keyfile bridge_max_packet_size bridge_max_topic_alias bridge_outgoing_retain "
    "bridge_protocol_version bridge_psk bridge_receive_maximum bridge_reload_type "
    "bridge_require_ocsp bridge_session_expiry_interval bridge_tcp_keepalive "
    "bridge_tcp_user_timeout bridge_tls_use_os_certs bridge_tls_version check_retain_source "
    "cleansession clientid clientid_prefixes connection connection_messages enable_control_api "
    "global_max_clients global_max_connections global_plugin idle_timeout include_dir "
    "keepalive_interval listener local_cleansession local_clientid local_password local_username "
    "log_dest log_facility log_timestamp log_timestamp_format log_type max_inflight_bytes "
    "max_inflight_messages max_keepalive max_packet_size max_queued_bytes max_queued_messages "
    "memory_limit message_size_limit notification_topic notifications notifications_local_only "
    "packet_buffer_size password per_listener_settings persistence persistence_file "
    "persistence_location persistent_client_expiration pid_file plugin_load plugin_use port "
    "queue_qos0_messages remote_clientid remote_password remote_username restart_timeout "
    "retain_available retain_expiry_interval retained_persistence retry_interval round_robin "
    "set_tcp_nodelay start_type sys_interval threshold topic try_private upgrade_outgoing_qos "
    "user username websockets_headers_size websockets_log_level".split()
)
KNOWN = _OF_LISTENER | _SECURITY | _OTHERS
_PREFIXES = ("plugin_opt_", "auth_opt_")
_BOOLS = set(
    "require_certificate use_identity_as_username use_subject_as_username "
    "use_username_as_clientid allow_anonymous per_listener_settings persistence".split()
)
_NUMBERS = set(
    "max_connections max_packet_size max_inflight_messages max_queued_messages max_keepalive "
    "message_size_limit max_topic_alias autosave_interval sys_interval keepalive_interval".split()
)
_CHOICES = {
    "log_dest": set("none syslog stdout stderr topic dlt android file".split()),
    "log_type": set(
        "none information notice warning error debug subscribe unsubscribe internal websockets "
        "all".split()
    ),
    "protocol": set("mqtt mqttsn websockets http_api".split()),
}
# Those that a listener, or the whole, may have only once
_ONCE = set("cafile certfile keyfile crlfile tls_version ciphers acl_file password_file".split())
# What 2.1 says to go with 3.0, or what is gone, and what takes its place
DEPRECATED = {
    "per_listener_settings": "give each listener its own listener_allow_anonymous and plugin_use",
    "port": "listener PORT",
    "bind_address": "listener PORT ADDRESS",
    "clientid_prefixes": "an ACL with %c",
    "auto_id_prefix": "listener_auto_id_prefix",
    "allow_duplicate_messages": "leave it out",
    "retry_interval": "leave it out: it does nothing any more",
    "dhparamfile": "leave it out: it is not needed any more",
}


FILES = ("cafile", "certfile", "keyfile", "crlfile", "acl_file", "password_file", "psk_file")
FILES += ("dhparamfile",)


class Listener:
    """One listener: `port`, `address` ("" for all), `options` {name: value}, `line` number."""

    def __init__(self, port, address="", line=0):
        self.port, self.address, self.line = port, address, line
        self.options = {}

    @property
    def tls(self):
        return "certfile" in self.options or "psk_hint" in self.options

    @property
    def half_tls(self):
        """It has a part of what TLS takes, and no certfile."""
        parts = ("cafile", "capath", "keyfile")
        return not self.tls and any(each in self.options for each in parts)

    def is_on(self, name):
        return self.options.get(name, "false").lower() == "true"


class Configuration:
    """
    What a mosquitto.conf says.

    path       Path of the file
    listeners  list of Listener
    options    dict of what belongs to all listeners
    findings   what was wrong while reading it
    lines      [(option, value, "FILE line N")] in their order
    """

    def __init__(self, path):
        self.path = Path(path)
        self.listeners, self.options, self.findings = [], {}, []
        self.lines = []
        self._included = 0
        self._default = Listener(1883)
        self._read(self.path)
        if self._default.options or "port" in self.options:
            port = self.options.get("port", "1883").partition(" ")[0]
            self._default.port = int(port) if is_port(port) else 0
            self.listeners.insert(0, self._default)

    def _read(self, path):
        try:
            data = reading.read(path, _HERE)
            if data[:2] in _UTF16_MARKS:
                out = f"{path}.utf8"
                cure = shell("iconv", "-f", "UTF-16", "-t", "UTF-8", path) + f" > {shell(out)}"
                fact = f"{path} is text in UTF-16, as Notepad and PowerShell's > write it"
                cause = "mosquitto reads UTF-8, and does not start"
                raise reading.Unreadable(problem(57, fact, cause=cause, cure=cure))
            text = data.decode("utf-8", "replace")
        except reading.Unreadable as error:
            self.findings.append(error.finding)
            return
        for number, line in enumerate(text.splitlines(), 1):
            name, _, value = line.strip().partition(" ")
            value = value.strip()
            if not name or line.startswith("#"):
                continue
            where = f"{path} line {number}"
            self.lines.append((name, value, where))
            self._check(name, value, where)
            if name == "listener":
                self._listen(path, number, value)
            elif name == "include_dir":
                self._include(path, number, value)
            else:
                self._owner(name)[name] = value

    def _check(self, name, value, where):
        # As mosquitto reads a line: what it does not know, it does not start with.
        if name not in KNOWN and not name.startswith(_PREFIXES):
            near = difflib.get_close_matches(name.strip("\ufeff").split("\t")[0].lower(), KNOWN, 1)
            cure = f"drop it, or did you mean {near[0]}?" if near else "drop it"
            if name.startswith("#"):
                cure = "begin the comment where the line begins: mosquitto takes no other"
            elif "\t" in name:
                cure = "put a blank between option and value: mosquitto takes no tab there"
            elif name.startswith("\ufeff"):
                cure = "save the file without a byte order mark (UTF-8 without BOM)"
            fact = f"{where}: mosquitto knows no option {name[:60]!r}"
            self.findings.append(problem(57, fact, cure=cure))
        elif not value:
            fact = f"{where}: {name} has no value"
            self.findings.append(problem(57, fact, cure=f"give it one, or drop the line {name}"))
        elif name in _NUMBERS and not value.lstrip("-").isdigit():
            fact = f"{where}: {name} is a number, not {value[:40]!r}"
            self.findings.append(problem(57, fact, cure=f"{name} NUMBER"))
        elif name in ("max_qos", "maximum_qos") and value not in ("0", "1", "2"):
            self.findings.append(problem(57, f"{where}: {name} {value[:9]}", cure=f"{name} 2"))
        elif name in _CHOICES and value.split(" ")[0] not in _CHOICES[name]:
            fact = f"{where}: {name} is one of {', '.join(sorted(_CHOICES[name]))}"
            self.findings.append(problem(57, f"{fact}, not {value[:40]!r}"))
        elif name == "listener" and value == "0":
            fact = f"{where}: listener 0 without the path of a socket"
            self.findings.append(problem(57, fact, cure="listener 8883"))
        elif name in _SECURITY and self._apart and not self.listeners:
            fact = f"{where}: {name} stands before any listener, with per_listener_settings"
            cause = "mosquitto 2.1 does not start with that"
            cure = "put it behind each listener that it is for"
            self.findings.append(problem(57, fact, cause=cause, cure=cure))
        elif name in _BOOLS and value.split(" ")[0] not in ("true", "false", "1", "0"):
            fact = f"{where}: {name} is true or false, not {value[:40]!r}"
            self.findings.append(problem(57, fact, cure=f"{name} true"))
        elif name == "per_listener_settings" and any(
            each in _SECURITY for each, _, _ in self.lines
        ):
            fact = f"{where}: per_listener_settings stands behind a security setting"
            self.findings.append(problem(57, fact, cure="make it the first line"))
        elif name in _AFTER_LISTENER and not self.listeners:
            fact = f"{where}: {name} stands before any listener"
            cause = (
                "up to mosquitto 2.0 it is for the plain listener on 1883, and 2.1 does not start"
            )
            self.findings.append(problem(57, fact, cause=cause, cure="put it behind its listener"))
        if name in _ONCE:
            target = self._owner(name)
            if name in target:
                fact = f"{where}: {name} is there twice for one listener"
                self.findings.append(problem(57, fact, cure="leave one of them"))

    def _owner(self, name):
        """Return the options (dict) to which an option belongs where the reading is now."""
        if name in _OF_LISTENER or name in _SECURITY and self._apart and self.listeners:
            return (self.listeners[-1] if self.listeners else self._default).options
        return self.options

    @property
    def _apart(self):
        return self.options.get("per_listener_settings", "false").lower() == "true"

    def _listen(self, path, number, value):
        words = value.split()
        if not words or not (words[0] == "0" or is_port(words[0])):  # 0: no TCP
            fact = f"{path} line {number}: listener without a port (1 to 65535)"
            self._wrong(0, fact, "listener 8883")
            return
        address = words[1] if len(words) > 1 else ""
        self.listeners.append(Listener(int(words[0]), address, number))

    def _include(self, path, number, value):
        folder = Path(value)
        if not folder.is_dir():
            self._wrong(
                0, f"{path} line {number}: there is no folder {value}", "make it, or drop the line"
            )
            return
        for each in sorted(folder.glob("*.conf")):
            self._included += 1
            if self._included <= _MOST_INCLUDED:
                self._read(each)

    def _wrong(self, row, fact, cure, cause="mosquitto does not start with that"):
        self.findings.append(problem(row, fact, stage=_HERE, cause=cause, cure=cure))

    def file(self, path):
        """
        Return the path (str) of a file that the configuration names: where it says, or, of a copy
        that is not on the broker, beside the configuration.
        """
        if not path or os.path.exists(path):
            return path
        for other in self._elsewhere(path):
            if other.exists():
                return str(other)
        return path

    def _elsewhere(self, path):
        # In a container the folder of the configuration is /mosquitto/config.
        here, words = self.path.parent, Path(path).parts
        if words[:3] == ("/", "mosquitto", "config"):
            yield here.joinpath(*words[3:])
        elif words[:2] == ("/", "mosquitto"):
            yield here.parent.joinpath(*words[2:])
        if not Path(path).is_absolute():
            yield here / path
        yield here / Path(path).name

    def paths(self):
        """Return [(option, path, where)] of all files that the configuration names."""
        return [each for each in self.lines if each[0] in FILES and each[1]]

    @property
    def is_copy(self):
        """Is this the copy of a configuration, whose files are on another machine?"""
        named = [path for _, path, _ in self.paths()]
        there = any(os.path.exists(path) for path in named)
        return bool(named) and not there and all(os.path.exists(self.file(path)) for path in named)

    def is_missing(self, path):
        """Tell whether mosquitto does not find the file `path` that the configuration names."""
        return not os.path.exists(path if not self.is_copy else self.file(path))

    def of(self, listener, name, default=""):
        """Return the value of an option of the kind that can belong to all listeners."""
        return listener.options.get(name, self.options.get(name, default))

    def listener(self, port=None):
        """Return the Listener with TLS on `port` (any, when None), or None."""
        having = [each for each in self.listeners if each.tls]
        having = having or [each for each in self.listeners if each.half_tls]
        if port is not None:
            having = [each for each in self.listeners if each.port == port]
        return having[0] if having else None
