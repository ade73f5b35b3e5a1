"""
Faults by name, now or at a moment of the connection's life. Names and moments are those of the
matrix that the library itself is tried with (tests/faults/matrix.py), as far as they say something
about an app; what they leave out is in NOT_HERE, with the reason.
"""

import contextlib
import threading

from ..faults import matrix
from ..support import patience
from .failing import told

FAULTS = {
    name: matrix.FAULTS[name]
    for name in (
        *("rst", "fin", "drop", "stall-up", "stall-down", "dribble", "garbage"),
        *("link-down", "link-silent"),
    )
}
FAULTS |= {
    "broker-restart": matrix.FAULTS["restart"],
    "broker-wipe": matrix.FAULTS["wipe"],
    "oversized": "a message larger than max_packet is published to what the app subscribes to",
    "broker-away": "the broker is stopped, and refuses until it is started again",
    "power-cut": "the device loses its power in the midst of what it does; its flash stays",
    "clock-unset": matrix.FAULTS["clock-unset"],
    "clock-forward": matrix.FAULTS["clock-forward"],
}
ALIASES = {"restart": "broker-restart", "wipe": "broker-wipe"}

# Until `heal` they last
LASTING = ("stall-up", "stall-down", "dribble", "link-down", "link-silent", "broker-away")
CLOCKS = {"clock-unset": "2021-01-01T00:00:05", "clock-forward": "2046-11-23T12:00:00"}

NOT_HERE = {
    "memory": "MemoryError is the library's to survive; the app has the heap of a Pico W",
    "interrupt": "pins of the test cause interrupts",
    "sockets-full": "it is the app itself that takes them",
    "fragmented": "it is the app itself that fragments the heap",
    "move": "the app dials an address",
    "clock-back": "as clock-unset",
}

# What is sealed (TLS) or before the first packet is the library's
MOMENTS = {
    name: moment
    for name, moment in matrix.MOMENTS.items()
    if moment and moment.name not in (None, "TCP")
}

_LARGE = 6000  # bytes, more than max_packet
_MOMENT_S = 30


def known(name):
    """Return the name of a fault, as FAULTS has it; raise ValueError for what is none."""
    name = ALIASES.get(name, name)
    if name in FAULTS:
        return name
    if name in NOT_HERE:
        raise ValueError(f"the fault {name!r} is not for apps: {NOT_HERE[name]}")
    raise ValueError(f"there is no fault {name!r}: {', '.join(FAULTS)}")


class Faults:
    """
    broker  kit.broker.Broker
    device  kit.app.App
    clock   support.faketime.Clock that the device goes by, or None

    Call it with a fault's name: it strikes now. What lasts ends with `heal`, or with the `with`:

        with faults("stall-down"):
            device.wait_for("connection lost", within_s=100)
    """

    names = FAULTS
    moments = MOMENTS

    def __init__(self, broker, device, clock=None):
        self._broker, self._device, self._clock = broker, device, clock
        self._proxy = broker.proxy
        self._last = None
        self._before = 0  # how many connections there were when the fault struck

    def __call__(self, name):
        self._strike(known(name), None)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()

    @contextlib.contextmanager
    def at(self, moment, name, side="before"):
        """
        Have a fault strike at the next packet of its kind; the end of the `with` waits for it.

            with faults.at("puback-in", "rst"):
                device.desk.pin(14).set(0)
            faults.recovered()

        moment  str, which packet: of `faults.moments`
        name    str, of `faults.names`
        side    "before" it is passed on, or "after"

        Raises AssertionError when no such packet comes in time.
        """
        __tracebackhide__ = True
        name = known(name)
        if moment not in MOMENTS:
            raise ValueError(f"there is no moment {moment!r}: {', '.join(MOMENTS)}")
        wanted = MOMENTS[moment]
        qos = int(moment[-1]) if "-qos" in moment else None
        came = threading.Event()
        held = []

        def match(unit):
            return (unit.direction, unit.name) == (wanted.way, wanted.name) and qos in (
                None,
                unit.qos,
            )

        def reached(unit):
            held.append(unit)
            came.set()

        self._proxy.hold(match, reached, after=side == "after")
        yield self
        if not came.wait(patience.stretched(_MOMENT_S)):
            self._proxy.heal()
            raise AssertionError(
                told(f"the moment {moment} did not come in {_MOMENT_S} s", self._device.tail())
            )
        self._strike(name, held[0])

    def heal(self):
        """End what lasts."""
        last, self._last = self._last, None
        if last == "broker-away":
            self._broker.start()
        elif last:
            self._proxy.heal()
        if last == "link-down":
            self._device.radio("up")

    def recovered(self, within_s=60):
        """
        Return when the app is connected again, on a connection that came after the last fault, or
        after the broker was last stopped, killed or refused.
        """
        __tracebackhide__ = True
        self._broker.wait_for_connection(
            within_s, self._device, after=max(self._before, self._broker.ended)
        )

    def _strike(self, name, unit):
        """
        name  str
        unit  support.proxy.Packet at which everything is held, or None
        """
        self._before = self._proxy.connections
        self._last = name if name in LASTING else None
        if name == "dribble":
            self._before = 0  # the connection lives on
            self._proxy.dribble()
        elif name.startswith("stall"):
            self._proxy.stall(name.removeprefix("stall-"))
            self._proxy.release(name.removeprefix("stall-"))
            return
        elif name in CLOCKS:
            if self._clock is None:
                raise ValueError(f"{name} takes the fixture `clock`, before `device`")
            self._clock.set(CLOCKS[name])
            self._proxy.rst()
        elif name == "garbage":
            self._garbage(unit)
            return
        elif name == "oversized":
            self._oversized()
        else:
            getattr(self, "_" + name.replace("-", "_"))()
        if unit:
            self._proxy.release()

    def _rst(self):
        self._proxy.rst()

    def _fin(self):
        self._proxy.fin()

    def _drop(self):
        self._proxy.lose()

    def _link_down(self):
        self._device.radio("down")
        self._proxy.lose()
        self._proxy.refuse()

    def _link_silent(self):
        self._device.radio("silent")
        self._proxy.lose()
        self._proxy.blackhole()

    def _broker_restart(self):
        self._broker.restart()

    def _broker_wipe(self):
        self._broker.kill(wipe=True)
        self._broker.start()

    def _broker_away(self):
        self._broker.stop()

    def _power_cut(self):
        self._device.power_cut()

    def _garbage(self, unit):
        if unit:
            self._proxy.release(instead=b"\xff\x80\x80\x80\x80\x80")
        else:
            self._proxy.inject("down", b"\xff\x80\x80\x80\x80\x80")

    def _oversized(self):
        self._before = 0  # the connection lives on
        asked = self._proxy.seen("SUBSCRIBE", "up")
        if not asked:
            raise ValueError("oversized: the app has subscribed to nothing")
        body = without_properties(asked[0].body[2:], level(self._proxy))
        topic = body[2 : 2 + int.from_bytes(body[:2], "big")].decode()
        topic = topic.replace("#", "oversized").replace("+", "oversized")
        self._broker.publish(topic, bytes(_LARGE))


def level(proxy):
    """Return the protocol that the app speaks: 4 (MQTT 3.1.1) or 5."""
    return proxy.seen("CONNECT", "up")[0].body[6]


def without_properties(body, level):
    """Return the part (bytes) of a packet behind the properties that begin it in MQTT 5."""
    if level < 5:
        return body
    length = at = 0
    while True:
        length |= (body[at] & 127) << 7 * at
        at += 1
        if body[at - 1] < 128:
            return body[at + length :]
