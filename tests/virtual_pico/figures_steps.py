"""
What the C module in firmware/ gives on the emulated RP2040: `./dev pico figures steps`.

The same firmware without it and with it connects to brokers with several kinds of keys; then it is
seen how large a C heap is that one connection, and two at once, never find full.
"""

import statistics

from tests.support.pki import PKI
from tests.virtual_pico.desk import Desk
from tests.virtual_pico.printed import number, of_app, taken
from tools import firmware

ROUNDS = 3
KEYS = {
    "p256": "P-256, mutual",
    "fast": "P-256, mutual, at 200 MHz",
    "p384": "P-384, mutual",
    "rsa": "RSA-2048 broker, P-256 device",
    "chain": "RSA-2048 broker below two CAs and a root of 4096 bits",
}
COUNTS = {1: "one connection", 2: "two at once"}
_ROOM_BYTES = 80 * 1024

_CONNECT = """
import machine, measure
machine.freq({hertz})
measure.link()
from mqtt_as_tls import TLS
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der",
          server_hostname=measure.NAME, ntp=None)
for _ in range({rounds}):
    measure.step(tls)
    measure.client(tls, 4, 1)
    measure.awake(tls)
try:
    import tls_steps
    print("figure peak_bytes", tls_steps.info().peak_bytes)
except ImportError:
    pass
"""
_RESUMED = """
import machine, measure, tls_steps
machine.RTC().datetime((2027, 1, 1, 0, 0, 0, 0, 0))
measure.link()
from mqtt_as_tls import TLS
tls = TLS(ca="/certs/ca.der", cert="/certs/cert.der", key="/certs/key.der",
          server_hostname=measure.NAME, ntp=None)
tls_steps.resume(3600)
measure.reconnects(tls)
for _ in range({rounds}):
    measure.client(tls, 4, 1)
    measure.awake(tls)
print("figure resumed", tls_steps.sessions().resumed)
"""
_TOGETHER = """
import asyncio, config
asyncio.run(config.link.up())
import handshakes, machine, tls_steps
made = handshakes.context()
for _ in range(3):
    trials = [handshakes.Handshake(made) for _ in range({count})]
    while not all([trial.step() for trial in trials]):
        pass
    for trial in trials:
        trial.close()
    trial = trials = None
    handshakes.used()
print("figure missed", tls_steps.info().missed)
print("figure most", machine.mem32[{most}])  # what the C library had asked for at the most
"""


def pki_of(keys, folder):
    """Return a PKI in `folder` (Path) whose broker has keys of a kind (a str of KEYS)."""
    folder.mkdir(parents=True)
    pki = PKI(folder)
    if keys == "p384":
        pki.ca = pki.issue("ca", "ca", key="p384")
        pki.device = pki.issue("device", "client", issuer=pki.ca, key="p384")
        pki.broker = pki.issue("broker", issuer=pki.ca, key="p384")
    elif keys == "rsa":
        pki.ca = pki.issue("ca", "ca", key="rsa2048")
        pki.broker = pki.issue("broker", issuer=pki.ca, key="rsa2048")
    elif keys == "chain":
        pki.ca = above = pki.issue("ca", "ca", key="rsa4096", path_length=2)
        for below in (1, 0):
            name = f"ca {below}"
            above = pki.issue(name, "ca", issuer=above, key="rsa2048", path_length=below)
        pki.broker = pki.issue("broker", issuer=above, key="rsa2048")
    return pki


def _connections(image, keys, folder):
    with Desk(image, folder, pki_of(keys, folder / "pki")) as desk:
        desk.install("measure")
        desk.pico.soft_reset()
        hertz = 200_000_000 if keys == "fast" else 125_000_000
        code = _CONNECT.format(rounds=ROUNDS, hertz=hertz)
        said = taken(desk.pico.run(code, timeout_s=600))
        found = {f"{keys}_{name}": statistics.median(values) for name, values in said.items()}
        if keys == "p256":
            found["free_bytes"], found["largest_bytes"] = of_app(desk.pico, 4)
    return found


