"""Arguments that several commands take: what argparse makes of their texts, a board's port."""

from .messages import Failure, Usage
from .names import LONGEST_DAYS, is_address, is_port, parse_host

# what add_login adds
LOGIN = (
    *("user", "password_file", "cert", "key", "pfx", "aws", "passphrase_file"),
    *("client_id", "home"),
)
_SCHEMES = ("", "mqtt", "mqtts", "tcp", "ssl", "tls")


def port(text):
    """Return the port in `text` (int), for argparse."""
    number = int(text)
    if not 0 < number < 65536:
        raise ValueError
    return number


def address(text):
    """Return the IP address in `text` (str), for argparse."""
    if not is_address(text):
        raise ValueError
    return text


def days(text):
    """Return a number of days (int), for argparse."""
    number = int(text)
    if not 0 < number <= LONGEST_DAYS:
        raise ValueError
    return number


def add_serial_port(parser):
    """Add --port, with which a command finds the board."""
    parser.add_argument(
        "--port", default="auto", help="serial port of the board (default: the only board)"
    )


def host_port(text):
    """
    Return (host, port or None) of "broker.lan:8883" or "mqtts://broker.lan:8883"; raise Usage when
    it is neither.
    """
    right = "give HOST or HOST:PORT, such as broker.lan:8883"
    if "@" in text or "?" in text:  # maybe with a password, which is not shown
        raise Usage(f"{right}; the user with --user, the password with --password-file")
    scheme, _, rest = text.strip().rpartition("://")
    if scheme.lower() in ("ws", "wss"):
        raise Usage(f"{text!r}: boards know no MQTT over WebSocket, {right}, its port for TLS")
    if scheme.lower() not in _SCHEMES:
        raise Usage(f"{text!r} is no broker of MQTT: {right}")
    rest = rest.rstrip("/")
    host, colon, port = rest.partition(":")
    if ":" in port or rest.startswith("["):
        raise Usage(f"{text!r}: boards know no IPv6, give a name or an IPv4 address")
    if not host:
        raise Usage(f"{text!r}: {right}")
    try:
        host = parse_host(host)
    except Failure as failure:
        raise Usage(f"{failure.fact}: {right}") from None
    if not colon:
        return host, None
    if not is_port(port):
        raise Usage(f"{port[:40]!r} is no port: 1 to 65535, usually 8883")
    return host, int(port)


def server_name(text):
    """Return the name in a certificate that --name gives (str); raise Usage where it is none."""
    try:
        return parse_host(text)
    except Failure as failure:
        raise Usage(f"--name {failure.fact}: {failure.cure}") from None


def add_login(parser):
    """Add what a board shows to somebody else's broker; foreign.login reads it."""
    own = parser.add_argument_group("who a board is, for a broker that is somebody else's")
    own.add_argument("--user", metavar="U", help="user name; its password is asked for")
    own.add_argument(
        "--password-file",
        metavar="FILE",
        help="the password is in the first line of FILE; - is the standard input",
    )
    own.add_argument("--cert", metavar="FILE", help="certificate, with its chain or without")
    own.add_argument("--key", metavar="FILE", help="its private key, where it is in another file")
    own.add_argument("--pfx", metavar="FILE", help="both in one file (PFX, P12)")
    own.add_argument(
        "--aws", metavar="FOLDER", help="with what AWS IoT let you download: certificate, key, CA"
    )
    own.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="what the key is encrypted with is in the first line of FILE (default: asked)",
    )
    own.add_argument("--client-id", metavar="ID", help="client id (default: the device's name)")
    own.add_argument(
        "--home",
        metavar="TOPICS/",
        help="what the topics that it may use begin with: config.home (default: devices/NAME/)",
    )
