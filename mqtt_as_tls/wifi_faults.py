"""
What is done about Wi-Fi when something is wrong: in words, a radio that does not start, one that
others use, a link that only looks up. Imported for that.
"""

import asyncio
from time import ticks_diff, ticks_ms

from micropython import const

from . import load, unload
from .errors import LinkError

_HUNG_MS = const(800)  # a cyw43 answers a command in 1 ms, or the driver gives up after 1 s
_PAUSES_S = const((0, 5, 30, 120, 600, 1800))  # the driver can start a chip six times in vain
_TRIES = const(2)
_TURN_MS = const(20)  # for the other tasks, such as one that feeds a watchdog
_LEAVING = const(50)  # looks until the driver must have left a network
# of the DNS server, and for its answer; variables, so that they can be changed
PORT = 53
ANSWER_MS = 1000


def start(wlan, starts, is_on):
    """
    The radio of `wlan` did not start: raise LinkError, unless it is time to try it again and it
    does now.

    starts  list that this function keeps: how often it failed in a row, ticks of the last time
    is_on   function of `wlan`
    """
    error = LinkError("Wi-Fi: the radio does not start: power-cycle the board, or machine.reset()")
    if starts:
        pause_s = _PAUSES_S[min(starts[0], len(_PAUSES_S) - 1)]
        if 0 <= ticks_diff(ticks_ms(), starts[1]) < pause_s * 1000:
            raise error
        wlan.active(True)
        if is_on(wlan):
            starts.clear()
            return
        starts[0] += 1
        starts[1] = ticks_ms()
    else:
        starts += 1, ticks_ms()
    error.failed_starts = starts[0]  # for the event
    raise error


async def leave(wlan, poll_ms, power_off, if_alone=False):
    """
    Leave the network, with a radio that is on, and switch it off if `power_off` (bool), with
    `if_alone` only if nobody else is seen to use it. A cyw43 that hangs, or stays in the network,
    is switched off anyway.
    """
    await asyncio.sleep_ms(0)  # after what took long already
    begin = ticks_ms()
    try:
        wlan.disconnect()
        if ticks_diff(ticks_ms(), begin) > _HUNG_MS:
            await _switch_off(wlan)
            return
        for n in range(_LEAVING):
            await asyncio.sleep_ms(poll_ms)
            if n > 3 and not wlan.isconnected():
                if not power_off or if_alone and not _alone():
                    return
                break
        # The cyw43 stays on at active(False), and can stay "connected": only deinit() ends it.
        wlan.active(False)
        wlan.deinit()
        await asyncio.sleep_ms(_TURN_MS)
    except (OSError, RuntimeError, AttributeError):
        pass  # an esp32 has no deinit; what is broken will show in up()


async def _switch_off(wlan):
    # A cyw43 that answers no command: for each that its interface sends in farewell the driver
    # waits a second, seven in all. What can be done apart from the others is.
    await asyncio.sleep_ms(_TURN_MS)
    wlan.ipconfig(dhcp4=False)
    await asyncio.sleep_ms(_TURN_MS)
    wlan.deinit()
    await asyncio.sleep_ms(_TURN_MS)


def _alone():
    # Whether neither an access point nor Bluetooth is seen to use the radio.
    import network

    try:
        if network.WLAN(network.AP_IF).active():
            return False
        import bluetooth

        return not bluetooth.BLE().active()
    except (ImportError, AttributeError, ValueError):
        return True


async def alive(wlan):
    """
    Return whether the router or the DNS server of the interface `wlan` answers a DNS query. A chip
    that hangs is off then.
    """
    begin = ticks_ms()
    if hasattr(wlan, "deinit"):
        wlan.status("rssi")
    if ticks_diff(ticks_ms(), begin) > _HUNG_MS:
        await _switch_off(wlan)
        return False
    dns = load("dns")
    _, _, router, server = wlan.ifconfig()
    asked = [(ip, PORT) for ip in {router, server} if ip != "0.0.0.0"]
    try:
        # whatever it says, and most say it without asking anybody else
        await dns.ask(
            dns.encode_query("localhost"), asked, lambda data, _: data, _TRIES, ANSWER_MS
        )
        return True
    except OSError:
        return False
    finally:
        unload("dns", "wifi_faults")


async def serves(wifi, wlan, late):
    """
    Return whether the board goes on with an address that DHCP has not confirmed: `late` (bool),
    if the router answers under it. A static address of an earlier program gives way to DHCP.
    """
    if not wlan.ipconfig("dhcp4"):
        wlan.ipconfig(dhcp4=True)
    return late and await wifi.alive()


def not_joined(before, ssid, password, status, wlan):
    """
    Return the LinkError of a board that is not in the network `ssid`, with what is to be said of
    other networks.

    before  LinkError of those, or None
    status  int of the driver, or the exception that it raised
    wlan    the interface
    """
    number = status if isinstance(status, int) else None
    cyw43 = hasattr(wlan, "deinit")
    if status == 1000 or status == 1001:  # an esp32 that waits, joined or not
        try:
            wlan.status("rssi")
            status = 0
        except OSError:
            pass
    if status in (-3, 15, 202, 204):
        why = "wrong password: check it, it is case-sensitive"
    elif status == -2 or status == 201:
        why = "no such network in reach: check its name (most boards: 2.4 GHz, WPA2 only)"
    elif status == (2 if cyw43 else 0):
        why = "joined but got no address: check the router's DHCP, or give static="
    elif status == 210 or status == 211:
        why = "it wants another security than this board: let it have WPA2"
    else:
        status = str(status).split(", key=")[0]  # some drivers tell the password
        if password:
            status = status.replace(password, "***")
        why = "cannot join (%s): check password, signal, access point, supply" % status
        if status == "1" or status == "1001":
            why = "cannot join (%s): wrong password? weak signal? does it have WPA2?" % status
    text = before.reason + "; " if before else ""
    return LinkError("%sWi-Fi '%s': %s" % (text, ssid, why), number)
