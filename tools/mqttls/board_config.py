# Written by `mqttls provision`, which keeps it up to date; without this line it is yours.
"""What this board was given: import config, then MQTTClient(**config.mqtt)."""

import json

from mqtt_as_tls import TLS, WiFi

_FOLDER = "/certs/"


def _read(name):
    try:
        with open(_FOLDER + name) as file:
            return json.load(file)
    except OSError:
        return {}


def _path(name):
    return name and (name if name[0] == "/" else _FOLDER + name)


_tls = _read("tls.json")
_wifi = _read("wifi.json")

host = _tls["host"]
port = _tls["port"]
client_id = _tls.get("client_id")
user = _tls.get("user")
password = _tls.get("password")

# None: the broker has none, and whoever is in its network can read all
tls = (
    _tls.get("tls", True)
    and TLS(
        ca=[_path(each) for each in _tls["ca"]],
        cert=_path(_tls.get("cert")),
        key=_path(_tls.get("key")),
        server_hostname=_tls.get("server_hostname"),
    )
    or None
)

# None: something else (Ethernet, your own code) brings the network up
link = _wifi and WiFi(_wifi["ssid"], _wifi["password"], country=_wifi["country"]) or None

mqtt = {  # MQTTClient(**config.mqtt)
    "host": host,
    "port": port,
    "client_id": client_id,
    "user": user,
    "password": password,
    "link": link,
    "tls": tls,
}

# the topics that the broker lets this device use begin so
home = _tls.get("home") or f"devices/{client_id}/"
