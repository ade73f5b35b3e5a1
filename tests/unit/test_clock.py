"""SNTP answers and the plausible clock (RFC 4330 section 5, RFC 5905 section 6)."""

import random
import sys
import time

from mqtt_as_tls.clock import decode_time, plausible
from mqtt_as_tls.errors import ConnectError
from tests.unit.checks import raises

REQUEST = b"\x23" + bytes(39) + b"\1\2\3\4\xfb\xfc\xfd\xfe"
FROM_1900 = 2208988800
NOW = 1800000000  # 2027-01-15
LIFE = 631152000  # 20 years
TWENTY_CENTURIES = 946684800  # 1970 to 2000


def answer(seconds, first=0x24, stratum=2, originate=REQUEST[40:]):
    """Return a server's answer that says the Unix time `seconds`."""
    stamp = ((seconds + FROM_1900) % 2**32).to_bytes(4, "big") + b"\x80\0\0\0"
    return bytes((first, stratum)) + bytes(10) + b"ABCD" + bytes(8) + originate + stamp + stamp


class FakeTime:
    """A `time` module of a port whose epoch begins in `year`, at the Unix time `now`."""

    def __init__(self, year, now):
        self.epoch = TWENTY_CENTURIES if year == 2000 else 0
        self.now = now

    def time(self):
        return self.now - self.epoch

    def gmtime(self, seconds):
        return time.gmtime(seconds + self.epoch)[:8]


def clock_at(year, now):
    """Return the module `clock` as a port with that epoch and that time imports it."""
    modules = {name: sys.modules.get(name) for name in ("time", "mqtt_as_tls.clock")}
    sys.modules["time"] = FakeTime(year, now)
    del sys.modules["mqtt_as_tls.clock"]
    try:
        return __import__("mqtt_as_tls.clock", None, None, ["plausible"])
    finally:
        sys.modules.update(modules)
        sys.modules["mqtt_as_tls"].clock = modules["mqtt_as_tls.clock"]


def test_this_computers_clock_is_plausible():
    assert plausible() is True


def test_a_clock_before_the_release_is_not_plausible_whatever_the_epoch():
    for year in (1970, 2000):
        assert clock_at(year, 1609459200).plausible() is False, year  # rp2 starts in 2021
        assert clock_at(year, TWENTY_CENTURIES).plausible() is False, year  # esp32 in 2000
        assert clock_at(year, 0).plausible() is False, year
        assert clock_at(year, 1785542399).plausible() is False, year
        assert clock_at(year, 1785542400).plausible() is True, year
        assert clock_at(year, NOW).plausible() is True, year
        assert clock_at(year, 1785542400 + LIFE - 1).plausible() is True, year
        assert clock_at(year, 1785542400 + LIFE).plausible() is False, year  # 2046
        assert clock_at(year, 1 << 32).plausible() is False, year


def test_the_time_is_read_from_the_transmit_timestamp():
    assert decode_time(answer(NOW), REQUEST) == NOW


def test_the_era_that_begins_in_2036_is_understood():
    for seconds in (2085978495, 2085978497, 2147483648, 4294967295):
        assert decode_time(answer(seconds), REQUEST) == seconds


def test_more_bytes_than_the_header_are_an_extension():
    assert decode_time(answer(NOW) + bytes(20), REQUEST) == NOW


def test_every_version_of_a_server_is_taken():
    for version in (1, 2, 3, 4):
        assert decode_time(answer(NOW, version << 3 | 4), REQUEST) == NOW


def test_what_does_not_return_our_timestamp_is_ignored():
    for originate in (bytes(8), b"\xff" * 8, REQUEST[40:47] + b"\0"):
        assert decode_time(answer(NOW, originate=originate), REQUEST) is None
        assert decode_time(answer(NOW, stratum=0, originate=originate), REQUEST) is None


def test_what_is_not_a_server_is_ignored():
    for mode in (0, 1, 2, 3, 6, 7):
        assert decode_time(answer(NOW, 0x20 | mode), REQUEST) is None
    assert decode_time(REQUEST, REQUEST) is None


def test_an_answer_that_is_cut_anywhere_is_ignored():
    for size in range(48):
        assert decode_time(answer(NOW)[:size], REQUEST) is None


def test_a_server_without_the_time_says_so():
    for first, stratum in ((0x24, 0), (0x24, 16), (0x24, 255), (0xE4, 2)):
        with raises(ConnectError, "time server has no time (stratum %d" % stratum) as caught:
            decode_time(answer(NOW, first, stratum), REQUEST)
        assert "ABCD" in str(caught.error)  # the reason of a kiss-o'-death


def test_a_time_before_the_release_is_no_time():
    for seconds in (-FROM_1900, 0, 1609459200, 1785542399):
        with raises(ConnectError, "has no time"):
            decode_time(answer(seconds), REQUEST)


def test_hostile_answers_raise_nothing_but_connect_error():
    random.seed(21)
    for _ in range(10_000):
        data = bytearray(answer(NOW))
        for _ in range(random.getrandbits(3)):
            data[random.getrandbits(8) % 48] = random.getrandbits(8)
        try:
            found = decode_time(bytes(data[: random.getrandbits(6) or None]), REQUEST)
        except ConnectError:
            continue
        assert found is None or 1785542400 <= found < 2**32
