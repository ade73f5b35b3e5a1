"""
A `network` module for MicroPython's unix port that behaves like a Pico W's, or an esp32's.

For tests alone. A program that knows nothing of it gets it as `network` when tests/fakes is on
its MICROPYPATH; FAKE_WIFI=NAME:PASSWORD in its environment is then the network in reach. A test
imports it as below, and it is `network` for everybody in the process from then on. One way or the
other, not both.

    from tests.fakes import network

    network.board("cyw43")              # or "esp32", "nina": everything as after power-on
    network.board("cyw43", 27)          # with the driver of MicroPython 1.27; 28 unless said
    network.air.networks["home"] = "correct horse"
    network.air.dhcp = False            # see Air for all of them
    network.lose_link()                 # the access point is gone, the driver notices
    network.lose_association()          # the access point forgot us, nobody notices
    network.lose_lease()                # the address is gone, the link is not; DHCP is asked anew
    network.renumber("10.0.0.9")        # the router has other addresses, and says so at renewal
    network.roam(200)                   # the chip goes to another access point of that name, or
                                        # channel: no frame passes for 200 ms, nobody is told
    network.on_abort = print            # called when lwIP aborts all TCP connections (103), as it
                                        # does when the address goes or changes
    network.on_traffic = print          # called with True or False when frames begin or cease to
                                        # pass: a test cuts its TCP connections then
    network.calls                       # what changed something in the driver, in order
    network.blocked                     # (call, ms): how long calls would have blocked, if at all
    network.ticks_ms()                  # a clock in which they did
    network.pass_ms(60_000)             # which goes on by so much

Begin and end of a join are noticed when somebody looks (status(), isconnected() and so on).

What the cyw43 drivers of MicroPython 1.25, 1.27 and 1.28 do was seen on a virtual Pico W:
tests/wifi_contract holds this module against them. What other versions and drivers do was read
from extmod/network_cyw43.c, ports/esp32/network_wlan.c and extmod/network_ninaw10.c. That includes
the surprises:

cyw43   Until 1.27 active(False) does nothing to the chip, before 1.26 it does not even leave the
        network. From 1.28 on it removes the interface: the address is gone, and connect() gives
        EPERM until active(True).
        deinit() switches the chip off; active(), disconnect() and config() switch it on again,
        connect() does not. active() tells what was asked for, whatever came of it.
        Each start that fails takes a state machine and two DMA channels with it: after six of
        them nothing starts the chip but a reset of the board.
        After a lost link the status is 1, and the driver does not join again; the chip may.
        disconnect() takes effect later, and does not clear a negative status; connect() does. The
        status of a join that is given up stays 1, unless the access point was found already.
        A chip that left by itself is 0, and what it joins after that by itself is not noticed.
        The link can be "up" although the access point forgot us, even after disconnect().
        The address outlives the link: after a rejoin there is the old one at once, and DHCP is
        asked for it only then.
        What DHCP says no to, or does not renew in time, is gone at once, with all TCP connections
        (103); DHCP is asked again and again while the link is there.
        Whether a chip joins again by itself that lost its access point is not known: air.rejoins.
        An access point with another security than asked for is as good as none (-2), or 1 for
        ever.
        A wrong password is -3, or that for 20 ms (here for some looks), or 1 for ever.
        With a chip that hangs each command takes a second; connect() says nothing of that.
        Without an interface ifconfig() has zeros, with one that has no address the mask, router
        and DNS server that lwIP begins with; the DNS server stays when the interface goes.
esp32   It joins again by itself, `reconnects` times.
        The last error stays the status until there is an address, also after connect().
        A wrong password is not always called so.
        isconnected() stays True when the address is gone.
nina    status() is a bool, and what connect() raises has the password in it.
"""

import os
import sys
import time
from time import ticks_add, ticks_diff

sys.modules["network"] = sys.modules[__name__]

STA_IF = 0
AP_IF = 1


