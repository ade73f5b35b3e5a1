"""
WiFi against a fake `network` module: the tests that tests/integration/test_wifi.py runs under
MicroPython, all in one process, each on a board fresh from power-on.
"""

import asyncio
import sys

from mqtt_as_tls import wifi as wifi_module
from mqtt_as_tls import wifi_faults
from mqtt_as_tls.errors import LinkError, MQTTError
from mqtt_as_tls.wifi import WiFi
from tests.fakes import network
from tests.unit.checks import raises, run_tests


class Clock:
    """
    The time of these tests, which goes on only while tasks sleep: it does not count for how long
    this computer is busy with others. As fast as they can, but not faster than ours while one
    waits for a datagram.
    """

    _sleep_ms = asyncio.sleep_ms

    def __init__(self):
        self.now_ms = 0

    def ticks_ms(self):
        return self.now_ms

    async def sleep_ms(self, ms):
        end_ms = self.now_ms + ms
        await Clock._sleep_ms(0)
        while self.now_ms < end_ms:
            seen_ms = self.now_ms
            await Clock._sleep_ms(1 if asyncio.core._io_queue.map else 0)
            if self.now_ms == seen_ms:  # all others that can had their turn
                self.now_ms += 1


network.time = clock = Clock()
asyncio.sleep_ms = clock.sleep_ms
wifi_module.ticks_ms = wifi_faults.ticks_ms = network.ticks_ms
wifi_module.unload = wifi_faults.unload = lambda *names: None  # or that would be forgotten
POLL_MS = WiFi._poll_ms
WiFi._poll_ms = 2
WiFi._timeout_ms = 160
wifi_faults.ANSWER_MS = 100


def home(**options):
    return WiFi("home", "correct horse", **options)


def called(name):
    return [call for call in network.calls if call[0] == name]


def joined():
    """The names of the networks that were asked, in order."""
    return [call[1] for call in called("connect")]


async def fails(wifi, text, status):
    """Check that up() raises a LinkError with `text` and `status`; return its text."""
    with raises(LinkError, text) as caught:
        await wifi.up()
    assert caught.error.status == status, caught.error.status
    assert not wifi.is_up()
    return str(caught.error)


# What cannot be right


def test_the_radio_is_not_touched_before_up():
    home()
    assert network.calls == []


def test_a_name_that_cannot_be_right_raises():
    with raises(TypeError, "ssid must be a str"):
        WiFi(b"home", "correct horse")
    with raises(TypeError, "ssid must be a str"):
        WiFi()
    for ssid in ("", "x" * 33, "ü" * 17):
        with raises(ValueError, "ssid must have 1 to 32 bytes"):
            WiFi(ssid, "correct horse")
    WiFi("ü" * 16, "correct horse")


def test_a_password_that_cannot_be_right_raises_and_is_not_shown():
    with raises(TypeError, "password must be a str"):
        WiFi("home", 12345678)
    for password in ("", "seven 7", "x" * 64, "a" * 65, "a" * 63 + "g"):
        with raises(ValueError, "password must have 8 to 6") as caught:
            WiFi("home", password)
        assert not password or password not in str(caught.error)


def test_passwords_of_8_to_63_characters_and_hexadecimal_keys_are_good():
    for password in ("eight 88", "x" * 63, "0123456789abcdefABCDEF" + "0" * 42, None):
        WiFi("home", password)


def test_an_ssid_and_networks_together_raise():
    pairs = [("home", "correct horse")]
    for arguments in ({"ssid": "home"}, {"password": "correct horse"}):
        with raises(ValueError, "ssid, password or networks="):
            WiFi(networks=pairs, **arguments)


def test_networks_that_are_no_pairs_raise():
    for networks in (["home"], "home", [("home",)], [("a", "correct horse", 3)], [None]):
        with raises(ValueError, "networks=[(ssid, password)]"):
            WiFi(networks=networks)
    with raises(ValueError, "password must have"):
        WiFi(networks=[("home", "correct horse"), ("shed", "short")])
    with raises(TypeError):
        WiFi(networks=[])


def test_a_country_that_is_not_two_letters_raises():
    for country in ("", "D", "DEU", "D1", 49):
        with raises(ValueError, "country must be 2 letters"):
            home(country=country)


def test_a_hostname_that_cannot_be_right_raises():
    for hostname in ("", "x" * 33):
        with raises(ValueError, "hostname must have 1 to 32 bytes"):
            home(hostname=hostname)
    with raises(TypeError, "hostname must be a str"):
        home(hostname=b"pico")


