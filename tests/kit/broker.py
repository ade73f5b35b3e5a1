"""
A mosquitto for the test of an app: mutual TLS with certificates made on the spot, somebody who
sees all that is published, and a proxy in between, which can break what passes.
"""

import collections
import ssl

import paho.mqtt.client as paho

from ..support import broker as mosquitto
from ..support.pki import PKI
from ..support.proxy import Proxy
from . import failing
from .failing import wait

CLIENT_ID = "test-device"
_OBSERVER = "testkit"
_EVERYTHING = "topic readwrite #\n\n"  # for who shows no certificate: the observer


class Message(collections.namedtuple("Message", "topic payload qos retain")):
    """What was published: topic (str), payload (bytes), qos (int), retain (bool)."""

    @property
    def text(self):
        """The payload as text."""
        return self.payload.decode(errors="replace")

    def __str__(self):
        return f"{self.topic} {self.payload[:60]!r}" + (" retained" if self.retain else "")


def _contexts(pki, device):
    """Return the contexts of TLS (server, client) of the proxy, which stands between the two."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pki.broker.chain_pem, pki.broker.key_pem)
    server.load_verify_locations(pki.ca.cert_pem)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=pki.ca.cert_pem)
    client.load_cert_chain(device.cert_pem, device.key_pem)
    return server, client


class Broker:
    """
    Runs from construction to `close`. Use it in a `with`.

    folder  Path of an empty folder for its files
    pki     support.pki.PKI
    acl     text of an ACL file, or None: everybody may do everything. The app's user name is its
            client id, the common name of its certificate

    port       int, that apps connect to
    client_id  str, of the app
    identity   its certificate and key
    proxy      support.proxy.Proxy between it and the broker
    ended      int, how many connections there were when it last ended them
    """

    def __init__(self, folder, pki, acl=None):
        self.pki = pki
        self.client_id = CLIENT_ID
        folder.mkdir(parents=True, exist_ok=True)
        self.identity = PKI(folder).issue(CLIENT_ID, "client", issuer=pki.ca)
        self._broker = mosquitto.Broker(
            folder,
            *("mtls", "tcp"),
            pki=pki,
            persistence=True,
            acl=acl and _EVERYTHING + acl,
            identity_as_user=True,
            lines=["set_tcp_nodelay true"],
        )
        self.ended = 0
        self._seen = []  # of observers that are gone
        self._asserted = collections.Counter()
        self._observe()
        self.proxy = Proxy(self._broker.ports["mtls"], tls=_contexts(pki, self.identity))
        self.port = self.proxy.port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.proxy.close()
        self._broker.close()

    # What it does

    def _observe(self):
        self._observer = self._broker.peer("#", qos=2, client_id=_OBSERVER)

    def _leave(self):
        """Have the observer go, with all that it has seen: it misses nothing that is answered."""
        self.proxy.stall_up()
        self.settle()
        self._seen += self._observed()
        self._observer.close()

    def _end(self):
        self.proxy.refuse()
        self.ended = self.proxy.connections

    def stop(self):
        """Stop it: its state is kept, and connections are refused."""
        self._end()
        if self._broker.running:
            self._leave()
            self._broker.stop()
        self.proxy.fin()

    def kill(self, wipe=False):
        """Kill it, as a power cut does; `wipe`: sessions and retained messages are gone, too."""
        self._end()
        if self._broker.running:
            self._leave()
            self._broker.kill()
        if wipe:
            self._broker.wipe()
        self.proxy.rst()

    def start(self):
        """Start it again. Faults of the connections are over with that."""
        self._broker.start()
        self._observe()
        self.proxy.heal()

    def restart(self):
        """Stop it, and start it again."""
        self.stop()
        self.start()

    def refuse(self):
        """End the connections, and refuse new ones until `accept`; it goes on."""
        self._end()
        self.proxy.rst()

    def accept(self):
        """Take connections again."""
        self.proxy.heal()

    def set_acl(self, acl):
        """
        Have other rights from now on: text of an ACL file. What is not allowed is not handed on,
        with MQTT 3.1.1 without a word.
        """
        self._broker.acl = _EVERYTHING + acl
        if self._broker.running:
            self._broker.reload()

    def publish(self, topic, payload=b"", qos=1, retain=False):
        """Publish, and return when the broker has it; `payload` str, bytes or a number."""
        self._observer.publish(topic, payload, qos=qos, retain=retain)

    # What it saw

    def _observed(self):
        return [
            Message(each.topic, each.payload, each.qos, bool(each.retain))
            for each in list(self._observer.messages)
            if each.topic != _OBSERVER
        ]

    def settle(self):
        """Return when all that the broker has was seen."""
        count = sum(each.topic == _OBSERVER for each in self._observer.messages)
        self._observer.publish(_OBSERVER, b"", qos=2)
        self._observer.wait_for(count + 1, topic=_OBSERVER)

    def messages(self, topic_filter="#"):
        """Return what was published so far (list of Message), the test's own among it."""
        return [
            each
            for each in self._seen + self._observed()
            if paho.topic_matches_sub(topic_filter, each.topic)
        ]

    def published(self, topic, payload=None, within_s=10, device=None):
        """
        Return the next Message on `topic` (a topic filter, too), the next after that of the last
        call for it; with `payload` (str, bytes, number) the next that has it, others are passed
        over.

        device  the App, for the failure's message, and to fail at once when it has ended

        Raises AssertionError when there is none in time.
        """
        __tracebackhide__ = True
        wanted = payload.encode() if isinstance(payload, str) else payload
        if not isinstance(wanted, (bytes, bytearray, type(None))):
            wanted = str(wanted).encode()

        def found():
            came = self.messages(topic)
            for number in range(self._asserted[topic], len(came)):
                if wanted in (None, came[number].payload):
                    self._asserted[topic] = number + 1
                    return [came[number]]
            return None

        def ended():
            over = device.ended() if device else ""
            if over and self._broker.running:
                self.settle()
            return over

        def meanwhile():
            came = [str(each) for each in self.messages()[-failing.LAST :]]
            return failing.indented("published so far:", came) or "nothing was published"

        what = "" if payload is None else f"{wanted!r} "
        return wait(
            found,
            within_s,
            f"{what or 'nothing '}was {'not ' if what else ''}published to {topic!r}",
            meanwhile,
            device.tail if device else str,
            ended=ended,
        )[0]

    def wait_for_connection(self, within_s=10, device=None, after=0):
        """
        Return when the app is connected: its CONNECT was accepted, on a connection whose number is
        beyond `after`.
        """
        __tracebackhide__ = True

        def connected():
            packets = self.proxy.seen("CONNACK", "down")
            return any(each.connection > after and each.raw[3] == 0 for each in packets)

        def before():
            lives = after and self.proxy.open and self.proxy.connections == after
            return "its connection from before the fault is still there" if lives else ""

        more = device.tail if device else str
        ended = device.ended if device else str
        wait(connected, within_s, "the app did not connect", before, more, ended=ended)
