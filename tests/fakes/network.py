"""
A `network` module for MicroPython's unix port that behaves like a Pico W's, or an esp32's.

For tests alone. A program that knows nothing of it gets it as `network` when tests/fakes is on
its MICROPYPATH; FAKE_WIFI=NAME:PASSWORD in its environment is then the network in reach. A test
imports it as below, and it is `network` for everybody in the process from then on. One way or the
other, not both.

    from tests.fakes import network

    network.board("cyw43")              # or "esp32": everything as after power-on
    network.air.networks["home"] = "correct horse"
    network.air.dhcp = False            # see Air for all of them
    network.lose_link()                 # the access point is gone, the driver notices
    network.lose_association()          # the access point forgot us, nobody notices
    network.lose_lease()                # the address is gone, the link is not
    network.on_traffic = print          # called with True or False when frames begin or cease to
                                        # pass: a test cuts its TCP connections then
    network.calls                       # what changed something in the driver, in order

Begin and end of a join are noticed when somebody looks (status(), isconnected() and so on).

What the drivers do was read from extmod/network_cyw43.c with the cyw43 driver, and from
ports/esp32/network_wlan.c. That includes the surprises:

cyw43   active(False) does nothing to the chip, before 1.26 it does not even leave the network.
        deinit() switches the chip off; disconnect() and config() switch it on again.
        After a lost link the status is 1 for ever, and nobody joins again.
        disconnect() takes effect later, and does not clear a negative status; connect() does.
        The link can be "up" although the access point forgot us, even after disconnect().
esp32   It joins again by itself, `reconnects` times.
        The last error stays the status until there is an address, also after connect().
        A wrong password is not always called so.
        isconnected() stays True when the address is gone.
"""

import os
import sys
from time import ticks_add, ticks_diff, ticks_ms

sys.modules["network"] = sys.modules[__name__]

STA_IF = 0
AP_IF = 1


class Air:
    """What is on the air and how the chip takes it. Tests change it, at any time."""

    def __init__(self):
        name, _, password = (os.getenv("FAKE_WIFI") or "home:correct horse").partition(":")
        self.networks = {name: password or None}  # None: an open network
        self.join_ms = 20  # from connect() to joined, or to the refusal
        self.dhcp_ms = 10  # from joined to an address
        self.event_ms = 5  # cyw43: from disconnect() to its effect
        self.dhcp = True  # addresses are given
        self.silent = False  # access points do not answer: joins go on for ever
        self.stuck = False  # the same, but the chip's fault: switching it off heals it
        self.flakes = []  # cyw43: with what status the next joins fail, though all is well
        self.auth_reason = 202  # esp32: what a wrong password is called, 15 or 204 at times
        self.sticky = False  # cyw43: the link stays "up" at disconnect(), until deinit()
        self.broken = False  # cyw43: the chip does not start
        self.leaves = False  # cyw43: active(False) leaves the network, as from 1.26 on
        self.address = "192.168.4.17"
        self.dns = "192.168.4.1"


class _Driver:
    # What both have: events that come true when somebody looks, and an interface of lwIP.

    def __init__(self):
        self.active = False
        self.events = []  # (when, method, arguments)
        self.link = False  # what the interface believes
        self.ip = None
        self.static = None
        self.config = {}
        self.traffic = False  # what is true

    def later(self, ms, method, *args):
        self.events.append((ticks_add(ticks_ms(), ms), method, args))

    def forget(self, *methods):
        self.events = [event for event in self.events if event[1] not in methods]

    def look(self):
        due = [event for event in self.events if ticks_diff(ticks_ms(), event[0]) >= 0]
        for event in due:
            if event in self.events:
                self.events.remove(event)
                event[1](*event[2])

    def carry(self, traffic):
        if traffic != self.traffic:
            self.traffic = traffic
            if on_traffic:
                on_traffic(traffic)

    def link_up(self):
        self.link = True
        if self.static:
            self.ip = self.static[0]
        if self.ip:
            self.leased()
        elif air.dhcp:
            self.later(air.dhcp_ms, self.leased)

    def leased(self):
        self.ip = self.ip or air.address
        self.carry(True)

    def link_down(self):
        self.link = False
        self.forget(self.leased)
        self.carry(False)

    def refusal(self, ssid, key):
        if ssid not in air.networks:
            return "name"
        return None if air.networks[ssid] == key else "key"

    def ifconfig(self):
        if self.static:
            return self.static
        if not self.ip:
            return ("0.0.0.0",) * 4
        return (self.ip, "255.255.255.0", air.dns, air.dns)


