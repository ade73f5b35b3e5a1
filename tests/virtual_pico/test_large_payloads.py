"""Payloads larger than the free heap of the chip, over TLS."""

from tests.device.large import content, digest
from tests.support.mpy import ROOT

SIZE = 180_000


def test_a_payload_larger_than_the_free_heap_goes_out_and_comes_in(desk):
    pico = desk.pico
    desk.install("giant")
    pico.put("/large.py", (ROOT / "tests/device/large.py").read_bytes())
    peer = desk.broker.peer("from/pico/giant", qos=1)
    pico.start(f"import giant; giant.main({SIZE})")
    free = int(pico.wait_for(r"^free \d+").split()[1])
    assert free < SIZE
    (message,) = peer.wait_for(timeout_s=100)
    assert digest(message.payload) == digest(content(SIZE))

    payload = content(SIZE, seed=7)
    peer.publish("to/pico/giant", payload, qos=1, timeout_s=100)
    assert pico.wait_for("^received") == f"received {SIZE} {digest(payload)} {SIZE}"
    pico.wait_for("^giant done")
