"""At the prompt: Ctrl-C and once more, as people work with Thonny and mpremote."""

import pytest

from tests.support.mpy import ROOT
from tests.virtual_pico.desk import Desk


@pytest.fixture
def desk(firmware, tmp_path, pki):
    with Desk(firmware, tmp_path, pki) as desk:
        yield desk


def test_after_ctrl_c_an_app_runs_again_in_the_same_interpreter_and_after_a_soft_reset(desk):
    pico = desk.pico
    desk.install("job")
    peer = desk.broker.peer("from/pico/count", "garden/temperature", qos=1)
    again = "import job, asyncio; asyncio.run(job.run(job.make(4)))"
    for run in range(2):
        pico.start(again)
        pico.wait_for("connected in")
        peer.wait_for(run + 1)
        pico.interrupt()
    pico.soft_reset()
    # an example as it is, on a real ADC and a real link
    pico.start((ROOT / "examples/sensor.py").read_text())
    pico.wait_for("connected in")
    (message,) = peer.wait_for(topic="garden/temperature")
    assert float(message.payload) < 200
    pico.interrupt()
