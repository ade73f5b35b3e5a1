"""At the prompt: Ctrl-C and once more, as people work with Thonny and mpremote."""

import re
import signal
import subprocess
import sys

from tests.support import patience, process
from tests.support.mpy import ROOT
from tests.virtual_pico.desk import Desk
from tests.virtual_pico.pico import install


def test_after_ctrl_c_an_app_runs_again_in_the_same_interpreter_and_after_a_soft_reset(
    either_firmware, tmp_path, pki
):
    with Desk(either_firmware, tmp_path, pki) as desk:
        _runs_again(desk)


def _runs_again(desk):
    pico = desk.pico
    desk.install("job")
    peer = desk.broker.peer("from/pico/count", "devices/garden/temperature", qos=1)
    again = "import job, asyncio; asyncio.run(job.run(job.make(4)))"
    for _ in range(2):
        pico.start(again)
        pico.wait_for("connected in")
        peer.wait_for(len(peer.messages) + 1)
        pico.interrupt()
    pico.soft_reset()
    # an example as it is, on a real ADC and a real link
    pico.start((ROOT / "examples/sensor.py").read_text())
    pico.wait_for("connected in")
    (message,) = peer.wait_for(topic="devices/garden/temperature")
    assert float(message.payload) == 437.2  # the emulator's ADC reads 0
    pico.interrupt()


def test_dev_pico_gives_a_prompt_to_mpremote_until_ctrl_c(firmware, tmp_path):
    install()  # or it is skipped
    command = [sys.executable, "-m", "tests.virtual_pico", "--folder", str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = process.spawn(command, cwd=ROOT, text=True, **pipes)
    try:
        url = next(filter(None, (re.search(r"connect (\S+)", line) for line in running.stdout)))[1]
        ask = "import mqtt_as_tls; print(mqtt_as_tls.__path__, ppp.isconnected())"
        mpremote = [sys.executable, "-m", "mpremote", "connect", url, "exec", ask]
        said = subprocess.run(
            mpremote, capture_output=True, text=True, timeout=patience.stretched(60), check=True
        )
        assert said.stdout.split() == [".frozen/mqtt_as_tls", "True"]
        lines = filter(None, (line.strip() for line in running.stdout))
        for typed, answer in (
            ("fault link=silent", "done"),
            ("fault frog=1", "no: no fault frog: link"),
            ("jump", "no: there is no jump: try help"),
            ("help power_cut", "power_cut(after_ops=None, part=0.0)"),
        ):
            running.stdin.write(typed + "\n")
            running.stdin.flush()
            assert next(line for line in lines if line.startswith(answer))
        running.stdin.close()
        process.signal_group(running, signal.SIGINT)
        assert running.wait(patience.stretched(20)) == 0
    finally:
        process.end(running)
        running.stdout.close()
