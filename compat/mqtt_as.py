"""
The interface of mqtt_as 0.8, for programs written for it, on top of mqtt_as_tls:
`from mqtt_as import MQTTClient, config`. What differs: docs/migrating.md.
"""

import asyncio
import sys
import time
from binascii import hexlify

from mqtt_as_tls import MQTTClient as _Client
from mqtt_as_tls import MQTTError
from mqtt_as_tls.errors import printable

VERSION = (0, 8, 3)  # of mqtt_as, whose interface this is
ESP32 = sys.platform == "esp32"
ESP8266 = sys.platform == "esp8266"
PYBOARD = sys.platform == "pyboard"
RP2 = sys.platform == "rp2"

_PINGREQ = b"\xc0\0"


def _print(text, more, _):
    print(printable("mqtt_as: %s%s" % (text, more)))


async def _nothing(*_):
    pass


def _own_id():
    try:
        from machine import unique_id

        return hexlify(unique_id())
    except (ImportError, AttributeError):
        return None  # a PC: mqtt_as_tls makes one


config = {
    "client_id": _own_id(),
    "server": None,
    "port": 0,
    "user": "",
    "password": "",
    "keepalive": 60,
    "ping_interval": 0,
    "ssl": False,
    "ssl_params": {},
    "response_time": 10,
    "clean_init": True,
    "clean": True,
    "max_repubs": 4,
    "will": None,
    "subs_cb": lambda *_: None,
    "wifi_coro": _nothing,
    "connect_coro": _nothing,
    "ssid": None,
    "wifi_pw": None,
    "queue_len": 0,
    "gateway": False,
    "mqttv5": False,
    "mqttv5_con_props": None,
}


def _text(value):
    # of a topic, a name, a client id: str or bytes-like
    if not isinstance(value, (str, bytes, bytearray, memoryview)):
        raise TypeError("str or bytes, not a %s" % type(value).__name__)
    return value if isinstance(value, str) else bytes(value).decode()


def _link(ssid, password):
    if ssid is None:
        return None  # something else keeps the network up
    try:
        from network import WLAN  # noqa: F401
    except ImportError:
        return None  # a PC: the network is up
    from mqtt_as_tls import WiFi

    return WiFi(_text(ssid), _text(password) if password else None)


def _tls(ssl, params):
    # TLS as config["ssl"] and config["ssl_params"] ask for it; what verifies nothing is told
    if not ssl or hasattr(ssl, "wrap"):  # TLS(...) of mqtt_as_tls
        return ssl or None
    from mqtt_as_tls import TLS

    params = dict(params)
    params.pop("do_handshake", None)
    if params.pop("server_side", False):
        raise ValueError("ssl_params: server_side is for servers: leave it out")
    ca = params.pop("cadata", None)
    reqs = params.pop("cert_reqs", None)
    try:
        if hasattr(ssl, "wrap_socket"):  # an SSLContext
            tls = TLS.unverified(ntp=None, server_hostname=params.get("server_hostname"))
            tls.context = ssl
            tls.verified = ssl.verify_mode == 2
            why = "the SSLContext has no verify_mode = CERT_REQUIRED"
            cure = "set it, and load_verify_locations()"
        elif ca and reqs != 0:
            tls = TLS(ca, **params)
        elif reqs:
            raise ValueError(
                'ssl_params: cert_reqs without "cadata": give the certificate of the CA'
            )
        else:
            tls = TLS.unverified(ntp=None, **params)
            why = 'ssl_params has no "cadata"'
            cure = (
                'config["ssl_params"]["cadata"] = certificate of the CA that signed the broker\'s'
            )
            if ca:
                why = "ssl_params has cert_reqs=CERT_NONE"
                cure = "leave cert_reqs out"
    except TypeError as e:
        raise TypeError(
            "ssl_params: %s; it takes cadata, cert, key, server_hostname, cert_reqs" % e
        )
    if not tls.verified:
        print(
            "mqtt_as: TLS WITHOUT VERIFICATION: %s: whoever is in between can read and change"
            " everything -> %s" % (why, cure)
        )
    return tls


def _named(properties):
    # properties by number, as mqtt_as takes them, by the names of mqtt_as_tls
    from mqtt_as_tls.properties import _NAMES

    said = {}
    for key, value in (properties or {}).items():
        if isinstance(key, int):
            key = _NAMES[key] if key < len(_NAMES) else ""
        if key == "user_property" and isinstance(value, dict):
            value = list(value.items())
        said[key] = value
    return said


def _numbered(properties):
    # the other way round; None without any
    from mqtt_as_tls.properties import _NAMES

    said = {}
    for name, value in (properties or {}).items():
        if name == "user_property":
            value = dict(value)
        elif name == "subscription_identifier":
            value = value[-1]
        said[_NAMES.index(name)] = value
    return said or None