class _CYW43(_Driver):
    def __init__(self):
        super().__init__()
        self.off()

    def off(self):
        # Without power: all is forgotten but what MicroPython itself keeps (`active`).
        self.powered = False
        self.station_up = False
        self.joining = 0  # the status while there is no link
        self.ip = self.static = None
        self.events = []
        self.link_down()

    def wake(self):
        if not self.powered and not air.broken:
            self.powered = True
            self.config = {"pm": 0xA11142}
        return self.powered

    def set_active(self, yes):
        self.active = yes
        if yes:
            self.station_up = self.wake()
        elif air.leaves:
            self.disconnect()

    def deinit(self):
        if self.powered:
            air.stuck = air.sticky = False
        self.off()

    def connect(self, ssid, key):
        if not self.station_up:
            raise OSError(1)
        self.forget(self.joined)
        self.joining = 1
        self.later(air.join_ms, self.joined, ssid, key)

    def joined(self, ssid, key):
        refusal = self.refusal(ssid, key)
        if air.silent or air.stuck:
            return
        if air.flakes:
            self.joining = air.flakes.pop(0)
        elif refusal:
            self.joining = {"name": -2, "key": -3}[refusal]
        else:
            self.link_up()

    def disconnect(self):
        if not self.wake():
            return
        self.forget(self.joined)
        if self.joining == 1:
            self.carry(False)
            if not air.sticky:
                self.later(air.event_ms, self.left)

    def left(self):
        self.joining = 0
        self.link_down()

    def lose_link(self):
        self.link_down()

    def set_config(self, name, value):
        if name != "pm":
            raise ValueError("unknown config param")
        if self.wake():
            self.config[name] = value

    def is_connected(self):
        return self.link and self.ip is not None

    def status(self):
        if self.link:
            return 3 if self.ip else 2
        return self.joining


class _ESP32(_Driver):
    def __init__(self):
        super().__init__()
        self.config = {"reconnects": -1, "pm": 1}
        self.requested = False
        self.connected = False  # as isconnected() says
        self.busy = False  # joining
        self.reason = 0  # of the last disconnection, 0: none since there was an address
        self.tries = 0

    def set_active(self, yes):
        if self.active and not yes:
            self.leave()
            air.stuck = False
        self.active = yes

    def leave(self):
        if self.busy or self.link:
            self.forget(self.joined)
            self.busy = False
            self.link_down()
            self.ip = None
            self.reason = 8

    def started(self):
        if not self.active:
            raise OSError("Wifi Not Started")

    def connect(self, ssid, key):
        self.started()
        if self.busy or self.link:
            raise OSError("Wifi Internal Error")
        self.requested = True
        self.tries = 0
        self.wanted = (ssid, key)
        self.join()

    def join(self):
        self.busy = True
        self.later(air.join_ms, self.joined)

    def joined(self):
        refusal = self.refusal(*self.wanted)
        if air.silent or air.stuck:
            return
        self.busy = False
        if refusal:
            self.disconnected({"name": 201, "key": air.auth_reason}[refusal])
        else:
            self.link_up()

    def leased(self):
        self.reason = 0
        self.connected = True
        super().leased()

    def link_down(self):
        self.connected = False
        super().link_down()

    def disconnected(self, reason):
        self.reason = reason
        self.ip = None
        self.link_down()
        self.tries += 1
        if self.requested and self.more():
            self.join()

    def more(self):
        return self.config["reconnects"] < 0 or self.tries <= self.config["reconnects"]

    def disconnect(self):
        self.started()
        self.requested = False
        self.leave()

    def lose_link(self):
        self.disconnected(200)

    def set_config(self, name, value):
        if name not in ("reconnects", "pm"):
            raise ValueError("unknown config param")
        self.started()
        self.config[name] = value

    def is_connected(self):
        return self.connected

    def status(self):
        if self.connected:
            return 1010
        if self.reason in (201, 210, 211, 212):
            return self.reason
        if self.reason in (202, 205):
            return 202
        if self.reason == 8:
            return 1000
        if self.requested and self.more():
            return 1001
        return self.reason or 1000