def test_a_static_address_that_is_not_four_addresses_raises():
    good = ("192.168.1.50", "255.255.255.0", "192.168.1.1", "192.168.1.1")
    home(static=good)
    home(static=list(good))
    for static in (
        (),
        good[:3],
        good + good[:1],
        good[0],
        good[:3] + ("192.168.1",),
        good[:3] + ("192.168.1.256",),
        good[:3] + ("192.168.1.-1",),
        good[:3] + ("router.lan.or.so",),
        good[:3] + (None,),
        ("192.168.1.50/24",) + good[1:],
        (".".join(good[:2]),) + good[2:],
        7,
    ):
        with raises(ValueError, "static must be 4 IPv4 addresses"):
            home(static=static)


def test_a_machine_without_wifi_is_told_to_pass_no_link():
    module = sys.modules.pop("network")
    try:
        with raises(ValueError, "pass link=None"):
            home()
        sys.modules["network"] = object()  # Ethernet only
        with raises(ValueError, "pass link=None"):
            home()
    finally:
        sys.modules["network"] = module


# Joining


async def test_up_joins_and_returns_with_an_address():
    wifi = home()
    assert not wifi.is_up()
    await wifi.up()
    assert wifi.is_up()
    assert network.traffic()
    assert network.WLAN().ifconfig()[0] == network.air.address
    assert called("connect") == [("connect", "home", "correct horse")]


async def test_up_returns_at_once_when_it_is_up():
    wifi = home()
    await wifi.up()
    before = len(network.calls)
    await wifi.up()
    assert len(network.calls) == before


async def join_as_boot_py(ssid="home", password="correct horse"):
    wlan = network.WLAN()
    wlan.active(True)
    wlan.connect(ssid, password)
    while not wlan.isconnected():
        await asyncio.sleep_ms(1)
    network.calls.clear()
    network.blocked.clear()


async def test_what_boot_py_or_an_earlier_program_joined_is_not_taken_for_ours():
    network.air.networks["shed"] = "rusty nails"
    for board in ("cyw43", "esp32"):
        network.board(board)
        network.air.networks["shed"] = "rusty nails"
        await join_as_boot_py()
        wifi = WiFi("shed", "rusty nails")
        assert not wifi.is_up()
        await wifi.up()
        assert joined() == ["shed"] and wifi.is_up()
        assert called("deinit") == []  # Bluetooth and an access point go on


async def test_a_wrong_password_is_found_though_an_earlier_program_had_the_right_one():
    for board, status in (("cyw43", -3), ("esp32", 202)):
        network.board(board)
        await join_as_boot_py()
        await fails(WiFi("home", "correct mouse"), "wrong password", status)


async def test_settings_are_applied_though_an_earlier_program_had_joined():
    await join_as_boot_py()
    network.air.dhcp = False
    static = ("192.168.1.50", "255.255.255.0", "192.168.1.1", "192.168.1.2")
    await home(static=static, hostname="garden", power_save=True).up()
    assert network.WLAN().ifconfig() == static
    assert network.WLAN().config("pm") == network.WLAN.PM_PERFORMANCE
    assert network.hostname() == "garden"


async def test_a_static_address_of_an_earlier_program_gives_way_to_dhcp():
    network.WLAN().active(True)
    network.WLAN().ifconfig(("192.168.1.50", "255.255.255.0", "192.168.1.1", "192.168.1.2"))
    await join_as_boot_py()
    await home().up()
    assert network.WLAN().ifconfig()[0] == network.air.address


async def test_a_new_country_takes_effect_unless_others_use_the_radio():
    for shared in (False, True):
        network.board("cyw43")
        await join_as_boot_py()
        network.air.access_point = shared
        await home(country="DE").up()
        assert network.driver.country == ("XX" if shared else "DE")
        assert len(called("deinit")) == (not shared)


async def test_a_second_object_with_the_same_settings_does_not_join_again():
    await home().up()
    network.calls.clear()
    other = WiFi(networks=[("home", "correct horse")])
    await other.up()
    assert other.is_up() and network.calls == []


async def test_new_settings_of_the_same_program_take_effect_at_the_first_up():
    network.air.networks["shed"] = "rusty nails"
    old = home()
    await old.up()
    new = WiFi("shed", "rusty nails")
    await new.up()
    assert joined() == ["home", "shed"]
    await old.up()
    assert joined() == ["home", "shed"]  # no tug of war


async def test_a_join_that_boot_py_began_is_no_obstacle():
    for board in ("cyw43", "esp32"):
        network.board(board)
        wlan = network.WLAN()
        wlan.active(True)
        wlan.connect("home", "correct horse")
        wifi = home()
        await wifi.up()
        assert wifi.is_up()


async def test_country_and_hostname_are_set_before_the_radio_is_switched_on():
    await home(country="de", hostname="garden").up()
    assert network.calls[:3] == [("country", "DE"), ("hostname", "garden"), ("active", True)]


async def test_an_open_network_is_joined_without_a_password():
    network.air.networks["cafe"] = None
    await WiFi("cafe").up()
    assert called("connect") == [("connect", "cafe", None)]