def _arguments(config, log):
    # those of mqtt_as_tls.MQTTClient
    if config.get("gateway"):
        raise ValueError('config["gateway"]: ESP-NOW is not here: keep mqtt_as for the gateway')
    if config["server"] is None:
        raise ValueError('config["server"] is None: give the name or the address of the broker')
    user = config["user"] or None
    keepalive = config["keepalive"] or 80  # 0: mqtt_as gives up after four pings of 20 s
    if config["ping_interval"]:  # a ping is sent after three quarters of it
        keepalive = min(keepalive, config["ping_interval"] * 4 / 3)
    response = max(1, min(config["response_time"], 600))
    arguments = {
        "host": config["server"],
        "port": config["port"] or None,
        "link": _link(config["ssid"], config["wifi_pw"]),
        "tls": _tls(config["ssl"], config["ssl_params"]),
        "client_id": None if config["client_id"] is None else _text(config["client_id"]),
        "user": user and _text(user),
        "password": config["password"] if user else None,
        "log": log,
        "clean_start": config["clean"],
        "keepalive_s": max(1, keepalive),
        "ack_timeout_s": response,
        "connect_timeout_s": min(3 * response, 600),
        "handler_timeout_s": 86400,  # a message waits until the program asks for it
    }
    if config["will"]:
        from mqtt_as_tls import Will

        topic, msg, *more = config["will"]
        retain, qos = more or (False, 0)
        arguments["will"] = Will(_text(topic), msg, qos, retain, goodbye=False)
    if config.get("mqttv5"):
        said = _named(config.get("mqttv5_con_props"))
        said.setdefault("session_expiry_interval", 0)
        if config["clean"]:
            said["session_expiry_interval"] = 0  # a session that nobody comes back to
        arguments["protocol"] = 5
        arguments["properties"] = said
    arguments.update(config.get("mqtt_as_tls") or {})
    return arguments


class Queue:
    """
    `async for topic, msg, retained in client.queue`, with MQTT 5 `..., properties`. A message is
    acknowledged when the next one is asked for, by any task.

    discards  int, QoS 0 messages that gave way because the program was behind
    """

    def __init__(self, client, with_properties):
        self._client = client
        self._with_properties = with_properties
        self._messages = client.messages()
        self._lock = asyncio.Lock()

    @property
    def discards(self):
        return self._client.stats.dropped

    def __aiter__(self):
        return self

    async def __anext__(self):
        async with self._lock:
            while True:
                try:
                    message = await self._messages.__anext__()
                    break
                except StopAsyncIteration:  # stopped: until it is started again
                    await asyncio.sleep_ms(100)
        found = (message.topic.encode(), message.payload, message.retain)
        if self._with_properties:
            found += (_numbered(message.properties),)
        return found


