"""A real mosquitto on loopback, and a second real client to watch it with."""

import contextlib
import os
import re
import shutil
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from . import patience, process
from .elsewhere import Unavailable, free_port, give_back, password_line

HOST = "127.0.0.1"
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/local/opt/mosquitto/sbin")


def mosquitto():
    """Return the path of mosquitto. Raises Unavailable."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *_PLACES])
    found = shutil.which("mosquitto", path=path)
    if not found:
        raise Unavailable(
            "mosquitto is not installed: sudo apt-get install mosquitto, or brew install mosquitto"
        )
    return found


def is_listening(port, timeout_s=1, host=HOST):
    """Tell whether something accepts a connection on `port` of loopback."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def published_again(log, client_id):
    """
    Return how many QoS 2 messages (int) a mosquitto with this `log` (str, of all types) published
    again to a client after it had sent their PUBREL. It must not, and the client cannot tell them
    from new ones.
    """
    client = re.escape(client_id)
    steps = re.compile(
        rf"Sending PUBREL to {client} \(m(?P<released>\d+)"
        rf"|Received PUBCOMP from {client} \(Mid: (?P<over>\d+)"
        rf"|Sending PUBLISH to {client} \(d(?P<dup>\d), q2, r\d, m(?P<published>\d+)"
    )
    released = set()
    count = 0
    for step in steps.finditer(log):
        if step["released"]:
            released.add(step["released"])
            continue
        packet_id = step["over"] or step["published"]
        if step["dup"] == "1" and packet_id in released:
            count += 1
        released.discard(packet_id)
    return count


def publishes(log, client_id, qos):
    """
    Return in which order a mosquitto with this `log` (str, of all types) sent its messages of
    `qos` (int) to a client: for each connection their numbers (list of list of int), which count
    from 0 in the order in which the broker took them in.
    """
    client = re.escape(client_id)
    steps = re.compile(
        rf"Sending CONNACK to (?P<connection>{client}) "
        rf"|Sending PUBLISH to {client} \(d\d, q{qos}, r\d, m(?P<id>\d+)"
    )
    connections = []
    for step in steps.finditer(log):
        if step["connection"]:
            connections.append([])
        else:
            connections[-1].append(int(step["id"]))
    numbers = {packet_id: n for n, packet_id in enumerate(sorted(set(sum(connections, []))))}
    return [[numbers[packet_id] for packet_id in each] for each in connections]