async def test_a_static_address_needs_no_dhcp():
    network.air.dhcp = False
    static = ("192.168.1.50", "255.255.255.0", "192.168.1.1", "192.168.1.2")
    wifi = home(static=static)
    await wifi.up()
    assert network.WLAN().ifconfig() == static
    assert wifi.dns_servers() == ["192.168.1.2"]
    await wifi.down()  # which makes the driver forget it
    await wifi.up()
    assert network.WLAN().ifconfig() == static


async def test_power_saving_is_off_unless_asked_for():
    wifi = home()
    await wifi.up()
    assert network.WLAN().config("pm") == network.WLAN.PM_NONE
    await wifi.down()
    await wifi.up()
    assert network.WLAN().config("pm") == network.WLAN.PM_NONE
    await wifi.down()
    await home(power_save=True).up()
    assert network.WLAN().config("pm") == network.WLAN.PM_PERFORMANCE


async def test_dns_servers_are_those_that_dhcp_gave():
    wifi = home()
    assert wifi.dns_servers() == []
    await wifi.up()
    assert wifi.dns_servers() == [network.air.dns]
    network.air.dns = "10.9.8.7"
    await wifi.down()
    await wifi.up()
    assert wifi.dns_servers() == ["10.9.8.7"]


# Failures, and what becomes of them


async def test_a_flake_is_asked_again_before_anybody_hears_of_it():
    for status in (-3, -2, -1, 0):
        network.board("cyw43")
        network.air.flakes = [status]
        wifi = home()
        await wifi.up()
        assert wifi.is_up()
        assert joined() == ["home", "home"]


async def test_a_wrong_password_is_called_so():
    network.air.networks["home"] = "another horse"
    text = await fails(home(), "Wi-Fi 'home': wrong password: check it", -3)
    assert "correct horse" not in text
    assert joined() == ["home", "home"]


async def test_a_wrong_password_that_shows_for_20_ms_only_is_not_missed():
    assert POLL_MS <= 10
    network.air.networks["home"] = "another horse"
    network.air.wrong_key = "briefly"
    await fails(home(), "Wi-Fi 'home': wrong password", -3)


async def test_a_wrong_password_that_never_shows_is_among_the_causes():
    network.air.networks["home"] = "another horse"
    network.air.wrong_key = "never"
    await fails(home(), "Wi-Fi 'home': cannot join (1): wrong password?", 1)


async def test_a_network_out_of_reach_is_called_so():
    await fails(WiFi("hom", "correct horse"), "Wi-Fi 'hom': no such network in reach", -2)


async def test_a_missing_address_is_called_so():
    network.air.dhcp = False
    await fails(home(), "got no address: check the router's DHCP, or give static=", 2)


async def test_a_silent_access_point_is_given_up_in_time():
    network.air.silent = True
    await fails(home(), "cannot join (1): wrong password? weak signal?", 1)


async def test_a_link_error_is_one_of_ours():
    network.air.networks.clear()
    with raises(MQTTError):
        await home().up()


async def test_the_other_tasks_go_on_while_it_fails():
    network.air.silent = True
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep_ms(1)

    ticker = asyncio.create_task(tick())
    await fails(home(), "", 1)
    ticker.cancel()
    assert ticks > 10, ticks


async def test_up_works_once_the_cause_is_gone():
    wifi = home()
    for broken, healed in (
        ({"networks": {}}, {"networks": {"home": "correct horse"}}),
        ({"networks": {"home": "another horse"}}, {"networks": {"home": "correct horse"}}),
        ({"dhcp": False}, {"dhcp": True}),
        ({"silent": True}, {"silent": False}),
    ):
        for changes in (broken, healed):
            for name in changes:
                setattr(network.air, name, changes[name])
            if changes is broken:
                with raises(LinkError):
                    await wifi.up()
        await wifi.up()
        assert wifi.is_up()
        await wifi.down()


async def test_a_lost_link_is_joined_again():
    wifi = home()
    await wifi.up()
    network.lose_link()
    assert not wifi.is_up()
    assert network.WLAN().status() == 1  # for ever
    await wifi.up()
    assert network.traffic()


async def test_an_access_point_that_restarts_is_found_again():
    wifi = home()
    await wifi.up()
    network.lose_link()
    network.air.networks.clear()
    for _ in range(3):
        await fails(wifi, "no such network in reach", -2)
    network.air.networks["home"] = "correct horse"
    await wifi.up()
    assert network.traffic()


async def test_a_link_that_lost_its_address_is_not_up_and_is_joined_again():
    for board in ("cyw43", "esp32"):
        network.board(board)
        wifi = home()
        await wifi.up()
        network.lose_lease()
        assert network.WLAN().isconnected() == (board == "esp32")
        assert not wifi.is_up()
        await wifi.up()
        assert network.traffic()