class MQTTClient:
    """
    The client of mqtt_as.

    config  dict with the entries of `config` above; besides these

            "mqtt_as_tls"  dict of arguments of mqtt_as_tls.MQTTClient, which win

    up, down  asyncio.Event  and  queue  Queue: with config["queue_len"] over 0

    Raises ValueError and TypeError, with the remedy, for what cannot be carried over.
    """

    DEBUG = False

    def __init__(self, config):
        self.mqttv5 = bool(config.get("mqttv5"))
        self._client = client = _Client(**_arguments(config, self._log))
        self._respond_ms = int(config["response_time"] * 1000)
        self._forget = config["clean_init"] and not config["clean"] and not self.mqttv5
        if self.mqttv5 and not (config["clean_init"] or config["clean"]):
            client.session.discard = None  # the session of an earlier program goes on
        self._is_up = False
        self._renewed = set()  # filters that this connection subscribed by itself
        self.queue = Queue(client, self.mqttv5)
        self._follower = self._callback = None
        if config["queue_len"] > 0:
            self.up = asyncio.Event()
            self.down = asyncio.Event()
        else:
            self._callback = config["subs_cb"]
            self._on_wifi = config["wifi_coro"]
            self._on_connect = config["connect_coro"]

    @property
    def REPUB_COUNT(self):
        """int, messages sent again"""
        return self._client.stats.resent

    @property
    def topic_alias_maximum(self):
        """int, what the broker said (MQTT 5), or 0"""
        return (self._client.properties or {}).get("topic_alias_maximum", 0)

    def dprint(self, msg, *args):
        """Print `msg % args` when DEBUG is set. A subclass may do something else."""
        if self.DEBUG:
            print(msg % args)

    def _log(self, line):
        self.dprint("%s", line)

    # The connection

    async def connect(self, *, quick=False):
        """
        Connect; one attempt, whose failure is an OSError. From then on outages are seen to.

        quick  without meaning: no connection is watched for 5 s before it is used
        """
        client = self._client
        if self._forget and not client.running:
            client.clean_start = True
            try:
                await self._start(False)
                await client.disconnect()
            finally:
                client.clean_start = False
        await self._start(True)

    async def _start(self, follow):
        client = self._client
        connects = client.stats.connects
        before = client.error
        if not client.running:
            before = None
            await client.__aenter__()
            if follow:
                if self._follower:  # of a run that ended without disconnect()
                    self._follower.cancel()
                self._follower = asyncio.create_task(self._follow(client.events()))
        while not client.connected and client.stats.connects == connects:
            error = client.error
            if error is not before:
                await client.disconnect()
                cure = getattr(error, "cure", "")
                raise OSError(-1, "%s%s" % (error, cure and " -> " + cure))
            await asyncio.sleep_ms(20)
        await asyncio.sleep_ms(0)  # _follow goes first

    async def _follow(self, events):
        # one start of the client: tell the program of ups and downs, hand it its messages
        from mqtt_as_tls import Connected, Disconnected

        calls = self._callback and asyncio.create_task(self._call())
        first = True
        try:
            async for event in events:
                if isinstance(event, Connected):
                    self._renewed = set()
                    if first or not event.session_present:
                        known = self._client.dispatcher.subscriptions
                        self._renewed = {sub.filter for sub in known}
                    first = False
                    self._tell(True)
                elif isinstance(event, Disconnected) and self._is_up:
                    self._tell(False)
        finally:
            if calls:
                calls.cancel()

    def _tell(self, is_up):
        self._is_up = is_up
        if not self._callback:
            (self.up if is_up else self.down).set()
            return
        asyncio.create_task(self._on_wifi(is_up))
        if is_up:
            asyncio.create_task(self._on_connect(self))

    async def _call(self):
        async for message in self.queue:
            try:
                self._callback(*message)
            except Exception as e:
                from mqtt_as_tls.texts import failed

                failed(self._client, "subs_cb", e, _print)

    async def disconnect(self):
        """Say goodbye and stop; connect() starts again. The will is not published."""
        self._is_up = False
        await self._client.disconnect()

    def close(self):
        """Stop without a goodbye, and leave the Wi-Fi: for the `finally` of a program."""
        self._is_up = False
        if self._client.running:
            from mqtt_as_tls.lifecycle import stop

            stop(self._client)
        wlan = getattr(self._client.link, "wlan", None)  # of WiFi
        try:
            if wlan:
                wlan.disconnect()
                wlan.active(False)
        except OSError:
            pass

    def isconnected(self):
        """Return whether there is a connection to the broker."""
        return self._client.connected

    async def broker_up(self):
        """Return whether the broker answers a ping within config["response_time"]."""
        client = self._client
        if not client.connected:
            return False
        seen = client.stats.bytes_in
        client.connection.transport.send(_PINGREQ)
        end = time.ticks_add(time.ticks_ms(), self._respond_ms)
        while client.stats.bytes_in == seen:
            if not client.connected or time.ticks_diff(end, time.ticks_ms()) <= 0:
                return False
            await asyncio.sleep_ms(20)
        return True

    async def wan_ok(self, packet=None):
        """Return whether a name server in the Internet (8.8.8.8) answers."""
        from mqtt_as_tls.dns import resolve

        try:
            return bool(self._client.connected and await resolve("www.google.com", ("8.8.8.8",)))
        except MQTTError:
            return False

    # Messages

    async def publish(self, topic, msg, retain=False, qos=0, properties=None):
        """
        Publish; offline, and before connect(), it waits. Returns when QoS 1 is acknowledged.

        Arguments as in mqtt_as; `qos` may be 2 too. Raises what mqtt_as_tls' publish raises.
        """
        options = {"qos": qos, "retain": bool(retain)}
        await self._insist("publish", properties, _text(topic), msg, **options)

    async def subscribe(self, topic, qos=0, properties=None):
        """
        Subscribe; it is renewed after each connect whether the program asks again or not.

        Raises RefusedError when the broker refuses.
        """
        topic = _text(topic)
        known = self._client.dispatcher.find(topic)
        if topic in self._renewed:
            self._renewed.discard(topic)
        elif known and known.granted is not None:  # ask anew, for what the broker retains
            known.granted = None
            known.asked = False
        await self._insist("subscribe", properties, topic, qos)

    async def unsubscribe(self, topic, properties=None):
        """Take a subscription back."""
        await self._insist("unsubscribe", properties, _text(topic))

    async def _insist(self, name, properties, *args, **options):
        client = self._client
        if properties and self.mqttv5:  # else left out, as mqtt_as does
            options["properties"] = _named(properties)
        while True:
            while not client.running:
                await asyncio.sleep_ms(100)
            try:
                return await getattr(client, name)(*args, **options)
            except (MQTTError, RuntimeError):
                if client.running:
                    raise
