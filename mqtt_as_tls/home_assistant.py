"""
A device and its entities in Home Assistant: MQTT discovery, states out, commands in. Imported by
apps that have one: `from mqtt_as_tls.home_assistant import HomeAssistant`.

What is sent follows Home Assistant's documentation: MQTT ("Device discovery payload", "Birth and
last will messages") and the page of each kind of entity.
"""

import asyncio
import json
import random
import re

from . import __version__, load
from .router import topic, wrong
from .stream_out import Parts


def _check(id):
    if not re.match("[A-Za-z0-9_-]+$", str(id)):
        wrong("entity", "id", id)


class Entity:
    """
    What Home Assistant shows; made by the methods of HomeAssistant.

    kind, id, topic  str: what it is, its name, where its states are published
    value            the last state, or None
    """

    value = None

    def __init__(self, ha, kind, id, handler, options):
        self.kind = kind
        self.topic = at = ha.home + id
        self.client = ha.client
        self.handler = handler
        number = kind == "number"
        self.min = low = options.get("min", int(number))
        self.max = high = options.get("max", 100 if number else 255)
        self.step = step = options.get("step", 1)
        if not (low <= high and step >= 0.001 and (number or low >= 0 and high <= 255)):
            wrong("entity", "range", (low, high, step))
        value = options.pop("value", None)
        if value is not None:
            self._note(value)
        if "unit" in options:
            options["unit_of_measurement"] = options.pop("unit")
        config = {"p": kind, "name": id, "uniq_id": ha.id + "." + id, "qos": 1}
        config.update(options)
        self.retain = "expire_after" not in options  # it would look fresh later on
        if kind != "button":
            config["stat_t"] = at
        if handler:
            config["cmd_t"] = at = at + "/set"
        ha._add(id, self, config)
        if handler:
            ha.client.on(at, 1)(self._asked)

    def set(self, value):
        """Publish a state; to be awaited, as `publish` is."""
        return self.client.publish(self.topic, self._note(value), qos=1, retain=self.retain)

    def _note(self, value):
        """Keep a state; return its payload."""
        state = self._state(value)
        if state is None:
            wrong("entity", self, value)
        self.value = value
        return state

    def _state(self, value):
        """Return the payload of a state, or None for what is none of this entity."""
        kind = self.kind
        if kind not in "number sensor text":
            return {0: "OFF", 1: "ON"}.get(value)
        state = value if kind == "text" else str(value)
        number = kind == "number"
        if not self.min <= (value if number else len(state)) <= self.max:
            return None
        if number:
            steps = (value - self.min) / self.step
            if abs(steps - round(steps)) > 0.05:  # floats may have 32 bits
                return None
        return state

    async def _asked(self, message):
        kind = self.kind
        data = message.payload
        value = None
        try:
            if kind == "number":
                value = float(data)
                if not value % 1:
                    value = int(value)
            elif kind == "text":
                value = data.decode()
            elif kind == "switch":
                value = {b"ON": True, b"OFF": False}.get(data)
            else:
                value = data == b"PRESS" or None
        except ValueError:
            pass
        if message.retain or value is None or self._state(value) is None:  # of long ago
            # not what it says: a text may be a secret
            load("repeats").tell(self.client, self.topic + "/set: ignored, %d bytes" % len(data))
            return
        button = kind == "button"
        result = self.handler() if button else self.handler(value)
        if hasattr(result, "send"):
            result = await result
        if not button:
            await self.set(value if result is None else result)


def _kind(kind):
    """Return the method of HomeAssistant that makes entities of `kind`."""

    def declare(ha, id, **options):
        _check(id)

        def of(handler):
            return Entity(ha, kind, id, handler, options)

        return of(None) if "sensor" in kind else of

    return declare


class HomeAssistant:
    """
    A device in Home Assistant.

    client    MQTTClient with a will that is retained and has a birth message
    name      str, the device's name
    home      str, what its topics begin with, with a slash at the end: config.home
    id        str of [A-Za-z0-9_-], what Home Assistant knows it by; default: the last part of home
    prefix    str, Home Assistant's discovery prefix
    origin    dict, the name, sw_version and support_url of the app
    device    more of Home Assistant's options of a device

    topic     str, where it is announced
    entities  dict, {id: Entity}

    Raises TypeError and ValueError.
    """

    sensor = _kind("sensor")
    binary_sensor = _kind("binary_sensor")
    switch = _kind("switch")
    button = _kind("button")
    number = _kind("number")
    text = _kind("text")

    def __init__(
        self, client, name, home, *, id=None, prefix="homeassistant", origin=None, **device
    ):
        will = client.will
        topic(home + prefix)
        self.client = client
        self.home = home
        if not (home[-1:] == "/" and will and will.retain and will.birth):
            wrong("entity", "home", home)
        self.id = id = id or home.split("/")[-2]
        _check(id)
        known = (
            "manufacturer model hw_version sw_version serial_number suggested_area"
            " configuration_url"
        ).split()
        for option in device:
            if option not in known:  # Home Assistant would drop the message
                wrong("entity", "device", option)
        device.update(ids=id, name=name)
        # the topic of the will is taken
        self.entities = {will.topic.replace(home, ""): Entity}
        self.topic = prefix + "/device/" + id + "/config"
        config = {
            "dev": device,
            "o": origin or {"name": "mqtt_as_tls", "sw": __version__},
            "avty_t": will.topic,
            "pl_avail": will.birth.decode(),
            "pl_not_avail": will.payload.decode(),
        }
        self._parts = [json.dumps(config)[:-1].encode(), b',"cmps":{', b"}}"]
        client.on(prefix + "/status", 1)(self._told)
        client.on_connect(self.announce)

    def remove(self, kind, id):
        """Let Home Assistant forget an entity that earlier firmware had."""
        getattr(self, kind)
        _check(id)
        self._add(id, Entity, {"p": kind})

    def _add(self, id, entity, config):
        entities = self.entities
        if id in entities:
            wrong("entity", "twice", id)
        part = '%s"%s":%s' % ("," * (len(entities) > 1), id, json.dumps(config))
        self._parts.insert(-1, part.encode())
        entities[id] = entity

    async def announce(self):
        config = Parts(self._parts)
        await self.client.publish(self.topic, config, length=config.length, qos=1, retain=True)
        for entity in list(self.entities.values()):
            if entity.value is not None:
                await entity.set(entity.value)

    async def _told(self, message):
        if message.payload == b"online" and not message.retain:
            await asyncio.sleep_ms(random.getrandbits(10))  # not all devices at once
            await self.announce()
