"""Arguments that several commands take: what argparse makes of their texts, a board's port."""

from .names import LONGEST_DAYS, is_address


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
