"""The second client, on a PC: paho-mqtt."""

import asyncio
import contextlib
import json
import ssl
from collections import Counter
from importlib.metadata import version

import paho.mqtt.client as paho

from .processes import ADDRESS

TOPICS = "devices/greenhouse/"  # what mqttls's ACL lets the device use


class Watcher:
    """
    It counts what the device publishes, and sends it commands.

    folder   Path with ca.crt, cert.crt, key.pem
    on_news  called with (topic, text) of what is not a reading

    connected  bool
    readings   Counter: number of a reading -> how often it came
    """

    name = f"paho-mqtt {version('paho-mqtt')}"

    def __init__(self, port, folder, on_news):
        self.connected = False
        self.readings = Counter()
        self._on_news = on_news
        self._loop = asyncio.get_running_loop()
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="watcher", clean_session=False
        )
        context = ssl.create_default_context(cafile=folder / "ca.crt")
        context.load_cert_chain(folder / "cert.crt", folder / "key.pem")
        client.tls_set_context(context)
        client.reconnect_delay_set(0.2, 0.2)
        client.on_connect = lambda *_: client.subscribe(f"{TOPICS}#", 1)
        client.on_subscribe = lambda *_: self._later(self._set_connected, True)
        client.on_disconnect = lambda *_: self._later(self._set_connected, False)
        client.on_message = lambda _, __, message: self._later(self._take, message)
        client.connect_async(ADDRESS, port)
        client.loop_start()

    def _later(self, function, argument):
        """From paho's thread into ours."""
        with contextlib.suppress(RuntimeError):  # ours has ended
            self._loop.call_soon_threadsafe(function, argument)

    def _set_connected(self, yes):
        self.connected = yes

    def _take(self, message):
        text = message.payload.decode(errors="replace")
        if message.topic == TOPICS + "temperature":
            self.readings[json.loads(text)["n"]] += 1
        else:
            self._on_news(message.topic, text)

    def send(self, topic, text):
        self._client.publish(topic, text, qos=1)

    def end(self):
        self._client.disconnect()
        self._client.loop_stop()
