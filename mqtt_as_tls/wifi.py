"""
Wi-Fi as a link: bring it up, know whether it is up, recover it (rp2 with its cyw43 chip, esp32).

A link is any object with `up`, `is_up`, `reset`, `down` and `dns_servers` as here; the client
needs no more. No method scans: that would block for seconds.
"""

import asyncio
from time import ticks_diff, ticks_ms

from micropython import const

from . import load
from .errors import LinkError

_PM_NONE = const(0xA11140)  # what WLAN.PM_NONE is, also where that has no name
_PM_SAVE = const(0xA11142)  # the driver's default


def _wrong(what, *args):
    return load("argument_errors").wifi(what, *args)


def _check(what, value, low, high):
    if not isinstance(value, str) or not low <= len(value.encode()) <= high:
        raise _wrong(what, value, low, high)


class WiFi:
    """
    The station interface of the board, with the networks that it may join.

    ssid        str, 1 to 32 bytes: the name of the network
    password    str of 8 to 63 characters, or 64 hexadecimal digits; None: an open network
    networks    instead of both: a list of (ssid, password), tried in turn; the one that worked
                last is tried first next time
    country     str of two letters, "DE": which channels may be used; in force from the next time
                that the radio is switched on
    hostname    str of 1 to 32 characters, the name that is told to DHCP
    static      (address, netmask, gateway, DNS server), four dotted IPv4 str; None: DHCP
    power_save  for the cyw43: False keeps it awake, so that nothing waits for it; True lets it
                sleep between beacons, as the driver does by itself. The esp32 keeps its own mode

    Raises ValueError or TypeError for any of these that cannot be right, and ValueError where
    there is no Wi-Fi: on a PC, and where the network is somebody else's, the client takes
    link=None. The radio is not touched before up().
    """

    _poll_ms = 100  # five of these between leaving a network and what comes next
    _timeout_ms = 20000  # for one network, both tries together
    _beat = None  # ticks_ms() of the last sign of life of the task in up(), if there is one
    _faults = 2  # and as many more as there were in a row that may be the radio's own

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
        try:
            import network

            make = network.WLAN
        except (ImportError, AttributeError):
            raise _wrong("WLAN")
        pairs = list(networks or ((ssid, password),))
        mixed = networks and (ssid or password)
        for pair in pairs:
            if mixed or not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise _wrong("networks")
            ssid, password = pair
            _check("ssid", ssid, 1, 32)
            if password is not None:
                # 64 characters are a raw key, in hexadecimal
                most = 63 + (not str(password).strip("0123456789abcdefABCDEF"))
                _check("password", password, 8, most)
        self._pairs = pairs
        if static is not None:
            try:
                numbers = [int(n) >> 8 for n in ".".join(static).split(".")]
            except (TypeError, ValueError):
                numbers = 0
            if numbers != [0] * 16 or len(static) != 4:
                raise _wrong("static")
        self._static = static
        if country is not None:
            country = str(country).upper()
            if len(country) != 2 or not country.isalpha():
                raise _wrong("country")
            network.country(country)
        if hostname is not None:
            _check("hostname", hostname, 1, 32)
            network.hostname(hostname)
        # Only the cyw43 has deinit(). On the esp32 3 is enough for a weak signal, and the default
        # of -1 hides why it cannot join.
        self._config = {"reconnects": 3}
        if hasattr(make, "deinit"):
            self._config = {"pm": _PM_SAVE if power_save else _PM_NONE}
        self._wlan = make(network.STA_IF)

    def is_up(self):
        """Return whether the board is in a network and has an address. Cheap, does not block."""
        wlan = self._wlan
        return wlan.isconnected() and wlan.ifconfig()[0] != "0.0.0.0"

    def dns_servers(self):
        """Return the DNS servers, a list of dotted IPv4 str; empty where none is known."""
        server = self._wlan.ifconfig()[3]
        return [] if server == "0.0.0.0" else [server]

    async def up(self):
        """
        Return when the board is in one of the networks and has an address, at once if it is so
        already. Of tasks that call it at the same time one works, the others wait for it.

        Every network gets 20 s at most; on the cyw43 a network that says no is asked once more,
        as it takes a weak signal for a wrong password at times. It may be cancelled, and called
        again then. After repeated failures that may be the radio's own it is switched off and on,
        on the cyw43 together with Bluetooth and the access point that share the chip.

        Raises LinkError: what stood in the way at which network, and what to do about it.
        `status` is the driver's number for the last of them, None where it raised an OSError.
        """
        poll_ms = self._poll_ms
        while not self.is_up():
            # No lock: after Ctrl-C nobody would release it. 5 s are more than any blocking step.
            if self._beat is None or abs(ticks_diff(ticks_ms(), self._beat)) > 50 * poll_ms:
                break
            await asyncio.sleep_ms(poll_ms)
        else:
            return
        text = ""
        try:
            for pair in self._pairs:
                status = await self._join(*pair)
                if status is None:
                    self._faults = 2
                    self._pairs.remove(pair)
                    self._pairs.insert(0, pair)
                    return
                text += (text and "; ") + load("texts").not_joined(pair[0], status)
                if status not in (-3, -2):
                    n = self._faults = self._faults + 1
                    # At 4, 8, 16, ...: more rarely each time, it blocks and ends Bluetooth.
                    if not n & (n - 1):
                        await self.down()
        finally:
            self._beat = None
        raise LinkError(text, status if isinstance(status, int) else None)

    async def _join(self, ssid, password):
        # Return None, or what stood in the way: the driver's status, or its exception.
        wlan = self._wlan
        polls = self._timeout_ms // self._poll_ms
        for _ in range(2):
            try:
                if wlan.active():
                    wlan.disconnect()
                    await self._nap(5)
                else:
                    wlan.active(True)
                if self._static:
                    wlan.ifconfig(self._static)
                try:
                    wlan.config(**self._config)
                except (ValueError, OSError):
                    pass  # another chip
                wlan.connect(ssid, password)
                while True:
                    await self._nap(1)
                    if self.is_up():
                        return None
                    status = wlan.status()
                    if status < 1:  # given up; never so on an esp32, whose driver goes on trying
                        break
                    polls -= 1
                    if polls < 0:
                        return status
            except (OSError, RuntimeError) as error:
                status = error
        return status

    async def _nap(self, polls):
        self._beat = ticks_ms()
        await asyncio.sleep_ms(polls * self._poll_ms)

    async def reset(self):
        """
        Leave the network, even one that only seems to be there, so that the next up() joins
        afresh. For a link that `is_up` but carries nothing: association can be lost unnoticed.
        """
        await self.down(False)

    async def down(self, _power_off=True):
        """
        Leave the network and switch the radio off, for battery devices. The next up() switches it
        on. On the cyw43 Bluetooth and the access point go with it.
        """
        wlan = self._wlan
        try:
            if wlan.active():  # else disconnect() would wake the cyw43
                wlan.disconnect()
                wlan.active(False)
                await asyncio.sleep_ms(5 * self._poll_ms)
            # The cyw43 stays on, and can stay "connected", at active(False): only this ends it.
            if _power_off or wlan.isconnected():
                wlan.deinit()
        except (OSError, RuntimeError, AttributeError):
            pass  # an esp32 has no deinit; what is broken will show in up()