class Air:
    """What is on the air and how the chip takes it. Tests change it, at any time."""

    def __init__(self):
        name, _, password = (os.getenv("FAKE_WIFI") or "home:correct horse").partition(":")
        self.networks = {name: password or None}  # None: an open network
        self.join_ms = 20  # from connect() to joined, or to the refusal
        self.refusal_ms = {}  # cyw43: {status: from connect() to the refusal}, where it is later
        self.look_ms = 20  # cyw43: between two looks of the chip for a network that it lost
        self.dhcp_ms = 10  # from joined to an address
        self.event_ms = 5  # cyw43: from disconnect() to its effect
        self.dhcp = True  # addresses are given
        self.nak_ms = 3  # cyw43: until DHCP says that an old address is not one of its own
        self.again_ms = 15  # until DHCP is asked again, when it did not answer
        self.rejoins = False  # cyw43: the chip joins again by itself what it has lost
        self.silent = False  # access points do not answer: joins go on for ever
        self.stuck = False  # the same, but the chip's fault: switching it off heals it
        self.flakes = []  # cyw43: with what status the next joins fail, though all is well
        self.auth_reason = 202  # esp32: what a wrong password is called, 15, 204 or 2 at times
        self.wrong_key = "told"  # cyw43: or "briefly": -3 for some looks, again and again; "never"
        self.brief_looks = 2
        self.security = None  # the status when the network wants another one: -2 or 1 on a
        # cyw43, 210 or 211 on an esp32
        self.sticky = False  # cyw43: the link stays "up" at disconnect(), until deinit()
        self.broken = False  # cyw43: the chip does not start
        self.access_point = False  # the board has one
        self.hung = False  # cyw43: the chip answers no command until it was switched off
        self.address = "192.168.4.17"
        self.dns = "127.0.0.1"  # and the router, see gateway()


class _Driver:
    # What both have: events that come true when somebody looks, and an interface of lwIP.

    def __init__(self):
        self.active = False
        self.events = []  # (when, method, arguments)
        self.link = False  # what the interface believes
        self.ip = None
        self.static = None
        self.config = {}
        self.router = None  # as the lease says
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
        else:
            self.discover()

    def discover(self):
        if air.dhcp:
            self.later(air.dhcp_ms, self.leased)
        else:
            self.later(air.again_ms, self.discover)

    def leased(self):
        self.ip = self.ip or air.address
        self.router = air.dns
        self.carry(True)

    def link_down(self):
        self.link = False
        self.forget(self.leased, self.discover, self.roamed)
        self.carry(False)

    def lose_lease(self):
        self.ip = self.static = None
        self.carry(False)
        if on_abort:
            on_abort()
        if self.link:
            self.discover()

    def roamed(self):
        self.carry(self.link and self.ip is not None)

    def refusal(self, ssid, key):
        if ssid not in air.networks:
            return "name"
        return None if air.networks[ssid] == key else "key"

    def set_static(self, addresses):
        self.static = addresses
        self.ip = addresses[0]

    def get_config(self, name):
        return self.config[name]

    def ifconfig(self):
        if self.static:
            return self.static
        if not self.ip:
            return ("0.0.0.0",) * 4
        return (self.ip, "255.255.255.0", self.router or air.dns, self.router or air.dns)


