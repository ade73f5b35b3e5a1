"""
What becomes of an app when faults strike it: `mqttls try`.

Each fault has a broker and a device of its own. What the app published is read from the packets
that it sent, what arrived from somebody who is subscribed to everything.
"""

import collections
import concurrent.futures
import dataclasses
import tempfile
import time
from pathlib import Path

from ..support import faketime, patience, udp
from ..support.elsewhere import Unavailable
from ..support.pki import PKI
from . import app as boards
from .broker import Broker
from .failing import LAST, wait
from .faults import CLOCKS, FAULTS, LASTING, MOMENTS, Faults, known, level, without_properties

__all__ = ["FAULTS", "MOMENTS", "Outcome", "Unavailable", "outcomes", "parse"]

AFTER_S = 5  # that it goes on for when it is back
_START_S = 60
_FIRST_S = 2  # for it to do something before
_NOTICED_S = 120
_BACK_S = 120
_TOLD_S = 30
_KEEPALIVE_S = 5  # else a silent fault is noticed after a minute or two
_AT_ONCE = 4


@dataclasses.dataclass
class Outcome:
    """
    What came of a fault.

    fault      str, as it was asked for
    unable     why it could not be tried, or ""
    error      why the app did not get over it, or ""
    back_s     seconds until it was connected again; 0 where the connection lived on
    sent       how many messages at QoS 1 and 2 it published
    lost       list of (topic, payload, QoS) of those that did not arrive
    twice      list of the same, of those that arrived more than once; with QoS 1 that may be
    taken      how many of the messages to the app it acknowledged, of `given`
    stall_ms   the longest that a task of it was kept waiting
    heap_free  bytes, the least that was free, of `heap_bytes`; None: it was not measured
    starts     how often it started, but for the test's own
    lines      its last lines
    """

    fault: str
    unable: str = ""
    error: str = ""
    back_s: float = 0
    sent: int = 0
    lost: list = dataclasses.field(default_factory=list)
    twice: list = dataclasses.field(default_factory=list)
    taken: int = 0
    given: int = 0
    stall_ms: int = 0
    heap_free: int | None = None
    heap_bytes: int | None = None
    starts: int = 0
    lines: list = dataclasses.field(default_factory=list)

    def problems(self):
        """Return what is wrong: list of (fact, cure)."""
        found = []
        if self.error:
            found.append((self.error, "see its last lines"))
        if self.lost:
            cure = "publish when the client says that it was delivered"
            if self.fault.startswith("power-cut"):
                cure = "MQTTClient(..., store=FileStore(...)) keeps them through a power cut"
            found.append((f"{_messages(self.lost)} did not arrive", cure))
        exactly = [each for each in self.twice if each[2] == 2]
        if exactly:
            found.append((f"{_messages(exactly)} arrived twice", "do not publish them again"))
        if self.taken < self.given and not self.fault.startswith("broker-wipe"):
            found.append(
                (
                    f"{self.given - self.taken} of {self.given} messages to the app were not "
                    "acknowledged",
                    "subscribe with QoS 1, let the handler return",
                )
            )
        return found

    def words(self):
        """Return the same as a sentence or two (str) for people."""
        if self.unable:
            return f"not tried: {self.unable}"
        if self.error:
            return self.error
        parts = [f"back after {self.back_s:.1f} s" if self.back_s else "stayed connected"]
        parts.append(f"{len(self.lost) or 'none'} of {self.sent} lost")
        parts.append(f"{len(self.twice)} twice" if self.twice else "none twice")
        if self.given:
            parts.append(f"{self.taken} of {self.given} sent to it taken")
        parts.append(f"other tasks waited {self.stall_ms} ms at most")
        if self.heap_free is not None:
            parts.append(f"{self.heap_free * 100 // self.heap_bytes}% of the heap left")
        if self.starts:
            parts.append(f"it reset itself {self.starts} time{'s' * (self.starts > 1)}")
        return ", ".join(parts)


def _messages(messages):
    topic, payload, qos = messages[0]
    what = f"{topic} {payload[:40]!r} at QoS {qos}"
    many = len(messages)
    return f"{many} messages ({what} is the first)" if many > 1 else f"1 message ({what})"


def parse(text):
    """
    Return (fault, moment or None) of "rst" or "rst@puback-in"; raise ValueError for what is none.
    """
    name, _, moment = text.partition("@")
    if moment and moment not in MOMENTS:
        raise ValueError(f"there is no moment {moment!r}: {', '.join(MOMENTS)}")
    return known(name), moment or None