class Broker:
    """
    A mosquitto that runs from construction to `close`. Use it in a `with`, or as a fixture.

    directory   Path of an empty folder for its files
    listeners   of "tcp", "tls" (server-only) and "mtls" (demands a client certificate), one or
                more; `ports` maps each to its port, `port` is that of the first. Ports stay the
                same across restarts.
    pki         a tests.support.pki.PKI; needed for "tls" and "mtls"
    identity    Identity that the broker shows; pki.broker when None
    client_ca   Identity of the CA that clients of "mtls" must come from; pki.ca when None
    identity_as_user  the common name of a client's certificate is its user name ("mtls")
    persistence it keeps its state across `restart` and `kill` + `start`
    users       {name: password}; others are refused. None: everybody may come
    acl         text of an ACL file, or None
    max_packet  largest packet in bytes that it accepts, or None
    lines       more lines (str) of its configuration file, after the listeners
    """

    def __init__(
        self,
        directory,
        *listeners,
        pki=None,
        identity=None,
        client_ca=None,
        identity_as_user=False,
        persistence=False,
        users=None,
        acl=None,
        max_packet=None,
        lines=(),
    ):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.host = HOST
        self.listeners = listeners or ("tcp",)
        self.pki = pki
        self.identity = identity or (pki and pki.broker)
        self.client_ca = client_ca or (pki and pki.ca)
        self.lines = list(lines)
        self._identity_as_user = identity_as_user
        self._persistence = persistence
        self._users = users
        self.acl = acl
        self._max_packet = max_packet
        self._child = None
        self._log = self.directory / "broker.log"
        self._peers = []
        self.ports = {kind: free_port() for kind in self.listeners}
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def port(self):
        """The port of its first listener."""
        return self.ports[self.listeners[0]]

    @property
    def pid(self):
        """The process id of what runs now."""
        return self._child.pid

    @property
    def running(self):
        return self._child is not None and self._child.poll() is None

    def configuration(self):
        """Return the text of its configuration file."""
        lines = ["log_dest stderr", "log_type all", "log_timestamp false"]
        if os.geteuid() == 0:
            lines.append("user root")  # else it could not read files of the test's folder
        if self._persistence:
            lines += ["persistence true", f"persistence_location {self.directory}/"]
        if self._max_packet:
            lines.append(f"max_packet_size {self._max_packet}")
        if self._users is None:
            lines.append("allow_anonymous true")
        else:
            path = self.directory / "passwords"
            path.write_text("".join(password_line(*each) for each in self._users.items()))
            path.chmod(0o600)
            lines += ["allow_anonymous false", f"password_file {path}"]
        if self.acl is not None:
            path = self.directory / "acl"
            path.write_text(self.acl)
            path.chmod(0o600)
            lines.append(f"acl_file {path}")
        for kind in self.listeners:
            lines.append(f"listener {self.ports[kind]} {self.host}")
            if kind == "tcp":
                continue
            lines.append(f"certfile {self.identity.chain_pem}")
            lines.append(f"keyfile {self.identity.key_pem}")
            if kind == "mtls":
                lines += [f"cafile {self.client_ca.cert_pem}", "require_certificate true"]
                if self._identity_as_user:
                    lines.append("use_identity_as_username true")
        return "\n".join([*lines, *self.lines, ""])

    def _command(self, path):
        return [mosquitto(), "-c", str(path)]

    def start(self):
        """
        Start it, and return when every listener accepts connections. The configuration is
        written anew, so `lines`, `acl`, `identity` and `host` (an address of loopback) may have
        been changed while it was down.

        Raises RuntimeError with its log when it does not come up.
        """
        if self.running:
            return
        path = self.directory / "broker.toml"  # iotcore goes by the ending
        path.write_text(self.configuration())
        with self._log.open("ab") as log:
            self._child = process.spawn(
                self._command(path), stdin=process.NULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + patience.stretched(10)
        waiting = list(self.ports.values())
        while waiting:
            if not self.running or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start:\n{self.log()}")
            if is_listening(waiting[0], host=self.host):
                waiting.pop(0)
            else:
                time.sleep(0.01)
        if not self.running:  # somebody else answered on its port
            self.kill()
            raise RuntimeError(f"the broker ended at once:\n{self.log()}")

    def stop(self):
        """Stop it as `systemctl stop` does: it closes its connections and saves its state."""
        if self._child:
            process.end(self._child, grace_s=patience.stretched(5))

    def kill(self):
        """Kill it: what it had not saved is lost."""
        if self._child:
            process.end(self._child)

    def pause(self):
        """Freeze it (SIGSTOP): the kernel goes on accepting connections, nobody answers."""
        process.signal_group(self._child, process.SIGSTOP)

    def resume(self):
        """Let it go on after pause()."""
        process.signal_group(self._child, process.SIGCONT)

    def reload(self):
        """
        Have it read its certificates, passwords and `acl`, which may have been changed, anew
        (SIGHUP), and return when it has.
        """
        self.configuration()
        before = self.log().count("Reloading config")
        process.signal_group(self._child, process.SIGHUP)
        self.wait_for_log("Reloading config", count=before + 1)

    def wipe(self):
        """Forget sessions and retained messages; it must be stopped."""
        with contextlib.suppress(FileNotFoundError):
            (self.directory / "mosquitto.db").unlink()

    def restart(self, wipe=False, down_s=0):
        """
        Stop it and start it again on the same ports.

        wipe    forget sessions and retained messages (without `persistence` they always are)
        down_s  seconds that it stays away
        """
        self.stop()
        if wipe:
            self.wipe()
        time.sleep(down_s)
        self.start()

    def log(self):
        """Return all that it logged since construction (str)."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_for_log(self, text, timeout_s=10, count=1):
        """Return when `text` is in its log `count` times; else raise AssertionError with it."""
        deadline = time.monotonic() + patience.stretched(timeout_s)
        while self.log().count(text) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"the broker did not log {text!r}:\n{self.log()}")
            time.sleep(0.02)

    def published_again(self, client_id):
        """The same as published_again() of its log."""
        return published_again(self.log(), client_id)

    def publishes(self, client_id, qos):
        """The same as publishes() of its log."""
        return publishes(self.log(), client_id, qos)

    def peer(self, *filters, qos=1, **options):
        """Return a Peer that is connected here and subscribed to `filters`; see Peer."""
        kind = "tcp" if "tcp" in self.listeners else self.listeners[0]
        if kind != "tcp":
            options.setdefault("ca", self.pki.ca)
        if kind == "mtls":
            options.setdefault("identity", self.pki.device)
        peer = Peer(self.ports[kind], **options)
        self._peers.append(peer)
        for each in filters:
            peer.subscribe(each, qos)
        return peer

    def publish(self, topic, *payloads, qos=1, retain=False):
        """Publish as a peer that comes for it, and return when QoS of each is fulfilled."""
        with self.peer() as peer:
            peer.publish_all(topic, payloads, qos, retain)

    def close(self):
        """Close its peers and end it."""
        for peer in self._peers:
            peer.close()
        self.kill()
        for port in self.ports.values():
            give_back(port)


_ROUTER = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
"""

_LISTENER = """\
[v4.{kind}]
name = "{kind}"
listen = "{host}:{port}"
next_connection_delay_ms = 1
[v4.{kind}.connections]
connection_timeout_ms = 5000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""

_LISTENER_TLS = """\
[v4.{kind}.tls]
certpath = "{certificate}"
keypath = "{key}"
"""


class EmbeddedBroker(Broker):
    """
    The broker of the PyPI package `iotcore`, for where mosquitto is not installed.

    It speaks MQTT 3.1.1 on plain TCP and server-only TLS, and keeps no state across a restart. Of
    the arguments of Broker it takes `directory`, `listeners` ("tcp", "tls"), `pki`, `identity`.
    """

    def __init__(self, directory, *listeners, pki=None, identity=None):
        if "mtls" in listeners:
            raise ValueError(
                "the embedded broker asks for no client certificate: install mosquitto"
            )
        super().__init__(directory, *listeners, pki=pki, identity=identity)

    def configuration(self):
        text = _ROUTER
        for kind, port in self.ports.items():
            text += _LISTENER.format(kind=kind, host=self.host, port=port)
            if kind == "tls":
                certificate, key = self.identity.chain_pem, self.identity.pkcs8_pem
                text += _LISTENER_TLS.format(kind=kind, certificate=certificate, key=key)
        return text

    def _command(self, path):
        return [sys.executable, "-m", "iotcore", "--config", str(path), "--log-level", "CRITICAL"]


def _encoded(properties, packet):
    """Return `properties` (dict or None) as paho's Properties of that packet type, or None."""
    if properties is None:
        return None
    encoded = Properties(packet)
    for name, value in properties.items():
        setattr(encoded, name.title().replace("_", ""), value)
    return encoded


def properties_of(message):
    """Return the properties of paho's MQTTMessage as a dict, under the names of mqtt_as_tls."""
    found = {}
    for name, value in vars(message.properties).items():
        if name[0].isupper():
            found["".join("_" + c.lower() if c.isupper() else c for c in name)[1:]] = value
    return found


class Peer:
    """
    Another MQTT client (paho), connected when constructed; it comes back after an outage.

    port      of the broker on loopback
    user, password, client_id, will  (topic, payload, qos, retain) as in CONNECT; None: without
    clean     False keeps its session in the broker (needs `client_id`)
    ca        Identity of the CA that signed the broker: speaks TLS
    identity  Identity that it shows to the broker
    protocol  4 (MQTT 3.1.1) or 5; with 5, `properties` of CONNECT and `will_properties` are dicts
              with the names of mqtt_as_tls, user_property a pair

    `messages` is the list of what came, paho's MQTTMessage: topic, payload (bytes), qos, retain,
    dup; `received` the same as list of (topic, payload).

    Raises AssertionError when the broker does not accept it.
    """

    def __init__(
        self,
        port,
        *,
        user=None,
        password=None,
        client_id="",
        clean=True,
        will=None,
        ca=None,
        identity=None,
        protocol=4,
        properties=None,
        will_properties=None,
        timeout_s=10,
    ):
        self.messages = []
        self._changed = threading.Condition()
        self._granted = {}
        self._answer = None
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=clean if protocol == 4 else None,
            protocol=protocol,
        )
        options = {}
        if protocol == 5:
            options = {"clean_start": clean, "properties": _encoded(properties, 1)}
        self._client.reconnect_delay_set(1, 1)
        if user is not None:
            self._client.username_pw_set(user, password)
        if will is not None:
            self._client.will_set(*will, properties=_encoded(will_properties, 99))
        if ca is not None:
            context = ssl.create_default_context(cafile=ca.cert_pem)
            if identity is not None:
                context.load_cert_chain(identity.cert_pem, identity.key_pem)
            self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.connect(HOST, port, keepalive=60, **options)
        self._client.loop_start()
        if not self._wait(lambda: self._answer is not None, timeout_s) or self._answer.is_failure:
            self.close()
            raise AssertionError(f"the broker did not accept the peer: {self._answer}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send_at_once(self):
        """Let no message wait for others (TCP_NODELAY), until it connects anew."""
        self._client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, client, data, flags, answer, properties):
        with self._changed:
            self._answer = answer
            self.session_present = flags.session_present
            self._changed.notify_all()

    def _on_disconnect(self, client, data, flags, reason, properties):
        with self._changed:
            if self._answer is None:
                self._answer = reason
            self._changed.notify_all()

    def _on_message(self, client, data, message):
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def _on_subscribe(self, client, data, packet_id, codes, properties):
        with self._changed:
            self._granted[packet_id] = [code.value for code in codes]
            self._changed.notify_all()

    def _wait(self, is_so, timeout_s):
        with self._changed:
            return self._changed.wait_for(is_so, patience.stretched(timeout_s))

    @property
    def received(self):
        return [(each.topic, each.payload) for each in list(self.messages)]

    def subscribe(self, topic_filter, qos=1, timeout_s=10, **options):
        """
        Subscribe, and return the code of the broker's SUBACK (0, 1, 2 or 0x80).

        options  of paho's SubscribeOptions (MQTT 5): noLocal, retainAsPublished, retainHandling
        """
        if options or self._client.protocol == 5:
            options = {"options": SubscribeOptions(qos, **options)}
        else:
            options = {"qos": qos}
        _, packet_id = self._client.subscribe(topic_filter, **options)
        if not self._wait(lambda: packet_id in self._granted, timeout_s):
            raise AssertionError(f"no SUBACK for {topic_filter}")
        return self._granted[packet_id][0]

    def publish(self, topic, payload=b"", qos=1, retain=False, timeout_s=10, properties=None):
        """Publish, and return when its QoS is fulfilled; `properties` dict (MQTT 5)."""
        properties = _encoded(properties, 3)
        # after a restart of the broker others may be there sooner
        if not self._wait(self._client.is_connected, timeout_s):
            raise AssertionError(f"not connected, to publish to {topic}")
        sent = self._client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(patience.stretched(timeout_s))

    def publish_all(self, topic, payloads, qos=1, retain=False):
        """Publish each of `payloads` (iterable of str, bytes, numbers), one after the other."""
        for payload in payloads:
            self.publish(topic, payload, qos, retain)

    def wait_for(self, count=1, topic=None, timeout_s=20):
        """
        Return the messages (list) when there are at least `count`, of `topic` when it is given.

        Raises AssertionError with what came until then.
        """

        def chosen():
            return [each for each in self.messages if topic is None or each.topic == topic]

        if not self._wait(lambda: len(chosen()) >= count, timeout_s):
            raise AssertionError(
                f"{len(chosen())} of {count} messages came: {self.received[-20:]}"
            )
        return chosen()

    def close(self):
        """Disconnect; what came stays in `messages`."""
        self._client.disconnect()
        self._client.loop_stop()
