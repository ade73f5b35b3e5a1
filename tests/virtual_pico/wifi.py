"""What is on the air round a virtual Pico W, and what is wrong with it: `pico.wifi`."""


class Wifi:
    """
    The networks, the access points' behaviour, the radio chip and the router.

    command  function (name, **parameters) that gives the emulator's answer; it raises PicoError
             for what does not exist
    """

    def __init__(self, command):
        self._command = command

    def add(self, ssid, password=None, **more):
        """
        Have a network from now on, or another one of that name: what the board knew is forgotten.

        password     str, or None: an open network
        channel, rssi  int, what a scan and status("rssi") tell
        """
        self._command("wifi_add", ssid=ssid, password=password, **more)

    def access_point(self, ssid, up):
        """
        Switch the access point of a network on or off. That it is off the chip notices by its
        beacons, 8 s later.
        """
        self._command("wifi_access_point", ssid=ssid, up=up)

    def air(self, **faults):
        """
        Change what is wrong on the air; what is not named stays as it is.

        wrong_key       how a wrong password ends: "deauth" (after 4 s, the driver says -3),
                        "timeout" (of the chip, after 5 s; the driver asks again for ever),
                        "retry" (as the first, and the chip tries again 20 ms later),
                        "silent" (nothing is told)
        authentication  "up"; "silent": no access point answers; "none": nor is that told
        weak_joins      how many of the next joins get no keys, though the password is right
        carries         False: no frame passes, the association is kept
        rejoins         whether the chip joins again by itself what it has lost
        beacons         False: none is heard; the chip gives up the network after 8 s
        deaf_leave      True: the chip does not leave when it is told to
        unanswered      list of commands (int) and variables (str) that the chip never answers; "*"
        """
        self._command("wifi_air", **faults)

    def kick(self, how="deauth", told=True, **more):
        """
        Let the access point say goodbye, "deauth" or "disassoc"; told=False: the chip does not
        tell its driver that the link is down. reason: int, of 802.11.
        """
        self._command("wifi_kick", how=how, told=told, **more)

    def forget(self):
        """Let the access point forget the board: no frame passes, nobody is told."""
        self._command("wifi_forget")

    def lapse(self):
        """Let the chip leave the network by itself, as with WPA3 after hours."""
        self._command("wifi_lapse")

    def keys_differ(self):
        """Let the chip tell that it cannot decrypt what comes."""
        self._command("wifi_keys_differ")

    def chip(self, **faults):
        """
        Change what is wrong with the chip: dead (nothing on the bus, nothing heals it), and, until
        it was switched off, hung (its firmware), clogged (not ready for a packet), creditless
        (allows no more packets). All bool.
        """
        self._command("wifi_chip", **faults)

    def router(self, **faults):
        """
        Change what the router does.

        dhcp     "up", "silent", "nak" (refuses what is asked for), "offer" (acknowledges nothing)
        dhcp_ms  until it answers
        lease_s  of addresses from now on
        address  str: what the board gets from now on, 10.77.0.N; what it asks for else is refused
        arp      "up" or "silent"
        """
        self._command("wifi_router", **faults)

    def times(self, **ms):
        """Change how long things take (air.mjs says which), in emulated milliseconds."""
        self._command("wifi_times", **ms)

    def heal(self):
        """End all faults of the air, the chip and the router; access points are on."""
        self._command("wifi_heal")

    def history(self):
        """Return [seconds, text] of what passed between driver and chip since the last call."""
        return self._command("wifi_history")

    def state(self):
        """
        Return a dict: powered, ready, network (str or None), carries, country, power_save, and
        counters: power_ons, transfers, bytes, ioctls, events, frames_to_host, frames_from_host.
        """
        return self._command("wifi_state")