class _CYW43(_Driver):
    STARTS = 6  # that may fail between two resets of the board

    def __init__(self):
        super().__init__()
        self.starts = self.STARTS
        self.country = None  # in force
        self.mask = self.gateway = self.name_server = "0.0.0.0"
        self.off()

    def off(self):
        # Without power: all is forgotten but what MicroPython itself keeps (`active`).
        self.powered = False
        self.ssid = ""
        self.joining = 0  # the status while there is no link
        self.associated = False  # with an access point, with keys or not yet
        self.looks = -1  # more of them, and -3 becomes 1; negative: it stays
        self.no_interface()
        self.events = []

    def no_interface(self):
        self.station_up = self.dhcp = self.leased_by_dhcp = False
        if not self.static:
            self.mask = self.gateway = "0.0.0.0"
        self.ip = self.static = None
        self.link_down()

    def has_interface(self):
        self.station_up = self.dhcp = True
        self.mask = "255.255.255.0"
        self.gateway = "192.168.0.1"
        self.name_server = "8.8.8.8"

    def wake(self):
        # Have the chip on; return whether it is. Each command to one that hangs takes 1 s.
        if self.powered:
            return True
        self.no_interface()
        if self.starts and not air.broken:
            pass_ms(520)
            self.powered = True
            air.hung = False
            self.config = {"pm": 0xA11142}
            return True
        pass_ms(350 if self.starts else 70)
        self.starts = max(self.starts - 1, 0)
        return False

    def command(self, ms, commands=1):
        # Return whether the chip has taken it.
        if not self.wake():
            return False
        pass_ms(1000 * commands if air.hung else ms)
        return not air.hung

    def set_active(self, yes):
        self.active = yes
        if yes:
            if not self.station_up and self.wake():
                pass_ms(1000 * 20 if air.hung else 350)
                self.country = _country
                self.has_interface()
        elif firmware >= 26:
            if self.command(1):
                self.leave()
            if firmware >= 28 and self.station_up:
                self.farewell(208)
                self.no_interface()

    def deinit(self):
        if self.powered:
            if self.station_up:
                self.farewell(155)
            air.stuck = air.sticky = air.hung = False
        self.off()

    def farewell(self, ms):
        # DHCP releases the address; the groups of multicast are left, with a frame and without.
        pass_ms(1000 * (6 + self.leased_by_dhcp) if air.hung else ms)

    def connect(self, ssid, key):
        if not self.station_up:
            raise OSError(1)
        self.command(11, 11)
        self.forget(self.joined, self.refused, self.search)
        self.joining = 1
        self.looks = -1
        self.associated = False
        if air.hung:
            return
        self.ssid = ssid
        self.key = key
        self.later(air.join_ms, self.joined, ssid, key)

    def joined(self, ssid, key):
        refusal = self.refusal(ssid, key)
        if air.silent or air.stuck:
            return
        status = None
        if air.flakes:
            status = air.flakes.pop(0)
        elif air.security:
            status = air.security
        elif refusal:
            status = {"name": -2, "key": -3}[refusal]
        if status is None:
            self.link_up()
            return
        self.associated = refusal == "key"
        if not (refusal == "key" and air.wrong_key == "never"):
            more_ms = air.refusal_ms.get(status, air.join_ms) - air.join_ms
            if more_ms > 0:
                self.later(more_ms, self.refused, status)
            else:
                self.refused(status)

    def refused(self, status):
        self.joining = status
        self.associated = False
        if status == -3 and air.wrong_key == "briefly":
            self.looks = air.brief_looks
            self.later(air.join_ms, self.joined, self.ssid, self.key)

    def link_up(self):
        self.link = self.associated = True
        if self.static:
            self.carry(True)
            return
        self.leased_by_dhcp = False
        if self.ip:
            self.carry(self.ip == air.address)
            self.later(air.nak_ms, self.asked_again)
        else:
            self.discover()

    def asked_again(self):
        if not air.dhcp:
            self.later(air.again_ms, self.asked_again)
        elif self.ip == air.address:
            self.leased()
        else:
            self.lose_lease()

    def lose_lease(self):
        self.leased_by_dhcp = False
        self.mask = self.gateway = "0.0.0.0"
        super().lose_lease()

    def leased(self):
        self.leased_by_dhcp = True
        self.mask = "255.255.255.0"
        self.gateway = self.name_server = air.dns
        super().leased()

    def link_down(self):
        self.associated = False
        self.forget(self.asked_again)
        super().link_down()

    def disconnect(self):
        if self.command(1):
            self.leave()

    def leave(self):
        self.ssid = ""
        self.forget(self.joined, self.refused, self.search)
        self.carry(False)
        if self.associated and not air.sticky:
            self.later(air.event_ms, self.left)

    def left(self):
        self.joining = 0
        self.link_down()

    def lose_link(self):
        self.link_down()
        if air.rejoins and self.joining == 1:
            self.search()

    def search(self):
        # the chip alone: it goes on until the network is there, and tells nobody that it is not
        if self.joining != 1 or self.link or not self.ssid:
            return
        if self.refusal(self.ssid, self.key) == "name" or air.silent or air.security:
            self.later(air.look_ms, self.search)
        else:
            self.later(air.join_ms, self.joined, self.ssid, self.key)

    def set_config(self, name, value):
        if name != "pm":
            raise ValueError("unknown config param")
        if self.command(5, 8):
            self.config[name] = value

    def get_config(self, name):
        if name not in ("pm", "ssid"):
            raise ValueError("unknown config param")
        self.command(1)
        return self.ssid if name == "ssid" else self.config[name]

    def rssi(self):
        if not self.station_up:
            raise OSError(1)
        self.command(1)
        return -50 if self.traffic else 0

    def ifconfig(self):
        return (self.ip or "0.0.0.0", self.mask, self.gateway, self.name_server)

    def set_static(self, addresses):
        self.static = addresses
        self.ip, self.mask, self.gateway, self.name_server = addresses
        self.dhcp = self.leased_by_dhcp = False
        self.forget(self.discover, self.leased)

    def set_ipconfig(self, dhcp4):
        calls.append(("ipconfig", dhcp4))
        if not air.hung and not self.link:
            raise RuntimeError("a RELEASE that nobody hears frees the next lease")
        if self.leased_by_dhcp and air.hung:
            pass_ms(1000)
        self.leased_by_dhcp = False
        self.static = None
        if not dhcp4:
            self.dhcp = False
            return
        self.dhcp = True
        if air.dhcp:
            self.later(air.dhcp_ms, self.leased_anew)
        else:
            self.later(air.again_ms, self.discover)

    def leased_anew(self):
        self.ip = None
        self.leased()

    def get_ipconfig(self, what):
        return {"dhcp4": self.dhcp, "has_dhcp4": self.leased_by_dhcp}[what]

    def is_connected(self):
        return self.link and self.ip is not None

    def status(self):
        if self.link:
            return 3 if self.ip else 2
        if self.joining == -3 and self.looks == 0:
            self.joining = 1
        self.looks -= 1
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
        if air.security:
            self.disconnected(air.security)
        elif refusal:
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

    def rssi(self):
        if not self.link:
            raise OSError("Wifi Not Connected")
        return -50

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


