"""Which names the user may give: of a device, of the broker, a port. Texts, no files."""

import contextlib
import ipaddress
import re

from . import broker
from .messages import Failure

DEVICE_NAME_RULE = (
    "1 to 64 of A-Z a-z 0-9 _ . -, not a dot or dash at the start, not a dot at the end, not what "
    "Windows keeps for itself (CON, NUL, COM1, …) or the doctor (mqttls-doctor…)"
)

KEY_KINDS = ("p256", "p384", "p521", "rsa2048", "rsa4096")
LONGEST_DAYS = 36500  # that a certificate may live

_DEVICE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?")
_RESERVED = re.compile(r"(?i:(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|mqttls-doctor.*)")
DOCTOR = "mqttls-doctor"  # with which its clients' names begin
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def is_device_name(text):
    """
    Tell whether `text` may name a device: see DEVICE_NAME_RULE.

    The name becomes the certificate's CN, the broker's user name, a part of topics and a folder:
    mosquitto would take / + # in it, which poisons the ACL; dots or dashes at the start make
    hidden folders, "..", and what looks like an option. Windows opens a device where a file is
    named "aux" or "nul.txt", and drops a dot at the end; the folder may be moved there one day.
    """
    return _DEVICE_NAME.fullmatch(text) is not None and _RESERVED.fullmatch(text) is None


def check_device_name(text):
    """Return `text`, or raise Failure when it may not name a device."""
    if not is_device_name(text):
        raise Failure(
            f"{text!r} cannot be a device's name", f"use {DEVICE_NAME_RULE}", stage="files"
        )
    return text


def parse_host(text):
    """
    Return the name or address of a broker (str) as certificates hold it: lower case.

    Raises Failure when it can be neither.
    """
    cure = "give a host name or an IP address only"
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        pass
    else:
        if "%" in text:  # of this PC's network card; no certificate has it
            raise Failure(f"{text!r} has a zone behind the address", f"{cure}, without %…")
        return str(address)
    if "@" in text:  # maybe behind a password, which is not shown
        raise Failure("a name with @ is that of a user, too", cure)
    if "://" in text or "/" in text:
        raise Failure(f"{text!r} is not a name but an address of another form", cure)
    if text.count(":") == 1:
        raise Failure(f"{text!r} has a port in it", f"{cure}, and the port with --port")
    if not text.isascii():
        spelled = ""
        with contextlib.suppress(UnicodeError):
            spelled = f", in DNS it is {text.encode('idna').decode()}"
        raise Failure(f"{text!r} is not ASCII{spelled}", "give its xn-- form, as DNS has it")
    if text.endswith(".") and len(text) > 1:
        raise Failure(f"{text!r} ends with a dot, which no certificate has", f"{cure}, without it")
    labels = text.split(".")
    if len(text) > 253 or not all(_HOST_LABEL.fullmatch(each) for each in labels):
        raise Failure(f"{text!r} is neither a host name nor an IP address", cure)
    if labels[-1].isdigit():
        raise Failure(f"{text!r} is not an IP address: four numbers from 0 to 255", cure)
    return text.lower()


def is_address(name):
    """Tell whether `name` is an IP address, without a zone (%eth0), which may be any text."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return "%" not in name


def settings_problem(settings):
    """
    Return what is wrong with the values of settings.json (dict, its types as `files` checks them),
    "" if nothing: they go into configurations and commands.
    """
    for key in ("port", *settings["days"]):
        value = settings["days"].get(key, settings["port"])
        most = 65535 if key == "port" else LONGEST_DAYS
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            return f"`{key}` is {value!r}"
    limits = settings.get("limits", {})
    try:
        for name, number in limits.items():
            broker.limit(f"{name}={number}" if type(number) is int else name)
    except (AttributeError, ValueError):
        return "`limits` is not what the broker takes"
    if settings["bind"] is not None and not is_address(settings["bind"]):
        return f"`bind` is {settings['bind']!r}, which is no address"
    if settings["key"] not in KEY_KINDS:
        return f"`key` is {settings['key']!r}"
    if not settings["names"] or not all(map(_is_host, settings["names"])):
        return "`names` is not a list of names and addresses"
    if not all(map(is_device_name, settings["admins"])):
        return "`admins` is not a list of devices"
    monitors = settings.get("monitors", [])
    if not isinstance(monitors, list) or not all(
        isinstance(each, str) and is_device_name(each) for each in monitors
    ):
        return "`monitors` is not a list of devices"
    return ""


def _is_host(text):
    try:
        return parse_host(text) == text
    except Failure:
        return False


def is_port(text):
    """Tell whether `text` (str) is the number of a port."""
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536
