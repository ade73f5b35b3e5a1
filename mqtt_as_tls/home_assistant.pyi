"""
A device and its entities in Home Assistant: MQTT discovery, states out, commands in.

"Home Assistant: ..." below names a section of its documentation, https://www.home-assistant.io:
"MQTT" is the page /integrations/mqtt, "MQTT Sensor" /integrations/sensor.mqtt, and so on. What an
entity may be given beyond that, Home Assistant ignores.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from . import MQTTClient

_State = bool | int | float | str
_Category = Literal["config", "diagnostic"]

class Entity:
    """What Home Assistant shows. The methods of `HomeAssistant` make it."""

    kind: str
    """What Home Assistant calls it: "sensor", "switch", ..."""
    topic: str
    """Where its states are published: `home` and its id. Commands come on the same with /set."""
    value: _State | None
    """The last state, published again at every announcement; None where there was none yet."""

    async def set(self, value: _State | None) -> int:
        """
        Publish a state, with QoS 1; return when the broker has it, however long the network is
        gone. The broker keeps it (retain), unless the entity has `expire_after`.

        Args:
            value: True or False for a switch and a binary sensor; a number from min to max, in
                steps, for a number; a str of min to max characters for a text; for a sensor a
                number, or a str of 255 characters at most. None: Home Assistant shows a sensor as
                unknown.

        Returns:
            As `MQTTClient.publish`.

        Raises:
            ValueError: At the call, for a value that is none of this entity.
            TypeError: The same, for one of another type.
            RuntimeError: The client is not running.
            MQTTError: As `MQTTClient.publish`.
        """

class HomeAssistant:
    """
    A device in Home Assistant, and what makes its entities. Make it, and them, before the client
    runs; what is declared later is told by `announce()`.

    It is announced to Home Assistant after every connect and when Home Assistant says that it has
    started; then each entity's last state is published again. Home Assistant shows the entities
    as unavailable while the client is away, by its will.
    """

    client: MQTTClient
    """The client of the device."""
    home: str
    """What the topics of the device begin with."""
    id: str
    """What Home Assistant knows the device by."""
    topic: str
    """Where the device is announced: `prefix`/device/`id`/config."""
    entities: dict[str, Any]
    """The entities by their ids, and what else takes an id."""

    def __init__(
        self,
        client: MQTTClient,
        name: str,
        home: str,
        *,
        id: str | None = None,
        prefix: str = "homeassistant",
        origin: Mapping[str, str] | None = None,
        manufacturer: str = ...,
        model: str = ...,
        hw_version: str = ...,
        sw_version: str = ...,
        serial_number: str = ...,
        suggested_area: str = ...,
        configuration_url: str = ...,
    ) -> None:
        """
        Home Assistant: MQTT, "Device discovery payload". One for a client.

        Args:
            client: It has `will=Will(topic, "offline", retain=True, birth="online")`.
            name: The device's name, as people see it. The name of each entity begins with it.
            home: What the topics of its states and commands begin with, with a slash at the end:
                `config.home`.
            id: Letters, digits, `_` and `-`; by default the last part of `home`. Home Assistant
                knows the device and its entities by it: another id is another device.
            prefix: Home Assistant's discovery prefix, in its MQTT options.
            origin: The name, sw_version and support_url of the program, for Home Assistant's log;
                by default this package and its version.
            manufacturer: Shown with the device; as are the next ones.
            model: Of the board, or of what it is built into.
            hw_version: Of the board.
            sw_version: Of your program.
            serial_number: Of the device.
            suggested_area: The room where Home Assistant puts it first.
            configuration_url: A page of the device, http:// or https://.

        Raises:
            ValueError: A bad id, home without a slash at its end, a client without such a will, a
                second one for the same client.
        """

    def sensor(
        self,
        id: str,
        *,
        value: int | float | str | None = None,
        unit: str = ...,
        device_class: str = ...,
        state_class: str = ...,
        expire_after: int = ...,
        suggested_display_precision: int = ...,
        options: Sequence[str] = ...,
        force_update: bool = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: Literal["diagnostic"] = ...,
        enabled_by_default: bool = ...,
    ) -> Entity:
        """
        Declare what the device measures. Home Assistant: MQTT Sensor.

        Args:
            id: Letters, digits, `_` and `-`; one for each entity of the device. A part of its
                topic, and its name where there is no `name`.
            value: The state to begin with.
            unit: Such as "°C", "%", "kWh". Home Assistant's unit_of_measurement.
            device_class: Such as "temperature", "humidity", "energy": icon and units. Home
                Assistant: Sensor, "Device class".
            state_class: "measurement", "total" or "total_increasing", for statistics.
            expire_after: Seconds after which a state that is not renewed shows as unavailable.
            suggested_display_precision: Digits after the point.
            options: All states that a sensor of device_class="enum" may have.
            force_update: Each state counts as a change, also when it is the same.
            name: Shown instead of the id; None: the device's name alone.
            icon: Such as "mdi:water".
            entity_category: Shown among the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            The entity; `await entity.set(21.5)` publishes a state.

        Raises:
            ValueError: A bad id, one that is taken, or a bad value.
        """

    def binary_sensor(
        self,
        id: str,
        *,
        value: bool | None = None,
        device_class: str = ...,
        expire_after: int = ...,
        off_delay: int = ...,
        force_update: bool = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: Literal["diagnostic"] = ...,
        enabled_by_default: bool = ...,
    ) -> Entity:
        """
        Declare what is on or off: a door, rain, motion. Home Assistant: MQTT Binary sensor.

        Args:
            id: As of a sensor.
            value: The state to begin with.
            device_class: Such as "door", "motion", "moisture": the words for on and off.
            expire_after: As of a sensor.
            off_delay: Seconds after which on becomes off by itself.
            force_update: As of a sensor.
            name: As of a sensor; so are the next ones.
            icon: Such as "mdi:door".
            entity_category: Shown among the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            The entity; `await entity.set(True)` publishes a state.

        Raises:
            ValueError: A bad id, one that is taken, or a bad value.
        """

    def switch(
        self,
        id: str,
        *,
        value: bool | None = None,
        device_class: Literal["outlet", "switch"] = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: _Category = ...,
        enabled_by_default: bool = ...,
    ) -> Callable[[Callable[[bool], Any]], Entity]:
        """
        Decorator: declare what Home Assistant may switch on and off, and the function that does
        it, `def` or `async def`, which gets True or False. Home Assistant: MQTT Switch.

        When the function returns, the state is what was asked for, or what it returns, unless
        that is None. When it raises, the log says so and the state stays what it was.

        Args:
            id: As of a sensor.
            value: The state to begin with.
            device_class: "outlet" or "switch".
            name: As of a sensor; so are the next ones.
            icon: Such as "mdi:valve".
            entity_category: Shown among the settings or the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            What puts the entity in the place of the function: `await valve.set(False)`.

        Raises:
            ValueError: A bad id, one that is taken, or a bad value.
        """

    def button(
        self,
        id: str,
        *,
        device_class: Literal["identify", "restart", "update"] = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: _Category = ...,
        enabled_by_default: bool = ...,
    ) -> Callable[[Callable[[], Any]], Entity]:
        """
        Decorator: declare a button and the function for when it is pressed, `def` or
        `async def`, without arguments. It has no state. Home Assistant: MQTT Button.

        Args:
            id: As of a sensor.
            device_class: "identify", "restart" or "update".
            name: As of a sensor; so are the next ones.
            icon: Such as "mdi:restart".
            entity_category: Shown among the settings or the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            What puts the entity in the place of the function.

        Raises:
            ValueError: A bad id, or one that is taken.
        """

    def number(
        self,
        id: str,
        *,
        value: int | float | None = None,
        min: int | float = 1,
        max: int | float = 100,
        step: int | float = 1,
        unit: str = ...,
        device_class: str = ...,
        mode: Literal["auto", "box", "slider"] = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: _Category = ...,
        enabled_by_default: bool = ...,
    ) -> Callable[[Callable[[Any], Any]], Entity]:
        """
        Decorator: declare a number that Home Assistant may set, and the function that takes it,
        `def` or `async def`: an int where it has no fraction, else a float. As `switch`, also in
        what it returns. Home Assistant: MQTT Number.

        A command outside min to max, or between two steps (by more than a twentieth of one), is
        not taken, and the log says so.

        Args:
            id: As of a sensor.
            value: The number to begin with.
            min: The least.
            max: The greatest.
            step: From 0.001; counted from `min`.
            unit: As of a sensor.
            device_class: Home Assistant: Number, "Device class".
            mode: How it is shown.
            name: As of a sensor; so are the next ones.
            icon: Such as "mdi:timer".
            entity_category: Shown among the settings or the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            What puts the entity in the place of the function: `await interval.set(10)`.

        Raises:
            ValueError: A bad id, one that is taken, a bad range, or a value out of it.
        """

    def text(
        self,
        id: str,
        *,
        value: str | None = None,
        min: int = 0,
        max: int = 255,
        pattern: str = ...,
        mode: Literal["text", "password"] = ...,
        name: str | None = ...,
        icon: str = ...,
        entity_category: _Category = ...,
        enabled_by_default: bool = ...,
    ) -> Callable[[Callable[[str], Any]], Entity]:
        """
        Decorator: declare a text that Home Assistant may set, and the function that takes it,
        `def` or `async def`. As `switch`, also in what it returns. Home Assistant: MQTT Text.

        A command that is shorter than min, longer than max, or no UTF-8 is not taken, and the log
        says so.

        Args:
            id: As of a sensor.
            value: The text to begin with.
            min: The least characters.
            max: The most characters, 255 at most.
            pattern: A regular expression that Home Assistant, and it alone, holds texts against.
            mode: "password": the text is not shown.
            name: As of a sensor; so are the next ones.
            icon: Such as "mdi:message".
            entity_category: Shown among the settings or the diagnostics of the device.
            enabled_by_default: False: shown only when somebody enables it.

        Returns:
            What puts the entity in the place of the function: `await display.set("hello")`.

        Raises:
            ValueError: A bad id, one that is taken, a bad range, or a value out of it.
        """

    def remove(
        self,
        kind: Literal["sensor", "binary_sensor", "switch", "button", "number", "text"],
        id: str,
    ) -> None:
        """
        Say that an entity is gone which an earlier version of the program had: Home Assistant
        forgets it at the next announcement. Home Assistant: MQTT, "Device discovery payload".

        Args:
            kind: The method that it was made with.
            id: The id that it had.

        Raises:
            ValueError: A bad id, or one that an entity has.
            AttributeError: No such kind.
        """

    async def announce(self) -> None:
        """
        Tell Home Assistant of the device now, and publish all states again. Needed after the
        declaration of an entity while the client is connected; the rest happens by itself.

        Raises:
            RuntimeError: The client is not running.
            MQTTError: As `MQTTClient.publish`.
        """
