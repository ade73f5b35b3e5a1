"""
Let the simulated radio of a Pico W lose its association unnoticed, or its chip hang, and see how
long a client of all defaults takes to be back, and for how long the driver blocks:

    python -m benchmarks.radio

What the driver's calls take is counted, not slept: the chip is that of tests/fakes/network.py, the
broker and the time-outs are real. Frames that a hung chip does not take cost a second each,
besides. "publishing" is a message with QoS 1 every 5 s.
"""

import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.support import patience
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.proxy import Proxy

FAULTS = ("association lost", "chip hangs")
WAIT_S = 200

APP = """
from mqtt_as_tls import WiFi, wifi, wifi_faults
from tests.device.inside import set_router
from tests.fakes import network

network.on_traffic = lambda passes: print("frames", "pass" if passes else "stop")
client = make(link=WiFi("home", "correct horse"))
set_router(9)  # it does not answer; the modules stay as they are
wifi.ticks_ms = wifi_faults.ticks_ms = network.ticks_ms

async def publishing():
    while True:
        await asyncio.sleep(5)
        if PUBLISHES:
            client.enqueue("up", "x", qos=1)

task = asyncio.create_task(publishing())
async with client:
    await client.wait_connected()
    await told("begin")
    network.blocked.clear()
    begin = time.ticks_ms()
    if HANGS:
        network.air.hung = True
        network.on_traffic(False)
    else:
        network.lose_association()
    await until(lambda: not client.connected)
    await client.wait_connected()
    waited = time.ticks_diff(time.ticks_ms(), begin)
    blocked = [ms for _, ms in network.blocked]
    print("back", waited + sum(blocked), max(blocked))
    await told("leave")
"""


def measure(hangs, publishes):
    """Return (seconds until it is back, the longest that a call of the driver blocks)."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Broker(Path(folder)) as broker,
        Proxy(broker.port) as proxy,
        Device(
            proxy,
            APP,
            names={"HANGS": hangs, "PUBLISHES": publishes},
            back_off="random",
        ) as device,
    ):
        device.wait_for("connected in")
        device.send("begin")
        device.wait_for("^frames stop", WAIT_S)
        proxy.stall()
        proxy.blackhole()
        device.wait_for("^frames pass", WAIT_S)
        proxy.rst()
        proxy.heal()
        _, total_ms, longest_ms = device.wait_for("^back", WAIT_S).split()
        device.leave()
    return int(total_ms) / 1000, int(longest_ms) / 1000


def main():
    patience.measure()
    cases = [(fault, publishes) for fault in FAULTS for publishes in (True, False)]
    results = {}

    def run(case):
        fault, publishes = case
        results[case] = measure(fault == FAULTS[1], publishes)

    threads = [threading.Thread(target=run, args=(case,)) for case in cases]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    for case in cases:
        if case not in results:
            return 1
        fault, publishes = case
        how = "publishing" if publishes else "idle"
        back_s, longest_s = results[case]
        print(f"{fault}, {how}: back after {back_s:.0f} s, the longest call {longest_s:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
