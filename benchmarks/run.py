"""
Measure mqtt_as_tls beside a bare socket: what the README's figures come from.

    ./dev bench                        everything, in about three minutes
    ./dev bench speed memory           some parts: speed memory idle stalls sizes
    ./dev bench --json results.json    the same figures for a program, with every single run

Each figure is the median of five runs. In a run all clients are connected to the same mosquitto
on loopback, each in a process of its own, and take turns of some milliseconds; a client's figure
is the median of its turns. A ratio is the median of those of the five runs. A missed target is
shown and is no error: a busy machine misses it too.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import sizes
from tests.support import mpy, udp
from tests.support.broker import HOST, Broker, mosquitto
from tests.support.pki import PKI
from tests.support.proxy import Proxy

HERE = Path(__file__).parent
OURS, BARE = "mqtt_as_tls", "bare socket"
# name -> program; another client is one more line here and one more program
SUBJECTS = {OURS: HERE / "client.py", BARE: HERE / "bare.py"}

PAYLOAD = b"x" * 100  # these are those of common.py
WARM_UP = 20
IDLE_S = 10

# workload, cores for broker and client, messages a turn, turns a run; what it is, unit, decimals;
# what is held against the target, target
SPEED = (
    ("one_by_one", 1, 500, 15, "QoS 1 publish, one by one", "/s", 0, "ratio", ">=", 0.40),
    ("in_flight", 2, 1600, 15, "QoS 1 publish, 16 in flight", "/s", 0, "ratio", ">=", 0.40),
    ("round_trip", 1, 200, 15, "round trip through the broker", "ms", 3, OURS, "<", 0.3),
    ("publish_qos0", 2, 4000, 15, "QoS 0 publish", "/s", 0, OURS, ">=", 50_000),
    ("receive", 2, 4000, 15, "QoS 0 receive", "/s", 0, OURS, ">=", 10_000),
)
MEMORY = (
    (
        "publish_memory",
        1,
        200,
        1,
        "allocated by a QoS 1 publish of 100 B",
        "B",
        0,
        OURS,
        "<=",
        900,
    ),
    ("receive_memory", 1, 200, 1, "allocated by receiving QoS 1, 100 B", "B", 0, OURS, "<=", 900),
)
STALLS = {
    "alone": "a 1 ms ticker alone",
    "dns": "stall: silent DNS server",
    "tcp": "stall: silent broker, TCP",
    "tls": "stall: silent broker, TLS",
    "black_hole": "stall: black-holed address",
}


class Table:
    """The figures, printed as they come and kept for JSON."""

    WIDTHS = (40, 14, 14, 8, 12)

    def __init__(self):
        self.figures = []
        self._line("", *SUBJECTS, "ratio", "target")

    def _line(self, what, *cells):
        cells = [cell.rjust(width) for cell, width in zip(cells, self.WIDTHS[1:], strict=False)]
        print(what.ljust(self.WIDTHS[0]), *cells, flush=True)

    def add(self, what, unit, runs, decimals=0, held=None, relation=None, target=None):
        """
        Add a figure.

        runs     {subject: [value, ...]}, the values of one position from neighbouring runs
        held     what is held against the target: a subject or "ratio"
        relation, target  such as "<=" and 900
        """
        figure = {"what": what, "unit": unit, "runs": runs}
        figure["median"] = {name: statistics.median(each) for name, each in runs.items()}
        if BARE in runs and all(runs[BARE]):
            pairs = zip(runs[OURS], runs[BARE], strict=True)
            figure["ratio"] = statistics.median(ours / bare for ours, bare in pairs)
        verdict = wanted = ""
        if target is not None:
            value = figure["ratio"] if held == "ratio" else figure["median"][held]
            met = {
                "<": value < target,
                "<=": value <= target,
                ">=": value >= target,
            }[relation]
            figure.update(held=held, relation=relation, target=target, met=met)
            wanted = f"{relation} {target:,}"
            verdict = " ok" if met else " MISSED"
        self.figures.append(figure)
        values = [figure["median"].get(name) for name in SUBJECTS]
        cells = ["" if value is None else f"{value:,.{decimals}f} {unit}" for value in values]
        ratio = figure.get("ratio")
        self._line(what, *cells, "" if ratio is None else f"{ratio:.2f}", wanted + verdict)

    def note(self, text):
        self.figures.append({"note": text})
        print(text, flush=True)


def result_of(program):
    """Return what a running program reports next."""
    return json.loads(program.wait_for("^result ", timeout_s=60).removeprefix("result "))


def topic(name):
    """Return the topic of a subject, of the same length for each."""
    return f"bench/topic{list(SUBJECTS).index(name)}"


def place(broker, programs, cores):
    """
    Pin the broker and the clients to one core, or to one for each. Left to itself the system
    puts them on one for one client and on two for another, which halves or doubles the speed of
    those that wait for each answer.
    """
    if hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(broker._child.pid, cpus[:1])
        for program in programs:
            os.sched_setaffinity(program.pid, cpus[:1] if cores == 1 else cpus[-1:])


def start_all(stack, workload, port, count):
    """Start every subject; return {subject: program} when each waits for its turn."""
    running = {
        name: stack.enter_context(mpy.start(program, workload, port, count, topic(name)))
        for name, program in SUBJECTS.items()
    }
    for program in running.values():
        program.wait_for("^ready")
    return running


def one_run(broker, workload, cores, count, turns):
    """Return {subject: the median of its turns}; they take turns, in alternating order."""
    results = {name: [] for name in SUBJECTS}
    with contextlib.ExitStack() as stack:
        running = start_all(stack, workload, broker.port, count)
        place(broker, running.values(), cores)
        feeder = stack.enter_context(Feeder(broker.port))
        for turn in range(turns):
            for name in list(running)[:: -1 if turn % 2 else 1]:
                running[name].send("go")
                if workload == "receive":
                    feeder.flood(topic(name), count)
                elif workload == "receive_memory":
                    feeder.drip(topic(name), WARM_UP + count)
                results[name].append(result_of(running[name]))
                running[name].wait_for("^ready")
    return {name: statistics.median(each) for name, each in results.items()}


class Feeder:
    """A connection that publishes prepared packets as fast, or as slowly, as it likes."""

    def __init__(self, port):
        self._socket = socket.create_connection((HOST, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(b"\x10\x12\x00\x04MQTT\x04\x02\x00\x00\x00\x06feeder")
        assert self._socket.recv(4) == b"\x20\x02\0\0"
        threading.Thread(target=self._forget_acknowledgements, daemon=True).start()

    def _forget_acknowledgements(self):
        with contextlib.suppress(OSError):
            while self._socket.recv(4096):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @staticmethod
    def _packet(topic, qos):
        topic = topic.encode()
        body = bytes((0, len(topic))) + topic + (b"\0\1" if qos else b"") + PAYLOAD
        return bytes((0x30 | qos << 1, len(body))) + body

    def flood(self, topic, count):
        """Publish `count` messages with QoS 0 at once."""
        self._socket.sendall(self._packet(topic, 0) * count)

    def drip(self, topic, count):
        """Publish `count` messages with QoS 1, each long after the one before it."""
        for _ in range(count):
            self._socket.sendall(self._packet(topic, 1))
            time.sleep(0.003)


def loopback(table, runs, broker, workloads):
    for workload, cores, count, turns, what, unit, decimals, *target in workloads:
        found = [one_run(broker, workload, cores, count, turns) for _ in range(runs)]
        runs_of = {name: [each[name] for each in found] for name in SUBJECTS}
        table.add(what, unit, runs_of, decimals, *target)


def context_switches(pid):
    """Return how often the process `pid` has gone to sleep, or None where nobody counts it."""
    count = 0
    try:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            count += int(
                re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)[1]
            )
    except (OSError, TypeError):
        return None
    return count or None


def idle(table, port):
    found = {}
    switches = {}
    with contextlib.ExitStack() as stack:
        running = start_all(stack, "stay_idle", port, 0)
        for program in running.values():
            program.send("go")
        time.sleep(1)
        before = {name: context_switches(program.pid) for name, program in running.items()}
        time.sleep(IDLE_S - 2)
        for name, program in running.items():
            if before[name] is not None:
                switches[name] = [context_switches(program.pid) - before[name]]
        for name, program in running.items():
            found[name] = result_of(program)
    if switches:
        what = f"idle {IDLE_S - 2} s: wake-ups of the process"
        table.add(what, "", switches, 0, OURS, "<=", 0)
    woken = {name: [each["wakeups"]] for name, each in found.items()}
    table.add(f"idle {IDLE_S} s: wake-ups of the event loop", "", woken, 0, OURS, "<=", 0)
    taken = {name: [each["allocated"]] for name, each in found.items()}
    table.add(f"idle {IDLE_S} s: allocated", "B", taken, 0, OURS, "<=", 0)


@contextlib.contextmanager
def trouble(scenario):
    """Have what `scenario` of stalls.py needs; yield its port."""
    if scenario == "dns":
        with udp.DNS({}, fault="silent") as server:
            yield server.port
    elif scenario == "black_hole":
        with Proxy(0) as proxy:
            proxy.blackhole()
            yield proxy.port
    else:  # accepted by the kernel, answered by nobody
        with socket.create_server((HOST, 0)) as server:
            yield server.getsockname()[1]


def stalls(table, runs, directory):
    pki = PKI(directory)
    program = HERE / "stalls.py"

    def run(*arguments):
        with mpy.start(program, *arguments) as running:
            return result_of(running)

    for scenario, what in STALLS.items():
        found = []
        try:
            for _ in range(runs):
                with trouble(scenario) as port:
                    result = run(scenario, port, pki.ca.cert_der)
                expected = {"alone": "None", "dns": "no address for"}
                assert expected.get(scenario, "no answer within") in result["error"], result
                found.append(result["stall_ms"])
        except RuntimeError as reason:  # macOS has no black hole
            table.note(f"{what}: not measured, {reason}")
            continue
        target = () if scenario == "alone" else (OURS, "<=", 10)
        table.add(what, "ms", {OURS: found}, 1, *target)
    # one is the whole of it; what is over that is asyncio's and ours
    with Broker(directory / "stalls", "mtls", pki=pki, lines=["log_type none"]) as broker:
        device = pki.device
        arguments = (broker.port, pki.ca.cert_der, device.cert_der, device.key_der)
        found = [run("handshake", *arguments) for _ in range(runs)]
    stall, step = ([each[name] for each in found] for name in ("stall_ms", "step_ms"))
    what = "stall: TLS connect | one mbedTLS step"
    table.add(what, "ms", {OURS: stall, BARE: step}, 1, "ratio", "<=", 1.2)


def environment():
    """Return what the figures depend on: {what: text}."""
    ask = """
        import sys
        major, minor, micro, *more = sys.implementation.version
        print("MicroPython %d.%d.%d%s, %d bits" % (
            major, minor, micro, "-" + more[0] if more and more[0] else "",
            64 if sys.maxsize >> 31 else 32,
        ))
        """
    broker = subprocess.run([mosquitto(), "-h"], stdout=subprocess.PIPE, text=True).stdout
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, TypeError):
        cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)[1]
    return {
        "date": datetime.date.today().isoformat(),
        "interpreter": mpy.check(ask).strip(),
        "broker": broker.splitlines()[0],
        "machine": f"{os.cpu_count()} x {cpu}, {platform.system()}",
    }


def main():
    parts = ("speed", "memory", "idle", "stalls", "sizes")
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[1])
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(parts))
    parser.add_argument("--runs", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    if wrong := set(options.parts) - set(parts):
        parser.error(f"no part {', '.join(wrong)}; there are {', '.join(parts)}")
    wanted = options.parts or parts

    where = environment()
    print(*where.values(), sep="; ")
    print(
        f"medians of {options.runs}, payload 100 B, loopback, plain TCP where TLS is not named\n"
    )
    table = Table()
    with tempfile.TemporaryDirectory(prefix="mqtt-bench-") as folder:
        folder = Path(folder)
        # A log line a packet would slow all down, Nagle's algorithm would hold acknowledgements
        # back for up to 40 ms, and nothing may be dropped for coming fast.
        quiet = ["log_type none", "set_tcp_nodelay true", "max_queued_messages 0"]
        with Broker(folder / "broker", "tcp", lines=quiet) as broker:
            if "speed" in wanted:
                loopback(table, options.runs, broker, SPEED)
            if "memory" in wanted:
                loopback(table, options.runs, broker, MEMORY)
            if "idle" in wanted:
                idle(table, broker.port)
        if "stalls" in wanted:
            stalls(table, options.runs, folder)
        if "sizes" in wanted:
            sizes.measure(table, folder)
    if options.json:
        results = {**where, "runs": options.runs, "figures": table.figures}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
