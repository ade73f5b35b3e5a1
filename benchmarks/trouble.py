"""How long other tasks wait while mqtt_as_tls is in trouble. The programs are in stalls.py."""

import contextlib
import socket
from pathlib import Path

from benchmarks.contestants import OURS
from benchmarks.loopback import result_of
from tests.support import mpy, udp
from tests.support.broker import HOST
from tests.support.proxy import Proxy

PROGRAM = Path(__file__).parent / "stalls.py"
STALLS = {
    "alone": "a 1 ms ticker alone",
    "dns": "stall: silent DNS server",
    "tcp": "stall: silent broker, TCP",
    "tls": "stall: silent broker, TLS",
    "black_hole": "stall: black-holed address",
}


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


def measure(table, runs, pki):
    """Add the stalls to `table`."""
    for scenario, what in STALLS.items():
        found = []
        try:
            for _ in range(runs):
                with (
                    trouble(scenario) as port,
                    mpy.start(PROGRAM, scenario, port, "none", pki.ca.cert_der) as program,
                ):
                    result = result_of(program)
                expected = {"alone": "None", "dns": "no address for"}
                assert expected.get(scenario, "no answer within") in result["error"], result
                found.append(result["stall_ms"])
        except RuntimeError as reason:  # macOS has no black hole
            table.note(f"{what}: not measured, {reason}")
            continue
        target = () if scenario == "alone" else (OURS, "<=", 10)
        table.add(what, "ms", {OURS: found}, 1, target)