class _WLAN:
    # What programs see.

    IF_STA = STA_IF
    IF_AP = AP_IF

    def __init__(self, interface=STA_IF):
        if interface != STA_IF:
            raise ValueError("this fake has no access point")

    def active(self, *yes):
        driver.look()
        if not yes:
            return driver.active
        calls.append(("active", bool(yes[0])))
        return driver.set_active(bool(yes[0]))

    def connect(self, ssid=None, key=None):
        driver.look()
        calls.append(("connect", ssid, key))
        driver.connect(ssid, key)

    def disconnect(self):
        driver.look()
        calls.append(("disconnect",))
        driver.disconnect()

    def isconnected(self):
        driver.look()
        return driver.is_connected()

    def status(self, *what):
        driver.look()
        if what == ("rssi",):
            return -50 if driver.traffic else 0
        return driver.status()

    def config(self, *name, **values):
        driver.look()
        if bool(name) == bool(values):
            raise TypeError("must query one param")
        if name:
            return driver.config[name[0]]
        for key in values:
            driver.set_config(key, values[key])
        calls.append(("config", values))
        return None

    def ifconfig(self, *new):
        driver.look()
        if not new:
            return driver.ifconfig()
        if new[0] == "dhcp":
            raise RuntimeError("ifconfig('dhcp') blocks for up to 10 s")
        calls.append(("ifconfig", tuple(new[0])))
        driver.static = tuple(new[0])
        driver.ip = driver.static[0]
        return None

    def ipconfig(self, what):
        address, netmask, gateway, _ = self.ifconfig()
        return {"addr4": (address, netmask), "gw4": gateway}[what]

    def scan(self, **_):
        calls.append(("scan",))
        raise RuntimeError("scan() blocks for up to 10 s")


class _WLAN_CYW43(_WLAN):
    PM_NONE = 0xA11140
    PM_PERFORMANCE = 0xA11142
    PM_POWERSAVE = 0xA11C82

    def deinit(self):
        driver.look()
        calls.append(("deinit",))
        driver.deinit()


class _WLAN_ESP32(_WLAN):
    PM_NONE = 0
    PM_PERFORMANCE = 1
    PM_POWERSAVE = 2


_BOARDS = {
    "cyw43": (
        _CYW43,
        _WLAN_CYW43,
        {
            "STAT_IDLE": 0,
            "STAT_CONNECTING": 1,
            "STAT_WRONG_PASSWORD": -3,
            "STAT_NO_AP_FOUND": -2,
            "STAT_CONNECT_FAIL": -1,
            "STAT_GOT_IP": 3,
        },
    ),
    "esp32": (
        _ESP32,
        _WLAN_ESP32,
        {
            "STAT_IDLE": 1000,
            "STAT_CONNECTING": 1001,
            "STAT_GOT_IP": 1010,
            "STAT_BEACON_TIMEOUT": 200,
            "STAT_NO_AP_FOUND": 201,
            "STAT_WRONG_PASSWORD": 202,
            "STAT_ASSOC_FAIL": 203,
            "STAT_CONNECT_FAIL": 203,
            "STAT_HANDSHAKE_TIMEOUT": 204,
        },
    ),
}


def board(name):
    """Be a board, "cyw43" or "esp32", as it is after power-on, with what Air starts with."""
    global air, calls, driver, on_traffic, WLAN, _country, _hostname
    make, WLAN, constants = _BOARDS[name]
    air = Air()
    calls = []
    on_traffic = None
    _country = "XX"
    _hostname = "fake"
    driver = make()
    for _, _, other in _BOARDS.values():
        for constant in other:
            globals().pop(constant, None)
    globals().update(constants)


def lose_link():
    """The access point is gone. The driver notices, and a cyw43 does not join again."""
    driver.lose_link()


def lose_association():
    """The access point has forgotten us: no frame passes, isconnected() is True all the same."""
    driver.carry(False)


def lose_lease():
    """The address is gone, the link is not. An esp32's isconnected() is True all the same."""
    driver.ip = driver.static = None
    driver.carry(False)


def traffic():
    """Return whether frames pass."""
    return driver.traffic


def country(*code):
    """As network.country."""
    global _country
    if not code:
        return _country
    if len(code[0]) != 2:
        raise ValueError
    calls.append(("country", code[0]))
    _country = code[0]
    return None


def hostname(*name):
    """As network.hostname."""
    global _hostname
    if not name:
        return _hostname
    if len(name[0]) > 32:
        raise ValueError
    calls.append(("hostname", name[0]))
    _hostname = name[0]
    return None


def ipconfig(what):
    """As network.ipconfig, for "dns"."""
    driver.look()
    return {"dns": driver.ifconfig()[3]}[what]


board("cyw43")
