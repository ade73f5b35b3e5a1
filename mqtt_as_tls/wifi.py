"""
Wi-Fi as a link: bring it up, know whether it is up, recover it (rp2 with its cyw43 chip, esp32).

A link is any object with `up`, `is_up`, `reset`, `down` and `dns_servers` as here; `alive` may be
missing. No method scans: that would block for seconds. What is done when something is wrong is in
`wifi_faults`.
"""

import asyncio
from time import ticks_diff, ticks_ms

from . import load, unload


def is_on(wlan):
    """
    Return whether the radio of `wlan` is on. active() tells what was asked for; any command to a
    cyw43 that is off would switch it on. Its interface is there if it is on, and then runs DHCP or
    has an address.
    """
    if not hasattr(wlan, "deinit"):
        return wlan.active()
    return wlan.ipconfig("dhcp4") or wlan.ifconfig()[0] != "0.0.0.0"


class WiFi:
    """
    The station interface of the board, with the networks that it may join.

    ssid        str, 1 to 32 bytes: the name of the network
    password    str of 8 to 63 characters, or 64 hexadecimal digits; None: an open network
    networks    instead of both: a list of (ssid, password), tried in turn; the one that worked
                last is tried first next time
    country     str of two letters, "DE": which channels may be used; in force from the next time
                that the radio is switched on. The esp32 takes no notice of it
    hostname    str of 1 to 32 characters, the name that is told to DHCP
    static      (address, netmask, gateway, DNS server), four dotted IPv4 str; None: DHCP
    power_save  for the cyw43: False keeps it awake, so that nothing waits for it; True lets it
                sleep between beacons, as the driver does by itself. The esp32 keeps its own mode

    Raises ValueError or TypeError for any of these that cannot be right, and ValueError where
    there is no Wi-Fi: on a PC, and where the network is somebody else's, the client takes
    link=None. The radio is not touched before up(). Wi-Fi survives a soft reset, with what an
    earlier program or boot.py has set, and nobody can read back the password: so the first up()
    leaves the network that the board is in, and joins with these settings.
    """

    _poll_ms = 10  # a wrong password may show for 20 ms only
    _timeout_ms = 20000  # for one network, a quarter of it for DHCP to confirm an old address
    _beat = None  # ticks_ms() of the last sign of life of the task in up(), if there is one
    _faults = 2  # and as many more as there were in a row that may be the radio's own
    _in_force = None  # settings
    _starts = None  # list for all: starts of the radio that failed: how many, when the last was

    def __init__(
        self,
        ssid=None,
        password=None,
        *,
        networks=None,
        country=None,
        hostname=None,
        static=None,
        power_save=False,
    ):
        self._pairs, self._config, new_country, self.wlan = load("wifi_options").taken(
            ssid, password, networks, country, hostname, static, power_save
        )
        self._static = static
        self._fresh = 1 + new_country  # until its own settings are in force
        unload("wifi_options")

    def is_up(self):
        """
        Return whether the board is in a network and has an address. Cheap, does not block. False
        before the first up().
        """
        wlan = self.wlan
        return not self._fresh and wlan.isconnected() and wlan.ifconfig()[0] != "0.0.0.0"

    def dns_servers(self):
        """Return the DNS servers, a list of dotted IPv4 str; empty where none is known."""
        server = self.wlan.ifconfig()[3]
        return [] if server == "0.0.0.0" else [server]

    async def up(self):
        """
        Return when the board is in one of the networks and has an address, at once if it is so
        already. Of tasks that call it at the same time one works, the others wait for it.

        Every network gets 20 s at most; on the cyw43 a network that says no is asked once more,
        as it takes a weak signal for a wrong password at times. It may be cancelled, and called
        again then. After repeated failures that may be the radio's own it is switched off and on,
        on the cyw43 together with Bluetooth and the access point that share the chip.

        Switching the radio of the cyw43 on blocks for 0.9 s. One that does not start is tried
        once a call, and not before 5, 30, 120, 600 s, then 1800 s have passed since the last time:
        the driver cannot do it more than six times between two resets of the board.

        Returns None, or a remark for the log (str).

        Raises LinkError: what stood in the way at which network, and what to do about it.
        `status` is the driver's number for the last of them, None where it raised an OSError.
        """
        poll_ms = self._poll_ms
        while not self.is_up():
            # No lock: after Ctrl-C nobody would release it. 5 s are more than any blocking step.
            if self._beat is None or abs(ticks_diff(ticks_ms(), self._beat)) > 500 * poll_ms:
                break
            await asyncio.sleep_ms(poll_ms)
        else:
            return None
        error = None
        self._beat = ticks_ms()
        pairs = self._pairs
        try:
            if self._fresh:
                mine = (pairs, self._static, self._config)
                if WiFi._in_force != mine:
                    await self._leave(self._fresh > 1, True)
                self._fresh = 0
                WiFi._in_force = mine
                if self.is_up():
                    return None
            for pair in pairs:
                status = await self._join(*pair)
                if status is None or isinstance(status, str):
                    self._faults = 2
                    pairs.remove(pair)
                    pairs.insert(0, pair)
                    return status
                error = load("wifi_faults").not_joined(error, *pair, status, self.wlan)
                if status != -3 and status != -2:
                    n = self._faults = self._faults + 1
                    # At 4, 8, 16, ...: more rarely each time, it blocks and ends Bluetooth.
                    if not n & (n - 1):
                        await self._leave(True)
            raise error
        finally:
            self._beat = None
            unload("wifi_faults")

    async def _join(self, ssid, password):
        # Return None, or what stood in the way: the driver's status, or its exception.
        wlan = self.wlan
        trusted = self._static or not hasattr(wlan, "deinit")
        for _ in range(2):
            try:
                await self._leave(False)  # a chip that hangs is off after that
                if not is_on(wlan):
                    if not self._starts:
                        wlan.active(True)
                    if not is_on(wlan):
                        WiFi._starts = self._starts or []
                        load("wifi_faults").start(wlan, self._starts, is_on)
                if self._static:
                    wlan.ifconfig(self._static)
                start = ticks_ms()
                try:
                    wlan.config(**self._config)
                except (ValueError, TypeError, OSError):
                    pass  # another chip
                if ticks_diff(ticks_ms(), start) > 800:
                    raise OSError(5)  # it hangs: connect() would take 11 s
                start = ticks_ms()  # if it does now, connect() does so and says nothing
                wlan.connect(ssid, password)
                while True:
                    self._beat = ticks_ms()
                    await asyncio.sleep_ms(self._poll_ms)
                    ms = ticks_diff(ticks_ms(), start)
                    if self.is_up():
                        # A cyw43 has its old address at once, whatever network it is in now
                        if trusted or wlan.ipconfig("has_dhcp4"):
                            return None
                        if await load("wifi_faults").serves(
                            self, wlan, ms > self._timeout_ms // 4
                        ):
                            return "no answer from DHCP, the old address works"
                    status = wlan.status()
                    if status < 1 and status is not False:  # given up, as an esp32 never does
                        break
                    if ms > self._timeout_ms:
                        if self.is_up():
                            await self._leave(False)
                            status = 2
                        return status
            except (OSError, RuntimeError) as error:
                status = error
        return status

    async def reset(self):
        """
        Leave the network, even one that only seems to be there, so that the next up() joins
        afresh. For a link that `is_up` but carries nothing: association can be lost unnoticed.
        A cyw43 that answers no command is switched off, which blocks for 6 s.
        """
        await self._leave(False)

    async def down(self):
        """
        Leave the network and switch the radio off, for battery devices. The next up() switches it
        on. On the cyw43 Bluetooth and the access point go with it.
        """
        await self._leave(True)

    async def _leave(self, *how):
        if is_on(self.wlan):
            await load("wifi_faults").leave(self.wlan, self._poll_ms, *how)

    async def alive(self):
        """
        Ask the router, and the DNS server, for a sign of life; for a link that `is_up`.

        Returns whether there was one. A chip that hangs is switched off.
        """
        return await load("wifi_faults").alive(self.wlan)
