"""What programs of the contract have happen, done by a virtual Pico W."""

SSID = "my-ssid"
PASSWORD = "my-password"
NETWORKS = [{"ssid": SSID, "password": PASSWORD}, {"ssid": "open", "password": None}]

# {action: what it does with Pico.wifi}; scene_fake.py has the same
ACTIONS = {
    "access point off": lambda wifi: wifi.access_point(SSID, False),
    "access point on": lambda wifi: wifi.access_point(SSID, True),
    "goodbye": lambda wifi: wifi.kick(),
    "chip leaves": lambda wifi: wifi.lapse(),
    "stay away": lambda wifi: wifi.air(rejoins=False),
    "no answer": lambda wifi: wifi.air(authentication="silent"),
    "keys are never told": lambda wifi: wifi.air(wrong_key="timeout"),
    "keys are told briefly": lambda wifi: wifi.air(wrong_key="retry"),
    "dhcp silent": lambda wifi: wifi.router(dhcp="silent"),
    "dhcp up": lambda wifi: wifi.router(dhcp="up"),
    "other address": lambda wifi: wifi.router(address="10.77.0.42"),
    "hang": lambda wifi: wifi.chip(hung=True),
    "die": lambda wifi: wifi.chip(dead=True),
    "well": lambda wifi: wifi.heal(),
}


def restore(wifi):
    """Be as at first."""
    wifi.heal()
    wifi.router(address="10.77.0.2")
    for network in NETWORKS:
        wifi.add(**network)
