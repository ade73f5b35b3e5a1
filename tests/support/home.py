"""
What stands for Home Assistant in tests: it reads discovery messages as its documentation says, and
holds each against a schema that was written from there (discovery.schema.json).
"""

import json
from pathlib import Path

import fastjsonschema

_SCHEMA = Path(__file__).with_name("discovery.schema.json")

# Home Assistant: MQTT, "Supported abbreviations in MQTT discovery messages", those that are sent
_ABBREVIATIONS = {
    "avty_t": "availability_topic",
    "cmd_t": "command_topic",
    "cmps": "components",
    "dev": "device",
    "o": "origin",
    "p": "platform",
    "pl_avail": "payload_available",
    "pl_not_avail": "payload_not_available",
    "stat_t": "state_topic",
    "uniq_id": "unique_id",
}
_OF_A_DEVICE = {"ids": "identifiers"}
_OF_AN_ORIGIN = {"sw": "sw_version", "url": "support_url"}

Misfit = fastjsonschema.JsonSchemaValueException
_check = fastjsonschema.compile(json.loads(_SCHEMA.read_text()))


def _written_out(options, names):
    return {names.get(name, name): value for name, value in options.items()}


def _no_name_twice(pairs):
    found = dict(pairs)
    assert len(found) == len(pairs), pairs
    return found


def read(payload):
    """
    Return a device discovery payload (bytes) as a dict without abbreviations.

    Raises AssertionError for a name that stands twice, Misfit for what Home
    Assistant's documentation does not allow.
    """
    text = payload.decode()
    found = _written_out(json.loads(text, object_pairs_hook=_no_name_twice), _ABBREVIATIONS)
    found["device"] = _written_out(found["device"], _OF_A_DEVICE)
    found["origin"] = _written_out(found["origin"], _OF_AN_ORIGIN)
    found["components"] = {
        id: _written_out(options, _ABBREVIATIONS) for id, options in found["components"].items()
    }
    _check(found)
    return found