async def test_an_association_lost_unnoticed_is_healed_by_reset():
    wifi = home()
    await wifi.up()
    network.lose_association()
    assert wifi.is_up() and not network.traffic()
    await wifi.up()  # believes the driver
    assert not network.traffic()
    await wifi.reset()
    assert not wifi.is_up()
    assert called("deinit") == []
    await wifi.up()
    assert network.traffic()


async def test_a_link_that_stays_up_after_disconnect_is_healed_by_reset():
    wifi = home()
    await wifi.up()
    network.air.sticky = True
    network.lose_association()
    await wifi.reset()
    assert not wifi.is_up()
    await wifi.up()
    assert network.traffic()


async def test_a_stuck_chip_is_switched_off_and_on():
    network.air.stuck = True
    wifi = home()
    await fails(wifi, "cannot join (1)", 1)
    assert called("deinit") == []
    await fails(wifi, "cannot join (1)", 1)
    assert len(called("deinit")) == 1
    await wifi.up()
    assert network.traffic()


async def test_a_radio_that_hears_is_not_switched_off_for_a_missing_network():
    network.air.networks.clear()
    wifi = home()
    for _ in range(8):
        await fails(wifi, "no such network", -2)
    network.air.networks["home"] = "another horse"
    for _ in range(8):
        await fails(wifi, "wrong password", -3)
    assert called("deinit") == []


async def test_a_radio_is_switched_off_and_on_more_rarely_each_time():
    WiFi._timeout_ms = 20
    try:
        network.air.silent = True
        wifi = home()
        off_after = []
        for failure in range(1, 31):
            before = len(called("deinit"))
            await fails(wifi, "cannot join", 1)
            if len(called("deinit")) > before:
                off_after.append(failure)
    finally:
        WiFi._timeout_ms = 160
    assert off_after == [2, 6, 14, 30], off_after


async def test_failures_are_counted_from_the_last_success():
    wifi = home()
    for _ in range(3):
        network.air.silent = True
        await fails(wifi, "cannot join (1)", 1)
        network.air.silent = False
        await wifi.up()
        await wifi.reset()
    assert called("deinit") == []


DEAD = "Wi-Fi: the radio does not start: power-cycle the board, or machine.reset()"


async def test_a_chip_that_does_not_start_is_tried_once_and_nothing_else_is_asked_of_it():
    network.air.broken = True
    await fails(home(), DEAD, None)
    assert network.calls == [("active", True)]
    assert network.driver.starts == network.driver.STARTS - 1


async def test_a_chip_that_does_not_start_is_tried_more_rarely_each_time():
    network.air.broken = True
    wifi = home()
    tried = []
    for second in range(0, 8000, 5):
        before = len(network.calls)
        error = None
        try:
            await wifi.up()
        except LinkError as e:
            error = e
        assert str(error) == DEAD
        if len(network.calls) > before:
            assert len(network.calls) == before + 1
            tried.append(second)
        assert getattr(error, "failed_starts", 0) == (second in tried and len(tried))
        network.pass_ms(5000)
    # the last start that the driver can do is over half an hour after the first
    assert tried == [0, 5, 35, 155, 755, 2555, 4355, 6155, 7955], tried


async def test_a_chip_that_does_not_start_is_tried_no_more_often_for_two():
    network.air.broken = True
    wifis = [home(), WiFi("shed", "rusty nails")]
    tried = 0
    for _ in range(0, 700, 5):
        for wifi in wifis:
            before = len(called("active"))
            await fails(wifi, DEAD, None)
            tried += len(called("active")) - before
        network.pass_ms(5000)
    assert tried == 4, tried
    network.air.broken = False
    network.pass_ms(1_800_000)
    for wifi in wifis[:1]:
        await wifi.up()
    assert network.traffic()


async def test_a_chip_that_starts_after_all_is_used_at_once():
    network.air.broken = True
    wifi = home()
    for _ in range(4):
        await fails(wifi, DEAD, None)
        network.pass_ms(601_000)
    network.air.broken = False
    await wifi.up()
    assert network.traffic()
    network.air.broken = True
    await wifi.down()
    await fails(wifi, DEAD, None)  # at once: the count began anew
    assert network.driver.starts == network.driver.STARTS - 5


async def test_a_radio_that_another_program_asked_for_in_vain_is_not_asked_for_more():
    network.air.broken = True
    network.WLAN().active(True)  # before a soft reset
    assert network.WLAN().active()
    network.calls.clear()
    wifi = home()
    for _ in range(3):
        await fails(wifi, DEAD, None)
        await wifi.reset()
        await wifi.down()
    assert network.calls == [("active", True)]