class _NINA(_Driver):
    # connect() waits for the other chip, and joins again by itself.

    def connect(self, ssid, key):
        if self.refusal(ssid, key) or air.silent:
            raise OSError(f"could not connect to ssid={ssid}, sec=3, key={key}")
        self.later(air.join_ms, self.link_up)

    def set_active(self, yes):
        self.active = yes
        if not yes:
            self.disconnect()

    def disconnect(self):
        self.forget(self.link_up)
        self.link_down()
        self.ip = None

    lose_link = disconnect

    def set_config(self, name, value):
        raise ValueError("unknown config param")

    def is_connected(self):
        return self.link

    def status(self):
        return self.link


class _WLAN:
    # What programs see.

    IF_STA = STA_IF
    IF_AP = AP_IF

    def __init__(self, interface=STA_IF):
        self._access_point = interface == AP_IF

    def active(self, *yes):
        if self._access_point:  # of which nothing else is known here
            return air.access_point
        if not yes:
            return driver.active
        calls.append(("active", bool(yes[0])))
        return _timed("active", driver.set_active, bool(yes[0]))

    def connect(self, ssid=None, key=None):
        calls.append(("connect", ssid, key))
        _timed("connect", driver.connect, ssid, key)

    def disconnect(self):
        calls.append(("disconnect",))
        _timed("disconnect", driver.disconnect)

    def isconnected(self):
        driver.look()
        return driver.is_connected()

    def status(self, *what):
        return _timed("status", driver.rssi if what == ("rssi",) else driver.status)

    def config(self, *name, **values):
        if bool(name) == bool(values):
            raise TypeError("must query one param")
        if name:
            return _timed("config", driver.get_config, name[0])
        calls.append(("config", values))
        for key in values:
            _timed("config", driver.set_config, key, values[key])
        return None

    def ifconfig(self, *new):
        driver.look()
        if not new:
            return driver.ifconfig()
        if new[0] == "dhcp":
            raise RuntimeError("ifconfig('dhcp') blocks for up to 10 s")
        calls.append(("ifconfig", tuple(new[0])))
        driver.set_static(tuple(new[0]))
        return None

    def scan(self, **_):
        calls.append(("scan",))
        raise RuntimeError("scan() blocks for up to 10 s")


