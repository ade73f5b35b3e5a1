"""
What MQTT 5 adds to the client: properties on every packet, the limits that the broker sets, topic
aliases, enhanced authentication, the broker's DISCONNECT. Imported with protocol=5 only.
"""

import asyncio
import time

from micropython import const

from . import load, packet5
from .errors import ConnectError, MQTTError, ProtocolError, RefusedError
from .properties import encode, length, pairs, size
from .reasons import words
from .router import wrong

_CONNECT = const(0x10)
_PUBLISH = const(0x30)
_SUBSCRIBE = const(0x82)
_DISCONNECT = const(0xE0)
_AUTH = const(0xF0)

_EXPIRY_S = const(3600)
_FILTERS = const(8)
_TICKS = const(0x3FFFFFFF)
_LONGEST_S = const(1_000_000)  # that a message waits on flash, less than those
_EXPIRY = const("message_expiry_interval")
# reason codes that a client may put into PUBACK and PUBREC (5.0 section 3.4.2.1)
_ACK_CODES = const((0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99))
# and into DISCONNECT (section 3.14.2.1)
_END_CODES = const(b"\x00\x04\x80\x81\x82\x83\x90\x93\x94\x95\x96\x97\x98\x99")


class Wire:
    """
    The packets of MQTT 5 for one client: what `packet` is for MQTT 3.1.1, and what the broker said
    about itself on this connection.

    client   MQTTClient
    options  dict; session_expiry_s, properties, auth, topic_aliases are taken out

    filters  int, the most topic filters in one SUBSCRIBE
    ids      dict, filter: its subscription identifier, see overlap
    lasts    bool, the session outlives its connection, as CONNECT asks for it
    goodbye_properties  list of pairs, of the will's payload when the client itself publishes it

    Raises TypeError and ValueError for options that cannot be taken.
    """

    subscribe = staticmethod(packet5.subscribe)
    unsubscribe = staticmethod(packet5.unsubscribe)
    encode = staticmethod(encode)

    def __init__(self, client, options):
        self._client = client
        self._auth = options.pop("auth", None)
        self._most_aliases = most = options.pop("topic_aliases", 0)
        given = pairs(options.pop("properties", None))
        expiry_s = options.pop("session_expiry_s", None)
        for name, value, high in (
            ("topic_aliases", most, 65535),
            ("session_expiry_s", 0 if expiry_s is None else expiry_s, 0xFFFFFFFF),
        ):
            if not isinstance(value, int) or not 0 <= value <= high:
                wrong("number", name, value, 0, high)
        if self._auth is not None:
            try:
                method, step = self._auth
                if not callable(step):
                    raise ValueError
            except (TypeError, ValueError):
                wrong("auth", self._auth)
            given.append(("authentication_method", method))
        names = [name for name, _ in given]
        self._sized = "maximum_packet_size" in names  # the app's own
        if "authentication_data" in names or "authentication_method" in names and not self._auth:
            raise ValueError("authentication: give auth=(method, step function)")
        for name, value in (
            ("session_expiry_interval", _EXPIRY_S if expiry_s is None else expiry_s),
            ("maximum_packet_size", client.max_packet),
        ):
            if name not in names:
                given.append((name, value))
            elif name == "session_expiry_interval" and expiry_s is not None:
                raise ValueError("session_expiry_s and a property of that name: give one")
        encode(given, _CONNECT)
        self._pairs = given
        said = dict(given)
        self._alias_maximum = said.get("topic_alias_maximum") or 0
        self.lasts = bool(said.get("session_expiry_interval"))
        self._limits({})
        self._will = b""
        self.goodbye_properties = None
        will = client.will
        if will:
            own = pairs(will.properties)
            self.goodbye_properties = [p for p in own if p[0] != "will_delay_interval"]
            if will.delay_s:
                own.append(("will_delay_interval", will.delay_s))
            self._will = encode(own, 0)
        self._reauth = None
        self.ids = {}
        self._again = []  # filters that are asked for again, and that the broker may have
        self._wild = False  # one has a wildcard

    # No Receive Maximum is announced: there are brokers that drop what exceeds it (FlashMQ), or do
    # not keep to it (mosquitto 2.0.11). max_backlog bounds what is taken in, by not reading on.

    def _limits(self, said):
        self._maximum_qos = said.get("maximum_qos", 2)
        self._retain = said.get("retain_available", 1)
        self._maximum_packet_size = n = said.get("maximum_packet_size", 1 << 28)
        self.filters = _FILTERS if n > 65535 else 1
        self._aliases = {}
        self._free_aliases = min(self._most_aliases, said.get("topic_alias_maximum", 0))

    # What `packet` has too

    def connect(self, *fields):
        """Check and keep the fields of CONNECT, as in packet5.connect, for `connect_packet`."""
        self.fields = fields
        return packet5.connect(*fields, encode(self._pairs, _CONNECT), self._will)

    def publish(self, topic, payload, qos, retain, properties=None, more=0):
        """As packet5.publish; `properties` dict, list of pairs, or None."""
        if not properties:
            return packet5.publish(topic, payload, qos, retain, b"", more)
        properties = pairs(properties)
        for i, (name, _) in enumerate(properties):
            if name == _EXPIRY:
                # where `_count_down` looks for it
                first = int(properties[0][0] == "payload_format_indicator")
                properties.insert(first, properties.pop(i))
            elif name in ("topic_alias", "subscription_identifier"):
                raise ValueError(
                    "%s: not in a PUBLISH of an app%s"
                    % (name, ", use topic_aliases=" if name == "topic_alias" else "")
                )
        return packet5.publish(topic, payload, qos, retain, encode(properties, _PUBLISH), more)

    def ack(self, first, packet_id, code=0, properties=None):
        """As packet5.ack. What a handler set wrongly is reported, and left out."""
        if not code and not properties:
            return packet5.ack(first, packet_id)
        data = b""
        what = "ack_code"
        try:
            if first < 0x60 and (code not in _ACK_CODES or not isinstance(code, int)):
                bad = code
                code = 131  # implementation specific error
                wrong("code", bad, what, "PUBACK (5.0 section 3.4.2.1)")
            what = "ack_properties"
            data = encode(properties, first)
        except (TypeError, ValueError) as e:
            self._client.failed("%s", what, e)
        return self._short(packet5.ack, (first, packet_id, code), data)

    def _short(self, encoder, fields, data):
        # without the properties that the broker has no room for
        buf = encoder(*fields, data)
        return buf if len(buf) <= self._maximum_packet_size else encoder(*fields)

    def disconnect(self, code, properties):
        """
        As packet5.disconnect; ValueError for a code that no client may send, and for a session
        expiry where CONNECT had none ([MQTT-3.14.2-1], 5.0 section 3.14.2.2.2).
        """
        if not isinstance(code, int) or code > 255 or code not in _END_CODES:
            wrong("code", code, "reason", "DISCONNECT (5.0 section 3.14.2.1)")
        if dict(pairs(properties)).get("session_expiry_interval") and not self.lasts:
            raise ValueError("session_expiry_interval: CONNECT had none (3.14.2.2.2)")
        return self._short(packet5.disconnect, (code,), encode(properties, _DISCONNECT))

    def Decoder(self, max_packet):
        """Return a packet5.Decoder for a new connection."""
        return packet5.Decoder(max_packet, self._alias_maximum)

    # Connecting

    async def connect_packet(self):
        """Return CONNECT: the client id may be one that the broker assigned."""
        client = self._client
        own = self._pairs
        if client.stream_in and not self._sized:  # payloads larger than memory are welcome
            own = [pair for pair in own if pair[0] != "maximum_packet_size"]
        if self._auth:
            own = own + [("authentication_data", await self._step(None))]
        fields = (client.client_id.encode(),) + self.fields[1:]
        return packet5.connect(*fields, encode(own, _CONNECT), self._will)

    async def accepted(self, decoder):
        """
        CONNACK came: take over what the broker says about itself and the client. Returns the
        keepalive in seconds that is to be kept to.
        """
        client = self._client
        self._reauth = None
        said = decoder.properties or {}
        client.properties = said
        self._limits(said)
        client.session.max_inflight = min(
            client.max_inflight, said.get("receive_maximum", client.max_inflight)
        )
        own = client.client_id
        assigned = said.get("assigned_client_identifier", own)
        if not own:
            client.client_id = assigned
        elif own != assigned:
            raise ProtocolError("a client id that nobody asked for (5.0 section 3.2.2.3.7)", 130)
        if self._auth:
            await self._done(said)
        return said.get("server_keep_alive", client.keepalive_s)

    async def _done(self, said):
        self._same_method(said)
        if "authentication_data" in said:
            await self._step(said["authentication_data"])

    async def _step(self, data):
        result = self._auth[1](data)
        if hasattr(result, "send"):
            result = await result
        return result

    def _same_method(self, said):
        method = said.get("authentication_method")
        if not self._auth or method != self._auth[0]:
            raise ProtocolError("AUTH for a method that nobody began [MQTT-4.12.0-5]")

    async def challenged(self, t, decoder):
        """AUTH came while connecting, or while authenticating again: answer it."""
        if decoder.reason() != 0x18:
            raise ProtocolError("AUTH that does not continue (5.0 section 3.15.2.1)")
        said = decoder.properties or {}
        self._same_method(said)
        # None stands for a beginning
        self._answer(t, 0x18, await self._step(said.get("authentication_data", b"")))

    def _answer(self, t, code, data):
        own = [("authentication_method", self._auth[0]), ("authentication_data", data)]
        t.send(packet5.auth(code, encode(own, _AUTH)))

    # Connected

    async def disconnect_or_auth(self, t, decoder, kind):
        """AUTH or DISCONNECT (`kind`) came."""
        code = decoder.reason()
        if kind != _AUTH:
            error = RefusedError(
                "the broker disconnected: " + words(code, decoder.properties), code
            )
            error.properties = decoder.properties
            raise error
        if not self._reauth:
            raise ProtocolError("AUTH that nobody asked for (5.0 section 4.12.1)")
        try:
            if code:
                await self.challenged(t, decoder)
                return
            said = decoder.properties or {}
            if said:
                await self._done(said)
        except ProtocolError:
            raise
        except Exception:  # the step function does not believe the broker ([MQTT-4.12.1-2])
            t.send(packet5.disconnect(128))
            raise
        self._reauth.set()
        self._reauth = None

    def send_disconnect(self, t, error):
        """Tell the broker which rule it broke, before the connection is closed (4.13.1)."""
        if not t.blocked:
            t.send(packet5.disconnect(error.code or 130))

    @staticmethod
    def expires(properties):
        """
        Return from when on the message expiry counts (ticks) of a message that is made now with
        these properties; None: it has none.
        """
        return time.ticks_ms() & _TICKS if _EXPIRY in dict(pairs(properties)) else None

    @staticmethod
    def dated(out):
        """Return the packet of `out` as it is stored: behind what expires its time (4 bytes)."""
        if out.since is None:
            return out.packet
        waited_s = (time.ticks_ms() - out.since & _TICKS) // 1000
        return out.packet + (int(time.time()) - waited_s & 0xFFFFFFFF).to_bytes(4, "big")

    @staticmethod
    def restored(buf):
        """Return the packet that was stored as `buf`, and from when on its expiry counts."""
        n = length(buf, 1, 5)
        n += 1 + size(n)
        if n == len(buf):
            return buf, None
        then = int.from_bytes(buf[n:], "big")
        waited_s = int(time.time()) - then
        if waited_s < 0 or time.gmtime(then)[0] < 2026:  # the clock is not set, or was not
            waited_s = 0
        return buf[:n], time.ticks_ms() - min(waited_s, _LONGEST_S) * 1000 & _TICKS

    @staticmethod
    def _count_down(out):
        # take the time that it waited off its message expiry (3.3.2.3.3); return what is left
        waited_s = (time.ticks_ms() - out.since & _TICKS) // 1000
        buf = out.packet
        at = packet5.first_property(buf, out.qos)
        at += 1 if buf[at] == 2 else 3  # behind payload_format_indicator
        left = int.from_bytes(buf[at : at + 4], "big") - waited_s
        if left <= 0 and out.id:
            left = 1  # the broker may have it: sent it has to be
        if left > 0:
            buf[at : at + 4] = left.to_bytes(4, "big")
            out.aged(waited_s)
        return left

    def sending(self, out):
        """
        Return the bytes to be sent for the outgoing message `out`, the first that waits; None when
        it expired, or the broker said that it takes no such message: it has failed then.
        """
        if out.since is not None and self._count_down(out) <= 0:
            self._fail(out, MQTTError("it expired (message_expiry_interval) while it waited"))
            return None
        total = len(out.packet) + out.length
        code = 0
        if out.qos > self._maximum_qos:
            code = 155
        elif out.packet[0] & 1 and not self._retain:
            code = 154
        elif total > self._maximum_packet_size:
            code = 149
        if code:
            self._fail(out, RefusedError("the broker takes no such message: " + words(code), code))
            return None
        if out.qos or not (self._free_aliases or self._aliases):
            return out.packet
        return self._aliased(out.packet)

    def _fail(self, out, error):
        load("texts").undelivered(self._client, out, error)

    def _aliased(self, buf):
        topic = packet5.topic(buf)
        alias = self._aliases.get(topic)
        if alias is not None:
            return packet5.aliased(buf, alias, False)
        if not self._free_aliases or len(buf) + 5 > self._maximum_packet_size:
            return buf
        alias = len(self._aliases) + 1
        buf = packet5.aliased(buf, alias, True)
        self._aliases[topic] = alias  # now that there was memory to tell it
        self._free_aliases -= 1
        return buf

    def subscription(self, sub, options):
        """
        Set the subscription options of `sub` (5.0 section 3.8.3.1).

        options  dict with no_local, retain_as_published, retain_handling, properties
        """
        options = dict(options)
        handling = options.pop("retain_handling", 0)
        if not isinstance(handling, int) or not 0 <= handling < 3:
            wrong("number", "retain_handling", handling, 0, 2)
        flags = handling << 4
        if options.pop("retain_as_published", False):
            flags |= 8
        if options.pop("no_local", False):
            if sub.filter.startswith("$share/"):
                raise ValueError("no_local: not with a shared subscription [MQTT-3.8.3-4]")
            flags |= 4
        properties = options.pop("properties", None)
        data = encode(properties, _SUBSCRIBE)
        for name in options:
            wrong("unknown", name)
        number = dict(pairs(properties)).get("subscription_identifier", 0)
        if number:
            subs = self._client.dispatcher.subscriptions
            load("overlap").given(self.ids, number, sub, subs)
        if number or sub.filter in self.ids:
            self.ids[sub.filter] = -number
        if flags != sub.flags or data != sub.properties:
            sub.flags = flags
            sub.properties = data
            sub.granted = None
            sub.asked = False

    def declared(self, sub, subs):
        """There is a new Subscription `sub` besides those in the list `subs`."""
        name = sub.filter
        if "+" in name or "#" in name or name.startswith("$share/"):
            self._wild = True
        if self._wild and subs:
            load("overlap").declared(self.ids, self._again, sub, subs)

    def _identifies(self, sub):
        return (
            self.ids.get(sub.filter, -1) >= 0
            and self._client.properties.get("subscription_identifier_available", 1)
            and len(sub.data) + len(sub.properties) + 17 <= self._maximum_packet_size
        )

    def apart(self, sub, part):
        """Return whether `sub` cannot be asked for in one SUBSCRIBE with `part` (list)."""
        if not part:
            return False
        if sub.properties or part[0].properties:
            return True  # they are for all filters of a SUBSCRIBE
        own = self._identifies(sub)
        if own != self._identifies(part[0]):
            return True
        return own and load("overlap").apart(sub, part)

    def identified(self, part, filters):
        """
        Return the properties (bytes) of the SUBSCRIBE for `part` (list of Subscriptions).

        filters  list of what it asks for: changed for those that the broker may have, which sends
                 no retained messages for them (5.0 section 3.8.3.1)
        """
        for i, sub in enumerate(part):
            if sub.filter in self._again:
                self._again.remove(sub.filter)
                if not filters[i][1] & 0x30:
                    filters[i] = (sub.data, filters[i][1] | 0x10)
        data = part[0].properties
        if self._identifies(part[0]):
            number = load("overlap").identify(self.ids, part)
            data += encode([("subscription_identifier", number)], _SUBSCRIBE)
        return data

    def wanting(self, subs, said):
        """
        Return whose copy it is that came with the properties `said` (dict, or None), as (list of
        those of `subs`, which match its topic, ...): see overlap.
        """
        if not said or not self.ids or "subscription_identifier" not in said:
            return subs, None
        return load("overlap").wanting(self.ids, subs, said)

    def offered(self, dispatcher, message):
        """Return whether `message`, which has properties, is given to those whose copy it is."""
        if not self.ids or "subscription_identifier" not in message.properties:
            return False
        load("overlap").offer(self.ids, dispatcher, message)
        return True

    def fit(self, size):
        """Raise RefusedError where a packet of `size` bytes is more than the broker takes."""
        if size > self._maximum_packet_size:
            raise RefusedError("the broker takes no such packet: " + words(149), 149)

    def unavailable(self, sub):
        """
        Return whether the broker said that it has no such subscription as `sub`; it is refused
        then, without asking.
        """
        said = self._client.properties
        code = 0
        if len(sub.data) + len(sub.properties) + 12 > self._maximum_packet_size:
            code = 149
        elif sub.filter.startswith("$share/") and not said.get("shared_subscription_available", 1):
            code = 158
        elif (
            sub.properties
            and self.ids.get(sub.filter, 0) < 0
            and not said.get("subscription_identifier_available", 1)
        ):
            code = 161
        elif ("+" in sub.filter or "#" in sub.filter) and not said.get(
            "wildcard_subscription_available", 1
        ):
            code = 162
        if not code:
            return False
        refused = load("texts").refused
        sub.granted = code
        sub.asked = True  # in a way
        error = RefusedError("subscription to %r: %s" % (sub.filter, words(code)), code)
        refused(self._client, sub, error)
        return True