async def test_the_driver_can_start_a_chip_six_times_and_no_more():
    network.air.broken = True
    wlan = network.WLAN()
    for _ in range(6):
        wlan.active(True)
    network.air.broken = False
    wlan.active(True)
    wlan.deinit()
    wlan.active(True)
    await fails(home(), DEAD, None)


async def test_a_chip_that_hangs_is_switched_off_at_the_first_call_that_shows_it():
    for first in ("reset", "alive", "up"):
        network.board("cyw43")
        network.air.dns = "127.0.0.1"
        wifi = home()
        await wifi.up()
        network.air.hung = True
        network.blocked.clear()
        if first == "up":
            network.lose_link()
        elif first == "alive":
            assert await wifi.alive() is False
        if first != "up":
            await wifi.reset()
        assert not wifi.is_up()
        await wifi.up()
        assert network.traffic()
        calls = [call for call, ms in network.blocked if ms >= 1000]
        found = "status" if first == "alive" else "disconnect"
        assert calls == [found, "ipconfig", "deinit"], network.blocked
        assert network.longest_ms() <= 6000  # a watchdog of 8 s does not bite


async def test_a_chip_that_hangs_in_a_join_is_told_nothing_more():
    try:
        # at the command to leave, at those for power saving, in those of the join itself, which
        # does not tell that they were in vain
        for at, first, longest_s in ((0, [], 6), (1, ["config"], 8), (2, ["connect"], 11)):
            WiFi._timeout_ms = 10_000 if "connect" in first else 1_000_000
            network.board("cyw43")
            wifi = home()
            await wifi.up()
            network.lose_link()
            network.blocked.clear()
            network.driver.command = hangs_after(at, network.driver.command)
            blocked = []
            watch = asyncio.create_task(note_what_blocks(blocked))
            if "connect" in first:
                await fails(wifi, "cannot join (1)", 1)
            await wifi.up()
            watch.cancel()
            assert network.traffic()
            calls = [call for call, ms in network.blocked if ms >= 1000]
            assert calls == first + ["disconnect", "ipconfig", "deinit"], network.blocked
            assert max(blocked) // 1000 == longest_s, max(blocked)
    finally:
        WiFi._timeout_ms = 160


def hangs_after(count, command):
    def called(*args):
        nonlocal count
        if not count:
            network.air.hung = True
        count -= 1
        return command(*args)

    return called


async def note_what_blocks(found):
    """Add to `found` for how many ms the driver blocks from one turn of this task to the next."""
    while True:
        before = sum([ms for _, ms in network.blocked])
        await asyncio.sleep_ms(0)
        found.append(sum([ms for _, ms in network.blocked]) - before)


async def test_a_chip_that_an_earlier_program_left_hanging_is_switched_off():
    await join_as_boot_py()
    network.air.hung = True
    await home().up()
    assert network.traffic() and network.longest_ms() <= 6000


async def test_the_radio_is_switched_on_once_and_not_in_every_retry():
    network.air.networks.clear()
    wifi = home()
    for _ in range(5):
        await fails(wifi, "no such network", -2)
    network.air.networks["home"] = "correct horse"
    await wifi.up()
    network.lose_link()
    await wifi.up()
    await wifi.reset()
    await wifi.up()
    assert [ms for call, ms in network.blocked if call == "active"] == [870]
    assert max([ms for call, ms in network.blocked if call != "active"]) < 20


# An address that outlives the link


async def test_an_old_address_counts_once_dhcp_has_confirmed_it():
    wifi = home()
    await wifi.up()
    network.lose_link()
    network.air.nak_ms = 1_000_000
    WiFi._timeout_ms = 1_000_000
    try:
        task = asyncio.create_task(wifi.up())
        while not network.WLAN().isconnected():
            await asyncio.sleep_ms(1)
        await asyncio.sleep_ms(10)
        assert not task.done()
        network.driver.asked_again()
        assert await task is None
        assert network.driver.leased_by_dhcp
    finally:
        WiFi._timeout_ms = 160


async def test_the_old_address_does_not_count_in_another_network():
    wifi = WiFi(networks=PAIRS)
    await wifi.up()
    network.lose_link()
    network.air.networks = {"shed": "rusty nails"}
    network.air.address = "10.0.0.9"
    await wifi.up()
    assert network.WLAN().ifconfig()[0] == "10.0.0.9"
    assert network.traffic()


async def test_without_dhcp_an_old_address_that_carries_nothing_is_told_and_left():
    wifi = home()
    await wifi.up()
    network.lose_link()
    network.air.dhcp = False
    network.air.address = "10.0.0.9"  # the router is another one
    ports = []
    router = asyncio.create_task(network.gateway(ports.append))
    await asyncio.sleep_ms(5)
    wifi_faults.PORT = ports[0]
    await fails(wifi, "joined but got no address: check the router's DHCP", 2)
    assert not wifi.is_up()
    router.cancel()