class _WLAN_CYW43(_WLAN):
    PM_NONE = 0xA11140
    PM_PERFORMANCE = 0xA11142
    PM_POWERSAVE = 0xA11C82

    def deinit(self):
        calls.append(("deinit",))
        _timed("deinit", driver.deinit)

    def ipconfig(self, what=None, **values):
        if values:
            return _timed("ipconfig", driver.set_ipconfig, values["dhcp4"])
        address, netmask, gateway, _ = self.ifconfig()
        found = {"addr4": (address, netmask), "gw4": gateway}
        return found[what] if what in found else driver.get_ipconfig(what)


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
    "nina": (_NINA, _WLAN, {}),
}


def ticks_ms():
    """As time.ticks_ms, in a world where the calls of this module block."""
    return ticks_add(time.ticks_ms(), _passed)


def pass_ms(ms):
    """Let that clock go on by `ms`."""
    global _passed
    _passed += ms


def _timed(call, method, *args):
    # What a program asks of the driver: events first, then the method; note how long it took.
    driver.look()
    begin = _passed
    try:
        return method(*args)
    finally:
        if _passed > begin:
            blocked.append((call, _passed - begin))


def longest_ms():
    """Return how long the longest call blocked."""
    return max([ms for _, ms in blocked] or [0])


def board(name, micropython=None):
    """
    Be a board, "cyw43", "esp32" or "nina", as it is after power-on, with what Air starts with.

    micropython  int, the minor version whose driver it has; else that of the board before
    """
    global air, blocked, calls, driver, firmware, on_abort, on_traffic, WLAN, _country, _hostname
    firmware = micropython or firmware
    make, WLAN, constants = _BOARDS[name]
    air = Air()
    blocked = []
    calls = []
    on_abort = on_traffic = None
    _country = "XX"
    _hostname = "fake"
    driver = make()
    for _, _, other in _BOARDS.values():
        for constant in other:
            globals().pop(constant, None)
    globals().update(constants)


async def gateway(reports_port):
    """
    Be the router: answer every datagram (a DNS query) while frames pass, for ever.

    reports_port  function that is told the UDP port of 127.0.0.1
    """
    import asyncio
    import socket

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        port = None
        while not port:
            port = 20_000 + int.from_bytes(os.urandom(2), "big") % 10_000
            try:
                sock.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
            except OSError:
                port = None  # somebody has it
        reports_port(port)
        while True:
            yield asyncio.core._io_queue.queue_read(sock)
            data, sender = sock.recvfrom(512)
            if driver.traffic:
                sock.sendto(data[:2] + b"\x81\x83" + data[4:], sender)
    finally:
        sock.close()


def lose_link():
    """The access point is gone. The driver notices, and a cyw43 does not join again."""
    driver.lose_link()


def lose_association():
    """The access point has forgotten us: no frame passes, isconnected() is True all the same."""
    driver.carry(False)


def lose_lease():
    """
    The address is gone, as a lease that ended, the link is not; DHCP is asked for another. An
    esp32's isconnected() is True all the same.
    """
    driver.lose_lease()


def renumber(address, router=None):
    """
    The router gives this address (str) from now on, not the one that we have, and says so, with
    another router (str) if there is one.
    """
    air.address = address
    air.dns = router or air.dns
    driver.lose_lease()


def roam(ms):
    """No frame passes for `ms`, as the chip changes its access point or channel by itself."""
    driver.carry(False)
    driver.later(ms, driver.roamed)


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


_passed = 0
board("cyw43", 28)
