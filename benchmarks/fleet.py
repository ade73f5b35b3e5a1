"""
Restart the broker of a fleet of devices, and see how they come back.

    python -m benchmarks.fleet                    200 devices, over TCP, then over mutual TLS
    python -m benchmarks.fleet --devices 20 --down-s 60 tcp
    python -m benchmarks.fleet --json fleet.json

Each device is a client of its own with a certificate that the broker checks, and publishes a
numbered message at QoS 1 every few seconds; so many run in one process under MicroPython. The
time counts from when the broker listens again. The exit status is 1 when a message was lost.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak import Numbers, Observer, spread
from tests.support import secure
from tests.support.broker import Broker
from tests.support.pki import PKI

TRANSPORTS = {"tcp": "tcp", "tls": "mtls"}  # name: listener of the broker
WAIT_S = 300

APP = """
import json
import os
import random

given = json.loads(os.getenv("FLEET"))
period_ms = int(given["period_s"] * 1000)
stopping = False

async def device(number):
    def log(line):
        if "connected in" in line:
            print("up", number, time.time())

    client = MQTTClient(
        "127.0.0.1", given["port"], tls=tls_given() if given["tls"] else None,
        client_id="device%d" % number, log=log,
    )
    n = 0
    async with client:
        while not stopping:
            await asyncio.sleep_ms(random.randrange(2 * period_ms))
            await client.publish("fleet/%d" % number, str(n), qos=1)
            n += 1
    print("published", number, n)

async def main():
    global stopping
    tasks = [asyncio.create_task(device(n)) for n in given["numbers"]]
    await told("stop")
    stopping = True
    await asyncio.gather(*tasks)
    print("left")
"""


class Fleet:
    """The processes (list of mpy.Program) and what they tell."""

    def __init__(self, processes, devices):
        self.processes = processes
        self.devices = devices

    def told(self, word):
        """Return what followed `word` in the lines of all, each as a list of str."""
        lines = [line for each in self.processes for line in each.lines]
        return [line.split()[1:] for line in lines if line.startswith(word + " ")]

    def all_up(self, since):
        """Return when each device had connected after `since` (Unix time): {number: Unix time}."""
        deadline = time.monotonic() + WAIT_S
        while True:
            up = {}
            for number, at in self.told("up"):
                if float(at) > since:
                    up.setdefault(int(number), float(at))
            if len(up) == self.devices:
                return up
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(up)} of {self.devices} within {WAIT_S} s")
            time.sleep(0.1)

    def stop(self):
        """Stop the devices; return {number: how many messages each published}."""
        for each in self.processes:
            each.send("stop")
        for each in self.processes:
            each.wait_for("^left$", WAIT_S)
        return {int(number): int(count) for number, count in self.told("published")}


def cpu_s(pid):
    """Return the seconds that the process `pid` has computed, or None where nobody counts them."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(times, window_s=1):
    """Return the most of the sorted `times` that lie within any `window_s` seconds."""
    return max(sum(at <= each < at + window_s for each in times) for at in times)


def histogram(times):
    """Return how many of `times` lie in each second, list of int."""
    return [sum(int(each) == second for each in times) for second in range(int(max(times)) + 1)]


def run(directory, transport, devices=200, processes=8, down_s=10, period_s=4, calm_s=6):
    """
    Have the devices connect, restart the broker, wait for all; return the figures (dict).

    directory  Path of an empty folder
    transport  "tcp" or "tls"
    processes  how many share the devices
    down_s     seconds that the broker is away
    period_s   between two messages of a device, on average
    calm_s     seconds from the last first connect to the restart

    Raises AssertionError when not all come back.
    """
    pki = PKI(directory)
    lines = ["log_type none", "max_queued_messages 0", "set_tcp_nodelay true"]
    listener = TRANSPORTS[transport]
    listeners = dict.fromkeys(("tcp", listener))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(
            Broker(directory / "broker", *listeners, pki=pki, persistence=True, lines=lines)
        )
        found = {f"fleet/{number}": Numbers() for number in range(devices)}
        observer = Observer(broker.ports["tcp"], found, "fleet/+")
        stack.callback(observer.close)
        tls = secure.files(pki.ca, pki.device)
        start = time.time()
        fleet = Fleet([], devices)
        for first in range(processes):
            given = {
                "numbers": list(range(first, devices, processes)),
                "port": broker.ports[listener],
                "tls": transport == "tls",
                "period_s": period_s,
            }
            app = secure.start(APP, broker.port, tls, heap="16M", env={"FLEET": json.dumps(given)})
            fleet.processes.append(stack.enter_context(app))
        first = fleet.all_up(start)
        time.sleep(calm_s)
        broker.restart(down_s=down_s)
        start_2 = time.time()
        times = sorted(at - start_2 for at in fleet.all_up(start_2 - down_s).values())
        # of the broker's new process, whose start is in it too
        cpu = cpu_s(broker.pid)
        published = fleet.stop()
        observer.wait_until(
            lambda: all(
                found[f"fleet/{number}"].expected == count for number, count in published.items()
            )
        )
        sent = sum(published.values())
        return {
            "transport": transport,
            "devices": devices,
            "processes": processes,
            "down_s": down_s,
            "first_connect_s": spread([at - start for at in first.values()]),
            "back_s": spread(times),
            "back_in_each_second": histogram([max(0, at) for at in times]),
            "most_within_a_second": peak(times),
            "broker_cpu_s": cpu,
            "sent": sent,
            "lost": sent - sum(each.count - each.twice for each in found.values()),
            "twice": sum(each.twice for each in found.values()),
        }


def show(figures):
    """Print the figures (dict) for people."""
    name = {"tcp": "TCP", "tls": "mutual TLS"}[figures["transport"]]
    print(f"{figures['devices']} devices in {figures['processes']} processes over {name}")
    for key, what in (
        ("first_connect_s", "connected, from the start of the processes"),
        ("back_s", f"back, from when the broker listens again after {figures['down_s']:g} s"),
    ):
        each = figures[key]
        print(f"  {what}: p50 {each['p50']}, p99 {each['p99']}, last {each['max']} s")
    print("  back in each second:", *figures["back_in_each_second"])
    print(f"  most within a second: {figures['most_within_a_second']}")
    if figures["broker_cpu_s"] is not None:
        print(f"  CPU of the broker until all were back: {figures['broker_cpu_s']} s")
    print(f"  QoS 1: {figures['sent']:,} sent, {figures['lost']} lost", end=", ")
    print(f"{figures['twice']} came twice", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="./dev bench fleet", description=__doc__.splitlines()[1])
    parser.add_argument("transports", nargs="*", metavar="TRANSPORT", help="tcp tls")
    parser.add_argument("--devices", type=int, default=200, help="(default: 200)")
    parser.add_argument("--processes", type=int, default=8, help="that share them (default: 8)")
    parser.add_argument("--down-s", type=float, default=10, help="of the broker (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    if wrong := set(options.transports) - set(TRANSPORTS):
        parser.error(f"no transport {', '.join(wrong)}; there are {', '.join(TRANSPORTS)}")
    results = []
    for transport in options.transports or TRANSPORTS:
        with tempfile.TemporaryDirectory(prefix="mqtt-fleet-") as folder:
            results.append(
                run(
                    Path(folder),
                    transport,
                    options.devices,
                    min(options.processes, options.devices),
                    options.down_s,
                )
            )
        show(results[-1])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(each["lost"] for each in results) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