def outcomes(main, faults=(), send=(), after_s=AFTER_S):
    """
    Yield the Outcome of each fault, in their order.

    main     Path of the app
    faults   names, as parse() takes them; none: all there are
    send     list of (topic, payload), published to the app when the fault has struck
    after_s  how long it goes on for when it is back

    Raises Unavailable where there is no mosquitto or no MicroPython.
    """
    patience.measure(1.5)
    boards.interpreter()
    with (
        tempfile.TemporaryDirectory(prefix="mqtt-try-") as folder,
        concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        pki = _pki(Path(folder))
        chosen = list(faults) or list(FAULTS)
        work = [
            pool.submit(_try, Path(folder, f"fault{number}"), pki, main, fault, send, after_s)
            for number, fault in enumerate(chosen)
        ]
        try:
            for each in work:
                yield each.result()
        finally:
            for each in work:
                each.cancel()


def _pki(folder):
    """Return a PKI whose shared certificates are there: threads are about to use it."""
    (folder / "pki").mkdir()
    pki = PKI(folder / "pki")
    for each in (pki.ca, pki.broker):
        _ = each.cert_pem, each.cert_der, each.chain_pem, each.key_pem
    return pki


def _try(folder, pki, main, fault, send, after_s):
    name, moment = parse(fault)
    found = Outcome(fault)
    folder.mkdir()
    clock = None
    with udp.SNTP() as sntp, Broker(folder / "broker", pki) as broker:
        desk = folder / "device" / "desk"
        if name in CLOCKS:
            desk.mkdir(parents=True)
            try:
                clock = faketime.Clock(desk, "2030-06-01")
            except faketime.Unavailable as reason:
                found.unable = str(reason)
                return found
            clock.set(None)
        files = boards.certificates(broker)
        own = boards.files_of(main)
        texts = [path.read_bytes() for path in own.values() if path.suffix == ".py"]
        brings_its_own = any(b"keepalive_s" in text for text in texts)
        mqtt = {} if brings_its_own else {"keepalive_s": _KEEPALIVE_S}
        config = boards.config(broker, ntp=(sntp.host, sntp.port), mqtt=mqtt)
        files["config.py"] = config.encode()
        env = clock.environment if clock else None
        with boards.App(folder / "device", main, files, env=env, wakes=True) as device:
            device.start()
            try:
                _strike(broker, device, Faults(broker, device, clock), found, moment, send)
                _look(broker, device, found, send, after_s)
            except (AssertionError, ValueError) as error:
                text = str(error).splitlines()[0]
                if isinstance(error, ValueError):
                    found.unable = text.removeprefix(f"{name}: ")
                else:
                    found.error = text
            found.lines = device.lines[-LAST:]
            found.stall_ms = device.stall_ms
            found.heap_free, found.heap_bytes = device.heap_free, device.heap_bytes
            found.starts = device.starts - 1 - (name == "power-cut")
    return found


def _strike(broker, device, faults, found, moment, send):
    name = parse(found.fault)[0]
    broker.wait_for_connection(_START_S, device)
    if moment is None:
        deadline = time.monotonic() + _FIRST_S
        while time.monotonic() < deadline and not broker.proxy.seen("PUBACK", "down"):
            time.sleep(0.05)
    device.forget_stalls()
    before, lines = broker.proxy.connections, len(device.lines)
    struck = time.monotonic()
    if moment:
        with faults.at(moment, name):
            pass
        struck = time.monotonic()
    else:
        faults(name)
    if name != "broker-away":
        _send(broker, send)
    if name == "dribble":
        time.sleep(AFTER_S)
    elif name in LASTING:
        wait(
            lambda: (
                broker.proxy.connections > before
                or any("connection lost" in each for each in device.lines[lines:])
            ),
            _NOTICED_S,
            "the app did not notice that its connection is dead",
            ended=device.ended,
        )
    faults.heal()
    if name == "broker-away":
        _send(broker, send)
    faults.recovered(_BACK_S)
    accepted = [each for each in broker.proxy.seen("CONNACK", "down") if each.at > struck]
    found.back_s = accepted[0].at - struck if accepted else 0


def _send(broker, send):
    for topic, payload in send:
        broker.publish(topic, payload)


def _look(broker, device, found, send, after_s):
    """See what arrived."""
    time.sleep(after_s)
    proxy = broker.proxy

    def answered():
        return {
            (each.connection, each.packet_id)
            for name in ("PUBACK", "PUBREC")
            for each in proxy.seen(name, "down")
            if each.passed
        }

    assert not device.failed(), device.failed()
    wait(
        lambda: not _open(proxy, answered()),
        _TOLD_S,
        "messages of the app stayed without an answer",
        ended=device.ended,
    )
    broker.settle()
    mqtt = level(proxy)
    sent = collections.Counter(
        (each.topic, _payload(each, mqtt), each.qos) for each in _distinct(proxy)
    )
    came = collections.Counter((each.topic, each.payload, each.qos) for each in broker.messages())
    found.sent = sent.total()
    found.lost = list((sent - came).elements())
    found.twice = [each for each in (came - sent).elements() if each in sent]
    found.given = len(send)
    taken = {
        (each.topic, _payload(each, mqtt))
        for each in proxy.seen("PUBLISH", "down")
        if each.qos == 0
        or any(
            answer.packet_id == each.packet_id
            for answer in proxy.seen("PUBACK", "up", each.connection)
        )
    }
    found.taken = sum((topic, payload.encode()) in taken for topic, payload in send)


def _payload(packet, mqtt):
    return without_properties(packet.payload, mqtt)


def _distinct(proxy):
    """Return the PUBLISH packets at QoS 1 and 2 of the app, each message once."""
    known, found = set(), []
    for each in proxy.seen("PUBLISH", "up"):
        key = each.packet_id, each.raw[1:]
        if each.qos and not (each.dup and key in known):
            found.append(each)
        known.add(key)
    return found


def _open(proxy, answered):
    """Return those of the last connection that have no answer."""
    return [
        each
        for each in proxy.seen("PUBLISH", "up", proxy.connections)
        if each.qos and (each.connection, each.packet_id) not in answered
    ]
