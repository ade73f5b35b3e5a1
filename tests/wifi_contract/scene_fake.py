"""
What a program of the contract has round it, on the unix port: tests/fakes/network.py, in a time of
its own that goes as fast as it can.
"""

from tests.fakes import network
from tests.fakes.network import ticks_ms  # noqa: F401

_BEACONS_LOST_MS = 8000


class _Still:
    # In whose time nothing takes any: what a busy computer takes must not count.
    ticks_ms = staticmethod(lambda: 0)  # noqa: F811


def begin(micropython):
    """
    Be a Pico W after power-on, with the times of an emulated one.

    micropython  str, "1.28": the version whose driver it has
    """
    network.time = _Still
    network.board("cyw43", int(micropython.split(".")[1]))
    air = network.air
    air.networks = {"my-ssid": "my-password", "open": None}
    air.join_ms = 660
    air.refusal_ms = {-1: 1540, -2: 930, -3: 4650}
    air.look_ms = 1930
    air.brief_looks = 4
    air.dhcp_ms = 15
    air.event_ms = 5
    air.nak_ms = 5
    air.again_ms = 1500
    air.address = "10.77.0.2"
    air.dns = "10.77.0.1"
    air.rejoins = True


def sleep_ms(ms):
    network.pass_ms(ms)


def do(action):
    """As that of scene_board."""
    air = network.air
    if action == "access point off":
        del air.networks["my-ssid"]
        network.driver.later(_BEACONS_LOST_MS, network.lose_link)
    elif action == "access point on":
        air.networks["my-ssid"] = "my-password"
    elif action == "goodbye":
        network.lose_link()
    elif action == "chip leaves":
        network.lose_association()
        network.driver.left()
    elif action == "stay away":
        air.rejoins = False
    elif action == "no answer":
        air.flakes = [-1]
    elif action == "keys are never told":
        air.wrong_key = "never"
    elif action == "keys are told briefly":
        air.wrong_key = "briefly"
    elif action == "dhcp silent":
        air.dhcp = False
    elif action == "dhcp up":
        air.dhcp = True
    elif action == "other address":
        air.address = "10.77.0.42"
    elif action == "hang":
        air.hung = True
    elif action == "die":
        air.broken = True
    elif action == "well":
        air.hung = air.broken = False
        air.dhcp = True
    else:
        raise ValueError(action)