def _resumed(image, folder):
    with Desk(image, folder, pki_of("p256", folder / "pki")) as desk:
        desk.install("measure")
        desk.pico.soft_reset()
        said = taken(desk.pico.run(_RESUMED.format(rounds=ROUNDS), timeout_s=600))
    full_ms, *reconnect_ms = said.pop("reconnect_ms")
    assert said.pop("resumed") == [len(reconnect_ms) + 2 * ROUNDS]
    said["reconnect_ms"] = reconnect_ms
    found = {f"resumed_{name}": statistics.median(values) for name, values in said.items()}
    return {"full_reconnect_ms": full_ms, **found}


def _sufficient(image, count, folder):
    """Return the bytes of C heap that `count` connections at once do with."""
    with Desk(image, folder, pki_of("p256", folder / "pki")) as desk:
        desk.install("handshakes")
        desk.pico.soft_reset()
        most = firmware.symbols(image)["__malloc_max_sbrked_mem"]
        said = taken(desk.pico.run(_TOGETHER.format(count=count, most=most)))
    assert said["missed"] == [0]
    return int(said["most"][0])


def measure(folder):
    """Return the figures: {"frozen": …, "steps": …, "sufficient": {count: bytes}}."""
    found = {}
    for kind, image in (("frozen", firmware.rp2040()), ("steps", firmware.steps())):
        found[kind] = {"flash_bytes": firmware.flash_size(image)}
        for keys in KEYS:
            found[kind].update(_connections(image, keys, folder / f"{kind}-{keys}"))
        if kind == "steps":
            found[kind].update(_resumed(image, folder / "resumed"))
        print(kind, found[kind], flush=True)
    # with room for two
    image = firmware.rp2040(
        name="steps-roomy", module=firmware.STEPS, MICROPY_C_HEAP_SIZE=_ROOM_BYTES
    )
    found["sufficient"] = {n: _sufficient(image, n, folder / f"room-{n}") for n in COUNTS}
    return found


def table(found):
    """Return the text for docs/size.md."""

    def row(what, name, only_steps=False):
        cells = [number(found[kind][name]) for kind in ("frozen", "steps")[only_steps:]]
        return f"| {what} | {' | '.join(['–'] * only_steps + cells)} |"

    lines = [
        "| the app frozen, MQTT 3.1.1 | MicroPython as it is | with tls_steps |",
        "|---|---:|---:|",
        row("the firmware's flash, B", "flash_bytes"),
        row("MicroPython's heap, free when connected, B", "free_bytes"),
        row("the largest piece of it, B", "largest_bytes"),
    ]
    for keys, what in KEYS.items():
        lines += [
            row(f"{what}: connect to CONNACK, ms", f"{keys}_client_ms"),
            row(f"{what}: longest stall of another task, ms", f"{keys}_connect_stall_ms"),
            row(f"{what}: awake to connect, publish, disconnect, ms", f"{keys}_awake_ms"),
        ]
        if keys != "fast":
            heap = row(f"{what}: most of the C heap, B", f"{keys}_peak_bytes", only_steps=True)
            lines.append(heap)
    what = "P-256, mutual, session resumed"
    lines += [
        row(
            "P-256, mutual: TCP to CONNACK of a client that reconnects, ms",
            "full_reconnect_ms",
            True,
        ),
        row(
            f"{what}: TCP to CONNACK of a client that reconnects, ms", "resumed_reconnect_ms", True
        ),
        row(f"{what}: connect to CONNACK, ms", "resumed_client_ms", True),
        row(f"{what}: longest stall of another task, ms", "resumed_connect_stall_ms", True),
        row(f"{what}: awake to connect, publish, disconnect, ms", "resumed_awake_ms", True),
    ]
    for count, what in COUNTS.items():
        enough = number(found["sufficient"][count])
        lines.append(f"| a C heap that is never full, P-256, {what}, B | – | {enough} |")
    return "\n".join(lines) + "\n"
