"""A mosquitto that answers SUBACK 0x80: with its dynamic security plugin, ACL files cannot."""

import glob
import json
from pathlib import Path

import pytest

from tests.support.broker import Broker

_PLACES = (
    "/usr/lib/*/mosquitto_dynamic_security.so",
    "/usr/lib/mosquitto_dynamic_security.so",
    "/usr/local/lib/mosquitto_dynamic_security.so",
    "/usr/local/opt/mosquitto/lib/mosquitto_dynamic_security.so",
    "/opt/homebrew/opt/mosquitto/lib/mosquitto_dynamic_security.so",
)


def refusing_broker(directory, *refused):
    """
    Return a Broker that lets everybody do everything but subscribe to the filters `refused`.

    Skips the test where mosquitto came without the plugin.
    """
    plugins = [path for place in _PLACES for path in glob.glob(place)]
    if not plugins:
        pytest.skip("mosquitto_dynamic_security.so is not installed: it belongs to mosquitto")
    access = ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")
    rules = [
        {"acltype": "subscribeLiteral", "topic": each, "priority": 1, "allow": False}
        for each in refused
    ]
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "dynamic-security.json"
    path.write_text(
        json.dumps(
            {
                "defaultACLAccess": dict.fromkeys(access, True),
                "anonymousGroup": "guests",
                "clients": [],
                "groups": [{"groupname": "guests", "roles": [{"rolename": "guest"}]}],
                "roles": [{"rolename": "guest", "acls": rules}],
            }
        )
    )
    path.chmod(0o600)
    return Broker(directory, lines=[f"plugin {plugins[0]}", f"plugin_opt_config_file {path}"])