def reauthenticate(client):
    """
    `client.reauthenticate()`: authenticate once more on this connection (5.0 section 4.12.1); the
    awaited call returns when the broker agrees. A cancellation and the time-out end the waiting
    only.

    Raises ValueError without `auth`, RuntimeError when not connected or when it is under way
    already; asyncio.TimeoutError after ack_timeout_s; what ended the connection (RefusedError), as
    a refusal does.
    """
    five = client.five
    if not five or not five._auth:
        raise ValueError("reauthenticate: MQTT 5 only: give MQTTClient auth=(method, step)")
    if not client.connected:
        raise RuntimeError("reauthenticate: not connected")
    if five._reauth:
        raise RuntimeError("reauthenticate: under way already")
    return _reauthenticate(client, five)


async def _reauthenticate(client, five):
    connection = client.connection
    t = connection.transport
    five._reauth = done = asyncio.Event()
    asked = False
    try:
        data = await five._step(None)
        if connection.is_up():
            five._answer(t, 0x19, data)
            asked = True
        end = time.ticks_add(time.ticks_ms(), int(client.ack_timeout_s * 1000))
        while not done.is_set():
            if not connection.is_up():
                raise client.error or ConnectError("the client was stopped")
            if time.ticks_diff(end, time.ticks_ms()) <= 0:
                raise asyncio.TimeoutError
            await asyncio.sleep_ms(20)
    finally:
        if not asked and five._reauth is done:  # else the broker's answer ends it
            five._reauth = None