async def test_without_dhcp_an_old_address_that_works_is_kept():
    wifi = home()
    await wifi.up()
    network.lose_link()
    network.air.dhcp = False
    ports = []
    router = asyncio.create_task(network.gateway(ports.append))
    await asyncio.sleep_ms(5)
    wifi_faults.PORT = ports[0]
    assert await wifi.up() == "no answer from DHCP, the old address works"
    assert wifi.is_up() and network.traffic()
    router.cancel()


# What changes while the board is in the network


async def until(is_so):
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep_ms(2)
    raise AssertionError("it takes too long")


async def test_an_address_that_the_router_does_not_renew_gives_way_to_another():
    for board in ("cyw43", "esp32"):
        network.board(board)
        wifi = home()
        await wifi.up()
        aborted = []
        network.on_abort = aborted.clear
        aborted.append(1)
        network.renumber("10.0.0.9", "10.0.0.1")
        assert not aborted and not wifi.is_up()
        await until(wifi.is_up)  # lwIP alone
        assert network.WLAN().ifconfig()[0] == "10.0.0.9"
        assert wifi.dns_servers() == ["10.0.0.1"] and network.traffic()
        network.renumber("10.0.0.10")
        await wifi.up()  # or together with it
        assert network.WLAN().ifconfig()[0] == "10.0.0.10" and network.traffic()


async def test_a_lease_that_ends_while_dhcp_is_dead_is_told_and_there_is_another_with_dhcp():
    for board in ("cyw43", "esp32"):
        for waits in (True, False):
            network.board(board)
            wifi = home()
            await wifi.up()
            network.air.dhcp = False
            network.lose_lease()
            assert not wifi.is_up()
            if not waits:
                await fails(
                    wifi,
                    "joined but got no address: check the router's DHCP",
                    2 if board == "cyw43" else 1000,
                )
            network.air.dhcp = True
            if waits:
                await until(wifi.is_up)  # lwIP asks on
            await wifi.up()
            assert network.traffic()
            assert called("deinit") == []


async def test_another_access_point_of_that_name_is_gone_to_without_a_word():
    for board in ("cyw43", "esp32"):
        network.board(board)
        wifi = home()
        await wifi.up()
        network.calls.clear()
        network.roam(20)
        assert wifi.is_up() and not network.traffic()
        while not network.traffic():
            assert wifi.is_up()
            await asyncio.sleep_ms(2)
        await wifi.up()
        assert network.calls == []


async def test_a_chip_that_joins_again_by_itself_is_let_or_made_to():
    for wait_ms in (0, 3, 15, 25, 60, None):
        network.board("cyw43")
        network.air.rejoins = True
        wifi = home()
        await wifi.up()
        network.lose_link()
        assert not wifi.is_up()
        if wait_ms is None:
            await until(wifi.is_up)
            assert joined() == ["home"]
        else:
            await asyncio.sleep_ms(wait_ms)
        await wifi.up()
        assert wifi.is_up() and network.traffic()
        await asyncio.sleep_ms(60)
        assert wifi.is_up() and network.traffic()


async def test_an_access_point_that_comes_back_with_another_password_is_told():
    for rejoins in (False, True):
        for wrong_key, status in (("told", -3), ("briefly", -3), ("never", 1)):
            network.board("cyw43")
            network.air.rejoins = rejoins
            network.air.wrong_key = wrong_key
            wifi = home()
            await wifi.up()
            network.air.networks.clear()
            network.lose_link()
            await fails(wifi, "no such network in reach", -2)
            network.air.networks["home"] = "another horse"
            for _ in range(2):
                await fails(wifi, "wrong password", status)
            network.air.networks["home"] = "correct horse"
            await wifi.up()
            assert network.traffic()


async def test_an_access_point_that_comes_back_with_another_security_is_told():
    for board, status in (("cyw43", -2), ("cyw43", 1), ("esp32", 210), ("esp32", 211)):
        network.board(board)
        wifi = home()
        await wifi.up()
        network.air.networks.clear()
        network.lose_link()
        network.air.networks["home"] = "correct horse"
        network.air.security = status
        text = await fails(wifi, "Wi-Fi 'home': ", status)
        assert "WPA2" in text, text
        network.air.security = None
        await wifi.up()
        assert network.traffic()


async def test_of_two_networks_the_other_one_is_taken_when_the_first_has_a_new_password():
    network.air.networks["shed"] = "rusty nails"
    wifi = WiFi(networks=PAIRS[:2])
    await wifi.up()
    network.lose_link()
    network.air.networks["home"] = "another horse"
    network.calls.clear()
    await wifi.up()
    assert joined() == ["home", "home", "shed"] and network.traffic()


# Is it alive?


