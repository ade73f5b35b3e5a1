"""
The README's app over Wi-Fi and TLS, and what goes wrong with Wi-Fi most, on MicroPython's own
`network.WLAN` over the driver's stand-in. What test_pico_w.py has for the driver is used here too.
"""

import pytest

from tests.virtual_pico.desk import Desk
from tests.virtual_pico.test_pico_w import (  # noqa: F401
    come_back,
    job,
    test_the_readmes_app_runs_over_wifi_and_tls,
)

MOST = [
    "an access point that is off",
    "a goodbye of which nobody is told",
    "another password, deauth",
    "DHCP, silent",
    "a chip that is hung",
]


@pytest.fixture(scope="module")
def desk(firmware, pki, tmp_path_factory):
    """A Desk whose board has Wi-Fi, with the package frozen in."""
    with Desk(firmware, tmp_path_factory.mktemp("desk"), pki, wifi=True) as desk:
        yield desk


@pytest.mark.parametrize("name", MOST)
def test_the_board_comes_back_after(job, name):  # noqa: F811
    come_back(job, name, most_s=20, speed=4)
