"""
What a client takes on a Pico W: bytes of its modules as .mpy, memory to import them.

The modules are those that a working program had imported: of ours an app on Wi-Fi (app.py), of
the others what connects (over TLS if they can), publishes and receives. Only chumicro-mqtt does
without asyncio, which is in the firmware, and brings a loop of its own. The cross compiler and
the 32-bit interpreter are those of `./dev freeze`: without them only the names of our modules are
shown.
"""

import subprocess
from pathlib import Path

from benchmarks.contestants import BARE, OURS, PEERS
from tests.support import mpy
from tests.support.broker import Broker
from tools import freeze
from tools.micropython_source import Source

APP = Path(__file__).parent / "app.py"
KB = 1024
# what happens to the app, and how a module that comes with it is called
STAGES = {
    "working": "a working app",
    "outage": "at the first failure",
    "subscribe": "by subscribe()",
    "disconnect": "by disconnect()",
}


def imported(folder, pki):
    """Return {module: stage in which a real app imported it}."""
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
    Return the bytes of heap that `modules` take when imported from the folder `path`. What else
    they load, of asyncio for instance, is there before.
    """
    program = f"""
import asyncio, binascii, collections, errno, gc, random, select, socket, struct, sys, time
asyncio.open_connection, asyncio.Lock, asyncio.Event, asyncio.gather, asyncio.wait_for
sys.path.insert(0, "{mpy.ROOT}/tests/fakes")
import machine, network
sys.modules["ussl"] = sys
network.WLAN().active(True)
sys.path[:] = ["{path}", ".frozen"]
gc.collect()
before = gc.mem_alloc()
{"; ".join(f"import {name}" for name in modules)}
gc.collect()
print("taken", gc.mem_alloc() - before)
"""
    output = subprocess.check_output([interpreter, "-c", program], text=True)
    return int(output.rpartition("taken ")[2])


def measure(table, folder, pki, used, absent):
    """
    Add the sizes to `table`.

    folder  for files
    used    {contestant: names of all modules that its program had imported}
    absent  {contestant: why there are none}
    """
    stages, built = imported(folder, pki), Source()
    try:
        if not built.mpy_cross_path.exists():
            raise freeze.Unavailable("mpy-cross is not built yet: run ./dev freeze first")
        compiled = folder / "mpy"
        sizes = freeze.compile_into(compiled / "mqtt_as_tls")
        working = flash(table, stages, sizes)
        modules = {OURS: [f"mqtt_as_tls.{name}" for name in working if name != "__init__"]}
        flashed = {OURS: [sum(sizes[name] for name in working)]}
        for name, names in used.items():
            of_peer = [each for each in names if source_of(each)]
            if of_peer:
                modules[name] = of_peer
                flashed[name] = [sum(compile_peer(each, compiled) for each in of_peer)]
        absent.pop(BARE, None)
        target = (OURS, "<=", 20 * KB)
        table.add("`.mpy` that a working app imports", "B", flashed, 0, target, absent)
        everything = {OURS: [sum(sizes.values())]}
        table.add("`.mpy`, everything", "B", everything, 0, (OURS, "<=", 34 * KB))
        if built.mpy_cross_path.with_name("micropython-32").exists():
            ram(table, modules, compiled, absent)
    except freeze.Unavailable as reason:
        names = " ".join(name for name in stages if stages[name] == "working")
        table.note(f"\na working app imports {names}\nno sizes: {reason}")


def source_of(module):
    """Return the file of a peer's module, None for what is not a peer's."""
    path = PEERS / module.replace(".", "/")
    for file in (path.with_name(path.name + ".py"), path / "__init__.py"):
        if file.exists():
            return file
    return None


def compile_peer(module, folder):
    """Compile a peer's module as ours are, into `folder`; return the bytes of its .mpy."""
    source = source_of(module)
    mpy_file = folder / source.relative_to(PEERS).with_suffix(".mpy")
    mpy_file.parent.mkdir(parents=True, exist_ok=True)
    cross = Source().mpy_cross()
    subprocess.check_call([cross, "-O3", "-march=armv6m", "-o", mpy_file, source])
    return mpy_file.stat().st_size


def flash(table, stages, sizes):
    """Add {module: bytes} `sizes` of ours; return the names that a working app imports."""
    table.note("\n.mpy for armv6m, -O3, and who imports it")
    order = list(STAGES)
    rank = {name: order.index(stages[name]) if name in stages else len(order) for name in sizes}
    for name in sorted(sizes, key=lambda name: (rank[name], name)):
        when = STAGES.get(stages.get(name), "when asked for")
        table.note(f"  {name:14}{when:21}{sizes[name]:9,} B")
    return [name for name in sizes if rank[name] == 0]


def ram(table, modules, compiled, absent):
    """Add the heap that {contestant: `modules`} take, ours frozen, and all in `compiled`."""
    interpreter = freeze.unix(32)
    frozen = {OURS: [heap_to_import(interpreter, modules[OURS], ".frozen")]}
    table.add("RAM to import it frozen, 32 bits", "B", frozen, 0, (OURS, "<=", 4500))
    found, absent = {}, dict(absent)
    for name, names in modules.items():
        try:
            found[name] = [heap_to_import(interpreter, names, compiled)]
        except subprocess.CalledProcessError as error:
            absent[name] = f"failed: {error.output.splitlines()[-1:]}"
    target = (OURS, "<=", 26 * KB)
    table.add("RAM to import it as .mpy, 32 bits", "B", found, 0, target, absent)
