"""The arguments of WiFi: checks, and what becomes of them. Imported when one is made."""

from micropython import const

from . import load

_PM_NONE = const(0xA11140)  # what WLAN.PM_NONE is, also where that has no name
_PM_SAVE = const(0xA11142)  # the driver's default


def _wrong(what, *args):
    return load("argument_errors").wifi(what, *args)


def _check(what, value, low, high):
    if not isinstance(value, str) or not low <= len(value.encode()) <= high:
        raise _wrong(what, value, low, high)


def taken(ssid, password, networks, country, hostname, static, power_save):
    """
    Take the arguments of WiFi. Country and hostname are set; the radio is not touched.

    Returns the networks (list of (ssid, password)), the settings for config() (dict), whether the
    country is another one than before, and the interface.

    Raises ValueError and TypeError.
    """
    try:
        import network

        make = network.WLAN
    except (ImportError, AttributeError):
        raise _wrong("WLAN")
    if networks and not isinstance(networks, (tuple, list)):
        raise _wrong("networks")
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
    if static is not None:
        try:
            numbers = [int(n) >> 8 for n in ".".join(static).split(".")]
        except (TypeError, ValueError):
            numbers = 0
        if numbers != [0] * 16 or len(static) != 4:
            raise _wrong("static")
    new_country = False
    if country is not None:
        country = str(country).upper()
        if len(country) != 2 or not country.isalpha():
            raise _wrong("country")
        new_country = network.country() != country
        network.country(country)
    if hostname is not None:
        _check("hostname", hostname, 1, 32)
        network.hostname(hostname)
    # Only the cyw43 has deinit(). On the esp32 3 is enough for a weak signal, and the default of
    # -1 hides why it cannot join.
    settings = {"reconnects": 3}
    if hasattr(make, "deinit"):
        settings = {"pm": _PM_SAVE if power_save else _PM_NONE}
    return pairs, settings, new_country, make(network.STA_IF)
