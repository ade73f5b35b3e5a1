"""The store on the Pico's own flash: through resets, and power that goes within a write."""

import collections
import re

import pytest

from tests.virtual_pico.pico import PicoReset


def promised(output, word):
    """Return the names in complete lines "word name ." of a program's output (list)."""
    return re.findall(rf"^{word} (\S+) \.$", output, re.M)


def until_the_power_goes(pico, program):
    """Run `program` (str) and return what it printed until then."""
    pico.start(program)
    with pytest.raises(PicoReset, match="power off"):
        pico.finish()
    pico.wait_for_power_off()
    return pico.output


def arrived(desk, peer):
    """Have the board send what it keeps; return how often each name arrived (Counter)."""
    desk.pico.start("import keeper; keeper.empty()")
    desk.pico.wait_for("^empty")
    # the broker hands it on after all that came before
    desk.broker.peer().publish("from/keeper/end", qos=2)
    peer.wait_for(topic="from/keeper/end")
    return collections.Counter(
        message.payload.decode() for message in peer.wait_for(topic="from/keeper")
    )


def test_what_was_enqueued_survives_a_reset_and_power_cuts_within_writes(desk):
    pico = desk.pico
    desk.install("keeper")
    kept = []
    pico.start("import keeper; keeper.keep('reset')")
    for _ in range(5):
        kept += promised(pico.wait_for("^kept") + "\n", "kept")
    pico.reset()
    # within a program of a record, of littlefs' own data, within an erase
    for cut, part in ((2, 0.5), (5, 0.1), (9, 0.9), (14, 0.0)):
        pico.power_cut(after_ops=cut, part=part)
        kept += promised(
            until_the_power_goes(pico, f"import keeper; keeper.keep('cut{cut}')"), "kept"
        )
        pico.power_on()
    assert len(kept) > 10

    peer = desk.broker.peer("from/keeper/#", qos=2)
    count = arrived(desk, peer)
    assert [name for name in kept if count[name] != 1] == []
    assert [name for name, times in count.items() if times != 1] == []


def test_qos_2_arrives_once_though_the_power_goes_again_and_again(desk):
    pico = desk.pico
    desk.install("keeper")
    peer = desk.broker.peer("from/keeper/#", qos=2)
    delivered = []
    for cut, part in ((25, 0.5), (32, 0.2), (41, 0.8)):
        pico.power_cut(after_ops=cut, part=part)
        output = until_the_power_goes(pico, f"import keeper; keeper.publish('cut{cut}', 2)")
        delivered += promised(output, "delivered")
        pico.power_on()
    assert len(delivered) > 3
    count = arrived(desk, peer)
    assert [name for name in delivered if count[name] != 1] == []
    assert [name for name, times in count.items() if times != 1] == []
