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


def _access_point_off():
    del network.air.networks["my-ssid"]
    network.driver.later(_BEACONS_LOST_MS, network.lose_link)


def _access_point_on():
    network.air.networks["my-ssid"] = "my-password"


def _chip_leaves():
    network.lose_association()
    network.driver.left()


def _no_answer():
    network.air.flakes = [-1]  # it is taken from there


def _air(**changes):
    def change():
        for name in changes:
            setattr(network.air, name, changes[name])

    return change


# {action: what it does}; actions.py has the same
ACTIONS = {
    "access point off": _access_point_off,
    "access point on": _access_point_on,
    "goodbye": network.lose_link,
    "chip leaves": _chip_leaves,
    "stay away": _air(rejoins=False),
    "no answer": _no_answer,
    "keys are never told": _air(wrong_key="never"),
    "keys are told briefly": _air(wrong_key="briefly"),
    "dhcp silent": _air(dhcp=False),
    "dhcp up": _air(dhcp=True),
    "other address": _air(address="10.77.0.42"),
    "hang": _air(hung=True),
    "die": _air(broken=True),
    "well": _air(hung=False, broken=False, dhcp=True),
}


def do(action):
    """As that of scene_board."""
    ACTIONS[action]()
