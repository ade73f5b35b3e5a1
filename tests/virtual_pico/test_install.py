"""What a user of a Pico does: mip puts the .mpy files onto it, and the README's app runs."""

import itertools
import re

from tests.support import docs
from tests.support.mpy import ROOT
from tests.virtual_pico.desk import Desk
from tests.virtual_pico.figures import install
from tests.virtual_pico.printed import of_app


def promised():
    """Return {(protocol, what): bytes} of the column of .mpy files in docs/size.md."""
    found, protocol = {}, None
    for what, *cells in itertools.chain.from_iterable(docs.tables(ROOT / "docs/size.md")):
        if connected := re.match("heap free when connected, MQTT ([35])", what):
            protocol = 5 if connected[1] == "5" else 4
            found[protocol, "free"] = int(cells[1].replace(",", ""))
        elif protocol and what.startswith("largest free block"):
            found[protocol, "largest"] = int(cells[1].replace(",", ""))
    assert len(found) == 4, found
    return found


def test_installed_by_mip_the_readmes_app_leaves_the_heap_that_the_page_promises(
    plain_firmware, dist, tmp_path, pki
):
    with Desk(plain_firmware, tmp_path, pki) as desk:
        pico = desk.pico
        peer = desk.broker.peer("devices/#")
        took_s = install(pico, dist / "mip/package.json")
        print(f"installed in {took_s:.0f} s of the chip's time")
        for protocol in (4, 5):
            free, largest = of_app(pico, protocol)
            print(f"MQTT {protocol}, connected: {free:,.0f} B free, {largest:,} B in one piece")
            peer.wait_for(protocol - 3, topic="devices/garden/temperature")
            # a line more of code does not make the page wrong
            assert free >= 0.97 * promised()[protocol, "free"]
            assert largest >= 0.9 * promised()[protocol, "largest"]