async def test_a_router_that_answers_shows_that_the_link_is_alive():
    for board in ("cyw43", "esp32"):
        network.board(board)
        ports = []
        router = asyncio.create_task(network.gateway(ports.append))
        wifi = home()
        await wifi.up()
        wifi_faults.PORT = ports[0]
        assert await wifi.alive() is True
        network.lose_association()
        assert wifi.is_up()
        assert await wifi.alive() is False
        await wifi.reset()
        await wifi.up()
        assert await wifi.alive() is True
        router.cancel()


async def test_a_chip_that_somebody_else_switched_off_comes_back():
    wifi = home()
    await wifi.up()
    network.WLAN().deinit()
    assert not wifi.is_up()
    for _ in range(3):
        try:
            await wifi.up()
            break
        except LinkError:
            pass
    assert network.traffic()


# Several networks

PAIRS = [("home", "correct horse"), ("shed", "rusty nails"), ("cafe", None)]


async def test_networks_are_tried_in_turn():
    network.air.networks = {"cafe": None}
    await WiFi(networks=PAIRS).up()
    assert joined() == ["home", "home", "shed", "shed", "cafe"]


async def test_the_network_that_worked_last_is_tried_first():
    network.air.networks = {"shed": "rusty nails"}
    pairs = list(PAIRS)
    wifi = WiFi(networks=pairs)
    await wifi.up()
    network.lose_link()
    network.calls.clear()
    await wifi.up()
    assert joined() == ["shed"]
    network.lose_link()
    network.air.networks = {"home": "correct horse"}
    network.calls.clear()
    await wifi.up()
    assert joined() == ["shed", "shed", "home"]
    assert pairs == PAIRS  # the caller's list is his


async def test_when_none_works_the_error_tells_of_each():
    network.air.networks = {"home": "correct horse", "shed": "shiny nails"}
    network.air.dhcp = False
    wifi = WiFi(networks=PAIRS)
    text = await fails(wifi, "", -2)
    one, two, three = text.split("; ")[:3]
    assert one.startswith("Wi-Fi 'home': joined but got no address"), text
    assert two.startswith("Wi-Fi 'shed': wrong password"), text
    assert three.startswith("Wi-Fi 'cafe': no such network"), text


# Off, interrupted, shared


async def test_down_switches_the_chip_off_and_up_switches_it_on():
    wifi = home()
    await wifi.up()
    await wifi.down()
    assert not wifi.is_up() and not network.traffic()
    assert not network.WLAN().active()
    assert not network.driver.powered
    await wifi.up()
    assert network.traffic()


async def test_down_and_reset_before_up_do_nothing():
    wifi = home()
    await wifi.down()
    await wifi.reset()
    assert not network.driver.powered
    await wifi.up()
    assert network.traffic()


async def test_up_may_be_cancelled_anywhere_and_called_again():
    network.air.flakes = [-3] * 20
    for board in ("cyw43", "esp32"):
        network.board(board)
        wifi = home()
        for delay_ms in list(range(0, 60, 3)):
            network.air.flakes = [-3]
            task = asyncio.create_task(wifi.up())
            await asyncio.sleep_ms(delay_ms)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                pass
            network.air.flakes = []
            await wifi.up()
            assert network.traffic()
            await wifi.reset()
            assert not wifi.is_up()


async def test_up_goes_to_work_at_once_after_one_that_was_cancelled_or_failed():
    network.air.silent = True
    wifi = home()
    for cancel in (True, False):
        task = asyncio.create_task(wifi.up())
        await asyncio.sleep_ms(10)
        if cancel:
            task.cancel()
        with raises((LinkError, asyncio.CancelledError)):
            await task
        network.calls.clear()
        task = asyncio.create_task(wifi.up())
        await asyncio.sleep_ms(0)
        await asyncio.sleep_ms(0)
        assert network.calls, "it waits for nobody"
        task.cancel()
        with raises(asyncio.CancelledError):
            await task


async def test_tasks_that_share_the_link_join_once():
    wifi = home()
    await asyncio.gather(*[wifi.up() for _ in range(5)])
    assert network.traffic()
    assert joined() == ["home"]


