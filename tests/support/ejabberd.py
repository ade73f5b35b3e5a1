"""An ejabberd on loopback: a broker for MQTT 5 of another make than mosquitto."""

import json
import os
import shutil
from pathlib import Path

from tests.support.broker import Broker, Peer


def installed():
    """Return the folder of its Erlang code where Debian's package puts it, or None."""
    found = sorted(Path("/usr/lib").glob("*/ejabberd-*"))
    return found[-1].parent if found and shutil.which("erl") else None


class Ejabberd(Broker):
    """
    The MQTT part of ejabberd (mod_mqtt), started by its Erlang code as whoever runs the tests.

    Of the arguments of Broker it takes `directory` only; plain TCP. Everybody may come who has a
    user name NAME@localhost; `peer` has one. Topics have one level or two, or three below
    devices/; more are denied.

    It keeps retained messages across a restart, no sessions, has no shared subscriptions, and
    sends a Server Keep Alive in every CONNACK.
    """

    user = "device@localhost"

    def __init__(self, directory):
        super().__init__(directory, "tcp")

    def configuration(self):
        (self.directory / "inetrc").write_text('{host, {127,0,0,1}, ["localhost"]}.\n')
        listener = {
            "port": self.port,
            "ip": self.host,
            "module": "mod_mqtt",
            "backlog": 100,
        }
        allowed = dict.fromkeys(("+", "+/+", "devices/+/+"), "all")
        return json.dumps(  # is YAML too
            {
                "hosts": ["localhost"],
                "loglevel": "info",
                "listen": [listener],
                "auth_method": ["anonymous"],
                "anonymous_protocol": "both",
                "allow_multiple_connections": True,
                "modules": {
                    "mod_mqtt": {
                        "access_publish": allowed,
                        "access_subscribe": allowed,
                    }
                },
            }
        )

    def _command(self, path):
        home = self.directory
        settings = {
            "EJABBERD_CONFIG_PATH": shutil.copy(path, home / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": home / "ejabberd.log",
            "ERL_LIBS": installed(),
            "ERL_CRASH_DUMP": os.devnull,
            "HOME": home,
        }
        return [
            "env",
            *(f"{name}={value}" for name, value in settings.items()),
            *("erl", "-noinput", "-start_epmd", "false", "-s", "ejabberd"),
            *("-mnesia", "dir", f'"{home}/db"', "-kernel", "inetrc", f'"{home}/inetrc"'),
        ]

    def peer(self, *filters, qos=1, **options):
        options.setdefault("client_id", f"peer{len(self._peers)}")
        peer = Peer(self.port, user=self.user, password="any", **options)
        self._peers.append(peer)
        for each in filters:
            peer.subscribe(each, qos)
        return peer
