"""
What the package takes on a Pico W: bytes of each module as .mpy, memory to import it.

The modules are those that a real app had imported (app.py). The cross compiler and the 32-bit
interpreter are those of `./dev freeze`: without them only the names of the modules are shown.
"""

import subprocess
from pathlib import Path

from tests.support import mpy
from tests.support.broker import Broker
from tests.support.pki import PKI
from tools import freeze

APP = Path(__file__).parent / "app.py"
OURS = "mqtt_as_tls"
KB = 1024
# what happens to the app, and how a module that comes with it is called
STAGES = {
    "working": "a working app",
    "outage": "at the first failure",
    "subscribe": "by subscribe()",
    "disconnect": "by disconnect()",
}


def imported(folder):
    """Return {module: stage in which a real app imported it}."""
    pki = PKI(folder)
    device = pki.device
    with Broker(folder / "sizes", "mtls", pki=pki) as broker:
        arguments = (broker.port, pki.ca.cert_der, device.cert_der, device.key_der)
        with mpy.start(APP, *arguments) as app:
            lines = [app.wait_for("^working ")]
            broker.restart()
            lines += [app.wait_for(f"^{stage} ") for stage in list(STAGES)[1:]]
    found = {}
    for line in lines:
        stage, *names = line.split()
        for name in names:
            found.setdefault(name.partition(".")[2] or "__init__", stage)
    found["clock"] = "working"  # a board's is not set at power-on, this computer's is
    found.setdefault("explain", "outage")  # dropped again when it has spoken
    return found


def heap_to_import(interpreter, modules, path):
    """
    Return the bytes of heap that `modules` take when imported from `path`. What else they load,
    of asyncio for instance, is there before.
    """
    program = f"""
import asyncio, binascii, gc, random, select, socket, sys, time
asyncio.open_connection, asyncio.Lock, asyncio.Event, asyncio.gather, asyncio.wait_for
sys.path[:] = ["{path}", ".frozen"]
gc.collect()
before = gc.mem_alloc()
{"; ".join(f"import mqtt_as_tls.{name}" for name in sorted(modules))}
gc.collect()
print(gc.mem_alloc() - before)
"""
    return int(subprocess.check_output([interpreter, "-c", program]))


def measure(table, folder):
    """Add the sizes to `table`; `folder` is for files."""
    stages = imported(folder)
    try:
        if not (freeze.OUT / "mpy-cross").exists():
            raise freeze.Unavailable("mpy-cross is not built yet: run ./dev freeze first")
        sizes = freeze.compile_into(folder / "mpy" / "mqtt_as_tls")
        working = flash(table, stages, sizes)
        if (freeze.OUT / "micropython-32").exists():
            ram(table, working, folder / "mpy")
    except freeze.Unavailable as reason:
        names = " ".join(name for name in stages if stages[name] == "working")
        table.note(f"\na working app imports {names}\nno sizes: {reason}")


def flash(table, stages, sizes):
    """Add {module: bytes} `sizes`; return the names that a working app imports."""
    table.note("\n.mpy for armv6m, -O3, and who imports it")
    order = list(STAGES)
    rank = {name: order.index(stages[name]) if name in stages else len(order) for name in sizes}
    for name in sorted(sizes, key=lambda name: (rank[name], name)):
        when = STAGES.get(stages.get(name), "when asked for")
        table.add(f"  {name:14}{when}", "B", {OURS: [sizes[name]]})
    working = [name for name in sizes if rank[name] == 0]
    of_app = sum(sizes[name] for name in working)
    table.add("`.mpy` that a working app imports", "B", {OURS: [of_app]}, 0, OURS, "<=", 20 * KB)
    table.add("`.mpy`, everything", "B", {OURS: [sum(sizes.values())]}, 0, OURS, "<=", 34 * KB)
    return working


def ram(table, working, compiled):
    """Add the heap that the modules `working` take, frozen and from the folder `compiled`."""
    interpreter = freeze.unix(32)
    modules = [name for name in working if name != "__init__"]
    for what, path, target in (
        ("RAM to import it frozen, 32 bits", ".frozen", 4500),
        ("RAM to import it as .mpy, 32 bits", compiled, 26 * KB),
    ):
        taken = heap_to_import(interpreter, modules, path)
        table.add(what, "B", {OURS: [taken]}, 0, OURS, "<=", target)