async def test_tasks_that_share_the_link_do_not_disturb_each_other_when_it_fails():
    network.air.networks.clear()
    wifi = home()
    results = await asyncio.gather(*[wifi.up() for _ in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [LinkError] * 3, results
    assert joined() == ["home"] * 6
    network.air.networks["home"] = "correct horse"
    await wifi.up()


def test_a_run_that_ctrl_c_ended_is_no_obstacle_to_the_next():
    wifi = home()

    async def interrupted():
        asyncio.create_task(wifi.up())
        await asyncio.sleep_ms(60)  # so that nothing comes of this join later
        raise KeyboardInterrupt

    network.air.silent = True
    with raises(KeyboardInterrupt):
        asyncio.run(interrupted())
    asyncio.new_event_loop()
    network.air.silent = False
    asyncio.run(wifi.up())
    assert network.traffic()


async def test_somebody_is_told_when_frames_begin_and_cease_to_pass():
    told = []
    network.on_traffic = told.append
    wifi = home()
    await wifi.up()
    network.lose_link()
    await wifi.up()
    network.lose_association()
    await wifi.reset()
    await wifi.up()
    await wifi.down()
    assert told == [True, False] * 3, told


# esp32


def esp32(**air):
    network.board("esp32")
    for name in air:
        setattr(network.air, name, air[name])
    return home()


async def test_esp32_up_joins_and_returns_with_an_address():
    wifi = esp32()
    await wifi.up()
    assert wifi.is_up() and network.traffic()
    assert wifi.dns_servers() == [network.air.dns]
    assert network.WLAN().config("reconnects") == 3
    assert network.WLAN().config("pm") == network.WLAN.PM_PERFORMANCE  # Bluetooth needs it so


async def test_esp32_a_wrong_password_is_called_so_whatever_the_driver_calls_it():
    for reason in (202, 15, 204):
        wifi = esp32(auth_reason=reason, networks={"home": "another horse"})
        await fails(wifi, "wrong password", reason)


async def test_esp32_a_network_out_of_reach_is_called_so():
    await fails(esp32(networks={}), "no such network in reach", 201)


async def test_esp32_a_missing_address_is_given_up_in_time():
    await fails(esp32(dhcp=False), "joined but got no address: check the router's DHCP", 1001)


async def test_esp32_an_expired_authentication_is_no_missing_address():
    wifi = esp32(auth_reason=2, networks={"home": "another horse"})
    await fails(wifi, "cannot join (2): check password, signal, access point, supply", 2)


async def test_esp32_a_network_with_another_security_is_called_so():
    for reason in (210, 211):
        await fails(esp32(security=reason), "it wants another security", reason)


# Other chips, with drivers of their own


async def test_nina_up_joins_and_a_lost_link_is_joined_again():
    network.board("nina")
    wifi = home()
    await wifi.up()
    assert wifi.is_up() and network.traffic()
    network.lose_link()
    await wifi.up()
    assert network.traffic()
    await wifi.reset()
    assert not wifi.is_up()
    await wifi.up()
    assert network.traffic()


async def test_nina_a_password_in_the_drivers_error_is_not_told():
    network.board("nina")
    network.air.networks["home"] = "another horse"
    text = await fails(home(), "cannot join (could not connect to ssid=home", None)
    assert "horse" not in text


async def test_esp32_an_old_error_does_not_spoil_the_next_join():
    wifi = esp32(networks={})
    await fails(wifi, "no such network in reach", 201)
    network.air.networks["home"] = "correct horse"
    await wifi.up()
    assert network.traffic()


async def test_esp32_a_lost_link_heals_by_itself():
    wifi = esp32()
    await wifi.up()
    before = len(network.calls)
    network.lose_link()
    assert not wifi.is_up()
    while not wifi.is_up():
        await asyncio.sleep_ms(1)
    assert len(network.calls) == before


async def test_esp32_a_link_that_the_driver_gave_up_is_joined_again():
    wifi = esp32()
    await wifi.up()
    network.air.networks.clear()
    network.lose_link()
    await asyncio.sleep_ms(150)
    assert network.WLAN().status() == 201
    network.air.networks["home"] = "correct horse"
    await asyncio.sleep_ms(50)
    assert not wifi.is_up()
    await wifi.up()
    assert network.traffic()


async def test_esp32_a_stuck_radio_is_switched_off_and_on():
    wifi = esp32(stuck=True)
    await fails(wifi, "cannot join (1001)", 1001)
    await fails(wifi, "cannot join (1000)", 1000)  # what it says of joining after disconnect()
    await wifi.up()
    assert network.traffic()


async def test_esp32_down_switches_the_radio_off_and_up_switches_it_on():
    wifi = esp32()
    await wifi.down()
    await wifi.up()
    await wifi.down()
    assert not network.WLAN().active() and not network.traffic()
    await wifi.reset()
    await wifi.up()
    assert network.traffic()


def on_a_new_board(test):
    """Run `test` with every driver that may make a difference to it."""
    name = test.__name__
    on_a_board_with(28, test)
    if "esp32" not in name and "nina" not in name:
        on_a_board_with(25, test)
        if "down" in name or "reset" in name:
            on_a_board_with(27, test)


def on_a_board_with(micropython, test):
    network.board("cyw43", micropython)
    WiFi._in_force = None  # as after a soft reset
    WiFi._starts = None
    wifi_faults.PORT = 9
    asyncio.new_event_loop()
    result = test()
    if hasattr(result, "send"):
        asyncio.run(result)
    assert called("scan") == []


if __name__ == "__main__":
    run_tests(globals(), on_a_new_board)
